//! One request at a time, as HTTP.md wants it: heads, bodies, uploads, interim answers, old clients.

use crate::support::balancer::Balancer;
use crate::support::client::{Client, Response};
use crate::support::noise;
use crate::support::origin::Origin;
use crate::support::wire::Framing;

/// An origin, a balancer in front of it, and a client.
fn chain() -> (Origin, Balancer, Client) {
    let origin = Origin::start("a");
    let balancer = Balancer::before(&[(&origin, 50)], &[]);
    let client = Client::connect(balancer.address());
    (origin, balancer, client)
}

fn raw(client: &mut Client, method: &str, bytes: &[u8]) -> Response {
    client.send(bytes).expect("sent");
    client
        .response(method)
        .unwrap_or_else(|broken| panic!("{:?}: {broken:?}", String::from_utf8_lossy(bytes)))
}

#[test]
fn a_request_arrives_as_it_was_meant() {
    let (origin, _balancer, mut client) = chain();
    let target = "/a%2Fb/../c//d?q=%20&x=/?";
    let fields = "X-One: 1\r\nConnection: X-Hop, keep-alive\r\nX-Hop: gone\r\nKeep-Alive: 5\r\nTE: deflate\r\n\
                  Proxy-Connection: keep-alive\r\nX-Two: a\r\nX-Two: b\r\nX-Forwarded-For: 203.0.113.9\r\n";
    assert_eq!(client.ask("GET", target, fields, b"").expect("an answer").status(), 200);
    let seen = origin.seen().pop().expect("a request");
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", target));
    let all = |name: &str| -> Vec<&str> {
        seen.fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    };
    assert_eq!(all("host"), ["test"]);
    assert_eq!(all("x-two"), ["a", "b"]);
    for gone in ["x-hop", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        assert_eq!(all(gone), Vec::<&str>::new(), "{gone}");
    }
    assert!(all("te").iter().all(|value| *value == "trailers"), "TE is ours alone");
    assert_eq!(all("via"), ["1.1 balancer"]);
    assert_eq!(all("x-forwarded-for").join(", "), "203.0.113.9, 127.0.0.1");
    assert_eq!(all("x-forwarded-proto"), ["http"]);
    assert_eq!(all("x-forwarded-host"), ["test"]);
    assert_eq!(origin.malformed(), Vec::<String>::new());
}

#[test]
fn bodies_come_back_byte_for_byte_in_every_framing() {
    let (origin, _balancer, mut client) = chain();
    for length in [0, 1, 2, 1_000, 16_383, 16_384, 32_768, 65_536, 65_537, 1_000_000, 8 << 20] {
        for kind in ["bytes", "chunked", "until-close"] {
            let answer = client.get(&format!("/{kind}/{length}?seed={length}"));
            assert!(answer.body == noise::body(length, length), "{kind} {length}");
            let wanted = if kind == "bytes" { Framing::Length(length) } else { Framing::Chunked };
            assert_eq!(answer.framing, wanted, "{kind} {length}");
            assert_eq!(answer.head.count("date"), 1, "a Date is added once");
        }
    }
    assert_eq!(origin.malformed(), Vec::<String>::new());
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let (_origin, _balancer, mut client) = chain();
    let head = client.ask("HEAD", "/bytes/5000", "", b"").expect("an answer");
    assert_eq!((head.status(), head.head.field("content-length")), (200, Some("5000")));
    for code in [204, 304] {
        assert_eq!(client.get(&format!("/status/{code}")).status(), code);
    }
    for code in [200, 206, 404, 418, 500, 503] {
        let answer = client.get(&format!("/status/{code}"));
        assert_eq!(
            (answer.status(), answer.text().as_str()),
            (code, "scripted"),
            "a whole answer is relayed"
        );
    }
}

#[test]
fn trailers_reach_a_client_that_takes_them() {
    let (_origin, _balancer, mut client) = chain();
    let fields = "TE: trailers\r\nConnection: TE\r\n";
    let answer = client.ask("GET", "/chunked/1000?trailer=1", fields, b"").expect("an answer");
    assert_eq!(answer.trailers, [("X-Checksum".to_owned(), "1".to_owned())]);
}

#[test]
fn uploads_arrive_byte_for_byte() {
    let (origin, _balancer, mut client) = chain();
    for length in [0_u64, 1, 16_384, 65_536, 3_000_000] {
        let body = noise::body(9, length);
        let answer = client.ask("POST", "/upload?seed=9", "", &body).expect("an answer");
        assert_eq!(answer.text(), format!("length={length} matches=yes"));
    }
    let chunked = b"PUT /upload HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: Chunked\r\n\r\n\
                    5;ext=\"a\"\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n";
    let hash = noise::hash(noise::HASH_START, b"hello world");
    assert_eq!(raw(&mut client, "PUT", chunked).text(), format!("length=11 hash={hash:016x}"));
    for split in 1..chunked.len() {
        client.send(&chunked[..split]).expect("sent");
        assert_eq!(
            raw(&mut client, "PUT", &chunked[split..]).text(),
            format!("length=11 hash={hash:016x}"),
            "{split}"
        );
    }
    assert_eq!(origin.malformed(), Vec::<String>::new());
}

#[test]
fn expect_100_continue_is_answered_before_the_body() {
    let (_origin, _balancer, mut client) = chain();
    let head =
        "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    client.send(head.as_bytes()).expect("sent");
    assert_eq!(client.any_head().expect("an interim head").status(), 100);
    assert!(raw(&mut client, "POST", b"hello").text().starts_with("length=5 "));
    // A client may also send its body without waiting (RFC 9110 §10.1.1).
    client.send(head.as_bytes()).expect("sent");
    assert!(raw(&mut client, "POST", b"hello").text().starts_with("length=5 "));
    // A final answer instead of 100 ends the matter.
    let refused = head.replace("/upload", "/refuse");
    assert_eq!(raw(&mut client, "POST", refused.as_bytes()).status(), 413);
}

#[test]
fn an_early_answer_does_not_stop_the_upload() {
    let (origin, _balancer, mut client) = chain();
    client
        .send(b"POST /early HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello")
        .expect("sent");
    assert_eq!(client.response("POST").expect("before the upload's end").text(), "early");
    client.send(b"world").expect("the upload goes on");
    assert_eq!(client.get("/bytes/3?seed=1").body, noise::body(1, 3), "and the connection too");
    assert_eq!(origin.malformed(), Vec::<String>::new());
}

#[test]
fn interim_answers_pass_to_new_clients_only() {
    let (_origin, balancer, mut client) = chain();
    let answer = client.get("/hints");
    let codes: Vec<u16> = answer.interim.iter().map(|head| head.status()).collect();
    assert_eq!((codes, answer.text().as_str()), (vec![103, 199], "after hints"));
    assert_eq!(answer.interim[0].field("link"), Some("</a.css>; rel=preload"));
    let mut old = Client::connect(balancer.address());
    let answer = raw(&mut old, "GET", b"GET /hints HTTP/1.0\r\nHost: test\r\n\r\n");
    assert_eq!((answer.interim.len(), answer.text().as_str()), (0, "after hints"));
    old.end().expect("a 1.0 connection ends unless asked to stay");
}

#[test]
fn an_old_client_gets_what_it_can_read() {
    let (origin, balancer, _client) = chain();
    let mut old = Client::connect(balancer.address());
    let answer = raw(&mut old, "GET", b"GET /chunked/70000?seed=2 HTTP/1.0\r\n\r\n");
    assert_eq!(answer.framing, Framing::UntilClose, "never chunked to 1.0");
    assert!(answer.body == noise::body(2, 70_000));
    let seen = origin.seen().pop().expect("a request");
    let host = seen
        .fields
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, v)| v.clone());
    assert_eq!(
        host,
        Some(origin.authority()),
        "without a Host the backend's own authority is sent"
    );
    let mut staying = Client::connect(balancer.address());
    for _ in 0..3 {
        let asked = b"GET /bytes/9?seed=1 HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n";
        let answer = raw(&mut staying, "GET", asked);
        assert_eq!(answer.body, noise::body(1, 9));
        assert!(answer.head.lists("connection", "keep-alive"), "{:?}", answer.head);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_origin, _balancer, mut client) = chain();
    let kinds = ["bytes", "chunked", "until-close"];
    let ask = |n: u64| {
        let kind = kinds[n as usize % 3];
        format!("GET /{kind}/{}?seed={n} HTTP/1.1\r\nHost: test\r\nX-Nonce: {n}\r\n\r\n", n * 100)
    };
    let all: String = (1..=60).map(ask).collect();
    client.send(all.as_bytes()).expect("sent");
    for n in 1..=60 {
        let answer = client.response("GET").expect("an answer");
        assert_eq!(answer.head.field("x-nonce"), Some(n.to_string().as_str()));
        assert!(answer.body == noise::body(n, n * 100));
    }
}

#[test]
fn torn_requests_and_half_closed_clients_are_served() {
    let (_origin, balancer, mut client) = chain();
    let two = b"\r\nGET /bytes/5?seed=1 HTTP/1.1\r\nHost: test\r\n\r\n\
                POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc";
    for piece in [1, 2, 3, 7] {
        client.send_torn(two, piece).expect("sent");
        assert_eq!(client.response("GET").expect("an answer").body, noise::body(1, 5));
        assert!(client.response("POST").expect("an answer").text().starts_with("length=3"));
    }
    let mut finishing = Client::connect(balancer.address());
    finishing.send(b"GET /chunked/50000?seed=4 HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
    finishing.finish();
    assert!(finishing.response("GET").expect("still an answer").body == noise::body(4, 50_000));
    finishing.end().expect("then the end");
}
