//! Checkpoints: a thread of its own moves pages from the WAL into the database, so that no batch waits for it.
//!
//! Invariants
//! - Below [`LIMIT_PAGES`] the writer never checkpoints by itself.
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
}

impl Checkpointer {
    pub(super) fn start(database: &Path) -> Result<Checkpointer, Error> {
        let connection = open_connection(database)?;
        limit_cache(&connection, CACHE_BYTES)?;
        let (wake, woken) = sync_channel(1);
        let failed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&failed);
        let builder = std::thread::Builder::new().name("checkpoint".into());
        let thread = builder.spawn(move || run(&connection, &woken, &flag))?;
        Ok(Checkpointer { thread: Some((wake, thread)), failed })
    }

    pub(super) fn after_commit(&self, writer: &Connection) -> Result<(), Error> {
        if self.failed.load(Ordering::Acquire) {
            return Err(Error::Sqlite("a checkpoint failed".into()));
        }
        let pages = wal_pages(writer)?;
        if pages >= LIMIT_PAGES {
            truncate(writer)
        } else if pages >= WAKE_PAGES {
            self.wake()
        } else {
            Ok(())
        }
    }

    fn wake(&self) -> Result<(), Error> {
        match self.thread.as_ref().map(|(wake, _)| wake.try_send(())) {
            Some(Ok(()) | Err(TrySendError::Full(()))) => Ok(()),
            Some(Err(TrySendError::Disconnected(()))) | None => {
                Err(Error::Sqlite("the checkpoint thread is gone".into()))
            }
        }
    }
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

fn run(connection: &Connection, woken: &Receiver<()>, failed: &AtomicBool) {
    while woken.recv().is_ok() {
        if let Err(error) = passive(connection) {
            tracing::error!(%error, "a checkpoint failed");
            failed.store(true, Ordering::Release);
            return;
        }
    }
}

/// Pages in the WAL that are not in the database yet.
pub(super) fn wal_pages(connection: &Connection) -> Result<i64, Error> {
    let mut statement = connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
    let (pages, moved) = statement.query_row([], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?;
    Ok(pages - moved)
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
