//! Who may ask what of the admin listener. Pure.
//!
//! It is not authentication: whoever reaches the address may look. Two roads are closed that lead through an operator's
//! browser: a page of another site that posts here (CSRF: a purge needs a field that a foreign page cannot send without
//! asking first, and we answer no such question), and a foreign name that resolves to our address (DNS rebinding: then
//! the Host is that name, while ours is an address or localhost).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Whether a request for `host` (its authority, port included) may look. A public listener may be known by names; no
/// browser sends none.
pub(super) fn may_look(host: &[u8], listens_on: SocketAddr) -> bool {
    !listens_on.ip().is_loopback() || host.is_empty() || is_own_host(host)
}

/// Whether a request for `host` with this value of [`PURGE_FIELD`] may change something; else why not.
pub(super) fn may_change(host: &[u8], field: Option<&[u8]>) -> Result<(), &'static str> {
    match field {
        _ if !is_own_host(host) => {
            Err("a purge needs the admin's address as its Host: an IP address or localhost\n")
        }
        Some(value) if !value.is_empty() => Ok(()),
        _ => Err("a purge needs the field  X-Balancer-Purge: yes\n"),
    }
}

/// No foreign name can be one of these.
fn is_own_host(authority: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(authority) else { return false };
    let host = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => text,
    };
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    host.eq_ignore_ascii_case("localhost") || host.parse::<Ipv4Addr>().is_ok()
}

/// What a purge must carry, whatever its value.
pub const PURGE_FIELD: &str = "x-balancer-purge";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_name_is_no_own_host() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9900",
            "10.0.0.1:80",
            "localhost",
            "LocalHost:9900",
            "[::1]",
            "[::1]:9900",
        ] {
            assert!(is_own_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9900",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "127.1",
            "2130706433",
            "[evil]",
            "[::1]x",
            "::1",
        ] {
            assert!(!is_own_host(host.as_bytes()), "{host}");
        }
        assert!(!is_own_host(b"127.0.0.\xff"));
    }

    #[test]
    fn looking_is_free_where_names_are_expected_and_changing_never_is() {
        let (inside, outside) = ("127.0.0.1:1".parse().unwrap(), "0.0.0.0:1".parse().unwrap());
        assert!(may_look(b"localhost:1", inside) && !may_look(b"lb.internal", inside));
        assert!(may_look(b"lb.internal", outside) && may_look(b"", inside));
        assert!(may_change(b"localhost", Some(b"yes")).is_ok());
        for (host, field) in [
            (&b"lb.internal"[..], Some(&b"yes"[..])),
            (b"localhost", None),
            (b"localhost", Some(b"")),
        ] {
            assert!(may_change(host, field).is_err());
        }
    }
}
