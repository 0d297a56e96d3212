//! A seed is a run: the same seed gives the same trace, another seed another; a panic is never lost; a relay over the
//! seam loses, adds and reorders nothing in any weather.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use balancer::io::{Interest, Io, Stream};

use crate::exec::{Outcome, Sim};
use crate::io::{SimIo, SimListener, SimStream};
use crate::peer::{Conn, accept, connect, pause, send_paced, sleep};
use crate::runner;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Sends back what it reads until the end of input, then ends.
async fn echo(io: SimIo, listener: SimListener) {
    loop {
        let (stream, _) = accept(&io, &listener).await;
        let mut conn = Conn::new(&io, stream);
        io.spawn(async move {
            while conn.fill(3000).await.is_ok_and(|n| n > 0) {
                let bytes = std::mem::take(&mut conn.ahead);
                if conn.send(&bytes).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Bytes from one stream to the other through a small buffer; one of the two tasks of a relay.
async fn pour(from: Rc<SimStream>, to: Rc<SimStream>) {
    let mut buffer = [0; 900];
    let (mut start, mut end) = (0, 0);
    loop {
        if start == end {
            match from.recv(&mut buffer) {
                Ok(0) => return to.finish(),
                Ok(n) => (start, end) = (0, n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll_fn(|cx| from.poll_ready(cx, Interest::READ)).await;
                }
                Err(_) => return to.abort(),
            }
        } else {
            match to.send(&[IoSlice::new(&buffer[start..end])]) {
                Ok(n) => start += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll_fn(|cx| to.poll_ready(cx, Interest::WRITE)).await;
                }
                Err(_) => return from.abort(),
            }
        }
    }
}

/// Both directions in one task: a stream is waited on by one task at a time.
async fn relay(io: SimIo, listener: SimListener, to: SocketAddr) {
    loop {
        let (client, _) = accept(&io, &listener).await;
        let io_of_task = io.clone();
        io.spawn(async move {
            let client = Rc::new(client);
            let backend = Rc::new(connect(&io_of_task, to).await.expect("the echo listens"));
            let up = pour(client.clone(), backend.clone());
            futures_lite::future::zip(up, pour(backend, client)).await;
        });
    }
}

/// Five clients through a relay to an echo, one after another in each; returns the trace hash.
fn relayed_echoes(sim: &Sim) -> u64 {
    let (far, middle, crowd) = (sim.core(), sim.core(), sim.core());
    let (echo_at, relay_at) = (address("10.0.1.1:7"), address("10.0.2.1:8"));
    sim.start(&far, "echo", echo(far.clone(), far.listen(echo_at)));
    sim.start(&middle, "relay", relay(middle.clone(), middle.listen(relay_at), echo_at));
    let mut clients = Vec::new();
    for n in 0..5_u8 {
        let io = crowd.clone();
        let length = 1 + sim.below(20_000) as usize;
        let client = async move {
            let said: Vec<u8> = (0..length).map(|i| (i / 7) as u8 ^ n).collect();
            let mut conn = Conn::connect(&io, relay_at).await.expect("the relay listens");
            let (io, stream) = (io.clone(), conn.stream.clone());
            let send = send_paced(&io, &stream, &said, 500, Duration::ZERO);
            let read = async {
                while conn.heard.len() < length {
                    assert_ne!(conn.fill(4096).await.unwrap(), 0, "ended early");
                }
            };
            futures_lite::future::zip(async { send.await.unwrap() }, read).await;
            conn.stream.finish();
            conn.end().await.expect("an orderly end");
            assert!(conn.heard == said, "what comes back is what was said");
        };
        clients.push(sim.start(&crowd, format!("client {n}"), client));
    }
    sim.finish_all(clients, Duration::from_secs(600));
    assert_ne!(sim.run_until(Duration::from_secs(5), || false), Outcome::Met);
    assert!(sim.is_at_rest());
    for io in [&far, &middle, &crowd] {
        assert!(sim.open_streams(io).is_empty(), "everything was closed");
    }
    sim.trace_hash()
}

#[test]
fn a_relay_loses_nothing_in_any_weather() {
    runner::seeds("a_relay_loses_nothing_in_any_weather", 300, |sim| {
        relayed_echoes(sim);
    });
}

#[test]
fn a_seed_is_a_run() {
    let mut hashes = Vec::new();
    for seed in 0..40 {
        let first = relayed_echoes(&Sim::new(seed));
        assert_eq!(first, relayed_echoes(&Sim::new(seed)), "seed {seed}");
        hashes.push(first);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 40, "each seed is another run");
}

#[test]
fn every_order_of_two_ready_tasks_comes_up() {
    let mut orders = [0; 2];
    for seed in 0..64 {
        let sim = Sim::new(seed);
        sim.with_weather(|weather| weather.poll_at_spawn_percent = 0);
        let io = sim.core();
        let order = Rc::new(RefCell::new(Vec::new()));
        for n in 0..2 {
            let order = order.clone();
            io.spawn(async move { order.borrow_mut().push(n) });
        }
        assert_eq!(sim.run_until(Duration::ZERO, || order.borrow().len() == 2), Outcome::Met);
        orders[order.borrow()[0]] += 1;
    }
    assert!(orders.iter().all(|&n| n > 16), "{orders:?}");
}

#[test]
fn a_panic_in_a_task_fails_the_run_even_when_contained() {
    let fails =
        |scenario: fn(&Sim)| catch_unwind(|| runner::run("(expected)", 1, scenario)).is_err();
    assert!(fails(|sim| {
        let io = sim.core();
        io.spawn(async { panic!("expected: in a task") });
        sim.run_for(Duration::from_secs(1));
    }));
    assert!(fails(|sim| {
        let io = sim.core();
        io.spawn(async {
            let _ = catch_unwind(AssertUnwindSafe(|| panic!("expected: contained")));
        });
        sim.run_for(Duration::from_secs(1));
    }));
    assert!(!fails(|_| {}));
}

#[test]
fn a_task_that_spins_is_found_out() {
    let spin = |sim: &Sim| {
        let io = sim.core();
        io.spawn(async {
            loop {
                pause().await;
            }
        });
        sim.run_for(Duration::from_secs(3600));
    };
    assert!(catch_unwind(|| runner::run("(expected)", 1, spin)).is_err());
}

#[test]
fn the_clock_jumps_and_a_dead_world_is_told_from_a_late_one() {
    let sim = Sim::new(7);
    let io = sim.core();
    let is_awake = Rc::new(Cell::new(false));
    let (flag, io_of_task) = (is_awake.clone(), io.clone());
    let sleeper = sim.start(&io, "sleeper", async move {
        sleep(&io_of_task, Duration::from_secs(3600)).await;
        flag.set(true);
    });
    let start = sim.now();
    assert_eq!(sim.run_until(Duration::from_secs(10), || is_awake.get()), Outcome::Late);
    assert_eq!(sim.now().since(start), Duration::from_secs(10));
    assert!(sim.is_at_rest() && !sleeper.is_done());
    assert_eq!(sim.run_until(Duration::from_secs(4000), || is_awake.get()), Outcome::Met);
    assert_eq!(sim.run_until(Duration::from_secs(10), || false), Outcome::Dead);
}
