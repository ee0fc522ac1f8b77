//! What consensus writes: log records, the log's mark, and the membership that the catalog keeps.
//!
//! Integers are little-endian; a record's index is the log's.
//!
//! ```text
//! record      0         1      2         10          18
//!             +---------+------+---------+-----------+------------------
//!             | version | kind | term    | leader    | payload
//!             | 1       |      | u64     | u64       |
//!             +---------+------+---------+-----------+------------------
//!             kind 0  blank        no payload
//!                  1  command      an encoded Envelope
//!                  2  membership   postcard: [{voter}], {node: address}            read, no longer written
//!                  3  membership   postcard: [{voter}], {node: (address, replica)}
//!
//! mark        0         1       2         10       18        26          34      42
//!             +---------+-------+---------+--------+---------+-----------+-------+---------+
//!             | version | flags | vote's  | vote's | purged: | purged:   | index | replica |
//!             | 2       |       | term    | node   | term    | leader    |       |         |
//!             +---------+-------+---------+--------+---------+-----------+-------+---------+ 50
//!             flags 1  there is a vote        absent fields are zero
//!                   2  the vote is committed
//!                   4  something was purged: up to this entry, included
//!                   8  others vote too, as far as the log says
//!             version 1 ends before the replica
//!
//! membership  0         1     2      10       18      26
//!             +---------+-----+------+--------+-------+-------------------
//!             | version | set | term | leader | index | as in a record of
//!             | 2       | 0/1 |      |        |       | kind 3; version 1: 2
//!             +---------+-----+------+--------+-------+-------------------
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::types::{Command, Entry, LeaderId, LogId, Member, Membership, Payload, StoredMembership, Vote};

const VERSION: u8 = 1;
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP_WITHOUT_REPLICAS: u8 = 2;
const MEMBERSHIP: u8 = 3;
const MARK_VERSION: u8 = 2;
const MARK_VERSION_WITHOUT_REPLICA: u8 = 1;
const STORED_VERSION: u8 = 2;
const STORED_VERSION_WITHOUT_REPLICAS: u8 = 1;
const RECORD_HEADER_LEN: usize = 18;

const HAS_VOTE: u8 = 1;
const VOTE_COMMITTED: u8 = 2;
const HAS_PURGED: u8 = 4;
const HAS_PEERS: u8 = 8;

/// The bytes are not what consensus writes, or of a later version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("undecodable {0}")]
pub struct Undecodable(pub &'static str);

/// What the log keeps beside its records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Mark {
    pub(super) vote: Option<Vote>,
    /// The last entry purged.
    pub(super) purged: Option<LogId>,
    /// Which log this is; 0: it was not said yet.
    pub(super) replica: u64,
    /// Whether the log, or who led it, has said that others vote too. It is set before that is in the log, and cleared once
    /// the log has durably said that its node is alone: so a log that lost its end still knows.
    pub(super) has_peers: bool,
}

pub(super) fn encode_entry(entry: &Entry) -> Bytes {
    let mut record = match &entry.payload {
        Payload::Blank => begin_record(BLANK, entry.log_id, 0),
        Payload::Normal(command) => begin_record(COMMAND, entry.log_id, command.0.len()),
        Payload::Membership(_) => begin_record(MEMBERSHIP, entry.log_id, 64),
    };
    match &entry.payload {
        Payload::Blank => {}
        Payload::Normal(command) => record.extend_from_slice(&command.0),
        Payload::Membership(membership) => record = extend_membership(record, membership),
    }
    Bytes::from(record)
}

fn begin_record(kind: u8, log_id: LogId, payload_len: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD_HEADER_LEN + payload_len);
    record.extend([VERSION, kind]);
    record.extend(log_id.leader_id.term.to_le_bytes());
    record.extend(log_id.leader_id.node_id.to_le_bytes());
    record
}

/// The record at `index`; a command shares the record's memory.
pub(super) fn decode_entry(index: u64, record: &Bytes) -> Result<Entry, Undecodable> {
    let log_id = decode_log_id(index, record)?;
    let payload = match record[1] {
        BLANK => Payload::Blank,
        COMMAND => Payload::Normal(Command(record.slice(RECORD_HEADER_LEN..))),
        MEMBERSHIP => Payload::Membership(decode_members(&record[RECORD_HEADER_LEN..])?),
        MEMBERSHIP_WITHOUT_REPLICAS => {
            Payload::Membership(decode_members_without_replicas(&record[RECORD_HEADER_LEN..])?)
        }
        _ => return Err(Undecodable("kind of log record")),
    };
    Ok(Entry { log_id, payload })
}

/// Only where the record at `index` stands.
pub(super) fn decode_log_id(index: u64, record: &[u8]) -> Result<LogId, Undecodable> {
    match (record.first(), u64_at(record, 2), u64_at(record, 10)) {
        (Some(&VERSION), Some(term), Some(node_id)) => Ok(LogId { leader_id: LeaderId { term, node_id }, index }),
        _ => Err(Undecodable("log record")),
    }
}

pub(super) fn encode_mark(mark: &Mark) -> Vec<u8> {
    let vote = mark.vote.map_or([0; 2], |vote| [vote.leader_id.term, vote.leader_id.node_id]);
    let purged = mark.purged.map_or([0; 3], |id| [id.leader_id.term, id.leader_id.node_id, id.index]);
    let has = |is: bool, flag: u8| if is { flag } else { 0 };
    let flags = has(mark.vote.is_some(), HAS_VOTE)
        | has(mark.vote.is_some_and(|vote| vote.committed), VOTE_COMMITTED)
        | has(mark.purged.is_some(), HAS_PURGED)
        | has(mark.has_peers, HAS_PEERS);
    let mut bytes = vec![MARK_VERSION, flags];
    bytes.extend(vote.iter().chain(&purged).chain(&[mark.replica]).flat_map(|field| field.to_le_bytes()));
    bytes
}

/// No bytes are the mark of a new log.
pub(super) fn decode_mark(bytes: &[u8]) -> Result<Mark, Undecodable> {
    if bytes.is_empty() {
        return Ok(Mark::default());
    }
    let undecodable = Undecodable("mark of the log");
    let [version @ (MARK_VERSION | MARK_VERSION_WITHOUT_REPLICA), flags, fields @ ..] = bytes else {
        return Err(undecodable);
    };
    let mut fields: Vec<u64> = (0..6).map_while(|field| u64_at(fields, field * 8)).collect();
    if *version == MARK_VERSION_WITHOUT_REPLICA {
        fields.resize(6, 0);
    }
    let &[term, node_id, purged_term, purged_leader, index, replica] = fields.as_slice() else {
        return Err(undecodable);
    };
    let vote = Vote { leader_id: LeaderId { term, node_id }, committed: flags & VOTE_COMMITTED != 0 };
    let purged = LogId { leader_id: LeaderId { term: purged_term, node_id: purged_leader }, index };
    let vote = (flags & HAS_VOTE != 0).then_some(vote);
    let has_peers = flags & HAS_PEERS != 0;
    Ok(Mark { vote, purged: (flags & HAS_PURGED != 0).then_some(purged), replica, has_peers })
}

pub(super) fn encode_membership(log_id: Option<LogId>, membership: &Membership) -> Vec<u8> {
    let fields = log_id.map_or([0; 3], |id| [id.leader_id.term, id.leader_id.node_id, id.index]);
    let mut bytes = vec![STORED_VERSION, u8::from(log_id.is_some())];
    bytes.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
    extend_membership(bytes, membership)
}

/// No bytes are the membership of a catalog that has applied none.
pub(super) fn decode_membership(bytes: &[u8]) -> Result<StoredMembership, Undecodable> {
    if bytes.is_empty() {
        return Ok(StoredMembership::default());
    }
    let undecodable = Undecodable("membership in the catalog");
    let (Some(version), Some(set), Some(term), Some(node_id), Some(index)) =
        (bytes.first(), bytes.get(1), u64_at(bytes, 2), u64_at(bytes, 10), u64_at(bytes, 18))
    else {
        return Err(undecodable);
    };
    let log_id = LogId { leader_id: LeaderId { term, node_id }, index };
    let members = match *version {
        STORED_VERSION => decode_members(&bytes[26..])?,
        STORED_VERSION_WITHOUT_REPLICAS => decode_members_without_replicas(&bytes[26..])?,
        _ => return Err(undecodable),
    };
    Ok(StoredMembership::new((*set == 1).then_some(log_id), members))
}

type Configs = Vec<BTreeSet<u64>>;
type Members = (Configs, BTreeMap<u64, (String, u64)>);
type MembersWithoutReplicas = (Configs, BTreeMap<u64, String>);

fn extend_membership(bytes: Vec<u8>, membership: &Membership) -> Vec<u8> {
    let nodes = membership.nodes().map(|(id, member)| (*id, (member.address.clone(), member.replica))).collect();
    let members: Members = (membership.get_joint_config().clone(), nodes);
    // Writing integers and strings to memory does not fail.
    postcard::to_extend(&members, bytes).unwrap_or_default()
}

fn decode_members(bytes: &[u8]) -> Result<Membership, Undecodable> {
    let (configs, nodes): Members = postcard::from_bytes(bytes).map_err(|_| Undecodable("membership"))?;
    to_membership(configs, nodes)
}

fn decode_members_without_replicas(bytes: &[u8]) -> Result<Membership, Undecodable> {
    let (configs, nodes): MembersWithoutReplicas =
        postcard::from_bytes(bytes).map_err(|_| Undecodable("membership"))?;
    to_membership(configs, nodes.into_iter().map(|(id, address)| (id, (address, 0))).collect())
}

fn to_membership(configs: Configs, nodes: BTreeMap<u64, (String, u64)>) -> Result<Membership, Undecodable> {
    let member = |(id, (address, replica))| (id, Member { address, replica });
    let nodes: BTreeMap<u64, Member> = nodes.into_iter().map(member).collect();
    Membership::new(configs, nodes).map_err(|_| Undecodable("membership"))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let field = bytes.get(offset..offset + 8)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn id(term: u64, node_id: u64, index: u64) -> LogId {
        LogId { leader_id: LeaderId { term, node_id }, index }
    }

    fn members() -> Membership {
        let configs = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
        let node = |id: u64| (id, Member { address: format!("n{id}:7000"), replica: id << 40 });
        Membership::new(configs, (1..=5).map(node).collect::<BTreeMap<_, _>>()).unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_are_as_they_were() {
        let entry = |payload| hex(&encode_entry(&Entry { log_id: id(3, 2, 9), payload }));
        assert_eq!(entry(Payload::Blank), "010003000000000000000200000000000000");
        let command = Payload::Normal(Command(Bytes::from_static(b"abc")));
        assert_eq!(entry(command), "010103000000000000000200000000000000616263");
        let one = one_member(0x1234);
        assert_eq!(entry(Payload::Membership(one.clone())), "01030300000000000000020000000000000001010701070178b424");
        assert_eq!(
            hex(&encode_membership(Some(id(3, 2, 9)), &one)),
            "020103000000000000000200000000000000090000000000000001010701070178b424"
        );
        let vote = Some(Vote::new_committed(5, 1));
        let mark = Mark { vote, purged: Some(id(4, 2, 0x0100)), replica: 0x1234, has_peers: false };
        assert_eq!(
            hex(&encode_mark(&mark)),
            "0207050000000000000001000000000000000400000000000000020000000000000000010000000000003412000000000000"
        );
        assert_eq!(
            hex(&encode_mark(&Mark { has_peers: true, ..mark })),
            "020f050000000000000001000000000000000400000000000000020000000000000000010000000000003412000000000000"
        );
    }

    fn one_member(replica: u64) -> Membership {
        let nodes = BTreeMap::from([(7, Member { address: "x".into(), replica })]);
        Membership::new(vec![BTreeSet::from([7])], nodes).unwrap()
    }

    #[test]
    fn bytes_of_before_there_were_replicas_are_read() {
        let unhex = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let record = unhex("01020300000000000000020000000000000001010701070178");
        let entry = Entry { log_id: id(3, 2, 9), payload: Payload::Membership(one_member(0)) };
        assert_eq!(decode_entry(9, &Bytes::from(record)).unwrap(), entry);
        let stored = unhex("010103000000000000000200000000000000090000000000000001010701070178");
        let expected = StoredMembership::new(Some(id(3, 2, 9)), one_member(0));
        assert_eq!(decode_membership(&stored).unwrap(), expected);
        let mark = unhex("010705000000000000000100000000000000040000000000000002000000000000000001000000000000");
        let vote = Some(Vote::new_committed(5, 1));
        let expected = Mark { vote, purged: Some(id(4, 2, 0x0100)), ..Mark::default() };
        assert_eq!(decode_mark(&mark).unwrap(), expected);
    }

    #[test]
    fn entries_and_memberships_round_trip() {
        for payload in
            [Payload::Blank, Payload::Normal(Command(Bytes::from_static(b"x"))), Payload::Membership(members())]
        {
            let entry = Entry { log_id: id(u64::MAX, 2, 77), payload };
            let record = encode_entry(&entry);
            assert_eq!(decode_entry(77, &record).unwrap(), entry);
            assert_eq!(decode_log_id(77, &record).unwrap(), entry.log_id);
        }
        for log_id in [None, Some(id(1, 2, 3))] {
            let stored = StoredMembership::new(log_id, members());
            assert_eq!(decode_membership(&encode_membership(log_id, &members())).unwrap(), stored);
        }
        assert_eq!(decode_membership(&[]).unwrap(), StoredMembership::default());
    }

    proptest! {
        #[test]
        fn marks_round_trip(
            vote in proptest::option::of((any::<u64>(), any::<u64>(), any::<bool>())),
            purged in proptest::option::of((any::<u64>(), any::<u64>(), any::<u64>())),
            replica in any::<u64>(),
            has_peers in any::<bool>(),
        ) {
            let vote = vote.map(|(term, node_id, committed)| Vote { leader_id: LeaderId { term, node_id }, committed });
            let purged = purged.map(|(term, node, index)| id(term, node, index));
            let mark = Mark { vote, purged, replica, has_peers };
            prop_assert!(encode_mark(&mark).len() <= 64);
            prop_assert_eq!(decode_mark(&encode_mark(&mark)).unwrap(), mark);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode_mark(&bytes);
            let _ = decode_membership(&bytes);
            let _ = decode_entry(1, &Bytes::from(bytes));
        }
    }
}
