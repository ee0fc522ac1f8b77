//! What repair, the mover and the sweep ask: where chunks are, which are to be repaired, which bytes are nobody's.
//!
//! Invariant: what is named when it is looked at, by a node, by a row of `reclaim` or by a live session's lease, is never
//! an orphan. (Whoever asks has listed the bytes before: what was there then was leased then.)

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::params;

use super::{Error, Place, Repair, View, read_place, signed, unsigned};
use crate::ids::{ID_COUNTER_BITS, Ino, NodeId, ShardId};

impl View<'_> {
    /// Chunks that are to be repaired, with ids above `after`, ascending; where they are, and what is known of them.
    ///
    /// # Errors
    /// `Undecodable`, `Inconsistent`: one of them is damaged; [`View::chunks`] goes on behind it.
    pub fn repairs(&self, after: Option<Ino>, limit: usize) -> Result<Vec<(Ino, Place, Repair)>, Error> {
        let sql = "SELECT r.chunk,n.place,r.missing FROM repair r LEFT JOIN node n ON n.id=r.chunk WHERE r.chunk>?1
            ORDER BY r.chunk LIMIT ?2";
        self.all(sql, params![signed(after.unwrap_or_default().0), signed(limit as u64)], |row| {
            let chunk = Ino(unsigned(row, 0)?);
            Ok((chunk, read_place(row, 1, chunk)?, Repair::decode(row.get_ref(2)?.as_blob()?)?))
        })
    }

    /// How many chunks are to be repaired.
    pub fn repair_count(&self) -> Result<u64, Error> {
        let count = self.one("SELECT count(*) FROM repair", [], |row| unsigned(row, 0))?;
        Ok(count.unwrap_or(0))
    }

    /// Chunks that live, with ids above `after`, ascending; and where they are.
    ///
    /// # Errors
    /// As of [`View::repairs`].
    pub fn places(&self, after: Option<Ino>, limit: usize) -> Result<Vec<(Ino, Place)>, Error> {
        let sql = "SELECT id,place FROM node WHERE id>?1 AND place IS NOT NULL ORDER BY id LIMIT ?2";
        self.all(sql, params![signed(after.unwrap_or_default().0), signed(limit as u64)], |row| {
            let chunk = Ino(unsigned(row, 0)?);
            Ok((chunk, read_place(row, 1, chunk)?))
        })
    }

    /// Of `chunks`, those whose file nothing accounts for: no node, no reclaim row, no live session's lease. Ascending.
    ///
    /// # Errors
    /// `Inconsistent`: an id above the high-water mark (a restored catalog): the sweep must stop.
    pub fn orphans(&self, chunks: &[Ino]) -> Result<Vec<Ino>, Error> {
        self.check_given_out("chunk", chunks.iter().copied())?;
        let mut orphans = BTreeSet::new();
        for chunk in chunks {
            if !self.is_node(*chunk)? && !self.is_leased(*chunk)? {
                orphans.insert(*chunk);
            }
        }
        if !orphans.is_empty() {
            self.all("SELECT chunk FROM reclaim", [], |row| Ok(orphans.remove(&Ino(unsigned(row, 0)?))))?;
        }
        Ok(orphans.into_iter().collect())
    }

    /// Of `shards` of `node` (and the chunk that each says it is of), those that nothing accounts for: not named there by
    /// their chunk, nor by a row of `reclaim`, nor leased by a live session. Ascending.
    ///
    /// # Errors
    /// `Inconsistent`: a shard's name above the high-water mark (a restored catalog): the sweep must stop.
    /// `Undecodable`: a place; nobody can tell then.
    pub fn orphan_shards(&self, node: NodeId, shards: &[(ShardId, Ino)]) -> Result<Vec<ShardId>, Error> {
        self.check_given_out("shard", shards.iter().map(|(shard, _)| Ino(shard.0)))?;
        let mut orphans: BTreeMap<Ino, BTreeSet<ShardId>> = BTreeMap::new();
        for (shard, chunk) in shards {
            if !self.is_leased(Ino(shard.0))? {
                orphans.entry(*chunk).or_default().insert(*shard);
            }
        }
        for (chunk, shards) in &mut orphans {
            let sql = "SELECT place FROM node WHERE id=?1 AND place IS NOT NULL";
            if let Some(place) = self.one(sql, [signed(chunk.0)], |row| read_place(row, 0, *chunk))? {
                forget(shards, node, &place);
            }
        }
        orphans.retain(|_, shards| !shards.is_empty());
        if !orphans.is_empty() {
            self.forget_reclaimable(node, &mut orphans)?;
        }
        let orphans: BTreeSet<ShardId> = orphans.into_values().flatten().collect();
        Ok(orphans.into_iter().collect())
    }

    /// Takes what rows of `reclaim` name on `node` out of `orphans`. One scan, for it has no index by chunk.
    fn forget_reclaimable(&self, node: NodeId, orphans: &mut BTreeMap<Ino, BTreeSet<ShardId>>) -> Result<(), Error> {
        self.all("SELECT chunk,place FROM reclaim", [], |row| {
            let chunk = Ino(unsigned(row, 0)?);
            if let Some(shards) = orphans.get_mut(&chunk) {
                forget(shards, node, &read_place(row, 1, chunk)?);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Ids from here on were never given out.
    pub(in crate::catalog) fn id_mark(&self) -> Result<Ino, Error> {
        let read = |row: &rusqlite::Row<'_>| Ok((unsigned(row, 0)?, unsigned(row, 1)?));
        let state = self.one("SELECT incarnation,next_id FROM state", [], read)?;
        let (incarnation, next) = state.ok_or_else(|| Error::Inconsistent("no state row".into()))?;
        Ok(Ino(incarnation << ID_COUNTER_BITS | next))
    }

    /// An id among those that this incarnation of the catalog gave out, or its first: which one, `random` says.
    pub fn some_id(&self, random: u64) -> Result<Ino, Error> {
        let mark = self.id_mark()?.0;
        let first = mark >> ID_COUNTER_BITS << ID_COUNTER_BITS;
        Ok(Ino(first + random % (mark - first).max(1)))
    }

    fn check_given_out(&self, what: &str, mut ids: impl Iterator<Item = Ino>) -> Result<(), Error> {
        let mark = self.id_mark()?;
        match ids.find(|id| *id >= mark) {
            None => Ok(()),
            Some(id) => Err(Error::Inconsistent(format!("{what} {id} is above every id given out (below {mark})"))),
        }
    }

    fn is_node(&self, id: Ino) -> Result<bool, Error> {
        Ok(self.one("SELECT 1 FROM node WHERE id=?1", [signed(id.0)], |_| Ok(()))?.is_some())
    }

    /// Whether a live session may still name this id.
    fn is_leased(&self, id: Ino) -> Result<bool, Error> {
        // Leases do not overlap: only the last one that begins at or before the id can hold it.
        let sql = "SELECT end FROM lease WHERE start<=?1 AND session IN (SELECT id FROM session)
            ORDER BY start DESC LIMIT 1";
        let end = self.one(sql, [signed(id.0)], |row| unsigned(row, 0))?;
        Ok(end.is_some_and(|end| id.0 < end))
    }
}

/// Takes the shards that `place` names on `node` out of `shards`.
fn forget(shards: &mut BTreeSet<ShardId>, node: NodeId, place: &Place) {
    for (_, shard) in place.layout.shards().iter().filter(|(at, _)| *at == node) {
        shards.remove(shard);
    }
}
