//! Which backends are fit to get requests: one book for the process, kept by the control core.
//!
//! In go the workers' [`Report`]s, the outcomes of [`Errand`]s and the time; out come errands to be run (a connect or a
//! health check, from outside the request traffic), the [`Standings`] for the next snapshot, and [`Change`]s worth a line
//! in the log. It opens no socket and knows no HTTP.
//!
//! | condition | how a backend gets there | how it gets back |
//! |---|---|---|
//! | unreachable | one connect that failed; or three tries in a row, the last one overtaken while it connected | the first connect that succeeds, one every [`PROBE_INTERVAL`] (with checks: and then a check) |
//! | failing | [`ROW_MAX`] tries in a row without a whole answer, on whatever cores | out for 1 s, doubling to 30 s; then one request (with checks: a check) decides |
//! | unfit | a health check that was answered, but not well | the first check that is |
//!
//! *In a row* is counted over all cores: a failure forgets those that are older than the last whole answer its own core
//! had, and nobody has to report successes. A first failure has the backend connected to at once, so that one that died
//! is left by every core within that time and not when each has found out by itself.
//!
//! Invariants: never more than half of the set is out, and nobody is while everybody is ill; who has been ill for longest
//! is left out first. Whoever is ill has an errand, a term or a trial before it. A backend is connected to at most once per
//! [`PROBE_INTERVAL`], the process begins at most [`ERRANDS_PER_SECOND`], and [`ERRANDS_MAX`] run at a time.

mod case;
mod errand;
mod standing;

pub use case::{PROBE_INTERVAL, WAIT_MAX, WAIT_MIN};
pub use errand::{Change, Errand, Outcome, Tally, Todo, Vital};
pub use standing::{
    Finding, REPORTS_MAX, ROW_MAX, Report, Standing, Standings, Symptom, Trial, out_max,
};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use case::{Case, Condition};

use super::Slot;
use crate::time::Instant;

/// The health of all backends.
#[derive(Debug)]
pub struct HealthBook {
    /// By slot.
    cases: Vec<Option<Case>>,
    size: usize,
    /// Whoever is not well, in the order in which it fell ill.
    ill: BTreeMap<u64, Slot>,
    /// When whose errand is due, and when whose term ends.
    errands: BTreeSet<(Instant, Slot)>,
    terms: BTreeSet<(Instant, Slot)>,
    /// Pause between two checks of one backend, when there are checks.
    check_interval: Option<Duration>,
    to_do: VecDeque<Todo>,
    running: usize,
    /// Errands that may begin are those that were due by then.
    pace: Instant,
    heard: Vec<u64>,
    /// Of each worker, and when it was asked.
    traffic: Vec<Traffic>,
    traffic_at: Instant,
    /// The last illness whose bearer is out; those after it are spared.
    last_out: u64,
    /// Whether somebody's standing may have changed, or a worker waits to hear.
    is_stale: bool,
    owes_word: bool,
    /// Numbers illnesses, episodes and trials: all unique.
    counter: u64,
    attendance: u64,
    changes: VecDeque<Change>,
    tally: Tally,
}

/// Requests of a worker.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    total: u64,
    lately: u64,
}

impl HealthBook {
    /// A book that knows nobody. With a `check_interval` every backend is checked that often.
    pub fn new(workers: usize, check_interval: Option<Duration>) -> Self {
        Self {
            cases: Vec::new(),
            size: 0,
            ill: BTreeMap::new(),
            errands: BTreeSet::new(),
            terms: BTreeSet::new(),
            check_interval,
            to_do: VecDeque::new(),
            running: 0,
            pace: Instant::from_ns(0),
            heard: vec![0; workers],
            traffic: vec![Traffic::default(); workers],
            traffic_at: Instant::from_ns(0),
            last_out: 0,
            is_stale: false,
            owes_word: false,
            counter: 0,
            attendance: 0,
            changes: VecDeque::new(),
            tally: Tally::default(),
        }
    }

    /// Takes over who may get requests as far as the agent and the resolver go, and where each one is. Others are
    /// forgotten; newcomers are well, and stand in no snapshot before `epoch`.
    pub fn attend<'a>(
        &mut self,
        members: impl Iterator<Item = (Slot, &'a Arc<[SocketAddr]>)>,
        epoch: u64,
        now: Instant,
    ) {
        self.attendance += 1;
        let mut size = 0;
        for (slot, addresses) in members {
            size += 1;
            if self.cases.len() <= slot.index() {
                self.cases.resize_with(slot.index() + 1, || None);
            }
            match &mut self.cases[slot.index()] {
                Some(case) => {
                    case.attendance = self.attendance;
                    let has_moved = !Arc::ptr_eq(&case.addresses, addresses);
                    if has_moved {
                        case.addresses = Arc::clone(addresses);
                    }
                    if has_moved && case.condition == Condition::Unreachable {
                        self.reschedule(slot, |case| case.probe_soon(now));
                    }
                }
                empty => {
                    self.counter += 1;
                    let mut case = Case::new(self.counter, epoch, Arc::clone(addresses), now);
                    case.attendance = self.attendance;
                    *empty = Some(case);
                    if let Some(interval) = self.check_interval {
                        self.reschedule(slot, |case| {
                            case.check_at = Some(now + spread(slot, interval))
                        });
                    }
                }
            }
        }
        if size < self.cases.iter().flatten().count() {
            for index in 0..self.cases.len() {
                let attendance = self.attendance;
                let has_left = |case: &Case| case.attendance != attendance;
                if self.cases[index].as_ref().is_some_and(has_left) {
                    self.forget(Slot(index as u32));
                }
            }
        }
        self.is_stale |= self.size != size && !self.ill.is_empty();
        self.size = size;
        self.check_invariants();
    }

    /// Takes in what a worker met.
    pub fn hear(&mut self, report: &Report, now: Instant) {
        self.tally.reports += 1;
        if let Some(heard) = self.heard.get_mut(report.worker as usize) {
            *heard = report.serial;
        }
        self.owes_word |= report.finding.is_claim();
        let slot = report.slot;
        let Some(case) = self.case_mut(slot) else { return };
        if report.epoch < case.epoch || (case.is_well() && report.at < case.since) {
            return; // of another backend, or of before it recovered
        }
        let (is_well, condition) = (case.is_well(), case.condition);
        match report.finding {
            Finding::Unreachable(symptom) => self.find_unreachable(slot, symptom, now),
            Finding::Failed { symptom, answered_at, is_last_straw } if is_well => {
                let is_full = case.row.push(report.at, answered_at) || is_last_straw;
                if is_full {
                    self.find_failing(slot, symptom, now);
                } else {
                    self.reschedule(slot, |case| case.probe_soon(now));
                }
            }
            Finding::Suspect(_) if is_well => self.reschedule(slot, |case| case.probe_soon(now)),
            Finding::Failed { .. } | Finding::Suspect(_) => {}
            Finding::TrialBegun(number) if condition.is_trial(number) => {
                self.reschedule(slot, |case| case.begin_trial(now));
            }
            Finding::Tried(number, verdict) if condition.is_trial(number) => match verdict {
                Trial::Passed => self.heal(slot, now),
                Trial::Failed(symptom) if symptom.is_of_connect() => {
                    self.find_unreachable(slot, symptom, now);
                }
                Trial::Failed(symptom) => self.relapse(slot, symptom, now),
                Trial::Undecided => {
                    self.turn(slot, Condition::Failing);
                    self.reschedule(slot, |case| case.term = Some(now + LEASE));
                }
            },
            // Of a trial that is over.
            Finding::TrialBegun(_) | Finding::Tried(..) => {}
        }
        self.check_invariants();
    }

    /// How an errand went. Every [`Todo`] is answered once.
    pub fn done(&mut self, todo: Todo, outcome: Outcome, now: Instant) {
        self.running -= 1;
        let slot = todo.slot;
        let Some(case) = self.case_mut(slot).filter(|case| todo.episode >= case.born) else {
            return;
        };
        if todo.errand == Errand::Check {
            case.is_checking = false;
        }
        // What was begun under another condition says little: a failed connect still does, of one that is ill anyway.
        let is_current = todo.episode == case.episode;
        let condition = case.condition;
        match (outcome, todo.errand) {
            (Outcome::Unknown, _) => {}
            (Outcome::Bad(symptom), Errand::Connect)
                if is_current || condition != Condition::Well =>
            {
                self.find_unreachable(slot, symptom, now);
            }
            _ if !is_current => {}
            (Outcome::Bad(symptom), _) => self.fail_check(slot, symptom, now),
            (Outcome::Good, Errand::Connect) => match (condition, self.check_interval) {
                (Condition::Unreachable, None) => self.heal(slot, now),
                (Condition::Unreachable, Some(_)) => {
                    self.turn(slot, Condition::Unfit);
                    self.reschedule(slot, |case| case.check_at = Some(now));
                }
                _ => {}
            },
            (Outcome::Good, Errand::Check) => match condition {
                Condition::Well => self.page(slot).row.clear(),
                _ => self.heal(slot, now),
            },
        }
        self.check_invariants();
    }

    /// Does what is due. `requests_of` a worker, since it began: trials go to who has traffic.
    pub fn handle_timeout(&mut self, now: Instant, requests_of: impl Fn(u32) -> u64) {
        while let Some(&(due, slot)) = self.terms.first().filter(|(due, _)| *due <= now) {
            self.terms.remove(&(due, slot));
            if let Some(case) = self.case_mut(slot) {
                case.term = None;
            }
            self.grant(slot, now, &requests_of);
        }
        self.pace = self.pace.max(now - PACE_BURST);
        while let Some(&(due, slot)) = self.errands.first().filter(|(due, _)| *due <= now)
            && self.running < ERRANDS_MAX
            && self.pace < now
        {
            self.errands.remove(&(due, slot));
            self.pace = self.pace + PACE;
            self.begin(slot, now);
        }
        self.check_invariants();
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next to be called, an outcome of an errand aside.
    pub fn next_deadline(&self) -> Option<Instant> {
        let errand = self.errands.first().filter(|_| self.running < ERRANDS_MAX);
        let errand = errand.map(|&(due, _)| due.max(self.pace));
        self.terms.first().map(|&(due, _)| due).into_iter().chain(errand).min()
    }

    /// The next errand to be run.
    pub fn poll_todo(&mut self) -> Option<Todo> {
        self.to_do.pop_front()
    }

    /// The next thing worth telling.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// The standings, when somebody's changed since they were taken last, or a worker waits for them.
    pub fn take_standings(&mut self) -> Option<Standings> {
        let is_due = std::mem::take(&mut self.is_stale) | std::mem::take(&mut self.owes_word);
        if !is_due {
            return None;
        }
        let (n, ill) = (self.size, self.ill.len());
        let out = if ill == n { 0 } else { ill.min(out_max(n)) };
        self.last_out = self.ill.keys().take(out).max().copied().unwrap_or(0);
        let standing = |&slot: &Slot| Some((slot, self.standing(self.case(slot)?)));
        let mut others: Vec<_> = self.ill.values().filter_map(standing).collect();
        others.sort_unstable_by_key(|(slot, _)| *slot);
        Some(Standings { others, heard: self.heard.clone() })
    }

    /// How a backend is; `None` for one that gets no requests for other reasons.
    pub fn vital(&self, slot: Slot) -> Option<Vital> {
        let case = self.case(slot)?;
        Some(Vital {
            standing: self.standing(case),
            condition: case.condition.label(),
            since: case.since,
            symptom: case.symptom,
            ejections: case.ejections,
        })
    }

    /// Of everybody who has ever been ill.
    pub fn vitals(&self) -> impl Iterator<Item = (Slot, Vital)> {
        let numbered = (0..).map(Slot).zip(&self.cases);
        let met = numbered.filter(|(_, case)| case.as_ref().is_some_and(|case| case.ejections > 0));
        met.filter_map(|(slot, _)| Some((slot, self.vital(slot)?)))
    }

    /// What was counted.
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    fn standing(&self, case: &Case) -> Standing {
        let is_spared = case.illness > self.last_out;
        match case.condition {
            Condition::Well => Standing::Up,
            Condition::OnTrial { number, worker, .. } => {
                Standing::OnTrial { number, worker: (!is_spared).then_some(worker) }
            }
            _ if is_spared => Standing::Spared,
            Condition::Unreachable | Condition::Failing | Condition::Unfit => Standing::Out,
        }
    }

    /// There is no connection to it.
    fn find_unreachable(&mut self, slot: Slot, symptom: Symptom, now: Instant) {
        let case = self.page(slot);
        case.symptom = Some(symptom);
        if case.condition != Condition::Unreachable {
            self.eject(slot, symptom, now);
            self.turn(slot, Condition::Unreachable);
            self.reschedule(slot, |case| case.probe_soon(now));
        }
    }

    /// It has failed too often in a row.
    fn find_failing(&mut self, slot: Slot, symptom: Symptom, now: Instant) {
        if symptom.is_of_connect() {
            return self.find_unreachable(slot, symptom, now);
        }
        self.eject(slot, symptom, now);
        self.relapse(slot, symptom, now);
        // It may be dead, in which case it need not wait that long.
        self.reschedule(slot, |case| case.probe_soon(now));
    }

    /// It is left out for a while, longer than before.
    fn relapse(&mut self, slot: Slot, symptom: Symptom, now: Instant) {
        self.turn(slot, Condition::Failing);
        let has_checks = self.check_interval.is_some();
        self.reschedule(slot, |case| {
            case.symptom = Some(symptom);
            let until = now + case.lengthen_wait();
            *if has_checks { &mut case.check_at } else { &mut case.term } = Some(until);
        });
    }

    fn fail_check(&mut self, slot: Slot, symptom: Symptom, now: Instant) {
        let condition = self.page(slot).condition;
        match (condition, symptom) {
            (_, Symptom::Refused | Symptom::Unreachable | Symptom::ConnectReset) => {
                self.find_unreachable(slot, symptom, now);
            }
            (Condition::Well, Symptom::Status(_)) => {
                self.eject(slot, symptom, now);
                self.turn(slot, Condition::Unfit);
                let next = self.check_interval.map(|interval| now + interval);
                self.reschedule(slot, |case| case.check_at = next);
            }
            (Condition::Well, _) => {
                if self.page(slot).row.push(now, Instant::from_ns(0)) {
                    self.find_failing(slot, symptom, now);
                }
            }
            (Condition::Failing, _) => self.relapse(slot, symptom, now),
            (Condition::Unfit | Condition::Unreachable | Condition::OnTrial { .. }, _) => {
                self.page(slot).symptom = Some(symptom);
            }
        }
    }

    /// Enters an illness, unless there is one.
    fn eject(&mut self, slot: Slot, symptom: Symptom, now: Instant) {
        if !self.page(slot).is_well() {
            return;
        }
        self.counter += 1;
        let illness = self.counter;
        self.ill.insert(illness, slot);
        self.tally.ejections += 1;
        let case = self.page(slot);
        let is_relapse = case.is_relapse(now);
        if !is_relapse {
            case.wait = Duration::ZERO;
        }
        case.illness = illness;
        case.since = now;
        case.symptom = Some(symptom);
        case.ejections += 1;
        self.changes.push_back(Change::Ejected { slot, symptom, is_relapse });
    }

    fn heal(&mut self, slot: Slot, now: Instant) {
        self.turn(slot, Condition::Well);
        let next = self.check_interval.map(|interval| now + interval);
        self.reschedule(slot, |case| case.check_at = next);
        let case = self.page(slot);
        let after = now.since(case.since);
        let is_relapse = case.is_relapse(case.since);
        case.since = now;
        case.healed_at = Some(now);
        case.row.clear();
        let illness = std::mem::take(&mut case.illness);
        self.ill.remove(&illness);
        self.tally.recoveries += 1;
        self.changes.push_back(Change::Recovered { slot, after, is_relapse });
    }

    /// Enters another condition, with nothing planned.
    fn turn(&mut self, slot: Slot, condition: Condition) {
        self.counter += 1;
        let episode = self.counter;
        self.is_stale = true;
        self.reschedule(slot, |case| {
            case.condition = condition;
            case.episode = episode;
            (case.probe_at, case.check_at, case.term) = (None, None, None);
        });
    }

    /// A term has ended: a failing backend is put on trial; a trial that nobody began goes to who has traffic.
    fn grant(&mut self, slot: Slot, now: Instant, requests_of: &impl Fn(u32) -> u64) {
        let Some(case) = self.case(slot) else { return };
        let is_spared = case.illness > self.last_out;
        let (condition, busiest) = (case.condition, self.busiest(now, requests_of));
        let worker = match condition {
            Condition::Failing => busiest,
            // Begun so long ago that its verdict must have been lost.
            Condition::OnTrial { is_begun: true, .. } => busiest,
            Condition::OnTrial { worker, .. } if !is_spared && self.is_idle(worker, busiest) => {
                busiest
            }
            Condition::OnTrial { .. } => {
                return self.reschedule(slot, |case| case.term = Some(now + LEASE));
            }
            Condition::Well | Condition::Unreachable | Condition::Unfit => return,
        };
        self.tally.trials += 1;
        self.counter += 1;
        let number = self.counter;
        self.turn(slot, Condition::OnTrial { number, worker, is_begun: false });
        self.reschedule(slot, |case| case.term = Some(now + LEASE));
    }

    /// The worker with the most requests lately.
    fn busiest(&mut self, now: Instant, requests_of: &impl Fn(u32) -> u64) -> u32 {
        if now.since(self.traffic_at) >= LEASE / 2 {
            self.traffic_at = now;
            for (worker, traffic) in (0..).zip(&mut self.traffic) {
                let total = requests_of(worker);
                *traffic = Traffic { total, lately: total.saturating_sub(traffic.total) };
            }
        }
        // Of equals the last wins: the first ones are busy enough with being first everywhere.
        let most = (0..).zip(&self.traffic).max_by_key(|(_, traffic)| traffic.lately);
        most.map_or(0, |(worker, _)| worker)
    }

    fn is_idle(&self, worker: u32, busiest: u32) -> bool {
        let lately = |worker: u32| self.traffic.get(worker as usize).map_or(0, |t| t.lately);
        lately(worker) == 0 && lately(busiest) > 0
    }

    /// Begins the errand that is due.
    fn begin(&mut self, slot: Slot, now: Instant) {
        let interval = self.check_interval;
        let mut todo = None;
        self.reschedule(slot, |case| {
            let errand = case.begin_errand(now, interval);
            todo = errand.map(|errand| Todo { slot, episode: case.episode, errand });
        });
        let Some(todo) = todo else { return };
        self.running += 1;
        match todo.errand {
            Errand::Connect => self.tally.probes += 1,
            Errand::Check => self.tally.checks += 1,
        }
        self.to_do.push_back(todo);
    }

    /// Changes a case, and the agendas with it.
    fn reschedule(&mut self, slot: Slot, change: impl FnOnce(&mut Case)) {
        let Some(case) = self.cases.get_mut(slot.index()).and_then(Option::as_mut) else { return };
        let agendas = |case: &Case| (case.errand_at(), case.term);
        let before = agendas(case);
        change(case);
        let after = agendas(case);
        // The one that has just been taken off its agenda is not there: then there is nothing to remove.
        before.0.map(|at| self.errands.remove(&(at, slot)));
        before.1.map(|at| self.terms.remove(&(at, slot)));
        self.errands.extend(after.0.map(|at| (at, slot)));
        self.terms.extend(after.1.map(|at| (at, slot)));
    }

    fn forget(&mut self, slot: Slot) {
        self.reschedule(slot, |case| {
            (case.probe_at, case.check_at, case.term) = (None, None, None);
        });
        let Some(case) = self.cases[slot.index()].take() else { return };
        self.is_stale |= self.ill.remove(&case.illness).is_some();
    }

    fn case(&self, slot: Slot) -> Option<&Case> {
        self.cases.get(slot.index())?.as_ref()
    }

    fn case_mut(&mut self, slot: Slot) -> Option<&mut Case> {
        self.cases.get_mut(slot.index())?.as_mut()
    }

    /// The case of a backend that is known to have one.
    fn page(&mut self, slot: Slot) -> &mut Case {
        self.case_mut(slot).expect("whoever is looked at has a page")
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            let ill = self.cases.iter().flatten().filter(|case| !case.is_well());
            assert_eq!(ill.count(), self.ill.len());
            for (illness, &slot) in &self.ill {
                let case = self.case(slot).expect("whoever is ill has a page");
                assert_eq!(case.illness, *illness);
                assert!(case.has_prospect(), "nothing will ever bring it back: {case:?}");
            }
            let (mut errands, mut terms) = (0, 0);
            for (slot, case) in (0..).map(Slot).zip(&self.cases) {
                let Some(case) = case else { continue };
                let (errand, term) = (case.errand_at(), case.term);
                assert!(errand.is_none_or(|at| self.errands.contains(&(at, slot))));
                assert!(term.is_none_or(|at| self.terms.contains(&(at, slot))));
                errands += usize::from(errand.is_some());
                terms += usize::from(term.is_some());
            }
            assert_eq!((errands, terms), (self.errands.len(), self.terms.len()));
            assert!(self.running <= ERRANDS_MAX);
        }
    }
}

/// When within an interval somebody is checked: spread evenly, whatever slots are in use (multiples of the golden ratio).
fn spread(slot: Slot, interval: Duration) -> Duration {
    let part = slot.0.wrapping_add(1).wrapping_mul(0x9e37_79b9);
    interval.mul_f64(f64::from(part) / f64::from(u32::MAX))
}

/// Errands that run at a time: each holds a descriptor.
pub const ERRANDS_MAX: usize = 128;
/// Errands begun in a second, and how many of them at once after a pause: about 2 % of the control core.
pub const ERRANDS_PER_SECOND: u32 = 1000;
const PACE: Duration = Duration::from_nanos(1_000_000_000 / ERRANDS_PER_SECOND as u64);
const PACE_BURST: Duration = Duration::from_millis(64);
/// How long a worker without traffic keeps a trial to itself.
const LEASE: Duration = Duration::from_millis(100);
#[cfg(test)]
#[path = "promises_tests.rs"]
mod promises;
#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
