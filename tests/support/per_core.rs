//! A balancer on two worker cores, and what each of them counts.

use std::time::Duration;

use super::balancer::{Balancer, allowed_cores};
use super::client::Client;
use super::exposition;
use super::origin::Origin;
use super::wait;

/// Two worker cores before one origin; `None`, loudly, on a host that has only one.
pub fn two_cores(origin: &Origin, flags: &[&str]) -> Option<Balancer> {
    let [first, second, ..] = allowed_cores()[..] else {
        eprintln!("SKIPPED: this host offers one core");
        return None;
    };
    let cores = format!("{first},{second}");
    let always = ["--cores", &cores, "--admin", "127.0.0.1:0"];
    Some(Balancer::before(&[(origin, 50)], &[&always[..], flags].concat()))
}

/// A gauge or counter of each core, once its sum is `sum`.
pub fn of_cores(balancer: &Balancer, name: &str, sum: f64) -> Vec<f64> {
    of_cores_once(balancer, name, |n| n == sum)
}

/// A gauge or counter of each core, once `is_it` holds for the sum.
pub fn of_cores_once(balancer: &Balancer, name: &str, is_it: impl Fn(f64) -> bool) -> Vec<f64> {
    let mut admin = Client::connect(balancer.admin());
    wait::value(name, Duration::from_secs(10), || {
        let host = format!("Host: {}\r\n", balancer.admin());
        let request = format!("GET /metrics HTTP/1.1\r\n{host}\r\n");
        admin.send(request.as_bytes()).expect("sent");
        let page = admin.response("GET").expect("a page").text();
        let samples = exposition::read(&page).expect("well-formed");
        let of_core = |series: &str| series.starts_with(&format!("{name}{{"));
        let values: Vec<f64> =
            samples.iter().filter(|(series, _)| of_core(series)).map(|(_, n)| *n).collect();
        is_it(values.iter().sum()).then_some(values)
    })
}
