//! A core's own handles to what it served lately, so that a hot hit asks nobody and writes nothing shared.
//!
//! It holds no bytes of its own: each slot is a handle, the key's hash and an instant. A handle is given out only
//! while nothing has overtaken the object: its generation is the present one, the home core has not let it go, its
//! body has not broken off, and the instant up to which the caller may use it without asking has not come.
//! Handles of objects that left the store keep their memory until [`sweep`](L1::sweep) or a hit finds them.
//!
//! Invariants: a hash is looked for in its set only; a set holds no two handles of one variant of one key.

use std::rc::Rc;
use std::sync::Arc;

use super::Generations;
use super::object::{Handle, Key, Object};
use crate::time::Instant;

/// What requests of one core share: cloning it counts without an atomic operation.
pub type Kept<P> = Rc<Handle<P>>;

/// A fixed table of handles, in sets of eight.
#[derive(Debug)]
pub struct L1<P> {
    generations: Arc<Generations>,
    slots: Box<[Option<Slot<P>>]>,
    /// Next slot to be swept.
    hand: usize,
    /// Where the search for the least wanted of a set begins, so that newcomers do not push out each other.
    turn: usize,
}

#[derive(Debug)]
struct Slot<P> {
    hash: u64,
    fresh_until: Instant,
    kept: Kept<P>,
    /// Saturates at [`HITS_MAX`], falls when room is needed.
    hits: u8,
    /// Whether there was a hit since the last sweep.
    is_wanted: bool,
}

impl<P> L1<P> {
    /// An empty table of `slots` handles, rounded up to a power of two.
    pub fn new(slots: usize, generations: Arc<Generations>) -> Self {
        let slots = slots.max(WAYS).next_power_of_two();
        Self { generations, slots: (0..slots).map(|_| None).collect(), hand: 0, turn: 0 }
    }

    /// A handle to a variant of `key` that may be used now and that `is_wanted` takes. Allocates nothing.
    pub fn get(
        &mut self,
        key: Key<'_>,
        now: Instant,
        mut is_wanted: impl FnMut(&Object<P>) -> bool,
    ) -> Option<&Kept<P>> {
        let range = self.set_of(key.hash);
        let generations = &self.generations;
        let found = self.slots[range.clone()].iter_mut().position(|slot| {
            let Some(held) = slot.as_mut().filter(|held| held.hash == key.hash) else {
                return false;
            };
            if now >= held.fresh_until || !held.kept.is_usable(generations) {
                *slot = None;
                return false;
            }
            held.kept.key() == key.bytes && is_wanted(&held.kept)
        })?;
        let held = self.slots[range][found].as_mut()?;
        held.hits = (held.hits + 1).min(HITS_MAX);
        held.is_wanted = true;
        Some(&held.kept)
    }

    /// Keeps a handle for use until `fresh_until`, in place of one to the same variant or of the least wanted of its
    /// set.
    pub fn insert(&mut self, object: Handle<P>, fresh_until: Instant) -> &Kept<P> {
        let (hash, variant) = (object.terms().hash, object.terms().variant);
        let range = self.set_of(hash);
        let set = &mut self.slots[range];
        let same = set.iter().position(|slot| {
            slot.as_ref().is_some_and(|held| {
                held.hash == hash
                    && held.kept.terms().variant == variant
                    && held.kept.key() == object.key()
            })
        });
        let at = same.or_else(|| set.iter().position(Option::is_none)).unwrap_or_else(|| {
            self.turn = (self.turn + 1) % WAYS;
            age(set, self.turn)
        });
        let kept = Rc::new(object);
        &set[at].insert(Slot { hash, fresh_until, kept, hits: 0, is_wanted: false }).kept
    }

    /// Looks at the next `budget` slots: lets go what can no longer be used, and tells the home cores of the hashes
    /// that were hit since the last time ([`Store::touch`](super::Store::touch)).
    pub fn sweep(&mut self, now: Instant, budget: usize, mut touch: impl FnMut(u64)) {
        for _ in 0..budget.min(self.slots.len()) {
            self.hand = (self.hand + 1) & (self.slots.len() - 1);
            let slot = &mut self.slots[self.hand];
            let Some(held) = slot else { continue };
            if now >= held.fresh_until || !held.kept.is_usable(&self.generations) {
                *slot = None;
            } else if std::mem::take(&mut held.is_wanted) {
                touch(held.hash);
            }
        }
    }

    /// Handles held.
    pub fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn set_of(&self, hash: u64) -> std::ops::Range<usize> {
        let sets = self.slots.len() / WAYS;
        let start = (hash >> 8) as usize % sets * WAYS;
        start..start + WAYS
    }
}

/// The least wanted slot of a full set, from `turn` on. All age by one hit, or a slot that was hot for a moment would
/// stay for good.
fn age<P>(set: &mut [Option<Slot<P>>], turn: usize) -> usize {
    let hits = |at: &usize| set[*at].as_ref().map_or(0, |held| held.hits);
    let least = (turn..turn + WAYS).map(|at| at % WAYS).min_by_key(hits).unwrap_or(turn);
    set.iter_mut().flatten().for_each(|held| held.hits = held.hits.saturating_sub(1));
    least
}

/// Slots of a core's table, about 100 bytes each with what they point to.
pub const L1_SLOTS: usize = 4096;
const WAYS: usize = 8;
const HITS_MAX: u8 = 15;
const _: () = assert!(L1_SLOTS.is_power_of_two() && L1_SLOTS >= WAYS);

#[cfg(test)]
mod tests {
    use super::super::{Body, Terms};
    use super::*;

    const fn at(ns: u64) -> Instant {
        Instant::from_ns(ns)
    }

    fn object(hash: u64, generation: u64, variant: u64) -> Handle<u64> {
        let terms = Terms { hash, generation, variant, head_bytes: 0, keep_until: at(u64::MAX) };
        Object::new(terms, &hash.to_le_bytes(), variant, Body::whole(b"body").unwrap())
    }

    fn get(l1: &mut L1<u64>, hash: u64, now: u64, variant: u64) -> bool {
        let bytes = &hash.to_le_bytes();
        l1.get(Key { hash, bytes }, at(now), |object| *object.policy() == variant).is_some()
    }

    fn table(slots: usize) -> (L1<u64>, Arc<Generations>) {
        let generations = Arc::new(Generations::new());
        (L1::new(slots, Arc::clone(&generations)), generations)
    }

    #[test]
    fn a_handle_is_good_until_its_instant_its_generation_or_its_home_ends_it() {
        let (mut l1, generations) = table(16);
        l1.insert(object(1, 0, 7), at(10));
        assert!(get(&mut l1, 1, 9, 7));
        assert!(!get(&mut l1, 1, 9, 8), "another variant");
        assert!(
            l1.get(Key { hash: 1, bytes: b"other" }, at(9), |_| true).is_none(),
            "the full key"
        );
        assert!(!get(&mut l1, 1, 10, 7) && l1.is_empty(), "past its instant");
        l1.insert(object(1, 0, 7), at(10));
        generations.bump(1);
        assert!(!get(&mut l1, 1, 0, 7) && l1.is_empty(), "invalidated");
        let gone = object(1, 1, 7);
        l1.insert(Arc::clone(&gone), at(10));
        gone.let_go();
        assert!(!get(&mut l1, 1, 0, 7) && l1.is_empty(), "let go at home");
        let (body, writer) = Body::begin(10, None);
        l1.insert(Object::new(*object(1, 1, 7).terms(), &1u64.to_le_bytes(), 7, body), at(10));
        assert!(get(&mut l1, 1, 0, 7));
        drop(writer);
        assert!(!get(&mut l1, 1, 0, 7) && l1.is_empty(), "broken off");
    }

    #[test]
    fn variants_lie_side_by_side_and_the_same_one_is_replaced() {
        let (mut l1, _) = table(8);
        for variant in [1, 2, 1] {
            l1.insert(object(5, 0, variant), at(10));
        }
        assert_eq!(l1.len(), 2);
        assert!(get(&mut l1, 5, 0, 1) && get(&mut l1, 5, 0, 2));
    }

    #[test]
    fn the_least_wanted_of_a_set_makes_way() {
        let (mut l1, _) = table(8);
        for hash in 0..8 {
            l1.insert(object(hash, 0, 0), at(10));
            assert!(hash == 3 || get(&mut l1, hash, 0, 0));
        }
        l1.insert(object(8, 0, 0), at(10));
        assert!(!get(&mut l1, 3, 0, 0));
        for hash in 9..40 {
            l1.insert(object(hash, 0, 0), at(10));
        }
        assert_eq!(l1.len(), 8, "nothing stays for good");
        assert!((0..8).all(|hash| !get(&mut l1, hash, 0, 0)));
    }

    #[test]
    fn a_sweep_frees_the_dead_and_reports_the_wanted_once() {
        let (mut l1, generations) = table(64);
        for hash in 0..4 {
            l1.insert(object(hash << 40, 0, 0), at(10 + hash));
        }
        assert!(get(&mut l1, 1 << 40, 0, 0) && get(&mut l1, 2 << 40, 0, 0));
        generations.bump(2 << 40);
        let mut wanted = Vec::new();
        l1.sweep(at(10), 64, |hash| wanted.push(hash));
        assert_eq!(wanted, [1 << 40]);
        assert_eq!(l1.len(), 2);
        l1.sweep(at(10), 64, |hash| wanted.push(hash));
        assert_eq!(wanted.len(), 1);
    }
}
