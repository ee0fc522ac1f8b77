//! Queries on one snapshot: what stands under a key, where its bytes are, what the store holds.
//!
//! Invariants
//! - A query reads only; what it answers is true of one snapshot, whole.
//! - Rows that contradict each other are an error (`Inconsistent`), never a guess.

mod chunks;
mod files;

use std::ops::Range;

use bytes::Bytes;
use rusqlite::{Connection, Params, params};

pub use files::HeldLock;

use super::event::Event;
use super::level::{EVENTS_LEVEL, LOCKING_LEVEL, RECORDS_LEVEL};
use super::types::InodeAttrs;
use super::*;
use crate::env::Timestamp;
use crate::ids::{BucketId, Ino, Seq, SessionId, VersionId};

/// Rows of `cursor`: the session that delivers events; how many events were not kept.
pub(super) const EVENTS_DELIVERER: &str = "events.deliverer";
pub(super) const EVENTS_LOST: &str = "events.lost";

/// One snapshot of the catalog.
pub struct View<'a> {
    pub(super) connection: &'a Connection,
}

/// What stands under a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// The version asked for (it may be a delete marker where a version was named).
    Found(Version),
    /// Nothing, and no history either; or not that version.
    Missing,
    /// No version was named and the newest is this delete marker.
    Deleted(Version),
}

/// Bytes of a chunk that may go once every live session's watermark has passed `died`. The chunk may live on elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reclaimable {
    /// The row.
    pub row: u64,
    /// The chunk.
    pub chunk: Ino,
    /// Log index of their death.
    pub died: LogIndex,
    /// What may go: all of a file, or the shards that it names.
    pub place: Place,
}

/// A live session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionState {
    /// Which.
    pub id: SessionId,
    /// Whose.
    pub gateway: String,
    /// Renewal counter.
    pub renewals: u64,
    /// Applied index of its oldest read.
    pub watermark: LogIndex,
}

/// What a bucket holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Current versions.
    pub object_count: u64,
    /// Their bytes.
    pub size_bytes: u64,
    /// Noncurrent versions and delete markers.
    pub version_count: u64,
    /// Their bytes.
    pub version_bytes: u64,
}

/// Kinds of `dentry` and `version` rows.
pub(super) mod kind {
    pub(in crate::catalog) const OBJECT: i64 = 0;
    pub(in crate::catalog) const DIRECTORY: i64 = 1;
    pub(in crate::catalog) const LINKED: i64 = 2;
    pub(in crate::catalog) const MARKER: i64 = 3;
}

/// Bits of the flags of `dentry` and `version` rows.
pub(super) mod flag {
    /// The null version.
    pub(in crate::catalog) const NULL: i64 = 1;
    /// Its node's attributes name a storage class. So a listing looks at no node but those.
    pub(in crate::catalog) const CLASSED: i64 = 2;
    /// A file that S3 does not see, while a row of `opened` says that it is not published.
    pub(in crate::catalog) const HIDDEN: i64 = 4;
}

/// Forms of `node` rows.
pub(super) mod form {
    pub(in crate::catalog) const EMPTY: i64 = 0;
    pub(in crate::catalog) const CHUNK: i64 = 1;
    pub(in crate::catalog) const EXTENTS: i64 = 2;
    pub(in crate::catalog) const INLINE: i64 = 3;
    pub(in crate::catalog) const MULTIPART: i64 = 4;
}

/// Bits of an extent's key below its part number.
pub(super) const PART_SHIFT: u32 = 40;

/// Contents may lie in contents, but not deeper than this.
const CONTENT_DEPTH_MAX: u32 = 64;

/// The tag of what has no bytes to tag.
const NO_ETAG: ETag = ETag { md5: [0; 16], part_count: 0 };

/// The columns that [`Entry::read`] takes, in its order.
pub(super) const ENTRY_COLUMNS: &str = "kind,ino,seq,flags,size_bytes,mtime_ns,etag";

/// A row of `dentry` or `version`, without its place.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: i64,
    pub(super) ino: Ino,
    pub(super) seq: Seq,
    pub(super) is_null: bool,
    is_classed: bool,
    /// Whether S3 does not see it, if its session still has it open.
    is_hidden: bool,
    size_bytes: Option<i64>,
    modified: Option<i64>,
    etag: Option<ETag>,
}

impl Entry {
    /// Reads [`ENTRY_COLUMNS`], the first of which is column `first`.
    pub(super) fn read(row: &rusqlite::Row<'_>, first: usize) -> Result<Entry, Error> {
        let flags: i64 = row.get(first + 3)?;
        Ok(Entry {
            kind: row.get(first)?,
            ino: Ino(unsigned(row, first + 1)?),
            seq: Seq(unsigned(row, first + 2)?),
            is_null: flags & flag::NULL != 0,
            is_classed: flags & flag::CLASSED != 0,
            is_hidden: flags & flag::HIDDEN != 0,
            size_bytes: row.get(first + 4)?,
            modified: row.get(first + 5)?,
            etag: row.get_ref(first + 6)?.as_blob_or_null()?.map(decode_etag).transpose()?,
        })
    }

    /// What clients name it by.
    pub(super) fn version_id(&self) -> VersionId {
        version_id(self.seq, self.is_null)
    }
}

/// What clients name a version by.
pub(super) fn version_id(seq: Seq, is_null: bool) -> VersionId {
    if is_null { VersionId::Null } else { VersionId::Seq(seq) }
}

/// Length, time and tag as a listing shows them.
pub(super) struct Shown {
    pub(super) size_bytes: u64,
    pub(super) modified: Timestamp,
    pub(super) etag: ETag,
}

/// A node's row, but for its attributes and place.
struct Body {
    ino: Ino,
    form: i64,
}

/// SQLite's integer for an id, a sequence or a bound; what exceeds it can be in no row, so the largest serves.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The inverse of [`signed`].
pub(super) fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> Result<u64, Error> {
    u64::try_from(row.get::<_, i64>(column)?).map_err(|_| Error::Undecodable { what: "integer" })
}

fn decode_etag(bytes: &[u8]) -> Result<ETag, Error> {
    ETag::from_bytes(bytes).ok_or(Error::Undecodable { what: "entity tag" })
}

impl<'a> View<'a> {
    pub(super) fn new(connection: &'a Connection) -> View<'a> {
        View { connection }
    }

    /// The first row of a query, if it has one.
    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&rusqlite::Row<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        rows.next()?.map(read).transpose()
    }

    /// Every row of a query.
    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&rusqlite::Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(row)?);
        }
        Ok(all)
    }

    /// A column of the one row of `state`.
    fn state(&self, sql: &str) -> Result<i64, Error> {
        self.one(sql, [], |row| Ok(row.get(0)?))?.ok_or_else(|| Error::Inconsistent("no state row".into()))
    }
}

impl View<'_> {
    /// The log index up to which this snapshot has applied; 0 also where nothing was.
    pub fn applied_index(&self) -> Result<LogIndex, Error> {
        // The column holds the index + 1, so that 0 is "nothing".
        let next = self.state("SELECT applied_index FROM state")?;
        Ok(LogIndex(u64::try_from(next).unwrap_or(0).saturating_sub(1)))
    }

    /// Catalog time.
    pub fn time(&self) -> Result<Timestamp, Error> {
        Ok(Timestamp(self.state("SELECT time_ns FROM state")?))
    }

    /// The feature level: what came with it may be proposed.
    pub fn feature_level(&self) -> Result<u32, Error> {
        let level = self.state("SELECT feature_level FROM state")?;
        u32::try_from(level).map_err(|_| Error::Inconsistent(format!("feature level {level}")))
    }

    /// A bucket by name.
    pub fn bucket(&self, name: &str) -> Result<Option<Bucket>, Error> {
        let sql = "SELECT id,name,owner,region,created_ns,versioning,ever_versioned,lock FROM bucket WHERE name=?1";
        self.one(sql, params![name.as_bytes()], read_bucket)
    }

    /// Buckets in order of their names, after `after`.
    pub fn buckets(&self, after: Option<&str>, limit: usize) -> Result<Vec<Bucket>, Error> {
        // Every blob is above the empty one, and no bucket has that name.
        let sql = "SELECT id,name,owner,region,created_ns,versioning,ever_versioned,lock FROM bucket
            WHERE name>?1 ORDER BY name LIMIT ?2";
        self.all(sql, params![after.unwrap_or_default().as_bytes(), signed(limit as u64)], read_bucket)
    }

    /// A setting of a bucket, as it was stored.
    pub fn setting(&self, bucket: BucketId, setting: Setting) -> Result<Option<Bytes>, Error> {
        let sql = "SELECT value FROM bucket_setting WHERE bucket=?1 AND kind=?2";
        self.one(sql, params![signed(bucket.0), setting as i64], |row| Ok(Bytes::from(row.get::<_, Vec<u8>>(0)?)))
    }

    /// What a bucket holds.
    pub fn usage(&self, bucket: BucketId) -> Result<Usage, Error> {
        let sql = "SELECT object_count,size_bytes,version_count,version_bytes FROM usage WHERE bucket=?1";
        let usage = self.one(sql, [signed(bucket.0)], |row| {
            Ok(Usage {
                object_count: unsigned(row, 0)?,
                size_bytes: unsigned(row, 1)?,
                version_count: unsigned(row, 2)?,
                version_bytes: unsigned(row, 3)?,
            })
        })?;
        Ok(usage.unwrap_or_default())
    }

    /// The current version under a key, or the named one.
    pub fn lookup(&self, bucket: BucketId, key: &[u8], version: Option<VersionId>) -> Result<Lookup, Error> {
        let (directories, name) = path::split(key);
        let Some(parent) = self.descend(bucket, &directories)? else { return Ok(Lookup::Missing) };
        let current = self.visible(parent, name)?.filter(|entry| entry.kind != kind::DIRECTORY);
        match (current, version) {
            (Some(entry), None) => Ok(Lookup::Found(self.version(&entry, true)?)),
            (Some(entry), Some(id)) if entry.version_id() == id => Ok(Lookup::Found(self.version(&entry, true)?)),
            (Some(_), Some(id)) => self.lookup_hidden(parent, name, id, false),
            (None, Some(id)) => self.lookup_hidden(parent, name, id, true),
            (None, None) => self.lookup_marker(parent, name),
        }
    }

    /// The last of the directories on a path, if all are there.
    pub(super) fn descend(&self, bucket: BucketId, directories: &[&[u8]]) -> Result<Option<Ino>, Error> {
        let mut parent = bucket.root();
        for name in directories {
            match self.directory(parent, name)? {
                Some(ino) => parent = ino,
                None => return Ok(None),
            }
        }
        Ok(Some(parent))
    }

    /// A directory, whether it shows something or holds only versions.
    fn directory(&self, parent: Ino, name: &[u8]) -> Result<Option<Ino>, Error> {
        if let Some(entry) = self.visible(parent, name)? {
            return Ok((entry.kind == kind::DIRECTORY).then_some(entry.ino));
        }
        let sql = "SELECT ino FROM version WHERE parent=?1 AND name=?2 AND seq=0 AND kind=1";
        self.one(sql, params![signed(parent.0), name], |row| Ok(Ino(unsigned(row, 0)?)))
    }

    fn visible(&self, parent: Ino, name: &[u8]) -> Result<Option<Entry>, Error> {
        let sql = "SELECT kind,ino,seq,flags,size_bytes,mtime_ns,etag FROM dentry WHERE parent=?1 AND name=?2";
        let found = self.one(sql, params![signed(parent.0), name], |row| Entry::read(row, 0))?;
        match found {
            Some(entry) if self.is_unpublished(&entry)? => Ok(None),
            found => Ok(found),
        }
    }

    /// Whether a file is one that its session has made and not written: S3 does not see it.
    pub(super) fn is_unpublished(&self, entry: &Entry) -> Result<bool, Error> {
        if !entry.is_hidden {
            return Ok(false);
        }
        let sql = "SELECT 1 FROM opened WHERE ino=?1 AND published=0";
        Ok(self.one(sql, [signed(entry.ino.0)], |_| Ok(()))?.is_some())
    }

    /// The sequence of the newest version of a key, delete markers too.
    pub(super) fn newest(&self, bucket: BucketId, key: &[u8]) -> Result<Option<Seq>, Error> {
        let (directories, name) = path::split(key);
        let Some(parent) = self.descend(bucket, &directories)? else { return Ok(None) };
        let visible = self.visible(parent, name)?.filter(|entry| entry.kind != kind::DIRECTORY);
        let newest = if visible.is_some() { visible } else { self.newest_hidden(parent, name)? };
        Ok(newest.map(|entry| entry.seq))
    }

    /// The newest row of `version` under a name.
    fn newest_hidden(&self, parent: Ino, name: &[u8]) -> Result<Option<Entry>, Error> {
        let sql = "SELECT kind,ino,seq,flags,size_bytes,mtime_ns,etag FROM version
            WHERE parent=?1 AND name=?2 AND kind<>1 ORDER BY seq DESC LIMIT 1";
        self.one(sql, params![signed(parent.0), name], |row| Entry::read(row, 0))
    }

    /// What a name without a visible version has: nothing, or a delete marker on top.
    fn lookup_marker(&self, parent: Ino, name: &[u8]) -> Result<Lookup, Error> {
        match self.newest_hidden(parent, name)? {
            None => Ok(Lookup::Missing),
            Some(entry) if entry.kind == kind::MARKER => Ok(Lookup::Deleted(self.version(&entry, true)?)),
            Some(entry) => Err(Error::Inconsistent(format!("version {} is the newest and not visible", entry.seq))),
        }
    }

    /// A named version that is not visible. `may_be_latest`: nothing is visible under the name.
    fn lookup_hidden(&self, parent: Ino, name: &[u8], id: VersionId, may_be_latest: bool) -> Result<Lookup, Error> {
        let (predicate, seq) = match id {
            VersionId::Null => ("seq>=?3 AND flags & 1", 0),
            VersionId::Seq(seq) => ("seq=?3 AND NOT (flags & 1)", signed(seq.0)),
        };
        let sql = format!(
            "SELECT {ENTRY_COLUMNS} FROM version WHERE parent=?1 AND name=?2 AND kind<>1 AND {predicate}
            ORDER BY seq DESC LIMIT 1"
        );
        let found = self.one(&sql, params![signed(parent.0), name, seq], |row| Entry::read(row, 0))?;
        let Some(entry) = found else { return Ok(Lookup::Missing) };
        let is_latest =
            may_be_latest && self.newest_hidden(parent, name)?.is_some_and(|newest| newest.seq == entry.seq);
        Ok(Lookup::Found(self.version(&entry, is_latest)?))
    }

    /// A row as a version, with its node's attributes.
    pub(super) fn version(&self, entry: &Entry, is_latest: bool) -> Result<Version, Error> {
        let InodeAttrs { attrs, revision, .. } = match entry.kind {
            kind::MARKER => InodeAttrs::default(),
            _ => self.inode_attrs(entry.ino)?,
        };
        let version = self.bare_version(entry, is_latest, attrs.linked)?;
        Ok(Version { attrs, revision, ..version })
    }

    /// A row as a version, without attributes. `linked`: what its node shows, if that is known already.
    pub(super) fn bare_version(
        &self,
        entry: &Entry,
        is_latest: bool,
        linked: Option<Linked>,
    ) -> Result<Version, Error> {
        let shown = self.shown(entry, linked)?;
        Ok(Version {
            ino: entry.ino,
            seq: entry.seq,
            id: entry.version_id(),
            is_latest,
            is_delete_marker: entry.kind == kind::MARKER,
            size_bytes: shown.size_bytes,
            modified: shown.modified,
            etag: shown.etag,
            attrs: Attrs::default(),
            revision: 0,
        })
    }

    /// Length, time and tag of a row: its own columns, or its node's where more than one name shows it.
    pub(super) fn shown(&self, entry: &Entry, linked: Option<Linked>) -> Result<Shown, Error> {
        if entry.kind == kind::LINKED {
            let linked = match linked {
                Some(linked) => Some(linked),
                None => self.attrs(entry.ino)?.linked,
            };
            let missing = || Error::Inconsistent(format!("node {} shows neither length nor time", entry.ino));
            let Linked { size_bytes, modified, etag } = linked.ok_or_else(missing)?;
            return Ok(Shown { size_bytes, modified, etag });
        }
        let size_bytes = u64::try_from(entry.size_bytes.unwrap_or(0));
        Ok(Shown {
            size_bytes: size_bytes.map_err(|_| Error::Undecodable { what: "length" })?,
            modified: Timestamp(entry.modified.unwrap_or(0)),
            etag: entry.etag.unwrap_or(NO_ETAG),
        })
    }

    /// The storage class of a row, as sent; empty: STANDARD.
    pub(super) fn storage_class(&self, entry: &Entry) -> Result<String, Error> {
        if entry.is_classed { Ok(self.attrs(entry.ino)?.storage_class) } else { Ok(String::new()) }
    }

    pub(super) fn attrs(&self, ino: Ino) -> Result<Attrs, Error> {
        Ok(self.inode_attrs(ino)?.attrs)
    }

    fn inode_attrs(&self, ino: Ino) -> Result<InodeAttrs, Error> {
        let read = |row: &rusqlite::Row<'_>| match row.get_ref(0)?.as_blob_or_null()? {
            Some(bytes) => InodeAttrs::decode(bytes),
            None => Ok(InodeAttrs::default()),
        };
        let attrs = self.one("SELECT attrs FROM node WHERE id=?1", [signed(ino.0)], read)?;
        attrs.ok_or_else(|| Error::Inconsistent(format!("no node {ino}")))
    }

    /// Where the bytes of `range` of a content are: every extent that overlaps it, whole.
    ///
    /// `range`: half-open, bytes; an empty one overlaps nothing, and what lies past the content's end names nothing. An inline content comes whole.
    ///
    /// # Errors
    /// `Inconsistent`: no such node, or a chunk without a place.
    pub fn manifest(&self, ino: Ino, range: Range<u64>) -> Result<Manifest, Error> {
        let body = self.body(ino)?;
        let extents = match body.form {
            form::EMPTY => return Ok(Manifest::Empty),
            form::INLINE => return self.inline(body.ino),
            form::CHUNK => vec![self.whole_chunk(body.ino)?],
            form::EXTENTS | form::MULTIPART => self.extents_of(&body, &range, 0)?,
            other => return Err(Error::Inconsistent(format!("node {ino} has form {other}"))),
        };
        Ok(Manifest::Extents(extents.into_iter().filter(|extent| overlaps(extent, &range)).collect()))
    }

    /// The node that holds the bytes of `ino`: itself, or the one whose body it shares.
    fn body(&self, ino: Ino) -> Result<Body, Error> {
        let sql = "SELECT b.id,b.form FROM node n JOIN node b ON b.id=CASE n.body WHEN 0 THEN n.id ELSE n.body END
            WHERE n.id=?1";
        let read = |row: &rusqlite::Row<'_>| Ok(Body { ino: Ino(unsigned(row, 0)?), form: row.get(1)? });
        let body = self.one(sql, [signed(ino.0)], read)?;
        body.ok_or_else(|| Error::Inconsistent(format!("node {ino} has no body")))
    }

    fn inline(&self, ino: Ino) -> Result<Manifest, Error> {
        let read = |row: &rusqlite::Row<'_>| Ok(Bytes::from(row.get::<_, Vec<u8>>(0)?));
        let data = self.one("SELECT data FROM inline WHERE ino=?1", [signed(ino.0)], read)?;
        data.map(Manifest::Inline).ok_or_else(|| Error::Inconsistent(format!("node {ino} has no inline bytes")))
    }

    /// The one extent of a node that is a chunk itself.
    fn whole_chunk(&self, ino: Ino) -> Result<Extent, Error> {
        let read = |row: &rusqlite::Row<'_>| read_place(row, 0, ino);
        let place = self.one("SELECT place FROM node WHERE id=?1", [signed(ino.0)], read)?;
        let place = place.ok_or_else(|| Error::Inconsistent(format!("no node {ino}")))?;
        Ok(Extent { start_bytes: 0, chunk: ino, chunk_start_bytes: 0, len_bytes: place.len_bytes, place })
    }

    /// Where the parts of a multipart content begin, up to the one that `end` lies in.
    fn spans(&self, ino: Ino, end: u64) -> Result<Vec<PartSpan>, Error> {
        let mut statement =
            self.connection.prepare_cached("SELECT num,size_bytes FROM part WHERE upload=?1 ORDER BY num")?;
        let mut rows = statement.query([signed(ino.0)])?;
        let mut spans = Vec::new();
        let mut start = 0;
        while start < end
            && let Some(row) = rows.next()?
        {
            let len = unsigned(row, 1)?;
            spans.push(PartSpan { number: unsigned(row, 0)?, start, len });
            start += len;
        }
        Ok(spans)
    }

    /// The extents of a multipart content from the one that covers the start of `range` to the one that covers its
    /// end, at their places in the content.
    fn part_extents(&self, ino: Ino, range: &Range<u64>, depth: u32) -> Result<Vec<Extent>, Error> {
        let spans = self.spans(ino, range.end)?;
        let first = spans.partition_point(|span| span.end() <= range.start);
        let (Some(low), Some(high)) = (spans.get(first), spans.last()) else { return Ok(Vec::new()) };
        let mut extents = self.extents(ino, [low.key(0), low.key(range.start), high.key(range.end)], depth)?;
        let mut spans = spans[first..].iter().peekable();
        for extent in &mut extents {
            let (number, offset) = (extent.start_bytes >> PART_SHIFT, extent.start_bytes & OFFSET_MASK);
            while spans.next_if(|span| span.number < number).is_some() {}
            let span = spans.peek().filter(|span| span.number == number);
            let missing = || Error::Inconsistent(format!("node {ino} has bytes of part {number}, which is not there"));
            extent.start_bytes = span.ok_or_else(missing)?.start + offset;
        }
        Ok(extents)
    }

    /// The extents of a content that overlap `range`, and some beside it. `depth`: of contents that it lies in.
    fn extents_of(&self, body: &Body, range: &Range<u64>, depth: u32) -> Result<Vec<Extent>, Error> {
        match body.form {
            form::EXTENTS => self.extents(body.ino, [0, range.start, range.end], depth),
            form::MULTIPART => self.part_extents(body.ino, range, depth),
            other => Err(Error::Inconsistent(format!("node {} of form {other} has no extents", body.ino))),
        }
    }

    /// The extents of `ino` with keys from `low` up to `end`, without those that lie before the one that covers `start`.
    /// Their keys stand for their places.
    fn extents(&self, ino: Ino, [low, start, end]: [u64; 3], depth: u32) -> Result<Vec<Extent>, Error> {
        let sql = "SELECT e.off,e.chunk,e.chunk_off,e.len_bytes,n.place FROM extent e LEFT JOIN node n ON n.id=e.chunk
            WHERE e.ino=?1 AND e.off<?4 AND e.off>=coalesce(
                (SELECT max(off) FROM extent WHERE ino=?1 AND off>=?2 AND off<=?3), ?2) ORDER BY e.off";
        let found = self.all(sql, params![signed(ino.0), signed(low), signed(start), signed(end)], |row| {
            let run = Run { start: unsigned(row, 0)?, chunk_start: unsigned(row, 2)?, len: unsigned(row, 3)? };
            let chunk = Ino(unsigned(row, 1)?);
            let is_content = row.get_ref(4)?.as_blob_or_null()?.is_none();
            Ok((chunk, run, if is_content { None } else { Some(read_place(row, 4, chunk)?) }))
        })?;
        let mut extents = Vec::with_capacity(found.len());
        for (chunk, run, place) in found {
            match place {
                Some(place) => extents.push(run.of(chunk, place)),
                None => self.extents_within(chunk, &run, depth + 1, &mut extents)?,
            }
        }
        Ok(extents)
    }

    /// What a run of another content lies in: of a file that was split into chunks of shards, or one whose bytes were
    /// shared when a file system began to change them.
    fn extents_within(&self, ino: Ino, run: &Run, depth: u32, extents: &mut Vec<Extent>) -> Result<(), Error> {
        let read = |row: &rusqlite::Row<'_>| Ok(Body { ino, form: row.get(0)? });
        let body = self.one("SELECT form FROM node WHERE id=?1", [signed(ino.0)], read)?;
        let body = body.filter(|_| depth < CONTENT_DEPTH_MAX);
        let body = body.ok_or_else(|| Error::Inconsistent(format!("an extent lies in {ino}, which has no bytes")))?;
        let range = run.chunk_start..run.chunk_start + run.len;
        for extent in self.extents_of(&body, &range, depth)? {
            let (from, to) =
                (extent.start_bytes.max(range.start), (extent.start_bytes + extent.len_bytes).min(range.end));
            if from < to {
                extents.push(Extent {
                    start_bytes: run.start + (from - range.start),
                    chunk_start_bytes: extent.chunk_start_bytes + (from - extent.start_bytes),
                    len_bytes: to - from,
                    ..extent
                });
            }
        }
        Ok(())
    }

    /// The parts of a completed multipart object with numbers above `after`, ascending; empty for any other.
    /// An object that shares the bytes of a multipart object has its parts.
    pub fn object_parts(&self, ino: Ino, after: u32, limit: usize) -> Result<Vec<Part>, Error> {
        let body = self.body(ino)?;
        match body.form {
            form::MULTIPART => self.parts(body.ino, after, limit),
            _ => Ok(Vec::new()),
        }
    }

    /// How many parts a multipart object has, and (start, length in bytes) of its `index`-th (from 0) part.
    /// None where it has no such part, or is not multipart.
    pub fn object_part(&self, ino: Ino, index: u32) -> Result<Option<(u32, u64, u64)>, Error> {
        let body = self.body(ino)?;
        if body.form != form::MULTIPART {
            return Ok(None);
        }
        let spans = self.spans(body.ino, u64::MAX)?;
        let span = usize::try_from(index).ok().and_then(|index| spans.get(index));
        Ok(span.map(|span| (u32::try_from(spans.len()).unwrap_or(u32::MAX), span.start, span.len)))
    }

    /// An upload in progress.
    pub fn upload(&self, bucket: BucketId, key: &[u8], id: Ino) -> Result<Option<Upload>, Error> {
        let sql = "SELECT key,id,created_ns,attrs FROM upload WHERE bucket=?1 AND key=?2 AND id=?3";
        self.one(sql, params![signed(bucket.0), key, signed(id.0)], read_upload)
    }

    /// The result of an upload completed lately: digest of its part list, and its outcome.
    pub fn completed(&self, bucket: BucketId, key: &[u8], id: Ino) -> Result<Option<(Vec<u8>, Written)>, Error> {
        let sql = "SELECT digest,outcome FROM completed WHERE id=?1 AND bucket=?2 AND key=?3";
        self.one(sql, params![signed(id.0), signed(bucket.0), key], |row| {
            Ok((row.get(0)?, Written::decode(row.get_ref(1)?.as_blob()?)?))
        })
    }

    /// Parts of an upload in progress with numbers above `after`, ascending.
    pub fn parts(&self, upload: Ino, after: u32, limit: usize) -> Result<Vec<Part>, Error> {
        let sql = "SELECT num,size_bytes,mtime_ns,etag,checksums FROM part WHERE upload=?1 AND num>?2
            ORDER BY num LIMIT ?3";
        self.all(sql, params![signed(upload.0), after, signed(limit as u64)], read_part)
    }

    /// An access key: its account and its encoded attributes.
    pub fn credential(&self, access_key: &str) -> Result<Option<(String, Bytes)>, Error> {
        let sql = "SELECT account,attrs FROM credential WHERE access_key=?1";
        self.one(sql, [access_key], |row| Ok((row.get(0)?, Bytes::from(row.get::<_, Vec<u8>>(1)?))))
    }

    /// All access keys: key, account, encoded attributes.
    pub fn credentials(&self) -> Result<Vec<(String, String, Bytes)>, Error> {
        let sql = "SELECT access_key,account,attrs FROM credential ORDER BY access_key";
        self.all(sql, [], |row| Ok((row.get(0)?, row.get(1)?, Bytes::from(row.get::<_, Vec<u8>>(2)?))))
    }

    /// Whether buckets may tell what happens in them.
    pub fn has_events(&self) -> Result<bool, Error> {
        Ok(self.feature_level()? >= EVENTS_LEVEL)
    }

    /// Whether versions may be locked.
    pub fn has_locking(&self) -> Result<bool, Error> {
        Ok(self.feature_level()? >= LOCKING_LEVEL)
    }

    /// Events that wait to be delivered, in their order, after `after`: at most `limit`.
    pub fn events(&self, after: Seq, limit: usize) -> Result<Vec<(Seq, BucketId, Event)>, Error> {
        let sql = "SELECT seq,bucket,event FROM outbox WHERE seq>?1 ORDER BY seq LIMIT ?2";
        let rows = self.all(sql, params![signed(after.0), signed(limit as u64)], |row| {
            Ok((Seq(unsigned(row, 0)?), BucketId(unsigned(row, 1)?), row.get::<_, Vec<u8>>(2)?))
        })?;
        rows.into_iter().map(|(seq, bucket, event)| Ok((seq, bucket, Event::decode(&event)?))).collect()
    }

    /// The session that delivers events, and whether it lives; 0: none has begun to.
    pub fn event_deliverer(&self) -> Result<(SessionId, bool), Error> {
        let session = SessionId(self.cursor(EVENTS_DELIVERER)?);
        let sql = "SELECT 1 FROM session WHERE id=?1";
        Ok((session, self.one(sql, [signed(session.0)], |_| Ok(()))?.is_some()))
    }

    /// Events that happened while as many waited as may, and were not kept.
    pub fn lost_event_count(&self) -> Result<u64, Error> {
        self.cursor(EVENTS_LOST)
    }

    /// A bucket by its id.
    pub fn bucket_by_id(&self, id: BucketId) -> Result<Option<Bucket>, Error> {
        let sql = "SELECT id,name,owner,region,created_ns,versioning,ever_versioned,lock FROM bucket WHERE id=?1";
        self.one(sql, [signed(id.0)], read_bucket)
    }

    /// The key of a directory as it is now, which ends in `/`; none: it is no more.
    pub fn directory_key(&self, directory: Ino) -> Result<Option<Vec<u8>>, Error> {
        let sql = "SELECT parent,name FROM dir WHERE ino=?1";
        let (mut parts, mut at) = (Vec::new(), directory);
        loop {
            let found = self.one(sql, [signed(at.0)], |row| Ok((Ino(unsigned(row, 0)?), row.get::<_, Vec<u8>>(1)?)))?;
            match found {
                None => return Ok(None),
                Some((Ino(0), _)) => break,
                Some((parent, name)) => (at, _) = (parent, parts.push(name)),
            }
        }
        parts.reverse();
        Ok(Some(parts.concat()))
    }

    fn cursor(&self, name: &str) -> Result<u64, Error> {
        Ok(self.one("SELECT position FROM cursor WHERE name=?1", [name], |row| unsigned(row, 0))?.unwrap_or(0))
    }

    /// Whether there may be records: see [`Command::SetRecord`].
    pub fn has_records(&self) -> Result<bool, Error> {
        Ok(self.feature_level()? >= RECORDS_LEVEL)
    }

    /// A record.
    pub fn record(&self, kind: RecordKind, name: &str) -> Result<Option<Bytes>, Error> {
        if !self.has_records()? {
            return Ok(None);
        }
        let sql = "SELECT value FROM record WHERE kind=?1 AND name=?2";
        self.one(sql, params![kind.number(), name], |row| Ok(Bytes::from(row.get::<_, Vec<u8>>(0)?)))
    }

    /// All records of a kind, by name.
    pub fn records(&self, kind: RecordKind) -> Result<Vec<(String, Bytes)>, Error> {
        if !self.has_records()? {
            return Ok(Vec::new());
        }
        let sql = "SELECT name,value FROM record WHERE kind=?1 ORDER BY name";
        self.all(sql, [kind.number()], |row| Ok((row.get(0)?, Bytes::from(row.get::<_, Vec<u8>>(1)?))))
    }

    /// The cluster's map, if it has one.
    ///
    /// # Errors
    /// `Undecodable`; `Inconsistent`: the map is not of its row's epoch.
    pub fn map(&self) -> Result<Option<Map>, Error> {
        self.one("SELECT epoch,value FROM map", [], |row| {
            let (epoch, map) = (unsigned(row, 0)?, Map::decode(row.get_ref(1)?.as_blob()?)?);
            let other = || Error::Inconsistent(format!("the map of epoch {epoch} says {}", map.epoch));
            if map.epoch == epoch { Ok(map) } else { Err(other()) }
        })
    }

    /// Live sessions.
    pub fn sessions(&self) -> Result<Vec<SessionState>, Error> {
        self.all("SELECT id,gateway,renewals,watermark FROM session ORDER BY id", [], |row| {
            Ok(SessionState {
                id: SessionId(unsigned(row, 0)?),
                gateway: row.get(1)?,
                renewals: unsigned(row, 2)?,
                watermark: LogIndex(unsigned(row, 3)?),
            })
        })
    }

    /// Bytes that died before `before`, oldest first.
    pub fn reclaimable(&self, before: LogIndex, limit: usize) -> Result<Vec<Reclaimable>, Error> {
        self.reclaimable_after(0, before, limit)
    }

    /// The same behind row `row`: whoever cannot reach a node goes on behind what only that node could give back.
    pub fn reclaimable_after(&self, row: u64, before: LogIndex, limit: usize) -> Result<Vec<Reclaimable>, Error> {
        // Rows are appended in the order of the log and numbered from 1, so those that died earlier come first.
        let sql = "SELECT seq,chunk,died,place FROM reclaim WHERE seq>?1 ORDER BY seq LIMIT ?2";
        let rows = self.all(sql, [signed(row), signed(limit as u64)], |row| {
            let chunk = Ino(unsigned(row, 1)?);
            Ok(Reclaimable {
                row: unsigned(row, 0)?,
                chunk,
                died: LogIndex(unsigned(row, 2)?),
                place: read_place(row, 3, chunk)?,
            })
        })?;
        Ok(rows.into_iter().take_while(|row| row.died < before).collect())
    }

    /// Whether a drain has something to do.
    pub fn has_dead(&self) -> Result<bool, Error> {
        Ok(self.one("SELECT 1 FROM dead LIMIT 1", [], |_| Ok(()))?.is_some() || self.has_reapable()?)
    }

    /// The bucket and the key of a name, climbing from its directory to the root.
    pub(super) fn full_name(&self, parent: Ino, name: Vec<u8>) -> Result<(String, Vec<u8>), Error> {
        let mut names = vec![name];
        let mut directory = parent;
        while names.len() <= path::DEPTH_MAX + 1 {
            let bucket = self.one("SELECT name FROM bucket WHERE id=?1", [signed(directory.0)], read_text)?;
            if let Some(bucket) = bucket {
                return Ok((bucket, names.into_iter().rev().flatten().collect()));
            }
            let read = |row: &rusqlite::Row<'_>| Ok((Ino(unsigned(row, 0)?), row.get::<_, Vec<u8>>(1)?));
            let Some((above, name)) =
                self.one("SELECT parent,name FROM dir WHERE ino=?1", [signed(directory.0)], read)?
            else {
                break;
            };
            names.push(name);
            directory = above;
        }
        Err(Error::Inconsistent(format!("directory {parent} is in no bucket")))
    }
}

/// A run of a chunk in a content, or in a part's keys.
struct Run {
    start: u64,
    chunk_start: u64,
    len: u64,
}

impl Run {
    fn of(self, chunk: Ino, place: Place) -> Extent {
        let Run { start: start_bytes, chunk_start: chunk_start_bytes, len: len_bytes } = self;
        Extent { start_bytes, chunk, chunk_start_bytes, len_bytes, place }
    }
}

/// The run of a multipart content that is one part.
struct PartSpan {
    number: u64,
    start: u64,
    len: u64,
}

const OFFSET_MASK: u64 = (1 << PART_SHIFT) - 1;

impl PartSpan {
    fn end(&self) -> u64 {
        self.start + self.len
    }

    /// The key of an extent that begins at `position` of the content, or at the nearest one of this part.
    fn key(&self, position: u64) -> u64 {
        self.number << PART_SHIFT | position.saturating_sub(self.start).min(self.len)
    }
}

fn overlaps(extent: &Extent, range: &Range<u64>) -> bool {
    !range.is_empty()
        && extent.start_bytes < range.end
        && range.start < extent.start_bytes.saturating_add(extent.len_bytes)
}

pub(super) fn read_place(row: &rusqlite::Row<'_>, column: usize, chunk: Ino) -> Result<Place, Error> {
    match row.get_ref(column)?.as_blob_or_null()? {
        Some(bytes) => Place::decode(bytes),
        None => Err(Error::Inconsistent(format!("chunk {chunk} has no place"))),
    }
}

fn read_text(row: &rusqlite::Row<'_>) -> Result<String, Error> {
    String::from_utf8(row.get(0)?).map_err(|_| Error::Undecodable { what: "bucket name" })
}

fn read_bucket(row: &rusqlite::Row<'_>) -> Result<Bucket, Error> {
    let name = String::from_utf8(row.get(1)?).map_err(|_| Error::Undecodable { what: "bucket name" })?;
    Ok(Bucket {
        id: BucketId(unsigned(row, 0)?),
        name,
        owner: row.get(2)?,
        region: row.get(3)?,
        created: Timestamp(row.get(4)?),
        versioning: match row.get::<_, i64>(5)? {
            0 => Versioning::Never,
            1 => Versioning::Enabled,
            2 => Versioning::Suspended,
            _ => return Err(Error::Undecodable { what: "versioning" }),
        },
        ever_versioned: row.get(6)?,
        lock: row.get(7)?,
    })
}

pub(super) fn read_upload(row: &rusqlite::Row<'_>) -> Result<Upload, Error> {
    Ok(Upload {
        id: Ino(unsigned(row, 1)?),
        key: row.get(0)?,
        created: Timestamp(row.get(2)?),
        attrs: Attrs::decode(row.get_ref(3)?.as_blob()?)?,
    })
}

fn read_part(row: &rusqlite::Row<'_>) -> Result<Part, Error> {
    let checksums = row.get_ref(4)?.as_blob_or_null()?.map(Checksum::decode_all).transpose()?;
    Ok(Part {
        number: row.get(0)?,
        size_bytes: unsigned(row, 1)?,
        modified: Timestamp(row.get(2)?),
        etag: decode_etag(row.get_ref(3)?.as_blob()?)?,
        checksums: checksums.unwrap_or_default(),
    })
}

impl From<rusqlite::types::FromSqlError> for Error {
    fn from(_: rusqlite::types::FromSqlError) -> Self {
        Error::Undecodable { what: "column" }
    }
}

#[cfg(test)]
mod tests;
