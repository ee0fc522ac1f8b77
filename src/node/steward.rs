//! Gives boxes that joined their place, wherever the leader is: shards, a vote, and the address they have now.
//!
//! | boxes | layout | voters |
//! |---|---|---|
//! | 1 | rs(1,0) | 1 |
//! | 2 | rs(1,1) | 1: of two voters both would be needed |
//! | 3 | rs(2,1) | 3 |
//! | 4 | as it is | 3 |
//! | 5 and more | as it is | 5 |
//!
//! Invariants
//! - A box gets its place in the map once. What an operator has changed since stays changed.
//! - The layout changes only as the second and the third box come, from the one that the table says of fewer.
//! - Only who has been heard of lately gets a vote, and nobody loses one here.
//! - A box that was removed is served by nobody, from when a process has heard of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{Ledger, Map, MapNode, MapState};
use crate::cluster::map::{self, Change, changed, scheme};
use crate::consensus::{Raft, Status};
use crate::erasure::Scheme;
use crate::ids::NodeId;
use crate::object::Store;
use crate::object::join::{self, JoinedNode, Newcomer};
use crate::placement::{self, Cost};
use crate::transport::Transport;

use super::members::{POINT_BYTES, is_replica};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps boxes that were removed, as far as this process has heard, from being served, for ever. `raft`: the db node of this
/// process.
pub(super) async fn expel(raft: Raft, transport: Arc<Transport>) {
    loop {
        expel_known(&raft, &transport).await;
        tokio::time::sleep(PAUSE).await;
    }
}

/// The same once: of those that the catalog here knows of, which needs no leader.
pub(super) async fn expel_known(raft: &Raft, transport: &Transport) {
    if let Ok(Ok(removed)) = raft.readers().read(|view| Ok(join::removed(view))).await {
        transport.expel(removed);
    }
}

/// Gives boxes their place, for ever. A box that is to vote is waited for until it has caught up.
pub(super) async fn run(store: Store, raft: Raft) {
    let mut last_told = String::new();
    loop {
        tokio::time::sleep(PAUSE).await;
        if !raft.leads() {
            continue;
        }
        match look(&store, &raft).await {
            Ok(()) => last_told.clear(),
            Err(why) if why != last_told => {
                tracing::warn!("a box has not got its place yet: {why}");
                last_told = why;
            }
            Err(_) => {}
        }
    }
}

async fn look(store: &Store, raft: &Raft) -> Result<(), String> {
    let said = |error: crate::object::Error| error.to_string();
    let map = raft.readers().read(|view| view.map()).await.map_err(|error| error.to_string())?;
    let Some(map) = map else { return Ok(()) };
    let status = raft.status();
    if let Some(next) = moved(&map, &status) {
        return store.set_map(map.epoch, next).await.map_err(said);
    }
    let nodes = store.joined_nodes().await.map_err(said)?;
    if let Some(first) = map.nodes.iter().find(|node| node.node == status.node)
        && nodes.iter().all(|known| known.id != status.node)
    {
        // The one that the cluster began with.
        let newcomer = Newcomer { address: first.dial.clone(), host: first.host.clone(), capacity_bytes: 0 };
        return store.write_down(status.node, &newcomer).await.map(drop).map_err(said);
    }
    let is_to_be_placed =
        |node: &&JoinedNode| !node.is_placed && !node.is_removed && status.members.contains_key(&node.id);
    if let Some(node) = nodes.iter().find(is_to_be_placed) {
        if map.nodes.iter().all(|known| known.node != node.id) {
            let next = with(&map, node, &status).map_err(|error| error.to_string())?;
            tracing::info!(node = %node.id, host = node.newcomer.host, scheme = %told(&next), "a box takes shards");
            store.set_map(map.epoch, next).await.map_err(said)?;
        }
        return store.note_placed(node.id).await.map_err(said);
    }
    if let Some(back) = nodes.iter().find(|node| node.is_removed && status.members.contains_key(&node.id)) {
        // It asked for its place while it was being removed.
        return raft.remove_db(back.id).await.map_err(|error| format!("db {}: {error}", back.id));
    }
    let Some(node) = next_voter(&status, &raft.heard_from()) else { return Ok(()) };
    let address = status.members.get(&node).cloned().unwrap_or_default();
    raft.add_db(node, &address).await.map_err(|error| format!("db {node}: {error}"))?;
    tracing::info!(%node, address, "a box votes");
    Ok(())
}

/// What becomes of the cluster when a box joins, before it does.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// Boxes that take shards, the new one among them.
    pub box_count: usize,
    /// How chunks are laid out now, and then.
    pub layouts: (Scheme, Scheme),
    /// What moves; none: everything, for chunks are laid out otherwise.
    pub cost: Option<Cost>,
    /// How many vote then.
    pub voter_count: usize,
}

/// What becomes of a cluster with `map` and so many db nodes when `newcomer` joins as `id`.
///
/// # Errors
/// There is no such map.
pub fn plan(map: &Map, db_count: usize, id: NodeId, newcomer: &Newcomer) -> Result<Plan, map::Error> {
    let next = widened(map, place_of(id, newcomer))?;
    Ok(Plan {
        box_count: next.nodes.iter().filter(|node| node.state == MapState::Active).count(),
        layouts: (scheme(map)?, scheme(&next)?),
        cost: map::cost(map, &next)?,
        voter_count: voter_count_of(db_count + 1),
    })
}

fn told(map: &Map) -> String {
    scheme(map).map_or_else(|error| error.to_string(), |scheme| scheme.to_string())
}

/// The map with the addresses that boxes have now; none: it has them.
fn moved(map: &Map, status: &Status) -> Option<Map> {
    let mut next = Map { epoch: map.epoch + 1, ..map.clone() };
    for node in &mut next.nodes {
        if let Some(address) = status.members.get(&node.node).filter(|address| !address.is_empty()) {
            node.dial.clone_from(address);
        }
    }
    (next.nodes != map.nodes).then_some(next)
}

/// The map with one more box, and laid out as so many boxes are.
///
/// # Errors
/// There is no such map.
fn with(map: &Map, node: &JoinedNode, status: &Status) -> Result<Map, map::Error> {
    let mut place = place_of(node.id, &node.newcomer);
    if let Some(address) = status.members.get(&node.id).filter(|address| !address.is_empty()) {
        place.dial.clone_from(address);
    }
    widened(map, place)
}

/// What a box that joins is in the map.
fn place_of(id: NodeId, newcomer: &Newcomer) -> MapNode {
    MapNode {
        node: id,
        weight: placement::weight(newcomer.capacity_bytes, POINT_BYTES),
        zone: String::new(),
        // Boxes that were made of one image may all have one name, and fail each by itself all the same.
        host: format!("{id}:{}", newcomer.host),
        state: MapState::Active,
        dial: newcomer.address.clone(),
    }
}

/// `map` with one more box.
///
/// # Errors
/// There is no such map.
fn widened(map: &Map, place: MapNode) -> Result<Map, map::Error> {
    let active_count = map.nodes.iter().filter(|node| node.state == MapState::Active).count();
    let mut next = changed(map, &Change::Add(place))?;
    if let (Some(now), Some(wanted)) = (layout_of(active_count), layout_of(active_count + 1))
        && scheme(map)? == now
        && wanted != now
    {
        next = changed(&next, &Change::Layout(wanted))?;
        next.epoch = map.epoch + 1;
    }
    Ok(next)
}

/// How chunks are laid out over so many boxes by themselves; none: as an operator says.
fn layout_of(box_count: usize) -> Option<Scheme> {
    let (data_count, parity_count) = match box_count {
        1 => (1, 0),
        2 => (1, 1),
        3 => (2, 1),
        _ => return None,
    };
    Scheme::new(data_count, parity_count).ok()
}

/// How many of so many boxes are to vote.
pub fn voter_count_of(box_count: usize) -> usize {
    match box_count {
        0..3 => 1,
        3..5 => 3,
        _ => 5,
    }
}

/// Who is to get a vote next.
fn next_voter(status: &Status, heard_from: &BTreeSet<NodeId>) -> Option<NodeId> {
    let boxes = || status.members.keys().copied().filter(|id| !is_replica(*id));
    if status.voters.len() >= voter_count_of(boxes().count()) {
        return None;
    }
    boxes().find(|id| !status.voters.contains(id) && heard_from.contains(id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;

    fn newcomer(id: u64) -> Newcomer {
        Newcomer { address: format!("box-{id}:6660"), host: format!("box-{id}"), capacity_bytes: 1 << 40 }
    }

    fn joined(id: u64) -> JoinedNode {
        let joined = crate::env::Timestamp(0);
        JoinedNode { id: NodeId(id), newcomer: newcomer(id), joined, is_placed: false, is_removed: false }
    }

    fn first() -> Map {
        Map { epoch: 1, data_count: 1, parity_count: 0, nodes: vec![place_of(NodeId(1), &newcomer(1))] }
    }

    fn status(voters: &[u64], members: &[(u64, &str)]) -> Status {
        Status {
            node: NodeId(1),
            read_only: false,
            state: crate::consensus::State::Leader,
            term: 1,
            leader: Some(NodeId(1)),
            last_index: None,
            committed_index: None,
            applied_index: None,
            first_index: 0,
            voters: voters.iter().map(|id| NodeId(*id)).collect(),
            members: members
                .iter()
                .map(|(id, address)| (NodeId(*id), (*address).to_owned()))
                .collect::<BTreeMap<_, _>>(),
            feature_level: 4,
            queued_bytes: 0,
            log: crate::log::Stats::default(),
            apply: crate::consensus::ApplyStats::default(),
        }
    }

    #[test]
    fn the_layout_widens_with_the_second_and_the_third_box_and_no_further() {
        let mut map = first();
        for (id, layout) in [(2, (1, 1)), (3, (2, 1)), (4, (2, 1)), (5, (2, 1))] {
            let epoch = map.epoch;
            map = with(&map, &joined(id), &status(&[1], &[(id, "elsewhere:1")])).unwrap();
            assert_eq!((map.data_count, map.parity_count), layout, "{id} boxes");
            assert_eq!((map.epoch, map.nodes.len()), (epoch + 1, id as usize), "one change of the map");
            assert_eq!(map.nodes.last().unwrap().dial, "elsewhere:1", "where it is now");
        }
    }

    #[test]
    fn an_operators_layout_stays() {
        let mut map = with(&first(), &joined(2), &status(&[1], &[])).unwrap();
        (map.data_count, map.parity_count) = (2, 0);
        map = with(&map, &joined(3), &status(&[1], &[])).unwrap();
        assert_eq!((map.data_count, map.parity_count), (2, 0));
    }

    #[test]
    fn addresses_follow_the_members() {
        let map = with(&first(), &joined(2), &status(&[1], &[])).unwrap();
        assert_eq!(moved(&map, &status(&[1], &[(1, ""), (2, "box-2:6660")])), None);
        let next = moved(&map, &status(&[1], &[(1, ""), (2, "new:1"), (7, "gateway:1")])).unwrap();
        let dials: Vec<_> = next.nodes.iter().map(|node| node.dial.as_str()).collect();
        assert_eq!((next.epoch, dials), (map.epoch + 1, vec!["box-1:6660", "new:1"]));
    }

    #[test]
    fn votes_come_in_odd_numbers_and_to_the_living() {
        let members = |count: u64| (1..=count).map(|id| (id, "x:1")).collect::<Vec<_>>();
        let everybody: BTreeSet<NodeId> = (1..10).map(NodeId).collect();
        let next = |voters: &[u64], count| next_voter(&status(voters, &members(count)), &everybody).map(|id| id.0);
        assert_eq!(next(&[1], 2), None);
        assert_eq!(next(&[1], 3), Some(2));
        assert_eq!(next(&[1, 2], 3), Some(3));
        assert_eq!(next(&[1, 2, 3], 4), None);
        assert_eq!(next(&[1, 2, 3], 5), Some(4));
        assert_eq!(next(&[1, 2, 3, 4, 5], 9), None);
        let heard = BTreeSet::from([NodeId(1), NodeId(3)]);
        assert_eq!(next_voter(&status(&[1], &members(3)), &heard), Some(NodeId(3)));
        let gateways = [(1, "x:1"), (2, "x:1"), (1_000_001, "x:1")];
        assert_eq!(next_voter(&status(&[1], &gateways), &everybody), None);
    }
}
