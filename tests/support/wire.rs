//! A strict reader of HTTP/1.1 messages (RFC 9112) for both ends of a test, independent of the proxy's own parser.
//!
//! It accepts exactly what the proxy promises to write: CRLF line ends, one SP in the first line, token names, one
//! Content-Length or one `chunked`, never both. Anything else is [`Break::Malformed`]: a finding, not a nuisance.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;

/// Why a message could not be read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Break {
    /// An orderly end before the first byte of a message.
    Closed,
    /// An orderly end inside a message.
    Truncated,
    /// A reset.
    Reset,
    /// Nothing came within the reader's patience.
    Silent,
    /// Bytes that the strict reader does not accept.
    Malformed(String),
}

/// A request or response head: the three parts of the first line and the fields in order.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// Method, or version of a response.
    pub first: String,
    /// Target, or status code of a response.
    pub second: String,
    /// Version, or reason phrase of a response.
    pub third: String,
    /// Names as sent, values without surrounding whitespace.
    pub fields: Vec<(String, String)>,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// Content-Length.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// Reads messages off one stream; what was read too far stays for the next.
pub struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Head {
    /// The status of a response head.
    pub fn status(&self) -> u16 {
        self.second.parse().unwrap_or(0)
    }

    /// The first field of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// How many fields of that name there are.
    pub fn count(&self, name: &str) -> usize {
        self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count()
    }

    /// Whether the comma-separated field `name` lists `token`.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        let mut values =
            self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v);
        values.any(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
    }

    /// The framing of a request with this head (RFC 9112 §6.3).
    pub fn request_framing(&self) -> Result<Framing, Break> {
        Ok(self.stated_framing()?.unwrap_or(Framing::None))
    }

    /// The framing of a response with this head to `method`.
    pub fn response_framing(&self, method: &str) -> Result<Framing, Break> {
        let status = self.status();
        let stated = self.stated_framing()?;
        if method == "HEAD" || status == 204 || status == 304 || status < 200 {
            return Ok(Framing::None);
        }
        Ok(stated.unwrap_or(Framing::UntilClose))
    }

    fn stated_framing(&self) -> Result<Option<Framing>, Break> {
        match (self.count("transfer-encoding"), self.count("content-length")) {
            (0, 0) => Ok(None),
            (1, 0) if self.field("transfer-encoding") == Some("chunked") => {
                Ok(Some(Framing::Chunked))
            }
            (0, 1) => {
                let text = self.field("content-length").unwrap_or_default();
                let is_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let length = text.parse().ok().filter(|_| is_digits);
                length
                    .map(|n| Some(Framing::Length(n)))
                    .ok_or_else(|| malformed("Content-Length", text))
            }
            _ => Err(malformed("framing stated twice or unknown", &format!("{:?}", self.fields))),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, Break> {
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("head is not ASCII", ""))?;
        let mut lines = text.strip_suffix("\r\n\r\n").unwrap_or(text).split("\r\n");
        let line = lines.next().unwrap_or_default();
        let mut parts = line.splitn(3, ' ');
        let mut part = || parts.next().filter(|p| p.bytes().all(is_visible)).map(str::to_owned);
        let (Some(first), Some(second), Some(third)) = (part(), part(), part()) else {
            return Err(malformed("first line", line));
        };
        if first.is_empty() || second.is_empty() {
            return Err(malformed("first line", line));
        }
        let mut fields = Vec::with_capacity(12);
        for line in lines {
            let (name, value) =
                line.split_once(':').ok_or_else(|| malformed("field line", line))?;
            if name.is_empty() || !name.bytes().all(is_token) || !value.bytes().all(is_visible) {
                return Err(malformed("field line", line));
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        Ok(Self { first, second, third, fields })
    }
}

impl Reader {
    /// A reader over a handle of `stream`.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new(), start: 0, end: 0 }
    }

    /// Bytes that were read but belong to no message yet.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.bytes().to_vec();
        self.start = self.end;
        rest
    }

    /// One request head.
    pub fn request_head(&mut self) -> Result<Head, Break> {
        let head = self.head()?;
        let is_known = head.third == "HTTP/1.1" || head.third == "HTTP/1.0";
        if is_known { Ok(head) } else { Err(malformed("version", &head.third)) }
    }

    /// One response head, interim or final.
    pub fn response_head(&mut self) -> Result<Head, Break> {
        let head = self.head()?;
        let is_status = head.second.len() == 3 && head.second.bytes().all(|b| b.is_ascii_digit());
        if head.first == "HTTP/1.1" && is_status {
            Ok(head)
        } else {
            Err(malformed("status line", &format!("{} {}", head.first, head.second)))
        }
    }

    /// A whole body, piece by piece; returns the trailers.
    pub fn body(
        &mut self,
        framing: Framing,
        mut each: impl FnMut(&[u8]),
    ) -> Result<Vec<(String, String)>, Break> {
        match framing {
            Framing::None => Ok(Vec::new()),
            Framing::Length(length) => self.exactly(length, &mut each).map(|()| Vec::new()),
            Framing::UntilClose => loop {
                if self.start < self.end {
                    each(self.bytes());
                    self.start = self.end;
                }
                match self.fill() {
                    Err(Break::Closed) => return Ok(Vec::new()),
                    other => other?,
                }
            },
            Framing::Chunked => self.chunks(&mut each),
        }
    }

    /// Waits for the orderly end of input; any byte before it is malformed.
    pub fn end(&mut self) -> Result<(), Break> {
        loop {
            if self.start < self.end {
                let rest = String::from_utf8_lossy(self.bytes()).into_owned();
                return Err(malformed("bytes where the end was due", &rest));
            }
            match self.fill() {
                Err(Break::Closed) => return Ok(()),
                other => other?,
            }
        }
    }

    fn head(&mut self) -> Result<Head, Break> {
        let mut searched = 0;
        loop {
            let bytes = self.bytes();
            if let Some(at) = memchr::memmem::find(&bytes[searched..], b"\r\n\r\n") {
                let length = searched + at + 4;
                let head = Head::parse(&bytes[..length]);
                self.start += length;
                return head;
            }
            searched = bytes.len().saturating_sub(3);
            if bytes.len() > HEAD_BYTES_MAX {
                return Err(malformed("head without end", ""));
            }
            let is_begun = !bytes.is_empty();
            self.fill()
                .map_err(|b| if is_begun && b == Break::Closed { Break::Truncated } else { b })?;
        }
    }

    fn chunks(&mut self, each: &mut impl FnMut(&[u8])) -> Result<Vec<(String, String)>, Break> {
        loop {
            let line = self.line()?;
            let is_hex =
                !line.is_empty() && line.len() <= 16 && line.bytes().all(|b| b.is_ascii_hexdigit());
            let size = u64::from_str_radix(&line, 16).ok().filter(|_| is_hex);
            let size = size.ok_or_else(|| malformed("chunk size", &line))?;
            if size == 0 {
                break;
            }
            self.exactly(size, each)?;
            let end = self.line()?;
            if !end.is_empty() {
                return Err(malformed("chunk end", &end));
            }
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(trailers);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed("trailer", &line))?;
            trailers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn line(&mut self) -> Result<String, Break> {
        loop {
            let bytes = self.bytes();
            if let Some(at) = memchr::memchr(b'\n', bytes) {
                let line =
                    bytes[..at].strip_suffix(b"\r").ok_or_else(|| malformed("bare LF", ""))?;
                let line = String::from_utf8(line.to_vec()).map_err(|_| malformed("line", ""))?;
                self.start += at + 1;
                return Ok(line);
            }
            if bytes.len() > HEAD_BYTES_MAX {
                return Err(malformed("line without end", ""));
            }
            self.fill().map_err(truncated)?;
        }
    }

    fn exactly(&mut self, length: u64, each: &mut impl FnMut(&[u8])) -> Result<(), Break> {
        let mut left = length;
        while left > 0 {
            if self.start == self.end {
                self.fill().map_err(truncated)?;
            }
            let have = (self.end - self.start).min(usize::try_from(left).unwrap_or(usize::MAX));
            each(&self.buffer[self.start..self.start + have]);
            self.start += have;
            left -= have as u64;
        }
        Ok(())
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn fill(&mut self) -> Result<(), Break> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < self.end + READ_BYTES {
            self.buffer.resize(self.end + READ_BYTES, 0);
        }
        let outcome = loop {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match outcome {
            Ok(0) => Err(Break::Closed),
            Ok(count) => {
                self.end += count;
                Ok(())
            }
            Err(error) => Err(match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Break::Silent,
                _ => Break::Reset,
            }),
        }
    }
}

fn truncated(broken: Break) -> Break {
    if broken == Break::Closed { Break::Truncated } else { broken }
}

fn malformed(what: &str, text: &str) -> Break {
    Break::Malformed(format!("{what}: {:?}", text.chars().take(200).collect::<String>()))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_visible(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

const HEAD_BYTES_MAX: usize = 256 * 1024;
const READ_BYTES: usize = 64 * 1024;
