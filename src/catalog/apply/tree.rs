//! The tree of a bucket: directory entries, directories that come and go by themselves, history.
//!
//! Invariants
//! - A key has a dentry exactly if its newest version is no delete marker, and the dentry is that version. All its
//!   other versions and its delete markers are rows of `version`.
//! - A directory below the root has a row in `dir` and one entry: a dentry while something visible is under it, else
//!   a row of `version` (kind 1, seq 0) while history is under it, else none of them.
//! - Usage counts a row where it stands: dentries as objects, rows of `version` but directories as versions.

use rusqlite::params;

use crate::catalog::query::{flag, kind};
use crate::catalog::{Bucket, ETag, Error, path};
use crate::env::Timestamp;
use crate::ids::{Ino, Seq, VersionId};

use super::node::Use;
use super::state::Directory;
use super::{Step, sql, unsql};

/// What an entry names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Object = kind::OBJECT as isize,
    Directory = kind::DIRECTORY as isize,
    /// Size, time and tag are in the node.
    Linked = kind::LINKED as isize,
    DeleteMarker = kind::MARKER as isize,
}

impl Kind {
    fn from_sql(found: i64) -> Result<Kind, Error> {
        Ok(match found {
            kind::OBJECT => Kind::Object,
            kind::DIRECTORY => Kind::Directory,
            kind::LINKED => Kind::Linked,
            kind::MARKER => Kind::DeleteMarker,
            _ => return Err(Error::Undecodable { what: "entry's kind" }),
        })
    }
}

/// A version of a key, as its row in `dentry` or `version` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// 0 of a delete marker.
    pub(super) ino: Ino,
    pub(super) seq: Seq,
    pub(super) is_null: bool,
    /// Whether its node's attributes name a storage class.
    pub(super) is_classed: bool,
    /// Whether only a file system sees it: its session has made it and not written it.
    pub(super) is_hidden: bool,
    pub(super) size_bytes: u64,
    pub(super) modified: Timestamp,
    /// None of a delete marker.
    pub(super) etag: Option<ETag>,
}

impl Entry {
    pub(super) fn version(&self) -> VersionId {
        if self.is_null { VersionId::Null } else { VersionId::Seq(self.seq) }
    }

    /// Whether a node is named by it.
    pub(super) fn has_node(&self) -> bool {
        self.kind != Kind::DeleteMarker
    }

    fn flags(&self) -> i64 {
        let bit = |holds: bool, flag: i64| if holds { flag } else { 0 };
        bit(self.is_null, flag::NULL) | bit(self.is_classed, flag::CLASSED) | bit(self.is_hidden, flag::HIDDEN)
    }

    /// What the columns hold of size and tag; none where the node has them, or there is none.
    fn columns(&self) -> (Option<i64>, Option<Vec<u8>>) {
        let shown = self.kind == Kind::Object;
        let etag = self.etag.filter(|_| shown).map(ETag::to_bytes);
        (shown.then_some(sql(self.size_bytes)), etag)
    }
}

/// Where a key is: the last directory on its path, and its name there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spot<'k> {
    pub(super) root: Ino,
    pub(super) parent: Ino,
    pub(super) name: &'k [u8],
    /// Whether `parent` is.
    visible: bool,
}

/// A SELECT of entries: what it selects ends where the reader of rows expects it.
macro_rules! entries {
    ($from:literal) => {
        concat!("SELECT kind, ino, seq, flags, size_bytes, mtime_ns, etag, name FROM ", $from)
    };
}

struct RawEntry {
    kind: i64,
    ino: i64,
    seq: i64,
    flags: i64,
    size_bytes: Option<i64>,
    mtime_ns: Option<i64>,
    etag: Option<Vec<u8>>,
}

fn read_entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<RawEntry> {
    Ok(RawEntry {
        kind: row.get(0)?,
        ino: row.get(1)?,
        seq: row.get(2)?,
        flags: row.get(3)?,
        size_bytes: row.get(4)?,
        mtime_ns: row.get(5)?,
        etag: row.get(6)?,
    })
}

impl Step<'_> {
    /// Where `key` is, if all of its directories are there.
    pub(super) fn find_spot<'k>(&mut self, bucket: &Bucket, key: &'k [u8]) -> Result<Option<Spot<'k>>, Error> {
        let root = bucket.id.root();
        let (names, name) = path::split(key);
        let mut at = Directory { ino: root, visible: true };
        for directory in names {
            match self.directory(at.ino, directory)? {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(Spot { root, parent: at.ino, name, visible: at.visible }))
    }

    /// Where `key` is, its directories made where they are missing, and shown where something visible comes.
    pub(super) fn make_spot<'k>(
        &mut self,
        bucket: &Bucket,
        key: &'k [u8],
        found: Option<Spot<'k>>,
        visible: bool,
    ) -> Result<Spot<'k>, Error> {
        if let Some(spot) = found
            && (spot.visible || !visible)
        {
            return Ok(spot);
        }
        let root = bucket.id.root();
        let (names, name) = path::split(key);
        let mut at = Directory { ino: root, visible: true };
        for directory in names {
            at = self.make_directory(at.ino, directory, visible)?;
        }
        Ok(Spot { root, parent: at.ino, name, visible: at.visible })
    }

    /// `name` in a directory that is visible.
    pub(super) fn spot_in<'k>(root: Ino, parent: Ino, name: &'k [u8]) -> Spot<'k> {
        Spot { root, parent, name, visible: true }
    }

    pub(super) fn directory(&mut self, parent: Ino, name: &[u8]) -> Result<Option<Directory>, Error> {
        if let Some(directory) = self.cache.directory(parent, name) {
            return Ok(Some(directory));
        }
        let shown = "SELECT ino FROM dentry WHERE parent=? AND name=? AND kind=1";
        let hidden = "SELECT ino FROM version WHERE parent=? AND name=? AND seq=0 AND kind=1";
        for (query, visible) in [(shown, true), (hidden, false)] {
            if let Some(ino) = self.find(query, params![sql(parent.0), name], |row| row.get(0))? {
                let directory = Directory { ino: Ino(unsql(ino)), visible };
                self.cache.set_directory(parent, name, directory);
                return Ok(Some(directory));
            }
        }
        Ok(None)
    }

    pub(super) fn make_directory(&mut self, parent: Ino, name: &[u8], visible: bool) -> Result<Directory, Error> {
        let directory = match self.directory(parent, name)? {
            Some(found) if found.visible || !visible => return Ok(found),
            Some(hidden) => {
                self.delete_directory_entry(parent, name, false)?;
                Directory { ino: hidden.ino, visible }
            }
            None => {
                let ino = self.take_id();
                let insert = "INSERT INTO dir(ino, parent, name, attrs) VALUES(?, ?, ?, NULL)";
                self.run(insert, params![sql(ino.0), sql(parent.0), name])?;
                Directory { ino, visible }
            }
        };
        self.insert_directory_entry(parent, name, directory)?;
        Ok(directory)
    }

    pub(super) fn insert_directory_entry(
        &mut self,
        parent: Ino,
        name: &[u8],
        directory: Directory,
    ) -> Result<(), Error> {
        if directory.visible {
            self.preserve(parent, name)?;
        }
        let insert = match directory.visible {
            true => "INSERT INTO dentry(parent, name, kind, ino, seq, flags) VALUES(?, ?, 1, ?, 0, 0)",
            false => "INSERT INTO version(parent, name, kind, ino, seq, flags) VALUES(?, ?, 1, ?, 0, 0)",
        };
        self.run(insert, params![sql(parent.0), name, sql(directory.ino.0)])?;
        self.tell_name(parent, name);
        self.cache.set_directory(parent, name, directory);
        Ok(())
    }

    pub(super) fn delete_directory_entry(&mut self, parent: Ino, name: &[u8], visible: bool) -> Result<(), Error> {
        if visible {
            self.preserve(parent, name)?;
        }
        let delete = match visible {
            true => "DELETE FROM dentry WHERE parent=? AND name=?",
            false => "DELETE FROM version WHERE parent=? AND name=? AND seq=0",
        };
        self.run(delete, params![sql(parent.0), name])?;
        self.tell_name(parent, name);
        self.cache.forget_directory(parent, name);
        Ok(())
    }

    /// Shows the directory `ino` and those above it.
    fn show(&mut self, root: Ino, mut ino: Ino) -> Result<(), Error> {
        while ino != root {
            let (parent, name) = self.directory_name(ino)?;
            match self.directory(parent, &name)? {
                Some(found) if found.visible => return Ok(()),
                _ => self.delete_directory_entry(parent, &name, false)?,
            }
            self.insert_directory_entry(parent, &name, Directory { ino, visible: true })?;
            ino = parent;
        }
        Ok(())
    }

    /// Hides or removes the directory `ino`, and those above it, where nothing visible is left in them.
    pub(super) fn prune(&mut self, root: Ino, mut ino: Ino) -> Result<(), Error> {
        while ino != root && !self.exists("SELECT 1 FROM dentry WHERE parent=? LIMIT 1", [sql(ino.0)])? {
            let (parent, name) = self.directory_name(ino)?;
            let was_visible = self.directory(parent, &name)?.is_some_and(|found| found.visible);
            let has_history = self.exists("SELECT 1 FROM version WHERE parent=? LIMIT 1", [sql(ino.0)])?;
            if has_history && !was_visible {
                return Ok(());
            }
            self.delete_directory_entry(parent, &name, was_visible)?;
            if has_history {
                self.insert_directory_entry(parent, &name, Directory { ino, visible: false })?;
            } else {
                self.run("DELETE FROM dir WHERE ino=?", [sql(ino.0)])?;
            }
            ino = parent;
        }
        Ok(())
    }

    pub(super) fn directory_name(&self, ino: Ino) -> Result<(Ino, Vec<u8>), Error> {
        let query = "SELECT parent, name FROM dir WHERE ino=?";
        let found = self.find(query, [sql(ino.0)], |row| Ok((Ino(unsql(row.get(0)?)), row.get(1)?)))?;
        found.ok_or_else(|| Error::Inconsistent(format!("directory {ino} has no row")))
    }

    /// Whether the session that made a hidden file still has it open.
    pub(super) fn is_unpublished(&self, ino: Ino) -> Result<bool, Error> {
        self.exists("SELECT 1 FROM opened WHERE ino=? AND published=0", [sql(ino.0)])
    }

    fn entry(&self, raw: RawEntry) -> Result<Entry, Error> {
        let kind = Kind::from_sql(raw.kind)?;
        let undecodable = Error::Undecodable { what: "entity tag" };
        let etag = match raw.etag {
            Some(bytes) => Some(ETag::from_bytes(&bytes).ok_or(undecodable)?),
            None => None,
        };
        let mut entry = Entry {
            kind,
            ino: Ino(unsql(raw.ino)),
            seq: Seq(unsql(raw.seq)),
            is_null: raw.flags & flag::NULL != 0,
            is_classed: raw.flags & flag::CLASSED != 0,
            is_hidden: raw.flags & flag::HIDDEN != 0 && self.is_unpublished(Ino(unsql(raw.ino)))?,
            size_bytes: unsql(raw.size_bytes.unwrap_or(0)),
            modified: Timestamp(raw.mtime_ns.unwrap_or(0)),
            etag,
        };
        if kind == Kind::Linked
            && let Some(linked) = self.attrs(entry.ino)?.linked
        {
            (entry.size_bytes, entry.modified, entry.etag) = (linked.size_bytes, linked.modified, Some(linked.etag));
        }
        Ok(entry)
    }

    /// Entries of a directory, in order, at most `limit`: what is visible, or the rows of its history.
    pub(super) fn entries_in(&self, parent: Ino, is_visible: bool, limit: u64) -> Result<Vec<(Vec<u8>, Entry)>, Error> {
        let query = match is_visible {
            true => entries!("dentry WHERE parent=? ORDER BY name LIMIT ?"),
            false => entries!("version WHERE parent=? ORDER BY name, seq LIMIT ?"),
        };
        let rows = self.all(query, [sql(parent.0), sql(limit)], |row| Ok((row.get(7)?, read_entry(row)?)))?;
        rows.into_iter().map(|(name, raw)| Ok((name, self.entry(raw)?))).collect()
    }

    fn find_entry(&self, query: &str, params: impl rusqlite::Params) -> Result<Option<Entry>, Error> {
        let raw = self.find(query, params, read_entry)?;
        raw.map(|raw| self.entry(raw)).transpose()
    }

    /// The current version under a key.
    pub(super) fn current(&self, spot: &Spot<'_>) -> Result<Option<Entry>, Error> {
        let query = entries!("dentry WHERE parent=? AND name=? AND kind<>1");
        self.find_entry(query, params![sql(spot.parent.0), spot.name])
    }

    /// The named version under a key, and whether it is the current one.
    pub(super) fn find_version(&self, spot: &Spot<'_>, version: VersionId) -> Result<Option<(Entry, bool)>, Error> {
        if let Some(current) = self.current(spot)?
            && current.version() == version
        {
            return Ok(Some((current, true)));
        }
        let found = match version {
            VersionId::Null => self.null_in_history(spot)?,
            VersionId::Seq(seq) => {
                let query = entries!("version WHERE parent=? AND name=? AND seq=? AND kind<>1");
                self.find_entry(query, params![sql(spot.parent.0), spot.name, sql(seq.0)])?
            }
        };
        Ok(found.filter(|entry| entry.version() == version).map(|entry| (entry, false)))
    }

    fn null_in_history(&self, spot: &Spot<'_>) -> Result<Option<Entry>, Error> {
        let query = entries!("version WHERE parent=? AND name=? AND flags & 1");
        self.find_entry(query, params![sql(spot.parent.0), spot.name])
    }

    /// The newest row of history under a key.
    fn newest_in_history(&self, spot: &Spot<'_>) -> Result<Option<Entry>, Error> {
        let query = entries!("version WHERE parent=? AND name=? AND kind<>1 ORDER BY seq DESC LIMIT 1");
        self.find_entry(query, params![sql(spot.parent.0), spot.name])
    }

    /// Makes `entry` the current version where there is none.
    pub(super) fn insert_dentry(&mut self, spot: &Spot<'_>, entry: &Entry) -> Result<(), Error> {
        let insert = "INSERT INTO dentry(parent, name, kind, ino, seq, flags, size_bytes, mtime_ns, etag)
            VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)";
        self.preserve(spot.parent, spot.name)?;
        self.count_objects(spot.root, entry, 1);
        self.tell_name(spot.parent, spot.name);
        self.write_entry(insert, spot, entry)
    }

    /// Makes `entry` the current version in place of `former`.
    pub(super) fn replace_dentry(&mut self, spot: &Spot<'_>, former: &Entry, entry: &Entry) -> Result<(), Error> {
        let update = "UPDATE dentry SET kind=?3, ino=?4, seq=?5, flags=?6, size_bytes=?7, mtime_ns=?8, etag=?9
            WHERE parent=?1 AND name=?2";
        self.preserve(spot.parent, spot.name)?;
        self.count_objects(spot.root, former, -1);
        self.count_objects(spot.root, entry, 1);
        match former.ino == entry.ino {
            true => self.tell_inode(entry.ino),
            false => self.tell_name(spot.parent, spot.name),
        }
        self.write_entry(update, spot, entry)
    }

    pub(super) fn delete_dentry(&mut self, spot: &Spot<'_>, entry: &Entry) -> Result<(), Error> {
        self.preserve(spot.parent, spot.name)?;
        self.count_objects(spot.root, entry, -1);
        self.tell_name(spot.parent, spot.name);
        self.run("DELETE FROM dentry WHERE parent=? AND name=?", params![sql(spot.parent.0), spot.name])?;
        Ok(())
    }

    /// Adds a version or delete marker to history.
    pub(super) fn insert_history(&mut self, spot: &Spot<'_>, entry: &Entry) -> Result<(), Error> {
        let insert = "INSERT INTO version(parent, name, kind, ino, seq, flags, size_bytes, mtime_ns, etag)
            VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)";
        self.count_versions(spot.root, entry, 1);
        self.write_entry(insert, spot, entry)
    }

    pub(super) fn delete_history(&mut self, spot: &Spot<'_>, entry: &Entry) -> Result<(), Error> {
        self.count_versions(spot.root, entry, -1);
        let delete = "DELETE FROM version WHERE parent=? AND name=? AND seq=?";
        self.run(delete, params![sql(spot.parent.0), spot.name, sql(entry.seq.0)])?;
        Ok(())
    }

    fn write_entry(&self, statement: &str, spot: &Spot<'_>, entry: &Entry) -> Result<(), Error> {
        let (size_bytes, etag) = entry.columns();
        self.run(
            statement,
            params![
                sql(spot.parent.0),
                spot.name,
                entry.kind as i64,
                sql(entry.ino.0),
                sql(entry.seq.0),
                entry.flags(),
                size_bytes,
                entry.modified.0,
                etag
            ],
        )?;
        Ok(())
    }

    /// Takes the null version out of history; its node loses the name.
    pub(super) fn drop_null_from_history(&mut self, spot: &Spot<'_>) -> Result<(), Error> {
        let Some(null) = self.null_in_history(spot)? else { return Ok(()) };
        self.delete_history(spot, &null)?;
        self.lose_name(spot.root, &null)
    }

    /// After the newest version of a key went: shows the one before it, unless that is a delete marker.
    pub(super) fn promote(&mut self, spot: &Spot<'_>) -> Result<(), Error> {
        match self.newest_in_history(spot)? {
            Some(newest) if newest.has_node() => {
                self.delete_history(spot, &newest)?;
                self.show(spot.root, spot.parent)?;
                self.insert_dentry(spot, &newest)
            }
            _ => Ok(()),
        }
    }

    /// What an entry named has one name less.
    pub(super) fn lose_name(&mut self, root: Ino, entry: &Entry) -> Result<(), Error> {
        if !entry.has_node() || entry.kind == Kind::Linked && self.lower_links(entry.ino)? {
            return Ok(());
        }
        match self.is_mounted(root)? {
            true => self.orphan(root, entry),
            false => self.lose(entry.ino, Use::Name),
        }
    }

    fn count_objects(&mut self, root: Ino, entry: &Entry, sign: i64) {
        let delta = self.cache.usage.entry(root.0).or_default();
        delta.object_count += sign;
        delta.size_bytes += sign * sql(entry.size_bytes);
    }

    /// A file of so many names has another length.
    pub(super) fn count_resized(&mut self, root: Ino, nlink: u64, former_bytes: u64, size_bytes: u64) {
        let delta = self.cache.usage.entry(root.0).or_default();
        delta.size_bytes += sql(nlink) * (sql(size_bytes) - sql(former_bytes));
    }

    fn count_versions(&mut self, root: Ino, entry: &Entry, sign: i64) {
        let delta = self.cache.usage.entry(root.0).or_default();
        delta.version_count += sign;
        delta.version_bytes += sign * sql(entry.size_bytes);
    }
}
