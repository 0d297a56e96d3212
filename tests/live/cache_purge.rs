//! What an operator purges is gone on every core, also what was being fetched at that moment (CACHE.md, purge).

use crate::support::cached::{House, SOON, is_hit};
use crate::support::client::{Client, Response};
use crate::support::origin::Saying;
use crate::support::wait;

const FRESH: &str = "Cache-Control: max-age=600";

fn house() -> Option<House> {
    House::two_cores(&["--admin", "127.0.0.1:0"])
}

fn purge(house: &House, what: &str) -> Response {
    let admin = house.balancer.admin();
    let mut client = Client::connect(admin);
    let request = format!(
        "POST /cache/purge?{what} HTTP/1.1\r\nHost: {admin}\r\nX-Balancer-Purge: yes\r\n\
         Content-Length: 0\r\n\r\n"
    );
    client.send(request.as_bytes()).expect("sent");
    let response = client.response("POST").expect("an answer");
    assert_eq!(response.status(), 200, "{what}: {}", response.text());
    response
}

/// Which part of eight new connections, of both cores, gets the target from store.
fn kept(house: &House, target: &str) -> usize {
    let only = "Cache-Control: only-if-cached\r\n";
    let asked = (0..8).map(|_| house.client().ask("GET", target, only, b"").expect("an answer"));
    asked.filter(is_hit).count()
}

#[test]
fn a_purge_forgets_what_it_names_and_tells_how_much() {
    let Some(house) = house() else { return };
    house.origin.say("a", Saying::new(FRESH, "a"));
    house.origin.say("varied", Saying::new(&format!("{FRESH}|Vary: X-Kind"), "v"));
    for n in 0..20 {
        house.client().get(&format!("/say/a/img/{n}"));
        house.client().get(&format!("/say/a/txt/{n}"));
    }
    for kind in ["1", "2", "3"] {
        let field = format!("X-Kind: {kind}\r\n");
        wait::until("each variant is kept", SOON, || {
            is_hit(&house.client().ask("GET", "/say/varied", &field, b"").expect("an answer"))
        });
    }
    let are_kept = |kind: &str, each: usize| {
        (0..20).all(|n| kept(&house, &format!("/say/a/{kind}/{n}")) == each)
    };
    wait::until("all is kept", SOON, || are_kept("img", 8) && are_kept("txt", 8));
    for (what, count) in [
        ("url=http://test/say/a/img/0", "1"),
        ("url=http://test/say/a/img/0", "0"),
        ("url=http://TEST:80/say/varied", "3"),
        ("prefix=http://test/say/a/img/", "19"),
        ("url=http://other/say/a/txt/0", "0"),
    ] {
        let told = purge(&house, what).text();
        let numbers: Vec<&str> =
            told.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
        assert!(numbers.contains(&count), "{what}: {told:?}, not {count}");
    }
    assert!(are_kept("img", 0));
    wait::until("the others are kept", SOON, || are_kept("txt", 8));
    purge(&house, "all");
    assert!(are_kept("txt", 0));
    wait::until("the cache goes on", SOON, || is_hit(&house.client().get("/say/a/txt/0")));
}

#[test]
fn a_purge_during_a_fill_leaves_nothing_behind() {
    let Some(house) = house() else { return };
    for (name, what, gate) in [
        ("exact", "url=http://test/say/exact", "1"),
        ("prefix", "prefix=http://test/say/pre", "2"),
        ("all", "all", "3"),
        ("exact-body", "url=http://test/say/exact-body", "4"),
        ("prefix-body", "prefix=http://test/say/prefix-", "5"),
        ("all-body", "all", "6"),
    ] {
        let target = format!("/say/{name}");
        let old = Saying::new(FRESH, vec![b'o'; 100_000]);
        // Before the head has come, or in the middle of the body.
        let is_body = name.ends_with("body");
        house.origin.say(name, if is_body { old.halved(gate) } else { old.held(gate) });
        let mut filler = house.client();
        let request = format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n");
        filler.send(request.as_bytes()).expect("sent");
        wait::until("the fill is under way", SOON, || house.origin.waiting(gate) == 1);
        purge(&house, what);
        house.origin.say(name, Saying::new(FRESH, "new"));
        assert_eq!(house.client().get(&target).text(), "new", "{name}: nobody joins the old one");
        house.origin.open(gate);
        let filled = filler.response("GET").expect("its own answer is whole");
        assert!(filled.body == vec![b'o'; 100_000], "{name}");
        for _ in 0..8 {
            assert_eq!(house.client().get(&target).text(), "new", "{name}");
        }
    }
}
