//! Drawing in proportion to integer weights: Vose's alias table, and a table of running sums for draws that must
//! leave somebody out.
//!
//! The alias table answers the common draw in constant time. A draw without replacement (a second candidate, a retry)
//! takes the running sums instead: one draw, a binary search, no rejection loop that a lopsided set could stretch.
//! Everything is integer arithmetic, so the proportions are exact; nothing allocates after the set has been seen once.
//!
//! M. D. Vose, "A linear algorithm for generating random numbers with a given distribution", IEEE TSE 17(9), 1991.

/// Rows that a draw picks from, each in proportion to its weight.
#[derive(Clone, Debug, Default)]
pub(super) struct AliasTable {
    columns: Vec<Column>,
    /// `sums[i]` is the weight of rows 0 to i together.
    sums: Vec<u64>,
    small: Vec<u32>,
    large: Vec<u32>,
}

/// One column of the table: it yields its own row with probability `keep` ÷ total, otherwise `alias`.
#[derive(Clone, Copy, Debug)]
struct Column {
    keep: u64,
    alias: u32,
}

/// Rows left out of a draw, ascending, none twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeftOut {
    rows: [u32; LEFT_OUT_MAX],
    len: usize,
}

impl AliasTable {
    /// Replaces the rows by one for each of `weights`, all of them positive. Linear in their number.
    pub(super) fn rebuild(&mut self, weights: impl Iterator<Item = u32>) {
        self.columns.clear();
        self.sums.clear();
        self.small.clear();
        self.large.clear();
        let mut total = 0u64;
        for weight in weights {
            debug_assert!(weight > 0, "a row without weight can never be drawn");
            total += u64::from(weight);
            self.sums.push(total);
        }
        let rows = self.sums.len() as u64;
        for row in 0..self.sums.len() {
            // Scaled by the number of rows, an average weight is exactly `total`.
            let keep = self.weight(row) * rows;
            self.columns.push(Column { keep, alias: row as u32 });
            if keep < total { &mut self.small } else { &mut self.large }.push(row as u32);
        }
        while let (Some(&small), Some(&large)) = (self.small.last(), self.large.last()) {
            self.small.pop();
            let lacking = total - self.columns[small as usize].keep;
            self.columns[small as usize].alias = large;
            let giver = &mut self.columns[large as usize];
            giver.keep -= lacking;
            if giver.keep < total {
                self.large.pop();
                self.small.push(large);
            }
        }
        self.check_invariants();
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.columns.len()
    }

    /// Weight of all rows together.
    pub(super) fn total(&self) -> u64 {
        self.sums.last().copied().unwrap_or(0)
    }

    /// Weight of one row.
    pub(super) fn weight(&self, row: usize) -> u64 {
        self.sums[row] - self.start(row)
    }

    /// A row for the uniform `draw`; `None` when there are no rows. Constant time.
    pub(super) fn draw(&self, draw: u64) -> Option<u32> {
        // The integer part of draw × rows ÷ 2⁶⁴ is the column; the fraction is uniform again and serves as the coin.
        let product = u128::from(draw) * self.columns.len() as u128;
        let row = (product >> 64) as u32;
        let coin = scale(product as u64, self.total());
        let column = self.columns.get(row as usize)?;
        Some(if coin < column.keep { row } else { column.alias })
    }

    /// A row other than those in `left_out`, the others keeping their proportions; `None` when none is left.
    pub(super) fn draw_without(&self, draw: u64, left_out: LeftOut) -> Option<u32> {
        let left_out = left_out.rows();
        let barred: u64 = left_out.iter().map(|&row| self.weight(row as usize)).sum();
        let rest = self.total() - barred;
        if rest == 0 {
            return None;
        }
        let mut at = scale(draw, rest);
        for &row in left_out {
            if at >= self.start(row as usize) {
                at += self.weight(row as usize);
            }
        }
        Some(self.sums.partition_point(|&sum| sum <= at) as u32)
    }

    fn start(&self, row: usize) -> u64 {
        row.checked_sub(1).map_or(0, |before| self.sums[before])
    }

    fn check_invariants(&self) {
        if cfg!(debug_assertions) {
            let total = self.total();
            assert_eq!(self.columns.len(), self.sums.len());
            for column in &self.columns {
                // Only the leftovers of the larger stack hold exactly an average weight.
                assert!(column.keep <= total, "a column holds more than its share");
                assert!((column.alias as usize) < self.columns.len());
            }
        }
    }
}

impl LeftOut {
    /// Nobody.
    pub(super) const fn nobody() -> Self {
        Self { rows: [0; LEFT_OUT_MAX], len: 0 }
    }

    /// Adds a row; one that is already there changes nothing.
    pub(super) fn insert(&mut self, row: u32) {
        let at = self.rows().partition_point(|&other| other < row);
        if self.rows().get(at) == Some(&row) {
            return;
        }
        assert!(self.len < LEFT_OUT_MAX, "a request leaves out its tries and one candidate");
        self.rows.copy_within(at..self.len, at + 1);
        self.rows[at] = row;
        self.len += 1;
    }

    /// Whether this row is.
    pub(super) fn contains(&self, row: u32) -> bool {
        self.rows().contains(&row)
    }

    /// Whether nobody is left out.
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn rows(&self) -> &[u32] {
        &self.rows[..self.len]
    }
}

/// Maps a uniform 64-bit `draw` to 0..`bound`. The bias is below `bound` ÷ 2⁶⁴.
fn scale(draw: u64, bound: u64) -> u64 {
    ((u128::from(draw) * u128::from(bound)) >> 64) as u64
}

/// The backends one request may have failed on, and the candidate that was found too busy.
pub(super) const LEFT_OUT_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(weights: &[u32]) -> AliasTable {
        let mut table = AliasTable::default();
        table.rebuild(weights.iter().copied());
        table
    }

    fn without(rows: &[u32]) -> LeftOut {
        let mut left_out = LeftOut::nobody();
        rows.iter().for_each(|&row| left_out.insert(row));
        left_out
    }

    /// The share of each row in units of 1 ÷ (rows × total), read off the columns.
    fn shares(table: &AliasTable) -> Vec<u64> {
        let mut shares = vec![0; table.len()];
        for (row, column) in table.columns.iter().enumerate() {
            shares[row] += column.keep;
            shares[column.alias as usize] += table.total() - column.keep;
        }
        shares
    }

    #[test]
    fn an_empty_table_yields_nothing() {
        assert_eq!(table(&[]).draw(7), None);
        assert_eq!(table(&[]).draw_without(7, LeftOut::nobody()), None);
    }

    #[test]
    fn a_draw_without_some_keeps_the_proportions_of_the_rest() {
        let table = table(&[50, 1, 30, 20]);
        let mut seen = [0u32; 4];
        for step in 0..50_000u64 {
            let draw = step * (u64::MAX / 50_000);
            seen[table.draw_without(draw, without(&[2, 1])).unwrap() as usize] += 1;
        }
        assert_eq!([seen[1], seen[2]], [0, 0]);
        assert!(seen[0].abs_diff(50_000 * 5 / 7) <= 1, "{seen:?}");
        assert_eq!(table.draw_without(u64::MAX, without(&[0, 1, 2, 3])), None);
        assert_eq!(table.draw_without(u64::MAX, without(&[3, 3])), Some(2));
    }

    #[test]
    fn extreme_draws_stay_inside() {
        let table = table(&[100_000, 1]);
        assert_eq!(table.draw(0), Some(0));
        for draw in [0, 1, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX - 1, u64::MAX] {
            assert!(table.draw(draw).unwrap() < 2);
            assert_eq!(table.draw_without(draw, without(&[0])), Some(1));
        }
    }

    proptest! {
        #[test]
        fn proportions_are_exact(weights in prop::collection::vec(1u32..=100_000, 1..200)) {
            let table = table(&weights);
            let rows = weights.len() as u64;
            let expected: Vec<u64> = weights.iter().map(|&w| u64::from(w) * rows).collect();
            prop_assert_eq!(shares(&table), expected);
        }

        #[test]
        fn a_rebuilt_table_forgets_the_old_one(
            old in prop::collection::vec(1u32..=1000, 0..50),
            new in prop::collection::vec(1u32..=1000, 1..50),
            draw: u64,
        ) {
            let mut rebuilt = table(&old);
            rebuilt.rebuild(new.iter().copied());
            prop_assert_eq!(rebuilt.draw(draw), table(&new).draw(draw));
            prop_assert_eq!(shares(&rebuilt), shares(&table(&new)));
        }
    }
}
