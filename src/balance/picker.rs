//! The pick: which backend gets this request. One per core, never locked, never allocating per pick.
//!
//! `bounded` draws a candidate in proportion to the scores and keeps it unless one of two things speaks against it: its
//! requests in flight are beyond its fair share, `load ≤ (1 + ε) · score ÷ Σscore · (L + 1) + 1` with ε = 0.1; or it takes
//! twice as long to answer as is typical of the set. Then four others are drawn evenly, and whoever is better off even
//! with this request gets it: in flight for its score if the share was the reason, in flight times response time if it
//! is slow. Below saturation neither speaks up often, so shares follow the scores at any concurrency; above it work moves
//! to who has room, however small its score: a score tells of seconds ago, and that of a busy backend is next to nothing.
//!
//! | policy | candidate | instead |
//! |---|---|---|
//! | `bounded` | by score | four drawn evenly, when it is beyond its share or slow |
//! | `p2c` | by score | one more by score, if it has fewer in flight for its score |
//! | `latency` | by score | one more by score, if (in flight + 1) × response time is less |
//! | `weighted-random` | by score | nobody |
//!
//! Backends stand in two tiers: those with a positive score, and those with a score of 0, which are asked only when
//! nobody of the first is available and share equally. Draining and unresolved backends stand in neither, nor does
//! whoever was said to be unavailable.
//!
//! Load is what this core has in flight, exactly, and what the other cores said they have. Only this core's own counts
//! against the limit. Response times are taken from all cores, too, for `bounded`; those of `latency` are its own.
//!
//! Invariants: a seat's own figure is the number of [`Picker::begin`] without their [`Picker::end`] and survives every
//! [`Picker::apply`]; a row's load is that of its seat, a tier's load is the sum over its rows; nobody outside the set
//! has a load from other cores or a pace, so that a slot given to somebody else begins without.

use std::time::Duration;

use super::alias::{LEFT_OUT_MAX, LeftOut};
use super::backend::{WARM_UP, warmed};
use super::pace::{keep_over, log_of, lower_median};
use super::tier::{Row, TYPICAL, Tier};
use super::{Balance, Pace, Slot, Snapshot};
use crate::time::Instant;

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
#[derive(Clone, Debug)]
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
    /// Who has just started, and when.
    warming: Vec<(Slot, Instant)>,
    weighed_at: Instant,
    /// Seats of which anything is known that changes with time, each once.
    active: Vec<Slot>,
    /// log₂ of the response time in ns that is typical of the set, once anybody has answered.
    typical: Option<f32>,
    judged_at: Instant,
    /// For the median; empty between its uses.
    means: Vec<f32>,
}

/// What is known of one slot.
#[derive(Clone, Copy, Debug, Default)]
struct Seat {
    /// Of this core.
    in_flight: u32,
    /// Of the other cores, and what they have said so far of the next figure.
    others: u32,
    others_next: u32,
    pace: Pace,
    others_pace: Pace,
    others_pace_next: Pace,
    /// For `latency`: log₂ of the response time in ns, and when it was noted.
    peak: Option<f32>,
    noted_at: Instant,
    place: Option<Place>,
    /// Gets no request although it may be listed.
    is_out: bool,
    is_listed: bool,
    is_active: bool,
}

/// Where a slot stands in the tables; nowhere when it must get no new request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    tier: u8,
    row: u32,
}

impl Picker {
    /// A picker that knows nobody. `limit` is how many requests a backend may have in flight from this core, at least 1.
    pub fn new(balance: Balance, limit: Option<u32>) -> Self {
        Self {
            balance,
            limit: limit.map_or(u32::MAX, |limit| limit.max(1)),
            seats: Vec::new(),
            tiers: Default::default(),
            in_flight: 0,
            warming: Vec::new(),
            weighed_at: Instant::default(),
            active: Vec::new(),
            typical: None,
            judged_at: Instant::default(),
            means: Vec::new(),
        }
    }

    /// Takes over a new set. What is in flight stays in its slot, whoever is still listed. Linear in the set,
    /// without allocation unless the set grew.
    pub fn apply(&mut self, snapshot: &Snapshot, now: Instant) {
        let slots = snapshot.backends.iter().map(|b| b.slot.index() + 1).max().unwrap_or(0);
        self.make_room(slots.max(snapshot.slots));
        for seat in &mut self.seats {
            (seat.place, seat.is_listed) = (None, false);
        }
        self.tiers.iter_mut().for_each(Tier::clear);
        self.warming.clear();
        self.weighed_at = now;
        for backend in &snapshot.backends {
            let seat = &mut self.seats[backend.slot.index()];
            debug_assert!(!seat.is_listed, "a slot stands twice in a snapshot");
            seat.is_listed = true;
            if seat.is_out || !backend.is_eligible() {
                continue;
            }
            let (load, slot) = (seat.load(), backend.slot);
            let (tier, full, weight) = match backend.score.weight() {
                0 => (1, 1, 1),
                full => (0, full, backend.weight(now)),
            };
            let row = Row { load, slot, weight, full, cost: TYPICAL, is_slow: false };
            let row = self.tiers[tier].push(row);
            if let Some(since) = backend.warming_since.filter(|_| backend.is_warming(now)) {
                self.warming.push((slot, since));
            }
            seat.place = Some(Place { tier: tier as u8, row });
            self.tiers[tier].full += usize::from(seat.in_flight >= self.limit);
        }
        for seat in self.seats.iter_mut().filter(|seat| seat.place.is_none()) {
            (seat.others, seat.others_next) = (0, 0);
            (seat.others_pace, seat.others_pace_next) = Default::default();
            if !seat.is_listed {
                (seat.pace, seat.peak) = Default::default();
            }
        }
        self.tiers.iter_mut().for_each(Tier::rebuild);
        self.judge();
        self.check_invariants();
    }

    /// From the next [`apply`](Self::apply) on, that of the same snapshot if need be, `slot` gets requests or gets none. It
    /// gets them until said otherwise.
    pub fn set_available(&mut self, slot: Slot, is_available: bool) {
        self.make_room(slot.index() + 1);
        self.seats[slot.index()].is_out = !is_available;
    }

    /// Chooses a backend for a request that already tried `exclude` (at most [`EXCLUDED_MAX`]). `draw` yields uniform
    /// random numbers and is called once as a rule, five times at most. The caller says [`begin`](Self::begin) when the
    /// request goes there.
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
        self.activate(slot);
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

    /// A request in flight to `slot` was answered after `took`.
    pub fn answered(&mut self, slot: Slot, took: Duration, now: Instant) {
        self.note(slot, log_of(took), now);
    }

    /// A request in flight to `slot` failed after `took`: counts as slow, however fast it was.
    pub fn failed(&mut self, slot: Slot, took: Duration, now: Instant) {
        let log = log_of(took);
        self.note(slot, log.max(self.typical.unwrap_or(log)) + OUTLIER, now);
    }

    /// Every tick: who has just started gets a little more, what is known fades, and who is slow is judged anew.
    pub fn tick(&mut self, now: Instant) {
        if !self.warming.is_empty() && now.since(self.weighed_at) >= WEIGH_INTERVAL {
            self.weigh(now);
        }
        let since = now.since(self.judged_at);
        if since < JUDGE_INTERVAL {
            return;
        }
        self.judged_at = now;
        let keep = keep_over(since, PACE_MEMORY);
        let keep_peak = keep_over(since, STARVED_MEMORY);
        for slot in &self.active {
            let seat = &mut self.seats[slot.index()];
            seat.pace.fade(keep);
            if let (Some(peak), Some(typical)) = (&mut seat.peak, self.typical) {
                *peak = typical + (*peak - typical) * keep_peak;
            }
        }
        self.judge();
    }

    /// Another core has `n` requests in flight to `slot`; several cores add up.
    pub fn hear_load(&mut self, slot: Slot, n: u32) {
        if self.seats.get(slot.index()).is_some_and(|seat| seat.place.is_some()) {
            self.activate(slot);
            let next = &mut self.seats[slot.index()].others_next;
            *next = next.saturating_add(n);
        }
    }

    /// That was all: what was heard since the last time is what the other cores have in flight.
    pub fn take_loads(&mut self) {
        for slot in &self.active {
            let seat = &mut self.seats[slot.index()];
            let Some(place) = seat.place else { continue };
            let before = seat.load();
            seat.others = std::mem::take(&mut seat.others_next);
            let tier = &mut self.tiers[usize::from(place.tier)];
            tier.rows[place.row as usize].load = seat.load();
            tier.load = tier.load - before + seat.load();
        }
    }

    /// Another core knows this of the response times of `slot`; several cores add up.
    pub fn hear_pace(&mut self, slot: Slot, pace: Pace) {
        if self.seats.get(slot.index()).is_some_and(|seat| seat.place.is_some()) {
            self.activate(slot);
            self.seats[slot.index()].others_pace_next.add(pace);
        }
    }

    /// That was all: what was heard since the last time is what the other cores know of response times.
    pub fn take_paces(&mut self) {
        for slot in &self.active {
            let seat = &mut self.seats[slot.index()];
            seat.others_pace = std::mem::take(&mut seat.others_pace_next);
        }
    }

    /// Knows nothing of other cores any more.
    pub fn forget_others(&mut self) {
        for slot in &self.active {
            let seat = &mut self.seats[slot.index()];
            seat.others_next = 0;
            seat.others_pace_next = Pace::default();
        }
        self.take_loads();
        self.take_paces();
    }

    /// Requests of this core in flight to `slot`; 0 for one never heard of.
    pub fn in_flight(&self, slot: Slot) -> u32 {
        self.seats.get(slot.index()).map_or(0, |seat| seat.in_flight)
    }

    /// The slots this core has requests in flight to, and how many.
    pub fn loads(&self) -> impl Iterator<Item = (Slot, u32)> {
        let seats = self.active.iter().map(|&slot| (slot, self.seats[slot.index()].in_flight));
        seats.filter(|(_, n)| *n > 0)
    }

    /// The slots whose response times this core knows, and what it knows.
    pub fn paces(&self) -> impl Iterator<Item = (Slot, Pace)> {
        let seats = self.active.iter().map(|&slot| (slot, self.seats[slot.index()].pace));
        seats.filter(|(_, pace)| pace.is_known())
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
        self.tiers.iter().map(|tier| tier.rows.len()).sum()
    }

    fn pick_in(&self, number: usize, draw: &mut impl FnMut() -> u64, exclude: &[Slot]) -> Choice {
        let tier = &self.tiers[number];
        let left_out = self.left_out(number, exclude);
        let first = if left_out.is_empty() {
            tier.table.draw(draw())
        } else {
            tier.table.draw_without(draw(), left_out)
        };
        let Some(first) = first else { return Choice::Nobody };
        if tier.full == tier.rows.len() {
            return Choice::Busy;
        }
        let may_take = |row| !left_out.contains(row) && self.has_room(tier.row(row).slot);
        let row = match self.balance {
            Balance::Bounded => tier.bounded(first, draw, may_take),
            Balance::P2c => tier.less_loaded(first, draw, left_out),
            Balance::Latency => tier.sooner(first, draw, left_out),
            Balance::WeightedRandom => first,
        };
        let slot = tier.row(row).slot;
        if self.has_room(slot) { Choice::Backend(slot) } else { self.idlest(tier, exclude) }
    }

    /// The backend with the fewest in flight for its weight among those with room: a walk over all of them, taken only
    /// when the draw fell on a full one.
    fn idlest(&self, tier: &Tier, exclude: &[Slot]) -> Choice {
        let slot = |row: u32| tier.row(row).slot;
        (0..tier.rows.len() as u32)
            .filter(|&row| self.has_room(slot(row)) && !exclude.contains(&slot(row)))
            .reduce(|best, row| if tier.is_idler(row, best) { row } else { best })
            .map_or(Choice::Busy, |row| Choice::Backend(slot(row)))
    }

    fn has_room(&self, slot: Slot) -> bool {
        // Without a limit the seat, a cache line of its own, is left alone.
        self.limit == u32::MAX || self.seats[slot.index()].in_flight < self.limit
    }

    /// The rows of tier `number` that belong to `exclude`.
    fn left_out(&self, number: usize, exclude: &[Slot]) -> LeftOut {
        let mut left_out = LeftOut::nobody();
        for slot in exclude.iter().take(EXCLUDED_MAX) {
            match self.seats.get(slot.index()).and_then(|seat| seat.place) {
                Some(place) if usize::from(place.tier) == number => left_out.insert(place.row),
                _ => {}
            }
        }
        left_out
    }

    fn note(&mut self, slot: Slot, log: f32, now: Instant) {
        let Some(seat) = self.seats.get_mut(slot.index()).filter(|seat| seat.is_listed) else {
            return;
        };
        debug_assert!(seat.is_active, "whoever answers was asked");
        match self.balance {
            Balance::WeightedRandom | Balance::P2c => {}
            Balance::Bounded => {
                let typical = self.typical.unwrap_or(log);
                seat.pace.note(log.clamp(typical - OUTLIER, typical + OUTLIER));
            }
            Balance::Latency => {
                let keep = keep_over(now.since(seat.noted_at), PEAK_MEMORY);
                let peak = seat.peak.filter(|peak| log < *peak);
                seat.peak = Some(peak.map_or(log, |peak| log + (peak - log) * keep));
                seat.noted_at = now;
                self.price(slot);
            }
        }
    }

    /// The weights of those that have just started.
    fn weigh(&mut self, now: Instant) {
        self.weighed_at = now;
        for (slot, since) in &self.warming {
            let Some(place) = self.seats[slot.index()].place else { continue };
            let row = &mut self.tiers[usize::from(place.tier)].rows[place.row as usize];
            row.weight = warmed(row.full, now.since(*since));
        }
        self.tiers.iter_mut().for_each(Tier::rebuild);
        self.judge();
        self.warming.retain(|(_, since)| now.since(*since) < WARM_UP);
    }

    /// Who is how slow, next to what is typical.
    fn judge(&mut self) {
        self.means.clear();
        let seats = self.active.iter().map(|slot| &self.seats[slot.index()]);
        self.means.extend(seats.filter(|s| s.place.is_some()).filter_map(Seat::mean));
        self.typical = lower_median(&mut self.means).or(self.typical);
        for at in 0..self.active.len() {
            self.price(self.active[at]);
        }
        for at in 0..self.warming.len() {
            self.price(self.warming[at].0);
        }
        let seats = &mut self.seats;
        self.active.retain(|slot| {
            let seat = &mut seats[slot.index()];
            seat.is_active = seat.is_worth_keeping();
            seat.is_active
        });
    }

    /// What a request in flight to `slot` stands for.
    fn price(&mut self, slot: Slot) {
        let seat = &self.seats[slot.index()];
        let (Some(typical), Some(place)) = (self.typical, seat.place) else { return };
        let log = match seat.peak {
            Some(peak) => peak,
            None => seat.known_pace().cautious_mean(typical),
        };
        let ratio = (log - typical).clamp(-RATIO_MAX, RATIO_MAX).exp2();
        let row = &mut self.tiers[usize::from(place.tier)].rows[place.row as usize];
        row.is_slow = ratio > SLOW;
        // Whoever has just started is not to be filled up because it is idle.
        let reserve = row.full as f32 / row.weight as f32;
        row.cost = (ratio * reserve * TYPICAL as f32) as u32;
    }

    fn activate(&mut self, slot: Slot) {
        let seat = &mut self.seats[slot.index()];
        if !seat.is_active {
            seat.is_active = true;
            self.active.push(slot);
        }
    }

    fn make_room(&mut self, slots: usize) {
        if self.seats.len() < slots {
            self.seats.resize(slots, Seat::default());
            // No request and no tick makes them grow.
            self.active.reserve(slots - self.active.len());
            self.means.reserve(slots);
            self.warming.reserve(slots);
        }
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            let own = self.seats.iter().map(|seat| u64::from(seat.in_flight));
            assert_eq!(self.in_flight, own.sum::<u64>());
            assert!(self.seats.iter().all(|seat| seat.place.is_some() || seat.others == 0));
            assert!(self.seats.iter().all(|seat| seat.is_active || !seat.is_worth_keeping()));
            let active = self.seats.iter().filter(|seat| seat.is_active);
            assert_eq!(self.active.len(), active.count());
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

    fn known_pace(&self) -> Pace {
        let mut pace = self.pace;
        pace.add(self.others_pace);
        pace
    }

    /// Its part in what is typical.
    fn mean(&self) -> Option<f32> {
        self.peak.or_else(|| self.known_pace().mean())
    }

    fn is_worth_keeping(&self) -> bool {
        self.in_flight > 0
            || self.others > 0
            || self.others_next > 0
            || self.peak.is_some()
            || self.known_pace().is_known()
            || self.others_pace_next != Pace::default()
    }
}

/// Backends that one request may have tried already: the first and two retries.
pub const EXCLUDED_MAX: usize = 9;
const _: () = assert!(EXCLUDED_MAX < LEFT_OUT_MAX);

/// How often the weights of those that have just started are set anew.
const WEIGH_INTERVAL: Duration = Duration::from_millis(500);
/// How often it is judged who is slow.
const JUDGE_INTERVAL: Duration = Duration::from_millis(50);
/// A backend that takes so many times as long as is typical is slow. With 1.5 the noise of heavy-tailed response times
/// shows in the shares, with 3 the tail grows by a third (`benches/balancing`).
const SLOW: f32 = 2.0;
/// Answers older than this have lost two thirds of their weight.
const PACE_MEMORY: Duration = Duration::from_millis(500);
/// The same of an estimate of `latency`, by its next answers; and towards what is typical, when there are none.
const PEAK_MEMORY: Duration = Duration::from_secs(2);
const STARVED_MEMORY: Duration = Duration::from_secs(5);
/// log₂ of how far from what is typical an answer counts: a longer one counts like this, a failure no less.
const OUTLIER: f32 = 3.0;
/// log₂ of how far from it a backend is taken to be.
const RATIO_MAX: f32 = 12.0;
