//! Readers: threads with a connection each, and one queue of queries.
//!
//! Invariants
//! - A query's snapshot begins after the query was queued, so it sees all that was applied before: queries that share
//!   a transaction were all queued before it began.
//! - A thread that may block runs its query itself, if a connection is to be had: by the same rules.
//! - After [`Readers::reopen`] returns, a query that is queued sees the new database.
//! - After [`Readers::close`] returns, nobody has the database open, and every query is answered with `Closed`.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use crate::catalog::apply::read_applied;
use crate::catalog::changes::Changes;
use crate::catalog::{Applied, Error, View};

use crate::patient;

use super::snapshot;

/// The most queries that share one transaction.
const SHARE_MAX: usize = 16;
/// The most threads that run their queries themselves.
const SPARE_MAX: usize = 2;

type Query = Box<dyn FnOnce(Result<&View<'_>, &Error>) + Send>;

/// Handles for queries; cheap to clone. The threads end when they are closed, or with the last of the handles.
#[derive(Clone)]
pub struct Readers {
    pool: Arc<Pool>,
    changes: Changes,
}

struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// For threads that may block: they run their queries themselves.
    spares: Spares,
}

/// Connections that are not a reader's.
#[derive(Default)]
struct Spares {
    kept: Mutex<Kept>,
    returned: Condvar,
}

#[derive(Default)]
struct Kept {
    connections: Vec<(u64, Connection)>,
    lent_count: usize,
}

impl Spares {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to the database of now. None: too many are lent, or the pool is closed.
    fn lend(&self, shared: &Shared) -> Option<Lent<'_>> {
        let mut kept = self.lock();
        if kept.lent_count >= SPARE_MAX {
            return None;
        }
        let (database, generation) = {
            let queue = shared.lock();
            if queue.closed {
                return None;
            }
            (queue.database.clone(), queue.generation)
        };
        kept.connections.retain(|(of, _)| *of == generation);
        let connection = kept.connections.pop();
        kept.lent_count += 1;
        drop(kept);
        let mut lent = Lent { spares: self, connection };
        if lent.connection.is_none() {
            lent.connection = Some((generation, open_reader(&database, shared.cache_bytes).ok()?));
        }
        Some(lent)
    }

    /// Waits until all are back, and closes them.
    fn close(&self) {
        let mut kept = self.lock();
        while kept.lent_count > 0 {
            kept = self.returned.wait(kept).unwrap_or_else(PoisonError::into_inner);
        }
        kept.connections.clear();
    }
}

/// One of them, for a while.
struct Lent<'a> {
    spares: &'a Spares,
    connection: Option<(u64, Connection)>,
}

impl Lent<'_> {
    fn answer(&self, query: Query) {
        if let Some((_, connection)) = &self.connection {
            answer(connection, vec![query]);
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut kept = self.spares.lock();
        kept.lent_count -= 1;
        kept.connections.extend(self.connection.take());
        self.spares.returned.notify_all();
    }
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    reader_count: usize,
    /// Page cache of one reader.
    cache_bytes: u64,
}

struct Queue {
    queries: VecDeque<Query>,
    database: PathBuf,
    generation: u64,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it holds the queue; and a queue is whole at every step.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, query: Query) -> Result<(), Error> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(Error::Closed);
        }
        queue.queries.push_back(query);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for queries. Returns some of them with the database they want; none: the pool is closed.
    fn take(&self) -> Option<(Vec<Query>, PathBuf, u64)> {
        let mut queue = self.lock();
        while queue.queries.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let count = queue.queries.len().div_ceil(self.reader_count).min(SHARE_MAX);
        let queries = queue.queries.drain(..count).collect();
        Some((queries, queue.database.clone(), queue.generation))
    }
}

impl Shared {
    fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }
}

impl Drop for Pool {
    /// Waits for no thread: a query that is running may be what drops the last handle.
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Readers {
    pub(super) fn start(database: PathBuf, reader_count: usize, cache_bytes: u64) -> Result<Readers, Error> {
        let reader_count = reader_count.max(1);
        let queue = Queue { queries: VecDeque::new(), database, generation: 0, closed: false };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), filled: Condvar::new(), reader_count, cache_bytes });
        let mut threads = Vec::with_capacity(reader_count);
        for index in 0..reader_count {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("catalog-read-{index}"));
            threads.push(builder.spawn(move || serve(&shared))?);
        }
        Ok(Readers {
            pool: Arc::new(Pool { shared, threads: Mutex::new(threads), spares: Spares::default() }),
            changes: Changes::new(),
        })
    }

    /// Answers what is queued, and ends the threads. Blocking.
    pub(super) fn close(&self) {
        self.pool.shared.close();
        let threads = std::mem::take(&mut *self.pool.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // Queries that panic are caught: a thread ends in no other way.
        threads.into_iter().for_each(|thread| drop(thread.join()));
        self.pool.spares.close();
    }

    /// What is applied from now on, told to who listens.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    pub(super) fn reopen(&self, database: PathBuf) {
        let mut queue = self.pool.shared.lock();
        queue.database = database;
        queue.generation += 1;
    }

    /// Runs `query` on a reader thread, in one read transaction (one snapshot), which it may share with others.
    ///
    /// # Errors
    /// The query's own; `Sqlite`: no snapshot could be taken; `Closed`: they are closed, or the query panicked.
    pub async fn read<R: Send + 'static>(
        &self,
        query: impl FnOnce(&View<'_>) -> Result<R, Error> + Send + 'static,
    ) -> Result<R, Error> {
        let (answer, answered) = oneshot::channel();
        let run = move |view: Result<&View<'_>, &Error>| {
            let result = view.map_err(|error| Error::Sqlite(error.to_string())).and_then(query);
            // Whoever asked may have gone away.
            let _ = answer.send(result);
        };
        match patient::may_block().then(|| self.pool.spares.lend(&self.pool.shared)).flatten() {
            Some(lent) => lent.answer(Box::new(run)),
            None => self.pool.shared.push(Box::new(run))?,
        }
        answered.await.unwrap_or(Err(Error::Closed))
    }

    /// Writes the whole state, as of one snapshot, to `file` (blocking; fsynced). Returns how far it had applied.
    ///
    /// # Errors
    /// `Sqlite`, `Io`: nothing usable is in `file`.
    pub fn snapshot(&self, file: &Path) -> Result<Applied, Error> {
        let database = self.pool.shared.lock().database.clone();
        let cache_bytes = self.pool.shared.cache_bytes;
        snapshot::write(&open_reader(&database, cache_bytes)?, file)?;
        read_applied(&open_reader(file, cache_bytes)?)
    }
}

fn open_reader(database: &Path, cache_bytes: u64) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    super::limit_cache(&connection, cache_bytes)?;
    connection.set_prepared_statement_cache_capacity(128);
    super::keep_plans(&connection)?;
    Ok(connection)
}

fn serve(shared: &Shared) {
    let mut open: Option<(u64, Connection)> = None;
    while let Some((queries, database, generation)) = shared.take() {
        if open.as_ref().is_some_and(|(of, _)| *of != generation) {
            open = None;
        }
        let connection = match open.take() {
            Some((_, connection)) => Ok(connection),
            None => open_reader(&database, shared.cache_bytes),
        };
        match connection {
            Ok(connection) => {
                answer(&connection, queries);
                open = Some((generation, connection));
            }
            Err(error) => refuse(queries, &error),
        }
    }
}

fn refuse(queries: Vec<Query>, error: &Error) {
    for query in queries {
        query(Err(error));
    }
}

/// Runs queries in one read transaction.
fn answer(connection: &Connection, queries: Vec<Query>) {
    match connection.unchecked_transaction() {
        Ok(transaction) => {
            let view = View::new(&transaction);
            for query in queries {
                if catch_unwind(AssertUnwindSafe(|| query(Ok(&view)))).is_err() {
                    tracing::error!("a query of the catalog panicked");
                }
            }
        }
        Err(error) => refuse(queries, &error.into()),
    }
}
