//! The agent link, byte by byte.

use proptest::prelude::*;
use tungstenite::handshake::derive_accept_key;

use super::*;

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const CONTINUATION: u8 = 0x0;

fn at(ms: u64) -> Instant {
    Instant::from_ns(ms * 1_000_000)
}

fn config() -> AgentConfig {
    AgentConfig {
        host: "agent".into(),
        port: 4000,
        path: "/ws".into(),
        backoff_min: Duration::from_secs(1),
        backoff_max: Duration::from_secs(60),
    }
}

fn head(link: &Link, accept: Option<&str>) -> Vec<u8> {
    let request = String::from_utf8(link.output().to_vec()).unwrap();
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = accept.map_or_else(|| derive_accept_key(key.as_bytes()), str::to_owned);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// A frame as a server sends it: unmasked.
fn frame(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![opcode | if is_final { 0x80 } else { 0 }];
    match payload.len() {
        n @ 0..=125 => bytes.push(n as u8),
        n @ 126..=65535 => {
            bytes.push(126);
            bytes.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            bytes.push(127);
            bytes.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
    bytes
}

fn events(link: &mut Link) -> Vec<Event> {
    std::iter::from_fn(|| link.poll_event()).collect()
}

fn feed(link: &mut Link, bytes: &[u8], ms: u64) -> Vec<Event> {
    link.receive(bytes, at(ms));
    events(link)
}

fn drain(link: &mut Link, ms: u64) {
    link.sent(link.output().len(), at(ms));
}

fn open() -> Link {
    let mut link = Link::new(&config(), at(0));
    let head = head(&link, None);
    drain(&mut link, 0);
    assert_eq!(feed(&mut link, &head, 0), [Event::Connected]);
    link
}

/// Opcode and unmasked payload of each frame in the outbox.
fn sent_frames(link: &Link) -> Vec<(u8, Vec<u8>)> {
    let mut rest = link.output();
    let mut frames = Vec::new();
    while let [first, second, tail @ ..] = rest {
        assert_eq!(second & 0x80, 0x80, "a client masks (RFC 6455 §5.3)");
        let (mask, tail) = tail.split_at(4);
        let (payload, tail) = tail.split_at(usize::from(second & 0x7f));
        let unmasked = payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect();
        frames.push((first & 0x0f, unmasked));
        rest = tail;
    }
    frames
}

fn close_code(link: &Link) -> Option<u16> {
    match sent_frames(link).last() {
        Some((CLOSE, payload)) => Some(u16::from_be_bytes([payload[0], payload[1]])),
        _ => None,
    }
}

#[test]
fn the_request_names_the_resource() {
    let link = Link::new(&AgentConfig { host: "::1".into(), ..config() }, at(0));
    let request = String::from_utf8(link.output().to_vec()).unwrap();
    assert!(request.starts_with("GET /ws HTTP/1.1\r\nHost: [::1]:4000\r\n"), "{request}");
    let mut link = Link::new(&AgentConfig { path: "/a b".into(), ..config() }, at(0));
    assert!(matches!(&events(&mut link)[..], [Event::Closed(LinkError::BadHandshake(_))]));
}

/// A whole session after the handshake, and the events it makes.
fn session() -> (Vec<u8>, Vec<Event>) {
    let bytes = [
        frame(TEXT, true, "[\"ä\"]".as_bytes()),
        frame(TEXT, false, &"é".as_bytes()[..1]),
        frame(PING, true, b"between"),
        frame(CONTINUATION, false, &"é".as_bytes()[1..]),
        frame(CONTINUATION, true, b"]"),
        frame(BINARY, true, &[7; 300]),
        frame(PONG, true, b""),
        frame(TEXT, true, b""),
        frame(CLOSE, true, &[0x03, 0xE9, b'b', b'y', b'e']),
    ]
    .concat();
    let text = |s: &str| Event::Frame(s.to_owned());
    let closed = Event::Closed(LinkError::ClosedByAgent(1001));
    let events =
        vec![Event::Connected, text("[\"ä\"]"), text("é]"), Event::Ignored, text(""), closed];
    (bytes, events)
}

#[test]
fn a_session_is_the_same_wherever_it_is_torn() {
    let (rest, expected) = session();
    let length = 129 + rest.len();
    for split in 0..=length {
        let mut link = Link::new(&config(), at(0));
        let bytes = [head(&link, None), rest.clone()].concat();
        assert_eq!(bytes.len(), length);
        drain(&mut link, 0);
        let mut seen = feed(&mut link, &bytes[..split], 0);
        seen.extend(feed(&mut link, &bytes[split..], 0));
        assert_eq!(seen, expected, "split at {split}");
        let replies = sent_frames(&link);
        assert_eq!(replies[0], (PONG, b"between".to_vec()));
        assert_eq!(close_code(&link), Some(1001));
    }
    let mut link = Link::new(&config(), at(0));
    let bytes = [head(&link, None), rest].concat();
    drain(&mut link, 0);
    let seen: Vec<Event> = bytes.iter().flat_map(|&b| feed(&mut link, &[b], 0)).collect();
    assert_eq!(seen, expected, "byte by byte");
}

#[test]
fn a_megabyte_is_the_limit() {
    let most = vec![b' '; FRAME_BYTES_MAX];
    let mut link = open();
    assert_eq!(feed(&mut link, &frame(TEXT, true, &most), 0).len(), 1);
    // The announced length alone is enough to close.
    let over = frame(TEXT, true, &[&most[..], b" "].concat());
    assert_eq!(feed(&mut link, &over[..10], 0), [Event::Closed(LinkError::TooLarge)]);
    assert_eq!(close_code(&link), Some(1009));

    let mut link = open();
    assert_eq!(feed(&mut link, &frame(TEXT, false, &most), 0), []);
    let more = frame(CONTINUATION, true, b" ");
    assert_eq!(feed(&mut link, &more, 0), [Event::Closed(LinkError::TooLarge)]);
    assert_eq!(close_code(&link), Some(1009));
}

#[test]
fn violations_close_with_their_code() {
    let masked = [0x81, 0x80, 1, 2, 3, 4];
    let table: [(&[u8], u16, &str); 10] = [
        (&frame(TEXT, true, b"\xff"), 1007, "not_utf8"),
        (&frame(TEXT, true, b"\xed\xa0\x80"), 1007, "not_utf8"),
        (&frame(TEXT, true, b"\xc3"), 1007, "not_utf8"),
        (
            &[frame(TEXT, false, b"\xc3"), frame(CONTINUATION, true, b"a")].concat(),
            1007,
            "not_utf8",
        ),
        (&masked, 1002, "bad_protocol"),
        (&frame(CONTINUATION, true, b"a"), 1002, "bad_protocol"),
        (&frame(0x3, true, b"a"), 1002, "bad_protocol"),
        (&frame(TEXT | 0x40, true, b"compressed"), 1002, "bad_protocol"),
        (&frame(PING, false, b""), 1002, "bad_protocol"),
        (&frame(PING, true, &[0; 126]), 1002, "bad_protocol"),
    ];
    for (bytes, code, label) in table {
        let mut link = open();
        match &feed(&mut link, bytes, 0)[..] {
            [Event::Closed(error)] => assert_eq!(error.label(), label, "{bytes:x?}"),
            other => panic!("{bytes:x?}: {other:?}"),
        }
        assert_eq!(close_code(&link), Some(code), "{bytes:x?}");
        assert_eq!(feed(&mut link, &frame(TEXT, true, b"[]"), 0), [], "deaf after its end");
        assert_eq!(link.next_deadline(), None);
    }
}

#[test]
fn handshakes_that_fail() {
    let answer = |bytes: &[u8]| -> Vec<Event> { feed(&mut Link::new(&config(), at(0)), bytes, 0) };
    let refused = |status| [Event::Closed(LinkError::Refused(status))];
    assert_eq!(answer(b"HTTP/1.1 404 Not Found\r\n\r\n"), refused(404));
    assert_eq!(answer(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"), refused(302));
    let wrong_key = head(&Link::new(&config(), at(0)), Some("c2VjcmV0"));
    let endless = vec![b'a'; HEAD_BYTES_MAX + 1];
    let many = format!("HTTP/1.1 101 X\r\n{}\r\n", "A: b\r\n".repeat(2000));
    for bytes in [
        &wrong_key[..],
        &endless,
        b"\r\n\r\n",
        b"SSH-2.0\r\n\r\n",
        &b"\0".repeat(20_000),
        many.as_bytes(),
    ] {
        match &answer(bytes)[..] {
            [Event::Closed(LinkError::BadHandshake(_))] => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_handshake_has_five_seconds_however_it_drips() {
    let mut link = Link::new(&config(), at(1000));
    assert_eq!(link.next_deadline(), Some(at(6000)));
    let head = head(&link, None);
    drain(&mut link, 1000);
    for (n, byte) in head[..40].iter().enumerate() {
        assert_eq!(feed(&mut link, &[*byte], 1000 + n as u64 * 100), []);
    }
    link.handle_timeout(at(5999));
    assert_eq!(events(&mut link), []);
    link.handle_timeout(at(6000));
    assert_eq!(events(&mut link), [Event::Closed(LinkError::HandshakeTimeout)]);
}

/// Runs the link's own deadlines until `until_ms`, its output being read, and returns when and how it closed.
fn run_until(link: &mut Link, until_ms: u64) -> Option<(u64, LinkError)> {
    while let Some(due) = link.next_deadline().filter(|&due| due <= at(until_ms)) {
        link.handle_timeout(due);
        drain(link, due.as_ns() / 1_000_000);
        if let Some(Event::Closed(error)) = link.poll_event() {
            return Some((due.as_ns() / 1_000_000, error));
        }
    }
    None
}

#[test]
fn it_pings_every_five_seconds_and_buries_the_silent_after_fifteen() {
    let mut link = open();
    assert_eq!(link.next_deadline(), Some(at(5000)));
    link.handle_timeout(at(5000));
    assert_eq!(sent_frames(&link), [(PING, vec![])]);
    drain(&mut link, 5000);
    assert_eq!(link.next_deadline(), Some(at(10_000)));
    assert_eq!(run_until(&mut link, 60_000), Some((15_000, LinkError::Silent)));
}

#[test]
fn frames_and_pongs_are_signs_of_life_and_drips_are_none() {
    for sign in [frame(PONG, true, b""), frame(TEXT, true, b"[]"), frame(BINARY, true, b"")] {
        let mut link = open();
        for s in 1..10 {
            assert_eq!(run_until(&mut link, s * 14_000), None);
            feed(&mut link, &sign, s * 14_000);
        }
        let buried = run_until(&mut link, 1_000_000);
        assert_eq!(buried, Some((9 * 14_000 + 15_000, LinkError::Silent)));
    }
    // A message that never ends, a byte or a fragment at a time.
    for drip in [vec![b'a'], frame(CONTINUATION, false, b"")] {
        let mut link = open();
        let begun =
            if drip.len() == 1 { frame(TEXT, true, &[b'a'; 125]) } else { frame(TEXT, false, b"") };
        feed(&mut link, &begun[..2], 0);
        let buried = (1..60).find_map(|s| {
            feed(&mut link, &drip, s * 1000);
            run_until(&mut link, s * 1000)
        });
        assert_eq!(buried, Some((15_000, LinkError::Silent)));
    }
}

#[test]
fn a_ping_flood_that_is_never_read_is_bounded_and_ends() {
    let mut link = open();
    let flood = frame(PING, true, &[b'p'; 125]).repeat(1000);
    let mut closed = None;
    for ms in (0..20_000).step_by(100) {
        assert_eq!(feed(&mut link, &flood, ms), []);
        assert!(link.output().len() <= OUTBOX_BYTES + 256, "{}", link.output().len());
        link.handle_timeout(at(ms));
        if let Some(Event::Closed(error)) = link.poll_event() {
            closed = Some((ms, error));
            break;
        }
    }
    assert_eq!(closed, Some((15_000, LinkError::Unread)));
}

#[test]
fn a_ping_flood_that_is_read_is_answered_and_lived_through() {
    let mut link = open();
    feed(&mut link, &frame(PING, true, &[b'p'; 125]).repeat(1000), 0);
    feed(&mut link, &frame(PING, true, b"last"), 0);
    let mut replies = Vec::new();
    while !link.output().is_empty() {
        replies.extend(sent_frames(&link));
        drain(&mut link, 1);
    }
    // Those that found no room merged into the last, which is the one that matters (RFC 6455 §5.5.3).
    assert_eq!(replies.last(), Some(&(PONG, b"last".to_vec())));
    assert!(replies.len() < 200, "{}", replies.len());
    assert_eq!(feed(&mut link, &frame(TEXT, true, b"[]"), 3), [Event::Frame("[]".into())]);
    assert_eq!(link.stalled, None);
}

#[test]
fn ends_without_a_goodbye() {
    let mut link = open();
    link.receive_end(Ok(()), at(1));
    assert_eq!(events(&mut link), [Event::Closed(LinkError::Ended)]);
    let mut link = Link::new(&config(), at(0));
    link.receive_end(Err(io::ErrorKind::ConnectionReset.into()), at(1));
    let broken = LinkError::Broken(io::ErrorKind::ConnectionReset);
    assert_eq!(events(&mut link), [Event::Closed(broken)]);
    assert_eq!(events(&mut link), []);
    // A goodbye without a code.
    let mut link = open();
    let closed = Event::Closed(LinkError::ClosedByAgent(1005));
    assert_eq!(feed(&mut link, &frame(CLOSE, true, b""), 0), [closed]);
}

proptest! {
    #[test]
    fn any_bytes_are_survived_within_bounds(
        chunks in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            Just(frame(PING, true, &[1; 125]).repeat(200)),
            Just(frame(TEXT, false, &[b'x'; 70_000])),
            Just(frame(CONTINUATION, false, &[b'x'; 70_000])),
            Just(frame(TEXT, true, b"[]")),
            Just(frame(CLOSE, true, b"\x03")),
        ], 0..40),
        is_open: bool,
    ) {
        let mut link = if is_open { open() } else { Link::new(&config(), at(0)) };
        let mut closed = 0;
        for chunk in &chunks {
            for event in feed(&mut link, chunk, 0) {
                prop_assert_eq!(closed, 0, "nothing after the end");
                closed += usize::from(matches!(event, Event::Closed(_)));
            }
            prop_assert!(link.output().len() <= OUTBOX_BYTES + 256);
            let held = link.pipe().input.len() + match &link.stage {
                Stage::Handshaking { head, .. } => head.len(),
                _ => 0,
            };
            prop_assert!(held <= HEAD_BYTES_MAX + chunk.len(), "{held}");
        }
    }
}
