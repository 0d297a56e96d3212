//! A request in flight to a backend, for as long as it is one.

use std::rc::Rc;

use super::shard::Shard;
use crate::balance::Slot;
use crate::io::Io;
use crate::time::Instant;

/// A request in flight to a backend. It ends when dropped, whatever happened.
pub(super) struct Seat<I: Io> {
    shard: Rc<Shard<I>>,
    pub slot: Slot,
    /// When the backend was chosen.
    pub since: Instant,
}

impl<I: Io> Seat<I> {
    /// Counts a request to `slot`.
    pub(super) fn at(shard: &Rc<Shard<I>>, slot: Slot) -> Self {
        shard.picker.borrow_mut().begin(slot);
        shard.note_work();
        Self { shard: shard.clone(), slot, since: shard.now() }
    }
}

impl<I: Io> Drop for Seat<I> {
    fn drop(&mut self) {
        self.shard.picker.borrow_mut().end(self.slot);
        self.shard.queue.borrow().wake_front();
    }
}
