//! The append-only log: Raft's log, and a shard node's write-ahead log.
//!
//! A directory of files holds records with consecutive indices. One writer thread takes whatever is queued, writes it as
//! one batch, and one fdatasync serves every waiter. Callers see their changes at once, and are told when they are durable.
//!
//! ```text
//! directory   witness | 0000000007.log | 0000000008.log | spare-00000009 | ...
//! file        header | batch | batch | ...        entries are chained by CRC32C, across batches and files
//! batch       what was synced before it | entries: records, truncations, purges, resets, marks
//! ```
//!
//! The bytes are in [`mod@format`] and [`stamp`], the witness's in [`witness`]. Invariants stand at the top of the file
//! that keeps them: `format` (what makes a batch valid), `writer` (what is written when), `view` (what callers see),
//! `recover` (what opening accepts), `witness`, `files` (what may be recycled).
//!
//! # What is never overwritten
//!
//! Everything that changes the log is an entry appended to it. A truncation is an entry too, so bytes that were once synced
//! stay as they are until their whole file is purged, and the chain has one direction. The design asks that the witness
//! be *raised after the sync, lowered before a truncation*; the rule behind it is that the witness never claims what the
//! log does not hold. Here the witness names a *batch number*, which a truncation raises like any other batch, so
//! there is nothing to lower and no moment at which a crash finds a truncation half done.
//!
//! # What a crash may do, and what is noticed
//!
//! - *A torn batch.* Only the last can be: a batch is written once the one before is synced. It was never acknowledged. Cut.
//! - *Damage to an older batch.* Each batch says what was synced before it, so any later one proves it: [`Error::Hole`].
//! - *Damage to the last batch.* The witness says that it was synced: [`Health::BehindWitness`].
//! - *Damage to the witness.* There are two slots, and the log holds everything that the witness does, the mark
//!   included; so one slot is enough. With none, the end of the log is unproven: [`Health::WitnessLost`].
//!
//! The witness is written after each batch, but synced only when a file is full, when the log is idle for a second, at
//! close and at open: one fdatasync a batch, not two. A killed process loses no raise (the kernel has it). A power cut may
//! lose the last raises, and this is safe: the batches they named are on disk and are found by reading the log; a raise
//! only ever adds proof. What is then not noticed is a *second* fault, damage to the very last batch before the next
//! open, which looks like a torn tail.
//!
//! After a failed fdatasync the kernel marks the pages clean, though they are not on disk. The process ends, and opening
//! drops cached pages before it reads, so what it finds is what the disk holds.

mod disk;
mod files;
pub mod format;
mod kept;
mod recover;
mod salvage;
#[cfg(test)]
mod sim;
mod spares;
mod stamp;
#[cfg(test)]
mod tests;
mod view;
mod witness;
mod writer;

pub use format::{Decoded, MARK_MAX_LEN, RECORD_MAX_LEN, decode_records};

use bytes::Bytes;
pub(crate) use disk::{Disk, RealDisk, end_process};
#[cfg(test)]
pub(crate) use sim::SimDisk;

use disk::DiskFile;
use files::name_of;
use format::{BATCH_HEADER_LEN, BLOCK_LEN, ENTRY_HEADER_LEN, Kind, Tip};
use recover::{FoundWitness, Recovered, recover};
use spares::Spares;
use stamp::Stamp;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
pub use view::Current;
use view::{Access, View, lock};
use witness::Witness;
use writer::Writer;

/// How a log is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The log's own directory; created if it is missing. Keeping a second process out is the caller's.
    pub dir: PathBuf,
    /// Length of a new file, rounded up to 4 KiB and into 16 KiB..1 GiB. A record must fit into one file.
    pub file_len_bytes: u64,
    /// Pre-written files kept ready. In a log whose files are kept the last one is a reserve: see
    /// [`Log::append_reserved`].
    pub spare_count: usize,
    /// How many bytes of the newest records stay in memory once they are on disk; none while the log is quiet.
    pub cache_len_bytes: usize,
    /// Take a log that has lost something (any [`Health`] but `Whole`) as it is, and write to it. Otherwise it is
    /// read-only.
    pub accept_loss: bool,
    /// The owner keeps the files: it knows where the records before this index lie, removes files by itself
    /// ([`Log::remove_file`]), and takes the log as it is, damaged or not. See [`kept`].
    pub kept_from: Option<u64>,
}

impl Options {
    /// 64 MiB files, two spares, 8 MiB of cache, no loss accepted.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options {
            dir: dir.into(),
            file_len_bytes: 64 << 20,
            spare_count: 2,
            cache_len_bytes: 8 << 20,
            accept_loss: false,
            kept_from: None,
        }
    }

    fn file_len(&self) -> u64 {
        let block = BLOCK_LEN as u64;
        self.file_len_bytes.clamp(4 * block, 1 << 30).next_multiple_of(block)
    }
}

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Index of the first record; 0 in a new log.
    pub first_index: u64,
    /// Index that the next record gets. The records are `first_index..next_index`.
    pub next_index: u64,
    /// The last mark set; empty if there never was one.
    pub mark: Vec<u8>,
    /// Length of a torn batch at the end that was left out, as far as its header tells; else 0.
    pub cut_tail_bytes: u64,
    /// How many of the records, about, cannot be read; only in a log whose files are kept, any other is refused.
    pub damaged_records: u64,
    /// Whether everything that was ever synced is there.
    pub state: Health,
}

/// Whether a log holds everything that was ever synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing is missing.
    Whole,
    /// The log ends before, or differs from, what its witness saw synced: acknowledged records are lost. The mark is the
    /// witness's.
    BehindWitness {
        /// The next index by the witness.
        witnessed_next: u64,
    },
    /// The witness is gone or unreadable. The log is whole as far as it goes; nothing says how far it went.
    WitnessLost,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A record would leave a gap or replace another.
    #[error("the next record has index {expected}, not {got}")]
    OutOfOrder {
        /// The log's next index.
        expected: u64,
        /// The index offered.
        got: u64,
    },
    /// Indices that the log does not hold.
    #[error("{asked:?} is not within {first}..{next}")]
    OutOfRange {
        /// As asked for.
        asked: Range<u64>,
        /// The log's first index.
        first: u64,
        /// The log's next index.
        next: u64,
    },
    /// The record was purged while it was read.
    #[error("record {index} was purged")]
    Purged {
        /// Of the record.
        index: u64,
    },
    /// A record or a mark is too long.
    #[error("{len_bytes} bytes are more than {limit_bytes}")]
    TooLong {
        /// As offered.
        len_bytes: usize,
        /// The most that is taken.
        limit_bytes: usize,
    },
    /// The log was closed, or is closing.
    #[error("the log is closed")]
    Closed,
    /// The log has lost something, and was opened without `accept_loss`.
    #[error("the log has lost records, and is read-only")]
    ReadOnly,
    /// The disk has no room for another file; only in a log whose files are kept. What was to be appended was not, or not
    /// all of it; its indices stay unused.
    #[error("the disk has no room for another log file")]
    Full,
    /// The disk failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Bytes are not what was written.
    #[error("{file} at {offset}: {what}")]
    Corrupt {
        /// Name within the directory.
        file: String,
        /// Where, bytes.
        offset: u64,
        /// In which way.
        what: &'static str,
    },
    /// A batch is damaged that a later one proves to have been synced.
    #[error("{file} at {offset}: batch {batch} is not valid, yet batch {proven_batch} was written after it")]
    Hole {
        /// Name within the directory.
        file: String,
        /// Where the missing batch should begin, bytes.
        offset: u64,
        /// The first batch that is missing.
        batch: u64,
        /// The batch that proves it.
        proven_batch: u64,
    },
    /// A file is missing that held live records.
    #[error("the log file of sequence number {sequence} is missing")]
    MissingFile {
        /// In the file's name.
        sequence: u32,
    },
    /// A file belongs to another log.
    #[error("{file} is of log {found:016x}, not {expected:016x}")]
    Foreign {
        /// Name within the directory.
        file: String,
        /// The log id in it.
        found: u64,
        /// The log id of the files before.
        expected: u64,
    },
}

impl Error {
    fn io(action: &'static str, source: std::io::Error) -> Error {
        Error::Io { action, source }
    }

    fn corrupt(sequence: u32, offset: u32, what: &'static str) -> Error {
        Error::Corrupt { file: name_of(sequence), offset: u64::from(offset), what }
    }
}

/// Where a record's payload lies, in a log whose files are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// Sequence number of the file.
    pub file: u32,
    /// Where it begins there, bytes.
    pub start_bytes: u32,
    /// How long it is.
    pub len_bytes: u32,
}

impl Location {
    fn of(place: &view::Place) -> Location {
        let start_bytes = place.offset + ENTRY_HEADER_LEN as u32;
        Location { file: place.file, start_bytes, len_bytes: place.payload_len }
    }
}

/// An open file of a log whose files are kept.
pub struct KeptFile {
    file: Arc<dyn DiskFile>,
}

impl KeptFile {
    /// The bytes from `start_bytes` on, as they are: nothing is verified. Blocking.
    ///
    /// # Errors
    /// `Io`; among it that the file is shorter.
    pub fn read(&self, start_bytes: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.file.read_at(start_bytes, buffer).map_err(|source| Error::io("read a log file", source))
    }

    /// Gives back the blocks that lie whole within a record's payload, which then reads as damaged. Blocking.
    ///
    /// # Errors
    /// `Io`.
    pub fn punch(&self, location: Location) -> Result<(), Error> {
        let block = BLOCK_LEN as u64;
        let start = u64::from(location.start_bytes).next_multiple_of(block);
        let end = (u64::from(location.start_bytes) + u64::from(location.len_bytes)) / block * block;
        if start >= end {
            return Ok(());
        }
        self.file.punch(start..end).map_err(|source| Error::io("punch a log file", source))
    }

    /// What it takes on the disk, bytes.
    ///
    /// # Errors
    /// `Io`.
    pub fn allocated_bytes(&self) -> Result<u64, Error> {
        self.file.allocated().map_err(|source| Error::io("look at a log file", source))
    }
}

/// Counters since opening, and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records made durable.
    pub records: u64,
    /// Their payloads, bytes.
    pub bytes: u64,
    /// Batches, each one write and one fdatasync.
    pub syncs: u64,
    /// Calls acknowledged; divided by `syncs`, how many shared one.
    pub waiters: u64,
    /// Time in write and fdatasync, all batches, microseconds.
    pub sync_us_sum: u64,
    /// The slowest batch, microseconds.
    pub sync_us_max: u64,
    /// Gauge: files that hold the log.
    pub files: u64,
    /// Gauge: pre-written files that are ready.
    pub spares: u64,
    /// Gauge: payload bytes queued and not yet durable.
    pub queued_bytes: u64,
}

impl Stats {
    fn note_sync(&mut self, us: u64) {
        self.syncs += 1;
        self.sync_us_sum += us;
        self.sync_us_max = self.sync_us_max.max(us);
    }
}

/// A handle to an open log; clones are the same log. The last one dropped closes it.
///
/// Changes are done strictly in the order of their calls and are seen by reads at once. `done` is called once, from
/// the writer's thread, when the change (and all before it) is durable; with [`Error::Closed`] if that never came to
/// be, or [`Error::Full`]. It must be quick. A failed write or sync ends the process.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    view: Arc<View>,
    /// None in a read-only log.
    spares: Option<Arc<Spares>>,
    disk: Arc<dyn Disk>,
    record_max_len: usize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log in `options.dir`, or makes a new one. Reads and verifies every file. Blocking.
    ///
    /// # Errors
    /// `Hole`, `MissingFile`, `Corrupt`, `Foreign`: damage that no crash explains; nothing was changed. `Io`: the disk.
    pub fn open(options: Options) -> Result<(Log, Recovery), Error> {
        Log::open_disk(Arc::new(RealDisk::new(&options.dir)), &options)
    }

    /// Like [`Log::open`], on any disk.
    pub(crate) fn open_disk(disk: Arc<dyn Disk>, options: &Options) -> Result<(Log, Recovery), Error> {
        let (log, recovery, writer) = Log::open_on(disk, options)?;
        if let Some(writer) = writer {
            log.start(writer).map_err(|source| Error::io("start the writer", source))?;
        }
        Ok((log, recovery))
    }

    /// Everything but the threads. There is no writer if the log is read-only.
    fn open_on(disk: Arc<dyn Disk>, options: &Options) -> Result<(Log, Recovery, Option<Writer>), Error> {
        let names = disk.list().map_err(|source| Error::io("list the log's directory", source))?;
        let found = match options.kept_from {
            Some(from) => kept::recover(disk.as_ref(), &names, from)?,
            None => recover(disk.as_ref(), &names)?,
        };
        let recovery = Recovery {
            first_index: found.tip.first,
            next_index: found.tip.next,
            mark: found.mark.clone(),
            cut_tail_bytes: found.cut_tail_bytes,
            damaged_records: found.damaged_records,
            state: found.health,
        };
        let writer = if found.health == Health::Whole || options.accept_loss || options.kept_from.is_some() {
            let resumed = resume(disk.clone(), options, &names, found);
            Ok(resumed.map_err(|source| Error::io("prepare the log for writing", source))?)
        } else {
            Err(found)
        };
        let record_max_len = options.file_len() as usize - BLOCK_LEN - BATCH_HEADER_LEN - ENTRY_HEADER_LEN;
        let inner = |view, spares| Inner {
            view,
            spares,
            disk,
            record_max_len: record_max_len.min(RECORD_MAX_LEN),
            threads: Mutex::default(),
        };
        let (inner, writer) = match writer {
            Ok(writer) => (inner(writer.view.clone(), Some(writer.spares.clone())), Some(writer)),
            Err(found) => (inner(read_only_view(found, options), None), None),
        };
        Ok((Log { inner: Arc::new(inner) }, recovery, writer))
    }

    fn start(&self, writer: Writer) -> std::io::Result<()> {
        let spares = writer.spares.clone();
        let mut threads = lock(&self.inner.threads);
        threads.push(thread::Builder::new().name("log-writer".into()).spawn(move || writer.run())?);
        threads.push(thread::Builder::new().name("log-spares".into()).spawn(move || spares.run())?);
        Ok(())
    }

    /// Queues `records` with indices `first_index..`; they are readable when this returns. Does no I/O and never waits:
    /// the queue is not bounded here, so bound what is appended and not yet durable (Raft's log: `consensus::admission`).
    ///
    /// # Errors
    /// Nothing was queued, and `done` is not called. `OutOfOrder`: `first_index` is not [`Log::next_index`]. `TooLong`:
    /// a record is longer than 16 MiB, or than a file. `Closed`, `ReadOnly`.
    pub fn append(
        &self,
        first_index: u64,
        records: Vec<Bytes>,
        done: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) -> Result<(), Error> {
        self.queue(first_index, records, false, done)
    }

    /// Like [`Log::append`], for what must go on when the disk is full, and is small: it may use the last spare file.
    ///
    /// # Errors
    /// As those of [`Log::append`].
    pub fn append_reserved(
        &self,
        first_index: u64,
        records: Vec<Bytes>,
        done: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) -> Result<(), Error> {
        self.queue(first_index, records, true, done)
    }

    fn queue(
        &self,
        first_index: u64,
        records: Vec<Bytes>,
        is_reserved: bool,
        done: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) -> Result<(), Error> {
        let longest = records.iter().map(Bytes::len).max().unwrap_or(0);
        check_len(longest, self.inner.record_max_len)?;
        self.inner.view.append(first_index, records, is_reserved, Box::new(done))
    }

    /// Removes a spare file, to make room on a full disk for something that will give room back. False: there is none.
    /// Blocking.
    ///
    /// # Errors
    /// `Io`.
    pub fn release_spare(&self) -> Result<bool, Error> {
        let released = self.inner.spares.as_ref().map_or(Ok(false), |spares| spares.release());
        released.map_err(|source| Error::io("remove a spare log file", source))
    }

    /// The records of `range`, at most about `limit_bytes` of payload but at least one, each verified; from memory where
    /// they are, else from disk. Blocking.
    ///
    /// # Errors
    /// `OutOfRange`: not all within `first_index..next_index`. `Purged`: meanwhile. `Corrupt`: damaged. `Io`: the disk.
    pub fn read(&self, range: Range<u64>, limit_bytes: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        self.inner.view.read(range, limit_bytes)
    }

    /// Like [`Log::read`], but without I/O: None if a record that would be returned is not in memory.
    pub fn read_cached(&self, range: Range<u64>, limit_bytes: usize) -> Option<Vec<(u64, Bytes)>> {
        self.inner.view.read_cached(range, limit_bytes)
    }

    /// Discards the records after `last`, or all for None; the next record follows `last`, or is the first again.
    ///
    /// # Errors
    /// `OutOfRange`: `last + 1` lies before the first record. `Closed`, `ReadOnly`.
    pub fn truncate_after(
        &self,
        last: Option<u64>,
        done: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) -> Result<(), Error> {
        let next = last.map(|last| last.saturating_add(1));
        self.inner.view.change(Kind::Truncate, next, Bytes::new(), Box::new(done))
    }

    /// Forgets the records before `index`; files that hold nothing else are recycled.
    ///
    /// # Errors
    /// `OutOfRange`: past the next index. `Closed`, `ReadOnly`.
    pub fn purge_before(&self, index: u64, done: impl FnOnce(Result<(), Error>) + Send + 'static) -> Result<(), Error> {
        self.inner.view.change(Kind::Purge, Some(index), Bytes::new(), Box::new(done))
    }

    /// Empties the log so that the next record is `next_index`, wherever that is. The mark stays.
    ///
    /// # Errors
    /// `Closed`, `ReadOnly`.
    pub fn reset(&self, next_index: u64, done: impl FnOnce(Result<(), Error>) + Send + 'static) -> Result<(), Error> {
        self.inner.view.change(Kind::Reset, Some(next_index), Bytes::new(), Box::new(done))
    }

    /// Replaces the mark, a small value (at most [`MARK_MAX_LEN`] bytes; Raft's vote) that [`Recovery`] gives back.
    ///
    /// # Errors
    /// `TooLong`. `Closed`, `ReadOnly`.
    pub fn set_mark(&self, mark: &[u8], done: impl FnOnce(Result<(), Error>) + Send + 'static) -> Result<(), Error> {
        check_len(mark.len(), MARK_MAX_LEN)?;
        self.inner.view.change(Kind::Mark, None, Bytes::copy_from_slice(mark), Box::new(done))
    }

    /// Index of the first record that is not purged.
    pub fn first_index(&self) -> u64 {
        self.inner.view.lock().first()
    }

    /// Index that the next record gets.
    pub fn next_index(&self) -> u64 {
        self.inner.view.lock().next()
    }

    /// Index of the first record that is not durable yet; the next index if all are.
    pub fn durable_index(&self) -> u64 {
        self.inner.view.lock().placed_next()
    }

    /// Counters and gauges, for metrics.
    pub fn stats(&self) -> Stats {
        let spares = self.inner.spares.as_ref().map_or(0, |spares| spares.ready_count());
        let state = self.inner.view.lock();
        Stats {
            files: state.files.len() as u64,
            queued_bytes: state.queued_bytes() as u64,
            spares: spares as u64,
            ..state.stats
        }
    }

    /// Where the records of `range` lie, as far as they are durable and not purged.
    pub fn locate(&self, range: Range<u64>) -> Vec<Location> {
        self.inner.view.lock().places_of(range).iter().map(Location::of).collect()
    }

    /// The file being written, as it was after the last batch.
    pub fn current(&self) -> Current {
        self.inner.view.lock().current
    }

    /// Asks for a fresh file, if `file` is the one being written: what is appended from now on goes there, unless the disk
    /// is full by then. False: no spare is ready that is not kept in reserve; nothing changes.
    pub fn retire(&self, file: u32) -> bool {
        let is_possible = self.inner.spares.as_ref().is_some_and(|spares| spares.ready_count() > 1);
        if is_possible {
            self.inner.view.lock().retired = file;
        }
        is_possible
    }

    /// Opens one of the files that the owner keeps.
    ///
    /// # Errors
    /// `Io`: it is gone, or the disk failed.
    pub fn file(&self, sequence: u32) -> Result<KeptFile, Error> {
        let opened = self.inner.disk.open(&name_of(sequence));
        Ok(KeptFile { file: opened.map_err(|source| Error::io("open a log file", source))? })
    }

    /// The numbers of the files there are, ascending; the last is the one being written. Blocking.
    ///
    /// # Errors
    /// `Io`.
    pub fn files(&self) -> Result<Vec<u32>, Error> {
        let names = self.inner.disk.list().map_err(|source| Error::io("list the log's directory", source))?;
        Ok(salvage::sequences(&names))
    }

    /// Removes a file that the owner keeps no longer; never the one being written. What is open stays readable. Blocking.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove_file(&self, sequence: u32) -> Result<(), Error> {
        let removed = self.inner.disk.remove(&name_of(sequence)).and_then(|()| self.inner.disk.sync_dir());
        removed.map_err(|source| Error::io("remove a log file", source))
    }

    /// Reads every record in the files on `disk`, oldest first, for an owner that has lost what it knew of them. Blocking.
    ///
    /// `visit`: index, place, and the payload; no payload: it was punched, or is damaged.
    ///
    /// # Errors
    /// `Io`. Damage is none.
    pub(crate) fn survey(disk: &dyn Disk, mut visit: impl FnMut(u64, Location, Option<&[u8]>)) -> Result<(), Error> {
        kept::survey(disk, |index, place, payload| visit(index, Location::of(place), payload))
    }

    /// Says that there may be room for spare files again.
    pub fn retry_spares(&self) {
        self.inner.spares.iter().for_each(|spares| spares.retry());
    }

    /// Refuses changes from now on, does what is queued, and ends the threads. Reads still work. Blocking, unless
    /// called from a `done`, which does not wait.
    pub fn close(&self) {
        self.inner.close();
    }
}

impl Inner {
    fn close(&self) {
        self.view.close();
        if let Some(spares) = &self.spares {
            spares.close();
        }
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // The last handle may be dropped by a `done`: a thread cannot wait for itself. A panic was fatal already.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn check_len(len_bytes: usize, limit_bytes: usize) -> Result<(), Error> {
    if len_bytes > limit_bytes { Err(Error::TooLong { len_bytes, limit_bytes }) } else { Ok(()) }
}

fn read_only_view(found: Recovered, options: &Options) -> Arc<View> {
    let files = found.files.iter().map(|file| (file.sequence, file.file.clone())).collect();
    Arc::new(View::new(found.places, files, Access::ReadOnly, options.cache_len_bytes))
}

/// Makes a recovered log ready to be written: a file to write to, the witness at its end, leftovers gone.
fn resume(disk: Arc<dyn Disk>, options: &Options, names: &[String], found: Recovered) -> std::io::Result<Writer> {
    // A process that died may have left a rename that is seen but not durable; nothing may be built on that.
    disk.sync_dir()?;
    let kept = options.kept_from.is_some();
    let spares = Arc::new(Spares::adopt(disk.clone(), options.file_len(), options.spare_count, !kept, names)?);
    let files = match kept {
        true => files_of(disk.as_ref(), &found.places)?,
        false => found.files.iter().map(|file| (file.sequence, file.file.clone())).collect(),
    };
    // Behind damage there may be what the owner knows of, though nobody finds it here.
    if kept && found.last_sequence > 0 && found.health == Health::Whole && found.damaged_records == 0 {
        disk.open(&name_of(found.last_sequence))?.trim(found.position as u64)?;
    }
    let view = Arc::new(View::new(found.places, files, Access::Open, options.cache_len_bytes));
    let (witness, witnessed) = match found.witness {
        FoundWitness::Valid { file, newest, slot } => (Witness::resume(file, newest, &slot), Some(slot)),
        _ => (create_witness(disk.as_ref(), found.log_id, &found.tip)?, None),
    };
    let mut writer = Writer {
        disk,
        view,
        spares,
        witness,
        log_id: found.log_id,
        tip: found.tip,
        files: found.files,
        last_sequence: found.last_sequence,
        kept,
        on_reserve: false,
        position: found.position,
        buffer: Vec::new(),
        places: Vec::new(),
    };
    if kept {
        writer.witness.commit(&writer.tip)?;
        return Ok(writer);
    }
    if writer.files.count() == 0 {
        writer.roll(0)?;
    }
    settle(&mut writer, found.health, found.mark, witnessed)?;
    writer.recycle()?;
    Ok(writer)
}

/// The files in which records lie.
fn files_of(disk: &dyn Disk, places: &view::Places) -> std::io::Result<BTreeMap<u32, Arc<dyn DiskFile>>> {
    let sequences: BTreeSet<u32> = places.iter().map(|place| place.file).filter(|sequence| *sequence > 0).collect();
    sequences.into_iter().map(|sequence| Ok((sequence, disk.open(&name_of(sequence))?))).collect()
}

fn create_witness(disk: &dyn Disk, log_id: u64, tip: &Tip) -> std::io::Result<Witness> {
    let witness = Witness::create(disk.create(witness::TEMPORARY_NAME)?, log_id, tip)?;
    disk.rename(witness::TEMPORARY_NAME, witness::NAME)?;
    disk.sync_dir()?;
    Ok(witness)
}

/// Brings the witness to the log's end. Where a loss is accepted, the log gets the mark first, which only the witness may
/// have had, and the witness comes down after: a crash in between finds the loss again.
fn settle(writer: &mut Writer, health: Health, mark: Vec<u8>, witnessed: Option<Stamp>) -> std::io::Result<()> {
    if health != Health::Whole {
        let queued = writer.view.change(Kind::Mark, None, Bytes::from(mark), Box::new(|_| ()));
        queued.map_err(std::io::Error::other)?;
        writer.step()?;
    }
    if witnessed.is_none_or(|slot| slot.tip != writer.tip) {
        writer.witness.commit(&writer.tip)?;
    }
    Ok(())
}
