//! One number per slice of the key space that says whether a stored response may still be used.
//!
//! Any core [bumps](Generations::bump) a key's number after a successful unsafe method or a purge, before the answer
//! is relayed; every object carries the number that held when its fetch began and is usable only while it is the
//! present one. So invalidation waits for nobody and hears no answer. Several keys share a number: a bump of one costs
//! the others a fetch, never a wrong answer.
//!
//! # Memory ordering
//! `bump` is `Release` and `load` is `Acquire`: whoever sees the new number also sees what its core wrote before.
//! What the guarantee rests on is that the numbers of one slot have one order for all cores: a request that causally
//! follows the bumping answer reads the bumped number, since that answer left its core after the bump.
//!
//! # Cache lines
//! Numbers are not padded, eight share a line: half a MiB in all, where padding would take 4 MiB and miss more often.
//! Lines are only written by invalidations, so readers of a read-mostly site share them; a writer disturbs the
//! readers of eight slots for one line transfer.

use std::sync::atomic::{AtomicU64, Ordering};

/// The table, one for the process.
#[derive(Debug)]
pub struct Generations {
    slots: Box<[AtomicU64]>,
    purges: AtomicU64,
}

impl Generations {
    /// All keys at generation 0.
    pub fn new() -> Self {
        Self::with_slots(GENERATION_SLOTS)
    }

    /// A table of another size, rounded up to a power of two.
    pub fn with_slots(slots: usize) -> Self {
        let slots = (0..slots.next_power_of_two()).map(|_| AtomicU64::new(0)).collect();
        Self { slots, purges: AtomicU64::new(0) }
    }

    /// The key's present number.
    pub fn load(&self, hash: u64) -> u64 {
        self.slot(hash).load(Ordering::Acquire)
    }

    /// Makes unusable whatever is stored, or being fetched, under this hash.
    pub fn bump(&self, hash: u64) {
        self.slot(hash).fetch_add(1, Ordering::Release);
    }

    /// As [`bump`](Self::bump), for every key.
    pub fn bump_all(&self) {
        for slot in &self.slots {
            slot.fetch_add(1, Ordering::Release);
        }
    }

    /// Purges of many keys by name so far. Who fetches without a lease notes it before and stores nothing when it has
    /// changed.
    pub fn purges(&self) -> u64 {
        self.purges.load(Ordering::Acquire)
    }

    /// Before keys are removed by name.
    pub fn count_purge(&self) {
        self.purges.fetch_add(1, Ordering::Release);
    }

    /// A replacement's bump: what is stored becomes unusable, the fetch that replaces it does not. The number it
    /// carries from now on, or `None` when somebody else bumped since `noted`: then it must not be stored.
    pub fn advance(&self, hash: u64, noted: u64) -> Option<u64> {
        let next = noted.wrapping_add(1);
        self.slot(hash)
            .compare_exchange(noted, next, Ordering::AcqRel, Ordering::Acquire)
            .ok()
            .map(|_| next)
    }

    fn slot(&self, hash: u64) -> &AtomicU64 {
        // The low bits choose the home core and the L1 set; these are independent of them.
        &self.slots[(hash >> 40) as usize & (self.slots.len() - 1)]
    }
}

impl Default for Generations {
    fn default() -> Self {
        Self::new()
    }
}

/// Half a MiB.
pub const GENERATION_SLOTS: usize = 65_536;
const _: () = assert!(GENERATION_SLOTS.is_power_of_two() && GENERATION_SLOTS <= 1 << 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bump_touches_its_slot_only() {
        let table = Generations::with_slots(4);
        table.bump(1 << 40);
        assert_eq!([0, 1, 2, 3].map(|slot| table.load(slot << 40)), [0, 1, 0, 0]);
        table.bump_all();
        assert_eq!([0, 1, 2, 3].map(|slot| table.load(slot << 40)), [1, 2, 1, 1]);
    }

    #[test]
    fn a_replacement_advances_once_and_loses_to_any_bump() {
        let table = Generations::new();
        let noted = table.load(7);
        assert_eq!(table.advance(7, noted), Some(1));
        assert_eq!(table.advance(7, noted), None);
        table.bump(7);
        assert_eq!(table.advance(7, 1), None);
        assert_eq!(table.load(7), 2);
    }
}
