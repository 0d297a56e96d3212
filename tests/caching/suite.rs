//! The public suite's tests of other shapes: status codes, heuristics, validation, invalidation, ranges, stale.

use balancer::cache::{CacheMode, CacheSettings};

use super::toy::{Origin, Toy, says};

fn rfc() -> Toy {
    Toy::new(CacheSettings { mode: CacheMode::Rfc, ..CacheSettings::default() })
}

fn safe() -> Toy {
    Toy::new(CacheSettings::default())
}

/// Asks twice and tells whether the second answer came from store.
fn is_reused(toy: &mut Toy, target: &str, status: u16, fields: &str, pause_ms: u64) -> bool {
    let origin = Origin::Says { status, fields, body: "b" };
    toy.ask("GET", target, "", &origin);
    toy.now_ms += pause_ms;
    toy.ask("GET", target, "", &origin).forwarded.is_none()
}

#[test]
fn status_codes() {
    for status in
        [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599]
    {
        let fresh = "Expires: {100000}|Last-Modified: {0}|Date: {0}";
        assert!(is_reused(&mut safe(), "/", status, fresh, 0), "status-{status}-fresh");
        let stale = "Expires: {-5000}|Last-Modified: {-100000}|Date: {0}";
        assert!(!is_reused(&mut safe(), "/", status, stale, 0), "status-{status}-stale");
    }
    let must = "Cache-Control: max-age=3600, must-understand";
    assert!(!is_reused(&mut rfc(), "/", 599, must, 0), "status-599-must-understand");
    // RFC 9111 §5.2.2.3
    let both = "Cache-Control: max-age=3600, no-store, must-understand";
    assert!(is_reused(&mut rfc(), "/", 200, both, 0));
    assert!(!is_reused(&mut rfc(), "/", 599, both, 0));
    // RFC 9111 §3: partial and conditional answers belong to their request
    for status in [206, 304, 412, 416] {
        assert!(!is_reused(&mut rfc(), "/", status, "Cache-Control: max-age=9", 0), "{status}");
    }
}

#[test]
fn heuristics() {
    let day = "Last-Modified: {-86400}|Date: {0}";
    for status in [200, 203, 204, 404, 405, 410, 414, 501, 300, 301, 308] {
        assert!(is_reused(&mut safe(), "/", status, day, 0), "heuristic-{status}-cached");
    }
    for status in [201, 202, 302, 307, 403, 502, 503, 504, 599] {
        assert!(!is_reused(&mut rfc(), "/", status, day, 0), "heuristic-{status}-not_cached");
    }
    let public = format!("{day}|Cache-Control: public");
    assert!(is_reused(&mut safe(), "/", 599, &public, 0), "heuristic-599-cached");
    // A tenth of the time unchanged (RFC 9111 §4.2.2), not longer than the cap
    assert!(is_reused(&mut safe(), "/", 200, "Last-Modified: {-100}|Date: {0}", 9_999));
    assert!(!is_reused(&mut safe(), "/", 200, "Last-Modified: {-100}|Date: {0}", 10_000));
    let old = "Last-Modified: {-86400000}|Date: {0}";
    assert!(is_reused(&mut safe(), "/", 200, old, 86_399_000));
    assert!(!is_reused(&mut safe(), "/", 200, old, 86_400_000));
    let mut off = safe();
    off.settings.heuristic_max = None;
    assert!(!is_reused(&mut off, "/", 200, day, 0));
}

#[test]
fn static_files_without_a_word() {
    for (target, fields, pause_ms, expected) in [
        ("/a/b.css", "", 59_999, true),
        ("/a/b.css", "", 60_000, false),
        ("/b.min.JS?v=1", "", 1, true),
        ("/b.woff2", "ETag: \"a\"", 1, true),
        ("/b.png", "Last-Modified: {-86400}|Date: {0}", 60_000, false),
        // Anything the origin says counts
        ("/b.css", "Cache-Control: no-cache", 1, false),
        ("/b.css", "Cache-Control:", 1, false),
        ("/b.css", "Expires: 0", 1, false),
        ("/b.css", "CDN-Cache-Control: foo", 1, false),
        ("/b.css", "Set-Cookie: a=b", 1, false),
        ("/b", "", 1, false),
        ("/b.html", "", 1, false),
        ("/css", "", 1, false),
        ("/b.css/c", "", 1, false),
        ("/b?c=d.css", "", 1, false),
        ("/b.", "", 1, false),
    ] {
        assert_eq!(
            is_reused(&mut safe(), target, 200, fields, pause_ms),
            expected,
            "{target} {fields}"
        );
    }
    assert!(!is_reused(&mut safe(), "/b.css", 404, "", 1));
    assert!(!is_reused(&mut rfc(), "/b.css", 200, "Set-Cookie: a=b", 1));
    let mut off = safe();
    off.settings.static_ttl = std::time::Duration::ZERO;
    assert!(!is_reused(&mut off, "/b.css", 200, "", 1));
}

#[test]
fn stale() {
    let gone = Origin::Gone;
    let unavailable = Origin::Says { status: 503, fields: "", body: "no" };
    for (id, said, origin, expected) in [
        ("stale-close", "max-age=2", &gone, 200),
        ("stale-503", "max-age=2", &unavailable, 200),
        ("stale-sie-close", "max-age=2, stale-if-error=60", &gone, 200),
        ("stale-close-must-revalidate", "max-age=2, must-revalidate", &gone, 502),
        ("stale-close-proxy-revalidate", "max-age=2, proxy-revalidate", &gone, 502),
        ("stale-close-no-cache", "max-age=2, no-cache", &gone, 502),
        ("stale-close-s-maxage=2", "max-age=2, s-maxage=2", &gone, 502),
        ("must-revalidate, 503", "max-age=2, must-revalidate", &unavailable, 503),
        ("the origin wants none", "max-age=2, stale-if-error=0", &gone, 502),
        // RFC 9111 §5.2.2.2 before RFC 5861
        ("both", "max-age=2, must-revalidate, stale-if-error=60", &gone, 502),
    ] {
        for mut toy in [safe(), rfc()] {
            let fields = format!("Cache-Control: {said}|Template-A: 1");
            toy.ask("GET", "/", "", &says(&fields));
            toy.now_ms += 3000;
            let outcome = toy.ask("GET", "/", "", origin);
            assert_eq!(outcome.status(), expected, "{id}: {outcome:?}");
        }
    }
    // The default ends
    let mut toy = safe();
    toy.ask("GET", "/", "", &says("Cache-Control: max-age=2"));
    toy.now_ms += 62_000;
    assert_eq!(toy.ask("GET", "/", "", &gone).status(), 502);
    // Next to s-maxage only where the operator lets practice count
    for (mut toy, expected) in [(safe(), 200), (rfc(), 502)] {
        toy.ask("GET", "/", "", &says("Cache-Control: s-maxage=2, stale-if-error=9"));
        toy.now_ms += 3000;
        assert_eq!(toy.ask("GET", "/", "", &gone).status(), expected);
    }
}

#[test]
fn stale_while_revalidate() {
    let mut toy = rfc();
    let said = "Cache-Control: max-age=1, stale-while-revalidate=4|ETag: \"abc\"";
    toy.ask("GET", "/", "", &says(said));
    toy.now_ms += 3000;
    // stale-while-revalidate: served, and the background request replaces what is stored
    let second = toy.ask("GET", "/", "", &says("Cache-Control: no-cache|ETag: \"def\""));
    assert!(second.forwarded.is_none() && second.revalidates);
    assert_eq!(second.value("etag"), Some("\"abc\""));
    toy.now_ms += 3000;
    // stale-while-revalidate-window
    let third = toy.ask("GET", "/", "", &says("ETag: \"ghi\""));
    assert!(third.forwarded.is_some_and(|head| head.contains("If-None-Match: \"def\"\r\n")));

    let mut toy = rfc();
    toy.ask("GET", "/", "", &says(said));
    toy.now_ms += 5000;
    assert!(!toy.ask("GET", "/", "", &says(said)).revalidates, "past the window");
    let mut toy = rfc();
    toy.ask("GET", "/", "", &says(said));
    toy.now_ms += 3000;
    let asks = "Cache-Control: max-age=60";
    assert!(!toy.ask("GET", "/", asks, &says(said)).revalidates, "the client wants no stale one");
}

#[test]
fn validation() {
    for (id, first, conditions) in [
        (
            "conditional-etag-strong-generate",
            "Expires: {1}|ETag: \"abcdef\"|Date: {0}",
            "If-None-Match: \"abcdef\"\r\n",
        ),
        (
            "conditional-etag-weak-generate-weak",
            "Expires: {1}|ETag: W/\"abcdef\"|Date: {0}",
            "If-None-Match: W/\"abcdef\"\r\n",
        ),
        (
            "lm_validated",
            "Cache-Control: max-age=2|Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT|Date: {0}",
            "If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT\r\n",
        ),
        (
            "cc-resp-no-cache-revalidate",
            "Cache-Control: no-cache|ETag: \"abcd\"",
            "If-None-Match: \"abcd\"\r\n",
        ),
        (
            "cc-resp-no-cache-revalidate-fresh",
            "Cache-Control: max-age=10000, no-cache|Expires: {10000}|Date: {0}|ETag: \"abcd\"",
            "If-None-Match: \"abcd\"\r\n",
        ),
        (
            "cc-resp-must-revalidate-stale",
            "Cache-Control: max-age=2, must-revalidate|ETag: \"abcd\"",
            "If-None-Match: \"abcd\"\r\n",
        ),
        (
            "both validators",
            "Cache-Control: no-cache|ETag: \"a\"|Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT",
            "If-None-Match: \"a\"\r\nIf-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT\r\n",
        ),
        // A date that is none is no validator, and a tag must not turn into a list
        (
            "no validator",
            "Cache-Control: max-age=2, stale-if-error=9|Last-Modified: never|ETag: a, b",
            "",
        ),
    ] {
        let mut toy = safe();
        toy.ask("GET", "/", "Abc: 123", &says(&format!("{first}|Vary: Abc|Test-Header: a")));
        toy.now_ms += 3000;
        let origin = Origin::Says { status: 304, fields: "Date: {0}", body: "" };
        // The client's own conditions are not the origin's concern now
        let asks = "Abc: 123|If-None-Match: \"other\"|Range: bytes=0-1";
        let second = toy.ask("GET", "/", asks, &origin);
        let forwarded = second.forwarded.as_deref().unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\nAbc: 123\r\n{conditions}Via:");
        assert!(forwarded.starts_with(&head), "{id}: {forwarded}");
        // 304-lm-use-stored-Test-Header
        assert_eq!((second.status(), second.value("test-header")), (206, Some("a")), "{id}");
        assert_eq!(second.value("age"), Some("0"), "{id}: valid as of now");
    }
}

#[test]
fn a_304_updates_the_stored_head() {
    // RFC 9111 §3.2; update304
    for (name, first, second, expected) in [
        ("Test-Header", "a", "b", "b"),
        ("X-Test-Header", "a", "b", "b"),
        ("Content-Foo", "a", "b", "b"),
        ("Content-Location", "/foo", "/bar", "/bar"),
        ("Content-MD5", "a", "b", "b"),
        ("Content-Security-Policy", "a", "b", "b"),
        ("Content-Type", "text/plain", "text/plain;charset=utf-8", "text/plain;charset=utf-8"),
        (
            "Expires",
            "Fri, 01 Jan 2038 01:01:01 GMT",
            "Mon, 11 Jan 2038 11:11:11 GMT",
            "Mon, 11 Jan 2038 11:11:11 GMT",
        ),
        ("Set-Cookie2", "a=b", "a=c", "a=c"),
        ("Content-Encoding", "a", "b", "a"),
        ("Content-Range", "a", "b", "a"),
        ("Content-Length", "11", "10", "11"),
    ] {
        let mut toy = safe();
        toy.ask(
            "GET",
            "/",
            "",
            &says(&format!("Date: {{0}}|{name}: {first}|Cache-Control: max-age=2|ETag: \"e\"")),
        );
        toy.now_ms += 3000;
        let fields = format!("Date: {{0}}|{name}: {second}|Cache-Control: max-age=2|ETag: \"e\"");
        let origin = Origin::Says { status: 304, fields: &fields, body: "" };
        let outcome = toy.ask("GET", "/", "", &origin);
        assert!(outcome.forwarded.is_some());
        assert_eq!((outcome.status(), outcome.value(name)), (200, Some(expected)), "{name}");
        let third = toy.ask("GET", "/", "", &Origin::Gone);
        assert_eq!(third.value(name), Some(expected), "{name}");
        assert_eq!(third.head.matches("\r\nDate: ").count(), 1);
    }
    // 304-etag-update-response-Cache-Control
    let mut toy = safe();
    toy.ask("GET", "/", "", &says("Cache-Control: max-age=1|ETag: \"e\""));
    toy.now_ms += 3000;
    let fields = "Cache-Control: max-age=3600|ETag: \"e\"";
    toy.ask("GET", "/", "", &Origin::Says { status: 304, fields, body: "" });
    toy.now_ms += 3_599_000;
    let third = toy.ask("GET", "/", "", &Origin::Gone);
    assert_eq!((third.forwarded.as_deref(), third.value("age")), (None, Some("3599")));
    // RFC 9111 §4.3.4: a strong tag of something else updates nothing
    let mut toy = safe();
    toy.ask("GET", "/", "", &says("Cache-Control: max-age=1|ETag: \"e\""));
    toy.now_ms += 3000;
    let other = Origin::Says { status: 304, fields: "ETag: \"f\"", body: "" };
    assert_eq!(toy.ask("GET", "/", "", &other).status(), 304);
    // and one that forbids storing serves this once
    toy.ask("GET", "/", "", &says("Cache-Control: no-cache|ETag: \"e\""));
    let forbids = Origin::Says { status: 304, fields: "Cache-Control: no-store", body: "" };
    assert_eq!(toy.ask("GET", "/", "", &forbids).status(), 200);
    let next = toy.ask("GET", "/", "", &says("")).forwarded.unwrap();
    assert!(!next.contains("If-None-Match"), "{next}");
}

#[test]
fn head_requests() {
    let mut toy = safe();
    toy.ask("GET", "/", "", &says("Cache-Control: max-age=2|Template-A: 1"));
    let hit = toy.ask("HEAD", "/", "", &Origin::Gone);
    assert_eq!((hit.body.as_str(), hit.value("content-length")), ("", Some("11")));
    toy.now_ms += 3000;
    // head-writethrough, head-200-freshness-update, head-200-update
    let fields = "Template-A: 2|Cache-Control: max-age=1000";
    let second = toy.ask("HEAD", "/", "", &says(fields));
    assert!(second.forwarded.unwrap().starts_with("HEAD / HTTP/1.1\r\n"));
    let third = toy.ask("GET", "/", "", &Origin::Gone);
    assert_eq!((third.body.as_str(), third.value("template-a")), ("0123456789A", Some("2")));
    // RFC 9111 §4.3.5: another validator makes the stored one stale
    let mut toy = safe();
    toy.ask("GET", "/", "", &says("Cache-Control: max-age=2|ETag: \"a\""));
    toy.now_ms += 3000;
    toy.ask("HEAD", "/", "", &says("Cache-Control: max-age=1000|ETag: \"b\""));
    assert_eq!(toy.ask("GET", "/", "", &Origin::Gone).status(), 502);
    // Its own response is never stored
    let mut toy = rfc();
    toy.ask("HEAD", "/", "", &says("Cache-Control: max-age=9"));
    assert!(toy.ask("GET", "/", "", &says("")).forwarded.is_some());
}

#[test]
fn invalidation() {
    let fresh = "Cache-Control: max-age=100000|Last-Modified: {0}|Date: {0}";
    for method in ["POST", "PUT", "DELETE", "M-SEARCH", "PATCH"] {
        for (target, status, fields, expected) in [
            ("/t/a", 200, "", true),
            ("/t/a", 302, "", true),
            ("/t/a", 500, "", false),
            ("/t/a", 404, "", false),
            ("/t/b", 200, "Location: a", true),
            ("/t/b", 200, "Content-Location: a", true),
            ("/t/b", 200, "Location: /t/a", true),
            ("/t/b", 201, "Location: http://H:80/t/./x/../a#f", true),
            ("/t/b", 200, "Location: http://other/t/a", false),
            ("/t/b", 500, "Location: /t/a", false),
            ("/t/b", 200, "", false),
        ] {
            let mut toy = safe();
            toy.ask("GET", "/t/a", "", &says(fresh));
            toy.ask(method, target, "", &Origin::Says { status, fields, body: "" });
            let is_gone = toy.ask("GET", "/t/a", "", &says(fresh)).forwarded.is_some();
            assert_eq!(is_gone, expected, "{method} {target} {status} {fields}");
        }
    }
    for method in ["OPTIONS", "TRACE", "HEAD"] {
        let mut toy = safe();
        toy.ask("GET", "/", "", &says(fresh));
        toy.ask(method, "/", "", &says(fresh));
        assert!(toy.ask("GET", "/", "", &Origin::Gone).forwarded.is_none(), "{method}");
    }
}

#[test]
fn a_post_that_stands_for_its_target() {
    // method-POST; RFC 9110 §9.3.3
    for (fields, expected) in [
        ("Expires: {2592000}|Content-Location: /t|Date: {0}", true),
        ("Expires: {2592000}|Content-Location: http://h/t|Date: {0}", true),
        ("Expires: {2592000}|Content-Location: /u|Date: {0}", false),
        ("Expires: {2592000}|Date: {0}", false),
        ("Content-Location: /t|Last-Modified: {-86400}|Date: {0}", false),
    ] {
        for (mut toy, is_rfc) in [(rfc(), true), (safe(), false)] {
            toy.ask("POST", "/t", "", &says(fields));
            let is_reused = toy.ask("GET", "/t", "", &says("")).forwarded.is_none();
            assert_eq!(is_reused, expected && is_rfc, "{fields}");
        }
    }
}

#[test]
fn queries_and_variants() {
    let mut toy = safe();
    let fresh = "Cache-Control: max-age=9";
    toy.ask("GET", "/?test=1", "", &says(fresh));
    assert!(toy.ask("GET", "/?test=2", "", &says(fresh)).forwarded.is_some());
    assert!(toy.ask("GET", "/?test=1", "", &says(fresh)).forwarded.is_none());
    // vary-invalidate: two variants live side by side
    let said = "Cache-Control: max-age=5000|Vary: Foo";
    toy.ask("GET", "/v", "Foo: 1", &Origin::Says { status: 200, fields: said, body: "one" });
    toy.ask("GET", "/v", "Foo: 2", &Origin::Says { status: 200, fields: said, body: "two" });
    let first = toy.ask("GET", "/v", "Foo: 1", &Origin::Gone);
    assert_eq!((first.body.as_str(), first.forwarded), ("one", None));
    assert_eq!(toy.ask("GET", "/v", "Foo: 2", &Origin::Gone).body, "two");
}
