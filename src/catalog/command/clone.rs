//! What is asked of copies of whole prefixes. Ordinals and fields are on disk, as those of [`super::Command`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{BucketId, Ino};

/// Entries that one command may copy or erase: some three rows each.
pub const CLONE_STEP_MAX: u32 = 1024;

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CloneOperation {
    /// Begins a copy of all that is visible under a prefix as of now.
    Begin {
        /// Whose.
        source: BucketId,
        /// Ends in `/`, or is empty: all of the bucket.
        prefix: Bytes,
        /// Where it comes to be.
        target: BucketId,
        /// The prefix that it gets once it is whole: ends in `/`, and is not there yet.
        to: Bytes,
        /// Its name among the snapshots of the bucket `target`; empty: it is none of them.
        label: String,
    },
    /// Copies some more, or erases some more; after the last copy it is published.
    Advance {
        /// Which.
        clone: Ino,
        /// 1 to [`CLONE_STEP_MAX`] entries.
        entry_count: u32,
    },
    /// Takes it away with all that is in it by now. What is erased is erased by `Advance`.
    Remove {
        /// Which.
        clone: Ino,
    },
    /// Forgets how it ended; what was published stays.
    Forget {
        /// Which.
        clone: Ino,
    },
}
