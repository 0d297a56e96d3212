//! The public suite's tests of two requests: one that may be stored, a pause of three seconds, one that is
//! answered from store or not. Both modes, unless a row says otherwise.

use balancer::cache::{CacheMode, CacheSettings};

use super::toy::{Toy, says};

/// What the second request must get, and in which mode the row is a promise.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Second {
    /// From store in both modes.
    Cached,
    /// From the origin in both modes.
    Not,
    /// From store in rfc mode, from the origin in safe mode.
    Rfc,
}
use Second::{Cached, Not, Rfc};

fn runs(rows: &[(&str, &str, &str, &str, Second)]) {
    for &(id, first_asks, says_fields, second_asks, expected) in rows {
        for mode in [CacheMode::Safe, CacheMode::Rfc] {
            let mut toy = Toy::new(CacheSettings { mode, ..CacheSettings::default() });
            let first = toy.ask("GET", "/t", first_asks, &says(says_fields));
            assert!(first.forwarded.is_some(), "{id}: the first comes from the origin");
            toy.now_ms += 3000;
            let second = toy.ask("GET", "/t", second_asks, &says(says_fields));
            let is_cached = second.forwarded.is_none();
            let expects = expected == Cached || expected == Rfc && mode == CacheMode::Rfc;
            assert_eq!(is_cached, expects, "{id} in {mode:?}: {second:?}");
        }
    }
}

#[test]
fn cache_control_freshness() {
    runs(&[
        ("freshness-none", "", "", "", Not),
        ("freshness-max-age", "", "Cache-Control: max-age=3600", "", Cached),
        ("freshness-max-age-0", "", "Cache-Control: max-age=0", "", Not),
        ("freshness-max-age-max-minus-1", "", "Cache-Control: max-age=2147483647", "", Cached),
        ("freshness-max-age-max", "", "Cache-Control: max-age=2147483648", "", Cached),
        ("freshness-max-age-max-plus-1", "", "Cache-Control: max-age=2147483649", "", Cached),
        ("freshness-max-age-max-plus", "", "Cache-Control: max-age=99999999999", "", Cached),
        ("freshness-max-age-age", "", "Date: {0}|Cache-Control: max-age=3600|Age: 7200", "", Not),
        ("freshness-max-age-date", "", "Date: {-7200}|Cache-Control: max-age=3600", "", Not),
        (
            "freshness-max-age-expires",
            "",
            "Cache-Control: max-age=3600|Expires: {-7200}|Date: {0}",
            "",
            Cached,
        ),
        (
            "freshness-max-age-expires-invalid",
            "",
            "Cache-Control: max-age=3600|Expires: 0|Date: {0}",
            "",
            Cached,
        ),
        (
            "freshness-max-age-0-expires",
            "",
            "Cache-Control: max-age=0|Expires: {7200}|Date: {0}",
            "",
            Not,
        ),
        ("freshness-max-age-extension", "", "Cache-Control: foobar, max-age=3600", "", Cached),
        ("freshness-max-age-case-insensitive", "", "Cache-Control: MaX-aGe=3600", "", Cached),
        ("freshness-max-age-negative", "", "Cache-Control: max-age=-3600", "", Not),
        ("freshness-s-maxage-shared", "", "Cache-Control: s-maxage=3600", "", Cached),
        ("s-maxage-longer", "", "Cache-Control: max-age=3600, s-maxage=1", "", Not),
        ("s-maxage-longer-reversed", "", "Cache-Control: s-maxage=1, max-age=3600", "", Not),
        (
            "s-maxage-longer-multiple",
            "",
            "Cache-Control: max-age=3600|Cache-Control: s-maxage=1",
            "",
            Not,
        ),
        ("s-maxage-shorter", "", "Cache-Control: max-age=1, s-maxage=3600", "", Cached),
        (
            "s-maxage-shorter-expires",
            "",
            "Expires: {-10}|Cache-Control: max-age=0, s-maxage=3600",
            "",
            Cached,
        ),
    ]);
}

#[test]
fn cache_control_parsing() {
    runs(&[
        ("freshness-max-age-quoted", "", "Cache-Control: max-age=\"3600\"", "", Cached),
        ("freshness-max-age-single-quoted", "", "Cache-Control: max-age='3600'", "", Not),
        (
            "freshness-max-age-ignore-quoted",
            "",
            "Cache-Control: extension=\"max-age=3600\", max-age=1",
            "",
            Not,
        ),
        (
            "freshness-max-age-ignore-quoted-rev",
            "",
            "Cache-Control: max-age=1, extension=\"max-age=3600\"",
            "",
            Not,
        ),
        ("freshness-max-age-leading-zero", "", "Cache-Control: max-age=003600", "", Cached),
        ("freshness-max-age-decimal-zero", "", "Cache-Control: max-age=3600.0", "", Not),
        ("freshness-max-age-space-before-equals", "", "Cache-Control: max-age =3600", "", Not),
        ("freshness-max-age-space-after-equals", "", "Cache-Control: max-age= 3600", "", Not),
        ("freshness-max-age-a100", "", "Cache-Control: max-age=a3600", "", Not),
        ("freshness-max-age-100a", "", "Cache-Control: max-age=3600a", "", Not),
        // RFC 9111 §4.2.1: the first or stale; ours is stale if they differ
        ("two-fresh-stale-sameline", "", "Cache-Control: max-age=1800, max-age=1", "", Not),
        (
            "two-stale-fresh-sepline",
            "",
            "Cache-Control: max-age=1|Cache-Control: max-age=1800",
            "",
            Not,
        ),
        ("twice the same", "", "Cache-Control: max-age=9|Cache-Control: max-age=09", "", Cached),
    ]);
}

#[test]
fn age_and_expires() {
    let aged = |age: &str| format!("Date: {{0}}|Cache-Control: max-age=3600|{age}");
    for (id, age, expected) in [
        ("age-parse-nonnumeric", "Age: abc", Cached),
        ("age-parse-negative", "Age: -7200", Cached),
        ("age-parse-float", "Age: 7200.0", Cached),
        ("age-parse-large-minus-one", "Age: 2147483647", Not),
        ("age-parse-large", "Age: 2147483648", Not),
        ("age-parse-larger", "Age: 2147483649", Not),
        ("age beyond every number", "Age: 99999999999999999999999", Not),
        ("age-parse-suffix", "Age: 7200, 0", Not),
        ("age-parse-prefix", "Age: 0, 7200", Cached),
        ("age-parse-suffix-twoline", "Age: 7200|Age: 0", Not),
        ("age-parse-prefix-twoline", "Age: 0|Age: 7200", Cached),
        ("age-parse-dup-0", "Age: 0, 0", Cached),
        ("age-parse-dup-old", "Age: 300|Age: 300", Cached),
        ("age-parse-parameter", "Age: 7200;foo=bar", Cached),
    ] {
        runs(&[(id, "", &aged(age), "", expected)]);
    }
    runs(&[
        ("freshness-expires-future", "", "Expires: {2592000}|Date: {0}", "", Cached),
        ("freshness-expires-past", "", "Expires: {-2592000}|Date: {0}", "", Not),
        ("freshness-expires-present", "", "Expires: {0}|Date: {0}", "", Not),
        ("freshness-expires-old-date", "", "Expires: {300}|Date: {400}", "", Not),
        ("freshness-expires-invalid", "", "Expires: 0|Date: {0}", "", Not),
        ("freshness-expires-invalid-date", "", "Date: foo|Expires: {10}", "", Cached),
        ("no date at all", "", "Expires: {10}", "", Cached),
        ("freshness-expires-age-slow-date", "", "Date: {-10}|Expires: {10}|Age: 25", "", Not),
        ("freshness-expires-age-fast-date", "", "Date: {10}|Expires: {20}|Age: 15", "", Not),
        ("repeated, both valid", "", "Date: {0}|Expires: {60}|Expires: {60}", "", Not),
    ]);
    for (id, expires, expected) in [
        ("freshness-expires-32bit", "Tue, 19 Jan 2038 14:14:08 GMT", Cached),
        ("freshness-expires-far-future", "Sun, 21 Nov 2286 04:46:39 GMT", Cached),
        ("freshness-expires-rfc850", "Thursday, 18-Aug-50 02:01:18 GMT", Cached),
        ("freshness-expires-ansi-c", "Thu Aug  8 02:01:18 2050", Cached),
        ("freshness-expires-wrong-case-weekday", "THU, 18 Aug 2050 02:01:18 GMT", Cached),
        ("freshness-expires-wrong-case-month", "Thu, 18 AUG 2050 02:01:18 GMT", Cached),
        ("freshness-expires-wrong-case-tz", "Thu, 18 Aug 2050 02:01:18 gMT", Cached),
        ("freshness-expires-invalid-utc", "Thu, 18 Aug 2050 02:01:18 UTC", Not),
        ("freshness-expires-invalid-aest", "Thu, 18 Aug 2050 02:01:18 AEST", Not),
        ("freshness-expires-invalid-2-digit-year", "Thu, 18 Aug 50 02:01:18 GMT", Not),
        ("freshness-expires-invalid-no-comma", "Thu 18 Aug 2050 02:01:18 GMT", Not),
        ("freshness-expires-invalid-multiple-spaces", "Thu, 18  Aug  2050 02:01:18 GMT", Not),
        ("freshness-expires-invalid-date-dashes", "Thu, 18-Aug-2050 02:01:18 GMT", Not),
        ("freshness-expires-invalid-time-periods", "Thu, 18 Aug 2050 02.01.18 GMT", Not),
        ("freshness-expires-invalid-1-digit-hour", "Thu, 18 Aug 2050 2:01:18 GMT", Not),
    ] {
        runs(&[(id, "", &format!("Expires: {expires}|Date: {{0}}"), "", expected)]);
    }
}

#[test]
fn what_forbids_and_permits_storing() {
    let tagged = "Cache-Control: max-age=3600|Set-Cookie: a=b";
    runs(&[
        ("cc-resp-private-shared", "", "Cache-Control: private, max-age=3600", "", Not),
        ("cc-resp-no-store", "", "Cache-Control: no-store", "", Not),
        ("cc-resp-no-store-case-insensitive", "", "Cache-Control: No-StOrE, max-age=9", "", Not),
        (
            "cc-resp-no-store-fresh",
            "",
            "Cache-Control: max-age=10000, no-store|Expires: {10000}|Date: {0}",
            "",
            Not,
        ),
        (
            "cc-resp-no-cache",
            "",
            "Cache-Control: max-age=10000, no-cache|Expires: {10000}|Date: {0}",
            "",
            Not,
        ),
        ("cc-resp-no-cache-case-insensitive", "", "Cache-Control: max-age=9, No-CaChE", "", Not),
        (
            "cc-resp-must-revalidate-fresh",
            "",
            "Cache-Control: max-age=10000, must-revalidate|ETag: \"a\"",
            "",
            Cached,
        ),
        (
            "an open quotation mark hides nothing",
            "",
            "Cache-Control: max-age=9, a=\", no-store",
            "",
            Not,
        ),
        ("other-authorization", "Authorization: F", "Expires: {2592000}|Date: {0}", "", Not),
        (
            "other-authorization-public",
            "Authorization: F",
            "Cache-Control: max-age=3600, public",
            "",
            Cached,
        ),
        (
            "other-authorization-must-revalidate",
            "Authorization: F",
            "Cache-Control: max-age=3600, must-revalidate",
            "",
            Cached,
        ),
        (
            "other-authorization-smaxage",
            "Authorization: F",
            "Cache-Control: s-maxage=9",
            "",
            Cached,
        ),
        ("other-set-cookie", "", tagged, "", Rfc),
        ("Set-Cookie, public", "", "Cache-Control: max-age=9, public|Set-Cookie: a", "", Cached),
        ("Set-Cookie, s-maxage", "", "Cache-Control: s-maxage=9|Set-Cookie: a", "", Cached),
        // RFC 9111 §5.2.2.4: without the field it is nobody's
        (
            "Set-Cookie excluded",
            "",
            "Cache-Control: max-age=9, no-cache=\"set-Cookie\"|Set-Cookie: a",
            "",
            Cached,
        ),
        ("other-cookie", "", "Cache-Control: max-age=3600", "Cookie: a=b", Cached),
        (
            "other-fresh-content-disposition",
            "",
            "Cache-Control: max-age=9|Content-Disposition: a",
            "",
            Cached,
        ),
        ("the client's no-store", "Cache-Control: no-store", "Cache-Control: max-age=9", "", Not),
        ("a validator alone", "", "ETag: \"a\"", "", Not),
        (
            "pragma-response-no-cache",
            "",
            "Cache-Control: max-age=3600|Pragma: no-cache",
            "",
            Cached,
        ),
    ]);
}

#[test]
fn request_directives() {
    let fresh = "Cache-Control: max-age=3600";
    runs(&[
        ("ccreq-ma0", "", fresh, "Cache-Control: max-age=0", Not),
        ("ccreq-ma1", "", fresh, "Cache-Control: max-age=1", Not),
        ("young enough", "", fresh, "Cache-Control: max-age=3", Cached),
        (
            "ccreq-magreaterage",
            "",
            "Cache-Control: max-age=3600|Age: 1800",
            "Cache-Control: max-age=600",
            Not,
        ),
        (
            "ccreq-max-stale",
            "",
            "Cache-Control: max-age=1",
            "Cache-Control: max-stale=1000",
            Cached,
        ),
        ("any staleness", "", "Cache-Control: max-age=1", "Cache-Control: max-stale", Cached),
        ("too stale", "", "Cache-Control: max-age=1", "Cache-Control: max-stale=1", Not),
        (
            "not against the origin",
            "",
            "Cache-Control: max-age=1, must-revalidate, stale-if-error=9|ETag: \"a\"",
            "Cache-Control: max-stale",
            Not,
        ),
        // ccreq-max-stale-age, not met: what was stale on arrival and cannot be validated is not kept
        (
            "stale on arrival",
            "",
            "Cache-Control: max-age=1500|Age: 2000",
            "Cache-Control: max-stale=1000",
            Not,
        ),
        (
            "stale on arrival, with a validator",
            "",
            "Cache-Control: max-age=1500|Age: 2000|ETag: \"a\"",
            "Cache-Control: max-stale=1000",
            Cached,
        ),
        (
            "ccreq-min-fresh",
            "",
            "Cache-Control: max-age=1500",
            "Cache-Control: min-fresh=2000",
            Not,
        ),
        (
            "ccreq-min-fresh-age",
            "",
            "Cache-Control: max-age=1500|Age: 1000",
            "Cache-Control: min-fresh=1000",
            Not,
        ),
        ("fresh for long enough", "", fresh, "Cache-Control: min-fresh=3000", Cached),
        ("ccreq-no-cache", "", fresh, "Cache-Control: no-cache", Not),
        ("ccreq-no-store", "", fresh, "Cache-Control: no-store", Not),
        ("pragma-request-no-cache", "", fresh, "Pragma: no-cache", Cached),
        (
            "conditions for the origin",
            "",
            "Cache-Control: max-age=9|ETag: \"a\"",
            "If-Match: \"a\"",
            Not,
        ),
    ]);
    // The switch for sites that do not let clients in
    let mut toy = Toy::new(CacheSettings { honours_requests: false, ..CacheSettings::default() });
    toy.ask("GET", "/t", "", &says(fresh));
    for asks in ["no-cache", "max-age=0", "no-store", "min-fresh=9999"] {
        let asks = format!("Cache-Control: {asks}");
        assert!(toy.ask("GET", "/t", &asks, &says(fresh)).forwarded.is_none(), "{asks}");
    }
    assert!(toy.ask("GET", "/u", "Cache-Control: no-store", &says(fresh)).forwarded.is_some());
    assert!(toy.ask("GET", "/u", "", &says(fresh)).forwarded.is_some(), "no-store was stored");
    assert_eq!(toy.ask("GET", "/v", "Cache-Control: only-if-cached", &says("")).status(), 504);
}

#[test]
fn cdn_cache_control() {
    let said = |cdn: &str, others: &str| format!("CDN-Cache-Control: {cdn}|{others}");
    for (id, cdn, others, expected) in [
        ("cdn-max-age", "max-age=3600", "", Cached),
        ("cdn-max-age-max", "max-age=2147483648", "", Cached),
        ("cdn-max-age-max-plus", "max-age=99999999999", "", Cached),
        ("cdn-max-age-age", "max-age=3600", "Date: {0}|Age: 7200", Not),
        ("cdn-max-age-space-before-equals", "max-age =100", "Cache-Control: max-age=1", Not),
        ("cdn-max-age-space-after-equals", "max-age= 100", "Cache-Control: max-age=1", Not),
        ("cdn-max-age-0", "max-age=0", "", Not),
        ("cdn-max-age-extension", "foobar, max-age=3600", "", Cached),
        ("cdn-max-age-case-insensitive", "MaX-aGe=3600", "", Not),
        ("cdn-max-age-expires", "max-age=3600", "Expires: {-10000}|Date: {0}", Cached),
        ("cdn-max-age-cc-max-age-invalid-expires", "max-age=3600", "Expires: 0|Date: {0}", Cached),
        ("cdn-max-age-0-expires", "max-age=0", "Expires: {10000}|Date: {0}", Not),
        ("cdn-max-age-short-cc-max-age", "max-age=3600", "Cache-Control: max-age=1", Cached),
        ("cdn-max-age-long-cc-max-age", "max-age=1", "Cache-Control: max-age=3600", Not),
        ("cdn-private", "private", "Cache-Control: max-age=10000|Expires: {10000}|Date: {0}", Not),
        (
            "cdn-no-cache",
            "no-cache",
            "Cache-Control: max-age=10000|Expires: {10000}|Date: {0}",
            Not,
        ),
        ("cdn-no-store-cc-fresh", "no-store", "Cache-Control: max-age=10000|Expires: {10000}", Not),
        ("cdn-fresh-cc-nostore", "max-age=10000", "Cache-Control: no-store", Cached),
        ("cdn-cc-invalid-sh-type-unknown", "max-age=10000, &&&&&", "Cache-Control: no-store", Not),
        ("cdn-cc-invalid-sh-type-wrong", "max-age=\"10000\"", "Cache-Control: no-store", Not),
        // RFC 9213 §2.1: what is empty or invalid is not there, parameters are ignored
        ("empty", "", "Cache-Control: max-age=9", Cached),
        ("a decimal", "max-age=9.5", "Cache-Control: no-store", Not),
        ("parameters", "max-age=9;a;b=\"c\"", "Cache-Control: no-store", Cached),
        // RFC 8941 §3.2: the last of one name
        ("the last counts", "max-age=0, max-age=9", "", Cached),
        ("the last counts, too", "max-age=9, max-age=0", "", Not),
        ("said to be false", "no-store=?0, max-age=9", "", Cached),
        ("Set-Cookie excluded", "max-age=9, no-cache=\"Set-Cookie\"", "Set-Cookie: a", Cached),
    ] {
        runs(&[(id, "", &said(cdn, others), "", expected)]);
    }
    // It replaces the policy wholly: Expires and max-age are not asked once it speaks (RFC 9213 §2.2)
    for others in ["Cache-Control: max-age=9", "Expires: {9}|Date: {0}"] {
        runs(&[("no freshness of its own", "", &said("foo", others), "", Not)]);
    }
}

#[test]
fn vary() {
    let v1 = "Cache-Control: max-age=5000|Date: {0}|Vary: Foo";
    let v3 = "Cache-Control: max-age=5000|Date: {0}|Vary: Foo, Bar, Baz";
    let lang = "Cache-Control: max-age=5000|Vary: Accept-Language";
    runs(&[
        ("vary-match", "Foo: 1", v1, "Foo: 1", Cached),
        ("vary-no-match", "Foo: 1", v1, "Foo: 2", Not),
        ("vary-omit-stored", "", v1, "Foo: 1", Not),
        ("vary-omit", "Foo: 1", v1, "", Not),
        ("absent is not empty", "", v1, "Foo:", Not),
        ("both absent", "", v1, "", Cached),
        ("vary-cache-key", "Foo: 1|Other: 2", v1, "Foo: 1|Other: 3", Cached),
        ("vary-3-match", "Foo: 1|Bar: abc|Baz: 789", v3, "Foo: 1|Bar: abc|Baz: 789", Cached),
        ("vary-3-no-match", "Foo: 1|Bar: abc|Baz: 789", v3, "Foo: 2|Bar: abc|Baz: 789", Not),
        ("vary-3-order", "Foo: 1|Bar: abc|Baz: 789", v3, "Foo: 1|Baz: 789|Bar: abcde", Not),
        ("vary-2-match-omit", "Foo: 1|Bar: abc", v3, "", Not),
        ("vary-3-omit", "Foo: 1|Baz: 789", v3, "Foo: 1|Baz: 789", Cached),
        ("a prefix is no match", "Foo: 1|Bar: a", v3, "Foo: 1|Bar: ab", Not),
        ("values do not shift", "Foo: a|Bar: b", v3, "Bar: a|Baz: b", Not),
        ("vary-normalise-combine", "Foo: 1, 2", v1, "Foo: 1|Foo: 2", Cached),
        ("vary-normalise-space", "Foo: 1,2", v1, "Foo:  1, 2 ", Cached),
        ("quoted blanks count", "Foo: \"1,2\"", v1, "Foo: \"1, 2\"", Not),
        (
            "vary-normalise-lang-order",
            "Accept-Language: en, de",
            lang,
            "Accept-Language: de, en",
            Rfc,
        ),
        (
            "vary-normalise-lang-case",
            "Accept-Language: en, de",
            lang,
            "Accept-Language: eN, De",
            Cached,
        ),
        (
            "vary-normalise-lang-space",
            "Accept-Language: en, de",
            lang,
            "Accept-Language:  en ,   de",
            Cached,
        ),
        ("another weight", "Accept-Language: en;q=1", lang, "Accept-Language: en;q=0.5", Not),
        (
            "cookies are not lists",
            "Cookie: a=1, 2",
            "Cache-Control: max-age=9|Vary: Cookie",
            "Cookie: a=1,2",
            Not,
        ),
    ]);
    for (id, value) in [
        ("vary-syntax-star", "Vary: *"),
        ("vary-syntax-star-star", "Vary: *, *"),
        ("vary-syntax-star-star-lines", "Vary: *|Vary: *"),
        ("vary-syntax-empty-star", "Vary: , *"),
        ("vary-syntax-empty-star-lines", "Vary: |Vary: *"),
        ("vary-syntax-star-foo", "Vary: *, Foo"),
        ("vary-syntax-foo-star", "Vary: Foo, *"),
        ("not a name", "Vary: a b"),
        // The origin sees our value of it, which no two clients share
        ("a field of ours", "Vary: X-Forwarded-For"),
    ] {
        let says = format!("Expires: {{5000}}|Last-Modified: {{-3000}}|Date: {{0}}|{value}");
        runs(&[(id, "Foo: 1|Baz: 789", &says, "Foo: 1|Baz: 789", Not)]);
    }
}
