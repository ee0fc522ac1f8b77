//! Digests of a body on its way in, and of an upload from its parts.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use md5::Digest as _;

use crate::catalog::{Checksum, ChecksumAlgorithm, ChecksumKind, ETag, Part, Version};

use super::Error;
use super::lanes::Md5;

/// All digests of one run of bytes, as it streams by.
pub(super) struct Digests {
    md5: Md5,
    hashers: Vec<(ChecksumAlgorithm, Hasher)>,
    len_bytes: u64,
}

/// What came of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Digested {
    pub(super) len_bytes: u64,
    pub(super) md5: [u8; 16],
    /// In the order they were asked for.
    pub(super) checksums: Vec<Checksum>,
    /// The MD5 as it can be gone on with; none of what was not computed here.
    pub(super) state: Option<Md5>,
}

enum Hasher {
    Crc(Box<crc_fast::Digest>),
    Sha(Context),
}

impl Digests {
    pub(super) fn new(algorithms: &[ChecksumAlgorithm]) -> Self {
        let mut hashers: Vec<(ChecksumAlgorithm, Hasher)> = Vec::with_capacity(algorithms.len());
        for algorithm in algorithms {
            if !hashers.iter().any(|(known, _)| known == algorithm) {
                hashers.push((*algorithm, Hasher::new(*algorithm)));
            }
        }
        Digests { md5: Md5::new(), hashers, len_bytes: 0 }
    }

    /// Only the MD5, of these bytes behind those that `md5` has seen.
    pub(super) fn continuing(md5: Md5) -> Self {
        Digests { md5, hashers: Vec::new(), len_bytes: 0 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.len_bytes += bytes.len() as u64;
        self.md5.update(bytes);
        self.hashers.iter_mut().for_each(|(_, hasher)| hasher.update(bytes));
    }

    /// As [`Digests::update`] for each of `runs`, sharing the work with other bodies that come in now. Blocks.
    pub(super) fn update_all(&mut self, runs: &[Bytes]) {
        self.len_bytes += runs.iter().map(|run| run.len() as u64).sum::<u64>();
        self.md5.update_among_others(runs);
        for (_, hasher) in &mut self.hashers {
            runs.iter().for_each(|run| hasher.update(run));
        }
    }

    pub(super) fn finish(self) -> Digested {
        let full = |(algorithm, hasher): (ChecksumAlgorithm, Hasher)| Checksum {
            algorithm,
            kind: ChecksumKind::FullObject,
            value: hasher.finish(algorithm),
        };
        let checksums = self.hashers.into_iter().map(full).collect();
        Digested { len_bytes: self.len_bytes, md5: self.md5.finish(), checksums, state: Some(self.md5) }
    }
}

impl Hasher {
    fn new(algorithm: ChecksumAlgorithm) -> Self {
        match (crc(algorithm), algorithm) {
            (Some(crc), _) => Hasher::Crc(Box::new(crc_fast::Digest::new(crc))),
            (None, ChecksumAlgorithm::Sha1) => Hasher::Sha(Context::new(&SHA1_FOR_LEGACY_USE_ONLY)),
            (None, _) => Hasher::Sha(Context::new(&SHA256)),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Crc(digest) => digest.update(bytes),
            Hasher::Sha(context) => context.update(bytes),
        }
    }

    fn finish(self, algorithm: ChecksumAlgorithm) -> Vec<u8> {
        match self {
            Hasher::Crc(digest) => crc_bytes(algorithm, digest.finalize()),
            Hasher::Sha(context) => context.finish().as_ref().to_vec(),
        }
    }
}

impl Digested {
    /// Compares with what was promised.
    ///
    /// # Errors
    /// `BadDigest`; `Invalid`: a checksum was promised that nobody computed.
    pub(super) fn check(&self, md5: Option<[u8; 16]>, promised: &[Checksum]) -> Result<(), Error> {
        if md5.is_some_and(|md5| md5 != self.md5) {
            return Err(Error::BadDigest { what: "Content-MD5" });
        }
        promised.iter().try_for_each(|promise| self.check_one(promise))
    }

    fn check_one(&self, promise: &Checksum) -> Result<(), Error> {
        let what = name(promise.algorithm);
        match self.checksums.iter().find(|checksum| checksum.algorithm == promise.algorithm) {
            None => Err(Error::Invalid(format!("a {what} came that was not announced"))),
            Some(checksum) if checksum.value != promise.value => Err(Error::BadDigest { what }),
            Some(_) => Ok(()),
        }
    }
}

/// Whether `bytes` are the whole body of `version`, by a checksum that was kept with it, or by its MD5.
pub fn is_body_of(bytes: &[u8], version: &Version) -> bool {
    let is_full = |checksum: &&Checksum| checksum.kind == ChecksumKind::FullObject;
    match version.attrs.checksums.iter().find(is_full) {
        Some(kept) => {
            let mut hasher = Hasher::new(kept.algorithm);
            hasher.update(bytes);
            hasher.finish(kept.algorithm) == kept.value
        }
        None => version.etag.part_count == 0 && md5::Md5::digest(bytes)[..] == version.etag.md5,
    }
}

/// How S3 calls an algorithm.
pub(super) fn name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "CRC32",
        ChecksumAlgorithm::Crc32c => "CRC32C",
        ChecksumAlgorithm::Crc64Nvme => "CRC64NVME",
        ChecksumAlgorithm::Sha1 => "SHA1",
        ChecksumAlgorithm::Sha256 => "SHA256",
    }
}

/// Whether S3 knows this kind of multipart checksum: a whole object's SHA cannot be had from its parts', and a
/// composite CRC-64 is not defined.
pub(super) fn is_defined(algorithm: ChecksumAlgorithm, kind: ChecksumKind) -> bool {
    match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => true,
        ChecksumAlgorithm::Crc64Nvme => kind == ChecksumKind::FullObject,
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => kind == ChecksumKind::Composite,
    }
}

/// The checksum of an upload of these parts; none where a part lacks it.
pub(super) fn of_parts(algorithm: ChecksumAlgorithm, kind: ChecksumKind, parts: &[Part]) -> Option<Checksum> {
    let values = parts.iter().map(|part| Some((part_checksum(part, algorithm)?, part.size_bytes)));
    let values: Vec<(&[u8], u64)> = values.collect::<Option<_>>()?;
    let value = match kind {
        ChecksumKind::Composite => composite(algorithm, &values),
        ChecksumKind::FullObject => combined(algorithm, &values)?,
    };
    Some(Checksum { algorithm, kind, value })
}

fn part_checksum(part: &Part, algorithm: ChecksumAlgorithm) -> Option<&[u8]> {
    part.checksums.iter().find(|checksum| checksum.algorithm == algorithm).map(|checksum| checksum.value.as_slice())
}

/// The checksum of the parts' checksums, one after another.
fn composite(algorithm: ChecksumAlgorithm, values: &[(&[u8], u64)]) -> Vec<u8> {
    let mut hasher = Hasher::new(algorithm);
    values.iter().for_each(|(value, _)| hasher.update(value));
    hasher.finish(algorithm)
}

/// The CRC of all bytes, from the parts' CRCs and lengths.
fn combined(algorithm: ChecksumAlgorithm, values: &[(&[u8], u64)]) -> Option<Vec<u8>> {
    let crc = crc(algorithm)?;
    let (first, rest) = values.split_first()?;
    let join = |whole: u64, (value, len): &(&[u8], u64)| crc_fast::checksum_combine(crc, whole, crc_value(value), *len);
    Some(crc_bytes(algorithm, rest.iter().fold(crc_value(first.0), join)))
}

/// MD5 of the parts' MD5s, with their count.
pub(super) fn etag_of_parts<'a>(etags: impl ExactSizeIterator<Item = &'a ETag>) -> ETag {
    let part_count = etags.len() as u32;
    let mut md5 = Md5::new();
    etags.for_each(|etag| md5.update(&etag.md5));
    ETag { md5: md5.finish(), part_count }
}

fn crc(algorithm: ChecksumAlgorithm) -> Option<CrcAlgorithm> {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
        ChecksumAlgorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
        ChecksumAlgorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => None,
    }
}

fn crc_bytes(algorithm: ChecksumAlgorithm, value: u64) -> Vec<u8> {
    match algorithm {
        ChecksumAlgorithm::Crc64Nvme => value.to_be_bytes().to_vec(),
        _ => (value as u32).to_be_bytes().to_vec(),
    }
}

fn crc_value(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::env::Timestamp;

    const ALL: [ChecksumAlgorithm; 5] = [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32c,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ];

    fn digest(bytes: &[u8]) -> Digested {
        let mut digests = Digests::new(&ALL);
        bytes.chunks(7).for_each(|run| digests.update(run));
        digests.finish()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn check_values_of_the_standards() {
        let digested = digest(b"123456789");
        let values: Vec<String> = digested.checksums.iter().map(|checksum| hex(&checksum.value)).collect();
        assert_eq!(
            values,
            [
                "cbf43926",
                "e3069283",
                "ae8b14860a799888",
                "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
                "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
            ]
        );
        assert_eq!(hex(&digested.md5), "25f9e794323b453885f5181f1b624d0b");
    }

    fn part(bytes: &[u8]) -> Part {
        let digested = digest(bytes);
        let etag = ETag { md5: digested.md5, part_count: 0 };
        Part { number: 1, size_bytes: bytes.len() as u64, modified: Timestamp(0), etag, checksums: digested.checksums }
    }

    #[test]
    fn crcs_of_parts_combine_to_that_of_the_whole() {
        let data: Vec<u8> = (0..60_000u32).map(|i| ((i * i) >> 7) as u8).collect();
        let whole = digest(&data);
        for cuts in [vec![], vec![1], vec![32_768, 32_769], vec![3, 3, 30_000, 59_999]] {
            let starts = [0].into_iter().chain(cuts.iter().copied());
            let ends = cuts.iter().copied().chain([data.len()]);
            let parts: Vec<Part> = starts.zip(ends).map(|(start, end)| part(&data[start..end])).collect();
            for (algorithm, full) in ALL.iter().zip(&whole.checksums).take(3) {
                let combined = of_parts(*algorithm, ChecksumKind::FullObject, &parts).unwrap();
                assert_eq!(&combined, full, "{cuts:?}");
            }
        }
    }

    #[test]
    fn composites_are_digests_of_digests() {
        let parts = [part(b"a"), part(b"bc")];
        let sha = of_parts(ChecksumAlgorithm::Sha256, ChecksumKind::Composite, &parts).unwrap();
        let joined = [parts[0].checksums[4].value.as_slice(), &parts[1].checksums[4].value].concat();
        assert_eq!(sha.value, digest(&joined).checksums[4].value);
        assert_eq!(of_parts(ChecksumAlgorithm::Sha256, ChecksumKind::FullObject, &parts), None);
        let etag = etag_of_parts(parts.iter().map(|part| &part.etag));
        let joined = [parts[0].etag.md5, parts[1].etag.md5].concat();
        assert_eq!(etag, ETag { md5: digest(&joined).md5, part_count: 2 });
    }

    #[test]
    fn promises_are_held_to() {
        let digested = digest(b"body");
        let mut promise = digested.checksums[0].clone();
        assert!(digested.check(Some(digested.md5), std::slice::from_ref(&promise)).is_ok());
        promise.value[0] ^= 1;
        assert!(matches!(digested.check(None, &[promise]), Err(Error::BadDigest { what: "CRC32" })));
        assert!(matches!(digested.check(Some([0; 16]), &[]), Err(Error::BadDigest { what: "Content-MD5" })));
    }
}
