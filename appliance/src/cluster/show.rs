//! A cluster's status and its map, as text for people and JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use predastore::catalog::{MapNode, MapState};
use predastore::ids::NodeId;
use predastore::node::control::Overview;
use predastore::object::Upkeep;
use predastore::shard::wire::NodeStatus;
use serde_json::{Value, json};

use super::status::Status;

/// One screen.
pub(super) fn text(status: &Status) -> String {
    let health = status.health();
    let mut text = format!("cluster  {}\n", health.word());
    // Writing to a string cannot fail, here and below.
    for reason in health.reasons() {
        let _ = writeln!(text, "         - {reason}");
    }
    if let Some(map) = status.map() {
        let _ = writeln!(text, "layout   rs({},{}), epoch {}", map.data_count, map.parity_count, map.epoch);
    }
    if let Some(level) = status.feature_level() {
        let _ = writeln!(text, "level    {level}");
    }
    if let Some(upkeep) = status.upkeep() {
        let _ = writeln!(text, "chunks   {}", chunks(&upkeep));
    }
    text += "db nodes\n";
    for (node, answer) in &status.dbs {
        let _ = writeln!(text, "  {:<4} {}", node.to_string(), db(answer));
    }
    text += "shard nodes\n";
    for (node, answer) in &status.nodes {
        let _ = writeln!(text, "  {:<4} {}", node.node.to_string(), shard_node(node, answer));
    }
    text
}

fn chunks(upkeep: &Upkeep) -> String {
    let mut text = format!("{} below target{}", upkeep.below_target_count, left(upkeep.repair_left));
    if upkeep.lost_count > 0 {
        let _ = write!(text, ", {} of them lost", upkeep.lost_count);
    }
    let _ = write!(text, ", {} to move{}", upkeep.to_move_count, left(upkeep.move_left));
    text + if upkeep.is_counted { ", all counted" } else { ", not counted yet" }
}

/// ` (about 3 min)`; nothing where nobody can tell, or where nothing is left.
fn left(time: Option<Duration>) -> String {
    match time.map(|time| time.as_secs()) {
        None => String::new(),
        Some(0) => String::new(),
        Some(seconds) if seconds < 90 => format!(" (about {seconds} s)"),
        Some(seconds) if seconds < 5400 => format!(" (about {} min)", seconds.div_ceil(60)),
        Some(seconds) => format!(" (about {} h)", seconds.div_ceil(3600)),
    }
}

fn db(answer: &Result<Overview, String>) -> String {
    match answer {
        Err(why) => format!("down       {why}"),
        Ok(overview) => {
            let address = overview.members.get(&overview.node).map_or("", String::as_str);
            let (state, term, applied) = (&overview.state, overview.term, overview.applied_index);
            format!("{state:<10} term {term}, applied {applied}  {address}")
        }
    }
}

fn shard_node(node: &MapNode, answer: &Result<NodeStatus, String>) -> String {
    let duty = match node.state {
        MapState::Active => "",
        MapState::Draining => "draining, ",
    };
    match answer {
        Err(why) => format!("down       {duty}{why}"),
        Ok(status) => format!(
            "up         {duty}{} shards of {}, {} of {} free  {}",
            status.shard_count,
            bytes(status.live_bytes),
            bytes(status.free_bytes),
            bytes(status.total_bytes),
            node.dial
        ),
    }
}

/// `1.2 GB`.
pub(super) fn bytes(count: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB"];
    let mut value = count as f64 / 1000.0;
    for unit in units {
        if value < 999.5 || unit == "PB" {
            return if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") };
        }
        value /= 1000.0;
    }
    String::new()
}

/// The names of fields are kept: programs read them.
pub(super) fn json(status: &Status) -> String {
    let health = status.health();
    let upkeep = status.upkeep().map(|upkeep| {
        json!({
            "below_target": upkeep.below_target_count,
            "lost": upkeep.lost_count,
            "to_move": upkeep.to_move_count,
            "counted": upkeep.is_counted,
            "repair_left_s": upkeep.repair_left.map(|left| left.as_secs()),
            "move_left_s": upkeep.move_left.map(|left| left.as_secs()),
        })
    });
    let whole = json!({
        "health": health.word(),
        "reasons": health.reasons(),
        "leader": status.leader().map(|leader| leader.node.0),
        "epoch": status.map().map(|map| map.epoch),
        "rs": status.map().map(|map| json!({ "data": map.data_count, "parity": map.parity_count })),
        "feature_level": status.feature_level(),
        "chunks": upkeep,
        "dbs": status.dbs.iter().map(db_json).collect::<Vec<_>>(),
        "nodes": status.nodes.iter().map(node_json).collect::<Vec<_>>(),
    });
    format!("{whole:#}\n")
}

fn db_json((node, answer): &(NodeId, Result<Overview, String>)) -> Value {
    match answer {
        Err(why) => json!({ "id": node.0, "up": false, "error": why }),
        Ok(overview) => json!({
            "id": node.0,
            "up": true,
            "state": overview.state,
            "term": overview.term,
            "applied_index": overview.applied_index,
            "read_only": overview.is_read_only,
        }),
    }
}

fn node_json((node, answer): &(MapNode, Result<NodeStatus, String>)) -> Value {
    let mut value = json!({
        "id": node.node.0,
        "address": node.dial,
        "draining": node.state == MapState::Draining,
        "up": answer.is_ok(),
    });
    match answer {
        Err(why) => value["error"] = json!(why),
        Ok(status) => {
            value["shards"] = json!(status.shard_count);
            value["live_bytes"] = json!(status.live_bytes);
            value["free_bytes"] = json!(status.free_bytes);
            value["total_bytes"] = json!(status.total_bytes);
        }
    }
    value
}

/// The map: who takes shards, and what is due to each.
///
/// # Errors
/// There is none.
pub(super) fn ring(status: &Status) -> Result<String> {
    let map = status.map().context("no db node answers, or the cluster has no map yet")?;
    let active = |node: &&MapNode| node.state == MapState::Active;
    let weight_sum: u64 = map.nodes.iter().filter(active).map(|node| u64::from(node.weight)).sum();
    let mut text = format!("epoch {}, rs({},{})\n", map.epoch, map.data_count, map.parity_count);
    let _ = writeln!(text, "{:<6}{:<10}{:>7}{:>8}  {:<20} zone", "node", "state", "weight", "share", "host");
    for node in &map.nodes {
        let (state, share) = match node.state {
            MapState::Active => ("active", 100.0 * f64::from(node.weight) / weight_sum.max(1) as f64),
            MapState::Draining => ("draining", 0.0),
        };
        let MapNode { node: id, weight, host, zone, .. } = node;
        let line = format!("{:<6}{state:<10}{weight:>7}{share:>7.1}%  {host:<20} {zone}", id.to_string());
        let _ = writeln!(text, "{}", line.trim_end());
    }
    Ok(text)
}
