//! The head of a stored response (RFC 9111 §3.1): a status line and end-to-end fields, in our spelling.
//!
//! Decides: which fields are kept. Not kept are what concerned one connection, what Connection lists, what
//! tells the length (the body does), Age (it is written anew each time), fields for a proxy, and what
//! `no-cache="…"` and `private="…"` name. Everything else stays as it came, repeated lines included.
//!
//! Invariant: what is written here is a complete head to `http::ResponseHead`, each line
//! `name: value CRLF`.

use super::directives::ResponseDirectives;
use crate::http::forward::{Listed, copy, line, status_line};
use crate::http::{Field, FieldKind, ResponseHead};
use crate::time::DATE_BYTES;

/// Appends the head to be stored to `out`; `date` is the time of receipt, written if there is no Date
/// (RFC 9110 §6.6.1).
pub fn write(out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8], date: &[u8; DATE_BYTES]) {
    status_line(out, head, bytes);
    let kept = Kept::of(head, bytes);
    for field in head.fields.lines() {
        if kept.has(field) {
            copy(out, field, bytes);
        }
    }
    if !head.fields.has(FieldKind::Date) {
        line(out, b"Date", date);
    }
    out.extend_from_slice(b"\r\n");
}

/// Which fields of a response are kept.
pub(super) struct Kept<'a> {
    head: &'a ResponseHead,
    bytes: &'a [u8],
    listed: Listed<'a>,
    said: ResponseDirectives,
}

impl<'a> Kept<'a> {
    pub(super) fn of(head: &'a ResponseHead, bytes: &'a [u8]) -> Self {
        let listed = Listed::of(&head.fields, bytes);
        Self { head, bytes, listed, said: ResponseDirectives::of(&head.fields, bytes) }
    }

    pub(super) fn has(&self, field: &Field) -> bool {
        let name = field.name.of(self.bytes);
        let is_dropped = match field.kind {
            FieldKind::ContentLength
            | FieldKind::Age
            | FieldKind::Trailer
            | FieldKind::ProxyAuthenticate
            | FieldKind::ProxyAuthorization => true,
            FieldKind::Other => name.eq_ignore_ascii_case(b"proxy-authentication-info"),
            kind => kind.is_hop_by_hop(),
        };
        !is_dropped
            && !self.listed.has(field)
            && !self.said.excludes(&self.head.fields, self.bytes, name)
    }
}

/// A stored head, read without being parsed anew.
#[derive(Clone, Copy, Debug)]
pub struct StoredHead<'a> {
    bytes: &'a [u8],
}

/// A field line of a stored head.
#[derive(Clone, Copy, Debug)]
pub struct StoredField<'a> {
    /// Which of the names we know.
    pub kind: FieldKind,
    /// The name.
    pub name: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The whole line with its CRLF.
    pub line: &'a [u8],
}

impl<'a> StoredHead<'a> {
    /// Reads what [`write()`] or [`super::validation::merge`] wrote.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The status line with its CRLF.
    pub fn status_line(self) -> &'a [u8] {
        let end = memchr::memchr(b'\n', self.bytes).map_or(self.bytes.len(), |at| at + 1);
        &self.bytes[..end]
    }

    /// Status line and fields, without the empty line.
    pub fn without_end(self) -> &'a [u8] {
        self.bytes.strip_suffix(b"\r\n").unwrap_or(self.bytes)
    }

    /// The whole head.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The field lines in their order.
    pub fn fields(self) -> impl Iterator<Item = StoredField<'a>> {
        let mut rest = &self.bytes[self.status_line().len()..];
        std::iter::from_fn(move || {
            let end = memchr::memchr(b'\n', rest)? + 1;
            let (line, behind) = rest.split_at(end);
            let colon = memchr::memchr(b':', line)?;
            rest = behind;
            let value = line[colon + 1..].trim_ascii();
            Some(StoredField {
                kind: FieldKind::of(&line[..colon]),
                name: &line[..colon],
                value,
                line,
            })
        })
    }

    /// The value of the first line of this kind.
    pub fn first(self, kind: FieldKind) -> Option<&'a [u8]> {
        self.fields().find(|field| field.kind == kind).map(|field| field.value)
    }
}
