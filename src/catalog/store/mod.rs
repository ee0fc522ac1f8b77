//! The catalog's files: opening, switching, checkpoints.
//!
//! ```text
//! CURRENT             "predastore catalog 1: state-<n>\n"
//! state-<n>/fsm.db    the database, with its -wal and -shm
//! new-<n>/            a state being made; removed at open
//! ```
//!
//! Invariants
//! - A state is made under `new-<n>`, synced, renamed to `state-<n>`, and only then named by `CURRENT`; what was
//!   current before is removed after. So at every moment `CURRENT` names a whole state, or none was ever used.
//! - Nothing but SQLite opens a database file while a connection has it: closing any descriptor of it would drop
//!   SQLite's locks. (Its `-wal` carries no locks.)

mod checkpoint;
mod current;
mod readers;
mod snapshot;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, params};

use super::level::{FEATURE_LEVEL, FIRST_LEVEL, Levels};
use super::{Applied, Error};
use checkpoint::Checkpointer;
pub use readers::Readers;

/// The format of the tables.
const FORMAT: i64 = 1;
/// 3.7.0 to 3.51.2 can corrupt a database when the WAL is reset.
const SQLITE_MIN: i32 = 3_051_003;
const SCHEMA: &str = include_str!("../schema.sql");
/// What a state made or received before may lack.
const SCHEMA_ADDED: &str = include_str!("../schema_added.sql");
const DATABASE: &str = "fsm.db";

/// How to open a catalog.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that serve queries.
    pub reader_count: usize,
    /// SQLite's page caches, bytes: writer and readers have equal shares. What they lack comes from the page cache of
    /// the system, at nearly the same cost; so they are small.
    pub cache_bytes: u64,
    /// Incarnation of ids when the catalog is made.
    pub incarnation: u16,
    /// Lets it grow no further than it is when it is opened: a full disk, as SQLite sees it.
    #[cfg(test)]
    pub is_full: bool,
    /// The feature level of this program: [`FEATURE_LEVEL`], unless a test passes it off as another one.
    pub feature_level: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            reader_count: 2,
            cache_bytes: 8 << 20,
            incarnation: 1,
            feature_level: FEATURE_LEVEL,
            #[cfg(test)]
            is_full: false,
        }
    }
}

impl Options {
    /// One connection's share.
    fn connection_cache_bytes(&self) -> u64 {
        self.cache_bytes / (1 + self.reader_count.max(1) as u64)
    }
}

/// The current state's files and connections.
pub(super) struct Store {
    dir: PathBuf,
    options: Options,
    number: u64,
    connection: Connection,
    checkpointer: Checkpointer,
    readers: Readers,
}

/// A state that was received whole and is not current yet.
#[derive(Debug)]
pub struct Prepared {
    number: u64,
}

impl Store {
    pub(super) fn open(dir: &Path, options: Options) -> Result<Store, Error> {
        if rusqlite::version_number() < SQLITE_MIN {
            return Err(Error::SqliteTooOld { found: rusqlite::version().to_owned() });
        }
        std::fs::create_dir_all(dir)?;
        let number = match current::find(dir)? {
            Some(number) => number,
            None => create(dir, options.incarnation)?,
        };
        current::remove_leftovers(dir, number)?;
        let database = current::state_dir(dir, number).join(DATABASE);
        let connection = open_writer(&database, &options)?;
        let checkpointer = Checkpointer::start(&database)?;
        let readers = Readers::start(database, options.reader_count, options.connection_cache_bytes())?;
        Ok(Store { dir: dir.to_owned(), options, number, connection, checkpointer, readers })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    pub(super) fn known_level(&self) -> u32 {
        self.options.feature_level
    }

    pub(super) fn readers(&self) -> Readers {
        self.readers.clone()
    }

    /// Keeps the WAL short.
    pub(super) fn after_commit(&mut self) -> Result<(), Error> {
        self.checkpointer.after_commit(&self.connection)
    }

    /// Makes every commit durable, then moves what can be moved from the WAL into the database.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        let wal = self.database().with_extension("db-wal");
        match File::open(&wal) {
            Ok(file) => file.sync_data()?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        sync_dir(&current::state_dir(&self.dir, self.number))?;
        checkpoint::passive(&self.connection)
    }

    /// Ends the threads, then moves all of the WAL into the database. What is asked of the readers afterwards fails.
    pub(super) fn close(self) -> Result<(), Error> {
        self.readers.close();
        drop(self.checkpointer);
        checkpoint::truncate(&self.connection)
    }

    fn database(&self) -> PathBuf {
        current::state_dir(&self.dir, self.number).join(DATABASE)
    }

    /// Receives and verifies a snapshot, beside the current state.
    pub(super) fn prepare(&self, file: &Path) -> Result<Prepared, Error> {
        let number = self.number + 1;
        let made = make_state(&self.dir, number, |database| {
            snapshot::receive(file, database)?;
            let connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            check_format(&connection)?;
            check_level(&connection, &self.options)
        });
        if let Err(error) = made {
            // On a full disk every byte counts; what cannot be removed now is tried again.
            let _ = self.remove_leftovers();
            return Err(error);
        }
        Ok(Prepared { number })
    }

    /// Removes every state but the current one.
    pub(super) fn remove_leftovers(&self) -> Result<(), Error> {
        current::remove_leftovers(&self.dir, self.number)
    }

    /// Makes a prepared state the current one.
    pub(super) fn switch(&mut self, prepared: Prepared) -> Result<(), Error> {
        current::write(&self.dir, prepared.number)?;
        self.number = prepared.number;
        let database = self.database();
        self.connection = open_writer(&database, &self.options)?;
        between_steps();
        self.checkpointer = Checkpointer::start(&database)?;
        self.readers.reopen(database);
        between_steps();
        current::remove_leftovers(&self.dir, self.number)
    }
}

/// Reads the whole snapshot in `file` and says how far it had applied. Blocking.
///
/// # Errors
/// `Inconsistent`: it is damaged or not whole; `Format`: of a later format; `Sqlite`, `Io`: the disk.
pub fn verify_snapshot(file: &Path) -> Result<Applied, Error> {
    snapshot::verify(file)?;
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    check_format(&connection)?;
    super::apply::read_applied(&connection)
}

/// Makes the first state.
fn create(dir: &Path, incarnation: u16) -> Result<u64, Error> {
    make_state(dir, 1, |database| {
        let connection = Connection::open(database)?;
        connection.execute_batch(SCHEMA)?;
        let insert = "INSERT INTO state VALUES(1, ?, ?, ?, 1, 1, 1, 0, 0, 0, 0, x'')";
        connection.execute(insert, params![FORMAT, FIRST_LEVEL, incarnation])?;
        Ok(())
    })?;
    current::write(dir, 1)?;
    Ok(1)
}

/// Lets `fill` make a database, and gives its directory its name once all is synced.
fn make_state(dir: &Path, number: u64, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let (new, state) = (current::new_dir(dir, number), current::state_dir(dir, number));
    for leftover in [&new, &state] {
        if leftover.exists() {
            std::fs::remove_dir_all(leftover)?;
        }
    }
    std::fs::create_dir(&new)?;
    between_steps();
    let database = new.join(DATABASE);
    fill(&database)?;
    between_steps();
    File::open(&database)?.sync_all()?;
    sync_dir(&new)?;
    std::fs::rename(&new, &state)?;
    between_steps();
    sync_dir(dir)
}

/// Between two steps of making or switching states: a test looks here at what a crash would leave.
fn between_steps() {
    #[cfg(test)]
    tests::between_steps();
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    Ok(File::open(dir)?.sync_all()?)
}

fn open_writer(database: &Path, options: &Options) -> Result<Connection, Error> {
    let connection = open_connection(database)?;
    limit_cache(&connection, options.connection_cache_bytes())?;
    connection.set_prepared_statement_cache_capacity(128);
    check_format(&connection)?;
    check_level(&connection, options)?;
    connection.execute_batch(SCHEMA_ADDED)?;
    #[cfg(test)]
    if options.is_full {
        connection.pragma_update(None, "max_page_count", 1)?;
    }
    Ok(connection)
}

/// The room that a WAL keeps.
const WAL_KEPT_BYTES: i64 = 128 << 20;

/// A connection that may write.
fn open_connection(database: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // What a WAL that readers kept from being begun anew has taken is given back when it is.
    connection.pragma_update_and_check(None, "journal_size_limit", WAL_KEPT_BYTES, |_| Ok(()))?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    keep_plans(&connection)?;
    Ok(connection)
}

/// Bounds the pages that a connection keeps in memory.
fn limit_cache(connection: &Connection, bytes: u64) -> Result<(), Error> {
    // Negative: KiB; 0 would mean SQLite's own default.
    let cache_kib = -i64::try_from(bytes / 1024).unwrap_or(i64::MAX).max(1);
    Ok(connection.pragma_update(None, "cache_size", cache_kib)?)
}

/// Makes a statement's plan depend on its text alone. Otherwise one with `LIMIT ?` is prepared anew at every use,
/// in case the number bound to it calls for another plan.
pub(super) fn keep_plans(connection: &Connection) -> Result<(), Error> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn check_format(connection: &Connection) -> Result<(), Error> {
    match connection.query_row("SELECT format FROM state", [], |row| row.get(0))? {
        FORMAT => Ok(()),
        found => Err(Error::Format { found, known: FORMAT }),
    }
}

fn check_level(connection: &Connection, options: &Options) -> Result<(), Error> {
    let reached = connection.query_row("SELECT feature_level FROM state", [], |row| row.get(0))?;
    Levels { known: options.feature_level, reached }.check()
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Error::Sqlite(error.to_string())
    }
}
