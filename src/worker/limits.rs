//! What bounds a worker and is no setting, in one list for `check --show-config`.

use super::{access, conn, desk, dial, health, shard, sharing, steer, talk, tick, upstream};
use crate::access_log::LINE_BYTES_MAX;
use crate::balance::{EXCLUDED_MAX, RETRIES_MAX, RETRIES_PER_SECOND_MIN, WARM_UP};
use crate::config::Limit;

/// Every limit that is a constant.
pub const LIMITS: &[Limit] = &[
    Limit::count("connections accepted in a row", super::ACCEPT_BURST_MAX as usize),
    Limit::count("pipelined requests in a row", conn::REQUESTS_PER_TURN as usize),
    Limit::time("reading on behind the last answer", conn::LINGER),
    Limit::bytes("read on behind the last answer", conn::LINGER_BYTES_MAX),
    Limit::bytes("body bytes held per direction", desk::BODY_BYTES),
    Limit::bytes("access log lines held per core", access::BUFFERS * access::BUFFER_BYTES),
    Limit::bytes("a line of the access log", LINE_BYTES_MAX),
    Limit::count("request desks kept per core", shard::DESKS_KEPT_MAX),
    Limit::count("idle connections per backend and core", upstream::IDLE_PER_BACKEND_MAX),
    Limit::count("idle connections per backend any core may have", sharing::DONATED_MAX),
    Limit::count("connections on their way to one core", steer::NEWCOMERS_MAX),
    Limit::time("a connect before another backend races it", dial::RACE_AFTER),
    Limit::count("backends one request may fail on", dial::FAILED_MAX),
    Limit::count("backends left out of a pick", EXCLUDED_MAX),
    Limit::time("a new backend's warm-up", WARM_UP),
    Limit::count("requests sent once more", RETRIES_MAX as usize),
    Limit::count("retries a second that need no budget", RETRIES_PER_SECOND_MIN as usize),
    Limit::count("connects at a time to a backend in doubt", health::OPENING_MAX as usize),
    Limit::time("holding back from a silent backend", health::HOLD_MAX),
    Limit::count("interim responses to a request", talk::INTERIMS_MAX as usize),
    Limit::count("entries of other cores' lists read in a tick", tick::ENTRIES_PER_TICK),
    Limit::time("between two ticks with work", shard::TICK),
    Limit::time("between two ticks without", tick::IDLE_TICK),
];
