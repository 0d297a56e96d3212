//! What the book wants done and what it tells.

use std::time::Duration;

use super::standing::{Standing, Symptom};
use crate::balance::Slot;
use crate::time::Instant;

/// Something to be done outside, and told by [`HealthBook::done`](super::HealthBook::done) how it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Todo {
    /// To whom.
    pub slot: Slot,
    /// To be given back with the outcome.
    pub episode: u64,
    /// What.
    pub errand: Errand,
}

/// What is done outside the request traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Connect to it, and close.
    Connect,
    /// Ask it how it is.
    Check,
}

/// How an errand went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Good,
    /// Not so.
    Bad(Symptom),
    /// It could not be run: descriptors ran out, or the like.
    Unknown,
}

/// A change of somebody's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is ill.
    Ejected {
        /// Who.
        slot: Slot,
        /// How it shows.
        symptom: Symptom,
        /// Whether that happened only just before, too.
        is_relapse: bool,
    },
    /// It is well again.
    Recovered {
        /// Who.
        slot: Slot,
        /// How long it was ill.
        after: Duration,
        /// Whether it had recovered only just before, too.
        is_relapse: bool,
    },
}

/// The health of one backend, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vital {
    /// Whether it gets requests.
    pub standing: Standing,
    /// `well`, `unreachable`, `failing`, `on_trial` or `unfit`.
    pub condition: &'static str,
    /// Since when.
    pub since: Instant,
    /// How its illness shows; the last one's when it is well.
    pub symptom: Option<Symptom>,
    /// How often it fell ill.
    pub ejections: u64,
}

/// What the book has counted since its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Tally {
    pub reports: u64,
    pub ejections: u64,
    pub recoveries: u64,
    pub probes: u64,
    pub checks: u64,
    pub trials: u64,
}
