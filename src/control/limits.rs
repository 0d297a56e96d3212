//! What bounds the control core and is no setting, in one list for `check --show-config`.

use super::{errand, link, names};
use crate::balance::{
    BACKENDS_MAX, ERRANDS_MAX, ERRANDS_PER_SECOND, PROBE_INTERVAL, REPORTS_MAX, ROW_MAX, WAIT_MAX,
    WAIT_MIN,
};
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
    Limit::time("a failing backend is out at first", WAIT_MIN),
    Limit::time("a failing backend is out at most", WAIT_MAX),
    Limit::count("probes and checks at one time", ERRANDS_MAX),
    Limit::count("probes and checks begun in a second", ERRANDS_PER_SECOND as usize),
    Limit::time("between two probes of a backend", PROBE_INTERVAL),
    Limit::count("findings of workers that may wait", REPORTS_MAX),
    Limit::time("a probe's connect", errand::CONNECT_TIMEOUT),
];
