//! What a stored response is stored under (RFC 9111 §2), and which other keys a response speaks of.
//!
//! Decides: which requests ask for the same thing: same scheme, host in lower case, default port left out,
//! path and query as sent. Refuses to decode or tidy a path. What a trusted peer says of scheme and host goes
//! on to the origin, so it is part of the key.

use crate::http::field::trim_ows;
use crate::http::{FieldKind, PeerTrust, RequestHead, ResponseHead};

/// Appends the key of a request's target to `out`: `http://host/path?query`, and behind a line feed the
/// X-Forwarded-Host of a trusted peer.
pub fn write(out: &mut Vec<u8>, head: &RequestHead, bytes: &[u8], trust: PeerTrust) {
    write_origin(out, head, bytes, trust);
    let (prefix, path) = head.target.origin(head.method, bytes);
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(path);
    write_forwarded_host(out, head, bytes, trust);
}

/// The key of an absolute URL: `http://host/path?query`, as a request for it would have. None if it is no such URL.
pub fn of_url(url: &[u8]) -> Option<Vec<u8>> {
    let at = scheme_end(url)?;
    let scheme = match &url[..at] {
        http if http.eq_ignore_ascii_case(b"http") => "http",
        https if https.eq_ignore_ascii_case(b"https") => "https",
        _ => return None,
    };
    let rest = url[at + 1..].strip_prefix(b"//")?;
    let end = rest.iter().position(|&b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let fragment = path.iter().position(|&b| b == b'#').unwrap_or(path.len());
    let path = &path[..fragment];
    let is_written = |&b: &u8| b.is_ascii_graphic();
    let host = without_default_port(authority, scheme);
    if host.is_empty() || !authority.iter().chain(path).all(is_written) {
        return None;
    }
    let mut key = format!("{scheme}://").into_bytes();
    key.extend(host.iter().map(u8::to_ascii_lowercase));
    if path.first() != Some(&b'/') {
        key.push(b'/');
    }
    key.extend_from_slice(path);
    Some(key)
}

/// Gives the keys a successful unsafe request invalidates to `each`: that of the target, and those of
/// Location and Content-Location of the same origin (RFC 9111 §4.4). `scratch` is overwritten. Whether the
/// response is successful is for the caller to ask, see [`invalidates`].
pub fn each_invalid(
    head: &RequestHead,
    bytes: &[u8],
    response: &ResponseHead,
    response_bytes: &[u8],
    trust: PeerTrust,
    scratch: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]),
) {
    scratch.clear();
    write(scratch, head, bytes, trust);
    each(scratch);
    for kind in [FieldKind::Location, FieldKind::ContentLocation] {
        for reference in response.fields.values(kind, response_bytes) {
            scratch.clear();
            if write_reference(scratch, head, bytes, reference, trust) {
                each(scratch);
            }
        }
    }
}

/// True for the answers to an unsafe request that tell of a change: 2xx and 3xx (RFC 9111 §4.4).
pub const fn invalidates(status: u16) -> bool {
    matches!(status, 200..=399)
}

/// True if a reference of the response names the target of the request itself.
pub(super) fn is_target(
    head: &RequestHead,
    bytes: &[u8],
    trust: PeerTrust,
    reference: &[u8],
) -> bool {
    let (mut target, mut other) = (Vec::new(), Vec::new());
    write(&mut target, head, bytes, trust);
    write_reference(&mut other, head, bytes, reference, trust) && target == other
}

/// Appends the key of a URI reference, resolved against the target (RFC 3986 §5.2); false if it has another
/// origin.
fn write_reference(
    out: &mut Vec<u8>,
    head: &RequestHead,
    bytes: &[u8],
    reference: &[u8],
    trust: PeerTrust,
) -> bool {
    let end = reference.iter().position(|&b| b == b'#').unwrap_or(reference.len());
    let reference = &reference[..end];
    write_origin(out, head, bytes, trust);
    let mut rest = reference;
    let (_, base) = head.target.origin(head.method, bytes);
    let scheme = scheme(head, bytes, trust);
    if let Some(at) = scheme_end(reference) {
        if !reference[..at].eq_ignore_ascii_case(scheme.as_bytes()) {
            return false;
        }
        rest = &reference[at + 1..];
        if !rest.starts_with(b"//") {
            return false;
        }
    }
    if let Some(authority) = rest.strip_prefix(b"//") {
        let end = authority.iter().position(|&b| b == b'/' || b == b'?').unwrap_or(authority.len());
        if !is_same_authority(&authority[..end], head.host.of(bytes), scheme) {
            return false;
        }
        rest = &authority[end..];
        if rest.first() != Some(&b'/') {
            out.push(b'/');
        }
        append_path(out, b"", rest);
    } else {
        match rest.first() {
            None => append_path(out, b"", base),
            Some(b'/') => append_path(out, b"", rest),
            Some(b'?') => append_path(out, path_of(base), rest),
            Some(_) => {
                let path = path_of(base);
                let folder = path.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
                append_path(out, &path[..folder], rest);
            }
        }
    }
    write_forwarded_host(out, head, bytes, trust);
    true
}

/// Appends a path made of two parts without its dot segments (RFC 3986 §5.2.4), and the query as it is.
fn append_path(out: &mut Vec<u8>, folder: &[u8], rest: &[u8]) {
    let start = out.len();
    let path = path_of(rest);
    out.extend_from_slice(folder);
    out.extend_from_slice(path);
    remove_dots(out, start);
    if out.get(start).is_none() && out.last() != Some(&b'/') {
        out.push(b'/');
    }
    out.extend_from_slice(&rest[path.len()..]);
}

fn remove_dots(out: &mut Vec<u8>, start: usize) {
    let is_dotted = |segment: &[u8]| segment == b"." || segment == b"..";
    if !out[start..].split(|&b| b == b'/').any(is_dotted) {
        return;
    }
    let path = out.split_off(start);
    let mut segments = path.split(|&b| b == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." => {}
            b".." => {
                let parent = out[start..].iter().rposition(|&b| b == b'/').unwrap_or(0);
                out.truncate(start + parent);
            }
            name => {
                out.push(b'/');
                out.extend_from_slice(name);
                continue;
            }
        }
        if is_last {
            out.push(b'/');
        }
    }
}

fn path_of(path_and_query: &[u8]) -> &[u8] {
    let end = path_and_query.iter().position(|&b| b == b'?').unwrap_or(path_and_query.len());
    &path_and_query[..end]
}

/// Where the scheme of a reference ends, if it has one (RFC 3986 §3.1).
fn scheme_end(reference: &[u8]) -> Option<usize> {
    let at = reference.iter().position(|&b| matches!(b, b':' | b'/' | b'?'))?;
    let is_scheme = reference[at] == b':' && reference.first()?.is_ascii_alphabetic();
    is_scheme.then_some(at)
}

fn write_origin(out: &mut Vec<u8>, head: &RequestHead, bytes: &[u8], trust: PeerTrust) {
    let scheme = scheme(head, bytes, trust);
    out.extend_from_slice(scheme.as_bytes());
    out.extend_from_slice(b"://");
    let host = without_default_port(head.host.of(bytes), scheme);
    out.extend(host.iter().map(u8::to_ascii_lowercase));
}

fn write_forwarded_host(out: &mut Vec<u8>, head: &RequestHead, bytes: &[u8], trust: PeerTrust) {
    if trust != PeerTrust::Trusted {
        return;
    }
    for value in head.fields.values(FieldKind::XForwardedHost, bytes) {
        out.push(b'\n');
        out.extend(value.iter().map(u8::to_ascii_lowercase));
    }
}

fn scheme(head: &RequestHead, bytes: &[u8], trust: PeerTrust) -> &'static str {
    let mut said = head.fields.elements(FieldKind::XForwardedProto, bytes);
    match said.next() {
        Some(scheme)
            if trust == PeerTrust::Trusted && trim_ows(scheme).eq_ignore_ascii_case(b"https") =>
        {
            "https"
        }
        _ => "http",
    }
}

fn is_same_authority(one: &[u8], other: &[u8], scheme: &str) -> bool {
    without_default_port(one, scheme).eq_ignore_ascii_case(without_default_port(other, scheme))
}

/// RFC 9110 §4.2.3: an empty port and the scheme's own are the same.
fn without_default_port<'a>(authority: &'a [u8], scheme: &str) -> &'a [u8] {
    let Some(at) = authority.iter().rposition(|&b| b == b':') else { return authority };
    let mut port = &authority[at + 1..];
    while let [b'0', rest @ ..] = port {
        port = rest;
    }
    let default: &[u8] = if scheme == "https" { b"443" } else { b"80" };
    if port.is_empty() || port == default { &authority[..at] } else { authority }
}
