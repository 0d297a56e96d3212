//! What of a stored response a client gets: preconditions and ranges (RFC 9110 §13, §14, RFC 9111 §4.3.2).

use balancer::cache::CacheSettings;

use super::START_MS;
use super::toy::{Origin, Toy, says};

/// Status and body of the second request, from a stored response with these fields and eleven bytes.
fn gets(stored: &str, method: &str, asks: &str) -> (u16, String) {
    let mut toy = Toy::new(CacheSettings::default());
    toy.ask("GET", "/", "", &says(&format!("Cache-Control: max-age=100000|{stored}")));
    toy.now_ms += 3000;
    // What is told relative to now in the suite is so relative to the first request.
    let outcome = toy.ask(method, "/", &super::dated(asks, START_MS), &Origin::Gone);
    assert_eq!(outcome.forwarded, None);
    (outcome.status(), outcome.body)
}

#[test]
fn if_none_match() {
    let tag = |tag: &str| format!("Date: {{0}}|Last-Modified: {{-5000}}|ETag: {tag}");
    for (stored, asks, expected) in [
        // conditional-etag-strong-respond, -weak-respond, -multiple-*
        ("\"abcdef\"", "If-None-Match: \"abcdef\"", 304),
        ("W/\"abcdef\"", "If-None-Match: W/\"abcdef\"", 304),
        ("\"abcdef\"", "If-None-Match: \"abcdef\", \"1234\", \"5678\"", 304),
        ("\"abcdef\"", "If-None-Match: \"1234\", \"abcdef\", \"5678\"", 304),
        ("\"abcdef\"", "If-None-Match: \"1234\" ,\t\"5678\",\"abcdef\"", 304),
        ("\"abcdef\"", "If-None-Match: \"1234\"|If-None-Match: \"abcdef\"", 304),
        // conditional-etag-precedence: If-Modified-Since does not count beside it, either way
        ("\"abcdef\"", "If-None-Match: \"abcdef\"|If-Modified-Since: {-9000}", 304),
        ("\"abcdef\"", "If-None-Match: \"other\"|If-Modified-Since: {-1}", 200),
        // conditional-etag-strong-respond-obs-text
        ("\"abcdef\u{fc}\"", "If-None-Match: \"abcdef\u{fc}\"", 304),
        // RFC 9110 §8.8.3.2: weak comparison
        ("W/\"a\"", "If-None-Match: \"a\"", 304),
        ("\"a\"", "If-None-Match: W/\"a\"", 304),
        ("\"a\"", "If-None-Match: *", 304),
        ("\"a\"", "If-None-Match: \"A\"", 200),
        ("\"a\"", "If-None-Match: \"aa\"", 200),
        ("\"a\"", "If-None-Match:", 200),
        ("\"a,b\"", "If-None-Match: \"a,b\"", 304),
        ("\"b\"", "If-None-Match: \"a,\"b\",c\"", 200),
        ("abcdef", "If-None-Match: abcdef", 304),
        ("w/\"abcdef\"", "If-None-Match: w/\"abcdef\"", 304),
    ] {
        assert_eq!(gets(&tag(stored), "GET", asks).0, expected, "{stored} {asks}");
        assert_eq!(gets(&tag(stored), "HEAD", asks).0, expected, "HEAD {stored} {asks}");
    }
    assert_eq!(gets("", "GET", "If-None-Match: \"a\"").0, 200);
    assert_eq!(gets("", "GET", "If-None-Match: *").0, 304);
}

#[test]
fn if_modified_since() {
    for (stored, asks, expected) in [
        // conditional-lm-fresh, -earlier, -no-lm, -rfc850
        ("Last-Modified: {-3000}|Date: {0}", "If-Modified-Since: {-3000}", 304),
        ("Last-Modified: {-3000}|Date: {0}", "If-Modified-Since: {-2000}", 304),
        ("Last-Modified: {-3000}|Date: {0}", "If-Modified-Since: {-3001}", 200),
        ("Date: {-5000}", "If-Modified-Since: {-3000}", 304),
        ("Date: {0}", "If-Modified-Since: {-3000}", 200),
        (
            "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT",
            "If-Modified-Since: Wednesday, 01-Jan-20 00:00:00 GMT",
            304,
        ),
        ("Last-Modified: {-3000}", "If-Modified-Since: yesterday", 200),
        ("Last-Modified: {-3000}", "If-Modified-Since: {0}|If-Modified-Since: {0}", 200),
    ] {
        assert_eq!(gets(stored, "GET", asks).0, expected, "{stored} {asks}");
    }
    // conditional-lm-stale: evaluated after the validation
    let mut toy = Toy::new(CacheSettings::default());
    let lm = "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT";
    toy.ask("GET", "/", "", &says(&format!("Cache-Control: max-age=2|{lm}|Date: {{0}}")));
    toy.now_ms += 3000;
    let asks = "If-Modified-Since: Wed, 01 Jan 2020 00:00:00 GMT";
    let outcome = toy.ask("GET", "/", asks, &Origin::Says { status: 304, fields: lm, body: "" });
    assert_eq!((outcome.status(), outcome.forwarded.is_some()), (304, true));
    // RFC 9110 §13.2.1: a stored 404 meets no condition
    let mut toy = Toy::new(CacheSettings::default());
    let fields = "Cache-Control: max-age=2|ETag: \"a\"";
    toy.ask("GET", "/", "", &Origin::Says { status: 404, fields, body: "b" });
    assert_eq!(toy.ask("GET", "/", "If-None-Match: \"a\"", &Origin::Gone).status(), 404);
}

#[test]
fn ranges() {
    for (asks, status, body) in [
        // partial-store-complete-reuse-partial, -no-last, -suffix
        ("bytes=0-1", 206, "01"),
        ("bytes=1-", 206, "123456789A"),
        ("bytes=-1", 206, "A"),
        // RFC 9110 §14.1.2
        ("bytes=10-10", 206, "A"),
        ("bytes=0-10", 206, "0123456789A"),
        ("bytes=5-99", 206, "56789A"),
        ("bytes=5-99999999999999999999999999", 206, "56789A"),
        ("bytes=-99", 206, "0123456789A"),
        ("BYTES= 2-3", 206, "23"),
        ("bytes=11-", 416, ""),
        ("bytes=11-12", 416, ""),
        ("bytes=99999999999999999999999999-", 416, ""),
        ("bytes=-0", 416, ""),
        // No range of bytes, or several: the whole
        ("bytes=0-1,3-4", 200, "0123456789A"),
        ("bytes=4-3", 200, "0123456789A"),
        ("bytes=-", 200, "0123456789A"),
        ("bytes=a-b", 200, "0123456789A"),
        ("bytes=1", 200, "0123456789A"),
        ("bytes=+1-2", 200, "0123456789A"),
        ("bytes", 200, "0123456789A"),
        ("lines=0-1", 200, "0123456789A"),
        ("", 200, "0123456789A"),
    ] {
        let outcome = gets("", "GET", &format!("Range: {asks}"));
        assert_eq!(outcome, (status, body.to_owned()), "{asks}");
        // RFC 9110 §14.2: defined for GET only
        assert_eq!(gets("", "HEAD", &format!("Range: {asks}")).0, 200, "HEAD {asks}");
    }
    assert_eq!(gets("", "GET", "Range: bytes=0-1|Range: bytes=0-1").0, 200);
    // Of nothing nothing can be asked but its end
    let mut toy = Toy::new(CacheSettings::default());
    let fields = "Cache-Control: max-age=2";
    toy.ask("GET", "/", "", &Origin::Says { status: 200, fields, body: "" });
    assert_eq!(toy.ask("GET", "/", "Range: bytes=-5", &Origin::Gone).status(), 200);
    assert_eq!(toy.ask("GET", "/", "Range: bytes=0-", &Origin::Gone).status(), 416);
    // RFC 9110 §13.2.2: the precondition first
    assert_eq!(gets("ETag: \"a\"", "GET", "Range: bytes=0-1|If-None-Match: \"a\"").0, 304);
}

#[test]
fn if_range() {
    let stored = |tag: &str| format!("ETag: {tag}|Date: {{0}}|Last-Modified: {{-3000}}");
    for (tag, condition, expected) in [
        // RFC 9110 §13.1.5: strong only
        ("\"a\"", "\"a\"", 206),
        ("\"a\"", "\"b\"", 200),
        ("W/\"a\"", "W/\"a\"", 200),
        ("W/\"a\"", "\"a\"", 200),
        ("\"a\"", "W/\"a\"", 200),
        ("\"a\"", "{-3000}", 206),
        ("\"a\"", "{-2999}", 200),
        ("\"a\"", "{-3001}", 200),
        ("\"a\"", "never", 200),
        ("\"a\"", "", 200),
    ] {
        let asks = format!("Range: bytes=0-1|If-Range: {condition}");
        assert_eq!(gets(&stored(tag), "GET", &asks).0, expected, "{tag} {condition}");
    }
    // §8.8.2.2: a date as young as the response may hide a second change
    let young = "Date: {0}|Last-Modified: {0}";
    assert_eq!(gets(young, "GET", "Range: bytes=0-1|If-Range: {0}").0, 200);
    let twice = "Range: bytes=0-1|If-Range: \"a\"|If-Range: \"a\"";
    assert_eq!(gets(&stored("\"a\""), "GET", twice).0, 200);
    // Without a Range it means nothing
    assert_eq!(gets(&stored("\"a\""), "GET", "If-Range: \"b\"").0, 200);
}
