//! The mover: brings shards to where the cluster's map wants them.
//!
//! Invariants
//! - A shard is read, verified, and durable in its new home before its chunk's place names it there; only then is the old
//!   one deleted, by reclaim.
//! - It moves what is there and leaves what is missing to repair, whose marks stay as they were.

use std::collections::HashSet;

use crate::catalog::{Due, Layout, Place};
use crate::cluster::moves::{Chunk, Move, plan};
use crate::cluster::repair::Found;
use crate::erasure::Scheme;
use crate::ids::{Ino, NodeId, ShardId};

use super::repair::Repaired;
use super::striped::{Map, Striper};
use super::{Error, Store};

/// Chunks of one query, and of one mark.
const PAGE_COUNT: usize = 1000;

/// What a round of the mover did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MoveReport {
    /// Chunks that lie where they should be now.
    pub moved_count: u64,
    /// Chunks that repair is to lay out otherwise.
    pub marked_count: u64,
    /// Chunks that have to wait, for nodes or for repair.
    pub waiting_count: u64,
    /// Chunks that were not moved, to be tried again.
    pub failed_count: u64,
}

impl Store {
    /// Goes through all chunks once, and moves what lies elsewhere than the map wants. Ends early when the map changes or
    /// this process does not lead any more.
    ///
    /// # Errors
    /// `Catalog`, `Unavailable`: the catalog.
    pub(super) async fn rebalance(&self) -> Result<MoveReport, Error> {
        let Some(striper) = self.chunks.striper() else { return Ok(MoveReport::default()) };
        let map = striper.map();
        let (mut report, mut misplaced_count, mut after) = (MoveReport::default(), 0, None);
        while let Some(page) = self.next_places(&mut after).await? {
            misplaced_count +=
                page.iter().filter(|(id, place)| move_of(striper, &map, *id, place) != Move::Stay).count();
        }
        self.progress.to_move(misplaced_count as u64);
        if misplaced_count > 0 {
            after = None;
            while let Some(page) = self.next_places(&mut after).await?
                && self.move_page(striper, &map, page, &mut report).await?
            {}
            self.progress.to_move(report.waiting_count + report.failed_count);
        }
        Ok(report)
    }

    /// Chunks and where they are, with ids above `after`, which becomes the last of them; none: there are no more.
    ///
    /// # Errors
    /// `Catalog`.
    pub(super) async fn next_places(&self, after: &mut Option<Ino>) -> Result<Option<Vec<(Ino, Place)>>, Error> {
        let from = *after;
        let page = self.ledger.readers().read(move |view| view.places(from, PAGE_COUNT)).await?;
        *after = page.last().map(|(chunk, _)| *chunk).or(from);
        Ok(Some(page).filter(|page| !page.is_empty()))
    }

    /// Whether to go on.
    async fn move_page(
        &self,
        striper: &Striper,
        map: &Map,
        page: Vec<(Ino, Place)>,
        report: &mut MoveReport,
    ) -> Result<bool, Error> {
        let mut to_rewrite = Vec::new();
        for (chunk, place) in page {
            if !self.ledger.leads() || striper.map().ring.epoch() != map.ring.epoch() {
                return Ok(false);
            }
            match move_of(striper, map, chunk, &place) {
                Move::Stay => {}
                Move::Wait => report.waiting_count += 1,
                Move::Rewrite => to_rewrite.push(chunk),
                Move::Copy { homes, is_stuck } => {
                    let began = self.env.clock.monotonic();
                    match self.move_one(striper, chunk, &place, &homes).await {
                        Ok(true) if !is_stuck => {
                            self.progress.moved(self.env.clock.monotonic());
                            report.moved_count += 1;
                        }
                        Ok(_) => report.waiting_count += 1,
                        Err(error) => {
                            tracing::info!(%chunk, %error, "a chunk was not moved; it is tried again");
                            report.failed_count += 1;
                        }
                    }
                    self.rest_since(began).await;
                }
            }
        }
        report.marked_count += to_rewrite.len() as u64;
        self.mark(to_rewrite, false).await?;
        Ok(true)
    }

    /// Whether all of it was moved; else something is missing, or it was changed meanwhile.
    async fn move_one(
        &self,
        striper: &Striper,
        chunk: Ino,
        place: &Place,
        homes: &[(usize, NodeId)],
    ) -> Result<bool, Error> {
        let mut found = striper.look(chunk, place, &HashSet::new()).await?;
        let is_named = |index: usize| place.layout.shards()[index].1 != ShardId(0);
        // Away is what was on a node that has left the cluster.
        let is_gone = |index: usize| matches!(found[index].1, Found::Lost | Found::Away) && is_named(index);
        if (0..found.len()).any(is_gone) {
            self.mark(vec![chunk], false).await?;
        }
        if homes.iter().any(|(index, _)| found[*index].1 != Found::There) {
            return Ok(false);
        }
        let (to, ids) = self.make_shards(striper, (chunk, place), &mut found, homes).await?;
        let is_all = homes.iter().all(|(index, node)| to.layout.shards()[*index].0 == *node);
        let swapped = self.swap((chunk, place), to, (Due::AsBefore, false), ids).await?;
        Ok(is_all && matches!(swapped, Repaired::Whole))
    }
}

fn move_of(striper: &Striper, map: &Map, id: Ino, place: &Place) -> Move {
    let Layout::Rs { data_count, parity_count, shards, .. } = &place.layout else { return Move::Rewrite };
    let Ok(scheme) = Scheme::new(*data_count, *parity_count) else { return Move::Wait };
    let node = |(node, shard): &(NodeId, ShardId)| (*shard != ShardId(0)).then_some(*node);
    let nodes: Vec<Option<NodeId>> = shards.iter().map(node).collect();
    plan(&Chunk { id, scheme, nodes: &nodes }, map.scheme, &map.ring, |node| striper.takes_shards(node))
}
