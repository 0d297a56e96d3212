//! What is stored at all, for whom, and what ends it (CACHE.md; RFC 9111 §3, §4.1, §4.4, §5.2).

use crate::support::cached::{House, forwarded, is_hit, ttl};
use crate::support::client::{Client, Response};
use crate::support::origin::Saying;

/// Asks twice on one connection; whether the second answer came from the store.
fn is_stored(client: &mut Client, target: &str, fields: &str) -> bool {
    let mut ask = || client.ask("GET", target, fields, b"").expect("an answer");
    assert!(!is_hit(&ask()), "{target}: nothing can be stored yet");
    is_hit(&ask())
}

fn ask(client: &mut Client, target: &str, fields: &str) -> Response {
    client.ask("GET", target, fields, b"").expect("an answer")
}

#[test]
fn the_origin_decides_what_is_stored() {
    let house = House::one_core(&[]);
    let mut client = house.client();
    for (name, fields, expected) in [
        ("none", "", false),
        ("fresh", "Cache-Control: max-age=60", true),
        ("shared", "Cache-Control: s-maxage=60", true),
        ("expires", "Expires: Fri, 01 Jan 2055 00:00:00 GMT", true),
        ("heuristic", "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT", true),
        ("no-store", "Cache-Control: no-store, max-age=60", false),
        ("private", "Cache-Control: private, max-age=60", false),
        ("no-cache", "Cache-Control: no-cache, max-age=60", false),
        ("old", "Cache-Control: max-age=60|Age: 60", false),
        ("past", "Expires: 0", false),
        ("vary", "Cache-Control: max-age=60|Vary: *", false),
        ("targeted", "Cache-Control: no-store|CDN-Cache-Control: max-age=60", true),
        ("untargeted", "Cache-Control: max-age=60|CDN-Cache-Control: no-store", false),
    ] {
        house.origin.say(name, Saying::new(fields, name));
        let target = format!("/say/{name}");
        assert_eq!(is_stored(&mut client, &target, ""), expected, "{fields}");
        assert_eq!(house.asked(&target), if expected { 1 } else { 2 }, "{fields}");
    }
    assert!(!is_stored(&mut client, "/status/404", ""), "an error that says nothing");
}

#[test]
fn the_key_is_host_path_and_query() {
    let house = House::one_core(&[]);
    house.origin.say("a", Saying::new("Cache-Control: max-age=60", "a"));
    let mut client = house.client();
    for target in ["/say/a", "/say/a?", "/say/a?b", "/say/a/", "/say/a/%41", "/say/a/A", "/say/a//"]
    {
        assert!(is_stored(&mut client, target, ""), "{target}");
    }
    let mut at = |target: &str, host: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        client.send(request.as_bytes()).expect("sent");
        is_hit(&client.response("GET").expect("an answer"))
    };
    assert!(at("/say/a", "TEST:80"), "the host in any letter case, without its default port");
    assert!(at("http://test/say/a", "test"), "absolute form");
    assert!(!at("/say/a", "other"));
    assert!(!at("/say/a", "test:8080"));
}

#[test]
fn static_files_without_a_word_are_fresh_for_a_minute() {
    let house = House::one_core(&[]);
    let mut client = house.client();
    house.origin.say("none", Saying::new("", "x"));
    for target in ["/say/none/a.css", "/say/none/a.js?v=1", "/say/none/a.b.WOFF2"] {
        assert!(is_stored(&mut client, target, ""), "{target}");
        let secs = ttl(&client.get(target)).expect("a ttl");
        assert!((30..=60).contains(&secs), "{target}: {secs}");
    }
    for target in ["/say/none/a.html", "/say/none/css", "/say/none?a.css"] {
        assert!(!is_stored(&mut client, target, ""), "{target}");
    }
    // The origin has the last word.
    for (name, fields) in [
        ("no-cache", "Cache-Control: no-cache"),
        ("no-store", "Cache-Control: no-store"),
        ("past", "Expires: 0"),
        ("cookie", "Set-Cookie: a=b"),
    ] {
        house.origin.say(name, Saying::new(fields, "x"));
        assert!(!is_stored(&mut client, &format!("/say/{name}/a.css"), ""), "{fields}");
    }
    house.origin.say("hour", Saying::new("Cache-Control: max-age=3600", "x"));
    client.get("/say/hour/a.css");
    assert!(ttl(&client.get("/say/hour/a.css")).is_some_and(|secs| secs > 3_000));

    let off = House::one_core(&["--static-ttl", "0s"]);
    off.origin.say("none", Saying::new("", "x"));
    assert!(!is_stored(&mut off.client(), "/say/none/a.css", ""));
}

#[test]
fn a_cookie_is_stored_where_the_mode_permits() {
    for (mode, fields, expected) in [
        ("safe", "Cache-Control: max-age=60|Set-Cookie: a=b", false),
        ("safe", "Cache-Control: public, max-age=60|Set-Cookie: a=b", true),
        ("safe", "Cache-Control: s-maxage=60|Set-Cookie: a=b", true),
        ("rfc", "Cache-Control: max-age=60|Set-Cookie: a=b", true),
        ("rfc", "Cache-Control: private, max-age=60|Set-Cookie: a=b", false),
    ] {
        let house = House::one_core(&["--cache-mode", mode]);
        house.origin.say("a", Saying::new(fields, "a"));
        assert_eq!(is_stored(&mut house.client(), "/say/a", ""), expected, "{mode}: {fields}");
    }
}

#[test]
fn an_answer_to_a_secret_is_not_for_others() {
    let house = House::one_core(&[]);
    let mut client = house.client();
    let secret = "Authorization: Basic eA==\r\n";
    house.origin.say("private", Saying::new("Cache-Control: max-age=60", "mine"));
    assert!(!is_stored(&mut client, "/say/private", secret));
    assert!(!is_hit(&ask(&mut client, "/say/private", "")));
    assert!(is_hit(&ask(&mut client, "/say/private", "")), "what anybody got is stored");
    for (name, said) in
        [("public", "public"), ("must", "must-revalidate"), ("shared", "s-maxage=60")]
    {
        house.origin.say(name, Saying::new(&format!("Cache-Control: max-age=60, {said}"), "ours"));
        let target = format!("/say/{name}");
        assert!(is_stored(&mut client, &target, secret), "{said}");
        assert!(is_hit(&ask(&mut client, &target, "")), "{said}");
    }
}

#[test]
fn each_variant_is_kept_beside_the_others() {
    let house = House::one_core(&[]);
    let mut client = house.client();
    let varied =
        |body: &str| Saying::new("Cache-Control: max-age=60|Vary: Accept-Language, X-Kind", body);
    for (body, fields) in [
        ("de", "Accept-Language: de\r\n"),
        ("en", "Accept-Language: en\r\n"),
        ("en 2", "Accept-Language: en\r\nX-Kind: 2\r\n"),
        ("none", ""),
    ] {
        house.origin.say("a", varied(body));
        let first = ask(&mut client, "/say/a", fields);
        assert_eq!((is_hit(&first), first.text().as_str()), (false, body));
    }
    house.origin.say("a", varied("unseen"));
    for (body, fields) in [
        ("en 2", "X-Kind: 2\r\nAccept-Language: en\r\n"),
        ("none", "X-Other: 1\r\n"),
        ("de", "Accept-Language:   de  \r\n"),
        ("en", "Accept-Language: EN\r\n"),
    ] {
        let hit = ask(&mut client, "/say/a", fields);
        assert_eq!((is_hit(&hit), hit.text().as_str()), (true, body), "{fields}");
    }
    let other = ask(&mut client, "/say/a", "Accept-Language: fr\r\n");
    assert_eq!(forwarded(&other), Some("vary-miss"), "{:?}", other.head);
    assert_eq!(house.asked("/say/a"), 5);
}

#[test]
fn what_a_client_asks_of_the_cache_counts() {
    let house = House::one_core(&[]);
    let mut client = house.client();
    house.origin.say("a", Saying::new("Cache-Control: max-age=60|ETag: \"a\"", "a"));
    let only = "Cache-Control: only-if-cached\r\n";
    let nothing = ask(&mut client, "/say/a", only);
    assert_eq!((nothing.status(), house.asked("/say/a")), (504, 0));
    client.get("/say/a");
    assert!(is_hit(&ask(&mut client, "/say/a", only)));
    assert!(!is_hit(&ask(&mut client, "/say/a", "Cache-Control: no-cache\r\n")));
    assert_eq!(house.asked_with("/say/a", "if-none-match").as_deref(), Some("\"a\""), "validated");
    assert!(!is_hit(&ask(&mut client, "/say/a", "Cache-Control: max-age=0\r\n")));
    assert!(!is_hit(&ask(&mut client, "/say/a", "Cache-Control: min-fresh=600\r\n")));
    assert!(is_hit(&ask(&mut client, "/say/a", "Cache-Control: max-age=30\r\n")));
    assert_eq!(house.asked("/say/a"), 4);
    house.origin.say("b", Saying::new("Cache-Control: max-age=60", "b"));
    assert!(!is_stored(&mut client, "/say/b", "Cache-Control: no-store\r\n"));
    assert!(is_stored(&mut client, "/say/b", ""));
    house.origin.say("c", Saying::new("Cache-Control: max-age=60|Age: 70|ETag: \"c\"", "c"));
    client.get("/say/c");
    assert!(is_hit(&ask(&mut client, "/say/c", "Cache-Control: max-stale=60\r\n")));
}

#[test]
fn a_change_ends_what_is_stored() {
    let house = House::one_core(&[]);
    let mut client = house.client();
    house.origin.say("a", Saying::new("Cache-Control: max-age=60|Vary: X-Kind", "a"));
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH"] {
        for kind in ["", "X-Kind: 1\r\n"] {
            ask(&mut client, "/say/a", kind);
            assert!(is_hit(&ask(&mut client, "/say/a", kind)), "{method}");
        }
        assert_eq!(client.ask(method, "/say/a", "", b"x").expect("an answer").status(), 200);
        for kind in ["", "X-Kind: 1\r\n"] {
            assert!(!is_hit(&ask(&mut client, "/say/a", kind)), "{method}: every variant");
        }
    }
    // What failed has changed nothing; OPTIONS changes nothing either.
    client.get("/say/a");
    assert!(client.ask("OPTIONS", "/say/a", "", b"").is_ok());
    assert!(is_hit(&client.get("/say/a")), "OPTIONS is safe");
    house.origin.say("b", Saying::new("Cache-Control: max-age=60", "b"));
    client.get("/say/b");
    house.origin.say("b", Saying::new("", "no").status(500));
    assert_eq!(client.ask("POST", "/say/b", "", b"x").expect("an answer").status(), 500);
    assert!(is_hit(&client.get("/say/b")), "a failed POST");
}

#[test]
fn a_change_speaks_for_the_places_it_names() {
    let house = House::one_core(&[]);
    let mut client = house.client();
    let fresh = || Saying::new("Cache-Control: max-age=60", "x");
    for name in ["here", "there", "kept"] {
        house.origin.say(name, fresh());
        assert!(is_stored(&mut client, &format!("/say/{name}"), ""));
    }
    let named = "Location: there|Content-Location: http://test/say/here|Link: <kept>";
    house.origin.say("change", Saying::new(named, "").status(201));
    assert_eq!(client.ask("POST", "/say/change", "", b"x").expect("an answer").status(), 201);
    assert!(!is_hit(&client.get("/say/here")));
    assert!(!is_hit(&client.get("/say/there")));
    assert!(is_hit(&client.get("/say/kept")));
    // Of another origin nothing is believed.
    house.origin.say("change", Saying::new("Location: http://other/say/kept", "").status(201));
    client.ask("POST", "/say/change", "", b"x").expect("an answer");
    assert!(is_hit(&client.get("/say/kept")));
}

#[test]
fn without_the_cache_nothing_is_stored() {
    for flags in [["--cache", "off"], ["--cache-capacity", "0"]] {
        let house = House::one_core(&flags);
        house.origin.say("a", Saying::new("Cache-Control: max-age=60", "a"));
        let mut client = house.client();
        for _ in 0..3 {
            let response = client.get("/say/a");
            assert_eq!((response.text().as_str(), response.head.count("cache-status")), ("a", 0));
        }
        assert_eq!(house.asked("/say/a"), 3, "{flags:?}");
    }
}

#[test]
fn the_entry_budget_holds() {
    let house = House::one_core(&["--cache-capacity", "10"]);
    house.origin.say("a", Saying::new("Cache-Control: max-age=60", "a"));
    let mut client = house.client();
    for n in 0..100 {
        client.get(&format!("/say/a/{n}"));
    }
    let kept = (0..100).filter(|n| {
        is_hit(&ask(&mut client, &format!("/say/a/{n}"), "Cache-Control: only-if-cached\r\n"))
    });
    assert!((1..=10).contains(&kept.count()));
}
