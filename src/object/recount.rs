//! Finding what is missing or damaged without anybody reading it: the recount compares what the catalog names with what
//! each shard node has; the scrub has each node read what it has.
//!
//! Both only mark chunks: repair looks again before it does anything. So a shard that came after its node was listed, and
//! is marked for nothing, costs a look.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::catalog::{Command, Place};
use crate::ids::{Ino, NodeId, ShardId};
use crate::units::MIB;

use super::bucket::done;
use super::striped::Striper;
use super::{Error, Store};

/// Shards of one page of a node's list.
const LIST_COUNT: u32 = 10_000;
/// What one call has a node read: at a call every other second nobody notices.
const SCRUB_BYTES: u64 = 8 * MIB;

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
    /// Compares the catalog with what each node has; marks chunks of which a shard is missing. How many, and whether that was
    /// all: nodes of `away` have nothing; others that do not answer are left out. Holds 8 bytes for each shard of a node.
    ///
    /// # Errors
    /// `Catalog`. `Unavailable`: the catalog, or a node that is up and could not be listed.
    pub(super) async fn recount(&self, away: &HashSet<NodeId>) -> Result<(u64, bool), Error> {
        let (mut marked_count, mut is_complete) = (0, true);
        let Some(striper) = self.chunks.striper() else { return Ok((0, true)) };
        for node in striper.nodes() {
            if away.contains(&node) {
                marked_count += self.mark_missing(node, &[]).await?;
            } else if striper.is_up(node) {
                marked_count += self.mark_missing(node, &self.list_all(striper, node).await?).await?;
            } else {
                is_complete = false;
            }
        }
        marked_count += self.mark_elsewhere(&striper.nodes().into_iter().collect()).await?;
        Ok((marked_count, is_complete))
    }

    /// Marks the chunks that have a shard on a node that has left: written under a map of before, and named late.
    async fn mark_elsewhere(&self, members: &HashSet<NodeId>) -> Result<u64, Error> {
        let has_left = |(at, shard): &(NodeId, ShardId)| *shard != ShardId(0) && !members.contains(at);
        self.mark_where(|place| place.layout.shards().iter().any(has_left)).await
    }

    /// All shards of a node, ascending.
    async fn list_all(&self, striper: &Striper, node: NodeId) -> Result<Vec<ShardId>, Error> {
        let mut shards: Vec<ShardId> = Vec::new();
        loop {
            let page = striper.list(node, shards.last().copied(), LIST_COUNT).await?;
            if page.is_empty() {
                return Ok(shards);
            }
            shards.extend(page.into_iter().map(|listed| listed.shard));
        }
    }

    /// Marks the chunks that should have a shard on `node` and have none among `there`, ascending.
    async fn mark_missing(&self, node: NodeId, there: &[ShardId]) -> Result<u64, Error> {
        let is_missing = |(at, shard): &(NodeId, ShardId)| {
            *at == node && *shard != ShardId(0) && there.binary_search(shard).is_err()
        };
        self.mark_where(|place| place.layout.shards().iter().any(is_missing)).await
    }

    async fn mark_where(&self, is_due: impl Fn(&Place) -> bool) -> Result<u64, Error> {
        let (mut marked_count, mut after) = (0, None);
        while let Some(page) = self.next_places(&mut after).await? {
            let due = page.iter().filter(|(_, place)| is_due(place));
            let chunks: Vec<Ino> = due.map(|(chunk, _)| *chunk).collect();
            marked_count += chunks.len() as u64;
            self.mark(chunks, false).await?;
        }
        Ok(marked_count)
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
            let rest = if scrubbed.next.is_none() { self.config.scrub_interval } else { Duration::ZERO };
            if !scrubbed.damaged.is_empty() {
                tracing::warn!(%node, count = scrubbed.damaged.len(), "the scrub found damaged shards");
                self.mark(scrubbed.damaged.iter().map(|listed| listed.origin.chunk).collect(), true).await?;
            }
            if scrubbed.next.is_none() {
                self.progress.scrubbed();
            }
            *cursor = Cursor { after: scrubbed.next, rests_until: now + rest };
        }
        Ok(())
    }

    /// Has chunks repaired. `damaged`: damage was seen in them.
    pub(super) async fn mark(&self, chunks: Vec<Ino>, damaged: bool) -> Result<(), Error> {
        match chunks.is_empty() {
            true => Ok(()),
            false => done(self.session.propose_repeatable(Command::MarkRepair { chunks, damaged }).await?),
        }
    }
}
