//! Keys, the keys a response invalidates, and what the cache has to do with a request at all.

use balancer::cache::{Bypass, CacheSettings, Plan, key};
use balancer::http::framing;
use balancer::http::{PeerTrust, RequestHead};

use super::{request, response};

fn key_of(line: &str, fields: &str, trust: PeerTrust) -> String {
    let lines = fields.replace('|', "\r\n");
    let text = format!("{line} HTTP/1.1\r\n{lines}\r\n\r\n");
    let mut head = RequestHead::default();
    head.parse(text.as_bytes()).unwrap();
    let mut out = Vec::new();
    key::write(&mut out, &head, text.as_bytes(), trust);
    String::from_utf8(out).unwrap()
}

#[test]
fn keys() {
    for (line, fields, expected) in [
        ("GET /a?b=%20C", "Host: h", "http://h/a?b=%20C"),
        ("HEAD /a", "Host: h", "http://h/a"),
        ("GET /", "Host: WWW.Example:80", "http://www.example/"),
        ("GET /", "Host: h:", "http://h/"),
        ("GET /", "Host: h:0080", "http://h/"),
        ("GET /", "Host: h:8080", "http://h:8080/"),
        ("GET /", "Host: [::1]", "http://[::1]/"),
        ("GET /", "Host: [::1]:80", "http://[::1]/"),
        ("GET /a/../b//", "Host: h", "http://h/a/../b//"),
        ("GET http://T?q", "Host: h", "http://t/?q"),
        ("GET http://T", "Host: h", "http://t/"),
        ("GET /", "Host: h|X-Forwarded-Proto: https|X-Forwarded-Host: x", "http://h/"),
    ] {
        assert_eq!(key_of(line, fields, PeerTrust::Unknown), expected, "{line} {fields}");
    }
    // What a trusted peer says goes on to the origin, so two that differ in it are two
    let trusted = |fields: &str| key_of("GET /", fields, PeerTrust::Trusted);
    assert_eq!(trusted("Host: h:443|X-Forwarded-Proto: HTTPS"), "https://h/");
    assert_eq!(trusted("Host: h|X-Forwarded-Proto: http"), "http://h/");
    assert_eq!(trusted("Host: h|X-Forwarded-Host: X"), "http://h/\nx");
}

fn invalid(target: &str, fields: &str) -> Vec<String> {
    let (head, _, text) = request("POST", target, "");
    let (answer, answer_text) = response(201, fields);
    let mut keys = Vec::new();
    key::each_invalid(
        &head,
        text.as_bytes(),
        &answer,
        answer_text.as_bytes(),
        PeerTrust::Unknown,
        &mut Vec::new(),
        |key| keys.push(String::from_utf8(key.to_vec()).unwrap()),
    );
    assert_eq!(keys.remove(0), format!("http://h{target}"));
    keys
}

#[test]
fn references() {
    // RFC 3986 §5.4, with http://h/b/c/d?q for its base
    for (reference, expected) in [
        ("g", "/b/c/g"),
        ("./g", "/b/c/g"),
        ("g/", "/b/c/g/"),
        ("/g", "/g"),
        ("//h/g", "/g"),
        ("//h", "/"),
        ("//h?y", "/?y"),
        ("http://H:80/g", "/g"),
        ("HTTP://h/g", "/g"),
        ("?y", "/b/c/d?y"),
        ("g?y", "/b/c/g?y"),
        ("g?y/./x", "/b/c/g?y/./x"),
        ("g#s", "/b/c/g"),
        ("g?y#s", "/b/c/g?y"),
        ("#s", "/b/c/d?q"),
        ("", "/b/c/d?q"),
        (".", "/b/c/"),
        ("./", "/b/c/"),
        ("..", "/b/"),
        ("../", "/b/"),
        ("../g", "/b/g"),
        ("../..", "/"),
        ("../../g", "/g"),
        ("../../../g", "/g"),
        ("/./g", "/g"),
        ("/../g", "/g"),
        ("g.", "/b/c/g."),
        ("..g", "/b/c/..g"),
        ("./g/.", "/b/c/g/"),
        ("g/./h", "/b/c/g/h"),
        ("g/../h", "/b/c/h"),
        ("g?a:b", "/b/c/g?a:b"),
        ("./a:b", "/b/c/a:b"),
    ] {
        let expected = format!("http://h{expected}");
        assert_eq!(
            invalid("/b/c/d?q", &format!("Location: {reference}")),
            [expected],
            "{reference}"
        );
    }
    // RFC 9111 §4.4: the same origin only
    for reference in ["http://o/g", "//o/g", "https://h/g", "http://h:81/g", "mailto:a@h", "http:g"]
    {
        assert!(invalid("/b", &format!("Location: {reference}")).is_empty(), "{reference}");
    }
    let both = invalid("/b/c", "Content-Location: x|Location: /y");
    assert_eq!(both, ["http://h/y", "http://h/b/x"]);
}

#[test]
fn plans() {
    let settings = CacheSettings::default();
    let plan = |method: &str, fields: &str| {
        let target = if method == "OPTIONS" { "*" } else { "/" };
        let (head, framing, text) = request(method, target, fields);
        Plan::of_request(&head, text.as_bytes(), &framing, &settings)
    };
    let upgrade = "Connection: upgrade|Upgrade: websocket";
    for (method, fields, expected) in [
        ("OPTIONS", "", Plan::Bypass(Bypass::Method)),
        ("TRACE", "", Plan::Bypass(Bypass::Method)),
        ("POST", "", Plan::Invalidate),
        ("PUT", "", Plan::Invalidate),
        ("DELETE", "", Plan::Invalidate),
        ("PATCH", "", Plan::Invalidate),
        ("M-SEARCH", "", Plan::Invalidate),
        ("get", "", Plan::Invalidate),
        ("GET", "Content-Length: 1", Plan::Bypass(Bypass::Body)),
        ("GET", "Transfer-Encoding: chunked", Plan::Bypass(Bypass::Body)),
        ("GET", upgrade, Plan::Bypass(Bypass::Upgrade)),
        ("GET", "If-Match: *", Plan::Bypass(Bypass::Precondition)),
        ("GET", "If-Unmodified-Since: x", Plan::Bypass(Bypass::Precondition)),
        ("GET", "Cache-Control: no-store", Plan::Bypass(Bypass::NoStore)),
    ] {
        assert_eq!(plan(method, fields), expected, "{method} {fields}");
    }
    let lookup = |method, fields| match plan(method, fields) {
        Plan::Lookup(lookup) => lookup,
        other => panic!("{method} {fields}: {other:?}"),
    };
    let plain = lookup("GET", "Content-Length: 0");
    assert!(plain.may_store && !plain.is_head && !plain.has_range && !plain.has_conditions);
    let full = lookup("GET", "Range: bytes=0-|If-None-Match: *|Authorization: a");
    assert!(full.may_store && full.has_range && full.has_conditions && full.has_authorization);
    let head = lookup("HEAD", "Range: bytes=0-");
    assert!(head.is_head && !head.may_store && !head.has_range);
    assert!(lookup("GET", "Cache-Control: only-if-cached").asked.only_if_cached);

    // A site that does not let clients bust its cache does not let them fill it against their word, either
    let (busting, framing, text) = request("GET", "/", "Cache-Control: no-store, no-cache");
    let deaf = CacheSettings { honours_requests: false, ..settings };
    let Plan::Lookup(lookup) = Plan::of_request(&busting, text.as_bytes(), &framing, &deaf) else {
        panic!("a lookup");
    };
    assert!(!lookup.may_store && !lookup.asked.no_cache && !lookup.asked.no_store);

    let text = b"GET / HTTP/1.0\r\n\r\n";
    let mut head = RequestHead::default();
    head.parse(text).unwrap();
    let framing = framing::of_request(&head, text).unwrap();
    let plan = Plan::of_request(&head, text, &framing, &settings);
    assert_eq!(plan, Plan::Bypass(Bypass::NoHost));
}

#[test]
fn an_operators_url_names_the_key_of_its_request() {
    for (url, key) in [
        ("http://H.example/a?b", Some("http://h.example/a?b")),
        ("HTTP://h:80", Some("http://h/")),
        ("http://h:8080?q#f", Some("http://h:8080/?q")),
        ("https://h:443/", Some("https://h/")),
        ("http://h/%2e/../x", Some("http://h/%2e/../x")),
        ("ftp://h/", None),
        ("h/a", None),
        ("http:///a", None),
        ("http://h/a b", None),
        ("", None),
    ] {
        let got = balancer::cache::key::of_url(url.as_bytes());
        assert_eq!(got.as_deref(), key.map(str::as_bytes), "{url}");
    }
}
