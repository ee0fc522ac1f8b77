//! Keeps the log short: syncs the catalog, then purges the log up to it.
//!
//! openraft purges only what a snapshot covers, and here a snapshot is a synced catalog: so one is "built" first.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;

use super::core::Core;
use crate::log::Log;

/// How much the log may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Entries that stay.
    pub(super) keep_count: u64,
    /// With more files than this nothing stays but what is not synced.
    pub(super) max_files: u64,
}

/// Looks at the log this often while it grows, and not at all while it does not.
const PAUSE: Duration = Duration::from_millis(200);

impl Limits {
    fn exceeded(&self, log: &Log) -> bool {
        let held_count = log.next_index() - log.first_index();
        held_count > self.keep_count.saturating_mul(5) || self.too_many_files(log)
    }

    fn too_many_files(&self, log: &Log) -> bool {
        log.stats().files > self.max_files
    }
}

/// Runs until the core stops.
pub(super) async fn run(core: Core, log: Log, limits: Limits) {
    let mut progress = core.raft.data_metrics();
    while progress.changed().await.is_ok() {
        if limits.exceeded(&log)
            && let Err(error) = trim(&core, &log, limits).await
        {
            tracing::warn!("the log was not trimmed: {error}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn trim(core: &Core, log: &Log, limits: Limits) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let applied = core.raft.data_metrics().borrow_watched().last_applied;
    core.raft.trigger().snapshot().await?;
    let synced = |metrics: &openraft::RaftMetrics<super::TypeConfig>| metrics.snapshot >= applied;
    let metrics = core.raft.wait(Some(Duration::from_secs(60))).metrics(synced, "the catalog is synced").await?;
    let synced_index = metrics.snapshot.map_or(0, |snapshot| snapshot.index);
    let keep_count = if limits.too_many_files(log) { 0 } else { limits.keep_count };
    core.raft.trigger().purge_log(synced_index.saturating_sub(keep_count)).await?;
    Ok(())
}
