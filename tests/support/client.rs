//! A blocking HTTP/1.1 test client: sends any bytes in any pieces, reads exactly one strict response at a time.

use std::io::Write;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::wire::{Break, Framing, Head, Reader};

/// One connection.
pub struct Client {
    stream: TcpStream,
    reader: Reader,
}

/// A final response with everything that came before its end.
#[derive(Debug)]
pub struct Response {
    /// 1xx heads that came first.
    pub interim: Vec<Head>,
    /// The final head.
    pub head: Head,
    /// How the body was delimited.
    pub framing: Framing,
    /// The body.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Which origin answered.
    pub fn origin(&self) -> &str {
        self.head.field("x-origin").unwrap_or("")
    }
}

impl Client {
    /// Connects, with ten seconds of patience for every read and write.
    pub fn connect(to: SocketAddr) -> Self {
        Self::over(
            TcpStream::connect_timeout(&to, PATIENCE).expect("the address accepts connections"),
        )
    }

    /// As [`Client::connect`], with a small receive buffer set before the handshake: it stops reading early.
    pub fn connect_narrow(to: SocketAddr, receive_bytes: usize) -> Self {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(receive_bytes).expect("a receive buffer size");
        socket.connect_timeout(&to.into(), PATIENCE).expect("the address accepts connections");
        Self::over(socket.into())
    }

    /// As [`Client::connect`], from this address of the host.
    pub fn connect_from(from: IpAddr, to: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(from, 0).into()).expect("an address of this host");
        socket.connect_timeout(&to.into(), PATIENCE).expect("the address accepts connections");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let reader = Reader::new(stream.try_clone().expect("a second handle"));
        let client = Self { stream, reader };
        client.set_patience(PATIENCE);
        client
    }

    /// How long a read may stay silent.
    pub fn set_patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a timeout above zero");
    }

    /// How long a write may stay silent.
    pub fn set_write_patience(&self, patience: Duration) {
        self.stream.set_write_timeout(Some(patience)).expect("a timeout above zero");
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Break> {
        self.stream.write_all(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => Break::Silent,
            _ => Break::Reset,
        })
    }

    /// Sends bytes in writes of `piece` bytes each (TCP_NODELAY: mostly a segment each).
    pub fn send_torn(&mut self, bytes: &[u8], piece: usize) -> Result<(), Break> {
        bytes.chunks(piece).try_for_each(|part| self.send(part))
    }

    /// Reads one final response to `method`, whole.
    pub fn response(&mut self, method: &str) -> Result<Response, Break> {
        let (interim, head, framing) = self.response_head(method)?;
        let mut body = Vec::new();
        let trailers = self.reader.body(framing, |piece| body.extend_from_slice(piece))?;
        Ok(Response { interim, head, framing, body, trailers })
    }

    /// Reads up to the end of a final head: interim heads, the head, and how its body ends.
    pub fn response_head(&mut self, method: &str) -> Result<(Vec<Head>, Head, Framing), Break> {
        let mut interim = Vec::new();
        loop {
            let head = self.reader.response_head()?;
            if head.status() >= 200 || head.status() == 101 {
                let framing = head.response_framing(method)?;
                return Ok((interim, head, framing));
            }
            interim.push(head);
        }
    }

    /// Reads one head, interim or final.
    pub fn any_head(&mut self) -> Result<Head, Break> {
        self.reader.response_head()
    }

    /// Reads a body after [`Client::response_head`].
    pub fn body(&mut self, framing: Framing, each: impl FnMut(&[u8])) -> Result<(), Break> {
        self.reader.body(framing, each).map(drop)
    }

    /// `GET target` with a Host; panics when no whole answer comes.
    pub fn get(&mut self, target: &str) -> Response {
        self.ask("GET", target, "", b"").unwrap_or_else(|broken| panic!("GET {target}: {broken:?}"))
    }

    /// One request with extra field lines (each ending in CRLF) and a body sized by Content-Length when there is one.
    pub fn ask(
        &mut self,
        method: &str,
        target: &str,
        fields: &str,
        body: &[u8],
    ) -> Result<Response, Break> {
        let mut message =
            format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}").into_bytes();
        if !body.is_empty() || matches!(method, "POST" | "PUT") {
            message.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        message.extend_from_slice(b"\r\n");
        message.extend_from_slice(body);
        self.send(&message)?;
        self.response(method)
    }

    /// Ends our direction; the answer can still be read.
    pub fn finish(&self) {
        // The peer may have reset meanwhile: then there is nothing left to end.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Resets the connection.
    pub fn abort(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    /// Waits for the orderly end of input.
    pub fn end(&mut self) -> Result<(), Break> {
        self.reader.end()
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
