//! The one row of `state`, and copies of rows that the writer meets often.
//!
//! Invariants
//! - [`State`] is written once a batch, whole; in between its values in memory are the truth.
//! - Usage is summed up in memory during a batch and added to its rows at the end; nothing in `apply` reads it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::{Connection, params};

use crate::catalog::{Applied, Bucket, Error, Position};
use crate::env::Timestamp;
use crate::ids::Ino;

use super::{sql, unsql};

/// Counters and catalog time.
pub(super) struct State {
    incarnation: u16,
    next_id: u64,
    next_dead: u64,
    next_reclaim: u64,
    pub(super) time: Timestamp,
    /// The feature level.
    pub(super) level: u32,
}

impl State {
    pub(super) fn load(connection: &Connection) -> Result<(State, Applied), Error> {
        let query = "SELECT incarnation, next_id, next_dead, next_reclaim, time_ns,
            applied_term, applied_index, applied_leader, membership, feature_level FROM state";
        Ok(connection.query_row(query, [], |row| {
            let state = State {
                incarnation: row.get(0)?,
                next_id: unsql(row.get(1)?),
                next_dead: unsql(row.get(2)?),
                next_reclaim: unsql(row.get(3)?),
                time: Timestamp(row.get(4)?),
                level: row.get(9)?,
            };
            let position = unsql(row.get(6)?).checked_sub(1).map(|index| (unsql_column(row, 5), index));
            let position = match position {
                Some((term, index)) => Some(Position { term: term?, leader: unsql(row.get(7)?), index }),
                None => None,
            };
            Ok((state, Applied { position, membership: row.get(8)? }))
        })?)
    }

    pub(super) fn save(
        &self,
        connection: &Connection,
        applied: Option<Position>,
        membership: Option<&[u8]>,
    ) -> Result<(), Error> {
        let update = "UPDATE state SET next_id=?1, next_dead=?2, next_reclaim=?3, time_ns=?4,
            applied_term=?5, applied_index=?6, applied_leader=?7, membership=COALESCE(?8, membership), feature_level=?9";
        let (term, index, leader) = applied.map_or((0, 0, 0), |at| (at.term, at.index + 1, at.leader));
        connection.prepare_cached(update)?.execute(params![
            sql(self.next_id),
            sql(self.next_dead),
            sql(self.next_reclaim),
            self.time.0,
            sql(term),
            sql(index),
            sql(leader),
            membership,
            self.level
        ])?;
        Ok(())
    }

    /// `count` fresh ids: half-open.
    pub(super) fn take_ids(&mut self, count: u64) -> (Ino, Ino) {
        let start = self.next_id;
        self.next_id += count;
        (Ino::new(self.incarnation, start), Ino::new(self.incarnation, self.next_id))
    }

    pub(super) fn take_dead(&mut self) -> u64 {
        self.next_dead += 1;
        self.next_dead - 1
    }

    pub(super) fn take_reclaim(&mut self) -> u64 {
        self.next_reclaim += 1;
        self.next_reclaim - 1
    }
}

fn unsql_column(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<u64> {
    Ok(unsql(row.get(index)?))
}

/// A directory as its parent names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Directory {
    pub(super) ino: Ino,
    /// Named by a dentry; else by a row of `version`, since it holds only history.
    pub(super) visible: bool,
}

/// What the writer knows of a session's stream of commands.
#[derive(Clone, Copy)]
pub(super) struct Stream {
    /// Outcomes up to here are gone.
    pub(super) acked: u64,
    /// No command above was ever applied.
    pub(super) highest: u64,
}

/// A leased range of ids: half-open.
#[derive(Clone, Copy)]
pub(super) struct Lease {
    pub(super) start: Ino,
    pub(super) end: Ino,
    pub(super) session: crate::ids::SessionId,
}

/// What a batch changes of a bucket's usage.
#[derive(Clone, Copy, Default)]
pub(super) struct UsageDelta {
    pub(super) object_count: i64,
    pub(super) size_bytes: i64,
    pub(super) version_count: i64,
    pub(super) version_bytes: i64,
}

/// What the writer asks of clones before each change of a name.
#[derive(Default)]
pub(super) struct Clones {
    /// Those that are being copied.
    pub(super) copying: Vec<Ino>,
    /// Whether some directory is being erased.
    pub(super) is_erasing: bool,
}

const DIRECTORIES_MAX: usize = 8192;

/// Copies of rows.
#[derive(Default)]
pub(super) struct Cache {
    pub(super) buckets: BTreeMap<u64, Bucket>,
    pub(super) streams: BTreeMap<u64, Stream>,
    pub(super) lease: Option<Lease>,
    pub(super) usage: BTreeMap<u64, UsageDelta>,
    /// Buckets that are mounted; none: not read yet.
    pub(super) mounted: Option<BTreeSet<u64>>,
    /// Buckets that tell what happens in them; none: not read yet.
    pub(super) telling: Option<BTreeSet<u64>>,
    /// Events that wait; none: not counted yet.
    pub(super) event_count: Option<u64>,
    /// None: not read yet.
    pub(super) clones: Option<Clones>,
    directories: HashMap<u64, HashMap<Vec<u8>, Directory>>,
    directory_count: usize,
}

impl Cache {
    pub(super) fn directory(&self, parent: Ino, name: &[u8]) -> Option<Directory> {
        self.directories.get(&parent.0)?.get(name).copied()
    }

    pub(super) fn set_directory(&mut self, parent: Ino, name: &[u8], directory: Directory) {
        if self.directory_count >= DIRECTORIES_MAX {
            self.directories.clear();
            self.directory_count = 0;
        }
        let names = self.directories.entry(parent.0).or_default();
        if names.insert(name.to_vec(), directory).is_none() {
            self.directory_count += 1;
        }
    }

    pub(super) fn forget_directory(&mut self, parent: Ino, name: &[u8]) {
        if let Some(names) = self.directories.get_mut(&parent.0)
            && names.remove(name).is_some()
        {
            self.directory_count -= 1;
        }
    }

    pub(super) fn save_usage(&mut self, connection: &Connection) -> Result<(), Error> {
        let update = "UPDATE usage SET object_count=object_count+?2, size_bytes=size_bytes+?3,
            version_count=version_count+?4, version_bytes=version_bytes+?5 WHERE bucket=?1";
        for (bucket, delta) in std::mem::take(&mut self.usage) {
            connection.prepare_cached(update)?.execute(params![
                sql(bucket),
                delta.object_count,
                delta.size_bytes,
                delta.version_count,
                delta.version_bytes
            ])?;
        }
        Ok(())
    }
}
