//! What a file system asks of the catalog. Ordinals and fields are on disk, as those of [`super::Command`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::catalog::{ETag, NewChunk, Posix, RenameMode};
use crate::env::Timestamp;
use crate::ids::Ino;

/// Which mount asks, and for which request of its kernel's.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// The mount; 0: none.
    pub mount: u64,
    /// The request, if whoever serves the mount next may be sent it once more: what was done for it is not done again. 0:
    /// that cannot be.
    pub request: u64,
    /// Requests of the mount that were answered: nobody is sent them again.
    pub answered: Vec<u64>,
}

/// Where an inode was seen: a directory, and the name in it. For those that no file system has changed yet: only their
/// name tells their length and time.
pub type Hint = Option<(Ino, Bytes)>;

/// Inodes whose times of access one command may set.
pub const ACCESSED_COUNT_MAX: usize = 4096;

/// A new inode.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewInode {
    /// Leased; of a directory it is not used.
    pub ino: Ino,
    /// Type, permissions, owner and times.
    pub posix: Posix,
    /// Of a symbolic link; else empty.
    pub target: Bytes,
    /// Whether it is a file that S3 does not see until its content is written, or its session ends.
    pub is_hidden: bool,
}

/// Which attributes to set.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct SetAttrs {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last access.
    pub atime: Option<Timestamp>,
    /// Last change of the content.
    pub mtime: Option<Timestamp>,
    /// Whether suid goes, and sgid of what its group may execute.
    pub kills_privileges: bool,
}

/// A run of bytes of a file that changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Piece {
    /// Where in the file.
    pub start_bytes: u64,
    /// How many.
    pub len_bytes: u64,
    /// What they become.
    pub source: Source,
}

/// Where the bytes of a piece come from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Source {
    /// Zeros: a hole.
    Hole,
    /// A run of a chunk, new with this command or there already.
    Chunk {
        /// Which.
        chunk: Ino,
        /// Where in it.
        start_bytes: u64,
    },
}

/// What a file's content becomes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Content {
    /// All of it: at most [`crate::units::BLOCK_BYTES`], kept in the catalog; none: empty.
    Inline(Bytes),
    /// Some of it, ascending, without overlap; the rest stays. Of an inline content they must be all, and say the `base`.
    Pieces(Vec<Piece>),
    /// What it was.
    Same,
}

/// A change of a file's content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Write {
    /// Which file.
    pub ino: Ino,
    /// Where it was seen.
    pub hint: Hint,
    /// The content must still be of this revision: `RevisionChanged`. None: whatever it is.
    pub base: Option<u64>,
    /// What it becomes.
    pub content: Content,
    /// Durable chunks that are new.
    pub chunks: Vec<NewChunk>,
    /// The length that it gets; none: what it was, or the end of the last piece if that is more. Of an inline content it
    /// is not used.
    pub size_bytes: Option<u64>,
    /// Entity tag of the whole; of a content that stays the same, length and all, it is not used.
    pub etag: ETag,
    /// When it was written.
    pub modified: Timestamp,
    /// Whether suid and sgid go.
    pub kills_privileges: bool,
    /// Whether S3 sees the file from now on.
    pub publishes: bool,
}

/// What the end of a lock is that reaches to the end of the file, wherever that comes to be.
pub const LOCK_END: u64 = i64::MAX as u64;

/// A lock on bytes of a file, whether or not they are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lock {
    /// Who, among those of one mount: locks of one owner do not exclude one another.
    pub owner: u64,
    /// The first byte.
    pub start_bytes: u64,
    /// After the last one; at most [`LOCK_END`].
    pub end_bytes: u64,
    /// Whether it excludes all others, or only those that exclude it.
    pub is_exclusive: bool,
    /// The open file through which it was asked for, as the mount tells one from another.
    pub opened: u64,
    /// The process that asked for it; for who asks about it.
    pub pid: u32,
}

/// What a file system asks. Names are of POSIX: a directory's has no `/`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FileOperation {
    /// Makes an inode under a name that is free.
    Make {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Bytes,
        /// What.
        new: NewInode,
    },
    /// Gives an inode another name.
    Link {
        /// Which.
        ino: Ino,
        /// Where it was seen.
        hint: Hint,
        /// Directory.
        parent: Ino,
        /// Name; free.
        name: Bytes,
    },
    /// Takes a name from what is no directory.
    Unlink {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Bytes,
    },
    /// Removes an empty directory.
    RemoveDirectory {
        /// Its parent.
        parent: Ino,
        /// Its name.
        name: Bytes,
    },
    /// Moves a name.
    Rename {
        /// Directory and name.
        from: (Ino, Bytes),
        /// Directory and name.
        to: (Ino, Bytes),
        /// What may become of the target.
        mode: RenameMode,
    },
    /// Sets attributes of an inode, directories too.
    SetAttrs {
        /// Which.
        ino: Ino,
        /// Where it was seen.
        hint: Hint,
        /// Which attributes.
        set: SetAttrs,
    },
    /// Sets or removes an extended attribute.
    SetXattr {
        /// Whose.
        ino: Ino,
        /// Where it was seen.
        hint: Hint,
        /// Its name.
        name: Bytes,
        /// None: it is removed.
        value: Option<Bytes>,
        /// Whether it must be there before (`NoXattr`) or must not (`XattrExists`).
        expected: Option<bool>,
    },
    /// Changes a file's content.
    Write(Write),
    /// Says that the session may have files of the bucket open.
    Mount,
    /// Says that a mount has ended, whose requests nobody is sent any more.
    Unmount {
        /// Whether the session has no other of the bucket: it has no files of it open any more.
        is_last: bool,
    },
    /// Says that the session knows which inodes lost their last name up to the log index `seen`, and holds those of them
    /// that it has open.
    Hold {
        /// Log index.
        seen: u64,
        /// At most 4,096.
        inos: Vec<Ino>,
    },
    /// Says that the session has closed what it held, or files that it made and did not write.
    Release {
        /// At most 4,096.
        inos: Vec<Ino>,
    },
    /// Locks bytes of an inode, in place of what the owner had locked of them. `LockHeld`: somebody else has some of them.
    Lock {
        /// Which.
        ino: Ino,
        /// How.
        lock: Lock,
    },
    /// Lets bytes of an inode go that the mount has locked; what it has not does not matter.
    Unlock {
        /// Which.
        ino: Ino,
        /// Whose.
        owner: u64,
        /// The first byte.
        start_bytes: u64,
        /// After the last one; at most [`LOCK_END`].
        end_bytes: u64,
    },
    /// Keeps some of a file's bytes elsewhere: `base` is said, `content` is pieces of new chunks that have the same bytes, and
    /// nothing else of it counts. Nothing that is shown of the file changes.
    Compact(Write),
    /// Changes a file's content, and then its attributes.
    WriteAndSet {
        /// The content.
        write: Write,
        /// Which attributes.
        set: SetAttrs,
    },
    /// Says when inodes were read, at most [`ACCESSED_COUNT_MAX`]. Those that are no more, have no attributes of their own, or
    /// were read later do not matter.
    Accessed(Vec<(Ino, Timestamp)>),
}
