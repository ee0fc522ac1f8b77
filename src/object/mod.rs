//! stub of the front door: signatures that frontends code against.
#![allow(unused_variables)]
use crate::catalog::{
    self, Attrs, Bucket, Change, Checksum, ChecksumAlgorithm, CompletePart, DeleteKey, Deleted, ListPage, ListQuery,
    Part, Precondition, Refusal, Setting, Upload, UploadPage, Usage, Version, VersionPage, VersionQuery, Versioning,
    Written,
};
use crate::env::Timestamp;
use crate::ids::{Ino, Seq, VersionId};
use bytes::Bytes;
use std::future::Future;
use std::ops::Range;

/// What goes wrong with objects. A frontend maps each variant once.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalog refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The newest version is a delete marker (no version was named).
    #[error("the object is deleted")]
    Deleted {
        /// The marker.
        marker: VersionId,
    },
    /// The source of the bytes failed; it knows why.
    #[error("the source of the bytes failed")]
    Source,
    /// A promised digest is not that of the bytes; nothing was stored.
    #[error("the bytes do not have the {what} that was promised")]
    BadDigest {
        /// Which digest.
        what: &'static str,
    },
    /// The source gave another number of bytes than announced.
    #[error("{announced} bytes were announced, {received} came")]
    WrongLength {
        /// As announced.
        announced: u64,
        /// As received.
        received: u64,
    },
    /// Longer than allowed.
    #[error("longer than {limit_bytes} bytes")]
    TooLarge {
        /// The bound.
        limit_bytes: u64,
    },
    /// A range lies outside of the object.
    #[error("the range lies outside of the {size_bytes} bytes")]
    InvalidRange {
        /// The object's length.
        size_bytes: u64,
    },
    /// The request's arguments contradict each other or the upload.
    #[error("{0}")]
    Invalid(String),
    /// No room for new bytes.
    #[error("the store is full")]
    Full,
    /// Too much at once; try again soon.
    #[error("the store is overloaded")]
    Overloaded,
    /// The catalog cannot be reached, or what became of a write is unknown.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Stored bytes are damaged and were not served.
    #[error("stored bytes are damaged: {0}")]
    Corrupt(String),
    /// The disk failed.
    #[error("the disk: {0}")]
    Io(#[from] std::io::Error),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(catalog::Error),
}

/// Where the bytes of a PUT come from.
pub trait Source: Send {
    /// The next run of bytes; `None` once, at the end, after everything that can be verified has been.
    /// `Err(())`: the transfer failed; the source keeps the reason and `put` returns [`Error::Source`].
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, ()>> + Send;

    /// Checksums that the sender promised; complete after `next` gave `None` (trailers).
    fn promised(&self) -> Vec<Checksum>;
}

/// One version of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Bucket's name.
    pub bucket: String,
    /// Key.
    pub key: Vec<u8>,
    /// Version; none: the current one.
    pub version: Option<VersionId>,
}

/// What is known of incoming bytes before they come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Incoming {
    /// Length, where announced.
    pub len_bytes: Option<u64>,
    /// Which checksums to compute and keep; MD5 is always computed.
    pub algorithms: Vec<ChecksumAlgorithm>,
    /// `Content-MD5`.
    pub md5: Option<[u8; 16]>,
}

/// A new object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// Bucket's name.
    pub bucket: String,
    /// Key.
    pub key: Vec<u8>,
    /// What it carries; `checksums` are filled in by the store.
    pub attrs: Attrs,
    /// Demands on what it replaces.
    pub precondition: Precondition,
}

/// What a PUT did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The version.
    pub written: Written,
    /// Its length.
    pub size_bytes: u64,
    /// Its checksums, as computed and verified.
    pub checksums: Vec<Checksum>,
}

/// How full the store is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Pressure {
    /// Room enough.
    None,
    /// Nearly full: writes still succeed.
    NearFull,
    /// New bytes are refused.
    Full,
}

/// An object opened for reading: its version and its manifest come from one snapshot.
pub struct Object {
    /// The version.
    pub version: Version,
}

impl Object {
    /// Streams `range` (half-open, within the version's length) in runs of a bounded size, every byte verified.
    pub fn read(self, range: Range<u64>) -> Reader {
        todo!()
    }
}

/// A stream of an object's bytes. `next` gives `None` at the end.
pub struct Reader {}

impl Reader {
    /// The next run of bytes.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        todo!()
    }
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Makes a bucket.
    pub async fn create_bucket(&self, name: &str, owner: &str, region: &str, lock: bool) -> Result<Bucket, Error> {
        todo!()
    }
    /// Deletes an empty bucket.
    pub async fn delete_bucket(&self, name: &str) -> Result<(), Error> {
        todo!()
    }
    /// A bucket by its name.
    pub async fn bucket(&self, name: &str) -> Result<Bucket, Error> {
        todo!()
    }
    /// Buckets after `after`, by name.
    pub async fn buckets(&self, after: Option<&str>, limit: usize) -> Result<Vec<Bucket>, Error> {
        todo!()
    }
    /// What a bucket holds.
    pub async fn usage(&self, bucket: &str) -> Result<Usage, Error> {
        todo!()
    }
    /// Sets versioning.
    pub async fn set_versioning(&self, bucket: &str, versioning: Versioning) -> Result<(), Error> {
        todo!()
    }
    /// A setting as it was stored.
    pub async fn setting(&self, bucket: &str, setting: Setting) -> Result<Option<Bytes>, Error> {
        todo!()
    }
    /// Replaces or removes a setting.
    pub async fn set_setting(&self, bucket: &str, setting: Setting, value: Option<Bytes>) -> Result<(), Error> {
        todo!()
    }

    /// A version without its bytes.
    /// # Errors
    /// `Refused(NoSuchBucket | NoSuchKey | NoSuchVersion)`, `Deleted`, `Refused(IsDeleteMarker)` where a marker was named.
    pub async fn head(&self, target: &Target) -> Result<Version, Error> {
        todo!()
    }
    /// A version, opened for reading.
    pub async fn get(&self, target: &Target) -> Result<Object, Error> {
        todo!()
    }
    /// (part count, start, length) of the part with `number` (1 the first) of a version; an object that was no multipart upload has one part.
    pub async fn part_range(&self, version: &Version, number: u32) -> Result<(u32, Range<u64>), Error> {
        todo!()
    }
    /// The parts of a version that was a multipart upload; empty for any other.
    pub async fn object_parts(&self, version: &Version, after: u32, limit: usize) -> Result<Vec<Part>, Error> {
        todo!()
    }
    /// Stores an object: durable, and named, when it returns.
    pub async fn put(&self, put: Put, incoming: Incoming, source: &mut impl Source) -> Result<Stored, Error> {
        todo!()
    }
    /// Puts the content of `source` under another key, moving no data. `incoming.algorithms` that `source` lacks are computed by reading it.
    pub async fn copy(&self, source: &Version, put: Put, algorithms: Vec<ChecksumAlgorithm>) -> Result<Stored, Error> {
        todo!()
    }
    /// Deletes keys; an answer for each, in order.
    pub async fn delete(&self, bucket: &str, keys: Vec<DeleteKey>) -> Result<Vec<Result<Deleted, Refusal>>, Error> {
        todo!()
    }
    /// Changes a version in place. Returns which.
    pub async fn change(&self, target: &Target, change: Change) -> Result<VersionId, Error> {
        todo!()
    }

    /// A page of current versions.
    pub async fn list(&self, bucket: &str, query: ListQuery) -> Result<ListPage, Error> {
        todo!()
    }
    /// A page of all versions.
    pub async fn list_versions(&self, bucket: &str, query: VersionQuery) -> Result<VersionPage, Error> {
        todo!()
    }
    /// The place of a key's null version in the order of its versions, if it has one.
    pub async fn null_version_seq(&self, bucket: &str, key: &[u8]) -> Result<Option<Seq>, Error> {
        todo!()
    }
    /// A page of uploads in progress.
    pub async fn list_uploads(
        &self,
        bucket: &str,
        query: ListQuery,
        after_id: Option<Ino>,
    ) -> Result<UploadPage, Error> {
        todo!()
    }

    /// Begins an upload. `attrs.upload_checksum` says how its parts will be checked.
    pub async fn create_upload(&self, bucket: &str, key: &[u8], attrs: Attrs) -> Result<Ino, Error> {
        todo!()
    }
    /// An upload in progress.
    pub async fn upload(&self, bucket: &str, key: &[u8], upload: Ino) -> Result<Upload, Error> {
        todo!()
    }
    /// Stores a part.
    pub async fn put_part(
        &self,
        bucket: &str,
        key: &[u8],
        upload: Ino,
        number: u32,
        incoming: Incoming,
        source: &mut impl Source,
    ) -> Result<Part, Error> {
        todo!()
    }
    /// Makes `range` of `source` (or all of it) a part, moving no data (it is read where its digest is not known).
    pub async fn copy_part(
        &self,
        bucket: &str,
        key: &[u8],
        upload: Ino,
        number: u32,
        source: &Version,
        range: Option<Range<u64>>,
    ) -> Result<Part, Error> {
        todo!()
    }
    /// Parts of an upload in progress.
    pub async fn parts(
        &self,
        bucket: &str,
        key: &[u8],
        upload: Ino,
        after: u32,
        limit: usize,
    ) -> Result<(Upload, Vec<Part>), Error> {
        todo!()
    }
    /// Names the parts as the object's content. `promised`: the whole's checksum, where the client gave one; each part may come
    /// with the checksum the client believes it has. A retry gets the first answer.
    pub async fn complete_upload(
        &self,
        bucket: &str,
        key: &[u8],
        upload: Ino,
        parts: Vec<(CompletePart, Vec<Checksum>)>,
        promised: Option<Checksum>,
        size_bytes: Option<u64>,
        precondition: Precondition,
    ) -> Result<Stored, Error> {
        todo!()
    }
    /// Gives an upload up.
    pub async fn abort_upload(&self, bucket: &str, key: &[u8], upload: Ino) -> Result<(), Error> {
        todo!()
    }

    /// How full the store is now.
    pub fn pressure(&self) -> Pressure {
        todo!()
    }
    /// The clock that conditions and signatures compare with.
    pub fn now(&self) -> Timestamp {
        todo!()
    }
}

/// Compares a small body with the digests that its sender promised.
///
/// # Errors
/// `BadDigest`.
pub fn verify(bytes: &[u8], md5: Option<[u8; 16]>, promised: &[Checksum]) -> Result<(), Error> {
    todo!()
}
