//! Opening: brings index and log together.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use super::index::{Entry, Index, Run};
use super::record::{Commit, Record, RunName, decode};
use super::store::{Inner, Shards, run_in};
use crate::ids::ShardId;
use crate::log::{self, Disk, Health, Location, Log, RealDisk};
use crate::units::MIB;

/// How much of the log is read at once when it is replayed, bytes.
const REPLAY_BYTES: usize = 4 << 20;
/// Changes that are flushed at once when an index is made anew.
const FLUSH_COUNT: usize = 10_000;
/// Log files kept ready: one that a write may take, and one for deletions on a full disk; either gives way for the index.
const SPARE_COUNT: usize = 2;

/// How a shard node's shards are opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Their own directory.
    pub dir: PathBuf,
    /// Length of a log file, bytes.
    pub file_len_bytes: u64,
    /// Bytes that may be on their way to the log.
    pub room_bytes: u64,
}

impl Options {
    /// Files of 64 MiB, room for 16 MiB.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options { dir: dir.into(), file_len_bytes: 64 * MIB, room_bytes: 16 * MIB }
    }
}

/// What opening found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Opened {
    /// The index was made anew from the log.
    pub rebuilt: bool,
    /// Something that was acknowledged is missing or damaged: what the catalog names here should be looked for.
    pub damaged: bool,
}

impl Shards {
    /// Opens the shards in `options.dir`, or makes it. Blocking.
    ///
    /// # Errors
    /// `Log`, `Index`: the disk failed, or the files are of a later format. Damage is none.
    pub fn open(options: &Options) -> Result<(Shards, Opened), Error> {
        let log_dir = options.dir.join("log");
        fs::create_dir_all(&log_dir).map_err(|error| Error::Index(error.to_string()))?;
        Shards::open_on(Arc::new(RealDisk::new(&log_dir)), options)
    }

    /// Like [`Shards::open`], with the log's files on `disk`.
    pub(super) fn open_on(disk: Arc<dyn Disk>, options: &Options) -> Result<(Shards, Opened), Error> {
        let (index, next, rebuilt) = open_index(&options.dir.join("index.db"), disk.as_ref())?;
        let log_options = log::Options {
            file_len_bytes: options.file_len_bytes,
            spare_count: SPARE_COUNT,
            cache_len_bytes: 0,
            kept_from: Some(next),
            ..log::Options::new(options.dir.join("log"))
        };
        let (log, recovery) = Log::open_disk(disk, &log_options)?;
        let lost = recovery.damaged_records > 0 || matches!(recovery.state, Health::BehindWitness { .. });
        let shards = Shards::new(log, index, options.room_bytes);
        let replayed = shards.replay(next)?;
        let damaged = lost || !replayed;
        if damaged {
            tracing::warn!(records = recovery.damaged_records, state = ?recovery.state, "the shard log is damaged");
        }
        // What was torn was never acknowledged. The next start must not meet it again, behind what is written now.
        if let Err(error) = shards.flush() {
            tracing::warn!(%error, "the shard index was not flushed; the next start reads the log again");
        }
        Ok((shards, Opened { rebuilt, damaged }))
    }

    /// Applies the log from `next` on. False: something of it cannot be read, or makes no sense; opening the log counted
    /// what was damaged then.
    fn replay(&self, mut next: u64) -> Result<bool, Error> {
        let log = &self.inner.log;
        let mut whole = true;
        while next < log.next_index() {
            match log.read(next..log.next_index(), REPLAY_BYTES).or_else(|_| log.read(next..next + 1, 1)) {
                Ok(records) => {
                    for (index, payload) in records {
                        whole &= self.replay_record(index, &payload)?;
                        next = index + 1;
                    }
                }
                // Left out, torn or damaged: opening the log knows which.
                Err(log::Error::Purged { .. }) => next += 1,
                Err(_) => (next, whole) = (next + 1, false),
            }
        }
        Ok(whole)
    }

    fn replay_record(&self, index: u64, payload: &[u8]) -> Result<bool, Error> {
        match decode(payload) {
            Some(Record::Run(_)) => Ok(true),
            Some(Record::Delete(shards)) => self.inner.apply_delete(&shards).map(|()| true),
            Some(Record::Commit(commit)) => self.replay_commit(index, commit, Inner::apply_new).map(|()| true),
            Some(Record::Move(to)) => {
                let known = self.inner.index.get(to.shard)?;
                let apply = |inner: &Inner, to, index| inner.apply_move(to, index, known.as_deref());
                self.replay_commit(index, to, apply).map(|()| true)
            }
            None => Ok(false),
        }
    }
}

impl Shards {
    fn replay_commit(
        &self,
        index: u64,
        commit: Commit,
        apply: impl FnOnce(&Inner, Commit, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.inner.index.get(commit.shard)?.is_some_and(|entry| entry.commit.index >= index) {
            // The index was ahead of where it began to read the log.
            return Ok(());
        }
        match apply(&self.inner, commit, index) {
            // Refused then, refused again.
            Err(Error::Exists(_)) => Ok(()),
            // Its runs were torn, left out, or lie before all this and it was deleted since: it was never there, or is no
            // more. Or they are damaged, which opening the log has said.
            Err(Error::Invalid { .. }) => Ok(()),
            result => result,
        }
    }
}

/// The index, the first log record that it does not reflect, and whether it was made anew.
fn open_index(path: &Path, disk: &dyn Disk) -> Result<(Index, u64, bool), Error> {
    match Index::open(path) {
        Ok((index, next)) if next > 0 => return Ok((index, next, false)),
        Ok(_) => {}
        Err(Error::IndexDamaged(what)) => tracing::warn!(what, "the shard index is made anew from the log"),
        Err(error) => return Err(error),
    }
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::Index(error.to_string())),
            _ => {}
        }
    }
    let (index, _) = Index::open(path)?;
    let next = rebuild(&index, disk)?;
    Ok((index, next, next > 0))
}

/// Makes the index from all that is in the log. A shard of which a run cannot be read is left out: it was deleted, or is
/// damaged, and who names it will miss it.
fn rebuild(index: &Index, disk: &dyn Disk) -> Result<u64, Error> {
    let mut rebuild = Rebuild { index, runs: HashMap::new(), seen: HashSet::new(), next: 0 };
    let mut result = Ok(());
    Log::survey(disk, |record, location, payload| {
        if result.is_ok() {
            result = rebuild.record(Run { index: record, at: location }, payload);
        }
    })?;
    result?;
    if rebuild.next > 0 {
        index.flush(rebuild.next)?;
    }
    Ok(rebuild.next)
}

struct Rebuild<'a> {
    index: &'a Index,
    /// Whose each run is, and where it lies.
    runs: HashMap<u64, (ShardId, Location)>,
    /// Shards that were ever committed: another commit of one was refused.
    seen: HashSet<ShardId>,
    next: u64,
}

impl Rebuild<'_> {
    fn record(&mut self, record: Run, payload: Option<&[u8]>) -> Result<(), Error> {
        self.next = self.next.max(record.index + 1);
        match payload.and_then(decode) {
            Some(Record::Run(shard)) => self.runs.extend(run_in(record.at).map(|at| (record.index, (shard, at)))),
            Some(Record::Commit(commit)) if !self.seen.insert(commit.shard) => {}
            Some(Record::Commit(commit)) => self.put(&commit, record)?,
            Some(Record::Move(to)) => {
                self.seen.insert(to.shard);
                self.put(&to, record)?;
            }
            Some(Record::Delete(shards)) => {
                for shard in shards {
                    self.index.change(shard, None)?;
                }
            }
            None => {}
        }
        if self.index.pending_count() >= FLUSH_COUNT {
            // Not yet one that counts: the next start would begin again.
            self.index.flush(0)?;
        }
        Ok(())
    }

    /// A commit or a move whose runs cannot all be read changes nothing: a torn move leaves the shard where it was.
    fn put(&self, commit: &Commit, record: Run) -> Result<(), Error> {
        match self.entry(commit, record) {
            Some(entry) => self.index.change(commit.shard, Some(entry)).map(drop),
            None => Ok(()),
        }
    }

    fn entry(&self, commit: &Commit, record: Run) -> Option<Entry> {
        let run = |run: &RunName| {
            let (shard, at) = self.runs.get(&run.index)?;
            let fits = *shard == commit.shard && at.len_bytes == run.len_bytes;
            fits.then_some(Run { index: run.index, at: *at })
        };
        let runs = commit.runs.iter().map(run).collect::<Option<_>>()?;
        Some(Entry { origin: commit.origin, frames: commit.frames.clone(), commit: record, runs })
    }
}
