//! The store against a list that does the same the slow way.
//!
//! The model does not know who is evicted: it learns that from the store's own marks on the objects and checks that
//! nobody else is missing, nobody is there who should not be, and every count and budget holds.

use std::sync::Arc;

use proptest::prelude::*;

use super::store_tests::{at, key_of, object, shard};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Lookup { hash: u64, variant: u64 },
    Put { hash: u64, variant: u64, bytes: usize },
    Begin { hash: u64, variant: u64, expected: Option<u64> },
    Append { which: usize, bytes: usize },
    Poll { which: usize },
    Finish { which: usize, is_whole: bool },
    Bump { hash: u64 },
    Remove { hash: u64 },
    RemovePrefix { hash: u64 },
    Expire { ms: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (hash, variant, which) = (|| 0..12u64, || 0..3u64, || 0..4usize);
    let step = prop_oneof![
        6 => (hash(), variant()).prop_map(|(hash, variant)| Step::Lookup { hash, variant }),
        6 => (hash(), variant(), 0..9000usize)
            .prop_map(|(hash, variant, bytes)| Step::Put { hash, variant, bytes }),
        3 => (hash(), variant(), proptest::option::of(0..9000u64))
            .prop_map(|(hash, variant, expected)| Step::Begin { hash, variant, expected }),
        5 => (which(), 1..5000usize).prop_map(|(which, bytes)| Step::Append { which, bytes }),
        4 => which().prop_map(|which| Step::Poll { which }),
        3 => (which(), any::<bool>()).prop_map(|(which, is_whole)| Step::Finish { which, is_whole }),
        1 => hash().prop_map(|hash| Step::Bump { hash }),
        1 => hash().prop_map(|hash| Step::Remove { hash }),
        1 => hash().prop_map(|hash| Step::RemovePrefix { hash }),
        1 => (0..1500u64).prop_map(|ms| Step::Expire { ms }),
    ];
    proptest::collection::vec(step, 1..120)
}

struct House {
    store: Store<u64>,
    generations: Arc<Generations>,
    /// Newest first, all keys in one list.
    model: Vec<Handle<u64>>,
    fills: Vec<(Fill, BodyWriter)>,
    now: u64,
}

const BYTES: u64 = 24_000;
const ENTRIES: usize = 6;

impl House {
    fn new() -> Self {
        let (store, generations) = shard(BYTES, ENTRIES);
        Self { store, generations, model: Vec::new(), fills: Vec::new(), now: 0 }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Lookup { hash, variant } => self.lookup(hash, variant),
            Step::Put { hash, variant, bytes } => {
                self.put(hash, variant, Body::whole(&vec![1; bytes]).unwrap());
            }
            Step::Begin { hash, variant, expected } => {
                let (body, writer) = Body::begin(20_000, expected);
                if let Put::Filling(fill) = self.put(hash, variant, body) {
                    self.fills.push((fill, writer));
                }
            }
            Step::Append { which, bytes } => {
                if let Some((_, writer)) = self.fills.get_mut(which) {
                    // Past the end of the body it is refused, which is fine here.
                    let _ = writer.append(&vec![2; bytes]);
                    writer.flush();
                }
            }
            Step::Poll { which } => {
                if let Some((fill, _)) = self.fills.get(which) {
                    self.store.poll(*fill);
                }
            }
            Step::Finish { which, is_whole } => {
                if which < self.fills.len() {
                    let (fill, writer) = self.fills.swap_remove(which);
                    if is_whole {
                        writer.complete();
                    } else {
                        drop(writer);
                    }
                    let put = self.store.poll(fill);
                    assert!(!matches!(put, Put::Filling(_)), "few objects are evicted at once");
                }
            }
            Step::Bump { hash } => {
                self.generations.bump(hash << 40);
            }
            Step::Remove { hash } => {
                let hash = hash << 40;
                let key = key_of(hash);
                let removed = self.store.remove(Key { hash, bytes: &key });
                assert!(removed <= self.model.len());
                self.model.retain(|object| object.terms().hash != hash);
            }
            Step::RemovePrefix { hash } => {
                let prefix = &key_of(hash << 40)[..3];
                self.store.remove_prefix(prefix);
                self.model.retain(|object| !object.key().starts_with(prefix));
            }
            Step::Expire { ms } => {
                self.now += ms;
                let now = at(self.now);
                self.store.expire(now, 1000);
                self.model.retain(|object| object.terms().keep_until > now);
            }
        }
        self.compare();
    }

    fn put(&mut self, hash: u64, variant: u64, body: Body) -> Put {
        let hash = hash << 40;
        let object = object(hash, self.generations.load(hash), variant, body);
        let put = self.store.put(Arc::clone(&object));
        if !matches!(put, Put::Refused(_)) {
            let is_same = |o: &Handle<u64>| o.terms().hash == hash && *o.policy() == variant;
            self.model.retain(|held| !is_same(held));
            self.model.insert(0, object);
        }
        put
    }

    fn lookup(&mut self, hash: u64, variant: u64) {
        let hash = hash << 40;
        let wanted = self.model.iter().find(|object| {
            object.terms().hash == hash
                && *object.policy() == variant
                && object.is_usable(&self.generations)
        });
        let key = key_of(hash);
        let found = self.store.find(Key { hash, bytes: &key }, |object| {
            if *object.policy() == variant { Use::Serve } else { Use::No }
        });
        match (wanted, found) {
            (None, None) => {}
            (Some(wanted), Some((Use::Serve, found))) => assert!(Arc::ptr_eq(wanted, &found)),
            other => panic!("{other:?}"),
        }
    }

    fn compare(&mut self) {
        self.store.check_invariants();
        let gauges = self.store.gauges();
        // Between two polls a fill may have grown unseen; what was counted stays within the budget.
        assert!(gauges.bytes <= BYTES, "{gauges:?}");
        assert!(gauges.entries <= ENTRIES + gauges.fills, "{gauges:?}");
        let in_store: Vec<_> = self.store.all().collect();
        for object in &in_store {
            assert!(self.model.iter().any(|held| Arc::ptr_eq(held, object)), "{object:?}");
        }
        let counters = *self.store.counters();
        let left = counters.evicted
            + counters.expired
            + counters.replaced
            + counters.removed
            + counters.withdrawn;
        assert_eq!(counters.stored - left, in_store.len() as u64, "nobody leaves uncounted");
        let model = std::mem::take(&mut self.model);
        self.model = model
            .into_iter()
            .filter(|held| in_store.iter().any(|object| Arc::ptr_eq(held, object)))
            .collect();
    }
}

impl<P> Store<P> {
    fn all(&self) -> impl Iterator<Item = Handle<P>> {
        let entries = self.slab.iter().flatten();
        entries.flat_map(|entry| entry.variants.iter().map(|held| Arc::clone(&held.object)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_store_does_what_a_list_does(steps in steps()) {
        let mut house = House::new();
        for step in steps {
            house.take(step);
        }
    }
}

#[derive(Clone, Debug)]
enum Turn {
    Ask { hash: u64 },
    Open { which: usize, is_whole: bool },
    End { which: usize, is_cacheable: bool },
    Bump { hash: u64 },
    Remove { hash: u64 },
    Expire { ms: u64 },
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let (hash, which) = (|| 0..4u64, || 0..6usize);
    let turn = prop_oneof![
        10 => hash().prop_map(|hash| Turn::Ask { hash }),
        2 => (which(), any::<bool>()).prop_map(|(which, is_whole)| Turn::Open { which, is_whole }),
        2 => (which(), any::<bool>())
            .prop_map(|(which, is_cacheable)| Turn::End { which, is_cacheable }),
        1 => hash().prop_map(|hash| Turn::Bump { hash }),
        1 => hash().prop_map(|hash| Turn::Remove { hash }),
        2 => (0..6000u64).prop_map(|ms| Turn::Expire { ms }),
    ];
    proptest::collection::vec(turn, 1..100)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    /// Who waits is released once, and after the last deadline nobody waits; a key has one fetcher at a time, and one
    /// more for each invalidation.
    #[test]
    fn nobody_waits_for_ever(turns in turns()) {
        let (mut store, generations) = shard(1 << 20, 100);
        let (mut leases, mut waiting, mut now) = (Vec::<Lease>::new(), Vec::new(), 0);
        for (ticket, turn) in (0u32..).zip(turns) {
            match turn {
                Turn::Ask { hash } => {
                    let (hash, waiter) = (hash << 40, Waiter { core: 1, ticket: ticket.into() });
                    let key = key_of(hash);
                    let key = Key { hash, bytes: &key };
                    match store.lookup(key, waiter, at(now), |_| Use::Refill) {
                        Answer::Wait => {
                            assert!(leases.iter().any(|lease| lease.hash == hash));
                            waiting.push(waiter);
                        }
                        Answer::Lease { lease, .. } => {
                            assert_eq!(lease.generation, generations.load(hash));
                            assert!(!leases.contains(&lease));
                            leases.push(lease);
                        }
                        Answer::Bypass { .. } => {}
                        Answer::Hit { .. } => unreachable!("nothing is fresh here"),
                    }
                }
                Turn::Open { which, is_whole } if which < leases.len() => {
                    let lease = leases.swap_remove(which);
                    let (body, writer) = Body::begin(10, None);
                    if is_whole {
                        writer.complete();
                    }
                    store.open(lease, object(lease.hash, lease.generation, 0, body));
                }
                Turn::End { which, is_cacheable } if which < leases.len() => {
                    let end = End::Uncacheable(at(now + 1000));
                    let end = if is_cacheable { End::Abandoned } else { end };
                    store.end(leases.swap_remove(which), end);
                }
                Turn::Open { .. } | Turn::End { .. } => {}
                Turn::Bump { hash } => generations.bump(hash << 40),
                Turn::Remove { hash } => {
                    let key = key_of(hash << 40);
                    store.remove(Key { hash: hash << 40, bytes: &key });
                }
                Turn::Expire { ms } => {
                    now += ms;
                    store.expire(at(now), 100);
                }
            }
            store.check_invariants();
            assert!(store.gauges().leases <= leases.len());
            for waiter in store.take_released() {
                let place = waiting.iter().position(|waits| *waits == waiter);
                waiting.swap_remove(place.expect("released once"));
            }
        }
        store.expire(at(now + 20_000), 100);
        for waiter in store.take_released() {
            waiting.retain(|waits| *waits != waiter);
        }
        assert_eq!((waiting.len(), store.gauges().leases), (0, 0));
    }
}

/// Churn of twenty times the budget: nothing piles up, and what is asked for stays.
#[test]
fn memory_keeps_to_the_budget_under_churn() {
    let (mut store, _) = shard(1 << 20, 10_000);
    let hot: Vec<u64> = (1..20).collect();
    let mut worst = 0;
    for round in 0..20_000u64 {
        let bytes = (round * 7919 % 4000) as usize;
        let hash = if round % 4 == 0 { hot[round as usize / 4 % hot.len()] } else { 100 + round };
        let key = key_of(hash);
        if store.find(Key { hash, bytes: &key }, |_| Use::Serve).is_none() {
            store.put(object(hash, 0, 0, Body::whole(&vec![0; bytes]).unwrap()));
        }
        worst = worst.max(store.gauges().bytes);
    }
    assert!(worst <= 1 << 20 && worst > 1_000_000, "{worst}");
    assert!(store.slab.len() < 2500, "slots are used again: {}", store.slab.len());
    let kept = hot.iter().filter(|hash| {
        let key = key_of(**hash);
        store.find(Key { hash: **hash, bytes: &key }, |_| Use::Serve).is_some()
    });
    assert!(kept.count() >= 17);
}
