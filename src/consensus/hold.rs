//! What the log is kept for beside what this node needs itself: peers that are on their way.
//!
//! Invariants
//! - The entries after a snapshot stay while it is sent, and a moment longer, until the peer is sent them: without them
//!   the snapshot would be in vain. Each such hold ends by itself at its deadline.
//! - Entries from before the cut are sent to nobody: openraft keeps what it is sending, and lets go when sending fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the entries after a snapshot stay once it is installed: its peer is sent them at once.
const GRACE: Duration = Duration::from_secs(10);

/// See the module; clones share it.
#[derive(Clone, Default)]
pub(super) struct Holds {
    snapshots: Arc<Mutex<Snapshots>>,
    cut: Arc<AtomicU64>,
}

#[derive(Default)]
struct Snapshots {
    next_ticket: u64,
    /// The last entry covered, and until when it counts.
    held: BTreeMap<u64, (u64, Instant)>,
}

/// Keeps the entries after one snapshot, until it is dropped.
pub(super) struct Hold {
    holds: Holds,
    ticket: u64,
    /// Then it ends by itself.
    is_installed: bool,
}

impl Holds {
    fn snapshots(&self) -> MutexGuard<'_, Snapshots> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what comes after the entry at `index`, no longer than that.
    pub(super) fn after(&self, index: u64, until: Instant) -> Hold {
        let mut snapshots = self.snapshots();
        let ticket = snapshots.next_ticket;
        snapshots.next_ticket += 1;
        snapshots.held.insert(ticket, (index, until));
        Hold { holds: self.clone(), ticket, is_installed: false }
    }

    /// The last entry that may go; None: nothing is kept.
    pub(super) fn last_free(&self, now: Instant) -> Option<u64> {
        let mut snapshots = self.snapshots();
        snapshots.held.retain(|_, (_, until)| *until > now);
        snapshots.held.values().map(|(index, _)| *index).min()
    }

    /// Entries before `index` are sent to nobody any more.
    pub(super) fn cut_before(&self, index: u64) {
        self.cut.fetch_max(index, Ordering::SeqCst);
    }

    pub(super) fn is_cut(&self, index: u64) -> bool {
        index < self.cut.load(Ordering::SeqCst)
    }
}

impl Hold {
    /// It counts no longer than that.
    pub(super) fn set_until(&self, until: Instant) {
        if let Some(held) = self.holds.snapshots().held.get_mut(&self.ticket) {
            held.1 = until;
        }
    }

    /// The snapshot is installed.
    pub(super) fn installed(mut self, now: Instant) {
        self.set_until(now + GRACE);
        self.is_installed = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.is_installed {
            self.holds.snapshots().held.remove(&self.ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_held_is_free_once_nobody_needs_it() {
        let (holds, now) = (Holds::default(), Instant::now());
        assert_eq!(holds.last_free(now), None);
        let (first, second) = (holds.after(7, now + MINUTE), holds.after(5, now + MINUTE));
        assert_eq!(holds.last_free(now), Some(5));
        drop(second);
        assert_eq!(holds.last_free(now), Some(7), "it failed");
        first.installed(now);
        assert_eq!(holds.last_free(now), Some(7), "its peer is still to be sent what follows");
        assert_eq!(holds.last_free(now + GRACE), None);
    }

    #[test]
    fn a_hold_ends_at_its_deadline() {
        let (holds, now) = (Holds::default(), Instant::now());
        let hold = holds.after(7, now + MINUTE);
        hold.set_until(now + MINUTE * 2);
        assert_eq!(holds.last_free(now + MINUTE), Some(7));
        assert_eq!(holds.last_free(now + MINUTE * 2), None);
        hold.set_until(now + MINUTE * 3);
        assert_eq!(holds.last_free(now + MINUTE * 2), None, "what is gone does not come back");
    }

    #[test]
    fn the_cut_never_goes_back() {
        let holds = Holds::default();
        assert!(!holds.is_cut(0));
        holds.cut_before(10);
        holds.cut_before(5);
        assert!(holds.is_cut(9) && !holds.is_cut(10));
    }
}
