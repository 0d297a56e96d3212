//! The program: parse arguments, boot, exit code. 0 clean, 1 host or start, 2 usage or configuration, 3 check with
//! warnings.

use std::ffi::OsStr;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use balancer::cli::{self, Command, Environment};
use balancer::demo::{self, Screen, Style};
use balancer::notify::Notifier;
use balancer::{boot, check, io::host, top};
use env_logger::Target;

fn main() -> ExitCode {
    let environment = Environment::of_process(host::raise_limits().nofile);
    match cli::parse(std::env::args_os(), &environment) {
        Ok(Command::Run(run)) => serve(&run, &environment),
        Ok(Command::Check(check)) => {
            let (text, code) = check::examine(&check);
            print(&text, code)
        }
        Ok(Command::Demo(demo)) => show(&demo),
        Ok(Command::Top(top)) => match top::run(&top, has_colour()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(error, 1),
        },
        Ok(Command::Text(text)) => print(&text, 0),
        Err(error) => fail(error, cli::Error::EXIT_CODE),
    }
}

fn serve(run: &cli::Run, environment: &Environment) -> ExitCode {
    start_log(&run.log, Target::Stderr);
    for warning in &run.warnings {
        eprintln!("warning: {warning}");
    }
    let variable = |name: &str| environment.variables.get(OsStr::new(name)).cloned();
    let notifier = Notifier::new(variable, std::process::id());
    match boot::run(&run.config, run.stated(), notifier) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.exit_code()),
    }
}

/// The demo ends with 0 when everything it shows held, with 1 otherwise.
fn show(demo: &cli::Demo) -> ExitCode {
    let stdout = std::io::stdout();
    let is_live = stdout.is_terminal() && has_colour();
    let style = match (demo.is_quiet, is_live) {
        (true, _) => Style::Quiet,
        (false, true) => Style::Live,
        (false, false) => Style::Plain,
    };
    let screen = Screen::new(style, Box::new(stdout));
    let target = match style {
        // On a terminal the log must keep out of the block that is rewritten.
        Style::Live => Target::Pipe(Box::new(screen.log())),
        Style::Plain | Style::Quiet => Target::Stderr,
    };
    start_log(&demo.log, target);
    match demo::run(demo, &screen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(error, 1),
    }
}

/// Whether the terminal may be spoken to in more than letters (no-color.org).
fn has_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty())
        && std::env::var_os("TERM").is_none_or(|text| text != "dumb")
}

/// The global logger; colours only on a terminal and without NO_COLOR.
fn start_log(filter: &str, target: Target) {
    let mut log = env_logger::Builder::new();
    log.parse_filters(filter).target(target).format_timestamp_millis().init();
}

/// A reader that closed the pipe (`balancer --help | head -1`) is no error.
fn print(text: &str, code: u8) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(format!("error: {error}"), 1)
        }
        _ => ExitCode::from(code),
    }
}

fn fail(message: impl std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(code)
}
