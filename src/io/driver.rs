//! [`Driver`]: glommio runs the tasks, an edge-triggered epoll of our own feeds them.
//!
//! glommio's own sockets cost a reschedule interrupt per completed poll and 8 to 11 syscalls per park (measured: 1.4 to
//! 1.7 times nginx's CPU per request, against 0.7 to 0.9 for this driver), so its reactor never sees a socket and never
//! parks. One task, `drive`, is the parking place: it lets every other task run until none did, then blocks in
//! `epoll_wait` until an event, a deadline, or a [`Bell`].
//!
//! While this driver runs, glommio's timers, files and channels are not served; nothing here uses them.
//!
//! Readiness is edge-triggered: a bit stays set until a call shows that the kernel has no more. A read shorter than the
//! slice proves that without a second call, unless the peer has ended or reset the connection: an end that
//! arrived together with the last bytes raises no second edge.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::Future;
use std::io::{Result, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pin_project_lite::pin_project;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use super::slots::{FINISHED, READABLE, RESET, Slots, WRITABLE};
use super::stream::{Accepting, Deadline, Detached, Socket};
use super::wake::Bell;
use super::{Io, socket};
use crate::time::{Instant, WallTime};

/// The outside world of a core that runs a glommio executor. Clones share the same epoll.
#[derive(Clone)]
pub struct Driver(Rc<Reactor>);

struct Reactor {
    epoll: RefCell<socket::Epoll>,
    slots: RefCell<Slots>,
    bell: Bell,
    is_rung: Cell<bool>,
    rung_waker: Cell<Option<Waker>>,
    now: Cell<Instant>,
    wall: Cell<WallTime>,
    wall_read: Cell<Instant>,
    slept: Cell<Duration>,
    rng: RefCell<SmallRng>,
    /// The main task has ended; so should the driver.
    is_over: Cell<bool>,
}

impl Driver {
    /// A driver for the calling thread's executor, woken from other threads by `bell`.
    ///
    /// # Errors
    /// When the kernel gives no epoll instance (descriptors exhausted).
    pub fn new(bell: Bell) -> Result<Self> {
        let epoll = socket::Epoll::new(EVENTS_PER_TURN)?;
        epoll.add(bell.descriptor(), (libc::EPOLLIN | libc::EPOLLET) as u32, BELL_TOKEN)?;
        let reactor = Reactor {
            epoll: RefCell::new(epoll),
            slots: RefCell::new(Slots::new()),
            bell,
            is_rung: Cell::new(false),
            rung_waker: Cell::new(None),
            now: Cell::new(monotonic()),
            wall: Cell::new(WallTime::from_ms(0)),
            wall_read: Cell::new(Instant::from_ns(0)),
            slept: Cell::new(Duration::ZERO),
            rng: RefCell::new(SmallRng::from_os_rng()),
            is_over: Cell::new(false),
        };
        reactor.read_clocks();
        Ok(Self(Rc::new(reactor)))
    }

    /// Runs `main` on the calling glommio executor until it ends, feeding it and all tasks it spawns.
    pub async fn run<T: 'static>(self, main: impl Future<Output = T>) -> T {
        let driver = glommio::spawn_local(self.clone().drive()).detach();
        let outcome = Counted { future: main }.await;
        // While the driver runs, the executor does not notice that `main` has ended.
        self.0.is_over.set(true);
        driver.await;
        outcome
    }

    /// Takes over a listener made by [`listen::bind`](super::listen::bind).
    ///
    /// # Errors
    /// When the kernel refuses to watch it.
    pub fn listener(&self, listener: TcpListener) -> Result<Accepting> {
        let slot = self.register(&listener, libc::EPOLLIN as u32, READABLE)?;
        Ok(Accepting::new(listener, slot))
    }

    /// Gives `fd` a slot that begins with `bits` and is fed by the events in `mask`, edge-triggered.
    fn register(&self, fd: &impl AsFd, mask: u32, bits: u8) -> Result<Registered> {
        let slot =
            Registered { driver: self.clone(), index: self.0.slots.borrow_mut().claim(bits) };
        let token = self.0.slots.borrow().token(slot.index);
        self.0.epoll.borrow().add(fd, mask | libc::EPOLLET as u32, token)?;
        Ok(slot)
    }

    /// Forgets a descriptor that stays open.
    pub(super) fn forget(&self, fd: &impl AsFd) {
        self.0.epoll.borrow().remove(fd);
    }

    /// A slot for a socket that carries bytes both ways.
    pub(super) fn register_stream(&self, fd: &impl AsFd, bits: u8) -> Result<Registered> {
        let mask = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP;
        self.register(fd, mask as u32, bits)
    }

    /// The parking place of the core.
    async fn drive(self) {
        let reactor = self.0;
        while !reactor.is_over.get() {
            let mut passes = 0;
            loop {
                let ran_before = TASKS_POLLED.get();
                yield_once().await;
                passes += 1;
                if TASKS_POLLED.get() == ran_before {
                    reactor.turn(!reactor.is_over.get());
                    break;
                }
                if passes >= PASSES_PER_TURN {
                    // Tasks keep waking each other; the outside world still gets its turn.
                    reactor.turn(false);
                    break;
                }
            }
        }
    }
}

impl Reactor {
    /// Collects events, blocking for the first one if allowed, and everything that came due.
    fn turn(&self, may_block: bool) {
        let mut timeout_ms = 0;
        let mut asleep_since = None;
        if may_block {
            let now = monotonic();
            timeout_ms = self.timeout_ms(now);
            asleep_since = (timeout_ms > 0 && self.bell.fall_asleep()).then_some(now);
            if asleep_since.is_none() {
                timeout_ms = 0;
            }
        }
        let mut epoll = self.epoll.borrow_mut();
        let events = epoll.wait(timeout_ms);
        if asleep_since.is_some() {
            self.bell.wake_up();
        }
        self.read_clocks();
        if let Some(since) = asleep_since {
            self.slept.set(self.slept.get() + self.now.get().since(since));
        }
        let mut slots = self.slots.borrow_mut();
        for (mask, token) in events {
            if token != BELL_TOKEN {
                slots.raise(token, bits_of(mask));
            }
        }
        slots.expire(self.now.get());
        drop(slots);
        if self.bell.take_ring() {
            self.is_rung.set(true);
            if let Some(waker) = self.rung_waker.take() {
                waker.wake();
            }
        }
    }

    /// Milliseconds until the next deadline, rounded up so that it has passed when we wake.
    fn timeout_ms(&self, now: Instant) -> i32 {
        let next_ns = self.slots.borrow().next_deadline_ns();
        let wait_ns = next_ns.map_or(u64::MAX, |at_ns| at_ns.saturating_sub(now.as_ns()));
        let wait_ms = wait_ns.div_ceil(1_000_000).min(SLEEP_MAX_MS);
        i32::try_from(wait_ms).expect("SLEEP_MAX_MS fits an i32")
    }

    fn read_clocks(&self) {
        let now = monotonic();
        self.now.set(now);
        if now.since(self.wall_read.get()) >= WALL_RESOLUTION || self.wall.get().as_ms() == 0 {
            self.wall_read.set(now);
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
            self.wall.set(WallTime::from_ms(ms));
        }
    }
}

impl Io for Driver {
    type Stream = Socket;
    type Listener = Accepting;
    type Movable = Detached;
    type Timer = Deadline;
    type Bell = Bell;

    fn now(&self) -> Instant {
        self.0.now.get()
    }

    fn wall(&self) -> WallTime {
        self.0.wall.get()
    }

    fn slept(&self) -> Duration {
        self.0.slept.get()
    }

    fn draw(&self) -> u64 {
        self.0.rng.borrow_mut().next_u64()
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(Counted { future: task }).detach();
    }

    fn connect(&self, to: SocketAddr) -> Result<Socket> {
        let fd = socket::connect(to)?;
        // After connect: a socket that was never connected reports a hang-up.
        let slot = self.register_stream(&fd, 0)?;
        Ok(Socket::new(fd, slot))
    }

    fn adopt(&self, Detached(fd): Detached) -> Result<Socket> {
        // Optimistic bits: the request has often arrived by now, and an edge corrects them if not.
        let slot = self.register_stream(&fd, READABLE | WRITABLE)?;
        Ok(Socket::new(fd, slot))
    }

    fn is_quiet(&self, Detached(fd): &Detached) -> bool {
        socket::is_quiet(fd.as_fd())
    }

    fn timer(&self) -> Deadline {
        let index = self.0.slots.borrow_mut().claim(0);
        Deadline::new(Registered { driver: self.clone(), index })
    }

    fn bell(&self) -> Bell {
        self.0.bell.clone()
    }

    fn poll_rung(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.is_rung.take() {
            return Poll::Ready(());
        }
        self.0.rung_waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn poll_stirred(&self, cx: &mut Context<'_>, tags: &mut Vec<u64>) -> Poll<()> {
        self.0.slots.borrow_mut().poll_stirred(cx, tags)
    }

    fn set_aside<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) -> Result<File> {
        let mut file = socket::memory_file()?;
        for piece in pieces {
            file.write_all(piece)?;
        }
        Ok(file)
    }

    fn rouse(&self) {
        self.0.slots.borrow_mut().rouse();
    }
}

/// A slot in use. Dropping it gives the slot back.
pub(super) struct Registered {
    driver: Driver,
    index: u32,
}

impl Registered {
    pub(super) fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Looks at or changes the slot. `inner` must not call back into the driver.
    pub(super) fn with<T>(&self, inner: impl FnOnce(&mut Slots, u32) -> T) -> T {
        inner(&mut self.driver.0.slots.borrow_mut(), self.index)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // Two statements: the waker may be the last of its task, whose end must not find the table borrowed.
        let waker = self.with(Slots::release);
        drop(waker);
    }
}

pin_project! {
    /// Counts its polls, so that the driver can tell a pass in which nothing ran.
    struct Counted<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        TASKS_POLLED.set(TASKS_POLLED.get().wrapping_add(1));
        self.project().future.poll(cx)
    }
}

thread_local! {
    static TASKS_POLLED: Cell<u64> = const { Cell::new(0) };
}

/// Goes to the back of the executor's queue once.
fn yield_once() -> impl Future<Output = ()> {
    let mut has_yielded = false;
    std::future::poll_fn(move |cx| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// The bits an event of epoll raises.
///
/// EPOLLHUP alone means that both directions have ended in an orderly way, so it counts as an end of input; a
/// broken connection always carries EPOLLERR.
fn bits_of(mask: u32) -> u8 {
    let has = |flag: i32| mask & flag as u32 != 0;
    let mut bits = 0;
    if has(libc::EPOLLIN) {
        bits |= READABLE;
    }
    if has(libc::EPOLLOUT) {
        bits |= WRITABLE;
    }
    if has(libc::EPOLLRDHUP) || has(libc::EPOLLHUP) {
        bits |= FINISHED | READABLE;
    }
    if has(libc::EPOLLERR) {
        bits |= RESET | READABLE | WRITABLE;
    }
    bits
}

/// The monotonic clock with an origin that all cores share.
fn monotonic() -> Instant {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    let since_origin = ORIGIN.get_or_init(std::time::Instant::now).elapsed();
    // One second on top, so that "some time ago" never falls before the origin.
    Instant::from_ns(1_000_000_000) + since_origin
}

/// Room for events in one `epoll_wait`; more simply come with the next.
const EVENTS_PER_TURN: usize = 256;
/// Passes through the run queue before epoll is asked even though tasks still run.
const PASSES_PER_TURN: u32 = 4;
/// Longest sleep, so that a core shows signs of life even if nothing ever happens.
const SLEEP_MAX_MS: u64 = 1_000;
/// The wall clock is read again after this long: a second-resolution `Date` needs no better.
const WALL_RESOLUTION: Duration = Duration::from_millis(1);
const BELL_TOKEN: u64 = u64::MAX;
