//! An embedded backend: a tiny HTTP server on threads of its own that answers with its name, holds requests back when
//! told to, and can die abruptly and come back on the same port.
//!
//! `GET /…/NONCE` is answered `app-N NONCE`, and must not be stored. A held request is read whole and not answered until
//! it is released; one that is held while its backend dies never is. `GET /page/N` is answered alike by all of them, is
//! never held, and may be stored for a second.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

use super::port::Port;
use super::set;
use super::wire::{Head, Wire};

/// One backend; dropping it closes everything and ends its threads.
pub(super) struct Backend {
    port: Port,
    shared: Arc<Shared>,
    accepting: Option<(TcpListener, JoinHandle<()>)>,
}

struct Shared {
    name: String,
    /// Requests read and not yet answered.
    in_flight: AtomicU64,
    floor: Mutex<Floor>,
    changed: Condvar,
}

/// What its threads meet on.
#[derive(Default)]
struct Floor {
    is_alive: bool,
    /// Grows with every death.
    life: u64,
    /// How many further requests are held back.
    to_hold: usize,
    held: usize,
    /// Grows with every release.
    release: u64,
    connections: HashMap<u64, TcpStream>,
    accepted: u64,
}

impl Backend {
    pub fn start(name: String) -> io::Result<Self> {
        let shared = Shared {
            name,
            in_flight: AtomicU64::new(0),
            floor: Mutex::new(Floor::default()),
            changed: Condvar::new(),
        };
        let mut backend =
            Self { port: Port::reserve()?, shared: Arc::new(shared), accepting: None };
        backend.revive()?;
        Ok(backend)
    }

    pub const fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Listens (again).
    pub fn revive(&mut self) -> io::Result<()> {
        if self.accepting.is_some() {
            return Ok(());
        }
        let listener = self.port.listen()?;
        let handle = listener.try_clone()?;
        self.shared.floor().is_alive = true;
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name(self.shared.name.clone());
        let thread = thread.spawn(move || accept(&listener, &shared))?;
        self.accepting = Some((handle, thread));
        Ok(())
    }

    pub const fn is_alive(&self) -> bool {
        self.accepting.is_some()
    }

    /// Closes the port and every connection at once, whatever is on them: every other one with a reset, the rest with
    /// an end.
    pub fn die(&mut self) {
        let Some((listener, thread)) = self.accepting.take() else { return };
        {
            let mut floor = self.shared.floor();
            floor.is_alive = false;
            floor.life += 1;
            floor.to_hold = 0;
            for (number, stream) in &floor.connections {
                let linger = (number % 2 == 0).then_some(Duration::ZERO);
                // Both fail only on a connection that has ended already.
                let _ = SockRef::from(stream).set_linger(linger);
                let _ = stream.shutdown(Shutdown::Both);
            }
            self.shared.changed.notify_all();
        }
        // Wakes the accepting thread. It panics nowhere; if it did, it has ended.
        let _ = SockRef::from(&listener).shutdown(Shutdown::Both);
        let _ = thread.join();
    }

    /// Holds back the next `n` requests.
    pub fn hold(&self, n: usize) {
        self.shared.floor().to_hold = n;
    }

    /// Requests held back now.
    pub fn held(&self) -> usize {
        self.shared.floor().held
    }

    /// Answers what is held back, and holds no more.
    pub fn release(&self) {
        let mut floor = self.shared.floor();
        floor.to_hold = 0;
        floor.release += 1;
        self.shared.changed.notify_all();
    }

    /// Requests read and not yet answered.
    pub fn in_flight(&self) -> u64 {
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    /// Connections open.
    pub fn connections(&self) -> usize {
        self.shared.floor().connections.len()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.die();
        // Their sockets are shut, so nothing keeps the threads.
        let floor = self.shared.floor();
        let is_busy = |floor: &mut Floor| !floor.connections.is_empty();
        drop(self.shared.changed.wait_timeout_while(floor, END_PATIENCE, is_busy));
    }
}

impl Shared {
    fn floor(&self) -> MutexGuard<'_, Floor> {
        self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a connection; `None` when the backend is dead.
    fn admit(&self, stream: &TcpStream) -> Option<u64> {
        let handle = stream.try_clone().ok()?;
        let mut floor = self.floor();
        if !floor.is_alive {
            return None;
        }
        floor.accepted += 1;
        let number = floor.accepted;
        floor.connections.insert(number, handle);
        Some(number)
    }

    fn dismiss(&self, number: u64) {
        self.floor().connections.remove(&number);
        self.changed.notify_all();
    }

    /// Waits while the request is to be held; `false` when the backend died over it.
    fn pass(&self) -> bool {
        let mut floor = self.floor();
        if floor.to_hold == 0 {
            return floor.is_alive;
        }
        floor.to_hold -= 1;
        floor.held += 1;
        let (life, release) = (floor.life, floor.release);
        let is_held = |floor: &mut Floor| floor.life == life && floor.release == release;
        let waited = self.changed.wait_timeout_while(floor, HOLD_MAX, is_held);
        let (mut floor, _) = waited.unwrap_or_else(PoisonError::into_inner);
        floor.held -= 1;
        floor.life == life
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let Some(number) = shared.admit(&stream) else { continue };
                let guest = Arc::clone(shared);
                let thread = std::thread::Builder::new().name(shared.name.clone());
                let serving = thread.spawn(move || {
                    // A connection that breaks has ended.
                    let _ = serve(stream, &guest);
                    guest.dismiss(number);
                });
                if serving.is_err() {
                    shared.dismiss(number);
                }
            }
            // The listener was shut down.
            Err(_) if !shared.floor().is_alive => return,
            Err(_) => std::thread::sleep(ACCEPT_PAUSE),
        }
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut wire = Wire::new(stream, IDLE_MAX)?;
    while let Some(head) = wire.head()? {
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let outcome = answer(&mut wire, &head, shared);
        shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !outcome? {
            break;
        }
    }
    Ok(())
}

/// Answers one request; whether the connection goes on.
fn answer(wire: &mut Wire, head: &Head, shared: &Shared) -> io::Result<bool> {
    let mut words = head.first_line().split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let page = target.strip_prefix("/page/").and_then(|n| n.parse().ok());
    let may_answer = if page.is_some() { shared.floor().is_alive } else { shared.pass() };
    if !may_answer {
        return Ok(false);
    }
    if method != "GET" {
        wire.send(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return Ok(false);
    }
    let (fields, body) = match page {
        Some(n) => (format!("Cache-Control: max-age=1\r\nETag: \"{n}\"\r\n"), set::page(n)),
        None => {
            let nonce = target.rsplit('/').next().unwrap_or("");
            ("Cache-Control: no-store\r\n".to_owned(), format!("{} {nonce}\n", shared.name))
        }
    };
    let is_known = head.field("if-none-match").is_some_and(|tag| fields.contains(tag));
    let answer = match is_known {
        true => format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n"),
        false => format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{fields}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    };
    wire.send(answer.as_bytes())?;
    Ok(!head.is_last())
}

/// A request is held no longer, even if nobody releases it.
const HOLD_MAX: Duration = Duration::from_secs(20);
const IDLE_MAX: Duration = Duration::from_secs(300);
const END_PATIENCE: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(backend: &Backend) -> Wire {
        let stream = TcpStream::connect(backend.address()).unwrap();
        Wire::new(stream, Duration::from_secs(10)).unwrap()
    }

    fn ask(wire: &mut Wire, nonce: &str) {
        wire.send(format!("GET /demo/{nonce} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    }

    fn body(wire: &mut Wire) -> String {
        let head = wire.head().unwrap().unwrap();
        let length = head.field("content-length").unwrap().parse().unwrap();
        String::from_utf8(wire.body(length).unwrap()).unwrap()
    }

    fn until(is_true: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !is_true() {
            assert!(std::time::Instant::now() < deadline, "waited in vain");
            std::thread::yield_now();
        }
    }

    #[test]
    fn it_answers_on_one_connection_with_name_and_nonce() {
        let backend = Backend::start("app-1".to_owned()).unwrap();
        let mut wire = connect(&backend);
        for nonce in ["1-1", "1-2"] {
            ask(&mut wire, nonce);
            assert_eq!(body(&mut wire), format!("app-1 {nonce}\n"));
        }
        wire.send(b"POST /demo/1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(wire.head().unwrap().unwrap().first_line().contains("405"));
    }

    #[test]
    fn pages_are_alike_everywhere_and_can_be_validated() {
        let backends = ["app-1", "app-2"].map(|name| Backend::start(name.to_owned()).unwrap());
        for backend in &backends {
            let mut wire = connect(backend);
            backend.hold(1);
            wire.send(b"GET /page/3 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert_eq!(body(&mut wire), set::page(3));
            wire.send(b"GET /page/3 HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"3\"\r\n\r\n").unwrap();
            assert!(wire.head().unwrap().unwrap().first_line().contains(" 304 "));
            assert!(wire.is_empty() && backend.held() == 0);
        }
    }

    #[test]
    fn it_holds_as_many_as_told_until_released() {
        let backend = Backend::start("app-1".to_owned()).unwrap();
        let (mut first, mut second) = (connect(&backend), connect(&backend));
        backend.hold(1);
        ask(&mut first, "1");
        until(|| backend.held() == 1);
        ask(&mut second, "2");
        assert_eq!(body(&mut second), "app-1 2\n");
        until(|| backend.in_flight() == 1);
        backend.release();
        assert_eq!(body(&mut first), "app-1 1\n");
        until(|| backend.in_flight() == 0);
    }

    #[test]
    fn it_dies_over_what_it_holds_and_comes_back() {
        let mut backend = Backend::start("app-1".to_owned()).unwrap();
        let mut wires = [connect(&backend), connect(&backend)];
        backend.hold(2);
        wires.iter_mut().for_each(|wire| ask(wire, "1"));
        until(|| backend.held() == 2);
        backend.die();
        for wire in &mut wires {
            assert!(!matches!(wire.head(), Ok(Some(_))), "no answer comes from the dead");
        }
        until(|| backend.connections() == 0);
        assert!(TcpStream::connect(backend.address()).is_err());
        backend.revive().unwrap();
        let mut wire = connect(&backend);
        ask(&mut wire, "2");
        assert_eq!(body(&mut wire), "app-1 2\n");
    }
}
