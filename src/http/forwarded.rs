//! Who sent the request, told to the backend: `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` (RFC 7239).
//!
//! Decides: what is kept of what the client said itself. Invariant: the last element of
//! `X-Forwarded-For` and of `Forwarded` is the peer we saw.

use std::io::Write;
use std::net::IpAddr;

use super::field::{FieldKind, Fields};
use super::forward::{RequestForward, decimal, line};
use super::network::Network;
use super::request::RequestHead;

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

impl PeerTrust {
    /// How much is believed of `peer` when these proxies are configured.
    pub fn of(peer: IpAddr, proxies: &[Network]) -> Self {
        match proxies {
            [] => Self::Unknown,
            _ if proxies.iter().any(|network| network.contains(peer)) => Self::Trusted,
            _ => Self::Untrusted,
        }
    }
}

/// `X-Forwarded-For`, `-Proto`, `-Host` and, where it is in use, `Forwarded` (RFC 7239).
pub(super) fn forwarding_fields(
    out: &mut Vec<u8>,
    head: &RequestHead,
    bytes: &[u8],
    with: &RequestForward,
) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{forward, framing};

    fn request_with(input: &str, change: impl FnOnce(&mut RequestForward)) -> String {
        let mut head = RequestHead::default();
        head.parse(input.as_bytes()).unwrap();
        let mut with = RequestForward {
            client: "192.0.2.1".parse().unwrap(),
            backend_authority: "b:8080",
            plan: framing::of_request(&head, input.as_bytes()).unwrap(),
            trust: PeerTrust::Unknown,
            forwarded: false,
        };
        change(&mut with);
        let mut out = Vec::new();
        forward::request_head(&mut out, &head, input.as_bytes(), &with);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn who_is_believed() {
        let network = |first: &str, bits| Network::new(first.parse().unwrap(), bits).unwrap();
        let proxies = [network("10.0.0.0", 8), network("2001:db8::", 32)];
        for (peer, trust) in [
            ("10.1.2.3", PeerTrust::Trusted),
            ("::ffff:10.1.2.3", PeerTrust::Trusted),
            ("2001:db8::7", PeerTrust::Trusted),
            ("127.0.0.1", PeerTrust::Untrusted),
            ("::1", PeerTrust::Untrusted),
        ] {
            let peer = peer.parse().unwrap();
            assert_eq!(PeerTrust::of(peer, &proxies), trust, "{peer}");
            assert_eq!(PeerTrust::of(peer, &[]), PeerTrust::Unknown);
        }
    }

    #[test]
    fn the_client_is_named_last() {
        let input = "GET / HTTP/1.1\r\nHost: h:1\r\nX-Forwarded-For: 1\r\nConnection: X-Forwarded-For\r\n\
                     X-Forwarded-For:\r\nx-forwarded-for: 2, 3\r\nForwarded: for=4\r\nX-Forwarded-Proto: https\r\n\
                     X-Forwarded-Host: x\r\nX-Forwarded-Port: 5\r\n\r\n";
        let tail = |trust, client: &str| {
            let out = request_with(input, |with| {
                with.trust = trust;
                with.client = client.parse().unwrap();
            });
            let own = "GET / HTTP/1.1\r\nHost: h:1\r\n";
            out.strip_prefix(own).unwrap().strip_suffix("\r\n").unwrap().to_owned()
        };
        assert_eq!(
            tail(PeerTrust::Unknown, "::ffff:192.0.2.10"),
            "X-Forwarded-Port: 5\r\nVia: 1.1 balancer\r\nX-Forwarded-For: 1, 2, 3, 192.0.2.10\r\n\
             X-Forwarded-Proto: http\r\nX-Forwarded-Host: h:1\r\n\
             Forwarded: for=4, for=192.0.2.10;host=\"h:1\";proto=http\r\n"
        );
        assert_eq!(
            tail(PeerTrust::Trusted, "10.0.0.255"),
            "X-Forwarded-Proto: https\r\nX-Forwarded-Host: x\r\nX-Forwarded-Port: 5\r\nVia: 1.1 balancer\r\n\
             X-Forwarded-For: 1, 2, 3, 10.0.0.255\r\n\
             Forwarded: for=4, for=10.0.0.255;host=\"h:1\";proto=http\r\n"
        );
        assert_eq!(
            tail(PeerTrust::Untrusted, "2001:db8::1"),
            "X-Forwarded-Port: 5\r\nVia: 1.1 balancer\r\nX-Forwarded-For: 2001:db8::1\r\n\
             X-Forwarded-Proto: http\r\nX-Forwarded-Host: h:1\r\n\
             Forwarded: for=\"[2001:db8::1]\";host=\"h:1\";proto=http\r\n"
        );
        let out = request_with("GET / HTTP/1.0\r\n\r\n", |with| with.forwarded = true);
        assert!(out.ends_with(
            "Via: 1.0 balancer\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n\
             Forwarded: for=192.0.2.1;proto=http\r\n\r\n"
        ));
    }
}
