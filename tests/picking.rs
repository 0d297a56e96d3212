//! The picker as a worker meets it: shares in a closed loop, movement under saturation, who is never asked.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;

use balancer::balance::{
    Backend, Balance, Category, Choice, EXCLUDED_MAX, Picker, Score, Slot, Snapshot, Source,
};
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

fn backend(slot: u32, score: f64, category: Category, is_resolved: bool) -> Backend {
    let name: Arc<str> = format!("app-{slot}").into();
    Backend {
        slot: Slot(slot),
        name: Arc::clone(&name),
        authority: name,
        score: Score::new(score).unwrap(),
        category,
        addresses: is_resolved.then(|| "127.0.0.1:80".parse().unwrap()).into_iter().collect(),
    }
}

fn snapshot(backends: Vec<Backend>) -> Snapshot {
    let slots = backends.iter().map(|b| b.slot.index() + 1).max().unwrap_or(0);
    Snapshot { epoch: 1, source: Source::Agent, slots, backends, ..Snapshot::empty() }
}

fn scored(scores: &[f64]) -> Snapshot {
    let number = |(slot, &score): (usize, &f64)| backend(slot as u32, score, Category::Low, true);
    snapshot(scores.iter().enumerate().map(number).collect())
}

fn chosen(choice: Choice) -> Slot {
    match choice {
        Choice::Backend(slot) => slot,
        other => panic!("somebody is free, and the pick was {other:?}"),
    }
}

fn picker(balance: Balance, snapshot: &Snapshot) -> Picker {
    let mut picker = Picker::new(balance, None);
    picker.apply(snapshot);
    picker
}

/// `clients` that each wait for their answer before they ask again; `service(slot, rng)` is how long a request
/// takes. Returns the share of each backend in percent.
fn closed_loop(
    picker: &mut Picker,
    clients: usize,
    requests: usize,
    seed: u64,
    service: impl Fn(usize, &mut SmallRng) -> u64,
) -> Vec<f64> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut pending: BinaryHeap<Reverse<(u64, u64, u32)>> = BinaryHeap::new();
    let mut served = vec![0u64; picker.slots()];
    let mut now = 0;
    for number in 0..requests {
        if pending.len() == clients {
            let Reverse((ends, _, slot)) = pending.pop().unwrap();
            now = ends;
            picker.end(Slot(slot));
        }
        let slot = chosen(picker.pick(|| rng.random(), &[]));
        picker.begin(slot);
        served[slot.index()] += 1;
        let ends = now + service(slot.index(), &mut rng);
        pending.push(Reverse((ends, number as u64, slot.0)));
    }
    assert_eq!(picker.total_in_flight(), pending.len() as u64);
    pending.drain().for_each(|Reverse((.., slot))| picker.end(Slot(slot)));
    assert_eq!(picker.total_in_flight(), 0);
    served.iter().map(|&n| n as f64 * 100.0 / requests as f64).collect()
}

/// Between 0.1 and 3.9 times 1,000, mostly short.
fn varying(_: usize, rng: &mut SmallRng) -> u64 {
    let u: f64 = rng.random();
    100 + (u * u * 3800.0) as u64
}

#[test]
fn shares_follow_the_scores_at_any_concurrency() {
    for scores in [&[90.0, 10.0][..], &[90.0, 60.0, 30.0, 10.0]] {
        let sum: f64 = scores.iter().sum();
        for balance in [Balance::Bounded, Balance::WeightedRandom] {
            for clients in [1, 2, 3, 4, 8, 16, 64, 256] {
                let mut picker = picker(balance, &scored(scores));
                let shares = closed_loop(&mut picker, clients, 20_000, clients as u64, varying);
                for (share, score) in shares.iter().zip(scores) {
                    let ideal = score * 100.0 / sum;
                    assert!(
                        (share - ideal).abs() < 2.0,
                        "{balance:?}, {clients} clients, scores {scores:?}: {shares:.1?}"
                    );
                }
            }
        }
    }
}

#[test]
fn work_moves_away_from_a_slow_backend_and_nobody_starves() {
    // Equal scores, one is ten times slower: the agent has not noticed yet.
    let slow =
        |slot: usize, rng: &mut SmallRng| varying(slot, rng) * if slot == 0 { 10 } else { 1 };
    let scores = scored(&[50.0, 50.0, 50.0, 50.0]);
    let bounded = closed_loop(&mut picker(Balance::Bounded, &scores), 64, 20_000, 1, slow);
    assert!(bounded[0] > 2.0 && bounded[0] < 8.0, "{bounded:.1?}");
    assert!(bounded[1..].iter().all(|&share| share > 28.0), "{bounded:.1?}");
    let blind = closed_loop(&mut picker(Balance::WeightedRandom, &scores), 64, 20_000, 1, slow);
    assert!((blind[0] - 25.0).abs() < 2.0, "{blind:.1?}");
}

#[test]
fn whoever_is_unavailable_is_never_asked_until_told_otherwise() {
    let set = scored(&[50.0, 30.0, 0.0]);
    let mut picker = picker(Balance::Bounded, &set);
    let mut rng = SmallRng::seed_from_u64(5);
    let mut asked = |picker: &Picker| -> BTreeSet<u32> {
        (0..200)
            .filter_map(|_| match picker.pick(|| rng.random(), &[]) {
                Choice::Backend(slot) => Some(slot.0),
                _ => None,
            })
            .collect()
    };
    picker.begin(Slot(0));
    picker.set_available(Slot(0), false);
    picker.apply(&set);
    assert_eq!(asked(&picker), BTreeSet::from([1]));
    // It stays out whatever the agent says, and a request that is there may end.
    picker.apply(&scored(&[100.0, 30.0, 0.0, 7.0]));
    assert_eq!(asked(&picker), BTreeSet::from([1, 3]));
    picker.end(Slot(0));
    // With nobody of a positive score available those without one are asked, and in the end nobody.
    picker.set_available(Slot(1), false);
    picker.apply(&set);
    assert_eq!(asked(&picker), BTreeSet::from([2]));
    picker.set_available(Slot(2), false);
    picker.apply(&set);
    assert_eq!((asked(&picker), picker.eligible()), (BTreeSet::new(), 0));
    // Said of one not listed yet, it holds when it comes.
    picker.set_available(Slot(9), false);
    (0..3).for_each(|slot| picker.set_available(Slot(slot), true));
    picker.apply(&set);
    assert_eq!(asked(&picker), BTreeSet::from([0, 1]));
}

#[test]
fn a_stuck_backend_holds_no_more_than_its_share() {
    let mut picker = picker(Balance::Bounded, &scored(&[50.0, 50.0, 50.0, 50.0]));
    let mut rng = SmallRng::seed_from_u64(7);
    for _ in 0..10_000 {
        let slot = chosen(picker.pick(|| rng.random(), &[]));
        picker.begin(slot);
        if slot != Slot(0) {
            picker.end(slot);
        }
    }
    // The others are idle, so the bound 1.1 · ¼ · (L + 1) + 1 has its own load for L and stands still.
    assert!(picker.in_flight(Slot(0)) <= 2, "{}", picker.in_flight(Slot(0)));
}

#[test]
fn of_two_busy_ones_the_idler_for_its_score_is_taken() {
    // Shares of 20, 60 and 20 %, bounds of 15, 44 and 15: the first two are beyond theirs. In flight for its score the
    // second is the idler of them, in plain numbers the first.
    let mut picker = picker(Balance::Bounded, &scored(&[20.0, 60.0, 20.0]));
    (0..20).for_each(|_| picker.begin(Slot(0)));
    (0..45).for_each(|_| picker.begin(Slot(1)));
    let mut rng = SmallRng::seed_from_u64(1);
    let mut seen = [0; 3];
    for _ in 0..1000 {
        seen[chosen(picker.pick(|| rng.random(), &[])).index()] += 1;
    }
    assert!(seen[0] == 0 && seen[1] > 100 && seen[2] > 100, "{seen:?}");
}

#[test]
fn a_score_of_zero_is_asked_only_when_nobody_else_is_left() {
    let picker = picker(Balance::Bounded, &scored(&[0.0, 80.0, 0.001]));
    let mut rng = SmallRng::seed_from_u64(3);
    for _ in 0..10_000 {
        assert_ne!(picker.pick(|| rng.random(), &[]), Choice::Backend(Slot(0)));
    }
    assert_eq!(picker.pick(|| rng.random(), &[Slot(1)]), Choice::Backend(Slot(2)));
    assert_eq!(picker.pick(|| rng.random(), &[Slot(1), Slot(2)]), Choice::Backend(Slot(0)));
    assert_eq!(picker.pick(|| rng.random(), &[Slot(1), Slot(2), Slot(0)]), Choice::Nobody);
}

#[test]
fn all_zero_means_equal_shares() {
    let scores = scored(&[0.0, 0.0, 0.0, 0.0]);
    for clients in [1, 4, 64] {
        let mut picker = picker(Balance::Bounded, &scores);
        let shares = closed_loop(&mut picker, clients, 20_000, 5, varying);
        assert!(shares.iter().all(|share| (share - 25.0).abs() < 2.0), "{shares:.1?}");
    }
}

#[test]
fn draining_and_unresolved_backends_are_never_asked() {
    let picker = picker(
        Balance::Bounded,
        &snapshot(vec![
            backend(0, 100.0, Category::Sundown, true),
            backend(1, 100.0, Category::Low, false),
            backend(2, 1.0, Category::High, true),
        ]),
    );
    let mut rng = SmallRng::seed_from_u64(9);
    assert_eq!(picker.eligible(), 1);
    for _ in 0..1000 {
        assert_eq!(picker.pick(|| rng.random(), &[]), Choice::Backend(Slot(2)));
    }
    assert_eq!(picker.pick(|| rng.random(), &[Slot(2)]), Choice::Nobody);
    assert_eq!(Picker::new(Balance::Bounded, None).pick(|| 0, &[Slot(4)]), Choice::Nobody);
}

#[test]
fn what_is_in_flight_survives_a_new_snapshot() {
    let mut picker = picker(Balance::Bounded, &scored(&[50.0, 50.0]));
    (0..3).for_each(|_| picker.begin(Slot(0)));
    // Slot 0 drains; its load no longer counts for the share of the others.
    let mut draining = scored(&[50.0, 50.0, 50.0]);
    draining.backends[0].category = Category::Sundown;
    picker.apply(&draining);
    assert_eq!((picker.in_flight(Slot(0)), picker.total_in_flight()), (3, 3));
    // And back again: it counts.
    picker.apply(&scored(&[50.0, 50.0, 50.0]));
    let mut rng = SmallRng::seed_from_u64(1);
    assert!((0..1000).all(|_| picker.pick(|| rng.random(), &[]) != Choice::Backend(Slot(0))));
    picker.apply(&draining);
    // Slot 0 leaves the snapshot before its last request ended here.
    draining.backends.remove(0);
    picker.apply(&draining);
    (0..3).for_each(|_| picker.end(Slot(0)));
    assert_eq!((picker.in_flight(Slot(0)), picker.total_in_flight()), (0, 0));
    // And is given to somebody else.
    picker.apply(&scored(&[90.0, 10.0]));
    let shares = closed_loop(&mut picker, 8, 20_000, 2, varying);
    assert!((shares[0] - 90.0).abs() < 2.0, "{shares:.1?}");
}

#[test]
fn the_load_of_other_cores_counts_like_our_own() {
    let mut rng = SmallRng::seed_from_u64(4);
    let mut picker = picker(Balance::Bounded, &scored(&[50.0, 50.0, 50.0]));
    let mut is_asked = |picker: &Picker, slot| {
        (0..1000).any(|_| picker.pick(|| rng.random(), &[]) == Choice::Backend(Slot(slot)))
    };
    picker.add_others(Slot(1), 3);
    picker.add_others(Slot(1), 4);
    picker.add_others(Slot(9), 4);
    assert!(is_asked(&picker, 0) && !is_asked(&picker, 1) && is_asked(&picker, 2));
    // All are alike, whoever sent it.
    picker.add_others(Slot(0), 7);
    (0..7).for_each(|_| picker.begin(Slot(2)));
    assert!((0..3).all(|slot| is_asked(&picker, slot)));
    picker.forget_others();
    assert!(is_asked(&picker, 0) && is_asked(&picker, 1) && !is_asked(&picker, 2));
    assert_eq!(picker.figures().collect::<Vec<_>>(), [(Slot(2), 7)]);
    (0..7).for_each(|_| picker.end(Slot(2)));
    assert_eq!(picker.figures().count(), 0);
}

#[test]
fn a_slot_given_to_somebody_else_begins_without_load() {
    let both = scored(&[50.0, 50.0]);
    let mut picker = picker(Balance::Bounded, &both);
    picker.add_others(Slot(0), u32::MAX);
    picker.add_others(Slot(0), u32::MAX);
    picker.begin(Slot(0));
    let mut without = both.clone();
    without.backends.remove(0);
    picker.apply(&without);
    picker.end(Slot(0));
    picker.add_others(Slot(0), 5);
    picker.apply(&both);
    let mut rng = SmallRng::seed_from_u64(4);
    assert!((0..1000).any(|_| picker.pick(|| rng.random(), &[]) == Choice::Backend(Slot(0))));
}

#[test]
fn a_limit_counts_what_this_core_sent() {
    let mut picker = Picker::new(Balance::Bounded, Some(1));
    picker.apply(&scored(&[50.0]));
    picker.add_others(Slot(0), 10);
    assert_eq!(picker.pick(|| 0, &[]), Choice::Backend(Slot(0)));
    picker.begin(Slot(0));
    assert_eq!(picker.pick(|| 0, &[]), Choice::Busy);
}

fn any_backend() -> impl Strategy<Value = (f64, Category, bool, u32)> {
    let score = prop_oneof![Just(0.0), Just(0.0001), Just(100.0), 0.0..=100.0];
    let category = prop_oneof![3 => Just(Category::Low), 1 => Just(Category::Sundown)];
    (score, category, prop::bool::weighted(0.8), 0u32..4)
}

/// Full backends are passed over whatever the draw says; when all are full there is nobody to go to, and a score of 0 is
/// not somebody.
#[test]
fn a_limit_is_kept_and_moves_work_to_who_has_room() {
    let mut rng = SmallRng::seed_from_u64(8);
    for balance in [Balance::Bounded, Balance::WeightedRandom] {
        let mut picker = Picker::new(balance, Some(4));
        picker.apply(&scored(&[90.0, 9.0, 1.0, 0.0]));
        for _ in 0..12 {
            let slot = chosen(picker.pick(|| rng.random(), &[]));
            assert!(picker.in_flight(slot) < 4 && slot != Slot(3));
            picker.begin(slot);
        }
        assert_eq!(picker.pick(|| rng.random(), &[]), Choice::Busy);
        assert_eq!(picker.pick(|| rng.random(), &[Slot(0)]), Choice::Busy);
        picker.end(Slot(2));
        assert_eq!(picker.pick(|| rng.random(), &[]), Choice::Backend(Slot(2)));
        assert_eq!(picker.pick(|| rng.random(), &[Slot(2)]), Choice::Busy);
        picker.apply(&scored(&[90.0, 9.0, 1.0, 0.0, 50.0]));
        assert!((0..100).all(|_| chosen(picker.pick(|| rng.random(), &[])).0.is_multiple_of(2)));
    }
}

proptest! {
    #[test]
    fn a_pick_is_eligible_and_new_whenever_one_is(
        set in prop::collection::vec(any_backend(), 0..12),
        excluded in prop::collection::vec(0u32..14, 0..=EXCLUDED_MAX),
        draws in prop::collection::vec(any::<u64>(), 2),
        balance in prop_oneof![Just(Balance::Bounded), Just(Balance::WeightedRandom)],
    ) {
        let backends: Vec<Backend> = set
            .iter()
            .enumerate()
            .map(|(slot, &(score, category, resolved, _))| {
                backend(slot as u32, score, category, resolved)
            })
            .collect();
        let mut picker = picker(balance, &snapshot(backends.clone()));
        for (slot, &(.., load)) in set.iter().enumerate() {
            (0..load).for_each(|_| picker.begin(Slot(slot as u32)));
        }
        let excluded: Vec<Slot> = excluded.into_iter().map(Slot).collect();
        let candidates: Vec<&Backend> = backends
            .iter()
            .filter(|b| b.is_eligible() && !excluded.contains(&b.slot))
            .collect();
        let mut draws = draws.into_iter().cycle();
        let pick = picker.pick(|| draws.next().unwrap(), &excluded);
        let found = match pick {
            Choice::Backend(slot) => candidates.iter().find(|b| b.slot == slot),
            Choice::Busy | Choice::Nobody => None,
        };
        match found {
            None => prop_assert!(pick == Choice::Nobody && candidates.is_empty()),
            Some(chosen) => prop_assert!(
                chosen.score.get() > 0.0 || candidates.iter().all(|b| b.score.get() == 0.0)
            ),
        }
    }
}
