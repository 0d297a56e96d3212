//! The pick: which backend gets this request. One per core, never locked, never allocating per pick.
//!
//! `bounded` draws a candidate in proportion to the scores and keeps it while its requests in flight are within its
//! fair share, `load ≤ (1 + ε) · score ÷ Σscore · (L + 1) + 1` with ε = 0.1; otherwise it draws a second one and
//! takes whichever has fewer in flight for its score. Below saturation the bound hardly ever speaks, so shares follow
//! the scores at any concurrency; above it, work moves to who has room. `weighted-random` is the first draw alone.
//!
//! Backends stand in two tiers: those with a positive score, and those with a score of 0, which are asked only when
//! nobody of the first is available and share equally. Draining and unresolved backends stand in neither, nor does
//! whoever was said to be unavailable.
//!
//! Invariants: a seat's in-flight figure is the number of [`Picker::begin`] without their [`Picker::end`]; a tier's
//! load is the sum over the seats in it; both survive every [`Picker::apply`].

use super::alias::{AliasTable, LEFT_OUT_MAX, LeftOut};
use super::{Balance, Slot, Snapshot};

/// What a pick came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The request goes there.
    Backend(Slot),
    /// Everybody it could go to is at its limit.
    Busy,
    /// There is nobody it could go to.
    Nobody,
}

/// One core's choice of backends.
#[derive(Debug)]
pub struct Picker {
    balance: Balance,
    /// Requests one backend may have in flight from this core.
    limit: u32,
    /// Indexed by slot; never shrinks.
    seats: Vec<Seat>,
    /// Positive scores, then zero scores.
    tiers: [Tier; 2],
    in_flight: u64,
}

/// What is known of one slot.
#[derive(Clone, Copy, Debug, Default)]
struct Seat {
    in_flight: u32,
    /// Gets no request although it may be listed.
    is_out: bool,
    place: Option<Place>,
}

/// Where a slot stands in the tables; nowhere when it must get no new request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    tier: u8,
    row: u32,
}

/// Backends that are asked with the same urgency.
#[derive(Debug, Default)]
struct Tier {
    table: AliasTable,
    /// Slot of each row.
    slots: Vec<Slot>,
    weights: Vec<u32>,
    /// Requests in flight to the rows together.
    load: u64,
    /// Rows that are at the limit.
    full: usize,
}

impl Picker {
    /// A picker that knows nobody. `limit` is how many requests a backend may have in flight from this core, at least 1.
    pub fn new(balance: Balance, limit: Option<u32>) -> Self {
        let limit = limit.map_or(u32::MAX, |limit| limit.max(1));
        Self { balance, limit, seats: Vec::new(), tiers: Default::default(), in_flight: 0 }
    }

    /// Takes over a new set. What is in flight stays in its slot, whoever is still listed. Linear in the set,
    /// without allocation unless the set grew.
    pub fn apply(&mut self, snapshot: &Snapshot) {
        let slots = snapshot.backends.iter().map(|b| b.slot.index() + 1).max().unwrap_or(0);
        if self.seats.len() < slots.max(snapshot.slots) {
            self.seats.resize(slots.max(snapshot.slots), Seat::default());
        }
        self.seats.iter_mut().for_each(|seat| seat.place = None);
        self.tiers.iter_mut().for_each(Tier::clear);
        for backend in snapshot.backends.iter().filter(|b| b.is_eligible()) {
            if self.seats[backend.slot.index()].is_out {
                continue;
            }
            let weight = backend.score.weight();
            let (tier, weight) = if weight > 0 { (0, weight) } else { (1, 1) };
            let row = self.tiers[tier].push(backend.slot, weight);
            let seat = &mut self.seats[backend.slot.index()];
            debug_assert_eq!(seat.place, None, "a slot stands twice in a snapshot");
            seat.place = Some(Place { tier: tier as u8, row });
            self.tiers[tier].load += u64::from(seat.in_flight);
            self.tiers[tier].full += usize::from(seat.in_flight >= self.limit);
        }
        self.tiers.iter_mut().for_each(Tier::rebuild);
        self.check_invariants();
    }

    /// From the next [`apply`](Self::apply) on, that of the same snapshot if need be, `slot` gets requests or gets none. It
    /// gets them until said otherwise.
    pub fn set_available(&mut self, slot: Slot, is_available: bool) {
        if self.seats.len() <= slot.index() {
            self.seats.resize(slot.index() + 1, Seat::default());
        }
        self.seats[slot.index()].is_out = !is_available;
    }

    /// Chooses a backend for a request that already tried `exclude` (at most [`EXCLUDED_MAX`]). `draw` yields uniform
    /// random numbers and is called once or twice. The caller says [`begin`](Self::begin) when the request goes there.
    pub fn pick(&self, mut draw: impl FnMut() -> u64, exclude: &[Slot]) -> Choice {
        debug_assert!(
            exclude.len() <= EXCLUDED_MAX,
            "a request fails on a bounded number of backends"
        );
        for tier in 0..self.tiers.len() {
            match self.pick_in(tier, &mut draw, exclude) {
                Choice::Nobody => {}
                choice => return choice,
            }
        }
        Choice::Nobody
    }

    /// A request went to `slot`.
    pub fn begin(&mut self, slot: Slot) {
        let seat = &mut self.seats[slot.index()];
        seat.in_flight += 1;
        self.in_flight += 1;
        if let Some(place) = seat.place {
            let tier = &mut self.tiers[usize::from(place.tier)];
            tier.load += 1;
            tier.full += usize::from(seat.in_flight == self.limit);
        }
    }

    /// A request to `slot` came to its end, whatever the end.
    pub fn end(&mut self, slot: Slot) {
        let seat = &mut self.seats[slot.index()];
        debug_assert!(seat.in_flight > 0, "an end without a begin");
        let was_full = seat.in_flight == self.limit;
        seat.in_flight -= 1;
        self.in_flight -= 1;
        if let Some(place) = seat.place {
            let tier = &mut self.tiers[usize::from(place.tier)];
            tier.load -= 1;
            tier.full -= usize::from(was_full);
        }
    }

    /// Requests of this core in flight to `slot`; 0 for one never heard of.
    pub fn in_flight(&self, slot: Slot) -> u32 {
        self.seats.get(slot.index()).map_or(0, |seat| seat.in_flight)
    }

    /// Requests of this core in flight to anybody, draining backends included.
    pub const fn total_in_flight(&self) -> u64 {
        self.in_flight
    }

    /// How many slots were ever heard of: [`in_flight`](Self::in_flight) is 0 from there on.
    pub fn slots(&self) -> usize {
        self.seats.len()
    }

    /// How many backends may get a new request. At 0 every pick is `None`.
    pub fn eligible(&self) -> usize {
        self.tiers.iter().map(|tier| tier.table.len()).sum()
    }

    fn pick_in(&self, tier: usize, draw: &mut impl FnMut() -> u64, exclude: &[Slot]) -> Choice {
        let Tier { table, slots, full, .. } = &self.tiers[tier];
        let mut left_out = self.left_out(tier, exclude);
        let first = if left_out.is_empty() {
            table.draw(draw())
        } else {
            table.draw_without(draw(), left_out)
        };
        let Some(first) = first else { return Choice::Nobody };
        if *full == slots.len() {
            return Choice::Busy;
        }
        let row = match self.balance {
            Balance::WeightedRandom => first,
            Balance::Bounded if self.is_within_share(tier, first) => first,
            Balance::Bounded => {
                left_out.insert(first);
                match table.draw_without(draw(), left_out) {
                    Some(second) if self.is_idler(tier, second, first) => second,
                    _ => first,
                }
            }
        };
        if self.has_room(tier, row) {
            return Choice::Backend(slots[row as usize]);
        }
        self.idlest(tier, exclude)
    }

    /// The backend with the fewest in flight for its weight among those with room: a walk over all of them, taken only
    /// when the draw fell on a full one.
    fn idlest(&self, tier: usize, exclude: &[Slot]) -> Choice {
        let rows = 0..self.tiers[tier].slots.len() as u32;
        let slot = |row: u32| self.tiers[tier].slots[row as usize];
        rows.filter(|&row| self.has_room(tier, row) && !exclude.contains(&slot(row)))
            .reduce(|best, row| if self.is_idler(tier, row, best) { row } else { best })
            .map_or(Choice::Busy, |row| Choice::Backend(slot(row)))
    }

    fn has_room(&self, tier: usize, row: u32) -> bool {
        self.load(tier, row) < u64::from(self.limit)
    }

    /// The rows of `tier` that belong to `exclude`.
    fn left_out(&self, tier: usize, exclude: &[Slot]) -> LeftOut {
        let mut left_out = LeftOut::nobody();
        for slot in exclude.iter().take(EXCLUDED_MAX) {
            match self.seats.get(slot.index()).and_then(|seat| seat.place) {
                Some(place) if usize::from(place.tier) == tier => left_out.insert(place.row),
                _ => {}
            }
        }
        left_out
    }

    /// `load ≤ (1 + ε) · weight ÷ total · (L + 1) + 1`, multiplied out.
    fn is_within_share(&self, tier: usize, row: u32) -> bool {
        let Tier { table, weights, load: all, .. } = &self.tiers[tier];
        let excess = u128::from(self.load(tier, row).saturating_sub(SLACK));
        let fair = u128::from(weights[row as usize]) * u128::from(all + 1);
        excess * u128::from(table.total()) * SHARE_DENOMINATOR <= fair * SHARE_NUMERATOR
    }

    /// Whether row `a` has strictly fewer in flight for its weight than row `b`.
    fn is_idler(&self, tier: usize, a: u32, b: u32) -> bool {
        let weights = &self.tiers[tier].weights;
        let weighed = |load: u64, weight: u32| u128::from(load) * u128::from(weight);
        weighed(self.load(tier, a), weights[b as usize])
            < weighed(self.load(tier, b), weights[a as usize])
    }

    fn load(&self, tier: usize, row: u32) -> u64 {
        u64::from(self.seats[self.tiers[tier].slots[row as usize].index()].in_flight)
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            let sum = |seats: &mut dyn Iterator<Item = &Seat>| -> u64 {
                seats.map(|seat| u64::from(seat.in_flight)).sum()
            };
            assert_eq!(self.in_flight, sum(&mut self.seats.iter()));
            for (number, tier) in self.tiers.iter().enumerate() {
                let here = |seat: &&Seat| seat.place.is_some_and(|p| usize::from(p.tier) == number);
                assert_eq!(tier.load, sum(&mut self.seats.iter().filter(here)));
                assert_eq!(tier.table.len(), tier.slots.len());
                let is_full = |seat: &&Seat| here(seat) && seat.in_flight >= self.limit;
                assert_eq!(tier.full, self.seats.iter().filter(is_full).count());
                for (row, slot) in tier.slots.iter().enumerate() {
                    let place = Place { tier: number as u8, row: row as u32 };
                    assert_eq!(self.seats[slot.index()].place, Some(place));
                }
            }
        }
    }
}

impl Tier {
    fn clear(&mut self) {
        self.slots.clear();
        self.weights.clear();
        self.load = 0;
        self.full = 0;
    }

    fn push(&mut self, slot: Slot, weight: u32) -> u32 {
        self.slots.push(slot);
        self.weights.push(weight);
        self.slots.len() as u32 - 1
    }

    fn rebuild(&mut self) {
        self.table.rebuild(self.weights.iter().copied());
    }
}

/// Backends that one request may have tried already: the first and two retries.
pub const EXCLUDED_MAX: usize = 9;
const _: () = assert!(EXCLUDED_MAX < LEFT_OUT_MAX);

/// 1 + ε = 11 ÷ 10: by simulation of 20 backends, ε = 0 deviates from the scores by
/// 2.9 points, 0.25 costs a quarter of the tail.
const SHARE_NUMERATOR: u128 = 11;
const SHARE_DENOMINATOR: u128 = 10;
/// Requests beyond the fair share that are always borne. ½ deviates from the scores by 2.7 points, 1 by 1.4.
const SLACK: u64 = 1;
