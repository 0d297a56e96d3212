//! The judge: what was asked, where it arrived, what came back. Every request carries a nonce `~c<client>r<number>~`
//! in its path, a field and its body, and so does every answer; a nonce in front of the wrong eyes is a leak.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::wire::{Broken, Framing, Head};

/// Names one request of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nonce {
    pub client: u32,
    pub number: u32,
}

/// What a client got for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A whole answer.
    Answer(Answer),
    /// The connection ended in order before the first byte of an answer.
    Closed,
    /// The connection broke, ended within the answer, or fell silent; what had come by then.
    Broken { how: Broken, head: Option<Head>, body: Vec<u8> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
    pub framing: Framing,
    /// Status codes of the interim responses before it.
    pub interim: Vec<u16>,
}

/// The books of one run.
#[derive(Clone, Default)]
pub struct Ledger(Rc<RefCell<Books>>);

#[derive(Default)]
struct Books {
    requests: BTreeMap<Nonce, Entry>,
    complaints: Vec<String>,
}

#[derive(Default)]
struct Entry {
    method: String,
    reached: Vec<String>,
    heard: Vec<Heard>,
}

impl Nonce {
    pub fn parse(text: &str) -> Option<Self> {
        let (client, number) = text.strip_prefix("~c")?.strip_suffix('~')?.split_once('r')?;
        Some(Self { client: client.parse().ok()?, number: number.parse().ok()? })
    }

    /// `length` bytes that nobody else's body contains.
    pub fn body(self, length: usize) -> Vec<u8> {
        let word = self.to_string();
        let mut body = word.repeat(length / word.len() + 1).into_bytes();
        body.truncate(length);
        body
    }

    /// Every nonce that stands in `bytes`.
    pub fn all_in(bytes: &[u8]) -> Vec<Self> {
        let text = String::from_utf8_lossy(bytes);
        text.split('~').filter_map(|part| Self::parse(&format!("~{part}~"))).collect()
    }
}

impl std::fmt::Display for Nonce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "~c{}r{}~", self.client, self.number)
    }
}

impl Heard {
    /// The whole answer.
    ///
    /// # Panics
    /// When there was none.
    pub fn answer(self) -> Answer {
        match self {
            Self::Answer(answer) => answer,
            other => panic!("an answer was due, not {other:?}"),
        }
    }

    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answer(answer) => Some(answer.status),
            _ => None,
        }
    }
}

impl Ledger {
    /// A client sent, or began to send, a request.
    pub fn asked(&self, nonce: Nonce, method: &str) {
        let fresh = Entry { method: method.to_owned(), ..Entry::default() };
        let known = self.0.borrow_mut().requests.insert(nonce, fresh);
        assert!(known.is_none(), "{nonce} was used twice by the scenario itself");
    }

    /// The head of a request reached a backend.
    pub fn reached(&self, nonce: Nonce, backend: &str) {
        match self.0.borrow_mut().requests.get_mut(&nonce) {
            Some(entry) => entry.reached.push(backend.to_owned()),
            None => self.complain(format!("{backend} got {nonce}, which nobody asked")),
        }
    }

    /// What its client got for a request.
    pub fn heard(&self, nonce: Nonce, heard: &Heard) {
        let mut books = self.0.borrow_mut();
        books.requests.entry(nonce).or_default().heard.push(heard.clone());
        let broken = match heard {
            Heard::Broken { how: Broken::Malformed(why), .. } => Some(why.clone()),
            Heard::Answer(answer) => wrong_answer(nonce, answer),
            _ => None,
        };
        books.complaints.extend(broken.map(|why| format!("{nonce}: {why}")));
    }

    /// All that a client ever received: nothing of it may belong to another.
    pub fn heard_bytes(&self, client: u32, bytes: &[u8]) {
        for nonce in Nonce::all_in(bytes).into_iter().filter(|n| n.client != client) {
            self.complain(format!("client {client} received {nonce}"));
        }
    }

    pub fn complain(&self, text: String) {
        self.0.borrow_mut().complaints.push(text);
    }

    /// How many requests reached a backend.
    pub fn count_at(&self, backend: &str) -> usize {
        let books = self.0.borrow();
        books.requests.values().flat_map(|e| &e.reached).filter(|b| *b == backend).count()
    }

    /// # Panics
    /// When anybody complained, a request has not exactly one outcome, or one was sent more often than is safe.
    pub fn check(&self) {
        let books = self.0.borrow();
        let mut complaints = books.complaints.clone();
        for (nonce, entry) in &books.requests {
            if entry.heard.len() != 1 {
                complaints.push(format!("{nonce} has {} outcomes", entry.heard.len()));
            }
            let is_idempotent = matches!(entry.method.as_str(), "GET" | "HEAD" | "PUT" | "DELETE");
            let sent_max = if is_idempotent { 1 + RETRIES_MAX } else { 1 };
            if entry.reached.len() > sent_max {
                complaints.push(format!("{} {nonce} reached {:?}", entry.method, entry.reached));
            }
        }
        assert!(complaints.is_empty(), "the ledger complains:\n{}", complaints.join("\n"));
    }
}

/// A 200 comes from a scripted backend: it must be that backend's answer to this very request, byte for byte.
fn wrong_answer(nonce: Nonce, answer: &Answer) -> Option<String> {
    if answer.status != 200 {
        return None;
    }
    let head = &answer.head;
    let (named, length) = (head.all("x-nonce"), head.all("x-length"));
    let length = length.first().and_then(|text| text.parse().ok());
    if named != [nonce.to_string()] {
        return Some(format!("got the answer to {named:?}"));
    }
    let body = nonce.body(length.unwrap_or(usize::MAX >> 40));
    let is_whole =
        answer.body == body || (answer.framing == Framing::None && answer.body.is_empty());
    (!is_whole)
        .then(|| format!("{} body bytes, not the {} that were sent", answer.body.len(), body.len()))
}

/// A request is sent once and repeated at most this often (BALANCING.md).
const RETRIES_MAX: usize = 2;
