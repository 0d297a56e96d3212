//! The access log from outside: every request has its line, the line is true, and no client can forge one.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::parts;
use crate::support::traffic::Traffic;
use crate::support::wait;

/// A balancer that logs into a file, and the file.
fn logging(backends: &[(&Origin, u32)], format: &str, flags: &[&str]) -> (Balancer, PathBuf) {
    let path = parts::scratch().join("access.log");
    let name = path.to_str().expect("a name in UTF-8").to_owned();
    let own = ["--access-log", &name, "--access-format", format];
    (Balancer::before(backends, &[&own, flags].concat()), path)
}

fn lines(path: &PathBuf) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "only whole lines: {text:?}");
    text.lines().map(str::to_owned).collect()
}

/// The lines, once there are `n`.
fn await_lines(path: &PathBuf, n: usize) -> Vec<String> {
    wait::until("the lines are written", WRITTEN, || lines(path).len() >= n);
    let lines = lines(path);
    assert_eq!(lines.len(), n, "{lines:#?}");
    lines
}

fn objects(path: &PathBuf, n: usize) -> Vec<serde_json::Value> {
    let read = |line: &String| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    await_lines(path, n).iter().map(read).collect()
}

#[test]
fn json_tells_everything_of_a_request() {
    let origin = Origin::start("a");
    let (balancer, path) = logging(&[(&origin, 100)], "json", &[]);
    let mut client = Client::connect(balancer.address());
    let fields = "User-Agent: t\"x\r\nReferer: http://r/\r\n";
    assert_eq!(
        client.ask("POST", "/bytes/300?seed=1", fields, b"hello").expect("ok").status(),
        200
    );
    assert_eq!(client.get("/status/404").status(), 404);
    let lines = objects(&path, 2);
    let (post, get) = (&lines[0], &lines[1]);
    assert_eq!((&post["method"], &post["target"]), (&"POST".into(), &"/bytes/300?seed=1".into()));
    assert_eq!((&post["status"], &post["client"]), (&200.into(), &"127.0.0.1".into()));
    assert_eq!((&post["user_agent"], &post["referer"]), (&"t\"x".into(), &"http://r/".into()));
    assert_eq!((&post["host"], &post["version"]), (&"test".into(), &"1.1".into()));
    assert_eq!((&post["backend"], &post["tries"]), (&origin.authority().into(), &1.into()));
    assert_eq!(
        (&post["reason"], &post["cache"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    let number = |name: &str| post[name].as_u64().unwrap_or_else(|| panic!("{name} in {post}"));
    assert!(number("bytes_out") > 300 && number("bytes_in") > 5);
    assert!(number("total_us") >= number("first_byte_us") + number("connect_us"));
    assert_eq!(number("queue_us"), 0);
    assert_eq!((&get["status"], &get["cache"]), (&404.into(), &"MISS".into()));
}

#[test]
fn combined_and_short_are_true_to_the_byte() {
    let origin = Origin::start("a");
    let (balancer, path) = logging(&[(&origin, 100)], "combined", &[]);
    Client::connect(balancer.address()).get("/bytes/1234?seed=1");
    let line = await_lines(&path, 1).remove(0);
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.ends_with("] \"GET /bytes/1234?seed=1 HTTP/1.1\" 200 1234 \"-\" \"-\""), "{line}");
    let (balancer, path) = logging(&[(&origin, 100)], "short", &[]);
    let mut client = Client::connect(balancer.address());
    client.send(b"GET /a HTTP/1.1\r\n\r\n").expect("sent");
    assert_eq!(client.response("GET").expect("an answer").status(), 400);
    let line = await_lines(&path, 1).remove(0);
    assert!(
        line.contains(" 127.0.0.1 \"GET /a HTTP/1.1\" 400 backend=- cache=- reason=missing_host "),
        "{line}"
    );
    assert!(line.contains(" tries=0 "), "{line}");
}

#[test]
fn the_cache_has_its_word() {
    let origin = Origin::start("a");
    let (balancer, path) = logging(&[(&origin, 100)], "json", &[]);
    let mut client = Client::connect(balancer.address());
    (0..2).for_each(|_| assert_eq!(client.get("/style.css").status(), 200));
    let lines = objects(&path, 2);
    assert_eq!((&lines[0]["cache"], &lines[0]["tries"]), (&"MISS".into(), &1.into()));
    assert_eq!((&lines[1]["cache"], &lines[1]["tries"]), (&"HIT".into(), &0.into()));
    assert_eq!(
        (&lines[1]["backend"], &lines[1]["status"]),
        (&serde_json::Value::Null, &200.into())
    );
    assert!(lines[1]["bytes_out"].as_u64() > Some(100), "{}", lines[1]);
}

#[test]
fn what_goes_wrong_has_its_reason() {
    let (origin, gone) = (Origin::start("a"), Origin::start("b"));
    let authority = gone.authority().to_owned();
    drop(gone);
    let own = ["--backend", &authority, "--cache", "off"];
    let (balancer, path) = logging(&[], "json", &own);
    assert_eq!(Client::connect(balancer.address()).get("/").status(), 502);
    let line = objects(&path, 1).remove(0);
    assert_eq!((&line["status"], &line["reason"]), (&502.into(), &"connect_refused".into()));
    assert_eq!((&line["backend"], &line["tries"]), (&authority.as_str().into(), &1.into()));
    drop(balancer);

    let (balancer, path) = logging(&[(&origin, 100)], "json", &["--cache", "off"]);
    let mut client = Client::connect(balancer.address());
    client.send(b"GET /hold/never HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
    wait::until("it is in flight", WRITTEN, || !origin.seen().is_empty());
    client.abort();
    let line = objects(&path, 1).remove(0);
    assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client_left".into()));
    assert_eq!(line["bytes_out"], 0);
}

#[test]
fn no_client_forges_a_line() {
    let origin = Origin::start("a");
    for format in ["short", "common", "combined", "json"] {
        let (balancer, path) = logging(&[(&origin, 100)], format, &[]);
        let nasty: [&[u8]; 4] = [
            b"GET /\"%20200%201\"\\ HTTP/1.1\r\nHost: test\r\nUser-Agent: \\\" 200 1\xff\t\"x\r\nReferer: \xc3\x28\\\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\"\\\n\n",
            b"GET / HTTP/1.1\rHost: x\r\n127.0.0.1 - - [x] \"GET /forged\r\n\r\n",
            b"GET /a\x1b[2J HTTP/1.1\r\nHost: test\r\n\r\n",
        ];
        for bytes in nasty {
            let mut client = Client::connect(balancer.address());
            client.send(bytes).expect("sent");
            let _ = client.response("GET");
        }
        for line in await_lines(&path, nasty.len()) {
            assert!(line.is_ascii() || format == "json", "{line}");
            assert!(!line.chars().any(char::is_control), "{line:?}");
            match format {
                "json" => {
                    drop(serde_json::from_str::<serde_json::Value>(&line).expect("an object"))
                }
                "combined" => assert_eq!(line.matches('"').count(), 6, "{line}"),
                _ => assert_eq!(line.matches('"').count(), 2, "{line}"),
            }
        }
    }
}

#[test]
fn a_tunnel_is_logged_with_what_it_carried() {
    let origin = Origin::start("a");
    let (balancer, path) = logging(&[(&origin, 100)], "json", &[]);
    let mut client = Client::connect(balancer.address());
    let upgrade =
        b"GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    client.send(upgrade).expect("sent");
    assert_eq!(client.response("GET").expect("an answer").status(), 101);
    drop(client);
    let line = objects(&path, 1).remove(0);
    assert_eq!((&line["status"], &line["target"]), (&101.into(), &"/ws".into()));
}

#[test]
fn every_request_under_load_has_its_line_to_the_last() {
    let origin = Origin::start("a");
    let (mut balancer, path) = logging(&[(&origin, 100)], "combined", &[]);
    Traffic::run(balancer.address(), 8, 20_000);
    balancer.terminate();
    assert_eq!(balancer.exit(Duration::from_secs(10)).code(), Some(0));
    assert_eq!(lines(&path).len(), 20_000);
}

#[test]
fn sighup_opens_the_file_anew_and_loses_nothing() {
    let origin = Origin::start("a");
    let (balancer, path) = logging(&[(&origin, 100)], "common", &[]);
    let old = path.with_extension("1");
    let traffic = Traffic::start(balancer.address(), 4);
    wait::until("lines are written", WRITTEN, || !lines(&path).is_empty());
    std::fs::rename(&path, &old).expect("moved away");
    balancer.hang_up();
    wait::until("the file is there again", WRITTEN, || path.exists());
    traffic.flows(500);
    let answered = traffic.stop();
    wait::until("every request has its line", WRITTEN, || {
        (lines(&old).len() + lines(&path).len()) as u64 == answered
    });
    assert!(!lines(&path).is_empty(), "the last 500 went to the new file");
}

#[test]
fn a_log_that_nobody_reads_stops_no_request() {
    let origin = Origin::start("a");
    // A pipe without a reader's end of it moving: some 64 KiB fit, then the writer waits.
    let pipe = parts::scratch().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    // Held open for both, so that neither end fails; nobody reads.
    let _held = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("a pipe");
    let name = pipe.to_str().expect("a name in UTF-8");
    let flags = ["--admin", "127.0.0.1:0", "--access-log", name, "--access-format", "json"];
    let mut balancer = Balancer::before(&[(&origin, 100)], &flags);
    let dropped = || -> f64 {
        let mut client = Client::connect(balancer.admin());
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", balancer.admin());
        client.send(request.as_bytes()).expect("sent");
        let page = client.response("GET").expect("metrics").text();
        let of_a_core = |line: &&str| line.starts_with("balancer_access_log_lines_dropped_total{");
        let value = |line: &str| line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok());
        page.lines().filter(of_a_core).filter_map(value).sum()
    };
    let traffic = Traffic::start(balancer.address(), 4);
    wait::until("lines are dropped and counted", Duration::from_secs(60), || {
        traffic.assert_no_failure();
        dropped() > 0.0
    });
    traffic.flows(500);
    traffic.stop();
    balancer.terminate();
    assert_eq!(balancer.exit(Duration::from_secs(10)).code(), Some(0), "nor the end");
}

#[test]
fn goaccess_reads_combined() {
    let Some(goaccess) = parts::find("goaccess") else { return };
    let origin = Origin::start("a");
    let (balancer, path) = logging(&[(&origin, 100)], "combined", &[]);
    let mut client = Client::connect(balancer.address());
    let agent = "User-Agent: Mozilla/5.0 \"quoted\" \\ (X11; Linux)\r\nReferer: http://example.com/\"a\"\r\n";
    (0..20).for_each(|_| {
        assert_eq!(client.ask("GET", "/bytes/10?seed=1", agent, b"").expect("ok").status(), 200)
    });
    assert_eq!(client.get("/status/404").status(), 404);
    client.send(b"\x16\x03\x01\r\n\r\n").expect("sent");
    assert_eq!(client.response("GET").expect("an answer").status(), 400);
    await_lines(&path, 22);
    let report = path.with_extension("json");
    let output = Command::new(goaccess)
        .arg(&path)
        .args(["--log-format=COMBINED", "--no-global-config", "-o"])
        .arg(&report)
        .stdin(Stdio::null())
        .output()
        .expect("goaccess runs");
    let text = std::fs::read_to_string(&report).unwrap_or_default();
    let read: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr))
    });
    let general = &read["general"];
    assert_eq!(general["valid_requests"].as_u64(), Some(22), "{general}");
    assert_eq!(general["failed_requests"].as_u64(), Some(0), "{general}");
}

#[test]
fn standard_output_takes_it_and_a_bad_place_is_refused() {
    let refused = |place: &str| {
        let flags = ["--backend", "127.0.0.1:9", "--listen", "127.0.0.1:0", "--access-log", place];
        let refused = Balancer::try_run(&flags, &[]).err().expect("it does not start");
        (refused.code, refused.text)
    };
    let (code, text) = refused("/nowhere/at/all/access.log");
    assert_eq!(code, Some(1));
    assert!(text.contains("mkdir -p /nowhere/at/all"), "{text}");
    let (code, text) = refused("/tmp/");
    assert_eq!(code, Some(2));
    assert!(text.contains("which is a directory"), "{text}");

    let origin = Origin::start("a");
    let mut child = Command::new(env!("CARGO_BIN_EXE_balancer"))
        .args(["run", "--listen", "127.0.0.1:0", "--admin", "off", "--no-env-file"])
        .args(["--access-log", "-", "--access-format", "common", "--backend", &origin.authority()])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut log = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut banner = String::new();
    std::io::BufRead::read_line(&mut log, &mut banner).expect("a banner");
    let address = banner.split("http://").nth(1).expect("an address").trim();
    let mut client = Client::connect(address.parse().expect("an address"));
    assert_eq!(client.get("/a").status(), 200);
    let mut lines = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut lines, &mut line).expect("a line");
    assert!(line.contains("\"GET /a HTTP/1.1\" 200 "), "{line}");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    std::io::stdout().flush().expect("flushed");
}

const WRITTEN: Duration = Duration::from_secs(20);
