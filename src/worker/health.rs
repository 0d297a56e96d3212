//! What one core makes of its backends' health: whom it sends nothing for now, and what it tells the control core.
//!
//! The control core's [`HealthBook`](crate::balance::HealthBook) has the last word, by the standings in each snapshot.
//! Until that word is here the core acts on what it met itself: it *claims* a backend out (a failed connect, the third
//! failure in a row), which lasts until a snapshot takes the claim into account; and it *holds back* from one that was
//! silent for a whole timeout, until somebody gets an answer from it, [`HOLD_MAX`] at most: whatever else was sent there
//! is about to tell. Neither goes further than half of the set. And it opens no more than [`OPENING_MAX`] connections at a
//! time to one that has answered nobody since something ended there, as long as others can take the requests: a burst
//! does not find out all at once that somebody died.
//!
//! Reports are sent for what is new: never for an answer, never again while a claim waits, and no more often than every
//! [`REPORT_PAUSE`] for failures between answers. What finds the channel full is lost and counted, and claims nothing.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::balance::{
    Backend, Finding, ROW_MAX, Report, Slot, Snapshot, Standing, Symptom, Trial, out_max,
};
use crate::io::Bell;
use crate::time::Instant;

/// The way to the control core: every report with a ring of its bell.
#[derive(Clone, Debug)]
pub struct Reporter<B> {
    /// The channel that all workers share.
    pub reports: Sender<Report>,
    /// The control core's.
    pub bell: B,
}

/// One core's view.
pub struct Health<B> {
    worker: u32,
    reporter: Reporter<B>,
    serial: Cell<u64>,
    epoch: Cell<u64>,
    /// By slot.
    views: RefCell<Vec<View>>,
    /// Of how many views the time will change something.
    pending: Cell<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct View {
    /// Whether it may get requests at all, its health aside.
    is_eligible: bool,
    standing: Standing,
    /// Failures since the last whole answer, and when that was.
    row: usize,
    answered_at: Instant,
    reported_at: Instant,
    /// The report that waits to be taken into account; 0 for none. And whether the backend is left out meanwhile.
    claim: u64,
    is_claimed_out: bool,
    held_until: Option<Instant>,
    /// Since when a request on trial is being answered.
    answering_since: Option<Instant>,
    /// Whether it has answered nobody since it came, came back, or ended a connection; and connects under way.
    is_proven: bool,
    opening: u32,
    /// The last trial this core has begun, and the last one whose outcome it has told.
    begun: u64,
    told: u64,
    /// Since when it is on trial.
    on_trial_since: Instant,
}

/// What a finding came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Noted {
    /// Somebody is to get requests who got none, or the reverse.
    pub has_changed: bool,
    /// A report was lost.
    pub is_lost: bool,
}

impl<B: Bell> Health<B> {
    /// Everybody is available, and `worker` is what the control core knows this core by.
    pub fn new(worker: u32, reporter: Reporter<B>) -> Self {
        Self {
            worker,
            reporter,
            serial: Cell::new(0),
            epoch: Cell::new(0),
            views: RefCell::default(),
            pending: Cell::new(0),
        }
    }

    /// Takes over the standings of a snapshot.
    pub fn apply(&self, snapshot: &Snapshot, now: Instant) {
        self.epoch.set(snapshot.epoch);
        let views = &mut *self.views.borrow_mut();
        views.iter_mut().for_each(|view| view.is_eligible = false);
        for backend in snapshot.backends.iter().filter(|b| Backend::is_eligible(b)) {
            if views.len() <= backend.slot.index() {
                views.resize(backend.slot.index() + 1, View::default());
            }
            views[backend.slot.index()].is_eligible = true;
        }
        let heard = snapshot.health.heard_of(self.worker);
        let mut others = snapshot.health.others.iter().peekable();
        for (slot, view) in (0..).map(Slot).zip(views.iter_mut()) {
            while others.next_if(|(other, _)| *other < slot).is_some() {}
            let standing =
                others.next_if(|(other, _)| *other == slot).map_or(Standing::Up, |o| o.1);
            if !view.is_eligible {
                // Whoever comes next into this slot is somebody else.
                *view = View { opening: view.opening, ..View::default() };
                continue;
            }
            if view.claim <= heard {
                (view.claim, view.is_claimed_out) = (0, false);
            }
            if view.standing != standing {
                (view.row, view.answering_since, view.is_proven) = (0, None, false);
                view.on_trial_since = now;
                view.standing = standing;
            }
        }
        self.pending.set(views.iter().filter(|view| view.is_pending()).count());
    }

    /// Whether `slot` gets requests from this core.
    pub fn is_available(&self, slot: Slot) -> bool {
        self.look(slot, |view| view.is_available(self.worker)).unwrap_or(true)
    }

    /// Whether connections to `slot` are worth keeping.
    pub(super) fn keeps_idle(&self, slot: Slot) -> bool {
        let keeps = |view: &View| view.held_until.is_some() || view.is_available(self.worker);
        self.look(slot, keeps).unwrap_or(true)
    }

    /// Whether the next request to `slot` decides whether it comes back, and had better be one that can be sent elsewhere
    /// if it does not. After a while any will do.
    pub(super) fn wants_repeatable(&self, slot: Slot, now: Instant) -> bool {
        let wants = |view: &View| {
            let is_own = matches!(view.standing, Standing::OnTrial { worker: Some(_), .. });
            is_own && now.since(view.on_trial_since) < CHOOSY
        };
        self.look(slot, wants).unwrap_or(false)
    }

    /// A request goes to `slot`. `Some`: how it goes is the trial of that number, to be told by [`tried`](Self::tried).
    pub fn begin(&self, slot: Slot, now: Instant) -> (Option<u64>, Noted) {
        let mut noted = Noted::default();
        let number = self.change(slot, |view| match view.standing {
            Standing::OnTrial { number, worker: Some(worker) }
                if worker == self.worker && view.begun != number =>
            {
                view.begun = number;
                noted.has_changed = true;
                Some(number)
            }
            Standing::OnTrial { number, worker: None } if view.told != number => Some(number),
            _ => None,
        });
        let number = number.flatten();
        if let Some(number) = number.filter(|_| noted.has_changed) {
            noted.is_lost = !self.tell(slot, Finding::TrialBegun(number), now);
        }
        (number, noted)
    }

    /// How the trial of that number went. Of one that is open to all cores only what decides is told, and once.
    pub fn tried(&self, slot: Slot, number: u64, trial: Trial, now: Instant) -> Noted {
        let is_new = self.change(slot, |view| match view.standing {
            Standing::OnTrial { number: current, worker } if current == number => {
                view.answering_since = None;
                let decides = worker.is_some() || trial != Trial::Undecided;
                decides && std::mem::replace(&mut view.told, number) != number
            }
            _ => false,
        });
        let is_told = is_new != Some(true) || self.tell(slot, Finding::Tried(number, trial), now);
        Noted { has_changed: false, is_lost: !is_told }
    }

    /// A whole answer came from `slot`.
    pub fn answered(&self, slot: Slot, now: Instant) {
        self.change(slot, |view| {
            view.row = 0;
            view.answered_at = now;
            view.is_proven = true;
        });
    }

    /// Connections to `slot` were found ended: the next ones are opened with care.
    pub(super) fn doubt(&self, slot: Slot) {
        self.change(slot, |view| view.is_proven = false);
    }

    /// A connect to `slot` begins, or is over.
    pub(super) fn note_opening(&self, slot: Slot, is_begun: bool) {
        if let Some(view) = self.views.borrow_mut().get_mut(slot.index()) {
            view.opening = if is_begun { view.opening + 1 } else { view.opening.saturating_sub(1) };
        }
    }

    /// Whether enough connects to `slot` are under way to tell whether it lives.
    pub(super) fn is_crowded(&self, slot: Slot) -> bool {
        self.look(slot, |view| !view.is_proven && view.opening >= OPENING_MAX).unwrap_or(false)
    }

    /// The head of an answer came from `slot`, to the request on trial if there is a `trial`: it is not silent. True when
    /// that makes it available.
    pub fn heard(&self, slot: Slot, trial: Option<u64>, now: Instant) -> bool {
        if self.pending.get() == 0 && trial.is_none() {
            return false;
        }
        let was_held = self.change(slot, |view| {
            if trial.is_some() {
                view.answering_since = Some(now);
            }
            view.held_until.take().is_some()
        });
        self.recount();
        was_held == Some(true)
    }

    /// A try at `slot` failed.
    pub fn failed(&self, slot: Slot, symptom: Symptom, now: Instant) -> Noted {
        let is_conclusive = symptom.is_of_connect() && symptom != Symptom::Overtaken;
        let finding = self.change(slot, |view| {
            view.row += 1;
            view.is_proven = false;
            if view.standing != Standing::Up || view.claim != 0 {
                return None; // it is known
            }
            let answered_at = view.answered_at;
            let is_last_straw = view.row >= ROW_MAX;
            match (is_conclusive, is_last_straw) {
                (true, _) => Some(Finding::Unreachable(symptom)),
                (false, false) if view.row == 1 && now.since(view.reported_at) < REPORT_PAUSE => {
                    None
                }
                _ => Some(Finding::Failed { symptom, answered_at, is_last_straw }),
            }
        });
        let mut noted = Noted::default();
        if let Some(finding) = finding.flatten() {
            noted.is_lost = !self.tell(slot, finding, now);
            if finding.is_claim() && !noted.is_lost {
                noted.has_changed = self.claim(slot);
            }
        }
        if symptom == Symptom::Silent && !noted.has_changed {
            noted.has_changed = self.hold(slot, now);
        }
        noted
    }

    /// A pooled connection to `slot` ended under a request. The control core looks whether it still lives.
    pub(super) fn suspect(&self, slot: Slot, symptom: Symptom, now: Instant) -> Noted {
        let is_new = self.change(slot, |view| {
            view.is_proven = false;
            let is_known = view.standing != Standing::Up || view.claim != 0;
            !is_known && now.since(view.reported_at) >= REPORT_PAUSE
        });
        let is_told = is_new != Some(true) || self.tell(slot, Finding::Suspect(symptom), now);
        Noted { has_changed: false, is_lost: !is_told }
    }

    /// Ends what was held back for long enough; who has been answering for long enough has passed.
    pub fn sweep(&self, now: Instant) -> Noted {
        let mut noted = Noted::default();
        if self.pending.get() == 0 {
            return noted;
        }
        let mut passed = Vec::new();
        for (slot, view) in (0..).map(Slot).zip(self.views.borrow_mut().iter_mut()) {
            noted.has_changed |= view.held_until.take_if(|until| *until <= now).is_some();
            let is_long = |since: &mut Instant| now.since(*since) >= ANSWERING_MAX;
            if view.answering_since.take_if(is_long).is_some()
                && let Standing::OnTrial { number, .. } = view.standing
            {
                passed.push((slot, number));
            }
        }
        self.recount();
        for (slot, number) in passed {
            noted.is_lost |= self.tried(slot, number, Trial::Passed, now).is_lost;
        }
        noted
    }

    /// Leaves `slot` out until a snapshot takes the report just sent into account. True when it did get requests.
    fn claim(&self, slot: Slot) -> bool {
        let may_leave_out = self.may_leave_out(slot);
        let (serial, worker) = (self.serial.get(), self.worker);
        let left_out = self.change(slot, |view| {
            let was_available = view.is_available(worker);
            view.claim = serial;
            view.is_claimed_out = may_leave_out;
            was_available && may_leave_out
        });
        left_out == Some(true)
    }

    /// Sends `slot` nothing more for a while. True when it did get requests.
    fn hold(&self, slot: Slot, now: Instant) -> bool {
        if !self.may_leave_out(slot) {
            return false;
        }
        let worker = self.worker;
        let held = self.change(slot, |view| {
            let was_available = view.is_available(worker);
            if was_available {
                view.held_until = Some(now + HOLD_MAX);
            }
            was_available
        });
        self.recount();
        held == Some(true)
    }

    /// Whether `slot` may be left out without leaving out more than half.
    fn may_leave_out(&self, slot: Slot) -> bool {
        let views = self.views.borrow();
        let eligible = views.iter().enumerate().filter(|(_, view)| view.is_eligible);
        let (n, out) = eligible.fold((0, 0), |(n, out), (other, view)| {
            let is_out = other != slot.index() && !view.is_available(self.worker);
            (n + 1, out + usize::from(is_out))
        });
        out < out_max(n)
    }

    fn recount(&self) {
        self.pending.set(self.views.borrow().iter().filter(|view| view.is_pending()).count());
    }

    /// Sends a report; false when it was lost.
    fn tell(&self, slot: Slot, finding: Finding, now: Instant) -> bool {
        let serial = self.serial.get() + 1;
        let (worker, epoch) = (self.worker, self.epoch.get());
        let report = Report { worker, serial, epoch, slot, at: now, finding };
        if self.reporter.reports.try_send(report).is_err() {
            return false;
        }
        self.serial.set(serial);
        self.change(slot, |view| view.reported_at = now);
        self.reporter.bell.ring();
        true
    }

    fn look<T>(&self, slot: Slot, look: impl FnOnce(&View) -> T) -> Option<T> {
        self.views.borrow().get(slot.index()).map(look)
    }

    /// Only of somebody who is eligible.
    fn change<T>(&self, slot: Slot, change: impl FnOnce(&mut View) -> T) -> Option<T> {
        self.views.borrow_mut().get_mut(slot.index()).filter(|view| view.is_eligible).map(change)
    }
}

impl View {
    fn is_pending(&self) -> bool {
        self.held_until.is_some() || self.answering_since.is_some()
    }

    fn is_available(&self, own: u32) -> bool {
        let is_in = match self.standing {
            Standing::Up | Standing::Spared | Standing::OnTrial { worker: None, .. } => true,
            Standing::Out => false,
            Standing::OnTrial { number, worker: Some(worker) } => {
                worker == own && self.begun != number
            }
        };
        is_in && !self.is_claimed_out && self.held_until.is_none()
    }
}

/// How long a backend that was silent is held back from at most.
pub(super) const HOLD_MAX: Duration = Duration::from_secs(1);
/// Connects at a time to a backend that may be dead.
pub(super) const OPENING_MAX: u32 = 2;
/// How much of an answer is enough to pass a trial: it may go on for hours.
const ANSWERING_MAX: Duration = Duration::from_secs(1);
/// How long a trial waits for a request that can be repeated before it takes any.
const CHOOSY: Duration = Duration::from_secs(1);
/// Between two reports of failures with answers in between.
const REPORT_PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
