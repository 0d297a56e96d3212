//! The load: a few clients on keep-alive connections that verify every answer.
//!
//! An answer counts when its status is 200, its body names a backend and the request's own nonce, and nothing else
//! follows. Everything else is a failure, whoever caused it. Now and then a client asks for a page that may be stored;
//! its body is verified, too, but it says nothing of shares. It refuses to know what the story does meanwhile.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::set::{COUNT, Each, PAGES, number, page};
use super::wire::Wire;

/// The clients. They rest until [`Load::pace`] is called first.
pub(super) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    /// Pause between two requests of one client in ns; 0 while they rest.
    interval_ns: AtomicU64,
    is_ending: AtomicBool,
    /// The backend that must get no request that begins from now on; [`COUNT`] when all may.
    barred: AtomicUsize,
    answered: Each<AtomicU64>,
    pages: AtomicU64,
    failed: AtomicU64,
    strays: AtomicU64,
    /// The first failures in words.
    reasons: Mutex<Vec<String>>,
}

impl Load {
    /// Clients of the balancer at `address`.
    pub fn new(address: SocketAddr, clients: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            address,
            interval_ns: AtomicU64::new(0),
            is_ending: AtomicBool::new(false),
            barred: AtomicUsize::new(COUNT),
            answered: Default::default(),
            pages: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            strays: AtomicU64::new(0),
            reasons: Mutex::new(Vec::new()),
        });
        let mut load = Self { shared, clients: Vec::new() };
        for n in 0..clients {
            let shared = Arc::clone(&load.shared);
            let thread = std::thread::Builder::new().name(format!("demo-client-{n}"));
            load.clients.push(thread.spawn(move || client(n, &shared))?);
        }
        Ok(load)
    }

    /// Requests a second from now on, all clients together.
    pub fn pace(&self, rate: f64) {
        let interval = self.clients.len() as f64 / rate.max(1.0);
        self.shared.interval_ns.store((interval * 1e9) as u64, Ordering::Relaxed);
    }

    pub fn is_running(&self) -> bool {
        self.shared.interval_ns.load(Ordering::Relaxed) > 0
    }

    pub const fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Good answers of each backend.
    pub fn answered(&self) -> Each<u64> {
        std::array::from_fn(|n| self.shared.answered[n].load(Ordering::Relaxed))
    }

    pub fn total(&self) -> u64 {
        self.answered().iter().sum()
    }

    /// Good answers to requests for pages; they are not among the [`total`](Self::total).
    pub fn pages(&self) -> u64 {
        self.shared.pages.load(Ordering::Relaxed)
    }

    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// The first few failures.
    pub fn reasons(&self) -> Vec<String> {
        self.shared.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on an answer of backend `n` to a request that begins later is a stray; `None` bars nobody.
    pub fn bar(&self, n: Option<usize>) {
        self.shared.barred.store(n.unwrap_or(COUNT), Ordering::SeqCst);
    }

    /// Answers that came from a barred backend.
    pub fn strays(&self) -> u64 {
        self.shared.strays.load(Ordering::Relaxed)
    }

    /// Each client ends once its present request is answered.
    pub fn finish(&self) {
        self.shared.is_ending.store(true, Ordering::SeqCst);
    }

    pub fn is_finished(&self) -> bool {
        self.clients.iter().all(JoinHandle::is_finished)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.finish();
        for client in self.clients.drain(..) {
            // A client that panicked has ended, and its request counts as neither answered nor failed.
            let _ = client.join();
        }
    }
}

fn client(number: usize, shared: &Shared) {
    let mut line = None;
    let mut due = Instant::now();
    let mut n = 0_u64;
    while !shared.is_ending.load(Ordering::SeqCst) {
        let interval = Duration::from_nanos(shared.interval_ns.load(Ordering::Relaxed));
        let rest =
            if interval.is_zero() { REST } else { due.saturating_duration_since(Instant::now()) };
        if !rest.is_zero() {
            std::thread::sleep(rest.min(REST));
            continue;
        }
        // What was missed is not made up for: that would be a burst.
        due = due.max(Instant::now() - interval) + interval;
        n += 1;
        if n.is_multiple_of(REQUESTS_PER_CONNECTION) {
            line = None;
        }
        match n % REQUESTS_PER_PAGE {
            0 => shared.ask_page(&mut line, n / REQUESTS_PER_PAGE % PAGES),
            _ => shared.ask(&mut line, &format!("{number}-{n}")),
        }
    }
}

impl Shared {
    /// One request and the judgement of its answer.
    fn ask(&self, line: &mut Option<Wire>, nonce: &str) {
        let barred = self.barred.load(Ordering::SeqCst);
        match exchange(line, self.address, nonce) {
            Ok(backend) => {
                self.answered[backend].fetch_add(1, Ordering::Relaxed);
                self.strays.fetch_add(u64::from(backend == barred), Ordering::Relaxed);
            }
            Err(fault) => self.note_failure(line, &format!("request {nonce}: {fault}")),
        }
    }

    /// The same for a page.
    fn ask_page(&self, line: &mut Option<Wire>, n: u64) {
        match fetch(line, self.address, &format!("/page/{n}")) {
            Ok(body) if body == page(n) => {
                self.pages.fetch_add(1, Ordering::Relaxed);
            }
            Ok(body) => self.note_failure(line, &format!("page {n}: the body is {body:.40?}")),
            Err(fault) => self.note_failure(line, &format!("page {n}: {fault}")),
        }
    }

    fn note_failure(&self, line: &mut Option<Wire>, why: &str) {
        *line = None;
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        if reasons.len() < REASONS_KEPT {
            reasons.push(why.to_owned());
        }
    }
}

/// Which backend gave the right answer.
pub(super) fn exchange(
    line: &mut Option<Wire>,
    address: SocketAddr,
    nonce: &str,
) -> io::Result<usize> {
    let body = fetch(line, address, &format!("/demo/{nonce}"))?;
    let backend = body.strip_suffix('\n').and_then(|text| text.split_once(' '));
    let backend = backend.filter(|&(_, echo)| echo == nonce).and_then(|(name, _)| number(name));
    backend.ok_or_else(|| wrong(format!("the body is {:?}", body.trim_end())))
}

/// The body of a whole 200.
fn fetch(line: &mut Option<Wire>, address: SocketAddr, target: &str) -> io::Result<String> {
    let wire = match line {
        Some(wire) => wire,
        None => line.insert(Wire::new(TcpStream::connect(address)?, PATIENCE)?),
    };
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: demo\r\n\r\n").as_bytes())?;
    let head = wire.head()?.ok_or_else(|| wrong("closed without an answer".to_owned()))?;
    if !head.first_line().starts_with("HTTP/1.1 200 ") {
        return Err(wrong(format!("answered {:?}", head.first_line())));
    }
    let length = head.field("content-length").and_then(|text| text.parse().ok());
    let length = length.ok_or_else(|| wrong("an answer without its length".to_owned()))?;
    let body = wire.body(length)?;
    if !wire.is_empty() {
        return Err(wrong("more bytes than the answer has".to_owned()));
    }
    if head.is_last() {
        *line = None;
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn wrong(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Longer than anything is held back.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long a client sleeps at a time.
const REST: Duration = Duration::from_millis(5);
/// Then it comes again on a new one: every worker gets some.
const REQUESTS_PER_CONNECTION: u64 = 500;
/// One in so many is for a page.
const REQUESTS_PER_PAGE: u64 = 8;
const REASONS_KEPT: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::backend::Backend;
    use std::io::Write as _;
    use std::net::TcpListener;

    fn until(is_true: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_true() {
            assert!(Instant::now() < deadline, "waited in vain");
            std::thread::yield_now();
        }
    }

    #[test]
    fn honest_answers_count_and_barred_ones_are_strays() {
        let backend = Backend::start("app-3".to_owned()).unwrap();
        let load = Load::new(backend.address(), 2).unwrap();
        load.pace(1e6);
        // More than one connection carries.
        until(|| load.answered()[2] > 2 * REQUESTS_PER_CONNECTION + 10);
        assert_eq!((load.failed(), load.strays()), (0, 0), "{:?}", load.reasons());
        assert!(load.pages() > 100, "{}", load.pages());
        load.bar(Some(1));
        let before = load.total();
        until(|| load.total() > before + 10);
        assert_eq!(load.strays(), 0);
        load.bar(Some(2));
        until(|| load.strays() > 10);
        load.finish();
        until(|| load.is_finished());
    }

    /// What becomes of an answer to `GET /demo/7-7`.
    fn judged(answer: &'static [u8]) -> io::Result<usize> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut wire = Wire::new(stream, Duration::from_secs(10)).unwrap();
            wire.head().unwrap();
            wire.stream().write_all(answer).unwrap();
        });
        let judged = exchange(&mut None, address, "7-7");
        serving.join().unwrap();
        judged
    }

    #[test]
    fn a_wrong_answer_never_passes() {
        let good = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\napp-2 7-7\n";
        assert_eq!(judged(good).unwrap(), 1);
        let table: [(&[u8], &str); 9] = [
            (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "502"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\napp-2 7-8\n", "7-8"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\napp-5 7-7\n", "app-5"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\napp-2\n", "app-2"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\napp-2 7-7\nx", "more bytes"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\napp-2 7-7\n", "end of file"),
            (b"HTTP/1.1 200 OK\r\n\r\napp-2 7-7\n", "length"),
            (b"HTTP/1.1 2", "end of file"),
            (b"", "closed"),
        ];
        for (answer, words) in table {
            let fault = judged(answer).expect_err("a wrong answer").to_string();
            assert!(fault.contains(words), "{fault:?} says nothing of {words:?}");
        }
    }

    #[test]
    fn a_lying_backend_is_counted_and_told() {
        // It answers in another's name, which no table knows.
        let liar = Backend::start("app-9".to_owned()).unwrap();
        let load = Load::new(liar.address(), 1).unwrap();
        load.pace(1000.0);
        until(|| load.failed() > REASONS_KEPT as u64);
        assert_eq!(load.total(), 0);
        assert_eq!(load.reasons().len(), REASONS_KEPT);
        assert!(load.reasons()[0].contains("app-9"), "{:?}", load.reasons());
    }
}
