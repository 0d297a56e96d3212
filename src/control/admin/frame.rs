//! What `/live` and `/backends` say, as plain values that go to JSON and back: the page reads them, and `balancer top`.
//!
//! Times are in milliseconds or seconds, as their names say; shares and ratios are 0 to 1; what is not known is null.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a listener to `/live` is told first: the past.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The balancer's version.
    pub version: String,
    /// Where each row of the heat map begins, in milliseconds.
    pub rows_ms: Vec<f64>,
    /// The kernel's numbers of the worker cores.
    pub cores: Vec<usize>,
    /// The last five minutes at most, oldest first.
    pub seconds: Vec<Moment>,
    /// What happened, oldest first.
    pub events: Vec<Happening>,
}

/// One second of the whole process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Its end, in milliseconds of Unix time.
    pub at_ms: u64,
    /// Requests answered in it.
    pub requests: u64,
    /// Of those, with 5xx.
    pub errors: u64,
    /// Quantiles of how long they took.
    pub p50_ms: Option<f64>,
    /// The same.
    pub p99_ms: Option<f64>,
    /// How many took how long, by row; rows at the end in which there is nothing are left out.
    pub heat: Vec<u32>,
    /// Requests answered by each core.
    pub by_core: Vec<u32>,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    /// Counted from 1.
    pub number: u64,
    /// When, in milliseconds of Unix time.
    pub at_ms: u64,
    /// `link`, `set`, `health` or `process`.
    pub topic: String,
    /// One sentence.
    pub text: String,
}

/// What a listener to `/live` is told every second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// When, in milliseconds of Unix time.
    pub at_ms: u64,
    /// Since the start.
    pub uptime_s: u64,
    /// `starting`, `serving` or `draining`.
    pub stage: String,
    /// Requests answered a second, lately.
    pub rps: f64,
    /// Quantiles of how long requests took, lately.
    pub p50_ms: Option<f64>,
    /// The same.
    pub p99_ms: Option<f64>,
    /// The part of answers that were 5xx, lately; null without answers.
    pub error_ratio: Option<f64>,
    /// Client connections open.
    pub connections: u64,
    /// Requests in flight to backends.
    pub in_flight: u64,
    /// Requests that wait because every backend is busy.
    pub queue: u64,
    /// The agent link.
    pub agent: AgentView,
    /// Each worker core.
    pub cores: Vec<CoreView>,
    /// The backends, the busiest first when there are many.
    pub backends: Vec<BackendView>,
    /// How many backends there are.
    pub backends_total: usize,
    /// Every counter of the metrics page by its name, all cores together; those of the cache only if there is one.
    pub counters: BTreeMap<String, u64>,
    /// The last second.
    pub second: Moment,
    /// What happened since the last frame.
    pub events: Vec<Happening>,
}

/// The agent link and the set in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentView {
    /// `none` (no agent is configured), `connecting`, `up` or `down`.
    pub link: String,
    /// Its URL.
    pub url: Option<String>,
    /// Why it is down, in one word.
    pub why: Option<String>,
    /// For how long it has been up or down.
    pub since_s: Option<f64>,
    /// When it is dialled next.
    pub retry_s: Option<f64>,
    /// Since its last good frame.
    pub age_s: Option<f64>,
    /// The set in force.
    pub epoch: u64,
    /// Who said so: `nobody`, `static` or `agent`.
    pub source: String,
}

/// One worker core.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CoreView {
    /// The kernel's number of it.
    pub core: usize,
    /// Requests answered a second, lately.
    pub rps: f64,
    /// The part of the time it was busy, lately.
    pub busy: f64,
    /// Client connections.
    pub connections: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests that wait.
    pub queue: u64,
    /// Idle connections to backends.
    pub pool: u64,
    /// The epoch it applies.
    pub epoch: u64,
    /// Since its last sign of life.
    pub beat_s: f64,
    /// Its counters of the cache, by name; none without a cache.
    pub cache: BTreeMap<String, u64>,
}

/// One backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendView {
    /// As the agent or the operator wrote it.
    pub name: String,
    /// 0 to 100.
    pub score: f64,
    /// `INIT`, `LU`, `MU`, `HU` or `SUNDOWN`.
    pub category: String,
    /// `up`, `spared`, `out`, `on_trial`, `draining` or `unresolved`.
    pub state: String,
    /// Since when its health is what it is, and how its last illness showed; null when it was never ill.
    #[serde(default)]
    pub since_s: Option<f64>,
    /// The same.
    #[serde(default)]
    pub symptom: Option<String>,
    /// How often it ceased to work.
    #[serde(default)]
    pub ejections: u64,
    /// The share of the requests that its score asks for.
    pub wanted: f64,
    /// The share of the answers that it gave lately; null when nobody gave any.
    pub real: Option<f64>,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests answered a second, lately.
    pub rps: f64,
    /// Failures and 5xx answers a second, lately.
    pub errors_ps: f64,
    /// Requests answered since it was listed.
    pub requests: u64,
    /// Requests it failed since it was listed.
    pub faults: u64,
    /// Quantiles of the waits for its response heads, lately.
    pub p50_ms: Option<f64>,
    /// The same.
    pub p99_ms: Option<f64>,
    /// Where it is.
    pub addresses: Vec<String>,
}
