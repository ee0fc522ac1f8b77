//! The store's background work: small loops around what `reclaim` and `sweep` decide.
//!
//! Each begins at the start or soon after it, not one interval later: a store that is restarted again and again would
//! otherwise pile up what is dead.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::catalog::Command;
use crate::env::Timestamp;

use super::bucket::done;
use super::{Error, Store};

/// What died waits this long for more to die with it.
const DRAIN_PAUSE: Duration = Duration::from_millis(100);
/// The dead list is looked at this often even if nobody said that something died.
const DRAIN_INTERVAL: Duration = Duration::from_secs(30);
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
        set.spawn(every(store.clone(), "renewal", at_once, config.renew_interval, renew_and_reclaim));
        set.spawn(every(store.clone(), "sweep", first_sweep, config.sweep_interval, sweep));
        set.spawn(every(store.clone(), "forgetting of uploads", at_once, FORGET_INTERVAL, forget_completed));
        set.spawn(drain_when_told(store.clone()));
        set.spawn(tick(store.clone()));
        Workers(set)
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

/// Once reads have moved on, bytes can go.
async fn renew_and_reclaim(store: Store) -> Result<(), Error> {
    store.session.renew().await?;
    store.reclaim().await.map(|_| ())
}

async fn sweep(store: Store) -> Result<(), Error> {
    let report = store.sweep().await?;
    tracing::info!(?report, "swept");
    Ok(())
}

async fn forget_completed(store: Store) -> Result<(), Error> {
    let keep_ns = i64::try_from(store.config.completed_keep.as_nanos()).unwrap_or(i64::MAX);
    let before = Timestamp(store.now().0.saturating_sub(keep_ns));
    let command = Command::ForgetCompleted { before, row_count: FORGET_ROW_COUNT };
    done(store.session.propose_repeatable(command).await?)
}

async fn drain_when_told(store: Store) {
    loop {
        log("draining", store.drain().await);
        let _ = tokio::time::timeout(DRAIN_INTERVAL, store.died.notified()).await;
        tokio::time::sleep(DRAIN_PAUSE).await;
    }
}

/// Advances catalog time by this machine's monotonic clock: a wall clock that jumps ahead opens no lock.
async fn tick(store: Store) {
    let clock = store.env.clock.clone();
    let (began, began_monotonic) = (clock.now(), clock.monotonic());
    loop {
        let passed = clock.monotonic().saturating_sub(began_monotonic);
        let now = Timestamp(began.0.saturating_add(i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX)));
        let answer = store.session.propose_repeatable(Command::Tick { now }).await;
        log("a tick", answer.map_err(Error::from).and_then(done));
        tokio::time::sleep(store.config.tick_interval).await;
    }
}
