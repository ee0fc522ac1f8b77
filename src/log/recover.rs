//! Opening: reads what is in the directory, and judges it. Changes nothing.
//!
//! A file is scanned batch by batch until one is not whole. Then
//! - a later batch, in this file or a later one, proves that the missing one was synced: a hole, refused;
//! - a witness past it proves the same: [`Health::BehindWitness`];
//! - otherwise nothing says that it was ever synced, hence acknowledged: a torn tail, left out.

use super::disk::{Disk, DiskFile};
use super::files::{Files, name_of};
use super::format::{Entry, Kind, Scan, Stop, Tip};
use super::salvage::sequences;
use super::stamp::{FILE, Stamp};
use super::view::{Place, Places};
use super::witness;
use super::{Error, Health};
use std::sync::Arc;

/// The witness as found.
pub(super) enum FoundWitness {
    /// There never was one.
    Missing,
    /// There is a file, but no valid slot in it.
    Damaged,
    /// `newest`: which slot counts.
    Valid { file: Arc<dyn DiskFile>, newest: usize, slot: Stamp },
}

/// The log as found.
pub(super) struct Recovered {
    pub(super) log_id: u64,
    pub(super) witness: FoundWitness,
    pub(super) tip: Tip,
    /// The newest mark: the log's, unless only the witness has it.
    pub(super) mark: Vec<u8>,
    pub(super) places: Places,
    pub(super) files: Files,
    /// Where the next batch goes in the last file, if there is one.
    pub(super) position: usize,
    pub(super) cut_tail_bytes: u64,
    /// The number in the last file's name; 0: there is no file.
    pub(super) last_sequence: u32,
    /// Records that cannot be read.
    pub(super) damaged_records: u64,
    pub(super) health: Health,
}

/// Reads the whole log.
pub(super) fn recover(disk: &dyn Disk, names: &[String]) -> Result<Recovered, Error> {
    let witness = find_witness(disk, names)?;
    let replay = replay(disk, &sequences(names), &witness)?;
    judge(disk, replay, witness)
}

pub(super) fn find_witness(disk: &dyn Disk, names: &[String]) -> Result<FoundWitness, Error> {
    if !names.iter().any(|name| name == witness::NAME) {
        return Ok(FoundWitness::Missing);
    }
    let file = disk.open(witness::NAME).map_err(|source| Error::io("open the witness", source))?;
    let bytes = read_settled(file.as_ref()).map_err(|source| Error::io("read the witness", source))?;
    Ok(match witness::decode(&bytes) {
        Some((newest, slot)) => FoundWitness::Valid { file, newest, slot },
        None => FoundWitness::Damaged,
    })
}

/// The whole file, as it is on disk.
fn read_settled(file: &dyn DiskFile) -> std::io::Result<Vec<u8>> {
    file.settle()?;
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// What was read so far.
struct Replay {
    /// After the last file read; None before the first.
    log: Option<(u64, Tip)>,
    places: Places,
    files: Files,
    position: usize,
    cut_tail_bytes: u64,
    /// The batch count and chain that the witness saw, until the scan comes by.
    witnessed: Option<(u64, u32)>,
    /// The scan came by, and saw another chain.
    witness_differs: bool,
}

fn replay(disk: &dyn Disk, sequences: &[u32], witness: &FoundWitness) -> Result<Replay, Error> {
    let witnessed = match witness {
        FoundWitness::Valid { slot, .. } => Some((slot.tip.batch, slot.tip.chain)),
        FoundWitness::Missing | FoundWitness::Damaged => None,
    };
    let mut replay = Replay {
        log: None,
        places: Places::default(),
        files: Files::default(),
        position: 0,
        cut_tail_bytes: 0,
        witnessed,
        witness_differs: false,
    };
    for (at, sequence) in sequences.iter().enumerate() {
        if at > 0 && sequences[at - 1] + 1 != *sequence {
            return Err(Error::MissingFile { sequence: sequences[at - 1] + 1 });
        }
        replay.file(disk, *sequence, at + 1 == sequences.len())?;
    }
    Ok(replay)
}

impl Replay {
    fn file(&mut self, disk: &dyn Disk, sequence: u32, last: bool) -> Result<(), Error> {
        let file = disk.open(&name_of(sequence)).map_err(|source| Error::io("open a log file", source))?;
        let bytes = read_settled(file.as_ref()).map_err(|source| Error::io("read a log file", source))?;
        let header = Stamp::decode(&FILE, &bytes).map_err(|what| Error::corrupt(sequence, 0, what))?;
        self.check_header(&header, sequence)?;
        self.files.push(sequence, file, bytes.len());
        let log_id = header.log_id;
        let mut scan = Scan::new(&bytes, header);
        self.pass_witness(&scan.tip);
        let stop = self.batches(&mut scan, sequence);
        if stop == Stop::Broken {
            return Err(Error::corrupt(sequence, scan.offset as u32, "a batch does not follow from the one before"));
        }
        if last {
            self.judge_tail(&scan, sequence, stop)?;
        }
        self.position = scan.offset;
        self.log = Some((log_id, scan.tip));
        Ok(())
    }

    fn check_header(&mut self, header: &Stamp, sequence: u32) -> Result<(), Error> {
        if header.number != u64::from(sequence) {
            return Err(Error::corrupt(sequence, 0, "the header has another file's sequence number"));
        }
        let Some((log_id, tip)) = &self.log else {
            self.places = Places::starting_at(header.tip.next);
            return Ok(());
        };
        if header.log_id != *log_id {
            return Err(Error::Foreign { file: name_of(sequence), found: header.log_id, expected: *log_id });
        }
        if header.tip != *tip {
            let (file, offset) = (name_of(sequence - 1), self.position as u64);
            return Err(Error::Hole { file, offset, batch: tip.batch, proven_batch: header.tip.batch });
        }
        Ok(())
    }

    fn batches(&mut self, scan: &mut Scan<'_>, sequence: u32) -> Stop {
        loop {
            match scan.next_batch() {
                Ok(entries) => entries.iter().for_each(|entry| self.entry(entry, sequence)),
                Err(stop) => return stop,
            }
            self.pass_witness(&scan.tip);
        }
    }

    fn entry(&mut self, entry: &Entry, sequence: u32) {
        self.files.apply(entry.kind, entry.index);
        self.places.apply(entry.kind, entry.index);
        if entry.kind == Kind::Record {
            self.places.push(Place {
                file: sequence,
                offset: entry.offset as u32,
                payload_len: entry.payload.len() as u32,
                chain_before: entry.chain_before,
            });
        }
    }

    fn pass_witness(&mut self, tip: &Tip) {
        self.witness_differs |= self.witnessed.is_some_and(|(batch, chain)| batch == tip.batch && chain != tip.chain);
    }

    fn judge_tail(&mut self, scan: &Scan<'_>, sequence: u32, stop: Stop) -> Result<(), Error> {
        if let Some(proven_batch) = scan.later_batch() {
            let (file, offset) = (name_of(sequence), scan.offset as u64);
            return Err(Error::Hole { file, offset, batch: scan.tip.batch, proven_batch });
        }
        if let Stop::Torn { len_bytes } = stop {
            self.cut_tail_bytes = len_bytes;
        }
        Ok(())
    }
}

fn judge(disk: &dyn Disk, replay: Replay, witness: FoundWitness) -> Result<Recovered, Error> {
    let has_files = replay.files.count() > 0;
    let (log_id, tip) = whose(disk, replay.log, &witness)?;
    let places = if has_files { replay.places } else { Places::starting_at(tip.next) };
    if places.first() > tip.first {
        let sequence = replay.files.iter().next().map_or(0, |file| file.sequence.saturating_sub(1));
        return Err(Error::MissingFile { sequence });
    }
    let lost = |seen: &Tip| seen.batch > tip.batch || replay.witness_differs || (!has_files && seen.batch > 0);
    let (health, mark) = match &witness {
        FoundWitness::Valid { slot, .. } if lost(&slot.tip) => {
            (Health::BehindWitness { witnessed_next: slot.tip.next }, slot.tip.mark.clone())
        }
        FoundWitness::Damaged => (Health::WitnessLost, tip.mark.clone()),
        FoundWitness::Missing if has_files => (Health::WitnessLost, tip.mark.clone()),
        FoundWitness::Missing | FoundWitness::Valid { .. } => (Health::Whole, tip.mark.clone()),
    };
    let (files, position, cut_tail_bytes) = (replay.files, replay.position, replay.cut_tail_bytes);
    let last_sequence = files.current().map_or(0, |file| file.sequence);
    Ok(Recovered {
        log_id,
        witness,
        tip,
        mark,
        places,
        files,
        position,
        cut_tail_bytes,
        last_sequence,
        damaged_records: 0,
        health,
    })
}

/// The log's id and tip: by its files, else by its witness, else those of a new log.
fn whose(disk: &dyn Disk, log: Option<(u64, Tip)>, witness: &FoundWitness) -> Result<(u64, Tip), Error> {
    match (log, witness) {
        (Some((log_id, _)), FoundWitness::Valid { slot, .. }) if log_id != slot.log_id => {
            Err(Error::Foreign { file: witness::NAME.to_owned(), found: slot.log_id, expected: log_id })
        }
        (Some(log), _) => Ok(log),
        (None, FoundWitness::Valid { slot, .. }) => Ok((slot.log_id, nothing_left(slot))),
        (None, FoundWitness::Missing | FoundWitness::Damaged) => {
            let log_id = disk.fresh_id().map_err(|source| Error::io("draw a log id", source))?;
            Ok((log_id, Tip::new(log_id)))
        }
    }
}

/// The tip of a log of which only the witness is left.
fn nothing_left(slot: &Stamp) -> Tip {
    Tip { next: slot.tip.first, ..slot.tip.clone() }
}
