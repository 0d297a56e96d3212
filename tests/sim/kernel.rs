//! The network and the kernel's half of a socket: what is on the wire, what has arrived, what a syscall would say.
//!
//! Modelled on Linux TCP as a proxy sees it. One direction of a connection is a bounded, ordered queue: bytes sent and
//! not yet read by the peer's program count against its room. A close with unread input is a reset, bytes that reach a
//! closed socket come back as a reset, a reset leaves what had arrived readable and is reported by one error
//! (`SO_ERROR` is taken by whoever asks first), after which reads say end of input. Readiness bits are not known here:
//! an [`edge`](Net::edge) says only that epoll would report the socket, with all that is true of it at that time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::time::Duration;

use balancer::time::Instant;

use crate::trace::Trace;
use crate::weather::{Rng, Weather};

/// Index of a socket; never reused within a run.
pub type Sid = usize;
/// Index of a listener; never reused within a run.
pub type Lid = usize;
/// Index of a core: a worker, a crowd of clients, a set of backends.
pub type Hid = usize;

/// How an address answers a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// As its listener does; refused when nobody listens.
    Open,
    /// Refused, whoever listens.
    Refuse,
    /// Never answers; the kernel gives up after [`SYN_TIMEOUT`].
    BlackHole,
    /// Answers this much later than usual.
    Slow(Duration),
    /// `connect` itself fails.
    Unreachable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Connecting,
    Failed,
    Open,
    Closed,
}

/// The kernel's half of a socket.
#[derive(Debug)]
pub struct Socket {
    pub host: Hid,
    pub phase: Phase,
    pub peer: Option<Sid>,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub is_accepted: bool,
    /// Between two cores: nobody's epoll knows it.
    pub is_afloat: bool,
    pub received: VecDeque<u8>,
    pub has_fin: bool,
    pub has_reset: bool,
    pub error: Option<ErrorKind>,
    pub is_shut: bool,
    pub resets_on_close: bool,
    /// What some systems do and Linux does not: throw away what had arrived when a reset comes.
    pub purges_on_reset: bool,
    /// Room for what we send, and how much of it is taken by bytes the peer's program has not read.
    room: usize,
    taken: usize,
    wants_room: bool,
    last_arrival: Instant,
    /// Segments are numbered so that a reset can swallow those still on their way.
    segments: u64,
    swallowed_from: u64,
    pub is_edge_queued: bool,
}

/// What epoll would say of a socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mask {
    pub readable: bool,
    pub writable: bool,
    pub read_end: bool,
    pub hang_up: bool,
    pub error: bool,
}

#[derive(Debug)]
pub struct Backlog {
    pub host: Hid,
    pub address: SocketAddr,
    pub waiting: VecDeque<Sid>,
    pub is_open: bool,
    is_edge_queued: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Segment { to: Sid, number: u64, bytes: Vec<u8> },
    Fin { to: Sid, number: u64 },
    Reset { to: Sid },
    Room { at: Sid, bytes: usize },
    Syn { from: Sid },
    Established { at: Sid, peer: Sid },
    ConnectFailed { at: Sid, is_refused: bool },
}

/// Something a core's epoll has to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    Socket(Sid),
    Listener(Lid),
}

/// All sockets of all cores, and everything that is on its way between them.
pub struct Net {
    pub now: Instant,
    pub rng: Rng,
    pub weather: Weather,
    pub trace: Trace,
    pub sockets: Vec<Socket>,
    pub listeners: Vec<Backlog>,
    pub edges: Vec<Vec<Edge>>,
    pub routes: BTreeMap<SocketAddr, Route>,
    /// Every connect that was begun: by whom, to where, and when.
    pub dialled: Vec<(Hid, SocketAddr, Instant)>,
    wire: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    events: u64,
    ports: u16,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let weather = Weather::draw(&mut rng);
        Self {
            now: Instant::from_ns(1_000_000_000),
            rng,
            weather,
            trace: Trace::default(),
            sockets: Vec::new(),
            listeners: Vec::new(),
            edges: Vec::new(),
            routes: BTreeMap::new(),
            dialled: Vec::new(),
            wire: BinaryHeap::new(),
            events: 0,
            ports: 20_000,
        }
    }

    /// When the next thing arrives anywhere.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.wire.peek().map(|Reverse((at, ..))| *at)
    }

    /// Whether nothing is on its way but connects that nobody answers.
    pub fn is_still(&self) -> bool {
        self.wire
            .iter()
            .all(|Reverse((_, _, e))| matches!(e, Event::ConnectFailed { is_refused: false, .. }))
    }

    /// Applies everything that has arrived by now.
    pub fn deliver(&mut self) {
        while self.next_arrival().is_some_and(|at| at <= self.now) {
            let Some(Reverse((_, _, event))) = self.wire.pop() else { return };
            self.apply(event);
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Segment { to, number, bytes } => self.segment(to, number, &bytes),
            Event::Fin { to, number } => {
                let peer = self.sockets[to].peer;
                let is_swallowed = peer.is_some_and(|p| number > self.sockets[p].swallowed_from);
                let socket = &mut self.sockets[to];
                if socket.phase == Phase::Open && !socket.has_reset && !is_swallowed {
                    socket.has_fin = true;
                    self.trace.note(self.now, "fin", to as u64, 0);
                    self.edge(to);
                }
            }
            Event::Reset { to } => self.reset(to),
            Event::Room { at, bytes } => {
                let socket = &mut self.sockets[at];
                socket.taken -= bytes;
                if socket.wants_room && socket.has_room() {
                    socket.wants_room = false;
                    self.edge(at);
                }
            }
            Event::Syn { from } => self.syn(from),
            Event::Established { at, peer } => {
                self.trace.note(self.now, "established", at as u64, peer as u64);
                if self.sockets[at].phase == Phase::Connecting {
                    self.sockets[at].phase = Phase::Open;
                    self.sockets[at].peer = Some(peer);
                    self.edge(at);
                } else {
                    self.send_reset(at, Some(peer));
                }
            }
            Event::ConnectFailed { at, is_refused } => {
                if self.sockets[at].phase == Phase::Connecting {
                    self.trace.note(self.now, "connect failed", at as u64, u64::from(is_refused));
                    let socket = &mut self.sockets[at];
                    socket.phase = Phase::Failed;
                    socket.error = Some(match is_refused {
                        true => ErrorKind::ConnectionRefused,
                        false => ErrorKind::TimedOut,
                    });
                    self.edge(at);
                }
            }
        }
    }

    fn segment(&mut self, to: Sid, number: u64, bytes: &[u8]) {
        let Some(from) = self.sockets[to].peer else { return };
        if number > self.sockets[from].swallowed_from {
            return;
        }
        let socket = &mut self.sockets[to];
        match socket.phase {
            Phase::Open if !socket.has_reset => {
                socket.received.extend(bytes);
                self.trace.note(self.now, "segment", to as u64, bytes.len() as u64);
                self.edge(to);
            }
            Phase::Closed => self.send_reset(to, Some(from)),
            _ => {}
        }
    }

    fn reset(&mut self, to: Sid) {
        let socket = &mut self.sockets[to];
        if socket.phase != Phase::Open || socket.has_reset {
            return;
        }
        socket.has_reset = true;
        socket.swallowed_from = 0;
        socket.error = Some(match socket.has_fin {
            true => ErrorKind::BrokenPipe,
            false => ErrorKind::ConnectionReset,
        });
        if socket.purges_on_reset {
            socket.received.clear();
        }
        self.trace.note(self.now, "reset", to as u64, 0);
        self.edge(to);
    }

    fn syn(&mut self, from: Sid) {
        let (to, client) = (self.sockets[from].remote, self.sockets[from].local);
        let route = self.routes.get(&to).copied().unwrap_or(Route::Open);
        let open: Vec<Lid> = (0..self.listeners.len())
            .filter(|&l| self.listeners[l].is_open && self.listeners[l].address == to)
            .collect();
        let back = self.now + self.latency();
        if open.is_empty() || route == Route::Refuse {
            self.post(back, Event::ConnectFailed { at: from, is_refused: true });
            return;
        }
        let lid = open[self.rng.below(open.len() as u64) as usize];
        let sid = self.new_socket(self.listeners[lid].host, Phase::Open, to, client);
        let socket = &mut self.sockets[sid];
        socket.peer = Some(from);
        socket.is_accepted = true;
        socket.last_arrival = back;
        self.post(back, Event::Established { at: from, peer: sid });
        self.listeners[lid].waiting.push_back(sid);
        self.listener_edge(lid);
    }

    fn listener_edge(&mut self, lid: Lid) {
        let listener = &mut self.listeners[lid];
        if !std::mem::replace(&mut listener.is_edge_queued, true) {
            self.edges[listener.host].push(Edge::Listener(lid));
        }
    }

    /// Tells the socket's core that epoll has something to report of it.
    pub fn edge(&mut self, sid: Sid) {
        let socket = &mut self.sockets[sid];
        if socket.phase == Phase::Closed || socket.is_afloat {
            return;
        }
        if !std::mem::replace(&mut socket.is_edge_queued, true) {
            self.edges[socket.host].push(Edge::Socket(sid));
        }
    }

    /// Takes what a core's epoll has to report, in an order of the seed's choosing.
    pub fn take_edges(&mut self, host: Hid) -> Vec<Edge> {
        let mut edges = std::mem::take(&mut self.edges[host]);
        for i in (1..edges.len()).rev() {
            edges.swap(i, self.rng.below(i as u64 + 1) as usize);
        }
        for edge in &edges {
            match *edge {
                Edge::Socket(sid) => self.sockets[sid].is_edge_queued = false,
                Edge::Listener(lid) => self.listeners[lid].is_edge_queued = false,
            }
        }
        edges
    }

    fn post(&mut self, at: Instant, event: Event) {
        self.events += 1;
        self.wire.push(Reverse((at, self.events, event)));
    }

    fn latency(&mut self) -> Duration {
        let (low, high) = self.weather.latency;
        low + self.rng.up_to(high - low)
    }

    /// When something that `from` sends now arrives: never before what it sent earlier.
    fn arrival(&mut self, from: Sid) -> Instant {
        let at = (self.now + self.latency()).max(self.sockets[from].last_arrival);
        self.sockets[from].last_arrival = at;
        at
    }

    fn new_socket(
        &mut self,
        host: Hid,
        phase: Phase,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Sid {
        let (low, high) = self.weather.buffer_bytes;
        self.sockets.push(Socket {
            host,
            phase,
            peer: None,
            local,
            remote,
            is_accepted: false,
            is_afloat: false,
            received: VecDeque::new(),
            has_fin: false,
            has_reset: false,
            error: None,
            is_shut: false,
            resets_on_close: false,
            purges_on_reset: false,
            room: self.rng.between(low, high).max(1) as usize,
            taken: 0,
            wants_room: false,
            last_arrival: self.now,
            segments: 0,
            swallowed_from: u64::MAX,
            is_edge_queued: false,
        });
        self.sockets.len() - 1
    }

    /// `listen(2)`. Several listeners may share an address (SO_REUSEPORT).
    pub fn listen(&mut self, host: Hid, address: SocketAddr) -> Lid {
        self.listeners.push(Backlog {
            host,
            address,
            waiting: VecDeque::new(),
            is_open: true,
            is_edge_queued: false,
        });
        self.listeners.len() - 1
    }

    /// Closing a listener resets what nobody accepted.
    pub fn unlisten(&mut self, lid: Lid) {
        self.listeners[lid].is_open = false;
        for sid in std::mem::take(&mut self.listeners[lid].waiting) {
            self.sockets[sid].resets_on_close = true;
            self.close(sid);
        }
    }

    /// `connect(2)`, not blocking, from an address of the core's own.
    pub fn connect(&mut self, host: Hid, from: std::net::IpAddr, to: SocketAddr) -> Result<Sid> {
        self.dialled.push((host, to, self.now));
        let route = self.routes.get(&to).copied().unwrap_or(Route::Open);
        if route == Route::Unreachable {
            return Err(Error::from(ErrorKind::NetworkUnreachable));
        }
        self.ports = self.ports.wrapping_add(1).max(20_000);
        let sid = self.new_socket(host, Phase::Connecting, SocketAddr::new(from, self.ports), to);
        self.trace.note(self.now, "connect", sid as u64, u64::from(to.port()));
        let extra = match route {
            Route::Slow(extra) => extra,
            _ => Duration::ZERO,
        };
        let arrival = self.now + self.latency() + extra;
        match route {
            Route::BlackHole => self
                .post(self.now + SYN_TIMEOUT, Event::ConnectFailed { at: sid, is_refused: false }),
            _ => self.post(arrival, Event::Syn { from: sid }),
        }
        Ok(sid)
    }

    /// `recv(2)`. A torn read stands for bytes that arrive just after the call: epoll reports them anew.
    pub fn recv(&mut self, sid: Sid, into: &mut [u8]) -> Result<usize> {
        let tears = self.rng.chance(self.weather.tear_percent);
        let socket = &mut self.sockets[sid];
        if socket.received.is_empty() {
            return match (socket.error, socket.phase) {
                _ if socket.has_fin => Ok(0),
                (Some(error), _) => {
                    socket.error = None;
                    Err(error.into())
                }
                _ if socket.has_reset => Ok(0),
                (None, Phase::Failed) => Ok(0),
                _ => Err(ErrorKind::WouldBlock.into()),
            };
        }
        let mut n = socket.received.len().min(into.len());
        // Once the end is in the kernel everything before it is too.
        if tears && n > 1 && !socket.has_fin && !socket.has_reset {
            n = 1 + self.rng.below(n as u64 - 1) as usize;
        }
        let socket = &mut self.sockets[sid];
        let (front, back) = socket.received.as_slices();
        let of_front = n.min(front.len());
        into[..of_front].copy_from_slice(&front[..of_front]);
        into[of_front..n].copy_from_slice(&back[..n - of_front]);
        socket.received.drain(..n);
        let peer = socket.peer;
        if !socket.received.is_empty() && n < into.len() {
            self.edge(sid);
        }
        if let Some(peer) = peer {
            let at = self.now + self.latency();
            self.post(at, Event::Room { at: peer, bytes: n });
        }
        self.trace.note(self.now, "recv", sid as u64, n as u64);
        Ok(n)
    }

    /// `recv(2)` with MSG_PEEK, as far as a yes or no goes: it takes a pending error like any other call.
    pub fn peek_would_block(&mut self, sid: Sid) -> bool {
        let socket = &mut self.sockets[sid];
        let is_dead = socket.has_reset || socket.phase == Phase::Failed;
        let has_something = !socket.received.is_empty() || socket.has_fin;
        !has_something && socket.error.take().is_none() && !is_dead
    }

    /// `sendmsg(2)` with MSG_NOSIGNAL.
    pub fn send(&mut self, sid: Sid, from: &[IoSlice<'_>]) -> Result<usize> {
        let is_cut_short = self.rng.chance(self.weather.short_write_percent);
        let total: usize = from.iter().map(|s| s.len()).sum();
        let socket = &mut self.sockets[sid];
        if socket.phase == Phase::Connecting {
            return Err(ErrorKind::WouldBlock.into());
        }
        if let Some(error) = socket.error.take() {
            return Err(error.into());
        }
        if socket.phase != Phase::Open || socket.has_reset || socket.is_shut {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let free = socket.room - socket.taken.min(socket.room);
        let mut n = total.min(free);
        if n == 0 && total > 0 {
            socket.wants_room = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        if is_cut_short && n > 1 {
            n = 1 + self.rng.below(n as u64 - 1) as usize;
        }
        let mut bytes = Vec::with_capacity(n);
        for slice in from {
            bytes.extend_from_slice(&slice[..slice.len().min(n - bytes.len())]);
        }
        let socket = &mut self.sockets[sid];
        socket.taken += n;
        socket.wants_room = n < total;
        self.trace.note(self.now, "send", sid as u64, n as u64);
        if n < total && n < free {
            // The kernel ran out of memory for a moment; it will say when there is room again.
            let at = self.now + self.latency();
            self.post(at, Event::Room { at: sid, bytes: 0 });
        }
        self.put_on_wire(sid, &bytes);
        Ok(n)
    }

    fn put_on_wire(&mut self, sid: Sid, mut bytes: &[u8]) {
        let Some(peer) = self.sockets[sid].peer else { return };
        while !bytes.is_empty() {
            let is_torn = self.rng.chance(self.weather.tear_percent);
            let cut = match is_torn && bytes.len() > 1 {
                true if self.rng.chance(30) => 1,
                true => 1 + self.rng.below(bytes.len() as u64 - 1) as usize,
                false => bytes.len(),
            };
            let (head, rest) = bytes.split_at(cut.max(bytes.len() / SEGMENTS_MAX).min(bytes.len()));
            let at = self.arrival(sid);
            self.sockets[sid].segments += 1;
            let number = self.sockets[sid].segments;
            self.post(at, Event::Segment { to: peer, number, bytes: head.to_vec() });
            bytes = rest;
        }
    }

    /// `shutdown(SHUT_WR)`. epoll reports the socket once more, as Linux does.
    pub fn shut(&mut self, sid: Sid) {
        let socket = &mut self.sockets[sid];
        if socket.phase != Phase::Open || socket.is_shut || socket.has_reset {
            return;
        }
        socket.is_shut = true;
        self.edge(sid);
        self.send_fin(sid);
    }

    fn send_fin(&mut self, sid: Sid) {
        let Some(to) = self.sockets[sid].peer else { return };
        self.sockets[sid].segments += 1;
        let number = self.sockets[sid].segments;
        let at = self.arrival(sid);
        self.post(at, Event::Fin { to, number });
    }

    /// `close(2)`.
    pub fn close(&mut self, sid: Sid) {
        let phase = std::mem::replace(&mut self.sockets[sid].phase, Phase::Closed);
        let socket = &mut self.sockets[sid];
        self.trace.note(self.now, "close", sid as u64, socket.received.len() as u64);
        let has_unread = !socket.received.is_empty();
        socket.received = VecDeque::new();
        if phase != Phase::Open || socket.has_reset {
            return;
        }
        let peer = socket.peer;
        if socket.resets_on_close || has_unread {
            // What had not left yet is lost: any tail of what is on its way may be that.
            let kept = self.rng.chance(50);
            let sent = self.sockets[sid].segments;
            self.sockets[sid].swallowed_from =
                if kept { u64::MAX } else { self.rng.below(sent + 1) };
            self.send_reset(sid, peer);
        } else if !socket.is_shut {
            self.send_fin(sid);
        }
    }

    fn send_reset(&mut self, from: Sid, to: Option<Sid>) {
        if let Some(to) = to {
            let at = self.arrival(from);
            self.post(at, Event::Reset { to });
        }
    }

    /// Somebody in the middle breaks the connection: both ends see a reset.
    pub fn cut(&mut self, sid: Sid) {
        let peer = self.sockets[sid].peer;
        self.send_reset(sid, peer);
        self.reset(sid);
    }

    /// What epoll would report, as `tcp_poll` computes it.
    pub fn mask(&self, sid: Sid) -> Mask {
        let s = &self.sockets[sid];
        let is_dead = s.has_reset || s.phase == Phase::Failed;
        match s.phase {
            Phase::Connecting | Phase::Closed => Mask::default(),
            _ => Mask {
                readable: !s.received.is_empty() || s.has_fin || is_dead,
                writable: s.has_room() || s.is_shut || is_dead,
                read_end: s.has_fin || is_dead,
                hang_up: is_dead || (s.has_fin && s.is_shut),
                error: s.error.is_some(),
            },
        }
    }
}

impl Socket {
    /// Linux reports room only when a third of the buffer is free.
    fn has_room(&self) -> bool {
        self.room.saturating_sub(self.taken) >= (self.room / 3).max(1)
    }

    /// Bytes sent that the peer's program has not read.
    pub fn unread_by_peer(&self) -> usize {
        self.taken
    }
}

/// How long Linux goes on asking an address that does not answer (`tcp_syn_retries` 6).
pub const SYN_TIMEOUT: Duration = Duration::from_secs(127);
/// Bound on the pieces one send is torn into.
const SEGMENTS_MAX: usize = 64;
