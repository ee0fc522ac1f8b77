//! A range of a chunk, from the shards that it takes least to ask.
//!
//! Frames are asked for as `plan` says, from all nodes at once. What is slow is asked for elsewhere too; what is gone or
//! damaged is made from others, and reported, so that it is repaired.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::encode::stripe_bytes;
use super::health::Kind;
use super::open::{Chunk, Trouble};
use super::plan::{Ask, Cell, Grid};
use super::{Error, Striper, joined};
use crate::catalog::{Layout, Place};
use crate::erasure::{Geometry, Scheme};
use crate::ids::{Ino, NodeId, ShardId};
use crate::segment::{Opener, format::FRAME_MAX_BYTES, unwrap};
use crate::shard::ClientError;
use crate::transport::{CallError, Peer, Role};
use crate::units::{MIB, SEGMENT_BYTES};

/// The longest range that is read at once.
pub(crate) const READ_MAX_BYTES: u64 = MIB;

/// What asking a node in this process for a frame costs.
const LOCAL_COST: u64 = 1;
/// What asking any other costs; a slow one up to so much more.
const REMOTE_COST: u64 = 4;
const SLOW_COST_MAX: u64 = 50;
/// What asking a busy one costs besides: for each processor there that is wanted twice, as much as a frame at hand.
const BUSY_COST_MAX: u64 = 10;
/// What asking a node costs that is down: it is the last that is asked.
const DOWN_COST: u64 = 1000;

/// What reading so much of a chunk at once holds in memory at most, bytes: all frames of its stripes, and the plaintext.
pub(crate) fn read_cost_bytes(scheme: Scheme, len_bytes: u64) -> u64 {
    let stripe_count = len_bytes.div_ceil(stripe_bytes(scheme)) + 1;
    len_bytes + SEGMENT_BYTES + stripe_count * (scheme.shard_count() * FRAME_MAX_BYTES) as u64
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Read {
    /// The range's bytes, as they were written.
    pub(crate) bytes: Bytes,
    /// A frame was damaged, or a shard gone: the chunk is to be repaired.
    pub(crate) damaged: bool,
}

/// What the catalog says of a chunk, found to be possible.
pub(super) struct Rs<'a> {
    pub(super) geometry: Geometry,
    pub(super) shards: &'a [(NodeId, ShardId)],
    key_id: u32,
    wrapped_key: &'a [u8],
}

impl<'a> Rs<'a> {
    pub(super) fn of(chunk: Ino, place: &'a Place) -> Result<Rs<'a>, Error> {
        let corrupt = |what: String| Error::Corrupt { chunk, what };
        let Layout::Rs { data_count, parity_count, shards, key_id, wrapped_key, .. } = &place.layout else {
            return Err(corrupt("it is not striped".to_owned()));
        };
        let scheme = Scheme::new(*data_count, *parity_count).map_err(|error| corrupt(error.to_string()))?;
        let geometry = Geometry::new(scheme, place.len_bytes).map_err(|error| corrupt(error.to_string()))?;
        if shards.len() != scheme.shard_count() {
            return Err(corrupt(format!("{} shards of {scheme}", shards.len())));
        }
        Ok(Rs { geometry, shards, key_id: *key_id, wrapped_key })
    }
}

/// An answer to an [`Ask`]: one buffer, and the length of each frame in it.
type Answer = Result<(Bytes, Vec<u32>), ClientError>;

/// An ask under way.
struct Asked {
    ask: Ask,
    node: NodeId,
    started: Instant,
    /// When it counts as slow; none: it does.
    late_at: Option<Instant>,
}

/// A read under way.
struct Reading<'a> {
    striper: &'a Striper,
    shards: &'a [(NodeId, ShardId)],
    grid: Grid,
    answers: FuturesUnordered<BoxFuture<'static, (Ask, Answer)>>,
    asked: Vec<Asked>,
    damaged: bool,
    why: String,
}

impl Striper {
    /// Reads up to [`READ_MAX_BYTES`] of a chunk; what lies beyond its end is not given.
    ///
    /// # Errors
    /// `Corrupt`: too few good frames are left. `Unavailable`: nodes that may have them give no answer. `NoKey`.
    pub(crate) async fn read(&self, chunk: Ino, place: &Place, range: Range<u64>) -> Result<Read, Error> {
        assert!(range.end.saturating_sub(range.start) <= READ_MAX_BYTES, "{range:?} at once");
        let rs = Rs::of(chunk, place)?;
        let opener = self.opener(chunk, &rs)?;
        let chunk = Arc::new(Chunk { chunk, codec: self.codec(rs.geometry.scheme()), opener });
        let grid = Grid::new(&rs.geometry, range, &self.costs(rs.shards));
        Reading {
            striper: self,
            shards: rs.shards,
            grid,
            answers: FuturesUnordered::new(),
            asked: Vec::new(),
            damaged: false,
            why: String::new(),
        }
        .run(chunk)
        .await
    }

    fn opener(&self, chunk: Ino, rs: &Rs<'_>) -> Result<Opener, Error> {
        let cluster_key = self.keys.get(rs.key_id).ok_or(Error::NoKey { key_id: rs.key_id })?;
        let key = unwrap(cluster_key, chunk, rs.wrapped_key);
        key.map(|key| Opener::new(&key)).map_err(|error| Error::Corrupt { chunk, what: format!("its key: {error}") })
    }

    /// What asking for a frame costs, by shard index; none where there is no shard.
    fn costs(&self, shards: &[(NodeId, ShardId)]) -> Vec<Option<u64>> {
        shards.iter().map(|(node, shard)| (*shard != ShardId(0)).then(|| self.cost(*node))).collect()
    }

    fn cost(&self, node: NodeId) -> u64 {
        if !self.health.is_up(node) {
            return DOWN_COST;
        }
        let near = if self.local.contains(&node) { LOCAL_COST } else { REMOTE_COST };
        let p95 = self.health.read_p95(node).unwrap_or_default();
        let slow = (p95.div_duration_f64(self.timing.slow_cost_per) as u64).min(SLOW_COST_MAX);
        near + slow + busy_cost(self.loads.percent(node).unwrap_or_default())
    }
}

/// What the load of a node, in percent, makes it cost.
fn busy_cost(percent: u16) -> u64 {
    u64::from(percent.saturating_sub(100) / 100).min(BUSY_COST_MAX)
}

impl Reading<'_> {
    async fn run(mut self, chunk: Arc<Chunk>) -> Result<Read, Error> {
        let give_up_at = Instant::now() + self.striper.timing.patience;
        loop {
            match self.grid.plan() {
                Ok(asks) => asks.into_iter().for_each(|ask| self.ask(ask)),
                Err(shortfall) if !shortfall.is_unreached => {
                    let what = format!("too few good frames of stripe {} are left", shortfall.stripe);
                    return Err(Error::Corrupt { chunk: chunk.chunk, what });
                }
                Err(_) if Instant::now() >= give_up_at => return Err(Error::Unavailable(self.why.clone())),
                Err(_) => {
                    self.striper.health.changed(self.striper.timing.hold_min).await;
                    let is_up = |(node, _): &(NodeId, ShardId)| self.striper.health.is_up(*node);
                    self.grid.forgive(&self.shards.iter().map(is_up).collect::<Vec<bool>>());
                    continue;
                }
            }
            if self.grid.is_ready() {
                if let Some(bytes) = self.open(&chunk).await? {
                    return Ok(Read { bytes, damaged: self.damaged });
                }
                continue;
            }
            self.wait().await;
        }
    }

    fn ask(&mut self, ask: Ask) {
        let (node, shard) = self.shards[ask.shard_index];
        let started = Instant::now();
        let late_at = Some(started + self.striper.health.hedge_delay(node, Kind::Read));
        self.asked.push(Asked { ask: ask.clone(), node, started, late_at });
        let striper = self.striper.clone();
        self.answers.push(async move { (ask.clone(), striper.frames(node, shard, ask.stripes).await) }.boxed());
    }

    /// Waits until something comes, or is too slow.
    async fn wait(&mut self) {
        let late_at = self.asked.iter().filter_map(|asked| asked.late_at).min();
        // Where nothing is late some time, all is: the answers are waited for, and each has a deadline.
        let late_at = late_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            Some((ask, answer)) = self.answers.next() => self.answered(&ask, answer),
            () = sleep_until(late_at) => self.slow(),
        }
    }

    fn slow(&mut self) {
        let now = Instant::now();
        for asked in self.asked.iter_mut().filter(|asked| asked.late_at.is_some_and(|at| at <= now)) {
            asked.late_at = None;
            self.grid.late(&asked.ask);
            self.striper.health.suspect(asked.node);
        }
    }

    fn answered(&mut self, ask: &Ask, answer: Answer) {
        let Some(at) = self.asked.iter().position(|asked| asked.ask == *ask) else { return };
        let Asked { node, started, .. } = self.asked.swap_remove(at);
        let health = &self.striper.health;
        match answer {
            Ok((bytes, lens)) => {
                health.succeeded(node, Kind::Read, started);
                self.grid.came(ask, frames(bytes, lens));
            }
            Err(error) => {
                health.failed(node, Kind::Read, started, &error);
                self.why = error.to_string();
                self.damaged |= matches!(error, ClientError::NotFound(_) | ClientError::Failed(_));
                let is_gone = matches!(error, ClientError::NotFound(_));
                self.grid.fail(ask.shard_index, if is_gone { &Cell::Lost } else { &Cell::Unreached });
            }
        }
    }

    /// The bytes; none if frames turn out to be bad, which are lost then.
    async fn open(&mut self, chunk: &Arc<Chunk>) -> Result<Option<Bytes>, Error> {
        let (chunk, rows) = (chunk.clone(), self.grid.rows.clone());
        let id = chunk.chunk;
        let workspaces = self.striper.workspaces.clone();
        let job = tokio::task::spawn_blocking(move || workspaces.with(|workspace| chunk.open(workspace, &rows)));
        match joined(job).await? {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Trouble::Inconsistent(what)) => Err(Error::Corrupt { chunk: id, what }),
            Err(Trouble::Bad(cells)) => {
                self.damaged = true;
                for (row, shard_index) in cells {
                    let (node, shard) = self.shards[shard_index];
                    tracing::warn!(chunk = %id, %node, %shard, stripe = self.grid.rows[row].stripe, "a frame is damaged");
                    self.grid.rows[row].cells[shard_index] = Cell::Lost;
                }
                Ok(None)
            }
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        for asked in self.asked.drain(..).filter(|asked| asked.late_at.is_none()) {
            self.striper.health.given_up(asked.node, Kind::Read, asked.started);
        }
    }
}

impl Striper {
    /// Frames of a shard; cut short if its node goes down meanwhile.
    async fn frames(&self, node: NodeId, shard: ShardId, stripes: Range<u32>) -> Answer {
        // A node that is down already is asked only where nobody else is left; it has not much time.
        if !self.health.is_up(node) {
            return self.client.read(node, shard, stripes, self.timing.probe_deadline).await;
        }
        tokio::select! {
            answer = self.client.read(node, shard, stripes, self.timing.call) => answer,
            () = self.health.downed(node) => Err(ClientError::Call(went_down(node))),
        }
    }
}

fn went_down(node: NodeId) -> CallError {
    CallError::Unknown(Peer { role: Role::Shard, id: node }, "it went down".to_owned())
}

/// Cuts an answer into its frames.
fn frames(mut bytes: Bytes, lens: Vec<u32>) -> impl Iterator<Item = Bytes> {
    lens.into_iter().map(move |len| bytes.split_to(bytes.len().min(len as usize)))
}
