//! What of a stored response a client needs (RFC 9110 §13, §14; RFC 9111 §4.3.2).
//!
//! Decides: all of it, a part, or only the word that it has not changed. Evaluates what is meant for a cache:
//! If-None-Match, If-Modified-Since, If-Range, Range; the rest went to the origin ([`super::Plan`]).

use super::date;
use super::policy::Policy;
use super::stored::StoredHead;
use crate::http::field::trim_ows;
use crate::http::{FieldKind, Fields, Method, RequestHead};

/// What of a stored response is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serve {
    /// All of it.
    Full,
    /// 304: the client's copy is good.
    NotModified,
    /// 206 with these bytes of the body; `start < end`.
    Partial {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// 416: no byte of the body is asked for.
    Unsatisfiable,
}

/// Decides what of a stored response with a body of `body_bytes` is sent. Preconditions in the order of
/// RFC 9110 §13.2.2; only a 200 can meet them.
pub fn serve(
    request: &RequestHead,
    bytes: &[u8],
    stored: StoredHead,
    policy: &Policy,
    body_bytes: u64,
) -> Serve {
    let fields = &request.fields;
    if policy.status() != 200 {
        return Serve::Full;
    }
    if fields.has(FieldKind::IfNoneMatch) {
        let tag = stored.first(FieldKind::ETag);
        if matches_any(fields, bytes, tag) {
            return Serve::NotModified;
        }
    } else if fields.has(FieldKind::IfModifiedSince) && is_unmodified(fields, bytes, policy) {
        return Serve::NotModified;
    }
    if request.method != Method::Get || !fields.has(FieldKind::Range) {
        return Serve::Full;
    }
    if fields.has(FieldKind::IfRange) && !is_same_representation(fields, bytes, stored, policy) {
        return Serve::Full;
    }
    range(fields, bytes, body_bytes)
}

/// RFC 9110 §13.1.2, compared weakly.
fn matches_any(fields: &Fields, bytes: &[u8], tag: Option<&[u8]>) -> bool {
    fields.values(FieldKind::IfNoneMatch, bytes).any(|value| {
        value == b"*"
            || tag.is_some_and(|tag| EntityTags { rest: value }.any(|one| is_weakly_same(one, tag)))
    })
}

/// RFC 9110 §13.1.3, with Date where there is no Last-Modified (RFC 9111 §4.3.2). No date, or several, is no
/// condition.
fn is_unmodified(fields: &Fields, bytes: &[u8], policy: &Policy) -> bool {
    let mut values = fields.values(FieldKind::IfModifiedSince, bytes);
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let since = date::parse(value, policy.received().as_secs());
    let modified = policy.last_modified_secs().unwrap_or(policy.date_secs());
    since.is_some_and(|since| modified <= since)
}

/// RFC 9110 §13.1.5: a strong tag that is the same, or the very date of a modification long enough before
/// Date to be strong (§8.8.2.2).
fn is_same_representation(
    fields: &Fields,
    bytes: &[u8],
    stored: StoredHead,
    policy: &Policy,
) -> bool {
    let mut values = fields.values(FieldKind::IfRange, bytes);
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    if value.starts_with(b"\"") || value.starts_with(b"W/") {
        return value.starts_with(b"\"") && stored.first(FieldKind::ETag) == Some(value);
    }
    let modified = policy.last_modified_secs();
    modified.is_some()
        && date::parse(value, policy.received().as_secs()) == modified
        && modified.is_some_and(|modified| modified < policy.date_secs())
}

/// RFC 9110 §14.1.2, §14.2. What is no single range of bytes is ignored; several get the whole.
fn range(fields: &Fields, bytes: &[u8], body_bytes: u64) -> Serve {
    let mut values = fields.values(FieldKind::Range, bytes);
    let (Some(value), None) = (values.next(), values.next()) else { return Serve::Full };
    let Some((unit, set)) = value.split_at_checked(BYTES_UNIT.len()) else { return Serve::Full };
    if !unit.eq_ignore_ascii_case(BYTES_UNIT) {
        return Serve::Full;
    }
    let set = trim_ows(set);
    let Some(dash) = set.iter().position(|&b| b == b'-') else { return Serve::Full };
    let (first, last) = (&set[..dash], &set[dash + 1..]);
    match (position(first), position(last)) {
        (Position::None, Position::At(0)) => Serve::Unsatisfiable,
        // Of nothing there is no last byte to tell, so the whole nothing is sent.
        (Position::None, Position::At(_)) if body_bytes == 0 => Serve::Full,
        (Position::None, Position::At(suffix)) => {
            Serve::Partial { start: body_bytes.saturating_sub(suffix), end: body_bytes }
        }
        (Position::At(start), Position::At(last)) if last < start => Serve::Full,
        (Position::At(start), Position::None | Position::At(_)) if start >= body_bytes => {
            Serve::Unsatisfiable
        }
        (Position::At(start), Position::None) => Serve::Partial { start, end: body_bytes },
        (Position::At(start), Position::At(last)) => {
            Serve::Partial { start, end: last.saturating_add(1).min(body_bytes) }
        }
        _ => Serve::Full,
    }
}

enum Position {
    /// Nothing is written.
    None,
    At(u64),
    Invalid,
}

fn position(digits: &[u8]) -> Position {
    if digits.is_empty() {
        return Position::None;
    }
    let number = digits.iter().try_fold(0u64, |number, &b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    });
    number.map_or(Position::Invalid, Position::At)
}

/// RFC 9110 §8.8.3.2.
pub(super) fn is_weakly_same(one: &[u8], other: &[u8]) -> bool {
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").map_or(tag.len(), <[u8]>::len);
    one[one.len() - opaque(one)..] == other[other.len() - opaque(other)..]
}

/// The tags of a list: each up to its closing quotation mark, or, without one, to the next comma.
struct EntityTags<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for EntityTags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while let [b',' | b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        let comma = self.rest.iter().position(|&b| b == b',').unwrap_or(self.rest.len());
        let opening = self.rest.iter().position(|&b| b == b'"').filter(|&at| at <= 2);
        let closing = opening.and_then(|at| {
            let inside = &self.rest[at + 1..];
            inside.iter().position(|&b| b == b'"').map(|len| at + 1 + len + 1)
        });
        let (tag, rest) = self.rest.split_at(closing.unwrap_or(comma));
        self.rest = rest;
        Some(trim_ows(tag))
    }
}

const BYTES_UNIT: &[u8] = b"bytes=";
