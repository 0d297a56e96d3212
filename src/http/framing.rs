//! How long a message is and what becomes of its connection (RFC 9112 §6, §9; RFC 9110 §7.6–7.8, §10.1).
//!
//! Decides, once per message: where the body ends, whether the connection can be used again, whether an
//! upgrade, an expectation or trailers are wanted. Nobody reads Content-Length or Transfer-Encoding
//! after this. Refuses to know who is on the other side.
//!
//! Invariant: a message two parties could disagree about is refused, never interpreted.

use super::field::{FieldKind, Fields, is_token};
use super::reject::{BadResponse, Reject};
use super::request::{Method, RequestHead, Version};
use super::response::ResponseHead;

/// How the end of a body is marked (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// So many bytes, at most 2^63-1.
    Length(u64),
    /// Chunks.
    Chunked,
    /// The body ends with the connection; responses only.
    UntilClose,
    /// No message any more but bytes in both directions, until both are closed.
    Tunnel,
}

impl Framing {
    /// True if no body byte can follow.
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// What a request head decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestPlan {
    /// How the body ends: None, Length or Chunked.
    pub framing: Framing,
    /// The client wants the connection kept.
    pub keep_alive: bool,
    /// A WebSocket handshake: GET of an HTTP/1.1 client without a body that lists `upgrade` in Connection
    /// and `websocket` in Upgrade (RFC 6455 §4.1). Any other upgrade is not passed on.
    pub upgrade: bool,
    /// The client waits for a 100 before it sends the body; never set without a body or in HTTP/1.0.
    pub expects_continue: bool,
    /// The client takes trailers (RFC 9110 §10.1.4).
    pub accepts_trailers: bool,
    /// Max-Forwards of OPTIONS and TRACE. Zero must not be forwarded: we are the final recipient
    /// (RFC 9110 §7.6.2; [`super::answer::write_options`], [`super::answer::write_trace`]).
    pub max_forwards: Option<u64>,
}

/// What a response head decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponsePlan {
    /// How the body ends.
    pub framing: Framing,
    /// As far as the head says, the connection can carry another request. False once, for an interim
    /// response too, is false for the connection.
    pub keep_alive: bool,
    /// A 1xx other than an accepted 101: the answer is still to come.
    pub is_interim: bool,
    /// The length a response to HEAD or a 304 tells without having a body (RFC 9110 §8.6).
    pub declared_length: Option<u64>,
}

/// Decides about a request.
///
/// # Errors
/// Framing that is unclear, an unknown transfer coding, an expectation other than `100-continue`.
pub fn of_request(head: &RequestHead, bytes: &[u8]) -> Result<RequestPlan, Reject> {
    let fields = &head.fields;
    let length = length(fields, bytes).map_err(LengthFault::reject)?;
    let framing = if fields.has(FieldKind::TransferEncoding) {
        if head.version == Version::Http10 {
            return Err(Reject::CodingInHttp10);
        }
        if fields.has(FieldKind::ContentLength) {
            return Err(Reject::BothLengthAndChunked);
        }
        match codings(fields, bytes) {
            Codings::Chunked => Framing::Chunked,
            Codings::Unknown | Codings::Unheard => return Err(Reject::UnknownCoding),
            Codings::ChunkedNotLast => return Err(Reject::ChunkedNotLast),
            Codings::RepeatedChunked => return Err(Reject::RepeatedChunked),
            Codings::Malformed => return Err(Reject::MalformedCoding),
        }
    } else {
        length.map_or(Framing::None, Framing::Length)
    };
    let options = ConnectionOptions::of(fields, bytes).ok_or(Reject::TooManyConnectionOptions)?;
    let is_11 = head.version == Version::Http11;
    let expects_continue = is_11 && expects_continue(fields, bytes)? && !framing.is_empty();
    Ok(RequestPlan {
        framing,
        keep_alive: options.keeps_alive(head.version),
        upgrade: is_11
            && options.upgrade
            && head.method == Method::Get
            && framing.is_empty()
            && names_websocket(fields, bytes),
        expects_continue,
        accepts_trailers: is_11
            && fields
                .elements(FieldKind::Te, bytes)
                .any(|coding| coding.eq_ignore_ascii_case(b"trailers")),
        max_forwards: max_forwards(head, bytes),
    })
}

/// Decides about a response to a request with `method`; `upgrade_offered` if we passed a WebSocket
/// handshake on.
///
/// # Errors
/// Framing that is unclear, any transfer coding but chunked alone, a 101 nobody asked for.
pub fn of_response(
    head: &ResponseHead,
    bytes: &[u8],
    method: Method,
    upgrade_offered: bool,
) -> Result<ResponsePlan, BadResponse> {
    let fields = &head.fields;
    let length = length(fields, bytes).map_err(LengthFault::bad_response)?;
    let has_coding = fields.has(FieldKind::TransferEncoding);
    let mut is_chunked = false;
    if has_coding {
        if head.version == Version::Http10 {
            return Err(BadResponse::CodingInHttp10);
        }
        if fields.has(FieldKind::ContentLength) {
            return Err(BadResponse::BothLengthAndChunked);
        }
        match codings(fields, bytes) {
            Codings::Chunked => is_chunked = true,
            // A word nobody has heard of: the body ends with the connection (RFC 9112 §6.3, rule 4), and the field
            // goes no further. A coding we know and cannot undo would reach the client as something it is not.
            Codings::Unheard => {}
            _ => return Err(BadResponse::UnsupportedCoding),
        }
    }
    let options =
        ConnectionOptions::of(fields, bytes).ok_or(BadResponse::TooManyConnectionOptions)?;
    let mut plan = ResponsePlan {
        framing: Framing::None,
        keep_alive: options.keeps_alive(head.version),
        is_interim: false,
        declared_length: None,
    };
    match head.status {
        101 => {
            let is_accepted = upgrade_offered
                && head.version == Version::Http11
                && names_websocket(fields, bytes);
            if !is_accepted {
                return Err(BadResponse::UnaskedUpgrade);
            }
            plan.framing = Framing::Tunnel;
            plan.keep_alive = false;
        }
        // Fields that announce a body where none can be (RFC 9112 §6.3): one that comes all the same
        // would be read as the next response, so the connection ends with this one.
        100..=199 | 204 => {
            plan.is_interim = head.status < 200;
            plan.keep_alive &= !has_coding && length.unwrap_or(0) == 0;
        }
        304 => plan.declared_length = length,
        _ if method == Method::Head => plan.declared_length = length,
        _ if is_chunked => plan.framing = Framing::Chunked,
        _ => match length {
            Some(length) => plan.framing = Framing::Length(length),
            None => {
                plan.framing = Framing::UntilClose;
                plan.keep_alive = false;
            }
        },
    }
    Ok(plan)
}

/// What Connection says. Options are compared without letter case (RFC 9110 §7.6.1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnectionOptions {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// At least one option that may be the name of a field we would forward.
    pub(super) names_others: bool,
}

impl ConnectionOptions {
    /// None if there are more than [`CONNECTION_OPTIONS_MAX`].
    pub(super) fn of(fields: &Fields, bytes: &[u8]) -> Option<Self> {
        let mut options = Self::default();
        for (n, option) in fields.elements(FieldKind::Connection, bytes).enumerate() {
            if n >= CONNECTION_OPTIONS_MAX {
                return None;
            }
            if option.eq_ignore_ascii_case(b"close") {
                options.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                options.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                options.upgrade = true;
            } else if FieldKind::of(option) == FieldKind::Other {
                options.names_others = true;
            }
        }
        Some(options)
    }

    /// RFC 9112 §9.3: 1.1 keeps the connection unless told to close, 1.0 closes unless told to keep.
    const fn keeps_alive(self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }
}

/// True if the field is listed in Connection.
pub(super) fn is_connection_listed(fields: &Fields, bytes: &[u8], name: &[u8]) -> bool {
    fields.elements(FieldKind::Connection, bytes).any(|option| option.eq_ignore_ascii_case(name))
}

/// True if Upgrade lists `websocket`.
pub(super) fn names_websocket(fields: &Fields, bytes: &[u8]) -> bool {
    fields
        .elements(FieldKind::Upgrade, bytes)
        .any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

/// RFC 9110 §10.1.1: every expectation must be one we know.
fn expects_continue(fields: &Fields, bytes: &[u8]) -> Result<bool, Reject> {
    let mut expects = false;
    for expectation in fields.elements(FieldKind::Expect, bytes) {
        if expectation.eq_ignore_ascii_case(b"100-continue") {
            expects = true;
        } else if !expectation.is_empty() {
            return Err(Reject::UnknownExpectation);
        }
    }
    Ok(expects)
}

/// Max-Forwards where it has a meaning (RFC 9110 §7.6.2). What is no number is passed on unread.
pub(super) fn max_forwards(head: &RequestHead, bytes: &[u8]) -> Option<u64> {
    if !matches!(head.method, Method::Options | Method::Trace) {
        return None;
    }
    head.fields.values(FieldKind::MaxForwards, bytes).filter_map(decimal).min()
}

enum LengthFault {
    Invalid,
    Conflicting,
}

impl LengthFault {
    const fn reject(self) -> Reject {
        match self {
            Self::Invalid => Reject::InvalidLength,
            Self::Conflicting => Reject::ConflictingLengths,
        }
    }

    const fn bad_response(self) -> BadResponse {
        match self {
            Self::Invalid => BadResponse::InvalidLength,
            Self::Conflicting => BadResponse::ConflictingLengths,
        }
    }
}

/// The one number all Content-Length lines and list elements agree on (RFC 9112 §6.3, RFC 9110 §8.6).
fn length(fields: &Fields, bytes: &[u8]) -> Result<Option<u64>, LengthFault> {
    let mut agreed = None;
    for element in fields.elements(FieldKind::ContentLength, bytes) {
        let length = decimal(element).ok_or(LengthFault::Invalid)?;
        match agreed.replace(length) {
            Some(other) if other != length => return Err(LengthFault::Conflicting),
            _ => {}
        }
    }
    Ok(agreed)
}

/// `1*DIGIT` up to 2^63-1.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &b| match b {
        b'0'..=b'9' => number
            .checked_mul(10)?
            .checked_add(u64::from(b - b'0'))
            .filter(|&n| n <= BODY_BYTES_MAX),
        _ => None,
    })
}

enum Codings {
    /// Chunked, once, and nothing else.
    Chunked,
    /// At least one coding we do not implement, in a place where it could be.
    Unknown,
    /// No chunked, and no coding anybody has registered.
    Unheard,
    ChunkedNotLast,
    RepeatedChunked,
    Malformed,
}

/// Reads all Transfer-Encoding lines as one list (RFC 9112 §6.1).
fn codings(fields: &Fields, bytes: &[u8]) -> Codings {
    let (mut chunked, mut last_is_chunked, mut unknown, mut registered) = (0, false, false, false);
    for coding in fields.elements(FieldKind::TransferEncoding, bytes) {
        // An empty element or whitespace that is none to us may be something else to others.
        let name = coding.split(|&b| b == b';').next().unwrap_or_default();
        if !is_token(super::field::trim_ows(name)) {
            return Codings::Malformed;
        }
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        chunked += usize::from(last_is_chunked);
        if !last_is_chunked {
            let name = super::field::trim_ows(name);
            if name.eq_ignore_ascii_case(b"chunked") {
                return Codings::Malformed;
            }
            let is_registered =
                REGISTERED_CODINGS.iter().any(|known| known.eq_ignore_ascii_case(name));
            registered |= is_registered;
            unknown |= !is_registered;
        }
    }
    match chunked {
        2.. => Codings::RepeatedChunked,
        1 if !last_is_chunked => Codings::ChunkedNotLast,
        1 if unknown || registered => Codings::Unknown,
        1 => Codings::Chunked,
        // A coding we know and that cannot end a request is the sender's fault (§6.3); one we have never
        // heard of is ours.
        _ if unknown && registered => Codings::Unknown,
        _ if unknown => Codings::Unheard,
        _ => Codings::ChunkedNotLast,
    }
}

/// The codings of RFC 9112 §7.2 and the withdrawn `identity`: none of them ends a body by itself.
const REGISTERED_CODINGS: [&[u8]; 6] =
    [b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress", b"identity"];
/// Most options in Connection; each one may cost a comparison per field.
pub const CONNECTION_OPTIONS_MAX: usize = 64;
/// Largest body length or chunk size that is a number to us: 2^63-1.
pub const BODY_BYTES_MAX: u64 = i64::MAX as u64;
