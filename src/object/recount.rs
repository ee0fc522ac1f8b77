//! Finding what is missing or damaged without anybody reading it: the recount compares what the catalog names with what
//! each shard node has; the scrub has each node read what it has.
//!
//! Both only mark chunks: repair looks again before it does anything. So a shard that came after its node was listed, and
//! is marked for nothing, costs a look.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::catalog::Command;
use crate::ids::{Ino, NodeId, ShardId};
use crate::units::MIB;

use super::bucket::done;
use super::{Error, Store};

/// Shards of one page of a node's list.
const LIST_COUNT: u32 = 10_000;
/// Chunks of one query.
const PAGE_COUNT: usize = 1000;
/// What one call has a node read: at a call every other second nobody notices.
const SCRUB_BYTES: u64 = 8 * MIB;

/// From the end of a pass over a node to the next.
const SCRUB_REST: Duration = Duration::from_secs(24 * 3600);

/// Where the scrub is on each node. A new leader begins anew.
#[derive(Default)]
pub(super) struct ScrubCursors(BTreeMap<NodeId, Cursor>);

#[derive(Default)]
struct Cursor {
    /// None: at the beginning.
    after: Option<ShardId>,
    /// When the next pass may begin.
    rests_until: Duration,
}

impl Store {
    /// Compares the catalog with what the nodes have that answer; marks chunks of which a shard is missing. How many.
    ///
    /// # Errors
    /// `Catalog`, `Unavailable`: the catalog.
    pub(super) async fn recount(&self) -> Result<u64, Error> {
        let there = self.list_all().await;
        let (mut marked_count, mut after) = (0, None);
        loop {
            let page = self.ledger.readers().read(move |view| view.places(after, PAGE_COUNT)).await?;
            let Some((last, _)) = page.last() else { return Ok(marked_count) };
            after = Some(*last);
            let is_missing = |(node, shard): &(NodeId, ShardId)| {
                *shard != ShardId(0) && there.get(node).is_some_and(|shards| !shards.contains(shard))
            };
            let chunks: Vec<Ino> = (page.iter())
                .filter(|(_, place)| place.layout.shards().iter().any(is_missing))
                .map(|(chunk, _)| *chunk)
                .collect();
            marked_count += chunks.len() as u64;
            self.mark(chunks).await?;
        }
    }

    /// All shards of each node that can be listed.
    async fn list_all(&self) -> HashMap<NodeId, HashSet<ShardId>> {
        let mut there = HashMap::new();
        let Some(striper) = self.chunks.striper() else { return there };
        for node in striper.nodes().into_iter().filter(|node| striper.is_up(*node)) {
            let (mut shards, mut after) = (HashSet::new(), None);
            loop {
                match striper.list(node, after, LIST_COUNT).await {
                    Ok(page) if page.is_empty() => {
                        there.insert(node, shards);
                        break;
                    }
                    Ok(page) => {
                        after = page.last().map(|listed| listed.shard);
                        shards.extend(page.into_iter().map(|listed| listed.shard));
                    }
                    Err(error) => {
                        tracing::info!(%node, %error, "a node was not counted");
                        break;
                    }
                }
            }
        }
        there
    }

    /// Has every node that answers read a little more of what it has. Marks the chunks that damage was found in.
    ///
    /// # Errors
    /// `Unavailable`: the catalog.
    pub(super) async fn scrub_a_little(&self, cursors: &mut ScrubCursors) -> Result<(), Error> {
        let Some(striper) = self.chunks.striper() else { return Ok(()) };
        for node in striper.nodes().into_iter().filter(|node| striper.is_up(*node)) {
            let (cursor, now) = (cursors.0.entry(node).or_default(), self.env.clock.monotonic());
            if now < cursor.rests_until {
                continue;
            }
            let scrubbed = match striper.scrub(node, cursor.after, SCRUB_BYTES).await {
                Ok(scrubbed) => scrubbed,
                Err(error) => {
                    tracing::debug!(%node, %error, "a node was not scrubbed");
                    continue;
                }
            };
            let rest = if scrubbed.next.is_none() { SCRUB_REST } else { Duration::ZERO };
            *cursor = Cursor { after: scrubbed.next, rests_until: now + rest };
            if !scrubbed.damaged.is_empty() {
                tracing::warn!(%node, count = scrubbed.damaged.len(), "the scrub found damaged shards");
                self.mark(scrubbed.damaged.iter().map(|listed| listed.origin.chunk).collect()).await?;
            }
        }
        Ok(())
    }

    async fn mark(&self, chunks: Vec<Ino>) -> Result<(), Error> {
        match chunks.is_empty() {
            true => Ok(()),
            false => done(self.session.propose_repeatable(Command::MarkRepair { chunks }).await?),
        }
    }
}
