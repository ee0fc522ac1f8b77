//! How Raft reaches its peers: openraft's network over any [`Caller`].
//!
//! Invariants
//! - A peer is addressed as (node, replica): whoever has lost its log and came back under its old id refuses.
//! - A heartbeat is a call of its own, and never waits behind entries; a snapshot goes over the other connection.
//! - While a snapshot is sent, the entries after it are held.
//! - A pre-vote is asked of the peer itself: whoever is not reached grants nothing.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use openraft::{OptionalSend, Snapshot as RaftSnapshot};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::hold::{Hold, Holds};
use super::message::{Addressed, Append, Appended, Ballot, Method, Transfer, Transferred, Voted, WireVote};
use super::message::{decode, encode, status, vote, wire_vote};
use super::state_machine::Snapshot;
use super::transfer;
use super::types::{LeaderId, Member, TypeConfig, Vote};
use crate::ids::NodeId;
use crate::transport::{Body, Call, CallError, Caller, Class, Peer, Reply, Role};

/// The network of a node that has no peers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Caller for Alone {
    fn call(&self, to: Peer, _: Class, _: Call, _: Duration) -> BoxFuture<'_, Result<Reply, CallError>> {
        async move { Err(CallError::Never(to, "this node knows no network".into())) }.boxed()
    }
}

/// A db node as a peer.
pub(super) fn db(node: u64) -> Peer {
    Peer { role: Role::Db, id: NodeId(node) }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(transparent)]
    Call(CallError),
    /// An answer other than the one asked for: status and reason.
    #[error("{1}")]
    Status(u16, String),
    #[error("an undecodable reply")]
    Undecodable,
    /// Nobody was asked.
    #[error("it knows of no leader")]
    NoLeader,
}

/// Asks a db node something small.
pub(super) async fn ask<A: DeserializeOwned>(
    caller: &dyn Caller,
    node: u64,
    (method, question): (Method, &impl Serialize),
    deadline: Duration,
) -> Result<A, AskError> {
    let header = ask_raw(caller, node, method, encode(question), deadline).await?;
    decode(&header).map_err(|_| AskError::Undecodable)
}

/// The reply's header as it is.
pub(super) async fn ask_raw(
    caller: &dyn Caller,
    node: u64,
    method: Method,
    header: bytes::Bytes,
    deadline: Duration,
) -> Result<bytes::Bytes, AskError> {
    let call = Call { method: method.number(), header, body: Body::empty() };
    let reply = caller.call(db(node), Class::Urgent, call, deadline).await.map_err(AskError::Call)?;
    accepted(reply)
}

fn accepted(reply: Reply) -> Result<bytes::Bytes, AskError> {
    match reply.status {
        status::OK => Ok(reply.header),
        other => Err(AskError::Status(other, String::from_utf8_lossy(&reply.header).into_owned())),
    }
}

/// Makes [`Link`]s.
pub(super) struct Wire {
    pub(super) caller: Arc<dyn Caller>,
    /// This node.
    pub(super) node: u64,
    /// Where snapshots are written before they are sent.
    pub(super) scratch: PathBuf,
    pub(super) holds: Holds,
}

impl RaftNetworkFactory<TypeConfig> for Wire {
    type Network = Link;

    async fn new_client(&mut self, target: u64, member: &Member) -> Link {
        Link {
            caller: self.caller.clone(),
            scratch: self.scratch.clone(),
            holds: self.holds.clone(),
            from: self.node,
            to: target,
            to_replica: member.replica,
        }
    }
}

/// One use of one peer: replication, heartbeats, votes or a snapshot each have one.
pub(super) struct Link {
    caller: Arc<dyn Caller>,
    scratch: PathBuf,
    holds: Holds,
    from: u64,
    to: u64,
    to_replica: u64,
}

/// What entries may take beside the time of a small call: a slow link must not make them be sent for ever.
const APPEND_EXTRA: Duration = Duration::from_secs(1);
/// The slowest link that entries and snapshots are expected to pass.
const SLOWEST_BYTES_PER_S: u64 = 1 << 20;

/// How long `len_bytes` may take.
fn passage(len_bytes: u64) -> Duration {
    Duration::from_secs(len_bytes / SLOWEST_BYTES_PER_S)
}

impl Link {
    fn addressed<T>(&self, message: T) -> Addressed<T> {
        Addressed { from: self.from, to: self.to, to_replica: self.to_replica, message }
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        method: Method,
        question: &impl Serialize,
        deadline: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        let started = Instant::now();
        let asked = ask(&*self.caller, self.to, (method, question), deadline).await;
        asked.map_err(|error| self.rpc_error(method, error, deadline, started.elapsed()))
    }

    fn rpc_error(&self, method: Method, error: AskError, timeout: Duration, elapsed: Duration) -> RPCError<TypeConfig> {
        match error {
            AskError::Call(CallError::Unknown(..)) if elapsed >= timeout => {
                Timeout { action: rpc_type(method), id: self.from, target: self.to, timeout }.into()
            }
            AskError::Call(CallError::Unknown(_, why)) => NetworkError::from_string(why).into(),
            // Whoever refuses will do so for a while.
            error => Unreachable::from_string(error).into(),
        }
    }

    async fn send_snapshot(
        &self,
        leader: Vote,
        snapshot: Snapshot,
        hold: &Hold,
        patience: Duration,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let unsent = |error: std::io::Error| StreamingError::from(Unreachable::from_string(error));
        let outgoing = transfer::Outgoing::write(snapshot, &self.scratch, self.to).await.map_err(unsent)?;
        if !outgoing.is_of(&leader) {
            return Err(ReplicationClosed::new("the catalog is already of a later leader").into());
        }
        let (len_bytes, deadline) = (outgoing.len_bytes(), (patience + passage(outgoing.len_bytes())));
        hold.set_until(Instant::now() + deadline);
        let body = Body { len_bytes, stream: outgoing.stream().await.map_err(unsent)? };
        let header = encode(&self.addressed(wire_vote(&leader)));
        let call = Call { method: Method::Snapshot.number(), header, body };
        let started = Instant::now();
        let reply = self.caller.call(db(self.to), Class::Bulk, call, deadline).await.map_err(AskError::Call);
        let answer = reply.and_then(accepted);
        let decoded = answer.and_then(|header| decode::<WireVote>(&header).map_err(|_| AskError::Undecodable));
        let error = |error| self.rpc_error(Method::Snapshot, error, deadline, started.elapsed());
        Ok(SnapshotResponse::new(vote(decoded.map_err(error)?)))
    }
}

fn rpc_type(method: Method) -> RPCTypes {
    match method {
        Method::Vote | Method::PreVote => RPCTypes::Vote,
        Method::Snapshot => RPCTypes::InstallSnapshot,
        Method::Transfer => RPCTypes::TransferLeader,
        _ => RPCTypes::AppendEntries,
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = Snapshot;

    /// openraft bounds heartbeats itself, and leaves the time that entries may take to the network.
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        if rpc.entries.first().is_some_and(|entry| self.holds.is_cut(entry.log_id.index)) {
            return Err(Unreachable::from_string("it lags too far behind: it gets a snapshot").into());
        }
        let append = Append::from(&rpc);
        let extra = if rpc.entries.is_empty() { Duration::ZERO } else { APPEND_EXTRA + passage(append.len_bytes()) };
        let appended: Appended = self.ask(Method::Append, &self.addressed(append), option.soft_ttl() + extra).await?;
        Ok(appended.into())
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let ballot = self.addressed(Ballot::from(&rpc));
        let voted: Voted = self.ask(Method::Vote, &ballot, option.soft_ttl()).await?;
        Ok(voted.into())
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let ballot = self.addressed(Ballot::from(&rpc));
        let voted: Voted = self.ask(Method::PreVote, &ballot, option.soft_ttl()).await?;
        Ok(voted.into())
    }

    async fn full_snapshot(
        &mut self,
        leader: Vote,
        snapshot: RaftSnapshot<LeaderId, u64, Member, Snapshot>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let covered = snapshot.meta.last_log_id.map_or(0, |last| last.index);
        let hold = self.holds.after(covered, Instant::now() + option.soft_ttl());
        let sent = {
            let sending = pin!(self.send_snapshot(leader, snapshot.snapshot, &hold, option.soft_ttl()));
            match select(pin!(cancel), sending).await {
                Either::Left((closed, _)) => return Err(closed.into()),
                Either::Right((sent, _)) => sent?,
            }
        };
        hold.installed(Instant::now());
        Ok(sent)
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let question = self.addressed(Transfer::from(&rpc));
        let transferred: Transferred = self.ask(Method::Transfer, &question, option.soft_ttl()).await?;
        Ok(transferred.into())
    }
}
