//! What the story is played on: agent, backends, load and the real process, with the one way to wait.
//!
//! Every wait is for a condition, with a deadline; while it lasts the load is steered and the view redrawn. The
//! process runs as `balancer run` has it, told to stop over the channel that is otherwise fed by signals.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};

use super::Error;
use super::agent::{Agent, PATH};
use super::backend::Backend;
use super::load::Load;
use super::pace::Governor;
use super::screen::{Screen, Style};
use super::set::{COUNT, Each, Set, less, name, shares};
use super::view::Sight;
use crate::balance::Balance;
use crate::boot::plan::{CoreChoice, plan};
use crate::boot::{self, Ending, Process, Signal};
use crate::cache::CacheSettings;
use crate::config::{AgentConfig, CacheConfig, Config, Timeouts};
use crate::http::HeadLimits;
use crate::io::affinity::{Cpus, format_list};
use crate::metrics::{Count, Published};

/// Everything there is.
pub(super) struct Stage {
    pub agent: Agent,
    pub backends: Vec<Backend>,
    pub load: Load,
    pub screen: Screen,
    /// The balancer.
    pub address: SocketAddr,
    /// What the agent says.
    pub set: Set,
    published: Vec<Arc<Published>>,
    stop: Sender<Signal>,
    serving: Option<JoinHandle<Result<Ending, boot::Error>>>,
    governor: Governor,
    samples: VecDeque<(Instant, Each<u64>)>,
    drawn: Instant,
    began: Instant,
    is_interrupted: Arc<AtomicBool>,
    /// The curtain falls: neither an interrupt nor the end of the process ends a wait any more.
    is_closing: bool,
}

/// Why the story cannot go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Halt {
    Interrupted,
    /// A condition did not come true in time.
    Late(String),
    /// The process ended by itself, or a part of the demo could not do its work.
    Broken(String),
}

impl Stage {
    /// Starts everything; the load rests and the agent has said nothing yet.
    pub fn build(
        backoff_min: Duration,
        screen: Screen,
        is_interrupted: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let cannot = |what: &'static str| move |error| Error::Host(what, error);
        let agent = Agent::start().map_err(cannot("start the agent"))?;
        let backends = (0..COUNT).map(|n| Backend::start(name(n))).collect::<Result<_, _>>();
        let cpus = Cpus::of_process();
        let config = config(&cpus, agent.address(), backoff_min);
        let prepared = boot::prepare(&config).map_err(Error::Boot)?;
        let address = prepared.listeners.addresses[0];
        let admin = prepared.admin.as_ref().map(|admin| admin.address);
        let process = Process::start(&config, prepared.listeners.workers, prepared.admin, None)
            .map_err(Error::Boot)?;
        let published = process.published().to_vec();
        let (stop, stopped) = unbounded();
        let drain = config.timeouts.drain;
        let serving = std::thread::Builder::new().name("demo-process".to_owned());
        let serving = serving
            .spawn(move || process.serve(&stopped, drain))
            .map_err(cannot("start a thread"))?;
        let clients = (2 * config.cores.len()).clamp(CLIENTS_MIN, CLIENTS_MAX);
        let now = Instant::now();
        let stage = Self {
            agent,
            backends: backends.map_err(cannot("start the backends"))?,
            load: Load::new(address, clients).map_err(cannot("start the load"))?,
            screen,
            address,
            set: Set::of([0; COUNT]),
            published,
            stop,
            serving: Some(serving),
            governor: Governor::new(cpus.iter().count()),
            samples: VecDeque::with_capacity(SAMPLES),
            drawn: now,
            began: now,
            is_interrupted,
            is_closing: false,
        };
        stage.introduce(&config, admin);
        Ok(stage)
    }

    /// Waits for a condition.
    pub fn until(
        &mut self,
        what: &str,
        mut is_true: impl FnMut(&Self) -> bool,
    ) -> Result<(), Halt> {
        let deadline = Instant::now() + PATIENCE;
        while !is_true(self) {
            self.tick();
            let has_ended = self.serving.as_ref().is_none_or(JoinHandle::is_finished);
            if !self.is_closing && self.is_interrupted.load(Ordering::SeqCst) {
                return Err(Halt::Interrupted);
            }
            if !self.is_closing && has_ended {
                return Err(Halt::Broken(self.ending().err().unwrap_or_default()));
            }
            if Instant::now() >= deadline {
                return Err(Halt::Late(format!("waited {PATIENCE:?} in vain: {what}")));
            }
            // The pause between two looks: the condition decides.
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// Lets the agent say `set` and waits until every core applies it; returns how long that took.
    pub fn put_in_force(&mut self, set: Set) -> Result<Duration, Halt> {
        let before = self.newest_epoch();
        let pushed = Instant::now();
        self.set = set;
        self.agent.push(set.frame(&std::array::from_fn(|n| self.backends[n].address())));
        self.until("the agent's frame is in force on every core", |stage| {
            stage.published.iter().all(|core| core.epoch() > before)
        })?;
        Ok(pushed.elapsed())
    }

    pub fn newest_epoch(&self) -> u64 {
        self.published.iter().map(|core| core.epoch()).max().unwrap_or(0)
    }

    /// What all workers counted.
    pub fn count(&self, count: Count) -> u64 {
        self.published.iter().map(|core| core.count(count)).sum()
    }

    /// Pages answered by what is stored, or was just being fetched.
    pub fn cached(&self) -> u64 {
        self.count(Count::CacheHits) + self.count(Count::CacheCollapsed)
    }

    /// Lets the load go.
    pub fn start_load(&self) {
        self.load.pace(self.governor.rate());
    }

    /// From here on nothing but its deadline ends a wait.
    pub const fn close(&mut self) {
        self.is_closing = true;
    }

    /// Tells the process to stop, as a signal would.
    pub fn stop(&self) {
        // A process that has ended already needs no telling; `ending` says how it went.
        let _ = self.stop.send(Signal::Stop);
    }

    pub fn has_ended(&self) -> bool {
        self.serving.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// How the process ended; call it when it has.
    pub fn ending(&mut self) -> Result<Ending, String> {
        let serving = self.serving.take().ok_or("it has ended before")?;
        match serving.join() {
            Ok(Ok(ending)) => Ok(ending),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the thread that serves panicked".to_owned()),
        }
    }

    /// A line of the story, with the time.
    pub fn say(&self, text: &str) {
        self.screen.say(&format!("{:6.1} s  {text}", self.began.elapsed().as_secs_f64()));
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn introduce(&self, config: &Config, admin: Option<SocketAddr>) {
        let shared = if config.cores.contains(&config.control_core) { ", shared" } else { "" };
        self.screen.say(&format!(
            "balancer demo   http://{}   workers on cores {}, control on core {}{shared}",
            self.address,
            format_list(&config.cores),
            config.control_core,
        ));
        if let Some(admin) = admin {
            self.screen.say(&format!("  watch it live   http://{admin}"));
        }
        self.screen.say(&format!(
            "  {COUNT} backends, 1 agent and {} clients on loopback; every answer is verified\n",
            self.load.clients(),
        ));
    }

    /// What goes on while we wait: the load is steered, the view redrawn.
    fn tick(&mut self) {
        if self.load.is_running()
            && !self.is_closing
            && let Some(rate) = self.governor.look()
        {
            self.load.pace(rate);
        }
        if self.screen.style() == Style::Live && self.drawn.elapsed() >= DRAW_INTERVAL {
            self.drawn = Instant::now();
            if self.samples.len() == SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back((self.drawn, self.load.answered()));
            self.screen.draw(self.sight().lines());
        }
    }

    fn sight(&self) -> Sight {
        let answered = self.load.answered();
        let (since, lately) = match self.samples.front() {
            Some((at, before)) => (at.elapsed(), less(&answered, before)),
            None => (Duration::ZERO, answered),
        };
        let agent = match self.agent.is_dead() {
            true => format!("away; the balancer has dialled {} times", self.agent.dials().len()),
            false if self.agent.is_linked() => format!("connected; {}", self.set.text()),
            false => "not yet dialled".to_owned(),
        };
        let total: u64 = answered.iter().sum();
        let pages = self.load.pages();
        Sight {
            address: format!("http://{}", self.address),
            rate: lately.iter().sum::<u64>() as f64 / since.as_secs_f64().max(1e-3),
            cpu: self.governor.text(),
            requests: total + pages + self.load.failed(),
            failed: self.load.failed(),
            agent,
            pages,
            cached: self.cached().min(pages),
            wanted: self.set.wanted(),
            real: shares(&lately),
            notes: std::array::from_fn(|n| match () {
                () if self.set.sundown == Some(n) => "SUNDOWN",
                () if !self.backends[n].is_alive() => "dead",
                () => "",
            }),
        }
    }
}

/// What `balancer run` would make of these options, on this host.
fn config(cpus: &Cpus, agent: SocketAddr, backoff_min: Duration) -> Config {
    let plan = plan(cpus, &CoreChoice::Automatic, None)
        .expect("the automatic choice names none but allowed cores");
    Config {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        admin: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        access_log: None,
        takeover: None,
        cores: plan.workers,
        control_core: plan.control,
        agent: Some(AgentConfig {
            host: agent.ip().to_string(),
            port: agent.port(),
            path: PATH.to_owned(),
            backoff_min,
            backoff_max: 10 * backoff_min,
        }),
        backends: Vec::new(),
        target_port: None,
        steer: Default::default(),
        balance: Balance::default(),
        health: None,
        cache: Some(CacheConfig {
            entries: CACHE_ENTRIES,
            bytes: CACHE_BYTES,
            files_max: 64,
            settings: CacheSettings::default(),
        }),
        timeouts: Timeouts::default(),
        head: HeadLimits::default(),
        body_bytes_max: None,
        connections_max: CONNECTIONS_MAX,
        connections_per_ip_max: None,
        trusted_proxies: Vec::new(),
        backend_inflight_max: None,
        queue_length_max: QUEUE_LENGTH_MAX,
    }
}

/// How long anything may take on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
const DRAW_INTERVAL: Duration = Duration::from_millis(100);
/// Two seconds of them are what "lately" means.
const SAMPLES: usize = 20;
const CLIENTS_MIN: usize = 8;
const CLIENTS_MAX: usize = 32;
const CONNECTIONS_MAX: usize = 4096;
const CACHE_ENTRIES: u64 = 1000;
const CACHE_BYTES: u64 = 16 << 20;
/// Never used: nothing bounds what a backend may have in flight.
const QUEUE_LENGTH_MAX: usize = 1024;
