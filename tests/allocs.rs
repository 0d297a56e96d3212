//! After warm-up neither a proxied keep-alive request nor a cache hit allocates, nor do their lines in the access log:
//! counted on the workers' threads, real driver, real sockets. Two workers, so that half of the keys are at home on the other one.
//!
//! One test in this file, because the counter is global to the process.

#[path = "support/cores.rs"]
mod cores;
#[path = "support/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::Duration;

use balancer::access_log::Format;
use balancer::metrics::Count;
use balancer::worker::{Batch, LogMail, LogOutlet, Spare, lines_in};
use cores::BODY;
use crossbeam_channel::{Receiver, Sender, bounded};

#[test]
fn a_proxied_request_allocates_nothing_after_warm_up() {
    for format in [None, Some(Format::Json)] {
        let (logs, lines) = format.map_or((Vec::new(), None), |format| {
            let (logs, outlet) = LogMail::for_cores(&[0, 1], format);
            (logs, Some(Lines::of(outlet)))
        });
        let dropped = serve_without_allocations(logs);
        let requests = u64::from(ROUNDS) * 2 * (1 + 1 + 1 + 4 + KEYS as u64);
        // A writer that is late costs lines, and each is counted.
        let told = lines.map(|lines| lines.end() + dropped);
        assert_eq!(told, format.map(|_| requests), "{format:?}");
    }
}

/// How many lines were dropped.
fn serve_without_allocations(logs: Vec<LogMail>) -> u64 {
    let watch = counting::watch_this_thread;
    let workers = cores::start_workers(2, cores::start_origin(), watch, logs);
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
    let blocks: Vec<_> = workers.iter().map(|worker| worker.published.clone()).collect();
    for worker in workers {
        worker.stop();
    }
    blocks.iter().map(|block| block.count(Count::LogLinesDropped)).sum()
}

/// The log's writer, as far as a worker knows it: it counts.
struct Lines {
    counting: JoinHandle<u64>,
    is_open: Sender<()>,
}

impl Lines {
    fn of(outlet: LogOutlet) -> Self {
        let (is_open, end) = bounded(0);
        Self { counting: std::thread::spawn(move || count(&outlet, &end)), is_open }
    }

    /// How many there were, once the workers have ended.
    fn end(self) -> u64 {
        drop(self.is_open);
        self.counting.join().unwrap()
    }
}

fn count(outlet: &LogOutlet, end: &Receiver<()>) -> u64 {
    let mut lines = 0;
    let mut take = |Batch { worker, lines: mut buffer }: Batch| {
        lines += lines_in(&buffer);
        buffer.clear();
        // Nobody takes it when the worker has ended.
        let _ = outlet.spares[worker].try_send(Spare { buffer, lost: 0 });
    };
    loop {
        crossbeam_channel::select! {
            recv(outlet.full) -> batch => take(batch.unwrap()),
            recv(end) -> _ => break,
        }
    }
    outlet.full.try_iter().for_each(take);
    lines
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

const KEYS: usize = 16;
/// What is at home elsewhere is reported there now and then, and a channel allocates in blocks.
const TOUCHES_MAX: u64 = 8;
const CACHED: &str = "GET /cached/# HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n";
const ROUNDS: u32 = 2_000;
const GET: &[u8] =
    b"GET /some/path?with=query HTTP/1.1\r\nHost: example.com\r\nUser-Agent: test\r\n\
    Accept: */*\r\nAccept-Encoding: gzip\r\nCookie: a=b\r\n\r\n";
const POST: &[u8] =
    b"POST /form HTTP/1.1\r\nHost: example.com\r\nContent-Length: 11\r\n\r\nhello world";
const CHUNKED: &[u8] =
    b"POST /form HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n\
    6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n";
