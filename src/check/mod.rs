//! `balancer check`: would `balancer run` start here, and what could be better?
//!
//! `host` judges facts, `limits` lists what is bounded; this file asks the host for the facts and prints. Nothing is
//! changed, no thread started, no address kept.

mod host;
mod limits;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

use crate::boot;
use crate::cli::{self, Run};
use crate::config::Config;
use crate::control::admin::aligned;
use crate::io::affinity::{Cpus, format_list};
use crate::io::{host as kernel, listen};
use host::Facts;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is wrong.
    Note,
    /// It starts, but worse than it could.
    Warning,
    /// It would not start.
    Failure,
}

impl Level {
    const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warn",
            Self::Failure => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    topic: &'static str,
    /// What is, and after a line break what to try.
    text: String,
}

impl Finding {
    fn new(level: Level, topic: &'static str, text: impl Into<String>) -> Self {
        Self { level, topic, text: text.into() }
    }
}

/// Looks at everything; the text to print and the exit code: 0 fit, 1 would not start, 3 would start with warnings.
pub fn examine(check: &cli::Check) -> (String, u8) {
    let mut findings = Vec::new();
    let mut out = String::new();
    let config = match &check.run {
        Ok(run) => {
            findings.push(Finding::new(Level::Ok, "settings", sources(run)));
            let warning = |text: &String| Finding::new(Level::Warning, "settings", text);
            findings.extend(run.warnings.iter().map(warning));
            if check.shows_config {
                out.push_str(&limits::settings(run));
            }
            Some(&run.config)
        }
        Err(error) => {
            let text = error.to_string();
            let text = text.trim_start_matches("error: ").replace("\n  ", "\n");
            findings.push(Finding::new(Level::Failure, "settings", text));
            None
        }
    };
    findings.extend(host::judge(&facts(config)));
    findings.extend(config.into_iter().flat_map(addresses));
    findings.extend(config.and_then(access_log));
    let verdict = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    print(&mut out, &findings, verdict);
    (out, exit_code(verdict))
}

const fn exit_code(verdict: Level) -> u8 {
    match verdict {
        Level::Ok | Level::Note => 0,
        Level::Failure => 1,
        Level::Warning => 3,
    }
}

/// Asks the host.
fn facts(config: Option<&Config>) -> Facts<'static> {
    Facts {
        limits: kernel::raise_limits(),
        ring: kernel::probe_io_uring(),
        cpus: Cpus::of_process(),
        workers: config.map_or(Vec::new(), |config| config.cores.clone()),
        control: config.map(|config| config.control_core),
        read: Box::new(|path| std::fs::read_to_string(path).ok()),
    }
}

/// Whether each address can be had right now.
fn addresses(config: &Config) -> Vec<Finding> {
    let refusal = |error: boot::Error| {
        let text = error.to_string();
        let words: Vec<&str> = text.trim_start_matches("error: ").split_whitespace().collect();
        Finding::new(Level::Failure, "addresses", words.join(" ").replacen(" try ", "\ntry ", 1))
    };
    let mut findings: Vec<Finding> = Vec::new();
    let listen = config.listen.iter().map(|&address| (address, boot::Error::Listen as fn(_) -> _));
    let admin = config.admin.iter().map(|&address| (address, boot::Error::Admin as fn(_) -> _));
    let (mut free, mut held) = (Vec::new(), Vec::new());
    let is_handed_over = config.takeover.as_ref().is_some_and(boot::is_inhabited);
    for (address, wrong) in listen.chain(admin) {
        match listen::probe(address) {
            Ok(()) => free.push(address.to_string()),
            Err(error) if is_handed_over && error.cause.kind() == ErrorKind::AddrInUse => {
                held.push(address.to_string());
            }
            Err(error) => findings.push(refusal(wrong(error))),
        }
    }
    if !held.is_empty() {
        let text = format!("{} held by a running balancer that hands over", held.join(", "));
        findings.push(Finding::new(Level::Note, "addresses", text));
    }
    if !free.is_empty() {
        findings
            .insert(0, Finding::new(Level::Ok, "addresses", format!("{} free", free.join(", "))));
    }
    findings
}

/// Whether the access log's file can be written. One that is not there yet is not made.
fn access_log(config: &Config) -> Option<Finding> {
    let path = config.access_log.as_ref()?.path.as_ref()?;
    let outcome = match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && has_place(path) => {
            Ok(format!("{} will be made", path.display()))
        }
        Err(error) => Err(boot::Error::AccessLog(path.clone(), error)),
        Ok(_) => Ok(format!("{} can be written", path.display())),
    };
    Some(match outcome {
        Ok(text) => Finding::new(Level::Ok, "access log", text),
        Err(error) => {
            let text = error.to_string();
            let text = text.trim_start_matches("error: ").to_owned();
            Finding::new(Level::Failure, "access log", text)
        }
    })
}

/// Whether there is a directory for it.
fn has_place(path: &Path) -> bool {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    directory.unwrap_or(Path::new(".")).is_dir()
}

/// Where the settings come from.
fn sources(run: &Run) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for value in &run.values {
        let source = match &value.source {
            cli::Source::Flag => "flags".to_owned(),
            cli::Source::Environment => "the environment".to_owned(),
            cli::Source::File { path, .. } => path.clone(),
            cli::Source::Default => continue,
        };
        match counts.iter_mut().find(|(known, _)| *known == source) {
            Some((_, count)) => *count += 1,
            None => counts.push((source, 1)),
        }
    }
    let parts: Vec<String> =
        counts.iter().map(|(source, count)| format!("{count} from {source}")).collect();
    let config = &run.config;
    let cores = format!(
        "workers on {}, control on core {}",
        format_list(&config.cores),
        config.control_core
    );
    format!("{}; {cores}", parts.join(", "))
}

fn print(out: &mut String, findings: &[Finding], verdict: Level) {
    let width = findings.iter().map(|finding| finding.topic.len()).max().unwrap_or(0);
    for Finding { level, topic, text } in findings {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{:<4}  {topic:<width$}  {first}", level.label());
        for line in lines {
            let _ = writeln!(out, "{:<4}  {:<width$}  {}", "", "", line.trim_start());
        }
    }
    let warnings = findings.iter().filter(|finding| finding.level == Level::Warning).count();
    let plural = if warnings == 1 { "" } else { "s" };
    let _ = match verdict {
        Level::Ok | Level::Note => writeln!(out, "\nfit: balancer run would start"),
        Level::Warning => {
            writeln!(out, "\nbalancer run would start, with {warnings} warning{plural}")
        }
        Level::Failure => writeln!(out, "\nbalancer run would not start"),
    };
}

/// Rows as a table, with a title.
fn titled<const N: usize>(title: &str, head: &[&str; N], rows: &[[String; N]]) -> String {
    let left: Vec<usize> = (0..N).collect();
    format!("{title}\n{}\n", aligned(head, rows, &left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_verdict() {
        let finding = |level| Finding::new(level, "topic", "what is\ntry this");
        for (levels, code, last) in [
            (vec![Level::Ok, Level::Note], 0, "fit: balancer run would start"),
            (vec![Level::Ok, Level::Warning], 3, "balancer run would start, with 1 warning"),
            (vec![Level::Warning, Level::Failure, Level::Ok], 1, "balancer run would not start"),
        ] {
            let findings: Vec<Finding> = levels.into_iter().map(finding).collect();
            let verdict = findings.iter().map(|finding| finding.level).max().unwrap();
            let mut out = String::new();
            print(&mut out, &findings, verdict);
            assert_eq!(exit_code(verdict), code);
            assert_eq!(out.lines().last(), Some(last));
            assert_eq!(out.lines().nth(1), Some("             try this"));
        }
    }
}
