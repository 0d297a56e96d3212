//! How fast the load goes: half of the machine is the demo's, whatever the machine.
//!
//! The governor looks at the CPU time of the whole process (load, backends, agent and proxy together) and moves the
//! rate towards [`SHARE`] of the cores allowed. It knows no wish for speed: on a busy or slow host the story takes longer.

use std::time::{Duration, Instant};

/// Steers a rate.
pub(super) struct Governor {
    cores: usize,
    rate: f64,
    looked: Instant,
    cpu: Duration,
    /// Part of the cores used lately, 0 to 1.
    used: f64,
}

impl Governor {
    pub fn new(cores: usize) -> Self {
        let cpu = process_cpu().unwrap_or_default();
        Self { cores: cores.max(1), rate: RATE_FIRST, looked: Instant::now(), cpu, used: 0.0 }
    }

    /// The rate from now on, in requests a second, when it is time to look.
    pub fn look(&mut self) -> Option<f64> {
        let since = self.looked.elapsed();
        if since < LOOK_INTERVAL {
            return None;
        }
        self.looked = Instant::now();
        // Without the figure the rate stays modest.
        let cpu = process_cpu()?;
        let spent = cpu.saturating_sub(std::mem::replace(&mut self.cpu, cpu));
        self.used = spent.as_secs_f64() / since.as_secs_f64() / self.cores as f64;
        self.rate = next_rate(self.rate, self.used);
        Some(self.rate)
    }

    pub const fn rate(&self) -> f64 {
        self.rate
    }

    /// `44 % of 2 cores`
    pub fn text(&self) -> String {
        let plural = if self.cores == 1 { "" } else { "s" };
        format!("{:.0} % of {} core{plural}", 100.0 * self.used, self.cores)
    }
}

/// The rate after one during which `used` of the cores were busy.
fn next_rate(rate: f64, used: f64) -> f64 {
    let step = (SHARE / used.max(0.01)).clamp(STEP_DOWN, STEP_UP);
    (rate * step).clamp(RATE_MIN, RATE_MAX)
}

/// CPU time of all threads so far, by the kernel's clock ticks.
fn process_cpu() -> Option<Duration> {
    cpu_in(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// User and system time in a line of `/proc/PID/stat`: fields 14 and 15, counted behind the name in parentheses.
fn cpu_in(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * MS_PER_TICK))
}

/// What the demo takes of the allowed cores; a little below the half it promises, since it steers behind the fact.
const SHARE: f64 = 0.45;
const RATE_FIRST: f64 = 2_000.0;
const RATE_MIN: f64 = 200.0;
/// Enough for the story on any machine.
const RATE_MAX: f64 = 20_000.0;
const STEP_DOWN: f64 = 0.5;
const STEP_UP: f64 = 1.5;
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// USER_HZ is 100 wherever Linux runs this.
const MS_PER_TICK: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_moves_towards_half_the_machine_and_stays_bounded() {
        let table = [
            (1000.0, 0.45, 1000.0),
            (1000.0, 0.9, 500.0),
            (1000.0, 1.0, 500.0),
            (1000.0, 0.0, 1500.0),
            (1000.0, 0.4, 1125.0),
            (RATE_MAX, 0.1, RATE_MAX),
            (RATE_MIN, 1.0, RATE_MIN),
        ];
        for (rate, used, next) in table {
            assert!((next_rate(rate, used) - next).abs() < 1e-6, "{rate} at {used}");
        }
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 150 0 0 0 120 34 0 0 20 0 1 0 100 1 1";
        assert_eq!(cpu_in(stat), Some(Duration::from_millis(1540)));
        assert_eq!(cpu_in("7 (a"), None);
        assert!(process_cpu().is_some());
    }
}
