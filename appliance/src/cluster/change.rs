//! Changes of the map: first what they cost, then, if that is wanted, they themselves.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use predastore::catalog::{Map, MapNode};
use predastore::cluster::map::{Change, changed, cost};
use predastore::ids::NodeId;
use predastore::placement::{Cost, NodeCost};
use predastore::shard::wire::NodeStatus;

use super::Operator;
use super::show::bytes;
use super::status::Status;

/// A node that would be this full gets a warning.
const FULL_PERCENT: u64 = 90;

impl Operator {
    pub(super) async fn add_node(&self, node: NodeId, yes: bool) -> Result<String> {
        let node = self.newcomer(node).await?;
        self.change(&Change::Add(node), yes).await
    }

    pub(super) async fn drain(&self, node: NodeId, yes: bool) -> Result<String> {
        self.change(&Change::Drain(node), yes).await
    }

    pub(super) async fn replace(&self, old: NodeId, new: NodeId, yes: bool) -> Result<String> {
        let new = self.newcomer(new).await?;
        self.change(&Change::Replace(old, new), yes).await
    }

    pub(super) async fn remove_node(&self, node: NodeId, yes: bool) -> Result<String> {
        let leader = self.leader().await?;
        let count = self.console.chunk_count_on(leader.node, node).await?;
        ensure!(count == 0, "{count} chunks have a shard on node {node}: wait until it is drained");
        self.change(&Change::Remove(node), yes).await
    }

    /// A node of the configuration, which runs: what goes wrong with it should go wrong now.
    async fn newcomer(&self, id: NodeId) -> Result<MapNode> {
        let known = self.configured.map().nodes.into_iter().find(|node| node.node == id);
        let node = known.with_context(|| format!("[[nodes]] has no id {id}"))?;
        self.console.shard_node(id, &node.dial).await.with_context(|| format!("node {id} at {}", node.dial))?;
        Ok(node)
    }

    async fn change(&self, change: &Change, yes: bool) -> Result<String> {
        let status = self.look().await;
        let leader = status.leader().context("no db node leads: try again")?;
        let map = leader.map.as_ref().context("the cluster has no map yet")?;
        let next = changed(map, change)?;
        let mut fills = fills(&status);
        for node in newcomers(map, &next) {
            if let Ok(status) = self.console.shard_node(node.node, &node.dial).await {
                fills.push((node.node, status));
            }
        }
        let price = price(map, &next, &fills)?;
        if !yes {
            return Ok(price + "nothing was changed; with --yes it is\n");
        }
        self.console.set_map(leader.node, map.epoch, next).await?;
        Ok(price + "changed; `s3d cluster status` tells how far it is\n")
    }
}

/// Who is in no status yet. Whoever only stays or goes is there already, and would be counted twice.
pub(super) fn newcomers<'a>(map: &'a Map, next: &'a Map) -> impl Iterator<Item = &'a MapNode> {
    next.nodes.iter().filter(|node| map.nodes.iter().all(|known| known.node != node.node))
}

fn fills(status: &Status) -> Vec<(NodeId, NodeStatus)> {
    status.nodes.iter().filter_map(|(node, answer)| Some((node.node, answer.clone().ok()?))).collect()
}

/// What goes where, for people. `fills`: how the nodes stand that answer.
pub(super) fn price(map: &Map, next: &Map, fills: &[(NodeId, NodeStatus)]) -> Result<String> {
    let live_bytes: u64 = fills.iter().map(|(_, status)| status.live_bytes).sum();
    let Some(cost) = cost(map, next)? else {
        return Ok(format!("all chunks are written again: {} of shards\n", bytes(live_bytes)));
    };
    let mut text = format!(
        "epoch {} to {}: {:.1}% of all shards move, about {}\n",
        map.epoch,
        next.epoch,
        100.0 * cost.moved_fraction(),
        bytes((live_bytes as f64 * cost.moved_fraction()) as u64)
    );
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{:<6}{:>10}{:>10}{:>10}{:>10}{:>7}", "node", "now", "comes", "goes", "then", "full");
    for node in &cost.nodes {
        let fill = fills.iter().find(|(id, _)| *id == node.node).map(|(_, status)| status);
        let _ = writeln!(text, "{}", line(&cost, node, live_bytes, fill));
    }
    Ok(text)
}

fn line(cost: &Cost, node: &NodeCost, live_bytes: u64, fill: Option<&NodeStatus>) -> String {
    let share = |count: u64| (live_bytes as f64 * count as f64 / cost.placed_count.max(1) as f64) as u64;
    let (comes, goes, then) = (share(node.gained_count), share(node.lost_count), share(node.after_count));
    let now = fill.map_or(share(node.before_count), |fill| fill.live_bytes);
    let full = fill.filter(|fill| fill.total_bytes > 0).map(|fill| {
        let used = fill.total_bytes.saturating_sub(fill.free_bytes).saturating_sub(fill.live_bytes);
        used.saturating_add(then).saturating_mul(100) / fill.total_bytes
    });
    let id = node.node.to_string();
    let [now, comes, goes, then] = [now, comes, goes, then].map(bytes);
    let percent = full.map_or("?".to_owned(), |percent| format!("{percent}%"));
    let warning = if full.is_some_and(|percent| percent >= FULL_PERCENT) { "  too full" } else { "" };
    format!("{id:<6}{now:>10}{comes:>10}{goes:>10}{then:>10}{percent:>7}{warning}")
}
