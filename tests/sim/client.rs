//! A scripted client: asks, in pieces or slowly, and tells the ledger what it got.

use std::net::SocketAddr;
use std::time::Duration;

use balancer::io::{Io, Stream};

use crate::io::{SimIo, SimStream};
use crate::ledger::{Answer, Heard, Ledger, Nonce};
use crate::peer::{Conn, connect, send_paced};
use crate::wire::{self, Broken, Head};

/// One request, and in its query what the backend shall do with it (`backend` reads it).
#[derive(Clone, Debug)]
pub struct Ask {
    pub nonce: Nonce,
    pub method: &'static str,
    /// Bytes of the request body; none at all when 0.
    pub upload: usize,
    /// The request body goes in chunks of at most this many bytes.
    pub chunk: Option<usize>,
    /// What the backend is told, for example `len=100&how=chunked`.
    pub wish: String,
    /// Further field lines, each with its CRLF.
    pub fields: String,
}

/// A client's connection.
pub struct Client {
    pub conn: Conn,
    pub number: u32,
    ledger: Ledger,
    asked: u32,
    /// Requests are sent in pieces of this size with this gap between them.
    pub pace: (usize, Duration),
}

impl Ask {
    pub fn head(&self) -> String {
        let framing = match self.chunk {
            Some(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
            None if self.upload > 0 => format!("Content-Length: {}\r\n", self.upload),
            None => String::new(),
        };
        let Self { method, nonce, upload, wish, fields, .. } = self;
        format!(
            "{method} /{nonce}?up={upload}&{wish} HTTP/1.1\r\nHost: sim.test\r\n\
             X-Nonce: {nonce}\r\n{framing}{fields}\r\n"
        )
    }

    pub fn body(&self) -> Vec<u8> {
        let plain = self.nonce.body(self.upload);
        match self.chunk {
            Some(piece) => wire::chunked(&plain, piece),
            None => plain,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.head().into_bytes(), self.body()].concat()
    }

    pub fn field(mut self, line: &str) -> Self {
        self.fields.push_str(line);
        self.fields.push_str("\r\n");
        self
    }
}

impl Client {
    /// Connects to the proxy.
    ///
    /// # Panics
    /// When nobody answers there.
    pub async fn open(io: &SimIo, ledger: &Ledger, number: u32, to: SocketAddr) -> Self {
        Self::over(io, ledger, number, connect(io, to).await.expect("the proxy listens"))
    }

    /// A client on a connection that exists.
    pub fn over(io: &SimIo, ledger: &Ledger, number: u32, stream: SimStream) -> Self {
        let conn = Conn::new(io, stream);
        let gap = Duration::from_micros([0, 0, 30, 3_000][(io.draw() % 4) as usize]);
        let piece = [usize::MAX, 1 << 20, 100, 7][(io.draw() % 4) as usize];
        Self { conn, number, ledger: ledger.clone(), asked: 0, pace: (piece, gap) }
    }

    /// Goes on with another connection; requests are still numbered on.
    pub async fn reopen(self, to: SocketAddr) -> Self {
        let (io, ledger) = (self.conn.io.clone(), self.ledger.clone());
        let (number, asked) = (self.number, self.asked);
        drop(self);
        let mut next = Self::open(&io, &ledger, number, to).await;
        next.asked = asked;
        next
    }

    /// [`reopen`](Self::reopen) if `heard` leaves nothing more to be said on this connection.
    pub async fn go_on(self, heard: &Heard, to: SocketAddr) -> Self {
        match heard {
            Heard::Answer(answer) if !answer.head.lists("connection", "close") => self,
            _ => self.reopen(to).await,
        }
    }

    /// A request to be sent; it is in the ledger from now on.
    pub fn plan(&mut self, method: &'static str, upload: usize, wish: &str) -> Ask {
        let nonce = Nonce { client: self.number, number: self.asked };
        self.asked += 1;
        self.ledger.asked(nonce, method);
        let (chunk, fields, wish) = (None, String::new(), wish.to_owned());
        Ask { nonce, method, upload, chunk, wish, fields }
    }

    /// Sends the request and reads its answer at the same time; a failed send is not yet an outcome.
    pub async fn ask(&mut self, ask: &Ask) -> Heard {
        let (io, stream, bytes) = (self.conn.io.clone(), self.conn.stream.clone(), ask.bytes());
        let (piece, gap) = self.pace;
        let piece = piece.max(bytes.len() / PIECES_MAX);
        // An answer may come before the request has ended, and the rest of it may then be unwelcome.
        let send = async { drop(send_paced(&io, &stream, &bytes, piece, gap).await) };
        let hear = hear(&mut self.conn, ask.method);
        let (_, heard) = futures_lite::future::zip(send, hear).await;
        self.ledger.heard(ask.nonce, &heard);
        heard
    }

    /// A GET for `length` bytes in the weather's own manner.
    ///
    /// # Panics
    /// When the answer is not a 200.
    pub async fn get(&mut self, wish: &str) -> Answer {
        let ask = self.plan("GET", 0, wish);
        let answer = self.ask(&ask).await.answer();
        assert_eq!(answer.status, 200, "{} {wish}: {:?}", ask.nonce, answer.head);
        answer
    }

    /// Reads the answer to a request that was sent.
    pub async fn hear(&mut self, ask: &Ask) -> Heard {
        let heard = hear(&mut self.conn, ask.method).await;
        self.ledger.heard(ask.nonce, &heard);
        heard
    }

    /// The client gives up on a request that is in the ledger.
    pub fn give_up(&mut self, ask: &Ask) {
        self.ledger.heard(ask.nonce, &Heard::Closed);
    }

    /// Reads until the proxy ends the connection: nothing may come that was not asked for.
    pub async fn expect_end(&mut self) {
        assert!(self.conn.ahead.is_empty(), "bytes after the last answer");
        let end = self.conn.fill(4096).await;
        assert!(matches!(end, Ok(0)), "an orderly end was due, not {end:?}");
    }

    /// Closes with a reset.
    pub fn reset(self) {
        self.conn.stream.abort();
    }
}

/// Closing hands the ledger all that was ever received.
impl Drop for Client {
    fn drop(&mut self) {
        self.ledger.heard_bytes(self.number, &self.conn.heard);
    }
}

/// Reads one final response with the interim ones before it.
pub async fn hear(conn: &mut Conn, method: &str) -> Heard {
    let mut interim = Vec::new();
    let mut body = Vec::new();
    let mut seen = None;
    let outcome: Result<Option<Answer>, Broken> = async {
        loop {
            let Some(head) = wire::read_head(conn).await? else {
                // An end after an interim response leaves the request unanswered all the same.
                return if interim.is_empty() { Ok(None) } else { Err(Broken::Cut) };
            };
            let status = head.status()?;
            if status < 200 && status != 101 {
                interim.push(status);
                continue;
            }
            seen = Some(head.clone());
            let framing = head.response_framing(method)?;
            wire::read_body(conn, framing, &mut body).await?;
            check_ours(&head, status)?;
            let (body, interim) = (std::mem::take(&mut body), std::mem::take(&mut interim));
            return Ok(Some(Answer { status, head, body, framing, interim }));
        }
    }
    .await;
    match outcome {
        Ok(Some(answer)) => Heard::Answer(answer),
        Ok(None) => Heard::Closed,
        Err(how) => Heard::Broken { how, head: seen, body },
    }
}

/// What every answer owes its client: a date, and no field that belongs to the other connection.
fn check_ours(head: &Head, status: u16) -> Result<(), Broken> {
    if status >= 200 && head.all("date").len() != 1 {
        return Err(Broken::Malformed(format!("no single Date in {head:?}")));
    }
    match head.all("x-hop").is_empty() {
        true => Ok(()),
        false => Err(Broken::Malformed("a field that Connection listed came through".to_owned())),
    }
}

/// A request is sent in no more pieces than that: small requests byte by byte, large ones in affordable time.
const PIECES_MAX: usize = 300;
