//! Our own answers (RFC 9110 §15, RFC 9209).
//!
//! Decides: the words. [`Refusal`] says why there is no better answer; each has a status, a short text
//! and, for those who debug, a `Proxy-Status` with a Proxy Error Type and the label that metrics and logs
//! use, too. Refuses to know whether the connection goes on: the caller says so.

use super::field::FieldKind;
use super::forward::{decimal, number_line};
use super::reject::{BadResponse, Reject};
use super::request::RequestHead;
use crate::time::DATE_BYTES;

/// Why we answer ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The client's bytes are wrong.
    Rejected(Reject),
    /// The backend's bytes are wrong.
    BadResponse(BadResponse),
    /// No backend may be picked.
    NoBackend,
    /// Every backend is busy and the queue is full.
    QueueFull,
    /// Every backend stayed busy until the queue's deadline.
    QueueTimeout,
    /// We are about to stop.
    Draining,
    /// The backend refused the connection.
    ConnectRefused,
    /// The backend did not take the connection in time.
    ConnectTimeout,
    /// The backend could not be reached for another reason.
    ConnectFailed,
    /// The backend ended the connection before its head was whole.
    ConnectionTerminated,
    /// The backend was silent for too long before its head was whole.
    ResponseTimeout,
    /// The client wants a stored response or none (RFC 9111 §5.2.1.7), and none may be used.
    OnlyIfCached,
    /// We failed.
    Internal,
}

impl Refusal {
    /// The status code of the answer.
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// The unique snake_case word for metrics, logs and `Proxy-Status`.
    pub const fn label(self) -> &'static str {
        self.row().1
    }

    /// The Proxy Error Type (RFC 9209 §2.3).
    pub const fn proxy_error(self) -> &'static str {
        self.row().2
    }

    /// One sentence for the client.
    pub const fn text(self) -> &'static str {
        self.row().3
    }

    /// How many there are: the size of a counter array indexed by [`Refusal::index`].
    pub const COUNT: usize = OWN.len() + Reject::COUNT + BadResponse::COUNT;

    /// All of them, in the order of their [`index`](Refusal::index).
    pub fn all() -> impl Iterator<Item = Self> {
        let own = OWN.into_iter();
        own.chain(Reject::all().map(Self::Rejected))
            .chain(BadResponse::all().map(Self::BadResponse))
    }

    /// Its place among all.
    pub const fn index(self) -> usize {
        match self {
            Self::Rejected(reject) => OWN.len() + reject as usize,
            Self::BadResponse(bad) => OWN.len() + Reject::COUNT + bad as usize,
            Self::NoBackend => 0,
            Self::QueueFull => 1,
            Self::QueueTimeout => 2,
            Self::Draining => 3,
            Self::ConnectRefused => 4,
            Self::ConnectTimeout => 5,
            Self::ConnectFailed => 6,
            Self::ConnectionTerminated => 7,
            Self::ResponseTimeout => 8,
            Self::OnlyIfCached => 9,
            Self::Internal => 10,
        }
    }

    /// The table: status, label, Proxy Error Type, text.
    const fn row(self) -> (u16, &'static str, &'static str, &'static str) {
        match self {
            Self::Rejected(reject) => {
                (reject.status(), reject.label(), "http_request_error", reject.text())
            }
            Self::BadResponse(bad) => {
                (bad.status(), bad.label(), bad.proxy_error(), "The backend's response is invalid.")
            }
            Self::NoBackend => {
                (503, "no_backend", "destination_unavailable", "No backend is available.")
            }
            Self::QueueFull => {
                (503, "queue_full", "connection_limit_reached", "All backends are busy.")
            }
            Self::QueueTimeout => {
                (503, "queue_timeout", "connection_limit_reached", "All backends are busy.")
            }
            Self::Draining => {
                (503, "draining", "proxy_internal_response", "This proxy is about to stop.")
            }
            Self::ConnectRefused => (
                502,
                "connect_refused",
                "connection_refused",
                "The backend refused the connection.",
            ),
            Self::ConnectTimeout => (
                504,
                "connect_timeout",
                "connection_timeout",
                "The backend cannot be reached in time.",
            ),
            Self::ConnectFailed => (
                502,
                "connect_failed",
                "destination_ip_unroutable",
                "The backend cannot be reached.",
            ),
            Self::ConnectionTerminated => (
                502,
                "connection_terminated",
                "connection_terminated",
                "The backend closed the connection.",
            ),
            Self::ResponseTimeout => (
                504,
                "response_timeout",
                "http_response_timeout",
                "The backend did not respond in time.",
            ),
            Self::OnlyIfCached => (
                504,
                "only_if_cached",
                "proxy_internal_response",
                "No stored response may be used.",
            ),
            Self::Internal => (500, "internal_error", "proxy_internal_error", "This proxy failed."),
        }
    }
}

impl From<Reject> for Refusal {
    fn from(reject: Reject) -> Self {
        Self::Rejected(reject)
    }
}

impl From<BadResponse> for Refusal {
    fn from(bad: BadResponse) -> Self {
        Self::BadResponse(bad)
    }
}

/// One answer of ours.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Why.
    pub refusal: Refusal,
    /// Say that the connection ends with this answer.
    pub close: bool,
    /// The client speaks HTTP/1.0 and the connection is kept as it asked.
    pub keep_alive_10: bool,
    /// Seconds after which another try makes sense.
    pub retry_after: Option<u32>,
    /// The Date.
    pub date: &'a [u8; DATE_BYTES],
    /// The request was HEAD: no body, but its length.
    pub head_only: bool,
}

/// Appends an answer, head and body, to `out`.
pub fn write(out: &mut Vec<u8>, answer: &Answer) {
    let refusal = answer.refusal;
    let text = refusal.text();
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(refusal.status()));
    for part in [" ", reason(refusal.status()), "\r\nContent-Type: text/plain; charset=utf-8\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    number_line(out, b"Content-Length", text.len() as u64 + 1);
    date_and_connection(out, answer.date, answer.close, answer.keep_alive_10);
    if let Some(seconds) = answer.retry_after {
        number_line(out, b"Retry-After", u64::from(seconds));
    }
    let proxy_error = refusal.proxy_error();
    for part in [
        "Proxy-Status: balancer; error=",
        proxy_error,
        "; details=\"",
        refusal.label(),
        "\"\r\n\r\n",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    if !answer.head_only {
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    }
}

/// Appends the answer to an OPTIONS that must not be forwarded (RFC 9110 §7.6.2, §9.3.7).
pub fn write_options(out: &mut Vec<u8>, date: &[u8; DATE_BYTES], close: bool, keep_alive_10: bool) {
    out.extend_from_slice(
        b"HTTP/1.1 200 OK\r\nAllow: GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE, PATCH\r\n",
    );
    out.extend_from_slice(b"Content-Length: 0\r\n");
    date_and_connection(out, date, close, keep_alive_10);
    out.extend_from_slice(b"\r\n");
}

/// Appends the answer to a TRACE that must not be forwarded: the head as we received it, without the
/// fields that may hold secrets (RFC 9110 §9.3.8).
pub fn write_trace(
    out: &mut Vec<u8>,
    head: &RequestHead,
    bytes: &[u8],
    date: &[u8; DATE_BYTES],
    close: bool,
    keep_alive_10: bool,
) {
    let line_end = head
        .fields
        .lines()
        .first()
        .map_or(bytes.len().saturating_sub(2), |f| f.name.start as usize);
    let line = bytes.get(head.method_span.start as usize..line_end).unwrap_or_default();
    let kept = || {
        let is_open = |kind| {
            !matches!(
                kind,
                FieldKind::Authorization | FieldKind::ProxyAuthorization | FieldKind::Cookie
            )
        };
        head.fields.lines().iter().filter(move |field| is_open(field.kind))
    };
    let fields_len: usize = kept().map(|field| field.name.len() + field.value.len() + 4).sum();
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: message/http\r\n");
    number_line(out, b"Content-Length", (line.len() + fields_len + 2) as u64);
    date_and_connection(out, date, close, keep_alive_10);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(line);
    for field in kept() {
        for part in [field.name.of(bytes), b": ", field.value.of(bytes), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn date_and_connection(
    out: &mut Vec<u8>,
    date: &[u8; DATE_BYTES],
    close: bool,
    keep_alive_10: bool,
) {
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(date);
    out.extend_from_slice(match (close, keep_alive_10) {
        (true, _) => b"\r\nConnection: close\r\n".as_slice(),
        (false, true) => b"\r\nConnection: keep-alive\r\n",
        (false, false) => b"\r\n",
    });
}

/// The reason phrases of the statuses we answer ourselves.
pub(super) const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Reasons that are neither the client's bytes nor the backend's.
const OWN: [Refusal; 11] = [
    Refusal::NoBackend,
    Refusal::QueueFull,
    Refusal::QueueTimeout,
    Refusal::Draining,
    Refusal::ConnectRefused,
    Refusal::ConnectTimeout,
    Refusal::ConnectFailed,
    Refusal::ConnectionTerminated,
    Refusal::ResponseTimeout,
    Refusal::OnlyIfCached,
    Refusal::Internal,
];

/// What a client that waits with its body is told when the backend will not tell it (RFC 9110 §15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const DATE: &[u8; DATE_BYTES] = b"Sun, 06 Nov 1994 08:49:37 GMT";

    #[test]
    fn labels_are_unique_and_every_status_has_a_reason() {
        let labels: HashSet<_> = Refusal::all().map(Refusal::label).collect();
        assert_eq!(labels.len(), Refusal::COUNT);
        for (index, refusal) in Refusal::all().enumerate() {
            assert_eq!(refusal.index(), index);
            assert_ne!(reason(refusal.status()), "", "{refusal:?}");
        }
    }

    #[test]
    fn an_answer_is_a_response_we_would_accept() {
        use crate::http::{Framing, HeadLimits, HeadScan, Method, ResponseHead, framing};
        for (refusal, close, head_only) in
            Refusal::all().flat_map(|r| [(r, true, false), (r, false, true)])
        {
            let answer = Answer {
                refusal,
                close,
                keep_alive_10: false,
                retry_after: Some(1),
                date: DATE,
                head_only,
            };
            let mut out = Vec::new();
            write(&mut out, &answer);
            let len =
                HeadScan::default().scan_response(&out, &HeadLimits::default()).unwrap().unwrap();
            let mut head = ResponseHead::default();
            head.parse(&out[..len]).unwrap();
            let plan = framing::of_response(&head, &out[..len], Method::Get, false).unwrap();
            let body_len = refusal.text().len() + 1;
            assert_eq!(plan.framing, Framing::Length(body_len as u64));
            assert_eq!(plan.keep_alive, !close);
            assert_eq!(out.len() - len, if head_only { 0 } else { body_len });
        }
    }

    #[test]
    fn the_words_of_an_answer() {
        let mut answer = Answer {
            refusal: Reject::BothLengthAndChunked.into(),
            close: true,
            keep_alive_10: false,
            retry_after: None,
            date: DATE,
            head_only: false,
        };
        let mut out = Vec::new();
        write(&mut out, &answer);
        let expected = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 57\r\n\
            Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\n\
            Proxy-Status: balancer; error=http_request_error; details=\"both_length_and_chunked\"\r\n\r\n\
            Content-Length and Transfer-Encoding exclude each other.\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);

        answer = Answer {
            refusal: Refusal::QueueFull,
            close: false,
            keep_alive_10: true,
            retry_after: Some(2),
            ..answer
        };
        let mut out = Vec::new();
        write(&mut out, &answer);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(
            text.contains(
                "\r\nConnection: keep-alive\r\nRetry-After: 2\r\nProxy-Status: balancer; "
            )
        );
    }

    #[test]
    fn the_last_recipient_of_options_and_trace_answers_itself() {
        let mut out = Vec::new();
        write_options(&mut out, DATE, true, false);
        assert!(out.ends_with(b"Content-Length: 0\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nConnection: close\r\n\r\n"));

        for (input, echo) in [
            (
                "TRACE /a HTTP/1.1\r\nHost:h\r\nCookie: s\r\nAuthorization: s\r\nX: y\r\n\r\n",
                "TRACE /a HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n",
            ),
            ("\r\nTRACE /a HTTP/1.0\r\n\r\n", "TRACE /a HTTP/1.0\r\n\r\n"),
        ] {
            let mut head = RequestHead::default();
            head.parse(input.as_bytes()).unwrap();
            let mut out = Vec::new();
            write_trace(&mut out, &head, input.as_bytes(), DATE, false, false);
            let text = String::from_utf8(out).unwrap();
            let (fields, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, echo);
            assert!(fields.contains(&format!("Content-Length: {}\r\n", echo.len())));
        }
    }
}
