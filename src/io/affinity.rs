//! Which CPUs this process may use, and how they are wired: SMT siblings and NUMA nodes.
//!
//! It states facts and chooses nothing; `boot::plan` chooses. What `/sys` does not tell (containers, odd
//! hypervisors) degrades gracefully: every CPU is then its own physical core on an unknown node.
#![allow(unsafe_code)]

use std::io;
use std::ops::RangeInclusive;

/// One CPU (a hardware thread) that this process may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The kernel's number.
    pub id: usize,
    /// The physical core it is a thread of, named by the lowest CPU number on that core.
    pub physical: usize,
    /// Its NUMA node, if known.
    pub node: Option<usize>,
}

/// The CPUs this process may use: never empty, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(Vec<Cpu>);

impl Cpus {
    /// What the kernel allows this process, with its wiring from `/sys`.
    pub fn of_process() -> Self {
        let allowed = allowed().unwrap_or_else(|error| {
            log::warn!("the allowed cores are unknown ({error}); core 0 is used");
            vec![0]
        });
        Self::new(&allowed, |path| {
            std::fs::read_to_string(format!("/sys/devices/system/{path}")).ok()
        })
    }

    /// The given CPUs, wired as `read` tells: it maps a path below `/sys/devices/system/` to the file's text.
    /// An empty list means CPU 0.
    pub fn new(allowed: &[usize], read: impl Fn(&str) -> Option<String>) -> Self {
        let nodes = nodes(&read);
        let mut cpus: Vec<Cpu> = allowed
            .iter()
            .map(|&id| {
                let siblings = read(&format!("cpu/cpu{id}/topology/thread_siblings_list"));
                let physical =
                    siblings.and_then(|list| parse_list(&list)?.iter().map(|r| *r.start()).min());
                let node =
                    nodes.iter().find(|(_, list)| list.iter().any(|range| range.contains(&id)));
                Cpu { id, physical: physical.unwrap_or(id), node: node.map(|(node, _)| *node) }
            })
            .collect();
        if cpus.is_empty() {
            cpus.push(Cpu { id: 0, physical: 0, node: None });
        }
        cpus.sort_unstable_by_key(|cpu| cpu.id);
        cpus.dedup_by_key(|cpu| cpu.id);
        Self(cpus)
    }

    /// The CPUs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &Cpu> {
        self.0.iter()
    }

    /// The CPU numbered `id`, if this process may use it.
    pub fn get(&self, id: usize) -> Option<&Cpu> {
        self.0.binary_search_by_key(&id, |cpu| cpu.id).ok().map(|index| &self.0[index])
    }

    /// The lowest CPU.
    pub fn lowest(&self) -> usize {
        self.0[0].id
    }
}

impl std::fmt::Display for Cpus {
    /// As ranges, for example `0-7,10`.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<usize> = self.0.iter().map(|cpu| cpu.id).collect();
        out.write_str(&format_list(&ids))
    }
}

/// Reads the kernel's list form, for example `2-7,10`; `None` when it is not one. Ranges stay ranges, so that
/// `0-18446744073709551615` costs nothing.
pub fn parse_list(text: &str) -> Option<Vec<RangeInclusive<usize>>> {
    text.split(',').map(|item| parse_range(item.trim())).collect()
}

/// Ascending CPU numbers in the kernel's list form.
pub fn format_list(ids: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &id in ids {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            _ => ranges.push((id, id)),
        }
    }
    let items: Vec<String> = ranges
        .iter()
        .map(
            |(first, last)| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            },
        )
        .collect();
    items.join(",")
}

fn parse_range(item: &str) -> Option<RangeInclusive<usize>> {
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

/// Each NUMA node with its CPUs; empty where `/sys` does not tell.
fn nodes(read: &impl Fn(&str) -> Option<String>) -> Vec<(usize, Vec<RangeInclusive<usize>>)> {
    let online = read("node/online").and_then(|list| parse_list(&list)).unwrap_or_default();
    let listed = |node| Some((node, parse_list(&read(&format!("node/node{node}/cpulist"))?)?));
    online.into_iter().flatten().filter_map(listed).collect()
}

/// sched_getaffinity(2), which unlike `Cpus_allowed_list` in `/proc` leaves out CPUs that are offline.
fn allowed() -> io::Result<Vec<usize>> {
    let mut words = CPUS_MAX_FIRST / BITS;
    loop {
        let mut mask: Vec<libc::c_ulong> = vec![0; words];
        // SAFETY: `mask` is writable for exactly the byte count passed; the kernel writes no more than that.
        // A mask of `c_ulong` words is what the syscall defines; `cpu_set_t` is the same words at a fixed count.
        let answer = unsafe {
            libc::sched_getaffinity(0, size_of_val(mask.as_slice()), mask.as_mut_ptr().cast())
        };
        if answer == 0 {
            return Ok((0..words * BITS)
                .filter(|id| mask[id / BITS] >> (id % BITS) & 1 == 1)
                .collect());
        }
        let error = io::Error::last_os_error();
        // EINVAL: the kernel knows more CPUs than the mask has bits.
        if error.raw_os_error() != Some(libc::EINVAL) || words * BITS >= CPUS_MAX {
            return Err(error);
        }
        words *= 2;
    }
}

const BITS: usize = libc::c_ulong::BITS as usize;
/// CPUs the first attempt has room for.
const CPUS_MAX_FIRST: usize = 1024;
/// Where we stop asking.
const CPUS_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_and_print_as_the_kernel_writes_them() {
        for (text, ids) in [
            ("0", vec![0]),
            ("2-7,10", vec![2, 3, 4, 5, 6, 7, 10]),
            ("0-1,4-5\n", vec![0, 1, 4, 5]),
        ] {
            let read: Vec<usize> = parse_list(text).unwrap().into_iter().flatten().collect();
            assert_eq!(read, ids);
            assert_eq!(format_list(&ids), text.trim());
        }
        for text in [
            "",
            " ",
            "a",
            "1-",
            "-1",
            "3-2",
            "1,,2",
            "1,",
            "+1",
            "1-2-3",
            "0x1",
            "99999999999999999999",
        ] {
            assert_eq!(parse_list(text), None, "{text:?}");
        }
        assert_eq!(parse_list("0-18446744073709551615").unwrap().len(), 1);
    }

    #[test]
    fn wiring_comes_from_sys() {
        let read = |path: &str| {
            Some(match path {
                "cpu/cpu0/topology/thread_siblings_list"
                | "cpu/cpu2/topology/thread_siblings_list" => "0,2\n".into(),
                "cpu/cpu1/topology/thread_siblings_list"
                | "cpu/cpu3/topology/thread_siblings_list" => "1,3\n".into(),
                "node/online" => "0-1\n".into(),
                "node/node0/cpulist" => "0,2\n".into(),
                "node/node1/cpulist" => "1,3\n".into(),
                _ => return None,
            })
        };
        let cpus = Cpus::new(&[3, 0, 1, 2, 2], read);
        let wired: Vec<_> = cpus.iter().map(|cpu| (cpu.id, cpu.physical, cpu.node)).collect();
        assert_eq!(wired, [(0, 0, Some(0)), (1, 1, Some(1)), (2, 0, Some(0)), (3, 1, Some(1))]);
        assert_eq!(cpus.to_string(), "0-3");
    }

    #[test]
    fn silence_or_rubbish_in_sys_makes_every_cpu_a_core() {
        for read in [|_: &str| None, |_: &str| Some("rubbish".to_owned())] {
            let cpus = Cpus::new(&[4, 5], read);
            let wired: Vec<_> = cpus.iter().map(|cpu| (cpu.id, cpu.physical, cpu.node)).collect();
            assert_eq!(wired, [(4, 4, None), (5, 5, None)]);
        }
        assert_eq!(Cpus::new(&[], |_| None).lowest(), 0);
    }

    #[test]
    fn the_process_may_run_somewhere() {
        let cpus = Cpus::of_process();
        assert!(cpus.iter().count() >= 1);
        assert!(cpus.get(cpus.lowest()).is_some());
    }
}
