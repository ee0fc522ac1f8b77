//! The records of a shard node's log: pure encode and decode.
//!
//! ```text
//! record   0 version u8 = 1   1 kind u8   2 zeros 6   8 ...
//!
//! run      8 shard u64   16 bytes of the shard
//! commit, move
//!          8 shard u64   16 chunk u64   24 slot u32   28 frame count u32   32 run count u32   36 zeros 4
//!         40 length of each frame u32 ...   length and index of each run: u32, u64 ...
//! delete   8 shard u64 ...
//! ```
//!
//! Little endian throughout. A shard is the bytes of its runs in the order of its commit, which is also the bytes of its
//! frames, one after another. A move replaces the commit before: the same bytes, elsewhere. A second commit of a shard was
//! refused.

use bytes::Bytes;

use crate::ids::{Ino, ShardId};

const VERSION: u8 = 1;
/// Where a run's bytes begin in its record.
pub(super) const RUN_HEADER_BYTES: usize = 16;
const COMMIT_HEADER_BYTES: usize = 40;

/// What a shard is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The chunk.
    pub chunk: Ino,
    /// Which of its shards: data shards first, then parity.
    pub slot: u32,
}

/// Ordinals are on disk.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Run = 1,
    Commit = 2,
    Delete = 3,
    Move = 4,
}

/// A run as a commit names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RunName {
    /// Of its record in the log.
    pub(super) index: u64,
    /// Of its bytes, without the record's header.
    pub(super) len_bytes: u32,
}

/// What makes a shard of some runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Commit {
    pub(super) shard: ShardId,
    pub(super) origin: Origin,
    /// Length of each frame, bytes.
    pub(super) frames: Vec<u32>,
    pub(super) runs: Vec<RunName>,
}

/// A record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Record {
    /// Bytes of a shard, which begin at [`RUN_HEADER_BYTES`].
    Run(ShardId),
    Commit(Commit),
    Move(Commit),
    Delete(Vec<ShardId>),
}

fn begin(kind: Kind, len: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(len);
    record.extend_from_slice(&[VERSION, kind as u8, 0, 0, 0, 0, 0, 0]);
    record
}

/// A run of `parts`, one after another.
pub(super) fn encode_run(shard: ShardId, parts: &[Bytes]) -> Bytes {
    let mut record = begin(Kind::Run, RUN_HEADER_BYTES + parts.iter().map(Bytes::len).sum::<usize>());
    record.extend_from_slice(&shard.0.to_le_bytes());
    parts.iter().for_each(|part| record.extend_from_slice(part));
    record.into()
}

pub(super) fn encode_commit(commit: &Commit) -> Bytes {
    encode(Kind::Commit, commit)
}

pub(super) fn encode_move(to: &Commit) -> Bytes {
    encode(Kind::Move, to)
}

fn encode(kind: Kind, commit: &Commit) -> Bytes {
    let Commit { shard, origin, frames, runs } = commit;
    let mut record = begin(kind, COMMIT_HEADER_BYTES + frames.len() * 4 + runs.len() * 12);
    record.extend_from_slice(&shard.0.to_le_bytes());
    record.extend_from_slice(&origin.chunk.0.to_le_bytes());
    for word in [origin.slot, frames.len() as u32, runs.len() as u32, 0] {
        record.extend_from_slice(&word.to_le_bytes());
    }
    frames.iter().for_each(|len| record.extend_from_slice(&len.to_le_bytes()));
    for run in runs {
        record.extend_from_slice(&run.len_bytes.to_le_bytes());
        record.extend_from_slice(&run.index.to_le_bytes());
    }
    record.into()
}

pub(super) fn encode_delete(shards: &[ShardId]) -> Bytes {
    let mut record = begin(Kind::Delete, 8 + shards.len() * 8);
    shards.iter().for_each(|shard| record.extend_from_slice(&shard.0.to_le_bytes()));
    record.into()
}

/// Takes words off the front of bytes.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*word))
    }

    fn u64(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*word))
    }
}

/// None: these bytes are no record, or of a later version.
pub(super) fn decode(bytes: &[u8]) -> Option<Record> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let mut words = Words(rest);
    match head {
        [VERSION, kind, 0, 0, 0, 0, 0, 0] if *kind == Kind::Run as u8 => Some(Record::Run(ShardId(words.u64()?))),
        [VERSION, kind, 0, 0, 0, 0, 0, 0] if *kind == Kind::Commit as u8 => decode_commit(words).map(Record::Commit),
        [VERSION, kind, 0, 0, 0, 0, 0, 0] if *kind == Kind::Move as u8 => decode_commit(words).map(Record::Move),
        [VERSION, kind, 0, 0, 0, 0, 0, 0] if *kind == Kind::Delete as u8 && rest.len() % 8 == 0 => {
            Some(Record::Delete(std::iter::from_fn(|| words.u64().map(ShardId)).collect()))
        }
        _ => None,
    }
}

fn decode_commit(mut words: Words<'_>) -> Option<Commit> {
    let shard = ShardId(words.u64()?);
    let chunk = Ino(words.u64()?);
    let (slot, frame_count, run_count, _) = (words.u32()?, words.u32()?, words.u32()?, words.u32()?);
    if words.0.len() as u64 != u64::from(frame_count) * 4 + u64::from(run_count) * 12 {
        return None;
    }
    let frames = (0..frame_count).map(|_| words.u32()).collect::<Option<_>>()?;
    let run = |_| Some(RunName { len_bytes: words.u32()?, index: words.u64()? });
    let runs = (0..run_count).map(run).collect::<Option<_>>()?;
    Some(Commit { shard, origin: Origin { chunk, slot }, frames, runs })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn commit() -> Commit {
        Commit {
            shard: ShardId(7),
            origin: Origin { chunk: Ino(0x0102), slot: 3 },
            frames: vec![65_568, 9],
            runs: vec![RunName { index: 11, len_bytes: 65_577 }],
        }
    }

    #[test]
    fn records_have_these_bytes() {
        assert_eq!(hex(&encode_run(ShardId(7), &["ab".into(), "c".into()])), "01010000000000000700000000000000616263");
        assert_eq!(
            hex(&encode_commit(&commit())),
            concat!(
                "01020000000000000700000000000000020100000000000003000000020000000100000000000000",
                "2000010009000000290001000b00000000000000"
            )
        );
        assert_eq!(hex(&encode_delete(&[ShardId(7), ShardId(8)])), "010300000000000007000000000000000800000000000000");
    }

    #[test]
    fn records_read_back() {
        assert_eq!(decode(&encode_run(ShardId(7), &["ab".into()])), Some(Record::Run(ShardId(7))));
        assert_eq!(decode(&encode_commit(&commit())), Some(Record::Commit(commit())));
        assert_eq!(decode(&encode_move(&commit())), Some(Record::Move(commit())));
        let shards = vec![ShardId(7), ShardId(u64::MAX)];
        assert_eq!(decode(&encode_delete(&shards)), Some(Record::Delete(shards)));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_do_not(mut bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0..5u8) {
            if bytes.len() > 8 {
                bytes[..8].copy_from_slice(&[VERSION, kind, 0, 0, 0, 0, 0, 0]);
            }
            if let Some(Record::Commit(commit)) = decode(&bytes) {
                prop_assert_eq!(encode_commit(&commit).len(), bytes.len());
            }
        }
    }
}
