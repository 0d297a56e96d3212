//! One connection to the admin listener: requests one after the other, or a stream of frames.
//!
//! Every wait has a deadline, every buffer a bound; a reader that takes nothing is let go. A stream whose reader is slow
//! misses frames, it does not pile them up.

use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crossbeam_channel::unbounded;

use super::hall::Hall;
use super::reply::{Reply, stream_head};
use super::route::{Deed, Scene, route};
use crate::cache::Purge;
use crate::http::{
    Answer, Framing, HeadLimits, HeadScan, Method, Reject, RequestHead, Version, answer, framing,
};
use crate::io::{Interest, Io, Stream, Timer};

/// Serves until the connection ends.
pub(super) async fn serve<I: Io>(hall: Rc<Hall<I>>, stream: I::Stream) {
    let mut input = Vec::new();
    let mut head = RequestHead::default();
    for _ in 0..REQUESTS_MAX {
        let length = match read_head::<I>(&hall, &stream, &mut input).await {
            Ok(Some(length)) => length,
            Ok(None) => return,
            Err(reject) => return refuse(&hall, &stream, reject).await,
        };
        let plan = head.parse(&input[..length]).and_then(|()| {
            // The host of an admin request decides: there must be no doubt about its framing either.
            framing::of_request(&head, &input[..length])
        });
        let plan = match plan {
            Ok(plan) => plan,
            Err(reject) => return refuse(&hall, &stream, reject).await,
        };
        // No request here has content worth reading: with any, the connection ends behind the answer.
        let keeps = plan.keep_alive && plan.framing.is_empty();
        let deed = hall.look(|look| {
            let scene = Scene {
                look,
                values: &hall.values,
                listens_on: hall.listens_on,
                nonce: hall.io.draw(),
            };
            route(&scene, &head, &input[..length])
        });
        let reply = match deed {
            Deed::Answer(reply) => reply,
            Deed::Stream if head.method == Method::Get => return live(&hall, &stream).await,
            Deed::Stream => Reply { content_type: "text/event-stream", ..Reply::text(200, "") },
            Deed::Metrics => hall.metrics(),
            Deed::Purge(order) => purge(&hall, order).await,
        };
        // The next request is for the process that has the listener.
        let is_last = !keeps || hall.board.has_given_desk();
        let is_head = head.method == Method::Head;
        if !write_reply(&hall, &stream, &reply, (is_last, is_head, head.version)).await || is_last {
            return linger(&hall, &stream, plan.framing).await;
        }
        input.drain(..length);
    }
}

/// The length of the next head in `input`; `None` when the connection is over.
async fn read_head<I: Io>(
    hall: &Hall<I>,
    stream: &I::Stream,
    input: &mut Vec<u8>,
) -> Result<Option<usize>, Reject> {
    let mut scan = HeadScan::default();
    let mut is_late = false;
    stream.set_deadline(Some(hall.io.now() + IDLE_MAX));
    loop {
        if let Some(length) = scan.scan(input, &LIMITS)? {
            stream.set_deadline(None);
            return Ok(Some(length));
        }
        if scan.has_begun() && !is_late {
            is_late = true;
            stream.set_deadline(Some(hall.io.now() + HEAD_MAX));
        }
        let mut piece = [0; PIECE_BYTES];
        match stream.recv(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(n) => input.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let status = poll_fn(|cx| stream.poll_ready(cx, Interest::READ)).await;
                if status.is_expired && scan.has_begun() {
                    return Err(Reject::HeadTimeout);
                }
                if status.is_expired || status.is_reset {
                    return Ok(None);
                }
            }
            Err(_) => return Ok(None),
        }
    }
}

/// Writes head and body; whether all of it was taken.
async fn write_reply<I: Io>(
    hall: &Hall<I>,
    stream: &I::Stream,
    reply: &Reply,
    (is_last, is_head, version): (bool, bool, Version),
) -> bool {
    let date = *hall.date.borrow_mut().at(hall.io.wall());
    let Some(_owed) = hall.owe(reply.body.bytes().len()) else {
        let busy = Reply::text(503, "too many answers are waiting to be taken\n");
        let head = busy.head(true, version, &date);
        write(hall, stream, &head, busy.body.bytes()).await;
        return false;
    };
    let head = reply.head(is_last, version, &date);
    let body = if is_head { &[] } else { reply.body.bytes() };
    write(hall, stream, &head, body).await
}

/// Writes both, one behind the other; a reader that takes nothing for [`WRITE_MAX`] is given up.
async fn write<I: Io>(hall: &Hall<I>, stream: &I::Stream, head: &[u8], body: &[u8]) -> bool {
    let mut written = 0;
    while written < head.len() + body.len() {
        let rest_of_head = &head[written.min(head.len())..];
        let rest_of_body = &body[written.saturating_sub(head.len())..];
        match stream.send(&[IoSlice::new(rest_of_head), IoSlice::new(rest_of_body)]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stream.set_deadline(Some(hall.io.now() + WRITE_MAX));
                let status = poll_fn(|cx| stream.poll_ready(cx, Interest::WRITE)).await;
                if status.is_expired || status.is_reset {
                    stream.abort();
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    stream.set_deadline(None);
    true
}

/// Ends the connection so that the answer arrives: what the client still sends is read for a little while.
async fn linger<I: Io>(hall: &Hall<I>, stream: &I::Stream, framing: Framing) {
    stream.finish();
    if framing.is_empty() {
        return;
    }
    stream.set_deadline(Some(hall.io.now() + LINGER_MAX));
    let mut piece = [0; PIECE_BYTES];
    for _ in 0..LINGER_READS_MAX {
        match stream.recv(&mut piece) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let status = poll_fn(|cx| stream.poll_ready(cx, Interest::READ)).await;
                if status.is_expired || status.is_reset {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

async fn refuse<I: Io>(hall: &Hall<I>, stream: &I::Stream, reject: Reject) {
    let date = *hall.date.borrow_mut().at(hall.io.wall());
    let words = Answer {
        refusal: reject.into(),
        close: true,
        keep_alive_10: false,
        retry_after: None,
        date: &date,
        head_only: false,
    };
    let mut out = Vec::new();
    answer::write(&mut out, &words);
    if write(hall, stream, &out, &[]).await {
        linger(hall, stream, Framing::UntilClose).await;
    }
}

/// Says that there are too many already, once and without waiting.
pub(super) async fn turn_away<I: Io>(hall: &Hall<I>, stream: &I::Stream) {
    let date = *hall.date.borrow_mut().at(hall.io.wall());
    let busy = Reply::text(503, "too many connections to the admin listener\n");
    let head = busy.head(true, Version::Http11, &date);
    // It may not be taken: then the end alone must say it.
    let _ = stream.send(&[IoSlice::new(&head), IoSlice::new(busy.body.bytes())]);
    linger(hall, stream, Framing::None).await;
}

/// The past, then a frame every second, until the reader leaves or takes nothing any more.
async fn live<I: Io>(hall: &Hall<I>, stream: &I::Stream) {
    let date = *hall.date.borrow_mut().at(hall.io.wall());
    let Some(_place) = hall.admit_stream() else {
        let busy = Reply::text(503, "too many listen to /live already\n");
        write(hall, stream, &busy.head(true, Version::Http11, &date), busy.body.bytes()).await;
        return linger(hall, stream, Framing::UntilClose).await;
    };
    let (history, mut seen) = hall.history();
    let begin = [&stream_head(&date)[..], RETRY, &history, &hall.first_frame()].concat();
    if !write(hall, stream, &begin, &[]).await {
        return;
    }
    drop(begin);
    loop {
        let next = poll_fn(|cx| {
            if let Some(next) = hall.next_frame(seen, cx.waker()) {
                return Poll::Ready(Some(next));
            }
            match stream.poll_ready(cx, Interest::READ) {
                Poll::Ready(_) if has_left(stream) => Poll::Ready(None),
                // What it says is not asked for; the read has armed the next look.
                Poll::Ready(_) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending => Poll::Pending,
            }
        });
        let Some((number, event)) = next.await else { return };
        seen = number;
        if !write(hall, stream, &event, &[]).await {
            return;
        }
    }
}

/// Reads what a listener says and drops it; whether it has ended or broken the connection.
fn has_left(stream: &impl Stream) -> bool {
    let mut piece = [0; PIECE_BYTES];
    match stream.recv(&mut piece) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != ErrorKind::WouldBlock || stream.status().is_reset,
    }
}

/// Tells the cores and counts what they forgot.
async fn purge<I: Io>(hall: &Hall<I>, order: Purge) -> Reply {
    let Some(purge) = &hall.purge else { return Reply::text(501, "There is no cache.\n") };
    let (count, counts) = unbounded();
    let cores = purge(order, &count);
    let (mut answered, mut removed) = (0, 0);
    let until = hall.io.now() + PURGE_MAX;
    let pause = hall.io.timer();
    loop {
        for n in counts.try_iter() {
            answered += 1;
            removed += n;
        }
        if answered >= cores || hall.io.now() >= until {
            break;
        }
        pause.set(Some(hall.io.now() + PURGE_LOOK));
        poll_fn(|cx| pause.poll_expired(cx)).await;
    }
    let result = serde_json::json!({ "removed": removed, "cores": cores, "answered": answered });
    match answered >= cores {
        true => Reply::json(&result),
        // The order stands; a core that hangs follows it when it wakes.
        false => Reply { status: 504, ..Reply::json(&result) },
    }
}

/// Nobody asks the admin listener with more than that.
const LIMITS: HeadLimits =
    HeadLimits { line_bytes_max: 4096, head_bytes_max: 16 * 1024, fields_max: 64 };
/// Requests on one connection.
const REQUESTS_MAX: u32 = 10_000;
const PIECE_BYTES: usize = 2048;
/// A silent connection between two requests: four scrapes a minute keep theirs.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(60);
/// A head, from its first byte to its last.
pub(super) const HEAD_MAX: Duration = Duration::from_secs(5);
/// A reader that takes nothing.
pub(super) const WRITE_MAX: Duration = Duration::from_secs(10);
/// What a client still sends after its answer.
const LINGER_MAX: Duration = Duration::from_secs(1);
const LINGER_READS_MAX: usize = 64;
/// How long cores have to say what they forgot, and the pause between two looks.
const PURGE_MAX: Duration = Duration::from_secs(2);
const PURGE_LOOK: Duration = Duration::from_millis(2);
/// An event stream that ended is asked for again after this.
const RETRY: &[u8] = b"retry: 1000\n\n";
