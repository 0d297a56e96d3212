//! Idle backend connections that no core has use for and any core may have.
//!
//! A core keeps what it uses: checking a connection in and out touches nothing shared. What has lain idle for
//! [`COLD_AFTER`] goes to a short queue per backend, and a core whose own pool is empty looks there before it dials. So
//! busy cores have pools of their own, and quiet ones share one: with 64 cores and a backend that closes after five idle
//! seconds, ten requests a second would otherwise find hardly a connection alive. The queue's length is the budget of
//! the whole process for cold connections to one backend; what finds no room there within [`SURPLUS_AFTER`] is closed.
//! Rejected: to donate whatever exceeds a core's share of a number. A steady load swings around any such share, and the
//! swings become closes and dials.
//!
//! The crossing: one bounded queue per backend, made when the first connection is donated. Nobody is woken when something
//! happens on a donated connection, so each queue has a home core that looks through it every second or so; whoever
//! takes one asks the kernel, too. No donated connection outlives the idle timeout.
//!
//! Who applies a snapshot empties the queues of all backends that are not open in it, and donates to none of them from
//! there on: once every core has applied it, nothing is left, and the slot may have another backend.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::shard::Shard;
use crate::balance::Slot;
use crate::io::{Io, Stream};
use crate::metrics::Count;
use crate::time::Instant;

/// One core's access to what all share. Made for all cores at once by [`Share::for_cores`].
pub struct Share<M> {
    pieces: Arc<[OnceLock<Piece<M>>]>,
    own: usize,
    cores: usize,
    /// The next slot to look through; advanced in steps of `cores`, it stays one of this core's.
    next: Cell<usize>,
    /// Connections seen in this core's queues during the current round, and in the last whole one.
    seen: Cell<(u64, u64)>,
}

/// Queues of neighbouring slots, made together when the first of them is used: memory follows the set.
type Piece<M> = Box<[OnceLock<Queue<M>>; SLOTS_PER_PIECE]>;
type Queue<M> = (Sender<Donated<M>>, Receiver<Donated<M>>);

struct Donated<M> {
    movable: M,
    until: Instant,
}

impl<M: Send> Share<M> {
    /// The access of each of `cores` cores, for backends in `slots` slots.
    pub fn for_cores(cores: usize, slots: usize) -> Vec<Self> {
        let pieces = slots.div_ceil(SLOTS_PER_PIECE);
        let pieces: Arc<[_]> = (0..pieces).map(|_| OnceLock::new()).collect();
        let share = |own| Self {
            pieces: Arc::clone(&pieces),
            own,
            cores,
            next: Cell::new(own),
            seen: Cell::new((0, 0)),
        };
        (0..cores).map(share).collect()
    }

    /// How many more connections to `slot` find room.
    pub(super) fn room(&self, slot: Slot) -> usize {
        let taken = self.queue(slot.index()).map_or(0, |(donate, _)| donate.len());
        DONATED_MAX - taken.min(DONATED_MAX)
    }

    /// Lets any core have a connection, until `until`. False when there was no room: it was closed.
    pub(super) fn donate(&self, slot: Slot, movable: M, until: Instant) -> bool {
        let Some(piece) = self.pieces.get(slot.index() / SLOTS_PER_PIECE) else { return false };
        let piece = piece.get_or_init(|| Box::new([const { OnceLock::new() }; SLOTS_PER_PIECE]));
        let queue = &piece[slot.index() % SLOTS_PER_PIECE];
        let (donate, _) = queue.get_or_init(|| bounded(DONATED_MAX));
        donate.try_send(Donated { movable, until }).is_ok()
    }

    /// A connection to `slot` on which nothing has happened. Others found on the way are closed and counted in `evicted`.
    pub(super) fn take<I: Io<Movable = M>>(
        &self,
        io: &I,
        slot: Slot,
        evicted: &mut u64,
    ) -> Option<I::Stream> {
        let (_, donated) = self.queue(slot.index())?;
        while let Ok(Donated { movable, until }) = donated.try_recv() {
            if io.now() < until
                && io.is_quiet(&movable)
                && let Ok(stream) = io.adopt(movable)
            {
                return Some(stream);
            }
            *evicted += 1;
        }
        None
    }

    /// Closes all connections to `slot`; returns how many.
    pub(super) fn clear(&self, slot: Slot) -> usize {
        self.queue(slot.index()).map_or(0, |(_, donated)| donated.try_iter().count())
    }

    /// Closes everything; returns how many.
    pub(super) fn clear_all(&self) -> usize {
        (0..(self.pieces.len() * SLOTS_PER_PIECE) as u32).map(|slot| self.clear(Slot(slot))).sum()
    }

    /// Looks through a part of the queues this core is home to, of the backends in the first `slots` slots; returns how
    /// many connections were closed.
    pub(super) fn look_through<I: Io<Movable = M>>(&self, io: &I, slots: usize) -> u64 {
        let (mut looks, mut evicted) = (0, 0);
        for _ in (self.own..slots).step_by(self.cores) {
            if self.next.get() >= slots {
                self.next.set(self.own);
                self.seen.set((0, self.seen.get().0));
            }
            let slot = self.next.replace(self.next.get() + self.cores);
            let Some((donate, donated)) = self.queue(slot) else { continue };
            for _ in 0..donated.len() {
                let Ok(item) = donated.try_recv() else { break };
                looks += 1;
                let is_kept = io.now() < item.until && io.is_quiet(&item.movable);
                // Full again: somebody else donated meanwhile.
                evicted += u64::from(!is_kept || donate.try_send(item).is_err());
            }
            let (seen, of_last) = self.seen.get();
            self.seen.set((seen + donated.len() as u64, of_last));
            if looks >= LOOKS_MAX {
                break;
            }
        }
        evicted
    }

    /// Donated connections in the queues this core is home to, when it looked last.
    pub(super) fn seen(&self) -> u64 {
        self.seen.get().1
    }

    fn queue(&self, slot: usize) -> Option<&Queue<M>> {
        self.pieces.get(slot / SLOTS_PER_PIECE)?.get()?[slot % SLOTS_PER_PIECE].get()
    }
}

/// Lets the others have the connections this core does not use, and looks after those nobody uses. Cheap when there are
/// none.
pub(super) fn cool<I: Io>(shard: &Shard<I>) {
    let Some(share) = &shard.share else { return };
    let (now, idle_timeout) = (shard.now(), shard.config.timeouts.idle);
    let ago = |time: Duration| Instant::from_ns(now.as_ns().saturating_sub(time.as_nanos() as u64));
    let mut evicted = 0;
    let surplus = shard.pool.borrow_mut().cool(
        ago(COLD_AFTER),
        ago(SURPLUS_AFTER),
        |slot| share.room(slot),
        |slot, stream, since| {
            let is_donated =
                stream.is_quiet() && share.donate(slot, stream.detach(), since + idle_timeout);
            evicted += u64::from(!is_donated);
        },
    );
    let slots = shard.picker.borrow().slots();
    evicted += share.look_through(&shard.io, slots) + surplus as u64;
    shard.counters.add(Count::PoolEvictions, evicted);
}

/// A connection this long idle is of no use to its core.
const COLD_AFTER: Duration = Duration::from_millis(100);
/// One that found no room in the queue is closed after this long.
const SURPLUS_AFTER: Duration = Duration::from_secs(5);
/// Cold connections to one backend in the whole process: what a burst after a pause finds warm.
pub(super) const DONATED_MAX: usize = 64;
/// Connections one look asks the kernel about, one system call each; a queue that was begun is finished.
const LOOKS_MAX: usize = 64;
const SLOTS_PER_PIECE: usize = 64;
