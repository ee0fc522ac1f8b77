//! What the log asks of a disk, and the real one.
//!
//! Assumptions about the media: a synced write stays as it was written; a write that was not synced may be there in any
//! part, in any order, and may leave the blocks it covers (and no others) unreadable as what they were; directory
//! changes reach the disk in order, and are there once the directory is synced.

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One directory of files. Names are plain file names.
pub(crate) trait Disk: Send + Sync {
    /// The names in the directory, which is created if it is missing.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates an empty file; what was there under that name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file over whatever has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// A number that no other log has.
    fn fresh_id(&self) -> io::Result<u64>;
    /// A write or a sync has failed, and nobody can know what the disk holds: ends the process. Only a simulated disk
    /// comes back from here.
    fn fatal(&self, why: &str);
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`, whole or not at all.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file `len` bytes long, zeros where nothing was written, with room for all of it on the disk.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Gives back the whole blocks of a range, which reads as zeros from then on.
    fn punch(&self, range: Range<u64>) -> io::Result<()>;
    /// Cuts the file off at `len`.
    fn trim(&self, len: u64) -> io::Result<()>;
    /// What it takes on the disk, bytes.
    fn allocated(&self) -> io::Result<u64>;
    /// fdatasync: everything written before is durable afterwards.
    fn sync(&self) -> io::Result<()>;
    /// From here on reads answer what the disk holds. After a failed sync the kernel keeps pages in memory, marked
    /// clean, that never reached the disk; whoever recovers from them would take them for durable.
    fn settle(&self) -> io::Result<()>;
}

/// Asks again for as long as the call is interrupted, as it is when the process is stopped and goes on.
fn uninterrupted(call: impl Fn() -> nix::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            answer => return Ok(answer?),
        }
    }
}

/// Whether a disk said that it has no room, or that we may not use what it has.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a disk said that it cannot give back what was written: damage, of which the rest of the disk knows nothing.
pub(super) fn is_unreadable(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EIO | Errno::EBADMSG | Errno::EUCLEAN | Errno::EREMOTEIO))
}

/// Ends the process at once, after what cannot be survived: the next start recovers from the log.
pub(crate) fn end_process(why: &str) -> ! {
    tracing::error!("{why}; the process ends here, to recover at the next start");
    // Tests have nobody who listens, and libtest takes along what it has caught.
    #[cfg(test)]
    let _ = std::io::Write::write_fmt(&mut io::stderr(), format_args!("{why}\n"));
    std::process::abort()
}

/// A directory of the file system.
pub(crate) struct RealDisk {
    dir: PathBuf,
}

impl RealDisk {
    pub(crate) fn new(dir: &Path) -> RealDisk {
        RealDisk { dir: dir.to_path_buf() }
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        if !self.dir.exists() {
            fs::create_dir_all(&self.dir)?;
            if let Some(parent) = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        let names = fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        Ok(Arc::new(RealFile(options.open(self.dir.join(name))?)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.dir.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn fresh_id(&self) -> io::Result<u64> {
        let mut id = [0; 8];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| io::Error::other("the system gives no random bytes"))?;
        Ok(u64::from_le_bytes(id))
    }

    fn fatal(&self, why: &str) {
        end_process(&format!("the log in {} cannot be written: {why}", self.dir.display()));
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let len = i64::try_from(len).map_err(io::Error::other)?;
        uninterrupted(|| fallocate(&self.0, FallocateFlags::empty(), 0, len))
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        let (start, len) = (range.start as i64, (range.end - range.start) as i64);
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        uninterrupted(|| fallocate(&self.0, flags, start, len))
    }

    fn trim(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.blocks() * 512)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn settle(&self) -> io::Result<()> {
        self.0.sync_data()?;
        Ok(posix_fadvise(&self.0, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
    }
}
