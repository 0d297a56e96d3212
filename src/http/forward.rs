//! The head for the other side, in our own words (RFC 9110 §7.6, RFC 9112 §3.2, §9).
//!
//! Decides: which fields go on. Order, letter case and repeated lines are kept; what concerns one
//! connection only is dropped, and said anew where the next connection needs it; the framing is the one
//! that was decided, never the one that was received. Refuses to know why a framing was chosen.
//!
//! Invariant: every byte written is ours or was checked by a parser; a head written here is accepted by
//! our own parser with the same meaning.

use std::io::Write;
use std::net::IpAddr;

use super::field::{Field, FieldKind, Fields, Span};
use super::framing::{
    ConnectionOptions, Framing, RequestPlan, is_connection_listed, names_websocket,
};
use super::request::{RequestHead, Version};
use super::response::ResponseHead;
use crate::time::DATE_BYTES;

/// How much we believe of what a client says about those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerTrust {
    /// No proxies are configured: `X-Forwarded-For` and `Forwarded` are appended to, so that the last
    /// element is what we saw; `-Proto` and `-Host` are what we saw.
    #[default]
    Unknown,
    /// One of our proxies: as above, but its `-Proto` and `-Host` stay.
    Trusted,
    /// Proxies are configured and this is none of them: all four are replaced.
    Untrusted,
}

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
            _ if listed.has(field) => {}
            _ => copy(out, field, bytes),
        }
    }
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
    out.reserve(bytes.len() + OWN_FIELDS_BYTES);
    status_line(out, head, bytes);
    let keeps_trailer = with.framing == Framing::Chunked && with.accepts_trailers;
    response_fields(out, head, bytes, keeps_trailer);
    if !head.fields.has(FieldKind::Date) {
        line(out, b"Date", with.date);
    }
    via(out, head.version);
    match (with.framing, with.declared_length) {
        (Framing::None, Some(length)) => number_line(out, b"Content-Length", length),
        (known, _) => framing(out, known),
    }
    let is_last = with.close || with.framing == Framing::UntilClose;
    // A 426 must name the protocol to upgrade to (RFC 9110 §15.5.22).
    let names_upgrade = with.framing == Framing::Tunnel
        || head.status == 426 && names_websocket(&head.fields, bytes);
    out.extend_from_slice(match (names_upgrade, is_last) {
        (true, true) if with.framing != Framing::Tunnel => {
            b"Connection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n".as_slice()
        }
        (true, _) => b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        (false, true) => b"Connection: close\r\n\r\n",
        (false, false) if with.keep_alive_10 => b"Connection: keep-alive\r\n\r\n",
        (false, false) => b"\r\n",
    });
}

/// Appends an interim response (1xx) for an HTTP/1.1 client to `out`.
pub fn interim_head(out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8]) {
    out.reserve(bytes.len() + OWN_FIELDS_BYTES);
    status_line(out, head, bytes);
    response_fields(out, head, bytes, false);
    via(out, head.version);
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8]) {
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
struct Listed<'a> {
    fields: &'a Fields,
    bytes: &'a [u8],
    is_any: bool,
}

impl<'a> Listed<'a> {
    fn of(fields: &'a Fields, bytes: &'a [u8]) -> Self {
        let is_any = fields.has(FieldKind::Connection)
            && ConnectionOptions::of(fields, bytes).is_none_or(|options| options.names_others);
        Self { fields, bytes, is_any }
    }

    fn has(&self, field: &Field) -> bool {
        self.is_any
            && field.kind == FieldKind::Other
            && is_connection_listed(self.fields, self.bytes, field.name.of(self.bytes))
    }
}

/// `X-Forwarded-For`, `-Proto`, `-Host` and, where it is in use, `Forwarded` (RFC 7239).
fn forwarding_fields(out: &mut Vec<u8>, head: &RequestHead, bytes: &[u8], with: &RequestForward) {
    let fields = &head.fields;
    let is_believed = with.trust != PeerTrust::Untrusted;
    // One line, so that a backend that reads the first or the last of several is not led astray.
    out.extend_from_slice(b"X-Forwarded-For: ");
    if is_believed {
        elements_before_ours(out, fields, bytes, FieldKind::XForwardedFor);
    }
    address(out, with.client);
    out.extend_from_slice(b"\r\n");
    let keeps = |kind| with.trust == PeerTrust::Trusted && fields.has(kind);
    if !keeps(FieldKind::XForwardedProto) {
        out.extend_from_slice(b"X-Forwarded-Proto: http\r\n");
    }
    let host = head.host.of(bytes);
    if !keeps(FieldKind::XForwardedHost) && !host.is_empty() {
        line(out, b"X-Forwarded-Host", host);
    }
    if with.forwarded || fields.has(FieldKind::Forwarded) {
        out.extend_from_slice(b"Forwarded: ");
        if is_believed {
            elements_before_ours(out, fields, bytes, FieldKind::Forwarded);
        }
        out.extend_from_slice(b"for=");
        let client = with.client.to_canonical();
        if client.is_ipv6() {
            out.extend_from_slice(b"\"[");
            address(out, client);
            out.extend_from_slice(b"]\"");
        } else {
            address(out, client);
        }
        if !host.is_empty() {
            out.extend_from_slice(b";host=\"");
            out.extend_from_slice(host);
            out.push(b'"');
        }
        out.extend_from_slice(b";proto=http\r\n");
    }
}

fn elements_before_ours(out: &mut Vec<u8>, fields: &Fields, bytes: &[u8], kind: FieldKind) {
    for value in fields.values(kind, bytes).filter(|value| !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
}

/// An IPv4 address dotted, as an IPv4-mapped IPv6 address, too.
fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            decimal(out, u64::from(first));
            for octet in rest {
                out.push(b'.');
                decimal(out, u64::from(octet));
            }
        }
        IpAddr::V6(address) => {
            // Writing into a Vec cannot fail.
            let _ = write!(out, "{address}");
        }
    }
}

/// The version is the one the message was received in (RFC 9110 §7.6.3).
fn via(out: &mut Vec<u8>, received: Version) {
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
fn copy(out: &mut Vec<u8>, field: &Field, bytes: &[u8]) {
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

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn number_line(out: &mut Vec<u8>, name: &[u8], number: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    decimal(out, number);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal.
pub(super) fn decimal(out: &mut Vec<u8>, mut number: u64) {
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
