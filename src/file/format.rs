//! A chunk file, format 1: data first, then a trailer, in one file, so that bytes and checksums cannot be parted.
//!
//! ```text
//! 0                data             len_bytes, as written
//! len_bytes        table            for each 64 KiB segment of the data (the last may be shorter):
//!                                   CRC32C of it, u32 LE
//! len_bytes + 4n   footer           40 bytes, all integers little-endian
//!     +0   8       magic            "PDCHUNK\0"
//!     +8   2       version          1
//!     +10  2       segment_shift    16: segments are 1 << 16 bytes
//!     +12  4       reserved         0
//!     +16  8       chunk            the chunk's id
//!     +24  8       len_bytes        of the data
//!     +32  4       table_crc        CRC32C of the table
//!     +36  4       footer_crc       CRC32C of the footer's bytes 0..36
//! ```
//!
//! Invariants
//! - The file's length is exactly data + table + footer: whatever is cut off or appended is seen.
//! - Every byte is under a checksum: data by its segment's, the table and the footer by their own.

use crate::ids::Ino;
use crate::units::SEGMENT_BYTES;

pub(super) const FOOTER_BYTES: u64 = 40;
const MAGIC: [u8; 8] = *b"PDCHUNK\0";
const VERSION: u16 = 1;
const SEGMENT_SHIFT: u16 = SEGMENT_BYTES.trailing_zeros() as u16;
const CRC_BYTES: u64 = 4;

/// The last bytes of a chunk file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Footer {
    pub(super) chunk: Ino,
    pub(super) len_bytes: u64,
    pub(super) table_crc: u32,
}

/// CRC32C, as everywhere in this format.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Where the table's entry of segment `index` begins in a file with `len_bytes` of data.
pub(super) fn table_offset(len_bytes: u64, index: u64) -> u64 {
    len_bytes + index * CRC_BYTES
}

/// Length of the table over `len_bytes` of data.
pub(super) fn table_bytes(len_bytes: u64) -> u64 {
    len_bytes.div_ceil(SEGMENT_BYTES) * CRC_BYTES
}

/// Length of the whole file; none if no file is that long.
pub(super) fn file_bytes(len_bytes: u64) -> Option<u64> {
    len_bytes.checked_add(table_bytes(len_bytes))?.checked_add(FOOTER_BYTES)
}

/// Table entries, as they stand in the file.
pub(super) fn decode_table(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|entry| u32::from_le_bytes(*entry))
}

impl Footer {
    pub(super) fn encode(&self) -> [u8; FOOTER_BYTES as usize] {
        let mut bytes = [0; FOOTER_BYTES as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10..12].copy_from_slice(&SEGMENT_SHIFT.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.chunk.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.len_bytes.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.table_crc.to_le_bytes());
        let crc = crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The inverse of [`Footer::encode`]; an error says what is wrong.
    pub(super) fn decode(bytes: &[u8; FOOTER_BYTES as usize]) -> Result<Self, &'static str> {
        if crc32c(&bytes[..36]).to_le_bytes() != bytes[36..] {
            return Err("the footer's checksum does not match");
        }
        if bytes[..8] != MAGIC {
            return Err("no chunk file");
        }
        if bytes[8..10] != VERSION.to_le_bytes()
            || bytes[10..12] != SEGMENT_SHIFT.to_le_bytes()
            || bytes[12..16] != [0; 4]
        {
            return Err("an unknown format");
        }
        Ok(Footer { chunk: Ino(u64_at(bytes, 16)), len_bytes: u64_at(bytes, 24), table_crc: u64_at(bytes, 32) as u32 })
    }
}

fn u64_at(bytes: &[u8; FOOTER_BYTES as usize], offset: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn golden_footer() {
        let footer = Footer { chunk: Ino::new(1, 77), len_bytes: 65_537, table_crc: 0x0102_0304 };
        let bytes = footer.encode();
        let hex: String = bytes[..36].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "50444348554e4b000100100000000000\
                         4d00000000000100\
                         0100010000000000\
                         04030201"
        );
        assert_eq!(Footer::decode(&bytes), Ok(footer));
    }

    #[test]
    fn lengths_follow_from_one_another() {
        for (len_bytes, segments) in [(0, 0), (1, 1), (65_536, 1), (65_537, 2)] {
            assert_eq!(file_bytes(len_bytes), Some(len_bytes + 4 * segments + 40));
        }
        assert_eq!(file_bytes(u64::MAX), None);
    }
}
