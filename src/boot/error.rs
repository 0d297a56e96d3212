//! Why the process cannot start, and what to do about it. Exit code 1: the host, not the configuration.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::io::handover;
use crate::io::host::RingError;
use crate::io::listen;

/// Why the process cannot start.
#[derive(Debug)]
pub enum Error {
    /// io_uring is not to be had.
    Ring(RingError),
    /// The limit on locked memory in bytes.
    Memlock(u64),
    /// The limit on descriptors.
    Nofile(u64),
    /// An address cannot be listened on.
    Listen(listen::Error),
    /// The admin listener's address cannot be.
    Admin(listen::Error),
    /// The kernel does not take `--steer cpu`.
    Steer(std::io::Error),
    /// The listeners cannot be taken over, or handed over later, by way of this path.
    Takeover(PathBuf, TakeoverFault),
    /// The access log's file cannot be opened.
    AccessLog(PathBuf, io::Error),
    /// A thread could not start, or ended without being told to: its name and why.
    ThreadDied(String, String),
}

/// What is wrong with a takeover.
#[derive(Debug)]
pub enum TakeoverFault {
    /// Its socket cannot be made or reached.
    Place(io::Error),
    /// There is something else at the path.
    NoSocket,
    /// The directory may be entered by others, or belongs to them.
    NotOurs,
    /// The running process listens on an address that this one is not to.
    Elsewhere(SocketAddr),
    /// The running process did not do its part.
    NotHandedOver(handover::Error),
    /// There is no backend that requests could go to, while the running process may have some.
    NoBackend,
}

impl Error {
    /// What the process ends with: 1, host or start (2 is the command line's).
    pub const fn exit_code(&self) -> u8 {
        1
    }

    /// One word for logs.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Ring(_) => "io_uring",
            Self::Memlock(_) => "memlock",
            Self::Nofile(_) => "nofile",
            Self::Listen(_) => "listen",
            Self::Admin(_) => "admin",
            Self::Steer(_) => "steer",
            Self::Takeover(..) => "takeover",
            Self::AccessLog(..) => "access_log",
            Self::ThreadDied(..) => "thread_died",
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    /// The whole message: what happened on the first line, then what is likely and what to try.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => write!(out, "error: {}", ring_text(*error)),
            Self::Memlock(bytes) => write!(
                out,
                "error: locked memory is limited to {}; at least {} is needed\n{MEMLOCK_REMEDY}",
                bytes_text(*bytes),
                bytes_text(MEMLOCK_BYTES_MIN),
            ),
            Self::Nofile(limit) => write!(
                out,
                "error: only {limit} descriptors are allowed; at least {NOFILE_MIN} are needed{NOFILE_REMEDY}",
            ),
            Self::Listen(error) => listen_text(error, out),
            Self::Admin(error) => admin_text(error, out),
            Self::Steer(cause) => write!(
                out,
                "error: the kernel does not take --steer cpu (SO_ATTACH_REUSEPORT_CBPF: {cause})\n  try     --steer accept"
            ),
            Self::Takeover(path, fault) => takeover_text(path, fault, out),
            Self::AccessLog(path, cause) => access_log_text(path, cause, out),
            Self::ThreadDied(name, cause) => {
                write!(out, "error: thread {name} ended: {cause}{}", thread_remedy(cause))
            }
        }
    }
}

fn ring_text(error: RingError) -> String {
    let refused = |reason: &str| format!("the kernel refuses io_uring (io_uring_setup: {reason})");
    match error {
        RingError::Refused => format!(
            "{}\n  likely  a container's default seccomp profile, or kernel.io_uring_disabled = 2\n  \
             try     docker run --security-opt seccomp=unconfined   or   sysctl kernel.io_uring_disabled=0",
            refused("operation not permitted"),
        ),
        RingError::Absent => format!(
            "the kernel has no io_uring (io_uring_setup: function not implemented)\n  \
             likely  a kernel without CONFIG_IO_URING, or a sandbox that hides it (gVisor)\n  \
             try     {KERNEL_REMEDY}",
        ),
        RingError::TooOld => format!(
            "the kernel's io_uring is too old (IORING_FEAT_FAST_POLL is missing)\n  \
             likely  a kernel before 5.8\n  try     {KERNEL_REMEDY}",
        ),
        RingError::NoMemory => format!(
            "{}\n  likely  the limit on locked memory (kernels before 5.12 charge rings to it), or the container's memory\n\
             {MEMLOCK_REMEDY}",
            refused("out of memory"),
        ),
        RingError::Other(errno @ libc::EMFILE) => {
            let text = std::io::Error::from_raw_os_error(errno).to_string();
            format!("{}{NOFILE_REMEDY}", refused(&text))
        }
        RingError::Other(errno) => format!(
            "{}\n  try     strace -e io_uring_setup balancer run   shows the call",
            refused(&std::io::Error::from_raw_os_error(errno).to_string()),
        ),
    }
}

fn listen_text(error: &listen::Error, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let listen::Error { address, cause } = error;
    let (ip, port) = (address.ip(), address.port());
    let free = SocketAddr::new(ip, if port == u16::MAX { port - 1 } else { port + 1 });
    let (what, remedy) = match cause.raw_os_error() {
        Some(libc::EADDRINUSE) if ip.is_unspecified() => {
            (format!("port {port} is taken"), format!("try --port {}", free.port()))
        }
        Some(libc::EADDRINUSE) => {
            (format!("port {port} of {ip} is taken"), format!("try --listen {free}"))
        }
        Some(libc::EACCES) => (
            format!("port {port} needs a privilege"),
            "try --port 8080, or AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit".to_owned(),
        ),
        Some(libc::EADDRNOTAVAIL) => (
            format!("no interface here has the address {ip}"),
            format!("try --port {port} for all addresses"),
        ),
        _ => (format!("cannot listen on {address}: {cause}"), "try another --listen".to_owned()),
    };
    write!(out, "{:<61}{remedy}", format!("error: {what}   "))
}

fn admin_text(error: &listen::Error, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let listen::Error { address, cause } = error;
    let (ip, port) = (address.ip(), address.port());
    let (what, remedy) = match cause.raw_os_error() {
        Some(libc::EADDRINUSE) => (
            format!("the admin address {address} is taken"),
            format!("try --admin {} for a free port, or --admin off", SocketAddr::new(ip, 0)),
        ),
        Some(libc::EACCES) => {
            (format!("the admin port {port} needs a privilege"), format!("try --admin {ip}:9900"))
        }
        Some(libc::EADDRNOTAVAIL) => (
            format!("no interface here has the admin address {ip}"),
            "try --admin 127.0.0.1:9900, or --admin off".to_owned(),
        ),
        _ => {
            let what = format!("cannot listen on the admin address {address}: {cause}");
            (what, "try another --admin, or --admin off".to_owned())
        }
    };
    write!(out, "{:<61}{remedy}", format!("error: {what}   "))
}

/// What helps a thread, if that is known; of what befell it only the text is left.
fn thread_remedy(cause: &str) -> &'static str {
    let is_out_of_descriptors = cause.contains(&format!("(os error {})", libc::EMFILE));
    if is_out_of_descriptors { NOFILE_REMEDY } else { "" }
}

fn takeover_text(path: &Path, fault: &TakeoverFault, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let path = path.display();
    match fault {
        TakeoverFault::Place(cause) => write!(
            out,
            "error: the takeover socket {path} cannot be had: {cause}\n  try     --takeover PATH in a directory that its user may write to, or RuntimeDirectory=balancer in the unit"
        ),
        TakeoverFault::NoSocket => write!(
            out,
            "error: {path} is no socket, and is left alone\n  try     another path behind --takeover"
        ),
        TakeoverFault::NotOurs => write!(
            out,
            "error: the directory {path} is not ours alone\n  try     chmod 700 {path}, if it is yours, or --takeover PATH"
        ),
        TakeoverFault::Elsewhere(address) => write!(
            out,
            "error: the balancer behind {path} listens on {address}, and this one is not to\n  try     the same --port and --listen as there, or another path behind --takeover"
        ),
        TakeoverFault::NotHandedOver(cause @ handover::Error::Version(_)) => write!(
            out,
            "error: the balancer behind {path} did not hand over: {cause}\n  try     stop it, then start this one"
        ),
        TakeoverFault::NotHandedOver(cause @ handover::Error::Stranger(_)) => write!(
            out,
            "error: the balancer behind {path} did not hand over: {cause}\n  try     as that user, or another path behind --takeover"
        ),
        TakeoverFault::NotHandedOver(cause) => write!(
            out,
            "error: the balancer behind {path} did not hand over: {cause}\n  likely  it stops, or hands over to another process\n  try     once more; it says in its log what happened"
        ),
        TakeoverFault::NoBackend => write!(
            out,
            "error: there is no usable backend, so nothing is taken over from the balancer behind {path}\n  likely  the agent cannot be reached or names none, or a name does not resolve\n  try     balancer check; the running one serves on with what it knows"
        ),
    }
}

fn access_log_text(path: &Path, cause: &io::Error, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let remedy = match cause.kind() {
        io::ErrorKind::NotFound => format!("mkdir -p {}", directory.display()),
        io::ErrorKind::PermissionDenied => {
            "a place that its user may write to, or LogsDirectory=balancer in the unit".to_owned()
        }
        _ => "another --access-log, - for standard output, or off".to_owned(),
    };
    write!(
        out,
        "error: the access log {} cannot be opened: {cause}\n  try     {remedy}",
        path.display()
    )
}

/// Bytes for people: `64 KiB`, `8 MiB`; a number that is no whole multiple keeps its smaller unit.
pub fn bytes_text(bytes: u64) -> String {
    let whole = |shift: u32| bytes >= 1 << shift && bytes.is_multiple_of(1 << shift);
    match () {
        () if whole(30) => format!("{} GiB", bytes >> 30),
        () if whole(20) => format!("{} MiB", bytes >> 20),
        () if whole(10) && bytes < 10 << 20 => format!("{} KiB", bytes >> 10),
        // A part of something: nobody counts its bytes.
        () if bytes >= 10 << 20 => format!("{} MiB", bytes >> 20),
        () => format!("{bytes} bytes"),
    }
}

/// What glommio insists on for each executor before it makes its three rings; it refuses below that even where the
/// kernel charges rings elsewhere.
pub const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// One worker and the control core hold about 30 before the first connection comes; below that, an executor that finds
/// none panics. More cores need more: then a thread ends, in words.
pub const NOFILE_MIN: u64 = 64;

const MEMLOCK_REMEDY: &str = "  try     ulimit -l 8192,  or  LimitMEMLOCK=infinity  in the unit";
const NOFILE_REMEDY: &str = "\n  try     ulimit -n 1048576,  or  LimitNOFILE=1048576  in the unit";
const KERNEL_REMEDY: &str = "Linux 5.8 or later, outside of such a sandbox";

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(address: &str, errno: i32) -> String {
        let cause = io::Error::from_raw_os_error(errno);
        Error::Listen(listen::Error { address: address.parse().unwrap(), cause }).to_string()
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        assert_eq!(
            Error::Memlock(64 * 1024).to_string(),
            "error: locked memory is limited to 64 KiB; at least 512 KiB is needed\n  \
             try     ulimit -l 8192,  or  LimitMEMLOCK=infinity  in the unit"
        );
        assert_eq!(
            Error::Ring(RingError::Refused).to_string(),
            "error: the kernel refuses io_uring (io_uring_setup: operation not permitted)\n  \
             likely  a container's default seccomp profile, or kernel.io_uring_disabled = 2\n  \
             try     docker run --security-opt seccomp=unconfined   or   sysctl kernel.io_uring_disabled=0"
        );
        let all = [RingError::Refused, RingError::Absent, RingError::TooOld, RingError::NoMemory];
        let others = [libc::EMFILE, libc::EFAULT].map(RingError::Other);
        for error in all.into_iter().chain(others) {
            let error = Error::Ring(error);
            let text = error.to_string();
            assert!(
                text.starts_with("error: the kernel") && text.contains("\n  try     "),
                "{text}"
            );
            assert_eq!(error.exit_code(), 1);
        }
    }

    #[test]
    fn a_taken_port_names_the_next() {
        let taken = "error: port 8080 is taken                                    try --port 8081";
        assert_eq!(listen("[::]:8080", libc::EADDRINUSE), taken);
        assert_eq!(listen("0.0.0.0:8080", libc::EADDRINUSE), taken);
        assert!(listen("[::]:65535", libc::EADDRINUSE).ends_with(" try --port 65534"));
        assert!(listen("127.0.0.1:80", libc::EADDRINUSE).ends_with(" try --listen 127.0.0.1:81"));
        assert!(listen("[::1]:80", libc::EADDRINUSE).ends_with(" try --listen [::1]:81"));
        assert!(listen("[::]:80", libc::EACCES).starts_with("error: port 80 needs a privilege   "));
        assert!(
            listen("192.0.2.1:80", libc::EADDRNOTAVAIL)
                .contains("no interface here has the address 192.0.2.1")
        );
        assert!(listen("192.0.2.1:80", libc::ENOBUFS).contains("cannot listen on 192.0.2.1:80: "));
    }

    #[test]
    fn the_admin_address_names_its_own_flag() {
        let text = |address: &str, errno: i32| {
            let cause = io::Error::from_raw_os_error(errno);
            Error::Admin(listen::Error { address: address.parse().unwrap(), cause }).to_string()
        };
        assert_eq!(
            text("127.0.0.1:9900", libc::EADDRINUSE),
            "error: the admin address 127.0.0.1:9900 is taken             \
             try --admin 127.0.0.1:0 for a free port, or --admin off"
        );
        for errno in [libc::EADDRINUSE, libc::EACCES, libc::EADDRNOTAVAIL, libc::ENOBUFS] {
            let text = text("[::1]:99", errno);
            assert!(text.starts_with("error: ") && text.contains("--admin "), "{text}");
        }
    }

    #[test]
    fn a_log_that_cannot_be_opened_says_what_to_do() {
        let text = |path: &str, errno: i32| {
            Error::AccessLog(path.into(), io::Error::from_raw_os_error(errno)).to_string()
        };
        let absent = text("/var/log/x/access.log", libc::ENOENT);
        assert!(
            absent.starts_with("error: the access log /var/log/x/access.log cannot be opened: ")
        );
        assert!(absent.ends_with("\n  try     mkdir -p /var/log/x"), "{absent}");
        assert!(text("a.log", libc::ENOENT).ends_with("mkdir -p ."));
        assert!(text("/a", libc::EACCES).ends_with("LogsDirectory=balancer in the unit"));
        assert!(text("/a", libc::EISDIR).ends_with("- for standard output, or off"));
    }

    #[test]
    fn too_few_descriptors_are_counted() {
        assert_eq!(
            Error::Nofile(8).to_string(),
            "error: only 8 descriptors are allowed; at least 64 are needed\n  \
             try     ulimit -n 1048576,  or  LimitNOFILE=1048576  in the unit"
        );
    }

    #[test]
    fn a_thread_without_descriptors_is_told_how_to_get_some() {
        let text = |errno: i32| {
            let cause = io::Error::from_raw_os_error(errno).to_string();
            Error::ThreadDied("control".into(), cause).to_string()
        };
        let starved = text(libc::EMFILE);
        assert!(starved.starts_with("error: thread control ended: Too many open files"));
        assert!(
            starved
                .ends_with("\n  try     ulimit -n 1048576,  or  LimitNOFILE=1048576  in the unit")
        );
        assert!(!text(libc::ENOSPC).contains("try"));
    }

    #[test]
    fn a_takeover_that_fails_says_what_to_do() {
        let silence = io::Error::from(io::ErrorKind::WouldBlock);
        for (fault, words) in [
            (TakeoverFault::Place(io::Error::from_raw_os_error(libc::EACCES)), "RuntimeDirectory="),
            (TakeoverFault::NoSocket, "another path"),
            (TakeoverFault::Elsewhere(([127, 0, 0, 1], 81).into()), "on 127.0.0.1:81"),
            (TakeoverFault::NotOurs, "chmod 700 /run/x"),
            (
                TakeoverFault::NotHandedOver(handover::Error::Version(2)),
                "version 2, and this one in 1",
            ),
            (TakeoverFault::NotHandedOver(handover::Error::Stranger(7)), "belongs to user 7"),
            (TakeoverFault::NotHandedOver(silence.into()), "silent for too long"),
            (TakeoverFault::NoBackend, "serves on"),
        ] {
            let text = Error::Takeover("/run/x".into(), fault).to_string();
            assert!(text.starts_with("error: ") && text.contains("/run/x"), "{text}");
            assert!(text.contains(words) && text.contains("\n  try     "), "{text}");
        }
    }

    #[test]
    fn bytes_read_well() {
        let table = [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (1536, "1536 bytes"),
            (8 << 20, "8 MiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(bytes_text(bytes), text);
        }
        assert_eq!(bytes_text(3 << 30), "3 GiB");
    }
}
