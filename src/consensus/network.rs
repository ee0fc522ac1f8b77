//! How a node reaches its peers: any [`Network`]. A node that is alone has [`Alone`].

use std::future::Future;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{NetSnapshot, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{OptionalSend, Snapshot as RaftSnapshot};

use super::state_machine::Snapshot;
use super::types::{LeaderId, Member, TypeConfig, Vote};

/// Makes clients for peers, as openraft wants them; sends snapshots as [`Snapshot`].
pub trait Network: RaftNetworkFactory<TypeConfig, Network: NetSnapshot<TypeConfig, SnapshotData = Snapshot>> {}

impl<N> Network for N where N: RaftNetworkFactory<TypeConfig, Network: NetSnapshot<TypeConfig, SnapshotData = Snapshot>> {}

/// The network of a node that has no peers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

#[derive(Debug, thiserror::Error)]
#[error("this node knows no network")]
struct NoNetwork;

fn unreachable() -> Unreachable<TypeConfig> {
    Unreachable::new(&NoNetwork)
}

impl RaftNetworkFactory<TypeConfig> for Alone {
    type Network = Alone;

    async fn new_client(&mut self, _target: u64, _node: &Member) -> Alone {
        Alone
    }
}

impl RaftNetworkV2<TypeConfig> for Alone {
    type SnapshotData = Snapshot;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(unreachable().into())
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(unreachable().into())
    }

    /// openraft's default would grant.
    async fn pre_vote(
        &mut self,
        _rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: RaftSnapshot<LeaderId, u64, Member, Snapshot>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(unreachable().into())
    }
}
