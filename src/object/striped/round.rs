//! The shards of one chunk on their way to their nodes: each batch of frames is one round.
//!
//! Invariants
//! - Every attempt at a shard has an id of its own, taken from the chunk's ids and never given back.
//! - A lane is done in a round only when its node has said so. After the last round that means that its shard is durable.
//! - Only in the first round, when all frames there are so far are at hand, is a lane begun again on another node.
//! - What was begun and is not named is deleted as well as that can be done; what is left over, nothing names.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::Striper;
use super::health::Kind;
use crate::erasure::Scheme;
use crate::ids::{Ino, NodeId, ShardId};
use crate::placement::{Picks, commit_count};
use crate::shard::{ClientError, Origin, Sending};

/// What is done with a round's frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// They are the whole shard: stored in one call.
    Put,
    /// They are the first.
    Begin,
    /// More come.
    Push,
    /// They are the last: the shard becomes durable.
    Finish,
}

impl Step {
    fn is_first(self) -> bool {
        matches!(self, Step::Put | Step::Begin)
    }

    fn kind(self) -> Kind {
        match self {
            Step::Put | Step::Finish => Kind::Store,
            Step::Begin | Step::Push => Kind::Push,
        }
    }
}

/// A shard on one node.
struct Lane {
    node: NodeId,
    shard: ShardId,
    /// Between the first round and the last.
    sending: Option<Sending>,
}

/// Too few shards are left of a chunk.
#[derive(Clone, Debug)]
pub(super) struct Shortage {
    pub(super) why: String,
}

/// The shards of one chunk.
pub(super) struct Lanes {
    striper: Striper,
    chunk: Ino,
    scheme: Scheme,
    /// By shard index; none if it was given up.
    lanes: Vec<Option<Lane>>,
    /// Where each was meant to be.
    meant: Vec<NodeId>,
    /// Nodes to fall back on, the next one first.
    spares: VecDeque<NodeId>,
    /// Ids that were not used.
    ids: Vec<ShardId>,
}

type Attempt = BoxFuture<'static, (usize, Lane, Instant, Result<(), ClientError>)>;

/// An attempt under way.
struct Running {
    index: usize,
    node: NodeId,
    shard: ShardId,
    started: Instant,
}

/// One round.
struct Round<'a> {
    lanes: &'a mut Lanes,
    step: Step,
    frames: &'a [Vec<Bytes>],
    attempts: FuturesUnordered<Attempt>,
    running: Vec<Running>,
    done_count: usize,
    /// When those that are not done are slow.
    late_at: Option<Instant>,
    /// They are, and nothing can be done about it.
    is_over: bool,
    why: String,
}

impl Lanes {
    /// The shards of a chunk on the nodes that were picked. `ids`: at least one for each.
    pub(super) fn new(striper: Striper, chunk: Ino, scheme: Scheme, picks: Picks, mut ids: Vec<ShardId>) -> Lanes {
        let first = ids.split_off(ids.len().saturating_sub(picks.nodes.len()));
        let lane = |(node, shard): (&NodeId, ShardId)| Some(Lane { node: *node, shard, sending: None });
        let lanes = picks.nodes.iter().zip(first).map(lane).collect();
        Lanes { striper, chunk, scheme, lanes, meant: picks.nodes, spares: picks.alternates.into(), ids }
    }

    /// The ids that were not used.
    pub(super) fn into_ids(self) -> Vec<ShardId> {
        self.ids
    }

    /// Sends one batch of frames, by shard index. Lanes that fail, or are far slower than the others, are given up.
    ///
    /// # Errors
    /// Too few are left to commit: all of them are given up.
    pub(super) async fn round(&mut self, step: Step, frames: &[Vec<Bytes>]) -> Result<(), Shortage> {
        let enough = commit_count(self.scheme);
        let why = Round::new(self, step, frames).run().await;
        let left_count = self.lanes.iter().flatten().count();
        if left_count >= enough {
            return Ok(());
        }
        self.give_up();
        Err(Shortage { why: format!("{left_count} of {} shards could be written, the last error: {why}", self.scheme) })
    }

    /// Gives all shards up.
    pub(super) fn give_up(&mut self) {
        for lane in self.lanes.iter_mut().filter_map(Option::take) {
            self.striper.clean_up(lane.node, lane.shard);
        }
    }

    /// By shard index, where it is; id 0 where there is none.
    pub(super) fn shards(&self) -> Vec<(NodeId, ShardId)> {
        let shard = |(lane, meant): (&Option<Lane>, &NodeId)| match lane {
            Some(lane) => (lane.node, lane.shard),
            None => (*meant, ShardId(0)),
        };
        self.lanes.iter().zip(&self.meant).map(shard).collect()
    }
}

impl<'a> Round<'a> {
    fn new(lanes: &'a mut Lanes, step: Step, frames: &'a [Vec<Bytes>]) -> Round<'a> {
        let (attempts, running) = (FuturesUnordered::new(), Vec::new());
        let mut round = Round {
            lanes,
            step,
            frames,
            attempts,
            running,
            done_count: 0,
            late_at: None,
            is_over: false,
            why: String::new(),
        };
        for index in 0..round.lanes.lanes.len() {
            if let Some(lane) = round.lanes.lanes[index].take() {
                round.start(index, lane);
            }
        }
        round.late_at = Some(Instant::now() + round.longest_patience());
        round
    }

    /// Sees the round through; the last error there was.
    async fn run(mut self) -> String {
        while !self.is_settled() {
            let late_at = self.late_at;
            let late = async {
                match late_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((index, lane, started, result)) = self.attempts.next() => self.ended(index, lane, started, result),
                () = late => self.slow(),
            }
        }
        self.leave();
        std::mem::take(&mut self.why)
    }

    /// Whether nothing more is waited for.
    fn is_settled(&self) -> bool {
        let is_pending = self.running.iter().any(|running| self.lanes.lanes[running.index].is_none());
        !is_pending || self.is_over && self.done_count >= commit_count(self.lanes.scheme)
    }

    fn start(&mut self, index: usize, lane: Lane) {
        let started = Instant::now();
        self.running.push(Running { index, node: lane.node, shard: lane.shard, started });
        let frames = self.frames.get(index).cloned().unwrap_or_default();
        let origin = Origin { chunk: self.lanes.chunk, slot: index as u32 };
        let (striper, step) = (self.lanes.striper.clone(), self.step);
        self.attempts.push(
            async move {
                let (lane, result) = attempt(striper, lane, step, origin, frames).await;
                (index, lane, started, result)
            }
            .boxed(),
        );
    }

    /// Begins a shard again, on another node; whether there is one.
    fn start_elsewhere(&mut self, index: usize) -> bool {
        if !self.step.is_first() {
            return false;
        }
        let health = self.lanes.striper.health.clone();
        let spares = &mut self.lanes.spares;
        let usable = std::iter::from_fn(|| spares.pop_front()).find(|spare| health.takes_shards(*spare));
        let (Some(node), Some(shard)) = (usable, self.lanes.ids.pop()) else { return false };
        self.start(index, Lane { node, shard, sending: None });
        true
    }

    fn ended(&mut self, index: usize, lane: Lane, started: Instant, result: Result<(), ClientError>) {
        self.running.retain(|running| running.shard != lane.shard);
        let (striper, kind) = (&self.lanes.striper, self.step.kind());
        match result {
            Ok(()) if self.lanes.lanes[index].is_none() => {
                striper.health.succeeded(lane.node, kind, started);
                self.lanes.lanes[index] = Some(lane);
                self.done_count += 1;
                self.time();
            }
            Ok(()) => {
                // Another attempt was faster.
                striper.health.succeeded(lane.node, kind, started);
                striper.clean_up(lane.node, lane.shard);
            }
            Err(error) => {
                self.why = error.to_string();
                striper.health.failed(lane.node, kind, started, &error);
                striper.clean_up(lane.node, lane.shard);
                let is_open = self.lanes.lanes[index].is_none();
                if is_open && self.running.iter().all(|running| running.index != index) {
                    self.start_elsewhere(index);
                }
            }
        }
    }

    /// Once as many are done as a reader needs, the others have some time left.
    fn time(&mut self) {
        if self.done_count == self.lanes.scheme.data_count() {
            self.late_at = Some(Instant::now() + self.patience());
        }
    }

    fn patience(&self) -> Duration {
        let (health, kind) = (&self.lanes.striper.health, self.step.kind());
        self.running.iter().map(|running| health.hedge_delay(running.node, kind)).max().unwrap_or_default()
    }

    /// The rest is slow. If others were not, it is tried elsewhere, or else done without.
    fn slow(&mut self) {
        let pending = |running: &&Running| self.lanes.lanes[running.index].is_none();
        let slow: Vec<(usize, NodeId)> =
            self.running.iter().filter(pending).map(|running| (running.index, running.node)).collect();
        slow.iter().for_each(|(_, node)| self.lanes.striper.health.suspect(*node));
        if self.done_count < self.lanes.scheme.data_count() {
            self.late_at = Some(Instant::now() + self.longest_patience());
            return;
        }
        let is_alone = |index| slow.iter().filter(|(other, _)| *other == index).count() == 1;
        let alone = slow.iter().map(|(index, _)| *index).filter(|index| is_alone(*index));
        let hedged_count = alone.filter(|index| self.start_elsewhere(*index)).count();
        self.is_over = hedged_count == 0;
        self.late_at = (hedged_count > 0).then(|| Instant::now() + self.patience());
    }

    fn longest_patience(&self) -> Duration {
        self.lanes.striper.timing.hedge(self.step.kind()).max
    }

    /// Leaves what is still under way.
    fn leave(&mut self) {
        self.attempts.clear();
        let (striper, kind) = (&self.lanes.striper, self.step.kind());
        for running in self.running.drain(..) {
            striper.health.given_up(running.node, kind, running.started);
            striper.clean_up(running.node, running.shard);
            if self.why.is_empty() {
                self.why = format!("node {} was slow", running.node);
            }
        }
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// One attempt at a round's share of a shard; cut short if the node goes down meanwhile.
async fn attempt(
    striper: Striper,
    mut lane: Lane,
    step: Step,
    origin: Origin,
    frames: Vec<Bytes>,
) -> (Lane, Result<(), ClientError>) {
    let node = lane.node;
    let result = tokio::select! {
        result = send(&striper, &mut lane, step, origin, &frames) => result,
        () = striper.health.downed(node) => Err(ClientError::Failed(format!("node {node} went down"))),
    };
    (lane, result)
}

async fn send(
    striper: &Striper,
    lane: &mut Lane,
    step: Step,
    origin: Origin,
    frames: &[Bytes],
) -> Result<(), ClientError> {
    let (client, deadline) = (&striper.client, striper.timing.call);
    match step {
        Step::Put => return client.put(lane.node, lane.shard, origin, frames, deadline).await,
        Step::Begin => lane.sending = Some(client.send(lane.node, lane.shard, origin)),
        Step::Push | Step::Finish => {}
    }
    let Some(sending) = &mut lane.sending else { return Err(ClientError::Failed("it was not begun".to_owned())) };
    // No frames where the last stripe is narrow.
    if !frames.is_empty() {
        sending.push(frames, deadline).await?;
    }
    match (step, lane.sending.take()) {
        (Step::Finish, Some(sending)) => sending.finish(deadline).await,
        (_, sending) => {
            lane.sending = sending;
            Ok(())
        }
    }
}
