//! What happened to keys of buckets that tell of it: rows of the outbox, until whoever delivers them has.
//!
//! ```text
//! 0  1  version, 1
//! 1  n  postcard: Event
//! ```

use serde::{Deserialize, Serialize};

use crate::env::Timestamp;
use crate::ids::{Ino, VersionId};

use super::Error;
use super::types::{self, ETag};

/// The most events that wait; what happens beyond is counted and not told.
pub const EVENT_COUNT_MAX: u64 = 1_000_000;

/// What happened to one key, or to a whole directory of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// What.
    pub what: Happening,
    /// When its command was proposed.
    pub time: Timestamp,
    /// The key as it was then.
    pub key: Vec<u8>,
    /// The version that came or went; none: the bucket never had versions, or it was the current one that went.
    pub version: Option<VersionId>,
    /// Length in bytes of what came.
    pub size_bytes: u64,
    /// Tag of what came.
    pub etag: Option<ETag>,
}

/// What can happen. Ordinals are on disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Happening {
    /// An object was written.
    Put,
    /// An object was copied here, or got this name.
    Copied,
    /// An upload in parts was completed.
    Completed,
    /// An object or a version of one went.
    Deleted,
    /// A delete marker covers the object.
    Marked,
    /// All that was under the prefix `key` has another: a directory is being renamed. It comes with the same command.
    Left {
        /// Which, whatever its name is by now.
        directory: Ino,
    },
    /// All that is in the directory is under the prefix `key` from now on.
    Came {
        /// Which, whatever its name is by now.
        directory: Ino,
    },
    /// A whole prefix came, as a copy of another: `key` is the prefix.
    CopiedPrefix,
    /// A whole prefix went: `key` is the prefix.
    DeletedPrefix,
}

impl Event {
    /// One version byte, then postcard.
    pub fn encode(&self) -> Vec<u8> {
        types::encode(self)
    }

    /// The inverse of [`Event::encode`].
    ///
    /// # Errors
    /// `Undecodable`: not these bytes, or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        types::decode("event", bytes)
    }
}
