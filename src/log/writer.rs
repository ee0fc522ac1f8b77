//! The one thread that writes: takes all that is queued, writes it as one batch, syncs once, tells everybody.
//!
//! Invariants:
//! - a batch is written only after the one before it is synced, and acknowledged only after its own sync;
//! - the witness is raised only after the sync of what it names;
//! - a file is part of the log (has a log file's name) only once its header is synced;
//! - any failed write, sync or rename ends the process, through [`Disk::fatal`]; nothing is tried again;
//! - but for a new file that a full disk has no room for, in a log whose files are kept: then the append that needed it is
//!   left out, whole as far as it was not written, and told so. Its indices stay unused: the next batch's header says that
//!   they do.
//! - The last spare is for what may use the reserve; so is the file that it becomes, until there is another spare.

use super::Error;
use super::disk::{Disk, DiskFile, is_full};
use super::files::{Files, name_of};
use super::format::{self, BATCH_HEADER_LEN, BLOCK_LEN, ENTRY_HEADER_LEN, Kind, Tip};
use super::spares::Spares;
use super::stamp::{FILE, Stamp};
use super::view::{Current, Done, Item, Place, View, Work};
use super::witness::Witness;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A batch holds no more than this, unless one record alone does.
const BATCH_MAX_LEN: usize = 8 << 20;
/// A log that was quiet for this long has its witness synced, and keeps no memory.
const IDLE: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) view: Arc<View>,
    pub(super) spares: Arc<Spares>,
    pub(super) witness: Witness,
    pub(super) log_id: u64,
    /// The log as it is on disk.
    pub(super) tip: Tip,
    pub(super) files: Files,
    /// The greatest number that a file ever had.
    pub(super) last_sequence: u32,
    /// The files are their owner's, and not recycled.
    pub(super) kept: bool,
    /// The file being written was the last spare.
    pub(super) on_reserve: bool,
    /// Where the next batch goes in the current file.
    pub(super) position: usize,
    /// The batch in the making, kept to reuse its memory; and the places of its records.
    pub(super) buffer: Vec<u8>,
    pub(super) places: Vec<Place>,
}

impl Writer {
    /// Works until the log is closed.
    pub(super) fn run(mut self) {
        let _guard = FatalOnPanic(self.disk.clone());
        loop {
            let idle_after = self.witness.is_dirty().then_some(IDLE);
            let result = match self.view.take_work(idle_after) {
                Work::Items(items) => self.process(items),
                Work::Idle => self.rest(),
                Work::Close => break self.finish(),
            };
            if let Err(error) = result {
                return self.disk.fatal(&error.to_string());
            }
        }
    }

    /// Does what is queued now, without waiting for more.
    pub(super) fn step(&mut self) -> io::Result<()> {
        let items = self.view.take_queued();
        self.process(items)
    }

    /// Nobody reads again soon what was written a while ago.
    pub(super) fn rest(&mut self) -> io::Result<()> {
        self.view.forget();
        self.buffer = Vec::new();
        self.witness.sync()
    }

    /// Leaves everything durable, the witness too.
    pub(super) fn finish(&mut self) {
        if let Err(error) = self.witness.sync() {
            self.disk.fatal(&error.to_string());
        }
    }

    /// Makes `items` durable, in order, in as few batches as they fit.
    pub(super) fn process(&mut self, mut items: VecDeque<Item>) -> io::Result<()> {
        let result = self.write_all(&mut items);
        if result.is_err() {
            self.view.close();
            items.into_iter().filter_map(|item| item.done).for_each(|done| done(Err(Error::Closed)));
        }
        result
    }

    fn write_all(&mut self, items: &mut VecDeque<Item>) -> io::Result<()> {
        while let Some(item) = items.front() {
            if self.kept && item.kind == Kind::Purge {
                // Its owner knows where the log begins.
                items.pop_front().and_then(|item| item.done).into_iter().for_each(|done| done(Ok(())));
                self.recycle()?;
                continue;
            }
            if !self.make_room(item)? {
                self.leave_out(items);
                continue;
            }
            let count = self.encode_batch(items)?;
            self.write_batch()?;
            self.view.publish(items, count, &self.places);
            let done: Vec<Done> = items.drain(..count).filter_map(|item| item.done).collect();
            self.view.lock().stats.waiters += done.len() as u64;
            done.into_iter().for_each(|done| done(Ok(())));
            self.recycle()?;
        }
        Ok(())
    }

    /// Sees to it that the current file takes `item`. False: the disk is full, and the log can do without.
    fn make_room(&mut self, item: &Item) -> io::Result<bool> {
        let has_room = self.admits(item) && self.fits(item);
        if has_room && !self.is_retired() {
            return Ok(true);
        }
        let keep = usize::from(self.kept && !item.reserved);
        match self.roll(keep) {
            Err(error) if self.kept && is_full(&error) => {
                self.view.lock().retired = 0;
                Ok(has_room)
            }
            result => result.map(|()| true),
        }
    }

    fn is_retired(&self) -> bool {
        self.kept && self.files.current().is_some_and(|file| self.view.lock().retired == file.sequence)
    }

    /// Says where the next batch goes.
    fn note_current(&self) {
        let file = self.files.current().map_or(0, |file| file.sequence);
        self.view.lock().current = Current { file, room_bytes: self.room() as u64 };
    }

    fn admits(&mut self, item: &Item) -> bool {
        self.on_reserve = self.on_reserve && (item.reserved || !self.spares.replenish());
        item.reserved || !self.on_reserve
    }

    /// Leaves out the append at the front.
    fn leave_out(&mut self, items: &mut VecDeque<Item>) {
        let Some(ticket) = items.front().map(|item| item.ticket) else { return };
        let records = items.iter().take_while(|item| item.kind == Kind::Record && item.ticket == ticket).count();
        let count = records.max(1);
        self.view.leave_out(items, count);
        self.tip.next += records as u64;
        items.drain(..count).filter_map(|item| item.done).for_each(|done| done(Err(Error::Full)));
    }

    fn room(&self) -> usize {
        self.files.current().map_or(0, |file| file.len.saturating_sub(self.position))
    }

    fn fits(&self, item: &Item) -> bool {
        BATCH_HEADER_LEN + ENTRY_HEADER_LEN + item.payload.len() <= self.room()
    }

    /// Encodes as many of `items` as one batch holds; how many that is.
    fn encode_batch(&mut self, items: &VecDeque<Item>) -> io::Result<usize> {
        let current = self.files.current().map_or(0, |file| file.sequence);
        let limit = self.room().min(BATCH_MAX_LEN);
        let before = self.tip.clone();
        self.places.clear();
        format::begin_batch(&mut self.buffer);
        let mut count = 0;
        for item in items {
            let end = self.buffer.len() + ENTRY_HEADER_LEN + item.payload.len();
            let is_for_later = (self.on_reserve && !item.reserved) || (self.kept && item.kind == Kind::Purge);
            if count > 0 && (end > limit || is_for_later) {
                break;
            }
            self.encode_item(item, current)?;
            count += 1;
        }
        format::end_batch(&mut self.buffer, self.log_id, u64::from(current), &before, count as u32);
        Ok(count)
    }

    fn encode_item(&mut self, item: &Item, sequence: u32) -> io::Result<()> {
        if item.kind == Kind::Record {
            self.places.push(Place {
                file: sequence,
                offset: (self.position + self.buffer.len()) as u32,
                payload_len: item.payload.len() as u32,
                chain_before: self.tip.chain,
            });
        }
        self.files.apply(item.kind, item.index);
        let fits = format::encode_entry(&mut self.buffer, &mut self.tip, item.kind, item.index, &item.payload);
        fits.then_some(()).ok_or_else(|| io::Error::other("an operation does not fit the log it was queued for"))
    }

    fn write_batch(&mut self) -> io::Result<()> {
        let file = self.files.current().ok_or_else(|| io::Error::other("the log has no file to write to"))?;
        let started = Instant::now();
        file.file.write_at(self.position as u64, &self.buffer)?;
        file.file.sync()?;
        let sync_us = started.elapsed().as_micros() as u64;
        self.position += self.buffer.len();
        self.tip.batch += 1;
        self.view.lock().stats.note_sync(sync_us);
        self.note_current();
        self.witness.raise(&self.tip)
    }

    /// Goes on in a fresh file. `keep`: so many spares are for others.
    ///
    /// # Errors
    /// [`is_full`]: the disk has no room for one; all is as it was.
    pub(super) fn roll(&mut self, keep: usize) -> io::Result<()> {
        let sequence =
            self.last_sequence.checked_add(1).ok_or_else(|| io::Error::other("the file numbers are used up"))?;
        let (spare, was_last) = self.spares.take(keep)?;
        let file = match self.make_log_file(&spare, sequence) {
            Ok(file) => file,
            Err(error) => {
                self.spares.put_back(spare);
                return Err(error);
            }
        };
        // It has its name: from here on there is no way back, full or not.
        let settled = self.disk.sync_dir().and_then(|()| self.witness.sync()).and_then(|()| file.len());
        let len = settled.map_err(io::Error::other)?;
        self.files.push(sequence, file.clone(), len as usize);
        (self.last_sequence, self.position) = (sequence, BLOCK_LEN);
        self.on_reserve = self.kept && was_last;
        self.view.lock().files.insert(sequence, file);
        self.note_current();
        Ok(())
    }

    fn make_log_file(&self, spare: &str, sequence: u32) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(spare)?;
        let header = Stamp { log_id: self.log_id, number: u64::from(sequence), tip: self.tip.clone() };
        file.write_at(0, &header.encode(&FILE))?;
        file.sync()?;
        self.disk.rename(spare, &name_of(sequence))?;
        Ok(file)
    }

    /// Gives away the files that hold nothing live; what its owner keeps is only closed.
    pub(super) fn recycle(&mut self) -> io::Result<()> {
        if self.kept {
            self.files.keep_current();
            self.view.lock().close_files_before_first(self.last_sequence);
            return Ok(());
        }
        while let Some(sequence) = self.files.pop_dead(self.tip.first) {
            self.view.lock().files.remove(&sequence);
            self.spares.give(&name_of(sequence))?;
        }
        Ok(())
    }
}

/// Waiters would wait for ever if the writer's thread were gone.
struct FatalOnPanic(Arc<dyn Disk>);

impl Drop for FatalOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fatal("the log's writer panicked");
        }
    }
}
