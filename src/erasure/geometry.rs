//! Where the bytes of a chunk are.
//!
//! ```text
//! chunk     | stripe 0                       | stripe 1                       | stripe 2: what is left, r bytes |
//! stripe 0  | segment of shard 0 | ... of shard k-1 |     each 64 KiB
//! stripe 2  | segment of shard 0 | ... |                  each u = ceil(r/k) rounded up to 8 KiB, the last shorter
//! ```
//!
//! A full stripe is k segments of 64 KiB, one to a data shard. The last stripe is narrower: its r bytes are spread over
//! the shards in segments of u bytes, so there are ceil(r/u) of them, at most k; data shards beyond have no frame
//! there. Every parity shard has a frame in every stripe.
//!
//! Invariants
//! - The segments of a chunk, in order of (stripe, shard), are its bytes from the first to the last: no gap, no overlap.
//! - No segment is empty, and none is longer than [`SEGMENT_BYTES`].
//! - All segments of a stripe are equally long, but for the chunk's very last.

use std::ops::Range;

use super::{Error, Scheme};
use crate::units::{BLOCK_BYTES, CHUNK_BYTES, SEGMENT_BYTES};

/// How one chunk is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    scheme: Scheme,
    len_bytes: u64,
}

/// A run of a chunk that is encoded as one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stripe {
    /// Its place among the chunk's stripes.
    pub index: u32,
    /// The bytes of the chunk that it holds. Not empty.
    pub range: Range<u64>,
    scheme: Scheme,
    /// Length of its segments, but for the chunk's last.
    unit_bytes: u64,
}

/// A run of a chunk that is sealed as one: a data shard's share of a stripe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Which stripe.
    pub stripe: u32,
    /// Which data shard.
    pub shard_index: usize,
    /// The bytes of the chunk that it holds. Not empty.
    pub range: Range<u64>,
}

/// A segment, and what of it a reader wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cover {
    /// The segment.
    pub segment: Segment,
    /// What is wanted, from the segment's start. Not empty.
    pub slice: Range<usize>,
}

/// Where one byte of a chunk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Location {
    /// Which stripe.
    pub stripe: u32,
    /// Which data shard.
    pub shard_index: usize,
    /// From the start of the shard's segment in that stripe.
    pub offset_bytes: u64,
}

impl Geometry {
    /// The geometry of a chunk of `len_bytes` of plaintext.
    ///
    /// # Errors
    /// [`Error::ChunkLength`]: no chunk is that long.
    pub const fn new(scheme: Scheme, len_bytes: u64) -> Result<Geometry, Error> {
        if len_bytes > CHUNK_BYTES {
            return Err(Error::ChunkLength { len_bytes });
        }
        Ok(Geometry { scheme, len_bytes })
    }

    /// k and m.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Length of the plaintext.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Plaintext of a full stripe.
    const fn stripe_bytes(&self) -> u64 {
        self.scheme.data_count() as u64 * SEGMENT_BYTES
    }

    /// Stripes of the chunk; none if it is empty.
    pub const fn stripe_count(&self) -> u32 {
        // At most CHUNK_BYTES / SEGMENT_BYTES.
        self.len_bytes.div_ceil(self.stripe_bytes()) as u32
    }

    /// The stripe of that index, if the chunk has it.
    pub fn stripe(&self, index: u32) -> Option<Stripe> {
        let start = u64::from(index) * self.stripe_bytes();
        let end = self.len_bytes.min(start + self.stripe_bytes());
        let unit_bytes = end.checked_sub(start)?.div_ceil(self.scheme.data_count() as u64);
        let stripe = Stripe { index, range: start..end, scheme: self.scheme, unit_bytes: round_to_blocks(unit_bytes) };
        (start < end).then_some(stripe)
    }

    /// All stripes, in order.
    pub fn stripes(&self) -> impl Iterator<Item = Stripe> + use<> {
        let geometry = *self;
        (0..geometry.stripe_count()).filter_map(move |index| geometry.stripe(index))
    }

    /// The segments that hold `range` and what of each, in order: their slices one after the other are the range.
    ///
    /// `range`: half-open, bytes of the chunk; what lies beyond its end is not covered.
    pub fn cover(&self, range: Range<u64>) -> impl Iterator<Item = Cover> + use<> {
        let geometry = *self;
        let range = range.start..range.end.min(self.len_bytes);
        let indexes = match range.is_empty() {
            true => 0..0,
            // Both below the stripe count.
            false => (range.start / self.stripe_bytes()) as u32..range.end.div_ceil(self.stripe_bytes()) as u32,
        };
        indexes
            .filter_map(move |index| geometry.stripe(index))
            .flat_map(|stripe| stripe.segments())
            .filter_map(move |segment| segment.wanted(&range))
    }

    /// Where the byte at `offset` is; none if the chunk is not that long.
    pub fn locate(&self, offset: u64) -> Option<Location> {
        if offset >= self.len_bytes {
            return None;
        }
        let stripe = self.stripe((offset / self.stripe_bytes()) as u32)?;
        let within = offset - stripe.range.start;
        let shard_index = (within / stripe.unit_bytes) as usize;
        Some(Location { stripe: stripe.index, shard_index, offset_bytes: within % stripe.unit_bytes })
    }

    /// The inverse of [`Geometry::locate`]; none if there is no such byte.
    pub fn offset(&self, location: Location) -> Option<u64> {
        let range = self.stripe(location.stripe)?.segment(location.shard_index)?.range;
        let offset = range.start.checked_add(location.offset_bytes)?;
        (offset < range.end).then_some(offset)
    }

    /// Frames of that shard: one a stripe, but for a data shard that a narrow last stripe does not reach.
    pub fn frame_count(&self, shard_index: usize) -> u32 {
        let Some(last) = self.stripe_count().checked_sub(1).and_then(|index| self.stripe(index)) else { return 0 };
        if shard_index >= self.scheme.shard_count() {
            return 0;
        }
        last.index + u32::from(last.has_frame(shard_index))
    }
}

impl Stripe {
    /// Data shards that have a frame in this stripe: those of the lowest indexes.
    pub const fn data_frame_count(&self) -> usize {
        (self.range.end - self.range.start).div_ceil(self.unit_bytes) as usize
    }

    /// Whether the shard of that index has a frame in this stripe.
    pub const fn has_frame(&self, shard_index: usize) -> bool {
        shard_index < self.data_frame_count()
            || self.scheme.is_parity(shard_index) && shard_index < self.scheme.shard_count()
    }

    /// The segment of that data shard, if it has one in this stripe.
    pub fn segment(&self, shard_index: usize) -> Option<Segment> {
        (shard_index < self.data_frame_count()).then(|| {
            let start = self.range.start + shard_index as u64 * self.unit_bytes;
            let end = self.range.end.min(start + self.unit_bytes);
            Segment { stripe: self.index, shard_index, range: start..end }
        })
    }

    /// The segments, by shard index.
    pub fn segments(self) -> impl Iterator<Item = Segment> {
        (0..self.data_frame_count()).filter_map(move |shard_index| self.segment(shard_index))
    }
}

impl Segment {
    /// Length of its plaintext.
    pub const fn len_bytes(&self) -> usize {
        (self.range.end - self.range.start) as usize
    }

    /// What of it lies in `range`, if anything does.
    fn wanted(self, range: &Range<u64>) -> Option<Cover> {
        let start = self.range.start.max(range.start);
        let end = self.range.end.min(range.end);
        (start < end).then(|| {
            let slice = (start - self.range.start) as usize..(end - self.range.start) as usize;
            Cover { segment: self, slice }
        })
    }
}

const fn round_to_blocks(len_bytes: u64) -> u64 {
    len_bytes.next_multiple_of(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::units::MIB;
    use proptest::prelude::*;

    /// The chunk cut naively: repeatedly takes a stripe off what is left. The segments of each stripe.
    fn cut(k: u64, len_bytes: u64) -> Vec<Vec<Range<u64>>> {
        let mut stripes = Vec::new();
        let mut at = 0;
        while at < len_bytes {
            let left = (len_bytes - at).min(k * SEGMENT_BYTES);
            let mut unit = BLOCK_BYTES;
            while unit * k < left {
                unit += BLOCK_BYTES;
            }
            let end = at + left;
            let mut segments = Vec::new();
            while at < end {
                segments.push(at..end.min(at + unit));
                at = end.min(at + unit);
            }
            stripes.push(segments);
        }
        stripes
    }

    fn schemes() -> impl Strategy<Value = Scheme> {
        (1u8..=16).prop_flat_map(|k| (Just(k), 0..=16 - k)).prop_map(|(k, m)| Scheme::new(k, m).unwrap())
    }

    /// Lengths of all sizes, and those just around the edges of blocks, segments and stripes.
    fn geometries() -> impl Strategy<Value = Geometry> {
        schemes().prop_flat_map(|scheme| {
            let stripe = scheme.data_count() as u64 * SEGMENT_BYTES;
            let around =
                |unit: u64, count: u64| (0..=count, 0..=2u64).prop_map(move |(n, d)| (n * unit + d).max(1) - 1);
            prop_oneof![
                0..=4 * MIB,
                0..=2 * stripe,
                around(BLOCK_BYTES, 64),
                around(SEGMENT_BYTES, 40),
                around(stripe, 4),
                around(scheme.data_count() as u64 * BLOCK_BYTES, 20),
                CHUNK_BYTES - 2..=CHUNK_BYTES,
            ]
            .prop_map(move |len_bytes| Geometry::new(scheme, len_bytes).unwrap())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn a_chunk_is_cut_as_if_by_hand(geometry in geometries()) {
            let scheme = geometry.scheme();
            let model = cut(scheme.data_count() as u64, geometry.len_bytes());
            prop_assert_eq!(geometry.stripe_count() as usize, model.len());
            prop_assert_eq!(geometry.stripe(geometry.stripe_count()), None);
            let stripes: Vec<Stripe> = geometry.stripes().collect();
            let mut frame_counts = vec![0; scheme.shard_count()];
            for (index, (stripe, expected)) in stripes.iter().zip(&model).enumerate() {
                prop_assert_eq!(stripe.index as usize, index);
                prop_assert_eq!(stripe.range.clone(), expected[0].start..expected[expected.len() - 1].end);
                prop_assert!(expected.len() <= scheme.data_count());
                prop_assert_eq!(stripe.data_frame_count(), expected.len());
                let segments: Vec<Segment> = stripe.clone().segments().collect();
                let ranges: Vec<Range<u64>> = segments.iter().map(|segment| segment.range.clone()).collect();
                prop_assert_eq!(&ranges, expected);
                for (shard_index, segment) in segments.iter().enumerate() {
                    prop_assert_eq!((segment.stripe as usize, segment.shard_index), (index, shard_index));
                    prop_assert!((1..=SEGMENT_BYTES as usize).contains(&segment.len_bytes()));
                }
                for (shard_index, count) in frame_counts.iter_mut().enumerate() {
                    let there = shard_index < expected.len() || shard_index >= scheme.data_count();
                    prop_assert_eq!(stripe.has_frame(shard_index), there);
                    *count += u32::from(there);
                }
                prop_assert!(!stripe.has_frame(scheme.shard_count()));
            }
            for (shard_index, count) in frame_counts.into_iter().enumerate() {
                prop_assert_eq!(geometry.frame_count(shard_index), count);
            }
            prop_assert_eq!(geometry.frame_count(scheme.shard_count()), 0);
        }

        #[test]
        fn a_range_is_covered_by_what_it_touches(geometry in geometries(), a in 0..=CHUNK_BYTES, b in 0..=2 * MIB) {
            let len_bytes = geometry.len_bytes();
            let start = if len_bytes == 0 { a } else { a % (len_bytes + 1) };
            let range = start..start + b;
            let mut expected = Vec::new();
            for (stripe, segments) in cut(geometry.scheme().data_count() as u64, len_bytes).into_iter().enumerate() {
                for (shard_index, segment) in segments.into_iter().enumerate() {
                    let (from, to) = (segment.start.max(range.start), segment.end.min(range.end));
                    if from < to {
                        let slice = (from - segment.start) as usize..(to - segment.start) as usize;
                        let segment = Segment { stripe: stripe as u32, shard_index, range: segment };
                        expected.push(Cover { segment, slice });
                    }
                }
            }
            let covers: Vec<Cover> = geometry.cover(range).collect();
            prop_assert_eq!(covers, expected);
        }

        #[test]
        fn every_byte_has_one_location(geometry in geometries(), offset in 0..=CHUNK_BYTES) {
            let len_bytes = geometry.len_bytes();
            prop_assert_eq!(geometry.locate(len_bytes), None);
            if len_bytes > 0 {
                let offset = offset % len_bytes;
                let location = geometry.locate(offset).unwrap();
                let segment = geometry.stripe(location.stripe).unwrap().segment(location.shard_index).unwrap();
                prop_assert!(segment.range.contains(&offset));
                prop_assert_eq!(segment.range.start + location.offset_bytes, offset);
                prop_assert_eq!(geometry.offset(location), Some(offset));
                let beyond = Location { offset_bytes: segment.len_bytes() as u64, ..location };
                prop_assert_eq!(geometry.offset(beyond), None);
                prop_assert_eq!(geometry.offset(Location { offset_bytes: u64::MAX, ..location }), None);
                let parity = Location { shard_index: geometry.scheme().data_count(), ..location };
                prop_assert_eq!(geometry.offset(parity), None);
            }
        }
    }

    #[test]
    fn small_chunks_waste_little() {
        let scheme = Scheme::new(3, 2).unwrap();
        let lens = |len_bytes| -> Vec<usize> {
            let geometry = Geometry::new(scheme, len_bytes).unwrap();
            geometry.stripes().flat_map(Stripe::segments).map(|segment| segment.len_bytes()).collect()
        };
        assert!(lens(0).is_empty());
        assert_eq!(lens(1), [1]);
        assert_eq!(lens(8192 * 2 + 1), [8192, 8192, 1]);
        assert_eq!(lens(8192 * 3 + 1), [16384, 8193]);
        assert_eq!(lens(65_536 * 3 + 5), [65_536, 65_536, 65_536, 5]);
    }

    #[test]
    fn a_chunk_has_a_longest_length_and_far_stripes_are_not_there() {
        let scheme = Scheme::new(32, 0).unwrap();
        assert_eq!(Geometry::new(scheme, CHUNK_BYTES + 1), Err(Error::ChunkLength { len_bytes: CHUNK_BYTES + 1 }));
        assert_eq!(Geometry::new(scheme, CHUNK_BYTES).unwrap().stripe(u32::MAX), None);
        let geometry = Geometry::new(scheme, 100).unwrap();
        assert_eq!(geometry.cover(u64::MAX - 1..u64::MAX).count(), 0);
        assert_eq!(geometry.cover(50..50).count(), 0);
    }
}
