//! Listening sockets from one process to another, over a Unix socket (SCM_RIGHTS, unix(7)).
//!
//! The process that is to take over says hello with its version of this exchange; the running one answers with records
//! of 16 bytes that carry descriptors, and a last one that carries none. Then, each a single byte: ready, and agreed. A
//! descriptor that was received is the same socket, with the same queue; nothing happens to it when either side closes its
//! own. Both ends must belong to one user. Whoever is silent for too long, or says anything else, is hung up on.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};

/// The sockets of a process.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Those of the workers; of each address in the order in which they joined its group.
    pub workers: Vec<TcpListener>,
    /// The admin listener's.
    pub admin: Option<TcpListener>,
}

/// What goes wrong between the two.
#[derive(Debug)]
pub enum Error {
    /// The other end went away, was silent for too long, or the kernel refused.
    Io(io::Error),
    /// The other end belongs to this user.
    Stranger(u32),
    /// The other end knows this version only.
    Version(u8),
    /// What came is no record.
    Garbled,
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Error {
    /// Whether the other end went away.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) if is_silence(error) => out.write_str("it was silent for too long"),
            Self::Io(_) if self.is_end() => out.write_str("it hung up"),
            Self::Io(error) => error.fmt(out),
            Self::Stranger(user) => write!(out, "it belongs to user {user}"),
            Self::Version(version) => {
                write!(out, "it hands over in version {version}, and this one in {VERSION}")
            }
            Self::Garbled => out.write_str("it said something else"),
        }
    }
}

/// The user this process runs as.
pub fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// One end of the exchange.
#[derive(Debug)]
pub struct Wire(UnixStream);

impl Wire {
    /// Over a connection whose other end must belong to our user; each word of it may take `patience`.
    ///
    /// # Errors
    /// [`Error::Stranger`], and what the kernel says.
    pub fn new(stream: UnixStream, patience: Duration) -> Result<Self, Error> {
        let peer = sockopt::socket_peercred(&stream).map_err(io::Error::from)?.uid.as_raw();
        if peer != own_user() {
            return Err(Error::Stranger(peer));
        }
        let wire = Self(stream);
        wire.be_patient(patience)?;
        Ok(wire)
    }

    /// How long each word of the other end may take from here on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn be_patient(&self, patience: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(patience))?;
        self.0.set_write_timeout(Some(patience))
    }

    /// The process at the other end; 0 when it is not to be seen from here.
    pub fn pid(&self) -> u32 {
        let peer = sockopt::socket_peercred(&self.0);
        peer.map_or(0, |peer| peer.pid.as_raw_pid().unsigned_abs())
    }

    /// The first word of the one that is to take over.
    ///
    /// # Errors
    /// When the other end has gone.
    pub fn say_hello(&self) -> Result<(), Error> {
        self.send(HELLO, &[])
    }

    /// Waits for that word.
    ///
    /// # Errors
    /// When it does not come, or is of another version; the other end is told ours then.
    pub fn hear_hello(&self) -> Result<(), Error> {
        let heard = self.receive();
        if let Err(Error::Version(_)) = heard {
            self.send(END, &[])?;
        }
        match heard? {
            (HELLO, _) => Ok(()),
            _ => Err(Error::Garbled),
        }
    }

    /// Hands the sockets over.
    ///
    /// # Errors
    /// When the other end does not take them.
    pub fn send_sockets(&self, sockets: &Sockets) -> Result<(), Error> {
        for batch in sockets.workers.chunks(DESCRIPTORS_MAX) {
            let batch: Vec<BorrowedFd<'_>> = batch.iter().map(TcpListener::as_fd).collect();
            self.send(WORKERS, &batch)?;
        }
        if let Some(admin) = &sockets.admin {
            self.send(ADMIN, &[admin.as_fd()])?;
        }
        self.send(END, &[])
    }

    /// Takes them.
    ///
    /// # Errors
    /// When they do not come whole.
    pub fn receive_sockets(&self) -> Result<Sockets, Error> {
        let mut sockets = Sockets::default();
        for _ in 0..RECORDS_MAX {
            let (kind, descriptors) = self.receive()?;
            let mut listeners = descriptors.into_iter().map(TcpListener::from);
            match kind {
                WORKERS => sockets.workers.extend(listeners),
                ADMIN => sockets.admin = listeners.next(),
                END => return Ok(sockets),
                _ => break,
            }
        }
        Err(Error::Garbled)
    }

    /// Says [`Word`].
    ///
    /// # Errors
    /// When the other end has gone.
    pub fn say(&self, word: Word) -> Result<(), Error> {
        Ok((&self.0).write_all(&[word as u8])?)
    }

    /// Waits for it.
    ///
    /// # Errors
    /// When it does not come, or something else does.
    pub fn hear(&self, word: Word) -> Result<(), Error> {
        let mut byte = [0];
        (&self.0).read_exact(&mut byte)?;
        if byte[0] == word as u8 { Ok(()) } else { Err(Error::Garbled) }
    }

    fn send(&self, kind: u8, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let mut record = [0; RECORD_BYTES];
        record[..MAGIC.len()].copy_from_slice(MAGIC);
        record[VERSION_AT] = VERSION;
        record[KIND_AT] = kind;
        // At most DESCRIPTORS_MAX, so the number fits.
        record[COUNT_AT] = descriptors.len() as u8;
        let mut space = [MaybeUninit::uninit(); SPACE_BYTES];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
        {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory).into());
        }
        let record = [IoSlice::new(&record)];
        // What a ring of this thread left to be done interrupts calls as a signal does.
        let send = || sendmsg(&self.0, &record, &mut ancillary, SendFlags::NOSIGNAL);
        let sent = retry_on_intr(send).map_err(io::Error::from)?;
        if sent == RECORD_BYTES {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::WriteZero).into())
        }
    }

    /// The next record. One is sent in one call and so comes in one piece: the kernel never joins what carries descriptors
    /// with what follows.
    fn receive(&self) -> Result<(u8, Vec<OwnedFd>), Error> {
        let mut record = [0; RECORD_BYTES];
        let mut space = [MaybeUninit::uninit(); SPACE_BYTES];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut record)];
        let receive = || recvmsg(&self.0, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        let received = retry_on_intr(receive).map_err(io::Error::from)?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        match received.bytes {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            RECORD_BYTES if record.starts_with(MAGIC) => {}
            _ => return Err(Error::Garbled),
        }
        if record[VERSION_AT] != VERSION {
            return Err(Error::Version(record[VERSION_AT]));
        }
        if descriptors.len() != usize::from(record[COUNT_AT]) {
            // Too few descriptors were free here.
            return Err(io::Error::from_raw_os_error(libc::EMFILE).into());
        }
        Ok((record[KIND_AT], descriptors))
    }
}

/// What is said when the sockets have been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Word {
    /// The new process: from now on it could serve.
    Ready = b'R',
    /// The old one: then do so; it accepts no more.
    Agreed = b'A',
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A record begins so.
const MAGIC: &[u8] = b"BALANCER";
/// Of the whole exchange. Records keep their length and the places of magic and version for ever.
const VERSION: u8 = 1;
const RECORD_BYTES: usize = 16;
const VERSION_AT: usize = 8;
const KIND_AT: usize = 9;
/// Of the descriptors that it carries.
const COUNT_AT: usize = 10;
/// In one record; the kernel allows 253 (SCM_MAX_FD).
const DESCRIPTORS_MAX: usize = 200;
const SPACE_BYTES: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX));
/// Nobody has so many cores and addresses.
const RECORDS_MAX: usize = 1000;
const HELLO: u8 = b'H';
const WORKERS: u8 = b'W';
const ADMIN: u8 = b'M';
const END: u8 = b'E';
const _: () =
    assert!(DESCRIPTORS_MAX <= 253 && MAGIC.len() == VERSION_AT && COUNT_AT < RECORD_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn pair() -> (Wire, Wire) {
        let (old, new) = UnixStream::pair().unwrap();
        let wire = |stream| Wire::new(stream, Duration::from_secs(10)).unwrap();
        (wire(old), wire(new))
    }

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn what_is_received_is_the_same_socket_with_what_is_queued_in_it() {
        let (old, new) = pair();
        let sockets =
            Sockets { workers: (0..450).map(|_| listener()).collect(), admin: Some(listener()) };
        let address = |listener: &TcpListener| listener.local_addr().unwrap();
        let addresses: Vec<_> = sockets.workers.iter().map(address).collect();
        let queued = TcpStream::connect(addresses[449]).unwrap();
        new.say_hello().unwrap();
        old.hear_hello().unwrap();
        old.send_sockets(&sockets).unwrap();
        let taken = new.receive_sockets().unwrap();
        assert_eq!(taken.workers.iter().map(address).collect::<Vec<_>>(), addresses);
        assert_eq!(taken.admin.as_ref().map(address), sockets.admin.as_ref().map(address));
        drop(sockets);
        let (_, peer) = taken.workers[449].accept().unwrap();
        assert_eq!(peer, queued.local_addr().unwrap());
        new.say(Word::Ready).unwrap();
        old.hear(Word::Ready).unwrap();
        old.say(Word::Agreed).unwrap();
        new.hear(Word::Agreed).unwrap();
        assert_eq!(old.pid(), std::process::id());
    }

    #[test]
    fn another_version_is_told_and_refused_on_both_sides() {
        let (old, new) = pair();
        let mut hello = [0; RECORD_BYTES];
        hello[..8].copy_from_slice(MAGIC);
        hello[VERSION_AT] = 9;
        hello[KIND_AT] = HELLO;
        (&new.0).write_all(&hello).unwrap();
        assert!(matches!(old.hear_hello(), Err(Error::Version(9))));
        assert!(new.receive_sockets().unwrap().workers.is_empty(), "our version, no sockets");
        (&old.0).write_all(&hello).unwrap();
        assert!(matches!(new.receive_sockets(), Err(Error::Version(9))));
    }

    #[test]
    fn noise_silence_and_an_end_are_refused() {
        let (old, new) = pair();
        (&new.0).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(matches!(old.hear_hello(), Err(Error::Garbled)));
        let (old, new) = pair();
        new.say(Word::Agreed).unwrap();
        assert!(matches!(old.hear(Word::Ready), Err(Error::Garbled)));
        old.be_patient(Duration::from_millis(1)).unwrap();
        let silence = old.hear(Word::Ready).unwrap_err();
        assert_eq!(silence.to_string(), "it was silent for too long");
        let silence = old.hear_hello().unwrap_err();
        assert_eq!(silence.to_string(), "it was silent for too long");
        drop(new);
        assert_eq!(old.hear(Word::Ready).unwrap_err().to_string(), "it hung up");
        assert_eq!(old.hear_hello().unwrap_err().to_string(), "it hung up");
    }
}
