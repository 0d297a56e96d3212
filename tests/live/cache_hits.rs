//! What comes from the store: whole, in parts, as a head, as a mere "unchanged" (CACHE.md; RFC 9111 §4, RFC 9110 §13, §14).

use crate::support::cached::{House, age, forwarded, is_hit, ttl};
use crate::support::client::Response;
use crate::support::noise;
use crate::support::origin::{Delivery, Saying};
use crate::support::wire::Framing;

fn house() -> House {
    House::one_core(&[])
}

#[test]
fn a_hit_is_the_same_response_only_older() {
    let house = house();
    let fields = "Cache-Control: max-age=60|ETag: \"a\"|X-Twice: 1|X-Twice: 2|X-Lower:  b ";
    house.origin.say("a", Saying::new(fields, noise::body(1, 30_000)));
    let mut client = house.client();
    let first = client.get("/say/a");
    assert_eq!((is_hit(&first), forwarded(&first)), (false, Some("uri-miss")), "{:?}", first.head);
    let second = client.get("/say/a");
    assert!(is_hit(&second), "{:?}", second.head);
    assert!(ttl(&second).is_some_and(|secs| (30..=60).contains(&secs)), "{:?}", second.head);
    assert!(age(&second).is_some_and(|secs| secs <= 30), "{:?}", second.head);
    for response in [&first, &second] {
        assert_eq!(response.framing, Framing::Length(30_000));
        assert!(response.body == noise::body(1, 30_000));
        assert_eq!(response.head.count("x-twice"), 2);
        assert_eq!(response.head.field("via"), Some("1.1 balancer"));
        assert_eq!(response.head.count("date"), 1);
    }
    assert_eq!(first.head.field("date"), second.head.field("date"), "Date is not touched");
    assert_eq!(house.asked("/say/a"), 1);
}

#[test]
fn every_delivery_and_size_is_stored_whole() {
    let house = house();
    let mut client = house.client();
    for delivery in [Delivery::Length, Delivery::Chunked, Delivery::Close] {
        for size in [0, 1, 16_383, 16_384, 65_536, 1_000_000, 5 << 20] {
            let name = format!("{delivery:?}{size}");
            let saying = Saying::new("Cache-Control: max-age=600", noise::body(size, size));
            house.origin.say(&name, saying.delivered(delivery));
            let target = format!("/say/{name}");
            for is_second in [false, true] {
                let response = client.get(&target);
                assert!(response.body == noise::body(size, size), "{name}");
                assert_eq!(is_hit(&response), is_second, "{name}: {:?}", response.head);
            }
            let hit = client.get(&target);
            assert_eq!(hit.framing, Framing::Length(size), "{name}: a whole body has a length");
            assert_eq!(house.asked(&target), 1, "{name}");
        }
    }
}

#[test]
fn responses_without_a_body_are_stored_too() {
    let house = house();
    let mut client = house.client();
    for (name, status) in [("none", 204), ("gone", 410), ("moved", 301), ("broken", 503)] {
        let body = if status == 204 { "" } else { "text" };
        let saying = Saying::new("Cache-Control: max-age=60", body).status(status);
        house
            .origin
            .say(name, if status == 204 { saying.delivered(Delivery::Close) } else { saying });
        let target = format!("/say/{name}");
        for is_second in [false, true] {
            let response = client.get(&target);
            assert_eq!(response.status(), status);
            assert_eq!(
                (is_hit(&response), response.text().as_str()),
                (is_second, body),
                "{status}"
            );
        }
    }
}

#[test]
fn head_is_answered_from_a_stored_get() {
    let house = house();
    house.origin.say("a", Saying::new("Cache-Control: max-age=60|ETag: \"a\"", "0123456789"));
    let mut client = house.client();
    // With nothing stored it goes through as HEAD, and is not stored.
    let head = client.ask("HEAD", "/say/a", "", b"").expect("an answer");
    assert_eq!((head.status(), head.head.field("content-length")), (200, Some("10")));
    assert!(!is_hit(&client.get("/say/a")), "a response to HEAD is no response to GET");
    let head = client.ask("HEAD", "/say/a", "", b"").expect("an answer");
    assert!(is_hit(&head), "{:?}", head.head);
    assert_eq!(head.head.field("content-length"), Some("10"));
    assert_eq!(client.get("/say/a").text(), "0123456789", "and the connection goes on");
    let methods: Vec<String> = house.origin.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["HEAD", "GET"]);
}

#[test]
fn preconditions_are_evaluated_against_what_is_stored() {
    let house = house();
    let modified = "Wed, 01 Jan 2020 00:00:00 GMT";
    let fields =
        format!("Cache-Control: max-age=60|ETag: \"a\"|Last-Modified: {modified}|X-Kept: 1");
    house.origin.say("a", Saying::new(&fields, "0123456789"));
    let mut client = house.client();
    client.get("/say/a");
    for (asked, status) in [
        ("If-None-Match: \"a\"\r\n", 304),
        ("If-None-Match: \"z\", W/\"a\"\r\n", 304),
        ("If-None-Match: *\r\n", 304),
        ("If-None-Match: \"b\"\r\n", 200),
        ("If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT\r\n", 304),
        ("If-Modified-Since: Thu, 02 Jan 2020 00:00:00 GMT\r\n", 304),
        ("If-Modified-Since: Tue, 31 Dec 2019 00:00:00 GMT\r\n", 200),
        // RFC 9110 §13.1.3: a tag decides alone
        ("If-None-Match: \"b\"\r\nIf-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT\r\n", 200),
    ] {
        let response = client.ask("GET", "/say/a", asked, b"").expect("an answer");
        assert_eq!(response.status(), status, "{asked}");
        assert!(is_hit(&response), "{asked}");
        assert_eq!(response.head.field("etag"), Some("\"a\""), "{asked}");
        assert_eq!(response.text(), if status == 304 { "" } else { "0123456789" }, "{asked}");
    }
    assert_eq!(house.asked("/say/a"), 1);
    // With nothing stored they go on as they are, and a 304 comes back as it is.
    house.origin.say("b", Saying::new("Cache-Control: max-age=60|ETag: \"b\"", "b"));
    let unstored = client.ask("GET", "/say/b", "If-None-Match: \"b\"\r\n", b"").expect("an answer");
    assert_eq!(unstored.status(), 304);
    assert_eq!(house.asked_with("/say/b", "if-none-match").as_deref(), Some("\"b\""));
    assert_eq!(client.get("/say/b").text(), "b");
}

#[test]
fn ranges_are_cut_from_what_is_stored() {
    let house = house();
    let fields =
        "Cache-Control: max-age=60|ETag: \"a\"|Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT";
    let whole = noise::body(7, 100_000);
    house.origin.say("a", Saying::new(fields, whole.clone()));
    let mut client = house.client();
    client.get("/say/a");
    let partial = |response: &Response, start: usize, end: usize| {
        assert_eq!(response.status(), 206, "{:?}", response.head);
        let range = format!("bytes {start}-{}/100000", end - 1);
        assert_eq!(response.head.field("content-range"), Some(range.as_str()));
        assert!(response.body == whole[start..end], "{range}");
        assert!(is_hit(response), "{range}");
    };
    for (asked, start, end) in [
        ("0-0", 0, 1),
        ("0-99999", 0, 100_000),
        ("16383-16384", 16_383, 16_385),
        ("65535-", 65_535, 100_000),
        ("99999-200000", 99_999, 100_000),
        ("-1", 99_999, 100_000),
        ("-200000", 0, 100_000),
    ] {
        let field = format!("Range: bytes={asked}\r\n");
        partial(&client.ask("GET", "/say/a", &field, b"").expect("an answer"), start, end);
    }
    for (condition, is_partial) in [
        ("If-Range: \"a\"\r\n", true),
        ("If-Range: Wed, 01 Jan 2020 00:00:00 GMT\r\n", true),
        ("If-Range: \"b\"\r\n", false),
        ("If-Range: W/\"a\"\r\n", false),
        ("If-Range: Thu, 02 Jan 2020 00:00:00 GMT\r\n", false),
    ] {
        let fields = format!("Range: bytes=5-9\r\n{condition}");
        let response = client.ask("GET", "/say/a", &fields, b"").expect("an answer");
        if is_partial {
            partial(&response, 5, 10);
        } else {
            assert!(response.status() == 200 && response.body == whole, "{condition}");
        }
    }
    let beyond = client.ask("GET", "/say/a", "Range: bytes=100000-\r\n", b"").expect("an answer");
    assert_eq!(
        (beyond.status(), beyond.head.field("content-range")),
        (416, Some("bytes */100000"))
    );
    // Several ranges, or another unit, get the whole.
    for asked in ["bytes=0-0,5-5", "lines=1-2"] {
        let field = format!("Range: {asked}\r\n");
        let response = client.ask("GET", "/say/a", &field, b"").expect("an answer");
        assert!(response.status() == 200 && response.body == whole, "{asked}");
    }
    assert_eq!(house.asked("/say/a"), 1);
}

#[test]
fn a_stale_response_is_validated_with_our_validators() {
    let house = house();
    let fields = "Cache-Control: max-age=60|Age: 61|ETag: \"a\"|X-First: 1";
    house.origin.say("a", Saying::new(fields, "0123456789"));
    let mut client = house.client();
    client.get("/say/a");
    // The origin has not changed it: what the client asked for is cut from the store.
    house
        .origin
        .say("a", Saying::new("Cache-Control: max-age=60|ETag: \"a\"|X-Second: 2", "unseen"));
    let asked = "If-None-Match: \"other\"\r\nRange: bytes=2-4\r\n";
    let response = client.ask("GET", "/say/a", asked, b"").expect("an answer");
    assert_eq!((response.status(), response.text().as_str()), (206, "234"), "{:?}", response.head);
    assert_eq!(house.asked_with("/say/a", "if-none-match").as_deref(), Some("\"a\""));
    assert_eq!(house.asked_with("/say/a", "range"), None);
    assert_eq!(response.head.field("x-first"), Some("1"), "kept");
    assert_eq!(response.head.field("x-second"), Some("2"), "RFC 9111 §3.2: updated");
    let hit = client.get("/say/a");
    assert!(is_hit(&hit) && hit.head.field("x-second") == Some("2"), "{:?}", hit.head);
    assert_eq!(house.asked("/say/a"), 2);
    // A 304 for a client that holds it already.
    house.origin.say("b", Saying::new("Cache-Control: max-age=60|Age: 61|ETag: \"b\"", "b"));
    client.get("/say/b");
    let unchanged =
        client.ask("GET", "/say/b", "If-None-Match: \"b\"\r\n", b"").expect("an answer");
    assert_eq!(unchanged.status(), 304);
    // It has changed: the new one goes to the client and takes the place of the old one.
    house.origin.say("b", Saying::new("Cache-Control: max-age=60|ETag: \"c\"", "new"));
    assert_eq!(client.get("/say/b").text(), "new");
    let hit = client.get("/say/b");
    assert_eq!((is_hit(&hit), hit.text().as_str()), (true, "new"));
}

#[test]
fn old_clients_get_hits_that_they_can_read() {
    let house = house();
    let saying = Saying::new("Cache-Control: max-age=60", noise::body(3, 70_000));
    house.origin.say("a", saying.delivered(Delivery::Chunked));
    for (wanted_hit, fields) in [(false, ""), (true, ""), (true, "Connection: keep-alive\r\n")] {
        let mut old = house.client();
        let request = format!("GET /say/a HTTP/1.0\r\nHost: test\r\n{fields}\r\n");
        old.send(request.as_bytes()).expect("sent");
        let response = old.response("GET").expect("an answer");
        assert!(response.body == noise::body(3, 70_000));
        assert_ne!(response.framing, Framing::Chunked, "never chunked to 1.0");
        assert_eq!(is_hit(&response), wanted_hit, "{:?}", response.head);
        if fields.is_empty() {
            old.end().expect("a 1.0 connection ends unless asked to stay");
        } else {
            assert!(response.head.lists("connection", "keep-alive"), "{:?}", response.head);
        }
    }
    assert_eq!(house.asked("/say/a"), 1);
    // Without a Host nothing is known to be the same.
    for _ in 0..2 {
        let mut nameless = house.client();
        nameless.send(b"GET /say/a HTTP/1.0\r\n\r\n").expect("sent");
        assert!(!is_hit(&nameless.response("GET").expect("an answer")));
    }
    assert_eq!(house.asked("/say/a"), 3);
}

#[test]
fn pipelined_hits_and_misses_keep_their_order() {
    let house = house();
    let ask = |n: u64| format!("GET /say/n{} HTTP/1.1\r\nHost: test\r\n\r\n", n % 7);
    for n in 0..7 {
        house.origin.say(
            &format!("n{n}"),
            Saying::new("Cache-Control: max-age=60", noise::body(n, n * 9_000)),
        );
    }
    let mut client = house.client();
    let all: String = (0..70).map(ask).collect();
    client.send(all.as_bytes()).expect("sent");
    for n in 0..70 {
        let response = client.response("GET").expect("an answer");
        assert!(response.body == noise::body(n % 7, n % 7 * 9_000), "{n}");
        assert_eq!(is_hit(&response), n >= 7, "{n}: {:?}", response.head);
    }
    // And torn to bytes.
    client.send_torn(format!("{}{}", ask(1), ask(2)).as_bytes(), 1).expect("sent");
    for n in [1, 2] {
        assert!(client.response("GET").expect("an answer").body == noise::body(n, n * 9_000));
    }
}
