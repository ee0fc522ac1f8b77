//! Locks on bytes of files, between all mounts of a bucket: `flock(2)` and `fcntl(2)` through a file system.
//!
//! The catalog decides who has what. Here stands what this mount may have locked, so that a close of a file that nobody has
//! locked costs nothing.
//!
//! Invariants
//! - What the mount may have locked is noted before the catalog is asked, until the catalog has let it go.
//! - Locks are one session's. With it they are lost: nothing is written to the file any more (`NoSession`) until it is
//!   closed, and what was written and not committed is dropped then, for somebody else may have the lock.
//! - What was written under a lock is committed before the lock goes.
//! - What is locked and let go of an inode is so one after another: what is noted here is in the order of the catalog.
//! - The kernel tells of the end of an open file some time after it, and by then its number as an owner may be another's. So
//!   such an end lets go only what was locked through that very file.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::catalog::{Command, FileOperation, LOCK_END, Lock, Origin, Refusal};
use crate::ids::{Ino, SessionId};
use crate::object::Error;
use crate::object::bucket::done;

use super::{Tree, lock, mounting};

/// Every byte that a file may come to have.
pub const WHOLE: Range<u64> = 0..LOCK_END;

/// Inodes that are locked at the same time wait for one another, if they are unlucky.
const TURN_COUNT: usize = 64;

/// What this mount has locked, and who waits here.
#[derive(Default)]
pub(super) struct Locks {
    held: Mutex<HashMap<Ino, Held>>,
    turns: Turns,
    pub(super) waiting: Mutex<HashMap<Ino, Arc<Notify>>>,
    /// What could not be let go: an inode, and an owner.
    due: Mutex<HashSet<(Ino, u64)>>,
}

/// Whose turn it is, of inodes.
struct Turns(Vec<tokio::sync::Mutex<()>>);

impl Default for Turns {
    fn default() -> Self {
        Turns((0..TURN_COUNT).map(|_| tokio::sync::Mutex::default()).collect())
    }
}

/// The locks on an inode.
struct Held {
    session: SessionId,
    /// By owner: the open file through which something was locked last.
    owners: HashMap<u64, u64>,
}

impl Locks {
    async fn turn(&self, ino: Ino) -> tokio::sync::MutexGuard<'_, ()> {
        self.turns.0[ino.0 as usize % TURN_COUNT].lock().await
    }

    /// Notes that an owner may have locked something; whether that is new.
    pub(super) fn note(&self, ino: Ino, (owner, opened): (u64, u64), session: SessionId) -> bool {
        lock(&self.due).remove(&(ino, owner));
        let mut held = lock(&self.held);
        let of_inode = held.entry(ino).or_insert_with(|| Held { session, owners: HashMap::new() });
        of_inode.owners.insert(owner, opened).is_none()
    }

    /// Whether an owner may have locked something, and last through the open file `opened`.
    fn has_through(&self, ino: Ino, owner: u64, opened: u64) -> bool {
        lock(&self.held).get(&ino).is_some_and(|held| held.owners.get(&owner) == Some(&opened))
    }

    fn forget(&self, ino: Ino, owner: Option<u64>) {
        let mut held = lock(&self.held);
        match (held.get_mut(&ino), owner) {
            (None, _) => {}
            (Some(_), None) => drop(held.remove(&ino)),
            (Some(of_inode), Some(owner)) => {
                of_inode.owners.remove(&owner);
                if of_inode.owners.is_empty() {
                    held.remove(&ino);
                }
            }
        }
    }

    /// Whether an owner, or any, may have locked something.
    fn has(&self, ino: Ino, owner: Option<u64>) -> bool {
        let held = lock(&self.held);
        held.get(&ino).is_some_and(|held| owner.is_none_or(|owner| held.owners.contains_key(&owner)))
    }

    /// Who may have locked something.
    fn owners(&self, ino: Ino) -> Vec<u64> {
        lock(&self.held).get(&ino).map(|held| held.owners.keys().copied().collect()).unwrap_or_default()
    }

    /// Whose session's the locks on an inode are.
    fn session(&self, ino: Ino) -> Option<SessionId> {
        lock(&self.held).get(&ino).map(|held| held.session)
    }

    /// Inodes that may be locked.
    pub(super) fn inodes(&self) -> Vec<Ino> {
        lock(&self.held).keys().copied().collect()
    }

    /// Something of an inode may be free; none: of any.
    pub(super) fn wake(&self, ino: Option<Ino>) {
        let waiting = lock(&self.waiting);
        match ino {
            Some(ino) => waiting.get(&ino).into_iter().for_each(|waiter| waiter.notify_waiters()),
            None => waiting.values().for_each(|waiter| waiter.notify_waiters()),
        }
    }

    fn wait_for(&self, ino: Ino) -> Waiting<'_> {
        let freed = lock(&self.waiting).entry(ino).or_default().clone();
        Waiting { locks: self, ino, freed }
    }
}

/// Somebody who waits for a lock.
struct Waiting<'a> {
    locks: &'a Locks,
    ino: Ino,
    freed: Arc<Notify>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.locks.waiting);
        // The table's, and this one's.
        if Arc::strong_count(&self.freed) == 2 {
            waiting.remove(&self.ino);
        }
    }
}

impl Tree {
    /// Locks bytes of an inode, in place of what the owner had locked of them; waits up to `patience` for who has them.
    ///
    /// # Errors
    /// `Refused(LockHeld | TooManyLocks)`. `Refused(NoSession)`: what the mount had locked of the inode is lost.
    /// `Unavailable`.
    pub async fn lock(&self, ino: Ino, wanted: Lock, patience: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        let waiting = self.0.locks.wait_for(ino);
        loop {
            let mut freed = pin!(waiting.freed.notified());
            freed.as_mut().enable();
            match self.try_lock(ino, wanted).await {
                Err(Error::Refused(Refusal::LockHeld)) => {}
                outcome => return outcome,
            }
            if timeout_at(deadline, freed).await.is_err() {
                return Err(Refusal::LockHeld.into());
            }
        }
    }

    async fn try_lock(&self, ino: Ino, wanted: Lock) -> Result<(), Error> {
        let _turn = self.0.locks.turn(ino).await;
        self.check_locks(ino)?;
        // A look costs less than a command that is refused.
        if self.lock_in_the_way(ino, wanted).await?.is_some() {
            return Err(Refusal::LockHeld.into());
        }
        loop {
            let session = self.0.store.session.id();
            self.check_locks(ino)?;
            let is_new = self.0.locks.note(ino, (wanted.owner, wanted.opened), session);
            match self.propose_under(session, self.origin(false), FileOperation::Lock { ino, lock: wanted }).await {
                // Nothing was locked under the session that has ended: the next one will do.
                Err(Error::Refused(Refusal::NoSession)) if is_new && session != self.0.store.session.id() => {
                    self.0.locks.forget(ino, Some(wanted.owner));
                    if self.0.locks.has(ino, None) {
                        return Err(Refusal::NoSession.into());
                    }
                }
                Err(Error::Refused(refusal)) => {
                    if is_new {
                        self.0.locks.forget(ino, Some(wanted.owner));
                    }
                    return Err(refusal.into());
                }
                outcome => return outcome,
            }
        }
    }

    /// Commits what was written to an inode, and lets bytes go that an owner has locked; what it has not does not matter.
    /// `opened`: only if something was locked last through that open file.
    ///
    /// # Errors
    /// As of [`Tree::flush`]: the lock is gone nevertheless. `Refused(NoSession)`: it was lost. `Unavailable`.
    pub async fn unlock(&self, ino: Ino, owner: u64, range: Range<u64>, opened: Option<u64>) -> Result<(), Error> {
        if !self.0.locks.has(ino, Some(owner)) {
            return Ok(());
        }
        let _turn = self.0.locks.turn(ino).await;
        if opened.is_some_and(|opened| !self.0.locks.has_through(ino, owner, opened)) {
            return Ok(());
        }
        self.check_locks(ino)?;
        let flushed = self.flush_unpublished(ino).await;
        self.let_locks_go(ino, owner, range).await?;
        flushed
    }

    /// After the last close of an inode that is known of: lets go all that the mount has locked of it. What the process before
    /// this one saw opened is not counted: the kernel knows.
    pub(super) async fn unlock_all(&self, ino: Ino) {
        if !self.0.locks.has(ino, None) {
            return;
        }
        if self.check_locks(ino).is_err() {
            return self.0.locks.forget(ino, None);
        }
        let _turn = self.0.locks.turn(ino).await;
        // One by one: somebody may open it again meanwhile, and lock it.
        for owner in self.0.locks.owners(ino) {
            if self.0.files.is_open(ino) || self.0.mount.may_have_open(ino) {
                return;
            }
            if let Err(error) = self.let_locks_go(ino, owner, WHOLE).await {
                tracing::warn!(%ino, %error, "a file that was closed is locked yet; it is tried again");
            }
        }
    }

    async fn let_locks_go(&self, ino: Ino, owner: u64, range: Range<u64>) -> Result<(), Error> {
        let Some(session) = self.0.locks.session(ino) else { return Ok(()) };
        let is_whole = range == WHOLE;
        let unlock = FileOperation::Unlock { ino, owner, start_bytes: range.start, end_bytes: range.end };
        let outcome = self.propose_under(session, self.origin(false), unlock).await;
        match (is_whole, &outcome) {
            (true, Ok(())) => self.0.locks.forget(ino, Some(owner)),
            (true, Err(_)) => drop(lock(&self.0.locks.due).insert((ino, owner))),
            (false, _) => {}
        }
        outcome
    }

    /// Lets go what could not be let go before, and what the mount has locked of inodes that are not open.
    pub(super) async fn settle_locks(&self) {
        let due: Vec<_> = lock(&self.0.locks.due).drain().collect();
        for (ino, owner) in due {
            let _turn = self.0.locks.turn(ino).await;
            if self.0.locks.has(ino, Some(owner)) && self.check_locks(ino).is_ok() {
                // If it fails, it is due again.
                let _ = self.let_locks_go(ino, owner, WHOLE).await;
            }
        }
        for ino in self.0.locks.inodes() {
            if !self.0.files.is_open(ino) && !self.0.mount.may_have_open(ino) {
                self.unlock_all(ino).await;
            }
        }
    }

    /// What keeps an owner from a lock, if something does. A process is told only of this gateway.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn lock_in_the_way(&self, ino: Ino, wanted: Lock) -> Result<Option<Lock>, Error> {
        let (mount, session) = (self.0.mount.id(), self.0.store.session.id());
        let query = move |view: &crate::catalog::View<'_>| Ok(view.lock_in_the_way(ino, mount, &wanted)?);
        let found = self.0.store.snapshot(query).await?;
        let told = |pid, of| if of == session { pid } else { 0 };
        Ok(found.map(|held| Lock { pid: told(held.lock.pid, held.session), ..held.lock }))
    }

    /// Refuses where the mount has lost what it had locked of an inode.
    pub(super) fn check_locks(&self, ino: Ino) -> Result<(), Error> {
        match self.0.locks.session(ino) {
            Some(session) if session != self.0.store.session.id() => Err(Refusal::NoSession.into()),
            _ => Ok(()),
        }
    }

    /// Has the catalog do what is for who has locked an inode only, if this mount has.
    /// `origin`: of [`Tree::origin`].
    pub(super) async fn propose_locked(&self, ino: Ino, origin: Origin, operation: FileOperation) -> Result<(), Error> {
        match self.0.locks.session(ino) {
            Some(session) => self.propose_under(session, origin, operation).await,
            None => mounting::propose(&self.0.store, self.0.bucket.id, origin, operation).await,
        }
    }

    /// Whether what is done under `session` is done for who has locked an inode, or nobody has.
    pub(super) fn may_commit_under(&self, ino: Ino, session: SessionId) -> bool {
        self.0.locks.session(ino).is_none_or(|locked| locked == session)
    }

    async fn propose_under(&self, session: SessionId, origin: Origin, operation: FileOperation) -> Result<(), Error> {
        let command = Command::File { bucket: self.0.bucket.id, origin, operation };
        done(self.0.store.session.propose_as(session, command).await?)
    }
}
