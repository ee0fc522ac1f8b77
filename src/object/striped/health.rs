//! Which shard nodes answer, and how fast: learnt from the calls that are made anyway.
//!
//! Invariants
//! - A node is down from a call that it did not answer, or failed, until it answers a question about its status, and not
//!   before a pause that grows while that repeats itself. A call that began before it came back says nothing of it.
//! - Whoever is down or full is asked again in the background, by one task a node: it comes back by itself.
//! - Nobody waits for a node that is known to be down: see [`Health::downed`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::latency::Latency;
use super::timing::{Hedge, Timing};
use crate::ids::NodeId;
use crate::shard::{ClientError, ShardClient};
use crate::units::CHUNK_BYTES;

/// What a call does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Gives frames.
    Read,
    /// Takes frames.
    Push,
    /// Makes a shard durable.
    Store,
}

/// How one node stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NodeHealth {
    /// Which.
    pub(crate) node: NodeId,
    /// Whether it is used.
    pub(crate) is_up: bool,
    /// Whether its disk had no room, when it was last asked.
    pub(crate) is_full: bool,
    /// Which start of it last said how it stands.
    pub(crate) start: Option<u64>,
    /// Why it was last taken for down.
    pub(crate) last_error: Option<String>,
    /// What 95 of 100 of the latest reads did not exceed; none if there were few.
    pub(crate) read_p95: Option<Duration>,
    /// Likewise of shards made durable.
    pub(crate) store_p95: Option<Duration>,
}

/// How one node stands: pure.
#[derive(Debug)]
struct Node {
    state: State,
    is_full: bool,
    /// It takes no new shards until then: it is ending, or has too many half-way in.
    busy_until: Option<Instant>,
    /// How often it went down without having done, in between, what it failed in.
    slip_count: u32,
    slipped_in: Kind,
    last_error: Option<String>,
    latencies: [Latency; 3],
    /// A task asks for its status.
    is_watched: bool,
    /// When it was last asked only because it was slow.
    suspected: Option<Instant>,
    /// Which start of it last said how it stands.
    start: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Since then; none: from the beginning.
    Up(Option<Instant>),
    /// At least until then.
    Down { until: Instant },
}

impl Node {
    fn new() -> Node {
        Node {
            state: State::Up(None),
            is_full: false,
            busy_until: None,
            slip_count: 0,
            slipped_in: Kind::Read,
            last_error: None,
            latencies: [(); 3].map(|()| Latency::new()),
            is_watched: false,
            suspected: None,
            start: None,
        }
    }

    fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    fn has_room(&self) -> bool {
        self.is_up() && !self.is_full
    }

    fn takes_shards(&self, now: Instant) -> bool {
        self.has_room() && self.busy_until.is_none_or(|until| until <= now)
    }

    /// Whether a call that began at `started` says something of the node as it is now.
    fn is_news(&self, started: Instant) -> bool {
        match self.state {
            State::Up(since) => since.is_none_or(|since| started >= since),
            State::Down { .. } => false,
        }
    }

    fn succeeded(&mut self, kind: Kind, started: Instant, now: Instant) {
        self.latencies[kind as usize].note(now.duration_since(started), now);
        let writes = |kind| kind != Kind::Read;
        if self.is_news(started) && writes(kind) == writes(self.slipped_in) {
            self.slip_count = 0;
        }
    }

    /// Whether it is down now, and was not before.
    fn failed(&mut self, kind: Kind, started: Instant, why: String, timing: &Timing, now: Instant) -> bool {
        if !self.is_news(started) {
            return false;
        }
        let pause = timing.hold_min.saturating_mul(1 << self.slip_count.min(16)).min(timing.hold_max);
        self.slip_count += 1;
        self.slipped_in = kind;
        self.last_error = Some(why);
        self.state = State::Down { until: now + pause };
        true
    }

    /// How long to wait before it is asked; none: there is no need to.
    fn ask_in(&self, timing: &Timing, now: Instant) -> Option<Duration> {
        match self.state {
            State::Down { until } => Some(until.saturating_duration_since(now)),
            State::Up(_) if self.is_full => Some(timing.full_pause),
            State::Up(_) => None,
        }
    }

    /// It said how it stands.
    fn answered(&mut self, free_bytes: u64, now: Instant) {
        match self.state {
            State::Down { until } if now >= until => self.state = State::Up(Some(now)),
            State::Down { .. } | State::Up(_) => {}
        }
        self.is_full = self.is_full && free_bytes < CHUNK_BYTES;
    }
}

/// How all nodes stand.
pub(super) struct Health {
    client: ShardClient,
    timing: Timing,
    nodes: Mutex<BTreeMap<NodeId, Node>>,
    /// Told when a node goes down or comes back.
    changes: watch::Sender<()>,
}

impl Health {
    pub(super) fn new(client: ShardClient, timing: Timing) -> Arc<Health> {
        let (changes, _) = watch::channel(());
        Arc::new(Health { client, timing, nodes: Mutex::default(), changes })
    }

    fn with<T>(&self, node: NodeId, look: impl FnOnce(&mut Node) -> T) -> T {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        look(nodes.entry(node).or_insert_with(Node::new))
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        self.with(node, |node| node.is_up())
    }

    /// Whether it is up, and not full.
    pub(super) fn has_room(&self, node: NodeId) -> bool {
        self.with(node, |node| node.has_room())
    }

    /// Whether new shards may go there now.
    pub(super) fn takes_shards(&self, node: NodeId) -> bool {
        self.with(node, |node| node.takes_shards(Instant::now()))
    }

    /// What 95 of 100 of the latest reads from there did not exceed.
    pub(super) fn read_p95(&self, node: NodeId) -> Option<Duration> {
        self.with(node, |node| node.latencies[Kind::Read as usize].p95(Instant::now()))
    }

    /// How long to wait for a call before it counts as slow.
    pub(super) fn hedge_delay(&self, node: NodeId, kind: Kind) -> Duration {
        let p95 = self.with(node, |node| node.latencies[kind as usize].p95(Instant::now()));
        let Hedge { min, unknown, max } = self.timing.hedge(kind);
        p95.map_or(unknown, |p95| (2 * p95).clamp(min, max))
    }

    /// Forgets the nodes that are none any more.
    pub(super) fn retain(&self, keep: impl Fn(NodeId) -> bool) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).retain(|node, _| keep(*node));
    }

    pub(super) fn report(&self) -> Vec<NodeHealth> {
        let now = Instant::now();
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let report = |(node, health): (&NodeId, &Node)| NodeHealth {
            node: *node,
            is_up: health.is_up(),
            is_full: health.is_full,
            start: health.start,
            last_error: health.last_error.clone(),
            read_p95: health.latencies[Kind::Read as usize].p95(now),
            store_p95: health.latencies[Kind::Store as usize].p95(now),
        };
        nodes.iter().map(report).collect()
    }

    /// A call of that kind, begun then, was answered as it should be.
    pub(super) fn succeeded(&self, node: NodeId, kind: Kind, started: Instant) {
        self.with(node, |node| node.succeeded(kind, started, Instant::now()));
    }

    /// A call of that kind, begun then, was given up: it takes at least so long.
    pub(super) fn given_up(&self, node: NodeId, kind: Kind, started: Instant) {
        let now = Instant::now();
        self.with(node, |node| node.latencies[kind as usize].note(now.duration_since(started), now));
    }

    /// A call of that kind, begun then, ended like this.
    pub(super) fn failed(self: &Arc<Self>, node: NodeId, kind: Kind, started: Instant, error: &ClientError) {
        match error {
            ClientError::Full(_) => self.with(node, |node| node.is_full = true),
            // A disk that cannot be read may have one bad block; that is no reason not to use the node.
            ClientError::Failed(_) if kind == Kind::Read => return,
            ClientError::Failed(_) | ClientError::Call(_) => self.down(node, kind, started, error.to_string()),
            ClientError::Busy(_) if kind != Kind::Read => {
                let until = Instant::now() + self.timing.hold_min;
                return self.with(node, |node| node.busy_until = Some(until));
            }
            ClientError::NotFound(_) | ClientError::Exists(_) | ClientError::Busy(_) => return,
        }
        self.watch(node);
    }

    fn down(&self, node: NodeId, kind: Kind, started: Instant, why: String) {
        if self.with(node, |node| node.failed(kind, started, why.clone(), &self.timing, Instant::now())) {
            tracing::warn!(%node, why, "a shard node does not answer as it should; it is left out until it does");
            self.changes.send_replace(());
        }
    }

    /// The node is slow: asks whether it is there at all.
    pub(super) fn suspect(self: &Arc<Self>, node: NodeId) {
        let now = Instant::now();
        let is_due = self.with(node, |node| {
            let asked_lately = |at: Instant| now.duration_since(at) < self.timing.hold_min;
            node.is_up() && !node.suspected.replace(now).is_some_and(asked_lately)
        });
        if is_due {
            self.watch(node);
        }
    }

    /// Asks a node for its status until there is no more need to, in a task; one at a time.
    fn watch(self: &Arc<Self>, node: NodeId) {
        if !self.with(node, |node| std::mem::replace(&mut node.is_watched, true)) {
            tokio::spawn(watch_over(Arc::downgrade(self), node));
        }
    }

    /// How long to wait before the node is asked again; none: enough was asked, and nobody watches it any more.
    fn next_question(&self, node: NodeId, was_asked: bool) -> Option<Duration> {
        self.with(node, |node| {
            let wait = node.ask_in(&self.timing, Instant::now());
            let wait = wait.map(|wait| if was_asked { wait.max(self.timing.probe_pause) } else { wait });
            let wait = wait.or((!was_asked).then_some(Duration::ZERO));
            node.is_watched = wait.is_some();
            wait
        })
    }

    /// Asks a node how it stands; one that does not answer is down, and watched until it does.
    pub(super) async fn probe(self: &Arc<Self>, node: NodeId) {
        self.ask(node).await;
        if !self.is_up(node) {
            self.watch(node);
        }
    }

    async fn ask(&self, node: NodeId) {
        let started = Instant::now();
        match self.client.status(node, self.timing.probe_deadline).await {
            Ok(status) => {
                let was_up = self.is_up(node);
                let start = self.with(node, |node| {
                    node.answered(status.free_bytes, Instant::now());
                    node.start.replace(status.start)
                });
                if start.is_some_and(|start| start != status.start) {
                    tracing::info!(%node, "a shard node was started again");
                }
                if !was_up && self.is_up(node) {
                    tracing::info!(%node, "a shard node is back");
                    self.changes.send_replace(());
                }
            }
            Err(error) => self.down(node, Kind::Read, started, error.to_string()),
        }
    }

    /// Returns when the node is down.
    pub(super) async fn downed(&self, node: NodeId) {
        let mut changes = self.changes.subscribe();
        while self.is_up(node) {
            // Its sender is ours.
            let _ = changes.changed().await;
        }
    }

    /// Returns when any node has gone down or come back, or after `patience`.
    pub(super) async fn changed(&self, patience: Duration) {
        let mut changes = self.changes.subscribe();
        let _ = tokio::time::timeout(patience, changes.changed()).await;
    }
}

async fn watch_over(health: Weak<Health>, node: NodeId) {
    let mut was_asked = false;
    loop {
        let Some(wait) = health.upgrade().and_then(|health| health.next_question(node, was_asked)) else { return };
        tokio::time::sleep(wait).await;
        let Some(health) = health.upgrade() else { return };
        health.ask(node).await;
        was_asked = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn fail(node: &mut Node, kind: Kind, at: Instant) -> bool {
        node.failed(kind, at, "no answer".to_owned(), &Timing::default(), at)
    }

    fn pause(node: &Node, now: Instant) -> Duration {
        node.ask_in(&Timing::default(), now).unwrap_or_default()
    }

    #[test]
    fn a_node_is_down_until_it_answers_and_no_sooner_than_its_pause() {
        let (mut node, start) = (Node::new(), Instant::now());
        assert!(fail(&mut node, Kind::Read, start));
        assert!(!node.takes_shards(start));
        assert!(!fail(&mut node, Kind::Read, start), "many calls fail at once, and it goes down once");
        node.answered(u64::MAX, start + MS);
        assert!(!node.is_up(), "too soon");
        node.answered(u64::MAX, start + 300 * MS);
        assert!(node.takes_shards(start + 300 * MS));
        assert!(!fail(&mut node, Kind::Read, start + 299 * MS), "a call from before it came back");
        assert!(fail(&mut node, Kind::Read, start + 301 * MS));
    }

    #[test]
    fn pauses_grow_until_it_does_what_it_failed_in() {
        let (mut node, mut now) = (Node::new(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..10 {
            assert!(fail(&mut node, Kind::Store, now));
            pauses.push(pause(&node, now).as_millis());
            now += pause(&node, now);
            node.answered(u64::MAX, now);
            node.succeeded(Kind::Read, now, now);
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        node.succeeded(Kind::Store, now, now);
        assert!(fail(&mut node, Kind::Store, now));
        assert_eq!(pause(&node, now), 250 * MS);
    }

    #[test]
    fn a_full_node_gets_nothing_until_it_has_room_for_a_chunk() {
        let (mut node, now) = (Node::new(), Instant::now());
        node.is_full = true;
        assert!(node.is_up() && !node.takes_shards(now) && node.ask_in(&Timing::default(), now).is_some());
        node.answered(CHUNK_BYTES - 1, now);
        assert!(!node.takes_shards(now));
        node.answered(CHUNK_BYTES, now);
        assert!(node.takes_shards(now) && node.ask_in(&Timing::default(), now).is_none());
    }
}
