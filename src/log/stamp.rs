//! A stamp: the block that says which log it belongs to and how far that log was. A log file begins with one, and the
//! witness is made of two.
//!
//! ```text
//!  0 magic 8 bytes    8 version u32    12 crc u32 (from 16 up to where its form says)   16 log id u64
//! 24 number u64      32 batch u64     40 first u64    48 next u64    56 chain u32
//! 60 mark len u32    64 mark 64 bytes                                            128 zeros to its length
//! ```

use super::format::{BLOCK_LEN, MARK_MAX_LEN, Tip, crc32c, put, u32_at, u64_at};

const VERSION: u32 = 1;
const CRC_START: usize = 16;
const MARK_AT: usize = 64;

/// Where a stamp stands, and by what it is known.
pub(super) struct Form {
    magic: &'static [u8; 8],
    pub(super) len: usize,
    /// Where the bytes end that its checksum covers.
    crc_end: usize,
}

/// The first block of a log file; the number is the file's sequence number.
pub(super) const FILE: Form = Form { magic: b"PREDALOG", len: BLOCK_LEN, crc_end: 192 };
/// A slot of the witness; the number is its generation.
pub(super) const SLOT: Form = Form { magic: b"PREDAWIT", len: 512, crc_end: 512 };

/// What a stamp says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) log_id: u64,
    /// As its form says.
    pub(super) number: u64,
    /// How far the log was.
    pub(super) tip: Tip,
}

impl Stamp {
    /// `form.len` bytes.
    pub(super) fn encode(&self, form: &Form) -> Vec<u8> {
        let mut block = vec![0; form.len];
        put(&mut block, 0, form.magic);
        put(&mut block, 8, &VERSION.to_le_bytes());
        put(&mut block, 16, &self.log_id.to_le_bytes());
        put(&mut block, 24, &self.number.to_le_bytes());
        put(&mut block, 32, &self.tip.batch.to_le_bytes());
        put(&mut block, 40, &self.tip.first.to_le_bytes());
        put(&mut block, 48, &self.tip.next.to_le_bytes());
        put(&mut block, 56, &self.tip.chain.to_le_bytes());
        put(&mut block, 60, &(self.tip.mark.len() as u32).to_le_bytes());
        put(&mut block, MARK_AT, &self.tip.mark);
        let crc = crc32c(!0, &[&block[CRC_START..form.crc_end]]);
        put(&mut block, 12, &crc.to_le_bytes());
        block
    }

    /// The stamp at the start of `bytes`; a reason if there is none.
    pub(super) fn decode(form: &Form, bytes: &[u8]) -> Result<Stamp, &'static str> {
        if bytes.len() < form.len {
            return Err("there are too few bytes for a header");
        }
        if &bytes[..8] != form.magic {
            return Err("the header has no magic");
        }
        if u32_at(bytes, 8) != VERSION {
            return Err("the header has a version this program does not know");
        }
        if u32_at(bytes, 12) != crc32c(!0, &[&bytes[CRC_START..form.crc_end]]) {
            return Err("the header fails its checksum");
        }
        let mark_len = u32_at(bytes, 60) as usize;
        if mark_len > MARK_MAX_LEN {
            return Err("the header's mark is too long");
        }
        let tip = Tip {
            batch: u64_at(bytes, 32),
            chain: u32_at(bytes, 56),
            first: u64_at(bytes, 40),
            next: u64_at(bytes, 48),
            mark: bytes[MARK_AT..MARK_AT + mark_len].to_vec(),
        };
        Ok(Stamp { log_id: u64_at(bytes, 16), number: u64_at(bytes, 24), tip })
    }
}
