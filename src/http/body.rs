//! Which of these bytes are body, and is it over (RFC 9112 §6, §7).
//!
//! Decides: chunk sizes, extensions and trailers, all strictly; extensions are read over and dropped.
//! Refuses to know what the bytes mean and how large a body may be: [`BodyDecoder::total_bytes`] is for
//! whoever bounds it.
//!
//! Invariants: the outcome does not depend on how the input was cut into pieces; the state of a line that
//! drips in is of fixed size; after an error nothing more is decoded.

use std::ops::Range;

use super::field::{FieldKind, Fields};
use super::framing::{BODY_BYTES_MAX, Framing};
use super::reject::BodyFault;
use super::trailer::Trailers;

pub use super::trailer::{TRAILER_BYTES_MAX, TRAILER_LINES_MAX};

/// Takes one body out of its framing. Reusable.
#[derive(Clone, Debug, Default)]
pub struct BodyDecoder {
    state: State,
    total_bytes: u64,
    /// Extension bytes not yet paid for by body bytes.
    extension_debt: u64,
    trailers: Trailers,
}

/// What [`BodyDecoder::decode`] made of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The body bytes, moved together inside the input.
    pub data: Range<usize>,
    /// Input bytes that belong to this message; all of them unless it ended.
    pub consumed: usize,
    /// The message has ended.
    pub is_done: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Done,
    /// So many bytes to come, at least one.
    Length(u64),
    UntilClose,
    /// Chunk size, after so many digits.
    Size {
        digits: u32,
        size: u64,
    },
    /// Whitespace after the size, which must lead to an extension.
    BeforeExtension {
        size: u64,
    },
    Extension {
        size: u64,
    },
    /// The LF that ends the chunk line.
    SizeLf {
        size: u64,
    },
    /// Chunk data, at least one byte to come.
    Chunk {
        left: u64,
    },
    ChunkCr,
    ChunkLf,
    Trailers,
    Failed(BodyFault),
}

impl BodyDecoder {
    /// A decoder for a body in this framing.
    pub fn new(framing: Framing) -> Self {
        let mut decoder = Self::default();
        decoder.reset(framing);
        decoder
    }

    /// Begins another body; the memory stays.
    pub fn reset(&mut self, framing: Framing) {
        self.state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::NEXT_CHUNK,
            Framing::UntilClose | Framing::Tunnel => State::UntilClose,
        };
        self.total_bytes = 0;
        self.extension_debt = 0;
        self.trailers.clear();
    }

    /// Drops trailers that the head's Connection field lists, too (RFC 9110 §7.6.1). To be called after
    /// [`BodyDecoder::reset`], while the head's bytes are still there.
    pub fn drop_listed_trailers(&mut self, fields: &Fields, head: &[u8]) {
        for option in fields.elements(FieldKind::Connection, head) {
            self.trailers.list(option);
        }
    }

    /// Decodes the bytes that follow those given before, in place.
    ///
    /// # Errors
    /// A malformed chunk or trailer. The error stays: further calls give it again.
    pub fn decode(&mut self, input: &mut [u8]) -> Result<Decoded, BodyFault> {
        let mut data = 0..0;
        let mut at = 0;
        while at < input.len() {
            let left = match self.state {
                State::Done => break,
                State::Failed(fault) => return Err(fault),
                State::Length(left) | State::Chunk { left } => left,
                State::UntilClose => u64::MAX,
                State::Trailers => {
                    let (taken, is_done) =
                        self.trailers.take(&input[at..]).map_err(|f| self.fail(f))?;
                    at += taken;
                    self.state = if is_done { State::Done } else { State::Trailers };
                    continue;
                }
                _ => {
                    self.step(input[at]).map_err(|f| self.fail(f))?;
                    at += 1;
                    continue;
                }
            };
            let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
            if data.is_empty() {
                data = at..at + taken;
            } else {
                input.copy_within(at..at + taken, data.end);
                data.end += taken;
            }
            at += taken;
            self.count(left, taken as u64);
        }
        if let State::Failed(fault) = self.state {
            return Err(fault);
        }
        Ok(Decoded { data, consumed: at, is_done: self.is_done() })
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// [`BodyFault::Incomplete`] if the body should have gone on.
    pub fn end_of_input(&mut self) -> Result<(), BodyFault> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Failed(fault) => Err(fault),
            _ => Err(self.fail(BodyFault::Incomplete)),
        }
    }

    /// True once the whole body was seen.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Body bytes given out so far.
    pub const fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Bytes the body will have at least, as far as it has been announced: those given out, and the rest
    /// of the length or of the chunk. Known before the bytes are here, so that 413 comes early.
    pub const fn announced_bytes(&self) -> u64 {
        match self.state {
            State::Length(left) | State::Chunk { left } => self.total_bytes.saturating_add(left),
            _ => self.total_bytes,
        }
    }

    /// Body bytes still to come, where the framing says so.
    pub const fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// The trailer lines that may go on, each `name: value CRLF`; empty before the end and without any.
    pub fn trailers(&self) -> &[u8] {
        self.trailers.lines()
    }

    fn fail(&mut self, fault: BodyFault) -> BodyFault {
        self.state = State::Failed(fault);
        fault
    }

    /// Counts `taken` of the `left` bytes of the current run.
    fn count(&mut self, left: u64, taken: u64) {
        self.total_bytes = self.total_bytes.saturating_add(taken);
        self.extension_debt = self.extension_debt.saturating_sub(taken);
        let is_over = left == taken;
        self.state = match self.state {
            State::Length(_) if is_over => State::Done,
            State::Length(_) => State::Length(left - taken),
            State::Chunk { .. } if is_over => State::ChunkCr,
            State::Chunk { .. } => State::Chunk { left: left - taken },
            other => other,
        };
    }

    /// One byte between the chunks.
    fn step(&mut self, byte: u8) -> Result<(), BodyFault> {
        self.state = match (self.state, byte) {
            (State::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                // More digits than any size needs can only be zeros; they are counted as extension.
                if digits >= SIZE_DIGITS_MAX {
                    self.owe()?;
                }
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                if size > BODY_BYTES_MAX >> 4 {
                    return Err(BodyFault::InvalidChunkSize);
                }
                State::Size { digits: digits.saturating_add(1), size: size << 4 | digit }
            }
            (State::Size { digits: 1.., size }, b'\r') => State::SizeLf { size },
            (State::Size { digits: 1.., size }, b';') => State::Extension { size },
            (State::Size { digits: 1.., size } | State::BeforeExtension { size }, b' ' | b'\t') => {
                self.owe()?;
                State::BeforeExtension { size }
            }
            (State::Size { .. }, _) => return Err(BodyFault::InvalidChunkSize),
            (State::BeforeExtension { size }, b';') => State::Extension { size },
            (State::BeforeExtension { .. }, _) => return Err(BodyFault::InvalidChunkSize),
            (State::Extension { size }, b'\r') => State::SizeLf { size },
            (State::Extension { .. }, b'\n') => return Err(BodyFault::MissingChunkEnd),
            (State::Extension { .. }, 0..=0x08 | 0x0a..=0x1f | 0x7f) => {
                return Err(BodyFault::InvalidChunkExtension);
            }
            (State::Extension { size }, _) => {
                self.owe()?;
                State::Extension { size }
            }
            (State::SizeLf { size: 0 }, b'\n') => State::Trailers,
            (State::SizeLf { size }, b'\n') => State::Chunk { left: size },
            (State::ChunkCr, b'\r') => State::ChunkLf,
            (State::ChunkLf, b'\n') => State::NEXT_CHUNK,
            (State::SizeLf { .. } | State::ChunkCr | State::ChunkLf, _) => {
                return Err(BodyFault::MissingChunkEnd);
            }
            (state, _) => state,
        };
        Ok(())
    }

    /// One more byte that says nothing. Body bytes pay for them, one for one: a long stream may carry a
    /// short extension in each chunk, a flood of extensions around a few bytes may not.
    fn owe(&mut self) -> Result<(), BodyFault> {
        self.extension_debt += 1;
        if self.extension_debt > EXTENSION_DEBT_MAX {
            Err(BodyFault::ChunkExtensionFlood)
        } else {
            Ok(())
        }
    }
}

impl State {
    const NEXT_CHUNK: Self = Self::Size { digits: 0, size: 0 };
}

/// Writes the line that begins a chunk of `len` bytes, at least one; gives its length.
pub fn chunk_head(len: usize, out: &mut [u8; CHUNK_HEAD_BYTES_MAX]) -> usize {
    debug_assert!(len > 0, "a chunk of no bytes is the end of the body");
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1) as usize;
    for (n, byte) in out[..digits].iter_mut().enumerate() {
        *byte = b"0123456789abcdef"[len >> (4 * (digits - 1 - n)) & 0xf];
    }
    out[digits] = b'\r';
    out[digits + 1] = b'\n';
    digits + 2
}

/// Longest line that begins a chunk: 16 digits and CRLF.
pub const CHUNK_HEAD_BYTES_MAX: usize = SIZE_DIGITS_MAX as usize + 2;
/// What ends a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// What ends a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// The last chunk; trailer lines and [`CHUNK_END`] follow.
pub const LAST_CHUNK_HEAD: &[u8] = b"0\r\n";
/// Most extension bytes beyond the body bytes they came with.
pub const EXTENSION_DEBT_MAX: u64 = 16 * 1024;
/// Digits of the largest chunk size.
const SIZE_DIGITS_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::reject::FieldFault;

    type Outcome = Result<(String, String, usize, bool), BodyFault>;

    /// Feeds the pieces one after the other, each in a buffer of its own.
    fn feed<'a>(framing: Framing, pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
        let mut decoder = BodyDecoder::new(framing);
        let (mut body, mut consumed) = (Vec::new(), 0);
        for piece in pieces {
            let mut input = piece.to_vec();
            let decoded = decoder.decode(&mut input)?;
            assert!(decoded.is_done || decoded.consumed == input.len());
            body.extend_from_slice(&input[decoded.data]);
            consumed += decoded.consumed;
        }
        assert_eq!(decoder.total_bytes(), body.len() as u64);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&body), text(decoder.trailers()), consumed, decoder.is_done()))
    }

    /// Whole, in two pieces cut at each byte, and byte by byte: always the same outcome.
    fn decode(framing: Framing, bytes: &[u8]) -> Outcome {
        let whole = feed(framing, std::iter::once(bytes));
        for cut in 0..=bytes.len() {
            let (front, back) = bytes.split_at(cut);
            assert_eq!(feed(framing, [front, back].into_iter()), whole, "cut at {cut}");
        }
        assert_eq!(feed(framing, bytes.chunks(1)), whole, "byte by byte");
        whole
    }

    #[test]
    fn chunks_and_trailers() {
        for (input, body, trailers, rest) in [
            // RFC 9112 §7.1
            ("0\r\n\r\n", "", "", ""),
            ("5\r\nhello\r\n0\r\n\r\nGET", "hello", "", "GET"),
            ("5\r\nhello\r\nA\r\n0123456789\r\n00\r\n\r\n", "hello0123456789", "", ""),
            ("a\r\n0123456789\r\n1\r\n\n\r\n0\r\n\r\n", "0123456789\n", "", ""),
            ("00000000000000000001\r\nx\r\n0\r\n\r\n", "x", "", ""),
            // §7.1.1: extensions are read over, with whitespace around ; and =
            ("1;a\r\nx\r\n0;b=c\r\n\r\n", "x", "", ""),
            ("1 \t; a = \"q;\u{e9}\t\" \r\nx\r\n0 ;\r\n\r\n", "x", "", ""),
            // §7.1.2, RFC 9110 §6.5.1
            ("0\r\nX-Sum: 1\r\n\r\nrest", "", "X-Sum: 1\r\n", "rest"),
            (
                "0\r\na:1\r\nB:\r\nc:  \t2 3 \t\r\nd: 4\r\n\r\n",
                "",
                "a: 1\r\nB: \r\nc: 2 3\r\nd: 4\r\n",
                "",
            ),
            (
                "0\r\nContent-Length: 5\r\na: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                "",
                "a: 1\r\n",
                "",
            ),
            (
                "0\r\nHost: x\r\nContent-Foo: x\r\nSet-Cookie: x\r\nAuthorization: x\r\n\r\n",
                "",
                "",
                "",
            ),
            (
                "0\r\nCONNECTION: x\r\nTe: x\r\nTrailer: x\r\nVia: x\r\nX-Forwarded-Port: x\r\n\r\n",
                "",
                "",
                "",
            ),
            (
                "0\r\nCache-Control: x\r\nVary: x\r\nIf-Fancy: x\r\nRange: x\r\nETag: x\r\n\r\n",
                "",
                "ETag: x\r\n",
                "",
            ),
        ] {
            let consumed = input.len() - rest.len();
            let expected = Ok((body.to_owned(), trailers.to_owned(), consumed, true));
            assert_eq!(decode(Framing::Chunked, input.as_bytes()), expected, "{input:?}");
        }
    }

    #[test]
    fn malformed_chunks() {
        for (input, fault) in [
            // RFC 9112 §7.1: a number, hexadecimal, without sign, prefix or whitespace before it
            ("\r\n", BodyFault::InvalidChunkSize),
            (";a\r\n", BodyFault::InvalidChunkSize),
            ("+1\r\n", BodyFault::InvalidChunkSize),
            ("-1\r\n", BodyFault::InvalidChunkSize),
            ("0x1\r\n", BodyFault::InvalidChunkSize),
            (" 1\r\n", BodyFault::InvalidChunkSize),
            ("1_0\r\n", BodyFault::InvalidChunkSize),
            ("g\r\n", BodyFault::InvalidChunkSize),
            ("1 \r\n", BodyFault::InvalidChunkSize),
            ("1 1\r\n", BodyFault::InvalidChunkSize),
            ("1\x0b\r\n", BodyFault::InvalidChunkSize),
            ("1\n", BodyFault::InvalidChunkSize),
            ("8000000000000000\r\n", BodyFault::InvalidChunkSize),
            ("10000000000000005\r\n", BodyFault::InvalidChunkSize),
            ("fffffffffffffffff\r\n", BodyFault::InvalidChunkSize),
            // CRLF and nothing else
            ("1\rx", BodyFault::MissingChunkEnd),
            ("1\r\r\n", BodyFault::MissingChunkEnd),
            ("1\r\nxx", BodyFault::MissingChunkEnd),
            ("1\r\nx\n0", BodyFault::MissingChunkEnd),
            ("1\r\nx\r0", BodyFault::MissingChunkEnd),
            ("1\r\nx0\r\n", BodyFault::MissingChunkEnd),
            ("1;a\nx", BodyFault::MissingChunkEnd),
            ("1;a\rb\r\nx", BodyFault::MissingChunkEnd),
            // §7.1.1
            ("1;a\0\r\n", BodyFault::InvalidChunkExtension),
            ("1;a\x7f\r\n", BodyFault::InvalidChunkExtension),
            ("1;a\x1f\r\n", BodyFault::InvalidChunkExtension),
            // §7.1.2: as strict as in a head
            ("0\r\n\n", BodyFault::Trailer(FieldFault::BareLf)),
            ("0\r\na: b\n", BodyFault::Trailer(FieldFault::BareLf)),
            ("0\r\na: b\r\n c\r\n", BodyFault::Trailer(FieldFault::ObsFold)),
            ("0\r\na : b\r\n", BodyFault::Trailer(FieldFault::SpaceBeforeColon)),
            ("0\r\nHost: \0\r\n", BodyFault::Trailer(FieldFault::ControlInValue)),
            ("0\r\nGET / HTTP/1.1\r\n", BodyFault::Trailer(FieldFault::InvalidFieldName)),
        ] {
            assert_eq!(decode(Framing::Chunked, input.as_bytes()), Err(fault), "{input:?}");
        }
    }

    #[test]
    fn an_error_stays() {
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        assert_eq!(decoder.decode(&mut b"x".to_vec()), Err(BodyFault::InvalidChunkSize));
        assert_eq!(decoder.decode(&mut b"0\r\n\r\n".to_vec()), Err(BodyFault::InvalidChunkSize));
        assert_eq!(decoder.decode(&mut []), Err(BodyFault::InvalidChunkSize));
        assert_eq!(decoder.end_of_input(), Err(BodyFault::InvalidChunkSize));
        decoder.reset(Framing::Chunked);
        assert!(decoder.decode(&mut b"0\r\n\r\n".to_vec()).unwrap().is_done);
    }

    #[test]
    fn floods_are_bounded_and_long_streams_are_not() {
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        let owed = |bytes: u64| format!("1;{}", "x".repeat(bytes as usize)).into_bytes();
        assert!(decoder.decode(&mut owed(EXTENSION_DEBT_MAX)).is_ok());
        assert_eq!(decoder.decode(&mut b"x".to_vec()), Err(BodyFault::ChunkExtensionFlood));
        decoder.reset(Framing::Chunked);
        assert!(decoder.decode(&mut owed(EXTENSION_DEBT_MAX)).is_ok());
        assert_eq!(
            decoder.decode(&mut b"\r\nx\r\n1;ab".to_vec()),
            Err(BodyFault::ChunkExtensionFlood)
        );
        decoder.reset(Framing::Chunked);
        let zeros = "0".repeat(16 + EXTENSION_DEBT_MAX as usize);
        assert!(decoder.decode(&mut zeros.into_bytes()).is_ok());
        assert_eq!(decoder.decode(&mut b"0".to_vec()), Err(BodyFault::ChunkExtensionFlood));
        // A signature of 85 bytes with each chunk, for ever.
        decoder.reset(Framing::Chunked);
        for _ in 0..1000 {
            let mut input =
                format!("64;s={}\r\n{}\r\n", "f".repeat(85), "x".repeat(100)).into_bytes();
            assert_eq!(decoder.decode(&mut input).unwrap().data.len(), 100);
        }

        decoder.reset(Framing::Chunked);
        let line = |len: usize| format!("a: {}\r\n", "b".repeat(len - 5)).into_bytes();
        assert!(decoder.decode(&mut b"0\r\n".to_vec()).is_ok());
        assert!(decoder.decode(&mut line(TRAILER_BYTES_MAX - 2)).is_ok());
        assert!(decoder.clone().decode(&mut b"\r\n".to_vec()).unwrap().is_done);
        assert_eq!(decoder.decode(&mut b"a:\r\n".to_vec()), Err(BodyFault::TrailersTooLarge));
        let lines = |count: usize| format!("0\r\n{}\r\n", "Host:\r\n".repeat(count)).into_bytes();
        decoder.reset(Framing::Chunked);
        assert!(decoder.decode(&mut lines(TRAILER_LINES_MAX)).unwrap().is_done);
        decoder.reset(Framing::Chunked);
        assert_eq!(
            decoder.decode(&mut lines(TRAILER_LINES_MAX + 1)),
            Err(BodyFault::TrailersTooLarge)
        );
    }

    #[test]
    fn lengths_and_ends() {
        let done =
            |body: &str, consumed, is_done| Ok((body.to_owned(), String::new(), consumed, is_done));
        assert_eq!(decode(Framing::None, b"GET"), done("", 0, true));
        assert_eq!(decode(Framing::Length(0), b"GET"), done("", 0, true));
        assert_eq!(decode(Framing::Length(3), b"abcGET"), done("abc", 3, true));
        assert_eq!(decode(Framing::Length(4), b"abc"), done("abc", 3, false));
        assert_eq!(decode(Framing::UntilClose, b"abc"), done("abc", 3, false));
        assert_eq!(decode(Framing::Tunnel, b"0\r\n\r\n"), done("0\r\n\r\n", 5, false));
        // RFC 9112 §8: only a body that ends with the connection is complete when it ends.
        for (framing, input, expected) in [
            (Framing::None, "", Ok(())),
            (Framing::UntilClose, "abc", Ok(())),
            (Framing::Length(3), "abc", Ok(())),
            (Framing::Length(3), "ab", Err(BodyFault::Incomplete)),
            (Framing::Chunked, "", Err(BodyFault::Incomplete)),
            (Framing::Chunked, "1\r\nx\r\n", Err(BodyFault::Incomplete)),
            (Framing::Chunked, "0\r\n", Err(BodyFault::Incomplete)),
            (Framing::Chunked, "0\r\na: b\r\n", Err(BodyFault::Incomplete)),
            (Framing::Chunked, "0\r\n\r\n", Ok(())),
        ] {
            let mut decoder = BodyDecoder::new(framing);
            decoder.decode(&mut input.as_bytes().to_vec()).unwrap();
            assert_eq!(decoder.end_of_input(), expected, "{framing:?} {input:?}");
        }
    }

    #[test]
    fn announced_bytes_come_before_the_bytes() {
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        decoder.decode(&mut b"2\r\nab\r\n7fffffffffffffff\r\nc".to_vec()).unwrap();
        assert_eq!((decoder.total_bytes(), decoder.announced_bytes()), (3, 2 + BODY_BYTES_MAX));
        assert_eq!(decoder.remaining(), None);
        decoder.reset(Framing::Length(9));
        decoder.decode(&mut b"abc".to_vec()).unwrap();
        assert_eq!(
            (decoder.total_bytes(), decoder.announced_bytes(), decoder.remaining()),
            (3, 9, Some(6))
        );
    }

    #[test]
    fn listed_trailers_are_dropped() {
        let head = b"Connection: close, X-Sum\r\n\r\n";
        let mut fields = Fields::default();
        fields.parse(head, 0).unwrap();
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        decoder.drop_listed_trailers(&fields, head);
        decoder.decode(&mut b"0\r\nx-sum: 1\r\nx-su: 2\r\n\r\n".to_vec()).unwrap();
        assert_eq!(decoder.trailers(), b"x-su: 2\r\n");
        decoder.reset(Framing::Chunked);
        decoder.decode(&mut b"0\r\nx-sum: 1\r\n\r\n".to_vec()).unwrap();
        assert_eq!(decoder.trailers(), b"x-sum: 1\r\n");
    }

    #[test]
    fn chunk_heads() {
        for (len, expected) in [
            (1, "1\r\n"),
            (15, "f\r\n"),
            (16, "10\r\n"),
            (0x1f0, "1f0\r\n"),
            (usize::MAX, "ffffffffffffffff\r\n"),
        ] {
            let mut out = [0; CHUNK_HEAD_BYTES_MAX];
            let written = chunk_head(len, &mut out);
            assert_eq!(&out[..written], expected.as_bytes());
        }
    }
}
