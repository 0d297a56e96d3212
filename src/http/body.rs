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
