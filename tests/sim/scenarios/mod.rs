//! What the worker must stand, each under many seeds.
//!
//! A [`Scene`] is one worker between scripted backends and a crowd of clients. At its end the worker must come to rest,
//! drain, and the ledger must have nothing to complain of.

mod chaos;
mod faults;
mod figures;
mod health;
mod limits;
mod patience;
mod peers;
mod row;
mod seasons;
mod sharing;
mod steering;
mod traffic;

use std::time::Duration;

use crate::backend::Backend;
use crate::client::Client;
use crate::exec::{Handle, Sim};
use crate::house::{House, backend_address};
use crate::io::SimIo;
use crate::ledger::Ledger;

pub struct Scene<'a> {
    pub sim: &'a Sim,
    pub ledger: Ledger,
    pub backends: Vec<Backend>,
    pub house: House,
    pub crowd: SimIo,
}

impl<'a> Scene<'a> {
    /// A worker in front of backends `b1` to `b<n>`, which it knows already.
    pub fn new(sim: &'a Sim, n: u8) -> Self {
        let ledger = Ledger::default();
        let backends: Vec<Backend> = (1..=n)
            .map(|n| Backend::start(sim, &ledger, &format!("b{n}"), backend_address(n)))
            .collect();
        let house = House::open(sim, &backends.iter().collect::<Vec<_>>());
        sim.run_for(Duration::from_millis(100));
        assert!(house.is_up_to_date());
        Self { sim, ledger, backends, house, crowd: sim.core() }
    }

    /// A client that follows a script.
    pub fn client<T: 'static>(
        &self,
        number: u32,
        script: impl AsyncFnOnce(Client) -> T + 'static,
    ) -> Handle<T> {
        let (io, ledger, to) = (self.crowd.clone(), self.ledger.clone(), self.house.address);
        self.sim.start(&self.crowd, format!("client {number}"), async move {
            script(Client::open(&io, &ledger, number, to).await).await
        })
    }

    /// A single client's script, run to its end.
    pub fn one<T: 'static>(&self, script: impl AsyncFnOnce(Client) -> T + 'static) -> T {
        self.sim.finish(self.client(0, script), PLAY_MAX)
    }

    /// All clients have left: rest, drain, judgement.
    pub fn end(self) {
        self.house.check_rest(self.sim);
        self.house.check_drain(self.sim);
        self.ledger.check();
    }
}

/// No script takes longer, in the worst of weathers.
pub const PLAY_MAX: Duration = Duration::from_secs(900);
pub const SECOND: Duration = Duration::from_secs(1);
