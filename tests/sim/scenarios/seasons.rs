//! Snapshots that change under traffic, and the end.

use std::time::Duration;

use balancer::balance::Category;
use balancer::io::{Io, Stream};
use balancer::worker::Order;

use super::{PLAY_MAX, SECOND, Scene};
use crate::client::Client;
use crate::exec::Outcome;
use crate::peer::{connect, sleep};
use crate::runner::seeds;

#[test]
fn nobody_to_pick_is_a_503_with_retry_after() {
    seeds("nobody_to_pick_is_a_503_with_retry_after", 150, |sim| {
        let scene = Scene::new(sim, 1);
        match sim.below(2) {
            0 => scene.house.tell_all(&[]),
            _ => scene.house.tell(&[(&scene.backends[0], 100.0, Category::Sundown)]),
        }
        sim.run_for(SECOND);
        let client = scene.one(async |mut client: Client| {
            let ask = client.plan("GET", 0, "len=10");
            let answer = client.ask(&ask).await.answer();
            assert_eq!(answer.status, 503);
            let seconds = answer.head.one("retry-after").unwrap().expect("Retry-After is due");
            assert!(seconds.parse::<u32>().is_ok());
            client
        });
        assert_eq!(scene.ledger.count_at("b1"), 0);
        scene.house.tell_all(&[&scene.backends[0]]);
        sim.run_for(SECOND);
        let again = sim.start(&scene.crowd, "again", async move {
            let mut client = client;
            client.get("len=10").await;
        });
        sim.finish(again, PLAY_MAX);
        scene.end();
    });
}

#[test]
fn sundown_sends_nothing_new_and_lets_the_old_finish() {
    seeds("sundown_sends_nothing_new_and_lets_the_old_finish", 100, |sim| {
        let scene = Scene::new(sim, 2);
        let clients: Vec<_> = (0..4)
            .map(|n| {
                scene.client(n, async move |mut client: Client| {
                    for _ in 0..30 {
                        client.get("len=500&wait=200").await;
                    }
                })
            })
            .collect();
        sim.run_for(2 * SECOND);
        let (going, staying) = (&scene.backends[0], &scene.backends[1]);
        scene.house.tell(&[(going, 100.0, Category::Sundown), (staying, 50.0, Category::Low)]);
        let outcome = sim.run_until(Duration::from_millis(150), || scene.house.is_up_to_date());
        assert_eq!(outcome, Outcome::Met, "a snapshot applies within 100 ms");
        // What was sent before may still be on its way for a moment.
        sim.run_for(SECOND);
        let before = scene.ledger.count_at("b1");
        let is_free = || scene.house.streams_to(sim, going) == 0;
        assert_eq!(sim.run_until(5 * SECOND, is_free), Outcome::Met, "idle connections stay open");
        sim.finish_all(clients, PLAY_MAX);
        assert_eq!(scene.ledger.count_at("b1"), before, "a request went to a draining backend");
        scene.end();
    });
}

#[test]
fn a_drain_finishes_what_is_in_flight_and_what_has_arrived() {
    seeds("a_drain_finishes_what_is_in_flight_and_what_has_arrived", 300, |sim| {
        let scene = Scene::new(sim, 2);
        let in_flight = scene.client(0, async |mut client: Client| {
            let ask = client.plan("GET", 0, "len=5000&wait=3000");
            let answer = client.ask(&ask).await.answer();
            assert_eq!(answer.status, 200);
            assert!(answer.head.lists("connection", "close"), "{:?}", answer.head);
            client.expect_end().await;
        });
        let idle = scene.client(1, async |mut client: Client| {
            client.get("len=10").await;
            client.expect_end().await;
            client.conn.io.now()
        });
        let at_the_last_moment = scene.client(2, async |mut client: Client| {
            client.get("len=10").await;
            sleep(&client.conn.io, SECOND - Duration::from_millis(50)).await;
            let ask = client.plan("GET", 0, "len=300");
            client.ask(&ask).await
        });
        sim.run_for(SECOND);
        let since = sim.now();
        scene.house.order(Order::Drain);
        let closed_at = sim.finish(idle, 10 * SECOND);
        assert!(closed_at.since(since) < SECOND, "an idle connection is closed at once");
        sim.run_for(SECOND / 2);
        let (io, to) = (scene.crowd.clone(), scene.house.address);
        let late = sim.start(&scene.crowd, "late", async move { connect(&io, to).await.is_err() });
        assert!(sim.finish(late, SECOND), "the listener is closed");
        let outcome = sim.run_until(10 * SECOND, || scene.house.has_ended());
        assert_eq!(outcome, Outcome::Met, "the drain has not ended");
        assert!(sim.now().since(since) > 1900 * Duration::from_millis(1), "in flight means served");
        sim.finish(in_flight, 10 * SECOND);
        // Served, or closed before it was read; never half an answer.
        let heard = sim.finish(at_the_last_moment, 10 * SECOND);
        assert!(!matches!(heard.status(), Some(500..)), "{heard:?}");
        assert_eq!(scene.house.clients(sim), 0);
        scene.ledger.check();
    });
}

#[test]
fn connections_in_the_backlog_are_served_before_the_end() {
    seeds("connections_in_the_backlog_are_served_before_the_end", 150, |sim| {
        let scene = Scene::new(sim, 1);
        sim.with_weather(|weather| weather.accept_error_percent = 0);
        let clients: Vec<_> = (0..5)
            .map(|n| {
                scene.client(n, async move |mut client: Client| {
                    let ask = client.plan("GET", 0, "len=10&wait=100");
                    client.pace = (usize::MAX, Duration::ZERO);
                    client.ask(&ask).await.status()
                })
            })
            .collect();
        // All of them are known to the kernel, some to the worker.
        let ask_bytes_sent = || scene.ledger.count_at("b1") > 0;
        assert_eq!(sim.run_until(10 * SECOND, ask_bytes_sent), Outcome::Met);
        let is_silent = |client: &Option<u16>| client.is_none();
        scene.house.order(Order::Drain);
        let statuses = sim.finish_all(clients, 20 * SECOND);
        assert!(statuses.contains(&Some(200)));
        assert!(statuses.iter().all(|s| is_silent(s) || *s == Some(200)), "{statuses:?}");
        assert_eq!(sim.run_until(10 * SECOND, || scene.house.has_ended()), Outcome::Met);
        scene.ledger.check();
    });
}

#[test]
fn stop_means_now() {
    seeds("stop_means_now", 50, |sim| {
        let scene = Scene::new(sim, 1);
        let client = scene.client(0, async |mut client: Client| {
            let ask = client.plan("GET", 0, "how=hang");
            client.conn.send(&ask.bytes()).await.unwrap();
            client.give_up(&ask);
            client.conn.stream.set_deadline(Some(client.conn.io.now()));
        });
        sim.finish(client, SECOND);
        scene.house.order(Order::Stop);
        let outcome = sim.run_until(Duration::from_millis(50), || scene.house.has_ended());
        assert_eq!(outcome, Outcome::Met);
    });
}
