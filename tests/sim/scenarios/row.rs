//! Several cores behind one address, with all that cores have of each other.

use std::time::Duration;

use balancer::metrics::Count;
use balancer::worker::Order;

use super::SECOND;
use crate::backend::Backend;
use crate::client::Client;
use crate::exec::{Handle, Outcome, Sim};
use crate::house::{House, backend_address};
use crate::io::SimIo;
use crate::ledger::Ledger;
use crate::peer::sleep;

pub struct Row<'a> {
    pub sim: &'a Sim,
    pub ledger: Ledger,
    pub backends: Vec<Backend>,
    pub houses: Vec<House>,
    pub crowd: SimIo,
}

impl<'a> Row<'a> {
    /// Cores with room for `connections_max` each, in front of backends `b1` to `b<n>`.
    pub fn new(sim: &'a Sim, cores: usize, connections_max: usize, n: u8) -> Self {
        Self::limited(sim, cores, connections_max, n, None)
    }

    /// The same, with a limit on what each backend has in flight.
    pub fn limited(
        sim: &'a Sim,
        cores: usize,
        connections_max: usize,
        n: u8,
        limit: Option<u32>,
    ) -> Self {
        let ledger = Ledger::default();
        let backends: Vec<Backend> = (1..=n)
            .map(|n| Backend::start(sim, &ledger, &format!("b{n}"), backend_address(n)))
            .collect();
        let known: Vec<_> = backends.iter().collect();
        let houses = House::open_row(sim, cores, connections_max, limit, &known);
        sim.run_for(Duration::from_millis(100));
        Self { sim, ledger, backends, houses, crowd: sim.core() }
    }

    /// A client that comes after `wait`.
    pub fn client<T: 'static>(
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

    /// A count over all cores, as of their last tick.
    pub fn count(&self, count: Count) -> u64 {
        self.houses.iter().map(|house| house.published.count(count)).sum()
    }

    /// Of each core.
    pub fn connections(&self) -> Vec<u64> {
        self.houses.iter().map(|house| house.published.connections()).collect()
    }

    /// All clients have left: rest, drain, judgement.
    pub fn end(self) {
        self.houses.iter().for_each(|house| house.check_rest(self.sim));
        self.drain();
        self.ledger.check();
    }

    /// The order reaches the cores one after the other.
    pub fn drain(&self) {
        for house in &self.houses {
            house.order(Order::Drain);
            self.sim.run_for(Duration::from_micros(self.sim.below(2_000)));
        }
        let has_ended = || self.houses.iter().all(House::has_ended);
        assert_eq!(self.sim.run_until(40 * SECOND, has_ended), Outcome::Met, "no end");
        assert_eq!(self.sim.lost_between_cores(), 0, "a connection was dropped in a channel");
    }
}
