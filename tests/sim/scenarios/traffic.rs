//! Requests that nothing goes wrong with.

use balancer::io::Stream;

use super::{PLAY_MAX, Scene};
use crate::client::Client;
use crate::house::BODY_BYTES_MAX;
use crate::ledger::Heard;
use crate::peer::send_paced;
use crate::runner::seeds;

#[test]
fn gets_over_keep_alive() {
    seeds("gets_over_keep_alive", 200, |sim| {
        let scene = Scene::new(sim, 2);
        let clients = (0..3).map(|n| {
            let lengths: Vec<u64> = (0..6).map(|_| sim.below(3_000)).collect();
            scene.client(n, async move |mut client: Client| {
                for length in lengths {
                    client.get(&format!("len={length}")).await;
                }
            })
        });
        sim.finish_all(clients.collect(), PLAY_MAX);
        let dialled: u32 = scene.backends.iter().map(|b| b.accepted.get()).sum();
        assert!(dialled <= 6, "18 requests of 3 clients took {dialled} connections to 2 backends");
        scene.end();
    });
}

#[test]
fn pipelining_sixteen_deep() {
    seeds("pipelining_sixteen_deep", 200, |sim| {
        let scene = Scene::new(sim, 2);
        let clients = (0..2).map(|n| {
            scene.client(n, async move |mut client: Client| {
                let asks: Vec<_> = (0..16)
                    .map(|i| match i % 4 {
                        3 => client.plan("POST", 50 * i, "len=20"),
                        2 => client.plan("GET", 0, "len=300&how=chunked"),
                        1 => client.plan("HEAD", 0, "len=300"),
                        _ => client.plan("GET", 0, &format!("len={i}&wait={i}")),
                    })
                    .collect();
                let bytes: Vec<u8> = asks.iter().flat_map(|ask| ask.bytes()).collect();
                let (io, stream) = (client.conn.io.clone(), client.conn.stream.clone());
                let (piece, gap) = client.pace;
                let send = async {
                    send_paced(&io, &stream, &bytes, piece, gap).await.expect("all is read");
                };
                let hear = async {
                    for ask in &asks {
                        assert_eq!(client.hear(ask).await.answer().status, 200, "{}", ask.nonce);
                    }
                };
                futures_lite::future::zip(send, hear).await;
            })
        });
        sim.finish_all(clients.collect(), PLAY_MAX);
        scene.end();
    });
}

#[test]
fn bodies_both_ways_in_every_framing() {
    seeds("bodies_both_ways_in_every_framing", 100, |sim| {
        let scene = Scene::new(sim, 2);
        let sizes = [0, 1, 15, 16, 377, 4_095, 32_768, 70_000].map(|n| (sim.below(3), n));
        scene.one(async move |mut client: Client| {
            for (kind, size) in sizes {
                let how = ["length", "chunked", "interim"][kind as usize];
                let mut ask = client.plan("POST", size, &format!("len={size}&how={how}"));
                ask.chunk = (kind == 1).then_some(1 + size / 7);
                let answer = client.ask(&ask).await.answer();
                assert_eq!(answer.status, 200, "{how} {size}");
                let forwarded = if how == "interim" { vec![100, 103, 199] } else { vec![] };
                assert_eq!(answer.interim, forwarded);
            }
        });
        scene.end();
    });
}

#[test]
fn answers_without_a_body_and_without_a_length() {
    seeds("answers_without_a_body_and_without_a_length", 200, |sim| {
        let scene = Scene::new(sim, 1);
        scene.one(async |mut client: Client| {
            let head = client.plan("HEAD", 0, "len=5000");
            assert_eq!(client.ask(&head).await.status(), Some(200));
            let none = client.plan("GET", 0, "how=none");
            assert_eq!(client.ask(&none).await.status(), Some(204));
            client.get("len=5000&how=close").await;
            client.get("len=0&how=close").await;
            client.get("len=10").await;
        });
        scene.end();
    });
}

#[test]
fn a_half_closed_client_is_still_answered() {
    seeds("a_half_closed_client_is_still_answered", 200, |sim| {
        let scene = Scene::new(sim, 1);
        let upload = sim.below(2) as usize * 3_000;
        scene.one(async move |mut client: Client| {
            let ask = client.plan("POST", upload, "len=20000&wait=50");
            client.conn.send(&ask.bytes()).await.unwrap();
            client.conn.stream.finish();
            assert_eq!(client.hear(&ask).await.status(), Some(200));
            client.expect_end().await;
        });
        scene.end();
    });
}

/// RFC 9112 §9.6: a server that closes over unread input destroys its own answer on the way; so it must linger.
#[test]
fn a_refusal_reaches_a_client_that_goes_on_sending() {
    seeds("a_refusal_reaches_a_client_that_goes_on_sending", 200, |sim| {
        let scene = Scene::new(sim, 1);
        let is_too_large = sim.below(2) == 0;
        let junk_bytes = sim.below(100_000) as usize;
        scene.one(async move |mut client: Client| {
            client.conn.stream.purge_on_reset();
            let mut ask = client.plan("POST", 0, "len=1");
            let refused = match is_too_large {
                true => {
                    ask = ask.field(&format!("Content-Length: {}", BODY_BYTES_MAX + 1));
                    413
                }
                false => {
                    ask = ask.field("Content-Length: 5").field("Content-Length: 6");
                    400
                }
            };
            let bytes = [ask.bytes(), vec![b'x'; junk_bytes]].concat();
            let (io, stream) = (client.conn.io.clone(), client.conn.stream.clone());
            let send = async {
                drop(send_paced(&io, &stream, &bytes, usize::MAX, std::time::Duration::ZERO).await);
            };
            let hear = async {
                let heard = client.hear(&ask).await;
                assert_eq!(heard.status(), Some(refused), "{heard:?}");
                let Heard::Answer(answer) = heard else { unreachable!("it has a status") };
                assert!(answer.head.lists("connection", "close"));
            };
            futures_lite::future::zip(send, hear).await;
        });
        scene.end();
    });
}
