//! The support code against itself, without a proxy: a verifier that cannot fail proves nothing.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::agent::{self, Agent, Manner};
use crate::support::client::Client;
use crate::support::noise;
use crate::support::origin::{Corruption, Origin, Step};
use crate::support::parts;
use crate::support::traffic::Traffic;
use crate::support::verify::{Plan, Verdict, verify};
use crate::support::wait;
use crate::support::wire::{Break, Framing};

fn direct(requests: u64) -> Plan {
    Plan { requests, clients: 8, seed: 1, body_bytes_max: 4 << 20, is_proxied: false }
}

fn verdict_on(corruption: Option<Corruption>) -> Verdict {
    let origin = Origin::start("a");
    origin.forget();
    if let Some(how) = corruption {
        origin.corrupt(how, 97);
    }
    let verdict = verify(origin.address(), &direct(2_000));
    assert_eq!(origin.malformed(), Vec::<String>::new());
    let Verdict { answered, lost, abandoned, .. } = verdict;
    assert_eq!(answered + lost + abandoned, 2_000, "every request has one outcome");
    verdict
}

#[test]
fn the_verifier_accepts_an_honest_origin() {
    let started = Instant::now();
    let origin = Origin::start("a");
    origin.forget();
    let plan = Plan { requests: 20_000, ..direct(0) };
    let verdict = verify(origin.address(), &plan);
    verdict.assert_flawless();
    assert_eq!(verdict.by_origin.get("a"), Some(&verdict.answered));
    assert!(verdict.bytes_down > 4 << 20 && verdict.bytes_up > 4 << 20, "{verdict:?}");
    eprintln!("verified {} answers in {:?}: {verdict:?}", verdict.answered, started.elapsed());
}

#[test]
fn the_verifier_catches_each_corruption() {
    let flipped = verdict_on(Some(Corruption::FlipByte));
    assert!(flipped.wrong > 0 && flipped.mixed == 0 && flipped.lost == 0, "{flipped:?}");
    let foreign = verdict_on(Some(Corruption::ForeignNonce));
    assert!(foreign.mixed > 0 && foreign.wrong == 0 && foreign.lost == 0, "{foreign:?}");
    let short = verdict_on(Some(Corruption::Short));
    assert!(short.lost > 0 && short.mixed == 0, "{short:?}");
    let swallowed = verdict_on(Some(Corruption::Swallow));
    assert!(swallowed.lost > 0 && swallowed.mixed == 0, "{swallowed:?}");
    let denied = verdict_on(Some(Corruption::DenyUpload));
    assert!(denied.wrong > 0 && denied.mixed == 0 && denied.lost == 0, "{denied:?}");
    assert!(flipped.complaints.iter().any(|text| text.contains("right false")), "{flipped:?}");
}

#[test]
fn an_origin_answers_what_its_path_says() {
    let origin = Origin::start("a");
    let mut client = Client::connect(origin.address());
    let echo = client.get("/any?x=1");
    assert!(echo.text().contains("GET /any?x=1 HTTP/1.1\nHost: test\n"), "{}", echo.text());
    assert_eq!((echo.origin(), echo.status()), ("a", 200));

    let chunked = client.get("/chunked/100000?seed=7&trailer=1");
    assert_eq!(chunked.framing, Framing::Chunked);
    assert!(chunked.body == noise::body(7, 100_000));
    assert_eq!(chunked.trailers, [("X-Checksum".to_owned(), "1".to_owned())]);

    let hinted = client.get("/hints");
    let interim: Vec<u16> = hinted.interim.iter().map(|head| head.status()).collect();
    assert_eq!(interim, [103, 199]);

    let upload = client.ask("PUT", "/upload", "", b"hello").expect("an answer");
    let hash = noise::hash(noise::HASH_START, b"hello");
    assert_eq!(upload.text(), format!("length=5 hash={hash:016x}"));
    assert_eq!(client.get("/status/204").framing, Framing::None);

    client.send(b"GET /until-close/50?seed=3 HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
    let last = client.response("GET").expect("an answer");
    assert_eq!((last.framing, last.body), (Framing::UntilClose, noise::body(3, 50)));
    assert_eq!(origin.count_of("/hints"), 1);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn an_origin_breaks_off_as_told() {
    let origin = Origin::start("a");
    let ask = |target: &str| {
        Client::connect(origin.address()).ask("GET", target, "", b"").map(|r| r.status())
    };
    assert_eq!(ask("/cut/1000"), Err(Break::Truncated));
    assert_eq!(ask("/reset/1000"), Err(Break::Reset));
    origin.script("odd", vec![Step::Send(b"HTTP/1.1 200\nbad\n\n\r\n\r\n".to_vec()), Step::Close]);
    assert!(matches!(ask("/script/odd"), Err(Break::Malformed(_))));

    let mut client = Client::connect(origin.address());
    client.send(b"GET /hold/later HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
    client.set_patience(Duration::from_millis(20));
    assert_eq!(client.response("GET").map(|r| r.status()), Err(Break::Silent));
    origin.open("later");
    client.set_patience(Duration::from_secs(10));
    assert_eq!(client.response("GET").map(|r| r.status()), Ok(200));

    origin.drop_reused(true);
    client.send(b"POST /once HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").expect("sent");
    assert_eq!(client.response("POST").map(|r| r.status()), Err(Break::Closed));
    assert_eq!(origin.count_of("/once"), 1);
    let address = origin.address();
    origin.close();
    assert!(std::net::TcpStream::connect(address).is_err(), "a closed origin refuses");
}

#[test]
fn an_origin_judges_what_it_is_sent() {
    let origin = Origin::start("a");
    let mut stream = std::net::TcpStream::connect(origin.address()).expect("connects");
    let both =
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(both).expect("sent");
    wait::until("the request is refused", Duration::from_secs(5), || {
        !origin.malformed().is_empty()
    });
}

#[test]
fn an_agent_pushes_and_comes_back() {
    let agent = Agent::start();
    agent.push_set(&[("app-1:80", 87.5, "LU")]);
    let (mut link, _) = tungstenite::connect(agent.url()).expect("a handshake");
    let frame = link.read().expect("the current frame").into_text().expect("text");
    assert_eq!(
        frame.as_str(),
        r#"[{"dns_name":"app-1:80","score":87.5,"utilization_category":"LU"}]"#
    );
    link.send(tungstenite::Message::Ping("x".into())).expect("sent");
    assert!(link.read().expect("an answer").is_pong());
    wait::until("the link is listed", Duration::from_secs(5), || agent.links() == 1);
    agent.push_raw(&agent::frame(agent::BINARY, &[0; 70_000]));
    assert_eq!(link.read().expect("a frame").len(), 70_000);
    agent.kill();
    assert!(link.read().is_err());
    agent.restart(Manner::Proper);
    agent.push("[]");
    let (mut link, _) = tungstenite::connect(agent.url()).expect("the same port");
    assert_eq!(link.read().expect("a frame").into_text().expect("text").as_str(), "[]");
    assert!(
        tungstenite::connect(agent.url().replace("/ws", "/other")).is_err(),
        "only /ws is served"
    );
}

#[test]
fn foreign_parts_start_and_answer() {
    if let Some(nginx) = parts::nginx() {
        let mut client = Client::connect(nginx.address());
        assert!(client.get("/page").body == noise::body(16_384, 16_384));
        assert_eq!(client.get("/echo?a=b").text(), "GET /echo?a=b test\n");
    }
    if let Some(python) = parts::python_http() {
        let mut client = Client::connect(python.address());
        assert_eq!(
            client.ask("POST", "/x", "", b"four").expect("an answer").text(),
            "python POST /x 4"
        );
    }
    if let Some(python) = parts::python_agent("[1]") {
        let url = format!("ws://{}/ws", python.address());
        let (mut link, _) = tungstenite::connect(url).expect("a handshake");
        assert_eq!(link.read().expect("a frame").into_text().expect("text").as_str(), "[1]");
    }
}

#[test]
fn traffic_counts_answers_and_failures() {
    let origin = Origin::start("a");
    let shares = Traffic::run(origin.address(), 4, 1_000);
    assert_eq!(shares.get("a"), Some(&1_000));
    let traffic = Traffic::start(origin.address(), 2);
    traffic.flows(100);
    origin.corrupt(Corruption::Swallow, 10);
    wait::until("the failure is counted", Duration::from_secs(5), || {
        !traffic.failures().is_empty()
    });
}
