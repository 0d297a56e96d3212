//! What the live tests stand on: the real binary, scripted origins and agents, a strict client, a verifier.
//!
//! Nothing here trusts the proxy: parsing, framing and body bytes are checked by code that shares nothing with it.
//! Nothing here uses a fixed port; every wait has a condition and a deadline.

pub mod agent;
pub mod balancer;
pub mod browser;
pub mod cached;
pub mod client;
pub mod crowd;
pub mod exposition;
pub mod noise;
pub mod origin;
pub mod outpost;
pub mod parts;
pub mod per_core;
pub mod tmux;
pub mod traffic;
pub mod verify;
pub mod wait;
pub mod wire;
