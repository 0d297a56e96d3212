//! The driver's half of the simulated world: readiness bits, wakers, deadlines, and the turn in which a core asks
//! its epoll what happened.
//!
//! Faithful to `io::driver`: bits change only in a turn or by the outcome of a call, `now` moves only with a turn,
//! EPOLLHUP alone is an end of input, EPOLLERR a reset. What the real driver does not promise is drawn from the seed:
//! the order of events, how late a deadline fires, wakes for nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use balancer::io::{Interest, Status};
use balancer::time::Instant;

use crate::kernel::{Edge, Hid, Lid, Mask, Net, Sid};

/// Index of a timer; never reused within a run.
pub type Tid = usize;

/// One core: a worker, or a crowd of peers.
pub struct Host {
    pub ip: IpAddr,
    pub now: Instant,
    pub bell: Arc<AtomicBool>,
    pub rung_waker: Option<Waker>,
    pub stirred: Vec<u64>,
    pub stir_waker: Option<Waker>,
    due: Vec<Alarm>,
}

/// A deadline slot: a stream's or a timer's.
#[derive(Default)]
pub struct Deadline {
    at: Option<Instant>,
    version: u64,
}

/// What the driver knows of a socket.
#[derive(Default)]
pub struct Side {
    pub bits: Status,
    /// A send was told of a reset.
    pub is_broken: bool,
    pub tag: Option<u64>,
    waker: Option<Waker>,
    wanted: Option<Interest>,
    deadline: Deadline,
}

/// What the driver knows of a timer.
pub struct TimerSide {
    host: Hid,
    pub is_expired: bool,
    pub waker: Option<Waker>,
    deadline: Deadline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Stream(Sid, u64),
    Timer(Tid, u64),
}

/// Every core's driver, over one network.
pub struct Drivers {
    pub net: Net,
    pub hosts: Vec<Host>,
    pub doors: Vec<Option<Waker>>,
    pub timers: Vec<TimerSide>,
    /// Sockets that nobody adopted before they were dropped, perhaps under a borrow of all this.
    pub orphans: Arc<Mutex<Vec<Sid>>>,
    /// How many of them were clients' connections.
    pub buried: usize,
    sides: Vec<Side>,
    alarms: BinaryHeap<Reverse<(Instant, u64, Alarm)>>,
    alarms_set: u64,
}

impl Drivers {
    pub fn new(seed: u64) -> Self {
        Self {
            net: Net::new(seed),
            hosts: Vec::new(),
            doors: Vec::new(),
            timers: Vec::new(),
            orphans: Arc::default(),
            buried: 0,
            sides: Vec::new(),
            alarms: BinaryHeap::new(),
            alarms_set: 0,
        }
    }

    pub fn add_host(&mut self, ip: IpAddr) -> Hid {
        self.net.edges.push(Vec::new());
        self.hosts.push(Host {
            ip,
            now: self.net.now,
            bell: Arc::default(),
            rung_waker: None,
            stirred: Vec::new(),
            stir_waker: None,
            due: Vec::new(),
        });
        self.hosts.len() - 1
    }

    pub fn add_timer(&mut self, host: Hid) -> Tid {
        let (is_expired, waker, deadline) = (false, None, Deadline::default());
        self.timers.push(TimerSide { host, is_expired, waker, deadline });
        self.timers.len() - 1
    }

    /// The driver's half of a socket; it exists from the first look at it.
    pub fn side(&mut self, sid: Sid) -> &mut Side {
        if self.sides.len() <= sid {
            self.sides.resize_with(sid + 1, Side::default);
        }
        &mut self.sides[sid]
    }

    /// Whether a turn of this core would change anything.
    pub fn is_due(&self, host: Hid) -> bool {
        let h = &self.hosts[host];
        let is_rung = h.rung_waker.is_some() && h.bell.load(Ordering::Relaxed);
        is_rung || !h.due.is_empty() || !self.net.edges[host].is_empty()
    }

    /// When the next deadline fires; stale ones do not count.
    pub fn next_alarm(&mut self) -> Option<Instant> {
        while let Some(&Reverse((at, _, alarm))) = self.alarms.peek() {
            if self.is_current(alarm) {
                return Some(at);
            }
            self.alarms.pop();
        }
        None
    }

    /// Hands every deadline that fires by now to its core.
    pub fn ring_alarms(&mut self) {
        while self.next_alarm().is_some_and(|at| at <= self.net.now) {
            let Some(Reverse((_, _, alarm))) = self.alarms.pop() else { return };
            let host = match alarm {
                Alarm::Stream(sid, _) => self.net.sockets[sid].host,
                Alarm::Timer(tid, _) => self.timers[tid].host,
            };
            self.hosts[host].due.push(alarm);
        }
    }

    fn is_current(&self, alarm: Alarm) -> bool {
        match alarm {
            Alarm::Stream(sid, version) => self.sides[sid].deadline.version == version,
            Alarm::Timer(tid, version) => self.timers[tid].deadline.version == version,
        }
    }

    /// Sets or removes a stream's deadline and forgets that an earlier one passed. One that is not after `now` has
    /// passed; nobody is woken for it.
    pub fn set_stream_deadline(&mut self, sid: Sid, at: Option<Instant>) {
        let now = self.hosts[self.net.sockets[sid].host].now;
        let side = self.side(sid);
        let has_passed = at.is_some_and(|at| at <= now);
        side.bits.is_expired = has_passed;
        if let Some(version) = side.deadline.set(at.filter(|_| !has_passed)) {
            self.arm(at.filter(|_| !has_passed), Alarm::Stream(sid, version));
        }
    }

    /// Sets or removes a timer's deadline, like [`set_stream_deadline`](Self::set_stream_deadline).
    pub fn set_timer(&mut self, tid: Tid, at: Option<Instant>) {
        let timer = &mut self.timers[tid];
        let has_passed = at.is_some_and(|at| at <= self.hosts[timer.host].now);
        timer.is_expired = has_passed;
        if let Some(version) = timer.deadline.set(at.filter(|_| !has_passed)) {
            self.arm(at.filter(|_| !has_passed), Alarm::Timer(tid, version));
        }
    }

    fn arm(&mut self, at: Option<Instant>, alarm: Alarm) {
        let Some(at) = at else { return };
        let late = self.net.rng.up_to(self.net.weather.lateness_max);
        self.alarms_set += 1;
        self.alarms.push(Reverse((at.max(self.net.now) + late, self.alarms_set, alarm)));
    }

    /// One turn of a core's driver. Returns whom to wake, once the world is no longer borrowed.
    pub fn turn(&mut self, host: Hid) -> Vec<Waker> {
        let mut woken = Vec::new();
        self.hosts[host].now = self.net.now;
        for edge in self.net.take_edges(host) {
            match edge {
                Edge::Socket(sid) => {
                    let mask = self.net.mask(sid);
                    self.raise(sid, mask, &mut woken);
                }
                Edge::Listener(lid) => woken.extend(self.doors[lid].take()),
            }
        }
        for alarm in std::mem::take(&mut self.hosts[host].due) {
            if self.is_current(alarm) {
                match alarm {
                    Alarm::Stream(sid, _) => {
                        let side = self.side(sid);
                        side.deadline.set(None);
                        side.bits.is_expired = true;
                        self.net.trace.note(self.net.now, "expired", sid as u64, 0);
                        self.tell(sid, &mut woken);
                    }
                    Alarm::Timer(tid, _) => {
                        self.timers[tid].deadline.set(None);
                        self.timers[tid].is_expired = true;
                        woken.extend(self.timers[tid].waker.take());
                    }
                }
            }
        }
        let h = &mut self.hosts[host];
        if h.bell.load(Ordering::Relaxed) {
            woken.extend(h.rung_waker.take());
        }
        woken
    }

    fn raise(&mut self, sid: Sid, mask: Mask, woken: &mut Vec<Waker>) {
        let bits = &mut self.side(sid).bits;
        let was = *bits;
        bits.is_readable |= mask.readable || mask.read_end || mask.hang_up || mask.error;
        bits.is_writable |= mask.writable || mask.error;
        bits.is_finished |= mask.read_end || mask.hang_up;
        bits.is_reset |= mask.error;
        let now = *bits;
        if now != was {
            let code = u64::from(now.is_readable)
                | u64::from(now.is_writable) << 1
                | u64::from(now.is_finished) << 2
                | u64::from(now.is_reset) << 3;
            self.net.trace.note(self.net.now, "bits", sid as u64, code);
        }
        if mask.readable || mask.writable || mask.read_end || mask.hang_up || mask.error {
            self.tell(sid, woken);
        }
    }

    /// Something happened on the stream: its watcher learns, or the task that waits for that very thing.
    fn tell(&mut self, sid: Sid, woken: &mut Vec<Waker>) {
        let is_spurious = self.net.rng.chance(self.net.weather.spurious_percent);
        let host = self.net.sockets[sid].host;
        let side = &mut self.sides[sid];
        if let Some(tag) = side.tag {
            let h = &mut self.hosts[host];
            h.stirred.push(tag);
            woken.extend(h.stir_waker.take());
        } else if side.wanted.is_some_and(|wanted| side.is_ready(wanted) || is_spurious) {
            side.wanted = None;
            woken.extend(side.waker.take());
        }
    }

    /// Everybody of this core who waits on a stream, a listener or a timer.
    pub fn rouse(&mut self, host: Hid) -> Vec<Waker> {
        let mut woken = Vec::new();
        for sid in 0..self.sides.len() {
            if self.net.sockets[sid].host == host && self.sides[sid].tag.is_none() {
                self.sides[sid].wanted = None;
                woken.extend(self.sides[sid].waker.take());
            }
        }
        for lid in 0..self.doors.len() {
            if self.net.listeners[lid].host == host {
                woken.extend(self.doors[lid].take());
            }
        }
        for timer in self.timers.iter_mut().filter(|t| t.host == host) {
            woken.extend(timer.waker.take());
        }
        woken
    }

    /// Forgets all wakers: the run is over.
    pub fn forget_wakers(&mut self) -> Vec<Waker> {
        let mut wakers: Vec<Waker> = self.sides.iter_mut().filter_map(|s| s.waker.take()).collect();
        wakers.extend(self.doors.iter_mut().filter_map(Option::take));
        wakers.extend(self.timers.iter_mut().filter_map(|t| t.waker.take()));
        for host in &mut self.hosts {
            wakers.extend(host.rung_waker.take());
            wakers.extend(host.stir_waker.take());
        }
        wakers
    }

    /// The listener's next connection, if the backlog holds one.
    pub fn take_backlog(&mut self, lid: Lid) -> Option<Sid> {
        let sid = self.net.listeners[lid].waiting.pop_front()?;
        self.detach(sid);
        Some(sid)
    }

    /// The socket leaves its core's epoll and stays open.
    pub fn detach(&mut self, sid: Sid) {
        let socket = &mut self.net.sockets[sid];
        (socket.is_afloat, socket.is_edge_queued) = (true, false);
        self.net.edges[socket.host].retain(|edge| *edge != Edge::Socket(sid));
    }

    /// A socket that belonged to no core belongs to this one from here on.
    pub fn adopt(&mut self, host: Hid, sid: Sid) {
        let starts_ready = self.net.weather.starts_ready;
        let side = self.side(sid);
        side.bits =
            Status { is_readable: starts_ready, is_writable: starts_ready, ..Status::default() };
        side.is_broken = false;
        let socket = &mut self.net.sockets[sid];
        (socket.is_afloat, socket.host) = (false, host);
        // Registering a socket reports what is true of it already.
        self.net.edge(sid);
    }

    /// Closes what was dropped between two cores.
    pub fn bury(&mut self) {
        let orphans = std::mem::take(&mut *self.orphans.lock().expect("one thread"));
        self.buried += orphans.iter().filter(|sid| self.net.sockets[**sid].is_accepted).count();
        orphans.into_iter().for_each(|sid| self.net.close(sid));
    }
}

impl Side {
    fn is_ready(&self, wanted: Interest) -> bool {
        (wanted.read && (self.bits.is_readable || self.bits.is_finished))
            || (wanted.write && self.bits.is_writable)
            || self.bits.is_reset
            || self.bits.is_expired
    }

    /// Whether `wanted` holds now; if not, `waker` is kept, and what it waited for before still counts.
    pub fn poll(&mut self, wanted: Interest, waker: &Waker) -> bool {
        if self.is_ready(wanted) {
            return true;
        }
        let is_same_task = self.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        let before = self.wanted.filter(|_| is_same_task).unwrap_or(Interest::NONE);
        let (read, write) = (before.read || wanted.read, before.write || wanted.write);
        self.wanted = Some(Interest { read, write });
        self.waker = Some(waker.clone());
        false
    }

    /// Ends all waiting: the stream is watched from now on, or gone.
    pub fn forget_waker(&mut self) -> Option<Waker> {
        self.wanted = None;
        self.waker.take()
    }
}

impl Deadline {
    /// The version to arm, unless nothing changed.
    fn set(&mut self, at: Option<Instant>) -> Option<u64> {
        if self.at == at {
            return None;
        }
        self.at = at;
        self.version += 1;
        Some(self.version)
    }
}
