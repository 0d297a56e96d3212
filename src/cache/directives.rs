//! Cache directives (RFC 9111 §5.2): the members of Cache-Control, of a response and of a request.
//!
//! Decides: what was said, and what to make of what was said badly. Names in any letter case; arguments as
//! token or quoted string alike; text inside a quoted string is never a directive. Where a value is not a
//! number, or two values contradict, freshness is taken for absent time: stale (RFC 9111 §4.2.1).

use super::targeted;
use crate::http::field::{is_token, trim_ows};
use crate::http::{FieldKind, Fields};

/// A number of seconds as a directive gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delta {
    /// The directive is not there.
    #[default]
    Absent,
    /// So many seconds, at most [`DELTA_SECS_MAX`].
    Secs(u32),
    /// There, but no number, or two different ones.
    Invalid,
}

impl Delta {
    /// The seconds, if it is a number.
    pub const fn secs(self) -> Option<u32> {
        match self {
            Self::Secs(secs) => Some(secs),
            Self::Absent | Self::Invalid => None,
        }
    }

    fn join(&mut self, other: Self) {
        *self = match (*self, other) {
            (Self::Absent, other) => other,
            (known, other) if known == other => known,
            _ => Self::Invalid,
        };
    }
}

/// The directives of a response, from CDN-Cache-Control if that is valid, else from Cache-Control
/// (RFC 9213 §2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the directive of its name")]
#[allow(clippy::struct_excessive_bools, reason = "they are as independent as their directives")]
pub struct ResponseDirectives {
    pub no_store: bool,
    /// Without an argument.
    pub no_cache: bool,
    /// Without an argument.
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    /// `no-cache` or `private` with an argument: some fields are not to be stored.
    pub excludes_fields: bool,
    /// CDN-Cache-Control speaks: Expires does not count.
    pub is_targeted: bool,
    /// Some field with directives was there, even one that says nothing we know.
    pub is_present: bool,
    pub max_age: Delta,
    pub s_maxage: Delta,
    pub stale_while_revalidate: Delta,
    pub stale_if_error: Delta,
}

impl ResponseDirectives {
    /// Reads the directives of a response.
    pub fn of(fields: &Fields, bytes: &[u8]) -> Self {
        if let Some(targeted) = targeted::directives(fields, bytes) {
            return targeted;
        }
        let mut said = Self { is_present: fields.has(FieldKind::CacheControl), ..Self::default() };
        for value in fields.values(FieldKind::CacheControl, bytes) {
            Members { rest: value }.for_each(|member| said.take(member.name, member.argument));
        }
        said
    }

    /// Takes in one directive.
    pub(super) fn take(&mut self, name: &[u8], argument: Argument) {
        let Some(directive) = Directive::of(name) else { return };
        match directive {
            Directive::NoStore => self.no_store = true,
            Directive::NoCache if argument.names_fields() => self.excludes_fields = true,
            Directive::NoCache => self.no_cache = true,
            Directive::Private if argument.names_fields() => self.excludes_fields = true,
            Directive::Private => self.private = true,
            Directive::Public => self.public = true,
            Directive::MustRevalidate => self.must_revalidate = true,
            Directive::ProxyRevalidate => self.proxy_revalidate = true,
            Directive::MustUnderstand => self.must_understand = true,
            Directive::MaxAge => self.max_age.join(argument.delta()),
            Directive::SMaxage => self.s_maxage.join(argument.delta()),
            Directive::StaleWhileRevalidate => self.stale_while_revalidate.join(argument.delta()),
            Directive::StaleIfError => self.stale_if_error.join(argument.delta()),
        }
    }

    /// True if the field is named by `no-cache="…"` or `private="…"`: a shared cache keeps the rest only
    /// (RFC 9111 §5.2.2.4, §5.2.2.7).
    pub fn excludes(&self, fields: &Fields, bytes: &[u8], name: &[u8]) -> bool {
        if !self.excludes_fields {
            return false;
        }
        let mut is_excluded = false;
        let mut look = |directive: &[u8], argument: Argument| {
            let directive = Directive::of(directive);
            if matches!(directive, Some(Directive::NoCache | Directive::Private)) {
                is_excluded |= argument.field_names().any(|known| known.eq_ignore_ascii_case(name));
            }
        };
        if self.is_targeted {
            targeted::each_member(fields, bytes, look);
        } else {
            for value in fields.values(FieldKind::CacheControl, bytes) {
                Members { rest: value }.for_each(|member| look(member.name, member.argument));
            }
        }
        is_excluded
    }
}

/// The directives of a request (RFC 9111 §5.2.1). Pragma is deprecated (§5.4) and not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the directive of its name")]
pub struct RequestDirectives {
    pub no_cache: bool,
    pub no_store: bool,
    pub only_if_cached: bool,
    /// Seconds; one that is no number is 0.
    pub max_age: Option<u32>,
    /// Seconds; one that is no number is not there.
    pub min_fresh: Option<u32>,
    /// Seconds; [`u32::MAX`] without an argument; one that is no number is not there.
    pub max_stale: Option<u32>,
}

impl RequestDirectives {
    /// Reads the directives of a request.
    pub fn of(fields: &Fields, bytes: &[u8]) -> Self {
        let mut asked = Self::default();
        for value in fields.values(FieldKind::CacheControl, bytes) {
            for Member { name, argument } in (Members { rest: value }) {
                let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
                if is("no-cache") {
                    asked.no_cache = true;
                } else if is("no-store") {
                    asked.no_store = true;
                } else if is("only-if-cached") {
                    asked.only_if_cached = true;
                } else if is("max-age") {
                    let secs = argument.delta().secs().unwrap_or(0);
                    asked.max_age = Some(asked.max_age.map_or(secs, |other| other.min(secs)));
                } else if is("min-fresh") {
                    let secs = argument.delta().secs();
                    asked.min_fresh = asked.min_fresh.max(secs);
                } else if is("max-stale") {
                    let secs = match argument {
                        Argument::None => Some(u32::MAX),
                        given => given.delta().secs(),
                    };
                    let least = asked.max_stale.zip(secs).map(|(one, other)| one.min(other));
                    asked.max_stale = least.or(asked.max_stale).or(secs);
                }
            }
        }
        asked
    }
}

/// The response directives somebody asks for.
#[derive(Clone, Copy)]
pub(super) enum Directive {
    NoStore,
    NoCache,
    Private,
    Public,
    MustRevalidate,
    ProxyRevalidate,
    MustUnderstand,
    MaxAge,
    SMaxage,
    StaleWhileRevalidate,
    StaleIfError,
}

impl Directive {
    fn of(name: &[u8]) -> Option<Self> {
        let known = KNOWN.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name));
        known.map(|&(_, directive)| directive)
    }

    pub(super) const fn takes(self) -> Takes {
        match self {
            Self::MaxAge | Self::SMaxage | Self::StaleWhileRevalidate | Self::StaleIfError => {
                Takes::Secs
            }
            Self::NoCache | Self::Private => Takes::FieldNames,
            Self::NoStore
            | Self::Public
            | Self::MustRevalidate
            | Self::ProxyRevalidate
            | Self::MustUnderstand => Takes::Nothing,
        }
    }
}

/// What a directive can have behind its `=`.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    Nothing,
    Secs,
    /// Or nothing.
    FieldNames,
}

/// What stands behind the `=` of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument<'a> {
    /// There is no `=`.
    None,
    /// A token, or the inside of a quoted string as it stands.
    Text(&'a [u8]),
    /// Neither, or blanks around the `=`.
    Malformed,
}

impl<'a> Argument<'a> {
    /// `1*DIGIT`, saturating (RFC 9111 §1.2.2).
    pub(super) fn delta(self) -> Delta {
        match self {
            Self::Text(digits) => delta_secs(digits).map_or(Delta::Invalid, Delta::Secs),
            Self::None | Self::Malformed => Delta::Invalid,
        }
    }

    fn field_names(self) -> impl Iterator<Item = &'a [u8]> {
        let text = if let Self::Text(text) = self { text } else { &[] };
        text.split(|&b| b == b',').map(trim_ows).filter(|name| !name.is_empty())
    }

    fn names_fields(self) -> bool {
        self.field_names().next().is_some()
    }
}

/// One directive.
#[derive(Clone, Copy, Debug)]
struct Member<'a> {
    name: &'a [u8],
    argument: Argument<'a>,
}

/// The directives of one field line.
struct Members<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        while let [b',' | b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        let end = member_end(self.rest);
        let (member, rest) = self.rest.split_at(end);
        self.rest = rest;
        let (name, argument) = match member.iter().position(|&b| b == b'=') {
            None => (member, Argument::None),
            Some(at) => (&member[..at], argument(&member[at + 1..])),
        };
        let is_tight = !name.ends_with(b" ") && !name.ends_with(b"\t");
        // Blanks before the `=` are no grammar; blanks before a comma are.
        let is_malformed = !is_tight && argument != Argument::None;
        let argument = if is_malformed { Argument::Malformed } else { argument };
        Some(Member { name: trim_ows(name), argument })
    }
}

fn argument(text: &[u8]) -> Argument<'_> {
    let tail = match text {
        [b' ' | b'\t', ..] => return Argument::Malformed,
        text => trim_ows(text),
    };
    match tail {
        [b'"', inside @ .., b'"'] => Argument::Text(inside),
        token if is_token(token) => Argument::Text(token),
        _ => Argument::Malformed,
    }
}

/// Where the member that begins `text` ends: at the next comma that is not inside a quoted string. A quoted
/// string begins behind `=` only, and one that is never closed is none, so that a stray quotation mark
/// cannot hide a directive behind it.
fn member_end(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b',' => return at,
            b'=' if text.get(at + 1) == Some(&b'"') => {
                at = quoted_end(text, at + 2).unwrap_or(at + 2);
            }
            _ => at += 1,
        }
    }
    text.len()
}

/// One past the quotation mark that closes the string whose inside begins at `at`.
pub(super) fn quoted_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// `1*DIGIT` up to [`DELTA_SECS_MAX`], which also stands for all that is larger.
pub(super) fn delta_secs(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |secs, &b| {
        let digit = b.is_ascii_digit().then(|| u32::from(b - b'0'))?;
        Some(secs.saturating_mul(10).saturating_add(digit).min(DELTA_SECS_MAX))
    })
}

pub(super) const KNOWN: [(&str, Directive); 11] = [
    ("max-age", Directive::MaxAge),
    ("public", Directive::Public),
    ("no-cache", Directive::NoCache),
    ("no-store", Directive::NoStore),
    ("private", Directive::Private),
    ("s-maxage", Directive::SMaxage),
    ("must-revalidate", Directive::MustRevalidate),
    ("stale-while-revalidate", Directive::StaleWhileRevalidate),
    ("stale-if-error", Directive::StaleIfError),
    ("proxy-revalidate", Directive::ProxyRevalidate),
    ("must-understand", Directive::MustUnderstand),
];
/// 2^31 seconds: larger values are this one (RFC 9111 §1.2.2).
pub const DELTA_SECS_MAX: u32 = 1 << 31;
