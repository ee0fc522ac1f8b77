//! stub
use super::*;
use crate::env::Timestamp;
use crate::ids::{BucketId, Ino, Seq};

/// Which keys to list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListQuery {
    /// Only keys that begin so.
    pub prefix: Vec<u8>,
    /// Keys that share all up to its next occurrence after the prefix are one entry; empty: none.
    pub delimiter: Vec<u8>,
    /// Only keys and common prefixes above it, and none that it lies in.
    pub after: Vec<u8>,
    /// At most this many entries.
    pub limit: usize,
}

/// One entry of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListEntry {
    /// A key.
    Object {
        /// Its bytes.
        key: Vec<u8>,
        /// Length in bytes.
        size_bytes: u64,
        /// When it was written.
        modified: Timestamp,
        /// Entity tag.
        etag: ETag,
    },
    /// A common prefix.
    Prefix(Vec<u8>),
}

/// A page of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListPage {
    /// In byte order.
    pub entries: Vec<ListEntry>,
    /// Present where there may be more: `after` of the next page. The last entry, or where the scan budget ended.
    pub next: Option<Vec<u8>>,
}

/// Which versions to list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VersionQuery {
    /// As in [`ListQuery`].
    pub prefix: Vec<u8>,
    /// As in [`ListQuery`].
    pub delimiter: Vec<u8>,
    /// As in [`ListQuery`]; with `after_seq`, versions of this very key older than it come first.
    pub after: Vec<u8>,
    /// The version of `after` that was returned last.
    pub after_seq: Option<Seq>,
    /// At most this many entries.
    pub limit: usize,
}

/// A page of versions. A version's `attrs` are left empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VersionPage {
    /// Keys ascending, the newest version first; and common prefixes.
    pub entries: Vec<(Vec<u8>, Option<Version>)>,
    /// Present where there may be more: `after` and `after_seq` of the next page.
    pub next: Option<(Vec<u8>, Option<Seq>)>,
}

/// A page of uploads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UploadPage {
    /// By key, then by id.
    pub uploads: Vec<Upload>,
    /// Common prefixes, ascending.
    pub prefixes: Vec<Vec<u8>>,
    /// Present where there is more: key marker and upload id marker of the next page.
    pub next: Option<(Vec<u8>, Option<Ino>)>,
}

impl View<'_> {
    /// A page of the current versions.
    pub fn list(&self, _bucket: BucketId, _query: &ListQuery) -> Result<ListPage, Error> {
        todo!()
    }
    /// A page of all versions and delete markers.
    pub fn list_versions(&self, _bucket: BucketId, _query: &VersionQuery) -> Result<VersionPage, Error> {
        todo!()
    }
    /// A page of uploads in progress; `after_id`: uploads of key `query.after` with larger ids come first.
    pub fn list_uploads(
        &self,
        _bucket: BucketId,
        _query: &ListQuery,
        _after_id: Option<Ino>,
    ) -> Result<UploadPage, Error> {
        todo!()
    }
}
