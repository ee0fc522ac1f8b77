//! Entries of directories.

use bytes::Bytes;
use md5::Digest as _;

use crate::catalog::{Command, ETag, FileOperation, MODE_MASK, NAME_MAX_BYTES, NewInode, Outcome, Posix, Refusal};
use crate::ids::Ino;
use crate::object::Error;
use crate::object::bucket::unexpected;

use super::{FileKind, NewKind, NewNode, RenameMode, Stat, Tree, TreeEntry, mounting};

impl NewKind {
    fn kind(&self) -> FileKind {
        match self {
            NewKind::File => FileKind::File,
            NewKind::Directory => FileKind::Directory,
            NewKind::Symlink(_) => FileKind::Symlink,
            NewKind::Fifo => FileKind::Fifo,
            NewKind::Socket => FileKind::Socket,
            NewKind::CharDevice(_) => FileKind::CharDevice,
            NewKind::BlockDevice(_) => FileKind::BlockDevice,
        }
    }

    fn rdev(&self) -> u64 {
        match self {
            NewKind::CharDevice(rdev) | NewKind::BlockDevice(rdev) => *rdev,
            _ => 0,
        }
    }
}

/// What is shown of an inode that was made just now, no directory.
fn new_stat(ino: Ino, kind: FileKind, posix: &Posix, target: &[u8]) -> Stat {
    let size_bytes = target.len() as u64;
    Stat {
        ino,
        kind,
        mode: posix.mode & MODE_MASK,
        uid: posix.uid,
        gid: posix.gid,
        nlink: 1,
        rdev: posix.rdev,
        size_bytes,
        stored_bytes: size_bytes,
        atime: posix.atime,
        mtime: posix.mtime,
        ctime: posix.ctime,
        revision: 0,
        etag: ETag { md5: md5::Md5::digest(target).into(), part_count: 0 },
        has_attributes: true,
    }
}

impl Tree {
    /// What stands under a name.
    ///
    /// # Errors
    /// `Refused(NoEntry | NameTooLong)`. `Unavailable`.
    pub async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Stat, Error> {
        if name.len() > NAME_MAX_BYTES {
            return Err(Refusal::NameTooLong.into());
        }
        let (bucket, wanted) = (self.0.bucket.clone(), name.to_vec());
        let found = self.0.store.snapshot(move |view| Ok(view.entry(&bucket, parent, &wanted)?)).await?;
        let stat = found.ok_or(Refusal::NoEntry)?;
        self.note(parent, name, &stat);
        Ok(self.with_written(stat).await)
    }

    /// Entries in the order of their keys ([`TreeEntry::key`]), those after the key `after`, without "." and ".."; up to
    /// `limit`, and some although there are more. None: there are no more.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list(&self, directory: Ino, after: Option<&[u8]>, limit: usize) -> Result<Vec<TreeEntry>, Error> {
        let (bucket, after) = (self.0.bucket.clone(), after.map(<[u8]>::to_vec));
        let query =
            move |view: &crate::catalog::View<'_>| Ok(view.entries(&bucket, directory, after.as_deref(), limit)?);
        let mut entries = self.0.store.snapshot(query).await?;
        for entry in &mut entries {
            self.note(directory, &entry.name, &entry.stat);
            entry.stat = self.with_written(entry.stat).await;
        }
        Ok(entries)
    }

    /// The directory above; of the root: itself.
    ///
    /// # Errors
    /// `Refused(Stale)`. `Unavailable`.
    pub async fn parent(&self, directory: Ino) -> Result<Ino, Error> {
        if directory == self.0.root {
            return Ok(directory);
        }
        let above = self.0.store.snapshot(move |view| Ok(view.directory_above(directory)?)).await?;
        Ok(above.ok_or(Refusal::Stale)?)
    }

    /// Makes an inode under a name that is free.
    ///
    /// # Errors
    /// `Refused(EntryExists | NoEntry | NameTooLong | InvalidName | ReadOnly)`. `Unavailable`.
    pub async fn make(&self, parent: Ino, name: &[u8], new: NewNode) -> Result<Stat, Error> {
        self.make_inode(parent, name, new, false).await
    }

    /// Makes a file and opens it. S3 does not see it until it is flushed.
    ///
    /// # Errors
    /// As [`Tree::make`].
    pub async fn make_open(&self, parent: Ino, name: &[u8], new: NewNode) -> Result<Stat, Error> {
        let stat = self.make_inode(parent, name, new, true).await?;
        self.0.files.open(stat.ino);
        self.hidden(&stat).await;
        Ok(stat)
    }

    async fn make_inode(&self, parent: Ino, name: &[u8], new: NewNode, is_hidden: bool) -> Result<Stat, Error> {
        self.0.store.room.admit(0)?;
        let mut fresh = self.0.store.session.fresh_id().await?;
        let now = self.0.store.now();
        let (kind, rdev) = (new.kind.kind(), new.kind.rdev());
        let mode = kind.format() | new.mode & MODE_MASK;
        let posix = Posix { mode, uid: new.uid, gid: new.gid, rdev, mtime: now, ctime: now, atime: now };
        let target = match new.kind {
            NewKind::Symlink(target) => Bytes::from(target),
            _ => Bytes::new(),
        };
        let made = new_stat(fresh.ino(), kind, &posix, &target);
        let new = NewInode { ino: fresh.ino(), posix, target, is_hidden };
        let operation = FileOperation::Make { parent, name: Bytes::copy_from_slice(name), new };
        let command = Command::File { bucket: self.0.bucket.id, origin: self.origin(true), operation };
        fresh.leave();
        let answer = self.0.store.session.propose_with(std::iter::once(&fresh), command).await;
        match answer {
            Ok(Outcome::Done) => fresh.settle(),
            Ok(Outcome::Refused(refusal)) => {
                fresh.settle();
                return Err(refusal.into());
            }
            Ok(outcome) => return Err(unexpected(&outcome)),
            Err(lost) => return Err(lost.into()),
        }
        // A directory's inode is for the catalog to choose; and what the first of two requests made has another one.
        if kind == FileKind::Directory || mounting::is_again() {
            return self.lookup(parent, name).await;
        }
        self.note(parent, name, &made);
        Ok(made)
    }

    /// Gives an inode another name, which is free.
    ///
    /// # Errors
    /// `Refused(EntryExists | NoEntry | NotPermitted | TooManyLinks | ..)`. `Unavailable`.
    pub async fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Stat, Error> {
        let hint = self.hint(ino);
        self.propose_once(FileOperation::Link { ino, hint, parent, name: Bytes::copy_from_slice(name) }).await?;
        self.lookup(parent, name).await
    }

    /// Takes a name from what is no directory.
    ///
    /// # Errors
    /// `Refused(NoEntry | IsDirectory | ReadOnly)`. `Unavailable`.
    pub async fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), Error> {
        self.propose_once(FileOperation::Unlink { parent, name: Bytes::copy_from_slice(name) }).await?;
        self.0.store.died.notify_one();
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `Refused(NoEntry | NotDirectory | DirectoryNotEmpty | ReadOnly)`. `Unavailable`.
    pub async fn remove_directory(&self, parent: Ino, name: &[u8]) -> Result<(), Error> {
        self.propose_once(FileOperation::RemoveDirectory { parent, name: Bytes::copy_from_slice(name) }).await?;
        self.0.store.died.notify_one();
        Ok(())
    }

    /// Moves a name, at once for all.
    ///
    /// # Errors
    /// `Refused(NoEntry | EntryExists | NotDirectory | IsDirectory | DirectoryNotEmpty | Cycle | CrossDevice | ..)`.
    /// `Unavailable`.
    pub async fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> Result<(), Error> {
        let owned = |(parent, name): (Ino, &[u8])| (parent, Bytes::copy_from_slice(name));
        self.propose_once(FileOperation::Rename { from: owned(from), to: owned(to), mode }).await?;
        self.0.store.died.notify_one();
        Ok(())
    }
}
