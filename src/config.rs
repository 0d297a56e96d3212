//! What the operator asked for, validated and plain.
//!
//! [`Config`] is the whole process; [`ShardConfig`] is the part one worker needs, with the
//! process-wide limits already divided by the number of workers. Only `cli` knows where a value came from.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::access_log;
use crate::balance::{Balance, Score};
use crate::cache::CacheSettings;
use crate::http::{HeadLimits, Network};

/// The settings of one process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to listen on, in the order given; every worker listens on all of them.
    pub listen: Vec<SocketAddr>,
    /// Where the admin listener is; None when it is off.
    pub admin: Option<SocketAddr>,
    /// The access log; None when it is off.
    pub access_log: Option<AccessLogConfig>,
    /// Where a process that is to take over finds this one; None when none can.
    pub takeover: Option<Takeover>,
    /// Worker cores in ascending order, at least one.
    pub cores: Vec<usize>,
    /// The core that runs the agent link and the admin listener; may be one of `cores`.
    pub control_core: usize,
    /// The deployment agent, if one is to be dialled.
    pub agent: Option<AgentConfig>,
    /// Backends that do not depend on an agent.
    pub backends: Vec<StaticBackend>,
    /// Port of backends that name none; 1–65535.
    pub target_port: Option<u16>,
    /// Which core serves a connection.
    pub steer: Steer,
    /// How a backend is picked.
    pub balance: Balance,
    /// How backends are asked after their health, if they are.
    pub health: Option<HealthCheck>,
    /// The cache; None when it is off.
    pub cache: Option<CacheConfig>,
    /// Timeouts of a connection and a request.
    pub timeouts: Timeouts,
    /// Bounds on a message head.
    pub head: HeadLimits,
    /// Largest request body in bytes; larger ones are answered 413.
    pub body_bytes_max: Option<u64>,
    /// Client connections of the whole process; further ones wait in the backlog.
    pub connections_max: usize,
    /// Those of one address (of one /64) in the whole process, at least 1; further ones are closed. Proxies of ours may
    /// have any number.
    pub connections_per_ip_max: Option<u32>,
    /// Clients that are proxies of ours: what they say of those before them is believed, and nobody else. Without any,
    /// it is handed on with what we saw behind it.
    pub trusted_proxies: Vec<Network>,
    /// Requests the whole process may have in flight to one backend, at least 1.
    pub backend_inflight_max: Option<u32>,
    /// Requests per core that may wait because every backend is at that limit.
    pub queue_length_max: usize,
}

/// A place for the socket over which listeners are handed to another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// This path.
    At(PathBuf),
    /// This name in the runtime directory of the host, since nobody names another.
    Named(String),
}

/// How connections come to cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Steer {
    /// The kernel deals them out by a hash, and there they stay.
    None,
    /// The same, and a core that has clearly more than another gives new ones to it.
    #[default]
    Accept,
    /// The core on which the kernel received the first packet, and there they stay.
    Cpu,
}

/// Where lines about requests go, and how they look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// The file; None for standard output.
    pub path: Option<PathBuf>,
    /// How a line looks.
    pub format: access_log::Format,
}

/// Where the deployment agent is and how patiently it is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path and query of the WebSocket resource, beginning with `/`.
    pub path: String,
    /// First wait between two dials.
    pub backoff_min: Duration,
    /// Longest wait between two dials.
    pub backoff_max: Duration,
}

/// One `--backend NAME[:PORT][=SCORE]`.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticBackend {
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port; [`Config::target_port`] when absent.
    pub port: Option<u16>,
    /// Weight; 100 when not given.
    pub score: Score,
}

/// What the cache may hold, and how it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Keys; 1–10⁹.
    pub entries: u64,
    /// Heads, bodies and index, in bytes.
    pub bytes: u64,
    /// Bodies that may lie in files of their own, each with a descriptor; of the whole process, never divided.
    pub files_max: usize,
    /// What an operator decides about its semantics.
    pub settings: CacheSettings,
}

/// A health check of every backend: one `GET`, 2xx and 3xx are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Path and query, beginning with `/`.
    pub path: String,
    /// Pause between two checks of one backend.
    pub interval: Duration,
    /// From the connect to the whole response head.
    pub timeout: Duration,
}

/// How long we wait for whom. All are positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A request head, from its first byte to its last (408).
    pub header: Duration,
    /// A silent keep-alive connection between two requests (closed without a word).
    pub idle: Duration,
    /// A silent client in the middle of its request body (408).
    pub body: Duration,
    /// A connection to a backend.
    pub connect: Duration,
    /// The silence we bear from a backend: before its head 504, within its body a cut.
    pub request: Duration,
    /// A client that does not take its response.
    pub write: Duration,
    /// A tunnel in which nothing moves.
    pub tunnel: Duration,
    /// A request that waits because every backend is busy (503).
    pub queue: Duration,
    /// Requests in flight when we are told to stop.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            body: Duration::from_secs(10),
            connect: Duration::from_secs(2),
            request: Duration::from_secs(30),
            write: Duration::from_secs(30),
            tunnel: Duration::from_secs(3600),
            queue: Duration::from_secs(1),
            drain: Duration::from_secs(30),
        }
    }
}

/// A limit that is a constant, for people to read: what is bounded, by how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is bounded.
    pub what: &'static str,
    /// By how much.
    pub value: u64,
    /// Of what.
    pub unit: Unit,
}

/// What a [`Limit`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Ms,
}

impl Limit {
    /// At most so many.
    pub const fn count(what: &'static str, value: usize) -> Self {
        Self { what, value: value as u64, unit: Unit::Count }
    }

    /// At most so many bytes.
    pub const fn bytes(what: &'static str, value: usize) -> Self {
        Self { what, value: value as u64, unit: Unit::Bytes }
    }

    /// At most so long.
    pub const fn time(what: &'static str, value: Duration) -> Self {
        Self { what, value: value.as_millis() as u64, unit: Unit::Ms }
    }
}

/// One setting as it is in force and who said so, for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// The long flag, without its dashes.
    pub flag: &'static str,
    /// The environment variable; empty when there is none.
    pub env: &'static str,
    /// As it was written; the default's text when nobody wrote anything, empty when there is none.
    pub value: String,
    /// `flag`, `environment`, `.env line 3`, `default`.
    pub source: String,
}

/// The part of [`Config`] that one worker reads.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which worker this is, counted from 0 in core order.
    pub worker: usize,
    /// How a backend is picked.
    pub balance: Balance,
    /// Timeouts of a connection and a request.
    pub timeouts: Timeouts,
    /// Bounds on a message head.
    pub head: HeadLimits,
    /// Largest request body in bytes.
    pub body_bytes_max: Option<u64>,
    /// Client connections this worker holds at most, at least 1.
    pub connections_max: usize,
    /// See [`Config::trusted_proxies`].
    pub trusted_proxies: Vec<Network>,
    /// Requests the whole process may have in flight to one backend, at least 1.
    pub backend_inflight_max: Option<u32>,
    /// Requests that may wait here because every backend is at that limit.
    pub queue_length_max: usize,
    /// This worker's part of the cache; None when it is off.
    pub cache: Option<CacheConfig>,
}

impl Config {
    /// The share of worker number `worker` (counted from 0 in core order). Divided limits are at least 1.
    pub fn shard(&self, worker: usize) -> ShardConfig {
        let workers = self.cores.len().max(1);
        ShardConfig {
            worker,
            balance: self.balance,
            timeouts: self.timeouts,
            head: self.head,
            body_bytes_max: self.body_bytes_max,
            connections_max: (self.connections_max / workers).max(1),
            trusted_proxies: self.trusted_proxies.clone(),
            backend_inflight_max: self.backend_inflight_max,
            queue_length_max: self.queue_length_max,
            cache: self.cache.map(|cache| cache.share(workers as u64)),
        }
    }
}

impl CacheConfig {
    /// The part of one of `workers`: at least one entry, and room for one small object.
    pub fn share(&self, workers: u64) -> Self {
        Self {
            entries: (self.entries / workers).max(1),
            bytes: (self.bytes / workers).max(SHARE_BYTES_MIN),
            ..*self
        }
    }
}

/// A worker with less could keep nothing of a usual size.
const SHARE_BYTES_MIN: u64 = 64 * 1024;
