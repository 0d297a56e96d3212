//! The cache as one core works with it (RFC 9111, 5861, 9211): its shard, its handles to what other cores keep, and
//! the requests that wait.
//!
//! | file | decides |
//! |---|---|
//! | `seek` | whether a request is answered from store, fetches for all, waits, or goes on its own |
//! | `serving` | nothing: it writes a stored response to a client |
//! | `errand` | what the cache makes of a backend's response |
//! | `freshening` | the same of a 304, and of an answer to HEAD |
//! | `filling` | whether a response that is being stored is still wanted |
//! | `fill` | nothing: it takes a body in when no client carries it |
//! | `refresh` | nothing: it asks the origin behind a client's back (stale-while-revalidate) |
//! | `home` | what this core answers others about the keys that are its own |
//! | `parcel`, `waits`, `marks` | what is said between cores, who waits, which keys are not worth asking about |
//!
//! A cache problem never fails a request: whatever goes wrong here ends in a request that goes forward on its own.
//! Invalidation asks nobody: the key's number in [`Generations`] is raised before the response that tells of the change
//! is relayed, and every use of a stored response looks at it.

mod errand;
mod fill;
mod filling;
mod freshening;
mod home;
mod marks;
mod parcel;
mod refresh;
mod seek;
mod serving;
mod waits;

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::cache::store::{
    self, BodyState, Files, Generations, Handle, Kept, KeyHasher, L1, Limits, Store,
};
use crate::cache::{CacheSettings, Representation};
use crate::config::CacheConfig;
use crate::http::RequestHead;
use crate::io::Io;
use crate::time::{Instant, WallTime};
use marks::Marks;
use parcel::{Neighbour, Parcel};
use waits::{Ticket, Waits};

pub(super) use errand::{Errand, Reception};
pub(super) use fill::take_over;
pub use parcel::{CacheMail, Purger};
pub(super) use seek::{Begun, begin};
pub(super) use serving::{Stock, serve, serve_rest};

/// What one core has of the cache.
pub(super) struct Caching<I: Io> {
    settings: CacheSettings,
    /// Whether there are proxies whose word of scheme and host is part of a key.
    has_proxies: bool,
    core: usize,
    generations: Arc<Generations>,
    files: Arc<Files>,
    done: Arc<AtomicUsize>,
    is_done: Cell<bool>,
    /// Tasks that take in a body nobody carries; tasks that ask behind a client's back.
    fills: Cell<usize>,
    refreshes: Cell<usize>,
    hasher: KeyHasher,
    cores: Vec<Neighbour<I::Bell>>,
    inbox: Receiver<Parcel>,
    store: RefCell<Store<Representation>>,
    l1: RefCell<L1<Representation>>,
    marks: RefCell<Marks>,
    waits: RefCell<Waits>,
    scratch: RefCell<Scratch>,
}

/// Memory for judging stored responses.
#[derive(Default)]
struct Scratch {
    selection: Vec<u8>,
    head: RequestHead,
}

/// A stored response in use: the core's own one, or a handle to another core's, shared without an atomic.
pub(super) enum Held {
    Own(Handle<Representation>),
    Kept(Kept<Representation>),
}

impl Deref for Held {
    type Target = store::Object<Representation>;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Own(handle) => handle,
            Self::Kept(kept) => kept,
        }
    }
}

impl<I: Io> Caching<I> {
    pub(super) fn new(config: &CacheConfig, has_proxies: bool, mail: CacheMail<I::Bell>) -> Self {
        let CacheMail { core, generations, files, done, hasher, inbox, cores } = mail;
        let limits = Limits {
            bytes: config.bytes,
            entries: usize::try_from(config.entries).unwrap_or(usize::MAX),
            lease: LEASE,
            pause: UNCACHEABLE,
        };
        // A core alone is home to everything and keeps no handles.
        let l1_slots = if cores.len() > 1 { store::L1_SLOTS } else { 0 };
        Self {
            settings: config.settings,
            has_proxies,
            core,
            store: RefCell::new(Store::new(limits, generations.clone())),
            l1: RefCell::new(L1::new(l1_slots, generations.clone())),
            marks: RefCell::new(Marks::new()),
            waits: RefCell::default(),
            scratch: RefCell::default(),
            generations,
            files,
            done,
            is_done: Cell::new(false),
            fills: Cell::new(0),
            refreshes: Cell::new(0),
            hasher,
            cores,
            inbox,
        }
    }

    fn home_of(&self, hash: u64) -> usize {
        store::home_of(hash, self.cores.len())
    }

    fn is_home(&self, hash: u64) -> bool {
        self.home_of(hash) == self.core
    }

    /// Longest body that is stored.
    fn object_bytes_max(&self) -> u64 {
        self.store.borrow().object_bytes_max()
    }

    /// Rings everybody who reads `body`.
    fn ring_readers(&self, body: &store::Body) {
        let mut watchers = store::take_watchers(body);
        while watchers != 0 {
            let bit = watchers.trailing_zeros() as usize;
            watchers &= watchers - 1;
            for core in (bit..self.cores.len()).step_by(u64::BITS as usize) {
                if core == self.core {
                    self.waits.borrow_mut().wake_readers();
                } else {
                    self.cores[core].ring();
                }
            }
        }
    }

    /// From here on nothing that was stored under `key` before is used, on any core, nor what is being fetched.
    /// The one of hash `advanced` has had its turn.
    fn invalidate(&self, key: &[u8], advanced: Option<u64>) {
        let hash = self.hasher.hash(key);
        if advanced != Some(hash) {
            self.generations.bump(hash);
        }
    }

    fn enter(&self) -> Place<'_, I> {
        Place { ticket: self.waits.borrow_mut().enter(), caching: self }
    }

    /// Whether this core may end: it has no connection and takes in no body any more, and the same is true of all
    /// others, which may still ask it about its keys. To be asked while the process drains, and again when rung.
    pub(super) fn is_over(&self) -> bool {
        if self.fills.get() == 0 && !self.is_done.replace(true) {
            self.done.fetch_add(1, Ordering::AcqRel);
            self.cores.iter().for_each(Neighbour::ring);
        }
        self.is_done.get() && self.done.load(Ordering::Acquire) == self.cores.len()
    }

    /// A part of the periodic work: expiry, handles, what was served from them.
    pub(super) fn tick(&self, now: Instant, is_busy: bool) {
        let budget = if is_busy { SWEEP_BUSY } else { SWEEP_IDLE };
        self.store.borrow_mut().expire(now, budget);
        self.tell_released();
        if self.cores.len() > 1 {
            self.l1.borrow_mut().sweep(now, budget, |hash| {
                let home = &self.cores[self.home_of(hash)];
                // A hint, for which nobody's inbox need overflow.
                if home.takes_questions() {
                    home.send(Parcel::Touched(hash));
                }
            });
        }
    }

    /// What the shard counted, and what it holds now.
    pub(super) fn figures(&self) -> (store::Counters, store::Gauges) {
        let store = self.store.borrow();
        (*store.counters(), store.gauges())
    }

    /// The monotonic instant at which the wall clock will show `at`; now, if it has passed.
    fn instant(now: (Instant, WallTime), at: WallTime) -> Instant {
        now.0 + Duration::from_millis(at.as_ms().saturating_sub(now.1.as_ms()))
    }
}

/// The length of a stored body, if a client can be told it: the whole is there, or its framing said so and nothing has
/// broken off.
fn length_of(object: &store::Object<Representation>) -> Option<u64> {
    let published = object.body().published();
    match published.state {
        BodyState::Complete => Some(published.bytes),
        BodyState::Filling => object.policy().length(),
        BodyState::Aborted => None,
    }
}

/// A wait, ended when dropped.
struct Place<'a, I: Io> {
    ticket: Ticket,
    caching: &'a Caching<I>,
}

impl<I: Io> Drop for Place<'_, I> {
    fn drop(&mut self) {
        self.caching.waits.borrow_mut().leave(self.ticket);
    }
}

/// How long one request fetches for all before the others go on their own.
const LEASE: Duration = Duration::from_secs(5);
/// How long a key whose response could not be stored counts as uncacheable.
const UNCACHEABLE: Duration = Duration::from_secs(10);
/// The same after a failure: everybody who waited tries for himself, and soon somebody tries for all again.
const FAILED: Duration = Duration::from_secs(1);
/// A body that has not grown for so long gets no new readers.
const STALLED: Duration = Duration::from_secs(1);
/// Tasks per core that take in bodies without a client, and that ask behind a client's back.
const FILLS_MAX: usize = 256;
const REFRESHES_MAX: usize = 64;
/// Slots looked at per tick while requests are in flight, and while none are.
const SWEEP_BUSY: usize = 256;
const SWEEP_IDLE: usize = 4096;
