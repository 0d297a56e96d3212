//! The threads of a running process: one per worker core, one for control. Each runs an executor of its own.
//!
//! Crossings that begin here: each worker gets a snapshot channel (from control), one for reports on the backends (to
//! control), an order channel (from this file) and a block of figures that it alone writes and all others read. What the threads tell us comes over one event channel.

use std::hash::RandomState;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Select, Sender, bounded, unbounded};

use super::access::{AccessOutput, Writer};
use super::admin::AdminSocket;
use super::error::Error;
use super::takeover::{Post, Successor};
use crate::balance::{REPORTS_MAX, SLOTS_MAX, Snapshot};
use crate::cache::store::KeyHasher;
use crate::config::{Config, Steer};
use crate::control::admin::Purger;
use crate::control::{self, Subscriber, Surroundings};
use crate::io::driver::Driver;
use crate::io::{Bell as _, executor, wake::Bell};
use crate::metrics::Published;
use crate::notify::{Notifier, Vigil};
use crate::worker::{
    CacheMail, Credits, LogMail, Mail, Order, PerIp, Reporter, Share, SteerMail, Worker,
};

/// A process whose workers all listen.
pub struct Process {
    workers: Vec<Staff<Order>>,
    control: Staff<control::Order>,
    events: Receiver<Event>,
    published: Vec<Arc<Published>>,
    access: Option<Writer>,
    cores: Vec<usize>,
    vigil: Vigil,
    /// Each lets one worker accept.
    doors: Sender<()>,
    /// What it keeps for a successor, if it does.
    post: Option<Post>,
    /// The sets that the workers get, where one is waited for.
    sets: Option<Receiver<Arc<Snapshot>>>,
    /// Whether the worker of that place has not ended.
    is_running: Vec<bool>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every request that was in flight got its answer.
    Drained,
    /// So many connections were cut at the deadline or by a second signal.
    Cut(u64),
}

/// What a running process is told from outside.
#[derive(Debug)]
pub enum Signal {
    /// Finish what is in flight and end.
    Stop,
    /// Re-open the access log.
    Reopen,
    /// Another process can serve in the place of this one.
    HandOver(Successor),
}

/// A thread and the way to give it orders.
struct Staff<O> {
    orders: Sender<O>,
    bell: Bell,
    thread: JoinHandle<()>,
}

impl<O> Staff<O> {
    fn order(&self, order: O) {
        // A thread that has ended needs no orders any more.
        if self.orders.send(order).is_ok() {
            self.bell.ring();
        }
    }
}

/// How a process comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Another process accepts; silent clients may still say something.
    Retiring,
    /// What is in flight ends.
    Draining,
    /// All workers end.
    Cut,
}

/// What a process that stands by can expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prospect {
    /// Requests have somewhere to go.
    Usable,
    /// Not yet.
    None,
    /// It was told to stop.
    Stopped,
}

enum Event {
    Ready,
    /// The thread has ended; `None` when it was meant to.
    Ended(usize, Option<String>),
}

impl Process {
    /// As [`stand_by`](Self::stand_by), and then everybody serves.
    ///
    /// # Errors
    /// When an executor cannot be made on its core.
    pub fn start(
        config: &Config,
        listeners: Vec<Vec<TcpListener>>,
        admin: Option<AdminSocket>,
        access: Option<AccessOutput>,
    ) -> Result<Self, Error> {
        let process = Self::stand_by(config, listeners, admin, access)?;
        process.open();
        Ok(process)
    }

    /// Starts all threads. `listeners[i]` belongs to `config.cores[i]`; `admin` to the control core. Returns when every worker
    /// listens; none accepts yet.
    ///
    /// # Errors
    /// When an executor cannot be made on its core.
    pub fn stand_by(
        config: &Config,
        listeners: Vec<Vec<TcpListener>>,
        admin: Option<AdminSocket>,
        access: Option<AccessOutput>,
    ) -> Result<Self, Error> {
        executor::warm_up().map_err(|error| {
            Error::ThreadDied("the first executor".to_owned(), error.to_string())
        })?;
        let (to_us, events) = unbounded();
        let control_bell = bell()?;
        let (to_control, reports) = bounded(REPORTS_MAX);
        let published: Vec<_> =
            listeners.iter().map(|_| Arc::new(Published::new(SLOTS_MAX))).collect();
        let (access, mut logs) = match access {
            Some(output) => {
                let format = output.format();
                let (logs, outlet) = LogMail::for_cores(&config.cores, format);
                (Some(Writer::start(output, outlet)?), logs)
            }
            None => (None, Vec::new()),
        };
        let mut logs = logs.drain(..);
        let mut subscribers = Vec::new();
        let mut mails = Vec::new();
        let bells = published.iter().map(|_| bell()).collect::<Result<Vec<_>, _>>()?;
        // Keyed anew in each process: no client can tell where its keys fall.
        let hasher = KeyHasher::new(RandomState::new());
        let files_max = config.cache.map_or(0, |cache| cache.files_max);
        let parcels = CacheMail::for_cores(&bells, &published, &hasher, files_max);
        let purger = parcels.first().filter(|_| config.cache.is_some()).map(CacheMail::purger);
        let steers = SteerMail::for_cores(&bells, &published);
        let shares = Share::for_cores(published.len(), SLOTS_MAX);
        let limit = config.backend_inflight_max.filter(|_| published.len() > 1);
        let credits = limit.map(|limit| Credits::for_cores(limit, &bells, SLOTS_MAX));
        let mut credits = credits.into_iter().flatten();
        let (connections_max, cores) = (config.connections_max, published.len());
        let per_ip = config.connections_per_ip_max;
        let per_ip =
            per_ip.map(|n| PerIp::for_cores(n, connections_max, cores, &RandomState::new()));
        let mut per_ip = per_ip.into_iter().flatten();
        let ends = parcels.into_iter().zip(steers).zip(shares);
        for (own, (bell, ((cache, steer), share))) in bells.into_iter().zip(ends).enumerate() {
            let (orders, inbox) = unbounded();
            let (subscriber, snapshots) = Subscriber::new(bell.clone());
            subscribers.push(subscriber);
            let mail: Mail<Driver> = Mail {
                snapshots,
                orders: inbox,
                reporter: Reporter { reports: to_control.clone(), bell: control_bell.clone() },
                published: published[own].clone(),
                peers: (published.iter().enumerate())
                    .filter(|(other, _)| *other != own)
                    .map(|(_, block)| block.clone())
                    .collect(),
                cache: config.cache.is_some().then_some(cache),
                credits: credits.next(),
                share: (published.len() > 1).then_some(share),
                steer: (config.steer == Steer::Accept && published.len() > 1).then_some(steer),
                per_ip: per_ip.next(),
                access: logs.next(),
            };
            mails.push((orders, bell, mail));
        }

        let sets = (config.takeover.is_some()).then(|| bell().map(Subscriber::new)).transpose()?;
        let sets = sets.map(|(subscriber, sets)| {
            subscribers.push(subscriber);
            sets
        });
        let (orders, inbox) = unbounded();
        let (settings, blocks) = (config.clone(), published.clone());
        let place = (CONTROL, config.control_core, control_bell.clone());
        let thread = spawn(place, &to_us, move |driver, ready| async move {
            ready();
            let surroundings = Surroundings {
                subscribers,
                cores: blocks,
                reports,
                orders: inbox,
                lookup: control::system_lookup,
            };
            let purge = purger.map(|purger| -> Purger {
                Box::new(move |purge, count| purger.purge(purge, count))
            });
            let desk = admin.map(|admin| admin.desk(&driver, &settings, purge)).transpose()?;
            control::run(driver, &settings, surroundings, desk).await;
            Ok(())
        })?;
        await_ready(&events, 1)?;
        let control = Staff { orders, bell: control_bell, thread };
        if !config.backends.is_empty() {
            // The first request must not find an empty set just because a worker was faster.
            mails.iter().for_each(|(.., mail)| await_snapshot(mail));
        }

        let mut workers = Vec::new();
        let (doors, opened) = unbounded();
        for (n, ((orders, bell, mail), listeners)) in mails.into_iter().zip(listeners).enumerate() {
            let shard = config.shard(n);
            let place = (n, config.cores[n], bell.clone());
            let opened: Receiver<()> = opened.clone();
            let thread = spawn(place, &to_us, move |driver, ready| async move {
                let listeners = listeners
                    .into_iter()
                    .map(|listener| driver.listener(listener))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| format!("cannot watch its listeners: {error}"))?;
                ready();
                // Nothing else runs on this core yet. Nobody opens when the start has failed elsewhere.
                if opened.recv().is_err() {
                    return Ok(());
                }
                Worker::new(driver, shard, listeners, mail).run().await;
                Ok(())
            })?;
            workers.push(Staff { orders, bell, thread });
        }
        await_ready(&events, workers.len())?;
        let (cores, is_running) = (config.cores.clone(), vec![true; workers.len()]);
        let vigil = Vigil::default();
        Ok(Self {
            workers,
            control,
            events,
            published,
            access,
            cores,
            vigil,
            is_running,
            doors,
            post: None,
            sets,
        })
    }

    /// Waits until requests have somewhere to go, for at most [`BACKEND_PATIENCE`].
    pub(super) fn await_backend(&self, signals: &Receiver<Signal>) -> Prospect {
        let until = crossbeam_channel::at(Instant::now() + BACKEND_PATIENCE);
        let never = crossbeam_channel::never();
        let sets = self.sets.as_ref().map_or(&never, |sets| sets);
        let mut is_usable = false;
        loop {
            // Told to stop it must not say that it is ready: the other one would leave.
            while let Ok(signal) = signals.try_recv() {
                if matches!(signal, Signal::Stop) {
                    return Prospect::Stopped;
                }
            }
            if is_usable {
                return Prospect::Usable;
            }
            crossbeam_channel::select! {
                recv(sets) -> set => match set {
                    Ok(set) => is_usable = set.is_usable(),
                    Err(_) => return Prospect::None,
                },
                recv(signals) -> signal => if matches!(signal, Ok(Signal::Stop) | Err(_)) {
                    return Prospect::Stopped;
                },
                recv(until) -> _ => return Prospect::None,
            }
        }
    }

    /// From here on the workers accept.
    pub fn open(&self) {
        for _ in &self.workers {
            // A worker that has ended needs no door; that it has is told as an event.
            let _ = self.doors.send(());
        }
        self.control.order(control::Order::Ready);
    }

    /// A successor finds us there.
    pub(super) fn keep(&mut self, post: Post) {
        log::info!("the next process takes over by way of {}", post.path().display());
        self.post = Some(post);
    }

    /// Says that every worker listens, and from now on how they are.
    pub fn report_to(&mut self, notifier: Notifier) {
        self.vigil = Vigil::begin(notifier, &self.cores, Instant::now());
    }

    /// Figures of each worker, in core order.
    pub fn published(&self) -> &[Arc<Published>] {
        &self.published
    }

    /// Serves until `signals` say stop, then drains: listeners close, what is in flight ends, for at most `deadline`. A
    /// second signal cuts it short.
    ///
    /// # Errors
    /// When a thread ended that was not told to.
    pub fn serve(
        mut self,
        signals: &Receiver<Signal>,
        deadline: Duration,
    ) -> Result<Ending, Error> {
        loop {
            crossbeam_channel::select! {
                recv(signals) -> signal => match signal {
                    Ok(Signal::Reopen) => self.reopen(),
                    Ok(Signal::HandOver(successor)) => {
                        if self.agrees_with(&successor) {
                            return self.drain(signals, deadline, Stage::Retiring);
                        }
                    }
                    Ok(Signal::Stop) | Err(_) => break,
                },
                recv(self.events) -> event => self.note(event.ok())?,
                default(self.vigil.wait(Instant::now())) => {}
            }
            self.look();
        }
        log::info!("stopping: finishing what is in flight, for at most {deadline:?}");
        if let Some(post) = &self.post {
            post.leave();
        }
        self.vigil.stopping();
        self.drain(signals, deadline, Stage::Draining)
    }

    /// Hands over, if the other process is still there.
    fn agrees_with(&mut self, successor: &Successor) -> bool {
        let pid = successor.pid;
        if !successor.agree() {
            log::warn!("process {pid} was ready to take over and went away; this one serves on");
            return false;
        }
        log::info!("process {pid} has taken over; finishing what is in flight");
        self.vigil.hand_over(pid);
        if let Some(post) = &self.post {
            post.close();
        }
        true
    }

    fn reopen(&self) {
        match &self.access {
            Some(access) => access.reopen(),
            None => log::info!("SIGHUP: there is no access log to re-open"),
        }
    }

    fn look(&mut self) {
        let workers = self.published.iter().map(Arc::as_ref).enumerate();
        let is_running = |(place, _): &(usize, &Published)| self.is_running[*place];
        self.vigil.look(Instant::now(), workers.filter(is_running));
    }

    fn drain(
        mut self,
        signals: &Receiver<Signal>,
        deadline: Duration,
        mut stage: Stage,
    ) -> Result<Ending, Error> {
        let began = Instant::now();
        self.control.order(match stage {
            Stage::Retiring => control::Order::Retire,
            Stage::Draining | Stage::Cut => control::Order::Drain,
        });
        self.order_all(stage);
        while self.is_running.contains(&true) {
            self.look();
            let now = Instant::now();
            // Half of the time is for silent clients to say something, the rest for who is being answered.
            let until = began + if stage == Stage::Retiring { deadline / 2 } else { deadline };
            let left = until.saturating_duration_since(now);
            let must_stop = crossbeam_channel::select! {
                recv(signals) -> signal => match signal {
                    Ok(Signal::Reopen) => { self.reopen(); false }
                    // It finds out that this one ends.
                    Ok(Signal::HandOver(_)) => false,
                    Ok(Signal::Stop) | Err(_) => true,
                },
                recv(self.events) -> event => { self.note(event.ok())?; false }
                default(left.min(self.vigil.wait(now))) => Instant::now() >= until,
            };
            if must_stop {
                stage = match stage {
                    Stage::Retiring => Stage::Draining,
                    Stage::Draining => Stage::Cut,
                    Stage::Cut => break,
                };
                self.order_all(stage);
            }
        }
        let cut = if stage == Stage::Cut {
            self.published.iter().map(|p| p.connections()).sum()
        } else {
            0
        };
        self.control.order(control::Order::Stop);
        let _ = self.events.recv_timeout(CONTROL_PATIENCE);
        for worker in self.workers {
            let _ = worker.thread.join();
        }
        if let Some(access) = self.access {
            access.finish();
        }
        drop(self.control);
        Ok(if cut > 0 { Ending::Cut(cut) } else { Ending::Drained })
    }

    fn order_all(&self, stage: Stage) {
        let order = match stage {
            Stage::Retiring => Order::Retire,
            Stage::Draining => Order::Drain,
            Stage::Cut => Order::Stop,
        };
        self.workers.iter().for_each(|worker| worker.order(order));
    }

    fn note(&mut self, event: Option<Event>) -> Result<(), Error> {
        match event {
            Some(Event::Ended(n, None)) if n != CONTROL => self.is_running[n] = false,
            Some(Event::Ended(n, cause)) => {
                return Err(Error::ThreadDied(name(n), cause.unwrap_or_default()));
            }
            Some(Event::Ready) | None => {}
        }
        Ok(())
    }
}

/// Makes thread number `n` with an executor on `core` that runs `main`; `main` calls what it is given when it is
/// ready.
fn spawn<F, Fut>(
    (n, core, bell): (usize, usize, Bell),
    to_us: &Sender<Event>,
    main: F,
) -> Result<JoinHandle<()>, Error>
where
    F: FnOnce(Driver, Box<dyn FnOnce()>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), String>> + 'static,
{
    let to_us = to_us.clone();
    let thread = std::thread::Builder::new().name(name(n));
    let body = move || {
        let tell = to_us.clone();
        let run = std::panic::AssertUnwindSafe(move || {
            executor::run(Some(core), bell, |driver| {
                main(driver, Box::new(move || drop(tell.send(Event::Ready))))
            })
        });
        let cause = match std::panic::catch_unwind(run) {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(cause))) => Some(cause),
            Ok(Err(error)) => Some(format!("no executor on core {core}: {error}")),
            Err(_) => Some("a panic outside any connection".to_owned()),
        };
        // Nobody listens any more once the process ends.
        let _ = to_us.send(Event::Ended(n, cause));
    };
    thread.spawn(body).map_err(|error| Error::ThreadDied(name(n), error.to_string()))
}

/// Waits until there is a snapshot for a worker to begin with.
fn await_snapshot(mail: &Mail<Driver>) {
    let mut select = Select::new();
    select.recv(&mail.snapshots);
    // Late is no error: the worker answers 503 until it comes.
    let _ = select.ready_timeout(SNAPSHOT_PATIENCE);
}

/// Waits until `n` more threads are ready.
fn await_ready(events: &Receiver<Event>, n: usize) -> Result<(), Error> {
    for _ in 0..n {
        match events.recv_timeout(START_PATIENCE) {
            Ok(Event::Ready) => {}
            Ok(Event::Ended(n, cause)) => {
                return Err(Error::ThreadDied(name(n), cause.unwrap_or_default()));
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(Error::ThreadDied(
                    "a thread".to_owned(),
                    "it did not start".to_owned(),
                ));
            }
        }
    }
    Ok(())
}

fn bell() -> Result<Bell, Error> {
    Bell::new()
        .map_err(|error| Error::ThreadDied("a thread".to_owned(), format!("no eventfd: {error}")))
}

fn name(n: usize) -> String {
    if n == CONTROL { "control".to_owned() } else { format!("worker-{n}") }
}

const CONTROL: usize = usize::MAX;
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long workers wait for the static backends.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a process that is to take over waits for a backend.
pub(super) const BACKEND_PATIENCE: Duration = Duration::from_secs(6);
/// The control core is told to end last; it may be in the middle of a resolution.
const CONTROL_PATIENCE: Duration = Duration::from_secs(1);
