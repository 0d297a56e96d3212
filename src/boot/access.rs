//! The writer of the access log: one thread that takes whole buffers of the workers, writes them, and gives them back.
//!
//! It may be as slow as its disk: the workers drop lines then and never wait (see `worker::access`). Lines that it
//! cannot write are lost, told to the worker they came from, and spoken of once in a while. SIGHUP re-opens a file, so
//! that another program may move it away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::error::Error;
use crate::access_log::Format;
use crate::config::AccessLogConfig;
use crate::worker::{Batch, LogOutlet, Spare, lines_in};

/// An open place for the lines.
#[derive(Debug)]
pub struct AccessOutput {
    /// None: standard output.
    path: Option<PathBuf>,
    file: File,
    format: Format,
    /// Whether the last write ended within a line.
    is_torn: bool,
}

impl AccessOutput {
    /// Opens what `config` names; a file is created, or continued.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn open(config: &AccessLogConfig) -> Result<Self, Error> {
        let file = match &config.path {
            Some(path) => open(path).map_err(|error| Error::AccessLog(path.clone(), error))?,
            None => io::stdout()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|error| Error::AccessLog("/dev/stdout".into(), error))?
                .into(),
        };
        Ok(Self { path: config.path.clone(), file, format: config.format, is_torn: false })
    }

    /// How a line looks.
    pub const fn format(&self) -> Format {
        self.format
    }

    fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match open(path) {
            Ok(file) => {
                self.file = file;
                self.is_torn = false;
                log::info!("the access log {} is open anew", path.display());
            }
            Err(error) => log::error!(
                "the access log {} cannot be re-opened: {error}; the old file is written on",
                path.display()
            ),
        }
    }

    /// Writes whole lines; how many were lost, and why.
    fn write(&mut self, lines: &[u8]) -> (u64, Option<io::Error>) {
        if self.is_torn && self.write_some(b"\n").0 == 1 {
            self.is_torn = false;
        }
        let (written, error) = self.write_some(lines);
        self.is_torn |= lines[..written].last().is_some_and(|byte| *byte != b'\n');
        (lines_in(&lines[written..]), error)
    }

    fn write_some(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }
}

/// Readable by the group: what clients ask for is nobody else's business.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

enum Order {
    Reopen,
    /// Write what is there and end.
    Finish,
}

/// The thread.
pub(super) struct Writer {
    orders: Sender<Order>,
    has_ended: Receiver<()>,
}

impl Writer {
    /// Starts it.
    pub(super) fn start(output: AccessOutput, outlet: LogOutlet) -> Result<Self, Error> {
        let (orders, inbox) = unbounded();
        let (end, has_ended) = bounded::<()>(0);
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        let run = move || {
            let _end = end;
            Desk { output, outlet, lost: 0, told: None }.run(&inbox);
        };
        thread
            .spawn(run)
            .map_err(|error| Error::ThreadDied("access-log".to_owned(), error.to_string()))?;
        Ok(Self { orders, has_ended })
    }

    /// Lets it open its file anew.
    pub(super) fn reopen(&self) {
        // Without a writer there is no file.
        let _ = self.orders.send(Order::Reopen);
    }

    /// Lets it write what the workers left, for a moment at most: whoever reads a pipe may have stopped reading.
    pub(super) fn finish(self) {
        let _ = self.orders.send(Order::Finish);
        // It sends nothing: its end is what is waited for.
        let _ = self.has_ended.recv_timeout(FINISH_PATIENCE);
    }
}

struct Desk {
    output: AccessOutput,
    outlet: LogOutlet,
    /// Lines lost since it was last spoken of.
    lost: u64,
    told: Option<Instant>,
}

impl Desk {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            crossbeam_channel::select! {
                recv(self.outlet.full) -> batch => match batch {
                    Ok(batch) => self.write(batch),
                    Err(_) => return,
                },
                recv(orders) -> order => match order {
                    Ok(Order::Reopen) => {
                        // What was served before the signal belongs into the old file.
                        self.write_all();
                        self.output.reopen();
                    }
                    Ok(Order::Finish) | Err(_) => return self.write_all(),
                },
            }
        }
    }

    fn write_all(&mut self) {
        while let Ok(batch) = self.outlet.full.try_recv() {
            self.write(batch);
        }
    }

    fn write(&mut self, batch: Batch) {
        let Batch { worker, lines: mut buffer } = batch;
        let (lost, error) = self.output.write(&buffer);
        buffer.clear();
        // A worker that has ended needs it no more; else there is room.
        let _ = self.outlet.spares[worker].try_send(Spare { buffer, lost });
        self.lost += lost;
        if let Some(error) = error
            && self.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN_AFTER)
        {
            self.told = Some(Instant::now());
            let lost = std::mem::take(&mut self.lost);
            log::error!("the access log cannot be written: {error}; {lost} lines are lost");
        }
    }
}

/// How long the end of the process waits for the last lines.
const FINISH_PATIENCE: Duration = Duration::from_secs(1);
/// Between two words about lines that are lost.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// An output whose other end is a socket with little room and nobody who reads.
    #[test]
    fn what_cannot_be_written_is_counted_by_the_line_and_never_torn() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(near));
        let mut output = AccessOutput { path: None, file, format: Format::Short, is_torn: false };
        let lines = b"0123456789\n".repeat(1000);
        let mut lost = 0;
        let mut written = 0;
        while lost == 0 {
            written += 1000;
            lost = output.write(&lines).0;
        }
        let (all_lost, error) = output.write(&lines);
        assert_eq!((all_lost, error.map(|e| e.kind())), (1000, Some(io::ErrorKind::WouldBlock)));
        // Room again: the line that was torn ends, and a whole one follows.
        far.set_nonblocking(true).unwrap();
        let mut seen = Vec::new();
        let drain = |seen: &mut Vec<u8>| {
            let end = io::Read::read_to_end(&mut &far, seen).unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
        };
        drain(&mut seen);
        let torn = seen.len() % 11 != 0;
        assert_eq!(output.write(b"last\n").0, 0);
        drain(&mut seen);
        assert_eq!(lines_in(&seen), written - lost + u64::from(torn) + 1);
        assert!(seen.ends_with(b"\nlast\n"));
    }
}
