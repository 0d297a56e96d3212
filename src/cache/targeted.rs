//! CDN-Cache-Control (RFC 9213): a Dictionary of RFC 8941, parsed strictly.
//!
//! Decides: whether the field speaks at all. One byte that is no Structured Field, a number that is none, or
//! an empty value, and it is as if it were not there (RFC 9213 §2.1). Every line must be a dictionary by
//! itself: a string torn over two lines is refused, which RFC 8941 §4.2 permits.

use super::directives::{Argument, Directive, KNOWN, ResponseDirectives, Takes};
use crate::http::field::is_token_byte;
use crate::http::{FieldKind, Fields};

/// What the field says; None if it is absent, empty or invalid.
pub fn directives(fields: &Fields, bytes: &[u8]) -> Option<ResponseDirectives> {
    let members = members(fields, bytes)?;
    let mut said =
        ResponseDirectives { is_targeted: true, is_present: true, ..ResponseDirectives::default() };
    for (&(name, directive), item) in KNOWN.iter().zip(members) {
        if let Some(argument) = item.argument(directive)? {
            said.take(name.as_bytes(), argument);
        }
    }
    Some(said)
}

/// Gives every directive in effect to `take`, if the field is valid.
pub(super) fn each_member(fields: &Fields, bytes: &[u8], mut take: impl FnMut(&[u8], Argument)) {
    for (&(name, directive), item) in KNOWN.iter().zip(members(fields, bytes).unwrap_or_default()) {
        if let Some(Some(argument)) = item.argument(directive) {
            take(name.as_bytes(), argument);
        }
    }
}

/// The values of the directives we know, in the order of [`KNOWN`]; of several with one name the last
/// (RFC 8941 §3.2). None if there is no field or it is invalid.
fn members<'a>(fields: &'a Fields, bytes: &'a [u8]) -> Option<[Item<'a>; KNOWN.len()]> {
    let mut members = [Item::False; KNOWN.len()];
    let mut is_any = false;
    for field in fields.lines().iter().filter(|field| field.kind == FieldKind::Other) {
        if field.name.of(bytes).eq_ignore_ascii_case(NAME) {
            is_any = true;
            Parser { rest: field.value.of(bytes) }.dictionary(|key, item| {
                if let Some(at) = KNOWN.iter().position(|(known, _)| known.as_bytes() == key) {
                    members[at] = item;
                }
            })?;
        }
    }
    is_any.then_some(members)
}

/// A member's value, as far as a directive can use it.
#[derive(Clone, Copy, Default)]
enum Item<'a> {
    True,
    /// `?0`, which says as much as nothing.
    #[default]
    False,
    Integer(&'a [u8]),
    /// The inside, as it stands.
    String(&'a [u8]),
    /// A token, a decimal, bytes, a negative number or a list: no directive we know takes one.
    Other,
}

impl<'a> Item<'a> {
    /// The argument of a directive, Some(None) without the directive; None for a type it cannot have:
    /// "Implementations SHOULD NOT consume values that violate these inferred constraints" (§2.1).
    fn argument(self, directive: Directive) -> Option<Option<Argument<'a>>> {
        match (self, directive.takes()) {
            (Self::False, _) => Some(None),
            (Self::Integer(digits), Takes::Secs) => Some(Some(Argument::Text(digits))),
            (Self::True, Takes::Nothing | Takes::FieldNames) => Some(Some(Argument::None)),
            (Self::String(names), Takes::FieldNames) => Some(Some(Argument::Text(names))),
            _ => None,
        }
    }
}

/// RFC 8941 §4.2. Each method takes what it parses off the front; None is a failure.
struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    /// A dictionary of at least one member.
    fn dictionary(&mut self, mut each: impl FnMut(&'a [u8], Item<'a>)) -> Option<()> {
        loop {
            let key = self.key()?;
            let item = if self.take(b'=') { self.member_value()? } else { Item::True };
            self.parameters()?;
            each(key, item);
            self.skip(b" \t");
            if self.rest.is_empty() {
                return Some(());
            }
            if !self.take(b',') {
                return None;
            }
            self.skip(b" \t");
        }
    }

    /// `( lcalpha / "*" ) *( lcalpha / DIGIT / "_" / "-" / "." / "*" )`
    fn key(&mut self) -> Option<&'a [u8]> {
        if !matches!(self.rest.first()?, b'a'..=b'z' | b'*') {
            return None;
        }
        Some(
            self.take_while(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*')),
        )
    }

    fn member_value(&mut self) -> Option<Item<'a>> {
        if !self.take(b'(') {
            return self.bare_item();
        }
        loop {
            self.skip(b" ");
            if self.take(b')') {
                return Some(Item::Other);
            }
            self.bare_item()?;
            self.parameters()?;
            if !matches!(self.rest.first()?, b' ' | b')') {
                return None;
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.skip(b" ");
            self.key()?;
            if self.take(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    fn bare_item(&mut self) -> Option<Item<'a>> {
        match self.rest.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'a'..=b'z' | b'A'..=b'Z' | b'*' => {
                self.take_while(|b| is_token_byte(b) || matches!(b, b':' | b'/'));
                Some(Item::Other)
            }
            b':' => {
                self.take(b':');
                self.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
                self.take(b':').then_some(Item::Other)
            }
            b'?' => {
                self.take(b'?');
                if self.take(b'1') {
                    Some(Item::True)
                } else {
                    self.take(b'0').then_some(Item::False)
                }
            }
            _ => None,
        }
    }

    /// An integer of at most 15 digits, or a decimal of at most 12 and 3.
    fn number(&mut self) -> Option<Item<'a>> {
        let is_negative = self.take(b'-');
        let whole = self.take_while(|b| b.is_ascii_digit());
        if !self.take(b'.') {
            let is_integer = (1..=15).contains(&whole.len());
            // No directive takes a negative number.
            let item = if is_negative { Item::Other } else { Item::Integer(whole) };
            return is_integer.then_some(item);
        }
        let fraction = self.take_while(|b| b.is_ascii_digit());
        let is_decimal = (1..=12).contains(&whole.len()) && (1..=3).contains(&fraction.len());
        is_decimal.then_some(Item::Other)
    }

    /// Visible ASCII and blanks; a backslash before `"` and `\` only.
    fn string(&mut self) -> Option<Item<'a>> {
        let text = &self.rest[1..];
        let mut at = 0;
        loop {
            match text.get(at)? {
                b'"' => break,
                b'\\' if matches!(text.get(at + 1), Some(b'"' | b'\\')) => at += 2,
                b'\\' => return None,
                0x20..=0x7e => at += 1,
                _ => return None,
            }
        }
        self.rest = &text[at + 1..];
        Some(Item::String(&text[..at]))
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.rest.first() == Some(&byte);
        if is_next {
            self.rest = &self.rest[1..];
        }
        is_next
    }

    fn take_while(&mut self, is_part: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|&b| !is_part(b)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip(&mut self, blanks: &[u8]) {
        self.take_while(|b| blanks.contains(&b));
    }
}

const NAME: &[u8] = b"cdn-cache-control";
