//! Who has locked which bytes of an inode.
//!
//! Invariants
//! - Of two locks that overlap, of different owners, none is exclusive. An owner's locks do not overlap, and those of a kind
//!   do not touch.
//! - A lock is a live session's: it ends with it, with its mount, or when it is let go.

use std::ops::Range;

use rusqlite::params;

use crate::catalog::changes::Notice;
use crate::catalog::level::LOCKS_LEVEL;
use crate::catalog::{Bucket, Error, LOCK_END, Lock, Refusal};
use crate::ids::{Ino, SessionId};

use super::super::{Decision, Step, bound, sql, unsql};

/// What one owner may have locked of an inode.
const RANGE_COUNT_MAX: usize = 1024;

/// A row of the table, of one owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Locked {
    pub(super) range: Range<u64>,
    pub(super) is_exclusive: bool,
    pub(super) opened: u64,
    pub(super) pid: u32,
}

impl Step<'_> {
    pub(super) fn lock(&mut self, bucket: &Bucket, mount: u64, ino: Ino, lock: &Lock) -> Decision<()> {
        let range = lock.start_bytes..lock.end_bytes;
        self.check_range(&range)?;
        let others = "SELECT 1 FROM lock WHERE ino=?1 AND NOT (mount=?2 AND owner=?3) AND start<?5 AND end>?4
            AND (exclusive OR ?6)";
        let asked = params![
            sql(ino.0),
            sql(mount),
            sql(lock.owner),
            sql(lock.start_bytes),
            sql(lock.end_bytes),
            lock.is_exclusive
        ];
        if self.exists(others, asked)? {
            return Err(Refusal::LockHeld.into());
        }
        let had = self.locked_by((mount, lock.owner), ino)?;
        let Lock { is_exclusive, opened, pid, .. } = *lock;
        let has = with(without(&had, &range), Locked { range, is_exclusive, opened, pid });
        if has.len() > RANGE_COUNT_MAX {
            return Err(Refusal::TooManyLocks.into());
        }
        Ok(self.write_locks(bucket, (mount, lock.owner), ino, &had, &has)?)
    }

    pub(super) fn unlock(&mut self, bucket: &Bucket, of: (u64, u64), ino: Ino, range: &Range<u64>) -> Decision<()> {
        self.check_range(range)?;
        let had = self.locked_by(of, ino)?;
        Ok(self.write_locks(bucket, of, ino, &had, &without(&had, range))?)
    }

    fn check_range(&self, range: &Range<u64>) -> Result<(), Refusal> {
        bound(self.state.level >= LOCKS_LEVEL, "locks need feature level 3")?;
        bound(range.start < range.end && range.end <= LOCK_END, "a lock has 1 to 2^63 - 1 bytes")
    }

    /// What an owner has locked, ascending.
    fn locked_by(&self, (mount, owner): (u64, u64), ino: Ino) -> Result<Vec<Locked>, Error> {
        let query =
            "SELECT start, end, exclusive, pid, opened FROM lock WHERE ino=? AND mount=? AND owner=? ORDER BY start";
        self.all(query, [sql(ino.0), sql(mount), sql(owner)], |row| {
            let range = unsql(row.get(0)?)..unsql(row.get(1)?);
            Ok(Locked { range, is_exclusive: row.get(2)?, opened: unsql(row.get(4)?), pid: row.get(3)? })
        })
    }

    fn write_locks(
        &mut self,
        bucket: &Bucket,
        (mount, owner): (u64, u64),
        ino: Ino,
        had: &[Locked],
        has: &[Locked],
    ) -> Result<(), Error> {
        let of = [sql(ino.0), sql(mount), sql(owner)];
        let delete = "DELETE FROM lock WHERE ino=? AND mount=? AND owner=? AND start=?";
        for gone in had.iter().filter(|row| !has.contains(row)) {
            self.run(delete, params![of[0], of[1], of[2], sql(gone.range.start)])?;
        }
        let insert = "INSERT INTO lock(ino, mount, owner, start, end, exclusive, opened, pid, bucket, session)
            VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        for Locked { range, is_exclusive, opened, pid } in has.iter().filter(|row| !had.contains(row)) {
            let (start, end) = (sql(range.start), sql(range.end));
            let (bucket, session) = (sql(bucket.id.0), sql(self.session.0));
            let row = params![of[0], of[1], of[2], start, end, is_exclusive, sql(*opened), pid, bucket, session];
            self.run(insert, row)?;
        }
        if !had.is_empty() && had != has {
            self.tell_unlocked(ino);
        }
        Ok(())
    }

    /// A session or a mount ends, and what it has locked is free.
    fn drop_locks(&mut self, of: &str, id: u64) -> Result<(), Error> {
        let query = format!("SELECT DISTINCT ino FROM lock WHERE {of}=? ORDER BY ino");
        for ino in self.all(&query, [sql(id)], |row| Ok(Ino(unsql(row.get(0)?))))? {
            self.tell_unlocked(ino);
        }
        self.run(&format!("DELETE FROM lock WHERE {of}=?"), [sql(id)])?;
        Ok(())
    }

    pub(in crate::catalog::apply) fn drop_locks_of_session(&mut self, session: SessionId) -> Result<(), Error> {
        self.drop_locks("session", session.0)
    }

    pub(super) fn drop_locks_of_mount(&mut self, mount: u64) -> Result<(), Error> {
        match self.state.level >= LOCKS_LEVEL {
            true => self.drop_locks("mount", mount),
            false => Ok(()),
        }
    }

    /// Tells who waits that something may be free.
    fn tell_unlocked(&mut self, ino: Ino) {
        if let Some(changes) = &mut self.changes {
            changes.push(Notice::Unlocked(ino));
        }
    }
}

/// What is left of `locks` outside of `range`.
fn without(locks: &[Locked], range: &Range<u64>) -> Vec<Locked> {
    let mut left = Vec::with_capacity(locks.len() + 1);
    for lock in locks {
        let before = lock.range.start..lock.range.end.min(range.start);
        let after = lock.range.start.max(range.end)..lock.range.end;
        left.extend(
            [before, after].into_iter().filter(|part| !part.is_empty()).map(|range| Locked { range, ..lock.clone() }),
        );
    }
    left
}

/// `locks` and one more, which overlaps none; with those of its kind that it touches it becomes one.
fn with(locks: Vec<Locked>, mut new: Locked) -> Vec<Locked> {
    let mut all = Vec::with_capacity(locks.len() + 1);
    for lock in locks {
        let touches = lock.range.end == new.range.start || lock.range.start == new.range.end;
        if touches && lock.is_exclusive == new.is_exclusive {
            new.range = lock.range.start.min(new.range.start)..lock.range.end.max(new.range.end);
        } else {
            all.push(lock);
        }
    }
    all.push(new);
    all.sort_by_key(|lock| lock.range.start);
    all
}
