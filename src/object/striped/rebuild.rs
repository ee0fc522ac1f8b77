//! Making shards of a chunk anew, because they are lost or to lie elsewhere: looking what is there, and writing what is
//! wanted, stripe after stripe.
//!
//! Invariants
//! - It needs no key: frames are made of frames, byte for byte those that were lost, and verified.
//! - Every attempt has an id of its own. Only what is durable is named in the place that comes of it.
//! - Memory: the frames of [`BATCH_COUNT`] stripes, those that are read and those that are made; some 5 MiB of `rs(3,2)`.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use super::read::Rs;
use super::{Error, Striper, joined};
use crate::catalog::{Layout, Place};
use crate::cluster::repair::Found;
use crate::erasure::{Codec, Geometry};
use crate::ids::{Ino, NodeId, ShardId};
use crate::segment::{self, Frame, stripe};
use crate::shard::{ClientError, Origin, Sending};

/// Stripes that are read, made and sent at once.
const BATCH_COUNT: u32 = 8;

/// A shard on its way to its new home.
struct Home {
    shard_index: usize,
    node: NodeId,
    shard: ShardId,
    sending: Sending,
}

impl Home {
    async fn push(&mut self, frames: Vec<Bytes>, deadline: Duration) -> Result<(), ClientError> {
        match frames.is_empty() {
            true => Ok(()),
            false => self.sending.push(&frames, deadline).await,
        }
    }
}

impl Striper {
    /// How each shard of a chunk is found where it should be, by index. `away`: nodes that have not answered for long.
    ///
    /// # Errors
    /// `Corrupt`: the place cannot be.
    pub(crate) async fn look(
        &self,
        chunk: Ino,
        place: &Place,
        away: &HashSet<NodeId>,
    ) -> Result<Vec<(NodeId, Found)>, Error> {
        let rs = Rs::of(chunk, place)?;
        let look = |(index, (node, shard)): (usize, &(NodeId, ShardId))| {
            let frame_count = rs.geometry.frame_count(index) as usize;
            self.look_at(chunk, index, (*node, *shard), frame_count, away)
        };
        let found = join_all(rs.shards.iter().enumerate().map(look)).await;
        Ok(rs.shards.iter().map(|(node, _)| *node).zip(found).collect())
    }

    async fn look_at(
        &self,
        chunk: Ino,
        index: usize,
        (node, shard): (NodeId, ShardId),
        frame_count: usize,
        away: &HashSet<NodeId>,
    ) -> Found {
        if shard == ShardId(0) {
            return Found::Lost;
        }
        // Who has left the cluster is not waited for.
        let has_left = !self.map().ring.members().iter().any(|member| member.node == node);
        let unknown = if has_left || away.contains(&node) { Found::Away } else { Found::Unknown };
        if !self.health.is_up(node) {
            return unknown;
        }
        match self.client.info(node, shard, self.timing.call).await {
            Ok(info) => {
                let is_it = info.origin == Origin { chunk, slot: index as u32 } && info.frames.len() == frame_count;
                if is_it { Found::There } else { Found::Lost }
            }
            Err(ClientError::NotFound(_)) => Found::Lost,
            Err(error) => {
                tracing::debug!(%chunk, %node, %error, "a shard was not looked at");
                unknown
            }
        }
    }

    /// Reads every frame of the shards that were found, and finds those lost of which a frame is not what it should be.
    ///
    /// # Errors
    /// `Corrupt`: the place cannot be.
    pub(crate) async fn verify(&self, chunk: Ino, place: &Place, found: &mut [(NodeId, Found)]) -> Result<(), Error> {
        let rs = Rs::of(chunk, place)?;
        for (index, (node, found)) in found.iter_mut().enumerate().filter(|(_, (_, found))| *found == Found::There) {
            let (_, shard) = rs.shards[index];
            *found = self.verify_shard(chunk, index, (*node, shard), rs.geometry.frame_count(index)).await;
        }
        Ok(())
    }

    async fn verify_shard(
        &self,
        chunk: Ino,
        index: usize,
        (node, shard): (NodeId, ShardId),
        frame_count: u32,
    ) -> Found {
        for stripes in batches(frame_count) {
            match self.client.read(node, shard, stripes.clone(), self.timing.call).await {
                Ok((bytes, lens)) => {
                    if cut(bytes, &lens).zip(stripes).any(|(frame, stripe)| !is_frame(&frame, chunk, stripe, index)) {
                        tracing::warn!(%chunk, %node, %shard, "a frame is damaged");
                        return Found::Lost;
                    }
                }
                Err(error) => return found_by(&error),
            }
        }
        Found::There
    }

    /// Makes shards anew from those of `found` that are there: copies of themselves, if they are. `homes`: shard index, the node that gets it, a fresh id.
    /// The place with those that are durable now. Sources that are found to be damaged, or gone, become `Lost`.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`: too few of the others can be read. No new shard is left then, as well as that can be done.
    pub(crate) async fn rebuild(
        &self,
        chunk: Ino,
        place: &Place,
        found: &mut [(NodeId, Found)],
        homes: &[(usize, NodeId, ShardId)],
    ) -> Result<Place, Error> {
        let rs = Rs::of(chunk, place)?;
        let begin = |(shard_index, node, shard): &(usize, NodeId, ShardId)| {
            let origin = Origin { chunk, slot: *shard_index as u32 };
            let sending = self.client.send(*node, *shard, origin);
            Home { shard_index: *shard_index, node: *node, shard: *shard, sending }
        };
        let mut work = Work {
            striper: self,
            chunk,
            codec: self.codec(rs.geometry.scheme()),
            geometry: rs.geometry,
            shards: rs.shards,
            found: found.iter().map(|(_, found)| *found).collect(),
            homes: homes.iter().map(begin).collect(),
        };
        let ran = work.run().await;
        found.iter_mut().zip(&work.found).for_each(|((_, found), now)| *found = *now);
        let durable = ran?;
        Ok(with_shards(place, &durable))
    }
}

/// How a shard is found that could not be read.
fn found_by(error: &ClientError) -> Found {
    match error {
        ClientError::NotFound(_) | ClientError::Failed(_) => Found::Lost,
        _ => Found::Unknown,
    }
}

/// Runs of stripe indexes.
fn batches(count: u32) -> impl Iterator<Item = Range<u32>> {
    (0..count).step_by(BATCH_COUNT as usize).map(move |start| start..count.min(start + BATCH_COUNT))
}

fn cut(mut bytes: Bytes, lens: &[u32]) -> impl Iterator<Item = Bytes> {
    lens.iter().map(move |len| bytes.split_to(bytes.len().min(*len as usize)))
}

/// `shard_index`: of a layout, so less than 32.
fn is_frame(bytes: &[u8], chunk: Ino, stripe: u32, shard_index: usize) -> bool {
    Frame::verify(bytes, segment::Place { chunk, stripe, shard_index: shard_index as u8 }).is_ok()
}

/// `place` with other shards at some indexes.
fn with_shards(place: &Place, durable: &[(usize, NodeId, ShardId)]) -> Place {
    let mut place = place.clone();
    if let Layout::Rs { shards, .. } = &mut place.layout {
        for (index, node, shard) in durable {
            shards[*index] = (*node, *shard);
        }
    }
    place
}

/// A rebuild under way.
struct Work<'a> {
    striper: &'a Striper,
    chunk: Ino,
    codec: Codec,
    geometry: Geometry,
    shards: &'a [(NodeId, ShardId)],
    /// By shard index: `There` can be read.
    found: Vec<Found>,
    homes: Vec<Home>,
}

/// A batch's frames of one shard, by stripe; none where the shard has none.
type Column = Vec<Option<Bytes>>;

impl Work<'_> {
    async fn run(&mut self) -> Result<Vec<(usize, NodeId, ShardId)>, Error> {
        for stripes in batches(self.geometry.stripe_count()) {
            let outcome = self.batch(stripes).await;
            if outcome.is_err() || self.homes.is_empty() {
                self.give_up();
                outcome?;
                return Err(Error::Unavailable("no node took a shard".to_owned()));
            }
        }
        let deadline = self.striper.timing.call;
        let mut durable = Vec::new();
        for Home { shard_index, node, shard, sending } in std::mem::take(&mut self.homes) {
            let finished = match self.geometry.frame_count(shard_index) {
                // A shard that a narrow stripe does not reach, and nothing else: nothing was begun.
                0 => {
                    let origin = Origin { chunk: self.chunk, slot: shard_index as u32 };
                    self.striper.client.put(node, shard, origin, &[], deadline).await
                }
                _ => sending.finish(deadline).await,
            };
            match finished {
                Ok(()) => durable.push((shard_index, node, shard)),
                Err(error) => self.lose(node, shard, &error),
            }
        }
        match durable.is_empty() {
            true => Err(Error::Unavailable("no node took a shard".to_owned())),
            false => Ok(durable),
        }
    }

    async fn batch(&mut self, stripes: Range<u32>) -> Result<(), Error> {
        let columns = self.read(stripes.clone()).await?;
        let made = self.make(stripes, columns).await?;
        let deadline = self.striper.timing.call;
        let mut homes = std::mem::take(&mut self.homes);
        let pushes = homes.iter_mut().zip(made).map(|(home, frames)| home.push(frames, deadline));
        let results: Vec<_> = join_all(pushes).await;
        for (home, result) in homes.into_iter().zip(results) {
            match result {
                Ok(()) => self.homes.push(home),
                Err(error) => self.lose(home.node, home.shard, &error),
            }
        }
        Ok(())
    }

    /// Frames, all verified, by shard index: of the wanted shards themselves where they are there (they are copied then),
    /// else of k shards. Another shard is asked for one that does not give them.
    async fn read(&mut self, stripes: Range<u32>) -> Result<Vec<Option<Column>>, Error> {
        let needed_count = self.geometry.scheme().data_count();
        let mut columns: Vec<Option<Column>> = vec![None; self.shards.len()];
        let wanted: Vec<usize> = self.homes.iter().map(|home| home.shard_index).collect();
        loop {
            let is_there = |index: &usize| self.found[*index] == Found::There;
            let open = |index: &usize| is_there(index) && columns[*index].is_none();
            let missing_count = needed_count.saturating_sub(columns.iter().flatten().count());
            let is_copy = wanted.iter().all(is_there);
            let asked: Vec<usize> = match is_copy {
                true => wanted.iter().copied().filter(open).collect(),
                false => (0..self.shards.len()).filter(open).take(missing_count).collect(),
            };
            if missing_count == 0 || is_copy && asked.is_empty() {
                return Ok(columns);
            }
            if !is_copy && asked.len() < missing_count {
                return Err(Error::Unavailable(format!("too few shards of chunk {} can be read", self.chunk)));
            }
            let read = join_all(asked.iter().map(|index| self.column(*index, stripes.clone()))).await;
            for (index, column) in asked.into_iter().zip(read) {
                match column {
                    Ok(column) => columns[index] = Some(column),
                    Err(found) => self.found[index] = found,
                }
            }
        }
    }

    /// A shard's frames of these stripes; else how the shard is found.
    async fn column(&self, index: usize, stripes: Range<u32>) -> Result<Column, Found> {
        let (node, shard) = self.shards[index];
        let end = stripes.end.min(self.geometry.frame_count(index));
        let mut column: Column = Vec::new();
        if stripes.start < end {
            let asked = stripes.start..end;
            let read = self.striper.client.read(node, shard, asked.clone(), self.striper.timing.call).await;
            let (bytes, lens) = read.map_err(|error| {
                tracing::debug!(%error, "a source of a repair");
                found_by(&error)
            })?;
            column.extend(cut(bytes, &lens).map(Some));
            let mut frames = asked.zip(column.iter().flatten());
            if !frames.all(|(stripe, frame)| is_frame(frame, self.chunk, stripe, index)) {
                tracing::warn!(chunk = %self.chunk, %node, %shard, "a frame is damaged");
                return Err(Found::Lost);
            }
        }
        column.resize(stripes.len(), None);
        Ok(column)
    }

    /// The lost frames, home by home.
    async fn make(&self, stripes: Range<u32>, columns: Vec<Option<Column>>) -> Result<Vec<Vec<Bytes>>, Error> {
        let wanted: Vec<usize> = self.homes.iter().map(|home| home.shard_index).collect();
        let (chunk, codec, geometry) = (self.chunk, self.codec.clone(), self.geometry);
        let columns = Arc::new(columns);
        let job = tokio::task::spawn_blocking(move || {
            let mut made = vec![Vec::new(); wanted.len()];
            for (row, index) in stripes.enumerate() {
                let stripe = Stripe { chunk, geometry: &geometry, index, row, columns: &columns };
                stripe.make(&codec, &wanted, &mut made)?;
            }
            Ok::<_, segment::Error>(made)
        });
        let made = joined(job).await?;
        made.map_err(|error| Error::Corrupt { chunk, what: format!("its shards do not go together: {error}") })
    }

    /// A home that failed.
    fn lose(&self, node: NodeId, shard: ShardId, error: &ClientError) {
        tracing::info!(chunk = %self.chunk, %node, %error, "a shard was not made anew");
        self.striper.clean_up(node, shard);
    }

    fn give_up(&mut self) {
        for home in self.homes.drain(..) {
            self.striper.clean_up(home.node, home.shard);
        }
    }
}

/// One stripe of a batch.
struct Stripe<'a> {
    chunk: Ino,
    geometry: &'a Geometry,
    index: u32,
    row: usize,
    columns: &'a [Option<Column>],
}

impl Stripe<'_> {
    /// Appends the stripe's frames of `wanted`, copied or computed, to `made`; none where a shard has none.
    fn make(&self, codec: &Codec, wanted: &[usize], made: &mut [Vec<Bytes>]) -> Result<(), segment::Error> {
        let Some(cut) = self.geometry.stripe(self.index) else { return Ok(()) };
        let present: Vec<bool> =
            self.columns.iter().enumerate().map(|(index, column)| column.is_some() || !cut.has_frame(index)).collect();
        let read = |index: usize| self.columns[index].as_ref()?[self.row].as_ref();
        let (copied, homes): (Vec<usize>, Vec<usize>) = (0..wanted.len())
            .filter(|home| cut.has_frame(wanted[*home]))
            .partition(|home| read(wanted[*home]).is_some());
        copied.into_iter().for_each(|home| made[home].extend(read(wanted[home]).cloned()));
        let lost: Vec<usize> = homes.iter().map(|home| wanted[*home]).collect();
        if lost.is_empty() {
            return Ok(());
        }
        let plan = codec.plan(&present, &lost)?;
        let frame = |index: usize| {
            let bytes = read(index)?;
            let place = segment::Place { chunk: self.chunk, stripe: self.index, shard_index: index as u8 };
            // Verified when it came: cheap beside the reading, and it keeps the type honest.
            Frame::verify(bytes, place).ok()
        };
        let frames = stripe::rebuild(codec, &plan, self.chunk, self.index, frame)?;
        for (home, frame) in homes.into_iter().zip(frames) {
            made[home].push(Bytes::from(frame));
        }
        Ok(())
    }
}
