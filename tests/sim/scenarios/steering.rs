//! Several cores behind one address: where connections end up, and that none is lost on the way from one to another.

use std::time::Duration;

use balancer::metrics::Count;
use balancer::worker::Order;

use super::{PLAY_MAX, SECOND};
use crate::backend::Backend;
use crate::client::Client;
use crate::exec::{Handle, Outcome, Sim};
use crate::house::{House, backend_address};
use crate::io::SimIo;
use crate::ledger::Ledger;
use crate::peer::{connect, sleep};
use crate::runner::seeds;

struct Row<'a> {
    sim: &'a Sim,
    ledger: Ledger,
    _backend: Backend,
    houses: Vec<House>,
    crowd: SimIo,
}

impl<'a> Row<'a> {
    fn new(sim: &'a Sim, cores: usize, connections_max: usize) -> Self {
        let ledger = Ledger::default();
        let backend = Backend::start(sim, &ledger, "b1", backend_address(1));
        let houses = House::open_row(sim, cores, connections_max, &[&backend]);
        sim.run_for(Duration::from_millis(100));
        Self { sim, ledger, _backend: backend, houses, crowd: sim.core() }
    }

    /// A client that comes after `wait`.
    fn client<T: 'static>(
        &self,
        number: u32,
        wait: Duration,
        script: impl AsyncFnOnce(Client) -> T + 'static,
    ) -> Handle<T> {
        let (io, ledger, to) = (self.crowd.clone(), self.ledger.clone(), self.houses[0].address);
        self.sim.start(&self.crowd, format!("client {number}"), async move {
            sleep(&io, wait).await;
            script(Client::open(&io, &ledger, number, to).await).await
        })
    }

    fn connections(&self) -> Vec<u64> {
        self.houses.iter().map(|house| house.published.connections()).collect()
    }

    fn end(self) {
        self.houses.iter().for_each(|house| house.check_rest(self.sim));
        self.drain();
        self.ledger.check();
    }

    /// The order reaches the cores one after the other.
    fn drain(&self) {
        for house in &self.houses {
            house.order(Order::Drain);
            self.sim.run_for(Duration::from_micros(self.sim.below(2_000)));
        }
        let has_ended = || self.houses.iter().all(House::has_ended);
        assert_eq!(self.sim.run_until(40 * SECOND, has_ended), Outcome::Met, "no end");
        assert_eq!(self.sim.lost_between_cores(), 0, "a connection was dropped in a channel");
    }
}

#[test]
fn sixteen_long_connections_on_two_cores_end_up_level() {
    seeds("sixteen_long_connections_on_two_cores_end_up_level", 150, |sim| {
        let row = Row::new(sim, 2, 1000);
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
        let row = Row::new(sim, 3, 2);
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
        let row = Row::new(sim, 3, if sim.below(2) == 0 { 2 } else { 1000 });
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
        let row = Row::new(sim, 2, 1000);
        let clients: Vec<_> = (0..40)
            .map(|n| {
                row.client(n, Duration::ZERO, async move |mut client: Client| {
                    client.get("len=10").await;
                    sleep(&client.conn.io, SECOND).await;
                })
            })
            .collect();
        sim.finish_all(clients, PLAY_MAX);
        let of_all = |count| row.houses.iter().map(|h| h.published.count(count)).sum::<u64>();
        sim.run_for(2 * SECOND);
        assert_eq!(of_all(Count::Accepted), 40);
        assert!(of_all(Count::Steered) > 0, "none moved");
        row.end();
    });
}
