//! Several nodes in one process, each on a runtime of its own, so that it can be killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::super::message::PeerStatus;
use super::super::{Founding, Raft};
use super::sim::{Net, db};
use super::*;
use crate::catalog::{FEATURE_LEVEL, LedgerError};
use crate::transport::Call;

pub(super) const HEARTBEAT: Duration = Duration::from_millis(80);
/// The longest that a node waits for a leader.
pub(super) const ELECTION: Duration = Duration::from_millis(12 * 80);
/// How long anything may take on a busy machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

type Heard = Arc<Mutex<BTreeMap<u64, BTreeMap<u64, String>>>>;

struct Running {
    raft: Raft,
    runtime: Runtime,
}

/// What runs and where it keeps what it has.
pub(super) struct Cluster {
    pub(super) net: Arc<Net>,
    dir: tempfile::TempDir,
    founding: BTreeMap<u64, Founding>,
    log_keep_count: u64,
    log_hold_count: u64,
    /// Nodes whose disk is full, and what ends them.
    full: BTreeMap<u64, Fatals>,
    /// Those that are not the program's.
    feature_levels: BTreeMap<u64, u32>,
    addresses: BTreeMap<u64, String>,
    running: BTreeMap<u64, Running>,
    /// Where each node has heard that the others are.
    heard: Heard,
    /// What killed nodes may still be doing to their catalogs.
    dying: BTreeMap<u64, JoinHandle<()>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes() {
            self.kill(node);
        }
    }
}

/// In memory if possible: these tests are about what nodes say to each other, and elections wait for slow disks.
fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

impl Cluster {
    /// Nodes of which none runs yet: nodes 1 to `count` are to found a cluster.
    pub(super) fn of(count: u64, log_keep_count: u64) -> Cluster {
        let list = |_| Founding::Together((1..=count).map(|node| (NodeId(node), address(node))).collect());
        let founding = (1..=count).map(|node| (node, list(node))).collect();
        Cluster {
            net: Net::new(),
            dir: tempdir(),
            founding,
            log_keep_count,
            log_hold_count: u64::MAX,
            full: BTreeMap::new(),
            feature_levels: BTreeMap::new(),
            addresses: BTreeMap::new(),
            running: BTreeMap::new(),
            heard: Heard::default(),
            dying: BTreeMap::new(),
        }
    }

    /// Voters that have a leader.
    pub(super) async fn started(count: u64) -> Cluster {
        let mut cluster = Cluster::of(count, 10_000);
        cluster.start_all().await;
        cluster.leader().await;
        cluster
    }

    pub(super) async fn start_all(&mut self) {
        for node in self.founding.keys().copied().collect::<Vec<_>>() {
            self.start(node).await;
        }
    }

    /// How many entries peers may hold back, of nodes that start from now on.
    pub(super) fn set_log_hold_count(&mut self, count: u64) {
        self.log_hold_count = count;
    }

    /// What `node` knows from its next start on.
    pub(super) fn set_feature_level(&mut self, node: u64, level: u32) {
        self.feature_levels.insert(node, level);
    }

    /// Where `node` says that it is, from its next start on.
    pub(super) fn set_address(&mut self, node: u64, address: String) {
        self.addresses.insert(node, address);
    }

    /// What `node` is to do with an empty directory.
    pub(super) fn set_founding(&mut self, node: u64, founding: Founding) {
        self.founding.insert(node, founding);
    }

    pub(super) fn dir(&self, node: u64) -> PathBuf {
        self.dir.path().join(node.to_string())
    }

    /// Leaves a node's catalog no room from its next start on. What its fatal errors are then.
    pub(super) fn fill(&mut self, node: u64) -> Fatals {
        self.full.entry(node).or_default().clone()
    }

    /// Gives it room again, from its next start on.
    pub(super) fn make_room(&mut self, node: u64) {
        self.full.remove(&node);
    }

    pub(super) fn options(&self, node: u64) -> Options {
        let mut base = options(&self.dir(node));
        if let Some(fatals) = self.full.get(&node) {
            (base.fatal, base.catalog.is_full) = (fatals.hook(), true);
        }
        base.catalog.feature_level = self.feature_levels.get(&node).copied().unwrap_or(FEATURE_LEVEL);
        Options {
            node: NodeId(node),
            address: self.addresses.get(&node).cloned().unwrap_or_else(|| address(node)),
            founding: self.founding.get(&node).cloned().unwrap_or(Founding::Join),
            on_member: self.listener(node),
            heartbeat: HEARTBEAT,
            timeout: Duration::from_secs(20),
            log_keep_count: self.log_keep_count,
            log_hold_count: self.log_hold_count,
            ..base
        }
    }

    fn listener(&self, node: u64) -> super::super::OnMember {
        let heard = self.heard.clone();
        Arc::new(move |member, address| {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.entry(node).or_default().insert(member.0, address.to_owned());
        })
    }

    /// Where `node` has heard that the others are.
    pub(super) fn heard(&self, node: u64) -> BTreeMap<u64, String> {
        self.heard.lock().unwrap().get(&node).cloned().unwrap_or_default()
    }

    pub(super) async fn start(&mut self, node: u64) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let opening = runtime.spawn(Raft::open(self.options(node), self.net.caller(node)));
        let raft = opening.await.unwrap().unwrap();
        self.net.seat(node, raft.service(), runtime.handle().clone());
        self.running.insert(node, Running { raft, runtime });
    }

    /// Ends a node without a word.
    pub(super) fn kill(&mut self, node: u64) {
        self.net.unseat(node);
        if let Some(Running { raft, runtime }) = self.running.remove(&node) {
            self.dying.extend(raft.take_apply_thread().map(|thread| (node, thread)));
            runtime.shutdown_background();
            drop(raft);
        }
    }

    /// Kills a node and waits until its files are closed.
    pub(super) async fn kill_and_close(&mut self, node: u64) {
        self.kill(node);
        if let Some(thread) = self.dying.remove(&node) {
            tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
        }
        tokio::time::timeout(DEADLINE, closed(&self.dir(node))).await.unwrap();
    }

    /// Stops a node in order.
    pub(super) async fn stop(&mut self, node: u64) {
        self.raft(node).shutdown().await;
        self.kill_and_close(node).await;
    }

    pub(super) fn raft(&self, node: u64) -> Raft {
        self.running[&node].raft.clone()
    }

    /// Those that run.
    pub(super) fn nodes(&self) -> Vec<u64> {
        self.running.keys().copied().collect()
    }

    pub(super) fn others(&self, node: u64) -> Vec<u64> {
        self.nodes().into_iter().filter(|other| *other != node).collect()
    }

    /// Who leads, once a majority of the nodes that run say so.
    pub(super) async fn leader(&self) -> u64 {
        self.leader_of(&self.nodes()).await
    }

    /// Who leads, once all of `nodes` say so.
    pub(super) async fn leader_of(&self, nodes: &[u64]) -> u64 {
        let agreed = || {
            let leaders: BTreeSet<_> = nodes.iter().map(|node| self.raft(*node).status().leader).collect();
            let leader = leaders.first().copied().flatten().map(|leader| leader.0)?;
            (leaders.len() == 1 && nodes.contains(&leader)).then_some(leader)
        };
        until(agreed).await
    }

    pub(super) async fn peer_status(&self, node: u64) -> PeerStatus {
        let call =
            Call { method: 0x112, header: super::super::message::encode(&()), body: crate::transport::Body::empty() };
        let reply = self.net.caller(99).call(db(node), crate::transport::Class::Urgent, call, DEADLINE).await.unwrap();
        super::super::message::decode(&reply.header).unwrap()
    }

    /// Waits until the catalogs of `nodes` are all where the last one is.
    pub(super) async fn settled(&self, nodes: &[u64]) {
        let applied = || {
            let all: BTreeSet<_> = nodes.iter().map(|node| self.raft(*node).status().applied_index).collect();
            (all.len() == 1).then_some(())
        };
        until(applied).await;
    }
}

pub(super) fn address(node: u64) -> String {
    format!("db-{node}:7000")
}

/// Polls until there is an answer.
pub(super) async fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let started = std::time::Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < DEADLINE, "it does not come to that");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Proposes until the outcome is known, at one node after the other.
pub(super) async fn insist(rafts: &[Raft], envelope: &Envelope) -> Outcome {
    let started = std::time::Instant::now();
    for raft in rafts.iter().cycle() {
        match tokio::time::timeout(Duration::from_secs(5), raft.propose(envelope.clone())).await {
            Ok(Ok(outcome)) => return outcome,
            Ok(Err(LedgerError::Unknown(_) | LedgerError::Unavailable(_) | LedgerError::Overloaded)) | Err(_) => {}
        }
        assert!(started.elapsed() < DEADLINE, "no outcome: {envelope:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("there are nodes")
}

/// Each of `keys` is there once, as `raft` reads it linearizably.
pub(super) async fn assert_there(raft: &Raft, bucket: BucketId, keys: &[String]) {
    for key in keys {
        assert!(current(raft, bucket, key).await.is_some(), "{key} was acknowledged and is not there");
    }
    assert_eq!(counts(raft, bucket).await.1, 0, "a put was applied twice");
}
