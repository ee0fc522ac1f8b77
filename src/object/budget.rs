//! Memory for bytes in flight: one budget for the process.
//!
//! Invariants
//! - A request takes all it will ever hold at once, before its first byte, and gives it back when it ends: nobody who
//!   holds memory waits for more.
//! - A body that is kept in the catalog holds its memory until the fate of its command is known. How much of commands
//!   may be on its way beyond that (their proposers wait no longer) is bounded where they are proposed: `Overloaded`.
//! - A part is for what mounts write, on its way into staging files: that may wait for commits, which take of the rest.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;

const UNIT_BYTES: u64 = 1024;

/// The part of the budget, one in so many, that is for what mounts write.
const WRITES_PART: u32 = 8;

/// So much memory, given back when dropped.
pub(super) type Permit = OwnedSemaphorePermit;

/// The budget.
pub(super) struct Budget {
    units: Arc<Semaphore>,
    /// As many as there are.
    unit_count: u32,
    /// For what mounts write.
    writes: Arc<Semaphore>,
    writes_unit_count: u32,
    patience: Duration,
}

impl Budget {
    pub(super) fn new(bytes: u64, patience: Duration) -> Self {
        let whole = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).max(2);
        let writes_unit_count = (whole / WRITES_PART).max(1);
        let unit_count = whole - writes_unit_count;
        let semaphore = |count: u32| Arc::new(Semaphore::new(count as usize));
        let (units, writes) = (semaphore(unit_count), semaphore(writes_unit_count));
        Budget { units, unit_count, writes, writes_unit_count, patience }
    }

    /// Waits, for as long as it takes, for `bytes` (at most all there is) of the part that is for what mounts write.
    pub(super) async fn take_for_write(&self, bytes: u64) -> Option<Permit> {
        let units = units(bytes).min(self.writes_unit_count);
        // It is never closed.
        self.writes.clone().acquire_many_owned(units).await.ok()
    }

    /// Waits for `bytes` (at most all that is not for mounts' writes), in order of arrival.
    ///
    /// # Errors
    /// `Overloaded`: not within the budget's patience.
    pub(super) async fn take(&self, bytes: u64) -> Result<Permit, Error> {
        let units = units(bytes).min(self.unit_count);
        match tokio::time::timeout(self.patience, self.units.clone().acquire_many_owned(units)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Error::Overloaded),
        }
    }

    /// Takes `bytes` if they are there and nobody waits for them.
    pub(super) fn try_take(&self, bytes: u64) -> Option<Permit> {
        self.units.clone().try_acquire_many_owned(units(bytes)).ok()
    }

    /// What is taken now, bytes.
    pub(super) fn taken_bytes(&self) -> u64 {
        let taken = |all: u32, units: &Semaphore| (all as usize).saturating_sub(units.available_permits());
        (taken(self.unit_count, &self.units) + taken(self.writes_unit_count, &self.writes)) as u64 * UNIT_BYTES
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn what_mounts_write_has_a_part_of_its_own() {
        let budget = Budget::new(64 * UNIT_BYTES, Duration::from_millis(1));
        let rest = budget.take(u64::MAX).await.unwrap();
        assert_eq!(budget.taken_bytes(), 56 * UNIT_BYTES);
        assert!(matches!(budget.take(1).await, Err(Error::Overloaded)));
        let write = budget.take_for_write(u64::MAX).await.unwrap();
        assert_eq!(budget.taken_bytes(), 64 * UNIT_BYTES);
        let (mut next, pause) = (std::pin::pin!(budget.take_for_write(1)), Duration::from_millis(5));
        assert!(tokio::time::timeout(pause, &mut next).await.is_err());
        drop(write);
        assert!(next.await.is_some());
        drop(rest);
        assert_eq!(budget.taken_bytes(), 0);
    }
}
