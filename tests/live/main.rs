//! The real binary over real sockets: what issue and documentation promise, seen from outside.
//!
//! `BALANCER_VERIFY_REQUESTS=1000000` makes `soak` the full run (`cargo test --release --test live soak`);
//! `BALANCER_LIVE_FULL=1` gives `memory` and `cache_coherence` their full sizes.

#[path = "../support/mod.rs"]
mod support;

mod access_log;
mod admin;
mod agent_link;
mod basics;
mod breakage;
mod cache_coherence;
mod cache_fills;
mod cache_hits;
mod cache_memory;
mod cache_purge;
mod cache_rules;
mod cache_stale;
mod drain;
mod edges;
mod frames;
mod health;
mod memory;
mod notify;
mod page;
mod per_ip;
mod pool;
mod proxies;
mod queue;
mod real_parts;
mod refusals;
mod scripts;
mod selftest;
mod shares;
mod soak;
mod start;
mod steering;
mod takeover;
mod top;
mod tunnel;
