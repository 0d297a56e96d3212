//! A deployment agent on an ephemeral port: pushes frames, and misbehaves in every way a link can.
//!
//! tungstenite does the handshake; frames are written by [`frame`] so that bad ones can be written as well.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::StatusCode;

/// An agent at a fixed address that can be killed and started again.
pub struct Agent {
    address: SocketAddr,
    running: Mutex<Option<(TcpListener, Arc<Shared>)>>,
}

/// How an agent treats a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// Handshake, the current frame at once, pongs.
    Proper,
    /// Handshake, then neither a frame nor a pong.
    Mute,
    /// Accepts the TCP connection and never says a byte.
    HalfOpen,
    /// Answers the handshake one byte at a time, one every 100 ms.
    Dripping,
    /// Answers the handshake with these bytes.
    Raw(Vec<u8>),
}

struct Shared {
    manner: Manner,
    is_stopping: AtomicBool,
    accepted: AtomicU64,
    shaken: AtomicU64,
    current: Mutex<Option<Vec<u8>>>,
    /// Writers of the links that frames go to.
    links: Mutex<Vec<Arc<Mutex<TcpStream>>>>,
    /// Every stream, to cut it.
    streams: Mutex<Vec<TcpStream>>,
}

impl Agent {
    /// Starts a proper agent with nothing to say yet.
    pub fn start() -> Self {
        let agent = Self::absent();
        agent.restart(Manner::Proper);
        agent
    }

    /// Reserves an address on which nothing listens yet.
    pub fn absent() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("an ephemeral port");
        let address = listener.local_addr().expect("its address");
        Self { address, running: Mutex::new(None) }
    }

    /// The value for `--agent`.
    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// The port alone, for `HOST_PORT_WS_DEPLOYMENT_AGENT`.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Listens (again) on the same port, with that manner, no frame and no link.
    pub fn restart(&self, manner: Manner) {
        self.kill();
        let listener = super::wait::value("the agent's port is free again", REBIND, || {
            TcpListener::bind(self.address).ok()
        });
        let shared = Arc::new(Shared {
            manner,
            is_stopping: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            shaken: AtomicU64::new(0),
            current: Mutex::new(None),
            links: Mutex::new(Vec::new()),
            streams: Mutex::new(Vec::new()),
        });
        let (accepting, state) =
            (listener.try_clone().expect("a second handle"), Arc::clone(&shared));
        thread::spawn(move || accept(&accepting, &state));
        *lock(&self.running) = Some((listener, shared));
    }

    /// Resets every link and stops listening.
    pub fn kill(&self) {
        let Some((listener, shared)) = lock(&self.running).take() else { return };
        shared.is_stopping.store(true, Ordering::Release);
        // Wakes the accepting thread, which then drops its handle.
        let _ = SockRef::from(&listener).shutdown(Shutdown::Both);
        for stream in lock(&shared.streams).drain(..) {
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Both);
        }
        lock(&shared.links).clear();
    }

    /// Pushes a text frame to every link, and first thing to every later one.
    pub fn push(&self, text: &str) {
        let bytes = frame(TEXT, text.as_bytes());
        self.with(|shared| *lock(&shared.current) = Some(bytes.clone()));
        self.push_raw(&bytes);
    }

    /// Pushes the set `(name, score, category)`.
    pub fn push_set(&self, set: &[(&str, f64, &str)]) {
        self.push(&snapshot(set));
    }

    /// Writes bytes to every link as they are.
    pub fn push_raw(&self, bytes: &[u8]) {
        self.with(|shared| {
            let links = lock(&shared.links).clone();
            for link in links {
                // A link that broke is the balancer's to replace.
                let _ = lock(&link).write_all(bytes);
            }
        });
    }

    /// TCP connections accepted since the last (re)start.
    pub fn accepted(&self) -> u64 {
        self.with(|shared| shared.accepted.load(Ordering::Acquire)).unwrap_or(0)
    }

    /// Handshakes completed since the last (re)start.
    pub fn shaken(&self) -> u64 {
        self.with(|shared| shared.shaken.load(Ordering::Acquire)).unwrap_or(0)
    }

    /// Links that frames go to now.
    pub fn links(&self) -> usize {
        self.with(|shared| lock(&shared.links).len()).unwrap_or(0)
    }

    fn with<T>(&self, look: impl FnOnce(&Shared) -> T) -> Option<T> {
        let shared = lock(&self.running).as_ref().map(|(_, shared)| Arc::clone(shared))?;
        Some(look(&shared))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The JSON of a set.
pub fn snapshot(set: &[(&str, f64, &str)]) -> String {
    let item = |(name, score, category): &(&str, f64, &str)| serde_json::json!({"dns_name": name, "score": score, "utilization_category": category});
    serde_json::Value::Array(set.iter().map(item).collect()).to_string()
}

/// A whole unmasked frame as a server sends it (RFC 6455 §5.2).
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    fragment(FIN | opcode, payload)
}

/// A frame with the first byte (FIN, reserved bits, opcode) given.
pub fn fragment(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..126 => out.push(length as u8),
        length @ 126..0x1_0000 => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

/// The FIN bit of a frame's first byte.
pub const FIN: u8 = 0x80;
/// Opcodes.
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_stopping.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        shared.accepted.fetch_add(1, Ordering::AcqRel);
        let Ok(handle) = stream.try_clone() else { continue };
        lock(&shared.streams).push(handle);
        let state = Arc::clone(shared);
        thread::spawn(move || {
            let Ok(handle) = stream.try_clone() else { return };
            // A link that ends with an error has ended; the list still holds a handle, so the end is said aloud.
            let _ = attend(stream, &state);
            let _ = handle.shutdown(Shutdown::Both);
        });
    }
}

fn attend(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match &shared.manner {
        Manner::HalfOpen => swallow(stream),
        Manner::Raw(bytes) => {
            (&stream).write_all(bytes)?;
            swallow(stream)
        }
        Manner::Dripping => {
            for byte in b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n".iter().cycle()
            {
                (&stream).write_all(&[*byte])?;
                super::wait::happens(DRIP, || shared.is_stopping.load(Ordering::Acquire));
            }
            Ok(())
        }
        Manner::Proper | Manner::Mute => link(stream, shared),
    }
}

fn link(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    // The type that tungstenite's callback wants.
    #[allow(clippy::result_large_err)]
    let judge = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        if request.uri().path() == "/ws" {
            return Ok(response);
        }
        let mut refusal = ErrorResponse::new(None);
        *refusal.status_mut() = StatusCode::NOT_FOUND;
        Err(refusal)
    };
    let shaken = tungstenite::accept_hdr(stream, judge)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let stream = shaken.get_ref().try_clone()?;
    shared.shaken.fetch_add(1, Ordering::AcqRel);
    if shared.manner == Manner::Mute {
        return swallow(stream);
    }
    let writer = Arc::new(Mutex::new(stream.try_clone()?));
    {
        // Under the lock of the list, so that no push falls between the first frame and the list.
        let mut links = lock(&shared.links);
        if let Some(frame) = lock(&shared.current).as_ref() {
            lock(&writer).write_all(frame)?;
        }
        links.push(Arc::clone(&writer));
    }
    let ended = read_frames(&stream, &writer);
    lock(&shared.links).retain(|link| !Arc::ptr_eq(link, &writer));
    ended
}

/// Reads the client's masked frames, answers pings and close.
fn read_frames(mut stream: &TcpStream, writer: &Mutex<TcpStream>) -> io::Result<()> {
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head)?;
        let length = match head[1] & 0x7f {
            126 => {
                let mut long = [0; 2];
                stream.read_exact(&mut long)?;
                u64::from(u16::from_be_bytes(long))
            }
            127 => {
                let mut long = [0; 8];
                stream.read_exact(&mut long)?;
                u64::from_be_bytes(long)
            }
            short => u64::from(short),
        };
        let mut mask = [0; 4];
        stream.read_exact(&mut mask)?;
        let mut payload = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        stream.read_exact(&mut payload)?;
        payload.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
        match head[0] & 0x0f {
            PING => lock(writer).write_all(&frame(PONG, &payload))?,
            CLOSE => {
                lock(writer).write_all(&frame(CLOSE, &payload))?;
                return stream.shutdown(Shutdown::Both);
            }
            _ => {}
        }
    }
}

fn swallow(mut stream: TcpStream) -> io::Result<()> {
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const REBIND: Duration = Duration::from_secs(5);
const DRIP: Duration = Duration::from_millis(100);
