//! The requests of one core that wait for the cache: for a home core's answer, for another request's fetch, or for
//! more of a body.
//!
//! A wait is a slot with room for one piece of news and one waker. Its [`Ticket`] travels; a serial number in it
//! tells a late message from one for whoever has the slot now.

use std::task::Waker;

use crate::cache::Representation;
use crate::cache::store::Answer;

/// A wait's name in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(pub u64);

/// What a wait is told.
#[derive(Debug)]
pub(super) enum News {
    /// The home's word, and what it has of the key.
    Answered(Answer<Representation>, Sighting),
    /// Look again.
    Released,
}

/// What a home has of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sighting {
    /// Any usable variant.
    pub has_variants: bool,
    /// One that the request selects.
    pub has_match: bool,
}

/// All waits of one core.
#[derive(Debug, Default)]
pub(super) struct Waits {
    slots: Vec<Slot>,
    free: Vec<u64>,
}

#[derive(Debug, Default)]
struct Slot {
    serial: u64,
    is_taken: bool,
    news: Option<News>,
    waker: Option<Waker>,
    /// Woken whenever some body of the process has grown.
    is_reader: bool,
}

impl Waits {
    /// A wait for an answer or a release.
    pub(super) fn enter(&mut self) -> Ticket {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u64 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.is_taken = true;
        Ticket(slot.serial << INDEX_BITS | index)
    }

    /// Ends a wait. News that comes later is for nobody.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        if let Some(slot) = self.slot(ticket) {
            let serial = (slot.serial + 1) & SERIAL_MASK;
            *slot = Slot { serial, ..Slot::default() };
            self.free.push(ticket.0 & INDEX_MASK);
        }
    }

    /// Tells a wait something; a release also overtakes an answer nobody has read.
    pub(super) fn tell(&mut self, ticket: Ticket, news: News) -> bool {
        let Some(slot) = self.slot(ticket) else { return false };
        slot.news = Some(news);
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
        true
    }

    /// What a wait has been told.
    pub(super) fn take_news(&mut self, ticket: Ticket) -> Option<News> {
        self.slot(ticket)?.news.take()
    }

    /// Keeps `waker` for the next news.
    pub(super) fn wake_on_news(&mut self, ticket: Ticket, waker: &Waker) {
        if let Some(slot) = self.slot(ticket) {
            keep(&mut slot.waker, waker);
        }
    }

    /// Keeps `waker` for when some body has grown.
    pub(super) fn wake_on_growth(&mut self, ticket: Ticket, waker: &Waker) {
        if let Some(slot) = self.slot(ticket) {
            slot.is_reader = true;
            keep(&mut slot.waker, waker);
        }
    }

    /// Some body has grown or ended: its readers look again.
    pub(super) fn wake_readers(&mut self) {
        for slot in &mut self.slots {
            if slot.is_reader
                && let Some(waker) = slot.waker.take()
            {
                waker.wake();
            }
        }
    }

    fn slot(&mut self, ticket: Ticket) -> Option<&mut Slot> {
        let slot = self.slots.get_mut((ticket.0 & INDEX_MASK) as usize)?;
        (slot.is_taken && slot.serial == ticket.0 >> INDEX_BITS).then_some(slot)
    }
}

fn keep(known: &mut Option<Waker>, waker: &Waker) {
    if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *known = Some(waker.clone());
    }
}

/// More waits than a core has connections; the rest of a ticket is a serial number that does not come again.
const INDEX_BITS: u32 = 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const SERIAL_MASK: u64 = u64::MAX >> INDEX_BITS;

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

    #[test]
    fn late_news_is_for_nobody() {
        let mut waits = Waits::default();
        let first = waits.enter();
        assert!(waits.tell(first, News::Released));
        waits.leave(first);
        let second = waits.enter();
        assert_ne!(first, second);
        assert!(!waits.tell(first, News::Released));
        assert!(waits.take_news(second).is_none());
        assert!(waits.tell(second, News::Released));
        assert!(matches!(waits.take_news(second), Some(News::Released)));
        assert!(waits.take_news(second).is_none());
    }

    #[test]
    fn only_readers_are_woken_by_growth_and_each_once() {
        let mut waits = Waits::default();
        let woken: [Arc<Woken>; 2] = Default::default();
        let (reader, other) = (waits.enter(), waits.enter());
        waits.wake_on_growth(reader, &Waker::from(woken[0].clone()));
        waits.wake_on_news(other, &Waker::from(woken[1].clone()));
        waits.wake_readers();
        waits.wake_readers();
        assert_eq!(woken.each_ref().map(|w| w.0.load(Ordering::Relaxed)), [1, 0]);
        waits.tell(other, News::Released);
        assert_eq!(woken[1].0.load(Ordering::Relaxed), 1);
    }
}
