//! The Prometheus text format, version 0.0.4: families, samples, histograms. It knows no metric by name.

use std::fmt::Write as _;

use super::histogram::Reading;

/// A page of metrics under construction. A family's samples follow it at once; a family comes once.
#[derive(Debug, Default)]
pub struct Text {
    out: String,
    /// The name of the family at hand.
    family: String,
}

/// What a family counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in seconds, in cumulative buckets.
    Histogram,
    /// Durations in seconds: how many and their sum.
    Summary,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// A label and its value.
pub type Label<'a> = (&'a str, &'a str);

impl Text {
    /// Begins a family.
    pub fn family(&mut self, kind: Kind, name: &str, help: &str) {
        name.clone_into(&mut self.family);
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {}", kind.word());
    }

    /// A whole number.
    pub fn count(&mut self, labels: &[Label<'_>], value: u64) {
        self.line("", labels, format_args!("{value}"));
    }

    /// A fraction.
    pub fn fraction(&mut self, labels: &[Label<'_>], value: f64) {
        self.line("", labels, format_args!("{value}"));
    }

    /// The buckets, sum and count of a histogram.
    pub fn histogram(&mut self, reading: &Reading) {
        for (bound_us, below) in reading.cumulative() {
            let bound = (bound_us as f64 / 1e6).to_string();
            self.line("_bucket", &[("le", &bound)], format_args!("{below}"));
        }
        let count = reading.count();
        self.line("_bucket", &[("le", "+Inf")], format_args!("{count}"));
        self.line("_sum", &[], format_args!("{}", reading.sum_us / 1e6));
        self.line("_count", &[], format_args!("{count}"));
    }

    /// How many durations, and their sum in µs.
    pub fn summary(&mut self, labels: &[Label<'_>], count: u64, sum_us: u64) {
        self.line("_sum", labels, format_args!("{}", sum_us as f64 / 1e6));
        self.line("_count", labels, format_args!("{count}"));
    }

    /// The page.
    pub fn finish(self) -> String {
        self.out
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], value: std::fmt::Arguments<'_>) {
        self.out.push_str(&self.family);
        self.out.push_str(suffix);
        for (at, (name, text)) in labels.iter().enumerate() {
            self.out.push(if at == 0 { '{' } else { ',' });
            self.out.push_str(name);
            self.out.push_str("=\"");
            for letter in text.chars() {
                match letter {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    _ => self.out.push(letter),
                }
            }
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format() {
        let mut text = Text::default();
        text.family(Kind::Counter, "a_total", "Things.");
        text.count(&[], 3);
        text.family(Kind::Gauge, "b", "Parts.");
        text.fraction(&[("x", "a\"b\\c\nd"), ("y", "")], 0.25);
        text.family(Kind::Summary, "c_seconds", "Times.");
        text.summary(&[("x", "1")], 2, 1_500_000);
        assert_eq!(
            text.finish(),
            "# HELP a_total Things.\n# TYPE a_total counter\na_total 3\n\
             # HELP b Parts.\n# TYPE b gauge\nb{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 0.25\n\
             # HELP c_seconds Times.\n# TYPE c_seconds summary\nc_seconds_sum{x=\"1\"} 1.5\nc_seconds_count{x=\"1\"} 2\n"
        );
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_its_count() {
        let mut reading = Reading::default();
        reading.buckets[0] = 1.0;
        reading.buckets[22] = 2.0;
        reading.sum_us = 250.0;
        let mut text = Text::default();
        text.family(Kind::Histogram, "d_seconds", "Times.");
        text.histogram(&reading);
        let text = text.finish();
        for line in [
            "d_seconds_bucket{le=\"0.000064\"} 1\nd_seconds_bucket{le=\"0.000096\"} 1\n\
             d_seconds_bucket{le=\"0.000128\"} 3\n",
            "d_seconds_bucket{le=\"67.108864\"} 3\nd_seconds_bucket{le=\"+Inf\"} 3\n\
             d_seconds_sum 0.00025\nd_seconds_count 3\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
