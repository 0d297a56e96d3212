//! Bodies that have left the store while somebody still held them: they are memory like any other, and the byte budget
//! counts them until the last reader is through.

use std::collections::VecDeque;

use super::body::Remnant;

/// What a shard has let go and is still in memory.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    bodies: VecDeque<(Remnant, u64)>,
    bytes: u64,
}

impl Lingering {
    /// A body has left that others hold.
    pub(super) fn take_in(&mut self, body: Remnant) {
        if let Some(bytes) = body.bytes() {
            self.bytes += bytes;
            self.bodies.push_back((body, bytes));
        }
    }

    /// Looks at the next `budget` bodies: those nobody holds any more go, those that still grow are weighed anew.
    pub(super) fn sweep(&mut self, budget: usize) {
        for _ in 0..budget.min(self.bodies.len()) {
            let Some((body, bytes)) = self.bodies.pop_front() else { return };
            self.bytes -= bytes;
            self.take_in(body);
        }
    }

    /// Bytes of all of them, as they were weighed last.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.bytes, self.bodies.iter().map(|(_, bytes)| bytes).sum::<u64>());
    }
}
