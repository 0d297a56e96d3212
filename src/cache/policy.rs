//! What is kept of a response to decide about its reuse (RFC 9111 §3, §4), compact and parsed once.
//!
//! Decides: whether a response is stored; whether a stored one may be used now. Refuses to know where it is
//! stored and what of it is sent. Invariant: fresh ≤ while-revalidating, fresh ≤ on error; what forbids
//! stale leaves all three equal.

use super::directives::{Delta, RequestDirectives, ResponseDirectives};
use super::freshness::{self, Basis, Lifetime};
use super::{CacheSettings, key, vary};
use crate::http::{FieldKind, Method, PeerTrust, RequestHead, ResponseHead};
use crate::time::WallTime;

/// When an exchange with the origin took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The request went out.
    pub sent: WallTime,
    /// The response head was there.
    pub received: WallTime,
}

/// Whether a response is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storability {
    /// It is not.
    No(Unstorable),
    /// It is, with this policy.
    Yes(Policy),
}

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unstorable {
    /// Not the answer to a GET, nor a POST's that stands for its target (RFC 9110 §9.3.3).
    Method,
    /// 1xx, 206, 304, an answer to preconditions or ranges, or one that must be understood and is not.
    Status,
    /// The client's `no-store`.
    RequestNoStore,
    /// The origin's `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// The request had Authorization and nothing permits it (RFC 9111 §3.5).
    Authorization,
    /// Set-Cookie, in safe mode.
    SetCookie,
    /// Vary names `*`, a field we rewrite, or too many fields.
    Vary,
    /// Neither fresh nor ever to be of use without freshness.
    NoFreshness,
}

impl Unstorable {
    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::RequestNoStore => "request_no_store",
            Self::NoStore => "no_store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set_cookie",
            Self::Vary => "vary",
            Self::NoFreshness => "no_freshness",
        }
    }
}

/// What is remembered of a stored response to decide about its reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    received: WallTime,
    initial_age_ms: u64,
    fresh_until: WallTime,
    revalidate_until: WallTime,
    error_until: WallTime,
    /// Date, or the second of receipt.
    date_secs: i64,
    last_modified_secs: Option<i64>,
    status: u16,
    /// `no-cache`, or told so since (invalidation, HEAD).
    must_validate: bool,
    /// No stale response, not even if the client takes one.
    forbids_stale: bool,
    is_heuristic: bool,
    has_validator: bool,
    /// The origin spoke HTTP/1.0.
    is_http10: bool,
}

/// Whether a stored response may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Fresh,
    /// Yes, though stale: the client takes it (`max-stale`).
    StaleAccepted,
    /// Yes, though stale; and somebody asks the origin meanwhile (RFC 5861 §3).
    StaleWhileRevalidate,
    /// The origin must be asked first. With `only-if-cached` that is a 504 (RFC 9111 §5.2.1.7).
    Validate {
        /// It is fresh, but not for this request.
        is_fresh: bool,
        /// Until when it serves all the same if the origin cannot be reached or answers 5xx
        /// (RFC 9111 §4.2.4, RFC 5861 §4).
        on_error_until: Option<WallTime>,
    },
}

impl Policy {
    /// Whether the response may be used for a request that asks so, at `now`.
    pub fn verdict(&self, asked: &RequestDirectives, now: WallTime) -> Verdict {
        let is_fresh = now < self.fresh_until && !self.must_validate;
        let refused = Verdict::Validate { is_fresh, on_error_until: None };
        if self.must_validate || asked.no_cache || self.is_too_old(asked.max_age, now) {
            return refused;
        }
        if is_fresh {
            let left_ms = self.fresh_until.as_ms() - now.as_ms();
            let needed_ms = u64::from(asked.min_fresh.unwrap_or(0)) * 1000;
            return if left_ms >= needed_ms { Verdict::Fresh } else { refused };
        }
        if self.forbids_stale {
            return refused;
        }
        let stale_ms = now.as_ms() - self.fresh_until.as_ms();
        if let Some(max_stale) = asked.max_stale
            && (max_stale == u32::MAX || stale_ms <= u64::from(max_stale) * 1000)
        {
            return Verdict::StaleAccepted;
        }
        let wants_fresh = asked.max_age.is_some() || asked.min_fresh.is_some();
        if now < self.revalidate_until && !wants_fresh {
            return Verdict::StaleWhileRevalidate;
        }
        let on_error_until = Some(self.error_until).filter(|&until| now < until);
        Verdict::Validate { is_fresh, on_error_until }
    }

    /// RFC 9111 §5.2.1.1; a client that says 0 means that the origin be asked, however young the response.
    fn is_too_old(&self, max_age: Option<u32>, now: WallTime) -> bool {
        max_age.is_some_and(|secs| secs == 0 || self.age_ms(now) > u64::from(secs) * 1000)
    }

    fn age_ms(&self, now: WallTime) -> u64 {
        self.initial_age_ms + now.as_ms().saturating_sub(self.received.as_ms())
    }

    /// The value of Age at `now` (§4.2.3), at most 2^31.
    pub fn age_secs(&self, now: WallTime) -> u64 {
        (self.age_ms(now) / 1000).min(u64::from(super::directives::DELTA_SECS_MAX))
    }

    /// Seconds of freshness left at `now`; negative when stale (RFC 9211 §2.4).
    pub fn ttl_secs(&self, now: WallTime) -> i64 {
        // To the nearest: a core whose clock is one behind must not tell a second more than there was.
        let ms = |time: WallTime| i64::try_from(time.as_ms()).unwrap_or(i64::MAX);
        (ms(self.fresh_until) - ms(now) + 500).div_euclid(1000)
    }

    /// Until when the response is fresh.
    pub const fn fresh_until(&self) -> WallTime {
        self.fresh_until
    }

    /// When the response was received or last found valid.
    pub const fn received(&self) -> WallTime {
        self.received
    }

    /// From when on the response is of no use but to be validated.
    pub fn useful_until(&self) -> WallTime {
        self.revalidate_until.max(self.error_until)
    }

    /// Until when it may serve for an origin that fails.
    pub const fn error_until(&self) -> WallTime {
        self.error_until
    }

    /// It has an entity tag or a modification date to ask the origin with.
    pub const fn has_validator(&self) -> bool {
        self.has_validator
    }

    /// The status code.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Its freshness is guessed from Last-Modified or its extension.
    pub const fn is_heuristic(&self) -> bool {
        self.is_heuristic
    }

    /// From now on the origin is asked before every use, until a new policy takes the place of this one
    /// (RFC 9111 §4.3.5, §4.4).
    pub const fn invalidate(&mut self) {
        self.must_validate = true;
    }

    pub(super) const fn date_secs(&self) -> i64 {
        self.date_secs
    }

    pub(super) const fn last_modified_secs(&self) -> Option<i64> {
        self.last_modified_secs
    }

    pub(super) const fn is_http10(&self) -> bool {
        self.is_http10
    }
}

/// Decides whether the response to a request of a peer believed so far is stored.
pub fn judge(
    request: &RequestHead,
    request_bytes: &[u8],
    trust: PeerTrust,
    response: &ResponseHead,
    response_bytes: &[u8],
    times: Times,
    settings: &CacheSettings,
) -> Storability {
    if let Err(why) =
        method_permits(request, request_bytes, trust, response, response_bytes, settings)
    {
        return Storability::No(why);
    }
    let age_secs = freshness::age_secs(&response.fields, response_bytes);
    judge_aged(request, request_bytes, response, response_bytes, age_secs, times, settings)
}

/// As [`judge`] for a representation a GET would have had, with Age from elsewhere.
pub(super) fn judge_aged(
    request: &RequestHead,
    request_bytes: &[u8],
    response: &ResponseHead,
    response_bytes: &[u8],
    age_secs: u32,
    times: Times,
    settings: &CacheSettings,
) -> Storability {
    let (fields, bytes) = (&response.fields, response_bytes);
    let said = ResponseDirectives::of(fields, bytes);
    if let Err(why) = is_permitted(request, request_bytes, response, bytes, &said, settings) {
        return Storability::No(why);
    }
    let received_secs = times.received.as_secs();
    let date_secs = freshness::date_secs(fields, bytes, received_secs)
        .unwrap_or_else(|| i64::try_from(received_secs).unwrap_or(i64::MAX));
    let last_modified_secs =
        freshness::sole_date(fields, bytes, FieldKind::LastModified, received_secs);
    let path = request.target.path_and_query.of(request_bytes);
    let basis = Basis {
        status: response.status,
        is_static_file: request.method == Method::Get && freshness::is_static_path(path),
        date_secs,
        last_modified_secs,
        received_secs,
    };
    let lifetime = freshness::lifetime(fields, bytes, &said, &basis, settings);
    let initial_age_ms = freshness::initial_age_ms(date_secs, age_secs, times);
    let has_validator = last_modified_secs.is_some()
        || fields.first(FieldKind::ETag, bytes).is_some_and(super::validation::can_ask_with);
    let fresh_until = plus(times.received, lifetime.secs() * 1000, initial_age_ms);
    let stale = Stale::permitted(&said, lifetime, settings);
    let policy = Policy {
        received: times.received,
        initial_age_ms,
        fresh_until,
        revalidate_until: stale.until(fresh_until, stale.while_revalidate),
        error_until: stale.until(fresh_until, stale.if_error),
        date_secs,
        last_modified_secs,
        status: response.status,
        must_validate: said.no_cache,
        forbids_stale: stale.is_forbidden,
        is_heuristic: matches!(lifetime, Lifetime::Heuristic(_) | Lifetime::Static(_)),
        has_validator,
        is_http10: response.version == crate::http::Version::Http10,
    };
    if is_worth_keeping(&policy, lifetime, &stale, settings) {
        Storability::Yes(policy)
    } else {
        Storability::No(Unstorable::NoFreshness)
    }
}

/// `from + plus − minus`, saturating.
fn plus(from: WallTime, plus_ms: u64, minus_ms: u64) -> WallTime {
    WallTime::from_ms(from.as_ms().saturating_add(plus_ms).saturating_sub(minus_ms))
}

/// For what time stale is permitted, and by whom.
struct Stale {
    is_forbidden: bool,
    while_revalidate: Option<u64>,
    if_error: Option<u64>,
    is_explicit: bool,
}

impl Stale {
    fn permitted(said: &ResponseDirectives, lifetime: Lifetime, settings: &CacheSettings) -> Self {
        let while_revalidate = said.stale_while_revalidate.secs().map(u64::from);
        let if_error = said.stale_if_error.secs().map(u64::from);
        let is_explicit = while_revalidate.is_some() || if_error.is_some();
        // s-maxage has the meaning of proxy-revalidate (RFC 9111 §5.2.2.10); an origin that writes
        // stale-… next to it means it, says practice.
        let is_bound_by_s_maxage =
            said.s_maxage != Delta::Absent && (settings.is_rfc() || !is_explicit);
        let is_forbidden =
            said.no_cache || said.must_revalidate || said.proxy_revalidate || is_bound_by_s_maxage;
        if is_forbidden {
            return Self {
                is_forbidden,
                while_revalidate: None,
                if_error: None,
                is_explicit: false,
            };
        }
        let default = match lifetime {
            // Without any freshness the origin has not agreed to be represented.
            Lifetime::Unknown => None,
            _ if said.s_maxage != Delta::Absent => None,
            _ => Some(settings.stale_if_error.as_secs()),
        };
        Self { is_forbidden, while_revalidate, if_error: if_error.or(default), is_explicit }
    }

    fn until(&self, fresh_until: WallTime, secs: Option<u64>) -> WallTime {
        if self.is_forbidden {
            return fresh_until;
        }
        plus(fresh_until, secs.unwrap_or(0).saturating_mul(1000), 0)
    }
}

/// What is neither fresh, nor to be validated, nor meant to be used stale takes up room only.
fn is_worth_keeping(
    policy: &Policy,
    lifetime: Lifetime,
    stale: &Stale,
    settings: &CacheSettings,
) -> bool {
    let received = policy.received;
    let is_fresh = policy.fresh_until > received && !policy.must_validate;
    let is_useful_stale = stale.is_explicit && policy.useful_until() > received;
    let may_be_validated = policy.has_validator
        && match lifetime {
            Lifetime::Unknown => {
                policy.must_validate
                    || settings.is_rfc() && freshness::is_heuristically_cacheable(policy.status)
            }
            _ => true,
        };
    is_fresh || is_useful_stale || may_be_validated
}

/// RFC 9111 §3: the method, and the one exception a POST can make (RFC 9110 §9.3.3).
fn method_permits(
    request: &RequestHead,
    request_bytes: &[u8],
    trust: PeerTrust,
    response: &ResponseHead,
    response_bytes: &[u8],
    settings: &CacheSettings,
) -> Result<(), Unstorable> {
    match request.method {
        Method::Get => Ok(()),
        Method::Post if settings.is_rfc() => {
            let fields = &response.fields;
            let said = ResponseDirectives::of(fields, response_bytes);
            let is_explicit = said.max_age != Delta::Absent
                || said.s_maxage != Delta::Absent
                || !said.is_targeted && fields.has(FieldKind::Expires);
            let mut locations = fields.values(FieldKind::ContentLocation, response_bytes);
            let stands_for_target = match (locations.next(), locations.next()) {
                (Some(location), None) => key::is_target(request, request_bytes, trust, location),
                _ => false,
            };
            if is_explicit && stands_for_target && response.status == 200 {
                Ok(())
            } else {
                Err(Unstorable::Method)
            }
        }
        _ => Err(Unstorable::Method),
    }
}

/// RFC 9111 §3: everything else that can forbid it.
fn is_permitted(
    request: &RequestHead,
    request_bytes: &[u8],
    response: &ResponseHead,
    bytes: &[u8],
    said: &ResponseDirectives,
    settings: &CacheSettings,
) -> Result<(), Unstorable> {
    let status = response.status;
    // 412 and 416 answer preconditions and ranges, which are not in the key.
    if status < 200 || matches!(status, 206 | 304 | 412 | 416) {
        return Err(Unstorable::Status);
    }
    let is_understood = is_understood(status);
    if said.must_understand && !is_understood {
        return Err(Unstorable::Status);
    }
    if said.no_store && !said.must_understand {
        return Err(Unstorable::NoStore);
    }
    if said.private {
        return Err(Unstorable::Private);
    }
    if request.fields.has(FieldKind::CacheControl)
        && RequestDirectives::of(&request.fields, request_bytes).no_store
    {
        return Err(Unstorable::RequestNoStore);
    }
    let is_for_all = said.public || said.s_maxage != Delta::Absent;
    if request.fields.has(FieldKind::Authorization) && !is_for_all && !said.must_revalidate {
        return Err(Unstorable::Authorization);
    }
    if response.fields.has(FieldKind::SetCookie)
        && !settings.is_rfc()
        && !is_for_all
        && !said.excludes(&response.fields, bytes, b"set-cookie")
    {
        return Err(Unstorable::SetCookie);
    }
    if vary::is_impossible(&response.fields, bytes) {
        return Err(Unstorable::Vary);
    }
    Ok(())
}

/// The final status codes of RFC 9110 §15 whose rules for caches we follow (RFC 9111 §5.2.2.3).
const fn is_understood(status: u16) -> bool {
    matches!(status, 200..=205 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505)
}

const _: () = assert!(size_of::<Policy>() <= 88, "one lies in every entry");
