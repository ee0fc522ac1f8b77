//! Reading a chunk: only verified bytes come out.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

use crate::ids::Ino;
use crate::units::{MIB, SEGMENT_BYTES};

use super::format::{self, FOOTER_BYTES, Footer};
use super::{Error, not_found};

/// An open chunk. It stays readable when it is removed meanwhile.
pub struct Chunk {
    file: File,
    footer: Footer,
}

impl Chunk {
    pub(super) fn open(chunk: Ino, path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| not_found(chunk, error))?;
        let corrupt = |what: &str| Error::Corrupt { chunk, what: what.to_owned() };
        let file_bytes = file.metadata()?.len();
        let footer_start = file_bytes.checked_sub(FOOTER_BYTES).ok_or_else(|| corrupt("shorter than its footer"))?;
        let mut bytes = [0; FOOTER_BYTES as usize];
        file.read_exact_at(&mut bytes, footer_start).map_err(|error| short(chunk, error))?;
        let footer = Footer::decode(&bytes).map_err(corrupt)?;
        if footer.chunk != chunk {
            return Err(corrupt("the file of another chunk"));
        }
        if format::file_bytes(footer.len_bytes) != Some(file_bytes) {
            return Err(corrupt("the file's length is not what was written"));
        }
        Ok(Chunk { file, footer })
    }

    /// Length of its data.
    pub fn len_bytes(&self) -> u64 {
        self.footer.len_bytes
    }

    /// Reads `range`, half-open, every covering segment verified. The answer keeps all covering segments in memory.
    ///
    /// # Errors
    /// `Corrupt`: a segment is not what was written, or the range ends behind the chunk. `Io`.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes, Error> {
        if range.end > self.footer.len_bytes {
            return Err(self.corrupt(format!("{} bytes long, asked for {range:?}", self.footer.len_bytes)));
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let first = range.start / SEGMENT_BYTES;
        let end = range.end.div_ceil(SEGMENT_BYTES);
        let data = self.segments(first, end)?;
        let skip = (range.start - first * SEGMENT_BYTES) as usize;
        Ok(Bytes::from(data).slice(skip..skip + (range.end - range.start) as usize))
    }

    /// Segments `first..end`, verified.
    fn segments(&self, first: u64, end: u64) -> Result<Vec<u8>, Error> {
        let start = first * SEGMENT_BYTES;
        let stop = (end * SEGMENT_BYTES).min(self.footer.len_bytes);
        let data = self.bytes_at(start, stop - start)?;
        let table = self.bytes_at(format::table_offset(self.footer.len_bytes, first), (end - first) * 4)?;
        let segments = data.chunks(SEGMENT_BYTES as usize).zip(format::decode_table(&table));
        for (index, (segment, crc)) in (first..).zip(segments) {
            if format::crc32c(segment) != crc {
                return Err(self.corrupt(format!("the checksum of segment {index} does not match")));
            }
        }
        Ok(data)
    }

    /// Reads all of it and compares every checksum. Returns its length.
    pub(super) fn verify(&self) -> Result<u64, Error> {
        let len_bytes = self.footer.len_bytes;
        let table = self.bytes_at(len_bytes, format::table_bytes(len_bytes))?;
        if format::crc32c(&table) != self.footer.table_crc {
            return Err(self.corrupt("the checksum of the table does not match".to_owned()));
        }
        let segment_count = len_bytes.div_ceil(SEGMENT_BYTES);
        let run_count = MIB / SEGMENT_BYTES;
        for first in (0..segment_count).step_by(run_count as usize) {
            self.segments(first, (first + run_count).min(segment_count))?;
        }
        Ok(len_bytes)
    }

    /// Not `vec![0; n]`: for zeroed memory jemalloc gives its pages back and has them anew, a fault each.
    #[expect(clippy::slow_vector_initialization, reason = "faster here")]
    fn bytes_at(&self, start: u64, len_bytes: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(len_bytes as usize);
        bytes.resize(len_bytes as usize, 0);
        self.file.read_exact_at(&mut bytes, start).map_err(|error| short(self.footer.chunk, error))?;
        Ok(bytes)
    }

    fn corrupt(&self, what: String) -> Error {
        Error::Corrupt { chunk: self.footer.chunk, what }
    }
}

/// A file that ends early is damage; anything else is the disk.
fn short(chunk: Ino, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Corrupt { chunk, what: "the file ends early".to_owned() },
        _ => error.into(),
    }
}
