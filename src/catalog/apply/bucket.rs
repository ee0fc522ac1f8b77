//! Buckets and their settings.
//!
//! Invariants
//! - A bucket's id is its root directory's inode; the root has a row in `dir` (parent 0) and none in `dentry`.
//! - `ever_versioned` never goes back: only where it is set can `version` have rows.

use rusqlite::{Row, params};

use crate::catalog::level::LOCKING_LEVEL;
use crate::catalog::{Bucket, Error, LockRule, Outcome, Refusal, Setting, Versioning};
use crate::env::Timestamp;
use crate::ids::BucketId;

use super::{Decision, Step, bound, sql, unsql};

const COLUMNS: &str = "id, name, owner, region, created_ns, versioning, ever_versioned, lock";

fn read_bucket(row: &Row<'_>) -> rusqlite::Result<(Option<Versioning>, Vec<u8>, Bucket)> {
    let versioning = match row.get(5)? {
        0 => Some(Versioning::Never),
        1 => Some(Versioning::Enabled),
        2 => Some(Versioning::Suspended),
        _ => None,
    };
    let bucket = Bucket {
        id: BucketId(unsql(row.get(0)?)),
        name: String::new(),
        owner: row.get(2)?,
        region: row.get(3)?,
        created: Timestamp(row.get(4)?),
        versioning: Versioning::Never,
        ever_versioned: row.get(6)?,
        lock: row.get(7)?,
    };
    Ok((versioning, row.get(1)?, bucket))
}

impl Step<'_> {
    /// The bucket, or the refusal.
    pub(super) fn bucket(&mut self, id: BucketId) -> Decision<Bucket> {
        if let Some(bucket) = self.cache.buckets.get(&id.0) {
            return Ok(bucket.clone());
        }
        let query = format!("SELECT {COLUMNS} FROM bucket WHERE id=?");
        let (versioning, name, bucket) = self.find(&query, [sql(id.0)], read_bucket)?.ok_or(Refusal::NoSuchBucket)?;
        let undecodable = Error::Undecodable { what: "bucket" };
        let (Some(versioning), Ok(name)) = (versioning, String::from_utf8(name)) else {
            return Err(undecodable.into());
        };
        let bucket = Bucket { name, versioning, ..bucket };
        self.cache.buckets.insert(id.0, bucket.clone());
        Ok(bucket)
    }

    pub(super) fn create_bucket(
        &mut self,
        id: BucketId,
        name: &str,
        owner: &str,
        region: &str,
        lock: bool,
    ) -> Decision<Outcome> {
        bound(!name.is_empty() && name.len() <= 255, "a bucket's name has 1 to 255 bytes")?;
        let taken = self.find("SELECT owner FROM bucket WHERE name=?", [name.as_bytes()], |row| row.get(0))?;
        if let Some(owner) = taken {
            return Err(Refusal::BucketExists { owner }.into());
        }
        self.check_fresh(id.root())?;
        self.retire_ids(id.root(), crate::ids::Ino(id.0 + 1))?;
        let insert = format!("INSERT INTO bucket({COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?, ?)");
        let versioning = if lock { Versioning::Enabled } else { Versioning::Never };
        let columns = params![sql(id.0), name.as_bytes(), owner, region, self.now.0, versioning as i64, lock, lock];
        self.run(&insert, columns)?;
        self.run("INSERT INTO usage VALUES(?, 0, 0, 0, 0)", [sql(id.0)])?;
        self.run("INSERT INTO dir(ino, parent, name, attrs) VALUES(?, 0, x'', NULL)", [sql(id.0)])?;
        Ok(Outcome::Done)
    }

    pub(super) fn delete_bucket(&mut self, id: BucketId) -> Decision<Outcome> {
        self.bucket(id)?;
        for query in [
            "SELECT 1 FROM dentry WHERE parent=? LIMIT 1",
            "SELECT 1 FROM version WHERE parent=? LIMIT 1",
            "SELECT 1 FROM upload WHERE bucket=? LIMIT 1",
        ] {
            if self.exists(query, [sql(id.0)])? {
                return Err(Refusal::BucketNotEmpty.into());
            }
        }
        self.check_no_clones(id)?;
        self.run("DELETE FROM bucket WHERE id=?", [sql(id.0)])?;
        self.run("DELETE FROM bucket_setting WHERE bucket=?", [sql(id.0)])?;
        self.run("DELETE FROM usage WHERE bucket=?", [sql(id.0)])?;
        self.run("DELETE FROM dir WHERE ino=?", [sql(id.0)])?;
        self.cache.buckets.remove(&id.0);
        self.cache.telling = None;
        *self.access_changed = true;
        self.cache.usage.remove(&id.0);
        Ok(Outcome::Done)
    }

    pub(super) fn set_versioning(&mut self, id: BucketId, versioning: Versioning) -> Decision<Outcome> {
        let bucket = self.bucket(id)?;
        let back_to_never = versioning == Versioning::Never;
        let unlocks = bucket.lock && versioning != Versioning::Enabled;
        if back_to_never || unlocks {
            return Err(Refusal::InvalidBucketState.into());
        }
        let update = "UPDATE bucket SET versioning=?2, ever_versioned=1 WHERE id=?1";
        self.run(update, [sql(id.0), versioning as i64])?;
        self.cache.buckets.remove(&id.0);
        Ok(Outcome::Done)
    }

    pub(super) fn set_bucket(&mut self, id: BucketId, setting: Setting, value: Option<&[u8]>) -> Decision<Outcome> {
        let bucket = self.bucket(id)?;
        let is_new = matches!(setting, Setting::RequestPayment | Setting::Accelerate);
        bound(!is_new || self.state.level >= LOCKING_LEVEL, "there is no such setting at this feature level")?;
        if setting == Setting::ObjectLock && self.state.level >= LOCKING_LEVEL {
            self.lock_bucket(&bucket, value)?;
        }
        match value {
            Some(value) => {
                let replace = "INSERT OR REPLACE INTO bucket_setting(bucket, kind, value) VALUES(?, ?, ?)";
                self.run(replace, params![sql(id.0), setting as i64, value])?
            }
            None => {
                let delete = "DELETE FROM bucket_setting WHERE bucket=? AND kind=?";
                self.run(delete, [sql(id.0), setting as i64])?
            }
        };
        self.cache.telling = None;
        *self.access_changed |= setting.is_of_access();
        Ok(Outcome::Done)
    }

    /// A bucket that says how versions are locked locks them from then on, and for good.
    fn lock_bucket(&mut self, bucket: &Bucket, value: Option<&[u8]>) -> Decision<()> {
        bound(value.is_some_and(|value| LockRule::from_bytes(value).is_some()), "a lock is not taken off a bucket")?;
        if bucket.versioning != Versioning::Enabled {
            return Err(Refusal::InvalidBucketState.into());
        }
        // What is erased with a snapshot is not asked whether it is locked.
        self.check_no_clones(bucket.id)?;
        self.run("UPDATE bucket SET lock=1 WHERE id=?", [sql(bucket.id.0)])?;
        self.cache.buckets.remove(&bucket.id.0);
        Ok(())
    }
}
