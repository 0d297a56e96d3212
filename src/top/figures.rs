//! Numbers as people read them, in as few characters as say it.

/// A dash for what is not known.
pub(super) const NIL: &str = "-";

/// `12`, `3.4`, `1,234`, `1.23 M`.
pub(super) fn number(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n > 0.0 && n < 9.95 && n.fract() != 0.0 => format!("{n:.1}"),
        n => grouped(n.round() as u64),
    }
}

/// Digits in groups of three.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `0.42 ms`, `12 ms`, `1.25 s`.
pub(super) fn millis(ms: Option<f64>) -> String {
    match ms {
        None => NIL.to_owned(),
        Some(ms) if ms < 1.0 => format!("{ms:.2} ms"),
        Some(ms) if ms < 10.0 => format!("{ms:.1} ms"),
        Some(ms) if ms < 1000.0 => format!("{ms:.0} ms"),
        Some(ms) => format!("{:.2} s", ms / 1000.0),
    }
}

/// `47.1 %`
pub(super) fn percent(part: Option<f64>) -> String {
    part.map_or(NIL.to_owned(), |part| format!("{:.1} %", 100.0 * part))
}

/// `3.2 s`, `14 min`, `5 h`.
pub(super) fn span(s: f64) -> String {
    match s {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// The time of day, UTC: `12:34:56`.
pub(super) fn clock(ms: u64) -> String {
    let s = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

/// A bar of `width` cells for `part` of the whole, in eighths.
pub(super) fn bar(part: f64, width: usize) -> String {
    let eighths = (part.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let mut out = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        out.push(EIGHTHS[eighths % 8 - 1]);
    }
    let filled = out.chars().count();
    out.push_str(&" ".repeat(width - filled));
    out
}

/// A row of little bars, the highest of them `top`.
pub(super) fn sparkline(values: impl Iterator<Item = f64>, top: f64) -> String {
    values
        .map(|value| match (value / top.max(1.0) * 8.0).round() as usize {
            0 if value > 0.0 => LEVELS[0],
            0 => ' ',
            level => LEVELS[level.min(8) - 1],
        })
        .collect()
}

const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        for (n, text) in [
            (0.0, "0"),
            (0.04, "0.0"),
            (3.24, "3.2"),
            (3.0, "3"),
            (12.6, "13"),
            (1234.0, "1,234"),
            (999_999.0, "999,999"),
            (1_234_567.0, "1.23 M"),
            (2e9, "2.00 G"),
        ] {
            assert_eq!(number(n), text);
        }
        for (ms, text) in [
            (None, "-"),
            (Some(0.123), "0.12 ms"),
            (Some(4.56), "4.6 ms"),
            (Some(45.6), "46 ms"),
            (Some(4560.0), "4.56 s"),
        ] {
            assert_eq!(millis(ms), text);
        }
        assert_eq!(
            (span(3.21), span(75.0), span(900.0)),
            ("3.2 s".into(), "75 s".into(), "15 min".into())
        );
        assert_eq!(clock(45_296_789), "12:34:56");
        assert_eq!(percent(Some(0.4712)), "47.1 %");
    }

    #[test]
    fn bars_fill_their_width() {
        for part in [-1.0, 0.0, 0.01, 0.5, 0.99, 1.0, 2.0] {
            assert_eq!(bar(part, 10).chars().count(), 10, "{part}");
        }
        assert_eq!(
            (bar(0.5, 4), bar(0.0, 2), bar(1.0, 2)),
            ("██  ".into(), "  ".into(), "██".into())
        );
        assert_eq!(sparkline([0.0, 1.0, 50.0, 100.0].into_iter(), 100.0), " ▁▄█");
    }
}
