//! What an answer means for a stored response, and what becomes of its head (RFC 9111 §3.2, §4.3.4, §4.3.5).

use balancer::cache::validation::{self, Answer, Freshening};
use balancer::cache::{
    CacheSettings, CacheStatus, Policy, Serve, ServedWith, Storability, StoredHead, Times, served,
};
use balancer::http::{Framing, ResponseHead};
use balancer::time::WallTime;

use super::{START_MS, date, get, response};

/// As it would have been stored.
fn stored(fields: &str) -> String {
    response(200, fields).1
}

#[test]
fn a_304_speaks_of_one_response() {
    // RFC 9111 §4.3.4
    for (kept, answer, expected) in [
        ("ETag: \"a\"", "ETag: \"a\"", true),
        ("ETag: \"a\"", "ETag: \"b\"", false),
        ("ETag: W/\"a\"", "ETag: \"a\"", false),
        ("", "ETag: \"a\"", false),
        ("ETag: W/\"a\"", "ETag: W/\"a\"", true),
        ("ETag: \"a\"", "ETag: W/\"a\"", true),
        ("ETag: \"a\"", "ETag: W/\"b\"", false),
        ("", "ETag: W/\"a\"", false),
        ("Last-Modified: x", "Last-Modified: x", true),
        ("Last-Modified: x", "Last-Modified: y", false),
        ("", "Last-Modified: y", false),
        ("ETag: \"a\"|Last-Modified: x", "ETag: \"a\"|Last-Modified: y", true),
        ("ETag: \"a\"", "", true),
    ] {
        let text = stored(kept);
        let (answer_head, answer_text) = response(304, answer);
        let head = StoredHead::new(text.as_bytes());
        let effect = validation::not_modified_effect(head, &answer_head, answer_text.as_bytes());
        let expected = if expected { Freshening::Update } else { Freshening::Differs };
        assert_eq!(effect, expected, "{kept} / {answer}");
    }
}

#[test]
fn a_head_speaks_of_what_it_agrees_with() {
    // RFC 9111 §4.3.5
    for (kept, status, answer, length, expected) in [
        ("ETag: \"a\"", 200, "", None, Freshening::Update),
        ("ETag: \"a\"", 200, "ETag: \"a\"", Some(5), Freshening::Update),
        ("ETag: \"a\"", 200, "ETag: \"a\"", Some(6), Freshening::Differs),
        ("ETag: \"a\"", 200, "ETag: \"b\"", Some(5), Freshening::Differs),
        ("Last-Modified: x", 200, "Last-Modified: y", None, Freshening::Differs),
        ("", 200, "ETag: \"a\"", None, Freshening::Differs),
        ("ETag: \"a\"", 410, "ETag: \"b\"", None, Freshening::Nothing),
        ("ETag: \"a\"", 304, "ETag: \"a\"", None, Freshening::Nothing),
    ] {
        let text = stored(kept);
        let (head, bytes) = response(status, answer);
        let kept_head = StoredHead::new(text.as_bytes());
        let effect = validation::head_effect(kept_head, 5, &head, bytes.as_bytes(), length);
        assert_eq!(effect, expected, "{kept} / {status} {answer} {length:?}");
    }
}

fn merged(kept: &str, answer: &str) -> String {
    let text = stored(kept);
    let (head, bytes) = response(304, answer);
    let mut out = Vec::new();
    let kept_head = StoredHead::new(text.as_bytes());
    validation::merge(&mut out, kept_head, &head, bytes.as_bytes(), &date(START_MS));
    let text = String::from_utf8(out).unwrap();
    let fields = text.strip_prefix("HTTP/1.1 200 X\r\n").unwrap().strip_suffix("\r\n\r\n").unwrap();
    fields.replace("\r\n", "|")
}

#[test]
fn heads_are_merged() {
    let now = "Date: Thu, 01 Jan 2026 00:00:00 GMT";
    for (kept, answer, expected) in [
        ("A: 1|B: 2|Date: x", "", format!("A: 1|B: 2|{now}")),
        ("A: 1|B: 2|Date: x", "b: 3|date: y", "A: 1|b: 3|date: y".to_owned()),
        // All lines of a name go, all new ones come
        ("A: 1|a: 2|Date: x", "A: 3|A: 4|Date: y", "A: 3|A: 4|Date: y".to_owned()),
        // What is not to be stored neither comes nor takes anything away
        ("A: 1|Date: x", "Connection: a|A: 2|Age: 7|Date: y", "A: 1|Date: y".to_owned()),
        (
            "A: 1|Date: x",
            "Cache-Control: private=\"a\"|A: 2|Date: y",
            "A: 1|Cache-Control: private=\"a\"|Date: y".to_owned(),
        ),
        // What belongs to the body stays
        (
            "Content-Encoding: gzip|Content-Range: r|Date: x",
            "Content-Encoding: br|Content-Range: s|Content-Length: 9|Transfer-Encoding: chunked|Date: y",
            "Content-Encoding: gzip|Content-Range: r|Date: y".to_owned(),
        ),
    ] {
        assert_eq!(merged(kept, answer), expected, "{kept} / {answer}");
    }
}

fn freshened(kept: &str, answer_head: &ResponseHead, answer: &str) -> (Policy, Vec<u8>) {
    let text = stored(kept);
    let (request, _, request_text) = get("");
    let received = WallTime::from_ms(START_MS);
    let with = Answer {
        head: answer_head,
        bytes: answer.as_bytes(),
        times: Times { sent: received, received },
        date: &date(START_MS),
    };
    let mut out = Vec::new();
    let judged = validation::freshen(
        &mut out,
        &request,
        request_text.as_bytes(),
        StoredHead::new(text.as_bytes()),
        &with,
        &CacheSettings::default(),
    );
    let Storability::Yes(policy) = judged else { panic!("{kept} / {answer}: {judged:?}") };
    (policy, out)
}

#[test]
fn a_freshened_response_is_as_old_as_the_answer() {
    let now = WallTime::from_ms(START_MS);
    let kept = "Cache-Control: max-age=60|Date: Wed, 31 Dec 2025 00:00:00 GMT";
    for (answer, age_secs) in [("", 0), ("Age: 7", 7), ("Date: Wed, 31 Dec 2025 23:59:50 GMT", 10)]
    {
        let (head, text) = response(304, answer);
        let (policy, _) = freshened(kept, &head, &text);
        assert_eq!((policy.age_secs(now), policy.status()), (age_secs, 200), "{answer}");
    }
}

#[test]
fn via_names_the_version_of_the_last_answer() {
    // RFC 9110 §7.6.3
    for (version, via) in [("1.0", "Via: 1.0 balancer\r\n"), ("1.1", "Via: 1.1 balancer\r\n")] {
        let text = format!("HTTP/{version} 304 X\r\n\r\n");
        let mut head = ResponseHead::default();
        head.parse(text.as_bytes()).unwrap();
        let (policy, kept) = freshened("Cache-Control: max-age=60", &head, &text);
        let with = ServedWith {
            serve: Serve::Full,
            body_bytes: Some(1),
            framing: Framing::Length(1),
            close: false,
            keep_alive_10: false,
            now: WallTime::from_ms(START_MS),
            date: &date(START_MS),
            status: CacheStatus::Hit { ttl_secs: 60 },
        };
        let mut out = Vec::new();
        served::write(&mut out, StoredHead::new(&kept), &policy, &with);
        assert!(String::from_utf8(out).unwrap().contains(via), "{version}");
    }
}
