//! What is kept of each copy of a prefix: a row of `job`.

use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::level::CLONES_LEVEL;
use super::query::{signed, unsigned};
use super::{Error, View, path, types};
use crate::env::Timestamp;
use crate::ids::{BucketId, Ino};

/// The kind of these rows of `job`.
pub(super) const JOB_KIND: i64 = 1;

/// How far a clone is. Ordinals are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ClonePhase {
    /// It is being built where nobody sees it.
    Copying,
    /// It is published.
    Done,
    /// What there is of it is being erased.
    Erasing,
    /// It came to nothing, and nothing is left of it.
    Failed,
}

impl ClonePhase {
    /// Whether a worker has something to do.
    pub fn is_under_way(self) -> bool {
        matches!(self, ClonePhase::Copying | ClonePhase::Erasing)
    }
}

/// A copy of a prefix. Version 1 of the column.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CloneState {
    /// Whose prefix it is of.
    pub source: BucketId,
    /// That bucket's name then.
    pub source_name: String,
    /// The prefix.
    pub prefix: Vec<u8>,
    /// Where it is to be, or is.
    pub target: BucketId,
    /// Under which prefix.
    pub to: Vec<u8>,
    /// Its name among the snapshots of the bucket `target`; empty: it is none of them.
    pub label: String,
    /// Its directory.
    pub root: Ino,
    /// The moment of which it is a copy, by its proposer's clock.
    pub began: Timestamp,
    /// When it was done, or had failed.
    pub ended: Option<Timestamp>,
    /// How far it is.
    pub phase: ClonePhase,
    /// Why it fails; empty: it does not.
    pub reason: String,
    /// Objects that were copied.
    pub object_count: u64,
    /// Their bytes.
    pub size_bytes: u64,
}

impl CloneState {
    /// One version byte, then postcard.
    pub fn encode(&self) -> Vec<u8> {
        types::encode(self)
    }

    /// The inverse of [`CloneState::encode`].
    ///
    /// # Errors
    /// `Undecodable`: not these bytes, or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        types::decode("clone", bytes)
    }
}

impl View<'_> {
    /// Whether there may be clones yet.
    pub fn has_clones(&self) -> Result<bool, Error> {
        Ok(self.feature_level()? >= CLONES_LEVEL)
    }

    /// All clones that are known, by id: in the order in which they began.
    pub fn clones(&self) -> Result<Vec<(Ino, CloneState)>, Error> {
        let sql = "SELECT id,state FROM job WHERE kind=?1 ORDER BY id";
        self.all(sql, [JOB_KIND], |row| Ok((Ino(unsigned(row, 0)?), CloneState::decode(row.get_ref(1)?.as_blob()?)?)))
    }

    /// Whether its prefix still stands for the directory that was published.
    pub fn is_clone_there(&self, state: &CloneState) -> Result<bool, Error> {
        Ok(self.descend(state.target, &path::split(&state.to).0)? == Some(state.root))
    }

    /// One of them; none: it is not known, or not any more.
    pub fn clone_state(&self, clone: Ino) -> Result<Option<CloneState>, Error> {
        let sql = "SELECT state FROM job WHERE kind=?1 AND id=?2";
        let found = self.one(sql, params![JOB_KIND, signed(clone.0)], |row| Ok(row.get::<_, Vec<u8>>(0)?))?;
        found.map(|bytes| CloneState::decode(&bytes)).transpose()
    }
}
