//! What the host grants us: descriptors, locked memory, io_uring.
//!
//! It raises what may be raised, reports what is, and judges nothing; `boot::preflight` judges.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

/// The limits in force for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Descriptors (RLIMIT_NOFILE).
    pub nofile: u64,
    /// Bytes of locked memory (RLIMIT_MEMLOCK); `None` is without limit.
    pub memlock: Option<u64>,
}

/// Raises the soft limits of descriptors and locked memory to the hard ones, which needs no privilege, and
/// returns what then holds. Calling it again changes nothing.
pub fn raise_limits() -> Limits {
    let nofile = raise(libc::RLIMIT_NOFILE);
    let memlock = raise(libc::RLIMIT_MEMLOCK);
    Limits { nofile, memlock: (memlock != libc::RLIM_INFINITY).then_some(memlock) }
}

/// How long a listen backlog may be here (`net.core.somaxconn`), if the kernel tells.
pub fn somaxconn() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// What this process uses, as far as the kernel tells at little cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Address space.
    pub virtual_bytes: Option<u64>,
    /// User and system time of all threads.
    pub cpu: Option<Duration>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open descriptors; not told by kernels before 6.2, where counting them takes as long as there are many.
    pub descriptors: Option<u64>,
    /// Descriptors allowed.
    pub descriptors_max: Option<u64>,
}

/// Reads it from `/proc`.
pub fn usage() -> Usage {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let descriptors = std::fs::metadata("/proc/self/fd").map_or(0, |directory| directory.len());
    Usage {
        descriptors: (descriptors > 0).then_some(descriptors),
        descriptors_max: Some(soft_limit(libc::RLIMIT_NOFILE)).filter(|&limit| limit > 0),
        ..usage_in(&stat, page_bytes()).unwrap_or_default()
    }
}

/// What a line of `/proc/PID/stat` says; its fields are counted behind the name in parentheses.
fn usage_in(stat: &str, page_bytes: u64) -> Option<Usage> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    Some(Usage {
        cpu: Some(Duration::from_millis((number(11)? + number(12)?) * MS_PER_TICK)),
        threads: number(17),
        virtual_bytes: number(20),
        resident_bytes: number(21).map(|pages| pages * page_bytes),
        ..Usage::default()
    })
}

fn page_bytes() -> u64 {
    // SAFETY: sysconf takes a number and returns one.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Why there is no io_uring for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// EPERM or EACCES: a seccomp filter, a security module, or `kernel.io_uring_disabled`.
    Refused,
    /// ENOSYS: not in this kernel, or hidden by a sandbox.
    Absent,
    /// io_uring is there but lacks what came with Linux 5.7.
    TooOld,
    /// ENOMEM: the ring does not fit the locked memory this user has left (kernels before 5.12 charge it there),
    /// or the control group's memory.
    NoMemory,
    /// Anything else, as an errno.
    Other(i32),
}

impl RingError {
    fn from_errno(errno: i32) -> Self {
        match errno {
            libc::EPERM | libc::EACCES => Self::Refused,
            libc::ENOSYS => Self::Absent,
            libc::ENOMEM => Self::NoMemory,
            other => Self::Other(other),
        }
    }
}

/// Makes one ring of the size an executor uses and closes it again. An executor that cannot have its ring
/// panics; asking first is the only way to say why. Whether the limit on locked memory applies at all depends on
/// kernel and privilege (CAP_IPC_LOCK, 5.12), so making a ring is the honest test.
pub fn probe_io_uring() -> Result<(), RingError> {
    let (_ring, features) = ring()?;
    if features & FEAT_FAST_POLL == 0 { Err(RingError::TooOld) } else { Ok(()) }
}

/// A ring, and the features the kernel says it has.
fn ring() -> Result<(OwnedFd, u32), RingError> {
    let mut params = [0_u32; PARAMS_WORDS];
    // SAFETY: io_uring_setup(2) takes an entry count and a pointer to a `struct io_uring_params`: 120 bytes of
    // 32-bit words, zeroed, aligned and writable here for the length of the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_io_uring_setup, RING_ENTRIES, params.as_mut_ptr()) };
    let Ok(fd @ 0..) = i32::try_from(answer) else {
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        return Err(RingError::from_errno(errno));
    };
    // SAFETY: the syscall has just made this descriptor for us; nobody else knows of it.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, params[FEATURES_WORD]))
}

/// The soft limit in force; 0 when the kernel does not tell.
fn soft_limit(resource: libc::__rlimit_resource_t) -> u64 {
    limit(resource).map_or(0, |limit| limit.rlim_cur)
}

fn limit(resource: libc::__rlimit_resource_t) -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid, writable `struct rlimit`.
    (unsafe { libc::getrlimit(resource, &mut limit) } == 0).then_some(limit)
}

/// Raises one soft limit to its hard one and returns the soft limit in force; 0 when the kernel does not tell.
fn raise(resource: libc::__rlimit_resource_t) -> u64 {
    let Some(limit) = limit(resource) else { return 0 };
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: `raised` is a valid `struct rlimit` that the call only reads.
    let is_raised = unsafe { libc::setrlimit(resource, &raised) } == 0;
    if is_raised { raised.rlim_cur } else { limit.rlim_cur }
}

/// USER_HZ is 100 wherever Linux runs this.
const MS_PER_TICK: u64 = 10;
/// Submission entries of a glommio ring.
const RING_ENTRIES: libc::c_uint = 128;
/// `struct io_uring_params` in 32-bit words: ten scalars, then two offset blocks of ten words each.
const PARAMS_WORDS: usize = 30;
/// Index of `features` among them.
const FEATURES_WORD: usize = 5;
/// IORING_FEAT_FAST_POLL, Linux 5.7: the last feature bit glommio's oldest kernel (5.8) has.
const FEAT_FAST_POLL: u32 = 1 << 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_twice_is_raising_once() {
        let first = raise_limits();
        assert!(first.nofile > 0);
        assert_eq!(raise_limits(), first);
    }

    #[test]
    fn usage_is_read_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 150 0 0 0 120 34 0 0 20 0 3 0 100 8192 5 1";
        let usage = usage_in(stat, 4096).unwrap();
        assert_eq!(usage.cpu, Some(Duration::from_millis(1540)));
        assert_eq!((usage.threads, usage.virtual_bytes), (Some(3), Some(8192)));
        assert_eq!(usage.resident_bytes, Some(20_480));
        assert_eq!(usage_in("7 (a", 1), None);
        assert!(super::usage().resident_bytes.is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn each_refusal_has_its_own_name() {
        let table = [
            (libc::EPERM, RingError::Refused),
            (libc::EACCES, RingError::Refused),
            (libc::ENOSYS, RingError::Absent),
            (libc::ENOMEM, RingError::NoMemory),
            (libc::EMFILE, RingError::Other(libc::EMFILE)),
        ];
        for (errno, error) in table {
            assert_eq!(RingError::from_errno(errno), error);
        }
    }
}
