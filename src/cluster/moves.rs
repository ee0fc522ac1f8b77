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
    /// Copy these shards.
    Copy {
        /// Index, and the node that gets it.
        homes: Vec<(usize, NodeId)>,
        /// Whether others have to wait.
        is_stuck: bool,
    },
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
    match (chunk.scheme == target, live_count >= target.shard_count()) {
        (true, _) => gather(chunk, &members, ring, live),
        (false, true) => Move::Rewrite,
        // It has to be written again later; who leaves does not wait for that.
        (false, false) => match gather(chunk, &members, ring, live) {
            Move::Copy { homes, .. } => Move::Copy { homes, is_stuck: true },
            _ => Move::Wait,
        },
    }
}

/// `members`: those who take shards, in the order in which the ring wants the chunk on them.
fn gather(chunk: &Chunk<'_>, members: &[NodeId], ring: &Ring, live: impl Fn(NodeId) -> bool) -> Move {
    let (wanted, others) = members.split_at(chunk.scheme.shard_count().min(members.len()));
    let is_free = |node: &&NodeId| !chunk.nodes.contains(&Some(**node)) && live(**node);
    let mut free: Vec<NodeId> = wanted.iter().filter(is_free).copied().collect();
    let mut spare: Vec<NodeId> = others.iter().filter(is_free).copied().collect();
    let mut nodes = chunk.nodes.to_vec();
    let (mut homes, mut is_stuck) = (Vec::new(), false);
    for index in 0..nodes.len() {
        let Some(node) = nodes[index].filter(|node| !wanted.contains(node)) else { continue };
        // Who leaves the cluster is not to wait for one node that is down, nor for a better host.
        let is_leaving = !others.contains(&node);
        let home = take_home(&nodes, index, ring, &mut free, is_leaving)
            .or_else(|| if is_leaving { take_home(&nodes, index, ring, &mut spare, true) } else { None });
        match home {
            Some(home) => {
                nodes[index] = Some(home);
                homes.push((index, home));
            }
            None => is_stuck = true,
        }
    }
    match (homes.is_empty(), is_stuck) {
        (false, is_stuck) => Move::Copy { homes, is_stuck },
        (true, true) => Move::Wait,
        (true, false) => Move::Stay,
    }
}

/// Takes the first of `free` whose host has no more of the chunk's other shards than the host has where the shard is now;
/// for a shard that must go, the one whose host has fewest.
fn take_home(
    nodes: &[Option<NodeId>],
    index: usize,
    ring: &Ring,
    free: &mut Vec<NodeId>,
    must_go: bool,
) -> Option<NodeId> {
    let host = |node: NodeId| ring.members().iter().find(|member| member.node == node).map(|member| &member.host);
    let others = || nodes.iter().enumerate().filter(|(other, _)| *other != index).filter_map(|(_, node)| *node);
    let uses = |node: NodeId| others().filter(|other| host(*other) == host(node)).count();
    let now_count = nodes[index].map_or(0, uses);
    let at = match must_go {
        true => (0..free.len()).min_by_key(|at| uses(free[*at])),
        false => (0..free.len()).find(|at| uses(free[*at]) <= now_count),
    };
    at.map(|at| free.remove(at))
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
        assert_eq!(plan(&chunk, rs(3, 2), &ring, |node| node != NodeId(0)), Move::Wait);
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
        let Move::Copy { homes, .. } = plan(&chunk, rs(2, 1), &after, is_up) else { panic!("it has somewhere to go") };
        assert!(homes.iter().any(|(index, _)| *index == 0), "{homes:?}");
        let staying: Vec<_> = nodes[1..].to_vec();
        let chunk = Chunk { id: Ino(9), scheme: rs(1, 1), nodes: &staying };
        let wanted = after.pick(Ino(9), 2, everyone).nodes;
        let planned = plan(&chunk, rs(1, 1), &after, |node| !wanted.contains(&node));
        assert!(matches!(planned, Move::Wait | Move::Stay), "{planned:?}");
    }

    /// Each of three hosts has two nodes.
    #[test]
    fn no_host_gets_a_second_shard_because_a_node_is_down() {
        let member = |node: u64| Member {
            node: NodeId(node),
            weight: 64,
            zone: String::new(),
            host: format!("host-{}", node / 2),
            state: State::Active,
        };
        let ring = Ring::new(1, (0..6).map(member).collect()).unwrap();
        for id in (0..200).map(Ino) {
            let wanted = ring.pick(id, 3, everyone).nodes;
            // Everything on the other node of its host, in another order.
            let mut nodes: Vec<_> = wanted.iter().map(|node| Some(NodeId(node.0 ^ 1))).collect();
            nodes.rotate_left((id.0 % 3) as usize);
            let chunk = Chunk { id, scheme: rs(2, 1), nodes: &nodes };
            let down = wanted[(id.0 / 3 % 3) as usize];
            let Move::Copy { homes, is_stuck } = plan(&chunk, rs(2, 1), &ring, |node| node != down) else {
                panic!("two can go")
            };
            assert!(is_stuck && homes.len() == 2, "{homes:?}");
            let mut hosts: Vec<_> = moved(&nodes, &homes).into_iter().flatten().map(|node| node.0 / 2).collect();
            hosts.sort_unstable();
            assert_eq!(hosts, [0, 1, 2]);
        }
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
                    Move::Copy { homes, is_stuck } => {
                        prop_assert!(!is_stuck);
                        moved(&nodes, &homes)
                    }
                    Move::Stay => nodes.clone(),
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                };
                prop_assert!(reached.iter().flatten().all(|node| wanted.contains(node)), "{:?} of {:?}", reached, wanted);
            }
            // With some that take nothing: nothing twice, nothing to them, and what lies right is left alone.
            let live = |node: NodeId| down >> node.0 & 1 == 0;
            if let Move::Copy { homes: moves, .. } = plan(&of, scheme, &new, live) {
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
