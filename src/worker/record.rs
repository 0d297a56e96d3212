//! What is noted of a request while it is worked on, and where it is counted when it ends.

use std::time::Duration;

use super::fault::Fault;
use super::shard::{Seat, Shard};
use crate::http::Refusal;
use crate::io::Io;
use crate::metrics::{Count, REFUSALS_MAX};
use crate::time::Instant;

/// One request, as far as it has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    /// When its first byte was looked at.
    began: Instant,
    /// Of the final answer; 0 while there is none.
    status: u16,
    /// When the response head was whole; of our own answers none is.
    headed: Option<Instant>,
}

impl Record {
    /// The next request begins.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Self { began: now, status: 0, headed: None };
    }

    /// A backend's final response head is whole.
    pub(super) fn head(&mut self, status: u16, now: Instant) {
        self.status = status;
        self.headed = Some(now);
    }

    /// We answer with a status of our own.
    pub(super) fn own(&mut self, status: u16) {
        self.status = status;
        self.headed = None;
    }
}

impl<I: Io> Shard<I> {
    /// A request is over. Without an answer it counts as a client that is gone, and elsewhere.
    pub(super) fn note_end(&self, record: &Record) {
        if record.status == 0 {
            return;
        }
        self.figures.codes.count(record.status);
        // How long a tunnel lives says nothing of how fast we are.
        if record.status != SWITCHING {
            self.figures.request.observe(self.now().since(record.began));
        }
    }

    /// One try is over: if it came to a response head, that counts for the backend.
    pub(super) fn note_try(&self, seat: &Seat<I>, record: &mut Record) {
        let Some(headed) = record.headed.take() else { return };
        let wait = headed.since(seat.since);
        self.figures.first_byte.observe(wait);
        self.figures.slots.borrow_mut().answered(seat.slot.index(), record.status, wait);
    }

    /// A backend failed.
    pub(super) fn note_fault(&self, seat: &Seat<I>, fault: Fault) {
        self.counters.add(Count::Faults, 1);
        self.figures.faults.count(fault.index());
        self.figures.slots.borrow_mut().failed(seat.slot.index());
    }

    /// We answer ourselves.
    pub(super) fn note_refusal(&self, refusal: Refusal) {
        self.figures.refusals.count(refusal.index());
    }

    /// A request has waited in the queue.
    pub(super) fn note_queued(&self, wait: Duration) {
        self.figures.queue_wait.observe(wait);
    }
}

/// 101: the connection is a tunnel from here on.
const SWITCHING: u16 = 101;
const _: () = assert!(Refusal::COUNT <= REFUSALS_MAX);
