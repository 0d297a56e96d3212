//! The picker as a worker meets it: shares in a closed loop, movement under saturation, who is never asked.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use balancer::balance::{
    Backend, Balance, Category, Choice, EXCLUDED_MAX, Pace, Picker, Score, Slot, Snapshot, Source,
};
use balancer::time::Instant;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const POLICIES: [Balance; 4] =
    [Balance::Bounded, Balance::P2c, Balance::Latency, Balance::WeightedRandom];

fn backend(slot: u32, score: f64, category: Category, is_resolved: bool) -> Backend {
    let name: Arc<str> = format!("app-{slot}").into();
    Backend {
        slot: Slot(slot),
        name: Arc::clone(&name),
        authority: name,
        score: Score::new(score).unwrap(),
        category,
        addresses: is_resolved.then(|| "127.0.0.1:80".parse().unwrap()).into_iter().collect(),
        warming_since: None,
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
    picker.apply(snapshot, Instant::default());
    picker
}

/// `clients` that each wait for their answer before they ask again; `service(slot, rng)` is how long a request
/// takes in µs. Returns the share of each backend in percent.
fn closed_loop(
    picker: &mut Picker,
    clients: usize,
    requests: usize,
    seed: u64,
    service: impl Fn(usize, &mut SmallRng) -> u64,
) -> Vec<f64> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut pending: BinaryHeap<Reverse<(u64, u64, u32, u64)>> = BinaryHeap::new();
    let mut served = vec![0u64; picker.slots()];
    let mut now = 0;
    for number in 0..requests {
        if pending.len() == clients {
            let Reverse((ends, _, slot, began)) = pending.pop().unwrap();
            now = ends;
            let took = Duration::from_micros(now - began);
            picker.answered(Slot(slot), took, Instant::from_ns(now * 1000));
            picker.end(Slot(slot));
            picker.tick(Instant::from_ns(now * 1000));
        }
        let slot = chosen(picker.pick(|| rng.random(), &[]));
        picker.begin(slot);
        served[slot.index()] += 1;
        let ends = now + service(slot.index(), &mut rng);
        pending.push(Reverse((ends, number as u64, slot.0, now)));
    }
    assert_eq!(picker.total_in_flight(), pending.len() as u64);
    pending.drain().for_each(|Reverse((_, _, slot, _))| picker.end(Slot(slot)));
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
    picker.apply(&set, Instant::default());
    assert_eq!(asked(&picker), BTreeSet::from([1]));
    // It stays out whatever the agent says, and a request that is there may end.
    picker.apply(&scored(&[100.0, 30.0, 0.0, 7.0]), Instant::default());
    assert_eq!(asked(&picker), BTreeSet::from([1, 3]));
    picker.end(Slot(0));
    // With nobody of a positive score available those without one are asked, and in the end nobody.
    picker.set_available(Slot(1), false);
    picker.apply(&set, Instant::default());
    assert_eq!(asked(&picker), BTreeSet::from([2]));
    picker.set_available(Slot(2), false);
    picker.apply(&set, Instant::default());
    assert_eq!((asked(&picker), picker.eligible()), (BTreeSet::new(), 0));
    // Said of one not listed yet, it holds when it comes.
    picker.set_available(Slot(9), false);
    (0..3).for_each(|slot| picker.set_available(Slot(slot), true));
    picker.apply(&set, Instant::default());
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
fn who_is_beyond_its_share_is_left_for_an_idler_one_for_its_score() {
    let mut picker = picker(Balance::Bounded, &scored(&[20.0, 80.0]));
    // A bound of 14 for the first. In plain numbers the second is the busier one.
    (0..20).for_each(|_| picker.begin(Slot(0)));
    (0..40).for_each(|_| picker.begin(Slot(1)));
    assert_eq!(asked(&picker, 100), BTreeSet::from([1]));
    (0..100).for_each(|_| picker.begin(Slot(1)));
    assert_eq!(asked(&picker, 100), BTreeSet::from([0, 1]));
}

/// Every 10 ms for `ms`, one request to each backend, which takes as long as `answers` says, in ms; 0 is a failure within
/// a millisecond.
fn pass_time(picker: &mut Picker, now_ms: &mut u64, ms: u64, answers: &[u64]) {
    let end = *now_ms + ms;
    while *now_ms < end {
        *now_ms += 10;
        let now = Instant::from_ns(*now_ms * 1_000_000);
        for (slot, &took) in (0..).map(Slot).zip(answers) {
            picker.begin(slot);
            match took {
                0 => picker.failed(slot, Duration::from_millis(1), now),
                _ => picker.answered(slot, Duration::from_millis(took), now),
            }
            picker.end(slot);
        }
        picker.tick(now);
    }
}

fn asked(picker: &Picker, times: usize) -> BTreeSet<u32> {
    let mut rng = SmallRng::seed_from_u64(5);
    (0..times).map(|_| chosen(picker.pick(|| rng.random(), &[])).0).collect()
}

#[test]
fn who_is_slow_and_busy_is_left_and_who_is_slow_and_idle_is_not() {
    let everybody = BTreeSet::from([0, 1, 2, 3]);
    for slow in [40, 0] {
        let mut picker = picker(Balance::Bounded, &scored(&[50.0, 50.0, 50.0, 50.0]));
        let mut now = 1000;
        pass_time(&mut picker, &mut now, 1000, &[slow, 10, 11, 9]);
        assert_eq!(asked(&picker, 200), everybody);
        // Within its share: 1.1 · ¼ · 2 + 1.
        picker.begin(Slot(0));
        assert_eq!(asked(&picker, 200), BTreeSet::from([1, 2, 3]), "{slow} ms");
        // The others may have three times as many and are still better off.
        (1..4).for_each(|slot| picker.begin(Slot(slot)));
        assert_eq!(asked(&picker, 200), BTreeSet::from([1, 2, 3]), "{slow} ms");
        (0..12).for_each(|n| picker.begin(Slot(1 + n % 3)));
        assert_eq!(asked(&picker, 200), everybody, "{slow} ms");
        (0..12).for_each(|n| picker.end(Slot(1 + n % 3)));
        // It answers like the others again, or nobody answers at all.
        let mut silent = picker.clone();
        pass_time(&mut picker, &mut now.clone(), 3000, &[10, 10, 11, 9]);
        assert_eq!(asked(&picker, 200), everybody, "{slow} ms");
        pass_time(&mut silent, &mut now, 3000, &[]);
        assert_eq!(asked(&silent, 200), everybody, "{slow} ms");
    }
}

#[test]
fn a_few_long_answers_make_nobody_slow() {
    let mut picker = picker(Balance::Bounded, &scored(&[50.0, 50.0, 50.0, 50.0]));
    let mut now = 1000;
    pass_time(&mut picker, &mut now, 500, &[10, 10, 10, 10]);
    pass_time(&mut picker, &mut now, 60, &[30_000, 10, 10, 10]);
    pass_time(&mut picker, &mut now, 90, &[10, 10, 10, 10]);
    picker.begin(Slot(0));
    assert_eq!(asked(&picker, 200).len(), 4);
    // All of them long is another matter, and how long does not matter.
    pass_time(&mut picker, &mut now, 500, &[30_000, 10, 10, 10]);
    assert_eq!(asked(&picker, 200), BTreeSet::from([1, 2, 3]));
}

#[test]
fn what_other_cores_know_of_response_times_counts_like_our_own() {
    let set = scored(&[50.0, 50.0, 50.0]);
    let [mut ours, mut theirs] = [0, 1].map(|_| picker(Balance::Bounded, &set));
    pass_time(&mut theirs, &mut 1000, 1000, &[40, 10, 10]);
    ours.begin(Slot(0));
    assert_eq!(asked(&ours, 200).len(), 3);
    theirs.paces().for_each(|(slot, pace)| ours.hear_pace(slot, Pace::unpack(pace.pack())));
    ours.tick(Instant::from_ns(2_000_000_000));
    assert_eq!(asked(&ours, 200).len(), 3, "it is not all that there is to hear");
    ours.take_paces();
    ours.tick(Instant::from_ns(2_100_000_000));
    assert_eq!(asked(&ours, 200), BTreeSet::from([1, 2]));
    // A slot that is given to somebody else begins anew.
    let mut without = set.clone();
    without.backends.remove(0);
    for picker in [&mut ours, &mut theirs] {
        picker.apply(&without, Instant::default());
        picker.apply(&set, Instant::default());
        assert_eq!(asked(picker, 200).len(), 3);
    }
    assert_eq!(theirs.paces().count(), 2);
    // At rest nothing is known of the others.
    theirs.paces().for_each(|(slot, pace)| ours.hear_pace(slot, pace));
    ours.forget_others();
    assert_eq!(ours.paces().count(), 0);
}

#[test]
fn p2c_takes_the_less_loaded_of_two_for_its_score_and_the_first_if_they_are_alike() {
    let mut picker = picker(Balance::P2c, &scored(&[20.0, 80.0]));
    picker.begin(Slot(0));
    (0..3).for_each(|_| picker.begin(Slot(1)));
    assert_eq!(asked(&picker, 200), BTreeSet::from([1]));
    picker.begin(Slot(1));
    assert_eq!(asked(&picker, 200), BTreeSet::from([0, 1]));
    picker.begin(Slot(1));
    assert_eq!(asked(&picker, 200), BTreeSet::from([0]));
}

#[test]
fn latency_weighs_the_wait_notices_at_once_and_tries_the_starved_again() {
    let mut picker = picker(Balance::Latency, &scored(&[50.0, 50.0]));
    let mut now = 1000;
    pass_time(&mut picker, &mut now, 1000, &[10, 10]);
    assert_eq!(asked(&picker, 200).len(), 2);
    // One long answer is enough, and four requests in flight elsewhere make up for it.
    pass_time(&mut picker, &mut now, 10, &[40, 10]);
    assert_eq!(asked(&picker, 200), BTreeSet::from([1]));
    (0..4).for_each(|_| picker.begin(Slot(1)));
    assert_eq!(asked(&picker, 200), BTreeSet::from([0]));
    (0..4).for_each(|_| picker.end(Slot(1)));
    // While it gets nothing its estimate approaches what is typical.
    let mut is_asked_after = |ms| {
        for _ in 0..ms / 10 {
            now += 10;
            let at = Instant::from_ns(now * 1_000_000);
            picker.begin(Slot(1));
            picker.answered(Slot(1), Duration::from_millis(10), at);
            picker.tick(at);
            picker.end(Slot(1));
        }
        picker.begin(Slot(1));
        let is_asked = asked(&picker, 200).contains(&0);
        picker.end(Slot(1));
        is_asked
    };
    assert!(!is_asked_after(1000));
    assert!(is_asked_after(20_000));
    // A failure counts as slow, however fast it was.
    pass_time(&mut picker, &mut now, 10, &[0, 10]);
    assert_eq!(asked(&picker, 200), BTreeSet::from([1]));
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
    picker.apply(&draining, Instant::default());
    assert_eq!((picker.in_flight(Slot(0)), picker.total_in_flight()), (3, 3));
    // And back again: it counts.
    picker.apply(&scored(&[50.0, 50.0, 50.0]), Instant::default());
    let mut rng = SmallRng::seed_from_u64(1);
    assert!((0..1000).all(|_| picker.pick(|| rng.random(), &[]) != Choice::Backend(Slot(0))));
    picker.apply(&draining, Instant::default());
    // Slot 0 leaves the snapshot before its last request ended here.
    draining.backends.remove(0);
    picker.apply(&draining, Instant::default());
    (0..3).for_each(|_| picker.end(Slot(0)));
    assert_eq!((picker.in_flight(Slot(0)), picker.total_in_flight()), (0, 0));
    // And is given to somebody else.
    picker.apply(&scored(&[90.0, 10.0]), Instant::default());
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
    picker.hear_load(Slot(1), 3);
    picker.hear_load(Slot(1), 4);
    picker.hear_load(Slot(9), 4);
    assert!((0..3).all(|slot| is_asked(&picker, slot)), "it is not all that there is to hear");
    picker.take_loads();
    assert!(is_asked(&picker, 0) && !is_asked(&picker, 1) && is_asked(&picker, 2));
    // All are alike, whoever sent it.
    picker.hear_load(Slot(0), 7);
    picker.hear_load(Slot(1), 7);
    picker.take_loads();
    (0..7).for_each(|_| picker.begin(Slot(2)));
    assert!((0..3).all(|slot| is_asked(&picker, slot)));
    picker.forget_others();
    assert!(is_asked(&picker, 0) && is_asked(&picker, 1) && !is_asked(&picker, 2));
    assert_eq!(picker.loads().collect::<Vec<_>>(), [(Slot(2), 7)]);
    (0..7).for_each(|_| picker.end(Slot(2)));
    assert_eq!(picker.loads().count(), 0);
}

#[test]
fn a_slot_given_to_somebody_else_begins_without_load() {
    let both = scored(&[50.0, 50.0]);
    let mut picker = picker(Balance::Bounded, &both);
    picker.hear_load(Slot(0), u32::MAX);
    picker.hear_load(Slot(0), u32::MAX);
    picker.take_loads();
    picker.hear_load(Slot(0), 1);
    picker.begin(Slot(0));
    let mut without = both.clone();
    without.backends.remove(0);
    picker.apply(&without, Instant::default());
    picker.end(Slot(0));
    picker.hear_load(Slot(0), 5);
    picker.apply(&both, Instant::default());
    picker.take_loads();
    let mut rng = SmallRng::seed_from_u64(4);
    assert!((0..1000).any(|_| picker.pick(|| rng.random(), &[]) == Choice::Backend(Slot(0))));
}

#[test]
fn who_has_just_started_gets_its_share_by_and_by() {
    let at = |ms: u64| Instant::from_ns(ms * 1_000_000);
    let mut set = scored(&[50.0, 50.0, 0.0]);
    (set.backends[1].warming_since, set.backends[2].warming_since) =
        (Some(at(1000)), Some(at(1000)));
    for balance in POLICIES {
        let mut rng = SmallRng::seed_from_u64(6);
        let mut share = |picker: &Picker| {
            let asked = (0..10_000).map(|_| chosen(picker.pick(|| rng.random(), &[])));
            asked.filter(|slot| *slot == Slot(1)).count() as f64 / 100.0
        };
        let mut picker = Picker::new(balance, None);
        // Every core counts from the time in the snapshot, whenever it takes it over.
        picker.apply(&set, at(1100));
        for (ms, part) in [(1100, 0.109), (1590, 0.109), (1600, 0.154), (6000, 0.55), (11_000, 1.0)]
        {
            picker.tick(at(ms));
            let expected = 100.0 * part / (1.0 + part);
            assert!((share(&picker) - expected).abs() < 1.5, "{balance:?}, {ms} ms");
        }
        picker.apply(&set, at(6000));
        assert!((share(&picker) - 35.5).abs() < 1.5, "{balance:?}");
    }
}

#[test]
fn who_has_just_started_is_not_filled_up_because_it_is_idle() {
    let at = |ms: u64| Instant::from_ns(ms * 1_000_000);
    let mut set = scored(&[50.0, 50.0, 50.0]);
    let mut picker = picker(Balance::Bounded, &set);
    let mut now = 0;
    pass_time(&mut picker, &mut now, 1000, &[40, 10, 10]);
    (0..2).for_each(|slot| picker.begin(Slot(slot)));
    set.backends[2].warming_since = Some(at(1000));
    picker.apply(&set, at(1000));
    let mut rng = SmallRng::seed_from_u64(2);
    let mut share = |picker: &Picker| {
        let asked = (0..3000).map(|_| chosen(picker.pick(|| rng.random(), &[])));
        asked.filter(|slot| *slot == Slot(2)).count() / 30
    };
    // What the slow one does not get goes to the second, busy as it is: this one gets its twentieth.
    let cold = share(&picker);
    assert!((3..=7).contains(&cold), "{cold}");
    picker.apply(&set, at(11_000));
    let warm = share(&picker);
    assert!((60..=72).contains(&warm), "{warm}");
}

#[test]
fn a_limit_counts_what_this_core_sent() {
    let mut picker = Picker::new(Balance::Bounded, Some(1));
    picker.apply(&scored(&[50.0]), Instant::default());
    picker.hear_load(Slot(0), 10);
    picker.take_loads();
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
    for balance in POLICIES {
        let mut picker = Picker::new(balance, Some(4));
        picker.apply(&scored(&[90.0, 9.0, 1.0, 0.0]), Instant::default());
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
        picker.apply(&scored(&[90.0, 9.0, 1.0, 0.0, 50.0]), Instant::default());
        assert!((0..100).all(|_| chosen(picker.pick(|| rng.random(), &[])).0.is_multiple_of(2)));
    }
}

proptest! {
    #[test]
    fn a_pick_is_eligible_and_new_whenever_one_is(
        set in prop::collection::vec(any_backend(), 0..12),
        excluded in prop::collection::vec(0u32..14, 0..=EXCLUDED_MAX),
        draws in prop::collection::vec(any::<u64>(), 5),
        balance in prop::sample::select(POLICIES.to_vec()),
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
