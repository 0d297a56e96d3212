//! WebSocket through the proxy: the handshake passes, then bytes flow both ways untouched.

use std::net::TcpStream;
use std::time::Duration;

use tungstenite::{Message, WebSocket};

use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::noise;
use crate::support::origin::Origin;
use crate::support::wait;

fn dial(balancer: &Balancer) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(balancer.address()).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let url = format!("ws://{}/ws", balancer.address());
    tungstenite::client(url, stream).expect("a handshake through the proxy").0
}

#[test]
fn a_websocket_echoes_through_the_proxy() {
    let origin = Origin::start("a");
    let balancer = Balancer::before(&[(&origin, 50)], &[]);
    let mut socket = dial(&balancer);
    for length in [0_u64, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        let payload = noise::body(length, length);
        socket.send(Message::binary(payload.clone())).expect("sent");
        assert!(socket.read().expect("an echo").into_data() == payload, "{length}");
    }
    socket.send(Message::text("grüß dich")).expect("sent");
    assert_eq!(socket.read().expect("an echo").into_text().expect("text").as_str(), "grüß dich");
    let sent = origin.seen().pop().expect("the handshake");
    let field = |name: &str| {
        sent.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    };
    assert_eq!(field("upgrade"), Some("websocket"));
    socket.close(None).expect("a close frame");
    while socket.read().is_ok() {}
    wait::until("the tunnel's upstream ends", Duration::from_secs(5), || {
        origin.open_connections() == 0
    });
}

#[test]
fn tunnels_run_side_by_side_with_requests() {
    let origin = Origin::start("a");
    let balancer = Balancer::before(&[(&origin, 50)], &[]);
    let mut sockets: Vec<_> = (0..20).map(|_| dial(&balancer)).collect();
    let mut client = Client::connect(balancer.address());
    for round in 0..5_u64 {
        for (number, socket) in sockets.iter_mut().enumerate() {
            socket.send(Message::text(format!("{round} {number}"))).expect("sent");
        }
        assert_eq!(client.get("/bytes/100").status(), 200);
        for (number, socket) in sockets.iter_mut().enumerate() {
            let echo = socket.read().expect("an echo").into_text().expect("text");
            assert_eq!(echo.as_str(), format!("{round} {number}"));
        }
    }
}

#[test]
fn a_tunnel_outlives_the_request_timeout_and_ends_with_its_own() {
    let origin = Origin::start("a");
    let flags =
        ["--request-timeout", "100ms", "--idle-timeout", "100ms", "--tunnel-timeout", "700ms"];
    let balancer = Balancer::before(&[(&origin, 50)], &flags);
    let mut socket = dial(&balancer);
    let is_cut = || origin.open_connections() == 0;
    assert!(
        !wait::happens(Duration::from_millis(400), is_cut),
        "a quiet tunnel is cut by a request's timeout"
    );
    socket.send(Message::text("still there")).expect("sent");
    assert_eq!(socket.read().expect("an echo").into_text().expect("text").as_str(), "still there");
    wait::until("the quiet tunnel ends", Duration::from_secs(10), is_cut);
    assert!(socket.read().is_err());
}

#[test]
fn other_upgrades_are_dropped_and_the_request_goes_on() {
    let origin = Origin::start("a");
    let balancer = Balancer::before(&[(&origin, 50)], &[]);
    let fields =
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let answer =
        Client::connect(balancer.address()).ask("GET", "/plain", fields, b"").expect("an answer");
    assert_eq!(answer.status(), 200);
    let text = answer.text().to_ascii_lowercase();
    assert!(!text.contains("upgrade") && !text.contains("http2-settings"), "{text}");
}
