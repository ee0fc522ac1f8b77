//! Shards against a map: random operations, kills, restarts, lost indices, damage; and how much space is left in use.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::clean;
use super::*;
use crate::env::Env;
use crate::ids::Ino;
use crate::log::SimDisk;
use crate::segment::{Sealer, Workspace};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, len: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes.into()
    }
}

type Model = BTreeMap<ShardId, (Origin, Vec<Bytes>)>;

fn options(dir: &Path) -> Options {
    Options { file_len_bytes: 4 << 20, ..Options::new(dir) }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn origin(shard: ShardId) -> Origin {
    Origin { chunk: Ino(shard.0 / 5), slot: (shard.0 % 5) as u32 }
}

async fn write(shards: &Shards, shard: ShardId, frames: &[Bytes]) -> Result<(), Error> {
    let mut writing = shards.write(shard, origin(shard));
    for frame in frames {
        writing.push(frame.clone()).await?;
    }
    writing.finish().await
}

fn read_all(shards: &Shards, shard: ShardId) -> Result<Vec<Bytes>, Error> {
    let count = shards.info(shard)?.frames.len();
    let (bytes, lens) = shards.read(shard, 0..count)?;
    let mut start = 0;
    let cut = |len: &u32| {
        start += *len as usize;
        bytes.slice(start - *len as usize..start)
    };
    Ok(lens.iter().map(cut).collect())
}

fn check(shards: &Shards, model: &Model) {
    let listed: Vec<ShardId> = shards.list(None, usize::MAX >> 1).unwrap().iter().map(|row| row.shard).collect();
    assert_eq!(listed, model.keys().copied().collect::<Vec<_>>());
    for (shard, (origin, frames)) in model {
        assert_eq!(&shards.info(*shard).unwrap().origin, origin);
        assert!(&read_all(shards, *shard).unwrap() == frames, "shard {shard} differs");
    }
    assert_eq!(shards.usage().shard_count, model.len() as u64);
}

fn random_frames(random: &mut Random) -> Vec<Bytes> {
    let longest = [100, 9_000, 66_000, 66_000][random.below(4) as usize];
    let count = [1, 1, 2, 30][random.below(4) as usize];
    let frame = |_| {
        let len = random.below(longest) as usize;
        random.bytes(len)
    };
    (0..count).map(frame).collect()
}

/// One life of a shard node; then it is closed, killed, or loses its index.
fn live(dir: &Path, model: &mut Model, deleted: &mut BTreeSet<ShardId>, random: &mut Random) {
    let runtime = runtime();
    let (shards, opened) = Shards::open(&options(dir)).unwrap();
    assert!(!opened.damaged);
    if opened.rebuilt {
        // The record of a deletion may be gone, with a file of which nothing was left; then the shard is back, an orphan.
        let listed = shards.list(None, usize::MAX >> 1).unwrap();
        let orphans: Vec<ShardId> = listed.iter().map(|row| row.shard).filter(|id| !model.contains_key(id)).collect();
        assert!(orphans.iter().all(|shard| deleted.contains(shard)));
        runtime.block_on(shards.delete(&orphans)).unwrap();
    }
    check(&shards, model);
    for _ in 0..random.below(40) {
        match random.below(10) {
            0..5 => {
                let (shard, frames) = (ShardId(random.next() >> 1), random_frames(random));
                runtime.block_on(write(&shards, shard, &frames)).unwrap();
                model.insert(shard, (origin(shard), frames));
            }
            5 | 6 => {
                let at = random.below(model.len() as u64 + 1) as usize;
                let gone: Vec<ShardId> = model.keys().skip(at).take(3).copied().collect();
                runtime.block_on(shards.delete(&gone)).unwrap();
                gone.iter().for_each(|shard| drop(model.remove(shard)));
                deleted.extend(gone);
            }
            7 => drop(shards.clean().unwrap()),
            8 => {
                // Given up half way.
                let frames = random_frames(random);
                let mut writing = shards.write(ShardId(random.next() >> 1), origin(ShardId(1)));
                runtime.block_on(async {
                    for frame in frames {
                        writing.push(frame).await.unwrap()
                    }
                });
            }
            _ => {
                if let Some(shard) = model.keys().next().copied() {
                    let again = runtime.block_on(write(&shards, shard, &[Bytes::from_static(b"other")]));
                    assert!(matches!(again, Err(Error::Exists(_))));
                }
            }
        }
    }
    check(&shards, model);
    match random.below(3) {
        0 => shards.close(),
        1 => {
            shards.close();
            drop(shards);
            fs::remove_file(dir.join("index.db")).unwrap();
        }
        _ => drop(shards),
    }
}

#[test]
fn shards_are_a_map_whatever_happens() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Random(seed);
    for _ in 0..4 {
        let (dir, mut model, mut deleted) = (TempDir::new().unwrap(), Model::new(), BTreeSet::new());
        for _ in 0..8 {
            live(dir.path(), &mut model, &mut deleted, &mut random);
        }
    }
}

fn disk_bytes(dir: &Path) -> u64 {
    let files = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap());
    let logs = files.filter(|entry| entry.file_name().to_string_lossy().ends_with(".log"));
    logs.map(|entry| entry.metadata().unwrap().blocks() * 512).sum()
}

#[test]
fn space_comes_back() {
    let (dir, mut random, mut model) = (TempDir::new().unwrap(), Random(7), Model::new());
    let runtime = runtime();
    let (shards, _) = Shards::open(&options(dir.path())).unwrap();
    for round in 0..6 {
        for _ in 0..60 {
            let (shard, frames) = (ShardId(random.next() >> 1), random_frames(&mut random));
            runtime.block_on(write(&shards, shard, &frames)).unwrap();
            model.insert(shard, (origin(shard), frames));
        }
        let gone: Vec<ShardId> = model.keys().filter(|shard| shard.0 % 3 > 0).copied().collect();
        runtime.block_on(shards.delete(&gone)).unwrap();
        model.retain(|shard, _| shard.0 % 3 == 0);
        let cleaned = shards.clean().unwrap();
        assert!(round == 0 || cleaned.removed_files > 0, "{cleaned:?}");
        check(&shards, &model);
    }
    let live = shards.usage().live_bytes;
    drop(shards);
    // The last file was being written: it is cut off at the next start.
    let (shards, opened) = Shards::open(&options(dir.path())).unwrap();
    assert!(!opened.damaged);
    check(&shards, &model);
    let used = disk_bytes(dir.path());
    assert!(used as f64 <= live as f64 * 1.1 + 1e5, "{used} bytes on the disk for {live}");
    runtime.block_on(shards.delete(&model.keys().copied().collect::<Vec<_>>())).unwrap();
    shards.clean().unwrap();
    assert_eq!(shards.usage(), Usage::default());
}

/// A node so small that it never fills a file.
#[test]
fn what_is_dead_in_the_file_being_written_gives_its_room_back() {
    let (dir, mut random, mut model) = (TempDir::new().unwrap(), Random(13), Model::new());
    let runtime = runtime();
    let (shards, _) = Shards::open(&Options { file_len_bytes: 16 << 20, ..Options::new(dir.path()) }).unwrap();
    for round in 0..3 {
        for _ in 0..80 {
            let (shard, frames) = (ShardId(random.next() >> 1), vec![random.bytes(9_000), random.bytes(3_000)]);
            runtime.block_on(write(&shards, shard, &frames)).unwrap();
            model.insert(shard, (origin(shard), frames));
        }
        let gone: Vec<ShardId> = model.keys().filter(|shard| shard.0 % 2 > 0).copied().collect();
        runtime.block_on(shards.delete(&gone)).unwrap();
        model.retain(|shard, _| shard.0 % 2 == 0);
        let spares = || shards.inner.log.stats().spares;
        wait_until("both spares", || spares() == 2);
        let cleaned = shards.clean().unwrap();
        assert!(cleaned.moved_bytes > 0 && cleaned.removed_files == 1, "round {round}: {cleaned:?}");
        let taken = disk_bytes(dir.path()) - shards.inner.log.current().room_bytes;
        let (live, allowed) = (shards.usage().live_bytes, 1.0 + 1.0 / clean::WASTE_PARTS as f64);
        assert!(taken as f64 <= live as f64 * allowed + clean::WASTE_BYTES as f64, "{taken} bytes for {live}");
        assert_eq!(shards.clean().unwrap().moved_bytes, 0, "nothing is moved twice");
        check(&shards, &model);
    }
    drop(shards);
    let (shards, opened) = Shards::open(&options(dir.path())).unwrap();
    assert!(!opened.damaged);
    check(&shards, &model);
}

#[test]
fn any_byte_may_flip() {
    let (dir, mut random, mut model) = (TempDir::new().unwrap(), Random(11), Model::new());
    let runtime = runtime();
    let (shards, _) = Shards::open(&options(dir.path())).unwrap();
    for _ in 0..12 {
        let (shard, frames) = (ShardId(random.next() >> 1), vec![random.bytes(9_000), random.bytes(3_000)]);
        runtime.block_on(write(&shards, shard, &frames)).unwrap();
        model.insert(shard, (origin(shard), frames));
    }
    // Not flushed: the index knows nothing, and all is read from the log.
    drop(shards);
    let log = fs::read_dir(dir.path().join("log")).unwrap().map(|entry| entry.unwrap().path());
    let log = log.filter(|path| path.extension().is_some_and(|suffix| suffix == "log")).min().unwrap();
    let file = fs::File::options().read(true).write(true).open(&log).unwrap();
    let mut lost = 0;
    for _ in 0..150 {
        let (at, mut byte) = (random.below(file.metadata().unwrap().len().min(190_000)), [0]);
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << random.below(8))], at).unwrap();
        let copy = TempDir::new().unwrap();
        fs::create_dir(copy.path().join("log")).unwrap();
        for entry in fs::read_dir(dir.path().join("log")).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.path().join("log").join(path.file_name().unwrap())).unwrap();
        }
        file.write_all_at(&byte, at).unwrap();
        let (shards, _) = Shards::open(&options(copy.path())).unwrap();
        let wrong = model.iter().filter(|(shard, (_, frames))| {
            let read = read_all(&shards, **shard);
            // Frames carry checksums of their own; what is there has the lengths it had.
            read.is_err() || &read.unwrap() != frames
        });
        let wrong = wrong.count();
        assert!(wrong <= 1, "a flip at {at} cost {wrong} shards");
        lost += wrong;
        // And the node goes on.
        runtime.block_on(write(&shards, ShardId(1), &[Bytes::from_static(b"new")])).unwrap();
        assert_eq!(read_all(&shards, ShardId(1)).unwrap(), [Bytes::from_static(b"new")]);
    }
    println!("150 flips made {lost} shards unreadable");
}

#[test]
fn frames_are_read_by_range() {
    let (dir, mut random) = (TempDir::new().unwrap(), Random(3));
    let frames: Vec<Bytes> = (0..40).map(|index| random.bytes(60_000 + index)).collect();
    let (shards, _) = Shards::open(&options(dir.path())).unwrap();
    runtime().block_on(write(&shards, ShardId(9), &frames)).unwrap();
    for (start, end) in [(0, 1), (0, 40), (17, 23), (39, 40), (5, 5)] {
        let (bytes, lens) = shards.read(ShardId(9), start..end).unwrap();
        assert_eq!(bytes, frames[start..end].concat());
        assert_eq!(lens.len(), end - start);
    }
    assert!(matches!(shards.read(ShardId(9), 39..41), Err(Error::Invalid { .. })));
    assert!(matches!(shards.read(ShardId(8), 0..1), Err(Error::NotFound(_))));
}

#[test]
fn a_flush_that_fails_forgets_nothing() {
    let (dir, mut random, mut model) = (TempDir::new().unwrap(), Random(5), Model::new());
    let runtime = runtime();
    let (shards, _) = Shards::open(&options(dir.path())).unwrap();
    let mut put = |shards: &Shards, model: &mut Model| {
        let (shard, frames) = (ShardId(random.next() >> 1), random_frames(&mut random));
        runtime.block_on(write(shards, shard, &frames)).unwrap();
        model.insert(shard, (origin(shard), frames));
    };
    (0..5).for_each(|_| put(&shards, &mut model));
    let other = rusqlite::Connection::open(dir.path().join("index.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(shards.clean(), Err(Error::Index(_))));
    (0..5).for_each(|_| put(&shards, &mut model));
    assert!(model.iter().all(|(shard, (_, frames))| &read_all(&shards, *shard).unwrap() == frames));
    other.execute_batch("ROLLBACK").unwrap();
    shards.clean().unwrap();
    check(&shards, &model);
}

#[test]
fn a_torn_move_leaves_the_shard_where_it_was() {
    for loses_index in [false, true] {
        let dir = TempDir::new().unwrap();
        let frames: Vec<Bytes> = (0..3).map(|seed| Random(seed).bytes(20_000)).collect();
        let (shards, _) = Shards::open(&options(dir.path())).unwrap();
        runtime().block_on(write(&shards, ShardId(1), &frames)).unwrap();
        shards.clean().unwrap();
        let before = shards.inner.index.get(ShardId(1)).unwrap().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        shards.inner.clone().move_shard(ShardId(1), before.commit.at.file, tell).unwrap();
        told.recv().unwrap().unwrap();
        let run = shards.inner.index.get(ShardId(1)).unwrap().unwrap().runs[0];
        assert!(run.index > before.commit.index);
        // Not flushed; and a block in the middle of the batch did not reach the disk.
        drop(shards);
        let log = dir.path().join("log").join(format!("{:010}.log", run.at.file));
        let log = fs::File::options().write(true).open(log).unwrap();
        log.write_all_at(&[0; 4096], u64::from(run.at.start_bytes) + 9_000).unwrap();
        if loses_index {
            fs::remove_file(dir.path().join("index.db")).unwrap();
        }
        for start in 0..2 {
            let (shards, _) = Shards::open(&options(dir.path())).unwrap();
            let runs = shards.inner.index.get(ShardId(1)).unwrap().unwrap().runs.clone();
            assert!(start > 0 || runs == before.runs, "{runs:?}");
            shards.clean().unwrap();
            assert!(read_all(&shards, ShardId(1)).unwrap() == frames, "index lost: {loses_index}");
        }
    }
}

/// A node with its log on a simulated disk, and small files.
fn open_sim(dir: &Path, disk: &SimDisk) -> (Shards, Opened) {
    let options = Options { file_len_bytes: 256 << 10, ..Options::new(dir) };
    Shards::open_on(Arc::new(disk.clone()), &options).unwrap()
}

/// Waits for what another thread does.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it never came to be that {what}");
}

#[test]
fn a_full_disk_fails_writes_and_still_deletes_and_cleans() {
    let (dir, disk, mut random, mut model) = (TempDir::new().unwrap(), SimDisk::default(), Random(21), Model::new());
    let runtime = runtime();
    let (shards, _) = open_sim(dir.path(), &disk);
    let mut put = |shards: &Shards, model: &mut Model| {
        let (shard, frames) = (ShardId(random.next() >> 1), vec![random.bytes(30_000), random.bytes(30_000)]);
        let result = runtime.block_on(write(shards, shard, &frames));
        if result.is_ok() {
            model.insert(shard, (origin(shard), frames));
        }
        result
    };
    put(&shards, &mut model).unwrap();
    wait_until("the reserve is there", || shards.log_stats().spares == 2);
    disk.limit(Some(0));
    let full = (0..40).find_map(|_| put(&shards, &mut model).err());
    assert!(matches!(full, Some(Error::Full)), "{full:?}");
    assert!(model.len() > 6, "one spare was for writes");
    // A run that has no room; its commit would have.
    let mut large = shards.write(ShardId(1), origin(ShardId(1)));
    runtime.block_on(large.push(vec![1; 100_000].into())).unwrap();
    runtime.block_on(large.settle()).unwrap();
    let large = runtime.block_on(large.finish());
    assert!(matches!(large, Err(Error::Full)), "{large:?}");
    assert!(matches!(shards.info(ShardId(1)), Err(Error::NotFound(_))));
    check(&shards, &model);
    let gone: Vec<ShardId> = model.keys().skip(1).copied().collect();
    for shard in gone {
        runtime.block_on(shards.delete(&[shard])).unwrap();
        model.remove(&shard);
    }
    check(&shards, &model);
    shards.clean().unwrap();
    // What was given back fills the reserve first, in the background.
    for _ in 0..2 {
        wait_until("there is room again", || match put(&shards, &mut model) {
            Err(Error::Full) => false,
            result => result.map(|()| true).unwrap(),
        });
    }
    check(&shards, &model);
    wait_until("there is a reserve again", || shards.log_stats().spares > 0);
    drop(shards);
    let (shards, opened) = open_sim(dir.path(), &disk);
    assert!(!opened.damaged);
    check(&shards, &model);
}

#[test]
fn an_index_without_room_forgets_nothing() {
    let (dir, mut random, mut model) = (TempDir::new().unwrap(), Random(22), Model::new());
    let runtime = runtime();
    let (shards, _) = Shards::open(&options(dir.path())).unwrap();
    wait_until("the reserve is there", || shards.log_stats().spares == 2);
    shards.inner.index.limit(1);
    let frames = vec![Bytes::from_static(b"x"); 1000];
    for _ in 0..40 {
        let shard = ShardId(random.next() >> 1);
        runtime.block_on(write(&shards, shard, &frames)).unwrap();
        model.insert(shard, (origin(shard), frames.clone()));
    }
    assert!(matches!(shards.clean(), Err(Error::Full)));
    assert!(model.keys().all(|shard| read_all(&shards, *shard).unwrap() == frames));
    wait_until("the reserve is there again", || shards.log_stats().spares == 2);
    shards.inner.index.limit(1 << 20);
    shards.clean().unwrap();
    check(&shards, &model);
}

/// Many small shards, of which one in four is kept, and in the first file only the very first.
fn mostly_dead(shards: &Shards, random: &mut Random) -> Model {
    let (runtime, mut model) = (runtime(), Model::new());
    for index in 0..200 {
        let (shard, frames) = (ShardId(100 + index), vec![random.bytes(20_000)]);
        runtime.block_on(write(shards, shard, &frames)).unwrap();
        model.insert(shard, (origin(shard), frames));
    }
    let is_kept = |shard: &ShardId| shard.0.is_multiple_of(4) && !(101..115).contains(&shard.0);
    let gone: Vec<ShardId> = model.keys().copied().filter(|shard| !is_kept(shard)).collect();
    runtime.block_on(shards.delete(&gone)).unwrap();
    model.retain(|shard, _| is_kept(shard));
    model
}

#[test]
fn what_cannot_be_read_holds_nobody_up() {
    let (dir, disk, mut random) = (TempDir::new().unwrap(), SimDisk::default(), Random(23));
    let (shards, _) = open_sim(dir.path(), &disk);
    let mut model = mostly_dead(&shards, &mut random);
    let at = shards.inner.index.get(ShardId(100)).unwrap().unwrap().runs[0].at;
    let name = format!("{:010}.log", at.file);
    disk.make_unreadable(&name, at.start_bytes as usize + 5000..at.start_bytes as usize + 5001);
    let bad = model.remove(&ShardId(100)).unwrap();
    let logs = || disk.names().into_iter().filter(|name| name.ends_with(".log")).count();
    let before = logs();
    let cleaned = shards.clean().unwrap();
    assert_eq!(cleaned.unreadable_shards, 1, "{cleaned:?}");
    assert!(logs() <= before * 2 / 3, "the others were moved: {} files of {before} are left", logs());
    shards.clean().unwrap();
    assert!(disk.names().contains(&name));
    assert!(matches!(read_all(&shards, ShardId(100)), Err(Error::Log(_))));
    assert!(model.iter().all(|(shard, (_, frames))| &read_all(&shards, *shard).unwrap() == frames));
    assert_eq!(shards.scrub(None, 1).unwrap().damaged, [Listed { shard: ShardId(100), origin: bad.0 }]);
    runtime().block_on(shards.delete(&[ShardId(100)])).unwrap();
    shards.clean().unwrap();
    assert!(!disk.names().contains(&name));
    check(&shards, &model);
}

#[test]
fn listing_and_closing_wait_for_no_cleaning() {
    let (dir, mut random) = (TempDir::new().unwrap(), Random(24));
    let runtime = runtime();
    let (shards, _) = open_sim(dir.path(), &SimDisk::default());
    let model = mostly_dead(&shards, &mut random);
    {
        let _somebody_cleans = index::lock(&shards.inner.cleaning);
        check(&shards, &model);
    }
    shards.inner.stopping.store(true, std::sync::atomic::Ordering::Release);
    let cleaned = shards.clean().unwrap();
    assert_eq!(cleaned.moved_bytes, 0, "it stops before it moves anything");
    shards.inner.stopping.store(false, std::sync::atomic::Ordering::Release);
    assert!(shards.clean().unwrap().moved_bytes > 0);
    shards.close();
    assert!(matches!(runtime.block_on(shards.delete(&[ShardId(1)])), Err(Error::Log(log::Error::Closed))));
}

#[test]
fn a_shard_half_way_in_is_no_damage_at_the_next_start() {
    let (dir, mut random, mut model) = (TempDir::new().unwrap(), Random(25), Model::new());
    let runtime = runtime();
    let (shards, _) = Shards::open(&options(dir.path())).unwrap();
    let first = vec![random.bytes(100)];
    runtime.block_on(write(&shards, ShardId(9), &first)).unwrap();
    model.insert(ShardId(9), (origin(ShardId(9)), first));
    let mut half_way = shards.write(ShardId(1), origin(ShardId(1)));
    runtime.block_on(half_way.push(random.bytes(50_000))).unwrap();
    runtime.block_on(half_way.settle()).unwrap();
    for index in 10..20 {
        let (shard, frames) = (ShardId(index), vec![random.bytes(20_000)]);
        runtime.block_on(write(&shards, shard, &frames)).unwrap();
        model.insert(shard, (origin(shard), frames));
    }
    let gone: Vec<ShardId> = model.keys().skip(1).take(5).copied().collect();
    runtime.block_on(shards.delete(&gone)).unwrap();
    gone.iter().for_each(|shard| drop(model.remove(shard)));
    shards.clean().unwrap();
    shards.close();
    drop((half_way, shards));
    let (shards, opened) = Shards::open(&options(dir.path())).unwrap();
    assert_eq!(opened, Opened { rebuilt: false, damaged: false });
    check(&shards, &model);
    assert_eq!(shards.backlog(), (0, 0), "what was dead is given back by now");
    drop(shards);
    let (shards, opened) = Shards::open(&options(dir.path())).unwrap();
    assert!(!opened.damaged);
    check(&shards, &model);
}

/// Frames as a gateway makes them, of a chunk that is named as the shard is.
fn sealed_frames(shard: ShardId, random: &mut Random) -> Vec<Bytes> {
    let (mut sealer, _) = Sealer::fresh(origin(shard).chunk, Env::system().rng.as_ref());
    let mut workspace = Workspace::new();
    let slot = origin(shard).slot as u8;
    let mut seal = |stripe| sealer.seal(&mut workspace, stripe, slot, &random.bytes(9_000)).into();
    (0..3).map(&mut seal).collect()
}

#[test]
fn a_scrub_finds_every_flipped_bit() {
    let (dir, disk, mut random) = (TempDir::new().unwrap(), SimDisk::default(), Random(26));
    let runtime = runtime();
    let (shards, _) = open_sim(dir.path(), &disk);
    let ids: Vec<ShardId> = (10..30).map(ShardId).collect();
    for shard in &ids {
        runtime.block_on(write(&shards, *shard, &sealed_frames(*shard, &mut random))).unwrap();
    }
    shards.clean().unwrap();
    let live: u64 = ids.iter().flat_map(|shard| shards.info(*shard).unwrap().frames).map(u64::from).sum();
    let whole = Scrubbed { next: None, checked_bytes: live, damaged: Vec::new() };
    assert_eq!(shards.scrub(None, u64::MAX).unwrap(), whole);
    for _ in 0..60 {
        let shard = ids[random.below(20) as usize];
        let entry = shards.inner.index.get(shard).unwrap().unwrap();
        let at = entry.runs[random.below(entry.runs.len() as u64) as usize].at;
        let name = format!("{:010}.log", at.file);
        let offset = at.start_bytes as usize + random.below(u64::from(at.len_bytes)) as usize;
        let mask = 1 << random.below(8);
        disk.flip(&name, offset, mask);
        // In small steps: each goes on where the one before ended.
        let (mut next, mut damaged, mut checked_bytes) = (None, Vec::new(), 0);
        loop {
            let scrubbed = shards.scrub(next, 60_000).unwrap();
            damaged.extend(scrubbed.damaged);
            (next, checked_bytes) = (scrubbed.next, checked_bytes + scrubbed.checked_bytes);
            assert!(scrubbed.checked_bytes < 90_000);
            if next.is_none() {
                break;
            }
        }
        assert_eq!((damaged, checked_bytes), (vec![Listed { shard, origin: origin(shard) }], live));
        disk.flip(&name, offset, mask);
    }
    // Whole frames, in the wrong place.
    let frames = sealed_frames(ShardId(12), &mut random);
    runtime.block_on(write(&shards, ShardId(40), &frames)).unwrap();
    runtime.block_on(write(&shards, ShardId(52), std::slice::from_ref(&frames[1]))).unwrap();
    shards.clean().unwrap();
    let damaged = shards.scrub(Some(ShardId(29)), u64::MAX).unwrap().damaged;
    assert_eq!(damaged.iter().map(|row| row.shard).collect::<Vec<_>>(), [ShardId(40), ShardId(52)]);
}

#[test]
fn the_keeper_gives_up_and_gives_back_until_it_is_stopped() {
    let (dir, mut random) = (TempDir::new().unwrap(), Random(27));
    let runtime = runtime();
    let (shards, _) = Shards::open(&options(dir.path())).unwrap();
    let limits = ServiceLimits { patience: Duration::ZERO, ..ServiceLimits::default() };
    let service = ShardService::with_limits(shards.clone(), dir.path(), (0, 1), limits);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let tick = Duration::from_millis(1);
    let keeper = runtime.spawn(service.clone().run_every(tick, tick, async { drop(stopped.await) }));
    for index in 0..20 {
        let frames = [random.bytes(20_000)];
        runtime.block_on(write(&shards, ShardId(index), &frames)).unwrap();
    }
    runtime.block_on(shards.delete(&(0..10).map(ShardId).collect::<Vec<_>>())).unwrap();
    wait_until("all is clean", || shards.backlog() == (0, 0));
    stop.send(()).unwrap();
    runtime.block_on(keeper).unwrap();
    // A cleaning that it had begun, and that may have been between two moves, goes on to its end.
    wait_until("that is over", || {
        shards.clean().unwrap();
        shards.backlog() == (0, 0)
    });
    runtime.block_on(shards.delete(&[ShardId(15)])).unwrap();
    std::thread::sleep(20 * tick);
    assert_eq!(shards.backlog().0, 1, "nobody keeps it any more");
}

/// What a shard of that id holds, in the test with kills.
fn frames_of(shard: ShardId) -> Vec<Bytes> {
    let mut random = Random(shard.0);
    (0..1 + random.below(4))
        .map(|_| 1 + random.below(60_000) as usize)
        .map(|len| Random(shard.0 ^ 1).bytes(len))
        .collect()
}

fn small_files(dir: &Path) -> Options {
    Options { file_len_bytes: 1 << 20, ..Options::new(dir) }
}

const NODE_DIR: &str = "PREDASTORE_TEST_SHARD_NODE";
const NODE_SEED: &str = "PREDASTORE_TEST_SHARD_SEED";

/// The node of the test below: writes, overwrites under new ids, deletes, and cleans all the time, until it is killed.
#[test]
#[ignore = "the process that another test kills"]
fn a_node_to_be_killed() {
    let Some(dir) = std::env::var_os(NODE_DIR) else { return };
    let mut random = Random(std::env::var(NODE_SEED).unwrap().parse().unwrap());
    let (shards, opened) = Shards::open(&small_files(Path::new(&dir))).unwrap();
    assert!(!opened.damaged);
    let mut live: Vec<ShardId> = shards.list(None, usize::MAX >> 1).unwrap().iter().map(|row| row.shard).collect();
    let runtime = runtime();
    let cleaned = shards.clone();
    std::thread::spawn(move || {
        loop {
            cleaned.clean().unwrap();
        }
    });
    loop {
        let shard = ShardId(random.next() >> 1);
        println!("\nput {shard}");
        runtime.block_on(write(&shards, shard, &frames_of(shard))).unwrap();
        println!("\nput-done {shard}");
        live.push(shard);
        let delete_count = if live.len() > 120 { 1 + random.below(3) } else { random.below(2) };
        let gone: Vec<ShardId> =
            (0..delete_count).map(|_| live.swap_remove(random.below(live.len() as u64) as usize)).collect();
        gone.iter().for_each(|shard| println!("\ndelete {shard}"));
        runtime.block_on(shards.delete(&gone)).unwrap();
        gone.iter().for_each(|shard| println!("\ndelete-done {shard}"));
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Maybe,
    There,
    Gone,
}

/// Starts the node, and kills it when it has said so many lines.
fn one_killed_life(dir: &Path, seed: u64, line_count: u64, fates: &mut BTreeMap<ShardId, Fate>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["shard::tests::a_node_to_be_killed", "--exact", "--ignored", "--nocapture"]);
    command.env(NODE_DIR, dir).env(NODE_SEED, seed.to_string());
    let mut node = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = 0;
    for line in BufReader::new(node.stdout.take().unwrap()).lines() {
        let line = line.unwrap_or_default();
        let Some((what, shard)) = line.split_once(' ') else { continue };
        let fate = match what {
            "put" | "delete" => Fate::Maybe,
            "put-done" => Fate::There,
            "delete-done" => Fate::Gone,
            _ => continue,
        };
        fates.insert(ShardId(shard.parse().unwrap()), fate);
        said += 1;
        if said == line_count {
            node.kill().unwrap();
        }
    }
    assert!(said >= line_count, "the node died by itself");
    node.wait().unwrap();
}

#[test]
fn nothing_live_is_gone_and_no_space_either_when_the_node_is_killed() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let (dir, mut random, mut fates) = (TempDir::new().unwrap(), Random(seed), BTreeMap::new());
    let runtime = runtime();
    for life in 0..10 {
        let line_count = if life == 0 { 600 } else { 20 + random.below(300) };
        one_killed_life(dir.path(), random.next(), line_count, &mut fates);
        let (shards, opened) = Shards::open(&small_files(dir.path())).unwrap();
        assert!(!opened.damaged, "life {life}");
        for row in shards.list(None, usize::MAX >> 1).unwrap() {
            let fate = fates.get_mut(&row.shard).unwrap();
            assert_ne!(*fate, Fate::Gone, "life {life}, shard {}", row.shard);
            *fate = Fate::There;
        }
        for (shard, fate) in &fates {
            match read_all(&shards, *shard) {
                Ok(frames) => assert!(*fate == Fate::There && frames == frames_of(*shard), "life {life}, {shard}"),
                Err(error) => assert!(*fate != Fate::There, "life {life}, {shard}: {error}"),
            }
        }
        fates.retain(|_, fate| *fate == Fate::There);
        // As the sweep would.
        let extra: Vec<ShardId> = fates.keys().skip(150).copied().collect();
        runtime.block_on(shards.delete(&extra)).unwrap();
        fates.retain(|shard, _| !extra.contains(shard));
    }
    let (shards, _) = Shards::open(&small_files(dir.path())).unwrap();
    shards.clean().unwrap();
    let live = shards.usage().live_bytes;
    shards.close();
    drop(shards);
    // The last file was being written: it is cut off at the next start.
    let (shards, opened) = Shards::open(&small_files(dir.path())).unwrap();
    assert!(!opened.damaged);
    assert_eq!(shards.usage().shard_count, fates.len() as u64);
    assert!(fates.keys().all(|shard| read_all(&shards, *shard).unwrap() == frames_of(*shard)));
    let used = disk_bytes(dir.path());
    // What cleaning leaves by its own rule; of files as small as these that is more than a tenth.
    let file_count = live.div_ceil(small_files(dir.path()).file_len_bytes) + 1;
    let most = live + live / clean::WASTE_PARTS + file_count * clean::WASTE_BYTES;
    assert!(live > 2 << 20 && used <= most, "{used} bytes on the disk for {live}, and at most {most}");
}
