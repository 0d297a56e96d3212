//! How many connections one address may have in the whole process (`--max-connections-per-ip`).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::support::balancer::Balancer;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::per_core::{of_cores, two_cores};
use crate::support::wait;

const SOON: Duration = Duration::from_secs(10);
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Whether the client gets an answer, and not the end of its connection.
fn is_served(client: &mut Client) -> bool {
    client.ask("GET", "/bytes/10", "", b"").is_ok_and(|answer| answer.status() == 200)
}

#[test]
fn an_address_has_its_number_over_all_cores_and_a_place_again_after_a_close() {
    let origin = Origin::start("a");
    for steer in ["accept", "none"] {
        let flags = ["--steer", steer, "--max-connections-per-ip", "6"];
        let Some(balancer) = two_cores(&origin, &flags) else { return };
        let address = balancer.address();
        let mut clients: Vec<_> = (0..6).map(|_| Client::connect(address)).collect();
        assert!(clients.iter_mut().all(is_served));
        let each = of_cores(&balancer, "balancer_connections", 6.0);
        eprintln!("--steer {steer}: {each:?}");
        if steer == "accept" {
            assert!(each.iter().all(|n| *n > 0.0), "{each:?}");
        }
        // Some of these come to either core.
        for _ in 0..20 {
            assert!(!is_served(&mut Client::connect(address)), "one too many");
        }
        of_cores(&balancer, "balancer_connections_refused_total", 20.0);
        // Others are none the worse, nor are those that are in.
        let mut others: Vec<_> = (0..6).map(|_| Client::connect_from(OTHER, address)).collect();
        assert!(others.iter_mut().all(is_served));
        assert!(!is_served(&mut Client::connect_from(OTHER, address)));
        assert!(clients.iter_mut().all(is_served));
        for _ in 0..10 {
            drop(clients.remove(0));
            wait::until("a place is free", SOON, || {
                let mut client = Client::connect(address);
                let is_in = is_served(&mut client);
                if is_in {
                    clients.push(client);
                }
                is_in
            });
            assert!(!is_served(&mut Client::connect(address)), "and no second one");
        }
        drop((clients, others));
        of_cores(&balancer, "balancer_connections", 0.0);
        let told = balancer.warnings();
        assert!(told.iter().any(|line| line.contains("127.0.0.1 has as many")), "{told:?}");
        // Each doubling is told on each core, and not each of those that were refused.
        assert!(told.len() < 31, "{told:?}");
    }
}

#[test]
fn the_first_come_in_at_once_and_never_too_many() {
    let origin = Origin::start("a");
    let flags = ["--steer", "accept", "--max-connections-per-ip", "5"];
    let Some(balancer) = two_cores(&origin, &flags) else { return };
    let address = balancer.address();
    for n in 1..=20 {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 1, n));
        let crowd = || {
            let mut clients: Vec<_> = (0..5).map(|_| Client::connect_from(from, address)).collect();
            clients.retain_mut(is_served);
            clients
        };
        let served = std::thread::scope(|scope| {
            let crowds: Vec<_> = (0..4).map(|_| scope.spawn(crowd)).collect();
            crowds.into_iter().flat_map(|crowd| crowd.join().expect("it ends")).collect::<Vec<_>>()
        });
        assert_eq!(served.len(), 5, "{from}");
        drop(served);
        // However they ended: all places are free again.
        wait::until("all may come again", SOON, || crowd().len() == 5);
    }
}

#[test]
fn a_trusted_proxy_comes_in_the_name_of_many() {
    let origin = Origin::start("a");
    let flags = ["--max-connections-per-ip", "1", "--trusted-proxies", "127.0.0.2"];
    let balancer = Balancer::before(&[(&origin, 50)], &flags);
    let address = balancer.address();
    let mut many: Vec<_> = (0..5).map(|_| Client::connect_from(OTHER, address)).collect();
    assert!(many.iter_mut().all(is_served));
    let mut one = Client::connect(address);
    assert!(is_served(&mut one) && !is_served(&mut Client::connect(address)));
}

#[test]
fn without_a_limit_there_is_none() {
    let origin = Origin::start("a");
    for flags in [&[][..], &["--max-connections-per-ip", "off"]] {
        let balancer = Balancer::before(&[(&origin, 50)], flags);
        let mut many: Vec<_> = (0..100).map(|_| Client::connect(balancer.address())).collect();
        assert!(many.iter_mut().all(is_served));
        assert!(balancer.warnings().is_empty());
    }
}
