//! A shard on its way in.

use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Error;
use super::index::lock;
use super::record::{Commit, Origin, RunName, encode_commit, encode_run};
use super::store::{Appender, Room, Shards};
use crate::ids::ShardId;
use crate::log;

/// A run is written once it is so long, bytes.
const RUN_BYTES: usize = 1 << 20;

/// A shard that is being written. Dropped before [`Writing::finish`], nothing of it remains.
pub struct Writing {
    shards: Shards,
    shard: ShardId,
    origin: Origin,
    frames: Vec<u32>,
    runs: Vec<RunName>,
    parts: Vec<Bytes>,
    part_bytes: usize,
    /// The first run's record, until the commit is durable or the shard given up.
    pin: Option<u64>,
    /// The disk had no room for one of the runs.
    left_out: Arc<AtomicBool>,
}

impl Writing {
    pub(super) fn new(shards: Shards, shard: ShardId, origin: Origin) -> Writing {
        let (frames, runs, parts) = (Vec::new(), Vec::new(), Vec::new());
        let left_out = Arc::default();
        Writing { shards, shard, origin, frames, runs, parts, part_bytes: 0, pin: None, left_out }
    }

    /// Adds a frame. Waits for room while too much is on its way to the disk. Up to 1 MiB is held until there is more, or
    /// [`Writing::settle`].
    ///
    /// # Errors
    /// `Full`, `Log`, `Closed`.
    pub async fn push(&mut self, frame: Bytes) -> Result<(), Error> {
        self.frames.push(frame.len() as u32);
        self.part_bytes += frame.len();
        self.parts.push(frame);
        if self.part_bytes >= RUN_BYTES { self.settle().await } else { Ok(()) }
    }

    /// Hands over what is held, so that a shard with which nobody goes on for a while takes no memory.
    ///
    /// # Errors
    /// As those of [`Writing::push`].
    pub async fn settle(&mut self) -> Result<(), Error> {
        self.check_room()?;
        if self.part_bytes == 0 {
            return Ok(());
        }
        let room = self.room().await?;
        let (inner, left_out) = (self.shards.inner.clone(), self.left_out.clone());
        let record = self.take_run();
        let mut appender = lock(&inner.appender);
        let index = inner.append(&mut appender, vec![record], Room::Common, move |_, _, result| {
            left_out.fetch_or(matches!(result, Err(log::Error::Full)), Ordering::AcqRel);
            drop(room);
        })?;
        self.note_run(&mut appender, index);
        Ok(())
    }

    fn check_room(&self) -> Result<(), Error> {
        if self.left_out.load(Ordering::Acquire) { Err(Error::Full) } else { Ok(()) }
    }

    /// Makes the shard durable, and there. Dropped while it waits, that may still come to be.
    ///
    /// # Errors
    /// `Exists`: there is one of this id; `Full`, `Log`, `Index`, `Closed`.
    pub async fn finish(mut self) -> Result<(), Error> {
        self.check_room()?;
        let room = self.room().await?;
        let (tell, told) = oneshot::channel();
        self.append_commit(room, tell)?;
        told.await.map_err(|_| Error::Closed)?
    }

    fn append_commit(
        &mut self,
        room: OwnedSemaphorePermit,
        tell: oneshot::Sender<Result<(), Error>>,
    ) -> Result<(), Error> {
        let inner = self.shards.inner.clone();
        let mut appender = lock(&inner.appender);
        let first = inner.log.next_index();
        let last = (self.part_bytes > 0).then_some(RunName { index: first, len_bytes: self.part_bytes as u32 });
        let runs: Vec<RunName> = self.runs.iter().copied().chain(last).collect();
        let commit = Commit { shard: self.shard, origin: self.origin, frames: self.frames.clone(), runs };
        let mut records: Vec<Bytes> = last.iter().map(|_| self.take_run()).collect();
        records.push(encode_commit(&commit));
        let (pin, commit_at) = (self.pin.or(last.map(|run| run.index)), records.len() as u64 - 1);
        let left_out = self.left_out.clone();
        inner.append(&mut appender, records, Room::Common, move |inner, first, result| {
            drop(room);
            let result = result.and_then(|()| match left_out.load(Ordering::Acquire) {
                true => Err(log::Error::Full),
                false => Ok(()),
            });
            let result = match result {
                Ok(()) => inner.apply_new(commit, first + commit_at),
                Err(error) => {
                    lock(&inner.appender).abandoned.extend(commit.runs.iter().map(|run| run.index));
                    Err(error.into())
                }
            };
            unpin(&mut lock(&inner.appender), pin);
            // Who asked may be gone.
            let _ = tell.send(result);
        })?;
        // They are the callback's now, which waits for the lock.
        if let (None, Some(pin)) = (self.pin.take(), pin) {
            *appender.pins.entry(pin).or_default() += 1;
        }
        Ok(())
    }

    /// Room for the parts at hand.
    async fn room(&self) -> Result<OwnedSemaphorePermit, Error> {
        let inner = &self.shards.inner;
        let kib = u32::try_from(self.part_bytes.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, inner.room_kib);
        inner.room.clone().acquire_many_owned(kib).await.map_err(|_| Error::Closed)
    }

    /// The parts at hand as a record; its name is noted when its index is known.
    fn take_run(&mut self) -> Bytes {
        encode_run(self.shard, &std::mem::take(&mut self.parts))
    }

    fn note_run(&mut self, appender: &mut Appender, index: u64) {
        let len_bytes = std::mem::take(&mut self.part_bytes) as u32;
        self.runs.push(RunName { index, len_bytes });
        self.note_pin(appender, index);
    }

    fn note_pin(&mut self, appender: &mut Appender, index: u64) {
        if self.pin.is_none() {
            self.pin = Some(index);
            *appender.pins.entry(index).or_default() += 1;
        }
    }
}

fn unpin(appender: &mut Appender, pin: Option<u64>) {
    if let Some(Entry::Occupied(mut pinned)) = pin.map(|pin| appender.pins.entry(pin)) {
        *pinned.get_mut() -= 1;
        if *pinned.get() == 0 {
            pinned.remove();
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if self.pin.is_some() {
            let mut appender = lock(&self.shards.inner.appender);
            appender.abandoned.extend(self.runs.iter().map(|run| run.index));
            unpin(&mut appender, self.pin);
        }
    }
}
