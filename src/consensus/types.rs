//! The types openraft is instantiated with.

use std::fmt;

use bytes::Bytes;
use openraft::impls::{self, leader_id_adv};
use openraft::{OptionalSend, RaftTypeConfig};

use super::admission::Proposed;
use crate::catalog::{Outcome, Position};

/// Raft as it is used here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct TypeConfig;

// openraft's macro for this takes no responder of one's own.
impl RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Outcome;
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = impls::TokioRuntime;
    type Responder<T>
        = Proposed<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = impls::BoxedErrorSource;
}

/// Whoever won an election: ordered by term, then by node.
pub(super) type LeaderId = leader_id_adv::LeaderId<u64, u64>;
/// Where an entry stands.
pub(super) type LogId = openraft::LogId<LeaderId>;
/// A vote, committed once its node leads.
pub(super) type Vote = openraft::Vote<LeaderId>;
/// What an entry carries.
pub(super) type Payload = openraft::EntryPayload<Command, u64, Member>;
/// An entry of the log.
pub(super) type Entry = openraft::Entry<LeaderId, Payload>;
/// Who votes and who learns.
pub(super) type Membership = openraft::Membership<u64, Member>;
/// A membership and where it was written.
pub(super) type StoredMembership = openraft::StoredMembership<LeaderId, u64, Member>;
/// What a snapshot covers.
pub(super) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, Member>;

/// A command as proposed: an encoded [`crate::catalog::Envelope`]. Encoded once, by its proposer; decoded once, by the
/// thread that applies it; cheap to clone in between.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Command(pub(super) Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What the members know of one of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Member {
    /// Where it is reached, as the network understands it; empty for a node that is alone.
    pub(super) address: String,
    /// Which log the node has: random, made with the log and kept in it. 0: of a time when none was recorded.
    pub(super) replica: u64,
}

/// Whether others than `node` vote.
pub(super) fn has_peers(membership: &Membership, node: u64) -> bool {
    membership.voter_ids().any(|voter| voter != node)
}

pub(super) fn log_id(position: Position) -> LogId {
    LogId { leader_id: LeaderId { term: position.term, node_id: position.leader }, index: position.index }
}

pub(super) fn position(log_id: LogId) -> Position {
    Position { term: log_id.leader_id.term, leader: log_id.leader_id.node_id, index: log_id.index }
}
