//! The one thread that changes the catalog.
//!
//! Invariants
//! - Jobs are done in the order they were sent; batches that wait together are one transaction, and their proposers are
//!   answered after it. So the busier it is, the larger are the transactions.
//! - Whoever hands over a batch does not wait for it, but for room: what waits here is bounded in batches and in bytes.
//!   [`Applier::reaches`] tells how far the catalog really is.
//! - An error is final: it goes to the [`Fatal`] hook, which ends the process, and nothing more is applied.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use openraft::storage::EntryResponder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::encoding::encode_membership;
use super::transfer::Scratch;
use super::types::{Entry, Payload, TypeConfig, position};
use crate::catalog::{self, Applied, Catalog, Envelope, Levels, Position, Prepared, Readers};

/// Ends the process. A test may note the message instead; then everything that was under way fails.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// An entry, and whoever waits for its outcome.
pub(super) type Proposal = EntryResponder<TypeConfig>;

/// What applying has cost since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ApplyStats {
    /// Transactions.
    pub batches: u64,
    /// Entries in them.
    pub entries: u64,
    /// Time in them, microseconds.
    pub us_sum: u64,
    /// The slowest, microseconds.
    pub us_max: u64,
    /// Synced states.
    pub syncs: u64,
    /// The slowest, microseconds.
    pub sync_us_max: u64,
}

/// A batch, hence a transaction, holds no more entries and no more bytes of commands, unless one entry alone does.
const BATCH_MAX_ENTRIES: usize = 512;
const BATCH_MAX_BYTES: usize = 1 << 20;
/// Batches that may wait, and the bytes of commands in them and in the one that is being applied; whoever brings more
/// waits too.
const QUEUE_LEN: usize = 256;
const QUEUE_BYTES: usize = 16 << 20;

/// Entries to be applied in one transaction.
#[derive(Default)]
pub(super) struct Batch {
    proposals: Vec<Proposal>,
    bytes: usize,
    /// Its share of [`QUEUE_BYTES`], once it is handed over.
    room: Option<OwnedSemaphorePermit>,
}

impl Batch {
    pub(super) fn push(&mut self, proposal: Proposal) {
        self.bytes += command_len(&proposal.0);
        self.proposals.push(proposal);
    }

    /// Whether `more` may share a transaction with this.
    fn has_room_for(&self, more: &Batch) -> bool {
        self.proposals.len() + more.proposals.len() <= BATCH_MAX_ENTRIES && self.bytes + more.bytes <= BATCH_MAX_BYTES
    }

    fn append(&mut self, more: Batch) {
        self.bytes += more.bytes;
        self.proposals.extend(more.proposals);
        match (&mut self.room, more.room) {
            (Some(room), Some(more)) => room.merge(more),
            (room, more) => *room = room.take().or(more),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.proposals.len() >= BATCH_MAX_ENTRIES || self.bytes >= BATCH_MAX_BYTES
    }

    /// The last entry's index; none in an empty batch.
    pub(super) fn last_index(&self) -> Option<u64> {
        self.proposals.last().map(|(entry, _)| entry.log_id.index)
    }
}

fn command_len(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Normal(command) => command.0.len(),
        Payload::Blank | Payload::Membership(_) => 0,
    }
}

enum Job {
    Apply(Batch),
    Flush(oneshot::Sender<()>),
    Sync(oneshot::Sender<()>),
    Prepare(Arc<Scratch>, oneshot::Sender<Result<(), catalog::Error>>),
    Discard(oneshot::Sender<()>),
    Install(Arc<Scratch>, oneshot::Sender<()>),
    Close,
}

#[derive(Default)]
struct State {
    applied: Applied,
    /// As of the last sync.
    synced: Applied,
    levels: Levels,
    stats: ApplyStats,
}

/// A handle to the thread; clones are the same one. The thread ends with the last.
#[derive(Clone)]
pub(super) struct Applier {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    state: watch::Receiver<State>,
    readers: Readers,
}

impl Applier {
    pub(super) fn spawn(catalog: Catalog, fatal: Fatal) -> io::Result<(Applier, JoinHandle<()>)> {
        let (applier, worker) = Applier::new(catalog);
        let thread = std::thread::Builder::new().name("catalog-apply".into()).spawn(move || worker.run(&fatal))?;
        Ok((applier, thread))
    }

    fn new(catalog: Catalog) -> (Applier, Worker) {
        let (jobs, queue) = mpsc::channel(QUEUE_LEN);
        let (sender, state) =
            watch::channel(State { applied: catalog.applied().clone(), levels: catalog.levels(), ..State::default() });
        let room = Arc::new(Semaphore::new(QUEUE_BYTES));
        let applier = Applier { jobs, room, state, readers: catalog.readers() };
        (applier, Worker { catalog, state: sender, queue, held: None, prepared: None })
    }

    /// Hands over `batch`. Its proposers are answered once it is applied.
    pub(super) async fn apply(&self, mut batch: Batch) -> io::Result<()> {
        // Alone, any batch may pass.
        let bytes = u32::try_from(batch.bytes.min(QUEUE_BYTES)).unwrap_or(u32::MAX);
        batch.room = Some(self.room.clone().acquire_many_owned(bytes).await.map_err(|_| stopped())?);
        self.jobs.send(Job::Apply(batch)).await.map_err(|_| stopped())
    }

    /// Returns when everything handed over before is applied; how far that is.
    pub(super) async fn flush(&self) -> io::Result<Applied> {
        self.call(Job::Flush).await?;
        Ok(self.applied())
    }

    /// Returns when the entry at `index` is applied; how far the catalog is then.
    pub(super) async fn reaches(&self, index: u64) -> io::Result<u64> {
        let mut state = self.state.clone();
        let state = state.wait_for(|state| state.applied_index() >= Some(index)).await.map_err(|_| stopped())?;
        Ok(state.applied_index().unwrap_or(index))
    }

    /// Makes what is applied survive a power cut; how far that is.
    pub(super) async fn sync(&self) -> io::Result<Applied> {
        self.call(Job::Sync).await?;
        Ok(self.state.borrow().synced.clone())
    }

    /// Returns when everything up to `index` survives a power cut.
    ///
    /// # Errors
    /// It is not applied yet.
    pub(super) async fn sync_to(&self, index: u64) -> io::Result<()> {
        let covers = |applied: &Applied| applied.position.is_some_and(|position| position.index >= index);
        let covered = covers(&self.state.borrow().synced);
        if covered || covers(&self.sync().await?) {
            return Ok(());
        }
        Err(io::Error::other(format!("the catalog has not applied entry {index}")))
    }

    /// Does what may fail of installing the snapshot in `file`: nothing has happened if it does, and nothing is lost.
    pub(super) async fn prepare(&self, file: Arc<Scratch>) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.jobs.send(Job::Prepare(file, done)).await.map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?.map_err(io::Error::other)
    }

    /// Gives back the room of what was prepared and is not installed.
    pub(super) async fn discard(&self) -> io::Result<()> {
        self.call(Job::Discard).await
    }

    /// Replaces the catalog by the snapshot in `file`, which stays until that is done, whoever waits for it.
    pub(super) async fn install(&self, file: Arc<Scratch>) -> io::Result<()> {
        self.call(|done| Job::Install(file, done)).await
    }

    pub(super) fn applied(&self) -> Applied {
        self.state.borrow().applied.clone()
    }

    /// How far the catalog is; none: it is empty.
    pub(super) fn position(&self) -> Option<Position> {
        self.state.borrow().applied.position
    }

    /// The feature levels of program and catalog.
    pub(super) fn levels(&self) -> Levels {
        self.state.borrow().levels
    }

    pub(super) fn stats(&self) -> ApplyStats {
        self.state.borrow().stats
    }

    pub(super) fn readers(&self) -> &Readers {
        &self.readers
    }

    /// Ends the thread after what was handed over before; later calls fail.
    pub(super) async fn close(&self) {
        // It has ended already if nobody takes this.
        let _ = self.jobs.send(Job::Close).await;
    }

    async fn call(&self, job: impl FnOnce(oneshot::Sender<()>) -> Job) -> io::Result<()> {
        let (done, wait) = oneshot::channel();
        self.jobs.send(job(done)).await.map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())
    }
}

/// Whoever no longer waits misses nothing.
fn tell(done: oneshot::Sender<()>) {
    let _ = done.send(());
}

fn stopped() -> io::Error {
    io::Error::other("the catalog has stopped")
}

impl State {
    fn applied_index(&self) -> Option<u64> {
        self.applied.position.map(|position| position.index)
    }
}

struct Worker {
    catalog: Catalog,
    state: watch::Sender<State>,
    queue: mpsc::Receiver<Job>,
    /// Taken from the queue, but not done yet.
    held: Option<Job>,
    /// The snapshot that was prepared and is not installed.
    prepared: Option<(Arc<Scratch>, Prepared)>,
}

impl Worker {
    fn run(mut self, fatal: &Fatal) {
        let _guard = FatalOnPanic(fatal.clone());
        while let Some(job) = self.held.take().or_else(|| self.queue.blocking_recv()) {
            let result = match job {
                Job::Apply(batch) => self.apply_with_waiting(batch),
                Job::Flush(done) => {
                    tell(done);
                    Ok(())
                }
                Job::Sync(done) => self.sync().map(|()| tell(done)),
                Job::Prepare(file, done) => {
                    // Whoever no longer waits misses nothing.
                    let _ = done.send(self.prepare(file));
                    Ok(())
                }
                Job::Discard(done) => {
                    self.discard();
                    tell(done);
                    Ok(())
                }
                Job::Install(file, done) => self.install(&file).map(|()| tell(done)),
                Job::Close => break,
            };
            if let Err(error) = result {
                return fatal(&format!("the catalog cannot go on: {error}"));
            }
        }
        if let Err(error) = self.catalog.close() {
            fatal(&format!("the catalog cannot be closed: {error}"));
        }
    }

    /// Applies `batch` together with those that wait behind it.
    fn apply_with_waiting(&mut self, mut batch: Batch) -> Result<(), catalog::Error> {
        while let Ok(job) = self.queue.try_recv() {
            match job {
                Job::Apply(more) if batch.has_room_for(&more) => batch.append(more),
                other => {
                    self.held = Some(other);
                    break;
                }
            }
        }
        self.apply(batch)
    }

    fn apply(&mut self, batch: Batch) -> Result<(), catalog::Error> {
        let started = Instant::now();
        let (entries, responders): (Vec<Entry>, Vec<_>) = batch.proposals.into_iter().unzip();
        let entries = entries.iter().map(to_catalog).collect::<Result<Vec<_>, _>>()?;
        let outcomes = self.catalog.apply(&entries)?;
        self.note(|state| state.stats.note_batch(entries.len(), started));
        for (responder, outcome) in responders.into_iter().zip(outcomes) {
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), catalog::Error> {
        let started = Instant::now();
        self.catalog.sync()?;
        self.note(|state| {
            state.synced = state.applied.clone();
            state.stats.note_sync(started);
        });
        Ok(())
    }

    fn prepare(&mut self, file: Arc<Scratch>) -> Result<(), catalog::Error> {
        self.discard();
        let prepared = self.catalog.prepare(file.path())?;
        self.prepared = Some((file, prepared));
        Ok(())
    }

    fn discard(&mut self) {
        if let Some((_, prepared)) = self.prepared.take()
            && let Err(error) = self.catalog.discard(prepared)
        {
            tracing::warn!(%error, "a state that is not needed stays until the next start");
        }
    }

    fn install(&mut self, file: &Arc<Scratch>) -> Result<(), catalog::Error> {
        match self.prepared.take() {
            Some((prepared_file, prepared)) if Arc::ptr_eq(&prepared_file, file) => self.catalog.switch(prepared)?,
            _ => self.catalog.install(file.path())?,
        }
        self.sync()
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(|state| {
            state.applied.clone_from(self.catalog.applied());
            state.levels = self.catalog.levels();
            change(state);
        });
    }
}

impl ApplyStats {
    fn note_batch(&mut self, entry_count: usize, started: Instant) {
        let us = started.elapsed().as_micros() as u64;
        self.batches += 1;
        self.entries += entry_count as u64;
        self.us_sum += us;
        self.us_max = self.us_max.max(us);
    }

    fn note_sync(&mut self, started: Instant) {
        self.syncs += 1;
        self.sync_us_max = self.sync_us_max.max(started.elapsed().as_micros() as u64);
    }
}

fn to_catalog(entry: &Entry) -> Result<(Position, catalog::Entry), catalog::Error> {
    let what = match &entry.payload {
        Payload::Blank => catalog::Entry::Blank,
        Payload::Normal(command) => catalog::Entry::Command(Envelope::decode(&command.0)?),
        Payload::Membership(members) => catalog::Entry::Membership(encode_membership(Some(entry.log_id), members)),
    };
    Ok((position(entry.log_id), what))
}

/// Waiters would wait for ever if the thread were gone.
struct FatalOnPanic(Fatal);

impl Drop for FatalOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)("applying panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::super::types::{LeaderId, LogId};
    use super::*;

    /// One entry, which passes for a long one.
    fn batch(index: u64, bytes: usize) -> Batch {
        let log_id = LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index };
        Batch { proposals: vec![(Entry { log_id, payload: Payload::Blank }, None)], bytes, room: None }
    }

    #[tokio::test]
    async fn what_waits_to_be_applied_is_bounded_in_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog"), catalog::Options::default()).unwrap();
        let (applier, worker) = Applier::new(catalog);
        let handed_over = |index| applier.apply(batch(index, BATCH_MAX_BYTES)).now_or_never().is_some();
        let fitting = (QUEUE_BYTES / BATCH_MAX_BYTES) as u64;
        assert!((0..fitting).all(handed_over) && !handed_over(fitting));
        let fatal: Fatal = Arc::new(|message| panic!("{message}"));
        let thread = std::thread::spawn(move || worker.run(&fatal));
        // As long as the whole queue, and longer.
        for index in fitting..fitting + 3 {
            applier.apply(batch(index, 2 * QUEUE_BYTES)).await.unwrap();
        }
        applier.flush().await.unwrap();
        assert_eq!(applier.position().map(|position| position.index), Some(fitting + 2));
        assert_eq!(applier.room.available_permits(), QUEUE_BYTES);
        applier.close().await;
        thread.join().unwrap();
    }
}
