//! The control core as a whole, on a fake `Io` in virtual time.

use std::io::{self, ErrorKind};
use std::task::Waker;

use crossbeam_channel::{Sender, unbounded};
use tungstenite::handshake::derive_accept_key;

use super::fake::{Fake, Rings, Wire};
use super::*;
use crate::balance::{
    Backend, Category, Finding, SLOTS_MAX, Score, Slot, Source, Standing, Symptom,
};
use crate::config::{AgentConfig, HealthCheck, Timeouts};
use crate::http::HeadLimits;
use crate::io::Bell as _;

/// A control core, two workers and an agent, in one thread and in virtual time.
struct Scene {
    fake: Fake,
    control: Control<Fake>,
    workers: Vec<Receiver<Arc<Snapshot>>>,
    cores: Vec<Arc<Published>>,
    orders: Sender<Order>,
    to_control: Sender<Report>,
}

fn lookup(host: &str) -> io::Result<Vec<IpAddr>> {
    match host {
        "agent" => Ok(vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])]),
        "app" => Ok(vec![IpAddr::from([10, 1, 0, 1])]),
        _ => Err(io::Error::other("no such name")),
    }
}

fn config(agent: Option<&str>, backends: &[&str]) -> Config {
    let backend = |host: &&str| StaticBackend {
        host: (*host).to_owned(),
        port: None,
        score: Score::new(100.0).unwrap(),
    };
    Config {
        admin: None,
        access_log: None,
        takeover: None,
        listen: Vec::new(),
        cores: vec![0, 1],
        control_core: 0,
        agent: agent.map(|host| AgentConfig {
            host: host.to_owned(),
            port: 4000,
            path: "/ws".into(),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
        }),
        backends: backends.iter().map(backend).collect(),
        target_port: Some(80),
        steer: Default::default(),
        balance: crate::balance::Balance::Bounded,
        health: None,
        cache: None,
        timeouts: Timeouts::default(),
        head: HeadLimits::default(),
        body_bytes_max: None,
        connections_max: 1,
        connections_per_ip_max: None,
        trusted_proxies: Vec::new(),
        backend_inflight_max: None,
        queue_length_max: 1024,
    }
}

impl Scene {
    fn new(agent: Option<&str>, backends: &[&str]) -> Self {
        Self::with(&config(agent, backends))
    }

    fn with(config: &Config) -> Self {
        let fake = Fake::default();
        let (subscribers, workers) =
            (0..2).map(|_| Subscriber::new(Rings::default())).unzip::<_, _, Vec<_>, Vec<_>>();
        let cores: Vec<_> = (0..2).map(|_| Arc::new(Published::new(SLOTS_MAX))).collect();
        let (orders, receiver) = unbounded();
        let (to_control, reports) = unbounded();
        let surroundings =
            Surroundings { subscribers, cores: cores.clone(), reports, orders: receiver, lookup };
        let control = Control::new(fake.clone(), config, surroundings);
        let mut scene = Self { fake, control, workers, cores, orders, to_control };
        assert!(scene.poll().is_pending());
        scene
    }

    fn poll(&mut self) -> Poll<()> {
        self.control.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Lets time pass in steps of 10 ms.
    fn run_to(&mut self, ms: u64) {
        while self.fake.now_ms.get() < ms {
            self.fake.now_ms.set(self.fake.now_ms.get() + 10);
            assert!(self.poll().is_pending());
        }
    }

    /// Lets resolver threads come to their end.
    fn run_until_resolved(&mut self, is_resolved: impl Fn(&Self) -> bool) {
        let begun = std::time::Instant::now();
        while !is_resolved(self) {
            assert!(begun.elapsed() < Duration::from_secs(30), "no answer");
            std::thread::yield_now();
            assert!(self.poll().is_pending());
        }
    }

    fn dials(&self) -> usize {
        self.fake.dialled.borrow().len()
    }

    fn wire(&self) -> Wire {
        self.fake.dialled.borrow().last().expect("nothing was dialled").1.clone()
    }

    /// The last connection comes about and answers the handshake.
    fn accept(&mut self) {
        self.wire().0.borrow_mut().is_connected = true;
        assert!(self.poll().is_pending());
        let request = String::from_utf8(std::mem::take(&mut self.wire().0.borrow_mut().from_us));
        let request = request.expect("the request is text");
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        let accept = derive_accept_key(key.expect("it has a key").as_bytes());
        self.say(
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            )
            .as_bytes(),
        );
    }

    fn say(&mut self, bytes: &[u8]) {
        self.wire().0.borrow_mut().to_us.extend(bytes);
        assert!(self.poll().is_pending());
    }

    fn frame(&mut self, text: &str) {
        let mut bytes = vec![0x81, 126];
        bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
        self.say(&bytes);
    }

    /// What each worker has got since the last look: the same for both.
    fn received(&self) -> Option<Arc<Snapshot>> {
        let mut snapshots = self.workers.iter().map(|worker| worker.try_recv().ok());
        let first = snapshots.next()?;
        assert!(snapshots.all(|other| other == first));
        first
    }

    fn apply(&self, epoch: u64) {
        self.cores.iter().for_each(|core| core.store_epoch(epoch));
    }
}

fn show(snapshot: Option<Arc<Snapshot>>) -> String {
    let one = |b: &Backend| match b.category {
        Category::Sundown => format!("{} -", b.name),
        _ => format!("{} {} {}", b.name, b.score.get(), b.addresses.len()),
    };
    snapshot.map_or("nothing".into(), |s| s.backends.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn items(items: &[(&str, u32, &str)]) -> String {
    let item = |(name, score, category): &(&str, u32, &str)| {
        format!(r#"{{"dns_name":"{name}","score":{score},"utilization_category":"{category}"}}"#)
    };
    format!("[{}]", items.iter().map(item).collect::<Vec<_>>().join(","))
}

const A: &str = "10.9.0.1";
const B: &str = "10.9.0.2";

#[test]
fn static_backends_need_no_agent() {
    let mut scene = Scene::new(None, &[A, "::1"]);
    let first = scene.received().expect("the first snapshot comes at once");
    assert_eq!((first.epoch, first.source), (1, Source::Static));
    assert_eq!(&*first.backends[1].authority, "[::1]:80");
    scene.run_to(20_000);
    assert_eq!((scene.dials(), show(scene.received())), (0, "nothing".into()));
}

#[test]
fn a_frame_is_in_force_in_the_moment_it_comes() {
    let mut scene = Scene::new(Some("10.0.0.7"), &[]);
    assert_eq!(scene.fake.dialled.borrow()[0].0, "10.0.0.7:4000".parse().unwrap());
    scene.accept();
    assert_eq!(show(scene.received()), "nothing");
    scene.frame(&items(&[(A, 90, "LU"), (B, 10, "LU")]));
    assert_eq!(show(scene.received()), format!("{A} 90 1, {B} 10 1"));
    scene.frame(&items(&[(A, 90, "LU"), (B, 10, "LU")]));
    assert_eq!(show(scene.received()), "nothing", "nothing is new");
    scene.frame(&items(&[(A, 91, "LU"), (B, 10, "SUNDOWN")]));
    assert_eq!(show(scene.received()), format!("{A} 91 1, {B} -"));
    assert_eq!(scene.fake.now_ms.get(), 0);
    for bad in ["{", "[]", "[7]", &items(&[(A, 101, "LU")])] {
        scene.frame(bad);
        assert_eq!(show(scene.received()), "nothing", "{bad}");
    }
    scene.frame(&items(&[(A, 101, "LU"), (B, 5, "LU")]));
    assert_eq!(show(scene.received()), format!("{A} 91 1, {B} 5 1"));
}

#[test]
fn two_empty_frames_empty_the_set_unless_the_link_was_lost_between() {
    let mut scene = Scene::new(Some("10.0.0.7"), &[]);
    scene.accept();
    scene.frame(&items(&[(A, 1, "LU")]));
    scene.received();
    scene.frame("[]");
    scene.wire().0.borrow_mut().has_ended = true;
    scene.run_to(2000);
    scene.accept();
    scene.frame("[]");
    assert_eq!(show(scene.received()), "nothing");
    scene.frame("[ ]");
    assert_eq!(show(scene.received()), format!("{A} -"));
}

#[test]
fn who_left_is_forgotten_when_the_cores_are_done() {
    let mut scene = Scene::new(Some("10.0.0.7"), &[]);
    scene.accept();
    scene.frame(&items(&[(A, 1, "LU"), (B, 1, "LU")]));
    scene.cores[1].store_in_flight([(0, 2)].into_iter());
    scene.frame(&items(&[(B, 1, "LU")]));
    assert_eq!(show(scene.received()), format!("{A} -, {B} 1 1"));
    scene.apply(2);
    scene.run_to(1000);
    assert_eq!(show(scene.received()), "nothing");
    scene.cores[1].store_in_flight([].into_iter());
    scene.run_to(1100);
    assert_eq!(show(scene.received()), format!("{B} 1 1"));
}

#[test]
fn the_set_outlives_the_agent_and_dials_back_off() {
    let mut scene = Scene::new(Some("10.0.0.7"), &[]);
    scene.accept();
    scene.frame(&items(&[(A, 1, "LU")]));
    scene.received();
    scene.wire().0.borrow_mut().has_ended = true;
    let mut dialled_at = Vec::new();
    for _ in 0..(40_000 / 10) {
        let before = scene.dials();
        scene.run_to(scene.fake.now_ms.get() + 10);
        if scene.dials() > before {
            scene.wire().0.borrow_mut().broken = Some(ErrorKind::ConnectionRefused);
            dialled_at.push(scene.fake.now_ms.get() / 1000);
        }
    }
    // The middle of the draw: 1, 2, 4, 8, 16 s.
    assert_eq!(dialled_at, [1, 3, 7, 15, 31]);
    assert_eq!(show(scene.received()), "nothing");
    // The next one is answered; a frame makes the wait short again.
    scene.run_to(64_000);
    scene.accept();
    scene.frame(&items(&[(A, 2, "LU")]));
    assert_eq!(show(scene.received()), format!("{A} 2 1"));
    scene.wire().0.borrow_mut().broken = Some(ErrorKind::ConnectionReset);
    let before = scene.dials();
    scene.run_to(65_100);
    assert_eq!(scene.dials(), before + 1);
}

#[test]
fn a_half_open_link_is_pinged_and_given_up() {
    let mut scene = Scene::new(Some("10.0.0.7"), &[]);
    scene.accept();
    scene.frame(&items(&[(A, 1, "LU")]));
    scene.run_to(14_990);
    // Two bytes: one alone may be part of a mask, which is drawn.
    let is_ping = |bytes: &&[u8]| *bytes == [0x89, 0x80];
    assert_eq!(scene.wire().0.borrow().from_us.windows(2).filter(is_ping).count(), 2);
    assert!(!scene.wire().0.borrow().is_finished);
    scene.run_to(15_000);
    assert!(scene.wire().0.borrow().is_finished);
    scene.run_to(16_010);
    assert_eq!(scene.dials(), 2);
    // The next one neither connects nor refuses.
    scene.run_to(21_000);
    assert!(scene.wire().0.borrow().is_dropped);
}

#[test]
fn a_message_too_large_is_answered_before_the_end() {
    let mut scene = Scene::new(Some("10.0.0.7"), &[]);
    scene.accept();
    let wire = scene.wire();
    let mut bytes = vec![0x81, 127];
    bytes.extend_from_slice(&(10u64 << 20).to_be_bytes());
    scene.say(&bytes);
    {
        let ends = wire.0.borrow();
        assert_eq!(ends.from_us[0], 0x88, "a close frame");
        assert!(ends.is_finished && !ends.is_dropped);
    }
    // What still comes is read and dropped, so that no reset overtakes the close frame.
    scene.say(&vec![b' '; 200_000]);
    assert!(wire.0.borrow().to_us.is_empty());
    scene.run_to(1100);
    assert!(wire.0.borrow().is_dropped);
    assert_eq!(scene.dials(), 2);
}

#[test]
fn the_agents_name_is_resolved_and_each_address_gets_its_share_of_time() {
    let mut scene = Scene::new(Some("agent"), &[]);
    assert_eq!(scene.dials(), 0);
    scene.run_until_resolved(|scene| scene.dials() == 1);
    // The first address is a black hole: half of the five seconds.
    scene.run_to(2490);
    assert_eq!(scene.dials(), 1);
    scene.run_to(2500);
    let dialled: Vec<String> =
        scene.fake.dialled.borrow().iter().map(|(to, _)| to.to_string()).collect();
    assert_eq!(dialled, ["10.0.0.1:4000", "10.0.0.2:4000"]);
    scene.accept();
    scene.frame(&items(&[(A, 1, "LU")]));
    assert_eq!(show(scene.received()), format!("{A} 1 1"));
}

#[test]
fn scores_do_not_wait_for_names() {
    let mut scene = Scene::new(Some("10.0.0.7"), &[]);
    scene.accept();
    scene.frame(&items(&[(A, 1, "LU"), ("app", 2, "LU"), ("nowhere", 3, "LU")]));
    assert_eq!(show(scene.received()), format!("{A} 1 1, app 2 0, nowhere 3 0"));
    scene.run_until_resolved(|scene| scene.workers.iter().all(|worker| !worker.is_empty()));
    assert_eq!(show(scene.received()), format!("{A} 1 1, app 2 1, nowhere 3 0"));
}

#[test]
fn an_order_or_nobody_to_give_one_ends_it() {
    let mut scene = Scene::new(None, &[]);
    scene.orders.send(Order::Stop).unwrap();
    assert!(scene.poll().is_ready());
    let mut scene = Scene::new(None, &[]);
    scene.orders = unbounded().0;
    assert!(scene.poll().is_ready());
}

impl Scene {
    fn report(&mut self, slot: u32, finding: Finding) {
        let at = Instant::from_ns(self.fake.now_ms.get() * 1_000_000);
        let report = Report { worker: 1, serial: 1, epoch: 1, slot: Slot(slot), at, finding };
        self.to_control.send(report).unwrap();
        self.fake.rung.ring();
        assert!(self.poll().is_pending());
    }

    /// The newest snapshot, which every worker must have got.
    fn standing(&mut self, slot: u32) -> (u64, Standing) {
        let last = self.control.roster.snapshot().clone();
        for worker in &self.workers {
            if let Some(newest) = worker.try_iter().last() {
                assert_eq!(newest.epoch, last.epoch);
            }
        }
        (last.epoch, last.health.of(Slot(slot)))
    }
}

#[test]
fn a_report_ejects_on_every_core_and_a_connect_brings_back() {
    let mut scene = Scene::new(None, &["10.0.0.1", "10.0.0.2"]);
    scene.run_to(2_000);
    assert_eq!(scene.standing(0), (1, Standing::Up));
    assert_eq!(scene.dials(), 0);
    scene.report(0, Finding::Unreachable(Symptom::Refused));
    assert_eq!(scene.standing(0), (2, Standing::Out));
    assert_eq!(scene.control.roster.snapshot().health.heard_of(1), 1);
    // Probed at once, and then four times a second.
    assert_eq!(scene.dials(), 1);
    for second in 3..6 {
        scene.run_to(second * 1_000);
        assert!(scene.dials() as u64 <= 1 + (second - 2) * 4, "{} by {second} s", scene.dials());
    }
    assert!(scene.dials() >= 11);
    scene.wire().0.borrow_mut().is_connected = true;
    assert!(scene.poll().is_pending());
    assert_eq!(scene.standing(0), (3, Standing::Up));
    let dials = scene.dials();
    scene.run_to(20_000);
    assert_eq!((scene.dials(), scene.standing(0)), (dials, (3, Standing::Up)));
}

#[test]
fn checks_are_asked_of_every_backend() {
    let mut config = config(None, &["10.0.0.1", "10.0.0.2"]);
    let (interval, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
    config.health = Some(HealthCheck { path: "/up".into(), interval, timeout });
    let mut scene = Scene::with(&config);
    let mut answered = 0;
    let mut answer = |scene: &mut Scene, status: &str| {
        for (to, wire) in scene.fake.dialled.borrow().iter().skip(answered) {
            let status = if to.to_string() == "10.0.0.1:80" { status } else { "200 OK" };
            wire.0.borrow_mut().is_connected = true;
            wire.0.borrow_mut().to_us.extend(format!("HTTP/1.1 {status}\r\n\r\n").bytes());
        }
        answered = scene.dials();
        assert!(scene.poll().is_pending());
    };
    for ms in (0..20_000).step_by(100) {
        scene.run_to(ms);
        answer(&mut scene, "200 OK");
    }
    assert!((18..=20).contains(&scene.dials()), "{}", scene.dials());
    assert_eq!(scene.standing(0).1, Standing::Up);
    for ms in (20_000..23_000).step_by(100) {
        scene.run_to(ms);
        answer(&mut scene, "503 Service Unavailable");
    }
    assert_eq!((scene.standing(0).1, scene.standing(1).1), (Standing::Out, Standing::Up));
    for ms in (23_000..26_000).step_by(100) {
        scene.run_to(ms);
        answer(&mut scene, "200 OK");
    }
    assert_eq!(scene.standing(0).1, Standing::Up);
}
