//! A request in flight to a backend, for as long as it is one, and what that says of the backend's health and pace.
//!
//! Whoever meets something says so here: [`Seat::sent`] when all of the request has left us, [`Seat::heard`] when the head
//! of an answer has come, [`Seat::failed`] when a try has failed. What ended otherwise is taken for a whole answer if its
//! head had come, and says nothing if not. How long the backend took is the time from the one to the other: what the
//! client took to send its body is not the backend's doing.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::health::Noted;
use super::shard::Shard;
use crate::balance::{Choice, Slot, Symptom, Trial};
use crate::io::Io;
use crate::metrics::Count;
use crate::time::Instant;

/// A request in flight to a backend. It ends when dropped, whatever happened.
pub(super) struct Seat<I: Io> {
    shard: Rc<Shard<I>>,
    pub slot: Slot,
    /// When the backend was chosen.
    pub since: Instant,
    /// The trial that this request decides, until it has.
    trial: Cell<Option<u64>>,
    /// Whether it was the only one sent to a backend that is out otherwise.
    is_sole: bool,
    has_been_heard: Cell<bool>,
    sent_at: Cell<Option<Instant>>,
    is_opening: Cell<bool>,
}

impl<I: Io> Seat<I> {
    /// Counts a request to `slot`.
    pub(super) fn at(shard: &Rc<Shard<I>>, slot: Slot) -> Self {
        let now = shard.now();
        shard.picker.borrow_mut().begin(slot);
        if let Some(credits) = &shard.credits {
            credits.begin(slot, now);
        }
        shard.note_work();
        let (trial, noted) = shard.health.begin(slot, now);
        shard.heed(noted);
        Self {
            shard: shard.clone(),
            slot,
            since: now,
            trial: Cell::new(trial),
            is_sole: noted.has_changed,
            has_been_heard: Cell::new(false),
            sent_at: Cell::new(None),
            is_opening: Cell::new(false),
        }
    }

    /// Whether the backend was out, and this request was to show whether it may come back.
    pub(super) fn is_sole(&self) -> bool {
        self.is_sole
    }

    /// How long the backend may be silent. One that has been silent before gets half of the time when the request can still
    /// go elsewhere, so that its client waits for one and a half at most.
    pub(super) fn patience(&self, is_repeatable: bool) -> Duration {
        let whole = self.shard.config.timeouts.request;
        if self.is_sole && is_repeatable { whole / 2 } else { whole }
    }

    /// All of the request has left us.
    pub(super) fn sent(&self) {
        self.sent_at.set(Some(self.shard.now()));
    }

    /// A connect begins, or is over. One that is under way ends with the seat.
    pub(super) fn set_opening(&self, is_opening: bool) {
        if self.is_opening.replace(is_opening) != is_opening {
            self.shard.health.note_opening(self.slot, is_opening);
        }
    }

    /// The head of an answer has come.
    pub(super) fn heard(&self) {
        self.has_been_heard.set(true);
        let now = self.shard.now();
        if let Some(sent_at) = self.sent_at.take() {
            self.shard.picker.borrow_mut().answered(self.slot, now.since(sent_at), now);
        }
        let has_changed = self.shard.health.heard(self.slot, self.trial.get(), now);
        self.shard.heed(Noted { has_changed, ..Noted::default() });
    }

    /// The backend failed. `is_race`: a pooled connection ended before anything was heard, which happens to healthy
    /// backends, too.
    pub(super) fn failed(&self, symptom: Symptom, is_race: bool) {
        self.has_been_heard.set(false);
        let now = self.shard.now();
        if !is_race {
            self.shard.picker.borrow_mut().failed(self.slot, now.since(self.since), now);
        }
        if !self.decide(Trial::Failed(symptom)) {
            let health = &self.shard.health;
            self.shard.heed(match is_race {
                true => health.suspect(self.slot, symptom, now),
                false => health.failed(self.slot, symptom, now),
            });
        }
    }

    /// Tells how a trial went, if this is one. False when it is not.
    fn decide(&self, trial: Trial) -> bool {
        let Some(number) = self.trial.take() else { return false };
        let noted = self.shard.health.tried(self.slot, number, trial, self.shard.now());
        self.shard.heed(noted);
        true
    }
}

impl<I: Io> Drop for Seat<I> {
    fn drop(&mut self) {
        if self.has_been_heard.get() {
            self.shard.health.answered(self.slot, self.shard.now());
            self.decide(Trial::Passed);
        }
        self.decide(Trial::Undecided);
        self.set_opening(false);
        self.shard.picker.borrow_mut().end(self.slot);
        if let Some(credits) = &self.shard.credits {
            let has_waiting = !self.shard.queue.borrow().is_empty();
            credits.end(self.slot, has_waiting, self.shard.now());
        }
        self.shard.queue.borrow().wake_front();
    }
}

impl<I: Io> Shard<I> {
    /// Picks a backend that has room, over all cores.
    pub(super) fn choose(&self, exclude: &[Slot]) -> Choice {
        let picker = self.picker.borrow();
        let choice = picker.pick(|| self.io.draw(), exclude);
        let Some(credits) = &self.credits else { return choice };
        let is_secured = |choice| match choice {
            Choice::Backend(slot) => credits.secure(slot, self.now()),
            Choice::Busy | Choice::Nobody => true,
        };
        if is_secured(choice) {
            return choice;
        }
        let choice = picker.pick_among(exclude, |slot| credits.has(slot, self.now()));
        // Another core may have been quicker.
        if is_secured(choice) { choice } else { Choice::Busy }
    }

    /// Draws the consequences of what health has noted.
    pub(super) fn heed(&self, noted: Noted) {
        self.counters.add(Count::ReportsLost, u64::from(noted.is_lost));
        if noted.has_changed {
            self.rearrange();
        }
    }
}
