//! The policies: the project's four, by the real picker, and two that other balancers use.
//!
//! Smooth weighted round robin is nginx's: every pick adds its weight to everybody's account, and the largest account pays
//! for all. Each core keeps its own. Least-request is Envoy's power of two choices: two drawn evenly, and the one with the
//! larger weight ÷ (active + 1). What is active it knows exactly, of all cores and at once, as Envoy's threads share a
//! counter per host: that is more than a core of ours is told.

use balancer::balance::{Balance, Choice, Picker, Slot, Snapshot};
use balancer::time::Instant;

/// How backends are picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Ours(Balance),
    SmoothRoundRobin,
    LeastRequest,
}

/// One core's choice.
pub enum Chooser {
    Ours(Box<Picker>),
    Turns(Listing),
    Least(Listing),
}

/// Who may be asked, for the policies that are not ours.
#[derive(Default)]
pub struct Listing {
    rows: Vec<(Slot, i64)>,
    /// By slot: who gets nothing although it may be listed, and the account of whose turn it is.
    is_out: Vec<bool>,
    account: Vec<i64>,
}

impl Policy {
    /// The default first.
    pub const ALL: [Self; 6] = [
        Self::Ours(Balance::Bounded),
        Self::Ours(Balance::P2c),
        Self::Ours(Balance::Latency),
        Self::LeastRequest,
        Self::SmoothRoundRobin,
        Self::Ours(Balance::WeightedRandom),
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours(Balance::Bounded) => "bounded",
            Self::Ours(Balance::P2c) => "p2c",
            Self::Ours(Balance::Latency) => "latency",
            Self::Ours(Balance::WeightedRandom) => "weighted-random",
            Self::SmoothRoundRobin => "smooth round robin",
            Self::LeastRequest => "least-request",
        }
    }
}

impl Chooser {
    pub fn new(policy: Policy) -> Self {
        match policy {
            Policy::Ours(balance) => Self::Ours(Box::new(Picker::new(balance, None))),
            Policy::SmoothRoundRobin => Self::Turns(Listing::default()),
            Policy::LeastRequest => Self::Least(Listing::default()),
        }
    }

    /// Takes over a set, and of each slot whether it is available.
    pub fn apply(
        &mut self,
        snapshot: &Snapshot,
        is_available: impl Fn(Slot) -> bool,
        now: Instant,
    ) {
        let slots = (0..snapshot.slots as u32).map(Slot);
        match self {
            Self::Ours(picker) => {
                slots.for_each(|slot| picker.set_available(slot, is_available(slot)));
                picker.apply(snapshot, now);
            }
            Self::Turns(listing) | Self::Least(listing) => {
                listing.is_out = slots.map(|slot| !is_available(slot)).collect();
                listing.account.resize(snapshot.slots, 0);
                listing.list(snapshot, now);
            }
        }
    }

    /// Who gets the next request. `active`: what everybody has in flight, by slot.
    pub fn pick(
        &mut self,
        mut draw: impl FnMut() -> u64,
        exclude: &[Slot],
        active: &[u32],
    ) -> Choice {
        match self {
            Self::Ours(picker) => picker.pick(draw, exclude),
            Self::Turns(listing) => listing.whose_turn(exclude),
            Self::Least(listing) => listing.less_active(&mut draw, exclude, active),
        }
    }

    pub fn ours(&mut self) -> Option<&mut Picker> {
        match self {
            Self::Ours(picker) => Some(picker),
            Self::Turns(_) | Self::Least(_) => None,
        }
    }
}

impl Listing {
    fn list(&mut self, snapshot: &Snapshot, now: Instant) {
        let is_out = &self.is_out;
        let open = snapshot.backends.iter().filter(|b| b.is_eligible() && !is_out[b.slot.index()]);
        self.rows = open.map(|b| (b.slot, i64::from(b.weight(now).max(1)))).collect();
    }

    fn whose_turn(&mut self, exclude: &[Slot]) -> Choice {
        let (mut best, mut total) = (None, 0);
        for &(slot, weight) in self.rows.iter().filter(|(slot, _)| !exclude.contains(slot)) {
            let account = &mut self.account[slot.index()];
            *account += weight;
            total += weight;
            if best.is_none_or(|(most, _)| *account > most) {
                best = Some((*account, slot));
            }
        }
        let Some((_, slot)) = best else { return Choice::Nobody };
        self.account[slot.index()] -= total;
        Choice::Backend(slot)
    }

    fn less_active(
        &self,
        draw: &mut impl FnMut() -> u64,
        exclude: &[Slot],
        active: &[u32],
    ) -> Choice {
        let is_open = |(slot, _): &&(Slot, i64)| !exclude.contains(slot);
        let open = match exclude {
            [] => self.rows.len(),
            _ => self.rows.iter().filter(is_open).count(),
        };
        if open == 0 {
            return Choice::Nobody;
        }
        let mut drawn = || {
            let at = ((u128::from(draw()) * open as u128) >> 64) as usize;
            match exclude {
                [] => self.rows[at],
                _ => *self.rows.iter().filter(is_open).nth(at).expect("fewer are open"),
            }
        };
        let (a, b) = (drawn(), drawn());
        let load = |slot: Slot| i64::from(active[slot.index()]) + 1;
        let is_less = b.1 * load(a.0) > a.1 * load(b.0);
        Choice::Backend(if is_less { b.0 } else { a.0 })
    }
}
