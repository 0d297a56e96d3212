//! What was shown and whether it held: the summary and the exit code. Pure.
//!
//! A check that failed once stays failed, however often the story is told. A story that nobody interrupted must have
//! made every check: one that is missing counts as failed.

/// What the story shows, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Check {
    /// Shares follow the weights.
    Shares,
    /// A draining backend finishes and gets nothing new.
    Sundown,
    /// Traffic does not need the agent.
    AgentAway,
    /// The agent is heard again.
    AgentBack,
    /// A dead backend costs no answer.
    Death,
    /// What may be stored is answered from the store.
    Cache,
    /// Stopping loses nothing.
    Stop,
}

impl Check {
    const ALL: [Self; CHECKS] = [
        Self::Shares,
        Self::Sundown,
        Self::AgentAway,
        Self::AgentBack,
        Self::Death,
        Self::Cache,
        Self::Stop,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Shares => "shares",
            Self::Sundown => "SUNDOWN",
            Self::AgentAway => "agent away",
            Self::AgentBack => "agent back",
            Self::Death => "backend dies",
            Self::Cache => "cache",
            Self::Stop => "stop",
        }
    }
}

/// The outcome of each check so far.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    rows: [Option<Row>; CHECKS],
    /// The largest distance of a share from its weight, in points.
    points_off: f64,
    /// The least number of requests that was measured over.
    measured: Option<u64>,
    /// Why the story could not go on.
    halt: Option<String>,
    is_interrupted: bool,
    /// Good and bad ones together; of the bad ones the first few in words.
    requests: u64,
    failed: u64,
    reasons: Vec<String>,
}

#[derive(Debug)]
struct Row {
    is_ok: bool,
    text: String,
}

impl Verdict {
    /// `text` says what was seen, whichever way it went.
    pub fn record(&mut self, check: Check, is_ok: bool, text: String) {
        let row = &mut self.rows[check as usize];
        if row.as_ref().is_none_or(|row| row.is_ok) {
            *row = Some(Row { is_ok, text });
        }
    }

    /// Shares measured over `requests` were `points` off; `allowed` are fine.
    pub fn record_shares(&mut self, points: f64, allowed: f64, requests: u64) {
        self.points_off = self.points_off.max(points);
        let measured = self.measured.map_or(requests, |least| least.min(requests));
        self.measured = Some(measured);
        let text = format!(
            "{:.1} points off the weights at most ({allowed:.1} allowed), over {} requests or more",
            self.points_off,
            thousands(measured)
        );
        self.record(Check::Shares, points <= allowed, text);
    }

    /// The story could not go on.
    pub fn halted(&mut self, why: String) {
        self.halt = Some(why);
    }

    /// Somebody wanted no more of it.
    pub const fn interrupted(&mut self) {
        self.is_interrupted = true;
    }

    /// The load's final figures.
    pub fn counted(&mut self, answered: u64, failed: u64, reasons: Vec<String>) {
        self.requests = answered + failed;
        self.failed = failed;
        self.reasons = reasons;
    }

    /// Whether everything that was to be shown held.
    pub fn holds(&self) -> bool {
        let rows_hold = self.rows.iter().all(|row| match row {
            Some(row) => row.is_ok,
            None => self.is_interrupted,
        });
        rows_hold && self.halt.is_none() && self.requests_hold()
    }

    /// The summary; its last line says it all.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![line(
            self.requests_hold(),
            "requests",
            &format!("{} of {} failed", thousands(self.failed), thousands(self.requests)),
        )];
        lines.extend(self.reasons.iter().map(|reason| format!("          {reason}")));
        for check in Check::ALL {
            lines.push(match &self.rows[check as usize] {
                Some(row) => line(row.is_ok, check.label(), &row.text),
                None if self.is_interrupted => {
                    format!("  -       {:<13} not reached", check.label())
                }
                None => line(false, check.label(), "not shown"),
            });
        }
        lines.extend(self.halt.iter().map(|why| line(false, "the story", why)));
        if self.is_interrupted {
            lines.push("  -       the story     was interrupted".to_owned());
        }
        let total = thousands(self.requests);
        let shares = match self.rows[Check::Shares as usize] {
            Some(_) => format!("shares within {:.1} points of the weights", self.points_off),
            None => "shares not measured".to_owned(),
        };
        let end = if self.holds() { "" } else { "; FAILED" };
        lines.push(format!("{} of {total} requests failed; {shares}{end}", thousands(self.failed)));
        lines
    }

    const fn requests_hold(&self) -> bool {
        self.failed == 0 && (self.requests > 0 || self.is_interrupted)
    }
}

fn line(is_ok: bool, label: &str, text: &str) -> String {
    let word = if is_ok { "ok" } else { "FAILED" };
    format!("  {word:<7} {label:<13} {text}")
}

/// `1,234,567`
pub(super) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const CHECKS: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Verdict {
        let mut verdict = Verdict::default();
        verdict.record_shares(0.4, 2.0, 20_000);
        for check in &Check::ALL[1..] {
            verdict.record(*check, true, "fine".to_owned());
        }
        verdict.counted(40_000, 0, Vec::new());
        verdict
    }

    /// It fails, and says so.
    #[track_caller]
    fn fails(verdict: &Verdict, words: &str) {
        let text = verdict.lines().join("\n");
        assert!(!verdict.holds(), "{text}");
        assert!(text.contains("FAILED") && text.contains(words), "{text}");
    }

    #[test]
    fn a_whole_story_holds() {
        let verdict = whole();
        let lines = verdict.lines();
        assert!(verdict.holds());
        assert_eq!(
            lines.last().unwrap(),
            "0 of 40,000 requests failed; shares within 0.4 points of the weights"
        );
        assert_eq!(lines.iter().filter(|line| line.starts_with("  ok ")).count(), 1 + CHECKS);
    }

    #[test]
    fn one_failed_request_is_enough() {
        let mut verdict = whole();
        verdict.counted(40_000, 1, vec!["request 1-1: answered 502".to_owned()]);
        fails(&verdict, "request 1-1: answered 502");
        assert!(verdict.lines().last().unwrap().starts_with("1 of 40,001 requests failed; "));
    }

    #[test]
    fn each_check_can_fail_alone_and_a_later_success_does_not_heal_it() {
        for check in Check::ALL {
            let mut verdict = whole();
            verdict.record(check, false, "broken".to_owned());
            verdict.record(check, true, "healed".to_owned());
            fails(&verdict, "broken");
        }
    }

    #[test]
    fn shares_off_the_weights_fail_and_the_worst_is_told() {
        let mut verdict = whole();
        verdict.record_shares(2.1, 2.0, 20_000);
        verdict.record_shares(0.1, 2.0, 20_000);
        fails(&verdict, "shares within 2.1 points");
    }

    #[test]
    fn what_was_not_shown_counts_as_failed_unless_interrupted() {
        let mut verdict = Verdict::default();
        fails(&verdict, "not shown");
        verdict.counted(10, 0, Vec::new());
        fails(&verdict, "not shown");
        verdict.interrupted();
        assert!(verdict.holds());
        assert!(verdict.lines().join("\n").contains("not reached"));
        verdict.record(Check::Sundown, false, "cut".to_owned());
        fails(&verdict, "cut");
    }

    #[test]
    fn a_halt_or_an_empty_load_fails() {
        let mut verdict = whole();
        verdict.halted("waited 60 s in vain: a frame".to_owned());
        fails(&verdict, "a frame");
        let mut verdict = whole();
        verdict.counted(0, 0, Vec::new());
        fails(&verdict, "0 of 0 failed");
    }

    #[test]
    fn thousands_are_parted() {
        let table = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        table.into_iter().for_each(|(n, text)| assert_eq!(thousands(n), text));
    }
}
