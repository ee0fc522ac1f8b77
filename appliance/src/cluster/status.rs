//! How a cluster is: what its nodes say, and what that means.

use std::process::ExitCode;

use predastore::catalog::{Map, MapNode, MapState};
use predastore::ids::NodeId;
use predastore::node::control::Overview;
use predastore::node::steward::voter_count_of;
use predastore::object::Upkeep;
use predastore::shard::wire::NodeStatus;

use super::Operator;

/// What was asked of all nodes.
pub(super) struct Status {
    /// Each db node: what it says, or why it says nothing.
    pub(super) dbs: Vec<(NodeId, Result<Overview, String>)>,
    /// Each shard node of the map likewise.
    pub(super) nodes: Vec<(MapNode, Result<NodeStatus, String>)>,
    /// Whether the cluster gives votes by itself, to boxes that join, in odd numbers.
    pub(super) gives_votes: bool,
}

/// What that means for those who use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Health {
    /// All is as it should be, and was counted.
    Healthy,
    /// It serves; for these reasons less than it should is there.
    Degraded(Vec<String>),
    /// For these reasons it does not serve, or not everything.
    Unavailable(Vec<String>),
}

impl Health {
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Health::Healthy => 0,
            Health::Degraded(_) => 1,
            Health::Unavailable(_) => 2,
        })
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Degraded(_) => "degraded",
            Health::Unavailable(_) => "unavailable",
        }
    }

    pub(super) fn reasons(&self) -> &[String] {
        match self {
            Health::Healthy => &[],
            Health::Degraded(reasons) | Health::Unavailable(reasons) => reasons,
        }
    }
}

impl Operator {
    /// Asks every node.
    pub(super) async fn look(&self) -> Status {
        let dbs: Vec<_> = (self.console.overviews().await.into_iter())
            .map(|(node, answer)| (node, answer.map_err(|error| error.to_string())))
            .collect();
        let gives_votes = self.configured.papers.is_some();
        let mut status = Status { dbs, nodes: Vec::new(), gives_votes };
        let nodes = status.map().cloned().unwrap_or_else(|| self.configured.map()).nodes;
        let asked = nodes.iter().map(|node| self.console.shard_node(node.node, &node.dial));
        let answers = futures::future::join_all(asked).await;
        let answers = answers.into_iter().map(|answer| answer.map_err(|error| error.to_string()));
        status.nodes = nodes.into_iter().zip(answers).collect();
        status
    }
}

impl Status {
    /// What the one who leads says. One whose followers have just died does not know it yet.
    pub(super) fn leader(&self) -> Option<&Overview> {
        let leader = self.answers().filter(|overview| overview.is_leader()).max_by_key(|overview| overview.term)?;
        let answer_count = self.answers().filter(|overview| leader.voters.contains(&overview.node)).count();
        (2 * answer_count > leader.voters.len()).then_some(leader)
    }

    fn answers(&self) -> impl Iterator<Item = &Overview> {
        self.dbs.iter().filter_map(|(_, answer)| answer.as_ref().ok())
    }

    /// The newest map that is known.
    pub(super) fn map(&self) -> Option<&Map> {
        self.answers().filter_map(|overview| overview.map.as_ref()).max_by_key(|map| map.epoch)
    }

    /// The highest feature level that anybody has reached.
    pub(super) fn feature_level(&self) -> Option<u32> {
        self.answers().map(|overview| overview.feature_level).max()
    }

    /// As the leader has it.
    pub(super) fn upkeep(&self) -> Option<Upkeep> {
        self.leader()?.upkeep
    }

    /// What it all means.
    pub(super) fn health(&self) -> Health {
        let (fatal, bad) = (self.fatal(), self.bad());
        match (fatal.is_empty(), bad.is_empty()) {
            (true, true) => Health::Healthy,
            (true, false) => Health::Degraded(bad),
            (false, _) => Health::Unavailable(fatal.into_iter().chain(bad).collect()),
        }
    }

    /// What keeps it from serving, or from serving everything.
    fn fatal(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.leader().is_none() {
            reasons.push("no db node leads: nothing can be written".to_owned());
        }
        let Some(map) = self.map() else {
            reasons.push("the cluster has no map yet".to_owned());
            return reasons;
        };
        let down_count = self.nodes.iter().filter(|(_, answer)| answer.is_err()).count();
        if down_count > usize::from(map.parity_count) {
            reasons.push(format!(
                "{down_count} shard nodes are down, and rs({},{}) stands {}: some objects cannot be read",
                map.data_count, map.parity_count, map.parity_count
            ));
        }
        if let Some(lost_count) = self.upkeep().map(|upkeep| upkeep.lost_count).filter(|count| *count > 0) {
            reasons.push(format!("{lost_count} chunks cannot be read: too few of their shards are left"));
        }
        reasons
    }

    /// What is less than it should be.
    fn bad(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for (node, answer) in &self.dbs {
            match answer {
                Err(_) => reasons.push(format!("db {node} does not answer")),
                // A voter with an empty directory does not know that it is one.
                Ok(overview) if overview.is_read_only || self.votes(*node) && overview.state == "learner" => {
                    reasons.push(format!(
                        "db {node} has lost its log: remove-db, then add-db with an empty directory, brings it back"
                    ));
                }
                Ok(_) if !self.votes(*node) && self.gives_votes => {
                    if self.has_too_few_voters() {
                        reasons.push(format!("box {node} is to vote, and does not yet"));
                    }
                }
                Ok(overview) if !self.votes(*node) => {
                    reasons.push(format!("db {node} does not vote ({}): see add-db", overview.state));
                }
                Ok(_) => {}
            }
        }
        let without_shards = self.dbs.iter().filter(|(db, _)| self.gives_votes && !self.has_place(*db));
        reasons.extend(without_shards.map(|(db, _)| format!("box {db} takes no shards, or not yet")));
        for (node, answer) in &self.nodes {
            match answer {
                Err(_) if node.state == MapState::Draining => {
                    reasons.push(format!("node {} is to be drained and does not answer", node.node));
                }
                Err(_) => reasons.push(format!("node {} does not answer", node.node)),
                Ok(status) if status.free_bytes == 0 => reasons.push(format!("node {} is full", node.node)),
                Ok(_) => {}
            }
        }
        match self.upkeep() {
            None => reasons.push("the leader does not serve yet".to_owned()),
            Some(upkeep) => {
                if upkeep.below_target_count > 0 {
                    reasons.push(format!("{} chunks are below target", upkeep.below_target_count));
                }
                if !upkeep.is_counted {
                    reasons.push("what the nodes have is not counted yet".to_owned());
                }
            }
        }
        reasons
    }

    fn has_place(&self, id: NodeId) -> bool {
        self.nodes.iter().any(|(node, _)| node.node == id)
    }

    fn has_too_few_voters(&self) -> bool {
        let wanted = voter_count_of(self.dbs.len());
        self.leader().is_some_and(|leader| leader.voters.len() < wanted)
    }

    fn votes(&self, node: NodeId) -> bool {
        self.leader().is_none_or(|leader| leader.voters.contains(&node))
    }
}
