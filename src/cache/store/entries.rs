//! How the [`Store`] changes: objects come in, grow, settle and leave, and every count follows.

use std::sync::Arc;

use super::s3fifo::{STEPS_MAX, Short};
use super::vocabulary::Fill;
use super::{
    BodyState, Entry, Handle, OBJECT_BYTES_MAX, Published, Put, Refusal, Store, VARIANTS_MAX,
    Variant,
};

/// Why variants leave.
#[derive(Clone, Copy, Debug)]
pub(super) enum Why {
    Evicted,
    Expired,
    Replaced,
    Removed,
    Withdrawn,
}

impl<P> Store<P> {
    pub(super) fn entry(&self, slot: u32) -> Option<&Entry<P>> {
        self.slab.get(slot as usize)?.as_ref()
    }

    /// Puts an admitted object in front of its key's variants, as a fill at first.
    pub(super) fn store(&mut self, object: Handle<P>, body: Published) -> Put {
        let slot = self.slot_for(&object);
        self.leases.forget_uncacheable(object.terms().hash);
        self.queues.leave(slot);
        self.last_fill += 1;
        let (id, digest) = (self.last_fill, object.terms().variant);
        let weight = object.weight();
        let entry = self.slab[slot as usize].as_mut().expect("slot_for gives one that is taken");
        entry.variants.insert(0, Variant { object, weight, fill: Some(id) });
        entry.weight += weight;
        entry.fills += 1;
        self.bytes += weight;
        self.objects += 1;
        self.fills.insert(id, slot);
        self.remove_variants(slot, Why::Replaced, |variant| {
            variant.object.terms().variant == digest && variant.fill != Some(id)
        });
        self.trim(slot, id, weight);
        if body.state == BodyState::Complete {
            self.settling.push_back(id);
        }
        self.make_room(0);
        if !self.fills.contains_key(&id) {
            return Put::Stored;
        }
        self.rounds.push_back(id);
        Put::Filling(Fill(id))
    }

    pub(super) fn poll_fill(&mut self, id: u64) -> Put {
        let Some((slot, at)) = self.filling(id) else { return Put::Refused(Refusal::Over) };
        let Some(entry) = self.slab[slot as usize].as_mut() else {
            return Put::Refused(Refusal::Over);
        };
        let variant = &mut entry.variants[at];
        let body = variant.object.body().published();
        let weight = variant.object.weight();
        let growth = weight - variant.weight;
        let generation = self.generations.load(entry.hash);
        let refusal = match body.state {
            BodyState::Aborted => Some(Refusal::Aborted),
            _ if variant.object.terms().generation != generation => Some(Refusal::Invalidated),
            _ if self.is_too_large(body.bytes, weight) => Some(Refusal::TooLarge),
            _ if growth > 0
                && (self.pinned_bytes() + growth > self.limits.bytes
                    || !self.make_room(growth)) =>
            {
                Some(Refusal::Crowded)
            }
            BodyState::Filling | BodyState::Complete => None,
        };
        if let Some(refusal) = refusal {
            self.remove_variants(slot, Why::Withdrawn, |variant| variant.fill == Some(id));
            return Put::Refused(refusal);
        }
        let entry = self.slab[slot as usize].as_mut().expect("looked at above");
        entry.variants[at].weight = weight;
        entry.weight += growth;
        self.bytes += growth;
        self.trim(slot, id, weight);
        if body.state == BodyState::Complete && !self.settling.contains(&id) {
            self.settling.push_back(id);
        }
        self.make_room(0);
        if self.fills.contains_key(&id) { Put::Filling(Fill(id)) } else { Put::Stored }
    }

    /// Evicts until there is room for `more` bytes, within [`STEPS_MAX`], then unpins the complete fills there is room
    /// for. False if there is no room because all that could be evicted is being read.
    pub(super) fn make_room(&mut self, more: u64) -> bool {
        let (mut steps, mut spared) = (STEPS_MAX, 0);
        if self.short(more) == Some(Short::Bytes) {
            self.lingering.sweep(LINGERING_PER_CALL);
        }
        while let Some(short) = self.short(more) {
            let Some(slot) = self.queues.victim(short, &mut steps) else { break };
            // Without it there would be as much in memory, and somebody would fetch it again.
            if short == Short::Bytes && self.is_being_read(slot) {
                self.queues.spare(slot);
                spared += 1;
                if spared == SPARED_MAX {
                    break;
                }
            } else {
                self.remove_entry(slot, Why::Evicted);
            }
        }
        while let Some(&id) = self.settling.front() {
            if let Some((slot, at)) = self.filling(id)
                && !self.settle(slot, at)
            {
                break;
            }
            self.settling.pop_front();
        }
        let is_held_up = spared == SPARED_MAX || self.queues.len() == spared;
        !(is_held_up && self.short(more) == Some(Short::Bytes))
    }

    /// Whether a slow reader has hold of one of its bodies.
    fn is_being_read(&self, slot: u32) -> bool {
        let variants = self.entry(slot).map_or(&[][..], |entry| &entry.variants);
        variants.iter().any(|variant| variant.object.body().handles() > 1)
    }

    pub(super) fn remove_entry(&mut self, slot: u32, why: Why) -> usize {
        self.remove_variants(slot, why, |_| true)
    }

    /// Removes the variants that `is_leaving` names, and the key with its last one. How many.
    pub(super) fn remove_variants(
        &mut self,
        slot: u32,
        why: Why,
        mut is_leaving: impl FnMut(&Variant<P>) -> bool,
    ) -> usize {
        let Some(entry) = self.slab[slot as usize].as_mut() else { return 0 };
        let (mut count, mut weight, mut fills) = (0, 0, 0);
        // A freshened head lies over the body of the one it replaces.
        let kept = match why {
            Why::Replaced => entry.variants.first().map(|variant| variant.object.body().clone()),
            _ => None,
        };
        entry.variants.retain(|variant| {
            if !is_leaving(variant) {
                return true;
            }
            variant.object.let_go();
            let body = variant.object.body();
            let is_held = Arc::strong_count(&variant.object) > 1 || body.handles() > 1;
            if is_held && !kept.as_ref().is_some_and(|kept| kept.is_same(body)) {
                self.lingering.take_in(body.remnant());
            }
            count += 1;
            weight += variant.weight;
            if let Some(id) = variant.fill {
                self.fills.remove(&id);
                fills += 1;
            }
            false
        });
        if count == 0 {
            return 0;
        }
        entry.weight -= weight;
        entry.fills -= fills;
        self.bytes -= weight;
        self.objects -= count;
        *self.counter(why) += count as u64;
        self.after_removal(slot, fills > 0);
        count
    }

    /// An entry that lost variants is forgotten, evictable again, or just lighter.
    fn after_removal(&mut self, slot: u32, had_fills: bool) {
        let Some(entry) = self.entry(slot) else { return };
        let (hash, weight, fills) = (entry.hash, entry.weight, entry.fills);
        if entry.variants.is_empty() {
            self.queues.leave(slot);
            self.index.remove(&hash);
            self.slab[slot as usize] = None;
            self.free.push(slot);
        } else if fills > 0 || !had_fills {
            self.queues.reweigh(slot, weight);
        } else if self.has_room_for(weight) {
            self.queues.enter(slot, weight);
        } else {
            // Evictions lag behind, and this one has no fill left to be kept for.
            self.remove_entry(slot, Why::Evicted);
        }
    }

    /// Ends a complete fill; false when its key would be unpinned and there is no room yet.
    fn settle(&mut self, slot: u32, at: usize) -> bool {
        let Some(entry) = self.slab[slot as usize].as_mut() else { return true };
        let (weight, fills) = (entry.weight, entry.fills);
        if fills == 1 && !self.has_room_for(weight) {
            return false;
        }
        let entry = self.slab[slot as usize].as_mut().expect("looked at above");
        entry.fills -= 1;
        if let Some(id) = entry.variants[at].fill.take() {
            self.fills.remove(&id);
        }
        if fills == 1 {
            self.queues.enter(slot, weight);
        }
        true
    }

    /// Lets the oldest variants of a key go until it keeps to its limits. The fill `id` of `weight` stays.
    fn trim(&mut self, slot: u32, id: u64, weight: u64) {
        let (mut sum, mut count, bytes_max) = (weight, 1, self.limits.bytes / 2);
        self.remove_variants(slot, Why::Evicted, |variant| {
            if variant.fill == Some(id) {
                return false;
            }
            sum += variant.weight;
            count += 1;
            sum > bytes_max || count > VARIANTS_MAX
        });
    }

    /// The key's slot. Another key of the same hash makes way.
    fn slot_for(&mut self, object: &Handle<P>) -> u32 {
        let hash = object.terms().hash;
        if let Some(&slot) = self.index.get(&hash) {
            if self.entry(slot).is_some_and(|entry| entry.key() == object.key()) {
                return slot;
            }
            self.remove_entry(slot, Why::Replaced);
        }
        let entry = Entry { hash, variants: Vec::with_capacity(1), weight: 0, fills: 0 };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            u32::try_from(self.slab.len() - 1).expect("the byte budget of a shard ends far below")
        });
        self.slab[slot as usize] = Some(entry);
        self.index.insert(hash, slot);
        self.queues.assign(slot, hash);
        slot
    }

    /// Where a fill that is under way is: slot and variant.
    fn filling(&self, id: u64) -> Option<(u32, usize)> {
        let slot = *self.fills.get(&id)?;
        let at = self.entry(slot)?.variants.iter().position(|v| v.fill == Some(id))?;
        Some((slot, at))
    }

    /// What there is too much of, with `more` bytes on top.
    fn short(&self, more: u64) -> Option<Short> {
        match () {
            () if self.bytes + self.lingering.bytes() + more > self.limits.bytes => {
                Some(Short::Bytes)
            }
            () if self.index.len() > self.limits.entries => Some(Short::Entries),
            () => None,
        }
    }

    fn has_room_for(&self, weight: u64) -> bool {
        self.queues.bytes() + weight <= self.limits.bytes && self.queues.len() < self.limits.entries
    }

    pub(super) fn is_too_large(&self, body_bytes: u64, weight: u64) -> bool {
        body_bytes > OBJECT_BYTES_MAX || weight > self.limits.bytes / 2
    }

    /// What a fill for `object` would pin besides itself: its key's other variants.
    pub(super) fn evictable_bytes(&self, object: &Handle<P>) -> u64 {
        let slot = self.index.get(&object.terms().hash);
        let entry = slot.and_then(|slot| self.entry(*slot));
        entry.filter(|entry| entry.fills == 0).map_or(0, |entry| entry.weight)
    }

    /// What `object` will take the place of.
    pub(super) fn replaced_bytes(&self, object: &Handle<P>) -> u64 {
        let slot = self.index.get(&object.terms().hash);
        let entry = slot.and_then(|slot| self.entry(*slot));
        let variants = entry.map_or(&[][..], |entry| &entry.variants);
        let same = variants.iter().find(|v| v.object.terms().variant == object.terms().variant);
        same.map_or(0, |variant| variant.weight)
    }

    /// What no eviction brings back.
    pub(super) fn pinned_bytes(&self) -> u64 {
        self.bytes - self.queues.bytes() + self.lingering.bytes()
    }

    fn counter(&mut self, why: Why) -> &mut u64 {
        match why {
            Why::Evicted => &mut self.counters.evicted,
            Why::Expired => &mut self.counters.expired,
            Why::Replaced => &mut self.counters.replaced,
            Why::Removed => &mut self.counters.removed,
            Why::Withdrawn => &mut self.counters.withdrawn,
        }
    }

    /// In debug builds after every mutator; of a large store only now and then, as it walks everything.
    pub(super) fn check(&mut self) {
        #[cfg(debug_assertions)]
        {
            self.checks = self.checks.wrapping_add(1);
            if self.slab.len() <= CHECKED_ALWAYS || self.checks.is_multiple_of(CHECKED_EVERY) {
                self.check_invariants();
            }
        }
    }

    /// Counts everything anew.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check_invariants(&self) {
        let (mut bytes, mut objects, mut entries, mut fills) = (0, 0, 0, 0);
        for (slot, entry) in self.slab.iter().enumerate() {
            let slot = slot as u32;
            let Some(entry) = entry else {
                assert_eq!(self.queues.weight_of(slot), None, "an empty slot is not queued");
                continue;
            };
            assert_eq!(self.index.get(&entry.hash), Some(&slot));
            assert!((1..=VARIANTS_MAX).contains(&entry.variants.len()));
            assert!(entry.weight <= self.limits.bytes / 2, "a key has half a shard at most");
            let of_variants: u64 = entry.variants.iter().map(|variant| variant.weight).sum();
            assert_eq!(entry.weight, of_variants);
            let evictable = (entry.fills == 0).then_some(entry.weight);
            assert_eq!(self.queues.weight_of(slot), evictable, "evictable or filling");
            for (at, variant) in entry.variants.iter().enumerate() {
                let terms = variant.object.terms();
                assert_eq!((terms.hash, variant.object.key()), (entry.hash, entry.key()));
                let earlier = &entry.variants[..at];
                assert!(earlier.iter().all(|v| v.object.terms().variant != terms.variant));
                if let Some(id) = variant.fill {
                    assert_eq!(self.fills.get(&id), Some(&slot));
                } else {
                    let body = variant.object.body().published();
                    assert_eq!(body.state, BodyState::Complete);
                    assert_eq!(variant.object.weight(), variant.weight);
                }
            }
            let filling = entry.variants.iter().filter(|variant| variant.fill.is_some()).count();
            assert_eq!(entry.fills, filling);
            (bytes, objects, entries) =
                (bytes + entry.weight, objects + entry.variants.len(), entries + 1);
            fills += filling;
        }
        assert_eq!((bytes, objects), (self.bytes, self.objects));
        assert_eq!((entries, fills), (self.index.len(), self.fills.len()));
        assert_eq!(entries + self.free.len(), self.slab.len());
        assert!(self.queues.bytes() <= self.limits.bytes, "the byte budget");
        assert!(self.queues.len() <= self.limits.entries, "the entry budget");
        let filling = self.bytes - self.queues.bytes();
        assert!(filling <= self.limits.bytes, "fills are within the budget, too");
        self.lingering.check_invariants();
        self.queues.check_invariants();
        self.leases.check_invariants();
    }
}

/// Bodies on their way out that one call looks at.
const LINGERING_PER_CALL: usize = 8;
/// Bodies that are being read that one call comes upon before it gives up.
const SPARED_MAX: usize = 16;
#[cfg(debug_assertions)]
const CHECKED_ALWAYS: usize = 256;
#[cfg(debug_assertions)]
const CHECKED_EVERY: u32 = 1024;
