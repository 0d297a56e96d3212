//! A terminal of a certain size that can be read, resized and typed into: tmux, on a socket of its own.
//!
//! A machine without it skips, loudly.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::{parts, wait};

/// A shell in a terminal; dropping it ends both.
pub struct Terminal {
    program: PathBuf,
    directory: PathBuf,
}

impl Terminal {
    /// So many columns and rows, or `None` where there is no tmux.
    pub fn open(columns: u32, rows: u32) -> Option<Self> {
        let terminal = Self { program: parts::find("tmux")?, directory: parts::scratch() };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let shell = "env -i TERM=tmux-256color LANG=C.UTF-8 PS1='READY> ' bash --norc --noprofile";
        let started = terminal.tmux(&["new-session", "-d", "-x", &columns, "-y", &rows, shell]);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        terminal.until("the shell is ready", |text| text.contains("READY>"));
        Some(terminal)
    }

    /// Types a line into it.
    pub fn enter(&self, line: &str) {
        assert!(self.tmux(&["send-keys", "-l", line]).status.success());
        self.press("Enter");
    }

    /// Presses a key, by tmux's name.
    pub fn press(&self, key: &str) {
        assert!(self.tmux(&["send-keys", key]).status.success());
    }

    /// Makes it so large.
    pub fn resize(&self, columns: u32, rows: u32) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        assert!(self.tmux(&["resize-window", "-x", &columns, "-y", &rows]).status.success());
    }

    /// What stands on it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.tmux(&["capture-pane", "-p"]).stdout).into_owned()
    }

    /// Whether a program has it all for itself.
    pub fn is_alternate(&self) -> bool {
        let shown = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        String::from_utf8_lossy(&shown.stdout).starts_with('1')
    }

    /// Whether its cursor shows.
    pub fn has_cursor(&self) -> bool {
        let shown = self.tmux(&["display-message", "-p", "#{cursor_flag}"]);
        String::from_utf8_lossy(&shown.stdout).trim() == "1"
    }

    /// Waits until what stands on it is as wished.
    pub fn until(&self, what: &str, mut is_so: impl FnMut(&str) -> bool) {
        let mut last = String::new();
        let came = wait::happens(PATIENCE, || {
            last = self.text();
            is_so(&last)
        });
        assert!(came, "waited {PATIENCE:?} in vain: {what}\n{last}");
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.arg("-S").arg(self.directory.join("tmux")).args(["-f", "/dev/null"]);
        command.args(arguments).env("LANG", "C.UTF-8").stdin(Stdio::null());
        command.output().expect("tmux runs")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The server on our own socket: nobody else's sessions are in it.
        self.tmux(&["kill-server"]);
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
