//! One line of the access log. Pure: what is known of a request goes in, bytes come out.
//!
//! | format | is |
//! |---|---|
//! | `short` | time, client, request, status, and everything we know as `name=value` |
//! | `common` | the Common Log Format, to the letter |
//! | `combined` | the same with referrer and user agent, to the letter: what log readers know |
//! | `json` | everything, one object a line |
//!
//! Invariants: an entry is exactly one line whatever a client sends (`escape`), and no longer than
//! [`LINE_BYTES_MAX`]. Times are UTC. The size in `common` and `combined` is that of the body.

mod escape;

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use escape::{json, quoted, word};

use crate::time::DATE_BYTES;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Everything but referrer and user agent, for people.
    Short,
    /// The Common Log Format.
    Common,
    /// The Combined Log Format.
    #[default]
    Combined,
    /// Everything, for programs.
    Json,
}

/// What the cache had to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheWord {
    /// Answered by a fresh stored response.
    Hit,
    /// Sent forward: nothing stored would do.
    Miss,
    /// Answered by a stale one.
    Stale,
    /// Answered by one that the origin said still holds.
    Revalidated,
    /// None of the cache's business.
    Bypass,
    /// Answered by what another request was fetching.
    Collapsed,
}

impl CacheWord {
    /// As it is written.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Miss => "MISS",
            Self::Stale => "STALE",
            Self::Revalidated => "REVALIDATED",
            Self::Bypass => "BYPASS",
            Self::Collapsed => "COLLAPSED",
        }
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// A request that was understood.
    Parsed {
        /// The method's token.
        method: &'a [u8],
        /// The target as it was sent.
        target: &'a [u8],
        /// `1.0` or `1.1`.
        version: &'static str,
    },
    /// The first line of something that was not.
    Raw(&'a [u8]),
}

/// What is known of a request that is over. Empty texts are absent ones.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When it ended: an IMF-fixdate, and the milliseconds within that second.
    pub date: &'a [u8; DATE_BYTES],
    /// 0–999.
    pub ms: u16,
    /// The connection's other end.
    pub client: IpAddr,
    /// The request line.
    pub asked: Asked<'a>,
    /// For which authority.
    pub host: &'a [u8],
    /// The field of that name.
    pub referer: &'a [u8],
    /// The field of that name.
    pub user_agent: &'a [u8],
    /// Of the answer; [`CLIENT_LEFT`] when there was none.
    pub status: u16,
    /// Which core served it.
    pub core: usize,
    /// Who was asked last.
    pub backend: &'a str,
    /// How many backends were asked.
    pub tries: u32,
    /// What the cache had to do with it.
    pub cache: Option<CacheWord>,
    /// Why it went wrong, in the vocabulary of metrics and `Proxy-Status`.
    pub reason: &'static str,
    /// Waiting because every backend was busy.
    pub queue: Duration,
    /// Getting a connection.
    pub connect: Duration,
    /// From there to the whole head of the answer.
    pub first_byte: Duration,
    /// From the first byte of the request to the last of the answer.
    pub total: Duration,
    /// Head and body of the request.
    pub bytes_in: u64,
    /// Head and body of the answer, as far as they were sent.
    pub bytes_out: u64,
    /// The head's part of that.
    pub head_out: u64,
}

impl<'a> Entry<'a> {
    /// The same, with the name of who was asked last.
    pub fn with_backend<'b>(&self, backend: &'b str) -> Entry<'b>
    where
        'a: 'b,
    {
        Entry { backend, ..*self }
    }
}

impl Format {
    /// Appends the line of `entry`, its end included.
    pub fn write(self, out: &mut Vec<u8>, entry: &Entry<'_>) {
        let start = out.len();
        match self {
            Self::Short => short(out, entry),
            Self::Common => common(out, entry),
            Self::Combined => {
                common(out, entry);
                for (text, max) in
                    [(entry.referer, REFERER_MAX), (entry.user_agent, USER_AGENT_MAX)]
                {
                    out.extend_from_slice(b" \"");
                    quoted(out, or_dash(text), max);
                    out.push(b'"');
                }
            }
            Self::Json => object(out, entry),
        }
        out.push(b'\n');
        debug_assert!(out.len() - start <= LINE_BYTES_MAX);
    }
}

fn common(out: &mut Vec<u8>, entry: &Entry<'_>) {
    address(out, entry.client);
    let date = entry.date;
    out.extend_from_slice(b" - - [");
    for (part, end) in [(5..7, b'/'), (8..11, b'/'), (12..16, b':'), (17..25, b' ')] {
        out.extend_from_slice(&date[part]);
        out.push(end);
    }
    out.extend_from_slice(b"+0000] ");
    request_line(out, entry);
    out.push(b' ');
    number(out, u64::from(entry.status));
    out.push(b' ');
    number(out, entry.bytes_out.saturating_sub(entry.head_out));
}

fn short(out: &mut Vec<u8>, entry: &Entry<'_>) {
    moment(out, entry);
    out.push(b' ');
    address(out, entry.client);
    out.push(b' ');
    request_line(out, entry);
    out.push(b' ');
    number(out, u64::from(entry.status));
    for (name, text) in [
        (&b" backend="[..], entry.backend.as_bytes()),
        (b" cache=", entry.cache.map_or("", CacheWord::label).as_bytes()),
        (b" reason=", entry.reason.as_bytes()),
    ] {
        out.extend_from_slice(name);
        word(out, or_dash(text), WORD_MAX);
    }
    for (name, value) in figures(entry) {
        out.push(b' ');
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        number(out, value);
    }
}

fn object(out: &mut Vec<u8>, entry: &Entry<'_>) {
    out.extend_from_slice(b"{\"time\":\"");
    moment(out, entry);
    out.extend_from_slice(b"\",\"client\":\"");
    address(out, entry.client);
    out.extend_from_slice(b"\",\"status\":");
    number(out, u64::from(entry.status));
    match entry.asked {
        Asked::Parsed { method, target, version } => {
            member(out, "method", method, WORD_MAX);
            member(out, "target", target, TARGET_MAX);
            member(out, "version", version.as_bytes(), WORD_MAX);
        }
        Asked::Raw(line) => member(out, "request", line, TARGET_MAX),
    }
    member(out, "host", entry.host, WORD_MAX);
    member(out, "referer", entry.referer, REFERER_MAX);
    member(out, "user_agent", entry.user_agent, USER_AGENT_MAX);
    member(out, "backend", entry.backend.as_bytes(), WORD_MAX);
    member(out, "cache", entry.cache.map_or("", CacheWord::label).as_bytes(), WORD_MAX);
    member(out, "reason", entry.reason.as_bytes(), WORD_MAX);
    for (name, value) in figures(entry) {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        number(out, value);
    }
    out.push(b'}');
}

/// What is a number, by its name.
fn figures(entry: &Entry<'_>) -> [(&'static str, u64); 8] {
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    [
        ("core", entry.core as u64),
        ("tries", u64::from(entry.tries)),
        ("queue_us", us(entry.queue)),
        ("connect_us", us(entry.connect)),
        ("first_byte_us", us(entry.first_byte)),
        ("total_us", us(entry.total)),
        ("bytes_in", entry.bytes_in),
        ("bytes_out", entry.bytes_out),
    ]
}

/// `"name":"text"`, or null.
fn member(out: &mut Vec<u8>, name: &str, text: &[u8], max: usize) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    if text.is_empty() {
        return out.extend_from_slice(b"null");
    }
    out.push(b'"');
    json(out, text, max);
    out.push(b'"');
}

fn request_line(out: &mut Vec<u8>, entry: &Entry<'_>) {
    out.push(b'"');
    match entry.asked {
        Asked::Parsed { method, target, version } => {
            quoted(out, method, WORD_MAX);
            out.push(b' ');
            quoted(out, target, TARGET_MAX);
            out.extend_from_slice(b" HTTP/");
            out.extend_from_slice(version.as_bytes());
        }
        Asked::Raw(line) => quoted(out, or_dash(line), TARGET_MAX),
    }
    out.push(b'"');
}

/// `2026-11-27T10:17:38.123Z`, from `Fri, 27 Nov 2026 10:17:38 GMT`.
fn moment(out: &mut Vec<u8>, entry: &Entry<'_>) {
    let date = entry.date;
    let month = MONTHS.iter().position(|name| *name == &date[8..11]).map_or(0, |at| at as u8 + 1);
    out.extend_from_slice(&date[12..16]);
    out.extend_from_slice(&[b'-', b'0' + month / 10, b'0' + month % 10, b'-']);
    out.extend_from_slice(&date[5..7]);
    out.push(b'T');
    out.extend_from_slice(&date[17..25]);
    let digit = |of: u16| b'0' + (entry.ms / of % 10) as u8;
    out.extend_from_slice(&[b'.', digit(100), digit(10), digit(1), b'Z']);
}

fn address(out: &mut Vec<u8>, client: IpAddr) {
    match client.to_canonical() {
        IpAddr::V4(ip) => {
            for (at, octet) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                number(out, u64::from(octet));
            }
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(ip) => drop(write!(out, "{ip}")),
    }
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

const fn or_dash(text: &[u8]) -> &[u8] {
    if text.is_empty() { b"-" } else { text }
}

/// What a client's requests that got no answer have for a status: nobody sends it, and log readers know it (from nginx).
pub const CLIENT_LEFT: u16 = 499;
/// No line is longer. What does not fit into a text's share of it ends in `...`.
pub const LINE_BYTES_MAX: usize = 16 * 1024;
/// The share of a target: as long as `--max-request-line` allows by default.
const TARGET_MAX: usize = 8 * 1024;
const REFERER_MAX: usize = 2 * 1024;
const USER_AGENT_MAX: usize = 1024;
/// The share of a method, a host, a backend's name and the like.
const WORD_MAX: usize = 256;
/// Times, numbers and names of a line, generously.
const FIXED_MAX: usize = 1024;
const _: () =
    assert!(TARGET_MAX + REFERER_MAX + USER_AGENT_MAX + 6 * WORD_MAX + FIXED_MAX <= LINE_BYTES_MAX);
const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORMATS: [Format; 4] = [Format::Short, Format::Common, Format::Combined, Format::Json];

    fn entry() -> Entry<'static> {
        Entry {
            date: b"Fri, 27 Nov 2026 10:17:38 GMT",
            ms: 7,
            client: "::ffff:10.0.0.7".parse().unwrap(),
            asked: Asked::Parsed { method: b"GET", target: b"/a?b=c", version: "1.1" },
            host: b"example.com",
            referer: b"http://r/",
            user_agent: b"test \"quoted\"",
            status: 200,
            core: 3,
            backend: "app-1:3000",
            tries: 2,
            cache: Some(CacheWord::Miss),
            reason: "",
            queue: Duration::ZERO,
            connect: Duration::from_micros(80),
            first_byte: Duration::from_micros(1200),
            total: Duration::from_micros(1500),
            bytes_in: 99,
            bytes_out: 612,
            head_out: 100,
        }
    }

    fn line(format: Format, entry: &Entry<'_>) -> String {
        let mut out = Vec::new();
        format.write(&mut out, entry);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_format_says_what_it_should() {
        for (format, expected) in [
            (
                Format::Common,
                "10.0.0.7 - - [27/Nov/2026:10:17:38 +0000] \"GET /a?b=c HTTP/1.1\" 200 512\n",
            ),
            (
                Format::Combined,
                "10.0.0.7 - - [27/Nov/2026:10:17:38 +0000] \"GET /a?b=c HTTP/1.1\" 200 512 \"http://r/\" \
                 \"test \\x22quoted\\x22\"\n",
            ),
            (
                Format::Short,
                "2026-11-27T10:17:38.007Z 10.0.0.7 \"GET /a?b=c HTTP/1.1\" 200 backend=app-1:3000 cache=MISS \
                 reason=- core=3 tries=2 queue_us=0 connect_us=80 first_byte_us=1200 total_us=1500 bytes_in=99 \
                 bytes_out=612\n",
            ),
            (
                Format::Json,
                "{\"time\":\"2026-11-27T10:17:38.007Z\",\"client\":\"10.0.0.7\",\"status\":200,\"method\":\"GET\",\
                 \"target\":\"/a?b=c\",\"version\":\"1.1\",\"host\":\"example.com\",\"referer\":\"http://r/\",\
                 \"user_agent\":\"test \\\"quoted\\\"\",\"backend\":\"app-1:3000\",\"cache\":\"MISS\",\"reason\":null,\
                 \"core\":3,\"tries\":2,\"queue_us\":0,\"connect_us\":80,\"first_byte_us\":1200,\"total_us\":1500,\
                 \"bytes_in\":99,\"bytes_out\":612}\n",
            ),
        ] {
            assert_eq!(line(format, &entry()), expected);
        }
    }

    #[test]
    fn what_was_not_understood_is_quoted_as_it_came() {
        let raw = Entry {
            asked: Asked::Raw(b"\x16\x03\x01\x02"),
            status: 400,
            reason: "malformed_request_line",
            ..entry()
        };
        assert!(line(Format::Common, &raw).contains(" \"\\x16\\x03\\x01\\x02\" 400 "));
        assert!(
            line(Format::Json, &raw).contains(",\"request\":\"\\u0016\\u0003\\u0001\\u0002\",")
        );
        assert!(line(Format::Short, &raw).contains(" reason=malformed_request_line "));
        assert!(line(Format::Common, &Entry { asked: Asked::Raw(b""), ..raw }).contains(" \"-\" "));
    }

    #[test]
    fn every_month_has_its_number() {
        for (at, month) in MONTHS.iter().enumerate() {
            let mut date = *b"Fri, 27 Nov 2026 10:17:38 GMT";
            date[8..11].copy_from_slice(month);
            let entry = Entry { date: &date, ..entry() };
            assert!(line(Format::Short, &entry).starts_with(&format!("2026-{:02}-27T", at + 1)));
        }
    }

    proptest! {
        #[test]
        fn no_byte_of_a_client_forges_a_line(
            target in proptest::collection::vec(any::<u8>(), 0..10_000),
            referer in proptest::collection::vec(any::<u8>(), 0..3_000),
            user_agent in proptest::collection::vec(any::<u8>(), 0..1_500),
            host in proptest::collection::vec(any::<u8>(), 0..300),
            is_parsed: bool,
        ) {
            let asked = match is_parsed {
                true => Asked::Parsed { method: &host, target: &target, version: "1.1" },
                false => Asked::Raw(&target),
            };
            let (host, referer, user_agent) = (&host[..], &referer[..], &user_agent[..]);
            let entry = Entry { asked, host, referer, user_agent, ..entry() };
            for format in FORMATS {
                let text = line(format, &entry);
                prop_assert!(text.len() <= LINE_BYTES_MAX);
                prop_assert_eq!(text.find('\n'), Some(text.len() - 1));
                prop_assert!(!text.trim_end_matches('\n').chars().any(char::is_control));
                let quotes = text.matches('"').count();
                match format {
                    Format::Short | Format::Common => prop_assert_eq!(quotes, 2),
                    Format::Combined => prop_assert_eq!(quotes, 6),
                    Format::Json => {
                        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
                        prop_assert_eq!(read["backend"].as_str(), Some("app-1:3000"));
                        prop_assert_eq!(read["status"].as_u64(), Some(200));
                    }
                }
            }
        }
    }
}
