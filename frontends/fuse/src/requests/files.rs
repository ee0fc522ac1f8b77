//! Bytes: opening, reading, writing, and what else is done to open files.

use std::time::Instant;

use bytes::Bytes;
use nix::errno::Errno;
use nix::libc;
use predastore::catalog::{FileKind, Stat};
use predastore::ids::Ino;
use predastore::object::Error;
use predastore::object::tree::{Allocate, NewKind, Seek, WriteRoom};

use super::{Call, Requests};
use crate::invalidate::Event;
use crate::namespace::Namespace;
use crate::patience::Repeat;

/// As many bytes as one `copy_file_range(2)` copies at most, so that each ends in time; programs ask again for the rest.
const COPY_BYTES_MAX: u64 = 1 << 30;

/// What an open gives the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Opened {
    pub(crate) stat: Stat,
    /// What requests of this open file will carry: see [`crate::caches::Handles`].
    pub(crate) handle: u64,
    pub(crate) keeps_pages: bool,
}

/// A WRITE.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) offset: u64,
    pub(crate) data: Bytes,
    /// The flags of the open file.
    pub(crate) flags: i32,
    /// Pages of a mapping, whose file handle and flags are the kernel's guess.
    pub(crate) is_from_mapping: bool,
}

impl<T: Namespace> Requests<T> {
    /// Opens a file; `flags` of `open(2)`.
    pub(crate) async fn open(&self, call: &Call, ino: Ino, flags: i32) -> Result<Opened, Errno> {
        let truncates = flags & libc::O_TRUNC != 0;
        if truncates || flags & libc::O_ACCMODE != libc::O_RDONLY {
            self.may_change()?;
        }
        let stat = self.ask(call, ino, Repeat::Safe, || self.tree.open(ino, truncates)).await?;
        self.unless_late(call, ino).await?;
        let keeps_pages = stat.kind == FileKind::File && self.pages.opened(ino, stat.revision);
        Ok(Opened { stat: self.shown(stat), handle: self.handles.next(ino, stat.revision), keeps_pages })
    }

    /// Makes a file and opens it.
    ///
    /// The kernel asks for this where it knows of no such name. If there is one by now and the program did not insist on a
    /// new file, the answer is ESTALE: the kernel looks again, and opens with the permission checks that this skips.
    pub(crate) async fn create(
        &self,
        call: &Call,
        parent: Ino,
        name: &[u8],
        mode: u32,
        flags: i32,
    ) -> Result<Opened, Errno> {
        let asked = Instant::now();
        let new = self.new_node(call, parent, mode, NewKind::File).await?;
        let made = self.ask(call, parent, Repeat::Known, || self.tree.make_open(parent, name, new.clone())).await;
        let stat = match made {
            Err(Errno::EEXIST) if flags & libc::O_EXCL == 0 => return Err(Errno::ESTALE),
            made => made?,
        };
        self.unless_late(call, stat.ino).await?;
        self.pages.made(stat.ino, stat.revision);
        self.plain_files.put(stat.ino, (), asked);
        Ok(Opened { stat: self.shown(stat), handle: self.handles.next(stat.ino, stat.revision), keeps_pages: true })
    }

    /// Opens a directory: it stays, with its inode, until released. Returns its handle.
    pub(crate) async fn open_directory(&self, call: &Call, ino: Ino) -> Result<u64, Errno> {
        self.ask(call, ino, Repeat::Safe, || self.tree.open(ino, false)).await?;
        self.unless_late(call, ino).await?;
        Ok(self.handles.next(ino, 0))
    }

    /// An open that comes after its deadline was answered with EIO: nobody will release it.
    async fn unless_late(&self, call: &Call, ino: Ino) -> Result<(), Errno> {
        if !call.deadline.has_passed() {
            return Ok(());
        }
        self.ask(call, ino, Repeat::Once, || self.tree.release(ino)).await?;
        Err(Errno::EIO)
    }

    /// The last use of one open file or directory has ended. `owner`: by whom something was locked through it.
    pub(crate) async fn release(&self, call: &Call, ino: Ino, handle: u64, owner: Option<u64>) -> Result<(), Errno> {
        if let Some(owner) = owner {
            // What it was to tell the last close told already.
            let _ = self.unlock_all(call, ino, owner, Some(handle)).await;
        }
        // One that the process before this one answered is not among those that the tree has counted.
        match self.handles.ended(ino, handle) {
            true => self.ask(call, ino, Repeat::Once, || self.tree.release(ino)).await,
            false => self.ask(call, ino, Repeat::Once, || self.tree.release_former(ino)).await,
        }
    }

    /// `len` bytes from `offset`; fewer only at the end of the file. `is_noted`: it is an access that counts.
    pub(crate) async fn read(
        &self,
        call: &Call,
        (ino, handle): (Ino, u64),
        (offset, len): (u64, u64),
        is_noted: bool,
    ) -> Result<Bytes, Errno> {
        self.pages.used(ino, handle);
        let bytes = self.ask(call, ino, Repeat::Safe, || self.tree.read(ino, offset, len)).await?;
        if is_noted && self.options.access_times.files && !self.options.read_only {
            self.tree.accessed(ino);
        }
        Ok(bytes)
    }

    /// Waits for memory for so many bytes of a WRITE.
    pub(crate) async fn hold_write(&self, len_bytes: u32) -> Result<WriteRoom, Error> {
        self.tree.hold_write(len_bytes.into()).await
    }

    /// Writes all of it.
    pub(crate) async fn write(&self, call: &Call, ino: Ino, written: Written) -> Result<(), Errno> {
        self.may_change()?;
        let Written { offset, data, flags, is_from_mapping } = written;
        if flags & libc::O_APPEND == 0 || is_from_mapping {
            return self.ask(call, ino, Repeat::Safe, || self.tree.write(ino, offset, data.clone())).await;
        }
        let landed = self.ask(call, ino, Repeat::Known, || self.tree.append(ino, data.clone())).await?;
        if landed != offset {
            // Somebody else appended meanwhile. The kernel's pages have these bytes where it thought the end was.
            self.changed(Event::Inode(ino));
        }
        Ok(())
    }

    /// A close: as [`Requests::flush`]; and what the process has locked is let go. `owner`: the process.
    pub(crate) async fn close(&self, call: &Call, ino: Ino, handle: u64, owner: u64) -> Result<(), Errno> {
        let flushed = self.flush(call, ino, handle).await;
        self.unlock_all(call, ino, owner, None).await?;
        flushed
    }

    /// fsync: what was written is durable, and seen by others.
    pub(crate) async fn flush(&self, call: &Call, ino: Ino, handle: u64) -> Result<(), Errno> {
        self.pages.used(ino, handle);
        self.ask(call, ino, Repeat::Safe, || self.tree.flush(ino)).await
    }

    /// fallocate; `mode` of `fallocate(2)`.
    pub(crate) async fn allocate(&self, call: &Call, ino: Ino, offset: u64, len: u64, mode: i32) -> Result<(), Errno> {
        self.may_change()?;
        let mode = allocation(mode)?;
        let end = offset.checked_add(len).filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::EFBIG)?;
        self.ask(call, ino, Repeat::Safe, || self.tree.allocate(ino, offset..end, mode)).await
    }

    /// lseek; the kernel does all but SEEK_DATA and SEEK_HOLE itself.
    pub(crate) async fn seek(&self, call: &Call, ino: Ino, offset: i64, whence: i32) -> Result<i64, Errno> {
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return Err(Errno::EINVAL),
        };
        let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        let found = self.ask(call, ino, Repeat::Safe, || self.tree.seek(ino, offset, what)).await?;
        i64::try_from(found).map_err(|_| Errno::EOVERFLOW)
    }

    /// copy_file_range. Returns how many bytes were copied: maybe fewer.
    pub(crate) async fn copy_range(
        &self,
        call: &Call,
        from: (Ino, u64),
        to: (Ino, u64),
        len: u64,
        flags: u64,
    ) -> Result<u32, Errno> {
        self.may_change()?;
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        let len = len.min(COPY_BYTES_MAX);
        let copied = self.ask(call, to.0, Repeat::Safe, || self.tree.copy_range(from, to, len)).await?;
        u32::try_from(copied).map_err(|_| Errno::EIO)
    }
}

fn allocation(mode: i32) -> Result<Allocate, Errno> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode {
        0 => Ok(Allocate::Extend),
        KEEP => Ok(Allocate::KeepSize),
        PUNCH => Ok(Allocate::PunchHole),
        ZERO => Ok(Allocate::ZeroRange { keep_size: false }),
        ZERO_KEEP => Ok(Allocate::ZeroRange { keep_size: true }),
        _ => Err(Errno::EOPNOTSUPP),
    }
}
