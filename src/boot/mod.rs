//! From a [`Config`] to a running process: look at the host, bind, start one thread per core, drain on a signal.

mod access;
mod admin;
mod banner;
mod error;
pub mod plan;
mod preflight;
mod process;
mod takeover;

pub use access::AccessOutput;
pub use admin::AdminSocket;
pub use banner::{agent_url, banner};
pub use error::{Error, MEMLOCK_BYTES_MIN, TakeoverFault, bytes_text};
pub use preflight::{HostFacts, check_memlock, check_nofile, judge, preflight};
pub use process::{Ending, Process, Signal};
pub use takeover::{LIMITS as TAKEOVER_LIMITS, Predecessor, Successor, is_inhabited};

use std::io::IsTerminal as _;
use std::net::TcpListener;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{Config, Stated, Steer};
use crate::io::affinity::Cpus;
use crate::io::by_cpu;
use crate::io::handover::Sockets;
use crate::io::listen::{self, Listeners};
use crate::notify::Notifier;
use process::Prospect;
use takeover::Claim;

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
    succession: Option<Succession>,
}

/// Whom we take over from, if anybody, and what we are found by later.
#[derive(Debug)]
struct Succession {
    predecessor: Option<Predecessor>,
    claim: Claim,
    /// For after the predecessor: the sockets are its own until then.
    routing: Option<Routing>,
}

/// Which worker gets what a core receives (`--steer cpu`).
#[derive(Debug)]
struct Routing {
    listeners: Vec<TcpListener>,
    routes: Vec<by_cpu::Route>,
    siblings: usize,
}

impl Routing {
    fn of(config: &Config, listeners: &Listeners) -> std::io::Result<Self> {
        let mut routes = plan::routes(&Cpus::of_process(), &config.cores);
        routes.iter_mut().for_each(|route| route.worker %= listeners.siblings);
        let first = listeners.workers.first().into_iter().flatten();
        let first = first.map(TcpListener::try_clone).collect::<Result<_, _>>()?;
        Ok(Self { listeners: first, routes, siblings: listeners.siblings })
    }

    fn attach(&self) -> std::io::Result<()> {
        let mut listeners = self.listeners.iter();
        listeners.try_for_each(|listener| by_cpu::attach(listener, &self.routes, self.siblings))
    }
}

/// Everything that may fail before the first thread starts: preflight, then all listeners in core order.
pub fn prepare(config: &Config) -> Result<Prepared, Error> {
    let host = preflight()?;
    let access = config.access_log.as_ref().map(AccessOutput::open).transpose()?;
    let place = config.takeover.as_ref().map(takeover::path_of).transpose()?;
    let (predecessor, inherited) =
        place.as_deref().map(Predecessor::find).transpose()?.flatten().unzip();
    let Sockets { mut workers, admin } = inherited.unwrap_or_default();
    let mut kept = place.is_some().then(Vec::new);
    let listeners = listen::adopt(&config.listen, config.cores.len(), &mut workers, kept.as_mut())
        .map_err(Error::Listen)?;
    if let (Some(path), Some(Ok(address))) = (&place, workers.first().map(TcpListener::local_addr))
    {
        // Once the other process had drained, nobody would listen there any more.
        return Err(Error::Takeover(path.clone(), TakeoverFault::Elsewhere(address)));
    }
    let is_steered = config.steer == Steer::Cpu && listeners.siblings > 1;
    let routing = is_steered.then(|| Routing::of(config, &listeners)).transpose();
    let mut routing = routing.map_err(Error::Steer)?;
    if predecessor.is_none()
        && let Some(routing) = routing.take()
    {
        routing.attach().map_err(Error::Steer)?;
    }
    let admin = config.admin.map(|address| AdminSocket::bind(address, admin)).transpose()?;
    let succession = match (place, kept) {
        (Some(path), Some(workers)) => {
            let admin = admin.as_ref().and_then(|admin| admin.duplicate().ok());
            let claim = Claim::new(path, Sockets { workers, admin })?;
            Some(Succession { predecessor, claim, routing })
        }
        _ => None,
    };
    let banner =
        banner(config, &host, &listeners.addresses, admin.as_ref().map(|admin| admin.address));
    Ok(Prepared { host, listeners, admin, access, banner, succession })
}

/// `balancer run`: serves until told to stop. `values` are what the admin listener tells of the configuration; the
/// notifier hears how it goes.
///
/// # Errors
/// When the host is not fit, an address cannot be had, or a thread ends that should not.
pub fn run(config: &Config, values: Vec<Stated>, notifier: Notifier) -> Result<(), Error> {
    let began = Instant::now();
    let (tell, signals) = unbounded();
    watch_signals(config, tell.clone())?;
    let prepared = prepare(config)?;
    for warning in &prepared.host.warnings {
        eprintln!("warning: {warning}");
    }
    eprint!("{}", prepared.banner);
    let admin = prepared.admin.map(|admin| admin.telling(values));
    let access = prepared.access;
    let mut process = Process::stand_by(config, prepared.listeners.workers, admin, access)?;
    match prepared.succession {
        Some(succession) => {
            if !succeed(&mut process, succession, (tell, &signals), &notifier)? {
                eprintln!("stopped before anything was taken over");
                return Ok(());
            }
        }
        None => process.open(),
    }
    process.report_to(notifier);
    eprintln!("ready in {} ms", began.elapsed().as_millis());
    match process.serve(&signals, config.timeouts.drain)? {
        Ending::Drained => eprintln!("stopped: every request in flight got its answer"),
        Ending::Cut(n) => eprintln!("stopped: {n} connections were cut"),
    }
    Ok(())
}

/// Takes over from the predecessor, if there is one, and opens. From here on we can be found. False when told to stop
/// before: then nothing has changed.
fn succeed(
    process: &mut Process,
    Succession { predecessor, claim, routing }: Succession,
    (tell, signals): (Sender<Signal>, &Receiver<Signal>),
    notifier: &Notifier,
) -> Result<bool, Error> {
    let Some(predecessor) = predecessor else {
        process.keep(claim.publish(tell)?);
        process.open();
        return Ok(true);
    };
    match process.await_backend(signals) {
        Prospect::Usable => {}
        Prospect::Stopped => return Ok(false),
        // Without one we serve as well as anybody, if nobody else does any more.
        Prospect::None if predecessor.is_gone() => {}
        Prospect::None => return Err(predecessor.lacks_backend()),
    }
    predecessor.relieve()?;
    if let Some(Err(error)) = routing.map(|routing| routing.attach()) {
        log::warn!("connections go where the kernel's hash says: --steer cpu: {error}");
    }
    process.open();
    notifier.tell(&format!("MAINPID={}", std::process::id()));
    eprintln!("took the listeners over from process {}", predecessor.pid);
    match claim.publish(tell) {
        Ok(post) => process.keep(post),
        // Clients are served already, and by nobody else.
        Err(error) => log::warn!("nobody can take over from this process: {error}"),
    }
    Ok(true)
}

/// Tells once for each SIGTERM or SIGINT; and for each SIGHUP, if there is a file to re-open or no terminal that it
/// could tell the end of.
fn watch_signals(config: &Config, tell: Sender<Signal>) -> Result<(), Error> {
    let died = |error: std::io::Error| Error::ThreadDied("signals".to_owned(), error.to_string());
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(died)?;
    let has_file = config.access_log.as_ref().is_some_and(|log| log.path.is_some());
    if has_file || !std::io::stdin().is_terminal() {
        signals.add_signal(SIGHUP).map_err(died)?;
    }
    let thread = std::thread::Builder::new().name("signals".to_owned());
    let listen = move || {
        signals.forever().try_for_each(|signal| {
            let what = if signal == SIGHUP { Signal::Reopen } else { Signal::Stop };
            tell.send(what).map_err(drop)
        })
    };
    thread.spawn(listen).map_err(died).map(drop)
}
