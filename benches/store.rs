//! The store's hit rate next to `quick_cache`'s, and what a hit costs. `cargo bench --bench store`
//!
//! Zipf traces over 100,000 keys from a fixed seed, so the rates are the same on every machine; the times are not.
//! Exits with 1 when a rate is more than one point below `quick_cache`'s.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use balancer::cache::store::{
    Answer, Body, Generations, Handle, Key, L1, L1_SLOTS, Limits, Object, Put, Store, Terms, Use,
    Waiter,
};
use balancer::time::Instant;
use quick_cache::unsync::Cache;

fn main() -> ExitCode {
    println!("hit rate, {KEYS} keys, {REQUESTS} requests after {WARM_UP}");
    println!("{:>6} {:>9} {:>9} {:>12} {:>9}", "zipf", "entries", "store", "quick_cache", "points");
    let mut worst = f64::INFINITY;
    for exponent in [0.7, 0.9, 1.1] {
        let trace = Trace::new(exponent);
        for entries in [KEYS / 100, KEYS / 10] {
            let (ours, theirs) = (rate(&trace, ours(entries)), rate(&trace, theirs(entries)));
            worst = worst.min(ours - theirs);
            println!(
                "{exponent:>6} {entries:>9} {ours:>8.2}% {theirs:>11.2}% {:>+9.2}",
                ours - theirs
            );
        }
    }
    costs();
    if worst < -POINTS_BELOW_MAX {
        println!("more than {POINTS_BELOW_MAX} point below quick_cache");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Ranks of the requested keys, most wanted first.
struct Trace(Vec<u32>);

impl Trace {
    fn new(exponent: f64) -> Self {
        let mut sum = 0.0;
        let until: Vec<f64> = (1..=KEYS)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        let mut random = Random(SEED);
        let draw = |_| {
            let point = (random.next() >> 11) as f64 / (1u64 << 53) as f64 * sum;
            until.partition_point(|end| *end <= point).min(KEYS - 1) as u32
        };
        Self((0..WARM_UP + REQUESTS).map(draw).collect())
    }
}

/// Per cent of the requests that `is_hit` answers with yes.
fn rate(trace: &Trace, mut is_hit: impl FnMut(u64) -> bool) -> f64 {
    let mut hits = 0;
    for (at, rank) in trace.0.iter().enumerate() {
        hits += usize::from(is_hit(mix(u64::from(*rank))) && at >= WARM_UP);
    }
    hits as f64 * 100.0 / REQUESTS as f64
}

fn ours(entries: usize) -> impl FnMut(u64) -> bool {
    let mut store = store(entries);
    move |hash| ask(&mut store, hash)
}

fn theirs(entries: usize) -> impl FnMut(u64) -> bool {
    let mut cache = Cache::new(entries);
    move |hash| {
        let is_hit = cache.get(&hash).is_some();
        if !is_hit {
            cache.insert(hash, ());
        }
        is_hit
    }
}

fn store(entries: usize) -> Store<()> {
    let limits = Limits {
        bytes: 1 << 40,
        entries,
        lease: Duration::from_secs(30),
        pause: Duration::from_secs(5),
    };
    Store::new(limits, Arc::new(Generations::new()))
}

/// One request; a miss is fetched and stored. Whether it was a hit.
fn ask(store: &mut Store<()>, hash: u64) -> bool {
    let key = hash.to_le_bytes();
    match store.lookup(Key { hash, bytes: &key }, WAITER, NOW, |_| Use::Serve) {
        Answer::Hit { .. } => true,
        Answer::Lease { lease, .. } => {
            let put = store.open(lease, object(hash));
            assert_eq!(put, Put::Stored);
            false
        }
        Answer::Wait | Answer::Bypass { .. } => unreachable!("one request at a time"),
    }
}

fn object(hash: u64) -> Handle<()> {
    let terms = Terms { hash, generation: 0, variant: 0, head_bytes: 300, keep_until: NEVER };
    let body = Body::whole(b"body").expect("four bytes fit");
    Object::new(terms, &hash.to_le_bytes(), (), body)
}

/// Nanoseconds of a hit and of a miss with its eviction.
fn costs() {
    let wanted: Vec<u64> = (0..HOT).map(mix).collect();
    let mut store = store(HOT as usize * 2);
    let mut cache = Cache::new(HOT as usize * 2);
    let mut l1 = L1::new(L1_SLOTS, Arc::new(Generations::new()));
    for hash in &wanted {
        ask(&mut store, *hash);
        cache.insert(*hash, ());
        l1.insert(object(*hash), NEVER);
    }
    println!("\nns a call, {HOT} keys in turn, best of {ROUNDS}");
    let home = time(&wanted, |hash| ask(&mut store, hash));
    let near = time(&wanted, |hash| {
        let key = hash.to_le_bytes();
        l1.get(Key { hash, bytes: &key }, NOW, |_| true).is_some()
    });
    let peer = time(&wanted, |hash| cache.get(&hash).is_some());
    println!("{:>24} {home:>8.1}\n{:>24} {near:>8.1}", "store hit with handle", "L1 hit");
    println!("{:>24} {peer:>8.1}", "quick_cache hit");
    let cold: Vec<u64> = (HOT..HOT * 100).map(mix).collect();
    let miss = time(&cold, |hash| ask(&mut store, hash));
    println!("{:>24} {miss:>8.1}", "store miss and eviction");
}

fn time(hashes: &[u64], mut call: impl FnMut(u64) -> bool) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Clock::now();
        for hash in hashes {
            black_box(call(*hash));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / hashes.len() as f64);
    }
    best
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

const KEYS: usize = 100_000;
const WARM_UP: usize = 200_000;
const REQUESTS: usize = 2_000_000;
const SEED: u64 = 42;
/// Hot keys of the timing; they fit the L1.
const HOT: u64 = 2048;
const ROUNDS: usize = 20;
const POINTS_BELOW_MAX: f64 = 1.0;
const WAITER: Waiter = Waiter { core: 0, ticket: 0 };
const NOW: Instant = Instant::from_ns(1);
const NEVER: Instant = Instant::from_ns(u64::MAX);
