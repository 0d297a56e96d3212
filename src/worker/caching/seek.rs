//! A request meets the cache: answered from store, sent forward for all, kept waiting, or sent forward on its own.
//!
//! The order of places: the core's own shard if it is the key's home, else its handles, else the home. Nobody waits for
//! another core that shows no sign of life, nor longer for another request's fetch than its lease runs.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::errand::{Asking, Errand, Kind};
use super::parcel::{Parcel, Question};
use super::serving::{Stock, serve};
use super::waits::{News, Sighting, Ticket};
use super::{Caching, Held, LEASE, STALLED, length_of, refresh};
use crate::access_log::CacheWord;
use crate::cache::status::{CacheStatus, Forwarded, Why};
use crate::cache::store::{Answer, BodyState, End, Handle, Key, Lease, Object, Seek, Use, Waiter};
use crate::cache::{Lookup, Plan, Query, Representation, RequestDirectives, Verdict};
use crate::cache::{key, validation};
use crate::http::{FieldKind, Method, Refusal, RequestPlan};
use crate::io::{Interest, Io, Status, Stream};
use crate::metrics::Count;
use crate::worker::answer;
use crate::worker::client::{Client, Next};
use crate::worker::desk::Desk;
use crate::worker::shard::Shard;

/// How a request goes on.
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart at once; a box would be an allocation a request"
)]
pub(in crate::worker) enum Begun<I: Io> {
    /// It has its answer.
    Answered(Next),
    /// It goes forward, and this is what the cache will want of the response.
    Forward(Errand<I>),
}

/// What was found.
enum Found {
    Hit {
        held: Held,
        refill: Option<Lease>,
        is_collapsed: bool,
    },
    Forward {
        lease: Option<Lease>,
        stale: Option<Held>,
        why: Why,
        is_collapsed: bool,
    },
    /// The client reset its connection.
    Gone,
}

/// Lets the cache have a look at the request whose head is held in `desk.inbound`.
pub(in crate::worker) async fn begin<I: Io>(
    shard: &Rc<Shard<I>>,
    client: &Client<I>,
    desk: &mut Desk,
    plan: &RequestPlan,
) -> Begun<I> {
    let trust = client.peer.trust;
    let Some(caching) = &shard.caching else {
        return Begun::Forward(Errand::new(shard, trust, Kind::Off));
    };
    let held = desk.inbound.held();
    let cache_plan = Plan::of_request(&desk.request, held, plan, &caching.settings);
    let lookup = match cache_plan {
        Plan::Bypass(_) if wants_stored_only(desk, caching) => {
            let refusal = Refusal::OnlyIfCached;
            let next = answer::refuse_with(shard, client, desk, plan, refusal).await;
            return Begun::Answered(next);
        }
        Plan::Bypass(_) => {
            shard.counters.add(Count::CacheBypasses, 1);
            desk.record.cache = Some(CacheWord::Bypass);
            let is_plain = matches!(desk.request.method, Method::Get | Method::Head);
            let kind = if is_plain { Kind::Bypass } else { Kind::Off };
            return Begun::Forward(Errand::new(shard, trust, kind));
        }
        Plan::Invalidate => {
            let may_store = cache_plan.may_store_unsafe(&desk.request, &caching.settings);
            let mut errand = Errand::new(shard, trust, Kind::Unsafe { may_store });
            if may_store {
                desk.papers.key.clear();
                key::write(&mut desk.papers.key, &desk.request, held, trust);
                let hash = caching.hasher.hash(&desk.papers.key);
                errand.note_target(hash, None, None, Why::Method, false);
            }
            return Begun::Forward(errand);
        }
        Plan::Lookup(lookup) => lookup,
    };
    desk.papers.key.clear();
    key::write(&mut desk.papers.key, &desk.request, held, trust);
    let hash = caching.hasher.hash(&desk.papers.key);
    match seek(shard, caching, &client.stream, desk, &lookup, hash).await {
        Found::Gone => {
            shard.counters.add(Count::ClientsGone, 1);
            Begun::Answered(Next::Drop)
        }
        Found::Hit { held, refill, is_collapsed } => {
            if let Some(lease) = refill {
                refresh::begin(shard, client, desk, &lookup, lease, &held);
            }
            let stock = on_hit(shard, held, is_collapsed);
            Begun::Answered(serve(shard, client, desk, plan, stock).await)
        }
        Found::Forward { lease, stale, why, is_collapsed } => {
            if lookup.asked.only_if_cached {
                let refusal = Refusal::OnlyIfCached;
                let next = answer::refuse_with(shard, client, desk, plan, refusal).await;
                return Begun::Answered(next);
            }
            desk.record.cache = Some(CacheWord::Miss);
            let mut errand = Errand::new(shard, trust, Kind::Lookup(lookup));
            errand.asking = asking(desk, &lookup, lease, stale.as_ref());
            errand.note_target(hash, lease, stale, why, is_collapsed);
            Begun::Forward(errand)
        }
    }
}

/// `only-if-cached` of a GET or HEAD that no stored response may answer (RFC 9111 §5.2.1.7).
fn wants_stored_only<I: Io>(desk: &Desk, caching: &Caching<I>) -> bool {
    let is_plain = matches!(desk.request.method, Method::Get | Method::Head);
    let fields = &desk.request.fields;
    is_plain
        && caching.settings.honours_requests
        && fields.has(FieldKind::CacheControl)
        && RequestDirectives::of(fields, desk.inbound.held()).only_if_cached
}

fn on_hit<I: Io>(shard: &Shard<I>, held: Held, is_collapsed: bool) -> Stock {
    let ttl_secs = held.policy().policy().ttl_secs(shard.io.wall());
    let (count, status) = match is_collapsed {
        false if ttl_secs < 0 => (Count::CacheStale, CacheStatus::Hit { ttl_secs }),
        false => (Count::CacheHits, CacheStatus::Hit { ttl_secs }),
        true => {
            let forwarded = Forwarded::because(Why::UriMiss);
            let ttl_secs = Some(ttl_secs);
            let status = Forwarded { ttl_secs, collapsed: true, ..forwarded };
            (Count::CacheCollapsed, CacheStatus::Forward(status))
        }
    };
    shard.counters.add(count, 1);
    Stock { held, status }
}

/// What is asked of the origin; the conditions are written into `desk.papers`.
fn asking(desk: &mut Desk, lookup: &Lookup, lease: Option<Lease>, stale: Option<&Held>) -> Asking {
    desk.papers.conditions.clear();
    match stale {
        _ if lookup.is_head => Asking::AsSent,
        Some(stale) => {
            validation::write_conditions(&mut desk.papers.conditions, stale.policy().head());
            if desk.papers.conditions.is_empty() { Asking::Whole } else { Asking::Validating }
        }
        // For all, the whole; what is only for this client goes as it asked.
        None if lookup.has_range && !lookup.has_conditions && lease.is_some() => Asking::Whole,
        None => Asking::AsSent,
    }
}

async fn seek<I: Io>(
    shard: &Shard<I>,
    caching: &Caching<I>,
    client: &I::Stream,
    desk: &Desk,
    lookup: &Lookup,
    hash: u64,
) -> Found {
    let seeker = Seeker { shard, caching, client, desk, lookup, hash };
    let alone = |why, stale| Found::Forward { lease: None, stale, why, is_collapsed: false };
    let mut is_collapsed = false;
    for _ in 0..ROUNDS_MAX {
        if let Some(held) = seeker.handle() {
            return Found::Hit { held, refill: None, is_collapsed };
        }
        let place = caching.enter();
        let Some(seek) = seeker.how() else { return alone(Why::UriMiss, None) };
        let (answer, sighting) = match seeker.ask(place.ticket, seek).await {
            Asked::Answered(answer, sighting) => (answer, sighting),
            Asked::Unanswered => return alone(Why::UriMiss, None),
            Asked::Gone => return Found::Gone,
        };
        // What is broken off, or has no end yet that anybody could tell, is not there to be validated.
        let forward = |lease, stale: Option<Handle<Representation>>| {
            let selected = stale.as_deref().map(Object::policy);
            let why = seeker.query().why(sighting.has_variants, selected);
            let stale = stale.filter(|stale| length_of(stale).is_some()).map(Held::Own);
            Found::Forward { lease, stale, why, is_collapsed }
        };
        match answer {
            Answer::Hit { object, refill } => {
                let held = Held::Own(object);
                match seeker.awaits_length(place.ticket, &held).await {
                    Wait::Unneeded => return Found::Hit { held, refill, is_collapsed },
                    // It took time: what was fresh then may not be now.
                    Wait::Over => is_collapsed = true,
                    Wait::Late => return alone(Why::UriMiss, None),
                    Wait::Gone => return Found::Gone,
                }
                if let Some(lease) = refill {
                    caching.end(lease, End::Abandoned);
                }
            }
            // What is being fetched is another variant, as far as one can tell.
            Answer::Wait if sighting.has_variants && !sighting.has_match => {
                return alone(Why::VaryMiss, None);
            }
            Answer::Wait => match seeker.released(place.ticket).await {
                Wait::Over | Wait::Unneeded => is_collapsed = true,
                Wait::Late => return alone(Why::UriMiss, None),
                Wait::Gone => return Found::Gone,
            },
            Answer::Lease { lease, stale } => return forward(Some(lease), stale),
            Answer::Bypass { stale } => return forward(None, stale),
        }
    }
    alone(Why::UriMiss, None)
}

enum Asked {
    Answered(Answer<Representation>, Sighting),
    /// The home has too much to do, or shows no sign of life.
    Unanswered,
    Gone,
}

enum Wait {
    /// There was nothing to wait for.
    Unneeded,
    Over,
    Late,
    Gone,
}

/// One request in search of a stored response.
struct Seeker<'a, I: Io> {
    shard: &'a Shard<I>,
    caching: &'a Caching<I>,
    client: &'a I::Stream,
    desk: &'a Desk,
    lookup: &'a Lookup,
    hash: u64,
}

impl<I: Io> Seeker<'_, I> {
    fn query(&self) -> Query<'_> {
        Query {
            asked: &self.lookup.asked,
            fields: &self.desk.request.fields,
            bytes: self.desk.inbound.held(),
            mode: self.caching.settings.mode,
            now: self.shard.io.wall(),
        }
    }

    fn key(&self) -> Key<'_> {
        Key { hash: self.hash, bytes: &self.desk.papers.key }
    }

    /// A fresh response that another core keeps and this one has a handle to.
    fn handle(&self) -> Option<Held> {
        if self.caching.is_home(self.hash) {
            return None;
        }
        let mut scratch = self.caching.scratch.borrow_mut();
        let query = self.query();
        let mut l1 = self.caching.l1.borrow_mut();
        let now = self.shard.now();
        let is_wanted = |object: &Object<Representation>| {
            length_of(object).is_some()
                && !object.is_stalled(now, STALLED)
                && query.judge(object.policy(), &mut scratch.selection) == Use::Serve
        };
        l1.get(self.key(), now, is_wanted).map(|kept| Held::Kept(kept.clone()))
    }

    /// How far the request is taken if nothing is found; `None`: nobody is asked.
    fn how(&self) -> Option<Seek> {
        let lookup = self.lookup;
        if !lookup.may_store || lookup.asked.only_if_cached {
            return Some(Seek::Peek);
        }
        let hash = mark_of(self.hash, lookup.has_authorization);
        match self.caching.marks.borrow().seek(hash, self.shard.now()) {
            // The own shard is asked for nothing.
            None if self.caching.is_home(self.hash) => Some(Seek::IfStored),
            Some(_) if lookup.has_authorization || lookup.has_conditions => Some(Seek::IfStored),
            seek => seek,
        }
    }

    async fn ask(&self, ticket: Ticket, seek: Seek) -> Asked {
        let now = self.shard.now();
        let waiter = Waiter { core: self.caching.core as u32, ticket: ticket.0 };
        if self.caching.is_home(self.hash) {
            let mut scratch = self.caching.scratch.borrow_mut();
            let (query, mut sighting) = (self.query(), Sighting::default());
            let mut store = self.caching.store.borrow_mut();
            let answer = store.seek(seek, self.key(), waiter, now, |object| {
                sighting.has_variants = true;
                let used = query.judge(object.policy(), &mut scratch.selection);
                sighting.has_match |= used != Use::No;
                used
            });
            drop(store);
            self.caching.tell_released();
            return Asked::Answered(answer, sighting);
        }
        let home = &self.caching.cores[self.caching.home_of(self.hash)];
        if !home.takes_questions() {
            return Asked::Unanswered;
        }
        let key_bytes = self.desk.papers.key.len();
        let text = [&self.desk.papers.key, self.desk.inbound.held()].concat().into_boxed_slice();
        let (hash, asked) = (self.hash, self.lookup.asked);
        home.send(Parcel::Ask(Question { waiter, seek, hash, asked, text, key_bytes }));
        // The first late look may only mean that this core was late itself: its mail is read before the next.
        let mut is_late = false;
        let answer = loop {
            self.client.set_deadline(Some(self.shard.now() + ANSWER_PATIENCE));
            match poll_fn(|cx| self.poll_answer(ticket, cx)).await {
                Err(status) if status.is_reset => break Asked::Gone,
                Err(_) if is_late && home.is_stuck(self.shard.now()) => break Asked::Unanswered,
                Err(_) => is_late = true,
                Ok((answer, sighting)) => break Asked::Answered(answer, sighting),
            }
        };
        self.client.set_deadline(None);
        if let Asked::Answered(Answer::Hit { object, .. }, _) = &answer {
            self.keep(object);
        }
        answer
    }

    fn poll_answer(
        &self,
        ticket: Ticket,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Answer<Representation>, Sighting), Status>> {
        let mut waits = self.caching.waits.borrow_mut();
        match waits.take_news(ticket) {
            Some(News::Answered(answer, sighting)) => {
                return Poll::Ready(Ok((answer, sighting)));
            }
            // "Wait", and nobody had read it when the waiting was over.
            Some(News::Released) => {
                waits.tell(ticket, News::Released);
                return Poll::Ready(Ok((Answer::Wait, Sighting::default())));
            }
            None => waits.wake_on_news(ticket, cx.waker()),
        }
        drop(waits);
        self.client.poll_ready(cx, Interest::NONE).map(Err)
    }

    /// Keeps a handle to a response of another core, as long as it is fresh for everybody.
    fn keep(&self, object: &Handle<Representation>) {
        let wall = self.shard.io.wall();
        let policy = object.policy().policy();
        let is_settled = length_of(object).is_some();
        if is_settled && policy.verdict(&RequestDirectives::default(), wall) == Verdict::Fresh {
            let until = Caching::<I>::instant((self.shard.now(), wall), policy.fresh_until());
            self.caching.l1.borrow_mut().insert(object.clone(), until);
        }
    }

    /// Until whoever fetches has something to show, or has given up.
    async fn released(&self, ticket: Ticket) -> Wait {
        self.client.set_deadline(Some(self.shard.now() + LEASE + LEASE_GRACE));
        let wait = poll_fn(|cx| {
            let mut waits = self.caching.waits.borrow_mut();
            if let Some(News::Released) = waits.take_news(ticket) {
                return Poll::Ready(Wait::Over);
            }
            waits.wake_on_news(ticket, cx.waker());
            drop(waits);
            self.client.poll_ready(cx, Interest::NONE).map(late_or_gone)
        })
        .await;
        self.client.set_deadline(None);
        wait
    }

    /// A body of unknown length is waited for to its end, so that one that turns out too long to be kept is never half
    /// with anybody but its own client.
    async fn awaits_length(&self, ticket: Ticket, held: &Held) -> Wait {
        let body = held.body();
        let now = self.shard.now();
        match body.published().state {
            BodyState::Complete => return Wait::Unneeded,
            BodyState::Filling if !held.is_stalled(now, STALLED) => {}
            BodyState::Filling | BodyState::Aborted => return Wait::Late,
        }
        if held.policy().length().is_some() {
            return Wait::Unneeded;
        }
        let until = now + LEASE;
        let wait = loop {
            self.client.set_deadline(Some(self.shard.now() + STALLED));
            let wait = poll_fn(|cx| {
                for _ in 0..2 {
                    match body.published().state {
                        BodyState::Complete => return Poll::Ready(Wait::Over),
                        BodyState::Aborted => return Poll::Ready(Wait::Late),
                        BodyState::Filling => {}
                    }
                    // Then once more: what was published before is not announced again.
                    self.caching.waits.borrow_mut().wake_on_growth(ticket, cx.waker());
                    body.watch(self.caching.core as u32);
                }
                match self.client.poll_ready(cx, Interest::NONE) {
                    Poll::Ready(status) if status.is_reset => Poll::Ready(Wait::Gone),
                    Poll::Ready(_) => Poll::Ready(Wait::Unneeded),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await;
            // A second has passed: does it still come?
            let now = self.shard.now();
            match wait {
                Wait::Unneeded if now >= until || held.is_stalled(now, STALLED) => {
                    break Wait::Late;
                }
                Wait::Unneeded => {}
                wait => break wait,
            }
        };
        self.client.set_deadline(None);
        wait
    }
}

fn late_or_gone(status: Status) -> Wait {
    if status.is_reset { Wait::Gone } else { Wait::Late }
}

/// What a request is marked under: those with credentials get other responses than those without.
pub(super) const fn mark_of(hash: u64, has_authorization: bool) -> u64 {
    if has_authorization { hash ^ u64::MAX } else { hash }
}

/// How often one request looks anew after it was released: a leader that fails releases all, and another one of them
/// may take over.
const ROUNDS_MAX: usize = 4;
/// After so long without a home's answer its heartbeat is looked at.
const ANSWER_PATIENCE: Duration = Duration::from_millis(100);
/// A lease's end takes a tick to be noticed.
const LEASE_GRACE: Duration = Duration::from_secs(2);
