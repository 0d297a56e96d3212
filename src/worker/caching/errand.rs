//! What the cache wants of a request that goes forward, and what it makes of the answer.
//!
//! One [`Errand`] accompanies a request from the moment it leaves until its answer has been dealt with, over all its
//! tries. It holds the lease if there is one: dropped, it gives it back. [`Errand::receive`] is the parent of all
//! decisions about a response head.

use std::rc::Rc;
use std::time::Duration;

use super::filling::Filling;
use super::home::Placed;
use super::seek::mark_of;
use super::serving::Stock;
use super::{Caching, FAILED, Held, UNCACHEABLE, length_of};
use crate::cache::status::{CacheStatus, Forwarded, Why};
use crate::cache::store::{Body, BodyWriter, End, Handle, Lease, Object, Terms};
use crate::cache::{
    Lookup, Policy, Representation, Serve, Storability, Times, Unstorable, Verdict, conditional,
    key, policy, stored, vary,
};
use crate::http::{Framing, PeerTrust, ResponsePlan};
use crate::io::Io;
use crate::metrics::Count;
use crate::time::WallTime;
use crate::worker::desk::Desk;
use crate::worker::shard::Shard;

/// One request's business with the cache.
pub(in crate::worker) struct Errand<I: Io> {
    pub(super) shard: Rc<Shard<I>>,
    /// What the client says of scheme and host is part of the key if it is believed.
    trust: PeerTrust,
    pub(super) kind: Kind,
    pub(super) asking: Asking,
    pub(super) target: Option<Target>,
    /// When the request was last sent.
    sent: WallTime,
    /// The response that is being stored.
    fill: Option<Filling>,
    writer: Option<BodyWriter>,
    /// Times the origin was asked again in other words.
    repeats: u32,
    /// Whether the request has been sent to its last byte.
    is_sent: bool,
    /// No client waits for the answer.
    is_background: bool,
}

/// What kind of business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// None, and nothing is said of it.
    Off,
    /// None, and the client is told so.
    Bypass,
    /// A success invalidates; and may be stored, for a POST that stands for its target.
    Unsafe {
        may_store: bool,
    },
    Lookup(Lookup),
}

/// In whose words the origin is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Asking {
    /// The client's.
    AsSent,
    /// For the whole representation, without any condition or range.
    Whole,
    /// Whether what is stored still holds.
    Validating,
}

pub(super) struct Target {
    pub hash: u64,
    /// The key's generation before anything was sent.
    pub generation: u64,
    pub purges: u64,
    pub lease: Option<Lease>,
    pub stale: Option<Held>,
    pub why: Why,
    pub is_collapsed: bool,
}

/// What becomes of a response.
pub(in crate::worker) enum Reception {
    /// The client gets it, with the line in `desk.papers.extra`.
    Relay,
    /// The client gets this instead; of the response nothing more is needed.
    Serve(Stock),
    /// The client gets this, and the response's body fills it.
    Follow(Stock),
    /// The origin is to be asked again, in other words.
    Again,
}

impl<I: Io> Errand<I> {
    pub(super) fn new(shard: &Rc<Shard<I>>, trust: PeerTrust, kind: Kind) -> Self {
        Self {
            shard: shard.clone(),
            trust,
            kind,
            asking: Asking::AsSent,
            target: None,
            sent: shard.io.wall(),
            fill: None,
            writer: None,
            repeats: 0,
            is_sent: true,
            is_background: false,
        }
    }

    /// What the request asks for, and what was found.
    pub(super) fn note_target(
        &mut self,
        hash: u64,
        lease: Option<Lease>,
        stale: Option<Held>,
        why: Why,
        is_collapsed: bool,
    ) {
        let Some(caching) = &self.shard.caching else { return };
        let present = caching.generations.load(hash);
        let generation = lease.map_or(present, |lease| lease.generation);
        let purges = caching.generations.purges();
        self.target = Some(Target { hash, generation, purges, lease, stale, why, is_collapsed });
    }

    /// The field lines sent in place of the client's conditions and Range; `None`: the client's own.
    pub(in crate::worker) fn conditions<'a>(&self, desk_conditions: &'a [u8]) -> Option<&'a [u8]> {
        match self.asking {
            Asking::AsSent => None,
            Asking::Whole => Some(b""),
            Asking::Validating => Some(desk_conditions),
        }
    }

    /// No client waits for the answer: what was stored is not given up for a failure.
    pub(super) fn in_background(mut self) -> Self {
        self.is_background = true;
        self
    }

    /// Whether the request has been sent to its last byte. Half of one makes its connection useless, and nobody may
    /// take the answer over: the backend still waits for the rest.
    pub(in crate::worker) fn note_upload(&mut self, is_sent: bool) {
        self.is_sent = is_sent;
        if let Some(filling) = &mut self.fill {
            filling.is_reusable &= is_sent;
        }
    }

    /// Whether the answer may be taken in without its client.
    pub(in crate::worker) fn can_be_taken_over(&self) -> bool {
        self.is_sent && self.fill.is_some()
    }

    /// The body turned out too long to be stored: the next requests need not wait for that to happen again.
    pub(in crate::worker) fn note_overflow(&self) {
        if let (Some(caching), Some(target)) = (&self.shard.caching, &self.target) {
            let until = self.shard.now() + OVERFLOWN;
            caching.marks.borrow_mut().mark(target.hash, until);
            caching.pause(target.hash, until);
        }
    }

    /// The request is about to go out.
    pub(in crate::worker) fn note_sent(&mut self) {
        self.sent = self.shard.io.wall();
    }

    /// A final response head is held in `desk.outbound`: what becomes of it.
    pub(in crate::worker) fn receive(&mut self, desk: &mut Desk, plan: &ResponsePlan) -> Reception {
        desk.papers.extra.clear();
        match self.kind {
            Kind::Off => Reception::Relay,
            Kind::Bypass => {
                let forwarded = Forwarded::because(Why::Bypass);
                CacheStatus::Forward(forwarded).write(&mut desk.papers.extra);
                Reception::Relay
            }
            Kind::Unsafe { may_store } => self.after_unsafe(desk, plan, may_store),
            Kind::Lookup(lookup) => self.after_lookup(desk, plan, &lookup),
        }
    }

    /// What is served if the origin fails, as far as it allowed that (RFC 9111 §4.2.4, RFC 5861 §4).
    pub(in crate::worker) fn stale_on_error(&mut self, status: Option<u16>) -> Option<Stock> {
        let Kind::Lookup(lookup) = self.kind else { return None };
        let now = self.shard.io.wall();
        let target = self.target.as_mut()?;
        let stored = target.stale.as_ref()?.policy().policy();
        let Verdict::Validate { on_error_until: Some(until), .. } =
            stored.verdict(&lookup.asked, now)
        else {
            return None;
        };
        if now >= until || length_of(target.stale.as_ref()?).is_none() {
            return None;
        }
        let ttl_secs = Some(stored.ttl_secs(now));
        let forwarded = Forwarded { status, ttl_secs, ..Forwarded::because(target.why) };
        let held = target.stale.take()?;
        self.shard.counters.add(Count::CacheStale, 1);
        self.fail();
        Some(Stock { held, status: CacheStatus::Forward(forwarded) })
    }

    /// The origin failed: whoever waited tries for himself.
    pub(in crate::worker) fn fail(&mut self) {
        self.end(End::Uncacheable(self.shard.now() + FAILED));
    }

    /// Who takes in the body of the response that is being stored.
    pub(in crate::worker) fn take_writer(&mut self) -> Option<BodyWriter> {
        self.writer.take()
    }

    /// More of the body has been taken in, or its end has come.
    pub(in crate::worker) fn advance(&self, is_ended: bool) {
        if let (Some(caching), Some(filling)) = (&self.shard.caching, &self.fill) {
            filling.advance(caching, &self.shard.io, is_ended);
        }
    }

    /// The response that is being stored, for somebody else to see it through.
    pub(super) fn take_filling(&mut self) -> Option<Filling> {
        self.fill.take()
    }

    /// Whether the client may go on as a reader of the store: the body's length was told, and others read it already.
    /// For itself alone the client holds the backend, as without a cache: that bounds the memory.
    pub(in crate::worker) fn is_followed(&self) -> bool {
        self.may_be_followed() && self.fill.as_ref().is_some_and(Filling::has_readers)
    }

    /// Whether it may become so.
    pub(in crate::worker) fn may_be_followed(&self) -> bool {
        self.fill.as_ref().is_some_and(|filling| filling.object.policy().length().is_some())
    }

    /// A handle to the response that is being stored.
    pub(in crate::worker) fn stored(&self) -> Option<Held> {
        self.fill.as_ref().map(|filling| Held::Own(filling.object.clone()))
    }

    fn after_unsafe(&mut self, desk: &mut Desk, plan: &ResponsePlan, may_store: bool) -> Reception {
        let shard = self.shard.clone();
        let Some(caching) = &shard.caching else { return Reception::Relay };
        let times = Times { sent: self.sent, received: shard.io.wall() };
        let storability = may_store.then(|| judge(desk, self.trust, times, caching));
        let mut own = None;
        if let (Some(Storability::Yes(policy)), Some(target)) = (storability, &mut self.target) {
            // Nobody may have changed it since the request was sent, or this is not the newest answer.
            let noted = target.generation;
            if let Some(next) = caching.generations.advance(target.hash, noted) {
                target.generation = next;
                own = Some((target.hash, policy));
            }
        }
        let (request, answer) = (desk.inbound.held(), desk.outbound.held());
        if key::invalidates(desk.response.status) {
            key::each_invalid(
                &desk.request,
                request,
                &desk.response,
                answer,
                self.trust,
                &mut desk.papers.scratch,
                |key| caching.invalidate(key, own.map(|(hash, _)| hash)),
            );
        }
        if let Some((_, policy)) = own {
            self.open(desk, plan, policy);
        }
        Reception::Relay
    }

    fn after_lookup(&mut self, desk: &mut Desk, plan: &ResponsePlan, lookup: &Lookup) -> Reception {
        let shard = self.shard.clone();
        let Some(caching) = &shard.caching else { return Reception::Relay };
        let status = desk.response.status;
        if plan.framing == Framing::Tunnel {
            return Reception::Relay;
        }
        let times = Times { sent: self.sent, received: shard.io.wall() };
        if status == 304 && self.asking == Asking::Validating {
            return self.after_not_modified(desk, times, caching);
        }
        if status >= 500 && self.is_background && self.serves_on_error(times.received) {
            self.fail();
            return Reception::Relay;
        }
        if status >= 500
            && let Some(stock) = self.stale_on_error(Some(status))
        {
            return Reception::Serve(stock);
        }
        if lookup.is_head {
            self.after_head(desk, plan, times, caching);
            return self.relay(desk, false);
        }
        let storability = match judge(desk, self.trust, times, caching) {
            Storability::Yes(_) if !lookup.may_store => Storability::No(Unstorable::RequestNoStore),
            other => other,
        };
        let is_whole_asked = self.asking != Asking::AsSent;
        match storability {
            Storability::Yes(policy) if self.open(desk, plan, policy) => {
                self.after_open(desk, lookup, is_whole_asked)
            }
            other => {
                let why = match other {
                    Storability::No(why) => Some(why),
                    Storability::Yes(_) => None,
                };
                self.remember_unstorable(why, status, lookup);
                // What was asked for in full is of no use to the others: this client gets the part it wanted.
                if lookup.has_range && is_whole_asked && status == 200 && self.may_repeat() {
                    self.asking = Asking::AsSent;
                    return Reception::Again;
                }
                self.relay(desk, false)
            }
        }
    }

    /// The response is being stored. The client gets it as it comes, unless it asked for a part, or has it already.
    fn after_open(&mut self, desk: &mut Desk, lookup: &Lookup, is_whole_asked: bool) -> Reception {
        let selects = is_whole_asked && (lookup.has_range || lookup.has_conditions);
        if selects && let Some(filling) = &self.fill {
            let stored = filling.object.policy();
            let length = stored.length();
            let (request, bytes) = (&desk.request, desk.inbound.held());
            let served = conditional::serve(
                request,
                bytes,
                stored.head(),
                stored.policy(),
                length.unwrap_or(u64::MAX),
            );
            let is_possible = length.is_some() || served == Serve::NotModified;
            if served != Serve::Full && is_possible {
                self.shard.counters.add(Count::CacheMisses, 1);
                let held = Held::Own(filling.object.clone());
                let status = CacheStatus::Forward(self.forwarded(true));
                return Reception::Follow(Stock { held, status });
            }
        }
        self.relay(desk, true)
    }

    fn serves_on_error(&self, now: WallTime) -> bool {
        let stale = self.target.as_ref().and_then(|target| target.stale.as_ref());
        stale.is_some_and(|stale| now < stale.policy().policy().error_until())
    }

    /// Begins to store the response in `desk`; false if it is too large.
    fn open(&mut self, desk: &mut Desk, plan: &ResponsePlan, policy: Policy) -> bool {
        let Some(caching) = &self.shard.caching else { return false };
        let length = match plan.framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose | Framing::Tunnel => None,
        };
        let limit = caching.object_bytes_max();
        if length.is_some_and(|length| length > limit) {
            return false;
        }
        let answer = desk.outbound.held();
        let papers = &mut desk.papers;
        papers.head.clear();
        stored::write(&mut papers.head, &desk.response, answer, &self.shard.date());
        papers.selection.clear();
        let (fields, request) = (&desk.request.fields, desk.inbound.held());
        let mode = caching.settings.mode;
        vary::write(&mut papers.selection, &desk.response.fields, answer, fields, request, mode);
        let variant = caching.hasher.hash(&papers.selection);
        let stored = Representation::new(policy, &papers.head, &papers.selection, length);
        let (body, writer) = Body::begin(limit, length);
        let Some(object) = self.object(&papers.key, stored, body, variant) else { return false };
        let fill = match self.place(&object) {
            Placed::Refused => return false,
            Placed::Filling(fill) => Some(fill),
            Placed::Away | Placed::Stored => None,
        };
        object.note_growth(self.shard.now());
        self.shard.counters.add(Count::CacheStores, 1);
        let purges = self.target.as_ref().map_or(0, |target| target.purges);
        self.fill = Some(Filling { object, fill, purges, is_reusable: plan.keep_alive });
        self.writer = Some(writer);
        true
    }

    pub(super) fn object(
        &self,
        key: &[u8],
        stored: Representation,
        body: Body,
        variant: u64,
    ) -> Option<Handle<Representation>> {
        let target = self.target.as_ref()?;
        let wall = self.shard.io.wall();
        let mut useful_until = stored.policy().useful_until();
        if stored.policy().has_validator() {
            useful_until = useful_until.max(WallTime::from_ms(wall.as_ms() + VALIDATED_MS));
        }
        let terms = Terms {
            hash: target.hash,
            generation: target.generation,
            variant,
            head_bytes: stored.owned_bytes(),
            keep_until: Caching::<I>::instant((self.shard.now(), wall), useful_until),
        };
        Some(Object::new(terms, key, stored, body))
    }

    pub(super) fn place(&mut self, object: &Handle<Representation>) -> Placed {
        let (Some(caching), Some(target)) = (&self.shard.caching, &mut self.target) else {
            return Placed::Refused;
        };
        caching.place(target.lease.take(), object, target.purges)
    }

    /// Nobody need wait for responses like this one, unless only this client's request was the reason.
    fn remember_unstorable(&mut self, why: Option<Unstorable>, status: u16, lookup: &Lookup) {
        let for_long = match why {
            Some(Unstorable::Method | Unstorable::RequestNoStore) => None,
            Some(Unstorable::Authorization) if !lookup.has_authorization => None,
            // To the client's own ranges and conditions they tell nothing of the whole.
            _ if matches!(status, 206 | 304 | 412 | 416)
                && self.asking == Asking::AsSent
                && (lookup.has_range || lookup.has_conditions) =>
            {
                None
            }
            _ if status >= 500 => Some(FAILED),
            _ => Some(UNCACHEABLE),
        };
        let Some(pause) = for_long else { return self.end(End::Abandoned) };
        let until = self.shard.now() + pause;
        if let (Some(caching), Some(target)) = (&self.shard.caching, &self.target) {
            let hash = mark_of(target.hash, lookup.has_authorization);
            caching.marks.borrow_mut().mark(hash, until);
        }
        // What holds for those with credentials does not for others, whom only the home speaks for.
        self.end(match lookup.has_authorization {
            true => End::Abandoned,
            false => End::Uncacheable(until),
        });
    }

    pub(super) fn relay(&self, desk: &mut Desk, is_stored: bool) -> Reception {
        self.shard.counters.add(Count::CacheMisses, 1);
        let status = CacheStatus::Forward(self.forwarded(is_stored));
        status.write(&mut desk.papers.extra);
        Reception::Relay
    }

    pub(super) fn forwarded(&self, stored: bool) -> Forwarded {
        let (why, collapsed) = match &self.target {
            Some(target) => (target.why, target.is_collapsed),
            None => (Why::Bypass, false),
        };
        Forwarded { stored, collapsed, ..Forwarded::because(why) }
    }

    pub(super) fn may_repeat(&mut self) -> bool {
        self.repeats += 1;
        self.repeats <= REPEATS_MAX
    }

    pub(super) fn end(&mut self, end: End) {
        if let (Some(caching), Some(target)) = (&self.shard.caching, &mut self.target)
            && let Some(lease) = target.lease.take()
        {
            caching.end(lease, end);
        }
    }
}

impl<I: Io> Drop for Errand<I> {
    fn drop(&mut self) {
        self.end(End::Abandoned);
        // Nobody took the body: what has a reader must hear that it will not come.
        self.writer = None;
        self.advance(true);
    }
}

fn judge<I: Io>(desk: &Desk, trust: PeerTrust, times: Times, caching: &Caching<I>) -> Storability {
    policy::judge(
        &desk.request,
        desk.inbound.held(),
        trust,
        &desk.response,
        desk.outbound.held(),
        times,
        &caching.settings,
    )
}

/// How long a key whose body outgrew the store counts as uncacheable.
const OVERFLOWN: Duration = Duration::from_secs(60);
/// How often the origin is asked again because its answer was of no use.
const REPEATS_MAX: u32 = 2;
/// How long what can be validated is kept, if there is room.
const VALIDATED_MS: u64 = 7 * 24 * 3600 * 1000;
