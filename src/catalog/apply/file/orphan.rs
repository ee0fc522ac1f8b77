//! Inodes that lost their last name while somebody may have them open.
//!
//! Invariants
//! - In a bucket that is mounted, an inode without a name has a row in `orphan`, and lives. It goes when every session that
//!   has the bucket mounted knows that it lost its name, and none of them holds it.
//! - `seen` of a session never goes back.

use rusqlite::params;

use crate::catalog::level::FILES_LEVEL;
use crate::catalog::types::Linked;
use crate::catalog::{Bucket, Error};
use crate::ids::{Ino, SEQS_PER_COMMAND};

use super::super::node::Use;
use super::super::tree::Entry;
use super::super::{Decision, Step, bound, sql, unsql};

/// The most orphans that one drain lets go.
const REAP_COUNT: u32 = 256;

impl Step<'_> {
    pub(super) fn mount(&mut self, bucket: &Bucket) -> Decision<()> {
        let insert = "INSERT OR IGNORE INTO mounted(bucket, session, seen) VALUES(?, ?, ?)";
        self.run(insert, [sql(bucket.id.0), sql(self.session.0), sql(self.index.0)])?;
        self.cache.mounted = None;
        Ok(())
    }

    pub(super) fn unmount(&mut self, bucket: &Bucket, mount: u64, is_last: bool) -> Decision<()> {
        self.run("DELETE FROM answered WHERE mount=?", [sql(mount)])?;
        self.drop_locks_of_mount(mount)?;
        if !is_last {
            return Ok(());
        }
        self.close_all(bucket)?;
        self.run("DELETE FROM mounted WHERE bucket=? AND session=?", [sql(bucket.id.0), sql(self.session.0)])?;
        self.cache.mounted = None;
        Ok(())
    }

    /// Lets go what the session has open of a bucket.
    fn close_all(&mut self, bucket: &Bucket) -> Result<(), Error> {
        self.preserve_unpublished(self.session)?;
        let query =
            "SELECT p.ino, p.parent, o.bucket FROM opened p LEFT JOIN orphan o ON o.ino=p.ino WHERE p.session=?";
        let opened = self.all(query, [sql(self.session.0)], |row| {
            Ok((Ino(unsql(row.get(0)?)), Ino(unsql(row.get(1)?)), row.get::<_, Option<i64>>(2)?))
        })?;
        for (ino, parent, orphan_of) in opened {
            let root = match orphan_of {
                Some(root) => Ino(unsql(root)),
                None => self.root_above(parent)?,
            };
            if root == bucket.id.root() {
                self.tell_shown(ino)?;
                self.run("DELETE FROM opened WHERE ino=? AND session=?", [sql(ino.0), sql(self.session.0)])?;
            }
        }
        Ok(())
    }

    /// The root that a directory lies below.
    pub(in crate::catalog::apply) fn root_above(&self, mut ino: Ino) -> Result<Ino, Error> {
        let query = "SELECT parent FROM dir WHERE ino=?";
        while let Some(parent) = self.find(query, [sql(ino.0)], |row| Ok(unsql(row.get(0)?)))?.filter(|up| *up != 0) {
            ino = Ino(parent);
        }
        Ok(ino)
    }

    /// Whether some session may have files of the bucket open.
    pub(in crate::catalog::apply) fn is_mounted(&mut self, root: Ino) -> Result<bool, Error> {
        if self.state.level < FILES_LEVEL {
            return Ok(false);
        }
        if self.cache.mounted.is_none() {
            let all = self.all("SELECT DISTINCT bucket FROM mounted", [], |row| Ok(unsql(row.get(0)?)))?;
            self.cache.mounted = Some(all.into_iter().collect());
        }
        Ok(self.cache.mounted.as_ref().is_some_and(|mounted| mounted.contains(&root.0)))
    }

    pub(super) fn hold(&mut self, bucket: &Bucket, seen: u64, inos: &[Ino]) -> Decision<()> {
        bound(inos.len() as u64 <= SEQS_PER_COMMAND, "at most 4,096 inodes a command")?;
        let insert = "INSERT OR IGNORE INTO opened(ino, session, parent, name, published) VALUES(?, ?, 0, x'', 1)";
        for ino in inos {
            if self.is_orphan(*ino)? {
                self.run(insert, [sql(ino.0), sql(self.session.0)])?;
            }
        }
        let update = "UPDATE mounted SET seen=MAX(seen, ?3) WHERE bucket=?1 AND session=?2";
        self.run(update, [sql(bucket.id.0), sql(self.session.0), sql(seen)])?;
        Ok(())
    }

    pub(super) fn release(&mut self, inos: &[Ino]) -> Decision<()> {
        bound(inos.len() as u64 <= SEQS_PER_COMMAND, "at most 4,096 inodes a command")?;
        for ino in inos {
            self.preserve_hidden(*ino)?;
            self.tell_shown(*ino)?;
            self.run("DELETE FROM opened WHERE ino=? AND session=?", [sql(ino.0), sql(self.session.0)])?;
        }
        Ok(())
    }

    /// Whether an inode lives without a name.
    pub(in crate::catalog::apply) fn is_orphan(&self, ino: Ino) -> Result<bool, Error> {
        if self.state.level < FILES_LEVEL {
            return Ok(false);
        }
        self.exists("SELECT 1 FROM orphan WHERE ino=?", [sql(ino.0)])
    }

    /// Keeps what `entry` named, whose last name it was.
    pub(in crate::catalog::apply) fn orphan(&mut self, root: Ino, entry: &Entry) -> Result<(), Error> {
        let mut own = self.inode_attrs(entry.ino)?;
        own.home = None;
        if let Some(etag) = entry.etag {
            own.attrs.linked = Some(Linked { size_bytes: entry.size_bytes, modified: entry.modified, etag });
        }
        self.set_attrs(entry.ino, &own)?;
        self.run("UPDATE node SET nlink=0 WHERE id=?", [sql(entry.ino.0)])?;
        let insert = "INSERT INTO orphan(ino, bucket, died) VALUES(?, ?, ?)";
        self.run(insert, [sql(entry.ino.0), sql(root.0), sql(self.index.0)])?;
        Ok(())
    }

    /// Lets go what nobody can have open any more.
    pub(in crate::catalog::apply) fn reap_orphans(&mut self) -> Result<(), Error> {
        if self.state.level < FILES_LEVEL {
            return Ok(());
        }
        let query = "SELECT o.ino FROM orphan o
            WHERE NOT EXISTS (SELECT 1 FROM mounted m WHERE m.bucket=o.bucket AND m.seen<o.died)
                AND NOT EXISTS (SELECT 1 FROM opened p WHERE p.ino=o.ino)
            ORDER BY o.ino LIMIT ?";
        let reaped: Vec<i64> = self.all(query, params![REAP_COUNT], |row| row.get(0))?;
        for ino in reaped {
            self.run("DELETE FROM orphan WHERE ino=?", [ino])?;
            self.lose(Ino(unsql(ino)), Use::Body)?;
        }
        Ok(())
    }

    /// Takes a name from an inode of several. False: it is the last one.
    pub(in crate::catalog::apply) fn lower_links(&mut self, ino: Ino) -> Result<bool, Error> {
        self.tell_inode(ino);
        Ok(self.run("UPDATE node SET nlink=nlink-1 WHERE id=? AND nlink>1", [sql(ino.0)])? > 0)
    }
}
