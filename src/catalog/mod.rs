//! The catalog: the metadata state machine, in SQLite.
//!
//! - [`Catalog`] is the one writer: [`Catalog::apply`] turns a batch of log entries into one transaction.
//! - [`Readers`] are many: each query sees one snapshot, a [`View`].
//! - [`Ledger`] is how everyone else proposes commands and reads linearizably; `consensus` implements it.
//!
//! Invariants
//! - `apply` is a function of the state and the entry: no clock, no randomness, no floats, every query totally ordered.
//! - A command is decided before its first write; what is refused changes nothing.
//! - An SQLite error in `apply` is final: the process stops, and the log is applied again after a restart.
//! - The applied position commits with the data it describes.

mod apply;
mod changes;
mod check;
mod clone;
mod command;
mod event;
mod inode;
mod level;
mod list;
#[cfg(test)]
mod model;
pub mod path;
mod query;
mod retention;
mod store;
mod types;

use futures::future::BoxFuture;

pub use apply::Catalog;
pub use changes::{Changed, Changes, Heard, Notice};
pub use check::{ChunkRow, VersionRow};
pub use clone::{ClonePhase, CloneState};
pub use command::{
    ACCESSED_COUNT_MAX, Body, CLONE_STEP_MAX, Change, CloneOperation, Command, CompletePart, Content, DeleteKey,
    Deleted, Due, Envelope, FileOperation, Hint, LOCK_END, Lock, NEW_CHUNK_COUNT_MAX, NewChunk, NewInode, Origin,
    Outcome, PartBody, Piece, Precondition, RECORD_MAX_BYTES, RecordKind, Refusal, SetAttrs, Source, Write, Written,
};
pub use event::{EVENT_COUNT_MAX, Event, Happening};
pub use inode::{FileKind, MODE_MASK, NAME_MAX_BYTES, RenameMode, Stat, TreeEntry};
pub use level::{FEATURE_LEVEL, Levels};
pub use list::{ListEntry, ListPage, ListQuery, UploadPage, VersionPage, VersionQuery};
pub use query::{HeldLock, Lookup, Reclaimable, SessionState, Usage, View};
pub use retention::{LockRule, Period};
pub use store::{Options, Prepared, Readers, verify_snapshot};
pub use types::{
    Attrs, Bucket, Checksum, ChecksumAlgorithm, ChecksumKind, ETag, Encryption, Extent, Header, Layout, Linked,
    Manifest, Map, MapNode, MapState, Part, Place, Posix, Repair, Retention, RetentionMode, Setting, Upload, Version,
    Versioning,
};

use crate::ids::LogIndex;

/// What goes wrong in the catalog. All but `NotFound`-like outcomes are final for the process that applies.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite refused or failed.
    #[error("the catalog's database: {0}")]
    Sqlite(String),
    /// A file operation around the database failed.
    #[error("the catalog's files: {0}")]
    Io(#[from] std::io::Error),
    /// Stored or logged bytes are not what they should be.
    #[error("undecodable {what} in the catalog")]
    Undecodable {
        /// What was expected.
        what: &'static str,
    },
    /// Rows contradict each other.
    #[error("the catalog is inconsistent: {0}")]
    Inconsistent(String),
    /// The linked SQLite has the WAL-reset bug.
    #[error("SQLite {found} is too old: 3.51.3 or newer is needed")]
    SqliteTooOld {
        /// Its version.
        found: String,
    },
    /// Written by a later format.
    #[error("the catalog has format {found}, this program knows up to {known}")]
    Format {
        /// In the database.
        found: i64,
        /// Of the program.
        known: i64,
    },
    /// At a feature level that this program does not know.
    #[error("the catalog is at feature level {found}, and this s3d knows levels up to {known}: a newer s3d is needed")]
    Level {
        /// Of the database, or of a command in the log.
        found: u32,
        /// Of the program.
        known: u32,
    },
    /// The readers were closed.
    #[error("the catalog is closed")]
    Closed,
}

/// The place of an entry in Raft's log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Position {
    /// Raft's term.
    pub term: u64,
    /// The leader that proposed it.
    pub leader: u64,
    /// Raft's index.
    pub index: u64,
}

/// What one log entry asks of the catalog.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every entry is the large one")]
pub enum Entry {
    /// Nothing: Raft's own.
    Blank,
    /// A new membership, opaque here, kept with the applied position.
    Membership(Vec<u8>),
    /// A command.
    Command(Envelope),
}

/// How far the catalog has applied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// The last entry applied.
    pub position: Option<Position>,
    /// The last membership, as given.
    pub membership: Vec<u8>,
}

/// A proposal or a linearizable read that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It may have happened, or may still: only a retry with the same (session, sequence) tells.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// It did not happen and will not.
    #[error("the catalog is not available: {0}")]
    Unavailable(String),
    /// It did not happen and will not: too much is on its way already.
    #[error("too many commands are on their way")]
    Overloaded,
}

/// Proposes commands and orders reads. Implemented by `consensus`; a test may implement it over a [`Catalog`] alone.
pub trait Ledger: Send + Sync + 'static {
    /// Commits `envelope` and returns what `apply` made of it.
    fn propose(&self, envelope: Envelope) -> BoxFuture<'_, Result<Outcome, LedgerError>>;

    /// Returns when this node has applied everything that was acknowledged anywhere before the call:
    /// a snapshot taken afterwards is linearizable.
    fn barrier(&self) -> BoxFuture<'_, Result<LogIndex, LedgerError>>;

    /// The local readers.
    fn readers(&self) -> &Readers;

    /// Whether this process does the work that one does for all: it leads, as far as it knows.
    fn leads(&self) -> bool;
}
