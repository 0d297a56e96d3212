//! What one core makes of its backends' health.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_channel::{Receiver, bounded};

use super::*;
use crate::balance::{Category, Score, Standings};

#[derive(Clone, Default)]
struct Rings(Arc<AtomicU32>);

impl Bell for Rings {
    fn ring(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

const ME: u32 = 1;

/// Core number 1 of two, and the control core's end of the channel.
struct Core {
    health: Health<Rings>,
    reports: Receiver<Report>,
    rings: Rings,
    n: u32,
    epoch: u64,
    now_ms: u64,
}

impl Core {
    fn of(n: u32) -> Self {
        let (sender, reports) = bounded(4);
        let rings = Rings::default();
        let reporter = Reporter { reports: sender, bell: rings.clone() };
        let health = Health::new(ME, reporter);
        let mut core = Self { health, reports, rings, n, epoch: 0, now_ms: 1_000 };
        core.apply(&[], 0);
        core
    }

    fn now(&self) -> Instant {
        Instant::from_ns(self.now_ms * 1_000_000)
    }

    fn apply(&mut self, others: &[(u32, Standing)], heard: u64) {
        self.epoch += 1;
        let backend = |slot: u32| Backend {
            slot: Slot(slot),
            name: "a".into(),
            authority: "a:1".into(),
            score: Score::new(1.0).unwrap(),
            category: Category::Low,
            addresses: Arc::from(["10.0.0.1:1".parse().unwrap()]),
            warming_since: None,
        };
        let others = others.iter().map(|&(slot, standing)| (Slot(slot), standing)).collect();
        let snapshot = Snapshot {
            epoch: self.epoch,
            backends: (0..self.n).map(backend).collect(),
            health: Standings { others, heard: vec![99, heard] },
            ..Snapshot::empty()
        };
        self.health.apply(&snapshot, self.now());
    }

    /// Who gets requests: one letter each.
    fn show(&self) -> String {
        let letter = |slot| if self.health.is_available(Slot(slot)) { 'U' } else { '-' };
        (0..self.n).map(letter).collect()
    }

    fn fail(&self, slot: u32, symptom: Symptom) -> Noted {
        self.health.failed(Slot(slot), symptom, self.now())
    }

    /// What has been said, with its serial number.
    fn said(&self) -> Vec<(u64, Finding)> {
        self.reports.try_iter().map(|report| (report.serial, report.finding)).collect()
    }
}

const REFUSED: Finding = Finding::Unreachable(Symptom::Refused);
const CHANGED: Noted = Noted { has_changed: true, is_lost: false };
const NOTHING: Noted = Noted { has_changed: false, is_lost: false };

#[test]
fn a_claim_lasts_until_a_snapshot_knows_of_it() {
    let mut core = Core::of(4);
    assert_eq!(core.fail(2, Symptom::Refused), CHANGED);
    assert_eq!((core.show().as_str(), core.health.keeps_idle(Slot(2))), ("UU-U", false));
    assert_eq!(core.said(), [(1, REFUSED)]);
    assert_eq!(core.rings.0.load(Ordering::SeqCst), 1);
    // What was on its way there fails, too: it is known.
    assert_eq!(core.fail(2, Symptom::Reset), NOTHING);
    assert_eq!(core.said(), []);
    // Made before the report came: everybody is up in it.
    core.apply(&[], 0);
    assert_eq!(core.show(), "UU-U");
    core.apply(&[(2, Standing::Out)], 1);
    assert_eq!(core.show(), "UU-U");
    core.apply(&[], 1);
    assert_eq!(core.show(), "UUUU");
    // The control core may know better.
    core.fail(3, Symptom::Refused);
    core.apply(&[(3, Standing::Spared)], 2);
    assert_eq!(core.show(), "UUUU");
    core.fail(3, Symptom::Refused);
    assert_eq!(core.said(), [(2, REFUSED)], "of one that is spared nothing is said");
}

#[test]
fn not_more_than_half_is_left_out() {
    for (n, left) in [(1, "U"), (2, "-U"), (3, "-UU"), (4, "--UU"), (5, "--UUU")] {
        let core = Core::of(n);
        for slot in 0..n {
            core.fail(slot, Symptom::Refused);
            core.fail(slot, Symptom::Refused);
        }
        assert_eq!(core.show(), left);
        // Each is claimed once, also where nothing follows from it here. The channel holds four.
        assert_eq!(core.said().len() as u32, n.min(4));
    }
    let core = Core::of(2);
    core.fail(0, Symptom::Silent);
    core.fail(1, Symptom::Silent);
    assert_eq!(core.show(), "-U");
}

#[test]
fn the_third_in_a_row_is_a_claim_and_an_answer_begins_a_new_row() {
    let mut core = Core::of(4);
    let failed = |answered_at, is_last_straw| Finding::Failed {
        symptom: Symptom::Reset,
        answered_at,
        is_last_straw,
    };
    let never = Instant::default();
    core.fail(0, Symptom::Reset);
    core.fail(0, Symptom::Reset);
    assert_eq!(core.said(), [(1, failed(never, false)), (2, failed(never, false))]);
    let answered_at = core.now();
    core.health.answered(Slot(0), answered_at);
    // So soon after the last report it is not said, and neither are others between answers.
    for _ in 0..9 {
        core.fail(0, Symptom::Reset);
        core.health.answered(Slot(0), answered_at);
    }
    assert_eq!(core.said(), []);
    core.now_ms += 5;
    core.fail(0, Symptom::Reset);
    core.fail(0, Symptom::Reset);
    assert_eq!(core.show(), "UUUU");
    assert_eq!(core.fail(0, Symptom::Reset), CHANGED);
    assert_eq!(core.show(), "-UUU");
    let said = [false, false, true].map(|is_last| failed(answered_at, is_last));
    assert_eq!(core.said(), [(3, said[0]), (4, said[1]), (5, said[2])]);
    core.apply(&[], 5);
    assert_eq!(core.show(), "UUUU");
}

#[test]
fn one_that_was_silent_is_held_back_from_until_somebody_is_answered() {
    let mut core = Core::of(4);
    assert_eq!(core.fail(0, Symptom::Silent), CHANGED);
    assert_eq!((core.show().as_str(), core.health.keeps_idle(Slot(0))), ("-UUU", true));
    assert!(
        core.health.heard(Slot(0), None, core.now())
            && !core.health.heard(Slot(0), None, core.now())
    );
    assert_eq!(core.show(), "UUUU");
    core.fail(1, Symptom::Silent);
    // A snapshot that knows nothing of it changes nothing.
    core.apply(&[], 0);
    core.now_ms += 999;
    assert_eq!(core.health.sweep(core.now()), NOTHING);
    assert_eq!(core.show(), "U-UU");
    core.now_ms += 1;
    assert_eq!(core.health.sweep(core.now()), CHANGED);
    assert_eq!(core.health.sweep(core.now()), NOTHING);
    assert_eq!(core.show(), "UUUU");
}

#[test]
fn a_trial_is_one_request_of_one_core() {
    let mut core = Core::of(4);
    let on_trial = |number, worker| Standing::OnTrial { number, worker };
    core.apply(&[(0, on_trial(7, Some(0))), (1, on_trial(8, Some(ME)))], 0);
    assert_eq!(core.show(), "-UUU");
    assert!(core.health.wants_repeatable(Slot(1), core.now()));
    assert_eq!(core.health.begin(Slot(1), core.now()), (Some(8), CHANGED));
    assert_eq!(core.show(), "--UU");
    // Another request that goes there nevertheless decides nothing.
    assert_eq!(core.health.begin(Slot(1), core.now()), (None, NOTHING));
    assert_eq!(core.health.begin(Slot(2), core.now()), (None, NOTHING));
    core.health.tried(Slot(1), 8, Trial::Undecided, core.now());
    core.health.tried(Slot(1), 8, Trial::Passed, core.now());
    let said = [Finding::TrialBegun(8), Finding::Tried(8, Trial::Undecided)];
    assert_eq!(core.said(), [(1, said[0]), (2, said[1])]);
    core.apply(&[(1, on_trial(9, Some(ME)))], 0);
    assert_eq!(core.show(), "UUUU");
    core.now_ms += 1_000;
    assert!(!core.health.wants_repeatable(Slot(1), core.now()), "in the end any will do");
    assert_eq!(core.health.begin(Slot(1), core.now()), (Some(9), CHANGED));
    core.apply(&[], 0);
    core.health.tried(Slot(1), 9, Trial::Passed, core.now());
    assert_eq!(core.said(), [(3, Finding::TrialBegun(9))], "nobody waits for the outcome");
}

#[test]
fn a_trial_for_all_is_told_once_and_hinders_nobody() {
    let mut core = Core::of(1);
    core.apply(&[(0, Standing::OnTrial { number: 3, worker: None })], 0);
    assert!(!core.health.wants_repeatable(Slot(0), core.now()));
    for _ in 0..2 {
        assert_eq!(core.health.begin(Slot(0), core.now()), (Some(3), NOTHING));
    }
    assert_eq!(core.show(), "U");
    let verdicts = [Trial::Undecided, Trial::Passed, Trial::Failed(Symptom::Reset), Trial::Passed];
    for verdict in verdicts {
        core.health.tried(Slot(0), 3, verdict, core.now());
    }
    assert_eq!(core.said(), [(1, Finding::Tried(3, Trial::Passed))]);
    assert_eq!(core.health.begin(Slot(0), core.now()), (None, NOTHING));
}

#[test]
fn what_cannot_be_said_claims_nothing() {
    let core = Core::of(20);
    for slot in 0..4 {
        core.fail(slot, Symptom::Refused);
    }
    assert_eq!(core.fail(4, Symptom::Refused), Noted { has_changed: false, is_lost: true });
    assert_eq!(core.show(), format!("----{}", "U".repeat(16)));
    core.said();
    assert_eq!(core.fail(4, Symptom::Refused), CHANGED);
    assert_eq!(core.said(), [(5, REFUSED)]);
}

#[test]
fn whoever_takes_over_a_slot_begins_anew() {
    let mut core = Core::of(4);
    core.fail(3, Symptom::Refused);
    core.n = 3;
    core.apply(&[], 0);
    assert_eq!(core.fail(3, Symptom::Refused), NOTHING);
    core.n = 4;
    core.apply(&[], 0);
    assert_eq!(core.show(), "UUUU");
    // Never heard of: nothing is said of it, and it is not kept from anything.
    assert_eq!(core.fail(77, Symptom::Refused), NOTHING);
    assert!(core.health.is_available(Slot(77)));
}

#[test]
fn an_answer_that_goes_on_passes_in_time() {
    let mut core = Core::of(2);
    core.apply(&[(0, Standing::OnTrial { number: 5, worker: Some(ME) })], 0);
    core.health.begin(Slot(0), core.now());
    assert!(!core.health.heard(Slot(0), Some(5), core.now()));
    core.now_ms += 999;
    assert_eq!(core.health.sweep(core.now()), NOTHING);
    assert_eq!(core.said(), [(1, Finding::TrialBegun(5))]);
    core.now_ms += 1;
    core.health.sweep(core.now());
    assert_eq!(core.said(), [(2, Finding::Tried(5, Trial::Passed))]);
    // How it ends is another matter.
    core.health.tried(Slot(0), 5, Trial::Failed(Symptom::Reset), core.now());
    assert_eq!(core.said(), []);
}

#[test]
fn one_in_doubt_is_connected_to_with_care() {
    let mut core = Core::of(2);
    let slot = Slot(0);
    let open = |core: &Core, n| (0..n).for_each(|_| core.health.note_opening(slot, true));
    open(&core, 1);
    assert!(!core.health.is_crowded(slot));
    open(&core, 1);
    assert!(core.health.is_crowded(slot), "nobody has been answered yet");
    core.health.answered(slot, core.now());
    assert!(!core.health.is_crowded(slot));
    let causes: [fn(&mut Core); 4] = [
        |core| core.health.doubt(Slot(0)),
        |core| _ = core.fail(0, Symptom::Reset),
        |core| _ = core.health.suspect(Slot(0), Symptom::Closed, core.now()),
        |core| {
            core.apply(&[(0, Standing::Out)], 0);
            core.apply(&[], 0);
        },
    ];
    for cause in causes {
        core.health.answered(slot, core.now());
        cause(&mut core);
        assert!(core.health.is_crowded(slot));
    }
    core.health.note_opening(slot, false);
    assert!(!core.health.is_crowded(slot));
}
