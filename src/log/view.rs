//! The log as its callers see it: what is queued counts as if it were done.
//!
//! Invariants:
//! - every record of `first..next` is placed (synced, its place on disk known) or in memory, or both; placed are
//!   `first..placed_next`, in memory are `recent_first..next`, and `recent_first <= placed_next`;
//! - the queue holds operations in the order of their calls, and the writer does them in that order;
//! - a record is placed only if the very append that wrote it is still the one in memory at its index (its ticket):
//!   what was truncated while it was queued never shows up again;
//! - the lock is never held across I/O or a callback.

use super::disk::DiskFile;
use super::format::{ENTRY_HEADER_LEN, Kind, decode_entry};
use super::{Error, Stats};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Locks, whatever became of the thread that held it: states here are changed by steps that cannot panic half way.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Called once, from the writer's thread.
pub(super) type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Where a synced record lies: 16 bytes a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Sequence number of the file.
    pub(super) file: u32,
    /// Of the entry's header.
    pub(super) offset: u32,
    pub(super) payload_len: u32,
    pub(super) chain_before: u32,
}

impl Place {
    /// Where nothing is: a record that was left out, or cannot be found.
    pub(super) const NOWHERE: Place = Place { file: 0, offset: 0, payload_len: 0, chain_before: 0 };

    fn len(&self) -> usize {
        ENTRY_HEADER_LEN + self.payload_len as usize
    }

    fn end(&self) -> usize {
        self.offset as usize + self.len()
    }
}

/// The places of consecutive records.
#[derive(Debug, Default)]
pub(super) struct Places {
    first: u64,
    list: VecDeque<Place>,
}

impl Places {
    pub(super) fn starting_at(first: u64) -> Places {
        Places { first, list: VecDeque::new() }
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn next(&self) -> u64 {
        self.first + self.list.len() as u64
    }

    fn get(&self, index: u64) -> Option<&Place> {
        self.list.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    pub(super) fn push(&mut self, place: Place) {
        self.list.push_back(place);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Place> {
        self.list.iter()
    }

    /// Applies an entry that is not a record.
    pub(super) fn apply(&mut self, kind: Kind, index: u64) {
        match kind {
            Kind::Record | Kind::Mark => {}
            Kind::Truncate if index >= self.first => self.list.truncate((index - self.first) as usize),
            Kind::Purge => self.drop_before(index),
            Kind::Truncate | Kind::Reset => *self = Places::starting_at(index),
        }
    }

    fn drop_before(&mut self, index: u64) {
        let count = index.saturating_sub(self.first);
        self.list.drain(..self.list.len().min(count as usize));
        self.first = self.first.max(index);
    }
}

/// A queued operation: one entry of the log to be.
pub(super) struct Item {
    pub(super) kind: Kind,
    pub(super) index: u64,
    pub(super) payload: Bytes,
    pub(super) ticket: u64,
    /// It may take the room that is kept in reserve.
    pub(super) reserved: bool,
    pub(super) done: Option<Done>,
}

struct Recent {
    ticket: u64,
    payload: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Open,
    /// What was synced is not all there; only reads are served.
    ReadOnly,
    Closed,
}

/// The file being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Current {
    /// Its number; 0: there is none until something is written.
    pub file: u32,
    /// What is allocated in it and not written yet, bytes.
    pub room_bytes: u64,
}

/// See the module's invariants.
pub(super) struct State {
    places: Places,
    recent: VecDeque<Recent>,
    recent_first: u64,
    recent_bytes: usize,
    queue: VecDeque<Item>,
    queued_bytes: usize,
    last_ticket: u64,
    access: Access,
    /// The file that its owner wants nothing more in; 0: none.
    pub(super) retired: u32,
    pub(super) current: Current,
    pub(super) files: BTreeMap<u32, Arc<dyn DiskFile>>,
    pub(super) stats: Stats,
}

/// What the writer finds when it asks for work.
pub(super) enum Work {
    Items(VecDeque<Item>),
    /// Nothing came for a while.
    Idle,
    /// Closed, and everything queued before was handed out.
    Close,
}

/// The state, shared by callers and writer.
pub(super) struct View {
    state: Mutex<State>,
    queued: Condvar,
    cache_len: usize,
}

impl View {
    pub(super) fn new(
        places: Places,
        files: BTreeMap<u32, Arc<dyn DiskFile>>,
        access: Access,
        cache_len: usize,
    ) -> View {
        let state = State {
            recent: VecDeque::new(),
            recent_first: places.next(),
            recent_bytes: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            last_ticket: 0,
            access,
            retired: 0,
            current: Current::default(),
            files,
            stats: Stats::default(),
            places,
        };
        View { state: Mutex::new(state), queued: Condvar::new(), cache_len }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// `reserved`: the records may take the room that is kept in reserve.
    pub(super) fn append(
        &self,
        first_index: u64,
        records: Vec<Bytes>,
        reserved: bool,
        done: Done,
    ) -> Result<(), Error> {
        let mut state = self.open_for_writing()?;
        if first_index != state.next() {
            return Err(Error::OutOfOrder { expected: state.next(), got: first_index });
        }
        if first_index.checked_add(records.len() as u64).is_none() {
            return Err(Error::OutOfRange { asked: first_index..u64::MAX, first: state.first(), next: first_index });
        }
        state.append(records, reserved, done);
        self.queued.notify_all();
        Ok(())
    }

    /// Queues anything but a record, after it has been applied to the view. No index means the first one. What lies past
    /// the end is truncated, and what was purged before is purged, without effect.
    pub(super) fn change(&self, kind: Kind, index: Option<u64>, payload: Bytes, done: Done) -> Result<(), Error> {
        let mut state = self.open_for_writing()?;
        let (first, next) = (state.first(), state.next());
        let index = index.unwrap_or(first);
        let index = match kind {
            Kind::Truncate => index.min(next),
            Kind::Purge => index.max(first),
            Kind::Record | Kind::Reset | Kind::Mark => index,
        };
        if matches!(kind, Kind::Truncate | Kind::Purge) && !(first..=next).contains(&index) {
            return Err(Error::OutOfRange { asked: index..index, first, next });
        }
        state.change(kind, index, payload, done);
        self.queued.notify_all();
        Ok(())
    }

    fn open_for_writing(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.lock();
        match state.access {
            Access::Open => Ok(state),
            Access::ReadOnly => Err(Error::ReadOnly),
            Access::Closed => Err(Error::Closed),
        }
    }

    /// Refuses changes from now on; what is queued is still done.
    pub(super) fn close(&self) {
        self.lock().access = Access::Closed;
        self.queued.notify_all();
    }

    /// Everything that is queued, waiting for it; `idle_after`: how long to wait, for ever if None.
    pub(super) fn take_work(&self, idle_after: Option<Duration>) -> Work {
        let idle = |state: &mut State| state.queue.is_empty() && state.access != Access::Closed;
        let mut state = match idle_after {
            Some(wait) => {
                let waited = self.queued.wait_timeout_while(self.lock(), wait, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.queued.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner),
        };
        match (state.queue.is_empty(), state.access) {
            (false, _) => Work::Items(std::mem::take(&mut state.queue)),
            (true, Access::Closed) => Work::Close,
            (true, _) => Work::Idle,
        }
    }

    /// Everything that is queued, without waiting.
    pub(super) fn take_queued(&self) -> VecDeque<Item> {
        std::mem::take(&mut self.lock().queue)
    }

    /// Takes note that `items` are durable; `places` of the records among them, in order.
    pub(super) fn publish(&self, items: &VecDeque<Item>, count: usize, places: &[Place]) {
        let mut state = self.lock();
        let records = items.iter().take(count).filter(|item| item.kind == Kind::Record);
        for (item, place) in records.zip(places) {
            state.publish(item, *place);
        }
        let bytes: usize = items.iter().take(count).map(|item| item.payload.len()).sum();
        state.queued_bytes -= bytes;
        state.evict(self.cache_len);
        state.stats.records += places.len() as u64;
        state.stats.bytes += bytes as u64;
    }

    /// Takes note that the first `count` of `items` were not written, and will not be.
    pub(super) fn leave_out(&self, items: &VecDeque<Item>, count: usize) {
        let mut state = self.lock();
        for item in items.iter().take(count) {
            state.queued_bytes -= item.payload.len();
            if item.kind == Kind::Record {
                state.publish(item, Place::NOWHERE);
            }
        }
        state.evict(self.cache_len);
    }

    /// Forgets what is in memory and on disk.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        state.evict(0);
        state.recent.shrink_to_fit();
    }

    /// The records of `range` up to about `limit_bytes`, at least one; see [`super::Log::read`].
    pub(super) fn read(&self, range: Range<u64>, limit_bytes: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        let (plan, files) = self.plan(range, limit_bytes)?;
        let mut records = Vec::with_capacity(plan.len());
        let mut rest = plan.as_slice();
        while let Some((index, source)) = rest.first() {
            match source {
                Source::Memory(payload) => {
                    records.push((*index, payload.clone()));
                    rest = &rest[1..];
                }
                Source::Disk(place) => {
                    let (run, after) = rest.split_at(run_len(rest));
                    let file = files.get(&place.file).ok_or(Error::Purged { index: *index })?;
                    let read = read_run(file.as_ref(), *place, run, &mut records);
                    read.map_err(|error| self.blame(*index, error))?;
                    rest = after;
                }
            }
        }
        Ok(records)
    }

    /// A file may be recycled while it is read: then the record is not damaged but gone.
    fn blame(&self, index: u64, error: Error) -> Error {
        let purged = index < self.lock().places.first();
        if purged { Error::Purged { index } } else { error }
    }

    fn plan(&self, range: Range<u64>, limit_bytes: usize) -> Result<(Plan, Files), Error> {
        let state = self.lock();
        let (first, next) = (state.places.first(), state.next());
        if range.start > range.end || range.start < first || range.end > next {
            return Err(Error::OutOfRange { asked: range, first, next });
        }
        let mut left = limit_bytes;
        let mut plan = Vec::new();
        let mut files = BTreeMap::new();
        for index in range {
            let Some(source) = state.source(index) else {
                break;
            };
            if !plan.is_empty() && source.payload_len() > left {
                break;
            }
            left = left.saturating_sub(source.payload_len());
            if let Source::Disk(place) = &source
                && let Some(file) = state.files.get(&place.file)
            {
                files.entry(place.file).or_insert_with(|| file.clone());
            }
            plan.push((index, source));
        }
        Ok((plan, files))
    }

    /// See [`super::Log::read_cached`].
    pub(super) fn read_cached(&self, range: Range<u64>, limit_bytes: usize) -> Option<Vec<(u64, Bytes)>> {
        let state = self.lock();
        let mut left = limit_bytes;
        let mut records = Vec::new();
        for index in range {
            let recent = state.recent(index)?;
            if !records.is_empty() && recent.payload.len() > left {
                break;
            }
            left = left.saturating_sub(recent.payload.len());
            records.push((index, recent.payload.clone()));
        }
        Some(records)
    }
}

type Plan = Vec<(u64, Source)>;
type Files = BTreeMap<u32, Arc<dyn DiskFile>>;

enum Source {
    Memory(Bytes),
    Disk(Place),
}

impl Source {
    fn payload_len(&self) -> usize {
        match self {
            Source::Memory(payload) => payload.len(),
            Source::Disk(place) => place.payload_len as usize,
        }
    }
}

/// How many sources from the first on lie one after the other in one file.
fn run_len(plan: &[(u64, Source)]) -> usize {
    let mut end = None;
    let in_run = |(_, source): &&(u64, Source)| match source {
        Source::Disk(place) if end.is_none_or(|end| end == (place.file, place.offset as usize)) => {
            end = Some((place.file, place.end()));
            true
        }
        _ => false,
    };
    plan.iter().take_while(in_run).count()
}

fn read_run(
    file: &dyn DiskFile,
    start: Place,
    run: &[(u64, Source)],
    records: &mut Vec<(u64, Bytes)>,
) -> Result<(), Error> {
    let len: usize = run.iter().map(|(_, source)| source.payload_len() + ENTRY_HEADER_LEN).sum();
    let mut buffer = vec![0; len];
    file.read_at(u64::from(start.offset), &mut buffer).map_err(|source| Error::io("read a record", source))?;
    let buffer = Bytes::from(buffer);
    for (index, source) in run {
        let Source::Disk(place) = source else {
            continue;
        };
        let at = (place.offset - start.offset) as usize;
        let entry = decode_entry(&buffer, at, at + place.len(), place.chain_before)
            .filter(|entry| {
                entry.kind == Kind::Record && entry.index == *index && entry.payload.end == at + place.len()
            })
            .ok_or_else(|| Error::corrupt(place.file, place.offset, "a record fails its checksum"))?;
        records.push((*index, buffer.slice(entry.payload)));
    }
    Ok(())
}

impl State {
    pub(super) fn first(&self) -> u64 {
        self.places.first()
    }

    pub(super) fn next(&self) -> u64 {
        self.recent_first + self.recent.len() as u64
    }

    pub(super) fn placed_next(&self) -> u64 {
        self.places.next()
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Where the synced records of `range` lie.
    pub(super) fn places_of(&self, range: Range<u64>) -> Vec<Place> {
        range.map_while(|index| self.places.get(index).copied()).collect()
    }

    /// Closes the files in which no record lies that is not purged, but for `current`.
    pub(super) fn close_files_before_first(&mut self, current: u32) {
        let first = self.places.get(self.places.first()).map_or(current, |place| place.file);
        self.files = self.files.split_off(&first.min(current));
    }

    fn recent(&self, index: u64) -> Option<&Recent> {
        self.recent.get(usize::try_from(index.checked_sub(self.recent_first)?).ok()?)
    }

    fn source(&self, index: u64) -> Option<Source> {
        let memory = self.recent(index).map(|recent| Source::Memory(recent.payload.clone()));
        memory.or_else(|| self.places.get(index).map(|place| Source::Disk(*place)))
    }

    fn append(&mut self, records: Vec<Bytes>, reserved: bool, done: Done) {
        if records.is_empty() {
            return self.change(Kind::Purge, self.first(), Bytes::new(), done);
        }
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        for payload in records {
            let index = self.next();
            self.recent_bytes += payload.len();
            self.recent.push_back(Recent { ticket, payload: payload.clone() });
            self.enqueue(Kind::Record, index, payload, reserved, None);
        }
        if let Some(last) = self.queue.back_mut() {
            last.done = Some(done);
        }
    }

    fn change(&mut self, kind: Kind, index: u64, payload: Bytes, done: Done) {
        self.places.apply(kind, index);
        match kind {
            Kind::Record | Kind::Mark => {}
            Kind::Truncate => self.truncate_recent(index),
            Kind::Purge => self.drop_recent_before(index),
            Kind::Reset => {
                self.truncate_recent(self.recent_first);
                self.recent_first = index;
            }
        }
        self.enqueue(kind, index, payload, false, Some(done));
    }

    fn enqueue(&mut self, kind: Kind, index: u64, payload: Bytes, reserved: bool, done: Option<Done>) {
        self.queued_bytes += payload.len();
        self.queue.push_back(Item { kind, index, payload, ticket: self.last_ticket, reserved, done });
    }

    fn truncate_recent(&mut self, next: u64) {
        while self.next() > next.max(self.recent_first) {
            let dropped = self.recent.pop_back();
            self.recent_bytes -= dropped.map_or(0, |recent| recent.payload.len());
        }
        self.recent_first = self.recent_first.min(next);
    }

    fn drop_recent_before(&mut self, first: u64) {
        while self.recent_first < first {
            let dropped = self.recent.pop_front();
            self.recent_bytes -= dropped.map_or(0, |recent| recent.payload.len());
            self.recent_first += 1;
        }
    }

    fn publish(&mut self, item: &Item, place: Place) {
        let current = self.recent(item.index).is_some_and(|recent| recent.ticket == item.ticket);
        if current && item.index == self.places.next() {
            self.places.push(place);
        }
    }

    /// Forgets the oldest records in memory that are on disk, while there is more than `cache_len` bytes of them.
    fn evict(&mut self, cache_len: usize) {
        while self.recent_bytes > cache_len && self.recent_first < self.places.next() {
            self.drop_recent_before(self.recent_first + 1);
        }
    }
}
