//! Requests that wait because every backend they could go to is at its in-flight limit.
//!
//! First come, first served, per core. Bounded in length; each entry has a deadline of its own (the caller's, on the
//! client's connection). Only the front may leave for a backend: whoever ends a request wakes it. A newcomer queues even if
//! there is room just then, as long as somebody waits. Invariant: ids grow from front to back.

use std::collections::VecDeque;
use std::task::Waker;

/// The waiting requests of one core.
pub(super) struct RequestQueue {
    waiting: VecDeque<Entry>,
    length_max: usize,
    next_id: u64,
}

struct Entry {
    id: u64,
    waker: Option<Waker>,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

impl RequestQueue {
    /// A queue for at most `length_max` requests.
    pub(super) fn new(length_max: usize) -> Self {
        Self { waiting: VecDeque::new(), length_max, next_id: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A place at the end; `None` when the queue is full.
    pub(super) fn enter(&mut self) -> Option<Ticket> {
        if self.waiting.len() >= self.length_max {
            return None;
        }
        self.next_id += 1;
        self.waiting.push_back(Entry { id: self.next_id, waker: None });
        Some(Ticket(self.next_id))
    }

    /// Whether `ticket` is the next to leave.
    pub(super) fn is_front(&self, ticket: Ticket) -> bool {
        self.waiting.front().is_some_and(|entry| entry.id == ticket.0)
    }

    /// Keeps `waker` for when `ticket` may be the next.
    pub(super) fn await_turn(&mut self, ticket: Ticket, waker: &Waker) {
        if let Ok(at) = self.find(ticket) {
            let known = &mut self.waiting[at].waker;
            if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
                *known = Some(waker.clone());
            }
        }
    }

    /// Gives the place up, wherever it is. Whoever comes to the front by that is woken.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        if let Ok(at) = self.find(ticket) {
            self.waiting.remove(at);
            if at == 0 {
                self.wake_front();
            }
        }
    }

    /// There may be room: let the front look.
    pub(super) fn wake_front(&self) {
        if let Some(Entry { waker: Some(waker), .. }) = self.waiting.front() {
            waker.wake_by_ref();
        }
    }

    fn find(&self, ticket: Ticket) -> Result<usize, usize> {
        self.waiting.binary_search_by_key(&ticket.0, |entry| entry.id)
    }
}

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
    fn first_come_first_served_and_bounded() {
        let mut queue = RequestQueue::new(3);
        let tickets: Vec<_> = (0..3).map(|_| queue.enter().unwrap()).collect();
        assert_eq!(queue.enter(), None);
        assert!(queue.is_front(tickets[0]) && !queue.is_front(tickets[1]));
        queue.leave(tickets[1]);
        let late = queue.enter().unwrap();
        queue.leave(tickets[0]);
        assert!(queue.is_front(tickets[2]));
        queue.leave(tickets[2]);
        assert!(queue.is_front(late));
        queue.leave(late);
        assert!(queue.is_empty());
    }

    #[test]
    fn whoever_comes_to_the_front_is_woken() {
        let mut queue = RequestQueue::new(3);
        let woken: [Arc<Woken>; 2] = Default::default();
        let tickets = [queue.enter().unwrap(), queue.enter().unwrap()];
        for (ticket, woken) in tickets.iter().zip(&woken) {
            queue.await_turn(*ticket, &Waker::from(woken.clone()));
        }
        queue.wake_front();
        queue.leave(tickets[0]);
        assert_eq!(woken[0].0.load(Ordering::Relaxed), 1);
        assert_eq!(woken[1].0.load(Ordering::Relaxed), 1);
    }
}
