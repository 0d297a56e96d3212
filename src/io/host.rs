//! What the host grants us: descriptors, locked memory, io_uring.
//!
//! It raises what may be raised, reports what is, and judges nothing; `boot::preflight` judges.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

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

/// Raises one soft limit to its hard one and returns the soft limit in force; 0 when the kernel does not tell.
fn raise(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid, writable `struct rlimit`.
    if unsafe { libc::getrlimit(resource, &mut limit) } != 0 {
        return 0;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: `raised` is a valid `struct rlimit` that the call only reads.
    let is_raised = unsafe { libc::setrlimit(resource, &raised) } == 0;
    if is_raised { raised.rlim_cur } else { limit.rlim_cur }
}

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
