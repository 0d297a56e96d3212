//! The origin asked behind a client's back, while the client already has the stale response (RFC 5861 §3).
//!
//! One task per key at a time, since it holds the key's lease. It tries once, and once more when a pooled connection
//! turns out dead; after that the next request asks again.

use std::io::ErrorKind;
use std::rc::Rc;

use super::errand::{Asking, Errand, Kind, Reception};
use super::{Held, REFRESHES_MAX, fill};
use crate::cache::status::Why;
use crate::cache::store::{End, Lease};
use crate::cache::{Lookup, validation};
use crate::http::{BadResponse, Framing, ResponsePlan, framing};
use crate::io::{Interest, Io, Stream};
use crate::worker::client::{Client, Peer};
use crate::worker::contained;
use crate::worker::desk::Desk;
use crate::worker::dial::{self, Host, Tries, Upstream};
use crate::worker::exchange::{put_back, stage_head};
use crate::worker::fault::{Cause, Fault, Phase};
use crate::worker::relay::Pump;
use crate::worker::shard::{DeskInUse, Shard};
use crate::worker::talk::INTERIMS_MAX;
use crate::worker::wait;

/// Starts to fetch anew what `held` is, as the request in `desk` asked for it.
pub(super) fn begin<I: Io>(
    shard: &Rc<Shard<I>>,
    client: &Client<I>,
    desk: &Desk,
    lookup: &Lookup,
    lease: Lease,
    held: &Held,
) {
    let Some(caching) = &shard.caching else { return };
    // With a limit on what a backend has in flight, most of that is for those who wait.
    let limit = shard.config.backend_inflight_max.map_or(REFRESHES_MAX, |limit| limit as usize / 4);
    if caching.refreshes.get() >= limit.clamp(1, REFRESHES_MAX) || shard.is_draining.get() {
        return caching.end(lease, End::Abandoned);
    }
    let mut own = shard.desk();
    own.inbound.hold_copy(desk.inbound.held());
    let Desk { request, inbound, .. } = &mut *own;
    if request.parse(inbound.held()).is_err() {
        // It was parsed before.
        return caching.end(lease, End::Abandoned);
    }
    own.papers.key.clone_from(&desk.papers.key);
    own.papers.conditions.clear();
    validation::write_conditions(&mut own.papers.conditions, held.policy().head());
    let lookup = Lookup { has_conditions: false, has_range: false, ..*lookup };
    let mut errand = Errand::new(shard, client.peer.trust, Kind::Lookup(lookup)).in_background();
    errand.asking =
        if own.papers.conditions.is_empty() { Asking::Whole } else { Asking::Validating };
    let stale = Held::Own(held.handle().clone());
    errand.note_target(lease.hash, Some(lease), Some(stale), Why::Stale, false);
    caching.refreshes.set(caching.refreshes.get() + 1);
    let task = run(Guard(shard.clone()), own, errand, client.peer);
    shard.io.spawn(contained(shard.clone(), task));
}

/// Counts a refresh for as long as it lives.
struct Guard<I: Io>(Rc<Shard<I>>);

impl<I: Io> Drop for Guard<I> {
    fn drop(&mut self) {
        if let Some(caching) = &self.0.caching {
            caching.refreshes.set(caching.refreshes.get() - 1);
        }
    }
}

async fn run<I: Io>(guard: Guard<I>, mut desk: DeskInUse<I>, mut errand: Errand<I>, peer: Peer) {
    let shard = guard.0.clone();
    let timer = shard.io.timer();
    let mut tries = Tries::default();
    for _ in 0..ROUNDS_MAX {
        let host = Host::Nobody(&timer);
        let Ok(upstream) = dial::reach(&shard, host, &mut tries).await else {
            return errand.fail();
        };
        let answer = ask(&shard, &mut desk, &mut errand, peer, &upstream).await;
        upstream.stream.set_deadline(None);
        let plan = match answer {
            Ok(plan) => plan,
            // The backend is not to blame for a connection it closed meanwhile.
            Err(_) if upstream.is_reused => {
                tries.is_fresh_only = true;
                continue;
            }
            Err(cause) => {
                shard.note_fault(&upstream.seat, Fault::new(Phase::Head, cause));
                return errand.fail();
            }
        };
        upstream.seat.heard();
        let status = desk.response.status;
        desk.record.head(status, shard.now());
        shard.note_try(&upstream.seat, &mut desk.record);
        let reception = errand.receive(&mut desk, &plan);
        desk.outbound.release();
        let body = if plan.framing == Framing::Tunnel { Framing::None } else { plan.framing };
        desk.down.begin(body, false, false);
        if let Some(writer) = errand.take_writer() {
            desk.down.tee(writer);
            if let Some(filling) = errand.take_filling() {
                fill::spawn(&shard, upstream, desk, filling);
            }
            return;
        }
        if plan.keep_alive && body.is_empty() && desk.outbound.is_empty() {
            put_back(&shard, upstream);
        }
        if !matches!(reception, Reception::Again) {
            return;
        }
    }
}

/// Sends the request and reads to the end of the answer's head, which is held then.
async fn ask<I: Io>(
    shard: &Shard<I>,
    desk: &mut Desk,
    errand: &mut Errand<I>,
    peer: Peer,
    upstream: &Upstream<I>,
) -> Result<ResponsePlan, Cause> {
    let request = framing::of_request(&desk.request, desk.inbound.held());
    let request = request.map_err(|_| Cause::Closed)?;
    desk.up.begin(Framing::None, false, false);
    stage_head(shard, peer, desk, &request, upstream, errand);
    errand.note_sent();
    let stream = &upstream.stream;
    let until = shard.now() + shard.config.timeouts.request;
    stream.set_deadline(Some(until));
    loop {
        match desk.up.flush(&desk.inbound, stream) {
            Pump::Done => break,
            Pump::AwaitsSink => is_on_time(stream, Interest::WRITE).await?,
            _ => return Err(Cause::Reset),
        }
    }
    desk.outbound.clear();
    desk.scan.reset();
    let (mut interims, mut is_poisoned) = (0, false);
    loop {
        let scanned = desk.scan.scan_response(desk.outbound.unread(), &shard.config.head);
        let Some(length) = scanned.map_err(Cause::Malformed)? else {
            match stream.recv(desk.outbound.spare()) {
                Ok(0) => return Err(Cause::Closed),
                Ok(n) => desk.outbound.filled(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    is_on_time(stream, Interest::READ).await?;
                }
                Err(_) => return Err(Cause::Reset),
            }
            continue;
        };
        desk.outbound.hold(length);
        desk.scan.reset();
        let head = desk.outbound.held();
        desk.response.parse(head).map_err(Cause::Malformed)?;
        let method = desk.request.method;
        let mut plan =
            framing::of_response(&desk.response, head, method, false).map_err(Cause::Malformed)?;
        if !plan.is_interim {
            plan.keep_alive &= !is_poisoned;
            return Ok(plan);
        }
        desk.outbound.release();
        is_poisoned |= !plan.keep_alive;
        interims += 1;
        if interims > INTERIMS_MAX || shard.now() > until {
            return Err(Cause::Malformed(BadResponse::TooManyInterims));
        }
    }
}

async fn is_on_time<S: Stream>(stream: &S, interest: Interest) -> Result<(), Cause> {
    let status = wait::ready(stream, interest).await;
    if status.is_expired { Err(Cause::Timeout) } else { Ok(()) }
}

/// Requests sent at most: a dead pooled connection, and an origin asked again in other words.
const ROUNDS_MAX: usize = 3;
