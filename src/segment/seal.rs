//! Plaintext to frame, and back.
//!
//! Invariant: no two segments are ever sealed under the same key and nonce. The nonce is the segment's place in its
//! chunk, so this takes two things, and both hold by construction. A key seals one chunk, once: only
//! [`Sealer::fresh`] makes a key that seals, of random bytes, and a key that was unwrapped only opens. A place is sealed
//! once: a sealer takes places in ascending order, and panics if one comes again. Chunks are immutable, so nobody needs
//! more: what is written anew is a new chunk, under a new key; a retry or a repair sends the same frame again.

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};

use super::compress::Workspace;
use super::format::{self, Frame, HEADER_BYTES, Header, Kind, TAG_BYTES};
use super::key::ChunkKey;
use super::{Error, Place};
use crate::env::Rng;
use crate::ids::Ino;
use crate::units::SEGMENT_BYTES;

/// Seals the segments of one new chunk.
pub struct Sealer {
    chunk: Ino,
    cipher: LessSafeKey,
    /// The place that was sealed last.
    last: Option<Place>,
}

/// Opens the segments of one chunk.
pub struct Opener {
    cipher: LessSafeKey,
}

impl Sealer {
    /// A sealer for a chunk that is yet to be written, and the key that will open it.
    pub fn fresh(chunk: Ino, rng: &dyn Rng) -> (Sealer, ChunkKey) {
        let key = ChunkKey::fresh(rng);
        (Sealer { chunk, cipher: key.cipher(), last: None }, key)
    }

    /// The frame of a segment: a stripe's segments by shard index, stripe after stripe.
    ///
    /// `plain`: at most [`SEGMENT_BYTES`]. The frame is at most [`format::OVERHEAD_BYTES`] longer.
    pub fn seal(&mut self, workspace: &mut Workspace, stripe: u32, shard_index: u8, plain: &[u8]) -> Vec<u8> {
        let place = Place { chunk: self.chunk, stripe, shard_index };
        assert!(self.last < Some(place), "{place} would be sealed again");
        assert!(plain.len() as u64 <= SEGMENT_BYTES, "a segment of {} bytes", plain.len());
        self.last = Some(place);
        let (kind, body) = match workspace.compress(plain) {
            Some(compressed) => (Kind::Zstd, compressed),
            None => (Kind::Plain, plain),
        };
        let payload_len_bytes = (body.len() + TAG_BYTES) as u32;
        let header = Header { place, kind, plain_len_bytes: plain.len() as u32, payload_len_bytes }.encode();
        let mut frame = Vec::with_capacity(HEADER_BYTES + body.len() + TAG_BYTES);
        frame.extend_from_slice(&header);
        frame.extend_from_slice(body);
        let associated_data = Aad::from(format::associated_data(&header));
        let sealed = self.cipher.seal_in_place_separate_tag(nonce(place), associated_data, &mut frame[HEADER_BYTES..]);
        let Ok(tag) = sealed else { unreachable!("a segment can be sealed") };
        frame.extend_from_slice(tag.as_ref());
        format::finish(&mut frame);
        frame
    }
}

impl Opener {
    /// An opener for the chunk that `key` is of.
    pub fn new(key: &ChunkKey) -> Opener {
        Opener { cipher: key.cipher() }
    }

    /// Appends the plaintext of a data frame to `plain`: [`Header::plain_len_bytes`] bytes, or none on an error.
    ///
    /// # Errors
    /// [`Error::Seal`]: not sealed under this key; so is a parity frame, which holds no plaintext.
    /// [`Error::Decompress`]: the sealed bytes are none that zstd made.
    pub fn open(&self, workspace: &mut Workspace, frame: &Frame<'_>, plain: &mut Vec<u8>) -> Result<(), Error> {
        let start = plain.len();
        match frame.header().kind {
            Kind::Parity => Err(Error::Seal),
            Kind::Plain => self.unseal(frame, plain),
            Kind::Zstd => {
                workspace.opened.clear();
                self.unseal(frame, &mut workspace.opened)?;
                plain.resize(start + frame.header().plain_len_bytes as usize, 0);
                workspace.decompress(&mut plain[start..])
            }
        }
        .inspect_err(|_| plain.truncate(start))
    }

    /// Appends what the seal holds to `body`; on an error, leaves bytes there that mean nothing.
    fn unseal(&self, frame: &Frame<'_>, body: &mut Vec<u8>) -> Result<(), Error> {
        let start = body.len();
        body.extend_from_slice(frame.payload());
        let associated_data = Aad::from(frame.associated_data());
        let opened = self.cipher.open_in_place(nonce(frame.header().place), associated_data, &mut body[start..]);
        let body_len = opened.map_err(|_| Error::Seal)?.len();
        body.truncate(start + body_len);
        Ok(())
    }
}

/// Unique under a chunk's key.
fn nonce(place: Place) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..4].copy_from_slice(&place.stripe.to_le_bytes());
    bytes[4] = place.shard_index;
    Nonce::assume_unique_for_key(bytes)
}
