//! Where a value comes from: flag, environment, `.env`, in this order.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use clap::ArgMatches;

use super::dotenv;
use super::error::{Error, quoted};
use super::grammar::{ENV_FILE, NO_ENV_FILE};
use super::settings::{SETTINGS, Setting};
use super::values::Wrong;
use crate::io::affinity::Cpus;

/// Reads a file whole.
pub type ReadFile = Box<dyn Fn(&Path) -> io::Result<Vec<u8>>>;

/// The world around the command line, injected so that tests do not depend on theirs.
pub struct Environment {
    /// The environment variables.
    pub variables: BTreeMap<OsString, OsString>,
    /// The file system.
    pub read_file: ReadFile,
    /// The cores this process may use.
    pub cpus: Cpus,
    /// The descriptors it may have.
    pub nofile: u64,
}

impl Environment {
    /// This process's. `nofile` is the limit in force, raised before.
    pub fn of_process(nofile: u64) -> Self {
        Self {
            variables: std::env::vars_os().collect(),
            read_file: Box::new(|path| std::fs::read(path)),
            cpus: Cpus::of_process(),
            nofile,
        }
    }
}

/// Who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag,
    /// An environment variable.
    Environment,
    /// A line of `.env` or of the `--env-file`.
    File {
        /// As it was named.
        path: String,
        /// Counted from 1.
        line: usize,
    },
    /// Nobody: what holds by itself.
    Default,
}

impl std::fmt::Display for Source {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag => out.write_str("flag"),
            Self::Environment => out.write_str("environment"),
            Self::File { path, line } => write!(out, "{path} line {line}"),
            Self::Default => out.write_str("default"),
        }
    }
}

/// A setting's value as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub setting: &'static str,
    /// The flag with its dashes, or the variable.
    pub name: String,
    /// One text, or several where the setting is repeatable. Trimmed, not empty.
    pub texts: Vec<String>,
    pub source: Source,
}

impl Given {
    /// Where it came from, as errors say it.
    pub fn from(&self) -> String {
        match &self.source {
            Source::Flag => format!("flag {}", self.name),
            Source::Environment => format!("environment variable {}", self.name),
            Source::File { path, line } => format!("{path} line {line}"),
            Source::Default => "the default".to_owned(),
        }
    }

    /// The words as they were written, for an error of one line.
    pub fn as_written(&self) -> String {
        let text = self.texts.join(",");
        match &self.source {
            Source::Flag | Source::Default => format!("({} {text})", self.name),
            Source::Environment => format!("({}={text})", self.name),
            Source::File { path, line } => format!("({}={text}, {path} line {line})", self.name),
        }
    }

    /// The refusal of `text`, one of the texts.
    pub fn refuse(&self, setting: &Setting, text: &str, wrong: &Wrong) -> Error {
        let what = match wrong {
            Wrong::NotOne => format!("not {}", setting.noun),
            Wrong::TooSmall => "which is too small".to_owned(),
            Wrong::TooLarge => "which is too large".to_owned(),
            Wrong::Because(reason) => (*reason).to_owned(),
        };
        self.complain(format!("{} is {}, {what}", self.name, quoted(text)), setting)
    }

    pub fn complain(&self, what: String, setting: &Setting) -> Error {
        Error::new(what).from(self.from()).want(setting.want)
    }
}

/// All three sources.
pub(super) struct Sources<'a> {
    flags: &'a ArgMatches,
    variables: &'a BTreeMap<OsString, OsString>,
    /// The last line of each key.
    file: BTreeMap<String, (String, usize)>,
    path: String,
}

impl<'a> Sources<'a> {
    /// Reads the file that the flags name, or `.env` if there is one.
    pub fn new(flags: &'a ArgMatches, environment: &'a Environment) -> Result<Self, Error> {
        let flag = |name| flags.try_get_one::<OsString>(name).ok().flatten();
        let path = flag(ENV_FILE);
        // A command that knows no --no-env-file reads no file either.
        let is_off =
            flags.try_get_one::<bool>(NO_ENV_FILE).ok().flatten().is_none_or(|&is_set| is_set);
        let shown = path.map_or(DEFAULT_FILE.into(), |path| path.to_string_lossy().into_owned());
        let file = if is_off {
            BTreeMap::new()
        } else {
            read(path.map(OsString::as_os_str), &shown, environment)?
        };
        Ok(Self { flags, variables: &environment.variables, file, path: shown })
    }

    /// What was said of `setting` by the first source that says anything; empty texts outside of flags say nothing.
    pub fn find(&self, setting: &Setting) -> Result<Option<Given>, Error> {
        if let Some(given) = self.in_flags(setting)? {
            return Ok(Some(given));
        }
        let given = |texts, source| Given {
            setting: setting.flag,
            name: setting.env.to_owned(),
            texts,
            source,
        };
        if let Some(text) = self.variables.get(OsStr::new(setting.env)) {
            let texts = text.to_str().map(|text| split(setting, text));
            match texts {
                Some(Some(texts)) => return Ok(Some(given(texts, Source::Environment))),
                Some(None) => {}
                None => {
                    let given = given(Vec::new(), Source::Environment);
                    return Err(given.complain(not_unicode(setting.env, text), setting));
                }
            }
        }
        let line = self.file.get(setting.env);
        Ok(line.and_then(|(text, line)| {
            Some(given(
                split(setting, text)?,
                Source::File { path: self.path.clone(), line: *line },
            ))
        }))
    }

    fn in_flags(&self, setting: &Setting) -> Result<Option<Given>, Error> {
        let Ok(Some(values)) = self.flags.try_get_many::<OsString>(setting.flag) else {
            return Ok(None);
        };
        let name = format!("--{}", setting.flag);
        let mut given =
            Given { setting: setting.flag, name, texts: Vec::new(), source: Source::Flag };
        let count = values.len();
        for value in values {
            let text = value
                .to_str()
                .ok_or_else(|| given.complain(not_unicode(&given.name, value), setting))?;
            let texts = split(setting, text)
                .ok_or_else(|| given.complain(format!("{} is empty", given.name), setting))?;
            given.texts.extend(texts);
        }
        if count > 1 && !setting.is_repeatable {
            return Err(given.complain(format!("{} is given {count} times", given.name), setting));
        }
        Ok(Some(given))
    }

    /// A sentence for every `BALANCER_…` variable that nobody reads.
    pub fn unknown(&self) -> Vec<String> {
        let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.env).collect();
        let is_stray = |name: &str| name.starts_with(PREFIX) && !known.contains(&name);
        let outside = self.variables.keys().filter_map(|name| name.to_str());
        let outside = outside.map(|name| (name, format!("environment variable {name}")));
        let inside = self.file.iter();
        let inside = inside.map(|(name, (_, line))| {
            (name.as_str(), format!("{name} ({} line {line})", self.path))
        });
        let strays = outside.chain(inside).filter(|(name, _)| is_stray(name));
        strays
            .map(|(name, shown)| match nearest(name) {
                Some(meant) => format!("{shown} is not known and not read; did you mean {meant}?"),
                None => format!("{shown} is not known and not read"),
            })
            .collect()
    }
}

/// The trimmed texts; `None` when there is nothing. A list keeps its empty items: they are errors later.
fn split(setting: &Setting, text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let items = if setting.is_repeatable { text.split(',').collect() } else { vec![text] };
    Some(items.into_iter().map(|item| item.trim().to_owned()).collect())
}

fn not_unicode(name: &str, value: &OsStr) -> String {
    format!("{name} is {}, not UTF-8", quoted(&value.to_string_lossy()))
}

fn read(
    path: Option<&OsStr>,
    shown: &str,
    environment: &Environment,
) -> Result<BTreeMap<String, (String, usize)>, Error> {
    let wrong =
        |what: String, from: String, want: &str| Err(Error::new(what).from(from).want(want));
    if path.is_some_and(OsStr::is_empty) {
        return wrong("--env-file is empty".into(), "flag --env-file".into(), WANT_FILE);
    }
    let bytes = match (environment.read_file)(Path::new(path.unwrap_or(OsStr::new(DEFAULT_FILE)))) {
        Ok(bytes) => bytes,
        // Nobody asked for it. A directory of that name is some other tool's.
        Err(error) if path.is_none() && is_nothing(&error) => return Ok(BTreeMap::new()),
        Err(error) => {
            let from = if path.is_some() { "flag --env-file" } else { "the working directory" };
            return wrong(
                format!("cannot read {}: {error}", quoted(shown)),
                from.into(),
                WANT_FILE,
            );
        }
    };
    match dotenv::parse(&bytes) {
        Ok(lines) => Ok(lines.into_iter().map(|a| (a.key, (a.value, a.line))).collect()),
        Err(bad) => {
            let place = format!("{shown} line {}", bad.line);
            wrong(
                format!("{place} {}", bad.fault),
                place,
                "KEY=value, for example TARGET_PORT=3000",
            )
        }
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory
    )
}

/// The variable that was probably meant: `BALANCER_` and a flag's name is as good a guess as the variable itself.
fn nearest(name: &str) -> Option<&'static str> {
    let tail = name.strip_prefix(PREFIX).unwrap_or(name);
    let slips = |setting: &Setting| {
        let flag = setting.flag.to_ascii_uppercase().replace('-', "_");
        edits(tail, &flag).min(edits(name, setting.env))
    };
    let (slips, meant) = SETTINGS.iter().map(|setting| (slips(setting), setting.env)).min()?;
    (slips <= 1 + tail.len() / 4).then_some(meant)
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

const DEFAULT_FILE: &str = ".env";
const PREFIX: &str = "BALANCER_";
const WANT_FILE: &str = "a readable file of KEY=value lines, or --no-env-file";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, count) in
            [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("CORE", "CORES", 1)]
        {
            assert_eq!(edits(a, b), count);
            assert_eq!(edits(b, a), count);
        }
    }
}
