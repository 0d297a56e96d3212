//! From the board and the tally to what is shown. Pure: it formats nothing and sends nothing.

use std::collections::BTreeMap;

use super::frame::{AgentView, BackendView, CoreView, Frame, Happening, History, Moment};
use super::tally::{Second, Tally};
use crate::balance::{Backend, Category, Snapshot, Source};
use crate::control::board::{Board, Event, Link, Stage};
use crate::metrics::METRICS;
use crate::metrics::codes::CLASSES;
use crate::metrics::histogram::{COARSE, coarse_lower_us};
use crate::time::{Instant, WallTime};

/// Both, at one moment.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub board: &'a Board,
    pub tally: &'a Tally,
    pub agent_url: Option<&'a str>,
    /// Without a cache its counters are not shown: zeros would say that nothing hits.
    pub has_cache: bool,
    pub now: Instant,
    pub wall: WallTime,
    pub began: Instant,
}

impl Look<'_> {
    /// The past.
    pub fn history(&self) -> History {
        History {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rows_ms: (0..COARSE).map(|row| coarse_lower_us(row) as f64 / 1000.0).collect(),
            cores: self.tally.cores.iter().map(|core| core.core).collect(),
            seconds: self.tally.seconds.iter().map(moment).collect(),
            events: self.board.events_after(0).into_iter().map(happening).collect(),
        }
    }

    /// The present; `seen` is the last event that was told.
    pub fn frame(&self, seen: u64) -> Frame {
        let tally = self.tally;
        let gauges = tally.cores.iter().map(|core| core.gauges);
        let answers: f64 = tally.classes_lately.iter().map(|class| class.get()).sum();
        let errors = tally.classes_lately[CLASSES - 1].get();
        let mut backends = self.backends();
        let backends_total = backends.len();
        if backends_total > BACKENDS_SHOWN {
            backends.sort_by(|a, b| b.rps.total_cmp(&a.rps).then(b.wanted.total_cmp(&a.wanted)));
            backends.truncate(BACKENDS_SHOWN);
        }
        Frame {
            at_ms: self.wall.as_ms(),
            uptime_s: self.now.since(self.began).as_secs(),
            stage: stage(self.board.stage()).to_owned(),
            rps: rounded(answers),
            p50_ms: tally.requests_lately.quantile_us(0.5).map(ms),
            p99_ms: tally.requests_lately.quantile_us(0.99).map(ms),
            error_ratio: (answers > NEXT_TO_NOTHING).then(|| errors / answers),
            connections: gauges.clone().map(|gauges| gauges.connections).sum(),
            in_flight: gauges.clone().map(|gauges| gauges.in_flight).sum(),
            queue: gauges.map(|gauges| gauges.queue_depth).sum(),
            agent: self.agent(),
            cores: self.cores(),
            backends,
            backends_total,
            counters: self.counters(),
            second: tally.seconds.back().map(moment).unwrap_or_default(),
            events: self.board.events_after(seen).into_iter().map(happening).collect(),
        }
    }

    /// Every backend, in the order of the set.
    pub fn backends(&self) -> Vec<BackendView> {
        let snapshot = self.board.snapshot();
        let all = self.tally.backends_rate();
        let wanted = Wanted::of(&snapshot);
        let one = |backend: &Backend| {
            let row = self.tally.backend(backend);
            let vital = self.board.vital(backend.slot);
            let real = |rate: f64| (all > NEXT_TO_NOTHING).then_some(rate / all);
            BackendView {
                name: backend.name.to_string(),
                score: backend.score.get(),
                category: backend.category.label().to_owned(),
                state: state(&snapshot, backend).to_owned(),
                since_s: vital.map(|vital| self.now.since(vital.since).as_secs_f64()),
                symptom: vital.and_then(|vital| vital.symptom).map(|s| s.label().to_owned()),
                ejections: vital.map_or(0, |vital| vital.ejections),
                wanted: wanted.share(&snapshot, backend),
                real: real(row.map_or(0.0, |row| row.rate.get())),
                in_flight: row.map_or(0, |row| row.in_flight),
                rps: rounded(row.map_or(0.0, |row| row.rate.get())),
                errors_ps: rounded(row.map_or(0.0, |row| row.errors.get())),
                requests: row.map_or(0, |row| row.total.answers()),
                faults: row.map_or(0, |row| row.total.faults),
                p50_ms: row.and_then(|row| row.waits.quantile_us(0.5)).map(ms),
                p99_ms: row.and_then(|row| row.waits.quantile_us(0.99)).map(ms),
                addresses: backend.addresses.iter().map(ToString::to_string).collect(),
            }
        };
        snapshot.backends.iter().map(one).collect()
    }

    fn agent(&self) -> AgentView {
        let snapshot = self.board.snapshot();
        let since = |at: Instant| Some(self.now.since(at).as_secs_f64());
        let mut view = AgentView {
            url: self.agent_url.map(str::to_owned),
            age_s: self.board.heard_at().and_then(since),
            epoch: snapshot.epoch,
            source: source(snapshot.source).to_owned(),
            ..AgentView::default()
        };
        view.link = match self.board.link() {
            Link::Unwanted => "none",
            Link::Dialling => "connecting",
            Link::Up { since: at } => {
                view.since_s = since(at);
                "up"
            }
            Link::Down { since: at, why, retry_at } => {
                view.since_s = since(at);
                view.why = Some(why.to_owned());
                view.retry_s = Some(retry_at.since(self.now).as_secs_f64());
                "down"
            }
        }
        .to_owned();
        view
    }

    fn cores(&self) -> Vec<CoreView> {
        let one = |core: &super::tally::CoreTally| CoreView {
            core: core.core,
            rps: rounded(core.rate.get()),
            busy: core.busy.get(),
            connections: core.gauges.connections,
            in_flight: core.gauges.in_flight,
            queue: core.gauges.queue_depth,
            pool: core.gauges.pool_idle,
            epoch: core.epoch,
            beat_s: self.now.since(Instant::from_ns(core.block.beat_ns())).as_secs_f64(),
            cache: (METRICS.iter().zip(core.counts))
                .filter(|((_, name, _), _)| name.starts_with(CACHE_PREFIX))
                .map(|((_, name, _), count)| ((*name).to_owned(), count))
                .chain([
                    ("balancer_cache_bytes".to_owned(), core.gauges.cache_bytes),
                    ("balancer_cache_entries".to_owned(), core.gauges.cache_entries),
                ])
                .filter(|_| self.has_cache)
                .collect(),
        };
        self.tally.cores.iter().map(one).collect()
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let is_shown = |name: &str| self.has_cache || !name.starts_with(CACHE_PREFIX);
        let named = METRICS.iter().enumerate().filter(|(_, (_, name, _))| is_shown(name));
        named.map(|(at, (_, name, _))| ((*name).to_owned(), self.tally.count(at))).collect()
    }
}

/// How the requests are to be shared: by score among those who may get one, equally if none has a score above 0.
pub(super) struct Wanted {
    total: f64,
    equals: f64,
}

impl Wanted {
    pub fn of(snapshot: &Snapshot) -> Self {
        let eligible = || snapshot.backends.iter().filter(|backend| snapshot.has_share(backend));
        Self {
            total: eligible().map(|backend| f64::from(backend.score.weight())).sum(),
            equals: eligible().count() as f64,
        }
    }

    pub fn share(&self, snapshot: &Snapshot, backend: &Backend) -> f64 {
        match () {
            () if !snapshot.has_share(backend) => 0.0,
            () if self.total > 0.0 => f64::from(backend.score.weight()) / self.total,
            () => 1.0 / self.equals,
        }
    }
}

/// A second as it is shown.
fn moment(second: &Second) -> Moment {
    let rows = second.heat.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1);
    Moment {
        at_ms: second.at.as_ms(),
        requests: second.answers,
        errors: second.errors,
        p50_ms: second.p50_us.map(ms),
        p99_ms: second.p99_us.map(ms),
        heat: second.heat[..rows].to_vec(),
        by_core: second.by_core.clone(),
    }
}

fn happening(event: Event) -> Happening {
    Happening {
        number: event.number,
        at_ms: event.at.as_ms(),
        topic: event.topic.label().to_owned(),
        text: event.text,
    }
}

/// What a backend can be asked for: by the agent's word and the resolver's first, then by its health.
pub(super) fn state(snapshot: &Snapshot, backend: &Backend) -> &'static str {
    match backend.category {
        Category::Sundown => "draining",
        _ if backend.addresses.is_empty() => "unresolved",
        _ => snapshot.health.of(backend.slot).label(),
    }
}

/// Every state there is.
pub(super) const STATES: [&str; 6] = ["up", "spared", "out", "on_trial", "draining", "unresolved"];

/// How far the process has come, in one word.
pub(super) const fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Starting => "starting",
        Stage::Serving => "serving",
        Stage::Draining => "draining",
    }
}

const fn source(source: Source) -> &'static str {
    match source {
        Source::Nobody => "nobody",
        Source::Static => "static",
        Source::Agent => "agent",
    }
}

/// Milliseconds, to the microsecond.
fn ms(us: f64) -> f64 {
    us.round() / 1000.0
}

/// To the hundredth.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Backends in a frame: what a page can show, and a bound on what a slow reader may hold.
const BACKENDS_SHOWN: usize = 500;
/// Answers a second below which a ratio would only be noise.
const NEXT_TO_NOTHING: f64 = 0.01;
/// What the cache's counters are called.
const CACHE_PREFIX: &str = "balancer_cache_";
