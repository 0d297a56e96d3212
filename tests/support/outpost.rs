//! An origin in a process of its own, which can be killed, stopped and started again: the test binary once more, told by
//! its environment to be one.
//!
//! It ends with its parent: its standard input ends then.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::origin::Origin;
use super::wait;

/// A running process; dropping it kills it.
pub struct Outpost {
    name: String,
    address: SocketAddr,
    child: Child,
}

impl Outpost {
    /// A process on a free port whose answers say `name`.
    pub fn start(name: &str) -> Self {
        Self::start_at(name, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn start_at(name: &str, at: SocketAddr) -> Self {
        let binary = std::env::current_exe().expect("the test binary");
        let mut command = Command::new(binary);
        command.args(["--exact", TEST, "--nocapture"]).env(VARIABLE, format!("{name}@{at}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("the test binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let address = lines.find_map(|line| {
            let line = line.expect("UTF-8");
            line.split_once(GREETING)?.1.trim().parse().ok()
        });
        // It says nothing more, and its pipe may break.
        Self { name: name.to_owned(), address: address.expect("it says where it is"), child }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGKILL; returns once the kernel has buried it.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it has ended");
    }

    /// The same again, at the same place.
    pub fn restart(&mut self) {
        *self = Self::start_at(&self.name, self.address);
    }

    /// It stops where it is: the kernel still accepts its connections, and nobody answers.
    pub fn freeze(&self) {
        self.signal("STOP");
        let path = format!("/proc/{}/stat", self.child.id());
        wait::until("it has stopped", Duration::from_secs(5), || {
            let stat = std::fs::read_to_string(&path).expect("it exists");
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        });
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &script]).status().expect("a shell");
        assert!(sent.success(), "{script}");
    }
}

impl Drop for Outpost {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the test of the name [`TEST`] does: nothing, unless it was started by [`Outpost::start`].
pub fn serve_if_told() {
    let Ok(told) = std::env::var(VARIABLE) else { return };
    let (name, at) = told.split_once('@').expect("name@address");
    let at: SocketAddr = at.parse().expect("an address");
    // A predecessor's connections may hold the port for a moment.
    let origin = wait::value("the port is free", Duration::from_secs(10), || {
        Origin::start_at(name, at).ok()
    });
    origin.forget();
    println!("{GREETING}{}", origin.address());
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).expect("stdin");
}

const TEST: &str = "health::an_outpost_serves";
const VARIABLE: &str = "BALANCER_TEST_OUTPOST";
const GREETING: &str = "outpost at ";
