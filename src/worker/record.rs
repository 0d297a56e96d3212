//! What is noted of a request while it is worked on, and where it is counted when it ends.

use std::time::Duration;

use super::dial::Tries;
use super::fault::{Fault, Gone};
use super::seat::Seat;
use super::shard::Shard;
use crate::access_log::CacheWord;
use crate::balance::Slot;
use crate::http::Refusal;
use crate::io::Io;
use crate::metrics::{Count, FAULTS, REFUSALS_MAX};
use crate::time::Instant;

/// One request, as far as it has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    /// When its first byte was looked at.
    pub began: Instant,
    /// Of the final answer; 0 while there is none.
    pub status: u16,
    /// When the response head was whole; of our own answers none is.
    headed: Option<Instant>,
    /// Its head was whole and understood.
    pub is_whole: bool,
    /// Its head was copied into the desk's papers.
    pub is_head_kept: bool,
    /// Something of it may have gone to a backend.
    pub is_sent: bool,
    /// Who was asked last, and how many were.
    pub slot: Option<Slot>,
    pub tries: u32,
    /// What the cache had to do with it.
    pub cache: Option<CacheWord>,
    /// Why it went wrong; empty if it did not.
    pub reason: &'static str,
    pub queue: Duration,
    pub connect: Duration,
    pub first_byte: Duration,
    /// When there was a connection for it last.
    reached: Instant,
    /// Written to the client.
    pub bytes_out: u64,
    /// The part of the answer's head in that.
    pub head_out: u64,
}

impl Record {
    /// The next request begins.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Self { began: now, ..Self::default() };
    }

    /// A backend's final response head is whole.
    pub(super) fn head(&mut self, status: u16, now: Instant) {
        self.status = status;
        self.headed = Some(now);
        self.first_byte = now.since(self.reached);
        self.reason = "";
    }

    /// We answer with a status of our own, for this reason if it is a refusal.
    pub(super) fn own(&mut self, status: u16, reason: &'static str) {
        self.status = status;
        self.headed = None;
        self.reason = reason;
    }

    /// A connection was sought since `since`; there is one, or there will be none.
    pub(super) fn reach(&mut self, since: Instant, now: Instant, tries: &Tries) {
        let queued = tries.queued.saturating_sub(self.queue);
        self.queue = tries.queued;
        self.connect += now.since(since).saturating_sub(queued);
        self.reached = now;
        self.slot = tries.asked_last;
        self.tries = tries.asked;
    }

    /// The answer was cut short.
    pub(super) fn cut(&mut self, fault: Fault) {
        self.reason = FAULTS[fault.index()];
    }

    /// The client did not take its answer.
    pub(super) fn gone(&mut self, how: Gone) {
        self.reason = how.label();
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

    /// A backend failed; what that says of its health is told to the seat.
    pub(super) fn note_fault(&self, seat: &Seat<I>, fault: Fault) {
        self.counters.add(Count::Faults, 1);
        self.figures.faults.count(fault.index());
        self.figures.slots.borrow_mut().failed(seat.slot.index());
        if log::log_enabled!(log::Level::Debug) {
            let (worker, why) = (self.config.worker, FAULTS[fault.index()]);
            self.with_backend(seat.slot, |b| log::debug!("worker {worker}: {} {why}", b.name));
        }
    }

    /// So much was written to the client.
    pub(super) fn note_sent(&self, record: &mut Record, bytes: u64) {
        self.counters.add(Count::BytesToClients, bytes);
        record.bytes_out += bytes;
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
