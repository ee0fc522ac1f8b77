//! What POSIX sees of the catalog: inodes with their attributes, entries of directories.

use serde::{Deserialize, Serialize};

use super::{ETag, Posix, SetAttrs};
use crate::env::Timestamp;
use crate::ids::Ino;

/// The type of an inode. Ordinals are stable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file; every S3 object is one.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; its bytes are the target.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

const FORMAT_MASK: u32 = 0o170_000;

/// The longest name of an entry.
pub const NAME_MAX_BYTES: usize = 255;

/// Permission bits, with suid, sgid and the sticky bit.
pub const MODE_MASK: u32 = 0o7_777;

const SUID: u32 = 0o4000;
const SGID: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o010;

/// The mode without what a change of content or owner takes from it.
pub(super) fn without_privileges(mode: u32) -> u32 {
    let sgid = if mode & GROUP_EXECUTES != 0 { SGID } else { 0 };
    mode & !(SUID | sgid)
}

impl SetAttrs {
    /// What attributes become, set at `now`.
    pub fn over(&self, posix: Posix, now: Timestamp) -> Posix {
        let mut mode = self.mode.map_or(posix.mode, |mode| posix.mode & !MODE_MASK | mode & MODE_MASK);
        if self.kills_privileges {
            mode = without_privileges(mode);
        }
        Posix {
            mode,
            uid: self.uid.unwrap_or(posix.uid),
            gid: self.gid.unwrap_or(posix.gid),
            atime: self.atime.unwrap_or(posix.atime),
            mtime: self.mtime.unwrap_or(posix.mtime),
            ctime: now,
            rdev: posix.rdev,
        }
    }
}

impl FileKind {
    /// The type's bits in `st_mode`.
    pub fn format(self) -> u32 {
        match self {
            FileKind::File => 0o100_000,
            FileKind::Directory => 0o040_000,
            FileKind::Symlink => 0o120_000,
            FileKind::Fifo => 0o010_000,
            FileKind::Socket => 0o140_000,
            FileKind::CharDevice => 0o020_000,
            FileKind::BlockDevice => 0o060_000,
        }
    }

    /// The type in `st_mode`; a mode without one is a file's.
    pub fn of_mode(mode: u32) -> Self {
        let kinds = [
            FileKind::Directory,
            FileKind::Symlink,
            FileKind::Fifo,
            FileKind::Socket,
            FileKind::CharDevice,
            FileKind::BlockDevice,
        ];
        kinds.into_iter().find(|kind| kind.format() == mode & FORMAT_MASK).unwrap_or(FileKind::File)
    }
}

/// POSIX attributes of an inode; `posix`: those that it was given.
pub(super) fn posix_of(posix: Option<Posix>, kind: FileKind, modified: Timestamp) -> Posix {
    let mode = kind.format() | if kind == FileKind::Directory { 0o755 } else { 0o644 };
    posix.unwrap_or(Posix { mode, uid: 0, gid: 0, rdev: 0, mtime: modified, ctime: modified, atime: modified })
}

/// An inode's attributes, as `stat(2)` shows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stat {
    /// Which.
    pub ino: Ino,
    /// Its type.
    pub kind: FileKind,
    /// Permission bits with suid, sgid and the sticky bit: at most [`MODE_MASK`].
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names.
    pub nlink: u32,
    /// Of a device.
    pub rdev: u64,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Bytes that are not a hole.
    pub stored_bytes: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// Another one whenever the content changes.
    pub revision: u64,
    /// Of the content, as S3 has it; zeros for a directory.
    pub etag: ETag,
    /// Whether somebody gave it attributes; otherwise mode and owner are what an object or a directory of S3's has.
    pub has_attributes: bool,
}

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeEntry {
    /// Its name, without the `/` of a directory.
    pub name: Vec<u8>,
    /// What it names.
    pub stat: Stat,
}

impl TreeEntry {
    /// Its place in the order of the directory's entries.
    pub fn key(&self) -> Vec<u8> {
        let slash: &[u8] = if self.stat.kind == FileKind::Directory { b"/" } else { b"" };
        [&self.name, slash].concat()
    }
}

/// How a name may be moved. Ordinals are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RenameMode {
    /// What stands at the target goes.
    Replace,
    /// Refused where something stands at the target.
    NoReplace,
    /// Source and target change places.
    Exchange,
}
