//! Every policy in every cell: sizes of the set, loads, numbers of cores.

use std::sync::Mutex;
use std::time::Duration;

use crate::sim::{Policy, Scene, Tally, run};

/// How much is played.
pub struct Extent {
    pub sizes: &'static [usize],
    pub loads: &'static [f64],
    /// Of a piece with 20 backends; with more of them it is shorter, for as many requests.
    pub length: Duration,
    pub seeds: &'static [u64],
    /// Requests of a closed loop.
    pub requests: usize,
}

/// The figures of all cells.
pub struct Grid {
    pub cells: Vec<Cell>,
    extent: (&'static [usize], &'static [f64]),
}

/// One policy in one cell, over all seeds.
#[derive(Clone, Copy)]
pub struct Cell {
    pub backends: usize,
    pub load: f64,
    pub cores: usize,
    pub policy: Policy,
    pub figures: Figures,
}

/// What is told of a piece.
#[derive(Clone, Copy, Default)]
pub struct Figures {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub p99_range_ms: (f64, f64),
    pub largest_share: f64,
    pub failures: u64,
}

impl Extent {
    pub const WHOLE: Self = Self {
        sizes: &[20, 100],
        loads: &[0.7, 0.9, 1.1],
        length: Duration::from_secs(64),
        seeds: &[1, 2, 3],
        requests: 100_000,
    };
    pub const QUICK: Self = Self {
        sizes: &[20],
        loads: &[0.7, 0.9],
        length: Duration::from_secs(34),
        seeds: &[1],
        requests: 20_000,
    };
}

impl Grid {
    pub fn play(extent: &Extent) -> Self {
        let mut cells = Vec::new();
        for &backends in extent.sizes {
            for &load in extent.loads {
                for cores in CORES {
                    cells.extend(Policy::ALL.map(|policy| (backends, load, cores, policy)));
                }
            }
        }
        let cells = side_by_side(&cells, |&(backends, load, cores, policy)| {
            let length = match backends {
                ..=20 => extent.length,
                _ => extent.length / 2,
            };
            let scene = Scene::mixed(backends, load, cores, length);
            let figures = figures(&scene, policy, extent.seeds);
            Cell { backends, load, cores, policy, figures }
        });
        Self { cells, extent: (extent.sizes, extent.loads) }
    }

    pub fn at(&self, backends: usize, load: f64, cores: usize, policy: Policy) -> &Figures {
        let is_it = |cell: &&Cell| {
            (cell.backends, cell.cores, cell.policy) == (backends, cores, policy)
                && cell.load == load
        };
        &self.cells.iter().find(is_it).expect("all cells were played").figures
    }

    pub fn print(&self) {
        let (sizes, loads) = self.extent;
        for &backends in sizes {
            println!("\n### p99 in ms, {backends} backends, 1 / 8 / 64 cores\n");
            let heads: String = loads.iter().map(|load| format!(" load {load} |")).collect();
            println!("| policy |{heads}\n|---|{}", "--:|".repeat(loads.len()));
            for policy in Policy::ALL {
                let row: String = loads
                    .iter()
                    .map(|&load| {
                        let p99 = CORES.map(|cores| self.at(backends, load, cores, policy).p99_ms);
                        format!(" {:.0} / {:.0} / {:.0} |", p99[0], p99[1], p99[2])
                    })
                    .collect();
                println!("| {} |{row}", policy.name());
            }
        }
        for &backends in sizes {
            for &load in loads {
                println!("\n### {backends} backends, load {load}\n");
                print_head("policy, cores");
                for policy in Policy::ALL {
                    for cores in CORES {
                        let figures = self.at(backends, load, cores, policy);
                        print_row(&format!("{}, {cores}", policy.name()), figures);
                    }
                }
            }
        }
    }
}

pub fn print_head(first: &str) {
    println!(
        "| {first} | p50 ms | p99 ms (by seed) | p99.9 ms | largest share in 1 s | failures |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
}

pub fn print_row(first: &str, figures: &Figures) {
    let Figures { p50_ms, p99_ms, p999_ms, p99_range_ms: (low, high), .. } = figures;
    let Figures { largest_share, failures, .. } = figures;
    println!(
        "| {first} | {p50_ms:.0} | {p99_ms:.0} ({low:.0}–{high:.0}) | {p999_ms:.0} | {largest_share:.1} % | {failures} |"
    );
}

/// The figures of `scene` over all seeds together.
pub fn figures(scene: &Scene, policy: Policy, seeds: &[u64]) -> Figures {
    figures_of(seeds.iter().map(|&seed| run(scene, policy, seed)))
}

pub fn figures_of(runs: impl Iterator<Item = Tally>) -> Figures {
    let mut all = Tally::default();
    runs.for_each(|tally| all.merge(tally));
    assert_eq!(all.strays, 0, "somebody got requests who must get none");
    Figures {
        p50_ms: all.percentile_ms(50.0),
        p99_ms: all.percentile_ms(99.0),
        p999_ms: all.percentile_ms(99.9),
        p99_range_ms: all.p99_range_ms(),
        largest_share: all.largest_share,
        failures: all.failures,
    }
}

/// Does each job on some thread; the outcomes in the order of the jobs.
pub fn side_by_side<J: Sync, T: Send>(jobs: &[J], work: impl Fn(&J) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = Mutex::new(jobs.iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let job = next.lock().expect("nobody panics holding it").next();
                    let Some((at, job)) = job else { break };
                    let outcome = work(job);
                    done.lock().expect("nobody panics holding it").push((at, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("all threads have ended");
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

pub const CORES: [usize; 3] = [1, 8, 64];
