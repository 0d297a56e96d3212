//! The control core.

mod broadcast;
mod link;
mod names;
mod resolve;

pub use broadcast::Subscriber;
pub use link::{
    Event, FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT, Link, LinkError, PING_INTERVAL, SILENCE_MAX,
};
pub use names::{Finding, Names};
pub use resolve::{Lookup, Resolver, system_lookup};
