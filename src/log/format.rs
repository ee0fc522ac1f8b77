//! The bytes of a log file: pure encode and decode, no I/O.
//!
//! ```text
//! file    | header block 4096 | batch | batch | ... | pre-written space (zeros, or a former life) |
//!
//! header  | a stamp "PREDALOG" with the file's sequence number, see [`super::stamp`] |
//!
//! batch   | batch header 48 | entry | entry | ... | zeros to a multiple of 4096 |
//!           0 magic "PdB1"       4 crc u32 (over the log id and 8..48)         8 sequence u64
//!          16 batch u64         24 body len u32  28 entry count u32           32 next u64
//!          40 chain u32         44 zero u32
//!
//! entry     0 crc u32 (over 4..20 and the payload, seeded with the crc of the entry before)
//!           4 kind u32           8 payload len u32   12 index u64             20 payload
//! ```
//!
//! Little endian throughout. `batch`, `first`, `next`, `chain` and `mark` are the log's [`Tip`] just before the file or
//! the batch; in a batch header they say *what was synced before this batch was written*.
//!
//! Invariants:
//! - a batch begins on a 4096-byte boundary, so writing one never touches a block that holds an older one;
//! - batch numbers grow by one for the life of the log, and a batch is written only once the one before is synced: a
//!   valid header of a later batch proves that each earlier one was durable;
//! - a batch is valid as a whole or not at all;
//! - the header crc covers log id and file sequence, so bytes of a file's former life are never taken for new ones.

use super::stamp::{FILE, Stamp};
use crc_fast::{CrcAlgorithm, Digest};
use std::ops::Range;

/// Alignment of the file header and of every batch, bytes.
pub(super) const BLOCK_LEN: usize = 4096;
/// Longest mark, bytes.
pub const MARK_MAX_LEN: usize = 64;
/// Longest payload of one record, bytes.
pub const RECORD_MAX_LEN: usize = 16 << 20;
/// Length of a batch header, bytes.
pub(super) const BATCH_HEADER_LEN: usize = 48;
/// Length of an entry's header, bytes.
pub(super) const ENTRY_HEADER_LEN: usize = 20;

const BATCH_MAGIC: &[u8; 4] = b"PdB1";

/// CRC32C of `parts` one after the other, begun from the state `seed`.
pub(super) fn crc32c(seed: u32, parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(seed));
    parts.iter().for_each(|part| digest.update(part));
    // A CRC of 32 bits: the upper half is zero.
    digest.finalize() as u32
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// The next multiple of [`BLOCK_LEN`].
pub(super) fn align(len: usize) -> usize {
    len.next_multiple_of(BLOCK_LEN)
}

/// What an entry does to the log. Ordinals are on disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A record; its index is the log's next.
    Record = 1,
    /// Drops the records at and after the entry's index, which becomes the next.
    Truncate = 2,
    /// Forgets the records before the entry's index, which becomes the first.
    Purge = 3,
    /// Empties the log; the entry's index becomes first and next.
    Reset = 4,
    /// Replaces the mark by the payload.
    Mark = 5,
}

impl Kind {
    fn decode(ordinal: u32) -> Option<Kind> {
        [Kind::Record, Kind::Truncate, Kind::Purge, Kind::Reset, Kind::Mark]
            .into_iter()
            .find(|kind| *kind as u32 == ordinal)
    }
}

/// The state of a log between two batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tip {
    /// How many batches were written so far; the number of the next.
    pub(super) batch: u64,
    /// The crc of the last entry: what the next is chained to.
    pub(super) chain: u32,
    /// Index of the first record that is not purged.
    pub(super) first: u64,
    /// Index of the next record.
    pub(super) next: u64,
    pub(super) mark: Vec<u8>,
}

impl Tip {
    /// The tip of a log that was never written.
    pub(super) fn new(log_id: u64) -> Tip {
        Tip { chain: crc32c(!0, &[&log_id.to_le_bytes()]), ..Tip::default() }
    }

    /// Applies an entry; false, and no change, if it does not fit the state.
    pub(super) fn apply(&mut self, kind: Kind, index: u64, payload: &[u8]) -> bool {
        let in_range = (self.first..=self.next).contains(&index);
        match kind {
            Kind::Record if index == self.next && index < u64::MAX => self.next += 1,
            Kind::Truncate if in_range => self.next = index,
            Kind::Purge if in_range => self.first = index,
            Kind::Reset => (self.first, self.next) = (index, index),
            Kind::Mark if payload.len() <= MARK_MAX_LEN => self.mark = payload.to_vec(),
            _ => return false,
        }
        true
    }
}

/// Where one entry lies in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) index: u64,
    /// What the entry's crc was seeded with.
    pub(super) chain_before: u32,
    /// Of the entry's header, from the start of the file or buffer.
    pub(super) offset: usize,
    /// Of the payload, likewise.
    pub(super) payload: Range<usize>,
}

/// Appends one entry to `buffer`. `tip` is moved on past it; false, and no change, if the entry does not fit the tip.
pub(super) fn encode_entry(buffer: &mut Vec<u8>, tip: &mut Tip, kind: Kind, index: u64, payload: &[u8]) -> bool {
    if !tip.apply(kind, index, payload) {
        return false;
    }
    let at = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&(kind as u32).to_le_bytes());
    buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&index.to_le_bytes());
    buffer.extend_from_slice(payload);
    tip.chain = crc32c(tip.chain, &[&buffer[at + 4..]]);
    put(buffer, at, &tip.chain.to_le_bytes());
    true
}

/// Decodes and verifies the entry at `offset`, which must end by `end`. Does not look at its meaning.
pub(super) fn decode_entry(bytes: &[u8], offset: usize, end: usize, chain_before: u32) -> Option<Entry> {
    let payload_at = offset.checked_add(ENTRY_HEADER_LEN)?;
    if payload_at > end || end > bytes.len() {
        return None;
    }
    let payload = payload_at..payload_at.checked_add(u32_at(bytes, offset + 8) as usize)?;
    if payload.end > end || u32_at(bytes, offset) != crc32c(chain_before, &[&bytes[offset + 4..payload.end]]) {
        return None;
    }
    let kind = Kind::decode(u32_at(bytes, offset + 4))?;
    Some(Entry { kind, index: u64_at(bytes, offset + 12), chain_before, offset, payload })
}

/// What a batch header says.
pub(super) struct BatchHeader {
    pub(super) batch: u64,
    pub(super) body_len: usize,
    pub(super) entry_count: u32,
    pub(super) next: u64,
    pub(super) chain: u32,
}

fn batch_crc(log_id: u64, header: &[u8]) -> u32 {
    crc32c(!0, &[&log_id.to_le_bytes(), &header[8..BATCH_HEADER_LEN]])
}

impl BatchHeader {
    /// The batch header at `offset`, if there is a valid one of this log and this life of the file.
    pub(super) fn decode(bytes: &[u8], offset: usize, log_id: u64, sequence: u64) -> Option<BatchHeader> {
        let header = bytes.get(offset..offset.checked_add(BATCH_HEADER_LEN)?)?;
        let ours = &header[..4] == BATCH_MAGIC && u64_at(header, 8) == sequence;
        if !ours || u32_at(header, 4) != batch_crc(log_id, header) {
            return None;
        }
        Some(BatchHeader {
            batch: u64_at(header, 16),
            body_len: u32_at(header, 24) as usize,
            entry_count: u32_at(header, 28),
            next: u64_at(header, 32),
            chain: u32_at(header, 40),
        })
    }
}

/// Begins a batch: clears `buffer` and leaves room for the header.
pub(super) fn begin_batch(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(BATCH_HEADER_LEN, 0);
}

/// Ends a batch whose entries are in `buffer`: writes its header, pads it. `before`: the tip before its first entry.
pub(super) fn end_batch(buffer: &mut Vec<u8>, log_id: u64, sequence: u64, before: &Tip, entry_count: u32) {
    let body_len = (buffer.len() - BATCH_HEADER_LEN) as u32;
    put(buffer, 0, BATCH_MAGIC);
    put(buffer, 8, &sequence.to_le_bytes());
    put(buffer, 16, &before.batch.to_le_bytes());
    put(buffer, 24, &body_len.to_le_bytes());
    put(buffer, 28, &entry_count.to_le_bytes());
    put(buffer, 32, &before.next.to_le_bytes());
    put(buffer, 40, &before.chain.to_le_bytes());
    let crc = batch_crc(log_id, buffer);
    put(buffer, 4, &crc.to_le_bytes());
    buffer.resize(align(buffer.len()), 0);
}

/// Why a scan of a file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// There is no batch header here: unused space, or a header that was torn.
    End,
    /// The next batch's header is here, but not the whole of its body.
    Torn {
        /// Length of the batch, header and padding included.
        len_bytes: u64,
    },
    /// A valid header of the next batch does not follow from what was read before it.
    Broken,
}

/// Reads the batches of one file in order.
pub(super) struct Scan<'a> {
    bytes: &'a [u8],
    log_id: u64,
    sequence: u64,
    /// Where the next batch begins.
    pub(super) offset: usize,
    /// The log after the batches read so far.
    pub(super) tip: Tip,
}

impl<'a> Scan<'a> {
    /// `bytes`: the whole file that `header` was read from.
    pub(super) fn new(bytes: &'a [u8], header: Stamp) -> Scan<'a> {
        Scan { bytes, log_id: header.log_id, sequence: header.number, offset: BLOCK_LEN, tip: header.tip }
    }

    /// The next batch's entries, once all are verified. After an `Err` nothing has moved.
    pub(super) fn next_batch(&mut self) -> Result<Vec<Entry>, Stop> {
        let header = BatchHeader::decode(self.bytes, self.offset, self.log_id, self.sequence);
        let header = header.filter(|header| header.batch == self.tip.batch).ok_or(Stop::End)?;
        if (header.chain, header.next) != (self.tip.chain, self.tip.next) {
            return Err(Stop::Broken);
        }
        let body = self.offset + BATCH_HEADER_LEN;
        let len = align(BATCH_HEADER_LEN + header.body_len);
        let mut tip = self.tip.clone();
        let entries = decode_body(self.bytes, body..body + header.body_len, header.entry_count, &mut tip)
            .ok_or(Stop::Torn { len_bytes: len as u64 })?;
        // No log has that many; bytes may say so all the same.
        tip.batch = tip.batch.checked_add(1).ok_or(Stop::Broken)?;
        self.tip = tip;
        self.offset += len;
        Ok(entries)
    }

    /// The number of a batch that lies further on in this file and is later than the next expected one: proof that
    /// what is missing here was synced.
    pub(super) fn later_batch(&self) -> Option<u64> {
        (self.offset..self.bytes.len())
            .step_by(BLOCK_LEN)
            .filter_map(|offset| BatchHeader::decode(self.bytes, offset, self.log_id, self.sequence))
            .map(|header| header.batch)
            .find(|batch| *batch > self.tip.batch)
    }
}

fn decode_body(bytes: &[u8], body: Range<usize>, entry_count: u32, tip: &mut Tip) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut offset = body.start;
    for _ in 0..entry_count {
        let entry = decode_entry(bytes, offset, body.end, tip.chain)?;
        if !tip.apply(entry.kind, entry.index, &bytes[entry.payload.clone()]) {
            return None;
        }
        tip.chain = u32_at(bytes, offset);
        offset = entry.payload.end;
        entries.push(entry);
    }
    (offset == body.end).then_some(entries)
}

/// What [`decode_records`] found in a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Every record with its index, in the order written; later truncations are not applied.
    pub records: Vec<(u64, Range<usize>)>,
    /// Where the last whole batch ends, bytes.
    pub end_offset: usize,
    /// Why there is no more.
    pub stop: Stop,
}

/// Decodes the bytes of one log file, whatever they are. Never panics; ranges lie within `bytes`.
///
/// # Errors
/// The reason why the first block is not a file header.
pub fn decode_records(bytes: &[u8]) -> Result<Decoded, &'static str> {
    let mut scan = Scan::new(bytes, Stamp::decode(&FILE, bytes)?);
    let mut records = Vec::new();
    loop {
        match scan.next_batch() {
            Ok(entries) => records.extend(
                entries
                    .into_iter()
                    .filter(|entry| entry.kind == Kind::Record)
                    .map(|entry| (entry.index, entry.payload)),
            ),
            Err(stop) => {
                return Ok(Decoded { records, end_offset: scan.offset, stop });
            }
        }
    }
}

#[cfg(test)]
mod golden {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn tip() -> Tip {
        Tip { batch: 7, chain: 0x0102_0304, first: 5, next: 9, mark: b"mark".to_vec() }
    }

    /// CRC-32/ISCSI of "123456789", from the catalogue of CRCs.
    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(crc32c(!0, &[b"12345", b"6789"]), 0xE306_9283);
    }

    #[test]
    fn a_file_header_has_these_bytes() {
        let header = Stamp { log_id: 0xAABB, number: 3, tip: tip() };
        let bytes = header.encode(&FILE);
        assert_eq!(
            hex(&bytes[..72]),
            concat!(
                "50524544414c4f4701000000a9753976bbaa0000000000000300000000000000",
                "0700000000000000050000000000000009000000000000000403020104000000",
                "6d61726b00000000"
            )
        );
        assert!(bytes[72..].iter().all(|byte| *byte == 0) && bytes.len() == BLOCK_LEN);
        assert_eq!(Stamp::decode(&FILE, &bytes).unwrap(), header);
    }

    #[test]
    fn a_batch_has_these_bytes() {
        let (mut buffer, mut after) = (Vec::new(), tip());
        begin_batch(&mut buffer);
        assert!(encode_entry(&mut buffer, &mut after, Kind::Record, 9, b"record"));
        assert!(encode_entry(&mut buffer, &mut after, Kind::Truncate, 8, b""));
        assert!(!encode_entry(&mut buffer, &mut after, Kind::Record, 9, b"a gap"));
        end_batch(&mut buffer, 0xAABB, 3, &tip(), 2);
        assert_eq!(
            hex(&buffer[..94]),
            concat!(
                "50644231dcf56461030000000000000007000000000000002e00000002000000",
                "09000000000000000403020100000000f036dce4010000000600000009000000",
                "000000007265636f7264c737dbdc02000000000000000800000000000000"
            )
        );
        assert!(buffer[94..].iter().all(|byte| *byte == 0) && buffer.len() == BLOCK_LEN);

        let mut file = Stamp { log_id: 0xAABB, number: 3, tip: tip() }.encode(&FILE);
        file.extend_from_slice(&buffer);
        let decoded = decode_records(&file).unwrap();
        assert_eq!(decoded.records, [(9, BLOCK_LEN + 68..BLOCK_LEN + 74)]);
        assert_eq!((decoded.end_offset, decoded.stop), (file.len(), Stop::End));
    }

    #[test]
    fn a_batch_without_a_next_number_is_broken() {
        let tip = Tip { batch: u64::MAX, ..Tip::new(1) };
        let mut file = Stamp { log_id: 1, number: 1, tip: tip.clone() }.encode(&FILE);
        let mut batch = Vec::new();
        begin_batch(&mut batch);
        end_batch(&mut batch, 1, 1, &tip, 0);
        file.extend_from_slice(&batch);
        assert_eq!(decode_records(&file).unwrap().stop, Stop::Broken);
    }
}
