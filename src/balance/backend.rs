//! One place a request can go to, and what the deployment agent says of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Instant;

/// A backend's number, given by the control core, stable for the backend's life and dense enough to
/// index a table. It is reused only after every worker has let go of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl Slot {
    /// The number as a table index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How much traffic a backend should get: 0 to 100, higher is better. Finite by construction.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Score(f64);

impl Score {
    /// `None` unless `value` is finite and within 0..=100.
    pub fn new(value: f64) -> Option<Self> {
        (value.is_finite() && (0.0..=100.0).contains(&value)).then_some(Self(value.abs()))
    }

    /// The number, 0.0 to 100.0.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// The score as an integer weight, in thousandths: 0 to 100 000. A positive score never becomes 0.
    pub fn weight(self) -> u32 {
        let thousandths = (self.0 * 1000.0).round() as u32;
        if self.0 > 0.0 { thousandths.max(1) } else { 0 }
    }
}

/// The agent's word on how busy a backend is (`utilization_category`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Just started.
    Init,
    /// Low utilization.
    Low,
    /// Medium utilization; also what an unknown word is taken for.
    Medium,
    /// High utilization.
    High,
    /// Draining: gets no new request.
    Sundown,
}

impl Category {
    /// The agent's own word for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Low => "LU",
            Self::Medium => "MU",
            Self::High => "HU",
            Self::Sundown => "SUNDOWN",
        }
    }
}

/// A backend as the workers know it: resolved, numbered, weighted.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Index into every per-backend table.
    pub slot: Slot,
    /// `name` or `name:port` as the agent or the operator wrote it.
    pub name: Arc<str>,
    /// `host:port` for a `Host` field when the client sent none.
    pub authority: Arc<str>,
    /// The weight.
    pub score: Score,
    /// The state.
    pub category: Category,
    /// Where to connect, all of them usable; empty while the name has never resolved.
    pub addresses: Arc<[SocketAddr]>,
    /// When it began to take part while it had just started; on every core the same.
    pub warming_since: Option<Instant>,
}

impl Backend {
    /// Whether a new request may go there at all: not draining, and an address is known.
    pub fn is_eligible(&self) -> bool {
        self.category != Category::Sundown && !self.addresses.is_empty()
    }

    /// Its score as an integer weight at `now`: one that has just started begins with a tenth, and has all of it
    /// [`WARM_UP`] later.
    pub fn weight(&self, now: Instant) -> u32 {
        let full = self.score.weight();
        match self.warming_since {
            Some(since) => warmed(full, now.since(since)),
            None => full,
        }
    }

    /// Whether its weight still grows.
    pub fn is_warming(&self, now: Instant) -> bool {
        self.warming_since.is_some_and(|since| now.since(since) < WARM_UP)
    }
}

/// What a backend of weight `full` gets `after` it began to take part. A positive weight never becomes 0.
pub(super) fn warmed(full: u32, after: Duration) -> u32 {
    let (after_ms, whole_ms) = (after.min(WARM_UP).as_millis() as u64, WARM_UP.as_millis() as u64);
    let tenths_of_whole = whole_ms + 9 * after_ms;
    (u64::from(full) * tenths_of_whole / (10 * whole_ms)).max(u64::from(full.min(1))) as u32
}

/// How long a backend that has just started gets less than its score says.
pub const WARM_UP: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_grows_from_a_tenth_to_the_whole() {
        let at = |ms| warmed(50_000, Duration::from_millis(ms));
        assert_eq!([0, 1, 2500, 5000, 9999].map(at), [5000, 5004, 16_250, 27_500, 49_995]);
        assert_eq!([10_000, 10_001, 1_000_000_000].map(at), [50_000; 3]);
        assert_eq!([0, 1, 7].map(|full| warmed(full, Duration::ZERO)), [0, 1, 1]);
    }
}
