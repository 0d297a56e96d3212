//! Who is evicted next: S3-FIFO (Yang et al., SOSP 2023) with weights.
//!
//! New slots enter a small queue; those asked for again move on to the main queue, the others leave and only their
//! hash is remembered. A slot that comes back while it is remembered enters the main queue at once. A hit is a
//! saturating counter in the slot's own node; all sorting is left to eviction.
//!
//! It holds evictable slots only: the store takes a pinned one out. Invariants: each queue's length and bytes are those
//! of its chain; a node is in the queue that its place names.

/// The queues, by slot number of the store's slab.
#[derive(Debug)]
pub(super) struct S3Fifo {
    nodes: Vec<Node>,
    small: Queue,
    main: Queue,
    ghost: Ghost,
}

/// Which budget is short: the small queue's share is measured in the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Short {
    Bytes,
    Entries,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    hash: u64,
    weight: u64,
    /// Towards the newer one.
    newer: u32,
    /// Towards the older one.
    older: u32,
    place: Place,
    hits: u8,
    /// Where it goes when it comes back from being pinned.
    is_proven: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Out,
    Small,
    Main,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    newest: u32,
    oldest: u32,
    len: usize,
    bytes: u64,
}

impl S3Fifo {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), small: Queue::EMPTY, main: Queue::EMPTY, ghost: Ghost::new() }
    }

    /// Evictable slots.
    pub(super) fn len(&self) -> usize {
        self.small.len + self.main.len
    }

    /// Bytes of the evictable slots.
    pub(super) fn bytes(&self) -> u64 {
        self.small.bytes + self.main.bytes
    }

    /// Gives a slot that is out a new owner.
    pub(super) fn assign(&mut self, slot: u32, hash: u64) {
        let at = slot as usize;
        if at >= self.nodes.len() {
            self.nodes.resize(at + 1, Node::OUT);
        }
        debug_assert_eq!(self.nodes[at].place, Place::Out);
        self.nodes[at] = Node { hash, is_proven: self.ghost.take(hash), ..Node::OUT };
    }

    /// Makes a slot evictable.
    pub(super) fn enter(&mut self, slot: u32, weight: u64) {
        let node = &mut self.nodes[slot as usize];
        debug_assert_eq!(node.place, Place::Out);
        node.weight = weight;
        let place = if node.is_proven { Place::Main } else { Place::Small };
        self.push(slot, place);
    }

    /// Takes a slot out, to be pinned or forgotten. Its hits stay with it.
    pub(super) fn leave(&mut self, slot: u32) {
        match self.nodes[slot as usize].place {
            Place::Out => {}
            place => self.unlink(slot, place),
        }
    }

    /// An evictable slot became lighter or heavier.
    pub(super) fn reweigh(&mut self, slot: u32, weight: u64) {
        let node = &mut self.nodes[slot as usize];
        let before = std::mem::replace(&mut node.weight, weight);
        let queue = match node.place {
            Place::Out => return,
            Place::Small => &mut self.small,
            Place::Main => &mut self.main,
        };
        queue.bytes = queue.bytes - before + weight;
    }

    /// A hit.
    pub(super) fn touch(&mut self, slot: u32) {
        let hits = &mut self.nodes[slot as usize].hits;
        *hits = (*hits + 1).min(HITS_MAX);
    }

    /// Takes out the slot to be evicted. Uses up `steps`; `None` when they or the slots are at an end. Once they are
    /// down to half of [`STEPS_MAX`], hits no longer count, so that a call evicts even where everything is in demand.
    pub(super) fn victim(&mut self, short: Short, steps: &mut u32) -> Option<u32> {
        while *steps > 0 && self.len() > 0 {
            *steps -= 1;
            let are_all_equal = *steps < STEPS_MAX / 2;
            if self.is_small_next(short) {
                let slot = self.small.oldest;
                self.unlink(slot, Place::Small);
                let node = &mut self.nodes[slot as usize];
                if node.hits < HITS_TO_STAY || are_all_equal {
                    let hash = node.hash;
                    self.ghost.remember(hash, self.len() / GHOST_SHARE);
                    return Some(slot);
                }
                node.hits = 0;
                self.push(slot, Place::Main);
            } else {
                let slot = self.main.oldest;
                self.unlink(slot, Place::Main);
                let node = &mut self.nodes[slot as usize];
                if node.hits == 0 || are_all_equal {
                    return Some(slot);
                }
                node.hits -= 1;
                self.push(slot, Place::Main);
            }
        }
        None
    }

    /// Takes back a slot that was to be evicted, as one in demand.
    pub(super) fn spare(&mut self, slot: u32) {
        self.push(slot, Place::Main);
    }

    /// The small queue gives as long as it holds more than its share.
    fn is_small_next(&self, short: Short) -> bool {
        let (small, all) = match short {
            Short::Bytes => (self.small.bytes, self.bytes()),
            Short::Entries => (self.small.len as u64, self.len() as u64),
        };
        self.main.len == 0 || (self.small.len > 0 && small * SMALL_SHARE > all)
    }

    fn queue(&mut self, place: Place) -> &mut Queue {
        if place == Place::Main { &mut self.main } else { &mut self.small }
    }

    fn push(&mut self, slot: u32, place: Place) {
        let queue = self.queue(place);
        let before = std::mem::replace(&mut queue.newest, slot);
        if before == NONE {
            queue.oldest = slot;
        }
        queue.len += 1;
        let node = &mut self.nodes[slot as usize];
        node.place = place;
        node.is_proven = place == Place::Main;
        (node.newer, node.older) = (NONE, before);
        let weight = node.weight;
        self.queue(place).bytes += weight;
        if before != NONE {
            self.nodes[before as usize].newer = slot;
        }
    }

    fn unlink(&mut self, slot: u32, place: Place) {
        let node = &mut self.nodes[slot as usize];
        node.place = Place::Out;
        let Node { newer, older, weight, .. } = *node;
        match newer {
            NONE => self.queue(place).newest = older,
            newer => self.nodes[newer as usize].older = older,
        }
        match older {
            NONE => self.queue(place).oldest = newer,
            older => self.nodes[older as usize].newer = newer,
        }
        let queue = self.queue(place);
        queue.len -= 1;
        queue.bytes -= weight;
    }

    /// Whether the slot can be evicted, and at what weight.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn weight_of(&self, slot: u32) -> Option<u64> {
        let node = self.nodes.get(slot as usize)?;
        (node.place != Place::Out).then_some(node.weight)
    }

    /// Walks both chains.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check_invariants(&self) {
        for (place, queue) in [(Place::Small, &self.small), (Place::Main, &self.main)] {
            let (mut len, mut bytes, mut newer, mut slot) = (0, 0, NONE, queue.newest);
            while slot != NONE {
                let node = &self.nodes[slot as usize];
                assert_eq!((node.place, node.newer), (place, newer), "slot {slot}");
                assert!(node.hits <= HITS_MAX);
                (len, bytes, newer, slot) = (len + 1, bytes + node.weight, slot, node.older);
                assert!(len <= queue.len, "a chain without end");
            }
            assert_eq!((len, bytes, newer), (queue.len, queue.bytes, queue.oldest));
        }
        let out = self.nodes.iter().filter(|node| node.place == Place::Out).count();
        assert_eq!(out + self.len(), self.nodes.len());
    }
}

impl Node {
    const OUT: Self = Self {
        hash: 0,
        weight: 0,
        newer: NONE,
        older: NONE,
        place: Place::Out,
        hits: 0,
        is_proven: false,
    };
}

impl Queue {
    const EMPTY: Self = Self { newest: NONE, oldest: NONE, len: 0, bytes: 0 };
}

/// Hashes of those that left the small queue, the last so many of them: a table of fingerprints with the count of
/// departures at which each was written. An old one is not removed, it is no longer believed.
#[derive(Debug)]
struct Ghost {
    /// Sets of [`WAYS`], found by the fingerprint alone so that a larger table can take them over.
    marks: Vec<Mark>,
    departures: u32,
    span: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    print: u32,
    at: u32,
}

impl Ghost {
    const fn new() -> Self {
        Self { marks: Vec::new(), departures: 0, span: 0 }
    }

    /// Remembers `hash` for `span` departures.
    fn remember(&mut self, hash: u64, span: usize) {
        self.span = u32::try_from(span).unwrap_or(u32::MAX).clamp(GHOSTS_MIN, GHOSTS_MAX);
        let wanted = (self.span as usize * 2).next_power_of_two();
        if self.marks.len() < wanted {
            let held = std::mem::replace(&mut self.marks, vec![Mark::default(); wanted]);
            held.into_iter().filter(|mark| mark.print != NO_PRINT).for_each(|mark| self.put(mark));
        }
        self.departures = self.departures.wrapping_add(1);
        self.put(Mark { print: print(hash), at: self.departures });
    }

    /// Whether `hash` is remembered. It is not, afterwards.
    fn take(&mut self, hash: u64) -> bool {
        if self.marks.is_empty() {
            return false;
        }
        let (departures, span) = (self.departures, self.span);
        let print = print(hash);
        let found = self
            .set(print)
            .iter_mut()
            .find(|mark| mark.print == print && departures.wrapping_sub(mark.at) < span);
        found.map(|mark| mark.print = NO_PRINT).is_some()
    }

    /// In place of the oldest of its set.
    fn put(&mut self, mark: Mark) {
        let departures = self.departures;
        let oldest = self.set(mark.print).iter_mut().max_by_key(|held| match held.print {
            NO_PRINT => u32::MAX,
            _ => departures.wrapping_sub(held.at),
        });
        *oldest.expect("a set has WAYS marks") = mark;
    }

    fn set(&mut self, print: u32) -> &mut [Mark] {
        let sets = self.marks.len() / WAYS;
        let at = (print as usize >> 1 & (sets - 1)) * WAYS;
        &mut self.marks[at..at + WAYS]
    }
}

/// Never [`NO_PRINT`].
const fn print(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}

/// Nodes that one call may look at: some tens of microseconds at worst.
pub(super) const STEPS_MAX: u32 = 256;
const NONE: u32 = u32::MAX;
const NO_PRINT: u32 = 0;
/// Two bits are enough (the paper, §4.1).
const HITS_MAX: u8 = 3;
/// Hits in the small queue that open the main queue. The paper has two, which is 0.1 points better where every hit is
/// seen here; but the hits of another core's L1 arrive as one per sweep.
const HITS_TO_STAY: u8 = 1;
/// The small queue's part of all: one in so many.
const SMALL_SHARE: u64 = 10;
/// Departures remembered: one for so many slots. Of 1/2, 1 and 2 the fewest gave the best hit rate on all six traces
/// of `benches/store.rs`: with more, too much passes the small queue by.
const GHOST_SHARE: usize = 2;
const WAYS: usize = 8;
const GHOSTS_MIN: u32 = 64;
const GHOSTS_MAX: u32 = 1 << 22;
const _: () = assert!(GHOSTS_MIN as usize * 2 >= WAYS && WAYS.is_power_of_two());
