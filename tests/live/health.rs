//! Backends that die, fall silent, break, cannot be reached, or say themselves that they are not fit: who notices what.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::agent::Agent;
use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::crowd::{Crowd, Met};
use crate::support::exposition::{self, Samples};
use crate::support::noise;
use crate::support::origin::{Corruption, Origin, Step};
use crate::support::outpost::{self, Outpost};
use crate::support::traffic::Traffic;
use crate::support::wait;

/// Not a test when it runs as one: the backends below are this, in processes of their own.
#[test]
fn an_outpost_serves() {
    outpost::serve_if_told();
}

/// A balancer on all cores before these, with an admin listener, that says who failed and how.
fn before(backends: &[SocketAddr], flags: &[&str]) -> Balancer {
    let named: Vec<String> = backends.iter().map(|address| format!("{address}=50")).collect();
    let named: Vec<&str> = named.iter().flat_map(|backend| ["--backend", backend]).collect();
    let own = ["--cores", "all", "--admin", "127.0.0.1:0", "--log", LOG];
    Balancer::run(&[&named[..], &own, flags].concat())
}

fn metrics(balancer: &Balancer) -> Samples {
    let admin = balancer.admin();
    let mut client = Client::connect(admin);
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    client.send(request.as_bytes()).expect("sent");
    let answer = client.response("GET").expect("an answer");
    exposition::read(&answer.text()).expect("by the rules")
}

/// The sum of all series of a name whose labels contain `label`.
fn sum(balancer: &Balancer, name: &str, label: &str) -> u64 {
    let samples = metrics(balancer);
    let is_it = |series: &str| series.split('{').next() == Some(name) && series.contains(label);
    samples.iter().filter(|(series, _)| is_it(series)).map(|(_, value)| *value as u64).sum()
}

fn is_up(balancer: &Balancer, backend: SocketAddr) -> bool {
    sum(balancer, "balancer_backend_up", &format!("\"{backend}\"")) == 1
}

/// A line of the log about a backend that failed a worker.
#[derive(Debug)]
struct Failure {
    ms: u64,
    worker: String,
    how: String,
}

/// `[2026-01-01T10:20:30.456Z DEBUG balancer::worker::record] worker 0: NAME connect/refused`
fn failures_of(balancer: &Balancer, backend: SocketAddr) -> Vec<Failure> {
    let name = format!(" {backend} ");
    let read = |line: &String| {
        let (before, how) = line.split_once(&name)?;
        let (stamp, worker) = before.split_once("] worker ")?;
        let clock = stamp.split_once('T')?.1.split_once('Z')?.0;
        let mut parts = clock.split([':', '.']).map(|part| part.parse::<u64>().expect("a number"));
        let mut next = || parts.next().expect("four numbers");
        let ms = ((next() * 60 + next()) * 60 + next()) * 1_000 + next();
        Some(Failure { ms, worker: worker.trim_end_matches(':').to_owned(), how: how.to_owned() })
    };
    balancer.log().iter().filter_map(read).collect()
}

#[test]
fn a_killed_backend_fails_nobody_and_is_back_at_once() {
    let mut outposts: Vec<Outpost> = ["a", "b", "c", "d"].map(Outpost::start).into();
    let addresses: Vec<SocketAddr> = outposts.iter().map(Outpost::address).collect();
    let balancer = before(&addresses, &[]);
    let traffic = Traffic::start(balancer.address(), 16);
    traffic.flows(2_000);
    let dead = addresses[0];
    outposts[0].kill();
    wait::until("it is out", PATIENCE, || !is_up(&balancer, dead));
    let met = failures_of(&balancer, dead);
    let answered = traffic.answered();
    traffic.flows(4_000);
    traffic.assert_no_failure();

    // Whoever had a request there when it died has no choice; what counts are the connects after that.
    let all = failures_of(&balancer, dead);
    let tries: Vec<&Failure> = all.iter().filter(|f| f.how.starts_with("connect/")).collect();
    let last_ms = tries.last().map_or(0, |last| last.ms.saturating_sub(all[0].ms));
    let mut by_core = BTreeMap::<&str, u32>::new();
    tries.iter().for_each(|failure| *by_core.entry(&failure.worker).or_default() += 1);
    assert!(by_core.values().all(|n| *n <= 3), "{by_core:?}: {all:?}");
    assert!(last_ms <= 1_000, "it was tried {last_ms} ms after its first failure: {all:?}");
    assert!(all.len() <= met.len() + 1, "tried again although it is out: {all:?}");

    // Sixteen connects take at least fifteen intervals, however slow this machine is; the page may be a second old.
    let probes = || sum(&balancer, "balancer_health_probes_total", "");
    let (since, first) = (Instant::now(), probes());
    wait::until("it is probed", PATIENCE, || probes() >= first + 16);
    let took = since.elapsed();
    assert!(took >= Duration::from_millis(2_500), "sixteen probes in {took:?}");

    let before = traffic.by_origin().get("a").copied().unwrap_or(0);
    outposts[0].restart();
    let returned = Instant::now();
    wait::until("it has traffic again", PATIENCE, || {
        traffic.by_origin().get("a").copied().unwrap_or(0) > before
    });
    let back = returned.elapsed();
    assert!(back < Duration::from_secs(5), "back only after {back:?}");
    let total = traffic.stop();
    eprintln!(
        "0 of {total} failed; {} failures of what was there, {} tries, the last one {last_ms} ms after \
         the first failure; 16 probes in {took:?}; back {back:?} after its return ({answered} before)",
        all.len() - tries.len(),
        tries.len(),
    );
}

#[test]
fn a_silent_backend_has_one_victim_a_client() {
    let outposts: Vec<Outpost> = ["a", "b", "c", "d"].map(Outpost::start).into();
    let addresses: Vec<SocketAddr> = outposts.iter().map(Outpost::address).collect();
    let balancer = before(&addresses, &["--request-timeout", "2s"]);
    let silent = addresses[0];
    let crowd = Crowd::start(balancer.address(), 32);
    let rate = |what: &str, until: &dyn Fn() -> bool| {
        let (since, first) = (Instant::now(), crowd.answered());
        wait::until(what, PATIENCE, until);
        (crowd.answered() - first) as f64 / since.elapsed().as_secs_f64()
    };
    wait::until("it flows", PATIENCE, || crowd.answered() >= 2_000);
    let begun = Instant::now();
    let before = rate("two seconds of it", &|| begun.elapsed() >= Duration::from_secs(2));
    outposts[0].freeze();
    let frozen = Instant::now();
    let during = rate("it is out", &|| !is_up(&balancer, silent));
    let out_after = frozen.elapsed();
    // Twice a request is let through to it, and finds its answer elsewhere.
    let trials = || sum(&balancer, "balancer_health_trials_total", "");
    wait::until("it is tried again", PATIENCE, || trials() >= 2);
    outposts[0].thaw();
    let thawed = Instant::now();
    let answers = crowd.answered_by("a");
    wait::until("it has traffic again", Duration::from_secs(40), || {
        crowd.answered_by("a") > answers + 100
    });
    let back = thawed.elapsed();

    let met: Vec<Met> = crowd.stop();
    let timeouts = |met: &Met| met.statuses.get(&504).copied().unwrap_or(0);
    let others = |met: &Met| met.statuses.keys().any(|status| !matches!(status, 200 | 504));
    for client in &met {
        assert!(timeouts(client) <= 1 && client.broken.is_empty() && !others(client), "{client:?}");
    }
    let told: u64 = met.iter().map(timeouts).sum();
    // Every failure has its line: a victim, or a request let through, of which one was under way when it went on.
    let failed = failures_of(&balancer, silent).len() as u64;
    let tried = failed - told;
    assert!(tried <= trials(), "{failed} failures, {told} victims, {} trials", trials());
    assert!(during >= 0.3 * before, "{during:.0} answers a second, {before:.0} before");
    eprintln!(
        "{told} victims among 32 clients, none twice; out {out_after:?} after it fell silent; {:.0} % of the \
         throughput before; {tried} later tries; back {back:?} after it went on",
        100.0 * during / before
    );
}

#[test]
fn broken_answers_are_seen_and_nothing_is_sent_twice_that_must_not_be() {
    let origins: Vec<Origin> = ["a", "b", "c", "d"].map(Origin::start).into();
    let addresses: Vec<SocketAddr> = origins.iter().map(Origin::address).collect();
    let (broken, moved, posts_lost) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    for (how, every) in [(Corruption::Break, 2), (Corruption::Swallow, 2)] {
        // A new one each time: it is to meet this, and not to know of the one before.
        let balancer = before(&addresses, &[]);
        origins[0].corrupt(how, every);
        let begun = format!("{how:?}");
        std::thread::scope(|scope| {
            for worker in 0..8_u64 {
                let (balancer, begun) = (&balancer, &begun);
                let (broken, posts_lost) = (&broken, &posts_lost);
                scope.spawn(move || {
                    let mut client = Client::connect(balancer.address());
                    for number in 0..60 {
                        let seed = worker * 1_000 + number;
                        let target = format!("/bytes/20000?seed={seed}&how={begun}");
                        match client.ask("GET", &target, "", b"") {
                            Ok(answer) => {
                                assert_eq!(answer.status(), 200, "{target}: {}", answer.text());
                                assert!(answer.body == noise::body(seed, 20_000), "{target}");
                            }
                            // What has begun cannot be had elsewhere, and must not look whole.
                            Err(how) if begun == "Break" => {
                                _ = how;
                                broken.fetch_add(1, Ordering::Relaxed);
                                client = Client::connect(balancer.address());
                            }
                            Err(how) => panic!("{target}: {how:?}"),
                        }
                        let target = format!("/upload?seed={seed}&how={begun}");
                        let body = noise::body(seed, 300);
                        match client.ask("POST", &target, "", &body) {
                            Ok(answer) if answer.status() == 200 => {}
                            Ok(answer) if answer.status() == 502 => {
                                posts_lost.fetch_add(1, Ordering::Relaxed);
                                client = Client::connect(balancer.address());
                            }
                            other => panic!("{target}: {other:?}"),
                        }
                    }
                });
            }
        });
    }
    let mut posts = 0;
    let mut sent = BTreeMap::<String, u32>::new();
    for seen in origins.iter().flat_map(Origin::seen) {
        match seen.method.as_str() {
            "POST" => {
                posts += 1;
                *sent.entry(seen.target).or_default() += 1;
            }
            _ => _ = moved.fetch_add(1, Ordering::Relaxed),
        }
    }
    let twice: Vec<_> = sent.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "POSTs sent twice: {twice:?}");
    assert!(broken.load(Ordering::Relaxed) > 0, "nothing was broken");
    let moved = moved.load(Ordering::Relaxed) - 2 * 8 * 60;
    assert!(moved > 0, "nothing had to move");
    eprintln!(
        "0 of {posts} POSTs sent twice ({} lost with their backend), {} broken answers seen as such, {moved} GETs sent \
         once more, none failed that had not begun",
        posts_lost.load(Ordering::Relaxed),
        broken.load(Ordering::Relaxed)
    );
}

/// A port whose backlog is full: the kernel drops every further SYN.
fn black_hole() -> (Socket, Vec<TcpStream>, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    socket.listen(0).expect("it listens");
    let address = socket.local_addr().expect("bound").as_socket().expect("IPv4");
    let mut fillers = Vec::new();
    loop {
        match TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            Ok(stream) => fillers.push(stream),
            Err(error) if error.kind() == ErrorKind::TimedOut => break,
            Err(error) => panic!("{error}"),
        }
        assert!(fillers.len() < 100, "the backlog has no end");
    }
    (socket, fillers, address)
}

#[test]
fn a_connect_that_nobody_answers_costs_a_fifth_of_a_second() {
    let (_listener, _fillers, hole) = black_hole();
    let origins: Vec<Origin> = ["a", "b", "c"].map(Origin::start).into();
    let mut addresses: Vec<SocketAddr> = origins.iter().map(Origin::address).collect();
    addresses.push(hole);
    let balancer = before(&addresses, &[]);
    let crowd = Crowd::start(balancer.address(), 16);
    wait::until("it is out", PATIENCE, || !is_up(&balancer, hole));
    let answered = crowd.answered();
    wait::until("it flows", PATIENCE, || crowd.answered() >= answered + 3_000);
    let met = crowd.stop();
    for client in &met {
        assert!(
            client.broken.is_empty() && client.statuses.keys().all(|s| *s == 200),
            "{client:?}"
        );
    }
    let slowest = met.iter().map(|client| client.slowest).max().expect("clients");
    // Two seconds would be the connect's own timeout.
    assert!(slowest < Duration::from_millis(1_500), "{slowest:?}");
    let raced = failures_of(&balancer, hole).len();
    eprintln!("0 failed, the slowest took {slowest:?}, {raced} connects were overtaken");
}

#[test]
fn scores_that_flip_all_the_time_fail_nobody() {
    let origins: Vec<Origin> = ["a", "b", "c", "d"].map(Origin::start).into();
    let names: Vec<String> = origins.iter().map(Origin::authority).collect();
    let agent = Agent::start();
    let flip = |turn: usize| {
        let score = |at: usize| [90.0, 60.0, 5.0, 0.0][(at + turn) % 4];
        let category = |at: usize| ["LU", "HU", "MU", "SUNDOWN"][(at + turn / 2) % 4];
        let set: Vec<(&str, f64, &str)> =
            names.iter().enumerate().map(|(at, name)| (&**name, score(at), category(at))).collect();
        agent.push_set(&set);
    };
    flip(0);
    let balancer = Balancer::run(&["--cores", "all", "--agent", &agent.url(), "--log", LOG]);
    let mut client = Client::connect(balancer.address());
    wait::until("the first set is in force on every core", PATIENCE, || {
        (0..16).all(|_| Client::connect(balancer.address()).get("/").status() == 200)
            && client.get("/").status() == 200
    });
    let traffic = Traffic::start(balancer.address(), 16);
    let begun = Instant::now();
    for turn in 1..=30 {
        flip(turn);
        let due = begun + Duration::from_millis(100 * turn as u64);
        wait::until("the next flip is due", PATIENCE, || Instant::now() >= due);
    }
    traffic.flows(100);
    let answered = traffic.stop();
    eprintln!("0 of {answered} failed while scores and SUNDOWNs flipped every 100 ms");
}

#[test]
fn what_still_drains_is_told() {
    let (a, b, agent) = (Origin::start("a"), Origin::start("b"), Agent::start());
    let (first, second) = (a.authority(), b.authority());
    agent.push_set(&[(&first, 50.0, "LU"), (&second, 50.0, "LU")]);
    let balancer =
        Balancer::run(&["--cores", "all", "--admin", "127.0.0.1:0", "--agent", &agent.url()]);
    let label = format!("\"{first}\"");
    wait::until("it serves", PATIENCE, || {
        (0..16).all(|_| Client::connect(balancer.address()).get("/").status() == 200)
    });
    let traffic = Traffic::start(balancer.address(), 16);
    traffic.flows(500);
    let mut held: Vec<Client> = (0..12).map(|_| Client::connect(balancer.address())).collect();
    for client in &mut held {
        client.send(b"GET /hold/later HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
    }
    wait::until("all are in flight", PATIENCE, || {
        a.count_of("/hold/later") + b.count_of("/hold/later") == 12
    });
    let on_a = a.count_of("/hold/later") as u64;
    agent.push_set(&[(&first, 50.0, "SUNDOWN"), (&second, 50.0, "LU")]);
    let in_flight = || sum(&balancer, "balancer_backend_in_flight", &label);
    wait::until("its idle connections are closed", PATIENCE, || {
        a.open_connections() as u64 == on_a
    });
    wait::until("what it still has is told", PATIENCE, || in_flight() == on_a);
    let state = sum(&balancer, "balancer_backends", "draining");
    assert_eq!((state, in_flight()), (1, on_a));
    let requests = a.requests();
    traffic.flows(1_000);
    assert_eq!(a.requests(), requests, "a draining backend gets nothing new");
    assert_eq!(in_flight(), on_a);
    a.open("later");
    b.open("later");
    for client in &mut held {
        assert_eq!(client.response("GET").expect("nothing is cut").status(), 200);
    }
    wait::until("it may be removed", PATIENCE, || in_flight() == 0 && a.open_connections() == 0);
    traffic.stop();
}

#[test]
fn a_backend_that_says_it_is_not_fit_gets_no_request() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let say = |origin: &Origin, status: &str| {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        origin.script("health", vec![Step::Send(answer.into_bytes())]);
    };
    say(&a, "204 No Content");
    say(&b, "302 Found");
    let flags = ["--health-path", "/script/health", "--health-interval", "100ms"];
    let balancer = before(&[a.address(), b.address()], &flags);
    let traffic = Traffic::start(balancer.address(), 8);
    wait::until("both are checked", PATIENCE, || {
        a.count_of("/script/health") > 3 && b.count_of("/script/health") > 3
    });
    assert!(is_up(&balancer, a.address()) && is_up(&balancer, b.address()));
    say(&a, "503 Service Unavailable");
    wait::until("it is out", PATIENCE, || !is_up(&balancer, a.address()));
    traffic.flows(200);
    let before = traffic.by_origin().get("a").copied();
    traffic.flows(1_000);
    assert_eq!(traffic.by_origin().get("a").copied(), before, "requests in spite of its word");
    say(&a, "200 OK");
    wait::until("it is back", PATIENCE, || traffic.by_origin().get("a").copied() > before);
    traffic.stop();
    assert_eq!(
        sum(&balancer, "balancer_health_trials_total", ""),
        0,
        "no request was put on trial"
    );
    let asked = a.seen().into_iter().find(|seen| seen.target == "/script/health").expect("asked");
    let host = asked.fields.iter().find(|(name, _)| name == "Host").map(|(_, value)| value.clone());
    assert_eq!((asked.method.as_str(), host), ("GET", Some(a.authority())));
    let lines = balancer.log();
    let said = lines.iter().any(|line| line.contains("its health check says 503"));
    assert!(said && lines.iter().any(|line| line.contains("is back after")), "{lines:?}");
}

const PATIENCE: Duration = Duration::from_secs(20);
const LOG: &str = "info,balancer::worker::record=debug";
