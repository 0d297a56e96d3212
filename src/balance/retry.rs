//! May a request whose exchange failed be sent once more, and where?
//!
//! It may when that is safe: nothing of it was sent (whatever the method); or its method is idempotent, no byte of a
//! response was seen and its body is still ours to resend (RFC 9110 §9.2.2, RFC 9112 §9.3.1). A POST is never sent
//! twice, and once a response head was relayed nothing can be repeated. At most [`RETRIES_MAX`] times a request, and
//! within a [`RetryBudget`] per core from which connections that never came about are exempt.

use std::time::Duration;

use crate::time::Instant;

/// How far an exchange came before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No connection came about.
    Connect,
    /// There was a connection, but no byte of the request left us.
    Unsent,
    /// Some of the request left us; no byte of a response came.
    Sent,
    /// A response had begun.
    Answered,
}

/// A try that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How far it came.
    pub phase: Phase,
    /// Whether the connection came from the pool.
    pub is_reused: bool,
    /// Whether sending the request twice means the same as once (RFC 9110 §9.2.2).
    pub is_idempotent: bool,
    /// Whether the whole body is still ours: there is none, or all that was read of it is still in our buffer.
    pub is_replayable: bool,
    /// Retries this request already had.
    pub retries: u32,
}

/// What becomes of a request after a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it to another backend; where there is none, on a fresh connection to the same one.
    ElsewhereOrFresh,
    /// The same, but on a fresh connection wherever it goes: a pooled one just died, its siblings may be dead too.
    Fresh,
    /// The client gets an error.
    GiveUp(Obstacle),
}

/// Why a request is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A response had begun.
    Answered,
    /// The backend may have acted on it, and acting twice is not the same as once.
    NotIdempotent,
    /// Parts of the body are gone.
    BodyGone,
    /// It had its retries.
    RetriesSpent,
    /// The core had its retries.
    BudgetSpent,
}

impl Obstacle {
    /// One word for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NotIdempotent => "not_idempotent",
            Self::BodyGone => "body_gone",
            Self::RetriesSpent => "retries_spent",
            Self::BudgetSpent => "budget_spent",
        }
    }
}

impl Failure {
    /// Decides, and takes a retry from `budget` when one is granted that needs it.
    pub fn verdict(&self, budget: &mut RetryBudget, now: Instant) -> Verdict {
        if let Some(obstacle) = self.obstacle() {
            return Verdict::GiveUp(obstacle);
        }
        if self.phase != Phase::Connect && !budget.withdraw(now) {
            return Verdict::GiveUp(Obstacle::BudgetSpent);
        }
        if self.is_reused { Verdict::Fresh } else { Verdict::ElsewhereOrFresh }
    }

    fn obstacle(&self) -> Option<Obstacle> {
        match self.phase {
            Phase::Answered => Some(Obstacle::Answered),
            Phase::Sent if !self.is_idempotent => Some(Obstacle::NotIdempotent),
            Phase::Sent if !self.is_replayable => Some(Obstacle::BodyGone),
            _ if self.retries >= RETRIES_MAX => Some(Obstacle::RetriesSpent),
            Phase::Connect | Phase::Unsent | Phase::Sent => None,
        }
    }
}

/// How many retries a core may make: a fifth of its requests, and at least [`RETRIES_PER_SECOND_MIN`] a second.
///
/// A request deposits a fifth of a retry. What was not used expires after one to two seconds, so that a quiet hour
/// does not pay for a storm.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    /// In fifths of a retry.
    balance: u64,
    second_began: Instant,
    /// Requests since then.
    requests: u64,
}

impl RetryBudget {
    /// A budget that allows the minimum at once.
    pub const fn new(now: Instant) -> Self {
        Self { balance: FLOOR, second_began: now, requests: 0 }
    }

    /// A request arrived.
    pub fn deposit(&mut self, now: Instant) {
        self.turn(now);
        self.requests += 1;
        self.balance += 1;
    }

    /// Takes one retry if there is one.
    fn withdraw(&mut self, now: Instant) -> bool {
        self.turn(now);
        match self.balance.checked_sub(COST) {
            Some(rest) => {
                self.balance = rest;
                true
            }
            None => false,
        }
    }

    fn turn(&mut self, now: Instant) {
        if now.since(self.second_began) >= SECOND {
            let deposited_lately =
                if now.since(self.second_began) < 2 * SECOND { self.requests } else { 0 };
            self.balance = self.balance.clamp(FLOOR, deposited_lately.max(FLOOR));
            self.second_began = now;
            self.requests = 0;
        }
    }
}

/// Retries of one request.
pub const RETRIES_MAX: u32 = 2;
/// Retries a core may always make in a second.
pub const RETRIES_PER_SECOND_MIN: u64 = 10;
/// A retry costs what five requests deposit: 20 %.
const COST: u64 = 5;
const FLOOR: u64 = RETRIES_PER_SECOND_MIN * COST;
const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::Obstacle::{BodyGone, BudgetSpent, NotIdempotent, RetriesSpent};
    use super::Phase::{Connect, Sent, Unsent};
    use super::Verdict::*;
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_ns(ms * 1_000_000)
    }

    #[test]
    fn the_retries_section_as_a_table() {
        let failure = |phase, is_reused, is_idempotent, is_replayable, retries| Failure {
            phase,
            is_reused,
            is_idempotent,
            is_replayable,
            retries,
        };
        const FRESH: bool = false;
        const REUSED: bool = true;
        const GET: bool = true;
        const POST: bool = false;
        const WHOLE: bool = true;
        const GONE: bool = false;
        let table = [
            // No connection came about: whatever the method, whatever became of the body, nothing was sent.
            (failure(Connect, FRESH, GET, WHOLE, 0), ElsewhereOrFresh),
            (failure(Connect, FRESH, POST, WHOLE, 0), ElsewhereOrFresh),
            (failure(Connect, FRESH, POST, GONE, 1), ElsewhereOrFresh),
            // A reused pooled connection died before a byte of the request left: never another pooled one.
            (failure(Unsent, REUSED, GET, WHOLE, 0), Fresh),
            (failure(Unsent, REUSED, POST, GONE, 1), Fresh),
            (failure(Unsent, FRESH, POST, WHOLE, 0), ElsewhereOrFresh),
            // Idempotent, no response byte, body still ours: fresh or pooled connection alike.
            (failure(Sent, FRESH, GET, WHOLE, 0), ElsewhereOrFresh),
            (failure(Sent, REUSED, GET, WHOLE, 1), Fresh),
            (failure(Sent, FRESH, GET, GONE, 0), GiveUp(BodyGone)),
            // A POST is never sent twice.
            (failure(Sent, FRESH, POST, WHOLE, 0), GiveUp(NotIdempotent)),
            (failure(Sent, REUSED, POST, WHOLE, 0), GiveUp(NotIdempotent)),
            // Once a response had begun nothing can be repeated.
            (failure(Phase::Answered, FRESH, GET, WHOLE, 0), GiveUp(Obstacle::Answered)),
            (failure(Phase::Answered, REUSED, GET, WHOLE, 0), GiveUp(Obstacle::Answered)),
            // At most two retries a request, failed connects too.
            (failure(Connect, FRESH, GET, WHOLE, 2), GiveUp(RetriesSpent)),
            (failure(Unsent, REUSED, GET, WHOLE, 2), GiveUp(RetriesSpent)),
            (failure(Sent, FRESH, GET, WHOLE, 2), GiveUp(RetriesSpent)),
        ];
        for (failure, verdict) in table {
            assert_eq!(
                failure.verdict(&mut RetryBudget::new(at(0)), at(0)),
                verdict,
                "{failure:?}"
            );
        }
    }

    const SENT: Failure = Failure {
        phase: Sent,
        is_reused: false,
        is_idempotent: true,
        is_replayable: true,
        retries: 0,
    };

    fn granted(budget: &mut RetryBudget, now: Instant) -> usize {
        (0..1000).take_while(|_| SENT.verdict(budget, now) == ElsewhereOrFresh).count()
    }

    #[test]
    fn ten_a_second_are_always_granted_and_failed_connects_are_exempt() {
        let mut budget = RetryBudget::new(at(0));
        assert_eq!(granted(&mut budget, at(0)), 10);
        assert_eq!(SENT.verdict(&mut budget, at(999)), GiveUp(BudgetSpent));
        let connect = Failure { phase: Connect, ..SENT };
        assert_eq!(connect.verdict(&mut budget, at(999)), ElsewhereOrFresh);
        assert_eq!(granted(&mut budget, at(1000)), 10);
        assert_eq!(granted(&mut budget, at(60_000)), 10);
    }

    #[test]
    fn a_fifth_of_the_requests_is_granted_and_expires() {
        let mut budget = RetryBudget::new(at(0));
        granted(&mut budget, at(0));
        (0..1000).for_each(|_| budget.deposit(at(500)));
        assert_eq!(granted(&mut budget, at(500)), 200);
        (0..1000).for_each(|_| budget.deposit(at(500)));
        assert_eq!(granted(&mut budget.clone(), at(1400)), 200);
        assert_eq!(granted(&mut budget, at(9000)), 10);
    }

    #[test]
    fn a_steady_storm_is_held_to_a_fifth() {
        let mut budget = RetryBudget::new(at(0));
        let mut sent = 0;
        for ms in 0..20_000 {
            budget.deposit(at(ms));
            sent += granted(&mut budget, at(ms));
        }
        // 1,000 a second for 20 s; the minimum may come on top of each second.
        assert!((4000..=4200).contains(&sent), "{sent}");
    }
}
