//! What the control core lets the admin listener see: the set in force, the agent link, and a journal of what happened.
//!
//! Written by the control task, read by the admin's tasks, all on one core. It decides nothing. The journal is bounded:
//! what is older than its last [`EVENTS_KEPT`] entries is in the log.

use std::cell::{Cell, Ref, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::balance::{Slot, Snapshot, Tally, Vital};
use crate::time::{Instant, WallTime};

/// The notice board of a control core.
pub struct Board {
    snapshot: RefCell<Arc<Snapshot>>,
    /// The epoch from which on every set was usable.
    usable_since: Cell<Option<u64>>,
    link: Cell<Link>,
    /// When the agent's last good frame came.
    heard_at: Cell<Option<Instant>>,
    stage: Cell<Stage>,
    /// Whether another process has the admin listener.
    has_given_desk: Cell<bool>,
    counts: [Cell<u64>; NOTES],
    losses: RefCell<BTreeMap<&'static str, u64>>,
    tally: Cell<Tally>,
    /// Of those who have ever been ill.
    vitals: RefCell<BTreeMap<Slot, Vital>>,
    journal: RefCell<VecDeque<Event>>,
    /// Number of the next event.
    next: Cell<u64>,
}

/// How things stand between us and the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// There is none to be linked to.
    Unwanted,
    /// Being dialled.
    Dialling,
    /// Up, and its handshake is done.
    Up {
        /// Since when.
        since: Instant,
    },
    /// Down.
    Down {
        /// Since when.
        since: Instant,
        /// Why, in one word.
        why: &'static str,
        /// When it is dialled next.
        retry_at: Instant,
    },
}

/// How far the process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not every worker listens yet.
    Starting,
    /// Every worker listens.
    Serving,
    /// No new connections are taken.
    Draining,
}

/// What is counted of the agent's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Note {
    /// Links that came up.
    Connects,
    /// Links and dials that were lost.
    Losses,
    /// Frames that took effect.
    FramesTaken,
    /// Frames, or parts of them, that did not.
    FramesRefused,
}

/// How many kinds of [`Note`] there are.
const NOTES: usize = Note::FramesRefused as usize + 1;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The agent link.
    Link,
    /// Backends that came, went, drained or moved.
    Set,
    /// Backends that ceased to work, or work again.
    Health,
    /// This process.
    Process,
}

impl Topic {
    /// One word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Set => "set",
            Self::Health => "health",
            Self::Process => "process",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counted from 1.
    pub number: u64,
    /// When.
    pub at: WallTime,
    /// What it is about.
    pub topic: Topic,
    /// One sentence.
    pub text: String,
}

impl Board {
    /// An empty board; `has_agent`: there is one to be linked to.
    pub fn new(has_agent: bool) -> Self {
        Self {
            snapshot: RefCell::new(Arc::new(Snapshot::empty())),
            usable_since: Cell::new(None),
            link: Cell::new(if has_agent { Link::Dialling } else { Link::Unwanted }),
            heard_at: Cell::new(None),
            stage: Cell::new(Stage::Starting),
            has_given_desk: Cell::new(false),
            counts: Default::default(),
            losses: RefCell::default(),
            tally: Cell::default(),
            vitals: RefCell::default(),
            journal: RefCell::new(VecDeque::with_capacity(EVENTS_KEPT)),
            next: Cell::new(1),
        }
    }

    /// The set that is in force from now on.
    pub fn show_snapshot(&self, snapshot: &Arc<Snapshot>) {
        let since = self.usable_since.get().unwrap_or(snapshot.epoch);
        self.usable_since.set(snapshot.is_usable().then_some(since));
        *self.snapshot.borrow_mut() = Arc::clone(snapshot);
    }

    /// How the backends are: what was counted, and those who have ever been ill. `has_changed`: the latter have.
    pub fn show_health(
        &self,
        (tally, vitals): (Tally, impl Iterator<Item = (Slot, Vital)>),
        has_changed: bool,
    ) {
        self.tally.set(tally);
        if has_changed {
            *self.vitals.borrow_mut() = vitals.collect();
        }
    }

    /// The agent link is up.
    pub fn link_up(&self, now: Instant) {
        self.link.set(Link::Up { since: now });
        self.count(Note::Connects);
    }

    /// The agent link, or a dial, was lost.
    pub fn link_lost(&self, why: &'static str, now: Instant, retry_at: Instant) {
        let since = match self.link.get() {
            Link::Down { since, .. } => since,
            _ => now,
        };
        self.link.set(Link::Down { since, why, retry_at });
        self.count(Note::Losses);
        *self.losses.borrow_mut().entry(why).or_default() += 1;
    }

    /// A good frame came.
    pub fn frame_taken(&self, now: Instant) {
        self.heard_at.set(Some(now));
        self.count(Note::FramesTaken);
    }

    /// The process has come so far.
    pub fn set_stage(&self, stage: Stage) {
        self.stage.set(stage);
    }

    /// Another process has the admin listener now.
    pub fn give_desk_away(&self) {
        self.has_given_desk.set(true);
    }

    /// Whether it has.
    pub fn has_given_desk(&self) -> bool {
        self.has_given_desk.get()
    }

    /// One more of these.
    pub fn count(&self, note: Note) {
        let cell = &self.counts[note as usize];
        cell.set(cell.get() + 1);
    }

    /// Writes an event down.
    pub fn tell(&self, at: WallTime, topic: Topic, text: impl Into<String>) {
        let mut journal = self.journal.borrow_mut();
        if journal.len() == EVENTS_KEPT {
            journal.pop_front();
        }
        let number = self.next.replace(self.next.get() + 1);
        journal.push_back(Event { number, at, topic, text: text.into() });
    }

    /// The set in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// The epoch from which on a request found a backend in every set; `None` when in the one in force it does not.
    pub fn usable_since(&self) -> Option<u64> {
        self.usable_since.get()
    }

    /// What was counted of the backends' health.
    pub fn health_tally(&self) -> Tally {
        self.tally.get()
    }

    /// How a backend is, if it has ever been ill.
    pub fn vital(&self, slot: Slot) -> Option<Vital> {
        self.vitals.borrow().get(&slot).copied()
    }

    /// The agent link.
    pub fn link(&self) -> Link {
        self.link.get()
    }

    /// When the agent's last good frame came.
    pub fn heard_at(&self) -> Option<Instant> {
        self.heard_at.get()
    }

    /// How far the process has come.
    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// How many of these there were.
    pub fn noted(&self, note: Note) -> u64 {
        self.counts[note as usize].get()
    }

    /// Losses by their reason.
    pub fn losses(&self) -> Ref<'_, BTreeMap<&'static str, u64>> {
        self.losses.borrow()
    }

    /// Number of the last event; 0 when there was none.
    pub fn last_event(&self) -> u64 {
        self.next.get() - 1
    }

    /// The events after number `seen` that are still kept, oldest first.
    pub fn events_after(&self, seen: u64) -> Vec<Event> {
        let journal = self.journal.borrow();
        journal.iter().filter(|event| event.number > seen).cloned().collect()
    }
}

/// Events kept for whoever looks later.
const EVENTS_KEPT: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_bounded_and_numbered() {
        let board = Board::new(false);
        assert_eq!((board.last_event(), board.events_after(0).len()), (0, 0));
        for n in 0..500 {
            board.tell(WallTime::from_ms(n), Topic::Set, format!("event {n}"));
        }
        let kept = board.events_after(0);
        assert_eq!((kept.len(), kept[0].number, board.last_event()), (EVENTS_KEPT, 301, 500));
        assert_eq!(board.events_after(498).len(), 2);
        assert!(board.events_after(500).is_empty());
    }

    #[test]
    fn a_link_is_down_since_it_was_lost_and_not_since_the_last_dial() {
        let at = |s: u64| Instant::from_ns(s * 1_000_000_000);
        let board = Board::new(true);
        assert_eq!(board.link(), Link::Dialling);
        board.link_up(at(1));
        board.link_lost("reset", at(5), at(6));
        board.link_lost("unreachable", at(6), at(8));
        assert_eq!(board.link(), Link::Down { since: at(5), why: "unreachable", retry_at: at(8) });
        assert_eq!((board.noted(Note::Connects), board.noted(Note::Losses)), (1, 2));
        assert_eq!(board.losses().get("reset"), Some(&1));
    }
}
