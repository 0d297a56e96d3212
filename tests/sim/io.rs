//! [`SimIo`]: the seam `balancer::io::Io` over memory. What the contract forbids is a panic here, so that a caller
//! who relies on luck is found out.

use std::cell::Cell;
use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use balancer::io::{Bell, Interest, Io, Listener, Status, Stream, Timer};
use balancer::time::{Instant, WallTime};

use crate::driver::Tid;
use crate::exec::World;
use crate::kernel::{Hid, Lid, Phase, Sid};

/// The outside world of one simulated core.
#[derive(Clone)]
pub struct SimIo {
    pub world: Rc<World>,
    pub host: Hid,
}

impl SimIo {
    /// Begins to listen on `address`. Several listeners may share it.
    pub fn listen(&self, address: SocketAddr) -> SimListener {
        let mut drivers = self.world.drivers.borrow_mut();
        let lid = drivers.net.listen(self.host, address);
        drivers.doors.push(None);
        SimListener { io: self.clone(), lid }
    }

    fn movable(&self, sid: Sid) -> SimMovable {
        let orphans = self.world.drivers.borrow().orphans.clone();
        SimMovable { sid: Some(sid), orphans }
    }

    fn stream(&self, sid: Sid) -> SimStream {
        SimStream { io: self.clone(), sid, is_detached: Cell::new(false) }
    }
}

impl Io for SimIo {
    type Stream = SimStream;
    type Listener = SimListener;
    type Movable = SimMovable;
    type Timer = SimTimer;
    type Bell = SimBell;

    fn now(&self) -> Instant {
        self.world.drivers.borrow().hosts[self.host].now
    }

    fn wall(&self) -> WallTime {
        WallTime::from_ms(WALL_ORIGIN_MS + self.now().as_ns() / 1_000_000)
    }

    fn slept(&self) -> Duration {
        Duration::ZERO
    }

    fn draw(&self) -> u64 {
        self.world.drivers.borrow_mut().net.rng.next()
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.world.spawn(self.host, Box::pin(task));
    }

    fn connect(&self, to: SocketAddr) -> Result<SimStream> {
        let mut drivers = self.world.drivers.borrow_mut();
        let ip = drivers.hosts[self.host].ip;
        let sid = drivers.net.connect(self.host, ip, to)?;
        drop(drivers);
        Ok(self.stream(sid))
    }

    fn adopt(&self, mut movable: SimMovable) -> Result<SimStream> {
        let sid = movable.sid.take().expect("it is adopted once");
        self.world.drivers.borrow_mut().adopt(self.host, sid);
        Ok(self.stream(sid))
    }

    fn is_quiet(&self, movable: &SimMovable) -> bool {
        let sid = movable.sid.expect("it is not adopted yet");
        self.world.drivers.borrow_mut().net.peek_would_block(sid)
    }

    fn timer(&self) -> SimTimer {
        let tid = self.world.drivers.borrow_mut().add_timer(self.host);
        SimTimer { io: self.clone(), tid }
    }

    fn bell(&self) -> SimBell {
        SimBell(self.world.drivers.borrow().hosts[self.host].bell.clone())
    }

    fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut drivers = self.world.drivers.borrow_mut();
        let host = &mut drivers.hosts[self.host];
        if host.bell.swap(false, Ordering::Relaxed) {
            return Poll::Ready(());
        }
        host.rung_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_stirred(&self, cx: &mut Context<'_>, tags: &mut Vec<u64>) -> Poll<()> {
        let mut drivers = self.world.drivers.borrow_mut();
        let host = &mut drivers.hosts[self.host];
        if host.stirred.is_empty() {
            host.stir_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        tags.append(&mut host.stirred);
        Poll::Ready(())
    }

    fn rouse(&self) {
        let woken = self.world.drivers.borrow_mut().rouse(self.host);
        woken.into_iter().for_each(std::task::Waker::wake);
    }
}

/// One end of a connection in memory.
pub struct SimStream {
    io: SimIo,
    sid: Sid,
    is_detached: Cell<bool>,
}

/// A connection between two cores.
pub struct SimMovable {
    sid: Option<Sid>,
    orphans: Arc<Mutex<Vec<Sid>>>,
}

impl Drop for SimMovable {
    fn drop(&mut self) {
        let orphan = self.sid.take();
        self.orphans.lock().expect("one thread").extend(orphan);
    }
}

impl SimStream {
    /// What a middlebox can do: both ends see a reset.
    pub fn cut(&self) {
        self.io.world.drivers.borrow_mut().net.cut(self.sid);
    }

    /// Behave like systems that throw away what had arrived when a reset comes.
    pub fn purge_on_reset(&self) {
        self.io.world.drivers.borrow_mut().net.sockets[self.sid].purges_on_reset = true;
    }

    pub fn local(&self) -> SocketAddr {
        self.io.world.drivers.borrow().net.sockets[self.sid].local
    }

    /// Bytes the peer's program has not read yet.
    pub fn unread_by_peer(&self) -> usize {
        self.io.world.drivers.borrow().net.sockets[self.sid].unread_by_peer()
    }
}

impl Stream for SimStream {
    type Movable = SimMovable;

    fn detach(self) -> SimMovable {
        self.set_deadline(None);
        self.watch(None);
        self.io.world.drivers.borrow_mut().detach(self.sid);
        self.is_detached.set(true);
        self.io.movable(self.sid)
    }

    fn recv(&self, into: &mut [u8]) -> Result<usize> {
        assert!(
            !into.is_empty(),
            "recv into an empty slice: Ok(0) would look like the end of input"
        );
        let mut drivers = self.io.world.drivers.borrow_mut();
        let bits_decide = drivers.net.weather.bits_decide;
        if bits_decide && !drivers.side(self.sid).bits.is_readable {
            return Err(ErrorKind::WouldBlock.into());
        }
        let outcome = drivers.net.recv(self.sid, into);
        let bits = &mut drivers.side(self.sid).bits;
        let is_sticky = bits.is_finished || bits.is_reset;
        if is_drained(&outcome, into.len()) && !is_sticky {
            bits.is_readable = false;
        }
        if matches!(outcome, Ok(0)) && drivers.side(self.sid).is_broken {
            return Err(ErrorKind::ConnectionReset.into());
        }
        outcome
    }

    fn send(&self, from: &[IoSlice<'_>]) -> Result<usize> {
        let mut drivers = self.io.world.drivers.borrow_mut();
        let bits_decide = drivers.net.weather.bits_decide;
        if bits_decide && !drivers.side(self.sid).bits.is_writable {
            return Err(ErrorKind::WouldBlock.into());
        }
        let asked = from.iter().map(|slice| slice.len()).sum();
        let outcome = drivers.net.send(self.sid, from);
        let bits = &mut drivers.side(self.sid).bits;
        if is_drained(&outcome, asked) && !bits.is_reset {
            bits.is_writable = false;
        }
        if let Err(error) = &outcome
            && !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::BrokenPipe)
        {
            // The kernel tells an error once; the driver keeps it for whoever reads.
            drivers.side(self.sid).is_broken = true;
        }
        outcome
    }

    fn poll_ready(&self, cx: &mut Context<'_>, interest: Interest) -> Poll<Status> {
        let mut drivers = self.io.world.drivers.borrow_mut();
        let side = drivers.side(self.sid);
        if side.poll(interest, cx.waker()) { Poll::Ready(side.bits) } else { Poll::Pending }
    }

    fn status(&self) -> Status {
        self.io.world.drivers.borrow_mut().side(self.sid).bits
    }

    fn is_quiet(&self) -> bool {
        let mut drivers = self.io.world.drivers.borrow_mut();
        let bits_decide = drivers.net.weather.bits_decide;
        let bits = drivers.side(self.sid).bits;
        if bits.is_finished || bits.is_reset {
            return false;
        }
        if !bits.is_readable && bits_decide {
            return true;
        }
        let is_quiet = drivers.net.peek_would_block(self.sid);
        if is_quiet {
            drivers.side(self.sid).bits.is_readable = false;
        }
        is_quiet
    }

    fn connected(&self) -> Result<()> {
        let mut drivers = self.io.world.drivers.borrow_mut();
        let socket = &mut drivers.net.sockets[self.sid];
        match (socket.error.take(), socket.phase) {
            (Some(error), _) => Err(error.into()),
            (None, Phase::Failed) => Err(Error::from(ErrorKind::NotConnected)),
            // SO_ERROR of a connect under way is 0 too: who asks early must look at the bits as well.
            (None, _) => Ok(()),
        }
    }

    fn finish(&self) {
        self.io.world.drivers.borrow_mut().net.shut(self.sid);
    }

    fn abort(&self) {
        self.io.world.drivers.borrow_mut().net.sockets[self.sid].resets_on_close = true;
    }

    fn settle(&self) {
        self.io.world.drivers.borrow_mut().net.sockets[self.sid].resets_on_close = false;
    }

    fn set_deadline(&self, deadline: Option<Instant>) {
        self.io.world.drivers.borrow_mut().set_stream_deadline(self.sid, deadline);
    }

    fn watch(&self, tag: Option<u64>) {
        let mut drivers = self.io.world.drivers.borrow_mut();
        let side = drivers.side(self.sid);
        side.tag = tag;
        let forgotten = side.forget_waker();
        drop(drivers);
        drop(forgotten);
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        if self.is_detached.get() {
            return;
        }
        let mut drivers = self.io.world.drivers.borrow_mut();
        drivers.set_stream_deadline(self.sid, None);
        drivers.net.close(self.sid);
        let side = drivers.side(self.sid);
        side.tag = None;
        let forgotten = side.forget_waker();
        drop(drivers);
        drop(forgotten);
    }
}

fn is_drained(outcome: &Result<usize>, asked: usize) -> bool {
    match outcome {
        Ok(n) => *n < asked,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// A listening socket in memory. Dropping it resets what nobody accepted.
pub struct SimListener {
    io: SimIo,
    lid: Lid,
}

impl Listener for SimListener {
    type Movable = SimMovable;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<(SimMovable, SocketAddr)>> {
        let mut drivers = self.io.world.drivers.borrow_mut();
        if drivers.net.listeners[self.lid].waiting.is_empty() {
            drivers.doors[self.lid] = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let percent = drivers.net.weather.accept_error_percent;
        if drivers.net.rng.chance(percent) {
            return Poll::Ready(Err(Error::from_raw_os_error(libc::EMFILE)));
        }
        let sid = drivers.take_backlog(self.lid).expect("the backlog was not empty");
        let remote = drivers.net.sockets[sid].remote;
        drop(drivers);
        Poll::Ready(Ok((self.io.movable(sid), remote)))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut drivers = self.io.world.drivers.borrow_mut();
        drivers.net.unlisten(self.lid);
        let forgotten = drivers.doors[self.lid].take();
        drop(drivers);
        drop(forgotten);
    }
}

/// A deadline of its own.
pub struct SimTimer {
    io: SimIo,
    tid: Tid,
}

impl Timer for SimTimer {
    fn set(&self, deadline: Option<Instant>) {
        self.io.world.drivers.borrow_mut().set_timer(self.tid, deadline);
    }

    fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut drivers = self.io.world.drivers.borrow_mut();
        let timer = &mut drivers.timers[self.tid];
        if timer.is_expired {
            return Poll::Ready(());
        }
        timer.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for SimTimer {
    fn drop(&mut self) {
        let mut drivers = self.io.world.drivers.borrow_mut();
        drivers.set_timer(self.tid, None);
        let forgotten = drivers.timers[self.tid].waker.take();
        drop(drivers);
        drop(forgotten);
    }
}

/// Rings a simulated core.
#[derive(Clone)]
pub struct SimBell(Arc<AtomicBool>);

impl Bell for SimBell {
    fn ring(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// 2026-01-01T00:00:00Z.
const WALL_ORIGIN_MS: u64 = 1_767_225_600_000;
