//! Our own answers on their way to the client.

use std::rc::Rc;

use super::client::{Client, Next};
use super::desk::Desk;
use super::relay::Pump;
use super::shard::Shard;
use super::wait;
use crate::http::{Answer, Framing, Method, Refusal, Reject, RequestPlan, Version, answer};
use crate::io::{Interest, Io, Stream};
use crate::metrics::Count;

/// Refuses a request for what the client sent. Where its message ends is unknown: the connection ends with this.
/// `method`: what was asked for, if that much was understood; an answer to HEAD has no body.
pub(super) async fn refuse<I: Io>(
    shard: &Rc<Shard<I>>,
    client: &Client<I>,
    desk: &mut Desk,
    method: Option<Method>,
    reject: Reject,
) -> Next {
    shard.counters.add(Count::Rejects, 1);
    let refusal = Refusal::from(reject);
    let words = Answer {
        refusal,
        close: true,
        keep_alive_10: false,
        retry_after: None,
        date: &shard.date(),
        head_only: method == Some(Method::Head),
    };
    shard.note_refusal(refusal);
    begin(desk, refusal.status(), refusal.label());
    answer::write(desk.down.lead(), &words);
    deliver(shard, client, desk, Next::Linger).await
}

/// Answers a well-formed request that no backend answered. The connection goes on if nothing of the request is left
/// on it.
pub(super) async fn refuse_with<I: Io>(
    shard: &Rc<Shard<I>>,
    client: &Client<I>,
    desk: &mut Desk,
    plan: &RequestPlan,
    refusal: Refusal,
) -> Next {
    let keeps = keeps_client(shard, plan);
    let words = Answer {
        refusal,
        close: !keeps,
        keep_alive_10: keeps && desk.request.version == Version::Http10,
        retry_after: (refusal.status() == 503).then_some(RETRY_AFTER_SECS),
        date: &shard.date(),
        head_only: desk.request.method == Method::Head,
    };
    shard.note_refusal(refusal);
    begin(desk, refusal.status(), refusal.label());
    answer::write(desk.down.lead(), &words);
    deliver(shard, client, desk, next(plan, keeps)).await
}

/// Answers OPTIONS or TRACE with `Max-Forwards: 0`: the request is meant for us (RFC 9110 §7.6.2).
pub(super) async fn as_final_recipient<I: Io>(
    shard: &Rc<Shard<I>>,
    client: &Client<I>,
    desk: &mut Desk,
    plan: &RequestPlan,
) -> Next {
    let keeps = keeps_client(shard, plan);
    let keep_alive_10 = keeps && desk.request.version == Version::Http10;
    begin(desk, 200, "");
    let (lead, head, date) = (desk.down.lead(), desk.inbound.held(), shard.date());
    match desk.request.method {
        Method::Trace => {
            answer::write_trace(lead, &desk.request, head, &date, !keeps, keep_alive_10)
        }
        _ => answer::write_options(lead, &date, !keeps, keep_alive_10),
    }
    deliver(shard, client, desk, next(plan, keeps)).await
}

/// Whether the client's connection goes on after an answer that no backend gave.
pub(super) fn keeps_client<I: Io>(shard: &Shard<I>, plan: &RequestPlan) -> bool {
    plan.keep_alive && plan.framing.is_empty() && !shard.is_draining.get()
}

/// A body that we did not take may still be on its way.
fn next(plan: &RequestPlan, keeps: bool) -> Next {
    match (keeps, plan.framing.is_empty()) {
        (true, _) => Next::Request,
        (false, true) => Next::Close,
        (false, false) => Next::Linger,
    }
}

fn begin(desk: &mut Desk, status: u16, reason: &'static str) {
    desk.record.own(status, reason);
    desk.outbound.clear();
    desk.down.begin(Framing::None, false, false);
}

async fn deliver<I: Io>(
    shard: &Rc<Shard<I>>,
    client: &Client<I>,
    desk: &mut Desk,
    then: Next,
) -> Next {
    shard.counters.add(Count::AnswersOwn, 1);
    let lead = desk.down.lead();
    let head = memchr::memmem::find(lead, b"\r\n\r\n").map_or(lead.len(), |end| end + 4);
    desk.record.head_out = head as u64;
    client.stream.set_deadline(Some(shard.now() + shard.config.timeouts.write));
    let next = loop {
        match desk.down.flush(&desk.outbound, &client.stream) {
            Pump::Done => break then,
            Pump::AwaitsSink => {
                let status = wait::ready(&client.stream, Interest::WRITE).await;
                if status.is_expired || status.is_reset {
                    break Next::Drop;
                }
            }
            _ => break Next::Drop,
        }
    };
    client.stream.set_deadline(None);
    if next == Next::Drop {
        shard.counters.add(Count::ClientsGone, 1);
    }
    next
}

/// What we tell a client to wait when nobody can take its request: a snapshot comes every two seconds or so.
const RETRY_AFTER_SECS: u32 = 1;
