//! Who fetches a key, who waits for it, and which keys are not worth waiting for.
//!
//! At most one lease per key is out. It ends once: with a response, without one, or at its deadline; whoever waited is
//! handed back then and nobody is kept. Afterwards its token is worth nothing. A key that turned out uncacheable is
//! remembered for a while, so that requests for it do not queue up behind each other.
//!
//! Invariants: a lease's deadline stands in the queue of deadlines; waiters are counted and limited.

use std::collections::{HashMap, VecDeque};

use super::Key;
use super::hashing::ByHash;
use crate::time::Instant;

/// The right to fetch a key for all. Given back by [`Store::open`](super::Store::open) or
/// [`Store::end`](super::Store::end), in any case by the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The key's hash.
    pub hash: u64,
    /// The key's generation when the lease was given; the object fetched under it carries it.
    pub generation: u64,
    /// Tells it from the key's earlier leases.
    pub ticket: u64,
}

/// Somebody on some core who waits. What the ticket means is that core's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waiter {
    /// The core.
    pub core: u32,
    /// Its own name for the one who waits.
    pub ticket: u64,
}

/// All leases of one shard.
#[derive(Debug)]
pub(super) struct Leases {
    by_hash: HashMap<u64, Held, ByHash>,
    /// In order of deadlines, as all leases run equally long. Ended ones are passed over.
    deadlines: VecDeque<(Instant, u64, u64)>,
    waiters: usize,
    tickets: u64,
    uncacheable: Box<[(u64, Instant)]>,
}

#[derive(Debug)]
struct Held {
    ticket: u64,
    generation: u64,
    key: Box<[u8]>,
    waiters: Vec<Waiter>,
}

/// What a request without a usable object has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Fetch(Lease),
    Wait,
    /// On its own, without the store.
    Bypass,
}

impl Leases {
    pub(super) fn new() -> Self {
        Self {
            by_hash: HashMap::default(),
            deadlines: VecDeque::new(),
            waiters: 0,
            tickets: 0,
            uncacheable: vec![(0, Instant::default()); UNCACHEABLE_SLOTS].into_boxed_slice(),
        }
    }

    /// Leases that are out.
    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Waits behind the lease that is out, or takes one. A lease of an older generation gives way: what it fetches
    /// will not be stored. Its waiters go to `released`.
    pub(super) fn ask(
        &mut self,
        key: Key<'_>,
        generation: u64,
        waiter: Waiter,
        deadline: Instant,
        released: &mut Vec<Waiter>,
    ) -> Turn {
        if let Some(held) = self.by_hash.get_mut(&key.hash) {
            if *held.key != *key.bytes || self.waiters >= WAITERS_MAX {
                return Turn::Bypass;
            }
            if held.generation == generation {
                self.waiters += 1;
                held.waiters.push(waiter);
                return Turn::Wait;
            }
            self.revoke(key, released);
        }
        self.take(key, generation, deadline).map_or(Turn::Bypass, Turn::Fetch)
    }

    /// A lease if none is out.
    pub(super) fn take(
        &mut self,
        key: Key<'_>,
        generation: u64,
        deadline: Instant,
    ) -> Option<Lease> {
        if self.by_hash.len() >= LEASES_MAX || self.by_hash.contains_key(&key.hash) {
            return None;
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let held = Held { ticket, generation, key: key.bytes.into(), waiters: Vec::new() };
        self.by_hash.insert(key.hash, held);
        debug_assert!(self.deadlines.back().is_none_or(|last| last.0 <= deadline));
        self.deadlines.push_back((deadline, key.hash, ticket));
        self.compact();
        Some(Lease { hash: key.hash, generation, ticket })
    }

    /// Ends a lease and hands back who waited; false when it had ended before.
    pub(super) fn end(&mut self, lease: Lease, released: &mut Vec<Waiter>) -> bool {
        self.end_ticket(lease.hash, lease.ticket, released)
    }

    /// Ends the key's lease, whoever holds it.
    pub(super) fn revoke(&mut self, key: Key<'_>, released: &mut Vec<Waiter>) {
        let held = self.by_hash.get(&key.hash).filter(|held| *held.key == *key.bytes);
        if let Some(ticket) = held.map(|held| held.ticket) {
            self.end_ticket(key.hash, ticket, released);
        }
    }

    /// Ends the leases of all keys that begin with `prefix`.
    pub(super) fn revoke_prefix(&mut self, prefix: &[u8], released: &mut Vec<Waiter>) {
        let waiters = &mut self.waiters;
        self.by_hash.retain(|_, held| {
            let is_kept = !held.key.starts_with(prefix);
            if !is_kept {
                *waiters -= held.waiters.len();
                released.append(&mut held.waiters);
            }
            is_kept
        });
    }

    /// Ends at most `budget` leases whose deadline has come, and remembers their keys as uncacheable until `until`:
    /// otherwise their waiters would try one after the other. How many.
    pub(super) fn expire(
        &mut self,
        now: Instant,
        until: Instant,
        budget: usize,
        released: &mut Vec<Waiter>,
    ) -> usize {
        let mut ended = 0;
        while ended < budget {
            match self.deadlines.front() {
                Some(&(deadline, hash, ticket)) if deadline <= now => {
                    self.deadlines.pop_front();
                    if self.end_ticket(hash, ticket, released) {
                        self.remember_uncacheable(hash, until);
                        ended += 1;
                    }
                }
                _ => break,
            }
        }
        ended
    }

    /// Remembers that requests for this hash had better not wait.
    pub(super) fn remember_uncacheable(&mut self, hash: u64, until: Instant) {
        *self.uncacheable_slot(hash) = (hash, until);
    }

    /// The key had a response that could be stored after all.
    pub(super) fn forget_uncacheable(&mut self, hash: u64) {
        let slot = self.uncacheable_slot(hash);
        if slot.0 == hash {
            slot.1 = Instant::default();
        }
    }

    pub(super) fn is_uncacheable(&mut self, hash: u64, now: Instant) -> bool {
        let slot = *self.uncacheable_slot(hash);
        slot.0 == hash && now < slot.1
    }

    fn uncacheable_slot(&mut self, hash: u64) -> &mut (u64, Instant) {
        &mut self.uncacheable[(hash >> 20) as usize % UNCACHEABLE_SLOTS]
    }

    fn end_ticket(&mut self, hash: u64, ticket: u64, released: &mut Vec<Waiter>) -> bool {
        if self.by_hash.get(&hash).is_none_or(|held| held.ticket != ticket) {
            return false;
        }
        if let Some(mut held) = self.by_hash.remove(&hash) {
            self.waiters -= held.waiters.len();
            released.append(&mut held.waiters);
        }
        true
    }

    /// Keeps the queue in proportion to the leases that are out: ended ones go in bulk.
    fn compact(&mut self) {
        if self.deadlines.len() > 2 * self.by_hash.len() + DEADLINES_SLACK {
            let by_hash = &self.by_hash;
            self.deadlines.retain(|(_, hash, ticket)| {
                by_hash.get(hash).is_some_and(|held| held.ticket == *ticket)
            });
        }
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn check_invariants(&self) {
        assert_eq!(
            self.waiters,
            self.by_hash.values().map(|held| held.waiters.len()).sum::<usize>()
        );
        assert!(self.by_hash.len() <= LEASES_MAX && self.waiters <= WAITERS_MAX);
        let live = self.deadlines.iter().filter(|(_, hash, ticket)| {
            self.by_hash.get(hash).is_some_and(|held| held.ticket == *ticket)
        });
        assert_eq!(live.count(), self.by_hash.len());
        assert!(self.deadlines.len() <= 2 * (LEASES_MAX + DEADLINES_SLACK));
    }
}

/// Leases a shard gives at a time; more requests go through without the store.
pub const LEASES_MAX: usize = 16_384;
/// Requests that wait in a shard; more go through without the store.
pub const WAITERS_MAX: usize = 65_536;
/// Keys remembered as uncacheable, direct-mapped: a later one takes the place of an earlier one.
const UNCACHEABLE_SLOTS: usize = 4096;
const DEADLINES_SLACK: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_ns(ms * 1_000_000)
    }

    const KEY: Key<'_> = Key { hash: 9, bytes: b"/a" };

    const fn waiter(ticket: u64) -> Waiter {
        Waiter { core: 1, ticket }
    }

    #[track_caller]
    fn fetch(turn: Turn) -> Lease {
        match turn {
            Turn::Fetch(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_fetches_and_the_others_wait_until_it_ends() {
        let mut leases = Leases::new();
        let mut out = Vec::new();
        let lease = fetch(leases.ask(KEY, 0, waiter(1), at(10), &mut out));
        assert_eq!(leases.ask(KEY, 0, waiter(2), at(10), &mut out), Turn::Wait);
        assert_eq!(leases.ask(KEY, 0, waiter(3), at(10), &mut out), Turn::Wait);
        let other = Key { bytes: b"/b", ..KEY };
        assert_eq!(leases.ask(other, 0, waiter(4), at(10), &mut out), Turn::Bypass, "same hash");
        leases.check_invariants();
        assert!(out.is_empty());
        assert!(leases.end(lease, &mut out));
        assert_eq!(out, [waiter(2), waiter(3)]);
        assert!(!leases.end(lease, &mut out), "a lease ends once");
        let next = fetch(leases.ask(KEY, 0, waiter(5), at(11), &mut out));
        assert_ne!(next, lease);
        assert!(!leases.end(lease, &mut out), "an old token does not end a new lease");
        leases.check_invariants();
    }

    #[test]
    fn a_deadline_releases_everybody() {
        let mut leases = Leases::new();
        let mut out = Vec::new();
        fetch(leases.ask(KEY, 0, waiter(1), at(10), &mut out));
        leases.ask(KEY, 0, waiter(2), at(11), &mut out);
        assert_eq!(leases.expire(at(9), at(12), 8, &mut out), 0);
        assert_eq!(leases.expire(at(10), at(12), 8, &mut out), 1);
        assert_eq!(out, [waiter(2)]);
        assert!(leases.is_uncacheable(KEY.hash, at(11)));
        fetch(leases.ask(KEY, 0, waiter(3), at(12) + Duration::from_nanos(1), &mut out));
        leases.check_invariants();
    }

    #[test]
    fn a_lease_from_before_an_invalidation_gives_way() {
        let mut leases = Leases::new();
        let mut out = Vec::new();
        let old = fetch(leases.ask(KEY, 0, waiter(1), at(10), &mut out));
        leases.ask(KEY, 0, waiter(2), at(10), &mut out);
        let new = fetch(leases.ask(KEY, 1, waiter(3), at(10), &mut out));
        assert_eq!((new.generation, &out[..]), (1, &[waiter(2)][..]));
        assert!(!leases.end(old, &mut out));
        leases.check_invariants();
    }

    #[test]
    fn limits_hold_and_ended_deadlines_do_not_pile_up() {
        let mut leases = Leases::new();
        let mut out = Vec::new();
        for hash in 0..LEASES_MAX as u64 {
            fetch(leases.ask(Key { hash, bytes: b"" }, 0, waiter(0), at(hash), &mut out));
        }
        let more = Key { hash: u64::MAX, bytes: b"" };
        assert_eq!(leases.ask(more, 0, waiter(0), at(1 << 20), &mut out), Turn::Bypass);
        let one = Key { hash: 1, bytes: b"" };
        for _ in 0..WAITERS_MAX {
            assert_eq!(leases.ask(one, 0, waiter(0), at(1 << 20), &mut out), Turn::Wait);
        }
        assert_eq!(leases.ask(one, 0, waiter(0), at(1 << 20), &mut out), Turn::Bypass);
        leases.check_invariants();
        leases.revoke_prefix(b"", &mut out);
        assert_eq!((out.len(), leases.len()), (WAITERS_MAX, 0));
        for _ in 0..1000 {
            let lease = fetch(leases.ask(KEY, 0, waiter(0), at(1 << 20), &mut out));
            leases.end(lease, &mut out);
        }
        assert!(leases.deadlines.len() <= DEADLINES_SLACK + 2);
        leases.check_invariants();
    }

    #[test]
    fn an_uncacheable_key_is_remembered_for_a_while() {
        let mut leases = Leases::new();
        leases.remember_uncacheable(9, at(5));
        assert!(leases.is_uncacheable(9, at(4)));
        assert!(!leases.is_uncacheable(9, at(5)));
        assert!(!leases.is_uncacheable(8, at(4)));
        leases.forget_uncacheable(9);
        assert!(!leases.is_uncacheable(9, at(4)));
    }
}
