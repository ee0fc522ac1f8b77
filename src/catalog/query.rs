//! stub
use super::*;
use crate::env::Timestamp;
use crate::ids::{BucketId, Ino, SessionId, VersionId};
use bytes::Bytes;
use rusqlite::Connection;
use std::ops::Range;

/// One snapshot of the catalog.
pub struct View<'a> {
    pub(super) connection: &'a rusqlite::Connection,
}

impl<'a> View<'a> {
    pub(super) fn new(connection: &'a Connection) -> View<'a> {
        View { connection }
    }
}

/// What stands under a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// The version asked for (it may be a delete marker where a version was named).
    Found(Version),
    /// Nothing, and no history either; or not that version.
    Missing,
    /// No version was named and the newest is this delete marker.
    Deleted(Version),
}

/// A chunk whose bytes may go once every live session's watermark has passed `died`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reclaimable {
    /// The row.
    pub row: u64,
    /// The chunk.
    pub chunk: Ino,
    /// Log index of its death.
    pub died: LogIndex,
    /// Where it is.
    pub place: Place,
}

/// A live session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionState {
    /// Which.
    pub id: SessionId,
    /// Whose.
    pub gateway: String,
    /// Renewal counter.
    pub renewals: u64,
    /// Applied index of its oldest read.
    pub watermark: LogIndex,
}

/// What a bucket holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Current versions.
    pub object_count: u64,
    /// Their bytes.
    pub size_bytes: u64,
    /// Noncurrent versions and delete markers.
    pub version_count: u64,
    /// Their bytes.
    pub version_bytes: u64,
}

impl View<'_> {
    /// The log index up to which this snapshot has applied.
    pub fn applied_index(&self) -> Result<LogIndex, Error> {
        todo!()
    }
    /// Catalog time.
    pub fn time(&self) -> Result<Timestamp, Error> {
        todo!()
    }
    /// A bucket by name.
    pub fn bucket(&self, _name: &str) -> Result<Option<Bucket>, Error> {
        todo!()
    }
    /// Buckets in order of their names, after `after`.
    pub fn buckets(&self, _after: Option<&str>, _limit: usize) -> Result<Vec<Bucket>, Error> {
        todo!()
    }
    /// A setting of a bucket, as it was stored.
    pub fn setting(&self, _bucket: BucketId, _setting: Setting) -> Result<Option<Bytes>, Error> {
        todo!()
    }
    /// What a bucket holds.
    pub fn usage(&self, _bucket: BucketId) -> Result<Usage, Error> {
        todo!()
    }
    /// The current version under a key, or the named one.
    pub fn lookup(&self, _bucket: BucketId, _key: &[u8], _version: Option<VersionId>) -> Result<Lookup, Error> {
        todo!()
    }
    /// Where the bytes of `range` of a content are: every extent that overlaps it, whole.
    pub fn manifest(&self, _ino: Ino, _range: Range<u64>) -> Result<Manifest, Error> {
        todo!()
    }
    /// The parts of a completed multipart object with numbers above `after`, ascending; empty for any other.
    pub fn object_parts(&self, _ino: Ino, _after: u32, _limit: usize) -> Result<Vec<Part>, Error> {
        todo!()
    }
    /// How many parts a multipart object has, and (start, length in bytes) of its `index`-th (from 0) part.
    pub fn object_part(&self, _ino: Ino, _index: u32) -> Result<Option<(u32, u64, u64)>, Error> {
        todo!()
    }
    /// An upload in progress.
    pub fn upload(&self, _bucket: BucketId, _key: &[u8], _id: Ino) -> Result<Option<Upload>, Error> {
        todo!()
    }
    /// The result of an upload completed lately: digest of its part list, and its outcome.
    pub fn completed(&self, _bucket: BucketId, _key: &[u8], _id: Ino) -> Result<Option<(Vec<u8>, Written)>, Error> {
        todo!()
    }
    /// Parts of an upload in progress with numbers above `after`, ascending.
    pub fn parts(&self, _upload: Ino, _after: u32, _limit: usize) -> Result<Vec<Part>, Error> {
        todo!()
    }
    /// An access key: its account and its encoded attributes.
    pub fn credential(&self, _access_key: &str) -> Result<Option<(String, Bytes)>, Error> {
        todo!()
    }
    /// Live sessions.
    pub fn sessions(&self) -> Result<Vec<SessionState>, Error> {
        todo!()
    }
    /// Chunks that died before `before`, oldest first.
    pub fn reclaimable(&self, _before: LogIndex, _limit: usize) -> Result<Vec<Reclaimable>, Error> {
        todo!()
    }
    /// Whether the dead list has rows.
    pub fn has_dead(&self) -> Result<bool, Error> {
        todo!()
    }
    /// Of `chunks`, those that nothing accounts for: no node, no reclaim row, no live session's lease.
    /// # Errors
    /// `Inconsistent`: an id above the high-water mark (a restored catalog): the sweep must stop.
    pub fn orphans(&self, _chunks: &[Ino]) -> Result<Vec<Ino>, Error> {
        todo!()
    }
    /// Chunks with ids above `after`, ascending: (id, place). For a complete check.
    pub fn chunks(&self, _after: Ino, _limit: usize) -> Result<Vec<(Ino, Place)>, Error> {
        todo!()
    }
    /// A few names (bucket, key, version) of objects whose bytes are in `chunk`. A scan; for a complete check only.
    pub fn names_of(&self, _chunk: Ino, _limit: usize) -> Result<Vec<(String, Vec<u8>, VersionId)>, Error> {
        todo!()
    }
    /// Every contradiction between rows (counts, links, orders, encodings), as text; empty: sound. A full scan.
    pub fn contradictions(&self, _limit: usize) -> Result<Vec<String>, Error> {
        todo!()
    }
}
