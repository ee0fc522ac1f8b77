//! Learners: nodes that keep the log and the catalog like any other, and do not vote. A gateway without a db node reads
//! from one; a box that joins a cluster is one at first.
//!
//! A learner sees to its place among the members itself. It asks the leader for it when it starts, and looks after it
//! now and then: who was removed while it ran does not hear of that. It finds the leader through the voters that it was
//! told of, and through the members that it knows. One that was made a voter goes on doing so, and so does one that leads:
//! where it is is part of its place, and an address may change.
//!
//! Invariants
//! - A learner never counts: it is in no quorum, never campaigns, and nothing is promised on its word. So whatever became
//!   of its log, it may come back under its id with another one.
//! - It comes back as a new member: it is removed and added, and what the leader knew of the progress of its old log goes
//!   with that.
//! - A voter is never replaced so, and a voter that lost its log does not become a learner under its old id.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures::future::select;

use super::core::Core;
use super::level::levels_of;
use super::members::tell;
use super::message::{Addressed, Learner, Method, PeerStatus, status};
use super::network::{AskError, ask};
use super::types::Member;
use crate::catalog;

/// Between two tries to get a place, and between two looks whether it is still there.
const PAUSE: Duration = Duration::from_millis(500);
const LOOK_PAUSE: Duration = Duration::from_secs(10);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Sees to this node's place until it stops. `told`: voters to begin with.
pub(super) async fn keep_place(core: Core, told: BTreeSet<u64>) {
    select(pin!(core.keep_asking(&told)), pin!(core.stops())).await;
}

impl Core {
    async fn keep_asking(&self, told: &BTreeSet<u64>) {
        let mut last_told = String::new();
        loop {
            match self.ask_for_place(told).await {
                Ok(()) => last_told.clear(),
                Err(why) if why != last_told => {
                    tracing::warn!("this learner is not taken in yet: {why}");
                    last_told = why;
                }
                Err(_) => {}
            }
            tokio::time::sleep(if last_told.is_empty() { LOOK_PAUSE } else { PAUSE }).await;
        }
    }

    /// Has whoever leads make sure that this node is a learner.
    async fn ask_for_place(&self, told: &BTreeSet<u64>) -> Result<(), String> {
        if self.is_leading() {
            return self.learn_here(self.node, self.member.clone()).await.map_err(|error| error.to_string());
        }
        let known = self.voters();
        if known == BTreeSet::from([self.node]) {
            // It is about to lead.
            return Ok(());
        }
        let others = told.union(&known).copied().filter(|voter| *voter != self.node && Some(*voter) != self.leader());
        let leader = self.leader().filter(|leader| *leader != self.node);
        let mut why = "it knows of no voter".to_owned();
        for voter in leader.into_iter().chain(others) {
            match self.ask_for_place_through(voter).await {
                Ok(()) => return Ok(()),
                Err(error) => why = format!("db {voter}: {error}"),
            }
        }
        Err(why)
    }

    async fn ask_for_place_through(&self, voter: u64) -> Result<(), AskError> {
        let status: PeerStatus = ask(&*self.caller, voter, (Method::Status, &()), ASK_TIMEOUT).await?;
        let addresses = status.members.iter().map(|(node, address, _)| (*node, address.as_str()));
        tell(&self.on_member, addresses);
        let (leader, replica) = leader_of(&status).ok_or(AskError::NoLeader)?;
        self.may_learn_from(leader).await?;
        let Member { address, replica: own_replica } = self.member.clone();
        let message = Learner { address, replica: own_replica };
        let question = Addressed { from: self.node, to: leader, to_replica: replica, message };
        ask(&*self.caller, leader, (Method::Learn, &question), self.timeout * 2).await
    }

    /// Asks for no place where this program would have to stop. A leader of before there were levels says nothing of them.
    async fn may_learn_from(&self, leader: u64) -> Result<(), AskError> {
        let own = self.applier.levels();
        match levels_of(&*self.caller, leader).await {
            Ok(of_leader) if of_leader.reached > own.known => {
                let error = catalog::Error::Level { found: of_leader.reached, known: own.known };
                Err(AskError::Status(status::REFUSED, error.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// Who leads as `status` says, and its log. A sole voter may have told its log to nobody yet, but tells it itself.
fn leader_of(status: &PeerStatus) -> Option<(u64, u64)> {
    let leader = status.leader?;
    if leader == status.node {
        return Some((leader, status.replica));
    }
    let replicas: BTreeMap<u64, u64> = status.members.iter().map(|(node, _, replica)| (*node, *replica)).collect();
    Some((leader, *replicas.get(&leader)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_asked_as_the_log_it_has() {
        let members = vec![(1, String::new(), 0), (2, String::new(), 22)];
        let status = PeerStatus { node: 1, replica: 11, members, ..PeerStatus::default() };
        assert_eq!(leader_of(&status), None);
        assert_eq!(leader_of(&PeerStatus { leader: Some(1), ..status.clone() }), Some((1, 11)));
        assert_eq!(leader_of(&PeerStatus { leader: Some(2), ..status.clone() }), Some((2, 22)));
        assert_eq!(leader_of(&PeerStatus { leader: Some(3), ..status }), None);
    }
}
