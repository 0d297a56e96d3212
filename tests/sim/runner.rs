//! Runs a scenario under many seeds, and says which one broke it.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Once;

use crate::exec::Sim;

/// Runs `scenario` under `count` seeds (`SIM_SEEDS` overrides), or under the one in `SIM_SEED`. The seeds are the same
/// in every run, and others for another name.
///
/// # Panics
/// With the scenario, after printing the seed and the end of the trace; also when a panic was contained on the way.
pub fn seeds(name: &str, count: u64, scenario: impl Fn(&Sim)) {
    if let Some(seed) = number("SIM_SEED") {
        return run(name, seed, &scenario);
    }
    let base = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    for n in 0..number("SIM_SEEDS").unwrap_or(count) {
        run(name, base.wrapping_add(n) >> 16 << 16 | n, &scenario);
    }
}

/// One seed of [`seeds`].
pub fn run(name: &str, seed: u64, scenario: impl Fn(&Sim)) {
    count_panics();
    let before = PANICS.get();
    let sim = Sim::new(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| scenario(&sim)));
    let contained = PANICS.get() - before;
    if outcome.is_ok() && contained == 0 {
        return;
    }
    eprintln!(
        "{name} failed under seed {seed}; replay: SIM_SEED={seed} cargo test --test sim {name}"
    );
    eprintln!("{}", sim.trace_tail());
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
    panic!("{contained} panic(s) were contained under seed {seed}; no scenario may cause one");
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("SIM_* variables are numbers"))
}

/// The worker contains a panic to its connection; a simulation must not overlook it.
fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            print(info);
        }));
    });
}

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}
