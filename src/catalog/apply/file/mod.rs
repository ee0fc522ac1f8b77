//! What a file system does to a bucket: names, attributes, contents.
//!
//! - `names`: entries of directories made, linked, moved and removed. `inode`: attributes by inode.
//! - `content`: the bytes of a file changed in place. `orphan`: inodes without a name that may be open.
//!
//! Invariants
//! - A name of POSIX stands for the directory of that name where there is one, else for the object.
//! - A directory that a file system changes is explicit: it has a marker (the empty name) in it, or is the root. So only
//!   `rmdir` removes it.
//! - Where versions are or were kept, an object that a file system removes, moves or changes leaves what S3 would leave:
//!   a delete marker, a version.
//! - A file of several names, or of none, carries its length, time and tag itself; of any other its entry does.

mod content;
mod inode;
mod names;
mod orphan;

use crate::catalog::level::FILES_LEVEL;
use crate::catalog::{FileOperation, Outcome, Refusal};
use crate::ids::BucketId;

use super::{Decision, Step, bound};

impl Step<'_> {
    pub(super) fn file(&mut self, bucket: BucketId, operation: &FileOperation) -> Decision<Outcome> {
        bound(self.state.level >= FILES_LEVEL, "a file system needs feature level 2")?;
        let bucket = self.bucket(bucket)?;
        match operation {
            FileOperation::Mount => self.mount(&bucket)?,
            FileOperation::Unmount => self.unmount(&bucket)?,
            FileOperation::Hold { seen, inos } => self.hold(&bucket, *seen, inos)?,
            FileOperation::Release { inos } => self.release(inos)?,
            _ if bucket.lock => return Err(Refusal::ReadOnly.into()),
            FileOperation::Make { parent, name, new } => self.make(&bucket, (*parent, name), new)?,
            FileOperation::Link { ino, hint, parent, name } => self.link(&bucket, (*ino, hint), (*parent, name))?,
            FileOperation::Unlink { parent, name } => self.unlink(&bucket, (*parent, name))?,
            FileOperation::RemoveDirectory { parent, name } => self.remove_directory(&bucket, (*parent, name))?,
            FileOperation::Rename { from, to, mode } => {
                self.rename(&bucket, (from.0, &from.1), (to.0, &to.1), *mode)?;
            }
            FileOperation::SetAttrs { ino, hint, set } => self.set_posix(&bucket, (*ino, hint), set)?,
            FileOperation::SetXattr { ino, hint, name, value, expected } => {
                self.set_xattr(&bucket, (*ino, hint), (name, value.as_deref()), *expected)?;
            }
            FileOperation::Write(write) => self.write(&bucket, write)?,
        }
        Ok(Outcome::Done)
    }
}
