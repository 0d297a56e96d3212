//! A backend in this process whose behaviour the request path decides; `answers.rs` lists the paths.
//!
//! It is a strict judge of what the proxy sends: a request its reader does not accept lands in [`Origin::malformed`].
//! One plain thread per connection; each ends with its connection or with the origin.

mod answers;
mod saying;

pub(in crate::support) use answers::append_chunks;
pub use saying::{Delivery, Saying};

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// A running origin; dropping it ends its connections.
pub struct Origin {
    shared: Arc<Shared>,
    listener: Mutex<Option<TcpListener>>,
}

/// One request as the origin saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Number of the connection, from 1.
    pub connection: u64,
    /// The method.
    pub method: String,
    /// The target, byte for byte.
    pub target: String,
    /// All fields in order.
    pub fields: Vec<(String, String)>,
}

/// One step of a scripted connection, run when `/script/NAME` is asked for.
#[derive(Debug, Clone)]
pub enum Step {
    /// Writes the bytes as they are.
    Send(Vec<u8>),
    /// Waits for [`Origin::open`] of that gate.
    Gate(&'static str),
    /// Ends our direction and the connection.
    Close,
    /// Resets the connection.
    Reset,
}

/// What the origin does wrong on purpose, to show that the verifier sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corruption {
    /// Changes one byte in the middle of a body.
    FlipByte,
    /// Answers with the nonce of another request.
    ForeignNonce,
    /// Closes before the end of the body.
    Short,
    /// Resets in the middle of the body.
    Break,
    /// Closes without an answer.
    Swallow,
    /// Says that an upload arrived damaged.
    DenyUpload,
}

#[derive(Default)]
struct Shared {
    name: String,
    port: u64,
    requests: AtomicU64,
    connections: AtomicU64,
    is_stopping: AtomicBool,
    is_remembering: AtomicBool,
    drops_reused: AtomicBool,
    seen: Mutex<Vec<Seen>>,
    malformed: Mutex<Vec<String>>,
    links: Mutex<HashMap<u64, TcpStream>>,
    scripts: Mutex<HashMap<String, Vec<Step>>>,
    corruption: Mutex<Option<(Corruption, u64)>>,
    gates: Mutex<HashSet<String>>,
    gate_opened: Condvar,
    waiting: Mutex<HashMap<String, usize>>,
    sayings: Mutex<HashMap<String, Saying>>,
    counts: Mutex<HashMap<String, u64>>,
}

impl Origin {
    /// Starts an origin on an ephemeral port; its name comes back in every `X-Origin`.
    pub fn start(name: &str) -> Self {
        Self::start_at(name, "127.0.0.1:0".parse().expect("an address")).expect("an ephemeral port")
    }

    /// Starts an origin on a given address (of one that was closed before).
    pub fn start_at(name: &str, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let port = u64::from(listener.local_addr()?.port());
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            port,
            is_remembering: AtomicBool::new(true),
            ..Shared::default()
        });
        let accepting = listener.try_clone()?;
        let state = Arc::clone(&shared);
        thread::spawn(move || accept(&accepting, &state));
        Ok(Self { shared, listener: Mutex::new(Some(listener)) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.shared.port as u16))
    }

    /// Its `HOST:PORT`, as `--backend` and the agent's frames take it.
    pub fn authority(&self) -> String {
        self.address().to_string()
    }

    /// Requests whose head arrived.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Acquire)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        lock(&self.shared.links).len()
    }

    /// Every request seen so far, unless [`Origin::forget`] was called.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// How often a request with that exact target arrived.
    pub fn count_of(&self, target: &str) -> usize {
        lock(&self.shared.seen).iter().filter(|seen| seen.target == target).count()
    }

    /// Stops remembering requests: for long runs.
    pub fn forget(&self) {
        self.shared.is_remembering.store(false, Ordering::Release);
    }

    /// What arrived that a strict server refuses.
    pub fn malformed(&self) -> Vec<String> {
        lock(&self.shared.malformed).clone()
    }

    /// Opens the gate `name` for all that wait there, now and later.
    pub fn open(&self, name: &str) {
        lock(&self.shared.gates).insert(name.to_owned());
        self.shared.gate_opened.notify_all();
    }

    /// Sets what `/script/NAME` does.
    pub fn script(&self, name: &str, steps: Vec<Step>) {
        lock(&self.shared.scripts).insert(name.to_owned(), steps);
    }

    /// Damages every `every`th answer.
    pub fn corrupt(&self, how: Corruption, every: u64) {
        *lock(&self.shared.corruption) = Some((how, every));
    }

    /// From now on a connection that has served a request is closed when its next request arrives, unanswered:
    /// the keep-alive race in its worst form.
    pub fn drop_reused(&self, is_on: bool) {
        self.shared.drops_reused.store(is_on, Ordering::Release);
    }

    /// Ends all connections now.
    pub fn cut_all(&self) {
        for link in lock(&self.shared.links).values() {
            // Already gone is as good as cut.
            let _ = link.shutdown(Shutdown::Both);
        }
    }

    /// Stops listening and ends all connections: the port refuses from now on.
    pub fn close(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        if let Some(listener) = lock(&self.listener).take() {
            // Wakes the accepting thread, which then drops its handle.
            let _ = SockRef::from(&listener).shutdown(Shutdown::Both);
        }
        self.shared.gate_opened.notify_all();
        self.cut_all();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Waits until the gate is open; false when the origin stops first.
    fn pass(&self, gate: &str) -> bool {
        *lock(&self.waiting).entry(gate.to_owned()).or_default() += 1;
        let is_open = self.wait_at(gate);
        *lock(&self.waiting).entry(gate.to_owned()).or_default() -= 1;
        is_open
    }

    fn wait_at(&self, gate: &str) -> bool {
        let mut gates = lock(&self.gates);
        while !gates.contains(gate) {
            if self.is_stopping.load(Ordering::Acquire) {
                return false;
            }
            let waited = self.gate_opened.wait_timeout(gates, GATE_LOOK);
            gates = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        true
    }

    /// Whether answer number `number` is to be damaged, and how.
    fn corruption_of(&self, number: u64) -> Option<Corruption> {
        lock(&self.corruption)
            .filter(|(_, every)| number.is_multiple_of(*every))
            .map(|(how, _)| how)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_stopping.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let number = shared.connections.fetch_add(1, Ordering::AcqRel) + 1;
        let state = Arc::clone(shared);
        let (Ok(()), Ok(handle)) = (stream.set_nodelay(true), stream.try_clone()) else { continue };
        lock(&shared.links).insert(number, handle);
        let serve = move || {
            answers::serve(stream, number, &state);
            lock(&state.links).remove(&number);
        };
        thread::Builder::new()
            .stack_size(STACK_BYTES)
            .spawn(serve)
            .expect("a thread for a connection");
    }
}

/// A lock whose holder panicked is still good here: the state is plain values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

const GATE_LOOK: Duration = Duration::from_millis(50);
const STACK_BYTES: usize = 512 * 1024;
