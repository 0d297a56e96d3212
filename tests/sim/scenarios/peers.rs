//! What the cores tell each other of the backends' load.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use balancer::balance::Pace;
use balancer::io::Io;

use super::{PLAY_MAX, SECOND, Scene};
use crate::client::Client;
use crate::exec::Handle;
use crate::peer::sleep;
use crate::runner::seeds;
use crate::weather::Weather;

#[test]
fn a_pick_knows_what_the_other_cores_have_in_flight() {
    seeds("a_pick_knows_what_the_other_cores_have_in_flight", 50, |sim| {
        let scene = Scene::new(sim, 2);
        let is_beating = Rc::new(Cell::new(true));
        let peer = beat(&scene, is_beating.clone());
        scene.house.peer.store_in_flight([(0, 50)].into_iter());
        // The first request of a core at rest knows nothing of the others; the tick that it starts does.
        let client = gets(&scene, None, 1);
        let before = scene.ledger.count_at("b1");
        let client = gets(&scene, Some(client), 30);
        assert_eq!(scene.ledger.count_at("b1"), before, "a busy backend was asked");
        // The other core finishes its requests.
        scene.house.peer.store_in_flight([].into_iter());
        let client = gets(&scene, Some(client), 1);
        let before = scene.ledger.count_at("b1");
        drop(gets(&scene, Some(client), 30));
        assert!(scene.ledger.count_at("b1") > before, "what was said is believed for ever");
        is_beating.set(false);
        sim.finish(peer, PLAY_MAX);
        scene.end();
    });
}

#[test]
fn a_core_that_hangs_is_not_believed_for_ever() {
    seeds("a_core_that_hangs_is_not_believed_for_ever", 50, |sim| {
        let scene = Scene::new(sim, 2);
        scene.house.peer.store_in_flight([(0, 50)].into_iter());
        scene.house.peer.store_beat(sim.now().as_ns());
        sim.run_for(SECOND);
        let client = gets(&scene, None, 1);
        let before = scene.ledger.count_at("b1");
        drop(gets(&scene, Some(client), 30));
        assert!(scene.ledger.count_at("b1") > before, "the load of a core that hangs is pinned");
        scene.end();
    });
}

#[test]
fn a_backend_takes_as_long_as_it_takes_whatever_its_clients_do() {
    seeds("a_backend_takes_as_long_as_it_takes_whatever_its_clients_do", 20, |sim| {
        sim.with_weather(|weather| *weather = Weather::calm());
        let scene = Scene::new(sim, 1);
        for (number, wait_ms) in [(0, 30), (1, 120)] {
            let client = scene.client(number, async move |mut client: Client| {
                client.get(&format!("len=10&wait={wait_ms}")).await;
                client.pace = (200, Duration::from_millis(100));
                let ask = client.plan("POST", 3_000, &format!("len=10&wait={wait_ms}"));
                assert_eq!(client.ask(&ask).await.answer().status, 200);
                sleep(&client.conn.io, Duration::from_millis(20)).await;
            });
            sim.finish(client, PLAY_MAX);
            let mut seen_ms = None;
            scene.house.published.read_paces(|_, bits| {
                seen_ms = Pace::unpack(bits).mean().map(|log| log.exp2() / 1e6);
            });
            let seen_ms = seen_ms.expect("a pace is published");
            let wait_ms = wait_ms as f32;
            assert!((wait_ms..wait_ms * 1.2).contains(&seen_ms), "{seen_ms} of {wait_ms} ms");
            sim.run_for(10 * SECOND);
        }
        scene.end();
    });
}

/// `n` requests one after the other, and then more than a tick.
fn gets(scene: &Scene<'_>, client: Option<Client>, n: u32) -> Client {
    let script = async move |mut client: Client| {
        for _ in 0..n {
            client.get("len=10").await;
        }
        sleep(&client.conn.io, Duration::from_millis(30)).await;
        client
    };
    match client {
        None => scene.one(script),
        Some(client) => {
            let more = scene.sim.start(&scene.crowd, "more", async move { script(client).await });
            scene.sim.finish(more, PLAY_MAX)
        }
    }
}

/// The heart of the other core, as long as the flag stands.
fn beat(scene: &Scene<'_>, is_beating: Rc<Cell<bool>>) -> Handle<()> {
    let (io, peer) = (scene.crowd.clone(), scene.house.peer.clone());
    scene.sim.start(&scene.crowd, "peer", async move {
        while is_beating.get() {
            peer.store_beat(io.now().as_ns());
            sleep(&io, Duration::from_millis(10)).await;
        }
    })
}
