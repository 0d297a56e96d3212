//! The head a client gets of a stored response (RFC 9111 §4, RFC 9110 §15.3.7, §15.4.5, §15.5.17).
//!
//! Decides: status line, Age, Cache-Status, and which stored fields a 206 and a 304 have. Framing and
//! connection are the caller's, written as `http::forward` writes them. Writes into a buffer that has room,
//! and takes none itself.

use super::conditional::Serve;
use super::policy::Policy;
use super::status::CacheStatus;
use super::stored::StoredHead;
use crate::http::forward::{connection_end, decimal, line, number_line, response_framing, via};
use crate::http::{FieldKind, Framing, Version};
use crate::time::{DATE_BYTES, WallTime};

/// What the head of a stored response depends on besides the stored head.
#[derive(Clone, Copy, Debug)]
pub struct ServedWith<'a> {
    /// What of the response is sent.
    pub serve: Serve,
    /// Length of the stored body; unknown while it is still coming, when only the whole can be served.
    pub body_bytes: Option<u64>,
    /// The framing towards the client of a [`Serve::Full`]; that of the others follows from them.
    pub framing: Framing,
    /// Say that the connection ends with this response. Implied by [`Framing::UntilClose`].
    pub close: bool,
    /// The client speaks HTTP/1.0 and the connection is kept as it asked.
    pub keep_alive_10: bool,
    /// The time Age is told for.
    pub now: WallTime,
    /// The same as Date prints it, for a response that is ours alone.
    pub date: &'a [u8; DATE_BYTES],
    /// What the cache did.
    pub status: CacheStatus,
}

/// The status the client gets.
pub const fn status(serve: Serve, policy: &Policy) -> u16 {
    match serve {
        Serve::Full => policy.status(),
        Serve::Partial { .. } => 206,
        Serve::NotModified => 304,
        Serve::Unsatisfiable => 416,
    }
}

/// Appends the head to `out`. For HEAD the framing is None, and the length is told as information.
pub fn write(out: &mut Vec<u8>, stored: StoredHead, policy: &Policy, with: &ServedWith) {
    out.reserve(stored.as_bytes().len() + OWN_FIELDS_BYTES);
    let mut framing = Framing::None;
    let mut declared_length = None;
    match with.serve {
        Serve::Full => {
            out.extend_from_slice(stored.without_end());
            framing = with.framing;
            declared_length = with.body_bytes.filter(|_| may_tell_length(policy.status()));
        }
        Serve::Partial { start, end } => {
            out.extend_from_slice(b"HTTP/1.1 206 Partial Content\r\n");
            let keeps = |kind| kind != FieldKind::ContentRange;
            copy_fields(out, stored, |kind, _| keeps(kind));
            out.extend_from_slice(b"Content-Range: bytes ");
            decimal(out, start);
            out.push(b'-');
            decimal(out, end.saturating_sub(1));
            out.push(b'/');
            decimal(out, with.body_bytes.unwrap_or(end));
            out.extend_from_slice(b"\r\n");
            framing = Framing::Length(end.saturating_sub(start));
        }
        Serve::NotModified => {
            out.extend_from_slice(b"HTTP/1.1 304 Not Modified\r\n");
            copy_fields(out, stored, |kind, name| !is_about_the_body(kind, name));
        }
        Serve::Unsatisfiable => {
            out.extend_from_slice(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */");
            decimal(out, with.body_bytes.unwrap_or(0));
            out.extend_from_slice(b"\r\n");
            line(out, b"Date", with.date);
            framing = Framing::Length(0);
        }
    }
    if with.serve != Serve::Unsatisfiable {
        number_line(out, b"Age", policy.age_secs(with.now));
        via(out, if policy.is_http10() { Version::Http10 } else { Version::Http11 });
    }
    with.status.write(out);
    response_framing(out, framing, declared_length);
    let is_last = with.close || framing == Framing::UntilClose;
    out.extend_from_slice(connection_end(is_last, with.keep_alive_10));
}

/// No Content-Length in a 204 (RFC 9110 §8.6).
const fn may_tell_length(status: u16) -> bool {
    status != 204
}

fn copy_fields(out: &mut Vec<u8>, stored: StoredHead, keeps: impl Fn(FieldKind, &[u8]) -> bool) {
    for field in stored.fields() {
        if keeps(field.kind, field.name) {
            out.extend_from_slice(field.line);
        }
    }
}

/// What describes the content, which a 304 does not have (RFC 9110 §15.4.5); the client has it already.
fn is_about_the_body(kind: FieldKind, name: &[u8]) -> bool {
    match kind {
        FieldKind::ContentType | FieldKind::ContentEncoding | FieldKind::ContentRange => true,
        FieldKind::Other => name.eq_ignore_ascii_case(b"content-language"),
        _ => false,
    }
}

/// Room for what we add to a head; a hint only.
const OWN_FIELDS_BYTES: usize = 256;
