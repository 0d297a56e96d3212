//! What systemd hears of a real process, and what `scripts/deploy` would have it run.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::parts;
use crate::support::wait;

/// systemd's end of a notify socket.
struct Systemd {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Systemd {
    fn new(socket: UnixDatagram) -> Self {
        socket.set_nonblocking(true).expect("a socket");
        Self { socket, heard: Vec::new() }
    }

    /// Whether a line that begins so has been heard.
    fn has_heard(&mut self, words: &str) -> bool {
        let mut buffer = [0; 1024];
        while let Ok(n) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            self.heard.extend(text.lines().map(str::to_owned));
        }
        self.heard.iter().any(|line| line.starts_with(words))
    }

    fn hears(&mut self, words: &str) {
        let heard = wait::happens(PATIENCE, || self.has_heard(words));
        assert!(heard, "no {words:?} in {:?}", self.heard);
    }
}

fn run(origin: &Origin, env: &[(&str, &str)]) -> Balancer {
    let authority = origin.authority();
    let flags = ["--listen", "127.0.0.1:0", "--backend", &authority, "--drain-timeout", "60s"];
    Balancer::try_run(&flags, env).unwrap_or_else(|refused| panic!("{refused:?}"))
}

#[test]
fn systemd_hears_of_every_stage_and_the_watchdog_is_fed_to_the_end() {
    let name = format!("balancer-live-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let mut systemd = Systemd::new(UnixDatagram::bind_addr(&address).expect("a free name"));
    let origin = Origin::start("a");
    let socket = format!("@{name}");
    let env = [("NOTIFY_SOCKET", socket.as_str()), ("WATCHDOG_USEC", "300000")];
    let mut balancer = run(&origin, &env);
    systemd.hears("READY=1");
    systemd.hears("STATUS=serving: ");
    systemd.hears("WATCHDOG=1");
    let mut held = Client::connect(balancer.address());
    held.send(b"GET /hold/later HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
    wait::until("it is in flight", PATIENCE, || !origin.seen().is_empty());
    systemd.hears("STATUS=serving: 1 workers, 1 connections, 1 requests in flight");
    assert!(!systemd.has_heard("STOPPING=1"));
    balancer.terminate();
    systemd.hears("STOPPING=1");
    systemd.heard.clear();
    systemd.hears("STATUS=draining: ");
    systemd.hears("WATCHDOG=1");
    origin.open("later");
    assert_eq!(held.response("GET").expect("an answer").status(), 200);
    assert_eq!(balancer.exit(PATIENCE).code(), Some(0));
}

#[test]
fn an_upgrade_names_the_new_process_and_its_old_one_never_says_that_it_stops() {
    let name = format!("balancer-upgrade-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let mut systemd = Systemd::new(UnixDatagram::bind_addr(&address).expect("a free name"));
    let origin = Origin::start("a");
    let (socket, directory) = (format!("@{name}"), parts::scratch());
    let place = directory.to_str().expect("UTF-8");
    let env = [
        ("NOTIFY_SOCKET", socket.as_str()),
        ("RUNTIME_DIRECTORY", place),
        ("BALANCER_TAKEOVER", "on"),
    ];
    let mut old = run(&origin, &env);
    systemd.hears("READY=1");
    assert!(directory.join("balancer-0.sock").exists());
    systemd.heard.clear();
    let new = run(&origin, &env);
    assert_eq!(old.exit(PATIENCE).code(), Some(0));
    let line = format!("MAINPID={}", new.pid());
    wait::until("both have said it", PATIENCE, || {
        systemd.has_heard("READY=1");
        systemd.heard.iter().filter(|heard| **heard == line).count() == 2
    });
    systemd.hears("READY=1");
    assert!(!systemd.has_heard("STOPPING=1"), "{:?}", systemd.heard);
    new.terminate();
    systemd.hears("STOPPING=1");
    drop(new);
    std::fs::remove_dir_all(&directory).expect("removed");
}

#[test]
fn a_path_will_do_and_a_wrong_one_does_no_harm() {
    let directory = std::env::temp_dir().join(format!("balancer-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("notify");
    let mut systemd = Systemd::new(UnixDatagram::bind(&path).expect("a path"));
    let origin = Origin::start("a");
    let balancer = run(&origin, &[("NOTIFY_SOCKET", path.to_str().expect("UTF-8"))]);
    systemd.hears("READY=1");
    assert!(!systemd.has_heard("WATCHDOG"), "nobody asked for it");
    drop((balancer, systemd));
    std::fs::remove_dir_all(&directory).expect("removed");
    let balancer = run(&origin, &[("NOTIFY_SOCKET", path.to_str().expect("UTF-8"))]);
    assert_eq!(Client::connect(balancer.address()).get("/").status(), 200);
    assert!(balancer.warnings().iter().any(|line| line.contains("NOTIFY_SOCKET")));
}

#[test]
fn a_hangup_without_a_log_is_no_end() {
    let origin = Origin::start("a");
    let balancer = run(&origin, &[]);
    balancer.hang_up();
    let is_said = |line: &String| line.contains("SIGHUP: there is no access log");
    wait::until("it says so", PATIENCE, || balancer.log().iter().any(is_said));
    assert_eq!(Client::connect(balancer.address()).get("/").status(), 200);
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let Some(analyze) = parts::find("systemd-analyze") else { return };
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/deploy");
    let unit = std::fs::read_to_string(deploy.join("balancer.service")).expect("the unit");
    // It must name a binary that is there.
    let place = parts::scratch().join("balancer.service");
    let unit = unit.replace("/usr/local/bin/balancer", env!("CARGO_BIN_EXE_balancer"));
    let unit = unit.replace("Documentation=man:balancer(1)\n", "");
    std::fs::write(&place, unit).expect("written");
    let output = Command::new(analyze).arg("verify").arg(&place).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    let own: Vec<&str> = text.lines().filter(|line| line.contains("balancer")).collect();
    assert!(own.is_empty(), "{text}");
}

#[test]
fn the_container_profile_leaves_io_uring_in() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/deploy/seccomp.json");
    let text = std::fs::read_to_string(path).expect("the profile");
    let profile: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ALLOW");
    let rules = profile["syscalls"].as_array().expect("a list");
    assert!(rules.iter().all(|rule| rule["action"] == "SCMP_ACT_ERRNO"));
    let refused: Vec<&str> = (rules.iter().filter(|rule| rule["args"].is_null()))
        .flat_map(|rule| rule["names"].as_array().expect("names"))
        .filter_map(|name| name.as_str())
        .collect();
    for call in ["init_module", "mount", "ptrace", "bpf", "unshare", "setns", "keyctl"] {
        assert!(refused.contains(&call), "{call} is let through");
    }
    assert!(!refused.iter().any(|name| name.starts_with("io_uring") || name.starts_with("epoll")));
}

const PATIENCE: Duration = Duration::from_secs(20);
