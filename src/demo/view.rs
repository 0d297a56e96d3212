//! The live block: what the demo looks like at one moment, as lines. Pure.

use super::set::{COUNT, Each, name};
use super::verdict::thousands;

/// One moment.
#[derive(Debug)]
pub(super) struct Sight {
    pub address: String,
    /// Requests a second, lately.
    pub rate: f64,
    pub cpu: String,
    pub requests: u64,
    pub failed: u64,
    pub agent: String,
    /// Requests for pages, and how many of them the cache answered.
    pub pages: u64,
    pub cached: u64,
    pub wanted: Each<f64>,
    /// Shares lately.
    pub real: Each<f64>,
    /// A word on a backend that is not as the others.
    pub notes: Each<&'static str>,
}

impl Sight {
    /// The block, 80 columns or less.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            String::new(),
            format!(
                "  {}   {} req/s   cpu {}   {} of {} failed",
                self.address,
                thousands(self.rate.round() as u64),
                self.cpu,
                thousands(self.failed),
                thousands(self.requests),
            ),
            format!("  agent  {}", self.agent),
            format!(
                "  cache  {} of {} pages answered from it",
                thousands(self.cached),
                thousands(self.pages)
            ),
        ];
        lines.extend((0..COUNT).map(|n| {
            let (wanted, real) = (self.wanted[n], self.real[n]);
            let bar = bar(wanted, real);
            format!(
                "  {}  {bar} wanted {wanted:4.1} %  real {real:4.1} %  {}",
                name(n),
                self.notes[n]
            )
        }));
        lines
    }
}

/// The real share filled in, the wanted one marked.
fn bar(wanted: f64, real: f64) -> String {
    let cell = |percent: f64| ((percent / 100.0 * CELLS as f64).round() as usize).min(CELLS - 1);
    let filled = (real / 100.0 * CELLS as f64).round() as usize;
    let look = |at: usize| match at {
        _ if at == cell(wanted) => '┃',
        _ if at < filled => '█',
        _ => '░',
    };
    (0..CELLS).map(look).collect()
}

const CELLS: usize = 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_the_real_share_and_mark_the_wanted_one() {
        assert_eq!(bar(50.0, 25.0), "███████░░░░░░░┃░░░░░░░░░░░░░");
        assert_eq!(bar(25.0, 50.0), "███████┃██████░░░░░░░░░░░░░░");
        assert_eq!(bar(0.0, 0.0), format!("┃{}", "░".repeat(27)));
        assert_eq!(bar(100.0, 100.0), format!("{}┃", "█".repeat(27)));
    }

    #[test]
    fn the_block_fits_a_terminal() {
        let sight = Sight {
            address: "http://127.0.0.1:65535".to_owned(),
            rate: 19_999.6,
            cpu: "45 % of 64 cores".to_owned(),
            requests: 1_234_567,
            failed: 0,
            agent: "connected".to_owned(),
            pages: 1000,
            cached: 900,
            wanted: [100.0, 0.0, 30.0, 20.0],
            real: [100.0, 0.0, 30.1, 19.9],
            notes: ["", "dead", "SUNDOWN", ""],
        };
        let lines = sight.lines();
        assert!(lines[1].contains("20,000 req/s") && lines[1].contains("0 of 1,234,567 failed"));
        assert!(lines[3].ends_with("900 of 1,000 pages answered from it"), "{}", lines[3]);
        assert!(lines[5].ends_with("wanted  0.0 %  real  0.0 %  dead"), "{}", lines[5]);
        assert_eq!(lines.len(), 4 + COUNT);
        assert!(lines[2..].iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    }
}
