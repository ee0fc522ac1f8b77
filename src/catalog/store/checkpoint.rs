//! Checkpoints: a thread of its own moves pages from the WAL into the database, so that no batch waits for it.
//!
//! A WAL is begun anew only by a writer that finds all of it moved, which under load it never is: more is written while the
//! thread moves what was. So the writer itself moves the little that is left, once the WAL is long.
//!
//! Invariants
//! - The writer moves no more than [`WAKE_PAGES`] by itself, below [`LIMIT_PAGES`], and that only once the WAL is long.
//! - A checkpoint that fails (its fsync, say) ends the catalog at the next commit: it is never tried again, nor by
//!   SQLite when a connection is closed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::{Error, limit_cache, open_connection};

/// 32 MiB of WAL: the thread is woken.
const WAKE_PAGES: i64 = 8192;
/// 64 MiB of WAL, moved or not: it is to be begun anew.
const RESTART_PAGES: i64 = 16_384;
/// What the writer moves for that: 4 MiB at most; of a WAL twice as long, all that the thread has left.
const REST_PAGES: i64 = 1024;
/// How long it waits for readers then; if they take longer, it tries again so many pages later.
const RESTART_TIMEOUT: Duration = Duration::from_millis(20);
const RETRY_PAGES: i64 = 2048;
/// 256 MiB of WAL: the writer itself waits for readers and empties it.
const LIMIT_PAGES: i64 = 65_536;
/// How long the writer waits for readers then.
const TRUNCATE_TIMEOUT: Duration = Duration::from_secs(2);
/// A checkpoint copies pages; it reads hardly any.
const CACHE_BYTES: u64 = 256 << 10;

/// Wakes the checkpoint thread; dropped, it ends it and waits for its end.
pub(super) struct Checkpointer {
    /// None once it is being dropped.
    thread: Option<(SyncSender<()>, JoinHandle<()>)>,
    failed: Arc<AtomicBool>,
    /// Whether the thread is at it.
    moving: Arc<AtomicBool>,
    /// The length at which the WAL is to be begun anew.
    restart_pages: i64,
}

impl Checkpointer {
    pub(super) fn start(database: &Path) -> Result<Checkpointer, Error> {
        let connection = open_connection(database)?;
        limit_cache(&connection, CACHE_BYTES)?;
        let (wake, woken) = sync_channel(1);
        let (failed, moving) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let flags = (Arc::clone(&failed), Arc::clone(&moving));
        let builder = std::thread::Builder::new().name("checkpoint".into());
        let thread = builder.spawn(move || run(&connection, &woken, &flags.0, &flags.1))?;
        Ok(Checkpointer { thread: Some((wake, thread)), failed, moving, restart_pages: RESTART_PAGES })
    }

    pub(super) fn after_commit(&mut self, writer: &Connection) -> Result<(), Error> {
        if self.failed.load(Ordering::Acquire) {
            return Err(Error::Sqlite("a checkpoint failed".into()));
        }
        let (pages, left) = wal_pages(writer)?;
        if pages < RESTART_PAGES {
            self.restart_pages = RESTART_PAGES;
        }
        if left >= LIMIT_PAGES {
            truncate(writer)
        } else if left >= WAKE_PAGES {
            self.wake()
        } else if pages >= self.restart_pages && is_little(left, pages) && !self.moving.load(Ordering::Acquire) {
            self.restart_pages = pages + RETRY_PAGES;
            restart(writer)
        } else {
            Ok(())
        }
    }

    fn wake(&self) -> Result<(), Error> {
        self.moving.store(true, Ordering::Release);
        match self.thread.as_ref().map(|(wake, _)| wake.try_send(())) {
            Some(Ok(()) | Err(TrySendError::Full(()))) => Ok(()),
            Some(Err(TrySendError::Disconnected(()))) | None => {
                Err(Error::Sqlite("the checkpoint thread is gone".into()))
            }
        }
    }
}

/// Whether the writer may move what is left of a WAL.
fn is_little(left: i64, pages: i64) -> bool {
    left <= REST_PAGES || pages >= 2 * RESTART_PAGES
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        if let Some((wake, thread)) = self.thread.take() {
            drop(wake);
            // If it panicked, nothing more was checkpointed, and nothing is lost.
            let _ = thread.join();
        }
    }
}

fn run(connection: &Connection, woken: &Receiver<()>, failed: &AtomicBool, moving: &AtomicBool) {
    while woken.recv().is_ok() {
        if let Err(error) = passive(connection) {
            tracing::error!(%error, "a checkpoint failed");
            failed.store(true, Ordering::Release);
            return;
        }
        moving.store(false, Ordering::Release);
    }
}

/// Pages in the WAL, and how many of them are not in the database yet.
pub(super) fn wal_pages(connection: &Connection) -> Result<(i64, i64), Error> {
    let mut statement = connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
    let (pages, moved) = statement.query_row([], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?;
    Ok((pages, pages - moved))
}

/// Has the next commit begin the WAL anew, unless a reader needs it for longer.
fn restart(writer: &Connection) -> Result<(), Error> {
    writer.busy_timeout(RESTART_TIMEOUT)?;
    writer.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
    Ok(writer.busy_timeout(Duration::ZERO)?)
}

/// Moves what no reader needs, waiting for nobody.
pub(super) fn passive(connection: &Connection) -> Result<(), Error> {
    Ok(connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
}

/// Empties the WAL, or gives up after a while: then the next commit tries again.
pub(super) fn truncate(writer: &Connection) -> Result<(), Error> {
    writer.busy_timeout(TRUNCATE_TIMEOUT)?;
    writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(writer.busy_timeout(Duration::ZERO)?)
}
