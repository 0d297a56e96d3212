//! Idle connections to backends, per core.
//!
//! Last in, first out: the connection used last is the one least likely to have been closed by its backend, and the
//! ones a quiet core does not need grow old together. Every idle connection is *watched*: an end, stray bytes or its
//! age stir it, and it is gone before anybody could be handed it. What the watch has not reported yet, checkout still asks.
//!
//! Invariants: no connection to a closed slot is kept; a slot holds at most [`IDLE_PER_BACKEND_MAX`].

use std::time::Duration;

use crate::balance::Slot;
use crate::io::Stream;
use crate::time::Instant;

/// The idle connections of one core, by backend.
pub(super) struct Pool<S> {
    backends: Vec<Shelf<S>>,
    serial: u32,
    /// Idle connections on all shelves.
    idle: usize,
}

struct Shelf<S> {
    idle: Vec<Idle<S>>,
    is_open: bool,
}

struct Idle<S> {
    stream: S,
    serial: u32,
    since: Instant,
}

impl<S: Stream> Pool<S> {
    pub(super) fn new() -> Self {
        Self { backends: Vec::new(), serial: 0, idle: 0 }
    }

    /// From here on connections to `slot` are kept, or (closed) dropped at once. Returns how many were dropped.
    pub(super) fn set_open(&mut self, slot: Slot, is_open: bool) -> usize {
        while self.backends.len() <= slot.index() {
            self.backends.push(Shelf { idle: Vec::new(), is_open: false });
        }
        let shelf = &mut self.backends[slot.index()];
        shelf.is_open = is_open;
        if is_open {
            return 0;
        }
        let dropped = shelf.idle.len();
        shelf.idle = Vec::new();
        self.idle -= dropped;
        dropped
    }

    /// The connection to `slot` that was used last and is still silent; dead ones found on the way are dropped and
    /// counted in `evicted`.
    pub(super) fn checkout(&mut self, slot: Slot, evicted: &mut u64) -> Option<S> {
        let shelf = self.backends.get_mut(slot.index())?;
        while let Some(Idle { stream, .. }) = shelf.idle.pop() {
            self.idle -= 1;
            if stream.is_quiet() {
                stream.watch(None);
                stream.set_deadline(None);
                return Some(stream);
            }
            *evicted += 1;
        }
        None
    }

    /// Keeps `stream` for the next request to `slot`, until `now + idle_timeout`. False when it was dropped instead.
    pub(super) fn checkin(
        &mut self,
        slot: Slot,
        stream: S,
        now: Instant,
        idle_timeout: Duration,
    ) -> bool {
        let Some(shelf) = self.backends.get_mut(slot.index()) else { return false };
        if !stream.is_quiet() || !shelf.is_open || shelf.idle.len() >= IDLE_PER_BACKEND_MAX {
            return false;
        }
        self.serial = self.serial.wrapping_add(1);
        stream.watch(Some(u64::from(slot.0) << 32 | u64::from(self.serial)));
        stream.set_deadline(Some(now + idle_timeout));
        shelf.idle.push(Idle { stream, serial: self.serial, since: now });
        self.idle += 1;
        true
    }

    /// Drops the connection whose watch reported `tag`, if it is still idle and not silent, and says whose it was.
    pub(super) fn stirred(&mut self, tag: u64) -> Option<Slot> {
        let (slot, serial) = ((tag >> 32) as usize, tag as u32);
        let shelf = self.backends.get_mut(slot)?;
        let at = shelf.idle.iter().position(|idle| idle.serial == serial)?;
        let idle = &shelf.idle[at];
        // A writable edge stirs too, and means nothing.
        if idle.stream.is_quiet() && !idle.stream.status().is_expired {
            return None;
        }
        shelf.idle.remove(at);
        self.idle -= 1;
        Some(Slot(slot as u32))
    }

    /// Takes out what has been idle since `cold`, at most as many as there is `room` for, oldest first, and gives them to
    /// `each`. Of the rest drops what has been idle since `surplus`; returns how many those were.
    pub(super) fn cool(
        &mut self,
        cold: Instant,
        surplus: Instant,
        room: impl Fn(Slot) -> usize,
        mut each: impl FnMut(Slot, S, Instant),
    ) -> usize {
        if self.idle == 0 {
            return 0;
        }
        let mut dropped = 0;
        for (slot, shelf) in (0..).map(Slot).zip(&mut self.backends) {
            // The one used last lies on top.
            let since = |before: Instant| move |idle: &Idle<S>| idle.since <= before;
            let cold = shelf.idle.partition_point(since(cold));
            if cold == 0 {
                continue;
            }
            let moved = cold.min(room(slot));
            for Idle { stream, since, .. } in shelf.idle.drain(..moved) {
                each(slot, stream, since);
            }
            let closed = shelf.idle.partition_point(since(surplus));
            shelf.idle.drain(..closed);
            self.idle -= moved + closed;
            dropped += closed;
        }
        dropped
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.backends.clear();
        self.idle = 0;
    }

    /// How many are kept.
    pub(super) fn idle(&self) -> usize {
        self.idle
    }
}

/// Idle connections kept per backend and core; one more is closed instead.
pub(super) const IDLE_PER_BACKEND_MAX: usize = 256;
