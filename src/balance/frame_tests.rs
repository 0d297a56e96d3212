//! Tables for `frame`: what of a hostile frame is believed.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Frame, Refusal> {
    Frame::parse(text, Some(80))
}

/// `name score category` of each good item.
fn good(text: &str) -> Vec<String> {
    let frame = parse(text).unwrap();
    let show = |i: &Item| format!("{} {} {:?}", i.name, i.score.get(), i.category);
    frame.items.iter().map(show).collect()
}

const GOOD: &str = r#"{"dns_name":"ok","score":5,"utilization_category":"LU"}"#;

/// A frame of `item` between two good ones: how it counts, and whether the others lived.
fn flaw_of(item: &str) -> Option<Flaw> {
    let other = GOOD.replace("ok", "other");
    let frame = parse(&format!("[{GOOD},{item},{other}]")).unwrap();
    let names: Vec<&str> = frame.items.iter().map(|i| i.name.as_str()).collect();
    assert!(names.first() == Some(&"ok") && names.last() == Some(&"other"), "{item}: {names:?}");
    let flaw = Flaw::ALL.into_iter().find(|&flaw| frame.flaws[flaw as usize] == 1);
    assert_eq!(frame.skipped(), usize::from(flaw.is_some()));
    assert_eq!(frame.items.len(), 3 - frame.skipped(), "{item}");
    flaw
}

#[test]
fn the_agents_own_frame() {
    let text = r#"[{"dns_name":"app-1","score":87.5,"utilization_category":"LU"},
        {"dns_name":"app-2:9000","score":0,"utilization_category":"SUNDOWN"},
        {"dns_name":"a","score":100,"utilization_category":"INIT"},
        {"dns_name":"b","score":1e1,"utilization_category":"MU"},
        {"dns_name":"c","score":-0.0,"utilization_category":"HU"}]"#;
    let expected =
        ["app-1 87.5 Low", "app-2:9000 0 Sundown", "a 100 Init", "b 10 Medium", "c 0 High"];
    assert_eq!(good(text), expected);
    let frame = parse(text).unwrap();
    assert_eq!((frame.items[0].host.as_str(), frame.items[0].port), ("app-1", 80));
    assert_eq!((frame.items[1].host.as_str(), frame.items[1].port), ("app-2", 9000));
    assert_eq!((frame.skipped(), frame.is_empty), (0, false));
}

#[test]
fn bad_items_cost_themselves_alone() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_object = format!("{}1{}", r#"{"a":"#.repeat(50_000), "}".repeat(50_000));
    let long = "9".repeat(200_000);
    let table = [
        (r#"{"dns_name":"x","score":1,"utilization_category":"LU","more":[1,{"a":null}]}"#, None),
        (r#"{"dns_name":"x","score":1,"utilization_category":"BUSY"}"#, None),
        ("1", Some(Flaw::NotAnObject)),
        ("null", Some(Flaw::NotAnObject)),
        (r#""x""#, Some(Flaw::NotAnObject)),
        (r#"["x",1,"LU"]"#, Some(Flaw::NotAnObject)),
        (&deep, Some(Flaw::NotAnObject)),
        (
            r#"{"dns_name":"x","score":1,"score":2,"utilization_category":"LU"}"#,
            Some(Flaw::NotAnObject),
        ),
        ("{}", Some(Flaw::Name)),
        (r#"{"score":1,"utilization_category":"LU"}"#, Some(Flaw::Name)),
        (r#"{"dns_name":null,"score":1,"utilization_category":"LU"}"#, Some(Flaw::Name)),
        (r#"{"dns_name":7,"score":1,"utilization_category":"LU"}"#, Some(Flaw::Name)),
        (r#"{"dns_name":"","score":1,"utilization_category":"LU"}"#, Some(Flaw::Name)),
        (r#"{"dns_name":"a b","score":1,"utilization_category":"LU"}"#, Some(Flaw::Name)),
        (r#"{"dns_name":"\ud800","score":1,"utilization_category":"LU"}"#, Some(Flaw::Name)),
        (r#"{"dns_name":"x","utilization_category":"LU"}"#, Some(Flaw::Score)),
        (r#"{"dns_name":"x","score":null,"utilization_category":"LU"}"#, Some(Flaw::Score)),
        (r#"{"dns_name":"x","score":"1","utilization_category":"LU"}"#, Some(Flaw::Score)),
        (r#"{"dns_name":"x","score":true,"utilization_category":"LU"}"#, Some(Flaw::Score)),
        (r#"{"dns_name":"x","score":[1],"utilization_category":"LU"}"#, Some(Flaw::Score)),
        (r#"{"dns_name":"x","score":-0.001,"utilization_category":"LU"}"#, Some(Flaw::Score)),
        (r#"{"dns_name":"x","score":100.001,"utilization_category":"LU"}"#, Some(Flaw::Score)),
        (r#"{"dns_name":"x","score":1e308,"utilization_category":"LU"}"#, Some(Flaw::Score)),
        (r#"{"dns_name":"x","score":-1e999,"utilization_category":"LU"}"#, Some(Flaw::Score)),
        (r#"{"dns_name":"x","score":NaN,"utilization_category":"LU"}"#, Some(Flaw::Score)),
        (r#"{"dns_name":"x","score":-Infinity,"utilization_category":"LU"}"#, Some(Flaw::Score)),
        (r#"{"dns_name":"x","score":1}"#, Some(Flaw::Category)),
        (r#"{"dns_name":"x","score":1,"utilization_category":3}"#, Some(Flaw::Category)),
        (r#"{"dns_name":"x","score":1,"utilization_category":null}"#, Some(Flaw::Category)),
    ];
    for (item, flaw) in table {
        assert_eq!(flaw_of(item), flaw, "{}", &item[..item.len().min(80)]);
    }
    let nested =
        format!(r#"{{"dns_name":"x","score":1,"utilization_category":"LU","n":{deep_object}}}"#);
    assert_eq!(flaw_of(&nested), None);
    let endless = format!(r#"{{"dns_name":"x","score":{long},"utilization_category":"LU"}}"#);
    assert_eq!(flaw_of(&endless), Some(Flaw::Score));
}

#[test]
fn without_a_default_port_a_name_must_carry_one() {
    let frame = Frame::parse(&format!("[{GOOD},{}]", GOOD.replace("ok", "ok:81")), None).unwrap();
    assert_eq!((frame.items.len(), frame.flaws[Flaw::NoPort as usize]), (1, 1));
    assert_eq!(frame.items[0].port, 81);
}

#[test]
fn refused_as_a_whole() {
    let table = [
        ("", Refusal::NotJson),
        ("[", Refusal::NotJson),
        ("[{]", Refusal::NotJson),
        ("[1,]", Refusal::NotJson),
        ("[NaN", Refusal::NotJson),
        ("[] []", Refusal::NotJson),
        ("NaN", Refusal::NotAnArray),
        ("{}", Refusal::NotAnArray),
        (GOOD, Refusal::NotAnArray),
        ("\"[]\"", Refusal::NotAnArray),
        ("null", Refusal::NotAnArray),
    ];
    for (text, refusal) in table {
        assert_eq!(parse(text), Err(refusal), "{text}");
    }
    assert_eq!(parse(&"[".repeat(1 << 20)), Err(Refusal::NotJson));
    assert_eq!(parse(&r#"[{"a":"#.repeat(1 << 17)), Err(Refusal::NotJson));
}

#[test]
fn ten_thousand_backends_and_no_more() {
    let items = |n: usize| -> String {
        let item = |i| format!(r#"{{"dns_name":"a{i}","score":1,"utilization_category":"LU"}}"#);
        format!("[{}]", (0..n).map(item).collect::<Vec<_>>().join(","))
    };
    assert_eq!(parse(&items(10_000)).unwrap().items.len(), 10_000);
    assert_eq!(parse(&items(10_001)), Err(Refusal::TooMany));
    // The same name many times is one backend.
    assert_eq!(good(&format!("[{}]", vec![GOOD; 15_000].join(","))).len(), 1);
}

#[test]
fn of_duplicates_the_last_good_one_wins() {
    let text = r#"[{"dns_name":"a","score":1,"utilization_category":"LU"},
        {"dns_name":"b","score":2,"utilization_category":"LU"},
        {"dns_name":"a","score":3,"utilization_category":"HU"},
        {"dns_name":"a","score":-4,"utilization_category":"SUNDOWN"}]"#;
    assert_eq!(good(text), ["b 2 Low", "a 3 High"]);
    assert!(parse(text).unwrap().kept.is_empty());
}

#[test]
fn a_skipped_item_that_has_a_name_is_kept_by_it() {
    let text = r#"[{"dns_name":"a","score":-1,"utilization_category":"LU"},{"dns_name":"a"},
        {"dns_name":"c","score":2,"utilization_category":"LU"},{"score":1},7]"#;
    let frame = parse(text).unwrap();
    assert_eq!((frame.kept, frame.flaws), (vec!["a".to_owned()], [1, 1, 2, 0, 0]));
    assert!(parse("[ ]").unwrap().is_empty);
    assert!(!parse("[1]").unwrap().is_empty);
}

#[test]
fn an_unknown_word_is_medium_and_reported_once() {
    let text = r#"[{"dns_name":"a","score":1,"utilization_category":"lu"},
        {"dns_name":"b","score":1,"utilization_category":"NaN"}]"#;
    assert_eq!(good(text), ["a 1 Medium", "b 1 Medium"]);
    assert_eq!(parse(text).unwrap().unknown_category.as_deref(), Some("lu"));
}

#[test]
fn bare_words_inside_strings_stay() {
    let text = r#"[{"dns_name":"Infinity","score":NaN,"utilization_category":"LU"},
        {"dns_name":"NaN","score":1,"utilization_category":"a\"NaN"}]"#;
    let frame = parse(text).unwrap();
    assert_eq!((frame.items[0].name.as_str(), frame.kept[0].as_str()), ("NaN", "Infinity"));
    assert_eq!(frame.unknown_category.as_deref(), Some("a\"NaN"));
}

#[test]
fn names() {
    let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
    let long_port = format!("{long}:65535");
    for (name, host, port) in [
        ("app-1", "app-1", None),
        ("app_1.local.", "app_1.local.", None),
        ("app-1:8080", "app-1", Some(8080)),
        ("10.0.0.1", "10.0.0.1", None),
        ("10.0.0.1:1", "10.0.0.1", Some(1)),
        ("[::1]:80", "::1", Some(80)),
        ("[fe80::1]", "fe80::1", None),
        ("::1", "::1", None),
        (&long, &long, None),
        (&long_port, &long, Some(65535)),
    ] {
        assert_eq!(split_name(name), Some((host, port)), "{name}");
    }
    let too_long = format!("{long}b");
    let label = "a".repeat(64);
    for name in [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        ":80",
        "a:",
        "a:0",
        "a:65536",
        "a:+1",
        "a:1:2",
        "a b",
        "a/b",
        "a\n",
        "a\0",
        "a\u{7f}",
        "ä",
        "a@b",
        "http://a",
        "[::1",
        "[::1]80",
        "[::1]:",
        "[a]:80",
        "[]",
        "1.2",
        "256.1.1.1",
        "1.2.3.4.",
        "0x7f.0x1",
        "127.1:80",
        "a%b",
        "fe80::1%eth0",
        &too_long,
        &label,
    ] {
        assert_eq!(split_name(name), None, "{name:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_near_frame_is_survived_and_good_items_are_good(
        pieces in prop::collection::vec(prop_oneof![
            Just("["), Just("]"), Just("{"), Just("}"), Just(","), Just(":"), Just("\"dns_name\""),
            Just("\"a\""), Just("\"score\""), Just("1"), Just("-1e999"), Just("NaN"), Just("\"LU\""),
            Just("\"utilization_category\""), Just("\\"), Just("\""), Just(GOOD), Just("null"),
        ], 0..30),
    ) {
        if let Ok(frame) = parse(&format!("[{}]", pieces.concat())) {
            for item in &frame.items {
                prop_assert!(!item.name.is_empty() && item.port > 0);
            }
        }
    }
}
