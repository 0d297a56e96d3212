//! A core's part of the access log: lines are put into a buffer of its own, and full buffers given away.
//!
//! The crossing: buffers go to the one writer over a channel with room for all there are, and come back empty, with
//! the number of lines that could not be written, over a channel of this core's. Nobody waits for the writer: a line
//! for which there is no buffer is dropped and counted. Nothing is allocated after the start.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::client::Client;
use super::desk::Desk;
use super::shard::Shard;
use crate::access_log::{Asked, CLIENT_LEFT, Entry, Format, LINE_BYTES_MAX};
use crate::http::FieldKind;
use crate::io::Io;
use crate::metrics::{Count, Counters};
use crate::time::Instant;

/// Lines of one core on their way to the writer.
#[derive(Debug)]
pub struct Batch {
    /// Which worker's, counted from 0 in core order.
    pub worker: usize,
    /// Whole lines.
    pub lines: Vec<u8>,
}

/// A buffer on its way back.
#[derive(Debug)]
pub struct Spare {
    /// The buffer, empty.
    pub buffer: Vec<u8>,
    /// Lines of it that could not be written.
    pub lost: u64,
}

/// A worker's end of the access log.
#[derive(Debug)]
pub struct LogMail {
    worker: usize,
    core: usize,
    format: Format,
    full: Sender<Batch>,
    spare: Receiver<Spare>,
}

/// The writer's end.
#[derive(Debug)]
pub struct LogOutlet {
    /// What is to be written.
    pub full: Receiver<Batch>,
    /// Where each worker's buffers go back to; there is room for all of them.
    pub spares: Vec<Sender<Spare>>,
}

impl LogMail {
    /// One end for each worker, in core order, and the writer's.
    pub fn for_cores(cores: &[usize], format: Format) -> (Vec<Self>, LogOutlet) {
        let (to_writer, full) = bounded(cores.len() * BUFFERS);
        let mut outlet = LogOutlet { full, spares: Vec::new() };
        let mails = cores.iter().enumerate().map(|(worker, &core)| {
            let (to_worker, spare) = bounded(BUFFERS);
            for _ in 0..BUFFERS {
                let buffer = Vec::with_capacity(BUFFER_BYTES);
                // There is room for all of them.
                let _ = to_worker.try_send(Spare { buffer, lost: 0 });
            }
            outlet.spares.push(to_worker);
            Self { worker, core, format, full: to_writer.clone(), spare }
        });
        (mails.collect(), outlet)
    }
}

/// The lines of one core.
pub(super) struct AccessLog {
    mail: LogMail,
    /// Of no capacity until the first line.
    buffer: RefCell<Vec<u8>>,
    /// When its first line was put in.
    since: Cell<Instant>,
}

impl AccessLog {
    pub(super) fn new(mail: LogMail) -> Self {
        Self { mail, buffer: RefCell::default(), since: Cell::default() }
    }

    fn write(&self, entry: &Entry<'_>, now: Instant, counters: &Counters) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.capacity() - buffer.len() < LINE_BYTES_MAX
            && !self.turn_over(&mut buffer, counters)
        {
            return counters.add(Count::LogLinesDropped, 1);
        }
        if buffer.is_empty() {
            self.since.set(now);
        }
        self.mail.format.write(&mut buffer, entry);
    }

    /// Gives away what has waited long enough.
    pub(super) fn tick(&self, now: Instant, counters: &Counters) {
        let mut buffer = self.buffer.borrow_mut();
        if !buffer.is_empty() && now.since(self.since.get()) >= FLUSH_AFTER {
            self.turn_over(&mut buffer, counters);
        }
    }

    /// Gives away what there is.
    pub(super) fn flush(&self, counters: &Counters) {
        let mut buffer = self.buffer.borrow_mut();
        if !buffer.is_empty() {
            self.give(std::mem::take(&mut buffer), counters);
        }
    }

    /// Puts an empty buffer in place of this one; false if there is none.
    fn turn_over(&self, buffer: &mut Vec<u8>, counters: &Counters) -> bool {
        let Ok(spare) = self.mail.spare.try_recv() else { return false };
        counters.add(Count::LogLinesDropped, spare.lost);
        let full = std::mem::replace(buffer, spare.buffer);
        if !full.is_empty() {
            self.give(full, counters);
        }
        true
    }

    fn give(&self, lines: Vec<u8>, counters: &Counters) {
        let batch = Batch { worker: self.mail.worker, lines };
        // There is room for every buffer, so only a writer that has ended takes none.
        if let Err(refused) = self.mail.full.try_send(batch) {
            counters.add(Count::LogLinesDropped, lines_in(&refused.into_inner().lines));
        }
    }
}

/// How many lines end in these bytes.
pub fn lines_in(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

impl<I: Io> Shard<I> {
    /// Keeps the request's head for the line of a request that will not hold it to its end.
    pub(super) fn keep_head(&self, desk: &mut Desk) {
        if self.access.is_some() {
            desk.papers.head.clear();
            desk.papers.head.extend_from_slice(desk.inbound.held());
            desk.record.is_head_kept = true;
        }
    }

    /// The request in `desk` is over.
    pub(super) fn log(&self, client: &Client<I>, desk: &Desk) {
        let Some(access) = &self.access else { return };
        let Desk { record, request, .. } = desk;
        let head = match record.is_head_kept {
            true => &desk.papers.head[..],
            false => desk.inbound.held(),
        };
        let asked = match record.is_whole {
            true => Asked::Parsed {
                method: request.method_span.of(head),
                target: request.target.span.of(head),
                version: request.version.digits(),
            },
            false => {
                Asked::Raw(first_line(if head.is_empty() { desk.inbound.unread() } else { head }))
            }
        };
        let [mut host, mut referer, mut user_agent] = [&[][..]; 3];
        if record.is_whole {
            host = request.host.of(head);
            for field in request.fields.lines() {
                match field.kind {
                    FieldKind::Referer => referer = field.value.of(head),
                    FieldKind::UserAgent => user_agent = field.value.of(head),
                    _ => {}
                }
            }
        }
        let (now, wall, date) = (self.now(), self.io.wall(), self.date());
        let is_answered = record.status != 0;
        let entry = Entry {
            date: &date,
            ms: (wall.as_ms() % 1000) as u16,
            client: client.peer.address,
            asked,
            host,
            referer,
            user_agent,
            status: if is_answered { record.status } else { CLIENT_LEFT },
            core: access.mail.core,
            backend: "",
            tries: record.tries,
            cache: record.cache,
            reason: if is_answered || !record.reason.is_empty() {
                record.reason
            } else {
                "client_left"
            },
            queue: record.queue,
            connect: record.connect,
            first_byte: record.first_byte,
            total: now.since(record.began),
            bytes_in: head.len() as u64 + if record.is_sent { desk.up.bytes_in() } else { 0 },
            bytes_out: record.bytes_out,
            head_out: record.head_out,
        };
        let named = record.slot.and_then(|slot| {
            self.with_backend(slot, |backend| {
                access.write(&entry.with_backend(&backend.name), now, &self.counters);
            })
        });
        if named.is_none() {
            access.write(&entry, now, &self.counters);
        }
    }
}

/// The first line of what is no request, without its end; a stray empty line before it does not count.
fn first_line(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let line = memchr::memchr(b'\n', bytes).map_or(bytes, |end| &bytes[..end]);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Buffers of a core. All of them hold what is logged in some 30 ms at 100,000 requests a second: so long may a write
/// take before lines are dropped.
pub(super) const BUFFERS: usize = 12;
pub(super) const BUFFER_BYTES: usize = 64 * 1024;
const _: () = assert!(BUFFER_BYTES >= 2 * LINE_BYTES_MAX);
/// How old a line may get in a buffer while the core ticks.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn entry() -> Entry<'static> {
        Entry {
            date: b"Fri, 27 Nov 2026 10:17:38 GMT",
            ms: 0,
            client: Ipv4Addr::LOCALHOST.into(),
            asked: Asked::Parsed { method: b"GET", target: b"/", version: "1.1" },
            host: b"",
            referer: b"",
            user_agent: b"",
            status: 200,
            core: 0,
            backend: "",
            tries: 1,
            cache: None,
            reason: "",
            queue: Duration::ZERO,
            connect: Duration::ZERO,
            first_byte: Duration::ZERO,
            total: Duration::ZERO,
            bytes_in: 0,
            bytes_out: 0,
            head_out: 0,
        }
    }

    fn log() -> (AccessLog, LogOutlet, Counters) {
        let (mut mails, outlet) = LogMail::for_cores(&[5], Format::Common);
        (AccessLog::new(mails.pop().unwrap()), outlet, Counters::new())
    }

    const fn at(ms: u64) -> Instant {
        Instant::from_ns(ms * 1_000_000)
    }

    #[test]
    fn lines_leave_when_the_buffer_is_full_or_old() {
        let (log, outlet, counters) = log();
        log.tick(at(500), &counters);
        log.write(&entry(), at(1000), &counters);
        log.tick(at(1099), &counters);
        assert!(outlet.full.is_empty());
        log.tick(at(1100), &counters);
        assert_eq!(lines_in(&outlet.full.try_recv().unwrap().lines), 1);
        let mut written = 0;
        while outlet.full.is_empty() {
            log.write(&entry(), at(1101), &counters);
            written += 1;
        }
        let batch = outlet.full.try_recv().unwrap();
        assert_eq!(lines_in(&batch.lines), written - 1);
        assert!(batch.lines.capacity() == BUFFER_BYTES && batch.lines.ends_with(b"\n"));
        log.flush(&counters);
        assert_eq!(lines_in(&outlet.full.try_recv().unwrap().lines), 1);
        assert_eq!(counters.get(Count::LogLinesDropped), 0);
    }

    #[test]
    fn without_a_buffer_lines_are_dropped_and_counted() {
        let (log, outlet, counters) = log();
        let mut written = 0;
        while counters.get(Count::LogLinesDropped) < 10 {
            log.write(&entry(), at(1), &counters);
            written += 1;
        }
        let mut held: Vec<Batch> = outlet.full.try_iter().collect();
        assert_eq!(held.len(), BUFFERS - 1, "the last one is still with the core");
        let given: u64 = held.iter().map(|batch| lines_in(&batch.lines)).sum();
        log.flush(&counters);
        let last = lines_in(&outlet.full.try_recv().unwrap().lines);
        assert_eq!(given + last + 10, written);
        // What the writer lost is counted by whose it was; then lines go on.
        let mut buffer = held.pop().unwrap().lines;
        buffer.clear();
        outlet.spares[0].send(Spare { buffer, lost: 7 }).unwrap();
        log.write(&entry(), at(2), &counters);
        assert_eq!(counters.get(Count::LogLinesDropped), 17);
        // Nobody writes any more.
        drop(outlet);
        log.flush(&counters);
        assert_eq!(counters.get(Count::LogLinesDropped), 18);
    }

    #[test]
    fn the_first_line_is_told_apart() {
        for (bytes, line) in [
            (&b"GET\r\nHost: a"[..], &b"GET"[..]),
            (b"\r\nGET /\nx", b"GET /"),
            (b"\x16\x03\x01", b"\x16\x03\x01"),
            (b"", b""),
            (b"\r\n\r\n", b""),
        ] {
            assert_eq!(first_line(bytes), line);
        }
    }
}
