//! Durations, counted in fixed log-linear buckets: four to a power of two, from 1 µs to two minutes.
//!
//! A bucket is at most a quarter wide of where it begins, so a quantile read from it is off by an eighth at worst, and
//! finding it is a count of leading zeros. The owner counts in plain cells ([`Histogram`]); its tick copies them out
//! ([`Shared`]); readers merge and subtract ([`Reading`]). No bucket depends on what was measured: any two add up.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One core's durations of one kind.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Cell<u64>; BUCKETS],
    sum_us: Cell<u64>,
    is_stale: Cell<bool>,
}

impl Histogram {
    /// Empty.
    pub const fn new() -> Self {
        Self {
            buckets: [const { Cell::new(0) }; BUCKETS],
            sum_us: Cell::new(0),
            is_stale: Cell::new(false),
        }
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let us = us_of(duration);
        let bucket = &self.buckets[bucket_of(us)];
        bucket.set(bucket.get().wrapping_add(1));
        self.sum_us.set(self.sum_us.get().wrapping_add(us));
        self.is_stale.set(true);
    }

    /// Copies the totals out, if anything was counted since the last time.
    pub fn store(&self, shared: &Shared) {
        if !self.is_stale.take() {
            return;
        }
        for (out, own) in shared.buckets.iter().zip(&self.buckets) {
            out.store(own.get(), Ordering::Relaxed);
        }
        shared.sum_us.store(self.sum_us.get(), Ordering::Relaxed);
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// A [`Histogram`] as the other cores see it.
#[derive(Debug)]
pub struct Shared {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Shared {
    /// Empty.
    pub const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_us: AtomicU64::new(0) }
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new()
    }
}

/// What was counted in some span of time, of one core or of several.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// How many fell into each bucket. Fractions come of fading.
    pub buckets: [f64; BUCKETS],
    /// All durations together in µs.
    pub sum_us: f64,
}

impl Default for Reading {
    fn default() -> Self {
        Self { buckets: [0.0; BUCKETS], sum_us: 0.0 }
    }
}

impl Reading {
    /// Adds what `shared` holds.
    pub fn add(&mut self, shared: &Shared) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&shared.buckets) {
            *sum += bucket.load(Ordering::Relaxed) as f64;
        }
        self.sum_us += shared.sum_us.load(Ordering::Relaxed) as f64;
    }

    /// What came since `earlier`, a reading of the same cores.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut delta = self.clone();
        for (now, before) in delta.buckets.iter_mut().zip(&earlier.buckets) {
            *now = (*now - before).max(0.0);
        }
        delta.sum_us = (delta.sum_us - earlier.sum_us).max(0.0);
        delta
    }

    /// Lets what was counted so far count for `keep` (0 to 1) of itself, and adds `news` whole.
    pub fn fade_in(&mut self, keep: f64, news: &Self) {
        for (sum, new) in self.buckets.iter_mut().zip(&news.buckets) {
            *sum = *sum * keep + new;
        }
        self.sum_us = self.sum_us * keep + news.sum_us;
    }

    /// The same counts in coarse buckets.
    pub fn coarse(&self) -> [f64; COARSE] {
        let mut coarse = [0.0; COARSE];
        for (bucket, count) in self.buckets.iter().enumerate() {
            coarse[coarse_at(bucket)] += count;
        }
        coarse
    }

    /// How many durations.
    pub fn count(&self) -> f64 {
        self.buckets.iter().sum()
    }

    /// The duration in µs that a part `q` (0 to 1) of all stays below; `None` when there are none.
    pub fn quantile_us(&self, q: f64) -> Option<f64> {
        quantile(&self.buckets, q, lower_us)
    }

    /// How many were shorter than each of [`bounds_us`]: what Prometheus calls cumulative buckets.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        let mut below = 0.0;
        let mut at = 0;
        bounds_us().map(move |bound| {
            let end = bucket_of(bound);
            below += self.buckets[at..end].iter().sum::<f64>();
            at = end;
            (bound, below)
        })
    }
}

/// Where the exported buckets end, in µs: two to a power of two, 64 µs to 67 s.
pub fn bounds_us() -> impl Iterator<Item = u64> {
    (bucket_of(64)..=bucket_of(1 << 26)).step_by(2).map(lower_us)
}

/// The value below which a part `q` of the counts lies, by straight lines within the buckets.
pub fn quantile(buckets: &[f64], q: f64, lower: impl Fn(usize) -> u64) -> Option<f64> {
    let total: f64 = buckets.iter().sum();
    if total <= 0.0 {
        return None;
    }
    let wanted = q.clamp(0.0, 1.0) * total;
    let mut below = 0.0;
    let mut last = 0;
    for (at, &count) in buckets.iter().enumerate().filter(|&(_, &count)| count > 0.0) {
        last = at;
        if below + count >= wanted {
            break;
        }
        below += count;
    }
    let (begin, end) = (lower(last) as f64, lower(last + 1) as f64);
    let part = ((wanted - below) / buckets[last]).clamp(0.0, 1.0);
    Some(begin + part * (end - begin))
}

/// Whole microseconds.
pub fn us_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The bucket a duration of `us` belongs to.
pub const fn bucket_of(us: u64) -> usize {
    if us < 1 << SUB_BITS {
        return us as usize;
    }
    let octave = 63 - us.leading_zeros();
    let sub = us >> (octave - SUB_BITS) & ((1 << SUB_BITS) - 1);
    let bucket = (((octave - SUB_BITS + 1) as usize) << SUB_BITS) + sub as usize;
    if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
}

/// Where a bucket begins, in µs.
pub const fn lower_us(bucket: usize) -> u64 {
    if bucket < 1 << SUB_BITS {
        return bucket as u64;
    }
    let octave = (bucket >> SUB_BITS) - 1;
    ((1 << SUB_BITS) + (bucket as u64 & ((1 << SUB_BITS) - 1))) << octave
}

/// The coarse bucket a duration of `us` belongs to: two to a power of two. The first takes everything below 64 µs, the
/// last everything from 67 s on.
pub fn coarse_of(us: u64) -> usize {
    coarse_at(bucket_of(us))
}

/// Where a coarse bucket begins, in µs.
pub fn coarse_lower_us(coarse: usize) -> u64 {
    coarse.checked_sub(1).map_or(0, |above| lower_us(bucket_of(64) + 2 * above))
}

/// The coarse bucket that holds a fine one.
fn coarse_at(bucket: usize) -> usize {
    bucket.checked_sub(bucket_of(64)).map_or(0, |above| (above / 2 + 1).min(COARSE - 1))
}

/// Four buckets to a power of two.
const SUB_BITS: u32 = 2;
/// The last one takes everything from two minutes on.
pub const BUCKETS: usize = 105;
/// Coarse buckets, for where there are many histograms or few pixels.
pub const COARSE: usize = 42;
const _: () = assert!(lower_us(BUCKETS - 1) == 1 << 27);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_everything_in_order_and_are_narrow() {
        for bucket in 0..BUCKETS {
            let (begin, end) = (lower_us(bucket), lower_us(bucket + 1));
            assert!(begin < end);
            assert_eq!(bucket_of(begin), bucket);
            assert!(bucket == BUCKETS - 1 || bucket_of(end - 1) == bucket, "{bucket}");
            assert!(begin < 4 || (end - begin) * 4 <= begin, "{bucket}: {begin}..{end}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_near() {
        let histogram = Histogram::new();
        let shared = Shared::new();
        for us in 1..=10_000 {
            histogram.observe(Duration::from_micros(us));
        }
        histogram.store(&shared);
        let mut reading = Reading::default();
        assert_eq!(reading.quantile_us(0.5), None);
        reading.add(&shared);
        for (q, wanted) in [(0.01, 100.0), (0.5, 5_000.0), (0.9, 9_000.0), (0.99, 9_900.0)] {
            let found = reading.quantile_us(q).unwrap();
            assert!((found / wanted - 1.0).abs() < 0.06, "{q}: {found} for {wanted}");
        }
        assert_eq!((reading.count(), reading.sum_us), (10_000.0, 50_005_000.0));
        // Nothing new: nothing is copied, and nothing came since.
        histogram.store(&shared);
        assert_eq!(reading.since(&reading).count(), 0.0);
    }

    #[test]
    fn cumulative_buckets_end_where_they_say() {
        let histogram = Histogram::new();
        let shared = Shared::new();
        for us in [0, 63, 64, 95, 96, 1_000_000, 70_000_000, u64::MAX / 2] {
            histogram.observe(Duration::from_micros(us));
        }
        histogram.store(&shared);
        let mut reading = Reading::default();
        reading.add(&shared);
        let below: Vec<_> = reading.cumulative().collect();
        assert_eq!(below[..3], [(64, 2.0), (96, 4.0), (128, 5.0)]);
        assert_eq!(below.last(), Some(&(1 << 26, 6.0)));
        assert_eq!(below.len(), 41);
        assert_eq!(reading.count(), 8.0);
    }

    #[test]
    fn coarse_buckets_cover_everything() {
        for us in [0, 63, 64, 95, 96, 1 << 25, u64::MAX] {
            let at = coarse_of(us);
            assert!(coarse_lower_us(at) <= us);
            assert!(at == COARSE - 1 || us < coarse_lower_us(at + 1));
        }
        assert_eq!(coarse_lower_us(COARSE - 1), 1 << 26);
        let mut reading = Reading::default();
        reading.buckets.fill(1.0);
        assert_eq!(reading.coarse().iter().sum::<f64>(), BUCKETS as f64);
    }

    #[test]
    fn what_is_old_fades() {
        let (mut sum, mut news) = (Reading::default(), Reading::default());
        news.buckets[7] = 10.0;
        sum.fade_in(0.5, &news);
        sum.fade_in(0.5, &Reading::default());
        assert_eq!((sum.buckets[7], sum.count()), (5.0, 5.0));
    }
}
