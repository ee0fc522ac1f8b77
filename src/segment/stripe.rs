//! The frames of one stripe together: parity over them, and those that were lost. Neither needs a key.

use super::format::{self, Frame, HEADER_BYTES, Header, Kind};
use super::{Error, Place};
use crate::erasure::{Codec, Plan};
use crate::ids::Ino;

/// The parity frames of a stripe, by shard index from k on.
///
/// `data`: its data frames by shard index; fewer than k in a narrow stripe.
pub fn parity(codec: &Codec, chunk: Ino, stripe: u32, data: &[&[u8]]) -> Vec<Vec<u8>> {
    let scheme = codec.scheme();
    let payload_len = data.iter().map(|frame| frame.len()).max().unwrap_or(0);
    let mut frames = vec![vec![0; HEADER_BYTES + payload_len]; scheme.parity_count()];
    let mut payloads: Vec<&mut [u8]> = frames.iter_mut().map(|frame| &mut frame[HEADER_BYTES..]).collect();
    codec.encode(data, &mut payloads);
    for (shard_index, frame) in (scheme.data_count()..).zip(&mut frames) {
        head(frame, place(chunk, stripe, shard_index));
    }
    frames
}

/// Makes the frames that `plan` wants, in its order, each the very bytes that were lost, and verified.
///
/// `frame_of`: the frame of one of the plan's sources, none for a data shard that has none in a narrow stripe; asked more
/// than once.
///
/// # Errors
/// [`Error::Elsewhere`], [`Error::NotAFrame`]: a source is not of this stripe or layout. [`Error::Erasure`], or what
/// [`Frame::verify`] says of a frame that was made: the sources do not go together.
pub fn rebuild<'a>(
    codec: &Codec,
    plan: &Plan,
    chunk: Ino,
    stripe: u32,
    frame_of: impl Fn(usize) -> Option<Frame<'a>>,
) -> Result<Vec<Vec<u8>>, Error> {
    for &shard_index in plan.sources() {
        let Some(frame) = frame_of(shard_index) else { continue };
        let wanted = place(chunk, stripe, shard_index);
        if frame.header().place != wanted {
            return Err(Error::Elsewhere { found: frame.header().place, wanted });
        }
        if (frame.header().kind == Kind::Parity) != codec.scheme().is_parity(shard_index) {
            return Err(Error::NotAFrame { what: "a parity frame of another layout" });
        }
    }
    let made = codec.reconstruct(plan, |shard_index| match frame_of(shard_index) {
        Some(frame) if codec.scheme().is_parity(shard_index) => frame.payload(),
        Some(frame) => frame.bytes(),
        None => &[],
    })?;
    made.into_iter()
        .zip(plan.wanted())
        .map(|(bytes, &shard_index)| {
            let place = place(chunk, stripe, shard_index);
            match codec.scheme().is_parity(shard_index) {
                true => Ok(with_head(&bytes, place)),
                false => trim(bytes, place),
            }
        })
        .collect()
}

/// The frame of `place` without its padding.
fn trim(mut padded: Vec<u8>, place: Place) -> Result<Vec<u8>, Error> {
    let frame_len_bytes = Header::decode(&padded)?.frame_len_bytes();
    let len_bytes = padded.len();
    if padded.get(frame_len_bytes..).is_none_or(|padding| padding.iter().any(|byte| *byte != 0)) {
        return Err(Error::Length { len_bytes, frame_len_bytes });
    }
    padded.truncate(frame_len_bytes);
    Frame::verify(&padded, place)?;
    Ok(padded)
}

fn with_head(payload: &[u8], place: Place) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.resize(HEADER_BYTES, 0);
    frame.extend_from_slice(payload);
    head(&mut frame, place);
    frame
}

/// Completes a parity frame whose payload is there.
fn head(frame: &mut [u8], place: Place) {
    let payload_len_bytes = (frame.len() - HEADER_BYTES) as u32;
    let header = Header { place, kind: Kind::Parity, plain_len_bytes: 0, payload_len_bytes };
    frame[..HEADER_BYTES].copy_from_slice(&header.encode());
    format::finish(frame);
}

/// `shard_index`: of a scheme, so less than 32.
fn place(chunk: Ino, stripe: u32, shard_index: usize) -> Place {
    Place { chunk, stripe, shard_index: shard_index as u8 }
}
