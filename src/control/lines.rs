//! What the control core says of a snapshot, for people.

use std::collections::HashMap;
use std::fmt::Write;

use crate::balance::{Backend, Category, Snapshot};

/// The set in one line: `4 backends: app-1 92, app-2 71, app-3 40, app-4 SUNDOWN (draining)`.
pub fn roll(snapshot: &Snapshot) -> String {
    let one = |backend: &Backend| format!("{} {}", backend.name, standing(backend));
    let noun = if snapshot.backends.len() == 1 { "backend" } else { "backends" };
    match snapshot.backends.len() {
        0 => "no backends".to_owned(),
        n => format!("{n} {noun}: {}", listed(snapshot.backends.iter().map(one))),
    }
}

/// What the newer of two snapshots changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Backends that came, went, drained, resolved; empty when none did.
    pub of_set: String,
    /// Scores and degrees of utilization; empty when none changed.
    pub of_scores: String,
}

impl Changes {
    /// Compares two snapshots of one roster.
    pub fn between(old: &Snapshot, new: &Snapshot) -> Self {
        let before: HashMap<&str, &Backend> = old.backends.iter().map(|b| (&*b.name, b)).collect();
        let after: HashMap<&str, &Backend> = new.backends.iter().map(|b| (&*b.name, b)).collect();
        let mut of_set = Vec::new();
        let mut of_scores = Vec::new();
        for backend in &new.backends {
            match before.get(&*backend.name) {
                None => of_set.push(format!("+{} {}", backend.name, standing(backend))),
                Some(earlier) if has_moved(earlier, backend) => {
                    of_set.push(format!("{} {}", backend.name, standing(backend)));
                }
                Some(earlier) if earlier.addresses != backend.addresses => {
                    of_set.push(format!("{} at {:?}", backend.name, backend.addresses));
                }
                Some(earlier) if earlier != &backend => {
                    let (from, to) = (standing(earlier), standing(backend));
                    of_scores.push(format!("{} {from} -> {to}", backend.name));
                }
                Some(_) => {}
            }
        }
        for backend in old.backends.iter().filter(|b| !after.contains_key(&*b.name)) {
            of_set.push(format!("-{}", backend.name));
        }
        Self { of_set: listed(of_set.into_iter()), of_scores: listed(of_scores.into_iter()) }
    }
}

/// Whether it became usable or ceased to be.
fn has_moved(old: &Backend, new: &Backend) -> bool {
    let mark = |b: &Backend| (b.category == Category::Sundown, b.addresses.is_empty());
    mark(old) != mark(new)
}

fn standing(backend: &Backend) -> String {
    let tenths = (backend.score.get() * 10.0).round() / 10.0;
    match backend.category {
        Category::Sundown => "SUNDOWN (draining)".to_owned(),
        _ if backend.addresses.is_empty() => format!("{tenths} (not resolved yet)"),
        Category::Init => format!("{tenths} INIT"),
        Category::Low | Category::Medium | Category::High => tenths.to_string(),
    }
}

/// Joined by commas; the surplus is counted.
pub fn listed(mut parts: impl Iterator<Item = String>) -> String {
    let mut line = parts.by_ref().take(PARTS_MAX).collect::<Vec<_>>().join(", ");
    let rest = parts.count();
    if rest > 0 {
        let _ = write!(line, " and {rest} more");
    }
    line
}

/// Backends named in one line.
const PARTS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{Frame, Roster};
    use crate::time::Instant;

    fn frame(items: &[(&str, f64, &str)]) -> Frame {
        let item = |&(name, score, category): &(&str, f64, &str)| {
            format!(
                r#"{{"dns_name":"{name}","score":{score},"utilization_category":"{category}"}}"#
            )
        };
        let items: Vec<String> = items.iter().map(item).collect();
        Frame::parse(&format!("[{}]", items.join(",")), Some(80)).unwrap()
    }

    #[test]
    fn the_set_and_its_changes_in_words() {
        let mut roster = Roster::new([]);
        assert_eq!(roll(roster.snapshot()), "no backends");
        roster.take(&frame(&[
            ("10.0.0.1", 92.04, "LU"),
            ("10.0.0.2", 71.0, "INIT"),
            ("10.0.0.3", 4.0, "SUNDOWN"),
            ("app", 3.0, "HU"),
        ]));
        let first = roster.commit(Instant::default()).unwrap();
        assert_eq!(
            roll(&first),
            "4 backends: 10.0.0.1 92, 10.0.0.2 71 INIT, 10.0.0.3 SUNDOWN (draining), \
             app 3 (not resolved yet)"
        );
        roster.resolved("app", &["10.0.0.9".parse().unwrap()]);
        roster.take(&frame(&[
            ("10.0.0.1", 40.0, "HU"),
            ("app", 3.0, "HU"),
            ("10.0.0.5", 1.5, "LU"),
        ]));
        let second = roster.commit(Instant::default()).unwrap();
        let changes = Changes::between(&first, &second);
        assert_eq!(changes.of_set, "10.0.0.2 SUNDOWN (draining), app 3, +10.0.0.5 1.5");
        assert_eq!(changes.of_scores, "10.0.0.1 92 -> 40");
        assert_eq!(Changes::between(&second, &second), Changes::default());
        assert_eq!(
            Changes::between(&second, &Snapshot::empty()).of_set,
            "-10.0.0.1, -10.0.0.2, -10.0.0.3, -app, -10.0.0.5"
        );
    }

    #[test]
    fn a_long_list_is_cut() {
        let items: Vec<String> = (0..100).map(|n| format!("a{n}")).collect();
        let items: Vec<(&str, f64, &str)> = items.iter().map(|n| (n.as_str(), 1.0, "LU")).collect();
        let mut roster = Roster::new([]);
        roster.take(&frame(&items));
        let line = roll(&roster.commit(Instant::default()).unwrap());
        assert!(line.starts_with("100 backends: a0 1") && line.ends_with("and 84 more"), "{line}");
    }
}
