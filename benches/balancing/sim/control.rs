//! The agent that scores the backends, and the control core: roster, health book, errands.
//!
//! A score is 100 × the part of a backend's CPU that is free, smoothed over the last frames ([`SMOOTHING`]). A backend that
//! is stuck or fails at once computes nothing, and its score says that it has all the room in the world.

use std::collections::VecDeque;
use std::sync::Arc;

use balancer::balance::{
    Category, Errand, Frame, HealthBook, Item, Outcome, REPORTS_MAX, Report, Roster, Score, Slot,
    Snapshot, Symptom, Todo,
};
use balancer::time::Instant;
use balancer::worker::Reporter;
use crossbeam_channel::{Receiver, bounded};

use super::core::Mute;
use super::scene::{Agent, Fault, Scene};
use super::station::Station;

/// Everything that is not a core.
pub struct Control {
    agent: Agent,
    pub is_lost: bool,
    pub errs: bool,
    /// By backend.
    views: Vec<View>,
    roster: Roster,
    book: HealthBook,
    reports: Receiver<Report>,
    /// Errands that run, in the order in which they will end.
    running: VecDeque<Todo>,
}

/// The agent's view of one backend.
#[derive(Clone, Copy)]
struct View {
    free: f64,
    category: Category,
    is_listed: bool,
}

impl Control {
    pub fn new(scene: &Scene) -> (Self, Reporter<Mute>) {
        let (sender, reports) = bounded(REPORTS_MAX);
        let view = |backend| View {
            free: 1.0,
            category: Category::Low,
            is_listed: backend < scene.founders(),
        };
        let control = Self {
            agent: scene.agent.clone(),
            is_lost: false,
            errs: false,
            views: (0..scene.speeds.len()).map(view).collect(),
            roster: Roster::new([]),
            book: HealthBook::new(scene.cores, None),
            reports,
            running: VecDeque::new(),
        };
        (control, Reporter { reports: sender, bell: Mute })
    }

    /// The agent looks at the backends, and speaks.
    pub fn frame(&mut self, stations: &mut [Station], now: Instant) {
        for (view, station) in self.views.iter_mut().zip(stations) {
            view.free += SMOOTHING * (station.free_cpu(now.as_ns()) - view.free);
        }
        if self.is_lost {
            return;
        }
        let frame = Frame { items: self.items().collect(), ..Frame::default() };
        self.roster.take(&frame);
    }

    pub fn list(&mut self, backend: usize, category: Category) {
        self.views[backend].category = category;
        self.views[backend].is_listed = true;
    }

    /// What has come and what is due. A snapshot when there is a new one, and errands that begin now.
    pub fn assess(
        &mut self,
        now: Instant,
        requests_of: impl Fn(u32) -> u64,
    ) -> (Option<Arc<Snapshot>>, usize) {
        if self.roster.is_stale() {
            self.book.attend(self.roster.eligible(), self.roster.snapshot().epoch + 1, now);
        }
        for report in self.reports.try_iter() {
            self.book.hear(&report, now);
        }
        self.book.handle_timeout(now, requests_of);
        if let Some(standings) = self.book.take_standings() {
            self.roster.set_health(standings);
        }
        let before = self.running.len();
        while let Some(todo) = self.book.poll_todo() {
            self.running.push_back(todo);
        }
        while self.book.poll_change().is_some() {}
        (self.roster.commit(now), self.running.len() - before)
    }

    /// The errand that began first ends.
    pub fn end_errand(&mut self, fault_of: impl Fn(Slot) -> Option<Fault>, now: Instant) {
        let todo = self.running.pop_front().expect("one ends for each that began");
        assert_eq!(todo.errand, Errand::Connect, "there are no checks here");
        let outcome = match fault_of(todo.slot) {
            Some(Fault::Refuses) => Outcome::Bad(Symptom::Refused),
            Some(Fault::Resets) | None => Outcome::Good,
        };
        self.book.done(todo, outcome, now);
    }

    pub fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.book.next_deadline()
    }

    fn items(&self) -> impl Iterator<Item = Item> {
        let n = self.views.len();
        let score = move |at: usize, view: &View| match &self.agent {
            Agent::FreeCpu if self.errs => [5.0, 100.0][usize::from(at < n / 4)],
            Agent::FreeCpu => (100.0 * view.free).clamp(0.0, 100.0),
            Agent::Says(scores) => scores[at],
        };
        let listed = self.views.iter().enumerate().filter(|(_, view)| view.is_listed);
        listed.map(move |(at, view)| {
            let host = format!("10.0.{}.{}", at / 256, at % 256);
            Item {
                name: host.clone(),
                host,
                port: 80,
                score: Score::new(score(at, view)).expect("within 0 and 100"),
                category: view.category,
            }
        })
    }
}

/// How much of a score is of the last two seconds.
const SMOOTHING: f64 = 0.5;
