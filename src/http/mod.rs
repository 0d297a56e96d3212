//! HTTP/1.x bytes to meaning and back (RFC 9110, RFC 9112). Pure.
//!
//! The way of a message: [`HeadScan`] finds where its head ends, [`RequestHead`] or [`ResponseHead`]
//! says what stands in it, [`framing`] decides once how long its body is, [`BodyDecoder`] takes the
//! body out of its coding, [`forward`] writes the head for the other side in our own words.
//! What we refuse has a name in [`reject`] and a text in [`answer`].

pub mod answer;
pub mod body;
pub mod field;
pub mod forward;
pub mod forwarded;
pub mod framing;
pub mod network;
pub mod reject;
pub mod reply;
pub mod request;
pub mod response;
pub mod scan;
pub mod target;
mod trailer;

pub use answer::{Answer, Refusal};
pub use body::{BodyDecoder, Decoded};
pub use field::{Field, FieldKind, Fields, Span};
pub use forward::{RequestForward, ResponseForward};
pub use forwarded::PeerTrust;
pub use framing::{Framing, RequestPlan, ResponsePlan};
pub use network::Network;
pub use reject::{BadResponse, Reject};
pub use reply::{Reply, write_reply};
pub use request::{Method, RequestHead, Version};
pub use response::ResponseHead;
pub use scan::HeadScan;
pub use target::{Target, TargetForm};

/// Bounds on a message head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Longest request or status line in bytes, without its CRLF (414).
    pub line_bytes_max: usize,
    /// Longest head in bytes, first line and final empty line included (431).
    pub head_bytes_max: usize,
    /// Most field lines (431).
    pub fields_max: usize,
}

impl HeadLimits {
    /// Whether a head that was put together from others is within them.
    pub fn admits(&self, head: &[u8]) -> bool {
        let lines = memchr::memchr_iter(b'\n', head).count();
        head.len() <= self.head_bytes_max && lines.saturating_sub(2) <= self.fields_max
    }
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { line_bytes_max: 8 * 1024, head_bytes_max: 32 * 1024, fields_max: 100 }
    }
}
