//! How long to wait before the next dial: 1, 2, 4 … 60 s, each wait drawn anew within ±30 % of the nominal one, so
//! that many balancers that lost one agent do not return in step.

use std::time::Duration;

/// The waits between dials that failed.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    nominal: Duration,
}

impl Backoff {
    /// Waits from `min`, doubling up to `max` (not less than `min`).
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), nominal: min }
    }

    /// The wait before the next dial, by a uniform `draw`; the one after it is twice as long.
    pub fn next_wait(&mut self, draw: u64) -> Duration {
        let nominal = self.nominal;
        self.nominal = nominal.saturating_mul(2).min(self.max);
        let thousandths = THOUSANDTHS_MIN + ((u128::from(draw) * SPREAD_THOUSANDTHS) >> 64);
        let ns = nominal.as_nanos().saturating_mul(thousandths) / 1000;
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// The peer behaved: the next wait is the first one again.
    pub const fn reset(&mut self) {
        self.nominal = self.min;
    }
}

const THOUSANDTHS_MIN: u128 = 700;
/// 700 to 1300 inclusive.
const SPREAD_THOUSANDTHS: u128 = 601;

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: u64 = u64::MAX / 2;

    fn seconds(waits: impl Iterator<Item = Duration>) -> Vec<f64> {
        waits.map(|wait| wait.as_secs_f64()).collect()
    }

    #[test]
    fn waits_double_up_to_the_bound_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let waits = seconds((0..8).map(|_| backoff.next_wait(MIDDLE)));
        assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        backoff.reset();
        assert_eq!(backoff.next_wait(MIDDLE), Duration::from_secs(1));
    }

    #[test]
    fn each_wait_lies_within_thirty_percent() {
        let mut low = Backoff::new(Duration::from_secs(10), Duration::from_secs(10));
        let mut high = low.clone();
        assert_eq!(low.next_wait(0), Duration::from_secs(7));
        assert_eq!(high.next_wait(u64::MAX), Duration::from_secs(13));
    }

    #[test]
    fn absurd_bounds_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::ZERO);
        (0..3).for_each(|_| assert!(backoff.next_wait(u64::MAX) > Duration::from_secs(1 << 33)));
    }
}
