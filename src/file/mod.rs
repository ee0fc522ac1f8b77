//! The `plain` layout: one file per chunk on one node.
//!
//! ```text
//! DIR/xx/<16 hex>          a durable chunk, named by its id; xx: bits 12 to 19 of the id
//! DIR/tmp/<16 hex>         a chunk being written; removed at the next start
//! DIR/quarantine/<16 hex>  a chunk that nothing named when the sweep looked
//! ```
//!
//! Ids are leased in runs of 4,096, so the chunks of one time share a fan-out directory: one fsync of it serves
//! all who wait.
//!
//! Invariants
//! - A file under its durable name is whole and synced: it is written under another name, synced, renamed, and
//!   the directory synced, before anybody hears of it. An id is written once, so a name never changes its bytes.
//! - No byte is returned whose segment was not verified against the checksum it was written with ([`mod@format`]).
//! - A failed sync is final: the file is discarded, nothing is retried, and the fatal hook is called, because what
//!   the kernel dropped may have been any file's.

mod directory;
mod format;
mod reader;
pub mod remote;
mod writer;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use std::ops::Range;

use crate::env::Timestamp;
use crate::ids::Ino;

use directory::GroupSync;
pub use reader::Chunk;
pub use writer::{WRITE_BYTES, Writer};

/// What goes wrong with chunk files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such chunk.
    #[error("chunk {0} is not here")]
    NotFound(Ino),
    /// The bytes are not those that were written.
    #[error("chunk {chunk} is damaged: {what}")]
    Corrupt {
        /// Which.
        chunk: Ino,
        /// How.
        what: String,
    },
    /// The disk is full.
    #[error("the disk is full")]
    Full,
    /// The disk failed.
    #[error("chunk files: {0}")]
    Io(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full,
            _ => Error::Io(error),
        }
    }
}

/// Called with the reason when a sync failed: nothing written lately can be trusted to be there.
pub type Fatal = Arc<dyn Fn(&io::Error) + Send + Sync>;

/// The chunk files of one node. All calls block; cheap to clone.
#[derive(Clone)]
pub struct Files(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    fan_out: Vec<GroupSync>,
    fatal: Fatal,
    sync: fn(&File) -> io::Result<()>,
}

/// Directories that the chunks are spread over.
pub const FAN_OUT: usize = 256;

/// A file of a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The chunk.
    pub chunk: Ino,
    /// When its file was last written or moved (the file system's clock).
    pub changed: Timestamp,
    /// Length of the file.
    pub file_bytes: u64,
}

/// What one directory holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    /// Chunks, in no order.
    pub chunks: Vec<Listed>,
    /// Names that this store does not give.
    pub foreign: Vec<OsString>,
}

/// Room on the file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// All of it, bytes.
    pub total_bytes: u64,
    /// What is left to an ordinary user, bytes.
    pub available_bytes: u64,
}

impl Space {
    /// That of the file system that `dir` is on.
    ///
    /// # Errors
    /// What statvfs says.
    pub fn of(dir: &Path) -> io::Result<Space> {
        let stat = nix::sys::statvfs::statvfs(dir)?;
        let unit = stat.fragment_size();
        Ok(Space { total_bytes: stat.blocks() * unit, available_bytes: stat.blocks_available() * unit })
    }
}

impl Files {
    /// Opens or makes the store in `dir`; removes temporary files of an earlier run. `fatal` is called when a sync
    /// fails.
    ///
    /// # Errors
    /// `Io`, `Full`: the disk.
    pub fn open(dir: PathBuf, fatal: Fatal) -> Result<Files, Error> {
        Self::open_with(dir, fatal, File::sync_data)
    }

    fn open_with(dir: PathBuf, fatal: Fatal, sync: fn(&File) -> io::Result<()>) -> Result<Files, Error> {
        make_directories(&dir)?;
        for entry in fs::read_dir(dir.join("tmp"))? {
            fs::remove_file(entry?.path())?;
        }
        let fan_out =
            (0..FAN_OUT).map(|index| GroupSync::open(&dir.join(fan_out_name(index)))).collect::<io::Result<_>>()?;
        Ok(Files(Arc::new(Inner { dir, fan_out, fatal, sync })))
    }

    /// Begins a chunk under a fresh id. `len_bytes`, where known, reserves its room at once.
    ///
    /// # Errors
    /// `Full`, `Io`.
    pub fn create(&self, chunk: Ino, len_bytes: Option<u64>) -> Result<Writer, Error> {
        Writer::create(self.clone(), chunk, len_bytes)
    }

    /// Opens a chunk for reading.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt`: its length or its footer are not what was written; `Io`.
    pub fn chunk(&self, chunk: Ino) -> Result<Chunk, Error> {
        Chunk::open(chunk, &self.path(chunk))
    }

    /// Reads `range` (within the chunk's length), every covering segment verified.
    ///
    /// # Errors
    /// As [`Files::chunk`] and [`Chunk::read`].
    pub fn read(&self, chunk: Ino, range: Range<u64>) -> Result<Bytes, Error> {
        self.chunk(chunk)?.read(range)
    }

    /// Removes a chunk; no error if it is gone already. Not synced: what a power cut brings back is swept again.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove(&self, chunk: Ino) -> Result<(), Error> {
        remove_if_there(&self.path(chunk))
    }

    /// Moves a chunk out of the way, to `quarantine/`.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub fn quarantine(&self, chunk: Ino) -> Result<(), Error> {
        fs::rename(self.path(chunk), self.quarantine_path(chunk)).map_err(|error| not_found(chunk, error))
    }

    /// Chunks in quarantine.
    ///
    /// # Errors
    /// `Io`.
    pub fn quarantined(&self) -> Result<Listing, Error> {
        list(&self.0.dir.join("quarantine"))
    }

    /// Removes a chunk from quarantine for good; no error if it is gone already.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove_quarantined(&self, chunk: Ino) -> Result<(), Error> {
        remove_if_there(&self.quarantine_path(chunk))
    }

    /// Reads a whole chunk and compares length and checksums, those of the trailer too. Returns its length.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt`, `Io`.
    pub fn verify(&self, chunk: Ino) -> Result<u64, Error> {
        self.chunk(chunk)?.verify()
    }

    /// What fan-out directory `index` (below [`FAN_OUT`]) holds.
    ///
    /// # Errors
    /// `Io`.
    pub fn list(&self, index: usize) -> Result<Listing, Error> {
        list(&self.0.dir.join(fan_out_name(index)))
    }

    /// How many chunks are being written, or were when a process died since the last start.
    ///
    /// # Errors
    /// `Io`.
    pub fn temporary_count(&self) -> Result<usize, Error> {
        Ok(fs::read_dir(self.0.dir.join("tmp"))?.count())
    }

    /// Room on the file system of the chunks.
    ///
    /// # Errors
    /// `Io`.
    pub fn space(&self) -> Result<Space, Error> {
        Ok(Space::of(&self.0.dir)?)
    }

    fn path(&self, chunk: Ino) -> PathBuf {
        self.0.dir.join(fan_out_name(fan_out_index(chunk))).join(file_name(chunk))
    }

    fn temporary_path(&self, chunk: Ino) -> PathBuf {
        self.0.dir.join("tmp").join(file_name(chunk))
    }

    fn quarantine_path(&self, chunk: Ino) -> PathBuf {
        self.0.dir.join("quarantine").join(file_name(chunk))
    }

    /// Syncs a file's data, or says that the process must stop.
    fn sync(&self, file: &File) -> Result<(), Error> {
        self.or_fatal((self.0.sync)(file))
    }

    /// Syncs the directory of `chunk`, together with all who wait for the same one.
    fn sync_directory(&self, chunk: Ino) -> Result<(), Error> {
        self.or_fatal(self.0.fan_out[fan_out_index(chunk)].sync(self.0.sync))
    }

    fn or_fatal(&self, result: io::Result<()>) -> Result<(), Error> {
        result.map_err(|error| {
            (self.0.fatal)(&error);
            Error::Io(error)
        })
    }
}

fn fan_out_index(chunk: Ino) -> usize {
    (chunk.0 >> 12) as usize % FAN_OUT
}

fn fan_out_name(index: usize) -> String {
    format!("{index:02x}")
}

fn file_name(chunk: Ino) -> String {
    format!("{:016x}", chunk.0)
}

fn chunk_of(name: &std::ffi::OsStr) -> Option<Ino> {
    let text = name.to_str().filter(|text| text.len() == 16)?;
    let chunk = Ino(u64::from_str_radix(text, 16).ok()?);
    (file_name(chunk) == text).then_some(chunk)
}

fn make_directories(dir: &Path) -> io::Result<()> {
    let names = (0..FAN_OUT).map(fan_out_name).chain(["tmp".into(), "quarantine".into()]);
    for name in names {
        fs::create_dir_all(dir.join(name))?;
    }
    File::open(dir)?.sync_all()?;
    dir.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn list(dir: &Path) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match (chunk_of(&entry.file_name()), entry.metadata()) {
            (None, _) => listing.foreign.push(entry.file_name()),
            (Some(chunk), Ok(metadata)) => listing.chunks.push(listed(chunk, &metadata)),
            (Some(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => {} // removed meanwhile
            (Some(_), Err(error)) => return Err(error.into()),
        }
    }
    Ok(listing)
}

fn listed(chunk: Ino, metadata: &fs::Metadata) -> Listed {
    let changed = Timestamp(metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec()));
    Listed { chunk, changed, file_bytes: metadata.len() }
}

fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn not_found(chunk: Ino, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound(chunk),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests;
