//! clap's part: what is a flag, what is a command, the help; and its refusals in our words.
//!
//! Every value leaves as the text that was written. Its meaning, its source and its error are ours, because clap's
//! `env` feature names no variable in its errors and knows no `.env`.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::error::{Error, quoted};
use super::settings::{DEMO_SETTINGS, SETTINGS, Setting};

/// The whole grammar.
pub(super) fn command() -> Command {
    let run = Command::new("run")
        .about("Serve traffic")
        .after_help(RUN_AFTER)
        .args(SETTINGS.iter().map(|setting| argument(setting)))
        .arg(env_file())
        .arg(no_env_file())
        .arg(strays());
    let demo = Command::new("demo")
        .about(
            "An agent, four backends, load and the real proxy in one process; tells its story here",
        )
        .args(DEMO_SETTINGS.iter().map(|setting| argument(setting)))
        .arg(switch(FOREVER, "Until it is interrupted").conflicts_with("for"))
        .arg(switch(QUIET, "Only the summary"))
        .arg(strays());
    Command::new("balancer")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .subcommand(run)
        .subcommand(demo)
}

/// What bare `balancer` prints.
pub(super) const SHORT_HELP: &str = concat!(
    "balancer ",
    env!("CARGO_PKG_VERSION"),
    "   ",
    env!("CARGO_PKG_DESCRIPTION"),
    "

  balancer demo                                       see it at work, nothing to set up
  balancer run --backend app-1:3000 --backend app-2:3000
                                                      share port 8080 between two servers
  balancer run --agent-port 4000 --target-port 3000   scores from a deployment agent
  balancer run --help                                 every option
"
);

const RUN_AFTER: &str = "A flag goes before the environment, the environment before .env, .env before the default. \
An empty variable counts as unset.";

fn argument(setting: &'static Setting) -> Arg {
    let mut help = setting.help.to_owned();
    for (label, text) in [("env", setting.env), ("default", setting.default)] {
        if !text.is_empty() {
            help.push_str(&format!(" [{label}: {text}]"));
        }
    }
    let argument = Arg::new(setting.flag)
        .long(setting.flag)
        .value_name(setting.value)
        .help(help)
        .help_heading(setting.group)
        // Appended even where one is wanted: the refusal of a second one is ours.
        .action(ArgAction::Append)
        .num_args(1)
        // `--request-timeout -1` is a wrong duration, not an unknown flag.
        .allow_hyphen_values(true)
        .value_parser(value_parser!(OsString));
    match setting.short {
        Some(short) => argument.short(short),
        None => argument,
    }
}

fn env_file() -> Arg {
    Arg::new(ENV_FILE)
        .long(ENV_FILE)
        .value_name("PATH")
        .help("File of KEY=value lines [default: .env in the working directory, if there is one]")
        .help_heading("Environment")
        .num_args(1)
        .value_parser(value_parser!(OsString))
}

fn no_env_file() -> Arg {
    switch(NO_ENV_FILE, "Read no .env").help_heading("Environment").conflicts_with(ENV_FILE)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue)
}

/// Words that belong to nothing. Taken in, so that in `--port --cores 2` the wrong port is refused and not the `2`.
fn strays() -> Arg {
    Arg::new(STRAYS).num_args(0..).hide(true).value_parser(value_parser!(OsString))
}

/// Refuses the first word that belongs to nothing.
pub(super) fn refuse_strays(flags: &ArgMatches, command: &str) -> Result<(), Error> {
    let Some(stray) = flags.get_many::<OsString>(STRAYS).and_then(|mut all| all.next()) else {
        return Ok(());
    };
    let what = format!("there is no argument {}", quoted(&stray.to_string_lossy()));
    Err(Error::new(what)
        .from("the command line")
        .want(format!("options only; balancer {command} --help names them")))
}

/// clap's refusal in our shape.
pub(super) fn refusal(error: &clap::Error) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        Some(ContextValue::StyledStr(text)) => Some(text.to_string()),
        _ => None,
    };
    let wrong =
        text(ContextKind::InvalidArg).or(text(ContextKind::InvalidSubcommand)).unwrap_or_default();
    let flag = wrong.split([' ', '=']).next().unwrap_or_default();
    let meant = text(ContextKind::SuggestedArg);
    let command = text(ContextKind::SuggestedSubcommand);
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let want = match (find(flag, SETTINGS), meant) {
                // A flag of `run`, given to another command or to none.
                (Some(_), _) => format!("balancer run {flag} …"),
                (None, Some(meant)) => meant,
                (None, None) => {
                    "one that balancer run --help or balancer demo --help names".to_owned()
                }
            };
            Error::new(format!("there is no option {}", quoted(flag)))
                .from("the command line")
                .want(want)
        }
        ErrorKind::InvalidSubcommand => Error::new(format!("there is no command {}", quoted(flag)))
            .from("the command line")
            .want(
                command.map_or("run or demo".to_owned(), |command| format!("balancer {command}")),
            ),
        ErrorKind::InvalidValue | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            let known = find(flag, SETTINGS).or(find(flag, DEMO_SETTINGS));
            let want = known.map_or("a file's path, for example .env", |setting| setting.want);
            Error::new(format!("{flag} has no value")).from(format!("flag {flag}")).want(want)
        }
        ErrorKind::ArgumentConflict => {
            let other = text(ContextKind::PriorArg).unwrap_or_default();
            let other = other.split([' ', '=']).next().unwrap_or_default();
            let what = if other == flag {
                format!("{flag} is given twice")
            } else {
                format!("{flag} and {other} contradict each other")
            };
            Error::new(what).from("the command line").want("one of them, once")
        }
        _ => Error::new(
            error
                .to_string()
                .trim_start_matches("error: ")
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        )
        .from("the command line"),
    }
}

/// The setting that a flag with its dashes belongs to.
fn find(flag: &str, settings: &[&'static Setting]) -> Option<&'static Setting> {
    let is_it = |setting: &&Setting| match flag.strip_prefix("--") {
        Some(long) => long == setting.flag,
        None => setting
            .short
            .is_some_and(|short| flag.strip_prefix('-') == Some(short.encode_utf8(&mut [0; 4]))),
    };
    settings.iter().copied().find(is_it)
}

const STRAYS: &str = "strays";
pub(super) const ENV_FILE: &str = "env-file";
pub(super) const NO_ENV_FILE: &str = "no-env-file";
pub(super) const FOREVER: &str = "forever";
pub(super) const QUIET: &str = "quiet";
