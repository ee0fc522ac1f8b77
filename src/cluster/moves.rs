//! Where the shards of a chunk should be that lie somewhere else.
//!
//! Invariants
//! - A plan never puts two shards of a chunk on one node, and leaves alone what lies where the ring wants it.
//! - What the ring wants does not depend on who answers: a node that is down for a while draws nothing away.

use crate::erasure::Scheme;
use crate::ids::{Ino, NodeId};
use crate::placement::Ring;

/// What to do about one chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Move {
    /// Nothing: it lies where the ring wants it.
    Stay,
    /// Copy these shards: index, and the node that gets it.
    Copy(Vec<(usize, NodeId)>),
    /// Write it again: another layout is wanted.
    Rewrite,
    /// Nothing can be done now: nodes that should have it take no shards.
    Wait,
}

/// What is known of a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Which.
    pub id: Ino,
    /// Its layout.
    pub scheme: Scheme,
    /// Where each shard is, by index; none: nowhere.
    pub nodes: &'a [Option<NodeId>],
}

/// Decides about one chunk. `target`: the layout that is wanted; `live`: whether a node takes shards now.
pub fn plan(chunk: &Chunk<'_>, target: Scheme, ring: &Ring, live: impl Fn(NodeId) -> bool) -> Move {
    let members = ring.pick(chunk.id, usize::MAX, |_| true).nodes;
    let live_count = members.iter().filter(|node| live(**node)).count();
    match chunk.scheme != target && live_count >= target.shard_count() {
        true => Move::Rewrite,
        false => gather(chunk, &members, live),
    }
}

/// `members`: those who take shards, in the order in which the ring wants the chunk on them.
fn gather(chunk: &Chunk<'_>, members: &[NodeId], live: impl Fn(NodeId) -> bool) -> Move {
    let (wanted, others) = members.split_at(chunk.scheme.shard_count().min(members.len()));
    let is_free = |node: &&NodeId| !chunk.nodes.contains(&Some(**node)) && live(**node);
    let (mut free, mut spare) = (wanted.iter().filter(is_free), others.iter().filter(is_free));
    let (mut moves, mut is_stuck) = (Vec::new(), false);
    for (index, node) in chunk.nodes.iter().enumerate() {
        let Some(node) = node.filter(|node| !wanted.contains(node)) else { continue };
        // Who leaves the cluster is not to wait for one node that is down.
        let is_leaving = !others.contains(&node);
        match free.next().or_else(|| if is_leaving { spare.next() } else { None }) {
            Some(home) => moves.push((index, *home)),
            None => is_stuck = true,
        }
    }
    match (moves.is_empty(), is_stuck) {
        (false, _) => Move::Copy(moves),
        (true, true) => Move::Wait,
        (true, false) => Move::Stay,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::placement::{Member, State};

    /// `count` nodes, of which those of `draining` take nothing.
    fn ring(count: u64, draining: &[u64]) -> Ring {
        let member = |node| Member {
            node: NodeId(node),
            weight: 64,
            zone: String::new(),
            host: format!("host-{node}"),
            state: if draining.contains(&node) { State::Draining } else { State::Active },
        };
        Ring::new(1, (0..count).map(member).collect()).unwrap()
    }

    fn rs(k: u8, m: u8) -> Scheme {
        Scheme::new(k, m).unwrap()
    }

    fn everyone(_: NodeId) -> bool {
        true
    }

    fn placed(ring: &Ring, chunk: Ino, count: usize) -> Vec<Option<NodeId>> {
        ring.pick(chunk, count, everyone).nodes.into_iter().map(Some).collect()
    }

    fn moved(nodes: &[Option<NodeId>], moves: &[(usize, NodeId)]) -> Vec<Option<NodeId>> {
        let mut nodes = nodes.to_vec();
        moves.iter().for_each(|(index, node)| nodes[*index] = Some(*node));
        nodes
    }

    #[test]
    fn what_lies_right_stays_also_in_another_order() {
        let ring = ring(6, &[]);
        let mut nodes = placed(&ring, Ino(7), 3);
        nodes.rotate_left(1);
        let chunk = Chunk { id: Ino(7), scheme: rs(2, 1), nodes: &nodes };
        assert_eq!(plan(&chunk, rs(2, 1), &ring, everyone), Move::Stay);
        assert_eq!(plan(&chunk, rs(2, 1), &ring, |_| false), Move::Stay, "whoever is down");
    }

    #[test]
    fn another_layout_is_written_when_there_are_nodes_for_it() {
        let ring = ring(5, &[]);
        let nodes = placed(&ring, Ino(7), 3);
        let chunk = Chunk { id: Ino(7), scheme: rs(2, 1), nodes: &nodes };
        assert_eq!(plan(&chunk, rs(3, 2), &ring, everyone), Move::Rewrite);
        assert_eq!(plan(&chunk, rs(3, 2), &ring, |node| node != NodeId(0)), Move::Stay);
    }

    #[test]
    fn a_node_that_is_down_is_waited_for_but_not_by_who_leaves() {
        let before = ring(4, &[]);
        let nodes = placed(&before, Ino(9), 3);
        let leaving = nodes[0].unwrap().0;
        let after = ring(6, &[leaving]);
        let wanted = after.pick(Ino(9), 3, everyone).nodes;
        let chunk = Chunk { id: Ino(9), scheme: rs(2, 1), nodes: &nodes };
        let is_up = |node: NodeId| !wanted.contains(&node);
        let Move::Copy(moves) = plan(&chunk, rs(2, 1), &after, is_up) else { panic!("it has somewhere to go") };
        assert!(moves.iter().any(|(index, _)| *index == 0), "{moves:?}");
        let staying: Vec<_> = nodes[1..].to_vec();
        let chunk = Chunk { id: Ino(9), scheme: rs(1, 1), nodes: &staying };
        let wanted = after.pick(Ino(9), 2, everyone).nodes;
        let planned = plan(&chunk, rs(1, 1), &after, |node| !wanted.contains(&node));
        assert!(matches!(planned, Move::Wait | Move::Stay), "{planned:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever the ring was before, when all answer one plan brings the chunk where it should be, and nothing twice.
        #[test]
        fn one_step_reaches_the_ring(
            chunk: u64, before in 5u64..9, after in 5u64..9, draining in prop::collection::vec(0u64..9, 0..3),
            nowhere in prop::option::of(0usize..5), down in 0u64..512,
        ) {
            let (old, new) = (ring(before, &[]), ring(after, &draining));
            let scheme = rs(3, 2);
            let mut nodes = placed(&old, Ino(chunk), scheme.shard_count());
            if let Some(index) = nowhere {
                nodes[index] = None;
            }
            let of = Chunk { id: Ino(chunk), scheme, nodes: &nodes };
            let wanted = new.pick(Ino(chunk), scheme.shard_count(), everyone).nodes;
            if wanted.len() == scheme.shard_count() {
                let reached = match plan(&of, scheme, &new, everyone) {
                    Move::Copy(moves) => moved(&nodes, &moves),
                    Move::Stay => nodes.clone(),
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                };
                prop_assert!(reached.iter().flatten().all(|node| wanted.contains(node)), "{:?} of {:?}", reached, wanted);
            }
            // With some that take nothing: nothing twice, nothing to them, and what lies right is left alone.
            let live = |node: NodeId| down >> node.0 & 1 == 0;
            if let Move::Copy(moves) = plan(&of, scheme, &new, live) {
                let mut reached: Vec<_> = moved(&nodes, &moves).into_iter().flatten().collect();
                reached.sort_unstable();
                prop_assert!(reached.windows(2).all(|pair| pair[0] != pair[1]), "{:?}", reached);
                for (index, home) in moves {
                    prop_assert!(live(home) && !wanted.contains(&nodes[index].unwrap()));
                    prop_assert!(!draining.contains(&home.0), "it drains");
                }
            }
        }
    }
}
