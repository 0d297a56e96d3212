//! The balancing simulation in small: what the default is held to, and who must get nothing. `cargo bench --bench
//! balancing` plays all of it.

#[path = "../benches/balancing/sim/mod.rs"]
#[expect(dead_code, reason = "the bench asks for more figures")]
mod sim;

use std::collections::BTreeMap;

use balancer::balance::Balance;
use sim::{Fault, Happening, Policy, Scene, Tally, ms, run};

const DEFAULT: Policy = Policy::Ours(Balance::Bounded);

#[test]
fn the_default_is_the_first_of_the_policies() {
    assert_eq!(Policy::Ours(Balance::default()), DEFAULT);
    assert_eq!(Policy::ALL[0], DEFAULT);
}

#[test]
fn the_tail_is_far_below_that_of_blind_draws_and_near_the_best_at_load_70() {
    hold_the_tail(0.7);
}

#[test]
fn the_tail_is_far_below_that_of_blind_draws_and_near_the_best_at_load_90() {
    hold_the_tail(0.9);
}

fn hold_the_tail(load: f64) {
    let mut p99_ms = BTreeMap::new();
    for cores in [1, 64] {
        let scene = Scene::mixed(20, load, cores, ms(18_000));
        for policy in Policy::ALL {
            let p99 = run(&scene, policy, 1).percentile_ms(99.0);
            p99_ms.insert((cores, policy.name()), p99);
        }
        let of = |policy: Policy| p99_ms[&(cores, policy.name())];
        let best = Policy::ALL.map(of).into_iter().fold(f64::INFINITY, f64::min);
        assert!(of(Policy::Ours(Balance::WeightedRandom)) >= 8.0 * of(DEFAULT), "{p99_ms:.0?}");
        assert!(of(DEFAULT) <= 1.5 * best, "{p99_ms:.0?}");
    }
    let of = |cores| p99_ms[&(cores, DEFAULT.name())];
    assert!(of(64) <= 1.3 * of(1), "{p99_ms:.0?}");
}

#[test]
fn shares_follow_the_scores_at_any_concurrency_and_number_of_cores() {
    for scores in [&[90.0, 10.0][..], &[90.0, 60.0, 30.0, 10.0]] {
        let sum: f64 = scores.iter().sum();
        for cores in [1, 8] {
            for clients in [1, 2, 3, 4, 8, 32, 256] {
                let scene = Scene::unsaturated(scores, clients, cores, 10_000);
                let shares = run(&scene, DEFAULT, 1).shares(1);
                for (share, score) in shares.iter().zip(scores) {
                    let off = (share - score * 100.0 / sum).abs();
                    assert!(off <= 2.0, "{cores} cores, {clients} clients: {shares:.1?}");
                }
            }
        }
    }
}

/// Eight seconds, of which the first four are for the scores to settle.
fn short(script: &[(u64, Happening)]) -> Scene {
    let mut scene = Scene::mixed(20, 0.7, 8, ms(12_000));
    scene.script = script.iter().map(|&(at, happening)| (ms(at), happening)).collect();
    scene
}

#[track_caller]
fn played(script: &[(u64, Happening)]) -> Tally {
    let tally = run(&short(script), DEFAULT, 1);
    assert_eq!(
        tally.strays, 0,
        "somebody got requests who stood in the snapshot as draining or out"
    );
    tally
}

#[test]
fn who_drains_gets_nothing_from_the_next_frame_on() {
    let tally = played(&[(5000, Happening::Sundown(0, true))]);
    // Frames come at every second second, and a millisecond later they are everywhere.
    let frame_ns = 6_000_000_000;
    assert!(tally.last_sent[0] < frame_ns + 2_000_000, "{}", tally.last_sent[0]);
    assert!(tally.sent_to(0, 4..6) > 0 && tally.failures == 0);
}

#[test]
fn who_fails_fast_is_left_although_its_score_says_that_it_is_idle() {
    let with = |fault| played(&[(5000, Happening::Fails(0, Some(fault)))]);
    let fair = played(&[]).sent_to(0, 6..12);
    for (fault, most) in [(Fault::Refuses, 0), (Fault::Resets, 20)] {
        let tally = with(fault);
        let sent = tally.sent_to(0, 6..12);
        assert!(sent <= most && fair > 500, "{fault:?}: {sent} of {fair}");
        assert_eq!(tally.failures, 0, "{fault:?}: they were sent to somebody else");
    }
}

#[test]
fn who_is_back_gets_requests_again() {
    for fault in [Fault::Refuses, Fault::Resets] {
        let script = [(5000, Happening::Fails(0, Some(fault))), (5500, Happening::Fails(0, None))];
        let tally = played(&script);
        assert!(tally.sent_to(0, 7..12) > 200, "{fault:?}: {}", tally.sent_to(0, 7..12));
    }
}

#[test]
fn who_is_stuck_holds_little_and_who_is_cold_gets_little() {
    let stuck = played(&[(5000, Happening::Stuck(0, true)), (7000, Happening::Stuck(0, false))]);
    let fair = played(&[]).sent_to(0, 6..7);
    assert!(stuck.sent_to(0, 6..7) * 10 < fair, "{} of {fair}", stuck.sent_to(0, 6..7));
    let mut scene = short(&[(5000, Happening::Joins(20))]);
    (scene.speeds, scene.later) = ([scene.speeds, vec![1.0]].concat(), 1);
    let cold = run(&scene, DEFAULT, 1);
    let (first, later) = (cold.sent_to(20, 6..7), cold.sent_to(20, 11..12));
    assert!(first > 0 && first * 3 < later, "{first}, then {later} a second");
}

#[test]
fn a_run_is_the_same_for_the_same_seed() {
    let figures = |seed| {
        let mut tally = run(&short(&[]), DEFAULT, seed);
        (tally.answers(), [50.0, 99.0, 99.9].map(|percent| tally.percentile_ms(percent)))
    };
    assert_eq!(figures(1), figures(1));
    assert_ne!(figures(1), figures(2));
}
