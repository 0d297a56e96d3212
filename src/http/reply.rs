//! The head of an answer with content of our own (RFC 9110 §15): what the admin listener says.
//!
//! Decides the words; the content, and whether the connection goes on, is the caller's.

use super::answer::reason;
use super::forward::{decimal, number_line};
use crate::time::DATE_BYTES;

/// A head to be written.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The status code.
    pub status: u16,
    /// What the content is.
    pub content_type: &'a str,
    /// How long it is; `None` when it ends with the connection.
    pub content_length: Option<usize>,
    /// Further fields: names and values, both known to be harmless.
    pub fields: &'a [(&'a str, &'a str)],
    /// Say that the connection ends with this answer.
    pub close: bool,
    /// The client speaks HTTP/1.0 and the connection is kept as it asked.
    pub keep_alive_10: bool,
    /// The Date.
    pub date: &'a [u8; DATE_BYTES],
}

/// Appends a head to `out`.
pub fn write_reply(out: &mut Vec<u8>, reply: &Reply<'_>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(reply.status));
    for part in [" ", reason(reply.status), "\r\nContent-Type: ", reply.content_type, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Some(length) = reply.content_length {
        number_line(out, b"Content-Length", length as u64);
    }
    for (name, value) in reply.fields {
        debug_assert!(!name.contains(['\r', '\n', ':']) && !value.contains(['\r', '\n']));
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(reply.date);
    out.extend_from_slice(match (reply.close, reply.keep_alive_10) {
        (true, _) => b"\r\nConnection: close\r\n\r\n".as_slice(),
        (false, true) => b"\r\nConnection: keep-alive\r\n\r\n",
        (false, false) => b"\r\n\r\n",
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Framing, HeadLimits, HeadScan, Method, ResponseHead, framing};

    #[test]
    fn a_reply_is_a_response_we_would_accept() {
        for (status, content_length, close) in
            [(200, Some(5), false), (404, Some(0), true), (200, None, true), (405, Some(9), false)]
        {
            let reply = Reply {
                status,
                content_type: "text/plain",
                content_length,
                fields: &[("Cache-Control", "no-store")],
                close,
                keep_alive_10: false,
                date: b"Sun, 06 Nov 1994 08:49:37 GMT",
            };
            let mut out = Vec::new();
            write_reply(&mut out, &reply);
            let length = HeadScan::default().scan_response(&out, &HeadLimits::default());
            assert_eq!(length, Ok(Some(out.len())));
            let mut head = ResponseHead::default();
            head.parse(&out).unwrap();
            let plan = framing::of_response(&head, &out, Method::Get, false).unwrap();
            let wanted = content_length.map_or(Framing::UntilClose, |n| Framing::Length(n as u64));
            assert_eq!((head.status, plan.framing, plan.keep_alive), (status, wanted, !close));
            assert!(!reason(status).is_empty());
        }
    }
}
