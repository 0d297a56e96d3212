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
    /// Sockets in the smallest group of one address: as many as there are workers, unless they were inherited.
    pub siblings: usize,
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
    adopt(addresses, workers, &mut Vec::new(), None)
}

/// As [`bind`], taking those sockets of a running process that belong to an address (to port 0: those of any port). A surplus socket goes to a worker that has one already, since closing it would reset what is queued in it; and
/// a worker for whom there is none shares one, since whatever is queued in a new one were lost if its process does not
/// come to serve. All sockets in use are put into `kept` once more, in the order of their groups.
pub fn adopt(
    addresses: &[SocketAddr],
    workers: usize,
    inherited: &mut Vec<TcpListener>,
    mut kept: Option<&mut Vec<TcpListener>>,
) -> Result<Listeners, Error> {
    debug_assert!(workers > 0);
    let mut listeners = Listeners {
        workers: (0..workers).map(|_| Vec::new()).collect(),
        addresses: Vec::new(),
        siblings: usize::MAX,
    };
    for &address in addresses {
        let ipv4_apart =
            addresses.contains(&SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()));
        let refused = |cause| Error { address, cause };
        let (bound, group) = match inherited_group(address, inherited) {
            Some(inherited) => inherited,
            None => group(address, ipv4_apart, workers).map_err(refused)?,
        };
        listeners.addresses.push(bound);
        listeners.siblings = listeners.siblings.min(group.len());
        if let Some(kept) = &mut kept {
            for socket in &group {
                kept.push(socket.try_clone().map_err(refused)?);
            }
        }
        for worker in group.len()..workers {
            let shared = group[worker % group.len()].try_clone().map_err(refused)?;
            listeners.workers[worker].push(shared);
        }
        for (place, socket) in group.into_iter().enumerate() {
            listeners.workers[place % workers].push(socket);
        }
    }
    Ok(listeners)
}

/// Takes the sockets that are meant by `address`, and the address they have.
fn inherited_group(
    address: SocketAddr,
    inherited: &mut Vec<TcpListener>,
) -> Option<(SocketAddr, Vec<TcpListener>)> {
    let bound_to = |socket: &TcpListener| socket.local_addr().ok();
    let bound = inherited.iter().filter_map(bound_to).find(|&bound| is_meant(address, bound))?;
    let is_of_it = |socket: &mut TcpListener| bound_to(socket) == Some(bound);
    Some((bound, inherited.extract_if(.., is_of_it).collect()))
}

/// Whether somebody who asks for `address` means the sockets that have `bound`.
fn is_meant(address: SocketAddr, bound: SocketAddr) -> bool {
    let is_same = address.ip() == bound.ip()
        || (is_wildcard_v6(address) && bound.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    is_same && (address.port() == 0 || address.port() == bound.port())
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
    fn every_inherited_socket_is_served_whatever_the_number_of_workers() {
        for (before, after) in [(3, 3), (3, 2), (3, 1), (1, 2), (2, 5)] {
            let mut kept = Vec::new();
            let old = adopt(&[loopback(0)], before, &mut Vec::new(), Some(&mut kept)).unwrap();
            assert_eq!(kept.len(), before);
            let clients: Vec<_> =
                (0..60).map(|_| TcpStream::connect(old.addresses[0]).unwrap()).collect();
            let mut again = Vec::new();
            let new = adopt(&old.addresses, after, &mut kept, Some(&mut again)).unwrap();
            assert_eq!((new.addresses.clone(), again.len()), (old.addresses.clone(), before));
            // The order of the group, from one process to the next.
            let inode = |socket: &TcpListener| {
                let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
                std::fs::read_link(link).unwrap()
            };
            let first: Vec<_> = old.workers.iter().map(|worker| inode(&worker[0])).collect();
            assert_eq!(again.iter().map(inode).collect::<Vec<_>>(), first);
            drop(old);
            assert_eq!(new.workers.len(), after);
            assert!(new.workers.iter().all(|worker| !worker.is_empty()));
            let all: Vec<Vec<TcpListener>> =
                new.workers.into_iter().flatten().map(|socket| vec![socket]).collect();
            let mut streams = Vec::new();
            accept(&all, clients.len(), &mut streams);
        }
    }

    #[test]
    fn an_address_takes_its_own_sockets_and_no_others() {
        let (a, b) = (loopback(0), SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)));
        let mut kept = Vec::new();
        let old = adopt(&[a, b], 2, &mut Vec::new(), Some(&mut kept)).unwrap();
        // Another order, and one that is new.
        let wanted = [old.addresses[1], SocketAddr::from((Ipv4Addr::new(127, 0, 0, 3), 0)), a];
        let new = adopt(&wanted, 2, &mut kept, None).unwrap();
        assert_eq!((new.addresses[0], new.addresses[2]), (old.addresses[1], old.addresses[0]));
        assert_eq!(new.addresses[1].ip(), wanted[1].ip());
        for (wanted, bound, meant) in [
            ("[::]:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "[::]:80", false),
            ("[::]:80", "[::]:81", false),
            ("[::1]:0", "[::1]:81", true),
        ] {
            let (wanted, bound) = (wanted.parse().unwrap(), bound.parse().unwrap());
            assert_eq!(is_meant(wanted, bound), meant, "{wanted} {bound}");
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
