//! A hit's decisions, from the plan to the served head, allocate nothing once the buffers are warm.
//!
//! One test in this file, because the counter belongs to the process's allocator.

#[path = "support/counting.rs"]
mod counting;

use balancer::cache::{
    CacheMode, CacheSettings, CacheStatus, Lookup, Plan, Policy, Serve, ServedWith, Storability,
    StoredHead, Times, Verdict, conditional, key, policy, served, stored, vary,
};
use balancer::http::{Framing, PeerTrust, RequestHead, ResponseHead, framing};
use balancer::time::{DATE_BYTES, DateText, WallTime};

#[test]
fn a_hit_allocates_nothing_once_warm() {
    counting::watch_this_thread();
    let mut house = House::new();
    for (name, fields, expected) in [
        ("plain", "", Serve::Full),
        ("cookies", "Cookie: a=b; c=d\r\nCache-Control: max-stale=9\r\n", Serve::Full),
        ("not modified", "If-None-Match: \"x\", \"tag\"\r\n", Serve::NotModified),
        (
            "a range",
            "Range: bytes=1-5\r\nIf-Range: \"tag\"\r\n",
            Serve::Partial { start: 1, end: 6 },
        ),
        ("past the end", "Range: bytes=100000-\r\n", Serve::Unsatisfiable),
    ] {
        let request =
            format!("GET /a/b?c HTTP/1.1\r\nHost: Www.Example\r\n{SELECTING}{fields}\r\n");
        house.hit(request.as_bytes(), expected, name);
        let before = counting::calls();
        for _ in 0..100 {
            house.hit(request.as_bytes(), expected, name);
        }
        assert_eq!(counting::calls() - before, 0, "{name}: allocations in 100 warm hits");
    }
    let before = counting::calls();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(counting::calls() - before, 2, "the counter counts");
}

/// One stored response, and the buffers of a core.
struct House {
    settings: CacheSettings,
    stored: Vec<u8>,
    selection: Vec<u8>,
    policy: Policy,
    head: RequestHead,
    key: Vec<u8>,
    scratch: Vec<u8>,
    out: Vec<u8>,
    date: [u8; DATE_BYTES],
}

impl House {
    fn new() -> Self {
        let settings = CacheSettings { mode: CacheMode::Rfc, ..CacheSettings::default() };
        let request = format!("GET /a/b?c HTTP/1.1\r\nHost: www.example\r\n{SELECTING}\r\n");
        let mut head = RequestHead::default();
        head.parse(request.as_bytes()).unwrap();
        let mut answer = ResponseHead::default();
        answer.parse(RESPONSE.as_bytes()).unwrap();
        let now = WallTime::from_ms(NOW_MS);
        let times = Times { sent: now, received: now };
        let (request, response) = (request.as_bytes(), RESPONSE.as_bytes());
        let judged =
            policy::judge(&head, request, PeerTrust::Unknown, &answer, response, times, &settings);
        let Storability::Yes(policy) = judged else { panic!("{judged:?}") };
        let date = *DateText::new().at(now);
        let (mut stored, mut selection) = (Vec::new(), Vec::new());
        stored::write(&mut stored, &answer, response, &date);
        let (fields, mode) = (&head.fields, settings.mode);
        vary::write(&mut selection, &answer.fields, response, fields, request, mode);
        let (key, scratch, out) = (Vec::new(), Vec::new(), Vec::new());
        Self { settings, stored, selection, policy, head, key, scratch, out, date }
    }

    fn hit(&mut self, bytes: &[u8], expected: Serve, name: &str) {
        let now = WallTime::from_ms(NOW_MS + 1500);
        self.head.parse(bytes).unwrap();
        let plan = framing::of_request(&self.head, bytes).unwrap();
        let plan = Plan::of_request(&self.head, bytes, &plan, &self.settings);
        let Plan::Lookup(Lookup { asked, .. }) = plan else { panic!("{name}: {plan:?}") };
        self.key.clear();
        key::write(&mut self.key, &self.head, bytes, PeerTrust::Unknown);
        assert_eq!(self.key, b"http://www.example/a/b?c", "{name}");
        let (fields, mode) = (&self.head.fields, self.settings.mode);
        assert!(vary::matches(&self.selection, fields, bytes, mode, &mut self.scratch), "{name}");
        assert_eq!(self.policy.verdict(&asked, now), Verdict::Fresh, "{name}");
        let stored = StoredHead::new(&self.stored);
        let serve = conditional::serve(&self.head, bytes, stored, &self.policy, BODY_BYTES);
        assert_eq!(serve, expected, "{name}");
        let with = ServedWith {
            serve,
            body_bytes: Some(BODY_BYTES),
            framing: Framing::Length(BODY_BYTES),
            close: false,
            keep_alive_10: false,
            now,
            date: &self.date,
            status: CacheStatus::Hit { ttl_secs: self.policy.ttl_secs(now) },
        };
        self.out.clear();
        served::write(&mut self.out, stored, &self.policy, &with);
        assert!(self.out.ends_with(b"\r\n\r\n"), "{name}");
    }
}

const SELECTING: &str = "Accept-Encoding: gzip, br\r\nAccept-Language: en;q=0.5, de, fr\r\n";
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nServer: x\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    Content-Type: text/html\r\nContent-Encoding: gzip\r\nCache-Control: max-age=60, public\r\n\
    ETag: \"tag\"\r\nVary: Accept-Encoding, Accept-Language\r\n\
    Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT\r\nX-Frame-Options: deny\r\n\r\n";
const NOW_MS: u64 = 1_767_225_600_000;
const BODY_BYTES: u64 = 4096;
