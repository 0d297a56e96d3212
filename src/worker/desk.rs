//! The state of a request in flight: buffers, parsed heads, both flows. Pooled per core, so that an idle connection
//! holds none of it and a request allocates none of it.

use super::buffer::{Buffer, ROOM_MIN};
use super::record::Record;
use super::relay::Flow;
use crate::http::{HeadLimits, HeadScan, RequestHead, ResponseHead};

/// Where one request is worked on.
pub(super) struct Desk {
    /// Bytes from the client: the head (held while the request lasts), then its body, then whatever it pipelined.
    pub inbound: Buffer,
    /// Bytes from the backend.
    pub outbound: Buffer,
    /// How far the current head has been searched for its end.
    pub scan: HeadScan,
    /// What is noted of the request.
    pub record: Record,
    pub request: RequestHead,
    pub response: ResponseHead,
    /// Client to backend.
    pub up: Flow,
    /// Backend to client; also carries our own answers.
    pub down: Flow,
    pub papers: Papers,
}

/// Texts the cache works on.
#[derive(Default)]
pub(super) struct Papers {
    /// What the request asks for.
    pub key: Vec<u8>,
    /// Field lines sent in place of the client's conditions.
    pub conditions: Vec<u8>,
    /// Field lines added to a relayed response.
    pub extra: Vec<u8>,
    /// A head to be stored, and what selected it.
    pub head: Vec<u8>,
    pub selection: Vec<u8>,
    /// Other keys a response speaks of, one after the other.
    pub scratch: Vec<u8>,
}

impl Desk {
    /// A desk whose buffers take any head within `limits` and have room for body bytes behind it.
    pub(super) fn new(limits: &HeadLimits) -> Self {
        let capacity = limits.head_bytes_max.max(BODY_BYTES) + ROOM_MIN;
        Self {
            inbound: Buffer::new(capacity),
            outbound: Buffer::new(capacity),
            scan: HeadScan::default(),
            record: Record::default(),
            request: RequestHead::default(),
            response: ResponseHead::default(),
            up: Flow::default(),
            down: Flow::default(),
            papers: Papers::default(),
        }
    }

    /// Ready for another connection.
    pub(super) fn clear(&mut self) {
        self.inbound.clear();
        self.outbound.clear();
        self.down.untee();
    }
}

/// Body bytes in flight per direction.
pub(super) const BODY_BYTES: usize = 32 * 1024;
