//! balancer: a thread-per-core, shared-nothing HTTP/1.1 reverse proxy and load balancer for Linux.
//!
//! The map, floor by floor; imports only point downwards (`tests/tidy.rs` holds the rules):
//!
//! | floor | modules | knows |
//! |---|---|---|
//! | roof | [`boot`], [`cli`], [`check`], [`demo`], [`notify`], [`top`] | argv, environment, threads |
//! | house | [`worker`], [`control`] | one core's traffic; the agent link and name resolution |
//! | door | [`io`] | glommio, epoll, sockets: the only floor with `unsafe` |
//! | ground | [`http`], [`cache`], [`balance`], [`access_log`], [`config`], [`metrics`], [`time`] | bytes, numbers, rules: pure |
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod access_log;
pub mod balance;
pub mod boot;
pub mod cache;
pub mod check;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod http;
pub mod io;
pub mod metrics;
pub mod notify;
pub mod time;
pub mod top;
pub mod worker;
