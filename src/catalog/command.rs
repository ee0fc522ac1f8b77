//! Commands and their outcomes: all that can happen to the catalog.
//!
//! Invariants
//! - Ordinals are positions in the enums below, and they are on disk: append variants, never move or remove one.
//!   A variant never changes its fields; a new shape is a new variant. The golden test holds this.
//! - A command carries every time, id and random value it needs: `apply` has no other source of them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::env::Timestamp;
use crate::ids::{BucketId, Ino, Seq, SessionId, VersionId};

mod clone;
mod file;

pub use clone::{CLONE_STEP_MAX, CloneOperation};
pub use file::{
    ACCESSED_COUNT_MAX, Content, FileOperation, Hint, LOCK_END, Lock, NewInode, Origin, Piece, SetAttrs, Source, Write,
};

use super::Error;
use super::types;
use super::types::{Attrs, Checksum, ETag, Map, Place, Retention, Setting, Versioning};

/// The most chunks that one command names anew: with the rows of a part that it replaces, that is about as many rows as
/// one command may touch.
pub const NEW_CHUNK_COUNT_MAX: usize = 512;

/// A command as it stands in Raft's log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// Who proposes; `SessionId(0)` only for `OpenSession`, `ExpireSession`, `Tick`, `SetMap` and `RaiseLevel`.
    pub session: SessionId,
    /// Position in the session's stream of commands, from 1; a retry repeats it and gets the first answer. 0: not remembered.
    pub seq: u64,
    /// Every outcome up to this sequence was received: the catalog may forget it.
    pub acked: u64,
    /// The proposer's wall clock, for display (`LastModified`).
    pub now: Timestamp,
    /// What to do.
    pub command: Command,
}

/// What a write demands of the version it replaces. All given conditions must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Precondition {
    /// The current version must exist and have one of these tags (`None` in the list: any tag, `*`).
    pub if_match: Option<Vec<Option<ETag>>>,
    /// No current version may exist with one of these tags (`None`: any, `*`).
    pub if_none_match: Option<Vec<Option<ETag>>>,
    /// The current version must have this length (DELETE only).
    pub if_match_size_bytes: Option<u64>,
    /// The current version must have this time, in whole seconds (DELETE only).
    pub if_match_modified_s: Option<i64>,
}

/// A durable chunk that is named for the first time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewChunk {
    /// Leased, as is the name of each of its shards.
    pub id: Ino,
    /// Where it is.
    pub place: Place,
    /// Whether it is stored less well than was wanted, though none of its shards may be missing: it is to be repaired.
    pub short: bool,
}

/// The bytes that a PUT names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Body {
    /// None.
    Empty,
    /// At most [`crate::units::BLOCK_BYTES`], kept in the catalog.
    Inline(Bytes),
    /// One durable chunk whose id is the node's own.
    Chunk(Place),
    /// The content of another node, shared; refused with `SourceGone` if it is no more.
    Share(Ino),
    /// 1 to [`NEW_CHUNK_COUNT_MAX`] durable chunks, in order. The only one may have the node's own id.
    Chunks(Vec<NewChunk>),
    /// The content of an inode that a file system changed, shared; refused with `RevisionChanged` if it did so again.
    ShareRevision {
        /// Which.
        ino: Ino,
        /// As it was seen.
        revision: u64,
    },
}

/// The bytes that a part names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PartBody {
    /// None.
    Empty,
    /// A durable chunk under a fresh, leased id.
    Chunk {
        /// The chunk's id.
        chunk: Ino,
        /// Where it is.
        place: Place,
    },
    /// Runs of existing chunks, shared in order: (chunk, start in it, length). Refused with `SourceGone` if one is no more.
    Share(Vec<(Ino, u64, u64)>),
    /// 1 to [`NEW_CHUNK_COUNT_MAX`] durable chunks, in order.
    Chunks(Vec<NewChunk>),
}

/// One key to delete.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeleteKey {
    /// The key.
    pub key: Bytes,
    /// A version, or what a plain DELETE means in the bucket.
    pub version: Option<VersionId>,
    /// Demands on the current version.
    pub precondition: Precondition,
    /// Whether GOVERNANCE retention may be bypassed.
    pub bypass_governance: bool,
}

/// A part as a Complete lists it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CompletePart {
    /// 1 to 10,000.
    pub number: u32,
    /// Must be the part's.
    pub etag: ETag,
}

/// What to change of an existing version.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// Replaces the tags.
    Tags(Vec<(String, String)>),
    /// Replaces the frontend's ACL.
    Acl(Option<Vec<u8>>),
    /// Replaces the retention, if it may become that.
    Retention {
        /// None: it is retained no more.
        retention: Option<Retention>,
        /// Whether GOVERNANCE may be bypassed.
        bypass: bool,
    },
    /// Sets or lifts the legal hold.
    Hold(bool),
}

/// Whether a chunk is to be repaired, after a swap. Ordinals are in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Due {
    /// No more.
    No,
    /// It is.
    Yes,
    /// If it was.
    AsBefore,
}

/// All that can happen. Ordinals are stable.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// A gateway begins; ends every earlier session of the same gateway.
    OpenSession {
        /// The gateway's name, unique in the cluster.
        gateway: String,
    },
    /// Keeps a session alive and says what it no longer needs.
    RenewSession {
        /// Applied index of its oldest running read.
        watermark: u64,
        /// Id ranges of which each id was committed or abandoned: (start, end) half-open.
        retired: Vec<(Ino, Ino)>,
    },
    /// Ends a session if its renewal counter is still `renewals`.
    ExpireSession {
        /// Which.
        session: SessionId,
        /// The counter its judge saw.
        renewals: u64,
    },
    /// Leases `count` fresh ids to the session.
    LeaseIds {
        /// 1 to 65,536.
        count: u32,
    },
    /// Advances catalog time to at most `now`; never back.
    Tick {
        /// A voter's bounded time.
        now: Timestamp,
    },
    /// Makes a bucket.
    CreateBucket {
        /// Leased; becomes the root directory's inode.
        id: BucketId,
        /// Checked by the frontend.
        name: String,
        /// Account.
        owner: String,
        /// As said to clients.
        region: String,
        /// Object lock from birth; implies versioning.
        lock: bool,
    },
    /// Deletes a bucket without keys, versions or uploads.
    DeleteBucket {
        /// Which.
        bucket: BucketId,
    },
    /// Sets versioning: `Enabled` or `Suspended`.
    SetVersioning {
        /// Which.
        bucket: BucketId,
        /// To what.
        versioning: Versioning,
    },
    /// Replaces or removes a setting.
    SetBucket {
        /// Which.
        bucket: BucketId,
        /// Which setting.
        setting: Setting,
        /// `None` removes it.
        value: Option<Bytes>,
    },
    /// Puts a version under a key.
    Put {
        /// Where.
        bucket: BucketId,
        /// 1 to 1,024 bytes.
        key: Bytes,
        /// Leased; the new inode.
        ino: Ino,
        /// Length of the bytes.
        size_bytes: u64,
        /// Entity tag.
        etag: ETag,
        /// Everything else.
        attrs: Attrs,
        /// The bytes.
        body: Body,
        /// Demands on the current version.
        precondition: Precondition,
    },
    /// Deletes keys; each has an outcome of its own. At most 250.
    Delete {
        /// Where.
        bucket: BucketId,
        /// What.
        keys: Vec<DeleteKey>,
    },
    /// Changes a version in place.
    Change {
        /// Where.
        bucket: BucketId,
        /// Which key.
        key: Bytes,
        /// Which version; none: the current one.
        version: Option<VersionId>,
        /// What.
        change: Change,
    },
    /// Begins a multipart upload.
    CreateUpload {
        /// Where.
        bucket: BucketId,
        /// 1 to 1,024 bytes.
        key: Bytes,
        /// Leased; the future node.
        id: Ino,
        /// What the object will carry.
        attrs: Attrs,
    },
    /// Puts or replaces a part.
    PutPart {
        /// Where.
        bucket: BucketId,
        /// Must be the upload's.
        key: Bytes,
        /// Which upload.
        upload: Ino,
        /// 1 to 10,000.
        number: u32,
        /// Length of the bytes.
        size_bytes: u64,
        /// MD5 of them.
        etag: ETag,
        /// Checksums of them.
        checksums: Vec<Checksum>,
        /// The bytes.
        body: PartBody,
    },
    /// Names an upload's parts as the object's content. Where the list leaves out more than one command may drop, some
    /// of that is dropped and the answer is `Drained`: propose it again.
    CompleteUpload {
        /// Where.
        bucket: BucketId,
        /// Must be the upload's.
        key: Bytes,
        /// Which upload.
        upload: Ino,
        /// In ascending order.
        parts: Vec<CompletePart>,
        /// Entity tag of the whole, from the parts' tags.
        etag: ETag,
        /// Checksums of the whole, from the parts'.
        checksums: Vec<Checksum>,
        /// Demands on the current version.
        precondition: Precondition,
    },
    /// Gives an upload up.
    AbortUpload {
        /// Where.
        bucket: BucketId,
        /// Must be the upload's.
        key: Bytes,
        /// Which upload.
        upload: Ino,
    },
    /// Tears down what the dead list names, oldest first.
    Drain {
        /// About how many rows to touch, at most 4,096.
        row_count: u32,
    },
    /// The bytes of these reclaim rows are gone.
    Reclaimed {
        /// Sequences of the rows.
        rows: Vec<u64>,
    },
    /// Forgets completed uploads older than this.
    ForgetCompleted {
        /// By the proposer's clock at completion.
        before: Timestamp,
        /// At most this many.
        row_count: u32,
    },
    /// Stores or removes an access key.
    SetCredential {
        /// Which.
        access_key: String,
        /// Its account and its encoded attributes; `None` removes it.
        value: Option<(String, Bytes)>,
    },
    /// Replaces the cluster's map if its epoch is still `from_epoch`.
    SetMap {
        /// 0: there is none yet.
        from_epoch: u64,
        /// Of a later epoch.
        map: Map,
    },
    /// Moves a chunk to other shards if its place is still `from`. What `from` names and `to` does not is reclaimed.
    Swap {
        /// Which.
        chunk: Ino,
        /// As it was read; `live_bytes` do not matter.
        from: Place,
        /// `rs`, of the same length. Its shards are those of `from` at the same index, or leased.
        to: Place,
        /// Whether it is to be repaired (again).
        due: Due,
        /// Whether all that `to` names was read and verified, or is new. Else damage that was seen is not forgotten.
        verified: bool,
    },
    /// Says that chunks are to be repaired; those that are no more do not matter.
    MarkRepair {
        /// At most 4,096.
        chunks: Vec<Ino>,
        /// Whether damage was seen in them.
        damaged: bool,
    },
    /// Makes a content of several chunks out of a file that is longer than a chunk of shards may be, if its place is still
    /// `from`. Who has a use of it keeps it; the file is reclaimed.
    Split {
        /// Which.
        chunk: Ino,
        /// A file, as it was read; `live_bytes` do not matter.
        from: Place,
        /// 1 to [`NEW_CHUNK_COUNT_MAX`] durable chunks of shards with its bytes, in order.
        pieces: Vec<NewChunk>,
    },
    /// Raises the catalog's feature level; a level that it has reached changes nothing. A node that does not know the
    /// level stops here.
    RaiseLevel {
        /// From 1. What every member knows.
        to: u32,
    },
    /// What a file system asks.
    File {
        /// The bucket that is its tree.
        bucket: BucketId,
        /// On whose behalf.
        origin: Origin,
        /// What.
        operation: FileOperation,
    },
    /// Stores, replaces or removes a record, if what is there is still what its writer has seen.
    SetRecord {
        /// Of what.
        kind: RecordKind,
        /// 1 to 128 bytes.
        name: String,
        /// What is there; none: nothing.
        was: Option<Bytes>,
        /// What shall be, at most [`RECORD_MAX_BYTES`]; none: nothing.
        value: Option<Bytes>,
    },
    /// What is asked of copies of whole prefixes.
    Clone(CloneOperation),
    /// The session delivers events from now on.
    ClaimEvents {
        /// Who did, and has ended; 0: nobody yet.
        from: SessionId,
    },
    /// Events were delivered by the session that delivers them: at most 4,096 of them are forgotten.
    EventsDelivered {
        /// The last of them.
        through: Seq,
    },
}

/// What a record is of. What is in it the catalog does not know. Ordinals are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RecordKind {
    /// Somebody who has access keys.
    User,
    /// What lets a node join.
    Token,
    /// A node that joined.
    Node,
}

/// The most bytes of a record.
pub const RECORD_MAX_BYTES: usize = 256 << 10;

impl RecordKind {
    /// As rows have it.
    pub(super) fn number(self) -> i64 {
        match self {
            RecordKind::User => 0,
            RecordKind::Token => 1,
            RecordKind::Node => 2,
        }
    }
}

/// What a write under a key did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Written {
    /// The new version; a client is told its id only where the bucket was ever versioned.
    pub version: VersionId,
    /// Whether versioning was ever enabled here.
    pub ever_versioned: bool,
    /// When it was written: the envelope's clock.
    pub modified: Timestamp,
    /// Entity tag of what stands there now.
    pub etag: ETag,
}

/// What deleting one key did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Deleted {
    /// The version deleted, or the delete marker made; none: there was nothing, or nothing to tell.
    pub version: Option<VersionId>,
    /// Whether `version` is a delete marker (made or removed).
    pub delete_marker: bool,
}

/// What came of a command. Ordinals are stable.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; nothing to tell.
    Done,
    /// Refused; nothing changed.
    Refused(Refusal),
    /// A session was opened.
    Session(SessionId),
    /// Ids were leased: half-open.
    Ids {
        /// The first.
        start: Ino,
        /// After the last.
        end: Ino,
    },
    /// A version was written.
    Written(Written),
    /// An outcome for each key, in order.
    Deleted(Vec<Result<Deleted, Refusal>>),
    /// The dead list was drained, or an upload of parts that are not listed: what remains (0: nothing).
    Drained {
        /// Rows of the dead list, counted up to 1,000; or parts.
        remaining: u32,
    },
    /// A version was changed.
    Changed {
        /// Which.
        version: VersionId,
    },
    /// A clone was begun, or went on.
    Cloning {
        /// Which.
        clone: Ino,
        /// Whether nothing is left to do for it.
        is_over: bool,
    },
}

/// Why `apply` refused a command. Ordinals are stable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The session has ended.
    #[error("the session has ended")]
    NoSession,
    /// A new id is not leased to the session, or is in use.
    #[error("id {0} is not leased to this session")]
    NotLeased(Ino),
    /// No such bucket.
    #[error("no such bucket")]
    NoSuchBucket,
    /// The name is taken.
    #[error("the bucket exists")]
    BucketExists {
        /// By whom.
        owner: String,
    },
    /// The bucket has keys, versions or uploads.
    #[error("the bucket is not empty")]
    BucketNotEmpty,
    /// The state of the bucket does not allow it.
    #[error("not allowed in the bucket's state")]
    InvalidBucketState,
    /// No current version under the key.
    #[error("no such key")]
    NoSuchKey,
    /// No such version under the key.
    #[error("no such version")]
    NoSuchVersion,
    /// The version is a delete marker.
    #[error("the version is a delete marker")]
    IsDeleteMarker,
    /// A precondition does not hold.
    #[error("the precondition {0} does not hold")]
    PreconditionFailed(String),
    /// The content to share is no more.
    #[error("the source is gone")]
    SourceGone,
    /// No such upload under this key.
    #[error("no such upload")]
    NoSuchUpload,
    /// A listed part is not there or has another tag.
    #[error("part {number} is missing or has another tag")]
    InvalidPart {
        /// Which.
        number: u32,
    },
    /// The list of parts does not ascend, or is empty.
    #[error("the parts are not in ascending order")]
    InvalidPartOrder,
    /// A part other than the last is too small.
    #[error("part {number} is too small")]
    PartTooSmall {
        /// Which.
        number: u32,
        /// Its length.
        size_bytes: u64,
    },
    /// Retention or a legal hold forbids it.
    #[error("the version is locked")]
    Locked,
    /// The command breaks a bound (sizes, counts) that its proposer should have kept.
    #[error("the command is out of bounds: {0}")]
    OutOfBounds(String),
    /// The cluster's map has another epoch.
    #[error("the cluster's map is of epoch {epoch}")]
    MapChanged {
        /// The current one; 0: there is no map.
        epoch: u64,
    },
    /// The chunk is no more, or lies elsewhere by now.
    #[error("chunk {0} is not where it was")]
    PlaceChanged(Ino),
    /// No such file or directory.
    #[error("no such file or directory")]
    NoEntry,
    /// The name is taken.
    #[error("the name is taken")]
    EntryExists,
    /// What is used as a directory is none.
    #[error("not a directory")]
    NotDirectory,
    /// What is used as a file is a directory.
    #[error("it is a directory")]
    IsDirectory,
    /// The directory has entries, some perhaps that only S3 sees.
    #[error("the directory is not empty")]
    DirectoryNotEmpty,
    /// History keeps a directory where it is.
    #[error("history does not move with its directory")]
    CrossDevice,
    /// What is asked for is not done here.
    #[error("the operation is not permitted")]
    NotPermitted,
    /// The inode has as many names as it may.
    #[error("too many names")]
    TooManyLinks,
    /// The name is longer than a name may be.
    #[error("the name is too long")]
    NameTooLong,
    /// A name that this namespace does not hold.
    #[error("the name is not valid")]
    InvalidName,
    /// The inode is no more.
    #[error("the inode is no more")]
    Stale,
    /// A directory would come to lie below itself.
    #[error("a directory would come to lie below itself")]
    Cycle,
    /// The file would be longer than a file may be.
    #[error("the file would be too long")]
    FileTooLarge,
    /// No such extended attribute.
    #[error("no such extended attribute")]
    NoXattr,
    /// The extended attribute is there.
    #[error("the extended attribute is there already")]
    XattrExists,
    /// The extended attributes of one inode would take too much room.
    #[error("too many extended attributes")]
    XattrTooLarge,
    /// Nothing that is looked for lies behind this offset.
    #[error("no such offset")]
    NoSuchOffset,
    /// Nothing may be changed here.
    #[error("read-only")]
    ReadOnly,
    /// The command would touch more rows than one command may: it is to be done in smaller ones.
    #[error("too much for one command")]
    TooManyRows,
    /// The content is another one by now.
    #[error("the content of inode {0} has changed")]
    RevisionChanged(Ino),
    /// Somebody else has locked some of the bytes.
    #[error("somebody else has locked it")]
    LockHeld,
    /// One owner has as many locks on an inode as it may have.
    #[error("too many locks")]
    TooManyLocks,
    /// The record is not what its writer has seen.
    #[error("somebody else has changed it meanwhile")]
    RecordChanged,
    /// As many prefixes are being copied as may be at once.
    #[error("too many copies of prefixes are under way")]
    TooManyClones,
}

impl Envelope {
    /// One version byte, then postcard.
    pub fn encode(&self) -> Vec<u8> {
        types::encode(self)
    }

    /// The inverse of [`Envelope::encode`].
    ///
    /// # Errors
    /// `Undecodable`: not these bytes, or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        types::decode("command", bytes)
    }
}

impl Outcome {
    /// One version byte, then postcard.
    pub fn encode(&self) -> Vec<u8> {
        types::encode(self)
    }

    /// The inverse of [`Outcome::encode`].
    ///
    /// # Errors
    /// `Undecodable`: not these bytes, or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        types::decode("outcome", bytes)
    }
}

impl Written {
    /// One version byte, then postcard.
    pub fn encode(&self) -> Vec<u8> {
        types::encode(self)
    }

    /// The inverse of [`Written::encode`].
    ///
    /// # Errors
    /// `Undecodable`: not these bytes, or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        types::decode("written", bytes)
    }
}

#[cfg(test)]
mod tests;
