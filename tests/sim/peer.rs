//! What scripted peers stand on: a connection with a buffer, sleeping, and deadlines in virtual time.

use std::future::poll_fn;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use balancer::io::{Interest, Io, Listener, Status, Stream, Timer};

use crate::io::{SimIo, SimListener, SimStream};

/// Lets `time` pass.
pub async fn sleep(io: &SimIo, time: Duration) {
    let timer = io.timer();
    timer.set(Some(io.now() + time));
    poll_fn(|cx| timer.poll_expired(cx)).await;
}

/// Goes to the back of the line once.
pub async fn pause() {
    let mut has_paused = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_paused, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The next connection; failed accepts are tried again after a moment.
pub async fn accept(io: &SimIo, listener: &SimListener) -> (SimStream, SocketAddr) {
    loop {
        match poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok((movable, from)) => return (io.adopt(movable).expect("memory"), from),
            Err(_) => sleep(io, Duration::from_millis(1)).await,
        }
    }
}

/// Connects and waits for the outcome.
pub async fn connect(io: &SimIo, to: SocketAddr) -> Result<SimStream> {
    let stream = io.connect(to)?;
    poll_fn(|cx| stream.poll_ready(cx, Interest::WRITE)).await;
    stream.connected()?;
    Ok(stream)
}

/// Waits for a status; the stream's own deadline, if it has one, is an error of kind `TimedOut`.
pub async fn ready(stream: &SimStream, interest: Interest) -> Result<Status> {
    let status = poll_fn(|cx| stream.poll_ready(cx, interest)).await;
    if status.is_expired { Err(ErrorKind::TimedOut.into()) } else { Ok(status) }
}

/// Sends `bytes` in pieces of at most `piece` bytes, waiting `gap` between them.
pub async fn send_paced(
    io: &SimIo,
    stream: &SimStream,
    bytes: &[u8],
    piece: usize,
    gap: Duration,
) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let part = &rest[..rest.len().min(piece)];
        match stream.send(&[IoSlice::new(part)]) {
            Ok(0) => return Err(Error::other("send took nothing and would not block")),
            Ok(n) => rest = &rest[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ready(stream, Interest::WRITE).await?;
                continue;
            }
            Err(error) => return Err(error),
        }
        if !gap.is_zero() && !rest.is_empty() {
            sleep(io, gap).await;
        }
    }
    Ok(())
}

/// A connection of a peer, and what has been read from it ahead of its meaning.
pub struct Conn {
    pub io: SimIo,
    /// Shared, so that one task can send and read at once.
    pub stream: Rc<SimStream>,
    pub ahead: Vec<u8>,
    /// Every byte that ever arrived, for the ledger.
    pub heard: Vec<u8>,
    /// How long a wait for input may take; the error is `TimedOut`.
    pub patience: Duration,
}

impl Conn {
    pub fn new(io: &SimIo, stream: SimStream) -> Self {
        let (ahead, heard) = (Vec::new(), Vec::new());
        Self { io: io.clone(), stream: Rc::new(stream), ahead, heard, patience: PATIENCE }
    }

    pub async fn connect(io: &SimIo, to: SocketAddr) -> Result<Self> {
        Ok(Self::new(io, connect(io, to).await?))
    }

    /// Reads what is there, at most `max` bytes, waiting for the first. `Ok(0)` is an orderly end.
    pub async fn fill(&mut self, max: usize) -> Result<usize> {
        let mut piece = vec![0; max];
        self.stream.set_deadline(Some(self.io.now() + self.patience));
        let outcome = loop {
            match self.stream.recv(&mut piece) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if let Err(error) = ready(&self.stream, Interest::READ).await {
                        break Err(error);
                    }
                }
                // Whoever asked the kernel first took the error with it.
                Ok(0) if self.stream.status().is_reset => {
                    break Err(ErrorKind::ConnectionReset.into());
                }
                outcome => break outcome,
            }
        };
        self.stream.set_deadline(None);
        let n = outcome?;
        self.ahead.extend_from_slice(&piece[..n]);
        self.heard.extend_from_slice(&piece[..n]);
        Ok(n)
    }

    /// Sends all of `bytes`, however long that takes.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        send_paced(&self.io, &self.stream, bytes, usize::MAX, Duration::ZERO).await
    }

    /// Reads on until the peer ends or breaks the connection, and says which: `Ok` is an orderly end.
    pub async fn end(&mut self) -> Result<()> {
        while self.fill(4096).await? > 0 {}
        Ok(())
    }

    /// Closes with a reset.
    pub fn reset(self) {
        self.stream.abort();
    }
}

/// Peers wait longer for input than any timeout under test, and not for ever.
pub const PATIENCE: Duration = Duration::from_secs(300);
