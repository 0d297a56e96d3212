//! The one door to the outside world.
//!
//! Everything above this floor is generic over [`Io`]. Two implementations exist: [`driver`] (a glommio executor
//! with an edge-triggered epoll of our own) and the simulator in `tests/sim` (memory pipes in virtual time).
//! The seam is readiness-shaped: try, and when it would block, wait for a bit. No `Send`, no locks: an `Io` and all
//! that it hands out stay on their core, except [`Bell`], whose only purpose is to be rung from another thread, and
//! [`Io::Movable`], a connection that belongs to no core yet or no longer.

pub mod affinity;
pub mod by_cpu;
pub mod driver;
pub mod executor;
pub mod handover;
pub mod host;
pub mod listen;
mod slots;
mod socket;
mod stream;
pub mod wake;

use std::fs::File;
use std::future::Future;
use std::io::{ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::time::{Instant, WallTime};

/// The outside world of one core.
pub trait Io: Clone + 'static {
    /// A connected (or connecting) byte stream.
    type Stream: Stream<Movable = Self::Movable>;
    /// A listening socket.
    type Listener: Listener<Movable = Self::Movable>;
    /// A connection between two cores: nobody watches it, any core may adopt it. Dropping it closes it.
    type Movable: Send + 'static;
    /// A deadline that belongs to no stream.
    type Timer: Timer;
    /// Wakes this core from another thread.
    type Bell: Bell;

    /// The monotonic clock, read once per turn of the driver.
    fn now(&self) -> Instant;
    /// The wall clock, read once per turn of the driver.
    fn wall(&self) -> WallTime;
    /// How long this core has slept so far, because there was nothing to do.
    fn slept(&self) -> Duration;
    /// 64 uniform random bits.
    fn draw(&self) -> u64;
    /// Starts a task on this core. It may be polled once before this returns, so never call it under a borrow.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
    /// Begins to connect. The stream turns writable when it is connected and `reset` when it failed;
    /// [`Stream::connected`] tells which.
    fn connect(&self, to: SocketAddr) -> Result<Self::Stream>;
    /// Takes a connection over: from here on this core hears what happens on it, and what is true of it by now.
    fn adopt(&self, movable: Self::Movable) -> Result<Self::Stream>;
    /// Whether nothing at all can be read from `movable`, asking the kernel: no bytes, no end, no error.
    fn is_quiet(&self, movable: &Self::Movable) -> bool;
    /// A timer that is not set.
    fn timer(&self) -> Self::Timer;
    /// A handle that other threads wake this core with.
    fn bell(&self) -> Self::Bell;
    /// Ready once for each time the bell was rung since the last `Ready` (several rings may merge into one).
    /// One task at a time may wait here.
    fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<()>;
    /// Moves the tags of watched streams on which something happened into `tags` and is ready when there is any.
    /// One task at a time may wait here.
    fn poll_stirred(&self, cx: &mut Context<'_>, tags: &mut Vec<u64>) -> Poll<()>;
    /// Puts `pieces` one after the other into a file in memory, from which streams can send.
    ///
    /// # Errors
    /// Where there is no such thing, or no room for it.
    fn set_aside<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) -> Result<File> {
        let _ = pieces;
        Err(ErrorKind::Unsupported.into())
    }
    /// Wakes every task that waits on a stream, a listener or a timer of this core, so that it looks at the world anew:
    /// its next read or accept asks the kernel.
    fn rouse(&self);
}

/// A byte stream. All calls return at once. Dropping it closes it.
pub trait Stream: Sized + 'static {
    /// See [`Io::Movable`].
    type Movable;

    /// Lets another core have it. Its deadline, tag and waiting task are forgotten.
    fn detach(self) -> Self::Movable;
    /// Reads into `into`. `Ok(0)` is the orderly end of input, never what is left of a connection that was reset: an error
    /// that a `send` met is told here, too. `WouldBlock` means: wait for [`Interest::READ`].
    fn recv(&self, into: &mut [u8]) -> Result<usize>;
    /// Writes the slices in order and returns how many bytes went; `WouldBlock` means: wait for [`Interest::WRITE`].
    fn send(&self, from: &[IoSlice<'_>]) -> Result<usize>;
    /// Writes `lead`, then `bytes` bytes of `file` from `offset` on without copying them, and returns how many bytes of
    /// both went, as [`send`](Self::send) does. Only for files that [`Io::set_aside`] made.
    fn send_file(&self, lead: &[u8], file: &File, offset: u64, bytes: usize) -> Result<usize> {
        let _ = (lead, file, offset, bytes);
        Err(ErrorKind::Unsupported.into())
    }
    /// Ready when something in `interest` may now be tried, when the stream was reset, or when its deadline passed.
    /// Otherwise the task is woken later. A stream is waited on by one task at a time.
    fn poll_ready(&self, cx: &mut Context<'_>, interest: Interest) -> Poll<Status>;
    /// What is known without asking the kernel.
    fn status(&self) -> Status;
    /// Whether nothing at all can be read right now, asking the kernel if the bits leave it open: no bytes, no end, no error.
    fn is_quiet(&self) -> bool;
    /// Bytes that were sent and the peer has not acknowledged yet; None where that cannot be told. Asks the kernel.
    fn unacknowledged(&self) -> Option<u64> {
        None
    }
    /// How the connect went; call it once the stream is writable or reset.
    fn connected(&self) -> Result<()>;
    /// Ends our direction (FIN after what was sent).
    fn finish(&self);
    /// Makes the coming close a reset, so that the peer cannot mistake it for an orderly end.
    fn abort(&self);
    /// Takes [`abort`](Self::abort) back.
    fn settle(&self);
    /// Replaces the deadline; `None` removes it. Setting it clears [`Status::is_expired`], unless it lies in the past:
    /// then it has passed. Costs one store in most cases.
    fn set_deadline(&self, deadline: Option<Instant>);
    /// While a tag is set, events and expiry are reported through [`Io::poll_stirred`] and wake nobody else.
    fn watch(&self, tag: Option<u64>);
}

/// A listening socket.
pub trait Listener: 'static {
    /// See [`Io::Movable`].
    type Movable;
    /// The next connection, which is yet to be [adopted](Io::adopt), and who is at its other end. A failed accept of
    /// one connection is an error; the next call goes on with the next.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<(Self::Movable, SocketAddr)>>;
}

/// A deadline that belongs to no stream.
pub trait Timer: 'static {
    /// Replaces the deadline; `None` removes it. One in the past has passed.
    fn set(&self, deadline: Option<Instant>);
    /// Ready once the deadline has passed; pending while none is set.
    fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Wakes a core from another thread.
pub trait Bell: Clone + Send + Sync + 'static {
    /// Makes the core's [`Io::poll_rung`] ready. Call it after the message is where the core will look.
    /// Costs a syscall only when the core sleeps.
    fn ring(&self);
}

/// Whether an error of a connect or an accept means that something ran out here, and says nothing of the other side.
pub fn is_shortage(error: &std::io::Error) -> bool {
    use libc::{EADDRNOTAVAIL, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    let ours = [EADDRNOTAVAIL, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM];
    error.raw_os_error().is_some_and(|code| ours.contains(&code))
}

/// What a task waits for on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Bytes, or the end of input.
    pub read: bool,
    /// Room to send.
    pub write: bool,
}

impl Interest {
    /// Input only.
    pub const READ: Self = Self { read: true, write: false };
    /// Output only.
    pub const WRITE: Self = Self { read: false, write: true };
    /// Either.
    pub const BOTH: Self = Self { read: true, write: true };
    /// Neither: only a reset or the deadline.
    pub const NONE: Self = Self { read: false, write: false };
}

/// What is known of a stream without a syscall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Status {
    /// A read may be worth a try.
    pub is_readable: bool,
    /// A write may be worth a try.
    pub is_writable: bool,
    /// The peer ended its direction (there may still be bytes to read before the end).
    pub is_finished: bool,
    /// The connection is broken in both directions.
    pub is_reset: bool,
    /// The deadline passed.
    pub is_expired: bool,
}
