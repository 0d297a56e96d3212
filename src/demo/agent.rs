//! The embedded deployment agent: a WebSocket server on a thread of its own that pushes the current set, dies and
//! comes back when told to.
//!
//! While it is dead its port still takes connections and resets them at once, as a restarting container's does; that
//! way every dial can be counted from outside. It refuses to know what the balancer makes of its frames.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::StatusCode;
use tungstenite::{Error, Message, WebSocket};

use super::port::Port;

/// The agent; dropping it ends its thread.
pub(super) struct Agent {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    frame: String,
    /// Grows with every change of `frame`.
    version: u64,
    died: Option<Instant>,
    /// When the dials since then came, the first [`DIALS_KEPT`] of them.
    dials: Vec<Instant>,
    is_linked: bool,
    is_ending: bool,
}

impl Agent {
    /// Starts with nothing to say yet.
    pub fn start() -> io::Result<Self> {
        let port = Port::reserve()?;
        let listener = port.listen()?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let mind = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("demo-agent".to_owned());
        let thread = thread.spawn(move || attend(&listener, &mind))?;
        Ok(Self { address: port.address(), shared, thread: Some(thread) })
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says this from now on.
    pub fn push(&self, frame: String) {
        let mut shared = lock(&self.shared);
        shared.frame = frame;
        shared.version += 1;
    }

    /// Resets the link, and every dial from now on.
    pub fn die(&self) {
        let mut shared = lock(&self.shared);
        shared.died = Some(Instant::now());
        shared.dials.clear();
    }

    /// Answers dials again.
    pub fn revive(&self) {
        lock(&self.shared).died = None;
    }

    /// Whether a balancer is linked.
    pub fn is_linked(&self) -> bool {
        lock(&self.shared).is_linked
    }

    pub fn is_dead(&self) -> bool {
        lock(&self.shared).died.is_some()
    }

    /// How long after the death each dial came.
    pub fn dials(&self) -> Vec<Duration> {
        let shared = lock(&self.shared);
        let Some(died) = shared.died else { return Vec::new() };
        shared.dials.iter().map(|dial| dial.saturating_duration_since(died)).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        lock(&self.shared).is_ending = true;
        if let Some(thread) = self.thread.take() {
            // It panics nowhere; if it did, its end is what is wanted here.
            let _ = thread.join();
        }
    }
}

/// A link, and which version of the frame it was sent when.
struct Link {
    socket: WebSocket<TcpStream>,
    sent: Option<(u64, Instant)>,
}

fn attend(listener: &TcpListener, shared: &Mutex<Shared>) {
    let mut link: Option<Link> = None;
    loop {
        let (is_ending, is_dead) = {
            let mut shared = lock(shared);
            shared.is_linked = link.is_some();
            (shared.is_ending, shared.died.is_some())
        };
        if is_ending {
            return;
        }
        if is_dead && let Some(link) = link.take() {
            reset(link.socket.get_ref());
        }
        // Failed accepts are tried again in the next round.
        if let Ok((stream, _)) = listener.accept() {
            if is_dead {
                let mut shared = lock(shared);
                if shared.dials.len() < DIALS_KEPT {
                    shared.dials.push(Instant::now());
                }
                reset(&stream);
            } else {
                // A newer dial of the one balancer replaces its older link; a dial that fails is dialled again.
                link = shake(stream).ok().or(link);
            }
        }
        match link.as_mut().map(|open| turn(open, shared)) {
            Some(Ok(())) => {}
            // The balancer dials again.
            Some(Err(_)) => link = None,
            None => std::thread::sleep(TURN),
        }
    }
}

/// The handshake at `/ws`.
fn shake(stream: TcpStream) -> io::Result<Link> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HANDSHAKE_PATIENCE))?;
    stream.set_write_timeout(Some(HANDSHAKE_PATIENCE))?;
    #[expect(clippy::result_large_err, reason = "the type that tungstenite's callback wants")]
    let judge = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        if request.uri().path() == PATH {
            return Ok(response);
        }
        let mut refusal = ErrorResponse::new(None);
        *refusal.status_mut() = StatusCode::NOT_FOUND;
        Err(refusal)
    };
    let socket = tungstenite::accept_hdr(stream, judge)
        .map_err(|error| io::Error::other(error.to_string()))?;
    // From here on the wait for a message is the pause between two turns.
    socket.get_ref().set_read_timeout(Some(TURN))?;
    Ok(Link { socket, sent: None })
}

/// Says what is new, repeats what is old, and answers pings for one [`TURN`].
fn turn(link: &mut Link, shared: &Mutex<Shared>) -> Result<(), Error> {
    let news = {
        let shared = lock(shared);
        let is_due = link
            .sent
            .is_none_or(|(version, at)| version != shared.version || at.elapsed() >= REPEAT);
        (is_due && shared.version > 0).then(|| (shared.version, shared.frame.clone()))
    };
    if let Some((version, frame)) = news {
        link.socket.send(Message::text(frame))?;
        link.sent = Some((version, Instant::now()));
    }
    match link.socket.read() {
        Ok(_) => Ok(()),
        Err(Error::Io(error))
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Makes the close that follows a reset.
fn reset(stream: &TcpStream) {
    // Where that fails the peer sees an orderly end instead, which is a death as well.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the agent is served.
pub(super) const PATH: &str = "/ws";
const TURN: Duration = Duration::from_millis(10);
/// An agent repeats its set whether or not it changed.
const REPEAT: Duration = Duration::from_secs(1);
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
const DIALS_KEPT: usize = 64;
