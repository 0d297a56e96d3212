//! What the agent says of the four backends, and what shares it should come to. Pure.

use std::net::SocketAddr;

/// Backends of the demo.
pub(super) const COUNT: usize = 4;

/// A figure of each backend.
pub(super) type Each<T> = [T; COUNT];

/// Scores of all backends, and who of them is draining.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Set {
    /// 0 to 100 each.
    pub scores: Each<u32>,
    /// The one in SUNDOWN.
    pub sundown: Option<usize>,
}

impl Set {
    /// Nobody is draining.
    pub const fn of(scores: Each<u32>) -> Self {
        Self { scores, sundown: None }
    }

    /// The same with backend number `n` in SUNDOWN.
    pub const fn without(self, n: usize) -> Self {
        Self { sundown: Some(n), ..self }
    }

    /// The shares the weights stand for, in percent.
    pub fn wanted(&self) -> Each<f64> {
        let weight = |n| if self.sundown == Some(n) { 0 } else { self.scores[n] };
        let total: u32 = (0..COUNT).map(weight).sum();
        std::array::from_fn(|n| percent(u64::from(weight(n)), u64::from(total)))
    }

    /// The agent's frame for backends at `addresses`.
    pub fn frame(&self, addresses: &Each<SocketAddr>) -> String {
        let item = |n: usize| {
            let category = if self.sundown == Some(n) { "SUNDOWN" } else { "MU" };
            // The name carries the address: nothing on this host resolves `app-1`.
            serde_json::json!({
                "dns_name": addresses[n].to_string(),
                "score": self.scores[n],
                "utilization_category": category,
            })
        };
        serde_json::Value::Array((0..COUNT).map(item).collect()).to_string()
    }

    /// `app-1 80, app-2 60, …`
    pub fn text(&self) -> String {
        let one = |n: usize| match self.sundown == Some(n) {
            true => format!("{} SUNDOWN", name(n)),
            false => format!("{} {}", name(n), self.scores[n]),
        };
        (0..COUNT).map(one).collect::<Vec<_>>().join(", ")
    }
}

/// What every backend answers for page number `n`: the one thing here that may be stored.
pub(super) fn page(n: u64) -> String {
    format!("page {n} of {PAGES}\n").repeat(100)
}

/// The backend's name.
pub(super) fn name(n: usize) -> String {
    format!("app-{}", n + 1)
}

/// The backend of that name.
pub(super) fn number(name: &str) -> Option<usize> {
    let n: usize = name.strip_prefix("app-")?.parse().ok()?;
    n.checked_sub(1).filter(|&n| n < COUNT)
}

/// Real shares in percent; all 0 when nothing was counted.
pub(super) fn shares(counts: &Each<u64>) -> Each<f64> {
    let total = counts.iter().sum();
    counts.map(|count| percent(count, total))
}

/// The largest distance of a real share from its wanted one, in points.
pub(super) fn points_off(wanted: &Each<f64>, real: &Each<f64>) -> f64 {
    wanted.iter().zip(real).map(|(wanted, real)| (wanted - real).abs()).fold(0.0, f64::max)
}

/// How far chance alone may put a share of `requests` independent picks from its weight, in points: two, unless
/// there are so few requests that four standard deviations of the widest share (½) are more.
pub(super) fn points_allowed(requests: u64) -> f64 {
    let deviation = 100.0 * (0.25 / requests.max(1) as f64).sqrt();
    (4.0 * deviation).max(2.0)
}

/// `a` less `b`, backend by backend.
pub(super) fn less(a: &Each<u64>, b: &Each<u64>) -> Each<u64> {
    std::array::from_fn(|n| a[n].saturating_sub(b[n]))
}

/// Different pages.
pub(super) const PAGES: u64 = 8;

fn percent(part: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { 100.0 * part as f64 / total as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: Set = Set::of([80, 60, 40, 20]);

    #[test]
    fn wanted_shares_are_the_weights_and_leave_out_the_draining() {
        assert_eq!(SET.wanted(), [40.0, 30.0, 20.0, 10.0]);
        assert_eq!(SET.without(0).wanted(), [0.0, 50.0, 100.0 / 3.0, 50.0 / 3.0]);
        assert_eq!(Set::of([0; COUNT]).wanted(), [0.0; COUNT]);
        assert_eq!(SET.without(2).text(), "app-1 80, app-2 60, app-3 SUNDOWN, app-4 20");
    }

    #[test]
    fn the_balancer_reads_the_frame_as_it_was_meant() {
        use crate::balance::{Category, Frame};
        let addresses =
            std::array::from_fn(|n| SocketAddr::from(([127, 0, 0, 1], 4000 + n as u16)));
        let frame = Frame::parse(&SET.without(2).frame(&addresses), None).unwrap();
        assert_eq!((frame.items.len(), frame.skipped(), frame.unknown_category), (COUNT, 0, None));
        assert_eq!(frame.items[3].port, 4003);
        assert_eq!(frame.items[3].score.get(), 20.0);
        assert_eq!(frame.items[2].category, Category::Sundown);
    }

    #[test]
    fn shares_and_their_distance() {
        let real = shares(&[30, 30, 30, 10]);
        assert_eq!(real, [30.0, 30.0, 30.0, 10.0]);
        assert_eq!(points_off(&SET.wanted(), &real), 10.0);
        assert_eq!(shares(&[0; COUNT]), [0.0; COUNT]);
        assert_eq!(points_allowed(20_000), 2.0);
        assert_eq!(points_allowed(10_000), 2.0);
        assert_eq!(points_allowed(400), 10.0);
    }

    #[test]
    fn names_go_both_ways() {
        assert!((0..COUNT).all(|n| number(&name(n)) == Some(n)));
        for stranger in ["app-0", "app-5", "app-", "app-1 ", "api-1", ""] {
            assert_eq!(number(stranger), None, "{stranger:?}");
        }
    }
}
