//! Tables whose keys are hashes already: keyed per process, so that no client chooses where they fall.

use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

/// Hashes nothing again. One multiplication spreads numbers that are counted up rather than hashed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spread(u64);

pub(super) type ByHash = BuildHasherDefault<Spread>;

impl Hasher for Spread {
    fn write_u64(&mut self, word: u64) {
        // The odd number next to 2^64 divided by the golden ratio; hashbrown wants entropy at both ends.
        let product = u128::from(word) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0 ^ u64::from(*byte)));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Hashes keys, one for the process: every core must find the same home, and no client may choose it.
#[derive(Clone, Debug)]
pub struct KeyHasher(RandomState);

impl KeyHasher {
    /// A hasher of its own.
    pub fn new(keys: RandomState) -> Self {
        Self(keys)
    }

    /// The 64 bits of a key.
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.0.hash_one(key)
    }
}

/// Which of `cores` is home to a key. By the low half of the hash; the tables of a core go by other bits.
pub fn home_of(hash: u64, cores: usize) -> usize {
    (((hash & 0xffff_ffff) * cores as u64) >> 32) as usize
}
