//! The executor: one thread, a seeded choice of what happens next, a clock that jumps.
//!
//! A step is one of: poll one ready task, or give one core's driver its turn. A core's driver normally gets its turn
//! when none of its tasks is ready, as in `io::driver`. When there is nothing to do the clock jumps to the next
//! arrival or deadline; when there is none either, the world has come to its end ([`Outcome::Dead`]).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use balancer::time::Instant;

use crate::driver::Drivers;
use crate::io::SimIo;
use crate::kernel::{Hid, Phase, Route};
use crate::weather::Weather;

type Future0 = Pin<Box<dyn Future<Output = ()>>>;

/// How a [`Sim::run_until`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The condition holds.
    Met,
    /// The virtual deadline passed first.
    Late,
    /// Nothing will ever happen again: no task is ready, nothing is on its way, no deadline is set.
    Dead,
}

/// One simulated world. Dropping it drops all tasks.
pub struct Sim {
    world: Rc<World>,
}

/// What all cores of a run share.
pub struct World {
    pub drivers: RefCell<Drivers>,
    tasks: RefCell<Vec<Task>>,
    ready: Arc<Mutex<Vec<usize>>>,
    is_over: Cell<bool>,
    steps_since_idle: Cell<u64>,
}

struct Task {
    host: Hid,
    future: Option<Future0>,
    waker: Arc<TaskWaker>,
}

struct TaskWaker {
    task: usize,
    is_queued: AtomicBool,
    ready: Arc<Mutex<Vec<usize>>>,
}

/// What a finished peer leaves behind.
pub struct Handle<T> {
    name: String,
    value: Rc<RefCell<Option<T>>>,
}

/// One open stream of a core, as the oracles see it.
#[derive(Clone, Debug)]
pub struct OpenStream {
    pub remote: std::net::SocketAddr,
    pub is_accepted: bool,
    pub is_watched: bool,
    /// Between two cores.
    pub is_shared: bool,
}

#[derive(Clone, Copy)]
enum Step {
    Poll(usize),
    Turn(Hid),
}

impl Sim {
    pub fn new(seed: u64) -> Self {
        let world = World {
            drivers: RefCell::new(Drivers::new(seed)),
            tasks: RefCell::default(),
            ready: Arc::default(),
            is_over: Cell::new(false),
            steps_since_idle: Cell::new(0),
        };
        Self { world: Rc::new(world) }
    }

    /// A new core at `10.0.<n>.1`, `n` counting from 1.
    pub fn core(&self) -> SimIo {
        let mut drivers = self.world.drivers.borrow_mut();
        let n = drivers.hosts.len() as u8 + 1;
        let host = drivers.add_host(IpAddr::V4(Ipv4Addr::new(10, 0, n, 1)));
        SimIo { world: self.world.clone(), host }
    }

    /// Changes the weather from here on.
    pub fn with_weather(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.world.drivers.borrow_mut().net.weather);
    }

    /// How connects to `address` are answered from here on.
    pub fn route(&self, address: std::net::SocketAddr, route: Route) {
        self.world.drivers.borrow_mut().net.routes.insert(address, route);
    }

    /// Every connection that `address` has accepted breaks.
    pub fn cut_all(&self, address: std::net::SocketAddr) {
        let mut drivers = self.world.drivers.borrow_mut();
        for sid in 0..drivers.net.sockets.len() {
            let socket = &drivers.net.sockets[sid];
            if socket.is_accepted && socket.local == address && socket.phase == Phase::Open {
                drivers.net.cut(sid);
            }
        }
    }

    /// When which core began to connect to `address`, oldest first.
    pub fn dialled(&self, address: std::net::SocketAddr) -> Vec<(Hid, Instant)> {
        let drivers = self.world.drivers.borrow();
        let to_it = drivers.net.dialled.iter().filter(|(_, to, _)| *to == address);
        to_it.map(|&(by, _, at)| (by, at)).collect()
    }

    /// A choice of the scenario's own.
    pub fn below(&self, n: u64) -> u64 {
        self.world.drivers.borrow_mut().net.rng.below(n)
    }

    /// Starts a peer on a core.
    pub fn start<T: 'static>(
        &self,
        io: &SimIo,
        name: impl Into<String>,
        peer: impl Future<Output = T> + 'static,
    ) -> Handle<T> {
        let value = Rc::new(RefCell::new(None));
        let slot = value.clone();
        let now = self.now();
        self.world.drivers.borrow_mut().hosts[io.host].now = now;
        self.world.spawn(
            io.host,
            Box::pin(async move {
                let outcome = peer.await;
                *slot.borrow_mut() = Some(outcome);
            }),
        );
        Handle { name: name.into(), value }
    }

    pub fn now(&self) -> Instant {
        self.world.drivers.borrow().net.now
    }

    /// A hash over everything that has happened.
    pub fn trace_hash(&self) -> u64 {
        self.world.drivers.borrow().net.trace.hash()
    }

    /// The last things that happened, in words.
    pub fn trace_tail(&self) -> String {
        self.world.drivers.borrow().net.trace.tail()
    }

    /// Whether nothing is ready, nothing is reported and nothing is on its way; only deadlines are left.
    pub fn is_at_rest(&self) -> bool {
        let drivers = self.world.drivers.borrow();
        let no_turn = (0..drivers.hosts.len()).all(|host| !drivers.is_due(host));
        no_turn && drivers.net.is_still() && self.world.ready_tasks().is_empty()
    }

    /// The streams a core has open, connecting and waiting in its backlog included.
    pub fn open_streams(&self, io: &SimIo) -> Vec<OpenStream> {
        let mut drivers = self.world.drivers.borrow_mut();
        let of_core: Vec<usize> = (0..drivers.net.sockets.len())
            .filter(|&sid| {
                let socket = &drivers.net.sockets[sid];
                socket.host == io.host && socket.phase != Phase::Closed
            })
            .collect();
        let mut open = Vec::new();
        for sid in of_core {
            let is_watched = drivers.side(sid).tag.is_some();
            let socket = &drivers.net.sockets[sid];
            let (remote, is_accepted) = (socket.remote, socket.is_accepted);
            let is_shared = socket.is_afloat;
            open.push(OpenStream { remote, is_accepted, is_watched, is_shared });
        }
        open
    }

    /// Clients' connections that were dropped between two cores.
    pub fn lost_between_cores(&self) -> usize {
        self.world.drivers.borrow().buried
    }

    /// Whether a core listens on `address`.
    pub fn is_listening(&self, io: &SimIo, address: std::net::SocketAddr) -> bool {
        let drivers = self.world.drivers.borrow();
        let mut open = drivers.net.listeners.iter().filter(|l| l.is_open && l.address == address);
        open.any(|l| l.host == io.host)
    }

    /// Runs until `is_met`, at most `within` of virtual time.
    pub fn run_until(&self, within: Duration, mut is_met: impl FnMut() -> bool) -> Outcome {
        let deadline = self.now() + within;
        loop {
            if is_met() {
                return Outcome::Met;
            }
            if let Some(outcome) = self.world.step(deadline) {
                return if is_met() { Outcome::Met } else { outcome };
            }
        }
    }

    /// Lets `time` pass.
    pub fn run_for(&self, time: Duration) {
        let deadline = self.now() + time;
        while self.world.step(deadline).is_none() {}
        self.world.drivers.borrow_mut().net.now = deadline;
    }

    /// Runs until the peer has ended and returns what it left.
    ///
    /// # Panics
    /// When it has not ended within `within` of virtual time.
    pub fn finish<T>(&self, handle: Handle<T>, within: Duration) -> T {
        let outcome = self.run_until(within, || handle.is_done());
        assert_eq!(outcome, Outcome::Met, "{} has not ended within {within:?}", handle.name);
        let value = handle.value.borrow_mut().take();
        value.expect("a finished peer leaves its value")
    }

    /// [`finish`](Self::finish) for a crowd; the bound is for all of them together.
    pub fn finish_all<T>(&self, handles: Vec<Handle<T>>, within: Duration) -> Vec<T> {
        let outcome = self.run_until(within, || handles.iter().all(Handle::is_done));
        let late: Vec<&str> =
            handles.iter().filter(|h| !h.is_done()).map(|h| h.name.as_str()).collect();
        assert_eq!(outcome, Outcome::Met, "not ended within {within:?}: {late:?}");
        handles.into_iter().filter_map(|h| h.value.borrow_mut().take()).collect()
    }
}

impl<T> Handle<T> {
    pub fn is_done(&self) -> bool {
        self.value.borrow().is_some()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.world.is_over.set(true);
        // Futures hold streams, streams hold the world: taken out first, dropped outside any borrow.
        let tasks = std::mem::take(&mut *self.world.tasks.borrow_mut());
        drop(tasks);
        let wakers = self.world.drivers.borrow_mut().forget_wakers();
        drop(wakers);
    }
}

impl World {
    /// Adds a task, and polls it at once if the seed says so.
    pub fn spawn(&self, host: Hid, future: Future0) {
        if self.is_over.get() {
            return;
        }
        let mut tasks = self.tasks.borrow_mut();
        let task = tasks.len();
        let ready = self.ready.clone();
        let waker = Arc::new(TaskWaker { task, is_queued: AtomicBool::new(false), ready });
        tasks.push(Task { host, future: Some(future), waker: waker.clone() });
        drop(tasks);
        let mut drivers = self.drivers.borrow_mut();
        let percent = drivers.net.weather.poll_at_spawn_percent;
        let polls_at_once = drivers.net.rng.chance(percent);
        drop(drivers);
        if polls_at_once {
            self.poll(task);
        } else {
            waker.wake();
        }
    }

    fn ready_tasks(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.ready.lock().expect("one thread")
    }

    /// Does one thing, or says why there is nothing to do before `deadline`.
    fn step(&self, deadline: Instant) -> Option<Outcome> {
        let Some(step) = self.choose() else { return self.jump(deadline) };
        self.steps_since_idle.set(self.steps_since_idle.get() + 1);
        assert!(
            self.steps_since_idle.get() < STEPS_MAX,
            "the cores have been busy for {STEPS_MAX} steps without a pause: a task spins"
        );
        match step {
            Step::Poll(task) => {
                self.poll(task);
                let mut drivers = self.drivers.borrow_mut();
                let cost_max = drivers.net.weather.poll_cost_max;
                let cost = drivers.net.rng.up_to(cost_max);
                drivers.net.now = drivers.net.now + cost;
            }
            Step::Turn(host) => {
                let woken = self.drivers.borrow_mut().turn(host);
                woken.into_iter().for_each(Waker::wake);
            }
        }
        None
    }

    fn choose(&self) -> Option<Step> {
        let mut drivers = self.drivers.borrow_mut();
        drivers.bury();
        drivers.net.deliver();
        drivers.ring_alarms();
        let mut ready = self.ready_tasks();
        let tasks = self.tasks.borrow();
        let mut steps: Vec<Step> = Vec::with_capacity(ready.len() + 4);
        for host in 0..drivers.hosts.len() {
            let is_busy = ready.iter().any(|&task| tasks[task].host == host);
            let lag = drivers.net.now.since(drivers.hosts[host].now);
            let early = drivers.net.weather.early_turn_percent;
            let may_turn = if is_busy {
                lag > LAG_MAX || (drivers.is_due(host) && drivers.net.rng.chance(early))
            } else {
                drivers.is_due(host)
            };
            if may_turn {
                steps.push(Step::Turn(host));
                if is_busy && lag > LAG_MAX {
                    return steps.pop();
                }
            }
        }
        let turns = steps.len();
        let chosen = drivers.net.rng.below((turns + ready.len()) as u64) as usize;
        if turns + ready.len() == 0 {
            return None;
        }
        match chosen.checked_sub(turns) {
            Some(index) => Some(Step::Poll(ready.swap_remove(index))),
            None => Some(steps[chosen]),
        }
    }

    /// Nothing to do: the clock goes to the next thing that will happen.
    fn jump(&self, deadline: Instant) -> Option<Outcome> {
        self.steps_since_idle.set(0);
        let mut drivers = self.drivers.borrow_mut();
        let next = match (drivers.net.next_arrival(), drivers.next_alarm()) {
            (Some(arrival), Some(alarm)) => arrival.min(alarm),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => return Some(Outcome::Dead),
        };
        if next > deadline {
            drivers.net.now = drivers.net.now.max(deadline);
            return Some(Outcome::Late);
        }
        drivers.net.now = next;
        None
    }

    fn poll(&self, task: usize) {
        let (future, waker) = {
            let mut tasks = self.tasks.borrow_mut();
            let entry = &mut tasks[task];
            entry.waker.is_queued.store(false, Ordering::Relaxed);
            (entry.future.take(), entry.waker.clone())
        };
        let Some(mut future) = future else { return };
        {
            let mut drivers = self.drivers.borrow_mut();
            let now = drivers.net.now;
            drivers.net.trace.count_poll(now, task as u64);
        }
        let waker = Waker::from(waker);
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(()) => drop(future),
            Poll::Pending => self.tasks.borrow_mut()[task].future = Some(future),
        }
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().expect("one thread").push(self.task);
        }
    }
}

/// A core that has been busy this long gets its turn, ready tasks or not.
const LAG_MAX: Duration = Duration::from_millis(1);
/// More steps than this without one idle moment are a task that spins.
const STEPS_MAX: u64 = 300_000;
