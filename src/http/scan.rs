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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { line_bytes_max: 20, head_bytes_max: 60, fields_max: 3 };

    /// Whole, in two pieces cut at each byte, and byte by byte: always the same outcome.
    fn scan(bytes: &[u8]) -> Result<Option<usize>, Reject> {
        let whole = HeadScan::default().scan(bytes, &LIMITS);
        for cut in 0..=bytes.len() {
            let mut scan = HeadScan::default();
            let outcome = match scan.scan(&bytes[..cut], &LIMITS) {
                Ok(None) => scan.scan(bytes, &LIMITS),
                early => early,
            };
            assert_eq!(outcome, whole, "cut at {cut} of {:?}", bytes.escape_ascii().to_string());
        }
        let mut scan = HeadScan::default();
        let outcome = (0..=bytes.len())
            .map(|len| scan.scan(&bytes[..len], &LIMITS))
            .find(|outcome| !matches!(outcome, Ok(None)))
            .unwrap_or(Ok(None));
        assert_eq!(outcome, whole, "byte by byte: {:?}", bytes.escape_ascii().to_string());
        whole
    }

    #[test]
    fn finds_the_end_and_nothing_behind_it() {
        for (bytes, expected) in [
            ("", Ok(None)),
            ("\r", Ok(None)),
            ("\r\n", Ok(None)),
            ("G", Ok(None)),
            ("GET / HTTP/1.1\r\n", Ok(None)),
            ("GET / HTTP/1.1\r\n\r", Ok(None)),
            ("GET / HTTP/1.1\r\n\r\n", Ok(Some(18))),
            ("GET / HTTP/1.1\r\n\r\nbody\n\r\n\r\n", Ok(Some(18))),
            ("GET / HTTP/1.1\r\na: b\r\n\r\n", Ok(Some(24))),
            // RFC 9112 §2.2: one empty line before the request line is skipped, no second one.
            ("\r\nGET / HTTP/1.1\r\n\r\n", Ok(Some(20))),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", Err(Reject::NotHttp)),
            ("\n", Err(Reject::BareLf)),
            ("\rG", Err(Reject::BareCr)),
            ("GET / HTTP/1.1\n\n", Err(Reject::BareLf)),
            ("GET / HTTP/1.1\r\na: b\n\r\n", Err(Reject::BareLf)),
            // A bare CR within a line is for the parser.
            ("GET /\r HTTP/1.1\r\n\r\n", Ok(Some(19))),
            ("\x16\x03\x01", Err(Reject::NotHttp)),
            (" GET / HTTP/1.1\r\n", Err(Reject::NotHttp)),
            ("\0", Err(Reject::NotHttp)),
            ("{}", Err(Reject::NotHttp)),
        ] {
            assert_eq!(scan(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn limits_are_exact() {
        let line = |len: usize| format!("GET {} HTTP/1.1\r\n\r\n", "/".repeat(len - 13));
        assert_eq!(scan(line(20).as_bytes()), Ok(Some(24)));
        assert_eq!(scan(line(21).as_bytes()), Err(Reject::LineTooLong));
        assert_eq!(scan(format!("\r\n{}", line(20)).as_bytes()), Ok(Some(26)));
        assert_eq!(scan(format!("\r\n{}", line(21)).as_bytes()), Err(Reject::LineTooLong));
        assert_eq!(scan("x".repeat(20).as_bytes()), Ok(None));
        assert_eq!(scan("x".repeat(21).as_bytes()), Err(Reject::LineTooLong));
        // The CR at the end may belong to the line's end, or not.
        assert_eq!(scan(format!("{}\r", "x".repeat(20)).as_bytes()), Ok(None));
        assert_eq!(scan(format!("{}\rx", "x".repeat(20)).as_bytes()), Err(Reject::LineTooLong));

        let head = |len: usize| format!("GET / HTTP/1.1\r\na:{}\r\n\r\n", "b".repeat(len - 22));
        assert_eq!(scan(head(60).as_bytes()), Ok(Some(60)));
        assert_eq!(scan(head(61).as_bytes()), Err(Reject::HeadTooLarge));
        assert_eq!(scan(format!("\r\n{}", head(60)).as_bytes()), Ok(Some(62)));
        assert_eq!(scan(format!("\r\n{}", head(61)).as_bytes()), Err(Reject::HeadTooLarge));
        assert_eq!(scan(&head(80).as_bytes()[..60]), Ok(None));
        assert_eq!(scan(&head(80).as_bytes()[..61]), Err(Reject::HeadTooLarge));
        // What stands behind a complete head does not count towards it.
        assert_eq!(scan(format!("{}{}", head(60), "x".repeat(99)).as_bytes()), Ok(Some(60)));

        let fields = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a:b\r\n".repeat(count));
        assert_eq!(scan(fields(3).as_bytes()), Ok(Some(33)));
        assert_eq!(scan(fields(4).as_bytes()), Err(Reject::TooManyFields));
    }

    #[test]
    fn has_begun_tells_a_slow_head_from_an_idle_connection() {
        let mut scan = HeadScan::default();
        for bytes in ["", "\r", "\r\n"] {
            assert_eq!(scan.scan(bytes.as_bytes(), &LIMITS), Ok(None));
            assert!(!scan.has_begun(), "{bytes:?}");
        }
        assert_eq!(scan.scan(b"\r\nG", &LIMITS), Ok(None));
        assert!(scan.has_begun());
        scan.reset();
        assert!(!scan.has_begun());
        assert_eq!(scan.scan(b"GET / HTTP/1.1\r\n\r\n", &LIMITS), Ok(Some(18)));
    }

    #[test]
    fn responses_have_no_empty_line_before_them() {
        let scan = |bytes: &str| HeadScan::default().scan_response(bytes.as_bytes(), &LIMITS);
        assert_eq!(scan(""), Ok(None));
        assert_eq!(scan("HTTP/1.1 200 OK\r\n\r\nx"), Ok(Some(19)));
        assert_eq!(scan("\r\n"), Err(BadResponse::NotHttp));
        assert_eq!(scan("SSH-2.0"), Err(BadResponse::NotHttp));
        assert_eq!(scan("HTTP/1.1 200 OK\n"), Err(BadResponse::BareLf));
        assert_eq!(scan("HTTP/1.1 200 OKOKOKOKO"), Err(BadResponse::HeadTooLarge));
        assert_eq!(
            scan(&format!("HTTP/1.1 200\r\n{}", "a:b\r\n".repeat(4))),
            Err(BadResponse::TooManyFields)
        );
        assert_eq!(
            scan(&format!("HTTP/1.1 200\r\na:{}", "b".repeat(50))),
            Err(BadResponse::HeadTooLarge)
        );
    }
}
