//! What a backend may have in flight, over all cores.

use std::time::Duration;

use balancer::io::Io;
use balancer::metrics::Count;

use super::row::Row;
use super::{PLAY_MAX, SECOND};
use crate::client::Client;
use crate::peer::sleep;
use crate::runner::seeds;

#[test]
fn the_limit_holds_over_all_cores_and_is_used_up() {
    seeds("the_limit_holds_over_all_cores_and_is_used_up", 100, |sim| {
        sim.with_weather(|weather| weather.latency.1 = Duration::from_millis(1));
        let (cores, limit) = ([2, 3][sim.below(2) as usize], [1, 2, 4, 5][sim.below(4) as usize]);
        let row = Row::limited(sim, cores, 1000, 2, Some(limit));
        let clients: Vec<_> = (0..16)
            .map(|n| {
                row.client(n, Duration::ZERO, async move |mut client: Client| {
                    client.pace = (usize::MAX, Duration::ZERO);
                    for _ in 0..8 {
                        let ask = client.plan("GET", 0, "len=10&wait=10");
                        assert_eq!(client.ask(&ask).await.answer().status, 200);
                        let pause = client.conn.io.draw() % 5;
                        sleep(&client.conn.io, Duration::from_millis(pause)).await;
                    }
                })
            })
            .collect();
        sim.finish_all(clients, PLAY_MAX);
        for backend in &row.backends {
            assert_eq!(backend.busy.get(), (0, limit), "{cores} cores");
        }
        sim.run_for(2 * SECOND);
        assert!(row.count(Count::Queued) > 0);
        row.end();
    });
}

#[test]
fn whoever_asks_may_use_all_of_it() {
    seeds("whoever_asks_may_use_all_of_it", 60, |sim| {
        // One credit for each core, and however few cores the clients are at.
        let row = Row::limited(sim, 4, 1000, 1, Some(4));
        let clients: Vec<_> = (0..4)
            .map(|n| {
                row.client(n, Duration::ZERO, async move |mut client: Client| {
                    client.get("len=10&wait=3000").await;
                })
            })
            .collect();
        sim.run_for(2 * SECOND);
        assert_eq!(row.backends[0].busy.get().0, 4, "somebody waits although there is room");
        sim.finish_all(clients, PLAY_MAX);
        row.end();
    });
}
