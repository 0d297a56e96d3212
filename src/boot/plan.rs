//! Which cores do what: a pure function from what the host offers and what the operator asked for.
//!
//! Left to itself it takes every allowed core but the control core, and one hardware thread of each physical core:
//! two workers on one core's siblings would halve each other. The control core's own sibling is fair game, since the
//! control core is idle nearly always.

use std::ops::RangeInclusive;

use crate::io::affinity::{Cpu, Cpus};
use crate::io::by_cpu::Route;

/// What `--cores` said.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum CoreChoice {
    /// Nothing.
    #[default]
    Automatic,
    /// `all`: every allowed core, siblings and control core included.
    All,
    /// These, in any order; overlaps count once.
    Listed(Vec<RangeInclusive<usize>>),
}

/// The cores chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuPlan {
    /// Worker cores, ascending, at least one.
    pub workers: Vec<usize>,
    /// The core of the agent link; may be one of the workers'.
    pub control: usize,
}

/// A core was named that this process may not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// By `--cores`.
    Worker(usize),
    /// By `--control-core`.
    Control(usize),
}

/// Chooses. `control` is the operator's wish; the lowest allowed core without one. When nothing is left for the
/// workers, they share the control core.
pub fn plan(
    cpus: &Cpus,
    choice: &CoreChoice,
    control: Option<usize>,
) -> Result<CpuPlan, Unavailable> {
    let control = control.unwrap_or_else(|| cpus.lowest());
    if cpus.get(control).is_none() {
        return Err(Unavailable::Control(control));
    }
    let mut workers = match choice {
        CoreChoice::Automatic => one_per_physical_core(cpus, control),
        CoreChoice::All => cpus.iter().map(|cpu| cpu.id).collect(),
        CoreChoice::Listed(ranges) => listed(cpus, ranges)?,
    };
    workers.sort_unstable();
    workers.dedup();
    if workers.is_empty() {
        workers.push(control);
    }
    Ok(CpuPlan { workers, control })
}

fn one_per_physical_core(cpus: &Cpus, control: usize) -> Vec<usize> {
    let mut taken = Vec::new();
    let mut workers = Vec::new();
    for cpu in cpus.iter().filter(|cpu| cpu.id != control) {
        if !taken.contains(&cpu.physical) {
            taken.push(cpu.physical);
            workers.push(cpu.id);
        }
    }
    workers
}

/// Which worker gets what a core receives: the one on that core, else one on a sibling, else one on the same node.
/// A core that is near none of them has no route.
pub fn routes(cpus: &Cpus, workers: &[usize]) -> Vec<Route> {
    let route = |cpu: &Cpu| {
        let is_near: [fn(&Cpu, &Cpu) -> bool; 3] = [
            |a, b| a.id == b.id,
            |a, b| a.physical == b.physical,
            |a, b| a.node.is_some() && a.node == b.node,
        ];
        let place = |n: usize| cpus.get(workers[n]);
        let nearest = is_near.iter().find_map(|is_near| {
            let near: Vec<usize> = (0..workers.len())
                .filter(|&n| place(n).is_some_and(|worker| is_near(worker, cpu)))
                .collect();
            near.get(cpu.id % near.len().max(1)).copied()
        });
        nearest.map(|worker| Route { cpu: cpu.id, worker })
    };
    cpus.iter().filter_map(route).collect()
}

/// The cores of all ranges, or the first that is not there. A range ends at its first missing core, so a huge one
/// costs no more than the host has cores.
fn listed(cpus: &Cpus, ranges: &[RangeInclusive<usize>]) -> Result<Vec<usize>, Unavailable> {
    let checked = |id| if cpus.get(id).is_some() { Ok(id) } else { Err(Unavailable::Worker(id)) };
    ranges.iter().cloned().flatten().map(checked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::affinity::parse_list;

    /// CPUs `allowed`, wired as `siblings` says: groups separated by spaces.
    fn cpus(allowed: &str, siblings: &str) -> Cpus {
        let allowed: Vec<usize> = parse_list(allowed).unwrap().into_iter().flatten().collect();
        let groups: Vec<String> = siblings.split_whitespace().map(str::to_owned).collect();
        Cpus::new(&allowed, |path| {
            let id: usize = path.strip_prefix("cpu/cpu")?.split('/').next()?.parse().ok()?;
            let holds = |group: &&String| {
                parse_list(group).unwrap().iter().any(|range| range.contains(&id))
            };
            groups.iter().find(holds).cloned()
        })
    }

    fn listed(text: &str) -> CoreChoice {
        CoreChoice::Listed(parse_list(text).unwrap())
    }

    #[test]
    fn plans() {
        use CoreChoice::{All, Automatic};
        #[rustfmt::skip]
        let table = [
            // allowed, siblings, --cores, --control-core, workers, control
            ("0",     "",            Automatic,      None,    vec![0],             0),
            ("0-1",   "",            Automatic,      None,    vec![1],             0),
            ("0-1",   "0-1",         Automatic,      None,    vec![1],             0),
            ("0-3",   "",            Automatic,      None,    vec![1, 2, 3],       0),
            ("0-3",   "",            Automatic,      Some(2), vec![0, 1, 3],       2),
            ("0-3",   "0,1 2,3",     Automatic,      None,    vec![1, 2],          0),
            ("0-7",   "0,4 1,5 2,6 3,7", Automatic,  None,    vec![1, 2, 3, 4],    0),
            ("0-7",   "0,4 1,5 2,6 3,7", Automatic,  Some(7), vec![0, 1, 2, 3],    7),
            // The lower sibling belongs to somebody else: the other one stands for the core.
            ("4-7",   "0,4 1,5 2,6 3,7", Automatic,  None,    vec![5, 6, 7],       4),
            ("5,9",   "",            Automatic,      None,    vec![9],             5),
            ("0-3",   "0,1 2,3",     All,            None,    vec![0, 1, 2, 3],    0),
            ("0-3",   "",            All,            Some(3), vec![0, 1, 2, 3],    3),
            ("0-7",   "0,4 1,5 2,6 3,7", listed("2-3,6,3"), None, vec![2, 3, 6],   0),
            ("0-7",   "",            listed("0"),    None,    vec![0],             0),
            ("0-7",   "",            listed("7,1"),  Some(1), vec![1, 7],          1),
        ];
        for (allowed, siblings, choice, control, workers, control_at) in table {
            let made = plan(&cpus(allowed, siblings), &choice, control).unwrap();
            let wanted = CpuPlan { workers, control: control_at };
            assert_eq!(made, wanted, "{allowed} ({siblings}) {choice:?} {control:?}");
        }
    }

    #[test]
    fn what_a_core_receives_goes_to_the_nearest_worker() {
        #[rustfmt::skip]
        let table = [
            // allowed, siblings, workers, (core, worker's number)
            ("0-3", "",                vec![1, 2, 3], vec![(1, 0), (2, 1), (3, 2)]),
            ("0-3", "0,1 2,3",         vec![1, 2],    vec![(0, 0), (1, 0), (2, 1), (3, 1)]),
            ("0-7", "0,4 1,5 2,6 3,7", vec![1, 6],    vec![(1, 0), (2, 1), (5, 0), (6, 1)]),
            ("0-1", "0,1",             vec![0, 1],    vec![(0, 0), (1, 1)]),
        ];
        for (allowed, siblings, workers, wanted) in table {
            let routes = routes(&cpus(allowed, siblings), &workers);
            let routes: Vec<_> = routes.iter().map(|route| (route.cpu, route.worker)).collect();
            assert_eq!(routes, wanted, "{allowed} ({siblings}) {workers:?}");
        }
    }

    #[test]
    fn a_core_that_is_not_there_is_named() {
        let host = cpus("0-7", "");
        assert_eq!(plan(&host, &listed("2-7,12"), None), Err(Unavailable::Worker(12)));
        assert_eq!(plan(&host, &listed("2-9"), None), Err(Unavailable::Worker(8)));
        assert_eq!(
            plan(&host, &listed("0-18446744073709551615"), None),
            Err(Unavailable::Worker(8))
        );
        assert_eq!(plan(&host, &CoreChoice::Automatic, Some(8)), Err(Unavailable::Control(8)));
        assert_eq!(plan(&cpus("4-5", ""), &listed("0"), None), Err(Unavailable::Worker(0)));
    }
}
