//! Hands the lead to who reaches more of the members. A node that is cut off from the leader alone is of no use until the cut
//! heals: entries and read indexes come from the leader only, and nobody elects another while most hear this one.
//!
//! Invariants
//! - The lead goes only to a voter that reaches all members that the leader hears, and another one: it does not come back.
//! - What is said once may be chance: the same voter must say so twice, a silence apart.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures::future::{join_all, select};

use super::core::Core;
use super::message::{Addressed, Method, PeerStatus};
use super::network::ask;

/// How long a member may take to say how it stands.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a voter may take to ask all members.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);

/// Looks who reaches more, whenever this node leads, until the core stops.
pub(super) async fn keep_looking(core: Core) {
    select(pin!(core.look()), pin!(core.stops())).await;
}

impl Core {
    async fn look(&self) {
        let mut before = None;
        loop {
            tokio::time::sleep(self.silence).await;
            let heir = if self.leader() == Some(self.node) { self.who_reaches_more().await } else { None };
            if let Some(heir) = heir.filter(|heir| before == Some(*heir)) {
                tracing::info!("db {heir} reaches members that this node does not hear: it is to lead");
                if let Err(error) = self.raft.trigger().transfer_leader(heir).await {
                    tracing::warn!(%error, "the lead was not handed to db {heir}");
                }
            }
            before = heir;
        }
    }

    /// A voter that reaches all that this node hears, and more.
    async fn who_reaches_more(&self) -> Option<u64> {
        let heard = self.heard_from();
        let members: BTreeSet<u64> = self.metrics().membership_config.membership().nodes().map(|(id, _)| *id).collect();
        let unheard: BTreeSet<u64> = members.difference(&heard).copied().collect();
        if unheard.is_empty() {
            return None;
        }
        let voters: Vec<u64> =
            self.voters().into_iter().filter(|voter| *voter != self.node && heard.contains(voter)).collect();
        let said = join_all(voters.iter().map(|voter| self.reached_by(*voter, &members))).await;
        let reaching = voters.into_iter().zip(said).filter_map(|(voter, said)| Some((voter, said?)));
        let more = reaching.filter(|(_, reached)| reached.is_superset(&heard) && !reached.is_disjoint(&unheard));
        more.max_by_key(|(voter, reached)| (reached.len(), std::cmp::Reverse(*voter))).map(|(voter, _)| voter)
    }

    /// Which of `members` a voter reaches, itself included. None: it does not say.
    async fn reached_by(&self, voter: u64, members: &BTreeSet<u64>) -> Option<BTreeSet<u64>> {
        let question: Addressed<Vec<u64>> = self.addressed(voter, members.iter().copied().collect())?;
        let reached: Vec<u64> = ask(&*self.caller, voter, (Method::Reach, &question), REACH_TIMEOUT).await.ok()?;
        Some(reached.into_iter().collect())
    }

    /// Which of `nodes` answer this one.
    pub(super) async fn reach(&self, nodes: Vec<u64>) -> Vec<u64> {
        let answers = nodes.iter().map(|node| async move {
            let status = ask::<PeerStatus>(&*self.caller, *node, (Method::Status, &()), STATUS_TIMEOUT);
            *node == self.node || status.await.is_ok()
        });
        let answered = join_all(answers).await;
        nodes.into_iter().zip(answered).filter_map(|(node, answers)| answers.then_some(node)).collect()
    }
}
