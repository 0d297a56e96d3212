//! How fast a backend answers, as far as a pick wants to know: next to the others, not in milliseconds.
//!
//! A [`Pace`] is a mean of log₂ of response times that fades within seconds. The logarithm makes it a matter of ratios:
//! when every request to a backend takes twice as long it rises by one, while one long poll among a hundred ordinary
//! requests hardly moves it. It is kept as two sums, so that what several cores know of a backend adds up to what all of
//! them know.

use std::time::Duration;

/// Response times of one backend, as one core or several saw them lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Of log₂ of the nanoseconds.
    sum: f32,
    /// How many there were, faded ones counting for less.
    weight: f32,
}

impl Pace {
    /// In 32 bits, for other cores to read: a resolution of 0.1 %, weights up to 4,095.
    pub fn pack(self) -> u32 {
        let mean = if self.weight > 0.0 { self.sum / self.weight } else { 0.0 };
        let (mean, weight) = ((mean * MEAN_UNIT).round(), (self.weight * WEIGHT_UNIT).round());
        u32::from(mean as u16) << 16 | u32::from(weight as u16)
    }

    /// From what [`pack`](Self::pack) made.
    pub fn unpack(bits: u32) -> Self {
        let weight = (bits & 0xffff) as f32 / WEIGHT_UNIT;
        Self { sum: (bits >> 16) as f32 / MEAN_UNIT * weight, weight }
    }

    pub(super) fn note(&mut self, log: f32) {
        self.sum += log;
        self.weight += 1.0;
    }

    pub(super) fn add(&mut self, other: Self) {
        self.sum += other.sum;
        self.weight += other.weight;
    }

    /// Leaves the fraction `keep` of the weight.
    pub(super) fn fade(&mut self, keep: f32) {
        self.sum *= keep;
        self.weight *= keep;
    }

    /// Whether it is worth telling.
    pub(super) fn is_known(self) -> bool {
        self.weight >= WEIGHT_MIN
    }

    /// log₂ of the nanoseconds, on average, if there is enough to tell.
    pub fn mean(self) -> Option<f32> {
        (self.weight >= MEAN_WEIGHT_MIN).then(|| self.sum / self.weight)
    }

    /// The mean with [`PRIOR`] typical answers added, so that few answers do not say much.
    pub(super) fn cautious_mean(self, typical: f32) -> f32 {
        (self.sum + PRIOR * typical) / (self.weight + PRIOR)
    }
}

/// log₂ of the nanoseconds.
pub(super) fn log_of(took: Duration) -> f32 {
    (took.as_nanos().max(1) as f32).log2()
}

/// The lower median, `None` of nothing. Reorders `values`.
pub(super) fn lower_median(values: &mut [f32]) -> Option<f32> {
    let middle = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable_by(middle, f32::total_cmp).1)
}

/// What is left of a weight after `time`, `constant` being the time after which a 1/e is.
pub(super) fn keep_over(time: Duration, constant: Duration) -> f32 {
    (-time.as_secs_f32() / constant.as_secs_f32()).exp()
}

const MEAN_UNIT: f32 = 1024.0;
const WEIGHT_UNIT: f32 = 16.0;
/// Below this weight nobody is told.
const WEIGHT_MIN: f32 = 0.25;
/// Below this weight a backend has no part in what is typical.
const MEAN_WEIGHT_MIN: f32 = 0.5;
/// With 4 the noise of a few answers shows in the shares, with 16 a saturated backend is noticed a good deal later.
const PRIOR: f32 = 8.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(ms: &[u64]) -> Pace {
        let mut pace = Pace::default();
        ms.iter().for_each(|&ms| pace.note(log_of(Duration::from_millis(ms))));
        pace
    }

    fn ms(log: f32) -> f32 {
        log.exp2() / 1e6
    }

    #[test]
    fn ratios_count_and_outliers_hardly() {
        assert!((ms(pace(&[10, 40]).mean().unwrap()) - 20.0).abs() < 0.1);
        let mut many = [10; 100];
        many[50] = 10_000;
        assert!(ms(pace(&many).mean().unwrap()) < 11.0);
        assert_eq!(log_of(Duration::ZERO), 0.0);
    }

    #[test]
    fn what_cores_know_adds_up() {
        let mut sum = pace(&[5, 10]);
        sum.add(pace(&[20, 40, 80]));
        let all = pace(&[5, 10, 20, 40, 80]);
        assert!((sum.mean().unwrap() - all.mean().unwrap()).abs() < 1e-4);
        sum.fade(0.5);
        assert!((sum.mean().unwrap() - all.mean().unwrap()).abs() < 1e-4);
        assert!(!Pace::default().is_known() && Pace::default().mean().is_none());
        (0..4).for_each(|_| sum.fade(0.5));
        assert!(!sum.is_known(), "{sum:?}");
    }

    #[test]
    fn a_packed_pace_is_nearly_the_same() {
        for values in [&[1u64][..], &[20, 30], &[1, 1, 1, 100_000_000]] {
            let (pace, packed) = (pace(values), Pace::unpack(pace(values).pack()));
            assert!((pace.mean().unwrap() - packed.mean().unwrap()).abs() < 1e-3);
            assert_eq!(pace.weight, packed.weight);
        }
        assert_eq!(Pace::unpack(Pace::default().pack()), Pace::default());
        let busy = Pace { sum: 25.0 * 1e6, weight: 1e6 };
        assert_eq!(Pace::unpack(busy.pack()).mean(), Some(25.0));
    }

    #[test]
    fn the_median_is_the_lower_one() {
        assert_eq!(lower_median(&mut []), None);
        assert_eq!(lower_median(&mut [3.0]), Some(3.0));
        assert_eq!(lower_median(&mut [9.0, 1.0]), Some(1.0));
        assert_eq!(lower_median(&mut [9.0, 1.0, 4.0, 5.0]), Some(4.0));
    }
}
