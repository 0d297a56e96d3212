//! The head for the other side, in our own words (RFC 9110 §7.6, RFC 9112 §3.2, §9).
//!
//! Decides: which fields go on. Order, letter case and repeated lines are kept; what concerns one
//! connection only is dropped, and said anew where the next connection needs it; the framing is the one
//! that was decided, never the one that was received. Refuses to know why a framing was chosen.
//!
//! Invariant: every byte written is ours or was checked by a parser; a head written here is accepted by
//! our own parser with the same meaning.

use std::net::IpAddr;

use super::field::{Field, FieldKind, Fields, Span};
use super::forwarded::{PeerTrust, forwarding_fields};
use super::framing::{
    ConnectionOptions, Framing, RequestPlan, is_connection_listed, names_websocket,
};
use super::request::{RequestHead, Version};
use super::response::ResponseHead;
use crate::time::DATE_BYTES;

/// What a request head for a backend depends on besides the client's head.
#[derive(Clone, Copy, Debug)]
pub struct RequestForward<'a> {
    /// The peer that sent the request.
    pub client: IpAddr,
    /// The authority sent as Host if the request names none (HTTP/1.0).
    pub backend_authority: &'a str,
    /// The framing towards the backend, and whether to pass on upgrade, expectation and `TE: trailers`.
    pub plan: RequestPlan,
    /// Whether the peer's own forwarding fields are believed.
    pub trust: PeerTrust,
    /// Write `Forwarded` (RFC 7239) even if the request has none.
    pub forwarded: bool,
}

/// What a response head for a client depends on besides the backend's head.
#[derive(Clone, Copy, Debug)]
pub struct ResponseForward<'a> {
    /// The framing towards the client.
    pub framing: Framing,
    /// Content-Length as mere information, with [`Framing::None`] (HEAD, 304).
    pub declared_length: Option<u64>,
    /// Say that the connection ends with this response. Implied by [`Framing::UntilClose`].
    pub close: bool,
    /// The client speaks HTTP/1.0 and the connection is kept as it asked.
    pub keep_alive_10: bool,
    /// The client takes trailers; without it, or without chunks, Trailer is dropped.
    pub accepts_trailers: bool,
    /// The Date to add if the backend gave none.
    pub date: &'a [u8; DATE_BYTES],
}

/// Appends the request head for a backend to `out`.
pub fn request_head(out: &mut Vec<u8>, head: &RequestHead, bytes: &[u8], with: &RequestForward) {
    request_head_asking(out, head, bytes, with, None);
}

/// As [`request_head`]; with `conditions`, whole field lines, in place of the client's own preconditions and
/// Range (RFC 9111 §4.3.1). No line at all asks for the whole representation.
pub fn request_head_asking(
    out: &mut Vec<u8>,
    head: &RequestHead,
    bytes: &[u8],
    with: &RequestForward,
    conditions: Option<&[u8]>,
) {
    let host = head.host.of(bytes);
    out.reserve(bytes.len() + 2 * host.len() + with.backend_authority.len() + OWN_FIELDS_BYTES);
    let (prefix, target) = head.target.origin(head.method, bytes);
    for part in [head.method_span.of(bytes), b" ", prefix.as_bytes(), target, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    if !head.fields.has(FieldKind::Host) {
        let host = if host.is_empty() { with.backend_authority.as_bytes() } else { host };
        line(out, b"Host", host);
    }
    let listed = Listed::of(&head.fields, bytes);
    let max_forwards = with.plan.max_forwards;
    for field in head.fields.lines() {
        match field.kind {
            FieldKind::Host => line(out, field.name.of(bytes), host),
            FieldKind::ContentLength | FieldKind::Expect => {}
            FieldKind::XForwardedFor | FieldKind::Forwarded => {}
            FieldKind::XForwardedProto | FieldKind::XForwardedHost
                if with.trust != PeerTrust::Trusted => {}
            FieldKind::Trailer if with.plan.framing != Framing::Chunked => {}
            FieldKind::MaxForwards if max_forwards.is_some() => {}
            kind if kind.is_hop_by_hop() => {}
            kind if conditions.is_some() && kind.is_condition() => {}
            _ if listed.has(field) => {}
            _ => copy(out, field, bytes),
        }
    }
    out.extend_from_slice(conditions.unwrap_or_default());
    if let Some(left) = max_forwards {
        number_line(out, b"Max-Forwards", left.saturating_sub(1));
    }
    via(out, head.version);
    forwarding_fields(out, head, bytes, with);
    framing(out, with.plan.framing);
    if with.plan.expects_continue {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    out.extend_from_slice(match (with.plan.upgrade, with.plan.accepts_trailers) {
        (true, true) => b"Connection: Upgrade, TE\r\nUpgrade: websocket\r\nTE: trailers\r\n\r\n",
        (true, false) => b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        (false, true) => b"Connection: TE\r\nTE: trailers\r\n\r\n",
        (false, false) => b"\r\n".as_slice(),
    });
}

/// Appends the head of a final response (or of an accepted 101) for a client to `out`.
pub fn response_head(out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8], with: &ResponseForward) {
    response_head_saying(out, head, bytes, with, b"");
}

/// As [`response_head`], with `extra`, whole field lines of ours, behind the fields that go on.
pub fn response_head_saying(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    bytes: &[u8],
    with: &ResponseForward,
    extra: &[u8],
) {
    out.reserve(bytes.len() + OWN_FIELDS_BYTES);
    status_line(out, head, bytes);
    let keeps_trailer = with.framing == Framing::Chunked && with.accepts_trailers;
    response_fields(out, head, bytes, keeps_trailer);
    if !head.fields.has(FieldKind::Date) {
        line(out, b"Date", with.date);
    }
    out.extend_from_slice(extra);
    via(out, head.version);
    response_framing(out, with.framing, with.declared_length);
    let is_last = with.close || with.framing == Framing::UntilClose;
    // A 426 must name the protocol to upgrade to (RFC 9110 §15.5.22).
    let names_upgrade = with.framing == Framing::Tunnel
        || head.status == 426 && names_websocket(&head.fields, bytes);
    out.extend_from_slice(match (names_upgrade, is_last) {
        (true, true) if with.framing != Framing::Tunnel => {
            b"Connection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n".as_slice()
        }
        (true, _) => b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        (false, _) => connection_end(is_last, with.keep_alive_10),
    });
}

/// What a response says of its connection when there is no upgrade, and the end of its head.
pub(crate) const fn connection_end(is_last: bool, keep_alive_10: bool) -> &'static [u8] {
    match (is_last, keep_alive_10) {
        (true, _) => b"Connection: close\r\n\r\n",
        (false, true) => b"Connection: keep-alive\r\n\r\n",
        (false, false) => b"\r\n",
    }
}

/// The framing of a response, or its length as mere information.
pub(crate) fn response_framing(out: &mut Vec<u8>, known: Framing, declared_length: Option<u64>) {
    match (known, declared_length) {
        (Framing::None, Some(length)) => number_line(out, b"Content-Length", length),
        (known, _) => framing(out, known),
    }
}

/// Appends an interim response (1xx) for an HTTP/1.1 client to `out`.
pub fn interim_head(out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8]) {
    out.reserve(bytes.len() + OWN_FIELDS_BYTES);
    status_line(out, head, bytes);
    response_fields(out, head, bytes, false);
    via(out, head.version);
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn status_line(out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(head.status));
    out.push(b' ');
    out.extend_from_slice(head.reason.of(bytes));
    out.extend_from_slice(b"\r\n");
}

fn response_fields(out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8], keeps_trailer: bool) {
    let listed = Listed::of(&head.fields, bytes);
    for field in head.fields.lines() {
        match field.kind {
            FieldKind::ContentLength => {}
            FieldKind::Trailer if !keeps_trailer => {}
            kind if kind.is_hop_by_hop() => {}
            _ if listed.has(field) => {}
            _ => copy(out, field, bytes),
        }
    }
}

/// The fields a Connection field removes. Only names unknown to us can be removed by it: those we know
/// either never go on or always do (RFC 9110 §7.6.1: an option must not name a field meant for everybody).
pub(crate) struct Listed<'a> {
    fields: &'a Fields,
    bytes: &'a [u8],
    is_any: bool,
}

impl<'a> Listed<'a> {
    pub(crate) fn of(fields: &'a Fields, bytes: &'a [u8]) -> Self {
        let is_any = fields.has(FieldKind::Connection)
            && ConnectionOptions::of(fields, bytes).is_none_or(|options| options.names_others);
        Self { fields, bytes, is_any }
    }

    pub(crate) fn has(&self, field: &Field) -> bool {
        self.is_any
            && field.kind == FieldKind::Other
            && is_connection_listed(self.fields, self.bytes, field.name.of(self.bytes))
    }
}

/// The version is the one the message was received in (RFC 9110 §7.6.3).
pub(crate) fn via(out: &mut Vec<u8>, received: Version) {
    out.extend_from_slice(match received {
        Version::Http10 => b"Via: 1.0 balancer\r\n",
        Version::Http11 => b"Via: 1.1 balancer\r\n",
    });
}

fn framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(length) => number_line(out, b"Content-Length", length),
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::None | Framing::UntilClose | Framing::Tunnel => {}
    }
}

/// Copies a field line; in one piece if it is spelled the way we spell it.
pub(crate) fn copy(out: &mut Vec<u8>, field: &Field, bytes: &[u8]) {
    let whole = Span { start: field.name.start, end: field.value.end.saturating_add(2) }.of(bytes);
    let name_len = field.name.len();
    let is_ours = field.value.start == field.name.end + 2
        && whole.get(name_len + 1) == Some(&b' ')
        && whole.ends_with(b"\r\n");
    if is_ours {
        out.extend_from_slice(whole);
    } else {
        line(out, field.name.of(bytes), field.value.of(bytes));
    }
}

pub(crate) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn number_line(out: &mut Vec<u8>, name: &[u8], number: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    decimal(out, number);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal.
pub(crate) fn decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; DECIMAL_DIGITS_MAX];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Digits of 2^64-1.
const DECIMAL_DIGITS_MAX: usize = 20;
/// Room for what we add to a head; a hint only.
const OWN_FIELDS_BYTES: usize = 320;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::framing;

    const DATE: &[u8; DATE_BYTES] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    /// What is always written, behind the fields that go on.
    const OWN: &str = "Via: 1.1 balancer\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n\
                       X-Forwarded-Host: h\r\n";

    fn request(input: &str) -> String {
        let mut head = RequestHead::default();
        head.parse(input.as_bytes()).unwrap();
        let with = RequestForward {
            client: "192.0.2.1".parse().unwrap(),
            backend_authority: "b:8080",
            plan: framing::of_request(&head, input.as_bytes()).unwrap(),
            trust: PeerTrust::Unknown,
            forwarded: false,
        };
        let mut out = Vec::new();
        request_head(&mut out, &head, input.as_bytes(), &with);
        String::from_utf8(out).unwrap()
    }

    /// The fields of a GET with these fields behind `Host: h`, without what is always written.
    fn request_fields(fields: &str) -> String {
        let out = request(&format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
        let fields = out
            .strip_prefix("GET / HTTP/1.1\r\nHost: h\r\n")
            .unwrap()
            .strip_suffix("\r\n")
            .unwrap();
        fields.replace(OWN, "|")
    }

    #[test]
    fn request_lines_and_hosts() {
        for (input, line, host) in [
            // RFC 9112 §3.2: byte for byte; §3.2.2: the authority of the target is the host
            (
                "GET /a/../%2E//?b=%20&\"<>\\^`{|} HTTP/1.1\r\nhOST:h",
                "GET /a/../%2E//?b=%20&\"<>\\^`{|}",
                "hOST: h",
            ),
            ("OPTIONS * HTTP/1.1\r\nHost: h", "OPTIONS *", "Host: h"),
            ("OPTIONS http://t:1 HTTP/1.1\r\nHost: h", "OPTIONS *", "Host: t:1"),
            ("OPTIONS http://t/ HTTP/1.1\r\nHost: h", "OPTIONS /", "Host: t"),
            ("OPTIONS http://t?q HTTP/1.1\r\nHost: h", "OPTIONS /?q", "Host: t"),
            ("GET HTTP://t HTTP/1.1\r\nHost: h", "GET /", "Host: t"),
            ("GET http://t?q HTTP/1.1\r\nHost: h", "GET /?q", "Host: t"),
            ("GET http://t/p?q HTTP/1.1\r\nHost:  h ", "GET /p?q", "Host: t"),
            ("M-X / HTTP/1.7\r\nHost: h", "M-X /", "Host: h"),
            ("GET http://t/p HTTP/1.0", "GET /p", "Host: t"),
            ("GET / HTTP/1.0", "GET /", "Host: b:8080"),
        ] {
            let out = request(&format!("{input}\r\n\r\n"));
            assert!(
                out.starts_with(&format!("{line} HTTP/1.1\r\n{host}\r\n")),
                "{input:?} became {out:?}"
            );
            assert_eq!(out.to_lowercase().matches("\r\nhost:").count(), 1);
        }
    }

    #[test]
    fn request_fields_go_on_or_do_not() {
        for (input, expected) in [
            ("", "|"),
            // Order, case, repeats; whitespace around the value is ours (RFC 9110 §5.5)
            ("b:1\r\nA:  2 \r\nb:\t3\r\nC: \r\n", "b: 1\r\nA: 2\r\nb: 3\r\nC: \r\n|"),
            // RFC 9110 §7.6.1
            ("Connection: close, X-Hop\r\nx-hop: 1\r\nX-Hop: 2\r\nX-Ho: 3\r\n", "X-Ho: 3\r\n|"),
            ("Connection: a\r\nConnection: ,b ,\r\na: 1\r\nB: 2\r\nc: 3\r\n", "c: 3\r\n|"),
            (
                "Connection: Cookie, Authorization, host\r\nCookie: 1\r\nAuthorization: 2\r\n",
                "Cookie: 1\r\nAuthorization: 2\r\n|",
            ),
            (
                "Connection: Cache-Control, Via\r\nVia: 1.1 x\r\nCache-Control: a\r\n",
                "Via: 1.1 x\r\nCache-Control: a\r\n|",
            ),
            (
                "Keep-Alive: 1\r\nProxy-Connection: close\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n",
                "|",
            ),
            ("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n", "|"),
            ("Upgrade: websocket\r\n", "|"),
            (
                "Connection: upgrade\r\nUpgrade: h2c, WebSocket\r\n",
                "|Connection: Upgrade\r\nUpgrade: websocket\r\n",
            ),
            ("TE: gzip, trailers\r\n", "|Connection: TE\r\nTE: trailers\r\n"),
            (
                "Connection: upgrade\r\nUpgrade: websocket\r\nTE: trailers\r\n",
                "|Connection: Upgrade, TE\r\nUpgrade: websocket\r\nTE: trailers\r\n",
            ),
            // Framing is restated (RFC 9112 §6), whatever Connection says
            ("Content-Length: 007, 7\r\nContent-Length: 7\r\n", "|Content-Length: 7\r\n"),
            ("Connection: Content-Length\r\ncontent-length: 0\r\n", "|Content-Length: 0\r\n"),
            (
                "transfer-encoding: Chunked\r\nTrailer: a\r\n",
                "Trailer: a\r\n|Transfer-Encoding: chunked\r\n",
            ),
            (
                "Connection: transfer-encoding\r\nTransfer-Encoding:chunked\r\n",
                "|Transfer-Encoding: chunked\r\n",
            ),
            ("Trailer: a\r\n", "|"),
            // RFC 9110 §10.1.1
            (
                "Expect: 100-Continue\r\nContent-Length: 1\r\n",
                "|Content-Length: 1\r\nExpect: 100-continue\r\n",
            ),
            ("Expect: 100-continue\r\n", "|"),
            // Max-Forwards means nothing to GET (RFC 9110 §7.6.2)
            ("Max-Forwards: 3\r\n", "Max-Forwards: 3\r\n|"),
            (
                "Range: a\r\nIf-Range: b\r\nIf-None-Match: c\r\n",
                "Range: a\r\nIf-Range: b\r\nIf-None-Match: c\r\n|",
            ),
        ] {
            assert_eq!(request_fields(input), expected, "{input:?}");
        }
    }

    #[test]
    fn max_forwards_is_counted_down() {
        let fields = |method: &str, value: &str| {
            request(&format!("{method} / HTTP/1.1\r\nHost: h\r\nMax-Forwards: {value}\r\n\r\n"))
        };
        assert!(fields("OPTIONS", "10").contains("\r\nMax-Forwards: 9\r\n"));
        assert!(fields("TRACE", "1").contains("\r\nMax-Forwards: 0\r\n"));
        assert!(fields("TRACE", "x").contains("\r\nMax-Forwards: x\r\n"));
        assert!(fields("POST", "1").contains("\r\nMax-Forwards: 1\r\n"));
    }

    fn response(input: &str, change: impl FnOnce(&mut ResponseForward)) -> String {
        let mut head = ResponseHead::default();
        head.parse(input.as_bytes()).unwrap();
        let mut with = ResponseForward {
            framing: Framing::None,
            declared_length: None,
            close: false,
            keep_alive_10: false,
            accepts_trailers: false,
            date: DATE,
        };
        change(&mut with);
        let mut out = Vec::new();
        response_head(&mut out, &head, input.as_bytes(), &with);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn response_heads() {
        let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        // Hop-by-hop and listed fields removed (RFC 9110 §7.6.1), Date added (§6.6.1), Via (§7.6.3)
        let out = response(
            "HTTP/1.0 200 Fine, \t\u{e9}\r\nServer:x\r\nConnection: close, X-A, Set-Cookie\r\nX-A: 1\r\n\
             Set-Cookie: a\r\nSet-Cookie: b\r\nKeep-Alive: 1\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n",
            |with| with.framing = Framing::Length(5),
        );
        let expected = format!(
            "HTTP/1.1 200 Fine, \t\u{e9}\r\nServer: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n{date}\
             Via: 1.0 balancer\r\nContent-Length: 5\r\n\r\n"
        );
        assert_eq!(out, expected);

        // The Date of the backend stays; an empty reason keeps its space (RFC 9112 §4)
        let out = response(
            "HTTP/1.1 599\r\ndate: x\r\nTrailer: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            |with| {
                with.framing = Framing::Chunked;
                with.close = true;
            },
        );
        let expected = "HTTP/1.1 599 \r\ndate: x\r\nVia: 1.1 balancer\r\nTransfer-Encoding: chunked\r\n\
                        Connection: close\r\n\r\n";
        assert_eq!(out, expected);

        let tail = |input: &str, change: &dyn Fn(&mut ResponseForward)| {
            let out =
                response(&format!("HTTP/1.1 {input}\r\nDate: x\r\n\r\n"), |with| change(with));
            out.split_once("Via: 1.1 balancer\r\n").unwrap().1.to_owned()
        };
        assert_eq!(
            tail("200 OK", &|with| with.framing = Framing::UntilClose),
            "Connection: close\r\n\r\n"
        );
        assert_eq!(
            tail("200 OK", &|with| with.keep_alive_10 = true),
            "Connection: keep-alive\r\n\r\n"
        );
        assert_eq!(
            tail("304 x\r\nContent-Length: 9", &|with| with.declared_length = Some(9)),
            "Content-Length: 9\r\n\r\n"
        );
        assert_eq!(tail("204 x\r\nContent-Length: 9", &|_| {}), "\r\n");
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(
            tail("101 x\r\nUpgrade: websocket", &|with| with.framing = Framing::Tunnel),
            upgrade
        );
        // RFC 9110 §15.5.22
        assert_eq!(tail("426 x\r\nUpgrade: websocket", &|_| {}), upgrade);
        assert_eq!(tail("426 x\r\nUpgrade: h2c", &|_| {}), "\r\n");
        let out = response("HTTP/1.1 200 OK\r\nTrailer: a\r\n\r\n", |with| {
            with.framing = Framing::Chunked;
            with.accepts_trailers = true;
        });
        assert!(out.contains("\r\nTrailer: a\r\n"));
    }

    #[test]
    fn a_cache_puts_its_own_lines_in() {
        let input = b"GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"c\"\r\nIf-Match: *\r\nRange: bytes=0-1\r\n\
                      If-Range: \"c\"\r\nIf-Modified-Since: x\r\nIf-Unmodified-Since: x\r\nA: 1\r\n\r\n";
        let mut head = RequestHead::default();
        head.parse(input).unwrap();
        let with = RequestForward {
            client: "192.0.2.1".parse().unwrap(),
            backend_authority: "b:8080",
            plan: framing::of_request(&head, input).unwrap(),
            trust: PeerTrust::Unknown,
            forwarded: false,
        };
        // RFC 9111 §4.3.1: our preconditions in the place of the client's
        for conditions in ["", "If-None-Match: \"o\"\r\n"] {
            let mut out = Vec::new();
            request_head_asking(&mut out, &head, input, &with, Some(conditions.as_bytes()));
            let expected = format!("GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\n{conditions}{OWN}\r\n");
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        let input = b"HTTP/1.1 200 OK\r\nDate: x\r\n\r\n";
        let mut head = ResponseHead::default();
        head.parse(input).unwrap();
        let with = ResponseForward {
            framing: Framing::Length(1),
            declared_length: None,
            close: false,
            keep_alive_10: false,
            accepts_trailers: false,
            date: DATE,
        };
        let mut out = Vec::new();
        response_head_saying(&mut out, &head, input, &with, b"A: 1\r\n");
        let expected =
            b"HTTP/1.1 200 OK\r\nDate: x\r\nA: 1\r\nVia: 1.1 balancer\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn interim_heads() {
        let input = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\nConnection: x\r\nX: 1\r\nContent-Length: 3\r\n\r\n";
        let mut head = ResponseHead::default();
        head.parse(input).unwrap();
        let mut out = Vec::new();
        interim_head(&mut out, &head, input);
        assert_eq!(out, b"HTTP/1.1 103 Early Hints\r\nLink: a\r\nVia: 1.1 balancer\r\n\r\n");
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 255, 1234, u64::MAX] {
            let mut out = Vec::new();
            decimal(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
