//! The words of the [`Store`](super::Store): what it is told and what it answers.

use std::time::Duration;

use super::{Handle, Lease};
use crate::time::Instant;

/// What one shard may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Heads, bodies and index.
    pub bytes: u64,
    /// Keys; at least 1.
    pub entries: usize,
    /// How long a lease runs.
    pub lease: Duration,
    /// How long a key counts as uncacheable after its lease ran out.
    pub pause: Duration,
}

/// The caller's judgement on one stored object for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Another variant, or of no use to this request.
    No,
    /// Serve it.
    Serve,
    /// Serve it, and somebody should fetch anew behind the scenes.
    ServeAndRefill,
    /// Only after it was fetched or validated anew.
    Refill,
}

/// How far a request is taken that finds nothing it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// It fetches for all, or waits for who does.
    Any,
    /// The same if something is stored that could be validated; otherwise it goes on its own.
    IfStored,
    /// It goes on its own.
    Peek,
}

/// What a request is to do.
#[derive(Debug)]
pub enum Answer<P> {
    /// Serve this; with a lease, fetch it anew besides.
    Hit {
        /// Possibly still filling.
        object: Handle<P>,
        /// For the refill, when nobody else is at it.
        refill: Option<Lease>,
    },
    /// Somebody fetches it already: look again once released.
    Wait,
    /// Fetch it for all.
    Lease {
        /// To be given back.
        lease: Lease,
        /// What could be validated.
        stale: Option<Handle<P>>,
    },
    /// Fetch it for yourself, without a lease.
    Bypass {
        /// What could be validated, or served if the origin fails.
        stale: Option<Handle<P>>,
    },
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is whole and stored.
    Stored,
    /// It is found by lookups, and pinned until [`Store::poll`](super::Store::poll) has seen it whole.
    Filling(Fill),
    /// It is not in the store: relay it without.
    Refused(Refusal),
}

/// Why the store does not keep an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The lease had ended, by its deadline or an invalidation.
    LeaseOver,
    /// The key was invalidated after the fetch began.
    Invalidated,
    /// The body has broken off.
    Aborted,
    /// Past the cap of an object or key.
    TooLarge,
    /// Fills take all there is.
    Crowded,
    /// The fill is no longer under way: stored by a routine look, removed, or replaced by a later one.
    Over,
}

/// A fill that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fill(pub(super) u64);

/// How a lease ends without an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The response may not be stored: until then, requests for the key do not wait for each other.
    Uncacheable(Instant),
    /// The fetch failed or its client left: the next request takes over.
    Abandoned,
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the name of what it counts")]
pub struct Counters {
    pub hits: u64,
    pub misses: u64,
    pub waits: u64,
    pub bypassed: u64,
    pub stored: u64,
    pub replaced: u64,
    pub refused: u64,
    pub withdrawn: u64,
    pub evicted: u64,
    pub expired: u64,
    pub removed: u64,
    pub late_leases: u64,
}

/// What is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Pinned ones included.
    pub bytes: u64,
    /// Of keys with a fill under way.
    pub pinned_bytes: u64,
    /// Of bodies that have left and are still being read; not among `bytes`, but within the same budget.
    pub lingering_bytes: u64,
    /// Keys.
    pub entries: usize,
    /// Variants of all keys.
    pub objects: usize,
    /// Fills under way, or complete and not yet paid for.
    pub fills: usize,
    /// Leases that are out.
    pub leases: usize,
}
