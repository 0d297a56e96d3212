//! The program: parse arguments, boot, exit code. 0 clean, 1 host or start, 2 usage or configuration.

use std::io::Write as _;
use std::process::ExitCode;

use balancer::cli::{self, Command, Environment};
use balancer::{boot, io::host};

fn main() -> ExitCode {
    let environment = Environment::of_process(host::raise_limits().nofile);
    match cli::parse(std::env::args_os(), &environment) {
        Ok(Command::Run(run)) => serve(&run),
        Ok(Command::Demo(demo)) => {
            start_log(&demo.log);
            fail("error: the demo is not built yet", 1)
        }
        Ok(Command::Text(text)) => print(&text),
        Err(error) => fail(error, cli::Error::EXIT_CODE),
    }
}

fn serve(run: &cli::Run) -> ExitCode {
    start_log(&run.log);
    for warning in &run.warnings {
        eprintln!("warning: {warning}");
    }
    match boot::run(&run.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, error.exit_code()),
    }
}

/// The global logger, to stderr; colours only on a terminal and without NO_COLOR.
fn start_log(filter: &str) {
    env_logger::Builder::new().parse_filters(filter).init();
}

/// A reader that closed the pipe (`balancer --help | head -1`) is no error.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            fail(format!("error: {error}"), 1)
        }
        _ => ExitCode::SUCCESS,
    }
}

fn fail(message: impl std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(code)
}
