//! The one place where this program meets the core and the S3 frontend.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use predastore::catalog::Refusal;
use predastore::check::Report;
use predastore::consensus::{State, Status};
use predastore::env::Env;
use predastore::ids::NodeId;
use predastore::node::{self, Members, Node, members};
use predastore::object::access::{Authority, Caller, Directory, Secret};
use predastore::object::tree::{Mounting, Tree};
use predastore::object::{self, Pressure, Upkeep, Workers};
use predastore::policy::{self, Policy};
use predastore_s3::app::{self, App};
use predastore_s3::metrics::Metrics;
use predastore_s3::server::Limits;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin::{Figure, Figures, Loads};
use crate::config::cluster;
use crate::config::{Account, Config, Grant, ROOT_ACCOUNT_ID, Tls};
use crate::db_status::{DbStatus, RaftState, StatusSource};
use crate::identity::Identity;
use crate::join::member::Member;

/// At least so often a session is renewed while it may stand still.
const RENEWALS: u32 = 4;
/// Between two tries to make a configured bucket.
const SEED_PAUSE: Duration = Duration::from_secs(1);

/// What this process runs of the core: a box, or nodes of a cluster.
pub(crate) struct Process {
    running: Running,
}

enum Running {
    /// None once it is closed; shared with whoever reads figures.
    Box(Arc<Mutex<Option<Node>>>),
    Cluster {
        members: Arc<Members>,
        workers: tokio::sync::Mutex<Option<Workers>>,
    },
}

/// A store that may be used. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Store {
    store: object::Store,
    read_only: bool,
}

/// The S3 endpoint over a store.
pub(crate) struct Frontend {
    app: App,
    limits: Limits,
}

/// What `s3d check` found.
pub(crate) struct Findings {
    /// One or more lines each; empty: clean.
    pub(crate) damage: Vec<String>,
    /// What was looked at, in one line.
    pub(crate) summary: String,
}

impl Process {
    /// Opens what is kept in the configured directories, and locks them.
    ///
    /// # Errors
    /// Another process holds a lock; the disk; damage; an address.
    pub(crate) async fn start(config: &Config) -> Result<Self> {
        let running = match &config.cluster {
            None => Running::Box(Arc::new(Mutex::new(Some(Node::open(Env::system(), node_config(config)).await?)))),
            Some(cluster) => {
                let mut cluster = core_cluster(cluster);
                if cluster.papers.is_some() {
                    cluster.authority = Some(members::Vouching(Arc::new(Identity::of(config))));
                }
                let members = Members::start(Env::system(), cluster, node_config(config)).await?;
                Running::Cluster { members: Arc::new(members), workers: tokio::sync::Mutex::default() }
            }
        };
        Ok(Process { running })
    }

    /// The store; none where this process keeps no catalog. In a cluster it waits for a leader, as long as that takes.
    ///
    /// # Errors
    /// What the catalog says.
    pub(crate) async fn store(&self) -> Result<Option<Store>> {
        match &self.running {
            Running::Box(node) => {
                let node = node.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(node) = node.as_ref() else { return Ok(None) };
                let read_only = node.status().read_only;
                if read_only {
                    tracing::error!("the log has lost acknowledged writes: reads only; stop s3d and see `s3d recover`");
                }
                Ok(Some(Store { read_only, store: node.store.clone() }))
            }
            Running::Cluster { members, workers } => {
                let Some((store, started)) = members.store().await? else { return Ok(None) };
                *workers.lock().await = Some(started);
                Ok(Some(Store { read_only: false, store }))
            }
        }
    }

    /// Figures of catalog, log and disk.
    pub(crate) fn figures(&self, store: Option<&Store>) -> Figures {
        let store = store.map(|store| store.store.clone());
        let status: Box<dyn Fn() -> Option<Status> + Send + Sync> = match &self.running {
            Running::Box(node) => {
                let node = node.clone();
                Box::new(move || node.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Node::status))
            }
            Running::Cluster { members, .. } => {
                let members = members.clone();
                Box::new(move || members.statuses().next())
            }
        };
        Arc::new(move || match (status(), &store) {
            (Some(status), Some(store)) => figures(&status, store),
            _ => Vec::new(),
        })
    }

    /// How busy the boxes of the cluster are.
    pub(crate) fn loads(&self) -> Loads {
        let members = self.members();
        Arc::new(move || {
            let loads = members.as_ref().map(|members| members.loads()).unwrap_or_default();
            loads.into_iter().map(|(node, percent)| (node.0, percent)).collect()
        })
    }

    /// The nodes of a cluster in this process.
    pub(crate) fn members(&self) -> Option<Arc<Members>> {
        match &self.running {
            Running::Box(_) => None,
            Running::Cluster { members, .. } => Some(members.clone()),
        }
    }

    /// Which store a box is; none: it is part of a cluster.
    pub(crate) fn box_store(&self) -> Option<u128> {
        match &self.running {
            Running::Box(node) => {
                node.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|node| node.identity().store)
            }
            Running::Cluster { .. } => None,
        }
    }

    /// How each db node of a cluster in this process stands, by id, whenever asked.
    pub(crate) fn db_statuses(&self) -> Vec<(NodeId, StatusSource)> {
        let Running::Cluster { members, .. } = &self.running else { return Vec::new() };
        let source = |id: NodeId| -> StatusSource {
            let members = members.clone();
            Arc::new(move || db_status(id, members.statuses().find(|status| status.node == id)))
        };
        members.statuses().map(|status| (status.node, source(status.node))).collect()
    }

    /// Closes it; whatever was acknowledged is durable already.
    pub(crate) async fn shutdown(self) {
        match self.running {
            Running::Box(node) => {
                let node = node.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(node) = node {
                    node.shutdown().await;
                }
            }
            Running::Cluster { members, workers } => {
                if let Some(workers) = workers.into_inner() {
                    workers.stop().await;
                }
                members.shutdown().await;
            }
        }
    }
}

impl Store {
    /// The files of `bucket`, or those below its directory `prefix`. `staging`: for what is not committed yet.
    pub(crate) async fn tree(
        &self,
        bucket: &str,
        prefix: &[u8],
        mounting: Mounting<'_>,
    ) -> Result<Tree, object::Error> {
        self.store.tree(bucket, prefix, mounting).await
    }

    /// The object API, for another frontend.
    pub(crate) fn objects(&self) -> &object::Store {
        &self.store
    }

    /// Whether the catalog of this process answers.
    pub(crate) async fn answers(&self) -> Result<()> {
        Ok(self.store.answers().await?)
    }

    /// Makes the configured buckets that are missing; a store that only serves reads goes on without them.
    pub(crate) async fn seed(&self, config: &Config) -> Result<()> {
        if self.read_only {
            return Ok(());
        }
        for bucket in &config.buckets {
            let region = bucket.region.as_ref().unwrap_or(&config.region);
            loop {
                match self.store.create_bucket(&bucket.name, ROOT_ACCOUNT_ID, region, false).await {
                    Ok(_) => tracing::info!(bucket = bucket.name, "made a bucket"),
                    Err(object::Error::Refused(Refusal::BucketExists { .. })) => {}
                    Err(error @ (object::Error::Unavailable(_) | object::Error::Overloaded)) => {
                        tracing::warn!(bucket = bucket.name, %error, "a bucket was not made; it is tried again");
                        tokio::time::sleep(SEED_PAUSE).await;
                        continue;
                    }
                    Err(error) => anyhow::bail!("bucket {}: {error}", bucket.name),
                }
                break;
            }
        }
        Ok(())
    }
}

/// What works on the files of one box alone.
fn check_one_box(config: &Config) -> Result<()> {
    anyhow::ensure!(
        config.cluster.is_none(),
        "this works on a box (`storage.backend = \"file\"`), not on a cluster's node"
    );
    Ok(())
}

/// A cluster as the core knows it.
pub(crate) fn core_cluster(from: &cluster::Cluster) -> members::Cluster {
    let own = |own: &cluster::Own| members::Own { id: own.id, listen: own.listen, dir: own.path.clone() };
    let db = |db: &cluster::DbNode| members::Db { id: db.id, dial: db.dial.clone() };
    let node = |node: &cluster::ShardNode| members::ShardNode {
        id: node.id,
        dial: node.dial.clone(),
        host: node.machine.clone(),
        zone: node.zone.clone(),
        capacity_bytes: node.capacity_bytes,
    };
    members::Cluster {
        secret: from.secret.clone(),
        scheme: from.scheme,
        dbs: from.dbs.iter().map(db).collect(),
        nodes: from.nodes.iter().map(node).collect(),
        own_dbs: from.role.dbs.iter().map(own).collect(),
        own_nodes: from.role.nodes.iter().map(own).collect(),
        is_gateway: from.role.gateway.is_some(),
        papers: from.member.as_ref().map(Member::papers),
        authority: None,
        seeds: from.seeds.clone(),
    }
}

fn db_status(id: NodeId, status: Option<Status>) -> DbStatus {
    let (leader, state) = status.as_ref().map_or((None, State::Apart), |status| (status.leader, status.state));
    let address = |leader: NodeId| status.as_ref()?.members.get(&leader).cloned();
    let index = |index: fn(&Status) -> Option<u64>| status.as_ref().and_then(index).unwrap_or_default();
    DbStatus {
        node_id: id.0,
        state: match state {
            State::Leader => RaftState::Leader,
            State::Candidate => RaftState::Candidate,
            State::Follower => RaftState::Follower,
            State::Learner | State::Apart => RaftState::Learner,
        },
        leader: leader.map(|leader| leader.0),
        leader_addr: leader.and_then(address),
        term: status.as_ref().map_or(0, |status| status.term),
        commit_index: index(|status| status.committed_index),
        applied_index: index(|status| status.applied_index),
        serving: status.as_ref().is_some_and(|status| !status.read_only && state != State::Apart),
    }
}

fn node_config(config: &Config) -> node::Config {
    let storage = &config.storage;
    let mut node = node::Config::new(&storage.data_dir);
    node.log_cache_bytes = storage.log_cache_bytes;
    node.catalog_cache_bytes = storage.catalog_cache_bytes;
    node.store.inline_bytes = storage.inline_max_bytes;
    node.store.budget_bytes = storage.memory_budget_bytes;
    node.store.low_water_bytes = storage.low_water_bytes;
    node.store.sweep_grace = storage.sweep_grace;
    node.store.repair_grace = storage.repair_grace;
    node.store.session_expiry = storage.session_expiry;
    node.store.renew_interval = node.store.renew_interval.min(storage.session_expiry / RENEWALS);
    node.store.sweep_interval = storage.sweep_interval;
    node.store.scrub_interval = storage.scrub_interval;
    node.clean_interval = storage.clean_interval;
    node.feature_level = test_feature_level().unwrap_or(node.feature_level);
    node
}

/// The feature level that a test passes a debug build off as having; no other build can be.
fn test_feature_level() -> Option<u32> {
    let given = cfg!(debug_assertions).then(|| std::env::var("PREDASTORE_TEST_FEATURE_LEVEL").ok()).flatten()?;
    given.parse().ok()
}

fn figures(status: &Status, store: &object::Store) -> Vec<Figure> {
    let pressure = match store.pressure() {
        Pressure::None => 0,
        Pressure::NearFull => 1,
        Pressure::Full => 2,
    };
    let index = |index: Option<u64>| index.unwrap_or_default();
    // Who led before knows what it saw then.
    let leads = status.leader == Some(status.node);
    let upkeep = if leads { store.upkeep() } else { Upkeep::default() };
    let (log, apply) = (&status.log, &status.apply);
    [
        ("read_only", "1: the log lost acknowledged writes, reads only", u64::from(status.read_only)),
        ("pressure", "How full the disk is: 0 fine, 1 nearly full, 2 full", pressure),
        ("memory_budget_taken_bytes", "Bytes of bodies held in memory", store.budget_taken_bytes()),
        (
            "chunks_below_target",
            "Chunks to be repaired, when the leader last looked; 0 where another leads",
            upkeep.below_target_count,
        ),
        (
            "chunks_lost",
            "Chunks that cannot be read: too few shards are left; on a box, damaged ones that the scrub found",
            upkeep.lost_count,
        ),
        ("chunks_to_move", "Chunks that lie elsewhere than the map wants them", upkeep.to_move_count),
        ("recounts", "Comparisons of the catalog with all shard nodes, by the leader", upkeep.recount_count),
        ("scrub_passes", "Passes over all that a box, or one shard node, has, by the leader", upkeep.scrub_pass_count),
        ("raft_leads", "1: this process leads", u64::from(leads)),
        ("raft_term", "Term of Raft", status.term),
        ("raft_last_index", "Last entry in the log", index(status.last_index)),
        ("raft_committed_index", "Last committed entry", index(status.committed_index)),
        ("raft_applied_index", "Last entry applied to the catalog", index(status.applied_index)),
        ("raft_queued_bytes", "Commands that were proposed and are not applied yet", status.queued_bytes),
        ("log_records", "Records made durable since the start", log.records),
        ("log_record_bytes", "Their bytes", log.bytes),
        ("log_syncs", "Batches, each one write and one fdatasync", log.syncs),
        ("log_waiters", "Calls acknowledged; over log_syncs: how many shared one", log.waiters),
        ("log_sync_sum_us", "Time in write and fdatasync", log.sync_us_sum),
        ("log_sync_max_us", "The slowest batch", log.sync_us_max),
        ("log_files", "Files that hold the log", log.files),
        ("log_spares", "Pre-written files that are ready", log.spares),
        ("log_queued_bytes", "Bytes queued and not yet durable", log.queued_bytes),
        ("catalog_batches", "Transactions since the start", apply.batches),
        ("catalog_entries", "Entries in them", apply.entries),
        ("catalog_apply_sum_us", "Time in them", apply.us_sum),
        ("catalog_apply_max_us", "The slowest", apply.us_max),
        ("catalog_syncs", "Synced states of the catalog", apply.syncs),
        ("catalog_sync_max_us", "The slowest", apply.sync_us_max),
    ]
    .into_iter()
    .map(|(name, help, value)| Figure { name, help, value: value as f64 })
    .collect()
}

impl Frontend {
    /// `authority`: who may do what. Its metrics go to `registry`.
    pub(crate) fn new(config: &Config, store: &Store, authority: Arc<Authority>, registry: &mut Registry) -> Self {
        let server = &config.server;
        let metrics = Metrics::default();
        metrics.register(registry);
        let s3 = app::Config {
            region: config.region.clone(),
            domains: server.domains.clone(),
            stall: server.body_timeout,
            tls: server.tls != Tls::Off,
            tells_events: config.nats.as_ref().is_some_and(|nats| nats.events.is_some()),
        };
        let limits = Limits {
            headers: server.header_timeout,
            stall: server.body_timeout,
            drain: server.drain_timeout,
            ..Limits::default()
        };
        let app = App::new(store.store.clone(), s3, authority, metrics, Env::system().random_u64());
        Frontend { app, limits }
    }

    /// Serves `listener` until `stop`, then lets running requests end for a while.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        tls: Option<ServerConfig>,
        stop: CancellationToken,
    ) -> Result<()> {
        predastore_s3::server::serve(listener, tls.map(Arc::new), self.app.router(), self.limits, stop.cancelled())
            .await;
        Ok(())
    }
}

/// Who may do what: `accounts`, the users of the catalog and of `directory`, and anybody in public buckets.
///
/// # Errors
/// What an account may do cannot be said in a policy.
pub(crate) fn authority(
    config: &Config,
    store: &Store,
    accounts: &[Account],
    directory: Option<Arc<dyn Directory>>,
) -> Result<Arc<Authority>> {
    let public = config.buckets.iter().filter(|bucket| bucket.public).map(|bucket| bucket.name.clone());
    let mut callers = accounts.iter().cloned().map(caller).collect::<Result<Vec<_>>>()?;
    // The first one is root.
    callers.iter_mut().take(1).for_each(|root| root.crosses_accounts = true);
    let authority = Authority::new(store.store.clone(), callers, public.collect());
    Ok(Arc::new(match directory {
        Some(directory) => authority.with_directory(directory),
        None => authority,
    }))
}

/// The holder of a key of the configuration.
fn caller(account: Account) -> Result<Caller> {
    let policy = account.policy.map(|grants| policy_of(&grants)).transpose();
    let policy = policy.with_context(|| format!("what access key {} may do", account.access_key))?;
    let secret = Secret::new(account.secret.reveal());
    let policies = policy.map(|policy| [policy].into_iter().collect());
    // What the configuration grants, it grants wherever that is.
    let crosses_accounts = policies.is_some();
    let caller = Caller::plain(account.access_key, account.account_id, None, secret);
    Ok(Caller { policies, crosses_accounts, ..caller })
}

/// Grants as a policy: actions on a bucket and all in it.
fn policy_of(grants: &[Grant]) -> Result<Policy> {
    let statements: Vec<_> = grants
        .iter()
        .map(|grant| {
            let bucket = format!("arn:aws:s3:::{}", grant.bucket);
            json!({"Effect": "Allow", "Action": grant.actions, "Resource": [bucket, format!("{bucket}/*")]})
        })
        .collect();
    let document = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    Ok(Policy::parse(document.as_bytes(), policy::Kind::Identity)?)
}

/// Verifies the stopped store of `config` completely.
///
/// # Errors
/// It cannot be read at all, or is in use.
pub(crate) async fn check(config: &Config) -> Result<Findings> {
    check_one_box(config)?;
    let report = predastore::check::check(&config.storage.data_dir, |_| {}).await?;
    Ok(Findings { damage: report.findings.iter().map(ToString::to_string).collect(), summary: summary(&report) })
}

fn summary(report: &Report) -> String {
    let verdict = if report.findings.is_empty() { "clean" } else { "DAMAGED" };
    format!(
        "{verdict}: {} log records, {} versions, {} chunks of {} bytes and {} bodies in the catalog verified; \
         {} chunks to reclaim, {} orphans, {} in quarantine, {} foreign files",
        report.log_record_count,
        report.version_count,
        report.chunk_count,
        report.chunk_bytes,
        report.inline_count,
        report.reclaimable_count,
        report.orphan_count,
        report.quarantined_count,
        report.foreign_count
    )
}

/// Opens the store once with a log that has lost acknowledged entries, so that it takes writes again. Says what it did.
///
/// # Errors
/// It cannot be opened, or is in use.
pub(crate) async fn recover(config: &Config) -> Result<String> {
    check_one_box(config)?;
    drop(node::DataDir::open_existing(&config.storage.data_dir)?);
    let node = Node::open(Env::system(), node::Config { accept_loss: true, ..node_config(config) }).await?;
    let last_index = node.status().last_index.unwrap_or_default();
    node.shutdown().await;
    Ok(format!("the store takes writes again; its log ends at entry {last_index}"))
}
