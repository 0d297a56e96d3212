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
//! Load is what this core has in flight, exactly, and what the other cores said they have. Only this core's own counts
//! against the limit.
//!
//! Invariants: a seat's own figure is the number of [`Picker::begin`] without their [`Picker::end`] and survives every
//! [`Picker::apply`]; a row's load is that of its seat, a tier's load is the sum over its rows; nobody outside the set
//! has a load from other cores, so that a slot given to somebody else begins without.

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
    /// Of this core.
    in_flight: u64,
}

/// What is known of one slot.
#[derive(Clone, Copy, Debug, Default)]
struct Seat {
    /// Of this core.
    in_flight: u32,
    /// Of the other cores, as last heard.
    others: u32,
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
    rows: Vec<Row>,
    /// Requests in flight to the rows together.
    load: u64,
    /// Rows that are at the limit.
    full: usize,
}

/// A backend as a pick looks at it.
#[derive(Clone, Copy, Debug)]
struct Row {
    load: u64,
    slot: Slot,
    weight: u32,
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
            let seat = &mut self.seats[backend.slot.index()];
            debug_assert_eq!(seat.place, None, "a slot stands twice in a snapshot");
            let row = self.tiers[tier].push(Row { load: seat.load(), slot: backend.slot, weight });
            seat.place = Some(Place { tier: tier as u8, row });
            self.tiers[tier].full += usize::from(seat.in_flight >= self.limit);
        }
        self.seats.iter_mut().filter(|seat| seat.place.is_none()).for_each(|seat| seat.others = 0);
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

    /// The least loaded for its weight of those that `has_room` holds for: for when what was [picked](Self::pick) has
    /// none, for reasons the picker does not know. A walk over all backends.
    pub fn pick_among(&self, exclude: &[Slot], has_room: impl Fn(Slot) -> bool) -> Choice {
        for tier in &self.tiers {
            let slot = |row: u32| tier.rows[row as usize].slot;
            let rows = (0..tier.rows.len() as u32).filter(|&row| !exclude.contains(&slot(row)));
            let (mut best, mut is_empty) = (None, true);
            for row in rows {
                is_empty = false;
                if self.has_room(slot(row))
                    && has_room(slot(row))
                    && best.is_none_or(|best| tier.is_idler(row, best))
                {
                    best = Some(row);
                }
            }
            if !is_empty {
                return best.map_or(Choice::Busy, |row| Choice::Backend(slot(row)));
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
            tier.rows[place.row as usize].load += 1;
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
            tier.rows[place.row as usize].load -= 1;
            tier.load -= 1;
            tier.full -= usize::from(was_full);
        }
    }

    /// Forgets what the other cores have in flight.
    pub fn forget_others(&mut self) {
        for seat in self.seats.iter_mut().filter(|seat| seat.others > 0) {
            let Some(place) = seat.place else { continue };
            let others = u64::from(std::mem::take(&mut seat.others));
            let tier = &mut self.tiers[usize::from(place.tier)];
            tier.rows[place.row as usize].load -= others;
            tier.load -= others;
        }
    }

    /// Another core has `n` requests in flight to `slot`; adds to what was said of it by cores before.
    pub fn add_others(&mut self, slot: Slot, n: u32) {
        let Some(seat) = self.seats.get_mut(slot.index()) else { return };
        let Some(place) = seat.place else { return };
        let n = n.min(u32::MAX - seat.others);
        seat.others += n;
        let tier = &mut self.tiers[usize::from(place.tier)];
        tier.rows[place.row as usize].load += u64::from(n);
        tier.load += u64::from(n);
    }

    /// Requests of this core in flight to `slot`; 0 for one never heard of.
    pub fn in_flight(&self, slot: Slot) -> u32 {
        self.seats.get(slot.index()).map_or(0, |seat| seat.in_flight)
    }

    /// The slots this core has requests in flight to, and how many.
    pub fn figures(&self) -> impl Iterator<Item = (Slot, u32)> {
        let seats = (0..).map(Slot).zip(&self.seats);
        seats.filter(|(_, seat)| seat.in_flight > 0).map(|(slot, seat)| (slot, seat.in_flight))
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

    fn pick_in(&self, number: usize, draw: &mut impl FnMut() -> u64, exclude: &[Slot]) -> Choice {
        let tier = &self.tiers[number];
        let table = &tier.table;
        let mut left_out = self.left_out(number, exclude);
        let first = if left_out.is_empty() {
            table.draw(draw())
        } else {
            table.draw_without(draw(), left_out)
        };
        let Some(first) = first else { return Choice::Nobody };
        if tier.full == tier.rows.len() {
            return Choice::Busy;
        }
        let row = match self.balance {
            Balance::WeightedRandom => first,
            Balance::Bounded if tier.is_within_share(first) => first,
            Balance::Bounded => {
                left_out.insert(first);
                match table.draw_without(draw(), left_out) {
                    Some(second) if tier.is_idler(second, first) => second,
                    _ => first,
                }
            }
        };
        let slot = tier.rows[row as usize].slot;
        if self.has_room(slot) { Choice::Backend(slot) } else { self.idlest(tier, exclude) }
    }

    /// The backend with the fewest in flight for its weight among those with room: a walk over all of them, taken only
    /// when the draw fell on a full one.
    fn idlest(&self, tier: &Tier, exclude: &[Slot]) -> Choice {
        let slot = |row: u32| tier.rows[row as usize].slot;
        (0..tier.rows.len() as u32)
            .filter(|&row| self.has_room(slot(row)) && !exclude.contains(&slot(row)))
            .reduce(|best, row| if tier.is_idler(row, best) { row } else { best })
            .map_or(Choice::Busy, |row| Choice::Backend(slot(row)))
    }

    fn has_room(&self, slot: Slot) -> bool {
        self.seats[slot.index()].in_flight < self.limit
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

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            let own = self.seats.iter().map(|seat| u64::from(seat.in_flight));
            assert_eq!(self.in_flight, own.sum::<u64>());
            assert!(self.seats.iter().all(|seat| seat.place.is_some() || seat.others == 0));
            for (number, tier) in self.tiers.iter().enumerate() {
                assert_eq!(tier.load, tier.rows.iter().map(|row| row.load).sum::<u64>());
                assert_eq!(tier.table.len(), tier.rows.len());
                let is_full = |row: &&Row| !self.has_room(row.slot);
                assert_eq!(tier.full, tier.rows.iter().filter(is_full).count());
                for (at, row) in tier.rows.iter().enumerate() {
                    let seat = &self.seats[row.slot.index()];
                    let place = Place { tier: number as u8, row: at as u32 };
                    assert_eq!((seat.place, seat.load()), (Some(place), row.load));
                }
            }
        }
    }
}

impl Seat {
    fn load(&self) -> u64 {
        u64::from(self.in_flight) + u64::from(self.others)
    }
}

impl Tier {
    fn clear(&mut self) {
        self.rows.clear();
        self.load = 0;
        self.full = 0;
    }

    fn push(&mut self, row: Row) -> u32 {
        self.rows.push(row);
        self.load += row.load;
        self.rows.len() as u32 - 1
    }

    fn rebuild(&mut self) {
        self.table.rebuild(self.rows.iter().map(|row| row.weight));
    }

    /// `load ≤ (1 + ε) · weight ÷ total · (L + 1) + 1`, multiplied out.
    fn is_within_share(&self, row: u32) -> bool {
        let Row { load, weight, .. } = self.rows[row as usize];
        let excess = u128::from(load.saturating_sub(SLACK));
        let fair = u128::from(weight) * u128::from(self.load + 1);
        excess * u128::from(self.table.total()) * SHARE_DENOMINATOR <= fair * SHARE_NUMERATOR
    }

    /// Whether row `a` has strictly fewer in flight for its weight than row `b`.
    fn is_idler(&self, a: u32, b: u32) -> bool {
        let (a, b) = (&self.rows[a as usize], &self.rows[b as usize]);
        let weighed = |load: u64, weight: u32| u128::from(load) * u128::from(weight);
        weighed(a.load, b.weight) < weighed(b.load, a.weight)
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
