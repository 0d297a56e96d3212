//! What the cache wants of a request that goes forward, and what it makes of the answer.
//!
//! One [`Errand`] accompanies a request from the moment it leaves until its answer has been dealt with, over all its
//! tries. It holds the lease if there is one: dropped, it gives it back. [`Errand::receive`] is the parent of all
//! decisions about a response head.

use std::rc::Rc;

use super::home::Placed;
use super::seek::mark_of;
use super::serving::Stock;
use super::{Caching, FAILED, Held, UNCACHEABLE};
use crate::cache::status::{CacheStatus, Forwarded, Why};
use crate::cache::store::{Body, BodyWriter, End, Fill, Handle, Key, Lease, Object, Terms};
use crate::cache::validation::{self, Answer, Freshening};
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
    shard: Rc<Shard<I>>,
    kind: Kind,
    pub(super) asking: Asking,
    target: Option<Target>,
    /// When the request was last sent.
    sent: WallTime,
    /// The response that is being stored.
    fill: Option<Filling>,
    writer: Option<BodyWriter>,
    /// Times the origin was asked again in other words.
    repeats: u32,
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

struct Target {
    hash: u64,
    /// The key's generation before anything was sent.
    generation: u64,
    purges: u64,
    lease: Option<Lease>,
    stale: Option<Held>,
    why: Why,
    is_collapsed: bool,
}

/// A response on its way into the store.
pub(super) struct Filling {
    pub object: Handle<Representation>,
    pub fill: Option<Fill>,
    /// The backend's connection can carry another request once the body is through.
    pub is_reusable: bool,
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
    pub(super) fn new(shard: &Rc<Shard<I>>, kind: Kind) -> Self {
        Self {
            shard: shard.clone(),
            kind,
            asking: Asking::AsSent,
            target: None,
            sent: shard.io.wall(),
            fill: None,
            writer: None,
            repeats: 0,
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
        if now >= until {
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
            filling.advance(caching, is_ended);
        }
    }

    /// The response that is being stored, for somebody else to see it through.
    pub(super) fn take_filling(&mut self) -> Option<Filling> {
        self.fill.take()
    }

    /// Whether a body is being taken in, and its length was told.
    pub(in crate::worker) fn can_be_followed(&self) -> bool {
        self.fill.as_ref().is_some_and(|filling| filling.object.policy().length().is_some())
    }

    /// A handle to the response that is being stored.
    pub(in crate::worker) fn stored(&self) -> Option<Held> {
        self.fill.as_ref().map(|filling| Held::Own(filling.object.clone()))
    }

    fn after_unsafe(&mut self, desk: &mut Desk, plan: &ResponsePlan, may_store: bool) -> Reception {
        let shard = self.shard.clone();
        let Some(caching) = &shard.caching else { return Reception::Relay };
        let (request, answer) = (desk.inbound.held(), desk.outbound.held());
        if key::invalidates(desk.response.status) {
            let papers = &mut desk.papers;
            key::each_invalid(
                &desk.request,
                request,
                &desk.response,
                answer,
                PeerTrust::Unknown,
                &mut papers.key,
                |key| caching.invalidate(key),
            );
        }
        if may_store {
            desk.papers.key.clear();
            key::write(&mut desk.papers.key, &desk.request, request, PeerTrust::Unknown);
            // After the bump, so that it does not invalidate its own answer.
            let hash = caching.hasher.hash(&desk.papers.key);
            self.note_target(hash, None, None, Why::Method, false);
            let times = Times { sent: self.sent, received: shard.io.wall() };
            if let Storability::Yes(policy) = judge(desk, times, caching) {
                self.open(desk, plan, policy);
            }
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
        if status >= 500
            && let Some(stock) = self.stale_on_error(Some(status))
        {
            return Reception::Serve(stock);
        }
        if lookup.is_head {
            self.after_head(desk, plan, times, caching);
            return self.relay(desk, false);
        }
        let storability = match judge(desk, times, caching) {
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

    fn after_not_modified(
        &mut self,
        desk: &mut Desk,
        times: Times,
        caching: &Caching<I>,
    ) -> Reception {
        let bytes = desk.outbound.held();
        let Some(stale) = self.target.as_mut().and_then(|target| target.stale.take()) else {
            return self.relay(desk, false);
        };
        let stored = stale.policy();
        let effect = validation::not_modified_effect(stored.head(), &desk.response, bytes);
        if effect == Freshening::Differs && self.may_repeat() {
            self.asking = Asking::Whole;
            return Reception::Again;
        }
        let date = self.shard.date();
        let answer = Answer { head: &desk.response, bytes, times, date: &date };
        let mut head = Vec::new();
        let storability = validation::freshen(
            &mut head,
            &desk.request,
            desk.inbound.held(),
            stored.head(),
            &answer,
            &caching.settings,
        );
        self.shard.counters.add(Count::CacheRevalidations, 1);
        let (policy, is_kept) = match storability {
            Storability::Yes(policy) => (policy, true),
            Storability::No(_) => (*stored.policy(), false),
        };
        let (selection, length, body) = (stored.selection(), stored.length(), stale.body().clone());
        let freshened = Representation::new(policy, &head, selection, length);
        let held = self.object(&desk.papers.key, freshened, body, stale.terms().variant);
        let Some(object) = held else { return self.relay(desk, false) };
        let mut forwarded = self.forwarded(is_kept);
        forwarded.status = Some(304);
        forwarded.ttl_secs = Some(policy.ttl_secs(times.received));
        if is_kept {
            self.place(&object);
        } else {
            self.end(End::Abandoned);
            caching.forget(Key { hash: object.terms().hash, bytes: &desk.papers.key });
        }
        let held = Held::Own(object);
        Reception::Serve(Stock { held, status: CacheStatus::Forward(forwarded) })
    }

    /// A response to HEAD tells of the stored response to GET (RFC 9111 §4.3.5).
    fn after_head(&mut self, desk: &Desk, plan: &ResponsePlan, times: Times, caching: &Caching<I>) {
        let bytes = desk.outbound.held();
        let Some(stale) = self.target.as_ref().and_then(|target| target.stale.as_ref()) else {
            return;
        };
        let stored = stale.policy();
        let body_bytes = stale.body().published().bytes;
        let length = plan.declared_length;
        let effect =
            validation::head_effect(stored.head(), body_bytes, &desk.response, bytes, length);
        let changed = match effect {
            Freshening::Nothing => return,
            Freshening::Differs => stored.invalidated(),
            Freshening::Update => {
                let date = self.shard.date();
                let answer = Answer { head: &desk.response, bytes, times, date: &date };
                let mut head = Vec::new();
                let storability = validation::freshen(
                    &mut head,
                    &desk.request,
                    desk.inbound.held(),
                    stored.head(),
                    &answer,
                    &caching.settings,
                );
                let Storability::Yes(policy) = storability else { return };
                Representation::new(policy, &head, stored.selection(), stored.length())
            }
        };
        let (body, variant) = (stale.body().clone(), stale.terms().variant);
        if let Some(object) = self.object(&desk.papers.key, changed, body, variant) {
            self.place(&object);
        }
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
        self.shard.counters.add(Count::CacheStores, 1);
        self.fill = Some(Filling { object, fill, is_reusable: plan.keep_alive });
        self.writer = Some(writer);
        true
    }

    fn object(
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

    fn place(&mut self, object: &Handle<Representation>) -> Placed {
        let (Some(caching), Some(target)) = (&self.shard.caching, &mut self.target) else {
            return Placed::Refused;
        };
        let lease = target.lease.take();
        if lease.is_none() && target.purges != caching.generations.purges() {
            return Placed::Refused;
        }
        caching.place(lease, object)
    }

    /// Nobody need wait for responses like this one, unless only this client's request was the reason.
    fn remember_unstorable(&mut self, why: Option<Unstorable>, status: u16, lookup: &Lookup) {
        let for_long = match why {
            Some(Unstorable::Method | Unstorable::RequestNoStore) => None,
            Some(Unstorable::Authorization) if !lookup.has_authorization => None,
            // 206 and 304 to the client's own ranges and conditions tell nothing of the whole.
            _ if matches!(status, 206 | 304 | 412 | 416) => None,
            _ if status >= 500 => Some(FAILED),
            _ => Some(UNCACHEABLE),
        };
        let Some(pause) = for_long else { return self.end(End::Abandoned) };
        let until = self.shard.now() + pause;
        if let (Some(caching), Some(target)) = (&self.shard.caching, &self.target) {
            let hash = mark_of(target.hash, lookup.has_authorization);
            caching.marks.borrow_mut().mark(hash, until);
        }
        self.end(End::Uncacheable(until));
    }

    fn relay(&self, desk: &mut Desk, is_stored: bool) -> Reception {
        self.shard.counters.add(Count::CacheMisses, 1);
        let status = CacheStatus::Forward(self.forwarded(is_stored));
        status.write(&mut desk.papers.extra);
        Reception::Relay
    }

    fn forwarded(&self, stored: bool) -> Forwarded {
        let (why, collapsed) = match &self.target {
            Some(target) => (target.why, target.is_collapsed),
            None => (Why::Bypass, false),
        };
        Forwarded { stored, collapsed, ..Forwarded::because(why) }
    }

    fn may_repeat(&mut self) -> bool {
        self.repeats += 1;
        self.repeats <= REPEATS_MAX
    }

    fn end(&mut self, end: End) {
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

impl Filling {
    /// Rings the readers; at the end the home of the key counts what has come.
    pub(super) fn advance<I: Io>(&self, caching: &Caching<I>, is_ended: bool) {
        caching.ring_readers(self.object.body());
        if let (true, Some(fill)) = (is_ended, self.fill) {
            caching.settle(fill);
        }
    }

    /// Whether anybody but the one who fetches can still want the body.
    pub(super) fn is_wanted(&self) -> bool {
        !self.object.is_gone() || std::sync::Arc::strong_count(&self.object) > 1
    }
}

fn judge<I: Io>(desk: &Desk, times: Times, caching: &Caching<I>) -> Storability {
    policy::judge(
        &desk.request,
        desk.inbound.held(),
        &desk.response,
        desk.outbound.held(),
        times,
        &caching.settings,
    )
}

/// How often the origin is asked again because its answer was of no use.
const REPEATS_MAX: u32 = 2;
/// How long what can be validated is kept, if there is room.
const VALIDATED_MS: u64 = 7 * 24 * 3600 * 1000;
