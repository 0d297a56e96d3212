//! Connections to backends that one core leaves and another takes up.

use std::time::Duration;

use balancer::balance::Category;
use balancer::io::Io;
use balancer::metrics::Count;

use super::row::Row;
use super::{PLAY_MAX, SECOND};
use crate::client::Client;
use crate::exec::{Outcome, Sim};
use crate::house::House;
use crate::peer::sleep;
use crate::runner::seeds;

/// One request after the other, each from a new client that the kernel sends to any core, with `pause` after each.
fn ask_in_turn(row: &Row<'_>, numbers: std::ops::Range<u32>, pause: Duration, wish: &'static str) {
    for n in numbers {
        let client = row.client(n, Duration::ZERO, async move |mut client: Client| {
            client.get(wish).await;
        });
        row.sim.finish(client, PLAY_MAX);
        row.sim.run_for(pause);
    }
}

fn streams_to_first(row: &Row<'_>, sim: &Sim) -> usize {
    row.houses.iter().map(|house| house.streams_to(sim, &row.backends[0])).sum()
}

#[test]
fn one_connection_serves_quiet_cores_in_turn() {
    seeds("one_connection_serves_quiet_cores_in_turn", 60, |sim| {
        let row = Row::new(sim, 4, 1000, 1);
        ask_in_turn(&row, 0..20, SECOND / 2, "len=10");
        sim.run_for(2 * SECOND);
        assert_eq!(row.count(Count::Requests), 20);
        assert_eq!(row.count(Count::Connects), 1, "a pool for each core");
        assert_eq!(row.count(Count::PoolAdopted), 19);
        assert_eq!(streams_to_first(&row, sim), 1);
        row.end();
    });
}

#[test]
fn a_busy_core_keeps_its_own() {
    seeds("a_busy_core_keeps_its_own", 30, |sim| {
        sim.with_weather(|weather| weather.latency.1 = Duration::from_millis(2));
        let row = Row::new(sim, 2, 1000, 1);
        let client = row.client(0, Duration::ZERO, async move |mut client: Client| {
            client.pace = (usize::MAX, Duration::ZERO);
            for _ in 0..200 {
                client.get("len=10").await;
                sleep(&client.conn.io, Duration::from_millis(20)).await;
            }
        });
        sim.finish(client, PLAY_MAX);
        sim.run_for(2 * SECOND);
        assert_eq!((row.count(Count::Connects), row.count(Count::PoolAdopted)), (1, 0));
        row.end();
    });
}

#[test]
fn what_is_shared_closes_with_its_backend_and_with_its_time() {
    seeds("what_is_shared_closes_with_its_backend_and_with_its_time", 60, |sim| {
        let row = Row::new(sim, 3, 1000, 2);
        ask_in_turn(&row, 0..10, SECOND / 2, "len=10");
        let (going, staying) = (&row.backends[0], &row.backends[1]);
        if sim.below(2) == 0 {
            for house in &row.houses {
                house.tell(&[(going, 100.0, Category::Sundown), (staying, 50.0, Category::Low)]);
            }
            let is_closed = || streams_to_first(&row, sim) == 0;
            assert_eq!(sim.run_until(SECOND / 5, is_closed), Outcome::Met, "it stays open");
        } else {
            // Nobody comes: sixty idle seconds, and a second or two until somebody looks.
            let is_closed = || row.houses.iter().all(|h| sim.open_streams(&h.io).is_empty());
            assert_eq!(sim.run_until(50 * SECOND, is_closed), Outcome::Late, "closed too early");
            assert_eq!(sim.run_until(15 * SECOND, is_closed), Outcome::Met, "kept for ever");
        }
        row.end();
    });
}

#[test]
fn what_its_backend_closed_or_soiled_meanwhile_is_not_used() {
    seeds("what_its_backend_closed_or_soiled_meanwhile_is_not_used", 100, |sim| {
        let row = Row::new(sim, 3, 1000, 1);
        let wish = ["len=10&then=idle&later=400", "len=10&then=stray&later=400"];
        let wish = wish[sim.below(2) as usize];
        ask_in_turn(&row, 0..1, Duration::from_millis(300), wish);
        let is_shared = |h: &House| sim.open_streams(&h.io).iter().any(|s| s.is_shared);
        assert!(row.houses.iter().any(is_shared), "the scenario is about one that is shared");
        sim.run_for(Duration::from_millis(sim.below(1_500) + 300));
        let client = row.client(1, Duration::ZERO, async move |mut client: Client| {
            let ask = client.plan("POST", 100, "len=10");
            assert_eq!(client.ask(&ask).await.answer().status, 200);
        });
        sim.finish(client, PLAY_MAX);
        sim.run_for(3 * SECOND);
        assert_eq!((row.count(Count::Connects), row.count(Count::Retries)), (2, 0));
        assert_eq!(streams_to_first(&row, sim), 1, "the other one was found and closed");
        row.end();
    });
}

#[test]
fn cores_at_work_share_without_mixing_anything_up() {
    seeds("cores_at_work_share_without_mixing_anything_up", 50, |sim| {
        let row = Row::new(sim, 3, 1000, 2);
        let clients: Vec<_> = (0..12)
            .map(|n| {
                let to = row.houses[0].address;
                row.client(n, Duration::ZERO, async move |mut client: Client| {
                    let io = client.conn.io.clone();
                    for _ in 0..15 {
                        let draw = io.draw();
                        let then = ["keep", "keep", "fin", "idle", "trap"][(draw % 5) as usize];
                        let wish = format!("len={}&then={then}", (draw >> 8) % 5_000);
                        let method = ["GET", "GET", "PUT"][(draw >> 30) as usize % 3];
                        let upload = if method == "PUT" { 300 } else { 0 };
                        let ask = client.plan(method, upload, &wish);
                        let heard = client.ask(&ask).await;
                        sleep(&io, Duration::from_millis((draw >> 40) % 400)).await;
                        client = match draw >> 60 {
                            0..6 => client.reopen(to).await,
                            _ => client.go_on(&heard, to).await,
                        };
                    }
                })
            })
            .collect();
        sim.finish_all(clients, PLAY_MAX);
        row.end();
    });
}
