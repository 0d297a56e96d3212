//! The 99th percentiles as a picture.

use std::fmt::Write as _;
use std::path::Path;

use crate::grid::{CORES, Grid};
use crate::sim::Policy;

/// Draws the set of 20 backends at loads 0.7 and 0.9, one bar per policy and number of cores, on a logarithmic scale.
pub fn write(grid: &Grid, path: &str) -> std::io::Result<()> {
    let mut svg = String::new();
    draw(grid, &mut svg).map_err(std::io::Error::other)?;
    // Benches run in the package's directory, wherever cargo was called.
    std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), svg)
}

fn draw(grid: &Grid, svg: &mut String) -> std::fmt::Result {
    let panel = Policy::ALL.len() as u32 * GROUP + 20;
    let (width, height) = (LEFT + 2 * panel + 20, TOP + DEPTH + 70);
    writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">
<rect width="{width}" height="{height}" fill="#fff"/>
<text x="{LEFT}" y="20" font-size="15">99th percentile in ms, 20 backends, by policy and number of cores, logarithmic</text>"##
    )?;
    for ms in [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000] {
        let y = TOP + DEPTH - bar(f64::from(ms));
        writeln!(
            svg,
            r##"<line x1="{LEFT}" x2="{}" y1="{y}" y2="{y}" stroke="#ddd"/><text x="{}" y="{}" text-anchor="end" fill="#555">{ms}</text>"##,
            width - 20,
            LEFT - 6,
            y + 4
        )?;
    }
    for (cores, at) in CORES.iter().zip(0..) {
        let x = width - 300 + at * 100;
        let plural = if *cores == 1 { "" } else { "s" };
        writeln!(
            svg,
            r##"<rect x="{x}" y="30" width="12" height="12" fill="{}"/><text x="{}" y="40">{cores} core{plural}</text>"##,
            COLOURS[at as usize],
            x + 18
        )?;
    }
    for (load, side) in LOADS.iter().zip(0..) {
        let left = LEFT + 10 + side * panel;
        writeln!(svg, r##"<text x="{left}" y="40">load {load}</text>"##)?;
        for (policy, at) in Policy::ALL.iter().zip(0..) {
            let x = left + at * GROUP;
            for (cores, n) in CORES.iter().zip(0..) {
                let p99 = grid.at(20, *load, *cores, *policy).p99_ms;
                let (x, high) = (x + n * BAR, bar(p99));
                let y = TOP + DEPTH - high;
                writeln!(
                    svg,
                    r##"<rect x="{x}" y="{y}" width="{}" height="{high}" fill="{}"><title>{}, {cores} cores: {p99:.0} ms</title></rect><text x="{}" y="{}" font-size="9" text-anchor="middle">{p99:.0}</text>"##,
                    BAR - 2,
                    COLOURS[n as usize],
                    policy.name(),
                    x + BAR / 2 - 1,
                    y - 3
                )?;
            }
            let (x, y) = (x + GROUP / 2 - 8, TOP + DEPTH + 16);
            for (word, line) in policy.name().split([' ', '-']).zip(0..) {
                writeln!(
                    svg,
                    r##"<text x="{x}" y="{}" font-size="11" text-anchor="middle">{word}</text>"##,
                    y + 14 * line
                )?;
            }
        }
    }
    writeln!(svg, "</svg>")
}

/// Height of a bar.
fn bar(ms: f64) -> u32 {
    let decades = (ms.max(SMALLEST_MS) / SMALLEST_MS).log10();
    (decades * f64::from(DECADE)) as u32
}

const LOADS: [f64; 2] = [0.7, 0.9];
const SMALLEST_MS: f64 = 50.0;
const DECADE: u32 = 115;
const DEPTH: u32 = 330;
const TOP: u32 = 70;
const LEFT: u32 = 60;
const GROUP: u32 = 92;
const BAR: u32 = 26;
const COLOURS: [&str; 3] = ["#9ecae1", "#4292c6", "#084594"];
