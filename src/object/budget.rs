//! Memory for bytes in flight: one budget for the process.
//!
//! Invariants
//! - A request takes all it will ever hold at once, before its first byte, and gives it back when it ends: nobody who
//!   holds memory waits for more.
//! - A body that is kept in the catalog holds its memory until the fate of its command is known. How much of commands
//!   may be on its way beyond that (their proposers wait no longer) is bounded where they are proposed: `Overloaded`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;

const UNIT_BYTES: u64 = 1024;

/// So much memory, given back when dropped.
pub(super) type Permit = OwnedSemaphorePermit;

/// The budget.
pub(super) struct Budget {
    units: Arc<Semaphore>,
    unit_count: u32,
    patience: Duration,
}

impl Budget {
    pub(super) fn new(bytes: u64, patience: Duration) -> Self {
        let unit_count = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).max(1);
        Budget { units: Arc::new(Semaphore::new(unit_count as usize)), unit_count, patience }
    }

    /// Waits for `bytes` (at most the whole budget), in order of arrival.
    ///
    /// # Errors
    /// `Overloaded`: not within the budget's patience.
    pub(super) async fn take(&self, bytes: u64) -> Result<Permit, Error> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.unit_count);
        match tokio::time::timeout(self.patience, self.units.clone().acquire_many_owned(units)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Error::Overloaded),
        }
    }

    /// Takes `bytes` if they are there and nobody waits for them.
    pub(super) fn try_take(&self, bytes: u64) -> Option<Permit> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
        self.units.clone().try_acquire_many_owned(units).ok()
    }

    /// What is taken now, bytes.
    pub(super) fn taken_bytes(&self) -> u64 {
        (self.unit_count as usize).saturating_sub(self.units.available_permits()) as u64 * UNIT_BYTES
    }
}
