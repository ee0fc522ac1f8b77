//! How fast work goes, so that people can be told how long the rest takes.

use std::collections::VecDeque;
use std::time::Duration;

/// What was done longer ago does not count.
const WINDOW: Duration = Duration::from_secs(120);

/// Counts of what was done lately, by a monotonic clock.
#[derive(Clone, Default, Debug)]
pub struct Pace(VecDeque<(Duration, u64)>);

impl Pace {
    /// Notes that `count` more were done by `now`.
    pub fn note(&mut self, now: Duration, count: u64) {
        self.forget(now);
        match self.0.back_mut() {
            // A second is fine enough, and bounds what is kept.
            Some((then, sum)) if now.saturating_sub(*then) < Duration::from_secs(1) => *sum += count,
            _ => self.0.push_back((now, count)),
        }
    }

    /// How long `left_count` more will take; none: nothing was done lately, so nobody can tell.
    pub fn time_left(&mut self, now: Duration, left_count: u64) -> Option<Duration> {
        self.forget(now);
        let (began, _) = self.0.front()?;
        let done_count: u64 = self.0.iter().map(|(_, count)| count).sum();
        let took = now.saturating_sub(*began).max(Duration::from_secs(1));
        (done_count > 0).then(|| took.mul_f64(left_count as f64 / done_count as f64))
    }

    fn forget(&mut self, now: Duration) {
        while self.0.front().is_some_and(|(then, _)| now.saturating_sub(*then) > WINDOW) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn the_rest_takes_as_long_as_what_was_done() {
        let mut pace = Pace::default();
        assert_eq!(pace.time_left(seconds(5), 10), None, "nothing was done");
        (10..20).for_each(|second| pace.note(seconds(second), 3));
        assert_eq!(pace.time_left(seconds(20), 60), Some(seconds(20)));
        assert_eq!(pace.time_left(seconds(20), 0), Some(Duration::ZERO));
        assert_eq!(pace.time_left(seconds(500), 60), None, "that was long ago");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut pace = Pace::default();
        (0..1_000_000).for_each(|step| pace.note(Duration::from_millis(step), 1));
        assert!(pace.0.len() <= 122, "{}", pace.0.len());
    }
}
