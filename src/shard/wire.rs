//! The calls to a shard node: what stands in their headers. One version byte, then postcard.
//!
//! | method | header | body | reply's header | reply's body |
//! |---|---|---|---|---|
//! | put | [`Put`] | the shard, whole | | |
//! | append | [`Append`] | some frames | | |
//! | finish | [`Finish`] | | | |
//! | abandon | [`ShardId`] | | | |
//! | read | [`Read`] | | frame lengths | the frames |
//! | info | [`ShardId`] | | [`Info`] | |
//! | delete | shard ids | | | |
//! | list | [`List`] | | rows: shard, chunk, slot | |
//! | status | | | [`NodeStatus`] | |
//! | scrub | [`Scrub`] | | [`ScrubReply`] | |
//! | bookmark | | | [`Bookmark`] | |
//! | note | [`Bookmark`] | | | |
//!
//! A reply's status is 0, or one of [`Failure`]; its header is then the reason, as text.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Error;
use super::record::Origin;
use crate::env::Timestamp;
use crate::ids::{Ino, ShardId};
use crate::transport::header;

/// The service's number.
pub const SERVICE: u8 = 2;
const VERSION: u8 = 1;
/// Longest frame, bytes: a segment's, with room to spare.
pub(super) const FRAME_MAX_BYTES: u32 = 128 << 10;
/// Most frames of a shard, and of a read.
pub(super) const FRAMES_MAX: usize = 4096;

/// Ordinals are on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Method {
    Put = 1,
    Append = 2,
    Finish = 3,
    Abandon = 4,
    Read = 5,
    Info = 6,
    Delete = 7,
    List = 8,
    Status = 9,
    Scrub = 10,
    Bookmark = 11,
    Note = 12,
}

impl Method {
    const ALL: [Method; 12] = [
        Method::Put,
        Method::Append,
        Method::Finish,
        Method::Abandon,
        Method::Read,
        Method::Info,
        Method::Delete,
        Method::List,
        Method::Status,
        Method::Scrub,
        Method::Bookmark,
        Method::Note,
    ];

    pub(super) fn number(self) -> u16 {
        u16::from(SERVICE) << 8 | self as u16
    }

    pub(super) fn of(number: u16) -> Option<Method> {
        Method::ALL.into_iter().find(|method| method.number() == number)
    }
}

/// Why a call was refused. Ordinals are on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub(super) enum Failure {
    NotFound = 1,
    Exists = 2,
    Invalid = 3,
    Full = 4,
    Failed = 5,
    /// The call makes no sense to this node.
    Malformed = 6,
    /// Too much of it is under way.
    Busy = 7,
}

impl Failure {
    const ALL: [Failure; 7] = [
        Failure::NotFound,
        Failure::Exists,
        Failure::Invalid,
        Failure::Full,
        Failure::Failed,
        Failure::Malformed,
        Failure::Busy,
    ];

    pub(super) fn of(status: u16) -> Option<Failure> {
        Failure::ALL.into_iter().find(|failure| *failure as u16 == status)
    }

    pub(super) fn from(error: &Error) -> Failure {
        match error {
            Error::NotFound(_) => Failure::NotFound,
            Error::Exists(_) => Failure::Exists,
            Error::Invalid { .. } => Failure::Invalid,
            Error::Full => Failure::Full,
            Error::Busy(_) => Failure::Busy,
            Error::Log(_) | Error::Index(_) | Error::IndexDamaged(_) | Error::Closed => Failure::Failed,
        }
    }
}

/// A shard that comes at once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Put {
    pub(super) shard: ShardId,
    pub(super) chunk: Ino,
    pub(super) slot: u32,
    /// Length of each frame in the body.
    pub(super) frames: Vec<u32>,
}

/// Some frames of a shard. `number`: how many such calls were made for it before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Append {
    pub(super) number: u32,
    pub(super) put: Put,
}

/// All was sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Finish {
    pub(super) shard: ShardId,
    /// How many [`Append`]s there were.
    pub(super) number: u32,
}

/// Frames `start..end`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Read {
    pub(super) shard: ShardId,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// What a shard is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Info {
    pub(super) chunk: Ino,
    pub(super) slot: u32,
    pub(super) frames: Vec<u32>,
}

/// Which part of the list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct List {
    pub(super) after: Option<ShardId>,
    pub(super) limit: u32,
}

/// Verify the shards behind `after`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Scrub {
    pub(super) after: Option<ShardId>,
    pub(super) budget_bytes: u64,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct ScrubReply {
    pub(super) next: Option<ShardId>,
    pub(super) checked_bytes: u64,
    /// Shard, chunk, slot.
    pub(super) damaged: Vec<(ShardId, Ino, u32)>,
}

/// Where the scrub of a node is, for whoever scrubs it next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Bookmark {
    /// All up to this one were looked at in this pass, and the damage was told. None: the pass has not begun.
    pub after: Option<ShardId>,
    /// When the pass before ended, by the clock of who scrubbed; 0: there was none.
    pub ended: Timestamp,
}

/// How a shard node stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Shards.
    pub shard_count: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Room on its disk that may be used.
    pub free_bytes: u64,
    /// All of its disk.
    pub total_bytes: u64,
    /// A random number of this start of the node: with another one, what it had may be gone.
    pub start: u64,
}

pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Bytes {
    header::encode(VERSION, value)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    header::decode(VERSION, bytes)
}

impl Put {
    pub(super) fn origin(&self) -> Origin {
        Origin { chunk: self.chunk, slot: self.slot }
    }

    pub(super) fn len_bytes(&self) -> u64 {
        self.frames.iter().map(|len| u64::from(*len)).sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn headers_have_these_bytes() {
        let put = Put { shard: ShardId(300), chunk: Ino(5), slot: 4, frames: vec![128, 1] };
        assert_eq!(hex(&encode(&put)), "01ac02050402800101");
        assert_eq!(hex(&encode(&Append { number: 2, put })), "0102ac02050402800101");
        assert_eq!(hex(&encode(&Finish { shard: ShardId(300), number: 2 })), "01ac0202");
        assert_eq!(hex(&encode(&Read { shard: ShardId(300), start: 1, end: 3 })), "01ac020103");
        assert_eq!(hex(&encode(&List { after: Some(ShardId(1)), limit: 9 })), "01010109");
        assert_eq!(hex(&encode(&Info { chunk: Ino(5), slot: 4, frames: vec![7] })), "0105040107");
        let status = NodeStatus { shard_count: 1, live_bytes: 2, free_bytes: 3, total_bytes: 4, start: 5 };
        assert_eq!(hex(&encode(&status)), "010102030405");
        assert_eq!(Method::Status.number(), 0x0209);
        assert_eq!(hex(&encode(&Scrub { after: None, budget_bytes: 300 })), "0100ac02");
        let reply = ScrubReply { next: Some(ShardId(9)), checked_bytes: 128, damaged: vec![(ShardId(300), Ino(5), 4)] };
        assert_eq!(hex(&encode(&reply)), "010109800101ac020504");
        assert_eq!((Method::Scrub.number(), Failure::Busy as u16), (0x020A, 7));
        let bookmark = Bookmark { after: Some(ShardId(300)), ended: Timestamp(5) };
        assert_eq!((hex(&encode(&bookmark)).as_str(), Method::Note.number()), ("0101ac020a", 0x020C));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_do_not(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = (decode::<Put>(&bytes), decode::<Append>(&bytes), decode::<Info>(&bytes), decode::<List>(&bytes));
        }
    }
}
