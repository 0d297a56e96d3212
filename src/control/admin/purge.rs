//! What an operator wants forgotten by the cache: read from a query, handed on, counted.

use crossbeam_channel::Sender;

use crate::cache::{Purge, key};

/// Hands an order to every core and returns how many there are; each sends how many responses it forgot.
pub type Purger = Box<dyn Fn(Purge, &Sender<usize>) -> usize + Send>;

/// Reads `url=…`, `prefix=…` or `all`, percent-encoded.
///
/// # Errors
/// A sentence for the operator.
pub(super) fn of_query(query: &[u8]) -> Result<Purge, &'static str> {
    let mut parts = query.split(|&byte| byte == b'&').filter(|part| !part.is_empty());
    let (Some(part), None) = (parts.next(), parts.next()) else { return Err(WANTED) };
    if part == b"all" || part == b"all=" {
        return Ok(Purge::All);
    }
    let at = part.iter().position(|&byte| byte == b'=').ok_or(WANTED)?;
    let text = decoded(&part[at + 1..]).ok_or("a percent sign without two hex digits\n")?;
    match &part[..at] {
        b"url" => Ok(Purge::Exact(key::of_url(&text).ok_or(NO_URL)?)),
        b"prefix" => Ok(Purge::Prefix(key::of_url(&text).ok_or(NO_URL)?)),
        _ => Err(WANTED),
    }
}

/// Percent-decoding. A `+` stays what it is: this is a URL, not a form.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        if byte != b'%' {
            out.push(byte);
            rest = behind;
            continue;
        }
        let (digits, behind) = behind.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        out.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        rest = behind;
    }
    Some(out)
}

const WANTED: &str =
    "say what: POST /cache/purge?url=http://host/path, ?prefix=http://host/path, or ?all\n";
const NO_URL: &str = "not a URL of the cache: http://host/path, percent-encoded\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_and_nothing_is_guessed() {
        let exact = |text: &str| Ok(Purge::Exact(text.into()));
        for (query, order) in [
            ("url=http://App.Example/a%20b", Err(NO_URL)),
            ("url=http://App.Example/a?b=1", exact("http://app.example/a?b=1")),
            ("url=http%3A%2F%2Fapp%3A8080%2Fa%3Fb%3D1%26c", exact("http://app:8080/a?b=1&c")),
            ("url=HTTP://app", exact("http://app/")),
            ("url=http://app?q", exact("http://app/?q")),
            ("prefix=http://app/img/", Ok(Purge::Prefix(b"http://app/img/".to_vec()))),
            ("all", Ok(Purge::All)),
            ("&all&", Ok(Purge::All)),
            ("", Err(WANTED)),
            ("everything", Err(WANTED)),
            ("url=http://a/&prefix=http://b/", Err(WANTED)),
            ("all&url=http://a/", Err(WANTED)),
            ("url=", Err(NO_URL)),
            ("url=/path", Err(NO_URL)),
            ("url=ftp://app/", Err(NO_URL)),
            ("url=http://:80/", Err(NO_URL)),
            ("url=https://App:443/", exact("https://app/")),
            ("url=http://app:80/", exact("http://app/")),
            ("url=http://app:443/", exact("http://app:443/")),
            ("url=http:///path", Err(NO_URL)),
            ("url=http://app/%0d%0a", Err(NO_URL)),
            ("url=http://app/%2", Err("a percent sign without two hex digits\n")),
            ("url=http://app/%zz", Err("a percent sign without two hex digits\n")),
        ] {
            assert_eq!(of_query(query.as_bytes()), order, "{query}");
        }
    }
}
