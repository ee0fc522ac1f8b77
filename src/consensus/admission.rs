//! How much may be on its way at once: commands that were proposed and whose fate is open.
//!
//! Invariant: a command holds its room from before openraft has it until it is applied, or openraft gives it up; whether
//! its proposer still waits or not. So what is queued in openraft, in the log and before the catalog is bounded by the
//! room there is, however slow the disk, and nobody waits for room: who finds none is told so.

use std::sync::Arc;

use openraft::raft::responder::Responder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::types::{Command, TypeConfig};
use crate::catalog::LedgerError;

/// What is counted. A command takes one unit more than its bytes fill, for what is kept of it beside them.
const UNIT_BYTES: usize = 1024;

/// The room that there is; clones share it.
#[derive(Clone)]
pub(super) struct Admission {
    units: Arc<Semaphore>,
    unit_count: usize,
}

/// A command's share of the room, given back when dropped.
pub(super) type Room = OwnedSemaphorePermit;

impl Admission {
    /// `bytes`: the commands that may be on their way together.
    pub(super) fn new(bytes: usize) -> Admission {
        let unit_count = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Admission { units: Arc::new(Semaphore::new(unit_count)), unit_count }
    }

    /// # Errors
    /// `Overloaded`: there is no room now.
    pub(super) fn admit(&self, command: &Command) -> Result<Room, LedgerError> {
        // Alone, any command may pass.
        let units = (1 + command.0.len().div_ceil(UNIT_BYTES)).min(self.unit_count);
        let units = u32::try_from(units).map_err(|_| LedgerError::Overloaded)?;
        self.units.clone().try_acquire_many_owned(units).map_err(|_| LedgerError::Overloaded)
    }

    /// What is taken now, bytes.
    pub(super) fn taken_bytes(&self) -> u64 {
        (self.unit_count - self.units.available_permits()) as u64 * UNIT_BYTES as u64
    }
}

/// What openraft holds of a proposal until its fate is known.
pub(super) struct Proposed<T> {
    tell: oneshot::Sender<T>,
    room: Room,
}

impl<T> Proposed<T> {
    pub(super) fn new(room: Room) -> (Proposed<T>, oneshot::Receiver<T>) {
        let (tell, told) = oneshot::channel();
        (Proposed { tell, room }, told)
    }
}

impl<T: Send + 'static> Responder<TypeConfig, T> for Proposed<T> {
    fn on_complete(self, result: T) {
        // First the room: who hears of the answer finds it free.
        drop(self.room);
        // Its proposer may wait no longer.
        let _ = self.tell.send(result);
    }
}
