//! One core: what a worker does with its picker and its view of health, without the sockets.
//!
//! [`Health`], [`Looks`], [`Published`] and [`RetryBudget`] are the worker's own, and so are the times; what is written
//! here is the order in which a worker calls them.

use std::sync::Arc;

use balancer::balance::{
    Backend, Choice, Failure, Phase, RetryBudget, Slot, Snapshot, Standing, Symptom, Trial, Verdict,
};
use balancer::io::Bell;
use balancer::metrics::Published;
use balancer::time::Instant;
use balancer::worker::{Health, IDLE_TICK, Looks, Noted, REST_AFTER, Reporter, TICK};

use super::chooser::{Chooser, Policy};

/// One core.
pub struct Core {
    chooser: Chooser,
    health: Health<Mute>,
    budget: RetryBudget,
    published: Arc<Published>,
    peers: Vec<Arc<Published>>,
    snapshot: Arc<Snapshot>,
    looks: Looks,
    /// Requests that came, and how many had when it ticked last.
    pub requests: u64,
    requests_ticked: u64,
    in_flight: u32,
    rest_at: Instant,
    is_ticking: bool,
}

/// A request in flight to a backend.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    pub slot: Slot,
    pub since: Instant,
    trial: Option<u64>,
}

/// Nobody sleeps here.
#[derive(Clone)]
pub struct Mute;

impl Bell for Mute {
    fn ring(&self) {}
}

impl Core {
    pub fn new(
        worker: u32,
        policy: Policy,
        reporter: Reporter<Mute>,
        all: &[Arc<Published>],
    ) -> Self {
        let others = (0..).zip(all).filter(|(other, _)| *other != worker);
        Self {
            chooser: Chooser::new(policy),
            health: Health::new(worker, reporter),
            budget: RetryBudget::new(Instant::default()),
            published: Arc::clone(&all[worker as usize]),
            peers: others.map(|(_, peer)| Arc::clone(peer)).collect(),
            snapshot: Arc::new(Snapshot::empty()),
            looks: Looks::default(),
            requests: 0,
            requests_ticked: 0,
            in_flight: 0,
            rest_at: Instant::default(),
            is_ticking: false,
        }
    }

    pub fn apply(&mut self, snapshot: &Arc<Snapshot>, now: Instant) {
        self.health.apply(snapshot, now);
        self.snapshot = Arc::clone(snapshot);
        self.rearrange(now);
    }

    /// Whether `slot` may get requests, by the snapshot in force here.
    pub fn expects(&self, slot: Slot) -> bool {
        let listed = self.snapshot.backends.iter().find(|backend| backend.slot == slot);
        listed.is_some_and(Backend::is_eligible) && self.snapshot.health.of(slot) != Standing::Out
    }

    /// A request came from a client.
    pub fn deposit(&mut self, now: Instant) {
        self.requests += 1;
        self.budget.deposit(now);
    }

    pub fn choose(
        &mut self,
        draw: impl FnMut() -> u64,
        exclude: &[Slot],
        active: &[u32],
    ) -> Option<Slot> {
        match self.chooser.pick(draw, exclude, active) {
            Choice::Backend(slot) => Some(slot),
            Choice::Busy | Choice::Nobody => None,
        }
    }

    /// A request goes to `slot`. True when the next tick, which was far, is near now.
    pub fn begin(&mut self, slot: Slot, now: Instant) -> (Seat, bool) {
        self.in_flight += 1;
        if let Some(picker) = self.chooser.ours() {
            picker.begin(slot);
        }
        let is_woken = !std::mem::replace(&mut self.is_ticking, true);
        let (trial, noted) = self.health.begin(slot, now);
        self.heed(noted, now);
        (Seat { slot, since: now, trial }, is_woken)
    }

    /// It was answered.
    pub fn answered(&mut self, seat: Seat, now: Instant) {
        if let Some(picker) = self.chooser.ours() {
            picker.answered(seat.slot, now.since(seat.since), now);
        }
        let has_changed = self.health.heard(seat.slot, seat.trial, now);
        self.heed(Noted { has_changed, ..Noted::default() }, now);
        self.health.answered(seat.slot, now);
        if let Some(number) = seat.trial {
            let noted = self.health.tried(seat.slot, number, Trial::Passed, now);
            self.heed(noted, now);
        }
        self.end(seat.slot);
    }

    /// It failed. Whether it may be sent to somebody else, after so many retries.
    pub fn failed(&mut self, seat: Seat, symptom: Symptom, retries: u32, now: Instant) -> bool {
        if let Some(picker) = self.chooser.ours() {
            picker.failed(seat.slot, now.since(seat.since), now);
        }
        let noted = match seat.trial {
            Some(number) => self.health.tried(seat.slot, number, Trial::Failed(symptom), now),
            None => self.health.failed(seat.slot, symptom, now),
        };
        self.heed(noted, now);
        self.end(seat.slot);
        if symptom.is_of_connect() {
            return true; // as long as there is anybody
        }
        let failure = Failure {
            phase: Phase::Sent,
            is_reused: false,
            is_idempotent: true,
            is_replayable: true,
            retries,
        };
        !matches!(failure.verdict(&mut self.budget, now), Verdict::GiveUp(_))
    }

    /// The heartbeat; returns when the next one is due.
    pub fn tick(&mut self, now: Instant) -> Instant {
        let Some(picker) = self.chooser.ours() else {
            let noted = self.health.sweep(now);
            self.heed(noted, now);
            return now + TICK;
        };
        self.published.store_beat(now.as_ns());
        self.published.store_in_flight(picker.loads().map(|(slot, n)| (slot.0, n)));
        self.published.store_paces(picker.paces().map(|(slot, pace)| (slot.0, pace.pack())));
        let noted = self.health.sweep(now);
        self.heed(noted, now);
        if self.in_flight > 0 || self.requests != self.requests_ticked {
            self.rest_at = now + REST_AFTER;
        }
        self.requests_ticked = self.requests;
        let is_busy = now < self.rest_at;
        let Some(picker) = self.chooser.ours() else { return now + TICK };
        if is_busy {
            self.looks.go_on(picker, &self.peers, now);
        } else {
            self.looks = Looks::default();
            picker.forget_others();
        }
        picker.tick(now);
        self.is_ticking = is_busy;
        now + if is_busy { TICK } else { IDLE_TICK }
    }

    fn end(&mut self, slot: Slot) {
        self.in_flight -= 1;
        if let Some(picker) = self.chooser.ours() {
            picker.end(slot);
        }
    }

    fn heed(&mut self, noted: Noted, now: Instant) {
        assert!(!noted.is_lost, "the channel is large enough here");
        if noted.has_changed {
            self.rearrange(now);
        }
    }

    fn rearrange(&mut self, now: Instant) {
        let health = &self.health;
        self.chooser.apply(&self.snapshot, |slot| health.is_available(slot), now);
    }
}
