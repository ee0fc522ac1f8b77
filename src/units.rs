//! Sizes that more than one module must agree on.

/// 1,024 bytes.
pub const KIB: u64 = 1 << 10;
/// 1,024 KiB.
pub const MIB: u64 = 1 << 20;
/// 1,024 MiB.
pub const GIB: u64 = 1 << 30;
/// 1,024 GiB.
pub const TIB: u64 = 1 << 40;

/// The smallest addressable unit, and the largest body that the catalog keeps inline.
pub const BLOCK_BYTES: u64 = 8 * KIB;
/// The unit of verification: each segment of a chunk has a checksum of its own.
pub const SEGMENT_BYTES: u64 = 64 * KIB;
/// The unit of encoding and placement in `rs` layouts; a `plain` chunk may be as long as a part.
pub const CHUNK_BYTES: u64 = 32 * MIB;

/// The longest key that S3 allows.
pub const KEY_MAX_BYTES: usize = 1024;
/// The longest file: 8 PiB.
pub const FILE_MAX_BYTES: u64 = 1 << 53;
/// The longest single part or PUT that S3 allows.
pub const PART_MAX_BYTES: u64 = 5 * GIB;
/// The shortest part that is not the last one of its upload.
pub const PART_MIN_BYTES: u64 = 5 * MIB;
/// The largest part number.
pub const PART_COUNT_MAX: u32 = 10_000;
/// The most runs of chunks that make up one part: with it, replacing or dropping a part touches few rows.
pub const PART_RUN_COUNT_MAX: usize = 1000;
