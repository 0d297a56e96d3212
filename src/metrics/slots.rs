//! What a core counts for each backend, by slot.
//!
//! The owner's rows ([`Slots`]) are plain; the tick copies out the rows that changed since the last one, so its cost
//! follows the traffic and not the size of the set. What others see ([`SharedSlots`]) is made in pieces when a slot is
//! first listed: memory follows the set, too (half a KiB for each slot and core, both sides together).
//!
//! A slot that is listed anew belongs to another backend: its row begins at zero. The epoch of a snapshot is published
//! after the rows it began, so who finds the epoch finds them as well.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::codes::{CLASSES, class_of};
use super::histogram::{COARSE, coarse_lower_us, coarse_of, quantile, us_of};

/// One core's figures of its backends.
#[derive(Debug, Default)]
pub struct Slots {
    rows: Vec<Row>,
    /// Rows that were not published since they changed, each once.
    stale: Vec<u32>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    counts: SlotReading,
    is_listed: bool,
    is_stale: bool,
}

impl Slots {
    /// From here on `slots` are listed and no others. Allocates for those never listed before.
    pub fn list(&mut self, slots: impl Iterator<Item = usize>, shared: &SharedSlots) {
        let mut was_listed: Vec<bool> = Vec::with_capacity(self.rows.len());
        was_listed.extend(self.rows.iter_mut().map(|row| std::mem::take(&mut row.is_listed)));
        for slot in slots {
            if self.rows.len() <= slot {
                self.rows.resize(slot + 1, Row::default());
            }
            if !was_listed.get(slot).copied().unwrap_or(false) {
                let is_stale = self.rows[slot].is_stale;
                self.rows[slot] = Row { is_stale, ..Row::default() };
                shared.make(slot);
                self.touch(slot);
            }
            self.rows[slot].is_listed = true;
        }
        // No request makes the list grow.
        self.stale.reserve(self.rows.len() - self.stale.len());
    }

    /// A backend answered `status`; its head was whole `first_byte` after it was chosen.
    pub fn answered(&mut self, slot: usize, status: u16, first_byte: Duration) {
        let Some(row) = self.rows.get_mut(slot) else { return };
        let us = us_of(first_byte);
        row.counts.classes[class_of(status)] += 1;
        row.counts.first_byte_us = row.counts.first_byte_us.wrapping_add(us);
        let bucket = &mut row.counts.first_bytes[coarse_of(us)];
        *bucket = bucket.wrapping_add(1);
        self.touch(slot);
    }

    /// A backend failed a request.
    pub fn failed(&mut self, slot: usize) {
        let Some(row) = self.rows.get_mut(slot) else { return };
        row.counts.faults += 1;
        self.touch(slot);
    }

    /// Copies out what changed.
    pub fn store(&mut self, shared: &SharedSlots) {
        for slot in self.stale.drain(..) {
            let row = &mut self.rows[slot as usize];
            row.is_stale = false;
            shared.store(slot as usize, &row.counts);
        }
    }

    fn touch(&mut self, slot: usize) {
        let row = &mut self.rows[slot];
        if !std::mem::replace(&mut row.is_stale, true) {
            self.stale.push(slot as u32);
        }
    }
}

/// One core's [`Slots`] as the others see them.
#[derive(Debug)]
pub struct SharedSlots {
    pieces: Box<[OnceLock<Piece>]>,
}

type Piece = Box<[SharedRow; SLOTS_PER_PIECE]>;

#[derive(Debug)]
#[repr(align(64))]
struct SharedRow {
    classes: [AtomicU64; CLASSES],
    faults: AtomicU64,
    first_byte_us: AtomicU64,
    first_bytes: [AtomicU32; COARSE],
}

impl SharedRow {
    const fn new() -> Self {
        Self {
            classes: [const { AtomicU64::new(0) }; CLASSES],
            faults: AtomicU64::new(0),
            first_byte_us: AtomicU64::new(0),
            first_bytes: [const { AtomicU32::new(0) }; COARSE],
        }
    }
}

impl SharedSlots {
    /// With room for `slots` backends, none of them listed.
    pub fn new(slots: usize) -> Self {
        let pieces = slots.div_ceil(SLOTS_PER_PIECE);
        Self { pieces: (0..pieces).map(|_| OnceLock::new()).collect() }
    }

    /// What the core has counted for `slot`, if it was ever listed.
    pub fn read(&self, slot: usize) -> Option<SlotReading> {
        let row = &self.pieces.get(slot / SLOTS_PER_PIECE)?.get()?[slot % SLOTS_PER_PIECE];
        Some(SlotReading {
            classes: std::array::from_fn(|class| row.classes[class].load(Ordering::Relaxed)),
            faults: row.faults.load(Ordering::Relaxed),
            first_byte_us: row.first_byte_us.load(Ordering::Relaxed),
            first_bytes: std::array::from_fn(|wait| row.first_bytes[wait].load(Ordering::Relaxed)),
        })
    }

    fn make(&self, slot: usize) {
        if let Some(piece) = self.pieces.get(slot / SLOTS_PER_PIECE) {
            piece.get_or_init(|| Box::new([const { SharedRow::new() }; SLOTS_PER_PIECE]));
        }
    }

    /// Called by the owning core only.
    fn store(&self, slot: usize, row: &SlotReading) {
        let Some(piece) = self.pieces.get(slot / SLOTS_PER_PIECE).and_then(OnceLock::get) else {
            return;
        };
        let out = &piece[slot % SLOTS_PER_PIECE];
        for (out, own) in out.classes.iter().zip(&row.classes) {
            out.store(*own, Ordering::Relaxed);
        }
        out.faults.store(row.faults, Ordering::Relaxed);
        out.first_byte_us.store(row.first_byte_us, Ordering::Relaxed);
        for (out, own) in out.first_bytes.iter().zip(&row.first_bytes) {
            out.store(*own, Ordering::Relaxed);
        }
    }
}

/// A backend's totals on one core, or on all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotReading {
    /// Answers by class, 1xx to 5xx.
    pub classes: [u64; CLASSES],
    /// Requests it failed.
    pub faults: u64,
    /// All waits for its response heads together, in µs.
    pub first_byte_us: u64,
    /// Those waits in buckets, modulo 2³².
    pub first_bytes: [u32; COARSE],
}

impl Default for SlotReading {
    fn default() -> Self {
        Self { classes: [0; CLASSES], faults: 0, first_byte_us: 0, first_bytes: [0; COARSE] }
    }
}

impl SlotReading {
    /// Adds another core's.
    pub fn add(&mut self, other: &Self) {
        self.classes.iter_mut().zip(other.classes).for_each(|(sum, n)| *sum += n);
        self.faults += other.faults;
        self.first_byte_us = self.first_byte_us.wrapping_add(other.first_byte_us);
        let buckets = self.first_bytes.iter_mut().zip(other.first_bytes);
        buckets.for_each(|(sum, n)| *sum = sum.wrapping_add(n));
    }

    /// All answers.
    pub fn answers(&self) -> u64 {
        self.classes.iter().sum()
    }
}

/// Waits of one backend lately: what is older counts for less.
#[derive(Clone, Debug)]
pub struct FadingWaits([f32; COARSE]);

impl Default for FadingWaits {
    fn default() -> Self {
        Self([0.0; COARSE])
    }
}

impl FadingWaits {
    /// Lets the past count for `keep` (0 to 1) of itself, and adds what came between two readings whole.
    pub fn fade_in(&mut self, keep: f32, before: &SlotReading, now: &SlotReading) {
        let news = now.first_bytes.iter().zip(before.first_bytes);
        for (sum, (now, before)) in self.0.iter_mut().zip(news) {
            *sum = *sum * keep + now.wrapping_sub(before) as f32;
        }
    }

    /// The wait in µs that a part `q` stays below; `None` when there was next to no traffic.
    pub fn quantile_us(&self, q: f64) -> Option<f64> {
        let buckets: [f64; COARSE] = std::array::from_fn(|wait| f64::from(self.0[wait]));
        if buckets.iter().sum::<f64>() < WAITS_LEAST {
            return None;
        }
        quantile(&buckets, q, coarse_lower_us)
    }
}

/// With fewer than so many a quantile says nothing.
const WAITS_LEAST: f64 = 0.5;
/// Made together, when the first of them is listed: 16 KiB.
const SLOTS_PER_PIECE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn only_what_changed_is_copied_and_a_new_tenant_begins_at_zero() {
        let shared = SharedSlots::new(200);
        let mut slots = Slots::default();
        assert_eq!(shared.read(3), None);
        slots.list([3, 130].into_iter(), &shared);
        slots.answered(3, 200, MS);
        slots.answered(3, 503, 3 * MS);
        slots.failed(130);
        // Nobody heard of it: nothing to count, and no panic.
        slots.answered(131, 200, MS);
        slots.failed(5000);
        slots.store(&shared);
        assert!(slots.stale.is_empty());
        let row = shared.read(3).unwrap();
        assert_eq!((row.classes, row.faults, row.first_byte_us), ([0, 1, 0, 0, 1], 0, 4000));
        assert_eq!(row.first_bytes.iter().sum::<u32>(), 2);
        assert_eq!(shared.read(130).unwrap().faults, 1);

        slots.list([130].into_iter(), &shared);
        // It drains: what is still in flight counts.
        slots.answered(3, 200, MS);
        slots.list([3, 130].into_iter(), &shared);
        slots.store(&shared);
        assert_eq!(shared.read(3), Some(SlotReading::default()));
        assert_eq!(shared.read(130).unwrap().faults, 1);
        assert_eq!(shared.read(64), None);
    }

    #[test]
    fn a_request_does_not_allocate() {
        let shared = SharedSlots::new(64);
        let mut slots = Slots::default();
        slots.list(0..10, &shared);
        let room = slots.stale.capacity();
        for n in 0..1000 {
            slots.answered(n % 10, 200, MS);
        }
        assert!(slots.stale.len() == 10 && slots.stale.capacity() == room);
    }

    #[test]
    fn waits_fade_and_keep_their_quantiles() {
        let (mut before, mut now) = (SlotReading::default(), SlotReading::default());
        before.first_bytes[coarse_of(1000)] = u32::MAX;
        now.first_bytes[coarse_of(1000)] = 98;
        now.first_bytes[coarse_of(100_000)] = 1;
        let mut waits = FadingWaits::default();
        assert_eq!(waits.quantile_us(0.5), None);
        waits.fade_in(0.8, &before, &now);
        let p50 = waits.quantile_us(0.5).unwrap();
        let p999 = waits.quantile_us(0.999).unwrap();
        assert!(
            (768.0..1024.0).contains(&p50) && (98_304.0..131_072.0).contains(&p999),
            "{p50} {p999}"
        );
        (0..40).for_each(|_| waits.fade_in(0.8, &now, &now));
        assert_eq!(waits.quantile_us(0.5), None);
    }
}
