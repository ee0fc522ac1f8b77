//! Where nodes and chunks are on the ring: a part of the disk format in all but name, for a change of it would move every
//! shard of every cluster.
//!
//! The ring is the 64-bit numbers. `mix` is the finaliser of SplitMix64, a bijection (Steele, Lea and Flood, "Fast
//! splittable pseudorandom number generators", 2014), and additions wrap:
//!
//! ```text
//! point i of a node     mix(mix(node id ^ "predNODE") + (i + 1) * 0x9e3779b97f4a7c15)
//! a chunk               mix(chunk id ^ "predCHNK")              both texts read as little-endian numbers
//! ```

use crate::ids::{Ino, NodeId};

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
const NODE: u64 = u64::from_le_bytes(*b"predNODE");
const CHUNK: u64 = u64::from_le_bytes(*b"predCHNK");

/// Where the node's point of that index is.
pub(super) const fn point(node: NodeId, index: u32) -> u64 {
    mix(mix(node.0 ^ NODE).wrapping_add((index as u64 + 1).wrapping_mul(GOLDEN_GAMMA)))
}

/// Where the chunk is.
pub(super) const fn chunk(chunk: Ino) -> u64 {
    mix(chunk.0 ^ CHUNK)
}

const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_golden() {
        // The first outputs of SplitMix64 from the seed 1234567, as published.
        let outputs = [1, 2, 3].map(|i| mix(1_234_567u64.wrapping_add(GOLDEN_GAMMA.wrapping_mul(i))));
        assert_eq!(outputs, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        assert_eq!(
            [point(NodeId(0), 0), point(NodeId(0), 1), point(NodeId(u64::MAX), 4095)],
            [5_485_314_429_184_876_853, 4_785_537_447_685_813_147, 9_670_232_056_857_317_619]
        );
        assert_eq!(
            [chunk(Ino(0)), chunk(Ino(1)), chunk(Ino::new(1, 77))],
            [8_858_540_726_184_620_540, 5_947_949_148_341_870_780, 12_106_953_323_029_739_302]
        );
    }
}
