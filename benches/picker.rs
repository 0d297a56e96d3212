//! What a pick costs, by policy and number of backends. `cargo bench --bench picker`
//!
//! Two figures each: the pick alone, and with what a worker says of every request ([`Picker::begin`], [`Picker::end`]).
//! Two requests per backend are in flight, a thousand at most. `bounded, half slow` is a set of which every second backend
//! takes four times as long, so that half of the picks look at four others. The median of some rounds, with the quartiles;
//! the policies take turns, so that a noisy moment does not hit one alone. `draw` is what the random number costs by itself.
//! Exits with 1 when a median is above the target.

use std::collections::VecDeque;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use balancer::balance::{
    Backend, Balance, Category, Choice, Picker, Score, Slot, Snapshot, Source,
};
use balancer::time::Instant;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

fn main() -> ExitCode {
    println!(
        "ns a pick, median of {ROUNDS} rounds of {PICKS} (quartiles); target {TARGET_NS} ns\n"
    );
    println!("| policy | backends | pick | with begin and end |\n|---|--:|--:|--:|");
    let mut rng = SmallRng::seed_from_u64(1);
    let draw = Timing::of(|| rng.random::<u64>());
    println!("| draw | | {draw} | |");
    let mut dearest = 0.0;
    for n in [2, 20, 100, 1000, 10_000] {
        let mut benches: Vec<_> = KINDS.iter().map(|kind| Bench::new(kind, n)).collect();
        for _ in 0..ROUNDS {
            benches.iter_mut().for_each(Bench::play_round);
        }
        for bench in benches {
            let (alone, whole) = (bench.alone.close(), bench.whole.close());
            println!("| {} | {n} | {alone} | {whole} |", bench.name);
            dearest = f64::max(dearest, alone.middle);
        }
    }
    println!("\nThe dearest pick: {dearest:.1} ns.");
    if dearest > TARGET_NS { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

const KINDS: [(&str, Balance, bool); 5] = [
    ("bounded", Balance::Bounded, false),
    ("bounded, half slow", Balance::Bounded, true),
    ("p2c", Balance::P2c, false),
    ("latency", Balance::Latency, false),
    ("weighted-random", Balance::WeightedRandom, false),
];

/// One policy with one set.
struct Bench {
    name: &'static str,
    picker: Picker,
    rng: SmallRng,
    in_flight: VecDeque<Slot>,
    alone: Rounds,
    whole: Rounds,
}

impl Bench {
    fn new(&(name, balance, is_half_slow): &(&'static str, Balance, bool), n: usize) -> Self {
        let mut picker = Picker::new(balance, None);
        picker.apply(&snapshot(n), Instant::default());
        for slot in (0..n as u32).map(Slot) {
            let is_slow = is_half_slow && slot.0 % 2 == 1;
            for _ in 0..20 {
                picker.begin(slot);
                let took = Duration::from_millis(if is_slow { 40 } else { 10 });
                picker.answered(slot, took, Instant::from_ns(1));
                picker.end(slot);
            }
        }
        picker.tick(Instant::from_ns(100_000_000));
        let mut bench = Self {
            name,
            picker,
            rng: SmallRng::seed_from_u64(n as u64),
            in_flight: VecDeque::new(),
            alone: Rounds::default(),
            whole: Rounds::default(),
        };
        for _ in 0..(2 * n).min(1000) {
            bench.ask();
        }
        (0..PICKS).for_each(|_| bench.turn());
        bench
    }

    fn play_round(&mut self) {
        // What the others have pushed out of the caches comes back.
        (0..PICKS / 2).for_each(|_| self.turn());
        let (picker, rng) = (&self.picker, &mut self.rng);
        self.alone.time(|| picker.pick(|| rng.random(), &[]));
        let mut whole = std::mem::take(&mut self.whole);
        whole.time(|| self.turn());
        self.whole = whole;
    }

    fn ask(&mut self) {
        let rng = &mut self.rng;
        let Choice::Backend(slot) = self.picker.pick(|| rng.random(), &[]) else {
            unreachable!("nobody has a limit")
        };
        self.picker.begin(slot);
        self.in_flight.push_back(slot);
    }

    /// One request more, and one less.
    fn turn(&mut self) {
        self.ask();
        if let Some(slot) = self.in_flight.pop_front() {
            self.picker.end(slot);
        }
    }
}

/// Nanoseconds a call, of each round.
#[derive(Default)]
struct Rounds(Vec<f64>);

impl Rounds {
    fn time<T>(&mut self, mut call: impl FnMut() -> T) {
        let start = Clock::now();
        for _ in 0..PICKS {
            black_box(call());
        }
        self.0.push(start.elapsed().as_nanos() as f64 / f64::from(PICKS));
    }

    fn close(mut self) -> Timing {
        self.0.sort_by(f64::total_cmp);
        let at = |quarter: usize| self.0[(self.0.len() - 1) * quarter / 4];
        Timing { low: at(1), middle: at(2), high: at(3) }
    }
}

struct Timing {
    low: f64,
    middle: f64,
    high: f64,
}

impl Timing {
    fn of<T>(mut call: impl FnMut() -> T) -> Self {
        let mut rounds = Rounds::default();
        (0..ROUNDS).for_each(|_| rounds.time(&mut call));
        rounds.close()
    }
}

impl std::fmt::Display for Timing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} ({:.1}–{:.1})", self.middle, self.low, self.high)
    }
}

/// Scores from 10 to 100.
fn snapshot(n: usize) -> Snapshot {
    let backend = |slot: u32| {
        let name: Arc<str> = format!("app-{slot}").into();
        Backend {
            slot: Slot(slot),
            name: Arc::clone(&name),
            authority: name,
            score: Score::new(f64::from(10 + slot * 37 % 91)).expect("within 0 and 100"),
            category: Category::Low,
            addresses: Arc::from(["127.0.0.1:80".parse().expect("an address")]),
            warming_since: None,
        }
    };
    let backends = (0..n as u32).map(backend).collect();
    Snapshot { epoch: 1, source: Source::Agent, slots: n, health: Default::default(), backends }
}

const ROUNDS: usize = 41;
const PICKS: u32 = 20_000;
const TARGET_NS: f64 = 50.0;
