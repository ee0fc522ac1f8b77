//! The nodes of a cluster that one process runs: started, joined by the transport, and shut down in order.
//!
//! ```text
//! DB/{LOCK,identity}       of each db node: whose it is
//! DB/{log,catalog,snapshots}/
//! DB/chunks/               the files of one that was a box, until the mover has made shards of them
//! NODE/{LOCK,identity}     of each shard node
//! NODE/shards/             its shards            (shard)
//! NODE/replica/            the catalog of a gateway that runs no db node; like DB
//! ```
//!
//! Invariants
//! - Every node's directory is locked, and known to be its own, before the process says who it is.
//! - Shard nodes serve before the catalog does, and close after it: whoever has the catalog finds his shards.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinSet;

use super::control::{self, Authority, Control};
use super::data_dir::{DataDir, Owner, in_dir};
use super::gossip::Gossip;
use super::{BOX_NODE, Config, Error, files_fatal, steward};
use crate::catalog::{Envelope, Ledger, LedgerError, Outcome, Readers};
use crate::catalog::{Map, MapNode, MapState};
use crate::consensus::{self, Founding, Raft};
use crate::env::Env;
use crate::erasure::Scheme;
use crate::file::Files;
use crate::file::remote::{self, FileService, RemoteFiles};
use crate::ids::{LogIndex, NodeId};
use crate::object::{self, Chunks, ClusterKeys, OnMap, Store, Striper, Workers};
use crate::placement;
use crate::segment::ClusterKey;
use crate::shard::{self, ShardService, Shards};
use crate::transport::identity::{Identity, IdentityError, Papers, Secret};
use crate::transport::{self, AddressBook, Caller, Limits, Peer, Role, Transport};
use crate::units::{GIB, MIB};

/// A gateway that runs no db node has a replica under this number and that of its first shard node.
const REPLICA_BASE: u64 = 1_000_000;
/// Room on the disk of a shard node that is left free.
const RESERVE_BYTES: u64 = 64 * MIB;
/// Between two tries to open the store.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long calls under way are waited for when the process ends.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// The capacity that stands for one point on the ring, and the points of a node whose capacity nobody said.
pub(super) const POINT_BYTES: u64 = 4 * GIB;
const POINT_COUNT: u32 = 256;

/// A db node, as every process of the cluster knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Db {
    /// Which.
    pub id: NodeId,
    /// What others dial: "host:port".
    pub dial: String,
}

/// A node that this process is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Own {
    /// Which.
    pub id: NodeId,
    /// UDP address it serves on.
    pub listen: SocketAddr,
    /// Its data directory.
    pub dir: PathBuf,
}

/// A shard node, as every process of the cluster knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardNode {
    /// Which.
    pub id: NodeId,
    /// What others dial: "host:port".
    pub dial: String,
    /// Its machine, which may be home to several nodes.
    pub host: String,
    /// What fails together for reasons outside: a rack, a site.
    pub zone: String,
    /// What it may hold, bytes; none: nobody said.
    pub capacity_bytes: Option<u64>,
}

/// A cluster, and what this process is in it.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// What all its nodes know.
    pub secret: Secret,
    /// How new chunks are laid out.
    pub scheme: Scheme,
    /// Every db node.
    pub dbs: Vec<Db>,
    /// Every shard node.
    pub nodes: Vec<ShardNode>,
    /// Db nodes of this process.
    pub own_dbs: Vec<Own>,
    /// Shard nodes of this process.
    pub own_nodes: Vec<Own>,
    /// Whether this process serves frontends.
    pub is_gateway: bool,
    /// What this node was given when it joined; none: its process makes its identity of the secret. Who joined takes the
    /// members, the map and its layout from the catalog: of `dbs` and `nodes` it needs those by whom it finds the others.
    pub papers: Option<Papers>,
    /// What vouches for boxes that join here, if any may.
    pub authority: Option<Vouching>,
    /// Addresses, "host:port", at which boxes that joined look for others, besides those where they were.
    pub seeds: Vec<String>,
}

/// An [`Authority`] that goes along with the rest.
#[derive(Clone)]
pub struct Vouching(pub Arc<dyn Authority>);

impl std::fmt::Debug for Vouching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vouching(..)")
    }
}

impl Cluster {
    /// What tells this cluster from others.
    fn store(&self) -> u128 {
        let derived = self.secret.derive("store");
        u128::from_be_bytes(derived[..16].try_into().unwrap_or_default())
    }

    /// The replica of the catalog that a gateway without a db node keeps: beside its first shard node, under whose address
    /// it is reached.
    fn replica(&self) -> Option<Own> {
        let node = self.own_nodes.first().filter(|_| self.is_gateway && self.own_dbs.is_empty())?;
        Some(Own { id: replica_of(node.id), listen: node.listen, dir: node.dir.join("replica") })
    }

    /// All nodes with a catalog that this process is.
    fn catalogs(&self) -> Vec<Own> {
        self.own_dbs.iter().cloned().chain(self.replica()).collect()
    }

    /// What others dial to reach a db node or replica.
    fn dial(&self, id: NodeId) -> String {
        let db = self.dbs.iter().find(|db| db.id == id).map(|db| &db.dial);
        let node = || self.nodes.iter().find(|node| replica_of(node.id) == id).map(|node| &node.dial);
        db.or_else(node).cloned().unwrap_or_default()
    }

    /// All that this process is to its peers.
    fn peers(&self) -> Vec<Peer> {
        let dbs = self.catalogs().into_iter().map(|db| db_peer(db.id));
        dbs.chain(self.own_nodes.iter().map(|node| Peer { role: Role::Shard, id: node.id })).collect()
    }

    pub(super) fn addresses(&self) -> AddressBook {
        let dbs = self.dbs.iter().map(|db| (db_peer(db.id), db.dial.clone()));
        let nodes = self.nodes.iter().map(|node| (Peer { role: Role::Shard, id: node.id }, node.dial.clone()));
        let replicas = self.nodes.iter().map(|node| (db_peer(replica_of(node.id)), node.dial.clone()));
        dbs.chain(nodes).chain(replicas).collect()
    }

    /// Nodes of one process may share an address: what is said to whom, the calls tell.
    fn listen(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<_> = self.own_dbs.iter().chain(&self.own_nodes).map(|own| own.listen).collect();
        let mut seen = HashSet::new();
        addresses.retain(|address| seen.insert(*address) || address.port() == 0);
        addresses
    }

    /// Who a process is that is `peers`.
    ///
    /// # Errors
    /// It cannot be proven.
    pub(super) fn identity(&self, peers: &[Peer], env: &Env) -> Result<Identity, IdentityError> {
        match &self.papers {
            Some(papers) => Ok(Identity::given(papers, &self.secret, env.clock.clone())),
            None => Identity::mint(&self.secret, peers, env.clock.clone()),
        }
    }

    fn founding(&self, id: NodeId) -> Founding {
        let all: BTreeMap<_, _> = self.dbs.iter().map(|db| (db.id, db.dial.clone())).collect();
        if self.papers.is_some() {
            return Founding::Learn(all.into_iter().filter(|(other, _)| *other != id).collect());
        }
        match all.contains_key(&id) {
            true if all.len() == 1 => Founding::Alone,
            true => Founding::Together(all),
            false => Founding::Learn(all),
        }
    }

    /// The map that a new cluster begins with.
    pub fn map(&self) -> Map {
        let node = |node: &ShardNode| MapNode {
            node: node.id,
            weight: node.capacity_bytes.map_or(POINT_COUNT, |bytes| placement::weight(bytes, POINT_BYTES)),
            zone: node.zone.clone(),
            host: node.host.clone(),
            state: MapState::Active,
            dial: node.dial.clone(),
        };
        // At most 32 shards.
        let (data_count, parity_count) = (self.scheme.data_count() as u8, self.scheme.parity_count() as u8);
        Map { epoch: 1, data_count, parity_count, nodes: self.nodes.iter().map(node).collect() }
    }
}

pub(super) fn db_peer(id: NodeId) -> Peer {
    Peer { role: Role::Db, id }
}

/// The number of a shard node's process among those who keep a catalog, if it keeps one to read only.
fn replica_of(node: NodeId) -> NodeId {
    NodeId(REPLICA_BASE + node.0)
}

/// Whether it is the number of one who keeps a catalog to read only.
pub(super) fn is_replica(id: NodeId) -> bool {
    id.0 >= REPLICA_BASE
}

/// Notes where members of Raft are that are not `configured`; where they are, the configuration is right.
fn remember(book: Arc<AddressBook>, configured: HashSet<NodeId>) -> consensus::OnMember {
    Arc::new(move |id, address| {
        if !configured.contains(&id) {
            book.set(db_peer(id), address);
        }
    })
}

/// Notes where shard nodes are, as the map says; where the configuration names them, it is right.
fn remember_nodes(book: Arc<AddressBook>, configured: HashSet<NodeId>) -> OnMap {
    OnMap(Arc::new(move |map| {
        for MapNode { node, dial, .. } in map.nodes.iter().filter(|node| !configured.contains(&node.node)) {
            book.set(Peer { role: Role::Shard, id: *node }, dial.as_str());
        }
    }))
}

/// The running nodes of this process.
pub struct Members {
    env: Env,
    cluster: Cluster,
    config: Config,
    transport: Arc<Transport>,
    book: Arc<AddressBook>,
    /// The store of this process, once it has one.
    store: Arc<OnceLock<Store>>,
    /// Db nodes, or the one replica.
    dbs: Vec<Raft>,
    /// What the db node that was a box keeps in files.
    files: Option<(NodeId, Files)>,
    shards: Vec<ShardService>,
    upkeep: Mutex<JoinSet<()>>,
    striper: Striper,
    /// Locked as long as this lives.
    directories: Vec<DataDir>,
}

impl Members {
    /// Starts the nodes of this process. They look for their peers in the background. Of `config` the memory, the store's
    /// settings and `fatal` count.
    ///
    /// # Errors
    /// A directory that is in use or another node's; an address that cannot be bound; what the disk holds.
    pub async fn start(env: Env, cluster: Cluster, config: Config) -> Result<Members, Error> {
        let directories = open_directories(&cluster, &env).await?;
        let identity = cluster.identity(&cluster.peers(), &env)?;
        let book = Arc::new(cluster.addresses());
        let started = transport::Config {
            identity,
            listen: cluster.listen(),
            book: book.clone(),
            limits: Limits::default(),
            env: env.clone(),
        };
        let transport = Arc::new(Transport::start(started)?);
        let striper = striper(&cluster, &transport, &env)?;
        let mut members = Members {
            env,
            cluster,
            config,
            transport,
            book,
            store: Arc::default(),
            dbs: Vec::new(),
            files: None,
            shards: Vec::new(),
            upkeep: Mutex::default(),
            striper,
            directories,
        };
        members.start_shards().await?;
        members.start_files().await?;
        members.start_dbs().await?;
        members.start_gossip();
        Ok(members)
    }

    async fn start_shards(&mut self) -> Result<(), Error> {
        let nodes = self.cluster.own_nodes.clone();
        for node in nodes {
            let options = shard::Options::new(node.dir.join("shards"));
            let opened = tokio::task::spawn_blocking(move || Shards::open(&options)).await;
            let (shards, found) = opened.map_err(|error| in_dir(&node.dir)(std::io::Error::other(error)))??;
            if found.damaged {
                tracing::error!(node = %node.id, "some shards are damaged or missing: they will be repaired");
            }
            let service = ShardService::new(shards, node.dir.clone(), RESERVE_BYTES, self.env.random_u64());
            self.lock_upkeep().spawn(service.clone().run(self.config.clean_interval, std::future::pending()));
            self.transport.serve(
                Peer { role: Role::Shard, id: node.id },
                shard::wire::SERVICE,
                Arc::new(service.clone()),
            );
            self.shards.push(service);
        }
        Ok(())
    }

    /// Boxes that joined tell each other where they are; of others the configuration says it.
    fn start_gossip(&self) {
        let Some(own) = self.cluster.own_dbs.first().filter(|_| self.cluster.papers.is_some()) else { return };
        let others = self.cluster.dbs.iter().map(|db| (Some(db.id), db.dial.clone()));
        let seeds = self.cluster.seeds.iter().map(|seed| (None, seed.clone()));
        let gossip = Gossip {
            own: (own.id, self.cluster.dial(own.id)),
            dir: own.dir.clone(),
            seeds: seeds.chain(others).collect(),
            transport: self.transport.clone(),
            book: self.book.clone(),
            loads: self.striper.loads().clone(),
        };
        self.lock_upkeep().spawn(gossip.run(self.env.clone()));
    }

    /// There is at most one: the number of a box is always the same.
    async fn start_files(&mut self) -> Result<(), Error> {
        for db in self.cluster.own_dbs.clone() {
            let dir = db.dir.join("chunks");
            if !dir.is_dir() {
                continue;
            }
            let fatal = files_fatal(self.config.fatal.clone());
            let opened = tokio::task::spawn_blocking(move || Files::open(dir, fatal)).await;
            let files = opened.map_err(|error| in_dir(&db.dir)(std::io::Error::other(error)))??;
            self.transport.serve(db_peer(db.id), remote::SERVICE, Arc::new(FileService::new(files.clone())));
            self.files = Some((db.id, files));
        }
        Ok(())
    }

    async fn start_dbs(&mut self) -> Result<(), Error> {
        for db in self.cluster.catalogs() {
            let mut options = consensus::Options::new(&db.dir, db.id);
            options.address = self.cluster.dial(db.id);
            options.founding = self.cluster.founding(db.id);
            options.env = self.env.clone();
            options.fatal = self.config.fatal.clone();
            options.log_file_len_bytes = super::data_dir::log_file_bytes(&db.dir);
            options.log_cache_len_bytes = usize::try_from(self.config.log_cache_bytes).unwrap_or(usize::MAX);
            options.catalog.cache_bytes = self.config.catalog_cache_bytes;
            options.catalog.feature_level = self.config.feature_level;
            options.accept_loss = self.config.accept_loss;
            options.peers = self.cluster.dbs.iter().map(|db| db.id).filter(|id| *id != db.id).collect();
            options.on_member = remember(self.book.clone(), self.configured(self.cluster.dbs.iter().map(|db| db.id)));
            let caller: Arc<dyn Caller> = self.transport.clone();
            let raft = Raft::open(options, caller).await?;
            if self.cluster.papers.is_some() {
                steward::expel_known(&raft, &self.transport).await;
            }
            self.transport.serve(db_peer(db.id), consensus::SERVICE, raft.service());
            let authority = self.cluster.authority.as_ref().map(|vouching| vouching.0.clone());
            let control = Control::new(raft.clone(), self.store.clone(), authority);
            self.transport.serve(db_peer(db.id), control::SERVICE, Arc::new(control));
            self.dbs.push(raft);
        }
        if let Some(first) = self.dbs.first().filter(|_| self.cluster.papers.is_some()) {
            self.lock_upkeep().spawn(steward::expel(first.clone(), self.transport.clone()));
        }
        Ok(())
    }

    /// How busy the boxes of a cluster are that joined, as they say: tasks for each 100 processors, over the last minute.
    pub fn loads(&self) -> Vec<(NodeId, u16)> {
        self.striper.loads().all()
    }

    /// How the db nodes of this process stand.
    pub fn statuses(&self) -> impl Iterator<Item = consensus::Status> {
        self.dbs.iter().map(Raft::status)
    }

    /// The authority's key, from a voter that has it: this node must vote, too.
    ///
    /// # Errors
    /// What the last one said.
    pub async fn authority_key(&self) -> Result<String, control::Error> {
        self.of_voters(async |voter| control::authority_key(&self.transport, voter).await).await
    }

    /// A certificate for an endpoint of this box, from a voter: see [`Authority::sign_server`].
    ///
    /// # Errors
    /// What the last one said.
    pub async fn sign_server(&self, public_key: &[u8], names: &[String]) -> Result<String, control::Error> {
        self.of_voters(async |voter| control::sign_server(&self.transport, voter, public_key, names).await).await
    }

    /// The first answer of any other voter.
    async fn of_voters<T>(&self, ask: impl AsyncFn(NodeId) -> Result<T, control::Error>) -> Result<T, control::Error> {
        let mut last = control::Error::Refused("no other box votes".to_owned());
        let own: HashSet<NodeId> = self.dbs.iter().map(|db| db.status().node).collect();
        let voters = self.statuses().flat_map(|status| status.voters).filter(|voter| !own.contains(voter));
        for voter in voters.collect::<Vec<_>>() {
            match ask(voter).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The store over this cluster, with its workers; none where this process keeps no catalog. Waits until there is a
    /// leader, as long as that takes.
    ///
    /// # Errors
    /// The catalog refuses.
    pub async fn store(&self) -> Result<Option<(Store, Workers)>, Error> {
        if self.dbs.is_empty() {
            return Ok(None);
        }
        let ledger: Arc<dyn Ledger> = Arc::new(Dbs(self.dbs.clone()));
        let mut config = self.config.store.clone();
        config.gateway = self.gateway_name();
        config.first_map = Some(self.cluster.map());
        config.lays_out = self.cluster.papers.is_none();
        let configured = self.configured(self.cluster.nodes.iter().map(|node| node.id));
        config.on_map = remember_nodes(self.book.clone(), configured);
        let remote = RemoteFiles::new(self.transport.clone());
        let dir = self.directories[0].path().to_owned();
        let chunks = Chunks::striped(self.striper.clone(), self.files.clone(), remote, dir);
        loop {
            let opened = Store::open(self.env.clone(), ledger.clone(), chunks.clone(), config.clone()).await;
            match opened {
                Ok(store) => {
                    let mut workers = Workers::start(&store);
                    if self.cluster.papers.is_some() {
                        workers.add(steward::run(store.clone(), self.dbs[0].clone()));
                    }
                    // The only one who sets it.
                    let _ = self.store.set(store.clone());
                    return Ok(Some((store, workers)));
                }
                Err(object::Error::Unavailable(why)) => {
                    tracing::warn!(why, "waiting for the cluster");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Of these the nodes whose addresses the configuration says, and not the catalog.
    fn configured(&self, ids: impl Iterator<Item = NodeId>) -> HashSet<NodeId> {
        ids.filter(|_| self.cluster.papers.is_none()).collect()
    }

    /// The same after a restart, and nobody else's: a node runs in one process.
    fn gateway_name(&self) -> String {
        self.cluster.peers().first().map(ToString::to_string).unwrap_or_default()
    }

    /// Stops what the store has left running: the catalog's nodes, which hand over, while shards that others are writing
    /// here come to their end; then the transport, then the shards.
    pub async fn shutdown(&self) {
        let dbs = futures::future::join_all(self.dbs.iter().map(Raft::shutdown));
        let shards = futures::future::join_all(self.shards.iter().map(|shards| shards.drain(DRAIN_PATIENCE)));
        futures::join!(dbs, shards);
        self.transport.close(DRAIN_PATIENCE).await;
        let mut upkeep = std::mem::take(&mut *self.lock_upkeep());
        upkeep.shutdown().await;
        let shards = self.shards.clone();
        let close = move || shards.iter().for_each(|service| service.shards().close());
        let closed = tokio::task::spawn_blocking(close).await;
        if let Err(error) = closed {
            tracing::error!(%error, "the shards did not close");
        }
    }

    fn lock_upkeep(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the store of a box the db node of `cluster` that has its number and its directory. Nothing else is changed: once
/// it runs, the mover makes shards of its files. `yes`: else only how it would go is found out. Blocking.
///
/// # Errors
/// `NotHere`: this process is no db node of that number. `NoStore`: its directory is empty. `Locked`: it runs.
/// `Identity`: it is another node's. `Io`.
pub fn adopt(cluster: &Cluster, yes: bool) -> Result<PathBuf, Error> {
    let is_of_box = |db: &&Own| db.id == BOX_NODE;
    let own = cluster.own_dbs.iter().find(is_of_box).ok_or(Error::NotHere)?;
    let owner = Owner::Member { store: cluster.store(), role: Role::Db, node: own.id };
    match yes {
        true => drop(DataDir::adopt(&own.dir, owner)?),
        false => DataDir::may_adopt(&own.dir, owner)?,
    }
    Ok(own.dir.clone())
}

async fn open_directories(cluster: &Cluster, env: &Env) -> Result<Vec<DataDir>, Error> {
    let store = cluster.store();
    let member = |role, node| Owner::Member { store, role, node };
    let dbs = cluster.catalogs().into_iter().map(|db| (db.dir, member(Role::Db, db.id)));
    let nodes = cluster.own_nodes.iter().map(|node| (node.dir.clone(), member(Role::Shard, node.id)));
    let wanted: Vec<(PathBuf, Owner)> = dbs.chain(nodes).collect();
    let env = env.clone();
    let opened = tokio::task::spawn_blocking(move || {
        wanted.iter().map(|(path, owner)| DataDir::open(path, &env, *owner)).collect::<Result<Vec<_>, _>>()
    });
    opened.await.map_err(|error| in_dir(Path::new("."))(std::io::Error::other(error)))?
}

fn striper(cluster: &Cluster, transport: &Arc<Transport>, env: &Env) -> Result<Striper, Error> {
    let keys = ClusterKeys::new(ClusterKey::new(1, &cluster.secret.derive("chunk keys 1")), Vec::new());
    let local = cluster.own_nodes.iter().map(|node| node.id).collect();
    Ok(Striper::new(transport.clone(), local, object::placed(&cluster.map())?, keys, env.clone()))
}

/// The catalog as this process has it: any of its db nodes does.
struct Dbs(Vec<Raft>);

impl Ledger for Dbs {
    fn propose(&self, envelope: Envelope) -> BoxFuture<'_, Result<Outcome, LedgerError>> {
        self.0[0].propose(envelope)
    }

    fn barrier(&self) -> BoxFuture<'_, Result<LogIndex, LedgerError>> {
        self.0[0].barrier()
    }

    fn readers(&self) -> &Readers {
        self.0[0].readers()
    }

    fn leads(&self) -> bool {
        self.0.iter().any(Ledger::leads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(nodes: &[(u64, &str)]) -> Map {
        let node = |(node, dial): &(u64, &str)| MapNode {
            node: NodeId(*node),
            weight: 1,
            zone: String::new(),
            host: String::new(),
            state: MapState::Active,
            dial: (*dial).to_owned(),
        };
        Map { epoch: 1, data_count: 1, parity_count: 1, nodes: nodes.iter().map(node).collect() }
    }

    #[test]
    fn addresses_follow_the_map_where_the_configuration_names_none() {
        let peer = |id| Peer { role: Role::Shard, id: NodeId(id) };
        let book: Arc<AddressBook> = Arc::new([(peer(1), "configured:1".to_owned())].into_iter().collect());
        let on_map = remember_nodes(book.clone(), HashSet::from([NodeId(1)]));
        for dial in ["before:2", "after:2"] {
            (on_map.0)(&map(&[(1, "elsewhere:1"), (2, dial)]));
            assert_eq!(book.get(peer(1)).as_deref(), Some("configured:1"));
            assert_eq!(book.get(peer(2)).as_deref(), Some(dial), "an address of a former map is not kept");
        }
    }
}
