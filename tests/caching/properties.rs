//! Whatever the two sides say, nothing panics, and what holds by construction holds.

use balancer::cache::validation::{self, Answer};
use balancer::cache::{
    CacheMode, CacheSettings, CacheStatus, Plan, Policy, RequestDirectives, ServedWith,
    Storability, StoredHead, Times, Verdict, conditional, date, key, policy, served, stored, vary,
};
use balancer::http::{Framing, PeerTrust, RequestHead, ResponseHead, framing};
use balancer::time::WallTime;
use proptest::prelude::*;

use super::START_MS;

const NAMES: [&str; 24] = [
    "Cache-Control",
    "CDN-Cache-Control",
    "Expires",
    "Date",
    "Age",
    "Vary",
    "ETag",
    "Last-Modified",
    "Set-Cookie",
    "Connection",
    "Content-Range",
    "Location",
    "Content-Location",
    "Range",
    "If-Range",
    "If-None-Match",
    "If-Modified-Since",
    "Accept-Language",
    "Cookie",
    "Foo",
    "Bar",
    "Authorization",
    "Content-Encoding",
    "X-Forwarded-Proto",
];

const WORDS: [&str; 40] = [
    "max-age",
    "s-maxage",
    "no-cache",
    "no-store",
    "private",
    "public",
    "must-revalidate",
    "=",
    "=\"",
    "\"",
    ",",
    ", ",
    ";",
    "0",
    "1",
    "60",
    "99999999999",
    "-1",
    "*",
    "W/\"a\"",
    "\"a\"",
    "a",
    "Foo, Bar",
    "bytes=",
    "-",
    "0-1",
    "stale-while-revalidate=9",
    "stale-if-error=9",
    "must-understand",
    "\\",
    "(",
    ")",
    "?1",
    "http://h/",
    "../",
    "en;q=0.5",
    "max-stale",
    "Thu, 01 Jan 2026 00:00:00 GMT",
    "Wednesday, 31-Dec-25 23:59:59 GMT",
    " ",
];

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::collection::vec(prop::sample::select(&WORDS), 0..7).prop_map(|words| words.concat()),
        1 => "[ -~\u{e9}]{0,30}",
    ]
}

fn fields() -> impl Strategy<Value = String> {
    let line = (prop::sample::select(&NAMES), value());
    prop::collection::vec(line, 0..8).prop_map(|lines| {
        lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
    })
}

fn settings() -> impl Strategy<Value = CacheSettings> {
    any::<(bool, bool, bool)>().prop_map(|(is_rfc, guesses, honours_requests)| CacheSettings {
        mode: if is_rfc { CacheMode::Rfc } else { CacheMode::Safe },
        heuristic_max: guesses.then_some(std::time::Duration::from_secs(99)),
        honours_requests,
        ..CacheSettings::default()
    })
}

fn holds(policy: &Policy) {
    let asked = RequestDirectives::default();
    let mut was_fresh = true;
    for secs in [0, 1, 9, 60, 3600, 1 << 31, u64::MAX / 2000] {
        let now = WallTime::from_ms(START_MS + secs * 1000);
        let verdict = policy.verdict(&asked, now);
        // What was stale does not become fresh, and stale means past its time
        assert!(was_fresh || verdict != Verdict::Fresh);
        was_fresh = verdict == Verdict::Fresh;
        assert!(!was_fresh || policy.ttl_secs(now) >= 0);
        assert!(policy.age_secs(now) <= 1 << 31);
        if let Verdict::StaleWhileRevalidate | Verdict::Validate { on_error_until: Some(_), .. } =
            verdict
        {
            assert!(now < policy.useful_until());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn anything_goes_through(
        method in prop::sample::select(&["GET", "HEAD", "POST", "X"]),
        target in "/[ab./?]{0,8}",
        asks in fields(),
        status in prop::sample::select(&[200u16, 204, 206, 301, 304, 404, 500]),
        says in fields(),
        updates in fields(),
        settings in settings(),
        body_bytes in 0u64..20,
        trusted: bool,
    ) {
        let request_text = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{asks}\r\n");
        let bytes = request_text.as_bytes();
        let mut request = RequestHead::default();
        request.parse(bytes).unwrap();
        let plan = framing::of_request(&request, bytes).unwrap();
        let _ = Plan::of_request(&request, bytes, &plan, &settings);

        let text = format!("HTTP/1.1 {status} X\r\n{says}\r\n");
        let mut head = ResponseHead::default();
        head.parse(text.as_bytes()).unwrap();
        let trust = if trusted { PeerTrust::Trusted } else { PeerTrust::Unknown };
        let mut scratch = Vec::new();
        key::each_invalid(&request, bytes, &head, text.as_bytes(), trust, &mut scratch, |key| {
            assert!(key.starts_with(b"http://h/") || key.starts_with(b"https://h/"), "{key:?}");
        });

        let received = WallTime::from_ms(START_MS);
        let times = Times { sent: received, received };
        let judged = policy::judge(&request, bytes, trust, &head, text.as_bytes(), times, &settings);
        let Storability::Yes(policy) = judged else { return Ok(()) };
        holds(&policy);
        let mut selection = Vec::new();
        let mode = settings.mode;
        vary::write(&mut selection, &head.fields, text.as_bytes(), &request.fields, bytes, mode);
        // A request gets what it brought
        prop_assert!(vary::matches(&selection, &request.fields, bytes, mode, &mut scratch));

        let now_text = super::date(START_MS);
        let mut kept = Vec::new();
        stored::write(&mut kept, &head, text.as_bytes(), &now_text);
        let mut again = ResponseHead::default();
        again.parse(&kept).unwrap();
        let mut twice = Vec::new();
        stored::write(&mut twice, &again, &kept, &now_text);
        prop_assert_eq!(&kept, &twice, "to keep what is kept changes nothing");

        let stored_head = StoredHead::new(&kept);
        prop_assert_eq!(stored_head.fields().count(), again.fields.lines().len());
        let serve = conditional::serve(&request, bytes, stored_head, &policy, body_bytes);
        if let conditional::Serve::Partial { start, end } = serve {
            prop_assert!(start < end && end <= body_bytes);
        }
        let with = ServedWith {
            serve,
            body_bytes: Some(body_bytes),
            framing: Framing::Length(body_bytes),
            close: false,
            keep_alive_10: false,
            now: received,
            date: &now_text,
            status: CacheStatus::Hit { ttl_secs: policy.ttl_secs(received) },
        };
        let mut served_head = Vec::new();
        served::write(&mut served_head, stored_head, &policy, &with);
        again.parse(&served_head).unwrap();

        let update_text = format!("HTTP/1.1 304 X\r\n{updates}\r\n");
        let mut update = ResponseHead::default();
        update.parse(update_text.as_bytes()).unwrap();
        let answer =
            Answer { head: &update, bytes: update_text.as_bytes(), times, date: &now_text };
        let mut conditions = b"HTTP/1.1 200 X\r\n".to_vec();
        validation::write_conditions(&mut conditions, stored_head);
        conditions.extend_from_slice(b"\r\n");
        again.parse(&conditions).unwrap();
        let mut merged = Vec::new();
        if let Storability::Yes(policy) =
            validation::freshen(&mut merged, &request, bytes, stored_head, &answer, &settings)
        {
            holds(&policy);
        }
        again.parse(&merged).unwrap();
    }

    #[test]
    fn dates_are_dates_or_nothing(text in "[A-Za-z0-9 ,:-]{0,40}", bytes: Vec<u8>, now: u64) {
        let _ = date::parse(text.as_bytes(), now);
        let _ = date::parse(&bytes, now);
    }
}
