//! The bytes of one direction: a fixed window over a connection's input.
//!
//! The front may be *held*: a message head whose spans are still read while its body streams through the room
//! behind it. Invariant: `held.start <= held.end <= start <= end <= capacity`.

use std::ops::Range;

/// A fixed piece of memory that is filled at the back and consumed at the front.
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    held: Range<usize>,
    start: usize,
    end: usize,
    /// Whether consumed bytes were overwritten since the last [`hold`](Self::hold).
    is_overwritten: bool,
}

impl Buffer {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            bytes: vec![0; capacity].into_boxed_slice(),
            held: 0..0,
            start: 0,
            end: 0,
            is_overwritten: false,
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.held = 0..0;
        self.start = 0;
        self.end = 0;
        self.is_overwritten = false;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// What has been filled in and not consumed.
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn unread_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Where the unread bytes begin, for ranges that outlive the borrow.
    pub(super) fn offset(&self) -> usize {
        self.start
    }

    /// Bytes by absolute position, as [`offset`](Self::offset) counts.
    pub(super) fn at(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    pub(super) fn consume(&mut self, n: usize) {
        assert!(n <= self.end - self.start, "consumed more than there is");
        self.start += n;
    }

    /// Consumes `n` bytes and keeps them until [`release`](Self::release), with room for a body behind them.
    pub(super) fn hold(&mut self, n: usize) {
        if self.bytes.len() - (self.start + n) < ROOM_MIN {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        self.held = self.start..self.start + n;
        self.consume(n);
        self.is_overwritten = false;
    }

    /// Forgets everything and holds a copy of `head`, which another buffer of this capacity held.
    pub(super) fn hold_copy(&mut self, head: &[u8]) {
        self.clear();
        self.bytes[..head.len()].copy_from_slice(head);
        self.end = head.len();
        self.hold(head.len());
    }

    /// The held bytes.
    pub(super) fn held(&self) -> &[u8] {
        &self.bytes[self.held.clone()]
    }

    pub(super) fn release(&mut self) {
        self.held = self.start..self.start;
    }

    /// Takes everything behind the held bytes back to unread, if it is all still there.
    pub(super) fn rewind(&mut self) -> bool {
        if !self.is_overwritten {
            self.start = self.held.end;
        }
        !self.is_overwritten
    }

    /// Whether nothing was consumed behind the held bytes.
    pub(super) fn is_unconsumed(&self) -> bool {
        !self.is_overwritten && self.start == self.held.end
    }

    /// Whether [`rewind`](Self::rewind) would succeed.
    pub(super) fn can_rewind(&self) -> bool {
        !self.is_overwritten
    }

    /// Room to fill. Overwrites consumed bytes when there is little room behind the last one. Never empty while
    /// what is held and unread together leaves room at all.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        let has_held = !self.held.is_empty();
        let floor = if has_held { self.held.end } else { 0 };
        if self.is_empty() && self.start > floor {
            if !has_held || self.bytes.len() - self.end < ROOM_MIN {
                self.is_overwritten = true;
                self.start = floor;
                self.end = floor;
            }
        } else if self.bytes.len() - self.end < ROOM_MIN && self.start > floor {
            self.is_overwritten = true;
            self.bytes.copy_within(self.start..self.end, floor);
            self.end -= self.start - floor;
            self.start = floor;
        }
        if !has_held {
            self.held = self.start..self.start;
        }
        let end = self.bytes.len().min(self.end + READ_MAX);
        &mut self.bytes[self.end..end]
    }

    /// Adds the first `n` bytes of [`spare`](Self::spare) to what is unread.
    pub(super) fn filled(&mut self, n: usize) {
        assert!(n <= self.bytes.len() - self.end, "filled more than there was room for");
        self.end += n;
    }
}

/// With less room than this behind the unread bytes they are moved to the front.
pub(super) const ROOM_MIN: usize = 8 * 1024;
/// Most bytes of one read.
const READ_MAX: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.spare()[..bytes.len()].copy_from_slice(bytes);
        buffer.filled(bytes.len());
    }

    #[test]
    fn a_held_head_stays_while_a_body_streams_behind_it() {
        let mut buffer = Buffer::new(ROOM_MIN + 64);
        fill(&mut buffer, b"HEADbody");
        buffer.hold(4);
        for round in 0..5_000_u32 {
            assert_eq!(buffer.held(), b"HEAD");
            let n = buffer.unread().len();
            buffer.consume(n);
            fill(&mut buffer, &round.to_be_bytes());
            assert_eq!(buffer.unread(), round.to_be_bytes());
        }
        assert!(!buffer.can_rewind());
    }

    #[test]
    fn a_body_that_was_not_overwritten_can_be_read_again() {
        let mut buffer = Buffer::new(4 * ROOM_MIN);
        fill(&mut buffer, b"HEADbody");
        buffer.hold(4);
        buffer.consume(4);
        fill(&mut buffer, b" and more");
        buffer.consume(9);
        assert!(buffer.rewind());
        assert_eq!(buffer.unread(), b"body and more");
        assert_eq!(buffer.held(), b"HEAD");
    }

    #[test]
    fn a_head_that_ends_where_the_buffer_does_leaves_room_for_its_body() {
        for end in 0..ROOM_MIN {
            let mut buffer = Buffer::new(2 * ROOM_MIN);
            fill(&mut buffer, &vec![b'.'; ROOM_MIN]);
            buffer.consume(ROOM_MIN - 4);
            fill(&mut buffer, &vec![b'h'; ROOM_MIN - end]);
            buffer.consume(4);
            buffer.hold(ROOM_MIN - end);
            assert!(buffer.is_empty() && buffer.can_rewind());
            fill(&mut buffer, b"body");
            assert_eq!(
                (buffer.held(), buffer.unread()),
                (&vec![b'h'; ROOM_MIN - end][..], &b"body"[..])
            );
        }
    }

    #[test]
    fn unread_bytes_move_to_the_front_when_room_is_short() {
        let mut buffer = Buffer::new(ROOM_MIN + 8);
        fill(&mut buffer, b"0123456789");
        buffer.consume(7);
        assert!(buffer.spare().len() >= ROOM_MIN);
        assert_eq!(buffer.unread(), b"789");
        buffer.consume(3);
        assert_eq!(buffer.spare().len(), ROOM_MIN + 8);
    }
}
