//! What is to be done about a chunk that may be below target.
//!
//! Invariants
//! - A plan never puts two shards of a chunk on one node, and never touches a shard that is there.
//! - Nothing is given up: a shard whose node does not answer counts as lost only once its node has been away for long.

use crate::erasure::Scheme;
use crate::ids::{Ino, NodeId};
use crate::placement::{Ring, width};

/// How one shard of a chunk was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// It is there.
    There,
    /// It was never written, or its node says that it has it not, or not whole.
    Lost,
    /// Its node does not answer, and has not for long.
    Away,
    /// Its node does not answer now.
    Unknown,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plan {
    /// Everything is there, in the layout that is wanted.
    Whole,
    /// Make these shards anew from the others: index, and the node that gets it.
    Rebuild(Vec<(usize, NodeId)>),
    /// Read the chunk and write it again: there is room for a wider layout now, or another is wanted.
    Rewrite,
    /// Nothing can be done now: nodes are missing.
    Wait,
    /// Fewer shards are left than it takes to read it.
    Lost,
}

/// What is known of a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Which.
    pub id: Ino,
    /// Its layout.
    pub scheme: Scheme,
    /// Each shard, by index: where it is, and how it was found there.
    pub shards: &'a [(NodeId, Found)],
}

/// Decides about one chunk. `target`: the layout that is wanted; `live`: whether a node takes shards now.
pub fn plan(chunk: &Chunk<'_>, target: Scheme, ring: &Ring, live: impl Fn(NodeId) -> bool) -> Plan {
    let count = |wanted: &[Found]| chunk.shards.iter().filter(|(_, found)| wanted.contains(found)).count();
    let needed_count = chunk.scheme.data_count();
    if count(&[Found::There]) < needed_count {
        let may_return = count(&[Found::There, Found::Away, Found::Unknown]) >= needed_count;
        return if may_return { Plan::Wait } else { Plan::Lost };
    }
    let live_count = ring.pick(chunk.id, usize::MAX, &live).nodes.len();
    if chunk.scheme != target && width(target, live_count).is_ok_and(|widest| is_better(widest, chunk.scheme, target)) {
        return Plan::Rewrite;
    }
    let gone = |(_, (_, found)): &(usize, &(NodeId, Found))| matches!(found, Found::Lost | Found::Away);
    let gone: Vec<_> = chunk.shards.iter().enumerate().filter(gone).map(|(index, (node, _))| (index, *node)).collect();
    if gone.is_empty() {
        let is_whole = chunk.scheme == target && count(&[Found::Unknown]) == 0;
        return if is_whole { Plan::Whole } else { Plan::Wait };
    }
    match homes(chunk, &gone, ring, live) {
        homes if homes.is_empty() => Plan::Wait,
        homes => Plan::Rebuild(homes),
    }
}

/// How many more shards a chunk may lose and still be read: who has fewest to spare is repaired first. `there`: whether
/// each shard is there, as far as that is known without asking.
pub fn spare_count(data_count: usize, there: impl Iterator<Item = bool>) -> usize {
    there.filter(|is_there| *is_there).count().saturating_sub(data_count)
}

/// Whether writing a chunk again as `widest` brings it nearer to `target` than it is.
fn is_better(widest: Scheme, now: Scheme, target: Scheme) -> bool {
    widest == target || widest.parity_count() > now.parity_count() || {
        widest.parity_count() == now.parity_count()
            && widest.data_count() > now.data_count()
            && now.data_count() < target.data_count()
    }
}

/// A node for each shard that is gone, its own before others; as far as there are nodes.
fn homes(
    chunk: &Chunk<'_>,
    gone: &[(usize, NodeId)],
    ring: &Ring,
    live: impl Fn(NodeId) -> bool,
) -> Vec<(usize, NodeId)> {
    let is_gone = |index: usize| gone.iter().any(|(other, _)| *other == index);
    let mut taken: Vec<NodeId> =
        chunk.shards.iter().enumerate().filter(|(index, _)| !is_gone(*index)).map(|(_, (node, _))| *node).collect();
    let mut free = ring.pick(chunk.id, usize::MAX, live).nodes;
    free.retain(|node| !taken.contains(node));
    let mut homes = Vec::new();
    let (own, other): (Vec<_>, Vec<_>) = gone.iter().copied().partition(|(_, node)| free.contains(node));
    for (index, node) in own {
        if !taken.contains(&node) {
            taken.push(node);
            homes.push((index, node));
        }
    }
    free.retain(|node| !taken.contains(node));
    let host = |node: &NodeId| ring.members().iter().find(|member| member.node == *node).map(|member| &member.host);
    for (index, _) in other {
        // In the ring's order, hosts first that have fewest of the chunk's shards.
        let used = |at: &usize| taken.iter().filter(|node| host(node) == host(&free[*at])).count();
        let Some(at) = (0..free.len()).min_by_key(used) else { break };
        let node = free.remove(at);
        taken.push(node);
        homes.push((index, node));
    }
    homes.sort_unstable();
    homes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::placement::{Member, State};

    fn ring(count: u64) -> Ring {
        let member = |node| Member {
            node: NodeId(node),
            weight: 64,
            zone: String::new(),
            host: format!("host-{node}"),
            state: State::Active,
        };
        Ring::new(1, (0..count).map(member).collect()).unwrap()
    }

    fn rs(k: u8, m: u8) -> Scheme {
        Scheme::new(k, m).unwrap()
    }

    fn planned(scheme: Scheme, target: Scheme, nodes: u64, found: &[Found], dead: &[u64]) -> Plan {
        let shards: Vec<_> = (0..).map(NodeId).zip(found.iter().copied()).collect();
        let chunk = Chunk { id: Ino(7), scheme, shards: &shards };
        plan(&chunk, target, &ring(nodes), |node| !dead.contains(&node.0))
    }

    #[test]
    fn who_may_lose_least_has_least_to_spare() {
        let spare = |there: &[bool]| spare_count(3, there.iter().copied());
        assert_eq!(spare(&[true; 5]), 2);
        assert_eq!(spare(&[true, false, true, false, true]), 0);
        assert_eq!(spare(&[false, false, true, false, true]), 0, "lost");
    }

    #[test]
    fn what_is_missing_is_made_anew_where_it_was_or_elsewhere() {
        use Found::{Away, Lost, There, Unknown};
        let wanted = rs(2, 1);
        for (found, nodes, dead, expected) in [
            (&[There, There, There][..], 3, &[][..], Plan::Whole),
            (&[There, There, Lost], 3, &[], Plan::Rebuild(vec![(2, NodeId(2))])),
            (&[There, There, Unknown], 4, &[2], Plan::Wait),
            (&[There, There, Away], 3, &[2], Plan::Wait),
            (&[There, There, Away], 4, &[2], Plan::Rebuild(vec![(2, NodeId(3))])),
            (&[There, Lost, Unknown], 4, &[2], Plan::Wait),
            (&[There, Lost, Lost], 4, &[], Plan::Lost),
        ] {
            assert_eq!(planned(wanted, wanted, nodes, found, dead), expected, "{found:?} on {nodes} without {dead:?}");
        }
    }

    #[test]
    fn hosts_without_a_shard_come_first() {
        let member = |node, host: &str| Member {
            node: NodeId(node),
            weight: 64,
            zone: String::new(),
            host: host.to_owned(),
            state: State::Active,
        };
        // Two nodes on each of three hosts; what is left is on b and c, so only a will do.
        let hosts = ["a", "a", "b", "b", "c", "c"];
        let members: Vec<_> = (0..).zip(hosts).map(|(node, host)| member(node, host)).collect();
        let ring = Ring::new(1, members).unwrap();
        let shards = [(NodeId(9), Found::Lost), (NodeId(2), Found::There), (NodeId(4), Found::There)];
        for id in 1..50 {
            let chunk = Chunk { id: Ino(id), scheme: rs(2, 1), shards: &shards };
            let Plan::Rebuild(homes) = plan(&chunk, rs(2, 1), &ring, |_| true) else { panic!("no rebuild of {id}") };
            assert!(homes.len() == 1 && homes[0].1.0 < 2, "{homes:?}");
        }
    }

    #[test]
    fn a_narrow_chunk_is_widened_when_there_are_nodes() {
        use Found::{Lost, There};
        assert_eq!(planned(rs(1, 1), rs(2, 1), 3, &[There, There], &[]), Plan::Rewrite);
        assert_eq!(planned(rs(1, 1), rs(2, 1), 3, &[There, There], &[2]), Plan::Wait);
        assert_eq!(planned(rs(1, 2), rs(3, 2), 5, &[There, There, There], &[4]), Plan::Rewrite);
        assert_eq!(planned(rs(1, 2), rs(3, 2), 5, &[There, There, Lost], &[3, 4]), Plan::Rebuild(vec![(2, NodeId(2))]));
        assert_eq!(planned(rs(1, 1), rs(3, 2), 5, &[There, There], &[3, 4]), Plan::Rewrite);
        assert_eq!(planned(rs(3, 2), rs(2, 1), 5, &[There; 5], &[]), Plan::Rewrite);
    }

    proptest! {
        #[test]
        fn no_plan_puts_two_shards_on_one_node(
            (k, m) in (1u8..5, 1u8..4),
            found in prop::collection::vec(0..4usize, 8),
            dead in prop::collection::btree_set(0u64..9, 0..5),
        ) {
            use Found::{Away, Lost, There, Unknown};
            let scheme = rs(k, m);
            let found: Vec<_> = found.iter().map(|index| [There, Lost, Away, Unknown][*index]).take(scheme.shard_count()).collect();
            let dead: Vec<u64> = dead.into_iter().collect();
            if let Plan::Rebuild(homes) = planned(scheme, scheme, 9, &found, &dead) {
                let kept = found.iter().enumerate().filter(|(index, _)| homes.iter().all(|(other, _)| other != index));
                let mut nodes: Vec<u64> = kept.map(|(index, _)| index as u64).collect();
                for (index, node) in &homes {
                    prop_assert!(matches!(found[*index], Lost | Away));
                    prop_assert!(!dead.contains(&node.0));
                    nodes.push(node.0);
                }
                let count = nodes.len();
                nodes.sort_unstable();
                nodes.dedup();
                prop_assert_eq!(nodes.len(), count);
            }
        }
    }
}
