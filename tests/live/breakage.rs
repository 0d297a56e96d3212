//! What goes wrong on either side, and what the other side gets to see of it.

use std::time::Duration;

use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::origin::{Origin, Step};
use crate::support::traffic::Traffic;
use crate::support::wait;
use crate::support::wire::Break;

#[test]
fn a_broken_answer_is_never_made_whole() {
    let origin = Origin::start("a");
    let balancer = Balancer::before(&[(&origin, 50)], &[]);
    let chunks = |tail: &str| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        Step::Send(format!("{head}{tail}").into_bytes())
    };
    origin.script("no-last-chunk", vec![chunks(""), Step::Close]);
    origin.script("bad-size", vec![chunks("zz\r\n"), Step::Close]);
    origin.script("cut-chunk", vec![chunks("5\r\nwor"), Step::Reset]);
    let close = b"HTTP/1.1 200 OK\r\n\r\nhello".to_vec();
    origin.script("reset-until-close", vec![Step::Send(close), Step::Reset]);
    let targets = [
        "/cut/100000",
        "/reset/100000",
        "/script/no-last-chunk",
        "/script/bad-size",
        "/script/cut-chunk",
        "/script/reset-until-close",
    ];
    for target in targets {
        let answer = Client::connect(balancer.address()).ask("GET", target, "", b"");
        let is_told = match &answer {
            Err(Break::Truncated | Break::Reset) => true,
            // What broke before anything was relayed may also be a 502.
            Ok(answer) => answer.status() == 502,
            Err(_) => false,
        };
        assert!(is_told, "{target}: {answer:?}");
    }
    assert_eq!(Client::connect(balancer.address()).get("/").status(), 200);
}

#[test]
fn an_answer_we_cannot_trust_is_a_502() {
    let origin = Origin::start("a");
    let balancer = Balancer::before(&[(&origin, 50)], &[]);
    let table: [(&str, &str); 9] = [
        (
            "both",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab"),
        ("sign", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab"),
        ("status", "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n"),
        ("fold", "HTTP/1.1 200 OK\r\nX-A: 1\r\n folded\r\nContent-Length: 0\r\n\r\n"),
        ("name", "HTTP/1.1 200 OK\r\nX A: 1\r\nContent-Length: 0\r\n\r\n"),
        ("nul", "HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 0\r\n\r\n"),
        ("junk", "hello world\r\n\r\n"),
        (
            "unasked",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        ),
    ];
    let mut client = Client::connect(balancer.address());
    for (name, text) in table {
        origin.script(name, vec![Step::Send(text.as_bytes().to_vec())]);
        // POST: it is not tried again, so one bad answer is the whole story.
        let answer =
            client.ask("POST", &format!("/script/{name}"), "", b"").expect("an answer of our own");
        assert_eq!(answer.status(), 502, "{name}");
        let status = answer.head.field("proxy-status").unwrap_or_default();
        assert!(status.starts_with("balancer"), "{name}: {status}");
        if answer.head.lists("connection", "close") {
            client = Client::connect(balancer.address());
        }
        assert_eq!(origin.count_of(&format!("/script/{name}")), 1, "{name}");
    }
}

#[test]
fn what_has_begun_to_be_answered_is_not_sent_again() {
    let (one, other) = (Origin::start("one"), Origin::start("other"));
    let balancer = Balancer::before(&[(&one, 50), (&other, 50)], &[]);
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n";
    for (name, text) in
        [("byte", "H"), ("half", "HTTP/1.1 200 OK\r\nX"), ("junk", "hello"), ("chunk", chunks)]
    {
        for origin in [&one, &other] {
            origin.script(name, vec![Step::Send(text.as_bytes().to_vec()), Step::Close]);
        }
        let target = format!("/script/{name}");
        // GET: before the first byte of an answer it would have had another try.
        assert_eq!(Client::connect(balancer.address()).get(&target).status(), 502, "{name}");
        assert_eq!(one.count_of(&target) + other.count_of(&target), 1, "{name}");
    }
}

#[test]
fn a_request_we_cannot_trust_is_refused_and_never_sent() {
    let origin = Origin::start("a");
    let balancer = Balancer::before(&[(&origin, 50)], &[]);
    let table: [(u16, &str); 15] = [
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n"),
        (400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        (400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (501, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
        (501, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: rot13\r\n\r\n"),
        (417, "POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 0\r\n\r\n"),
    ];
    for (status, text) in table {
        let mut client = Client::connect(balancer.address());
        client.send(text.as_bytes()).expect("sent");
        let answer =
            client.response("POST").unwrap_or_else(|broken| panic!("{text:?}: {broken:?}"));
        assert_eq!(answer.status(), status, "{text:?}");
        assert!(
            answer.head.field("proxy-status").is_some() && !answer.body.is_empty(),
            "{text:?}: {answer:?}"
        );
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(101));
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    for (status, text) in [(414, long), (431, many), (431, large)] {
        let mut client = Client::connect(balancer.address());
        client.send(text.as_bytes()).expect("sent");
        assert_eq!(
            client.response("GET").expect("an answer in spite of unread input").status(),
            status
        );
    }
    assert_eq!(origin.requests(), 0);
}

#[test]
fn a_silent_backend_is_a_504() {
    let origin = Origin::start("a");
    let balancer = Balancer::before(&[(&origin, 50)], &["--request-timeout", "300ms"]);
    let mut client = Client::connect(balancer.address());
    assert_eq!(client.get("/hold/never").status(), 504);
    // After the head only a cut can say it.
    let mut client = Client::connect(balancer.address());
    let cut = client.ask("GET", "/partial/1000/never", "", b"").map(|r| r.status());
    assert!(matches!(cut, Err(Break::Truncated | Break::Reset)), "{cut:?}");
    assert_eq!(Client::connect(balancer.address()).get("/bytes/10").status(), 200);
}

#[test]
fn slow_clients_meet_their_timeouts() {
    let origin = Origin::start("a");
    let flags = ["--header-timeout", "300ms", "--idle-timeout", "300ms", "--body-timeout", "300ms"];
    let balancer = Balancer::before(&[(&origin, 50)], &flags);
    let mut begun = Client::connect(balancer.address());
    begun.send(b"GET / HTTP/1.1\r\nHo").expect("sent");
    assert_eq!(begun.response("GET").expect("408").status(), 408);
    let mut idle = Client::connect(balancer.address());
    assert_eq!(idle.get("/").status(), 200);
    idle.end().expect("a silent close");
    let mut stalled = Client::connect(balancer.address());
    stalled
        .send(b"POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nhal")
        .expect("sent");
    assert_eq!(stalled.response("POST").expect("408").status(), 408);
}

#[test]
fn a_refused_connect_goes_to_another_backend() {
    let (dead, alive) = (Origin::start("dead"), Origin::start("alive"));
    let balancer = Balancer::before(&[(&dead, 90), (&alive, 10)], &[]);
    dead.close();
    let shares = Traffic::run(balancer.address(), 4, 2_000);
    assert_eq!(shares.get("alive"), Some(&2_000), "{shares:?}");
}

#[test]
fn nobody_reachable_is_a_502_and_a_return_is_noticed() {
    let origin = Origin::start("a");
    let balancer = Balancer::before(&[(&origin, 50)], &[]);
    let address = origin.address();
    origin.close();
    let mut client = Client::connect(balancer.address());
    assert_eq!(client.get("/").status(), 502);
    let back = wait::value("the port is free again", Duration::from_secs(5), || {
        Origin::start_at("a", address).ok()
    });
    wait::until("the backend is used again", Duration::from_secs(5), || {
        Client::connect(balancer.address()).get("/").status() == 200
    });
    drop(back);
}

#[test]
fn a_client_that_resets_frees_its_backend() {
    let origin = Origin::start("a");
    let balancer = Balancer::before(&[(&origin, 50)], &[]);
    let mut client = Client::connect(balancer.address());
    client.send(b"GET /hold/never HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
    wait::until("the request is with the origin", Duration::from_secs(5), || {
        origin.requests() == 1
    });
    let before = balancer.descriptors();
    client.abort();
    wait::until("both connections are let go", Duration::from_secs(5), || {
        balancer.descriptors() <= before - 2
    });
}
