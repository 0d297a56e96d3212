//! One request, from its head to the last byte of its answer. The file to read first.
//!
//! [`exchange`] decides where the request goes and what becomes of failures; `converse` (in [`super::talk`]) carries
//! one try. Whatever happens here ends in one of the ways of [`Next`].

use std::rc::Rc;

use super::answer;
use super::client::{Client, Next};
use super::desk::Desk;
use super::dial::{self, Tries, Unreached, Upstream};
use super::fault::{Cause, Fault, Gone, Phase};
use super::shard::Shard;
use super::talk::{Outcome, converse};
use super::tunnel::tunnel;
use crate::balance::{self, Failure, Verdict};
use crate::http::{
    Framing, PeerTrust, Refusal, Reject, RequestForward, RequestPlan, forward, framing,
};
use crate::io::Io;
use crate::metrics::Count;

/// Answers the request whose head is held in `desk.inbound`.
pub(super) async fn exchange<I: Io>(
    shard: &Rc<Shard<I>>,
    client: &Client<I>,
    desk: &mut Desk,
) -> Next {
    let method = Some(desk.request.method);
    let plan = match plan(shard, desk) {
        Ok(plan) => plan,
        Err(reject) => return answer::refuse(shard, client, desk, method, reject).await,
    };
    if plan.max_forwards == Some(0) {
        return answer::as_final_recipient(shard, client, desk, &plan).await;
    }
    shard.retry_budget.borrow_mut().deposit(shard.now());
    let mut tries = Tries::default();
    let mut is_staged = false;
    loop {
        let upstream = match dial::reach(shard, &client.stream, &mut tries).await {
            Ok(upstream) => upstream,
            Err(Unreached::Gone) => {
                shard.counters.add(Count::ClientsGone, 1);
                return Next::Drop;
            }
            Err(unreached) => {
                let refusal = match unreached {
                    Unreached::Failed(fault) => fault.refusal(),
                    Unreached::QueueFull => Refusal::QueueFull,
                    Unreached::QueueTimeout => Refusal::QueueTimeout,
                    Unreached::Nobody | Unreached::Gone => Refusal::NoBackend,
                };
                return answer::refuse_with(shard, client, desk, &plan, refusal).await;
            }
        };
        if let Err(reject) = stage_request(shard, client, desk, &plan, &upstream, is_staged) {
            // Nothing of the request has left us.
            put_back(shard, upstream);
            return answer::refuse(shard, client, desk, method, reject).await;
        }
        let outcome = converse(shard, client, desk, &plan, &upstream.stream).await;
        shard.note_try(&upstream.seat, &mut desk.record);
        let fault = match outcome {
            Outcome::Delivered { is_reusable, next } => {
                if is_reusable {
                    put_back(shard, upstream);
                }
                return next;
            }
            Outcome::Upgraded => {
                shard.counters.add(Count::Tunnels, 1);
                tunnel(shard, &client.stream, desk, &upstream.stream).await;
                return Next::Drop;
            }
            Outcome::Refused(reject) => {
                // Its work is over, however long the client takes to hear of it.
                drop(upstream);
                return answer::refuse(shard, client, desk, method, reject).await;
            }
            Outcome::ClientGone(how) => return gone(shard, desk, how),
            Outcome::Cut { fault, is_end_marked } => {
                note_fault(shard, &upstream, fault);
                return if is_end_marked { Next::Drop } else { Next::Cut };
            }
            Outcome::Failed { fault, has_answered } => {
                note_fault(shard, &upstream, fault);
                if fault.cause == Cause::Timeout
                    || !may_retry(shard, desk, &upstream, &mut tries, has_answered)
                {
                    drop(upstream);
                    return answer::refuse_with(shard, client, desk, &plan, fault.refusal()).await;
                }
                fault
            }
        };
        is_staged = desk.up.bytes_out() == 0;
        shard.counters.add(Count::Retries, 1);
        tries.exclude(upstream.seat.slot, fault);
        tries.failed = Some(upstream.seat.slot);
    }
}

/// Decides how the request is framed and whether we take it at all.
fn plan<I: Io>(shard: &Shard<I>, desk: &Desk) -> Result<RequestPlan, Reject> {
    let plan = framing::of_request(&desk.request, desk.inbound.held())?;
    if let (Framing::Length(length), Some(limit)) = (plan.framing, shard.config.body_bytes_max)
        && length > limit
    {
        return Err(Reject::BodyTooLarge);
    }
    Ok(plan)
}

/// Writes the head we send into the upward flow, with the body bytes that have already come. `is_staged`: they are
/// there from a try of which nothing left us.
fn stage_request<I: Io>(
    shard: &Shard<I>,
    client: &Client<I>,
    desk: &mut Desk,
    plan: &RequestPlan,
    upstream: &Upstream<I>,
    is_staged: bool,
) -> Result<(), Reject> {
    if is_staged {
        desk.up.unhead();
    } else {
        desk.up.begin(plan.framing, plan.framing == Framing::Chunked, true);
    }
    let lead = desk.up.lead();
    shard.with_backend(upstream.seat.slot, |backend| {
        let words = RequestForward {
            client: client.address,
            backend_authority: &backend.authority,
            plan: *plan,
            trust: PeerTrust::Unknown,
            forwarded: false,
        };
        forward::request_head(lead, &desk.request, desk.inbound.held(), &words);
    });
    // Without a head the body would be taken for a request.
    assert!(!lead.is_empty(), "a backend with a request in flight stays listed");
    if is_staged {
        desk.up.head_again();
        return Ok(());
    }
    desk.up.limit(shard.config.body_bytes_max.unwrap_or(u64::MAX));
    desk.up.drop_listed_trailers(&desk.request.fields, desk.inbound.held());
    if !desk.up.is_ended() && !desk.inbound.is_empty() {
        desk.up.decode(&mut desk.inbound)?;
        if desk.up.is_too_large() {
            return Err(Reject::BodyTooLarge);
        }
    }
    Ok(())
}

/// Whether the request may be sent once more; if so it is ready to be.
fn may_retry<I: Io>(
    shard: &Shard<I>,
    desk: &mut Desk,
    upstream: &Upstream<I>,
    tries: &mut Tries,
    has_answered: bool,
) -> bool {
    let is_replayable = match desk.up.framing() {
        Framing::None => true,
        Framing::Length(_) => desk.inbound.can_rewind(),
        // Chunks are decoded in place: what has been read of them is no longer what the client sent.
        _ => desk.inbound.is_unconsumed(),
    };
    let failure = Failure {
        phase: match (has_answered, desk.up.bytes_out()) {
            (true, _) => balance::Phase::Answered,
            (false, 0) => balance::Phase::Unsent,
            (false, _) => balance::Phase::Sent,
        },
        is_reused: upstream.is_reused,
        is_idempotent: desk.request.method.is_idempotent(),
        is_replayable,
        retries: tries.retries,
    };
    let verdict = failure.verdict(&mut shard.retry_budget.borrow_mut(), shard.now());
    match verdict {
        Verdict::GiveUp(_) => return false,
        Verdict::Fresh => tries.is_fresh_only = true,
        Verdict::ElsewhereOrFresh => {}
    }
    tries.retries += 1;
    // What never left us stays as it is staged: decoded in place, it could not be read again.
    desk.up.bytes_out() == 0 || desk.inbound.rewind()
}

fn put_back<I: Io>(shard: &Shard<I>, upstream: Upstream<I>) {
    let Upstream { stream, seat, .. } = upstream;
    let slot = seat.slot;
    let is_kept =
        shard.pool.borrow_mut().checkin(slot, stream, shard.now(), shard.config.timeouts.idle);
    shard.counters.add(Count::PoolEvictions, u64::from(!is_kept));
}

fn note_fault<I: Io>(shard: &Shard<I>, upstream: &Upstream<I>, fault: Fault) {
    debug_assert!(fault.phase != Phase::Connect, "the dial counts its own");
    shard.note_fault(&upstream.seat, fault);
}

/// The client may still read what is on its way to it: an end must not make that look whole. One that takes nothing
/// is reset, so that the kernel does not go on offering it what we sent.
fn gone<I: Io>(shard: &Shard<I>, desk: &Desk, how: Gone) -> Next {
    shard.counters.add(Count::ClientsGone, 1);
    match how {
        Gone::Left if desk.down.marks_its_end() => Next::Drop,
        Gone::Left | Gone::Slow => Next::Cut,
    }
}
