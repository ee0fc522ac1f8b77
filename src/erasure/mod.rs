//! Erasure coding: how a chunk is cut over k+m shards, and the parity that makes any k of them enough. Pure.
//!
//! - [`Scheme`]: the k and the m of a layout.
//! - [`Geometry`]: which bytes of a chunk are in which stripe, shard and segment, and back.
//! - [`Codec`]: parity over the frames of a stripe; frames that are missing, from any k that are there.
//!
//! Invariants
//! - Both are part of the disk format: a chunk written under a scheme is cut and coded the same way for ever.
//! - Codec and geometry know nothing of what a frame says; [`crate::segment`] does.

mod codec;
mod geometry;

use std::fmt;

pub use codec::{Codec, Plan};
pub use geometry::{Cover, Geometry, Location, Segment, Stripe};

/// The most shards that a chunk may have.
pub const SHARD_COUNT_MAX: usize = 32;

/// What cannot be encoded, decoded or cut.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// No such scheme: k of 0, or more shards than [`SHARD_COUNT_MAX`].
    #[error("no layout has {data_count} data shards and {parity_count} parity shards")]
    Scheme {
        /// k.
        data_count: u8,
        /// m.
        parity_count: u8,
    },
    /// A chunk longer than [`crate::units::CHUNK_BYTES`].
    #[error("no chunk is {len_bytes} bytes long")]
    ChunkLength {
        /// What was asked for.
        len_bytes: u64,
    },
    /// Fewer frames of a stripe than it takes.
    #[error("{present_count} frames of a stripe are there, and {needed_count} are needed")]
    TooFewFrames {
        /// Frames that are there.
        present_count: usize,
        /// k.
        needed_count: usize,
    },
    /// A frame's length does not go with those of the others.
    #[error("the frame of shard {shard_index} has {len_bytes} bytes in a stripe of {stripe_len_bytes}")]
    FrameLength {
        /// Whose frame.
        shard_index: usize,
        /// How long it is.
        len_bytes: usize,
        /// The stripe's longest frame, as the parity frames have it.
        stripe_len_bytes: usize,
    },
}

/// How many shards hold a chunk's data, and how many hold parity: `rs(k,m)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Scheme {
    data_count: u8,
    parity_count: u8,
}

impl Scheme {
    /// `rs(data_count, parity_count)`.
    ///
    /// # Errors
    /// [`Error::Scheme`]: no data shard, or more than [`SHARD_COUNT_MAX`] shards.
    pub const fn new(data_count: u8, parity_count: u8) -> Result<Scheme, Error> {
        if data_count == 0 || data_count as usize + parity_count as usize > SHARD_COUNT_MAX {
            return Err(Error::Scheme { data_count, parity_count });
        }
        Ok(Scheme { data_count, parity_count })
    }

    /// k: shards that hold data; also how many suffice to read.
    pub const fn data_count(self) -> usize {
        self.data_count as usize
    }

    /// m: shards that hold parity; also how many may be lost.
    pub const fn parity_count(self) -> usize {
        self.parity_count as usize
    }

    /// k + m.
    pub const fn shard_count(self) -> usize {
        self.data_count() + self.parity_count()
    }

    /// Whether the shard of that index holds parity.
    pub const fn is_parity(self, shard_index: usize) -> bool {
        shard_index >= self.data_count()
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rs({},{})", self.data_count, self.parity_count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn schemes_have_data_and_a_bounded_number_of_shards() {
        for (k, m) in [(1, 0), (1, 31), (32, 0), (3, 2)] {
            let scheme = Scheme::new(k, m).unwrap();
            assert_eq!(scheme.shard_count(), usize::from(k + m));
            assert_eq!(scheme.to_string(), format!("rs({k},{m})"));
        }
        for (k, m) in [(0, 0), (0, 2), (32, 1), (255, 255)] {
            assert_eq!(Scheme::new(k, m), Err(Error::Scheme { data_count: k, parity_count: m }));
        }
    }
}
