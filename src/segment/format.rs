//! The bytes of a frame, format 1: pure encode and decode.
//!
//! ```text
//! frame     | header 32 | payload |
//!
//! header      0 crc u32                CRC32C of all that follows: 4..32 and the payload
//!             4 magic "PdF1"           its last byte is the format
//!             8 chunk u64             16 stripe u32           20 shard_index u8
//!            21 kind u8               22 zero u16
//!            24 plain_len u32         of the segment's plaintext; 0 in a parity frame
//!            28 payload_len u32
//!
//! payload     kind 1, plain           the segment, sealed | tag 16 |
//!             kind 2, zstd            one zstd frame of the segment, sealed | tag 16 |
//!             kind 3, parity          Reed-Solomon over the stripe's data frames, headers included, each padded with
//!                                     zeros to the longest: so it is as long as that one
//!
//! seal        AES-256-GCM under the chunk's key; nonce: stripe u32, shard_index u8, zero 7;
//!             associated data: header 4..32
//! ```
//!
//! Little endian throughout.
//!
//! Invariants
//! - A frame is never longer than its segment plus [`OVERHEAD_BYTES`]: what does not shrink is not compressed.
//! - Checksum, place and lengths are verified without any key, of parity frames too; so scrub and repair need none.
//! - A frame says where it belongs, under its checksum and its seal: that of another chunk, stripe or shard is never
//!   taken for it, whatever a disk or a peer gives.
//! - The bytes of a frame are a function of what it was sealed from, and never sealed anew; parity and lost frames are
//!   functions of the stripe's other frames. So a repair gives back the very bytes that were lost.

use super::{Error, Place};
use crate::ids::Ino;
use crate::units::SEGMENT_BYTES;

/// Length of a frame's header, bytes.
pub const HEADER_BYTES: usize = 32;
/// Length of the seal's tag, bytes.
pub const TAG_BYTES: usize = 16;
/// What a data frame has beyond its segment, at most, bytes.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// The longest data frame, bytes.
pub const DATA_FRAME_MAX_BYTES: usize = SEGMENT_BYTES as usize + OVERHEAD_BYTES;
/// The longest frame of all, a parity frame, bytes.
pub const FRAME_MAX_BYTES: usize = HEADER_BYTES + DATA_FRAME_MAX_BYTES;

const MAGIC: [u8; 3] = *b"PdF";
const VERSION: u8 = b'1';
/// Where what the checksum covers begins; what is sealed with the segment, too.
const CHECKED_AT: usize = 4;

/// What a frame's payload is. Ordinals are on disk: never reuse one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A segment as it is, sealed.
    Plain = 1,
    /// A segment compressed by zstd, sealed.
    Zstd = 2,
    /// Parity over the data frames of the stripe.
    Parity = 3,
}

impl Kind {
    fn decode(ordinal: u8) -> Option<Kind> {
        [Kind::Plain, Kind::Zstd, Kind::Parity].into_iter().find(|kind| *kind as u8 == ordinal)
    }
}

/// What a frame says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Where it belongs.
    pub place: Place,
    /// What its payload is.
    pub kind: Kind,
    /// Length of the segment's plaintext; 0 in a parity frame.
    pub plain_len_bytes: u32,
    /// Length of what follows the header.
    pub payload_len_bytes: u32,
}

impl Header {
    /// Length of the whole frame.
    pub const fn frame_len_bytes(&self) -> usize {
        HEADER_BYTES + self.payload_len_bytes as usize
    }

    /// The header, its checksum still to be filled in.
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[4..7].copy_from_slice(&MAGIC);
        bytes[7] = VERSION;
        bytes[8..16].copy_from_slice(&self.place.chunk.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.place.stripe.to_le_bytes());
        bytes[20] = self.place.shard_index;
        bytes[21] = self.kind as u8;
        bytes[24..28].copy_from_slice(&self.plain_len_bytes.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.payload_len_bytes.to_le_bytes());
        bytes
    }

    /// What the frame that begins with `bytes` says of itself: how long it is, for one. Nothing is verified but that a
    /// frame could say so; [`Frame::verify`] does that.
    ///
    /// # Errors
    /// [`Error::NotAFrame`], [`Error::UnknownFormat`].
    pub fn decode(bytes: &[u8]) -> Result<Header, Error> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(Error::NotAFrame { what: "too short" });
        };
        if header[4..7] != MAGIC {
            return Err(Error::NotAFrame { what: "no magic" });
        }
        if header[7] != VERSION {
            return Err(Error::UnknownFormat { version: header[7] });
        }
        let kind = Kind::decode(header[21]).ok_or(Error::NotAFrame { what: "unknown kind" })?;
        let place = Place { chunk: Ino(u64_at(header, 8)), stripe: u32_at(header, 16), shard_index: header[20] };
        let decoded =
            Header { place, kind, plain_len_bytes: u32_at(header, 24), payload_len_bytes: u32_at(header, 28) };
        if header[22..24] != [0; 2] || !decoded.lengths_are_possible() {
            return Err(Error::NotAFrame { what: "impossible lengths" });
        }
        Ok(decoded)
    }

    fn lengths_are_possible(&self) -> bool {
        let (plain, payload) = (self.plain_len_bytes as usize, self.payload_len_bytes as usize);
        match self.kind {
            Kind::Plain => plain <= SEGMENT_BYTES as usize && payload == plain + TAG_BYTES,
            Kind::Zstd => plain <= SEGMENT_BYTES as usize && (TAG_BYTES..plain + TAG_BYTES).contains(&payload),
            Kind::Parity => plain == 0 && payload <= DATA_FRAME_MAX_BYTES,
        }
    }
}

/// A whole frame, verified: its checksum matches, and it belongs where it was looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    header: Header,
    bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Verifies that `bytes` are the frame of `place`, no more and no less. Needs no key.
    ///
    /// # Errors
    /// [`Error::NotAFrame`], [`Error::UnknownFormat`], [`Error::Length`], [`Error::Checksum`]: damaged.
    /// [`Error::Elsewhere`]: not the frame that was looked for.
    pub fn verify(bytes: &'a [u8], place: Place) -> Result<Frame<'a>, Error> {
        let header = Header::decode(bytes)?;
        let frame_len_bytes = header.frame_len_bytes();
        if bytes.len() != frame_len_bytes {
            return Err(Error::Length { len_bytes: bytes.len(), frame_len_bytes });
        }
        if u32_at(bytes, 0) != crc32c(&bytes[CHECKED_AT..]) {
            return Err(Error::Checksum);
        }
        if header.place != place {
            return Err(Error::Elsewhere { found: header.place, wanted: place });
        }
        Ok(Frame { header, bytes })
    }

    /// What it says of itself.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The frame itself.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the header.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// What was sealed together with the payload.
    pub(super) fn associated_data(&self) -> &'a [u8] {
        associated_data(self.bytes)
    }
}

/// What of a frame, or of its header alone, is sealed together with the payload.
pub(super) fn associated_data(frame: &[u8]) -> &[u8] {
    &frame[CHECKED_AT..HEADER_BYTES]
}

/// Fills in the checksum of a frame that is otherwise complete.
pub(super) fn finish(frame: &mut [u8]) {
    let crc = crc32c(&frame[CHECKED_AT..]);
    frame[..CHECKED_AT].copy_from_slice(&crc.to_le_bytes());
}

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
