//! The heads we keep and the heads we serve, byte for byte.

use balancer::cache::{
    CacheSettings, CacheStatus, Policy, Serve, ServedWith, Storability, StoredHead, Times, policy,
    served, stored,
};
use balancer::http::{Framing, PeerTrust};
use balancer::time::WallTime;

use super::toy::{Origin, Toy, says};
use super::{START_MS, date, get, response};

const DATE: &str = "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n";

fn stored_head(status: u16, fields: &str) -> String {
    let (head, text) = response(status, fields);
    let mut out = Vec::new();
    stored::write(&mut out, &head, text.as_bytes(), &date(START_MS));
    String::from_utf8(out).unwrap()
}

#[test]
fn what_is_kept() {
    // RFC 9111 §3.1; headers-store-*
    for (fields, expected) in [
        (
            "A:1|a:  2 |Set-Cookie: a|Set-Cookie: b",
            "A: 1\r\na: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n",
        ),
        ("Connection: a, b|a: 1|B: 2|c: 3", "c: 3\r\n"),
        ("Connection: x|Keep-Alive: x|Proxy-Connection: x|TE: x|Upgrade: x", ""),
        ("Transfer-Encoding: x|Content-Length: 3|Age: 3|Trailer: a", ""),
        ("Proxy-Authenticate: a|Proxy-Authentication-Info: b|Proxy-Authorization: c", ""),
        (
            "Content-Encoding: a|Content-Range: b|Content-MD5: c",
            "Content-Encoding: a\r\nContent-Range: b\r\nContent-MD5: c\r\n",
        ),
        (
            "Cache-Control: no-cache=\"a, Set-Cookie\", max-age=1|A: 1|Set-Cookie: a",
            "Cache-Control: no-cache=\"a, Set-Cookie\", max-age=1\r\n",
        ),
        (
            "CDN-Cache-Control: foo|Cache-Status: x; hit|Via: 1.1 y",
            "CDN-Cache-Control: foo\r\nCache-Status: x; hit\r\nVia: 1.1 y\r\n",
        ),
    ] {
        assert_eq!(stored_head(200, fields), format!("HTTP/1.1 200 X\r\n{expected}{DATE}\r\n"));
    }
    // Date is never touched, not even a bad one
    assert_eq!(stored_head(404, "date: foo"), "HTTP/1.1 404 X\r\ndate: foo\r\n\r\n");
}

fn kept(status: u16, fields: &str) -> (String, Policy) {
    let (request, _, request_text) = get("");
    let (head, text) = response(status, fields);
    let received = WallTime::from_ms(START_MS);
    let judged = policy::judge(
        &request,
        request_text.as_bytes(),
        PeerTrust::Unknown,
        &head,
        text.as_bytes(),
        Times { sent: received, received },
        &CacheSettings::default(),
    );
    let Storability::Yes(policy) = judged else { panic!("{fields}: {judged:?}") };
    (stored_head(status, fields), policy)
}

#[test]
fn what_is_served() {
    let (head, policy) = kept(
        200,
        "Cache-Control: max-age=60|Age: 5|ETag: \"a\"|Content-Type: b|Content-Language: c|Content-Range: d|E: f",
    );
    let serve = |change: &dyn Fn(&mut ServedWith)| {
        let now = WallTime::from_ms(START_MS + 2500);
        let mut with = ServedWith {
            serve: Serve::Full,
            body_bytes: Some(10),
            framing: Framing::Length(10),
            close: false,
            keep_alive_10: false,
            now,
            date: &date(START_MS + 2500),
            status: CacheStatus::Hit { ttl_secs: policy.ttl_secs(now) },
        };
        change(&mut with);
        let mut out = Vec::new();
        served::write(&mut out, StoredHead::new(head.as_bytes()), &policy, &with);
        String::from_utf8(out).unwrap()
    };
    let fields = format!(
        "Cache-Control: max-age=60\r\nETag: \"a\"\r\nContent-Type: b\r\nContent-Language: c\r\nContent-Range: d\r\nE: f\r\n{DATE}"
    );
    let ours = "Age: 7\r\nVia: 1.1 balancer\r\nCache-Status: balancer; hit; ttl=53\r\n";
    assert_eq!(
        serve(&|_| {}),
        format!("HTTP/1.1 200 X\r\n{fields}{ours}Content-Length: 10\r\n\r\n")
    );
    // RFC 9110 §8.6: HEAD tells the length; a body still coming has none to tell
    assert_eq!(
        serve(&|with| with.framing = Framing::None),
        format!("HTTP/1.1 200 X\r\n{fields}{ours}Content-Length: 10\r\n\r\n")
    );
    assert_eq!(
        serve(&|with| (with.framing, with.body_bytes) = (Framing::Chunked, None)),
        format!("HTTP/1.1 200 X\r\n{fields}{ours}Transfer-Encoding: chunked\r\n\r\n")
    );
    assert_eq!(
        serve(&|with| (with.framing, with.body_bytes) = (Framing::UntilClose, None)),
        format!("HTTP/1.1 200 X\r\n{fields}{ours}Connection: close\r\n\r\n")
    );
    assert!(
        serve(&|with| with.close = true)
            .ends_with("Content-Length: 10\r\nConnection: close\r\n\r\n")
    );
    assert!(
        serve(&|with| with.keep_alive_10 = true).ends_with("\r\nConnection: keep-alive\r\n\r\n")
    );
    // RFC 9110 §15.3.7
    let partial = fields.replace("Content-Range: d\r\n", "");
    assert_eq!(
        serve(&|with| with.serve = Serve::Partial { start: 2, end: 5 }),
        format!(
            "HTTP/1.1 206 Partial Content\r\n{partial}Content-Range: bytes 2-4/10\r\n{ours}Content-Length: 3\r\n\r\n"
        )
    );
    // RFC 9110 §15.4.5; conditional-304-etag
    let bare = partial.replace("Content-Type: b\r\nContent-Language: c\r\n", "");
    assert_eq!(
        serve(&|with| with.serve = Serve::NotModified),
        format!("HTTP/1.1 304 Not Modified\r\n{bare}{ours}\r\n")
    );
    // RFC 9110 §15.5.17
    assert_eq!(
        serve(&|with| with.serve = Serve::Unsatisfiable),
        "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */10\r\n\
         Date: Thu, 01 Jan 2026 00:00:02 GMT\r\nCache-Status: balancer; hit; ttl=53\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn a_stored_204_has_no_length() {
    let mut toy = Toy::new(CacheSettings::default());
    let fields = "Cache-Control: max-age=60";
    toy.ask("GET", "/", "", &Origin::Says { status: 204, fields, body: "" });
    assert_eq!(toy.ask("HEAD", "/", "", &Origin::Gone).value("content-length"), None);
}

#[test]
fn what_the_suite_sees() {
    let mut toy = Toy::new(CacheSettings::default());
    // other-age-gen, other-age-update-*, other-date-update*, headers-omit-headers-listed-in-Cache-Control-no-cache
    let fields = "Cache-Control: no-cache=\"a, b\"|a: 1|b: 2|c: 3|Cache-Control: max-age=3600|Expires: {2592000}|Date: {0}|Age: 30";
    toy.ask("GET", "/", "", &says(fields));
    toy.now_ms += 3000;
    let hit = toy.ask("GET", "/", "", &Origin::Gone);
    assert_eq!((hit.value("age"), hit.value("c")), (Some("33"), Some("3")));
    assert_eq!((hit.value("a"), hit.value("b")), (None, None));
    assert_eq!(hit.value("date"), Some("Thu, 01 Jan 2026 00:00:00 GMT"));
    assert_eq!(hit.value("expires"), Some("Sat, 31 Jan 2026 00:00:00 GMT"));
}
