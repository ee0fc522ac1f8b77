//! The messages of the consensus service: each is a header of a call or of its reply, and only snapshots have a body.
//!
//! ```text
//! header      0         1
//!             +---------+-------------------------------------
//!             | version | postcard of the message's type below
//!             | 1       |
//!             +---------+-------------------------------------
//!
//! method      service << 8 | which: see [`Method`]; ordinals are stable
//! status      0 as asked; otherwise see [`status`], and the header is the reason as text (not a message)
//! body        of a snapshot: the snapshot file as [`crate::catalog`] writes it, its digest at its end
//! ```
//!
//! A message never changes its fields: a new shape is a new method, asked only where the other side is known to have it.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::encoding::{Undecodable, decode_entry, encode_entry};
use super::types::{Entry, LeaderId, LogId, TypeConfig, Vote};

type AppendEntriesRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
type AppendEntriesResponse = openraft::raft::AppendEntriesResponse<TypeConfig>;
type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;
type TransferLeaderRequest = openraft::raft::TransferLeaderRequest<TypeConfig>;
type TransferLeaderResponse = openraft::raft::TransferLeaderResponse<TypeConfig>;
type TransferLeaderError = openraft::raft::TransferLeaderError<TypeConfig>;

const VERSION: u8 = 1;

/// The number of this service among a node's.
pub const SERVICE: u8 = 1;

/// What can be asked. 16, 17, 19 and 20 asked a node, whatever log it had; no release did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Method {
    /// [`Addressed`] [`Append`] -> [`Appended`]. Of db nodes only, as are the next four.
    Append = 1,
    /// [`Addressed`] [`Ballot`] -> [`Voted`].
    Vote = 2,
    /// [`Addressed`] [`Ballot`] -> [`Voted`].
    PreVote = 3,
    /// [`Addressed`] [`WireVote`], and the file as body -> [`WireVote`].
    Snapshot = 4,
    /// [`Addressed`] [`Transfer`] -> [`Transferred`].
    Transfer = 5,
    /// Nothing -> [`PeerStatus`]. Of any peer.
    Status = 18,
    /// [`Addressed`] [`Learner`] -> nothing. Of db nodes only.
    Learn = 21,
    /// [`Addressed`] [`Proposal`] -> an encoded outcome of the catalog. Of any peer but shard nodes, as is the next one.
    Propose = 22,
    /// [`Addressed`] nothing -> the index, a `u64`.
    ReadIndex = 23,
    /// [`Addressed`] [`NewMember`] -> nothing. Of db nodes only.
    AddDb = 24,
    /// [`Addressed`] node, a `u64` -> nothing. Of db nodes only.
    RemoveDb = 25,
    /// Nothing -> [`WireLevels`]. Of db nodes only.
    Levels = 26,
    /// [`Addressed`] nodes, `Vec<u64>` -> those of them that answer the one that was asked, the same. Of db nodes only.
    Reach = 27,
}

impl Method {
    const ALL: [Method; 13] = {
        use Method::*;
        [Append, Vote, PreVote, Snapshot, Transfer, Status, Learn, Propose, ReadIndex, AddDb, RemoveDb, Levels, Reach]
    };

    /// As a call names it.
    pub(super) fn number(self) -> u16 {
        u16::from(SERVICE) << 8 | self as u16
    }

    pub(super) fn of_number(number: u16) -> Option<Method> {
        Method::ALL.into_iter().find(|method| method.number() == number)
    }

    /// Whether gateways may ask it too, and not db nodes alone; `Status` anybody may.
    pub(super) fn is_for_all(self) -> bool {
        matches!(self, Method::Propose | Method::ReadIndex | Method::Status)
    }
}

/// Statuses of replies.
pub(super) mod status {
    pub(crate) const OK: u16 = 0;
    /// Who asks may not, or what is asked is not understood, or not to be done.
    pub(crate) const REFUSED: u16 = 1;
    /// The node that was meant has another log now.
    pub(crate) const STRANGER: u16 = 2;
    /// This node does not lead; nothing was done.
    pub(crate) const NOT_LEADER: u16 = 3;
    /// There is no room; nothing was done.
    pub(crate) const OVERLOADED: u16 = 4;
    /// It was not done and will not be.
    pub(crate) const UNAVAILABLE: u16 = 5;
    /// It may have been done, or may still be.
    pub(crate) const UNKNOWN: u16 = 6;
}

/// Encodes a message.
pub(super) fn encode<T: Serialize>(message: &T) -> Bytes {
    // Writing plain values to memory does not fail.
    Bytes::from(postcard::to_extend(message, vec![VERSION]).unwrap_or_default())
}

/// The inverse of [`encode`].
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Undecodable> {
    let undecodable = Undecodable("message");
    let [VERSION, message @ ..] = bytes else { return Err(undecodable) };
    match postcard::take_from_bytes(message) {
        Ok((message, [])) => Ok(message),
        _ => Err(undecodable),
    }
}

/// Term, leader, index.
pub(super) type WireLogId = (u64, u64, u64);
/// Term, node, whether it is committed.
pub(super) type WireVote = (u64, u64, bool);

/// The feature level that the node's program knows, and the one that its catalog has.
pub(super) type WireLevels = (u32, u32);

/// A message from a node to a log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Addressed<T> {
    pub(super) from: u64,
    pub(super) to: u64,
    /// Which log the sender takes the receiver to have.
    pub(super) to_replica: u64,
    pub(super) message: T,
}

/// Entries to append; none: a heartbeat.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Append {
    vote: WireVote,
    prev: Option<WireLogId>,
    committed: Option<WireLogId>,
    /// Of the first record.
    first_index: u64,
    /// As in the log.
    records: Vec<Bytes>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Appended {
    All,
    UpTo(Option<WireLogId>),
    Conflict,
    HigherVote(WireVote),
}

/// A candidate's question.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Ballot {
    vote: WireVote,
    last: Option<WireLogId>,
    transfer: bool,
}

/// Its answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Voted {
    vote: WireVote,
    granted: bool,
    last: Option<WireLogId>,
}

/// The leader wants `to` to lead.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Transfer {
    leader: WireVote,
    to: u64,
    last: Option<WireLogId>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Transferred {
    Yes,
    VoteChanged { expected: WireVote, actual: WireVote },
    NotFlushed { expected: Option<WireLogId>, actual: Option<WireLogId> },
}

/// A forwarded command: an encoded envelope.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Proposal {
    pub(super) command: Bytes,
}

/// A node to be added.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct NewMember {
    pub(super) node: u64,
    pub(super) address: String,
}

/// The sender, which asks to be taken in as a learner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Learner {
    pub(super) address: String,
    pub(super) replica: u64,
}

/// How a db node stands, as it tells its peers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Which node.
    pub node: u64,
    /// Which log it has.
    pub replica: u64,
    /// Whether it is, or ever was, part of a cluster.
    pub initialised: bool,
    /// With whom it would found one; empty: it waits to be added.
    pub founders: Vec<u64>,
    /// Raft's term.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<u64>,
    /// The last entry in its log.
    pub last_index: Option<u64>,
    /// The last entry applied to its catalog.
    pub applied_index: Option<u64>,
    /// Who votes, as far as it knows.
    pub voters: Vec<u64>,
    /// Node, address and replica of every member, as far as it knows.
    pub members: Vec<(u64, String, u64)>,
}

pub(super) fn wire_log_id(id: &LogId) -> WireLogId {
    (id.leader_id.term, id.leader_id.node_id, id.index)
}

fn log_id((term, node_id, index): WireLogId) -> LogId {
    LogId { leader_id: LeaderId { term, node_id }, index }
}

pub(super) fn wire_vote(vote: &Vote) -> WireVote {
    (vote.leader_id.term, vote.leader_id.node_id, vote.committed)
}

pub(super) fn vote((term, node_id, committed): WireVote) -> Vote {
    Vote { leader_id: LeaderId { term, node_id }, committed }
}

impl From<&AppendEntriesRequest> for Append {
    fn from(request: &AppendEntriesRequest) -> Append {
        Append {
            vote: wire_vote(&request.vote),
            prev: request.prev_log_id.as_ref().map(wire_log_id),
            committed: request.leader_commit.as_ref().map(wire_log_id),
            first_index: request.entries.first().map_or(0, |entry| entry.log_id.index),
            records: request.entries.iter().map(encode_entry).collect(),
        }
    }
}

impl Append {
    /// About how long it is.
    pub(super) fn len_bytes(&self) -> u64 {
        self.records.iter().map(|record| record.len() as u64).sum()
    }
}

impl TryFrom<Append> for AppendEntriesRequest {
    type Error = Undecodable;

    fn try_from(append: Append) -> Result<AppendEntriesRequest, Undecodable> {
        let entries = append.records.iter().enumerate();
        let decode = |(nth, record)| decode_entry(append.first_index.saturating_add(nth as u64), record);
        let entries = entries.map(decode).collect::<Result<Vec<Entry>, _>>()?;
        let prev_log_id = append.prev.map(log_id);
        // openraft takes it for granted.
        let next_index = prev_log_id.map_or(0, |prev| prev.index.saturating_add(1));
        if !entries.is_empty() && append.first_index != next_index {
            return Err(Undecodable("message: entries with a gap"));
        }
        Ok(AppendEntriesRequest {
            vote: vote(append.vote),
            prev_log_id,
            entries,
            leader_commit: append.committed.map(log_id),
        })
    }
}

impl From<&AppendEntriesResponse> for Appended {
    fn from(response: &AppendEntriesResponse) -> Appended {
        match response {
            AppendEntriesResponse::Success => Appended::All,
            AppendEntriesResponse::PartialSuccess(to) => Appended::UpTo(to.as_ref().map(wire_log_id)),
            AppendEntriesResponse::Conflict => Appended::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Appended::HigherVote(wire_vote(vote)),
        }
    }
}

impl From<Appended> for AppendEntriesResponse {
    fn from(appended: Appended) -> AppendEntriesResponse {
        match appended {
            Appended::All => AppendEntriesResponse::Success,
            Appended::UpTo(to) => AppendEntriesResponse::PartialSuccess(to.map(log_id)),
            Appended::Conflict => AppendEntriesResponse::Conflict,
            Appended::HigherVote(higher) => AppendEntriesResponse::HigherVote(vote(higher)),
        }
    }
}

impl From<&VoteRequest> for Ballot {
    fn from(request: &VoteRequest) -> Ballot {
        let last = request.last_log_id.as_ref().map(wire_log_id);
        Ballot { vote: wire_vote(&request.vote), last, transfer: request.leadership_transfer }
    }
}

impl From<Ballot> for VoteRequest {
    fn from(ballot: Ballot) -> VoteRequest {
        let mut request = VoteRequest::new(vote(ballot.vote), ballot.last.map(log_id));
        request.leadership_transfer = ballot.transfer;
        request
    }
}

impl From<&VoteResponse> for Voted {
    fn from(response: &VoteResponse) -> Voted {
        let last = response.last_log_id.as_ref().map(wire_log_id);
        Voted { vote: wire_vote(&response.vote), granted: response.vote_granted, last }
    }
}

impl From<Voted> for VoteResponse {
    fn from(voted: Voted) -> VoteResponse {
        VoteResponse::new(vote(voted.vote), voted.last.map(log_id), voted.granted)
    }
}

impl From<&TransferLeaderRequest> for Transfer {
    fn from(request: &TransferLeaderRequest) -> Transfer {
        let last = request.last_log_id().map(wire_log_id);
        Transfer { leader: wire_vote(request.from_leader()), to: *request.to_node_id(), last }
    }
}

impl From<Transfer> for TransferLeaderRequest {
    fn from(transfer: Transfer) -> TransferLeaderRequest {
        TransferLeaderRequest::new(vote(transfer.leader), transfer.to, transfer.last.map(log_id))
    }
}

impl From<&TransferLeaderResponse> for Transferred {
    fn from(response: &TransferLeaderResponse) -> Transferred {
        match response {
            Ok(()) => Transferred::Yes,
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                Transferred::VoteChanged { expected: wire_vote(expected), actual: wire_vote(actual) }
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => Transferred::NotFlushed {
                expected: expected.as_ref().map(wire_log_id),
                actual: actual.as_ref().map(wire_log_id),
            },
        }
    }
}

impl From<Transferred> for TransferLeaderResponse {
    fn from(transferred: Transferred) -> TransferLeaderResponse {
        match transferred {
            Transferred::Yes => Ok(()),
            Transferred::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged { expected: vote(expected), actual: vote(actual) })
            }
            Transferred::NotFlushed { expected, actual } => {
                Err(TransferLeaderError::LogNotFlushed { expected: expected.map(log_id), actual: actual.map(log_id) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::types::{Command, Payload};
    use super::*;
    use proptest::prelude::*;

    fn id(term: u64, node_id: u64, index: u64) -> LogId {
        log_id((term, node_id, index))
    }

    fn append() -> AppendEntriesRequest {
        let payload = Payload::Normal(Command(Bytes::from_static(b"abc")));
        let entries =
            vec![Entry { log_id: id(3, 2, 10), payload: Payload::Blank }, Entry { log_id: id(3, 2, 11), payload }];
        let prev_log_id = Some(id(2, 1, 9));
        AppendEntriesRequest { vote: vote((3, 2, true)), prev_log_id, entries, leader_commit: Some(id(1, 1, 8)) }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_are_as_they_were() {
        let addressed = |message| hex(&encode(&Addressed { from: 1, to: 2, to_replica: 300, message }));
        assert_eq!(
            addressed(Append::from(&append())),
            "010102ac020302010102010901010108\
             0a02120100030000000000000002000000000000001501010300000000000000020000000000000061\
             6263"
        );
        let ballot = encode(&Ballot { vote: (4, 3, false), last: Some((3, 2, 11)), transfer: true });
        assert_eq!(hex(&ballot), "01040300010302 0b01".replace(' ', ""));
        assert_eq!(hex(&encode(&Voted { vote: (4, 3, true), granted: true, last: None })), "010403010100");
        assert_eq!(
            hex(&encode(&Transfer { leader: (4, 3, true), to: 2, last: None })),
            "0104030102 00".replace(' ', "")
        );
        assert_eq!(hex(&encode(&Appended::UpTo(Some((1, 2, 3))))), "010101010203");
        assert_eq!(
            hex(&encode(&Transferred::NotFlushed { expected: Some((1, 2, 3)), actual: None })),
            "01020101020300"
        );
        assert_eq!(hex(&encode(&Proposal { command: Bytes::from_static(b"xy") })), "01027879");
        assert_eq!(hex(&encode(&NewMember { node: 4, address: "a:1".into() })), "010403613a31");
        assert_eq!(hex(&encode(&Learner { address: "a:1".into(), replica: 300 })), "0103613a31ac02");
        assert_eq!(hex(&encode(&77_u64)), "014d");
        let levels: WireLevels = (300, 1);
        assert_eq!(hex(&encode(&levels)), "01ac0201");
        let nodes = Addressed { from: 1, to: 2, to_replica: 300, message: vec![1_u64, 2] };
        assert_eq!(hex(&encode(&nodes)), "010102ac02020102");
        let status = PeerStatus { node: 1, replica: 2, founders: vec![1, 2], leader: Some(2), ..PeerStatus::default() };
        assert_eq!(hex(&encode(&status)), "010102000201020001020000 0000".replace(' ', ""));
    }

    #[test]
    fn methods_keep_their_numbers() {
        let numbers: Vec<u16> = Method::ALL.iter().map(|method| method.number()).collect();
        assert_eq!(
            numbers,
            [0x101, 0x102, 0x103, 0x104, 0x105, 0x112, 0x115, 0x116, 0x117, 0x118, 0x119, 0x11a, 0x11b]
        );
        assert!(Method::ALL.iter().all(|method| Method::of_number(method.number()) == Some(*method)));
        for unused in [0x106, 0x110, 0x111, 0x113, 0x114] {
            assert_eq!(Method::of_number(unused), None);
        }
    }

    #[test]
    fn requests_round_trip() {
        let message = Append::from(&append());
        let back = AppendEntriesRequest::try_from(decode::<Append>(&encode(&message)).unwrap()).unwrap();
        assert_eq!(format!("{back:?}"), format!("{:?}", append()));
        for response in [Appended::All, Appended::UpTo(None), Appended::Conflict, Appended::HigherVote((1, 2, true))] {
            assert_eq!(Appended::from(&AppendEntriesResponse::from(response.clone())), response);
        }
        let (expected, actual) = ((1, 2, true), (3, 4, false));
        for response in [Transferred::Yes, Transferred::VoteChanged { expected, actual }] {
            assert_eq!(Transferred::from(&TransferLeaderResponse::from(response.clone())), response);
        }
    }

    #[test]
    fn entries_that_do_not_follow_are_refused() {
        let mut message = Append::from(&append());
        message.first_index = 12;
        assert!(AppendEntriesRequest::try_from(message).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode::<Addressed<Append>>(&bytes).map(|append| AppendEntriesRequest::try_from(append.message));
            let _ = decode::<Addressed<Ballot>>(&bytes);
            let _ = decode::<Transferred>(&bytes);
            let _ = decode::<PeerStatus>(&bytes);
        }
    }
}
