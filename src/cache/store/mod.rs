//! The store of one shard: which responses are kept, who fetches the missing ones, and what leaves first.
//!
//! Every key has a home core, and only that core has this structure in its hands; others hold handles. It decides on
//! numbers alone: keys come with their hash, `now` is handed in, freshness and `Vary` are the caller's judgement over
//! an opaque policy `P`. It does no I/O, wakes nobody and bumps no generation.
//!
//! - [`Body`]: bytes that one core appends and all may read. [`Object`]: key, policy and body under a [`Handle`].
//! - [`Store`]: index, variants, budgets, eviction (S3-FIFO), expiry, leases.
//! - [`Generations`]: invalidation that waits for nobody. [`L1`]: a core's own handles to what it served lately.
//!
//! A fill is counted at its declared length, or else as it grows, and *pinned*: it is not evicted, its key neither.
//! Evictions per call are limited; a fill that is complete while they still lag behind stays pinned until they have
//! caught up.
//!
//! A body that leaves while somebody holds it is still memory: it is counted until it is freed. One that a slow reader has
//! told of ([`Body::handles`]) is not evicted, which would free nothing. Where nothing but such bodies is left, nothing
//! new is stored.
//!
//! Invariants: what is not pinned is within both budgets, after every call; what is pinned is within the byte budget
//! after it was polled; no object is larger than [`Store::object_bytes_max`], no key heavier than half the shard; a
//! key is evictable or has a variant that fills, never both; an object that has left is marked as gone.

mod body;
mod entries;
mod generations;
mod hashing;
mod l1;
mod lease;
mod lingering;
mod object;
mod s3fifo;
mod vocabulary;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

pub use body::{
    BODY_BYTES_MAX, Body, BodyState, BodyWriter, FilePlace, Files, Full, Published, SEGMENT_BYTES,
    take_watchers,
};
pub use generations::{GENERATION_SLOTS, Generations};
pub use hashing::{KeyHasher, home_of};
pub use l1::{Kept, L1, L1_SLOTS};
pub use lease::{LEASES_MAX, Lease, WAITERS_MAX, Waiter};
pub use object::{Handle, Key, OVERHEAD_BYTES, Object, Terms};
pub use vocabulary::{Answer, Counters, End, Fill, Gauges, Limits, Put, Refusal, Seek, Use};

use crate::time::Instant;
use entries::Why;
use hashing::ByHash;
use lease::{Leases, Turn};
use lingering::Lingering;
use s3fifo::S3Fifo;

/// One shard.
#[derive(Debug)]
pub struct Store<P> {
    limits: Limits,
    generations: Arc<Generations>,
    index: HashMap<u64, u32, ByHash>,
    slab: Vec<Option<Entry<P>>>,
    free: Vec<u32>,
    queues: S3Fifo,
    leases: Leases,
    released: Vec<Waiter>,
    /// The slot of each fill.
    fills: HashMap<u64, u32, ByHash>,
    /// Fills in the order of their next routine look; ended ones are passed over.
    rounds: VecDeque<u64>,
    /// Complete fills that wait for room; removed ones are passed over.
    settling: VecDeque<u64>,
    last_fill: u64,
    bytes: u64,
    lingering: Lingering,
    objects: usize,
    /// Next slot of the expiry sweep.
    hand: usize,
    counters: Counters,
    #[cfg(debug_assertions)]
    checks: u32,
}

#[derive(Debug)]
struct Entry<P> {
    hash: u64,
    /// Newest first, never empty.
    variants: Vec<Variant<P>>,
    weight: u64,
    /// Variants with a fill: while there are any, the entry is pinned.
    fills: usize,
}

#[derive(Debug)]
struct Variant<P> {
    object: Handle<P>,
    weight: u64,
    fill: Option<u64>,
}

impl<P> Store<P> {
    /// An empty shard.
    pub fn new(limits: Limits, generations: Arc<Generations>) -> Self {
        Self {
            limits: Limits { entries: limits.entries.max(1), ..limits },
            generations,
            index: HashMap::default(),
            slab: Vec::new(),
            free: Vec::new(),
            queues: S3Fifo::new(),
            leases: Leases::new(),
            released: Vec::new(),
            fills: HashMap::default(),
            rounds: VecDeque::new(),
            settling: VecDeque::new(),
            last_fill: 0,
            bytes: 0,
            lingering: Lingering::default(),
            objects: 0,
            hand: 0,
            counters: Counters::default(),
            #[cfg(debug_assertions)]
            checks: 0,
        }
    }

    /// Longest body that is stored: 8 MiB, or half a shard that is smaller than two of them.
    pub fn object_bytes_max(&self) -> u64 {
        OBJECT_BYTES_MAX.min(self.limits.bytes / 2)
    }

    /// What the request for `key` is to do. `judge` sees the key's usable variants, newest first, until one is not
    /// [`Use::No`]. A hit allocates nothing.
    pub fn lookup(
        &mut self,
        key: Key<'_>,
        waiter: Waiter,
        now: Instant,
        judge: impl FnMut(&Object<P>) -> Use,
    ) -> Answer<P> {
        self.seek(Seek::Any, key, waiter, now, judge)
    }

    /// As [`lookup`](Self::lookup), for requests whose response is perhaps for nobody else.
    pub fn seek(
        &mut self,
        seek: Seek,
        key: Key<'_>,
        waiter: Waiter,
        now: Instant,
        judge: impl FnMut(&Object<P>) -> Use,
    ) -> Answer<P> {
        let (found, object) = self.find(key, judge).map_or((Use::No, None), |(u, o)| (u, Some(o)));
        let generation = self.generations.load(key.hash);
        let deadline = now + self.limits.lease;
        let answer = match (found, object) {
            (Use::Serve, Some(object)) => Answer::Hit { object, refill: None },
            (Use::ServeAndRefill, Some(object)) => {
                let is_worth_it = seek != Seek::Peek && !self.leases.is_uncacheable(key.hash, now);
                let refill = is_worth_it.then(|| self.leases.take(key, generation, deadline));
                Answer::Hit { object, refill: refill.flatten() }
            }
            (_, stale)
                if seek == Seek::Peek
                    || seek == Seek::IfStored && stale.is_none()
                    || self.leases.is_uncacheable(key.hash, now) =>
            {
                Answer::Bypass { stale }
            }
            (_, stale) => {
                match self.leases.ask(key, generation, waiter, deadline, &mut self.released) {
                    Turn::Fetch(lease) => Answer::Lease { lease, stale },
                    Turn::Wait => Answer::Wait,
                    Turn::Bypass => Answer::Bypass { stale },
                }
            }
        };
        let counted = match answer {
            Answer::Hit { .. } => &mut self.counters.hits,
            Answer::Wait => &mut self.counters.waits,
            Answer::Lease { .. } => &mut self.counters.misses,
            Answer::Bypass { .. } => &mut self.counters.bypassed,
        };
        *counted += 1;
        answer
    }

    /// A hit that another core's [`L1`] answered, told to the home afterwards so that it knows what is in demand.
    pub fn touch(&mut self, hash: u64) {
        if let Some(slot) = self.index.get(&hash) {
            self.queues.touch(*slot);
        }
    }

    /// Gives a lease back with what was fetched, whole or filling. The waiters are released.
    pub fn open(&mut self, lease: Lease, object: Handle<P>) -> Put {
        let is_its = lease.hash == object.terms().hash;
        debug_assert!(is_its, "a lease is for its own key");
        if !is_its || !self.leases.end(lease, &mut self.released) {
            object.let_go();
            self.counters.refused += 1;
            return Put::Refused(Refusal::LeaseOver);
        }
        self.put(object)
    }

    /// Gives a lease back without an object. The waiters are released.
    pub fn end(&mut self, lease: Lease, end: End) {
        let is_ended = self.leases.end(lease, &mut self.released);
        if let End::Uncacheable(until) = end
            && is_ended
        {
            self.leases.remember_uncacheable(lease.hash, until);
        }
    }

    /// Until then, requests for this hash do not wait for each other.
    pub fn pause(&mut self, hash: u64, until: Instant) {
        self.leases.remember_uncacheable(hash, until);
    }

    /// Stores an object without a lease: a freshened head over the same body, for example. It takes the place of the
    /// one with the same variant digest.
    pub fn put(&mut self, object: Handle<P>) -> Put {
        let put = match self.admit(&object) {
            Err(refusal) => {
                // Who fetches it on another core learns this way that nobody will ask for it.
                object.let_go();
                Put::Refused(refusal)
            }
            Ok(body) => self.store(object, body),
        };
        match put {
            Put::Refused(_) => self.counters.refused += 1,
            _ => self.counters.stored += 1,
        }
        self.check();
        put
    }

    /// Looks at a fill's body: counts what was added, drops it when it broke off, was invalidated or has become too
    /// large, and unpins it when it is whole. To be called after a segment or so, and at the end.
    pub fn poll(&mut self, fill: Fill) -> Put {
        let put = self.poll_fill(fill.0);
        self.check();
        put
    }

    /// Removes all variants of `key` and ends its lease: what is being fetched will not be stored. How many objects.
    pub fn remove(&mut self, key: Key<'_>) -> usize {
        self.leases.revoke(key, &mut self.released);
        let slot = self.slot_of(key);
        let removed = slot.map_or(0, |slot| self.remove_entry(slot, Why::Removed));
        self.check();
        removed
    }

    /// Removes every key that begins with `prefix`, as [`remove`](Self::remove) does; the empty prefix removes all.
    /// Walks the whole shard. How many objects.
    pub fn remove_prefix(&mut self, prefix: &[u8]) -> usize {
        self.leases.revoke_prefix(prefix, &mut self.released);
        let mut removed = 0;
        for slot in 0..self.slab.len() as u32 {
            if self.entry(slot).is_some_and(|entry| entry.key().starts_with(prefix)) {
                removed += self.remove_entry(slot, Why::Removed);
            }
        }
        self.check();
        removed
    }

    /// A part of the periodic sweep, `budget` of each: slots with objects that are past every use, fills, and leases
    /// whose deadline has come. How many objects expired.
    pub fn expire(&mut self, now: Instant, budget: usize) -> usize {
        let (pause, released) = (now + self.limits.pause, &mut self.released);
        self.counters.late_leases += self.leases.expire(now, pause, budget, released) as u64;
        for _ in 0..budget.min(self.rounds.len()) {
            let fill = self.rounds.pop_front().expect("as many as there are");
            if self.fills.contains_key(&fill) {
                self.poll_fill(fill);
            }
            if self.fills.contains_key(&fill) {
                self.rounds.push_back(fill);
            }
        }
        let mut expired = 0;
        for _ in 0..budget.min(self.slab.len()) {
            self.hand = if self.hand + 1 < self.slab.len() { self.hand + 1 } else { 0 };
            let generations = Arc::clone(&self.generations);
            expired += self.remove_variants(self.hand as u32, Why::Expired, |variant| {
                variant.object.terms().keep_until <= now || !variant.object.is_usable(&generations)
            });
        }
        self.lingering.sweep(budget);
        self.make_room(0);
        self.check();
        expired
    }

    /// Those whose waiting has ended since the last call: they look again.
    pub fn take_released(&mut self) -> impl Iterator<Item = Waiter> {
        self.released.drain(..)
    }

    /// What happened since the start.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What is there now.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            bytes: self.bytes,
            pinned_bytes: self.bytes - self.queues.bytes(),
            lingering_bytes: self.lingering.bytes(),
            entries: self.index.len(),
            objects: self.objects,
            fills: self.fills.len(),
            leases: self.leases.len(),
        }
    }

    /// The first usable variant that is not [`Use::No`].
    fn find(
        &mut self,
        key: Key<'_>,
        mut judge: impl FnMut(&Object<P>) -> Use,
    ) -> Option<(Use, Handle<P>)> {
        let slot = self.slot_of(key)?;
        let entry = self.slab[slot as usize].as_ref()?;
        let mut found = None;
        let mut has_unusable = false;
        for variant in &entry.variants {
            if !variant.object.is_usable(&self.generations) {
                has_unusable = true;
                continue;
            }
            match judge(&variant.object) {
                Use::No => {}
                verdict => {
                    found = Some((verdict, Arc::clone(&variant.object)));
                    break;
                }
            }
        }
        if found.is_some() {
            self.queues.touch(slot);
        }
        if has_unusable {
            let generations = Arc::clone(&self.generations);
            self.remove_variants(slot, Why::Expired, |v| !v.object.is_usable(&generations));
            self.check();
        }
        found
    }

    fn slot_of(&self, key: Key<'_>) -> Option<u32> {
        let slot = *self.index.get(&key.hash)?;
        self.entry(slot).filter(|entry| entry.key() == key.bytes).map(|_| slot)
    }

    /// Whether an object may be stored, and how long its body is by now.
    fn admit(&mut self, object: &Handle<P>) -> Result<Published, Refusal> {
        let body = object.body().published();
        let weight = object.weight();
        let pinned = self.pinned_bytes() + self.evictable_bytes(object) + weight;
        match body.state {
            _ if object.terms().generation != self.generations.load(object.terms().hash) => {
                Err(Refusal::Invalidated)
            }
            BodyState::Aborted => Err(Refusal::Aborted),
            _ if self.is_too_large(body.bytes, weight) => Err(Refusal::TooLarge),
            _ if pinned > self.limits.bytes => Err(Refusal::Crowded),
            BodyState::Filling if self.fills.len() >= self.limits.entries => Err(Refusal::Crowded),
            _ if !self.make_room(weight.saturating_sub(self.replaced_bytes(object))) => {
                Err(Refusal::Crowded)
            }
            BodyState::Filling | BodyState::Complete => Ok(body),
        }
    }
}

impl<P> Entry<P> {
    fn key(&self) -> &[u8] {
        self.variants.first().map_or(&[], |variant| variant.object.key())
    }
}

/// Longest body that is stored, where the shard is not smaller.
pub const OBJECT_BYTES_MAX: u64 = 8 * 1024 * 1024;
const _: () = assert!(OBJECT_BYTES_MAX <= BODY_BYTES_MAX);
/// Variants of a key; the oldest leaves first.
pub const VARIANTS_MAX: usize = 16;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod store_tests;
