//! Chunks: those that are new, those that come to lie elsewhere, those that are to be repaired.
//!
//! Invariants
//! - A chunk or a shard is new under an id that the command's session leases, and no command names an id twice.
//! - A file that was split is a content like any other, of chunks; extents that lay in it lie in what it was split into.
//! - A shard that was named is named by its chunk's place, or by one row of `reclaim` until its bytes are gone.
//! - A chunk has a row in `repair` while a shard of its place is nowhere, or since a command asked for its repair; the
//!   row goes with the chunk, or by a swap to a place that is as good as was wanted. Damage that was seen stays in the row
//!   until a swap says that all was verified.

use rusqlite::params;

use crate::catalog::{Due, Error, Layout, NEW_CHUNK_COUNT_MAX, NewChunk, Outcome, Place, Refusal, Repair};
use crate::ids::{Ino, NodeId, SEQS_PER_COMMAND, ShardId};
use crate::units::{CHUNK_BYTES, MIB};

use super::node::{Form, NewNode};
use super::{Decision, Step, bound, sql};

/// A new chunk that was not refused.
pub(super) struct Accepted {
    pub(super) id: Ino,
    pub(super) len_bytes: u64,
    /// As it is stored.
    pub(super) place: Vec<u8>,
    /// For its row in `repair`, if it is to have one.
    repair: Option<Repair>,
}

impl Step<'_> {
    /// Refuses new chunks that break a bound or whose ids are not fresh. `holder`: the node that comes with them, if
    /// one does; it is leased, and the only chunk may be it.
    pub(super) fn accept(
        &mut self,
        chunks: &[NewChunk],
        size_bytes: u64,
        holder: Option<Ino>,
    ) -> Decision<Vec<Accepted>> {
        bound((1..=NEW_CHUNK_COUNT_MAX).contains(&chunks.len()), "1 to 512 chunks a body")?;
        chunks.iter().try_for_each(|chunk| check_place(&chunk.place))?;
        let sum_bytes = chunks.iter().fold(0u64, |sum, chunk| sum.saturating_add(chunk.place.len_bytes));
        bound(sum_bytes == size_bytes, "chunks have as many bytes as announced")?;
        let holder_is_chunk = chunks.len() == 1 && Some(chunks[0].id) == holder;
        check_distinct(holder.filter(|_| !holder_is_chunk).into_iter().chain(chunks.iter().flat_map(ids)).collect())?;
        let accepted: Vec<Accepted> = chunks.iter().map(Accepted::new).collect();
        let places_bytes = accepted.iter().map(|chunk| chunk.place.len() as u64).sum::<u64>();
        bound(places_bytes <= MIB, "the places of chunks have at most 1 MiB")?;
        for chunk in chunks {
            if !holder_is_chunk {
                self.check_fresh(chunk.id)?;
            }
            chunk.place.layout.shards().iter().try_for_each(|shard| self.check_shard_leased(*shard))?;
        }
        Ok(accepted)
    }

    fn check_shard_leased(&mut self, (_, shard): (NodeId, ShardId)) -> Decision<()> {
        if shard.0 == 0 { Ok(()) } else { self.check_leased(Ino(shard.0)) }
    }

    /// Inserts the node of a chunk that nothing names but an extent.
    pub(super) fn insert_chunk(&self, chunk: &Accepted) -> Decision<()> {
        let place = Some(chunk.place.as_slice());
        self.insert_fresh(&NewNode { id: chunk.id, nlink: 0, owner: None, form: Form::Chunk, attrs: None, place })?;
        Ok(self.insert_repair(chunk)?)
    }

    /// Inserts what is to be repaired of a new chunk.
    pub(super) fn insert_repair(&self, chunk: &Accepted) -> Result<(), Error> {
        match &chunk.repair {
            Some(repair) => self.set_repair(chunk.id, repair),
            None => Ok(()),
        }
    }

    fn set_repair(&self, chunk: Ino, repair: &Repair) -> Result<(), Error> {
        let replace = "INSERT OR REPLACE INTO repair(chunk, missing) VALUES(?, ?)";
        self.run(replace, params![sql(chunk.0), repair.encode()])?;
        Ok(())
    }

    /// What is known of a chunk that is to be repaired.
    fn repair(&self, chunk: Ino) -> Result<Option<Repair>, Error> {
        let query = "SELECT missing FROM repair WHERE chunk=?";
        let found = self.find(query, [sql(chunk.0)], |row| row.get::<_, Vec<u8>>(0))?;
        found.map(|bytes| Repair::decode(&bytes)).transpose()
    }

    pub(super) fn delete_repair(&self, chunk: Ino) -> Result<(), Error> {
        self.run("DELETE FROM repair WHERE chunk=?", [sql(chunk.0)])?;
        Ok(())
    }

    /// Where a chunk is, if one may still take a use of it.
    pub(super) fn place(&self, chunk: Ino) -> Result<Option<Place>, Error> {
        let query = "SELECT place FROM node WHERE id=? AND form=1 AND refs>0 AND place IS NOT NULL";
        let found = self.find(query, [sql(chunk.0)], |row| row.get::<_, Vec<u8>>(0))?;
        found.map(|bytes| Place::decode(&bytes)).transpose()
    }

    pub(super) fn swap(
        &mut self,
        chunk: Ino,
        (from, to): (&Place, &Place),
        due: Due,
        verified: bool,
    ) -> Decision<Outcome> {
        // The name of a file is its chunk's: were a chunk swapped back to one, its reclaim would take the new bytes.
        bound(matches!(to.layout, Layout::Rs { .. }), "a chunk is swapped to shards")?;
        bound(to.len_bytes == from.len_bytes, "a chunk's length does not change")?;
        check_place(to)?;
        let current = self.place_still(chunk, from)?;
        let added = beside(&to.layout, &from.layout);
        let named = added.iter().chain(from.layout.shards()).filter_map(id);
        check_distinct([chunk].into_iter().chain(named).collect())?;
        added.iter().try_for_each(|shard| self.check_shard_leased(*shard))?;

        if let Some(layout) = removed(from, to) {
            self.insert_reclaim(chunk, Some(&Place { layout, ..current }.encode()))?;
        }
        let place = Place { live_bytes: current.live_bytes, ..to.clone() };
        self.run("UPDATE node SET place=?2 WHERE id=?1", params![sql(chunk.0), place.encode()])?;
        let before = self.repair(chunk)?;
        let is_suspect = !verified && before.as_ref().is_some_and(|before| before.is_suspect);
        match repair(to, due == Due::Yes || due == Due::AsBefore && before.is_some() || is_suspect) {
            Some(repair) => self.set_repair(chunk, &Repair { is_suspect, ..repair })?,
            None => self.delete_repair(chunk)?,
        }
        Ok(Outcome::Done)
    }

    /// Where a chunk is, unless it is elsewhere than `from` by now.
    fn place_still(&self, chunk: Ino, from: &Place) -> Decision<Place> {
        let is_same = |place: &Place| place.layout == from.layout && place.len_bytes == from.len_bytes;
        Ok(self.place(chunk)?.filter(is_same).ok_or(Refusal::PlaceChanged(chunk))?)
    }

    /// The chunk's node stays, for all that has a use of it, and holds an extent for each piece.
    pub(super) fn split(&mut self, chunk: Ino, from: &Place, pieces: &[NewChunk]) -> Decision<Outcome> {
        let is_of_shards = |piece: &NewChunk| matches!(piece.place.layout, Layout::Rs { .. });
        bound(matches!(from.layout, Layout::Plain { .. }), "what is split is a file")?;
        bound(pieces.iter().all(is_of_shards), "a file is split into chunks of shards")?;
        let current = self.place_still(chunk, from)?;
        let runs = self.take_new(pieces, current.len_bytes)?;
        self.insert_extents(chunk, 0, &runs)?;
        self.insert_reclaim(chunk, Some(&current.encode()))?;
        self.run("UPDATE node SET form=?2, place=NULL WHERE id=?1", params![sql(chunk.0), Form::Extents as i64])?;
        self.delete_repair(chunk)?;
        Ok(Outcome::Done)
    }

    pub(super) fn mark_repair(&mut self, chunks: &[Ino], damaged: bool) -> Decision<Outcome> {
        bound(chunks.len() as u64 <= SEQS_PER_COMMAND, "at most 4,096 chunks a command")?;
        for chunk in chunks {
            if let Some(place) = self.place(*chunk)? {
                let is_suspect = damaged || self.repair(*chunk)?.is_some_and(|before| before.is_suspect);
                self.set_repair(*chunk, &Repair { missing: place.layout.missing(), is_suspect })?;
            }
        }
        Ok(Outcome::Done)
    }
}

impl Accepted {
    fn new(chunk: &NewChunk) -> Accepted {
        let NewChunk { id, place, short } = chunk;
        Accepted { id: *id, len_bytes: place.len_bytes, place: place.encode(), repair: repair(place, *short) }
    }
}

/// The row in `repair` of a chunk there; none: it has none.
fn repair(place: &Place, is_due: bool) -> Option<Repair> {
    let missing = place.layout.missing();
    (is_due || !missing.is_empty()).then_some(Repair { missing, is_suspect: false })
}

/// A new place has bytes and, if it names shards, one for each index, enough of them somewhere to read it.
fn check_place(place: &Place) -> Result<(), Refusal> {
    bound(place.len_bytes > 0, "a chunk has bytes")?;
    let Layout::Rs { data_count, parity_count, shards, .. } = &place.layout else { return Ok(()) };
    bound(place.len_bytes <= CHUNK_BYTES, "a chunk of shards has at most 32 MiB")?;
    let shard_count = data_count.checked_add(*parity_count).map(usize::from);
    let there_count = shards.iter().filter_map(id).count();
    bound(
        *data_count > 0 && shard_count == Some(shards.len()),
        "a chunk has as many shards as its layout, at most 255",
    )?;
    bound(there_count >= usize::from(*data_count), "as many shards as it takes to read a chunk are somewhere")
}

/// The name of a shard that is somewhere.
fn id((_, shard): &(NodeId, ShardId)) -> Option<Ino> {
    (shard.0 != 0).then_some(Ino(shard.0))
}

/// A new chunk's id and those of its shards.
fn ids(chunk: &NewChunk) -> impl Iterator<Item = Ino> {
    [chunk.id].into_iter().chain(chunk.place.layout.shards().iter().filter_map(id))
}

fn check_distinct(mut ids: Vec<Ino>) -> Result<(), Refusal> {
    ids.sort_unstable();
    bound(ids.windows(2).all(|pair| pair[0] != pair[1]), "a command names an id once")
}

/// The shards of `layout` that `other` does not have at the same index; the rest is nowhere.
fn beside(layout: &Layout, other: &Layout) -> Vec<(NodeId, ShardId)> {
    let one = |(index, shard): (usize, &(NodeId, ShardId))| {
        let is_kept = other.shards().get(index) == Some(shard);
        if is_kept { (shard.0, ShardId(0)) } else { *shard }
    };
    layout.shards().iter().enumerate().map(one).collect()
}

/// What a swap leaves behind: all of a file, or the shards that `to` does not name. None: nothing.
fn removed(from: &Place, to: &Place) -> Option<Layout> {
    let mut layout = from.layout.clone();
    if let Layout::Rs { shards, .. } = &mut layout {
        *shards = beside(&from.layout, &to.layout);
        shards.iter().find_map(id)?;
    }
    Some(layout)
}
