//! The layout `rs(k,m)`: chunks over shard nodes, written while some of them fail, and read while some are gone.
//!
//! - [`Striper`] is the handle. `write`: a chunk on its way in; `encode`: plaintext to frames; `round`: frames to nodes,
//!   with alternates, hedges and a quorum.
//! - `read`: a range of a chunk; `plan`: which frames to ask for; `open`: frames to plaintext.
//! - `health`, `latency`: who answers, and how fast; `timing`: how long to wait for what.
//!
//! Invariants
//! - A place names only shards whose nodes have said that they are durable, and enough of them that one may be lost
//!   where there is parity.
//! - Every attempt to write a shard has an id of its own. What is written late, or twice, harms nobody.
//! - Only bytes that were verified and opened are given out.
//! - No call waits for a node without a deadline, and memory is bounded: [`write_cost_bytes`], [`read_cost_bytes`].

mod encode;
mod health;
mod latency;
mod open;
mod plan;
mod read;
mod rebuild;
mod round;
#[cfg(test)]
pub(super) mod tests;
mod timing;
mod write;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::cluster::load::Loads;
use crate::env::Env;
use crate::erasure::{Codec, Scheme};
use crate::ids::{Ino, NodeId, ShardId};
use crate::placement::Ring;
use crate::segment::ClusterKey;
use crate::shard::wire::Bookmark;
use crate::shard::{Listed, Scrubbed, ShardClient};
use crate::transport::Caller;

pub(crate) use health::NodeHealth;
pub(crate) use read::{READ_MAX_BYTES, read_cost_bytes};
pub(crate) use write::{ChunkWriter, Striped, write_cost_bytes};

use encode::Workspaces;
use health::Health;
use timing::Timing;

/// Shards that are deleted at once because nothing will name them; more are left to the sweep.
const CLEAN_UPS_MAX: usize = 64;
/// Ids of a chunk beyond twice its shards: even the narrowest layout may find some nodes dead.
const SPARE_ID_COUNT: usize = 4;
/// Codecs that are kept: layouts are few.
const CODECS_MAX: usize = 64;

/// What cannot be striped, or read.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Too few nodes take shards.
    #[error("{live_count} live nodes cannot keep {target}")]
    TooFewNodes {
        /// What was to be written.
        target: Scheme,
        /// Nodes that take shards.
        live_count: usize,
    },
    /// So many nodes are full that too few take shards.
    #[error("too many shard nodes are full")]
    Full,
    /// Too few nodes answer, now.
    #[error("{0}")]
    Unavailable(String),
    /// All nodes answered, and too few good frames are left; or what the catalog says of the chunk cannot be.
    #[error("chunk {chunk}: {what}")]
    Corrupt {
        /// Which.
        chunk: Ino,
        /// In which way.
        what: String,
    },
    /// The cluster key that the chunk's is wrapped under is not here.
    #[error("this node has no cluster key {key_id}")]
    NoKey {
        /// Which.
        key_id: u32,
    },
    /// More than a chunk holds.
    #[error("longer than a chunk")]
    TooLong,
    /// The writer gave up.
    #[error("given up")]
    Abandoned,
}

impl From<round::Shortage> for Error {
    fn from(shortage: round::Shortage) -> Error {
        Error::Unavailable(shortage.why)
    }
}

impl From<Error> for super::Error {
    fn from(error: Error) -> super::Error {
        match error {
            Error::Full => super::Error::Full,
            Error::Corrupt { .. } => super::Error::Corrupt(error.to_string()),
            Error::TooLong => super::Error::Invalid(error.to_string()),
            Error::TooFewNodes { .. } | Error::Unavailable(_) | Error::NoKey { .. } | Error::Abandoned => {
                super::Error::Unavailable(error.to_string())
            }
        }
    }
}

/// What to write, and where.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    /// The layout that is wanted.
    pub(crate) scheme: Scheme,
    /// Whose nodes take shards.
    pub(crate) ring: Ring,
}

/// The cluster's keys: the one that new chunks' keys are wrapped under, and those before it.
#[derive(Clone)]
pub(crate) struct ClusterKeys {
    current: Arc<ClusterKey>,
    others: Arc<BTreeMap<u32, ClusterKey>>,
}

impl ClusterKeys {
    /// `others`: what older chunks' keys are wrapped under.
    pub(crate) fn new(current: ClusterKey, others: Vec<ClusterKey>) -> ClusterKeys {
        let others = others.into_iter().map(|key| (key.id(), key)).collect();
        ClusterKeys { current: Arc::new(current), others: Arc::new(others) }
    }

    /// What is sealed from now on is sealed under it.
    pub(crate) fn current(&self) -> &ClusterKey {
        &self.current
    }

    /// The key with an id.
    pub(crate) fn get(&self, id: u32) -> Option<&ClusterKey> {
        if self.current.id() == id { Some(&self.current) } else { self.others.get(&id) }
    }
}

/// Stripes chunks over shard nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Striper(Arc<Inner>);

/// What all clones share.
pub(crate) struct Inner {
    client: ShardClient,
    keys: ClusterKeys,
    env: Env,
    map: RwLock<Arc<Map>>,
    /// Nodes in this process: nothing goes over the network to them.
    local: HashSet<NodeId>,
    loads: Arc<Loads>,
    health: Arc<Health>,
    timing: Timing,
    codecs: Mutex<HashMap<Scheme, Codec>>,
    workspaces: Arc<Workspaces>,
    clean_ups: Arc<Semaphore>,
}

impl Deref for Striper {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Striper {
    /// Calls shard nodes by `caller`; those of `local` are in this process. To be used within a tokio runtime.
    pub(crate) fn new(
        caller: Arc<dyn Caller>,
        local: HashSet<NodeId>,
        map: Map,
        keys: ClusterKeys,
        env: Env,
    ) -> Striper {
        Striper::with_timing(caller, local, map, keys, env, Timing::default())
    }

    /// How busy nodes are, as they say.
    pub(crate) fn loads(&self) -> &Arc<Loads> {
        &self.loads
    }

    fn with_timing(
        caller: Arc<dyn Caller>,
        local: HashSet<NodeId>,
        map: Map,
        keys: ClusterKeys,
        env: Env,
        timing: Timing,
    ) -> Striper {
        let client = ShardClient::new(caller);
        Striper(Arc::new(Inner {
            health: Health::new(client.clone(), timing),
            client,
            keys,
            env,
            map: RwLock::new(Arc::new(map)),
            local,
            loads: Arc::default(),
            timing,
            codecs: Mutex::default(),
            workspaces: Arc::default(),
            clean_ups: Arc::new(Semaphore::new(CLEAN_UPS_MAX)),
        }))
    }

    /// The cluster's keys.
    pub(crate) fn cluster_keys(&self) -> &ClusterKeys {
        &self.keys
    }

    /// What chunks that are begun from now on are written as, and where.
    pub(crate) fn set_map(&self, map: Map) {
        let members: HashSet<NodeId> = map.ring.members().iter().map(|member| member.node).collect();
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
        self.health.retain(|node| members.contains(&node));
    }

    /// What chunks are written as, and where.
    pub(crate) fn map(&self) -> Arc<Map> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many fresh ids [`Striper::begin`] can make use of: for a chunk's shards, for alternates, and for beginning again
    /// on fewer nodes.
    pub(crate) fn id_count(&self) -> usize {
        2 * self.map().scheme.shard_count() + SPARE_ID_COUNT
    }

    /// Begins a chunk of up to [`crate::units::CHUNK_BYTES`] of plaintext. `ids`: fresh ids, [`Striper::id_count`] of
    /// them; fewer mean fewer second attempts, or none at all. Those that the place does not name are to be retired
    /// with it: some may have been used.
    pub(crate) fn begin(&self, chunk: Ino, ids: Vec<ShardId>) -> ChunkWriter {
        ChunkWriter::begin(self.clone(), chunk, ids)
    }

    /// Deletes shards; those that are gone for sure. Id 0 is gone.
    pub(crate) async fn remove(&self, shards: &[(NodeId, ShardId)]) -> Vec<(NodeId, ShardId)> {
        let mut by_node: BTreeMap<NodeId, Vec<ShardId>> = BTreeMap::new();
        for (node, shard) in shards.iter().filter(|(_, shard)| *shard != ShardId(0)) {
            by_node.entry(*node).or_default().push(*shard);
        }
        let removed = join_all(by_node.iter().map(|(node, shards)| self.remove_at(*node, shards))).await;
        let gone: HashSet<NodeId> =
            by_node.keys().zip(removed).filter_map(|(node, gone)| gone.then_some(*node)).collect();
        shards.iter().copied().filter(|(node, shard)| *shard == ShardId(0) || gone.contains(node)).collect()
    }

    async fn remove_at(&self, node: NodeId, shards: &[ShardId]) -> bool {
        match self.client.delete(node, shards, self.timing.call).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%node, %error, "shards were not deleted");
                false
            }
        }
    }

    /// The shard nodes of the map.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.map().ring.members().iter().map(|member| member.node).collect()
    }

    /// Whether new shards may go there.
    pub(crate) fn takes_shards(&self, node: NodeId) -> bool {
        self.health.takes_shards(node)
    }

    /// Asks every node that counts as up how it stands; those that do not answer are down from then on.
    pub(crate) async fn probe(&self) {
        let nodes = self.nodes();
        join_all(nodes.iter().filter(|node| self.health.is_up(**node)).map(|node| self.health.probe(*node))).await;
    }

    /// Whether a node answers, as far as is known.
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.health.is_up(node)
    }

    /// Has a node read about `budget_bytes` of its shards with ids above `after`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn scrub(
        &self,
        node: NodeId,
        after: Option<ShardId>,
        budget_bytes: u64,
    ) -> Result<Scrubbed, Error> {
        let scrubbed = self.client.scrub(node, after, budget_bytes, self.timing.call).await;
        scrubbed.map_err(|error| Error::Unavailable(error.to_string()))
    }

    /// Where the scrub of a node is.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn bookmark(&self, node: NodeId) -> Result<Bookmark, Error> {
        let bookmark = self.client.bookmark(node, self.timing.call).await;
        bookmark.map_err(|error| Error::Unavailable(error.to_string()))
    }

    /// Says where it is.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn note(&self, node: NodeId, bookmark: Bookmark) -> Result<(), Error> {
        let noted = self.client.note(node, bookmark, self.timing.call).await;
        noted.map_err(|error| Error::Unavailable(error.to_string()))
    }

    /// Up to `limit` shards of a node with ids above `after`, ascending.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn list(&self, node: NodeId, after: Option<ShardId>, limit: u32) -> Result<Vec<Listed>, Error> {
        let listed = self.client.list(node, after, limit, self.timing.call).await;
        listed.map_err(|error| Error::Unavailable(error.to_string()))
    }

    /// How the nodes stand that were called so far.
    pub(crate) fn health(&self) -> Vec<NodeHealth> {
        self.health.report()
    }

    /// Deletes a shard that nothing will name, in the background; if there is too much of that, the sweep does it.
    fn clean_up(&self, node: NodeId, shard: ShardId) {
        if shard == ShardId(0) {
            return;
        }
        let Ok(permit) = self.clean_ups.clone().try_acquire_owned() else { return };
        let striper = self.clone();
        tokio::spawn(async move {
            striper.remove_at(node, &[shard]).await;
            drop(permit);
        });
    }

    fn codec(&self, scheme: Scheme) -> Codec {
        let mut codecs = self.codecs.lock().unwrap_or_else(PoisonError::into_inner);
        if codecs.len() >= CODECS_MAX {
            codecs.clear();
        }
        codecs.entry(scheme).or_insert_with(|| Codec::new(scheme)).clone()
    }
}

/// Waits for a task. It ends early only when it panicked, which is our bug, or when the process is ending.
async fn joined<T>(task: JoinHandle<T>) -> Result<T, Error> {
    task.await.map_err(|error| Error::Unavailable(format!("a task ended early: {error}")))
}
