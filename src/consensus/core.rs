//! What a member that takes part in Raft has: openraft's handle, what is behind it, and who its peers are.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver;

use super::admission::Admission;
use super::applier::Applier;
use super::hold::Holds;
use super::members::OnMember;
use super::message::Addressed;
use super::state_machine::StateMachine;
use super::types::{Member, TypeConfig, has_peers};
use crate::ids::LogIndex;
use crate::transport::Caller;

/// See the module; clones are the same.
#[derive(Clone)]
pub(super) struct Core {
    pub(super) raft: openraft::Raft<TypeConfig, StateMachine>,
    pub(super) applier: Applier,
    pub(super) admission: Admission,
    pub(super) caller: Arc<dyn Caller>,
    /// This node, and what its peers shall know of it.
    pub(super) node: u64,
    pub(super) member: Member,
    /// Whether the log has ever named other voters and not said since that this node is alone, as of the start.
    pub(super) had_peers: bool,
    /// How long a proposal or a barrier may take.
    pub(super) timeout: Duration,
    /// The longest silence of a node that is taken to live.
    pub(super) silence: Duration,
    /// Where snapshots are put.
    pub(super) scratch: PathBuf,
    /// What the log is kept for.
    pub(super) holds: Holds,
    /// Hears where members are.
    pub(super) on_member: OnMember,
    /// One change of the members at a time.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
    /// Whether no other node can have become a voter since this one started: see [`Core::applied_alone`].
    pub(super) alone: Arc<AtomicBool>,
}

/// How long a leader that shuts down waits for another to take over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);

impl Core {
    pub(super) fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Who leads, as far as this node knows.
    pub(super) fn leader(&self) -> Option<u64> {
        self.raft.server_metrics().borrow_watched().current_leader
    }

    /// Whether this node leads: one that did before it was started again is not followed yet.
    pub(super) fn is_leading(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.current_leader == Some(self.node) && metrics.state.is_leader()
    }

    /// Returns when this node knows of another leader than `leader`, or of none.
    pub(super) async fn leader_changes(&self, leader: u64) {
        let mut metrics = self.raft.server_metrics();
        while metrics.borrow_watched().current_leader == Some(leader) {
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns when this node knows that another one leads.
    pub(super) async fn another_leads(&self) {
        let mut metrics = self.raft.server_metrics();
        while metrics.borrow_watched().current_leader.is_none_or(|leader| leader == self.node) {
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// `message` to the log that `node` has as a member; None: it is none.
    pub(super) fn addressed<T>(&self, node: u64, message: T) -> Option<Addressed<T>> {
        let metrics = self.raft.server_metrics();
        let to_replica = metrics.borrow_watched().membership_config.get_node(&node)?.replica;
        Some(Addressed { from: self.node, to: node, to_replica, message })
    }

    /// Returns when the core has stopped.
    pub(super) async fn stops(&self) {
        let mut metrics = self.raft.server_metrics();
        while metrics.changed().await.is_ok() {}
    }

    pub(super) fn voters(&self) -> BTreeSet<u64> {
        self.raft.voter_ids().collect()
    }

    /// Whether the cluster that this node is a part of knows it by another log. A sole voter is whatever it has, and one
    /// that only `learns` is known by its new log once it has asked for that.
    /// A log that had peers may have lost that with its end, and only seems to be a sole voter's: it must be the known one.
    pub(super) fn is_stranger(&self, learns: bool) -> bool {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let Some(known) = membership.get_node(&self.node).map(|member| member.replica) else { return false };
        let is_another = known != self.member.replica;
        let is_voter = membership.voter_ids().any(|voter| voter == self.node);
        match has_peers(membership, self.node) {
            _ if learns && !is_voter => false,
            true => known != 0 && is_another,
            false => self.had_peers && is_another,
        }
    }

    /// A sole voter elects itself at once; others wait for a leader, or for their timeouts.
    pub(super) async fn begin(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.voters() == BTreeSet::from([self.node]) {
            self.alone.store(true, Ordering::SeqCst);
            self.raft.trigger().elect(false).await?;
        }
        Ok(())
    }

    /// Keeps time only where there are others to be timed: a sole voter that leads is idle. Runs until the core stops.
    pub(super) async fn tick(self) {
        let mut metrics = self.raft.server_metrics();
        loop {
            let is_alone = {
                let metrics = metrics.borrow_watched();
                let mut members = metrics.membership_config.membership().nodes().map(|(id, _)| *id);
                metrics.state.is_leader() && members.by_ref().eq([self.node])
            };
            self.raft.runtime_config().tick(!is_alone);
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// How far this node has applied, where that is certain to be all that was acknowledged, without a round.
    ///
    /// As the only voter and leader, nobody else can acknowledge, and it does so itself after applying. What earlier
    /// terms acknowledged is applied once an entry of this term is. Metrics lag; but another voter comes only by this
    /// node's own proposal, and [`super::members`] lowers `alone` for good before it makes one.
    pub(super) fn applied_alone(&self) -> Option<LogIndex> {
        if !self.alone.load(Ordering::SeqCst) {
            return None;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leads = metrics.state.is_leader() && metrics.membership_config.membership().voter_ids().eq([metrics.id]);
        let applied = self.applier.position()?;
        (leads && applied.term == metrics.current_term).then_some(LogIndex(applied.index))
    }

    /// Hands the lead to the voter that has most of the log and is heard from, and waits a little until somebody else
    /// leads.
    pub(super) async fn hand_over(&self) {
        let metrics = self.metrics();
        let Some(replication) = metrics.replication.filter(|_| metrics.state.is_leader()) else { return };
        let (voters, live) = (self.voters(), self.heard_from());
        let may_lead = |id: &u64| *id != self.node && voters.contains(id) && live.contains(id);
        let others = replication.into_iter().filter(|(id, _)| may_lead(id));
        let Some((heir, Some(_))) = others.max_by_key(|(_, matched)| *matched) else { return };
        if self.raft.trigger().transfer_leader(heir).await.is_ok() {
            let taken =
                |metrics: &RaftMetrics<TypeConfig>| metrics.current_leader.is_some_and(|leader| leader != self.node);
            let waited = self.raft.wait(Some(HAND_OVER_TIMEOUT)).metrics(taken, "another leader").await;
            if waited.is_err() {
                tracing::warn!("node {heir} did not take the lead over in time");
            }
        }
    }
}
