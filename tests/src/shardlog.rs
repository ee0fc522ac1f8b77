//! The files of a shard node's log, read from outside: what of them is in use, which bytes belong to shards that are there,
//! and what all takes on disk. The only module that knows their format, which `src/log/format.rs` and `src/shard/record.rs`
//! describe.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::random::Rng;

/// Batches begin at multiples of this, and the first block of a file is its stamp.
const BLOCK_BYTES: usize = 4096;
const BATCH_HEADER_BYTES: usize = 48;
const ENTRY_HEADER_BYTES: usize = 20;
/// What of the entries is a record.
const ENTRY_IS_RECORD: u32 = 1;
const RUN_HEADER_BYTES: usize = 16;
const COMMIT_HEADER_BYTES: usize = 40;
/// Kinds of records.
const RUN: u8 = 1;
const COMMIT: u8 = 2;
const DELETE: u8 = 3;
const MOVE: u8 = 4;

/// One file of a log.
#[derive(Clone, Debug)]
pub struct LogFile {
    /// Where it is.
    pub path: PathBuf,
    /// Where what was written to it ends; what was allocated for more lies behind that.
    pub used_bytes: usize,
    /// What it takes on disk, bytes.
    pub allocated_bytes: u64,
    /// Its length.
    pub len_bytes: u64,
}

/// A shard that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shard {
    /// Of which chunk.
    pub chunk: u64,
    /// Where its bytes lie: by file, and from where to where in it.
    pub runs: Vec<(PathBuf, Range<usize>)>,
}

/// A node's log as it is on disk.
#[derive(Clone, Debug, Default)]
pub struct ShardLog {
    /// Oldest first; those kept ready for later are none of it.
    pub files: Vec<LogFile>,
    /// The shards that are there, by id, as far as their records can be read.
    pub shards: BTreeMap<u64, Shard>,
    /// Where the bytes of runs lie, by the index of their records.
    runs: BTreeMap<u64, (PathBuf, Range<usize>)>,
}

impl ShardLog {
    /// Reads the log of the node in `node_dir`, which may be running.
    ///
    /// # Errors
    /// When there is none, or a file cannot be read.
    pub fn read(node_dir: &Path) -> Result<ShardLog> {
        let vanished = |error: &anyhow::Error| {
            error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        };
        loop {
            match ShardLog::read_once(node_dir) {
                // What was live in it has been moved: to a file that was not there yet, perhaps.
                Err(error) if vanished(&error) => {}
                log => return log,
            }
        }
    }

    fn read_once(node_dir: &Path) -> Result<ShardLog> {
        let dir = node_dir.join("shards").join("log");
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(|error| anyhow::anyhow!("no log in {}: {error}", dir.display()))? {
            paths.extend(Some(entry?.path()).filter(|path| path.extension().is_some_and(|ending| ending == "log")));
        }
        paths.sort();
        ensure!(!paths.is_empty(), "no log file in {}", dir.display());
        let mut log = ShardLog::default();
        paths.into_iter().try_for_each(|path| log.file(path))?;
        Ok(log)
    }

    fn file(&mut self, path: PathBuf) -> Result<()> {
        let (bytes, meta) = (std::fs::read(&path)?, std::fs::metadata(&path)?);
        // Its number stands in its stamp and in each of its batches; in its name for certain.
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let number: u64 = name.parse().with_context(|| format!("{name} is no number"))?;
        let (mut at, mut used_bytes) = (BLOCK_BYTES, BLOCK_BYTES);
        while at + BATCH_HEADER_BYTES <= bytes.len() {
            let body = at + BATCH_HEADER_BYTES;
            let end = body + u32_at(&bytes, at + 24) as usize;
            if &bytes[at..at + 4] != b"PdB1" || u64_at(&bytes, at + 8) != number || end > bytes.len() {
                at += BLOCK_BYTES;
                continue;
            }
            self.batch(&path, &bytes[..end], body, u32_at(&bytes, at + 28));
            at = end.next_multiple_of(BLOCK_BYTES);
            used_bytes = at.min(bytes.len());
        }
        let (allocated_bytes, len_bytes) = (meta.blocks() * 512, meta.len());
        self.files.push(LogFile { path, used_bytes, allocated_bytes, len_bytes });
        Ok(())
    }

    fn batch(&mut self, path: &Path, bytes: &[u8], mut at: usize, entry_count: u32) {
        for _ in 0..entry_count {
            let start = at + ENTRY_HEADER_BYTES;
            if start > bytes.len() {
                return;
            }
            let end = start + u32_at(bytes, at + 8) as usize;
            if u32_at(bytes, at + 4) == ENTRY_IS_RECORD && end <= bytes.len() {
                self.record(path, start, u64_at(bytes, at + 12), &bytes[start..end]);
            }
            at = end;
        }
    }

    /// `start`: where the record begins in its file; `index`: its own.
    fn record(&mut self, path: &Path, start: usize, index: u64, record: &[u8]) {
        match record.get(1) {
            Some(&RUN) if record.len() > RUN_HEADER_BYTES => {
                let range = start + RUN_HEADER_BYTES..start + record.len();
                self.runs.insert(index, (path.to_owned(), range));
            }
            Some(&(COMMIT | MOVE)) if record.len() >= COMMIT_HEADER_BYTES => {
                let (frame_count, run_count) = (u32_at(record, 28) as usize, u32_at(record, 32) as usize);
                let first = COMMIT_HEADER_BYTES + 4 * frame_count;
                if record.len() == first + 12 * run_count {
                    let index_of = |run: usize| u64_at(record, first + 12 * run + 4);
                    let runs = (0..run_count).filter_map(|run| self.runs.get(&index_of(run)).cloned()).collect();
                    self.shards.insert(u64_at(record, 8), Shard { chunk: u64_at(record, 16), runs });
                }
            }
            Some(&DELETE) => {
                let shards = record[8..].chunks_exact(8).map(|id| u64_at(id, 0));
                shards.for_each(|shard| drop(self.shards.remove(&shard)));
            }
            _ => {}
        }
    }

    /// Flips a random bit of all that was written. Returns the shard of whose bytes it is one, if there is one.
    ///
    /// # Errors
    /// The disk.
    pub fn flip_any(&self, rng: &mut Rng) -> Result<Option<u64>> {
        let all: usize = self.files.iter().map(|file| file.used_bytes).sum();
        let mut offset = rng.below(all as u64) as usize;
        for file in &self.files {
            if offset < file.used_bytes {
                flip(&file.path, offset, 1 << rng.below(8))?;
                return Ok(self.shard_at(&file.path, offset));
            }
            offset -= file.used_bytes;
        }
        Ok(None)
    }

    fn shard_at(&self, path: &Path, offset: usize) -> Option<u64> {
        let is_hit = |(file, range): &(PathBuf, Range<usize>)| file == path && range.contains(&offset);
        self.shards.iter().find(|(_, shard)| shard.runs.iter().any(is_hit)).map(|(shard, _)| *shard)
    }

    /// Flips a bit of the first of a shard's bytes.
    ///
    /// # Errors
    /// The disk; a shard without bytes.
    pub fn flip_shard(&self, shard: u64) -> Result<()> {
        let (path, range) = self.shards.get(&shard).and_then(|shard| shard.runs.first()).context("no bytes")?;
        flip(path, range.start + range.len().min(100) / 2, 1)
    }

    /// What it takes on disk without the files that are kept ready, and without what is allocated behind the end of each
    /// file, bytes.
    pub fn taken_bytes(&self) -> u64 {
        let taken = |file: &LogFile| file.allocated_bytes.saturating_sub(file.len_bytes - file.used_bytes as u64);
        self.files.iter().map(taken).sum()
    }
}

/// Flips bits of one byte of a file, which another process may have open.
fn flip(path: &Path, offset: usize, mask: u8) -> Result<()> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset as u64)?;
    file.write_all_at(&[byte[0] ^ mask], offset as u64)?;
    Ok(file.sync_all()?)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
