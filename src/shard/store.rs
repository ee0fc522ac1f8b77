//! The handle of a shard node's shards.
//!
//! Invariants
//! - Records are appended under one lock, which also says what is being deleted: so a shard is never moved once its deletion
//!   is on its way.
//! - `applied` follows the log's callbacks, which come in the log's order; the index is flushed up to it, and no further
//!   than the oldest run that no commit names yet.
//! - Flushing and cleaning have locks of their own, in the order cleaning, flushing: who lists waits for a flush at most.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use super::Error;
use super::index::{Entry, Index, Run, lock};
use super::record::{Commit, Origin, RUN_HEADER_BYTES, encode_delete};
use super::writing::Writing;
use crate::ids::ShardId;
use crate::log::{self, KeptFile, Location, Log};

/// Open files of the log that are kept for the next read.
const OPEN_FILES_MAX: usize = 64;
/// Shards that one record deletes.
const DELETES_PER_RECORD: usize = 4096;

/// The shards of one node; clones are the same.
#[derive(Clone)]
pub struct Shards {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) log: Log,
    pub(super) index: Index,
    pub(super) appender: Mutex<Appender>,
    /// The first log record whose callback has not come yet.
    pub(super) applied: AtomicU64,
    /// Room for what is on its way to the log, KiB.
    pub(super) room: Arc<Semaphore>,
    pub(super) room_kib: u32,
    /// Runs that nothing names any more, once the index is flushed.
    pub(super) dead: Mutex<Vec<Location>>,
    pub(super) cleaning: Mutex<()>,
    pub(super) flushing: Mutex<()>,
    /// Cleaning ends at its next step.
    pub(super) stopping: AtomicBool,
    /// Shards that cannot be moved, as was said in the log.
    pub(super) unmovable: Mutex<HashSet<ShardId>>,
    files: Mutex<BTreeMap<u32, Arc<KeptFile>>>,
}

/// What is on its way.
#[derive(Default)]
pub(super) struct Appender {
    /// The first run of each shard that is being written, and how many shards begin there.
    pub(super) pins: BTreeMap<u64, usize>,
    /// Runs whose shard will never be committed.
    pub(super) abandoned: Vec<u64>,
    /// Shards whose deletion is on its way.
    pub(super) deleting: HashSet<ShardId>,
}

/// Which room on a full disk a record may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    Common,
    /// What is kept back, for records that give room back.
    Reserve,
}

/// A shard, without its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardInfo {
    /// What it is of.
    pub origin: Origin,
    /// Length of each of its frames, bytes.
    pub frames: Vec<u32>,
}

/// A shard in a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its name.
    pub shard: ShardId,
    /// What it is of.
    pub origin: Origin,
}

/// How much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Shards.
    pub shard_count: u64,
    /// Their bytes.
    pub live_bytes: u64,
}

impl Shards {
    pub(super) fn new(log: Log, index: Index, room_bytes: u64) -> Shards {
        let applied = AtomicU64::new(log.next_index());
        let room_kib = u32::try_from(room_bytes / 1024).unwrap_or(u32::MAX).max(1);
        Shards {
            inner: Arc::new(Inner {
                log,
                index,
                appender: Mutex::default(),
                applied,
                room: Arc::new(Semaphore::new(room_kib as usize)),
                room_kib,
                dead: Mutex::default(),
                cleaning: Mutex::default(),
                flushing: Mutex::default(),
                stopping: AtomicBool::new(false),
                unmovable: Mutex::default(),
                files: Mutex::default(),
            }),
        }
    }

    /// Begins to write a shard; it is there once [`Writing::finish`] returns.
    pub fn write(&self, shard: ShardId, origin: Origin) -> Writing {
        Writing::new(self.clone(), shard, origin)
    }

    /// What a shard is of, and how long its frames are. Blocking.
    ///
    /// # Errors
    /// `NotFound`, `Index`.
    pub fn info(&self, shard: ShardId) -> Result<ShardInfo, Error> {
        let entry = self.entry(shard)?;
        Ok(ShardInfo { origin: entry.origin, frames: entry.frames.clone() })
    }

    /// Reads frames of a shard, as they lie there: nothing is verified. One buffer, and the length of each frame in it.
    /// Blocking.
    ///
    /// # Errors
    /// `NotFound`; `Invalid`: it has not so many frames; `Log`: the disk.
    pub fn read(&self, shard: ShardId, frames: Range<usize>) -> Result<(Bytes, Vec<u32>), Error> {
        let mut entry = self.entry(shard)?;
        loop {
            let read = self.inner.read_frames(shard, &entry, frames.clone());
            // It may have been moved meanwhile, and what was read been punched: zeros, or no file.
            let now = self.entry(shard)?;
            if now.commit == entry.commit {
                return read;
            }
            entry = now;
        }
    }

    /// Deletes shards; they are gone when this returns. What is not here is deleted already.
    ///
    /// # Errors
    /// `Log`, `Index`, `Closed`; `Full`: not even the reserve has room.
    pub async fn delete(&self, shards: &[ShardId]) -> Result<(), Error> {
        for shards in shards.chunks(DELETES_PER_RECORD) {
            let (tell, told) = oneshot::channel();
            self.inner.clone().append_delete(shards.to_vec(), tell)?;
            told.await.map_err(|_| Error::Closed)??;
        }
        Ok(())
    }

    /// Up to `limit` shards with ids above `after`, ascending. Blocking.
    ///
    /// # Errors
    /// `Index`, `Log`.
    pub fn list(&self, after: Option<ShardId>, limit: usize) -> Result<Vec<Listed>, Error> {
        if self.inner.index.pending_count() > 0 {
            self.flush()?;
        }
        let rows = self.inner.index.list(after, limit)?;
        Ok(rows.into_iter().map(|(shard, origin)| Listed { shard, origin }).collect())
    }

    /// How much there is.
    pub fn usage(&self) -> Usage {
        let (shard_count, live_bytes) = self.inner.index.totals();
        Usage { shard_count, live_bytes }
    }

    /// The first log record that has not come to be yet: it grows with every change, once there is something to flush.
    pub(super) fn applied_end(&self) -> u64 {
        self.inner.applied.load(Ordering::Acquire)
    }

    /// The log's counters.
    pub fn log_stats(&self) -> log::Stats {
        self.inner.log.stats()
    }

    /// Brings the index to where the log is, and closes both. Waits for one step of a cleaning at most. Blocking.
    pub fn close(&self) {
        self.inner.stopping.store(true, Ordering::Release);
        let _nobody_cleans = lock(&self.inner.cleaning);
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "the shard index was not flushed; the next start reads the log again");
        }
        self.inner.log.close();
    }

    fn entry(&self, shard: ShardId) -> Result<Arc<Entry>, Error> {
        self.inner.index.get(shard)?.ok_or(Error::NotFound(shard))
    }
}

impl Inner {
    /// Appends records, and calls `done` when they are durable: after everything before it, before anything behind it.
    /// Returns the first one's index. The caller holds the appender's lock.
    pub(super) fn append(
        self: &Arc<Inner>,
        _held: &mut Appender,
        records: Vec<Bytes>,
        room: Room,
        done: impl FnOnce(&Inner, u64, Result<(), log::Error>) + Send + 'static,
    ) -> Result<u64, Error> {
        let first = self.log.next_index();
        let next = first + records.len() as u64;
        let inner = self.clone();
        let done = move |result| {
            done(&inner, first, result);
            inner.applied.store(next, Ordering::Release);
        };
        match room {
            Room::Common => self.log.append(first, records, done)?,
            Room::Reserve => self.log.append_reserved(first, records, done)?,
        }
        Ok(first)
    }

    fn append_delete(
        self: Arc<Inner>,
        shards: Vec<ShardId>,
        tell: oneshot::Sender<Result<(), Error>>,
    ) -> Result<(), Error> {
        let mut appender = lock(&self.appender);
        appender.deleting.extend(&shards);
        let record = encode_delete(&shards);
        let undo = shards.clone();
        let appended = self.append(&mut appender, vec![record], Room::Reserve, move |inner, _, result| {
            let result = result.map_err(Error::from).and_then(|()| inner.apply_delete(&shards));
            let mut appender = lock(&inner.appender);
            forget(&mut appender.deleting, &shards);
            // Who asked may be gone.
            let _ = tell.send(result);
        });
        if appended.is_err() {
            forget(&mut appender.deleting, &undo);
        }
        appended.map(drop)
    }

    pub(super) fn apply_delete(&self, shards: &[ShardId]) -> Result<(), Error> {
        for shard in shards {
            if let Some(before) = self.index.change(*shard, None)? {
                lock(&self.dead).extend(before.records().map(|run| run.at));
            }
        }
        Ok(())
    }

    /// Notes a new shard. `committed`: the index of the commit's record.
    pub(super) fn apply_new(&self, commit: Commit, committed: u64) -> Result<(), Error> {
        let shard = commit.shard;
        let entry = self.resolve(commit, committed, None)?;
        if self.index.get_now(shard)?.is_some() {
            lock(&self.dead).extend(entry.records().map(|run| run.at));
            return Err(Error::Exists(shard));
        }
        self.index.change(shard, Some(entry)).map(drop)
    }

    /// Notes that a shard lies elsewhere. `known`: where it lay.
    pub(super) fn apply_move(&self, commit: Commit, committed: u64, known: Option<&Entry>) -> Result<(), Error> {
        let shard = commit.shard;
        let entry = self.resolve(commit, committed, known)?;
        let kept: HashSet<u64> = entry.records().map(|run| run.index).collect();
        if let Some(before) = self.index.change(shard, Some(entry))? {
            let dead = before.records().filter(|run| !kept.contains(&run.index));
            lock(&self.dead).extend(dead.map(|run| run.at));
        }
        Ok(())
    }

    /// Finds where the records lie that a shard consists of.
    fn resolve(&self, commit: Commit, committed: u64, known: Option<&Entry>) -> Result<Entry, Error> {
        let Commit { shard, origin, frames, runs } = commit;
        let lost = |index: u64| Error::Invalid { shard, what: format!("its record {index} is not in the log") };
        let located = |index: u64| self.log.locate(index..index + 1).first().copied();
        let find = |index: u64| match located(index) {
            Some(location) => run_in(location),
            None => known.and_then(|entry| entry.runs.iter().find(|run| run.index == index)).map(|run| run.at),
        };
        let run = |run: super::record::RunName| {
            let at = find(run.index).filter(|at| at.len_bytes == run.len_bytes);
            Ok(Run { index: run.index, at: at.ok_or_else(|| lost(run.index))? })
        };
        let runs = runs.into_iter().map(run).collect::<Result<_, Error>>()?;
        let commit = Run { index: committed, at: located(committed).ok_or_else(|| lost(committed))? };
        Ok(Entry { origin, frames, commit, runs })
    }

    fn read_frames(&self, shard: ShardId, entry: &Entry, frames: Range<usize>) -> Result<(Bytes, Vec<u32>), Error> {
        let Some(wanted) = entry.frames.get(frames.clone()) else {
            let what = format!("frames {frames:?} of {} were asked for", entry.frames.len());
            return Err(Error::Invalid { shard, what });
        };
        let sum = |frames: &[u32]| frames.iter().map(|len| u64::from(*len)).sum::<u64>();
        let start = sum(&entry.frames[..frames.start]);
        let bytes = self.read_bytes(entry, start..start + sum(wanted))?;
        Ok((bytes.into(), wanted.to_vec()))
    }

    /// Reads a range of a shard's bytes.
    #[expect(clippy::slow_vector_initialization, reason = "faster here: see file::reader")]
    pub(super) fn read_bytes(&self, entry: &Entry, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let len = (range.end - range.start) as usize;
        let mut bytes = Vec::with_capacity(len);
        bytes.resize(len, 0);
        let (mut run_start, mut filled) = (0, 0);
        for run in &entry.runs {
            let run_end = run_start + u64::from(run.at.len_bytes);
            let (start, end) = (range.start.max(run_start), range.end.min(run_end));
            if start < end {
                let part = &mut bytes[filled..filled + (end - start) as usize];
                let at = u64::from(run.at.start_bytes) + start - run_start;
                self.file(run.at.file)?.read(at, part)?;
                filled += part.len();
            }
            run_start = run_end;
        }
        Ok(bytes)
    }

    pub(super) fn file(&self, sequence: u32) -> Result<Arc<KeptFile>, Error> {
        if let Some(file) = lock(&self.files).get(&sequence) {
            return Ok(file.clone());
        }
        let file = Arc::new(self.log.file(sequence)?);
        let mut files = lock(&self.files);
        if files.len() >= OPEN_FILES_MAX {
            files.pop_first();
        }
        files.insert(sequence, file.clone());
        Ok(file)
    }

    pub(super) fn forget_file(&self, sequence: u32) {
        lock(&self.files).remove(&sequence);
    }
}

fn forget(deleting: &mut HashSet<ShardId>, shards: &[ShardId]) {
    for shard in shards {
        deleting.remove(shard);
    }
}

/// Where a run's bytes lie in its record; none: it is too short for one.
pub(super) fn run_in(record: Location) -> Option<Location> {
    let header = RUN_HEADER_BYTES as u32;
    let len_bytes = record.len_bytes.checked_sub(header)?;
    Some(Location { start_bytes: record.start_bytes + header, len_bytes, ..record })
}
