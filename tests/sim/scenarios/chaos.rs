//! Everything at once, in no order anybody thought of. Faults come and heal; then all must end, and nothing be wrong.

use std::time::Duration;

use balancer::balance::Category;
use balancer::io::Io;

use super::{PLAY_MAX, SECOND, Scene};
use crate::client::Client;
use crate::kernel::Route;
use crate::peer::sleep;
use crate::runner::seeds;

/// A request out of the seed's mood.
fn any_wish(draw: u64) -> (&'static str, usize, String) {
    let hows = [
        "length", "length", "chunked", "close", "none", "interim", "reset", "cut", "drop", "die",
        "junk",
    ];
    let how = hows[(draw % hows.len() as u64) as usize];
    let framing = ["length", "chunked"][(draw >> 8) as usize % 2];
    let then = ["keep", "keep", "keep", "fin", "idle", "trap"][(draw >> 16) as usize % 6];
    // A close-delimited answer beside an unread upload ends in a reset: `faults` has a scenario of its own for it.
    let early = u64::from(how != "close" && (draw >> 24).is_multiple_of(4));
    let (wait, length) = ((draw >> 28) % 50, (draw >> 36) % 9_000);
    let (method, upload) = match (draw >> 50) % 5 {
        0 => ("POST", (draw >> 53) as usize * 7 % 30_000),
        1 => ("PUT", (draw >> 53) as usize % 2_000),
        2 => ("HEAD", 0),
        _ => ("GET", 0),
    };
    let wish = format!("len={length}&how={how}&as={framing}&then={then}&early={early}&wait={wait}");
    (method, upload, wish)
}

async fn restless(mut client: Client, to: std::net::SocketAddr) {
    let io = client.conn.io.clone();
    for _ in 0..12 {
        let draw = io.draw();
        let (method, upload, wish) = any_wish(draw);
        let mut ask = client.plan(method, upload, &wish);
        ask.chunk = (upload > 0 && draw.is_multiple_of(3)).then_some(1 + upload / 3);
        if draw.is_multiple_of(11) {
            // Leaves in the middle, one way or the other.
            let bytes = ask.bytes();
            let part = (io.draw() % (bytes.len() as u64 + 1)) as usize;
            drop(client.conn.send(&bytes[..part]).await);
            sleep(&io, Duration::from_micros(io.draw() % 50_000)).await;
            client.give_up(&ask);
            if draw.is_multiple_of(2) {
                client.conn.stream.cut();
            }
            client = client.reopen(to).await;
            continue;
        }
        let heard = client.ask(&ask).await;
        client = client.go_on(&heard, to).await;
    }
}

#[test]
fn after_any_faults_all_work_ends_and_nothing_is_mixed_up() {
    seeds("after_any_faults_all_work_ends_and_nothing_is_mixed_up", 150, |sim| {
        let scene = Scene::new(sim, 2);
        let to = scene.house.address;
        let clients: Vec<_> = (0..4)
            .map(|n| scene.client(n, async move |client| restless(client, to).await))
            .collect();
        for _ in 0..6 {
            sim.run_for(Duration::from_millis(20 + sim.below(400)));
            let routes = [Route::Open, Route::Open, Route::Refuse, Route::BlackHole];
            let categories = [Category::Low, Category::High, Category::Sundown];
            let mut members = Vec::new();
            for backend in &scene.backends {
                sim.route(backend.address, routes[sim.below(4) as usize]);
                // One that the agent dropped stays listed as draining (`balance::Snapshot`).
                members.push((backend, sim.below(101) as f64, categories[sim.below(3) as usize]));
            }
            scene.house.tell(&members);
        }
        for backend in &scene.backends {
            sim.route(backend.address, Route::Open);
        }
        scene.house.tell_all(&scene.backends.iter().collect::<Vec<_>>());
        sim.finish_all(clients, PLAY_MAX);
        sim.run_for(60 * SECOND);
        let calm = scene.client(99, async |mut client: Client| drop(client.get("len=100").await));
        sim.finish(calm, 60 * SECOND);
        scene.end();
    });
}
