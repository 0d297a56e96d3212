//! The balancer's `/live`, read on a thread of its own: connect, read events, and again when it ends.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use serde::de::DeserializeOwned;

use crate::control::admin::frame::{Frame, History};
use crate::http::{HeadLimits, HeadScan, ResponseHead};

/// What comes from the balancer.
pub(super) enum Word {
    /// The past.
    History(Box<History>),
    /// The present.
    Frame(Box<Frame>),
    /// Nothing: why.
    Lost(String),
}

/// Begins to listen to the admin listener at `address`, for ever.
///
/// # Errors
/// When there is no thread to be had.
pub(super) fn listen(address: SocketAddr) -> io::Result<Receiver<Word>> {
    // A reader that is not drawn keeps the balancer waiting; it then leaves frames out.
    let (tell, words) = bounded(4);
    thread::Builder::new().name("live".to_owned()).spawn(move || {
        loop {
            let end = read(address, |word| tell.send(word).is_ok());
            let why = end.err().map_or("the stream ended".to_owned(), |error| why(&error));
            if tell.send(Word::Lost(why)).is_err() {
                return;
            }
            // Between two connects: the balancer may be on its way back.
            thread::sleep(RETRY);
        }
    })?;
    Ok(words)
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "it says nothing".to_owned(),
        _ => error.to_string(),
    }
}

/// Reads one stream to its end, or until `take` wants no more.
fn read(address: SocketAddr, mut take: impl FnMut(Word) -> bool) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_MAX)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.write_all(format!("GET /live HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut held = Vec::new();
    let mut is_open = false;
    let mut piece = vec![0; 64 * 1024];
    loop {
        if !is_open {
            is_open = has_opened(&mut held)?;
        }
        while is_open && let Some(event) = next_event(&mut held) {
            let Some(word) = word(&event)? else { continue };
            if !take(word) {
                return Ok(());
            }
        }
        if held.len() > HELD_BYTES_MAX {
            return Err(io::Error::other("an event without end"));
        }
        match stream.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(n) => held.extend_from_slice(&piece[..n]),
            // A read with a timeout is not taken up again by itself when we were stopped meanwhile.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether the head is whole and good; it is removed.
fn has_opened(held: &mut Vec<u8>) -> io::Result<bool> {
    let scan = HeadScan::default().scan_response(held, &HeadLimits::default());
    let Some(length) = scan.map_err(|_| io::Error::other("what answers is no balancer"))? else {
        return Ok(false);
    };
    let mut head = ResponseHead::default();
    head.parse(&held[..length]).map_err(|_| io::Error::other("what answers is no balancer"))?;
    if head.status != 200 {
        let text = String::from_utf8_lossy(&held[length..]);
        let text = text.lines().next().unwrap_or_default();
        return Err(io::Error::other(format!("it answers {}: {text}", head.status)));
    }
    held.drain(..length);
    Ok(true)
}

/// The next event without the empty line behind it.
fn next_event(held: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = held.windows(2).position(|pair| pair == b"\n\n")?;
    let mut event: Vec<u8> = held.drain(..end + 2).collect();
    event.truncate(end);
    Some(event)
}

/// What an event says; `None` for what we do not know.
fn word(event: &[u8]) -> io::Result<Option<Word>> {
    let text = str::from_utf8(event).map_err(|_| io::Error::other("an event that is no text"))?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let Some(data) = field("data: ") else { return Ok(None) };
    Ok(match field("event: ") {
        Some("history") => Some(Word::History(Box::new(json(data)?))),
        Some("frame") => Some(Word::Frame(Box::new(json(data)?))),
        _ => None,
    })
}

fn json<T: DeserializeOwned>(text: &str) -> io::Result<T> {
    serde_json::from_str(text)
        .map_err(|error| io::Error::other(format!("another version of balancer? {error}")))
}

const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A frame comes every second.
const SILENCE_MAX: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(1);
/// Longer than any frame of 500 backends, and than five minutes of 1,000 cores.
const HELD_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_however_it_is_cut() {
        let frame = serde_json::to_string(&Frame { rps: 7.0, ..Frame::default() }).unwrap();
        let history = serde_json::to_string(&History::default()).unwrap();
        let text = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nretry: 1000\n\n\
             event: history\ndata: {history}\n\nevent: other\ndata: 1\n\nevent: frame\ndata: {frame}\n\n"
        );
        for cut in 0..text.len() {
            let (mut held, mut is_open, mut words) = (Vec::new(), false, Vec::new());
            for part in [&text[..cut], &text[cut..]] {
                held.extend_from_slice(part.as_bytes());
                is_open = is_open || has_opened(&mut held).unwrap();
                while is_open && let Some(event) = next_event(&mut held) {
                    words.extend(word(&event).unwrap());
                }
            }
            assert!(held.is_empty());
            assert!(
                matches!(&words[..], [Word::History(_), Word::Frame(frame)] if frame.rps == 7.0),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn what_is_no_balancer_is_said_to_be_none() {
        for bytes in
            ["SSH-2.0-x\r\n", "HTTP/1.1 421 Misdirected Request\r\nContent-Length: 4\r\n\r\nNo.\n"]
        {
            assert!(has_opened(&mut bytes.as_bytes().to_vec()).is_err(), "{bytes}");
        }
        assert!(word(b"event: frame\ndata: {}").is_err());
        assert!(word(b"event: frame\ndata: \xff").is_err());
        assert!(word(b": comment").unwrap().is_none());
    }
}
