//! The in-flight limit of a backend (`--backend-max-inflight`), kept exactly over all cores.
//!
//! A request in flight holds a credit, and there are as many credits per backend as the limit says. They lie in a shared
//! stock; a core takes one when it needs it and keeps it from one request to the next until its tick, so that a hit in
//! what it holds touches nothing shared. The stock is the only thing that all cores change, and only where there is a
//! limit. Rejected: a part of the limit for each core, of which a core alone could use but that part; and to admit while
//! one's own and the others' published figures are below the limit, which a burst on all cores exceeds by as many times as
//! there are cores.
//!
//! Who goes first when there is not enough: each core has a *share*, the limit divided by the cores; the rest of
//! the division, and a limit below the number of cores, go round every [`TURN`]. A core that waits although it holds less
//! than its share of some backend is *hungry*; while any is, the others take nothing beyond their shares and give back
//! what ends. Otherwise who is first takes what there is: nothing lies idle for somebody who does not want it.
//!
//! Who gives back wakes one core that waits; what that misses, the waiting core's tick finds within 10 ms. Exceptions to
//! the limit: a retry at the only backend there is, and the second address of a name, may exceed it by one request each.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::balance::Slot;
use crate::io::Bell;
use crate::time::Instant;

/// One core's credits. Made for all cores at once by [`Credits::for_cores`].
pub struct Credits<B> {
    limit: u32,
    own: usize,
    stock: Arc<Stock>,
    bells: Vec<B>,
    /// By slot.
    rows: RefCell<Vec<Row>>,
    /// In the last round of questions a backend had nothing for us although we hold less than our share of it.
    is_short: Cell<bool>,
}

/// What all cores share.
struct Stock {
    /// Credits that nobody holds, by slot.
    free: Box<[AtomicU32]>,
    /// A bit per core: requests wait there; and although it holds less than its share.
    waiting: Cores,
    hungry: Cores,
}

#[derive(Clone, Copy, Default)]
struct Row {
    held: u32,
    in_use: u32,
}

impl<B: Bell> Credits<B> {
    /// The credits of each core, `bells[i]` being that of core `i`: `limit` for each backend in `slots` slots.
    pub fn for_cores(limit: u32, bells: &[B], slots: usize) -> Vec<Self> {
        let stock = Arc::new(Stock {
            free: (0..slots).map(|_| AtomicU32::new(limit)).collect(),
            waiting: Cores::none(bells.len()),
            hungry: Cores::none(bells.len()),
        });
        let core = |own| Self {
            limit,
            own,
            stock: Arc::clone(&stock),
            bells: bells.to_vec(),
            rows: RefCell::default(),
            is_short: Cell::new(false),
        };
        (0..bells.len()).map(core).collect()
    }

    /// Whether a request could go to `slot`, as far as one can see.
    pub(super) fn has(&self, slot: Slot, now: Instant) -> bool {
        let row = self.row(slot);
        let is_below = row.held < self.share(slot, now);
        let has = row.held > row.in_use
            || (self.free(slot).is_some_and(|free| free.load(Ordering::Relaxed) > 0)
                && (is_below || !self.stock.hungry.any_but(self.own)));
        if !has && is_below {
            self.is_short.set(true);
        }
        has
    }

    /// Sees to it that a credit for `slot` is at hand. False when there is none to be had.
    pub(super) fn secure(&self, slot: Slot, now: Instant) -> bool {
        if !self.has(slot, now) {
            return false;
        }
        let row = self.row(slot);
        if row.held > row.in_use {
            return true;
        }
        let less = |n: u32| n.checked_sub(1);
        let free = self.free(slot);
        let is_taken = free.is_some_and(|free| {
            free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
        });
        self.with(slot, |row| row.held += u32::from(is_taken));
        is_taken
    }

    /// A request goes to `slot`, on a credit if there is one.
    pub(super) fn begin(&self, slot: Slot, now: Instant) {
        self.secure(slot, now);
        self.with(slot, |row| row.in_use += 1);
    }

    /// A request to `slot` has ended. `has_waiting`: others of this core wait.
    pub(super) fn end(&self, slot: Slot, has_waiting: bool, now: Instant) {
        self.with(slot, |row| row.in_use -= 1);
        let Row { held, in_use } = self.row(slot);
        let Stock { waiting, hungry, .. } = &*self.stock;
        let is_wanted = (hungry.any_but(self.own) && held > self.share(slot, now))
            || (!has_waiting && waiting.any_but(self.own));
        if held > in_use && is_wanted {
            self.give_back(slot, 1);
            self.wake_one();
        }
    }

    /// Requests of this core wait. True when that is news to the others: then what they have given back meanwhile may
    /// have been missed.
    pub(super) fn wait(&self) -> bool {
        let is_short = self.is_short.take();
        let is_news = self.stock.waiting.set(self.own, true);
        self.stock.hungry.set(self.own, is_short) || is_news
    }

    /// No request of this core waits any more.
    pub(super) fn stop_waiting(&self) {
        self.stock.waiting.set(self.own, false);
        self.stock.hungry.set(self.own, false);
    }

    /// Gives back what is not in use.
    pub(super) fn tick(&self) {
        let rows = self.rows.borrow().len() as u32;
        let mut given = 0;
        for slot in (0..rows).map(Slot) {
            let Row { held, in_use } = self.row(slot);
            if held > in_use {
                self.give_back(slot, held - in_use);
                given += held - in_use;
            }
        }
        if given > 0 {
            self.wake_one();
        }
    }

    fn give_back(&self, slot: Slot, n: u32) {
        self.with(slot, |row| row.held -= n);
        if let Some(free) = self.free(slot) {
            // Before anybody's bits are read: who set them before looks after this.
            let before = free.fetch_add(n, Ordering::SeqCst);
            debug_assert!(before + n <= self.limit, "credits out of nothing");
        }
    }

    /// Wakes one other core that waits, a hungry one first.
    fn wake_one(&self) {
        let Stock { waiting, hungry, .. } = &*self.stock;
        let next = hungry.next_after(self.own).or_else(|| waiting.next_after(self.own));
        if let Some(core) = next {
            self.bells[core].ring();
        }
    }

    /// What this core may hold whatever the others want.
    fn share(&self, slot: Slot, now: Instant) -> u32 {
        let cores = self.bells.len() as u32;
        let turn = now.as_ns() / TURN.as_nanos() as u64 % u64::from(cores);
        let place = (self.own as u32 + slot.0 % cores + turn as u32) % cores;
        self.limit / cores + u32::from(place < self.limit % cores)
    }

    fn free(&self, slot: Slot) -> Option<&AtomicU32> {
        self.stock.free.get(slot.index())
    }

    fn row(&self, slot: Slot) -> Row {
        self.rows.borrow().get(slot.index()).copied().unwrap_or_default()
    }

    fn with(&self, slot: Slot, change: impl FnOnce(&mut Row)) {
        let mut rows = self.rows.borrow_mut();
        if rows.len() <= slot.index() {
            rows.resize(slot.index() + 1, Row::default());
        }
        change(&mut rows[slot.index()]);
    }
}

/// A set of cores. Each core changes its own bit only.
struct Cores(Box<[AtomicU64]>);

impl Cores {
    fn none(cores: usize) -> Self {
        Self((0..cores.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Puts `core` in or out; true when it came in.
    fn set(&self, core: usize, is_in: bool) -> bool {
        let (word, bit) = (&self.0[core / BITS], 1 << (core % BITS));
        if (word.load(Ordering::Relaxed) & bit != 0) == is_in {
            return false;
        }
        if is_in {
            word.fetch_or(bit, Ordering::SeqCst);
        } else {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
        is_in
    }

    fn any_but(&self, core: usize) -> bool {
        let others = |(at, word): (usize, &AtomicU64)| {
            let own = if at == core / BITS { 1 << (core % BITS) } else { 0 };
            word.load(Ordering::SeqCst) & !own != 0
        };
        self.0.iter().enumerate().any(others)
    }

    /// The first one behind `core`, going round; not `core` itself.
    fn next_after(&self, core: usize) -> Option<usize> {
        let cores = self.0.len() * BITS;
        let is_in = |at: &usize| self.0[at / BITS].load(Ordering::SeqCst) & 1 << (at % BITS) != 0;
        (core + 1..core + cores).map(|at| at % cores).find(is_in)
    }
}

const BITS: usize = u64::BITS as usize;
/// How long the rest of the division stays with the same cores.
const TURN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Silent;

    impl Bell for Silent {
        fn ring(&self) {}
    }

    const SLOT: Slot = Slot(3);

    /// Cores with requests that want to go to one backend, as the worker drives them.
    struct Model {
        cores: Vec<Credits<Silent>>,
        waiting: Vec<u32>,
        in_flight: Vec<u32>,
        served: Vec<u32>,
        now: Instant,
    }

    impl Model {
        fn new(limit: u32, cores: usize) -> Self {
            let none = vec![0; cores];
            Self {
                cores: Credits::for_cores(limit, &vec![Silent; cores], 8),
                waiting: none.clone(),
                in_flight: none.clone(),
                served: none,
                now: Instant::from_ns(0),
            }
        }

        /// Whoever waits at the front tries, and again if the others hear only now that it waits.
        fn poll(&mut self, at: usize) {
            while self.waiting[at] > 0 {
                let core = &self.cores[at];
                if !(core.secure(SLOT, self.now) || core.wait() && core.secure(SLOT, self.now)) {
                    return;
                }
                core.begin(SLOT, self.now);
                self.waiting[at] -= 1;
                self.in_flight[at] += 1;
                if self.waiting[at] == 0 {
                    core.stop_waiting();
                }
            }
        }

        fn end(&mut self, at: usize) {
            self.in_flight[at] -= 1;
            self.served[at] += 1;
            self.cores[at].end(SLOT, self.waiting[at] > 0, self.now);
            self.poll(at);
        }

        fn tick(&mut self, at: usize) {
            self.cores[at].tick();
            self.poll(at);
        }

        fn total(&self) -> u32 {
            self.in_flight.iter().sum()
        }
    }

    #[test]
    fn one_core_alone_has_the_whole_limit() {
        let mut model = Model::new(4, 2);
        model.waiting[1] = 6;
        model.poll(1);
        assert_eq!(model.in_flight, [0, 4]);
        (0..4).for_each(|_| model.end(1));
        assert_eq!(model.in_flight, [0, 2]);
        // What it does not use is there for the other one after its tick.
        model.waiting[0] = 4;
        model.poll(0);
        model.tick(1);
        model.poll(0);
        assert_eq!(model.in_flight, [2, 2]);
    }

    /// Random arrivals, ends, ticks: never more than the limit, and never idle while somebody waits, ticks aside.
    #[test]
    fn the_limit_holds_and_nothing_lies_idle() {
        let mut seed = 7_u64;
        let mut draw = move |n: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % n
        };
        for (limit, cores) in [(1, 2), (4, 2), (5, 3), (2, 8), (100, 3), (7, 70)] {
            let mut model = Model::new(limit, cores);
            for _ in 0..20_000 {
                let at = draw(cores);
                match draw(4) {
                    0 => model.waiting[at] += draw(3) as u32,
                    1 if model.in_flight[at] > 0 => model.end(at),
                    2 => model.tick(at),
                    _ => model.poll(at),
                }
                model.now = model.now + Duration::from_micros(draw(2_000) as u64);
                assert!(model.total() <= limit, "{limit} on {cores}: {:?}", model.in_flight);
            }
            for _ in 0..3 {
                (0..cores).for_each(|at| model.tick(at));
            }
            let waits: u32 = model.waiting.iter().sum();
            assert!(waits == 0 || model.total() == limit, "{limit} on {cores} is not used up");
        }
    }

    #[test]
    fn cores_under_load_get_alike_and_no_limit_is_too_small_for_that() {
        for (limit, cores) in [(1, 2), (1, 5), (4, 2), (5, 3), (64, 4)] {
            let mut model = Model::new(limit, cores);
            model.waiting.fill(u32::MAX / 2);
            // The first core comes first, every time.
            for step in 0..4_000 {
                (0..cores).for_each(|at| model.poll(at));
                for at in 0..cores {
                    if model.in_flight[at] > 0 {
                        model.end(at);
                    }
                }
                if step % 10 == 0 {
                    (0..cores).for_each(|at| model.tick(at));
                }
                // Those who were woken.
                (0..cores).for_each(|at| model.poll(at));
                assert_eq!(model.total(), limit, "{limit} on {cores}: {:?}", model.in_flight);
                model.now = model.now + Duration::from_millis(1);
            }
            let (least, most) = (model.served.iter().min(), model.served.iter().max());
            let (least, most) = (least.unwrap(), most.unwrap());
            assert!(most * 3 <= least * 4, "{limit} on {cores}: {:?}", model.served);
        }
    }
}
