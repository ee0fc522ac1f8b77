//! The witness: a small file beside the log that remembers how far the log was synced.
//!
//! ```text
//! file    | slot 0, 512 bytes | zeros to 4096 | slot 1, 512 bytes | zeros to 4096 |
//! slot    | a stamp "PREDAWIT" with the slot's generation, see [`super::stamp`] |
//! ```
//!
//! The newest valid slot (greatest generation) counts. Invariant: **the slot that is being written is never the only
//! one**: slots change roles only after a sync, so at any time the other slot is valid and synced. Each lies in a block
//! of its own, so that a torn write of one cannot harm the other.

use super::disk::DiskFile;
use super::format::{BLOCK_LEN, Tip};
use super::stamp::{SLOT, Stamp};
use std::io;
use std::sync::Arc;

/// The witness's file name.
pub(super) const NAME: &str = "witness";
/// Its name until it is whole.
pub(super) const TEMPORARY_NAME: &str = "witness.new";

const FILE_LEN: usize = 2 * BLOCK_LEN;

/// The newest valid slot of a witness file and which one it is, if there is any.
pub(super) fn decode(bytes: &[u8]) -> Option<(usize, Stamp)> {
    let slots = bytes.chunks(BLOCK_LEN).take(2).enumerate();
    slots.filter_map(|(at, bytes)| Some((at, Stamp::decode(&SLOT, bytes).ok()?))).max_by_key(|(_, slot)| slot.number)
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
    pub(super) fn resume(file: Arc<dyn DiskFile>, newest: usize, found: &Stamp) -> Witness {
        Witness { file, log_id: found.log_id, generation: found.number, slot: 1 - newest, dirty: false }
    }

    /// Notes that the log is synced up to `tip`; not durable before [`Witness::sync`].
    pub(super) fn raise(&mut self, tip: &Tip) -> io::Result<()> {
        self.generation += 1;
        let slot = Stamp { log_id: self.log_id, number: self.generation, tip: tip.clone() };
        self.dirty = true;
        self.file.write_at((self.slot * BLOCK_LEN) as u64, &slot.encode(&SLOT))
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
        let slot = Stamp { log_id: 0xAABB, number: 2, tip };
        let bytes = slot.encode(&SLOT);
        let hex: String = bytes[..72].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "505245444157495401000000f4d6f64abbaa0000000000000200000000000000",
                "0700000000000000050000000000000009000000000000000403020104000000",
                "6d61726b00000000"
            )
        );
        assert!(bytes[72..].iter().all(|byte| *byte == 0) && bytes.len() == SLOT.len);
        assert_eq!(decode(&bytes).unwrap(), (0, slot));
    }
}
