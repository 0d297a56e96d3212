//! What the default is held to, and where it loses.

use balancer::balance::Balance;

use crate::grid::{CORES, Cell, Grid};
use crate::plays::Deviation;
use crate::sim::Policy;

/// Prints what is asked of the default, what came of it, and where others are better. True when all is kept.
pub fn print(grid: &Grid, deviations: Vec<Deviation>) -> bool {
    let asked = || own_cells(grid).filter(|cell| cell.load < 1.0);
    let p99 = |cell: &Cell, policy| grid.at(cell.backends, cell.load, cell.cores, policy).p99_ms;
    let blind =
        asked().map(|cell| p99(cell, Policy::Ours(Balance::WeightedRandom)) / p99(cell, DEFAULT));
    let least_gain = blind.fold(f64::INFINITY, f64::min);
    let best = |cell: &Cell| {
        Policy::ALL.map(|policy| p99(cell, policy)).into_iter().fold(f64::INFINITY, f64::min)
    };
    let behind = asked().map(|cell| p99(cell, DEFAULT) / best(cell)).fold(0.0, f64::max);
    let many = asked().filter(|cell| cell.cores == CORES[2]).map(|cell| {
        p99(cell, DEFAULT) / grid.at(cell.backends, cell.load, CORES[0], DEFAULT).p99_ms
    });
    let dearest = many.fold(0.0, f64::max);
    let own = deviations.iter().filter(|deviation| deviation.policy == DEFAULT);
    let off = own.map(|deviation| deviation.points).fold(0.0, f64::max);
    println!("\n### The default, `{}`, at loads below 1\n", DEFAULT.name());
    println!("| asked | least good cell | kept |\n|---|--:|---|");
    let kept = [
        (format!("p99 {GAIN_MIN}× below weighted-random"), least_gain, least_gain >= GAIN_MIN),
        (format!("p99 within {BEHIND_MAX}× of the best"), behind, behind <= BEHIND_MAX),
        (format!("64 cores within {DEARER_MAX}× of one"), dearest, dearest <= DEARER_MAX),
        (format!("shares within {POINTS_MAX} points of the scores"), off, off <= POINTS_MAX),
    ];
    for (what, figure, is_kept) in &kept {
        println!("| {what} | {figure:.2} | {} |", if *is_kept { "yes" } else { "NO" });
    }
    print_losses(grid);
    kept.iter().all(|(.., is_kept)| *is_kept)
}

/// Prints who is better where.
fn print_losses(grid: &Grid) {
    println!("\nWhere it loses more than {LOSS_MIN} % of its p99, in ms at 1 / 8 / 64 cores:\n");
    for cell in own_cells(grid).filter(|cell| cell.cores == CORES[0]) {
        for policy in Policy::ALL {
            let of =
                |policy| CORES.map(|cores| grid.at(cell.backends, cell.load, cores, policy).p99_ms);
            let (ours, theirs) = (of(DEFAULT), of(policy));
            let is_lost = |(ours, theirs): (&f64, &f64)| *ours > theirs * (1.0 + LOSS_MIN / 100.0);
            if ours.iter().zip(&theirs).any(is_lost) {
                let [a, b, c] = ours;
                let [x, y, z] = theirs;
                println!(
                    "- {} backends, load {}: {a:.0} / {b:.0} / {c:.0}, {} {x:.0} / {y:.0} / {z:.0}",
                    cell.backends,
                    cell.load,
                    policy.name()
                );
            }
        }
    }
}

/// The cells of the default.
fn own_cells(grid: &Grid) -> impl Iterator<Item = &Cell> {
    grid.cells.iter().filter(|cell| cell.policy == DEFAULT)
}

const DEFAULT: Policy = Policy::Ours(Balance::Bounded);
const GAIN_MIN: f64 = 8.0;
const BEHIND_MAX: f64 = 1.5;
const DEARER_MAX: f64 = 1.3;
const POINTS_MAX: f64 = 2.0;
/// Less is noise.
const LOSS_MIN: f64 = 5.0;
