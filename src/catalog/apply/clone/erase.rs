//! Directories removed whole: first their name, at once, then what is in them, some entries a command.
//!
//! Versions go with the directory, as they would if each were deleted by its id: a clone never lies where a lock could hold
//! one of them.

use crate::catalog::event::Happening;
use crate::catalog::{ClonePhase, Error, path};
use crate::ids::Ino;

use super::super::tree::Kind;
use super::super::{Step, sql, unsql};
use super::Job;

impl Step<'_> {
    /// Takes the name of a clone's directory away. False: that name stands for something else by now, or nothing.
    pub(super) fn detach_published(&mut self, job: &Job) -> Result<bool, Error> {
        let Ok(bucket) = super::super::settle(self.bucket(job.state.target))? else { return Ok(false) };
        let (names, _) = path::split(&job.state.to);
        let found = self.directory_under(&bucket, &names)?;
        let Some(found) = found.filter(|found| found.ino == job.state.root) else { return Ok(false) };
        let (parent, name) = self.directory_name(found.ino)?;
        self.detach(job, found.ino, (parent, &name), found.visible)?;
        self.tell_prefix(Happening::DeletedPrefix, bucket.id.root(), (parent, &name))?;
        self.prune(bucket.id.root(), parent)?;
        Ok(true)
    }

    fn detach(&mut self, job: &Job, ino: Ino, (parent, name): (Ino, &[u8]), is_visible: bool) -> Result<(), Error> {
        self.delete_directory_entry(parent, name, is_visible)?;
        let update = "UPDATE dir SET parent=?2, name=x'' WHERE ino=?1";
        self.run(update, [sql(ino.0), sql(job.state.target.0)])?;
        self.run("INSERT INTO detached(clone, ino) VALUES(?, ?)", [sql(job.id.0), sql(ino.0)])?;
        Ok(())
    }

    /// Erases about so many entries more, and what was noted of a clone that was not finished.
    pub(super) fn erase_on(&mut self, job: &mut Job, entry_count: u64) -> Result<(), Error> {
        let mut budget = entry_count;
        while budget > 0 {
            let query = "SELECT ino FROM detached WHERE clone=? ORDER BY ino LIMIT 1";
            let spent = match self.find(query, [sql(job.id.0)], |row| Ok(Ino(unsql(row.get(0)?))))? {
                Some(directory) => self.erase_some(job, directory, budget)?,
                None => self.forget_walk(job.id, budget)?,
            };
            if spent == 0 {
                return self.end_erasing(job);
            }
            budget = budget.saturating_sub(spent);
        }
        Ok(())
    }

    /// Erases entries of a directory without a name, at most `budget`; after the last, the directory. Returns how many.
    fn erase_some(&mut self, job: &Job, directory: Ino, budget: u64) -> Result<u64, Error> {
        let root = Ino(job.state.target.0);
        let mut erased = 0;
        for is_visible in [true, false] {
            for (name, entry) in self.entries_in(directory, is_visible, budget - erased)? {
                let spot = Self::spot_in(root, directory, &name);
                match (entry.kind, is_visible) {
                    (Kind::Directory, _) => self.detach(job, entry.ino, (directory, &name), is_visible)?,
                    (_, true) => self.delete_dentry(&spot, &entry)?,
                    (_, false) => self.delete_history(&spot, &entry)?,
                }
                if entry.kind != Kind::Directory {
                    self.lose_name(root, &entry)?;
                }
                erased += 1;
            }
        }
        if erased < budget {
            self.run("DELETE FROM dir WHERE ino=?", [sql(directory.0)])?;
            self.run("DELETE FROM detached WHERE clone=? AND ino=?", [sql(job.id.0), sql(directory.0)])?;
            return Ok(erased + 1);
        }
        Ok(erased)
    }

    /// Deletes rows of a walk that did not end, at most `budget`. Returns how many.
    fn forget_walk(&mut self, clone: Ino, budget: u64) -> Result<u64, Error> {
        let mut deleted = self.drop_kept(clone, budget)?;
        for (table, key) in [("settled", "source, name"), ("cloning", "source")] {
            let delete = format!(
                "DELETE FROM {table} WHERE clone=?1 AND ({key}) IN
                (SELECT {key} FROM {table} WHERE clone=?1 ORDER BY {key} LIMIT ?2)"
            );
            deleted += self.run(&delete, [sql(clone.0), sql(budget - deleted.min(budget))])? as u64;
        }
        Ok(deleted)
    }

    fn end_erasing(&mut self, job: &mut Job) -> Result<(), Error> {
        job.state.phase = ClonePhase::Failed;
        job.state.ended = Some(self.now);
        self.cache.clones = None;
        match job.state.reason.is_empty() {
            true => self.delete_job(job.id),
            false => self.save_job(job),
        }
    }
}
