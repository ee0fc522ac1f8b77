//! Reed-Solomon over the frames of a stripe.
//!
//! Frames of one stripe differ in length. Each counts as padded with zeros to the stripe's longest, which is the length
//! of the parity frames; a data shard that has no frame counts as zeros altogether. The padding is never written out:
//! where a frame has ended, its bytes are read from a static run of zeros.
//!
//! The matrix is part of the disk format: GF(2^8) over 0x11d, V·T⁻¹ with V the (k+m) x k Vandermonde matrix
//! `V[r][c] = r^c` and T its top k rows. Any k rows of it can be inverted; it is the one of Klaus Post's and the
//! `reed-solomon-erasure` libraries, so their shards and ours are the same bytes.

use rusty_erasure::kernel::Kernels;
use rusty_erasure::{Coder, DecodePlan, best_kernels, compat};

use super::{Error, Scheme};

/// What padding is read from. A run in which a frame has ended is at most this long.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// Encodes and reconstructs under one scheme. Cheap to share, not so cheap to make: keep it.
#[derive(Clone, Debug)]
pub struct Codec {
    scheme: Scheme,
    /// None without parity.
    coder: Option<Coder>,
}

/// How to get some frames from others: one matrix, inverted once, for all stripes with the same loss.
#[derive(Clone, Debug)]
pub struct Plan {
    sources: Vec<usize>,
    wanted: Vec<usize>,
    /// None if nothing is wanted.
    decode: Option<DecodePlan>,
}

impl Plan {
    /// The k shards that are read, ascending; empty if nothing is wanted.
    pub fn sources(&self) -> &[usize] {
        &self.sources
    }

    /// The shards that are made, in the order in which they were asked for.
    pub fn wanted(&self) -> &[usize] {
        &self.wanted
    }
}

impl Codec {
    /// The codec of a scheme, with the widest vectors that this processor has.
    pub fn new(scheme: Scheme) -> Codec {
        Codec::with_kernels(scheme, best_kernels())
    }

    fn with_kernels(scheme: Scheme, kernels: Kernels) -> Codec {
        let (data_count, parity_count) = (scheme.data_count(), scheme.parity_count());
        let matrix = (parity_count > 0).then(|| compat::reed_solomon_erasure_matrix(data_count, parity_count));
        let made = matrix.map(|matrix| Coder::with_kernels(matrix?, kernels)).transpose();
        // Every scheme has at least one data shard and at most 32 shards in a field of 256.
        let Ok(coder) = made else { unreachable!("no matrix for {scheme}") };
        Codec { scheme, coder }
    }

    /// k and m.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Computes parity.
    ///
    /// `data`: the stripe's frames by shard index, at most k; those left out count as zeros. `parity`: m buffers, each
    /// as long as the longest of `data`; overwritten.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        let len_bytes = longest(data);
        assert!(data.len() <= self.scheme.data_count(), "more frames than data shards");
        assert!(parity.len() == self.scheme.parity_count(), "one buffer for each parity shard");
        assert!(parity.iter().all(|buffer| buffer.len() == len_bytes), "parity is as long as the longest frame");
        let Some(coder) = &self.coder else { return };
        let mut sources = data.to_vec();
        sources.resize(self.scheme.data_count(), &[]);
        for_each_run(&sources, parity, |sources, parity| {
            let done = coder.encode(sources, parity);
            assert!(done.is_ok(), "a run of equal lengths: {done:?}");
        });
    }

    /// How to make the frames of `wanted` from those of shards that are `present`.
    ///
    /// `present`: by shard index, k + m of them. A data shard that has no frame in a narrow stripe is present: its
    /// frame is empty. The first k that are present are read, so leave out what would be slow.
    ///
    /// # Errors
    /// [`Error::TooFewFrames`]: fewer than k are present.
    pub fn plan(&self, present: &[bool], wanted: &[usize]) -> Result<Plan, Error> {
        assert!(present.len() == self.scheme.shard_count(), "one for each shard");
        assert!(wanted.iter().all(|index| *index < present.len()), "a shard of this scheme");
        if wanted.is_empty() {
            return Ok(Plan { sources: Vec::new(), wanted: Vec::new(), decode: None });
        }
        let needed_count = self.scheme.data_count();
        let there: Vec<usize> = (0..present.len()).filter(|index| present[*index]).collect();
        let too_few = Error::TooFewFrames { present_count: there.len(), needed_count };
        let Some(sources) = there.get(..needed_count) else { return Err(too_few) };
        // Without parity nothing can be made: what is wanted is there, or too few are.
        let Some(coder) = &self.coder else { return Err(too_few) };
        let Ok(decode) = coder.decode_plan(present, wanted) else { unreachable!("any k rows can be inverted") };
        Ok(Plan { sources: sources.to_vec(), wanted: wanted.to_vec(), decode: Some(decode) })
    }

    /// Makes the frames that `plan` wants, in its order, each as long as the stripe's longest: a data frame comes back
    /// with its padding.
    ///
    /// `frame_of`: the frame of one of [`Plan::sources`]; empty for a data shard that has none in this stripe.
    ///
    /// # Errors
    /// [`Error::FrameLength`]: the lengths cannot be those of one stripe. Right lengths with wrong bytes give wrong
    /// bytes: verify frames before, and what comes out after.
    pub fn reconstruct<'a>(&self, plan: &Plan, frame_of: impl Fn(usize) -> &'a [u8]) -> Result<Vec<Vec<u8>>, Error> {
        let (Some(coder), Some(decode)) = (&self.coder, &plan.decode) else { return Ok(Vec::new()) };
        let sources: Vec<&[u8]> = plan.sources.iter().map(|index| frame_of(*index)).collect();
        let stripe_len_bytes = longest(&sources);
        for (&shard_index, source) in plan.sources.iter().zip(&sources) {
            if self.scheme.is_parity(shard_index) && source.len() != stripe_len_bytes {
                return Err(Error::FrameLength { shard_index, len_bytes: source.len(), stripe_len_bytes });
            }
        }
        let mut made = vec![vec![0; stripe_len_bytes]; plan.wanted.len()];
        let mut outputs: Vec<&mut [u8]> = made.iter_mut().map(Vec::as_mut_slice).collect();
        let mut shards = vec![None; self.scheme.shard_count()];
        for_each_run(&sources, &mut outputs, |sources, outputs| {
            plan.sources.iter().zip(sources).for_each(|(index, source)| shards[*index] = Some(*source));
            let done = coder.recover_with(decode, &shards, outputs);
            assert!(done.is_ok(), "a run of equal lengths: {done:?}");
        });
        Ok(made)
    }
}

fn longest(frames: &[&[u8]]) -> usize {
    frames.iter().map(|frame| frame.len()).max().unwrap_or(0)
}

/// Calls `code` for one run of bytes after the other, from the first to the longest source's last. Runs are cut where a
/// source ends, so that in each a source is there as a whole, or reads as zeros.
///
/// `outputs`: each as long as the longest source.
fn for_each_run<'a>(
    sources: &[&'a [u8]],
    outputs: &mut [&mut [u8]],
    mut code: impl FnMut(&[&'a [u8]], &mut [&mut [u8]]),
) {
    let mut at = 0;
    while let Some(next) = sources.iter().map(|source| source.len()).filter(|end| *end > at).min() {
        let any_ended = sources.iter().any(|source| source.len() <= at);
        let end = if any_ended { next.min(at + ZEROS.len()) } else { next };
        let run: Vec<&'a [u8]> =
            sources.iter().map(|source| source.get(at..end).unwrap_or_else(|| &ZEROS[..end - at])).collect();
        let mut parts: Vec<&mut [u8]> = outputs.iter_mut().map(|output| &mut output[at..end]).collect();
        code(&run, &mut parts);
        at = end;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use reed_solomon_erasure::galois_8::ReedSolomon;

    fn scheme(k: usize, m: usize) -> Scheme {
        Scheme::new(k as u8, m as u8).unwrap()
    }

    fn slices(frames: &[Vec<u8>]) -> Vec<&[u8]> {
        frames.iter().map(Vec::as_slice).collect()
    }

    fn encode(codec: &Codec, data: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let data = slices(data);
        let mut parity = vec![vec![0xEE; longest(&data)]; codec.scheme().parity_count()];
        let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        codec.encode(&data, &mut outputs);
        parity
    }

    /// Bytes that differ from frame to frame.
    fn frame(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// All frames of a stripe padded to its longest, by the other library.
    fn reference(k: usize, m: usize, data: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let len = longest(&slices(data));
        let mut shards = data.to_vec();
        shards.resize(k + m, Vec::new());
        shards.iter_mut().for_each(|shard| shard.resize(len, 0));
        if m > 0 && len > 0 {
            ReedSolomon::new(k, m).unwrap().encode(&mut shards).unwrap();
        }
        shards
    }

    /// Checks encode, and reconstruction of whatever `lost` names, against the other library.
    fn check(codec: &Codec, data: &[Vec<u8>], lost: &[usize]) {
        let (k, m) = (codec.scheme().data_count(), codec.scheme().parity_count());
        let padded = reference(k, m, data);
        let parity = encode(codec, data);
        assert_eq!(parity, padded[k..], "rs({k},{m})");
        let present: Vec<bool> = (0..k + m).map(|index| !lost.contains(&index)).collect();
        let plan = codec.plan(&present, lost).unwrap();
        assert!(plan.sources().iter().all(|index| present[*index]));
        let made = codec.reconstruct(&plan, |index| match index.checked_sub(k) {
            None => data.get(index).map_or(&[][..], Vec::as_slice),
            Some(index) => &parity[index],
        });
        let expected: Vec<Vec<u8>> = lost.iter().map(|index| padded[*index].clone()).collect();
        assert_eq!(made.unwrap(), expected, "rs({k},{m}) without {lost:?}");
    }

    /// `count` of `total` shards, as the seed has it.
    fn loss(total: usize, count: usize, seed: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..total).collect();
        let random = frame(seed, total);
        order.sort_by_key(|index| random[*index]);
        order.truncate(count);
        order
    }

    /// What this processor can do, and what others would fall back on.
    fn kernels() -> impl Iterator<Item = Kernels> {
        ["scalar", "ssse3", "avx2", "gfni", "neon"].into_iter().filter_map(rusty_erasure::kernels_named)
    }

    #[test]
    fn it_is_the_other_library_for_every_scheme_up_to_sixteen_shards() {
        for (k, m) in (1..=16).flat_map(|k| (0..=16 - k).map(move |m| (k, m))) {
            for (kernels, seed) in kernels().flat_map(|kernels| (0..4).map(move |seed| (kernels, seed))) {
                let codec = Codec::with_kernels(scheme(k, m), kernels);
                let len = |index: usize| 97 + (index * 131 + k * 7 + m) % 600;
                let data: Vec<Vec<u8>> = (0..k).map(|index| frame(seed * 100 + index as u64, len(index))).collect();
                for count in [m, m / 2] {
                    check(&codec, &data, &loss(k + m, count, seed + 1));
                }
            }
        }
    }

    #[test]
    fn every_loss_of_small_schemes_is_made_good() {
        for (k, m) in [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (4, 2), (4, 4), (6, 3)] {
            let codec = Codec::new(scheme(k, m));
            let data: Vec<Vec<u8>> = (0..k).map(|index| frame(index as u64, 40 + index * 13)).collect();
            for mask in 0u32..1 << (k + m) {
                let lost: Vec<usize> = (0..k + m).filter(|index| mask >> index & 1 == 1).collect();
                if lost.len() <= m {
                    check(&codec, &data, &lost);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn frames_of_any_lengths_come_back(
            (k, m) in (1usize..=16).prop_flat_map(|k| (Just(k), 0..=16 - k)),
            lens in prop::collection::vec(prop_oneof![0usize..40, 0usize..3000, 16_000usize..40_000], 1..=16),
            lost in 0usize..=16,
            seed: u64,
        ) {
            // Fewer frames than k: a narrow stripe.
            let data: Vec<Vec<u8>> =
                lens.iter().take(k).enumerate().map(|(index, len)| frame(seed ^ index as u64, *len)).collect();
            check(&Codec::new(scheme(k, m)), &data, &loss(k + m, lost.min(m), seed));
        }
    }

    #[test]
    fn one_data_shard_is_replicated() {
        let data = [frame(1, 1000)];
        assert_eq!(encode(&Codec::new(scheme(1, 3)), &data), vec![data[0].clone(); 3]);
    }

    #[test]
    fn without_parity_nothing_is_made_and_nothing_needs_to_be() {
        let codec = Codec::new(scheme(2, 0));
        assert_eq!(encode(&codec, &[frame(1, 10), frame(2, 20)]), Vec::<Vec<u8>>::new());
        assert_eq!(
            codec.plan(&[true, false], &[1]).unwrap_err(),
            Error::TooFewFrames { present_count: 1, needed_count: 2 }
        );
        let plan = codec.plan(&[true, true], &[]).unwrap();
        assert_eq!(codec.reconstruct(&plan, |_| &[]).unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn too_few_frames_and_lengths_of_no_stripe_are_refused() {
        let codec = Codec::new(scheme(2, 2));
        assert_eq!(
            codec.plan(&[false, true, false, false], &[0]).unwrap_err(),
            Error::TooFewFrames { present_count: 1, needed_count: 2 }
        );
        let plan = codec.plan(&[false, true, true, true], &[0]).unwrap();
        assert_eq!(plan.sources(), [1, 2]);
        let long = [0; 9];
        let refused = codec.reconstruct(&plan, |index| if index == 1 { &long[..] } else { &long[..5] });
        let wrong = Error::FrameLength { shard_index: 2, len_bytes: 5, stripe_len_bytes: 9 };
        assert_eq!(refused.unwrap_err(), wrong);
    }

    #[test]
    fn the_processor_is_asked_for_its_vectors() {
        let codec = Codec::new(scheme(3, 2));
        let name = codec.coder.as_ref().unwrap().kernels().name;
        assert_ne!(name, "scalar", "x86-64-v2 and armv8 both have better");
    }

    #[test]
    #[ignore = "a measurement"]
    fn speed() {
        let codec = Codec::new(scheme(3, 2));
        println!("kernels: {}", codec.coder.as_ref().unwrap().kernels().name);
        for (what, lens) in [("equal", [65_584; 3]), ("uneven", [65_584, 30_011, 12_345]), ("small", [8_240; 3])] {
            let data: Vec<Vec<u8>> = lens.iter().map(|len| frame(*len as u64, *len)).collect();
            let (data, total): (Vec<&[u8]>, usize) = (slices(&data), lens.iter().sum());
            let mut parity = vec![vec![0; lens[0]]; 2];
            let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
            let count = 2_000_000_000 / total;
            let start = std::time::Instant::now();
            (0..count).for_each(|_| codec.encode(std::hint::black_box(&data), &mut outputs));
            let seconds = start.elapsed().as_secs_f64();
            println!("encode (3,2) {what}: {:.1} GB/s of data", (count * total) as f64 / seconds / 1e9);
            let plan = codec.plan(&[false, false, true, true, true], &[0, 1]).unwrap();
            let (first, second) = (parity[0].clone(), parity[1].clone());
            let start = std::time::Instant::now();
            for _ in 0..count / 4 {
                let frames = [data[0], data[1], data[2], &first, &second];
                std::hint::black_box(codec.reconstruct(&plan, |index| frames[index]).unwrap());
            }
            let seconds = start.elapsed().as_secs_f64();
            println!("reconstruct two {what}: {:.1} GB/s of data", (count / 4 * total) as f64 / seconds / 1e9);
        }
    }
}
