//! Each sentence of `balancer::io` about readiness, waiting and time, held against the simulator. The ends of a
//! connection have their own file.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use balancer::io::{Bell, Interest, Io, Listener, Stream, Timer};

use crate::exec::{Outcome, Sim};
use crate::io::{SimIo, SimStream};
use crate::kernel::Route;
use crate::peer::{accept, connect, pause, ready, sleep};
use crate::weather::Weather;

const SECOND: Duration = Duration::from_secs(1);

pub fn address() -> SocketAddr {
    "10.0.1.1:80".parse().unwrap()
}

/// Two cores in calm weather and one connection between them: the connecting end, the accepted end.
pub struct Pair {
    pub sim: Sim,
    pub near_io: SimIo,
    pub far_io: SimIo,
    pub near: Rc<SimStream>,
    pub far: Rc<SimStream>,
}

impl Pair {
    pub fn new() -> Self {
        let sim = Sim::new(1);
        sim.with_weather(|weather| *weather = Weather::calm());
        let (far_io, near_io) = (sim.core(), sim.core());
        let listener = far_io.listen(address());
        let io = far_io.clone();
        let far = sim.start(&far_io, "accept", async move { accept(&io, &listener).await.0 });
        let io = near_io.clone();
        let near =
            sim.start(&near_io, "connect", async move { connect(&io, address()).await.unwrap() });
        let near = Rc::new(sim.finish(near, SECOND));
        let far = Rc::new(sim.finish(far, SECOND));
        sim.run_for(SECOND);
        Self { sim, near_io, far_io, near, far }
    }

    pub fn settle(&self) {
        self.sim.run_for(SECOND);
    }

    /// A task of the near core waits on the near end; counts how often its wait ended.
    pub fn wait(&self, interest: Interest) -> Rc<Cell<u32>> {
        let (ended, stream) = (Rc::new(Cell::new(0)), self.near.clone());
        let count = ended.clone();
        self.near_io.spawn(async move {
            poll_fn(|cx| stream.poll_ready(cx, interest)).await;
            count.set(count.get() + 1);
        });
        self.settle();
        ended
    }
}

pub fn send(stream: &SimStream, bytes: &[u8]) -> usize {
    stream.send(&[IoSlice::new(bytes)]).unwrap()
}

fn would_block<T: std::fmt::Debug>(outcome: std::io::Result<T>) -> bool {
    outcome.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn a_short_read_clears_the_bit_and_an_exact_one_does_not() {
    let pair = Pair::new();
    assert!(!pair.near.status().is_readable);
    send(&pair.far, b"abcdefgh");
    assert!(!pair.near.status().is_readable, "bits change in a turn only");
    pair.settle();
    assert!(pair.near.status().is_readable);
    let mut four = [0; 4];
    assert_eq!(pair.near.recv(&mut four).unwrap(), 4);
    assert_eq!(pair.near.recv(&mut four).unwrap(), 4);
    assert!(pair.near.status().is_readable, "an exactly full read leaves the bit");
    assert!(pair.near.is_quiet(), "which asking the kernel corrects");
    assert!(!pair.near.status().is_readable);
    send(&pair.far, b"ij");
    pair.settle();
    assert!(!pair.near.is_quiet());
    assert_eq!(pair.near.recv(&mut four).unwrap(), 2);
    assert!(!pair.near.status().is_readable);
    assert!(would_block(pair.near.recv(&mut four)));
}

#[test]
fn a_read_that_would_block_clears_the_bit() {
    let pair = Pair::new();
    send(&pair.far, b"abcd");
    pair.settle();
    let mut four = [0; 4];
    pair.near.recv(&mut four).unwrap();
    assert!(pair.near.status().is_readable);
    assert!(would_block(pair.near.recv(&mut four)));
    assert!(!pair.near.status().is_readable);
}

#[test]
fn send_takes_what_fits_and_the_room_is_reported_once_a_third_is_free() {
    let pair = Pair::new();
    let room = 64 * 1024;
    let bytes = vec![7; room + 1];
    let (head, rest) = bytes.split_at(10);
    let taken = pair.near.send(&[IoSlice::new(head), IoSlice::new(rest)]).unwrap();
    assert_eq!(taken, room, "slices in order, and no more than there is room for");
    assert!(!pair.near.status().is_writable);
    assert!(would_block(pair.near.send(&[IoSlice::new(head)])));
    pair.settle();
    assert_eq!(pair.near.unread_by_peer(), room);
    let woken = pair.wait(Interest::WRITE);
    let mut some = vec![0; room / 4];
    assert_eq!(pair.far.recv(&mut some).unwrap(), room / 4);
    pair.settle();
    assert_eq!(woken.get(), 0, "a quarter is not enough");
    assert_eq!(pair.far.recv(&mut some).unwrap(), room / 4);
    pair.settle();
    assert_eq!(woken.get(), 1);
    assert_eq!(send(&pair.near, &bytes), room / 2);
}

#[test]
fn poll_ready_ends_for_its_interest_and_for_nothing_else() {
    let pair = Pair::new();
    let reader = pair.wait(Interest::READ);
    assert_eq!(reader.get(), 0, "writable does not end a wait for input");
    send(&pair.far, b"x");
    pair.settle();
    assert_eq!(reader.get(), 1);
    let mut byte = [0; 8];
    pair.near.recv(&mut byte).unwrap();
    assert_eq!(pair.wait(Interest::WRITE).get(), 1);
    assert_eq!(pair.wait(Interest::BOTH).get(), 1);
    let nobody = pair.wait(Interest::NONE);
    send(&pair.far, b"x");
    pair.settle();
    assert_eq!(nobody.get(), 0, "bytes are no interest");
    pair.near.cut();
    pair.settle();
    assert_eq!(nobody.get(), 1, "a reset always is");
}

#[test]
fn one_task_may_wait_for_both_directions_in_two_futures() {
    let pair = Pair::new();
    while pair.near.send(&[IoSlice::new(&[0; 4096])]).is_ok() {}
    let (stream, is_read) = (pair.near.clone(), Rc::new(Cell::new(false)));
    let flag = is_read.clone();
    pair.near_io.spawn(async move {
        let read = async {
            poll_fn(|cx| stream.poll_ready(cx, Interest::READ)).await;
            flag.set(true);
        };
        let write = poll_fn(|cx| stream.poll_ready(cx, Interest::WRITE));
        futures_lite::future::zip(read, write).await;
    });
    pair.settle();
    send(&pair.far, b"x");
    pair.settle();
    assert!(is_read.get(), "the later wait for room did not displace the wait for input");
}

#[test]
fn a_deadline_flags_and_wakes_and_never_early() {
    for seed in 0..50 {
        let sim = Sim::new(seed);
        let io = sim.core();
        sim.route(address(), Route::BlackHole);
        let stream = Rc::new(io.connect(address()).unwrap());
        let at = sim.now() + SECOND;
        stream.set_deadline(Some(sim.now() + 5 * SECOND));
        stream.set_deadline(Some(at));
        let (waiting, clock) = (stream.clone(), io.clone());
        let wait = sim.start(&io, "waiting", async move {
            let status = poll_fn(|cx| waiting.poll_ready(cx, Interest::NONE)).await;
            (status.is_expired, clock.now())
        });
        let (is_expired, when) = sim.finish(wait, 2 * SECOND);
        assert!(is_expired && when >= at && when <= at + Duration::from_millis(11));
        assert!(stream.status().is_expired, "it stays until the next deadline is set");
        stream.set_deadline(None);
        assert!(!stream.status().is_expired);
        stream.set_deadline(Some(at));
        assert!(stream.status().is_expired, "a deadline in the past has passed");
        stream.set_deadline(Some(sim.now() + SECOND));
        stream.set_deadline(None);
        sim.run_for(5 * SECOND);
        assert!(!stream.status().is_expired, "a removed deadline does not fire");
    }
}

#[test]
fn a_watched_stream_reports_its_tag_and_wakes_nobody_else() {
    let pair = Pair::new();
    let waiting = pair.wait(Interest::READ);
    pair.near.watch(Some(42));
    let (tags, io) = (Rc::new(RefCell::new(Vec::new())), pair.near_io.clone());
    let seen = tags.clone();
    pair.near_io.spawn(async move {
        loop {
            let mut fresh = Vec::new();
            poll_fn(|cx| io.poll_stirred(cx, &mut fresh)).await;
            assert!(!fresh.is_empty(), "ready only when there is a tag");
            seen.borrow_mut().extend(fresh);
        }
    });
    pair.settle();
    assert!(tags.borrow().is_empty());
    send(&pair.far, b"x");
    pair.settle();
    assert_eq!((tags.take(), waiting.get()), (vec![42], 0));
    pair.near.set_deadline(Some(pair.sim.now() + SECOND));
    pair.sim.run_for(2 * SECOND);
    assert_eq!((tags.take(), waiting.get()), (vec![42], 0), "expiry is reported too");
    assert!(pair.near.status().is_expired);
    pair.near.set_deadline(None);
    pair.near.watch(None);
    pair.near.recv(&mut [0; 8]).unwrap();
    let again = pair.wait(Interest::READ);
    send(&pair.far, b"x");
    pair.settle();
    assert_eq!((tags.take(), again.get()), (vec![], 1), "and no more once the tag is gone");
}

#[test]
fn rouse_wakes_who_waits_on_a_stream_a_listener_or_a_timer_of_this_core() {
    let pair = Pair::new();
    let polls = Rc::new(Cell::new(0));
    let (io, stream) = (pair.near_io.clone(), pair.near.clone());
    let (listener, timer) = (io.listen("10.0.2.1:9".parse().unwrap()), io.timer());
    let count = polls.clone();
    type Wait = Box<dyn Fn(&mut Context<'_>)>;
    let waits: [Wait; 3] = [
        Box::new(move |cx| assert!(stream.poll_ready(cx, Interest::READ).is_pending())),
        Box::new(move |cx| assert!(listener.poll_accept(cx).is_pending())),
        Box::new(move |cx| assert!(timer.poll_expired(cx).is_pending())),
    ];
    for wait in waits {
        let count = count.clone();
        pair.near_io.spawn(poll_fn(move |cx| {
            wait(cx);
            count.set(count.get() + 1);
            Poll::Pending
        }));
    }
    pair.settle();
    assert_eq!(polls.get(), 3);
    pair.far_io.rouse();
    pair.settle();
    assert_eq!(polls.get(), 3, "another core's rouse is not ours");
    pair.near_io.rouse();
    pair.settle();
    assert_eq!(polls.get(), 6);
}

#[test]
fn rings_merge_and_none_is_lost() {
    let sim = Sim::new(3);
    let io = sim.core();
    let (heard, bell) = (Rc::new(Cell::new(0)), io.bell());
    bell.ring();
    let (count, io_of_task) = (heard.clone(), io.clone());
    io.spawn(async move {
        loop {
            poll_fn(|cx| io_of_task.poll_rung(cx)).await;
            count.set(count.get() + 1);
        }
    });
    sim.run_for(SECOND);
    assert_eq!(heard.get(), 1, "a ring from before the wait counts");
    std::thread::scope(|scope| {
        scope.spawn(|| bell.ring());
    });
    bell.clone().ring();
    sim.run_for(SECOND);
    assert_eq!(heard.get(), 2, "two rings became one");
    sim.run_for(SECOND);
    assert_eq!(heard.get(), 2);
}

#[test]
fn a_timer_is_pending_while_unset_and_ready_from_its_deadline_on() {
    let sim = Sim::new(4);
    let io = sim.core();
    let timer = Rc::new(io.timer());
    let (ready_count, waiting) = (Rc::new(Cell::new(0)), timer.clone());
    let count = ready_count.clone();
    io.spawn(async move {
        loop {
            poll_fn(|cx| waiting.poll_expired(cx)).await;
            poll_fn(|cx| waiting.poll_expired(cx)).await;
            count.set(count.get() + 1);
            waiting.set(None);
        }
    });
    sim.run_for(3600 * SECOND);
    assert_eq!(ready_count.get(), 0);
    timer.set(Some(sim.now() + SECOND));
    timer.set(Some(sim.now() + 3 * SECOND));
    sim.run_for(2 * SECOND);
    assert_eq!(ready_count.get(), 0, "replaced");
    sim.run_for(2 * SECOND);
    assert_eq!(ready_count.get(), 1);
    let other = io.timer();
    other.set(Some(io.now()));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(other.poll_expired(&mut cx).is_ready(), "one in the past has passed");
}

#[test]
fn now_stands_still_within_a_turn_and_a_spawn_may_poll_at_once() {
    let sim = Sim::new(5);
    sim.with_weather(|weather| *weather = Weather::calm());
    let io = sim.core();
    let order = Rc::new(RefCell::new(Vec::new()));
    let (io_of_task, log) = (io.clone(), order.clone());
    let task = sim.start(&io, "spawner", async move {
        let before = io_of_task.now();
        let inner = log.clone();
        io_of_task.spawn(async move { inner.borrow_mut().push("spawned") });
        log.borrow_mut().push("spawner");
        pause().await;
        assert_eq!(io_of_task.now(), before);
        let wall = io_of_task.wall();
        sleep(&io_of_task, SECOND).await;
        assert_eq!(io_of_task.now().since(before), SECOND);
        assert_eq!(io_of_task.wall().as_ms() - wall.as_ms(), 1000);
    });
    sim.finish(task, 2 * SECOND);
    assert_eq!(*order.borrow(), ["spawned", "spawner"], "as glommio does");
}

#[test]
fn a_failed_accept_is_an_error_and_the_next_call_goes_on() {
    let sim = Sim::new(6);
    sim.with_weather(|weather| weather.accept_error_percent = 50);
    let (far, near) = (sim.core(), sim.core());
    let listener = far.listen(address());
    let io = far.clone();
    let server = sim.start(&far, "server", async move {
        let (mut streams, mut errors) = (Vec::new(), 0);
        while streams.len() < 20 {
            match poll_fn(|cx| listener.poll_accept(cx)).await {
                Ok((movable, peer)) => streams.push((io.adopt(movable).unwrap(), peer)),
                Err(_) => errors += 1,
            }
        }
        (streams, errors)
    });
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let io = near.clone();
            sim.start(&near, "client", async move { connect(&io, address()).await.unwrap() })
        })
        .collect();
    let near_ends = sim.finish_all(clients, SECOND);
    let (far_ends, errors) = sim.finish(server, SECOND);
    assert!(errors > 3);
    for (_, peer) in &far_ends {
        assert!(near_ends.iter().any(|near| near.local() == *peer), "who is at the other end");
    }
}

#[test]
fn spurious_wakes_do_not_end_a_wait() {
    let pair = Pair::new();
    pair.sim.with_weather(|weather| weather.spurious_percent = 100);
    let stream = pair.near.clone();
    let wait = pair.sim.start(&pair.near_io, "waiting", async move {
        ready(&stream, Interest::NONE).await.unwrap().is_reset
    });
    send(&pair.far, b"x");
    assert_eq!(pair.sim.run_until(SECOND, || wait.is_done()), Outcome::Dead);
    pair.near.cut();
    assert!(pair.sim.finish(wait, SECOND));
}
