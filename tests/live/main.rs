//! The real binary over real sockets: what issue and documentation promise, seen from outside.

#[path = "../support/mod.rs"]
mod support;

mod selftest;
