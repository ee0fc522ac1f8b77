//! Linearizable reads: an index that covers all that was acknowledged before, confirmed by a quorum; then the local
//! catalog reaches it.
//!
//! Invariants
//! - The index is the leader's, taken before a quorum confirms that it still leads: no clock decides.
//! - A leader confirms for others only as itself, and with the log that they know it by: a question is never forwarded
//!   twice.

use std::pin::pin;

use futures::future::{Either, select};
use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::time::{Instant, timeout_at};

use super::core::Core;
use super::message::Method;
use super::network::ask;
use super::propose::PATIENCE;
use crate::catalog::LedgerError;
use crate::ids::LogIndex;

/// Between two tries.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// Why there is no index yet.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Unconfirmed {
    /// Another may lead; or a quorum was not reached this time.
    #[error("{0}")]
    Later(String),
    /// This node has stopped.
    #[error("{0}")]
    Stopped(String),
}

impl Core {
    /// The last entry that may have been acknowledged anywhere, as whoever leads has confirmed.
    pub(super) async fn confirmed(&self) -> Result<u64, Unconfirmed> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let error = match self.confirm(deadline).await {
                Err(Unconfirmed::Later(why)) => why,
                settled => return settled,
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(Unconfirmed::Later(format!("no confirmation in time: {error}")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn confirm(&self, deadline: Instant) -> Result<u64, Unconfirmed> {
        match self.leader() {
            Some(leader) if leader != self.node => self.confirm_there(leader, deadline).await,
            _ => match timeout_at(deadline, self.confirm_here()).await {
                Ok(confirmed) => confirmed,
                Err(_) => Err(Unconfirmed::Later("no quorum".into())),
            },
        }
    }

    /// Confirmed by a quorum, with this node as the leader.
    pub(super) async fn confirm_here(&self) -> Result<u64, Unconfirmed> {
        match self.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read_log_id, _)) => Ok(read_log_id.index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(Unconfirmed::Later("this node does not lead".into()))
            }
            Err(RaftError::APIError(error)) => Err(Unconfirmed::Later(error.to_string())),
            Err(RaftError::Fatal(error)) => Err(Unconfirmed::Stopped(error.to_string())),
        }
    }

    async fn confirm_there(&self, leader: u64, deadline: Instant) -> Result<u64, Unconfirmed> {
        let patience = deadline.saturating_duration_since(Instant::now()).min(PATIENCE);
        let question = self.addressed(leader, ()).ok_or(Unconfirmed::Later(format!("node {leader} is no member")))?;
        let asking = pin!(ask(&*self.caller, leader, (Method::ReadIndex, &question), patience));
        match select(asking, pin!(self.leader_changes(leader))).await {
            Either::Left((Ok(index), _)) => Ok(index),
            Either::Left((Err(error), _)) => Err(Unconfirmed::Later(error.to_string())),
            Either::Right(_) => Err(Unconfirmed::Later(format!("node {leader} no longer leads"))),
        }
    }

    /// Returns when this node's catalog has applied the entry at `index`; how far it is then.
    pub(super) async fn applied_to(&self, index: u64, deadline: Instant) -> Result<LogIndex, LedgerError> {
        let unavailable = |why: String| LedgerError::Unavailable(why);
        let reached = timeout_at(deadline, self.applier.reaches(index)).await;
        let reached = reached.map_err(|_| unavailable(format!("entry {index} was not applied in time")))?;
        reached.map(LogIndex).map_err(|error| unavailable(error.to_string()))
    }
}
