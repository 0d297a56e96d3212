//! Who there is, how much they are asked, and what happens when.

use std::time::Duration;

/// A piece to be played.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Speeds of the backends. The last [`later`](Self::later) of them join in the course of it.
    pub speeds: Vec<f64>,
    pub later: usize,
    /// Requests one backend serves at a time.
    pub slots: usize,
    pub cores: usize,
    pub traffic: Traffic,
    pub agent: Agent,
    /// Every 5 s three backends lose two thirds of their speed for a while.
    pub has_antagonist: bool,
    /// In the order of time.
    pub script: Vec<(Duration, Happening)>,
    /// What came before is not counted.
    pub warm_up: Duration,
}

/// How requests arrive.
#[derive(Clone, Copy, Debug)]
pub enum Traffic {
    /// At random, this part of what all backends that are there from the start can bear, for so long.
    Open { load: f64, length: Duration },
    /// So many clients ask again when they are answered, until so many requests were answered.
    Closed { clients: usize, requests: usize },
}

/// How the agent comes to its scores.
#[derive(Clone, Debug)]
pub enum Agent {
    /// By what is free of each backend's CPU, every 2 s.
    FreeCpu,
    /// Once and for all.
    Says(Vec<f64>),
}

/// What happens to whom.
#[derive(Clone, Copy, Debug)]
pub enum Happening {
    /// The agent is heard no more, or again.
    AgentLost(bool),
    /// The agent scores the first quarter 100 and the others 5, whatever they are; or comes to its senses.
    AgentErrs(bool),
    /// A backend does nothing at all, or goes on.
    Stuck(usize, bool),
    /// A backend fails every request at once, or no more.
    Fails(usize, Option<Fault>),
    /// A backend joins: the agent says INIT for 10 s, in which it comes from a fifth of its speed to all of it.
    Joins(usize),
    /// The agent says SUNDOWN, or takes it back.
    Sundown(usize, bool),
}

/// How a backend fails every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody listens.
    Refuses,
    /// Connections come about, and are reset when a request comes.
    Resets,
}

impl Scene {
    /// `n` backends of mixed speed under `load`, with the antagonist, for `length`.
    pub fn mixed(n: usize, load: f64, cores: usize, length: Duration) -> Self {
        Self {
            speeds: SPEEDS.into_iter().cycle().take(n).collect(),
            later: 0,
            slots: SLOTS,
            cores,
            traffic: Traffic::Open { load, length },
            agent: Agent::FreeCpu,
            has_antagonist: true,
            script: Vec::new(),
            warm_up: WARM_UP,
        }
    }

    /// Backends that are never saturated and all alike, under fixed scores.
    pub fn unsaturated(scores: &[f64], clients: usize, cores: usize, requests: usize) -> Self {
        Self {
            speeds: vec![1.0; scores.len()],
            later: 0,
            slots: usize::MAX,
            cores,
            traffic: Traffic::Closed { clients, requests },
            agent: Agent::Says(scores.to_vec()),
            has_antagonist: false,
            script: Vec::new(),
            warm_up: Duration::from_secs(1),
        }
    }

    /// Backends that are there from the start.
    pub fn founders(&self) -> usize {
        self.speeds.len() - self.later
    }

    /// Requests a second that they can bear.
    pub fn capacity(&self) -> f64 {
        let speed: f64 = self.speeds[..self.founders()].iter().sum();
        speed * self.slots as f64 / (SERVICE_MEAN_MS / 1000.0)
    }
}

/// A span of so many milliseconds.
pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const SPEEDS: [f64; 3] = [1.0, 0.6, 0.3];
const SLOTS: usize = 4;
const WARM_UP: Duration = Duration::from_secs(4);

/// Of the time a request takes at speed 1: normal, cut below.
pub const SERVICE_MIDDLE_MS: f64 = 20.0;
pub const SERVICE_SPREAD_MS: f64 = 20.0;
pub const SERVICE_MIN_MS: f64 = 1.0;
/// Its mean: 1·Φ(z) + 20·(1 − Φ(z)) + 20·φ(z) with z = −0.95.
const SERVICE_MEAN_MS: f64 = 21.831;
