//! Values that the catalog keeps: what a version is, where its bytes are.
//!
//! Encoded values ([`Attrs`], [`Place`]) begin with one version byte; the rest is postcard. A struct never
//! changes its fields: a new shape is a new version byte, and old ones stay readable.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::env::Timestamp;
use crate::ids::{BucketId, Ino, NodeId, Seq, ShardId, VersionId};

use super::Error;

/// An entity tag: the MD5 of the bytes, or of the parts' MD5s with their count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ETag {
    /// 16 bytes of MD5.
    pub md5: [u8; 16],
    /// Number of parts of a multipart upload; 0 for anything else.
    pub part_count: u32,
}

impl ETag {
    /// 16 bytes, or 20 with a part count (little-endian).
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.md5.to_vec();
        if self.part_count > 0 {
            bytes.extend_from_slice(&self.part_count.to_le_bytes());
        }
        bytes
    }

    /// The inverse of [`ETag::to_bytes`]; none for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (md5, count) = bytes.split_first_chunk::<16>()?;
        let part_count = match count {
            [] => 0,
            count => u32::from_le_bytes(count.try_into().ok()?),
        };
        Some(ETag { md5: *md5, part_count })
    }
}

impl std::fmt::Display for ETag {
    /// Hexadecimal, `-n` appended for multipart, no quotes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        let mut hex = [0; 32];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.md5) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        // A listing shows a thousand of them: one write each.
        f.write_str(std::str::from_utf8(&hex).map_err(|_| std::fmt::Error)?)?;
        if self.part_count > 0 {
            write!(f, "-{}", self.part_count)?;
        }
        Ok(())
    }
}

/// The checksums that S3 knows. Ordinals are stable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (ISO-HDLC), 4 bytes big-endian.
    Crc32,
    /// CRC-32C, 4 bytes big-endian.
    Crc32c,
    /// CRC-64/NVME, 8 bytes big-endian.
    Crc64Nvme,
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
}

/// What a multipart checksum covers. Ordinals are stable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ChecksumKind {
    /// All the object's bytes.
    FullObject,
    /// The checksums of the parts, one after another.
    Composite,
}

/// One checksum.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Checksum {
    /// How it was computed.
    pub algorithm: ChecksumAlgorithm,
    /// Over what.
    pub kind: ChecksumKind,
    /// Big-endian bytes of the algorithm's width.
    pub value: Vec<u8>,
}

/// Headers that S3 keeps with an object and gives back. Ordinals are stable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Header {
    /// `Content-Type`
    ContentType,
    /// `Cache-Control`
    CacheControl,
    /// `Content-Disposition`
    ContentDisposition,
    /// `Content-Encoding`, without `aws-chunked`
    ContentEncoding,
    /// `Content-Language`
    ContentLanguage,
    /// `Expires`, as sent
    Expires,
    /// `x-amz-website-redirect-location`
    WebsiteRedirect,
}

/// Object-lock retention. Ordinals are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RetentionMode {
    /// May be bypassed by who is allowed to.
    Governance,
    /// By nobody.
    Compliance,
}

/// A version that may not be deleted before `until` (catalog time).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Retention {
    /// Who may lift it.
    pub mode: RetentionMode,
    /// When it ends.
    pub until: Timestamp,
}

/// Server-side encryption as asked for by the client. Ordinals are stable.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Encryption {
    /// None was asked for.
    #[default]
    None,
    /// SSE-S3.
    S3,
    /// SSE-KMS under the named key.
    Kms {
        /// The key's name.
        key: String,
    },
    /// SSE-C: only a salted digest of the client's key is kept.
    Customer {
        /// Digest of the key, to refuse a wrong one.
        digest: Vec<u8>,
    },
}

/// POSIX attributes of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Posix {
    /// File type and permission bits, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Last modification; S3's `LastModified` is the dentry's.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
    /// Last access.
    pub atime: Timestamp,
}

/// Size, time and ETag of an inode that more than one name, or none, shows (dentry kind 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Linked {
    /// Length in bytes.
    pub size_bytes: u64,
    /// Last modification.
    pub modified: Timestamp,
    /// Entity tag.
    pub etag: ETag,
}

/// Everything a version carries besides its bytes, size, time and ETag. Version 1.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Attrs {
    /// POSIX attributes; none: 0644, root, the version's time.
    pub posix: Option<Posix>,
    /// Present where the dentry does not hold them.
    pub linked: Option<Linked>,
    /// The account that owns the version; empty: the bucket's owner.
    pub owner: String,
    /// Headers to give back, to the byte.
    pub headers: Vec<(Header, String)>,
    /// `x-amz-meta-*`, names in lower case without the prefix.
    pub metadata: Vec<(String, String)>,
    /// Extended attributes of POSIX.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Object tags, in the order given.
    pub tags: Vec<(String, String)>,
    /// Checksums to give back when asked.
    pub checksums: Vec<Checksum>,
    /// The checksum a multipart upload announced at its creation.
    pub upload_checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// Object lock.
    pub retention: Option<Retention>,
    /// Legal hold.
    pub hold: bool,
    /// Storage class as sent; empty: STANDARD.
    pub storage_class: String,
    /// Server-side encryption.
    pub encryption: Encryption,
    /// Target of a symbolic link.
    pub symlink: Option<Vec<u8>>,
    /// Canned or granted ACL, as its frontend encodes it.
    pub acl: Option<Vec<u8>>,
}

/// How a chunk is stored. Ordinals are stable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Layout {
    /// `plain`: one file, named by the chunk's id, on one node.
    Plain {
        /// Which node has it.
        node: NodeId,
    },
    /// `rs(k,m)`: stripes of sealed segments on k+m nodes.
    Rs {
        /// Data shards.
        data_count: u8,
        /// Parity shards.
        parity_count: u8,
        /// The ring's epoch at which the nodes were picked.
        epoch: u64,
        /// By shard index: where it is, and its name there; name 0: it is nowhere.
        shards: Vec<(NodeId, ShardId)>,
        /// Which cluster key wraps the chunk's key.
        key_id: u32,
        /// The chunk's key, wrapped.
        wrapped_key: Vec<u8>,
    },
}

/// Where a chunk's bytes are. Version 1.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// How it is stored.
    pub layout: Layout,
    /// Length of the chunk's plaintext.
    pub len_bytes: u64,
    /// Bytes of it that some extent still names.
    pub live_bytes: u64,
}

/// Whether a node of the cluster's map takes new shards. Ordinals are stable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum MapState {
    /// It does.
    Active,
    /// It gives away what it has.
    Draining,
}

/// A shard node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MapNode {
    /// Which.
    pub node: NodeId,
    /// Its share of the shards, in proportion to the other nodes'.
    pub weight: u32,
    /// The machine, which may be home to several nodes.
    pub host: String,
    /// What fails together for reasons outside: a rack, a site.
    pub zone: String,
    /// Whether it takes new shards.
    pub state: MapState,
    /// Where it is dialled, "host:port", for those whose configuration does not name it.
    pub dial: String,
}

/// Where new chunks are to lie: the target of placement. Version 1.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Map {
    /// Which version of the map it is; from 1.
    pub epoch: u64,
    /// Data shards of a chunk that is as wide as wanted.
    pub data_count: u8,
    /// Its parity shards.
    pub parity_count: u8,
    /// By node id, each once.
    pub nodes: Vec<MapNode>,
}

const FORMAT: u8 = 1;

/// One version byte, then postcard.
pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    // Serialising plain values into a growing vector has no way to fail.
    postcard::to_extend(value, vec![FORMAT]).unwrap_or_default()
}

/// The inverse of [`encode`].
pub(super) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => postcard::from_bytes(rest).map_err(|_| Error::Undecodable { what }),
        _ => Err(Error::Undecodable { what }),
    }
}

impl Attrs {
    /// One version byte, then postcard.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// The inverse of [`Attrs::encode`]; of an inode's attributes, those that it has in common with every version.
    ///
    /// # Errors
    /// `Undecodable`: not these bytes, or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        match bytes.first() {
            Some(&InodeAttrs::FORMAT) => Ok(InodeAttrs::decode(bytes)?.attrs),
            _ => decode("attributes", bytes),
        }
    }
}

/// What a node carries since a file system changed it. Version 2 of the column; version 1 is [`Attrs`] alone.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct InodeAttrs {
    /// As of every version.
    pub(super) attrs: Attrs,
    /// Its only name, where that was made or moved by a file system: the directory, and the name in it.
    pub(super) home: Option<(Ino, Vec<u8>)>,
    /// The place in the order of versions of its last change of content; 0: never.
    pub(super) revision: u64,
    /// Whether the version that it is was begun by a change of content (a truncation, say) that the file was not closed
    /// after: the next change makes no version of its own.
    pub(super) is_draft: bool,
}

impl InodeAttrs {
    const FORMAT: u8 = 2;

    /// One version byte, then postcard.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            InodeAttrs { attrs, home: None, revision: 0, is_draft: false } => attrs.encode(),
            // Serialising plain values into a growing vector has no way to fail.
            _ => postcard::to_extend(self, vec![InodeAttrs::FORMAT]).unwrap_or_default(),
        }
    }

    /// The inverse of [`InodeAttrs::encode`].
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let what = "attributes";
        match bytes.split_first() {
            Some((&InodeAttrs::FORMAT, rest)) => postcard::from_bytes(rest).map_err(|_| Error::Undecodable { what }),
            _ => Ok(InodeAttrs { attrs: decode(what, bytes)?, ..InodeAttrs::default() }),
        }
    }
}

impl Checksum {
    /// The checksums of a part: one version byte, then postcard.
    pub fn encode_all(checksums: &[Checksum]) -> Vec<u8> {
        encode(checksums)
    }

    /// The inverse of [`Checksum::encode_all`].
    ///
    /// # Errors
    /// `Undecodable`: not these bytes, or of a later version.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, Error> {
        decode("checksums", bytes)
    }
}

impl Place {
    /// One version byte, then postcard.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// The inverse of [`Place::encode`].
    ///
    /// # Errors
    /// `Undecodable`: not these bytes, or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        decode("place", bytes)
    }
}

impl Layout {
    /// By shard index: where it is, and its name there; name 0: it is nowhere. Empty: `plain`.
    pub fn shards(&self) -> &[(NodeId, ShardId)] {
        match self {
            Layout::Plain { .. } => &[],
            Layout::Rs { shards, .. } => shards,
        }
    }

    /// Indexes of the shards that are nowhere, ascending.
    pub fn missing(&self) -> Vec<u8> {
        (0..=u8::MAX).zip(self.shards()).filter(|(_, (_, shard))| shard.0 == 0).map(|(index, _)| index).collect()
    }
}

impl Map {
    /// One version byte, then postcard.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// The inverse of [`Map::encode`].
    ///
    /// # Errors
    /// `Undecodable`: not these bytes, or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        decode("map", bytes)
    }
}

/// What is known of a chunk that is to be repaired. Version 2; version 1 has no `is_suspect`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Repair {
    /// Its shards that are known to be nowhere, by index, ascending.
    pub missing: Vec<u8>,
    /// Whether damage was seen in it: what is there is to be read, and verified.
    pub is_suspect: bool,
}

impl Repair {
    const FORMAT: u8 = 2;

    /// One version byte, then postcard.
    pub(super) fn encode(&self) -> Vec<u8> {
        // Serialising plain values into a growing vector has no way to fail.
        postcard::to_extend(self, vec![Repair::FORMAT]).unwrap_or_default()
    }

    /// The inverse of [`Repair::encode`].
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let what = "repair";
        match bytes.split_first() {
            Some((&Repair::FORMAT, rest)) => postcard::from_bytes(rest).map_err(|_| Error::Undecodable { what }),
            _ => Ok(Repair { missing: decode(what, bytes)?, is_suspect: false }),
        }
    }
}

/// Versioning of a bucket. Ordinals are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Versioning {
    /// Was never enabled.
    #[default]
    Never,
    /// Every write makes a version.
    Enabled,
    /// Writes make and replace the null version.
    Suspended,
}

/// Per-bucket settings that are stored whole, as their frontend encodes them. Ordinals are stable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Setting {
    /// Bucket tags.
    Tagging,
    /// Bucket policy.
    Policy,
    /// Cross-origin rules.
    Cors,
    /// Lifecycle rules.
    Lifecycle,
    /// Default encryption.
    Encryption,
    /// Object-lock defaults.
    ObjectLock,
    /// Website.
    Website,
    /// Notifications.
    Notification,
    /// Replication.
    Replication,
    /// Access logging.
    Logging,
    /// Public access block.
    PublicAccessBlock,
    /// Ownership controls.
    Ownership,
    /// Access control list.
    Acl,
    /// Quota.
    Quota,
    /// Who pays for requests. From feature level 6 on, as what follows.
    RequestPayment,
    /// Transfer acceleration.
    Accelerate,
}

impl Setting {
    /// Whether it says who may do what.
    pub(super) fn is_of_access(self) -> bool {
        use Setting as S;
        matches!(self, S::Policy | S::PublicAccessBlock | S::Ownership | S::Acl | S::RequestPayment)
    }
}

/// A bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bucket {
    /// Identity; the root directory's inode.
    pub id: BucketId,
    /// Name, unique in the store.
    pub name: String,
    /// Account that owns it.
    pub owner: String,
    /// Region it says it is in.
    pub region: String,
    /// When it was made.
    pub created: Timestamp,
    /// Versioning now.
    pub versioning: Versioning,
    /// Whether it was ever enabled: history never moves from its keys.
    pub ever_versioned: bool,
    /// Whether object lock was enabled at creation.
    pub lock: bool,
}

/// One version of an object, without its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// Its node; also what a reader gets the manifest by.
    pub ino: Ino,
    /// Its place in the order of versions.
    pub seq: Seq,
    /// Its name for clients.
    pub id: VersionId,
    /// Whether it is the newest one of its key.
    pub is_latest: bool,
    /// Whether it is a delete marker; the fields below are then empty.
    pub is_delete_marker: bool,
    /// Length in bytes.
    pub size_bytes: u64,
    /// When it was written.
    pub modified: Timestamp,
    /// Entity tag.
    pub etag: ETag,
    /// Everything else.
    pub attrs: Attrs,
    /// Another one for each change of the content by a file system; 0: there was none.
    pub revision: u64,
}

/// A run of a content that lives in one chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Where in the content it begins.
    pub start_bytes: u64,
    /// The chunk.
    pub chunk: Ino,
    /// Where in the chunk it begins.
    pub chunk_start_bytes: u64,
    /// Its length.
    pub len_bytes: u64,
    /// Where the chunk is.
    pub place: Place,
}

/// Where a content's bytes are; taken whole from one snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Manifest {
    /// No bytes.
    Empty,
    /// The bytes themselves.
    Inline(Bytes),
    /// Extents in order, without overlap; a gap reads as zeros.
    Extents(Vec<Extent>),
}

/// One uploaded part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// 1 to 10,000.
    pub number: u32,
    /// Length in bytes.
    pub size_bytes: u64,
    /// When it was uploaded.
    pub modified: Timestamp,
    /// MD5 of its bytes.
    pub etag: ETag,
    /// Its checksums.
    pub checksums: Vec<Checksum>,
}

/// An upload that is neither completed nor aborted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upload {
    /// Its identity: the node it will become.
    pub id: Ino,
    /// The key it will be.
    pub key: Vec<u8>,
    /// When it was created.
    pub created: Timestamp,
    /// What the object will carry.
    pub attrs: Attrs,
}
