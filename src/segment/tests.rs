#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::format::{DATA_FRAME_MAX_BYTES, FRAME_MAX_BYTES, HEADER_BYTES, OVERHEAD_BYTES};
use super::key::tests::{chunk_key, counting};
use super::*;
use crate::erasure::{Codec, Geometry, Scheme};
use crate::units::SEGMENT_BYTES;

const CHUNK: Ino = Ino::new(1, 77);
/// Names and frames, one a line; made anew by `UPDATE_GOLDEN=1`.
const GOLDEN: &str = include_str!("golden/frames.txt");

/// Bytes that do not compress.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = (seed ^ 0x5DEE_CE66).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Words in no particular order.
pub(super) fn text(len: usize) -> Vec<u8> {
    let words = ["shard", "stripe", "segment", "of", "the", "chunk", "is", "sealed", "and", "a", "frame", "holds"];
    let order = noise(7, len);
    let mut text: Vec<u8> =
        order.iter().flat_map(|byte| words[usize::from(*byte) % words.len()].bytes().chain([b' '])).collect();
    text.truncate(len);
    text
}

/// The frame of `plain` alone in its chunk, at `place`, and what opens it.
fn sealed(place: Place, plain: &[u8]) -> (Vec<u8>, Opener) {
    let (mut sealer, key) = Sealer::fresh(place.chunk, &counting());
    let frame = sealer.seal(&mut Workspace::new(), place.stripe, place.shard_index, plain);
    (frame, Opener::new(&key))
}

fn open(opener: &Opener, bytes: &[u8], place: Place) -> Result<Vec<u8>, Error> {
    let mut plain = b"before".to_vec();
    let opened = opener.open(&mut Workspace::new(), &Frame::verify(bytes, place)?, &mut plain);
    assert!(opened.is_ok() || plain == b"before", "nothing is appended on an error");
    opened.map(|()| plain.split_off(6))
}

fn at(stripe: u32, shard_index: u8) -> Place {
    Place { chunk: CHUNK, stripe, shard_index }
}

fn parity_of(frame: &[u8]) -> Vec<u8> {
    let codec = Codec::new(Scheme::new(2, 1).unwrap());
    stripe::parity(&codec, CHUNK, 2, &[frame]).remove(0)
}

#[test]
fn frames_are_golden() {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let plain = b"predastore".to_vec();
    let (plain_frame, opener) = sealed(at(2, 1), &plain);
    let compressible = text(300);
    let frames = [
        ("plain", at(2, 1), plain_frame.clone()),
        ("zstd", at(2, 0), sealed(at(2, 0), &compressible).0),
        ("parity", at(2, 2), parity_of(&plain_frame)),
    ];
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let lines: String = frames.iter().map(|(name, _, bytes)| format!("{name} {}\n", hex(bytes))).collect();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/segment/golden/frames.txt");
        return std::fs::write(file, lines).unwrap();
    }
    assert_eq!(GOLDEN.lines().count(), frames.len());
    for (line, (name, place, bytes)) in GOLDEN.lines().zip(&frames) {
        let (found, golden) = line.split_once(' ').unwrap();
        assert_eq!(found, *name);
        let golden: Vec<u8> =
            (0..golden.len() / 2).map(|at| u8::from_str_radix(&golden[2 * at..2 * at + 2], 16).unwrap()).collect();
        Frame::verify(&golden, *place).unwrap();
        match *name {
            "plain" => assert_eq!(open(&opener, &golden, *place).unwrap(), plain),
            "zstd" => assert_eq!(open(&opener, &golden, *place).unwrap(), compressible),
            _ => {}
        }
        // Another zstd may compress otherwise, and may: what it wrote before must open.
        assert!(*name == "zstd" || golden == *bytes, "{name}");
    }
}

#[test]
fn a_frame_is_never_longer_than_its_segment_and_the_overhead() {
    for len in [0, 1, 100, 4096, SEGMENT_BYTES as usize] {
        let (noisy, _) = sealed(at(0, 0), &noise(1, len));
        assert_eq!(noisy.len(), len + OVERHEAD_BYTES);
        let (frame, opener) = sealed(at(0, 0), &text(len));
        assert!(frame.len() <= len + OVERHEAD_BYTES);
        assert_eq!(open(&opener, &frame, at(0, 0)).unwrap(), text(len));
    }
    let full = sealed(at(0, 0), &noise(1, SEGMENT_BYTES as usize)).0;
    assert_eq!(full.len(), DATA_FRAME_MAX_BYTES);
    assert_eq!(stripe::parity(&Codec::new(Scheme::new(1, 1).unwrap()), CHUNK, 0, &[&full])[0].len(), FRAME_MAX_BYTES);
    assert!(sealed(at(0, 0), &text(SEGMENT_BYTES as usize)).0.len() < SEGMENT_BYTES as usize / 2);
}

#[test]
fn every_flipped_bit_and_every_cut_is_seen() {
    let plain = sealed(at(2, 1), b"predastore").0;
    let zstd = sealed(at(2, 1), &text(300)).0;
    for frame in [&plain, &zstd, &parity_of(&plain)] {
        let place = Header::decode(frame).unwrap().place;
        Frame::verify(frame, place).unwrap();
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::verify(&damaged, place).is_err(), "bit {bit}");
        }
        for len in 0..frame.len() {
            assert!(Frame::verify(&frame[..len], place).is_err(), "{len} bytes");
        }
        assert!(matches!(Frame::verify(&[frame, &[0][..]].concat(), place), Err(Error::Length { .. })));
    }
}

#[test]
fn a_frame_of_another_place_is_not_taken() {
    let (frame, _) = sealed(at(2, 1), b"predastore");
    for wanted in [at(2, 0), at(3, 1), Place { chunk: Ino::new(2, 77), ..at(2, 1) }] {
        assert_eq!(Frame::verify(&frame, wanted), Err(Error::Elsewhere { found: at(2, 1), wanted }));
    }
}

#[test]
fn a_frame_that_was_forged_does_not_open() {
    for (len, byte) in [(10, 12), (10, 20), (10, 33), (300, 24), (300, 40)] {
        let (mut frame, opener) = sealed(at(2, 1), &text(len));
        frame[byte] ^= 1;
        format::finish(&mut frame);
        let place = Header::decode(&frame).unwrap().place;
        assert_eq!(open(&opener, &frame, place), Err(Error::Seal), "byte {byte}");
    }
    let (frame, _) = sealed(at(2, 1), b"predastore");
    assert_eq!(open(&Opener::new(&chunk_key(5)), &frame, at(2, 1)), Err(Error::Seal));
    assert_eq!(open(&Opener::new(&chunk_key(5)), &parity_of(&frame), at(2, 2)), Err(Error::Seal));
}

#[test]
fn a_later_format_is_named() {
    let (mut frame, _) = sealed(at(2, 1), b"predastore");
    frame[7] = b'2';
    assert_eq!(Frame::verify(&frame, at(2, 1)), Err(Error::UnknownFormat { version: b'2' }));
}

#[test]
#[should_panic = "would be sealed again"]
fn no_place_is_sealed_twice() {
    let (mut sealer, _) = Sealer::fresh(CHUNK, &counting());
    let mut workspace = Workspace::new();
    sealer.seal(&mut workspace, 1, 1, b"once");
    sealer.seal(&mut workspace, 2, 0, b"the next");
    sealer.seal(&mut workspace, 1, 1, b"twice");
}

/// A chunk as it is stored: by stripe and shard index, the frame if there is one.
fn store(geometry: Geometry, plain: &[u8]) -> (Vec<Vec<Option<Vec<u8>>>>, ChunkKey) {
    let codec = Codec::new(geometry.scheme());
    let (mut sealer, key) = Sealer::fresh(CHUNK, &counting());
    let mut workspace = Workspace::new();
    let stripes = geometry.stripes().map(|stripe| {
        let index = stripe.index;
        let mut frames: Vec<Option<Vec<u8>>> = stripe
            .segments()
            .map(|segment| {
                let plain = &plain[segment.range.start as usize..segment.range.end as usize];
                Some(sealer.seal(&mut workspace, index, segment.shard_index as u8, plain))
            })
            .collect();
        let data: Vec<&[u8]> = frames.iter().flatten().map(Vec::as_slice).collect();
        let parity = stripe::parity(&codec, CHUNK, index, &data);
        frames.resize(geometry.scheme().data_count(), None);
        frames.extend(parity.into_iter().map(Some));
        frames
    });
    (stripes.collect(), key)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_chunk_survives_the_loss_of_any_m_shards(
        (k, m) in (1u8..=6).prop_flat_map(|k| (Just(k), 0u8..=4)),
        len in prop_oneof![0usize..20_000, 0usize..900_000],
        order in Just((0..10usize).collect::<Vec<_>>()).prop_shuffle(),
        noisy: bool,
    ) {
        let scheme = Scheme::new(k, m).unwrap();
        let geometry = Geometry::new(scheme, len as u64).unwrap();
        // Every second segment or so is text, so that frames of a stripe differ in length.
        let plain: Vec<u8> = if noisy { noise(3, len) } else {
            let pairs = text(len).into_iter().zip(noise(3, len)).enumerate();
            pairs.map(|(at, (word, noise))| if at >> 15 & 1 == 0 { word } else { noise }).collect()
        };
        let (stored, key) = store(geometry, &plain);
        let lost: Vec<usize> =
            order.into_iter().filter(|index| *index < scheme.shard_count()).take(scheme.parity_count()).collect();
        let (codec, opener) = (Codec::new(scheme), Opener::new(&key));
        let (mut read, mut workspace) = (Vec::new(), Workspace::new());
        for (stripe, frames) in geometry.stripes().zip(&stored) {
            let place = |shard_index: usize| at(stripe.index, shard_index as u8);
            let present: Vec<bool> = (0..scheme.shard_count()).map(|index| !lost.contains(&index)).collect();
            let wanted: Vec<usize> = lost.iter().copied().filter(|index| stripe.has_frame(*index)).collect();
            let plan = codec.plan(&present, &wanted).unwrap();
            let rebuilt = stripe::rebuild(&codec, &plan, CHUNK, stripe.index, |index| {
                frames[index].as_ref().map(|frame| Frame::verify(frame, place(index)).unwrap())
            });
            let rebuilt = rebuilt.unwrap();
            for (index, bytes) in wanted.iter().zip(&rebuilt) {
                prop_assert_eq!(Some(bytes), frames[*index].as_ref(), "the very bytes");
            }
            for segment in stripe.clone().segments() {
                let index = segment.shard_index;
                let bytes = match wanted.iter().position(|wanted| *wanted == index) {
                    Some(position) => &rebuilt[position],
                    None => frames[index].as_ref().unwrap(),
                };
                opener.open(&mut workspace, &Frame::verify(bytes, place(index)).unwrap(), &mut read).unwrap();
            }
        }
        prop_assert!(read == plain, "what was read is not what was written");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in 0u8..5,
        lens in prop::option::of((0u32..200, 0u32..200)),
        mended: bool,
    ) {
        // Often with the marks of a frame, and often with a checksum that matches.
        if bytes.len() >= HEADER_BYTES {
            bytes[4..8].copy_from_slice(b"PdF1");
            bytes[21..24].copy_from_slice(&[kind, 0, 0]);
            if let Some((plain_len, payload_len)) = lens {
                bytes[24..28].copy_from_slice(&plain_len.to_le_bytes());
                let payload_len = if mended { (bytes.len() - HEADER_BYTES) as u32 } else { payload_len };
                bytes[28..32].copy_from_slice(&payload_len.to_le_bytes());
            }
            if mended {
                format::finish(&mut bytes);
            }
        }
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert!(open(&Opener::new(&chunk_key(5)), &bytes, header.place).is_err());
        }
    }

    #[test]
    fn any_frames_rebuild_or_are_refused(
        payloads in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..100), 1u8..4, 0u8..4), 3),
    ) {
        let codec = Codec::new(Scheme::new(2, 2).unwrap());
        let frames: Vec<Vec<u8>> = payloads.iter().enumerate().map(|(index, (payload, kind, shift))| {
            let mut frame = [&[0; HEADER_BYTES][..], payload].concat();
            frame[4..8].copy_from_slice(b"PdF1");
            frame[8..16].copy_from_slice(&CHUNK.0.to_le_bytes());
            frame[20] = (index as u8 + 1 + shift / 3) % 4;
            frame[21] = *kind;
            let plain_len = if *kind == 3 { 0 } else { payload.len().saturating_sub(16) as u32 };
            frame[24..28].copy_from_slice(&plain_len.to_le_bytes());
            frame[28..32].copy_from_slice(&(payload.len() as u32).to_le_bytes());
            format::finish(&mut frame);
            frame
        }).collect();
        for present in [[false, true, true, false], [false, false, true, true], [false, true, false, true]] {
            let plan = codec.plan(&present, &[0]).unwrap();
            let rebuilt = stripe::rebuild(&codec, &plan, CHUNK, 0, |index| {
                let bytes = &frames[index - 1];
                Frame::verify(bytes, Header::decode(bytes).ok()?.place).ok()
            });
            prop_assert!(rebuilt.is_err());
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    let len = SEGMENT_BYTES as usize;
    for (what, plain) in [("noise", noise(1, len)), ("text", text(len)), ("zeros", vec![0; len])] {
        let (mut sealer, key) = Sealer::fresh(CHUNK, &counting());
        let mut workspace = Workspace::new();
        let rate = |count: u32, mut work: Box<dyn FnMut(u32) + '_>| {
            let start = std::time::Instant::now();
            (0..count).for_each(&mut work);
            (u64::from(count) * SEGMENT_BYTES) as f64 / start.elapsed().as_secs_f64() / 1e9
        };
        let seal = rate(
            3000,
            Box::new(|stripe| {
                std::hint::black_box(sealer.seal(&mut workspace, stripe, 0, &plain));
            }),
        );
        let frame = sealer.seal(&mut workspace, 3000, 0, &plain);
        let (opener, mut out) = (Opener::new(&key), Vec::with_capacity(2 * len));
        let opening = rate(
            3000,
            Box::new(|_| {
                out.clear();
                let frame = Frame::verify(&frame, at(3000, 0)).unwrap();
                opener.open(&mut workspace, &frame, &mut out).unwrap();
            }),
        );
        let verify = rate(
            30_000,
            Box::new(|_| {
                std::hint::black_box(Frame::verify(std::hint::black_box(&frame), at(3000, 0)).unwrap());
            }),
        );
        let probe = rate(
            30_000,
            Box::new(|_| {
                std::hint::black_box(compress::looks_compressible(std::hint::black_box(&plain)));
            }),
        );
        let len = frame.len();
        println!(
            "{what}: frame {len}, seal {seal:.2}, verify+open {opening:.2}, verify {verify:.1}, probe {probe:.1} GB/s"
        );
    }
}
