//! Object lock: what a bucket says of new versions, and who may change how long one is kept.
//!
//! Source: "Locking objects with Object Lock" in AWS's S3 User Guide.
//!
//! ```text
//! setting ObjectLock   0  u8   version: 1
//!                      1  u8   0 GOVERNANCE, 1 COMPLIANCE, 255: new versions are not retained by themselves
//!                      2  u8   0 days, 1 years
//!                      3  u32  how many, little endian; not 0 unless there is no mode
//! ```
//!
//! Invariant: time is the catalog's. What it says is the latest that a leader has said, so no gateway's clock lifts a lock.

use super::types::{Retention, RetentionMode};
use crate::env::Timestamp;

const VERSION: u8 = 1;
const NO_MODE: u8 = 255;
const DAY_S: i64 = 86_400;
/// The catalog's time is told more often than that.
const TICKS_S: i64 = 120;
/// The longest period: a hundred years.
const PERIOD_MAX_DAYS: u64 = 36_500;

/// How long new versions are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Period {
    /// Of 24 hours.
    Days(u32),
    /// Of 365 days.
    Years(u32),
}

impl Period {
    /// None: nothing, or more than a hundred years.
    pub fn days(self) -> Option<u64> {
        let days = match self {
            Period::Days(count) => u64::from(count),
            Period::Years(count) => u64::from(count) * 365,
        };
        (1..=PERIOD_MAX_DAYS).contains(&days).then_some(days)
    }
}

/// What a bucket with object lock says of new versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LockRule {
    /// None: they are not retained by themselves.
    pub default: Option<(RetentionMode, Period)>,
}

impl LockRule {
    /// As it is kept.
    pub fn to_bytes(self) -> [u8; 7] {
        let (mode, unit, count) = match self.default {
            None => (NO_MODE, 0, 0),
            Some((mode, Period::Days(count))) => (mode as u8, 0, count),
            Some((mode, Period::Years(count))) => (mode as u8, 1, count),
        };
        let [a, b, c, d] = count.to_le_bytes();
        [VERSION, mode, unit, a, b, c, d]
    }

    /// None: it was not written by [`LockRule::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<LockRule> {
        let [VERSION, mode, unit, count @ ..] = *<&[u8; 7]>::try_from(bytes).ok()? else { return None };
        let count = u32::from_le_bytes(count);
        let period = match unit {
            0 => Period::Days(count),
            1 => Period::Years(count),
            _ => return None,
        };
        let mode = match mode {
            0 => RetentionMode::Governance,
            1 => RetentionMode::Compliance,
            NO_MODE if count == 0 && unit == 0 => return Some(LockRule::default()),
            _ => return None,
        };
        period.days().map(|_| LockRule { default: Some((mode, period)) })
    }

    /// How a version that is made at `time` is retained.
    pub(super) fn retention(self, time: Timestamp) -> Option<Retention> {
        let (mode, period) = self.default?;
        let days = i64::try_from(period.days()?).ok()?;
        Some(Retention { mode, until: Timestamp(time.0.saturating_add(Timestamp::from_seconds(days * DAY_S).0)) })
    }
}

/// When a version is made that a gateway says is made `now`: not before the catalog's time, nor long after, for that is told
/// now and then only. So it is retained for as long as was said, and no gateway's clock makes much of it.
pub(super) fn now_or_soon(now: Timestamp, time: Timestamp) -> Timestamp {
    now.clamp(time, Timestamp(time.0.saturating_add(Timestamp::from_seconds(TICKS_S).0)))
}

/// Whether the retention of a version may become `wanted` at `time`. While it is retained it may be for longer, in the same
/// mode; all else needs to bypass it, which COMPLIANCE does not allow.
pub(super) fn may_become(had: Option<Retention>, wanted: Option<Retention>, time: Timestamp, bypass: bool) -> bool {
    let Some(had) = had.filter(|had| had.until > time) else { return true };
    let is_longer = wanted.is_some_and(|wanted| wanted.mode == had.mode && wanted.until >= had.until);
    is_longer || bypass && had.mode == RetentionMode::Governance
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rules_read_back_and_are_golden() {
        for (rule, bytes) in [
            (None, [1, 255, 0, 0, 0, 0, 0]),
            (Some((RetentionMode::Governance, Period::Days(7))), [1, 0, 0, 7, 0, 0, 0]),
            (Some((RetentionMode::Compliance, Period::Years(100))), [1, 1, 1, 100, 0, 0, 0]),
        ] {
            let rule = LockRule { default: rule };
            assert_eq!(rule.to_bytes(), bytes);
            assert_eq!(LockRule::from_bytes(&bytes), Some(rule));
        }
        for other in [
            &[][..],
            &[1, 255, 0, 0, 0, 0],
            &[2, 0, 0, 7, 0, 0, 0],
            &[1, 2, 0, 7, 0, 0, 0],
            &[1, 0, 2, 7, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0],
            &[1, 0, 1, 101, 0, 0, 0],
            &[1, 255, 0, 7, 0, 0, 0],
        ] {
            assert_eq!(LockRule::from_bytes(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_period_is_counted_from_the_time_of_the_catalog() {
        let of =
            |period| LockRule { default: Some((RetentionMode::Governance, period)) }.retention(Timestamp(5)).unwrap();
        assert_eq!(of(Period::Days(2)).until, Timestamp(5 + 2 * 86_400 * 1_000_000_000));
        assert_eq!(of(Period::Years(1)).until, of(Period::Days(365)).until);
    }

    #[test]
    fn no_gateways_clock_says_when_a_version_was_made() {
        let minute = 60 * 1_000_000_000;
        for (now, made) in [(0, 7 * minute), (8 * minute, 8 * minute), (70 * minute, 9 * minute)] {
            assert_eq!(now_or_soon(Timestamp(now), Timestamp(7 * minute)), Timestamp(made));
        }
    }

    #[test]
    fn who_may_change_a_retention() {
        use RetentionMode::{Compliance, Governance};
        let of = |mode, until| Some(Retention { mode, until: Timestamp(until) });
        for (had, wanted, plain, bypassing) in [
            (None, of(Governance, 20), true, true),
            (of(Governance, 9), None, true, true),
            (of(Compliance, 10), None, true, true),
            (of(Governance, 20), of(Governance, 20), true, true),
            (of(Governance, 20), of(Governance, 21), true, true),
            (of(Governance, 20), of(Governance, 19), false, true),
            (of(Governance, 20), of(Compliance, 30), false, true),
            (of(Governance, 20), None, false, true),
            (of(Compliance, 20), of(Compliance, 21), true, true),
            (of(Compliance, 20), of(Compliance, 19), false, false),
            (of(Compliance, 20), of(Governance, 30), false, false),
            (of(Compliance, 20), None, false, false),
        ] {
            let may = [false, true].map(|bypass| may_become(had, wanted, Timestamp(10), bypass));
            assert_eq!(may, [plain, bypassing], "{had:?} {wanted:?}");
        }
    }
}
