//! The book's rules, one by one.

use std::collections::BTreeMap;

use super::Errand::{Check, Connect};
use super::*;

/// A book of `n` backends in slots 0 to n - 1, two workers, and a clock in milliseconds.
pub(super) struct Ward {
    pub book: HealthBook,
    pub now_ms: u64,
    serials: [u64; 2],
    pub requests: [u64; 2],
    addresses: Arc<[SocketAddr]>,
    pub standings: Standings,
}

pub(super) const NEVER: Instant = Instant::from_ns(0);

pub(super) fn at(ms: u64) -> Instant {
    Instant::from_ns(ms * 1_000_000)
}

impl Ward {
    fn of(n: u32) -> Self {
        Self::checking(n, None)
    }

    pub fn checking(n: u32, interval_ms: Option<u64>) -> Self {
        let mut ward = Self {
            book: HealthBook::new(2, interval_ms.map(Duration::from_millis)),
            now_ms: 1_000_000,
            serials: [0; 2],
            requests: [0; 2],
            addresses: ["10.0.0.1:80".parse().unwrap()].into(),
            standings: Standings::default(),
        };
        ward.attend(&(0..n).collect::<Vec<_>>(), 1);
        ward
    }

    pub fn attend(&mut self, slots: &[u32], epoch: u64) {
        let now = self.now();
        let members = slots.iter().map(|&slot| (Slot(slot), &self.addresses));
        self.book.attend(members, epoch, now);
        self.settle();
    }

    pub fn now(&self) -> Instant {
        at(self.now_ms)
    }

    /// Time passes; what is due happens.
    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let requests = self.requests;
        self.book.handle_timeout(self.now(), |worker| requests[worker as usize]);
        self.settle();
    }

    fn settle(&mut self) -> bool {
        let Some(new) = self.book.take_standings() else { return false };
        self.standings = new;
        true
    }

    fn say(&mut self, worker: u32, slot: u32, finding: Finding) {
        self.say_of(worker, slot, finding, 1, self.now());
    }

    pub fn say_of(&mut self, worker: u32, slot: u32, finding: Finding, epoch: u64, at: Instant) {
        self.serials[worker as usize] += 1;
        let serial = self.serials[worker as usize];
        let report = Report { worker, serial, epoch, slot: Slot(slot), at, finding };
        self.book.hear(&report, self.now());
        self.book.handle_timeout(self.now(), |worker| self.requests[worker as usize]);
        self.settle();
    }

    fn fail(&mut self, worker: u32, slot: u32) {
        self.fail_after(worker, slot, NEVER);
    }

    fn fail_after(&mut self, worker: u32, slot: u32, answered_at: Instant) {
        let finding =
            Finding::Failed { symptom: Symptom::Silent, answered_at, is_last_straw: false };
        self.say(worker, slot, finding);
    }

    fn eject(&mut self, slot: u32) {
        self.say(0, slot, Finding::Unreachable(Symptom::Refused));
    }

    /// Three failures, and a look that shows it can be connected to.
    fn make_failing(&mut self, slot: u32) {
        (0..3).for_each(|_| self.fail(0, slot));
        for todo in self.todos() {
            self.end(todo, Outcome::Good);
        }
        assert_eq!(self.vital(slot).condition, "failing");
    }

    pub fn todos(&mut self) -> Vec<Todo> {
        std::iter::from_fn(|| self.book.poll_todo()).collect()
    }

    fn errands(&mut self) -> Vec<(u32, Errand)> {
        self.todos().into_iter().map(|todo| (todo.slot.0, todo.errand)).collect()
    }

    /// The one errand there is, run with that outcome.
    fn run(&mut self, outcome: Outcome) -> Errand {
        let todos = self.todos();
        let [todo] = todos[..] else { panic!("one errand was due, not {todos:?}") };
        self.end(todo, outcome);
        todo.errand
    }

    pub fn end(&mut self, todo: Todo, outcome: Outcome) {
        self.book.done(todo, outcome, self.now());
        self.book.handle_timeout(self.now(), |worker| self.requests[worker as usize]);
        self.settle();
    }

    pub fn standing(&self, slot: u32) -> Standing {
        self.standings.of(Slot(slot))
    }

    fn vital(&self, slot: u32) -> Vital {
        self.book.vital(Slot(slot)).unwrap()
    }

    /// `U`p, `o`ut, `s`pared, on `t`rial; a capital T when for everybody.
    fn show(&self) -> String {
        let letter = |slot: u32| match self.standing(slot) {
            Standing::Up => 'U',
            Standing::Out => 'o',
            Standing::Spared => 's',
            Standing::OnTrial { worker: Some(_), .. } => 't',
            Standing::OnTrial { worker: None, .. } => 'T',
        };
        (0..self.book.size as u32).map(letter).collect()
    }

    fn trial(&self, slot: u32) -> (u64, Option<u32>) {
        match self.standing(slot) {
            Standing::OnTrial { number, worker } => (number, worker),
            other => panic!("a trial was due, not {other:?}"),
        }
    }
}

pub(super) const BAD: Outcome = Outcome::Bad(Symptom::Refused);

#[test]
fn one_failed_connect_ejects_and_the_first_that_succeeds_brings_back() {
    for symptom in
        [Symptom::Refused, Symptom::ConnectReset, Symptom::ConnectTimeout, Symptom::Unreachable]
    {
        let mut ward = Ward::of(4);
        ward.say(1, 2, Finding::Unreachable(symptom));
        assert_eq!((ward.show().as_str(), ward.standings.heard_of(1)), ("UUoU", 1));
        // Connected to at once, then every 250 ms.
        for _ in 0..9 {
            assert_eq!(ward.run(BAD), Connect);
            ward.pass(249);
            assert_eq!(ward.todos(), []);
            ward.pass(1);
        }
        assert_eq!(ward.run(Outcome::Good), Connect);
        assert_eq!(ward.show(), "UUUU");
        ward.pass(10_000);
        assert_eq!(ward.todos(), []);
        let expected =
            Tally { reports: 1, ejections: 1, recoveries: 1, probes: 10, checks: 0, trials: 0 };
        assert_eq!(ward.book.tally(), expected);
        let told: Vec<Change> = std::iter::from_fn(|| ward.book.poll_change()).collect();
        let after = Duration::from_millis(9 * 250);
        let slot = Slot(2);
        let ejected = Change::Ejected { slot, symptom, is_relapse: false };
        assert_eq!(told, [ejected, Change::Recovered { slot, after, is_relapse: false }]);
    }
}

/// An unanswered connect holds up nobody: the next one begins on time, and any of them brings the backend back.
#[test]
fn silent_connects_overlap() {
    let mut ward = Ward::of(4);
    ward.eject(0);
    let mut open = ward.todos();
    for _ in 0..3 {
        ward.pass(250);
        open.extend(ward.todos());
    }
    assert_eq!(open.len(), 4);
    ward.end(open[2], Outcome::Good);
    assert_eq!(ward.show(), "UUUU");
    // The others belong to an illness that is over.
    ward.end(open[0], Outcome::Bad(Symptom::ConnectTimeout));
    ward.end(open[1], Outcome::Good);
    assert_eq!(ward.show(), "UUUU");
    ward.eject(0);
    assert_eq!(ward.show(), "oUUU");
    ward.end(open[3], Outcome::Good);
    assert_eq!(ward.show(), "oUUU", "an old success says nothing of the new illness");
}

#[test]
fn a_backend_that_comes_and_goes_is_connected_to_four_times_a_second() {
    let mut ward = Ward::of(4);
    let mut begun = Vec::new();
    for _ in 0..5_000 {
        ward.eject(0);
        for todo in ward.todos() {
            begun.push(ward.now_ms);
            ward.end(todo, Outcome::Good);
        }
        ward.pass(1);
    }
    assert!(
        begun.len() >= 20 && begun.windows(2).all(|pair| pair[1] - pair[0] >= 250),
        "{begun:?}"
    );
}

#[test]
fn three_in_a_row_over_all_cores_eject() {
    let mut ward = Ward::of(4);
    ward.fail(0, 1);
    ward.fail(1, 1);
    assert_eq!(ward.show(), "UUUU");
    // This core has had an answer since the two before.
    ward.pass(10);
    ward.fail_after(1, 1, at(ward.now_ms - 1));
    ward.fail(0, 1);
    assert_eq!(ward.show(), "UUUU");
    ward.fail(1, 1);
    assert_eq!(ward.show(), "UoUU");
    // So far apart that there must have been answers in between.
    for _ in 0..9 {
        ward.fail(0, 2);
        ward.pass(121_000);
    }
    assert_eq!(ward.standing(2), Standing::Up);
    // One core's word for three in a row is enough.
    let symptom = Symptom::Malformed;
    ward.say(1, 3, Finding::Failed { symptom, answered_at: NEVER, is_last_straw: true });
    assert_eq!(ward.vital(3).condition, "failing");
}

#[test]
fn a_first_failure_has_the_backend_looked_at() {
    let mut ward = Ward::of(4);
    ward.fail(0, 0);
    assert_eq!(ward.run(Outcome::Good), Connect);
    assert_eq!(ward.show(), "UUUU", "it lives");
    // The second one within 250 ms has to wait.
    ward.fail_after(1, 0, at(ward.now_ms - 1));
    assert_eq!(ward.todos(), []);
    ward.pass(250);
    assert_eq!(ward.run(BAD), Connect);
    assert_eq!(ward.show(), "oUUU", "it died");
    assert_eq!(ward.vital(0).condition, "unreachable");
    // That much is reason enough, however often it happens.
    for _ in 0..9 {
        ward.say(0, 1, Finding::Suspect(Symptom::Closed));
    }
    assert_eq!(ward.errands(), [(1, Connect)]);
    assert_eq!(ward.show(), "oUUU");
}

#[test]
fn connects_that_are_overtaken_three_times_mean_unreachable() {
    let mut ward = Ward::of(4);
    let finding =
        Finding::Failed { symptom: Symptom::Overtaken, answered_at: NEVER, is_last_straw: false };
    (0..3).for_each(|_| ward.say(0, 0, finding));
    assert_eq!(ward.vital(0).condition, "unreachable");
}

/// Out for 1 s, 2 s, 4 s … 30 s, each time followed by a single request.
#[test]
fn a_failing_backend_waits_twice_as_long_after_every_trial() {
    let mut ward = Ward::of(4);
    ward.make_failing(0);
    for wait_s in [1, 2, 4, 8, 16, 30, 30] {
        ward.pass(wait_s * 1000 - 1);
        assert_eq!(ward.standing(0), Standing::Out);
        ward.pass(1);
        let (number, worker) = ward.trial(0);
        let worker = worker.unwrap();
        ward.say(worker, 0, Finding::TrialBegun(number));
        ward.say(worker, 0, Finding::Tried(number, Trial::Failed(Symptom::Reset)));
        assert_eq!(ward.standing(0), Standing::Out);
    }
    ward.pass(30_000);
    let (number, worker) = ward.trial(0);
    // Of a trial before: it decides nothing.
    ward.say(0, 0, Finding::Tried(number - 1, Trial::Passed));
    assert_eq!(ward.trial(0), (number, worker));
    ward.say(worker.unwrap(), 0, Finding::Tried(number, Trial::Passed));
    assert_eq!(ward.show(), "UUUU");
    // Soon ill again is the same trouble, later it is a new one.
    ward.pass(29_000);
    ward.make_failing(0);
    ward.pass(29_999);
    assert_eq!(ward.standing(0), Standing::Out);
    ward.pass(1);
    let (number, worker) = ward.trial(0);
    ward.say(worker.unwrap(), 0, Finding::Tried(number, Trial::Passed));
    ward.pass(30_000);
    ward.make_failing(0);
    ward.pass(1_000);
    ward.trial(0);
}

#[test]
fn a_trial_belongs_to_the_core_with_traffic() {
    let mut ward = Ward::of(4);
    ward.make_failing(0);
    ward.requests = [50, 10];
    ward.pass(1_000);
    let (first, worker) = ward.trial(0);
    assert_eq!(worker, Some(0));
    // It had requests, though not for this one: it keeps the trial.
    ward.requests = [51, 90];
    ward.pass(100);
    assert_eq!(ward.trial(0), (first, Some(0)));
    // Nobody has any: no reason to move.
    ward.pass(100);
    assert_eq!(ward.trial(0), (first, Some(0)));
    ward.requests = [51, 91];
    ward.pass(100);
    let (second, worker) = ward.trial(0);
    assert!(second > first && worker == Some(1));
    // Once begun it stays, however long it takes.
    ward.say(1, 0, Finding::TrialBegun(second));
    for _ in 0..1_000 {
        ward.requests[0] += 1;
        ward.pass(100);
        assert_eq!(ward.trial(0), (second, Some(1)));
    }
    // The client left: another one, a little later.
    ward.say(1, 0, Finding::Tried(second, Trial::Undecided));
    assert_eq!(ward.standing(0), Standing::Out);
    ward.pass(100);
    let (third, _) = ward.trial(0);
    // A verdict that was lost must not keep it out for ever.
    ward.say(0, 0, Finding::TrialBegun(third));
    ward.pass(120_000);
    assert!(ward.trial(0).0 > third);
    // It died meanwhile.
    let (number, _) = ward.trial(0);
    ward.say(0, 0, Finding::Tried(number, Trial::Failed(Symptom::Refused)));
    assert_eq!(ward.vital(0).condition, "unreachable");
}

#[test]
fn a_failing_backend_that_died_is_probed_instead() {
    let mut ward = Ward::of(4);
    (0..3).for_each(|_| ward.fail(0, 0));
    assert_eq!(ward.vital(0).condition, "failing");
    assert_eq!(ward.run(BAD), Connect);
    assert_eq!(ward.vital(0).condition, "unreachable");
    ward.pass(250);
    ward.run(Outcome::Good);
    assert_eq!(ward.show(), "UUUU");
}

#[test]
fn never_more_than_half_and_nobody_when_all_are_ill() {
    for (n, steps) in [
        (1, &["s"][..]),
        (2, &["oU", "ss"]),
        (3, &["oUU", "osU", "sss"]),
        (4, &["oUUU", "ooUU", "oosU", "ssss"]),
        (5, &["oUUUU", "ooUUU", "oosUU", "oossU", "sssss"]),
    ] {
        let mut ward = Ward::of(n);
        for (slot, expected) in (0..).zip(steps) {
            ward.eject(slot);
            assert_eq!(ward.show(), *expected);
        }
        // All are looked after, whoever is spared.
        for todo in ward.todos() {
            ward.end(todo, Outcome::Good);
        }
        assert_eq!(ward.show(), "U".repeat(n as usize));
    }
}

#[test]
fn who_was_spared_takes_the_place_of_who_recovers() {
    let mut ward = Ward::of(5);
    (0..4).for_each(|slot| ward.eject(slot));
    assert_eq!(ward.show(), "oossU");
    let todos = ward.todos();
    ward.end(todos[0], Outcome::Good);
    assert_eq!(ward.show(), "UoosU");
    ward.end(todos[3], Outcome::Good);
    assert_eq!(ward.show(), "UooUU");
    // The set shrinks: half of it is one less.
    ward.attend(&[0, 1, 2], 2);
    assert_eq!(ward.show(), "Uos");
    ward.attend(&[1, 2], 3);
    assert_eq!(ward.standings.others.len(), 2);
    assert!(ward.standings.others.iter().all(|(_, standing)| *standing == Standing::Spared));
    ward.attend(&[0, 1, 2, 3], 4);
    assert_eq!(ward.show(), "UooU");
}

#[test]
fn of_a_spared_one_on_trial_everybody_may_say_how_it_went() {
    let mut ward = Ward::of(1);
    ward.make_failing(0);
    assert_eq!(ward.show(), "s");
    ward.pass(1_000);
    let (number, worker) = ward.trial(0);
    assert_eq!(worker, None);
    ward.requests = [9, 9];
    ward.pass(5_000);
    assert_eq!(ward.trial(0), (number, None), "it has no reason to move");
    ward.say(1, 0, Finding::Tried(number, Trial::Failed(Symptom::Silent)));
    assert_eq!(ward.show(), "s");
    ward.pass(2_000);
    let (number, _) = ward.trial(0);
    ward.say(0, 0, Finding::Tried(number, Trial::Passed));
    ward.say(1, 0, Finding::Tried(number, Trial::Failed(Symptom::Silent)));
    assert_eq!(ward.show(), "U");
}

#[test]
fn what_is_said_of_another_time_or_another_backend_is_heard_and_ignored() {
    let mut ward = Ward::of(4);
    ward.attend(&[0, 1, 2], 5);
    ward.attend(&[0, 1, 2, 3], 6);
    let refused = Finding::Unreachable(Symptom::Refused);
    // The worker still applies epoch 5, in which slot 3 was nobody's.
    ward.say_of(0, 3, refused, 5, ward.now());
    assert_eq!((ward.show().as_str(), ward.standings.heard_of(0)), ("UUUU", 1));
    ward.say_of(0, 3, refused, 6, ward.now());
    assert_eq!(ward.show(), "UUUo");
    let before = ward.now();
    ward.pass(1);
    ward.run(Outcome::Good);
    // Met before the recovery, told after it.
    ward.say_of(1, 3, refused, 6, before);
    assert_eq!((ward.show().as_str(), ward.standings.heard_of(1)), ("UUUU", 1));
    // Of nobody at all.
    ward.say(0, 77, refused);
    assert_eq!(ward.standings.heard_of(0), 3);
    // An errand to somebody who left says nothing of the next one in its slot.
    ward.eject(2);
    ward.pass(250);
    let todos = ward.todos();
    ward.attend(&[0, 1, 3], 7);
    ward.attend(&[0, 1, 2, 3], 8);
    todos.into_iter().for_each(|todo| ward.end(todo, BAD));
    assert_eq!(ward.show(), "UUUU");
}

#[test]
fn a_worker_that_took_somebody_out_always_hears_back() {
    let mut ward = Ward::of(1);
    let refused = Finding::Unreachable(Symptom::Refused);
    for serial in 1..5 {
        ward.say(0, 0, refused);
        assert_eq!((ward.show().as_str(), ward.standings.heard_of(0)), ("s", serial));
    }
    // What takes nobody out may wait for the next occasion.
    ward.fail(1, 0);
    assert_eq!(ward.standings.heard_of(1), 0);
}

#[test]
fn a_new_address_is_tried_at_once() {
    let mut ward = Ward::of(2);
    ward.eject(0);
    ward.run(BAD);
    ward.pass(250);
    ward.run(BAD);
    ward.pass(100);
    ward.addresses = ["10.0.0.2:80".parse().unwrap()].into();
    ward.attend(&[0, 1], 2);
    ward.pass(150);
    assert_eq!(ward.errands(), [(0, Connect)], "and still not more often than every 250 ms");
}

#[test]
fn checks_eject_and_bring_back() {
    let mut ward = Ward::checking(2, Some(2_000));
    // Each once within the first interval, then every two seconds.
    let mut checked: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for _ in 0..10_000 {
        ward.pass(1);
        for todo in ward.todos() {
            assert_eq!(todo.errand, Check);
            checked.entry(todo.slot.0).or_default().push(ward.now_ms);
            ward.end(todo, Outcome::Good);
        }
    }
    assert!(checked.values().all(|times| times.len() == 5), "{checked:?}");
    assert!(checked.values().all(|times| times.windows(2).all(|p| p[1] - p[0] == 2_000)));
    assert_ne!(checked[&0][0], checked[&1][0], "spread over the interval");

    // It says that it is not fit: out until it says otherwise.
    let check = |ward: &mut Ward, outcome| {
        for _ in 0..2_000 {
            ward.pass(1);
            for todo in ward.todos() {
                let outcome = if todo.slot == Slot(0) { outcome } else { Outcome::Good };
                ward.end(todo, outcome);
            }
        }
        ward.show()
    };
    let unfit = Outcome::Bad(Symptom::Status(503));
    assert_eq!(check(&mut ward, unfit), "oU");
    assert_eq!(check(&mut ward, Outcome::Bad(Symptom::Silent)), "oU");
    assert_eq!(check(&mut ward, Outcome::Unknown), "oU");
    assert_eq!(check(&mut ward, Outcome::Good), "UU");
    // Silence is no word: three in a row.
    assert_eq!(check(&mut ward, Outcome::Bad(Symptom::Silent)), "UU");
    assert_eq!(check(&mut ward, Outcome::Bad(Symptom::Malformed)), "UU");
    assert_eq!(check(&mut ward, Outcome::Good), "UU");
    assert_eq!(check(&mut ward, Outcome::Bad(Symptom::Silent)), "UU");
    assert_eq!(check(&mut ward, Outcome::Bad(Symptom::Silent)), "UU");
    assert_eq!(check(&mut ward, Outcome::Bad(Symptom::Silent)), "oU");
    assert_eq!(check(&mut ward, Outcome::Good), "UU");
    // Nobody listens: once is enough.
    assert_eq!(check(&mut ward, BAD), "oU");
}

#[test]
fn with_checks_no_request_is_put_on_trial() {
    let mut ward = Ward::checking(2, Some(3_600_000));
    ward.eject(0);
    assert_eq!(ward.run(Outcome::Good), Connect);
    assert_eq!((ward.show().as_str(), ward.vital(0).condition), ("oU", "unfit"));
    ward.pass(0);
    assert_eq!(ward.run(Outcome::Good), Check);
    assert_eq!(ward.show(), "UU");
    ward.pass(250);
    ward.make_failing(0);
    ward.pass(250);
    assert_eq!(ward.run(Outcome::Good), Connect, "it might have died");
    for wait_ms in [750, 2_000, 4_000] {
        ward.pass(wait_ms - 1);
        assert_eq!(ward.todos(), []);
        ward.pass(1);
        assert_eq!(ward.run(Outcome::Bad(Symptom::Silent)), Check);
        assert_eq!(ward.show(), "oU");
    }
    ward.pass(8_000);
    assert_eq!(ward.run(Outcome::Good), Check);
    assert_eq!(ward.show(), "UU");
    assert_eq!(ward.book.tally().trials, 0);
}

/// A rack dies. What that costs the control core is bounded, and nobody is forgotten over it.
#[test]
fn many_dead_backends_are_probed_in_turn() {
    const DEAD: u32 = 300;
    let mut ward = Ward::of(2 * DEAD);
    (0..DEAD).for_each(|slot| ward.eject(slot));
    assert_eq!(ward.show(), format!("{}{}", "o".repeat(300), "U".repeat(300)));
    let mut probed = vec![0u32; DEAD as usize];
    for second in 0..3 {
        let before = ward.book.tally().probes;
        for _ in 0..1_000 {
            for todo in ward.todos() {
                probed[todo.slot.index()] += 1;
                ward.end(todo, BAD);
            }
            ward.pass(1);
        }
        let begun = ward.book.tally().probes - before;
        // Together they would want 1,200.
        assert!((1_000..=1_064).contains(&begun), "{begun} in second {second}");
    }
    let (least, most) = (probed.iter().min().unwrap(), probed.iter().max().unwrap());
    assert!(*least >= 9 && *most <= 12, "{least} to {most}");
    // Silent ones hold descriptors: not more than the limit.
    let mut open = Vec::new();
    for _ in 0..2_000 {
        ward.pass(1);
        open.extend(ward.todos());
    }
    assert_eq!(open.len(), ERRANDS_MAX);
    ward.end(open.pop().unwrap(), Outcome::Unknown);
    ward.pass(0);
    assert_eq!(ward.todos().len(), 1);
}
