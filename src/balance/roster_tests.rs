//! Tables for `roster`: slots, departures, addresses.

use super::*;
use crate::balance::Standing;
use crate::metrics::Published;

fn item(name: &str, score: f64, category: Category) -> Item {
    let (host, port) = crate::balance::split_name(name).unwrap();
    Item {
        name: name.into(),
        host: host.into(),
        port: port.unwrap_or(80),
        score: Score::new(score).unwrap(),
        category,
    }
}

fn frame(names: &[&str]) -> Frame {
    let items: Vec<Item> = names.iter().map(|name| item(name, 50.0, Category::Low)).collect();
    Frame { is_empty: items.is_empty(), items, ..Frame::default() }
}

fn cores(n: usize) -> Vec<Arc<Published>> {
    (0..n).map(|_| Arc::new(Published::new(64))).collect()
}

/// `name:slot` and a mark: `-` for draining, `?` for unresolved.
fn show(snapshot: &Snapshot) -> String {
    let mark = |b: &Backend| match b {
        b if b.category == Category::Sundown => "-",
        b if b.addresses.is_empty() => "?",
        _ => "",
    };
    let one = |b: &Backend| format!("{}:{}{}", b.name, b.slot.0, mark(b));
    snapshot.backends.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn in_force() -> Taken {
    Taken::InForce { unplaced: 0 }
}

fn localhost() -> Vec<IpAddr> {
    vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]
}

#[test]
fn the_operators_backends_come_first_and_give_way_to_the_agents() {
    let statics = ["10.0.0.1", "app:81"].map(|name| item(name, 100.0, Category::Medium));
    let mut roster = Roster::new(statics);
    let first = roster.commit(Instant::default()).unwrap();
    assert_eq!((first.epoch, first.source, first.slots), (1, Source::Static, 2));
    assert_eq!(show(&first), "10.0.0.1:0 app:81:1?");
    assert_eq!(roster.hosts().map(|h| h.to_string()).collect::<Vec<_>>(), ["app"]);
    assert_eq!(roster.commit(Instant::default()), None);

    assert_eq!(roster.take(&frame(&["app:81", "new"])), in_force());
    let second = roster.commit(Instant::default()).unwrap();
    assert_eq!((second.epoch, second.source), (2, Source::Agent));
    assert_eq!(show(&second), "10.0.0.1:0- app:81:1? new:2?");
}

#[test]
fn a_roster_of_nobody_commits_nothing() {
    let mut roster = Roster::new([]);
    assert_eq!(roster.commit(Instant::default()), None);
    assert_eq!(roster.snapshot().source, Source::Nobody);
    assert!(!roster.awaits_cores());
}

#[test]
fn scores_do_not_wait_for_names() {
    let mut roster = Roster::new([]);
    roster.take(&frame(&["a", "a:81"]));
    roster.commit(Instant::default());
    roster.resolved("a", &localhost());
    let resolved = roster.commit(Instant::default()).unwrap();
    let addresses = |n: usize| resolved.backends[n].addresses.to_vec();
    assert_eq!(addresses(0), ["127.0.0.1:80".parse().unwrap(), "[::1]:80".parse().unwrap()]);
    assert_eq!(addresses(1)[1], "[::1]:81".parse().unwrap());
    // A new name at a known host needs no answer; an unknown one joins later; scores change at once.
    let mut next = frame(&["a", "a:81", "a:82", "b"]);
    next.items[0].score = Score::new(7.0).unwrap();
    roster.take(&next);
    let next = roster.commit(Instant::default()).unwrap();
    assert_eq!(show(&next), "a:0 a:81:1 a:82:2 b:3?");
    assert_eq!((next.backends[0].score.get(), next.epoch), (7.0, 3));
    // The same answer again is no news, nor is one for somebody unknown.
    roster.resolved("a", &localhost());
    roster.resolved("zzz", &localhost());
    assert_eq!(roster.commit(Instant::default()), None);
}

#[test]
fn an_identical_frame_makes_no_epoch() {
    let mut roster = Roster::new([]);
    for epoch in [Some(1), None, None] {
        roster.take(&frame(&["a", "b"]));
        assert_eq!(roster.commit(Instant::default()).map(|s| s.epoch), epoch);
    }
}

#[test]
fn an_empty_array_must_be_said_twice_in_a_row() {
    let mut roster = Roster::new([]);
    roster.take(&frame(&["a"]));
    roster.commit(Instant::default());
    assert_eq!(roster.take(&frame(&[])), Taken::EmptyOnce);
    assert_eq!(roster.take(&frame(&["a"])), in_force());
    assert_eq!(roster.take(&frame(&[])), Taken::EmptyOnce);
    roster.distrust_empty();
    assert_eq!(roster.take(&frame(&[])), Taken::EmptyOnce);
    assert_eq!(roster.commit(Instant::default()), None);
    assert_eq!(roster.take(&frame(&[])), in_force());
    assert_eq!(show(&roster.commit(Instant::default()).unwrap()), "a:0-");
}

#[test]
fn without_one_good_item_nothing_changes() {
    let mut roster = Roster::new([]);
    roster.take(&frame(&["a"]));
    roster.commit(Instant::default());
    let bad = Frame { flaws: [0, 0, 1, 0, 0], kept: vec!["a".into()], ..Frame::default() };
    assert_eq!(roster.take(&frame(&[])), Taken::EmptyOnce);
    assert_eq!(roster.take(&bad), Taken::NothingGood);
    // And an empty array after it is a first one again.
    assert_eq!(roster.take(&frame(&[])), Taken::EmptyOnce);
    assert_eq!(roster.commit(Instant::default()), None);
}

#[test]
fn the_entry_of_a_skipped_item_stays() {
    let mut roster = Roster::new([]);
    roster.take(&frame(&["a", "b", "c"]));
    roster.commit(Instant::default());
    let mut next = frame(&["b"]);
    next.kept = vec!["a".into(), "never-seen".into()];
    roster.take(&next);
    assert_eq!(show(&roster.commit(Instant::default()).unwrap()), "a:0? b:1? c:2-");
    // A skipped mention does not bring back who had left.
    next.kept = vec!["c".into(), "a".into()];
    roster.take(&next);
    assert_eq!(roster.commit(Instant::default()), None);
}

#[test]
fn who_left_is_forgotten_when_its_last_request_ended_on_every_core() {
    let (mut roster, cores) = (Roster::new([]), cores(2));
    roster.take(&frame(&["a", "b"]));
    roster.commit(Instant::default());
    cores.iter().for_each(|core| core.store_epoch(1));
    cores[1].store_in_flight([(0, 1)].into_iter());
    roster.take(&frame(&["b"]));
    assert_eq!(show(&roster.commit(Instant::default()).unwrap()), "a:0- b:1?");
    assert!(roster.awaits_cores());
    // Both are idle, but the second has not applied it: it may yet pick it.
    cores[1].store_in_flight([].into_iter());
    cores[0].store_epoch(2);
    roster.acknowledge(&cores);
    assert_eq!(roster.commit(Instant::default()), None);
    // It has, with one request in flight.
    cores[1].store_in_flight([(0, 1)].into_iter());
    cores[1].store_epoch(2);
    roster.acknowledge(&cores);
    assert_eq!(roster.commit(Instant::default()), None);
    cores[1].store_in_flight([].into_iter());
    roster.acknowledge(&cores);
    let without = roster.commit(Instant::default()).unwrap();
    assert_eq!((show(&without).as_str(), without.epoch, without.slots), ("b:1?", 3, 2));
    assert!(!roster.has_host("a"));

    // The slot rests until both apply epoch 3.
    cores[0].store_epoch(3);
    roster.acknowledge(&cores);
    roster.take(&frame(&["b", "c"]));
    assert_eq!(show(&roster.commit(Instant::default()).unwrap()), "b:1? c:2?");
    cores[1].store_epoch(3);
    roster.acknowledge(&cores);
    roster.take(&frame(&["b", "c", "d"]));
    assert_eq!(show(&roster.commit(Instant::default()).unwrap()), "d:0? b:1? c:2?");
    assert!(!roster.awaits_cores());
}

#[test]
fn a_core_in_the_middle_of_its_figures_is_waited_for() {
    let (mut roster, cores) = (Roster::new([]), cores(2));
    roster.take(&frame(&["a", "b"]));
    roster.commit(Instant::default());
    roster.take(&frame(&["b"]));
    roster.commit(Instant::default());
    cores.iter().for_each(|core| core.store_epoch(2));
    // The list is as empty as when nothing is in flight, but its owner is about to write into it.
    cores[1].store_in_flight(std::iter::once_with(|| {
        roster.acknowledge(&cores);
        (0, 1)
    }));
    assert_eq!(roster.commit(Instant::default()), None);
    assert!(roster.awaits_cores());
    cores[1].store_in_flight([].into_iter());
    roster.acknowledge(&cores);
    assert_eq!(show(&roster.commit(Instant::default()).unwrap()), "b:1?");
}

#[test]
fn who_comes_back_while_draining_keeps_its_slot() {
    let (mut roster, cores) = (Roster::new([]), cores(1));
    roster.take(&frame(&["a", "b"]));
    roster.commit(Instant::default());
    roster.take(&frame(&["b"]));
    roster.commit(Instant::default());
    roster.take(&frame(&["a", "b"]));
    assert_eq!(show(&roster.commit(Instant::default()).unwrap()), "a:0? b:1?");
    cores[0].store_epoch(3);
    roster.acknowledge(&cores);
    assert_eq!(roster.commit(Instant::default()), None);
}

#[test]
fn a_listed_sundown_stays_and_leaves_without_another_epoch_of_waiting() {
    let (mut roster, cores) = (Roster::new([]), cores(1));
    let mut draining = frame(&["a", "b"]);
    draining.items[0].category = Category::Sundown;
    roster.take(&draining);
    roster.commit(Instant::default());
    cores[0].store_epoch(1);
    roster.acknowledge(&cores);
    // Idle or not: while the agent lists it, it stays.
    assert_eq!(roster.commit(Instant::default()), None);
    roster.take(&frame(&["b"]));
    assert_eq!(roster.commit(Instant::default()), None, "it looks the same to the workers");
    roster.acknowledge(&cores);
    assert_eq!(show(&roster.commit(Instant::default()).unwrap()), "b:1?");
}

#[test]
fn there_is_room_for_a_full_set_beside_a_draining_one() {
    let (mut roster, cores) = (Roster::new([]), cores(1));
    let set = |letter: &str| -> Frame {
        let names: Vec<String> = (0..BACKENDS_MAX).map(|n| format!("{letter}{n}")).collect();
        frame(&names.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert_eq!(roster.take(&set("a")), in_force());
    roster.commit(Instant::default());
    assert_eq!(roster.take(&set("b")), in_force());
    assert_eq!(roster.commit(Instant::default()).unwrap().slots, SLOTS_MAX);
    assert_eq!(roster.take(&set("c")), Taken::InForce { unplaced: BACKENDS_MAX });
    roster.commit(Instant::default());
    cores[0].store_epoch(3);
    roster.acknowledge(&cores);
    let empty = roster.commit(Instant::default()).unwrap();
    assert_eq!(empty.backends.len(), 0);
    cores[0].store_epoch(empty.epoch);
    roster.acknowledge(&cores);
    assert_eq!(roster.take(&set("c")), in_force());
    assert_eq!(roster.commit(Instant::default()).unwrap().slots, SLOTS_MAX);
}

#[test]
fn ipv6_stands_in_brackets() {
    let mut roster = Roster::new([item("[::1]:81", 1.0, Category::Low)]);
    let snapshot = roster.commit(Instant::default()).unwrap();
    assert_eq!(&*snapshot.backends[0].authority, "[::1]:81");
    assert_eq!(&*snapshot.backends[0].addresses, ["[::1]:81".parse().unwrap()]);
    assert_eq!(roster.hosts().count(), 0);
}

#[test]
fn health_goes_with_the_next_snapshot_and_all_that_follow() {
    let mut roster = Roster::new([]);
    let names = ["10.0.0.1", "10.0.0.2", "unresolved"];
    roster.take(&frame(&names));
    let eligible = |roster: &Roster| roster.eligible().map(|(slot, _)| slot.0).collect::<Vec<_>>();
    assert!(roster.is_stale());
    assert_eq!(eligible(&roster), [0, 1]);
    roster.commit(Instant::default()).unwrap();
    assert!(!roster.is_stale());
    let out = Standings { others: vec![(Slot(1), Standing::Out)], heard: vec![7] };
    roster.set_health(out.clone());
    assert!(roster.is_stale());
    let second = roster.commit(Instant::default()).unwrap();
    assert_eq!((second.epoch, &second.health), (2, &out));
    // A worker that waits for an answer gets one although nothing else has changed.
    roster.set_health(Standings { heard: vec![8], ..out.clone() });
    assert_eq!(roster.commit(Instant::default()).unwrap().health.heard_of(0), 8);
    roster.set_health(Standings { heard: vec![8], ..out });
    assert_eq!(roster.commit(Instant::default()), None);
    roster.take(&frame(&names[..1]));
    let next = roster.commit(Instant::default()).unwrap();
    assert_eq!(next.health.of(Slot(1)), Standing::Out);
    assert_eq!(eligible(&roster), [0]);
}

/// A frame of addresses, each with a category, taken and committed at `ms`; who warms up since when.
fn warming(roster: &mut Roster, ms: u64, items: &[(&str, Category)]) -> String {
    let items: Vec<Item> = items.iter().map(|&(name, c)| item(name, 50.0, c)).collect();
    roster.take(&Frame { is_empty: items.is_empty(), items, ..Frame::default() });
    roster.commit(at(ms));
    let snapshot = roster.snapshot();
    let since = |b: &Backend| Some(format!("{}@{}", b.name, b.warming_since?.as_ns() / 1_000_000));
    snapshot.backends.iter().filter_map(since).collect::<Vec<_>>().join(" ")
}

fn at(ms: u64) -> Instant {
    Instant::from_ns(ms * 1_000_000)
}

const A: &str = "10.0.0.1";
const B: &str = "10.0.0.2";

#[test]
fn who_has_just_started_warms_up_and_who_was_there_before_us_does_not() {
    use Category::{Init, Low, Sundown};
    let mut roster = Roster::new([item(A, 50.0, Low)]);
    roster.commit(at(0));
    assert_eq!(warming(&mut roster, 1000, &[(A, Init), (B, Init)]), "");
    for (ms, category, expected) in [
        (2000, Low, ""),
        // Called INIT again it has restarted, and what it is called then does not matter.
        (3000, Init, "10.0.0.2@3000"),
        (4000, Init, "10.0.0.2@3000"),
        (5000, Low, "10.0.0.2@3000"),
        (6000, Sundown, "10.0.0.2@3000"),
        (7000, Init, "10.0.0.2@7000"),
    ] {
        assert_eq!(warming(&mut roster, ms, &[(A, Init), (B, category)]), expected, "{ms}");
    }
    // Gone for a frame means restarted, unless the frame only had a flaw there.
    assert_eq!(warming(&mut roster, 8000, &[(A, Init)]), "10.0.0.2@7000");
    assert_eq!(warming(&mut roster, 9000, &[(A, Init), (B, Init)]), "10.0.0.2@9000");
    let items = vec![item(A, 60.0, Init)];
    roster.take(&Frame { items, kept: vec![B.into()], ..Frame::default() });
    roster.commit(at(9500));
    assert_eq!(warming(&mut roster, 9900, &[(A, Init), (B, Init)]), "10.0.0.2@9000");
    // New, and past its beginning.
    assert_eq!(warming(&mut roster, 10_000, &[(A, Init), ("10.0.0.3", Low)]), "10.0.0.2@9000");
}

#[test]
fn the_warm_up_begins_when_there_is_an_address() {
    use Category::{Init, Low};
    let mut roster = Roster::new([]);
    assert_eq!(warming(&mut roster, 1000, &[(A, Low)]), "");
    assert_eq!(warming(&mut roster, 2000, &[(A, Low), ("a", Init), ("b", Init)]), "");
    assert_eq!(warming(&mut roster, 3000, &[(A, Low), ("a", Init), ("b", Low)]), "");
    for host in ["a", "b"] {
        roster.resolved(host, &["10.0.0.9".parse().unwrap()]);
    }
    assert_eq!(warming(&mut roster, 4000, &[(A, Low), ("a", Init), ("b", Low)]), "a@4000");
    roster.resolved("a", &["10.0.0.8".parse().unwrap()]);
    assert_eq!(warming(&mut roster, 5000, &[(A, Low), ("a", Init), ("b", Low)]), "a@4000");
}
