//! Flags, environment and `.env` to a [`Config`]: the only reader of argv and environment.
//!
//! clap has the grammar (`grammar`), one table the settings (`settings`), `sources` decides who is heard, `values`
//! reads texts, `assemble` puts the whole together. Nothing here touches the process: the world comes in as an
//! [`Environment`].

mod assemble;
mod dotenv;
mod error;
mod grammar;
pub mod settings;
mod sources;
mod values;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

pub use error::Error;
pub use sources::{Environment, ReadFile, Source};

use crate::boot::agent_url;
use crate::config::{Config, Stated};
use crate::io::affinity::format_list;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// `balancer run`.
    Run(Box<Run>),
    /// `balancer check`.
    Check(Check),
    /// `balancer demo`.
    Demo(Demo),
    /// `balancer top`.
    Top(Top),
    /// Print this to stdout and be done: help, version, a completion script, the manual.
    Text(String),
}

/// `balancer run`.
#[derive(Clone, Debug)]
pub struct Run {
    /// The settings.
    pub config: Config,
    /// What is logged, in env_logger's form.
    pub log: String,
    /// What is odd but no error: one sentence each.
    pub warnings: Vec<String>,
    /// Every setting with its value and where it came from, in the order of the help.
    pub values: Vec<Value>,
}

/// `balancer check`.
#[derive(Clone, Debug)]
pub struct Check {
    /// What `balancer run` would make of the settings, or why it would refuse them.
    pub run: Result<Box<Run>, Error>,
    /// Print them, and every limit.
    pub shows_config: bool,
}

/// One setting in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The long flag, without its dashes.
    pub setting: &'static str,
    /// The environment variable; empty when there is none.
    pub env: &'static str,
    /// As it was written; the default's text when nobody wrote anything, empty when there is none.
    pub text: String,
    /// Who said so.
    pub source: Source,
}

impl Run {
    /// The settings in force, for people to read; where nobody said anything, what came of it on this host.
    pub fn stated(&self) -> Vec<Stated> {
        let stated = |value: &Value| Stated {
            flag: value.setting,
            env: value.env,
            value: match value.source {
                Source::Default => self.effective(value),
                _ => value.text.clone(),
            },
            source: value.source.to_string(),
        };
        self.values.iter().map(stated).collect()
    }

    fn effective(&self, value: &Value) -> String {
        let config = &self.config;
        match value.setting {
            "cores" => format_list(&config.cores),
            "control-core" => config.control_core.to_string(),
            "max-connections" => config.connections_max.to_string(),
            "listen" => {
                let addresses: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
                addresses.join(",")
            }
            "agent" => config.agent.as_ref().map_or(String::new(), agent_url),
            _ => value.text.clone(),
        }
    }
}

/// `balancer demo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demo {
    /// How long; `None` until it is interrupted.
    pub length: Option<Duration>,
    /// Only the summary.
    pub is_quiet: bool,
    /// What is logged, in env_logger's form.
    pub log: String,
}

/// `balancer top`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top {
    /// The admin listener of the balancer to watch.
    pub admin: SocketAddr,
    /// Print one view, as plain text, and be done.
    pub is_once: bool,
}

/// Reads the command line; `arguments` begin with the program's name.
pub fn parse(
    arguments: impl Iterator<Item = OsString>,
    environment: &Environment,
) -> Result<Command, Error> {
    let matches = match grammar::command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        // Help and version are asked for through an error of clap's.
        Err(asked) if !asked.use_stderr() => return Ok(Command::Text(asked.to_string())),
        Err(error) => return Err(grammar::refusal(&error)),
    };
    match matches.subcommand() {
        Some(("run", flags)) => {
            assemble::run(flags, environment, "run").map(|run| Command::Run(Box::new(run)))
        }
        Some(("check", flags)) => assemble::check(flags, environment).map(Command::Check),
        Some(("completions", flags)) => {
            grammar::refuse_strays(flags, "completions")?;
            grammar::completions(flags).map(Command::Text)
        }
        Some(("man", flags)) => {
            grammar::refuse_strays(flags, "man")?;
            Ok(Command::Text(grammar::manual()))
        }
        Some(("top", flags)) => assemble::top(flags, environment).map(Command::Top),
        Some(("demo", flags)) => assemble::demo(flags, environment).map(Command::Demo),
        _ => Ok(Command::Text(grammar::SHORT_HELP.to_owned())),
    }
}
