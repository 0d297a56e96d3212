//! Where a head ends, found while it still arrives (RFC 9112 §2.1, §2.2).
//!
//! Decides: the length of the head, and the refusals that need no more than lines: their ends, their
//! lengths, their number, the first byte. Refuses to know what the lines mean.
//!
//! Invariant: the outcome does not depend on how the bytes were cut into pieces; no byte is searched twice.

use super::field::is_token_byte;
use super::{BadResponse, HeadLimits, Reject};

/// Incremental search for the end of a head. One per message; [`HeadScan::reset`] between messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    /// Where the first line begins: 2 behind a skipped empty line, else 0.
    head_start: usize,
    /// Where the line being searched begins.
    line_start: usize,
    /// Bytes before this hold no LF of the current line.
    searched: usize,
    /// Complete lines, the first one included.
    lines: usize,
    has_begun: bool,
}

impl HeadScan {
    /// Looks for the end of a request head in `bytes`, which begin with the head's first byte and only
    /// ever grow. Gives the head's length, its final empty line and a skipped empty line before it included.
    ///
    /// # Errors
    /// [`Reject::NotHttp`], [`Reject::BareCr`] and [`Reject::BareLf`] at the first byte that shows it;
    /// [`Reject::LineTooLong`], [`Reject::HeadTooLarge`], [`Reject::TooManyFields`] exactly one past
    /// the limit. A skipped empty line counts towards none of them.
    pub fn scan(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, Reject> {
        if !self.has_begun && !self.begin_request(bytes)? {
            return Ok(None);
        }
        self.lines(bytes, limits).map_err(|fault| match fault {
            LineFault::BareLf => Reject::BareLf,
            LineFault::FirstLineTooLong => Reject::LineTooLong,
            LineFault::HeadTooLarge => Reject::HeadTooLarge,
            LineFault::TooManyFields => Reject::TooManyFields,
        })
    }

    /// The same for a response head, before which nothing is skipped.
    ///
    /// # Errors
    /// As [`HeadScan::scan`]; a status line over its limit is [`BadResponse::HeadTooLarge`].
    pub fn scan_response(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<usize>, BadResponse> {
        match bytes.first() {
            None => return Ok(None),
            Some(b'H') => self.has_begun = true,
            Some(_) => return Err(BadResponse::NotHttp),
        }
        self.lines(bytes, limits).map_err(|fault| match fault {
            LineFault::BareLf => BadResponse::BareLf,
            LineFault::FirstLineTooLong | LineFault::HeadTooLarge => BadResponse::HeadTooLarge,
            LineFault::TooManyFields => BadResponse::TooManyFields,
        })
    }

    /// Forgets the head; the next call begins a new one.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// True once a byte of the head was seen, the empty line before a request line aside: from then on
    /// silence is a slow head (408), not an idle connection.
    pub const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Skips one empty line (RFC 9112 §2.2) and looks at the first byte; false while there is none.
    fn begin_request(&mut self, bytes: &[u8]) -> Result<bool, Reject> {
        if self.head_start == 0 {
            match bytes {
                [] | [b'\r'] => return Ok(false),
                [b'\r', b'\n', ..] => {
                    self.head_start = 2;
                    self.line_start = 2;
                    self.searched = 2;
                }
                [b'\r', ..] => return Err(Reject::BareCr),
                [b'\n', ..] => return Err(Reject::BareLf),
                _ => {}
            }
        }
        match bytes.get(self.head_start) {
            None => Ok(false),
            Some(&byte) if is_token_byte(byte) => {
                self.has_begun = true;
                Ok(true)
            }
            Some(_) => Err(Reject::NotHttp),
        }
    }

    fn lines(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, LineFault> {
        // Only bytes within the limit are looked at: what stands behind it cannot change the outcome.
        let visible = bytes.len().min(self.head_start.saturating_add(limits.head_bytes_max));
        while let Some(found) =
            memchr::memchr(b'\n', bytes.get(self.searched..visible).unwrap_or_default())
        {
            let end = self.searched + found;
            let (content, has_cr) = content(&bytes[self.line_start..end]);
            if self.lines == 0 && content.len() > limits.line_bytes_max {
                return Err(LineFault::FirstLineTooLong);
            }
            if !has_cr {
                return Err(LineFault::BareLf);
            }
            self.searched = end + 1;
            self.line_start = end + 1;
            if content.is_empty() {
                return Ok(Some(end + 1));
            }
            if self.lines > limits.fields_max {
                return Err(LineFault::TooManyFields);
            }
            self.lines += 1;
        }
        self.searched = self.searched.max(visible);
        if self.lines == 0 {
            let tail = bytes.get(self.line_start..visible).unwrap_or_default();
            if content(tail).0.len() > limits.line_bytes_max {
                return Err(LineFault::FirstLineTooLong);
            }
        }
        if bytes.len() > visible { Err(LineFault::HeadTooLarge) } else { Ok(None) }
    }
}

enum LineFault {
    BareLf,
    FirstLineTooLong,
    HeadTooLarge,
    TooManyFields,
}

/// A line without its LF, and whether a CR stood before that.
fn content(line: &[u8]) -> (&[u8], bool) {
    match line {
        [content @ .., b'\r'] => (content, true),
        _ => (line, false),
    }
}
