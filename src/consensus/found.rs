//! Founding a cluster of several voters from a list that all of them have.
//!
//! The node with the lowest id of the list founds, the others wait to be contacted. It founds only if its own log is
//! empty and every other node of the list has answered that it has never been part of a cluster, and has the same list.
//!
//! Why that is safe
//! - Two nodes found only if both are the lowest of their lists; but the lists were compared, so they are one list.
//! - A founder that lost its disk looks like a new one. If the cluster did anything, a majority of its members is
//!   initialised, and one of them answers so; if one cannot be reached, nothing is founded. It then waits, for ever:
//!   its peers refuse it, because they know its node by another log (the *replica* in the membership, a random number
//!   that is made with the log and goes with it). Once `remove_db` took the old one out it comes back as another member,
//!   under whatever id.
//! - The same holds for every other voter that lost its log: it neither votes nor acknowledges under its old id, as
//!   what reaches it is addressed to the log it had, and it campaigns nowhere, as it knows of no cluster.
//! - If the founder dies before any other node has the founding entry, that entry was never committed; a founder that
//!   comes back with its log goes on with it. One that comes back without founds anew, unless others have voted for it
//!   already: a node that voted counts as initialised, and nothing is founded until all of them are emptied by hand.
//!
//! The price: a cluster is founded only while all nodes of its list run. After that a majority is enough.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::core::Core;
use super::message::{Method, PeerStatus};
use super::network::{AskError, ask};
use super::open::Options;
use super::types::Member;
use crate::ids::NodeId;

/// What becomes of an empty directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Founding {
    /// A cluster of this node alone, at once. Refused where [`super::Options::peers`] names others: to found alone
    /// nevertheless, say so by a list of one.
    Alone,
    /// A cluster of these nodes at these addresses, itself among them: once all of them run, the lowest one founds it.
    Together(BTreeMap<NodeId, String>),
    /// A node that waits to be added to a cluster.
    Join,
    /// A node that follows a cluster, and votes only once others make it a voter: it asks these voters, at these addresses,
    /// for its place, as often as it needs one. See [`super::learn`].
    Learn(BTreeMap<NodeId, String>),
}

impl Founding {
    /// Everybody on the list.
    pub(super) fn nodes(&self) -> Vec<u64> {
        match self {
            Founding::Together(nodes) => nodes.keys().map(|node| node.0).collect(),
            Founding::Alone | Founding::Join | Founding::Learn(_) => Vec::new(),
        }
    }

    /// The nodes that are told of, and where they are.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (NodeId, &str)> {
        let told = match self {
            Founding::Together(nodes) | Founding::Learn(nodes) => Some(nodes),
            Founding::Alone | Founding::Join => None,
        };
        told.into_iter().flatten().map(|(node, address)| (*node, address.as_str()))
    }

    pub(super) fn is_learner(&self) -> bool {
        matches!(self, Founding::Learn(_))
    }
}

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(500);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Founds what is to be founded here. A list is worked on in the background, until there is a cluster.
pub(super) async fn found(core: &Core, options: &Options) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if core.raft.is_initialized().await? {
        return Ok(());
    }
    match &options.founding {
        _ if core.had_peers => return Err("the log is empty, but it has had peers".into()),
        Founding::Alone if !options.peers.is_empty() => {
            let peers: Vec<u64> = options.peers.iter().map(|peer| peer.0).collect();
            return Err(format!("nothing is here, and there are peers to ask first: db {peers:?}").into());
        }
        Founding::Alone => alone(core).await?,
        Founding::Together(nodes) if nodes.keys().eq([&NodeId(core.node)]) => alone(core).await?,
        Founding::Together(nodes) if nodes.keys().next() == Some(&NodeId(core.node)) => {
            tokio::spawn(together(core.clone(), nodes.clone()));
        }
        Founding::Learn(_) | Founding::Together(_) | Founding::Join => {}
    }
    Ok(())
}

async fn alone(core: &Core) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    core.alone.store(true, Ordering::SeqCst);
    Ok(core.raft.initialize(BTreeMap::from([(core.node, core.member.clone())])).await?)
}

async fn together(core: Core, nodes: BTreeMap<NodeId, String>) {
    let mut last_told = String::new();
    // An error: the node has stopped.
    while let Ok(false) = core.raft.is_initialized().await {
        match ask_all(&core, &nodes).await {
            Ok(members) => match core.raft.initialize(members).await {
                Ok(()) => tracing::info!("founded a cluster of {} voters", nodes.len()),
                Err(error) => tracing::error!(%error, "no cluster was founded"),
            },
            Err(why) if why != last_told => {
                tracing::warn!("no cluster is founded yet: {why}");
                last_told = why;
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The members to found with, or why there is nothing to be founded now.
async fn ask_all(core: &Core, nodes: &BTreeMap<NodeId, String>) -> Result<BTreeMap<u64, Member>, String> {
    let mut members = BTreeMap::new();
    for (node, address) in nodes {
        let replica = match node.0 == core.node {
            true => core.member.replica,
            false => {
                let asked: Result<PeerStatus, AskError> =
                    ask(&*core.caller, node.0, (Method::Status, &()), ASK_TIMEOUT).await;
                let status = asked.map_err(|error| format!("db {node}: {error}"))?;
                may_found_with(&status, nodes)?
            }
        };
        members.insert(node.0, Member { address: address.clone(), replica });
    }
    Ok(members)
}

/// The replica of a node that has said how it stands.
fn may_found_with(status: &PeerStatus, nodes: &BTreeMap<NodeId, String>) -> Result<u64, String> {
    let node = status.node;
    if status.initialised {
        return Err(format!(
            "db {node} is part of a cluster already; if this node was too and lost its disk, it needs a new id"
        ));
    }
    match nodes.keys().map(|node| node.0).eq(status.founders.iter().copied()) {
        true => Ok(status.replica),
        false => Err(format!("db {node} has another list of voters: {:?}", status.founders)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_with_untouched_nodes_of_the_same_list() {
        let nodes: BTreeMap<_, _> = [1, 2, 3].map(|node| (NodeId(node), String::new())).into();
        let fresh = PeerStatus { node: 2, replica: 7, founders: vec![1, 2, 3], ..PeerStatus::default() };
        assert_eq!(may_found_with(&fresh, &nodes), Ok(7));
        let used = PeerStatus { initialised: true, ..fresh.clone() };
        assert!(may_found_with(&used, &nodes).unwrap_err().contains("part of a cluster"));
        let other = PeerStatus { founders: vec![2, 3], ..fresh };
        assert!(may_found_with(&other, &nodes).unwrap_err().contains("another list"));
    }
}
