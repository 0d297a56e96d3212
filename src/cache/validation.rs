//! Asking the origin whether what is stored still holds, and taking in its answer (RFC 9111 §4.3).
//!
//! Decides: which preconditions we send, which stored response an answer speaks of, what becomes of its head.
//! We ask with our own validators only; what the client asked is evaluated afterwards
//! ([`super::conditional`]).

use super::conditional::is_weakly_same;
use super::policy::{self, Storability, Times};
use super::stored::{Kept, StoredHead};
use super::{CacheSettings, date, freshness};
use crate::http::forward::{copy, line};
use crate::http::{FieldKind, RequestHead, ResponseHead};
use crate::time::DATE_BYTES;

/// Appends If-None-Match and If-Modified-Since with the validators of a stored response to `out`, as lines
/// for [`crate::http::forward::request_head_asking`]. Nothing if it has none.
pub fn write_conditions(out: &mut Vec<u8>, stored: StoredHead) {
    if let Some(tag) = stored.first(FieldKind::ETag).filter(|tag| can_ask_with(tag)) {
        line(out, b"If-None-Match", tag);
    }
    if let Some(modified) = stored.first(FieldKind::LastModified)
        && date::parse(modified, 0).is_some()
    {
        line(out, b"If-Modified-Since", modified);
    }
}

/// True for an entity tag (RFC 9110 §8.8.3), or what is taken for one and cannot be a list.
pub(super) fn can_ask_with(tag: &[u8]) -> bool {
    let opaque = tag.strip_prefix(b"W/").unwrap_or(tag);
    match opaque {
        [b'"', inside @ .., b'"'] => !inside.contains(&b'"'),
        bare => !bare.is_empty() && bare != b"*" && !bare.contains(&b','),
    }
}

/// What a 304, or a 200 to HEAD, means for a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshening {
    /// It is this one: [`freshen`] it.
    Update,
    /// It is not this one. After a 304 to our own preconditions the origin must be asked without any; after
    /// a HEAD the stored response is to be taken for stale ([`super::Policy::invalidate`]).
    Differs,
    /// It tells nothing.
    Nothing,
}

/// Whether a 304 speaks of this stored response (RFC 9111 §4.3.4); of several ask for the newest first.
pub fn not_modified_effect(stored: StoredHead, answer: &ResponseHead, bytes: &[u8]) -> Freshening {
    let tag = stored.first(FieldKind::ETag);
    let modified = stored.first(FieldKind::LastModified);
    let is_update = match answer.fields.first(FieldKind::ETag, bytes) {
        Some(strong) if !strong.starts_with(b"W/") => tag == Some(strong),
        Some(weak) => tag.is_some_and(|tag| is_weakly_same(tag, weak)),
        None => match answer.fields.first(FieldKind::LastModified, bytes) {
            Some(date) => modified == Some(date),
            // Our preconditions named this response and no other.
            None => true,
        },
    };
    if is_update { Freshening::Update } else { Freshening::Differs }
}

/// What the answer to a forwarded HEAD means for a stored response to GET (RFC 9111 §4.3.5).
pub fn head_effect(
    stored: StoredHead,
    body_bytes: u64,
    answer: &ResponseHead,
    bytes: &[u8],
    declared_length: Option<u64>,
) -> Freshening {
    if answer.status != 200 || !stored.status_line().starts_with(b"HTTP/1.1 200") {
        return Freshening::Nothing;
    }
    let agrees = |kind| {
        let given = answer.fields.first(kind, bytes);
        given.is_none() || given == stored.first(kind)
    };
    let is_same = agrees(FieldKind::ETag)
        && agrees(FieldKind::LastModified)
        && declared_length.is_none_or(|length| length == body_bytes);
    if is_same { Freshening::Update } else { Freshening::Differs }
}

/// Appends the updated head of a stored response to `out` (RFC 9111 §3.2): every field of the answer replaces
/// those of its name, but for Content-Length, Content-Encoding and Content-Range, which belong to the body we
/// hold, and what is never stored. Date is the answer's, or `date`, the time it came.
pub fn merge(
    out: &mut Vec<u8>,
    stored: StoredHead,
    answer: &ResponseHead,
    bytes: &[u8],
    date: &[u8; DATE_BYTES],
) {
    let kept = Kept::of(answer, bytes);
    let updates = |kind| !matches!(kind, FieldKind::ContentEncoding | FieldKind::ContentRange);
    out.extend_from_slice(stored.status_line());
    for field in stored.fields() {
        let is_replaced = field.kind == FieldKind::Date
            || updates(field.kind)
                && answer.fields.lines().iter().any(|new| {
                    new.kind == field.kind
                        && new.name.of(bytes).eq_ignore_ascii_case(field.name)
                        && kept.has(new)
                });
        if !is_replaced {
            out.extend_from_slice(field.line);
        }
    }
    for field in answer.fields.lines() {
        if updates(field.kind) && kept.has(field) {
            copy(out, field, bytes);
        }
    }
    if !answer.fields.has(FieldKind::Date) {
        line(out, b"Date", date);
    }
    out.extend_from_slice(b"\r\n");
}

/// What [`freshen`] works on besides the head of the request.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The 304, or the 200 to HEAD.
    pub head: &'a ResponseHead,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// When it came.
    pub times: Times,
    /// That time as Date prints it.
    pub date: &'a [u8; DATE_BYTES],
}

/// Appends the updated head to `out`, which must be empty, and decides anew whether it is stored and for how
/// long. A No still serves the request at hand, once.
pub fn freshen(
    out: &mut Vec<u8>,
    request: &RequestHead,
    request_bytes: &[u8],
    stored: StoredHead,
    answer: &Answer,
    settings: &CacheSettings,
) -> Storability {
    debug_assert!(out.is_empty());
    merge(out, stored, answer.head, answer.bytes, answer.date);
    let mut head = ResponseHead::default();
    if head.parse(out).is_err() {
        // Both heads were parsed before, and lines are only moved: cannot be, and would serve nothing.
        debug_assert!(false, "a merged head is a head");
        return Storability::No(policy::Unstorable::Status);
    }
    head.version = answer.head.version;
    let age_secs = freshness::age_secs(&answer.head.fields, answer.bytes);
    policy::judge_aged(request, request_bytes, &head, out, age_secs, answer.times, settings)
}
