//! Waiting for a condition with a deadline: the only place in the tests that sleeps.

use std::time::{Duration, Instant};

/// Polls `look` until it yields a value; panics with `what` when `within` has passed.
pub fn value<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain: {what}");
        // The pause between two looks, not a time to settle: the condition above decides.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Polls `is_true` until it is; panics with `what` when `within` has passed.
pub fn until(what: &str, within: Duration, mut is_true: impl FnMut() -> bool) {
    value(what, within, || is_true().then_some(()));
}

/// Whether `is_true` came true within `within`.
pub fn happens(within: Duration, mut is_true: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    while !is_true() {
        if Instant::now() >= deadline {
            return false;
        }
        // As above: a pause between two looks.
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
