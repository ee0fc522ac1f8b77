//! Seeded randomness: splitmix64, and bodies that are a function of their id, so that nobody has to keep them.

use std::time::{SystemTime, UNIX_EPOCH};

/// A small seeded generator (splitmix64). Equal seeds give equal streams.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator for `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// A generator for the test `name`; its seed is `PREDASTORE_TEST_SEED` or the clock, and is printed.
    pub fn for_test(name: &str) -> Rng {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos() as u64);
        let seed = crate::knobs::number("PREDASTORE_TEST_SEED", now);
        crate::knobs::say(&format!("{name}: PREDASTORE_TEST_SEED={seed}"));
        Rng(seed)
    }

    /// Any 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; `bound` is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// One of `choices`, which is not empty.
    pub fn choose<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// Overwrites `buffer`.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    /// A string of `len` characters from `alphabet` (ASCII).
    pub fn text(&mut self, alphabet: &[u8], len: usize) -> String {
        (0..len).map(|_| *self.choose(alphabet) as char).collect()
    }
}

/// The `len_bytes` bytes that belong to `id`; different ids give different bytes from the first eight on.
pub fn body(id: u64, len_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; len_bytes];
    Rng::new(id).fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_a_function_of_its_id() {
        assert_eq!(body(7, 100), body(7, 100));
        assert_ne!(body(7, 100), body(8, 100));
        assert_eq!(body(7, 100)[..50], body(7, 50)[..]);
    }
}
