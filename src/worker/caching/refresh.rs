//! The origin asked behind a client's back, while the client already has the stale response (RFC 5861 §3).
//!
//! One task per key at a time, since it holds the key's lease. It tries once, and once more when a pooled connection
//! turns out dead; after that the next request asks again.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::rc::Rc;

use super::errand::{Asking, Errand, Kind, Reception};
use super::{Held, fill};
use crate::cache::status::Why;
use crate::cache::store::{End, Lease};
use crate::cache::{Lookup, validation};
use crate::http::{Framing, ResponsePlan, framing};
use crate::io::{Interest, Io, Stream};
use crate::worker::client::Client;
use crate::worker::contained;
use crate::worker::desk::Desk;
use crate::worker::dial::{self, Host, Tries, Upstream};
use crate::worker::exchange::{put_back, stage_head};
use crate::worker::relay::Pump;
use crate::worker::shard::{DeskInUse, Shard};
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
    let mut errand = Errand::new(shard, Kind::Lookup(lookup));
    errand.asking =
        if own.papers.conditions.is_empty() { Asking::Whole } else { Asking::Validating };
    let stale = Held::Own(held.handle().clone());
    errand.note_target(lease.hash, Some(lease), Some(stale), Why::Stale, false);
    let task = run(shard.clone(), own, errand, client.address);
    shard.io.spawn(contained(shard.clone(), task));
}

async fn run<I: Io>(
    shard: Rc<Shard<I>>,
    mut desk: DeskInUse<I>,
    mut errand: Errand<I>,
    client: IpAddr,
) {
    let timer = shard.io.timer();
    let mut tries = Tries::default();
    for _ in 0..ROUNDS_MAX {
        let host = Host::Nobody(&timer);
        let Ok(upstream) = dial::reach(&shard, host, &mut tries).await else {
            return errand.fail();
        };
        let answer = ask(&shard, &mut desk, &mut errand, client, &upstream).await;
        upstream.stream.set_deadline(None);
        let Some(plan) = answer else {
            if upstream.is_reused {
                tries.is_fresh_only = true;
                continue;
            }
            return errand.fail();
        };
        upstream.seat.heard();
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
    client: IpAddr,
    upstream: &Upstream<I>,
) -> Option<ResponsePlan> {
    let request = framing::of_request(&desk.request, desk.inbound.held()).ok()?;
    desk.up.begin(Framing::None, false, false);
    stage_head(shard, client, desk, &request, upstream, errand);
    errand.note_sent();
    let stream = &upstream.stream;
    stream.set_deadline(Some(shard.now() + shard.config.timeouts.request));
    loop {
        match desk.up.flush(&desk.inbound, stream) {
            Pump::Done => break,
            Pump::AwaitsSink => is_on_time(stream, Interest::WRITE).await?,
            _ => return None,
        }
    }
    desk.outbound.clear();
    desk.scan.reset();
    loop {
        match desk.scan.scan_response(desk.outbound.unread(), &shard.config.head).ok()? {
            Some(length) => {
                desk.outbound.hold(length);
                desk.scan.reset();
                let head = desk.outbound.held();
                desk.response.parse(head).ok()?;
                let method = desk.request.method;
                let plan = framing::of_response(&desk.response, head, method, false).ok()?;
                if !plan.is_interim {
                    return Some(plan);
                }
                desk.outbound.release();
            }
            None => match stream.recv(desk.outbound.spare()) {
                Ok(0) => return None,
                Ok(n) => desk.outbound.filled(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    is_on_time(stream, Interest::READ).await?;
                }
                Err(_) => return None,
            },
        }
    }
}

async fn is_on_time<S: Stream>(stream: &S, interest: Interest) -> Option<()> {
    let status = wait::ready(stream, interest).await;
    (!status.is_expired).then_some(())
}

/// Requests sent at most: a dead pooled connection, and an origin asked again in other words.
const ROUNDS_MAX: usize = 3;
