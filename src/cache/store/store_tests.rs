//! The store's rules, one by one.

use std::sync::Arc;
use std::time::Duration;

use super::*;

pub(super) fn at(ms: u64) -> Instant {
    Instant::from_ns(ms * 1_000_000)
}

pub(super) fn key_of(hash: u64) -> [u8; 8] {
    hash.to_be_bytes()
}

/// A shard of `bytes` and `entries` whose leases run 10 s and pause 2 s.
pub(super) fn shard(bytes: u64, entries: usize) -> (Store<u64>, Arc<Generations>) {
    let generations = Arc::new(Generations::new());
    let limits =
        Limits { bytes, entries, lease: Duration::from_secs(10), pause: Duration::from_secs(2) };
    (Store::new(limits, Arc::clone(&generations)), generations)
}

/// An object whose policy is its variant digest.
pub(super) fn object(hash: u64, generation: u64, variant: u64, body: Body) -> Handle<u64> {
    let terms = Terms { hash, generation, variant, head_bytes: 100, keep_until: at(1000) };
    Object::new(terms, &key_of(hash), variant, body)
}

fn whole(hash: u64, variant: u64, bytes: usize) -> Handle<u64> {
    object(hash, 0, variant, Body::whole(&vec![b'x'; bytes]).unwrap())
}

const WAITER: Waiter = Waiter { core: 0, ticket: 0 };

fn ask(store: &mut Store<u64>, hash: u64, now: u64, verdict: Use) -> Answer<u64> {
    store.lookup(Key { hash, bytes: &key_of(hash) }, WAITER, at(now), |_| verdict)
}

fn holds(store: &mut Store<u64>, hash: u64, variant: u64) -> bool {
    let key = key_of(hash);
    let judge = |object: &Object<u64>| match *object.policy() == variant {
        true => Use::Serve,
        false => Use::No,
    };
    store.find(Key { hash, bytes: &key }, judge).is_some()
}

#[track_caller]
fn lease(store: &mut Store<u64>, hash: u64, now: u64) -> Lease {
    match ask(store, hash, now, Use::Serve) {
        Answer::Lease { lease, .. } => lease,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_fetches_the_others_wait_and_then_hit() {
    let (mut store, _) = shard(1 << 20, 100);
    let lease = lease(&mut store, 1, 0);
    assert!(matches!(ask(&mut store, 1, 0, Use::Serve), Answer::Wait));
    let (body, mut writer) = Body::begin(1000, None);
    let object = object(1, lease.generation, 0, body);
    let Put::Filling(fill) = store.open(lease, object) else { panic!() };
    assert_eq!(store.take_released().collect::<Vec<_>>(), [WAITER]);
    let Answer::Hit { object, refill: None } = ask(&mut store, 1, 0, Use::Serve) else { panic!() };
    assert_eq!(object.body().published().state, BodyState::Filling);
    let before = store.gauges();
    assert_eq!((before.fills, before.pinned_bytes), (1, before.bytes));
    writer.append(&[0; 500]).unwrap();
    writer.flush();
    assert_eq!(store.poll(fill), Put::Filling(fill));
    assert_eq!(store.gauges().bytes, before.bytes + 500);
    writer.complete();
    assert_eq!(store.poll(fill), Put::Stored);
    assert_eq!(store.poll(fill), Put::Refused(Refusal::Over));
    assert_eq!((store.gauges().fills, store.gauges().pinned_bytes), (0, 0));
}

#[test]
fn a_fill_that_breaks_off_leaves_nothing() {
    let (mut store, _) = shard(1 << 20, 100);
    for is_polled in [true, false] {
        let lease = lease(&mut store, 1, 0);
        let (body, mut writer) = Body::begin(1000, Some(10));
        let Put::Filling(fill) = store.open(lease, object(1, 0, 0, body)) else { panic!() };
        writer.append(b"short").unwrap();
        writer.complete();
        if is_polled {
            assert_eq!(store.poll(fill), Put::Refused(Refusal::Aborted));
        }
        assert!(!holds(&mut store, 1, 0), "not even before the home was told");
        assert_eq!(store.gauges(), Gauges::default());
    }
}

#[test]
fn an_invalidation_reaches_what_is_stored_filling_and_being_fetched() {
    let (mut store, generations) = shard(1 << 20, 100);
    store.put(whole(1, 0, 10));
    let (body, _writer) = Body::begin(1000, None);
    let Put::Filling(fill) = store.put(object(2, 0, 0, body)) else { panic!() };
    let fetching = lease(&mut store, 3, 0);
    generations.bump_all();
    assert!(!holds(&mut store, 1, 0));
    assert_eq!(store.poll(fill), Put::Refused(Refusal::Invalidated));
    assert_eq!(store.open(fetching, whole(3, 0, 10)), Put::Refused(Refusal::Invalidated));
    assert_eq!(store.put(whole(4, 0, 10)), Put::Refused(Refusal::Invalidated));
    assert_eq!(store.gauges(), Gauges::default());
}

#[test]
fn a_purge_ends_leases_and_fills_too() {
    let (mut store, _) = shard(1 << 20, 100);
    for hash in 1..=3 {
        store.put(whole(hash, 0, 10));
        store.put(whole(hash, 1, 10));
    }
    let (body, mut writer) = Body::begin(1000, None);
    let Put::Filling(fill) = store.put(object(1, 0, 2, body)) else { panic!() };
    let fetching = lease(&mut store, 9, 0);
    assert!(matches!(ask(&mut store, 9, 0, Use::Serve), Answer::Wait));
    assert_eq!(store.remove(Key { hash: 1, bytes: &key_of(1) }), 3);
    assert_eq!(store.remove(Key { hash: 2, bytes: b"another" }), 0);
    writer.append(b"x").unwrap();
    writer.complete();
    assert_eq!(store.poll(fill), Put::Refused(Refusal::Over));
    assert_eq!(store.remove_prefix(&key_of(2)), 2);
    assert_eq!(store.remove_prefix(&[]), 2);
    assert_eq!(store.take_released().count(), 1);
    assert_eq!(store.open(fetching, whole(9, 0, 10)), Put::Refused(Refusal::LeaseOver));
    assert_eq!(store.gauges(), Gauges::default());
    assert_eq!(store.counters().removed, 7);
}

#[test]
fn a_removed_object_is_marked_for_those_who_hold_it() {
    let (mut store, generations) = shard(1 << 20, 100);
    let (old, new) = (whole(1, 0, 10), whole(1, 0, 20));
    store.put(Arc::clone(&old));
    assert!(old.is_usable(&generations));
    store.put(Arc::clone(&new));
    assert!(!old.is_usable(&generations) && new.is_usable(&generations));
    assert_eq!((store.gauges().objects, store.counters().replaced), (1, 1));
    store.remove_prefix(&[]);
    assert!(!new.is_usable(&generations));
    assert_eq!(new.body().published().bytes, 20, "its readers read on");
}

#[test]
fn variants_are_sixteen_newest_first() {
    let (mut store, _) = shard(1 << 20, 100);
    for variant in 0..20 {
        store.put(whole(1, variant, 10));
    }
    assert_eq!((store.gauges().entries, store.gauges().objects), (1, 16));
    let mut seen = Vec::new();
    let key = key_of(1);
    store.find(Key { hash: 1, bytes: &key }, |object| {
        seen.push(*object.policy());
        Use::No
    });
    assert_eq!(seen, (4..20).rev().collect::<Vec<_>>());
}

#[test]
fn another_key_of_the_same_hash_is_a_miss_and_takes_the_place() {
    let (mut store, _) = shard(1 << 20, 100);
    store.put(whole(1, 0, 10));
    let other = Key { hash: 1, bytes: b"other" };
    assert!(store.find(other, |_| Use::Serve).is_none());
    let terms = *whole(1, 0, 0).terms();
    store.put(Object::new(terms, b"other", 0, Body::whole(b"").unwrap()));
    assert!(store.find(other, |_| Use::Serve).is_some());
    assert!(!holds(&mut store, 1, 0));
}

#[test]
fn too_large_is_refused_at_once_or_when_it_shows() {
    let (mut store, _) = shard(100_000, 100);
    assert_eq!(store.object_bytes_max(), 50_000);
    assert_eq!(store.put(whole(1, 0, 50_001)), Put::Refused(Refusal::TooLarge));
    let (body, mut writer) = Body::begin(1 << 20, None);
    let Put::Filling(fill) = store.put(object(2, 0, 0, body.clone())) else { panic!() };
    writer.append(&[0; 65_536]).unwrap();
    assert_eq!(store.poll(fill), Put::Refused(Refusal::TooLarge));
    assert_eq!(store.gauges(), Gauges { lingering_bytes: 65_536, ..Gauges::default() });
    writer.append(b"more").unwrap();
    writer.complete();
    assert_eq!(body.published(), Published { bytes: 65_540, state: BodyState::Complete });
    store.expire(at(0), 1);
    assert_eq!(store.gauges().lingering_bytes, 65_540, "it went on growing");
    drop(body);
    store.expire(at(0), 1);
    assert_eq!(store.gauges(), Gauges::default());
    let (large, _) = shard(1 << 30, 100);
    assert_eq!(large.object_bytes_max(), OBJECT_BYTES_MAX);
}

#[test]
fn fills_are_counted_pinned_and_never_take_more_than_there_is() {
    let (mut store, _) = shard(100_000, 100);
    for hash in 0..20 {
        store.put(whole(hash, 0, 2000));
    }
    let mut writers = Vec::new();
    let mut refused = 0;
    for hash in 100..105 {
        let (body, mut writer) = Body::begin(30_000, None);
        if let Put::Filling(fill) = store.put(object(hash, 0, 0, body)) {
            writer.append(&[0; 30_000]).unwrap();
            writer.flush();
            refused += u32::from(store.poll(fill) == Put::Refused(Refusal::Crowded));
            writers.push((fill, writer));
        }
        let gauges = store.gauges();
        assert!(gauges.bytes <= 100_000, "others make room: {gauges:?}");
    }
    // The fifth is not even begun: the fourth, withdrawn, is still being written.
    assert_eq!((refused, writers.len(), store.gauges().fills), (1, 4, 3));
    assert!(store.counters().evicted > 10);
    for (fill, writer) in writers {
        writer.complete();
        store.poll(fill);
    }
    assert_eq!((store.gauges().fills, store.gauges().pinned_bytes), (0, 0));
}

#[test]
fn what_is_being_read_is_neither_evicted_nor_forgotten_by_the_budget() {
    let (mut store, _) = shard(100_000, 100);
    // Slow readers tell of themselves by a handle to the body; the objects' handles are those of a core's L1.
    let mut readers = Vec::new();
    for hash in 0..3 {
        let object = whole(hash, 0, 25_000);
        readers.push(object.body().clone());
        assert_eq!(store.put(object), Put::Stored);
    }
    for hash in 10..60 {
        assert_eq!(store.put(whole(hash, 0, 10_000)), Put::Stored);
        let gauges = store.gauges();
        assert!(gauges.bytes + gauges.lingering_bytes <= 100_000, "{gauges:?}");
    }
    assert!((0..3).all(|hash| holds(&mut store, hash, 0)), "they would only be fetched again");
    // What leaves for another reason is counted until it is freed, however often the same is said anew.
    for hash in 0..3 {
        store.remove(Key { hash, bytes: &key_of(hash) });
    }
    assert_eq!(store.gauges().lingering_bytes, 75_000);
    assert_eq!(store.put(whole(4, 0, 30_000)), Put::Refused(Refusal::Crowded));
    assert_eq!(store.put(whole(4, 0, 10_000)), Put::Stored);
    readers.truncate(1);
    store.expire(at(0), 100);
    assert_eq!(store.gauges().lingering_bytes, 25_000);
    assert_eq!(store.put(whole(4, 0, 30_000)), Put::Stored);
}

#[test]
fn where_all_is_being_read_nothing_new_is_stored() {
    let (mut store, _) = shard(100_000, 100);
    let mut readers = Vec::new();
    for hash in 0..9 {
        let object = whole(hash, 0, 10_000);
        readers.push(object.body().clone());
        assert_eq!(store.put(object), Put::Stored);
    }
    let (body, mut writer) = Body::begin(30_000, None);
    let Put::Filling(fill) = store.put(object(20, 0, 0, body)) else { panic!("it is empty yet") };
    writer.append(&[0; 30_000]).unwrap();
    writer.flush();
    assert_eq!(store.poll(fill), Put::Refused(Refusal::Crowded));
    drop(writer);
    assert_eq!(store.put(whole(20, 0, 10_000)), Put::Refused(Refusal::Crowded));
    // Its own place is there for whoever takes it.
    assert_eq!(store.put(whole(3, 0, 9_000)), Put::Stored);
    readers.clear();
    assert_eq!(store.put(whole(20, 0, 30_000)), Put::Stored);
}

#[test]
fn a_fill_that_is_begun_has_room_for_all_of_it() {
    let (mut store, _) = shard(100_000, 100);
    let mut fills = Vec::new();
    for hash in 0..3 {
        let (body, writer) = Body::begin(30_000, Some(30_000));
        match store.put(object(hash, 0, 0, body)) {
            Put::Filling(fill) => fills.push((fill, writer)),
            put => panic!("{put:?}"),
        }
    }
    let (body, _writer) = Body::begin(30_000, Some(30_000));
    assert_eq!(store.put(object(3, 0, 0, body)), Put::Refused(Refusal::Crowded));
    // Not even what lingers takes it away again.
    let gone = whole(4, 0, 5_000);
    assert_eq!(store.put(gone.clone()), Put::Stored);
    store.remove(Key { hash: 4, bytes: &key_of(4) });
    for (fill, mut writer) in fills {
        for _ in 0..3 {
            writer.append(&[0; 10_000]).unwrap();
            writer.flush();
            assert_eq!(store.poll(fill), Put::Filling(fill));
        }
        writer.complete();
        assert_eq!(store.poll(fill), Put::Stored);
    }
}

#[test]
fn a_fresh_head_over_the_same_body_weighs_it_once() {
    let (mut store, _) = shard(100_000, 100);
    let body = Body::whole(&[0; 40_000]).unwrap();
    for _ in 0..5 {
        assert_eq!(store.put(object(1, 0, 0, body.clone())), Put::Stored);
        assert_eq!(store.gauges().lingering_bytes, 0);
    }
    store.remove(Key { hash: 1, bytes: &key_of(1) });
    assert_eq!(store.gauges().lingering_bytes, 40_000);
}

#[test]
fn evictions_are_bounded_and_what_they_owe_stays_pinned() {
    let (mut store, _) = shard(4 << 20, 100_000);
    let mut hash = 0;
    while store.counters().evicted == 0 {
        store.put(whole(hash, 0, 0));
        store.touch(hash);
        store.touch(hash);
        hash += 1;
    }
    let before = store.counters().evicted;
    let large = vec![0; 2_000_000];
    let Put::Filling(fill) = store.put(object(1 << 50, 0, 0, Body::whole(&large).unwrap())) else {
        panic!("2 MB of objects of half a kB cannot go at once")
    };
    let evicted = store.counters().evicted - before;
    assert!((100..=256).contains(&evicted), "{evicted}");
    let mut turns = 0;
    while let Put::Filling(_) = store.poll(fill) {
        turns += 1;
        assert!(turns < 100, "each call pays");
    }
    assert_eq!(store.gauges().pinned_bytes, 0);
    assert!(store.gauges().bytes <= 4 << 20);
}

#[test]
fn scans_pass_by_what_is_asked_for() {
    let (mut store, _) = shard(1 << 30, 100);
    for hash in 0..50 {
        store.put(whole(hash << 40, 0, 0));
        for _ in 0..3 {
            assert!(holds(&mut store, hash << 40, 0));
        }
    }
    for hash in 1000..2000 {
        store.put(whole(hash << 40, 0, 0));
    }
    assert_eq!(store.gauges().entries, 100);
    assert!((0..50).all(|hash| holds(&mut store, hash << 40, 0)));
}

#[test]
fn the_sweep_is_bounded_and_finds_all_in_the_end() {
    let (mut store, _) = shard(1 << 20, 100);
    for hash in 0..30 {
        store.put(whole(hash, 0, 10));
    }
    assert_eq!(store.expire(at(999), 100), 0);
    assert_eq!(store.expire(at(1000), 10), 10);
    assert_eq!(store.expire(at(1000), 10) + store.expire(at(1000), 10), 20);
    assert_eq!(store.gauges(), Gauges::default());
    let (body, writer) = Body::begin(10, None);
    store.put(object(1, 0, 0, body));
    drop(writer);
    store.expire(at(0), 1);
    assert_eq!(store.gauges(), Gauges::default(), "a fill whose holder died");
}

#[test]
fn stale_objects_are_served_and_refilled_by_one() {
    let (mut store, _) = shard(1 << 20, 100);
    store.put(whole(1, 0, 10));
    let first = ask(&mut store, 1, 0, Use::ServeAndRefill);
    let Answer::Hit { refill: Some(lease), .. } = first else { panic!("{first:?}") };
    let second = ask(&mut store, 1, 0, Use::ServeAndRefill);
    assert!(matches!(second, Answer::Hit { refill: None, .. }));
    assert!(matches!(ask(&mut store, 1, 0, Use::Refill), Answer::Wait));
    store.end(lease, End::Abandoned);
    assert_eq!(store.take_released().count(), 1);
    let third = ask(&mut store, 1, 0, Use::Refill);
    let Answer::Lease { lease, stale: Some(stale) } = third else { panic!("{third:?}") };
    let freshened = object(1, 0, 0, stale.body().clone());
    assert_eq!(store.open(lease, freshened), Put::Stored);
    assert_eq!(store.gauges().objects, 1);
}

#[test]
fn uncacheable_and_late_keys_do_not_queue_up() {
    let (mut store, _) = shard(1 << 20, 100);
    let first = lease(&mut store, 1, 0);
    assert!(matches!(ask(&mut store, 1, 0, Use::Serve), Answer::Wait));
    store.end(first, End::Uncacheable(at(3000)));
    assert_eq!(store.take_released().count(), 1);
    assert!(matches!(ask(&mut store, 1, 2999, Use::Serve), Answer::Bypass { .. }));
    let second = lease(&mut store, 1, 3000);
    assert!(matches!(ask(&mut store, 1, 4000, Use::Serve), Answer::Wait));
    store.expire(at(12_999), 10);
    assert_eq!(store.take_released().count(), 0);
    store.expire(at(13_000), 10);
    assert_eq!(store.take_released().count(), 1);
    assert!(matches!(ask(&mut store, 1, 14_999, Use::Serve), Answer::Bypass { .. }));
    assert_eq!(store.open(second, whole(1, 0, 1)), Put::Refused(Refusal::LeaseOver));
    lease(&mut store, 1, 15_000);
    assert_eq!(store.counters().late_leases, 1);
}

#[test]
fn a_key_that_could_be_stored_after_all_is_waited_for_again() {
    let (mut store, _) = shard(1 << 20, 100);
    let first = lease(&mut store, 1, 0);
    store.end(first, End::Uncacheable(at(3000)));
    store.put(whole(1, 0, 10));
    assert!(matches!(ask(&mut store, 1, 1, Use::Refill), Answer::Lease { .. }));
}

#[test]
fn an_insert_evicts_even_where_everything_is_in_demand() {
    let (mut store, _) = shard(1 << 30, 1000);
    for hash in 0..1000 {
        store.put(whole(hash << 40, 0, 0));
    }
    // At first all are in the small queue, then most are in the main queue.
    for round in 1..10 {
        (0..round * 1000).for_each(|hash| (0..5).for_each(|_| store.touch(hash << 40)));
        for hash in round * 1000..round * 1000 + 10 {
            assert_eq!(store.put(whole(hash << 40, 0, 0)), Put::Stored);
            assert_eq!(store.gauges().entries, 1000);
        }
    }
}

#[test]
fn what_comes_back_soon_is_kept_longer() {
    let (mut store, _) = shard(1 << 30, 100);
    let (back, scan) = (1 << 40, 2..1000);
    for hash in scan.clone().take(200) {
        store.put(whole(hash << 40, 0, 0));
    }
    store.put(whole(back, 0, 0));
    let mut scan = scan.skip(200);
    while store.index.contains_key(&back) {
        store.put(whole(scan.next().unwrap() << 40, 0, 0));
    }
    store.put(whole(back, 0, 0));
    for hash in scan.take(500) {
        store.put(whole(hash << 40, 0, 0));
    }
    assert!(holds(&mut store, back, 0), "it went to the main queue at once");
}
