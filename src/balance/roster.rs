//! From what the operator, the agent and the resolver say to the next [`Snapshot`]: who is in force, under which slot.
//!
//! A frame takes effect at once with the addresses already known; names that still resolve join when they do. A
//! backend that the agent drops stays as [`Category::Sundown`] until every core has applied a snapshot that says so
//! and reports nothing in flight to it; then it is forgotten. Its slot goes to somebody else only after every core
//! has applied a snapshot without it, so cores on different epochs never mix two backends up.
//!
//! A backend that the agent calls INIT when it is new, comes back, or was called something else before has just started:
//! from the first snapshot it can get requests by, its weight grows ([`Backend::weight`]), whatever it is called later.
//! Those in the first frame have not: they were there before us.
//!
//! Invariants: a slot is held by one entry, or waits for its release, or is free; an entry is found under its name
//! and under its host; a snapshot with the same backends as the last one does not exist.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::frame::{BACKENDS_MAX, Frame, Item};
use super::health::Standings;
use super::{Backend, Category, Score, Slot, Snapshot, Source};
use crate::metrics::Published;
use crate::time::Instant;

/// The set of backends as the control core keeps it.
#[derive(Debug)]
pub struct Roster {
    /// By slot.
    entries: Vec<Option<Entry>>,
    by_name: HashMap<Arc<str>, Slot>,
    by_host: HashMap<Arc<str>, Host>,
    /// Slots of forgotten backends, with the epoch of the first snapshot without them.
    released: Vec<(Slot, u64)>,
    free: BinaryHeap<Reverse<u32>>,
    source: Source,
    /// Whether the last frame was an empty array.
    was_empty: bool,
    snapshot: Arc<Snapshot>,
    /// Whether anything was said since then.
    is_stale: bool,
    /// Entries that are not listed.
    leaving: usize,
    health: Standings,
}

#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    host: Arc<str>,
    port: u16,
    authority: Arc<str>,
    score: Score,
    category: Category,
    warming: Warming,
    addresses: Arc<[SocketAddr]>,
    /// Whether the last good frame named it (or the operator did, before any frame).
    is_listed: bool,
    was_listed: bool,
    /// Epoch since which every snapshot has had it as [`Category::Sundown`].
    sundown_since: Option<u64>,
}

/// How far a backend has come since it started, as far as we have seen it start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Warming {
    No,
    /// It has started and takes no part yet: its name is still resolving.
    Due,
    Since(Instant),
}

/// Who lives at a host, and the last good answer for it.
#[derive(Debug, Default)]
struct Host {
    slots: Vec<Slot>,
    addresses: Vec<IpAddr>,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Its good items are in force from the next snapshot on. `unplaced` of them found no free slot;
    /// a later frame brings them in.
    InForce {
        /// How many.
        unplaced: usize,
    },
    /// It was an empty array, which must be said twice.
    EmptyOnce,
    /// It had items, but not one good one: nothing changes.
    NothingGood,
}

impl Roster {
    /// A roster of the operator's backends: `name`, host, port and score of each, the later of two names winning.
    pub fn new(backends: impl IntoIterator<Item = Item>) -> Self {
        let mut roster = Self {
            entries: Vec::new(),
            by_name: HashMap::new(),
            by_host: HashMap::new(),
            released: Vec::new(),
            free: BinaryHeap::new(),
            source: Source::Nobody,
            was_empty: false,
            snapshot: Arc::new(Snapshot::empty()),
            is_stale: true,
            leaving: 0,
            health: Standings::new(),
        };
        for item in backends {
            roster.list(&item, true);
            roster.source = Source::Static;
        }
        roster
    }

    /// Applies the rules of a whole frame. [`commit`](Self::commit) makes a snapshot of it.
    pub fn take(&mut self, frame: &Frame) -> Taken {
        let was_empty = std::mem::replace(&mut self.was_empty, frame.is_empty);
        if frame.is_empty && !was_empty {
            return Taken::EmptyOnce;
        }
        if !frame.is_empty && frame.items.is_empty() {
            return Taken::NothingGood;
        }
        let kept: Vec<(Slot, bool)> = frame
            .kept
            .iter()
            .filter_map(|name| self.by_name.get(name.as_str()))
            .filter_map(|&slot| Some((slot, self.entry(slot)?.is_listed)))
            .collect();
        for entry in self.entries.iter_mut().flatten() {
            entry.was_listed = std::mem::take(&mut entry.is_listed);
        }
        for (slot, is_listed) in kept {
            if let Some(entry) = &mut self.entries[slot.index()] {
                entry.is_listed = is_listed;
            }
        }
        let is_first = std::mem::replace(&mut self.source, Source::Agent) != Source::Agent;
        self.is_stale = true;
        let unplaced = frame.items.iter().filter(|item| !self.list(item, is_first)).count();
        self.leaving = self.entries.iter().flatten().filter(|entry| !entry.is_listed).count();
        Taken::InForce { unplaced }
    }

    /// An empty array seen before counts no longer: the link was lost, or something else came in between.
    pub const fn distrust_empty(&mut self) {
        self.was_empty = false;
    }

    /// The resolver's good answer for `host`, in its order, without duplicates.
    pub fn resolved(&mut self, host: &str, addresses: &[IpAddr]) {
        let Some(known) = self.by_host.get_mut(host) else { return };
        if known.addresses == addresses {
            return;
        }
        known.addresses = addresses.to_vec();
        self.is_stale = true;
        for slot in &known.slots {
            if let Some(entry) = &mut self.entries[slot.index()] {
                entry.addresses = with_port(addresses, entry.port);
            }
        }
    }

    /// The hosts to be resolved: all that are no address themselves.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_host.keys().filter(|host| host.parse::<IpAddr>().is_err())
    }

    /// Whether anybody lives at `host`.
    pub fn has_host(&self, host: &str) -> bool {
        self.by_host.contains_key(host)
    }

    /// Looks at what the cores apply and have in flight: forgets backends that are done and frees slots that nobody
    /// remembers.
    pub fn acknowledge(&mut self, cores: &[Arc<Published>]) {
        // The epoch is read first: the figures that were stored before it are then visible.
        let applied = cores.iter().map(|core| core.epoch()).min().unwrap_or(u64::MAX);
        if let Some(is_busy) = self.busy(cores) {
            let is_done = |entry: &Entry, slot: usize| {
                !entry.is_listed
                    && entry.sundown_since.is_some_and(|epoch| epoch <= applied)
                    && !is_busy[slot]
            };
            let done: Vec<Slot> = (self.entries.iter().enumerate())
                .filter(|(slot, entry)| entry.as_ref().is_some_and(|entry| is_done(entry, *slot)))
                .map(|(slot, _)| Slot(slot as u32))
                .collect();
            done.into_iter().for_each(|slot| self.forget(slot));
        }
        let (free, released) = self.released.drain(..).partition(|&(_, epoch)| epoch <= applied);
        self.released = released;
        let free: Vec<(Slot, u64)> = free;
        self.free.extend(free.into_iter().map(|(slot, _)| Reverse(slot.0)));
        self.check_invariants();
    }

    /// Whether [`acknowledge`](Self::acknowledge) has anything to wait for.
    pub fn awaits_cores(&self) -> bool {
        !self.released.is_empty() || self.leaving > 0
    }

    /// Whether anything was said since the last [`commit`](Self::commit).
    pub const fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Who may get requests, their health aside, and where each one is.
    pub fn eligible(&self) -> impl Iterator<Item = (Slot, &Arc<[SocketAddr]>)> {
        let numbered = (0..).map(Slot).zip(&self.entries);
        let held = numbered.filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)));
        held.filter(|(_, entry)| entry.is_eligible()).map(|(slot, entry)| (slot, &entry.addresses))
    }

    /// The health that goes with the next snapshot and those after it.
    pub fn set_health(&mut self, health: Standings) {
        self.is_stale |= self.health != health;
        self.health = health;
    }

    /// The next snapshot, when it differs from the last one. `now` is what every core takes for the time at which
    /// whoever is new began to take part.
    pub fn commit(&mut self, now: Instant) -> Option<Arc<Snapshot>> {
        if !std::mem::take(&mut self.is_stale) {
            return None;
        }
        let epoch = self.snapshot.epoch + 1;
        let mut backends = Vec::with_capacity(self.by_name.len());
        for (slot, entry) in self.entries.iter_mut().enumerate() {
            let Some(entry) = entry else { continue };
            let category = entry.category_in_force();
            match category {
                Category::Sundown => entry.sundown_since = entry.sundown_since.or(Some(epoch)),
                _ => entry.sundown_since = None,
            }
            if entry.warming == Warming::Due && !entry.addresses.is_empty() {
                entry.warming = Warming::Since(now);
            }
            backends.push(entry.backend(Slot(slot as u32), category));
        }
        let last = &*self.snapshot;
        if (&backends, self.source, &self.health) == (&last.backends, last.source, &last.health) {
            return None;
        }
        let (slots, health) = (self.entries.len(), self.health.clone());
        self.snapshot = Arc::new(Snapshot { epoch, source: self.source, slots, backends, health });
        Some(Arc::clone(&self.snapshot))
    }

    /// The last snapshot committed.
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Brings `item` in or up to date; `false` when there is no slot for it. `is_old`: whoever is new to us need not be new.
    fn list(&mut self, item: &Item, is_old: bool) -> bool {
        let is_init = item.category == Category::Init;
        if let Some(entry) =
            self.by_name.get(item.name.as_str()).copied().and_then(|s| self.entry_mut(s))
        {
            let has_restarted = !entry.was_listed || entry.category != Category::Init;
            match entry.warming {
                _ if is_init && has_restarted && !is_old => entry.warming = Warming::Due,
                Warming::Due if !is_init => entry.warming = Warming::No,
                _ => {}
            }
            entry.score = item.score;
            entry.category = item.category;
            entry.is_listed = true;
            return true;
        }
        let slot = match self.free.pop() {
            Some(Reverse(slot)) => Slot(slot),
            None if self.entries.len() < SLOTS_MAX => {
                self.entries.push(None);
                Slot(self.entries.len() as u32 - 1)
            }
            None => return false,
        };
        let host = match self.by_host.get_key_value(item.host.as_str()) {
            Some((host, _)) => Arc::clone(host),
            None => item.host.as_str().into(),
        };
        let known = self.by_host.entry(Arc::clone(&host)).or_insert_with(|| Host {
            slots: Vec::new(),
            addresses: host.parse::<IpAddr>().into_iter().collect(),
        });
        known.slots.push(slot);
        let entry = Entry {
            name: item.name.as_str().into(),
            authority: authority(&host, item.port).into(),
            port: item.port,
            score: item.score,
            category: item.category,
            warming: if is_init && !is_old { Warming::Due } else { Warming::No },
            addresses: with_port(&known.addresses, item.port),
            host,
            is_listed: true,
            was_listed: false,
            sundown_since: None,
        };
        self.by_name.insert(Arc::clone(&entry.name), slot);
        self.entries[slot.index()] = Some(entry);
        true
    }

    /// By slot, whether any core has a request in flight there; `None` when a core was about to say so. The next look
    /// will know.
    fn busy(&self, cores: &[Arc<Published>]) -> Option<Vec<bool>> {
        let mut is_busy = vec![false; self.entries.len()];
        let is_known = cores.iter().all(|core| {
            core.read_in_flight(|slot, _| {
                if let Some(is_busy) = is_busy.get_mut(slot as usize) {
                    *is_busy = true;
                }
            })
        });
        is_known.then_some(is_busy)
    }

    fn forget(&mut self, slot: Slot) {
        let Some(entry) = self.entries[slot.index()].take() else { return };
        self.is_stale = true;
        self.leaving -= 1;
        self.by_name.remove(&entry.name);
        if let Some(known) = self.by_host.get_mut(&entry.host) {
            known.slots.retain(|&other| other != slot);
            if known.slots.is_empty() {
                self.by_host.remove(&entry.host);
            }
        }
        // It stood in the last snapshot, so the next one differs and bears this epoch.
        self.released.push((slot, self.snapshot.epoch + 1));
    }

    fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot.index())?.as_ref()
    }

    fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries.get_mut(slot.index())?.as_mut()
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            let held = self.entries.iter().flatten().count();
            assert_eq!(held + self.released.len() + self.free.len(), self.entries.len());
            assert_eq!(held, self.by_name.len());
            let leaving = self.entries.iter().flatten().filter(|entry| !entry.is_listed);
            assert_eq!(self.leaving, leaving.count());
            assert_eq!(held, self.by_host.values().map(|host| host.slots.len()).sum::<usize>());
            for (name, &slot) in &self.by_name {
                assert!(self.entry(slot).is_some_and(|entry| entry.name == *name));
            }
        }
    }
}

impl Entry {
    fn category_in_force(&self) -> Category {
        if self.is_listed { self.category } else { Category::Sundown }
    }

    /// As [`Backend::is_eligible`].
    fn is_eligible(&self) -> bool {
        self.category_in_force() != Category::Sundown && !self.addresses.is_empty()
    }

    fn backend(&self, slot: Slot, category: Category) -> Backend {
        Backend {
            slot,
            name: Arc::clone(&self.name),
            authority: Arc::clone(&self.authority),
            score: self.score,
            category,
            addresses: Arc::clone(&self.addresses),
            warming_since: match self.warming {
                Warming::Since(since) => Some(since),
                Warming::No | Warming::Due => None,
            },
        }
    }
}

fn with_port(addresses: &[IpAddr], port: u16) -> Arc<[SocketAddr]> {
    addresses.iter().map(|&ip| SocketAddr::new(ip, port)).collect()
}

/// `host:port`, an IPv6 address in brackets (RFC 9110 §7.2).
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Slots there can ever be: a full set, and a full one that is draining. Tables per slot need no more room.
pub const SLOTS_MAX: usize = 2 * BACKENDS_MAX;

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;
