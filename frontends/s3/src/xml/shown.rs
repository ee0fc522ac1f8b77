//! The core's values as the bodies of requests and responses have them.

use predastore::catalog::{Checksum, ChecksumAlgorithm, ChecksumKind, Part, Upload};
use predastore::ids::Ino;

use super::request::Tag;
use super::response::{self, Owner, ShownChecksum};
use crate::checksum::Base64 as _;
use crate::respond::milliseconds;

/// An account as an owner.
pub fn owner(account_id: &str) -> Owner {
    Owner { id: account_id.to_owned(), display_name: account_id.to_owned() }
}

/// Base64, with `-<part count>` where composite.
pub fn checksum_text(checksum: &Checksum, part_count: u32) -> String {
    match checksum.kind {
        ChecksumKind::FullObject => checksum.to_base64(),
        ChecksumKind::Composite => format!("{}-{part_count}", checksum.to_base64()),
    }
}

/// The first of an object's checksums; S3 shows one.
pub fn object_checksum(checksums: &[Checksum], part_count: u32) -> Option<ShownChecksum> {
    checksums.first().map(|one| ShownChecksum {
        algorithm: one.algorithm,
        text: checksum_text(one, part_count),
        kind: Some(one.kind),
    })
}

/// The checksum of a part: of `algorithm`, or the first there is.
pub fn part_checksum(checksums: &[Checksum], algorithm: Option<ChecksumAlgorithm>) -> Option<ShownChecksum> {
    let wanted = |one: &&Checksum| algorithm.is_none_or(|algorithm| one.algorithm == algorithm);
    checksums.iter().find(wanted).map(|one| ShownChecksum {
        algorithm: one.algorithm,
        text: one.to_base64(),
        kind: None,
    })
}

/// A part; its checksum only where the upload announced one.
pub fn part(part: &Part, algorithm: Option<ChecksumAlgorithm>) -> response::Part {
    response::Part {
        part_number: part.number,
        modified_ms: milliseconds(part.modified),
        etag: part.etag.to_string(),
        size_bytes: part.size_bytes,
        checksum: algorithm.and_then(|algorithm| part_checksum(&part.checksums, Some(algorithm))),
    }
}

/// An upload in progress. `owner_id`: the account it acts for.
pub fn upload(upload: &Upload, owner_id: &str) -> response::Upload {
    response::Upload {
        key: text(&upload.key),
        upload_id: upload_id(upload.id),
        initiated_ms: milliseconds(upload.created),
        owner: owner(if upload.attrs.owner.is_empty() { owner_id } else { &upload.attrs.owner }),
        storage_class: storage_class(&upload.attrs.storage_class).to_owned(),
        checksum: upload.attrs.upload_checksum,
    }
}

/// An upload's id for clients: its node in hexadecimal.
pub fn upload_id(upload: Ino) -> String {
    format!("{:016x}", upload.0)
}

/// The inverse of [`upload_id`]; none for any other text.
pub fn parse_upload_id(text: &str) -> Option<Ino> {
    let canonical = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|id| canonical && *id <= i64::MAX as u64).map(Ino)
}

/// The class as clients see it.
pub fn storage_class(kept: &str) -> &str {
    if kept.is_empty() { "STANDARD" } else { kept }
}

/// A key as text; only the file system can make keys that are not UTF-8, and does not.
pub fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// Tags as the core keeps them.
pub fn pairs(tags: Vec<Tag>) -> Vec<(String, String)> {
    tags.into_iter().map(|tag| (tag.key, tag.value)).collect()
}

/// Tags as bodies have them.
pub fn tags(pairs: &[(String, String)]) -> Vec<Tag> {
    pairs.iter().map(|(key, value)| Tag { key: key.clone(), value: value.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upload_ids_round_trip_and_refuse_other_spellings() {
        let id = Ino::new(1, 77);
        assert_eq!(parse_upload_id(&upload_id(id)), Some(id));
        for text in ["", "77", "000100000000004g", "+00100000000004d", "ffffffffffffffff"] {
            assert_eq!(parse_upload_id(text), None, "{text}");
        }
    }

    #[test]
    fn a_composite_checksum_shows_its_part_count() {
        let mut checksum =
            Checksum { algorithm: ChecksumAlgorithm::Crc32, kind: ChecksumKind::FullObject, value: vec![0, 0, 0, 1] };
        assert_eq!(checksum_text(&checksum, 3), "AAAAAQ==");
        checksum.kind = ChecksumKind::Composite;
        assert_eq!(checksum_text(&checksum, 3), "AAAAAQ==-3");
    }
}
