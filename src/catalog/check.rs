//! The complete check of the catalog: every invariant between rows, as a query for what breaks it; and a walk over all
//! that it names.
//!
//! Each table of invariants below is what the comments of `schema.sql` and of `apply` promise, said in SQL.
//!
//! Invariant: a damaged row hides no other. What does not decode is told, and the check goes on behind it.

use std::collections::BTreeMap;

use rusqlite::params;

use super::query::{ENTRY_COLUMNS, Entry, kind, read_place, signed, unsigned, version_id};
use super::types::Repair;
use super::*;
use crate::ids::{Ino, Seq, ShardId, VersionId};

/// What must hold, and a query whose rows (one text column) break it.
type Check = (&'static str, &'static str);

/// The tree of names.
const TREE: &[Check] = &[
    (
        "every directory of a name has a row",
        "SELECT parent||' '||hex(name) FROM dentry WHERE parent NOT IN (SELECT ino FROM dir)
        UNION ALL SELECT parent||' '||hex(name) FROM version WHERE parent NOT IN (SELECT ino FROM dir)",
    ),
    (
        "a bucket's root is a directory without a name",
        "SELECT b.id FROM bucket b LEFT JOIN dir d ON d.ino=b.id WHERE d.parent IS NOT 0 OR d.name IS NOT x''",
    ),
    (
        "a directory has one entry, under its parent and its name",
        "SELECT d.ino FROM dir d WHERE d.ino NOT IN (SELECT id FROM bucket) AND d.ino NOT IN ({detached}) AND 1<>
        (SELECT count(*) FROM dentry e WHERE e.parent=d.parent AND e.name=d.name AND e.kind=1 AND e.ino=d.ino)+
        (SELECT count(*) FROM version e WHERE e.parent=d.parent AND e.name=d.name AND e.kind=1 AND e.ino=d.ino)",
    ),
    (
        "a directory's entry is the directory's",
        "SELECT hex(e.name) FROM (SELECT parent,name,ino FROM dentry WHERE kind=1
            UNION ALL SELECT parent,name,ino FROM version WHERE kind=1) e
        LEFT JOIN dir d ON d.ino=e.ino WHERE d.parent IS NOT e.parent OR d.name IS NOT e.name",
    ),
    (
        "a directory's name ends in its only slash",
        "SELECT hex(name) FROM (SELECT name,kind FROM dentry UNION ALL SELECT name,kind FROM version)
        WHERE kind=1 AND instr(name,x'2f')<>length(name)",
    ),
    (
        "a visible directory holds something visible",
        "SELECT ino FROM dentry d WHERE kind=1 AND NOT EXISTS (SELECT 1 FROM dentry e WHERE e.parent=d.ino)
        AND d.ino NOT IN ({targets})",
    ),
    (
        "a directory of versions holds versions, and nothing visible",
        "SELECT ino FROM version d WHERE kind=1 AND (seq<>0 OR EXISTS (SELECT 1 FROM dentry e WHERE e.parent=d.ino)
            OR NOT EXISTS (SELECT 1 FROM version e WHERE e.parent=d.ino))",
    ),
    (
        "an entry has a kind",
        "SELECT kind FROM dentry WHERE kind NOT IN (0,1,2) UNION ALL
        SELECT kind FROM version WHERE kind NOT IN (0,1,2,3)",
    ),
    (
        "what is visible is newer than every other version",
        "SELECT hex(d.name) FROM dentry d WHERE kind<>1 AND d.seq<=
        (SELECT max(v.seq) FROM version v WHERE v.parent=d.parent AND v.name=d.name)",
    ),
    (
        "where nothing is visible, the newest version is a delete marker",
        "SELECT hex(v.name) FROM version v WHERE v.kind IN (0,2) AND v.parent NOT IN ({detached})
        AND NOT EXISTS (SELECT 1 FROM dentry d WHERE d.parent=v.parent AND d.name=v.name)
        AND NOT EXISTS (SELECT 1 FROM version w WHERE w.parent=v.parent AND w.name=v.name AND w.seq>v.seq)",
    ),
    ("a delete marker names no node", "SELECT hex(name) FROM version WHERE kind=3 AND ino<>0"),
    (
        "a key has at most one null version",
        "SELECT hex(name) FROM (SELECT parent,name,flags FROM dentry WHERE kind<>1
            UNION ALL SELECT parent,name,flags FROM version WHERE kind<>1)
        WHERE flags&1 GROUP BY parent,name HAVING count(*)>1",
    ),
    (
        "a version of a key has a sequence, a time and, unless linked, a length and a tag",
        "SELECT hex(name) FROM (SELECT * FROM dentry UNION ALL
            SELECT parent,name,kind,ino,seq,flags,size_bytes,mtime_ns,etag FROM version)
        WHERE kind IN (0,2,3) AND seq<=0 OR kind IN (0,3) AND mtime_ns IS NULL
            OR kind=0 AND (size_bytes IS NULL OR etag IS NULL OR length(etag) NOT IN (16,20))",
    ),
];

/// Nodes, their counts and their contents.
const NODES: &[Check] = &[
    (
        "what a name shows has a node",
        "SELECT ino FROM (SELECT ino,kind FROM dentry UNION ALL SELECT ino,kind FROM version)
        WHERE kind IN (0,2) AND ino NOT IN (SELECT id FROM node)",
    ),
    (
        "a node counts its names and its uses, and those lost that were not drained yet; without uses it is being drained",
        "WITH nameless(ino) AS MATERIALIZED ({orphans}), name(id,count) AS MATERIALIZED (SELECT ino,count(*) FROM
                (SELECT ino,kind FROM dentry UNION ALL SELECT ino,kind FROM version)
                WHERE kind IN (0,2) GROUP BY ino),
            share(id,count) AS MATERIALIZED 
                (SELECT body,count(*) FROM (SELECT body FROM node UNION ALL {kept}) WHERE body<>0 GROUP BY body),
            piece(id,count) AS MATERIALIZED (SELECT chunk,count(*) FROM extent GROUP BY chunk),
            lost(id,names,bodies) AS MATERIALIZED
                (SELECT id,sum(named=1),sum(named=0) FROM dead GROUP BY id)
        SELECT n.id||': nlink '||n.nlink||', refs '||n.refs||', names '||coalesce(name.count,0)||', shares '||
            coalesce(share.count,0)||', extents '||coalesce(piece.count,0)||', lost names '||coalesce(lost.names,0)||
            ', lost uses '||coalesce(lost.bodies,0)
        FROM node n LEFT JOIN name ON name.id=n.id LEFT JOIN share ON share.id=n.id
            LEFT JOIN piece ON piece.id=n.id LEFT JOIN lost ON lost.id=n.id
        WHERE CASE n.refs WHEN 0
            THEN NOT EXISTS (SELECT 1 FROM dead WHERE dead.id=n.id) OR n.nlink<>0 OR coalesce(name.count,share.count,piece.count,0)<>0
            ELSE n.nlink<>coalesce(name.count,0)+coalesce(lost.names,0)
                OR n.refs<>(n.nlink>0 OR n.id IN (SELECT ino FROM nameless))+coalesce(share.count,0)
                    +coalesce(piece.count,0)+coalesce(lost.bodies,0) END",
    ),
    ("what was lost has a node", "SELECT id FROM dead WHERE id NOT IN (SELECT id FROM node)"),
    (
        "a body that a node shows is another's, which is there",
        "SELECT n.id FROM node n LEFT JOIN node b ON b.id=n.body WHERE n.body<>0 AND (b.id IS NULL OR b.id=n.id)",
    ),
    (
        "a node's form says where its bytes are",
        "SELECT id||' of form '||form FROM node n WHERE body=0 AND (form NOT BETWEEN 0 AND 4
            OR (form=1)<>(place IS NOT NULL)
            OR (form=3)<>EXISTS (SELECT 1 FROM inline WHERE ino=id)
            OR form IN (0,1,3) AND EXISTS (SELECT 1 FROM extent WHERE ino=id)
            OR form<>4 AND EXISTS (SELECT 1 FROM part WHERE upload=id))
        UNION ALL SELECT id||' that shows the body of another' FROM node n WHERE body<>0 AND refs=1
            AND id NOT IN (SELECT id FROM dead) AND (place IS NOT NULL
            OR EXISTS (SELECT 1 FROM inline WHERE ino=id) OR EXISTS (SELECT 1 FROM extent WHERE ino=id))",
    ),
    ("inline bytes are a node's", "SELECT ino FROM inline WHERE ino NOT IN (SELECT id FROM node)"),
    (
        "an extent is a node's or an upload's, and lies in a chunk",
        "SELECT e.ino||' at '||e.off FROM extent e LEFT JOIN node n ON n.id=e.chunk
        WHERE e.len_bytes<=0 OR e.chunk_off<0 OR n.id IS NULL OR n.place IS NULL AND n.form NOT IN (2,4)
            OR e.ino NOT IN (SELECT id FROM node UNION ALL SELECT id FROM upload)",
    ),
    (
        "the extents of a content do not overlap",
        "SELECT ino||' at '||off FROM
            (SELECT ino,off,off+len_bytes AS end,lead(off) OVER (PARTITION BY ino ORDER BY off) AS next FROM extent)
        WHERE end>next",
    ),
    (
        "a part belongs to an upload or to a multipart content, and has a number and a tag",
        "SELECT upload||' '||num FROM part WHERE num NOT BETWEEN 1 AND 10000 OR length(etag)<>16
            OR upload NOT IN (SELECT id FROM upload UNION ALL SELECT id FROM node WHERE form=4)",
    ),
    (
        "the extents of a part are as long as the part",
        "WITH run(upload,num,len) AS MATERIALIZED
            (SELECT ino,off>>40,sum(len_bytes) FROM extent
                WHERE ino IN (SELECT id FROM upload UNION ALL SELECT id FROM node WHERE form=4) GROUP BY 1,2)
        SELECT p.upload||' '||p.num FROM part p LEFT JOIN run USING(upload,num) WHERE coalesce(run.len,0)<>p.size_bytes
            AND p.upload NOT IN (SELECT id FROM node WHERE refs=0)
        UNION ALL SELECT upload||' '||num||' without a row' FROM run LEFT JOIN part p USING(upload,num)
            WHERE p.upload IS NULL AND upload NOT IN (SELECT id FROM node WHERE refs=0)",
    ),
    (
        "a multipart object is as long as its parts, unless a file system changed it",
        "SELECT e.ino FROM dentry e JOIN node n ON n.id=e.ino WHERE e.kind=0 AND n.form=4 AND n.body=0
            AND substr(n.attrs,1,1)<>x'02'
            AND e.size_bytes<>(SELECT coalesce(sum(size_bytes),0) FROM part WHERE upload=n.id)",
    ),
    (
        "an upload is in a bucket, has a key, and is no node yet",
        "SELECT id FROM upload WHERE bucket NOT IN (SELECT id FROM bucket) OR length(key) NOT BETWEEN 1 AND 1024
            OR id IN (SELECT id FROM node)",
    ),
    (
        "an object of chunks is as long as they are, unless a file system changed it",
        "SELECT e.ino FROM dentry e JOIN node n ON n.id=e.ino
            JOIN node b ON b.id=CASE n.body WHEN 0 THEN n.id ELSE n.body END
        WHERE e.kind=0 AND b.form=2 AND substr(n.attrs,1,1)<>x'02' AND substr(b.attrs,1,1)<>x'02'
            AND e.size_bytes<>(SELECT coalesce(sum(len_bytes),0) FROM extent WHERE ino=b.id)",
    ),
    (
        "what is to be repaired is a chunk",
        "SELECT chunk FROM repair WHERE chunk NOT IN (SELECT id FROM node WHERE place IS NOT NULL)",
    ),
    (
        "chunks are listed in the order of their deaths",
        "SELECT seq FROM (SELECT seq,died,lead(died) OVER (ORDER BY seq) AS next FROM reclaim) WHERE died>next",
    ),
];

/// Sessions, leases and counters.
const SESSIONS: &[Check] = &[
    ("there is one row of state", "SELECT count(*) FROM state HAVING count(*)<>1"),
    (
        "a lease is a range of its own, of a live session",
        "SELECT start FROM (SELECT start,end,session,lead(start) OVER (ORDER BY start) AS next FROM lease)
        WHERE end<=start OR end>next OR session NOT IN (SELECT id FROM session)",
    ),
    (
        "an outcome is a live session's",
        "SELECT session||' '||seq FROM outcome WHERE session NOT IN (SELECT id FROM session)",
    ),
    ("there is at most one map", "SELECT max(epoch) FROM map HAVING count(*)>1"),
    ("a gateway has one session", "SELECT gateway FROM session GROUP BY gateway HAVING count(*)>1"),
    (
        "an open file or a lock is a live session's",
        "SELECT ino FROM (SELECT ino,session FROM opened UNION ALL SELECT ino,session FROM lock UNION ALL
            SELECT ino,session FROM hold) WHERE session NOT IN (SELECT id FROM session)",
    ),
    (
        "no id is above those given out",
        "SELECT id FROM (SELECT max(id) AS id FROM node UNION ALL SELECT max(ino) FROM dir UNION ALL
            SELECT max(id) FROM bucket UNION ALL SELECT max(id) FROM session UNION ALL SELECT max(id) FROM upload
            UNION ALL SELECT max(end)-1 FROM lease UNION ALL SELECT max(chunk) FROM reclaim)
        WHERE id>=(SELECT incarnation<<48|next_id FROM state)",
    ),
    (
        "no row is above its counter",
        "SELECT 'dead '||seq FROM dead WHERE seq>=(SELECT next_dead FROM state) UNION ALL
        SELECT 'reclaim '||seq FROM reclaim WHERE seq>=(SELECT next_reclaim FROM state)",
    ),
    (
        "a setting, and usage, are a bucket's, and a bucket has its usage",
        "SELECT bucket FROM bucket_setting WHERE bucket NOT IN (SELECT id FROM bucket) UNION ALL
        SELECT bucket FROM usage WHERE bucket NOT IN (SELECT id FROM bucket) UNION ALL
        SELECT id FROM bucket WHERE id NOT IN (SELECT bucket FROM usage)",
    ),
];

/// What a file system adds.
const FILES: &[Check] = &[
    (
        "an inode without a name lives, says itself how long it is, and is in a bucket",
        "SELECT o.ino FROM orphan o LEFT JOIN node n ON n.id=o.ino WHERE n.id IS NULL OR n.nlink<>0 OR n.refs=0
            OR n.attrs IS NULL",
    ),
    (
        "who has a bucket mounted is a live session",
        "SELECT session FROM mounted WHERE session NOT IN (SELECT id FROM session)",
    ),
    (
        "an inode that is held has no name",
        "SELECT ino FROM opened WHERE published=1 AND ino IN (SELECT id FROM node WHERE nlink>0)",
    ),
    (
        "a file of several names says itself how long it is, by all of them",
        "SELECT n.id FROM node n JOIN (SELECT ino,min(kind) AS kind FROM dentry WHERE kind<>1 GROUP BY ino HAVING count(*)>1) e
            ON e.ino=n.id WHERE e.kind<>2",
    ),
];

/// What prefixes that are cloned or erased add.
const CLONES: &[Check] = &[
    (
        "a directory without a name is a clone's, lies in a bucket, and has no other",
        "SELECT t.ino FROM detached t LEFT JOIN dir d ON d.ino=t.ino WHERE d.name IS NOT x''
            OR d.parent NOT IN (SELECT id FROM bucket) OR t.clone NOT IN (SELECT id FROM job WHERE kind=1)
        UNION ALL SELECT ino FROM dir WHERE parent<>0 AND name=x'' AND ino NOT IN (SELECT ino FROM detached)",
    ),
    (
        "what is still to be cloned, and what was kept for it, is a clone's",
        "SELECT clone FROM (SELECT clone FROM cloning UNION ALL SELECT clone FROM settled UNION ALL SELECT clone FROM kept)
            WHERE clone NOT IN (SELECT id FROM job WHERE kind=1)
        UNION ALL SELECT s.clone FROM settled s LEFT JOIN cloning c ON c.clone=s.clone AND c.source=s.source
            WHERE c.clone IS NULL",
    ),
];

/// Chunks whose names are compared at once: a bound on memory.
const ROWS_PER_PASS: u64 = 250_000;

/// What holds bytes of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Name {
    File(Ino),
    Shard(ShardId),
}

impl Name {
    fn id(self) -> Ino {
        match self {
            Name::File(chunk) => chunk,
            Name::Shard(shard) => Ino(shard.0),
        }
    }
}

/// What is wrong with a living chunk's place. `repair`: which shards its row in `repair` says to be missing.
fn flaws(place: &Place, repair: Option<&[u8]>) -> impl Iterator<Item = String> {
    let missing = place.layout.missing();
    let is_whole = match &place.layout {
        Layout::Plain { .. } => true,
        Layout::Rs { data_count, parity_count, shards, .. } => {
            let there_count = shards.len() - missing.len();
            shards.len() == usize::from(*data_count) + usize::from(*parity_count)
                && there_count >= usize::from(*data_count)
        }
    };
    let unreadable = (!is_whole).then(|| format!("has too few shards, or too many: {:?}", place.layout.shards()));
    let is_told = repair.map_or(missing.is_empty(), |told| told == missing);
    let untold = (!is_told).then(|| format!("lacks shards {missing:?}, its row in repair says {repair:?}"));
    unreadable.into_iter().chain(untold)
}

/// A row that stands for a version of a key, as a complete check meets it.
pub struct VersionRow {
    parent: Ino,
    name: Vec<u8>,
    /// What clients name it by.
    pub id: VersionId,
    /// The version and where its bytes are; or why nobody can tell.
    pub found: Result<(Version, Manifest), Error>,
}

/// A chunk, and where it is, if that can be read.
pub type ChunkRow = (Ino, Result<Place, Error>);

impl View<'_> {
    /// Every contradiction between rows (counts, links, orders, encodings), as text; empty: sound. A full scan.
    ///
    /// `limit`: about how many of each kind to tell.
    pub fn contradictions(&self, limit: usize) -> Vec<String> {
        let mut found = Vec::new();
        let has_files = self.has_files().unwrap_or(false);
        let orphans = if has_files { "SELECT ino FROM orphan" } else { "SELECT 0 WHERE 0" };
        let files: &[Check] = if has_files { FILES } else { &[] };
        let has_clones = self.has_clones().unwrap_or(false);
        let clones: &[Check] = if has_clones { CLONES } else { &[] };
        let of_clones = |query: &'static str| if has_clones { query } else { "SELECT 0 WHERE 0" };
        for (what, sql) in [TREE, NODES, SESSIONS, files, clones].concat() {
            let sql = sql.replace("{orphans}", orphans).replace("{kept}", of_clones("SELECT body FROM kept"));
            let sql = sql.replace("{detached}", of_clones("SELECT ino FROM detached"));
            let sql = sql.replace("{targets}", of_clones("SELECT target FROM cloning"));
            let sql = format!("SELECT * FROM ({sql}) LIMIT {limit}");
            let broken = self.all(&sql, [], |row| Ok(format!("{what}: not so of {}", detail(row)?)));
            found.extend(told(broken, what));
        }
        found.extend(self.undecodable(limit));
        found.extend(told(self.contradictions_of_clones(has_clones), "clones are built, or over"));
        found.extend(told(self.contradictions_of_lengths(limit), "contents lie within their chunks"));
        found.extend(told(self.contradictions_of_places(limit), "chunks can be read, or are to be repaired"));
        found.extend(told(self.named_twice(limit), "files and shards are named once"));
        found.extend(told(self.map().map(|_| Vec::new()), "the cluster has a map"));
        found.extend(told(self.contradictions_of_buckets(limit), "usage is what the rows add up to"));
        found
    }

    /// Shows every version of every key to `visit`, delete markers too, and damaged ones like any other. A full scan.
    ///
    /// # Errors
    /// `Sqlite`: the database cannot be read on; what would have come is not shown.
    pub fn each_version(&self, mut visit: impl FnMut(&VersionRow)) -> Result<(), Error> {
        for table in ["dentry", "version"] {
            let sql = format!("SELECT parent,name,{ENTRY_COLUMNS} FROM {table} WHERE kind<>{}", kind::DIRECTORY);
            self.all(&sql, [], |row| {
                visit(&self.version_row(row));
                Ok(())
            })?;
        }
        Ok(())
    }

    fn version_row(&self, row: &rusqlite::Row<'_>) -> VersionRow {
        VersionRow {
            parent: Ino(lenient(row, 0)),
            name: row.get(1).unwrap_or_default(),
            id: version_id(Seq(lenient(row, 4)), lenient(row, 5) & 1 != 0),
            found: Entry::read(row, 2).and_then(|entry| self.with_manifest(&entry)),
        }
    }

    fn with_manifest(&self, entry: &Entry) -> Result<(Version, Manifest), Error> {
        let version = self.version(entry, false)?;
        let manifest = match version.is_delete_marker {
            true => Manifest::Empty,
            false => self.manifest(version.ino, 0..version.size_bytes)?,
        };
        Ok((version, manifest))
    }

    /// The bucket and the key of a row.
    pub fn name_of(&self, row: &VersionRow) -> (String, Vec<u8>) {
        self.told_name(row.parent, row.name.clone())
    }

    /// The bucket and the key of a name; of one whose directory is in no bucket, that instead of the bucket.
    fn told_name(&self, parent: Ino, name: Vec<u8>) -> (String, Vec<u8>) {
        let lost = format!("(directory {parent}, which is in no bucket)");
        self.full_name(parent, name.clone()).unwrap_or((lost, name))
    }

    /// Chunks with ids above `after`, ascending; and where each is, if that can be read.
    pub fn chunks(&self, after: Ino, limit: usize) -> Result<Vec<ChunkRow>, Error> {
        let sql = "SELECT id,place FROM node WHERE id>?1 AND place IS NOT NULL ORDER BY id LIMIT ?2";
        self.all(sql, params![signed(after.0), signed(limit as u64)], |row| {
            let chunk = Ino(unsigned(row, 0)?);
            Ok((chunk, read_place(row, 1, chunk)))
        })
    }

    /// Chunks of which bytes died that are not known to be gone. Ascending.
    pub fn dead_chunks(&self) -> Result<Vec<Ino>, Error> {
        self.all("SELECT DISTINCT chunk FROM reclaim ORDER BY chunk", [], |row| Ok(Ino(unsigned(row, 0)?)))
    }

    /// A few names (bucket, key, version) of objects whose bytes are in `chunk`. A scan.
    pub fn names_of(&self, chunk: Ino, limit: usize) -> Result<Vec<(String, Vec<u8>, VersionId)>, Error> {
        let sql = "WITH holder(id) AS (SELECT ?1 UNION SELECT ino FROM extent WHERE chunk=?1),
            user(id) AS (SELECT id FROM holder UNION SELECT id FROM node WHERE body IN (SELECT id FROM holder))
            SELECT parent,name,seq,flags FROM dentry WHERE kind<>1 AND ino IN (SELECT id FROM user)
            UNION ALL SELECT parent,name,seq,flags FROM version WHERE kind<>1 AND ino IN (SELECT id FROM user)
            ORDER BY 1,2,3 LIMIT ?2";
        self.all(sql, params![signed(chunk.0), signed(limit as u64)], |row| {
            let (bucket, key) = self.told_name(Ino(lenient(row, 0)), row.get(1).unwrap_or_default());
            Ok((bucket, key, version_id(Seq(lenient(row, 2)), lenient(row, 3) & 1 != 0)))
        })
    }

    /// Values that do not decode.
    fn undecodable(&self, limit: usize) -> Vec<String> {
        type Decode = fn(&[u8]) -> Result<(), Error>;
        let attrs: Decode = |bytes| Attrs::decode(bytes).map(drop);
        let place: Decode = |bytes| Place::decode(bytes).map(drop);
        let checksums: Decode = |bytes| Checksum::decode_all(bytes).map(drop);
        let clone: Decode = |bytes| CloneState::decode(bytes).map(drop);
        let outcome: Decode = |bytes| Outcome::decode(bytes).map(drop);
        let written: Decode = |bytes| Written::decode(bytes).map(drop);
        let repair: Decode = |bytes| Repair::decode(bytes).map(drop);
        let columns = [
            ("outcome", "seq", "value", outcome),
            ("completed", "id", "outcome", written),
            ("job", "id", "CASE kind WHEN 1 THEN state END", clone),
            ("node", "id", "attrs", attrs),
            ("node", "id", "place", place),
            ("upload", "id", "attrs", attrs),
            ("reclaim", "seq", "place", place),
            ("repair", "chunk", "missing", repair),
            ("part", "upload", "checksums", checksums),
        ];
        let mut found = Vec::new();
        for (table, id, column, decode) in columns {
            let sql = format!("SELECT {id},{column} AS value FROM {table} WHERE value IS NOT NULL");
            let mut broken = Vec::new();
            let scan = self.all(&sql, [], |row| {
                let value = row.get_ref(1)?.as_blob().map_err(Error::from).and_then(decode);
                if broken.len() < limit
                    && let Err(error) = value
                {
                    broken.push(format!("{table} {}: {error}", lenient(row, 0)));
                }
                Ok(())
            });
            found.extend(broken);
            found.extend(told(scan.map(|_| Vec::new()), &format!("{column} of {table}")));
        }
        found
    }

    /// Clones whose rows are not those of their phase.
    fn contradictions_of_clones(&self, has_clones: bool) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        for (clone, state) in self.clones()? {
            let flaw = match state.phase {
                _ if !has_clones => Some("is there before its feature level"),
                ClonePhase::Copying if !self.is_detached(clone, state.root)? => {
                    Some("is built in a directory that is not its own")
                }
                ClonePhase::Done | ClonePhase::Failed if self.has_walk(clone)? => {
                    Some("is over, and has something left to do")
                }
                _ => None,
            };
            found.extend(flaw.map(|flaw| format!("clone {clone} {flaw}")));
        }
        Ok(found)
    }

    fn is_detached(&self, clone: Ino, directory: Ino) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM detached WHERE clone=?1 AND ino=?2";
        Ok(self.one(sql, [signed(clone.0), signed(directory.0)], |_| Ok(()))?.is_some())
    }

    fn has_walk(&self, clone: Ino) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM (SELECT clone FROM cloning UNION ALL SELECT clone FROM settled UNION ALL
            SELECT clone FROM kept UNION ALL SELECT clone FROM detached) WHERE clone=?1";
        Ok(self.one(sql, [signed(clone.0)], |_| Ok(()))?.is_some())
    }

    /// Extents beyond their chunk, and objects of another length than their chunk.
    fn contradictions_of_lengths(&self, limit: usize) -> Result<Vec<String>, Error> {
        let extents = "SELECT e.ino,e.chunk_off+e.len_bytes,n.place FROM extent e JOIN node n ON n.id=e.chunk
            WHERE n.place IS NOT NULL";
        let objects = "SELECT e.ino,e.size_bytes,b.place FROM dentry e JOIN node n ON n.id=e.ino
            JOIN node b ON b.id=CASE n.body WHEN 0 THEN n.id ELSE n.body END
            WHERE e.kind=0 AND b.place IS NOT NULL AND substr(n.attrs,1,1)<>x'02'";
        let mut found = Vec::new();
        for (sql, is_whole) in [(extents, false), (objects, true)] {
            self.all(sql, [], |row| {
                let (ino, end) = (unsigned(row, 0)?, unsigned(row, 1)?);
                let Ok(place) = Place::decode(row.get_ref(2)?.as_blob()?) else { return Ok(()) };
                if found.len() < limit && (end > place.len_bytes || is_whole && end < place.len_bytes) {
                    found.push(format!("{ino} reaches to {end} in a chunk of {} bytes", place.len_bytes));
                }
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// Chunks that cannot be read or lack shards though nothing asks for their repair, and shards of names never given out.
    fn contradictions_of_places(&self, limit: usize) -> Result<Vec<String>, Error> {
        let mark = self.id_mark()?;
        let mut found = Vec::new();
        let sql = "SELECT n.id,n.place,r.missing FROM node n LEFT JOIN repair r ON r.chunk=n.id
            WHERE n.place IS NOT NULL";
        self.all(sql, [], |row| {
            let Ok(place) = Place::decode(row.get_ref(1)?.as_blob()?) else { return Ok(()) };
            let repair = row.get_ref(2)?.as_blob_or_null()?.map(Repair::decode).transpose();
            let (Ok(repair), true) = (repair, found.len() < limit) else { return Ok(()) };
            found.extend(
                flaws(&place, repair.as_ref().map(|repair| repair.missing.as_slice()))
                    .map(|flaw| format!("chunk {} {flaw}", lenient(row, 0))),
            );
            Ok(())
        })?;
        self.each_name(|chunk, name| {
            if name.id() >= mark && found.len() < limit {
                found.push(format!("chunk {chunk} has {name:?}, above every id given out (below {mark})"));
            }
        })?;
        Ok(found)
    }

    /// Files and shards that more than one chunk, or row of `reclaim`, names.
    fn named_twice(&self, limit: usize) -> Result<Vec<String>, Error> {
        let count = "SELECT (SELECT count(*) FROM node WHERE place IS NOT NULL)+(SELECT count(*) FROM reclaim)";
        let row_count = self.one(count, [], |row| unsigned(row, 0))?.unwrap_or(0);
        let pass_count = 1 + row_count / ROWS_PER_PASS;
        let mut found = Vec::new();
        for pass in 0..pass_count {
            let mut names = Vec::new();
            self.each_name(|_, name| names.extend((name.id().0 % pass_count == pass).then_some(name)))?;
            names.sort_unstable();
            let twice = names.windows(2).filter(|pair| pair[0] == pair[1]);
            found.extend(twice.take(limit).map(|pair| format!("{:?} is named twice", pair[0])));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Shows what holds the bytes of each chunk, dead or alive. What does not decode is told elsewhere.
    fn each_name(&self, mut visit: impl FnMut(Ino, Name)) -> Result<(), Error> {
        let sql = "SELECT id,place FROM node WHERE place IS NOT NULL UNION ALL SELECT chunk,place FROM reclaim";
        self.all(sql, [], |row| {
            let chunk = Ino(unsigned(row, 0)?);
            let Ok(place) = Place::decode(row.get_ref(1)?.as_blob()?) else { return Ok(()) };
            if let Layout::Plain { .. } = place.layout {
                visit(chunk, Name::File(chunk));
            }
            let shards = place.layout.shards().iter().filter(|(_, shard)| shard.0 != 0);
            shards.for_each(|(_, shard)| visit(chunk, Name::Shard(*shard)));
            Ok(())
        })?;
        Ok(())
    }

    /// Usage that is not what the rows add up to, versions where there can be none, directories in no bucket.
    fn contradictions_of_buckets(&self, limit: usize) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let buckets = self.bucket_of_directories(&mut found)?;
        let mut usages: BTreeMap<u64, Usage> = BTreeMap::new();
        let dentries = "SELECT d.parent,1,coalesce(d.size_bytes,0),0,0,d.kind,d.ino FROM dentry d WHERE kind<>1";
        let versions = "SELECT v.parent,0,0,1,coalesce(v.size_bytes,0),v.kind,v.ino FROM version v WHERE kind<>1";
        for sql in [dentries, versions] {
            self.all(sql, [], |row| {
                let Some(bucket) = buckets.get(&unsigned(row, 0)?) else { return Ok(()) };
                let linked = match row.get::<_, i64>(5)? {
                    kind::LINKED => self.linked_size(unsigned(row, 6)?),
                    _ => 0,
                };
                let usage = usages.entry(*bucket).or_default();
                let (objects, versions) = (unsigned(row, 1)?, unsigned(row, 3)?);
                usage.object_count += objects;
                usage.size_bytes += unsigned(row, 2)? + linked * objects;
                usage.version_count += versions;
                usage.version_bytes += unsigned(row, 4)? + linked * versions;
                Ok(())
            })?;
        }
        for bucket in self.buckets(None, usize::MAX)? {
            let (counted, kept) = (usages.remove(&bucket.id.0).unwrap_or_default(), self.usage(bucket.id)?);
            if counted != kept {
                found.push(format!("bucket {} holds {counted:?}, its usage says {kept:?}", bucket.name));
            }
            if counted.version_count > 0 && !bucket.ever_versioned {
                found.push(format!("bucket {} was never versioned and has versions", bucket.name));
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// 0 where the node is missing or does not decode, which other checks tell.
    fn linked_size(&self, ino: u64) -> u64 {
        let linked = self.attrs(crate::ids::Ino(ino)).ok().and_then(|attrs| attrs.linked);
        linked.map(|linked| linked.size_bytes).unwrap_or_default()
    }

    /// The bucket of each directory that is in one.
    fn bucket_of_directories(&self, found: &mut Vec<String>) -> Result<BTreeMap<u64, u64>, Error> {
        let sql = "WITH RECURSIVE under(ino,bucket) AS (SELECT id,id FROM bucket
                UNION ALL SELECT ino,parent FROM dir WHERE name=x'' AND parent<>0 UNION ALL
                SELECT e.ino,u.bucket FROM under u JOIN
                    (SELECT parent,ino FROM dentry WHERE kind=1 UNION ALL SELECT parent,ino FROM version WHERE kind=1) e
                    ON e.parent=u.ino)
            SELECT ino,bucket FROM under";
        let rows = self.all(sql, [], |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)))?;
        let buckets: BTreeMap<u64, u64> = rows.into_iter().collect();
        for directory in self.all("SELECT ino FROM dir", [], |row| unsigned(row, 0))? {
            if !buckets.contains_key(&directory) {
                found.push(format!("directory {directory} is in no bucket"));
            }
        }
        Ok(buckets)
    }
}

/// What a check found; of one that could not be carried out, why.
fn told(found: Result<Vec<String>, Error>, what: &str) -> Vec<String> {
    found.unwrap_or_else(|error| vec![format!("{what}: cannot be checked: {error}")])
}

/// An integer as it is, to tell what it belongs to; 0 where there is none.
fn lenient(row: &rusqlite::Row<'_>, column: usize) -> u64 {
    row.get::<_, i64>(column).unwrap_or_default() as u64
}

/// The offender, as the check tells it.
fn detail(row: &rusqlite::Row<'_>) -> Result<String, Error> {
    use rusqlite::types::ValueRef;
    Ok(match row.get_ref(0)? {
        ValueRef::Integer(value) => value.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        other => format!("{other:?}"),
    })
}
