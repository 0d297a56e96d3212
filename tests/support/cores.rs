//! Workers of one process on the real driver and real sockets, without the process: for tests that look inside.

use std::hash::RandomState;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use balancer::balance::{Backend, Balance, Category, Score, Slot, Snapshot, Source};
use balancer::cache::store::KeyHasher;
use balancer::config::{CacheConfig, ShardConfig, Timeouts};
use balancer::io::Bell as _;
use balancer::io::{executor, listen, wake::Bell};
use balancer::metrics::Published;
use balancer::worker::{CacheMail, LogMail, Mail, Order, Reporter, Worker};
use crossbeam_channel::{Sender, bounded, unbounded};

/// A backend that answers every request of a connection the same way.
pub fn start_origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                let mut buffer = [0; 64 * 1024];
                loop {
                    let n = connection.read(&mut buffer).unwrap_or(0);
                    if n == 0 {
                        return;
                    }
                    seen.extend_from_slice(&buffer[..n]);
                    while let Some(end) = whole_request(&seen) {
                        let is_cached = seen.starts_with(b"GET /cached");
                        seen.drain(..end);
                        let head = format!(
                            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{}Content-Length: {}\r\n\r\n",
                            if is_cached { "Cache-Control: max-age=3600\r\n" } else { "" },
                            BODY.len()
                        );
                        connection.write_all(&[head.as_bytes(), BODY].concat()).unwrap();
                    }
                }
            });
        }
    });
    address
}

/// The length of the first request in `seen`, once it is whole.
fn whole_request(seen: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(seen).unwrap();
    let head = text.find("\r\n\r\n")? + 4;
    let body = if text[..head].contains("chunked") {
        text[head..].find("0\r\n\r\n")? + 5
    } else if let Some(at) = text[..head].find("Content-Length: ") {
        text[at + 16..].split("\r\n").next()?.parse().unwrap()
    } else {
        0
    };
    (seen.len() >= head + body).then_some(head + body)
}

/// A worker on a thread of its own.
pub struct Running {
    pub address: SocketAddr,
    orders: Sender<Order>,
    bell: Bell,
    pub published: Arc<Published>,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    /// Ends it.
    pub fn stop(self) {
        self.orders.send(Order::Stop).unwrap();
        self.bell.ring();
        self.thread.join().unwrap();
    }
}

/// The first `running` of two workers that share a cache, each with a port of its own; `on_thread` runs first on each
/// of their threads. One that does not run is stuck, as the other sees it. `logs`: where they log, if they do.
pub fn start_workers(
    running: usize,
    origin: SocketAddr,
    on_thread: fn(),
    logs: Vec<LogMail>,
) -> Vec<Running> {
    let mut logs = logs.into_iter();
    let bells = [Bell::new().unwrap(), Bell::new().unwrap()];
    let published = [Arc::new(Published::new(8)), Arc::new(Published::new(8))];
    let hasher = KeyHasher::new(RandomState::new());
    let mails = CacheMail::for_cores(&bells, &published, &hasher, 10);
    (mails.into_iter().zip(bells).zip(published).enumerate().take(running))
        .map(|(number, ((mail, bell), published))| {
            start_worker(number, origin, (mail, logs.next()), bell, published, on_thread)
        })
        .collect()
}

fn start_worker(
    worker: usize,
    origin: SocketAddr,
    (cache, access): (CacheMail<Bell>, Option<LogMail>),
    bell: Bell,
    published: Arc<Published>,
    on_thread: fn(),
) -> Running {
    let mut bound = listen::bind(&["127.0.0.1:0".parse().unwrap()], 1).unwrap();
    let (address, listener) = (bound.addresses[0], bound.workers[0].remove(0));
    let (to_worker, snapshots) = bounded(1);
    let (orders, inbox) = unbounded();
    let backend = Backend {
        slot: Slot(0),
        name: "origin".into(),
        authority: "origin:80".into(),
        score: Score::new(100.0).unwrap(),
        category: Category::Low,
        addresses: [origin].into(),
        warming_since: None,
    };
    let snapshot = Snapshot {
        epoch: 1,
        source: Source::Static,
        slots: 1,
        backends: vec![backend],
        ..Snapshot::empty()
    };
    to_worker.send(Arc::new(snapshot)).unwrap();
    let peers = vec![Arc::new(Published::new(8))];
    // Nobody hears it: nothing is to be said.
    let reporter = Reporter { reports: bounded(1).0, bell: bell.clone() };
    let mail = Mail {
        snapshots,
        orders: inbox,
        reporter,
        published: published.clone(),
        peers,
        cache: Some(cache),
        credits: None,
        share: None,
        steer: None,
        per_ip: None,
        access,
    };
    let thread = std::thread::spawn({
        let bell = bell.clone();
        move || {
            on_thread();
            let served = executor::run(None, bell, |driver| async move {
                let listener = driver.listener(listener).unwrap();
                let config = ShardConfig {
                    worker,
                    balance: Balance::Bounded,
                    timeouts: Timeouts::default(),
                    head: Default::default(),
                    body_bytes_max: None,
                    connections_max: 100,
                    trusted_proxies: Vec::new(),
                    backend_inflight_max: None,
                    queue_length_max: 1024,
                    cache: Some(CacheConfig {
                        entries: 1000,
                        bytes: 8 << 20,
                        files_max: 10,
                        settings: Default::default(),
                    }),
                };
                Worker::new(driver, config, vec![listener], mail).run().await;
            });
            served.unwrap();
        }
    });
    Running { address, orders, bell, published, thread }
}

/// What every answer consists of; the letter occurs nowhere in the heads.
pub const BODY: &[u8] = &[b'~'; 700];
