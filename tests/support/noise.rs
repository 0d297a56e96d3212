//! Bodies that can be produced and checked at any offset by copy and compare, so that a debug build keeps up.
//!
//! A body is a stretch of one fixed random ring, entered at a place that its seed decides. The period is a prime,
//! so that no buffer or chunk size divides it and a lost, doubled or exchanged piece shows.

use std::sync::LazyLock;

use rand::{RngCore, SeedableRng, rngs::SmallRng};

/// The longest piece of the body `seed` at `offset`, at most `max` bytes (as `u64`, since bodies may be large).
pub fn stretch(seed: u64, offset: u64, max: u64) -> &'static [u8] {
    let start = ((mix(seed) % PERIOD as u64 + offset % PERIOD as u64) % PERIOD as u64) as usize;
    let length = max.min((PERIOD - start) as u64).min(STRETCH_MAX) as usize;
    &RING[start..start + length]
}

/// The whole body `seed` of `length` bytes.
pub fn body(seed: u64, length: u64) -> Vec<u8> {
    let mut whole = Vec::with_capacity(length as usize);
    append(&mut whole, seed, length);
    whole
}

/// Appends the first `length` bytes of the body `seed`.
pub fn append(into: &mut Vec<u8>, seed: u64, length: u64) {
    let mut done = 0;
    while done < length {
        let piece = stretch(seed, done, length - done);
        into.extend_from_slice(piece);
        done += piece.len() as u64;
    }
}

/// Whether `bytes` are those of the body `seed` from `offset` on.
pub fn is_at(seed: u64, offset: u64, bytes: &[u8]) -> bool {
    let mut done = 0;
    while done < bytes.len() {
        let piece = stretch(seed, offset + done as u64, (bytes.len() - done) as u64);
        if bytes[done..done + piece.len()] != *piece {
            return false;
        }
        done += piece.len();
    }
    true
}

/// FNV-1a, 64 bits, continued from `state` (start with [`HASH_START`]).
pub fn hash(state: u64, bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(state, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Where [`hash`] begins.
pub const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

/// The finaliser of splitmix64: neighbouring seeds land far apart.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

static RING: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut ring = vec![0; PERIOD];
    SmallRng::seed_from_u64(2).fill_bytes(&mut ring);
    ring
});

const PERIOD: usize = 1_048_573;
const STRETCH_MAX: u64 = 256 * 1024;
