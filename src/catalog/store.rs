//! stub
use super::*;
use std::path::Path;

/// How to open a catalog.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that serve queries.
    pub reader_count: usize,
    /// SQLite's page cache of the writer, bytes.
    pub cache_bytes: u64,
    /// Incarnation of ids when the catalog is made.
    pub incarnation: u16,
}

impl Default for Options {
    fn default() -> Self {
        Options { reader_count: 2, cache_bytes: 32 << 20, incarnation: 1 }
    }
}

/// Handles for queries; cheap to clone.
#[derive(Clone)]
pub struct Readers {}

impl Readers {
    /// Runs `query` on a reader thread, in one read transaction (one snapshot).
    pub async fn read<R: Send + 'static>(
        &self,
        _query: impl FnOnce(&View<'_>) -> Result<R, Error> + Send + 'static,
    ) -> Result<R, Error> {
        todo!()
    }
    /// Writes the whole state, as of one snapshot, to `file` (blocking; fsynced). Returns how far it had applied.
    pub fn snapshot(&self, _file: &Path) -> Result<Applied, Error> {
        todo!()
    }
}
