//! Syncing a directory once for all who wait.
//!
//! Invariant: [`GroupSync::sync`] returns `Ok` only after a sync that began after the call did.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// One directory whose syncs are shared.
pub(super) struct GroupSync {
    /// Kept open, so that a lack of descriptors never looks like a failed sync.
    directory: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Syncs begun; one that a caller may share must have a number above what it saw on arrival.
    begun: u64,
    /// The last sync that succeeded.
    done: u64,
    running: bool,
    /// Once a sync failed, all later ones do: what the kernel dropped cannot be synced again.
    failed: Option<i32>,
}

impl GroupSync {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(GroupSync { directory: File::open(path)?, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Makes every change of the directory so far durable.
    pub(super) fn sync(&self, sync: fn(&File) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.lock();
        let wanted = state.begun + 1;
        loop {
            if let Some(errno) = state.failed {
                return Err(io::Error::from_raw_os_error(errno));
            }
            if state.done >= wanted {
                return Ok(());
            }
            state = if state.running {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.lead(state, sync)
            };
        }
    }

    /// Runs one sync without the lock, and tells everybody.
    fn lead<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        sync: fn(&File) -> io::Result<()>,
    ) -> MutexGuard<'a, State> {
        state.begun += 1;
        state.running = true;
        let number = state.begun;
        drop(state);
        let result = sync(&self.directory);
        let mut state = self.lock();
        state.running = false;
        match result {
            Ok(()) => state.done = number,
            Err(error) => state.failed = Some(error.raw_os_error().unwrap_or(nix::libc::EIO)),
        }
        self.changed.notify_all();
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
