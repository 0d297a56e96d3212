//! What a [`Driver`](super::driver::Driver) hands out: sockets, listeners, timers. Each is a descriptor and a slot.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Result};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};

use super::driver::Registered;
use super::slots::{BROKEN, FINISHED, READABLE, RESET, WRITABLE};
use super::{Interest, Io as _, Listener, Status, Stream, Timer, socket};
use crate::time::Instant;

/// A TCP connection, client's or backend's.
pub struct Socket {
    // Before the descriptor: the slot is released while its token cannot yet be anybody else's.
    slot: Registered,
    fd: OwnedFd,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd, slot: Registered) -> Self {
        Self { slot, fd }
    }

    /// Keeps an error of a write for who reads. EPIPE comes after an orderly end (or after an error that was told
    /// already); the end stays one.
    fn kept(&self, outcome: Result<usize>) -> Result<usize> {
        if let Err(error) = &outcome
            && !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::BrokenPipe)
        {
            self.slot.with(|slots, index| slots.set(index, BROKEN));
        }
        outcome
    }

    /// Clears `bit` when the outcome shows that the kernel has nothing more of it.
    fn note(&self, outcome: &Result<usize>, asked: usize, bit: u8, sticky: u8) {
        let is_drained = match outcome {
            Ok(n) => *n < asked,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        if is_drained {
            self.slot.with(|slots, index| {
                if !slots.has(index, sticky) {
                    slots.clear(index, bit);
                }
            });
        }
    }
}

/// A connection that no core watches.
#[derive(Debug)]
pub struct Detached(pub(super) OwnedFd);

impl Stream for Socket {
    type Movable = Detached;

    fn detach(self) -> Detached {
        // The descriptor stays open, so its last close does not take it out of this core's epoll.
        self.slot.driver().forget(&self.fd);
        Detached(self.fd)
    }

    fn recv(&self, into: &mut [u8]) -> Result<usize> {
        if !self.slot.with(|slots, index| slots.has(index, READABLE)) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let outcome = socket::recv(self.fd.as_fd(), into);
        self.note(&outcome, into.len(), READABLE, FINISHED | RESET);
        if matches!(outcome, Ok(0)) && self.slot.with(|slots, index| slots.has(index, BROKEN)) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        outcome
    }

    fn send(&self, from: &[IoSlice<'_>]) -> Result<usize> {
        if !self.slot.with(|slots, index| slots.has(index, WRITABLE)) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let asked = from.iter().map(|slice| slice.len()).sum();
        let outcome = socket::send(self.fd.as_fd(), from);
        self.note(&outcome, asked, WRITABLE, RESET);
        self.kept(outcome)
    }

    fn send_file(&self, lead: &[u8], file: &File, offset: u64, bytes: usize) -> Result<usize> {
        if !self.slot.with(|slots, index| slots.has(index, WRITABLE)) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut written = 0;
        if !lead.is_empty() {
            let outcome = socket::send_before_more(self.fd.as_fd(), lead);
            self.note(&outcome, lead.len(), WRITABLE, RESET);
            written = self.kept(outcome)?;
            if written < lead.len() {
                return Ok(written);
            }
        }
        // A short count proves nothing here: only the refusal tells that the kernel has no room.
        let outcome = socket::send_file(self.fd.as_fd(), file.as_fd(), offset, bytes);
        self.note(&outcome, 0, WRITABLE, RESET);
        match self.kept(outcome) {
            Ok(n) => Ok(written + n),
            Err(_) if written > 0 => Ok(written),
            Err(error) => Err(error),
        }
    }

    fn poll_ready(&self, cx: &mut Context<'_>, interest: Interest) -> Poll<Status> {
        let (ready, replaced) = self.slot.with(|slots, index| slots.poll(index, interest, cx));
        drop(replaced);
        ready.map(|()| self.status())
    }

    fn status(&self) -> Status {
        self.slot.with(|slots, index| slots.status(index))
    }

    fn is_quiet(&self) -> bool {
        let status = self.status();
        if status.is_finished || status.is_reset {
            return false;
        }
        if !status.is_readable {
            return true;
        }
        // The bit may be left over from a read that filled its slice exactly.
        let is_quiet = socket::is_quiet(self.fd.as_fd());
        if is_quiet {
            self.slot.with(|slots, index| slots.clear(index, READABLE));
        }
        is_quiet
    }

    fn unacknowledged(&self) -> Option<u64> {
        socket::unacknowledged(self.fd.as_fd())
    }

    fn connected(&self) -> Result<()> {
        socket::take_error(self.fd.as_fd())
    }

    fn finish(&self) {
        socket::shutdown_write(self.fd.as_fd());
    }

    fn abort(&self) {
        socket::reset_on_close(self.fd.as_fd());
    }

    fn settle(&self) {
        socket::end_on_close(self.fd.as_fd());
    }

    fn set_deadline(&self, deadline: Option<Instant>) {
        let now = self.slot.driver().now();
        self.slot.with(|slots, index| slots.set_deadline(index, deadline, now));
    }

    fn watch(&self, tag: Option<u64>) {
        let forgotten = self.slot.with(|slots, index| {
            slots.set_tag(index, tag);
            // Whoever takes the stream next is another task; do not keep this one's memory alive.
            slots.forget_waker(index)
        });
        drop(forgotten);
    }
}

/// A listening socket of this core.
pub struct Accepting {
    slot: Registered,
    listener: TcpListener,
}

impl Accepting {
    pub(super) fn new(listener: TcpListener, slot: Registered) -> Self {
        Self { slot, listener }
    }
}

impl Drop for Accepting {
    /// Where another process has the socket, too, closing ours would not end its events.
    fn drop(&mut self) {
        self.slot.driver().forget(&self.listener);
    }
}

impl Listener for Accepting {
    type Movable = Detached;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<(Detached, SocketAddr)>> {
        loop {
            let (ready, replaced) =
                self.slot.with(|slots, index| slots.poll(index, Interest::READ, cx));
            drop(replaced);
            if ready.is_pending() {
                return Poll::Pending;
            }
            match socket::accept(&self.listener) {
                Ok((fd, peer)) => return Poll::Ready(Ok((Detached(fd), peer))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.slot.with(|slots, index| slots.clear(index, READABLE));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// A deadline that belongs to no socket.
pub struct Deadline {
    slot: Registered,
}

impl Deadline {
    pub(super) fn new(slot: Registered) -> Self {
        Self { slot }
    }
}

impl Timer for Deadline {
    fn set(&self, deadline: Option<Instant>) {
        let now = self.slot.driver().now();
        self.slot.with(|slots, index| slots.set_deadline(index, deadline, now));
    }

    fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        let (ready, replaced) =
            self.slot.with(|slots, index| slots.poll(index, Interest::NONE, cx));
        drop(replaced);
        if ready.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    }
}
