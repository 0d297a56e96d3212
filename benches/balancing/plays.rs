//! Pieces apart from the grid: shares without saturation, things that go wrong, and sets of one to three.

use crate::grid::{
    CORES, Extent, Figures, figures, figures_of, print_head, print_row, side_by_side,
};
use crate::sim::{Fault, Happening, Policy, Scene, ms, run};

/// How far a policy's shares are from the scores at most, in points.
#[derive(Clone, Copy)]
pub struct Deviation {
    pub policy: Policy,
    pub points: f64,
}

/// Prints how far shares are from the scores while nobody is saturated, at every concurrency.
pub fn print_deviations(extent: &Extent) -> Vec<Deviation> {
    let mut jobs = Vec::new();
    for policy in Policy::ALL {
        for cores in CORES {
            for clients in CLIENTS {
                jobs.extend(SCORES.map(|scores| (policy, cores, clients, scores)));
            }
        }
    }
    let points = side_by_side(&jobs, |&(policy, cores, clients, scores)| {
        deviation(scores, policy, clients, cores, extent.requests)
    });
    let mut worst = Vec::new();
    println!(
        "\n### Largest deviation of shares from scores, in points, closed loop, unsaturated\n"
    );
    let heads: String = CLIENTS.iter().map(|clients| format!(" {clients} |")).collect();
    println!("Clients from {} to {}; scores 90/10 and 90/60/30/10, the worse.\n", CLIENTS[0], 256);
    println!("| policy, cores |{heads}\n|---|{}", "--:|".repeat(CLIENTS.len()));
    for (cells, at) in points.chunks(CLIENTS.len() * SCORES.len()).zip(0..) {
        let (policy, cores) = (Policy::ALL[at / CORES.len()], CORES[at % CORES.len()]);
        let each = cells.chunks(SCORES.len()).map(|both| both[0].max(both[1]));
        let row: String = each.map(|points| format!(" {points:.1} |")).collect();
        println!("| {}, {cores} |{row}", policy.name());
        let points = cells.iter().copied().fold(0.0, f64::max);
        worst.push(Deviation { policy, points });
    }
    worst
}

/// In points: the backend whose share is farthest from what its score says.
fn deviation(scores: &[f64], policy: Policy, clients: usize, cores: usize, requests: usize) -> f64 {
    let shares = run(&Scene::unsaturated(scores, clients, cores, requests), policy, 1).shares(1);
    let sum: f64 = scores.iter().sum();
    let off = shares.iter().zip(scores).map(|(share, score)| (share - score * 100.0 / sum).abs());
    off.fold(0.0, f64::max)
}

/// Prints what one slow backend of four gets of its quarter, although all scores are alike and nobody is saturated.
pub fn print_slow_one(extent: &Extent) {
    let jobs: Vec<_> =
        Policy::ALL.iter().flat_map(|&policy| SLOWNESS.map(|times| (policy, times))).collect();
    let shares = side_by_side(&jobs, |&(policy, times)| {
        let mut scene = Scene::unsaturated(&[50.0; 4], 64, 8, extent.requests);
        scene.speeds[0] = 1.0 / times;
        run(&scene, policy, 1).shares(1)[0]
    });
    println!("\n### Share of one of four with equal scores, in percent, 64 clients, 8 cores\n");
    let heads: String =
        SLOWNESS.iter().map(|times| format!(" it takes {times}× as long |")).collect();
    println!("| policy |{heads}\n|---|{}", "--:|".repeat(SLOWNESS.len()));
    for (policy, shares) in Policy::ALL.iter().zip(shares.chunks(SLOWNESS.len())) {
        let row: String = shares.iter().map(|share| format!(" {share:.1} |")).collect();
        println!("| {} |{row}", policy.name());
    }
}

/// Prints what becomes of each policy when something happens.
pub fn print_scenarios(extent: &Extent) {
    let scenarios = scenarios();
    let mut jobs = Vec::new();
    for (at, _) in scenarios.iter().enumerate() {
        jobs.extend(Policy::ALL.map(|policy| (at, policy)));
    }
    let played = side_by_side(&jobs, |&(at, policy)| play(&scenarios[at], policy, extent.seeds));
    println!("\n### When something happens: 20 backends, 8 cores, load 0.7\n");
    for (scenario, rows) in scenarios.iter().zip(played.chunks(Policy::ALL.len())) {
        println!("{}: {}\n", scenario.name, scenario.what);
        print_head("policy");
        for (policy, (figures, notes)) in Policy::ALL.iter().zip(rows) {
            print_row(policy.name(), figures);
            if let (Some((of_what, _)), Policy::Ours(_)) = (scenario.watched, policy) {
                let notes = notes.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
                println!("|   {of_what}, second by second: {notes} | | | | | |");
            }
        }
        println!();
    }
}

/// Something that happens to 20 backends.
struct Scenario {
    name: &'static str,
    what: &'static str,
    scene: Scene,
    /// Of whom the requests are counted by second from [`HAPPENS_S`] on.
    watched: Option<(&'static str, usize)>,
}

fn play(scenario: &Scenario, policy: Policy, seeds: &[u64]) -> (Figures, Vec<u64>) {
    let runs: Vec<_> = seeds.iter().map(|&seed| run(&scenario.scene, policy, seed)).collect();
    let watched = scenario.watched.map(|(_, backend)| {
        let seconds = HAPPENS_S..HAPPENS_S + 12;
        seconds.map(|second| runs[0].sent_to(backend, second..second + 1)).collect()
    });
    for (_, happening) in &scenario.scene.script {
        if let Happening::Sundown(backend, true) = *happening {
            let drained = HAPPENS_S + 2..HAPPENS_S + 10;
            let sent: u64 = runs.iter().map(|run| run.sent_to(backend, drained.clone())).sum();
            assert_eq!(sent, 0, "backend {backend} is draining");
        }
    }
    (figures_of(runs.into_iter()), watched.unwrap_or_default())
}

fn scenarios() -> Vec<Scenario> {
    let scene = |later: usize, script: &[(u64, Happening)]| {
        let mut scene = Scene::mixed(20 + later, 0.7, 8, ms(LENGTH_MS));
        scene.later = later;
        scene.script = script.iter().map(|&(at, happening)| (ms(at), happening)).collect();
        scene
    };
    let begin = HAPPENS_S as u64 * 1000;
    let scenario = |name, what, watched, scene| Scenario { name, what, scene, watched };
    let sundown = |is_down, at| [1, 2, 3, 4, 5].map(|n| (at, Happening::Sundown(n, is_down)));
    vec![
        scenario(
            "Agent lost",
            "nothing is heard of the agent from second 10 on.",
            None,
            scene(0, &[(begin, Happening::AgentLost(true))]),
        ),
        scenario(
            "Score jump",
            "for ten seconds the agent scores five backends 100 and the other fifteen 5.",
            None,
            scene(
                0,
                &[
                    (begin, Happening::AgentErrs(true)),
                    (begin + 10_000, Happening::AgentErrs(false)),
                ],
            ),
        ),
        scenario(
            "Stuck",
            "a fast backend does nothing for two seconds.",
            Some(("to the stuck one", 0)),
            scene(
                0,
                &[(begin, Happening::Stuck(0, true)), (begin + 2000, Happening::Stuck(0, false))],
            ),
        ),
        scenario(
            "Refuses",
            "a fast backend refuses connections for five seconds.",
            Some(("to the one that refuses", 0)),
            scene(
                0,
                &[
                    (begin, Happening::Fails(0, Some(Fault::Refuses))),
                    (begin + 5000, Happening::Fails(0, None)),
                ],
            ),
        ),
        scenario(
            "Fails fast",
            "a fast backend resets every request within 1 ms for five seconds.",
            Some(("to the one that fails", 0)),
            scene(
                0,
                &[
                    (begin, Happening::Fails(0, Some(Fault::Resets))),
                    (begin + 5000, Happening::Fails(0, None)),
                ],
            ),
        ),
        scenario(
            "INIT",
            "two cold backends join; they have a fifth of their speed at first and all of it after 10 s.",
            Some(("to the first newcomer", 20)),
            scene(2, &[(begin, Happening::Joins(20)), (begin, Happening::Joins(21))]),
        ),
        scenario(
            "SUNDOWN",
            "a quarter of the set drains for ten seconds.",
            Some(("to one that drains", 1)),
            scene(0, &[sundown(true, begin), sundown(false, begin + 10_000)].concat()),
        ),
    ]
}

/// Prints sets of one to three.
pub fn print_small_sets(extent: &Extent) {
    println!("\n### Few backends: load 0.7, 8 cores, no antagonist\n");
    print_head("backends, policy");
    let sets: Vec<_> = (1..=3).flat_map(|n| Policy::ALL.map(|policy| (n, policy))).collect();
    let played = side_by_side(&sets, |&(n, policy)| {
        let mut scene = Scene::mixed(n, 0.7, 8, ms(3 * LENGTH_MS));
        scene.has_antagonist = false;
        figures(&scene, policy, extent.seeds)
    });
    for ((n, policy), figures) in sets.iter().zip(&played) {
        print_row(&format!("{n}, {}", policy.name()), figures);
    }
}

const SCORES: [&[f64]; 2] = [&[90.0, 10.0], &[90.0, 60.0, 30.0, 10.0]];
const SLOWNESS: [f64; 4] = [1.0, 1.5, 2.5, 4.0];
const CLIENTS: [usize; 10] = [1, 2, 3, 4, 8, 16, 32, 64, 128, 256];
/// When it happens: in the second of a frame, and after the scores have settled.
const HAPPENS_S: usize = 10;
const LENGTH_MS: u64 = 34_000;
