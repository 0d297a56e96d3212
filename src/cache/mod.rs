//! What an HTTP cache may do, as pure decisions (RFC 9111, 5861, 9211, 9213; RFC 9110 §13, §14).
//!
//! The way of a request: [`Plan::of_request`] says whether the cache concerns itself with it at all,
//! [`key`] names what it asks for, [`vary`] selects a variant, [`Policy::verdict`] says whether the stored
//! response may be used now, [`conditional::serve`] what of it the client needs, [`served`] writes the head.
//! The way of a response: [`policy::judge`] decides whether and for how long it is kept, [`stored::write`]
//! keeps its head, [`representation`] is what the [`store`] holds of it, [`validation`] asks whether it still holds and takes in the answer.
//!
//! Nobody here reads a clock, keeps a response or knows another core.

pub mod conditional;
pub mod date;
pub mod directives;
pub mod freshness;
pub mod key;
pub mod plan;
pub mod policy;
pub mod purge;
pub mod representation;
pub mod served;
pub mod status;
pub mod store;
pub mod stored;
pub mod targeted;
pub mod validation;
pub mod vary;

use std::time::Duration;

pub use conditional::Serve;
pub use directives::{RequestDirectives, ResponseDirectives};
pub use plan::{Bypass, Lookup, Plan};
pub use policy::{Policy, Storability, Times, Unstorable, Verdict};
pub use purge::Purge;
pub use representation::{Query, Representation};
pub use served::ServedWith;
pub use status::{CacheStatus, Forwarded};
pub use stored::StoredHead;

/// How far the RFC's permissions are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Where the RFC permits what often goes wrong with real origins, it is not done: a response with
    /// Set-Cookie is kept only if it says `public` or `s-maxage`, one that says nothing about its freshness
    /// is not kept for its validator alone, languages keep their order. Stale next to `s-maxage` is allowed
    /// where the origin wrote so.
    #[default]
    Safe,
    /// RFC 9111 as it stands, its permissions used.
    Rfc,
}

/// What an operator decides about the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// How far the RFC's permissions are used.
    pub mode: CacheMode,
    /// Freshness of a static file (by its extension) about whose freshness the origin says nothing; zero for
    /// none.
    pub static_ttl: Duration,
    /// The longest heuristic freshness (RFC 9111 §4.2.2); None for no heuristics.
    pub heuristic_max: Option<Duration>,
    /// How long after its freshness a response serves for an origin that fails, where the origin neither
    /// forbids it nor says how long itself (RFC 5861 §4).
    pub stale_if_error: Duration,
    /// Whether a client's Cache-Control can keep a stored response from being used. Its `no-store` is
    /// honoured for its own response in any case.
    pub honours_requests: bool,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            mode: CacheMode::Safe,
            static_ttl: Duration::from_secs(60),
            heuristic_max: Some(Duration::from_secs(24 * 60 * 60)),
            stale_if_error: Duration::from_secs(60),
            honours_requests: true,
        }
    }
}

impl CacheSettings {
    fn is_rfc(&self) -> bool {
        self.mode == CacheMode::Rfc
    }
}
