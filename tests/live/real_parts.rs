//! Other people's programs on every side: nginx and Python behind, Python `websockets` as agent, curl, wrk, h2load
//! in front. What is not installed is skipped, loudly.

use std::process::{Command, Output};
use std::time::Duration;

use crate::support::agent::snapshot;
use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::noise;
use crate::support::origin::Origin;
use crate::support::parts::{self, Part};
use crate::support::wait;

fn before(part: &Part) -> Balancer {
    Balancer::run(&["--backend", &part.address().to_string()])
}

fn output(program: &str, arguments: &[&str]) -> Option<Output> {
    let path = parts::find(program)?;
    Some(Command::new(path).args(arguments).output().expect("the program runs"))
}

#[test]
fn nginx_behind() {
    let Some(nginx) = parts::nginx() else { return };
    let balancer = before(&nginx);
    let mut client = Client::connect(balancer.address());
    for (name, length) in [("empty", 0), ("small", 128), ("page", 16_384), ("large", 5_000_000)] {
        let answer = client.get(&format!("/{name}"));
        assert!(answer.status() == 200 && answer.body == noise::body(length, length), "{name}");
        assert_eq!(
            client.ask("HEAD", &format!("/{name}"), "", b"").expect("an answer").status(),
            200
        );
    }
    let part = client.ask("GET", "/page", "Range: bytes=100-199\r\n", b"").expect("an answer");
    assert_eq!(part.status(), 206);
    assert_eq!(part.body, noise::body(16_384, 16_384)[100..200]);
    let etag = client.get("/page").head.field("etag").expect("an ETag").to_owned();
    let fields = format!("If-None-Match: {etag}\r\n");
    assert_eq!(client.ask("GET", "/page", &fields, b"").expect("an answer").status(), 304);
    assert_eq!(client.get("/absent").status(), 404);
    assert_eq!(client.get("/echo?a=b").text(), "GET /echo?a=b test\n");
    assert!(nginx.directory().join("nginx.conf").exists());
}

#[test]
fn python_behind() {
    let Some(python) = parts::python_http() else { return };
    let balancer = before(&python);
    let mut client = Client::connect(balancer.address());
    assert_eq!(client.get("/a?b").text(), "python GET /a?b 0");
    let body = noise::body(1, 500_000);
    assert_eq!(
        client.ask("POST", "/up", "", &body).expect("an answer").text(),
        "python POST /up 500000"
    );
    assert_eq!(client.ask("HEAD", "/", "", b"").expect("an answer").status(), 200);
}

#[test]
fn python_websockets_as_the_agent() {
    let origin = Origin::start("a");
    let Some(agent) = parts::python_agent(&snapshot(&[(&origin.authority(), 50.0, "LU")])) else {
        return;
    };
    let balancer = Balancer::run(&["--agent", &format!("ws://{}/ws", agent.address())]);
    let mut client = Client::connect(balancer.address());
    wait::until("its frame is in force", Duration::from_secs(10), || {
        let answer = client.get("/");
        if answer.head.lists("connection", "close") {
            client = Client::connect(balancer.address());
        }
        answer.status() == 200
    });
}

#[test]
fn curl_in_front() {
    let origin = Origin::start("a");
    let balancer = Balancer::before(&[(&origin, 50)], &[]);
    let url = |path: &str| format!("http://{}{path}", balancer.address());
    let Some(got) = output("curl", &["-sS", &url("/chunked/300000?seed=2")]) else { return };
    assert!(got.status.success() && got.stdout == noise::body(2, 300_000), "{:?}", got.stderr);
    // More than 1 MiB makes curl send Expect: 100-continue.
    let directory = parts::scratch();
    let file = directory.join("body");
    std::fs::write(&file, noise::body(2, 3_000_000)).expect("a file");
    let from = format!("@{}", file.display());
    let sent = output("curl", &["-sS", "--data-binary", &from, &url("/upload?seed=2")])
        .expect("curl is there");
    assert_eq!(String::from_utf8_lossy(&sent.stdout), "length=3000000 matches=yes");
    let arguments =
        ["-sS", "-H", "Transfer-Encoding: chunked", "-T", file.to_str().expect("UTF-8")];
    let sent = output("curl", &[&arguments[..], &[&url("/upload?seed=2")]].concat())
        .expect("curl is there");
    assert_eq!(String::from_utf8_lossy(&sent.stdout), "length=3000000 matches=yes");
    let old = output("curl", &["-sS", "-0", &url("/chunked/1000?seed=2")]).expect("curl is there");
    assert_eq!(old.stdout, noise::body(2, 1_000));
    std::fs::remove_dir_all(directory).expect("our own directory");
}

#[test]
fn load_generators_in_front() {
    let origin = Origin::start("a");
    origin.forget();
    let balancer = Balancer::before(&[(&origin, 50)], &[]);
    let url = format!("http://{}/bytes/128", balancer.address());
    if let Some(wrk) = output("wrk", &["-t1", "-c16", "-d1", &url]) {
        let text = String::from_utf8_lossy(&wrk.stdout).into_owned();
        assert!(
            text.contains("requests in")
                && !text.contains("Non-2xx")
                && !text.contains("Socket errors"),
            "{text}"
        );
    }
    if let Some(h2load) = output("h2load", &["--h1", "-n2000", "-c8", "-m4", &url]) {
        let text = String::from_utf8_lossy(&h2load.stdout).into_owned();
        assert!(text.contains("2000 succeeded, 0 failed"), "{text}");
    }
}
