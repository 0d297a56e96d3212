//! What an answer without a body says of a stored response: a 304 to our own conditions, a 200 to a HEAD (RFC 9111 §4.3).

use super::errand::{Asking, Errand, Reception};
use super::serving::Stock;
use super::{Caching, Held, length_of};
use crate::cache::status::CacheStatus;
use crate::cache::store::{End, Key};
use crate::cache::validation::{self, Answer, Freshening};
use crate::cache::{Representation, Storability, StoredHead, Times};
use crate::http::ResponsePlan;
use crate::io::Io;
use crate::metrics::Count;
use crate::worker::desk::Desk;

impl<I: Io> Errand<I> {
    pub(super) fn after_not_modified(
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
        let is_useless = effect == Freshening::Differs || length_of(&stale).is_none();
        if is_useless && self.may_repeat() {
            return self.again(stale);
        }
        let (head, storability) = self.freshened(desk, stored.head(), times, caching);
        if !self.shard.config.head.admits(&head) && self.may_repeat() {
            return self.again(stale);
        }
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

    /// The stored head with what the answer in `desk` says of it, and whether it may be kept.
    fn freshened(
        &self,
        desk: &Desk,
        stored: StoredHead<'_>,
        times: Times,
        caching: &Caching<I>,
    ) -> (Vec<u8>, Storability) {
        let date = self.shard.date();
        let bytes = desk.outbound.held();
        let answer = Answer { head: &desk.response, bytes, times, date: &date };
        let (request, asked) = (&desk.request, desk.inbound.held());
        let mut head = Vec::new();
        let storability =
            validation::freshen(&mut head, request, asked, stored, &answer, &caching.settings);
        (head, storability)
    }

    /// The origin is asked for the whole; what is stored may still serve if it fails.
    fn again(&mut self, stale: Held) -> Reception {
        if let Some(target) = &mut self.target {
            target.stale = Some(stale);
        }
        self.asking = Asking::Whole;
        Reception::Again
    }

    /// A response to HEAD tells of the stored response to GET (RFC 9111 §4.3.5).
    pub(super) fn after_head(
        &mut self,
        desk: &Desk,
        plan: &ResponsePlan,
        times: Times,
        caching: &Caching<I>,
    ) {
        let bytes = desk.outbound.held();
        let Some(stale) = self.target.as_ref().and_then(|target| target.stale.as_ref()) else {
            return;
        };
        let stored = stale.policy();
        let Some(body_bytes) = length_of(stale) else { return };
        let length = plan.declared_length;
        let effect =
            validation::head_effect(stored.head(), body_bytes, &desk.response, bytes, length);
        let changed = match effect {
            Freshening::Nothing => return,
            Freshening::Differs => stored.invalidated(),
            Freshening::Update => {
                let (head, storability) = self.freshened(desk, stored.head(), times, caching);
                let Storability::Yes(policy) = storability else { return };
                if !self.shard.config.head.admits(&head) {
                    return;
                }
                Representation::new(policy, &head, stored.selection(), stored.length())
            }
        };
        let (body, variant) = (stale.body().clone(), stale.terms().variant);
        if let Some(object) = self.object(&desk.papers.key, changed, body, variant) {
            self.place(&object);
        }
    }
}
