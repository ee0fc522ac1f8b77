//! A consistent hash ring: each member has points on it in proportion to its weight, and a chunk belongs to the members
//! whose points come next after its own.
//!
//! Invariants
//! - A member's points depend on its id and its weight alone. So whoever comes takes its share from the others, whoever
//!   goes leaves its share to them, and nothing moves among the rest but to keep failure domains apart.
//! - No node is picked twice for a chunk. Hosts are reused only once every host that may be picked was picked as often,
//!   and likewise zones, among hosts alike.

use super::{Error, hash};
use crate::ids::{Ino, NodeId};

/// The most points that a member may have.
pub const WEIGHT_MAX: u32 = 1 << 16;

/// Whether a member takes new shards.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// It does.
    Active,
    /// It gives away what it has.
    Draining,
}

/// A shard node on the ring.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    /// Which.
    pub node: NodeId,
    /// Its points on the ring, in proportion to its capacity: see [`weight`]. Those of 0 get nothing.
    pub weight: u32,
    /// What fails together for reasons outside: a rack, a site.
    pub zone: String,
    /// The machine, which may be home to several nodes. Named uniquely in the whole cluster.
    pub host: String,
    /// Whether it takes new shards.
    pub state: State,
}

/// The points of a member of that capacity.
///
/// `point_bytes`: the capacity that one point stands for, not 0; fixed when the cluster is made, for changing it moves
/// a good part of all shards. A typical node should have some 256 points: its share is then within 6% or so (one standard
/// deviation) of what is due to it.
pub fn weight(capacity_bytes: u64, point_bytes: u64) -> u32 {
    let points = (capacity_bytes / point_bytes).clamp(u64::from(capacity_bytes > 0), u64::from(WEIGHT_MAX));
    points as u32
}

/// Nodes for the shards of a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Picks {
    /// As many as were asked for, or all that live: by shard index.
    pub nodes: Vec<NodeId>,
    /// The other nodes that live, in the order in which to fall back on them.
    pub alternates: Vec<NodeId>,
}

/// The members at one epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ring {
    epoch: u64,
    /// By node id.
    members: Vec<Member>,
    /// Where each member is: numbers of its host and its zone.
    domains: Vec<(usize, usize)>,
    /// By position.
    points: Vec<Point>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Point {
    position: u64,
    /// Index of the member. In order of node ids, so that even equal positions have one order.
    member: usize,
}

impl Ring {
    /// The ring of `members`, in any order.
    ///
    /// # Errors
    /// [`Error::Twice`], [`Error::Weight`]: no such ring.
    pub fn new(epoch: u64, mut members: Vec<Member>) -> Result<Ring, Error> {
        members.sort_by_key(|member| member.node);
        if let Some(pair) = members.windows(2).find(|pair| pair[0].node == pair[1].node) {
            return Err(Error::Twice { node: pair[0].node });
        }
        if let Some(Member { node, weight, .. }) = members.iter().find(|member| member.weight > WEIGHT_MAX) {
            return Err(Error::Weight { node: *node, weight: *weight });
        }
        let hosts = numbers(&members, |member| &member.host);
        let domains = hosts.into_iter().zip(numbers(&members, |member| &member.zone)).collect();
        let mut points: Vec<Point> = (members.iter().enumerate())
            .filter(|(_, member)| member.state == State::Active)
            .flat_map(|(index, member)| {
                let node = member.node;
                (0..member.weight).map(move |point| Point { position: hash::point(node, point), member: index })
            })
            .collect();
        points.sort_unstable();
        Ok(Ring { epoch, members, domains, points })
    }

    /// Which version of the ring it is.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// All members, by node id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The nodes for a chunk: the first `count` that are `live`, from the chunk's place on the ring on, spread over hosts
    /// and then over zones as far as that goes. Draining members are not picked.
    pub fn pick(&self, chunk: Ino, count: usize, live: impl Fn(NodeId) -> bool) -> Picks {
        let mut candidates = self.after(chunk);
        candidates.retain(|member| live(self.members[*member].node));
        let mut nodes = self.spread(candidates);
        let alternates = nodes.split_off(count.min(nodes.len()));
        Picks { nodes, alternates }
    }

    /// Members with points, each once, in the order in which they come after the chunk.
    fn after(&self, chunk: Ino) -> Vec<usize> {
        let position = hash::chunk(chunk);
        let start = self.points.partition_point(|point| point.position < position);
        let mut seen = vec![false; self.members.len()];
        let mut unseen_count = self.members.iter().filter(|member| member.takes_shards()).count();
        let mut members = Vec::with_capacity(unseen_count);
        for point in self.points[start..].iter().chain(&self.points[..start]) {
            if unseen_count == 0 {
                break;
            }
            if !std::mem::replace(&mut seen[point.member], true) {
                members.push(point.member);
                unseen_count -= 1;
            }
        }
        members
    }

    /// Reorders `candidates`: next comes whose host, then whose zone, was taken least so far; among equals, the first.
    fn spread(&self, mut candidates: Vec<usize>) -> Vec<NodeId> {
        let mut host_uses = vec![0u32; self.members.len()];
        let mut zone_uses = vec![0u32; self.members.len()];
        let mut nodes = Vec::with_capacity(candidates.len());
        while let Some(at) = (0..candidates.len()).min_by_key(|at| {
            let (host, zone) = self.domains[candidates[*at]];
            (host_uses[host], zone_uses[zone])
        }) {
            let member = candidates.remove(at);
            let (host, zone) = self.domains[member];
            host_uses[host] += 1;
            zone_uses[zone] += 1;
            nodes.push(self.members[member].node);
        }
        nodes
    }
}

impl Member {
    fn takes_shards(&self) -> bool {
        self.state == State::Active && self.weight > 0
    }
}

/// For each member, a number below the count of members: the same for those whose `name` is the same.
fn numbers(members: &[Member], name: impl Fn(&Member) -> &str) -> Vec<usize> {
    let number = |member| members.iter().position(|other| name(other) == name(member)).unwrap_or_default();
    members.iter().map(number).collect()
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{HashMap, HashSet};

    use super::*;
    use proptest::prelude::*;

    pub(in crate::placement) fn member(node: u64, weight: u32, host: u64, zone: u64) -> Member {
        let (zone, host) = (format!("zone-{zone}"), format!("host-{host}"));
        Member { node: NodeId(node), weight, zone, host, state: State::Active }
    }

    /// Each node on a host and in a zone of its own.
    pub(in crate::placement) fn apart(weights: impl IntoIterator<Item = u32>) -> Vec<Member> {
        (0..).zip(weights).map(|(node, weight)| member(node, weight, node, node)).collect()
    }

    fn everyone(_: NodeId) -> bool {
        true
    }

    /// How often each value comes.
    fn tally<T: std::hash::Hash + Eq>(values: impl Iterator<Item = T>) -> HashMap<T, u32> {
        let mut counts = HashMap::new();
        values.for_each(|value| *counts.entry(value).or_default() += 1);
        counts
    }

    #[test]
    fn picks_are_golden() {
        let mut members: Vec<Member> = (0..8).map(|node| member(node, 64, node / 2, node / 4)).collect();
        members[3].state = State::Draining;
        let ring = Ring::new(7, members).unwrap();
        let picks = |chunk| {
            let Picks { nodes, alternates } = ring.pick(chunk, 3, everyone);
            [nodes, alternates].map(|nodes| nodes.into_iter().map(|node| node.0).collect::<Vec<u64>>())
        };
        assert_eq!(picks(Ino(1)), [vec![0, 6, 2], vec![5, 1, 7, 4]]);
        assert_eq!(picks(Ino(2)), [vec![1, 6, 5], vec![2, 7, 0, 4]]);
        assert_eq!(picks(Ino::new(3, 1_000_000)), [vec![7, 2, 5], vec![1, 6, 0, 4]]);
    }

    #[test]
    fn shares_follow_weights() {
        let weights = [128, 256, 256, 512, 64, 1024, 256, 256];
        let ring = Ring::new(1, apart(weights)).unwrap();
        let count = 20_000;
        let counts = tally((0..count).map(|chunk| ring.pick(Ino(chunk), 1, everyone).nodes[0].0 as usize));
        let total: u32 = weights.iter().sum();
        for (node, weight) in weights.iter().enumerate() {
            let due = count as f64 * f64::from(*weight) / f64::from(total);
            let ratio = f64::from(counts[&node]) / due;
            // Three standard deviations, of points and of chunks.
            let tolerance = 3.0 * (1.0 / f64::from(*weight) + 1.0 / due).sqrt();
            assert!((ratio - 1.0).abs() < tolerance, "node {node} of {weight}: {ratio:.3} of its share");
        }
    }

    #[test]
    fn several_shards_are_balanced_over_equal_nodes() {
        let ring = Ring::new(1, apart([256; 12])).unwrap();
        let counts = tally((0..6000).flat_map(|chunk| ring.pick(Ino(chunk), 5, everyone).nodes));
        for (node, count) in counts {
            let ratio = f64::from(count) / (6000.0 * 5.0 / 12.0);
            assert!((0.85..1.15).contains(&ratio), "node {node}: {ratio:.3} of its share");
        }
    }

    #[test]
    fn hosts_come_before_zones_and_both_before_repetition() {
        // Zone 0 is one host of two nodes, zone 1 has three hosts.
        let members = vec![member(0, 64, 0, 0), member(1, 64, 0, 0)];
        let members = members.into_iter().chain((2..5).map(|node| member(node, 64, node, 1))).collect();
        let ring = Ring::new(1, members).unwrap();
        for chunk in 0..500 {
            let Picks { nodes, alternates } = ring.pick(Ino(chunk), 4, everyone);
            assert_eq!(nodes.iter().filter(|node| node.0 < 2).count(), 1, "{nodes:?}");
            assert!(nodes[..2].iter().any(|node| node.0 < 2), "both zones first: {nodes:?}");
            assert_eq!(alternates.len(), 1);
        }
    }

    #[test]
    fn capacities_become_weights() {
        let tib = crate::units::TIB;
        assert_eq!(weight(tib, tib / 256), 256);
        assert_eq!(weight(4 * tib, tib / 256), 1024);
        assert_eq!((weight(0, 1), weight(1, tib), weight(u64::MAX, 1)), (0, 1, WEIGHT_MAX));
    }

    #[test]
    fn impossible_rings_are_refused() {
        let twice = vec![member(1, 1, 1, 1), member(2, 1, 1, 1), member(1, 2, 2, 2)];
        assert_eq!(Ring::new(1, twice), Err(Error::Twice { node: NodeId(1) }));
        let heavy = vec![member(1, WEIGHT_MAX + 1, 1, 1)];
        assert_eq!(Ring::new(1, heavy), Err(Error::Weight { node: NodeId(1), weight: WEIGHT_MAX + 1 }));
        let empty = Ring::new(1, Vec::new()).unwrap();
        assert_eq!(empty.pick(Ino(1), 3, everyone), Picks { nodes: vec![], alternates: vec![] });
    }

    fn members() -> impl Strategy<Value = Vec<Member>> {
        let one = (0u32..80, 0u64..6, prop::bool::weighted(0.8));
        prop::collection::vec(one, 0..14).prop_map(|members| {
            let member = |(node, (weight, host, active)): (u64, (u32, u64, bool))| {
                // Hosts are in one zone each.
                let state = if active { State::Active } else { State::Draining };
                Member { state, ..member(node * 7, weight, host, host / 2) }
            };
            (0..).zip(members).map(member).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn picks_are_distinct_live_spread_and_the_same_for_any_order(
            (members, shuffled) in members().prop_flat_map(|members| (Just(members.clone()), Just(members).prop_shuffle())),
            count in 0usize..8,
            dead in 0u64..64,
            chunk: u64,
        ) {
            let ring = Ring::new(3, members.clone()).unwrap();
            let live = |node: NodeId| dead >> (node.0 / 7) & 1 == 0;
            let picks = ring.pick(Ino(chunk), count, live);
            prop_assert_eq!(&Ring::new(3, shuffled).unwrap().pick(Ino(chunk), count, live), &picks);
            let usable: Vec<&Member> =
                members.iter().filter(|member| live(member.node) && member.takes_shards()).collect();
            let all: HashSet<NodeId> = picks.nodes.iter().chain(&picks.alternates).copied().collect();
            prop_assert_eq!(all.len(), picks.nodes.len() + picks.alternates.len(), "no node twice");
            prop_assert_eq!(all, usable.iter().map(|member| member.node).collect());
            prop_assert_eq!(picks.nodes.len(), count.min(usable.len()));
            // Hosts are distinct when there are enough, and never used more than needed.
            let host_of = |node: &NodeId| &members.iter().find(|member| member.node == *node).unwrap().host;
            let zone_of = |node: &NodeId| &members.iter().find(|member| member.node == *node).unwrap().zone;
            let hosts = tally(picks.nodes.iter().map(host_of));
            let sizes = tally(usable.iter().map(|member| &member.host));
            prop_assert_eq!(hosts.len(), picks.nodes.len().min(sizes.len()));
            for (host, uses) in &hosts {
                let least = sizes.iter().filter(|(other, size)| hosts.get(**other).is_none_or(|uses| uses < size));
                let least = least.map(|(other, _)| hosts.get(*other).copied().unwrap_or(0)).min();
                prop_assert!(least.is_none_or(|least| *uses <= least + 1), "{host} is used {uses} times");
            }
            // Zones too, as long as hosts are distinct.
            let zones: HashSet<&String> = picks.nodes.iter().map(zone_of).collect();
            let usable_zones: HashSet<&String> = usable.iter().map(|member| &member.zone).collect();
            if picks.nodes.len() <= sizes.len() {
                prop_assert_eq!(zones.len(), picks.nodes.len().min(usable_zones.len()));
            }
        }

        #[test]
        fn a_dead_node_is_replaced_and_the_others_stay(node_count in 4u64..12, chunk: u64, dead in 0usize..3) {
            let ring = Ring::new(1, apart(vec![64; node_count as usize])).unwrap();
            let before = ring.pick(Ino(chunk), 3, everyone);
            let dead = before.nodes[dead];
            let after = ring.pick(Ino(chunk), 3, |node| node != dead);
            let kept: Vec<NodeId> = before.nodes.iter().copied().filter(|node| *node != dead).collect();
            prop_assert_eq!(&after.nodes[..2], &kept);
            prop_assert_eq!(after.nodes[2], before.alternates[0]);
        }
    }

    #[test]
    #[ignore = "a measurement"]
    fn speed() {
        for node_count in [3, 12, 100] {
            let start = std::time::Instant::now();
            let ring = Ring::new(1, apart(vec![256; node_count])).unwrap();
            let built = start.elapsed();
            let start = std::time::Instant::now();
            (0..10_000).for_each(|chunk| drop(std::hint::black_box(ring.pick(Ino(chunk), 5, everyone))));
            println!("{node_count} nodes: built in {built:?}, a pick {:?}", start.elapsed() / 10_000);
        }
    }
}
