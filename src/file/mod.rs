//! stub
use crate::ids::Ino;
use bytes::Bytes;
use std::ops::Range;
use std::path::PathBuf;

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
    Io(#[from] std::io::Error),
}

/// The chunk files of one node. All calls block; cheap to clone.
#[derive(Clone)]
pub struct Files {}

impl Files {
    /// Opens or makes the store in `dir`; removes temporary files of an earlier run.
    pub fn open(_dir: PathBuf) -> Result<Files, Error> {
        todo!()
    }
    /// Begins a chunk under a fresh id.
    pub fn create(&self, _chunk: Ino) -> Result<Writer, Error> {
        todo!()
    }
    /// Reads `range` (within the chunk's length), every covering segment verified.
    pub fn read(&self, _chunk: Ino, _range: Range<u64>) -> Result<Bytes, Error> {
        todo!()
    }
    /// Removes a chunk; no error if it is gone already.
    pub fn remove(&self, _chunk: Ino) -> Result<(), Error> {
        todo!()
    }
    /// Moves a chunk out of the way, to `quarantine/`.
    pub fn quarantine(&self, _chunk: Ino) -> Result<(), Error> {
        todo!()
    }
    /// Reads a whole chunk and compares length and checksums. Returns its length.
    pub fn verify(&self, _chunk: Ino) -> Result<u64, Error> {
        todo!()
    }
}

/// A chunk being written; dropped before [`Writer::finish`], it leaves nothing.
pub struct Writer {}

impl Writer {
    /// Appends.
    pub fn write(&mut self, _bytes: &[u8]) -> Result<(), Error> {
        todo!()
    }
    /// Makes the chunk durable under its name. Returns its length.
    pub fn finish(self) -> Result<u64, Error> {
        todo!()
    }
}
