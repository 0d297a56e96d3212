//! Keeps the backends' health: the workers' reports, the errands' outcomes and the time go into the [`HealthBook`], what
//! it wants done is done ([`Errands`]), and the standings that come of it go out with the next snapshot.
//!
//! Reports come over one bounded channel that all workers share; each rings our bell. What the book has to say to people
//! is put into words here.

use std::sync::Arc;
use std::task::Context;

use crossbeam_channel::Receiver;

use super::errand::Errands;
use super::lines::listed;
use crate::balance::{
    Backend, Change, HealthBook, Report, Roster, Slot, Snapshot, Standing, Tally, Vital,
};
use crate::config::Config;
use crate::io::Io;
use crate::metrics::{Count, Published};
use crate::time::Instant;

/// The health of the set.
pub(super) struct Care<I: Io> {
    book: HealthBook,
    errands: Errands<I>,
    reports: Receiver<Report>,
}

/// What is worth a line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HealthNews {
    /// Who fell ill; empty when nobody did.
    pub ejected: String,
    /// Who is well again.
    pub recovered: String,
    /// The same of those who were ill only just before.
    pub again: String,
}

impl<I: Io> Care<I> {
    pub(super) fn new(io: I, config: &Config, reports: Receiver<Report>) -> Self {
        let interval = config.health.as_ref().map(|check| check.interval);
        Self {
            book: HealthBook::new(config.cores.len(), interval),
            errands: Errands::new(io, config.health.clone()),
            reports,
        }
    }

    /// Takes in what has come and what is due; what follows from it for the next snapshot goes to `roster`.
    pub(super) fn assess(&mut self, roster: &mut Roster, cores: &[Arc<Published>], now: Instant) {
        if roster.is_stale() {
            self.book.attend(roster.eligible(), roster.snapshot().epoch + 1, now);
        }
        for report in self.reports.try_iter().take(REPORTS_PER_TURN) {
            self.book.hear(&report, now);
        }
        let core = |worker: u32| cores.get(worker as usize);
        let requests_of = |worker| core(worker).map_or(0, |core| core.count(Count::Requests));
        self.book.handle_timeout(now, requests_of);
        if let Some(standings) = self.book.take_standings() {
            roster.set_health(standings);
        }
    }

    /// Runs what is to be run, as far as it goes. True when there is something to assess.
    pub(super) fn work(&mut self, cx: &mut Context<'_>, snapshot: &Snapshot, now: Instant) -> bool {
        while let Some(todo) = self.book.poll_todo() {
            self.errands.begin(todo, backend(snapshot, todo.slot));
        }
        let mut has_ended = !self.reports.is_empty();
        while let Some((todo, outcome)) = self.errands.poll(cx) {
            self.book.done(todo, outcome, now);
            has_ended = true;
        }
        has_ended
    }

    /// When [`assess`](Self::assess) is next to be called, unless something comes.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.book.next_deadline()
    }

    /// What was counted, and how those are who have ever been ill.
    pub(super) fn figures(&self) -> (Tally, impl Iterator<Item = (Slot, Vital)>) {
        (self.book.tally(), self.book.vitals())
    }

    /// What has happened since it was asked last.
    pub(super) fn news(&mut self, snapshot: &Snapshot) -> HealthNews {
        let (mut ejected, mut recovered, mut again) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(change) = self.book.poll_change() {
            match change {
                Change::Ejected { slot, symptom, is_relapse } => {
                    let is_spared = matches!(snapshot.health.of(slot), Standing::Spared);
                    let how = if is_spared { "fails and is asked all the same" } else { "is out" };
                    let line = format!("{} {how}: {symptom}", name(snapshot, slot));
                    if is_relapse { &mut again } else { &mut ejected }.push(line);
                }
                Change::Recovered { slot, after, is_relapse } => {
                    let (name, after_s) = (name(snapshot, slot), after.as_secs_f64());
                    let line = format!("{name} is back after {after_s:.1} s");
                    if is_relapse { &mut again } else { &mut recovered }.push(line);
                }
            }
        }
        let [ejected, recovered, again] =
            [ejected, recovered, again].map(|parts| listed(parts.into_iter()));
        HealthNews { ejected, recovered, again }
    }
}

/// The backend in `slot`; a snapshot has them in the order of their slots.
fn backend(snapshot: &Snapshot, slot: Slot) -> Option<&Backend> {
    let at = snapshot.backends.binary_search_by_key(&slot, |backend| backend.slot).ok()?;
    snapshot.backends.get(at)
}

fn name(snapshot: &Snapshot, slot: Slot) -> &str {
    backend(snapshot, slot).map_or("a backend that left", |backend| &backend.name)
}

/// Reports taken in before the other duties get their turn.
const REPORTS_PER_TURN: usize = 1024;
