//! Giving space back: flush the index, punch what is dead, remove empty files, move what is left of mostly dead ones.
//!
//! Only one thread cleans at a time. All of it blocks.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};

use super::Error;
use super::index::{Run, lock};
use super::record::{Commit, RunName, encode_move, encode_run};
use super::store::{Appender, Inner, Shards};
use crate::ids::ShardId;
use crate::log;

/// What lies in log files may exceed the live bytes by one part in so many before files are compacted; a single file by
/// half of that, and by some blocks, as every batch begins a new one: else the same bytes would be moved again and again.
const WASTE_PARTS: u64 = 16;
const WASTE_BYTES: u64 = 64 << 10;
/// Shards moved between two looks at the index.
const MOVED_AT_ONCE: usize = 256;
/// Bytes that are moved before they are waited for.
const MOVING_MAX_BYTES: u64 = 8 << 20;

/// What a cleaning did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cleaned {
    /// Bytes of dead runs that were punched, about.
    pub punched_bytes: u64,
    /// Bytes moved out of files that were mostly dead.
    pub moved_bytes: u64,
    /// Files removed.
    pub removed_files: u64,
}

impl Shards {
    /// Brings the index to where the log is, and gives back what is dead.
    pub(super) fn flush(&self) -> Result<u64, Error> {
        let _one = lock(&self.inner.cleaning);
        self.inner.flush()
    }

    /// Gives back the space of what is dead; stops when the log is no longer than it should be.
    ///
    /// # Errors
    /// `Log`, `Index`: the disk.
    pub fn clean(&self) -> Result<Cleaned, Error> {
        let _one = lock(&self.inner.cleaning);
        let mut cleaned = Cleaned { punched_bytes: self.inner.flush()?, ..Cleaned::default() };
        let mut files: BTreeSet<u32> = self.inner.settled_files()?.into_iter().collect();
        loop {
            cleaned.removed_files += self.inner.remove_empty()?;
            let Some(file) = self.inner.worst(&files)? else { return Ok(cleaned) };
            // Each file once: what is moved now is in order.
            files.remove(&file);
            cleaned.moved_bytes += self.inner.clone().move_out(file)?;
            cleaned.punched_bytes += self.inner.flush()?;
        }
    }
}

impl Inner {
    /// Returns how many bytes were punched.
    fn flush(&self) -> Result<u64, Error> {
        let next = {
            let mut appender = lock(&self.appender);
            self.bury(&mut appender);
            let oldest = appender.pins.keys().chain(&appender.abandoned).min().copied();
            let applied = self.applied.load(Ordering::Acquire);
            oldest.map_or(applied, |oldest| oldest.min(applied))
        };
        let dead = std::mem::take(&mut *lock(&self.dead));
        if dead.is_empty() && self.index.pending_count() == 0 {
            return Ok(0);
        }
        if let Err(error) = self.index.flush(next) {
            lock(&self.dead).extend(dead);
            return Err(error);
        }
        if next > self.log.first_index() {
            self.log.purge_before(next, |_| ())?;
        }
        for location in &dead {
            match self.file(location.file).and_then(|file| Ok(file.punch(*location)?)) {
                // It is gone as a whole, from before a crash.
                Err(Error::Log(log::Error::Io { source, .. })) if source.kind() == ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(dead.iter().map(|location| u64::from(location.len_bytes)).sum())
    }

    /// Counts the runs as dead that no commit will name, once they are durable.
    fn bury(&self, appender: &mut Appender) {
        let mut dead = lock(&self.dead);
        appender.abandoned.retain(|index| match self.log.locate(*index..index + 1).as_slice() {
            [location] => {
                dead.push(*location);
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
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Which of `files` wastes most, if too much is wasted in all.
    fn worst(&self, files: &BTreeSet<u32>) -> Result<Option<u32>, Error> {
        let live = self.index.live();
        let (mut wasted_sum, mut live_sum, mut worst) = (0, 0, None);
        for file in self.settled_files()? {
            let live = live.get(&file).copied().unwrap_or(0);
            let wasted = self.file(file)?.allocated_bytes()?.saturating_sub(live);
            (wasted_sum, live_sum) = (wasted_sum + wasted, live_sum + live);
            let is_candidate = live > 0 && files.contains(&file) && wasted > live / WASTE_PARTS / 2 + WASTE_BYTES / 2;
            if is_candidate && worst.is_none_or(|(_, most)| wasted > most) {
                worst = Some((file, wasted));
            }
        }
        let too_much = wasted_sum > live_sum / WASTE_PARTS + WASTE_BYTES;
        Ok(worst.filter(|_| too_much).map(|(file, _)| file))
    }

    /// Writes the live records of a file anew at the log's end. Returns how many bytes.
    fn move_out(self: Arc<Inner>, file: u32) -> Result<u64, Error> {
        let mut moved = 0;
        loop {
            let shards = self.index.in_file(file, MOVED_AT_ONCE)?;
            let (mut waiting, mut waiting_bytes) = (Vec::new(), 0);
            for shard in &shards {
                let (tell, told) = mpsc::channel();
                let bytes = self.clone().move_shard(*shard, file, tell)?;
                (moved, waiting_bytes) = (moved + bytes, waiting_bytes + bytes);
                waiting.push(told);
                if waiting_bytes >= MOVING_MAX_BYTES {
                    all_told(&mut waiting)?;
                    waiting_bytes = 0;
                }
            }
            all_told(&mut waiting)?;
            self.flush()?;
            if shards.len() < MOVED_AT_ONCE || moved == 0 {
                return Ok(moved);
            }
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
        self.append(&mut appender, records, move |inner, first, result| {
            let applied = || inner.apply_move(commit, first + commit_at, Some(&entry));
            // Who waits may have met an error.
            let _ = tell.send(result.map_err(Error::from).and_then(|()| applied()));
        })?;
        Ok(moved)
    }
}

type Told = mpsc::Sender<Result<(), Error>>;

/// Waits for all. A sender that is gone has nothing to tell: nothing was moved.
fn all_told(waiting: &mut Vec<mpsc::Receiver<Result<(), Error>>>) -> Result<(), Error> {
    waiting.drain(..).filter_map(|told| told.recv().ok()).collect()
}
