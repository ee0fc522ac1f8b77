//! What a file system asks: inodes and their attributes, entries of directories, orphans.
//!
//! Invariant: a directory hides an object of the same name; names that POSIX cannot hold are not shown.

use std::collections::BTreeSet;

use rusqlite::params;

use super::{ENTRY_COLUMNS, Entry, Error, View, form, kind, signed, unsigned};
use crate::catalog::inode::{FileKind, MODE_MASK, NAME_MAX_BYTES, posix_of};
use crate::catalog::level::{FILES_LEVEL, LOCKS_LEVEL};
use crate::catalog::types::{InodeAttrs, Linked, Posix};
use crate::catalog::{Bucket, ETag, Lock, Stat, TreeEntry};
use crate::ids::{BucketId, Ino, LogIndex, SessionId};

/// A directory of more entries than this does not count those that are directories: it shows one link, as file systems
/// do that do not count them.
const COUNTED_ENTRIES_MAX: u64 = 256;

/// A lock that somebody has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldLock {
    /// Whose gateway.
    pub session: SessionId,
    /// What.
    pub lock: Lock,
}

/// Names and values.
pub(in crate::catalog) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// An inode that is no directory, with what its node says.
struct Inode {
    ino: Ino,
    nlink: u64,
    /// How its bytes are kept, and by which node.
    form: i64,
    holder: Ino,
    own: InodeAttrs,
}

/// Whether POSIX can hold a name.
fn is_posix(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= NAME_MAX_BYTES
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

impl View<'_> {
    /// Whether there may be what file systems need of the catalog.
    pub fn has_files(&self) -> Result<bool, Error> {
        Ok(self.feature_level()? >= FILES_LEVEL)
    }

    /// Whether a file system may be mounted yet: its files can be locked.
    pub fn has_locks(&self) -> Result<bool, Error> {
        Ok(self.feature_level()? >= LOCKS_LEVEL)
    }

    /// An inode. `hint`: where it was seen, for one that no file system has changed yet. None: it is no more.
    pub fn stat(&self, bucket: &Bucket, ino: Ino, hint: Option<(Ino, &[u8])>) -> Result<Option<Stat>, Error> {
        if let Some(stat) = self.directory_stat(bucket, ino)? {
            return Ok(Some(stat));
        }
        let Some(inode) = self.inode(ino)? else { return Ok(None) };
        match self.linked(&inode, hint)? {
            Some(shown) => Ok(Some(self.file_stat(&inode, shown)?)),
            None => Ok(None),
        }
    }

    /// Where an inode was seen that only its name tells about; none: it is no more, or needs no hint. A scan.
    pub fn find_name(&self, ino: Ino) -> Result<Option<(Ino, Vec<u8>)>, Error> {
        let sql = "SELECT parent,name FROM dentry WHERE ino=?1 AND kind=0 LIMIT 1";
        self.one(sql, [signed(ino.0)], |row| Ok((Ino(unsigned(row, 0)?), row.get(1)?)))
    }

    /// What stands under a name.
    pub fn entry(&self, bucket: &Bucket, parent: Ino, name: &[u8]) -> Result<Option<Stat>, Error> {
        if !is_posix(name) {
            return Ok(None);
        }
        let directory = self.any_entry(parent, &[name, b"/"].concat())?;
        if let Some(entry) = directory.filter(|entry| entry.kind == kind::DIRECTORY) {
            return self.directory_stat(bucket, entry.ino);
        }
        match self.any_entry(parent, name)? {
            Some(entry) => Ok(Some(self.entry_stat(bucket, &entry)?)),
            None => Ok(None),
        }
    }

    /// Entries of a directory with keys above `after`, in the order of their keys; none: it has no more.
    ///
    /// `limit`: about how many; fewer may be shown although there are more.
    pub fn entries(
        &self,
        bucket: &Bucket,
        directory: Ino,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<TreeEntry>, Error> {
        let mut after = after.unwrap_or_default().to_vec();
        loop {
            let sql =
                format!("SELECT name,{ENTRY_COLUMNS} FROM dentry WHERE parent=?1 AND name>?2 ORDER BY name LIMIT ?3");
            let rows = self.all(&sql, params![signed(directory.0), after, signed(limit as u64)], |row| {
                Ok((row.get::<_, Vec<u8>>(0)?, Entry::read(row, 1)?))
            })?;
            let Some((last, _)) = rows.last() else { return Ok(Vec::new()) };
            after.clone_from(last);
            let shown = self.shown_entries(bucket, directory, rows)?;
            if !shown.is_empty() {
                return Ok(shown);
            }
        }
    }

    fn shown_entries(
        &self,
        bucket: &Bucket,
        directory: Ino,
        rows: Vec<(Vec<u8>, Entry)>,
    ) -> Result<Vec<TreeEntry>, Error> {
        let last = rows.last().map(|(name, _)| name.clone()).unwrap_or_default();
        let directories: BTreeSet<Vec<u8>> =
            rows.iter().filter(|(_, entry)| entry.kind == kind::DIRECTORY).map(|(name, _)| name.clone()).collect();
        let mut shown = Vec::with_capacity(rows.len());
        for (key, entry) in rows {
            let is_directory = entry.kind == kind::DIRECTORY;
            let name = if is_directory { key.strip_suffix(b"/").unwrap_or(&key) } else { &key };
            if !is_posix(name) {
                continue;
            }
            if !is_directory {
                let hiding = [name, b"/"].concat();
                let is_hidden = directories.contains(&hiding)
                    || hiding > last && self.any_entry(directory, &hiding)?.is_some_and(|e| e.kind == kind::DIRECTORY);
                if is_hidden {
                    continue;
                }
            }
            shown.push(TreeEntry { name: name.to_vec(), stat: self.entry_stat(bucket, &entry)? });
        }
        Ok(shown)
    }

    /// The directory above; none: it has none, or is no more.
    pub fn directory_above(&self, ino: Ino) -> Result<Option<Ino>, Error> {
        let parent = self.one("SELECT parent FROM dir WHERE ino=?1", [signed(ino.0)], |row| unsigned(row, 0))?;
        Ok(parent.filter(|parent| *parent != 0).map(Ino))
    }

    /// Extended attributes of an inode; none: it is no more.
    pub fn xattrs(&self, ino: Ino) -> Result<Option<Xattrs>, Error> {
        if let Some(own) = self.directory_attrs(ino)? {
            return Ok(Some(own.attrs.xattrs));
        }
        Ok(self.inode(ino)?.map(|inode| inode.own.attrs.xattrs))
    }

    /// Inodes of a bucket that lost their last name above the log index `after`, and are there still.
    pub fn orphaned(&self, bucket: BucketId, after: LogIndex) -> Result<Vec<Ino>, Error> {
        let sql = "SELECT ino FROM orphan WHERE bucket=?1 AND died>?2 ORDER BY died";
        self.all(sql, [signed(bucket.0), signed(after.0)], |row| Ok(Ino(unsigned(row, 0)?)))
    }

    /// What a session has open: inodes, and whether S3 does not see them yet.
    pub fn opened_by(&self, session: SessionId) -> Result<Vec<(Ino, bool)>, Error> {
        let sql = "SELECT ino,published FROM opened WHERE session=?1";
        self.all(sql, [signed(session.0)], |row| Ok((Ino(unsigned(row, 0)?), row.get::<_, i64>(1)? == 0)))
    }

    /// Requests of kernels that were done and may be made again.
    #[cfg(test)]
    pub fn answered_count(&self) -> Result<u64, Error> {
        Ok(self.one("SELECT count(*) FROM answered", [], |row| unsigned(row, 0))?.unwrap_or(0))
    }

    /// The buckets that a session has mounted.
    pub fn mounted_by(&self, session: SessionId) -> Result<Vec<BucketId>, Error> {
        if !self.has_files()? {
            return Ok(Vec::new());
        }
        self.all("SELECT bucket FROM mounted WHERE session=?1", [signed(session.0)], |row| {
            Ok(BucketId(unsigned(row, 0)?))
        })
    }

    /// What keeps an owner of a mount from a lock: the first of those in its way.
    pub fn lock_in_the_way(&self, ino: Ino, mount: u64, wanted: &Lock) -> Result<Option<HeldLock>, Error> {
        let sql = "SELECT session,start,end,exclusive,pid,owner,opened FROM lock
            WHERE ino=?1 AND NOT (mount=?2 AND owner=?3) AND start<?5 AND end>?4 AND (exclusive OR ?6)
            ORDER BY start,mount,owner LIMIT 1";
        let asked = params![
            signed(ino.0),
            signed(mount),
            wanted.owner as i64,
            signed(wanted.start_bytes),
            signed(wanted.end_bytes),
            wanted.is_exclusive
        ];
        self.one(sql, asked, |row| {
            let lock = Lock {
                owner: row.get::<_, i64>(5)? as u64,
                start_bytes: unsigned(row, 1)?,
                end_bytes: unsigned(row, 2)?,
                is_exclusive: row.get(3)?,
                opened: row.get::<_, i64>(6)? as u64,
                pid: row.get(4)?,
            };
            Ok(HeldLock { session: SessionId(unsigned(row, 0)?), lock })
        })
    }

    /// Who has locked something of which inode, of a mount, and through which open file.
    pub fn locked_by(&self, mount: u64) -> Result<Vec<(Ino, u64, u64)>, Error> {
        let sql = "SELECT DISTINCT ino,owner,opened FROM lock WHERE mount=?1";
        self.all(sql, [signed(mount)], |row| {
            Ok((Ino(unsigned(row, 0)?), row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64))
        })
    }

    /// The mounts by which a session has locked something, each with its bucket.
    pub fn locking_mounts(&self, session: SessionId) -> Result<Vec<(u64, BucketId)>, Error> {
        if !self.has_locks()? {
            return Ok(Vec::new());
        }
        let sql = "SELECT DISTINCT mount,bucket FROM lock WHERE session=?1 ORDER BY mount";
        self.all(sql, [signed(session.0)], |row| Ok((unsigned(row, 0)?, BucketId(unsigned(row, 1)?))))
    }

    /// Whether an inode without a name may go.
    pub fn has_reapable(&self) -> Result<bool, Error> {
        if !self.has_files()? {
            return Ok(false);
        }
        let sql = "SELECT 1 FROM orphan o
            WHERE NOT EXISTS (SELECT 1 FROM mounted m WHERE m.bucket=o.bucket AND m.seen<o.died)
                AND NOT EXISTS (SELECT 1 FROM opened p WHERE p.ino=o.ino) LIMIT 1";
        Ok(self.one(sql, [], |_| Ok(()))?.is_some())
    }

    fn any_entry(&self, parent: Ino, name: &[u8]) -> Result<Option<Entry>, Error> {
        let sql = "SELECT kind,ino,seq,flags,size_bytes,mtime_ns,etag FROM dentry WHERE parent=?1 AND name=?2";
        self.one(sql, params![signed(parent.0), name], |row| Entry::read(row, 0))
    }

    fn entry_stat(&self, bucket: &Bucket, entry: &Entry) -> Result<Stat, Error> {
        let gone = || Error::Inconsistent(format!("an entry names {}, which is missing", entry.ino));
        if entry.kind == kind::DIRECTORY {
            return self.directory_stat(bucket, entry.ino)?.ok_or_else(gone);
        }
        let inode = self.inode(entry.ino)?.ok_or_else(gone)?;
        let shown = self.shown(entry, inode.own.attrs.linked)?;
        let shown = Linked { size_bytes: shown.size_bytes, modified: shown.modified, etag: shown.etag };
        self.file_stat(&inode, shown)
    }

    fn directory_attrs(&self, ino: Ino) -> Result<Option<InodeAttrs>, Error> {
        self.one("SELECT attrs FROM dir WHERE ino=?1", [signed(ino.0)], |row| {
            row.get_ref(0)?.as_blob_or_null()?.map_or(Ok(InodeAttrs::default()), InodeAttrs::decode)
        })
    }

    fn directory_stat(&self, bucket: &Bucket, ino: Ino) -> Result<Option<Stat>, Error> {
        let Some(own) = self.directory_attrs(ino)? else { return Ok(None) };
        let posix = posix_of(own.attrs.posix, FileKind::Directory, bucket.created);
        let nothing = Linked { size_bytes: 0, modified: posix.mtime, etag: ETag { md5: [0; 16], part_count: 0 } };
        let stat = stat_of(ino, &posix, self.directory_links(ino)?, (&nothing, 0), 0);
        Ok(Some(Stat { has_attributes: own.attrs.posix.is_some(), ..stat }))
    }

    /// Two, and one for each directory in it; one where that is not counted.
    fn directory_links(&self, ino: Ino) -> Result<u64, Error> {
        let sql = "SELECT count(*),coalesce(sum(kind=1),0) FROM (SELECT kind FROM dentry WHERE parent=?1 LIMIT ?2)";
        let params = [signed(ino.0), signed(COUNTED_ENTRIES_MAX + 1)];
        let counts = self.one(sql, params, |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)))?;
        Ok(counts.filter(|(count, _)| *count <= COUNTED_ENTRIES_MAX).map_or(1, |(_, directories)| 2 + directories))
    }

    fn inode(&self, ino: Ino) -> Result<Option<Inode>, Error> {
        let sql = "SELECT n.nlink,n.attrs,b.form,b.id FROM node n
            JOIN node b ON b.id=CASE n.body WHEN 0 THEN n.id ELSE n.body END WHERE n.id=?1 AND n.refs>0";
        self.one(sql, [signed(ino.0)], |row| {
            let own = row.get_ref(1)?.as_blob_or_null()?.map_or(Ok(InodeAttrs::default()), InodeAttrs::decode)?;
            Ok(Inode { ino, nlink: unsigned(row, 0)?, form: row.get(2)?, holder: Ino(unsigned(row, 3)?), own })
        })
    }

    /// What an inode shows; none: it is not where it was seen, and says nothing itself.
    fn linked(&self, inode: &Inode, hint: Option<(Ino, &[u8])>) -> Result<Option<Linked>, Error> {
        if let Some(linked) = inode.own.attrs.linked {
            return Ok(Some(linked));
        }
        let home = inode.own.home.as_ref().map(|(parent, name)| (*parent, name.as_slice()));
        let Some((parent, name)) = home.or(hint) else { return Ok(None) };
        let entry = self.any_entry(parent, name)?.filter(|entry| entry.ino == inode.ino);
        let shown = entry.map(|entry| self.shown(&entry, None)).transpose()?;
        Ok(shown.map(|shown| Linked { size_bytes: shown.size_bytes, modified: shown.modified, etag: shown.etag }))
    }

    fn file_stat(&self, inode: &Inode, shown: Linked) -> Result<Stat, Error> {
        let posix = posix_of(inode.own.attrs.posix, FileKind::File, shown.modified);
        let stored_bytes = match inode.form {
            form::EMPTY => 0,
            form::EXTENTS => self.extent_bytes(inode.holder)?,
            _ => shown.size_bytes,
        };
        let stat = stat_of(inode.ino, &posix, inode.nlink, (&shown, stored_bytes), inode.own.revision);
        Ok(Stat { has_attributes: inode.own.attrs.posix.is_some(), ..stat })
    }

    fn extent_bytes(&self, holder: Ino) -> Result<u64, Error> {
        let sql = "SELECT coalesce(sum(len_bytes),0) FROM extent WHERE ino=?1";
        Ok(self.one(sql, [signed(holder.0)], |row| unsigned(row, 0))?.unwrap_or(0))
    }
}

fn stat_of(ino: Ino, posix: &Posix, nlink: u64, (shown, stored_bytes): (&Linked, u64), revision: u64) -> Stat {
    Stat {
        ino,
        kind: FileKind::of_mode(posix.mode),
        mode: posix.mode & MODE_MASK,
        uid: posix.uid,
        gid: posix.gid,
        nlink: u32::try_from(nlink).unwrap_or(u32::MAX),
        rdev: posix.rdev,
        size_bytes: shown.size_bytes,
        stored_bytes,
        atime: posix.atime,
        mtime: posix.mtime,
        ctime: posix.ctime,
        revision,
        etag: shown.etag,
        has_attributes: false,
    }
}
