//! `balancer demo`: an embedded agent, four embedded backends and a bounded load around the real workers and control.
//!
//! | file | does |
//! |---|---|
//! | `story` | tells and judges, scene by scene |
//! | `stage` | holds all parts, and the one way to wait |
//! | `agent`, `backend`, `load` | the world around the balancer |
//! | `pace` | keeps half of the machine free |
//! | `verdict` | the summary and whether it holds |
//! | `screen`, `view` | what is printed |
//!
//! Loopback and ephemeral ports only. It knows the process as `boot` offers it, and judges it by its answers and by the
//! figures its workers publish; no part of the proxy knows of it.

mod agent;
mod backend;
mod load;
mod pace;
mod port;
mod screen;
mod set;
mod stage;
mod story;
mod verdict;
mod view;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

pub use screen::{Screen, Style};
use stage::{Halt, Stage};
use verdict::Verdict;

use crate::{boot, cli};

/// Why the demo could not begin.
#[derive(Debug)]
pub enum Error {
    /// The process could not.
    Boot(boot::Error),
    /// Something around it could not: what, and what the host said.
    Host(&'static str, std::io::Error),
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot(error) => error.fmt(out),
            Self::Host(what, error) => write!(out, "error: the demo cannot {what}: {error}"),
        }
    }
}

/// Plays the demo on `screen`; whether everything it shows held.
///
/// # Errors
/// When it could not begin.
pub fn run(demo: &cli::Demo, screen: &Screen) -> Result<bool, Error> {
    let is_interrupted = interrupts().map_err(|error| Error::Host("watch for signals", error))?;
    let (rounds, length) = rounds(demo.length);
    let backoff_min = (length / 150).clamp(BACKOFF_LEAST, BACKOFF_MOST);
    let mut stage = Stage::build(backoff_min, screen.clone(), is_interrupted)?;
    let mut verdict = Verdict::default();
    let mut round = 0;
    while rounds.is_none_or(|rounds| round < rounds) {
        round += 1;
        if let Err(halt) = story::tell(&mut stage, &mut verdict, length) {
            match halt {
                Halt::Interrupted => verdict.interrupted(),
                Halt::Late(why) | Halt::Broken(why) => verdict.halted(why),
            }
            break;
        }
    }
    story::stop(&mut stage, &mut verdict);
    screen.draw(Vec::new());
    screen.conclude(&format!("\nsummary after {:.1} s", stage.elapsed().as_secs_f64()));
    verdict.lines().iter().for_each(|line| screen.conclude(line));
    Ok(verdict.holds())
}

/// How often the story is told (`None`: for ever), and how long it takes once.
fn rounds(length: Option<Duration>) -> (Option<u32>, Duration) {
    let Some(length) = length else { return (None, ROUND) };
    let rounds = (length.as_secs_f64() / ROUND.as_secs_f64()).round().max(1.0) as u32;
    (Some(rounds), length / rounds)
}

/// Set by the first SIGINT or SIGTERM; a second one ends the process at once.
fn interrupts() -> std::io::Result<Arc<AtomicBool>> {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, Arc::clone(&is_interrupted))?;
        flag::register(signal, Arc::clone(&is_interrupted))?;
    }
    Ok(is_interrupted)
}

/// The story at its own pace.
const ROUND: Duration = Duration::from_secs(30);
/// Bounds on the first wait between two dials: a short story has no time for long ones.
const BACKOFF_LEAST: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_demos_tell_the_story_more_than_once() {
        let s = Duration::from_secs;
        assert_eq!(rounds(Some(s(8))), (Some(1), s(8)));
        assert_eq!(rounds(Some(s(30))), (Some(1), s(30)));
        assert_eq!(rounds(Some(s(90))), (Some(3), s(30)));
        assert_eq!(rounds(Some(s(24 * 3600))), (Some(2880), s(30)));
        assert_eq!(rounds(None), (None, s(30)));
    }
}
