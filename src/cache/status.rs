//! The Cache-Status field (RFC 9211): what the cache did with a request, for whoever asks why.

use crate::access_log::CacheWord;
use crate::http::forward::decimal;

/// What the cache did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStatus {
    /// Answered from store, without going forward.
    Hit {
        /// Freshness left in seconds; negative when stale.
        ttl_secs: i64,
    },
    /// Went forward.
    Forward(Forwarded),
}

/// How a request went forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Why.
    pub why: Why,
    /// The status the origin answered with, where it is not the one the client gets.
    pub status: Option<u16>,
    /// Freshness left in seconds, where a stored response is sent.
    pub ttl_secs: Option<i64>,
    /// The response is being stored.
    pub stored: bool,
    /// The request waited for another one's response.
    pub collapsed: bool,
}

impl Forwarded {
    /// Went forward for this reason, and nothing else to say.
    pub const fn because(why: Why) -> Self {
        Self { why, status: None, ttl_secs: None, stored: false, collapsed: false }
    }
}

/// Why a request went forward (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The cache was told not to handle it.
    Bypass,
    /// Its method cannot be answered from store.
    Method,
    /// Nothing is stored for the URI.
    UriMiss,
    /// Nothing stored for the URI matches its fields.
    VaryMiss,
    /// It does not take the fresh response that is stored.
    Request,
    /// What is stored is stale.
    Stale,
}

impl Why {
    /// The token of the field, also the metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

impl CacheStatus {
    /// The access log's word for a stored response that is served so.
    pub const fn word(&self) -> CacheWord {
        match self {
            Self::Hit { ttl_secs } if *ttl_secs >= 0 => CacheWord::Hit,
            Self::Hit { .. } => CacheWord::Stale,
            Self::Forward(Forwarded { status: Some(304), .. }) => CacheWord::Revalidated,
            // Collapsed or for an error: what was stored is served for want of something better.
            Self::Forward(Forwarded { ttl_secs: Some(..0), .. }) => CacheWord::Stale,
            Self::Forward(Forwarded { collapsed: true, .. }) => CacheWord::Collapsed,
            Self::Forward(_) => CacheWord::Miss,
        }
    }

    /// Appends the field line to `out`. Members of caches before us stay on their own lines before it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Cache-Status: balancer");
        match *self {
            Self::Hit { ttl_secs } => {
                out.extend_from_slice(b"; hit");
                ttl(out, ttl_secs);
            }
            Self::Forward(forwarded) => {
                out.extend_from_slice(b"; fwd=");
                out.extend_from_slice(forwarded.why.label().as_bytes());
                if let Some(status) = forwarded.status {
                    out.extend_from_slice(b"; fwd-status=");
                    decimal(out, u64::from(status));
                }
                if let Some(secs) = forwarded.ttl_secs {
                    ttl(out, secs);
                }
                if forwarded.stored {
                    out.extend_from_slice(b"; stored");
                }
                if forwarded.collapsed {
                    out.extend_from_slice(b"; collapsed");
                }
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn ttl(out: &mut Vec<u8>, secs: i64) {
    out.extend_from_slice(if secs < 0 { b"; ttl=-" } else { b"; ttl=" });
    decimal(out, secs.unsigned_abs());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_access_log() {
        let because = |why| Forwarded::because(why);
        let validated = Forwarded { status: Some(304), ttl_secs: Some(9), ..because(Why::Stale) };
        let for_an_error =
            Forwarded { status: Some(500), ttl_secs: Some(-9), ..because(Why::Stale) };
        let collapsed = Forwarded { ttl_secs: Some(9), collapsed: true, ..because(Why::UriMiss) };
        for (status, word) in [
            (CacheStatus::Hit { ttl_secs: 0 }, CacheWord::Hit),
            (CacheStatus::Hit { ttl_secs: -1 }, CacheWord::Stale),
            (CacheStatus::Forward(validated), CacheWord::Revalidated),
            (CacheStatus::Forward(for_an_error), CacheWord::Stale),
            (CacheStatus::Forward(collapsed), CacheWord::Collapsed),
            (CacheStatus::Forward(because(Why::UriMiss)), CacheWord::Miss),
        ] {
            assert_eq!(status.word(), word, "{status:?}");
        }
    }

    #[test]
    fn lines() {
        let forward = |forwarded| CacheStatus::Forward(forwarded);
        let bare = Forwarded::because(Why::UriMiss);
        for (status, expected) in [
            (CacheStatus::Hit { ttl_secs: 376 }, "hit; ttl=376"),
            (CacheStatus::Hit { ttl_secs: -5 }, "hit; ttl=-5"),
            (CacheStatus::Hit { ttl_secs: i64::MIN }, "hit; ttl=-9223372036854775808"),
            (forward(bare), "fwd=uri-miss"),
            (
                forward(Forwarded { stored: true, collapsed: true, ..bare }),
                "fwd=uri-miss; stored; collapsed",
            ),
            (
                forward(Forwarded {
                    why: Why::Stale,
                    status: Some(304),
                    ttl_secs: Some(9),
                    ..bare
                }),
                "fwd=stale; fwd-status=304; ttl=9",
            ),
            (forward(Forwarded::because(Why::VaryMiss)), "fwd=vary-miss"),
            (forward(Forwarded::because(Why::Request)), "fwd=request"),
            (forward(Forwarded::because(Why::Method)), "fwd=method"),
            (forward(Forwarded::because(Why::Bypass)), "fwd=bypass"),
        ] {
            let mut out = Vec::new();
            status.write(&mut out);
            assert_eq!(out, format!("Cache-Status: balancer; {expected}\r\n").as_bytes());
        }
    }
}
