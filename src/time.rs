//! Two clocks, never mixed: [`Instant`] for deadlines, [`WallTime`] for what HTTP prints.
//!
//! Neither reads a clock. They are handed in from the `io` floor, so that everything below can be
//! driven in virtual time.

use std::io::Write as _;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the monotonic clock, in nanoseconds since an origin of the clock's own choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The instant `ns` nanoseconds after the clock's origin.
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero when `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        let ns = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(ns))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        let ns = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(ns))
    }
}

/// A point on the wall clock, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct WallTime(u64);

impl WallTime {
    /// The wall time `ms` milliseconds after the Unix epoch.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }
}

/// The value of a `Date` field (RFC 9110 §5.6.7, IMF-fixdate), formatted at most once a second.
#[derive(Debug)]
pub struct DateText {
    second: u64,
    text: [u8; DATE_BYTES],
}

impl DateText {
    /// A cache that holds no second yet.
    pub const fn new() -> Self {
        Self { second: u64::MAX, text: [b' '; DATE_BYTES] }
    }

    /// The text for `now`, for example `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub fn at(&mut self, now: WallTime) -> &[u8; DATE_BYTES] {
        if self.second != now.as_secs() {
            self.second = now.as_secs();
            let capped = Duration::from_secs(self.second.min(LAST_PRINTABLE_SECOND));
            let date = httpdate::HttpDate::from(std::time::UNIX_EPOCH + capped);
            write!(&mut self.text[..], "{date}").expect("an IMF-fixdate has 29 bytes");
        }
        &self.text
    }
}

impl Default for DateText {
    fn default() -> Self {
        Self::new()
    }
}

/// Length of an IMF-fixdate.
pub const DATE_BYTES: usize = 29;
/// 9999-12-31T23:59:59Z: the last second that fits the four-digit year of an IMF-fixdate.
const LAST_PRINTABLE_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_is_an_imf_fixdate_and_follows_the_second() {
        let mut date = DateText::new();
        assert_eq!(date.at(WallTime::from_ms(784_111_777_999)), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date.at(WallTime::from_ms(784_111_778_000)), b"Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(date.at(WallTime::from_ms(u64::MAX)), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn instants_saturate() {
        let late = Instant::from_ns(u64::MAX);
        assert_eq!(late + Duration::from_secs(1), late);
        assert_eq!(Instant::from_ns(5).since(late), Duration::ZERO);
        assert_eq!(Instant::from_ns(5) - Duration::from_secs(1), Instant::from_ns(0));
    }
}
