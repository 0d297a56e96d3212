//! What bounds the control core and is no setting, in one list for `check --show-config`.

use super::{errand, link, names};
use crate::balance::{BACKENDS_MAX, ERRANDS_MAX, ROW_MAX};
use crate::config::Limit;

/// Every limit that is a constant.
pub const LIMITS: &[Limit] = &[
    Limit::count("backends in the set", BACKENDS_MAX),
    Limit::bytes("a frame of the agent", link::FRAME_BYTES_MAX),
    Limit::time("the agent's handshake", link::HANDSHAKE_TIMEOUT),
    Limit::time("between two pings of the agent", link::PING_INTERVAL),
    Limit::time("silence of the agent", link::SILENCE_MAX),
    Limit::time("a name lookup", names::LOOKUP_TIMEOUT),
    Limit::time("between two lookups of a name", names::REFRESH),
    Limit::count("lookups at one time", names::ASKED_MAX),
    Limit::count("addresses of one name", names::ADDRESSES_MAX),
    Limit::count("failures in a row before a backend is out", ROW_MAX),
    Limit::count("probes and checks at one time", ERRANDS_MAX),
    Limit::time("a probe's connect", errand::CONNECT_TIMEOUT),
];
