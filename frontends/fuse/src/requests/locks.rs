//! Locks: flock and fcntl, which this frontend cannot tell apart.
//!
//! The crate fuser says of a lock whose it is and from where to where, not which call it came from. So a lock by flock
//! is one on the whole file, as on NFS, and excludes locks by fcntl of the same file.
//!
//! Invariants
//! - Who gets a lock sees what others wrote while they had it: what the kernel keeps of the file is dropped before the answer.
//! - Who waits for a lock and is sent a signal is answered EINTR, and the kernel asks again if the program has it so.

use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use predastore::ids::Ino;
use predastore::object::tree::{LOCK_END, Lock, WHOLE};

use super::{Call, Requests};
use crate::namespace::Namespace;
use crate::patience::{Deadline, Repeat};
use crate::signals::Waiter;

/// How long who waits for a lock may be deaf to a signal.
const SIGNAL_PATIENCE: Duration = Duration::from_millis(100);

/// A lock as the kernel names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    pub(crate) owner: u64,
    pub(crate) first: u64,
    /// The last byte, not the one after it.
    pub(crate) last: u64,
    /// Of the open file.
    pub(crate) handle: u64,
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub(crate) kind: i32,
    pub(crate) pid: u32,
}

impl Asked {
    /// None: all bytes are to be let go.
    fn lock(self) -> Result<Option<Lock>, Errno> {
        let is_exclusive = match self.kind {
            libc::F_RDLCK => false,
            libc::F_WRLCK => true,
            libc::F_UNLCK => return Ok(None),
            _ => return Err(Errno::EINVAL),
        };
        let Asked { owner, first, pid, handle: opened, .. } = self;
        Ok(Some(Lock { owner, start_bytes: first, end_bytes: self.end()?, is_exclusive, opened, pid }))
    }

    fn end(self) -> Result<u64, Errno> {
        let end = self.last.saturating_add(1).min(LOCK_END);
        if self.first < end { Ok(end) } else { Err(Errno::EINVAL) }
    }
}

impl<T: Namespace> Requests<T> {
    /// Locks bytes of a file, or lets them go. `waiter`: the thread that waits until it has the lock.
    pub(crate) async fn lock(&self, call: &Call, ino: Ino, asked: Asked, waiter: Option<Waiter>) -> Result<(), Errno> {
        let Some(lock) = asked.lock()? else {
            let range = asked.first..asked.end()?;
            let unlock = || self.tree.unlock(ino, asked.owner, range.clone(), None);
            return self.ask(call, ino, Repeat::Safe, unlock).await;
        };
        match waiter {
            Some(waiter) => self.wait_for_lock(call, ino, lock, waiter).await,
            None => self.try_lock(call, ino, lock, Duration::ZERO).await,
        }
    }

    async fn wait_for_lock(&self, call: &Call, ino: Ino, lock: Lock, mut waiter: Waiter) -> Result<(), Errno> {
        loop {
            let call = Call { deadline: Deadline::after(self.options.deadline, false), ..*call };
            match self.try_lock(&call, ino, lock, SIGNAL_PATIENCE).await {
                Err(Errno::EAGAIN) => {}
                Err(Errno::EIO) if self.options.hard => tokio::time::sleep(SIGNAL_PATIENCE).await,
                outcome => return outcome,
            }
            if waiter.is_called_away().await || self.invalidations.is_closed() {
                return Err(Errno::EINTR);
            }
        }
    }

    async fn try_lock(&self, call: &Call, ino: Ino, lock: Lock, patience: Duration) -> Result<(), Errno> {
        self.ask(call, ino, Repeat::Safe, || self.tree.lock(ino, lock, patience)).await?;
        let told = self.ask(call, ino, Repeat::Safe, || self.tree.caught_up()).await;
        if told.is_ok() {
            self.invalidations.told().await;
        }
        // Who was answered EIO, or is, takes it that there is no lock.
        if told.is_err() || call.deadline.has_passed() {
            let range = lock.start_bytes..lock.end_bytes;
            let unlock = || self.tree.unlock(ino, lock.owner, range.clone(), None);
            self.ask(call, ino, Repeat::Safe, unlock).await?;
            return Err(Errno::EIO);
        }
        Ok(())
    }

    /// A lock that keeps one from being had; none: nothing does.
    pub(crate) async fn lock_in_the_way(&self, call: &Call, ino: Ino, asked: Asked) -> Result<Option<Asked>, Errno> {
        let Some(lock) = asked.lock()? else { return Err(Errno::EINVAL) };
        let found = self.ask(call, ino, Repeat::Safe, || self.tree.lock_in_the_way(ino, lock)).await?;
        Ok(found.map(|found| Asked {
            owner: found.owner,
            first: found.start_bytes,
            last: if found.end_bytes == LOCK_END { LOCK_END } else { found.end_bytes - 1 },
            kind: if found.is_exclusive { libc::F_WRLCK } else { libc::F_RDLCK },
            pid: found.pid,
            handle: found.opened,
        }))
    }

    /// A close: all that its owner has locked of the file is let go. `handle`: if it was locked last through that open file.
    pub(crate) async fn unlock_all(&self, call: &Call, ino: Ino, owner: u64, handle: Option<u64>) -> Result<(), Errno> {
        self.ask(call, ino, Repeat::Safe, || self.tree.unlock(ino, owner, WHOLE, handle)).await
    }
}
