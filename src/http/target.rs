//! The request target and the authority it is meant for (RFC 9112 §3.2, §3.3; RFC 9110 §4.2, §7.2).
//!
//! Decides: which form a target has, and whether an authority is one. Refuses to know what a path
//! means: path and query stay as they are, byte for byte, no decoding and no dot-segment removal.

use super::field::Span;
use super::reject::Reject;
use super::request::Method;

/// The forms of a request target a gateway serves (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://authority/path?query`
    Absolute,
    /// `*`, for OPTIONS only
    Asterisk,
}

/// A request target taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Its form.
    pub form: TargetForm,
    /// The whole target.
    pub span: Span,
    /// The authority of the absolute form, else empty.
    pub authority: Span,
    /// Path and query as they stand in the head; see [`Target::origin`] for what to send.
    pub path_and_query: Span,
}

impl Target {
    /// Takes apart the target at `start..end` of `head`.
    ///
    /// # Errors
    /// [`Reject::InvalidTarget`] for a byte no target may hold, else the form or the authority is refused.
    pub(super) fn parse(
        method: Method,
        head: &[u8],
        start: usize,
        end: usize,
    ) -> Result<Self, Reject> {
        let bytes = &head[start..end];
        if !is_target_clean(bytes) {
            return Err(Reject::InvalidTarget);
        }
        let span = Span::new(start, end);
        match bytes {
            [b'/', ..] => Ok(Self {
                form: TargetForm::Origin,
                span,
                authority: Span::default(),
                path_and_query: span,
            }),
            b"*" if method == Method::Options => Ok(Self {
                form: TargetForm::Asterisk,
                span,
                authority: Span::default(),
                path_and_query: span,
            }),
            _ => Self::absolute(bytes, start, end),
        }
    }

    fn absolute(bytes: &[u8], start: usize, end: usize) -> Result<Self, Reject> {
        let scheme = bytes.iter().position(|&b| b == b':').ok_or(Reject::InvalidTargetForm)?;
        if !bytes[scheme..].starts_with(b"://") || !is_scheme(&bytes[..scheme]) {
            return Err(Reject::InvalidTargetForm);
        }
        if !bytes[..scheme].eq_ignore_ascii_case(b"http") {
            return Err(Reject::ForeignScheme);
        }
        let authority = scheme + 3;
        let rest = &bytes[authority..];
        let authority_len = rest.iter().position(|&b| b == b'/' || b == b'?').unwrap_or(rest.len());
        if !is_authority(&rest[..authority_len]) {
            return Err(Reject::InvalidAuthority);
        }
        let path = start + authority + authority_len;
        Ok(Self {
            form: TargetForm::Absolute,
            span: Span::new(start, end),
            authority: Span::new(start + authority, path),
            path_and_query: Span::new(path, end),
        })
    }

    /// The target in origin form (or `*`), to be sent as the two parts one behind the other: an absolute
    /// form without path gets its `/`, or for OPTIONS becomes `*` (RFC 9112 §3.2.1, §3.2.4).
    pub fn origin<'a>(&self, method: Method, head: &'a [u8]) -> (&'static str, &'a [u8]) {
        let rest = self.path_and_query.of(head);
        match rest.first() {
            None if method == Method::Options => ("*", rest),
            None | Some(b'?') => ("/", rest),
            Some(_) => ("", rest),
        }
    }
}

/// A target holds visible ASCII only and no fragment (RFC 9112 §3.2, RFC 9110 §4.2.5).
fn is_target_clean(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().fold(true, |ok, &b| ok & (b > 0x20) & (b < 0x7f) & (b != b'#'))
}

/// RFC 3986 §3.1.
fn is_scheme(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// True for `host [":" port]` with a host that is not empty, without userinfo (RFC 9110 §4.2.1, §4.2.4;
/// RFC 3986 §3.2.2, §3.2.3). The port may be empty, and is at most 65535.
pub fn is_authority(bytes: &[u8]) -> bool {
    let (host_is_valid, port) = if let [b'[', rest @ ..] = bytes {
        let Some(close) = rest.iter().position(|&b| b == b']') else { return false };
        (is_ipv6(&rest[..close]), &rest[close + 1..])
    } else {
        let end = bytes.iter().position(|&b| b == b':').unwrap_or(bytes.len());
        (is_reg_name(&bytes[..end]), &bytes[end..])
    };
    host_is_valid && is_port(port)
}

fn is_ipv6(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

/// `*( unreserved / pct-encoded / sub-delims )`, but not empty; an IPv4 address is one, too.
fn is_reg_name(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [byte, tail @ ..] = rest {
        rest = match (byte, tail) {
            (b'%', [high, low, tail @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                tail
            }
            (b'%', _) => return false,
            (byte, tail) if is_reg_name_byte(*byte) => tail,
            _ => return false,
        };
    }
    !bytes.is_empty()
}

const fn is_reg_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        )
}

/// Nothing, or `:` and a number of at most 65535, perhaps no digit at all.
fn is_port(bytes: &[u8]) -> bool {
    let digits = match bytes {
        [] => return true,
        [b':', digits @ ..] => digits,
        _ => return false,
    };
    let number = digits.iter().try_fold(0u32, |number, &b| match b {
        b'0'..=b'9' => Some(number * 10 + u32::from(b - b'0')).filter(|&n| n <= 65_535),
        _ => None,
    });
    number.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        // RFC 3986 §3.2, RFC 9110 §4.2
        let good = [
            "a",
            "a.b",
            "A_b",
            "a:80",
            "a:",
            "a:0080",
            "1.2.3.4",
            "1.2.3.4:1",
            "[::1]",
            "[::1]:80",
            "[::]:",
        ];
        let good =
            good.iter().chain(&["a%20b", "xn--a", "a,b", "[::ffff:1.2.3.4]", "a:65535", "a.:1"]);
        for text in good {
            assert!(is_authority(text.as_bytes()), "{text}");
        }
        let bad = [
            "", ":", ":80", "u@a", "u:p@a", "a b", "a\t", "a:b", "a:-1", "a:+1", "a:1:2",
            "a:65536", "[]",
        ];
        let bad = bad.iter().chain(&[
            "[::1",
            "::1",
            "[::1]x",
            "[1.2.3.4]",
            "[::1%25eth0]",
            "a%2",
            "a%zz",
            "a%",
        ]);
        let bad = bad.chain(&[
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a\"",
            "a\0",
            "\u{e9}",
            "a:99999999999",
            "[v1.a]",
            "[::g]",
        ]);
        for text in bad {
            assert!(!is_authority(text.as_bytes()), "{text}");
        }
    }
}
