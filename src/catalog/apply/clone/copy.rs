//! The walk: entries of listed directories copied in order, and at its end the name.

use std::borrow::Cow;

use rusqlite::params;

use crate::catalog::event::Happening;
use crate::catalog::query::{flag, kind};
use crate::catalog::types::InodeAttrs;
use crate::catalog::{ClonePhase, Error, path};
use crate::ids::Ino;
use crate::units::KEY_MAX_BYTES;

use super::super::node::{Form, Use};
use super::super::state::Directory;
use super::super::{Step, sql, unsql};
use super::Job;

/// Bytes of attributes that one command copies, about.
const ATTRS_MAX_BYTES: usize = 1 << 20;

/// The first byte of attributes that no file system has changed.
const PLAIN_ATTRS: u8 = 1;
/// Behind every name: no name is as long.
const END_OF_NAMES: &[u8] = &[0xff; KEY_MAX_BYTES + 1];

/// A SELECT of entries with what their nodes say, in the order that [`SourceEntry::read`] takes.
macro_rules! source_entries {
    ($which:literal) => {
        concat!(
            "SELECT d.name, d.kind, d.ino, d.flags, d.size_bytes, d.mtime_ns, d.etag, n.body, n.form, n.attrs
            FROM dentry d LEFT JOIN node n ON n.id=d.ino AND d.kind<>1 WHERE d.parent=?1 AND ",
            $which
        )
    };
}

/// A directory that a clone has come to: a row of `cloning`.
pub(super) struct Reached {
    pub(super) source: Ino,
    pub(super) target: Ino,
    /// Names from here on are still to be copied.
    pub(super) next: Vec<u8>,
    /// Of the copy: directories on its path, and how long that is.
    depth: usize,
    key_bytes: usize,
}

impl Reached {
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Reached> {
        Ok(Reached {
            source: Ino(unsql(row.get(0)?)),
            target: Ino(unsql(row.get(1)?)),
            next: row.get(2)?,
            depth: unsql(row.get(3)?) as usize,
            key_bytes: unsql(row.get(4)?) as usize,
        })
    }

    /// Why an entry cannot be copied; none: it can.
    fn refuses(&self, found: &SourceEntry) -> Option<&'static str> {
        let is_directory = found.kind == kind::DIRECTORY;
        // Below the last directory that may be one, a name holds the rest of its key.
        let is_too_deep = match is_directory {
            true => self.depth >= path::DEPTH_MAX,
            false => self.depth != path::DEPTH_MAX && found.name.contains(&b'/'),
        };
        match self.key_bytes + found.name.len() > KEY_MAX_BYTES {
            true => Some("a key would be longer than 1,024 bytes there"),
            false => is_too_deep.then_some("a key would have its directories elsewhere there: it is too deep"),
        }
    }
}

/// An entry to copy, and what its node says.
pub(super) struct SourceEntry {
    name: Vec<u8>,
    kind: i64,
    ino: Ino,
    flags: i64,
    size_bytes: Option<i64>,
    modified: Option<i64>,
    etag: Option<Vec<u8>>,
    body: Option<i64>,
    form: Option<i64>,
    attrs: Option<Vec<u8>>,
}

impl SourceEntry {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<SourceEntry> {
        Ok(SourceEntry {
            name: row.get(0)?,
            kind: row.get(1)?,
            ino: Ino(unsql(row.get(2)?)),
            flags: row.get(3)?,
            size_bytes: row.get(4)?,
            modified: row.get(5)?,
            etag: row.get(6)?,
            body: row.get(7)?,
            form: row.get(8)?,
            attrs: row.get(9)?,
        })
    }
}

/// What was kept of a file of several names: whose bytes it showed, how they are kept, attributes.
type Kept = (Option<Ino>, i64, Option<Vec<u8>>);

/// The node and the entry of a copy, but for what is its own.
struct ObjectCopy<'f> {
    body: Option<Ino>,
    form: i64,
    attrs: Option<Cow<'f, [u8]>>,
    size_bytes: i64,
    modified: i64,
    etag: Option<Cow<'f, [u8]>>,
}

impl Step<'_> {
    /// Copies about so many entries more. After the last one, publishes.
    pub(super) fn copy_on(&mut self, job: &mut Job, entry_count: u64) -> Result<(), Error> {
        let (mut budget, mut attrs_bytes) = (entry_count, 0);
        while budget > 0 && attrs_bytes < ATTRS_MAX_BYTES && job.state.phase == ClonePhase::Copying {
            let query =
                "SELECT source, target, next, depth, key_bytes FROM cloning WHERE clone=? ORDER BY source LIMIT 1";
            let spent = match self.find(query, [sql(job.id.0)], Reached::read)? {
                Some(at) => self.copy_some(job, at, budget, &mut attrs_bytes)?,
                None => match self.drop_kept(job.id, budget)? {
                    0 => {
                        self.publish_clone(job)?;
                        1
                    }
                    dropped => dropped,
                },
            };
            budget = budget.saturating_sub(spent.max(1));
        }
        self.save_job(job)
    }

    /// Copies entries of one directory, at most `budget`. Returns how many rows it went over.
    fn copy_some(
        &mut self,
        job: &mut Job,
        mut at: Reached,
        budget: u64,
        attrs_bytes: &mut usize,
    ) -> Result<u64, Error> {
        let query = source_entries!("d.name>=?2 ORDER BY d.name LIMIT ?3");
        let rows = self.all(query, params![sql(at.source.0), at.next, sql(budget)], SourceEntry::read)?;
        let settled = "SELECT 1 FROM settled WHERE clone=? AND source=? LIMIT 1";
        let has_settled = self.exists(settled, [sql(job.id.0), sql(at.source.0)])?;
        let mut spent = 0;
        for found in &rows {
            if *attrs_bytes >= ATTRS_MAX_BYTES || job.state.phase != ClonePhase::Copying {
                break;
            }
            if !has_settled || !self.is_settled(job.id, at.source, &found.name)? {
                *attrs_bytes += found.attrs.as_ref().map_or(0, Vec::len);
                self.copy_entry(job, &at, found)?;
            }
            spent += 1;
            at.next.clone_from(&found.name);
            at.next.push(0);
        }
        let is_read = spent == rows.len() as u64 && spent < budget;
        if is_read {
            return Ok(spent + self.finish_directory(job.id, &at, budget - spent)?);
        }
        let update = "UPDATE cloning SET next=?3 WHERE clone=?1 AND source=?2";
        self.run(update, params![sql(job.id.0), sql(at.source.0), at.next])?;
        Ok(spent)
    }

    /// Ends with a directory of which all was read; what was noted of its names may take another time.
    fn finish_directory(&mut self, clone: Ino, at: &Reached, budget: u64) -> Result<u64, Error> {
        let (clone_id, source) = (sql(clone.0), sql(at.source.0));
        // None of its names is to be copied any more, whatever comes to it from now on.
        let rest = self.run(
            "DELETE FROM settled WHERE clone=?1 AND source=?2 AND name IN
                (SELECT name FROM settled WHERE clone=?1 AND source=?2 ORDER BY name LIMIT ?3)",
            [clone_id, source, sql(budget)],
        )? as u64;
        if rest < budget {
            self.run("DELETE FROM cloning WHERE clone=? AND source=?", [clone_id, source])?;
            self.drop_empty(clone, at.target)?;
            return Ok(rest + 1);
        }
        let update = "UPDATE cloning SET next=?3 WHERE clone=?1 AND source=?2";
        self.run(update, params![clone_id, source, END_OF_NAMES])?;
        Ok(rest)
    }

    /// Takes away a copied directory, and those above it, of which nothing was visible: what was in it was not published.
    fn drop_empty(&mut self, clone: Ino, mut target: Ino) -> Result<(), Error> {
        loop {
            let is_kept = self.exists("SELECT 1 FROM dentry WHERE parent=? LIMIT 1", [sql(target.0)])?
                || self.exists("SELECT 1 FROM detached WHERE ino=?", [sql(target.0)])?
                || self.exists("SELECT 1 FROM cloning WHERE clone=? AND target=?", [sql(clone.0), sql(target.0)])?;
            if is_kept {
                return Ok(());
            }
            let (parent, name) = self.directory_name(target)?;
            self.run("DELETE FROM dentry WHERE parent=? AND name=?", params![sql(parent.0), name])?;
            self.run("DELETE FROM dir WHERE ino=?", [sql(target.0)])?;
            target = parent;
        }
    }

    pub(super) fn source_entry(&self, parent: Ino, name: &[u8]) -> Result<Option<SourceEntry>, Error> {
        self.find(source_entries!("d.name=?2"), params![sql(parent.0), name], SourceEntry::read)
    }

    pub(super) fn copy_entry(&mut self, job: &mut Job, at: &Reached, found: &SourceEntry) -> Result<(), Error> {
        if job.state.phase != ClonePhase::Copying
            || found.flags & flag::HIDDEN != 0 && self.is_unpublished(found.ino)?
        {
            return Ok(());
        }
        match (at.refuses(found), found.kind) {
            (Some(reason), _) => {
                self.fail(job, reason);
                Ok(())
            }
            (None, kind::DIRECTORY) => self.copy_directory(job, at, found),
            (None, _) => self.copy_object(job, at, found),
        }
    }

    fn copy_directory(&mut self, job: &Job, at: &Reached, found: &SourceEntry) -> Result<(), Error> {
        let (ino, parent, source) = (self.take_id(), sql(at.target.0), sql(found.ino.0));
        let insert = "INSERT INTO dir(ino, parent, name, attrs) SELECT ?1, ?2, ?3, attrs FROM dir WHERE ino=?4";
        self.run(insert, params![sql(ino.0), parent, found.name, source])?;
        let insert = "INSERT INTO dentry(parent, name, kind, ino, seq, flags) VALUES(?, ?, 1, ?, 0, 0)";
        self.run(insert, params![parent, found.name, sql(ino.0)])?;
        let insert = "INSERT INTO cloning(clone, source, target, next, depth, key_bytes) VALUES(?, ?, ?, x'', ?, ?)";
        let (depth, key_bytes) = (at.depth as i64 + 1, (at.key_bytes + found.name.len()) as i64);
        self.run(insert, params![sql(job.id.0), source, sql(ino.0), depth, key_bytes])?;
        Ok(())
    }

    fn copy_object(&mut self, job: &mut Job, at: &Reached, found: &SourceEntry) -> Result<(), Error> {
        let copy = self.copy_of(job, at, found)?;
        let insert = "INSERT INTO node(id, nlink, refs, body, form, attrs, place) VALUES(?, 1, 1, ?, ?, ?, NULL)";
        let (ino, body) = (self.take_id(), copy.body.map_or(0, |body| sql(body.0)));
        self.run(insert, params![sql(ino.0), body, copy.form, copy.attrs.as_deref()])?;
        copy.body.map_or(Ok(()), |body| self.add_use(body))?;
        let flags = found.flags & flag::CLASSED | if job.makes_null { flag::NULL } else { 0 };
        let insert = "INSERT INTO dentry(parent, name, kind, ino, seq, flags, size_bytes, mtime_ns, etag)
            VALUES(?, ?, 0, ?, ?, ?, ?, ?, ?)";
        let seq = self.take_seq();
        let columns = params![
            sql(at.target.0),
            found.name,
            sql(ino.0),
            sql(seq.0),
            flags,
            copy.size_bytes,
            copy.modified,
            copy.etag.as_deref()
        ];
        self.run(insert, columns)?;
        job.state.object_count += 1;
        job.state.size_bytes += unsql(copy.size_bytes);
        let usage = self.cache.usage.entry(job.state.target.0).or_default();
        usage.object_count += 1;
        usage.size_bytes += copy.size_bytes;
        Ok(())
    }

    /// What the copy of an object is.
    fn copy_of<'f>(&self, job: &Job, at: &Reached, found: &'f SourceEntry) -> Result<ObjectCopy<'f>, Error> {
        let missing = || Error::Inconsistent(format!("node {} is named and missing", found.ino));
        let is_linked = found.kind == kind::LINKED;
        let kept = if is_linked { self.kept(job.id, found.ino)? } else { None };
        let (body, form, bytes) = match kept {
            Some((body, form, attrs)) => (body, form, Cow::Owned(attrs)),
            None => {
                let (body, form) = match (found.body.ok_or_else(missing)?, found.form.ok_or_else(missing)?) {
                    (0, form) => ((form != Form::Empty as i64).then_some(found.ino), form),
                    (_, _) => {
                        let (body, form) = self.shown_body(found.ino)?;
                        (body, form as i64)
                    }
                };
                (body, form, Cow::Borrowed(&found.attrs))
            }
        };
        let mut copy = ObjectCopy {
            body,
            form,
            attrs: None,
            size_bytes: found.size_bytes.unwrap_or(0),
            modified: found.modified.unwrap_or(0),
            etag: found.etag.as_deref().map(Cow::Borrowed),
        };
        let is_plain = bytes.as_deref().is_none_or(|bytes| bytes.first() == Some(&PLAIN_ATTRS));
        if is_plain && !is_linked && !job.source_locks {
            copy.attrs = match bytes {
                Cow::Borrowed(bytes) => bytes.as_deref().map(Cow::Borrowed),
                Cow::Owned(bytes) => bytes.map(Cow::Owned),
            };
            return Ok(copy);
        }
        let mut own = bytes.as_deref().map(InodeAttrs::decode).transpose()?.unwrap_or_default();
        if let Some(linked) = own.attrs.linked.take() {
            (copy.size_bytes, copy.modified) = (sql(linked.size_bytes), linked.modified.0);
            copy.etag = Some(Cow::Owned(linked.etag.to_bytes()));
        }
        // Who keeps a version from being deleted does not keep its copies.
        (own.attrs.retention, own.attrs.hold, own.is_draft) = (None, false, false);
        own.home = (!is_plain).then(|| (at.target, found.name.clone()));
        copy.attrs = Some(Cow::Owned(own.encode()));
        Ok(copy)
    }

    fn kept(&self, clone: Ino, ino: Ino) -> Result<Option<Kept>, Error> {
        let query = "SELECT body, form, attrs FROM kept WHERE clone=? AND ino=?";
        self.find(query, [sql(clone.0), sql(ino.0)], |row| {
            let body = unsql(row.get(0)?);
            Ok(((body != 0).then_some(Ino(body)), row.get(1)?, row.get(2)?))
        })
    }

    /// Gives back what was kept of files of several names, at most `budget` of them. Returns how many.
    pub(super) fn drop_kept(&mut self, clone: Ino, budget: u64) -> Result<u64, Error> {
        let query = "SELECT ino, body FROM kept WHERE clone=? ORDER BY ino LIMIT ?";
        let rows: Vec<(i64, i64)> =
            self.all(query, [sql(clone.0), sql(budget)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for (ino, body) in &rows {
            self.run("DELETE FROM kept WHERE clone=? AND ino=?", [sql(clone.0), *ino])?;
            if *body != 0 {
                self.lose(Ino(unsql(*body)), Use::Body)?;
            }
        }
        Ok(rows.len() as u64)
    }

    /// Gives the clone's directory its name.
    fn publish_clone(&mut self, job: &mut Job) -> Result<(), Error> {
        let Ok(bucket) = super::super::settle(self.bucket(job.state.target))? else {
            self.fail(job, "the bucket is gone");
            return Ok(());
        };
        let (to, root) = (job.state.to.clone(), job.state.root);
        let (names, _) = path::split(&to);
        let Some((name, above)) = names.split_last() else {
            self.fail(job, "it has no name");
            return Ok(());
        };
        if self.directory_under(&bucket, &names)?.is_some() {
            self.fail(job, "somebody else has made the prefix meanwhile");
            return Ok(());
        }
        if !self.exists("SELECT 1 FROM dentry WHERE parent=? LIMIT 1", [sql(root.0)])? {
            self.fail(job, "nothing was visible under the prefix");
            return Ok(());
        }
        let mut parent = bucket.id.root();
        for directory in above {
            parent = self.make_directory(parent, directory, true)?.ino;
        }
        self.run("DELETE FROM detached WHERE clone=? AND ino=?", [sql(job.id.0), sql(root.0)])?;
        self.run("UPDATE dir SET parent=?2, name=?3 WHERE ino=?1", params![sql(root.0), sql(parent.0), name])?;
        self.insert_directory_entry(parent, name, Directory { ino: root, visible: true })?;
        self.tell_prefix(Happening::CopiedPrefix, bucket.id.root(), (parent, name))?;
        job.state.phase = ClonePhase::Done;
        job.state.ended = Some(self.now);
        self.cache.clones = None;
        Ok(())
    }
}
