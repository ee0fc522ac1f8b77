//! The frame of one segment: compressed where that pays, sealed under its chunk's key, checksummed; and back. Pure.
//!
//! - [`Sealer`], [`Opener`]: plaintext to frame and back, under a [`ChunkKey`].
//! - [`Frame`]: a frame whose checksum and place were verified, for which no key is needed.
//! - [`stripe`]: the parity frames of a stripe, and the frames that it lost.
//! - [`wrap`], [`unwrap`]: chunk keys under the key of the cluster. [`seal_secret`], [`open_secret`]: secrets under it.
//!
//! Layout: [`mod@format`]. Any bytes may be given to what verifies, opens, rebuilds or unwraps.

mod compress;
pub mod format;
mod key;
mod seal;
pub mod stripe;
#[cfg(test)]
mod tests;

use std::fmt;

pub use compress::Workspace;
pub use format::{Frame, Header, Kind};
pub use key::{ChunkKey, ClusterKey, KEY_BYTES, open_secret, seal_secret, unwrap, wrap};
pub use seal::{Opener, Sealer};

use crate::erasure;
use crate::ids::Ino;

/// Which frame of the whole store a frame is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    /// The chunk.
    pub chunk: Ino,
    /// The stripe's index in the chunk.
    pub stripe: u32,
    /// The shard's index in the chunk's layout.
    pub shard_index: u8,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk {} stripe {} shard {}", self.chunk, self.stripe, self.shard_index)
    }
}

/// What is wrong with bytes that were to be a frame, or a wrapped key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// No frame begins like this, or none says of itself what this one does.
    #[error("no frame: {what}")]
    NotAFrame {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A frame or wrapped key of a format that came after this program.
    #[error("written in format {version:#04x}, which this version does not know")]
    UnknownFormat {
        /// The format, as it is on disk.
        version: u8,
    },
    /// Cut short, or with something behind it.
    #[error("{len_bytes} bytes, where the frame has {frame_len_bytes}")]
    Length {
        /// How many bytes there are.
        len_bytes: usize,
        /// How many the header speaks of.
        frame_len_bytes: usize,
    },
    /// The bytes are not those that were written.
    #[error("the checksum does not match")]
    Checksum,
    /// A whole frame, but not the one that was looked for.
    #[error("the frame of {found} lies where that of {wanted} should be")]
    Elsewhere {
        /// What was found.
        found: Place,
        /// What was looked for.
        wanted: Place,
    },
    /// Not sealed under this key, or changed by somebody who could make a checksum.
    #[error("the seal does not open with this key")]
    Seal,
    /// What the seal held does not decompress to what the header says: a fault of ours, or of memory.
    #[error("the segment does not decompress")]
    Decompress,
    /// The frames of a stripe do not go together.
    #[error(transparent)]
    Erasure(#[from] erasure::Error),
}
