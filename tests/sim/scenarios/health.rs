//! Backends that fall ill and recover, in front of several workers and the real control core.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use balancer::time::Instant;

use super::{PLAY_MAX, SECOND};
use crate::client::Client;
use crate::exec::{Handle, Outcome, Sim};
use crate::kernel::Route;
use crate::ledger::Heard;
use crate::peer::sleep;
use crate::runner::seeds;
use crate::town::Town;

const MS: Duration = Duration::from_millis(1);

/// A network as in a rack: what is left of a bound is the balancer's own.
fn in_a_rack(sim: &Sim) {
    sim.with_weather(|weather| {
        weather.latency = (Duration::from_micros(20), Duration::from_micros(200));
        weather.lateness_max = MS;
        weather.poll_cost_max = Duration::from_micros(5);
        weather.accept_error_percent = 0;
    });
}

/// Clients that ask every few milliseconds until the flag falls; none may be refused.
fn patients(town: &Town<'_>, n: u32, is_open: &Rc<Cell<bool>>) -> Vec<Handle<u32>> {
    let client = |number| {
        let (is_open, to) = (is_open.clone(), town.address());
        town.client(number, async move |mut client: Client| {
            client.pace = (usize::MAX, Duration::ZERO);
            let mut asked = 0;
            while is_open.get() {
                let ask = client.plan("GET", 0, "len=50&wait=10");
                let heard = client.ask(&ask).await;
                // What has begun to be answered cannot be had elsewhere.
                let is_begun = matches!(heard, Heard::Broken { head: Some(_), .. });
                assert!(heard.status() == Some(200) || is_begun, "{}: {heard:?}", ask.nonce);
                client = client.go_on(&heard, to).await;
                asked += 1;
            }
            asked
        })
    };
    (0..n).map(client).collect()
}

/// Four connects a second, give or take how late a deadline is noticed.
fn assert_probes_are_few(probes: &[Instant]) {
    for (at, begun) in probes.iter().enumerate() {
        let within =
            probes[at..].iter().filter(|later| later.since(*begun) < SECOND - 20 * MS).count();
        assert!(within <= 4, "{within} connects within a second");
    }
}

#[test]
fn a_dead_backend_is_left_by_all_cores_and_is_back_at_once() {
    seeds("a_dead_backend_is_left_by_all_cores_and_is_back_at_once", 12, |sim| {
        in_a_rack(sim);
        let town = Town::new(sim, 3, 4, |_| {});
        let is_open = Rc::new(Cell::new(true));
        let clients = patients(&town, 12, &is_open);
        sim.run_for(300 * MS);
        let died = sim.now();
        town.kill(0);
        sim.run_for(3 * SECOND);
        // Retries at other backends are begun with connections that were there or are new: only those to it matter.
        let tries = town.tries(0, died);
        let late = tries.iter().filter(|(_, at)| at.since(died) > 20 * MS).count();
        assert_eq!(late, 0, "tried {late} times when all should have known: {tries:?}");
        let mut by_core: BTreeMap<usize, usize> = BTreeMap::new();
        tries.iter().for_each(|(core, _)| *by_core.entry(*core).or_default() += 1);
        assert!(by_core.values().all(|n| *n <= 3), "{by_core:?}");
        assert_probes_are_few(&town.probes(0));
        let before = town.backends[0].asked.get();
        let returned = sim.now();
        sim.route(town.backends[0].address, Route::Open);
        let outcome = sim.run_until(500 * MS, || town.backends[0].asked.get() > before);
        assert_eq!(
            outcome,
            Outcome::Met,
            "no request {:?} after its return",
            sim.now().since(returned)
        );
        is_open.set(false);
        sim.finish_all(clients, PLAY_MAX);
        town.end();
    });
}

/// Whatever the network, and however few requests there are: nobody notices.
#[test]
fn a_backend_that_comes_and_goes_costs_no_request() {
    seeds("a_backend_that_comes_and_goes_costs_no_request", 60, |sim| {
        // Half a head is an answer that has begun: heads come whole here.
        sim.with_weather(|weather| {
            (weather.tear_percent, weather.short_write_percent) = (0, 0);
            weather.buffer_bytes = (4 * 1024, 64 * 1024);
        });
        let town = Town::new(sim, 2, 3, |_| {});
        let is_open = Rc::new(Cell::new(true));
        let clients = patients(&town, 3, &is_open);
        for _ in 0..4 {
            sim.run_for(Duration::from_millis(100 + sim.below(900)));
            town.kill(1);
            sim.run_for(Duration::from_millis(100 + sim.below(2_000)));
            sim.route(town.backends[1].address, Route::Open);
        }
        let before = town.backends[1].asked.get();
        let outcome = sim.run_until(10 * SECOND, || town.backends[1].asked.get() > before);
        assert_eq!(outcome, Outcome::Met, "it stays out");
        assert_probes_are_few(&town.probes(1));
        is_open.set(false);
        sim.finish_all(clients, PLAY_MAX);
        town.end();
    });
}

/// Each client meets it once at most, and then only one request at a time tries it, which goes elsewhere in the end.
#[test]
fn a_silent_backend_is_left_after_its_first_timeouts() {
    seeds("a_silent_backend_is_left_after_its_first_timeouts", 12, |sim| {
        in_a_rack(sim);
        let timeout = 2 * SECOND;
        let town = Town::new(sim, 2, 4, |config| config.timeouts.request = timeout);
        town.backends[2].mood.set(Some("hang"));
        let is_open = Rc::new(Cell::new(true));
        let clients: Vec<Handle<u32>> = (0..8)
            .map(|number| {
                let (is_open, to) = (is_open.clone(), town.address());
                town.client(number, async move |mut client: Client| {
                    client.pace = (usize::MAX, Duration::ZERO);
                    let mut victims = 0;
                    while is_open.get() {
                        let ask = client.plan("GET", 0, "len=50&wait=50");
                        let heard = client.ask(&ask).await;
                        match heard.status() {
                            Some(200) => {}
                            Some(504) => victims += 1,
                            _ => panic!("{heard:?}"),
                        }
                        client = client.go_on(&heard, to).await;
                    }
                    victims
                })
            })
            .collect();
        sim.run_for(timeout + 2 * SECOND);
        let met = town.backends[2].asked.get();
        assert!((1..=8).contains(&met), "{met} requests met it");
        // Out for a second, one request for half of the timeout, out for two …
        sim.run_for(2 * timeout);
        let later = town.backends[2].asked.get() - met;
        assert!((1..=3).contains(&later), "{later} requests tried it later");
        town.backends[2].mood.set(None);
        let now = town.backends[2].asked.get();
        let is_back = || town.backends[2].asked.get() > now + 20;
        assert_eq!(sim.run_until(40 * SECOND, is_back), Outcome::Met, "it stays out");
        is_open.set(false);
        let victims = sim.finish_all(clients, PLAY_MAX);
        assert!(victims.iter().all(|n| *n <= 1), "{victims:?}");
        town.end();
    });
}

/// Answers that have begun cannot be had elsewhere; three of them in a row are enough.
#[test]
fn a_backend_that_breaks_its_answers_is_left() {
    seeds("a_backend_that_breaks_its_answers_is_left", 8, |sim| {
        in_a_rack(sim);
        let town = Town::new(sim, 2, 4, |_| {});
        let is_open = Rc::new(Cell::new(true));
        town.backends[1].mood.set(Some("reset"));
        let clients: Vec<Handle<()>> = (0..6)
            .map(|number| {
                let (is_open, to) = (is_open.clone(), town.address());
                town.client(number, async move |mut client: Client| {
                    client.pace = (usize::MAX, Duration::ZERO);
                    while is_open.get() {
                        let ask = client.plan("GET", 0, "len=3000&wait=10");
                        let heard = client.ask(&ask).await;
                        client = client.go_on(&heard, to).await;
                        sleep(&client.conn.io, 30 * MS).await;
                    }
                })
            })
            .collect();
        sim.run_for(900 * MS);
        // Those that were on their way when the third one broke, and one retry of each.
        let met = town.backends[1].asked.get();
        assert!((3..=10).contains(&met), "{met} requests met it");
        sim.run_for(10 * SECOND);
        let later = town.backends[1].asked.get() - met;
        assert!(later <= 4, "out for 1, 2, 4 and 8 s, one request each, but there were {later}");
        is_open.set(false);
        sim.finish_all(clients, PLAY_MAX);
        town.end();
    });
}

#[test]
fn when_everybody_is_ill_everybody_is_asked() {
    seeds("when_everybody_is_ill_everybody_is_asked", 60, |sim| {
        let town = Town::new(sim, 2, 4, |_| {});
        let gets = |town: &Town<'_>, number, expected: &'static [u16]| {
            let to = town.address();
            let client = town.client(number, async move |mut client: Client| {
                for _ in 0..6 {
                    let ask = client.plan("GET", 0, "len=50");
                    let heard = client.ask(&ask).await;
                    let status = heard.status().expect("an answer");
                    assert!(expected.contains(&status), "{heard:?}");
                    client = client.go_on(&heard, to).await;
                }
            });
            sim.finish(client, PLAY_MAX);
        };
        (0..4).for_each(|at| town.kill(at));
        gets(&town, 0, &[502]);
        gets(&town, 1, &[502]);
        sim.run_for(SECOND);
        // One comes back: as everybody is asked, the next request finds it, whatever has been noticed.
        let alive = sim.below(4) as usize;
        sim.route(town.backends[alive].address, Route::Open);
        gets(&town, 2, &[200]);
        gets(&town, 3, &[200]);
        sim.run_for(SECOND);
        let since = sim.now();
        gets(&town, 4, &[200]);
        gets(&town, 5, &[200]);
        // Half of the set is out, the fourth is asked beside the living one.
        let asked = (0..4).filter(|&at| at != alive && !town.tries(at, since).is_empty()).count();
        assert!(asked <= 1, "{asked} dead ones were asked");
        town.end();
    });
}
