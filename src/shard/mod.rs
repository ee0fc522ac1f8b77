//! A shard node: shards in a log, and an index of where they lie.
//!
//! - [`Shards`] is the handle: write, read, delete, list; and [`Shards::clean`], which gives space back.
//! - `record`: what stands in the log; `index`: SQLite, behind the log, and what it does not know yet, in memory;
//!   `writing`: a shard on its way in; `open`: how index and log are brought together; `clean`: punching and compaction;
//!   `scrub`: finding silent damage.
//! - [`ShardService`] answers the calls of others for one node's shards, and `keeper` keeps them in order; [`ShardClient`]
//!   makes the calls; [`wire`]: their headers.
//!
//! Invariants
//! - A shard is there once its commit is durable, and its bytes were durable before or with that; it is gone once its
//!   deletion is durable. Ids are never used twice: what is written late under an old id harms nobody.
//! - The log is the truth. The index may be deleted: it is made anew from the log, but for shards that were deleted while
//!   the record of that is gone too; these are orphans, for the sweep.
//! - Bytes are punched, and files removed, only once the index no longer names them, synced.
//! - The index names only what is durable in the log.
//! - What the index would read again at the next start is not punched: so what cannot be read there is damaged.
//! - On a full disk a write fails, for its caller only; reading and deleting go on, and so does giving back what is dead.

mod clean;
mod client;
mod index;
mod keeper;
mod open;
mod record;
mod scrub;
mod service;
mod store;
#[cfg(test)]
mod tests;
pub mod wire;
mod writing;

pub use clean::Cleaned;
pub use client::{ClientError, Sending, ShardClient};
pub use open::{Opened, Options};
pub use record::Origin;
pub use scrub::Scrubbed;
pub use service::{ServiceLimits, ShardService};
pub use store::{Listed, ShardInfo, Shards, Usage};
pub use writing::Writing;

use crate::ids::ShardId;
use crate::log;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such shard here.
    #[error("shard {0} is not here")]
    NotFound(ShardId),
    /// There is one of this id.
    #[error("shard {0} is here already")]
    Exists(ShardId),
    /// The caller's numbers do not fit the shard.
    #[error("shard {shard}: {what}")]
    Invalid {
        /// Which.
        shard: ShardId,
        /// In which way.
        what: String,
    },
    /// The disk has no room for more.
    #[error("the disk is full")]
    Full,
    /// The log.
    #[error("the log: {0}")]
    Log(#[source] log::Error),
    /// The index.
    #[error("the index: {0}")]
    Index(String),
    /// The index is not what was written; it can be made anew from the log.
    #[error("the index is damaged: {0}")]
    IndexDamaged(String),
    /// Too much of it is under way: later.
    #[error("the shard node is busy: {0}")]
    Busy(&'static str),
    /// The node stops.
    #[error("the shard node is closed")]
    Closed,
}

impl From<log::Error> for Error {
    fn from(error: log::Error) -> Error {
        match error {
            log::Error::Full => Error::Full,
            error => Error::Log(error),
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
        match error.sqlite_error_code() {
            Some(DiskFull) => Error::Full,
            Some(DatabaseCorrupt | NotADatabase) => Error::IndexDamaged(error.to_string()),
            _ => Error::Index(error.to_string()),
        }
    }
}
