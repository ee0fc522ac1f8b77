//! The 32 bytes that begin every message on a stream: pure encode and decode, no I/O.
//!
//! ```text
//! message | frame 32 | header | body | end of the stream |
//!
//! frame     0 version u8 = 1    1 kind u8           2 code u16       4 header len u32
//!           8 body len u64     16 id u32           20 deadline ms u32
//!          24 to u64: the role in the highest byte, the node's id in the 56 bits below
//!
//! kind  code            id          deadline, to   header, body
//! 1     method          the call's  set            any             a call, urgent
//! 2     method          the call's  set            any             a call, bulk
//! 3     status          the call's  0              any             a reply
//! 4     reason          the call's  0              none            a refusal: the call was not begun
//! 5     0               any         0              none            a greeting; its answer is itself
//! ```
//!
//! Little endian throughout. There is no checksum: QUIC authenticates every packet.
//!
//! Invariants
//! - One frame has one encoding: what decodes is what its encoding would give.
//! - A frame that decodes announces a header of at most [`HEADER_MAX_BYTES`]; what is announced is not yet to be
//!   allocated.

use super::{Class, HEADER_MAX_BYTES, Peer, Role};
use crate::ids::NodeId;

/// Length of a frame, bytes.
pub const FRAME_BYTES: usize = 32;
/// The version of the encoding. Another is another protocol: see [`ALPN`](super::identity::ALPN).
pub const VERSION: u8 = 1;
/// Bits of a node's id that have room.
const NODE_ID_BITS: u32 = 56;

/// What the other side is told before header and body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it is.
    pub message: Message,
    /// The caller's number for the call; its answer carries it too.
    pub id: u32,
    /// Bytes of the typed header that follow.
    pub header_len_bytes: u32,
    /// Bytes of the body that follow the header.
    pub body_len_bytes: u64,
}

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// A question.
    Call {
        /// Whose service it is for: one process may be several nodes.
        to: Peer,
        /// How urgent.
        class: Class,
        /// Service << 8 | method.
        method: u16,
        /// What is left until the caller has given up, milliseconds.
        deadline_ms: u32,
    },
    /// An answer.
    Reply {
        /// 0, or the service's.
        status: u16,
    },
    /// No answer, and nothing was done.
    Refusal(Refusal),
    /// Sent once by who dials; sent back by who accepts. It proves that both accept each other.
    Hello,
}

/// Why a call was not begun. Ordinals are on the wire: never reuse one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[repr(u16)]
pub enum Refusal {
    /// As many calls as may be are being served.
    #[error("it is busy")]
    Busy = 1,
    /// The process has no such service (yet).
    #[error("it has no such service")]
    NoService = 2,
    /// The process is not that node.
    #[error("its process is another node")]
    NotHere = 3,
    /// The process is ending.
    #[error("its process is ending")]
    Closing = 4,
}

impl Refusal {
    fn decode(ordinal: u16) -> Option<Refusal> {
        [Refusal::Busy, Refusal::NoService, Refusal::NotHere, Refusal::Closing]
            .into_iter()
            .find(|refusal| *refusal as u16 == ordinal)
    }
}

/// Bytes that are no frame, or a frame that has no bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Another version.
    #[error("version {0} of the frame")]
    Version(u8),
    /// No message has this kind.
    #[error("a message of kind {0}")]
    Kind(u8),
    /// Longer than [`HEADER_MAX_BYTES`].
    #[error("a header of {0} bytes")]
    HeaderTooLong(u64),
    /// A node that cannot be written, or that no process could be.
    #[error("a node written {0:#018x}")]
    Node(u64),
    /// No refusal has this reason.
    #[error("a refusal for reason {0}")]
    Refusal(u16),
    /// A field that its kind does not use is not zero.
    #[error("a field that is not in use is not zero")]
    NotZero,
}

const KIND_URGENT: u8 = 1;
const KIND_BULK: u8 = 2;
const KIND_REPLY: u8 = 3;
const KIND_REFUSAL: u8 = 4;
const KIND_HELLO: u8 = 5;

impl Frame {
    /// A frame that nothing follows.
    pub fn bare(message: Message, id: u32) -> Frame {
        Frame { message, id, header_len_bytes: 0, body_len_bytes: 0 }
    }

    /// The frame's bytes.
    ///
    /// # Errors
    /// The header is too long, or the node's id has more than 56 bits.
    pub fn encode(&self) -> Result<[u8; FRAME_BYTES], FrameError> {
        check_header_len(u64::from(self.header_len_bytes))?;
        let (kind, code, deadline_ms, to) = match self.message {
            Message::Call { to, class: Class::Urgent, method, deadline_ms } => {
                (KIND_URGENT, method, deadline_ms, encode_peer(to)?)
            }
            Message::Call { to, class: Class::Bulk, method, deadline_ms } => {
                (KIND_BULK, method, deadline_ms, encode_peer(to)?)
            }
            Message::Reply { status } => (KIND_REPLY, status, 0, 0),
            Message::Refusal(refusal) => (KIND_REFUSAL, refusal as u16, 0, 0),
            Message::Hello => (KIND_HELLO, 0, 0, 0),
        };
        let mut bytes = [0; FRAME_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &[VERSION, kind]);
        put(2, &code.to_le_bytes());
        put(4, &self.header_len_bytes.to_le_bytes());
        put(8, &self.body_len_bytes.to_le_bytes());
        put(16, &self.id.to_le_bytes());
        put(20, &deadline_ms.to_le_bytes());
        put(24, &to.to_le_bytes());
        Ok(bytes)
    }

    /// The frame that `bytes` are.
    ///
    /// # Errors
    /// They are none.
    pub fn decode(bytes: &[u8; FRAME_BYTES]) -> Result<Frame, FrameError> {
        let [version, kind, ..] = *bytes;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let code = u16::from_le_bytes(field(bytes, 2));
        let (deadline_ms, to) = (u32::from_le_bytes(field(bytes, 20)), u64::from_le_bytes(field(bytes, 24)));
        let message = match kind {
            KIND_URGENT => Message::Call { to: decode_peer(to)?, class: Class::Urgent, method: code, deadline_ms },
            KIND_BULK => Message::Call { to: decode_peer(to)?, class: Class::Bulk, method: code, deadline_ms },
            KIND_REPLY => Message::Reply { status: code },
            KIND_REFUSAL => Message::Refusal(Refusal::decode(code).ok_or(FrameError::Refusal(code))?),
            KIND_HELLO => Message::Hello,
            kind => return Err(FrameError::Kind(kind)),
        };
        let header_len_bytes = u32::from_le_bytes(field(bytes, 4));
        let body_len_bytes = u64::from_le_bytes(field(bytes, 8));
        check_header_len(u64::from(header_len_bytes))?;
        let unused_is_zero = match message {
            Message::Call { .. } => true,
            Message::Reply { .. } => (deadline_ms, to) == (0, 0),
            Message::Refusal(_) => (deadline_ms, to, header_len_bytes, body_len_bytes) == (0, 0, 0, 0),
            Message::Hello => (code, deadline_ms, to, header_len_bytes, body_len_bytes) == (0, 0, 0, 0, 0),
        };
        if !unused_is_zero {
            return Err(FrameError::NotZero);
        }
        Ok(Frame { message, id: u32::from_le_bytes(field(bytes, 16)), header_len_bytes, body_len_bytes })
    }
}

/// Whether there can be a frame for a call to `to` with so long a header.
pub(super) fn check_call(to: Peer, header_len_bytes: u64) -> Result<(), FrameError> {
    check_header_len(header_len_bytes)?;
    encode_peer(to).map(drop)
}

/// Whether a header may be so long.
pub(super) fn check_header_len(len_bytes: u64) -> Result<(), FrameError> {
    if len_bytes > HEADER_MAX_BYTES as u64 {
        return Err(FrameError::HeaderTooLong(len_bytes));
    }
    Ok(())
}

fn field<const N: usize>(bytes: &[u8; FRAME_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn encode_peer(peer: Peer) -> Result<u64, FrameError> {
    let role: u64 = match peer.role {
        Role::Db => 1,
        Role::Shard => 2,
        Role::Gateway => 3,
    };
    if peer.id.0 >> NODE_ID_BITS != 0 {
        return Err(FrameError::Node(peer.id.0));
    }
    Ok(role << NODE_ID_BITS | peer.id.0)
}

fn decode_peer(word: u64) -> Result<Peer, FrameError> {
    let role = match word >> NODE_ID_BITS {
        1 => Role::Db,
        2 => Role::Shard,
        3 => Role::Gateway,
        _ => return Err(FrameError::Node(word)),
    };
    Ok(Peer { role, id: NodeId(word & ((1 << NODE_ID_BITS) - 1)) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn call() -> Frame {
        let to = Peer { role: Role::Shard, id: NodeId(0x0a0b) };
        let message = Message::Call { to, class: Class::Bulk, method: 0x0203, deadline_ms: 30_000 };
        Frame { message, id: 0x1122_3344, header_len_bytes: 0x55, body_len_bytes: 0x66_7788 }
    }

    #[test]
    fn the_encoding_is_what_it_was() {
        let golden =
            |frame: Frame| frame.encode().unwrap().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(golden(call()), "0102030255000000887766000000000044332211307500000b0a000000000002");
        let reply = Frame { message: Message::Reply { status: 7 }, ..call() };
        assert_eq!(golden(reply), "0103070055000000887766000000000044332211000000000000000000000000");
        let busy = Frame::bare(Message::Refusal(Refusal::Busy), 9);
        assert_eq!(golden(busy), "0104010000000000000000000000000009000000000000000000000000000000");
        let hello = Frame::bare(Message::Hello, 0);
        assert_eq!(golden(hello), "0105000000000000000000000000000000000000000000000000000000000000");
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let mut frame = call();
        frame.header_len_bytes = HEADER_MAX_BYTES as u32 + 1;
        assert_eq!(frame.encode(), Err(FrameError::HeaderTooLong(HEADER_MAX_BYTES as u64 + 1)));
        let mut bytes = call().encode().unwrap();
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Frame::decode(&bytes), Err(FrameError::HeaderTooLong(u64::from(u32::MAX))));
        let Message::Call { class, method, deadline_ms, .. } = call().message else { unreachable!() };
        let to = Peer { role: Role::Db, id: NodeId(1 << 56) };
        let far = Frame { message: Message::Call { to, class, method, deadline_ms }, ..call() };
        assert_eq!(far.encode(), Err(FrameError::Node(1 << 56)));
        for (at, value, error) in [
            (0, 2, FrameError::Version(2)),
            (1, 0, FrameError::Kind(0)),
            (1, 6, FrameError::Kind(6)),
            (1, 3, FrameError::NotZero),
            (1, 4, FrameError::Refusal(0x0203)),
            (1, 5, FrameError::NotZero),
            (31, 0, FrameError::Node(0x0a0b)),
        ] {
            let mut bytes = call().encode().unwrap();
            bytes[at] = value;
            assert_eq!(Frame::decode(&bytes), Err(error), "byte {at} is {value}");
        }
    }

    fn peers() -> impl Strategy<Value = Peer> {
        let role = prop::sample::select(vec![Role::Db, Role::Shard, Role::Gateway]);
        (role, 0..1u64 << 56).prop_map(|(role, id)| Peer { role, id: NodeId(id) })
    }

    fn frames() -> impl Strategy<Value = Frame> {
        let class = prop::sample::select(vec![Class::Urgent, Class::Bulk]);
        let refusal = prop::sample::select(vec![1, 2, 3, 4]);
        let call = (peers(), class, any::<u16>(), any::<u32>());
        let message = prop_oneof![
            call.prop_map(|(to, class, method, deadline_ms)| Message::Call { to, class, method, deadline_ms }),
            any::<u16>().prop_map(|status| Message::Reply { status }),
            refusal.prop_map(|ordinal| Message::Refusal(Refusal::decode(ordinal).unwrap())),
            Just(Message::Hello),
        ];
        let lens = (0..=HEADER_MAX_BYTES as u32, any::<u64>());
        (message, any::<u32>(), lens).prop_map(|(message, id, (header_len_bytes, body_len_bytes))| match message {
            Message::Refusal(_) | Message::Hello => Frame::bare(message, id),
            message => Frame { message, id, header_len_bytes, body_len_bytes },
        })
    }

    proptest! {
        #[test]
        fn frames_round_trip(frame in frames()) {
            prop_assert_eq!(Frame::decode(&frame.encode().unwrap()), Ok(frame));
        }

        /// Also of bytes that are nearly a frame, which plain noise never is.
        #[test]
        fn noise_is_an_error_or_its_own_encoding(
            noise in any::<[u8; FRAME_BYTES]>(), frame in frames(), flips in prop::collection::vec((0..FRAME_BYTES, any::<u8>()), 0..4),
        ) {
            let mut near = frame.encode().unwrap();
            flips.iter().for_each(|(at, value)| near[*at] = *value);
            for bytes in [noise, near] {
                if let Ok(frame) = Frame::decode(&bytes) {
                    prop_assert_eq!(frame.encode(), Ok(bytes));
                }
            }
        }
    }
}
