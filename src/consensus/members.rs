//! Who belongs to the cluster: adding and removing db nodes, one change at a time. A node that is being added catches up
//! between two changes, and holds up no other.
//!
//! Invariants
//! - A node votes only after it has caught up as a learner.
//! - Both operations may be repeated: they go on from whatever stands, a half-done joint membership included.
//! - A change is refused if the voters that would remain, and are heard from, are no majority of those that would remain.
//! - A member is a (node, replica). A node that lost its log is another one: it is not let back under its old id, unless
//!   as a learner: see [`super::learn`].
//! - Before this node makes another node a member, it stops taking itself for the only one that can acknowledge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, RaftMetrics};
use tokio::time::{Instant, timeout_at};

use super::core::Core;
use super::message::{Method, NewMember, PeerStatus, status};
use super::network::{AskError, ask};
use super::types::{Member, Membership, TypeConfig};
use crate::ids::NodeId;
use crate::transport::CallError;

/// Hears where a member is.
pub type OnMember = Arc<dyn Fn(NodeId, &str) + Send + Sync>;

/// Why the members are not as they were asked to be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MembersError {
    /// It is not to be done; nothing changed.
    #[error("{0}")]
    Refused(String),
    /// It was not finished; try again. What was done so far is of use to the next try.
    #[error("{0}")]
    Unavailable(String),
    /// It may have been done: look, or try again.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

/// A learner that is no further behind than this may vote.
const LAG_MAX: u64 = 1_000;
/// How long a new node may take to catch up, its snapshot included.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Between two tries while another change is under way, or while there is no leader.
const PAUSE: Duration = Duration::from_millis(100);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

type Changes = ChangeMembers<u64, Member>;

/// Says where nodes are. A sole voter may have no address.
pub(super) fn tell<'a>(on_member: &OnMember, addresses: impl IntoIterator<Item = (u64, &'a str)>) {
    for (node, address) in addresses {
        if !address.is_empty() {
            on_member(NodeId(node), address);
        }
    }
}

pub(super) fn addresses(membership: &Membership) -> impl Iterator<Item = (u64, &str)> {
    membership.nodes().map(|(node, member)| (*node, member.address.as_str()))
}

fn unavailable(why: impl ToString) -> MembersError {
    MembersError::Unavailable(why.to_string())
}

impl Core {
    /// Says where the members are, of each membership that this node comes to know. Runs until the core stops.
    pub(super) async fn tell_members(self) {
        let mut metrics = self.raft.server_metrics();
        let mut told = None;
        loop {
            let known = metrics.borrow_watched().membership_config.clone();
            if told.as_ref() != Some(&known) {
                tell(&self.on_member, addresses(known.membership()));
                told = Some(known);
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Adds a voter, wherever the leader is.
    pub(super) async fn add_db(&self, node: u64, address: &str) -> Result<(), MembersError> {
        let question = NewMember { node, address: address.to_owned() };
        match self.settled_leader().await? {
            leader if leader == self.node => self.add_db_here(node, address).await,
            leader => self.ask_members(leader, (Method::AddDb, question), CATCH_UP_TIMEOUT).await,
        }
    }

    /// Removes a member, wherever the leader is.
    pub(super) async fn remove_db(&self, node: u64) -> Result<(), MembersError> {
        match self.settled_leader().await? {
            leader if leader == self.node => self.remove_db_here(node).await,
            leader => self.ask_members(leader, (Method::RemoveDb, node), self.timeout * 2).await,
        }
    }

    async fn settled_leader(&self) -> Result<u64, MembersError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.leader() {
                Some(leader) => return Ok(leader),
                None if Instant::now() >= deadline => return Err(unavailable("there is no leader")),
                None => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn ask_members(
        &self,
        leader: u64,
        (method, message): (Method, impl serde::Serialize),
        deadline: Duration,
    ) -> Result<(), MembersError> {
        let question = self.addressed(leader, message).ok_or_else(|| unavailable("the leader is no member"))?;
        let asked = ask(&*self.caller, leader, (method, &question), deadline).await;
        asked.map_err(|error| match error {
            AskError::Status(status::REFUSED, why) => MembersError::Refused(why),
            AskError::Status(status::UNKNOWN, why) => MembersError::Unknown(why),
            AskError::Status(_, why) => MembersError::Unavailable(why),
            AskError::Call(error @ CallError::Never(..)) => unavailable(error),
            error => MembersError::Unknown(error.to_string()),
        })
    }

    /// Adds a voter to the cluster that this node leads.
    pub(super) async fn add_db_here(&self, node: u64, address: &str) -> Result<(), MembersError> {
        let Some(member) = self.begin_to_add(node, address).await? else { return Ok(()) };
        self.caught_up(node, &member).await?;
        let _turn = self.changing.lock().await;
        self.settle_joint().await?;
        if self.member(node).as_ref() != Some(&member) {
            return Err(unavailable(format!("db {node} was removed meanwhile")));
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node])), true).await
    }

    /// Makes the node a learner that is to vote; None: it votes already.
    async fn begin_to_add(&self, node: u64, address: &str) -> Result<Option<Member>, MembersError> {
        let _turn = self.changing.lock().await;
        self.settle_joint().await?;
        self.is_member(node, address, false)?;
        // It is to be asked how it stands.
        tell(&self.on_member, [(node, address)]);
        let newcomer = self.newcomer(node, address).await;
        if self.is_member(node, address, true)? {
            // A voter that is not reached is a voter; one that has lost its log is none.
            return newcomer.map(|_| None).or_else(|error| match error {
                MembersError::Refused(_) => Err(error),
                MembersError::Unavailable(_) | MembersError::Unknown(_) => Ok(None),
            });
        }
        let member = newcomer?;
        self.alone.store(false, Ordering::SeqCst);
        self.tell_who_this_is().await?;
        if !self.is_member(node, address, false)? {
            self.change(ChangeMembers::AddNodes(BTreeMap::from([(node, member.clone())])), true).await?;
        }
        Ok(Some(member))
    }

    /// Makes `node`, which asks for it, a member of the cluster that this node leads: a learner with whatever log it has, or
    /// the voter that it is, where it is now.
    pub(super) async fn learn_here(&self, node: u64, member: Member) -> Result<(), MembersError> {
        if self.has_place(node, &member)? {
            return Ok(());
        }
        let _turn = self.changing.lock().await;
        self.settle_joint().await?;
        if self.has_place(node, &member)? {
            return Ok(());
        }
        self.tell_who_this_is().await?;
        if self.has_place(node, &member)? {
            return Ok(());
        }
        let known = self.member(node);
        let members = BTreeMap::from([(node, member.clone())]);
        if known.as_ref().is_some_and(|known| known.replica == member.replica) {
            return self.change(ChangeMembers::SetNodes(members), true).await;
        }
        if node == self.node {
            return Err(MembersError::Refused("this node leads as another log than it has".into()));
        }
        if known.is_some() {
            self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node])), false).await?;
        }
        self.change(ChangeMembers::AddNodes(members), true).await
    }

    /// Whether `node` is a member just so, with a vote or without.
    ///
    /// # Errors
    /// `Refused`: it is a voter of another log. `Unavailable`: this node does not lead.
    fn has_place(&self, node: u64, member: &Member) -> Result<bool, MembersError> {
        let metrics = self.metrics();
        if !metrics.state.is_leader() {
            return Err(unavailable("this node does not lead"));
        }
        let membership = metrics.membership_config.membership();
        let known = membership.get_node(&node);
        let is_other_log = known.is_some_and(|known| known.replica != member.replica);
        // A sole voter may be known by no log, or by one that it had before: it is whatever it has.
        match node != self.node && is_other_log && membership.voter_ids().any(|voter| voter == node) {
            true => Err(MembersError::Refused(format!("db {node} is a voter, and has lost its log"))),
            false => Ok(known == Some(member)),
        }
    }

    /// What is known of `node`, if it is a member.
    fn member(&self, node: u64) -> Option<Member> {
        self.metrics().membership_config.membership().get_node(&node).cloned()
    }

    /// Removes a member from the cluster that this node leads.
    pub(super) async fn remove_db_here(&self, node: u64) -> Result<(), MembersError> {
        let _turn = self.changing.lock().await;
        self.settle_joint().await?;
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        if membership.get_node(&node).is_none() {
            return Ok(());
        }
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        if !voters.contains(&node) {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node])), false).await;
        }
        let remaining: BTreeSet<u64> = voters.into_iter().filter(|voter| *voter != node).collect();
        self.may_remain(&remaining).await?;
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([node])), false).await
    }

    /// A leader that is new waits for answers a little.
    async fn may_remain(&self, remaining: &BTreeSet<u64>) -> Result<(), MembersError> {
        let deadline = Instant::now() + self.silence;
        loop {
            match may_remain(remaining, &self.heard_from()) {
                Err(_) if !remaining.is_empty() && Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                settled => return settled,
            }
        }
    }

    /// The nodes that answered lately, and this one.
    pub(super) fn heard_from(&self) -> BTreeSet<u64> {
        let metrics = self.metrics();
        let heartbeats = metrics.heartbeat.iter().flatten();
        let lately = heartbeats.filter(|(_, at)| at.is_some_and(|at| at.elapsed() <= self.silence));
        lately.map(|(node, _)| *node).chain([self.node]).collect()
    }

    /// Whether the membership has `node`: as a voter, or at all.
    ///
    /// # Errors
    /// `Refused`: at another address.
    fn is_member(&self, node: u64, address: &str, as_voter: bool) -> Result<bool, MembersError> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let Some(member) = membership.get_node(&node) else { return Ok(false) };
        if member.address != address && node != self.node {
            return Err(MembersError::Refused(format!("db {node} is a member at {}", member.address)));
        }
        Ok(!as_voter || membership.voter_ids().any(|voter| voter == node))
    }

    /// The node to be added, as it says itself.
    async fn newcomer(&self, node: u64, address: &str) -> Result<Member, MembersError> {
        if node == self.node {
            return Ok(self.member.clone());
        }
        let asked = ask(&*self.caller, node, (Method::Status, &()), ASK_TIMEOUT).await;
        let status: PeerStatus = asked.map_err(|error| unavailable(format!("db {node}: {error}")))?;
        let metrics = self.metrics();
        let known: BTreeMap<u64, u64> =
            metrics.membership_config.membership().nodes().map(|(id, member)| (*id, member.replica)).collect();
        may_join(node, &status, &known)?;
        self.knows_level(node).await?;
        Ok(Member { address: address.to_owned(), replica: status.replica })
    }

    /// A cluster of one was founded without an address, perhaps without a replica, and knows the replica that its node
    /// had then.
    async fn tell_who_this_is(&self) -> Result<(), MembersError> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        // A learner that was left half-way does not count.
        let is_alone = membership.voter_ids().eq([self.node]);
        if !is_alone || membership.get_node(&self.node) == Some(&self.member) {
            return Ok(());
        }
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(self.node, self.member.clone())])), true).await
    }

    /// Ends a change that was left half-done.
    async fn settle_joint(&self) -> Result<(), MembersError> {
        match self.metrics().membership_config.membership().get_joint_config().len() > 1 {
            true => self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), true).await,
            false => Ok(()),
        }
    }

    async fn change(&self, changes: Changes, retain: bool) -> Result<(), MembersError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let changed = timeout_at(deadline, self.raft.change_membership(changes.clone(), retain)).await;
            let error = match changed.map_err(|_| MembersError::Unknown("no answer in time".into()))? {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let unsettled = matches!(
                &error,
                RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_)))
            );
            if !unsettled || Instant::now() + PAUSE >= deadline {
                return Err(change_error(error));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Returns when the learner `node`, known as `member`, is nearly where this node is.
    async fn caught_up(&self, node: u64, member: &Member) -> Result<(), MembersError> {
        let near = |metrics: &RaftMetrics<TypeConfig>| {
            let matched = metrics.replication.as_ref().and_then(|matched| matched.get(&node).copied().flatten());
            let next_index = metrics.last_log_index.map_or(0, |last| last + 1);
            matched.is_some_and(|matched| matched.index + LAG_MAX >= next_index)
        };
        let is_member =
            |metrics: &RaftMetrics<TypeConfig>| metrics.membership_config.membership().get_node(&node) == Some(member);
        let settled =
            |metrics: &RaftMetrics<TypeConfig>| !metrics.state.is_leader() || !is_member(metrics) || near(metrics);
        let waited = self.raft.wait(Some(CATCH_UP_TIMEOUT)).metrics(settled, "the new node has caught up").await;
        match waited.map_err(unavailable)? {
            metrics if !is_member(&metrics) => Err(unavailable(format!("db {node} was removed meanwhile"))),
            metrics if near(&metrics) => Ok(()),
            _ => Err(unavailable("the leader changed")),
        }
    }
}

fn change_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MembersError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => unavailable("the leader changed"),
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => unavailable(error),
        error => MembersError::Unknown(error.to_string()),
    }
}

/// Refuses to leave voters behind that could not go on.
fn may_remain(remaining: &BTreeSet<u64>, heard_from: &BTreeSet<u64>) -> Result<(), MembersError> {
    let live_count = remaining.intersection(heard_from).count();
    match live_count > remaining.len() / 2 {
        true => Ok(()),
        false if remaining.is_empty() => Err(MembersError::Refused("it is the last voter".into())),
        false => Err(MembersError::Refused(format!(
            "only {live_count} of the {} voters that would remain answer",
            remaining.len()
        ))),
    }
}

/// `known`: this cluster's members and their replicas.
fn may_join(node: u64, status: &PeerStatus, known: &BTreeMap<u64, u64>) -> Result<(), MembersError> {
    let refuse = |why: String| Err(MembersError::Refused(why));
    if status.node != node {
        return refuse(format!("db {node} says that it is db {}", status.node));
    }
    if status.replica == 0 {
        return refuse(format!(
            "db {node} takes no part, as it has lost its log: remove it, empty it, and add it again"
        ));
    }
    if known.get(&node).is_some_and(|replica| *replica != status.replica) {
        return refuse(format!("db {node} has lost its log: remove it, and add it again"));
    }
    let shares_member = || status.members.iter().any(|(id, _, replica)| known.get(id) == Some(replica));
    match status.initialised && !shares_member() {
        true => refuse(format!("db {node} belongs to another cluster")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_must_be_able_to_go_on() {
        let set = |nodes: &[u64]| nodes.iter().copied().collect::<BTreeSet<u64>>();
        assert!(may_remain(&set(&[]), &set(&[1])).is_err());
        assert!(may_remain(&set(&[1]), &set(&[1, 2])).is_ok());
        assert!(may_remain(&set(&[1, 2]), &set(&[1])).is_err());
        assert!(may_remain(&set(&[1, 2]), &set(&[1, 2])).is_ok());
        assert!(may_remain(&set(&[1, 2, 3]), &set(&[1, 3])).is_ok());
        assert!(may_remain(&set(&[1, 2, 3, 4]), &set(&[1, 3])).is_err());
    }

    #[test]
    fn who_may_join() {
        let known = BTreeMap::from([(1, 11), (2, 22)]);
        let fresh = |node, replica| PeerStatus { node, replica, ..PeerStatus::default() };
        assert!(may_join(3, &fresh(3, 33), &known).is_ok());
        assert!(may_join(3, &fresh(4, 33), &known).is_err(), "another node answers");
        assert!(may_join(2, &fresh(2, 22), &known).is_ok());
        assert!(may_join(2, &fresh(2, 99), &known).is_err(), "it lost its log");
        assert!(may_join(3, &fresh(3, 0), &known).is_err(), "it takes no part");
        let members = vec![(1, String::new(), 11), (3, String::new(), 33)];
        let former = PeerStatus { initialised: true, members, ..fresh(3, 33) };
        assert!(may_join(3, &former, &known).is_ok());
        let foreign = PeerStatus { members: vec![(1, String::new(), 12)], ..former };
        assert!(may_join(3, &foreign, &known).is_err());
    }
}
