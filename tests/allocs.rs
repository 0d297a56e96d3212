//! After warm-up neither a proxied keep-alive request nor a cache hit allocates: counted on the workers' threads, real
//! driver, real sockets. Two workers, so that half of the keys are at home on the other one.
//!
//! One test in this file, because the counter is global to the process.

#[path = "support/counting.rs"]
mod counting;

use std::hash::RandomState;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use balancer::balance::{Backend, Balance, Category, Score, Slot, Snapshot, Source};
use balancer::cache::store::KeyHasher;
use balancer::config::{CacheConfig, ShardConfig, Timeouts};
use balancer::io::Bell as _;
use balancer::io::{executor, listen, wake::Bell};
use balancer::metrics::{Count, Published};
use balancer::worker::{CacheMail, Mail, Order, Worker};
use crossbeam_channel::{Sender, bounded, unbounded};

#[test]
fn a_proxied_request_allocates_nothing_after_warm_up() {
    let workers = start_workers(start_origin());
    let worker = &workers[0];
    let mut client = TcpStream::connect(worker.address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.set_nodelay(true).unwrap();
    for (name, request, answer_bytes) in [
        ("GET", GET, BODY.len()),
        ("POST with Content-Length", POST, BODY.len()),
        ("chunked POST", CHUNKED, BODY.len()),
        ("four pipelined GETs", &[GET, GET, GET, GET].concat()[..], 4 * BODY.len()),
    ] {
        let before_warm_up = counting::calls();
        rounds(&mut client, request, answer_bytes);
        let before = counting::calls();
        rounds(&mut client, request, answer_bytes);
        let after = counting::calls();
        assert_eq!(after - before, 0, "{name}: allocations in {ROUNDS} warm rounds");
        if name == "GET" {
            assert!(before > before_warm_up, "the counter counts: warm-up cannot do without");
        }
    }
    let hits: Vec<u8> =
        (0..KEYS).flat_map(|n| CACHED.replace('#', &n.to_string()).into_bytes()).collect();
    rounds(&mut client, &hits, KEYS * BODY.len());
    let before = counting::calls();
    rounds(&mut client, &hits, KEYS * BODY.len());
    let spent = counting::calls() - before;
    assert!(
        spent <= TOUCHES_MAX,
        "{spent} allocations in {} cache hits, on the own core and by handle",
        KEYS as u32 * ROUNDS
    );
    let own: u64 = workers.iter().map(|worker| worker.published.count(Count::CacheHits)).sum();
    assert!(own >= u64::from(ROUNDS) * KEYS as u64, "they were hits: {own}");
    for worker in workers {
        worker.orders.send(Order::Stop).unwrap();
        worker.bell.ring();
        worker.thread.join().unwrap();
    }
}

/// Sends `request` again and again, each time after the answer to the one before.
fn rounds(client: &mut TcpStream, request: &[u8], body_bytes: usize) {
    let mut buffer = vec![0; 64 * 1024];
    for _ in 0..ROUNDS {
        client.write_all(request).unwrap();
        let mut got = 0;
        // The body's letter occurs nowhere in the heads.
        while got < body_bytes {
            let n = client.read(&mut buffer).unwrap();
            assert!(n > 0, "the proxy closed the connection");
            got += buffer[..n].iter().filter(|byte| **byte == b'~').count();
        }
    }
}

/// A backend that answers every request of a connection the same way.
fn start_origin() -> SocketAddr {
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

struct Running {
    address: SocketAddr,
    orders: Sender<Order>,
    bell: Bell,
    published: Arc<Published>,
    thread: std::thread::JoinHandle<()>,
}

/// Two workers that share a cache, each with a port of its own.
fn start_workers(origin: SocketAddr) -> Vec<Running> {
    let bells = [Bell::new().unwrap(), Bell::new().unwrap()];
    let published = [Arc::new(Published::new(8)), Arc::new(Published::new(8))];
    let hasher = KeyHasher::new(RandomState::new());
    let mails = CacheMail::for_cores(&bells, &published, &hasher);
    (mails.into_iter().zip(bells).zip(published).enumerate())
        .map(|(number, ((mail, bell), published))| {
            start_worker(number, origin, mail, bell, published)
        })
        .collect()
}

fn start_worker(
    worker: usize,
    origin: SocketAddr,
    cache: CacheMail<Bell>,
    bell: Bell,
    published: Arc<Published>,
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
    let mail =
        Mail { snapshots, orders: inbox, published: published.clone(), peers, cache: Some(cache) };
    let thread = std::thread::spawn({
        let bell = bell.clone();
        move || {
            counting::watch_this_thread();
            let served = executor::run(None, bell, |driver| async move {
                let listener = driver.listener(listener).unwrap();
                let config = ShardConfig {
                    worker,
                    balance: Balance::Bounded,
                    timeouts: Timeouts::default(),
                    head: Default::default(),
                    body_bytes_max: None,
                    connections_max: 100,
                    backend_inflight_max: None,
                    queue_length_max: 1024,
                    cache: Some(CacheConfig {
                        entries: 1000,
                        bytes: 8 << 20,
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

const KEYS: usize = 16;
/// What is at home elsewhere is reported there now and then, and a channel allocates in blocks.
const TOUCHES_MAX: u64 = 8;
const CACHED: &str = "GET /cached/# HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n";
const ROUNDS: u32 = 2_000;
const BODY: &[u8] = &[b'~'; 700];
const GET: &[u8] =
    b"GET /some/path?with=query HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test\r\n\
    Accept: */*\r\nAccept-Encoding: gzip\r\nCookie: a=b\r\n\r\n";
const POST: &[u8] =
    b"POST /form HTTP/1.1\r\nHost: example.com\r\nContent-Length: 11\r\n\r\nhello world";
const CHUNKED: &[u8] =
    b"POST /form HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n\
    6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n";
