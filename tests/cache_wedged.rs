//! A core that hangs fails nobody's request: what is at home there goes forward without the cache.

#[path = "support/cores.rs"]
mod cores;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use balancer::metrics::Count;
use cores::BODY;

#[test]
fn requests_pass_by_a_home_that_hangs() {
    // The other one of the two never reads its mail.
    let worker = cores::start_workers(1, cores::start_origin(), || {}, Vec::new()).remove(0);
    let mut client = TcpStream::connect(worker.address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for round in 0..ROUNDS {
        for key in 0..KEYS {
            let request = format!("GET /cached/{key} HTTP/1.1\r\nHost: example.com\r\n\r\n");
            client.write_all(request.as_bytes()).unwrap();
            let mut got = 0;
            let mut buffer = [0; 4096];
            while got < BODY.len() {
                let n = client.read(&mut buffer).unwrap();
                assert!(n > 0, "key {key} in round {round} got no answer");
                got += buffer[..n].iter().filter(|byte| **byte == b'~').count();
            }
        }
    }
    let published = worker.published.clone();
    worker.stop();
    let (hits, misses) = (published.count(Count::CacheHits), published.count(Count::CacheMisses));
    assert_eq!(hits + misses, ROUNDS * KEYS, "every request was answered");
    assert!(
        hits > 0 && hits.is_multiple_of(ROUNDS - 1),
        "its own keys it serves from store: {hits}"
    );
    assert!(misses > KEYS, "those of the other go forward each time: {misses}");
}

const KEYS: u64 = 16;
const ROUNDS: u64 = 3;
