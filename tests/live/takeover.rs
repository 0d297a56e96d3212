//! `--takeover`: one process after the other serves on the same sockets, and no client notices.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::agent::Agent;
use crate::support::balancer::{Balancer, Refused, allowed_cores};
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::parts;
use crate::support::traffic::Traffic;
use crate::support::wait;

/// A place for the socket, and what every process here is started with.
struct House {
    directory: PathBuf,
    backend: String,
}

impl House {
    fn before(origin: &Origin) -> Self {
        Self { directory: parts::scratch(), backend: origin.authority() }
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// One more process; port 0 is that of the one before.
    fn next(&self, flags: &[&str], env: &[(&str, &str)]) -> Result<Balancer, Refused> {
        let socket = self.socket();
        let place = ["--takeover", socket.to_str().expect("UTF-8")];
        let always = ["--drain-timeout", "60s", "--admin", "127.0.0.1:0"];
        Balancer::try_run(&[&place[..], &always, flags].concat(), env)
    }

    fn start(&self, cores: &str) -> Balancer {
        let flags = ["--listen", "127.0.0.1:0", "--backend", &self.backend, "--cores", cores];
        self.next(&flags, &[]).unwrap_or_else(|refused| panic!("{refused:?}"))
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// `GET target` on a connection of its own.
fn ask_anew(address: SocketAddr, target: &str) -> Result<(), String> {
    let mut client = Client::connect(address);
    let head = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    match client.send(head.as_bytes()).and_then(|()| client.response("GET")) {
        Ok(answer) if answer.status() == 200 => Ok(()),
        Ok(answer) => Err(format!("{target}: {} {}", answer.status(), answer.text())),
        Err(broken) => Err(format!("{target}: {broken:?}")),
    }
}

/// Asks on new connections until told to stop: how often it got a 200. Anything else is a panic, a refusal included.
fn churn(address: SocketAddr, target: &str, is_over: &AtomicBool, asked: &AtomicU64) {
    while !is_over.load(Ordering::Acquire) {
        assert_eq!(ask_anew(address, target), Ok(()));
        asked.fetch_add(1, Ordering::AcqRel);
    }
}

fn is_said(balancer: &Balancer, words: &str) -> bool {
    balancer.log().iter().any(|line| line.contains(words))
}

/// Sets a flag when dropped, so that a test that fails stops its threads.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn three_upgrades_in_a_row_refuse_and_drop_nothing() {
    let origin = Origin::start("a");
    let house = House::before(&origin);
    let all = allowed_cores();
    let lists = [&all[..1], &all[..], &all[..], &all[..1]];
    let lists = lists.map(|list| list.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
    // The first with every core: sockets for each of them, which the last serves alone.
    let mut old = house.start(&lists[1]);
    let (address, admin) = (old.address(), old.admin());
    let mode = std::fs::metadata(house.socket()).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (is_over, asked, looked) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let over = Over(&is_over);
        let churning: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| churn(address, "/bytes/100?seed=5", &is_over, &asked)))
            .chain([scope.spawn(|| churn(admin, "/healthz", &is_over, &looked))])
            .collect();
        let traffic = Traffic::start(address, 4);
        for (round, cores) in [&lists[2], &lists[0], &lists[1]].into_iter().enumerate() {
            traffic.flows(200);
            let mut held = Client::connect(address);
            let target = format!("/hold/{round}");
            let head = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
            held.send(head.as_bytes()).expect("sent");
            let is_held = || origin.seen().iter().any(|seen| seen.target == target);
            wait::until("it is in flight", PATIENCE, is_held);
            // Two that say something only when the other process serves: one has been answered before, one has not.
            let mut known = Client::connect(address);
            assert_eq!(known.get("/").status(), 200);
            let mut silent = Client::connect(address);
            let new = house.start(cores);
            assert_eq!((new.address(), new.admin()), (address, admin));
            assert!(is_said(&new, "took the listeners over from process"));
            let before = (asked.load(Ordering::Acquire), looked.load(Ordering::Acquire));
            traffic.flows(200);
            for client in [&mut known, &mut silent] {
                assert_eq!(client.get("/").status(), 200);
            }
            // The old one, which still has somebody to answer, would say that it drains.
            wait::until("only the new one tells how it is", PATIENCE, || {
                (0..50).all(|_| ask_anew(admin, "/readyz").is_ok())
            });
            origin.open(["0", "1", "2"][round]);
            assert_eq!(held.response("GET").expect("an answer").status(), 200);
            drop((known, silent, held));
            assert_eq!(old.exit(PATIENCE).code(), Some(0));
            assert!(is_said(&old, "has taken over") && is_said(&old, "every request in flight"));
            wait::until("new connections are served", PATIENCE, || {
                asked.load(Ordering::Acquire) > before.0 + 100
                    && looked.load(Ordering::Acquire) > before.1
                    || churning.iter().any(thread::ScopedJoinHandle::is_finished)
            });
            assert!(house.socket().exists(), "the old one removes nothing of the new one's");
            old = new;
        }
        let answered = traffic.stop();
        drop(over);
        for thread in churning {
            thread.join().expect("no request failed and no connection was refused");
        }
        eprintln!(
            "{answered} requests on kept connections, {} on new ones, {} looks at the admin listener",
            asked.load(Ordering::Acquire),
            looked.load(Ordering::Acquire)
        );
    });
    old.terminate();
    assert_eq!(old.exit(PATIENCE).code(), Some(0));
    assert!(!house.socket().exists(), "who leaves without a successor cleans up");
}

/// Who was given the listeners and has not been told of since.
fn pid_with_listeners(old: &Balancer) -> String {
    wait::value("it has the listeners", PATIENCE, || {
        let log = old.log();
        let line = log.iter().rfind(|line| line.contains("process "))?;
        let (pid, what) = line.split_once("process ")?.1.split_once(' ')?;
        what.starts_with("has the listeners").then(|| pid.to_owned())
    })
}

fn kill(signal: &str, pid: &str) {
    let killed = Command::new("sh").args(["-c", &format!("kill -{signal} {pid}")]).status();
    assert!(killed.expect("a shell").success());
}

#[test]
fn where_the_old_one_dies_the_new_one_serves_without_a_backend_too() {
    let origin = Origin::start("a");
    let house = House::before(&origin);
    let old = house.start(&allowed_cores()[0].to_string());
    old.until_ready();
    let (agent, listen) = (Agent::start(), old.address().to_string());
    let url = agent.url();
    let flags = ["--listen", &listen, "--agent", &url, "--target-port", "9"];
    let new = thread::scope(|scope| {
        let new = scope.spawn(|| house.next(&flags, &[]));
        pid_with_listeners(&old);
        old.signal("KILL");
        new.join().expect("no panic").expect("it serves")
    });
    assert_eq!(Client::connect(new.address()).get("/").status(), 503);
}

#[test]
fn a_new_one_that_dies_before_it_is_ready_changes_nothing() {
    let origin = Origin::start("a");
    let house = House::before(&origin);
    let mut old = house.start(&allowed_cores()[0].to_string());
    old.until_ready();
    let traffic = Traffic::start(old.address(), 4);
    let agent = Agent::start();
    let (url, listen) = (agent.url(), old.address().to_string());
    let (is_over, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let (address, admin) = (old.address(), old.admin());
    thread::scope(|scope| {
        let _over = Over(&is_over);
        for _ in 0..2 {
            scope.spawn(|| churn(address, "/bytes/100?seed=5", &is_over, &asked));
        }
        // A process that is not ready says so: none may answer here but the one that is.
        scope.spawn(|| churn(admin, "/readyz", &is_over, &asked));
        // It has the listeners, and an agent that says nothing: it waits for a backend.
        let flags = ["--listen", &listen, "--agent", &url, "--target-port", "9"];
        for (signal, code) in [("KILL", None), ("TERM", Some(0))] {
            let pid = thread::scope(|inner| {
                let new = inner.spawn(|| house.next(&flags, &[]).map(drop));
                let pid = pid_with_listeners(&old);
                traffic.flows(200);
                kill(signal, &pid);
                assert_eq!(
                    new.join().expect("no panic").expect_err("ended").code,
                    code,
                    "{signal}"
                );
                pid
            });
            let line = format!("process {pid} did not take over: it hung up; this one serves on");
            wait::until("the old one says so", PATIENCE, || is_said(&old, &line));
            traffic.flows(200);
        }
        // Wrong settings, another address, no backend within its patience: each ends by itself.
        let wrong = house.next(&["--listen", &listen, "--backend", "a:0"], &[]).map(drop);
        assert_eq!(wrong.expect_err("a wrong port").code, Some(2));
        let flags = ["--listen", "127.0.0.3:0", "--backend", &house.backend];
        let elsewhere = house.next(&flags, &[]).map(drop).expect_err("another address");
        assert_eq!(elsewhere.code, Some(1));
        assert!(elsewhere.text.contains(&format!("listens on {listen}, ")), "{}", elsewhere.text);
        let flags = ["--listen", &listen, "--agent", &url, "--target-port", "9"];
        let nowhere = house.next(&flags, &[]).map(drop).expect_err("no backend");
        assert_eq!(nowhere.code, Some(1));
        assert!(nowhere.text.contains("there is no usable backend"), "{}", nowhere.text);
        let without = ["--listen", &listen, "--backend", &house.backend];
        let taken = Balancer::try_run(&without, &[]).map(drop).expect_err("a taken port");
        assert_eq!((taken.code, taken.text.contains("is taken")), (Some(1), true));
        traffic.flows(200);
    });
    // And after all that it still hands over to one that waits until its agent has named a backend.
    let port = origin.address().port().to_string();
    let flags = ["--listen", &listen, "--agent", &url, "--target-port", &port];
    let new = thread::scope(|scope| {
        let new = scope.spawn(|| house.next(&flags, &[]));
        let has_it =
            || old.log().iter().filter(|line| line.contains("has the listeners")).count() == 5;
        wait::until("it has the listeners", PATIENCE, has_it);
        traffic.flows(100);
        agent.push_set(&[("127.0.0.1", 50.0, "LU")]);
        new.join().expect("no panic").expect("it takes over")
    });
    traffic.flows(200);
    traffic.stop();
    let socket = house.socket();
    let mut check = Command::new(env!("CARGO_BIN_EXE_balancer"));
    check.args(["check", "--no-env-file", "--admin", "off", "--listen", &listen, "--takeover"]);
    check.arg(&socket).args(["--backend", &house.backend]).env_clear();
    let found = String::from_utf8(check.output().expect("it runs").stdout).expect("UTF-8");
    assert!(found.contains(&format!("{listen} held by a running balancer")), "{found}");
    assert!(!new.warnings().iter().any(|line| line.contains("takeover")), "a look is no fault");
    assert_eq!(old.exit(PATIENCE).code(), Some(0));
    drop(new);
}

const PATIENCE: Duration = Duration::from_secs(30);
