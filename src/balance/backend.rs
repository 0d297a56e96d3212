//! One place a request can go to, and what the deployment agent says of it.

use std::net::SocketAddr;
use std::sync::Arc;

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
}

impl Backend {
    /// Whether a new request may go there at all: not draining, and an address is known.
    pub fn is_eligible(&self) -> bool {
        self.category != Category::Sundown && !self.addresses.is_empty()
    }
}
