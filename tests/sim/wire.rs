//! HTTP/1.1 as the peers read it: slowly, strictly, with code of its own, so that no mistake is shared with the proxy.
//! What RFC 9112 does not plainly allow is [`Broken::Malformed`], and a malformed message is always the proxy's fault.

use std::io::ErrorKind;

use crate::peer::Conn;

/// A first line and its fields, in order, as they stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub first: String,
    pub fields: Vec<(String, String)>,
}

/// Why no whole message came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The bytes are no HTTP.
    Malformed(String),
    /// An orderly end in the middle.
    Cut,
    /// A reset, before or in the middle.
    Reset,
    /// Nothing came for the connection's patience.
    Silent,
}

/// How a body is told from what follows (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

impl Head {
    /// All values of a field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a field that stands at most once.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Broken> {
        match self.all(name)[..] {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            _ => Err(malformed(format!("{name} stands more than once in {:?}", self.first))),
        }
    }

    /// Whether a list-valued field names `token`.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        let values = self.all(name);
        values.iter().flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
    }

    /// Status code of a response.
    pub fn status(&self) -> Result<u16, Broken> {
        let line = self.first.as_bytes();
        let is_shaped = line.len() >= 13 && line.starts_with(b"HTTP/1.1 ") && line[12] == b' ';
        let digits = self.first.get(9..12).filter(|d| is_shaped && d.bytes().all(is_digit));
        let status = digits.and_then(|d| d.parse().ok()).filter(|s| (100..600).contains(s));
        status.ok_or_else(|| malformed(format!("status line {:?}", self.first)))
    }

    /// Method and target of a request.
    pub fn request(&self) -> Result<(&str, &str), Broken> {
        let parts: Vec<&str> = self.first.split(' ').collect();
        match parts[..] {
            [method, target, "HTTP/1.1"] if !method.is_empty() && target.starts_with('/') => {
                Ok((method, target))
            }
            _ => Err(malformed(format!("request line {:?}", self.first))),
        }
    }

    fn declared(&self) -> Result<Option<Framing>, Broken> {
        match (self.one("content-length")?, self.one("transfer-encoding")?) {
            (Some(_), Some(_)) => Err(malformed("both a length and a transfer coding")),
            (Some(text), None) if !text.is_empty() && text.bytes().all(is_digit) => {
                let length = text.parse().map_err(|_| malformed("an absurd length"))?;
                Ok(Some(Framing::Length(length)))
            }
            (Some(text), None) => Err(malformed(format!("Content-Length: {text:?}"))),
            (None, Some("chunked")) => Ok(Some(Framing::Chunked)),
            (None, Some(text)) => Err(malformed(format!("Transfer-Encoding: {text:?}"))),
            (None, None) => Ok(None),
        }
    }

    pub fn request_framing(&self) -> Result<Framing, Broken> {
        Ok(self.declared()?.unwrap_or(Framing::None))
    }

    pub fn response_framing(&self, method: &str) -> Result<Framing, Broken> {
        let status = self.status()?;
        let declared = self.declared()?;
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Ok(Framing::None);
        }
        Ok(declared.unwrap_or(Framing::UntilClose))
    }
}

/// The next head, or `None` when the peer ended the connection before its first byte.
pub async fn read_head(conn: &mut Conn) -> Result<Option<Head>, Broken> {
    let mut seen = 0_usize;
    let end = loop {
        let from = seen.saturating_sub(3);
        if let Some(at) = find(&conn.ahead[from..], b"\r\n\r\n") {
            break from + at + 4;
        }
        seen = conn.ahead.len();
        if conn.ahead.len() > HEAD_BYTES_MAX {
            return Err(malformed("a head without end"));
        }
        let had_some = !conn.ahead.is_empty();
        match more(conn).await {
            Ok(()) => {}
            Err(Broken::Cut) if !had_some => return Ok(None),
            Err(broken) => return Err(broken),
        }
    };
    let bytes: Vec<u8> = conn.ahead.drain(..end).collect();
    parse_head(&bytes).map(Some)
}

/// A head, its final empty line included.
pub fn parse_head(bytes: &[u8]) -> Result<Head, Broken> {
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("bytes that are no text"))?;
    let body = text.strip_suffix("\r\n\r\n").ok_or_else(|| malformed("no empty line"))?;
    let mut lines = body.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let fields = lines.map(parse_field).collect::<Result<_, _>>()?;
    if body.replace("\r\n", "").bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) {
        return Err(malformed(format!("a control byte in {body:?}")));
    }
    Ok(Head { first, fields })
}

fn parse_field(line: &str) -> Result<(String, String), Broken> {
    let (name, value) =
        line.split_once(':').ok_or_else(|| malformed(format!("field line {line:?}")))?;
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(malformed(format!("field name {name:?}")));
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

/// Reads a body into `body`, so that what came before a break is not lost. Returns the trailers.
pub async fn read_body(
    conn: &mut Conn,
    framing: Framing,
    body: &mut Vec<u8>,
) -> Result<Vec<(String, String)>, Broken> {
    match framing {
        Framing::None => Ok(Vec::new()),
        Framing::Length(length) => {
            take(conn, length, body).await?;
            Ok(Vec::new())
        }
        Framing::UntilClose => loop {
            body.append(&mut conn.ahead);
            match more(conn).await {
                Ok(()) => {}
                Err(Broken::Cut) => return Ok(Vec::new()),
                Err(broken) => return Err(broken),
            }
        },
        Framing::Chunked => read_chunks(conn, body).await,
    }
}

async fn read_chunks(conn: &mut Conn, body: &mut Vec<u8>) -> Result<Vec<(String, String)>, Broken> {
    loop {
        let line = read_line(conn).await?;
        // Chunk extensions are the proxy's to drop.
        let is_hex = !line.is_empty() && line.bytes().all(|b| b.is_ascii_hexdigit());
        let size = usize::from_str_radix(&line, 16).ok().filter(|_| is_hex);
        let Some(size) = size else { return Err(malformed(format!("chunk size {line:?}"))) };
        if size == 0 {
            break;
        }
        take(conn, size, body).await?;
        if !read_line(conn).await?.is_empty() {
            return Err(malformed("no line end after a chunk"));
        }
    }
    let mut trailers = Vec::new();
    loop {
        let line = read_line(conn).await?;
        if line.is_empty() {
            return Ok(trailers);
        }
        trailers.push(parse_field(&line)?);
    }
}

async fn read_line(conn: &mut Conn) -> Result<String, Broken> {
    let at = loop {
        if let Some(at) = find(&conn.ahead, b"\r\n") {
            break at;
        }
        if conn.ahead.len() > HEAD_BYTES_MAX {
            return Err(malformed("a line without end"));
        }
        more(conn).await?;
    };
    let line: Vec<u8> = conn.ahead.drain(..at + 2).take(at).collect();
    String::from_utf8(line).map_err(|_| malformed("bytes that are no text"))
}

async fn take(conn: &mut Conn, mut length: usize, body: &mut Vec<u8>) -> Result<(), Broken> {
    loop {
        let n = length.min(conn.ahead.len());
        body.extend(conn.ahead.drain(..n));
        length -= n;
        if length == 0 {
            return Ok(());
        }
        more(conn).await?;
    }
}

async fn more(conn: &mut Conn) -> Result<(), Broken> {
    match conn.fill(READ_BYTES).await {
        Ok(0) => Err(Broken::Cut),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::TimedOut => Err(Broken::Silent),
        Err(_) => Err(Broken::Reset),
    }
}

/// `body` in chunks of at most `piece` bytes, the last one included.
pub fn chunked(body: &[u8], piece: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in body.chunks(piece.max(1)) {
        bytes.extend(format!("{:x}\r\n", part.len()).bytes());
        bytes.extend(part);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, needle)
}

fn is_digit(b: u8) -> bool {
    b.is_ascii_digit()
}

fn malformed(text: impl Into<String>) -> Broken {
    Broken::Malformed(text.into())
}

const HEAD_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 4096;
