//! Properties: our parsers say what slow and simple ones say, what we write means what we read, and
//! nothing panics.

use balancer::http::field::FieldKind;
use balancer::http::framing::Framing;
use balancer::http::{
    BodyDecoder, Method, PeerTrust, Reject, RequestForward, RequestHead, ResponseForward,
    ResponseHead, forward,
};
use proptest::prelude::*;

use crate::{request, response};

const DATE: &[u8; 29] = b"Sun, 06 Nov 1994 08:49:37 GMT";

/// Names and values of field lines.
type Lines = Vec<(Vec<u8>, Vec<u8>)>;

/// A request head read the slow way: what stands in it if RFC 9112 §3 and §5 allow it at all.
fn slow_request(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>, Lines)> {
    let is_token = |s: &[u8]| {
        !s.is_empty()
            && s.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
    };
    let text: String = bytes.iter().map(|&b| char::from(b)).collect();
    let text = text.strip_prefix("\r\n").unwrap_or(&text);
    let end = text.find("\r\n\r\n")?;
    let mut lines =
        text[..end].split("\r\n").map(|line| line.chars().map(|c| c as u8).collect::<Vec<u8>>());
    let first = lines.next()?;
    let parts: Vec<&[u8]> = first.split(|&b| b == b' ').collect();
    let [method, target, version] = parts[..] else { return None };
    let is_version =
        version.len() == 8 && version.starts_with(b"HTTP/1.") && version[7].is_ascii_digit();
    let is_target = !target.is_empty() && target.iter().all(|&b| b.is_ascii_graphic() && b != b'#');
    if !is_token(method) || !is_target || !is_version {
        return None;
    }
    let mut fields = Vec::new();
    for line in lines {
        let colon = line.iter().position(|&b| b == b':')?;
        let mut value = line[colon + 1..].to_vec();
        while value.last().is_some_and(|b| b" \t".contains(b)) {
            value.pop();
        }
        while value.first().is_some_and(|b| b" \t".contains(b)) {
            value.remove(0);
        }
        if !is_token(&line[..colon]) || value.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
            return None;
        }
        fields.push((line[..colon].to_vec(), value));
    }
    Some((method.to_vec(), target.to_vec(), fields))
}

/// A chunked body read the slow way: data, and how long the message was. None unless it is complete.
fn slow_chunked(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line = |at: usize| {
        let len = bytes.get(at..)?.windows(2).position(|pair| pair == b"\r\n")?;
        Some((&bytes[at..at + len], at + len + 2))
    };
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let (head, next) = line(at)?;
        let digits = head.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let rest: Vec<u8> =
            head[digits..].iter().copied().skip_while(|b| b" \t".contains(b)).collect();
        let is_rest = head.len() == digits || rest.first() == Some(&b';');
        if digits == 0 || !is_rest || rest.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(&head[..digits]).ok()?, 16).ok()?;
        at = next;
        if size == 0 {
            break;
        }
        data.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    loop {
        let (field, next) = line(at)?;
        at = next;
        if field.is_empty() {
            return Some((data, at));
        }
        slow_request(&[b"A / HTTP/1.1\r\n", field, b"\r\n\r\n"].concat())?;
    }
}

/// One of these texts with up to four bytes put in, changed or taken out.
fn mutated(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => proptest::sample::select(&b"\r\n\t \0:;,#/*0158aAfG=+-\x7f\x80\xff\"@[]"[..]),
        1 => any::<u8>(),
    ];
    let change = (any::<proptest::sample::Index>(), 0..3u8, byte);
    (proptest::sample::select(texts), proptest::collection::vec(change, 0..5)).prop_map(
        |(text, changes)| {
            let mut bytes = text.as_bytes().to_vec();
            for (at, what, byte) in changes {
                let at = at.index(bytes.len() + 1);
                match what {
                    0 => bytes.insert(at, byte),
                    _ if at == bytes.len() => bytes.push(byte),
                    1 => bytes[at] = byte,
                    _ => drop(bytes.remove(at)),
                }
            }
            bytes
        },
    )
}

const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "\r\nPOST /a?b HTTP/1.1\r\nHost: h:80\r\nContent-Length: 5\r\nX-A:  b c \r\n\r\nhello",
    "PUT http://t/p HTTP/1.1\r\nhost:h\r\nTransfer-Encoding: chunked\r\nConnection: X-A, close\r\nX-A: 1\r\n\r\n0\r\n\r\n",
    "GET /w HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTE: trailers\r\nVia: 1.0 x\r\n\r\n",
    "OPTIONS * HTTP/1.0\r\nMax-Forwards: 8\r\nX-Forwarded-For: 1, 2\r\nForwarded: for=1\r\n\r\n",
    "PATCH / HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 1, 1\r\nExpect: 100-continue\r\nA:\r\n\r\n",
];
const CHUNKED: &[&str] = &[
    "0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "A;a=b\r\n0123456789\r\n1 ; c = \"d\"\r\nx\r\n0\r\n\r\n",
    "3\r\n\r\n0\r\n01\r\n\n\r\n00\r\nX-A: b\r\nHost: h\r\nC:d \r\n\r\nrest",
    "1\r\n0\r\n2\r\n\r\n\r\n0;x\r\nETag: a\r\n\r\n",
];
const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: a\r\n\r\nhello",
    "HTTP/1.0 200\r\nConnection: keep-alive, X-A\r\nX-A: b\r\nDate: x\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"a\"\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\nKeep-Alive: 5\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
];

fn decode_in_pieces(bytes: &[u8], cuts: &[usize]) -> Option<(Vec<u8>, Vec<u8>, usize)> {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let (mut data, mut at, mut cuts) = (Vec::new(), 0, cuts.iter().copied().cycle());
    while at < bytes.len() && !decoder.is_done() {
        let piece = cuts.next().unwrap_or(1).clamp(1, bytes.len() - at);
        let mut input = bytes[at..at + piece].to_vec();
        let decoded = decoder.decode(&mut input).ok()?;
        data.extend_from_slice(&input[decoded.data]);
        at += decoded.consumed;
    }
    decoder.is_done().then(|| (data, decoder.trailers().to_vec(), at))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn a_request_is_what_the_slow_reading_says(bytes in mutated(REQUESTS)) {
        let slow = slow_request(&bytes);
        match request(&bytes) {
            Ok(Some((head, _, len))) => {
                let (method, target, fields) = slow.expect("accepted, but the slow reading refuses it");
                prop_assert_eq!(head.method_span.of(&bytes), &method);
                prop_assert_eq!(head.target.span.of(&bytes), &target);
                let ours: Vec<_> = head.fields.lines().iter()
                    .map(|field| (field.name.of(&bytes).to_vec(), field.value.of(&bytes).to_vec()))
                    .collect();
                prop_assert_eq!(&ours, &fields);
                // And what a well-kept parser says that knows 1.0 and 1.1.
                let mut lines = [httparse::EMPTY_HEADER; 32];
                let mut other = httparse::Request::new(&mut lines);
                match other.parse(&bytes[..len]) {
                    Ok(status) => {
                        prop_assert_eq!(status, httparse::Status::Complete(len));
                        let others: Vec<_> = other.headers.iter()
                            .map(|field| (field.name.as_bytes().to_vec(), field.value.to_vec()))
                            .collect();
                        prop_assert_eq!(&ours, &others);
                    }
                    Err(fault) => prop_assert_eq!(fault, httparse::Error::Version),
                }
            }
            Ok(None) => prop_assert!(slow.is_none()),
            Err(
                Reject::MalformedRequestLine | Reject::InvalidTarget | Reject::ObsFold | Reject::InvalidFieldName
                | Reject::SpaceBeforeColon | Reject::ControlInValue | Reject::BareCr | Reject::BareLf
                | Reject::NotHttp | Reject::Http09 | Reject::UnsupportedVersion,
            ) => prop_assert!(slow.is_none() || bytes.starts_with(b"\r\n\r\n"), "refused: {:?}", slow),
            // Host, authority and framing rules are in the tables above.
            Err(_) => {}
        }
    }

    /// What we write is what we understood: our own parser reads the same message from it.
    #[test]
    fn a_forwarded_request_means_the_same(bytes in mutated(REQUESTS), trust in 0..3u8) {
        let Ok(Some((head, plan, len))) = request(&bytes) else { return Ok(()) };
        let with = RequestForward {
            client: "::ffff:192.0.2.1".parse().unwrap(),
            backend_authority: "b:1",
            plan,
            trust: [PeerTrust::Unknown, PeerTrust::Trusted, PeerTrust::Untrusted][usize::from(trust)],
            forwarded: trust == 0,
        };
        let mut out = Vec::new();
        forward::request_head(&mut out, &head, &bytes[..len], &with);
        let (again, plan_again, len_again) = request(&out).expect("we refuse our own head").expect("complete");
        prop_assert_eq!(len_again, out.len());
        prop_assert_eq!(plan_again.framing, plan.framing);
        prop_assert_eq!(plan_again.upgrade, plan.upgrade);
        prop_assert_eq!(plan_again.expects_continue, plan.expects_continue);
        prop_assert_eq!(plan_again.accepts_trailers, plan.accepts_trailers);
        prop_assert_eq!(again.method_span.of(&out), head.method_span.of(&bytes));
        let (slash, path) = head.target.origin(head.method, &bytes);
        prop_assert_eq!(again.target.span.of(&out), [slash.as_bytes(), path].concat());
        let host = head.host.of(&bytes);
        prop_assert_eq!(again.host.of(&out), if host.is_empty() { b"b:1" } else { host });
        let clients = again.fields.elements(FieldKind::XForwardedFor, &out).last();
        prop_assert_eq!(clients, Some(b"192.0.2.1".as_slice()));
        prop_assert_eq!(again.fields.elements(FieldKind::Via, &out).filter(|via| via.ends_with(b" balancer")).count(), 1);
    }

    #[test]
    fn a_forwarded_response_means_the_same(bytes in mutated(RESPONSES), is_head in any::<bool>()) {
        let method = if is_head { Method::Head } else { Method::Get };
        let Ok(Some((head, plan))) = response(&bytes, method, true) else { return Ok(()) };
        let with = ResponseForward {
            framing: plan.framing,
            declared_length: plan.declared_length,
            close: !plan.keep_alive,
            keep_alive_10: false,
            accepts_trailers: true,
            date: DATE,
        };
        let mut out = Vec::new();
        if plan.is_interim {
            forward::interim_head(&mut out, &head, &bytes);
        } else {
            forward::response_head(&mut out, &head, &bytes, &with);
        }
        let (again, plan_again) = response(&out, method, true).expect("we refuse our own head").expect("complete");
        prop_assert_eq!((again.status, again.reason.of(&out)), (head.status, head.reason.of(&bytes)));
        prop_assert_eq!(plan_again.framing, plan.framing);
        prop_assert_eq!(plan_again.declared_length, plan.declared_length);
        if !plan.is_interim {
            prop_assert_eq!(plan_again.keep_alive, plan.keep_alive);
            prop_assert!(again.fields.has(FieldKind::Date));
        }
    }

    #[test]
    fn a_chunked_body_is_what_the_slow_reading_says(
        bytes in mutated(CHUNKED),
        cuts in proptest::collection::vec(1..9usize, 1..6),
    ) {
        let whole = decode_in_pieces(&bytes, &[usize::MAX]);
        prop_assert_eq!(&decode_in_pieces(&bytes, &cuts), &whole);
        prop_assert_eq!(whole.map(|(data, _, consumed)| (data, consumed)), slow_chunked(&bytes));
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..200usize) {
        let _ = request(&bytes);
        let _ = response(&bytes, Method::Get, true);
        let _ = RequestHead::default().parse(&bytes);
        let _ = ResponseHead::default().parse(&bytes);
        let _ = RequestHead::default().parse(&[b"GET / HTTP/1.1\r\n", bytes.as_slice()].concat());
        let _ = ResponseHead::default().parse(&[b"HTTP/1.1 200 OK\r\n", bytes.as_slice()].concat());
        let _ = decode_in_pieces(&bytes, &[cut.max(1)]);
        let _ = decode_in_pieces(&[b"0\r\n", bytes.as_slice()].concat(), &[cut.max(1)]);
    }
}
