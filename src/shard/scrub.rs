//! Finding silent damage: reads the frames of shards in the order of their ids, and verifies each.
//!
//! A shard has one frame a stripe, from stripe 0 on without a gap: only a chunk's last stripe may have none on a data shard.
//! So its origin and a frame's position say which frame must be there.

use std::ops::Range;

use super::Error;
use super::record::Origin;
use super::store::{Listed, Shards};
use super::wire::Bookmark;
use crate::ids::ShardId;
use crate::log;
use crate::segment::{Frame, Place};

/// Shards asked of the index at once.
const SHARDS_AT_ONCE: usize = 256;
/// Bytes of frames read at once, about.
const READ_BYTES: u64 = 1 << 20;
/// What looking at a shard costs beyond its bytes, in bytes.
const SHARD_COST_BYTES: u64 = 4096;
/// Damaged shards reported at once.
const DAMAGED_MAX: usize = 1000;

/// What a scrub found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scrubbed {
    /// The last shard that was looked at: where to go on. None: there were no more.
    pub next: Option<ShardId>,
    /// Bytes of the shards that were looked at.
    pub checked_bytes: u64,
    /// Shards of which a frame cannot be read, or is not the one that belongs there.
    pub damaged: Vec<Listed>,
}

impl Shards {
    /// Verifies shards with ids above `after`, ascending, until about `budget_bytes` were read; at least one, if there is
    /// one. How fast is up to the caller. Blocking.
    ///
    /// # Errors
    /// `Index`. What the disk cannot read is damaged, and no error.
    pub fn scrub(&self, after: Option<ShardId>, budget_bytes: u64) -> Result<Scrubbed, Error> {
        let (mut scrubbed, mut cost_bytes) = (Scrubbed { next: after, ..Scrubbed::default() }, 0);
        loop {
            let shards = self.inner.index.list(scrubbed.next, SHARDS_AT_ONCE)?;
            if shards.is_empty() {
                return Ok(Scrubbed { next: None, ..scrubbed });
            }
            for (shard, origin) in shards {
                let (len_bytes, is_whole) = self.verify(shard, origin)?;
                if !is_whole {
                    scrubbed.damaged.push(Listed { shard, origin });
                }
                (scrubbed.next, scrubbed.checked_bytes) = (Some(shard), scrubbed.checked_bytes + len_bytes);
                cost_bytes += len_bytes + SHARD_COST_BYTES;
                if cost_bytes >= budget_bytes || scrubbed.damaged.len() >= DAMAGED_MAX {
                    return Ok(scrubbed);
                }
            }
        }
    }

    /// Where the scrub is, as it was noted last. Blocking.
    ///
    /// # Errors
    /// `Index`.
    pub fn bookmark(&self) -> Result<Bookmark, Error> {
        self.inner.index.bookmark()
    }

    /// Notes where the scrub is; durable on return, as long as the index is. Blocking.
    ///
    /// # Errors
    /// `Index`, `Full`.
    pub fn note(&self, bookmark: Bookmark) -> Result<(), Error> {
        self.inner.index.note(bookmark)
    }

    /// How long a shard is, and whether all its frames are what they should be. One that was deleted is none.
    fn verify(&self, shard: ShardId, origin: Origin) -> Result<(u64, bool), Error> {
        let lens = match self.info(shard) {
            Err(Error::NotFound(_)) => return Ok((0, true)),
            info => info?.frames,
        };
        let len_bytes = lens.iter().map(|len| u64::from(*len)).sum();
        for frames in pieces(&lens) {
            match self.read(shard, frames.clone()) {
                Ok((bytes, lens)) if are_whole(&bytes, &lens, origin, frames.start) => {}
                Err(Error::NotFound(_)) => return Ok((len_bytes, true)),
                Ok(_) | Err(Error::Log(log::Error::Io { .. })) => return Ok((len_bytes, false)),
                Err(error) => return Err(error),
            }
        }
        Ok((len_bytes, true))
    }
}

/// Runs of frames of about [`READ_BYTES`] each.
fn pieces(lens: &[u32]) -> Vec<Range<usize>> {
    let (mut pieces, mut start, mut len_bytes) = (Vec::new(), 0, 0);
    for (index, len) in lens.iter().enumerate() {
        len_bytes += u64::from(*len);
        if len_bytes >= READ_BYTES || index + 1 == lens.len() {
            pieces.push(start..index + 1);
            (start, len_bytes) = (index + 1, 0);
        }
    }
    pieces
}

/// `first`: the stripe of the first frame.
fn are_whole(bytes: &[u8], lens: &[u32], origin: Origin, first: usize) -> bool {
    let Ok(shard_index) = u8::try_from(origin.slot) else { return false };
    let mut rest = bytes;
    lens.iter().enumerate().all(|(index, len)| {
        let Some((frame, after)) = rest.split_at_checked(*len as usize) else { return false };
        rest = after;
        let place = Place { chunk: origin.chunk, stripe: (first + index) as u32, shard_index };
        Frame::verify(frame, place).is_ok()
    })
}
