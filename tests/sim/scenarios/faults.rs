//! Backends and clients that break, and what may be repeated.

use std::time::Duration;

use balancer::io::Io;

use super::{PLAY_MAX, SECOND, Scene};
use crate::client::Client;
use crate::exec::Outcome;
use crate::kernel::Route;
use crate::ledger::Heard;
use crate::peer::sleep;
use crate::runner::seeds;
use crate::wire::Broken;

#[test]
fn a_refused_connect_goes_elsewhere_whatever_the_method() {
    seeds("a_refused_connect_goes_elsewhere_whatever_the_method", 200, |sim| {
        let scene = Scene::new(sim, 2);
        let route = if sim.below(2) == 0 { Route::Refuse } else { Route::Unreachable };
        sim.route(scene.backends[0].address, route);
        scene.one(async |mut client: Client| {
            for _ in 0..4 {
                client.get("len=10").await;
                let post = client.plan("POST", 300, "len=10");
                assert_eq!(client.ask(&post).await.status(), Some(200));
            }
        });
        assert_eq!(scene.ledger.count_at("b1"), 0);
        scene.end();
    });
}

#[test]
fn an_unanswered_connect_goes_elsewhere_in_time() {
    seeds("an_unanswered_connect_goes_elsewhere_in_time", 200, |sim| {
        let scene = Scene::new(sim, 2);
        let route = if sim.below(2) == 0 { Route::BlackHole } else { Route::Slow(10 * SECOND) };
        sim.route(scene.backends[0].address, route);
        scene.one(async |mut client: Client| {
            for _ in 0..4 {
                let since = client.conn.io.now();
                client.get("len=10").await;
                let took = client.conn.io.now().since(since);
                assert!(took < 4 * SECOND, "{took:?}");
            }
        });
        scene.end();
    });
}

#[test]
fn no_backend_that_can_be_reached_is_an_answer_too() {
    seeds("no_backend_that_can_be_reached_is_an_answer_too", 100, |sim| {
        let scene = Scene::new(sim, 2);
        let ways = [Route::Refuse, Route::BlackHole, Route::Unreachable];
        for backend in &scene.backends {
            sim.route(backend.address, ways[sim.below(3) as usize]);
        }
        scene.one(async |mut client: Client| {
            let ask = client.plan("GET", 0, "len=10");
            let heard = client.ask(&ask).await;
            assert!(matches!(heard.status(), Some(502..=504)), "{heard:?}");
        });
        // The faults heal: so does the traffic.
        for backend in &scene.backends {
            sim.route(backend.address, Route::Open);
        }
        sim.run_for(60 * SECOND);
        scene.one_more();
        scene.end();
    });
}

impl Scene<'_> {
    /// One plain request of a client that was not here before.
    fn one_more(&self) {
        let client = self.client(77, async |mut client: Client| drop(client.get("len=10").await));
        self.sim.finish(client, PLAY_MAX);
    }
}

/// What a request may be tried on is bounded by the tries, not by luck: five dead backends do not hide the sixth.
#[test]
fn many_dead_backends_do_not_hide_a_living_one() {
    seeds("many_dead_backends_do_not_hide_a_living_one", 100, |sim| {
        let scene = Scene::new(sim, 6);
        let alive = sim.below(6) as usize;
        for (n, backend) in scene.backends.iter().enumerate() {
            sim.route(backend.address, if n == alive { Route::Open } else { Route::Refuse });
        }
        scene.one(async |mut client: Client| drop(client.get("len=10").await));
        scene.end();
    });
}

/// RFC 9112 §9.6: the rest of the upload is still coming when we answer and close.
#[test]
fn an_answer_of_ours_in_the_middle_of_an_upload_arrives() {
    seeds("an_answer_of_ours_in_the_middle_of_an_upload_arrives", 200, |sim| {
        let scene = Scene::new(sim, 1);
        scene.one(async |mut client: Client| {
            client.conn.stream.purge_on_reset();
            let ask = client.plan("POST", 4_000, "how=die&early=1");
            let heard = client.ask(&ask).await;
            assert_eq!(heard.status(), Some(502), "{heard:?}");
        });
        scene.end();
    });
}

#[test]
fn a_pooled_connection_that_dies_under_a_request() {
    seeds("a_pooled_connection_that_dies_under_a_request", 300, |sim| {
        let scene = Scene::new(sim, 1 + sim.below(2) as u8);
        let then = ["trap", "idle", "fin"][sim.below(3) as usize];
        let wait = Duration::from_micros(sim.below(8_000));
        let to = scene.house.address;
        scene.one(async move |mut client: Client| {
            for _ in 0..4 {
                client.get(&format!("len=10&then={then}")).await;
                sleep(&client.conn.io, wait).await;
                client.get("len=20").await;
                client.get(&format!("len=10&then={then}")).await;
                sleep(&client.conn.io, wait).await;
                let post = client.plan("POST", 0, "len=30");
                let heard = client.ask(&post).await;
                assert!(matches!(heard.status(), Some(200 | 502)), "{heard:?}");
                client = client.go_on(&heard, to).await;
            }
        });
        scene.end();
    });
}

#[test]
fn stray_bytes_on_an_idle_connection_reach_nobody() {
    seeds("stray_bytes_on_an_idle_connection_reach_nobody", 200, |sim| {
        let scene = Scene::new(sim, 1);
        scene.one(async |mut client: Client| {
            for _ in 0..4 {
                client.get("len=10&then=stray").await;
                // Long enough for them to arrive in any weather: sent into a request, nobody could tell them from its answer.
                sleep(&client.conn.io, 3 * SECOND).await;
                client.get("len=20").await;
            }
        });
        scene.end();
    });
}

#[test]
fn an_answer_that_breaks_reaches_the_client_broken() {
    seeds("an_answer_that_breaks_reaches_the_client_broken", 300, |sim| {
        let scene = Scene::new(sim, 2);
        // A close-delimited body that ends in order is whole by definition.
        let ways = ["cut&as=length", "cut&as=chunked", "reset&as=length", "reset&as=chunked"];
        let ways = [&ways[..], &["reset&as=close"]].concat();
        let way = ways[sim.below(5) as usize];
        let length = 2 + sim.below(20_000);
        scene.one(async move |mut client: Client| {
            let ask = client.plan("GET", 0, &format!("len={length}&how={way}"));
            match client.ask(&ask).await {
                Heard::Broken { how: Broken::Cut | Broken::Reset, body, .. } => {
                    assert!(ask.nonce.body(length as usize).starts_with(&body));
                }
                // A reset may swallow all of the answer, and then it is tried again, to the same end.
                Heard::Answer(answer) if answer.status == 502 && way.starts_with("reset") => {}
                other => panic!("{way}: {other:?}"),
            }
        });
        scene.end();
    });
}

/// The upload's failing send takes the error of the reset with it; the answer, whose end only a close would mark, must
/// not pass for whole.
#[test]
fn a_reset_that_the_upload_notices_first_is_no_end_of_the_answer() {
    seeds("a_reset_that_the_upload_notices_first_is_no_end_of_the_answer", 400, |sim| {
        let scene = Scene::new(sim, 1);
        scene.one(async |mut client: Client| {
            let ask = client.plan("POST", 90_000, "len=3000&how=reset&as=close&early=1");
            match client.ask(&ask).await {
                Heard::Broken { how: Broken::Cut | Broken::Reset, .. } => {}
                Heard::Answer(answer) if answer.status == 502 => {}
                other => panic!("{other:?}"),
            }
        });
        scene.end();
    });
}

#[test]
fn an_early_answer_does_not_stop_the_upload() {
    seeds("an_early_answer_does_not_stop_the_upload", 200, |sim| {
        let scene = Scene::new(sim, 1);
        let how = ["length", "chunked"][sim.below(2) as usize];
        let chunk = (sim.below(2) == 0).then_some(1_000);
        scene.one(async move |mut client: Client| {
            let mut ask = client.plan("POST", 40_000, &format!("len=5000&early=1&how={how}"));
            ask.chunk = chunk;
            assert_eq!(client.ask(&ask).await.status(), Some(200));
            client.get("len=10").await;
        });
        assert_eq!(scene.backends[0].broken_off.get(), 0, "the whole upload arrived");
        scene.end();
    });
}

#[test]
fn a_backend_that_dies_unread_is_tried_elsewhere_when_safe() {
    seeds("a_backend_that_dies_unread_is_tried_elsewhere_when_safe", 200, |sim| {
        let scene = Scene::new(sim, 3);
        let to = scene.house.address;
        let how = ["drop", "die", "junk"][sim.below(3) as usize];
        scene.one(async move |mut client: Client| {
            for method in ["GET", "POST"] {
                let upload = if method == "POST" { 100 } else { 0 };
                let ask = client.plan(method, upload, &format!("how={how}"));
                let heard = client.ask(&ask).await;
                assert_eq!(heard.status(), Some(502), "{method} {how}");
                client = client.go_on(&heard, to).await;
            }
            client.get("len=10").await;
        });
        scene.end();
    });
}

#[test]
fn a_client_that_resets_calls_the_work_off() {
    seeds("a_client_that_resets_calls_the_work_off", 200, |sim| {
        let scene = Scene::new(sim, 1);
        let is_upload = sim.below(2) == 0;
        let client = scene.client(0, async move |mut client: Client| {
            let ask = match is_upload {
                true => client.plan("POST", 2_000, "how=hang"),
                false => client.plan("GET", 0, "how=hang"),
            };
            client.conn.send(&ask.bytes()).await.unwrap();
            sleep(&client.conn.io, 5 * SECOND).await;
            client.give_up(&ask);
            client.reset();
        });
        sim.finish(client, PLAY_MAX);
        let backend = &scene.backends[0];
        let outcome = sim.run_until(SECOND, || backend.broken_off.get() == 1);
        assert_eq!(outcome, Outcome::Met, "the backend still works for nobody");
        scene.end();
    });
}
