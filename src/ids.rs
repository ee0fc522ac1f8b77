//! Identifiers as newtypes, so that the compiler keeps them apart.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// A node of the catalog: an inode, a content or a chunk. Never reused. Layout: [`Ino::new`].
    Ino
);
id!(
    /// A bucket; also the inode of its root directory.
    BucketId
);
id!(
    /// A gateway's lease in the catalog. Never reused.
    SessionId
);
id!(
    /// A position in Raft's log.
    LogIndex
);
id!(
    /// The order of versions of one key: log index << 12 | position inside the command.
    Seq
);
id!(
    /// A member of the cluster.
    NodeId
);
id!(
    /// One stored shard, named afresh at each write.
    ShardId
);

/// Bits of an id that count; the bits above them are the store's incarnation.
pub const ID_COUNTER_BITS: u32 = 48;

impl Ino {
    /// `incarnation` (15 bits) << 48 | `counter`: ids of a restored catalog never meet those made
    /// after the backup. Fits SQLite's signed integers.
    pub const fn new(incarnation: u16, counter: u64) -> Self {
        Ino(((incarnation as u64) << ID_COUNTER_BITS) | counter)
    }

    /// The incarnation that made this id.
    pub const fn incarnation(self) -> u16 {
        (self.0 >> ID_COUNTER_BITS) as u16
    }
}

impl BucketId {
    /// The bucket's root directory.
    pub const fn root(self) -> Ino {
        Ino(self.0)
    }
}

/// Positions that one command may number; also the bound on the rows it may touch.
pub const SEQS_PER_COMMAND: u64 = 4096;

impl Seq {
    /// The `position`-th version made by the command at `index`.
    pub const fn new(index: LogIndex, position: u64) -> Self {
        Seq(index.0 * SEQS_PER_COMMAND + position)
    }
}

/// What a client names a version by: `null`, or an opaque token that is the sequence in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum VersionId {
    /// The version written while versioning was not enabled.
    Null,
    /// Any other version.
    Seq(Seq),
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VersionId::Null => f.write_str("null"),
            VersionId::Seq(seq) => write!(f, "{:016x}", seq.0),
        }
    }
}

/// The text is not a version id that this store could have given.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a version id: {0:?}")]
pub struct InvalidVersionId(pub String);

impl FromStr for VersionId {
    type Err = InvalidVersionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "null" {
            return Ok(VersionId::Null);
        }
        let canonical = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        u64::from_str_radix(text, 16)
            .ok()
            .filter(|seq| canonical && *seq <= i64::MAX as u64)
            .map(|seq| VersionId::Seq(Seq(seq)))
            .ok_or_else(|| InvalidVersionId(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn version_ids_round_trip_and_refuse_other_spellings() {
        for id in [VersionId::Null, VersionId::Seq(Seq::new(LogIndex(77), 3))] {
            assert_eq!(id.to_string().parse::<VersionId>().unwrap(), id);
        }
        for text in ["", "NULL", "12", "000000000004D003", "ffffffffffffffff", "+00000000004d003"] {
            assert!(text.parse::<VersionId>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_keeps_its_incarnation() {
        let ino = Ino::new(7, 12_345);
        assert_eq!(ino.incarnation(), 7);
        assert!(ino > Ino::new(6, u64::from(u32::MAX)));
    }
}
