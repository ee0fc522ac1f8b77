//! A chunk on its way in.
//!
//! One task a chunk does the work, so that it goes on while its source is waited for: one batch is sealed while the one
//! before is sent. The layout is chosen when the first batch is there. If that batch cannot be stored under it, it is
//! sealed again, under another key, for what nodes there are then; of later batches nothing earlier is at hand, and a
//! node that fails costs its shard.
//!
//! Invariants
//! - Dropped at any time before its end, nothing of the chunk is left that was not tried to delete.
//! - Memory: see [`write_cost_bytes`].

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::encode::{Encoder, Runs, stripe_bytes};
use super::round::{Lanes, Step};
use super::{Error, Map, Striper, joined};
use crate::catalog::{Layout, Place};
use crate::erasure::Scheme;
use crate::ids::{Ino, NodeId, ShardId};
use crate::placement::{self, Picks, width};
use crate::segment::{ChunkKey, format::FRAME_MAX_BYTES, wrap};
use crate::units::{CHUNK_BYTES, MIB, SEGMENT_BYTES};

/// Plaintext that is sealed and sent at once; also the longest chunk that is stored in one call a shard.
pub(crate) const BATCH_BYTES: u64 = MIB;

/// What writing a chunk holds in memory at most, bytes: batches of plaintext at hand, on their way to be sealed, and being
/// sealed; frames being sealed and being sent, of the layout with the most parity for its data that may be chosen.
///
/// `len_bytes`: of the chunk, where it is known.
pub(crate) fn write_cost_bytes(scheme: Scheme, len_bytes: Option<u64>) -> u64 {
    let (copies, stripe) = (1 + scheme.parity_count() as u64, stripe_bytes(scheme));
    let frame_overhead = FRAME_MAX_BYTES as u64 - SEGMENT_BYTES;
    let frames = |plain: u64| plain * copies + (plain.div_ceil(SEGMENT_BYTES) + 1) * copies * frame_overhead;
    let long = 3 * BATCH_BYTES + stripe + 2 * frames(BATCH_BYTES.max(stripe) + stripe);
    let short = |len: u64| len + frames(len);
    len_bytes.map_or(long, |len| if len <= BATCH_BYTES { short(len) } else { long.min(2 * short(len)) })
}

/// A chunk that is durable, and not named yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Striped {
    /// Where it is. A shard that could not be written has id 0, with the node that it was meant for.
    pub(crate) place: Place,
    /// Whether it is below target: its layout is narrower than what is wanted now, or not all its shards are there.
    pub(crate) short: bool,
}

/// Takes the plaintext of one chunk. Dropped, it gives the chunk up.
pub(crate) struct ChunkWriter {
    striper: Striper,
    held: Runs,
    taken_bytes: u64,
    /// None once the chunk was given up.
    batches: Option<mpsc::Sender<Batch>>,
    /// None once it came.
    outcome: Option<oneshot::Receiver<Result<Striped, Error>>>,
}

struct Batch {
    plain: Runs,
    is_last: bool,
}

impl ChunkWriter {
    pub(super) fn begin(striper: Striper, chunk: Ino, ids: Vec<ShardId>) -> ChunkWriter {
        let (batches, incoming) = mpsc::channel(1);
        let (tell, outcome) = oneshot::channel();
        let pump = Pump { map: striper.map(), striper: striper.clone(), chunk, incoming };
        tokio::spawn(async move {
            let striper = pump.striper.clone();
            if let Err(Ok(unwanted)) = tell.send(pump.run(ids).await) {
                unwanted.clean_up(&striper);
            }
        });
        ChunkWriter { striper, held: Runs::default(), taken_bytes: 0, batches: Some(batches), outcome: Some(outcome) }
    }

    /// Adds plaintext; waits while what came before is still being sent.
    ///
    /// # Errors
    /// [`Error::TooLong`]. Any other: nothing will come of the chunk.
    pub(crate) async fn push(&mut self, runs: &[Bytes]) -> Result<(), Error> {
        for run in runs {
            self.taken_bytes += run.len() as u64;
            if self.taken_bytes > CHUNK_BYTES {
                return Err(Error::TooLong);
            }
            self.held.push(run.clone());
            // One batch is kept back: it may be the last.
            while self.held.len_bytes() > BATCH_BYTES {
                let plain = self.held.split(BATCH_BYTES);
                self.hand_over(Batch { plain, is_last: false }).await?;
            }
        }
        Ok(())
    }

    /// Ends the chunk; durable on return, on the nodes that the place names.
    ///
    /// # Errors
    /// `TooFewNodes`, `Full`, `Unavailable`: nothing will come of it.
    pub(crate) async fn finish(mut self) -> Result<Striped, Error> {
        let plain = std::mem::take(&mut self.held);
        self.hand_over(Batch { plain, is_last: true }).await?;
        self.outcome().await
    }

    /// Gives the chunk up, and returns once no more is written of it; what was is being deleted.
    pub(crate) async fn abandon(mut self) {
        self.batches = None;
        if let Ok(unwanted) = self.outcome().await {
            unwanted.clean_up(&self.striper);
        }
    }

    async fn hand_over(&mut self, batch: Batch) -> Result<(), Error> {
        let Some(batches) = &self.batches else { return Err(Error::Abandoned) };
        if batches.send(batch).await.is_err() {
            self.batches = None;
            return Err(self.outcome().await.err().unwrap_or(Error::Abandoned));
        }
        Ok(())
    }

    async fn outcome(&mut self) -> Result<Striped, Error> {
        let Some(outcome) = &mut self.outcome else { return Err(Error::Abandoned) };
        let ended_early = |_| Err(Error::Unavailable("the chunk's task ended early".to_owned()));
        let outcome = outcome.await.unwrap_or_else(ended_early);
        self.outcome = None;
        outcome
    }
}

impl Drop for ChunkWriter {
    fn drop(&mut self) {
        // Whoever waited for it has gone, just when it came.
        if let Some(Ok(Ok(unwanted))) = self.outcome.take().map(|mut outcome| outcome.try_recv()) {
            unwanted.clean_up(&self.striper);
        }
    }
}

impl Striped {
    fn clean_up(self, striper: &Striper) {
        if let Layout::Rs { shards, .. } = self.place.layout {
            shards.into_iter().for_each(|(node, shard)| striper.clean_up(node, shard));
        }
    }
}

/// Seals and sends.
struct Pump {
    striper: Striper,
    map: Arc<Map>,
    chunk: Ino,
    incoming: mpsc::Receiver<Batch>,
}

/// What is sealed so far.
struct Sealing {
    encoder: Encoder,
    /// Plaintext that fills no stripe yet.
    rest: Runs,
}

/// A batch, sealed.
struct Sealed {
    sealing: Sealing,
    /// By shard index.
    frames: Vec<Vec<Bytes>>,
    is_last: bool,
}

/// A chunk whose first batch is sent.
struct Started {
    lanes: Lanes,
    sealing: Sealing,
    layout: Layout,
    short: bool,
}

impl Pump {
    async fn run(mut self, ids: Vec<ShardId>) -> Result<Striped, Error> {
        let first = self.first().await?;
        let (mut len_bytes, is_last) = (first.plain.len_bytes(), first.is_last);
        let Started { mut lanes, sealing, layout, short } = self.start(first, ids).await?;
        if !is_last {
            let sent = self.go_on(&mut lanes, sealing, &mut len_bytes).await;
            sent.inspect_err(|_| lanes.give_up())?;
        }
        Ok(striped(layout, &lanes, len_bytes, short))
    }

    /// The first batch: at least one stripe, or the whole chunk.
    async fn first(&mut self) -> Result<Batch, Error> {
        let mut first = Batch { plain: Runs::default(), is_last: false };
        while !first.is_last && first.plain.len_bytes() < BATCH_BYTES.max(stripe_bytes(self.map.scheme)) {
            let Batch { plain, is_last } = self.incoming.recv().await.ok_or(Error::Abandoned)?;
            first.plain.append(plain);
            first.is_last = is_last;
        }
        Ok(first)
    }

    /// Stores the first batch under whatever layout can be had.
    async fn start(&self, first: Batch, mut ids: Vec<ShardId>) -> Result<Started, Error> {
        let give_up_at = Instant::now() + self.striper.timing.patience;
        let mut why = "there are fewer ids than shards".to_owned();
        loop {
            let (scheme, picks) = match self.layout() {
                Ok(layout) => layout,
                Err(error) if Instant::now() >= give_up_at => return Err(error),
                Err(_) => {
                    self.striper.health.changed(self.striper.timing.hold_min).await;
                    continue;
                }
            };
            if ids.len() < scheme.shard_count() {
                return Err(Error::Unavailable(why));
            }
            match self.try_start(scheme, picks, &first, &mut ids).await? {
                Ok(started) => return Ok(started),
                Err(shortage) => why = shortage,
            }
        }
    }

    /// The layout to write now, and on which nodes.
    fn layout(&self) -> Result<(Scheme, Picks), Error> {
        let Map { scheme: target, ring } = &*self.map;
        let health = &self.striper.health;
        let mut picks = ring.pick(self.chunk, ring.members().len(), |node| health.takes_shards(node));
        let scheme = width(*target, picks.nodes.len()).map_err(|error| {
            let is_enough = |live: &dyn Fn(NodeId) -> bool| {
                width(*target, ring.pick(self.chunk, ring.members().len(), live).nodes.len()).is_ok()
            };
            match (is_enough(&|node| health.has_room(node)), is_enough(&|node| health.is_up(node))) {
                (true, _) => Error::Unavailable("the shard nodes are busy".to_owned()),
                (false, true) => Error::Full,
                (false, false) => Error::from(error),
            }
        })?;
        picks.alternates = picks.nodes.split_off(scheme.shard_count());
        Ok((scheme, picks))
    }

    /// Seals the first batch under a fresh key and sends it; inside, why that could not be done on these nodes.
    async fn try_start(
        &self,
        scheme: Scheme,
        picks: Picks,
        first: &Batch,
        ids: &mut Vec<ShardId>,
    ) -> Result<Result<Started, String>, Error> {
        let striper = &self.striper;
        let (encoder, key) = Encoder::new(self.chunk, striper.codec(scheme), &*striper.env.rng);
        let layout = self.layout_of(scheme, &key);
        let sealing = Sealing { encoder, rest: Runs::default() };
        let Sealed { sealing, frames, .. } = self.seal(sealing, first.plain.clone(), first.is_last).await?;
        let step = if first.is_last { Step::Put } else { Step::Begin };
        let mut lanes = Lanes::new(striper.clone(), self.chunk, scheme, picks, std::mem::take(ids));
        match lanes.round(step, &frames).await {
            Ok(()) => Ok(Ok(Started { lanes, sealing, layout, short: scheme != self.map.scheme })),
            Err(shortage) => {
                *ids = lanes.into_ids();
                Ok(Err(shortage.why))
            }
        }
    }

    /// Sends the other batches, the last one included.
    async fn go_on(&mut self, lanes: &mut Lanes, sealing: Sealing, len_bytes: &mut u64) -> Result<(), Error> {
        let mut sealed = self.next(sealing, len_bytes).await?;
        while !sealed.is_last {
            let Sealed { sealing, frames, .. } = sealed;
            let sent = async { lanes.round(Step::Push, &frames).await.map_err(Error::from) };
            ((), sealed) = tokio::try_join!(sent, self.next(sealing, len_bytes))?;
        }
        Ok(lanes.round(Step::Finish, &sealed.frames).await?)
    }

    /// Waits for the next batch, and seals it.
    async fn next(&mut self, sealing: Sealing, len_bytes: &mut u64) -> Result<Sealed, Error> {
        let Batch { plain, is_last } = self.incoming.recv().await.ok_or(Error::Abandoned)?;
        *len_bytes += plain.len_bytes();
        self.seal(sealing, plain, is_last).await
    }

    async fn seal(&self, sealing: Sealing, plain: Runs, is_last: bool) -> Result<Sealed, Error> {
        let Sealing { mut encoder, mut rest } = sealing;
        let workspaces = self.striper.workspaces.clone();
        let job = tokio::task::spawn_blocking(move || {
            rest.append(plain);
            let frames = workspaces.with(|workspace| encoder.encode(workspace, &mut rest, is_last));
            Sealed { sealing: Sealing { encoder, rest }, frames, is_last }
        });
        joined(job).await
    }

    /// What the chunk's row will say, its shards still to be filled in.
    fn layout_of(&self, scheme: Scheme, key: &ChunkKey) -> Layout {
        let cluster_key = self.striper.keys.current();
        Layout::Rs {
            // At most 32 of both.
            data_count: scheme.data_count() as u8,
            parity_count: scheme.parity_count() as u8,
            epoch: self.map.ring.epoch(),
            shards: Vec::new(),
            key_id: cluster_key.id(),
            wrapped_key: wrap(cluster_key, self.chunk, key, &*self.striper.env.rng),
        }
    }
}

fn striped(mut layout: Layout, lanes: &Lanes, len_bytes: u64, is_narrow: bool) -> Striped {
    let written = lanes.shards();
    let short = is_narrow || written.iter().any(|(_, shard)| *shard == ShardId(0));
    if let Layout::Rs { shards, .. } = &mut layout {
        *shards = written;
    }
    Striped { place: Place { layout, len_bytes, live_bytes: len_bytes }, short }
}

impl From<placement::Error> for Error {
    fn from(error: placement::Error) -> Error {
        match error {
            placement::Error::TooFewNodes { target, live_count } => Error::TooFewNodes { target, live_count },
            placement::Error::Twice { .. } | placement::Error::Weight { .. } => Error::Unavailable(error.to_string()),
        }
    }
}
