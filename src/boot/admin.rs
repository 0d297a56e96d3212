//! The admin listener's socket on its way from the configuration to the control core.

use std::net::{SocketAddr, TcpListener};

use super::banner::agent_url;
use super::error::Error;
use crate::config::{Config, Stated};
use crate::control::admin::{Desk, Opening, Purger};
use crate::io::driver::Driver;
use crate::io::{Io, listen};

/// A bound socket, and what its listener will tell.
#[derive(Debug)]
pub struct AdminSocket {
    listener: TcpListener,
    /// The address really bound.
    pub address: SocketAddr,
    values: Vec<Stated>,
    awaits_ready: bool,
}

impl AdminSocket {
    /// Binds `address`; port 0 takes a free one. `inherited` is the socket of a running process, taken where it has that
    /// address: then that process answers there until this one is ready.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn bind(address: SocketAddr, inherited: Option<TcpListener>) -> Result<Self, Error> {
        let awaits_ready = inherited.is_some();
        let mut inherited = inherited.into_iter().collect();
        let mut bound = listen::adopt(&[address], 1, &mut inherited, None).map_err(Error::Admin)?;
        let listener = bound.workers.pop().and_then(|mut sockets| sockets.pop());
        let address = bound.addresses[0];
        let listener = listener.expect("one socket for one address and one worker");
        Ok(Self { listener, address, values: Vec::new(), awaits_ready })
    }

    /// The socket once more.
    pub(super) fn duplicate(&self) -> std::io::Result<TcpListener> {
        self.listener.try_clone()
    }

    /// The same, that knows the settings in force.
    pub(super) fn telling(self, values: Vec<Stated>) -> Self {
        Self { values, ..self }
    }

    /// On the control core.
    pub(super) fn desk(
        self,
        driver: &Driver,
        config: &Config,
        purge: Option<Purger>,
    ) -> Result<Desk<<Driver as Io>::Listener>, String> {
        let listener = driver.listener(self.listener);
        Ok(Desk {
            awaits_ready: self.awaits_ready,
            listener: listener
                .map_err(|error| format!("cannot watch the admin listener: {error}"))?,
            opening: Opening {
                listens_on: self.address,
                values: self.values,
                purge,
                agent_url: config.agent.as_ref().map(agent_url),
            },
        })
    }
}
