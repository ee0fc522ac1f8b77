//! Opening a node: the catalog, then the log, then the two against each other.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openraft::SnapshotPolicy;

use super::Error;
use super::applier::Fatal;
use super::encoding::decode_membership;
use super::found::Founding;
use super::log_store::{LogStore, Reader};
use super::members::OnMember;
use super::trim::Limits;
use super::types::{LogId, Vote, log_id};
use crate::catalog::{self, Catalog};
use crate::env::Env;
use crate::ids::NodeId;
use crate::log::{self, Health, Log, Recovery};

/// How a node is opened.
#[derive(Clone)]
pub struct Options {
    /// Holds `catalog/` and `log/`; made if missing. Keeping a second process out is the caller's.
    pub dir: PathBuf,
    /// This node; the same at every start.
    pub node: NodeId,
    /// Where peers reach it; empty for a node that has none.
    pub address: String,
    /// What becomes of an empty directory.
    pub founding: Founding,
    /// The other db nodes that the configuration names. A node that has any does not found `Alone`: it may have been part
    /// of what they are.
    pub peers: BTreeSet<NodeId>,
    /// Hears where every member is, of each membership that this node comes to know, the stored one included, and where
    /// the nodes are that `founding` tells of. It must not block. An address is as of when its node was added.
    pub on_member: OnMember,
    /// The source of what is random about it.
    pub env: Env,
    /// How often a leader is heard of by nodes that have nothing else to hear from it.
    pub heartbeat: Duration,
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
    /// Entries, and files, beyond which a peer that is slow is no longer sent old entries: it gets a snapshot instead. So
    /// much may the log hold because of peers. No fewer entries than six times `log_keep_count`.
    pub log_hold_count: u64,
    /// See `log_hold_count`. A peer that is getting a snapshot is bounded by this one alone.
    pub log_hold_max_files: u64,
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
            address: String::new(),
            founding: Founding::Alone,
            peers: BTreeSet::new(),
            on_member: Arc::new(|_, _| {}),
            env: Env::system(),
            heartbeat: Duration::from_millis(250),
            catalog: catalog::Options::default(),
            log_file_len_bytes: 64 << 20,
            log_cache_len_bytes: 8 << 20,
            log_keep_count: 10_000,
            log_max_files: 4,
            log_hold_count: 100_000,
            log_hold_max_files: 16,
            accept_loss: false,
            queue_len_bytes: 32 << 20,
            timeout: Duration::from_secs(10),
            fatal: Arc::new(|why| log::end_process(why)),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            keep_count: self.log_keep_count,
            max_files: self.log_max_files,
            // A purge is put off for a moment by any peer.
            hold_count: self.log_hold_count.max(self.log_keep_count.saturating_mul(6)),
            hold_max_files: self.log_hold_max_files.max(self.log_max_files),
        }
    }
}

/// How long nodes wait for each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Timing {
    heartbeat: Duration,
    /// A node that has heard of no leader for a time in this range asks to be it.
    pub(super) election: Range<Duration>,
}

/// A snapshot may take so long to be installed, beside the time of its bytes on the network.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(20 * 60);

impl Timing {
    /// Six heartbeats may be lost, and an election outlasts ten of the slowest syncs: a vote is one, an answer another.
    pub(super) fn new(heartbeat: Duration, slowest_sync: Duration) -> Timing {
        let shortest = (heartbeat * 6).max(slowest_sync * 10).min(Duration::from_secs(30).max(heartbeat * 6));
        Timing { heartbeat, election: shortest..shortest * 2 }
    }
}

/// How long the slowest of a few small syncs takes in `dir`. Blocking.
pub(super) fn slowest_sync(dir: &Path) -> std::io::Result<Duration> {
    use std::io::Write;
    let path = dir.join("sync");
    let mut file = std::fs::File::create(&path)?;
    let mut slowest = Duration::ZERO;
    for _ in 0..4 {
        let started = std::time::Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        slowest = slowest.max(started.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok(slowest)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Ticks are off until it is known that there are peers.
pub(super) fn raft_config(timing: &Timing) -> openraft::Config {
    openraft::Config {
        cluster_name: "predastore".into(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election.start),
        election_timeout_max: millis(timing.election.end),
        install_snapshot_timeout: millis(INSTALL_TIMEOUT),
        // A leader that hears of no quorum falls silent for so long, so that those who hear it may choose another.
        quorum_loss_probe_interval: Some(2 * millis(timing.election.end)),
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
    /// Whether the log may be written.
    pub(super) soundness: Soundness,
    /// Where snapshots are put while they are on their way.
    pub(super) scratch: PathBuf,
    pub(super) timing: Timing,
}

/// What a log is good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Soundness {
    /// It lost nothing, or nothing that counts.
    Sound,
    /// It lost something, and goes on regardless, as another one.
    Renewed,
    /// It lost something, and is not written to.
    Lost,
}

/// Opens catalog and log. Blocking.
pub(super) fn open_files(options: &Options) -> Result<Opened, Error> {
    let scratch = options.dir.join("snapshots");
    empty_dir(&scratch)?;
    let mut catalog = Catalog::open(&options.dir.join("catalog"), options.catalog.clone())?;
    let (log, recovery, soundness) = open_log(options, &mut catalog)?;
    let timing = Timing::new(options.heartbeat, slowest_sync(&scratch)?);
    Ok(Opened { catalog, log, recovery, soundness, scratch, timing })
}

fn empty_dir(dir: &Path) -> std::io::Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir)
}

/// Opens the log, and says what it is good for. A loss is accepted where the catalog has applied all that is missing, and
/// where others have everything: nothing was ever promised on the word of a learner.
fn open_log(options: &Options, catalog: &mut Catalog) -> Result<(Log, Recovery, Soundness), Error> {
    let mut log_options = log::Options::new(options.dir.join("log"));
    log_options.file_len_bytes = options.log_file_len_bytes;
    log_options.cache_len_bytes = options.log_cache_len_bytes;
    log_options.accept_loss = options.accept_loss;
    let (log, recovery) = Log::open(log_options.clone())?;
    let soundness = match &recovery.state {
        Health::Whole => return Ok((log, recovery, Soundness::Sound)),
        _ if options.accept_loss => return Ok((log, recovery, Soundness::Renewed)),
        state if covers(catalog, state) => {
            tracing::warn!("the log has lost its end, but the catalog has applied all of it: going on from there");
            Soundness::Sound
        }
        state if is_learner(options, catalog)? => {
            tracing::warn!("the log of this learner has lost entries ({state:?}): taking them from the others");
            Soundness::Renewed
        }
        state => {
            tracing::error!("the log has lost acknowledged entries ({state:?}): serving reads only");
            return Ok((log, recovery, Soundness::Lost));
        }
    };
    catalog.sync()?;
    log.close();
    log_options.accept_loss = true;
    let (log, recovery) = Log::open(log_options)?;
    Ok((log, recovery, soundness))
}

/// Whether this node is to be a learner, and its catalog does not know it as a voter.
fn is_learner(options: &Options, catalog: &Catalog) -> Result<bool, Error> {
    let stored = decode_membership(&catalog.applied().membership)?;
    Ok(options.founding.is_learner() && stored.voter_ids().all(|voter| voter != options.node.0))
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
    let Some(applied) = applied else { return Ok(()) };
    if store.reader().mark().vote.is_none_or(|vote| vote.leader_id < applied.leader_id) {
        store.raise_vote(Vote { leader_id: applied.leader_id, committed: false }).await?;
    }
    Ok(())
}

/// Which log this is: it says so from its first opening on. One that lost something and goes on regardless is another
/// one from then on: its peers do not take it for what it was.
pub(super) async fn replica(store: &mut LogStore, options: &Options, soundness: Soundness) -> Result<u64, Error> {
    match store.reader().mark().replica {
        0 => {}
        known if soundness != Soundness::Renewed => return Ok(known),
        _ => {}
    }
    let fresh = options.env.random_u64().max(1);
    store.set_replica(fresh).await?;
    Ok(fresh)
}

pub(super) fn applied_id(applied: &catalog::Applied) -> Option<LogId> {
    applied.position.map(log_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_election_outlasts_heartbeats_and_syncs() {
        let timing = |heartbeat, sync| {
            let timing = Timing::new(Duration::from_millis(heartbeat), Duration::from_millis(sync));
            (timing.election.start.as_millis(), timing.election.end.as_millis())
        };
        assert_eq!(timing(250, 4), (1_500, 3_000));
        assert_eq!(timing(250, 400), (4_000, 8_000));
        assert_eq!(timing(250, 60_000), (30_000, 60_000));
    }
}
