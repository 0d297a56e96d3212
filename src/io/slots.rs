//! The readiness table: one slot per socket, listener and timer of a core, and the deadlines in them.
//!
//! Indexed by a number of our own, not by descriptor: descriptors are numbered process-wide, so a table by descriptor
//! would be as long on every core as the process has sockets. Each epoll token carries the slot's generation; an event
//! for a socket that is gone finds another generation and is dropped.
//!
//! A deadline is one store. The heap holds for each slot an entry *no later* than its deadline; when the entry
//! comes up, the slot is asked anew and the entry moves on. A slot keeps its entry when it changes hands. An earlier
//! deadline needs an entry of its own and leaves the later one behind; those are swept out when the heap holds more than
//! [`ENTRIES_PER_SLOT_MAX`] per slot.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::{Context, Poll, Waker};

use super::{Interest, Status};
use crate::time::Instant;

pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    queue: BinaryHeap<Reverse<(u64, u32)>>,
    stirred: Vec<u64>,
    stir_waker: Option<Waker>,
}

struct Slot {
    /// Odd while in use.
    generation: u32,
    bits: u8,
    waker: Option<Waker>,
    deadline_ns: u64,
    /// The earliest entry of this slot in the queue; NEVER when there is none.
    queued_ns: u64,
    /// NO_TAG unless watched.
    tag: u64,
}

impl Slots {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            // Room that a quiet core never outgrows, so that warm traffic allocates nothing by chance.
            queue: BinaryHeap::with_capacity(256),
            stirred: Vec::with_capacity(64),
            stir_waker: None,
        }
    }

    /// A slot with the given readiness, nobody waiting.
    pub(super) fn claim(&mut self, bits: u8) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 descriptors exist");
            self.slots.push(Slot {
                generation: 0,
                bits: 0,
                waker: None,
                deadline_ns: NEVER,
                queued_ns: NEVER,
                tag: NO_TAG,
            });
            index
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        debug_assert!(slot.generation % 2 == 1, "a slot in use was handed out");
        slot.bits = bits;
        index
    }

    /// Gives the slot back. The waker is returned so that it is dropped outside any borrow.
    pub(super) fn release(&mut self, index: u32) -> Option<Waker> {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.generation % 2 == 1, "a free slot was given back");
        slot.generation = slot.generation.wrapping_add(1);
        slot.bits = 0;
        slot.deadline_ns = NEVER;
        slot.tag = NO_TAG;
        self.free.push(index);
        slot.waker.take()
    }

    /// What epoll reports events of this slot under.
    pub(super) fn token(&self, index: u32) -> u64 {
        u64::from(self.slots[index as usize].generation) << 32 | u64::from(index)
    }

    pub(super) fn has(&self, index: u32, bits: u8) -> bool {
        self.slots[index as usize].bits & bits != 0
    }

    pub(super) fn clear(&mut self, index: u32, bits: u8) {
        self.slots[index as usize].bits &= !bits;
    }

    pub(super) fn set(&mut self, index: u32, bits: u8) {
        self.slots[index as usize].bits |= bits;
    }

    pub(super) fn status(&self, index: u32) -> Status {
        let bits = self.slots[index as usize].bits;
        Status {
            is_readable: bits & READABLE != 0,
            is_writable: bits & WRITABLE != 0,
            is_finished: bits & FINISHED != 0,
            is_reset: bits & RESET != 0,
            is_expired: bits & EXPIRED != 0,
        }
    }

    /// Ready when a bit of interest is set. Else the task's waker is kept; one that it replaces is returned,
    /// to be dropped outside any borrow.
    pub(super) fn poll(
        &mut self,
        index: u32,
        interest: Interest,
        cx: &Context<'_>,
    ) -> (Poll<()>, Option<Waker>) {
        let slot = &mut self.slots[index as usize];
        let mut wanted = RESET | EXPIRED;
        if interest.read {
            wanted |= READABLE | FINISHED;
        }
        if interest.write {
            wanted |= WRITABLE;
        }
        if slot.bits & wanted != 0 {
            slot.bits &= !WAITING;
            return (Poll::Ready(()), None);
        }
        slot.bits |= WAITING;
        match &slot.waker {
            // Cloning a glommio waker is an atomic increment: keep the one we have.
            Some(known) if known.will_wake(cx.waker()) => (Poll::Pending, None),
            _ => (Poll::Pending, slot.waker.replace(cx.waker().clone())),
        }
    }

    /// Drops what is left of the task that waited here last.
    pub(super) fn forget_waker(&mut self, index: u32) -> Option<Waker> {
        self.slots[index as usize].waker.take()
    }

    pub(super) fn set_tag(&mut self, index: u32, tag: Option<u64>) {
        self.slots[index as usize].tag = tag.unwrap_or(NO_TAG);
    }

    /// Adds `bits` to the slot an event's token names, and tells whoever waits.
    pub(super) fn raise(&mut self, token: u64, bits: u8) {
        let index = token as u32;
        let is_current = self
            .slots
            .get(index as usize)
            .is_some_and(|slot| slot.generation == (token >> 32) as u32);
        if is_current {
            self.raise_at(index, bits);
        }
    }

    fn raise_at(&mut self, index: u32, bits: u8) {
        let slot = &mut self.slots[index as usize];
        slot.bits |= bits;
        if slot.tag != NO_TAG {
            self.stirred.push(slot.tag);
            if let Some(waker) = &self.stir_waker {
                waker.wake_by_ref();
            }
        } else if slot.bits & WAITING != 0
            && let Some(waker) = &slot.waker
        {
            waker.wake_by_ref();
        }
    }

    /// Sets or removes the deadline and forgets that an earlier one passed. One that is not after `now` has passed.
    pub(super) fn set_deadline(&mut self, index: u32, deadline: Option<Instant>, now: Instant) {
        let slot = &mut self.slots[index as usize];
        slot.bits &= !EXPIRED;
        slot.deadline_ns = deadline.map_or(NEVER, Instant::as_ns);
        if slot.deadline_ns <= now.as_ns() {
            slot.deadline_ns = NEVER;
            slot.bits |= EXPIRED;
            return;
        }
        if slot.deadline_ns < slot.queued_ns {
            slot.queued_ns = slot.deadline_ns;
            self.queue.push(Reverse((slot.deadline_ns, index)));
            self.sweep();
        }
    }

    /// Drops the entries that were left behind, once there are many.
    fn sweep(&mut self) {
        if self.queue.len() > self.slots.len() * ENTRIES_PER_SLOT_MAX {
            let slots = &self.slots;
            self.queue.retain(|&Reverse((at_ns, index))| slots[index as usize].queued_ns == at_ns);
        }
    }

    /// When [`expire`](Self::expire) must be called next, in ns; it may turn out that nothing was due.
    pub(super) fn next_deadline_ns(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((at_ns, _))| *at_ns)
    }

    /// Flags every slot whose deadline is not after `now` and wakes its task.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&Reverse((at_ns, index))) = self.queue.peek()
            && at_ns <= now.as_ns()
        {
            self.queue.pop();
            let slot = &mut self.slots[index as usize];
            if slot.queued_ns != at_ns {
                continue; // an earlier entry took over
            }
            slot.queued_ns = NEVER;
            if slot.deadline_ns <= now.as_ns() {
                slot.deadline_ns = NEVER;
                self.raise_at(index, EXPIRED);
            } else if slot.deadline_ns != NEVER {
                slot.queued_ns = slot.deadline_ns;
                self.queue.push(Reverse((slot.deadline_ns, index)));
            }
        }
    }

    /// Tags of watched slots on which something happened; keeps the waker when there is none.
    pub(super) fn poll_stirred(&mut self, cx: &Context<'_>, tags: &mut Vec<u64>) -> Poll<()> {
        if self.stirred.is_empty() {
            self.stir_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        tags.append(&mut self.stirred);
        Poll::Ready(())
    }

    /// Wakes every waiting task. What it waits for may have come since the last event: reading is worth a try.
    pub(super) fn rouse(&mut self) {
        for slot in &mut self.slots {
            if slot.bits & WAITING != 0
                && let Some(waker) = &slot.waker
            {
                slot.bits |= READABLE;
                waker.wake_by_ref();
            }
        }
    }
}

pub(super) const READABLE: u8 = 1;
pub(super) const WRITABLE: u8 = 2;
pub(super) const FINISHED: u8 = 4;
pub(super) const RESET: u8 = 8;
pub(super) const EXPIRED: u8 = 16;
/// A send was told of a reset. The kernel tells it once; whoever reads must hear it, too.
pub(super) const BROKEN: u8 = 64;
const WAITING: u8 = 32;

/// A sweep leaves one entry per slot, so that it is paid for by the three that came since.
const ENTRIES_PER_SLOT_MAX: usize = 4;
const NEVER: u64 = u64::MAX;
const NO_TAG: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    const START: Instant = Instant::from_ns(0);

    fn at(ns: u64) -> Option<Instant> {
        Some(Instant::from_ns(ns))
    }

    #[test]
    fn a_waiting_task_is_woken_by_what_it_waits_for_and_by_its_deadline() {
        let mut slots = Slots::new();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let cx = Context::from_waker(&waker);
        let slot = slots.claim(0);
        assert!(slots.poll(slot, Interest::READ, &cx).0.is_pending());
        slots.set_deadline(slot, at(100), START);
        slots.expire(Instant::from_ns(99));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        slots.expire(Instant::from_ns(100));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(slots.poll(slot, Interest::NONE, &cx).0.is_ready());
        slots.set_deadline(slot, None, START);
        assert!(!slots.has(slot, EXPIRED));
        slots.raise(slots.token(slot), READABLE);
        assert!(slots.poll(slot, Interest::WRITE, &cx).0.is_pending());
        assert!(slots.poll(slot, Interest::READ, &cx).0.is_ready());
    }

    #[test]
    fn who_is_roused_may_read_before_an_event_says_so() {
        let mut slots = Slots::new();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let cx = Context::from_waker(&waker);
        let (waiting, other) = (slots.claim(0), slots.claim(0));
        assert!(slots.poll(waiting, Interest::READ, &cx).0.is_pending());
        slots.rouse();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(slots.poll(waiting, Interest::READ, &cx).0.is_ready());
        assert!(slots.poll(other, Interest::READ, &cx).0.is_pending());
    }

    #[test]
    fn a_deadline_that_is_set_again_after_it_passed_has_passed() {
        let mut slots = Slots::new();
        let cx = Context::from_waker(Waker::noop());
        let slot = slots.claim(0);
        slots.set_deadline(slot, at(100), Instant::from_ns(100));
        assert!(slots.poll(slot, Interest::NONE, &cx).0.is_ready());
        assert_eq!(slots.next_deadline_ns(), None, "nothing is left to wait for");
        slots.set_deadline(slot, at(100), Instant::from_ns(99));
        assert!(slots.poll(slot, Interest::NONE, &cx).0.is_pending());
    }

    #[test]
    fn an_event_for_the_previous_owner_of_a_slot_is_dropped() {
        let mut slots = Slots::new();
        let first = slots.claim(0);
        let stale = slots.token(first);
        slots.release(first);
        let second = slots.claim(0);
        assert_eq!(first, second);
        slots.raise(stale, READABLE);
        assert!(!slots.has(second, READABLE));
        slots.raise(slots.token(second), READABLE);
        assert!(slots.has(second, READABLE));
    }

    #[test]
    fn deadlines_move_without_growing_the_queue() {
        let mut slots = Slots::new();
        let slot = slots.claim(0);
        for n in 0..10_000 {
            slots.set_deadline(slot, at(1_000 + n), START);
        }
        for _ in 0..10_000 {
            slots.release(slot);
            assert_eq!(slots.claim(0), slot);
            slots.set_deadline(slot, at(20_000), START);
        }
        assert_eq!(slots.queue.len(), 1);
        slots.expire(Instant::from_ns(1_000));
        assert!(!slots.has(slot, EXPIRED));
        assert_eq!(slots.next_deadline_ns(), Some(20_000));
        slots.set_deadline(slot, at(5_000), START);
        slots.expire(Instant::from_ns(5_000));
        assert!(slots.has(slot, EXPIRED));
        slots.expire(Instant::from_ns(30_000));
        assert_eq!(slots.queue.len(), 0);
    }

    #[test]
    fn short_deadlines_between_long_ones_leave_nothing_behind() {
        let mut slots = Slots::new();
        let (slot, other) = (slots.claim(0), slots.claim(0));
        slots.set_deadline(other, at(500), START);
        // A request now and then on a connection with a long idle timeout.
        for n in 1..10_000 {
            let now = Instant::from_ns(n);
            slots.set_deadline(slot, at(n + 60_000), now);
            slots.set_deadline(slot, at(n + 1), now);
            slots.expire(now);
            assert!(slots.queue.len() <= 2 * ENTRIES_PER_SLOT_MAX);
            assert_eq!(slots.has(other, EXPIRED), n >= 500);
        }
        slots.expire(Instant::from_ns(10_000));
        assert!(slots.has(slot, EXPIRED));
    }

    #[test]
    fn a_watched_slot_reports_its_tag_instead_of_waking_a_task() {
        let mut slots = Slots::new();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let cx = Context::from_waker(&waker);
        let slot = slots.claim(0);
        slots.set_tag(slot, Some(7));
        slots.set_deadline(slot, at(10), START);
        let mut tags = Vec::new();
        assert!(slots.poll_stirred(&cx, &mut tags).is_pending());
        slots.raise(slots.token(slot), FINISHED | READABLE);
        slots.expire(Instant::from_ns(10));
        assert!(slots.poll_stirred(&cx, &mut tags).is_ready());
        assert_eq!(tags, [7, 7]);
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
    }
}
