//! Copies of whole prefixes, as they stood at one moment.
//!
//! - `copy`: entries copied, some a command, into directories that nobody sees; then one name makes them seen.
//! - `preserve`: what a writer is about to change is copied first. `erase`: whole directories removed, some entries a command.
//!
//! Invariants
//! - A clone is what was visible under its prefix when it began: `Begin` is its moment, however long it takes.
//! - It shows nothing until it is whole, and all of it from then on: its directory gets its name in one command.
//! - What is copied has a node of its own that shows the same bytes: neither side sees what the other does later.
//! - A directory without a name has a row in `detached`, and `dir` says the bucket's root and no name for it. So it is
//!   counted in its bucket, nobody finds it, and its clone's row in `job` says what becomes of it.

mod copy;
mod erase;
mod preserve;

use rusqlite::params;

use crate::catalog::clone::JOB_KIND;
use crate::catalog::level::CLONES_LEVEL;
use crate::catalog::{Bucket, CloneOperation, ClonePhase, CloneState, Error, Outcome, Refusal, Versioning, path};
use crate::ids::{BucketId, Ino};
use crate::units::KEY_MAX_BYTES;

use super::state::Directory;
use super::{Decision, Step, bound, sql, unsql};

/// Clones that may be copied at once: each costs every writer a look.
const COPYING_COUNT_MAX: usize = 8;
const LABEL_MAX_BYTES: usize = 255;

/// A clone while a command works on it.
struct Job {
    id: Ino,
    state: CloneState,
    /// Whether what it copies becomes null versions.
    makes_null: bool,
    /// Whether what it copies may be locked there, which the copy is not.
    source_locks: bool,
}

/// Where a copy is to be, and of what.
struct Ends<'a> {
    source: BucketId,
    prefix: &'a [u8],
    target: BucketId,
    to: &'a [u8],
    label: &'a str,
}

impl Step<'_> {
    pub(super) fn clone(&mut self, operation: &CloneOperation) -> Decision<Outcome> {
        bound(self.state.level >= CLONES_LEVEL, "clones need feature level 4")?;
        match operation {
            CloneOperation::Begin { source, prefix, target, to, label } => {
                self.begin_clone(&Ends { source: *source, prefix, target: *target, to, label })
            }
            CloneOperation::Advance { clone, entry_count } => self.advance_clone(*clone, *entry_count),
            CloneOperation::Remove { clone } => self.remove_clone(*clone),
            CloneOperation::Forget { clone } => self.forget_clone(*clone),
        }
    }

    fn begin_clone(&mut self, ends: &Ends<'_>) -> Decision<Outcome> {
        let is_prefix = |key: &[u8]| key.ends_with(b"/") && key.len() < KEY_MAX_BYTES;
        bound(ends.prefix.is_empty() || is_prefix(ends.prefix), "a prefix ends in / and has fewer than 1,024 bytes")?;
        bound(is_prefix(ends.to), "the new prefix ends in / and has fewer than 1,024 bytes")?;
        bound(ends.label.len() <= LABEL_MAX_BYTES, "a snapshot's name has at most 255 bytes")?;
        let (source, target) = (self.bucket(ends.source)?, self.bucket(ends.target)?);
        if target.lock {
            return Err(Refusal::InvalidBucketState.into());
        }
        let from = self.visible_directory(&source, ends.prefix)?.ok_or(Refusal::NoSuchKey)?;
        let (names, rest) = path::split(ends.to);
        bound(rest.is_empty(), "the new prefix has at most 128 components")?;
        if self.directory_under(&target, &names)?.is_some() || self.is_spoken_for(ends)? {
            return Err(Refusal::EntryExists.into());
        }
        if self.copying()?.len() >= COPYING_COUNT_MAX {
            return Err(Refusal::TooManyClones.into());
        }
        let id = self.take_id();
        let root = self.make_detached(&target, id, from)?;
        let insert = "INSERT INTO cloning(clone, source, target, next, depth, key_bytes) VALUES(?, ?, ?, x'', ?, ?)";
        let (depth, key_bytes) = (names.len() as i64, ends.to.len() as i64);
        self.run(insert, params![sql(id.0), sql(from.0), sql(root.0), depth, key_bytes])?;
        let state = CloneState {
            source: ends.source,
            source_name: source.name,
            prefix: ends.prefix.to_vec(),
            target: ends.target,
            to: ends.to.to_vec(),
            label: ends.label.to_owned(),
            root,
            began: self.now,
            ended: None,
            phase: ClonePhase::Copying,
            reason: String::new(),
            object_count: 0,
            size_bytes: 0,
        };
        let insert = "INSERT INTO job(id, kind, state) VALUES(?, ?, ?)";
        self.run(insert, params![sql(id.0), JOB_KIND, state.encode()])?;
        self.cache.clones = None;
        Ok(Outcome::Cloning { clone: id, is_over: false })
    }

    /// The directory of a prefix, if something is visible in it.
    fn visible_directory(&mut self, bucket: &Bucket, prefix: &[u8]) -> Decision<Option<Ino>> {
        let (names, rest) = path::split(prefix);
        bound(rest.is_empty(), "a prefix has at most 128 components")?;
        let found = self.directory_under(bucket, &names)?.filter(|found| found.visible);
        let Some(Directory { ino, .. }) = found else { return Ok(None) };
        let is_empty = !self.exists("SELECT 1 FROM dentry WHERE parent=? LIMIT 1", [sql(ino.0)])?;
        Ok((!is_empty).then_some(ino))
    }

    /// The directory at the end of a path, whether it shows something or holds only history.
    fn directory_under(&mut self, bucket: &Bucket, names: &[&[u8]]) -> Result<Option<Directory>, Error> {
        let mut at = Directory { ino: bucket.id.root(), visible: true };
        for name in names {
            match self.directory(at.ino, name)? {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// Whether another clone will have the place, or a snapshot has the name.
    fn is_spoken_for(&self, ends: &Ends<'_>) -> Result<bool, Error> {
        let has_place = |state: &CloneState| state.to == ends.to && state.phase == ClonePhase::Copying;
        let has_label = |state: &CloneState| {
            !ends.label.is_empty()
                && state.label == ends.label
                && matches!(state.phase, ClonePhase::Copying | ClonePhase::Done)
        };
        let all = self.all_clones()?;
        Ok(all.iter().any(|(_, state)| state.target == ends.target && (has_place(state) || has_label(state))))
    }

    /// A directory without a name, with the attributes of `like`.
    fn make_detached(&mut self, bucket: &Bucket, clone: Ino, like: Ino) -> Result<Ino, Error> {
        let ino = self.take_id();
        let insert = "INSERT INTO dir(ino, parent, name, attrs) SELECT ?1, ?2, x'', attrs FROM dir WHERE ino=?3";
        self.run(insert, [sql(ino.0), sql(bucket.id.0), sql(like.0)])?;
        self.run("INSERT INTO detached(clone, ino) VALUES(?, ?)", [sql(clone.0), sql(ino.0)])?;
        Ok(ino)
    }

    fn advance_clone(&mut self, clone: Ino, entry_count: u32) -> Decision<Outcome> {
        let in_bounds = (1..=crate::catalog::CLONE_STEP_MAX).contains(&entry_count);
        bound(in_bounds, "1 to 1,024 entries a command")?;
        let mut job = self.job(clone)?.ok_or(Refusal::NoEntry)?;
        match job.state.phase {
            ClonePhase::Copying => self.copy_on(&mut job, u64::from(entry_count))?,
            ClonePhase::Erasing => self.erase_on(&mut job, u64::from(entry_count))?,
            ClonePhase::Done | ClonePhase::Failed => {}
        }
        Ok(Outcome::Cloning { clone, is_over: !job.state.phase.is_under_way() })
    }

    fn remove_clone(&mut self, clone: Ino) -> Decision<Outcome> {
        let mut job = self.job(clone)?.ok_or(Refusal::NoEntry)?;
        match job.state.phase {
            ClonePhase::Copying => job.state.phase = ClonePhase::Erasing,
            ClonePhase::Done => {
                if !self.detach_published(&job)? {
                    self.delete_job(clone)?;
                    return Ok(Outcome::Cloning { clone, is_over: true });
                }
                job.state.phase = ClonePhase::Erasing;
            }
            ClonePhase::Erasing => {}
            ClonePhase::Failed => {
                self.delete_job(clone)?;
                return Ok(Outcome::Cloning { clone, is_over: true });
            }
        }
        self.save_job(&job)?;
        self.cache.clones = None;
        Ok(Outcome::Cloning { clone, is_over: false })
    }

    fn forget_clone(&mut self, clone: Ino) -> Decision<Outcome> {
        let job = self.job(clone)?.ok_or(Refusal::NoEntry)?;
        let is_over = !job.state.phase.is_under_way();
        if is_over {
            self.delete_job(clone)?;
        }
        Ok(Outcome::Cloning { clone, is_over })
    }

    /// Before a bucket goes: refuses while a clone in it is built or erased, and forgets those that are over.
    pub(super) fn check_no_clones(&mut self, bucket: BucketId) -> Decision<()> {
        if self.state.level < CLONES_LEVEL {
            return Ok(());
        }
        let here: Vec<_> = self.all_clones()?.into_iter().filter(|(_, state)| state.target == bucket).collect();
        if here.iter().any(|(_, state)| state.phase.is_under_way()) {
            return Err(Refusal::BucketNotEmpty.into());
        }
        here.iter().try_for_each(|(clone, _)| Ok(self.delete_job(*clone)?))
    }

    fn all_clones(&self) -> Result<Vec<(Ino, CloneState)>, Error> {
        let query = "SELECT id, state FROM job WHERE kind=? ORDER BY id";
        let rows = self.all(query, [JOB_KIND], |row| Ok((Ino(unsql(row.get(0)?)), row.get::<_, Vec<u8>>(1)?)))?;
        rows.into_iter().map(|(id, state)| Ok((id, CloneState::decode(&state)?))).collect()
    }

    fn job(&mut self, id: Ino) -> Result<Option<Job>, Error> {
        let query = "SELECT state FROM job WHERE kind=? AND id=?";
        let found = self.find(query, params![JOB_KIND, sql(id.0)], |row| row.get::<_, Vec<u8>>(0))?;
        let Some(state) = found.map(|bytes| CloneState::decode(&bytes)).transpose()? else { return Ok(None) };
        let target = super::settle(self.bucket(state.target))?.ok();
        let source = super::settle(self.bucket(state.source))?.ok();
        Ok(Some(Job {
            id,
            makes_null: target.is_none_or(|bucket| bucket.versioning != Versioning::Enabled),
            // What is left of a bucket that is gone was copied out of it before.
            source_locks: source.is_none_or(|bucket| bucket.lock),
            state,
        }))
    }

    fn save_job(&self, job: &Job) -> Result<(), Error> {
        self.run("UPDATE job SET state=?2 WHERE id=?1", params![sql(job.id.0), job.state.encode()])?;
        Ok(())
    }

    fn delete_job(&mut self, id: Ino) -> Result<(), Error> {
        self.run("DELETE FROM job WHERE id=?", [sql(id.0)])?;
        self.cache.clones = None;
        Ok(())
    }

    /// Gives a clone up: what there is of it is erased.
    fn fail(&mut self, job: &mut Job, reason: &str) {
        job.state.phase = ClonePhase::Erasing;
        job.state.reason = reason.to_owned();
        self.cache.clones = None;
    }
}
