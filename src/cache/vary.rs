//! Which variant a request gets (RFC 9111 §4.1).
//!
//! Decides: which request fields a response was selected by, and when two requests agree in them. A variant
//! is known by its selection: the names Vary gave, and what the request had in them, normalised. Compared
//! byte for byte, so that no collision of digests hands one client's variant to another.
//!
//! Normalised are repeated lines (joined) and the blanks around commas, where a field may be a list; letter
//! case in Accept-Language; and in rfc mode the order of languages, which has no meaning (RFC 9110 §12.5.4),
//! though many an origin gives it one. A field that is absent equals only itself.

use super::CacheMode;
use super::directives::quoted_end;
use crate::http::field::{is_token, trim_ows};
use crate::http::{FieldKind, Fields};

/// True if no request can be known to match: `*`, a name that is none, a field the origin sees otherwise than
/// we do, more than [`VARY_NAMES_MAX`] of them, or one longer than [`VARY_NAME_BYTES_MAX`].
pub fn is_impossible(response: &Fields, bytes: &[u8]) -> bool {
    let mut count = 0;
    names(response, bytes).any(|name| {
        count += 1;
        let is_rewritten = matches!(
            FieldKind::of(name),
            FieldKind::XForwardedFor | FieldKind::Forwarded | FieldKind::Via
        );
        let is_too_much = count > VARY_NAMES_MAX || name.len() > VARY_NAME_BYTES_MAX;
        is_too_much || name == b"*" || !is_token(name) || is_rewritten
    })
}

fn names<'a>(response: &'a Fields, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    response.elements(FieldKind::Vary, bytes).filter(|name| !name.is_empty())
}

/// Appends the selection of a response to `out`: nothing if it has no Vary. The response must not be
/// [`is_impossible`].
pub fn write(
    out: &mut Vec<u8>,
    response: &Fields,
    response_bytes: &[u8],
    request: &Fields,
    request_bytes: &[u8],
    mode: CacheMode,
) {
    let start = out.len();
    for name in names(response, response_bytes) {
        out.extend(name.iter().map(u8::to_ascii_lowercase));
        out.push(b',');
    }
    if out.len() == start {
        return;
    }
    out.push(b'\n');
    for name in names(response, response_bytes) {
        append_values(out, name, request, request_bytes, mode);
    }
}

/// True if the request agrees with a stored selection. `scratch` is overwritten; it does not grow once it is
/// as large as the largest selection seen.
pub fn matches(
    selection: &[u8],
    request: &Fields,
    request_bytes: &[u8],
    mode: CacheMode,
    scratch: &mut Vec<u8>,
) -> bool {
    let Some(names_len) = selection.iter().position(|&b| b == b'\n') else { return true };
    scratch.clear();
    for name in selection[..names_len].split(|&b| b == b',').filter(|name| !name.is_empty()) {
        append_values(scratch, name, request, request_bytes, mode);
    }
    selection[names_len + 1..] == **scratch
}

/// `\0` for a field that is absent, else `\x01`, its value and `\n`, which no value holds.
fn append_values(out: &mut Vec<u8>, name: &[u8], request: &Fields, bytes: &[u8], mode: CacheMode) {
    let mut values = request.named(name, bytes).peekable();
    if values.peek().is_none() {
        out.push(0);
        return;
    }
    out.push(1);
    let shape = Shape::of(FieldKind::of(name));
    let start = out.len();
    for (nth, value) in values.enumerate() {
        if nth > 0 {
            out.push(b',');
        }
        match shape {
            Shape::Opaque => out.extend_from_slice(value),
            Shape::List | Shape::Languages => append_list(out, value),
        }
    }
    if shape == Shape::Languages {
        out[start..].make_ascii_lowercase();
        if mode == CacheMode::Rfc {
            sort_elements(&mut out[start..]);
        }
    }
    out.push(b'\n');
}

/// How a field's value may be normalised.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Not at all: a comma in it separates nothing.
    Opaque,
    List,
    Languages,
}

impl Shape {
    const fn of(kind: FieldKind) -> Self {
        match kind {
            FieldKind::AcceptLanguage => Self::Languages,
            FieldKind::Cookie
            | FieldKind::Authorization
            | FieldKind::UserAgent
            | FieldKind::Referer
            | FieldKind::Origin
            | FieldKind::Host => Self::Opaque,
            _ => Self::List,
        }
    }
}

/// The value without the blanks around its commas; what stands in quotation marks stays.
fn append_list(out: &mut Vec<u8>, value: &[u8]) {
    let mut rest = value;
    loop {
        let mut end = 0;
        while let Some(&byte) = rest.get(end) {
            match byte {
                b',' => break,
                b'"' => end = quoted_end(rest, end + 1).unwrap_or(rest.len()),
                _ => end += 1,
            }
        }
        let end = end.min(rest.len());
        out.extend_from_slice(trim_ows(&rest[..end]));
        match rest.get(end + 1..) {
            Some(behind) => rest = behind,
            None => break,
        }
        out.push(b',');
    }
}

/// Sorts comma-separated elements in place and without memory, by rotating the smallest of the rest to the
/// front; more than [`SORTED_MAX`] stay as they are.
fn sort_elements(text: &mut [u8]) {
    if text.iter().filter(|&&b| b == b',').count() >= SORTED_MAX {
        return;
    }
    let mut rest = text;
    loop {
        let (mut at, mut smallest) = (0, 0..0);
        let mut is_first = true;
        for element in rest.split(|&b| b == b',') {
            let range = at..at + element.len();
            at = range.end + 1;
            if is_first || *element < rest[smallest.clone()] {
                smallest = range;
                is_first = false;
            }
        }
        if smallest.start > 0 {
            // "…,smallest" becomes "smallest,…": the comma before it moves behind it.
            let len = smallest.len();
            rest[..smallest.end].rotate_right(len);
            rest[len..smallest.end].rotate_right(1);
        }
        let taken = smallest.len() + 1;
        if taken >= rest.len() {
            return;
        }
        rest = &mut rest[taken..];
    }
}

/// Most fields a stored response may be selected by.
pub const VARY_NAMES_MAX: usize = 16;
/// Longest name of such a field.
pub const VARY_NAME_BYTES_MAX: usize = 128;
/// Most languages brought into order.
const SORTED_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_sorted_in_place() {
        for text in
            ["", "a", ",", "b,a", "a,b", "c,b,a", "b,a,b", ",b,,a", "bb,b,a;q=0.5,*", "d,c,bbb,a"]
        {
            let mut sorted = text.as_bytes().to_vec();
            sort_elements(&mut sorted);
            let mut expected: Vec<&str> = text.split(',').collect();
            expected.sort_unstable();
            assert_eq!(String::from_utf8(sorted).unwrap(), expected.join(","), "{text}");
        }
    }
}
