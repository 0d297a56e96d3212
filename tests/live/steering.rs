//! Which core serves a connection, on the real kernel.

use std::time::Duration;

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::per_core::{of_cores, of_cores_once, two_cores};
use crate::support::wait;

#[test]
fn sixteen_long_connections_on_two_cores_are_level() {
    let origin = Origin::start("a");
    for flags in [&["--steer", "accept"][..], &[]] {
        let Some(balancer) = two_cores(&origin, flags) else { return };
        let mut clients: Vec<_> = (0..16).map(|_| Client::connect(balancer.address())).collect();
        let connections = of_cores(&balancer, "balancer_connections", 16.0);
        eprintln!("16 connections on two cores: {connections:?}");
        assert!(connections.iter().all(|n| *n <= 1.25 * 8.0), "{connections:?}");
        for client in clients.iter_mut().chain(&mut [Client::connect(balancer.address())]) {
            assert_eq!(client.get("/bytes/100").status(), 200);
        }
    }
}

#[test]
fn a_full_core_gives_what_waits_to_the_other() {
    let origin = Origin::start("a");
    let Some(balancer) = two_cores(&origin, &["--max-connections", "8"]) else { return };
    // By the kernel's hash alone one of 32 sets of eight fits four places on each core.
    for _ in 0..5 {
        let mut clients: Vec<_> = (0..8).map(|_| Client::connect(balancer.address())).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/bytes/10").status(), 200));
        assert_eq!(of_cores(&balancer, "balancer_connections", 8.0), [4.0, 4.0]);
        let mut ninth = Client::connect(balancer.address());
        ninth.set_patience(Duration::from_millis(100));
        assert!(ninth.ask("GET", "/", "", b"").is_err(), "the limit is kept");
        ninth.set_patience(Duration::from_secs(10));
        drop(clients.pop());
        assert_eq!(ninth.response("GET").expect("its turn has come").status(), 200);
        drop((clients, ninth));
        of_cores(&balancer, "balancer_connections", 0.0);
    }
}

#[test]
fn without_steering_connections_stay_where_the_kernel_puts_them() {
    let origin = Origin::start("a");
    for how in ["none", "cpu"] {
        let Some(balancer) = two_cores(&origin, &["--steer", how]) else { return };
        let mut clients: Vec<_> = (0..64).map(|_| Client::connect(balancer.address())).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/bytes/10").status(), 200));
        let connections = of_cores(&balancer, "balancer_connections", 64.0);
        eprintln!("64 connections on two cores, --steer {how}: {connections:?}");
        of_cores(&balancer, "balancer_connections_steered_total", 0.0);
        assert_eq!(of_cores(&balancer, "balancer_connections_accepted_total", 64.0), connections);
    }
}

#[test]
fn quiet_cores_use_each_others_connections() {
    let origin = Origin::start("a");
    let Some(balancer) = two_cores(&origin, &["--cache", "off"]) else { return };
    // Level: one on each core.
    let mut clients: Vec<_> = (0..2).map(|_| Client::connect(balancer.address())).collect();
    of_cores(&balancer, "balancer_connections", 2.0);
    for n in 0..20 {
        assert_eq!(clients[n % 2].get("/bytes/10").status(), 200);
        // Long enough for it to go cold, on a machine that has the time.
        assert!(!wait::happens(Duration::from_millis(300), || origin.connections() > 2));
    }
    let adopted = of_cores_once(&balancer, "balancer_upstream_adopted_total", |n| n >= 10.0);
    let connects = of_cores_once(&balancer, "balancer_upstream_connects_total", |n| n >= 1.0);
    eprintln!("20 requests in turn: {connects:?} connects, {adopted:?} adopted by each core");
    assert!(adopted.iter().all(|n| *n > 0.0), "{adopted:?}");
}
