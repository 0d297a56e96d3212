//! Backpressure: memory stays bounded whatever one side sends and the other does not take.
//!
//! `BALANCER_LIVE_FULL=1` streams 1 GiB each way instead of 64 MiB.

use std::time::Duration;

use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::noise;
use crate::support::origin::Origin;
use crate::support::traffic::Traffic;
use crate::support::wait;

fn streamed_bytes() -> u64 {
    if std::env::var_os("BALANCER_LIVE_FULL").is_some() { 1 << 30 } else { 64 << 20 }
}

/// A balancer whose pools, tables and allocator have been used once.
fn warm(origin: &Origin) -> Balancer {
    let balancer = Balancer::before(&[(origin, 50)], &["--request-timeout", "120s"]);
    Traffic::run(balancer.address(), 60, 3_000);
    let mut client = Client::connect(balancer.address());
    for target in ["/bytes/4000000", "/chunked/4000000"] {
        assert_eq!(client.get(target).status(), 200);
    }
    assert_eq!(
        client.ask("POST", "/upload", "", &noise::body(1, 1 << 20)).expect("an answer").status(),
        200
    );
    balancer
}

#[test]
fn clients_that_never_read_cost_little() {
    let origin = Origin::start("a");
    origin.forget();
    let balancer = warm(&origin);
    let (before, asked) = (balancer.resident_kib(), origin.requests());
    let mut stuck = Vec::new();
    for _ in 0..50 {
        let mut client = Client::connect_narrow(balancer.address(), 4_096);
        client.send(b"GET /bytes/104857600?seed=1 HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
        stuck.push(client);
    }
    wait::until("all are asked for", Duration::from_secs(10), || origin.requests() == asked + 50);
    let growth = || balancer.resident_kib().saturating_sub(before);
    // Watched for two seconds, in which a proxy without backpressure would take in gigabytes.
    assert!(
        !wait::happens(Duration::from_secs(2), || growth() >= 4_096),
        "grew by {} KiB",
        growth()
    );
    eprintln!("50 clients that do not read: {} KiB more than {before} KiB", growth());
    assert_eq!(
        Client::connect(balancer.address()).get("/bytes/100").status(),
        200,
        "others are served meanwhile"
    );
}

#[test]
fn an_upload_that_nobody_reads_costs_little() {
    let origin = Origin::start("a");
    origin.forget();
    let balancer = warm(&origin);
    let before = balancer.resident_kib();
    let mut uploads: Vec<Client> = (0..20).map(|_| Client::connect(balancer.address())).collect();
    for upload in &mut uploads {
        upload
            .send(
                b"POST /unread/upload HTTP/1.1\r\nHost: test\r\nContent-Length: 100000000\r\n\r\n",
            )
            .expect("sent");
    }
    let piece = vec![b'x'; 64 * 1024];
    let growth = || balancer.resident_kib().saturating_sub(before);
    for upload in &mut uploads {
        upload.set_write_patience(Duration::from_millis(100));
        // Until the way is full: then a write stays silent.
        let mut sent = 0;
        while sent < 1_500 && upload.send(&piece).is_ok() {
            sent += 1;
        }
        assert!(sent < 1_500, "nothing holds the upload back");
        assert!(growth() < 4_096, "grew by {} KiB", growth());
    }
    eprintln!("20 uploads that nobody reads: {} KiB more than {before} KiB", growth());
    origin.open("upload");
}

#[test]
fn streaming_down_and_up_does_not_grow() {
    let origin = Origin::start("a");
    origin.forget();
    let balancer = warm(&origin);
    let (before, total) = (balancer.resident_kib(), streamed_bytes());
    let mut peak = 0;
    let mut client = Client::connect(balancer.address());
    for kind in ["bytes", "chunked"] {
        let (mut done, mut looked) = (0, 0);
        client
            .send(format!("GET /{kind}/{total}?seed=3 HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())
            .expect("sent");
        let (_, head, framing) = client.response_head("GET").expect("a head");
        assert_eq!(head.status(), 200);
        let look = |piece: &[u8]| {
            assert!(noise::is_at(3, done, piece), "{kind}: a wrong byte after {done}");
            done += piece.len() as u64;
            if done - looked > LOOK_EVERY {
                looked = done;
                peak = peak.max(balancer.resident_kib());
            }
        };
        client.body(framing, look).expect("the whole body");
        assert_eq!(done, total, "{kind}");
    }
    client
        .send(
            format!("PUT /upload?seed=3 HTTP/1.1\r\nHost: test\r\nContent-Length: {total}\r\n\r\n")
                .as_bytes(),
        )
        .expect("sent");
    let (mut done, mut looked) = (0, 0);
    while done < total {
        let piece = noise::stretch(3, done, total - done);
        client.send(piece).expect("the upload flows");
        done += piece.len() as u64;
        if done - looked > LOOK_EVERY {
            looked = done;
            peak = peak.max(balancer.resident_kib());
        }
    }
    let answer = client.response("PUT").expect("an answer");
    assert_eq!(answer.text(), format!("length={total} matches=yes"));
    let growth = peak.saturating_sub(before);
    eprintln!("{} MiB each way: {growth} KiB more than {before} KiB", total >> 20);
    assert!(growth < 2_048, "grew by {growth} KiB");
}

const LOOK_EVERY: u64 = 4 << 20;

#[test]
fn a_silent_client_costs_its_task_and_its_slot() {
    const CLIENTS: u64 = 600; // within the 1,024 descriptors a test process may have by default
    let origin = Origin::start("a");
    let balancer = warm(&origin);
    let before = balancer.resident_kib();
    let silent: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = Client::connect(balancer.address());
            assert_eq!(client.get("/bytes/10").status(), 200);
            client
        })
        .collect();
    let grown = balancer.resident_kib().saturating_sub(before);
    println!("{} silent clients: {grown} KiB more than {before} KiB", silent.len());
    // 1 KiB each and some pages; a buffer or a request's state would be 40 KiB each.
    assert!(grown <= CLIENTS + 512, "{grown} KiB");
}
