//! clap's part: what is a flag, what is a command, the help; and its refusals in our words.
//!
//! Every value leaves as the text that was written. Its meaning, its source and its error are ours, because clap's
//! `env` feature names no variable in its errors and knows no `.env`.

use std::ffi::OsString;
use std::io::Write as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use clap_complete::Shell;
use clap_mangen::Man;

use super::error::{Error, quoted};
use super::settings::{DEMO_SETTINGS, SETTINGS, Setting, TOP_SETTINGS};

/// The whole grammar.
pub(super) fn command() -> Command {
    let run = serving(Command::new("run").about("Serve traffic"), RUN_EXAMPLES);
    let check = serving(
        Command::new("check")
            .about("Judge configuration and host without serving; takes every option of run"),
        CHECK_EXAMPLES,
    )
    .arg(show_config());
    let demo = Command::new("demo")
        .about(
            "An agent, four backends, load and the real proxy in one process; tells its story here",
        )
        .after_long_help(DEMO_EXAMPLES)
        .args(DEMO_SETTINGS.iter().map(|setting| argument(setting)))
        .arg(switch(FOREVER, "Until it is interrupted").conflicts_with("for"))
        .arg(switch(QUIET, "Only the summary"))
        .arg(strays());
    let top = Command::new("top")
        .about("Watch a running balancer in the terminal")
        .after_long_help(TOP_EXAMPLES)
        .args(TOP_SETTINGS.iter().map(|setting| argument(setting)))
        .arg(switch(ONCE, "Print one view as plain text, which is also what a pipe gets"))
        .arg(strays());
    let completions = Command::new("completions")
        .about("Print a completion script for a shell")
        .after_long_help(COMPLETIONS_EXAMPLES)
        .arg(
            Arg::new(SHELL)
                .value_name("SHELL")
                .help("bash, elvish, fish, powershell or zsh")
                .value_parser(value_parser!(OsString)),
        )
        .arg(strays());
    let man = Command::new("man")
        .about("Print the manual page")
        .after_long_help("Examples:\n  balancer man | man -l -")
        .arg(strays());
    Command::new("balancer")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .after_help(
            "Bare `balancer` names the next step; `balancer COMMAND --help` tells more than `-h`.",
        )
        .after_long_help(EXIT_CODES)
        .subcommands([run, check, demo, top, completions, man])
}

/// A command that reads all settings.
fn serving(command: Command, examples: &'static str) -> Command {
    command
        .after_help(PRECEDENCE)
        .after_long_help(format!("{PRECEDENCE}\n\n{examples}\n\n{EXIT_CODES}"))
        .args(SETTINGS.iter().map(|setting| argument(setting)))
        .arg(env_file())
        .arg(no_env_file())
        .arg(strays())
}

/// What bare `balancer` prints.
pub(super) const SHORT_HELP: &str = concat!(
    "balancer ",
    env!("CARGO_PKG_VERSION"),
    "   ",
    env!("CARGO_PKG_DESCRIPTION"),
    "

  balancer demo                                       see it at work, nothing to set up
  balancer check                                      is this host fit, are the settings right?
  balancer run --backend app-1:3000 --backend app-2:3000
                                                      share port 8080 between two servers
  balancer run --agent-port 4000 --target-port 3000   scores from a deployment agent
  balancer top                                        watch a running one
  balancer run --help                                 every option
"
);

const PRECEDENCE: &str = "A flag goes before the environment, the environment before .env, .env before the default. \
An empty variable counts as unset.";

const RUN_EXAMPLES: &str = "Examples:
  balancer run --backend 10.0.0.5:3000=80 --backend 10.0.0.6:3000=20
      fixed scores, no agent: four of five requests to the first
  balancer run --agent ws://agent.internal:4000/ws --target-port 3000
      scores from a deployment agent
  balancer run --cores 2-7 --control-core 0 --backend app-1:3000
      pinned where you want it
  HOST_PORT_WS_DEPLOYMENT_AGENT=4000 TARGET_PORT=3000 balancer run
      RustyBalancer's variables alone";

const CHECK_EXAMPLES: &str = "Examples:
  balancer check --backend app-1:3000
      would this start, and what could be better?
  balancer check --show-config
      what is in force, who said so, and every limit
  ExecStartPre=/usr/local/bin/balancer check
      in a unit: 3 (warnings) ends it as well, unless SuccessExitStatus=3";

const DEMO_EXAMPLES: &str = "Examples:
  balancer demo                 half a minute; its exit code is the verdict
  balancer demo --forever       until Ctrl-C, with the status page to watch
  balancer demo --quiet --for 5s";

const TOP_EXAMPLES: &str = "Examples:
  balancer top                          the balancer of this host
  balancer top --admin 127.0.0.1:9901   another one
  balancer top --once | grep draining

Keys: q or Ctrl-C quits, s sorts the backends by something else, the arrows scroll them.";

const COMPLETIONS_EXAMPLES: &str = "Examples:
  balancer completions bash > ~/.local/share/bash-completion/completions/balancer
  balancer completions fish > ~/.config/fish/completions/balancer.fish
  balancer completions zsh > ~/.zfunc/_balancer";

const EXIT_CODES: &str = "Exit codes:
  0   ended in good order; check: fit
  1   the host, an address, or a thread that ended; check: would not start
  2   the command line, the environment or .env
  3   check: would start, with warnings";

fn argument(setting: &'static Setting) -> Arg {
    let mut help = setting.help.to_owned();
    for (label, text) in [("env", setting.env), ("default", setting.default)] {
        if !text.is_empty() {
            help.push_str(&format!(" [{label}: {text}]"));
        }
    }
    let long = format!("{help}\nTakes {}", setting.want);
    let argument = Arg::new(setting.flag)
        .long(setting.flag)
        .value_name(setting.value)
        .help(help)
        .long_help(long)
        .help_heading(setting.group)
        // Appended even where one is wanted: the refusal of a second one is ours.
        .action(ArgAction::Append)
        .num_args(1)
        // `--request-timeout -1` is a wrong duration, not an unknown flag.
        .allow_hyphen_values(true)
        .value_parser(value_parser!(OsString));
    let argument = if setting.is_value_optional {
        // What begins with a dash is the next option then.
        argument.num_args(0..=1).default_missing_value("on").allow_hyphen_values(false)
    } else {
        argument
    };
    match setting.short {
        Some(short) => argument.short(short),
        None => argument,
    }
}

fn show_config() -> Arg {
    switch(SHOW_CONFIG, "Print every setting with its value and source, and every limit")
}

fn env_file() -> Arg {
    Arg::new(ENV_FILE)
        .long(ENV_FILE)
        .value_name("PATH")
        .help("File of KEY=value lines [default: .env in the working directory, if there is one]")
        .help_heading("Environment")
        .num_args(1)
        .value_parser(value_parser!(OsString))
        .value_hint(ValueHint::FilePath)
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

/// The completion script for the shell that is asked for.
pub(super) fn completions(flags: &ArgMatches) -> Result<String, Error> {
    let text = flags.get_one::<OsString>(SHELL).map(|text| text.to_string_lossy().into_owned());
    let wanted = |what: String| {
        let from = Error::new(what).from("the command line");
        from.want("bash, elvish, fish, powershell or zsh, for example balancer completions bash")
    };
    let Some(text) = text else { return Err(wanted("no shell is named".to_owned())) };
    let shell: Shell =
        text.parse().map_err(|_| wanted(format!("there is no shell {}", quoted(&text))))?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "balancer", &mut script);
    Ok(String::from_utf8_lossy(&script).into_owned())
}

/// The manual page: one for all commands, in roff.
pub(super) fn manual() -> String {
    let mut command = command();
    command.build();
    let mut page = Vec::new();
    // Writing into memory cannot fail.
    let _ = write_manual(&command, &mut page);
    String::from_utf8_lossy(&page).into_owned()
}

fn write_manual(command: &Command, out: &mut Vec<u8>) -> std::io::Result<()> {
    let man = Man::new(command.clone()).manual("balancer").date("");
    man.render_title(out)?;
    man.render_name_section(out)?;
    man.render_synopsis_section(out)?;
    man.render_description_section(out)?;
    for part in command.get_subcommands().filter(|part| part.get_name() != "help") {
        let mut options = Vec::new();
        // What `check` shares with `run` is told once.
        let own = match part.get_name() {
            "check" => Command::new("check").arg(show_config()).disable_help_flag(true),
            _ => part.clone(),
        };
        Man::new(own).render_options_section(&mut options)?;
        let title = format!("balancer {}", part.get_name());
        let about = part.get_about().map(ToString::to_string).unwrap_or_default();
        // Its headings stand below the command's.
        let options = String::from_utf8_lossy(&options).replace(".SH ", ".SS ");
        writeln!(out, ".SH \"{}\"\n{about}.\n{options}", title.to_uppercase())?;
        if let Some(examples) = part.get_after_long_help() {
            writeln!(out, ".PP\n.nf\n{}\n.fi", roff_text(&examples.to_string()))?;
        }
    }
    writeln!(out, ".SH \"EXIT CODES\"\n.nf\n{}\n.fi", roff_text(EXIT_CODES))
}

/// Text as roff prints it: a leading dot or quote would be a request, a backslash an escape.
fn roff_text(text: &str) -> String {
    let line = |line: &str| {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
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
                (None, None) => "one that balancer COMMAND --help names".to_owned(),
            };
            Error::new(format!("there is no option {}", quoted(flag)))
                .from("the command line")
                .want(want)
        }
        ErrorKind::InvalidSubcommand => Error::new(format!("there is no command {}", quoted(flag)))
            .from("the command line")
            .want(
                command.map_or("run, check, demo, top, completions or man".to_owned(), |command| {
                    format!("balancer {command}")
                }),
            ),
        ErrorKind::InvalidValue | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            let known =
                find(flag, SETTINGS).or(find(flag, DEMO_SETTINGS)).or(find(flag, TOP_SETTINGS));
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
pub(super) const ONCE: &str = "once";
const SHELL: &str = "shell";
pub(super) const SHOW_CONFIG: &str = "show-config";
pub(super) const ENV_FILE: &str = "env-file";
pub(super) const NO_ENV_FILE: &str = "no-env-file";
pub(super) const FOREVER: &str = "forever";
pub(super) const QUIET: &str = "quiet";
