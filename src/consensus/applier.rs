//! The one thread that changes the catalog.
//!
//! Invariants
//! - Jobs are done in the order they were sent; a batch is one transaction, and its proposers are answered after it.
//! - An error is final: it goes to the [`Fatal`] hook, which ends the process, and nothing more is applied.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use openraft::storage::EntryResponder;
use tokio::sync::oneshot;

use super::encoding::encode_membership;
use super::types::{Entry, Payload, TypeConfig, position};
use crate::catalog::{self, Applied, Catalog, Envelope, Position, Readers};

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

enum Job {
    Apply(Vec<Proposal>, oneshot::Sender<()>),
    Sync(oneshot::Sender<()>),
    Install(PathBuf, oneshot::Sender<()>),
    Close,
}

#[derive(Default)]
struct State {
    applied: Applied,
    /// As of the last sync.
    synced: Applied,
    stats: ApplyStats,
}

/// A handle to the thread; clones are the same one.
#[derive(Clone)]
pub(super) struct Applier {
    jobs: mpsc::Sender<Job>,
    state: Arc<Mutex<State>>,
    readers: Readers,
}

impl Applier {
    pub(super) fn spawn(catalog: Catalog, fatal: Fatal) -> io::Result<(Applier, JoinHandle<()>)> {
        let (jobs, queue) = mpsc::channel();
        let state = Arc::new(Mutex::new(State { applied: catalog.applied().clone(), ..State::default() }));
        let applier = Applier { jobs, state: state.clone(), readers: catalog.readers() };
        let worker = Worker { catalog, state };
        let thread =
            std::thread::Builder::new().name("catalog-apply".into()).spawn(move || worker.run(&queue, &fatal))?;
        Ok((applier, thread))
    }

    /// Applies `batch` in one transaction and answers its proposers.
    pub(super) async fn apply(&self, batch: Vec<Proposal>) -> io::Result<()> {
        self.call(|done| Job::Apply(batch, done)).await
    }

    /// Makes what is applied survive a power cut; how far that is.
    pub(super) async fn sync(&self) -> io::Result<Applied> {
        self.call(Job::Sync).await?;
        Ok(self.lock().synced.clone())
    }

    /// Returns when everything up to `index` survives a power cut.
    ///
    /// # Errors
    /// It is not applied yet.
    pub(super) async fn sync_to(&self, index: u64) -> io::Result<()> {
        let covers = |applied: &Applied| applied.position.is_some_and(|position| position.index >= index);
        if covers(&self.lock().synced) || covers(&self.sync().await?) {
            return Ok(());
        }
        Err(io::Error::other(format!("the catalog has not applied entry {index}")))
    }

    /// Replaces the catalog by the snapshot in `file`.
    pub(super) async fn install(&self, file: PathBuf) -> io::Result<()> {
        self.call(|done| Job::Install(file, done)).await
    }

    pub(super) fn applied(&self) -> Applied {
        self.lock().applied.clone()
    }

    pub(super) fn stats(&self) -> ApplyStats {
        self.lock().stats
    }

    pub(super) fn readers(&self) -> &Readers {
        &self.readers
    }

    /// Ends the thread after what was sent before; later calls fail.
    pub(super) fn close(&self) {
        let _ = self.jobs.send(Job::Close);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call(&self, job: impl FnOnce(oneshot::Sender<()>) -> Job) -> io::Result<()> {
        let stopped = || io::Error::other("the catalog has stopped");
        let (done, wait) = oneshot::channel();
        self.jobs.send(job(done)).map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())
    }
}

struct Worker {
    catalog: Catalog,
    state: Arc<Mutex<State>>,
}

impl Worker {
    fn run(mut self, queue: &mpsc::Receiver<Job>, fatal: &Fatal) {
        let _guard = FatalOnPanic(fatal.clone());
        while let Ok(job) = queue.recv() {
            let result = match job {
                Job::Apply(batch, done) => self.apply(batch).map(|()| done.send(())),
                Job::Sync(done) => self.sync().map(|()| done.send(())),
                Job::Install(file, done) => self.install(&file).map(|()| done.send(())),
                Job::Close => return,
            };
            // A caller that no longer waits misses nothing.
            if let Err(error) = result {
                return fatal(&format!("the catalog cannot go on: {error}"));
            }
        }
    }

    fn apply(&mut self, batch: Vec<Proposal>) -> Result<(), catalog::Error> {
        let started = Instant::now();
        let (entries, responders): (Vec<Entry>, Vec<_>) = batch.into_iter().unzip();
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

    fn install(&mut self, file: &std::path::Path) -> Result<(), catalog::Error> {
        self.catalog.install(file)?;
        self.sync()
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.applied.clone_from(self.catalog.applied());
        change(&mut state);
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
