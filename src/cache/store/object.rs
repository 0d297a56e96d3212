//! What is stored: one response under one key, shared by handle across cores and never changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::Generations;
use super::body::{Body, BodyState};
use crate::time::Instant;

/// A key and its keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// 64 bits, keyed per process.
    pub hash: u64,
    /// In full: compared on every hit.
    pub bytes: &'a [u8],
}

/// A handle. A core's [`L1`](super::L1) shares one of them among its requests.
pub type Handle<P> = Arc<Object<P>>;

/// A stored response.
#[derive(Debug)]
pub struct Object<P> {
    terms: Terms,
    key: Box<[u8]>,
    policy: P,
    body: Body,
    /// Set once by the home core when the store lets go of the object, for whatever reason. Relaxed: it frees memory
    /// early and saves some stale answers; what must hold is held by the generation.
    is_gone: AtomicBool,
    /// When its body grew last, in ns; 0 while nobody has said. Relaxed: an estimate.
    grown_ns: AtomicU64,
}

/// What the store itself needs to know of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The key's hash.
    pub hash: u64,
    /// The key's generation when the fetch began ([`Lease::generation`](super::Lease::generation)).
    pub generation: u64,
    /// Digest of the variant key: a later object with the same one takes this one's place.
    pub variant: u64,
    /// Bytes that the policy owns besides itself: the head, above all.
    pub head_bytes: u64,
    /// From then on it is of no use to anybody, not even stale.
    pub keep_until: Instant,
}

impl<P> Object<P> {
    /// A response to be stored under `key`. Its body may still be filling.
    pub fn new(terms: Terms, key: &[u8], policy: P, body: Body) -> Handle<P> {
        Arc::new(Self {
            terms,
            key: key.into(),
            policy,
            body,
            is_gone: AtomicBool::new(false),
            grown_ns: AtomicU64::new(0),
        })
    }

    /// What the store goes by.
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The full key.
    pub const fn key(&self) -> &[u8] {
        &self.key
    }

    /// What the semantics go by.
    pub const fn policy(&self) -> &P {
        &self.policy
    }

    /// The bytes.
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// Whether nothing has overtaken it: not invalidated, not let go, not broken off.
    pub fn is_usable(&self, generations: &Generations) -> bool {
        self.terms.generation == generations.load(self.terms.hash)
            && !self.is_gone.load(Ordering::Relaxed)
            && self.body.published().state != BodyState::Aborted
    }

    /// Its body has begun, grown or ended.
    pub fn note_growth(&self, now: Instant) {
        self.grown_ns.store(now.as_ns(), Ordering::Relaxed);
    }

    /// Whether its body is still coming and has not grown for `patience`: nobody new should wait for it.
    pub fn is_stalled(&self, now: Instant, patience: Duration) -> bool {
        let grown = Instant::from_ns(self.grown_ns.load(Ordering::Relaxed));
        self.body.published().state == BodyState::Filling && now.since(grown) > patience
    }

    /// Whether the store has let it go, or never took it: nobody will find it any more.
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// What it weighs, index and all. A body that is still coming weighs what it was declared to be: whoever joins its
    /// readers must not find later that there is no room for the rest.
    pub(super) fn weight(&self) -> u64 {
        let body_bytes = self.body.promised();
        let own = size_of::<Self>() as u64 + OVERHEAD_BYTES;
        let body_bytes = match self.body.file() {
            Some(_) => body_bytes.next_multiple_of(PAGE_BYTES) + FILE_OVERHEAD_BYTES,
            None => body_bytes,
        };
        own + self.key.len() as u64 + self.terms.head_bytes + body_bytes
    }

    /// It will not be stored: who fetches it learns that nobody will ask for it.
    pub fn give_up(&self) {
        self.let_go();
    }

    pub(super) fn let_go(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }
}

/// A file in memory holds whole pages, and the kernel keeps an inode and an open file for it.
const PAGE_BYTES: u64 = 4096;
const FILE_OVERHEAD_BYTES: u64 = 2048;
/// Beside the object itself: the counts of two `Arc`s, the body's cells, slab entry, queue node, index and ghost slots,
/// and what the allocator adds to five blocks.
pub const OVERHEAD_BYTES: u64 = 384;
