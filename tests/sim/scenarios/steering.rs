//! Several cores behind one address: where connections end up, and that none is lost on the way from one to another.

use std::time::Duration;

use balancer::metrics::Count;

use super::row::Row;
use super::{PLAY_MAX, SECOND};
use crate::client::Client;
use crate::exec::{Handle, Outcome};
use crate::peer::{connect, sleep};
use crate::runner::seeds;

#[test]
fn sixteen_long_connections_on_two_cores_end_up_level() {
    seeds("sixteen_long_connections_on_two_cores_end_up_level", 150, |sim| {
        let row = Row::new(sim, 2, 1000, 1);
        let is_at_once = sim.below(2) == 0;
        let clients: Vec<_> = (0..16)
            .map(|n| {
                let wait = if is_at_once { 0 } else { sim.below(200) };
                row.client(n, Duration::from_millis(wait), async move |mut client: Client| {
                    client.get("len=10").await;
                    sleep(&client.conn.io, 20 * SECOND).await;
                    // Some idle, some at work, none has moved meanwhile.
                    client.get("len=3000").await;
                })
            })
            .collect();
        let all_are_there = || row.connections().iter().sum::<u64>() == 16;
        assert_eq!(sim.run_until(10 * SECOND, all_are_there), Outcome::Met);
        let fullest = row.connections().into_iter().max();
        assert!(fullest <= Some(10), "{:?}", row.connections());
        sim.finish_all(clients, PLAY_MAX);
        row.end();
    });
}

#[test]
fn a_full_core_gives_to_who_has_room_and_none_is_ever_overfull() {
    seeds("a_full_core_gives_to_who_has_room_and_none_is_ever_overfull", 150, |sim| {
        let row = Row::new(sim, 3, 2, 1);
        let mut clients: Vec<_> = (0..6)
            .map(|n| {
                let wait = Duration::from_millis(sim.below(20));
                row.client(n, wait, async move |mut client: Client| {
                    client.get("len=10").await;
                    sleep(&client.conn.io, 10 * SECOND).await;
                })
            })
            .collect();
        let hold = |connections: &[u64]| {
            assert!(connections.iter().all(|n| *n <= 2), "{connections:?}");
            connections.iter().sum::<u64>()
        };
        let is_full = || hold(&row.connections()) == 6;
        assert_eq!(sim.run_until(5 * SECOND, is_full), Outcome::Met, "{:?}", row.connections());
        // They wait at some door until there is room anywhere.
        clients.extend((6..12).map(|n| {
            row.client(n, Duration::ZERO, async move |mut client: Client| {
                client.get("len=10").await;
            })
        }));
        let is_empty = || hold(&row.connections()) == 0;
        let is_over = || clients.iter().all(Handle::is_done) && is_empty();
        assert_eq!(sim.run_until(60 * SECOND, is_over), Outcome::Met, "somebody waits for ever");
        sim.finish_all(clients, PLAY_MAX);
        row.end();
    });
}

#[test]
fn no_connection_is_lost_between_cores_that_drain() {
    seeds("no_connection_is_lost_between_cores_that_drain", 300, |sim| {
        let row = Row::new(sim, 3, if sim.below(2) == 0 { 2 } else { 1000 }, 1);
        let to = row.houses[0].address;
        let clients: Vec<_> = (0..20)
            .map(|n| {
                let (io, ledger) = (row.crowd.clone(), row.ledger.clone());
                let wait = Duration::from_micros(sim.below(20_000));
                sim.start(&row.crowd, format!("client {n}"), async move {
                    sleep(&io, wait).await;
                    // Whoever comes after the listeners closed is refused.
                    let Ok(stream) = connect(&io, to).await else { return None };
                    let mut client = Client::over(&io, &ledger, n, stream);
                    let ask = client.plan("GET", 0, "len=10");
                    client.pace = (usize::MAX, Duration::ZERO);
                    let heard = client.ask(&ask).await;
                    heard.status()
                })
            })
            .collect();
        sim.run_for(Duration::from_micros(sim.below(20_000)));
        row.drain();
        let statuses = sim.finish_all(clients, 60 * SECOND);
        assert!(statuses.iter().all(|s| s.is_none_or(|s| s == 200)), "{statuses:?}");
        row.ledger.check();
    });
}

#[test]
fn connections_move_in_the_scenarios_above() {
    seeds("connections_move_in_the_scenarios_above", 5, |sim| {
        let row = Row::new(sim, 2, 1000, 1);
        let clients: Vec<_> = (0..40)
            .map(|n| {
                row.client(n, Duration::ZERO, async move |mut client: Client| {
                    client.get("len=10").await;
                    sleep(&client.conn.io, SECOND).await;
                })
            })
            .collect();
        sim.finish_all(clients, PLAY_MAX);
        sim.run_for(2 * SECOND);
        assert_eq!(row.count(Count::Accepted), 40);
        assert!(row.count(Count::Steered) > 0, "none moved");
        row.end();
    });
}
