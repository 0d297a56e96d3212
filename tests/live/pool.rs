//! Pooled upstream connections: reused, never trusted. No answer reaches another request, no POST is sent twice.

use std::time::Duration;

use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::noise;
use crate::support::origin::{Origin, Step};
use crate::support::wait;

/// One worker core: the next request meets the same pool.
fn one_core(origin: &Origin) -> Balancer {
    let core = crate::support::balancer::allowed_cores()[0].to_string();
    Balancer::before(&[(origin, 50)], &["--cores", &core, "--control-core", &core])
}

fn answer(text: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes()
}

#[test]
fn sequential_requests_share_one_connection() {
    let origin = Origin::start("a");
    let balancer = one_core(&origin);
    for _ in 0..5 {
        let mut client = Client::connect(balancer.address());
        for _ in 0..10 {
            assert_eq!(client.get("/bytes/1000").status(), 200);
        }
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_pooled_connection_that_dies_under_a_request_is_survived() {
    let origin = Origin::start("a");
    let balancer = one_core(&origin);
    let mut client = Client::connect(balancer.address());
    assert_eq!(client.get("/warm").status(), 200);
    origin.drop_reused(true);
    // Few enough to stay within the smallest retry budget (10 a second).
    for _ in 0..4 {
        assert_eq!(client.get("/safe").status(), 200, "one safe retry");
    }
    let used: Vec<u64> = origin
        .seen()
        .iter()
        .filter(|seen| seen.target == "/safe")
        .map(|seen| seen.connection)
        .collect();
    assert!(
        used.windows(2).step_by(2).all(|pair| pair[0] < pair[1]),
        "each on a fresh connection: {used:?}"
    );
}

#[test]
fn a_connection_closed_while_idle_is_not_used() {
    let origin = Origin::start("a");
    let balancer = one_core(&origin);
    let mut client = Client::connect(balancer.address());
    for _ in 0..300 {
        assert_eq!(client.get("/bytes/10?then=vanish").status(), 200);
    }
    for _ in 0..50 {
        assert_eq!(client.get("/").status(), 200);
        origin.cut_all();
        wait::until("the pool lets go", Duration::from_secs(5), || origin.open_connections() == 0);
        assert_eq!(client.ask("POST", "/", "", b"x").expect("an answer").status(), 200);
    }
}

#[test]
fn a_post_is_never_sent_twice() {
    let origin = Origin::start("a");
    let balancer = one_core(&origin);
    for number in 0..40 {
        let mut client = Client::connect(balancer.address());
        origin.drop_reused(false);
        assert_eq!(client.get("/warm").status(), 200);
        origin.drop_reused(true);
        let target = format!("/once/{number}");
        let body = noise::body(1, number * 300);
        let answer = client.ask("POST", &target, "", &body).expect("an answer, if only our own");
        assert_eq!(answer.status(), 502, "the backend took the request and died");
        assert_eq!(origin.count_of(&target), 1, "{target}");
    }
}

#[test]
fn a_post_in_the_real_race_is_sent_at_most_once() {
    let origin = Origin::start("a");
    let balancer = one_core(&origin);
    let mut client = Client::connect(balancer.address());
    let mut failed = 0;
    for number in 0..300 {
        // The FIN is on its way while the POST goes out: either it is seen first, or the POST is lost, never doubled.
        assert_eq!(client.get("/bytes/10?then=vanish").status(), 200);
        let target = format!("/race/{number}");
        let answer = client.ask("POST", &target, "", b"x").expect("an answer");
        assert!(matches!(answer.status(), 200 | 502), "{answer:?}");
        failed += u32::from(answer.status() == 502);
        assert!(origin.count_of(&target) <= 1, "{target} was sent twice");
        if answer.head.lists("connection", "close") {
            client = Client::connect(balancer.address());
        }
    }
    eprintln!("{failed} of 300 POSTs met the race");
}

#[test]
fn stray_bytes_after_an_answer_reach_nobody() {
    let origin = Origin::start("a");
    let balancer = one_core(&origin);
    let mut client = Client::connect(balancer.address());
    origin.script("stray", vec![Step::Send([answer("mine"), answer("stray")].concat())]);
    origin.script("byte", vec![Step::Send([answer("mine"), b"!".to_vec()].concat())]);
    for _ in 0..20 {
        for name in ["stray", "byte"] {
            assert_eq!(client.get(&format!("/script/{name}")).text(), "mine");
            assert!(client.get("/own").text().contains("GET /own HTTP/1.1"));
        }
    }
    // Later, when the connection lies in the pool.
    origin.script(
        "late",
        vec![Step::Send(answer("mine")), Step::Gate("stray"), Step::Send(answer("stray"))],
    );
    assert_eq!(client.get("/script/late").text(), "mine");
    let before = origin.open_connections();
    origin.open("stray");
    wait::until("the dirty connection is dropped", Duration::from_secs(5), || {
        origin.open_connections() < before
    });
    assert!(client.get("/own").text().contains("GET /own HTTP/1.1"));
}

#[test]
fn a_body_where_none_may_be_poisons_the_connection() {
    let origin = Origin::start("a");
    let balancer = one_core(&origin);
    let mut client = Client::connect(balancer.address());
    let with_body = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello".to_vec();
    origin.script("304", vec![Step::Send(with_body)]);
    origin.script("head", vec![Step::Send(answer("a body to HEAD"))]);
    for _ in 0..10 {
        assert_eq!(client.get("/script/304").status(), 304);
        assert!(client.get("/own").text().contains("GET /own HTTP/1.1"));
        assert_eq!(client.ask("HEAD", "/script/head", "", b"").expect("an answer").status(), 200);
        assert!(client.get("/own").text().contains("GET /own HTTP/1.1"));
    }
}
