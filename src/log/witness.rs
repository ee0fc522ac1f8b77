//! The witness: a small file beside the log that remembers how far the log was synced.
//!
//! ```text
//! file    | slot 0, 512 bytes | zeros to 4096 | slot 1, 512 bytes | zeros to 4096 |
//! slot      0 magic "PREDAWIT"   8 version u32   12 crc u32 (over 16..512)   16 log id u64
//!          24 generation u64    32 batch u64     40 first u64                48 next u64
//!          56 chain u32         60 mark len u32  64 mark 64 bytes           128 zeros to 512
//! ```
//!
//! The newest valid slot (greatest generation) counts. Invariant: **the slot that is being written is never the only
//! one**: slots change roles only after a sync, so at any time the other slot is valid and synced. Each lies in a block
//! of its own, so that a torn write of one cannot harm the other.

use super::disk::DiskFile;
use super::format::{BLOCK_LEN, MARK_MAX_LEN, Tip, crc32c, put, u32_at, u64_at};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The witness's file name.
pub(super) const NAME: &str = "witness";
/// Its name until it is whole.
pub(super) const TEMPORARY_NAME: &str = "witness.new";

const SLOT_LEN: usize = 512;
const FILE_LEN: usize = 2 * BLOCK_LEN;
const MAGIC: &[u8; 8] = b"PREDAWIT";
const VERSION: u32 = 1;
const MARK_AT: usize = 64;
const CRC_RANGE: Range<usize> = 16..SLOT_LEN;

/// What a slot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) log_id: u64,
    pub(super) generation: u64,
    /// The log up to here was synced.
    pub(super) tip: Tip,
}

impl Slot {
    fn encode(&self) -> Vec<u8> {
        let mut slot = vec![0; SLOT_LEN];
        put(&mut slot, 0, MAGIC);
        put(&mut slot, 8, &VERSION.to_le_bytes());
        put(&mut slot, 16, &self.log_id.to_le_bytes());
        put(&mut slot, 24, &self.generation.to_le_bytes());
        put(&mut slot, 32, &self.tip.batch.to_le_bytes());
        put(&mut slot, 40, &self.tip.first.to_le_bytes());
        put(&mut slot, 48, &self.tip.next.to_le_bytes());
        put(&mut slot, 56, &self.tip.chain.to_le_bytes());
        put(&mut slot, 60, &(self.tip.mark.len() as u32).to_le_bytes());
        put(&mut slot, MARK_AT, &self.tip.mark);
        let crc = crc32c(!0, &[&slot[CRC_RANGE]]);
        put(&mut slot, 12, &crc.to_le_bytes());
        slot
    }

    /// None if the bytes are not a whole slot of a version we know.
    fn decode(bytes: &[u8]) -> Option<Slot> {
        let known = bytes.len() >= SLOT_LEN && &bytes[..8] == MAGIC && u32_at(bytes, 8) == VERSION;
        if !known || u32_at(bytes, 12) != crc32c(!0, &[&bytes[CRC_RANGE]]) {
            return None;
        }
        let mark_len = Some(u32_at(bytes, 60) as usize).filter(|len| *len <= MARK_MAX_LEN)?;
        let tip = Tip {
            batch: u64_at(bytes, 32),
            chain: u32_at(bytes, 56),
            first: u64_at(bytes, 40),
            next: u64_at(bytes, 48),
            mark: bytes[MARK_AT..MARK_AT + mark_len].to_vec(),
        };
        Some(Slot { log_id: u64_at(bytes, 16), generation: u64_at(bytes, 24), tip })
    }
}

/// The newest valid slot of a witness file and which one it is, if there is any.
pub(super) fn decode(bytes: &[u8]) -> Option<(usize, Slot)> {
    let slots = bytes.chunks(BLOCK_LEN).take(2).enumerate();
    slots.filter_map(|(at, bytes)| Some((at, Slot::decode(bytes)?))).max_by_key(|(_, slot)| slot.generation)
}

/// The open witness.
pub(super) struct Witness {
    file: Arc<dyn DiskFile>,
    log_id: u64,
    generation: u64,
    /// Which slot is written next; the other one is valid and synced.
    slot: usize,
    dirty: bool,
}

impl Witness {
    /// A new witness of a log that stands at `tip`: both slots written and synced. Renaming it is the caller's.
    pub(super) fn create(file: Arc<dyn DiskFile>, log_id: u64, tip: &Tip) -> io::Result<Witness> {
        file.write_at(0, &vec![0; FILE_LEN])?;
        let mut witness = Witness { file, log_id, generation: 0, slot: 0, dirty: false };
        witness.commit(tip)?;
        Ok(witness)
    }

    /// Goes on from what [`decode`] found in a settled `file`.
    pub(super) fn resume(file: Arc<dyn DiskFile>, newest: usize, found: &Slot) -> Witness {
        Witness { file, log_id: found.log_id, generation: found.generation, slot: 1 - newest, dirty: false }
    }

    /// Notes that the log is synced up to `tip`; not durable before [`Witness::sync`].
    pub(super) fn raise(&mut self, tip: &Tip) -> io::Result<()> {
        self.generation += 1;
        let slot = Slot { log_id: self.log_id, generation: self.generation, tip: tip.clone() };
        self.dirty = true;
        self.file.write_at((self.slot * BLOCK_LEN) as u64, &slot.encode())
    }

    /// Makes the last raise durable and lets the slots change roles. Free if there is nothing to do.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.sync()?;
            self.dirty = false;
            self.slot = 1 - self.slot;
        }
        Ok(())
    }

    /// Whether a raise waits for its sync.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Writes `tip`, higher or lower, to both slots, one after the other, each synced.
    pub(super) fn commit(&mut self, tip: &Tip) -> io::Result<()> {
        for _ in 0..2 {
            self.raise(tip)?;
            self.sync()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod golden {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_slot_has_these_bytes() {
        let tip = Tip { batch: 7, chain: 0x0102_0304, first: 5, next: 9, mark: b"mark".to_vec() };
        let slot = Slot { log_id: 0xAABB, generation: 2, tip };
        let bytes = slot.encode();
        let hex: String = bytes[..72].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "505245444157495401000000f4d6f64abbaa0000000000000200000000000000",
                "0700000000000000050000000000000009000000000000000403020104000000",
                "6d61726b00000000"
            )
        );
        assert!(bytes[72..].iter().all(|byte| *byte == 0) && bytes.len() == SLOT_LEN);
        assert_eq!(decode(&bytes).unwrap(), (0, slot));
    }
}
