//! The real binary as a child process: started, waited for by its own words, measured, stopped.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::client::Client;
use super::origin::Origin;
use super::wait;

/// A running `balancer run`; dropping it kills it, and prints its log when the test is failing.
pub struct Balancer {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    reading: Option<JoinHandle<()>>,
    directory: PathBuf,
}

/// A `balancer run` that ended before it was ready.
#[derive(Debug)]
pub struct Refused {
    /// The exit code.
    pub code: Option<i32>,
    /// What it wrote to stderr.
    pub text: String,
}

impl Balancer {
    /// `balancer run --listen 127.0.0.1:0 --target-port 9 FLAGS…`, ready; FLAGS may have another target port. Backends name their ports; one that does not
    /// is sent to where nobody listens.
    pub fn run(flags: &[&str]) -> Self {
        let target_port: &[&str] =
            if flags.contains(&"--target-port") { &[] } else { &["--target-port", "9"] };
        let all = [&["--listen", "127.0.0.1:0"], target_port, flags].concat();
        Self::try_run(&all, &[])
            .unwrap_or_else(|refused| panic!("balancer run {flags:?}: {refused:?}"))
    }

    /// As [`Balancer::run`], with these origins and scores as static backends.
    pub fn before(backends: &[(&Origin, u32)], flags: &[&str]) -> Self {
        let backends: Vec<String> = backends
            .iter()
            .map(|(origin, score)| format!("{}={score}", origin.authority()))
            .collect();
        let named: Vec<&str> = backends.iter().flat_map(|backend| ["--backend", backend]).collect();
        Self::run(&[&named, flags].concat())
    }

    /// `balancer run FLAGS…` with exactly these variables in its environment, and ready, or how it ended.
    /// It runs in an empty directory, so that no `.env` reaches it.
    pub fn try_run(flags: &[&str], env: &[(&str, &str)]) -> Result<Self, Refused> {
        let directory = super::parts::scratch();
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        command.arg("run").args(flags).env_clear().current_dir(&directory);
        command.env("BALANCER_ADMIN", "off").env("RUST_LOG", "info").envs(env.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let reading = thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let unspecified = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut balancer =
            Self { child, address: unspecified, log, reading: Some(reading), directory };
        let mut code = None;
        wait::until("the balancer is ready or has ended", START, || {
            code = balancer.child.try_wait().expect("the child can be waited for");
            code.is_some()
                || balancer.log().iter().any(|line| line.trim_start().starts_with("ready in"))
        });
        if let Some(status) = code {
            balancer.join_log();
            return Err(Refused { code: status.code(), text: balancer.log().join("\n") });
        }
        balancer.address =
            balancer.log().iter().find_map(|line| address_in(line)).expect("the banner's address");
        Ok(balancer)
    }

    /// Where it serves; an unspecified host in the banner becomes loopback.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its admin listener is; it needs `--admin 127.0.0.1:0` among its flags.
    pub fn admin(&self) -> SocketAddr {
        let log = self.log();
        let text = log.iter().find_map(|line| line.split_once("admin http://"));
        text.expect("the banner names it").1.trim().parse().expect("an address")
    }

    /// Waits until every core has a backend to ask; it needs an admin listener, too.
    pub fn until_ready(&self) {
        let admin = self.admin();
        let mut client = Client::connect(admin);
        let ask = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\n\r\n");
        wait::until("it is ready", READY, || {
            client.send(ask.as_bytes()).expect("sent");
            client.response("GET").expect("an answer").status() == 200
        });
    }

    /// Lines on stderr so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Log lines at level WARN so far.
    pub fn warnings(&self) -> Vec<String> {
        self.log().into_iter().filter(|line| line.contains("WARN")).collect()
    }

    /// Resident memory of the process in KiB.
    pub fn resident_kib(&self) -> u64 {
        let text = status_of(&self.child.id().to_string(), "VmRSS:");
        text.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number of KiB")
    }

    /// Memory of the process in KiB: what is resident, and its files in memory, which no page table shows.
    pub fn memory_kib(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;

        let directory = format!("/proc/{}/fd", self.child.id());
        let entries = std::fs::read_dir(directory).expect("the process is alive").flatten();
        let in_memory = entries.filter(|entry| {
            let to = std::fs::read_link(entry.path());
            to.is_ok_and(|to| to.as_os_str().as_encoded_bytes().starts_with(b"/memfd:"))
        });
        // Closed in between, some are; a block is 512 bytes.
        let blocks = |entry: std::fs::DirEntry| {
            std::fs::metadata(entry.path()).map_or(0, |file| file.blocks())
        };
        self.resident_kib() + in_memory.map(blocks).sum::<u64>() / 2
    }

    /// Open descriptors of the process.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .expect("the process is alive")
            .count()
    }

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        self.signal("HUP");
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: no unsafe code and no package needed for one signal.
        let script = format!("kill -{name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &script]).status().expect("a shell");
        assert!(sent.success(), "SIG{name} could not be sent");
    }

    /// Waits for the end of the process.
    pub fn exit(&mut self, within: Duration) -> ExitStatus {
        let status = wait::value("the balancer ends", within, || {
            self.child.try_wait().expect("the child can be waited for")
        });
        self.join_log();
        status
    }

    fn join_log(&mut self) {
        if let Some(reading) = self.reading.take() {
            // A reader that panicked has read what it could.
            let _ = reading.join();
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // It may have ended already: both calls then do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.join_log();
        let _ = std::fs::remove_dir_all(&self.directory);
        if thread::panicking() {
            eprintln!("--- the balancer's log ---\n{}\n---", self.log().join("\n"));
        }
    }
}

/// The cores this process may use.
pub fn allowed_cores() -> Vec<usize> {
    let list = status_of("self", "Cpus_allowed_list:");
    let ends = |range: &str| {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        (low.parse::<usize>().expect("a core"), high.parse::<usize>().expect("a core"))
    };
    list.split(',').map(ends).flat_map(|(low, high)| low..=high).collect()
}

fn status_of(process: &str, name: &str) -> String {
    let status =
        std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process is alive");
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of that name");
    line.trim().to_owned()
}

/// The first `http://HOST:PORT` in a line.
fn address_in(line: &str) -> Option<SocketAddr> {
    let text = line.split_once("http://")?.1.split_whitespace().next()?;
    let address: SocketAddr = text.parse().ok()?;
    Some(if address.ip().is_unspecified() {
        ([127, 0, 0, 1], address.port()).into()
    } else {
        address
    })
}

const START: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(10);
