//! An upgrade without a refused connection: one process serves, the next takes its listeners over, the first one drains.
//!
//! In order: the new process connects to the old one's socket and gets duplicates of its listeners ([`handover`]). It starts
//! its threads on them, accepts nothing, and waits until there is a backend to send requests to. Then it says that it is
//! ready; the old one agrees, stops accepting and drains; the new one opens its doors and puts a socket of its own into the
//! old one's place. Until the old one has agreed nothing about it has changed: a new one that fails, dies or dawdles costs it
//! nothing. Clients notice nothing in between: what nobody accepts waits in a queue that both processes hold.
//!
//! One thread of the old process waits for successors, for one at a time; its main thread agrees or does not.

use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::Signal;
use super::error::{Error, TakeoverFault};
use crate::config::{Limit, Takeover};
use crate::io::handover::{self, Sockets, Wire, Word};

/// The path for `place`, with a directory that is ours alone where nobody names one.
///
/// # Errors
/// When there is no such directory.
pub(super) fn path_of(place: &Takeover) -> Result<PathBuf, Error> {
    match place {
        Takeover::At(path) => Ok(path.clone()),
        Takeover::Named(name) => {
            let user = handover::own_user();
            // Only there is /run ours to write.
            if user == 0 && Path::new("/run").is_dir() {
                return Ok(Path::new("/run").join(name));
            }
            let directory = Path::new("/tmp").join(format!("balancer-{user}"));
            make_own(&directory, user)
                .map_err(|fault| Error::Takeover(directory.clone(), fault))?;
            Ok(directory.join(name))
        }
    }
}

/// Makes a directory that nobody else may enter. Anybody may have made one of that name before us in a place for all.
fn make_own(directory: &Path, user: u32) -> Result<(), TakeoverFault> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(TakeoverFault::Place(error));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(directory).map_err(TakeoverFault::Place)?;
    let is_ours = found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0;
    if is_ours { Ok(()) } else { Err(TakeoverFault::NotOurs) }
}

/// The process whose listeners we have.
#[derive(Debug)]
pub struct Predecessor {
    wire: Wire,
    path: PathBuf,
    /// Its number.
    pub pid: u32,
}

impl Predecessor {
    /// Looks for it at `path`, and gets its sockets; `None` when nobody listens there.
    ///
    /// # Errors
    /// When somebody does, and does not hand over.
    pub(super) fn find(path: &Path) -> Result<Option<(Self, Sockets)>, Error> {
        let fault = |fault| Error::Takeover(path.to_owned(), fault);
        let Some(stream) = call(path).map_err(fault)? else { return Ok(None) };
        let meet = || -> Result<_, handover::Error> {
            let wire = Wire::new(stream, WORD_MAX)?;
            wire.say_hello()?;
            let sockets = wire.receive_sockets()?;
            Ok((wire, sockets))
        };
        let (wire, sockets) = meet().map_err(|error| fault(TakeoverFault::NotHandedOver(error)))?;
        let pid = wire.pid();
        Ok(Some((Self { wire, path: path.to_owned(), pid }, sockets)))
    }

    /// Whether it has ended meanwhile: then the listeners are ours alone.
    pub(super) fn is_gone(&self) -> bool {
        matches!(call(&self.path), Ok(None))
    }

    /// Why it is not relieved when there is no backend for us.
    pub(super) fn lacks_backend(&self) -> Error {
        Error::Takeover(self.path.clone(), TakeoverFault::NoBackend)
    }

    /// Has it stop accepting. On an error it serves on, and we must not.
    ///
    /// # Errors
    /// When it is there and does not agree.
    pub(super) fn relieve(&self) -> Result<(), Error> {
        let outcome = self.wire.say(Word::Ready).and_then(|()| self.wire.hear(Word::Agreed));
        match outcome {
            Ok(()) => Ok(()),
            Err(handover::Error::Io(_)) if self.is_gone() => Ok(()),
            Err(error) => {
                Err(Error::Takeover(self.path.clone(), TakeoverFault::NotHandedOver(error)))
            }
        }
    }
}

/// A connection to whoever listens at `path`, if anybody does.
fn call(path: &Path) -> Result<Option<UnixStream>, TakeoverFault> {
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            match fs::symlink_metadata(path) {
                // What a process that was killed has left.
                Ok(found) if found.file_type().is_socket() => Ok(None),
                Ok(_) => Err(TakeoverFault::NoSocket),
                Err(_) => Ok(None),
            }
        }
        Err(error) => Err(TakeoverFault::Place(error)),
    }
}

/// Whether a running balancer at `place` would be taken over from.
pub fn is_inhabited(place: &Takeover) -> bool {
    path_of(place).is_ok_and(|path| matches!(call(&path), Ok(Some(_))))
}

/// A socket on its way to the path.
#[derive(Debug)]
pub(super) struct Claim {
    listener: UnixListener,
    path: PathBuf,
    beside: Beside,
    sockets: Sockets,
}

/// A socket that is removed unless it moves to its place.
#[derive(Debug)]
struct Beside(PathBuf);

impl Drop for Beside {
    fn drop(&mut self) {
        // Where it has moved, there is nothing of this name.
        let _ = fs::remove_file(&self.0);
    }
}

impl Claim {
    /// Listens beside `path`; nobody is there yet who would call. `sockets` are what a successor gets.
    ///
    /// # Errors
    /// When it cannot.
    pub(super) fn new(path: PathBuf, sockets: Sockets) -> Result<Self, Error> {
        let mut beside = path.clone().into_os_string();
        beside.push(format!(".{}", std::process::id()));
        let beside = Beside(PathBuf::from(beside));
        // Left by another process of that number.
        let _ = fs::remove_file(&beside.0);
        let listen = || {
            let listener = UnixListener::bind(&beside.0)?;
            fs::set_permissions(&beside.0, Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        match listen() {
            Ok(listener) => Ok(Self { listener, path, beside, sockets }),
            Err(error) => Err(Error::Takeover(path, TakeoverFault::Place(error))),
        }
    }

    /// Takes the path, at once and whoever had it, and waits for successors from here on.
    ///
    /// # Errors
    /// When the path cannot be had, or no thread.
    pub(super) fn publish(self, tell: Sender<Signal>) -> Result<Post, Error> {
        let Self { listener, path, beside, sockets } = self;
        let publish = || {
            let own = fs::symlink_metadata(&beside.0)?;
            fs::rename(&beside.0, &path)?;
            let sockets = Arc::new(Mutex::new(Some(sockets)));
            let given = Arc::clone(&sockets);
            let thread = std::thread::Builder::new().name("takeover".to_owned());
            thread.spawn(move || await_successors(&listener, &given, &tell))?;
            Ok((sockets, (own.dev(), own.ino())))
        };
        match publish() {
            Ok((sockets, identity)) => Ok(Post { sockets, path, identity }),
            Err(error) => Err(Error::Takeover(path, TakeoverFault::Place(error))),
        }
    }
}

/// What a running process keeps for its successor.
pub(super) struct Post {
    sockets: Arc<Mutex<Option<Sockets>>>,
    path: PathBuf,
    /// Device and inode of our socket: another one at the path is not ours to remove.
    identity: (u64, u64),
}

impl Post {
    /// Where it is found.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Nobody gets the sockets any more; what was duplicated for it is closed.
    pub(super) fn close(&self) {
        *self.sockets.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The same, and nobody finds a way here.
    pub(super) fn leave(&self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
        self.close();
    }
}

/// A process that has our sockets and is ready to serve.
#[derive(Debug)]
pub struct Successor {
    wire: Wire,
    /// Its number.
    pub pid: u32,
}

impl Successor {
    /// Tells it to serve; whether it was still there to hear that.
    pub(super) fn agree(&self) -> bool {
        self.wire.say(Word::Agreed).is_ok()
    }
}

fn await_successors(
    listener: &UnixListener,
    sockets: &Mutex<Option<Sockets>>,
    tell: &Sender<Signal>,
) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Descriptors come back only with time.
            std::thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        match attend(stream, sockets) {
            Ok(Some(successor)) => {
                if tell.send(Signal::HandOver(successor)).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            // `check` only looks whether anybody is there.
            Err((0, error)) if error.is_end() => {}
            Err((0, error)) => log::warn!("nothing was handed over: {error}"),
            Err((pid, error)) => {
                log::warn!("process {pid} did not take over: {error}; this one serves on");
            }
        }
    }
}

/// Gives one its sockets and waits until it is ready; `None` when there are none to be given any more.
fn attend(
    stream: UnixStream,
    sockets: &Mutex<Option<Sockets>>,
) -> Result<Option<Successor>, (u32, handover::Error)> {
    let wire = Wire::new(stream, WORD_MAX).map_err(|error| (0, error))?;
    wire.hear_hello().map_err(|error| (0, error))?;
    let pid = wire.pid();
    let told = |error| (pid, error);
    match &*sockets.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(sockets) => wire.send_sockets(sockets).map_err(told)?,
        None => return Ok(None),
    }
    log::info!("process {pid} has the listeners and gets ready; this one serves on meanwhile");
    wire.be_patient(READY_MAX).map_err(|error| told(error.into()))?;
    wire.hear(Word::Ready).map_err(told)?;
    wire.be_patient(WORD_MAX).map_err(|error| told(error.into()))?;
    Ok(Some(Successor { wire, pid }))
}

/// Every limit of a takeover, for `check --show-config`.
pub const LIMITS: &[Limit] = &[
    Limit::time("a takeover, until the new process is ready", READY_MAX),
    Limit::time("a takeover's other words", WORD_MAX),
    Limit::time("a takeover, until there is a backend", super::process::BACKEND_PATIENCE),
];

/// How long the running process waits for a new one to be ready.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long either waits for any other word.
const WORD_MAX: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::listen;
    use crossbeam_channel::unbounded;

    /// A directory of its own.
    fn scratch(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        DirBuilder::new().mode(0o700).create(&directory).unwrap();
        directory
    }

    fn sockets() -> Sockets {
        let bound = listen::bind(&["127.0.0.1:0".parse().unwrap()], 2).unwrap();
        Sockets { workers: bound.workers.into_iter().flatten().collect(), admin: None }
    }

    #[test]
    fn a_place_is_taken_over_from_whoever_has_it_and_left_only_if_it_is_ours() {
        let path = scratch("takeover-place").join("socket");
        assert!(Predecessor::find(&path).unwrap().is_none());
        let (tell, told) = unbounded();
        let first = Claim::new(path.clone(), sockets()).unwrap().publish(tell.clone()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // One who goes away before it is ready changes nothing.
        let (predecessor, taken) = Predecessor::find(&path).unwrap().unwrap();
        assert_eq!((predecessor.pid, taken.workers.len()), (std::process::id(), 2));
        drop(predecessor);
        let (predecessor, _) = Predecessor::find(&path).unwrap().unwrap();
        std::thread::scope(|scope| {
            let relieved = scope.spawn(|| predecessor.relieve());
            let Ok(Signal::HandOver(successor)) = told.recv_timeout(WORD_MAX) else { panic!() };
            assert!(successor.agree());
            relieved.join().unwrap().unwrap();
        });
        first.close();
        let second = Claim::new(path.clone(), sockets()).unwrap().publish(tell).unwrap();
        first.leave();
        assert!(Predecessor::find(&path).unwrap().is_some(), "the second's is not removed");
        second.leave();
        assert!(!path.exists());
        assert!(Predecessor::find(&path).unwrap().is_none());
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn who_does_not_agree_is_told_from_who_is_gone() {
        let path = scratch("takeover-refusal").join("socket");
        let (tell, told) = unbounded();
        let post = Claim::new(path.clone(), sockets()).unwrap().publish(tell).unwrap();
        let refused = |predecessor: &Predecessor| {
            std::thread::scope(|scope| {
                let relieved = scope.spawn(|| predecessor.relieve());
                // Dropped, as by a process that does something else by now.
                drop(told.recv_timeout(WORD_MAX).unwrap());
                relieved.join().unwrap()
            })
        };
        let (predecessor, _) = Predecessor::find(&path).unwrap().unwrap();
        let error = refused(&predecessor).unwrap_err().to_string();
        assert!(error.contains("did not hand over: it hung up"), "{error}");
        let (predecessor, _) = Predecessor::find(&path).unwrap().unwrap();
        post.leave();
        refused(&predecessor).unwrap();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn what_is_no_socket_or_not_ours_is_left_alone() {
        let directory = scratch("takeover-alien");
        let file = directory.join("file");
        fs::write(&file, "precious").unwrap();
        let error = Predecessor::find(&file).unwrap_err().to_string();
        assert!(error.contains("is no socket") && error.contains("\n  try     "), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        let stale = directory.join("stale");
        drop(UnixListener::bind(&stale).unwrap());
        assert!(Predecessor::find(&stale).unwrap().is_none());
        let user = handover::own_user();
        make_own(&directory.join("new"), user).unwrap();
        make_own(&directory.join("new"), user).unwrap();
        assert!(matches!(make_own(&directory.join("new"), user + 1), Err(TakeoverFault::NotOurs)));
        fs::set_permissions(directory.join("new"), Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(make_own(&directory.join("new"), user), Err(TakeoverFault::NotOurs)));
        std::os::unix::fs::symlink(&directory, directory.join("link")).unwrap();
        assert!(matches!(make_own(&directory.join("link"), user), Err(TakeoverFault::NotOurs)));
        fs::remove_dir_all(&directory).unwrap();
    }
}
