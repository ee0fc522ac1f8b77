//! The cluster's map.
//!
//! Invariant: there is at most one, and each has a later epoch than the one before it.

use rusqlite::params;

use crate::catalog::{Map, MapNode, Outcome, Refusal};

use super::{Decision, Step, bound, sql, unsql};

/// The most nodes of a map.
const NODE_COUNT_MAX: usize = 1024;
/// The longest name of a host or a zone.
const NAME_MAX_BYTES: usize = 255;

impl Step<'_> {
    pub(super) fn set_map(&mut self, from_epoch: u64, map: &Map) -> Decision<Outcome> {
        check_map(from_epoch, map)?;
        let found = self.find("SELECT epoch FROM map", [], |row| row.get(0))?;
        let epoch = found.map_or(0, unsql);
        if epoch != from_epoch {
            return Err(Refusal::MapChanged { epoch }.into());
        }
        self.run("DELETE FROM map", [])?;
        self.run("INSERT INTO map(epoch, value) VALUES(?, ?)", params![sql(map.epoch), map.encode()])?;
        Ok(Outcome::Done)
    }
}

fn check_map(from_epoch: u64, map: &Map) -> Result<(), Refusal> {
    let ascends = map.nodes.is_sorted_by(|left, right| left.node < right.node);
    let is_named = |node: &MapNode| node.host.len().max(node.zone.len()).max(node.dial.len()) <= NAME_MAX_BYTES;
    let is_late = from_epoch < map.epoch && i64::try_from(map.epoch).is_ok();
    bound(is_late, "a map's epoch is later than that of the one before")?;
    bound(map.data_count > 0 && map.data_count.checked_add(map.parity_count).is_some(), "1 to 255 shards a chunk")?;
    bound(map.nodes.len() <= NODE_COUNT_MAX && ascends, "at most 1,024 nodes a map, in the order of their ids")?;
    bound(map.nodes.iter().all(is_named), "a host, a zone or an address has at most 255 bytes")
}
