//! Giving space back: flush the index, punch what is dead, remove empty files, move what is left of mostly dead ones.
//!
//! Only one thread cleans at a time, and only one flushes. All of it blocks.
//!
//! A shard that cannot be read stays where it is, and its file with it, until somebody has repaired and deleted it; the
//! rest goes on. What can be read is moved as it is: damage within stays visible, for frames have checksums of their own.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use super::Error;
use super::index::{Run, lock};
use super::record::{Commit, RunName, encode_move, encode_run};
use super::store::{Appender, Inner, Room, Shards};
use crate::ids::ShardId;
use crate::log::{self, Location};

/// What lies in log files may exceed the live bytes by one part in so many before files are compacted; a single file by
/// half of that, and by some blocks, as every batch begins a new one: else the same bytes would be moved again and again.
pub(super) const WASTE_PARTS: u64 = 16;
pub(super) const WASTE_BYTES: u64 = 64 << 10;
/// Shards moved between two looks at the index.
const MOVED_AT_ONCE: usize = 256;
/// Bytes that are moved before they are waited for.
const MOVING_MAX_BYTES: u64 = 8 << 20;
/// Shards of which it is remembered that they could not be moved, so as to say so once.
const UNMOVABLE_MAX: usize = 1024;

/// What a cleaning did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cleaned {
    /// Bytes of dead runs that were punched, about.
    pub punched_bytes: u64,
    /// Bytes moved out of files that were mostly dead.
    pub moved_bytes: u64,
    /// Files removed.
    pub removed_files: u64,
    /// Shards that could not be read, and stayed where they are.
    pub unreadable_shards: u64,
    /// There was more to move, and no room to move it to.
    pub is_unfinished: bool,
}

impl Shards {
    /// Brings the index to where the log is, and gives back what is dead.
    pub(super) fn flush(&self) -> Result<u64, Error> {
        self.inner.flush()
    }

    /// How many changes the index has not seen, and how many bytes wait to be punched.
    pub(super) fn backlog(&self) -> (usize, u64) {
        let dead_bytes = lock(&self.inner.dead).iter().map(|location| u64::from(location.len_bytes)).sum();
        (self.inner.index.pending_count(), dead_bytes)
    }

    /// Gives back the space of what is dead; stops when the log is no longer than it should be, when the disk has no room
    /// to move anything, and at [`Shards::close`]. Blocking.
    ///
    /// # Errors
    /// `Log`, `Index`: the disk. `Full`: the index cannot be written.
    pub fn clean(&self) -> Result<Cleaned, Error> {
        let inner = &self.inner;
        let _one = lock(&inner.cleaning);
        let mut cleaned = Cleaned { punched_bytes: inner.flush()?, ..Cleaned::default() };
        cleaned.removed_files += inner.remove_empty()?;
        // Each file once: what is moved now is in order.
        let (wasteful, mut excess_bytes) = inner.wasteful()?;
        for (wasted_bytes, file) in wasteful {
            if excess_bytes == 0 || inner.is_stopping() {
                break;
            }
            // What is moved must not end up where it was.
            if file == inner.log.current().file && !inner.log.retire(file) {
                cleaned.is_unfinished = true;
                continue;
            }
            match inner.clone().move_out(file, &mut cleaned) {
                Err(Error::Full) => {
                    cleaned.is_unfinished = true;
                    break;
                }
                result => result?,
            }
            cleaned.punched_bytes += inner.flush()?;
            cleaned.removed_files += inner.remove_empty()?;
            excess_bytes = excess_bytes.saturating_sub(wasted_bytes);
        }
        Ok(cleaned)
    }
}

impl Inner {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Returns how many bytes were punched.
    fn flush(&self) -> Result<u64, Error> {
        let _one = lock(&self.flushing);
        let next = {
            let mut appender = lock(&self.appender);
            self.bury(&mut appender);
            let oldest = appender.pins.keys().chain(&appender.abandoned).min().copied();
            let applied = self.applied.load(Ordering::Acquire);
            oldest.map_or(applied, |oldest| oldest.min(applied))
        };
        let dead = std::mem::take(&mut *lock(&self.dead));
        if dead.is_empty() && self.index.pending_count() == 0 && next <= self.log.first_index() {
            return Ok(0);
        }
        if let Err(error) = self.flush_index(next) {
            lock(&self.dead).extend(dead);
            self.log.retry_spares();
            return Err(error);
        }
        if next > self.log.first_index() {
            self.log.purge_before(next, |_| ())?;
        }
        let (now, later): (Vec<_>, Vec<_>) = dead.into_iter().partition(self.is_behind_us(next));
        lock(&self.dead).extend(later);
        let punched_bytes = now.into_iter().map(|location| self.punch(location)).sum();
        self.log.retry_spares();
        Ok(punched_bytes)
    }

    /// On a full disk the index cannot even forget; a spare file makes room until something is punched.
    fn flush_index(&self, next: u64) -> Result<(), Error> {
        match self.index.flush(next) {
            Err(Error::Full) if self.log.release_spare()? => self.index.flush(next),
            flushed => flushed,
        }
    }

    /// Whether what lies somewhere will not be read again by a start that begins at record `next`.
    fn is_behind_us(&self, next: u64) -> impl Fn(&Location) -> bool + use<> {
        let ahead = self.log.locate(next..self.log.next_index());
        let first = ahead.into_iter().find(|location| location.file > 0);
        move |location| first.is_none_or(|first| *location < first)
    }

    /// Returns how many bytes that was.
    fn punch(&self, location: Location) -> u64 {
        match self.file(location.file).and_then(|file| Ok(file.punch(location)?)) {
            Ok(()) => u64::from(location.len_bytes),
            // It is gone as a whole, from before a crash.
            Err(Error::Log(log::Error::Io { source, .. })) if source.kind() == ErrorKind::NotFound => 0,
            Err(error) => {
                tracing::warn!(%error, ?location, "not punched: the room comes back with the whole file");
                0
            }
        }
    }

    /// Counts the runs as dead that no commit will name, once they are durable.
    fn bury(&self, appender: &mut Appender) {
        let mut dead = lock(&self.dead);
        appender.abandoned.retain(|index| match self.log.locate(*index..index + 1).as_slice() {
            [location] => {
                // What was left out lies nowhere.
                dead.extend(Some(*location).filter(|location| location.file > 0));
                false
            }
            _ => *index >= self.log.durable_index(),
        });
    }

    /// Files in the log that are not being written, ascending.
    fn settled_files(&self) -> Result<Vec<u32>, Error> {
        let mut files = self.log.files()?;
        files.pop();
        Ok(files)
    }

    /// Removes the files of which nothing is live and nothing will be replayed.
    fn remove_empty(&self) -> Result<u64, Error> {
        // In this order: what is settled by now was noted before, and counts in what follows.
        let settled = self.settled_files()?;
        let live = self.index.live();
        let needed = self.log.locate(self.log.first_index()..self.log.next_index());
        let first_needed = needed.iter().map(|location| location.file).min().unwrap_or(u32::MAX);
        let mut removed = 0;
        for file in settled {
            if live.get(&file).is_none_or(|live| *live == 0) && file < first_needed {
                self.forget_file(file);
                self.log.remove_file(file)?;
                self.log.retry_spares();
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Files that waste much, the worst first, with how many bytes each does; and how many more are wasted in all than
    /// may be. The file being written is one of them: a small node may never fill it.
    fn wasteful(&self) -> Result<(Vec<(u64, u32)>, u64), Error> {
        let current = self.log.current();
        let live = self.index.live();
        let (mut wasted_sum, mut live_sum, mut files) = (0, 0, Vec::new());
        for file in self.log.files()? {
            // What cannot even be looked at cannot be moved either; what was begun meanwhile has wasted nothing yet.
            let Ok(allocated) = self.log.file(file).and_then(|file| file.allocated_bytes()) else { continue };
            let room_bytes = if file == current.file { current.room_bytes } else { 0 };
            if current.file > 0 && file > current.file {
                continue;
            }
            let live = live.get(&file).copied().unwrap_or(0);
            let wasted = allocated.saturating_sub(room_bytes + live);
            (wasted_sum, live_sum) = (wasted_sum + wasted, live_sum + live);
            if live > 0 && wasted > live / WASTE_PARTS / 2 + WASTE_BYTES / 2 {
                files.push((wasted, file));
            }
        }
        files.sort_unstable_by(|one, other| other.cmp(one));
        Ok((files, wasted_sum.saturating_sub(live_sum / WASTE_PARTS + WASTE_BYTES)))
    }

    /// Writes the live records of a file anew at the log's end.
    fn move_out(self: Arc<Inner>, file: u32, cleaned: &mut Cleaned) -> Result<(), Error> {
        let mut after = None;
        loop {
            let shards = self.index.in_file(file, after, MOVED_AT_ONCE)?;
            let Some(last) = shards.last() else { return Ok(()) };
            after = Some(*last);
            self.move_some(file, &shards, cleaned)?;
            self.flush()?;
        }
    }

    fn move_some(self: &Arc<Inner>, file: u32, shards: &[ShardId], cleaned: &mut Cleaned) -> Result<(), Error> {
        let (mut waiting, mut waiting_bytes) = (Vec::new(), 0);
        for shard in shards {
            if self.is_stopping() {
                break;
            }
            let (tell, told) = mpsc::channel();
            let bytes = match self.clone().move_shard(*shard, file, tell) {
                Err(Error::Log(error @ log::Error::Io { .. })) => {
                    self.note_unmovable(*shard, &error);
                    cleaned.unreadable_shards += 1;
                    continue;
                }
                moved => moved?,
            };
            cleaned.moved_bytes += bytes;
            waiting_bytes += bytes;
            waiting.push(told);
            if waiting_bytes >= MOVING_MAX_BYTES {
                all_told(&mut waiting)?;
                waiting_bytes = 0;
            }
        }
        all_told(&mut waiting)
    }

    fn note_unmovable(&self, shard: ShardId, error: &log::Error) {
        let mut unmovable = lock(&self.unmovable);
        if unmovable.len() >= UNMOVABLE_MAX {
            unmovable.clear();
        }
        if unmovable.insert(shard) {
            tracing::warn!(%shard, %error, "a shard cannot be moved, and keeps its log file");
        }
    }

    /// Nothing is moved where the shard changes meanwhile.
    pub(super) fn move_shard(self: Arc<Inner>, shard: ShardId, file: u32, tell: Told) -> Result<u64, Error> {
        let Some(entry) = self.index.get(shard)? else { return Ok(0) };
        let (mut records, mut start) = (Vec::new(), 0);
        for run in &entry.runs {
            let end = start + u64::from(run.at.len_bytes);
            if run.at.file == file {
                records.push(encode_run(shard, &[self.read_bytes(&entry, start..end)?.into()]));
            }
            start = end;
        }
        if records.is_empty() && entry.commit.at.file != file {
            return Ok(0);
        }
        let mut appender = lock(&self.appender);
        let unchanged = self.index.get_now(shard)?.is_some_and(|now| now.commit == entry.commit);
        if !unchanged || appender.deleting.contains(&shard) {
            return Ok(0);
        }
        let mut fresh = self.log.next_index()..;
        let name = |run: &Run| RunName {
            index: if run.at.file == file { fresh.next().unwrap_or(run.index) } else { run.index },
            len_bytes: run.at.len_bytes,
        };
        let runs = entry.runs.iter().map(name).collect();
        let commit = Commit { shard, origin: entry.origin, frames: entry.frames.clone(), runs };
        let commit_at = records.len() as u64;
        records.push(encode_move(&commit));
        let moved = records.iter().map(|record| record.len() as u64).sum();
        self.append(&mut appender, records, Room::Common, move |inner, first, result| {
            let applied = || inner.apply_move(commit, first + commit_at, Some(&entry));
            // Who waits may have met an error.
            let _ = tell.send(result.map_err(Error::from).and_then(|()| applied()));
        })?;
        Ok(moved)
    }
}

type Told = mpsc::Sender<Result<(), Error>>;

/// Waits for all. A sender that is gone has nothing to tell: nothing was moved. A move whose records cannot be found again
/// changed nothing.
fn all_told(waiting: &mut Vec<mpsc::Receiver<Result<(), Error>>>) -> Result<(), Error> {
    let told = waiting.drain(..).filter_map(|told| told.recv().ok());
    told.filter(|told| !matches!(told, Err(Error::Invalid { .. }))).collect()
}
