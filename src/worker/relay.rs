//! Body bytes from one connection to the other, in our own framing.
//!
//! A [`Flow`] is one direction of one exchange. It owns no bytes of the body: they are decoded in place in the source's
//! [`Buffer`] and written from there, with what goes in front (a head, a chunk size) and behind (a chunk's end, the
//! last chunk) in one vectored write. It reads nothing new before everything old is written: that is the
//! backpressure, and the bound on memory.
//!
//! A response that is being stored is copied into the store's body as it is decoded ([`Flow::tee`]).

use std::io::{ErrorKind, IoSlice};
use std::ops::Range;

use super::buffer::Buffer;
use crate::cache::store::BodyWriter;
use crate::http::body::{CHUNK_END, CHUNK_HEAD_BYTES_MAX, LAST_CHUNK_HEAD, chunk_head};
use crate::http::reject::BodyFault;
use crate::http::{BodyDecoder, Fields, Framing};
use crate::io::Stream;

/// One direction of one exchange.
#[derive(Default)]
pub(super) struct Flow {
    decoder: BodyDecoder,
    framing: Framing,
    is_chunked_out: bool,
    /// Goes before the data: a message head, a chunk size.
    lead: Vec<u8>,
    /// Body bytes, by position in the source's buffer.
    data: Range<usize>,
    /// Goes behind the data: a chunk's end, the last chunk with its trailers.
    tail: Vec<u8>,
    /// How much of lead, data and tail has been written.
    written: usize,
    /// Whether the body's last byte has been decoded.
    is_ended: bool,
    keeps_trailers: bool,
    bytes_in: u64,
    bytes_out: u64,
    /// Body bytes it may carry.
    bytes_max: u64,
    /// Where body bytes go besides; gone when it has them all, or will not get them.
    writer: Option<BodyWriter>,
}

enum Fetched {
    /// There are bytes to decode, or the end has come.
    Some,
    None(Pump),
}

/// Where a [`Flow`] stands when it can do no more for now.
#[derive(Debug)]
pub(super) enum Pump {
    /// Everything was relayed.
    Done,
    /// The source has nothing to read.
    AwaitsSource,
    /// The sink takes nothing more.
    AwaitsSink,
    /// It has used up its share of this turn.
    Yields,
    /// The source ended before the body did.
    SourceShort,
    /// Reading failed.
    SourceFailed,
    /// Writing failed.
    SinkFailed,
    /// The body is not what its framing promised.
    Malformed(BodyFault),
    /// The body is larger than [`Flow::limit`] allows; nothing beyond the limit was written.
    TooLarge,
}

impl Flow {
    /// Prepares for a message whose head the caller writes into what is returned. `framing` is the source's;
    /// `is_chunked_out` ours.
    pub(super) fn begin(&mut self, framing: Framing, is_chunked_out: bool, keeps_trailers: bool) {
        self.decoder.reset(framing);
        self.framing = framing;
        self.is_chunked_out = is_chunked_out;
        self.keeps_trailers = keeps_trailers;
        self.lead.clear();
        self.data = 0..0;
        self.tail.clear();
        self.written = 0;
        self.bytes_in = 0;
        self.bytes_out = 0;
        self.bytes_max = u64::MAX;
        self.writer = None;
        self.is_ended = self.decoder.is_done();
    }

    /// Gives every body byte from here on to `writer`, too. To be called before the first is decoded.
    pub(super) fn tee(&mut self, writer: BodyWriter) {
        debug_assert!(self.bytes_in == 0);
        if self.is_ended {
            writer.complete();
        } else {
            self.writer = Some(writer);
        }
    }

    /// Ends that. What has no end yet will never have one.
    pub(super) fn untee(&mut self) {
        self.writer = None;
    }

    /// Whether there is a writer that waits for more.
    pub(super) fn is_teeing(&self) -> bool {
        self.writer.is_some()
    }

    /// What is staged and not written, where the source told its length: the rest of the lead, and how many bytes of
    /// the body have been written.
    pub(super) fn unsent(&self) -> (&[u8], u64) {
        debug_assert!(!self.is_chunked_out && self.tail.is_empty());
        let lead = &self.lead[self.written.min(self.lead.len())..];
        let staged = self.written.saturating_sub(self.lead.len()) as u64;
        (lead, self.bytes_in - self.data.len() as u64 + staged)
    }

    /// As [`pump`](Self::pump) without a sink: what is decoded goes to the writer alone.
    pub(super) fn absorb<S: Stream>(&mut self, source: &S, buffer: &mut Buffer) -> Pump {
        let allowance = self.bytes_in + BYTES_PER_TURN;
        loop {
            self.lead.clear();
            self.data = 0..0;
            self.tail.clear();
            self.written = 0;
            if self.is_ended {
                return Pump::Done;
            }
            if !buffer.is_empty() {
                if let Err(fault) = self.decode(buffer) {
                    return Pump::Malformed(fault);
                }
                continue;
            }
            if self.bytes_in >= allowance {
                return Pump::Yields;
            }
            match self.fetch(source, buffer) {
                Fetched::Some => {}
                Fetched::None(why) => return why,
            }
        }
    }

    /// Takes the staged head back, to put another one in its place. What else is staged stays, so nothing of it may
    /// have been written. [`head_again`](Self::head_again) ends this.
    pub(super) fn unhead(&mut self) {
        debug_assert!(self.bytes_out == 0);
        self.lead.clear();
    }

    /// The new head is written.
    pub(super) fn head_again(&mut self) {
        self.lead_chunk();
    }

    /// Carries at most `bytes_max` body bytes of this message.
    pub(super) fn limit(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
    }

    /// Whether the body is larger than allowed, as far as it has been decoded or announced.
    pub(super) fn is_too_large(&self) -> bool {
        self.decoder.announced_bytes() > self.bytes_max
    }

    /// The bytes to go before the body; append to them only before the first [`pump`](Self::pump), or after a
    /// [`flush`](Self::flush) that was done.
    pub(super) fn lead(&mut self) -> &mut Vec<u8> {
        &mut self.lead
    }

    /// Trailer fields that `fields` lists in Connection belong to the hop and go no further.
    pub(super) fn drop_listed_trailers(&mut self, fields: &Fields, head: &[u8]) {
        self.decoder.drop_listed_trailers(fields, head);
    }

    /// Bytes read of the body so far, after decoding.
    pub(super) fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    /// Bytes written so far, framing included.
    pub(super) fn bytes_out(&self) -> u64 {
        self.bytes_out
    }

    /// The source's framing.
    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the sink can tell a short body from a whole one when its connection just ends.
    pub(super) fn marks_its_end(&self) -> bool {
        self.is_chunked_out
            || self.framing != Framing::UntilClose && self.framing != Framing::Chunked
    }

    /// Whether the whole body has been read (not: written).
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Moves bytes until it must wait, has finished, or has moved its share of one turn.
    pub(super) fn pump<S: Stream>(&mut self, source: &S, buffer: &mut Buffer, sink: &S) -> Pump {
        let allowance = self.bytes_out + BYTES_PER_TURN;
        loop {
            if !self.is_ended && self.is_written() && !buffer.is_empty() {
                self.written_off();
                if let Err(fault) = self.decode(buffer) {
                    return Pump::Malformed(fault);
                }
                if self.is_too_large() {
                    return Pump::TooLarge;
                }
            }
            match self.flush(buffer, sink) {
                Pump::Done => {}
                blocked => return blocked,
            }
            if self.is_ended {
                return Pump::Done;
            }
            if self.bytes_out >= allowance {
                return Pump::Yields;
            }
            if !buffer.is_empty() {
                continue;
            }
            match self.fetch(source, buffer) {
                Fetched::Some => {}
                Fetched::None(why) => return why,
            }
        }
    }

    /// Reads once. Everything staged must have been written.
    fn fetch<S: Stream>(&mut self, source: &S, buffer: &mut Buffer) -> Fetched {
        match source.recv(buffer.spare()) {
            Ok(0) => match self.decoder.end_of_input() {
                Ok(()) => {
                    self.is_ended = true;
                    self.written_off();
                    self.end_tail();
                    if let Some(writer) = self.writer.take() {
                        writer.complete();
                    }
                    Fetched::Some
                }
                Err(_) => Fetched::None(Pump::SourceShort),
            },
            Ok(n) => {
                buffer.filled(n);
                Fetched::Some
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Fetched::None(Pump::AwaitsSource)
            }
            Err(_) => Fetched::None(Pump::SourceFailed),
        }
    }

    /// Writes what is staged: `Done`, `AwaitsSink` or `SinkFailed`.
    pub(super) fn flush<S: Stream>(&mut self, buffer: &Buffer, sink: &S) -> Pump {
        while !self.is_written() {
            match self.send(buffer, sink) {
                Ok(n) => {
                    self.written += n;
                    self.bytes_out += n as u64;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Pump::AwaitsSink,
                Err(_) => return Pump::SinkFailed,
            }
        }
        Pump::Done
    }

    /// Whether a part of what is staged has been written, and a part has not.
    pub(super) fn is_torn(&self) -> bool {
        self.written > 0 && !self.is_written()
    }

    fn is_written(&self) -> bool {
        self.written == self.lead.len() + self.data.len() + self.tail.len()
    }

    /// Forgets what has been written, to stage more.
    pub(super) fn written_off(&mut self) {
        debug_assert!(self.is_written());
        self.lead.clear();
        self.data = 0..0;
        self.tail.clear();
        self.written = 0;
    }

    /// Takes body bytes that arrived together with the head, so that both leave in one write.
    ///
    /// # Errors
    /// When they are not what the framing promised.
    pub(super) fn decode(&mut self, buffer: &mut Buffer) -> Result<(), BodyFault> {
        let offset = buffer.offset();
        let decoded = self.decoder.decode(buffer.unread_mut())?;
        buffer.consume(decoded.consumed);
        self.data = offset + decoded.data.start..offset + decoded.data.end;
        self.bytes_in += self.data.len() as u64;
        self.is_ended = decoded.is_done;
        self.copy_out(buffer);
        self.lead_chunk();
        if self.is_chunked_out && !self.data.is_empty() {
            self.tail.extend_from_slice(CHUNK_END);
        }
        if self.is_ended {
            self.end_tail();
        }
        Ok(())
    }

    /// Gives the staged data to the writer. One that may take no more has aborted: the store drops what it has.
    fn copy_out(&mut self, buffer: &Buffer) {
        let Some(mut writer) = self.writer.take() else { return };
        if writer.append_and_flush(buffer.at(self.data.clone())).is_err() {
            return;
        }
        if self.is_ended {
            writer.complete();
        } else {
            self.writer = Some(writer);
        }
    }

    /// The size of the staged data, where we send chunks.
    fn lead_chunk(&mut self) {
        if self.is_chunked_out && !self.data.is_empty() {
            let mut size = [0; CHUNK_HEAD_BYTES_MAX];
            let n = chunk_head(self.data.len(), &mut size);
            self.lead.extend_from_slice(&size[..n]);
        }
    }

    /// The last chunk, where we send chunks.
    fn end_tail(&mut self) {
        if self.is_chunked_out {
            self.tail.extend_from_slice(LAST_CHUNK_HEAD);
            if self.keeps_trailers {
                self.tail.extend_from_slice(self.decoder.trailers());
            }
            self.tail.extend_from_slice(CHUNK_END);
        }
    }

    fn send<S: Stream>(&self, buffer: &Buffer, sink: &S) -> std::io::Result<usize> {
        let mut skip = self.written;
        let mut slices = [IoSlice::new(&[]); 3];
        let mut n = 0;
        for part in [&self.lead[..], buffer.at(self.data.clone()), &self.tail[..]] {
            let skipped = skip.min(part.len());
            skip -= skipped;
            if skipped < part.len() {
                slices[n] = IoSlice::new(&part[skipped..]);
                n += 1;
            }
        }
        sink.send(&slices[..n])
    }
}

/// Bytes one direction may move before other tasks of the core have their turn.
const BYTES_PER_TURN: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Interest, Status};
    use crate::time::Instant;
    use std::cell::RefCell;
    use std::io::Result;
    use std::task::{Context, Poll};

    /// Keeps what is sent; broken, it takes nothing.
    #[derive(Default)]
    struct Sink {
        sent: RefCell<Vec<u8>>,
        is_broken: bool,
    }

    impl Stream for Sink {
        type Movable = ();
        fn detach(self) {}
        fn recv(&self, _: &mut [u8]) -> Result<usize> {
            Err(ErrorKind::WouldBlock.into())
        }
        fn send(&self, from: &[IoSlice<'_>]) -> Result<usize> {
            if self.is_broken {
                return Err(ErrorKind::ConnectionReset.into());
            }
            from.iter().for_each(|slice| self.sent.borrow_mut().extend_from_slice(slice));
            Ok(from.iter().map(|slice| slice.len()).sum())
        }
        fn poll_ready(&self, _: &mut Context<'_>, _: Interest) -> Poll<Status> {
            Poll::Pending
        }
        fn status(&self) -> Status {
            Status::default()
        }
        fn is_quiet(&self) -> bool {
            true
        }
        fn connected(&self) -> Result<()> {
            Ok(())
        }
        fn finish(&self) {}
        fn abort(&self) {}
        fn settle(&self) {}
        fn set_deadline(&self, _: Option<Instant>) {}
        fn watch(&self, _: Option<u64>) {}
    }

    #[test]
    fn what_never_left_goes_out_under_another_head() {
        let input = b"2\r\nab\r\n3\r\ncde\r\n0\r\nX: 1\r\n\r\nnext";
        let mut buffer = Buffer::new(64 * 1024);
        buffer.spare()[..input.len()].copy_from_slice(input);
        buffer.filled(input.len());
        let mut flow = Flow::default();
        flow.begin(Framing::Chunked, true, true);
        flow.lead().extend_from_slice(b"FIRST ");
        // In place: the sizes between the chunks are gone now.
        flow.decode(&mut buffer).expect("a body");
        let dead = Sink { is_broken: true, ..Sink::default() };
        assert!(matches!(flow.pump(&dead, &mut buffer, &dead), Pump::SinkFailed));
        flow.unhead();
        flow.lead().extend_from_slice(b"SECOND ");
        flow.head_again();
        let alive = Sink::default();
        assert!(matches!(flow.pump(&alive, &mut buffer, &alive), Pump::Done));
        assert_eq!(*alive.sent.borrow(), b"SECOND 5\r\nabcde\r\n0\r\nX: 1\r\n\r\n");
        assert_eq!(buffer.unread(), b"next");
    }
}
