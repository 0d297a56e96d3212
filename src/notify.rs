//! What systemd is told (sd_notify(3)): ready, stopping, how it goes, and that no worker is stuck.
//!
//! One datagram per word to `$NOTIFY_SOCKET`, never waited for; without that variable nothing happens at all. The
//! watchdog is fed only while every worker shows signs of life: a core that hangs gets the process restarted, which is
//! what `WatchdogSec=` asks for. A worker's sign of life is a beat that moved ([`Published::beat_ns`]): every second at
//! rest.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::metrics::Published;

/// The way to whoever started us.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says; `pid` is ours. What is wrong with it is logged and then ignored: that nobody hears of us
    /// is no reason not to serve.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>, pid: u32) -> Self {
        let Some(address) = variable("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Self::default();
        };
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_ours =
            variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(pid.into());
        let watchdog = number("WATCHDOG_USEC").filter(|&us| is_ours && us > 0);
        match connect(address.as_bytes()) {
            Ok(socket) => {
                Self { socket: Some(socket), watchdog: watchdog.map(Duration::from_micros) }
            }
            Err(error) => {
                log::warn!("NOTIFY_SOCKET {} cannot be used: {error}", address.display());
                Self::default()
            }
        }
    }

    /// Says `words`: lines of `NAME=value`.
    pub fn tell(&self, words: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(words.as_bytes())
        {
            // It says so again soon, or is restarted for it.
            log::debug!("systemd was not told {words:?}: {error}");
        }
    }
}

fn connect(address: &[u8]) -> io::Result<UnixDatagram> {
    let address = match address {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Looks after the workers for the notifier.
#[derive(Debug, Default)]
pub struct Vigil {
    notifier: Notifier,
    pulses: Vec<Pulse>,
    looked: Option<Instant>,
    status: String,
    is_stopping: bool,
}

#[derive(Debug)]
struct Pulse {
    core: usize,
    beat_ns: u64,
    moved: Instant,
    is_stuck: bool,
}

impl Vigil {
    /// Over workers on these cores, which are all listening: says so.
    pub fn begin(notifier: Notifier, cores: &[usize], now: Instant) -> Self {
        let pulse = |&core| Pulse { core, beat_ns: 0, moved: now, is_stuck: false };
        let status = "serving".to_owned();
        notifier.tell(&format!("READY=1\nSTATUS={status}"));
        Self {
            notifier,
            pulses: cores.iter().map(pulse).collect(),
            looked: None,
            status,
            is_stopping: false,
        }
    }

    /// Process `pid` serves now. It speaks from here on, and this one is silent: what it said of its end would be taken for
    /// the end of the service.
    pub fn hand_over(&mut self, pid: u32) {
        self.notifier.tell(&format!("MAINPID={pid}"));
        self.notifier = Notifier::default();
    }

    /// From here on what is in flight comes to its end.
    pub fn stopping(&mut self) {
        self.is_stopping = true;
        self.notifier.tell("STOPPING=1");
    }

    /// Until when the next look can wait.
    pub fn wait(&self, now: Instant) -> Duration {
        if self.notifier.socket.is_none() {
            return Duration::MAX;
        }
        let next = self.looked.map_or(now, |looked| looked + self.interval());
        next.saturating_duration_since(now)
    }

    /// Feeds the watchdog unless a worker is stuck, and tells what is new. `workers` are those that have not ended, by
    /// their place in core order.
    pub fn look<'a>(
        &mut self,
        now: Instant,
        workers: impl Iterator<Item = (usize, &'a Published)> + Clone,
    ) {
        if !self.wait(now).is_zero() {
            return;
        }
        self.looked = Some(now);
        let mut stuck = None;
        for (place, published) in workers.clone() {
            let pulse = &mut self.pulses[place];
            let beat_ns = published.beat_ns();
            if beat_ns != pulse.beat_ns {
                (pulse.beat_ns, pulse.moved) = (beat_ns, now);
            }
            let silent = now.saturating_duration_since(pulse.moved);
            let is_stuck = silent >= STUCK_AFTER;
            if is_stuck != pulse.is_stuck {
                match is_stuck {
                    true => log::error!(
                        "core {} has shown no sign of life for {} s: the watchdog is fed no more",
                        pulse.core,
                        silent.as_secs()
                    ),
                    false => log::warn!("core {} shows signs of life again", pulse.core),
                }
                pulse.is_stuck = is_stuck;
            }
            stuck = stuck.or(is_stuck.then_some(pulse.core));
        }
        let mut words = String::new();
        if stuck.is_none() && self.notifier.watchdog.is_some() {
            words.push_str("WATCHDOG=1\n");
        }
        let status = match stuck {
            Some(core) => format!("core {core} is stuck"),
            None => self.summary(workers.map(|(_, published)| published)),
        };
        if status != self.status {
            words.push_str("STATUS=");
            words.push_str(&status);
            self.status = status;
        }
        if !words.is_empty() {
            self.notifier.tell(words.trim_end());
        }
    }

    fn summary<'a>(&self, workers: impl Iterator<Item = &'a Published>) -> String {
        let (mut n, mut connections, mut in_flight) = (0_u64, 0, 0);
        for worker in workers {
            n += 1;
            connections += worker.connections();
            in_flight += worker.gauges().in_flight;
        }
        let stage = if self.is_stopping { "draining" } else { "serving" };
        format!("{stage}: {n} workers, {connections} connections, {in_flight} requests in flight")
    }

    /// Half of the watchdog's patience or less, as sd_watchdog_enabled(3) asks; and often enough for a status.
    fn interval(&self) -> Duration {
        let watchdog = self.notifier.watchdog.map_or(LOOK_INTERVAL, |patience| patience / 3);
        watchdog.min(LOOK_INTERVAL)
    }
}

/// Longest pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A worker at rest beats every second; one that has not for so long hangs.
const STUCK_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    /// A notifier with a patience of `watchdog`, and what it says.
    fn pair(watchdog: Option<Duration>) -> (Notifier, UnixDatagram) {
        let (near, far) = UnixDatagram::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        (Notifier { socket: Some(near), watchdog }, far)
    }

    fn heard(far: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 512];
        std::iter::from_fn(|| {
            far.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned())
        })
        .collect()
    }

    #[test]
    fn the_watchdog_is_fed_only_while_every_worker_beats() {
        let (notifier, far) = pair(Some(Duration::from_secs(6)));
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut vigil = Vigil::begin(notifier, &[2, 3], start);
        assert_eq!(heard(&far), ["READY=1\nSTATUS=serving"]);
        let workers = [Published::new(1), Published::new(1)];
        let all = || workers.iter().enumerate();
        workers.iter().for_each(|worker| worker.store_beat(1));
        vigil.look(at(0), all());
        let serving = "STATUS=serving: 2 workers, 0 connections, 0 requests in flight";
        assert_eq!(heard(&far), [format!("WATCHDOG=1\n{serving}")]);
        assert_eq!(vigil.wait(at(0)), Duration::from_secs(2));
        vigil.look(at(1), all());
        assert_eq!(heard(&far), [""; 0], "too early");
        for secs in [2, 4] {
            workers[0].store_beat(secs);
            vigil.look(at(secs), all());
            assert_eq!(heard(&far), ["WATCHDOG=1"], "the second is silent, but not for long");
        }
        workers[0].store_beat(6);
        vigil.look(at(6), all());
        assert_eq!(heard(&far), ["STATUS=core 3 is stuck"]);
        vigil.look(at(8), all().take(1));
        assert!(heard(&far)[0].starts_with("WATCHDOG=1\nSTATUS=serving: 1 workers, "));
        workers.iter().for_each(|worker| worker.store_beat(10));
        vigil.stopping();
        vigil.look(at(10), all());
        let drained = heard(&far);
        assert_eq!(drained[0], "STOPPING=1");
        assert!(drained[1].starts_with("WATCHDOG=1\nSTATUS=draining: 2 workers, "), "{drained:?}");
    }

    #[test]
    fn who_has_handed_over_is_silent() {
        let (notifier, far) = pair(Some(Duration::from_secs(6)));
        let now = Instant::now();
        let mut vigil = Vigil::begin(notifier, &[0], now);
        vigil.hand_over(4711);
        vigil.stopping();
        let worker = Published::new(1);
        vigil.look(now, [(0, &worker)].into_iter());
        assert_eq!(heard(&far), ["READY=1\nSTATUS=serving", "MAINPID=4711"]);
        assert_eq!(vigil.wait(now), Duration::MAX);
    }

    #[test]
    fn without_a_watchdog_it_is_not_fed_and_without_a_socket_nothing_is_said() {
        let (notifier, far) = pair(None);
        let now = Instant::now();
        let mut vigil = Vigil::begin(notifier, &[0], now);
        let worker = Published::new(1);
        vigil.look(now, [(0, &worker)].into_iter());
        assert!(heard(&far).iter().all(|words| !words.contains("WATCHDOG")));
        let mut vigil = Vigil::begin(Notifier::default(), &[0], now);
        assert_eq!(vigil.wait(now), Duration::MAX);
        vigil.look(now, [(0, &worker)].into_iter());
    }

    #[test]
    fn the_environment_decides() {
        let name = format!("balancer-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _far = UnixDatagram::bind_addr(&address).unwrap();
        let socket = format!("@{name}");
        for (variables, watchdog) in [
            (&[("WATCHDOG_USEC", "3000000")][..], Some(3)),
            (&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "7")], Some(3)),
            (&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "8")], None),
            (&[("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "x")], None),
            (&[("WATCHDOG_USEC", "0")], None),
            (&[("WATCHDOG_USEC", "soon")], None),
            (&[], None),
        ] {
            let variable = |name: &str| {
                let given = [("NOTIFY_SOCKET", socket.as_str())];
                let mut all = given.iter().chain(variables);
                all.find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            };
            let notifier = Notifier::new(variable, 7);
            assert!(notifier.socket.is_some());
            assert_eq!(notifier.watchdog, watchdog.map(Duration::from_secs), "{variables:?}");
        }
        for socket in ["", "/nowhere/at/all", "@", "relative"] {
            let variable = |name: &str| (name == "NOTIFY_SOCKET").then(|| socket.into());
            assert!(Notifier::new(variable, 7).socket.is_none(), "{socket:?}");
        }
    }
}
