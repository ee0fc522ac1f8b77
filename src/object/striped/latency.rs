//! How long the latest calls of one kind took. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Calls that are remembered.
const SAMPLE_COUNT: usize = 64;
/// Fewer tell nothing.
const SAMPLES_MIN: usize = 8;
/// What is older than this tells nothing: a node that was slow is tried again.
const FRESH: Duration = Duration::from_secs(15);

/// The latest calls of one kind to one node.
#[derive(Clone, Debug)]
pub(super) struct Latency {
    samples_us: [u32; SAMPLE_COUNT],
    /// How many calls there were.
    count: usize,
    newest: Option<Instant>,
}

impl Latency {
    pub(super) fn new() -> Latency {
        Latency { samples_us: [0; SAMPLE_COUNT], count: 0, newest: None }
    }

    /// A call took so long, or was given up after that.
    pub(super) fn note(&mut self, took: Duration, now: Instant) {
        if self.newest.is_some_and(|newest| now.duration_since(newest) > FRESH) {
            self.count = 0;
        }
        self.samples_us[self.count % SAMPLE_COUNT] = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.count += 1;
        self.newest = Some(now);
    }

    /// What 95 of 100 calls did not exceed; none if too little is known.
    pub(super) fn p95(&self, now: Instant) -> Option<Duration> {
        let len = self.count.min(SAMPLE_COUNT);
        if len < SAMPLES_MIN || self.newest.is_none_or(|newest| now.duration_since(newest) > FRESH) {
            return None;
        }
        let mut samples = self.samples_us;
        let (_, p95, _) = samples[..len].select_nth_unstable(len * 95 / 100);
        Some(Duration::from_micros(u64::from(*p95)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_slowest_twentieth_does_not_count() {
        let (mut latency, now) = (Latency::new(), Instant::now());
        (1..8).for_each(|_| latency.note(MS, now));
        assert_eq!(latency.p95(now), None, "too few");
        (0..33).for_each(|_| latency.note(MS, now));
        latency.note(1000 * MS, now);
        assert_eq!(latency.p95(now), Some(MS));
        (0..8).for_each(|_| latency.note(1000 * MS, now));
        assert_eq!(latency.p95(now), Some(1000 * MS));
        (0..64).for_each(|_| latency.note(2 * MS, now));
        assert_eq!(latency.p95(now), Some(2 * MS), "old calls are forgotten");
    }

    #[test]
    fn what_was_long_ago_tells_nothing() {
        let (mut latency, now) = (Latency::new(), Instant::now());
        (0..64).for_each(|_| latency.note(500 * MS, now));
        let later = now + FRESH + MS;
        assert_eq!(latency.p95(later), None);
        (0..8).for_each(|_| latency.note(MS, later));
        assert_eq!(latency.p95(later), Some(MS));
    }
}
