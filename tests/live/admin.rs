//! The admin listener from outside: what it tells is true, whoever asks it how, and nobody who asks slows traffic.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::agent::Agent;
use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::exposition;
use crate::support::origin::Origin;
use crate::support::parts;
use crate::support::traffic::Traffic;
use crate::support::wait;

/// A balancer with an admin listener on a free port.
fn before(backends: &[(&Origin, u32)], flags: &[&str]) -> Balancer {
    Balancer::before(backends, &[&["--admin", "127.0.0.1:0"], flags].concat())
}

/// `GET target`: status and body.
fn get(admin: SocketAddr, target: &str) -> (u16, String) {
    let answer = Client::connect(admin).ask("GET", target, "", b"");
    match answer {
        Ok(answer) => (answer.status(), answer.text()),
        Err(broken) => panic!("GET {target}: {broken:?}"),
    }
}

/// As [`get`] with the Host a loopback listener wants.
fn look(admin: SocketAddr, target: &str) -> (u16, String) {
    let mut client = Client::connect(admin);
    let request = format!("GET {target} HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    client.send(request.as_bytes()).expect("sent");
    let answer = client.response("GET").unwrap_or_else(|broken| panic!("{target}: {broken:?}"));
    (answer.status(), answer.text())
}

fn metrics(admin: SocketAddr) -> exposition::Samples {
    let (status, page) = look(admin, "/metrics");
    assert_eq!(status, 200);
    exposition::read(&page).unwrap_or_else(|fault| panic!("{fault}\n{page}"))
}

/// The sum of all series of a name, whatever their labels.
fn sum(samples: &exposition::Samples, name: &str) -> f64 {
    let is_it = |series: &str| series.split('{').next() == Some(name);
    samples.iter().filter(|(series, _)| is_it(series)).map(|(_, value)| value).sum()
}

#[test]
fn metrics_are_well_formed_and_count_what_happened() {
    let (origin, other) = (Origin::start("a"), Origin::start("b"));
    let balancer = before(&[(&origin, 75), (&other, 25)], &[]);
    let admin = balancer.admin();
    let mut client = Client::connect(balancer.address());
    (0..40).for_each(|_| assert_eq!(client.get("/").status(), 200));
    assert_eq!(client.get("/status/404").status(), 404);
    client.send(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    assert_eq!(client.response("GET").expect("an answer").status(), 400);
    wait::until("the answers are counted", COUNTED, || {
        sum(&metrics(admin), "balancer_requests_total") == 42.0
    });
    let samples = metrics(admin);
    let by_code = |code: &str| -> f64 {
        let label = format!("code=\"{code}\"");
        let is_it = |series: &&String| {
            series.starts_with("balancer_requests_total{") && series.contains(&label)
        };
        samples.keys().filter(is_it).map(|series| samples[series]).sum()
    };
    assert_eq!((by_code("200"), by_code("404"), by_code("400")), (40.0, 1.0, 1.0));
    assert_eq!(samples["balancer_request_duration_seconds_count"], 42.0);
    assert_eq!(samples["balancer_first_byte_seconds_count"], 41.0);
    assert_eq!(samples["balancer_own_answers_by_reason_total{reason=\"missing_host\"}"], 1.0);
    let share = format!("balancer_backend_wanted_ratio{{backend=\"{}\"}}", origin.authority());
    assert_eq!(samples[&share], 0.75);
    assert_eq!(sum(&samples, "balancer_backend_requests_total"), 41.0);
    assert!(samples["process_resident_memory_bytes"] > 1e6);
    assert_eq!(samples["balancer_stage{stage=\"serving\"}"], 1.0);
    drop(client);
    wait::until("the client is let go", COUNTED, || {
        sum(&metrics(admin), "balancer_connections") == 0.0
    });
}

#[test]
fn a_parser_of_prometheus_own_reads_them() {
    let Some(python) = parts::find("python3") else { return };
    let library = Command::new(&python).args(["-c", "import prometheus_client"]).output();
    if !library.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: python3 has no prometheus_client");
        return;
    }
    let origin = Origin::start("a");
    let balancer = before(&[(&origin, 50)], &[]);
    Traffic::run(balancer.address(), 4, 200);
    let admin = balancer.admin();
    wait::until("the answers are counted", COUNTED, || {
        sum(&metrics(admin), "balancer_requests_total") == 200.0
    });
    let script = "import sys\n\
        from prometheus_client.parser import text_string_to_metric_families as read\n\
        families = list(read(sys.stdin.read()))\n\
        samples = [s for f in families for s in f.samples]\n\
        assert len({f.name for f in families}) == len(families), 'a family twice'\n\
        print(len(families), sum(s.value for s in samples if s.name == 'balancer_requests_total'))\n";
    let mut child = Command::new(python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python runs");
    let page = look(admin, "/metrics").1;
    child.stdin.take().expect("piped").write_all(page.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (families, requests) = text.trim().split_once(' ').expect("two numbers");
    assert!(families.parse::<u32>().expect("a number") > 30 && requests == "200", "{text}");
}

/// Runs promtool on a text, if it is installed.
fn promtool(arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let mut child = Command::new(parts::find("promtool")?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn promtool_has_nothing_to_complain_of() {
    let (origin, agent) = (Origin::start("a"), Agent::start());
    agent.push_set(&[(&origin.authority(), 50.0, "LU")]);
    let balancer = Balancer::run(&["--admin", "127.0.0.1:0", "--agent", &agent.url()]);
    let admin = balancer.admin();
    balancer.until_ready();
    Traffic::run(balancer.address(), 2, 100);
    let Some((is_good, text)) = promtool(&["check", "metrics"], &look(admin, "/metrics").1) else {
        return;
    };
    assert!(is_good && text.is_empty(), "{text}");
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let (origin, agent) = (Origin::start("a"), Agent::start());
    agent.push_set(&[(&origin.authority(), 50.0, "LU")]);
    let balancer = Balancer::run(&["--admin", "127.0.0.1:0", "--agent", &agent.url()]);
    let admin = balancer.admin();
    wait::until("it is ready", COUNTED, || look(admin, "/readyz").0 == 200);
    let page = look(admin, "/metrics").1;
    let families: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/grafana.json");
    let dashboard: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("the file")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let questions: Vec<&str> = targets.filter_map(|target| target["expr"].as_str()).collect();
    assert!(questions.len() > 30, "{}", questions.len());
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for question in &questions {
        let names = question.split(|c: char| !is_name(c));
        for name in
            names.filter(|name| name.starts_with("balancer_") || name.starts_with("process_"))
        {
            let parts = ["", "_bucket", "_sum", "_count"];
            let is_there = parts.iter().any(|part| {
                name.strip_suffix(part).is_some_and(|family| families.contains(&family))
            });
            assert!(is_there, "no metric {name}: {question}");
        }
    }
    let rule = |(n, question): (usize, &&str)| {
        let question = question.replace("$__rate_interval", "1m").replace("$instance", ".*");
        serde_json::json!({ "record": format!("rule:{n}"), "expr": question })
    };
    let rules: Vec<_> = questions.iter().enumerate().map(rule).collect();
    let groups = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let directory = parts::scratch();
    let file = directory.join("rules.json");
    std::fs::write(&file, groups.to_string()).expect("a file");
    let told = promtool(&["check", "rules", file.to_str().expect("UTF-8")], "");
    std::fs::remove_dir_all(directory).expect("our directory");
    if let Some((is_good, text)) = told {
        assert!(is_good, "{text}");
    }
}

#[test]
fn readiness_follows_the_set_and_the_drain() {
    let (origin, agent) = (Origin::start("a"), Agent::start());
    let flags = ["--admin", "127.0.0.1:0", "--agent", &agent.url(), "--drain-timeout", "60s"];
    let mut balancer = Balancer::run(&flags);
    let admin = balancer.admin();
    let nobody = (503, "no backend is usable\n".to_owned());
    // The control core may hear last that all workers listen.
    wait::until("it serves, with nobody to ask", COUNTED, || look(admin, "/readyz") == nobody);
    assert_eq!(look(admin, "/healthz"), (200, "ok\n".to_owned()));
    agent.push_set(&[(&origin.authority(), 50.0, "LU")]);
    wait::until("it is ready", COUNTED, || look(admin, "/readyz").0 == 200);
    agent.push_set(&[(&origin.authority(), 50.0, "SUNDOWN")]);
    wait::until("it is not", COUNTED, || look(admin, "/readyz").0 == 503);
    agent.push_set(&[(&origin.authority(), 50.0, "LU")]);
    wait::until("it is again", COUNTED, || look(admin, "/readyz").0 == 200);
    let mut held = Client::connect(balancer.address());
    held.send(b"GET /hold/later HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
    wait::until("it is in flight", COUNTED, || origin.seen().len() == 1);
    balancer.terminate();
    wait::until("it drains", COUNTED, || look(admin, "/readyz") == (503, "draining\n".to_owned()));
    assert_eq!(look(admin, "/healthz").0, 200);
    origin.open("later");
    assert_eq!(held.response("GET").expect("an answer").status(), 200);
    assert_eq!(balancer.exit(Duration::from_secs(10)).code(), Some(0));
}

#[test]
fn backends_show_wanted_and_real_shares() {
    let (heavy, light) = (Origin::start("heavy"), Origin::start("light"));
    let balancer = before(&[(&heavy, 80), (&light, 20)], &[]);
    let admin = balancer.admin();
    let traffic = Traffic::start(balancer.address(), 4);
    let shares = || -> Option<[(f64, f64); 2]> {
        let rows: serde_json::Value = serde_json::from_str(&look(admin, "/backends").1).ok()?;
        let row = |n: usize| Some((rows[n]["wanted"].as_f64()?, rows[n]["real"].as_f64()?));
        Some([row(0)?, row(1)?])
    };
    wait::until("shares settle at the scores", Duration::from_secs(30), || {
        shares().is_some_and(|[heavy, light]| {
            heavy.0 == 0.8 && light.0 == 0.2 && (heavy.1 - 0.8).abs() < 0.03
        })
    });
    traffic.stop();
    let table = look(admin, "/backends?format=text").1;
    assert!(table.starts_with("BACKEND ") && table.lines().count() == 3, "{table}");
}

/// A listener to `/live`.
struct Live {
    stream: TcpStream,
    text: String,
}

impl Live {
    fn open(admin: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(admin).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let request = format!("GET /live HTTP/1.1\r\nHost: {admin}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        Self { stream, text: String::new() }
    }

    /// The next event of this name.
    fn next(&mut self, name: &str) -> serde_json::Value {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let found = event.split_once(&format!("event: {name}\ndata: "));
                let json = found.map(|(_, json)| serde_json::from_str(json).expect("JSON"));
                self.text = rest.to_owned();
                if let Some(json) = json {
                    return json;
                }
                continue;
            }
            let mut piece = [0; 65536];
            let n = self.stream.read(&mut piece).expect("an event within ten seconds");
            assert!(n > 0, "the stream ended: {}", self.text);
            self.text.push_str(std::str::from_utf8(&piece[..n]).expect("text"));
        }
    }
}

#[test]
fn live_tells_the_past_and_then_every_second() {
    let origin = Origin::start("a");
    let agent = Agent::start();
    agent.push_set(&[(&origin.authority(), 50.0, "LU")]);
    let flags =
        ["--admin", "127.0.0.1:0", "--agent", &agent.url(), "--agent-backoff", "100ms..200ms"];
    let balancer = Balancer::run(&flags);
    let admin = balancer.admin();
    wait::until("it is ready", COUNTED, || look(admin, "/readyz").0 == 200);
    let mut live = Live::open(admin);
    let history = live.next("history");
    assert_eq!(history["version"], env!("CARGO_PKG_VERSION"));
    assert!(history["events"].as_array().is_some_and(|events| !events.is_empty()), "{history}");
    let frame = live.next("frame");
    assert_eq!((&frame["agent"]["link"], &frame["rps"]), (&"up".into(), &0.0.into()));
    let traffic = Traffic::start(balancer.address(), 2);
    while live.next("frame")["rps"].as_f64().expect("a number") < 10.0 {}
    traffic.stop();
    agent.kill();
    let down = loop {
        let frame = live.next("frame");
        if frame["agent"]["link"] == "down" {
            break frame;
        }
    };
    assert!(down["agent"]["retry_s"].is_number() && down["agent"]["age_s"].is_number(), "{down}");
    let told =
        down["events"].as_array().expect("events").iter().any(|event| event["topic"] == "link");
    assert!(told || live.next("frame")["agent"]["link"] == "down", "{down}");
}

#[test]
fn whoever_is_slow_or_many_delays_only_himself() {
    let origin = Origin::start("a");
    let balancer = before(&[(&origin, 50)], &[]);
    let admin = balancer.admin();
    let traffic = Traffic::start(balancer.address(), 2);
    // Streams that nobody reads, with a receive buffer that is soon full.
    let mut deaf: Vec<Client> = (0..20).map(|_| Client::connect_narrow(admin, 4096)).collect();
    for client in &mut deaf {
        client
            .send(format!("GET /live HTTP/1.1\r\nHost: {admin}\r\n\r\n").as_bytes())
            .expect("sent");
    }
    // Scrapers that ask again and again and read nothing.
    let mut greedy: Vec<Client> = (0..10).map(|_| Client::connect_narrow(admin, 4096)).collect();
    for client in &mut greedy {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\n\r\n").repeat(50);
        client.send(request.as_bytes()).expect("sent");
    }
    // Heads that never end.
    let mut slow: Vec<Client> = (0..10).map(|_| Client::connect(admin)).collect();
    for client in &mut slow {
        client.send(b"GET / HTTP/1.1\r\nHost: 127").expect("sent");
    }
    assert_eq!(look(admin, "/healthz").0, 200);
    traffic.flows(500);
    // More than there is room for: told so, or just closed.
    let crowd: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(admin).expect("accepted")).collect();
    traffic.flows(500);
    let mut late = Client::connect(admin);
    let refused = late.send(format!("GET /healthz HTTP/1.1\r\nHost: {admin}\r\n\r\n").as_bytes());
    let answer = refused.and_then(|()| late.response("GET"));
    assert!(answer.as_ref().map_or(true, |answer| answer.status() == 503), "{answer:?}");
    drop(crowd);
    // Who reads nothing is let go in time, and there is room again.
    wait::until("there is room again", Duration::from_secs(30), || {
        let mut client = Client::connect(admin);
        let sent =
            client.send(format!("GET /healthz HTTP/1.1\r\nHost: {admin}\r\n\r\n").as_bytes());
        sent.and_then(|()| client.response("GET")).is_ok_and(|answer| answer.status() == 200)
    });
    traffic.flows(500);
    traffic.stop();
    assert!(balancer.log().iter().all(|line| !line.contains("panicked")));
}

#[test]
fn hostile_bytes_are_refused_and_harm_nobody() {
    let origin = Origin::start("a");
    let balancer = before(&[(&origin, 50)], &[]);
    let admin = balancer.admin();
    let long = format!("GET /{} HTTP/1.1\r\nHost: {admin}\r\n\r\n", "x".repeat(20_000));
    let fields = format!("GET / HTTP/1.1\r\nHost: {admin}\r\n{}\r\n", "a: b\r\n".repeat(100));
    let both = "POST /cache/purge?all HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
    for bytes in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"GET / HTTP/1.1\n\n",
        b"\0\0\0",
        long.as_bytes(),
        fields.as_bytes(),
        both.as_bytes(),
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut client = Client::connect(admin);
        client.send(bytes).expect("sent");
        let answer = client.response("GET").expect("an answer");
        assert!((400..=505).contains(&answer.status()), "{answer:?}");
        client.end().expect("then the end");
    }
    assert_eq!(get(admin, "/healthz").0, 421, "a Host that is a name");
    let mut client = Client::connect(admin);
    for _ in 0..3 {
        let answer = client.ask("HEAD", "/metrics", "", b"").expect("an answer");
        assert_eq!((answer.status(), answer.body.len()), (421, 0));
    }
    let purge = format!(
        "POST /cache/purge?all HTTP/1.1\r\nHost: {admin}\r\nX-Balancer-Purge: yes\r\nContent-Length: 0\r\n\r\n"
    );
    client.send(purge.as_bytes()).expect("sent");
    assert!(matches!(client.response("POST").expect("an answer").status(), 200 | 501));
    let body = format!("POST /config HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 5\r\n\r\nhello");
    client.send(body.as_bytes()).expect("sent");
    assert_eq!(client.response("POST").expect("an answer").status(), 405);
    client.end().expect("unread content ends the connection, in order");
    assert!(balancer.log().iter().all(|line| !line.contains("panicked")));
}

#[test]
fn the_address_is_a_setting_like_any_other() {
    let origin = Origin::start("a");
    let first = before(&[(&origin, 50)], &[]);
    let (taken, backend) = (first.admin().to_string(), origin.authority());
    let listen = ["--listen", "127.0.0.1:0", "--backend", &backend];
    let refused = Balancer::try_run(&[&listen[..], &["--admin", &taken]].concat(), &[]);
    let refused = refused.err().expect("the address is taken");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.text.contains("is taken") && refused.text.contains("--admin"), "{refused:?}");
    let env = [("BALANCER_ADMIN", "127.0.0.1:0")];
    let by_variable = Balancer::try_run(&listen, &env).expect("a start");
    assert_ne!(by_variable.admin(), first.admin());
    let (_, config) = look(by_variable.admin(), "/config");
    let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    let setting = |flag: &str| -> serde_json::Value {
        let settings = config["settings"].as_array().expect("a list");
        settings.iter().find(|setting| setting["flag"] == flag).expect("a setting").clone()
    };
    assert_eq!(setting("--admin")["source"], "environment");
    assert_eq!(setting("--backend")["value"], backend);
    assert_eq!(setting("--port")["source"], "default");
    let off = Balancer::try_run(&listen, &[]).expect("a start");
    assert!(off.log().iter().all(|line| !line.contains("admin http")), "{:?}", off.log());
}

#[test]
fn the_reader_of_metrics_is_strict() {
    let head = "# HELP a_total Things.\n# TYPE a_total counter\n";
    assert!(exposition::read(&format!("{head}a_total{{b=\"c\\\"\"}} 1\n")).is_ok());
    for bad in [
        "a_total 1".to_owned(),
        "a_total 1\n".to_owned(),
        format!("{head}a_total 1\na_total 1\n"),
        format!("{head}a_total -1\n"),
        format!("{head}a_total x\n"),
        format!("{head}a_total{{b=\"c}} 1\n"),
        format!("{head}a_total{{b=\"c\",b=\"d\"}} 1\n"),
        format!("{head}b_total 1\n"),
        format!("{head}{head}"),
        "# TYPE a gauge\na 1\n".to_owned(),
        "# HELP a Things.\n# TYPE a counter\na 1\n".to_owned(),
        "# HELP a_ms Things.\n# TYPE a_ms gauge\na_ms 1\n".to_owned(),
        "# HELP h_seconds T.\n# TYPE h_seconds histogram\nh_seconds_bucket{le=\"1\"} 2\n\
         h_seconds_bucket{le=\"+Inf\"} 1\nh_seconds_sum 1\nh_seconds_count 1\n"
            .to_owned(),
    ] {
        assert!(exposition::read(&bad).is_err(), "{bad}");
    }
}

/// What the cores count is read once a second.
const COUNTED: Duration = Duration::from_secs(10);
