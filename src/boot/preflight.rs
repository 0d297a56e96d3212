//! What must hold of the host before a thread starts, judged from the facts of `io::host`.

use super::error::{Error, MEMLOCK_BYTES_MIN, NOFILE_MIN};
use crate::io::affinity::Cpus;
use crate::io::host::{self, Limits};
use crate::io::listen::BACKLOG;

/// The host as the banner shows it.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// The limits in force, raised as far as they go.
    pub limits: Limits,
    /// The listen backlog the kernel really grants.
    pub backlog: u32,
    /// The cores this process may use.
    pub cpus: Cpus,
    /// What works, but worse than it could: one sentence each.
    pub warnings: Vec<String>,
}

/// Raises the soft limits, looks at the host, and refuses what cannot work: too few descriptors, too little locked memory, no
/// io_uring.
pub fn preflight() -> Result<HostFacts, Error> {
    let limits = host::raise_limits();
    check_nofile(limits)?;
    // Before the probe: on old kernels the ring fails for the same reason with a vaguer word.
    check_memlock(limits)?;
    host::probe_io_uring().map_err(Error::Ring)?;
    let (backlog, warnings) = judge(limits, host::somaxconn());
    Ok(HostFacts { limits, backlog, cpus: Cpus::of_process(), warnings })
}

/// Whether the executors can lock the memory they need.
///
/// # Errors
/// When they cannot.
pub fn check_memlock(limits: Limits) -> Result<(), Error> {
    match limits.memlock {
        Some(bytes) if bytes < MEMLOCK_BYTES_MIN => Err(Error::Memlock(bytes)),
        _ => Ok(()),
    }
}

/// Whether there are descriptors enough to start.
///
/// # Errors
/// When there are not.
pub const fn check_nofile(limits: Limits) -> Result<(), Error> {
    if limits.nofile < NOFILE_MIN { Err(Error::Nofile(limits.nofile)) } else { Ok(()) }
}

/// The backlog granted, and what works but worse than it could, one sentence each.
pub fn judge(limits: Limits, somaxconn: Option<u32>) -> (u32, Vec<String>) {
    let mut warnings = Vec::new();
    if limits.nofile < NOFILE_COMFORT {
        warnings.push(format!(
            "only {} descriptors are allowed; a request takes two: try ulimit -n {NOFILE_ADVICE}, or \
             LimitNOFILE={NOFILE_ADVICE} in the unit",
            limits.nofile
        ));
    }
    let wanted = BACKLOG.unsigned_abs();
    let backlog = somaxconn.map_or(wanted, |granted| granted.min(wanted));
    if backlog < wanted {
        warnings.push(format!(
            "the kernel cuts the listen backlog to {backlog}: try sysctl net.core.somaxconn={wanted}"
        ));
    }
    (backlog, warnings)
}

/// Fewer descriptors than this are worth a warning.
const NOFILE_COMFORT: u64 = 4096;
/// What to raise them to.
const NOFILE_ADVICE: u64 = 1_048_576;

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(nofile: u64, memlock: Option<u64>) -> Limits {
        Limits { nofile, memlock }
    }

    #[test]
    fn too_little_locked_memory_is_refused() {
        assert!(matches!(check_memlock(limits(1, Some(65_536))), Err(Error::Memlock(65_536))));
        assert!(matches!(check_memlock(limits(1, Some(524_287))), Err(Error::Memlock(524_287))));
        assert!(check_memlock(limits(1, Some(524_288))).is_ok());
        assert!(check_memlock(limits(1, None)).is_ok());
    }

    #[test]
    fn too_few_descriptors_are_refused() {
        assert!(matches!(check_nofile(limits(63, None)), Err(Error::Nofile(63))));
        assert!(check_nofile(limits(64, None)).is_ok());
    }

    #[test]
    fn a_low_nofile_or_backlog_warns_and_no_more() {
        assert_eq!(judge(limits(4096, None), Some(4096)), (4096, vec![]));
        assert_eq!(judge(limits(u64::MAX, None), Some(65_535)), (4096, vec![]));
        assert_eq!(judge(limits(4096, None), None), (4096, vec![]));
        let (backlog, warnings) = judge(limits(1024, None), Some(128));
        assert_eq!(backlog, 128);
        assert!(
            warnings[0].contains("only 1024 descriptors") && warnings[0].contains("LimitNOFILE=")
        );
        assert!(warnings[1].contains("net.core.somaxconn=4096"));
        assert_eq!(warnings.len(), 2);
    }
}
