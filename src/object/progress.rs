//! How far the upkeep of a cluster is: what its leader knows, and tells people.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::pace::Pace;

/// How far repair and mover are. Only what the leader says counts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Upkeep {
    /// Chunks of which something is missing, or that are laid out otherwise than is wanted.
    pub below_target_count: u64,
    /// Of these, chunks of which fewer shards are left than it takes to read them. On a box: those that the scrub found damaged.
    pub lost_count: u64,
    /// Chunks that lie elsewhere than the map wants them.
    pub to_move_count: u64,
    /// Whether all that the nodes have was compared with the catalog since this process leads, and since the last node
    /// came or went.
    pub is_counted: bool,
    /// Comparisons of the catalog with all shard nodes since the start of the process.
    pub recount_count: u64,
    /// Passes of the scrub over all that one node has, since the start of the process.
    pub scrub_pass_count: u64,
    /// How long repair will take; none: nothing was repaired lately.
    pub repair_left: Option<Duration>,
    /// How long the mover will take, likewise.
    pub move_left: Option<Duration>,
}

/// Notes of those who work.
#[derive(Default)]
pub(super) struct Progress(Mutex<Notes>);

#[derive(Default)]
struct Notes {
    upkeep: Upkeep,
    repairs: Pace,
    moves: Pace,
}

impl Progress {
    fn lock(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `now`: of a monotonic clock, as everywhere here.
    pub(super) fn upkeep(&self, now: Duration) -> Upkeep {
        let notes = &mut *self.lock();
        let mut upkeep = notes.upkeep;
        upkeep.repair_left = notes.repairs.time_left(now, upkeep.below_target_count);
        upkeep.move_left = notes.moves.time_left(now, upkeep.to_move_count);
        upkeep
    }

    pub(super) fn below_target(&self, count: u64) {
        let upkeep = &mut self.lock().upkeep;
        upkeep.below_target_count = count;
        upkeep.lost_count = upkeep.lost_count.min(count);
    }

    /// What a round of repair, or the scrub of a box, could not read.
    pub(super) fn lost(&self, count: u64) {
        self.lock().upkeep.lost_count = count;
    }

    pub(super) fn repaired(&self, now: Duration) {
        self.lock().repairs.note(now, 1);
    }

    pub(super) fn to_move(&self, count: u64) {
        self.lock().upkeep.to_move_count = count;
    }

    pub(super) fn moved(&self, now: Duration) {
        let notes = &mut *self.lock();
        notes.moves.note(now, 1);
        notes.upkeep.to_move_count = notes.upkeep.to_move_count.saturating_sub(1);
    }

    pub(super) fn recounted(&self) {
        let upkeep = &mut self.lock().upkeep;
        upkeep.recount_count += 1;
        upkeep.is_counted = true;
    }

    pub(super) fn scrubbed(&self) {
        self.lock().upkeep.scrub_pass_count += 1;
    }

    /// What was counted is no more to be relied on.
    pub(super) fn recount_due(&self) {
        self.lock().upkeep.is_counted = false;
    }
}
