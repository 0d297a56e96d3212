//! `balancer top`: a running balancer in the terminal, from its admin listener.
//!
//! `stream` listens on a thread, `view` says what is drawn, `figures` how numbers look; this file owns the terminal. It
//! is given back as it was found, whatever ends us: a key, a signal, an error, a panic.

mod figures;
mod stream;
mod view;

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Color, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    self, BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen,
};
use crossterm::{cursor, execute, queue};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::cli;
use stream::Word;
use view::{Line, Scene, Style};

/// Why there is nothing to look at.
#[derive(Debug)]
pub enum Error {
    /// The balancer does not answer: where, and why.
    Silent(SocketAddr, String),
    /// The terminal.
    Terminal(io::Error),
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(address, why) => write!(
                out,
                "error: no balancer answers at http://{address}: {why}\n  \
                 try     --admin with the address that its banner names"
            ),
            Self::Terminal(error) => write!(out, "error: the terminal: {error}"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Terminal(error)
    }
}

/// Shows what is asked for until it is told to stop; once, as plain text, when that is wished or there is no terminal.
///
/// # Errors
/// When nobody answers at all, or the terminal fails.
pub fn run(top: &cli::Top, has_colour: bool) -> Result<(), Error> {
    let words = stream::listen(top.admin)?;
    let mut scene = Scene { address: top.admin.to_string(), ..Scene::default() };
    first(&words, &mut scene).map_err(|why| Error::Silent(top.admin, why))?;
    if top.is_once || !io::stdout().is_terminal() {
        return print_once(&scene);
    }
    let is_stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&is_stopped))?;
    }
    let screen = Screen::open()?;
    let outcome = watch(&words, &mut scene, has_colour, &is_stopped);
    drop(screen);
    outcome
}

/// Waits until there is something to show; that it cannot be had is told at once.
fn first(words: &Receiver<Word>, scene: &mut Scene) -> Result<(), String> {
    loop {
        match words.recv() {
            Ok(Word::History(history)) => scene.recall(*history),
            Ok(Word::Frame(frame)) => {
                scene.hear(*frame);
                return Ok(());
            }
            Ok(Word::Lost(why)) => return Err(why),
            Err(_) => return Err("the reader has ended".to_owned()),
        }
    }
}

fn print_once(scene: &Scene) -> Result<(), Error> {
    let mut text = String::new();
    let mut lines = scene.draw(ONCE_WIDTH, ONCE_HEIGHT);
    // The keys mean nothing here.
    lines.pop();
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    for line in lines {
        let plain: String = line.into_iter().map(|(_, piece)| piece).collect();
        text.push_str(plain.trim_end());
        text.push('\n');
    }
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn watch(
    words: &Receiver<Word>,
    scene: &mut Scene,
    has_colour: bool,
    is_stopped: &AtomicBool,
) -> Result<(), Error> {
    let mut is_stale = true;
    while !is_stopped.load(Ordering::Relaxed) {
        for word in words.try_iter() {
            is_stale = true;
            match word {
                Word::History(history) => scene.recall(*history),
                Word::Frame(frame) => scene.hear(*frame),
                Word::Lost(why) => scene.lost = Some(why),
            }
        }
        if is_stale {
            is_stale = false;
            draw(scene, has_colour)?;
        }
        if !event::poll(LOOK_INTERVAL)? {
            continue;
        }
        is_stale = true;
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Release => is_stale = false,
            Event::Key(key) => match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                    return Ok(());
                }
                KeyCode::Char('s') => scene.sort = scene.sort.next(),
                KeyCode::Down | KeyCode::Char('j') => scene.scroll(1),
                KeyCode::Up | KeyCode::Char('k') => scene.scroll(-1),
                KeyCode::PageDown => scene.scroll(10),
                KeyCode::PageUp => scene.scroll(-10),
                _ => is_stale = false,
            },
            // The next drawing asks for the new size.
            Event::Resize(..) => {}
            _ => is_stale = false,
        }
    }
    Ok(())
}

/// One write, between the marks of a synchronized update: nothing flickers.
fn draw(scene: &Scene, has_colour: bool) -> io::Result<()> {
    let (width, height) = terminal::size()?;
    let mut out = Vec::new();
    queue!(out, BeginSynchronizedUpdate)?;
    for (row, line) in scene.draw(width.into(), height.into()).into_iter().enumerate() {
        queue!(out, cursor::MoveTo(0, row as u16))?;
        write_line(&mut out, line, has_colour)?;
        queue!(out, Clear(ClearType::UntilNewLine))?;
    }
    queue!(out, Clear(ClearType::FromCursorDown), EndSynchronizedUpdate)?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(&out)?;
    stdout.flush()
}

fn write_line(out: &mut Vec<u8>, line: Line, has_colour: bool) -> io::Result<()> {
    for (style, text) in line {
        let (attribute, colour) = match style {
            Style::Plain => (None, None),
            Style::Strong => (Some(Attribute::Bold), None),
            Style::Soft => (Some(Attribute::Dim), None),
            Style::Accent => (None, Some(Color::DarkCyan)),
            Style::Good => (None, Some(Color::DarkGreen)),
            Style::Warn => (Some(Attribute::Bold), Some(Color::DarkYellow)),
            Style::Bad => (Some(Attribute::Bold), Some(Color::DarkRed)),
        };
        if let Some(attribute) = attribute {
            queue!(out, SetAttribute(attribute))?;
        }
        if let Some(colour) = colour.filter(|_| has_colour) {
            queue!(out, SetForegroundColor(colour))?;
        }
        out.extend_from_slice(text.as_bytes());
        if attribute.is_some() || colour.is_some() {
            queue!(out, SetAttribute(Attribute::Reset), ResetColor)?;
        }
    }
    Ok(())
}

/// The terminal while it is ours. Dropping gives it back; a panic does so before it says anything.
struct Screen;

impl Screen {
    fn open() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
        terminal::enable_raw_mode()?;
        // From here on it is given back, even if the next step fails.
        let screen = Self;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        std::thread::spawn(end_with_the_terminal);
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// A terminal that hangs up ends us by a signal, unless whoever started us ignores it. Then reading keys would find an
/// end of input for ever, inside the reader and at full speed.
fn end_with_the_terminal() {
    while io::stdin().is_terminal() {
        std::thread::sleep(HANG_UP_INTERVAL);
    }
    std::process::exit(1);
}

fn restore() {
    // A terminal that is gone needs nothing back.
    let _ = execute!(io::stdout(), LeaveAlternateScreen, cursor::Show);
    let _ = terminal::disable_raw_mode();
}

/// How often the terminal is asked whether it is still there.
const HANG_UP_INTERVAL: Duration = Duration::from_secs(1);
/// How long a key may wait for its effect.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The sheet of `--once`.
const ONCE_WIDTH: usize = 140;
const ONCE_HEIGHT: usize = 60;
