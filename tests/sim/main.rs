//! Deterministic simulation: the real worker code on memory pipes, in virtual time, under a seed.
//!
//! `exec` runs tasks in an order of the seed's choosing, `kernel` is the network and the kernel's half of a socket,
//! `driver` the readiness bits, `io` the seam. At the other end of the wire stand scripted `client`s and `backend`s
//! that read and write by `wire`'s slow and strict rules and report to the `ledger`, which judges. `toy` is a naive
//! proxy with flaws to order: it proves that the ledger sees them.
//!
//! `SIM_SEED=n` replays one seed, `SIM_SEEDS=n` sets how many each scenario runs, `SIM_TRACE=n` how many lines of
//! what happened are shown after a failure.

mod backend;
mod client;
mod driver;
mod exec;
mod house;
mod io;
mod kernel;
mod ledger;
mod peer;
mod runner;
mod town;
mod toy;
mod trace;
mod weather;
mod wire;

mod contract;
mod contract_ends;
mod determinism;
mod judging;

mod scenarios;
