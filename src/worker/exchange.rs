//! One request, from its head to the last byte of its answer. The file to read first.
//!
//! [`exchange`] decides where the request goes and what becomes of failures; `converse` (in [`super::talk`]) carries
//! one try. Whatever happens here ends in one of the ways of [`Next`].

use std::rc::Rc;

use super::answer;
use super::caching::{self, Begun, Errand};
use super::client::{Client, Next, Peer};
use super::desk::Desk;
use super::dial::{self, Host, Tries, Unreached, Upstream};
use super::fault::{Cause, Fault, Gone, Phase};
use super::shard::Shard;
use super::talk::{Outcome, converse};
use super::tunnel::tunnel;
use crate::balance::{self, Failure, Verdict};
use crate::http::{Framing, Refusal, Reject, RequestForward, RequestPlan, forward, framing};
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
    let mut errand = match caching::begin(shard, client, desk, &plan).await {
        Begun::Answered(next) => return next,
        Begun::Forward(errand) => errand,
    };
    let next = forward(shard, client, desk, &plan, &mut errand).await;
    // Who reads a body that will never end hears of it from the errand, so the end comes first.
    desk.down.untee();
    next
}

/// Sends the request to a backend, to another one if that is safe, and its answer to the client.
async fn forward<I: Io>(
    shard: &Rc<Shard<I>>,
    client: &Client<I>,
    desk: &mut Desk,
    plan: &RequestPlan,
    errand: &mut Errand<I>,
) -> Next {
    let method = Some(desk.request.method);
    shard.retry_budget.borrow_mut().deposit(shard.now());
    let mut tries = Tries::of(is_repeatable(desk, plan));
    let mut is_staged = false;
    loop {
        let host = Host::Client(&client.stream);
        let since = shard.now();
        let reached = dial::reach(shard, host, &mut tries).await;
        desk.record.reach(since, shard.now(), &tries);
        let upstream = match reached {
            Ok(upstream) => upstream,
            Err(Unreached::Gone) => {
                shard.counters.add(Count::ClientsGone, 1);
                return Next::Drop;
            }
            Err(unreached) => {
                if let Some(stock) = errand.stale_on_error(None) {
                    return caching::serve(shard, client, desk, plan, stock).await;
                }
                errand.fail();
                let refusal = match unreached {
                    Unreached::Failed(fault) => fault.refusal(),
                    Unreached::QueueFull => Refusal::QueueFull,
                    Unreached::QueueTimeout => Refusal::QueueTimeout,
                    Unreached::Nobody | Unreached::Gone => Refusal::NoBackend,
                };
                return answer::refuse_with(shard, client, desk, plan, refusal).await;
            }
        };
        let staged = stage_request(shard, client, desk, plan, &upstream, errand, is_staged);
        if let Err(reject) = staged {
            // Nothing of the request has left us.
            put_back(shard, upstream);
            return answer::refuse(shard, client, desk, method, reject).await;
        }
        errand.note_sent();
        desk.record.is_sent = true;
        let outcome = converse(shard, client, desk, plan, &upstream, errand).await;
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
                shard.keep_head(desk);
                tunnel(shard, &client.stream, desk, &upstream.stream).await;
                return Next::Drop;
            }
            Outcome::Stored { stock, is_reusable } => {
                if is_reusable {
                    put_back(shard, upstream);
                } else {
                    drop(upstream);
                }
                return caching::serve(shard, client, desk, plan, stock).await;
            }
            Outcome::Followed { stock, framing } => {
                desk.outbound.release();
                desk.down.begin(framing, false, false);
                if let Some(writer) = errand.take_writer() {
                    desk.down.tee(writer);
                }
                caching::take_over(shard, upstream, desk, errand);
                return caching::serve(shard, client, desk, plan, stock).await;
            }
            Outcome::Detached { next } => {
                return detach(shard, client, desk, upstream, errand, next).await;
            }
            Outcome::Again { is_reusable } => {
                if is_reusable {
                    put_back(shard, upstream);
                }
                is_staged = false;
                continue;
            }
            Outcome::Refused(reject) => {
                // Its work is over, however long the client takes to hear of it.
                drop(upstream);
                return answer::refuse(shard, client, desk, method, reject).await;
            }
            Outcome::ClientGone(how) => {
                desk.record.gone(how);
                let next = gone(shard, desk, how);
                if desk.down.is_teeing() && errand.can_be_taken_over() {
                    // Others may read it, and will.
                    caching::take_over(shard, upstream, desk, errand);
                }
                return next;
            }
            Outcome::Cut { fault, is_end_marked } => {
                note_fault(shard, &upstream, fault, true);
                desk.record.cut(fault);
                return if is_end_marked { Next::Drop } else { Next::Cut };
            }
            Outcome::Failed { fault, has_answered } => {
                note_fault(shard, &upstream, fault, has_answered);
                // A silent backend is not asked for twice as long elsewhere; one on trial was given half the time.
                let is_over = fault.cause == Cause::Timeout && !upstream.seat.is_sole();
                if is_over || !may_retry(shard, desk, &upstream, &mut tries, has_answered) {
                    drop(upstream);
                    if let Some(stock) = errand.stale_on_error(None) {
                        return caching::serve(shard, client, desk, plan, stock).await;
                    }
                    errand.fail();
                    return answer::refuse_with(shard, client, desk, plan, fault.refusal()).await;
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
    errand: &Errand<I>,
    is_staged: bool,
) -> Result<(), Reject> {
    if is_staged {
        desk.up.unhead();
    } else {
        desk.up.begin(plan.framing, plan.framing == Framing::Chunked, true);
    }
    stage_head(shard, client.peer, desk, plan, upstream, errand);
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

/// Writes the head we send into the upward flow, in the words of the errand.
pub(super) fn stage_head<I: Io>(
    shard: &Shard<I>,
    peer: Peer,
    desk: &mut Desk,
    plan: &RequestPlan,
    upstream: &Upstream<I>,
    errand: &Errand<I>,
) {
    let lead = desk.up.lead();
    let conditions = errand.conditions(&desk.papers.conditions);
    shard.with_backend(upstream.seat.slot, |backend| {
        let words = RequestForward {
            client: peer.address,
            backend_authority: &backend.authority,
            plan: *plan,
            trust: peer.trust,
            forwarded: false,
        };
        let head = desk.inbound.held();
        forward::request_head_asking(lead, &desk.request, head, &words, conditions);
    });
    // Without a head the body would be taken for a request.
    assert!(!lead.is_empty(), "a backend with a request in flight stays listed");
}

/// The backend goes on filling the store, and the client reads from there what it has not got yet.
async fn detach<I: Io>(
    shard: &Rc<Shard<I>>,
    client: &Client<I>,
    desk: &mut Desk,
    upstream: Upstream<I>,
    errand: &mut Errand<I>,
    next: Next,
) -> Next {
    let Some(held) = errand.stored() else { return Next::Cut };
    let length = held.policy().length().unwrap_or(0);
    let sent = desk.down.bytes_out();
    shard.note_sent(&mut desk.record, sent);
    let (lead, position) = desk.down.unsent();
    let lead = lead.to_vec();
    caching::take_over(shard, upstream, desk, errand);
    desk.outbound.clear();
    desk.down.begin(Framing::None, false, false);
    desk.down.lead().extend_from_slice(&lead);
    caching::serve_rest(shard, client, desk, held, position..length, next).await
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

/// Keeps a connection on which nothing is left to read for another request.
pub(super) fn put_back<I: Io>(shard: &Shard<I>, upstream: Upstream<I>) {
    let Upstream { stream, seat, .. } = upstream;
    let slot = seat.slot;
    let is_kept =
        shard.pool.borrow_mut().checkin(slot, stream, shard.now(), shard.config.timeouts.idle);
    shard.counters.add(Count::PoolEvictions, u64::from(!is_kept));
}

fn note_fault<I: Io>(shard: &Shard<I>, upstream: &Upstream<I>, fault: Fault, has_answered: bool) {
    debug_assert!(fault.phase != Phase::Connect, "the dial counts its own");
    shard.note_fault(&upstream.seat, fault);
    let has_ended = matches!(fault.cause, Cause::Closed | Cause::Reset);
    upstream.seat.failed(fault.symptom(), upstream.is_reused && !has_answered && has_ended);
}

/// Whether the request may be sent to one backend after another, whatever becomes of it.
fn is_repeatable(desk: &Desk, plan: &RequestPlan) -> bool {
    plan.framing == Framing::None && desk.request.method.is_idempotent()
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
