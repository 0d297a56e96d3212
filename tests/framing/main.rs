//! Two strangers and where a message ends: tables by RFC section for both directions, and properties
//! against slow references written here.

mod properties;
mod requests;
mod responses;

use balancer::http::framing::{self, RequestPlan, ResponsePlan};
use balancer::http::{
    BadResponse, HeadLimits, HeadScan, Method, Reject, RequestHead, ResponseHead,
};

const LIMITS: HeadLimits =
    HeadLimits { line_bytes_max: 8192, head_bytes_max: 32768, fields_max: 100 };

/// From bytes to decision, as a connection does it. None: the head is not complete.
pub fn request(bytes: &[u8]) -> Result<Option<(RequestHead, RequestPlan, usize)>, Reject> {
    let Some(len) = HeadScan::default().scan(bytes, &LIMITS)? else { return Ok(None) };
    let mut head = RequestHead::default();
    head.parse(&bytes[..len])?;
    let plan = framing::of_request(&head, &bytes[..len])?;
    Ok(Some((head, plan, len)))
}

pub fn response(
    bytes: &[u8],
    method: Method,
    offered: bool,
) -> Result<Option<(ResponseHead, ResponsePlan)>, BadResponse> {
    let Some(len) = HeadScan::default().scan_response(bytes, &LIMITS)? else { return Ok(None) };
    let mut head = ResponseHead::default();
    head.parse(&bytes[..len])?;
    let plan = framing::of_response(&head, &bytes[..len], method, offered)?;
    Ok(Some((head, plan)))
}
