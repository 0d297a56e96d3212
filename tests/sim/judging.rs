//! The judge judged: a naive proxy without a flaw passes, and each flaw to order is seen.

use std::panic::catch_unwind;
use std::time::Duration;

use crate::backend::Backend;
use crate::client::Client;
use crate::exec::Sim;
use crate::house::{House, backend_address};
use crate::ledger::{Heard, Ledger, Nonce};
use crate::runner;
use crate::toy::Flaw;
use crate::wire::{Broken, parse_head};

const MINUTE: Duration = Duration::from_secs(60);

/// Two clients with a mix of requests, then rest, then the end.
fn mixed_traffic(sim: &Sim, flaw: Flaw) {
    let ledger = Ledger::default();
    let backends =
        [1, 2].map(|n| Backend::start(sim, &ledger, &format!("b{n}"), backend_address(n)));
    let house = House::open_toy(sim, &[&backends[0], &backends[1]], flaw);
    sim.run_for(Duration::from_millis(100));
    let crowd = sim.core();
    let clients = (0..2).map(|n| {
        let (io, ledger, to) = (crowd.clone(), ledger.clone(), house.address);
        sim.start(&crowd, format!("client {n}"), async move {
            let mut client = Client::open(&io, &ledger, n, to).await;
            client.get("len=300").await;
            client.get("len=900&how=chunked").await;
            let post = client.plan("POST", 500, "len=40");
            client.ask(&post).await;
            client.get("len=100&how=interim").await;
            let broken = client.plan("GET", 0, "len=1000&how=cut");
            let heard = client.ask(&broken).await;
            assert!(matches!(heard, Heard::Broken { .. }), "a broken message was due: {heard:?}");
        })
    });
    sim.finish_all(clients.collect(), MINUTE);
    house.check_rest(sim);
    house.check_drain(sim);
    ledger.check();
}

#[test]
fn a_proxy_without_a_flaw_passes() {
    runner::seeds("a_proxy_without_a_flaw_passes", 100, |sim| mixed_traffic(sim, Flaw::None));
}

#[test]
fn every_flaw_is_seen() {
    for flaw in [
        Flaw::SendsTwice,
        Flaw::RepeatsAnswer,
        Flaw::LosesByte,
        Flaw::HidesBreak,
        Flaw::AnswersTwice,
        Flaw::PassesHop,
        Flaw::Leaks,
        Flaw::IgnoresOrders,
    ] {
        let is_seen = |seed| catch_unwind(|| mixed_traffic(&Sim::new(seed), flaw)).is_err();
        let seen = (0..8).filter(|&seed| is_seen(seed)).count();
        assert!(seen >= 7, "{flaw:?} was seen under {seen} of 8 seeds");
    }
}

#[test]
fn nonces_are_found_in_the_middle_of_anything() {
    let nonce = Nonce { client: 3, number: 14 };
    assert_eq!(Nonce::parse("~c3r14~"), Some(nonce));
    assert_eq!(Nonce::all_in(&nonce.body(23)), [nonce, nonce, nonce]);
    assert_eq!(Nonce::all_in(b"x~c3r14~y~c1r~"), [nonce]);
}

#[test]
fn the_reader_is_strict() {
    let malformed = |text: &str| {
        let head = parse_head(text.as_bytes());
        let head = head.and_then(|h| h.status().and_then(|_| h.response_framing("GET")));
        matches!(head, Err(Broken::Malformed(_)))
    };
    assert!(!malformed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"));
    for text in [
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
    ] {
        assert!(malformed(text), "{text:?}");
    }
}
