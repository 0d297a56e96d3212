//! Listening sockets: one per worker and address, bound in core order before any worker starts.
//!
//! SO_REUSEPORT lets siblings share a port and would just as happily let a second copy of ourselves steal
//! connections. So the first socket of an address is bound and listens *without* it: a port somebody listens on is
//! refused then. Only afterwards SO_REUSEPORT is set on it, and the siblings join. The order matters twice: while
//! a socket is only bound, SO_REUSEADDR (wanted, so that TIME_WAIT never refuses a restart) lets a second copy bind
//! as well, and of two such copies exactly one passes `listen`; and the kernel takes a listening socket into the
//! siblings' group (`reuseport_add_sock`) when the first of them joins.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// The sockets of all workers.
#[derive(Debug)]
pub struct Listeners {
    /// For each worker, in core order, one socket per address, in the order given. Non-blocking, close-on-exec.
    pub workers: Vec<Vec<TcpListener>>,
    /// The addresses really bound, in the order given: port 0 replaced, `[::]` turned into `0.0.0.0` on a host
    /// without IPv6.
    pub addresses: Vec<SocketAddr>,
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct Error {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the kernel said.
    pub cause: io::Error,
}

/// Binds every address once for each of `workers` workers (at least 1). `[::]` takes IPv4 as well, unless
/// `0.0.0.0` with the same port is in the list; where the host has no IPv6 it means `0.0.0.0`. Port 0 takes a free
/// port, the same one for all workers.
pub fn bind(addresses: &[SocketAddr], workers: usize) -> Result<Listeners, Error> {
    debug_assert!(workers > 0);
    let mut listeners =
        Listeners { workers: (0..workers).map(|_| Vec::new()).collect(), addresses: Vec::new() };
    for &address in addresses {
        let ipv4_apart =
            addresses.contains(&SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()));
        let group =
            group(address, ipv4_apart, workers).map_err(|cause| Error { address, cause })?;
        listeners.addresses.push(group.0);
        for (worker, socket) in listeners.workers.iter_mut().zip(group.1) {
            worker.push(socket);
        }
    }
    Ok(listeners)
}

/// The sockets of one address and the address they got.
fn group(
    address: SocketAddr,
    is_v6_only: bool,
    workers: usize,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let first = match first(address, is_v6_only) {
        Err(error) if is_wildcard_v6(address) && !is_v6_only && lacks_ipv6(&error) => {
            first(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()), false)?
        }
        other => other?,
    };
    let bound = first.local_addr()?.as_socket().ok_or_else(|| {
        io::Error::other("the kernel returned an address that is not of the internet")
    })?;
    if workers > 1 {
        first.set_reuse_port(true)?;
    }
    let mut sockets = vec![first.into()];
    for _ in 1..workers {
        let sibling = socket(bound, is_v6_only)?;
        sibling.set_reuse_port(true)?;
        sibling.bind(&bound.into())?;
        sibling.listen(BACKLOG)?;
        sockets.push(sibling.into());
    }
    Ok((bound, sockets))
}

/// Whether `address` could be listened on right now. It is bound and let go; nobody can connect meanwhile.
///
/// # Errors
/// When somebody listens there, or the host does not have it.
pub fn probe(address: SocketAddr) -> Result<(), Error> {
    let bind = || {
        let socket = socket(address, false)?;
        socket.bind(&address.into())
    };
    match bind() {
        Err(cause) if is_wildcard_v6(address) && lacks_ipv6(&cause) => {
            probe(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        outcome => outcome.map_err(|cause| Error { address, cause }),
    }
}

/// The socket that claims the address.
fn first(address: SocketAddr, is_v6_only: bool) -> io::Result<Socket> {
    let socket = socket(address, is_v6_only)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn socket(address: SocketAddr, is_v6_only: bool) -> io::Result<Socket> {
    // Close-on-exec is socket2's default.
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Connections inherit it, a syscall less for each; it must be there before the first can be queued.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(is_v6_only)?;
    }
    Ok(socket)
}

fn is_wildcard_v6(address: SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V6(ip) if ip.is_unspecified())
}

/// IPv6 compiled out or disabled at boot, or disabled by sysctl.
fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Connections the kernel may hold for us until we accept them; `net.core.somaxconn` caps it.
pub const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::os::fd::AsRawFd;
    use std::sync::Barrier;
    use std::time::{Duration, Instant};

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// Accepts from all `listeners` until `total` came; returns how many each took.
    fn accept(
        listeners: &[Vec<TcpListener>],
        total: usize,
        kept: &mut Vec<TcpStream>,
    ) -> Vec<usize> {
        let mut taken = vec![0; listeners.len()];
        let deadline = Instant::now() + Duration::from_secs(10);
        while taken.iter().sum::<usize>() < total {
            assert!(Instant::now() < deadline, "only {taken:?} of {total} arrived");
            for (count, listener) in taken.iter_mut().zip(listeners) {
                while let Ok((stream, _)) = listener[0].accept() {
                    *count += 1;
                    kept.push(stream);
                }
            }
        }
        taken
    }

    #[test]
    fn connections_spread_over_all_siblings_the_first_included() {
        let bound = bind(&[loopback(0)], 3).unwrap();
        assert_eq!(bound.workers.len(), 3);
        let clients: Vec<_> =
            (0..90).map(|_| TcpStream::connect(bound.addresses[0]).unwrap()).collect();
        let taken = accept(&bound.workers, clients.len(), &mut Vec::new());
        // By chance alone one of three stays empty in (2/3)^90 < 10^-15 of all runs.
        assert!(taken.iter().all(|&count| count > 0), "{taken:?}");
    }

    #[test]
    fn a_second_copy_is_refused_whatever_the_number_of_workers() {
        for workers in [1, 2, 4] {
            let bound = bind(&[loopback(0)], workers).unwrap();
            for others in [1, 3] {
                let error = bind(&bound.addresses, others).unwrap_err();
                assert_eq!(error.cause.kind(), io::ErrorKind::AddrInUse);
                assert_eq!(error.address, bound.addresses[0]);
            }
        }
    }

    #[test]
    fn a_probe_tells_a_taken_address_and_leaves_no_trace() {
        let bound = bind(&[loopback(0)], 2).unwrap();
        let taken = probe(bound.addresses[0]).unwrap_err();
        assert_eq!(taken.cause.kind(), io::ErrorKind::AddrInUse);
        let addresses = bound.addresses.clone();
        drop(bound);
        probe(addresses[0]).unwrap();
        probe(addresses[0]).unwrap();
        bind(&addresses, 2).unwrap();
    }

    #[test]
    fn of_two_copies_that_start_at_once_one_is_refused() {
        for _ in 0..200 {
            let address = bind(&[loopback(0)], 1).unwrap().addresses;
            let gate = Barrier::new(2);
            let try_it = || {
                gate.wait();
                let bound = bind(&address, 2);
                gate.wait();
                bound.is_ok()
            };
            let won = std::thread::scope(|scope| {
                let other = scope.spawn(try_it);
                usize::from(try_it()) + usize::from(other.join().unwrap())
            });
            assert!(won <= 1, "both copies listen on {address:?}");
        }
    }

    #[test]
    fn time_wait_does_not_refuse_a_restart() {
        let bound = bind(&[loopback(0)], 2).unwrap();
        let addresses = bound.addresses.clone();
        let client = TcpStream::connect(addresses[0]).unwrap();
        let mut served = Vec::new();
        accept(&bound.workers, 1, &mut served);
        // We close first, so TIME_WAIT is on our side.
        drop(served);
        drop(client);
        drop(bound);
        bind(&addresses, 2).unwrap();
    }

    #[test]
    fn a_free_port_is_the_same_for_all_and_reported() {
        let bound = bind(&[loopback(0), loopback(0)], 2).unwrap();
        assert_ne!(bound.addresses[0], bound.addresses[1]);
        for worker in &bound.workers {
            let locals: Vec<_> =
                worker.iter().map(|listener| listener.local_addr().unwrap()).collect();
            assert_eq!(locals, bound.addresses);
        }
    }

    #[test]
    fn all_addresses_means_both_families() {
        let bound = bind(&["[::]:0".parse().unwrap()], 2).unwrap();
        let port = bound.addresses[0].port();
        let _client = TcpStream::connect(loopback(port)).unwrap();
        accept(&bound.workers, 1, &mut Vec::new());
    }

    #[test]
    fn both_wildcards_side_by_side_do_not_clash() {
        // The port must be free in both families: ask the kernel for one, let go, take it again.
        let port = bind(&["[::]:0".parse().unwrap()], 1).unwrap().addresses[0].port();
        let both = [
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            format!("[::]:{port}").parse().unwrap(),
        ];
        match bind(&both, 2) {
            Ok(bound) => assert_eq!(bound.addresses, both),
            Err(error) => assert!(lacks_ipv6(&error.cause), "{error:?}"),
        }
    }

    #[test]
    fn sockets_do_not_block_and_do_not_outlive_an_exec() {
        let bound = bind(&[loopback(0)], 2).unwrap();
        for listener in bound.workers.iter().flatten() {
            assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            let info = format!("/proc/self/fdinfo/{}", listener.as_raw_fd());
            let info = std::fs::read_to_string(info).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
            assert_ne!(flags & libc::O_CLOEXEC, 0);
        }
    }
}
