//! Reading log files of which parts may be damaged, or punched by their owner.
//!
//! A batch is found by its header alone, which says how many records came before it; its entries are walked by their
//! lengths and verified one by one, each seeded with the checksum that the one before *carries*: so a record whose payload
//! is gone hides no other. What cannot be walked is passed over, up to the next header of a later batch. What the disk
//! cannot read is damaged, block by block. Where it is a file's stamp, another is made up from the log's id and the file's
//! name, which is all that the batches' headers are verified with.

use super::Error;
use super::disk::{Disk, DiskFile, is_unreadable};
use super::files::{name_of, sequence_of};
use super::format::{
    BATCH_HEADER_LEN, BLOCK_LEN, BatchHeader, ENTRY_HEADER_LEN, Kind, Tip, align, decode_entry, u32_at,
};
use super::stamp::{FILE, Stamp};
use super::view::Place;
use std::sync::Arc;

/// A record that was found.
pub(super) struct Found {
    pub(super) index: u64,
    pub(super) place: Place,
    /// None: its bytes are not what was written.
    pub(super) payload: Option<Vec<u8>>,
}

/// A batch that was found.
pub(super) struct FoundBatch {
    pub(super) batch: u64,
    /// Index of the record after those before it.
    pub(super) first: u64,
    /// Index of the record after it.
    pub(super) next: u64,
    /// Its last checksum, as it carries it.
    pub(super) chain: u32,
    /// No record of it was missed, though some may be damaged.
    pub(super) whole: bool,
    pub(super) records: Vec<Found>,
    /// Where it ends in its file.
    pub(super) end_offset: u64,
}

/// The batches of one file in order, as far as they can be found.
pub(super) struct Salvage<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    stamp: Stamp,
    offset: u64,
    /// The least number that the next batch has.
    batch: u64,
}

impl<'a> Salvage<'a> {
    /// `stamp`: of `file`, whose length is `len` bytes.
    pub(super) fn new(file: &'a dyn DiskFile, len: u64, stamp: Stamp) -> Self {
        Salvage { file, len, offset: BLOCK_LEN as u64, batch: stamp.tip.batch, stamp }
    }

    /// The next batch. None: there is none up to the end of the file.
    pub(super) fn next_batch(&mut self) -> Result<Option<FoundBatch>, Error> {
        let mut head = [0; BATCH_HEADER_LEN];
        while self.offset + BATCH_HEADER_LEN as u64 <= self.len {
            read_what_is_left(self.file, self.offset, &mut head)?;
            let header = BatchHeader::decode(&head, 0, self.stamp.log_id, self.stamp.number);
            let fits = |header: &BatchHeader| {
                header.batch >= self.batch
                    && header.batch < u64::MAX
                    && self.offset + (BATCH_HEADER_LEN + header.body_len) as u64 <= self.len
            };
            let Some(header) = header.filter(fits) else {
                self.offset += BLOCK_LEN as u64;
                continue;
            };
            let mut body = vec![0; header.body_len];
            read_what_is_left(self.file, self.offset + BATCH_HEADER_LEN as u64, &mut body)?;
            let found = self.walk(&header, &body);
            self.batch = header.batch + 1;
            self.offset = found.end_offset;
            return Ok(Some(found));
        }
        Ok(None)
    }

    fn walk(&self, header: &BatchHeader, body: &[u8]) -> FoundBatch {
        let mut found = FoundBatch {
            batch: header.batch,
            first: header.next,
            next: header.next,
            chain: header.chain,
            whole: true,
            records: Vec::new(),
            end_offset: self.offset + align(BATCH_HEADER_LEN + header.body_len) as u64,
        };
        let mut at = 0;
        for _ in 0..header.entry_count {
            let end = at + ENTRY_HEADER_LEN;
            let payload_len = body.get(at..end).map(|entry| u32_at(entry, 8) as usize);
            let Some(payload_len) = payload_len.filter(|len| end + len <= body.len()) else {
                break;
            };
            let entry = decode_entry(body, at, end + payload_len, found.chain);
            // A damaged kind may hide a record: the next that verifies says its index.
            found.whole &= entry.is_some() || u32_at(body, at + 4) == Kind::Record as u32;
            if let Some(entry) = entry.as_ref().filter(|entry| entry.kind == Kind::Record) {
                found.next = entry.index;
            }
            if u32_at(body, at + 4) == Kind::Record as u32 {
                let place = Place {
                    file: self.stamp.number as u32,
                    offset: (self.offset as usize + BATCH_HEADER_LEN + at) as u32,
                    payload_len: payload_len as u32,
                    chain_before: found.chain,
                };
                let payload = entry.map(|entry| body[entry.payload].to_vec());
                found.records.push(Found { index: found.next, place, payload });
                found.next += 1;
            }
            found.chain = u32_at(body, at);
            at = end + payload_len;
        }
        found.whole &= at == body.len();
        found
    }
}

/// The log files in a directory, oldest first.
pub(super) fn sequences(names: &[String]) -> Vec<u32> {
    let mut sequences: Vec<u32> = names.iter().filter_map(|name| sequence_of(name)).collect();
    sequences.sort_unstable();
    sequences
}

/// An open log file.
pub(super) struct Stamped {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) len: u64,
    /// None: its first block is no stamp, or another file's.
    pub(super) stamp: Option<Stamp>,
}

/// Opens a log file and reads its stamp. None: the disk cannot even open it.
pub(super) fn open_stamped(disk: &dyn Disk, sequence: u32) -> Result<Option<Stamped>, Error> {
    let file = match disk.open(&name_of(sequence)) {
        Err(error) if is_unreadable(&error) => return Ok(None),
        opened => opened.map_err(|source| Error::io("open a log file", source))?,
    };
    let read = |source| Error::io("read a log file", source);
    // A disk that has failed says so once, of what was written before: what counts is what it reads now.
    file.settle().or_else(|_| file.settle()).map_err(read)?;
    let len = file.len().map_err(read)?;
    let mut block = vec![0; BLOCK_LEN.min(len as usize)];
    read_what_is_left(file.as_ref(), 0, &mut block)?;
    let stamp = Stamp::decode(&FILE, &block).ok().filter(|stamp| stamp.number == u64::from(sequence));
    Ok(Some(Stamped { file, len, stamp }))
}

/// What stands in for the stamp of a file that has lost it. `tip`: where the files before end, as far as it is known.
pub(super) fn made_up(log_id: u64, sequence: u32, tip: &Tip) -> Stamp {
    Stamp { log_id, number: u64::from(sequence), tip: tip.clone() }
}

/// The id of the log, from the first file that can tell.
pub(super) fn log_id(disk: &dyn Disk, names: &[String]) -> Result<Option<u64>, Error> {
    for sequence in sequences(names) {
        if let Some(Stamped { stamp: Some(stamp), .. }) = open_stamped(disk, sequence)? {
            return Ok(Some(stamp.log_id));
        }
    }
    Ok(None)
}

/// Fills `buffer` from `offset`. Zeros stand for blocks that the disk cannot read.
fn read_what_is_left(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
    let read = |source| Error::io("read a log file", source);
    match file.read_at(offset, buffer) {
        Err(error) if is_unreadable(&error) => {}
        result => return result.map_err(read),
    }
    let mut start = 0;
    while start < buffer.len() {
        let at = offset + start as u64;
        let end = buffer.len().min(start + BLOCK_LEN - (at % BLOCK_LEN as u64) as usize);
        match file.read_at(at, &mut buffer[start..end]) {
            Err(error) if is_unreadable(&error) => buffer[start..end].fill(0),
            result => result.map_err(read)?,
        }
        start = end;
    }
    Ok(())
}
