//! What is printed where: story lines that stay, a block below them that is rewritten, log lines between.
//!
//! On a terminal all three share it, so all three pass through here. A terminal that is gone takes nothing away from
//! the demo: its exit code is the result, so errors of printing are ignored.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much is printed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Story lines, and a block that is rewritten: for a terminal.
    Live,
    /// Story lines alone.
    Plain,
    /// The summary alone.
    Quiet,
}

/// The terminal, or whatever stdout is.
#[derive(Clone)]
pub struct Screen {
    style: Style,
    paper: Arc<Mutex<Paper>>,
}

struct Paper {
    out: Box<dyn Write + Send>,
    /// Lines of the block that stand on the terminal now.
    block: Vec<String>,
}

impl Screen {
    /// Prints to `out`.
    pub fn new(style: Style, out: Box<dyn Write + Send>) -> Self {
        Self { style, paper: Arc::new(Mutex::new(Paper { out, block: Vec::new() })) }
    }

    /// Whether there is a block.
    pub const fn style(&self) -> Style {
        self.style
    }

    /// A writer of whole lines that keeps them apart from the block.
    pub fn log(&self) -> impl Write + Send + 'static {
        Log { paper: Arc::clone(&self.paper), held: Vec::new() }
    }

    /// A line of the story.
    pub(super) fn say(&self, line: &str) {
        if self.style != Style::Quiet {
            self.paper().line(line);
        }
    }

    /// A line of the summary.
    pub(super) fn conclude(&self, line: &str) {
        self.paper().line(line);
    }

    /// Rewrites the block.
    pub(super) fn draw(&self, block: Vec<String>) {
        if self.style == Style::Live {
            let mut paper = self.paper();
            let mut text = paper.erasure();
            paper.block = block;
            text.push_str(&paper.block_text());
            paper.print(&text);
        }
    }

    fn paper(&self) -> MutexGuard<'_, Paper> {
        self.paper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Paper {
    /// One write, so that the block never flickers.
    fn line(&mut self, line: &str) {
        let text = format!("{}{line}\n{}", self.erasure(), self.block_text());
        self.print(&text);
    }

    fn print(&mut self, text: &str) {
        // See the head of this file.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }

    /// Up to the block's first line, and all of it gone.
    fn erasure(&self) -> String {
        match self.block.len() {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        }
    }

    /// Lines that are too long are cut off by the terminal: a wrapped one would count as two.
    fn block_text(&self) -> String {
        if self.block.is_empty() {
            return String::new();
        }
        format!("\x1b[?7l{}\n\x1b[?7h", self.block.join("\n"))
    }
}

struct Log {
    paper: Arc<Mutex<Paper>>,
    held: Vec<u8>,
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        while let Some(end) = self.held.iter().position(|&byte| byte == b'\n') {
            let line = String::from_utf8_lossy(&self.held[..end]).into_owned();
            self.held.drain(..=end);
            self.paper.lock().unwrap_or_else(PoisonError::into_inner).line(&line);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Sheet(Arc<Mutex<Vec<u8>>>);

    impl Write for Sheet {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(style: Style, act: impl FnOnce(&Screen)) -> String {
        let sheet = Sheet::default();
        act(&Screen::new(style, Box::new(sheet.clone())));
        String::from_utf8(sheet.0.lock().unwrap().clone()).unwrap()
    }

    fn show(screen: &Screen) {
        screen.say("one");
        screen.draw(vec!["block".to_owned(), "of two".to_owned()]);
        screen.say("two");
        screen.draw(vec![]);
        screen.conclude("end");
    }

    #[test]
    fn plain_has_no_block_and_quiet_no_story() {
        assert_eq!(printed(Style::Plain, show), "one\ntwo\nend\n");
        assert_eq!(printed(Style::Quiet, show), "end\n");
    }

    #[test]
    fn the_block_stays_below_the_story() {
        let block = "\x1b[?7lblock\nof two\n\x1b[?7h";
        let erase = "\x1b[2A\r\x1b[J";
        assert_eq!(
            printed(Style::Live, show),
            format!("one\n{block}{erase}two\n{block}{erase}end\n")
        );
    }

    #[test]
    fn log_lines_stand_above_the_block_however_they_come() {
        let text = printed(Style::Live, |screen| {
            screen.draw(vec!["block".to_owned()]);
            let mut log = screen.log();
            log.write_all(b"WARN o").unwrap();
            log.write_all(b"ne\nWARN two\nrest").unwrap();
        });
        let block = "\x1b[?7lblock\n\x1b[?7h";
        let erase = "\x1b[1A\r\x1b[J";
        assert_eq!(text, format!("{block}{erase}WARN one\n{block}{erase}WARN two\n{block}"));
    }
}
