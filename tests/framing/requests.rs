//! What a client may send, row by row (RFC 9110, RFC 9112; RFC 3986, 6455 and 9113 where named).

use balancer::http::Reject;
use balancer::http::framing::{self, Framing};

use crate::request;

#[test]
fn request_lines() {
    let ok: Result<(), Reject> = Ok(());
    for (section, line, expected) in [
        ("9112 §3", "GET / HTTP/1.1", ok),
        ("9112 §3", "get / HTTP/1.1", ok),
        ("9112 §3", "M!#$%&'*+-.^_`|~ / HTTP/1.1", ok),
        ("9112 §3", "GET  / HTTP/1.1", Err(Reject::MalformedRequestLine)),
        ("9112 §3", "GET /  HTTP/1.1", Err(Reject::MalformedRequestLine)),
        ("9112 §3", "GET\t/ HTTP/1.1", Err(Reject::MalformedRequestLine)),
        ("9112 §3", "GET / HTTP/1.1 ", Err(Reject::MalformedRequestLine)),
        ("9112 §3", "GET /\tHTTP/1.1", Err(Reject::MalformedRequestLine)),
        ("9112 §3", "GET / a HTTP/1.1", Err(Reject::MalformedRequestLine)),
        ("9112 §3", "GET", Err(Reject::MalformedRequestLine)),
        ("9112 §3", "GE(T / HTTP/1.1", Err(Reject::MalformedRequestLine)),
        ("9112 §3", "G\0T / HTTP/1.1", Err(Reject::MalformedRequestLine)),
        ("9112 §2.2", "GET /\r HTTP/1.1", Err(Reject::InvalidTarget)),
        ("9112 §2.2", "GET / HTTP/1.1\r", Err(Reject::BareCr)),
        ("9112 §2.2", "GET\r / HTTP/1.1", Err(Reject::BareCr)),
        ("1945 §4.1", "GET /", Err(Reject::Http09)),
        ("9113 §3.4", "PRI * HTTP/2.0", Err(Reject::Http2Preface)),
        ("9110 §2.5", "GET / HTTP/1.9", ok),
        ("9112 §2.3", "GET / HTTP/1.10", Err(Reject::MalformedRequestLine)),
        ("9112 §2.3", "GET / HTTP/1", Err(Reject::MalformedRequestLine)),
        ("9112 §2.3", "GET / http/1.1", Err(Reject::MalformedRequestLine)),
        ("9112 §2.3", "GET / HTTP/+1.1", Err(Reject::MalformedRequestLine)),
        ("9112 §2.3", "GET / HTTP/11", Err(Reject::MalformedRequestLine)),
        ("9112 §2.3", "GET / HTTPS/1.1", Err(Reject::MalformedRequestLine)),
        ("9110 §15.6.6", "GET / HTTP/2.0", Err(Reject::UnsupportedVersion)),
        ("9110 §15.6.6", "GET / HTTP/3.1", Err(Reject::UnsupportedVersion)),
        ("9110 §15.6.6", "GET / HTTP/0.9", Err(Reject::UnsupportedVersion)),
        ("9112 §3.2", "GET a HTTP/1.1", Err(Reject::InvalidTargetForm)),
        ("9112 §3.2", "GET h:80 HTTP/1.1", Err(Reject::InvalidTargetForm)),
        ("9112 §3.2", "GET ?q HTTP/1.1", Err(Reject::InvalidTargetForm)),
        ("9112 §3.2", "GET /a#b HTTP/1.1", Err(Reject::InvalidTarget)),
        ("9112 §3.2", "GET /\u{e9} HTTP/1.1", Err(Reject::InvalidTarget)),
        ("9112 §3.2", "GET /\x7f HTTP/1.1", Err(Reject::InvalidTarget)),
        ("9112 §3.2", "GET /\0 HTTP/1.1", Err(Reject::InvalidTarget)),
        ("9112 §3.2.1", "GET //a/../b?c?d//%zz HTTP/1.1", ok),
        ("9112 §3.2.2", "GET http://h HTTP/1.1", ok),
        ("9112 §3.2.2", "GET hTTp://other:8080/a?b HTTP/1.1", ok),
        ("9112 §3.2.2", "GET http:/h/ HTTP/1.1", Err(Reject::InvalidTargetForm)),
        ("9112 §3.2.2", "GET 1http://h/ HTTP/1.1", Err(Reject::InvalidTargetForm)),
        ("9110 §4.2.1", "GET http:///a HTTP/1.1", Err(Reject::InvalidAuthority)),
        ("9110 §4.2.1", "GET http://?a HTTP/1.1", Err(Reject::InvalidAuthority)),
        ("9110 §4.2.4", "GET http://u:p@h/ HTTP/1.1", Err(Reject::InvalidAuthority)),
        ("3986 §3.2.3", "GET http://h:x/ HTTP/1.1", Err(Reject::InvalidAuthority)),
        ("9110 §7.4", "GET https://h/ HTTP/1.1", Err(Reject::ForeignScheme)),
        ("9110 §7.4", "GET ftp://h/ HTTP/1.1", Err(Reject::ForeignScheme)),
        ("9112 §3.2.3", "CONNECT h:443 HTTP/1.1", Err(Reject::ConnectMethod)),
        ("9112 §3.2.4", "OPTIONS * HTTP/1.1", ok),
        ("9112 §3.2.4", "GET * HTTP/1.1", Err(Reject::InvalidTargetForm)),
        ("9112 §3.2.4", "OPTIONS ** HTTP/1.1", Err(Reject::InvalidTargetForm)),
    ] {
        let outcome = request(format!("{line}\r\nHost: h\r\n\r\n").as_bytes());
        assert_eq!(
            outcome.map(|found| assert!(found.is_some())),
            expected,
            "RFC {section}: {line:?}"
        );
    }
}

#[test]
fn hosts() {
    for (section, input, expected) in [
        ("9112 §3.2", "/ HTTP/1.1\r\nHost: a", Ok("a")),
        ("9112 §3.2", "/ HTTP/1.1\r\nHost:\t a:80 ", Ok("a:80")),
        ("9112 §3.2", "/ HTTP/1.1\r\nA: b", Err(Reject::MissingHost)),
        ("9112 §3.2", "http://t/ HTTP/1.1\r\nA: b", Err(Reject::MissingHost)),
        ("9112 §3.2", "/ HTTP/1.0\r\nA: b", Ok("")),
        ("9112 §3.2", "/ HTTP/1.1\r\nHost: a\r\nhOST: a", Err(Reject::RepeatedHost)),
        ("9112 §3.2", "/ HTTP/1.0\r\nHost: a\r\nHost: b", Err(Reject::RepeatedHost)),
        ("9112 §3.2", "http://t/ HTTP/1.1\r\nHost: a\r\nHost: b", Err(Reject::RepeatedHost)),
        ("9112 §3.2", "/ HTTP/1.1\r\nHost: a b", Err(Reject::InvalidHost)),
        ("9112 §3.2", "/ HTTP/1.1\r\nHost: u@a", Err(Reject::InvalidHost)),
        ("9112 §3.2", "/ HTTP/1.1\r\nHost: a:b", Err(Reject::InvalidHost)),
        ("9112 §3.2", "/ HTTP/1.1\r\nHost: http://a", Err(Reject::InvalidHost)),
        ("9112 §3.2", "/ HTTP/1.0\r\nHost: a/b", Err(Reject::InvalidHost)),
        ("9112 §3.2", "/ HTTP/1.1\r\nHost: [::1]:80", Ok("[::1]:80")),
        ("9110 §4.2.1", "/ HTTP/1.1\r\nHost:", Err(Reject::InvalidHost)),
        ("9110 §4.2.1", "/ HTTP/1.1\r\nHost: :80", Err(Reject::InvalidHost)),
        ("9112 §3.2.2", "http://t:1/ HTTP/1.1\r\nHost: a", Ok("t:1")),
        ("9112 §3.2.2", "http://t/ HTTP/1.0\r\nA: b", Ok("t")),
        ("9112 §3.2.2", "http://t/ HTTP/1.1\r\nHost: a@b", Err(Reject::InvalidHost)),
    ] {
        let input = format!("GET {input}\r\n\r\n");
        let outcome =
            request(input.as_bytes()).map(|found| found.unwrap().0.host.of(input.as_bytes()));
        assert_eq!(outcome, expected.map(str::as_bytes), "RFC {section}: {input:?}");
    }
}

#[test]
fn request_framing() {
    for (section, version, fields, expected) in [
        ("9112 §6.3", 1, "", Ok(Framing::None)),
        ("9112 §6.2", 1, "Content-Length: 0", Ok(Framing::Length(0))),
        ("9112 §6.2", 0, "Content-Length: 10", Ok(Framing::Length(10))),
        ("9110 §8.6", 1, "Content-Length: 007", Ok(Framing::Length(7))),
        (
            "9110 §8.6",
            1,
            "Content-Length: 9223372036854775807",
            Ok(Framing::Length(i64::MAX as u64)),
        ),
        ("9110 §8.6", 1, "Content-Length: 9223372036854775808", Err(Reject::InvalidLength)),
        ("9110 §8.6", 1, "Content-Length: 18446744073709551617", Err(Reject::InvalidLength)),
        ("9110 §8.6", 1, "Content-Length: 99999999999999999999999999", Err(Reject::InvalidLength)),
        ("9110 §8.6", 1, "Content-Length:", Err(Reject::InvalidLength)),
        ("9110 §8.6", 1, "Content-Length: +1", Err(Reject::InvalidLength)),
        ("9110 §8.6", 1, "Content-Length: -1", Err(Reject::InvalidLength)),
        ("9110 §8.6", 1, "Content-Length: 0x1", Err(Reject::InvalidLength)),
        ("9110 §8.6", 1, "Content-Length: 1 0", Err(Reject::InvalidLength)),
        ("9110 §8.6", 1, "Content-Length: 1.0", Err(Reject::InvalidLength)),
        ("9110 §8.6", 1, "Content-Length: 1_0", Err(Reject::InvalidLength)),
        ("9110 §8.6", 1, "Content-Length: \u{661}", Err(Reject::InvalidLength)),
        ("9110 §8.6", 1, "Content-Length: 1;a", Err(Reject::InvalidLength)),
        ("9110 §8.6", 1, "Content-Length: \"1\"", Err(Reject::InvalidLength)),
        ("9112 §6.3", 1, "Content-Length: 5, 5,05", Ok(Framing::Length(5))),
        ("9112 §6.3", 1, "Content-Length: 5\r\ncontent-length: 5", Ok(Framing::Length(5))),
        ("9112 §6.3", 1, "Content-Length: 5, 6", Err(Reject::ConflictingLengths)),
        ("9112 §6.3", 1, "Content-Length: 5\r\nContent-Length: 6", Err(Reject::ConflictingLengths)),
        ("9112 §6.3", 1, "Content-Length: 5\r\nContent-Length:", Err(Reject::InvalidLength)),
        ("9112 §6.3", 1, "Content-Length: 5,", Err(Reject::InvalidLength)),
        ("9112 §6.3", 1, "Content-Length: ,5", Err(Reject::InvalidLength)),
        ("9112 §7.1", 1, "Transfer-Encoding: chunked", Ok(Framing::Chunked)),
        ("9112 §7", 1, "Transfer-Encoding: \t cHUNKED\t", Ok(Framing::Chunked)),
        ("9112 §6.1", 0, "Transfer-Encoding: chunked", Err(Reject::CodingInHttp10)),
        (
            "9112 §6.1",
            0,
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
            Err(Reject::CodingInHttp10),
        ),
        (
            "9112 §6.1",
            1,
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
            Err(Reject::BothLengthAndChunked),
        ),
        (
            "9112 §6.1",
            1,
            "Content-Length: 0\r\nTransfer-Encoding: x",
            Err(Reject::BothLengthAndChunked),
        ),
        (
            "9112 §6.1",
            1,
            "Content-Length: a\r\nTransfer-Encoding: chunked",
            Err(Reject::InvalidLength),
        ),
        ("9112 §6.1", 1, "Transfer-Encoding: chunked, chunked", Err(Reject::RepeatedChunked)),
        (
            "9112 §6.1",
            1,
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            Err(Reject::RepeatedChunked),
        ),
        ("9112 §6.3", 1, "Transfer-Encoding: chunked, gzip", Err(Reject::ChunkedNotLast)),
        (
            "9112 §6.3",
            1,
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            Err(Reject::ChunkedNotLast),
        ),
        ("9112 §6.3", 1, "Transfer-Encoding: gzip", Err(Reject::ChunkedNotLast)),
        ("9112 §6.3", 1, "Transfer-Encoding: identity", Err(Reject::ChunkedNotLast)),
        ("9112 §6.1", 1, "Transfer-Encoding: gzip, chunked", Err(Reject::UnknownCoding)),
        ("9112 §6.1", 1, "Transfer-Encoding: x, chunked", Err(Reject::UnknownCoding)),
        ("9112 §6.1", 1, "Transfer-Encoding: x", Err(Reject::UnknownCoding)),
        ("9112 §6.1", 1, "Transfer-Encoding: xchunked", Err(Reject::UnknownCoding)),
        ("9112 §6.1", 1, "Transfer-Encoding: x;a=b, chunked", Err(Reject::UnknownCoding)),
        ("9112 §6.1", 1, "Transfer-Encoding:", Err(Reject::MalformedCoding)),
        ("9112 §6.1", 1, "Transfer-Encoding: ,chunked", Err(Reject::MalformedCoding)),
        ("9112 §6.1", 1, "Transfer-Encoding: chunked,", Err(Reject::MalformedCoding)),
        ("9112 §6.1", 1, "Transfer-Encoding: chunked chunked", Err(Reject::MalformedCoding)),
        ("9112 §6.1", 1, "Transfer-Encoding: \"chunked\"", Err(Reject::MalformedCoding)),
        ("9112 §6.1", 1, "Transfer-Encoding: chunked;q=1", Err(Reject::MalformedCoding)),
        ("9110 §5.5", 1, "Transfer-Encoding: \x0bchunked", Err(Reject::ControlInValue)),
        ("9110 §5.5", 1, "Transfer-Encoding: chunked\x0c", Err(Reject::ControlInValue)),
        ("9112 §5.1", 1, "Transfer-Encoding : chunked", Err(Reject::SpaceBeforeColon)),
        ("9112 §5.2", 1, "Transfer-Encoding:\r\n chunked", Err(Reject::ObsFold)),
        ("9112 §2.2", 1, "A: b\rTransfer-Encoding: chunked", Err(Reject::BareCr)),
        ("9112 §2.2", 1, "A: b\nTransfer-Encoding: chunked", Err(Reject::BareLf)),
        ("9110 §5.1", 1, "Transfer_Encoding: chunked", Ok(Framing::None)),
        (
            "9110 §7.6.1",
            1,
            "Connection: content-length\r\nContent-Length: 4",
            Ok(Framing::Length(4)),
        ),
    ] {
        let input = format!("POST / HTTP/1.{version}\r\nHost: h\r\n{fields}\r\n\r\n")
            .replace("\r\n\r\n\r\n", "\r\n\r\n");
        let outcome = request(input.as_bytes()).map(|found| found.unwrap().1.framing);
        assert_eq!(outcome, expected, "RFC {section}: {fields:?}");
    }
}

#[test]
fn request_plans() {
    let plan = |method: &str, version: u8, fields: &str| {
        let input = format!("{method} / HTTP/1.{version}\r\nHost: h\r\n{fields}\r\n\r\n");
        request(input.as_bytes()).map(|found| found.unwrap().1)
    };
    // RFC 9112 §9.3
    for (version, fields, keep_alive) in [
        (1, "A: b", true),
        (1, "Connection: close", false),
        (1, "Connection: x\r\nConnection: y , CLOSE", false),
        (1, "Connection: closed", true),
        (1, "Proxy-Connection: close", true),
        (0, "A: b", false),
        (0, "Connection: Keep-Alive", true),
        (0, "Connection: keep-alive, close", false),
        (0, "Proxy-Connection: keep-alive", false),
    ] {
        assert_eq!(
            plan("GET", version, fields).unwrap().keep_alive,
            keep_alive,
            "1.{version} {fields:?}"
        );
    }
    let many = |count: usize| format!("Connection: {}", vec!["a"; count].join(","));
    assert!(plan("GET", 1, &many(framing::CONNECTION_OPTIONS_MAX)).is_ok());
    let one_more = plan("GET", 1, &many(framing::CONNECTION_OPTIONS_MAX + 1));
    assert_eq!(one_more, Err(Reject::TooManyConnectionOptions));
    // RFC 9110 §7.8, RFC 6455 §4.1
    for (method, version, fields, upgrade) in [
        ("GET", 1, "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket", true),
        ("GET", 1, "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: x, websocket", true),
        ("GET", 1, "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0", true),
        ("GET", 1, "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1", false),
        ("GET", 1, "Connection: upgrade\r\nUpgrade: h2c", false),
        ("GET", 1, "Connection: upgrade\r\nUpgrade: websocket/13", false),
        ("GET", 1, "Connection: close\r\nUpgrade: websocket", false),
        ("GET", 0, "Connection: upgrade\r\nUpgrade: websocket", false),
        ("POST", 1, "Connection: upgrade\r\nUpgrade: websocket", false),
    ] {
        assert_eq!(
            plan(method, version, fields).unwrap().upgrade,
            upgrade,
            "{method} 1.{version} {fields:?}"
        );
    }
    // RFC 9110 §10.1.1
    for (version, fields, expected) in [
        (1, "Expect: 100-Continue\r\nContent-Length: 1", Ok(true)),
        (1, "Expect: 100-continue\r\nTransfer-Encoding: chunked", Ok(true)),
        (1, "Expect: 100-continue", Ok(false)),
        (1, "Expect: 100-continue\r\nContent-Length: 0", Ok(false)),
        (1, "Expect:\r\nContent-Length: 1", Ok(false)),
        (1, "Expect: 200-ok\r\nContent-Length: 1", Err(Reject::UnknownExpectation)),
        (1, "Expect: 100-continue, a=b", Err(Reject::UnknownExpectation)),
        (1, "Expect: 100-continue\r\nExpect: b", Err(Reject::UnknownExpectation)),
        (0, "Expect: 100-continue\r\nContent-Length: 1", Ok(false)),
        (0, "Expect: 200-ok", Ok(false)),
    ] {
        assert_eq!(
            plan("POST", version, fields).map(|plan| plan.expects_continue),
            expected,
            "{fields:?}"
        );
    }
    // RFC 9110 §10.1.4
    for (version, fields, expected) in [
        (1, "TE: gzip, Trailers", true),
        (1, "TE: trailer", false),
        (1, "A: b", false),
        (0, "TE: trailers", false),
    ] {
        assert_eq!(plan("GET", version, fields).unwrap().accepts_trailers, expected, "{fields:?}");
    }
    // RFC 9110 §7.6.2
    for (method, fields, expected) in [
        ("OPTIONS", "Max-Forwards: 0", Some(0)),
        ("TRACE", "Max-Forwards: 10", Some(10)),
        ("TRACE", "Max-Forwards: 10\r\nMax-Forwards: 0", Some(0)),
        ("OPTIONS", "Max-Forwards: x", None),
        ("GET", "Max-Forwards: 0", None),
    ] {
        assert_eq!(plan(method, 1, fields).unwrap().max_forwards, expected, "{method} {fields:?}");
    }
}
