//! Random histories: the same log gives the same state, however it is cut into batches; and the state stays sound.

use super::*;
use crate::catalog::{Due, NewChunk};
use crate::ids::ShardId;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len() as u64) as usize].clone())
    }
}

const KEYS: [&str; 12] = ["a", "a/", "a//b", "/a", "a-b", "a0", "d/e/f", "d/e/g", "d/h", "d/e/", "x/y/z/w", "x/y"];

/// Two shards with fresh names, of which one may be nowhere.
fn striped(random: &mut Random, world: &mut World, len_bytes: u64) -> Place {
    let missing = random.below(4);
    let shard = |index: u64, id: Ino| (NodeId(index), ShardId(if missing == index { 0 } else { id.0 }));
    let shards = vec![shard(0, world.id()), shard(1, world.id())];
    let layout = Layout::Rs { data_count: 1, parity_count: 1, epoch: 1, shards, key_id: 1, wrapped_key: Vec::new() };
    Place { layout, len_bytes, live_bytes: len_bytes }
}

/// One chunk, as long as all of them are.
fn chunks(random: &mut Random, world: &mut World) -> Vec<NewChunk> {
    vec![NewChunk { id: world.id(), place: striped(random, world, 2), short: random.below(3) == 0 }]
}

/// A random command; what it names may be there or not.
fn command(random: &mut Random, world: &mut World, bucket: BucketId, uploads: &mut Vec<Upload>) -> Command {
    let key = KEYS[random.below(KEYS.len() as u64) as usize];
    let some_node = Ino(world.next_id.0.saturating_sub(1 + random.below(30)));
    match random.below(28) {
        0..8 => {
            // All bodies are as long, so that any may be shared.
            let size_bytes = 2;
            let (body, size_bytes) = match random.below(7) {
                5 | 6 => (Body::Chunks(chunks(random, world)), size_bytes),
                0 => (Body::Empty, 0),
                1 => (Body::Inline(Bytes::from(vec![7; size_bytes as usize])), size_bytes),
                2 => (Body::Share(some_node), size_bytes),
                _ => (Body::Chunk(place(size_bytes)), size_bytes),
            };
            world.put_command(bucket, key, body, size_bytes)
        }
        8..13 => {
            let versions =
                world.rows("SELECT seq FROM dentry WHERE kind<>1 UNION SELECT seq FROM version WHERE kind<>1");
            let named = random.pick(&versions).and_then(|seq| seq.parse().ok());
            let version = match random.below(4) {
                0 => Some(VersionId::Null),
                1 | 2 => named.map(|seq| VersionId::Seq(crate::ids::Seq(seq))),
                _ => None,
            };
            let keys = KEYS.iter().filter(|_| random.below(3) == 0).map(|key| target(key, version));
            Command::Delete { bucket, keys: keys.collect() }
        }
        13 => {
            let upload = world.upload(bucket, key);
            uploads.push(upload);
            Command::Tick { now: Timestamp(random.below(1000) as i64) }
        }
        14..17 if !uploads.is_empty() => {
            let upload = &uploads[random.below(uploads.len() as u64) as usize];
            let (number, id) = (1 + random.below(4) as u32, world.id());
            let body = match random.below(4) {
                3 => PartBody::Chunks(chunks(random, world)),
                0 => PartBody::Share(vec![(some_node, 0, 1), (some_node, 0, 1)]),
                _ => PartBody::Chunk { chunk: id, place: place(2) },
            };
            let upload = Upload { key: upload.key.clone(), ..*upload };
            world.part_command(&upload, number, body, 2)
        }
        17 if !uploads.is_empty() => {
            let index = random.below(uploads.len() as u64) as usize;
            match random.below(3) {
                0 => uploads.swap_remove(index).abort(),
                _ => uploads[index].complete(&[1 + random.below(4) as u32]),
            }
        }
        18 => {
            let versioning = if random.below(2) == 0 { Versioning::Enabled } else { Versioning::Suspended };
            match world.log.len() {
                0..150 => Command::Tick { now: Timestamp(1) },
                _ => Command::SetVersioning { bucket, versioning },
            }
        }
        19 => Command::Reclaimed { rows: vec![random.below(20), random.below(20)] },
        20 => Command::ForgetCompleted { before: Timestamp(i64::MAX), row_count: 2 },
        21 => Command::RenewSession { watermark: random.below(100), retired: vec![(Ino(0), some_node)] },
        22..24 => {
            let places = world.catalog.view().places(None, 1000).unwrap();
            let Some((chunk, from)) = random.pick(&places) else {
                return Command::MarkRepair { chunks: vec![], damaged: false };
            };
            let to = striped(random, world, from.len_bytes);
            let due = random.pick(&[Due::No, Due::Yes, Due::AsBefore]).unwrap_or(Due::No);
            Command::Swap { chunk, from, to, due, verified: random.below(2) == 0 }
        }
        25 => {
            let places = world.catalog.view().places(None, 1000).unwrap();
            let Some((chunk, from)) = random.pick(&places) else { return Command::Drain { row_count: 1 } };
            // One piece, as long as all bodies are: any may be shared.
            let place = striped(random, world, from.len_bytes);
            let pieces = vec![NewChunk { id: world.id(), place, short: false }];
            Command::Split { chunk, from, pieces }
        }
        24 => Command::MarkRepair { chunks: vec![some_node], damaged: random.below(2) == 0 },
        _ => Command::Drain { row_count: 1 + random.below(6) as u32 },
    }
}

fn history(seed: u64, len: usize) -> World {
    let mut random = Random(seed);
    let mut world = World::new();
    let bucket = world.bucket("b", Versioning::Never);
    let mut uploads = Vec::new();
    while world.log.len() < len {
        let command = command(&mut random, &mut world, bucket, &mut uploads);
        world.send(command);
        check(&world, seed);
    }
    world
}

fn check(world: &World, seed: u64) {
    let contradictions = world.catalog.view().contradictions(10);
    assert!(contradictions.is_empty(), "seed {seed}, {:?}: {contradictions:#?}", world.log.last());
}

fn seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = since.as_nanos() as u64 | 1;
    println!("seed {seed}");
    seed
}

#[test]
fn a_log_gives_the_same_state_in_any_batches() {
    let seed = seed();
    let world = history(seed, 400);
    let mut random = Random(seed);
    for longest in [1, 7, 400] {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = open(&dir);
        let mut rest = &world.log[..];
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(rest.len().min(1 + random.below(longest) as usize));
            catalog.apply(batch).unwrap();
            rest = after;
            if random.below(10) == 0 {
                drop(catalog);
                catalog = open(&dir);
            }
        }
        assert_eq!(dump(&catalog), dump(&world.catalog), "seed {seed}, batches up to {longest}");
    }
}

#[test]
fn everything_goes_in_the_end() {
    let seed = seed();
    let mut world = history(seed, 300);
    let bucket = BucketId(world.rows("SELECT id FROM bucket")[0].parse().unwrap());
    for row in world.rows("SELECT id FROM upload") {
        let id = Ino(row.parse().unwrap());
        let key = KEYS.iter().find(|key| {
            !world.rows(&format!("SELECT 1 FROM upload WHERE id={id} AND CAST(key AS TEXT)='{key}'")).is_empty()
        });
        let upload = Upload { bucket, key: Bytes::from_static(key.unwrap().as_bytes()), id };
        assert_eq!(world.send(upload.abort()), Outcome::Done);
    }
    let all = world.rows("SELECT seq FROM dentry WHERE kind<>1 UNION SELECT seq FROM version WHERE kind<>1");
    let versions = all.iter().map(|seq| VersionId::Seq(crate::ids::Seq(seq.parse().unwrap())));
    for version in versions.chain([VersionId::Null]) {
        for key in KEYS {
            world.delete(bucket, key, Some(version));
        }
    }
    world.drain();
    check(&world, seed);
    assert_eq!(world.send(Command::DeleteBucket { bucket }), Outcome::Done);
    for table in ["dentry", "version", "dir", "node", "extent", "inline", "part", "upload", "dead", "usage", "repair"] {
        assert_eq!(world.rows(&format!("SELECT COUNT(*) FROM {table}")), ["0"], "{table}, seed {seed}");
    }
}
