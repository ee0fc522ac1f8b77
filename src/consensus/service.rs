//! What a db node answers to its peers: Raft's own messages to other db nodes; proposals, read indexes and its status to
//! every node of the cluster.
//!
//! Invariants
//! - A message of Raft's is heard only from the db node that it says it is from.
//! - Whatever is asked is answered only by the log it is meant for, but for how a node stands and what it knows.
//! - Bytes that are no command are never proposed: every member would stop at them.
//! - Who stops listening changes nothing that has begun: a proposal stays with Raft, an installation runs to its end.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::raft::AppendEntriesRequest;
use openraft::{Snapshot as RaftSnapshot, raft::SnapshotResponse};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::core::Core;
use super::encoding::Undecodable;
use super::members::MembersError;
use super::message::{Addressed, Append, Appended, Ballot, Learner, Method, NewMember, Proposal};
use super::message::{Transfer, Transferred, Voted, WireVote, decode, encode, status, vote, wire_vote};
use super::propose::{COMMAND_MAX_LEN, Tried, is_remembered};
use super::raft::{Active, Inner};
use super::read::Unconfirmed;
use super::state_machine::Snapshot;
use super::transfer::Incoming;
use super::types::{Command, Member, TypeConfig};
use crate::catalog::{Envelope, LedgerError};
use crate::ids::NodeId;
use crate::transport::{Body, Call, Peer, Reply, Role, Service};

/// The service of one node.
pub(super) struct Desk {
    inner: Arc<Inner>,
    /// Snapshots are received one at a time.
    receiving: Arc<tokio::sync::Mutex<()>>,
}

/// A reply that is none: status and reason.
struct Denied(u16, String);

type Answer = Result<Bytes, Denied>;

impl From<Undecodable> for Denied {
    fn from(error: Undecodable) -> Denied {
        Denied(status::REFUSED, error.to_string())
    }
}

fn unavailable(why: impl ToString) -> Denied {
    Denied(status::UNAVAILABLE, why.to_string())
}

impl Service for Desk {
    fn serve<'a>(&'a self, from: &'a [Peer], call: Call) -> BoxFuture<'a, Reply> {
        async move {
            let (status, header) = match self.answer(from, call).await {
                Ok(header) => (status::OK, header),
                Err(Denied(status, why)) => (status, why.into()),
            };
            Reply { status, header, body: Body::empty() }
        }
        .boxed()
    }
}

impl Desk {
    pub(super) fn new(inner: Arc<Inner>) -> Desk {
        Desk { inner, receiving: Arc::default() }
    }

    async fn answer(&self, from: &[Peer], call: Call) -> Answer {
        let Some(method) = Method::of_number(call.method) else {
            return Err(Denied(status::REFUSED, format!("no method {:#x}", call.method)));
        };
        // A shard node has no business with the catalog, but to ask how it stands.
        let is_allowed = from.iter().any(|peer| match peer.role {
            Role::Db => true,
            Role::Gateway => method.is_for_all(),
            Role::Shard => method == Method::Status,
        });
        if !is_allowed {
            return Err(Denied(status::REFUSED, "only for other roles".into()));
        }
        if method == Method::Status {
            return Ok(encode(&self.inner.peer_status().await));
        }
        if method == Method::Levels {
            return Ok(encode(&self.inner.levels()));
        }
        let active = self.inner.active().map_err(unavailable)?;
        match method {
            Method::Snapshot => self.snapshot(active, from, call).await,
            method if method.is_for_all() => for_all(active, method, &call.header).await,
            method => for_db_nodes(active, method, from, &call.header).await,
        }
    }

    /// Receives a snapshot and has it installed, whether its sender waits for that or not.
    async fn snapshot(&self, active: &Active, from: &[Peer], call: Call) -> Answer {
        let core = &active.core;
        let leader = vote(heard::<WireVote>(core, from, &call.header)?);
        let turn = self.receiving.clone().lock_owned().await;
        let incoming = Incoming::receive(call.body, &core.scratch, &core.applier, &leader).await.map_err(|error| {
            tracing::warn!(%error, "a snapshot was not received");
            unavailable(error)
        })?;
        let (raft, applier) = (core.raft.clone(), core.applier.clone());
        let installing = tokio::spawn(async move {
            let snapshot = RaftSnapshot { meta: incoming.meta, snapshot: Snapshot::File(incoming.file) };
            let installed = raft.install_full_snapshot(leader, snapshot).await;
            // Raft may have had no use for it. It fails only for a catalog that has stopped.
            let _ = applier.discard().await;
            drop(turn);
            installed
        });
        let SnapshotResponse { vote } = installing.await.map_err(unavailable)?.map_err(unavailable)?;
        Ok(encode(&wire_vote(&vote)))
    }
}

/// A message of Raft's, from whom it says it is from and to this very log.
fn heard<T: DeserializeOwned>(core: &Core, from: &[Peer], header: &[u8]) -> Result<T, Denied> {
    heard_from(core, from, header).map(|(_, message)| message)
}

/// Its sender too.
fn heard_from<T: DeserializeOwned>(core: &Core, from: &[Peer], header: &[u8]) -> Result<(u64, T), Denied> {
    let (sender, message) = meant(core, header)?;
    match from.contains(&Peer { role: Role::Db, id: NodeId(sender) }) {
        true => Ok((sender, message)),
        false => Err(Denied(status::REFUSED, format!("this is not db {sender}"))),
    }
}

/// A message to this very log, and whom it says it is from.
fn meant<T: DeserializeOwned>(core: &Core, header: &[u8]) -> Result<(u64, T), Denied> {
    let Addressed { from, to, to_replica, message } = decode(header)?;
    match (to, to_replica) == (core.node, core.member.replica) {
        true => Ok((from, message)),
        false => Err(Denied(status::STRANGER, format!("db {} has another log than the one that was meant", core.node))),
    }
}

async fn for_db_nodes(active: &Active, method: Method, from: &[Peer], header: &[u8]) -> Answer {
    let core = &active.core;
    let raft = &core.raft;
    match method {
        Method::Append => {
            let request: AppendEntriesRequest<TypeConfig> = heard::<Append>(core, from, header)?.try_into()?;
            said(raft.append_entries(request).await.map(|appended| Appended::from(&appended)))
        }
        Method::Vote => {
            let ballot = heard::<Ballot>(core, from, header)?;
            said(raft.vote(ballot.into()).await.map(|voted| Voted::from(&voted)))
        }
        Method::PreVote => {
            let ballot = heard::<Ballot>(core, from, header)?;
            said(raft.pre_vote(ballot.into()).await.map(|voted| Voted::from(&voted)))
        }
        Method::Transfer => {
            let transfer = heard::<Transfer>(core, from, header)?;
            said(raft.handle_transfer_leader(transfer.into()).await.map(|done| Transferred::from(&done)))
        }
        Method::AddDb => {
            let NewMember { node, address } = heard(core, from, header)?;
            members(core, core.add_db_here(node, &address).await)
        }
        Method::Reach => Ok(encode(&core.reach(heard(core, from, header)?).await)),
        Method::RemoveDb => members(core, core.remove_db_here(heard(core, from, header)?).await),
        Method::Learn => {
            let (node, Learner { address, replica }) = heard_from(core, from, header)?;
            members(core, core.learn_here(node, Member { address, replica }).await)
        }
        other => Err(Denied(status::REFUSED, format!("{other:?} is not answered here"))),
    }
}

async fn for_all(active: &Active, method: Method, header: &[u8]) -> Answer {
    match method {
        Method::Propose => propose(&active.core, header).await,
        Method::ReadIndex => match meant(&active.core, header).map(|(_, ())| active.leading.pass())?.await {
            Ok(index) => Ok(encode(&index)),
            Err(Unconfirmed::Later(why)) => Err(Denied(status::NOT_LEADER, why)),
            Err(Unconfirmed::Stopped(why)) => Err(unavailable(why)),
        },
        other => Err(Denied(status::REFUSED, format!("{other:?} is not answered here"))),
    }
}

async fn propose(core: &Core, header: &[u8]) -> Answer {
    let (_, Proposal { command }) = meant(core, header)?;
    // What is longer could not be sent on to any follower.
    if command.len() > COMMAND_MAX_LEN {
        return Err(Denied(status::REFUSED, format!("a command of {} bytes is too long", command.len())));
    }
    let envelope = Envelope::decode(&command).map_err(|error| Denied(status::REFUSED, error.to_string()))?;
    match core.try_here(Command(command), is_remembered(&envelope), Instant::now() + core.timeout).await {
        Tried::Done(outcome) => Ok(outcome.encode().into()),
        Tried::NotLed => Err(Denied(status::NOT_LEADER, "this node does not lead".into())),
        Tried::Never(LedgerError::Overloaded) => Err(Denied(status::OVERLOADED, "there is no room".into())),
        Tried::Never(error) => Err(unavailable(error)),
        Tried::Unknown(why) => Err(Denied(status::UNKNOWN, why)),
    }
}

fn said<T: Serialize, E: ToString>(answer: Result<T, E>) -> Answer {
    answer.map(|answer| encode(&answer)).map_err(unavailable)
}

fn members(core: &Core, changed: Result<(), MembersError>) -> Answer {
    changed.map(|()| encode(&())).map_err(|error| match error {
        MembersError::Refused(why) => Denied(status::REFUSED, why),
        MembersError::Unavailable(why) => Denied(status::UNAVAILABLE, format!("db {}: {why}", core.node)),
        MembersError::Unknown(why) => Denied(status::UNKNOWN, why),
    })
}
