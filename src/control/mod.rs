//! The control core.

mod link;

pub use link::{
    Event, FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT, Link, LinkError, PING_INTERVAL, SILENCE_MAX,
};
