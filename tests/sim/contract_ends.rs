//! How connections begin and end: connects that fail, FIN, reset, and what Linux makes of unread bytes.

use std::io::{ErrorKind, IoSlice};
use std::rc::Rc;
use std::time::Duration;

use balancer::io::{Interest, Io, Stream};

use crate::contract::{Pair, address, send};
use crate::exec::Sim;
use crate::kernel::Route;
use crate::peer::{Conn, accept, connect};

const SECOND: Duration = Duration::from_secs(1);

fn kind<T>(outcome: std::io::Result<T>) -> Option<ErrorKind> {
    outcome.err().map(|error| error.kind())
}

/// How long a connect took and what came of it.
fn connect_over(route: Option<Route>) -> (Option<ErrorKind>, Duration) {
    let sim = Sim::new(2);
    let io = sim.core();
    let listener = io.listen(address());
    match route {
        Some(route) => sim.route(address(), route),
        None => drop(listener),
    }
    let (from, io_of_task) = (sim.now(), io.clone());
    let outcome =
        sim.start(&io, "connect", async move { kind(connect(&io_of_task, address()).await) });
    let outcome = sim.finish(outcome, 200 * SECOND);
    (outcome, sim.now().since(from))
}

#[test]
fn a_connect_is_refused_unanswered_slow_or_impossible() {
    let soon = Duration::from_millis(100);
    assert!(matches!(connect_over(None), (Some(ErrorKind::ConnectionRefused), t) if t < soon));
    let refused = connect_over(Some(Route::Refuse));
    assert!(matches!(refused, (Some(ErrorKind::ConnectionRefused), t) if t < soon));
    let (silent, after) = connect_over(Some(Route::BlackHole));
    assert_eq!(silent, Some(ErrorKind::TimedOut));
    assert!(after >= Duration::from_secs(127), "the kernel's patience, not ours");
    let unreachable = connect_over(Some(Route::Unreachable));
    assert_eq!(unreachable.0, Some(ErrorKind::NetworkUnreachable));
}

#[test]
fn a_failed_connect_turns_writable_and_reset_and_says_why_once() {
    let sim = Sim::new(2);
    let io = sim.core();
    let stream = io.connect(address()).unwrap();
    assert_eq!(stream.status(), balancer::io::Status::default());
    assert!(stream.connected().is_ok(), "SO_ERROR knows nothing yet");
    assert_eq!(kind(stream.recv(&mut [0; 8])), Some(ErrorKind::WouldBlock));
    assert_eq!(kind(stream.send(&[IoSlice::new(b"early")])), Some(ErrorKind::WouldBlock));
    sim.run_for(SECOND);
    assert!(stream.status().is_writable && stream.status().is_reset);
    assert_eq!(kind(stream.connected()), Some(ErrorKind::ConnectionRefused));
}

#[test]
fn a_slow_connect_takes_its_time() {
    let sim = Sim::new(2);
    let io = sim.core();
    let _listener = io.listen(address());
    sim.route(address(), Route::Slow(3 * SECOND));
    let stream = io.connect(address()).unwrap();
    sim.run_for(2 * SECOND);
    assert!(!stream.status().is_writable);
    sim.run_for(2 * SECOND);
    assert!(stream.status().is_writable && stream.connected().is_ok());
    assert!(!stream.status().is_reset);
}

#[test]
fn a_fin_is_read_after_the_bytes_and_makes_reading_sticky() {
    let pair = Pair::new();
    send(&pair.far, b"last words");
    pair.far.finish();
    pair.settle();
    let status = pair.near.status();
    assert!(status.is_readable && status.is_finished && !status.is_reset);
    assert!(!pair.near.is_quiet());
    let mut buffer = [0; 64];
    assert_eq!(pair.near.recv(&mut buffer).unwrap(), 10);
    assert!(pair.near.status().is_readable, "no second edge comes for the end");
    assert_eq!(pair.near.recv(&mut buffer).unwrap(), 0);
    assert_eq!(pair.near.recv(&mut buffer).unwrap(), 0);
    assert!(pair.near.status().is_readable);
    assert_eq!(send(&pair.near, b"still possible"), 14, "a FIN ends one direction only");
    pair.settle();
    assert_eq!(pair.far.recv(&mut buffer).unwrap(), 14);
    assert!(kind(pair.far.send(&[IoSlice::new(b"x")])) == Some(ErrorKind::BrokenPipe));
}

#[test]
fn a_close_without_unread_bytes_is_a_fin_and_writing_into_it_a_reset() {
    let Pair { sim, near, far, near_io: _near_io, far_io: _far_io } = Pair::new();
    drop(far);
    sim.run_for(SECOND);
    assert!(near.status().is_finished && !near.status().is_reset);
    assert_eq!(send(&near, b"into the void"), 13, "nobody knows yet");
    sim.run_for(SECOND);
    assert!(near.status().is_reset);
    assert_eq!(near.recv(&mut [0; 8]).unwrap(), 0, "the FIN came first");
    assert_eq!(kind(near.send(&[IoSlice::new(b"x")])), Some(ErrorKind::BrokenPipe));
}

#[test]
fn a_close_over_unread_bytes_is_a_reset() {
    let Pair { sim, near, far, near_io: _near_io, far_io: _far_io } = Pair::new();
    send(&near, b"never read");
    sim.run_for(SECOND);
    drop(far);
    sim.run_for(SECOND);
    assert!(near.status().is_reset);
    assert_eq!(kind(near.recv(&mut [0; 8])), Some(ErrorKind::ConnectionReset));
}

#[test]
fn after_a_reset_what_had_arrived_is_read_then_one_error_then_the_end() {
    let Pair { sim, near, far, near_io: _near_io, far_io: _far_io } = Pair::new();
    send(&far, b"arrived");
    sim.run_for(SECOND);
    far.abort();
    assert!(!near.status().is_reset, "abort acts on the coming close");
    drop(far);
    sim.run_for(SECOND);
    let status = near.status();
    assert!(status.is_readable && status.is_writable && status.is_reset && status.is_finished);
    let mut buffer = [0; 64];
    assert_eq!(near.recv(&mut buffer).unwrap(), 7);
    assert_eq!(kind(near.recv(&mut buffer)), Some(ErrorKind::ConnectionReset));
    assert_eq!(near.recv(&mut buffer).unwrap(), 0, "SO_ERROR is told once");
    assert!(near.status().is_reset && near.status().is_readable);
}

/// On Linux the call that comes first takes the error with it, and if that happens before epoll was asked, no event
/// ever tells of the reset. The stream remembers, so that a read is told of it, too.
#[test]
fn an_error_taken_by_send_before_the_turn_is_still_known_as_a_reset() {
    let Pair { sim, near, far, near_io, far_io: _far_io } = Pair::new();
    far.abort();
    drop(far);
    let is_spent = Rc::new(std::cell::Cell::new(false));
    let (flag, stream) = (is_spent.clone(), near.clone());
    // A task that keeps its core from its turn while the reset arrives.
    near_io.spawn(async move {
        let mut outcome = Ok(1);
        while outcome.is_ok() {
            outcome = stream.send(&[IoSlice::new(b"x")]);
            crate::peer::pause().await;
        }
        assert_eq!(kind(outcome), Some(ErrorKind::ConnectionReset));
        flag.set(true);
    });
    sim.with_weather(|weather| weather.poll_cost_max = Duration::from_micros(1));
    sim.run_for(SECOND);
    assert!(is_spent.get());
    assert_eq!(kind(near.recv(&mut [0; 8])), Some(ErrorKind::ConnectionReset));
}

#[test]
fn a_cut_is_seen_at_both_ends() {
    let pair = Pair::new();
    send(&pair.near, b"lost or not");
    pair.near.cut();
    pair.settle();
    assert!(pair.near.status().is_reset && pair.far.status().is_reset);
}

#[test]
fn both_directions_ended_is_an_end_not_a_reset() {
    let pair = Pair::new();
    pair.near.finish();
    pair.far.finish();
    pair.settle();
    for end in [&pair.near, &pair.far] {
        assert!(end.status().is_finished && !end.status().is_reset, "EPOLLHUP without EPOLLERR");
    }
    pair.near.finish();
    assert!(pair.sim.open_streams(&pair.near_io).len() == 1, "only a drop closes");
}

#[test]
fn a_purging_peer_loses_what_it_had_not_read() {
    let Pair { sim, near, far, near_io: _near_io, far_io: _far_io } = Pair::new();
    near.purge_on_reset();
    send(&far, b"an answer");
    sim.run_for(SECOND);
    far.abort();
    drop(far);
    sim.run_for(SECOND);
    assert_eq!(kind(near.recv(&mut [0; 64])), Some(ErrorKind::ConnectionReset));
}

#[test]
fn a_closed_listener_resets_its_backlog_and_refuses_the_next() {
    let sim = Sim::new(9);
    let (far, near) = (sim.core(), sim.core());
    let listener = far.listen(address());
    let io = near.clone();
    let first = sim.start(&near, "first", async move { connect(&io, address()).await });
    let first = sim.finish(first, SECOND).expect("the kernel accepts into the backlog");
    assert_eq!(sim.open_streams(&far).len(), 1);
    drop(listener);
    assert!(!sim.is_listening(&far, address()));
    sim.run_for(SECOND);
    assert!(first.status().is_reset && sim.open_streams(&far).is_empty());
    let io = near.clone();
    let second = sim.start(&near, "second", async move { kind(connect(&io, address()).await) });
    assert_eq!(sim.finish(second, SECOND), Some(ErrorKind::ConnectionRefused));
}

#[test]
fn in_rough_weather_bytes_arrive_in_order_and_the_end_last() {
    crate::runner::seeds("in_rough_weather_bytes_arrive_in_order_and_the_end_last", 200, |sim| {
        let (far, near) = (sim.core(), sim.core());
        let listener = far.listen(address());
        let said: Vec<u8> = (0..30_000_u32).map(|i| (i / 5) as u8).collect();
        let (io, bytes) = (near.clone(), said.clone());
        let client = sim.start(&near, "client", async move {
            let mut conn = Conn::connect(&io, address()).await.unwrap();
            conn.send(&bytes).await.unwrap();
        });
        let io = far.clone();
        let server = sim.start(&far, "server", async move {
            let (stream, _) = accept(&io, &listener).await;
            let mut conn = Conn::new(&io, stream);
            let mut reads = 0;
            while conn.fill(1000).await.unwrap() > 0 {
                reads += 1;
            }
            assert!(reads >= 30, "the bit of the end may come later than the end");
            conn.heard
        });
        sim.finish(client, 600 * SECOND);
        assert!(sim.finish(server, 600 * SECOND) == said);
    });
}

#[test]
#[should_panic(expected = "Ok(0) would look like the end")]
fn recv_into_nothing_is_the_callers_mistake() {
    let _ = Pair::new().near.recv(&mut []);
}

#[test]
fn a_connect_ends_a_wait_for_nothing_only_when_it_fails() {
    let sim = Sim::new(1);
    let io = sim.core();
    let stream = io.connect(address()).unwrap();
    let wait = sim.start(&io, "waiting", async move {
        std::future::poll_fn(|cx| stream.poll_ready(cx, Interest::NONE)).await.is_reset
    });
    assert!(sim.finish(wait, SECOND));
}
