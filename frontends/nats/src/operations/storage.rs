//! What the store is made of, for a control plane that asks on the bus: how chunks are cut, who the nodes are, which
//! buckets there are.

use predastore::catalog::{Map, MapState};
use serde_json::{Value, json};

use super::list::Page;
use super::{Request, fields};
use crate::answer::{Answer, Refusal};
use crate::input;
use crate::serve::DbNode;

/// Buckets that are told at most.
const BUCKETS_MAX_COUNT: usize = 10_000;

/// spinifex.storage.config. A box keeps an object whole on itself: one data shard, no parity, and no nodes. Buckets that do
/// not fit into a message are left out, and that is said.
pub(super) async fn config(request: &Request<'_>) -> Result<Answer, Refusal> {
    let _: input::Nothing = request.parse()?;
    request.may("", "")?;
    let service = request.service;
    let mut page = Page::new(request, BUCKETS_MAX_COUNT).await?;
    let map = service.store.map().await?;
    let buckets = service.store.buckets(None, BUCKETS_MAX_COUNT).await?;
    for bucket in buckets.iter().filter(|bucket| request.rights.sees(bucket)) {
        if !page.push(json!({ "name": bucket.name, "type": service.backend, "region": bucket.region })) {
            break;
        }
    }
    let (data, parity) = map.as_ref().map_or((1, 0), |map| (map.data_count, map.parity_count));
    let mut answer = fields([
        ("encoding", json!({ "data_shards": data, "parity_shards": parity })),
        ("db_nodes", service.db_nodes.iter().map(|DbNode { id, dial }| node(*id, dial)).collect()),
        ("shard_nodes", map.as_ref().map(shard_nodes).unwrap_or_default().into()),
        ("buckets", json!(page.shown)),
    ]);
    if page.is_cut {
        answer.insert("buckets_truncated".to_owned(), json!(true));
    }
    Ok(page.answer(&answer))
}

/// Those that take shards.
fn shard_nodes(map: &Map) -> Vec<Value> {
    let taking = map.nodes.iter().filter(|node| node.state == MapState::Active);
    taking.map(|at| node(at.node.0, &at.dial)).collect()
}

fn node(id: u64, dial: &str) -> Value {
    let (host, port) = dial.rsplit_once(':').unwrap_or((dial, ""));
    json!({ "id": id, "host": host.trim_matches(['[', ']']), "port": port.parse::<u16>().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_as_it_is_dialled() {
        assert_eq!(node(3, "10.0.0.7:6660"), json!({ "id": 3, "host": "10.0.0.7", "port": 6660 }));
        assert_eq!(node(3, "[fd00::7]:1"), json!({ "id": 3, "host": "fd00::7", "port": 1 }));
    }
}
