//! Why a message is refused: [`Reject`] for a client's bytes, [`BadResponse`] for a backend's.
//!
//! One table each; a variant's place in its enum is its row. The label is the word in metrics, logs and
//! `Proxy-Status` (RFC 9209); the text is what the client reads. After any of them the connection on
//! which the bytes arrived cannot go on: where the message ended is unknown or disputed.
//!
//! The smaller fault enums belong to the parsers that serve both directions; each maps onto both tables.

/// Why a client's request is refused. The connection is closed after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reject {
    /// The first byte can begin no request: TLS, SSH, junk (RFC 9112 §3).
    NotHttp,
    /// A line ends in LF without CR (RFC 9112 §2.2 lets us take it; we do not).
    BareLf,
    /// CR that no LF follows (RFC 9112 §2.2).
    BareCr,
    /// The request line is longer than its limit (RFC 9112 §3).
    LineTooLong,
    /// The head is longer than its limit (RFC 6585 §5).
    HeadTooLarge,
    /// More field lines than the limit (RFC 6585 §5).
    TooManyFields,
    /// The request line is not `method SP target SP version` (RFC 9112 §3).
    MalformedRequestLine,
    /// A request line of HTTP/0.9, which names no version.
    Http09,
    /// The connection preface of HTTP/2 (RFC 9113 §3.4).
    Http2Preface,
    /// A major version other than 1 (RFC 9110 §15.6.6).
    UnsupportedVersion,
    /// CONNECT, which a gateway has no use for (RFC 9110 §9.3.6).
    ConnectMethod,
    /// A control, space, fragment or non-ASCII byte in the target (RFC 9112 §3.2).
    InvalidTarget,
    /// A target in none of the forms its method allows (RFC 9112 §3.2).
    InvalidTargetForm,
    /// An absolute-form target with another scheme than `http` (RFC 9110 §7.4).
    ForeignScheme,
    /// The authority of an absolute-form target is none (RFC 9110 §4.2.1, §4.2.4).
    InvalidAuthority,
    /// HTTP/1.1 without Host (RFC 9112 §3.2).
    MissingHost,
    /// More than one Host (RFC 9112 §3.2).
    RepeatedHost,
    /// Host is no authority, or empty (RFC 9112 §3.2, RFC 9110 §4.2.1).
    InvalidHost,
    /// A field line that begins with whitespace (RFC 9112 §2.2, §5.2).
    ObsFold,
    /// Whitespace between a field name and its colon (RFC 9112 §5.1).
    SpaceBeforeColon,
    /// A field name that is no token, or a line without colon (RFC 9110 §5.1).
    InvalidFieldName,
    /// NUL or another control byte in a field value (RFC 9110 §5.5).
    ControlInValue,
    /// Both Content-Length and Transfer-Encoding (RFC 9112 §6.1).
    BothLengthAndChunked,
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 §6.1).
    CodingInHttp10,
    /// Transfer-Encoding in which chunked is not the last coding (RFC 9112 §6.3).
    ChunkedNotLast,
    /// Chunked applied twice (RFC 9112 §6.1).
    RepeatedChunked,
    /// Transfer-Encoding that is no list of codings (RFC 9112 §6.1).
    MalformedCoding,
    /// A transfer coding we do not implement (RFC 9112 §6.1).
    UnknownCoding,
    /// Content-Length that is no number of at most 2^63-1 (RFC 9112 §6.3).
    InvalidLength,
    /// Content-Length given twice with different numbers (RFC 9112 §6.3).
    ConflictingLengths,
    /// More connection options than anybody needs; each costs a comparison per field.
    TooManyConnectionOptions,
    /// Expect with something other than `100-continue` (RFC 9110 §10.1.1).
    UnknownExpectation,
    /// A chunk size that is no hexadecimal number of at most 2^63-1 (RFC 9112 §7.1).
    InvalidChunkSize,
    /// A chunk line or chunk that does not end in CRLF (RFC 9112 §7.1).
    MissingChunkEnd,
    /// A control byte in a chunk extension (RFC 9112 §7.1.1).
    InvalidChunkExtension,
    /// Chunk extensions out of proportion to the body (RFC 9112 §7.1.1).
    ChunkExtensionFlood,
    /// Trailer fields beyond their limit (RFC 6585 §5).
    TrailersTooLarge,
    /// The connection ended within the body (RFC 9112 §8).
    IncompleteBody,
    /// The head did not arrive in time.
    HeadTimeout,
    /// The body fell silent.
    BodyTimeout,
    /// The body is larger than its limit.
    BodyTooLarge,
}

struct RejectRow {
    reject: Reject,
    status: u16,
    label: &'static str,
    text: &'static str,
}

impl Reject {
    /// How many variants there are: the size of a counter array indexed by `reject as usize`.
    pub const COUNT: usize = REJECTS.len();

    /// All variants in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        REJECTS.iter().map(|row| row.reject)
    }

    /// The status code of the answer.
    pub const fn status(self) -> u16 {
        REJECTS[self as usize].status
    }

    /// The unique snake_case word for metrics, logs and `Proxy-Status`.
    pub const fn label(self) -> &'static str {
        REJECTS[self as usize].label
    }

    /// One sentence for the client.
    pub const fn text(self) -> &'static str {
        REJECTS[self as usize].text
    }
}

const fn r(reject: Reject, status: u16, label: &'static str, text: &'static str) -> RejectRow {
    RejectRow { reject, status, label, text }
}

const REJECTS: [RejectRow; 41] = [
    r(Reject::NotHttp, 400, "not_http", "This is no HTTP/1.x request."),
    r(Reject::BareLf, 400, "bare_lf", "A line ends in LF without CR."),
    r(Reject::BareCr, 400, "bare_cr", "A CR stands alone."),
    r(Reject::LineTooLong, 414, "line_too_long", "The request line is too long."),
    r(Reject::HeadTooLarge, 431, "head_too_large", "The request head is too large."),
    r(Reject::TooManyFields, 431, "too_many_fields", "The request has too many header fields."),
    r(
        Reject::MalformedRequestLine,
        400,
        "malformed_request_line",
        "The request line is malformed.",
    ),
    r(Reject::Http09, 400, "http_09", "HTTP/0.9 is not spoken here."),
    r(Reject::Http2Preface, 400, "http_2_preface", "HTTP/2 is not spoken here."),
    r(Reject::UnsupportedVersion, 505, "unsupported_version", "Only HTTP/1.x is spoken here."),
    r(Reject::ConnectMethod, 501, "connect_method", "CONNECT is not supported."),
    r(Reject::InvalidTarget, 400, "invalid_target", "The request target holds a forbidden byte."),
    r(
        Reject::InvalidTargetForm,
        400,
        "invalid_target_form",
        "The request target has a wrong form.",
    ),
    r(Reject::ForeignScheme, 400, "foreign_scheme", "Only the scheme http is served here."),
    r(Reject::InvalidAuthority, 400, "invalid_authority", "The target's authority is invalid."),
    r(Reject::MissingHost, 400, "missing_host", "The Host field is missing."),
    r(Reject::RepeatedHost, 400, "repeated_host", "The Host field is repeated."),
    r(Reject::InvalidHost, 400, "invalid_host", "The Host field is invalid."),
    r(Reject::ObsFold, 400, "obs_fold", "A field line begins with whitespace."),
    r(Reject::SpaceBeforeColon, 400, "space_before_colon", "Whitespace stands before a colon."),
    r(Reject::InvalidFieldName, 400, "invalid_field_name", "A field name is invalid."),
    r(Reject::ControlInValue, 400, "control_in_value", "A field value holds a control byte."),
    r(
        Reject::BothLengthAndChunked,
        400,
        "both_length_and_chunked",
        "Content-Length and Transfer-Encoding exclude each other.",
    ),
    r(Reject::CodingInHttp10, 400, "coding_in_http_10", "HTTP/1.0 has no Transfer-Encoding."),
    r(Reject::ChunkedNotLast, 400, "chunked_not_last", "The last transfer coding must be chunked."),
    r(Reject::RepeatedChunked, 400, "repeated_chunked", "Chunked is applied more than once."),
    r(Reject::MalformedCoding, 400, "malformed_coding", "Transfer-Encoding is malformed."),
    r(Reject::UnknownCoding, 501, "unknown_coding", "The transfer coding is not implemented."),
    r(Reject::InvalidLength, 400, "invalid_length", "Content-Length is invalid."),
    r(Reject::ConflictingLengths, 400, "conflicting_lengths", "Two different Content-Lengths."),
    r(
        Reject::TooManyConnectionOptions,
        400,
        "too_many_connection_options",
        "Connection lists too many options.",
    ),
    r(Reject::UnknownExpectation, 417, "unknown_expectation", "The expectation cannot be met."),
    r(Reject::InvalidChunkSize, 400, "invalid_chunk_size", "A chunk size is invalid."),
    r(Reject::MissingChunkEnd, 400, "missing_chunk_end", "A chunk does not end in CRLF."),
    r(
        Reject::InvalidChunkExtension,
        400,
        "invalid_chunk_extension",
        "A chunk extension is invalid.",
    ),
    r(Reject::ChunkExtensionFlood, 400, "chunk_extension_flood", "Too many chunk extensions."),
    r(Reject::TrailersTooLarge, 431, "trailers_too_large", "The trailer section is too large."),
    r(Reject::IncompleteBody, 400, "incomplete_body", "The request body is incomplete."),
    r(Reject::HeadTimeout, 408, "head_timeout", "The request head did not arrive in time."),
    r(Reject::BodyTimeout, 408, "body_timeout", "The request body did not arrive in time."),
    r(Reject::BodyTooLarge, 413, "body_too_large", "The request body is too large."),
];

const _: () = {
    let mut i = 0;
    while i < REJECTS.len() {
        assert!(REJECTS[i].reject as usize == i, "the table follows the enum");
        i += 1;
    }
};

/// Why a backend's response is refused. Always a 502 if nothing was relayed yet, else a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BadResponse {
    /// The first byte can begin no response.
    NotHttp,
    /// The status line is not `version SP 3DIGIT SP reason` (RFC 9112 §4).
    MalformedStatusLine,
    /// A major version other than 1.
    UnsupportedVersion,
    /// A status below 100 or above 599 (RFC 9110 §15).
    InvalidStatus,
    /// The status line or the head is longer than its limit.
    HeadTooLarge,
    /// More field lines than the limit.
    TooManyFields,
    /// A line ends in LF without CR.
    BareLf,
    /// CR that no LF follows (RFC 9112 §2.2).
    BareCr,
    /// A field line that begins with whitespace (RFC 9112 §5.2).
    ObsFold,
    /// Whitespace between a field name and its colon (RFC 9112 §5.1).
    SpaceBeforeColon,
    /// A field name that is no token, or a line without colon (RFC 9110 §5.1).
    InvalidFieldName,
    /// NUL or another control byte in a field value (RFC 9110 §5.5).
    ControlInValue,
    /// Both Content-Length and Transfer-Encoding (RFC 9112 §6.3).
    BothLengthAndChunked,
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 §6.1).
    CodingInHttp10,
    /// Transfer-Encoding other than chunked alone (RFC 9112 §6.1).
    UnsupportedCoding,
    /// Content-Length that is no number of at most 2^63-1 (RFC 9112 §6.3).
    InvalidLength,
    /// Content-Length given twice with different numbers (RFC 9112 §6.3).
    ConflictingLengths,
    /// More connection options than anybody needs.
    TooManyConnectionOptions,
    /// 101 without our having offered that upgrade (RFC 9110 §15.2.2).
    UnaskedUpgrade,
    /// A chunk size that is no hexadecimal number of at most 2^63-1 (RFC 9112 §7.1).
    InvalidChunkSize,
    /// A chunk line or chunk that does not end in CRLF (RFC 9112 §7.1).
    MissingChunkEnd,
    /// A control byte in a chunk extension (RFC 9112 §7.1.1).
    InvalidChunkExtension,
    /// Chunk extensions out of proportion to the body.
    ChunkExtensionFlood,
    /// Trailer fields beyond their limit.
    TrailersTooLarge,
    /// The connection ended within the body (RFC 9112 §8).
    IncompleteBody,
    /// More interim responses than anybody needs; the answer is not going to come.
    TooManyInterims,
}

struct BadRow {
    bad: BadResponse,
    label: &'static str,
    proxy_error: &'static str,
}

impl BadResponse {
    /// How many variants there are: the size of a counter array indexed by `bad as usize`.
    pub const COUNT: usize = BAD_RESPONSES.len();

    /// All variants in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        BAD_RESPONSES.iter().map(|row| row.bad)
    }

    /// The status code of the answer: 502 (RFC 9110 §15.6.3).
    pub const fn status(self) -> u16 {
        502
    }

    /// The unique snake_case word for metrics, logs and `Proxy-Status`.
    pub const fn label(self) -> &'static str {
        BAD_RESPONSES[self as usize].label
    }

    /// The Proxy Error Type (RFC 9209 §2.3).
    pub const fn proxy_error(self) -> &'static str {
        BAD_RESPONSES[self as usize].proxy_error
    }
}

const fn b(bad: BadResponse, label: &'static str, proxy_error: &'static str) -> BadRow {
    BadRow { bad, label, proxy_error }
}

const PROTOCOL: &str = "http_protocol_error";
const HEAD_SIZE: &str = "http_response_header_section_size";
const CODING: &str = "http_response_transfer_coding";

const BAD_RESPONSES: [BadRow; 26] = [
    b(BadResponse::NotHttp, "response_not_http", PROTOCOL),
    b(BadResponse::MalformedStatusLine, "malformed_status_line", PROTOCOL),
    b(BadResponse::UnsupportedVersion, "response_unsupported_version", PROTOCOL),
    b(BadResponse::InvalidStatus, "invalid_status", PROTOCOL),
    b(BadResponse::HeadTooLarge, "response_head_too_large", HEAD_SIZE),
    b(BadResponse::TooManyFields, "response_too_many_fields", HEAD_SIZE),
    b(BadResponse::BareLf, "response_bare_lf", PROTOCOL),
    b(BadResponse::BareCr, "response_bare_cr", PROTOCOL),
    b(BadResponse::ObsFold, "response_obs_fold", PROTOCOL),
    b(BadResponse::SpaceBeforeColon, "response_space_before_colon", PROTOCOL),
    b(BadResponse::InvalidFieldName, "response_invalid_field_name", PROTOCOL),
    b(BadResponse::ControlInValue, "response_control_in_value", PROTOCOL),
    b(BadResponse::BothLengthAndChunked, "response_both_length_and_chunked", PROTOCOL),
    b(BadResponse::CodingInHttp10, "response_coding_in_http_10", PROTOCOL),
    b(BadResponse::UnsupportedCoding, "response_unsupported_coding", CODING),
    b(BadResponse::InvalidLength, "response_invalid_length", PROTOCOL),
    b(BadResponse::ConflictingLengths, "response_conflicting_lengths", PROTOCOL),
    b(BadResponse::TooManyConnectionOptions, "response_too_many_connection_options", PROTOCOL),
    b(BadResponse::UnaskedUpgrade, "unasked_upgrade", "http_upgrade_failed"),
    b(BadResponse::InvalidChunkSize, "response_invalid_chunk_size", CODING),
    b(BadResponse::MissingChunkEnd, "response_missing_chunk_end", CODING),
    b(BadResponse::InvalidChunkExtension, "response_invalid_chunk_extension", CODING),
    b(BadResponse::ChunkExtensionFlood, "response_chunk_extension_flood", CODING),
    b(
        BadResponse::TrailersTooLarge,
        "response_trailers_too_large",
        "http_response_trailer_section_size",
    ),
    b(BadResponse::IncompleteBody, "response_incomplete_body", "http_response_incomplete"),
    b(BadResponse::TooManyInterims, "response_too_many_interims", PROTOCOL),
];

const _: () = {
    let mut i = 0;
    while i < BAD_RESPONSES.len() {
        assert!(BAD_RESPONSES[i].bad as usize == i, "the table follows the enum");
        i += 1;
    }
};

/// What is wrong with a field line, in a head or a trailer section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldFault {
    /// See [`Reject::BareLf`].
    BareLf,
    /// See [`Reject::BareCr`].
    BareCr,
    /// See [`Reject::ObsFold`].
    ObsFold,
    /// See [`Reject::SpaceBeforeColon`].
    SpaceBeforeColon,
    /// See [`Reject::InvalidFieldName`].
    InvalidFieldName,
    /// See [`Reject::ControlInValue`].
    ControlInValue,
}

impl From<FieldFault> for Reject {
    fn from(fault: FieldFault) -> Self {
        match fault {
            FieldFault::BareLf => Self::BareLf,
            FieldFault::BareCr => Self::BareCr,
            FieldFault::ObsFold => Self::ObsFold,
            FieldFault::SpaceBeforeColon => Self::SpaceBeforeColon,
            FieldFault::InvalidFieldName => Self::InvalidFieldName,
            FieldFault::ControlInValue => Self::ControlInValue,
        }
    }
}

impl From<FieldFault> for BadResponse {
    fn from(fault: FieldFault) -> Self {
        match fault {
            FieldFault::BareLf => Self::BareLf,
            FieldFault::BareCr => Self::BareCr,
            FieldFault::ObsFold => Self::ObsFold,
            FieldFault::SpaceBeforeColon => Self::SpaceBeforeColon,
            FieldFault::InvalidFieldName => Self::InvalidFieldName,
            FieldFault::ControlInValue => Self::ControlInValue,
        }
    }
}

/// What is wrong with a body, of a request or a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// See [`Reject::InvalidChunkSize`].
    InvalidChunkSize,
    /// See [`Reject::MissingChunkEnd`].
    MissingChunkEnd,
    /// See [`Reject::InvalidChunkExtension`].
    InvalidChunkExtension,
    /// See [`Reject::ChunkExtensionFlood`].
    ChunkExtensionFlood,
    /// See [`Reject::TrailersTooLarge`].
    TrailersTooLarge,
    /// See [`Reject::IncompleteBody`].
    Incomplete,
    /// A trailer line is malformed.
    Trailer(FieldFault),
}

impl From<FieldFault> for BodyFault {
    fn from(fault: FieldFault) -> Self {
        Self::Trailer(fault)
    }
}

impl From<BodyFault> for Reject {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::InvalidChunkSize => Self::InvalidChunkSize,
            BodyFault::MissingChunkEnd => Self::MissingChunkEnd,
            BodyFault::InvalidChunkExtension => Self::InvalidChunkExtension,
            BodyFault::ChunkExtensionFlood => Self::ChunkExtensionFlood,
            BodyFault::TrailersTooLarge => Self::TrailersTooLarge,
            BodyFault::Incomplete => Self::IncompleteBody,
            BodyFault::Trailer(fault) => fault.into(),
        }
    }
}

impl From<BodyFault> for BadResponse {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::InvalidChunkSize => Self::InvalidChunkSize,
            BodyFault::MissingChunkEnd => Self::MissingChunkEnd,
            BodyFault::InvalidChunkExtension => Self::InvalidChunkExtension,
            BodyFault::ChunkExtensionFlood => Self::ChunkExtensionFlood,
            BodyFault::TrailersTooLarge => Self::TrailersTooLarge,
            BodyFault::Incomplete => Self::IncompleteBody,
            BodyFault::Trailer(fault) => fault.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn labels_are_unique_snake_case_words_over_both_tables() {
        let labels: Vec<_> = Reject::all()
            .map(Reject::label)
            .chain(BadResponse::all().map(BadResponse::label))
            .collect();
        let unique: HashSet<_> = labels.iter().collect();
        assert_eq!(unique.len(), Reject::COUNT + BadResponse::COUNT);
        for label in labels {
            assert!(
                label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{label}"
            );
        }
    }

    #[test]
    fn statuses_are_the_ones_we_answer() {
        for reject in Reject::all() {
            assert!(
                matches!(reject.status(), 400 | 408 | 413 | 414 | 417 | 431 | 501 | 505),
                "{reject:?}"
            );
        }
    }
}
