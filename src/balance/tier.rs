//! Backends that are asked with the same urgency, and how two of them compare.
//!
//! All of it is integer arithmetic over rows that lie side by side: a draw touches one column of the alias table and one
//! row, whatever the size of the set.

use super::Slot;
use super::alias::{AliasTable, LeftOut};

/// The rows, and a table to draw them from in proportion to their weights.
#[derive(Clone, Debug, Default)]
pub(super) struct Tier {
    pub table: AliasTable,
    pub rows: Vec<Row>,
    /// Requests in flight to the rows together.
    pub load: u64,
    /// Rows that are at the limit.
    pub full: usize,
}

/// A backend as a pick looks at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Requests in flight.
    pub load: u64,
    pub slot: Slot,
    pub weight: u32,
    /// The weight once it has warmed up.
    pub full: u32,
    /// What a request in flight stands for next to one at a typical backend, in units of 1/[`TYPICAL`].
    pub cost: u32,
    /// Answers so much later than is typical that it had better get no more.
    pub is_slow: bool,
}

/// By what two backends are compared: the smaller the better.
#[derive(Clone, Copy, Debug)]
struct Burden {
    load: u64,
    share: u32,
}

impl Burden {
    fn is_less_than(self, other: Self) -> bool {
        u128::from(self.load) * u128::from(other.share)
            < u128::from(other.load) * u128::from(self.share)
    }
}

impl Tier {
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.load = 0;
        self.full = 0;
    }

    pub(super) fn push(&mut self, row: Row) -> u32 {
        self.rows.push(row);
        self.load += row.load;
        self.rows.len() as u32 - 1
    }

    pub(super) fn rebuild(&mut self) {
        self.table.rebuild(self.rows.iter().map(|row| row.weight));
    }

    pub(super) fn row(&self, row: u32) -> &Row {
        &self.rows[row as usize]
    }

    /// `first`, or who is better off where that one is slow or beyond its share: one of [`OTHERS_MAX`] drawn evenly.
    pub(super) fn bounded(
        &self,
        first: u32,
        draw: &mut impl FnMut() -> u64,
        may_take: impl Fn(u32) -> bool,
    ) -> u32 {
        let is_slow = self.row(first).is_slow;
        if self.rows.len() == 1 || !is_slow && self.is_within_share(first) {
            return first;
        }
        // The one that is drawn is taken as it is, others with this request on top: only who is better off even so.
        let burden = |row: &Row, more: u64| match is_slow {
            true => Burden { load: (row.load + more) * u64::from(row.cost), share: 1 },
            false => Burden { load: row.load + more, share: row.weight },
        };
        let (mut best, mut least) = (first, burden(self.row(first), 0));
        for _ in 0..OTHERS_MAX {
            let other = self.other_than(first, draw());
            let burden = burden(self.row(other), 1);
            if burden.is_less_than(least) && may_take(other) {
                (best, least) = (other, burden);
            }
        }
        best
    }

    /// `first`, or another one drawn by weight if that has fewer in flight for its score.
    pub(super) fn less_loaded(
        &self,
        first: u32,
        draw: &mut impl FnMut() -> u64,
        left_out: LeftOut,
    ) -> u32 {
        match self.draw_besides(first, draw, left_out) {
            Some(second) if self.is_idler(second, first) => second,
            _ => first,
        }
    }

    /// `first`, or another one drawn by weight if that is likely to answer sooner.
    pub(super) fn sooner(
        &self,
        first: u32,
        draw: &mut impl FnMut() -> u64,
        left_out: LeftOut,
    ) -> u32 {
        let cost = |row: &Row| (row.load + 1) * u64::from(row.cost);
        match self.draw_besides(first, draw, left_out) {
            Some(second) if cost(self.row(second)) < cost(self.row(first)) => second,
            _ => first,
        }
    }

    /// Whether row `a` has strictly fewer in flight for its weight than row `b`.
    pub(super) fn is_idler(&self, a: u32, b: u32) -> bool {
        let burden = |row: &Row| Burden { load: row.load, share: row.weight };
        burden(self.row(a)).is_less_than(burden(self.row(b)))
    }

    /// `load ≤ (1 + ε) · weight ÷ total · (L + 1) + 1`, multiplied out.
    fn is_within_share(&self, row: u32) -> bool {
        let Row { load, weight, .. } = *self.row(row);
        let excess = u128::from(load.saturating_sub(SLACK));
        let fair = u128::from(weight) * u128::from(self.load + 1);
        excess * u128::from(self.table.total()) * SHARE_DENOMINATOR <= fair * SHARE_NUMERATOR
    }

    /// Any row but `first`, each as likely as the others. There must be two.
    fn other_than(&self, first: u32, draw: u64) -> u32 {
        let others = self.rows.len() as u32 - 1;
        let step = (u128::from(draw) * u128::from(others)) >> 64;
        let row = first + 1 + step as u32;
        if row > others { row - others - 1 } else { row }
    }

    /// A row by weight other than `first` and those in `left_out`.
    fn draw_besides(
        &self,
        first: u32,
        draw: &mut impl FnMut() -> u64,
        mut left_out: LeftOut,
    ) -> Option<u32> {
        if self.rows.len() == 2 && left_out.is_empty() {
            return Some(1 - first);
        }
        left_out.insert(first);
        // Drawn from all and drawn again while it is one of those: the same odds as from the others alone, and where no
        // few rows have all the weight nearly always at the first go.
        for _ in 0..REDRAWS_MAX {
            let row = self.table.draw(draw())?;
            if !left_out.contains(row) {
                return Some(row);
            }
        }
        self.table.draw_without(draw(), left_out)
    }
}

/// A [`Row::cost`] like that of most.
pub(super) const TYPICAL: u32 = 256;
/// 1 + ε = 11 ÷ 10, and how many requests beyond the fair share are always borne. By simulation (`benches/balancing`):
/// ε = 0 or a slack of ½ deviate from the scores by more than two points; both larger, the tail is.
const SHARE_NUMERATOR: u128 = 11;
const SHARE_DENOMINATOR: u128 = 10;
const SLACK: u64 = 1;
/// Others that are looked at in place of one that had better get no more.
const OTHERS_MAX: usize = 4;
const REDRAWS_MAX: usize = 3;
