//! One fetch for many readers, and what becomes of them when it ends badly or was not theirs (CACHE.md, collapsing).

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;

use crate::support::cached::{House, SOON, is_hit, is_shared, ttl};
use crate::support::client::Client;
use crate::support::noise;
use crate::support::origin::{Delivery, Saying, Step};
use crate::support::wait;
use crate::support::wire::{Framing, Reader};

const FRESH: &str = "Cache-Control: max-age=600";

fn send(client: &mut Client, target: &str) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
    client.send(request.as_bytes()).expect("sent");
}

/// Clients that have all asked for the target and read nothing yet.
fn asking(house: &House, count: usize, target: &str) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| house.client()).collect();
    for client in &mut clients {
        send(client, target);
    }
    clients
}

#[test]
fn a_cold_burst_is_one_request_at_the_origin() {
    let Some(house) = House::two_cores(&[]) else { return };
    house.origin.say("a", Saying::new(FRESH, noise::body(1, 20_000)).held("burst"));
    // 1,000 requests on 500 connections of one descriptor each: within what a process has by default.
    let request = b"GET /say/a HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut readers: Vec<Reader> = (0..500)
        .map(|_| {
            let mut stream = TcpStream::connect(house.balancer.address()).expect("connected");
            stream.set_read_timeout(Some(SOON)).expect("a timeout");
            stream.write_all(&[&request[..], request].concat()).expect("sent");
            Reader::new(stream)
        })
        .collect();
    wait::until("the origin is asked", SOON, || house.origin.waiting("burst") > 0);
    house.origin.open("burst");
    let mut told = BTreeMap::<String, u32>::new();
    for reader in &mut readers {
        for _ in 0..2 {
            let head = reader.response_head().expect("a head");
            *told.entry(head.field("cache-status").unwrap_or("").to_owned()).or_default() += 1;
            let framing = head.response_framing("GET").expect("a framing");
            let mut body = Vec::new();
            reader.body(framing, |piece| body.extend_from_slice(piece)).expect("a body");
            assert!(head.status() == 200 && body == noise::body(1, 20_000));
        }
    }
    assert_eq!(house.asked("/say/a"), 1, "{told:?}");
}

#[test]
fn what_cannot_be_stored_is_not_served_one_by_one() {
    let Some(house) = House::two_cores(&[]) else { return };
    // Known to be uncacheable: all at once.
    house.origin.say("a", Saying::new("Cache-Control: no-store", "x"));
    house.client().get("/say/a");
    house.origin.say("a", Saying::new("Cache-Control: no-store", "x").held("slow"));
    let mut known = asking(&house, 50, "/say/a");
    wait::until("all are at the origin", SOON, || house.origin.waiting("slow") == 50);
    house.origin.open("slow");
    for client in &mut known {
        assert_eq!(client.response("GET").expect("an answer").text(), "x");
    }
    // Found to be uncacheable while others wait: these then go at once.
    house.origin.say("b", Saying::new("Cache-Control: no-store", "first").held("first"));
    let mut cold = asking(&house, 50, "/say/b");
    wait::until("the origin is asked", SOON, || house.origin.waiting("first") > 0);
    house.origin.say("b", Saying::new("Cache-Control: no-store", "own").held("own"));
    house.origin.open("first");
    let early = house.asked("/say/b");
    wait::until("the others are at the origin", SOON, || {
        house.asked("/say/b") == 50 && house.origin.waiting("own") + early >= 50
    });
    house.origin.open("own");
    for client in &mut cold {
        assert_eq!(client.response("GET").expect("an answer").status(), 200);
    }
}

#[test]
fn variants_do_not_wait_for_each_other() {
    let Some(house) = House::two_cores(&[]) else { return };
    let varied = |body: &str| Saying::new(&format!("{FRESH}|Vary: X-Kind"), body);
    house.origin.say("a", varied("1"));
    house.client().ask("GET", "/say/a", "X-Kind: 1\r\n", b"").expect("an answer");
    house.origin.say("a", varied("2").held("second"));
    let mut second = house.client();
    second.send(b"GET /say/a HTTP/1.1\r\nHost: test\r\nX-Kind: 2\r\n\r\n").expect("sent");
    wait::until("the second is asked for", SOON, || house.origin.waiting("second") == 1);
    // The first is served meanwhile, and a third one fetched.
    let hit = house.client().ask("GET", "/say/a", "X-Kind: 1\r\n", b"").expect("an answer");
    assert_eq!((is_hit(&hit), hit.text().as_str()), (true, "1"));
    house.origin.say("a", varied("3"));
    let third = house.client().ask("GET", "/say/a", "X-Kind: 3\r\n", b"").expect("an answer");
    assert_eq!(third.text(), "3");
    house.origin.open("second");
    assert_eq!(second.response("GET").expect("an answer").text(), "2");
}

#[test]
fn readers_get_a_fill_as_it_arrives() {
    let Some(house) = House::two_cores(&[]) else { return };
    house.origin.say("a", Saying::new(FRESH, noise::body(2, 1_000_000)).halved("half"));
    let mut readers = asking(&house, 20, "/say/a");
    // All have its head before the origin has said all of it, and so has who comes later.
    let head = |reader: &mut Client| {
        let (_, head, framing) = reader.response_head("GET").expect("a head");
        assert_eq!((head.status(), framing), (200, Framing::Length(1_000_000)));
    };
    readers.iter_mut().for_each(head);
    let mut more = asking(&house, 20, "/say/a");
    more.iter_mut().for_each(head);
    house.origin.open("half");
    for reader in readers.iter_mut().chain(&mut more) {
        let mut body = Vec::new();
        let length = Framing::Length(1_000_000);
        reader.body(length, |piece| body.extend_from_slice(piece)).expect("a body");
        assert!(body == noise::body(2, 1_000_000));
    }
    assert!(is_hit(&house.client().get("/say/a")));
    assert_eq!(house.asked("/say/a"), 1);
}

#[test]
fn a_fill_of_unknown_length_is_shared_too() {
    let Some(house) = House::two_cores(&[]) else { return };
    for (name, delivery, gates) in [
        ("chunked", Delivery::Chunked, ["head 1", "half 1"]),
        ("close", Delivery::Close, ["head 2", "half 2"]),
    ] {
        let saying = Saying::new(FRESH, noise::body(2, 300_000)).delivered(delivery);
        house.origin.say(name, saying.held(gates[0]).halved(gates[1]));
        let target = format!("/say/{name}");
        let mut readers = asking(&house, 20, &target);
        wait::until("the origin is asked", SOON, || house.origin.waiting(gates[0]) == 1);
        house.origin.open(gates[0]);
        wait::until("half is said", SOON, || house.origin.waiting(gates[1]) == 1);
        // Some come while the body does.
        readers.extend(asking(&house, 20, &target));
        house.origin.open(gates[1]);
        for reader in &mut readers {
            let response = reader.response("GET").expect("an answer");
            let is_whole = response.body == noise::body(2, 300_000);
            assert!(is_whole, "{name}: {} bytes, {:?}", response.body.len(), response.head);
        }
        assert_eq!(house.asked(&target), 1, "{name}");
    }
}

#[test]
fn a_leader_that_leaves_leaves_the_fill_to_its_readers() {
    let Some(house) = House::two_cores(&[]) else { return };
    house.origin.say("a", Saying::new(FRESH, noise::body(3, 1_000_000)).halved("rest"));
    let mut leader = house.client();
    send(&mut leader, "/say/a");
    leader.response_head("GET").expect("a head");
    let mut readers = asking(&house, 10, "/say/a");
    let framings: Vec<Framing> =
        readers.iter_mut().map(|reader| reader.response_head("GET").expect("a head").2).collect();
    leader.abort();
    house.origin.open("rest");
    for (reader, framing) in readers.iter_mut().zip(framings) {
        let mut body = Vec::new();
        reader.body(framing, |piece| body.extend_from_slice(piece)).expect("the whole body");
        assert!(body == noise::body(3, 1_000_000));
    }
    assert!(is_hit(&house.client().get("/say/a")));
    assert_eq!(house.asked("/say/a"), 1);
}

#[test]
fn a_leader_that_leaves_before_the_head_does_not_fail_the_others() {
    let Some(house) = House::two_cores(&[]) else { return };
    house.origin.say("a", Saying::new(FRESH, "a").held("head"));
    let leader = asking(&house, 1, "/say/a").pop().expect("a client");
    wait::until("the origin is asked", SOON, || house.origin.waiting("head") == 1);
    let mut readers = asking(&house, 20, "/say/a");
    leader.abort();
    house.origin.open("head");
    for reader in &mut readers {
        let response = reader.response("GET").expect("an answer");
        assert_eq!((response.status(), response.text().as_str()), (200, "a"));
    }
    assert!(house.asked("/say/a") <= 2, "at most one more fetch for all of them");
}

#[test]
fn a_slow_reader_holds_up_nobody() {
    const LENGTH: u64 = 4 << 20;
    let Some(house) = House::two_cores(&[]) else { return };
    house.origin.say("a", Saying::new(FRESH, noise::body(4, LENGTH)).held("start"));
    let narrow = || {
        let mut client = Client::connect_narrow(house.balancer.address(), 4_096);
        send(&mut client, "/say/a");
        client
    };
    // The leader does not read, nor does one that follows.
    let mut slow = vec![narrow()];
    wait::until("the origin is asked", SOON, || house.origin.waiting("start") == 1);
    slow.push(narrow());
    let mut quick = asking(&house, 5, "/say/a");
    house.origin.open("start");
    for client in &mut quick {
        assert!(client.response("GET").expect("an answer").body == noise::body(4, LENGTH));
    }
    let hit = house.client().get("/say/a");
    assert!(is_hit(&hit) && hit.body == noise::body(4, LENGTH), "{:?}", hit.head);
    for client in &mut slow {
        assert!(client.response("GET").expect("in the end").body == noise::body(4, LENGTH));
    }
    assert_eq!(house.asked("/say/a"), 1);
}

#[test]
fn what_ends_short_is_broken_for_its_readers_and_never_stored() {
    let Some(house) = House::two_cores(&[]) else { return };
    let head =
        |framing: &str| format!("HTTP/1.1 200 OK\r\n{FRESH}\r\n{framing}\r\n\r\n").into_bytes();
    let sized = || Step::Send([head("Content-Length: 20000"), noise::body(5, 10_000)].concat());
    let chunk = [b"2710\r\n".to_vec(), noise::body(5, 10_000), b"\r\n".to_vec()].concat();
    let chunked = || Step::Send([head("Transfer-Encoding: chunked"), chunk.clone()].concat());
    for (name, begin, end) in [
        ("short", sized(), vec![Step::Close]),
        ("reset", sized(), vec![Step::Reset]),
        ("chunkless", chunked(), vec![Step::Close]),
        ("chunk-reset", chunked(), vec![Step::Reset]),
        ("chunk-short", chunked(), vec![Step::Send(b"2710\r\nabc".to_vec()), Step::Close]),
        ("no-chunk", chunked(), vec![Step::Send(b"zz\r\nabc\r\n0\r\n\r\n".to_vec()), Step::Close]),
    ] {
        let target = format!("/script/{name}");
        house.origin.script(name, [vec![begin, Step::Gate(name)], end].concat());
        let mut readers = asking(&house, 1, &target);
        wait::until("half is said", SOON, || house.origin.waiting(name) == 1);
        readers.extend(asking(&house, 10, &target));
        house.origin.open(name);
        for (at, reader) in readers.iter_mut().enumerate() {
            // Whether it read along, or came too late for that and asked for itself.
            let outcome = reader.response("GET");
            let is_refused = matches!(&outcome, Ok(response) if response.status() == 502);
            let is_broken = outcome.is_err() || is_refused;
            assert!(is_broken, "{name}: reader {at} takes it for whole: {outcome:?}");
        }
        // The next one asks the origin again, which is well now.
        let good = [head("Content-Length: 4"), b"good".to_vec()].concat();
        house.origin.script(name, vec![Step::Send(good)]);
        let asked = house.asked(&target);
        let next = house.client().get(&target);
        assert_eq!((is_hit(&next), next.text().as_str()), (false, "good"), "{name}");
        let hit = house.client().get(&target);
        assert_eq!((is_shared(&hit), hit.text().as_str()), (true, "good"), "{name}");
        assert_eq!(house.asked(&target), asked + 1, "{name}");
    }
}

#[test]
fn what_is_too_large_streams_through() {
    // Half of a shard of 4 MiB: objects up to 2 MiB are stored.
    let Some(house) = House::two_cores(&["--cache-bytes", "8MiB"]) else { return };
    for (name, delivery) in [("length", Delivery::Length), ("chunked", Delivery::Chunked)] {
        for mib in [5, 20] {
            let gate = if delivery == Delivery::Length { "large 1" } else { "large 2" };
            let whole = noise::body(mib, mib << 20);
            house
                .origin
                .say(name, Saying::new(FRESH, whole.clone()).delivered(delivery).halved(gate));
            let target = format!("/say/{name}/{mib}");
            let mut clients = asking(&house, 4, &target);
            wait::until("the origin is asked", SOON, || {
                house.origin.waiting(gate) > 0 || mib == 20
            });
            house.origin.open(gate);
            for client in &mut clients {
                let response = client.response("GET").expect("an answer");
                assert!(response.body == whole, "{name} {mib} MiB");
            }
            let asked = house.asked(&target);
            let again = house.client().get(&target);
            assert!(!is_hit(&again) && again.body == whole, "{name} {mib} MiB");
            assert_eq!(house.asked(&target), asked + 1, "{name} {mib} MiB is not stored");
        }
    }
    house.origin.say("small", Saying::new(FRESH, noise::body(1, 1 << 20)));
    house.client().get("/say/small");
    assert!(is_shared(&house.client().get("/say/small")), "the others are");
}

#[test]
fn one_request_in_the_background_renews_it() {
    let Some(house) = House::two_cores(&[]) else { return };
    let said = "Cache-Control: max-age=60, stale-while-revalidate=600|Age: 61|ETag: \"a\"";
    house.origin.say("a", Saying::new(said, "old"));
    assert_eq!(house.client().get("/say/a").text(), "old");
    let renewed = "Cache-Control: max-age=60|ETag: \"b\"";
    house.origin.say("a", Saying::new(renewed, "new").held("renewal"));
    // While the origin is slow everybody gets the old one at once, on every core and connection.
    let mut clients: Vec<_> = (0..30).map(|_| house.client()).collect();
    for _ in 0..5 {
        for client in &mut clients {
            let response = client.get("/say/a");
            assert_eq!((is_shared(&response), response.text().as_str()), (true, "old"));
            assert!(ttl(&response).is_some_and(|secs| secs < 0), "{:?}", response.head);
        }
    }
    wait::until("the origin is asked", SOON, || house.origin.waiting("renewal") == 1);
    house.origin.open("renewal");
    wait::until("everybody gets the new one", SOON, || {
        clients.iter_mut().all(|client| client.get("/say/a").text() == "new")
    });
    assert!(clients.iter_mut().all(|client| is_hit(&client.get("/say/a"))));
    assert_eq!(house.asked("/say/a"), 2, "one fetch and one renewal");
    assert_eq!(house.asked_with("/say/a", "if-none-match").as_deref(), Some("\"a\""));
}

#[test]
fn an_object_is_fetched_once_for_all_cores() {
    let Some(house) = House::two_cores(&[]) else { return };
    for n in 0..50 {
        let target = format!("/count/{n}");
        let mut clients: Vec<Client> = (0..8).map(|_| house.client()).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            let response = client.get(&target);
            assert_eq!(is_shared(&response), at > 0, "client {at}: {:?}", response.head);
        }
        assert_eq!(house.asked(&target), 1);
    }
}
