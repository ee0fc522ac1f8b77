//! A catalog in a temporary directory, and what tests say to it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod buckets;
mod chunks;
mod clones;
mod deletes;
mod events;
mod exchanges;
mod histories;
mod levels;
mod locks;
mod maps;
mod puts;
mod races;
mod records;
mod sessions;
mod speed;
mod uploads;

use bytes::Bytes;
use tempfile::TempDir;

use super::Catalog;
use crate::catalog::store::Options;
use crate::catalog::{
    Attrs, Body, Command, CompletePart, DeleteKey, Deleted, ETag, Entry, Envelope, Layout, Outcome, PartBody, Place,
    Position, Precondition, Refusal, Versioning, Written,
};
use crate::env::Timestamp;
use crate::ids::{BucketId, Ino, NodeId, SessionId, VersionId};
use crate::units::PART_MIN_BYTES;

pub(in crate::catalog) struct World {
    pub(in crate::catalog) dir: TempDir,
    pub(in crate::catalog) catalog: Catalog,
    /// Everything that was applied, to apply it again.
    pub(in crate::catalog) log: Vec<(Position, Entry)>,
    pub(in crate::catalog) session: SessionId,
    seq: u64,
    next_id: Ino,
}

pub(in crate::catalog) fn options() -> Options {
    Options { reader_count: 1, ..Options::default() }
}

pub(in crate::catalog) fn open(dir: &TempDir) -> Catalog {
    Catalog::open(dir.path(), options()).unwrap()
}

impl World {
    /// With a session and a lease.
    pub(in crate::catalog) fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let catalog = open(&dir);
        let session = SessionId(0);
        let mut world = World { dir, catalog, log: Vec::new(), session, seq: 0, next_id: Ino(0) };
        world.session = world.open_session("gateway");
        let Outcome::Ids { start, .. } = world.send(Command::LeaseIds { count: 65_536 }) else { panic!() };
        world.next_id = start;
        world
    }

    pub(in crate::catalog) fn open_session(&mut self, gateway: &str) -> SessionId {
        let command = Command::OpenSession { gateway: gateway.into() };
        match self.apply(self.envelope(SessionId(0), 0, command)) {
            Outcome::Session(session) => session,
            other => panic!("{other:?}"),
        }
    }

    /// Catalog clocks stand still at a second a command.
    pub(in crate::catalog) fn envelope(&self, session: SessionId, seq: u64, command: Command) -> Envelope {
        let now = Timestamp::from_seconds(1_000_000 + self.log.len() as i64);
        Envelope { session, seq, acked: 0, now, command }
    }

    pub(in crate::catalog) fn apply(&mut self, envelope: Envelope) -> Outcome {
        let index = self.log.last().map_or(1, |(position, _)| position.index + 1);
        let entry = (Position { term: 1, leader: 1, index }, Entry::Command(envelope));
        let applied = self.catalog.apply(std::slice::from_ref(&entry));
        let outcome = applied.unwrap_or_else(|error| panic!("{error} at {entry:?}")).remove(0);
        self.log.push(entry);
        outcome
    }

    pub(in crate::catalog) fn send(&mut self, command: Command) -> Outcome {
        self.seq += 1;
        self.apply(self.envelope(self.session, self.seq, command))
    }

    /// Sends a command that must be refused, and changes nothing but its outcome.
    fn refusal(&mut self, command: Command) -> Refusal {
        let before = self.dump_without_log();
        match self.send(command) {
            Outcome::Refused(refusal) => {
                assert_eq!(self.dump_without_log(), before);
                refusal
            }
            other => panic!("{other:?}"),
        }
    }

    pub(in crate::catalog) fn id(&mut self) -> Ino {
        let id = self.next_id;
        self.next_id.0 += 1;
        id
    }

    pub(in crate::catalog) fn bucket(&mut self, name: &str, versioning: Versioning) -> BucketId {
        let bucket = BucketId(self.id().0);
        let (owner, region) = ("owner".to_owned(), "region".to_owned());
        let made = self.send(Command::CreateBucket { id: bucket, name: name.into(), owner, region, lock: false });
        assert_eq!(made, Outcome::Done);
        if versioning != Versioning::Never {
            assert_eq!(self.send(Command::SetVersioning { bucket, versioning }), Outcome::Done);
        }
        bucket
    }

    fn put_command(&mut self, bucket: BucketId, key: &str, body: Body, size_bytes: u64) -> Command {
        Command::Put {
            bucket,
            key: Bytes::copy_from_slice(key.as_bytes()),
            ino: self.id(),
            size_bytes,
            etag: etag(size_bytes as u8),
            attrs: Attrs::default(),
            body,
            precondition: Precondition::default(),
        }
    }

    fn put_body(&mut self, bucket: BucketId, key: &str, body: Body, size_bytes: u64) -> Written {
        let command = self.put_command(bucket, key, body, size_bytes);
        match self.send(command) {
            Outcome::Written(written) => written,
            other => panic!("{other:?}"),
        }
    }

    /// Puts a chunk of `size_bytes`; its tag is their lowest byte.
    pub(in crate::catalog) fn put(&mut self, bucket: BucketId, key: &str, size_bytes: u64) -> Written {
        self.put_body(bucket, key, Body::Chunk(place(size_bytes)), size_bytes)
    }

    fn delete_with(&mut self, bucket: BucketId, target: DeleteKey) -> Result<Deleted, Refusal> {
        match self.send(Command::Delete { bucket, keys: vec![target] }) {
            Outcome::Deleted(mut outcomes) => outcomes.remove(0),
            other => panic!("{other:?}"),
        }
    }

    pub(in crate::catalog) fn delete(&mut self, bucket: BucketId, key: &str, version: Option<VersionId>) -> Deleted {
        self.delete_with(bucket, target(key, version)).unwrap()
    }

    pub(in crate::catalog) fn create_upload(&mut self, bucket: BucketId, key: &str) -> Ino {
        let id = self.id();
        let key = Bytes::copy_from_slice(key.as_bytes());
        assert_eq!(self.send(Command::CreateUpload { bucket, key, id, attrs: Attrs::default() }), Outcome::Done);
        id
    }

    fn part_command(&mut self, upload: &Upload, number: u32, body: PartBody, size_bytes: u64) -> Command {
        Command::PutPart {
            bucket: upload.bucket,
            key: upload.key.clone(),
            upload: upload.id,
            number,
            size_bytes,
            etag: etag(number as u8),
            checksums: Vec::new(),
            body,
        }
    }

    fn upload(&mut self, bucket: BucketId, key: &str) -> Upload {
        Upload { bucket, key: Bytes::copy_from_slice(key.as_bytes()), id: self.create_upload(bucket, key) }
    }

    /// Puts a part of one chunk. Returns the chunk.
    fn put_part(&mut self, upload: &Upload, number: u32, size_bytes: u64) -> Ino {
        let chunk = self.id();
        let body = PartBody::Chunk { chunk, place: place(size_bytes) };
        let command = self.part_command(upload, number, body, size_bytes);
        assert_eq!(self.send(command), Outcome::Done);
        chunk
    }

    fn drain(&mut self) {
        while self.send(Command::Drain { row_count: 4096 }) != (Outcome::Drained { remaining: 0 }) {}
    }

    /// The rows of a query, columns joined by `|`.
    pub(in crate::catalog) fn rows(&self, query: &str) -> Vec<String> {
        rows(&self.catalog, query)
    }

    fn dump_without_log(&self) -> Vec<String> {
        let volatile = |row: &String| !row.starts_with("outcome:") && !row.starts_with("state:");
        dump(&self.catalog).into_iter().filter(volatile).collect()
    }
}

struct Upload {
    bucket: BucketId,
    key: Bytes,
    id: Ino,
}

impl Upload {
    fn complete(&self, numbers: &[u32]) -> Command {
        let parts = numbers.iter().map(|number| CompletePart { number: *number, etag: etag(*number as u8) }).collect();
        Command::CompleteUpload {
            bucket: self.bucket,
            key: self.key.clone(),
            upload: self.id,
            parts,
            etag: ETag { md5: [9; 16], part_count: numbers.len() as u32 },
            checksums: Vec::new(),
            precondition: Precondition::default(),
        }
    }

    fn abort(&self) -> Command {
        Command::AbortUpload { bucket: self.bucket, key: self.key.clone(), upload: self.id }
    }
}

pub(in crate::catalog) fn place(len_bytes: u64) -> Place {
    Place { layout: Layout::Plain { node: NodeId(1) }, len_bytes, live_bytes: len_bytes }
}

pub(in crate::catalog) fn etag(byte: u8) -> ETag {
    ETag { md5: [byte; 16], part_count: 0 }
}

fn target(key: &str, version: Option<VersionId>) -> DeleteKey {
    let key = Bytes::copy_from_slice(key.as_bytes());
    DeleteKey { key, version, precondition: Precondition::default(), bypass_governance: false }
}

fn rows(catalog: &Catalog, query: &str) -> Vec<String> {
    let mut statement = catalog.store.connection().prepare(query).unwrap();
    let column_count = statement.column_count();
    let text = |row: &rusqlite::Row<'_>| {
        let columns = (0..column_count).map(|column| show(row.get_ref(column).unwrap()));
        Ok(columns.collect::<Vec<String>>().join("|"))
    };
    statement.query_map([], text).unwrap().map(Result::unwrap).collect()
}

fn show(value: rusqlite::types::ValueRef<'_>) -> String {
    use rusqlite::types::ValueRef;
    match value {
        ValueRef::Null => "-".into(),
        ValueRef::Integer(value) => value.to_string(),
        ValueRef::Real(value) => value.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.escape_ascii().to_string(),
    }
}

/// Every row of every table.
pub(in crate::catalog) fn dump(catalog: &Catalog) -> Vec<String> {
    let tables = rows(catalog, "SELECT name FROM sqlite_schema WHERE type='table' ORDER BY name");
    let mut all = Vec::new();
    for table in tables {
        let mut of_table = rows(catalog, &format!("SELECT * FROM {table}"));
        of_table.sort();
        all.extend(of_table.into_iter().map(|row| format!("{table}: {row}")));
    }
    all
}
