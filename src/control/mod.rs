//! The control core: the agent's word, the resolver's answers and the cores' acknowledgements in, snapshots out.
//!
//! One task does it all ([`run`]); nothing in it blocks, and nothing a peer does keeps it from its other duties for
//! more than a bounded step. What a frame means is decided by [`Frame`] and [`Roster`]; this file carries between
//! them and says it in the log. How the backends are is kept by `Care`, which also asks them.

pub mod admin;
mod agent;
mod board;
mod broadcast;
mod care;
mod errand;
#[cfg(test)]
mod fake;
mod limits;
mod lines;
mod link;
mod names;
mod resolve;

pub use board::{Board, Event as BoardEvent, Link as LinkStanding, Note, Stage, Topic};
pub use broadcast::Subscriber;
pub use limits::LIMITS;
pub use link::{
    Event, FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT, Link, LinkError, PING_INTERVAL, SILENCE_MAX,
};
pub use resolve::{Lookup, system_lookup};

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};

use admin::Desk;
use agent::{Agent, News};
use care::{Care, HealthNews};
use lines::{Changes, roll};
use names::Finding;
use resolve::Resolver;

use crate::balance::{Flaw, Frame, Item, Report, Roster, Snapshot, Taken};
use crate::config::{Config, StaticBackend};
use crate::io::{Io, Timer};
use crate::metrics::Published;
use crate::time::Instant;

/// What the control core is told from outside, along with a ring of its bell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Every worker listens.
    Ready,
    /// As `Drain`, and another process has the admin listener, too.
    Retire,
    /// The workers take no new connections; those in flight end.
    Drain,
    /// End.
    Stop,
}

/// What the control core meets outside itself, its [`Io`] apart.
pub struct Surroundings<B> {
    /// The workers.
    pub subscribers: Vec<Subscriber<B>>,
    /// Their published blocks, each with room for [`SLOTS_MAX`](crate::balance::SLOTS_MAX) slots.
    pub cores: Vec<Arc<Published>>,
    /// What the workers met, each report with a ring of our bell.
    pub reports: Receiver<Report>,
    /// Ends [`run`] with [`Order::Stop`], or when nobody is left to send one.
    pub orders: Receiver<Order>,
    /// [`system_lookup`], a test's own otherwise.
    pub lookup: Lookup,
}

/// Runs the control core until it is told to stop, and the admin listener beside it if there is one.
pub async fn run<I: Io>(
    io: I,
    config: &Config,
    surroundings: Surroundings<I::Bell>,
    admin: Option<Desk<I::Listener>>,
) {
    let mut control = Control::new(io, config, surroundings);
    control.desk = admin;
    if control.desk.as_ref().is_some_and(|desk| !desk.awaits_ready) {
        control.open_desk();
    }
    poll_fn(|cx| control.poll(cx)).await;
}

struct Control<I: Io> {
    io: I,
    target_port: Option<u16>,
    roster: Roster,
    resolver: Resolver<I::Bell>,
    /// The epoch whose names the resolver was given.
    wanted: Option<u64>,
    agent: Option<Agent<I>>,
    care: Care<I>,
    surroundings: Surroundings<I::Bell>,
    /// The admin listener, until it opens.
    desk: Option<Desk<I::Listener>>,
    /// The kernel's numbers of the workers' cores.
    cores: Vec<usize>,
    board: Rc<Board>,
    timer: I::Timer,
    /// When the cores are looked at next.
    review_at: Instant,
    heard: Heard,
}

/// What was heard of the agent, so that nothing is said twice.
#[derive(Default)]
struct Heard {
    /// Whether a good frame came since the link came up.
    is_introduced: bool,
    /// Whether that one is still to be told.
    owes_introduction: bool,
    /// The last frame with something wrong in it, and how often it came again.
    refused: String,
    repeated: u64,
    unknown_words: BTreeSet<String>,
    binary: u64,
    last_loss: Option<&'static str>,
}

impl<I: Io> Control<I> {
    fn new(io: I, config: &Config, surroundings: Surroundings<I::Bell>) -> Self {
        let statics = config.backends.iter().filter_map(|b| item(b, config.target_port));
        Self {
            roster: Roster::new(statics),
            resolver: Resolver::new(surroundings.lookup, io.bell()),
            wanted: None,
            agent: config.agent.clone().map(|agent| Agent::new(io.clone(), agent)),
            care: Care::new(io.clone(), config, surroundings.reports.clone()),
            board: Rc::new(Board::new(config.agent.is_some())),
            timer: io.timer(),
            review_at: io.now(),
            target_port: config.target_port,
            surroundings,
            desk: None,
            cores: config.cores.clone(),
            io,
            heard: Heard::default(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS_PER_POLL {
            let rang = self.io.poll_rung(cx).is_ready();
            loop {
                match self.surroundings.orders.try_recv() {
                    Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return Poll::Ready(()),
                    Ok(Order::Ready) => {
                        self.board.set_stage(Stage::Serving);
                        self.open_desk();
                    }
                    Ok(order @ (Order::Drain | Order::Retire)) => {
                        self.board.set_stage(Stage::Draining);
                        self.tell(Topic::Process, "stopping: what is in flight ends");
                        if order == Order::Retire {
                            self.board.give_desk_away();
                            self.io.rouse();
                        }
                    }
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.resolve();
            self.review();
            let news = match &mut self.agent {
                Some(agent) => agent.poll(cx, self.resolver.names()),
                None => Poll::Pending,
            };
            let has_news = news.is_ready();
            if let Poll::Ready(news) = news {
                self.hear(news);
            }
            let now = self.io.now();
            self.care.assess(&mut self.roster, &self.surroundings.cores, now);
            self.publish();
            let has_worked = self.care.work(cx, self.roster.snapshot(), now);
            let reviews = self.roster.awaits_cores().then_some(self.review_at);
            let resolver = self.resolver.next_deadline().into_iter();
            self.timer.set(resolver.chain(reviews).chain(self.care.next_deadline()).min());
            let is_due = self.timer.poll_expired(cx).is_ready();
            if !(rang || has_news || has_worked || is_due) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Opens the admin listener, if there is one that is not open.
    fn open_desk(&mut self) {
        if let Some(desk) = self.desk.take() {
            let blocks = self.surroundings.cores.iter().cloned();
            let cores = self.cores.iter().copied().zip(blocks).collect();
            admin::open(&self.io, desk, Rc::clone(&self.board), cores);
        }
    }

    fn resolve(&mut self) {
        let now = self.io.now();
        if self.wanted != Some(self.roster.snapshot().epoch) {
            self.wanted = Some(self.roster.snapshot().epoch);
            let agent = self.agent.as_ref().map(Agent::host);
            let agent: Option<Arc<str>> =
                agent.filter(|host| host.parse::<IpAddr>().is_err()).map(Into::into);
            self.resolver.want(self.roster.hosts().chain(&agent), now);
        }
        for finding in self.resolver.turn(now) {
            match finding {
                Finding::Changed(host, addresses) => self.roster.resolved(&host, &addresses),
                Finding::Failing(host, why) => {
                    log::warn!("cannot resolve {host}: {why}; what was known stays in use");
                }
            }
        }
    }

    /// Looks at what the cores have applied, now and then while that matters.
    fn review(&mut self) {
        let now = self.io.now();
        if self.roster.awaits_cores() && now >= self.review_at {
            self.roster.acknowledge(&self.surroundings.cores);
            self.review_at = now + REVIEW_INTERVAL;
        }
    }

    fn publish(&mut self) {
        let old = Arc::clone(self.roster.snapshot());
        let new = self.roster.commit(self.io.now());
        if let Some(new) = &new {
            self.surroundings.subscribers.iter().for_each(|subscriber| subscriber.send(new));
            self.board.show_snapshot(new);
        }
        if std::mem::take(&mut self.heard.owes_introduction) {
            let roll = roll(self.roster.snapshot());
            log::info!("agent connected; {roll}");
            self.tell(Topic::Link, format!("agent connected; {roll}"));
        } else if let Some(new) = &new {
            self.tell_changes(&old, new);
        }
        let news = self.care.news(self.roster.snapshot());
        let has_changed = new.is_some() || news != HealthNews::default();
        self.board.show_health(self.care.figures(), has_changed);
        if !news.ejected.is_empty() {
            log::warn!("{}", news.ejected);
            self.tell(Topic::Health, news.ejected);
        }
        if !news.recovered.is_empty() {
            log::info!("{}", news.recovered);
            self.tell(Topic::Health, news.recovered);
        }
        if !news.again.is_empty() {
            log::debug!("{}", news.again);
        }
    }

    /// Scores change with every other frame: they are not for the log of an ordinary day.
    fn tell_changes(&self, old: &Snapshot, new: &Snapshot) {
        let changes = Changes::between(old, new);
        if old.epoch == 0 {
            log::info!("{}", roll(new));
            self.tell(Topic::Set, roll(new));
        } else if !changes.of_set.is_empty() {
            log::info!("epoch {}: {}", new.epoch, changes.of_set);
            self.tell(Topic::Set, changes.of_set);
        }
        if !changes.of_scores.is_empty() {
            log::debug!("epoch {}: {}", new.epoch, changes.of_scores);
        }
    }

    fn tell(&self, topic: Topic, text: impl Into<String>) {
        self.board.tell(self.io.wall(), topic, text);
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Connected => {
                self.roster.distrust_empty();
                self.heard.is_introduced = false;
                self.heard.last_loss = None;
                self.board.link_up(self.io.now());
            }
            News::Frame(text) => self.take(&text),
            News::Binary => {
                self.heard.binary += 1;
                if self.heard.binary == 1 {
                    log::warn!("the agent sends binary messages; they are ignored");
                }
            }
            News::Lost { error, retry } => {
                let retry_s = retry.as_secs_f64();
                let now = self.io.now();
                self.board.link_lost(error.label(), now, now + retry);
                // The same failure dial after dial is said once.
                if self.heard.last_loss != Some(error.label()) {
                    log::warn!(
                        "agent link down: {error}; the last set stays in force; next dial in {retry_s:.1} s"
                    );
                    self.tell(Topic::Link, format!("agent link down: {error}"));
                } else {
                    log::debug!("agent link down: {error}; next dial in {retry_s:.1} s");
                }
                self.heard.last_loss = Some(error.label());
            }
        }
    }

    fn take(&mut self, text: &str) {
        let frame = match Frame::parse(text, self.target_port) {
            Ok(frame) => frame,
            Err(refusal) => {
                self.roster.distrust_empty();
                return self.complain(text, || format!("it is {refusal}; nothing changes"));
            }
        };
        if let Some(word) = &frame.unknown_category
            && self.heard.unknown_words.len() < WORDS_REMEMBERED
            && self.heard.unknown_words.insert(word.clone())
        {
            log::warn!("unknown utilization_category {word:?} is taken for MU");
        }
        match self.roster.take(&frame) {
            Taken::InForce { unplaced } => {
                if let Some(agent) = &mut self.agent {
                    agent.praise();
                }
                self.board.frame_taken(self.io.now());
                if frame.skipped() + unplaced > 0 {
                    self.complain(text, || flaws(&frame, unplaced));
                }
                self.heard.owes_introduction |= !self.heard.is_introduced;
                self.heard.is_introduced = true;
            }
            Taken::EmptyOnce => {
                self.complain(text, || "it is empty; believed when the next one is too".to_owned());
            }
            Taken::NothingGood => {
                self.complain(text, || format!("{}; nothing changes", flaws(&frame, 0)));
            }
        }
    }

    /// One warning per frame; its exact repetitions are counted and told with the next.
    fn complain(&mut self, text: &str, why: impl FnOnce() -> String) {
        self.board.count(Note::FramesRefused);
        if self.heard.refused == text && !text.is_empty() {
            self.heard.repeated += 1;
            return;
        }
        let again = std::mem::take(&mut self.heard.repeated);
        let before = match again {
            0 => String::new(),
            n => format!(" (the one warned of before came {n} times more)"),
        };
        log::warn!("agent frame of {} bytes: {}{before}", text.len(), why());
        text.clone_into(&mut self.heard.refused);
    }
}

fn flaws(frame: &Frame, unplaced: usize) -> String {
    let counted = Flaw::ALL.into_iter().map(|flaw| (frame.flaws[flaw as usize], flaw.label()));
    let parts: Vec<String> = (counted.chain([(unplaced, "no free slot")]))
        .filter(|&(n, _)| n > 0)
        .map(|(n, label)| format!("{n} with {label}"))
        .collect();
    format!("{} good items, ignored {}", frame.items.len(), parts.join(", "))
}

/// A `--backend` as an item; `None` when neither it nor the configuration has a port, which `cli` refuses.
fn item(backend: &StaticBackend, target_port: Option<u16>) -> Option<Item> {
    let host = match backend.host.contains(':') {
        true => format!("[{}]", backend.host),
        false => backend.host.clone(),
    };
    Some(Item {
        name: backend.port.map_or(host.clone(), |port| format!("{host}:{port}")),
        host: backend.host.clone(),
        port: backend.port.or(target_port)?,
        score: backend.score,
        category: crate::balance::Category::Medium,
    })
}

/// While a backend drains or a slot rests.
const REVIEW_INTERVAL: Duration = Duration::from_millis(50);
/// Rounds before the task yields.
const TURNS_PER_POLL: usize = 64;
/// Unknown words of `utilization_category` that are warned of.
const WORDS_REMEMBERED: usize = 16;

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
