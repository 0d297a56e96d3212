//! Tables for `values`.

use super::Wrong::{Because, NotOne, TooLarge, TooSmall};
use super::*;

#[test]
fn numbers_and_ports() {
    for (text, wanted) in [
        ("1", Ok(1)),
        ("65535", Ok(65535)),
        ("0", Err(TooSmall)),
        ("-1", Err(TooSmall)),
        ("65536", Err(TooLarge)),
        ("99999999999999999999999", Err(TooLarge)),
        ("", Err(NotOne)),
        ("-", Err(NotOne)),
        ("80a", Err(NotOne)),
        ("+80", Err(NotOne)),
        ("8 0", Err(NotOne)),
        ("0x50", Err(NotOne)),
        ("٨٠", Err(NotOne)),
    ] {
        assert_eq!(port(text), wanted, "{text:?}");
    }
}

#[test]
fn durations() {
    for (text, ms) in [
        ("30", 30_000),
        ("0.5", 500),
        (".5", 500),
        ("1.", 1000),
        ("1ms", 1),
        ("1.5s", 1500),
        ("2m", 120_000),
        ("24h", 86_400_000),
        ("10 s", 10_000),
        ("0.001", 1),
        ("86400", 86_400_000),
    ] {
        assert_eq!(duration(text, TIME_MIN, TIME_MAX), Ok(Duration::from_millis(ms)), "{text:?}");
    }
    for (text, wrong) in [
        ("0", TooSmall),
        ("0.0009", TooSmall),
        ("-1", TooSmall),
        ("-5s", TooSmall),
        ("24.001h", TooLarge),
        ("86401", TooLarge),
        (&"9".repeat(400), TooLarge),
        ("", NotOne),
        ("-", NotOne),
        ("s", NotOne),
        ("nan", NotOne),
        ("NaN", NotOne),
        ("inf", NotOne),
        ("1e3", NotOne),
        ("1.2.3", NotOne),
        (".", NotOne),
        ("10d", NotOne),
        ("5S", NotOne),
        ("--5", NotOne),
    ] {
        assert_eq!(duration(text, TIME_MIN, TIME_MAX), Err(wrong), "{text:?}");
    }
    let seconds = Duration::from_secs;
    assert_eq!(duration_range("1s..60s"), Ok((seconds(1), seconds(60))));
    assert_eq!(duration_range("2..2"), Ok((seconds(2), seconds(2))));
    assert_eq!(duration_range("60s..1s"), Err(Because("which ends before it begins")));
    assert_eq!(duration_range("1s"), Err(NotOne));
    assert_eq!(duration_range("0..1"), Err(TooSmall));
    assert_eq!(duration_range("1..25h"), Err(TooLarge));
}

#[test]
fn sizes() {
    for (text, wanted) in [
        ("0", Ok(0)),
        ("512", Ok(512)),
        ("512B", Ok(512)),
        ("32KiB", Ok(32 << 10)),
        ("32 kib", Ok(32 << 10)),
        ("1MiB", Ok(1 << 20)),
        ("2GB", Ok(2_000_000_000)),
        ("-1", Err(TooSmall)),
        ("-1KiB", Err(TooSmall)),
        ("16777216TiB", Err(TooLarge)),
        ("", Err(NotOne)),
        ("KiB", Err(NotOne)),
        ("1.5MiB", Err(NotOne)),
        ("1K", Err(NotOne)),
        ("1-2", Err(NotOne)),
    ] {
        assert_eq!(size(text, 0, i64::MAX as u64), wanted, "{text:?}");
    }
    assert_eq!(size("1023", 1024, 4096), Err(TooSmall));
    assert_eq!(size("5KiB", 1024, 4096), Err(TooLarge));
    assert_eq!(size_or_unlimited("unlimited"), Ok(None));
    assert_eq!(size_or_unlimited("1GiB"), Ok(Some(1 << 30)));
}

#[test]
fn listen_addresses() {
    for (text, wanted) in [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1", "127.0.0.1:8080"),
        ("[::1]:80", "[::1]:80"),
        ("[::1]", "[::1]:8080"),
        ("::1", "[::1]:8080"),
        (":80", "[::]:80"),
    ] {
        assert_eq!(listen(text, 8080), Ok(wanted.parse().unwrap()), "{text:?}");
    }
    for (text, wrong) in [
        ("127.0.0.1:65536", TooLarge),
        (":65536", TooLarge),
        ("[::1]:65536", TooLarge),
        ("127.0.0.1:", NotOne),
        ("127.0.0.1:+80", NotOne),
        (":", NotOne),
        ("", NotOne),
        ("256.0.0.1:80:1", NotOne),
        ("localhost:80", Because("a name; an IP address is needed")),
        ("8080", NotOne),
    ] {
        assert_eq!(listen(text, 8080), Err(wrong), "{text:?}");
    }
}

#[test]
fn backends() {
    for (text, host, port, score) in [
        ("app-1", "app-1", None, 100.0),
        ("app_1:3000", "app_1", Some(3000), 100.0),
        ("app-1=50", "app-1", None, 50.0),
        ("app-1.example.:3000=0", "app-1.example.", Some(3000), 0.0),
        ("10.0.0.1:80=87.5", "10.0.0.1", Some(80), 87.5),
        ("[::1]", "::1", None, 100.0),
        ("[2001:db8::1]:3000=1", "2001:db8::1", Some(3000), 1.0),
    ] {
        let read = backend(text).unwrap();
        assert_eq!(
            (read.host.as_str(), read.port, read.score.get()),
            (host, port, score),
            "{text:?}"
        );
    }
    for (text, wrong) in [
        ("", NotOne),
        (":80", NotOne),
        ("=5", NotOne),
        ("a b", NotOne),
        ("a:", NotOne),
        ("a:x", NotOne),
        ("a..b", NotOne),
        ("--port", NotOne),
        ("a/b", NotOne),
        ("http://a", NotOne),
        ("[::1", NotOne),
        ("[app]", NotOne),
        ("[::1]x", NotOne),
        ("a=", NotOne),
        ("a=x", NotOne),
        ("a=nan", NotOne),
        ("a=-1", Because("whose score is too small")),
        ("a=100.1", Because("whose score is too large")),
        ("a=inf", Because("whose score is too large")),
        ("a:0", Because("whose port is too small")),
        ("a:65536", Because("whose port is too large")),
        ("::1", Because("and an IPv6 address needs brackets")),
        (&"a".repeat(64), NotOne),
        (&"a.".repeat(128), NotOne),
    ] {
        assert_eq!(backend(text).map(|_| ()), Err(wrong), "{text:?}");
    }
}

#[test]
fn agent_urls() {
    for (text, host, port, path) in [
        ("ws://agent:4000/ws", "agent", Some(4000), Some("/ws")),
        ("WS://agent", "agent", None, None),
        ("ws://agent/", "agent", None, Some("/")),
        ("ws://[::1]:4000?a=b", "::1", Some(4000), Some("/?a=b")),
    ] {
        let wanted = AgentUrl { host: host.into(), port, path: path.map(Into::into) };
        assert_eq!(agent(text), Ok(wanted), "{text:?}");
    }
    for (text, wrong) in [
        ("agent:4000", NotOne),
        ("http://agent", NotOne),
        ("ws://", NotOne),
        ("ws:///ws", NotOne),
        ("ws://agent/a b", NotOne),
        ("ws://agent/\n", NotOne),
        ("ws://agent/#x", NotOne),
        ("ws://agent:x/", NotOne),
        ("ws://agent:0", Because("whose port is too small")),
        ("ws://agent:70000", Because("whose port is too large")),
        ("wss://agent", Because("and TLS is not spoken to the agent")),
        ("ws://me:pw@agent", Because("and a user name has no place there")),
    ] {
        assert_eq!(agent(text), Err(wrong), "{text:?}");
    }
}

#[test]
fn words() {
    assert_eq!(cores("all"), Ok(CoreChoice::All));
    assert_eq!(cores("2-3,5"), Ok(CoreChoice::Listed(vec![2..=3, 5..=5])));
    for text in ["", "x", "3-2", "1,,2", "ALL"] {
        assert_eq!(cores(text), Err(NotOne), "{text:?}");
    }
    assert_eq!(balance("bounded"), Ok(Balance::Bounded));
    assert_eq!(balance("weighted-random"), Ok(Balance::WeightedRandom));
    assert_eq!(balance("p2c"), Ok(Balance::P2c));
    assert_eq!(balance("latency"), Ok(Balance::Latency));
    assert_eq!(balance("random"), Err(NotOne));
    for text in ["info", "WARN", "off", "warn,balancer=debug", "balancer::control=trace"] {
        assert_eq!(log_filter(text), Ok(text.to_owned()));
    }
    for text in ["", "inof", "balancer", "=info", "balancer=", "info,", "info/x"] {
        assert_eq!(log_filter(text), Err(NotOne), "{text:?}");
    }
}
