//! Runs the health book's errands: connects, and health checks over HTTP, a bounded number at a time.
//!
//! It knows sockets and one request; what an outcome means is the book's affair. A connect tries all addresses of the
//! backend, the next one as soon as one fails, and begins with another one each time, so that a silent address does not
//! hide a living one for long. A check sends one `GET` on a connection of its own and reads the response head, no more than
//! [`CHECK_LIMITS`] of it; 2xx and 3xx are good. Either ends by its deadline.

use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::balance::{Backend, Errand, Outcome, Symptom, Todo};
use crate::config::HealthCheck;
use crate::http::{HeadLimits, HeadScan, ResponseHead};
use crate::io::{self, Interest, Io, Stream};
use crate::time::Instant;

/// The errands that run.
pub(super) struct Errands<I: Io> {
    io: I,
    check: Option<HealthCheck>,
    running: Vec<Run<I::Stream>>,
    /// Errands that could not even begin.
    stillborn: Vec<(Todo, Outcome)>,
}

struct Run<S> {
    todo: Todo,
    until: Instant,
    route: Route,
    /// None between two addresses.
    stream: Option<S>,
    talk: Option<Talk>,
    is_connected: bool,
}

/// The addresses of one backend, as far as they are still to be tried.
struct Route {
    addresses: Arc<[SocketAddr]>,
    next: usize,
    left: usize,
    last: Symptom,
}

/// A check's request on its way and the response as far as it has come.
struct Talk {
    request: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    scan: HeadScan,
    interims: u32,
}

impl<I: Io> Errands<I> {
    pub(super) fn new(io: I, check: Option<HealthCheck>) -> Self {
        Self { io, check, running: Vec::new(), stillborn: Vec::new() }
    }

    /// Begins an errand to `backend`; `None`: there is no such backend any more.
    pub(super) fn begin(&mut self, todo: Todo, backend: Option<&Backend>) {
        let Some(backend) = backend.filter(|backend| !backend.addresses.is_empty()) else {
            return self.stillborn.push((todo, Outcome::Unknown));
        };
        let (talk, limit) = match (todo.errand, &self.check) {
            (Errand::Check, Some(check)) => (Some(Talk::new(check, backend)), check.timeout),
            _ => (None, CONNECT_TIMEOUT),
        };
        let addresses = Arc::clone(&backend.addresses);
        let next = (self.io.draw() % addresses.len() as u64) as usize;
        let route = Route { next, left: addresses.len(), addresses, last: Symptom::Unreachable };
        let until = self.io.now() + limit;
        let run = Run { todo, until, route, stream: None, talk, is_connected: false };
        self.running.push(run);
    }

    /// Moves all errands on; the outcome of one that has ended, if any.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<(Todo, Outcome)> {
        if let Some(ended) = self.stillborn.pop() {
            return Some(ended);
        }
        for at in 0..self.running.len() {
            if let Poll::Ready(outcome) = self.running[at].poll(cx, &self.io) {
                return Some((self.running.swap_remove(at).todo, outcome));
            }
        }
        None
    }
}

impl<S: Stream> Run<S> {
    fn poll(&mut self, cx: &mut Context<'_>, io: &impl Io<Stream = S>) -> Poll<Outcome> {
        loop {
            let Some(stream) = &self.stream else {
                match self.route.connect(io) {
                    Ok(stream) => {
                        stream.set_deadline(Some(self.until));
                        self.stream = Some(stream);
                        continue;
                    }
                    Err(outcome) => return Poll::Ready(outcome),
                }
            };
            if self.is_connected
                && let Some(talk) = &mut self.talk
            {
                return talk.poll(cx, stream);
            }
            let Poll::Ready(status) = stream.poll_ready(cx, Interest::WRITE) else {
                return Poll::Pending;
            };
            match stream.connected() {
                _ if status.is_expired && !status.is_writable && !status.is_reset => {
                    return Poll::Ready(Outcome::Bad(Symptom::ConnectTimeout));
                }
                Ok(()) if !status.is_reset => self.is_connected = true,
                Ok(()) => self.route.fail(Symptom::ConnectReset),
                Err(error) => self.route.fail(symptom_of(&error)),
            }
            match (self.is_connected, &self.talk) {
                (true, None) => return Poll::Ready(Outcome::Good),
                (true, Some(_)) => {}
                (false, _) => self.stream = None,
            }
        }
    }
}

impl Route {
    /// The next connect under way, or how it all ended.
    fn connect<I: Io>(&mut self, io: &I) -> Result<I::Stream, Outcome> {
        while self.left > 0 {
            let to = self.addresses[self.next % self.addresses.len()];
            match io.connect(to) {
                Ok(stream) => return Ok(stream),
                Err(error) if io::is_shortage(&error) => return Err(Outcome::Unknown),
                Err(error) => self.fail(symptom_of(&error)),
            }
        }
        Err(Outcome::Bad(self.last))
    }

    /// This address is no good.
    fn fail(&mut self, symptom: Symptom) {
        self.next += 1;
        self.left -= 1;
        self.last = symptom;
    }
}

impl Talk {
    fn new(check: &HealthCheck, backend: &Backend) -> Self {
        let (path, host) = (&check.path, &backend.authority);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\nConnection: close\r\n\r\n"
        );
        Self {
            request: request.into_bytes(),
            sent: 0,
            received: Vec::new(),
            scan: HeadScan::default(),
            interims: 0,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, stream: &impl Stream) -> Poll<Outcome> {
        loop {
            let outcome = if self.sent < self.request.len() {
                stream.send(&[IoSlice::new(&self.request[self.sent..])]).map(|n| self.sent += n)
            } else {
                self.receive(stream)
            };
            match outcome {
                Ok(()) => match self.judge() {
                    Some(outcome) => return Poll::Ready(outcome),
                    None => continue,
                },
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Outcome::Bad(Symptom::Closed));
                }
                Err(error) if error.kind() != ErrorKind::WouldBlock => {
                    return Poll::Ready(Outcome::Bad(Symptom::Reset));
                }
                Err(_) => {}
            }
            let is_sent = self.sent == self.request.len();
            let interest = if is_sent { Interest::READ } else { Interest::WRITE };
            match stream.poll_ready(cx, interest) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(status) if status.is_expired => {
                    return Poll::Ready(Outcome::Bad(Symptom::Silent));
                }
                Poll::Ready(_) => {}
            }
        }
    }

    fn receive(&mut self, stream: &impl Stream) -> std::io::Result<()> {
        let mut piece = [0; PIECE_BYTES];
        match stream.recv(&mut piece)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            n => {
                self.received.extend_from_slice(&piece[..n]);
                Ok(())
            }
        }
    }

    /// What the response says, once its head is there.
    fn judge(&mut self) -> Option<Outcome> {
        loop {
            let length = match self.scan.scan_response(&self.received, &CHECK_LIMITS) {
                Ok(length) => length?,
                Err(_) => return Some(Outcome::Bad(Symptom::Malformed)),
            };
            let mut head = ResponseHead::default();
            if head.parse(&self.received[..length]).is_err() {
                return Some(Outcome::Bad(Symptom::Malformed));
            }
            match head.status {
                200..=399 => return Some(Outcome::Good),
                100..=199 if self.interims < INTERIMS_MAX && head.status != 101 => {
                    self.interims += 1;
                    self.received.drain(..length);
                    self.scan.reset();
                }
                status => return Some(Outcome::Bad(Symptom::Status(status))),
            }
        }
    }
}

fn symptom_of(error: &std::io::Error) -> Symptom {
    match error.kind() {
        ErrorKind::ConnectionRefused => Symptom::Refused,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => Symptom::ConnectReset,
        ErrorKind::TimedOut => Symptom::ConnectTimeout,
        _ => Symptom::Unreachable,
    }
}

/// A connect outlives the pause between two of them: a backend may be further away than that.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// What is read of a check's response.
const CHECK_LIMITS: HeadLimits =
    HeadLimits { line_bytes_max: 1024, head_bytes_max: 8 * 1024, fields_max: 100 };
const PIECE_BYTES: usize = 2 * 1024;
/// Interim responses before the one that counts.
const INTERIMS_MAX: u32 = 4;
const USER_AGENT: &str = concat!("balancer/", env!("CARGO_PKG_VERSION"), " (health check)");

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::balance::{Category, Score, Slot};
    use crate::control::fake::{Fake, Wire};

    struct Scene {
        fake: Fake,
        errands: Errands<Fake>,
    }

    impl Scene {
        fn new() -> Self {
            let fake = Fake::default();
            let timeout = Duration::from_secs(1);
            let check =
                HealthCheck { path: "/up?x".into(), interval: Duration::from_secs(2), timeout };
            Self { errands: Errands::new(fake.clone(), Some(check)), fake }
        }

        fn begin(&mut self, errand: Errand, addresses: &[&str]) -> Option<Outcome> {
            let backend = Backend {
                slot: Slot(3),
                name: "app".into(),
                authority: "app:80".into(),
                score: Score::new(1.0).unwrap(),
                category: Category::Low,
                addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
                warming_since: None,
            };
            self.errands.begin(Todo { slot: Slot(3), episode: 7, errand }, Some(&backend));
            self.poll()
        }

        fn poll(&mut self) -> Option<Outcome> {
            let cx = &mut Context::from_waker(Waker::noop());
            let (todo, outcome) = self.errands.poll(cx)?;
            assert_eq!((todo.slot, todo.episode), (Slot(3), 7));
            Some(outcome)
        }

        fn wire(&self) -> Wire {
            self.fake.dialled.borrow().last().unwrap().1.clone()
        }

        fn dialled(&self) -> Vec<String> {
            self.fake.dialled.borrow().iter().map(|(to, _)| to.to_string()).collect()
        }

        /// A check whose backend says these pieces, one poll for each.
        fn check(pieces: &[&str]) -> Option<Outcome> {
            let mut scene = Self::new();
            assert_eq!(scene.begin(Errand::Check, &["10.0.0.1:80"]), None);
            scene.wire().0.borrow_mut().is_connected = true;
            assert_eq!(scene.poll(), None);
            let asked = String::from_utf8(scene.wire().0.borrow().from_us.clone()).unwrap();
            assert!(asked.starts_with("GET /up?x HTTP/1.1\r\nHost: app:80\r\n"), "{asked}");
            assert!(asked.ends_with("\r\nConnection: close\r\n\r\n"), "{asked}");
            let mut outcome = None;
            for piece in pieces {
                assert_eq!(outcome, None, "decided before {piece:?}");
                scene.wire().0.borrow_mut().to_us.extend(piece.bytes());
                outcome = scene.poll();
            }
            outcome
        }
    }

    #[test]
    fn a_connect_is_good_when_it_comes_about() {
        let mut scene = Scene::new();
        assert_eq!(scene.begin(Errand::Connect, &["10.0.0.1:80"]), None);
        scene.wire().0.borrow_mut().is_connected = true;
        assert_eq!(scene.poll(), Some(Outcome::Good));
        assert!(scene.wire().0.borrow().is_dropped);
        assert!(scene.wire().0.borrow().from_us.is_empty(), "nothing is asked");
        assert_eq!(scene.poll(), None, "told once");
    }

    #[test]
    fn all_addresses_are_tried() {
        let mut scene = Scene::new();
        let addresses = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
        assert_eq!(scene.begin(Errand::Connect, &addresses), None);
        for _ in 0..2 {
            scene.wire().0.borrow_mut().broken = Some(ErrorKind::ConnectionRefused);
            assert_eq!(scene.poll(), None);
        }
        let mut dialled = scene.dialled();
        dialled.sort();
        assert_eq!(dialled, addresses);
        scene.wire().0.borrow_mut().broken = Some(ErrorKind::ConnectionReset);
        assert_eq!(scene.poll(), Some(Outcome::Bad(Symptom::ConnectReset)));
    }

    #[test]
    fn who_left_meanwhile_is_not_asked() {
        let mut scene = Scene::new();
        scene.errands.begin(Todo { slot: Slot(3), episode: 7, errand: Errand::Connect }, None);
        assert_eq!(scene.poll(), Some(Outcome::Unknown));
        assert_eq!(scene.begin(Errand::Check, &[]), Some(Outcome::Unknown));
        assert_eq!(scene.dialled().len(), 0);
    }

    #[test]
    fn a_check_reads_the_head_and_no_more() {
        let ok = "HTTP/1.1 204 No Content\r\n\r\n";
        let good = [
            &[ok][..],
            &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal"],
            &["HTTP/1.0 302 Found\r\nLocation: /x\r\n", "\r\n"],
            &["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200", " OK\r\n\r\n"],
        ];
        for pieces in good {
            assert_eq!(Scene::check(pieces), Some(Outcome::Good), "{pieces:?}");
        }
        let torn: Vec<&str> = (0..ok.len()).map(|at| &ok[at..=at]).collect();
        assert_eq!(Scene::check(&torn), Some(Outcome::Good));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(5);
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(9_000));
        let bad = [
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", Symptom::Status(503)),
            ("HTTP/1.1 404 Not Found\r\n\r\n", Symptom::Status(404)),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Symptom::Status(101)),
            (&interim, Symptom::Status(100)),
            ("HTTP/1.1 99 Low\r\n\r\n", Symptom::Malformed),
            ("220 smtp.example\r\n", Symptom::Malformed),
            ("HTTP/1.1 200 OK\n", Symptom::Malformed),
            (&long, Symptom::Malformed),
        ];
        for (text, symptom) in bad {
            assert_eq!(Scene::check(&[text]), Some(Outcome::Bad(symptom)), "{text:.60?}");
        }
        assert_eq!(Scene::check(&["HTTP/1.1 200 OK\r\n"]), None);
    }

    #[test]
    fn an_answer_that_breaks_off_is_none() {
        for (broken, symptom) in
            [(None, Symptom::Closed), (Some(ErrorKind::ConnectionReset), Symptom::Reset)]
        {
            let mut scene = Scene::new();
            scene.begin(Errand::Check, &["10.0.0.1:80"]);
            scene.wire().0.borrow_mut().is_connected = true;
            assert_eq!(scene.poll(), None);
            scene.wire().0.borrow_mut().to_us.extend(b"HTTP/1.1 200 OK\r\n");
            (scene.wire().0.borrow_mut().broken, scene.wire().0.borrow_mut().has_ended) =
                (broken, broken.is_none());
            assert_eq!(scene.poll(), Some(Outcome::Bad(symptom)));
        }
    }
}
