//! The byte budget is what the process grows by, not a wish (CACHE.md, budget).

use crate::support::cached::{House, SOON, is_hit};
use crate::support::client::Client;
use crate::support::noise;
use crate::support::origin::Saying;
use crate::support::wait;

/// Asks for `count` objects of `bytes` each, ten times the budget, and returns the growth in KiB over a balancer that has
/// passed on as many without storing them.
fn growth_kib(house: &House, bytes: u64, count: u64) -> u64 {
    house.origin.forget();
    house.origin.say("passed", Saying::new("Cache-Control: no-store", noise::body(1, bytes)));
    house.origin.say("stored", Saying::new("Cache-Control: max-age=600", noise::body(1, bytes)));
    let mut clients: Vec<_> = (0..8).map(|_| house.client()).collect();
    for n in 0..count / 10 {
        clients[n as usize % 8].get(&format!("/say/passed/{n}"));
    }
    let before = house.balancer.memory_kib();
    let mut peak = 0;
    for n in 0..count {
        let response = clients[n as usize % 8].get(&format!("/say/stored/{n}"));
        assert!(response.status() == 200 && response.body.len() as u64 == bytes);
        if n % 64 == 0 {
            peak = peak.max(house.balancer.memory_kib());
        }
    }
    let newest = clients[0].get(&format!("/say/stored/{}", count - 1));
    assert!(is_hit(&newest), "the cache is at work: {:?}", newest.head);
    let growth = peak.max(house.balancer.memory_kib()).saturating_sub(before);
    eprintln!("{count} objects of {bytes} bytes: {growth} KiB more than {before} KiB");
    growth
}

#[test]
fn ten_times_the_budget_of_pages_stays_within_it() {
    let mut beyond = Vec::new();
    for kib in [16, 32, 64, 256, 1024] {
        let house = House::one_core(&["--cache-bytes", "16MiB", "--cache-capacity", "1000000"]);
        let growth = growth_kib(&house, kib << 10, 163_840 / kib);
        if growth > 16 * 1024 * 11 / 10 {
            beyond.push(format!("{kib} KiB each: {growth} KiB"));
        }
    }
    assert!(beyond.is_empty(), "more than 16 MiB and a tenth: {beyond:?}");
}

#[test]
fn ten_times_the_budget_of_small_objects_stays_within_it() {
    let house = House::one_core(&["--cache-bytes", "4MiB", "--cache-capacity", "1000000"]);
    let growth = growth_kib(&house, 1_000, 40_000);
    assert!(growth <= 4 * 1024 * 11 / 10, "{growth} KiB");
}

#[test]
fn readers_of_what_was_evicted_keep_it_no_longer_than_they_read() {
    let house = House::one_core(&["--cache-bytes", "8MiB"]);
    let growth = {
        house
            .origin
            .say("large", Saying::new("Cache-Control: max-age=600", noise::body(2, 3 << 20)));
        house.client().get("/say/large");
        // Fifty that have begun to read share one body.
        let stuck: Vec<_> = (0..50)
            .map(|_| {
                let address = house.balancer.address();
                let mut client = Client::connect_narrow(address, 4_096);
                client.send(b"GET /say/large HTTP/1.1\r\nHost: test\r\n\r\n").expect("sent");
                client.response_head("GET").expect("a head");
                client
            })
            .collect();
        let growth = growth_kib(&house, 64 << 10, 1_280);
        drop(stuck);
        growth
    };
    // The budget, what fifty slow readers hold together (3 MiB), and their socket buffers' share of ours.
    assert!(growth <= 8 * 1024 * 11 / 10 + 3 * 1024, "{growth} KiB");
}

#[test]
fn slow_readers_of_many_bodies_hold_no_more_than_the_budget() {
    let house = House::one_core(&["--cache-bytes", "16MiB"]);
    // More than a socket takes in, so that the rest stays with the balancer.
    let body = noise::body(3, 7 << 20);
    house.origin.say("slow", Saying::new("Cache-Control: max-age=600", body.clone()));
    let mut quick = house.client();
    for n in 0..4 {
        quick.get(&format!("/say/slow/warm-{n}"));
    }
    let before = house.balancer.memory_kib();
    let mut peak = before;
    let mut slow = Vec::new();
    for n in 0..16 {
        let target = format!("/say/slow/{n}");
        assert_eq!(quick.get(&target).body, body);
        let mut client = Client::connect_narrow(house.balancer.address(), 65_536);
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())
            .expect("sent");
        let (_, _, framing) = client.response_head("GET").expect("a head");
        slow.push((client, framing));
        peak = peak.max(house.balancer.memory_kib());
    }
    let growth = peak - before;
    eprintln!(
        "16 slow readers of 7 MiB each: {growth} KiB more than {before} KiB with a full store of 16 MiB"
    );
    // One body is on its way into the store, and those that found no room there have buffers of their own, 80 KiB each.
    assert!(growth <= 16 * 1024 / 10 + 7 * 1024 + 16 * 80, "{growth} KiB");
    for (mut client, framing) in slow {
        let mut read = Vec::new();
        client.body(framing, |bytes| read.extend_from_slice(bytes)).expect("a whole body");
        assert!(read == body, "{} bytes", read.len());
    }
    quick.get("/say/slow/after");
    assert!(is_hit(&quick.get("/say/slow/after")), "there is room again");
}

#[test]
fn crowds_on_many_bodies_hold_no_more_than_the_budget() {
    let house = House::one_core(&["--cache-bytes", "16MiB"]);
    let body = noise::body(4, 7 << 20);
    let fresh = "Cache-Control: max-age=600";
    house.origin.say("halved", Saying::new(fresh, body.clone()).halved("half"));
    house.origin.say("whole", Saying::new(fresh, body.clone()));
    for n in 0..4 {
        house.client().get(&format!("/say/whole/{n}"));
    }
    let before = house.balancer.memory_kib();
    let mut peak = before;
    std::thread::scope(|scope| {
        for n in 0..24 {
            let (mut client, body) = (house.client(), &body);
            let target = format!("/say/halved/{}", n / 2);
            scope.spawn(move || {
                let response = client.get(&target);
                assert!(response.status() == 200 && response.body == *body, "client {n}");
            });
        }
        // Two bodies have room, and two readers each; the other ten are fetched by everybody for himself.
        wait::until("all have half of theirs", SOON, || {
            peak = peak.max(house.balancer.memory_kib());
            house.origin.waiting("half") == 22
        });
        house.origin.open("half");
    });
    peak = peak.max(house.balancer.memory_kib());
    let growth = peak - before;
    eprintln!("24 readers of 12 bodies of 7 MiB at once: {growth} KiB more than {before} KiB");
    assert!(growth <= 16 * 1024 / 10 + 7 * 1024 + 24 * 80, "{growth} KiB");
}
