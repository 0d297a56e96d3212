//! What the book promises whatever is said to it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::Errand::Connect;
use super::tests::{BAD, NEVER, Ward, at};
use super::*;

/// Anything that can be said to the book.
#[derive(Clone, Debug)]
enum Word {
    Pass(u64),
    Refused(u32, u32),
    Failed { worker: u32, slot: u32, has_answered: bool, is_last_straw: bool, symptom: usize },
    Tried(u32, u32, usize),
    End(usize, usize),
    Attend(u8),
    Requests(u32, u64),
}

const SYMPTOMS: [Symptom; 5] =
    [Symptom::Silent, Symptom::Reset, Symptom::Overtaken, Symptom::Malformed, Symptom::Status(500)];

fn word() -> impl Strategy<Value = Word> {
    let (worker, slot) = (0..2u32, 0..SLOTS);
    prop_oneof![
        4 => (0..700u64).prop_map(Word::Pass),
        1 => (1_000..40_000u64).prop_map(Word::Pass),
        2 => (worker.clone(), slot.clone()).prop_map(|(w, s)| Word::Refused(w, s)),
        6 => (worker.clone(), slot.clone(), any::<(bool, bool, bool)>(), 0..4usize).prop_map(
            |(worker, slot, (has_answered, a, b), symptom)| Word::Failed {
                worker, slot, has_answered, is_last_straw: a && b, symptom
            }),
        4 => (worker.clone(), slot, 0..4usize).prop_map(|(w, s, how)| Word::Tried(w, s, how)),
        6 => (0..9usize, 0..7usize).prop_map(|(which, how)| Word::End(which, how)),
        1 => any::<u8>().prop_map(Word::Attend),
        1 => (worker, 0..9u64).prop_map(|(w, n)| Word::Requests(w, n)),
    ]
}

const SLOTS: u32 = 7;

impl Ward {
    /// Applies a word; `open` are the errands that run.
    fn take(&mut self, word: &Word, open: &mut Vec<Todo>, members: &mut Vec<u32>, epoch: &mut u64) {
        match *word {
            Word::Pass(ms) => self.pass(ms),
            Word::Refused(worker, slot) => {
                let finding = Finding::Unreachable(Symptom::Refused);
                self.say_of(worker, slot, finding, *epoch, self.now());
            }
            Word::Failed { worker, slot, has_answered, is_last_straw, symptom } => {
                let symptom = SYMPTOMS[symptom];
                let answered_at = if has_answered { at(self.now_ms - 1) } else { NEVER };
                let finding = Finding::Failed { symptom, answered_at, is_last_straw };
                self.say_of(worker, slot, finding, *epoch, self.now());
            }
            Word::Tried(worker, slot, how) => {
                let Standing::OnTrial { number, .. } = self.standing(slot) else { return };
                let finding = match how {
                    0 => Finding::TrialBegun(number),
                    1 => Finding::Tried(number, Trial::Passed),
                    2 => Finding::Tried(number, Trial::Failed(Symptom::Closed)),
                    _ => Finding::Tried(number, Trial::Undecided),
                };
                self.say_of(worker, slot, finding, *epoch, self.now());
            }
            Word::End(which, how) => {
                if open.is_empty() {
                    return;
                }
                let todo = open.remove(which % open.len());
                let outcome = match how {
                    0 | 1 => Outcome::Good,
                    2 => BAD,
                    3 => Outcome::Unknown,
                    how => Outcome::Bad(SYMPTOMS[how % 5]),
                };
                self.end(todo, outcome);
            }
            Word::Attend(mask) => {
                *members = (0..SLOTS).filter(|slot| mask & (1 << slot) != 0).collect();
                *epoch += 1;
                self.attend(members, *epoch);
            }
            Word::Requests(worker, n) => self.requests[worker as usize] += n,
        }
    }

    fn check_promises(&self, members: &[u32]) {
        let standing = |slot: &&u32| self.standing(**slot);
        let count = |is_it: fn(Standing) -> bool| {
            members.iter().map(|s| standing(&s)).filter(|s| is_it(*s)).count()
        };
        let out = count(|standing| {
            matches!(standing, Standing::Out | Standing::OnTrial { worker: Some(_), .. })
        });
        assert!(out <= members.len() / 2, "{out} of {} are out", members.len());
        if count(|standing| standing != Standing::Up) == members.len() {
            assert_eq!(out, 0, "all are ill, and not all are asked");
        }
        let is_known = |(slot, _): &(Slot, Standing)| members.contains(&slot.0);
        assert!(self.standings.others.iter().all(is_known), "{:?}", self.standings);
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_promises_hold(
        words in prop::collection::vec(word(), 1..300),
        has_checks: bool,
    ) {
        let mut ward = Ward::checking(SLOTS, has_checks.then_some(2_000));
        let mut members: Vec<u32> = (0..SLOTS).collect();
        let (mut open, mut epoch) = (Vec::new(), 1);
        let mut probed: BTreeMap<(u64, u32), u64> = BTreeMap::new();
        let mut look = |ward: &mut Ward, open: &mut Vec<Todo>| {
            for todo in ward.todos() {
                let born = ward.book.case(todo.slot).unwrap().born;
                if todo.errand == Connect
                    && let Some(before) = probed.insert((born, todo.slot.0), ward.now_ms)
                {
                    assert!(ward.now_ms - before >= 250, "connected to twice in {}", ward.now_ms - before);
                }
                open.push(todo);
            }
        };
        for word in &words {
            ward.take(word, &mut open, &mut members, &mut epoch);
            look(&mut ward, &mut open);
            ward.check_promises(&members);
        }
        // From here on all is well, except that one verdict may have been lost for good.
        let healed_by = ward.now_ms + 160_000;
        while ward.now_ms < healed_by && !ward.standings.others.is_empty() {
            ward.pass(50);
            look(&mut ward, &mut open);
            std::mem::take(&mut open).into_iter().for_each(|todo| ward.end(todo, Outcome::Good));
            for &slot in &members {
                if let Standing::OnTrial { number, worker } = ward.standing(slot) {
                    let worker = worker.unwrap_or(1);
                    ward.say_of(worker, slot, Finding::TrialBegun(number), epoch, ward.now());
                    ward.say_of(worker, slot, Finding::Tried(number, Trial::Passed), epoch, ward.now());
                }
            }
        }
        prop_assert_eq!(&ward.standings.others, &Vec::new());
    }
}
