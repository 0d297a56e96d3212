//! What a backend may send, row by row (RFC 9110, RFC 9112).

use balancer::http::framing::Framing;
use balancer::http::{BadResponse, Method};

use crate::response;

#[test]
fn status_lines() {
    for (section, line, expected) in [
        ("9112 §4", "HTTP/1.1 200 OK", Ok(200)),
        ("9112 §4", "HTTP/1.0 100 ", Ok(100)),
        ("9112 §4", "HTTP/1.1 599", Ok(599)),
        ("9110 §2.5", "HTTP/1.2 200 OK", Ok(200)),
        ("9112 §4", "HTTP/1.1 200 a \t\u{e9}b ", Ok(200)),
        ("9112 §4", "HTTP/1.1  200 OK", Err(BadResponse::MalformedStatusLine)),
        ("9112 §4", "HTTP/1.1\t200 OK", Err(BadResponse::MalformedStatusLine)),
        ("9112 §4", "HTTP/1.1 200\tOK", Err(BadResponse::MalformedStatusLine)),
        ("9112 §4", "HTTP/1.1 20 OK", Err(BadResponse::MalformedStatusLine)),
        ("9112 §4", "HTTP/1.1 2000 OK", Err(BadResponse::MalformedStatusLine)),
        ("9112 §4", "HTTP/1.1 +20 OK", Err(BadResponse::MalformedStatusLine)),
        ("9112 §4", "HTTP/1.1 2x0 OK", Err(BadResponse::MalformedStatusLine)),
        ("9112 §4", "HTTP/1.1", Err(BadResponse::MalformedStatusLine)),
        ("9112 §4", "HTTP/1.1 200 \0", Err(BadResponse::MalformedStatusLine)),
        ("9112 §2.2", "HTTP/1.1 200 O\rK", Err(BadResponse::BareCr)),
        ("9112 §2.3", "http/1.1 200 OK", Err(BadResponse::NotHttp)),
        ("9112 §2.3", "HTTP/1.x 200 OK", Err(BadResponse::MalformedStatusLine)),
        ("9112 §2.3", "HTTP/2.0 200 OK", Err(BadResponse::UnsupportedVersion)),
        ("9110 §15", "HTTP/1.1 099 x", Err(BadResponse::InvalidStatus)),
        ("9110 §15", "HTTP/1.1 600 x", Err(BadResponse::InvalidStatus)),
        ("9112 §5.2", "HTTP/1.1 200 OK\r\nA: b\r\n c", Err(BadResponse::ObsFold)),
        ("9112 §5.1", "HTTP/1.1 200 OK\r\nA : b", Err(BadResponse::SpaceBeforeColon)),
        ("9110 §5.1", "HTTP/1.1 200 OK\r\n: b", Err(BadResponse::InvalidFieldName)),
        ("9110 §5.5", "HTTP/1.1 200 OK\r\nA: \0", Err(BadResponse::ControlInValue)),
        ("9112 §2.2", "HTTP/1.1 200 OK\r\nA: b\rc", Err(BadResponse::BareCr)),
    ] {
        let outcome = response(format!("{line}\r\n\r\n").as_bytes(), Method::Get, false);
        assert_eq!(
            outcome.map(|found| found.unwrap().0.status),
            expected,
            "RFC {section}: {line:?}"
        );
    }
}

#[test]
fn response_framing() {
    use Framing::{Chunked, Length, None as Empty, Tunnel, UntilClose};
    let get = (Method::Get, false);
    let head = (Method::Head, false);
    let upgrade = (Method::Get, true);
    for (section, to, text, expected) in [
        // (framing, keep alive)
        ("9112 §6.3", get, "1.1 200 a\r\nContent-Length: 5", Ok((Length(5), true))),
        ("9112 §6.3", get, "1.1 200 a\r\nTransfer-Encoding: Chunked", Ok((Chunked, true))),
        ("9112 §6.3", get, "1.1 200 a\r\nA: b", Ok((UntilClose, false))),
        ("9112 §6.3", get, "1.1 205 a\r\nContent-Length: 0", Ok((Length(0), true))),
        (
            "9112 §9.3",
            get,
            "1.1 200 a\r\nContent-Length: 5\r\nConnection: Close",
            Ok((Length(5), false)),
        ),
        ("9112 §9.3", get, "1.0 200 a\r\nContent-Length: 5", Ok((Length(5), false))),
        (
            "9112 §9.3",
            get,
            "1.0 200 a\r\nContent-Length: 5\r\nConnection: Keep-Alive",
            Ok((Length(5), true)),
        ),
        ("9112 §6.3", head, "1.1 200 a\r\nContent-Length: 5", Ok((Empty, true))),
        ("9112 §6.3", head, "1.1 200 a\r\nTransfer-Encoding: chunked", Ok((Empty, true))),
        ("9112 §6.3", head, "1.1 200 a\r\nA: b", Ok((Empty, true))),
        ("9112 §6.3", get, "1.1 304 a\r\nContent-Length: 5", Ok((Empty, true))),
        ("9112 §6.3", get, "1.1 204 a\r\nA: b", Ok((Empty, true))),
        ("9112 §6.3", get, "1.1 204 a\r\nContent-Length: 5", Ok((Empty, false))),
        ("9112 §6.3", get, "1.1 204 a\r\nTransfer-Encoding: chunked", Ok((Empty, false))),
        ("9110 §15.2", get, "1.1 100 a\r\nA: b", Ok((Empty, true))),
        ("9110 §15.2", get, "1.1 199 a\r\nContent-Length: 5", Ok((Empty, false))),
        (
            "9112 §6.1",
            get,
            "1.0 200 a\r\nTransfer-Encoding: chunked",
            Err(BadResponse::CodingInHttp10),
        ),
        (
            "9112 §6.3",
            get,
            "1.1 200 a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
            Err(BadResponse::BothLengthAndChunked),
        ),
        (
            "9112 §6.3",
            head,
            "1.1 200 a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
            Err(BadResponse::BothLengthAndChunked),
        ),
        (
            "9112 §6.3",
            get,
            "1.1 200 a\r\nTransfer-Encoding: gzip",
            Err(BadResponse::UnsupportedCoding),
        ),
        (
            "9112 §6.3",
            get,
            "1.1 200 a\r\nTransfer-Encoding: gzip, chunked",
            Err(BadResponse::UnsupportedCoding),
        ),
        (
            "9112 §6.1",
            get,
            "1.1 200 a\r\nTransfer-Encoding: chunked, chunked",
            Err(BadResponse::UnsupportedCoding),
        ),
        ("9112 §6.3", get, "1.1 200 a\r\nTransfer-Encoding: x, y", Ok((UntilClose, false))),
        ("9112 §6.3", head, "1.1 200 a\r\nTransfer-Encoding: x", Ok((Framing::None, true))),
        ("9112 §6.3", get, "1.1 204 a\r\nTransfer-Encoding: x", Ok((Framing::None, false))),
        (
            "9112 §6.3",
            get,
            "1.1 200 a\r\nTransfer-Encoding: x, gzip",
            Err(BadResponse::UnsupportedCoding),
        ),
        (
            "9112 §6.3",
            get,
            "1.1 200 a\r\nTransfer-Encoding: x, chunked",
            Err(BadResponse::UnsupportedCoding),
        ),
        ("9112 §6.3", get, "1.1 200 a\r\nTransfer-Encoding:", Err(BadResponse::UnsupportedCoding)),
        ("9112 §6.3", get, "1.1 200 a\r\nContent-Length: 5, 5", Ok((Length(5), true))),
        (
            "9112 §6.3",
            get,
            "1.1 200 a\r\nContent-Length: 5, 6",
            Err(BadResponse::ConflictingLengths),
        ),
        (
            "9112 §6.3",
            get,
            "1.1 200 a\r\nContent-Length: 5\r\nContent-Length: 6",
            Err(BadResponse::ConflictingLengths),
        ),
        ("9112 §6.3", get, "1.1 200 a\r\nContent-Length: -5", Err(BadResponse::InvalidLength)),
        ("9112 §6.3", head, "1.1 200 a\r\nContent-Length: x", Err(BadResponse::InvalidLength)),
        (
            "9110 §7.8",
            upgrade,
            "1.1 101 a\r\nConnection: upgrade\r\nUpgrade: WebSocket",
            Ok((Tunnel, false)),
        ),
        (
            "9110 §7.8",
            get,
            "1.1 101 a\r\nConnection: upgrade\r\nUpgrade: websocket",
            Err(BadResponse::UnaskedUpgrade),
        ),
        ("9110 §7.8", upgrade, "1.1 101 a\r\nUpgrade: h2c", Err(BadResponse::UnaskedUpgrade)),
        ("9110 §7.8", upgrade, "1.0 101 a\r\nUpgrade: websocket", Err(BadResponse::UnaskedUpgrade)),
        ("9110 §7.8", upgrade, "1.1 200 a\r\nContent-Length: 1", Ok((Length(1), true))),
    ] {
        let outcome =
            response(format!("HTTP/{text}\r\n\r\n").as_bytes(), to.0, to.1).map(|found| {
                let (head, plan) = found.unwrap();
                assert_eq!(plan.is_interim, head.status < 200 && head.status != 101);
                (plan.framing, plan.keep_alive)
            });
        assert_eq!(outcome, expected, "RFC {section}: {text:?} to {to:?}");
    }
    // RFC 9110 §8.6: the length that was not sent is still told.
    let declared = |text: &str, method| {
        response(format!("HTTP/1.1 {text}\r\n\r\n").as_bytes(), method, false)
            .unwrap()
            .unwrap()
            .1
            .declared_length
    };
    assert_eq!(declared("200 a\r\nContent-Length: 7, 7", Method::Head), Some(7));
    assert_eq!(declared("304 a\r\nContent-Length: 7", Method::Get), Some(7));
    assert_eq!(declared("204 a\r\nContent-Length: 7", Method::Head), None);
    assert_eq!(declared("200 a\r\nContent-Length: 7", Method::Get), None);
}
