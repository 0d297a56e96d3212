//! The socket calls, each one syscall and nothing else. No readiness, no policy.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// Reads into `into` without waiting. `Ok(0)` is the end of input when `into` is not empty.
pub(super) fn recv(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize> {
    recv_flags(fd, into, 0)
}

/// Whether nothing at all can be read: no bytes, no end, no error.
pub(super) fn is_quiet(fd: BorrowedFd<'_>) -> bool {
    let outcome = recv_flags(fd, &mut [0], libc::MSG_PEEK);
    matches!(outcome, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn recv_flags(fd: BorrowedFd<'_>, into: &mut [u8], flags: libc::c_int) -> Result<usize> {
    loop {
        // SAFETY: the pointer and length describe `into`, which is exclusively borrowed for the call, and the
        // kernel writes at most that many bytes.
        let n = unsafe {
            libc::recv(
                fd.as_raw_fd(),
                into.as_mut_ptr().cast(),
                into.len(),
                flags | libc::MSG_DONTWAIT,
            )
        };
        match usize::try_from(n) {
            Ok(n) => return Ok(n),
            Err(_) => interrupted(Error::last_os_error())?,
        }
    }
}

/// Writes the slices in order without waiting; a broken connection is an error, never a signal.
pub(super) fn send(fd: BorrowedFd<'_>, from: &[IoSlice<'_>]) -> Result<usize> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    loop {
        let n = match from {
            // SAFETY: the pointer and length describe the one slice, which outlives the call.
            [one] => unsafe { libc::send(fd.as_raw_fd(), one.as_ptr().cast(), one.len(), flags) },
            many => {
                // SAFETY: an all-zero msghdr is a valid value: null pointers with zero lengths.
                let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
                // IoSlice is guaranteed to have the layout of iovec on Unix; sendmsg does not write through it.
                message.msg_iov = many.as_ptr().cast::<libc::iovec>().cast_mut();
                message.msg_iovlen = many.len();
                // SAFETY: `message` points at `many`, whose slices all outlive the call.
                unsafe { libc::sendmsg(fd.as_raw_fd(), &message, flags) }
            }
        };
        match usize::try_from(n) {
            Ok(n) => return Ok(n),
            Err(_) => interrupted(Error::last_os_error())?,
        }
    }
}

/// As [`send`] for one slice that more is to follow: the kernel holds it back to fill a segment.
pub(super) fn send_before_more(fd: BorrowedFd<'_>, lead: &[u8]) -> Result<usize> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_MORE;
    loop {
        // SAFETY: the pointer and length describe `lead`, which outlives the call.
        let n = unsafe { libc::send(fd.as_raw_fd(), lead.as_ptr().cast(), lead.len(), flags) };
        match usize::try_from(n) {
            Ok(n) => return Ok(n),
            Err(_) => interrupted(Error::last_os_error())?,
        }
    }
}

/// Sends a part of a file to a non-blocking socket without copying it. A broken connection is an error; the signal is
/// ignored in every Rust program.
pub(super) fn send_file(
    fd: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    bytes: usize,
) -> Result<usize> {
    let mut offset = libc::off_t::try_from(offset).map_err(|_| ErrorKind::InvalidInput)?;
    loop {
        // SAFETY: both descriptors are open for the call; `offset` is a live off_t that only this call writes.
        let n = unsafe { libc::sendfile(fd.as_raw_fd(), file.as_raw_fd(), &mut offset, bytes) };
        match usize::try_from(n) {
            // The file is shorter than it was said to be.
            Ok(0) if bytes > 0 => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => return Ok(n),
            Err(_) => interrupted(Error::last_os_error())?,
        }
    }
}

/// Bytes in the send queue that are not acknowledged (SIOCOUTQ).
pub(super) fn unacknowledged(fd: BorrowedFd<'_>) -> Option<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the call, which writes one int to live memory. TIOCOUTQ is the same number.
    let outcome = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
    (outcome == 0).then(|| u64::try_from(bytes).ok()).flatten()
}

/// A file in memory that goes with its last descriptor.
pub(super) fn memory_file() -> Result<File> {
    // SAFETY: the name is a C string that outlives the call; the result is checked.
    let fd = unsafe { libc::memfd_create(c"balancer-cache".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: memfd_create returned a new descriptor that nobody else owns.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// `Ok` when the call should simply be made again.
fn interrupted(error: Error) -> Result<()> {
    if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// Takes one connection from the backlog.
pub(super) fn accept(listener: &TcpListener) -> Result<(OwnedFd, SocketAddr)> {
    let mut peer = None;
    loop {
        // SAFETY: `try_init` hands us storage for a sockaddr and its length; accept4 fills both.
        let outcome = unsafe {
            socket2::SockAddr::try_init(|storage, length| {
                let fd = libc::accept4(
                    listener.as_raw_fd(),
                    storage.cast(),
                    length,
                    libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                );
                if fd < 0 { Err(Error::last_os_error()) } else { Ok(fd) }
            })
        };
        match outcome {
            Ok((fd, address)) => {
                peer = address.as_socket().or(peer);
                // SAFETY: accept4 returned a new descriptor that nobody else owns.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                let peer = peer.ok_or_else(|| Error::from(ErrorKind::AddrNotAvailable))?;
                return Ok((fd, peer));
            }
            Err(error) => interrupted(error)?,
        }
    }
}

/// Begins to connect; the outcome is known once the socket turns writable ([`take_error`]).
pub(super) fn connect(to: SocketAddr) -> Result<OwnedFd> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(to), kind, None)?;
    // A proxy writes whole messages; waiting for an ACK to fill a segment only delays them.
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// The pending error of a socket (SO_ERROR), cleared by asking.
pub(super) fn take_error(fd: BorrowedFd<'_>) -> Result<()> {
    SockRef::from(&fd).take_error()?.map_or(Ok(()), Err)
}

/// Sends FIN after what was written. A connection that is gone already has nothing left to end.
pub(super) fn shutdown_write(fd: BorrowedFd<'_>) {
    let _ = SockRef::from(&fd).shutdown(std::net::Shutdown::Write);
}

/// Makes the coming close send RST and drop what is unsent.
pub(super) fn reset_on_close(fd: BorrowedFd<'_>) {
    let _ = SockRef::from(&fd).set_linger(Some(Duration::ZERO));
}

/// Takes [`reset_on_close`] back: the coming close sends what is unsent, then FIN.
pub(super) fn end_on_close(fd: BorrowedFd<'_>) {
    let _ = SockRef::from(&fd).set_linger(None);
}

/// An epoll instance and the buffer its events arrive in.
pub(super) struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub(super) fn new(events_max: usize) -> Result<Self> {
        // SAFETY: takes no pointer; the result is checked.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: epoll_create1 returned a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; events_max] })
    }

    /// Registers a descriptor for the events in `mask`; it leaves with its last close.
    pub(super) fn add(&self, fd: &impl AsFd, mask: u32, token: u64) -> Result<()> {
        let mut event = libc::epoll_event { events: mask, u64: token };
        // SAFETY: both descriptors are open for the call and `event` is a valid epoll_event that it only reads.
        let outcome = unsafe {
            libc::epoll_ctl(
                self.fd.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                fd.as_fd().as_raw_fd(),
                &mut event,
            )
        };
        if outcome < 0 { Err(Error::last_os_error()) } else { Ok(()) }
    }

    /// Forgets a descriptor that stays open. It can only fail when the descriptor is not there.
    pub(super) fn remove(&self, fd: &impl AsFd) {
        let (epoll, fd) = (self.fd.as_raw_fd(), fd.as_fd().as_raw_fd());
        // SAFETY: both descriptors are open for the call; the event may be null when an entry is deleted.
        let outcome =
            unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
        debug_assert!(outcome == 0, "a descriptor was forgotten that was not known");
    }

    /// Waits up to `timeout_ms` and returns `(events, token)` pairs. An interrupted wait is an empty one.
    pub(super) fn wait(&mut self, timeout_ms: i32) -> impl Iterator<Item = (u32, u64)> + '_ {
        let room = i32::try_from(self.events.len()).unwrap_or(i32::MAX);
        // SAFETY: the pointer and count describe our own buffer, exclusively borrowed for the call.
        let n = unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), room, timeout_ms)
        };
        let n = usize::try_from(n).unwrap_or(0);
        self.events[..n].iter().map(|event| (event.events, event.u64))
    }
}

/// An eventfd: a descriptor that turns readable when another thread writes to it.
pub(super) fn event_fd() -> Result<OwnedFd> {
    // SAFETY: takes no pointer; the result is checked.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: eventfd returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes an [`event_fd`] readable. It can only fail when it is readable already.
pub(super) fn event_write(fd: BorrowedFd<'_>) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: writes eight bytes from a live array.
    let _ = unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}
