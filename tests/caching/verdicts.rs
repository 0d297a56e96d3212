//! The arithmetic: ages, lifetimes and verdicts to the millisecond (RFC 9111 §4.2, RFC 5861).

use balancer::cache::{
    CacheMode, CacheSettings, Policy, RequestDirectives, Storability, Times, Unstorable, Verdict,
    policy,
};
use balancer::http::PeerTrust;
use balancer::time::WallTime;

use super::{START_MS, dated, get, request, response};

fn judge(asks: &str, fields: &str, waited_ms: u64, settings: &CacheSettings) -> Storability {
    let (request, _, request_text) = get(asks);
    let (head, text) = response(200, &dated(fields, START_MS));
    let times = Times {
        sent: WallTime::from_ms(START_MS - waited_ms),
        received: WallTime::from_ms(START_MS),
    };
    let (asked, answered) = (request_text.as_bytes(), text.as_bytes());
    policy::judge(&request, asked, PeerTrust::Unknown, &head, answered, times, settings)
}

fn policy(fields: &str) -> Policy {
    let judged = judge("", fields, 0, &CacheSettings::default());
    let Storability::Yes(policy) = judged else { panic!("{fields}: {judged:?}") };
    policy
}

fn at(ms: u64) -> WallTime {
    WallTime::from_ms(START_MS + ms)
}

#[test]
fn ages() {
    // RFC 9111 §4.2.3: max(apparent, Age + delay) + resident
    for (fields, waited_ms, later_ms, expected) in [
        ("", 0, 0, 0),
        ("", 0, 999, 0),
        ("", 0, 1000, 1),
        ("", 2500, 0, 2),
        ("", 2500, 500, 3),
        ("Age: 10", 2500, 0, 12),
        ("Date: {-30}", 0, 0, 30),
        ("Date: {-30}|Age: 10", 2500, 1000, 31),
        ("Date: {-30}|Age: 40", 2500, 0, 42),
        ("Date: {30}", 0, 0, 0),
        ("Date: never", 0, 0, 0),
        ("Age: 2147483647", 0, 0, 2_147_483_647),
        ("Age: 99999999999", 0, 9000, 2_147_483_648),
        ("Age: x", 0, 0, 0),
    ] {
        let fields = format!(
            "Cache-Control: max-age=60, stale-while-revalidate=2147483648|ETag: \"a\"|{fields}"
        );
        let judged = judge("", &fields, waited_ms, &CacheSettings::default());
        let Storability::Yes(policy) = judged else { panic!("{fields}: {judged:?}") };
        assert_eq!(policy.age_secs(at(later_ms)), expected, "{fields}");
    }
    // A clock that goes back makes nothing younger than it came
    assert_eq!(policy("Cache-Control: max-age=9|Age: 3").age_secs(WallTime::from_ms(0)), 3);
}

#[test]
fn a_life() {
    let policy = policy("Cache-Control: max-age=10, stale-while-revalidate=5, stale-if-error=20");
    let none = RequestDirectives::default();
    let validate = |on_error_until| Verdict::Validate { is_fresh: false, on_error_until };
    for (ms, expected) in [
        (0, Verdict::Fresh),
        (9_999, Verdict::Fresh),
        (10_000, Verdict::StaleWhileRevalidate),
        (14_999, Verdict::StaleWhileRevalidate),
        (15_000, validate(Some(at(30_000)))),
        (29_999, validate(Some(at(30_000)))),
        (30_000, validate(None)),
        (u64::MAX - START_MS, validate(None)),
    ] {
        assert_eq!(policy.verdict(&none, at(ms)), expected, "{ms}");
    }
    assert_eq!(policy.fresh_until(), at(10_000));
    assert_eq!(policy.useful_until(), at(30_000));
    assert_eq!((policy.ttl_secs(at(0)), policy.ttl_secs(at(12_000))), (10, -2));
    let mut invalid = policy;
    invalid.invalidate();
    for ms in [0, 12_000, 20_000] {
        assert_eq!(invalid.verdict(&none, at(ms)), validate(None));
    }
}

#[test]
fn what_a_client_refuses_is_not_called_stale() {
    let policy = policy("Cache-Control: max-age=10|Age: 1");
    let none = RequestDirectives::default();
    let refused = Verdict::Validate { is_fresh: true, on_error_until: None };
    for (asked, ms, expected) in [
        (RequestDirectives { no_cache: true, ..none }, 0, refused),
        (RequestDirectives { max_age: Some(0), ..none }, 0, refused),
        (RequestDirectives { max_age: Some(1), ..none }, 0, Verdict::Fresh),
        (RequestDirectives { max_age: Some(1), ..none }, 1, refused),
        (RequestDirectives { min_fresh: Some(9), ..none }, 0, Verdict::Fresh),
        (RequestDirectives { min_fresh: Some(9), ..none }, 1, refused),
        (RequestDirectives { max_stale: Some(2), ..none }, 11_000, Verdict::StaleAccepted),
    ] {
        assert_eq!(policy.verdict(&asked, at(ms)), expected, "{asked:?} {ms}");
    }
    // However young: 0 asks for the origin
    let newborn = self::policy("Cache-Control: max-age=10");
    let reload = RequestDirectives { max_age: Some(0), ..none };
    assert_eq!(newborn.verdict(&reload, at(0)), refused);
    let late = RequestDirectives { max_stale: Some(2), max_age: Some(12), ..none };
    assert_eq!(policy.verdict(&late, at(11_000)), Verdict::StaleAccepted);
    assert_ne!(policy.verdict(&late, at(11_001)), Verdict::StaleAccepted);
}

#[test]
fn errors_are_bridged_only_where_the_origin_has_agreed() {
    let none = RequestDirectives::default();
    let on_error = |fields: &str, mode| {
        let settings = CacheSettings { mode, ..CacheSettings::default() };
        let judged = judge("", fields, 0, &settings);
        let Storability::Yes(policy) = judged else { panic!("{fields}: {judged:?}") };
        match policy.verdict(&none, at(3000)) {
            Verdict::Validate { on_error_until, .. } => on_error_until,
            other => panic!("{fields}: {other:?}"),
        }
    };
    for (fields, safe, rfc) in [
        ("Cache-Control: max-age=2", Some(at(62_000)), Some(at(62_000))),
        ("Cache-Control: max-age=2, stale-if-error=9", Some(at(11_000)), Some(at(11_000))),
        // RFC 9111 §5.2.2.10: what is written counts in safe mode, the default does not
        ("Cache-Control: s-maxage=2, stale-while-revalidate=1", None, None),
        ("Cache-Control: s-maxage=2, stale-if-error=9", Some(at(11_000)), None),
    ] {
        assert_eq!(on_error(fields, CacheMode::Safe), safe, "{fields}");
        assert_eq!(on_error(fields, CacheMode::Rfc), rfc, "{fields}");
    }
    // Nothing said of freshness is no consent to be represented
    assert_eq!(on_error("ETag: \"a\"", CacheMode::Rfc), None);
}

#[test]
fn why_not() {
    let safe = CacheSettings::default();
    for (asks, fields, expected) in [
        ("", "", Unstorable::NoFreshness),
        ("", "Cache-Control: max-age=0", Unstorable::NoFreshness),
        ("", "Cache-Control: no-cache", Unstorable::NoFreshness),
        ("", "ETag: \"a\"", Unstorable::NoFreshness),
        ("", "Cache-Control: no-store, max-age=1", Unstorable::NoStore),
        ("", "Cache-Control: private, max-age=1", Unstorable::Private),
        ("Cache-Control: no-store", "Cache-Control: max-age=1", Unstorable::RequestNoStore),
        ("Authorization: a", "Cache-Control: max-age=1", Unstorable::Authorization),
        ("", "Cache-Control: max-age=1|Set-Cookie: a", Unstorable::SetCookie),
        ("", "Cache-Control: max-age=1|Vary: *", Unstorable::Vary),
        ("", "Cache-Control: max-age=1|Vary: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", Unstorable::Vary),
    ] {
        assert_eq!(judge(asks, fields, 0, &safe), Storability::No(expected), "{asks} {fields}");
    }
    let is_kept = |fields: &str, settings: &CacheSettings| {
        matches!(judge("", fields, 0, settings), Storability::Yes(_))
    };
    assert!(is_kept("Cache-Control: max-age=1|Vary: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p", &safe));
    assert!(is_kept("Cache-Control: max-age=0, stale-while-revalidate=1", &safe));
    assert!(is_kept("Cache-Control: no-cache|ETag: \"a\"", &safe));
    // RFC 9111 §3 permits to keep what can only be validated; safe mode does not
    let rfc = CacheSettings { mode: CacheMode::Rfc, ..safe };
    assert!(is_kept("ETag: \"a\"", &rfc));
    assert!(policy("Cache-Control: max-age=9|ETag: \"a\"").has_validator());
    assert!(!policy("Cache-Control: max-age=9|Last-Modified: never").has_validator());
}

#[test]
fn a_post_stands_for_its_target_in_the_scheme_a_trusted_proxy_told() {
    let (request, _, asked) = request("POST", "/t", "X-Forwarded-Proto: https");
    let settings = CacheSettings { mode: CacheMode::Rfc, ..CacheSettings::default() };
    for (location, trust, expected) in [
        // RFC 9110 §9.3.3
        ("/t", PeerTrust::Trusted, true),
        ("https://h/t", PeerTrust::Trusted, true),
        ("http://h/t", PeerTrust::Trusted, false),
        ("https://h/t", PeerTrust::Untrusted, false),
        ("http://h/t", PeerTrust::Untrusted, true),
    ] {
        let fields = format!("Cache-Control: max-age=9|Content-Location: {location}");
        let (head, answer) = response(200, &dated(&fields, START_MS));
        let times = Times { sent: at(0), received: at(0) };
        let (asked, answered) = (asked.as_bytes(), answer.as_bytes());
        let judged = policy::judge(&request, asked, trust, &head, answered, times, &settings);
        assert_eq!(matches!(judged, Storability::Yes(_)), expected, "{location} {trust:?}");
    }
}
