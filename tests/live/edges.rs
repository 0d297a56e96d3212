//! Where one side stops and the other goes on, byte by byte: a backend of plain sockets behind the real binary.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::wait;
use crate::support::wire::{Break, Framing};

/// A listener and a balancer with nobody else behind it.
fn chain(flags: &[&str]) -> (TcpListener, Balancer) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a listener that does not block");
    let authority = listener.local_addr().expect("an address").to_string();
    let balancer = Balancer::run(&[&["--backend", &authority], flags].concat());
    (listener, balancer)
}

/// The next connection of the balancer that brings a request, with ten seconds of patience.
fn accept(listener: &TcpListener) -> TcpStream {
    wait::value("the balancer connects", PATIENCE, || request(listener))
}

/// A connection that brings a request, if one waits. One that just ends was a look whether we live.
fn request(listener: &TcpListener) -> Option<TcpStream> {
    loop {
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(false).expect("a stream that blocks");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        if stream.peek(&mut [0]).expect("a byte or the end") > 0 {
            return Some(stream);
        }
    }
}

/// Reads until `end` has come.
fn read_to(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !seen.windows(end.len()).any(|window| window == end) {
        let n = stream.read(&mut buffer).expect("more bytes");
        assert!(n > 0, "ended after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..n]);
    }
    seen
}

/// The close of `stream` is a reset.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

const PATIENCE: Duration = Duration::from_secs(10);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

#[test]
fn a_reset_that_the_upload_meets_first_still_cuts_the_answer() {
    // The kernel tells an error once. The upload is blocked, so it meets the reset before the answer does.
    let (listener, balancer) = chain(&[]);
    let mut client = Client::connect(balancer.address());
    client
        .send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 900000000\r\n\r\n")
        .expect("sent");
    let mut backend = accept(&listener);
    read_to(&mut backend, b"\r\n\r\n");
    client.set_write_patience(Duration::from_millis(300));
    while client.send(&[b'x'; 65536]).is_ok() {}
    backend.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").expect("written");
    let (_, head, framing) = client.response_head("POST").expect("an early head");
    assert_eq!((head.status(), framing), (200, Framing::Chunked));
    reset(backend);
    let ending = client.body(framing, |_| {});
    assert!(matches!(ending, Err(Break::Truncated | Break::Reset)), "{ending:?}");
}

#[test]
fn a_request_is_not_repeated_once_a_byte_of_an_answer_came() {
    for begun in ["H", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nX Y: 1\r\n\r\n"] {
        let (listener, balancer) = chain(&[]);
        let mut client = Client::connect(balancer.address());
        client.send(GET).expect("sent");
        let mut backend = accept(&listener);
        read_to(&mut backend, b"\r\n\r\n");
        backend.write_all(begun.as_bytes()).expect("written");
        drop(backend);
        assert_eq!(
            client.response("GET").expect("an answer of our own").status(),
            502,
            "{begun:?}"
        );
        assert!(request(&listener).is_none(), "{begun:?} was followed by a second try");
    }
}

#[test]
fn an_answer_survives_a_body_that_is_still_being_sent() {
    let (_listener, balancer) = chain(&["--max-body", "10"]);
    let post = "POST / HTTP/1.1\r\nHost: test\r\n";
    for (status, head) in [
        (413, format!("{post}Content-Length: 100000\r\n\r\n")),
        (400, format!("{post}Content-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n")),
        (417, format!("{post}Expect: tea\r\nContent-Length: 9\r\n\r\n")),
        (400, "GET / HTTP/1.1\nHo".to_owned()),
    ] {
        let mut client = Client::connect(balancer.address());
        client.send(head.as_bytes()).expect("sent");
        // We stopped reading after the head; what comes now must not cost the client its answer.
        assert_eq!(client.any_head().expect("a head").status(), status);
        for _ in 0..20 {
            client.send(&[b'x'; 1000]).expect("the connection is still open");
        }
        client.finish();
        // A reset would come before the body is read.
        let mut rest = Vec::new();
        client
            .body(Framing::UntilClose, |piece| rest.extend_from_slice(piece))
            .expect("an orderly end");
        assert!(!rest.is_empty());
    }
}

#[test]
fn junk_and_a_half_close_behind_a_bad_request_do_not_cost_the_answer() {
    let (_listener, balancer) = chain(&[]);
    for _ in 0..20 {
        let mut client = Client::connect(balancer.address());
        let junk = [b"GET / HTTP/1.1\r\nX : 1\r\n\r\n".to_vec(), vec![b'x'; 100_000]].concat();
        client.send(&junk).expect("sent");
        client.finish();
        assert_eq!(client.response("GET").expect("an answer").status(), 400);
        client.end().expect("an orderly end");
    }
}

#[test]
fn a_chunked_body_over_the_limit_never_reaches_a_backend_whole() {
    let (listener, balancer) = chain(&["--max-body", "10"]);
    for body in
        ["b\r\nhello world\r\n0\r\n\r\n", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "fffffff\r\n"]
    {
        let mut client = Client::connect(balancer.address());
        let head = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}{body}").as_bytes()).expect("sent");
        assert_eq!(client.response("POST").expect("an answer").status(), 413, "{body:?}");
    }
    let mut seen = Vec::new();
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nonblocking(true).expect("a stream that does not block");
        // An open connection ends in WouldBlock; what came before is what counts.
        let _ = stream.read_to_end(&mut seen);
    }
    let seen = String::from_utf8_lossy(&seen);
    assert!(!seen.contains("0\r\n\r\n"), "{seen:?}");
}

#[test]
fn an_old_client_that_falls_silent_is_not_given_an_orderly_end() {
    // Only the close marks the end of what a 1.0 client reads: it must be a reset when the answer is not whole.
    let (listener, balancer) = chain(&["--body-timeout", "300ms"]);
    let mut client = Client::connect(balancer.address());
    client.send(b"POST / HTTP/1.0\r\nHost: test\r\nContent-Length: 9\r\n\r\nhal").expect("sent");
    let mut backend = accept(&listener);
    read_to(&mut backend, b"hal");
    backend.write_all(b"HTTP/1.1 200 OK\r\n\r\nthe first half").expect("written");
    let (_, _, framing) = client.response_head("POST").expect("an early head");
    assert_eq!(framing, Framing::UntilClose);
    let ending = client.body(framing, |_| {});
    assert!(matches!(ending, Err(Break::Reset)), "{ending:?}");
}

/// More than half of 3 s, more than the whole of 1.5 s, each with a second to spare on a busy machine.
fn most_of_a_timeout() {
    assert!(!wait::happens(Duration::from_millis(1_700), || false));
}

#[test]
fn each_clock_runs_only_while_its_side_is_waited_for() {
    let (listener, balancer) = chain(&["--request-timeout", "3s", "--body-timeout", "3s"]);
    // The body's first byte may take as long as the head did.
    let mut client = Client::connect(balancer.address());
    client.send(GET).expect("sent");
    let mut backend = accept(&listener);
    read_to(&mut backend, b"\r\n\r\n");
    most_of_a_timeout();
    backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").expect("written");
    most_of_a_timeout();
    backend.write_all(b"hello").expect("written");
    assert_eq!(client.response("GET").expect("whole").text(), "hello");
    // The request's first byte came late, the answer's clock begins with its last.
    client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\na").expect("sent");
    read_to(&mut backend, b"\r\n\r\na");
    most_of_a_timeout();
    client.send(b"bc").expect("sent");
    read_to(&mut backend, b"bc");
    most_of_a_timeout();
    backend.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("written");
    assert_eq!(client.response("POST").expect("whole").status(), 204);
}

#[test]
fn a_client_that_waits_for_100_is_not_the_silent_one() {
    let (listener, balancer) = chain(&["--request-timeout", "9s", "--body-timeout", "1500ms"]);
    let mut client = Client::connect(balancer.address());
    client
        .send(b"PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .expect("sent");
    let mut backend = accept(&listener);
    read_to(&mut backend, b"\r\n\r\n");
    most_of_a_timeout();
    backend.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("written");
    assert_eq!(client.any_head().expect("an interim head").status(), 100);
    client.send(b"hello").expect("sent");
    read_to(&mut backend, b"hello");
    backend.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("written");
    assert_eq!(client.response("PUT").expect("an answer").status(), 204);
    // Once told to go on it is.
    client
        .send(b"PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .expect("sent");
    read_to(&mut backend, b"\r\n\r\n");
    backend.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("written");
    assert_eq!(client.response("PUT").expect("an answer").status(), 408);
}

#[test]
fn a_backend_held_up_by_a_slow_upload_has_its_whole_timeout() {
    // While the backend does not read, the client is not waited for; when it reads on, the client's time begins.
    let (listener, balancer) = chain(&["--request-timeout", "9s", "--body-timeout", "1500ms"]);
    let mut client = Client::connect(balancer.address());
    client
        .send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 900000000\r\n\r\n")
        .expect("sent");
    let mut backend = accept(&listener);
    client.set_write_patience(Duration::from_millis(300));
    while client.send(&[b'x'; 65536]).is_ok() {}
    most_of_a_timeout();
    backend.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("written");
    assert_eq!(client.any_head().expect("still there").status(), 100);
}

#[test]
fn a_final_answer_instead_of_100_ends_the_matter() {
    let (listener, balancer) = chain(&[]);
    let mut client = Client::connect(balancer.address());
    client
        .send(b"PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .expect("sent");
    let mut backend = accept(&listener);
    read_to(&mut backend, b"\r\n\r\n");
    backend.write_all(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n").expect("written");
    let answer = client.response("PUT").expect("an answer");
    // Whether the body follows is now up to the client; nobody has to guess what its next bytes are.
    assert!(answer.head.lists("connection", "close"), "{:?}", answer.head);
    client.set_patience(Duration::from_secs(3));
    client.end().expect("an end, sooner than the body's timeout");
    assert_eq!(backend.read(&mut [0]).expect("the end"), 0, "half a request is on this connection");
}

#[test]
fn an_upload_goes_on_after_an_early_answer_that_announces_the_close() {
    let (listener, balancer) = chain(&[]);
    let mut client = Client::connect(balancer.address());
    client.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello").expect("sent");
    let mut backend = accept(&listener);
    read_to(&mut backend, b"hello");
    let early = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nearly";
    backend.write_all(early).expect("written");
    let answer = client.response("POST").expect("before the upload's end");
    assert!(answer.head.lists("connection", "close"), "{:?}", answer.head);
    client.send(b"world").expect("the upload goes on");
    read_to(&mut backend, b"world");
    client.end().expect("then the end");
}

#[test]
fn an_upload_ends_when_the_backend_has_ended_after_its_early_answer() {
    for close in ["", "Connection: close\r\n"] {
        let (listener, balancer) = chain(&[]);
        let mut client = Client::connect(balancer.address());
        client
            .send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhello")
            .expect("sent");
        let mut backend = accept(&listener);
        read_to(&mut backend, b"hello");
        let early = format!("HTTP/1.1 200 OK\r\n{close}Content-Length: 5\r\n\r\nearly");
        backend.write_all(early.as_bytes()).expect("written");
        assert_eq!(client.response("POST").expect("an answer").text(), "early");
        backend.shutdown(Shutdown::Write).expect("a half-close");
        client.set_patience(Duration::from_secs(3));
        client.end().expect("nobody is left to take the rest");
    }
}

#[test]
fn an_empty_line_before_a_request_may_come_in_two_pieces() {
    let (_listener, balancer) = chain(&["--idle-timeout", "5s"]);
    let mut client = Client::connect(balancer.address());
    for piece in ["\r", "\n", "OPTIONS * HTTP/1.1\r\nHost: test\r\nMax-Forwards: 0\r\n\r\n"] {
        client.send(piece.as_bytes()).expect("sent");
        assert!(!wait::happens(Duration::from_millis(100), || false));
    }
    assert_eq!(client.response("OPTIONS").expect("an answer").status(), 200);
}

#[test]
fn an_interim_answer_with_a_body_poisons_the_connection_for_good() {
    let (listener, balancer) = chain(&[]);
    let mut client = Client::connect(balancer.address());
    client.send(GET).expect("sent");
    let mut backend = accept(&listener);
    read_to(&mut backend, b"\r\n\r\n");
    backend
        .write_all(
            b"HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n\
              HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        )
        .expect("written");
    assert_eq!(client.response("GET").expect("an answer").status(), 200);
    assert_eq!(backend.read(&mut [0]).expect("the end"), 0, "it said that it would close");
}

#[test]
fn the_only_backend_is_asked_again_on_a_fresh_connection() {
    let core = crate::support::balancer::allowed_cores()[0].to_string();
    let (listener, balancer) = chain(&["--cores", &core, "--control-core", &core]);
    let mut clients = [Client::connect(balancer.address()), Client::connect(balancer.address())];
    let [first, second] = &mut clients;
    first.send(GET).expect("sent");
    let mut dying = accept(&listener);
    read_to(&mut dying, b"\r\n\r\n");
    second.send(GET).expect("sent");
    let mut pooled = accept(&listener);
    read_to(&mut pooled, b"\r\n\r\n");
    pooled.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("written");
    assert_eq!(second.response("GET").expect("an answer").status(), 204);
    // One connection lies in the pool when the other, fresh one dies.
    drop(dying);
    let mut fresh = accept(&listener);
    read_to(&mut fresh, b"\r\n\r\n");
    fresh.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("written");
    assert_eq!(first.response("GET").expect("an answer").status(), 204);
}

#[test]
fn a_refused_head_request_gets_no_body() {
    let (_listener, balancer) = chain(&[]);
    let mut client = Client::connect(balancer.address());
    client.send(b"HEAD / HTTP/1.1\r\nHost: test\r\nContent-Length: 1, 2\r\n\r\n").expect("sent");
    let answer = client.response("HEAD").expect("an answer");
    assert_eq!((answer.status(), answer.body.len()), (400, 0));
    client.end().expect("nothing behind the head");
}

#[test]
fn no_answer_of_ours_lands_inside_an_interim_one() {
    let (listener, balancer) = chain(&[]);
    // Small segments and a small window: what the kernel takes for this client is less than the interim responses.
    let narrow = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    narrow.set_tcp_mss(536).expect("a segment size");
    narrow.set_recv_buffer_size(4096).expect("a buffer size");
    narrow.connect(&balancer.address().into()).expect("a connection");
    let mut client = TcpStream::from(narrow);
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        .expect("sent");
    let mut backend = accept(&listener);
    read_to(&mut backend, b"\r\n\r\n");
    let hints = format!("HTTP/1.1 103 Early Hints\r\nX: {}\r\n\r\n", "x".repeat(30_000));
    for _ in 0..60 {
        backend.write_all(hints.as_bytes()).expect("written");
    }
    client.write_all(b"no chunk\r\n").expect("sent");
    // The balancer lets go of the backend with most of that unread.
    wait::until("the request is given up", PATIENCE, || {
        backend.write(b"H").is_err() || backend.take_error().is_ok_and(|error| error.is_some())
    });
    let mut seen = Vec::new();
    // How it ends is not the point.
    let _ = client.read_to_end(&mut seen);
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.len() < 60 * hints.len(), "the client's side was never full");
    // Between two of them it may stand.
    let is_torn =
        seen.split("\r\n\r\n").any(|head| head.rfind("HTTP/1.1 ").is_some_and(|at| at > 0));
    assert!(!is_torn, "an answer within another");
}

#[test]
fn a_tunnel_that_breaks_is_no_tunnel_that_ended() {
    broken_tunnel(false);
}

#[test]
fn a_half_closed_tunnel_that_breaks_does_not_wait_for_its_timeout() {
    broken_tunnel(true);
}

fn broken_tunnel(is_half_closed: bool) {
    let (listener, balancer) = chain(&[]);
    let mut client = Client::connect(balancer.address());
    client
        .send(
            b"GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )
        .expect("sent");
    let mut backend = accept(&listener);
    read_to(&mut backend, b"\r\n\r\n");
    backend
        .write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .expect("written");
    assert_eq!(client.any_head().expect("a head").status(), 101);
    if is_half_closed {
        backend.shutdown(Shutdown::Write).expect("half closed");
        client.end().expect("the end of one direction is passed on");
    }
    reset(backend);
    match is_half_closed {
        false => assert!(matches!(client.end(), Err(Break::Reset))),
        // Nothing more can be read, so the reset shows in what is sent.
        true => wait::until("the break is passed on", PATIENCE, || client.send(b"x").is_err()),
    }
}
