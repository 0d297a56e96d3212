//! Who is waited for, and how long. Never less than promised, and not much more.

use std::time::Duration;

use balancer::config::Timeouts;
use balancer::io::Io;
use balancer::time::Instant;

use super::{PLAY_MAX, SECOND, Scene};
use crate::client::Client;
use crate::house::SLACK;
use crate::ledger::Heard;
use crate::peer::{send_paced, sleep};
use crate::runner::seeds;
use crate::wire::Broken;

fn assert_about(since: Instant, now: Instant, timeout: Duration) {
    let took = now.since(since);
    // A peer sees the beginning and the end a little later than the worker, in either order.
    let early = Duration::from_millis(50);
    assert!(took + early >= timeout && took <= timeout + SLACK, "{took:?}, not {timeout:?}");
}

fn timeouts() -> Timeouts {
    crate::house::config().timeouts
}

#[test]
fn a_head_that_does_not_come_is_answered_408() {
    seeds("a_head_that_does_not_come_is_answered_408", 150, |sim| {
        let scene = Scene::new(sim, 1);
        let drips = sim.below(2) == 0;
        scene.one(async move |mut client: Client| {
            if drips {
                // Before the head under test: its clock must not run on from an earlier one.
                client.get("len=5").await;
                sleep(&client.conn.io, 20 * SECOND).await;
            }
            let ask = client.plan("GET", 0, "len=5");
            let bytes = ask.bytes();
            let (io, stream) = (client.conn.io.clone(), client.conn.stream.clone());
            let since = io.now();
            // A byte a second must not keep the head alive.
            let gap = if drips { SECOND } else { Duration::ZERO };
            let piece = if drips { 1 } else { 30 };
            let send = async { drop(send_paced(&io, &stream, &bytes[..30], piece, gap).await) };
            let hear = async {
                assert_eq!(client.hear(&ask).await.status(), Some(408));
                assert_about(since, io.now(), timeouts().header);
            };
            futures_lite::future::zip(send, hear).await;
        });
        scene.end();
    });
}

#[test]
fn an_idle_client_is_closed_without_a_word() {
    seeds("an_idle_client_is_closed_without_a_word", 150, |sim| {
        let scene = Scene::new(sim, 1);
        let asks_first = sim.below(2) == 0;
        scene.one(async move |mut client: Client| {
            if asks_first {
                client.get("len=5").await;
            }
            let since = client.conn.io.now();
            client.expect_end().await;
            assert_about(since, client.conn.io.now(), timeouts().idle);
        });
        scene.end();
    });
}

#[test]
fn an_upload_that_falls_silent_is_answered_408() {
    seeds("an_upload_that_falls_silent_is_answered_408", 150, |sim| {
        let scene = Scene::new(sim, 2);
        let is_chunked = sim.below(2) == 0;
        scene.one(async move |mut client: Client| {
            let mut ask = client.plan("POST", 3_000, "len=5");
            ask.chunk = is_chunked.then_some(700);
            let bytes = ask.bytes();
            client.conn.send(&bytes[..bytes.len() - 500]).await.unwrap();
            let since = client.conn.io.now();
            assert_eq!(client.hear(&ask).await.status(), Some(408));
            assert_about(since, client.conn.io.now(), timeouts().body);
            client.expect_end().await;
        });
        scene.end();
    });
}

#[test]
fn an_upload_that_keeps_moving_is_not_hurried() {
    seeds("an_upload_that_keeps_moving_is_not_hurried", 100, |sim| {
        let scene = Scene::new(sim, 1);
        scene.one(async |mut client: Client| {
            let ask = client.plan("POST", 600, "len=5");
            client.conn.send(ask.head().as_bytes()).await.unwrap();
            // 12 pieces, 8 s apart: longer than any single timeout, and never silent for one.
            let (io, stream, body) =
                (client.conn.io.clone(), client.conn.stream.clone(), ask.body());
            let send = async {
                send_paced(&io, &stream, &body, 50, 8 * SECOND).await.expect("all is read");
            };
            let hear = async { assert_eq!(client.hear(&ask).await.status(), Some(200)) };
            futures_lite::future::zip(send, hear).await;
        });
        scene.end();
    });
}

#[test]
fn a_backend_that_does_not_answer_is_a_504() {
    seeds("a_backend_that_does_not_answer_is_a_504", 150, |sim| {
        let scene = Scene::new(sim, 2);
        let upload = sim.below(2) as usize * 900;
        scene.one(async move |mut client: Client| {
            let method = if upload == 0 { "GET" } else { "POST" };
            let ask = client.plan(method, upload, "how=hang");
            client.conn.send(&ask.bytes()).await.unwrap();
            let since = client.conn.io.now();
            assert_eq!(client.hear(&ask).await.status(), Some(504));
            assert_about(since, client.conn.io.now(), timeouts().request);
        });
        sim.run_for(SECOND);
        let broken_off: u32 = scene.backends.iter().map(|b| b.broken_off.get()).sum();
        assert_eq!(broken_off, 1, "a timeout is not tried elsewhere, and the backend is let go");
        scene.end();
    });
}

#[test]
fn an_answer_that_falls_silent_is_cut() {
    seeds("an_answer_that_falls_silent_is_cut", 150, |sim| {
        let scene = Scene::new(sim, 1);
        let framing = ["length", "chunked", "close"][sim.below(3) as usize];
        scene.one(async move |mut client: Client| {
            let ask = client.plan("GET", 0, &format!("len=4000&how=silent&as={framing}"));
            let since = client.conn.io.now();
            let heard = client.ask(&ask).await;
            let Heard::Broken { how, body, .. } = heard else { panic!("whole? {heard:?}") };
            assert!(how == Broken::Cut || how == Broken::Reset, "{how:?}");
            assert!(ask.nonce.body(4000).starts_with(&body));
            assert!(client.conn.io.now().since(since) + SECOND >= timeouts().request);
        });
        scene.end();
    });
}

/// What the worker holds for a client that does not read is bounded, and nothing of it is lost.
#[test]
fn a_slow_reader_holds_the_backend() {
    seeds("a_slow_reader_holds_the_backend", 100, |sim| {
        sim.with_weather(|weather| weather.buffer_bytes = (2_000, PIPE_BYTES));
        let scene = Scene::new(sim, 1);
        let how = ["length", "chunked", "close"][sim.below(3) as usize];
        let backend = scene.backends[0].clone();
        scene.one(async move |mut client: Client| {
            let ask = client.plan("GET", 0, &format!("len=200000&how={how}"));
            client.conn.send(&ask.bytes()).await.unwrap();
            for _ in 0..3 {
                sleep(&client.conn.io, 20 * SECOND).await;
                let held = backend.sent.get() - client.conn.heard.len();
                assert!(
                    held as u64 <= HELD_MAX,
                    "{held} bytes are held for a client that does not read"
                );
                for _ in 0..8 {
                    client.conn.fill(2_000).await.unwrap();
                }
            }
            assert_eq!(client.hear(&ask).await.status(), Some(200));
        });
        scene.end();
    });
}

#[test]
fn a_client_that_never_reads_is_cut() {
    seeds("a_client_that_never_reads_is_cut", 100, |sim| {
        sim.with_weather(|weather| weather.buffer_bytes = (2_000, PIPE_BYTES));
        let scene = Scene::new(sim, 1);
        let client = scene.client(0, async |mut client: Client| {
            let ask = client.plan("GET", 0, "len=400000");
            client.conn.send(&ask.bytes()).await.unwrap();
            sleep(&client.conn.io, timeouts().write + 5 * SECOND).await;
            client.give_up(&ask);
            client
        });
        let client = sim.finish(client, PLAY_MAX);
        assert_eq!(scene.house.clients(sim), 0, "the client is still held");
        drop(client);
        scene.end();
    });
}

/// Upper bound of what one direction of a connection holds in these scenarios.
const PIPE_BYTES: u64 = 6_000;
/// Two connections' pipes, and the 32 KiB each way that DESIGN allows the worker, twice for rounding up.
const HELD_MAX: u64 = 2 * PIPE_BYTES + 2 * 32 * 1024;
