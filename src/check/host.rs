//! What the host's facts mean. What it does not tell (containers, odd hypervisors) is left out, never guessed.

use std::collections::BTreeMap;

use super::{Finding, Level};
use crate::boot::{self, bytes_text};
use crate::io::affinity::{Cpu, Cpus, format_list};
use crate::io::host::{Limits, RingError};
use crate::io::listen::BACKLOG;

/// The text of a file, if it can be read.
pub(super) type ReadText<'a> = Box<dyn Fn(&str) -> Option<String> + 'a>;

/// What is known of the host.
pub(super) struct Facts<'a> {
    pub limits: Limits,
    pub ring: Result<(), RingError>,
    pub cpus: Cpus,
    /// Empty when the settings are refused.
    pub workers: Vec<usize>,
    pub control: Option<usize>,
    pub read: ReadText<'a>,
}

impl Facts<'_> {
    fn read(&self, path: &str) -> Option<String> {
        (self.read)(path).map(|text| text.trim().to_owned())
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }
}

/// Everything there is to say.
pub(super) fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = vec![ring(facts), memlock(facts)];
    findings.extend(descriptors(facts));
    findings.extend(migrate(facts));
    if !facts.workers.is_empty() {
        findings.push(siblings(facts));
        findings.extend(nodes(facts));
        findings.extend(quota(facts));
        findings.extend(governor(facts));
        findings.extend(interrupts(facts));
    }
    findings
}

/// The words of a refusal to start, as a finding.
fn refusal(topic: &'static str, error: &boot::Error) -> Finding {
    let text = error.to_string();
    Finding::new(Level::Failure, topic, text.trim_start_matches("error: ").to_owned())
}

fn ring(facts: &Facts<'_>) -> Finding {
    match facts.ring {
        Ok(()) => Finding::new(Level::Ok, "io_uring", "granted"),
        Err(error) => refusal("io_uring", &boot::Error::Ring(error)),
    }
}

fn memlock(facts: &Facts<'_>) -> Finding {
    match boot::check_memlock(facts.limits) {
        Ok(()) => {
            let limit = facts.limits.memlock.map_or("unlimited".to_owned(), bytes_text);
            Finding::new(Level::Ok, "memlock", limit)
        }
        Err(error) => refusal("memlock", &error),
    }
}

/// Descriptors and the listen backlog.
fn descriptors(facts: &Facts<'_>) -> Vec<Finding> {
    let somaxconn = facts.number("/proc/sys/net/core/somaxconn");
    let somaxconn = somaxconn.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let (backlog, warnings) = boot::judge(facts.limits, somaxconn);
    let (nofile, wanted) = (facts.limits.nofile, BACKLOG.unsigned_abs());
    let mut findings = Vec::new();
    let refused = boot::check_nofile(facts.limits).err();
    findings.extend(refused.iter().map(|error| refusal("nofile", error)));
    for (topic, is_fine, fine) in [
        ("nofile", !warnings.iter().any(|text| text.contains("descriptors")), nofile.to_string()),
        ("somaxconn", backlog >= wanted, format!("a backlog of {backlog} is granted")),
    ] {
        if is_fine {
            findings.push(Finding::new(Level::Ok, topic, fine));
        }
    }
    for warning in warnings {
        let topic = if warning.contains("descriptors") { "nofile" } else { "somaxconn" };
        // The refusal has said it.
        if topic == "nofile" && refused.is_some() {
            continue;
        }
        findings.push(Finding::new(Level::Warning, topic, warning.replacen(": try ", "\ntry ", 1)));
    }
    findings
}

/// Whether connections that wait in a listener survive its end.
fn migrate(facts: &Facts<'_>) -> Option<Finding> {
    let is_on = facts.number("/proc/sys/net/ipv4/tcp_migrate_req")? != 0;
    Some(match is_on {
        true => Finding::new(Level::Ok, "tcp_migrate_req", "on"),
        false => Finding::new(
            Level::Note,
            "tcp_migrate_req",
            "off: connections that wait in a listener are reset when it closes before its siblings\n\
             try sysctl net.ipv4.tcp_migrate_req=1",
        ),
    })
}

/// Two workers on one physical core, or a worker beside the control core.
fn siblings(facts: &Facts<'_>) -> Finding {
    let physical = |core: &usize| facts.cpus.get(*core).map(|cpu| cpu.physical);
    let mut by_core: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for worker in &facts.workers {
        if let Some(core) = physical(worker) {
            by_core.entry(core).or_default().push(*worker);
        }
    }
    let shared: Vec<String> =
        by_core.values().filter(|all| all.len() > 1).map(|all| format_list(all)).collect();
    if !shared.is_empty() {
        return Finding::new(
            Level::Warning,
            "cores",
            format!(
                "workers share a physical core (SMT): {}\ntry --cores with one of each, or leave it to the default",
                shared.join(" and ")
            ),
        );
    }
    let control = facts.control.filter(|control| facts.workers.contains(control));
    match control {
        Some(core) => Finding::new(
            Level::Note,
            "cores",
            format!(
                "core {core} is a worker's and control's: the agent link and the admin listener take from its time"
            ),
        ),
        None => Finding::new(Level::Ok, "cores", "every worker has a physical core of its own"),
    }
}

fn nodes(facts: &Facts<'_>) -> Option<Finding> {
    let cpus: Vec<&Cpu> = facts.workers.iter().filter_map(|&core| facts.cpus.get(core)).collect();
    let mut nodes: Vec<usize> = cpus.iter().map(|cpu| cpu.node).collect::<Option<_>>()?;
    nodes.sort_unstable();
    nodes.dedup();
    Some(match nodes.len() {
        0 | 1 => Finding::new(Level::Ok, "NUMA", format!("node {}", format_list(&nodes))),
        _ => Finding::new(
            Level::Note,
            "NUMA",
            format!(
                "workers sit on nodes {}: what is cached on one is far from the others\n\
                 try one instance per node, each with --cores of that node, if latency matters more than one cache",
                format_list(&nodes)
            ),
        ),
    })
}

/// The control group's share of CPU time.
fn quota(facts: &Facts<'_>) -> Option<Finding> {
    let text = facts.read("/sys/fs/cgroup/cpu.max")?;
    let (quota, period) = text.split_once(' ')?;
    let cpus = quota.parse::<f64>().ok()? / period.parse::<f64>().ok().filter(|&p| p > 0.0)?;
    let workers = facts.workers.len();
    Some(match cpus < workers as f64 {
        true => Finding::new(
            Level::Warning,
            "CPU quota",
            format!(
                "the control group may use {cpus:.1} CPUs, and there are {workers} workers: they are stopped in turns\n\
                 try fewer --cores, or a higher limit"
            ),
        ),
        false => Finding::new(Level::Ok, "CPU quota", format!("{cpus:.1} CPUs")),
    })
}

/// The frequency governor of the worker cores.
fn governor(facts: &Facts<'_>) -> Option<Finding> {
    let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for &core in &facts.workers {
        let path = format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
        by_name.entry(facts.read(&path)?).or_default().push(core);
    }
    let slow: Vec<String> = (by_name.iter())
        .filter(|(name, _)| name.as_str() != "performance")
        .map(|(name, cores)| format!("{name} on {}", format_list(cores)))
        .collect();
    Some(match slow.is_empty() {
        true => Finding::new(Level::Ok, "governor", "performance"),
        false => Finding::new(
            Level::Warning,
            "governor",
            format!(
                "{}: clocks follow the load, and so does latency\ntry cpupower frequency-set -g performance",
                slow.join(", ")
            ),
        ),
    })
}

/// Devices whose interrupts all fall on one worker core make that core slower than its siblings.
fn interrupts(facts: &Facts<'_>) -> Option<Finding> {
    let table = facts.read("/proc/interrupts")?;
    let mut lines = table.lines();
    let columns: Vec<usize> = lines
        .next()?
        .split_whitespace()
        .map(|name| name.strip_prefix("CPU")?.parse().ok())
        .collect::<Option<_>>()?;
    let mut sums = vec![0_u64; columns.len()];
    let mut loudest = vec![(0_u64, ""); columns.len()];
    for line in lines {
        let mut words = line.split_whitespace();
        // Numbered lines are devices; the others are the kernel's own.
        let is_device =
            words.next().is_some_and(|name| name.trim_end_matches(':').parse::<u32>().is_ok());
        if !is_device {
            continue;
        }
        let counts: Vec<u64> =
            words.by_ref().map_while(|word| word.parse().ok()).take(columns.len()).collect();
        let name = line.split_whitespace().last().unwrap_or_default();
        for (at, &count) in counts.iter().enumerate() {
            sums[at] += count;
            if count > loudest[at].0 {
                loudest[at] = (count, name);
            }
        }
    }
    let on_workers = columns.iter().zip(sums.iter().zip(&loudest));
    let on_workers: Vec<(usize, u64, &str)> = on_workers
        .filter(|(core, _)| facts.workers.contains(core))
        .map(|(&core, (&sum, &(_, name)))| (core, sum, name))
        .collect();
    let total: u64 = on_workers.iter().map(|(_, sum, _)| sum).sum();
    let &(core, most, name) = on_workers.iter().max_by_key(|(_, sum, _)| *sum)?;
    let is_skewed = facts.workers.len() > 1 && total > INTERRUPTS_LEAST && most * 4 > total * 3;
    Some(match is_skewed {
        true => Finding::new(
            Level::Warning,
            "interrupts",
            format!(
                "{} % of the devices' interrupts on worker cores fall on core {core}, most of them {name}\n\
                 try to spread them (irqbalance, /proc/irq/*/smp_affinity_list), or --cores without {core}",
                most * 100 / total
            ),
        ),
        false => Finding::new(Level::Ok, "interrupts", "no worker core has most of the devices'"),
    })
}

/// With fewer it does not matter where they fall.
const INTERRUPTS_LEAST: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight cores, two threads each (0,4 1,5 …), on two nodes, and these files.
    fn facts<'a>(workers: &[usize], files: &'a [(&'a str, &'a str)]) -> Facts<'a> {
        let wiring = |path: &str| {
            let core = path.strip_prefix("cpu/cpu").and_then(|rest| rest.split('/').next());
            if let Some(core) = core.and_then(|core| core.parse::<usize>().ok()) {
                return Some(format!("{},{}", core % 4, core % 4 + 4));
            }
            Some(match path {
                "node/online" => "0-1".to_owned(),
                "node/node0/cpulist" => "0-1,4-5".to_owned(),
                "node/node1/cpulist" => "2-3,6-7".to_owned(),
                _ => return None,
            })
        };
        Facts {
            limits: Limits { nofile: 65_536, memlock: None },
            ring: Ok(()),
            cpus: Cpus::new(&[0, 1, 2, 3, 4, 5, 6, 7], wiring),
            workers: workers.to_vec(),
            control: Some(0),
            read: Box::new(|path| {
                files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
            }),
        }
    }

    #[track_caller]
    fn says(facts: &Facts<'_>, topic: &str, level: Level, text: &str) {
        let findings = judge(facts);
        let found = findings.iter().find(|finding| finding.topic == topic).unwrap_or_else(|| {
            panic!("nothing on {topic}: {findings:#?}");
        });
        assert!(found.level == level && found.text.contains(text), "{found:?}");
    }

    #[test]
    fn a_plain_host_is_fine() {
        let findings = judge(&facts(&[1], &[("/proc/sys/net/core/somaxconn", "4096\n")]));
        assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");
        let topics: Vec<_> = findings.iter().map(|finding| finding.topic).collect();
        assert_eq!(topics, ["io_uring", "memlock", "nofile", "somaxconn", "cores", "NUMA"]);
    }

    #[test]
    fn what_keeps_it_from_starting() {
        let mut bad = facts(&[1], &[]);
        bad.ring = Err(RingError::Refused);
        bad.limits.memlock = Some(64 << 10);
        says(&bad, "io_uring", Level::Failure, "the kernel refuses io_uring");
        says(&bad, "io_uring", Level::Failure, "sysctl kernel.io_uring_disabled=0");
        says(&bad, "memlock", Level::Failure, "ulimit -l 8192");
    }

    #[test]
    fn what_could_be_better() {
        let files = [
            ("/proc/sys/net/core/somaxconn", "128"),
            ("/proc/sys/net/ipv4/tcp_migrate_req", "0"),
            ("/sys/fs/cgroup/cpu.max", "150000 100000"),
            ("/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave"),
            ("/sys/devices/system/cpu/cpu5/cpufreq/scaling_governor", "performance"),
        ];
        let mut bad = facts(&[1, 5], &files);
        bad.limits.nofile = 8;
        says(&bad, "nofile", Level::Failure, "only 8 descriptors are allowed; at least 64");
        bad.limits.nofile = 1024;
        says(&bad, "nofile", Level::Warning, "only 1024 descriptors");
        says(&bad, "somaxconn", Level::Warning, "try sysctl net.core.somaxconn=4096");
        says(&bad, "tcp_migrate_req", Level::Note, "sysctl net.ipv4.tcp_migrate_req=1");
        says(&bad, "cores", Level::Warning, "share a physical core (SMT): 1,5");
        says(&bad, "CPU quota", Level::Warning, "1.5 CPUs, and there are 2 workers");
        says(&bad, "governor", Level::Warning, "powersave on 1");
        says(&bad, "NUMA", Level::Ok, "node 0");
        says(&facts(&[1, 2], &[]), "NUMA", Level::Note, "nodes 0-1");
        says(&facts(&[0, 1], &[]), "cores", Level::Note, "core 0 is a worker's and control's");
        says(
            &facts(&[1], &[("/sys/fs/cgroup/cpu.max", "150000 100000")]),
            "CPU quota",
            Level::Ok,
            "1.5",
        );
        let without = judge(&facts(&[1], &[("/sys/fs/cgroup/cpu.max", "max 100000")]));
        assert!(without.iter().all(|finding| finding.topic != "CPU quota"));
    }

    #[test]
    fn interrupts_that_gather_on_one_worker() {
        let table = |one: u64, two: u64| {
            format!(
                "           CPU0       CPU1       CPU2\n \
                 24:   9000000   {one}   10   IO-APIC   5-edge   ACPI:Ged\n \
                 30:   5   {one}   {two}   PCI-MSIX-0000:00:04.0   1-edge   virtio3-rx\n\
                 NMI:   0   0   0   Non-maskable interrupts\n\
                 LOC:   0   900000000   0   Local timer interrupts\n"
            )
        };
        let skewed = table(2_000_000, 100_000);
        let with = |workers: &[usize], table: &str| {
            let files = [("/proc/interrupts", table)];
            interrupts(&facts(workers, &files)).unwrap()
        };
        let found = with(&[1, 2], &skewed);
        assert_eq!(found.level, Level::Warning, "{found:?}");
        assert!(found.text.contains("97 %") && found.text.contains("core 1"), "{found:?}");
        for (workers, table) in
            [(&[1][..], &skewed), (&[1, 2], &table(300_000, 290_000)), (&[1, 2], &table(5, 0))]
        {
            assert_eq!(with(workers, table).level, Level::Ok, "{table}");
        }
        assert_eq!(interrupts(&facts(&[1], &[("/proc/interrupts", "")])), None);
        assert_eq!(interrupts(&facts(&[1], &[("/proc/interrupts", "rubbish\n1: x")])), None);
    }
}
