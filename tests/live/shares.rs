//! Shares follow scores, and a new frame takes force.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::agent::Agent;
use crate::support::balancer::Balancer;
use crate::support::client::{Client, Response};
use crate::support::origin::Origin;
use crate::support::traffic::Traffic;
use crate::support::wait;

/// Every share within two points of its score's part.
fn assert_shares(what: &str, shares: &BTreeMap<String, u64>, scores: &[(&str, f64)]) {
    let total: u64 = shares.values().sum();
    let sum: f64 = scores.iter().map(|(_, score)| score).sum();
    for (name, score) in scores {
        let is = 100.0 * shares.get(*name).copied().unwrap_or(0) as f64 / total as f64;
        let due = 100.0 * score / sum;
        assert!(
            (is - due).abs() <= POINTS,
            "{what}: {name} has {is:.2} %, due are {due:.2} %: {shares:?}"
        );
    }
}

/// Whether every worker answers so: sixteen new connections reach each one's listener with near certainty.
fn on_every_core(balancer: &Balancer, is_so: impl Fn(&Response) -> bool) -> bool {
    (0..16).all(|_| is_so(&Client::connect(balancer.address()).get("/")))
}

#[test]
fn shares_follow_scores_at_any_concurrency() {
    let origins: Vec<Origin> = ["a", "b", "c", "d"].into_iter().map(Origin::start).collect();
    origins.iter().for_each(Origin::forget);
    let scores = [90, 60, 30, 10];
    let backends: Vec<(&Origin, u32)> = origins.iter().zip(scores).collect();
    let balancer = Balancer::before(&backends, &[]);
    for clients in [1, 2, 4, 16, 64] {
        let shares = Traffic::run(balancer.address(), clients, REQUESTS);
        let due = [("a", 90.0), ("b", 60.0), ("c", 30.0), ("d", 10.0)];
        assert_shares(&format!("{clients} clients"), &shares, &due);
    }
}

#[test]
fn weighted_random_keeps_to_the_scores_too() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let balancer = Balancer::before(&[(&a, 90), (&b, 10)], &["--balance", "weighted-random"]);
    let shares = Traffic::run(balancer.address(), 8, REQUESTS);
    assert_shares("weighted-random", &shares, &[("a", 90.0), ("b", 10.0)]);
}

#[test]
fn zero_waits_for_nobody_else_and_all_zero_is_equal() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let balancer = Balancer::before(&[(&a, 0), (&b, 50)], &[]);
    assert_eq!(Traffic::run(balancer.address(), 4, 2_000).get("a"), None);
    let balancer = Balancer::before(&[(&a, 0), (&b, 0)], &[]);
    let shares = Traffic::run(balancer.address(), 4, REQUESTS);
    assert_shares("all zero", &shares, &[("a", 1.0), ("b", 1.0)]);
}

#[test]
fn a_new_frame_is_in_force_on_every_core() {
    let (a, b, agent) = (Origin::start("a"), Origin::start("b"), Agent::start());
    let (first, second) = (a.authority(), b.authority());
    let only = |live: &str, idle: &str| agent.push_set(&[(live, 50.0, "LU"), (idle, 0.0, "LU")]);
    only(&first, &second);
    let balancer = Balancer::run(&["--agent", &agent.url(), "--cores", "all"]);
    wait::until("the first frame is in force", Duration::from_secs(5), || {
        on_every_core(&balancer, |answer| answer.status() == 200)
    });
    let traffic = Traffic::start(balancer.address(), 16);
    traffic.flows(500);
    for round in 0..10 {
        let (live, idle, quiet) =
            if round % 2 == 0 { (&second, &first, &a) } else { (&first, &second, &b) };
        only(live, idle);
        let pushed = Instant::now();
        let mut last = (quiet.requests(), traffic.answered());
        // In force once 500 answers in a row came without the origin that now has a score of zero.
        wait::until("the new frame is in force", Duration::from_secs(5), || {
            if quiet.requests() != last.0 {
                last = (quiet.requests(), traffic.answered());
            }
            traffic.answered() >= last.1 + 500
        });
        eprintln!("in force and confirmed by 500 answers after {:?}", pushed.elapsed());
    }
    traffic.stop();
}

#[test]
fn sundown_is_at_once_and_cuts_nothing() {
    let (a, b, agent) = (Origin::start("a"), Origin::start("b"), Agent::start());
    let (first, second) = (a.authority(), b.authority());
    agent.push_set(&[(&first, 50.0, "LU")]);
    let balancer = Balancer::run(&["--agent", &agent.url(), "--cores", "all"]);
    let mut held: Vec<Client> = (0..8).map(|_| Client::connect(balancer.address())).collect();
    wait::until("the first frame is in force", Duration::from_secs(5), || {
        held.iter_mut().all(|client| client.get("/").status() == 200)
    });
    for client in &mut held {
        client
            .send(b"GET /partial/100000/later?seed=6 HTTP/1.1\r\nHost: test\r\n\r\n")
            .expect("sent");
    }
    wait::until("all are in flight", Duration::from_secs(5), || {
        a.count_of("/partial/100000/later?seed=6") == 8
    });
    agent.push_set(&[(&first, 50.0, "SUNDOWN"), (&second, 10.0, "LU")]);
    let mut fresh = Client::connect(balancer.address());
    wait::until("SUNDOWN is in force", Duration::from_secs(5), || {
        on_every_core(&balancer, |answer| answer.origin() == "b")
    });
    let traffic = Traffic::start(balancer.address(), 16);
    traffic.flows(1_000);
    assert_eq!(traffic.by_origin().get("a"), None, "a draining backend gets no new request");
    wait::until("idle connections to it are closed", Duration::from_secs(5), || {
        a.open_connections() == 8
    });
    a.open("later");
    for client in &mut held {
        let answer = client.response("GET").expect("nothing in flight is cut");
        assert!(answer.body == crate::support::noise::body(6, 100_000));
    }
    wait::until("nothing is left open to it", Duration::from_secs(5), || a.open_connections() == 0);
    traffic.stop();
    agent.push_set(&[(&first, 50.0, "SUNDOWN"), (&second, 10.0, "SUNDOWN")]);
    wait::until("only SUNDOWN is left", Duration::from_secs(5), || {
        let answer = fresh.get("/");
        let is_refused = answer.status() == 503 && answer.head.field("retry-after").is_some();
        if answer.head.lists("connection", "close") {
            fresh = Client::connect(balancer.address());
        }
        is_refused
    });
}

const REQUESTS: u64 = 20_000;
const POINTS: f64 = 2.0;
