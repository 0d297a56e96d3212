//! What the book knows of one backend.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Errand;
use super::standing::{ROW_MAX, Symptom};
use crate::time::Instant;

/// One backend's page.
#[derive(Debug)]
pub(super) struct Case {
    /// The book's counter when the backend came: errands that are older were for another one.
    pub born: u64,
    /// Of the first snapshot that can have it.
    pub epoch: u64,
    pub addresses: Arc<[SocketAddr]>,
    /// The last time its name was called.
    pub attendance: u64,
    pub condition: Condition,
    /// Changes with the condition.
    pub episode: u64,
    /// Which illness of the book's this is; 0 when it is well.
    pub illness: u64,
    /// When it fell ill, or recovered, or came.
    pub since: Instant,
    pub healed_at: Option<Instant>,
    pub symptom: Option<Symptom>,
    pub ejections: u64,
    pub row: Row,
    /// How long it is left out before the next trial.
    pub wait: Duration,
    /// When it is next connected to, checked, and when its term ends.
    pub probe_at: Option<Instant>,
    pub check_at: Option<Instant>,
    pub term: Option<Instant>,
    pub probed_at: Option<Instant>,
    pub is_checking: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Well,
    /// It cannot be connected to.
    Unreachable,
    /// It connects and does not answer well.
    Failing,
    /// The next request decides.
    OnTrial {
        number: u64,
        worker: u32,
        is_begun: bool,
    },
    /// It says itself that it is not fit.
    Unfit,
}

impl Condition {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Unreachable => "unreachable",
            Self::Failing => "failing",
            Self::OnTrial { .. } => "on_trial",
            Self::Unfit => "unfit",
        }
    }

    pub(super) fn is_trial(self, sought: u64) -> bool {
        matches!(self, Self::OnTrial { number, .. } if number == sought)
    }
}

impl Case {
    pub(super) fn new(born: u64, epoch: u64, addresses: Arc<[SocketAddr]>, now: Instant) -> Self {
        Self {
            born,
            epoch,
            addresses,
            attendance: 0,
            condition: Condition::Well,
            episode: born,
            illness: 0,
            since: now,
            healed_at: None,
            symptom: None,
            ejections: 0,
            row: Row::default(),
            wait: Duration::ZERO,
            probe_at: None,
            check_at: None,
            term: None,
            probed_at: None,
            is_checking: false,
        }
    }

    pub(super) fn is_well(&self) -> bool {
        self.condition == Condition::Well
    }

    /// When it is next connected to or checked.
    pub(super) fn errand_at(&self) -> Option<Instant> {
        self.probe_at.into_iter().chain(self.check_at).min()
    }

    /// Has it connected to as soon as may be.
    pub(super) fn probe_soon(&mut self, now: Instant) {
        let soonest = self.probed_at.map_or(now, |last| now.max(last + PROBE_INTERVAL));
        self.probe_at = Some(self.probe_at.map_or(soonest, |at| at.min(soonest)));
    }

    /// Another failure after a trial: twice the wait.
    pub(super) fn lengthen_wait(&mut self) -> Duration {
        self.wait = (2 * self.wait).clamp(WAIT_MIN, WAIT_MAX);
        self.wait
    }

    /// The errand that is due, with the next one planned.
    pub(super) fn begin_errand(
        &mut self,
        now: Instant,
        check_interval: Option<Duration>,
    ) -> Option<Errand> {
        if self.probe_at.is_some_and(|at| at <= now) {
            self.probed_at = Some(now);
            let goes_on = self.condition == Condition::Unreachable;
            self.probe_at = goes_on.then_some(now + PROBE_INTERVAL);
            return Some(Errand::Connect);
        }
        self.check_at = check_interval.map(|interval| now + interval);
        // One at a time, whatever the interval.
        let is_free = !std::mem::replace(&mut self.is_checking, true);
        is_free.then_some(Errand::Check)
    }

    /// A worker has sent the request that decides. Its word may be lost, so the wait for it has an end.
    pub(super) fn begin_trial(&mut self, now: Instant) {
        if let Condition::OnTrial { is_begun, .. } = &mut self.condition {
            *is_begun = true;
            self.term = Some(now + TRIAL_MAX);
        }
    }

    /// Whether something lies ahead that may bring it back.
    pub(super) fn has_prospect(&self) -> bool {
        self.errand_at().is_some() || self.term.is_some()
    }

    /// Whether it was ill only just now.
    pub(super) fn is_relapse(&self, now: Instant) -> bool {
        self.healed_at.is_some_and(|at| now.since(at) < RELAPSE)
    }
}

/// Failures since the last whole answer, as far as is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    /// The latest ones, oldest first.
    at: [Instant; ROW_MAX],
    len: usize,
}

impl Row {
    /// Adds a failure seen by somebody who had a whole answer at `answered_at`. True when the row is full.
    pub(super) fn push(&mut self, at: Instant, answered_at: Instant) -> bool {
        let mut kept = Self::default();
        for &before in &self.at[..self.len] {
            if before > answered_at && at.since(before) < ROW_SPAN && kept.len + 1 < ROW_MAX {
                kept.at[kept.len] = before;
                kept.len += 1;
            }
        }
        kept.at[kept.len] = at;
        kept.len += 1;
        *self = kept;
        self.len == ROW_MAX
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }
}

/// Pause between two connects to one backend, from the whole process.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// How long a failing backend is left out at first.
pub const WAIT_MIN: Duration = Duration::from_secs(1);
/// How long a failing backend is left out at most.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// Falling ill again within this time counts as the same trouble.
const RELAPSE: Duration = Duration::from_secs(30);
/// How long a request on trial may take to decide anything.
const TRIAL_MAX: Duration = Duration::from_secs(120);
/// Failures further apart than that are no row: successes on other cores are not known.
const ROW_SPAN: Duration = Duration::from_secs(120);
