//! Opening a node: the catalog, then the log, then the two against each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openraft::SnapshotPolicy;

use super::Error;
use super::applier::Fatal;
use super::log_store::{LogStore, Reader};
use super::trim::Limits;
use super::types::{LogId, Member, Vote, log_id};
use crate::catalog::{self, Catalog};
use crate::ids::NodeId;
use crate::log::{self, Health, Log, Recovery};

/// How a node is opened.
#[derive(Clone)]
pub struct Options {
    /// Holds `catalog/` and `log/`; made if missing. Keeping a second process out is the caller's.
    pub dir: PathBuf,
    /// This node; the same at every start.
    pub node: NodeId,
    /// What peers shall know of it.
    pub member: Member,
    /// Whether an empty directory becomes a cluster of this node alone; otherwise it waits to be added to one.
    pub bootstrap: bool,
    /// Of the catalog.
    pub catalog: catalog::Options,
    /// Length of the log's files, bytes.
    pub log_file_len_bytes: u64,
    /// Bytes of the newest entries that stay in memory.
    pub log_cache_len_bytes: usize,
    /// Entries kept in the log for peers that lag; it is trimmed when it holds five times as many.
    pub log_keep_count: u64,
    /// Files after which the log is trimmed to what the catalog has not synced.
    pub log_max_files: u64,
    /// Take a log that has lost acknowledged entries as it is: what `s3d recover` does, once.
    pub accept_loss: bool,
    /// Commands that may be on their way at once, bytes; what comes beyond is refused. Each is held in memory about
    /// three times: as proposed, as a record of the log, and decoded.
    pub queue_len_bytes: usize,
    /// How long a proposal or a barrier may take.
    pub timeout: Duration,
    /// Ends the process after an error that cannot be survived.
    pub fatal: Fatal,
}

impl Options {
    /// A cluster of one voter in `dir`; proposals and barriers may take ten seconds; a fatal error aborts.
    pub fn new(dir: impl Into<PathBuf>, node: NodeId) -> Options {
        Options {
            dir: dir.into(),
            node,
            member: Member::default(),
            bootstrap: true,
            catalog: catalog::Options::default(),
            log_file_len_bytes: 64 << 20,
            log_cache_len_bytes: 8 << 20,
            log_keep_count: 10_000,
            log_max_files: 4,
            accept_loss: false,
            queue_len_bytes: 32 << 20,
            timeout: Duration::from_secs(10),
            fatal: Arc::new(abort),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { keep_count: self.log_keep_count, max_files: self.log_max_files }
    }
}

fn abort(message: &str) {
    tracing::error!("{message}; stopping, to recover from the log at the next start");
    std::process::abort();
}

/// Heartbeats are for peers, and ticks are off where there are none; an election timeout is far above any fsync.
pub(super) fn raft_config() -> openraft::Config {
    openraft::Config {
        cluster_name: "predastore".into(),
        heartbeat_interval: 500,
        election_timeout_min: 2_000,
        election_timeout_max: 4_000,
        max_payload_entries: 512,
        // The catalog is its own snapshot, and `trim` alone says what goes.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: u64::MAX,
        enable_tick: false,
        enable_pre_vote: Some(true),
        // Entries may have been sent in this term that the log did not keep.
        enable_leader_restore: Some(false),
        ..openraft::Config::default()
    }
}

/// What stands in a directory.
pub(super) struct Opened {
    pub(super) catalog: Catalog,
    pub(super) log: Log,
    pub(super) recovery: Recovery,
    /// Whether the log may be written: it lost nothing, or nothing that counts.
    pub(super) writable: bool,
    /// Where snapshots are put while they are received.
    pub(super) scratch: PathBuf,
}

/// Opens catalog and log. Blocking.
pub(super) fn open_files(options: &Options) -> Result<Opened, Error> {
    let scratch = options.dir.join("snapshots");
    empty_dir(&scratch)?;
    let mut catalog = Catalog::open(&options.dir.join("catalog"), options.catalog.clone())?;
    let (log, recovery, writable) = open_log(options, &mut catalog)?;
    Ok(Opened { catalog, log, recovery, writable, scratch })
}

fn empty_dir(dir: &Path) -> std::io::Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir)
}

/// Opens the log, and says whether it may be written. A loss is accepted where the catalog has applied all that is missing.
fn open_log(options: &Options, catalog: &mut Catalog) -> Result<(Log, Recovery, bool), Error> {
    let mut log_options = log::Options::new(options.dir.join("log"));
    log_options.file_len_bytes = options.log_file_len_bytes;
    log_options.cache_len_bytes = options.log_cache_len_bytes;
    log_options.accept_loss = options.accept_loss;
    let (log, recovery) = Log::open(log_options.clone())?;
    if recovery.state == Health::Whole || options.accept_loss {
        return Ok((log, recovery, true));
    }
    if !covers(catalog, &recovery.state) {
        tracing::error!("the log has lost acknowledged entries ({:?}): serving reads only", recovery.state);
        return Ok((log, recovery, false));
    }
    tracing::warn!("the log has lost its end, but the catalog has applied all of it: going on from there");
    catalog.sync()?;
    log.close();
    log_options.accept_loss = true;
    let (log, recovery) = Log::open(log_options)?;
    Ok((log, recovery, true))
}

/// Whether the catalog has applied everything that the log once held.
fn covers(catalog: &Catalog, state: &Health) -> bool {
    let applied_to = catalog.applied().position.map_or(0, |position| position.index + 1);
    matches!(state, Health::BehindWitness { witnessed_next } if *witnessed_next <= applied_to)
}

/// Refuses a log that does not continue the catalog.
///
/// # Errors
/// `Gap`, `Inconsistent`.
pub(super) async fn check(log: &Log, reader: &Reader, applied: Option<LogId>) -> Result<(), Error> {
    let needed = applied.map_or(0, |applied| applied.index + 1);
    if needed < log.first_index() {
        return Err(Error::Gap { needed, first_index: log.first_index() });
    }
    let Some(applied) = applied else { return Ok(()) };
    let purged = reader.mark().purged.filter(|purged| purged.index == applied.index);
    match reader.log_id(applied.index).await?.or(purged) {
        Some(logged) if logged != applied => {
            Err(Error::Inconsistent(format!("the catalog has applied {applied}, the log has {logged} there")))
        }
        _ => Ok(()),
    }
}

/// A log that was lost with its vote must not lead again in a term that the catalog has seen.
pub(super) async fn raise_vote(store: &mut LogStore, applied: Option<LogId>) -> Result<(), Error> {
    use openraft::storage::RaftLogStorage;
    let Some(applied) = applied else { return Ok(()) };
    if store.reader().mark().vote.is_none_or(|vote| vote.leader_id < applied.leader_id) {
        store.save_vote(&Vote { leader_id: applied.leader_id, committed: false }).await?;
    }
    Ok(())
}

pub(super) fn applied_id(applied: &catalog::Applied) -> Option<LogId> {
    applied.position.map(log_id)
}
