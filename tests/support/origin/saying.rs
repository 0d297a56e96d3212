//! Answers that a test sets and changes, for what a cache does with them: `/say/NAME…` and `/count/NAME…`.

use std::io::{self, Write};

use super::answers::{Ask, Link, Next};
use super::{Origin, lock};

/// What `/say/NAME`, with anything behind it, answers from now on. A request whose precondition names the ETag or
/// Last-Modified among the fields gets a 304 with the same fields; a Range is not understood.
#[derive(Debug, Clone)]
pub struct Saying {
    status: u16,
    fields: String,
    body: Vec<u8>,
    delivery: Delivery,
    before: Option<&'static str>,
    midway: Option<&'static str>,
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Content-Length.
    Length,
    /// Transfer-Encoding: chunked, a chunk for each 10,000 bytes.
    Chunked,
    /// The end of the connection.
    Close,
}

impl Saying {
    /// A 200 with this body and these field lines, separated by `|`.
    pub fn new(fields: &str, body: impl Into<Vec<u8>>) -> Self {
        let fields = fields.split('|').filter(|line| !line.is_empty());
        Self {
            status: 200,
            fields: fields.flat_map(|line| [line, "\r\n"]).collect(),
            body: body.into(),
            delivery: Delivery::Length,
            before: None,
            midway: None,
        }
    }

    /// With another status.
    pub fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// With another delivery.
    pub fn delivered(self, delivery: Delivery) -> Self {
        Self { delivery, ..self }
    }

    /// Not before the gate is open.
    pub fn held(self, gate: &'static str) -> Self {
        Self { before: Some(gate), ..self }
    }

    /// The second half of the body not before the gate is open.
    pub fn halved(self, gate: &'static str) -> Self {
        Self { midway: Some(gate), ..self }
    }

    fn value(&self, name: &str) -> Option<&str> {
        let lines = self.fields.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn is_unchanged_for(&self, ask: &Ask<'_>) -> bool {
        [("if-none-match", "etag"), ("if-modified-since", "last-modified")].iter().any(
            |(condition, validator)| {
                ask.head.field(condition).is_some_and(|asked| self.value(validator) == Some(asked))
            },
        )
    }

    fn delimit(&self) -> String {
        match self.delivery {
            Delivery::Length => format!("Content-Length: {}\r\n", self.body.len()),
            Delivery::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
            Delivery::Close => "Connection: close\r\n".to_owned(),
        }
    }

    fn wrap(&self, piece: &[u8]) -> Vec<u8> {
        if self.delivery != Delivery::Chunked {
            return piece.to_vec();
        }
        let chunk =
            |piece: &[u8]| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        piece.chunks(CHUNK_BYTES).flat_map(chunk).collect()
    }
}

impl Origin {
    /// Sets what `/say/NAME…` answers; a request that has arrived already gets what was set before.
    pub fn say(&self, name: &str, saying: Saying) {
        lock(&self.shared.sayings).insert(name.to_owned(), saying);
    }

    /// How many requests wait at that gate.
    pub fn waiting(&self, gate: &str) -> usize {
        lock(&self.shared.waiting).get(gate).copied().unwrap_or(0)
    }
}

impl Link<'_> {
    pub(super) fn say(&mut self, ask: &Ask<'_>) -> io::Result<Next> {
        let name = ask.parts.get(1).copied().unwrap_or("");
        let Some(saying) = lock(&self.shared.sayings).get(name).cloned() else {
            return self.text(ask, "404 Not Found", "nothing is set");
        };
        if saying.before.is_some_and(|gate| !self.shared.pass(gate)) {
            return Ok(Next::Close);
        }
        let Saying { status, fields, body, .. } = &saying;
        if saying.is_unchanged_for(ask) {
            let out = self.head(ask, "304 Not Modified", fields);
            self.stream.write_all(&out)?;
            return Ok(Next::Keep);
        }
        let mut out = self.head(ask, &format!("{status} Said"), &(saying.delimit() + fields));
        if ask.has_body() {
            let (first, second) = body.split_at(body.len() / 2);
            out.extend(saying.wrap(first));
            if let Some(gate) = saying.midway {
                self.stream.write_all(&out)?;
                out.clear();
                if !self.shared.pass(gate) {
                    return Ok(Next::Close);
                }
            }
            out.extend(saying.wrap(second));
            if saying.delivery == Delivery::Chunked {
                out.extend_from_slice(b"0\r\n\r\n");
            }
        }
        self.stream.write_all(&out)?;
        Ok(if saying.delivery == Delivery::Close { Next::Close } else { Next::Keep })
    }

    /// A number that GET and HEAD tell, fresh for an hour, and any other method raises by one and tells.
    pub(super) fn count(&mut self, ask: &Ask<'_>) -> io::Result<Next> {
        let number = {
            let mut counts = lock(&self.shared.counts);
            let number = counts.entry(ask.head.second.clone()).or_default();
            *number += u64::from(!matches!(ask.head.first.as_str(), "GET" | "HEAD"));
            *number
        };
        let text = number.to_string();
        let fields = format!("Content-Length: {}\r\nCache-Control: max-age=3600\r\n", text.len());
        let mut out = self.head(ask, "200 OK", &fields);
        if ask.has_body() {
            out.extend_from_slice(text.as_bytes());
        }
        self.stream.write_all(&out)?;
        Ok(Next::Keep)
    }
}

const CHUNK_BYTES: usize = 10_000;
