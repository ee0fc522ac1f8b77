//! A bucket as a tree of inodes: what a file system asks of the store.
//!
//! - `names`: entries of directories. `attributes`: of inodes. `accesses`: when they were read. `open`: who has what open. `read`, `write`: bytes.
//! - `dirty`: which bytes of a file are not committed yet, and where they are: pure. `staging`: where they are kept.
//! - `pending`: attributes of a new file, committed with its bytes.
//! - `stream`: what is written front to back is digested and stored as it comes.
//! - `locks`: who may use which bytes of a file, among all mounts.
//! - `mounting`: the mount that a tree serves, to the catalog and to its kernel, from one process to the next.
//! - `commit`: bytes that were written become the file's. `compact`: what was written in many places is stored anew as one.
//! - `keeper`: what must be said to the catalog now and then.
//!
//! Invariants
//! - What was written is in the staging file before the write returns, and leaves it only after it was committed: a process
//!   that is killed loses none of it.
//! - A file's bytes are changed by one commit at a time, under the file's lock; no lock is held for another file's sake.
//! - What the kernel asked for and got done is not done again for the same request, by this process or the next.
//! - What this process has open and lost its name is held before the catalog may let it go.

mod accesses;
mod attributes;
mod commit;
mod compact;
mod dirty;
mod keeper;
mod locks;
mod mounting;
mod names;
mod open;
mod pending;
mod read;
mod staging;
mod stream;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::catalog::{Bucket, FileOperation, Hint, Refusal};
use crate::env::Timestamp;
use crate::ids::Ino;

use super::{Error, Store};
use accesses::Accesses;
use compact::Scattered;
use locks::Locks;
use mounting::{Mount, Mounted};
use open::Files;
use staging::Staging;

pub use crate::catalog::{Changed, FileKind, LOCK_END, Lock, RenameMode, Stat, TreeEntry};
pub use locks::WHOLE;
pub use mounting::{Knows, Mounting, Request, Watch, for_request, once_more};
pub(super) use mounting::{RETURN_PATIENCE, settle_inheritance};
pub use write::WriteRoom;

/// Names of inodes that no file system has changed yet, of which this process knows at most so many.
const HINT_COUNT_MAX: usize = 1 << 16;

/// A bucket, or a directory in one, as a tree of inodes. Cheap to clone; the last clone ends its background work.
#[derive(Clone)]
pub struct Tree(Arc<Inner>);

pub(super) struct Inner {
    store: Store,
    bucket: Bucket,
    root: Ino,
    staging: Staging,
    files: Files,
    /// Where inodes were seen: a directory, and the name in it.
    hints: Mutex<HashMap<Ino, (Ino, Bytes)>>,
    /// Background work, for as long as the tree lives.
    keepers: Mutex<JoinSet<()>>,
    scattered: Scattered,
    accesses: Accesses,
    /// What the catalog was told to hold for this tree.
    held: Mutex<HashSet<Ino>>,
    mount: Mount,
    locks: Locks,
    /// None until the catalog knows of the tree.
    mounted: Option<Mounted>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is whole at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Whether who sets the length has the file open: then it is committed with what is written, at the next flush.
    pub is_open: bool,
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
    /// the same), for a mount. What a killed process left in its staging directory is committed first, unless the mount has
    /// outlived that process.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket | NoEntry | NotDirectory)`; `Io`: the staging directory. `Unavailable`.
    pub async fn tree(&self, bucket: &str, prefix: &[u8], mounting: Mounting<'_>) -> Result<Tree, Error> {
        let bucket = self.bucket(bucket).await?;
        self.wait_for_level(|view| view.has_locks(), "some process of the cluster knows no file systems yet").await?;
        let mut inner = Inner {
            store: self.clone(),
            root: bucket.id.root(),
            bucket,
            staging: Staging::open(mounting.staging)?,
            files: Files::default(),
            hints: Mutex::default(),
            keepers: Mutex::default(),
            scattered: Scattered::default(),
            accesses: Accesses::default(),
            held: Mutex::default(),
            mount: Mount::new(&mounting),
            locks: Locks::default(),
            mounted: None,
        };
        inner.root = inner.descend(prefix).await?;
        inner.mounted = Some(Mounted::new(self, inner.bucket.id, mounting.id).await?);
        let tree = Tree(Arc::new(inner));
        match mounting.kernel {
            Some(_) => tree.resume().await?,
            None => tree.recover().await?,
        }
        lock(&self.live_trees).push(Arc::downgrade(&tree.0));
        tree.keep();
        Ok(tree)
    }
}

impl Inner {
    /// The directory `path` below the root.
    async fn descend(&self, path: &[u8]) -> Result<Ino, Error> {
        let mut at = self.root;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let (bucket, name) = (self.bucket.clone(), name.to_vec());
            let found = self.store.snapshot(move |view| Ok(view.entry(&bucket, at, &name)?)).await?;
            let stat = found.ok_or(Refusal::NoEntry)?;
            if stat.kind != FileKind::Directory {
                return Err(Refusal::NotDirectory.into());
            }
            at = stat.ino;
        }
        Ok(at)
    }
}

impl Tree {
    /// The root directory.
    pub fn root(&self) -> Ino {
        self.0.root
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.0.bucket.name
    }

    /// Whether nothing may be changed: a bucket with object lock.
    pub fn read_only(&self) -> bool {
        self.0.bucket.lock
    }

    /// Has the catalog do what names no new id, and may be done twice. A refusal is an error.
    async fn propose(&self, operation: FileOperation) -> Result<(), Error> {
        mounting::propose(&self.0.store, self.0.bucket.id, self.origin(false), operation).await
    }

    /// The same of what must not be done twice, whoever answers the kernel in the end.
    async fn propose_once(&self, operation: FileOperation) -> Result<(), Error> {
        mounting::propose(&self.0.store, self.0.bucket.id, self.origin(true), operation).await
    }

    /// Where an inode was seen, for the catalog.
    fn hint(&self, ino: Ino) -> Hint {
        lock(&self.0.hints).get(&ino).cloned()
    }

    /// Notes where an inode was seen that no file system has changed yet, or that has, or had, several names.
    fn note(&self, parent: Ino, name: &[u8], stat: &Stat) {
        if stat.kind == FileKind::Directory {
            return;
        }
        let mut hints = lock(&self.0.hints);
        if stat.revision != 0 && stat.nlink < 2 && !hints.contains_key(&stat.ino) {
            return;
        }
        if hints.len() >= HINT_COUNT_MAX {
            hints.clear();
        }
        hints.insert(stat.ino, (parent, Bytes::copy_from_slice(name)));
    }
}
