//! One stored response as the store keeps it: its policy, its head, and what selected it (RFC 9111 §3, §4).
//!
//! Decides: whether it may answer a request now ([`Query::judge`]), and the word for why not ([`Query::why`]). The
//! body is the store's.

use super::status::Why;
use super::store::Use;
use super::{CacheMode, Policy, RequestDirectives, StoredHead, Verdict, vary};
use crate::http::Fields;
use crate::time::WallTime;

/// What is kept of a response besides its body.
#[derive(Clone, Debug)]
pub struct Representation {
    policy: Policy,
    head: Box<[u8]>,
    selection: Box<[u8]>,
    length: Option<u64>,
}

impl Representation {
    /// `head` as [`super::stored::write`] wrote it, `selection` as [`vary::write`] did; `length` is that of the body
    /// where its framing told it.
    pub fn new(policy: Policy, head: &[u8], selection: &[u8], length: Option<u64>) -> Self {
        Self { policy, head: head.into(), selection: selection.into(), length }
    }

    /// What decides about its reuse.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its head.
    pub const fn head(&self) -> StoredHead<'_> {
        StoredHead::new(&self.head)
    }

    /// What it was selected by.
    pub const fn selection(&self) -> &[u8] {
        &self.selection
    }

    /// The length of the body, if it was told before the body came.
    pub const fn length(&self) -> Option<u64> {
        self.length
    }

    /// Bytes it owns besides itself.
    pub const fn owned_bytes(&self) -> u64 {
        (self.head.len() + self.selection.len()) as u64
    }

    /// The same response, asked for anew before every use.
    pub fn invalidated(&self) -> Self {
        let mut changed = self.clone();
        changed.policy.invalidate();
        changed
    }
}

/// What a request asks of stored responses.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Its directives.
    pub asked: &'a RequestDirectives,
    /// Its fields.
    pub fields: &'a Fields,
    /// The bytes they lie in.
    pub bytes: &'a [u8],
    /// How alike two selections must be.
    pub mode: CacheMode,
    /// When.
    pub now: WallTime,
}

impl Query<'_> {
    /// Whether a stored response answers the request. `scratch` is overwritten.
    pub fn judge(&self, stored: &Representation, scratch: &mut Vec<u8>) -> Use {
        if !vary::matches(&stored.selection, self.fields, self.bytes, self.mode, scratch) {
            return Use::No;
        }
        match stored.policy.verdict(self.asked, self.now) {
            Verdict::Fresh | Verdict::StaleAccepted => Use::Serve,
            Verdict::StaleWhileRevalidate => Use::ServeAndRefill,
            Verdict::Validate { .. } => Use::Refill,
        }
    }

    /// Why the request goes forward, when of the stored responses to its target (`has_variants`) `selected` is the
    /// one it would get.
    pub fn why(&self, has_variants: bool, selected: Option<&Representation>) -> Why {
        match selected.map(|stored| stored.policy.verdict(self.asked, self.now)) {
            None if has_variants => Why::VaryMiss,
            None => Why::UriMiss,
            Some(Verdict::Validate { is_fresh: true, .. }) => Why::Request,
            Some(_) => Why::Stale,
        }
    }
}
