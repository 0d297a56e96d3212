//! A response head: status line and fields (RFC 9112 §4, §5).
//!
//! Decides: whether these bytes are a response we understand. Refuses to know how long the body is
//! (`framing`). Invariant: after a successful parse the reason and the fields may be written into
//! another head as they are.

use super::field::{Fields, Span, is_clean};
use super::reject::BadResponse;
use super::request::{Version, VersionFault, parse_version};

/// A parsed response head. Reusable: [`ResponseHead::parse`] overwrites it and keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// The status code, 100–599.
    pub status: u16,
    /// The reason phrase; may be empty.
    pub reason: Span,
    /// The version.
    pub version: Version,
    /// The field lines.
    pub fields: Fields,
}

impl ResponseHead {
    /// Parses a whole head, exactly the bytes [`super::HeadScan::scan_response`] gave the length of.
    ///
    /// # Errors
    /// Anything that is not a response we understand.
    pub fn parse(&mut self, head: &[u8]) -> Result<(), BadResponse> {
        if u32::try_from(head.len()).is_err() {
            return Err(BadResponse::HeadTooLarge);
        }
        let lf = memchr::memchr(b'\n', head).ok_or(BadResponse::MalformedStatusLine)?;
        let line = match &head[..lf] {
            [line @ .., b'\r'] => line,
            _ => return Err(BadResponse::BareLf),
        };
        self.parse_line(line)?;
        self.fields.parse(head, lf + 1)?;
        Ok(())
    }

    fn parse_line(&mut self, line: &[u8]) -> Result<(), BadResponse> {
        let Some((version, [b' ', status @ ..])) = line.split_at_checked(VERSION_BYTES) else {
            return Err(BadResponse::MalformedStatusLine);
        };
        self.version = parse_version(version).map_err(|fault| match fault {
            VersionFault::Unsupported => BadResponse::UnsupportedVersion,
            VersionFault::Malformed => BadResponse::MalformedStatusLine,
        })?;
        let (digits, reason) = match status {
            // Without a reason some servers leave out the space, too; it tells us nothing.
            [_, _, _] => (status, &status[3..]),
            [_, _, _, b' ', reason @ ..] => (&status[..3], reason),
            _ => return Err(BadResponse::MalformedStatusLine),
        };
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(BadResponse::MalformedStatusLine);
        }
        if !is_clean(reason) {
            let is_cr = reason.contains(&b'\r');
            return Err(if is_cr { BadResponse::BareCr } else { BadResponse::MalformedStatusLine });
        }
        self.status = digits.iter().fold(0, |status, &b| status * 10 + u16::from(b - b'0'));
        if !(100..=599).contains(&self.status) {
            return Err(BadResponse::InvalidStatus);
        }
        self.reason = Span::new(line.len() - reason.len(), line.len());
        Ok(())
    }
}

/// `HTTP/1.1`
const VERSION_BYTES: usize = 8;
