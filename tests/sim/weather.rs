//! What a seed decides: the order of things, and how rough the network is.
//!
//! Every random choice of a run comes out of one [`Rng`], so a seed is a run. The generator is SplitMix64
//! (Steele, Lea, Flood 2014): a crate's may change its stream with a release, and with it every recorded seed.

use std::time::Duration;

/// The only source of chance in a run.
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        let mut rng = Self(seed ^ 0x5bd1_e995_97f4_a7c5);
        rng.next();
        rng
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..n`; 0 when `n` is 0. The bias of the plain remainder does not matter here.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A duration in `0..=max`.
    pub fn up_to(&mut self, max: Duration) -> Duration {
        Duration::from_nanos(self.below(max.as_nanos() as u64 + 1))
    }
}

/// How rough one run is. Drawn once per seed; a scenario may then insist on single values.
#[derive(Clone, Debug)]
pub struct Weather {
    /// One way across the network, lower and upper bound.
    pub latency: (Duration, Duration),
    /// How often a send travels in several pieces, and a read sees only the first bytes of what is there.
    pub tear_percent: u64,
    /// How often a send takes fewer bytes than there is room for.
    pub short_write_percent: u64,
    /// How often a wait is woken for nothing.
    pub spurious_percent: u64,
    /// Bytes that one direction of a connection holds, lower and upper bound.
    pub buffer_bytes: (u64, u64),
    /// How late a deadline may fire. It never fires early.
    pub lateness_max: Duration,
    /// What one poll of one task may cost on the clock.
    pub poll_cost_max: Duration,
    /// How often a spawned task is polled before `spawn` returns (glommio: always).
    pub poll_at_spawn_percent: u64,
    /// How often the driver looks at its epoll although its core still has tasks to run.
    pub early_turn_percent: u64,
    /// Whether a clear bit settles the matter (`WouldBlock`, quiet) or the kernel is asked all the same.
    pub bits_decide: bool,
    /// Whether an accepted stream begins with both bits set, in hope, or waits for its first event.
    pub starts_ready: bool,
    /// How often an accept fails with EMFILE; the connection stays in the backlog.
    pub accept_error_percent: u64,
}

impl Weather {
    /// Nothing happens that need not happen: whole reads, whole writes, no latency to speak of.
    pub fn calm() -> Self {
        Self {
            latency: (Duration::from_micros(50), Duration::from_micros(50)),
            tear_percent: 0,
            short_write_percent: 0,
            spurious_percent: 0,
            buffer_bytes: (64 * 1024, 64 * 1024),
            lateness_max: Duration::ZERO,
            poll_cost_max: Duration::ZERO,
            poll_at_spawn_percent: 100,
            early_turn_percent: 0,
            bits_decide: true,
            starts_ready: false,
            accept_error_percent: 0,
        }
    }

    /// One seed in six is calm; the others mix what can go slowly, in pieces or in another order. Nothing in here
    /// breaks a connection: faults are the scenario's to order.
    pub fn draw(rng: &mut Rng) -> Self {
        if rng.chance(16) {
            return Self::calm();
        }
        let latency_max = Duration::from_micros([20, 200, 2_000, 20_000][rng.below(4) as usize]);
        let buffer_max = [700, 4 * 1024, 32 * 1024, 128 * 1024][rng.below(4) as usize];
        Self {
            latency: (Duration::from_micros(10), latency_max),
            tear_percent: [0, 20, 60, 95][rng.below(4) as usize],
            short_write_percent: [0, 10, 50][rng.below(3) as usize],
            spurious_percent: [0, 5, 30][rng.below(3) as usize],
            buffer_bytes: (buffer_max / 4, buffer_max),
            lateness_max: Duration::from_millis([0, 1, 10][rng.below(3) as usize]),
            poll_cost_max: Duration::from_micros([0, 5, 50][rng.below(3) as usize]),
            poll_at_spawn_percent: [0, 50, 100][rng.below(3) as usize],
            early_turn_percent: [0, 10, 50][rng.below(3) as usize],
            bits_decide: rng.chance(50),
            starts_ready: rng.chance(50),
            accept_error_percent: [0, 0, 10][rng.below(3) as usize],
        }
    }
}
