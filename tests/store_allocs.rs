//! A hit allocates nothing, at home and in a core's own table; counted on this thread.
//!
//! One test in this file, because the allocator is global to the process.

#[path = "support/counting.rs"]
mod counting;

use std::sync::Arc;
use std::time::Duration;

use balancer::cache::store::{
    Answer, Body, Generations, Handle, Key, L1, L1_SLOTS, Limits, Object, Put, Store, Terms, Use,
    Waiter,
};
use balancer::time::Instant;

/// Calls of the allocator, frees too, while `work` runs.
fn calls(work: impl FnOnce()) -> u64 {
    let before = counting::calls();
    work();
    counting::calls() - before
}

fn object(hash: u64) -> Handle<()> {
    let keep_until = Instant::from_ns(u64::MAX);
    let terms = Terms { hash, generation: 0, variant: 0, head_bytes: 0, keep_until };
    Object::new(terms, &hash.to_le_bytes(), (), Body::whole(b"body").unwrap())
}

#[test]
fn a_hit_allocates_nothing() {
    counting::watch_this_thread();
    let generations = Arc::new(Generations::new());
    let limits = Limits {
        bytes: 1 << 30,
        entries: 10_000,
        lease: Duration::from_secs(1),
        pause: Duration::from_secs(1),
    };
    let mut store = Store::new(limits, Arc::clone(&generations));
    let mut l1 = L1::new(L1_SLOTS, generations);
    let now = Instant::from_ns(1);
    let filled = calls(|| {
        for hash in 0..100u64 {
            assert_eq!(store.put(object(hash << 8)), Put::Stored);
            l1.insert(object(hash << 8), Instant::from_ns(2));
        }
    });
    assert!(filled > 500, "the counter counts: {filled}");
    let at_home = calls(|| {
        for hash in (0..100u64).map(|hash| hash << 8) {
            let key = hash.to_le_bytes();
            let waiter = Waiter { core: 0, ticket: 0 };
            let answer = store.lookup(Key { hash, bytes: &key }, waiter, now, |_| Use::Serve);
            assert!(matches!(answer, Answer::Hit { .. }));
            store.touch(hash);
        }
    });
    assert_eq!(at_home, 0);
    let near = calls(|| {
        for hash in (0..100u64).map(|hash| hash << 8) {
            let key = hash.to_le_bytes();
            let kept = l1.get(Key { hash, bytes: &key }, now, |_| true).map(std::rc::Rc::clone);
            assert_eq!(kept.unwrap().body().at(0), b"body");
        }
        l1.sweep(now, L1_SLOTS, |_| {});
    });
    assert_eq!(near, 0);
}
