//! A histogram of times in buckets that are 1/64 of their value wide: percentiles to 1.6 percent in 30 KiB.

use std::time::Duration;

const FINE_BITS: u32 = 6;
const FINE: u64 = 1 << FINE_BITS;
const BUCKET_COUNT: usize = ((64 - FINE_BITS as usize) + 1) << FINE_BITS;

/// Counts of times.
#[derive(Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKET_COUNT], count: 0, max_ns: 0 }
    }
}

impl Histogram {
    /// Counts one.
    pub(super) fn record(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)] += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds all that `other` counted.
    pub(super) fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.count += other.count;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many were counted.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub(super) fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The time that `percent` of all stay within; zero when nothing was counted.
    pub(super) fn percentile(&self, percent: f64) -> Duration {
        let wanted = ((self.count as f64 * percent / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(upper(index).min(self.max_ns));
            }
        }
        self.max()
    }
}

/// Values below 64 have a bucket each; above, each power of two has 64.
fn bucket(ns: u64) -> usize {
    let shift = (64 - FINE_BITS - 1).saturating_sub((ns | FINE).leading_zeros());
    ((u64::from(shift) << FINE_BITS) + (ns >> shift)) as usize
}

/// The largest value in bucket `index`.
fn upper(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index >> FINE_BITS).saturating_sub(1);
    let base = index - (shift << FINE_BITS);
    // The last bucket ends where u64 does.
    (((u128::from(base) + 1) << shift) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_narrow() {
        let mut last = 0;
        for ns in (0..200_000).chain([u64::MAX / 2, u64::MAX - 1, u64::MAX]) {
            let index = bucket(ns);
            assert!(index >= last && index < BUCKET_COUNT, "{ns}");
            assert!(upper(index) >= ns && upper(index) - ns <= ns / FINE, "{ns} in a bucket up to {}", upper(index));
            last = index;
        }
    }

    #[test]
    fn percentiles_of_a_known_set() {
        let mut halves = [Histogram::default(), Histogram::default()];
        for us in 1..=1000 {
            halves[us as usize % 2].record(Duration::from_micros(us));
        }
        let [mut all, other] = halves;
        all.merge(&other);
        assert_eq!((all.count(), all.max()), (1000, Duration::from_micros(1000)));
        for (percent, us) in [(50.0, 500.0), (99.0, 990.0), (99.9, 999.0), (100.0, 1000.0)] {
            let found = all.percentile(percent).as_secs_f64() * 1e6;
            assert!((found - us).abs() <= us / 50.0, "p{percent}: {found}");
        }
        assert_eq!(Histogram::default().percentile(99.0), Duration::ZERO);
    }
}
