//! Plaintext to frames, stripe after stripe. Blocking.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

use crate::env::Rng;
use crate::erasure::{Codec, Geometry, Scheme};
use crate::ids::Ino;
use crate::segment::{ChunkKey, Sealer, Workspace, stripe};
use crate::units::SEGMENT_BYTES;

/// Workspaces kept for later.
const IDLE_MAX: usize = 16;

/// Workspaces that nobody uses now.
#[derive(Default)]
pub(super) struct Workspaces(Mutex<Vec<Workspace>>);

impl Workspaces {
    /// Does `job` with one of them.
    pub(super) fn with<T>(&self, job: impl FnOnce(&mut Workspace) -> T) -> T {
        let idle = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut workspace = taken.unwrap_or_default();
        let done = job(&mut workspace);
        let mut idle = idle();
        if idle.len() < IDLE_MAX {
            idle.push(workspace);
        }
        done
    }
}

/// Bytes in runs of any length, as they came.
#[derive(Clone, Default, Debug)]
pub(super) struct Runs {
    runs: VecDeque<Bytes>,
    len_bytes: u64,
}

impl Runs {
    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    pub(super) fn push(&mut self, run: Bytes) {
        self.len_bytes += run.len() as u64;
        if !run.is_empty() {
            self.runs.push_back(run);
        }
    }

    pub(super) fn append(&mut self, other: Runs) {
        self.len_bytes += other.len_bytes;
        self.runs.extend(other.runs);
    }

    /// The first `len_bytes`, which must be there, still in runs.
    pub(super) fn split(&mut self, len_bytes: u64) -> Runs {
        let mut split = Runs::default();
        while split.len_bytes < len_bytes {
            let left = len_bytes - split.len_bytes;
            let Some(mut run) = self.runs.pop_front() else { unreachable!("{len_bytes} bytes are there") };
            if run.len() as u64 > left {
                self.runs.push_front(run.split_off(left as usize));
            }
            self.len_bytes -= run.len() as u64;
            split.push(run);
        }
        split
    }

    /// The first `len`, which must be there, in one; copied only if they came in several.
    fn take(&mut self, len: usize) -> Bytes {
        let mut split = self.split(len as u64);
        match (split.runs.pop_front(), split.runs.len()) {
            (Some(run), 0) => run,
            (first, _) => {
                let mut whole = BytesMut::with_capacity(len);
                first.iter().chain(&split.runs).for_each(|run| whole.extend_from_slice(run));
                whole.freeze()
            }
        }
    }
}

/// Makes the frames of one chunk.
pub(super) struct Encoder {
    chunk: Ino,
    codec: Codec,
    sealer: Sealer,
    next_stripe: u32,
}

impl Encoder {
    /// An encoder for a chunk that is yet to be written, and the fresh key that it seals under.
    pub(super) fn new(chunk: Ino, codec: Codec, rng: &dyn Rng) -> (Encoder, ChunkKey) {
        let (sealer, key) = Sealer::fresh(chunk, rng);
        (Encoder { chunk, codec, sealer, next_stripe: 0 }, key)
    }

    /// Takes whole stripes off `plain`, all of it if these are the last. Their frames, by shard index.
    ///
    /// Only a chunk's last stripe is narrow, so its length need not be known before.
    pub(super) fn encode(&mut self, workspace: &mut Workspace, plain: &mut Runs, is_last: bool) -> Vec<Vec<Bytes>> {
        let scheme = self.codec.scheme();
        let stripe_bytes = stripe_bytes(scheme);
        let mut frames = vec![Vec::new(); scheme.shard_count()];
        while plain.len_bytes() >= stripe_bytes || is_last && plain.len_bytes() > 0 {
            let stripe = self.stripe(workspace, scheme, plain);
            frames.iter_mut().zip(stripe).for_each(|(frames, frame)| frames.extend(frame));
        }
        frames
    }

    /// One stripe's frames, by shard index; none where a narrow stripe has none.
    fn stripe(&mut self, workspace: &mut Workspace, scheme: Scheme, plain: &mut Runs) -> Vec<Option<Bytes>> {
        let index = self.next_stripe;
        self.next_stripe += 1;
        let data: Vec<Vec<u8>> = segment_lens(scheme, plain.len_bytes())
            .zip(0..)
            .map(|(len, shard_index)| self.sealer.seal(workspace, index, shard_index, &plain.take(len)))
            .collect();
        let slices: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let parity = stripe::parity(&self.codec, self.chunk, index, &slices);
        let absent = scheme.data_count() - data.len();
        let present = |frame: Vec<u8>| Some(Bytes::from(frame));
        data.into_iter().map(present).chain((0..absent).map(|_| None)).chain(parity.into_iter().map(present)).collect()
    }
}

/// Plaintext of a full stripe.
pub(super) fn stripe_bytes(scheme: Scheme) -> u64 {
    scheme.data_count() as u64 * SEGMENT_BYTES
}

/// How the next stripe is cut where so much plaintext is left: a stripe alone is cut as it is in its chunk.
fn segment_lens(scheme: Scheme, left_bytes: u64) -> impl Iterator<Item = usize> {
    let stripe = Geometry::new(scheme, left_bytes.min(stripe_bytes(scheme))).ok().and_then(|cut| cut.stripe(0));
    stripe.into_iter().flat_map(|stripe| stripe.segments()).map(|segment| segment.len_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::env::Env;
    use crate::segment::{Frame, Place};
    use proptest::prelude::*;

    fn runs(bytes: &[u8], cuts: &[usize]) -> Runs {
        let (mut runs, mut rest) = (Runs::default(), Bytes::copy_from_slice(bytes));
        for cut in cuts {
            runs.push(rest.split_to((*cut).min(rest.len())));
        }
        runs.push(rest);
        runs
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn runs_are_cut_anywhere(
            bytes in prop::collection::vec(any::<u8>(), 0..500),
            cuts in prop::collection::vec(0usize..90, 0..8),
            takes in prop::collection::vec((0usize..120, any::<bool>()), 0..8),
        ) {
            let (mut runs, mut at) = (runs(&bytes, &cuts), 0);
            for (take, in_one) in takes {
                let len = take.min(bytes.len() - at);
                let taken = match in_one {
                    true => runs.take(len),
                    false => runs.split(len as u64).take(len),
                };
                prop_assert_eq!(&taken, &bytes[at..at + len]);
                at += len;
            }
            prop_assert_eq!(runs.len_bytes() as usize, bytes.len() - at);
        }

        #[test]
        fn stripes_are_those_of_the_chunks_geometry(
            (k, m) in (1u8..=6, 0u8..=3),
            len in prop_oneof![0u64..30_000, 0u64..2_000_000],
            batch in prop_oneof![1u64..100_000, 500_000u64..1_100_000],
        ) {
            let scheme = Scheme::new(k, m).unwrap();
            let (mut encoder, _) = Encoder::new(Ino(9), Codec::new(scheme), &*Env::system().rng);
            let (mut workspace, mut plain, mut came) = (Workspace::new(), Runs::default(), 0);
            let mut frames = vec![Vec::new(); scheme.shard_count()];
            while came < len || len == 0 {
                let take = batch.min(len - came);
                came += take;
                plain.push(vec![1; take as usize].into());
                let made = encoder.encode(&mut workspace, &mut plain, came == len);
                frames.iter_mut().zip(made).for_each(|(all, made)| all.extend(made));
                if came == len {
                    break;
                }
            }
            let geometry = Geometry::new(scheme, len).unwrap();
            for (shard_index, frames) in frames.iter().enumerate() {
                prop_assert_eq!(frames.len(), geometry.frame_count(shard_index) as usize);
                for (stripe, frame) in geometry.stripes().zip(frames) {
                    let place = Place { chunk: Ino(9), stripe: stripe.index, shard_index: shard_index as u8 };
                    let plain_len = Frame::verify(frame, place).unwrap().header().plain_len_bytes as usize;
                    prop_assert_eq!(plain_len, stripe.segment(shard_index).map_or(0, |segment| segment.len_bytes()));
                }
            }
        }
    }
}
