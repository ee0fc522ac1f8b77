//! Keeps the log short: syncs the catalog, then purges the log up to it.
//!
//! openraft purges only what a snapshot covers, and here a snapshot is a synced catalog: so one is "built" first. And it
//! puts a purge off while it sends a peer entries from before its end; a peer that is slow but alive can make that last
//! for ever.
//!
//! Invariant: what peers hold back is bounded by [`Limits`], however slow they are. Who needs more gets a snapshot.

use std::time::{Duration, Instant};

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
    /// With more entries than this, no peer is sent old ones any more.
    pub(super) hold_count: u64,
    /// With more files than this, neither: nothing is held back, not even for a peer that is getting a snapshot.
    pub(super) hold_max_files: u64,
}

/// Looks at the log this often while it grows, and not at all while it does not.
const PAUSE: Duration = Duration::from_millis(200);

/// How the log stands.
#[derive(Clone, Copy, Debug)]
struct View {
    first_index: u64,
    next_index: u64,
    files: u64,
    /// Where it was to begin, as last asked for.
    asked: u64,
    /// The last entry that no snapshot on its way needs to be followed by; None: there is no such snapshot.
    last_free: Option<u64>,
}

/// What is to be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Nothing,
    /// Sends nobody anything from before this entry.
    Cut(u64),
    /// Purges, up to this entry at most.
    Purge {
        last: u64,
        keep_count: u64,
    },
}

impl Limits {
    fn step(&self, view: &View) -> Step {
        let held_count = view.next_index - view.first_index;
        let is_overlong = view.files > self.hold_max_files;
        if view.first_index < view.asked {
            // A peer is being sent what is to go.
            return if is_overlong || held_count > self.hold_count { Step::Cut(view.asked) } else { Step::Nothing };
        }
        let too_many_files = view.files > self.max_files;
        let is_long = too_many_files || held_count > self.keep_count.saturating_mul(5);
        let last = view.last_free.filter(|_| !is_overlong).unwrap_or(u64::MAX);
        match is_long && last >= view.first_index {
            true => Step::Purge { last, keep_count: if too_many_files { 0 } else { self.keep_count } },
            false => Step::Nothing,
        }
    }
}

/// Runs until the core stops.
pub(super) async fn run(core: Core, log: Log, limits: Limits) {
    let mut progress = core.raft.data_metrics();
    let mut asked = 0;
    while progress.changed().await.is_ok() {
        // A purge that a leader put off is forgotten with its lead.
        let is_leader = core.raft.server_metrics().borrow_watched().state.is_leader();
        let view = View {
            first_index: log.first_index(),
            next_index: log.next_index(),
            files: log.stats().files,
            asked: if is_leader { asked } else { 0 },
            last_free: core.holds.last_free(Instant::now()),
        };
        match limits.step(&view) {
            Step::Nothing => {}
            Step::Cut(index) => core.holds.cut_before(index),
            Step::Purge { last, keep_count } => match purge(&core, last, keep_count).await {
                Ok(first_index) => asked = first_index,
                Err(error) => tracing::warn!("the log was not trimmed: {error}"),
            },
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns where the log is to begin then.
async fn purge(core: &Core, last: u64, keep_count: u64) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    let applied = core.raft.data_metrics().borrow_watched().last_applied;
    core.raft.trigger().snapshot().await?;
    let synced = |metrics: &openraft::RaftMetrics<super::TypeConfig>| metrics.snapshot >= applied;
    let metrics = core.raft.wait(Some(Duration::from_secs(60))).metrics(synced, "the catalog is synced").await?;
    let Some(synced) = metrics.snapshot else { return Ok(0) };
    let last = synced.index.saturating_sub(keep_count).min(last);
    core.raft.trigger().purge_log(last).await?;
    Ok(last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { keep_count: 10, max_files: 4, hold_count: 100, hold_max_files: 8 };

    fn step(range: std::ops::Range<u64>, files: u64, asked: u64, last_free: Option<u64>) -> Step {
        LIMITS.step(&View { first_index: range.start, next_index: range.end, files, asked, last_free })
    }

    #[test]
    fn a_long_log_is_purged() {
        assert_eq!(step(20..70, 1, 20, None), Step::Nothing);
        assert_eq!(step(20..71, 1, 20, None), Step::Purge { last: u64::MAX, keep_count: 10 });
        assert_eq!(step(20..30, 5, 20, None), Step::Purge { last: u64::MAX, keep_count: 0 });
    }

    /// And not synced again and again meanwhile.
    #[test]
    fn a_slow_peer_is_waited_for_until_the_log_is_too_long() {
        assert_eq!(step(20..120, 8, 61, None), Step::Nothing);
        assert_eq!(step(20..121, 1, 61, None), Step::Cut(61));
        assert_eq!(step(20..70, 9, 61, None), Step::Cut(61));
    }

    #[test]
    fn what_follows_a_snapshot_on_its_way_stays_until_the_log_is_too_long() {
        assert_eq!(step(20..500, 1, 20, Some(40)), Step::Purge { last: 40, keep_count: 10 });
        assert_eq!(step(41..500, 8, 41, Some(40)), Step::Nothing);
        assert_eq!(step(41..500, 9, 41, Some(40)), Step::Purge { last: u64::MAX, keep_count: 0 });
    }
}
