//! The parsers of directives: Cache-Control of both sides and the Structured Field (RFC 9111 §5.2, RFC 8941).

use balancer::cache::directives::Delta;
use balancer::cache::{RequestDirectives, ResponseDirectives};

use super::{get, response};

fn said(fields: &str) -> ResponseDirectives {
    let (head, text) = response(200, fields);
    ResponseDirectives::of(&head.fields, text.as_bytes())
}

fn excludes(fields: &str, name: &str) -> bool {
    let (head, text) = response(200, fields);
    let said = ResponseDirectives::of(&head.fields, text.as_bytes());
    said.excludes(&head.fields, text.as_bytes(), name.as_bytes())
}

#[test]
fn numbers_of_a_response() {
    for (value, expected) in [
        ("max-age=1", Delta::Secs(1)),
        ("MAX-AGE=\"1\"", Delta::Secs(1)),
        ("max-age=2147483648", Delta::Secs(1 << 31)),
        ("max-age=2147483649", Delta::Secs(1 << 31)),
        ("max-age=99999999999999999999", Delta::Secs(1 << 31)),
        ("max-age", Delta::Invalid),
        ("max-age=", Delta::Invalid),
        ("max-age=\"\"", Delta::Invalid),
        ("max-age=-1", Delta::Invalid),
        ("max-age=1 2", Delta::Invalid),
        ("max-age=1;a", Delta::Invalid),
        ("max-age=1.0", Delta::Invalid),
        ("max-age=1, max-age=1", Delta::Secs(1)),
        ("max-age=1, max-age=2", Delta::Invalid),
        ("max-age=1, max-age=x", Delta::Invalid),
        (", ,max-age=1\t,", Delta::Secs(1)),
        ("xmax-age=1", Delta::Absent),
        ("max-agex=1", Delta::Absent),
        ("a=\"b\\\", max-age=1\"", Delta::Absent),
        ("a=\"b\\\\\", max-age=1", Delta::Secs(1)),
        ("a=\"b, max-age=1", Delta::Secs(1)),
        ("a\"b, max-age=1", Delta::Secs(1)),
        ("a=b\"c, max-age=1, d\"", Delta::Secs(1)),
        ("a=\"b\"c, max-age=1", Delta::Secs(1)),
        ("=, =\", max-age=1", Delta::Secs(1)),
    ] {
        assert_eq!(said(&format!("Cache-Control: {value}")).max_age, expected, "{value}");
    }
}

#[test]
fn words_of_a_response() {
    let all = said(
        "Cache-Control: No-Store, no-cache,private ,public, must-revalidate\
         |cache-control: proxy-revalidate, must-understand, stale-while-revalidate=1, stale-if-error=2",
    );
    assert!(all.no_store && all.no_cache && all.private && all.public && all.must_revalidate);
    assert!(all.proxy_revalidate && all.must_understand && all.is_present && !all.is_targeted);
    assert_eq!(all.stale_while_revalidate, Delta::Secs(1));
    assert_eq!(all.stale_if_error, Delta::Secs(2));
    assert_eq!(said("A: no-store"), ResponseDirectives::default());
    // A word with an argument is still the word
    assert!(said("Cache-Control: no-store=1").no_store);
}

#[test]
fn fields_that_are_excluded() {
    // RFC 9111 §5.2.2.4, §5.2.2.7
    for (value, name, expected) in [
        ("no-cache=\"a\"", "A", true),
        ("no-cache=\"a, b\"", "b", true),
        ("private=\"a\"", "a", true),
        ("no-cache=a", "a", true),
        ("no-cache=\"a\", private=\"b\"", "b", true),
        ("no-cache=\"ab\"", "a", false),
        ("no-cache", "a", false),
        ("other=\"a\"", "a", false),
    ] {
        assert_eq!(excludes(&format!("Cache-Control: {value}"), name), expected, "{value}");
    }
    let qualified = said("Cache-Control: no-cache=\"a\", private=\"b\"");
    assert!(!qualified.no_cache && !qualified.private && qualified.excludes_fields);
    // What names nothing is taken without its argument: it forbids more
    for empty in ["no-cache=\"\"", "no-cache=", "no-cache=\" , \"", "no-cache=\"a"] {
        assert!(said(&format!("Cache-Control: {empty}")).no_cache, "{empty}");
    }
    let cdn = "CDN-Cache-Control: no-cache=\"a\", max-age=1|Cache-Control: private=\"b\"";
    assert!(excludes(cdn, "a") && !excludes(cdn, "b"));
}

#[test]
fn a_request() {
    let asked = |value: &str| {
        let (head, _, text) = get(&format!("Cache-Control: {value}"));
        RequestDirectives::of(&head.fields, text.as_bytes())
    };
    let none = RequestDirectives::default();
    for (value, expected) in [
        ("", none),
        ("No-Cache", RequestDirectives { no_cache: true, ..none }),
        ("no-store", RequestDirectives { no_store: true, ..none }),
        ("only-if-cached", RequestDirectives { only_if_cached: true, ..none }),
        ("max-age=5", RequestDirectives { max_age: Some(5), ..none }),
        ("max-age=5, max-age=3", RequestDirectives { max_age: Some(3), ..none }),
        ("max-age=x", RequestDirectives { max_age: Some(0), ..none }),
        ("min-fresh=5, min-fresh=7", RequestDirectives { min_fresh: Some(7), ..none }),
        ("min-fresh=x", none),
        ("max-stale", RequestDirectives { max_stale: Some(u32::MAX), ..none }),
        ("max-stale=9", RequestDirectives { max_stale: Some(9), ..none }),
        ("max-stale, max-stale=9", RequestDirectives { max_stale: Some(9), ..none }),
        ("max-stale=x", none),
        ("a=\"no-cache\"", none),
    ] {
        assert_eq!(asked(value), expected, "{value}");
    }
}

#[test]
fn structured_fields() {
    // RFC 8941 §3, §4.2; None: invalid, so that Cache-Control speaks
    let valid = |value: &str| {
        let said = said(&format!("Cache-Control: max-age=7|CDN-Cache-Control: {value}"));
        said.is_targeted.then_some(said.max_age)
    };
    let nine = Some(Delta::Secs(9));
    let absent = Some(Delta::Absent);
    for (value, expected) in [
        ("max-age=9", nine),
        ("max-age=9 \t,\t a", nine),
        ("max-age=9;a=1; b;c=\"d\";e=?0;f=:YQ==:;g=1.5;h=i", nine),
        ("max-age=009", nine),
        ("a=(1 \"b\";c ?1), max-age=9", nine),
        ("a=(), max-age=9", nine),
        ("*a._-*9=b:/c, max-age=9", nine),
        ("a=\"b\\\"c\\\\\", max-age=9", nine),
        ("a=-999999999999999, max-age=9", nine),
        ("a=999999999999.999, max-age=9", nine),
        ("a=:YW Jj:, max-age=9", None),
        ("max-age=?0", absent),
        ("private=?0", absent),
        ("a", absent),
        ("", None),
        ("max-age=9,", None),
        (",max-age=9", None),
        ("max-age=9 a", None),
        ("max-age=", None),
        ("max-age = 9", None),
        ("Max-Age=9", None),
        ("max-age=-9", None),
        ("max-age=9.0", None),
        ("max-age=\"9\"", None),
        ("max-age=a", None),
        ("max-age", None),
        ("max-age=?1", None),
        ("max-age=(9)", None),
        ("max-age=9999999999999999", None),
        ("a=1.2345, max-age=9", None),
        ("a=1., max-age=9", None),
        ("a=-, max-age=9", None),
        ("a=\"b, max-age=9", None),
        ("a=\"\\b\", max-age=9", None),
        ("a=\"\u{e9}\", max-age=9", None),
        ("a=(1\"b\"), max-age=9", None),
        ("a=(1, max-age=9", None),
        ("a=?2, max-age=9", None),
        ("a=:YQ==, max-age=9", None),
        ("a=@1, max-age=9", None),
        ("9a, max-age=9", None),
        ("max-age=9;A", None),
        ("max-age=9;", None),
        // Types of the directives (RFC 9213 §2.1)
        ("no-store=1, max-age=9", None),
        ("no-cache=a, max-age=9", None),
        ("no-cache=\"a\", max-age=9", nine),
    ] {
        assert_eq!(valid(value), expected, "{value}");
    }
    // Lines are members of one dictionary; one bad line spoils it
    assert_eq!(valid("max-age=1|CDN-cache-control: max-age=9"), nine);
    assert_eq!(valid("max-age=9|CDN-Cache-Control: &"), None);
    assert_eq!(valid("max-age=9|CDN-Cache-Control:"), None);
    let both =
        said("Cache-Control: no-store|CDN-Cache-Control: s-maxage=5, must-revalidate, public");
    assert!(both.is_targeted && !both.no_store && both.must_revalidate && both.public);
    assert_eq!(both.s_maxage, Delta::Secs(5));
}
