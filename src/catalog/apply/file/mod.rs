//! What a file system does to a bucket: names, attributes, contents.
//!
//! - `names`: entries of directories made, linked, moved and removed. `inode`: attributes by inode.
//! - `content`: the bytes of a file changed in place. `orphan`: inodes without a name that may be open. `lock`: who excludes
//!   whom.
//!
//! Invariants
//! - A name of POSIX stands for the directory of that name where there is one, else for the object.
//! - A directory that a file system changes is explicit: it has a marker (the empty name) in it, or is the root. So only
//!   `rmdir` removes it.
//! - Where versions are or were kept, an object that a file system removes, moves or changes leaves what S3 would leave:
//!   a delete marker, a version.
//! - A request of a mount's kernel is done once: what was done stays known until its answer was given, or the mount ends.
//! - A file of several names, or of none, carries its length, time and tag itself; of any other its entry does.

mod content;
mod inode;
mod lock;
mod names;
mod orphan;

use crate::catalog::level::FILES_LEVEL;
use crate::catalog::{Bucket, Error, FileOperation, Origin, Outcome, Refusal};
use crate::ids::BucketId;

use super::{Decision, Step, bound, sql};

/// Answered requests that one command may name.
const ANSWERED_COUNT_MAX: usize = 256;

impl Step<'_> {
    pub(super) fn file(&mut self, bucket: BucketId, origin: &Origin, operation: &FileOperation) -> Decision<Outcome> {
        bound(self.state.level >= FILES_LEVEL, "a file system needs feature level 2")?;
        bound(origin.answered.len() <= ANSWERED_COUNT_MAX, "at most 256 answered requests a command")?;
        let bucket = self.bucket(bucket)?;
        self.mount = origin.mount;
        let decision = match self.was_done(origin)? {
            true => Ok(()),
            false => self.operate(&bucket, origin, operation),
        };
        self.forget_answered(origin)?;
        decision?;
        self.note_done(origin)?;
        Ok(Outcome::Done)
    }

    fn operate(&mut self, bucket: &Bucket, origin: &Origin, operation: &FileOperation) -> Decision<()> {
        match operation {
            FileOperation::Mount => self.mount(bucket),
            FileOperation::Unmount { is_last } => self.unmount(bucket, origin.mount, *is_last),
            FileOperation::Hold { seen, inos } => self.hold(bucket, *seen, inos),
            FileOperation::Release { inos } => self.release(inos),
            FileOperation::Lock { ino, lock } => self.lock(bucket, origin.mount, *ino, lock),
            FileOperation::Unlock { ino, owner, start_bytes, end_bytes } => {
                self.unlock(bucket, (origin.mount, *owner), *ino, &(*start_bytes..*end_bytes))
            }
            _ if bucket.lock => Err(Refusal::ReadOnly.into()),
            FileOperation::Make { parent, name, new } => self.make(bucket, (*parent, name), new),
            FileOperation::Link { ino, hint, parent, name } => self.link(bucket, (*ino, hint), (*parent, name)),
            FileOperation::Unlink { parent, name } => self.unlink(bucket, (*parent, name)),
            FileOperation::RemoveDirectory { parent, name } => self.remove_directory(bucket, (*parent, name)),
            FileOperation::Rename { from, to, mode } => self.rename(bucket, (from.0, &from.1), (to.0, &to.1), *mode),
            FileOperation::SetAttrs { ino, hint, set } => self.set_posix(bucket, (*ino, hint), set),
            FileOperation::SetXattr { ino, hint, name, value, expected } => {
                self.set_xattr(bucket, (*ino, hint), (name, value.as_deref()), *expected)
            }
            FileOperation::Write(write) => self.write(bucket, write, None),
            FileOperation::WriteAndSet { write, set } => self.write_and_set(bucket, write, set),
            FileOperation::Compact(write) => self.compact(write),
            FileOperation::Accessed(times) => self.note_accesses(times),
        }
    }

    /// Whether a request that is made once more was done the first time.
    fn was_done(&self, origin: &Origin) -> Result<bool, Error> {
        if origin.request == 0 {
            return Ok(false);
        }
        self.exists("SELECT 1 FROM answered WHERE mount=? AND request=?", [sql(origin.mount), sql(origin.request)])
    }

    fn forget_answered(&self, origin: &Origin) -> Result<(), Error> {
        for request in &origin.answered {
            self.run("DELETE FROM answered WHERE mount=? AND request=?", [sql(origin.mount), sql(*request)])?;
        }
        Ok(())
    }

    fn note_done(&self, origin: &Origin) -> Result<(), Error> {
        if origin.request != 0 {
            let insert = "INSERT OR IGNORE INTO answered(mount, request) VALUES(?, ?)";
            self.run(insert, [sql(origin.mount), sql(origin.request)])?;
        }
        Ok(())
    }
}
