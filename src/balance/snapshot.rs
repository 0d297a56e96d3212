//! The set of backends in force, as the control core broadcasts it.

use super::backend::Backend;
use super::health::{Standing, Standings};

/// Who composed a [`Snapshot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody yet.
    Nobody,
    /// The operator's `--backend` options.
    Static,
    /// The deployment agent.
    Agent,
}

/// All backends at one moment. Workers share it behind an `Arc` and never change it.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Grows by one with every broadcast; 0 is the empty set before the first.
    pub epoch: u64,
    /// Who said so.
    pub source: Source,
    /// One more than the largest slot number in use in this or any earlier snapshot.
    pub slots: usize,
    /// The backends, no slot twice. One that the agent dropped stays here as
    /// [`Sundown`](super::Category::Sundown) until its last request ended.
    pub backends: Vec<Backend>,
    /// How fit they are, as far as the cores have found out by themselves.
    pub health: Standings,
}

impl Snapshot {
    /// The empty set every worker starts from.
    pub const fn empty() -> Self {
        Self {
            epoch: 0,
            source: Source::Nobody,
            slots: 0,
            backends: Vec::new(),
            health: Standings::new(),
        }
    }

    /// Whether this backend of the set gets its share of the requests.
    pub fn has_share(&self, backend: &Backend) -> bool {
        let is_held_back = match self.health.of(backend.slot) {
            Standing::Out => true,
            Standing::OnTrial { worker, .. } => worker.is_some(),
            Standing::Up | Standing::Spared => false,
        };
        backend.is_eligible() && !is_held_back
    }

    /// Whether a request finds a backend.
    pub fn is_usable(&self) -> bool {
        self.backends.iter().any(|backend| self.has_share(backend))
    }
}
