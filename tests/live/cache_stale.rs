//! Stale responses: while the origin is asked anew, and while it cannot answer (RFC 5861, RFC 9111 §4.2.4).

use crate::support::cached::{House, SOON, forwarded, is_hit, ttl};
use crate::support::origin::{Origin, Saying};
use crate::support::wait;

// `Age` makes a response stale the moment it is stored; nothing here waits for time to pass.

#[test]
fn an_unchanged_one_is_fresh_again() {
    let house = House::one_core(&[]);
    let said = "Cache-Control: max-age=60, stale-while-revalidate=600|Age: 61|ETag: \"a\"";
    house.origin.say("a", Saying::new(said, "same"));
    let mut client = house.client();
    client.get("/say/a");
    house.origin.say("a", Saying::new("Cache-Control: max-age=60|ETag: \"a\"", "unseen"));
    wait::until("it is fresh again", SOON, || {
        let response = client.get("/say/a");
        assert_eq!((is_hit(&response), response.text().as_str()), (true, "same"));
        ttl(&response).is_some_and(|secs| secs > 0)
    });
    assert_eq!(house.asked("/say/a"), 2);
}

#[test]
fn a_renewal_that_fails_is_tried_again_later() {
    let house = House::one_core(&[]);
    let said = "Cache-Control: max-age=60, stale-while-revalidate=600|Age: 61|ETag: \"a\"";
    house.origin.say("a", Saying::new(said, "old"));
    let mut client = house.client();
    client.get("/say/a");
    house.origin.say("a", Saying::new("", "no").status(503));
    wait::until("a renewal was tried", SOON, || {
        assert_eq!(client.get("/say/a").text(), "old", "never the origin's failure");
        house.asked("/say/a") >= 2
    });
    house.origin.say("a", Saying::new("Cache-Control: max-age=60|ETag: \"b\"", "new"));
    wait::until("a renewal succeeds", SOON, || client.get("/say/a").text() == "new");
}

#[test]
fn past_its_window_the_origin_is_asked_first() {
    let house = House::one_core(&[]);
    let said = "Cache-Control: max-age=60, stale-while-revalidate=5|Age: 66|ETag: \"a\"";
    house.origin.say("a", Saying::new(said, "old"));
    let mut client = house.client();
    client.get("/say/a");
    house.origin.say("a", Saying::new("Cache-Control: max-age=60|ETag: \"b\"", "new"));
    let response = client.get("/say/a");
    assert_eq!((response.text().as_str(), forwarded(&response)), ("new", Some("stale")));
}

#[test]
fn an_origin_that_fails_is_stood_in_for() {
    for (fields, status, expected) in [
        ("Cache-Control: max-age=60, stale-if-error=600", 503, 200),
        ("Cache-Control: max-age=60, stale-if-error=600", 500, 200),
        ("Cache-Control: max-age=60", 503, 200),
        ("Cache-Control: max-age=60, must-revalidate", 503, 503),
        ("Cache-Control: max-age=60, must-revalidate, stale-if-error=600", 503, 503),
        ("Cache-Control: max-age=60, stale-if-error=0", 503, 503),
        ("Cache-Control: no-cache", 503, 503),
        // A refusal is an answer, not a failure.
        ("Cache-Control: max-age=60, stale-if-error=600", 404, 404),
    ] {
        let house = House::one_core(&[]);
        house.origin.say("a", Saying::new(&format!("{fields}|Age: 60|ETag: \"a\""), "old"));
        let mut client = house.client();
        client.get("/say/a");
        house.origin.say("a", Saying::new("", "no").status(status));
        let response = client.get("/say/a");
        assert_eq!(response.status(), expected, "{fields}, then {status}");
        assert_eq!(response.text(), if expected == 200 { "old" } else { "no" }, "{fields}");
    }
}

#[test]
fn a_backend_that_is_gone_is_stood_in_for() {
    let house = House::one_core(&[]);
    for (name, more) in [("stale", ", stale-if-error=600"), ("strict", ", must-revalidate")] {
        let fields = format!("Cache-Control: max-age=60{more}|Age: 60|ETag: \"a\"");
        house.origin.say(name, Saying::new(&fields, "old"));
    }
    house.origin.say("fresh", Saying::new("Cache-Control: max-age=600", "fresh"));
    let mut client = house.client();
    for name in ["stale", "strict", "fresh"] {
        client.get(&format!("/say/{name}"));
    }
    let address = house.origin.address();
    house.origin.close();
    for _ in 0..5 {
        let stale = client.get("/say/stale");
        assert_eq!((stale.status(), stale.text().as_str()), (200, "old"), "{:?}", stale.head);
        assert!(matches!(client.get("/say/strict").status(), 502..=504));
        assert!(matches!(client.get("/say/unknown").status(), 502..=504));
        assert_eq!(client.get("/say/fresh").text(), "fresh");
    }
    let back = Origin::start_at("b", address).expect("the address is free again");
    back.say("stale", Saying::new("Cache-Control: max-age=60|ETag: \"b\"", "new"));
    wait::until("the new one is served", SOON, || client.get("/say/stale").text() == "new");
}

#[test]
fn a_backend_that_is_silent_is_stood_in_for() {
    let house = House::one_core(&["--request-timeout", "300ms"]);
    let fields = "Cache-Control: max-age=60, stale-if-error=600|Age: 60|ETag: \"a\"";
    house.origin.say("a", Saying::new(fields, "old"));
    let mut client = house.client();
    client.get("/say/a");
    house.origin.say("a", Saying::new("", "late").held("never"));
    let response = client.get("/say/a");
    assert_eq!((response.status(), response.text().as_str()), (200, "old"), "{:?}", response.head);
}
