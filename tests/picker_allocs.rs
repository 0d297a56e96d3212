//! A pick allocates nothing, nor does all else that happens to a picker while its set stays the same.
//!
//! One test in this file, because the counter belongs to the process's allocator.

#[path = "support/counting.rs"]
mod counting;

use std::sync::Arc;
use std::time::Duration;

use balancer::balance::{
    Backend, Balance, Category, Choice, Picker, Score, Slot, Snapshot, Source,
};
use balancer::time::Instant;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

#[test]
fn a_picker_allocates_only_when_its_set_grows() {
    counting::watch_this_thread();
    for balance in [Balance::Bounded, Balance::P2c, Balance::Latency, Balance::WeightedRandom] {
        let mut picker = Picker::new(balance, Some(50));
        let (set, smaller) = (snapshot(300), snapshot(200));
        let before = counting::calls();
        picker.apply(&set, Instant::default());
        assert!(counting::calls() > before, "the counter counts");
        let before = counting::calls();
        let mut rng = SmallRng::seed_from_u64(1);
        let mut asked = Vec::new();
        for round in 0..20u64 {
            asked.clear();
            asked.reserve(1000);
            let before = counting::calls();
            let now = Instant::from_ns((1 + round) * 100_000_000);
            for n in 0..1000 {
                let exclude = [Slot(n), Slot(n + 1), Slot(n + 2)];
                let exclude = &exclude[..n as usize % 4 % 3];
                let Choice::Backend(slot) = picker.pick(|| rng.random(), exclude) else { continue };
                picker.begin(slot);
                asked.push(slot);
            }
            for slot in asked.drain(..) {
                match slot.0 % 7 {
                    0 => picker.failed(slot, Duration::from_millis(1), now),
                    n => picker.answered(slot, Duration::from_millis(n.into()), now),
                }
                picker.end(slot);
            }
            for slot in (0..300).map(Slot) {
                picker.hear_load(slot, slot.0 % 5);
            }
            picker.take_loads();
            picker.tick(now);
            assert!(picker.loads().count() + picker.paces().count() <= 600);
            if round % 3 == 0 {
                picker.forget_others();
                picker.set_available(Slot(round as u32), round % 2 == 0);
                picker.apply(if round % 2 == 0 { &smaller } else { &set }, now);
            }
            assert_eq!(counting::calls() - before, 0, "{balance:?}, round {round}");
        }
        assert!(counting::calls() > before);
    }
}

fn snapshot(backends: u32) -> Snapshot {
    let backend = |slot| {
        let name: Arc<str> = format!("app-{slot}").into();
        Backend {
            slot: Slot(slot),
            name: Arc::clone(&name),
            authority: name,
            score: Score::new(f64::from(slot % 100)).unwrap(),
            category: Category::Low,
            addresses: Arc::from(["127.0.0.1:80".parse().unwrap()]),
            warming_since: None,
        }
    };
    let backends = (0..backends).map(backend).collect();
    Snapshot { epoch: 1, source: Source::Agent, slots: 300, health: Default::default(), backends }
}
