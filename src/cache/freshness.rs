//! How long a response is fresh and how old it is already (RFC 9111 §4.2).
//!
//! Decides: the freshness lifetime, and where it comes from; the age on arrival. Whole seconds come from the
//! origin, milliseconds from our own clock. Refuses to know whether the response may be stored.

use super::date;
use super::directives::{Delta, ResponseDirectives, delta_secs};
use super::policy::Times;
use super::{CacheSettings, directives::DELTA_SECS_MAX};
use crate::http::field::trim_ows;
use crate::http::{FieldKind, Fields};

/// A freshness lifetime in seconds, by its source (RFC 9111 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Said by the origin; 0 where it said it badly.
    Explicit(u64),
    /// From Last-Modified (§4.2.2).
    Heuristic(u64),
    /// A static file's, by the operator's rule.
    Static(u64),
    /// Nothing is known.
    Unknown,
}

impl Lifetime {
    /// The seconds; 0 if unknown.
    pub const fn secs(self) -> u64 {
        match self {
            Self::Explicit(secs) | Self::Heuristic(secs) | Self::Static(secs) => secs,
            Self::Unknown => 0,
        }
    }
}

/// What the lifetime of a response depends on besides its fields.
#[derive(Clone, Copy, Debug)]
pub struct Basis {
    /// The status code.
    pub status: u16,
    /// GET of a path with the extension of a static file.
    pub is_static_file: bool,
    /// Date, or the time of receipt, in seconds since the epoch.
    pub date_secs: i64,
    /// Last-Modified.
    pub last_modified_secs: Option<i64>,
    /// The second of receipt.
    pub received_secs: u64,
}

/// The freshness lifetime of a response in a shared cache: s-maxage, max-age, Expires, and if there is none
/// of them what the settings give.
pub fn lifetime(
    fields: &Fields,
    bytes: &[u8],
    said: &ResponseDirectives,
    basis: &Basis,
    settings: &CacheSettings,
) -> Lifetime {
    for delta in [said.s_maxage, said.max_age] {
        match delta {
            Delta::Secs(secs) => return Lifetime::Explicit(u64::from(secs)),
            Delta::Invalid => return Lifetime::Explicit(0),
            Delta::Absent => {}
        }
    }
    if !said.is_targeted && fields.has(FieldKind::Expires) {
        return Lifetime::Explicit(expires(fields, bytes, basis).unwrap_or(0));
    }
    let is_bare = !said.is_present && !fields.has(FieldKind::SetCookie) && basis.status == 200;
    if basis.is_static_file && is_bare && !settings.static_ttl.is_zero() {
        return Lifetime::Static(settings.static_ttl.as_secs());
    }
    let may_guess = is_heuristically_cacheable(basis.status) || said.public;
    match (basis.last_modified_secs, settings.heuristic_max) {
        (Some(modified), Some(max)) if may_guess => {
            let unchanged = u64::try_from(basis.date_secs.saturating_sub(modified)).unwrap_or(0);
            Lifetime::Heuristic((unchanged / 10).min(max.as_secs()))
        }
        _ => Lifetime::Unknown,
    }
}

/// Expires − Date; None if it is repeated, invalid or not later (RFC 9111 §5.3).
fn expires(fields: &Fields, bytes: &[u8], basis: &Basis) -> Option<u64> {
    let mut values = fields.values(FieldKind::Expires, bytes);
    let (value, None) = (values.next()?, values.next()) else { return None };
    let at = date::parse(value, basis.received_secs)?;
    let secs = u64::try_from(at.saturating_sub(basis.date_secs)).ok()?;
    Some(secs.min(u64::from(DELTA_SECS_MAX)))
}

/// Date; None if it is missing, repeated or invalid.
pub fn date_secs(fields: &Fields, bytes: &[u8], received_secs: u64) -> Option<i64> {
    sole_date(fields, bytes, FieldKind::Date, received_secs)
}

/// The date in a field that may stand once.
pub(super) fn sole_date(
    fields: &Fields,
    bytes: &[u8],
    kind: FieldKind,
    now_secs: u64,
) -> Option<i64> {
    let mut values = fields.values(kind, bytes);
    let (value, None) = (values.next()?, values.next()) else { return None };
    date::parse(value, now_secs)
}

/// The corrected age on arrival in milliseconds (§4.2.3): the larger of what Date and what Age and our own
/// waiting amount to.
pub fn initial_age_ms(date_secs: i64, age_secs: u32, times: Times) -> u64 {
    let received_secs = i64::try_from(times.received.as_secs()).unwrap_or(i64::MAX);
    let apparent = u64::try_from(received_secs.saturating_sub(date_secs)).unwrap_or(0);
    let delay_ms = times.received.as_ms().saturating_sub(times.sent.as_ms());
    let corrected_ms = u64::from(age_secs) * 1000 + delay_ms;
    corrected_ms.max(apparent.saturating_mul(1000)).min(u64::from(DELTA_SECS_MAX) * 1000)
}

/// Age in seconds: the first member of the first line; 0 if that is no number (§5.1).
pub fn age_secs(fields: &Fields, bytes: &[u8]) -> u32 {
    let first = fields.elements(FieldKind::Age, bytes).next();
    first.and_then(|text| delta_secs(trim_ows(text))).unwrap_or(0)
}

/// RFC 9110 §15.1; 206 is not among them as we do not store it.
pub const fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// True if the path (before any query) ends like the name of a static file.
pub fn is_static_path(path_and_query: &[u8]) -> bool {
    let end = path_and_query.iter().position(|&b| b == b'?').unwrap_or(path_and_query.len());
    let name = path_and_query[..end].rsplit(|&b| b == b'/').next().unwrap_or_default();
    let Some(dot) = name.iter().rposition(|&b| b == b'.') else { return false };
    STATIC_EXTENSIONS.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(&name[dot + 1..]))
}

const STATIC_EXTENSIONS: [&str; 24] = [
    "css", "js", "mjs", "map", "wasm", "png", "jpg", "jpeg", "gif", "svg", "webp", "avif", "ico",
    "bmp", "woff", "woff2", "ttf", "otf", "eot", "mp3", "mp4", "webm", "ogg", "pdf",
];
