//! The sweep of shard nodes: finds shards that nothing accounts for, left by a crash between bytes and command, by a
//! write that came too late, or by a node that forgot a deletion.
//!
//! Invariants
//! - A node is listed first, the catalog is read afterwards and linearizably: what is named when it is looked at is
//!   never taken for a stray, and what a live session leases is not one either.
//! - A stray is removed only if it was one in an earlier look too, a grace ago, as this process measures it: until then it
//!   stays where it is, whole.
//! - An error anywhere in the scan of a node means that nothing of it is removed.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::ids::{Ino, NodeId, ShardId};

use super::{Error, Store};

/// Shards of one page of a node's list, and of one query.
const PAGE_COUNT: u32 = 1000;
/// Strays that are remembered; more are found in a later sweep.
const STRAY_COUNT_MAX: usize = 100_000;

/// Since when each stray is known.
#[derive(Default)]
pub(super) struct Strays(Mutex<HashMap<(NodeId, ShardId), Duration>>);

impl Store {
    /// Sweeps every shard node that answers, once: strays seen for the first time are noted, those noted longer than
    /// `grace` ago are removed. Returns how many were noted, and removed.
    ///
    /// # Errors
    /// `Catalog(Inconsistent)`: there are ids that the catalog never gave out; it may be older than the shards. Nothing
    /// was removed from that node then.
    pub async fn sweep_shards(&self, grace: Duration) -> Result<(u64, u64), Error> {
        let Some(striper) = self.chunks.striper() else { return Ok((0, 0)) };
        let (mut noted_count, mut removed_count) = (0, 0);
        for node in striper.nodes().into_iter().filter(|node| striper.is_up(*node)) {
            match self.strays_of(node).await {
                Ok(strays) => {
                    let old = self.note(node, &strays, grace);
                    noted_count += strays.len() as u64;
                    removed_count += self.remove_strays(node, &old).await;
                }
                Err(Error::Unavailable(why)) => tracing::info!(%node, why, "a node was not swept"),
                Err(error) => return Err(error),
            }
        }
        Ok((noted_count, removed_count))
    }

    /// All strays of a node.
    async fn strays_of(&self, node: NodeId) -> Result<Vec<ShardId>, Error> {
        let (mut strays, mut after) = (Vec::new(), None);
        loop {
            let page = self.list_shards(node, after).await?;
            let Some((last, _)) = page.last() else { return Ok(strays) };
            after = Some(*last);
            strays.extend(self.snapshot(move |view| Ok(view.orphan_shards(node, &page)?)).await?);
        }
    }

    async fn list_shards(&self, node: NodeId, after: Option<ShardId>) -> Result<Vec<(ShardId, Ino)>, Error> {
        let Some(striper) = self.chunks.striper() else { return Ok(Vec::new()) };
        let listed = striper.list(node, after, PAGE_COUNT).await?;
        Ok(listed.into_iter().map(|listed| (listed.shard, listed.origin.chunk)).collect())
    }

    /// Notes a node's strays, forgets those that are none any more, and returns the old ones.
    fn note(&self, node: NodeId, strays: &[ShardId], grace: Duration) -> Vec<ShardId> {
        let mut known = self.strays.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current: HashSet<_> = strays.iter().collect();
        known.retain(|(other, shard), _| *other != node || current.contains(shard));
        let now = self.env.clock.monotonic();
        let mut old = Vec::new();
        for shard in strays {
            if known.len() >= STRAY_COUNT_MAX && !known.contains_key(&(node, *shard)) {
                break;
            }
            let since = *known.entry((node, *shard)).or_insert(now);
            if now.saturating_sub(since) >= grace {
                old.push(*shard);
            }
        }
        old
    }

    async fn remove_strays(&self, node: NodeId, strays: &[ShardId]) -> u64 {
        let Some(striper) = self.chunks.striper() else { return 0 };
        let shards: Vec<_> = strays.iter().map(|shard| (node, *shard)).collect();
        let gone_count = striper.remove(&shards).await.len() as u64;
        if gone_count > 0 {
            tracing::info!(%node, count = gone_count, "removed shards that nothing names");
        }
        gone_count
    }
}
