//! Opening a log whose files its owner keeps: it knows by itself where the records before an index lie, punches and removes
//! files, and can do without what is damaged.
//!
//! Invariants
//! - Damage is no reason not to open: what lies behind it is found all the same. A record that is damaged, or whose place is
//!   not known any more, has an index still; reading it is an error.
//! - Indices that a full disk left unused are no damage: no batch is missing where they are.
//! - Writing goes on in a fresh file, so that nothing is ever written behind bytes that nobody understood.
//! - A batch that is torn was never acknowledged; what of it can be read counts all the same. So an owner must be able to
//!   live with a record that was never acknowledged, in whatever company.

use super::Error;
use super::Health;
use super::disk::{Disk, is_unreadable};
use super::files::{Files, name_of};
use super::format::{BLOCK_LEN, Tip};
use super::recover::{FoundWitness, Recovered, find_witness};
use super::salvage::{Found, FoundBatch, Salvage, Stamped, log_id, made_up, open_stamped, sequences};
use super::view::{Place, Places};

/// Reads what lies behind record `from`. Changes nothing.
pub(super) fn recover(disk: &dyn Disk, names: &[String], from: u64) -> Result<Recovered, Error> {
    let witness = witness_or_none(disk, names)?;
    let sequences = sequences(names);
    let mut reading = Reading::new(from, &witness, log_id_of(disk, names, &witness)?);
    for sequence in start(disk, &sequences, from)? {
        reading.file(disk, sequence)?;
    }
    reading.conclude(disk, sequences.last().copied().unwrap_or(0), witness)
}

/// A witness that the disk cannot read is as good as none.
fn witness_or_none(disk: &dyn Disk, names: &[String]) -> Result<FoundWitness, Error> {
    match find_witness(disk, names) {
        Err(Error::Io { source, .. }) if is_unreadable(&source) => Ok(FoundWitness::Damaged),
        found => found,
    }
}

fn log_id_of(disk: &dyn Disk, names: &[String], witness: &FoundWitness) -> Result<Option<u64>, Error> {
    match witness {
        FoundWitness::Valid { slot, .. } => Ok(Some(slot.log_id)),
        FoundWitness::Missing | FoundWitness::Damaged => log_id(disk, names),
    }
}

/// The files from the last one that begins at or before record `from`.
fn start(disk: &dyn Disk, sequences: &[u32], from: u64) -> Result<Vec<u32>, Error> {
    let mut wanted = Vec::new();
    for sequence in sequences.iter().rev() {
        wanted.push(*sequence);
        let stamp = open_stamped(disk, *sequence)?.and_then(|file| file.stamp);
        if stamp.is_some_and(|stamp| stamp.tip.next <= from) {
            break;
        }
    }
    wanted.reverse();
    Ok(wanted)
}

struct Reading {
    from: u64,
    /// Batches below this number were synced.
    witnessed: u64,
    log_id: Option<u64>,
    tip: Tip,
    /// All batches before the tip's are known, each with all its records.
    sure: bool,
    places: Places,
    damaged: u64,
    /// Records of the last batch that cannot be read: it may have been torn.
    torn: u64,
    /// Where the last file's last batch ends.
    position: usize,
}

impl Reading {
    fn new(from: u64, witness: &FoundWitness, log_id: Option<u64>) -> Self {
        let witnessed = match witness {
            FoundWitness::Valid { slot, .. } => slot.tip.batch,
            FoundWitness::Missing | FoundWitness::Damaged => 0,
        };
        let (tip, places) = (Tip { first: from, next: from, ..Tip::default() }, Places::starting_at(from));
        Reading { from, witnessed, log_id, tip, sure: false, places, damaged: 0, torn: 0, position: 0 }
    }

    fn file(&mut self, disk: &dyn Disk, sequence: u32) -> Result<(), Error> {
        let (Some(Stamped { file, len, stamp }), Some(log_id)) = (open_stamped(disk, sequence)?, self.log_id) else {
            (self.damaged, self.sure) = (self.damaged + 1, false);
            return Ok(());
        };
        if let Some(found) = stamp.as_ref().map(|stamp| stamp.log_id).filter(|found| *found != log_id) {
            return Err(Error::Foreign { file: name_of(sequence), found, expected: log_id });
        }
        self.position = BLOCK_LEN;
        if let Some(stamp) = &stamp {
            self.stamp(&stamp.tip);
        }
        let (has_stamp, before) = (stamp.is_some(), self.tip.batch);
        let stamp = stamp.unwrap_or_else(|| made_up(log_id, sequence, &self.tip));
        let mut salvage = Salvage::new(file.as_ref(), len, stamp);
        while let Some(batch) = salvage.next_batch()? {
            self.batch(batch);
        }
        if !has_stamp {
            // Whether this was all of it, only what follows can tell.
            (self.damaged, self.position) = (self.damaged + u64::from(self.tip.batch == before), len as usize);
        }
        Ok(())
    }

    fn stamp(&mut self, stamp: &Tip) {
        self.reach(stamp.batch, stamp.next);
        let Tip { batch, chain, mark, .. } = stamp;
        (self.tip.batch, self.tip.chain, self.tip.mark) = (self.tip.batch.max(*batch), *chain, mark.clone());
        self.sure = true;
    }

    fn batch(&mut self, batch: FoundBatch) {
        // A later batch proves that what seemed torn was synced.
        self.damaged += std::mem::take(&mut self.torn);
        // What lies before `from` may be punched: that is no damage.
        let lost = batch.records.iter().filter(|record| record.payload.is_none() && record.index >= self.from).count();
        match batch.batch < self.witnessed {
            true => self.damaged += lost as u64,
            false => self.torn = lost as u64,
        }
        self.reach(batch.batch, batch.first);
        batch.records.iter().for_each(|record| self.note(record));
        self.follow(batch.next);
        (self.tip.batch, self.tip.chain, self.sure) = (batch.batch + 1, batch.chain, batch.whole);
        self.position = batch.end_offset as usize;
    }

    /// Goes on to where the next batch has number `batch` and the next record index `next`. What is missing on the way was
    /// left out if no batch is missing, else it is damaged.
    fn reach(&mut self, batch: u64, next: u64) {
        while self.sure && batch == self.tip.batch && self.tip.next < next {
            self.push(Place::NOWHERE);
        }
        self.follow(next);
    }

    /// Goes on to record `next`; what was not found on the way is nowhere.
    fn follow(&mut self, next: u64) {
        while self.tip.next < next {
            self.damaged += 1;
            self.push(Place::NOWHERE);
        }
    }

    fn note(&mut self, record: &Found) {
        self.follow(record.index);
        if record.index == self.tip.next {
            // What cannot be read is nowhere: whoever names it must not take it for bytes that are there.
            self.push(if record.payload.is_some() { record.place } else { Place::NOWHERE });
        }
    }

    fn push(&mut self, place: Place) {
        self.places.push(place);
        self.tip.next += 1;
    }

    fn conclude(mut self, disk: &dyn Disk, last: u32, witness: FoundWitness) -> Result<Recovered, Error> {
        if let FoundWitness::Valid { slot, .. } = &witness {
            self.follow(slot.tip.next);
        }
        let health = match &witness {
            FoundWitness::Valid { slot, .. } if slot.tip.batch > self.tip.batch => {
                self.tip.batch = slot.tip.batch;
                Health::BehindWitness { witnessed_next: slot.tip.next }
            }
            FoundWitness::Damaged => Health::WitnessLost,
            FoundWitness::Missing if self.log_id.is_some() => Health::WitnessLost,
            FoundWitness::Missing | FoundWitness::Valid { .. } => Health::Whole,
        };
        let log_id = match self.log_id {
            Some(log_id) => log_id,
            None => disk.fresh_id().map_err(|source| Error::io("draw a log id", source))?,
        };
        Ok(Recovered {
            log_id,
            witness,
            mark: self.tip.mark.clone(),
            tip: self.tip,
            places: self.places,
            files: Files::default(),
            last_sequence: last,
            position: self.position,
            cut_tail_bytes: 0,
            damaged_records: self.damaged,
            health,
        })
    }
}

/// Reads every record of every file, oldest first: for an owner that has lost its knowledge of them. Blocking.
///
/// `visit`: index, place, and the payload; no payload: punched or damaged.
///
/// # Errors
/// `Io`. Damage is none.
pub(super) fn survey(disk: &dyn Disk, mut visit: impl FnMut(u64, &Place, Option<&[u8]>)) -> Result<(), Error> {
    let names = disk.list().map_err(|source| Error::io("list the log's directory", source))?;
    let log_id = log_id_of(disk, &names, &witness_or_none(disk, &names)?)?;
    for sequence in sequences(&names) {
        let Some(Stamped { file, len, stamp }) = open_stamped(disk, sequence)? else { continue };
        let stamp = stamp.or_else(|| Some(made_up(log_id?, sequence, &Tip::default())));
        let Some(stamp) = stamp else { continue };
        let mut salvage = Salvage::new(file.as_ref(), len, stamp);
        while let Some(batch) = salvage.next_batch()? {
            batch.records.iter().for_each(|record| visit(record.index, &record.place, record.payload.as_deref()));
        }
    }
    Ok(())
}
