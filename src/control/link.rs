//! The agent's protocol as a pure machine: bytes and time in, bytes and events out.
//!
//! tungstenite does RFC 6455 over a pipe in memory; this file adds what the protocol leaves open: the deadline of the
//! handshake, pings, when a silent or unreading peer is dead, and the limits. No compression, no subprotocol.
//! It refuses to know sockets, names and what a frame means.
//!
//! Invariants: the outbox holds at most [`OUTBOX_BYTES`] and one frame; input beyond one message of
//! [`FRAME_BYTES_MAX`] and what one [`Link::receive`] brought is never held; after [`Event::Closed`] nothing more
//! comes.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use tungstenite::error::{CapacityError, Error};
use tungstenite::handshake::client::{ClientHandshake, generate_key};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::http::{self, Request};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Message, WebSocket, WebSocketConfig};

use crate::config::AgentConfig;
use crate::time::Instant;

/// One connection to the agent, from the first byte of the handshake to its end.
pub struct Link {
    stage: Stage,
    now: Instant,
    /// Of the handshake, then of the next ping.
    due: Instant,
    heard: Instant,
    /// Since when the peer has not taken what waits in the outbox.
    stalled: Option<Instant>,
}

enum Stage {
    /// The head of the answer is collected here, so that a dripping peer is parsed once.
    Handshaking {
        half: Box<MidHandshake<ClientHandshake<Pipe>>>,
        head: Vec<u8>,
        outbox: Pipe,
    },
    Open(Box<WebSocket<Pipe>>),
    /// The end is known but not yet told.
    Ending {
        error: LinkError,
        outbox: Pipe,
    },
    Closed {
        outbox: Pipe,
    },
}

/// What the link tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is done.
    Connected,
    /// A text message.
    Frame(String),
    /// A binary message, which means nothing here.
    Ignored,
    /// The link is over. What is in the outbox may still be sent, as a courtesy.
    Closed(LinkError),
}

/// Why a link is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The agent's name has no address.
    Unresolved,
    /// No connection came about.
    Unreachable(io::ErrorKind),
    /// No connection and handshake within [`HANDSHAKE_TIMEOUT`].
    HandshakeTimeout,
    /// The agent answered the handshake with this status.
    Refused(u16),
    /// The agent's answer to the handshake is none, or our own request cannot be written.
    BadHandshake(String),
    /// A message is longer than [`FRAME_BYTES_MAX`]; closed with 1009.
    TooLarge,
    /// A text is not UTF-8; closed with 1007.
    NotUtf8,
    /// RFC 6455 was violated; closed with 1002.
    BadProtocol(String),
    /// Neither a frame nor a pong for [`SILENCE_MAX`].
    Silent,
    /// The agent has not read what we sent for [`SILENCE_MAX`].
    Unread,
    /// The agent closed the link, with this code (1005 when it gave none).
    ClosedByAgent(u16),
    /// The connection ended without a closing handshake.
    Ended,
    /// The connection broke.
    Broken(io::ErrorKind),
}

impl LinkError {
    /// One word for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::Unreachable(_) => "unreachable",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Refused(_) => "refused",
            Self::BadHandshake(_) => "bad_handshake",
            Self::TooLarge => "too_large",
            Self::NotUtf8 => "not_utf8",
            Self::BadProtocol(_) => "bad_protocol",
            Self::Silent => "silent",
            Self::Unread => "unread",
            Self::ClosedByAgent(_) => "closed_by_agent",
            Self::Ended => "ended",
            Self::Broken(_) => "broken",
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unresolved => f.write_str("its name does not resolve"),
            Self::Unreachable(kind) => write!(f, "cannot connect: {kind}"),
            Self::HandshakeTimeout => {
                write!(f, "no WebSocket handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())
            }
            Self::Refused(status) => write!(f, "it answered the handshake with status {status}"),
            Self::BadHandshake(why) => write!(f, "bad handshake: {why}"),
            Self::TooLarge => write!(f, "a message is longer than {FRAME_BYTES_MAX} bytes"),
            Self::NotUtf8 => f.write_str("a text message is not UTF-8"),
            Self::BadProtocol(why) => write!(f, "bad WebSocket frame: {why}"),
            Self::Silent => write!(f, "neither frame nor pong for {} s", SILENCE_MAX.as_secs()),
            Self::Unread => write!(f, "it reads nothing for {} s", SILENCE_MAX.as_secs()),
            Self::ClosedByAgent(code) => write!(f, "it closed the link (code {code})"),
            Self::Ended => f.write_str("the connection ended"),
            Self::Broken(kind) => write!(f, "the connection broke: {kind}"),
        }
    }
}

impl Link {
    /// Begins a handshake for which [`HANDSHAKE_TIMEOUT`] runs from `now`; connecting is part of it.
    pub fn new(config: &AgentConfig, now: Instant) -> Self {
        let stage = match begin(config) {
            Ok(stage) => stage,
            Err(error) => {
                Stage::ending(LinkError::BadHandshake(error.to_string()), Pipe::default())
            }
        };
        let stalled = None;
        Self { stage, now, due: now + HANDSHAKE_TIMEOUT, heard: now, stalled }
    }

    /// Bytes from the agent. Ask [`poll_event`](Self::poll_event) until it has no more before the next call.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) {
        self.now = now;
        match &mut self.stage {
            Stage::Handshaking { head, .. } => head.extend_from_slice(bytes),
            Stage::Open(socket) => socket.get_mut().input.extend_from_slice(bytes),
            Stage::Ending { .. } | Stage::Closed { .. } => {}
        }
    }

    /// The agent ended its direction, or the connection broke.
    pub fn receive_end(&mut self, end: io::Result<()>, now: Instant) {
        self.now = now;
        let error = match end {
            Ok(()) => LinkError::Ended,
            Err(error) => LinkError::Broken(error.kind()),
        };
        self.end(error);
    }

    /// What is to be sent.
    pub fn output(&self) -> &[u8] {
        self.pipe().unsent()
    }

    /// The first `n` bytes of [`output`](Self::output) were sent.
    pub fn sent(&mut self, n: usize, now: Instant) {
        self.now = now;
        self.stalled = None;
        match &mut self.stage {
            Stage::Handshaking { outbox, .. } => outbox.sent(n),
            Stage::Open(socket) => {
                socket.get_mut().sent(n);
                // A pong may have waited for room.
                self.flush();
            }
            Stage::Ending { outbox, .. } | Stage::Closed { outbox } => outbox.sent(n),
        }
        self.note_output();
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let stalled = self.stalled.map_or(self.due, |since| since + SILENCE_MAX);
        match self.stage {
            Stage::Handshaking { .. } => Some(self.due),
            Stage::Open(_) => Some(self.due.min(self.heard + SILENCE_MAX).min(stalled)),
            Stage::Ending { .. } | Stage::Closed { .. } => None,
        }
    }

    /// Does what is due: gives up, or pings.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        match &mut self.stage {
            Stage::Handshaking { .. } if now >= self.due => self.end(LinkError::HandshakeTimeout),
            Stage::Open(_) if now >= self.heard + SILENCE_MAX => self.end(LinkError::Silent),
            Stage::Open(_) if self.stalled.is_some_and(|since| now >= since + SILENCE_MAX) => {
                self.end(LinkError::Unread);
            }
            Stage::Open(socket) if now >= self.due => {
                self.due = now + PING_INTERVAL;
                // With a full outbox there is a ping in it already.
                if socket.get_ref().has_room() {
                    let sent = socket.send(Message::Ping(Default::default()));
                    self.settle(sent);
                }
                self.note_output();
            }
            _ => {}
        }
    }

    /// The next event that the bytes received so far make; `None` when they make no more.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.step();
        self.note_output();
        event
    }

    fn step(&mut self) -> Option<Event> {
        loop {
            match &mut self.stage {
                Stage::Handshaking { head, .. } => match head_end(head) {
                    Some(_) => return Some(self.finish_handshake()),
                    None if head.len() > HEAD_BYTES_MAX => {
                        let why = "its head is too long".to_owned();
                        self.end(LinkError::BadHandshake(why));
                    }
                    None => return None,
                },
                Stage::Open(socket) => match socket.read() {
                    Ok(message) => {
                        self.heard = self.now;
                        match message {
                            Message::Text(text) => return Some(Event::Frame(text.to_string())),
                            Message::Binary(_) => return Some(Event::Ignored),
                            Message::Close(frame) => {
                                let code = frame.map_or(CloseCode::Status, |frame| frame.code);
                                self.flush();
                                self.end(LinkError::ClosedByAgent(code.into()));
                            }
                            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                        }
                    }
                    Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.flush();
                        return None;
                    }
                    Err(error) => self.fail(error),
                },
                Stage::Ending { .. } => return Some(self.close()),
                Stage::Closed { .. } => return None,
            }
        }
    }

    fn finish_handshake(&mut self) -> Event {
        let stage = std::mem::replace(&mut self.stage, Stage::Closed { outbox: Pipe::default() });
        let Stage::Handshaking { mut half, head, outbox } = stage else {
            unreachable!("called while handshaking");
        };
        let pipe = half.get_mut().get_mut();
        pipe.input = head;
        pipe.output = outbox.output;
        match half.handshake() {
            Ok((socket, _)) => {
                self.stage = Stage::Open(Box::new(socket));
                self.heard = self.now;
                self.due = self.now + PING_INTERVAL;
                Event::Connected
            }
            Err(HandshakeError::Failure(Error::Http(answer))) => {
                Event::Closed(LinkError::Refused(answer.status().as_u16()))
            }
            Err(error) => Event::Closed(LinkError::BadHandshake(error.to_string())),
        }
    }

    /// Says goodbye with the code that fits `error`, then ends.
    fn fail(&mut self, error: Error) {
        let (code, error) = match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                (Some(CloseCode::Size), LinkError::TooLarge)
            }
            Error::Utf8(_) => (Some(CloseCode::Invalid), LinkError::NotUtf8),
            Error::Io(error) => (None, LinkError::Broken(error.kind())),
            Error::ConnectionClosed | Error::AlreadyClosed => (None, LinkError::Ended),
            error => (Some(CloseCode::Protocol), LinkError::BadProtocol(error.to_string())),
        };
        if let (Stage::Open(socket), Some(code)) = (&mut self.stage, code) {
            // The link ends whether or not the goodbye finds room in the outbox.
            let _ = socket.close(Some(CloseFrame { code, reason: Default::default() }));
        }
        self.end(error);
    }

    fn flush(&mut self) {
        if let Stage::Open(socket) = &mut self.stage {
            let flushed = socket.flush();
            self.settle(flushed);
        }
    }

    /// Ends the link on an error that is more than a full outbox.
    fn settle(&mut self, result: Result<(), Error>) {
        match result {
            Ok(()) | Err(Error::WriteBufferFull(_)) => {}
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.fail(error),
        }
    }

    /// Keeps the outbox, lets go of all else.
    fn end(&mut self, error: LinkError) {
        let stage = std::mem::replace(&mut self.stage, Stage::Closed { outbox: Pipe::default() });
        self.stage = match stage {
            Stage::Handshaking { .. } => Stage::ending(error, Pipe::default()),
            Stage::Open(mut socket) => Stage::ending(error, std::mem::take(socket.get_mut())),
            told @ (Stage::Ending { .. } | Stage::Closed { .. }) => told,
        };
    }

    fn close(&mut self) -> Event {
        let stage = std::mem::replace(&mut self.stage, Stage::Closed { outbox: Pipe::default() });
        let Stage::Ending { error, outbox } = stage else { unreachable!("called while ending") };
        self.stage = Stage::Closed { outbox };
        Event::Closed(error)
    }

    fn note_output(&mut self) {
        match self.output().is_empty() {
            true => self.stalled = None,
            false => self.stalled = self.stalled.or(Some(self.now)),
        }
    }

    fn pipe(&self) -> &Pipe {
        match &self.stage {
            Stage::Handshaking { outbox, .. } => outbox,
            Stage::Open(socket) => socket.get_ref(),
            Stage::Ending { outbox, .. } | Stage::Closed { outbox } => outbox,
        }
    }
}

impl Stage {
    fn ending(error: LinkError, pipe: Pipe) -> Self {
        Self::Ending { error, outbox: Pipe { input: Vec::new(), read: 0, ..pipe } }
    }
}

/// Writes the request of RFC 6455 §4.1 and stops where the answer is awaited.
fn begin(config: &AgentConfig) -> Result<Stage, Error> {
    let authority = match config.host.contains(':') {
        true => format!("[{}]:{}", config.host, config.port),
        false => format!("{}:{}", config.host, config.port),
    };
    let request = Request::builder()
        .uri(format!("ws://{authority}{}", config.path))
        .header(http::header::HOST, authority)
        .header(http::header::CONNECTION, "Upgrade")
        .header(http::header::UPGRADE, "websocket")
        .header(http::header::SEC_WEBSOCKET_VERSION, "13")
        .header(http::header::SEC_WEBSOCKET_KEY, generate_key())
        .body(())?;
    let limits = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(BACKLOG_BYTES)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    match ClientHandshake::start(Pipe::default(), request, Some(limits))?.handshake() {
        Err(HandshakeError::Interrupted(mut half)) => {
            let outbox = std::mem::take(half.get_mut().get_mut());
            Ok(Stage::Handshaking { half: Box::new(half), head: Vec::new(), outbox })
        }
        Err(HandshakeError::Failure(error)) => Err(error),
        Ok(_) => unreachable!("an empty pipe answers no handshake"),
    }
}

/// Where the head of the handshake's answer ends.
fn head_end(head: &[u8]) -> Option<usize> {
    memchr::memmem::find(head, b"\r\n\r\n").map(|at| at + 4)
}

/// Both directions in memory; it would block where a socket would.
#[derive(Debug, Default)]
struct Pipe {
    input: Vec<u8>,
    /// How much of `input` was read.
    read: usize,
    output: Vec<u8>,
}

impl Pipe {
    fn unsent(&self) -> &[u8] {
        &self.output
    }

    fn sent(&mut self, n: usize) {
        self.output.drain(..n);
    }

    fn has_room(&self) -> bool {
        self.output.len() < OUTBOX_BYTES
    }
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let rest = &self.input[self.read..];
        if rest.is_empty() {
            self.input.clear();
            self.read = 0;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = rest.len().min(into.len());
        into[..n].copy_from_slice(&rest[..n]);
        self.read += n;
        Ok(n)
    }
}

impl Write for Pipe {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        if !self.has_room() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.output.extend_from_slice(from);
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Connect and handshake together.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two pings.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Without a frame or a pong the agent is dead after this long.
pub const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Longest message the agent may send.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Pongs and pings that the agent has not read; what is over that waits or merges (RFC 6455 §5.5.3).
const OUTBOX_BYTES: usize = 16 * 1024;
/// Head of the handshake's answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// What tungstenite itself keeps of them when the outbox is full: a few.
const BACKLOG_BYTES: usize = 1024;
const READ_BYTES: usize = 8 * 1024;

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
