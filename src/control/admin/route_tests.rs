//! Requests and what is done about them, without a socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::balance::{Backend, Category, Score, Slot, Snapshot, Source, Standing, Standings};
use crate::control::admin::exposition;
use crate::control::admin::tally::Tally;
use crate::control::board::{Board, Topic};
use crate::io::host::Usage;
use crate::metrics::{Figures, Published};
use crate::time::WallTime;

/// A control core with two workers and a set of three.
struct House {
    board: Board,
    tally: Tally,
    blocks: Vec<Arc<Published>>,
    listens_on: SocketAddr,
    has_cache: bool,
    now: Instant,
}

fn at(seconds: u64) -> Instant {
    Instant::from_ns(seconds * 1_000_000_000)
}

impl House {
    fn new() -> Self {
        let blocks: Vec<_> = (0..2).map(|_| Arc::new(Published::new(8))).collect();
        let tally = Tally::new(blocks.iter().cloned().enumerate().collect(), at(100));
        let listens_on = SocketAddr::from(([127, 0, 0, 1], 9900));
        let (board, has_cache, now) = (Board::new(true), true, at(110));
        let house = Self { board, tally, blocks, listens_on, has_cache, now };
        house.beat(109);
        house.board.set_stage(Stage::Serving);
        house.show(&[
            ("app-1", 30.0, Category::Low),
            ("app-2", 10.0, Category::High),
            ("app\"3", 50.0, Category::Sundown),
        ]);
        house.blocks.iter().for_each(|block| block.store_epoch(house.board.snapshot().epoch));
        house
    }

    fn beat(&self, seconds: u64) {
        self.blocks.iter().for_each(|block| block.store_beat(at(seconds).as_ns()));
    }

    fn show(&self, backends: &[(&str, f64, Category)]) {
        let backend = |(n, &(name, score, category)): (usize, &(&str, f64, Category))| Backend {
            slot: Slot(n as u32),
            name: name.into(),
            authority: name.into(),
            score: Score::new(score).unwrap(),
            category,
            addresses: [SocketAddr::from(([10, 0, 0, 1], 80))].into(),
            warming_since: None,
        };
        let backends = backends.iter().enumerate().map(backend).collect();
        let epoch = self.board.snapshot().epoch + 1;
        let snapshot =
            Snapshot { epoch, source: Source::Agent, slots: 8, backends, health: Standings::new() };
        self.board.show_snapshot(&Arc::new(snapshot));
    }

    /// Every core answered `n` requests of backend 0 and one of backend 1 with a 503.
    fn serve(&mut self, n: usize) {
        let snapshot = self.board.snapshot();
        for block in &self.blocks {
            let figures = Figures::default();
            figures.slots.borrow_mut().list(0..3, block.slots());
            for status in (0..n).map(|_| 200).chain([503]) {
                figures.codes.count(status);
                figures.request.observe(Duration::from_millis(12));
                let slot = usize::from(status == 503);
                figures.slots.borrow_mut().answered(slot, status, Duration::from_millis(10));
            }
            block.store_figures(&figures);
            block.store_epoch(snapshot.epoch);
        }
        self.tally.begin(&snapshot);
        (0..self.blocks.len()).for_each(|n| self.tally.read(n));
        self.tally.finish(self.now, WallTime::from_ms(1));
    }

    fn look(&self) -> Look<'_> {
        Look {
            board: &self.board,
            tally: &self.tally,
            agent_url: Some("ws://agent:4000/ws"),
            has_cache: self.has_cache,
            now: self.now,
            wall: WallTime::from_ms(1_000_000),
            began: at(100),
        }
    }

    fn ask(&self, request: &str) -> Deed {
        let mut head = RequestHead::default();
        head.parse(request.as_bytes()).unwrap();
        let look = self.look();
        let values = [Stated { flag: "port", env: "P", value: "81".into(), source: "flag".into() }];
        let scene = Scene { look, values: &values, listens_on: self.listens_on, nonce: 7 };
        route(&scene, &head, request.as_bytes())
    }

    #[track_caller]
    fn answer(&self, request: &str) -> (u16, String) {
        match self.ask(request) {
            Deed::Answer(reply) => {
                (reply.status, String::from_utf8(reply.body.bytes().to_vec()).unwrap())
            }
            Deed::Metrics => (200, exposition::page(&self.look(), &Usage::default())),
            other => panic!("{request:?} gave {other:?}"),
        }
    }

    #[track_caller]
    fn get(&self, target: &str) -> (u16, String) {
        self.answer(&format!("GET {target} HTTP/1.1\r\nHost: localhost:9900\r\n\r\n"))
    }
}

#[test]
fn what_there_is_and_what_not() {
    let house = House::new();
    for (target, status) in [
        ("/", 200),
        ("/?x", 200),
        ("/metrics", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/backends", 200),
        ("/config", 200),
        ("/cache/purge", 405),
        ("/cache/purge?all", 405),
        ("/nothing", 404),
        ("//", 404),
        ("/metrics/", 404),
    ] {
        assert_eq!(house.get(target).0, status, "{target}");
    }
    let post = house.answer("POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(post.0, 405);
    assert_eq!(house.ask("GET /live HTTP/1.1\r\nHost: [::1]:9900\r\n\r\n"), Deed::Stream);
    assert!(house.get("/nothing").1.contains("/readyz"));
}

#[test]
fn a_foreign_name_sees_nothing_on_a_loopback_listener() {
    let mut house = House::new();
    let request = "GET /config HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    assert_eq!(house.answer(request).0, 421);
    let absolute = "GET http://evil.example/config HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    assert_eq!(house.answer(absolute).0, 421);
    house.listens_on = SocketAddr::from(([0, 0, 0, 0], 9900));
    assert_eq!(house.answer(request).0, 200);
}

#[test]
fn a_purge_is_guarded() {
    let house = House::new();
    let purge = |target: &str, fields: &str| {
        house.ask(&format!("POST {target} HTTP/1.1\r\n{fields}Content-Length: 0\r\n\r\n"))
    };
    let own = "Host: 127.0.0.1:9900\r\nX-Balancer-Purge: yes\r\n";
    assert_eq!(purge("/cache/purge?all", own), Deed::Purge(Purge::All));
    for (target, fields, status) in [
        ("/cache/purge?all", "Host: 127.0.0.1:9900\r\n", 403),
        ("/cache/purge?all", "Host: 127.0.0.1:9900\r\nX-Balancer-Purge:\r\n", 403),
        ("/cache/purge", own, 400),
        ("/cache/purge?url=/x", own, 400),
    ] {
        match purge(target, fields) {
            Deed::Answer(reply) => assert_eq!(reply.status, status, "{target} {fields}"),
            other => panic!("{target} {fields}: {other:?}"),
        }
    }
    let mut public = House::new();
    public.listens_on = SocketAddr::from(([0, 0, 0, 0], 9900));
    let named =
        public.answer("POST /cache/purge?all HTTP/1.1\r\nHost: lb\r\nX-Balancer-Purge: y\r\n\r\n");
    assert_eq!(named.0, 403);
}

#[test]
fn health_names_the_core_that_hangs() {
    let mut house = House::new();
    house.blocks[1].store_beat(at(105).as_ns());
    assert_eq!(house.get("/healthz"), (503, "core 1 silent for 5.0 s\n".to_owned()));
    house.beat(109);
    assert_eq!(house.get("/healthz"), (200, "ok\n".to_owned()));
    house.now = at(113);
    assert_eq!(house.get("/healthz").0, 503);
    // Not begun is not stuck; that is what readiness is for.
    house.beat(0);
    assert_eq!(house.get("/healthz").0, 200);
}

#[test]
fn readiness_says_why_not() {
    let house = House::new();
    let ready = (200, "ready\n".to_owned());
    assert_eq!(house.get("/readyz"), ready);
    house.show(&[("app-1", 30.0, Category::Sundown)]);
    assert_eq!(house.get("/readyz"), (503, "no backend is usable\n".to_owned()));
    house.show(&[("app-1", 30.0, Category::Low), ("app-2", 10.0, Category::Low)]);
    // A worker that still has the set before would answer 503.
    house.blocks[0].store_epoch(house.board.snapshot().epoch);
    assert_eq!(house.get("/readyz"), (503, "core 1 has not taken the set yet\n".to_owned()));
    house.blocks[1].store_epoch(house.board.snapshot().epoch);
    assert_eq!(house.get("/readyz"), ready);
    // One usable set after the other: nobody has to wait.
    house.show(&[("app-2", 10.0, Category::Low), ("app-3", 1.0, Category::Low)]);
    assert_eq!(house.get("/readyz"), ready);
    let mut snapshot = (*house.board.snapshot()).clone();
    snapshot.health.others = vec![(Slot(0), Standing::Out)];
    house.board.show_snapshot(&Arc::new(snapshot.clone()));
    assert_eq!(house.get("/readyz").0, 200);
    let json: serde_json::Value = serde_json::from_str(&house.get("/backends").1).unwrap();
    assert_eq!((&json[0]["state"], &json[0]["wanted"]), (&"out".into(), &0.0.into()));
    assert_eq!(json[1]["wanted"], 1.0);
    snapshot.health.others.push((Slot(1), Standing::OnTrial { number: 1, worker: Some(0) }));
    house.board.show_snapshot(&Arc::new(snapshot));
    assert_eq!(house.get("/readyz").0, 503);
    house.board.set_stage(Stage::Draining);
    assert_eq!(house.get("/readyz"), (503, "draining\n".to_owned()));
    house.board.set_stage(Stage::Starting);
    assert!(house.get("/readyz").1.starts_with("starting"));
}

#[test]
fn text_for_a_terminal_and_json_for_programs() {
    let mut house = House::new();
    house.serve(3);
    let with = |target: &str, fields: &str| {
        house.answer(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).1
    };
    let table = with("/backends", "User-Agent: curl/8.0\r\nAccept: */*\r\n");
    let row = table.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(row.starts_with("app-1 30 LU up 75.0 % 75.0 % 6.0 0 6 0 "), "{table}");
    assert_eq!(table, with("/backends", "Accept: text/plain\r\n"));
    assert_eq!(table, with("/backends?format=text", ""));
    for (target, fields) in [
        ("/backends", ""),
        ("/backends?format=json", "User-Agent: curl/8.0\r\n"),
        ("/backends", "User-Agent: curl/8.0\r\nAccept: application/json\r\n"),
    ] {
        let json: serde_json::Value = serde_json::from_str(&with(target, fields)).unwrap();
        assert_eq!(json[1]["name"], "app-2");
        assert_eq!((&json[1]["wanted"], &json[1]["real"]), (&0.25.into(), &0.25.into()));
        assert_eq!((&json[1]["state"], &json[2]["state"]), (&"up".into(), &"draining".into()));
        assert_eq!(json[2]["wanted"], 0.0);
    }
    assert!(with("/config", "User-Agent: curl/8.0\r\n").contains("--port   81     flag"));
    let json: serde_json::Value = serde_json::from_str(&with("/config", "")).unwrap();
    assert_eq!(json["settings"][0]["value"], "81");
}

#[test]
fn metrics_tell_what_was_counted() {
    let mut house = House::new();
    house.serve(3);
    house.board.link_up(at(101));
    house.board.frame_taken(at(108));
    let text = house.get("/metrics").1;
    for line in [
        "balancer_requests_total{core=\"1\",code=\"200\"} 3",
        "balancer_requests_total{core=\"0\",code=\"503\"} 1",
        "balancer_requests_total{core=\"0\",code=\"4xx\"} 0",
        "balancer_request_duration_seconds_bucket{le=\"0.012288\"} 8",
        "balancer_request_duration_seconds_count 8",
        "balancer_backend_requests_total{backend=\"app-2\",code=\"5xx\"} 2",
        "balancer_backend_up{backend=\"app\\\"3\",category=\"SUNDOWN\",state=\"draining\"} 0",
        "balancer_backend_wanted_ratio{backend=\"app-1\"} 0.75",
        "balancer_backends{state=\"up\"} 2",
        "balancer_agent_up 1",
        "balancer_snapshot_age_seconds 2",
        "balancer_core_beat_age_seconds{core=\"0\"} 1",
        "balancer_stage{stage=\"serving\"} 1",
        "balancer_uptime_seconds 10",
        "process_start_time_seconds 990",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line}\n{text}");
    }
    assert!(!text.contains("code=\"404\""));
}

#[test]
fn the_page_lets_in_nothing_but_itself() {
    let house = House::new();
    let Deed::Answer(reply) = house.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") else {
        panic!("no page")
    };
    let text = String::from_utf8(reply.body.bytes().to_vec()).unwrap();
    assert!(!text.contains("{nonce}"));
    let nonce = "nonce=\"0000000000000007\"";
    let tags = ["<script", "<style"];
    for tag in tags {
        assert!(text.matches(tag).count() == text.matches(&format!("{tag} {nonce}")).count());
    }
    let (name, policy) = reply.field.unwrap();
    assert_eq!(name, "Content-Security-Policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'nonce-0000000000000007'"));
    for foreign in ["http://", "https://", "@import", "url(", " style=\"", " onclick"] {
        let own = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!own.contains(foreign), "the page has {foreign}");
    }
}

#[test]
fn frames_tell_the_present_and_history_the_past() {
    let mut house = House::new();
    house.serve(1);
    house.board.tell(WallTime::from_ms(5), Topic::Set, "app-1 came");
    house.board.link_lost("reset", at(108), at(112));
    let look = house.look();
    let frame = look.frame(0);
    assert_eq!((frame.rps, frame.error_ratio, frame.uptime_s), (4.0, Some(0.5), 10));
    assert!(frame.p50_ms.is_some_and(|ms| (10.0..14.4).contains(&ms)), "{frame:?}");
    let agent = &frame.agent;
    assert_eq!((agent.link.as_str(), agent.why.as_deref()), ("down", Some("reset")));
    assert_eq!((agent.since_s, agent.retry_s, agent.age_s), (Some(2.0), Some(2.0), None));
    assert_eq!((frame.second.requests, frame.second.by_core.as_slice()), (4, &[2, 2][..]));
    assert_eq!((frame.events.len(), look.frame(1).events.len()), (1, 0));
    assert_eq!(frame.counters["balancer_retries_total"], 0);
    let history = look.history();
    assert_eq!((history.seconds.len(), history.events.len(), history.cores), (1, 1, vec![0, 1]));
    assert_eq!(history.seconds[0].heat.iter().sum::<u32>(), 4);
    assert!(history.seconds[0].heat.len() < history.rows_ms.len());
    let text = serde_json::to_string(&frame).unwrap();
    let back: crate::control::admin::frame::Frame = serde_json::from_str(&text).unwrap();
    assert_eq!(back, frame);
}

#[test]
fn a_huge_set_is_shown_by_its_busiest() {
    let house = House::new();
    let names: Vec<String> = (0..2000).map(|n| format!("b{n}")).collect();
    let set: Vec<_> = names.iter().map(|name| (name.as_str(), 1.0, Category::Low)).collect();
    house.show(&set);
    let look = house.look();
    let frame = look.frame(0);
    assert_eq!((frame.backends.len(), frame.backends_total), (500, 2000));
    assert_eq!(look.backends().len(), 2000);
}
