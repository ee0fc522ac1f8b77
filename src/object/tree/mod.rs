//! A bucket as a tree of inodes: what a file system asks of the store.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

use crate::catalog::{RenameMode, Stat, TreeEntry};
use crate::env::Timestamp;
use crate::ids::Ino;

use super::{Error, Store};

/// A bucket, or a directory in one, as a tree of inodes. Cheap to clone.
#[derive(Clone)]
pub struct Tree {
    store: Store,
    root: Ino,
}

/// A new inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewNode {
    /// Permission bits, with suid, sgid and the sticky bit.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it is.
    pub kind: NewKind,
}

/// What a new inode is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NewKind {
    /// An empty file.
    File,
    /// An empty directory.
    Directory,
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device with its number.
    CharDevice(u64),
    /// A block device with its number.
    BlockDevice(u64),
}

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// This gateway's clock.
    Now,
    /// This one.
    At(Timestamp),
}

/// Which attributes to set.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SetStat {
    /// Permission bits, with suid, sgid and the sticky bit.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length: bytes beyond it go, bytes up to it are zeros.
    pub size_bytes: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the content.
    pub mtime: Option<SetTime>,
    /// Whether suid goes, and sgid of what its group may execute.
    pub kill_privileges: bool,
}

/// What `fallocate(2)` does to a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocate {
    /// The file reaches to the end of the range.
    Extend,
    /// Nothing that could be seen.
    KeepSize,
    /// The range is zeros; the length stays.
    PunchHole,
    /// The range is zeros.
    ZeroRange {
        /// Whether the length stays.
        keep_size: bool,
    },
}

/// What `lseek(2)` looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    /// Bytes that were written.
    Data,
    /// A hole, or the end.
    Hole,
}

/// Whether an extended attribute may or must be there before it is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    /// As it comes.
    Any,
    /// It must not be there.
    Create,
    /// It must be there.
    Replace,
}

/// Room, for `statfs(2)`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TreeSpace {
    /// Of the disk.
    pub total_bytes: u64,
    /// Left on it.
    pub free_bytes: u64,
    /// Files in the bucket.
    pub file_count: u64,
}

impl Store {
    /// Opens the tree of `bucket`, or that of the directory `prefix` in it ("" is the whole bucket; "a/b" and "a/b/" mean
    /// the same). `staging`: a directory of this process for bytes that are not committed yet; what a killed process left
    /// there is taken up.
    ///
    /// # Errors
    /// `NoSuchBucket`, `NoEntry`, `NotDirectory`; `Io`: the staging directory. `Unavailable`.
    pub async fn tree(&self, bucket: &str, prefix: &[u8], staging: &Path) -> Result<Tree, Error> {
        let _ = (bucket, prefix, staging);
        Err(stub())
    }
}

fn stub() -> Error {
    Error::Unavailable("not there yet".into())
}

macro_rules! stubs {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        impl Tree {
            $($(#[$doc])* pub async fn $name(&self, $($arg: $type),*) -> Result<$out, Error> { $(let _ = $arg;)* Err(stub()) })*
        }
    };
}

stubs! {
    /// Stub.
    fn lookup(parent: Ino, name: &[u8]) -> Stat;
    /// Stub.
    fn stat(ino: Ino) -> Stat;
    /// Stub.
    fn set_stat(ino: Ino, set: SetStat) -> Stat;
    /// Stub.
    fn make(parent: Ino, name: &[u8], new: NewNode) -> Stat;
    /// Stub.
    fn make_open(parent: Ino, name: &[u8], new: NewNode) -> Stat;
    /// Stub.
    fn link(ino: Ino, parent: Ino, name: &[u8]) -> Stat;
    /// Stub.
    fn unlink(parent: Ino, name: &[u8]) -> ();
    /// Stub.
    fn remove_directory(parent: Ino, name: &[u8]) -> ();
    /// Stub.
    fn rename(from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> ();
    /// Stub.
    fn read_link(ino: Ino) -> Vec<u8>;
    /// Stub.
    fn list(directory: Ino, after: Option<&[u8]>, limit: usize) -> Vec<TreeEntry>;
    /// Stub.
    fn parent(directory: Ino) -> Ino;
    /// Stub.
    fn open(ino: Ino, truncate: bool) -> Stat;
    /// Stub.
    fn release(ino: Ino) -> ();
    /// Stub.
    fn read(ino: Ino, offset: u64, len: u64) -> Bytes;
    /// Stub.
    fn write(ino: Ino, offset: u64, data: Bytes) -> ();
    /// Stub.
    fn append(ino: Ino, data: Bytes) -> u64;
    /// Stub.
    fn flush(ino: Ino) -> ();
    /// Stub.
    fn allocate(ino: Ino, range: Range<u64>, mode: Allocate) -> ();
    /// Stub.
    fn seek(ino: Ino, offset: u64, what: Seek) -> u64;
    /// Stub.
    fn copy_range(from: (Ino, u64), to: (Ino, u64), len: u64) -> u64;
    /// Stub.
    fn xattr(ino: Ino, name: &[u8]) -> Option<Vec<u8>>;
    /// Stub.
    fn xattrs(ino: Ino) -> Vec<Vec<u8>>;
    /// Stub.
    fn set_xattr(ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> ();
    /// Stub.
    fn remove_xattr(ino: Ino, name: &[u8]) -> ();
    /// Stub.
    fn space() -> TreeSpace;
}

impl Tree {
    /// The root directory.
    pub fn root(&self) -> Ino {
        let _ = &self.store;
        self.root
    }

    /// Whether nothing may be changed: a bucket with object lock.
    pub fn read_only(&self) -> bool {
        false
    }
}
