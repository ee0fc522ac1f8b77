//! The cluster's map.

use super::*;
use crate::catalog::{Map, MapNode, MapState};

fn map(epoch: u64, nodes: &[u64]) -> Map {
    let node = |id: &u64| {
        let (host, zone) = (format!("host {id}"), "rack".to_owned());
        MapNode { node: NodeId(*id), weight: 256, host, zone, state: MapState::Active, dial: String::new() }
    };
    Map { epoch, data_count: 2, parity_count: 1, nodes: nodes.iter().map(node).collect() }
}

fn set(from_epoch: u64, map: Map) -> Command {
    Command::SetMap { from_epoch, map }
}

#[test]
fn a_map_is_replaced_only_by_who_saw_the_last_one() {
    let mut world = World::new();
    assert_eq!(world.catalog.view().map().unwrap(), None);
    assert_eq!(world.refusal(set(1, map(2, &[]))), Refusal::MapChanged { epoch: 0 });
    assert_eq!(world.send(set(0, map(1, &[1, 2, 3]))), Outcome::Done);
    assert_eq!(world.refusal(set(0, map(1, &[4]))), Refusal::MapChanged { epoch: 1 });
    assert_eq!(world.send(set(1, map(5, &[1, 2, 3, 4]))), Outcome::Done);
    assert_eq!(world.refusal(set(1, map(6, &[]))), Refusal::MapChanged { epoch: 5 });
    world.catalog = open(&world.dir);
    assert_eq!(world.catalog.view().map().unwrap(), Some(map(5, &[1, 2, 3, 4])));
    assert_eq!(world.rows("SELECT epoch FROM map"), ["5"]);
    assert_eq!(world.catalog.view().contradictions(3), Vec::<String>::new());
}

#[test]
fn the_first_map_needs_no_session() {
    let mut world = World::new();
    let envelope = world.envelope(SessionId(0), 0, set(0, map(1, &[0])));
    assert_eq!(world.apply(envelope), Outcome::Done);
}

#[test]
fn what_is_no_map_is_refused() {
    let mut world = World::new();
    world.send(set(0, map(3, &[1])));
    let long = |node: &mut MapNode| node.zone = "z".repeat(256);
    let mut long_zone = map(4, &[1]);
    long(&mut long_zone.nodes[0]);
    for wrong in [
        map(3, &[1]),
        map(2, &[1]),
        map(u64::MAX, &[1]),
        map(4, &[2, 1]),
        map(4, &[1, 1]),
        map(4, &(0..1025).collect::<Vec<u64>>()),
        long_zone,
        Map { data_count: 0, ..map(4, &[1]) },
        Map { data_count: 200, parity_count: 56, ..map(4, &[1]) },
    ] {
        assert!(matches!(world.refusal(set(3, wrong)), Refusal::OutOfBounds(_)));
    }
}
