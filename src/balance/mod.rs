//! Who gets the request: scores, the snapshot in force, and the pick. Pure.

mod alias;
mod backend;
mod backoff;
mod frame;
mod health;
mod pace;
mod picker;
mod retry;
mod roster;
mod snapshot;
mod tier;

pub use backend::{Backend, Category, Score, Slot, WARM_UP};
pub use backoff::Backoff;
pub use frame::{BACKENDS_MAX, Flaw, Frame, Item, Refusal, split_name};
pub use health::{
    Change, ERRANDS_MAX, ERRANDS_PER_SECOND, Errand, Finding, HealthBook, Outcome, PROBE_INTERVAL,
    REPORTS_MAX, ROW_MAX, Report, Standing, Standings, Symptom, Tally, Todo, Trial, Vital,
    WAIT_MAX, WAIT_MIN, out_max,
};
pub use pace::Pace;
pub use picker::{Choice, EXCLUDED_MAX, Picker};
pub use retry::{
    Failure, Obstacle, Phase, RETRIES_MAX, RETRIES_PER_SECOND_MIN, RetryBudget, Verdict,
};
pub use roster::{Roster, SLOTS_MAX, Taken};
pub use snapshot::{Snapshot, Source};

/// How a backend is picked (`--balance`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Balance {
    /// Score-weighted random, kept within each backend's fair share of what is in flight, and away from slow ones.
    #[default]
    Bounded,
    /// The better of two score-weighted draws, by requests in flight for their score.
    P2c,
    /// The better of two score-weighted draws, by requests in flight and response time.
    Latency,
    /// Score-weighted random and nothing else: exactly proportional, without memory.
    WeightedRandom,
}
