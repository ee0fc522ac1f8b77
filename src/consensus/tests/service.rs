//! What a node answers, and to whom.

use super::super::message::{Addressed, Append, Learner, Method, NewMember, Proposal, decode, encode, status};
use super::*;
use crate::transport::{Body, Call, Peer, Reply, Role};

const DB: Peer = Peer { role: Role::Db, id: NodeId(2) };
const GATEWAY: Peer = Peer { role: Role::Gateway, id: NodeId(7) };

async fn ask(raft: &Raft, from: &[Peer], method: u16, header: Bytes) -> Reply {
    raft.service().serve(from, Call { method, header, body: Body::empty() }).await
}

fn append(from: u64, to_replica: u64) -> Bytes {
    let heartbeat = openraft::raft::AppendEntriesRequest {
        vote: openraft::Vote::new(0, from),
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    to_log(from, to_replica, Append::from(&heartbeat))
}

fn to_log(from: u64, to_replica: u64, message: impl serde::Serialize) -> Bytes {
    encode(&Addressed { from, to: 1, to_replica, message })
}

async fn replica(raft: &Raft) -> u64 {
    let reply = ask(raft, &[DB], Method::Status.number(), encode(&())).await;
    decode::<super::super::PeerStatus>(&reply.header).unwrap().replica
}

#[tokio::test]
async fn every_peer_may_propose_and_read_and_ask() {
    let dir = tempfile::tempdir().unwrap();
    let raft = open(dir.path()).await;
    raft.barrier().await.unwrap();
    let session = envelope(SessionId(0), 0, Command::OpenSession { gateway: "far away".into() });
    let replica = replica(&raft).await;
    let proposal = to_log(7, replica, Proposal { command: session.encode().into() });
    let reply = ask(&raft, &[GATEWAY], Method::Propose.number(), proposal).await;
    assert_eq!(reply.status, status::OK);
    assert!(matches!(Outcome::decode(&reply.header).unwrap(), Outcome::Session(_)));
    let reply = ask(&raft, &[GATEWAY], Method::ReadIndex.number(), to_log(7, replica, ())).await;
    assert_eq!(Some(decode::<u64>(&reply.header).unwrap()), raft.status().last_index);
    let reply = ask(&raft, &[GATEWAY], Method::Status.number(), encode(&())).await;
    let told: super::super::PeerStatus = decode(&reply.header).unwrap();
    assert!(told.initialised && told.replica != 0 && told.voters == [1], "{told:?}");
    raft.shutdown().await;
}

#[tokio::test]
async fn nobody_may_what_is_not_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let raft = open(dir.path()).await;
    raft.barrier().await.unwrap();
    let replica = replica(&raft).await;
    let before = raft.status();
    let said =
        async |from: &[Peer], method: Method, header: Bytes| ask(&raft, from, method.number(), header).await.status;
    assert_eq!(said(&[DB], Method::Append, append(2, replica)).await, status::OK);
    assert_eq!(said(&[GATEWAY], Method::Append, append(2, replica)).await, status::REFUSED);
    assert_eq!(said(&[DB], Method::Append, append(3, replica)).await, status::REFUSED);
    assert_eq!(said(&[DB], Method::Append, append(2, replica ^ 1)).await, status::STRANGER);
    let remove = |replica| to_log(2, replica, 1_u64);
    assert_eq!(said(&[GATEWAY], Method::RemoveDb, remove(replica)).await, status::REFUSED);
    assert_eq!(said(&[DB], Method::RemoveDb, remove(replica)).await, status::REFUSED, "it is the last voter");
    assert_eq!(said(&[DB], Method::RemoveDb, remove(replica ^ 1)).await, status::STRANGER);
    let add = NewMember { node: 3, address: "db-3:7000".into() };
    assert_eq!(said(&[DB], Method::AddDb, to_log(2, replica ^ 1, add)).await, status::STRANGER);
    let learner = Learner { address: "db-2:7000".into(), replica: 22 };
    assert_eq!(said(&[GATEWAY], Method::Learn, to_log(2, replica, learner.clone())).await, status::REFUSED);
    assert_eq!(said(&[DB], Method::Learn, to_log(3, replica, learner.clone())).await, status::REFUSED);
    assert_eq!(said(&[DB], Method::Learn, to_log(2, replica ^ 1, learner)).await, status::STRANGER);
    let session = envelope(SessionId(0), 0, Command::OpenSession { gateway: "lost".into() });
    let proposal = Proposal { command: session.encode().into() };
    assert_eq!(said(&[GATEWAY], Method::Propose, to_log(7, replica ^ 1, proposal)).await, status::STRANGER);
    assert_eq!(said(&[GATEWAY], Method::ReadIndex, to_log(7, replica ^ 1, ())).await, status::STRANGER);
    assert_eq!(said(&[], Method::Status, encode(&())).await, status::REFUSED);
    assert_eq!(said(&[DB], Method::Levels, encode(&())).await, status::OK);
    assert_eq!(said(&[GATEWAY], Method::Levels, encode(&())).await, status::REFUSED);
    let nonsense = to_log(7, replica, Proposal { command: Bytes::from_static(b"\xffno envelope") });
    assert_eq!(said(&[GATEWAY], Method::Propose, nonsense).await, status::REFUSED);
    assert_eq!(said(&[DB], Method::Vote, Bytes::from_static(b"\x02")).await, status::REFUSED);
    assert_eq!(ask(&raft, &[DB], 0x1ff, Bytes::new()).await.status, status::REFUSED);
    assert_eq!((raft.status().term, raft.status().last_index), (before.term, before.last_index));
    raft.shutdown().await;
}
