//! From a [`Config`] to a running process: look at the host, bind, start one thread per core, drain on a signal.

mod banner;
mod error;
pub mod plan;
mod preflight;

pub use banner::{agent_url, banner};
pub use error::{Error, MEMLOCK_BYTES_MIN};
pub use preflight::{HostFacts, preflight};

use crate::config::Config;
use crate::io::listen::{self, Listeners};

/// A host found fit and listening; no thread runs yet.
#[derive(Debug)]
pub struct Prepared {
    /// What the host grants.
    pub host: HostFacts,
    /// Each worker's sockets, in core order. Connections already queue up in them.
    pub listeners: Listeners,
    /// The banner, each line ended.
    pub banner: String,
}

/// Everything that may fail before the first thread starts: preflight, then all listeners in core order.
pub fn prepare(config: &Config) -> Result<Prepared, Error> {
    let host = preflight()?;
    let listeners = listen::bind(&config.listen, config.cores.len()).map_err(Error::Listen)?;
    let banner = banner(config, &host, &listeners.addresses);
    Ok(Prepared { host, listeners, banner })
}

/// `balancer run`: serves until told to stop.
pub fn run(config: &Config) -> Result<(), Error> {
    let prepared = prepare(config)?;
    for warning in &prepared.host.warnings {
        eprintln!("warning: {warning}");
    }
    eprint!("{}", prepared.banner);
    // Here the threads start: prepared.listeners.workers[i] belongs to config.cores[i].
    Ok(())
}
