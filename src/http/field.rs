//! Field lines as spans over the head's bytes (RFC 9110 §5, RFC 9112 §5).
//!
//! Decides: which lines are field lines at all, and which of the names we know a name is. Refuses to
//! know what a value means. Invariant: after a successful parse each name is a token and no value holds
//! a control byte other than HTAB, so both may be written into another head as they are.

use std::ops::Range;

use super::reject::FieldFault;

/// A range of a head's bytes. Valid only with the bytes it was parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The span `start..end`; heads are shorter than 4 GiB, which the parsers check once.
    pub(super) fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && u32::try_from(end).is_ok());
        Self { start: start as u32, end: end as u32 }
    }

    /// The bytes meant; nothing if `head` is not the head the span is of.
    pub fn of(self, head: &[u8]) -> &[u8] {
        head.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// True if there are no bytes.
    pub const fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// Number of bytes.
    pub const fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }
}

/// The field names somebody in the house asks for. Anything else is [`FieldKind::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "each variant is the field of its name")]
pub enum FieldKind {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    KeepAlive,
    ProxyConnection,
    Te,
    Trailer,
    Upgrade,
    Http2Settings,
    Expect,
    Via,
    MaxForwards,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    Forwarded,
    Date,
    Age,
    CacheControl,
    Pragma,
    Expires,
    Vary,
    ETag,
    LastModified,
    IfMatch,
    IfNoneMatch,
    IfModifiedSince,
    IfUnmodifiedSince,
    IfRange,
    Range,
    Authorization,
    ProxyAuthorization,
    ProxyAuthenticate,
    WwwAuthenticate,
    Cookie,
    SetCookie,
    ContentType,
    ContentEncoding,
    ContentRange,
    ContentLocation,
    Location,
    RetryAfter,
    Accept,
    AcceptEncoding,
    AcceptLanguage,
    UserAgent,
    Referer,
    Origin,
    Server,
    XRealIp,
    XRequestId,
    SecWebSocketKey,
    /// Any other name.
    Other,
}

impl FieldKind {
    /// The kind of a name, whatever its letter case.
    pub fn of(name: &[u8]) -> Self {
        let Some(slot) = slot(name) else { return Self::Other };
        match SLOTS[slot] {
            0 => Self::Other,
            row => {
                let (known, kind) = KNOWN[row as usize - 1];
                if is_known_name(name, known.as_bytes()) { kind } else { Self::Other }
            }
        }
    }

    /// True for fields that concern one connection only, named in Connection or not (RFC 9110 §7.6.1).
    /// `Trailer` is not among them: it goes where the trailers go.
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::Http2Settings
        )
    }

    /// True for the preconditions and the range of a request (RFC 9110 §13.1, §14.2): what a cache takes
    /// out when it asks on its own account.
    pub const fn is_condition(self) -> bool {
        matches!(
            self,
            Self::IfMatch
                | Self::IfNoneMatch
                | Self::IfModifiedSince
                | Self::IfUnmodifiedSince
                | Self::IfRange
                | Self::Range
        )
    }

    const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// One field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Which of the names we know.
    pub kind: FieldKind,
    /// The name as it was spelled.
    pub name: Span,
    /// The value without the whitespace around it; may be empty.
    pub value: Span,
}

/// The field lines of one head, in order. Reusable: the memory stays when the next head is parsed.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    lines: Vec<Field>,
    kinds: u64,
}

impl Fields {
    /// All lines in the order of their arrival.
    pub fn lines(&self) -> &[Field] {
        &self.lines
    }

    /// True if at least one line has this kind.
    pub const fn has(&self, kind: FieldKind) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// The values of all lines of this kind.
    pub fn values<'a>(
        &'a self,
        kind: FieldKind,
        head: &'a [u8],
    ) -> impl Iterator<Item = &'a [u8]> + 'a {
        let lines = if self.has(kind) { self.lines.as_slice() } else { &[] };
        lines.iter().filter(move |field| field.kind == kind).map(|field| field.value.of(head))
    }

    /// The value of the first line of this kind.
    pub fn first<'a>(&'a self, kind: FieldKind, head: &'a [u8]) -> Option<&'a [u8]> {
        self.values(kind, head).next()
    }

    /// The values of all lines with this name, whatever its letter case.
    pub fn named<'a>(
        &'a self,
        name: &'a [u8],
        head: &'a [u8],
    ) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.lines
            .iter()
            .filter(move |field| field.name.of(head).eq_ignore_ascii_case(name))
            .map(|field| field.value.of(head))
    }

    /// The comma-separated elements of all lines of this kind, without the whitespace around them
    /// (RFC 9110 §5.6.1). Empty elements are given too. Not for values with quoted strings.
    pub fn elements<'a>(
        &'a self,
        kind: FieldKind,
        head: &'a [u8],
    ) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.values(kind, head).flat_map(|value| value.split(|&b| b == b',')).map(trim_ows)
    }

    pub(super) fn clear(&mut self) {
        self.lines.clear();
        self.kinds = 0;
    }

    /// Parses the lines from `start` to the empty line that ends `head`.
    pub(super) fn parse(&mut self, head: &[u8], start: usize) -> Result<(), FieldFault> {
        self.clear();
        // One pass over all lines costs less than one per value. If it finds something, the line it is
        // in will be named by the checks below.
        let is_clean_text = is_clean_text(head.get(start..).unwrap_or_default());
        let mut at = start;
        loop {
            let rest = head.get(at..).unwrap_or_default();
            // The scan saw a complete head; one without its empty line did not come from it.
            let end = memchr::memchr(b'\n', rest).ok_or(FieldFault::InvalidFieldName)?;
            let line = match &rest[..end] {
                [line @ .., b'\r'] => line,
                _ => return Err(FieldFault::BareLf),
            };
            if line.is_empty() {
                // Nothing may stand behind the empty line: it would be neither head nor body.
                let is_end = at + end + 1 == head.len();
                return if is_end { Ok(()) } else { Err(FieldFault::InvalidFieldName) };
            }
            let (kind, name_len, value) = split_line(line)?;
            if !is_clean_text {
                check_value(&line[value.clone()])?;
            }
            self.kinds |= kind.bit();
            self.lines.push(Field {
                kind,
                name: Span::new(at, at + name_len),
                value: Span::new(at + value.start, at + value.end),
            });
            at += end + 1;
        }
    }
}

/// Splits a field line without its CRLF into the kind and the length of its name, and the range of its
/// value, which is still to be checked.
pub(super) fn split_line(line: &[u8]) -> Result<(FieldKind, usize, Range<usize>), FieldFault> {
    let name_len = memchr::memchr(b':', line).ok_or_else(|| name_fault(line))?;
    let name = &line[..name_len];
    let kind = FieldKind::of(name);
    // A name we know is a token.
    if kind == FieldKind::Other && !is_token(name) {
        return Err(name_fault(line));
    }
    let mut range = name_len + 1..line.len();
    while range.start < range.end && is_ows(line[range.start]) {
        range.start += 1;
    }
    while range.start < range.end && is_ows(line[range.end - 1]) {
        range.end -= 1;
    }
    Ok((kind, name_len, range))
}

/// Refuses a value that holds a control byte other than HTAB (RFC 9110 §5.5).
pub(super) fn check_value(value: &[u8]) -> Result<(), FieldFault> {
    if is_clean(value) {
        Ok(())
    } else if value.contains(&b'\r') {
        Err(FieldFault::BareCr)
    } else {
        Err(FieldFault::ControlInValue)
    }
}

/// What is wrong with the name of a line, which does not begin with a token and a colon.
#[cold]
fn name_fault(line: &[u8]) -> FieldFault {
    let name_len = line.iter().position(|&b| !is_token_byte(b)).unwrap_or(line.len());
    match line.get(name_len) {
        Some(b' ' | b'\t') if name_len == 0 => FieldFault::ObsFold,
        Some(b' ' | b'\t') if trim_ows(&line[name_len..]).first() == Some(&b':') => {
            FieldFault::SpaceBeforeColon
        }
        Some(b'\r') => FieldFault::BareCr,
        _ => FieldFault::InvalidFieldName,
    }
}

/// True if a value holds only what RFC 9110 §5.5 allows: HTAB, SP, visible and non-ASCII bytes.
/// Without branches, so that it becomes vector code.
pub(super) fn is_clean(value: &[u8]) -> bool {
    value.iter().fold(true, |ok, &b| ok & (((b >= 0x20) & (b != 0x7f)) | (b == b'\t')))
}

/// True if no line of `text` can hold a forbidden byte: the only control bytes are HTAB, LF, and CR before
/// LF. Without branches, too.
fn is_clean_text(text: &[u8]) -> bool {
    let Some((_, behind)) = text.split_first() else { return true };
    let pairs = text.iter().zip(behind);
    pairs.fold(true, |ok, (&b, &next)| {
        let is_visible = (b >= 0x20) & (b != 0x7f);
        ok & (is_visible | (b == b'\t') | (b == b'\n') | ((b == b'\r') & (next == b'\n')))
    })
}

/// True for a byte of a token (RFC 9110 §5.6.2).
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// True if `bytes` are a token.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_token_byte(b))
}

const fn is_ows(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Without optional whitespace, SP and HTAB only (RFC 9110 §5.6.3), at both ends.
pub(crate) fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

const KNOWN: [(&str, FieldKind); FieldKind::Other as usize] = [
    ("host", FieldKind::Host),
    ("content-length", FieldKind::ContentLength),
    ("transfer-encoding", FieldKind::TransferEncoding),
    ("connection", FieldKind::Connection),
    ("keep-alive", FieldKind::KeepAlive),
    ("proxy-connection", FieldKind::ProxyConnection),
    ("te", FieldKind::Te),
    ("trailer", FieldKind::Trailer),
    ("upgrade", FieldKind::Upgrade),
    ("http2-settings", FieldKind::Http2Settings),
    ("expect", FieldKind::Expect),
    ("via", FieldKind::Via),
    ("max-forwards", FieldKind::MaxForwards),
    ("x-forwarded-for", FieldKind::XForwardedFor),
    ("x-forwarded-proto", FieldKind::XForwardedProto),
    ("x-forwarded-host", FieldKind::XForwardedHost),
    ("forwarded", FieldKind::Forwarded),
    ("date", FieldKind::Date),
    ("age", FieldKind::Age),
    ("cache-control", FieldKind::CacheControl),
    ("pragma", FieldKind::Pragma),
    ("expires", FieldKind::Expires),
    ("vary", FieldKind::Vary),
    ("etag", FieldKind::ETag),
    ("last-modified", FieldKind::LastModified),
    ("if-match", FieldKind::IfMatch),
    ("if-none-match", FieldKind::IfNoneMatch),
    ("if-modified-since", FieldKind::IfModifiedSince),
    ("if-unmodified-since", FieldKind::IfUnmodifiedSince),
    ("if-range", FieldKind::IfRange),
    ("range", FieldKind::Range),
    ("authorization", FieldKind::Authorization),
    ("proxy-authorization", FieldKind::ProxyAuthorization),
    ("proxy-authenticate", FieldKind::ProxyAuthenticate),
    ("www-authenticate", FieldKind::WwwAuthenticate),
    ("cookie", FieldKind::Cookie),
    ("set-cookie", FieldKind::SetCookie),
    ("content-type", FieldKind::ContentType),
    ("content-encoding", FieldKind::ContentEncoding),
    ("content-range", FieldKind::ContentRange),
    ("content-location", FieldKind::ContentLocation),
    ("location", FieldKind::Location),
    ("retry-after", FieldKind::RetryAfter),
    ("accept", FieldKind::Accept),
    ("accept-encoding", FieldKind::AcceptEncoding),
    ("accept-language", FieldKind::AcceptLanguage),
    ("user-agent", FieldKind::UserAgent),
    ("referer", FieldKind::Referer),
    ("origin", FieldKind::Origin),
    ("server", FieldKind::Server),
    ("x-real-ip", FieldKind::XRealIp),
    ("x-request-id", FieldKind::XRequestId),
    ("sec-websocket-key", FieldKind::SecWebSocketKey),
];

/// Where a name stands in [`SLOTS`] if we know it: its length and three of its letters tell the known
/// names apart.
const fn slot(name: &[u8]) -> Option<usize> {
    let len = name.len();
    if len < 2 || len > 32 {
        return None;
    }
    let first = (name[0] | 0x20) as usize;
    let middle = (name[len / 2] | 0x20) as usize;
    let last = (name[len - 1] | 0x20) as usize;
    Some(
        (len * SLOT_MUL[0] + first * SLOT_MUL[1] + middle * SLOT_MUL[2] + last * SLOT_MUL[3])
            % SLOT_COUNT,
    )
}

/// Compares a name with a known one of at least two bytes without letter case, words at a time; the last
/// word may overlap the one before.
fn is_known_name(name: &[u8], known: &[u8]) -> bool {
    if name.len() != known.len() {
        return false;
    }
    if let (Some(name_tail), Some(known_tail)) = (name.last_chunk(), known.last_chunk()) {
        let words = name.as_chunks().0.iter().zip(known.as_chunks().0);
        return words
            .fold(is_word(name_tail, known_tail), |ok, (name, known)| ok & is_word(name, known));
    }
    name.iter().zip(known).fold(true, |ok, (&b, &known)| ok & (b | (known & 0x40) >> 1 == known))
}

/// A known name has small letters, digits and `-` only. Of these just the letters have bit 0x40, and just a
/// letter becomes that letter by setting bit 0x20.
const fn is_word(word: &[u8; 8], known: &[u8; 8]) -> bool {
    let (word, known) = (u64::from_ne_bytes(*word), u64::from_ne_bytes(*known));
    word | ((known & 0x4040_4040_4040_4040) >> 1) == known
}

const SLOT_COUNT: usize = 256;
/// Found by trial; the build fails if two known names share a slot.
const SLOT_MUL: [usize; 4] = [81, 75, 122, 8];

/// Row of [`KNOWN`] plus one, or 0.
const SLOTS: [u8; SLOT_COUNT] = {
    let mut slots = [0; SLOT_COUNT];
    let mut row = 0;
    while row < KNOWN.len() {
        assert!(KNOWN[row].1 as usize == row, "the table follows the enum");
        match slot(KNOWN[row].0.as_bytes()) {
            Some(slot) => {
                assert!(slots[slot] == 0, "two known names share a slot");
                slots[slot] = row as u8 + 1;
            }
            None => panic!("a known name is too short or too long"),
        }
        row += 1;
    }
    slots
};

const _: () = assert!((FieldKind::Other as u8) < 64, "kinds are kept in 64 bits");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_in_any_letter_case_and_nothing_else_is() {
        for (name, kind) in KNOWN {
            assert_eq!(FieldKind::of(name.as_bytes()), kind);
            assert_eq!(FieldKind::of(name.to_ascii_uppercase().as_bytes()), kind);
            for other in [format!("{name}x"), format!("x{name}"), name[1..].to_owned()] {
                let is_known = KNOWN.iter().any(|(known, _)| *known == other);
                assert_eq!(
                    FieldKind::of(other.as_bytes()) != FieldKind::Other,
                    is_known,
                    "{other}"
                );
            }
            // 0x20 apart like a letter and its capital, but no letter.
            let twisted: Vec<u8> = name.bytes().map(|b| b ^ 0x20).collect();
            if name.contains('-') {
                assert_eq!(FieldKind::of(&twisted), FieldKind::Other, "{name}");
            }
        }
        assert_eq!(FieldKind::of(b""), FieldKind::Other);
        assert_eq!(FieldKind::of(&[b'x'; 1000]), FieldKind::Other);
    }

    #[test]
    fn lines() {
        let fault = |fault| Err(fault);
        // RFC 9110 §5.1, §5.5; RFC 9112 §2.2, §5.1, §5.2
        for (line, expected) in [
            ("a:b", Ok(("a", "b"))),
            ("a:", Ok(("a", ""))),
            ("a: \t ", Ok(("a", ""))),
            ("a:\t b c \t", Ok(("a", "b c"))),
            ("a::b:", Ok(("a", ":b:"))),
            ("!#$%&'*+-.^_`|~09Az: \u{e9}\t,", Ok(("!#$%&'*+-.^_`|~09Az", "\u{e9}\t,"))),
            (" a: b", fault(FieldFault::ObsFold)),
            ("\ta: b", fault(FieldFault::ObsFold)),
            ("a : b", fault(FieldFault::SpaceBeforeColon)),
            ("a\t: b", fault(FieldFault::SpaceBeforeColon)),
            ("a b: c", fault(FieldFault::InvalidFieldName)),
            (": b", fault(FieldFault::InvalidFieldName)),
            ("ab", fault(FieldFault::InvalidFieldName)),
            ("a(b: c", fault(FieldFault::InvalidFieldName)),
            ("a\0: c", fault(FieldFault::InvalidFieldName)),
            ("\u{e9}: c", fault(FieldFault::InvalidFieldName)),
            ("a\x0b: c", fault(FieldFault::InvalidFieldName)),
            ("a\r: c", fault(FieldFault::BareCr)),
            ("a: b\rc", fault(FieldFault::BareCr)),
            ("a: b\r", fault(FieldFault::BareCr)),
            ("a: \0", fault(FieldFault::ControlInValue)),
            ("a: b\x0b", fault(FieldFault::ControlInValue)),
            ("a:\x0cb", fault(FieldFault::ControlInValue)),
            ("a: b\x7fc", fault(FieldFault::ControlInValue)),
        ] {
            let head = format!("{line}\r\n\r\n");
            let mut fields = Fields::default();
            let outcome = fields.parse(head.as_bytes(), 0).map(|()| {
                let field = fields.lines()[0];
                (field.name.of(head.as_bytes()), field.value.of(head.as_bytes()))
            });
            let expected = expected.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            assert_eq!(outcome, expected, "{line:?}");
        }
    }

    #[test]
    fn lookup() {
        let head = b"Via: a\r\nX-A: 1\r\nx-a: 2\r\nvia: b , c,\r\n\r\n";
        let mut fields = Fields::default();
        fields.parse(head, 0).unwrap();
        assert!(fields.has(FieldKind::Via) && !fields.has(FieldKind::Host));
        assert_eq!(fields.first(FieldKind::Via, head), Some(b"a".as_slice()));
        assert_eq!(fields.first(FieldKind::Host, head), None);
        assert_eq!(fields.named(b"X-a", head).collect::<Vec<_>>(), [b"1", b"2"]);
        let elements: Vec<_> = fields.elements(FieldKind::Via, head).collect();
        assert_eq!(elements, [b"a".as_slice(), b"b", b"c", b""]);
        // Bytes that are not a head end in a fault, not in a panic or a loop.
        assert!(fields.parse(b"a: b\r\n", 0).is_err());
        assert!(fields.parse(b"\r\nx", 0).is_err());
        assert!(fields.parse(b"", 9).is_err());
        assert!(Span { start: 5, end: 2 }.of(b"abcdefgh").is_empty());
    }
}
