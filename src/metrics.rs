//! What is counted, and how it leaves the core. Pure.
//!
//! A worker adds to plain cells ([`Counters`]); its tick copies the totals into its own [`Published`] block
//! with relaxed stores. Single writer, many readers, no read-modify-write anywhere.

mod in_flight;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use in_flight::InFlight;

/// Everything a worker counts. One row each in [`METRICS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs)]
pub enum Count {
    Accepted,
    AcceptErrors,
    Requests,
    AnswersOwn,
    Rejects,
    ClientsGone,
    Faults,
    Retries,
    Queued,
    Connects,
    ConnectsFailed,
    PoolHits,
    PoolEvictions,
    Tunnels,
    PanicsContained,
    BytesFromClients,
    BytesToClients,
}

/// Name and help text of each [`Count`], in its order.
pub const METRICS: [(Count, &str, &str); COUNTS] = [
    (Count::Accepted, "balancer_connections_accepted_total", "Client connections accepted."),
    (
        Count::AcceptErrors,
        "balancer_accept_errors_total",
        "Accepts the kernel refused, descriptors running out above all.",
    ),
    (Count::Requests, "balancer_requests_total", "Request heads read whole."),
    (Count::AnswersOwn, "balancer_own_answers_total", "Answers written by the balancer itself."),
    (Count::Rejects, "balancer_rejects_total", "Requests refused for what the client sent."),
    (
        Count::ClientsGone,
        "balancer_clients_gone_total",
        "Requests whose client left or fell silent.",
    ),
    (
        Count::Faults,
        "balancer_upstream_faults_total",
        "Failures of a backend: connect, head, or body.",
    ),
    (Count::Retries, "balancer_retries_total", "Requests sent once more after a fault."),
    (
        Count::Queued,
        "balancer_queued_total",
        "Requests that waited because every backend was busy.",
    ),
    (Count::Connects, "balancer_upstream_connects_total", "Connections opened to backends."),
    (
        Count::ConnectsFailed,
        "balancer_upstream_connects_failed_total",
        "Connections to backends that did not come about.",
    ),
    (Count::PoolHits, "balancer_upstream_reused_total", "Requests sent on a pooled connection."),
    (
        Count::PoolEvictions,
        "balancer_upstream_evicted_total",
        "Idle connections dropped for a FIN, stray bytes, age or want of room.",
    ),
    (Count::Tunnels, "balancer_tunnels_total", "Connections upgraded to a tunnel."),
    (
        Count::PanicsContained,
        "balancer_panics_contained_total",
        "Panics confined to one connection.",
    ),
    (Count::BytesFromClients, "balancer_client_bytes_received_total", "Bytes read from clients."),
    (Count::BytesToClients, "balancer_client_bytes_sent_total", "Bytes written to clients."),
];

const COUNTS: usize = Count::BytesToClients as usize + 1;

/// One core's counters.
#[derive(Debug)]
pub struct Counters([Cell<u64>; COUNTS]);

impl Counters {
    /// All zero.
    pub const fn new() -> Self {
        Self([const { Cell::new(0) }; COUNTS])
    }

    /// Adds `n` to `count`.
    pub fn add(&self, count: Count, n: u64) {
        let cell = &self.0[count as usize];
        cell.set(cell.get().wrapping_add(n));
    }

    /// The total so far.
    pub fn get(&self, count: Count) -> u64 {
        self.0[count as usize].get()
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

/// What one core lets the others see: written by its tick alone, relaxed, on its own cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct Published {
    counters: [AtomicU64; COUNTS],
    /// Epoch of the snapshot this core applies.
    epoch: AtomicU64,
    /// Client connections open.
    connections: AtomicU64,
    /// Monotonic time of the last tick in ns.
    beat_ns: AtomicU64,
    in_flight: InFlight,
}

impl Published {
    /// A block with room for `slots` backends.
    pub fn new(slots: usize) -> Self {
        Self {
            counters: [const { AtomicU64::new(0) }; COUNTS],
            epoch: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            beat_ns: AtomicU64::new(0),
            in_flight: InFlight::new(slots),
        }
    }

    /// Copies the totals out. Called by the owning core only.
    pub fn store_counters(&self, counters: &Counters) {
        for (shared, own) in self.counters.iter().zip(&counters.0) {
            shared.store(own.get(), Ordering::Relaxed);
        }
    }

    /// Called by the owning core only.
    pub fn store_connections(&self, open: u64) {
        self.connections.store(open, Ordering::Relaxed);
    }

    /// Called by the owning core only.
    pub fn store_beat(&self, now_ns: u64) {
        self.beat_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Replaces the requests in flight: slots that have any, none twice, and how many. Called by the owning core only.
    pub fn store_in_flight(&self, figures: impl Iterator<Item = (u32, u32)>) {
        self.in_flight.store(figures);
    }

    /// Says that from here on this core applies the snapshot of `epoch`, after its in-flight figures were stored
    /// (release: who reads the epoch sees them).
    pub fn store_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Epoch of the snapshot this core applies.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// A counter's total at the last tick.
    pub fn count(&self, count: Count) -> u64 {
        self.counters[count as usize].load(Ordering::Relaxed)
    }

    /// Client connections open at the last tick.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Monotonic time of the last tick in ns.
    pub fn beat_ns(&self) -> u64 {
        self.beat_ns.load(Ordering::Relaxed)
    }

    /// Calls `each` with every slot that had requests in flight at the last tick, and how many. `false` when the owner
    /// was at that tick just then: some figures may be older than others, a slot may be missing or come twice.
    pub fn read_in_flight(&self, each: impl FnMut(u32, u32)) -> bool {
        self.in_flight.read(each)
    }
}
