//! The index: which shards there are, and where their runs lie.
//!
//! Changes go to memory first, when the log has them; [`Index::flush`] brings them to SQLite in one synced transaction. A
//! look-up asks what is newest first: memory, then what is being flushed, then SQLite.
//!
//! ```sql
//! shard   one row a shard; frames: length u32 each; records: (index u64, file u32, start u32, len u32) of its commit
//!         and of each run; little endian
//! run     in which files a shard has records
//! state   one row: the format, and the first log record that is not reflected here
//! scrub   one row: where the scrub is; an index that is made anew begins at the beginning
//! ```

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

use super::Error;
use super::record::Origin;
use super::wire::Bookmark;
use crate::env::Timestamp;
use crate::ids::{Ino, ShardId};
use crate::log::Location;

const FORMAT: i64 = 1;
const RUN_ROW_BYTES: usize = 20;

/// A run and where it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    /// Of its record in the log.
    pub(super) index: u64,
    /// Of its bytes, without the record's header.
    pub(super) at: Location,
}

/// A shard as the index knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) origin: Origin,
    /// Length of each frame, bytes.
    pub(super) frames: Vec<u32>,
    /// The record that committed it: whole, header and all. An index that is made anew needs it as much as the runs.
    pub(super) commit: Run,
    pub(super) runs: Vec<Run>,
}

impl Entry {
    /// All that must stay in the log for it.
    pub(super) fn records(&self) -> impl Iterator<Item = &Run> {
        std::iter::once(&self.commit).chain(&self.runs)
    }
}

/// What changed: None, it was deleted.
type Changes = HashMap<ShardId, Option<Arc<Entry>>>;

#[derive(Default)]
struct Memory {
    changes: Changes,
    flushing: Arc<Changes>,
    /// Bytes of live runs by file.
    live: BTreeMap<u32, u64>,
    shard_count: u64,
}

/// See the module.
pub(super) struct Index {
    memory: Mutex<Memory>,
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    /// For look-ups that nobody may hold up.
    applier: Mutex<Connection>,
}

/// Locks, whatever became of the thread that held it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// SQLite keeps signed integers; an id keeps its bits.
fn signed(id: u64) -> i64 {
    id as i64
}

fn connect(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -1024)?;
    Ok(connection)
}

impl Index {
    /// Opens the index in `path`, or makes an empty one. Returns with the first log record that it does not reflect.
    pub(super) fn open(path: &Path) -> Result<(Index, u64), Error> {
        let writer = connect(path)?;
        writer.execute_batch(
            "CREATE TABLE IF NOT EXISTS shard(id INTEGER PRIMARY KEY, chunk INTEGER NOT NULL, slot INTEGER NOT NULL,
               frames BLOB NOT NULL, records BLOB NOT NULL);
             CREATE TABLE IF NOT EXISTS run(file INTEGER NOT NULL, shard INTEGER NOT NULL, PRIMARY KEY(file,shard)) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS state(k INTEGER PRIMARY KEY CHECK(k=1), format INTEGER NOT NULL, next INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS scrub(k INTEGER PRIMARY KEY CHECK(k=1), after INTEGER, ended_ns INTEGER NOT NULL);
             INSERT OR IGNORE INTO scrub VALUES(1,NULL,0);",
        )?;
        writer.execute("INSERT OR IGNORE INTO state VALUES(1,?1,0)", params![FORMAT])?;
        let (format, next): (i64, i64) =
            writer.query_row("SELECT format,next FROM state", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if format != FORMAT {
            return Err(Error::Index(format!("it has format {format}, this program knows {FORMAT}")));
        }
        let (reader, applier) = (Mutex::new(connect(path)?), Mutex::new(connect(path)?));
        let index = Index { memory: Mutex::default(), writer: Mutex::new(writer), reader, applier };
        index.count()?;
        Ok((index, next as u64))
    }

    fn count(&self) -> Result<(), Error> {
        let reader = lock(&self.reader);
        let mut memory = lock(&self.memory);
        let mut rows = reader.prepare("SELECT records FROM shard")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let runs = decode_runs(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
            memory.shard_count += 1;
            runs.iter().for_each(|run| *memory.live.entry(run.at.file).or_default() += u64::from(run.at.len_bytes));
        }
        Ok(())
    }

    /// Looks a shard up, quickly: from the log's callbacks.
    pub(super) fn get_now(&self, shard: ShardId) -> Result<Option<Arc<Entry>>, Error> {
        self.get_by(&self.applier, shard)
    }

    /// Looks a shard up.
    pub(super) fn get(&self, shard: ShardId) -> Result<Option<Arc<Entry>>, Error> {
        self.get_by(&self.reader, shard)
    }

    fn get_by(&self, connection: &Mutex<Connection>, shard: ShardId) -> Result<Option<Arc<Entry>>, Error> {
        {
            let memory = lock(&self.memory);
            if let Some(change) = memory.changes.get(&shard).or_else(|| memory.flushing.get(&shard)) {
                return Ok(change.clone());
            }
        }
        let connection = lock(connection);
        let mut row = connection.prepare_cached("SELECT chunk,slot,frames,records FROM shard WHERE id=?1")?;
        let row =
            row.query_row(params![signed(shard.0)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
        row.optional()?.map(decode_entry).transpose()
    }

    /// Notes what became of a shard; none: it was deleted. What was there before is returned. Changes are noted one after
    /// another, in the log's order. Quick.
    pub(super) fn change(&self, shard: ShardId, to: Option<Entry>) -> Result<Option<Arc<Entry>>, Error> {
        let before = self.get_now(shard)?;
        let mut memory = lock(&self.memory);
        for run in before.iter().flat_map(|entry| entry.records()) {
            let live = memory.live.entry(run.at.file).or_default();
            *live = live.saturating_sub(u64::from(run.at.len_bytes));
        }
        for run in to.iter().flat_map(Entry::records) {
            *memory.live.entry(run.at.file).or_default() += u64::from(run.at.len_bytes);
        }
        memory.shard_count = memory.shard_count + u64::from(to.is_some()) - u64::from(before.is_some());
        memory.changes.insert(shard, to.map(Arc::new));
        Ok(before)
    }

    /// Makes all that was noted durable; `next`: the first log record that is not reflected. Blocking.
    ///
    /// # Errors
    /// `Index`: nothing of it was; it waits for the next flush.
    pub(super) fn flush(&self, next: u64) -> Result<(), Error> {
        let mut writer = lock(&self.writer);
        let changes = {
            let mut memory = lock(&self.memory);
            memory.flushing = Arc::new(std::mem::take(&mut memory.changes));
            memory.flushing.clone()
        };
        let written = write_rows(&mut writer, &changes, next);
        let mut memory = lock(&self.memory);
        memory.flushing = Arc::default();
        if written.is_err() {
            for (shard, entry) in changes.iter() {
                memory.changes.entry(*shard).or_insert_with(|| entry.clone());
            }
        }
        written
    }

    /// Where the scrub is.
    pub(super) fn bookmark(&self) -> Result<Bookmark, Error> {
        let reader = lock(&self.reader);
        let row = reader.query_row("SELECT after,ended_ns FROM scrub", [], |row| {
            let after: Option<i64> = row.get(0)?;
            Ok(Bookmark { after: after.map(|id| ShardId(id as u64)), ended: Timestamp(row.get(1)?) })
        });
        Ok(row?)
    }

    /// Notes where the scrub is.
    pub(super) fn note(&self, Bookmark { after, ended }: Bookmark) -> Result<(), Error> {
        let after = after.map(|shard| signed(shard.0));
        lock(&self.writer).execute("UPDATE scrub SET after=?1,ended_ns=?2", params![after, ended.0])?;
        Ok(())
    }

    /// How many changes wait for a flush.
    pub(super) fn pending_count(&self) -> usize {
        lock(&self.memory).changes.len()
    }

    /// Bytes of live runs by file.
    pub(super) fn live(&self) -> BTreeMap<u32, u64> {
        lock(&self.memory).live.clone()
    }

    /// Shards, and bytes of their live runs.
    pub(super) fn totals(&self) -> (u64, u64) {
        let memory = lock(&self.memory);
        (memory.shard_count, memory.live.values().sum())
    }

    /// Up to `limit` shards with ids above `after`, ascending. Only what is flushed.
    pub(super) fn list(&self, after: Option<ShardId>, limit: usize) -> Result<Vec<(ShardId, Origin)>, Error> {
        let reader = lock(&self.reader);
        let after = after.map_or(i64::MIN, |shard| signed(shard.0));
        let mut rows = reader.prepare_cached("SELECT id,chunk,slot FROM shard WHERE id>?1 ORDER BY id LIMIT ?2")?;
        let rows = rows.query_map(params![after, limit as i64], |row| {
            let (id, chunk): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok((ShardId(id as u64), Origin { chunk: Ino(chunk as u64), slot: row.get(2)? }))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Up to `limit` shards behind `after` that have runs in `file`. Only what is flushed.
    pub(super) fn in_file(&self, file: u32, after: Option<ShardId>, limit: usize) -> Result<Vec<ShardId>, Error> {
        let reader = lock(&self.reader);
        let after = after.map_or(i64::MIN, |shard| signed(shard.0));
        let sql = "SELECT shard FROM run WHERE file=?1 AND shard>?2 ORDER BY shard LIMIT ?3";
        let mut rows = reader.prepare_cached(sql)?;
        let rows =
            rows.query_map(params![file, after, limit as i64], |row| Ok(ShardId(row.get::<_, i64>(0)? as u64)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Lets it grow to so many pages and no further: a full disk, as SQLite sees it.
    #[cfg(test)]
    pub(super) fn limit(&self, page_count: u32) {
        let writer = lock(&self.writer);
        writer.pragma_update(None, "max_page_count", page_count).unwrap_or_default();
    }
}

fn write_rows(connection: &mut Connection, changes: &Changes, next: u64) -> Result<(), Error> {
    let transaction = connection.transaction()?;
    for (shard, entry) in changes {
        write_row(&transaction, *shard, entry.as_deref())?;
    }
    transaction.execute("UPDATE state SET next=?1", params![signed(next)])?;
    Ok(transaction.commit()?)
}

fn write_row(transaction: &Connection, shard: ShardId, entry: Option<&Entry>) -> Result<(), Error> {
    let id = signed(shard.0);
    let mut old = transaction.prepare_cached("SELECT records FROM shard WHERE id=?1")?;
    let old: Option<Vec<u8>> = old.query_row(params![id], |row| row.get(0)).optional()?;
    let mut forget = transaction.prepare_cached("DELETE FROM run WHERE file=?1 AND shard=?2")?;
    for run in old.iter().map(|runs| decode_runs(runs)).collect::<Result<Vec<_>, _>>()?.iter().flatten() {
        forget.execute(params![run.at.file, id])?;
    }
    let Some(entry) = entry else {
        transaction.prepare_cached("DELETE FROM shard WHERE id=?1")?.execute(params![id])?;
        return Ok(());
    };
    let Origin { chunk, slot } = entry.origin;
    let frames: Vec<u8> = entry.frames.iter().flat_map(|len| len.to_le_bytes()).collect();
    let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO shard VALUES(?1,?2,?3,?4,?5)")?;
    put.execute(params![id, signed(chunk.0), slot, frames, encode_runs(entry.records())])?;
    let mut note = transaction.prepare_cached("INSERT OR IGNORE INTO run VALUES(?1,?2)")?;
    for run in entry.records() {
        note.execute(params![run.at.file, id])?;
    }
    Ok(())
}

fn encode_runs<'a>(runs: impl Iterator<Item = &'a Run>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * RUN_ROW_BYTES);
    for Run { index, at } in runs {
        bytes.extend_from_slice(&index.to_le_bytes());
        for word in [at.file, at.start_bytes, at.len_bytes] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    bytes
}

fn damaged() -> Error {
    Error::IndexDamaged("a row is not what was written".to_owned())
}

fn decode_runs(bytes: &[u8]) -> Result<Vec<Run>, Error> {
    let word =
        |bytes: &[u8], at: usize| -> Option<u32> { bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes) };
    let run = |bytes: &[u8]| {
        let index = u64::from(word(bytes, 0)?) | u64::from(word(bytes, 4)?) << 32;
        let at = Location { file: word(bytes, 8)?, start_bytes: word(bytes, 12)?, len_bytes: word(bytes, 16)? };
        Some(Run { index, at })
    };
    bytes.chunks(RUN_ROW_BYTES).map(|bytes| run(bytes).ok_or_else(damaged)).collect()
}

type EntryRow = (i64, u32, Vec<u8>, Vec<u8>);

fn decode_entry((chunk, slot, frames, records): EntryRow) -> Result<Arc<Entry>, Error> {
    let frame = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).map_err(|_| damaged());
    let mut runs = decode_runs(&records)?;
    if runs.is_empty() {
        return Err(damaged());
    }
    Ok(Arc::new(Entry {
        commit: runs.remove(0),
        origin: Origin { chunk: Ino(chunk as u64), slot },
        frames: frames.chunks(4).map(frame).collect::<Result<_, _>>()?,
        runs,
    }))
}
