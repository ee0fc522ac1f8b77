//! What a change of the ring would move, before anything does.

use std::collections::{BTreeMap, HashSet};

use super::ring::Ring;
use crate::ids::{Ino, NodeId};

/// What moves from one ring to another, counted over a sample of chunks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Shards of the sample that the new ring places.
    pub placed_count: u64,
    /// For each node of either ring, by id.
    pub nodes: Vec<NodeCost>,
}

/// What moves to and from one node, in shards of the sample. Multiplied by (bytes of all shards / [`Cost::placed_count`]),
/// these are bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeCost {
    /// Which.
    pub node: NodeId,
    /// Shards that the old ring gives it.
    pub before_count: u64,
    /// Shards that the new ring gives it.
    pub after_count: u64,
    /// Shards that it has by the new ring and not by the old.
    pub gained_count: u64,
    /// Shards that it had by the old ring and not by the new.
    pub lost_count: u64,
}

impl Cost {
    /// Shards of the sample that are written anew.
    pub fn moved_count(&self) -> u64 {
        self.nodes.iter().map(|node| node.gained_count).sum()
    }

    /// The share of all shards that are written anew, 0 to 1.
    pub fn moved_fraction(&self) -> f64 {
        self.moved_count() as f64 / self.placed_count.max(1) as f64
    }
}

/// What moves from `old` to `new`, where chunks have `shard_count` shards and all nodes live. A shard stays where its
/// chunk keeps a node, whichever of its shards that has.
///
/// `sample_count`: chunks to look at, always the same ones; some 10,000 tell tenths of a percent.
pub fn cost(old: &Ring, new: &Ring, shard_count: usize, sample_count: u32) -> Cost {
    let nodes = old.members().iter().chain(new.members()).map(|member| member.node);
    let none = |node| NodeCost { node, before_count: 0, after_count: 0, gained_count: 0, lost_count: 0 };
    let mut nodes: BTreeMap<NodeId, NodeCost> = nodes.map(|node| (node, none(node))).collect();
    let mut placed_count = 0;
    for chunk in (0..u64::from(sample_count)).map(Ino) {
        let picks =
            |ring: &Ring| -> HashSet<NodeId> { ring.pick(chunk, shard_count, |_| true).nodes.into_iter().collect() };
        let (before, after) = (picks(old), picks(new));
        placed_count += after.len() as u64;
        for node in nodes.values_mut() {
            let (had, has) = (before.contains(&node.node), after.contains(&node.node));
            node.before_count += u64::from(had);
            node.after_count += u64::from(has);
            node.gained_count += u64::from(has && !had);
            node.lost_count += u64::from(had && !has);
        }
    }
    Cost { placed_count, nodes: nodes.into_values().collect() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::ring::tests::{apart, member};
    use super::super::{Member, State};
    use super::*;
    use proptest::prelude::*;

    fn ring(members: &[Member]) -> Ring {
        Ring::new(1, members.to_vec()).unwrap()
    }

    fn of(cost: &Cost, node: u64) -> NodeCost {
        *cost.nodes.iter().find(|cost| cost.node == NodeId(node)).unwrap()
    }

    #[test]
    fn nothing_moves_between_equal_rings() {
        let members = apart([256; 5]);
        let cost = cost(&ring(&members), &Ring::new(2, members).unwrap(), 3, 500);
        assert_eq!((cost.moved_count(), cost.placed_count), (0, 1500));
        assert!(cost.nodes.iter().all(|node| node.before_count == node.after_count && node.lost_count == 0));
    }

    #[test]
    fn a_drained_node_gives_away_all_it_has() {
        let members = apart([256; 6]);
        let mut drained = members.clone();
        drained[2].state = State::Draining;
        let cost = cost(&ring(&members), &ring(&drained), 3, 1000);
        let gone = of(&cost, 2);
        assert_eq!((gone.after_count, gone.lost_count), (0, gone.before_count));
        assert_eq!(cost.moved_count(), gone.before_count, "nothing else moves");
    }

    #[test]
    fn on_fewer_nodes_than_shards_only_what_is_new_is_written() {
        let cost = cost(&ring(&apart([256; 2])), &ring(&apart([256; 3])), 3, 100);
        assert_eq!((cost.placed_count, cost.moved_count(), of(&cost, 2).gained_count), (300, 100, 100));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]

        #[test]
        fn a_newcomer_takes_about_its_share_and_a_leaver_leaves_it(
            weights in prop::collection::vec(100u32..400, 5..14),
            newcomer in 100u32..400,
            shard_count in 1usize..=3,
        ) {
            let members = apart(weights.iter().copied());
            let node = members.len() as u64;
            let more: Vec<Member> = members.iter().cloned().chain([member(node, newcomer, node, node)]).collect();
            let (small, large) = (ring(&members), ring(&more));
            let coming = cost(&small, &large, shard_count, 1500);
            prop_assert_eq!(coming.moved_count(), of(&coming, node).gained_count, "nothing moves among the others");
            let total: u32 = weights.iter().sum::<u32>() + newcomer;
            let due = f64::from(newcomer) / f64::from(total);
            let ratio = coming.moved_fraction() / due;
            prop_assert!((0.6..1.5).contains(&ratio), "{ratio:.2} of its share of {due:.3}");
            let leaving = cost(&large, &small, shard_count, 1500);
            prop_assert_eq!(of(&leaving, node).lost_count, of(&coming, node).gained_count);
            prop_assert_eq!(leaving.moved_count(), coming.moved_count());
        }

        #[test]
        fn domains_cost_little_more(zone_count in 3u64..5, newcomer_zone in 0u64..5) {
            let members: Vec<Member> = (0..12).map(|node| member(node, 256, node, node % zone_count)).collect();
            let newcomer = member(12, 256, 12, newcomer_zone % zone_count);
            let more: Vec<Member> = members.iter().cloned().chain([newcomer]).collect();
            let cost = cost(&ring(&members), &ring(&more), 3, 1500);
            let ratio = cost.moved_fraction() * 13.0;
            prop_assert!((0.5..2.0).contains(&ratio), "{ratio:.2} of its share");
        }
    }
}
