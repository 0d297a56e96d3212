//! What happened in a run: a hash over everything, and the last lines in words.

use std::collections::VecDeque;
use std::fmt::Write;

use balancer::time::Instant;

/// The hash tells whether two runs were the same; the tail is for the reader of a failure.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: u64,
    tail: VecDeque<(Instant, &'static str, u64, u64)>,
    tail_max: usize,
}

impl Default for Trace {
    fn default() -> Self {
        let tail_max = std::env::var("SIM_TRACE").ok().and_then(|n| n.parse().ok());
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            tail: VecDeque::new(),
            tail_max: tail_max.unwrap_or(TAIL_LINES),
        }
    }
}

impl Trace {
    pub fn note(&mut self, at: Instant, what: &'static str, a: u64, b: u64) {
        self.lines += 1;
        self.mix([at.as_ns(), what.len() as u64, u64::from(what.as_bytes()[0]), a, b]);
        if self.tail.len() == self.tail_max {
            self.tail.pop_front();
        }
        if self.tail_max > 0 {
            self.tail.push_back((at, what, a, b));
        }
    }

    /// A poll counts for the hash, but would drown the tail.
    pub fn count_poll(&mut self, at: Instant, task: u64) {
        self.mix([at.as_ns(), task, 0, 0, 0]);
    }

    fn mix(&mut self, words: [u64; 5]) {
        for word in words {
            self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn tail(&self) -> String {
        let mut text = format!("the last {} of {} lines:\n", self.tail.len(), self.lines);
        for (at, what, a, b) in &self.tail {
            let ms = at.as_ns() as f64 / 1e6;
            let _ = writeln!(text, "{ms:14.4} ms  {what:<14} {a:>6} {b:>6}");
        }
        text
    }
}

/// Lines shown after a failure unless `SIM_TRACE` says otherwise.
const TAIL_LINES: usize = 60;
