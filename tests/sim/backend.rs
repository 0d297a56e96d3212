//! A scripted backend: reads requests strictly, checks that each is what its client sent, and does what its query
//! wishes.
//!
//! | query | meaning |
//! |---|---|
//! | `up=n` | bytes of the request body, for the check |
//! | `len=n` | bytes of the answer's body |
//! | `how=` | `length` (default), `chunked`, `close` (close-delimited), `none` (204), `interim` (100, 103 and an unknown one first), `hang` (never answers), `silent` (falls silent in the body), `reset`, `cut` (breaks within the body), `drop` (closes instead of answering), `die` (resets instead of answering), `junk` (no HTTP) |
//! | `as=` | how the body of `reset` and `cut` is framed: `length` (default), `chunked`, `close` |
//! | `early=1` | answers before it reads the request body |
//! | `wait=ms` | sleeps before it answers |
//! | `then=` | `keep` (default), `fin` (closes after the answer), `idle` (closes a little later), `stray` (bytes nobody asked for, a little later), `trap` (closes when the next request begins to arrive) |
//! | `later=ms` | how much later `idle` and `stray` come |

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use balancer::io::{Io, Stream};

use crate::exec::Sim;
use crate::ledger::{Ledger, Nonce};
use crate::peer::{Conn, accept, sleep};
use crate::wire::{self, Broken, Framing, Head};

/// One address behind which answers are scripted.
#[derive(Clone)]
pub struct Backend {
    pub name: String,
    pub address: SocketAddr,
    ledger: Ledger,
    /// Connections accepted, and those open now.
    pub accepted: Rc<Cell<u32>>,
    pub open: Rc<Cell<u32>>,
    /// Requests that are being answered, and the most there ever were.
    pub busy: Rc<Cell<(u32, u32)>>,
    /// Requests whose connection broke while the backend was busy with them.
    pub broken_off: Rc<Cell<u32>>,
    /// Body bytes sent so far, in answer to whatever.
    pub sent: Rc<Cell<usize>>,
    /// Request heads read so far.
    pub asked: Rc<Cell<u32>>,
    /// Goes before what the requests wish.
    pub mood: Rc<Cell<Option<&'static str>>>,
}

/// Ends with the answer, whatever becomes of it.
struct Busy(Rc<Cell<(u32, u32)>>);

impl Drop for Busy {
    fn drop(&mut self) {
        let (busy, most) = self.0.get();
        self.0.set((busy - 1, most));
    }
}

/// What one request asks of us.
struct Script<'a> {
    nonce: Nonce,
    method: &'a str,
    how: &'a str,
    framing: &'a str,
    length: usize,
}

/// What the backend does with the connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Keep,
    End,
    Break,
}

impl Backend {
    /// Begins to listen at `address` on a core of its own.
    pub fn start(sim: &Sim, ledger: &Ledger, name: &str, address: SocketAddr) -> Self {
        let io = sim.core();
        let backend = Self {
            name: name.to_owned(),
            address,
            ledger: ledger.clone(),
            accepted: Rc::default(),
            open: Rc::default(),
            busy: Rc::default(),
            broken_off: Rc::default(),
            sent: Rc::default(),
            asked: Rc::default(),
            mood: Rc::default(),
        };
        let listener = io.listen(address);
        let this = backend.clone();
        io.clone().spawn(async move {
            loop {
                let (stream, _) = accept(&io, &listener).await;
                this.accepted.set(this.accepted.get() + 1);
                this.open.set(this.open.get() + 1);
                let (this, conn) = (this.clone(), Conn::new(&io, stream));
                io.spawn(async move {
                    this.serve(conn).await;
                    this.open.set(this.open.get() - 1);
                });
            }
        });
        backend
    }

    async fn serve(&self, mut conn: Conn) {
        conn.patience = Duration::from_secs(7200);
        loop {
            let head = match wire::read_head(&mut conn).await {
                Ok(Some(head)) => head,
                Ok(None) | Err(Broken::Reset | Broken::Cut | Broken::Silent) => return,
                Err(Broken::Malformed(why)) => {
                    return self.ledger.complain(format!("{}: {why}", self.name));
                }
            };
            match self.one(&mut conn, &head).await {
                Ok(Then::Keep) => {}
                Ok(Then::End) => return,
                Ok(Then::Break) => return conn.reset(),
                Err(Broken::Malformed(why)) => {
                    return self.ledger.complain(format!("{} of {}: {why}", self.name, head.first));
                }
                Err(_) => return self.broken_off.set(self.broken_off.get() + 1),
            }
        }
    }

    async fn one(&self, conn: &mut Conn, head: &Head) -> Result<Then, Broken> {
        let (method, target) = head.request()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let nonce = Nonce::parse(&path[1..]).ok_or_else(|| odd("a path without a nonce"))?;
        if head.one("x-nonce")? != Some(&path[1..]) || head.all("host").len() != 1 {
            return Err(odd(format!("fields of another request: {head:?}")));
        }
        if !head.all("x-hop").is_empty() {
            return Err(odd("a field that Connection listed came through"));
        }
        self.ledger.reached(nonce, &self.name);
        let (busy, most) = self.busy.get();
        self.busy.set((busy + 1, most.max(busy + 1)));
        let is_busy = Busy(self.busy.clone());
        self.asked.set(self.asked.get() + 1);
        let wish: BTreeMap<&str, &str> =
            query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let number = |key| wish.get(key).and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
        let how = wish.get("how").copied().unwrap_or("length");
        let how = self.mood.get().unwrap_or(how);
        let framing = head.request_framing()?;
        let expected = nonce.body(number("up"));
        let is_early = number("early") == 1;
        if !is_early {
            read_upload(conn, framing, &expected).await?;
        }
        sleep(&conn.io, Duration::from_millis(number("wait") as u64)).await;
        let framing_wish = wish.get("as").copied().unwrap_or("length");
        let script = Script { nonce, method, how, framing: framing_wish, length: number("len") };
        let after = self.answer(conn, &script).await?;
        drop(is_busy);
        if is_early && after == Then::Keep {
            read_upload(conn, framing, &expected).await?;
        }
        if after != Then::Keep {
            return Ok(after);
        }
        let a_little = Duration::from_micros(conn.io.draw() % 5_000)
            + Duration::from_millis(number("later") as u64);
        match wish.get("then").copied().unwrap_or("keep") {
            "fin" => Ok(Then::End),
            "idle" => {
                sleep(&conn.io, a_little).await;
                Ok(Then::End)
            }
            "stray" => {
                sleep(&conn.io, a_little).await;
                send(conn, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray").await?;
                Ok(Then::Keep)
            }
            "trap" => {
                if conn.ahead.is_empty() {
                    // Not read: closing over unread bytes is a reset. Half of the time a FIN is on its way already.
                    if conn.io.draw().is_multiple_of(2) {
                        conn.stream.finish();
                    }
                    let _ = crate::peer::ready(&conn.stream, balancer::io::Interest::READ).await;
                }
                Ok(Then::End)
            }
            _ => Ok(Then::Keep),
        }
    }

    async fn answer(&self, conn: &mut Conn, script: &Script<'_>) -> Result<Then, Broken> {
        let Script { nonce, method, how, length, .. } = *script;
        let body = nonce.body(length);
        let status = if how == "none" { "204 No Content" } else { "200 OK" };
        let common = format!(
            "HTTP/1.1 {status}\r\nX-Nonce: {nonce}\r\nX-Length: {length}\r\nX-Backend: {}\r\n\
             Connection: X-Hop\r\nX-Hop: 1\r\n",
            self.name
        );
        match how {
            "hang" => return until_they_give_up(conn).await,
            "drop" => return Ok(Then::End),
            "die" => return Ok(Then::Break),
            "junk" => {
                send(conn, b"220 smtp.example ESMTP\r\n\r\n").await?;
                return Ok(Then::End);
            }
            "reset" | "cut" | "silent" => {
                let (line, bytes) = framed(script.framing, length, &body);
                send(conn, format!("{common}{line}\r\n").as_bytes()).await?;
                self.send_body(conn, &bytes[..bytes.len() / 2]).await?;
                return match how {
                    "reset" => Ok(Then::Break),
                    "cut" => Ok(Then::End),
                    _ => until_they_give_up(conn).await,
                };
            }
            "interim" => {
                for line in ["100 Continue", "103 Early Hints", "199 Whatever"] {
                    send(conn, format!("HTTP/1.1 {line}\r\n\r\n").as_bytes()).await?;
                }
            }
            _ => {}
        }
        if how == "none" {
            send(conn, format!("{common}\r\n").as_bytes()).await?;
            return Ok(Then::Keep);
        }
        let framing = if matches!(how, "chunked" | "close") { how } else { "length" };
        let (line, bytes) = framed(framing, length, &body);
        send(conn, format!("{common}{line}\r\n").as_bytes()).await?;
        if method != "HEAD" {
            self.send_body(conn, &bytes).await?;
        }
        Ok(if how == "close" { Then::End } else { Then::Keep })
    }

    async fn send_body(&self, conn: &mut Conn, bytes: &[u8]) -> Result<(), Broken> {
        for piece in bytes.chunks(1024) {
            send(conn, piece).await?;
            self.sent.set(self.sent.get() + piece.len());
        }
        Ok(())
    }
}

/// The framing field and the bytes of a body.
fn framed(framing: &str, length: usize, body: &[u8]) -> (String, Vec<u8>) {
    match framing {
        "chunked" => {
            ("Transfer-Encoding: chunked\r\n".to_owned(), wire::chunked(body, CHUNK_BYTES))
        }
        "close" => (String::new(), body.to_vec()),
        _ => (format!("Content-Length: {length}\r\n"), body.to_vec()),
    }
}

/// The only way out is that the proxy gives up.
async fn until_they_give_up(conn: &mut Conn) -> Result<Then, Broken> {
    drop(conn.end().await);
    Err(Broken::Cut)
}

async fn send(conn: &mut Conn, bytes: &[u8]) -> Result<(), Broken> {
    conn.send(bytes).await.map_err(|_| Broken::Reset)
}

async fn read_upload(conn: &mut Conn, framing: Framing, expected: &[u8]) -> Result<(), Broken> {
    let mut body = Vec::new();
    wire::read_body(conn, framing, &mut body).await?;
    if body == expected {
        return Ok(());
    }
    Err(odd(format!("{} body bytes, not the {} sent", body.len(), expected.len())))
}

fn odd(text: impl Into<String>) -> Broken {
    Broken::Malformed(text.into())
}

/// Odd, so that chunks and reads never line up.
const CHUNK_BYTES: usize = 377;
