//! What one core owns. No policy of its own: others decide, the shard keeps.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::Mail;
use super::access::AccessLog;
use super::caching::Caching;
use super::credits::Credits;
use super::desk::Desk;
use super::health::Health;
use super::per_ip::PerIp;
use super::queue::RequestQueue;
use super::sharing::Share;
use super::steer::Steering;
use super::upstream::Pool;
use crate::balance::{Backend, Picker, RetryBudget, Slot, Snapshot};
use crate::config::ShardConfig;
use crate::io::{Io, Timer};
use crate::metrics::{Count, Counters, Figures, Published};
use crate::time::{DATE_BYTES, DateText, Instant};

/// Everything that belongs to one core and to no other.
pub(super) struct Shard<I: Io> {
    pub io: I,
    pub config: ShardConfig,
    pub counters: Counters,
    pub figures: Figures,
    pub picker: RefCell<Picker>,
    pub health: Health<I::Bell>,
    pub pool: RefCell<Pool<I::Stream>>,
    pub queue: RefCell<RequestQueue>,
    pub retry_budget: RefCell<RetryBudget>,
    pub is_draining: Cell<bool>,
    /// Whether silent connections stay nevertheless.
    pub spares_silent: Cell<bool>,
    /// None when the cache is off.
    pub caching: Option<Caching<I>>,
    /// None without a limit on what a backend has in flight, and when the core is alone.
    pub credits: Option<Credits<I::Bell>>,
    /// None when the core is alone.
    pub share: Option<Share<I::Movable>>,
    /// None when connections stay where they arrive.
    pub steering: Option<Steering<I>>,
    /// None without a limit on the connections of one address.
    pub per_ip: Option<Arc<PerIp>>,
    published: Arc<Published>,
    /// None when it is off.
    pub access: Option<AccessLog>,
    snapshot: RefCell<Arc<Snapshot>>,
    /// By slot: position in the snapshot, and which address is tried first.
    directory: RefCell<Vec<Listing>>,
    date: RefCell<DateText>,
    #[expect(
        clippy::vec_box,
        reason = "a desk is lent out; moving the box is cheaper than moving it"
    )]
    desks: RefCell<Vec<Box<Desk>>>,
    /// Woken when a connection ends: the accept loop that waits for room, and the drain.
    room: RefCell<Vec<Waker>>,
    tick: I::Timer,
    is_ticking: Cell<bool>,
}

#[derive(Clone, Copy, Default)]
struct Listing {
    /// Position in the snapshot, one too high; 0 when the slot is not listed.
    place: u32,
    first_address: u32,
}

impl<I: Io> Shard<I> {
    /// Takes from `mail` what is for it alone.
    pub(super) fn new(io: I, config: ShardConfig, mail: &mut Mail<I>) -> Self {
        let worker = u32::try_from(config.worker).expect("a host has fewer cores");
        Self {
            access: mail.access.take().map(AccessLog::new),
            health: Health::new(worker, mail.reporter.clone()),
            caching: config
                .cache
                .as_ref()
                .zip(mail.cache.take())
                .map(|(cache, mail)| Caching::new(cache, !config.trusted_proxies.is_empty(), mail)),
            steering: mail.steer.take().map(|mail| Steering::new(mail, config.connections_max)),
            credits: mail.credits.take(),
            share: mail.share.take(),
            per_ip: mail.per_ip.take().map(Arc::new),
            published: mail.published.clone(),
            counters: Counters::new(),
            figures: Figures::default(),
            picker: RefCell::new(Picker::new(config.balance, config.backend_inflight_max)),
            pool: RefCell::new(Pool::new()),
            queue: RefCell::new(RequestQueue::new(config.queue_length_max)),
            retry_budget: RefCell::new(RetryBudget::new(io.now())),
            is_draining: Cell::new(false),
            spares_silent: Cell::new(false),
            snapshot: RefCell::new(Arc::new(Snapshot::empty())),
            directory: RefCell::new(Vec::new()),
            date: RefCell::new(DateText::new()),
            desks: RefCell::new(Vec::with_capacity(DESKS_KEPT_MAX)),
            room: RefCell::new(Vec::new()),
            tick: io.timer(),
            is_ticking: Cell::new(false),
            io,
            config,
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.io.now()
    }

    /// The `Date` of a response written now.
    pub(super) fn date(&self) -> [u8; DATE_BYTES] {
        *self.date.borrow_mut().at(self.io.wall())
    }

    /// Takes over a snapshot: the directory, who is fit, and what follows from both.
    pub(super) fn apply(&self, snapshot: Arc<Snapshot>, published: &Published) {
        let mut directory = self.directory.borrow_mut();
        directory.iter_mut().for_each(|listing| listing.place = 0);
        for (place, backend) in snapshot.backends.iter().enumerate() {
            let index = backend.slot.index();
            if directory.len() <= index {
                directory.resize(index + 1, Listing::default());
            }
            directory[index].place = u32::try_from(place + 1).expect("a snapshot is bounded");
        }
        for listing in directory.iter_mut().filter(|listing| listing.place == 0) {
            listing.first_address = 0;
        }
        drop(directory);
        let listed = snapshot.backends.iter().map(|backend| backend.slot.index());
        self.figures.slots.borrow_mut().list(listed, published.slots());
        self.health.apply(&snapshot, self.now());
        *self.snapshot.borrow_mut() = snapshot;
        self.rearrange();
    }

    /// Who gets requests has changed: the picker's tables, and the end of idle connections to whoever is draining, gone
    /// or out.
    pub(super) fn rearrange(&self) {
        let snapshot = self.snapshot.borrow();
        let mut picker = self.picker.borrow_mut();
        let mut pool = self.pool.borrow_mut();
        for (slot, listing) in (0..).map(Slot).zip(self.directory.borrow().iter()) {
            let backend = listing.place.checked_sub(1).map(|p| &snapshot.backends[p as usize]);
            let is_eligible = backend.is_some_and(Backend::is_eligible);
            picker.set_available(slot, self.health.is_available(slot));
            let is_open = is_eligible && self.health.keeps_idle(slot);
            let mut evicted = pool.set_open(slot, is_open);
            if !is_open && let Some(share) = &self.share {
                evicted += share.clear(slot);
            }
            self.counters.add(Count::PoolEvictions, evicted as u64);
        }
        picker.apply(&snapshot, self.now());
        self.queue.borrow().wake_front();
    }

    /// Looks at the backend in `slot`, if it is listed.
    pub(super) fn with_backend<T>(
        &self,
        slot: Slot,
        look: impl FnOnce(&Backend) -> T,
    ) -> Option<T> {
        let place = self.directory.borrow().get(slot.index())?.place.checked_sub(1)?;
        self.snapshot.borrow().backends.get(place as usize).map(look)
    }

    /// Which of `n` addresses of `slot` a connect should try first.
    pub(super) fn first_address(&self, slot: Slot, n: usize) -> usize {
        let first = self.directory.borrow().get(slot.index()).map_or(0, |l| l.first_address);
        first as usize % n.max(1)
    }

    /// Connects to `slot` begin with another address than number `failed` from now on.
    pub(super) fn skip_address(&self, slot: Slot, failed: usize) {
        if let Some(listing) = self.directory.borrow_mut().get_mut(slot.index()) {
            listing.first_address = u32::try_from(failed).unwrap_or(0).wrapping_add(1);
        }
    }

    /// Epoch of the snapshot in force.
    pub(super) fn epoch(&self) -> u64 {
        self.snapshot.borrow().epoch
    }

    /// A desk for one request; it comes back when dropped.
    pub(super) fn desk(self: &Rc<Self>) -> DeskInUse<I> {
        let desk = self.desks.borrow_mut().pop();
        let desk = desk.unwrap_or_else(|| Box::new(Desk::new(&self.config.head)));
        DeskInUse { desk: Some(desk), shard: self.clone() }
    }

    /// A place for one more client connection. While the core drains there always is one: what waits in the backlog is
    /// served to the end.
    pub(super) fn admit(self: &Rc<Self>) -> Option<Admitted<I>> {
        let max = if self.is_draining.get() { u64::MAX } else { self.connections_max() };
        self.published.take_place(max).then(|| self.admit_taken())
    }

    /// Whether a connection on which nothing is under way is closed.
    pub(super) fn closes_silent(&self) -> bool {
        self.is_draining.get() && !self.spares_silent.get()
    }

    /// The place that another core took for a connection it sent here.
    pub(super) fn admit_taken(self: &Rc<Self>) -> Admitted<I> {
        Admitted(self.clone())
    }

    /// Client connections, with those on their way here.
    pub(super) fn connections(&self) -> u64 {
        self.published.connections()
    }

    pub(super) fn has_room(&self) -> bool {
        self.connections() < self.connections_max()
    }

    fn connections_max(&self) -> u64 {
        self.config.connections_max as u64
    }

    /// Wakes `waker` at the end of the next connection.
    pub(super) fn await_room(&self, waker: &Waker) {
        let mut room = self.room.borrow_mut();
        if !room.iter().any(|known| known.will_wake(waker)) {
            room.push(waker.clone());
        }
    }

    /// Wakes whoever waits for room or for the last connection to end.
    pub(super) fn wake_waiters(&self) {
        for waker in self.room.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Says that there is work, so that the tick runs.
    pub(super) fn note_work(&self) {
        if !self.is_ticking.replace(true) {
            self.tick.set(Some(self.now() + TICK));
        }
    }

    /// The tick's own timer, and whether anything happened since it was asked last.
    pub(super) fn tick(&self) -> (&I::Timer, &Cell<bool>) {
        (&self.tick, &self.is_ticking)
    }
}

/// A client connection that counts against the limit until dropped.
pub(super) struct Admitted<I: Io>(Rc<Shard<I>>);

impl<I: Io> Drop for Admitted<I> {
    fn drop(&mut self) {
        let before = self.0.published.give_place();
        if self.0.is_draining.get() || before >= self.0.connections_max() {
            self.0.wake_waiters();
        }
    }
}

/// A [`Desk`] on loan.
pub(super) struct DeskInUse<I: Io> {
    desk: Option<Box<Desk>>,
    shard: Rc<Shard<I>>,
}

impl<I: Io> Deref for DeskInUse<I> {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        self.desk.as_ref().expect("a desk is there until it is dropped")
    }
}

impl<I: Io> DerefMut for DeskInUse<I> {
    fn deref_mut(&mut self) -> &mut Desk {
        self.desk.as_mut().expect("a desk is there until it is dropped")
    }
}

impl<I: Io> Drop for DeskInUse<I> {
    fn drop(&mut self) {
        let mut desks = self.shard.desks.borrow_mut();
        if let Some(mut desk) = self.desk.take()
            && desks.len() < DESKS_KEPT_MAX
        {
            desk.clear();
            desks.push(desk);
        }
    }
}

/// Desks kept for reuse per core; more exist while more requests are in flight.
pub(super) const DESKS_KEPT_MAX: usize = 128;
/// Pause between two ticks while requests are in flight.
pub const TICK: Duration = Duration::from_millis(10);
