//! Connections to the worker whose core received them (SO_ATTACH_REUSEPORT_CBPF, socket(7)).
//!
//! With network queues pinned to the workers' cores a packet is then received, worked on and answered on one core. The
//! kernel asks a small program, once per connection, for the number of a socket of the group; sockets are numbered in
//! the order in which they joined, which is core order ([`listen::bind`](super::listen::bind)).
#![allow(unsafe_code)]

use std::io::{Error, Result};
use std::net::TcpListener;
use std::os::fd::AsRawFd;

/// Which worker, counted in core order, gets what a core receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The kernel's number of the core.
    pub cpu: usize,
    /// The worker.
    pub worker: usize,
}

/// Has the kernel follow `routes` for the group of `workers` sockets that `listener` belongs to; all of them must have
/// joined. What other cores receive is dealt out by their number.
///
/// # Errors
/// When the kernel refuses the program.
pub fn attach(listener: &TcpListener, routes: &[Route], workers: usize) -> Result<()> {
    let mut program = program(routes, workers);
    let length = u16::try_from(program.len()).map_err(Error::other)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: `filter` is a sock_fprog that describes `program`; both outlive the call, and the kernel copies them.
    let outcome = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if outcome < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Load the core's number; for each route, if it is that one, return the worker; otherwise the number modulo `workers`.
fn program(routes: &[Route], workers: usize) -> Vec<libc::sock_filter> {
    let step = |code: u32, if_false: u8, k: usize| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: if_false,
        k: k as u32,
    };
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, CPU)];
    for Route { cpu, worker } in routes.iter().take(ROUTES_MAX) {
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, *cpu));
        program.push(step(libc::BPF_RET | libc::BPF_K, 0, *worker));
    }
    program.push(step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, workers.max(1)));
    program.push(step(libc::BPF_RET | libc::BPF_A, 0, 0));
    program
}

/// Where a program finds the number of the core it runs on: an offset that no packet has.
const CPU: usize = (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32 as usize;
/// A program may have 4096 steps.
const ROUTES_MAX: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::affinity::Cpus;
    use crate::io::listen;
    use crate::io::{executor, wake::Bell};
    use std::net::{SocketAddr, TcpStream};
    use std::time::{Duration, Instant};

    /// Which worker got the connection of `client`.
    fn taken_by(workers: &[Vec<TcpListener>]) -> usize {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            assert!(Instant::now() < deadline, "nobody got it");
            if let Some(worker) = workers.iter().position(|w| w[0].accept().is_ok()) {
                return worker;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn sockets_are_numbered_in_core_order() {
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let bound = listen::bind(&[loopback], 3).unwrap();
        for worker in [2, 0, 1, 2] {
            let routes: Vec<_> =
                Cpus::of_process().iter().map(|cpu| Route { cpu: cpu.id, worker }).collect();
            attach(&bound.workers[0][0], &routes, 3).unwrap();
            for _ in 0..20 {
                let _client = TcpStream::connect(bound.addresses[0]).unwrap();
                assert_eq!(taken_by(&bound.workers), worker);
            }
        }
    }

    #[test]
    fn the_core_that_receives_decides() {
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let cpus: Vec<usize> = Cpus::of_process().iter().map(|cpu| cpu.id).take(4).collect();
        let bound = listen::bind(&[loopback], cpus.len() + 1).unwrap();
        let routes: Vec<_> =
            cpus.iter().enumerate().map(|(n, cpu)| Route { cpu: *cpu, worker: n + 1 }).collect();
        attach(&bound.workers[1][0], &routes, cpus.len() + 1).unwrap();
        for Route { cpu, worker } in routes {
            let to = bound.addresses[0];
            // What a core sends to itself it receives.
            let client = std::thread::spawn(move || {
                let connect = async move |_| TcpStream::connect(to).unwrap();
                executor::run(Some(cpu), Bell::new().unwrap(), connect).unwrap()
            });
            let _client = client.join().unwrap();
            assert_eq!(taken_by(&bound.workers), worker, "core {cpu}");
        }
    }

    #[test]
    fn the_largest_host_fits_a_program() {
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let bound = listen::bind(&[loopback], 2).unwrap();
        let routes: Vec<_> = (0..10_000).map(|cpu| Route { cpu, worker: cpu % 2 }).collect();
        attach(&bound.workers[0][0], &routes, 2).unwrap();
    }
}
