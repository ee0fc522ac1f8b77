//! Random sequences of commands, against the catalog and the model.
//!
//! A case is a seed (keys, buckets) and a list of step seeds; a step is a function of its seed and of the state. So
//! a failing case shrinks by leaving steps out. `PREDASTORE_TEST_CASES` says how many cases, `PREDASTORE_TEST_SEED`
//! which comes first.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tempfile::TempDir;

use super::checks::check_queries;
use super::*;
use crate::catalog::level::FIRST_LEVEL;
use crate::catalog::list::tests::Random;
use crate::ids::SessionId;
use crate::units::MIB;

const CASES: u64 = 150;
const STEPS: usize = 40;
/// Cases that one catalog serves before a new one is made.
const CASES_PER_CATALOG: u64 = 50;
const LEASE_COUNT: u32 = 65_536;

pub(super) struct World {
    _dir: TempDir,
    pub(super) catalog: Catalog,
    model: Model,
    index: u64,
    session: SessionId,
    seq: u64,
    next_id: Ino,
    /// The last command with its answer, to ask again.
    last: Option<(Envelope, Outcome)>,
    /// (chunk, encoded place)
    reclaimed: BTreeSet<(Ino, Vec<u8>)>,
    keys: Vec<Vec<u8>>,
    names: Vec<BucketId>,
}

impl World {
    pub(super) fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let catalog =
            Catalog::open(dir.path(), Options { reader_count: 1, feature_level: u32::MAX, ..Options::default() })
                .unwrap();
        let mut world = World {
            _dir: dir,
            catalog,
            model: Model { level: FIRST_LEVEL, ..Model::default() },
            index: 0,
            session: SessionId(0),
            seq: 0,
            next_id: Ino(0),
            last: None,
            reclaimed: BTreeSet::new(),
            keys: Vec::new(),
            names: Vec::new(),
        };
        let open = Command::OpenSession { gateway: "gateway".into() };
        let Outcome::Session(session) = world.raw(vec![open]).remove(0) else { panic!("no session") };
        world.session = session;
        let Outcome::Ids { start, end } = world.raw(vec![Command::LeaseIds { count: LEASE_COUNT }]).remove(0) else {
            panic!("no lease")
        };
        (world.next_id, world.model.lease) = (start, (start, end));
        world
    }

    fn now(&self) -> Timestamp {
        Timestamp(Timestamp::from_seconds(1_700_000_000).0 + self.index as i64 * 300_000_007)
    }

    fn id(&mut self) -> Ino {
        self.next_id.0 += 1;
        assert!(self.next_id < self.model.lease.1, "the lease is used up");
        Ino(self.next_id.0 - 1)
    }

    /// Applies commands in one batch, without the model.
    fn raw(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let mut batch = Vec::new();
        for command in commands {
            self.index += 1;
            self.seq += u64::from(self.session != SessionId(0));
            let acked = self.seq.saturating_sub(5);
            let envelope = Envelope { session: self.session, seq: self.seq, acked, now: self.now(), command };
            batch.push((Position { term: 1, leader: 1, index: self.index }, Entry::Command(envelope)));
        }
        let outcomes = self.catalog.apply(&batch).unwrap();
        if let (Some((_, Entry::Command(envelope))), Some(outcome)) = (batch.last(), outcomes.last()) {
            self.last = Some((envelope.clone(), outcome.clone()));
        }
        outcomes
    }

    /// Applies commands in one batch, and compares each answer with the model's.
    fn send(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let first = self.index + 1;
        let outcomes = self.raw(commands.clone());
        let last = self.index;
        for (offset, (command, outcome)) in commands.iter().zip(&outcomes).enumerate() {
            self.index = first + offset as u64;
            let expected = self.model.apply(LogIndex(self.index), self.now(), command, outcome);
            assert_eq!(plain(outcome.clone()), plain(expected), "the answer to {command:?}");
        }
        self.index = last;
        outcomes
    }

    fn drain(&mut self, row_count: u32) {
        while self.send(vec![Command::Drain { row_count }]) != [Outcome::Drained { remaining: 0 }] {}
        self.check_reclaim();
    }

    /// After a complete drain, exactly the bytes that nothing names are waiting to go.
    fn check_reclaim(&self) {
        let view = self.catalog.view();
        assert!(!view.has_dead().unwrap());
        let rows = view.reclaimable(LogIndex(u64::MAX), usize::MAX).unwrap();
        let waiting: BTreeSet<(Ino, Vec<u8>)> = rows.iter().map(|row| (row.chunk, row.place.encode())).collect();
        assert_eq!(waiting.len(), rows.len());
        let alive = self.model.chunks();
        let dead = self.model.places.iter().filter(|(chunk, _)| !alive.contains(chunk));
        let dead: BTreeSet<(Ino, Vec<u8>)> = dead.map(|(chunk, place)| (*chunk, place.encode())).collect();
        let due: BTreeSet<(Ino, Vec<u8>)> = dead.union(&self.model.left).cloned().collect();
        assert_eq!(waiting, due.difference(&self.reclaimed).cloned().collect());
        let chunks: BTreeSet<Ino> =
            view.chunks(Ino(0), usize::MAX).unwrap().into_iter().map(|(chunk, _)| chunk).collect();
        assert_eq!(chunks, alive);
        let all: Vec<Ino> = self.model.places.keys().copied().collect();
        assert_eq!(view.orphans(&all).unwrap(), [], "a live session leases them all");
        self.check_orphan_shards(&view, &rows);
    }

    /// The last shards that were written are accounted for; without leases, those that a row names.
    fn check_orphan_shards(&self, view: &View<'_>, rows: &[Reclaimable]) {
        let alive = self.model.chunks();
        let places = self.model.places.iter().filter(|(chunk, _)| alive.contains(chunk)).map(|(_, place)| place);
        let named = places.chain(rows.iter().map(|row| &row.place)).flat_map(|place| place.layout.shards());
        let named: BTreeSet<(NodeId, ShardId)> = named.copied().collect();
        let written = &self.model.shards[self.model.shards.len().saturating_sub(200)..];
        for node in (1..7).map(NodeId) {
            let here = written.iter().filter(|(at, ..)| *at == node);
            let asked: Vec<(ShardId, Ino)> = here.map(|(_, shard, chunk)| (*shard, *chunk)).collect();
            assert_eq!(view.orphan_shards(node, &asked).unwrap(), [], "a live session leases them all");
            view.connection.execute_batch("SAVEPOINT leases; DELETE FROM lease").unwrap();
            let orphans = asked.iter().map(|(shard, _)| *shard).filter(|shard| !named.contains(&(node, *shard)));
            let orphans: BTreeSet<ShardId> = orphans.collect();
            assert!(view.orphan_shards(node, &asked).unwrap().into_iter().eq(orphans));
            view.connection.execute_batch("ROLLBACK TO leases; RELEASE leases").unwrap();
        }
    }

    fn check(&self, random: &mut Random) {
        self.read(|view| {
            check_queries(view, &self.model, &self.keys, random);
            assert_eq!(view.applied_index().unwrap(), LogIndex(self.index));
        });
    }

    fn check_sound(&self) {
        self.read(|view| assert_eq!(view.contradictions(5), Vec::<String>::new()));
    }

    /// Queries in one transaction, which saves the locks of each.
    fn read(&self, queries: impl FnOnce(&View<'_>)) {
        let view = self.catalog.view();
        view.connection.execute_batch("BEGIN").unwrap();
        queries(&view);
        view.connection.execute_batch("COMMIT").unwrap();
    }

    /// Deletes everything, and sees that nothing is left.
    fn clean(&mut self) {
        self.drain(1000);
        let now = Timestamp(self.model.time.0 + Timestamp::from_seconds(1 << 20).0);
        self.send(vec![Command::Tick { now }]);
        for (bucket, state) in self.model.buckets.clone() {
            for (key, versions) in state.keys {
                let target = |version: &ModelVersion| DeleteKey {
                    key: key.clone().into(),
                    version: Some(version.id()),
                    precondition: Precondition::default(),
                    bypass_governance: false,
                };
                self.send(vec![Command::Delete { bucket, keys: versions.iter().map(target).collect() }]);
            }
            for (key, upload) in state.uploads.into_keys() {
                self.send(vec![Command::AbortUpload { bucket, key: key.into(), upload }]);
            }
            assert_eq!(self.send(vec![Command::DeleteBucket { bucket }]), [Outcome::Done]);
        }
        self.drain(3);
        let rows = self.catalog.view().reclaimable(LogIndex(u64::MAX), usize::MAX).unwrap();
        self.reclaim(&rows);
        self.send(vec![Command::ForgetCompleted { before: Timestamp(i64::MAX), row_count: 1000 }]);
        let tables = [
            "dentry", "version", "dir", "node", "extent", "inline", "upload", "part", "dead", "reclaim", "usage",
            "repair",
        ];
        for table in tables {
            let sql = format!("SELECT count(*) FROM {table}");
            let count: i64 = self.catalog.view().connection.query_row(&sql, [], |row| row.get(0)).unwrap();
            assert_eq!(count, 0, "rows left in {table}");
        }
        self.check_sound();
    }

    fn reclaim(&mut self, rows: &[Reclaimable]) {
        self.reclaimed.extend(rows.iter().map(|row| (row.chunk, row.place.encode())));
        self.send(vec![Command::Reclaimed { rows: rows.iter().map(|row| row.row).collect() }]);
    }

    fn run(&mut self, seed: u64, steps: &[u64]) {
        let mut random = Random(seed);
        self.begin(&mut random);
        for step in steps {
            self.step(&mut Random(*step));
        }
        self.check(&mut random);
        self.check_sound();
        self.clean();
    }

    /// Picks keys, and makes two buckets.
    pub(super) fn begin(&mut self, random: &mut Random) {
        self.keys = random_keys(random);
        self.names.clear();
        for name in ["b", "a"] {
            let lock = random.below(8) == 0;
            let id = BucketId(self.id().0);
            self.names.push(id);
            self.send(vec![create_bucket(id, name, lock)]);
        }
    }

    pub(super) fn step(&mut self, random: &mut Random) {
        match random.below(40) {
            0 => self.ask_again(),
            1 => self.drain(1 + random.below(6) as u32),
            2 => {
                let rows = self.catalog.view().reclaimable(LogIndex(u64::MAX), 1 + random.below(3)).unwrap();
                self.reclaim(&rows);
            }
            3 => self.check_sound(),
            4..=7 => self.check(random),
            _ => {
                let count = 1 + random.below(3);
                let commands: Vec<Command> = (0..count).map(|_| self.command(random)).collect();
                self.send(commands);
            }
        }
    }

    /// Sends the last command once more: it must not happen twice.
    fn ask_again(&mut self) {
        let Some((envelope, outcome)) = self.last.clone() else { return };
        self.index += 1;
        let entry = (Position { term: 1, leader: 1, index: self.index }, Entry::Command(envelope));
        assert_eq!(self.catalog.apply(&[entry]).unwrap(), [outcome]);
    }

    fn command(&mut self, random: &mut Random) -> Command {
        let bucket = if random.below(30) == 0 { BucketId(7) } else { self.names[random.below(self.names.len())] };
        let key = self.key(random);
        match random.below(122) {
            0..=34 => self.put(random, bucket, key),
            35..=54 => {
                let keys = (0..1 + random.below(3)).map(|_| self.delete_key(random, bucket)).collect();
                Command::Delete { bucket, keys }
            }
            55..=58 => {
                let version = self.version(random, bucket, &key);
                let tag = (format!("{}", random.below(9)), "v".to_owned());
                let change = match random.below(5) {
                    0 => Change::Tags(vec![tag]),
                    1 => Change::Acl(Some(vec![random.below(9) as u8])),
                    2 => Change::Hold(random.below(3) == 0),
                    _ => {
                        let retention = attrs(random, self).retention;
                        Change::Retention { retention, bypass: random.below(3) == 0 }
                    }
                };
                Command::Change { bucket, key: key.into(), version, change }
            }
            59..=64 => Command::CreateUpload { bucket, key: key.into(), id: self.id(), attrs: attrs(random, self) },
            65..=78 => self.put_part(random, bucket, key),
            79..=87 => self.complete(random, bucket, key),
            88..=89 => {
                let (bucket, key, upload) = self.upload(random, bucket, key);
                Command::AbortUpload { bucket, key, upload }
            }
            90..=93 => {
                let all = [Versioning::Enabled, Versioning::Suspended, Versioning::Suspended, Versioning::Never];
                Command::SetVersioning { bucket, versioning: all[random.below(4)] }
            }
            94 => {
                let roll = random.below(20) as u32;
                match roll {
                    // From one level less, which may be none, to two more.
                    1..=12 => Command::RaiseLevel { to: self.model.level + (roll - 1) / 3 - 1 },
                    _ => {
                        let seconds = i64::from(roll) - 13;
                        Command::Tick { now: Timestamp(self.model.time.0 + Timestamp::from_seconds(seconds).0) }
                    }
                }
            }
            95 => {
                let setting = [Setting::Tagging, Setting::Quota, Setting::ObjectLock][random.below(3)];
                let days = random.below(3) as u32;
                let default = (days > 0).then_some((RetentionMode::Governance, Period::Days(days)));
                let value = (random.below(4) > 0).then(|| match setting {
                    Setting::ObjectLock => LockRule { default }.to_bytes().to_vec().into(),
                    _ => random.text(5).into(),
                });
                Command::SetBucket { bucket, setting, value }
            }
            96 => {
                let id = BucketId(self.id().0);
                let name = random.pick(&["a", "b", "c", "d"]);
                let is_new = self.model.buckets.values().all(|bucket| bucket.bucket.name != name);
                self.names.extend(is_new.then_some(id));
                create_bucket(id, name, random.below(4) == 0)
            }
            97 => Command::DeleteBucket { bucket },
            98 => Command::ForgetCompleted { before: Timestamp(i64::MAX), row_count: 1000 },
            99..=107 => self.swap(random),
            108..=111 => {
                let chunks = (0..random.below(4)).map(|_| self.run_of_chunk(random).0);
                Command::MarkRepair { chunks: chunks.chain([bucket.root()]).collect(), damaged: random.below(2) == 0 }
            }
            112..=113 => self.set_map(random),
            114..=119 => self.split(random),
            _ => Command::Drain { row_count: 1 + random.below(4) as u32 },
        }
    }

    fn key(&self, random: &mut Random) -> Vec<u8> {
        match random.below(50) {
            0 => Vec::new(),
            1 => vec![b'k'; 1025],
            _ => self.keys[random.below(self.keys.len())].clone(),
        }
    }

    /// A version that is there, or one that is not, or none.
    fn version(&self, random: &mut Random, bucket: BucketId, key: &[u8]) -> Option<VersionId> {
        let versions = self.model.buckets.get(&bucket).and_then(|bucket| bucket.keys.get(key));
        match (random.below(6), versions) {
            (0, _) => None,
            (1, _) => Some(VersionId::Null),
            (2, _) => Some(VersionId::Seq(Seq(random.below(1 << 20) as u64))),
            (_, Some(versions)) => Some(versions[random.below(versions.len())].id()),
            (_, None) => None,
        }
    }

    fn precondition(&self, random: &mut Random, bucket: BucketId, key: &[u8], is_delete: bool) -> Precondition {
        let mut precondition = Precondition::default();
        if random.below(4) > 0 {
            return precondition;
        }
        let current = self.model.buckets.get(&bucket).and_then(|bucket| bucket.current(key));
        let tag = |random: &mut Random| match (random.below(3), current) {
            (0, _) => None,
            (1, Some(current)) => Some(current.etag),
            _ => Some(etag(random)),
        };
        match random.below(if is_delete { 4 } else { 2 }) {
            0 => precondition.if_match = Some(vec![tag(random), tag(random)]),
            1 => precondition.if_none_match = Some(vec![tag(random)]),
            2 => precondition.if_match_size_bytes = Some(current.map_or(1, |version| version.size_bytes)),
            _ => precondition.if_match_modified_s = Some(current.map_or(1, |version| version.modified.seconds())),
        }
        precondition
    }

    fn put(&mut self, random: &mut Random, bucket: BucketId, key: Vec<u8>) -> Command {
        let mut size_bytes = 1 + random.below(20 << 20) as u64;
        let nodes = self.model.nodes();
        let body = match random.below(10) {
            0 => Body::Empty,
            1 | 2 => Body::Inline(Bytes::from(vec![b'i'; 1 + random.below(100)])),
            3..=5 => Body::Share(pick_id(random, nodes.keys(), self.model.fading.keys())),
            6 => Body::Chunk(self.place(random, size_bytes)),
            _ => Body::Chunks(self.new_chunks(random)),
        };
        let ino = match random.below(60) {
            0 => pick_id(random, nodes.keys(), [].iter()),
            _ => self.id(),
        };
        let body = match body {
            Body::Chunks(mut chunks) if random.below(3) == 0 => {
                chunks[0].id = ino; // wrong where it is not the only one
                chunks.truncate(if random.below(8) > 0 { 1 } else { 3 });
                Body::Chunks(chunks)
            }
            other => other,
        };
        match &body {
            Body::Empty => size_bytes = 0,
            Body::Inline(bytes) => size_bytes = bytes.len() as u64,
            Body::Share(source) | Body::ShareRevision { ino: source, .. } => {
                let content = nodes.get(source).or(self.model.fading.get(source));
                size_bytes = content.map_or(0, |(_, content)| self.len_bytes(content));
            }
            Body::Chunk(_) => {}
            Body::Chunks(chunks) => size_bytes = chunks.iter().map(|chunk| chunk.place.len_bytes).sum(),
        }
        if random.below(60) == 0 && !matches!(body, Body::Share(_)) {
            size_bytes += 1;
        }
        let precondition = self.precondition(random, bucket, &key, false);
        let attrs = attrs(random, self);
        Command::Put { bucket, key: key.into(), ino, size_bytes, etag: etag(random), attrs, body, precondition }
    }

    fn len_bytes(&self, content: &Content) -> u64 {
        match content {
            Content::Empty => 0,
            Content::Inline(bytes) => bytes.len() as u64,
            Content::Chunk(chunk) => self.model.places[chunk].len_bytes,
            Content::Chunks(runs) => runs.iter().map(|run| run.2).sum(),
            Content::Parts(parts) => parts.values().map(|part| part.size_bytes).sum(),
        }
    }

    fn delete_key(&mut self, random: &mut Random, bucket: BucketId) -> DeleteKey {
        let key = self.key(random);
        let version = self.version(random, bucket, &key).filter(|_| random.below(2) == 0);
        let precondition = self.precondition(random, bucket, &key, true);
        DeleteKey { key: key.into(), version, precondition, bypass_governance: random.below(2) == 0 }
    }

    /// An upload in progress, if there is one; sometimes a wrong name of it.
    fn upload(&mut self, random: &mut Random, bucket: BucketId, key: Vec<u8>) -> (BucketId, Bytes, Ino) {
        let names =
            self.model.buckets.iter().flat_map(|(bucket, state)| {
                state.uploads.keys().map(|(key, id)| (*bucket, Bytes::from(key.clone()), *id))
            });
        let done = self.model.completed.iter().map(|(id, done)| (done.bucket, done.key.clone().into(), *id));
        let running: Vec<_> = names.collect();
        let done: Vec<_> = done.collect();
        let all = if random.below(8) == 0 || running.is_empty() { done } else { running };
        match all.get(random.below(all.len().max(1))) {
            Some((_, _, id)) if random.below(30) == 0 => (bucket, key.into(), *id),
            Some(name) => name.clone(),
            None => (bucket, key.into(), Ino(5)),
        }
    }

    fn put_part(&mut self, random: &mut Random, bucket: BucketId, key: Vec<u8>) -> Command {
        let (bucket, key, upload) = self.upload(random, bucket, key);
        let number = if random.below(40) == 0 { 10_001 } else { 1 + random.below(4) as u32 };
        let mut size_bytes = if random.below(4) > 0 { 5 * MIB } else { 1 } + random.below(1 << 20) as u64;
        let body = match random.below(10) {
            0 => PartBody::Empty,
            4..=6 => PartBody::Chunks(self.new_chunks(random)),
            1..=3 => PartBody::Share((0..1 + random.below(3)).map(|_| self.run_of_chunk(random)).collect()),
            _ => PartBody::Chunk { chunk: self.id(), place: self.place(random, size_bytes) },
        };
        match &body {
            PartBody::Empty => size_bytes = 0,
            PartBody::Share(runs) => size_bytes = runs.iter().map(|run| run.2).sum(),
            PartBody::Chunks(chunks) => size_bytes = chunks.iter().map(|chunk| chunk.place.len_bytes).sum(),
            PartBody::Chunk { .. } => {}
        }
        let checksum =
            Checksum { algorithm: ChecksumAlgorithm::Crc32, kind: ChecksumKind::Composite, value: vec![1; 4] };
        let checksums = if random.below(2) == 0 { vec![checksum] } else { Vec::new() };
        Command::PutPart { bucket, key, upload, number, size_bytes, etag: etag(random), checksums, body }
    }

    /// One to three chunks; now and then with an id twice, or one that is not leased.
    fn new_chunks(&mut self, random: &mut Random) -> Vec<NewChunk> {
        let mut chunks = Vec::new();
        for _ in 0..1 + random.below(3) {
            let len_bytes = 1 + random.below(3 << 20) as u64;
            let place = self.place(random, len_bytes);
            chunks.push(NewChunk { id: self.id(), place, short: random.below(6) == 0 });
        }
        match random.below(40) {
            0 => chunks[0].id = chunks[chunks.len() - 1].id,
            1 => chunks[0].id = pick_id(random, self.model.places.keys(), [].iter()),
            _ => {}
        }
        chunks
    }

    /// A file, or shards of which some may be nowhere; now and then too many of them, or too few, one twice, one not leased.
    fn place(&mut self, random: &mut Random, len_bytes: u64) -> Place {
        if random.below(3) == 0 {
            return place(len_bytes);
        }
        let (data_count, parity_count) = *random.pick(&[&(1, 1), &(2, 1), &(1, 2), &(3, 2)]);
        let shard_count = usize::from(data_count + parity_count) + usize::from(random.below(60) == 0);
        let mut shards: Vec<(NodeId, ShardId)> = (0..shard_count).map(|_| self.shard(random)).collect();
        if random.below(60) == 0 {
            shards[0] = shards[shard_count - 1];
        }
        let (epoch, key_id, wrapped_key) = (random.below(3) as u64, 1, vec![random.below(9) as u8; 4]);
        let layout = Layout::Rs { data_count, parity_count, epoch, shards, key_id, wrapped_key };
        Place { layout, len_bytes, live_bytes: len_bytes }
    }

    fn shard(&mut self, random: &mut Random) -> (NodeId, ShardId) {
        let shard = match random.below(120) {
            0 => 5,
            1..=14 => 0,
            _ => self.id().0,
        };
        (NodeId(1 + random.below(6) as u64), ShardId(shard))
    }

    /// To the same place, to one that differs in a shard, to another one; now and then from where it is not.
    fn swap(&mut self, random: &mut Random) -> Command {
        let chunk = self.run_of_chunk(random).0;
        let mut from = self.model.places.get(&chunk).cloned().unwrap_or_else(|| place(10));
        let mut to = from.clone();
        match (random.below(4), &mut to.layout) {
            (0, _) => {}
            (1 | 2, Layout::Rs { shards, .. }) => {
                let index = random.below(shards.len());
                shards[index] = self.shard(random);
            }
            _ => to = self.place(random, from.len_bytes),
        }
        match (random.below(20), &mut to.layout) {
            (0, _) => from = self.place(random, from.len_bytes),
            (1, _) => to.len_bytes += 1,
            (2, Layout::Rs { shards, .. }) => shards.reverse(),
            (3, _) => (from.live_bytes, to.live_bytes) = (7, 8), // they do not matter
            _ => {}
        }
        let due = *random.pick(&[&Due::No, &Due::No, &Due::Yes, &Due::AsBefore]);
        Command::Swap { chunk, from, to, due, verified: random.below(2) == 0 }
    }

    /// A chunk, or one that was a chunk, into up to three pieces; now and then from where it is not, or of another length.
    fn split(&mut self, random: &mut Random) -> Command {
        let chunk = self.run_of_chunk(random).0;
        let mut from = self.model.places.get(&chunk).cloned().unwrap_or_else(|| place(10));
        let (mut pieces, mut left_bytes) = (Vec::new(), from.len_bytes + u64::from(random.below(20) == 0));
        while left_bytes > 0 {
            let len_bytes = if pieces.len() == 2 { left_bytes } else { 1 + random.below(left_bytes as usize) as u64 };
            let place = self.place(random, len_bytes);
            if random.below(20) == 0 || matches!(place.layout, Layout::Rs { .. }) {
                pieces.push(NewChunk { id: self.id(), place, short: random.below(6) == 0 });
                left_bytes -= len_bytes;
            }
        }
        match random.below(30) {
            0 => from = self.place(random, from.len_bytes),
            1 => pieces[0].id = chunk,
            _ => {}
        }
        Command::Split { chunk, from, pieces }
    }

    fn set_map(&self, random: &mut Random) -> Command {
        let epoch = self.model.map.as_ref().map_or(0, |map| map.epoch);
        let from_epoch = if random.below(4) == 0 { random.below(4) as u64 } else { epoch };
        let node = |random: &mut Random| MapNode {
            node: NodeId(random.below(9) as u64),
            weight: random.below(300) as u32,
            host: format!("host {}", random.below(9)),
            zone: String::new(),
            state: *random.pick(&[&MapState::Active, &MapState::Draining]),
            dial: format!("host-{}:9991", random.below(9)),
        };
        let mut nodes: Vec<MapNode> = (0..random.below(5)).map(|_| node(random)).collect();
        if random.below(6) > 0 {
            nodes.sort_by_key(|node| node.node);
            nodes.dedup_by_key(|node| node.node);
        }
        let epoch = from_epoch + random.below(3) as u64;
        let (data_count, parity_count) = (random.below(4) as u8, random.below(3) as u8);
        Command::SetMap { from_epoch, map: Map { epoch, data_count, parity_count, nodes } }
    }

    fn run_of_chunk(&self, random: &mut Random) -> Run {
        let chunk = pick_id(random, self.model.chunks().iter(), self.model.fading_chunks.iter());
        let len_bytes = self.model.places.get(&chunk).map_or(10, |place| place.len_bytes);
        let start = random.below(len_bytes as usize) as u64;
        (chunk, start, 1 + random.below((len_bytes - start) as usize) as u64)
    }

    fn complete(&mut self, random: &mut Random, bucket: BucketId, key: Vec<u8>) -> Command {
        let (bucket, key, upload) = self.upload(random, bucket, key);
        let state = self.model.buckets.get(&bucket).and_then(|state| state.uploads.get(&(key.to_vec(), upload)));
        let mut parts: Vec<CompletePart> = match (state, self.model.completed.get(&upload)) {
            (Some(state), _) => {
                state.parts.iter().map(|(number, part)| CompletePart { number: *number, etag: part.etag }).collect()
            }
            (None, Some(done)) => done.parts.clone(),
            (None, None) => Vec::new(),
        };
        match random.below(8) {
            0 if !parts.is_empty() => drop(parts.remove(random.below(parts.len()))),
            1 => parts.reverse(),
            2 => parts.extend([CompletePart { number: 4, etag: etag(random) }]),
            _ => {}
        }
        let etag = ETag { part_count: parts.len() as u32, ..etag(random) };
        let precondition = self.precondition(random, bucket, &key, false);
        let checksums = Vec::new();
        Command::CompleteUpload { bucket, key, upload, parts, etag, checksums, precondition }
    }
}

/// Leaves out what is text for people.
fn plain(outcome: Outcome) -> Outcome {
    let blank = |refusal| match refusal {
        Refusal::OutOfBounds(_) => Refusal::OutOfBounds(String::new()),
        other => other,
    };
    match outcome {
        Outcome::Refused(refusal) => Outcome::Refused(blank(refusal)),
        Outcome::Deleted(each) => Outcome::Deleted(each.into_iter().map(|one| one.map_err(blank)).collect()),
        other => other,
    }
}

fn create_bucket(id: BucketId, name: &str, lock: bool) -> Command {
    Command::CreateBucket { id, name: name.into(), owner: "owner".into(), region: "region".into(), lock }
}

fn place(len_bytes: u64) -> Place {
    Place { layout: Layout::Plain { node: NodeId(1) }, len_bytes, live_bytes: len_bytes }
}

fn etag(random: &mut Random) -> ETag {
    ETag { md5: [random.below(4) as u8; 16], part_count: 0 }
}

fn attrs(random: &mut Random, world: &World) -> Attrs {
    let metadata = vec![("name".to_owned(), format!("{}", random.below(100)))];
    let retention = (random.below(8) == 0).then(|| Retention {
        mode: if random.below(2) == 0 { RetentionMode::Governance } else { RetentionMode::Compliance },
        until: Timestamp(world.model.time.0 + random.below(30) as i64 * 1_000_000_000),
    });
    let storage_class = random.pick(&["", "", "", "GLACIER", "STANDARD_IA"]).to_owned();
    Attrs { metadata, retention, storage_class, ..Attrs::default() }
}

/// Mostly one that is there, now and then one that may be gone, or never was.
fn pick_id<'m>(
    random: &mut Random,
    there: impl ExactSizeIterator<Item = &'m Ino>,
    fading: impl ExactSizeIterator<Item = &'m Ino>,
) -> Ino {
    let (there_count, fading_count) = (there.len(), fading.len());
    let found = match random.below(10) {
        0 => None,
        1..=3 if fading_count > 0 => fading.into_iter().nth(random.below(fading_count)),
        _ => there.into_iter().nth(random.below(there_count.max(1))),
    };
    found.copied().unwrap_or(Ino(5))
}

fn random_keys(random: &mut Random) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..9).map(|_| random.text(5)).filter(|key| !key.is_empty()).collect();
    keys.push(b"a".to_vec());
    if random.below(6) == 0 {
        let deep = "/".repeat(path::DEPTH_MAX - 1 + random.below(3));
        keys.extend(["", "a", "a/", "/a", "-"].map(|end| [&deep, end].concat().into_bytes()));
        keys.push(vec![b'/'; KEY_MAX_BYTES]);
        keys.push("é".repeat(KEY_MAX_BYTES / 2).into_bytes());
    }
    keys
}

fn fails(seed: u64, steps: &[u64]) -> bool {
    catch_unwind(AssertUnwindSafe(|| World::new().run(seed, steps))).is_err()
}

/// Leaves out steps while the case still fails on a new catalog.
fn shrink(seed: u64, mut steps: Vec<u64>) -> Vec<u64> {
    let mut width = steps.len() / 2;
    while width > 0 {
        let mut at = 0;
        while at < steps.len() {
            let fewer = [&steps[..at], &steps[(at + width).min(steps.len())..]].concat();
            if fails(seed, &fewer) {
                steps = fewer;
            } else {
                at += width;
            }
        }
        width /= 2;
    }
    steps
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Random uploads have few parts of few runs; this one has more of them than one command drops.
#[test]
fn catalog_and_model_agree_on_an_upload_of_many_parts_that_are_not_listed() {
    let mut world = World::new();
    let mut random = Random(5);
    world.begin(&mut random);
    let (bucket, key, upload, chunk) = (world.names[0], Bytes::from_static(b"a"), world.id(), world.id());
    let whole = PartBody::Chunk { chunk, place: place(PART_MIN_BYTES) };
    let pieces = PartBody::Share((0..PART_RUN_COUNT_MAX as u64).map(|start| (chunk, start, 1)).collect());
    let parts = [(1, PART_MIN_BYTES, &whole), (2, 1000, &pieces), (3, 1000, &pieces), (4, 1000, &pieces)];
    let parts = parts.into_iter().chain([(5, 1000, &pieces), (6, 1000, &pieces)]);
    let part = |(number, size_bytes, body): (u32, u64, &PartBody)| Command::PutPart {
        bucket,
        key: key.clone(),
        upload,
        number,
        size_bytes,
        etag: ETag { md5: [1; 16], part_count: 0 },
        checksums: Vec::new(),
        body: body.clone(),
    };
    let create = Command::CreateUpload { bucket, key: key.clone(), id: upload, attrs: Attrs::default() };
    let made = world.send([create].into_iter().chain(parts.map(part)).collect());
    assert_eq!(made, [const { Outcome::Done }; 7]);
    let complete = |if_match| Command::CompleteUpload {
        bucket,
        key: key.clone(),
        upload,
        parts: vec![CompletePart { number: 1, etag: ETag { md5: [1; 16], part_count: 0 } }],
        etag: ETag { md5: [2; 16], part_count: 1 },
        checksums: Vec::new(),
        precondition: Precondition { if_match, ..Precondition::default() },
    };
    let refused = world.send(vec![complete(Some(vec![None]))]);
    assert_eq!(refused, [Outcome::Refused(Refusal::NoSuchKey)]);
    world.check(&mut random); // it dropped nothing
    let outcomes = world.send(vec![complete(None), complete(None), complete(None)]);
    assert_eq!(outcomes[0], Outcome::Drained { remaining: 2 });
    assert!(matches!(outcomes[1], Outcome::Written(_)) && outcomes[1] == outcomes[2], "{outcomes:?}");
    world.check(&mut random);
    world.check_sound();
    world.clean();
}

#[test]
fn catalog_and_model_agree() {
    let first = setting("PREDASTORE_TEST_SEED").unwrap_or(1);
    let count = setting("PREDASTORE_TEST_CASES").unwrap_or(CASES);
    println!("PREDASTORE_TEST_SEED={first} PREDASTORE_TEST_CASES={count}");
    let mut world = World::new();
    for (number, seed) in (first..first + count).enumerate() {
        if (number as u64).is_multiple_of(CASES_PER_CATALOG) {
            world = World::new();
        }
        let mut random = Random(seed);
        let steps: Vec<u64> = (0..STEPS).map(|_| random.next()).collect();
        if catch_unwind(AssertUnwindSafe(|| world.run(seed, &steps))).is_err() {
            let alone = fails(seed, &steps);
            let steps = if alone { shrink(seed, steps) } else { steps };
            eprintln!("PREDASTORE_TEST_SEED={seed} PREDASTORE_TEST_CASES=1 (alone: {alone}): {} steps", steps.len());
            World::new().run(seed, &steps);
            panic!("case {seed} fails only after the cases before it");
        }
    }
}
