//! The verifier: many clients, a mixed plan from a seed, every answer checked for identity, order and every byte.
//!
//! Each request carries a nonce that its body is derived from and that the origin must return, so an answer that
//! belongs to another request, and a byte that belongs to another body, both show. The figures are exact:
//! `answered + lost + abandoned` is the number of requests sent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::noise;
use super::origin::append_chunks;
use super::wire::{Break, Framing, Head, Reader};

/// What to send.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many requests in all.
    pub requests: u64,
    /// How many clients at a time.
    pub clients: u64,
    /// Where the plan comes from.
    pub seed: u64,
    /// The largest body.
    pub body_bytes_max: u64,
    /// Whether a proxy stands between: then origins may close and delimit by close, since that must not show.
    pub is_proxied: bool,
}

/// What came back.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whole answers, right or wrong.
    pub answered: u64,
    /// Answers with a wrong status, length, framing or byte.
    pub wrong: u64,
    /// Requests without a whole answer.
    pub lost: u64,
    /// Answers that carry another request's nonce.
    pub mixed: u64,
    /// Requests whose connection the client itself dropped.
    pub abandoned: u64,
    /// Body bytes received and compared.
    pub bytes_down: u64,
    /// Body bytes sent and compared by the origin.
    pub bytes_up: u64,
    /// Connections used.
    pub connections: u64,
    /// Whole answers by origin.
    pub by_origin: BTreeMap<String, u64>,
    /// The first faults in words.
    pub complaints: Vec<String>,
}

/// Runs the plan to its end and adds up.
pub fn verify(address: SocketAddr, plan: &Plan) -> Verdict {
    let clients: Vec<_> = (0..plan.clients)
        .map(|number| {
            let share =
                plan.requests / plan.clients + u64::from(number < plan.requests % plan.clients);
            let plan = plan.clone();
            let runs = move || Runner::new(address, plan, number).run(share);
            thread::Builder::new()
                .stack_size(512 * 1024)
                .spawn(runs)
                .expect("a thread for a client")
        })
        .collect();
    let mut sum = Verdict::default();
    for client in clients {
        sum.add(client.join().expect("a client does not panic"));
    }
    sum
}

impl Verdict {
    /// Panics unless every request was answered rightly.
    pub fn assert_flawless(&self) {
        let is_flawless = (self.wrong, self.lost, self.mixed) == (0, 0, 0);
        assert!(is_flawless, "{self:#?}");
    }

    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.wrong += other.wrong;
        self.lost += other.lost;
        self.mixed += other.mixed;
        self.abandoned += other.abandoned;
        self.bytes_down += other.bytes_down;
        self.bytes_up += other.bytes_up;
        self.connections += other.connections;
        for (origin, count) in other.by_origin {
            *self.by_origin.entry(origin).or_default() += count;
        }
        self.complaints.extend(other.complaints);
        self.complaints.truncate(COMPLAINTS_MAX);
    }

    fn complain(&mut self, ask: &Ask, what: &str) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(format!("{ask:?}: {what}"));
        }
    }
}

/// One planned request.
#[derive(Debug, Clone, Copy)]
struct Ask {
    nonce: u64,
    kind: Kind,
    length: u64,
    is_last: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Get,
    GetChunked,
    GetUntilClose,
    GetThenClose,
    Head,
    Upload { method: &'static str, is_chunked: bool },
}

struct Runner {
    address: SocketAddr,
    plan: Plan,
    draws: SmallRng,
    number: u64,
    sent: u64,
    has_sent_largest: bool,
    link: Option<(TcpStream, Reader)>,
    out: Vec<u8>,
    verdict: Verdict,
}

impl Runner {
    fn new(address: SocketAddr, plan: Plan, number: u64) -> Self {
        let draws = SmallRng::seed_from_u64(plan.seed.wrapping_mul(1_000_003) + number);
        Self {
            address,
            plan,
            draws,
            number,
            sent: 0,
            has_sent_largest: false,
            link: None,
            out: Vec::new(),
            verdict: Verdict::default(),
        }
    }

    fn run(mut self, requests: u64) -> Verdict {
        while self.sent < requests {
            let batch = self.batch(requests - self.sent);
            self.sent += batch.len() as u64;
            self.exchange(&batch);
        }
        self.verdict
    }

    /// The next requests, written at once and answered in order. Uploads above a buffer's size go alone:
    /// a client that writes without reading may only write what fits on the way.
    fn batch(&mut self, left: u64) -> Vec<Ask> {
        if self.sent >= LARGEST_UPLOAD_AFTER && !self.has_sent_largest {
            self.has_sent_largest = true;
            let kind = Kind::Upload { method: "PUT", is_chunked: self.number.is_multiple_of(2) };
            let length = self.plan.body_bytes_max;
            return vec![Ask { nonce: self.nonce(0), kind, length, is_last: false }];
        }
        let is_single = self.draws.random_bool(0.4);
        let depth = if is_single { 1 } else { self.draws.random_range(2..=16).min(left) };
        let is_closing = self.draws.random_bool(0.02);
        (0..depth)
            .map(|place| {
                let nonce = self.nonce(place);
                let kind = self.kind();
                let mut length = self.length(nonce);
                if depth > 1 && matches!(kind, Kind::Upload { .. }) {
                    length = length.min(PIPELINED_UPLOAD_MAX);
                }
                Ask { nonce, kind, length, is_last: is_closing && place + 1 == depth }
            })
            .collect()
    }

    /// Unique in the run: the client above, its count of requests below.
    fn nonce(&self, place: u64) -> u64 {
        ((self.number + 1) << 40) | (self.sent + place + 1)
    }

    fn kind(&mut self) -> Kind {
        let kind = match self.draws.random_range(0..100) {
            0..38 => Kind::Get,
            38..60 => Kind::GetChunked,
            60..63 => Kind::GetUntilClose,
            63..66 => Kind::GetThenClose,
            66..72 => Kind::Head,
            72..82 => Kind::Upload { method: "POST", is_chunked: false },
            82..90 => Kind::Upload { method: "POST", is_chunked: true },
            90..95 => Kind::Upload { method: "PUT", is_chunked: false },
            _ => Kind::Upload { method: "PUT", is_chunked: true },
        };
        let closes = matches!(kind, Kind::GetUntilClose | Kind::GetThenClose);
        if closes && !self.plan.is_proxied { Kind::Get } else { kind }
    }

    /// Mostly small, a few large, and one of the largest size early in each client's plan.
    fn length(&mut self, nonce: u64) -> u64 {
        let max = self.plan.body_bytes_max;
        if nonce == ((self.number + 1) << 40) | LARGEST_DOWNLOAD_AT {
            return max;
        }
        let length = match self.draws.random_range(0..20_000) {
            0..1_000 => 0,
            1_000..10_000 => self.draws.random_range(1..=256),
            10_000..16_000 => self.draws.random_range(257..=4_096),
            16_000..19_700 => self.draws.random_range(4_097..=65_536),
            19_700..19_999 => self.draws.random_range(65_537..=1_048_576),
            _ => 1 << self.draws.random_range(20..=26),
        };
        length.min(max)
    }

    fn exchange(&mut self, batch: &[Ask]) {
        if let Err(error) = self.connect() {
            self.lose(batch, &error.to_string());
            return;
        }
        if let Err(error) = self.send(batch) {
            self.lose(batch, &error.to_string());
            return;
        }
        if self.draws.random_bool(ABANDON) {
            self.verdict.abandoned += batch.len() as u64;
            self.link = None;
            return;
        }
        for (place, ask) in batch.iter().enumerate() {
            if let Err(broken) = self.receive(ask) {
                self.lose(&batch[place..], &format!("{broken:?}"));
                return;
            }
        }
        if batch.last().is_some_and(|ask| ask.is_last) {
            self.expect_end(batch);
        }
    }

    fn connect(&mut self) -> io::Result<()> {
        if self.link.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            let reader = Reader::new(stream.try_clone()?);
            self.link = Some((stream, reader));
            self.verdict.connections += 1;
        }
        Ok(())
    }

    fn send(&mut self, batch: &[Ask]) -> io::Result<()> {
        let Some((stream, _)) = &mut self.link else { return Ok(()) };
        self.out.clear();
        for ask in batch {
            append(&mut self.out, ask, stream)?;
            if let Kind::Upload { .. } = ask.kind {
                self.verdict.bytes_up += ask.length;
            }
        }
        stream.write_all(&self.out)
    }

    fn receive(&mut self, ask: &Ask) -> Result<(), Break> {
        let Some((_, reader)) = &mut self.link else { return Err(Break::Closed) };
        let method = ask.method();
        let mut head = reader.response_head()?;
        while head.status() < 200 {
            head = reader.response_head()?;
        }
        let framing = head.response_framing(method)?;
        let expected = ask.expected();
        let (mut length, mut is_right) = (0, true);
        reader.body(framing, |piece| {
            is_right &= match &expected {
                Expected::Noise => noise::is_at(ask.nonce, length, piece),
                Expected::Text(text) => {
                    text.as_bytes().get(length as usize..).is_some_and(|t| t.starts_with(piece))
                }
            };
            length += piece.len() as u64;
        })?;
        self.verdict.bytes_down += length;
        self.judge(ask, &head, framing, length, is_right);
        Ok(())
    }

    fn judge(&mut self, ask: &Ask, head: &Head, framing: Framing, length: u64, is_right: bool) {
        self.verdict.answered += 1;
        if let Some(origin) = head.field("x-origin") {
            match self.verdict.by_origin.get_mut(origin) {
                Some(count) => *count += 1,
                None => _ = self.verdict.by_origin.insert(origin.to_owned(), 1),
            }
        }
        let wanted = match (ask.kind, ask.expected()) {
            (Kind::Head, _) => 0,
            (_, Expected::Noise) => ask.length,
            (_, Expected::Text(text)) => text.len() as u64,
        };
        // A HEAD states the length that GET would have (RFC 9110 §9.3.2).
        let stated = head.field("content-length").and_then(|text| text.parse().ok());
        let states_right = ask.kind != Kind::Head || stated == Some(ask.length);
        let nonce = head.field("x-nonce").and_then(|text| text.parse().ok());
        if nonce.is_some() && nonce != Some(ask.nonce) {
            self.verdict.mixed += 1;
            self.verdict.complain(ask, &format!("the answer belongs to {nonce:?}"));
        } else if nonce.is_none()
            || head.status() != 200
            || !is_right
            || length != wanted
            || !states_right
        {
            self.verdict.wrong += 1;
            let what = format!(
                "{length} of {wanted} bytes by {framing:?}, right {is_right}, head {head:?}"
            );
            self.verdict.complain(ask, &what);
        }
    }

    fn expect_end(&mut self, batch: &[Ask]) {
        let Some((_, mut reader)) = self.link.take() else { return };
        if let (Err(broken), Some(ask)) = (reader.end(), batch.last()) {
            self.verdict.wrong += 1;
            self.verdict
                .complain(ask, &format!("no orderly end after Connection: close: {broken:?}"));
        }
    }

    fn lose(&mut self, rest: &[Ask], why: &str) {
        self.verdict.lost += rest.len() as u64;
        self.verdict.complain(&rest[0], why);
        self.link = None;
    }
}

/// What the body of an answer must be.
enum Expected {
    Noise,
    Text(String),
}

impl Ask {
    fn method(&self) -> &'static str {
        match self.kind {
            Kind::Head => "HEAD",
            Kind::Upload { method, .. } => method,
            _ => "GET",
        }
    }

    fn expected(&self) -> Expected {
        match self.kind {
            Kind::Upload { .. } => Expected::Text(format!("length={} matches=yes", self.length)),
            _ => Expected::Noise,
        }
    }
}

/// Appends a request to `out`; what becomes large goes to the stream at once.
fn append(out: &mut Vec<u8>, ask: &Ask, stream: &mut TcpStream) -> io::Result<()> {
    let Ask { nonce, length, .. } = *ask;
    let method = ask.method();
    let (path, query) = match ask.kind {
        Kind::Get | Kind::Head => ("bytes", ""),
        Kind::GetThenClose => ("bytes", "&then=close"),
        Kind::GetChunked => ("chunked", ""),
        Kind::GetUntilClose => ("until-close", ""),
        Kind::Upload { .. } => ("upload", ""),
    };
    let closing = if ask.is_last { "Connection: close\r\n" } else { "" };
    let framing = match ask.kind {
        Kind::Upload { is_chunked: true, .. } => "Transfer-Encoding: chunked\r\n".to_owned(),
        Kind::Upload { .. } => format!("Content-Length: {length}\r\n"),
        _ => String::new(),
    };
    let mut head = String::with_capacity(192);
    write!(head, "{method} /{path}/{length}?seed={nonce}{query} HTTP/1.1\r\nHost: verify\r\n")
        .expect("into a String");
    write!(head, "X-Nonce: {nonce}\r\n{closing}{framing}\r\n").expect("into a String");
    out.extend_from_slice(head.as_bytes());
    match ask.kind {
        Kind::Upload { is_chunked: true, .. } => {
            append_chunks(out, nonce, length, &mut |full| stream.write_all(full))?;
            out.extend_from_slice(b"0\r\n\r\n");
        }
        Kind::Upload { .. } => {
            let mut done = 0;
            while done < length {
                let piece = noise::stretch(nonce, done, length - done);
                out.extend_from_slice(piece);
                done += piece.len() as u64;
                if out.len() >= WRITE_BYTES {
                    stream.write_all(out)?;
                    out.clear();
                }
            }
        }
        _ => {}
    }
    Ok(())
}

const LARGEST_DOWNLOAD_AT: u64 = 100;
const LARGEST_UPLOAD_AFTER: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(20);
const COMPLAINTS_MAX: usize = 8;
const PIPELINED_UPLOAD_MAX: u64 = 2_048;
const WRITE_BYTES: usize = 64 * 1024;
const ABANDON: f64 = 0.002;
