//! What is counted, and how it leaves the core. Pure.
//!
//! A worker adds to plain cells ([`Counters`], [`Figures`]); its tick copies the totals into its own [`Published`]
//! block with relaxed stores. Single writer, many readers, no read-modify-write anywhere.

pub mod codes;
pub mod histogram;
mod list;
pub mod slots;
pub mod text;

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use codes::{CODES, Codes};
use histogram::{Histogram, Reading, Shared};
use list::List;
use slots::{SharedSlots, SlotReading, Slots};

/// Everything a worker counts. One row each in [`METRICS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs)]
pub enum Count {
    Accepted,
    Steered,
    RefusedPerIp,
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
    PoolAdopted,
    PoolEvictions,
    Tunnels,
    PanicsContained,
    LogLinesDropped,
    CacheHits,
    CacheStale,
    CacheRevalidations,
    CacheCollapsed,
    CacheMisses,
    CacheBypasses,
    CacheStores,
    CacheFillsBroken,
    CacheEvicted,
    CacheExpired,
    CacheRemoved,
    CacheRefused,
    ReportsLost,
    BytesFromClients,
    BytesToClients,
}

/// Name (with a label where several counts are kinds of one thing; those stand together) and help text of each
/// [`Count`], in its order.
pub const METRICS: [(Count, &str, &str); COUNTS] = [
    (Count::Accepted, "balancer_connections_accepted_total", "Client connections accepted."),
    (
        Count::Steered,
        "balancer_connections_steered_total",
        "Client connections accepted here and given to a less busy core.",
    ),
    (
        Count::RefusedPerIp,
        "balancer_connections_refused_total{reason=\"per_ip\"}",
        "Client connections accepted and closed at once: their address had as many as it may have.",
    ),
    (
        Count::AcceptErrors,
        "balancer_accept_errors_total",
        "Accepts the kernel refused, descriptors running out above all.",
    ),
    (Count::Requests, "balancer_requests_received_total", "Request heads read whole."),
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
        Count::PoolAdopted,
        "balancer_upstream_adopted_total",
        "Of those, on a connection another core had left.",
    ),
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
    (
        Count::LogLinesDropped,
        "balancer_access_log_lines_dropped_total",
        "Lines of the access log that were not written: the writer was behind, or could not write.",
    ),
    (
        Count::CacheHits,
        "balancer_cache_hits_total",
        "Requests answered by a fresh stored response.",
    ),
    (
        Count::CacheStale,
        "balancer_cache_stale_total",
        "Requests answered by a stale stored response, as RFC 5861 or the client allowed.",
    ),
    (
        Count::CacheRevalidations,
        "balancer_cache_revalidations_total",
        "Stored responses that the origin said still hold.",
    ),
    (
        Count::CacheCollapsed,
        "balancer_cache_collapsed_total",
        "Requests answered by the response another request was fetching.",
    ),
    (
        Count::CacheMisses,
        "balancer_cache_misses_total",
        "Requests the cache could have answered and sent forward.",
    ),
    (
        Count::CacheBypasses,
        "balancer_cache_bypasses_total",
        "Requests the cache does not concern itself with.",
    ),
    (Count::CacheStores, "balancer_cache_stores_total", "Responses that began to be stored."),
    (
        Count::CacheFillsBroken,
        "balancer_cache_fills_broken_total",
        "Bodies whose storing ended before they did, behind their client's back.",
    ),
    (
        Count::CacheEvicted,
        "balancer_cache_evicted_total",
        "Stored responses that made room for others.",
    ),
    (
        Count::CacheExpired,
        "balancer_cache_expired_total",
        "Stored responses collected when they were past every use.",
    ),
    (
        Count::CacheRemoved,
        "balancer_cache_removed_total",
        "Stored responses removed by a purge or by their origin's word.",
    ),
    (
        Count::CacheRefused,
        "balancer_cache_refused_total",
        "Responses the store did not take: too large, too late or overtaken by an invalidation.",
    ),
    (
        Count::ReportsLost,
        "balancer_health_reports_lost_total",
        "Findings of a core that the control core was too busy to hear.",
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

    /// Takes over a total that is counted elsewhere.
    pub fn set(&self, count: Count, total: u64) {
        self.0[count as usize].set(total);
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

/// What a core counts beside its [`Counters`]: by code, by reason, by backend, and in time.
#[derive(Debug, Default)]
pub struct Figures {
    /// Requests that ended with an answer, by its status code.
    pub codes: Codes,
    /// From the first byte of a request to the last of its answer.
    pub request: Histogram,
    /// From the choice of a backend to its whole response head.
    pub first_byte: Histogram,
    /// Waiting because every backend was busy.
    pub queue_wait: Histogram,
    /// Answers of our own, by reason.
    pub refusals: Tally<REFUSALS_MAX>,
    /// Failures of backends, by reason.
    pub faults: Tally<{ FAULTS.len() }>,
    /// By backend.
    pub slots: RefCell<Slots>,
}

/// Counts by a number whose meaning its owner knows; those beyond the end share the last.
#[derive(Debug)]
pub struct Tally<const N: usize>([Cell<u64>; N]);

impl<const N: usize> Tally<N> {
    /// One more of `kind`.
    pub fn count(&self, kind: usize) {
        let cell = &self.0[kind.min(N - 1)];
        cell.set(cell.get().wrapping_add(1));
    }
}

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self([const { Cell::new(0) }; N])
    }
}

/// What a core has right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Client connections open.
    pub connections: u64,
    /// Requests in flight to backends.
    pub in_flight: u64,
    /// Requests that wait because every backend is busy.
    pub queue_depth: u64,
    /// Idle connections to backends: the core's own, and its part of those that any core may have.
    pub pool_idle: u64,
    /// Memory the core's part of the cache holds.
    pub cache_bytes: u64,
    /// Keys in it.
    pub cache_entries: u64,
    /// Responses on their way into it.
    pub cache_fills: u64,
}

/// A kind of duration that cores measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// See [`Figures::request`].
    Request,
    /// See [`Figures::first_byte`].
    FirstByte,
    /// See [`Figures::queue_wait`].
    QueueWait,
}

impl Span {
    /// All of them.
    pub const ALL: [Self; SPANS] = [Self::Request, Self::FirstByte, Self::QueueWait];
}

/// Kinds of durations.
pub const SPANS: usize = 3;
/// Room for the reasons of our own answers.
pub const REFUSALS_MAX: usize = 96;
/// Reasons of faults: how far the request had come, and what happened. What was malformed is told to the client.
pub const FAULTS: [&str; 18] = [
    "connect/refused",
    "connect/unreachable",
    "connect/timeout",
    "connect/reset",
    "connect/closed",
    "connect/malformed",
    "head/refused",
    "head/unreachable",
    "head/timeout",
    "head/reset",
    "head/closed",
    "head/malformed",
    "body/refused",
    "body/unreachable",
    "body/timeout",
    "body/reset",
    "body/closed",
    "body/malformed",
];

/// What a core that has a connection to give away looks at: on a line of its own, so that reading it costs one, and
/// never older than the last change.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Front {
    /// The one figure that other cores change, too: they take a place before they send a connection there, so that no
    /// two take the last one.
    connections: AtomicU64,
    busy_percent: AtomicU64,
    is_open: AtomicBool,
}

/// What one core lets the others see: written by its tick alone (but for the `Front`), relaxed, on its own cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct Published {
    front: Front,
    counters: [AtomicU64; COUNTS],
    /// Epoch of the snapshot this core applies.
    epoch: AtomicU64,
    total_in_flight: AtomicU64,
    queue_depth: AtomicU64,
    pool_idle: AtomicU64,
    cache_bytes: AtomicU64,
    cache_entries: AtomicU64,
    cache_fills: AtomicU64,
    /// Monotonic time of the last tick in ns.
    beat_ns: AtomicU64,
    /// How long the core had slept by then in ns.
    slept_ns: AtomicU64,
    codes: [AtomicU64; CODES],
    spans: [Shared; SPANS],
    refusals: [AtomicU64; REFUSALS_MAX],
    faults: [AtomicU64; FAULTS.len()],
    slots: SharedSlots,
    in_flight: List,
    paces: List,
}

impl Published {
    /// A block with room for `slots` backends.
    pub fn new(slots: usize) -> Self {
        Self {
            front: Front::default(),
            counters: [const { AtomicU64::new(0) }; COUNTS],
            epoch: AtomicU64::new(0),
            total_in_flight: AtomicU64::new(0),
            queue_depth: AtomicU64::new(0),
            pool_idle: AtomicU64::new(0),
            cache_bytes: AtomicU64::new(0),
            cache_entries: AtomicU64::new(0),
            cache_fills: AtomicU64::new(0),
            beat_ns: AtomicU64::new(0),
            slept_ns: AtomicU64::new(0),
            codes: [const { AtomicU64::new(0) }; CODES],
            spans: [const { Shared::new() }; SPANS],
            refusals: [const { AtomicU64::new(0) }; REFUSALS_MAX],
            faults: [const { AtomicU64::new(0) }; FAULTS.len()],
            slots: SharedSlots::new(slots),
            in_flight: List::new(slots),
            paces: List::new(slots),
        }
    }

    /// Copies the totals out. Called by the owning core only.
    pub fn store_counters(&self, counters: &Counters) {
        for (shared, own) in self.counters.iter().zip(&counters.0) {
            shared.store(own.get(), Ordering::Relaxed);
        }
    }

    /// Copies out what changed. Called by the owning core only.
    pub fn store_figures(&self, figures: &Figures) {
        let store = |(out, own): (&AtomicU64, u64)| out.store(own, Ordering::Relaxed);
        self.codes.iter().zip(figures.codes.totals()).for_each(store);
        self.refusals.iter().zip(figures.refusals.0.iter().map(Cell::get)).for_each(store);
        self.faults.iter().zip(figures.faults.0.iter().map(Cell::get)).for_each(store);
        let spans = [&figures.request, &figures.first_byte, &figures.queue_wait];
        self.spans.iter().zip(spans).for_each(|(out, own)| own.store(out));
        figures.slots.borrow_mut().store(&self.slots);
    }

    /// Counts one client connection more, unless there are `max` already. Called by any core.
    pub fn take_place(&self, max: u64) -> bool {
        let more = |n: u64| (n < max).then_some(n + 1);
        self.front.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Counts one client connection less and returns how many there were. Called by who took the place, or for it.
    pub fn give_place(&self) -> u64 {
        let before = self.front.connections.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a place was given back that nobody took");
        before
    }

    /// How busy the core was of late. Called by the owning core only.
    pub fn store_busy_percent(&self, percent: u64) {
        self.front.busy_percent.store(percent, Ordering::Relaxed);
    }

    /// Whether the core takes connections from others and gives them some. One that says no has given its last
    /// (release: who reads it finds what was given). Called by the owning core only.
    pub fn store_is_open(&self, is_open: bool) {
        self.front.is_open.store(is_open, Ordering::Release);
    }

    /// All but the connections, which are counted as they come and go. Called by the owning core only.
    pub fn store_gauges(&self, gauges: Gauges) {
        self.total_in_flight.store(gauges.in_flight, Ordering::Relaxed);
        self.queue_depth.store(gauges.queue_depth, Ordering::Relaxed);
        self.pool_idle.store(gauges.pool_idle, Ordering::Relaxed);
        self.cache_bytes.store(gauges.cache_bytes, Ordering::Relaxed);
        self.cache_entries.store(gauges.cache_entries, Ordering::Relaxed);
        self.cache_fills.store(gauges.cache_fills, Ordering::Relaxed);
    }

    /// Called by the owning core only.
    pub fn store_beat(&self, now_ns: u64) {
        self.beat_ns.store(now_ns, Ordering::Relaxed);
    }

    /// How long the core has slept by its beat. Called by the owning core only.
    pub fn store_slept(&self, ns: u64) {
        self.slept_ns.store(ns, Ordering::Relaxed);
    }

    /// Where the rows of newly listed backends are made. Called by the owning core only.
    pub const fn slots(&self) -> &SharedSlots {
        &self.slots
    }

    /// Replaces the requests in flight: slots that have any, none twice, and how many. Called by the owning core only.
    pub fn store_in_flight(&self, figures: impl Iterator<Item = (u32, u32)>) {
        self.in_flight.store(figures);
    }

    /// Replaces what is known of response times: slots of which anything is, none twice, each with what the
    /// picker packed. Called by the owning core only.
    pub fn store_paces(&self, figures: impl Iterator<Item = (u32, u32)>) {
        self.paces.store(figures);
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

    /// Client connections this core has now, with those on their way to it from another core.
    pub fn connections(&self) -> u64 {
        self.front.connections.load(Ordering::Relaxed)
    }

    /// Share of the last tenth of a second in which the core did not sleep; of the last second, if it idles.
    pub fn busy_percent(&self) -> u64 {
        self.front.busy_percent.load(Ordering::Relaxed)
    }

    /// Whether the core takes connections from others and gives them some.
    pub fn is_open(&self) -> bool {
        self.front.is_open.load(Ordering::Acquire)
    }

    /// What the core had at the last tick.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            connections: self.connections(),
            in_flight: self.total_in_flight.load(Ordering::Relaxed),
            queue_depth: self.queue_depth.load(Ordering::Relaxed),
            pool_idle: self.pool_idle.load(Ordering::Relaxed),
            cache_bytes: self.cache_bytes.load(Ordering::Relaxed),
            cache_entries: self.cache_entries.load(Ordering::Relaxed),
            cache_fills: self.cache_fills.load(Ordering::Relaxed),
        }
    }

    /// Monotonic time of the last tick in ns.
    pub fn beat_ns(&self) -> u64 {
        self.beat_ns.load(Ordering::Relaxed)
    }

    /// How long the core had slept by its last tick in ns.
    pub fn slept_ns(&self) -> u64 {
        self.slept_ns.load(Ordering::Relaxed)
    }

    /// Answers by code at the last tick, in the order of [`codes::LABELS`].
    pub fn codes(&self) -> [u64; CODES] {
        std::array::from_fn(|code| self.codes[code].load(Ordering::Relaxed))
    }

    /// Adds the durations of one kind at the last tick to `reading`.
    pub fn add_span(&self, span: Span, reading: &mut Reading) {
        reading.add(&self.spans[span as usize]);
    }

    /// Answers of our own by reason at the last tick.
    pub fn refusals(&self) -> [u64; REFUSALS_MAX] {
        std::array::from_fn(|reason| self.refusals[reason].load(Ordering::Relaxed))
    }

    /// Failures of backends by reason at the last tick.
    pub fn faults(&self) -> [u64; FAULTS.len()] {
        std::array::from_fn(|reason| self.faults[reason].load(Ordering::Relaxed))
    }

    /// A backend's totals at the last tick, if this core ever heard of it.
    pub fn slot(&self, slot: usize) -> Option<SlotReading> {
        self.slots.read(slot)
    }

    /// Calls `each` with every slot that had requests in flight at the last tick, and how many. `false` when the owner
    /// was at that tick just then: some figures may be older than others, a slot may be missing or come twice.
    pub fn read_in_flight(&self, each: impl FnMut(u32, u32)) -> bool {
        self.in_flight.read(each)
    }

    /// The same of what was known of response times.
    pub fn read_paces(&self, each: impl FnMut(u32, u32)) -> bool {
        self.paces.read(each)
    }
}
