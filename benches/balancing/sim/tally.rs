//! What came of a run.

/// Figures of one run, or of several together.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// From a request's arrival to its answer.
    latencies_us: Vec<u32>,
    /// 99th percentiles of the runs that were merged.
    p99s_ms: Vec<f64>,
    pub failures: u64,
    /// Requests sent, by second and backend.
    sent: Vec<Vec<u32>>,
    /// When each backend was sent something last, in ns.
    pub last_sent: Vec<u64>,
    /// Requests sent to somebody who stood in the core's snapshot as draining or out.
    pub strays: u64,
    /// The largest part of the requests of a second that one backend got, in percent.
    pub largest_share: f64,
}

impl Tally {
    pub fn new(backends: usize) -> Self {
        Self { last_sent: vec![0; backends], ..Self::default() }
    }

    pub fn note_sent(&mut self, backend: usize, now: u64) {
        let second = (now / 1_000_000_000) as usize;
        if self.sent.len() <= second {
            self.sent.resize(second + 1, vec![0; self.last_sent.len()]);
        }
        self.sent[second][backend] += 1;
        self.last_sent[backend] = now;
    }

    pub fn note_answered(&mut self, took_ns: u64) {
        self.latencies_us.push((took_ns / 1000) as u32);
    }

    /// Requests answered.
    pub fn answers(&self) -> usize {
        self.latencies_us.len()
    }

    /// Requests sent to `backend` in these seconds.
    pub fn sent_to(&self, backend: usize, seconds: std::ops::Range<usize>) -> u64 {
        self.sent[seconds].iter().map(|second| u64::from(second[backend])).sum()
    }

    /// The part of all requests that each backend got from second `from` on, in percent.
    pub fn shares(&self, from: usize) -> Vec<f64> {
        let n = self.last_sent.len();
        let each: Vec<u64> = (0..n).map(|at| self.sent_to(at, from..self.sent.len())).collect();
        let all: u64 = each.iter().sum();
        each.iter().map(|&n| n as f64 * 100.0 / all as f64).collect()
    }

    /// Nothing more comes; what stands between these seconds counts for the largest share.
    pub fn close(&mut self, seconds: std::ops::Range<usize>) {
        let share = |second: &Vec<u32>| {
            let most = second.iter().max().copied().unwrap_or(0);
            f64::from(most) * 100.0 / f64::from(second.iter().sum::<u32>().max(1))
        };
        let seconds = self.sent.iter().take(seconds.end).skip(seconds.start);
        self.largest_share = seconds.map(share).fold(0.0, f64::max);
        self.p99s_ms = vec![self.percentile_ms(99.0)];
    }

    /// Adds the figures of another run.
    pub fn merge(&mut self, other: Self) {
        self.latencies_us.extend(other.latencies_us);
        self.p99s_ms.extend(other.p99s_ms);
        self.failures += other.failures;
        self.strays += other.strays;
        self.largest_share = self.largest_share.max(other.largest_share);
    }

    /// In ms, 0 of nothing. Reorders.
    pub fn percentile_ms(&mut self, percent: f64) -> f64 {
        let n = self.latencies_us.len();
        let at = ((n as f64 * percent / 100.0).ceil() as usize).saturating_sub(1);
        if at >= n {
            return 0.0;
        }
        f64::from(*self.latencies_us.select_nth_unstable(at).1) / 1000.0
    }

    /// The smallest and the largest 99th percentile among the runs.
    pub fn p99_range_ms(&self) -> (f64, f64) {
        let fold = |from, pick: fn(f64, f64) -> f64| self.p99s_ms.iter().copied().fold(from, pick);
        (fold(f64::INFINITY, f64::min), fold(0.0, f64::max))
    }
}
