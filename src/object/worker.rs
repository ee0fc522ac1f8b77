//! The store's background work: small loops around what `reclaim` and `sweep` decide.
//!
//! Each begins at the start or soon after it, not one interval later: a store that is restarted again and again would
//! otherwise pile up what is dead.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinSet;

use crate::catalog::Command;
use crate::env::Timestamp;
use crate::ids::NodeId;
use crate::placement::State;

use super::bucket::done;
use super::expiry::Watch;
use super::mover::MoveReport;
use super::recount::ScrubCursors;
use super::repair::RepairReport;
use super::striped::Striper;
use super::{Error, Store, tree};

/// What died waits this long for more to die with it.
const DRAIN_PAUSE: Duration = Duration::from_millis(100);
/// The dead list is looked at this often even if nobody said that something died; in a cluster nobody does who is not
/// this process.
const DRAIN_INTERVAL: Duration = Duration::from_secs(30);
const CLUSTER_DRAIN_INTERVAL: Duration = Duration::from_secs(2);
/// Copies of prefixes that another process of the cluster has begun are seen after this.
const CLUSTER_CLONE_INTERVAL: Duration = Duration::from_millis(250);
/// Between two looks for chunks below target.
const REPAIR_INTERVAL: Duration = Duration::from_secs(2);
/// Chunks that wait for nodes are looked at again after this, even if no node came or went.
const WAITING_INTERVAL: Duration = Duration::from_secs(60);
/// Between two calls of the scrub.
const SCRUB_PAUSE: Duration = Duration::from_secs(2);
/// Between two looks whether shards are to be moved.
const MOVE_INTERVAL: Duration = Duration::from_secs(2);
/// Chunks that were written under the map of before are found after this at the latest.
const MOVE_REST: Duration = Duration::from_secs(600);
const RECOUNT_INTERVAL: Duration = Duration::from_secs(3600);
const FORGET_INTERVAL: Duration = Duration::from_secs(600);
/// Completed uploads that one command forgets.
const FORGET_ROW_COUNT: u32 = 1000;

/// The running loops; they end when it is dropped.
pub struct Workers(JoinSet<()>);

impl Workers {
    /// Starts them.
    pub fn start(store: &Store) -> Workers {
        let config = &store.config;
        let mut set = JoinSet::new();
        let (at_once, first_sweep) = (Duration::ZERO, config.first_sweep_pause.min(config.sweep_interval));
        // Each by itself: however long reclaiming takes, the session is renewed.
        set.spawn(every(store.clone(), "renewal", at_once, config.renew_interval, renew));
        set.spawn(every(store.clone(), "reclaiming", at_once, config.renew_interval, reclaim));
        set.spawn(every(store.clone(), "sweep", first_sweep, config.sweep_interval, sweep));
        set.spawn(expire_sessions(store.clone()));
        if let Some(map) = config.first_map.clone() {
            set.spawn(store.clone().follow_map(map));
            set.spawn(repair(store.clone()));
            set.spawn(recount_and_scrub(store.clone()));
            set.spawn(rebalance(store.clone()));
        } else {
            set.spawn(scrub_files(store.clone(), first_sweep));
        }
        set.spawn(every(store.clone(), "forgetting of uploads", at_once, FORGET_INTERVAL, forget_completed));
        set.spawn(tree::settle_inheritance(store.clone(), tree::RETURN_PATIENCE));
        set.spawn(drain_when_told(store.clone()));
        set.spawn(clone_when_told(store.clone()));
        set.spawn(every(store.clone(), "forgetting of copies", at_once, FORGET_INTERVAL, forget_clones));
        set.spawn(tick(store.clone()));
        Workers(set)
    }

    /// One more, of somebody else's.
    pub(crate) fn add(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(work);
    }

    /// Ends them, and returns when they have ended.
    pub async fn stop(mut self) {
        self.0.shutdown().await;
    }
}

/// Does `work` after `pause`, and from then on once an interval.
async fn every<F: Future<Output = Result<(), Error>>>(
    store: Store,
    what: &'static str,
    pause: Duration,
    interval: Duration,
    work: impl Fn(Store) -> F,
) {
    tokio::time::sleep(pause).await;
    loop {
        log(what, work(store.clone()).await);
        tokio::time::sleep(interval).await;
    }
}

fn log(what: &'static str, result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::warn!(%error, "{what} failed; it is tried again");
    }
}

async fn renew(store: Store) -> Result<(), Error> {
    store.session.renew().await
}

/// Once reads have moved on, bytes can go.
async fn reclaim(store: Store) -> Result<(), Error> {
    match store.ledger.leads() {
        true => store.reclaim().await.map(|_| ()),
        false => Ok(()),
    }
}

/// Reads all files after `pause`, once an interval, and when somebody asks for it.
async fn scrub_files(store: Store, pause: Duration) {
    let mut pause = pause;
    loop {
        let _ = tokio::time::timeout(pause, store.scrub_due.notified()).await;
        log("the scrub", verify_files(store.clone()).await);
        pause = store.config.scrub_interval;
    }
}

async fn verify_files(store: Store) -> Result<(), Error> {
    let report = store.verify_files().await?;
    let (damaged_count, chunk_count, byte_count) = (report.damaged.len(), report.chunk_count, report.byte_count);
    tracing::info!(chunk_count, byte_count, damaged_count, "all chunks were read");
    Ok(())
}

async fn expire_sessions(store: Store) {
    let mut watch = Watch::default();
    loop {
        tokio::time::sleep(store.config.renew_interval).await;
        match store.ledger.leads() {
            true => log("the end of sessions", store.expire_sessions(&mut watch).await),
            // Whoever leads next, if it is this node again, has not watched all the time.
            false => watch = Watch::default(),
        }
    }
}

async fn sweep(store: Store) -> Result<(), Error> {
    let report = store.sweep().await?;
    tracing::info!(?report, "swept");
    if store.chunks.striper().is_some() && store.ledger.leads() {
        let (noted_count, removed_count) = store.sweep_shards(store.config.sweep_grace).await?;
        tracing::info!(noted_count, removed_count, "swept the shard nodes");
    }
    Ok(())
}

/// Repairs what is below target. What had to wait for nodes is looked at again when other nodes answer than then, or after
/// a while.
async fn repair(store: Store) {
    let Some(striper) = store.chunks.striper().cloned() else { return };
    let mut waiting: Option<(Up, Duration)> = None;
    loop {
        tokio::time::sleep(REPAIR_INTERVAL).await;
        log("reporting damage", store.report_suspects().await);
        if !store.ledger.leads() {
            continue;
        }
        log("counting what is below target", store.count_below_target().await);
        let (up, now) = (up_nodes(&striper), store.env.clock.monotonic());
        if waiting.as_ref().is_some_and(|(then, until)| *then == up && now < *until) {
            continue;
        }
        let report = store.repair().await;
        let ended = store.env.clock.monotonic();
        waiting = None;
        match report {
            Ok(report) if report == RepairReport::default() => {}
            Ok(report) => {
                tracing::info!(?report, "repaired");
                // However many wait, looking at them takes a tenth of the time at most.
                let pause = WAITING_INTERVAL.max(9 * ended.saturating_sub(now));
                waiting = (report.whole_count == 0).then_some((up, ended + pause));
            }
            Err(error) => tracing::warn!(%error, "repair failed; it is tried again"),
        }
    }
}

/// Recounts when this process begins to lead, when a node has come back or was started again, and now and then; scrubs a
/// little in between.
async fn recount_and_scrub(store: Store) {
    let Some(striper) = store.chunks.striper().cloned() else { return };
    let mut cursors = ScrubCursors::default();
    let mut counted_away = HashSet::new();
    let mut counted: Option<(Up, Duration)> = None;
    loop {
        tokio::time::sleep(SCRUB_PAUSE).await;
        if !store.ledger.leads() {
            store.progress.recount_due();
            counted = None;
            // Who asked this process while it led is not to be heard when it leads again.
            let _ = store.scrub_due.notified().now_or_never();
            continue;
        }
        // Whoever serves no traffic learns only so that a node has died.
        striper.probe().await;
        let (up, now) = (up_nodes(&striper), store.env.clock.monotonic());
        let away = store.away();
        let is_stale =
            away != counted_away || counted.as_ref().is_none_or(|(then, _)| up.iter().any(|node| !then.contains(node)));
        counted_away = away.clone();
        if is_stale {
            store.progress.recount_due();
        }
        let is_due = is_stale || counted.as_ref().is_some_and(|(_, at)| now.saturating_sub(*at) >= RECOUNT_INTERVAL);
        match (is_due, &mut counted) {
            (false, Some((then, _))) => *then = up,
            _ => match store.recount(&away).await {
                Ok((marked_count, is_complete)) => {
                    log("counting what is below target", store.count_below_target().await);
                    // Nobody is to take a store for healthy of which a part was not seen.
                    if is_complete {
                        store.progress.recounted();
                    }
                    tracing::info!(marked_count, is_complete, "recounted the shards");
                    counted = Some((up, now));
                }
                Err(error) => {
                    tracing::warn!(%error, "the recount failed; it is tried again");
                    counted = None;
                }
            },
        }
        log("the scrub", store.scrub_a_little(&mut cursors).await);
        if store.scrub_due.notified().now_or_never().is_some() {
            cursors.begin_anew(store.now());
        }
    }
}

/// Moves what lies elsewhere than the map wants: when the map has changed, when a node came or went, and now and then.
async fn rebalance(store: Store) {
    let Some(striper) = store.chunks.striper().cloned() else { return };
    let mut settled: Option<(u64, Up, Duration)> = None;
    loop {
        tokio::time::sleep(MOVE_INTERVAL).await;
        if !store.ledger.leads() {
            settled = None;
            continue;
        }
        let (epoch, up, now) = (striper.map().ring.epoch(), up_nodes(&striper), store.env.clock.monotonic());
        if settled.as_ref().is_some_and(|(then, up_then, until)| *then == epoch && *up_then == up && now < *until) {
            continue;
        }
        match store.rebalance().await {
            Ok(report) => {
                // What began under the map of before may still be named on a node that is being drained.
                let is_draining = striper.map().ring.members().iter().any(|member| member.state == State::Draining);
                let is_done = report.waiting_count + report.failed_count == 0 && !is_draining;
                if report != MoveReport::default() {
                    tracing::info!(?report, epoch, "moved shards");
                }
                let ended = store.env.clock.monotonic();
                let pause = if is_done { MOVE_REST } else { WAITING_INTERVAL };
                settled = Some((epoch, up, ended + pause.max(9 * ended.saturating_sub(now))));
            }
            Err(error) => tracing::warn!(%error, "moving shards failed; it is tried again"),
        }
    }
}

/// The nodes that answer, and which start of each does: one that was started again may have lost what it had.
type Up = Vec<(NodeId, Option<u64>)>;

fn up_nodes(striper: &Striper) -> Up {
    let starts: HashMap<NodeId, Option<u64>> =
        striper.health().into_iter().map(|node| (node.node, node.start)).collect();
    let up = striper.nodes().into_iter().filter(|node| striper.is_up(*node));
    up.map(|node| (node, starts.get(&node).copied().flatten())).collect()
}

async fn forget_completed(store: Store) -> Result<(), Error> {
    if !store.ledger.leads() {
        return Ok(());
    }
    let keep_ns = i64::try_from(store.config.completed_keep.as_nanos()).unwrap_or(i64::MAX);
    let before = Timestamp(store.now().0.saturating_sub(keep_ns));
    let command = Command::ForgetCompleted { before, row_count: FORGET_ROW_COUNT };
    done(store.session.propose_repeatable(command).await?)
}

async fn drain_when_told(store: Store) {
    let interval = if store.chunks.striper().is_some() { CLUSTER_DRAIN_INTERVAL } else { DRAIN_INTERVAL };
    loop {
        if store.ledger.leads() {
            log("draining", store.drain().await);
        }
        let _ = tokio::time::timeout(interval, store.died.notified()).await;
        tokio::time::sleep(DRAIN_PAUSE).await;
    }
}

/// Copies prefixes, and erases them. In a cluster nobody says so who is not this process.
async fn clone_when_told(store: Store) {
    let interval = if store.chunks.striper().is_some() { CLUSTER_CLONE_INTERVAL } else { DRAIN_INTERVAL };
    loop {
        if store.ledger.leads() {
            log("copying prefixes", store.advance_clones().await);
        }
        let _ = tokio::time::timeout(interval, store.cloning.notified()).await;
    }
}

async fn forget_clones(store: Store) -> Result<(), Error> {
    match store.ledger.leads() {
        true => store.forget_clones().await,
        false => Ok(()),
    }
}

/// Advances catalog time by this machine's monotonic clock: a wall clock that jumps ahead opens no lock.
async fn tick(store: Store) {
    let clock = store.env.clock.clone();
    let (began, began_monotonic) = (clock.now(), clock.monotonic());
    let mut first = true;
    loop {
        tokio::time::sleep(if first { Duration::ZERO } else { store.config.tick_interval }).await;
        first = false;
        if !store.ledger.leads() {
            continue;
        }
        let passed = clock.monotonic().saturating_sub(began_monotonic);
        let now = Timestamp(began.0.saturating_add(i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX)));
        let answer = store.session.propose_repeatable(Command::Tick { now }).await;
        log("a tick", answer.map_err(Error::from).and_then(done));
    }
}
