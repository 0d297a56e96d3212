//! A stored response on its way to a client: head and body in one vectored write where they fit.
//!
//! The body may still be coming: then the client gets what is there and waits for the rest, at its own pace and
//! without holding up whoever fetches. If the rest never comes the client's connection is cut.

use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::ops::Range;
use std::rc::Rc;
use std::task::Poll;

use super::{Caching, Held, length_of};
use crate::cache::status::CacheStatus;
use crate::cache::store::{Body, BodyState};
use crate::cache::{Serve, ServedWith, conditional, served};
use crate::http::{Framing, Method, RequestPlan, Version};
use crate::io::{Interest, Io, Status, Stream};
use crate::metrics::Count;
use crate::worker::answer::keeps_client;
use crate::worker::client::{Client, Next};
use crate::worker::desk::Desk;
use crate::worker::fault::Gone;
use crate::worker::shard::Shard;
use crate::worker::wait;

/// A stored response, and what is said of how it came to be used.
pub(in crate::worker) struct Stock {
    pub held: Held,
    pub status: CacheStatus,
}

/// Answers the request in `desk` from store.
pub(in crate::worker) async fn serve<I: Io>(
    shard: &Rc<Shard<I>>,
    client: &Client<I>,
    desk: &mut Desk,
    plan: &RequestPlan,
    stock: Stock,
) -> Next {
    let Stock { held, status } = stock;
    let stored = held.policy();
    // Whoever gives it to us has seen to its length; it may have broken off since.
    let Some(length) = length_of(&held) else { return Next::Cut };
    let (request, bytes) = (&desk.request, desk.inbound.held());
    let serve = conditional::serve(request, bytes, stored.head(), stored.policy(), length);
    let keeps = keeps_client(shard, plan);
    let is_head = request.method == Method::Head;
    // RFC 9110 §8.6: not even a length of 0 in a 204.
    let has_no_body = stored.policy().status() == 204;
    let with = ServedWith {
        serve,
        body_bytes: Some(length),
        framing: if is_head || has_no_body { Framing::None } else { Framing::Length(length) },
        close: !keeps,
        keep_alive_10: keeps && request.version == Version::Http10,
        now: shard.io.wall(),
        date: &shard.date(),
        status,
    };
    desk.record.own(served::status(serve, stored.policy()), "");
    desk.record.cache = Some(status.word());
    desk.outbound.clear();
    desk.down.begin(Framing::None, false, false);
    served::write(desk.down.lead(), stored.head(), stored.policy(), &with);
    desk.record.head_out = desk.down.lead().len() as u64;
    let range = match serve {
        Serve::Full if !is_head => 0..length,
        Serve::Partial { start, end } if !is_head => start..end,
        _ => 0..0,
    };
    let then = if keeps { Next::Request } else { Next::Close };
    serve_rest(shard, client, desk, held, range, then).await
}

/// Sends what is staged in front of the body in `desk.down`, then these bytes of the body.
pub(in crate::worker) async fn serve_rest<I: Io>(
    shard: &Rc<Shard<I>>,
    client: &Client<I>,
    desk: &mut Desk,
    held: Held,
    range: Range<u64>,
    then: Next,
) -> Next {
    let Some(caching) = &shard.caching else { return Next::Drop };
    let stream = &client.stream;
    let mut outflow = Outflow { range, lead_written: 0, body_written: 0 };
    let mut sent = 0;
    let mut hold = None;
    let next = loop {
        match outflow.send(desk.down.lead(), held.body(), stream) {
            Sent::All => break then,
            Sent::Some => {}
            Sent::Blocked => {
                // Whoever makes room learns that there is none to be had here for a while.
                hold.get_or_insert_with(|| held.body().clone());
                let status = room_to_write(shard, stream).await;
                if status.is_reset {
                    desk.record.gone(Gone::Left);
                    break Next::Drop;
                }
                if status.is_expired {
                    desk.record.gone(Gone::Slow);
                    // It takes nothing: an orderly close would go on offering it what we sent.
                    break Next::Cut;
                }
            }
            Sent::Broken => {
                desk.record.gone(Gone::Left);
                break Next::Drop;
            }
            Sent::Starved => {
                stream.set_deadline(Some(shard.now() + shard.config.timeouts.request));
                if !has_grown(caching, stream, held.body(), outflow.range.start).await {
                    match stream.status().is_reset {
                        true => desk.record.gone(Gone::Left),
                        false => desk.record.reason = FILL_BROKEN,
                    }
                    break Next::Drop;
                }
            }
        }
        let so_far = outflow.written();
        if so_far - sent >= BYTES_PER_TURN {
            sent = so_far;
            wait::for_a_turn().await;
        }
    };
    stream.set_deadline(None);
    let written = outflow.written();
    shard.note_sent(&mut desk.record, written);
    // The connection counts the staged bytes of its answers itself; these are no longer its.
    desk.down.begin(Framing::None, false, false);
    if matches!(next, Next::Drop | Next::Cut) {
        shard.counters.add(Count::ClientsGone, 1);
    }
    next
}

/// Waits until the client takes more; expired, it has taken nothing for too long.
async fn room_to_write<I: Io>(shard: &Shard<I>, stream: &I::Stream) -> Status {
    let limit = shard.config.timeouts.write;
    let mut taker = wait::Taker::default();
    let mut patience = limit;
    loop {
        stream.set_deadline(Some(shard.now() + patience));
        let status = wait::ready(stream, Interest::WRITE).await;
        if !status.is_expired || status.is_reset {
            return status;
        }
        match taker.more_time(stream, limit) {
            Some(more) => patience = more,
            None => return status,
        }
    }
}

/// Waits until there is more than `seen` of the body, or all of it. False when there will be no more, or nobody to
/// take it.
async fn has_grown<I: Io>(
    caching: &Caching<I>,
    stream: &I::Stream,
    body: &Body,
    seen: u64,
) -> bool {
    let place = caching.enter();
    poll_fn(|cx| {
        for _ in 0..2 {
            let published = body.published();
            if published.bytes > seen {
                return Poll::Ready(true);
            }
            if published.state != BodyState::Filling {
                return Poll::Ready(false);
            }
            // Then once more: what was published before is not announced again.
            caching.waits.borrow_mut().wake_on_growth(place.ticket, cx.waker());
            body.watch(caching.core as u32);
        }
        stream.poll_ready(cx, Interest::NONE).map(|_| false)
    })
    .await
}

/// How far a response has been written.
struct Outflow {
    /// What is left of the body.
    range: Range<u64>,
    lead_written: usize,
    body_written: u64,
}

enum Sent {
    All,
    Some,
    /// The client takes no more for now.
    Blocked,
    /// There is no more of the body yet.
    Starved,
    Broken,
}

impl Outflow {
    /// Bytes written so far.
    fn written(&self) -> u64 {
        self.lead_written as u64 + self.body_written
    }

    fn send<S: Stream>(&mut self, lead: &[u8], body: &Body, stream: &S) -> Sent {
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        if let (Some(file), true) = (body.file(), left > 0) {
            let lead = &lead[self.lead_written..];
            let bytes = left.min(BYTES_PER_TURN as usize);
            let outcome = stream.send_file(lead, file, self.range.start, bytes);
            return self.note(lead.len(), outcome);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut n = 0;
        if self.lead_written < lead.len() {
            slices[0] = IoSlice::new(&lead[self.lead_written..]);
            n = 1;
        }
        let mut left = BYTES_PER_TURN as usize;
        for segment in body.slices(self.range.clone()).take(SLICES_MAX - 1) {
            let segment = &segment[..segment.len().min(left)];
            slices[n] = IoSlice::new(segment);
            n += 1;
            left -= segment.len();
            if left == 0 {
                break;
            }
        }
        if n == 0 {
            return if self.range.is_empty() { Sent::All } else { Sent::Starved };
        }
        let outcome = stream.send(&slices[..n]);
        self.note(lead.len() - self.lead_written, outcome)
    }

    /// What a write of the last `lead_left` bytes of the lead and of body bytes came to.
    fn note(&mut self, lead_left: usize, outcome: std::io::Result<usize>) -> Sent {
        match outcome {
            Ok(written) => {
                let of_lead = written.min(lead_left);
                self.lead_written += of_lead;
                self.body_written += (written - of_lead) as u64;
                self.range.start += (written - of_lead) as u64;
                if of_lead == lead_left && self.range.is_empty() { Sent::All } else { Sent::Some }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::Blocked,
            Err(_) => Sent::Broken,
        }
    }
}

/// The log's word for a stored body whose rest never came.
const FILL_BROKEN: &str = "fill_broken";
/// Pieces of a body in one write, and the head before them.
const SLICES_MAX: usize = 17;
/// Bytes written before other tasks of the core have their turn.
const BYTES_PER_TURN: u64 = 256 * 1024;
