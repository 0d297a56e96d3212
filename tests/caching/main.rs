//! The cache's decisions: tables by RFC section and by the ids of the public suite (http-tests/cache-tests),
//! run against a toy cache that does nothing but call them in order.

mod conditions;
mod directives;
mod freshening;
mod heads;
mod keys;
mod properties;
mod suite;
mod suite_fresh;
mod toy;
mod verdicts;

use balancer::http::framing::{self, RequestPlan};
use balancer::http::{RequestHead, ResponseHead};
use balancer::time::{DATE_BYTES, DateText, WallTime};

/// 2026-01-01T00:00:00Z, when every test begins.
pub const START_MS: u64 = 1_767_225_600_000;

/// A GET of `/p` with these field lines.
pub fn get(fields: &str) -> (RequestHead, RequestPlan, String) {
    request("GET", "/p", fields)
}

/// Field lines are separated by `|`.
pub fn request(method: &str, target: &str, fields: &str) -> (RequestHead, RequestPlan, String) {
    let text = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{}\r\n", lines(fields));
    let mut head = RequestHead::default();
    head.parse(text.as_bytes()).unwrap_or_else(|reject| panic!("{text:?}: {reject:?}"));
    let plan = framing::of_request(&head, text.as_bytes()).unwrap();
    (head, plan, text)
}

/// A response with these field lines, separated by `|`.
pub fn response(status: u16, fields: &str) -> (ResponseHead, String) {
    let text = format!("HTTP/1.1 {status} X\r\n{}\r\n", lines(fields));
    let mut head = ResponseHead::default();
    head.parse(text.as_bytes()).unwrap_or_else(|bad| panic!("{text:?}: {bad:?}"));
    (head, text)
}

fn lines(fields: &str) -> String {
    fields.split('|').filter(|line| !line.is_empty()).flat_map(|line| [line, "\r\n"]).collect()
}

/// The text of Date so many milliseconds after the epoch.
pub fn date(ms: u64) -> [u8; DATE_BYTES] {
    *DateText::new().at(WallTime::from_ms(ms))
}

/// Puts the date so many seconds from `now_ms` in the place of each `{seconds}`.
pub fn dated(text: &str, now_ms: u64) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        let (number, tail) = behind.split_once('}').expect("a closing brace");
        let secs: i64 = number.parse().expect("seconds in braces");
        let at = now_ms.checked_add_signed(secs * 1000).expect("a time that is one");
        out.push_str(before);
        out.push_str(std::str::from_utf8(&date(at)).expect("ASCII"));
        rest = tail;
    }
    out + rest
}
