//! Keys whose responses this core has found uncacheable lately, so that dynamic traffic asks no other core.
//!
//! While a mark is *new*, requests for its key go forward without a word to the key's home. When it is *old*, they ask
//! again, but neither take a lease nor wait for one: a response that turns out storable is stored all the same. Only a
//! key without a mark gathers its requests behind one fetch. A fixed table; a later mark takes an earlier one's place.

use std::time::Duration;

use crate::cache::store::Seek;
use crate::time::Instant;

/// The marks of one core.
#[derive(Debug)]
pub(super) struct Marks(Box<[(u64, Instant)]>);

impl Marks {
    pub(super) fn new() -> Self {
        Self(vec![(0, Instant::default()); MARKS].into_boxed_slice())
    }

    /// How a request for this hash may ask; `None`: not at all.
    pub(super) fn seek(&self, hash: u64, now: Instant) -> Option<Seek> {
        let (marked, until) = self.0[place(hash)];
        match () {
            () if marked != hash || until == Instant::default() => Some(Seek::Any),
            () if now < until => None,
            () if now < until + OLD => Some(Seek::IfStored),
            () => Some(Seek::Any),
        }
    }

    /// A response to this hash could not be stored.
    pub(super) fn mark(&mut self, hash: u64, until: Instant) {
        self.0[place(hash)] = (hash, until);
    }

    /// One could.
    pub(super) fn unmark(&mut self, hash: u64) {
        let mark = &mut self.0[place(hash)];
        if mark.0 == hash {
            mark.1 = Instant::default();
        }
    }
}

fn place(hash: u64) -> usize {
    (hash >> 32) as usize % MARKS
}

const MARKS: usize = 16_384;
/// How long an old mark counts.
const OLD: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Instant {
        Instant::from_ns(secs * 1_000_000_000)
    }

    #[test]
    fn a_mark_is_new_then_old_then_none() {
        let mut marks = Marks::new();
        assert_eq!(marks.seek(7, at(1)), Some(Seek::Any));
        marks.mark(7, at(10));
        assert_eq!(marks.seek(7, at(9)), None);
        assert_eq!(marks.seek(7, at(10)), Some(Seek::IfStored));
        assert_eq!(marks.seek(7, at(70)), Some(Seek::Any));
        assert_eq!(marks.seek(8, at(9)), Some(Seek::Any), "another key in the same place");
        marks.unmark(8);
        assert_eq!(marks.seek(7, at(9)), None);
        marks.unmark(7);
        assert_eq!(marks.seek(7, at(9)), Some(Seek::Any));
    }
}
