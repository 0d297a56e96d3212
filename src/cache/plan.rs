//! What the cache has to do with a request (RFC 9111 §4, §5.2.1).
//!
//! Decides: whether a stored response may be looked for, and what the client asked of it. Refuses to know
//! what is stored.

use super::directives::RequestDirectives;
use super::{CacheMode, CacheSettings};
use crate::http::{FieldKind, Method, RequestHead, RequestPlan};

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The cache looks away, both ways.
    Bypass(Bypass),
    /// A stored response may answer it, and its response may be stored.
    Lookup(Lookup),
    /// An unsafe method, or one we do not know: goes forward, and a success invalidates
    /// ([`super::key::each_invalid`]).
    Invalidate,
}

/// Why the cache looks away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// OPTIONS, TRACE: safe, but nothing to store.
    Method,
    /// A GET with a body, which no key holds.
    Body,
    /// A WebSocket handshake.
    Upgrade,
    /// No host is named (HTTP/1.0).
    NoHost,
    /// If-Match or If-Unmodified-Since: meant for the origin (RFC 9111 §4.3.2).
    Precondition,
    /// The client's `no-store`.
    NoStore,
}

impl Bypass {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Body => "body",
            Self::Upgrade => "upgrade",
            Self::NoHost => "no_host",
            Self::Precondition => "precondition",
            Self::NoStore => "no_store",
        }
    }
}

/// What the client asked of a stored response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts about one request")]
pub struct Lookup {
    /// Its directives; none if the settings do not honour them, but for `no-store` (see `may_store`) and
    /// `only-if-cached`, which spares the origin.
    pub asked: RequestDirectives,
    /// HEAD: a stored GET response answers it, its own response is not stored but may freshen one
    /// ([`super::validation::head_effect`]).
    pub is_head: bool,
    /// False if the response must not be stored whatever it says: HEAD, `no-store`.
    pub may_store: bool,
    /// Authorization: its response is rarely for others, so that nobody should wait for it.
    pub has_authorization: bool,
    /// If-None-Match or If-Modified-Since.
    pub has_conditions: bool,
    /// Range.
    pub has_range: bool,
}

impl Plan {
    /// The plan for a request, whose framing has been decided.
    pub fn of_request(
        head: &RequestHead,
        bytes: &[u8],
        framing: &RequestPlan,
        settings: &CacheSettings,
    ) -> Self {
        let fields = &head.fields;
        match head.method {
            Method::Get | Method::Head => {}
            Method::Options | Method::Trace => return Self::Bypass(Bypass::Method),
            _ => return Self::Invalidate,
        }
        if head.host.is_empty() {
            return Self::Bypass(Bypass::NoHost);
        }
        if !framing.framing.is_empty() {
            return Self::Bypass(Bypass::Body);
        }
        if framing.upgrade {
            return Self::Bypass(Bypass::Upgrade);
        }
        if fields.has(FieldKind::IfMatch) || fields.has(FieldKind::IfUnmodifiedSince) {
            return Self::Bypass(Bypass::Precondition);
        }
        let mut asked = RequestDirectives::default();
        let mut may_store = head.method == Method::Get;
        if fields.has(FieldKind::CacheControl) {
            let said = RequestDirectives::of(fields, bytes);
            if said.no_store && settings.honours_requests {
                return Self::Bypass(Bypass::NoStore);
            }
            may_store &= !said.no_store;
            asked = if settings.honours_requests {
                said
            } else {
                RequestDirectives { only_if_cached: said.only_if_cached, ..asked }
            };
        }
        Self::Lookup(Lookup {
            asked,
            is_head: head.method == Method::Head,
            may_store,
            has_authorization: fields.has(FieldKind::Authorization),
            has_conditions: fields.has(FieldKind::IfNoneMatch)
                || fields.has(FieldKind::IfModifiedSince),
            has_range: fields.has(FieldKind::Range) && head.method == Method::Get,
        })
    }

    /// True if a successful response of this method may be stored all the same: a POST in rfc mode, which
    /// [`super::policy::judge`] then looks at (RFC 9110 §9.3.3).
    pub fn may_store_unsafe(&self, head: &RequestHead, settings: &CacheSettings) -> bool {
        *self == Self::Invalidate && head.method == Method::Post && settings.mode == CacheMode::Rfc
    }
}
