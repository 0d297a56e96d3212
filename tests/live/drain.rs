//! SIGTERM: nothing in flight is lost, nobody new is let in, the exit is prompt and 0.

use std::net::TcpStream;
use std::time::Duration;

use crate::support::balancer::{Balancer, allowed_cores};
use crate::support::client::Client;
use crate::support::noise;
use crate::support::origin::{Origin, Step};
use crate::support::wait;
use crate::support::wire::Break;

fn is_refused(balancer: &Balancer) -> bool {
    TcpStream::connect_timeout(&balancer.address(), Duration::from_secs(1)).is_err()
}

#[test]
fn requests_in_flight_finish_and_the_exit_is_clean() {
    let origin = Origin::start("a");
    let mut balancer = Balancer::before(&[(&origin, 50)], &["--drain-timeout", "60s"]);
    let mut idle = Client::connect(balancer.address());
    assert_eq!(idle.get("/").status(), 200);
    let mut waiting: Vec<Client> = (0..10).map(|_| Client::connect(balancer.address())).collect();
    // Each asks for something else: for one and the same, all but one would wait for that one.
    for (n, client) in waiting.iter_mut().enumerate() {
        let head = format!("GET /hold/later?{n} HTTP/1.1\r\nHost: test\r\n\r\n");
        client.send(head.as_bytes()).expect("sent");
    }
    let mut half: Vec<Client> = (0..10).map(|_| Client::connect(balancer.address())).collect();
    for (n, client) in half.iter_mut().enumerate() {
        let head = format!("GET /partial/200000/later?seed=8&n={n} HTTP/1.1\r\nHost: test\r\n\r\n");
        client.send(head.as_bytes()).expect("sent");
    }
    let mut uploading = Client::connect(balancer.address());
    uploading
        .send(b"POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello")
        .expect("sent");
    wait::until("all are in flight", Duration::from_secs(5), || origin.seen().len() == 22);
    balancer.terminate();
    idle.end().expect("a silent connection is closed at once");
    wait::until("the listeners are closed", Duration::from_secs(5), || is_refused(&balancer));
    origin.open("later");
    for client in &mut waiting {
        let answer = client.response("GET").expect("an answer");
        assert_eq!(answer.status(), 200);
        assert!(
            answer.head.lists("connection", "close"),
            "the last answer says so: {:?}",
            answer.head
        );
        client.end().expect("then the end");
    }
    for client in &mut half {
        assert!(client.response("GET").expect("an answer").body == noise::body(8, 200_000));
        client.end().expect("then the end");
    }
    uploading.send(b"world").expect("sent");
    let answer = uploading.response("POST").expect("an answer");
    assert!(answer.text().starts_with("length=10 ") && answer.head.lists("connection", "close"));
    // With a minute of drain allowed, ten seconds show that it did not wait for the deadline.
    assert_eq!(balancer.exit(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn an_idle_balancer_ends_at_once() {
    let origin = Origin::start("a");
    let mut balancer = Balancer::before(&[(&origin, 50)], &["--drain-timeout", "60s"]);
    let mut idle: Vec<Client> = (0..50).map(|_| Client::connect(balancer.address())).collect();
    for client in &mut idle {
        assert_eq!(client.get("/").status(), 200);
    }
    balancer.terminate();
    assert_eq!(balancer.exit(Duration::from_secs(10)).code(), Some(0));
    for client in &mut idle {
        client.end().expect("an orderly end");
    }
}

#[test]
fn the_drain_deadline_ends_what_does_not_end() {
    let origin = Origin::start("a");
    let mut balancer = Balancer::before(&[(&origin, 50)], &["--drain-timeout", "300ms"]);
    let mut stuck = Client::connect(balancer.address());
    stuck.send(b"GET /hold/never HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
    wait::until("the request is in flight", Duration::from_secs(5), || origin.requests() == 1);
    balancer.terminate();
    balancer.exit(Duration::from_secs(10));
}

#[test]
fn a_second_signal_stops_at_once() {
    let origin = Origin::start("a");
    let mut balancer = Balancer::before(&[(&origin, 50)], &["--drain-timeout", "60s"]);
    let mut stuck = Client::connect(balancer.address());
    stuck.send(b"GET /hold/never HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
    wait::until("the request is in flight", Duration::from_secs(5), || origin.requests() == 1);
    balancer.terminate();
    wait::until("the listeners are closed", Duration::from_secs(5), || is_refused(&balancer));
    balancer.terminate();
    balancer.exit(Duration::from_secs(10));
}

#[test]
fn a_full_house_lets_its_queue_in_and_closes_the_door() {
    let origin = Origin::start("a");
    let core = allowed_cores()[0].to_string();
    let flags = ["--max-connections", "4", "--cores", &core, "--drain-timeout", "60s"];
    let mut balancer = Balancer::before(&[(&origin, 50)], &flags);
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(balancer.address())).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let head = format!("GET /hold/later?{n} HTTP/1.1\r\nHost: test\r\n\r\n");
        client.send(head.as_bytes()).expect("sent");
    }
    wait::until("the house is full", Duration::from_secs(5), || origin.requests() == 4);
    balancer.terminate();
    wait::until("the listeners are closed", Duration::from_secs(5), || is_refused(&balancer));
    origin.open("later");
    for client in &mut clients {
        assert_eq!(client.response("GET").expect("an answer").status(), 200);
    }
    assert_eq!(balancer.exit(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn a_stop_does_not_make_half_an_answer_look_whole() {
    let origin = Origin::start("a");
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    origin.script("half", vec![Step::Send(head.to_vec()), Step::Gate("never")]);
    let mut balancer = Balancer::before(&[(&origin, 50)], &["--drain-timeout", "60s"]);
    let mut old = Client::connect(balancer.address());
    // Only the close marks the end for a client of HTTP/1.0.
    old.send(b"GET /script/half HTTP/1.0\r\nHost: test\r\n\r\n").expect("sent");
    let (_, _, framing) = old.response_head("GET").expect("the head is relayed");
    balancer.terminate();
    wait::until("the listeners are closed", Duration::from_secs(5), || is_refused(&balancer));
    balancer.terminate();
    assert_eq!(old.body(framing, |_| {}), Err(Break::Reset));
    balancer.exit(Duration::from_secs(10));
}
