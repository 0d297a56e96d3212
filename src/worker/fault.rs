//! What can go wrong behind us ([`Fault`]) and in front of us ([`Gone`]). One row per reason.

use crate::balance::Symptom;
use crate::http::{BadResponse, Refusal};

/// A backend failed us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// How far the request had come.
    pub phase: Phase,
    /// What happened.
    pub cause: Cause,
}

/// How far a request had come when its backend failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No connection came about: nothing was sent.
    Connect,
    /// The request was being sent, or had been sent, and no response head was complete.
    Head,
    /// The response head was relayed.
    Body,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The address answered that nobody listens.
    Refused,
    /// There is no way to the address.
    Unreachable,
    /// Nothing happened for too long.
    Timeout,
    /// The connection was reset.
    Reset,
    /// The connection ended where it must not.
    Closed,
    /// What came was not HTTP, or not unambiguous HTTP.
    Malformed(BadResponse),
}

impl Fault {
    pub(super) const fn new(phase: Phase, cause: Cause) -> Self {
        Self { phase, cause }
    }

    /// The fault an error of a socket call stands for.
    pub(super) fn from_io(phase: Phase, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        let cause = match error.kind() {
            Kind::ConnectionRefused => Cause::Refused,
            Kind::TimedOut => Cause::Timeout,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Cause::Reset,
            _ if phase == Phase::Connect => Cause::Unreachable,
            _ => Cause::Reset,
        };
        Self { phase, cause }
    }

    /// Its number among [`FAULTS`](crate::metrics::FAULTS).
    pub(super) const fn index(self) -> usize {
        let cause = match self.cause {
            Cause::Refused => 0,
            Cause::Unreachable => 1,
            Cause::Timeout => 2,
            Cause::Reset => 3,
            Cause::Closed => 4,
            Cause::Malformed(_) => 5,
        };
        self.phase as usize * CAUSES + cause
    }

    /// What it says of the backend's health.
    pub(super) const fn symptom(self) -> Symptom {
        match (self.phase, self.cause) {
            (Phase::Connect, Cause::Refused) => Symptom::Refused,
            (Phase::Connect, Cause::Timeout) => Symptom::ConnectTimeout,
            (Phase::Connect, Cause::Reset | Cause::Closed) => Symptom::ConnectReset,
            (Phase::Connect, Cause::Unreachable | Cause::Malformed(_)) => Symptom::Unreachable,
            (_, Cause::Timeout) => Symptom::Silent,
            (_, Cause::Closed) => Symptom::Closed,
            (_, Cause::Malformed(_)) => Symptom::Malformed,
            (_, Cause::Reset | Cause::Refused | Cause::Unreachable) => Symptom::Reset,
        }
    }

    /// What the client is told, if it can still be told anything.
    pub(super) const fn refusal(self) -> Refusal {
        match (self.phase, self.cause) {
            (_, Cause::Malformed(bad)) => Refusal::BadResponse(bad),
            (Phase::Connect, Cause::Refused) => Refusal::ConnectRefused,
            (Phase::Connect, Cause::Timeout) => Refusal::ConnectTimeout,
            (Phase::Connect, _) => Refusal::ConnectFailed,
            (_, Cause::Timeout) => Refusal::ResponseTimeout,
            _ => Refusal::ConnectionTerminated,
        }
    }
}

const CAUSES: usize = 6;

/// The client left, or was too slow to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// Ended or reset its connection.
    Left,
    /// Did not take its response in time.
    Slow,
}

impl Gone {
    /// The word for logs.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Left => "client_left",
            Self::Slow => "client_slow",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::FAULTS;

    #[test]
    fn every_fault_has_its_own_label() {
        let phases = [(Phase::Connect, "connect"), (Phase::Head, "head"), (Phase::Body, "body")];
        let causes = [
            (Cause::Refused, "refused"),
            (Cause::Unreachable, "unreachable"),
            (Cause::Timeout, "timeout"),
            (Cause::Reset, "reset"),
            (Cause::Closed, "closed"),
            (Cause::Malformed(BadResponse::NotHttp), "malformed"),
        ];
        for (phase, first) in phases {
            for (cause, second) in causes {
                let label = FAULTS[Fault::new(phase, cause).index()];
                assert_eq!(label, format!("{first}/{second}"));
            }
        }
    }
}
