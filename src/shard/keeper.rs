//! Keeping a shard node in order, on timers: shards with which nobody goes on are given up, what is dead is given back.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Error;
use super::clean::Cleaned;
use super::service::ShardService;

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// So many changes that the index has not seen are too many to keep in memory.
const CHANGES_MAX: usize = 20_000;
/// So many dead bytes are worth being given back at once.
const DEAD_MAX_BYTES: u64 = 256 << 20;

/// What was done so far.
struct Keeping {
    /// Where the log was when it was last cleaned; None: at the start, or the last cleaning came to no end.
    cleaned_to: Option<u64>,
    cleaned_at: Instant,
    /// What was said of the last cleaning that failed.
    failure: Option<String>,
}

impl ShardService {
    /// Keeps the node in order until `stop` ends, or until this is dropped. `clean`: how long what little there is to clean
    /// may wait.
    pub async fn run(self, clean: Duration, stop: impl Future<Output = ()> + Send) {
        self.run_every(LOOK_EVERY.min(clean), clean, stop).await;
    }

    pub(super) async fn run_every(self, look: Duration, clean: Duration, stop: impl Future<Output = ()> + Send) {
        let mut keeping = Keeping { cleaned_to: None, cleaned_at: Instant::now(), failure: None };
        let mut ticks = interval(look);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let work = async {
            loop {
                ticks.tick().await;
                self.expire();
                keeping.look(&self, clean).await;
            }
        };
        tokio::select! {
            () = stop => {}
            () = work => {}
        }
    }
}

impl Keeping {
    /// Cleans if it is time.
    async fn look(&mut self, service: &ShardService, clean_every: Duration) {
        let shards = service.shards().clone();
        let end = shards.applied_end();
        let (change_count, dead_bytes) = shards.backlog();
        let is_much = change_count >= CHANGES_MAX || dead_bytes >= DEAD_MAX_BYTES;
        let is_time = self.cleaned_at.elapsed() >= clean_every && self.cleaned_to != Some(end);
        if !is_much && !is_time {
            return;
        }
        self.cleaned_at = Instant::now();
        let cleaned = tokio::task::spawn_blocking(move || shards.clean()).await;
        let cleaned = cleaned.unwrap_or(Err(Error::Closed));
        self.cleaned_to = cleaned.as_ref().is_ok_and(|cleaned| !cleaned.is_unfinished).then_some(end);
        self.note(cleaned);
    }

    /// Says that cleaning fails, or works again, once.
    fn note(&mut self, cleaned: Result<Cleaned, Error>) {
        let failure = cleaned.err().map(|error| error.to_string());
        if failure == self.failure {
            return;
        }
        match &failure {
            Some(error) => tracing::warn!(error, "dead shards cannot be given back"),
            None => tracing::info!("dead shards are given back again"),
        }
        self.failure = failure;
    }
}
