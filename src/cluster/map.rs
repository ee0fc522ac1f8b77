//! The cluster's map: what placement makes of it, how it may be changed, and what a change costs before it is made.
//!
//! Invariants
//! - A change gives a map of the next epoch, which takes effect only if the map is still the one that it began with.
//! - No change leaves fewer active nodes than a chunk has shards.

use crate::catalog::{Map, MapNode, MapState};
use crate::erasure::{self, Scheme};
use crate::ids::NodeId;
use crate::placement::{self, Cost, Member, Ring, State};

/// Chunks that a cost is estimated with: tells tenths of a percent.
const SAMPLE_COUNT: u32 = 10_000;

/// A map that is none, or a change that is not to be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// There is no such layout.
    #[error(transparent)]
    Scheme(#[from] erasure::Error),
    /// There is no such ring.
    #[error(transparent)]
    Ring(#[from] placement::Error),
    /// Nobody knows that node.
    #[error("node {0} is not in the cluster's map")]
    NoSuchNode(NodeId),
    /// It is there already.
    #[error("node {0} is in the cluster's map already, and takes shards")]
    IsThere(NodeId),
    /// It is leaving already.
    #[error("node {0} is being drained already")]
    IsDraining(NodeId),
    /// It still takes shards.
    #[error("node {0} is not drained: drain it first")]
    NotDrained(NodeId),
    /// A node takes its own place.
    #[error("a node is replaced by another one")]
    Itself,
    /// Too few nodes would be left.
    #[error("{scheme} needs {} nodes, and {left_count} would take shards: add one first, or change [rs]", scheme.shard_count())]
    TooFew {
        /// The layout.
        scheme: Scheme,
        /// Nodes that would take shards.
        left_count: usize,
    },
    /// The layout is this one.
    #[error("chunks are laid out as {0} already")]
    SameLayout(Scheme),
}

/// What may be asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A node is to take shards: a new one, or one that was being drained.
    Add(MapNode),
    /// A node is to give away what it has.
    Drain(NodeId),
    /// A node is to give away what it has, and another one comes.
    Replace(NodeId, MapNode),
    /// A node that was drained is to be forgotten.
    Remove(NodeId),
    /// Chunks are to be laid out otherwise.
    Layout(Scheme),
}

/// The layout that a map wants.
///
/// # Errors
/// `Scheme`.
pub fn scheme(map: &Map) -> Result<Scheme, Error> {
    Ok(Scheme::new(map.data_count, map.parity_count)?)
}

/// The ring of a map.
///
/// # Errors
/// `Ring`.
pub fn ring(map: &Map) -> Result<Ring, Error> {
    let member = |node: &MapNode| Member {
        node: node.node,
        weight: node.weight,
        zone: node.zone.clone(),
        host: node.host.clone(),
        state: match node.state {
            MapState::Active => State::Active,
            MapState::Draining => State::Draining,
        },
    };
    Ok(Ring::new(map.epoch, map.nodes.iter().map(member).collect())?)
}

/// The map after `change`.
///
/// # Errors
/// It is not to be made, or there is no such map.
pub fn changed(map: &Map, change: &Change) -> Result<Map, Error> {
    let mut next = Map { epoch: map.epoch + 1, ..map.clone() };
    match change {
        Change::Add(node) => add(&mut next, node)?,
        Change::Drain(node) => drain(&mut next, *node)?,
        Change::Replace(old, new) => {
            if *old == new.node {
                return Err(Error::Itself);
            }
            add(&mut next, new)?;
            drain(&mut next, *old)?;
        }
        Change::Remove(node) => {
            if find(&mut next, *node)?.state == MapState::Active {
                return Err(Error::NotDrained(*node));
            }
            next.nodes.retain(|known| known.node != *node);
        }
        Change::Layout(wanted) => {
            if scheme(map)? == *wanted {
                return Err(Error::SameLayout(*wanted));
            }
            // At most 32 shards.
            (next.data_count, next.parity_count) = (wanted.data_count() as u8, wanted.parity_count() as u8);
        }
    }
    check_width(&next)?;
    ring(&next)?;
    Ok(next)
}

fn find(map: &mut Map, node: NodeId) -> Result<&mut MapNode, Error> {
    map.nodes.iter_mut().find(|known| known.node == node).ok_or(Error::NoSuchNode(node))
}

fn add(map: &mut Map, node: &MapNode) -> Result<(), Error> {
    let active = MapNode { state: MapState::Active, ..node.clone() };
    match map.nodes.binary_search_by_key(&node.node, |known| known.node) {
        Ok(at) if map.nodes[at].state == MapState::Active => Err(Error::IsThere(node.node)),
        Ok(at) => {
            map.nodes[at] = active;
            Ok(())
        }
        Err(at) => {
            map.nodes.insert(at, active);
            Ok(())
        }
    }
}

fn drain(map: &mut Map, node: NodeId) -> Result<(), Error> {
    let known = find(map, node)?;
    match std::mem::replace(&mut known.state, MapState::Draining) {
        MapState::Active => Ok(()),
        MapState::Draining => Err(Error::IsDraining(node)),
    }
}

fn check_width(map: &Map) -> Result<(), Error> {
    let scheme = scheme(map)?;
    let left_count = map.nodes.iter().filter(|node| node.state == MapState::Active && node.weight > 0).count();
    if left_count < scheme.shard_count() { Err(Error::TooFew { scheme, left_count }) } else { Ok(()) }
}

/// What moves from one map to the other; none: everything, for chunks are laid out otherwise.
///
/// # Errors
/// One of them is none.
pub fn cost(old: &Map, new: &Map) -> Result<Option<Cost>, Error> {
    let wanted = scheme(new)?;
    let is_same = scheme(old)? == wanted;
    let (old, new) = (ring(old)?, ring(new)?);
    Ok(is_same.then(|| placement::cost(&old, &new, wanted.shard_count(), SAMPLE_COUNT)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn node(node: u64) -> MapNode {
        MapNode {
            node: NodeId(node),
            weight: 64,
            host: format!("host-{node}"),
            zone: String::new(),
            state: MapState::Active,
            dial: format!("host-{node}:9991"),
        }
    }

    fn map(count: u64) -> Map {
        Map { epoch: 7, data_count: 2, parity_count: 1, nodes: (0..count).map(node).collect() }
    }

    fn states(map: &Map) -> Vec<(u64, MapState)> {
        map.nodes.iter().map(|node| (node.node.0, node.state)).collect()
    }

    #[test]
    fn nodes_come_and_go() {
        use MapState::{Active, Draining};
        let added = changed(&map(3), &Change::Add(node(5))).unwrap();
        assert_eq!((added.epoch, states(&added)), (8, vec![(0, Active), (1, Active), (2, Active), (5, Active)]));
        let drained = changed(&added, &Change::Drain(NodeId(1))).unwrap();
        assert_eq!(states(&drained), [(0, Active), (1, Draining), (2, Active), (5, Active)]);
        assert_eq!(
            states(&changed(&drained, &Change::Add(node(1))).unwrap()),
            states(&added),
            "it was thought better of"
        );
        let removed = changed(&drained, &Change::Remove(NodeId(1))).unwrap();
        assert_eq!((removed.epoch, states(&removed)), (10, vec![(0, Active), (2, Active), (5, Active)]));
        let replaced = changed(&map(3), &Change::Replace(NodeId(0), node(4))).unwrap();
        assert_eq!(states(&replaced), [(0, Draining), (1, Active), (2, Active), (4, Active)]);
        let narrow = changed(&map(3), &Change::Layout(Scheme::new(1, 1).unwrap())).unwrap();
        assert_eq!((narrow.data_count, narrow.parity_count), (1, 1));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let scheme = Scheme::new(2, 1).unwrap();
        let refused = |count, change| changed(&map(count), &change).unwrap_err();
        assert_eq!(refused(3, Change::Add(node(1))), Error::IsThere(NodeId(1)));
        assert_eq!(refused(4, Change::Drain(NodeId(9))), Error::NoSuchNode(NodeId(9)));
        assert_eq!(refused(3, Change::Drain(NodeId(1))), Error::TooFew { scheme, left_count: 2 });
        assert_eq!(refused(4, Change::Remove(NodeId(1))), Error::NotDrained(NodeId(1)));
        assert_eq!(refused(4, Change::Replace(NodeId(1), node(1))), Error::Itself);
        assert_eq!(refused(4, Change::Replace(NodeId(1), node(2))), Error::IsThere(NodeId(2)));
        assert_eq!(refused(4, Change::Layout(scheme)), Error::SameLayout(scheme));
        let wide = Scheme::new(3, 2).unwrap();
        assert_eq!(refused(4, Change::Layout(wide)), Error::TooFew { scheme: wide, left_count: 4 });
        let drained = changed(&map(4), &Change::Drain(NodeId(1))).unwrap();
        assert_eq!(changed(&drained, &Change::Drain(NodeId(1))), Err(Error::IsDraining(NodeId(1))));
        let text = Error::TooFew { scheme, left_count: 2 }.to_string();
        assert!(text.starts_with("rs(2,1) needs 3 nodes, and 2 would take shards"), "{text}");
    }

    #[test]
    fn a_change_has_a_cost() {
        let (three, four) = (map(3), changed(&map(3), &Change::Add(node(3))).unwrap());
        let cost = cost(&three, &four).unwrap().unwrap();
        let fraction = cost.moved_fraction();
        assert!((0.2..0.3).contains(&fraction), "{fraction}: a fourth of all shards goes to the fourth node");
        let narrow = changed(&three, &Change::Layout(Scheme::new(1, 1).unwrap())).unwrap();
        assert_eq!(super::cost(&three, &narrow).unwrap(), None);
    }
}
