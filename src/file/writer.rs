//! Writing a chunk: streamed, checksummed on the way, durable at the end.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use nix::fcntl::{FallocateFlags, fallocate};

use crate::ids::Ino;
use crate::units::{MIB, SEGMENT_BYTES};

use super::format::{self, Footer};
use super::{Error, Files};

/// What a writer holds in memory, and the length of its writes: some segments.
pub const WRITE_BYTES: usize = 4 * SEGMENT_BYTES as usize;
/// Written bytes are sent to the disk in windows of this length while the rest still comes.
const WINDOW_BYTES: u64 = 8 * MIB;
/// So many bytes may be on their way to the disk before the writer waits for the oldest.
const BEHIND_BYTES: u64 = 4 * WINDOW_BYTES;

/// A chunk being written; dropped before [`Writer::finish`], it leaves nothing.
pub struct Writer {
    files: Files,
    chunk: Ino,
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    /// Data bytes written to the file: a multiple of the segment's length until the end.
    len_bytes: u64,
    table: Vec<u8>,
    renamed: bool,
}

impl Writer {
    pub(super) fn create(files: Files, chunk: Ino, len_bytes: Option<u64>) -> Result<Self, Error> {
        let path = files.temporary_path(chunk);
        let file = File::options().write(true).create_new(true).open(&path)?;
        let capacity = len_bytes.map_or(WRITE_BYTES, |len| len.min(WRITE_BYTES as u64) as usize);
        let buffer = Vec::with_capacity(capacity);
        let writer = Writer { files, chunk, path, file, buffer, len_bytes: 0, table: Vec::new(), renamed: false };
        len_bytes.map_or(Ok(()), |len| writer.reserve(len))?;
        Ok(writer)
    }

    /// Takes room for the whole file, where the file system can.
    fn reserve(&self, len_bytes: u64) -> Result<(), Error> {
        let Some(len) = format::file_bytes(len_bytes).and_then(|len| i64::try_from(len).ok()) else {
            return Err(Error::Full);
        };
        match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, len) {
            Ok(()) | Err(nix::Error::EOPNOTSUPP | nix::Error::EINTR) => Ok(()),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }

    /// Appends.
    ///
    /// # Errors
    /// `Full`, `Io`; the writer is then good for nothing but to be dropped.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(WRITE_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(head);
            bytes = rest;
            if self.buffer.len() == WRITE_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Makes the chunk durable under its name. Returns its length.
    ///
    /// # Errors
    /// `Full`, `Io`; the chunk is then not there.
    pub fn finish(mut self) -> Result<u64, Error> {
        self.flush()?;
        let table_crc = format::crc32c(&self.table);
        let footer = Footer { chunk: self.chunk, len_bytes: self.len_bytes, table_crc };
        self.table.extend_from_slice(&footer.encode());
        self.file.write_all(&self.table)?;
        self.files.sync(&self.file)?;
        fs::rename(&self.path, self.files.path(self.chunk))?;
        self.renamed = true;
        self.files.sync_directory(self.chunk)?;
        Ok(self.len_bytes)
    }

    fn flush(&mut self) -> Result<(), Error> {
        for segment in self.buffer.chunks(SEGMENT_BYTES as usize) {
            self.table.extend_from_slice(&format::crc32c(segment).to_le_bytes());
        }
        self.file.write_all(&self.buffer)?;
        self.len_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        if self.len_bytes.is_multiple_of(WINDOW_BYTES) && self.len_bytes > 0 {
            self.write_back()?;
        }
        Ok(())
    }

    /// Starts writing the last window to the disk, and waits for one that is far behind, so that dirty pages stay few
    /// and the last sync is short.
    fn write_back(&self) -> Result<(), Error> {
        use nix::libc::{SYNC_FILE_RANGE_WAIT_AFTER, SYNC_FILE_RANGE_WAIT_BEFORE, SYNC_FILE_RANGE_WRITE};
        self.sync_range(self.len_bytes - WINDOW_BYTES, SYNC_FILE_RANGE_WRITE)?;
        match self.len_bytes.checked_sub(BEHIND_BYTES + WINDOW_BYTES) {
            Some(start) => {
                self.sync_range(start, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER)
            }
            None => Ok(()),
        }
    }

    /// `sync_file_range(2)` over one window. Its errors are those of a sync: the kernel reports each only once.
    fn sync_range(&self, start: u64, flags: nix::libc::c_uint) -> Result<(), Error> {
        // SAFETY: the descriptor is open for as long as `self.file` lives, and no memory is passed.
        let result =
            unsafe { nix::libc::sync_file_range(self.file.as_raw_fd(), start as i64, WINDOW_BYTES as i64, flags) };
        match nix::errno::Errno::result(result) {
            Ok(_) | Err(nix::Error::ENOSYS | nix::Error::EINVAL | nix::Error::ESPIPE | nix::Error::EINTR) => Ok(()),
            Err(errno) => self.files.or_fatal(Err(errno.into())),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next start.
        if !self.renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}
