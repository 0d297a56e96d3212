//! Backends at their in-flight limit: who waits, who is turned away, who goes next.

use std::time::Duration;

use crate::support::balancer::{Balancer, allowed_cores};
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::wait;

const SOON: Duration = Duration::from_secs(5);

fn ask(balancer: &Balancer, path: &str) -> Client {
    let mut client = Client::connect(balancer.address());
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).expect("sent");
    client
}

#[test]
fn what_waits_is_served_one_after_the_other() {
    let origin = Origin::start("a");
    let flags = ["--cores", "1", "--backend-max-inflight", "1", "--queue-timeout", "60s"];
    let balancer = Balancer::before(&[(&origin, 50)], &flags);
    let mut clients: Vec<_> = (0..6).map(|n| ask(&balancer, &format!("/hold/gate{n}"))).collect();
    for served in 1..=6 {
        wait::until("the next is in flight", SOON, || origin.seen().len() == served);
        let seen = origin.seen().pop().expect("a request");
        let gate = seen.target.strip_prefix("/hold/").expect("one of ours").to_owned();
        let number: usize =
            gate.strip_prefix("gate").and_then(|n| n.parse().ok()).expect("a number");
        assert_eq!(origin.seen().len(), served, "the limit is kept");
        origin.open(&gate);
        assert_eq!(clients[number].response("GET").expect("an answer").status(), 200);
    }
}

#[test]
fn the_limit_is_one_for_all_cores_and_any_core_may_use_it() {
    let [first, second, ..] = allowed_cores()[..] else { return };
    let origin = Origin::start("a");
    let cores = format!("{first},{second}");
    let flags = ["--cores", &cores, "--steer", "none", "--backend-max-inflight", "4"];
    let patient = ["--queue-timeout", "60s", "--cache", "off"];
    let balancer = Balancer::before(&[(&origin, 50)], &[&flags[..], &patient].concat());
    // The kernel deals each six out anew: two and four, one and five, all on one core.
    for round in 0..6 {
        let before = origin.seen().len();
        let path = format!("/hold/gate{round}");
        let mut clients: Vec<_> = (0..6).map(|_| ask(&balancer, &path)).collect();
        wait::until("four are in flight", SOON, || origin.seen().len() == before + 4);
        let is_over = || origin.seen().len() > before + 4;
        assert!(!wait::happens(Duration::from_millis(50), is_over), "the limit is kept");
        origin.open(&format!("gate{round}"));
        for client in &mut clients {
            assert_eq!(client.response("GET").expect("an answer").status(), 200);
        }
    }
}

#[test]
fn an_overflow_is_turned_away_at_once_and_a_deadline_in_time() {
    let origin = Origin::start("a");
    let flags = [
        ["--cores", "1", "--backend-max-inflight", "1"],
        ["--queue-length", "1", "--queue-timeout", "1s"],
    ];
    let balancer = Balancer::before(&[(&origin, 50)], &flags.concat());
    let mut first = ask(&balancer, "/hold/gate");
    wait::until("the first is in flight", SOON, || origin.seen().len() == 1);
    let mut answers: Vec<_> = [ask(&balancer, "/b"), ask(&balancer, "/c")]
        .iter_mut()
        .map(|client| client.response("GET").expect("an answer"))
        .map(|answer| {
            assert_eq!((answer.status(), answer.head.field("Retry-After")), (503, Some("1")));
            answer.head.field("Proxy-Status").expect("a reason").to_owned()
        })
        .collect();
    answers.sort();
    assert!(
        answers[0].contains("queue_full") && answers[1].contains("queue_timeout"),
        "{answers:?}"
    );
    origin.open("gate");
    assert_eq!(first.response("GET").expect("an answer").status(), 200);
    assert_eq!(origin.seen().len(), 1, "who was turned away never got there");
}

#[test]
fn a_client_that_leaves_gives_its_place_up() {
    let origin = Origin::start("a");
    let flags = ["--cores", "1", "--backend-max-inflight", "1", "--queue-length", "1"];
    let patient = ["--queue-timeout", "60s"];
    let balancer = Balancer::before(&[(&origin, 50)], &[&flags[..], &patient].concat());
    let mut first = ask(&balancer, "/hold/gate");
    wait::until("the first is in flight", SOON, || origin.seen().len() == 1);
    let leaver = ask(&balancer, "/gone");
    wait::until("the queue is full", SOON, || {
        ask(&balancer, "/full").response("GET").is_ok_and(|answer| answer.status() == 503)
    });
    leaver.abort();
    let mut stayer = None;
    wait::until("its place is free", SOON, || {
        let mut client = ask(&balancer, "/stays");
        // Turned away at once, or waiting.
        client.set_patience(Duration::from_millis(200));
        let is_waiting = client.response("GET").is_err();
        stayer = is_waiting.then_some(client);
        is_waiting
    });
    origin.open("gate");
    assert_eq!(first.response("GET").expect("an answer").status(), 200);
    let mut stayer = stayer.expect("somebody waits");
    stayer.set_patience(SOON);
    assert_eq!(stayer.response("GET").expect("an answer").status(), 200);
    assert_eq!(origin.count_of("/gone"), 0);
}
