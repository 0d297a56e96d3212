//! The words in which workers and the control core speak of a backend's health.
//!
//! Up go [`Report`]s: what a worker met, once per finding and never once per request. Down come [`Standings`], inside
//! every [`Snapshot`](crate::balance::Snapshot): who gets requests, and how many reports of each worker that takes into
//! account. A worker that has taken a backend out by itself keeps it out until its own report is among them, so a
//! snapshot that was made before does not put the backend back.

use crate::balance::Slot;
use crate::time::Instant;

/// Whether a backend gets requests, by its health. What the agent says of it is another matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Standing {
    /// It gets its share.
    #[default]
    Up,
    /// It fails, and gets its share all the same: half of the set is out already, or everybody fails.
    Spared,
    /// It gets nothing.
    Out,
    /// How the next request to it goes decides.
    OnTrial {
        /// Never used twice, from 1.
        number: u64,
        /// The one that may send that request, and only one; `None`: everybody sends as if it were
        /// [`Spared`](Self::Spared), and the first word counts.
        worker: Option<u32>,
    },
}

impl Standing {
    /// One word for logs, metrics and the status page.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Spared => "spared",
            Self::Out => "out",
            Self::OnTrial { .. } => "on_trial",
        }
    }
}

/// Who is not [`Standing::Up`], and which reports that rests on.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Standings {
    /// Ascending by slot; whoever is missing is [`Standing::Up`].
    pub others: Vec<(Slot, Standing)>,
    /// By worker: the serial number of its last report that is taken into account. Missing: none.
    pub heard: Vec<u64>,
}

impl Standings {
    /// Everybody up, nothing heard.
    pub const fn new() -> Self {
        Self { others: Vec::new(), heard: Vec::new() }
    }

    /// The standing of one backend.
    pub fn of(&self, slot: Slot) -> Standing {
        let found = self.others.binary_search_by_key(&slot, |(slot, _)| *slot);
        found.map_or(Standing::Up, |at| self.others[at].1)
    }

    /// The last report of `worker` that is taken into account; 0 for none.
    pub fn heard_of(&self, worker: u32) -> u64 {
        self.heard.get(worker as usize).copied().unwrap_or(0)
    }
}

/// What one worker has to say of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which worker, counted from 0 in core order.
    pub worker: u32,
    /// Counts this worker's reports, from 1.
    pub serial: u64,
    /// Of the snapshot the worker applied: an older one may speak of another backend in that slot.
    pub epoch: u64,
    /// Of whom.
    pub slot: Slot,
    /// When it was met.
    pub at: Instant,
    /// What was met.
    pub finding: Finding,
}

/// The matter of a [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// No connection came about at any of its addresses. The worker sends it nothing more.
    Unreachable(Symptom),
    /// A try failed.
    Failed {
        /// How.
        symptom: Symptom,
        /// When this worker last had a whole answer from it; the origin of time for never.
        answered_at: Instant,
        /// It was the [`ROW_MAX`]th in a row here: the worker sends it nothing more.
        is_last_straw: bool,
    },
    /// A pooled connection ended under a request: the usual race with a backend that closes idle ones, or its death.
    Suspect(Symptom),
    /// A request went to a backend on trial.
    TrialBegun(u64),
    /// How the trial of that number went.
    Tried(u64, Trial),
}

impl Finding {
    /// Whether the worker has taken the backend out by itself and waits to hear what becomes of it.
    pub const fn is_claim(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Failed { is_last_straw: true, .. })
    }
}

/// How a trial went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// An answer came.
    Passed,
    /// None, or a bad one.
    Failed(Symptom),
    /// The client left before anything could be said.
    Undecided,
}

/// How a backend fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symptom {
    /// Nobody listens.
    Refused,
    /// There is no way to it.
    Unreachable,
    /// A connect was answered by a reset.
    ConnectReset,
    /// A connect came to nothing within its time.
    ConnectTimeout,
    /// A connect was overtaken by one to another backend that began later.
    Overtaken,
    /// It owed an answer, or a part of one, for too long.
    Silent,
    /// It reset a connection on which it owed something.
    Reset,
    /// It ended a connection on which it owed something.
    Closed,
    /// What it sent was not HTTP, or not unambiguous HTTP.
    Malformed,
    /// It answered a health check with that status.
    Status(u16),
}

impl Symptom {
    /// One word for logs, metrics and the status page.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Refused => "connect_refused",
            Self::Unreachable => "connect_unreachable",
            Self::ConnectReset => "connect_reset",
            Self::ConnectTimeout => "connect_timeout",
            Self::Overtaken => "connect_overtaken",
            Self::Silent => "silent",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::Status(_) => "check_status",
        }
    }

    /// Whether it could not even be connected to. One such finding is enough, [`Overtaken`](Self::Overtaken) apart: a
    /// lost packet looks like that, too.
    pub const fn is_of_connect(self) -> bool {
        matches!(
            self,
            Self::Refused
                | Self::Unreachable
                | Self::ConnectReset
                | Self::ConnectTimeout
                | Self::Overtaken
        )
    }
}

impl std::fmt::Display for Symptom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refused => "connections are refused",
            Self::Unreachable => "there is no way to it",
            Self::ConnectReset => "connections are reset",
            Self::ConnectTimeout | Self::Overtaken => "connections do not come about",
            Self::Silent => "it does not answer",
            Self::Reset => "it resets connections",
            Self::Closed => "it closes connections instead of answering",
            Self::Malformed => "its answers are malformed",
            Self::Status(status) => return write!(f, "its health check says {status}"),
        })
    }
}

/// Reports that may wait for the control core; further ones are lost, and counted.
pub const REPORTS_MAX: usize = 4096;
/// Failures without a whole answer in between that eject.
pub const ROW_MAX: usize = 3;

/// How many of a set of `n` may be out.
pub const fn out_max(n: usize) -> usize {
    n / 2
}
