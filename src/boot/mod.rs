//! From a [`Config`] to a running process: look at the host, bind, start one thread per core, drain on a signal.

mod access;
mod admin;
mod banner;
mod error;
pub mod plan;
mod preflight;
mod process;

pub use access::AccessOutput;
pub use admin::AdminSocket;
pub use banner::{agent_url, banner};
pub use error::{Error, MEMLOCK_BYTES_MIN, bytes_text};
pub use preflight::{HostFacts, check_memlock, check_nofile, judge, preflight};
pub use process::{Ending, Process, Signal};

use std::io::IsTerminal as _;
use std::time::Instant;

use crossbeam_channel::{Receiver, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{Config, Stated, Steer};
use crate::io::affinity::Cpus;
use crate::io::by_cpu;
use crate::io::listen::{self, Listeners};
use crate::notify::Notifier;

/// A host found fit and listening; no thread runs yet.
#[derive(Debug)]
pub struct Prepared {
    /// What the host grants.
    pub host: HostFacts,
    /// Each worker's sockets, in core order. Connections already queue up in them.
    pub listeners: Listeners,
    /// The admin listener's socket, unless it is off.
    pub admin: Option<AdminSocket>,
    /// Where the access log goes, unless it is off.
    pub access: Option<AccessOutput>,
    /// The banner, each line ended.
    pub banner: String,
}

/// Everything that may fail before the first thread starts: preflight, then all listeners in core order.
pub fn prepare(config: &Config) -> Result<Prepared, Error> {
    let host = preflight()?;
    let access = config.access_log.as_ref().map(AccessOutput::open).transpose()?;
    let listeners = listen::bind(&config.listen, config.cores.len()).map_err(Error::Listen)?;
    if config.steer == Steer::Cpu && config.cores.len() > 1 {
        let routes = plan::routes(&Cpus::of_process(), &config.cores);
        for listener in listeners.workers.first().into_iter().flatten() {
            by_cpu::attach(listener, &routes, config.cores.len()).map_err(Error::Steer)?;
        }
    }
    let admin = config.admin.map(AdminSocket::bind).transpose()?;
    let banner =
        banner(config, &host, &listeners.addresses, admin.as_ref().map(|admin| admin.address));
    Ok(Prepared { host, listeners, admin, access, banner })
}

/// `balancer run`: serves until told to stop. `values` are what the admin listener tells of the configuration; the
/// notifier hears how it goes.
///
/// # Errors
/// When the host is not fit, an address cannot be had, or a thread ends that should not.
pub fn run(config: &Config, values: Vec<Stated>, notifier: Notifier) -> Result<(), Error> {
    let began = Instant::now();
    let signals = watch_signals(config)?;
    let prepared = prepare(config)?;
    for warning in &prepared.host.warnings {
        eprintln!("warning: {warning}");
    }
    eprint!("{}", prepared.banner);
    let admin = prepared.admin.map(|admin| admin.telling(values));
    let access = prepared.access;
    let mut process = Process::start(config, prepared.listeners.workers, admin, access)?;
    process.report_to(notifier);
    eprintln!("ready in {} ms", began.elapsed().as_millis());
    match process.serve(&signals, config.timeouts.drain)? {
        Ending::Drained => eprintln!("stopped: every request in flight got its answer"),
        Ending::Cut(n) => eprintln!("stopped: {n} connections were cut"),
    }
    Ok(())
}

/// Yields once for each SIGTERM or SIGINT; and for each SIGHUP, if there is a file to re-open or no terminal that it
/// could tell the end of.
fn watch_signals(config: &Config) -> Result<Receiver<Signal>, Error> {
    let died = |error: std::io::Error| Error::ThreadDied("signals".to_owned(), error.to_string());
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(died)?;
    let has_file = config.access_log.as_ref().is_some_and(|log| log.path.is_some());
    if has_file || !std::io::stdin().is_terminal() {
        signals.add_signal(SIGHUP).map_err(died)?;
    }
    let (tell, told) = unbounded();
    let thread = std::thread::Builder::new().name("signals".to_owned());
    let listen = move || {
        signals.forever().try_for_each(|signal| {
            let what = if signal == SIGHUP { Signal::Reopen } else { Signal::Stop };
            tell.send(what).map_err(drop)
        })
    };
    thread.spawn(listen).map_err(died)?;
    Ok(told)
}
