//! Finding what is missing or damaged without anybody reading it: the recount compares what the catalog names with what
//! each shard node has; the scrub has each node read what it has.
//!
//! Both only mark chunks: repair looks again before it does anything. So a shard that came after its node was listed, and
//! is marked for nothing, costs a look.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::catalog::{Command, Place};
use crate::env::Timestamp;
use crate::ids::{Ino, NodeId, ShardId};
use crate::shard::wire::Bookmark;
use crate::units::MIB;

use super::bucket::done;
use super::striped::{self, Striper};
use super::{Error, Store};

/// Shards of one page of a node's list.
const LIST_COUNT: u32 = 10_000;
/// What one call has a node read: at a call every other second nobody notices.
const SCRUB_BYTES: u64 = 8 * MIB;

/// Between two notes of where the scrub of a node is: whoever leads next reads so much again.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);

/// Where the scrub is on each node. Each node keeps it, for who leads next.
#[derive(Default)]
pub(super) struct ScrubCursors {
    nodes: BTreeMap<NodeId, Cursor>,
    /// When somebody asked for it last; 0: never.
    asked: Timestamp,
}

impl ScrubCursors {
    /// No node rests, and a pass that is under way begins at its beginning: of nodes that are away once they are back.
    pub(super) fn begin_anew(&mut self, now: Timestamp) {
        self.asked = now;
        for cursor in self.nodes.values_mut() {
            cursor.at = Bookmark::default();
        }
    }
}

struct Cursor {
    at: Bookmark,
    /// When the node was told.
    noted: Duration,
}

/// Where a node begins whose bookmark says `at`.
fn begins(at: Bookmark, asked: Timestamp) -> Bookmark {
    if at.ended < asked { Bookmark::default() } else { at }
}

/// Whether a pass is over and the next is not due yet. A clock that was set back begins it at once.
fn rests(at: Bookmark, now: Timestamp, interval: Duration) -> bool {
    let passed_ns = u128::try_from(i128::from(now.0) - i128::from(at.ended.0));
    at.after.is_none() && passed_ns.is_ok_and(|passed_ns| passed_ns < interval.as_nanos())
}

/// Why a node was not scrubbed.
enum ScrubError {
    Node(striped::Error),
    Catalog(Error),
}

impl From<striped::Error> for ScrubError {
    fn from(error: striped::Error) -> Self {
        ScrubError::Node(error)
    }
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

    /// Has all that is stored read and verified from now on, whenever that was done last. In a cluster the leader sees to it.
    ///
    /// # Errors
    /// `Invalid`: another process leads.
    pub fn scrub_soon(&self) -> Result<(), Error> {
        if self.chunks.striper().is_some() && !self.ledger.leads() {
            let why = "another box leads, and it has the others read: ask there; `cluster status` says which";
            return Err(Error::Invalid(why.to_owned()));
        }
        self.scrub_due.notify_one();
        Ok(())
    }

    /// Has every node that answers read a little more of what it has. Marks the chunks that damage was found in.
    ///
    /// # Errors
    /// `Unavailable`: the catalog.
    pub(super) async fn scrub_a_little(&self, cursors: &mut ScrubCursors) -> Result<(), Error> {
        let Some(striper) = self.chunks.striper() else { return Ok(()) };
        for node in striper.nodes().into_iter().filter(|node| striper.is_up(*node)) {
            match self.scrub_node(striper, node, cursors).await {
                Ok(()) => {}
                Err(ScrubError::Node(error)) => tracing::debug!(%node, %error, "a node was not scrubbed"),
                Err(ScrubError::Catalog(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Has a node read a little more. Where it is to begin, if that is not known here, it is asked.
    async fn scrub_node(&self, striper: &Striper, node: NodeId, cursors: &mut ScrubCursors) -> Result<(), ScrubError> {
        let now = self.env.clock.monotonic();
        let asked = cursors.asked;
        let cursor = match cursors.nodes.entry(node) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let at = begins(striper.bookmark(node).await?, asked);
                unknown.insert(Cursor { at, noted: now })
            }
        };
        if rests(cursor.at, self.now(), self.config.scrub_interval) {
            return Ok(());
        }
        let scrubbed = striper.scrub(node, cursor.at.after, SCRUB_BYTES).await?;
        if !scrubbed.damaged.is_empty() {
            tracing::warn!(%node, count = scrubbed.damaged.len(), "the scrub found damaged shards");
            let chunks = scrubbed.damaged.iter().map(|listed| listed.origin.chunk).collect();
            self.mark(chunks, true).await.map_err(ScrubError::Catalog)?;
        }
        cursor.at.after = scrubbed.next;
        if scrubbed.next.is_none() {
            self.progress.scrubbed();
            cursor.at.ended = self.now();
        }
        if scrubbed.next.is_none() || now.saturating_sub(cursor.noted) >= NOTE_INTERVAL {
            striper.note(node, cursor.at).await?;
            cursor.noted = now;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_comes_late_is_read_as_was_asked() {
        let at = |after: Option<u64>, ended| Bookmark { after: after.map(ShardId), ended: Timestamp(ended) };
        for bookmark in [at(None, 7), at(Some(3), 7)] {
            assert_eq!(begins(bookmark, Timestamp(0)), bookmark, "nobody has asked");
            assert_eq!(begins(bookmark, Timestamp(7)), bookmark, "it was read since");
            assert_eq!(begins(bookmark, Timestamp(8)), Bookmark::default());
        }
    }

    #[test]
    fn a_pass_begins_when_the_one_before_ended_long_enough_ago() {
        let (day, at) = (Duration::from_secs(86_400), Timestamp::from_seconds);
        let ended = |after: Option<u64>, seconds| Bookmark { after: after.map(ShardId), ended: at(seconds) };
        assert!(!rests(Bookmark::default(), at(1_800_000_000), day), "there was none");
        assert!(rests(ended(None, 1000), at(1000), day) && rests(ended(None, 1000), at(1000 + 86_399), day));
        assert!(!rests(ended(None, 1000), at(1000 + 86_400), day));
        assert!(!rests(ended(Some(3), 1000), at(1001), day), "one was left in its midst");
        assert!(!rests(ended(None, 1000), at(999), day), "the clock was set back");
    }
}
