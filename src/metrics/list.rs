//! Numbers of one core for some of the backend slots, as the other cores read them: requests in flight, response times.
//!
//! The list names only the slots there is anything to say of: a reader's work grows with the traffic, not with the number
//! of backends. With 20 backends that is three cache lines a core; with 10,000 and a thousand requests in flight per core
//! it is 120, where an array by slot has 625. That is why every core can sum all the others itself. Rejected: a sum made
//! by the control core, fewer lines to read at that extreme, comes a tick later, ends with that core, and holds the
//! reader's own figure of some earlier moment; totals that all cores add to take a contended read-modify-write per slot,
//! and keep the load of a core that hangs.
//!
//! One writer, any number of readers, nobody waits: a version that is odd during a rewrite, and other than before after
//! one, tells a reader that what it saw was not of one moment. For an estimate that is good enough.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

/// Slots with a number each.
#[derive(Debug)]
pub(super) struct List {
    version: AtomicU64,
    len: AtomicUsize,
    /// Slot in the upper half, number in the lower.
    entries: Box<[AtomicU64]>,
}

impl List {
    /// An empty list with room for `slots` entries.
    pub(super) fn new(slots: usize) -> Self {
        Self {
            version: AtomicU64::new(0),
            len: AtomicUsize::new(0),
            entries: (0..slots).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Replaces the list, for which there must be room. The owning core only.
    pub(super) fn store(&self, figures: impl Iterator<Item = (u32, u32)>) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Who sees an entry of this rewrite sees the odd version, too.
        fence(Ordering::Release);
        let mut len = 0;
        for (slot, n) in figures {
            let Some(entry) = self.entries.get(len) else {
                debug_assert!(false, "more slots than the block has room for");
                break;
            };
            entry.store(u64::from(slot) << 32 | u64::from(n), Ordering::Relaxed);
            len += 1;
        }
        self.len.store(len, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// Calls `each` with every slot and its number; returns whether all of it was of one moment.
    pub(super) fn read(&self, mut each: impl FnMut(u32, u32)) -> bool {
        let version = self.version.load(Ordering::Acquire);
        for entry in self.entries.iter().take(self.len.load(Ordering::Relaxed)) {
            let entry = entry.load(Ordering::Relaxed);
            each((entry >> 32) as u32, entry as u32);
        }
        fence(Ordering::Acquire);
        version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn contents(list: &List) -> Vec<(u32, u32)> {
        let mut contents = Vec::new();
        assert!(list.read(|slot, n| contents.push((slot, n))));
        contents
    }

    #[test]
    fn a_list_replaces_the_one_before() {
        let list = List::new(3);
        assert_eq!(contents(&list), []);
        list.store([(7, 1), (0, u32::MAX), (u32::MAX, 2)].into_iter());
        assert_eq!(contents(&list), [(7, 1), (0, u32::MAX), (u32::MAX, 2)]);
        list.store([(5, 4)].into_iter());
        assert_eq!(contents(&list), [(5, 4)]);
        list.store([].into_iter());
        assert_eq!(contents(&list), []);
    }

    #[test]
    fn a_list_that_is_rewritten_meanwhile_is_not_taken_for_one() {
        let list = List::new(64);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // All numbers of a list are alike, and its length goes with them.
                for n in 0..50_000u32 {
                    list.store((0..n % 64).map(|slot| (slot, n)));
                }
                is_over.store(true, Ordering::Release);
            });
            let (mut whole, mut last) = (0, 0);
            loop {
                let is_last = is_over.load(Ordering::Acquire);
                let mut seen = Vec::new();
                if list.read(|slot, n| seen.push((slot, n)))
                    && let Some(&(_, n)) = seen.first()
                {
                    let expected: Vec<_> = (0..n % 64).map(|slot| (slot, n)).collect();
                    assert_eq!(seen, expected);
                    assert!(n >= last, "an older list after a newer one");
                    (whole, last) = (whole + 1, n);
                }
                if is_last {
                    break;
                }
            }
            assert!(whole > 0 && last == 49_999, "{whole} lists, the last {last}");
        });
    }
}
