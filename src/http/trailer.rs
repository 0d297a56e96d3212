//! Trailer sections (RFC 9110 §6.5, RFC 9112 §7.1.2).
//!
//! Decides: which trailer fields may go on. They come after the decisions they could contradict, so
//! whatever bears on framing, routing, authentication, caching or the meaning of the content is dropped.
//! Invariant: what is kept is a sequence of `name: value CRLF`, within [`TRAILER_BYTES_MAX`].

use super::field::{FieldKind, check_value, split_line};
use super::reject::BodyFault;

/// Collects one trailer section.
#[derive(Clone, Debug, Default)]
pub(super) struct Trailers {
    /// The lines kept, then the bytes of the line that is arriving.
    lines: Vec<u8>,
    /// Where the arriving line begins.
    line_start: usize,
    /// Bytes and lines seen, kept or not.
    bytes_seen: usize,
    lines_seen: usize,
    /// Names listed in the Connection field of the head, each with a comma behind it.
    listed: Vec<u8>,
}

impl Trailers {
    pub(super) fn clear(&mut self) {
        self.lines.clear();
        self.listed.clear();
        self.line_start = 0;
        self.bytes_seen = 0;
        self.lines_seen = 0;
    }

    pub(super) fn list(&mut self, name: &[u8]) {
        self.listed.extend_from_slice(name);
        self.listed.push(b',');
    }

    /// The lines kept so far.
    pub(super) fn lines(&self) -> &[u8] {
        &self.lines[..self.line_start]
    }

    /// Takes bytes up to the empty line; gives how many, and whether the section has ended.
    pub(super) fn take(&mut self, input: &[u8]) -> Result<(usize, bool), BodyFault> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let found = memchr::memchr(b'\n', rest);
            let part = &rest[..found.map_or(rest.len(), |lf| lf + 1)];
            self.bytes_seen = self.bytes_seen.saturating_add(part.len());
            if self.bytes_seen > TRAILER_BYTES_MAX {
                return Err(BodyFault::TrailersTooLarge);
            }
            self.lines.extend_from_slice(part);
            at += part.len();
            if found.is_none() {
                return Ok((at, false));
            }
            if self.end_line()? {
                return Ok((at, true));
            }
        }
    }

    /// Judges the line just completed; true if it is the empty one.
    fn end_line(&mut self) -> Result<bool, BodyFault> {
        let [line @ .., b'\r', b'\n'] = &self.lines[self.line_start..] else {
            return Err(BodyFault::Trailer(super::reject::FieldFault::BareLf));
        };
        if line.is_empty() {
            self.lines.truncate(self.line_start);
            return Ok(true);
        }
        self.lines_seen += 1;
        if self.lines_seen > TRAILER_LINES_MAX {
            return Err(BodyFault::TrailersTooLarge);
        }
        let (kind, name_len, value) = split_line(line)?;
        check_value(&line[value.clone()])?;
        let name = &line[..name_len];
        if !may_be_trailer(kind, name) || self.is_listed(name) {
            self.lines.truncate(self.line_start);
            return Ok(false);
        }
        // Written in our own words over the line itself, which may have to grow by the one space.
        let (start, value_len) = (self.line_start, value.len());
        let value_at = start + name_len + 2;
        if value.start < name_len + 2 {
            self.lines.insert(start + name_len + 1, b' ');
            self.lines[value_at - 1] = b' ';
        } else {
            self.lines.copy_within(start + value.start..start + value.end, value_at);
            self.lines[value_at - 1] = b' ';
        }
        self.lines.truncate(value_at + value_len);
        self.lines.extend_from_slice(b"\r\n");
        self.line_start = self.lines.len();
        Ok(false)
    }

    fn is_listed(&self, name: &[u8]) -> bool {
        self.listed.split(|&b| b == b',').any(|listed| listed.eq_ignore_ascii_case(name))
    }
}

/// RFC 9110 §6.5.1: of the names we know only those whose meaning survives the body; of the others all
/// but the ones that speak of the content, of security or of other proxies.
fn may_be_trailer(kind: FieldKind, name: &[u8]) -> bool {
    match kind {
        FieldKind::Other => !FORBIDDEN_PREFIXES.iter().any(|prefix| starts_with(name, prefix)),
        FieldKind::ETag | FieldKind::Server | FieldKind::XRequestId => true,
        _ => false,
    }
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

const FORBIDDEN_PREFIXES: [&[u8]; 10] = [
    b"content-",
    b"x-forwarded-",
    b"proxy-",
    b"sec-",
    b"access-control-",
    b"if-",
    b"authentication-",
    b"strict-transport-",
    b"x-http-method",
    b"x-original-",
];
/// Most bytes of a trailer section, its empty line included.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Most lines of a trailer section.
pub const TRAILER_LINES_MAX: usize = 64;
