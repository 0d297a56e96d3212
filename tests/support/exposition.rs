//! A strict reader of the Prometheus text format (0.0.4) that also holds the naming rules promtool's linter knows.

use std::collections::{BTreeMap, HashSet};

/// Samples by their series, `name{label="value",…}` with the labels as they stand.
pub type Samples = BTreeMap<String, f64>;

/// Reads a page; what is not by the rules is a sentence.
pub fn read(page: &str) -> Result<Samples, String> {
    let mut samples = Samples::new();
    let mut families = HashSet::new();
    let mut family: Option<Family> = None;
    if !page.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            check_end(family.take(), &samples)?;
            let (name, help) = rest.split_once(' ').ok_or(format!("no help text: {line}"))?;
            check_name(name)?;
            if help.trim().is_empty() || !families.insert(name.to_owned()) {
                return Err(format!("empty help, or a family twice: {line}"));
            }
            family = Some(Family { name: name.to_owned(), kind: String::new(), lines: 0 });
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let known = family.as_mut().ok_or(format!("a type without help: {line}"))?;
            let (name, kind) = rest.split_once(' ').ok_or(format!("no type: {line}"))?;
            if name != known.name || !known.kind.is_empty() || known.lines > 0 {
                return Err(format!("a type out of place: {line}"));
            }
            known.kind = kind.to_owned();
            lint(name, kind)?;
        } else {
            let known = family.as_mut().ok_or(format!("a sample without family: {line}"))?;
            let (series, value) = sample(line)?;
            let name = series.split('{').next().unwrap_or_default();
            if known.kind.is_empty() || !known.owns(name) {
                return Err(format!("a sample in the wrong family: {line}"));
            }
            known.lines += 1;
            if matches!(known.kind.as_str(), "counter" | "histogram" | "summary")
                && (value.is_nan() || value < 0.0)
            {
                return Err(format!("a negative count: {line}"));
            }
            if samples.insert(series, value).is_some() {
                return Err(format!("a series twice: {line}"));
            }
        }
    }
    check_end(family, &samples)?;
    Ok(samples)
}

struct Family {
    name: String,
    kind: String,
    lines: usize,
}

impl Family {
    fn owns(&self, name: &str) -> bool {
        let Some(suffix) = name.strip_prefix(self.name.as_str()) else { return false };
        match self.kind.as_str() {
            "histogram" => matches!(suffix, "_bucket" | "_sum" | "_count"),
            "summary" => matches!(suffix, "_sum" | "_count"),
            _ => suffix.is_empty(),
        }
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_good = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let is_name = name.chars().all(is_good) && !name.starts_with(|c: char| c.is_ascii_digit());
    if is_name && !name.is_empty() { Ok(()) } else { Err(format!("not a metric name: {name:?}")) }
}

/// What promtool's linter complains of.
fn lint(name: &str, kind: &str) -> Result<(), String> {
    let has_total = name.ends_with("_total");
    match kind {
        "counter" if !has_total => return Err(format!("{name}: a counter ends in _total")),
        "gauge" | "histogram" | "summary" if has_total => {
            return Err(format!("{name}: only a counter ends in _total"));
        }
        "counter" | "gauge" | "histogram" | "summary" => {}
        _ => return Err(format!("{name}: no such type: {kind}")),
    }
    let words: Vec<&str> = name.split('_').collect();
    for bad in [
        "ms",
        "milliseconds",
        "us",
        "minutes",
        "hours",
        "kb",
        "kib",
        "mb",
        "percent",
        "gauge",
        "counter",
        "histogram",
        "summary",
    ] {
        if words.contains(&bad) {
            return Err(format!("{name}: {bad} has no place in a name"));
        }
    }
    if matches!(kind, "histogram" | "summary")
        && !name.ends_with("_seconds")
        && !name.ends_with("_bytes")
    {
        return Err(format!("{name}: without its unit"));
    }
    Ok(())
}

/// One sample line as its series and value.
fn sample(line: &str) -> Result<(String, f64), String> {
    let wrong = |what: &str| format!("{what}: {line}");
    let (series, value) = match line.find('{') {
        Some(open) => {
            let mut at = open + 1;
            let bytes = line.as_bytes();
            let mut names = HashSet::new();
            loop {
                let start = at;
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                    at += 1;
                }
                if at == start || !names.insert(&line[start..at]) {
                    return Err(wrong("no label name, or one twice"));
                }
                if bytes.get(at..at + 2) != Some(b"=\"") {
                    return Err(wrong("no label value"));
                }
                at += 2;
                loop {
                    match bytes.get(at) {
                        Some(b'"') => break,
                        Some(b'\\') if matches!(bytes.get(at + 1), Some(b'\\' | b'"' | b'n')) => {
                            at += 2
                        }
                        Some(b'\\') | None => return Err(wrong("a label value that does not end")),
                        Some(_) => at += 1,
                    }
                }
                at += 1;
                match bytes.get(at) {
                    Some(b',') => at += 1,
                    Some(b'}') => break,
                    _ => return Err(wrong("labels that do not end")),
                }
            }
            let rest =
                line[at + 1..].strip_prefix(' ').ok_or(wrong("no space before the value"))?;
            (&line[..=at], rest)
        }
        None => line.split_once(' ').ok_or(wrong("no value"))?,
    };
    check_name(series.split('{').next().unwrap_or_default())?;
    let number = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        _ if value.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c)) => {
            value.parse().map_err(|_| wrong("no number"))?
        }
        _ => return Err(wrong("no number")),
    };
    Ok((series.to_owned(), number))
}

/// A histogram's buckets grow up to its count.
fn check_end(family: Option<Family>, samples: &Samples) -> Result<(), String> {
    let Some(Family { name, kind, .. }) = family.filter(|family| family.kind == "histogram") else {
        return Ok(());
    };
    debug_assert_eq!(kind, "histogram");
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for (series, value) in samples.range(format!("{name}_bucket{{")..) {
        let Some(rest) = series.strip_prefix(&format!("{name}_bucket{{le=\"")) else { break };
        let bound = rest.trim_end_matches("\"}");
        let bound = if bound == "+Inf" {
            f64::INFINITY
        } else {
            bound.parse().map_err(|_| "a bound that is no number")?
        };
        buckets.push((bound, *value));
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    if !buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1) {
        return Err(format!("{name}: its buckets are not cumulative"));
    }
    let last = buckets.last().ok_or(format!("{name}: no buckets"))?;
    if last.0 != f64::INFINITY || samples.get(&format!("{name}_count")) != Some(&last.1) {
        return Err(format!("{name}: its +Inf bucket is not its count"));
    }
    if samples.contains_key(&format!("{name}_sum")) {
        Ok(())
    } else {
        Err(format!("{name}: no sum"))
    }
}
