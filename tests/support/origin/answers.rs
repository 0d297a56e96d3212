//! What an origin answers, by request path.
//!
//! | path | answer |
//! |---|---|
//! | `/bytes/N?seed=S` | N bytes of noise with Content-Length; `&then=close` says so and closes, `&then=vanish` closes unsaid |
//! | `/chunked/N?seed=S` | the same in chunks of uneven size; `&trailer=1` adds `X-Checksum` |
//! | `/until-close/N?seed=S` | the same, delimited by the close |
//! | `/upload?seed=S` | `length=N matches=yes` after comparing every byte; without a seed `length=N hash=H` |
//! | `/early` | 200 from the head alone; the body is read afterwards |
//! | `/refuse` | 413 from the head alone and our FIN, then a lingering close |
//! | `/status/CODE` | that status, with a text where the status may have one |
//! | `/unread/GATE` | reads its body only once the gate is open, then the echo |
//! | `/hints` | 103 and an unknown 1xx before the answer |
//! | `/hold/GATE` | the echo, once the gate is open |
//! | `/partial/N/GATE?seed=S` | head and first half; the rest once the gate is open |
//! | `/cut/N?seed=S`, `/reset/N?seed=S` | N bytes announced, half sent, then a FIN or a reset |
//! | `/script/NAME` | the steps set with `Origin::script` |
//! | `/say/NAME…` | what was set with `Origin::say` |
//! | `/count/NAME…` | a number, fresh for an hour; any method but GET and HEAD raises it |
//! | `/ws` | a WebSocket that echoes |
//! | anything else | the echo: origin, connection, request line and fields as received |
//!
//! Every answer carries `X-Origin`, `X-Connection`, and the request's `X-Nonce`.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::SockRef;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocket};

use super::{Corruption, Seen, Shared, Step, lock};
use crate::support::noise;
use crate::support::wire::{Break, Framing, Head, Reader};

/// Serves one connection to its end.
pub(super) fn serve(stream: TcpStream, connection: u64, shared: &Shared) {
    let Ok(handle) = stream.try_clone() else { return };
    let mut link = Link { stream, reader: Reader::new(handle), connection, served: 0, shared };
    loop {
        match link.one() {
            Ok(Next::Keep) => {}
            Ok(Next::Reset) => return,
            Ok(Next::Close) | Err(_) => break,
        }
    }
    // The peer may be gone already.
    let _ = link.stream.shutdown(Shutdown::Write);
}

pub(super) struct Link<'a> {
    pub(super) stream: TcpStream,
    reader: Reader,
    connection: u64,
    served: u64,
    pub(super) shared: &'a Shared,
}

/// Whether the connection goes on.
pub(super) enum Next {
    Keep,
    Close,
    Reset,
}

/// One request with its path taken apart.
pub(super) struct Ask<'a> {
    pub(super) head: &'a Head,
    framing: Framing,
    pub(super) parts: Vec<&'a str>,
    query: &'a str,
    corruption: Option<Corruption>,
}

impl Ask<'_> {
    fn number(&self, part: usize) -> u64 {
        self.parts.get(part).and_then(|p| p.parse().ok()).unwrap_or(0)
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v)
    }

    fn seed(&self) -> u64 {
        self.option("seed").and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    pub(super) fn has_body(&self) -> bool {
        self.head.first != "HEAD"
    }
}

impl Link<'_> {
    fn one(&mut self) -> io::Result<Next> {
        let head = match self.reader.request_head() {
            Ok(head) => head,
            Err(broken) => return self.refuse(broken),
        };
        let framing = match head.request_framing() {
            Ok(framing) => framing,
            Err(broken) => return self.refuse(broken),
        };
        self.remember(&head);
        if self.served > 0 && self.shared.drops_reused.load(Ordering::Acquire) {
            return Ok(Next::Close);
        }
        self.served += 1;
        let number = self.shared.requests.fetch_add(1, Ordering::AcqRel) + 1;
        let (path, query) = head.second.split_once('?').unwrap_or((&head.second, ""));
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let ask = Ask {
            head: &head,
            framing,
            parts,
            query,
            corruption: self.shared.corruption_of(number),
        };
        if ask.corruption == Some(Corruption::Swallow) {
            return Ok(Next::Close);
        }
        let next = self.answer(&ask)?;
        Ok(if head.lists("connection", "close") { Next::Close } else { next })
    }

    fn answer(&mut self, ask: &Ask<'_>) -> io::Result<Next> {
        let first = ask.parts.first().copied().unwrap_or("");
        if first == "unread" && !self.shared.pass(ask.parts.get(1).unwrap_or(&"")) {
            return Ok(Next::Close);
        }
        if !matches!(first, "upload" | "early" | "refuse") {
            self.reader.body(ask.framing, |_| {}).map_err(broken)?;
        }
        match first {
            "bytes" => self.bytes(ask),
            "chunked" => self.chunked(ask),
            "until-close" => self.until_close(ask),
            "upload" => self.upload(ask),
            "early" => {
                self.text(ask, "200 OK", "early")?;
                self.reader.body(ask.framing, |_| {}).map_err(broken)?;
                Ok(Next::Keep)
            }
            "refuse" => {
                let out = self.head(
                    ask,
                    "413 Content Too Large",
                    "Content-Length: 7\r\nConnection: close\r\n",
                );
                self.stream.write_all(&[&out[..], b"refused"].concat())?;
                self.stream.shutdown(Shutdown::Write)?;
                // Lingers, so that the answer is not lost to a reset (RFC 9112 §9.6).
                self.reader.body(Framing::UntilClose, |_| {}).map_err(broken)?;
                Ok(Next::Close)
            }
            "status" => self.status(ask),
            "hints" => {
                self.stream.write_all(
                    b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n",
                )?;
                self.stream.write_all(b"HTTP/1.1 199 Odd\r\nX-Odd: yes\r\n\r\n")?;
                self.text(ask, "200 OK", "after hints")
            }
            "hold" => {
                if !self.shared.pass(ask.parts.get(1).unwrap_or(&"")) {
                    return Ok(Next::Close);
                }
                self.echo(ask)
            }
            "partial" => self.partial(ask),
            "cut" | "reset" => self.cut(ask, first == "reset"),
            "script" => self.script(ask.parts.get(1).unwrap_or(&"")),
            "say" => self.say(ask),
            "count" => self.count(ask),
            "ws" => self.websocket(ask),
            _ => self.echo(ask),
        }
    }

    fn bytes(&mut self, ask: &Ask<'_>) -> io::Result<Next> {
        let length = ask.number(1);
        let then = ask.option("then").unwrap_or("");
        let closing = if then == "close" { "Connection: close\r\n" } else { "" };
        let mut out = self.head(ask, "200 OK", &format!("Content-Length: {length}\r\n{closing}"));
        if ask.has_body() {
            self.noise(&mut out, ask, length)?;
        }
        self.stream.write_all(&out)?;
        match ask.corruption {
            Some(Corruption::Break) => self.reset(),
            Some(Corruption::Short) => Ok(Next::Close),
            _ if then.is_empty() => Ok(Next::Keep),
            _ => Ok(Next::Close),
        }
    }

    /// Writes a body after `out`; what is left in `out` is still to be written.
    fn noise(&mut self, out: &mut Vec<u8>, ask: &Ask<'_>, length: u64) -> io::Result<()> {
        let seed = ask.seed();
        let is_short = matches!(ask.corruption, Some(Corruption::Short | Corruption::Break));
        let end = if is_short { length / 2 } else { length };
        let mut done = 0;
        while done < end {
            let piece = noise::stretch(seed, done, end - done);
            let place = out.len();
            out.extend_from_slice(piece);
            if ask.corruption == Some(Corruption::FlipByte) && done == 0 {
                out[place + piece.len() / 2] ^= 1;
            }
            done += piece.len() as u64;
            if out.len() >= WRITE_BYTES {
                self.stream.write_all(out)?;
                out.clear();
            }
        }
        Ok(())
    }

    fn chunked(&mut self, ask: &Ask<'_>) -> io::Result<Next> {
        let length = ask.number(1);
        let mut out = self.head(ask, "200 OK", "Transfer-Encoding: chunked\r\n");
        if ask.has_body() {
            append_chunks(&mut out, ask.seed(), length, &mut |full| self.stream.write_all(full))?;
            let trailer = if ask.option("trailer").is_some() { "X-Checksum: 1\r\n" } else { "" };
            out.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
        }
        self.stream.write_all(&out)?;
        Ok(Next::Keep)
    }

    fn until_close(&mut self, ask: &Ask<'_>) -> io::Result<Next> {
        let mut out = self.head(ask, "200 OK", "Connection: close\r\n");
        if ask.has_body() {
            self.noise(&mut out, ask, ask.number(1))?;
        }
        self.stream.write_all(&out)?;
        Ok(Next::Close)
    }

    fn upload(&mut self, ask: &Ask<'_>) -> io::Result<Next> {
        if ask.head.lists("expect", "100-continue") {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let seed = ask.option("seed").and_then(|s| s.parse().ok());
        let (mut length, mut matches, mut hash) = (0, true, noise::HASH_START);
        let each = |piece: &[u8]| {
            match seed {
                Some(seed) => matches &= noise::is_at(seed, length, piece),
                None => hash = noise::hash(hash, piece),
            }
            length += piece.len() as u64;
        };
        self.reader.body(ask.framing, each).map_err(broken)?;
        let matches = matches && ask.corruption != Some(Corruption::DenyUpload);
        let text = match seed {
            Some(_) => format!("length={length} matches={}", if matches { "yes" } else { "no" }),
            None => format!("length={length} hash={hash:016x}"),
        };
        self.text(ask, "200 OK", &text)
    }

    fn status(&mut self, ask: &Ask<'_>) -> io::Result<Next> {
        let code = ask.number(1);
        if matches!(code, 204 | 304) {
            let out = self.head(ask, &format!("{code} Scripted"), "");
            self.stream.write_all(&out)?;
            return Ok(Next::Keep);
        }
        self.text(ask, &format!("{code} Scripted"), "scripted")
    }

    fn partial(&mut self, ask: &Ask<'_>) -> io::Result<Next> {
        let (length, half) = (ask.number(1), ask.number(1) / 2);
        let whole = noise::body(ask.seed(), length);
        let mut out = self.head(ask, "200 OK", &format!("Content-Length: {length}\r\n"));
        out.extend_from_slice(&whole[..half as usize]);
        self.stream.write_all(&out)?;
        if !self.shared.pass(ask.parts.get(2).unwrap_or(&"")) {
            return Ok(Next::Close);
        }
        self.stream.write_all(&whole[half as usize..])?;
        Ok(Next::Keep)
    }

    fn cut(&mut self, ask: &Ask<'_>, is_reset: bool) -> io::Result<Next> {
        let length = ask.number(1);
        let mut out = self.head(ask, "200 OK", &format!("Content-Length: {length}\r\n"));
        noise::append(&mut out, ask.seed(), length / 2);
        self.stream.write_all(&out)?;
        if is_reset { self.reset() } else { Ok(Next::Close) }
    }

    fn script(&mut self, name: &str) -> io::Result<Next> {
        let steps = lock(&self.shared.scripts).get(name).cloned().unwrap_or_default();
        for step in steps {
            match step {
                Step::Send(bytes) => self.stream.write_all(&bytes)?,
                Step::Gate(gate) if self.shared.pass(gate) => {}
                Step::Gate(_) | Step::Close => return Ok(Next::Close),
                Step::Reset => return self.reset(),
            }
        }
        Ok(Next::Keep)
    }

    fn websocket(&mut self, ask: &Ask<'_>) -> io::Result<Next> {
        let Some(key) = ask.head.field("sec-websocket-key") else {
            return self.text(ask, "400 Bad Request", "no key");
        };
        let accept = derive_accept_key(key.as_bytes());
        let fields = format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
        );
        let out = self.head(ask, "101 Switching Protocols", &fields);
        self.stream.write_all(&out)?;
        let rest = self.reader.take_rest();
        let mut socket =
            WebSocket::from_partially_read(self.stream.try_clone()?, rest, Role::Server, None);
        while let Ok(message) = socket.read() {
            let is_data = message.is_text() || message.is_binary();
            if is_data && socket.send(message).is_err() {
                break;
            }
        }
        Ok(Next::Close)
    }

    fn echo(&mut self, ask: &Ask<'_>) -> io::Result<Next> {
        let head = ask.head;
        let mut text = format!("origin: {}\nconnection: {}\n", self.shared.name, self.connection);
        text.push_str(&format!("{} {} {}\n", head.first, head.second, head.third));
        for (name, value) in &head.fields {
            text.push_str(&format!("{name}: {value}\n"));
        }
        self.text(ask, "200 OK", &text)
    }

    pub(super) fn text(&mut self, ask: &Ask<'_>, status: &str, text: &str) -> io::Result<Next> {
        let mut out = self.head(ask, status, &format!("Content-Length: {}\r\n", text.len()));
        if ask.has_body() {
            out.extend_from_slice(text.as_bytes());
        }
        self.stream.write_all(&out)?;
        Ok(Next::Keep)
    }

    pub(super) fn head(&self, ask: &Ask<'_>, status: &str, fields: &str) -> Vec<u8> {
        let nonce = match (ask.head.field("x-nonce"), ask.corruption) {
            (Some(_), Some(Corruption::ForeignNonce)) => "X-Nonce: 0\r\n".to_owned(),
            (Some(nonce), _) => format!("X-Nonce: {nonce}\r\n"),
            (None, _) => String::new(),
        };
        let (name, connection) = (&self.shared.name, self.connection);
        format!("HTTP/1.1 {status}\r\n{fields}X-Origin: {name}\r\nX-Connection: {connection}\r\n{nonce}\r\n").into()
    }

    fn remember(&self, head: &Head) {
        if self.shared.is_remembering.load(Ordering::Acquire) {
            lock(&self.shared.seen).push(Seen {
                connection: self.connection,
                method: head.first.clone(),
                target: head.second.clone(),
                fields: head.fields.clone(),
            });
        }
    }

    fn refuse(&mut self, broken: Break) -> io::Result<Next> {
        if let Break::Malformed(what) = broken {
            lock(&self.shared.malformed).push(what);
            self.stream.write_all(
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            )?;
        }
        Ok(Next::Close)
    }

    /// The close that follows is a reset.
    fn reset(&self) -> io::Result<Next> {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
        Ok(Next::Reset)
    }
}

/// Appends the body `seed` in chunks of uneven size (no last chunk); `full` takes what has become large.
pub(in crate::support) fn append_chunks(
    out: &mut Vec<u8>,
    seed: u64,
    length: u64,
    full: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        let wanted = 1 + seed.wrapping_add(done).wrapping_mul(2_654_435_761) % CHUNK_BYTES_MAX;
        let piece = noise::stretch(seed, done, wanted.min(length - done));
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
        done += piece.len() as u64;
        if out.len() >= WRITE_BYTES {
            full(out)?;
            out.clear();
        }
    }
    Ok(())
}

fn broken(broken: Break) -> io::Error {
    io::Error::other(format!("{broken:?}"))
}

const WRITE_BYTES: usize = 64 * 1024;
const CHUNK_BYTES_MAX: u64 = 20_000;
