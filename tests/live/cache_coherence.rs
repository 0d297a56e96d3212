//! Cores agree: what was changed on one is never served stale on another (CACHE.md, cores; RFC 9111 §4.4).
//!
//! 500 pairs by default, 10,000 with `BALANCER_LIVE_FULL=1`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::support::cached::{House, SOON, is_hit, is_shared};
use crate::support::client::Client;
use crate::support::origin::Saying;
use crate::support::wait;

fn pairs() -> u64 {
    if std::env::var_os("BALANCER_LIVE_FULL").is_some() { 10_000 } else { 500 }
}

fn number(client: &mut Client, method: &str, target: &str) -> (u64, bool) {
    let response = client.ask(method, target, "", b"").expect("an answer");
    assert_eq!(response.status(), 200);
    (response.text().parse().expect("a number"), is_hit(&response))
}

#[test]
fn a_get_after_a_post_sees_what_it_did() {
    let Some(house) = House::two_cores(&[]) else { return };
    house.origin.forget();
    // Connections of both cores, and keys of both homes.
    let mut clients: Vec<Client> = (0..16).map(|_| house.client()).collect();
    let (mut stale, mut hits) = (0, 0);
    for n in 0..pairs() as usize {
        let target = format!("/count/{}", n % 7);
        let (reader, writer) = (n % 16, (n / 16 + n * 5 + 1) % 16);
        number(&mut clients[reader], "GET", &target);
        hits += u64::from(number(&mut clients[reader], "GET", &target).1);
        let (written, _) = number(&mut clients[writer], "POST", &target);
        let (read, _) = number(&mut clients[reader], "GET", &target);
        stale += u64::from(read < written);
    }
    assert_eq!(stale, 0, "of {}", pairs());
    assert!(hits > pairs() / 2, "nothing is shown where nothing is stored: {hits} hits");
}

#[test]
fn fills_under_way_do_not_outlive_a_change() {
    let Some(house) = House::two_cores(&[]) else { return };
    house.origin.forget();
    let (floor, hits, is_over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    // Readers ask without pause, so that a change meets fills in every state. Whoever begins to ask after a change was
    // answered must see it.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = house.client();
                while !is_over.load(Ordering::Acquire) {
                    let known = floor.load(Ordering::Acquire);
                    let (read, is_hit) = number(&mut client, "GET", "/count/race");
                    hits.fetch_add(u64::from(is_hit), Ordering::Relaxed);
                    if read < known {
                        is_over.store(true, Ordering::Release);
                        panic!("{read} was served after {known} had been written");
                    }
                }
            });
        }
        let mut writers: Vec<Client> = (0..4).map(|_| house.client()).collect();
        for n in 0..pairs() as usize {
            if is_over.load(Ordering::Acquire) {
                break;
            }
            let (written, _) = number(&mut writers[n % 4], "POST", "/count/race");
            floor.store(written, Ordering::Release);
        }
        is_over.store(true, Ordering::Release);
    });
    assert!(hits.into_inner() > 0, "nothing is shown where nothing is stored");
}

#[test]
fn a_change_during_a_fill_leaves_nothing_behind() {
    let Some(house) = House::two_cores(&[]) else { return };
    for n in 0..10 {
        let name = format!("a{n}");
        let target = format!("/say/{name}");
        let gates = ["g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8", "g9"];
        // Changed before the head of the fill has come, or in the middle of its body.
        let old = Saying::new("Cache-Control: max-age=600", vec![b'o'; 100_000]);
        house.origin.say(&name, if n % 2 == 0 { old.held(gates[n]) } else { old.halved(gates[n]) });
        let mut filler = house.client();
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        filler.send(request.as_bytes()).expect("sent");
        wait::until("the fill is under way", SOON, || house.origin.waiting(gates[n]) == 1);
        house.origin.say(&name, Saying::new("Cache-Control: max-age=600", "new"));
        house.client().ask("POST", &target, "", b"x").expect("an answer");
        // Nobody joins the old fill any more.
        assert_eq!(house.client().get(&target).text(), "new");
        house.origin.open(gates[n]);
        let filled = filler.response("GET").expect("its own answer is whole");
        assert!(filled.body == vec![b'o'; 100_000]);
        wait::until("the new one is kept", SOON, || {
            let response = house.client().get(&target);
            assert_eq!(response.text(), "new", "{n}");
            is_shared(&response)
        });
    }
}
