//! The proxy under test, furnished: its core, listener, mailbox, and what must be true of it at rest.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::hash::RandomState;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use balancer::balance::{Backend as Member, Category, Score, Slot, Snapshot, Source};
use balancer::cache::store::KeyHasher;
use balancer::config::{CacheConfig, ShardConfig, Timeouts};
use balancer::io::{Bell, Io};
use balancer::metrics::{Count, Published};
use balancer::worker::{CacheMail, Credits, Mail, Order, Reporter, Share, SteerMail, Worker};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::backend::Backend;
use crate::exec::{Outcome, Sim};
use crate::io::{SimBell, SimIo, SimListener};
use crate::toy::{self, Flaw};

/// A worker on a core of its own. It has a control core that says what the scenario says and hears nothing, or a real one.
pub struct House {
    pub io: SimIo,
    pub address: SocketAddr,
    pub published: Arc<Published>,
    /// What another core lets the worker see.
    pub peer: Arc<Published>,
    snapshots: Sender<Arc<Snapshot>>,
    orders: Sender<Order>,
    has_ended: Rc<Cell<bool>>,
    epoch: Cell<u64>,
    slots: RefCell<Vec<SocketAddr>>,
}

impl House {
    /// The worker, with the default settings and these backends.
    pub fn open(sim: &Sim, backends: &[&Backend]) -> Self {
        let house = Self::furnish(sim, |io, config, listeners, mail| {
            Worker::new(io, config, listeners, mail).run()
        });
        house.tell_all(backends);
        house
    }

    /// The naive proxy, with a flaw.
    pub fn open_toy(sim: &Sim, backends: &[&Backend], flaw: Flaw) -> Self {
        let house = Self::furnish(sim, |io, config, listeners, mail| {
            toy::Worker::new(io, config, listeners, mail).with(flaw).run()
        });
        house.tell_all(backends);
        house
    }

    /// Workers on `cores` cores behind one address, each with room for `connections_max`, that give connections to each
    /// other.
    pub fn open_row(
        sim: &Sim,
        cores: usize,
        connections_max: usize,
        limit: Option<u32>,
        backends: &[&Backend],
    ) -> Vec<Self> {
        let (ios, published): (Vec<_>, Vec<_>) = (0..cores).map(|_| place(sim)).unzip();
        let bells: Vec<_> = ios.iter().map(SimIo::bell).collect();
        let ends = SteerMail::for_cores(&bells, &published);
        let ends = ends.into_iter().zip(Share::for_cores(cores, SLOTS));
        let credits = limit.map(|limit| Credits::for_cores(limit, &bells, SLOTS));
        let mut credits = credits.into_iter().flatten();
        let places = ios.into_iter().zip(published).zip(ends);
        let open = |(place, (steer, share))| {
            let credits = credits.next();
            let house = Self::furnish_at(place, |io, config, listeners, mail| {
                let config = ShardConfig { connections_max, backend_inflight_max: limit, ..config };
                Worker::new(
                    io,
                    config,
                    listeners,
                    Mail { credits, steer: Some(steer), share: Some(share), ..mail },
                )
                .run()
            });
            house.tell_all(backends);
            house
        };
        places.map(open).collect()
    }

    /// One of several workers behind one address that a real control core looks after.
    pub fn of_town(
        place: (SimIo, Arc<Published>),
        config: ShardConfig,
        snapshots: Receiver<Arc<Snapshot>>,
        reporter: Reporter<SimBell>,
    ) -> Self {
        Self::furnish_at(place, |io, _, listeners, mail| {
            Worker::new(io, config, listeners, Mail { snapshots, reporter, ..mail }).run()
        })
    }

    fn furnish<F: Future<Output = ()> + 'static>(
        sim: &Sim,
        build: impl FnOnce(SimIo, ShardConfig, Vec<SimListener>, Mail<SimIo>) -> F,
    ) -> Self {
        Self::furnish_at(place(sim), build)
    }

    fn furnish_at<F: Future<Output = ()> + 'static>(
        (io, published): (SimIo, Arc<Published>),
        build: impl FnOnce(SimIo, ShardConfig, Vec<SimListener>, Mail<SimIo>) -> F,
    ) -> Self {
        let address = SocketAddr::from(([10, 0, 99, 1], 8080));
        let (snapshots, snapshots_in) = unbounded();
        let (orders, orders_in) = unbounded();
        let peer = Arc::new(Published::new(SLOTS));
        let hasher = KeyHasher::new(RandomState::new());
        let mail = Mail {
            snapshots: snapshots_in,
            orders: orders_in,
            reporter: Reporter { reports: bounded(0).0, bell: io.bell() },
            published: published.clone(),
            peers: vec![peer.clone()],
            cache: CacheMail::for_cores(&[io.bell()], std::slice::from_ref(&published), &hasher, 0)
                .pop(),
            credits: None,
            share: None,
            steer: None,
            per_ip: None,
            access: None,
        };
        let has_ended = Rc::new(Cell::new(false));
        let work = build(io.clone(), config(), vec![io.listen(address)], mail);
        let flag = has_ended.clone();
        io.spawn(async move {
            work.await;
            flag.set(true);
        });
        let (epoch, slots) = (Cell::new(0), RefCell::default());
        Self { io, address, published, peer, snapshots, orders, has_ended, epoch, slots }
    }

    /// A new snapshot: these backends, all alike.
    pub fn tell_all(&self, backends: &[&Backend]) {
        let members: Vec<_> = backends.iter().map(|b| (*b, 100.0, Category::Medium)).collect();
        self.tell(&members);
    }

    /// A new snapshot: backends, their scores and categories.
    pub fn tell(&self, backends: &[(&Backend, f64, Category)]) {
        self.epoch.set(self.epoch.get() + 1);
        let members: Vec<Member> = backends
            .iter()
            .map(|(backend, score, category)| Member {
                slot: self.slot(backend),
                name: Arc::from(backend.name.as_str()),
                authority: Arc::from(backend.address.to_string()),
                score: Score::new(*score).expect("0 to 100"),
                category: *category,
                addresses: Arc::from([backend.address]),
                warming_since: None,
            })
            .collect();
        let slots = self.slots.borrow().len();
        let (epoch, source) = (self.epoch.get(), Source::Agent);
        let snapshot = Snapshot { epoch, source, slots, backends: members, ..Snapshot::empty() };
        self.snapshots.send(Arc::new(snapshot)).expect("the worker lives");
        self.io.bell().ring();
    }

    fn slot(&self, backend: &Backend) -> Slot {
        let mut slots = self.slots.borrow_mut();
        let known = slots.iter().position(|at| *at == backend.address);
        let index = known.unwrap_or_else(|| {
            slots.push(backend.address);
            slots.len() - 1
        });
        Slot(index as u32)
    }

    pub fn order(&self, order: Order) {
        // A worker that has ended no longer reads its mail.
        let _ = self.orders.send(order);
        self.io.bell().ring();
    }

    pub fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// Whether the worker applies the newest snapshot.
    pub fn is_up_to_date(&self) -> bool {
        self.published.epoch() == self.epoch.get()
    }

    pub fn in_flight(&self) -> u32 {
        let mut sum = 0;
        self.published.read_in_flight(|_, n| sum += n);
        sum
    }

    /// Streams to `backend` that the worker has open.
    pub fn streams_to(&self, sim: &Sim, backend: &Backend) -> usize {
        let open = sim.open_streams(&self.io);
        open.iter().filter(|s| !s.is_accepted && s.remote == backend.address).count()
    }

    /// Clients' connections that the worker has open.
    pub fn clients(&self, sim: &Sim) -> usize {
        sim.open_streams(&self.io).iter().filter(|s| s.is_accepted).count()
    }

    /// Once all clients have left: no stream but the pool's idle ones, nothing in flight, no panic contained.
    ///
    /// # Panics
    /// When that is not so within [`REST_MAX`] of virtual time.
    pub fn check_rest(&self, sim: &Sim) {
        let is_resting = || {
            let open = sim.open_streams(&self.io);
            open.iter().all(|s| !s.is_accepted && (s.is_watched || s.is_shared))
                && self.in_flight() == 0
                && self.published.connections() == 0
        };
        let outcome = sim.run_until(REST_MAX, is_resting);
        assert!(
            outcome == Outcome::Met,
            "no rest after {REST_MAX:?}: {} in flight, {} connections, open {:#?}",
            self.in_flight(),
            self.published.connections(),
            sim.open_streams(&self.io)
        );
        assert_eq!(self.published.count(Count::PanicsContained), 0);
    }

    /// Tells the worker to stop and sees to it that it does, with nothing left open.
    ///
    /// # Panics
    /// When it has not ended by its drain deadline.
    pub fn check_drain(&self, sim: &Sim) {
        self.order(Order::Drain);
        let bound = config().timeouts.drain + SLACK;
        let outcome = sim.run_until(bound, || self.has_ended());
        assert_eq!(outcome, Outcome::Met, "the drain has not ended within {bound:?}");
        assert_eq!(self.clients(sim), 0, "{:#?}", sim.open_streams(&self.io));
        assert!(!sim.is_listening(&self.io, self.address));
    }
}

/// A core, and the block it publishes in.
pub fn place(sim: &Sim) -> (SimIo, Arc<Published>) {
    (sim.core(), Arc::new(Published::new(SLOTS)))
}

/// The settings all scenarios run under.
pub fn config() -> ShardConfig {
    ShardConfig {
        worker: 0,
        balance: balancer::balance::Balance::default(),
        timeouts: Timeouts::default(),
        head: balancer::http::HeadLimits::default(),
        body_bytes_max: Some(BODY_BYTES_MAX),
        connections_max: 1000,
        trusted_proxies: Vec::new(),
        backend_inflight_max: None,
        queue_length_max: 1024,
        cache: Some(CacheConfig {
            entries: 1000,
            bytes: 8 << 20,
            files_max: 0,
            settings: Default::default(),
        }),
    }
}

/// Where scripted backend number `n` listens.
pub fn backend_address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 200, n], 80))
}

/// Room for backends in the worker's published block.
const SLOTS: usize = 16;
/// Every timeout of the default settings but the tunnel's is over by then.
const REST_MAX: Duration = Duration::from_secs(40);
/// How late a deadline may be noticed, all latencies included.
pub const SLACK: Duration = Duration::from_secs(2);
/// Larger request bodies are answered 413.
pub const BODY_BYTES_MAX: u64 = 1 << 20;
