//! What is shown and judged, of statuses made by hand.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use predastore::catalog::{Map, MapNode, MapState};
use predastore::cluster::map::{Change, changed};
use predastore::ids::NodeId;
use predastore::node::control::Overview;
use predastore::object::Upkeep;
use predastore::shard::wire::NodeStatus;

use super::change::{newcomers, price};
use super::show;
use super::status::{Health, Status};

const GB: u64 = 1_000_000_000;

fn node(id: u64) -> MapNode {
    MapNode {
        node: NodeId(id),
        weight: 256,
        host: format!("10.0.0.{id}"),
        zone: String::new(),
        state: MapState::Active,
        dial: format!("10.0.0.{id}:9991"),
    }
}

fn map(count: u64) -> Map {
    Map { epoch: 3, data_count: 2, parity_count: 1, nodes: (0..count).map(node).collect() }
}

fn fill() -> NodeStatus {
    NodeStatus { shard_count: 12, live_bytes: 10 * GB, free_bytes: 80 * GB, total_bytes: 100 * GB, start: 1 }
}

fn overview(id: u64) -> Overview {
    Overview {
        node: NodeId(id),
        state: if id == 1 { "leader" } else { "follower" }.to_owned(),
        term: 4,
        leader: Some(NodeId(1)),
        applied_index: 99,
        is_read_only: false,
        voters: (1..=3).map(NodeId).collect(),
        members: BTreeMap::from([(NodeId(id), format!("10.0.0.{id}:6660"))]),
        map: Some(map(3)),
        feature_level: 1,
        upkeep: Some(Upkeep { is_counted: true, recount_count: 1, ..Upkeep::default() }),
    }
}

fn healthy() -> Status {
    Status {
        dbs: (1..=3).map(|id| (NodeId(id), Ok(overview(id)))).collect(),
        nodes: map(3).nodes.into_iter().map(|node| (node, Ok(fill()))).collect(),
        gives_votes: false,
    }
}

fn leader(status: &mut Status) -> &mut Overview {
    status.dbs[0].1.as_mut().unwrap()
}

fn degraded(status: &Status) -> String {
    match status.health() {
        Health::Degraded(reasons) => reasons.join("; "),
        other => panic!("{other:?}"),
    }
}

fn unavailable(status: &Status) -> String {
    match status.health() {
        Health::Unavailable(reasons) => reasons.join("; "),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_whole_cluster_is_healthy() {
    assert_eq!(healthy().health(), Health::Healthy);
    let text = show::text(&healthy());
    let expected = "\
cluster  healthy
layout   rs(2,1), epoch 3
level    1
chunks   0 below target, 0 to move, all counted
db nodes
  1    leader     term 4, applied 99  10.0.0.1:6660
  2    follower   term 4, applied 99  10.0.0.2:6660
  3    follower   term 4, applied 99  10.0.0.3:6660
shard nodes
  0    up         12 shards of 10 GB, 80 GB of 100 GB free  10.0.0.0:9991
  1    up         12 shards of 10 GB, 80 GB of 100 GB free  10.0.0.1:9991
  2    up         12 shards of 10 GB, 80 GB of 100 GB free  10.0.0.2:9991
";
    assert_eq!(text, expected);
    let json: serde_json::Value = serde_json::from_str(&show::json(&healthy())).unwrap();
    assert_eq!(
        (&json["health"], &json["leader"], &json["chunks"]["below_target"]),
        (&"healthy".into(), &1.into(), &0.into())
    );
    assert_eq!(json["nodes"][2]["live_bytes"], 10 * GB);
    assert_eq!(json["feature_level"], 1);
}

#[test]
fn less_than_should_be_is_degraded() {
    let mut status = healthy();
    status.dbs[2].1 = Err("db 3 was not reached".to_owned());
    status.nodes[1].1 = Err("node 1 was not reached".to_owned());
    assert_eq!(degraded(&status), "db 3 does not answer; node 1 does not answer");

    let mut status = healthy();
    let upkeep = leader(&mut status).upkeep.as_mut().unwrap();
    (upkeep.below_target_count, upkeep.repair_left) = (400, Some(Duration::from_secs(130)));
    upkeep.is_counted = false;
    assert_eq!(degraded(&status), "400 chunks are below target; what the nodes have is not counted yet");
    assert!(show::text(&status).contains("chunks   400 below target (about 3 min), 0 to move, not counted yet\n"));

    let mut status = healthy();
    leader(&mut status).voters.pop();
    assert!(degraded(&status).starts_with("db 3 does not vote"));
    status.gives_votes = true;
    assert_eq!(
        degraded(&status),
        "box 3 is to vote, and does not yet; box 3 takes no shards, or not yet",
        "the shard nodes are 0 to 2"
    );
    status.dbs.pop();
    leader(&mut status).voters = vec![NodeId(1)];
    assert_eq!(status.health(), Health::Healthy, "where boxes join, the second one waits for a third");
    let mut status = healthy();
    status.dbs[1].1.as_mut().unwrap().state = "learner".to_owned();
    assert!(degraded(&status).starts_with("db 2 has lost its log"));
    let mut status = healthy();
    status.nodes[0].1.as_mut().unwrap().free_bytes = 0;
    assert_eq!(degraded(&status), "node 0 is full");
}

#[test]
fn what_is_not_served_is_unavailable() {
    let mut status = healthy();
    status.dbs.iter_mut().flat_map(|(_, answer)| answer.as_mut()).for_each(|overview| overview.leader = None);
    assert!(unavailable(&status).starts_with("no db node leads"));

    // It says that it leads until it has missed its followers for a while.
    let mut status = healthy();
    (1..3).for_each(|index| status.dbs[index].1 = Err("it is dead".to_owned()));
    assert!(unavailable(&status).starts_with("no db node leads"));

    let mut status = healthy();
    (0..2).for_each(|index| status.nodes[index].1 = Err("it is dead".to_owned()));
    assert!(unavailable(&status).starts_with("2 shard nodes are down, and rs(2,1) stands 1"));

    let mut status = healthy();
    leader(&mut status).upkeep.as_mut().unwrap().lost_count = 2;
    assert!(unavailable(&status).contains("2 chunks cannot be read"));
    let nobody = Status { dbs: vec![(NodeId(1), Err("it is dead".to_owned()))], nodes: Vec::new(), gives_votes: false };
    assert!(unavailable(&nobody).contains("the cluster has no map yet"));
}

#[test]
fn the_ring_tells_shares() {
    let mut status = healthy();
    let map = leader(&mut status).map.as_mut().unwrap();
    (map.epoch, map.nodes[2].state) = (4, MapState::Draining);
    let text = show::ring(&status).unwrap();
    let expected = "\
epoch 4, rs(2,1)
node  state      weight   share  host                 zone
0     active        256   50.0%  10.0.0.0
1     active        256   50.0%  10.0.0.1
2     draining      256    0.0%  10.0.0.2
";
    assert_eq!(text, expected);
}

#[test]
fn a_change_is_priced() {
    let next = changed(&map(3), &Change::Add(node(3))).unwrap();
    let mut fills: Vec<_> = (0..3).map(|id| (NodeId(id), fill())).collect();
    fills.push((NodeId(3), NodeStatus { live_bytes: 0, total_bytes: 8 * GB, free_bytes: 8 * GB, ..fill() }));
    let text = price(&map(3), &next, &fills).unwrap();
    assert!(text.starts_with("epoch 3 to 4: 2") && text.contains("about 7."), "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("3         0.0 kB") && last.ends_with("too full"), "{text}");
}

#[test]
fn a_dry_run_asks_only_those_who_come() {
    let four = map(4);
    let after = |map: &Map, change| changed(map, &change).unwrap();
    let asked = |map: &Map, next: &Map| newcomers(map, next).map(|node| node.node.0).collect::<Vec<_>>();
    let drained = after(&four, Change::Drain(NodeId(1)));
    assert!(asked(&four, &drained).is_empty(), "who goes has told already what it has");
    assert!(asked(&drained, &after(&drained, Change::Add(node(1)))).is_empty(), "so has who stays after all");
    assert_eq!(asked(&four, &after(&four, Change::Add(node(7)))), [7]);
    assert_eq!(asked(&four, &after(&four, Change::Replace(NodeId(2), node(9)))), [9]);
    let fills: Vec<_> = (0..4).map(|id| (NodeId(id), fill())).collect();
    let text = price(&four, &drained, &fills).unwrap();
    // A fourth of 40 GB, about.
    let is_sum = [" about 9.", " about 10 GB"].iter().any(|sum| text.contains(sum));
    assert!(text.starts_with("epoch 3 to 4: 2") && is_sum, "{text}");
}

#[test]
fn bytes_are_short() {
    let shown = [0, 999, 12_345, 999_400, 999_600, 10 * GB, 1_234 * GB, u64::MAX].map(show::bytes);
    assert_eq!(shown, ["0.0 kB", "1.0 kB", "12 kB", "999 kB", "1.0 MB", "10 GB", "1.2 TB", "18447 PB"]);
}
