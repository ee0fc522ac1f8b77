//! Compression of a segment by itself, by zstd at level 1, where a quick look says that it pays.

use zstd::bulk::{Compressor, Decompressor};

use super::Error;
use crate::units::SEGMENT_BYTES;

const LEVEL: i32 = 1;
/// Compression must save at least a sixteenth, or reading it back is not worth the trouble.
const SAVING_SHIFT: u32 = 4;
/// Shorter segments are left as they are, bytes.
const COMPRESS_MIN_BYTES: usize = 128;
/// The probe looks at this many runs, spread evenly.
const PROBE_RUN_COUNT: usize = 16;
/// Length of each run, bytes.
const PROBE_RUN_BYTES: usize = 128;
/// The probe's bound: two bytes of the sample are equal at least once in so many pairs. It is 256 in random bytes, and
/// 2^7.5 = 181 where a byte has 7.5 bits of entropy (Renyi's, of order 2, which is never above Shannon's): the saving
/// that is asked for.
const PROBE_PAIRS: u64 = 181;

/// Contexts and buffers that outlive a segment; made when they are first needed. Keep one for each thread at work, some
/// hundreds of KiB each.
#[derive(Default)]
pub struct Workspace {
    compressor: Option<Compressor<'static>>,
    decompressor: Option<Decompressor<'static>>,
    /// What compression writes to.
    compressed: Vec<u8>,
    /// What is opened before it is decompressed.
    pub(super) opened: Vec<u8>,
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Workspace {
        Workspace::default()
    }

    /// `plain`, compressed; none if that does not pay.
    ///
    /// `plain`: at most [`SEGMENT_BYTES`].
    pub(super) fn compress(&mut self, plain: &[u8]) -> Option<&[u8]> {
        if plain.len() < COMPRESS_MIN_BYTES || !looks_compressible(plain) {
            return None;
        }
        if self.compressor.is_none() {
            self.compressor = Compressor::new(LEVEL).ok();
            self.compressed.resize(SEGMENT_BYTES as usize, 0);
        }
        let limit = plain.len() - (plain.len() >> SAVING_SHIFT);
        // What does not fit is refused.
        let len = self.compressor.as_mut()?.compress_to_buffer(plain, self.compressed.get_mut(..limit)?).ok()?;
        self.compressed.get(..len)
    }

    /// Decompresses [`Workspace::opened`] into `plain`, which it must fill.
    pub(super) fn decompress(&mut self, plain: &mut [u8]) -> Result<(), Error> {
        if self.decompressor.is_none() {
            self.decompressor = Decompressor::new().ok();
        }
        let decompressor = self.decompressor.as_mut().ok_or(Error::Decompress)?;
        match decompressor.decompress_to_buffer(&self.opened, plain) {
            Ok(len) if len == plain.len() => Ok(()),
            _ => Err(Error::Decompress),
        }
    }
}

/// Whether the bytes of a sample are unevenly enough distributed for compression to pay. Misses what repeats over
/// long distances only, and is made of random bytes.
pub(super) fn looks_compressible(plain: &[u8]) -> bool {
    let mut counts = [0u32; 256];
    let mut sample_len = 0;
    for run in sample(plain) {
        run.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        sample_len += run.len() as u64;
    }
    let equal_pairs: u64 = counts.iter().map(|count| u64::from(*count) * u64::from(count.saturating_sub(1))).sum();
    equal_pairs * PROBE_PAIRS > sample_len * sample_len.saturating_sub(1)
}

/// Runs of `plain` spread evenly, or all of it if it is short.
fn sample(plain: &[u8]) -> impl Iterator<Item = &[u8]> {
    let run_bytes = if plain.len() <= PROBE_RUN_COUNT * PROBE_RUN_BYTES { plain.len() } else { PROBE_RUN_BYTES };
    let stride = (plain.len() / PROBE_RUN_COUNT).max(run_bytes).max(1);
    plain.chunks(stride).filter_map(move |chunk| chunk.get(..run_bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{noise, text};
    use super::*;

    fn pays(plain: &[u8]) -> bool {
        Workspace::new().compress(plain).is_some()
    }

    #[test]
    fn what_shrinks_is_compressed_and_comes_back() {
        let mut workspace = Workspace::new();
        for len in [200, 4096, 65_536] {
            for plain in [
                text(len),
                vec![0; len],
                noise(1, len / 2).repeat(2)[..len / 2].iter().flat_map(|b| [*b & 15, 0]).collect(),
            ] {
                let compressed = workspace.compress(&plain).unwrap().to_vec();
                assert!(compressed.len() <= plain.len() - plain.len() / 16);
                workspace.opened = compressed;
                let mut back = vec![1; plain.len()];
                workspace.decompress(&mut back).unwrap();
                assert_eq!(back, plain);
                let mut longer = vec![1; plain.len() + 1];
                assert_eq!(workspace.decompress(&mut longer), Err(Error::Decompress));
                assert_eq!(workspace.decompress(&mut back[1..]), Err(Error::Decompress));
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_left() {
        for seed in 0..200 {
            for len in [0, 1, 127, 128, 1000, 65_536] {
                let noise = noise(seed, len);
                assert!(!pays(&noise));
                assert!(len < 1000 || !looks_compressible(&noise), "the probe saves the attempt");
            }
        }
        // Looks uneven, and does not shrink: base64 does, seven bits of eight do, seven and three quarters do not.
        assert!(pays(&noise(1, 65_536).iter().map(|byte| byte & 0x7F).collect::<Vec<u8>>()));
        assert!(!pays(&noise(1, 65_536).iter().map(|byte| byte % 224).collect::<Vec<u8>>()));
    }

    #[test]
    fn the_sample_is_spread_over_the_whole() {
        let lens = |len: usize| -> Vec<usize> { sample(&vec![0; len]).map(<[u8]>::len).collect() };
        assert!(lens(0).is_empty());
        assert_eq!(lens(7), [7]);
        assert_eq!(lens(2048), [2048]);
        assert_eq!(lens(65_536), [128; 16]);
        let total: usize = lens(2049).iter().sum();
        assert!((1920..=2176).contains(&total), "{total}");
    }
}
