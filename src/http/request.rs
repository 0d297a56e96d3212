//! A request head: request line, host, fields (RFC 9112 §3, §5).
//!
//! Decides: whether these bytes are a request we understand, and for which authority it is meant.
//! Refuses to know how long the body is (`framing`) and what happens to the request.
//! Invariant: after a successful parse every span lies within the head, and the target and the host may
//! be written into another head as they are.

use super::field::{FieldKind, Fields, Span, is_token};
use super::reject::Reject;
use super::target::{Target, TargetForm, is_authority};

/// The protocol version of a message; a higher minor version is treated as 1.1 (RFC 9110 §2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1 and above
    #[default]
    Http11,
}

impl Version {
    /// `1.0` or `1.1`, as Via names it.
    pub const fn digits(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
        }
    }
}

/// Why `HTTP/x.y` is not ours.
pub(super) enum VersionFault {
    Malformed,
    Unsupported,
}

/// Reads `HTTP/` digit `.` digit, nothing more and in this case (RFC 9112 §2.3).
pub(super) fn parse_version(bytes: &[u8]) -> Result<Version, VersionFault> {
    match bytes {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'] => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Ok(Version::Http11),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            Err(VersionFault::Unsupported)
        }
        _ => Err(VersionFault::Malformed),
    }
}

/// Request methods (RFC 9110 §9), case-sensitive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the method of its name")]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// Any other token; [`RequestHead::method_span`] has it.
    Other,
}

impl Method {
    fn of(token: &[u8]) -> Self {
        match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// True if the client asks for no change of state (RFC 9110 §9.2.1).
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// True if twice is as good as once (RFC 9110 §9.2.2): only then may a request be sent again.
    pub const fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }
}

/// A parsed request head. Reusable: [`RequestHead::parse`] overwrites it and keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The method as it was spelled.
    pub method_span: Span,
    /// The version.
    pub version: Version,
    /// The request target.
    pub target: Target,
    /// The authority the request is meant for: that of an absolute-form target, else Host. Empty only
    /// for an HTTP/1.0 request that names none.
    pub host: Span,
    /// The field lines.
    pub fields: Fields,
}

impl RequestHead {
    /// Parses a whole head, exactly the bytes [`super::HeadScan::scan`] gave the length of.
    ///
    /// # Errors
    /// Anything that is not a request we understand. Of several faults the first in the text is named,
    /// those of the request line before those of Host.
    pub fn parse(&mut self, head: &[u8]) -> Result<(), Reject> {
        if u32::try_from(head.len()).is_err() {
            return Err(Reject::HeadTooLarge);
        }
        let start = if head.starts_with(b"\r\n") { 2 } else { 0 };
        let end = self.parse_line(head, start)?;
        self.fields.parse(head, end)?;
        self.host = self.agree_on_host(head)?;
        Ok(())
    }

    /// Parses the request line at `start`; gives where the field lines begin.
    fn parse_line(&mut self, head: &[u8], start: usize) -> Result<usize, Reject> {
        let rest = &head[start..];
        let lf = memchr::memchr(b'\n', rest).ok_or(Reject::MalformedRequestLine)?;
        let line = match &rest[..lf] {
            [line @ .., b'\r'] => line,
            _ => return Err(Reject::BareLf),
        };
        let method_len = memchr::memchr(b' ', line).ok_or_else(|| line_fault(line))?;
        if !is_token(&line[..method_len]) {
            return Err(line_fault(line));
        }
        let after_method = &line[method_len + 1..];
        let target_len = memchr::memchr(b' ', after_method).ok_or_else(|| line_fault(line))?;
        let version_at = method_len + 1 + target_len + 1;
        self.version = match parse_version(&line[version_at..]) {
            Ok(version) => version,
            Err(VersionFault::Unsupported) if line == b"PRI * HTTP/2.0" => {
                return Err(Reject::Http2Preface);
            }
            Err(VersionFault::Unsupported) => return Err(Reject::UnsupportedVersion),
            Err(VersionFault::Malformed) => return Err(line_fault(line)),
        };
        self.method = Method::of(&line[..method_len]);
        self.method_span = Span::new(start, start + method_len);
        if self.method == Method::Connect {
            return Err(Reject::ConnectMethod);
        }
        let target_at = start + method_len + 1;
        self.target = Target::parse(self.method, head, target_at, target_at + target_len)?;
        Ok(start + lf + 1)
    }

    /// Host must stand once in 1.1 and be valid wherever it stands; the authority of an absolute-form
    /// target then takes its place (RFC 9112 §3.2, §3.2.2).
    fn agree_on_host(&self, head: &[u8]) -> Result<Span, Reject> {
        let mut host = None;
        if self.fields.has(FieldKind::Host) {
            for field in self.fields.lines().iter().filter(|field| field.kind == FieldKind::Host) {
                if host.replace(field.value).is_some() {
                    return Err(Reject::RepeatedHost);
                }
                if !is_authority(field.value.of(head)) {
                    return Err(Reject::InvalidHost);
                }
            }
        } else if self.version == Version::Http11 {
            return Err(Reject::MissingHost);
        }
        match self.target.form {
            TargetForm::Absolute => Ok(self.target.authority),
            TargetForm::Origin | TargetForm::Asterisk => Ok(host.unwrap_or_default()),
        }
    }
}

/// Which name a request line that cannot be taken apart deserves.
#[cold]
fn line_fault(line: &[u8]) -> Reject {
    let mut parts = line.split(|&b| b == b' ');
    match (parts.next(), parts.next(), parts.next()) {
        _ if line.contains(&b'\r') => Reject::BareCr,
        (Some(b"GET"), Some(path @ [b'/', ..]), None) if path.iter().all(u8::is_ascii_graphic) => {
            Reject::Http09
        }
        _ => Reject::MalformedRequestLine,
    }
}
