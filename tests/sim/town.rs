//! Several workers and the real control core between scripted backends and clients.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use balancer::balance::{REPORTS_MAX, Snapshot};
use balancer::cli::{self, Command, Environment};
use balancer::config::{Config, Steer};
use balancer::control::{self, Subscriber, Surroundings};
use balancer::io::affinity::Cpus;
use balancer::io::{Bell, Io};
use balancer::time::Instant;
use balancer::worker::Reporter;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::backend::Backend;
use crate::client::Client;
use crate::exec::{Handle, Outcome, Sim};
use crate::house::{self, House, backend_address};
use crate::io::SimIo;
use crate::ledger::Ledger;

pub struct Town<'a> {
    pub sim: &'a Sim,
    pub ledger: Ledger,
    pub backends: Vec<Backend>,
    pub houses: Vec<House>,
    pub crowd: SimIo,
    pub control: SimIo,
    orders: Sender<control::Order>,
    has_ended: Rc<Cell<bool>>,
}

impl<'a> Town<'a> {
    /// `cores` workers in front of backends `b1` to `b<n>`, which they know already.
    pub fn new(sim: &'a Sim, cores: usize, n: u8, adjust: impl FnOnce(&mut Config)) -> Self {
        let ledger = Ledger::default();
        let backends: Vec<Backend> = (1..=n)
            .map(|n| Backend::start(sim, &ledger, &format!("b{n}"), backend_address(n)))
            .collect();
        let control = sim.core();
        let (to_control, reports) = bounded(REPORTS_MAX);
        let mut config = config(cores, &backends);
        adjust(&mut config);
        let mut subscribers = Vec::new();
        let houses: Vec<House> = (0..cores)
            .map(|worker| {
                let (io, published) = house::place(sim);
                let (subscriber, snapshots): (_, Receiver<Arc<Snapshot>>) =
                    Subscriber::new(io.bell());
                subscribers.push(subscriber);
                let reporter = Reporter { reports: to_control.clone(), bell: control.bell() };
                House::of_town((io, published), config.shard(worker), snapshots, reporter)
            })
            .collect();
        let (orders, inbox) = unbounded();
        let surroundings = Surroundings {
            subscribers,
            cores: houses.iter().map(|house| house.published.clone()).collect(),
            reports,
            orders: inbox,
            lookup: control::system_lookup,
        };
        let has_ended = Rc::new(Cell::new(false));
        let (io, flag) = (control.clone(), has_ended.clone());
        control.spawn(async move {
            control::run(io, &config, surroundings, None).await;
            flag.set(true);
        });
        sim.run_for(Duration::from_millis(100));
        assert!(houses.iter().all(|house| house.published.epoch() > 0));
        Self { sim, ledger, backends, houses, crowd: sim.core(), control, orders, has_ended }
    }

    /// Where all workers listen.
    pub fn address(&self) -> std::net::SocketAddr {
        self.houses[0].address
    }

    /// A client that follows a script; which worker serves it is up to the seed.
    pub fn client<T: 'static>(
        &self,
        number: u32,
        script: impl AsyncFnOnce(Client) -> T + 'static,
    ) -> Handle<T> {
        let (io, ledger, to) = (self.crowd.clone(), self.ledger.clone(), self.address());
        self.sim.start(&self.crowd, format!("client {number}"), async move {
            script(Client::open(&io, &ledger, number, to).await).await
        })
    }

    /// The process behind a backend dies: its connections break and its port refuses.
    pub fn kill(&self, at: usize) {
        self.sim.route(self.backends[at].address, crate::kernel::Route::Refuse);
        self.sim.cut_all(self.backends[at].address);
    }

    /// When workers, and not the control core, began to connect to a backend from `since` on.
    pub fn tries(&self, at: usize, since: Instant) -> Vec<(usize, Instant)> {
        let all = self.sim.dialled(self.backends[at].address).into_iter();
        all.filter(|&(by, when)| by != self.control.host && when >= since).collect()
    }

    /// When the control core began to connect to a backend.
    pub fn probes(&self, at: usize) -> Vec<Instant> {
        let all = self.sim.dialled(self.backends[at].address).into_iter();
        all.filter(|&(by, _)| by == self.control.host).map(|(_, when)| when).collect()
    }

    /// All clients have left: rest, drain, the end of the control core, judgement.
    pub fn end(self) {
        self.houses.iter().for_each(|house| house.check_rest(self.sim));
        self.houses.iter().for_each(|house| house.check_drain(self.sim));
        self.orders.send(control::Order::Stop).expect("it still runs");
        self.control.bell().ring();
        let outcome = self.sim.run_until(Duration::from_secs(1), || self.has_ended.get());
        assert_eq!(outcome, Outcome::Met);
        self.ledger.check();
    }
}

/// The settings of one worker in all scenarios, for several; the rest as the command line has it.
fn config(cores: usize, backends: &[Backend]) -> Config {
    let mut words: Vec<OsString> = ["balancer", "run", "--no-env-file"].map(OsString::from).into();
    for backend in backends {
        words.extend(["--backend".into(), backend.address.to_string().into()]);
    }
    let environment = Environment {
        variables: BTreeMap::new(),
        read_file: Box::new(|_| Err(ErrorKind::NotFound.into())),
        cpus: Cpus::new(&(0..=cores).collect::<Vec<_>>(), |_| None),
        nofile: 10_000,
    };
    let run = match cli::parse(words.into_iter(), &environment) {
        Ok(Command::Run(run)) => run,
        other => panic!("{other:?}"),
    };
    let one = house::config();
    Config {
        cache: None,
        steer: Steer::None,
        timeouts: one.timeouts,
        head: one.head,
        body_bytes_max: one.body_bytes_max,
        ..run.config
    }
}
