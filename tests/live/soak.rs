//! The verifier through the proxy: identity, order and every body byte, on one worker core and on two.
//!
//! 20,000 requests each by default. The full run:
//! `BALANCER_VERIFY_REQUESTS=1000000 cargo test --release --test live soak -- --nocapture`;
//! `BALANCER_VERIFY_CORES=0-3` replaces both core lists, `BALANCER_VERIFY_SEED` the plan.

use std::time::Instant;

use crate::support::balancer::{Balancer, allowed_cores};
use crate::support::origin::Origin;
use crate::support::verify::{Plan, verify};

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, not a number")),
        Err(_) => default,
    }
}

fn soak(cores: &str) {
    let cores = std::env::var("BALANCER_VERIFY_CORES").unwrap_or_else(|_| cores.to_owned());
    let control = allowed_cores()[0].to_string();
    let origins = [Origin::start("a"), Origin::start("b"), Origin::start("c")];
    origins.iter().for_each(Origin::forget);
    let [a, b, c] = &origins;
    let flags = ["--cores", &cores, "--control-core", &control];
    let balancer = Balancer::before(&[(a, 90), (b, 60), (c, 30)], &flags);
    let plan = Plan {
        requests: number("BALANCER_VERIFY_REQUESTS", 20_000),
        clients: 16,
        seed: number("BALANCER_VERIFY_SEED", 1),
        body_bytes_max: 64 << 20,
        is_proxied: true,
    };
    let started = Instant::now();
    let verdict = verify(balancer.address(), &plan);
    eprintln!("cores {cores}: {:?} for {verdict:#?}", started.elapsed());
    verdict.assert_flawless();
    assert_eq!(
        verdict.answered + verdict.abandoned,
        plan.requests,
        "every request has one outcome"
    );
    assert_eq!(verdict.by_origin.len(), 3, "all origins took part: {verdict:?}");
    for origin in &origins {
        assert_eq!(
            origin.malformed(),
            Vec::<String>::new(),
            "what the origins were sent is strict"
        );
    }
}

#[test]
fn every_answer_is_right_on_one_core() {
    soak(&allowed_cores()[0].to_string());
}

#[test]
fn every_answer_is_right_on_two_cores() {
    match allowed_cores()[..] {
        [first, second, ..] => soak(&format!("{first},{second}")),
        _ => eprintln!("SKIPPED: this host offers one core"),
    }
}
