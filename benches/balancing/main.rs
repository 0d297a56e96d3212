//! The balancing simulation: what each policy makes of the same traffic, in virtual time.
//!
//! `cargo bench --bench balancing` prints Markdown tables and draws `target/balancing.svg`; `-- --quick` plays shorter
//! pieces. All figures come from fixed seeds and are the same in every run. Exits with 1 when the default misses what
//! [`verdict`] asks of it. What is simulated and what is real: [`sim`].

mod chart;
mod grid;
mod plays;
mod sim;
mod verdict;

use std::process::ExitCode;
use std::time::Instant as Clock;

use grid::{Extent, Grid};

fn main() -> ExitCode {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let extent = if is_quick { Extent::QUICK } else { Extent::WHOLE };
    let began = Clock::now();
    let grid = Grid::play(&extent);
    grid.print();
    let deviations = plays::print_deviations(&extent);
    plays::print_slow_one(&extent);
    plays::print_scenarios(&extent);
    plays::print_small_sets(&extent);
    match chart::write(&grid, CHART) {
        Ok(()) => println!("\n{CHART} shows the 99th percentiles."),
        Err(error) => println!("\n{CHART} could not be written: {error}"),
    }
    println!("{} s on this machine.", began.elapsed().as_secs());
    if verdict::print(&grid, deviations) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const CHART: &str = "target/balancing.svg";
