//! Just enough HTTP/1.1 for both ends of the demo: heads and bodies of known length off a blocking stream.
//!
//! It shares nothing with the proxy's own parser: what the load verifies must not be read by what it verifies.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A connection and what was read beyond the last message.
pub(super) struct Wire {
    stream: TcpStream,
    held: Vec<u8>,
}

impl Wire {
    /// Gives up a read or write after `patience`.
    pub fn new(stream: TcpStream, patience: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream, held: Vec::new() })
    }

    pub const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next head, its empty line left out; `None` when the peer closed before its first byte.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = self.held.windows(4).position(|four| four == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&self.held[..end]).into_owned();
                self.held.drain(..end + 4);
                return Ok(Some(Head(text)));
            }
            if self.held.len() > HEAD_BYTES_MAX {
                return Err(io::Error::new(ErrorKind::InvalidData, "a head without end"));
            }
            if self.fill()? == 0 {
                let is_between = self.held.is_empty();
                return if is_between { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The next `length` bytes.
    pub fn body(&mut self, length: usize) -> io::Result<Vec<u8>> {
        if length > BODY_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "a body longer than any here"));
        }
        while self.held.len() < length {
            if self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.held.drain(..length).collect())
    }

    /// Whether nothing is left over between two messages.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 2048];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(n) => {
                    self.held.extend_from_slice(&buffer[..n]);
                    return Ok(n);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A message head as text.
#[derive(Debug)]
pub(super) struct Head(String);

impl Head {
    /// The request line or status line.
    pub fn first_line(&self) -> &str {
        self.0.lines().next().unwrap_or("")
    }

    /// The value of the field `name`, where it stands first.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.0.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Whether the connection ends after this message.
    pub fn is_last(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, _) = listener.accept().unwrap();
        (Wire::new(near, Duration::from_secs(10)).unwrap(), far)
    }

    #[test]
    fn messages_come_apart_wherever_the_bytes_were_torn() {
        let text = b"HTTP/1.1 200 OK\r\nContent-LENGTH:  5 \r\nconnection: Close\r\n\r\nhelloHTTP/1.1 204 X\r\n\r\n";
        for cut in 0..text.len() {
            let (mut wire, mut far) = pair();
            let sending = std::thread::spawn(move || {
                far.set_nodelay(true).unwrap();
                far.write_all(&text[..cut]).unwrap();
                far.write_all(&text[cut..]).unwrap();
            });
            let head = wire.head().unwrap().unwrap();
            assert_eq!(head.first_line(), "HTTP/1.1 200 OK");
            assert_eq!(head.field("content-length"), Some("5"));
            assert!(head.is_last());
            assert_eq!(wire.body(5).unwrap(), b"hello");
            let next = wire.head().unwrap().unwrap();
            assert!(next.first_line() == "HTTP/1.1 204 X" && !next.is_last());
            assert!(wire.is_empty());
            sending.join().unwrap();
            assert!(wire.head().unwrap().is_none(), "closed between two messages");
        }
    }

    #[test]
    fn a_torn_or_endless_message_is_an_error() {
        let (mut wire, mut far) = pair();
        far.write_all(b"HTTP/1.1 200").unwrap();
        drop(far);
        assert_eq!(wire.head().unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let (mut wire, mut far) = pair();
        far.write_all(&[b'a'; HEAD_BYTES_MAX + 2048]).unwrap();
        assert_eq!(wire.head().unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(wire.body(BODY_BYTES_MAX + 1).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
