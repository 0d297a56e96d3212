//! The agent's life: absent, late, killed, restarted, mute, half-open, dripping. Traffic never notices.

use std::time::{Duration, Instant};

use crate::support::agent::{Agent, Manner};
use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::traffic::Traffic;
use crate::support::wait;

/// A balancer with a short back-off on a running agent that has named `origin`, and traffic through it.
fn served(origin: &Origin, agent: &Agent) -> (Balancer, Traffic) {
    agent.push_set(&[(&origin.authority(), 50.0, "LU")]);
    let balancer = Balancer::run(&["--agent", &agent.url(), "--agent-backoff", BACKOFF]);
    let mut client = Client::connect(balancer.address());
    wait::until("the first frame is in force", FRAME, || client.get("/").status() == 200);
    let traffic = Traffic::start(balancer.address(), 4);
    traffic.flows(100);
    (balancer, traffic)
}

#[test]
fn absent_without_backends_is_503_at_once_until_the_first_frame() {
    let (origin, agent) = (Origin::start("a"), Agent::absent());
    let balancer = Balancer::run(&["--agent", &agent.url(), "--agent-backoff", BACKOFF]);
    let mut client = Client::connect(balancer.address());
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!(answer.status(), 503);
        let retry = answer.head.field("retry-after").and_then(|text| text.parse::<u32>().ok());
        assert!(retry.is_some_and(|seconds| seconds >= 1), "{answer:?}");
        if answer.head.lists("connection", "close") {
            client = Client::connect(balancer.address());
        }
    }
    agent.restart(Manner::Proper);
    wait::until("the link is up", RELINK, || agent.links() == 1);
    assert_eq!(
        Client::connect(balancer.address()).get("/").status(),
        503,
        "connected is not yet a frame"
    );
    let pushed = Instant::now();
    agent.push_set(&[(&origin.authority(), 50.0, "LU")]);
    wait::until("service begins", FRAME, || {
        Client::connect(balancer.address()).get("/").status() == 200
    });
    eprintln!("service {:?} after the first frame", pushed.elapsed());
    Traffic::run(balancer.address(), 2, 200);
}

#[test]
fn absent_with_backends_serves_them_until_the_agent_speaks() {
    let (own, named, agent) = (Origin::start("own"), Origin::start("named"), Agent::absent());
    let flags = ["--agent", &agent.url(), "--agent-backoff", BACKOFF];
    let balancer = Balancer::before(&[(&own, 50)], &flags);
    let traffic = Traffic::start(balancer.address(), 4);
    traffic.flows(500);
    assert_eq!(traffic.by_origin().get("named"), None);
    agent.restart(Manner::Proper);
    agent.push_set(&[(&named.authority(), 50.0, "LU")]);
    let mut client = Client::connect(balancer.address());
    wait::until("the agent's set is in force", RELINK, || client.get("/").origin() == "named");
    traffic.flows(500);
    traffic.stop();
}

#[test]
fn killed_and_restarted_with_traffic_running() {
    let (first, second, agent) = (Origin::start("first"), Origin::start("second"), Agent::start());
    let (balancer, traffic) = served(&first, &agent);
    for round in 0..3 {
        agent.kill();
        traffic.flows(300);
        agent.restart(Manner::Proper);
        wait::until("the link is up again", RELINK, || agent.links() == 1);
        traffic.flows(100);
        let (name, origin) = if round % 2 == 0 { ("second", &second) } else { ("first", &first) };
        agent.push_set(&[(&origin.authority(), 50.0, "LU")]);
        let mut client = Client::connect(balancer.address());
        wait::until("the new agent's frame is in force", FRAME, || {
            client.get("/").origin() == name
        });
    }
    traffic.stop();
}

#[test]
fn a_link_that_goes_silent_is_replaced() {
    let (origin, agent) = (Origin::start("a"), Agent::start());
    let (_balancer, traffic) = served(&origin, &agent);
    agent.restart(Manner::Mute);
    // Dead after 15 s without a frame or pong: the second handshake shows it.
    wait::until("the mute link is given up", Duration::from_secs(40), || agent.shaken() >= 2);
    traffic.stop();
}

#[test]
fn a_handshake_that_never_ends_is_given_up() {
    for manner in [Manner::HalfOpen, Manner::Dripping] {
        let (origin, agent) = (Origin::start("a"), Agent::start());
        let (balancer, traffic) = served(&origin, &agent);
        agent.restart(manner.clone());
        wait::until("the handshake is given up", Duration::from_secs(20), || agent.accepted() >= 2);
        traffic.flows(100);
        agent.restart(Manner::Proper);
        agent.push_set(&[(&origin.authority(), 40.0, "LU")]);
        wait::until("a proper agent is taken back", Duration::from_secs(20), || agent.links() == 1);
        traffic.flows(100);
        traffic.stop();
        assert!(balancer.log().iter().all(|line| !line.contains("panicked")), "{manner:?}");
    }
}

#[test]
fn an_answer_that_is_no_handshake_is_an_error_like_any_other() {
    let (origin, agent) = (Origin::start("a"), Agent::start());
    let (balancer, traffic) = served(&origin, &agent);
    let wrong_key = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n";
    let answers: [&[u8]; 5] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        b"\x00\xff\x16\x03\x01 not http at all\r\n\r\n",
        &[b'x'; 200_000],
        wrong_key.as_bytes(),
    ];
    for answer in answers {
        agent.restart(Manner::Raw(answer.to_vec()));
        wait::until("it is tried again", RELINK, || agent.accepted() >= 2);
    }
    traffic.flows(100);
    traffic.stop();
    assert!(balancer.log().iter().all(|line| !line.contains("panicked")));
}

#[test]
fn two_balancers_listen_to_one_agent() {
    let (origin, agent) = (Origin::start("a"), Agent::start());
    let (_first, one) = served(&origin, &agent);
    let (_second, two) = served(&origin, &agent);
    assert_eq!(agent.links(), 2);
    one.stop();
    two.stop();
}

const BACKOFF: &str = "100ms..300ms";
const FRAME: Duration = Duration::from_secs(5);
const RELINK: Duration = Duration::from_secs(15);
