//! What is overwritten and deleted gives its room back: after reclaim, sweep and compaction the logs of the shard nodes hold
//! little more than the live shards. In the long form everything is killed again and again meanwhile, and nothing live goes.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use predastore_tests::cluster::{Cluster, Recounts, Shape};
use predastore_tests::history::Body;
use predastore_tests::http::Response;
use predastore_tests::knobs::{number, say};
use predastore_tests::random::Rng;
use predastore_tests::s3d::{Config, setting};
use predastore_tests::shardlog::ShardLog;
use predastore_tests::workload::Workload;

const BUCKET: &str = "space";
const DATA: u64 = 2;
const PARITY: u64 = 1;
/// Of a data frame beyond its segment: header and tag; of a parity frame, a header more.
const DATA_OVERHEAD_BYTES: u64 = 48;
const PARITY_OVERHEAD_BYTES: u64 = 80;
const SEGMENT_BYTES: u64 = 64 << 10;
const BLOCK_BYTES: u64 = 8 << 10;
const CHUNK_BYTES: u64 = 32 << 20;
/// A shard node cleans its log once a minute, where something has changed: so it takes some minutes after the last deletion.
const PATIENCE: Duration = Duration::from_secs(400);

/// What all shards of `len_bytes` of incompressible bytes need, as `docs/ARCHITECTURE.md` and `src/erasure/geometry.rs` say:
/// whole stripes of 64 KiB segments, and a narrower last one.
fn shard_bytes(len_bytes: u64) -> u64 {
    let chunks = (0..len_bytes.div_ceil(CHUNK_BYTES)).map(|index| CHUNK_BYTES.min(len_bytes - index * CHUNK_BYTES));
    let stripe = |plain: u64| {
        let unit = plain.div_ceil(DATA).next_multiple_of(BLOCK_BYTES);
        let longest = unit.min(plain);
        plain + plain.div_ceil(unit) * DATA_OVERHEAD_BYTES + PARITY * (longest + PARITY_OVERHEAD_BYTES)
    };
    let stripe_bytes = DATA * SEGMENT_BYTES;
    let chunk = |len: u64| {
        len / stripe_bytes * stripe(stripe_bytes) + Some(len % stripe_bytes).filter(|len| *len > 0).map_or(0, stripe)
    };
    chunks.map(chunk).sum()
}

/// Some keys, and what each holds.
struct Store {
    cluster: Cluster,
    rng: Rng,
    held: Vec<Option<Body>>,
    next_body: u64,
    written_bytes: u64,
}

impl Store {
    fn start(mut rng: Rng, key_count: usize) -> Result<Store> {
        let config = Config::default().set(setting::SWEEP_INTERVAL, "2s").set(setting::SWEEP_GRACE, "2s");
        let cluster = Cluster::start(&Shape::boxes(3, 3, (DATA as u8, PARITY as u8)), &config)?;
        cluster.processes[0].s3()?.create_bucket(BUCKET)?;
        let next_body = rng.next_u64();
        Ok(Store { cluster, rng, held: vec![None; key_count], next_body, written_bytes: 0 })
    }

    /// Overwrites or deletes a random key.
    fn step(&mut self) -> Result<()> {
        let at = self.rng.below(self.held.len() as u64) as usize;
        let (gateway, key) = (self.rng.below(3) as usize, format!("{at:03}"));
        let mut s3 = self.cluster.processes[gateway].s3()?;
        if self.rng.below(5) == 0 {
            when_available(|| s3.delete(BUCKET, &key))?.expect(204)?;
            self.held[at] = None;
            return Ok(());
        }
        let bound = *self.rng.choose(&[100 << 10, 1 << 20, 3 << 20]);
        let body = Body { id: self.next_body, len_bytes: (9 << 10) + self.rng.below(bound) as usize };
        when_available(|| s3.put(BUCKET, &key, body.bytes()))?.expect(200)?;
        self.next_body += 1;
        self.written_bytes += body.len_bytes as u64;
        self.held[at] = Some(body);
        Ok(())
    }

    /// What the shards of all that is held need.
    fn live_bytes(&self) -> u64 {
        self.held.iter().flatten().map(|body| shard_bytes(body.len_bytes as u64)).sum()
    }

    fn logs(&self) -> Result<Vec<ShardLog>> {
        let dir = |index: usize| -> PathBuf { self.cluster.dir.path().join(format!("node-{index}")) };
        (0..3).map(|index| ShardLog::read(&dir(index))).collect()
    }

    /// Waits until the logs take no more than 1.1 times the live shards, and no less than these. Spare files are no part of
    /// them, nor is what is allocated behind the end of the file that is written to.
    fn wait_small(&self) -> Result<u64> {
        let (live_bytes, deadline) = (self.live_bytes(), Instant::now() + PATIENCE);
        loop {
            let taken_bytes: u64 = self.logs()?.iter().map(ShardLog::taken_bytes).sum();
            if live_bytes <= taken_bytes && taken_bytes * 10 <= live_bytes * 11 {
                return Ok(taken_bytes);
            }
            let files = || self.logs().map(|logs| logs.into_iter().map(|log| log.files).collect::<Vec<_>>());
            ensure!(
                Instant::now() < deadline,
                "{taken_bytes} bytes for {live_bytes} bytes of live shards: {:#?}",
                files()
            );
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    fn verify(&self) -> Result<()> {
        let mut s3 = self.cluster.processes[2].s3()?;
        for (at, body) in self.held.iter().enumerate() {
            let key = format!("{at:03}");
            match body {
                Some(body) => s3.expect_body(BUCKET, &key, &body.bytes())?,
                None => drop(s3.get(BUCKET, &key)?.expect(404)?),
            }
        }
        Ok(())
    }
}

/// Asks again, as clients do, while a starved machine takes its own nodes for dead.
fn when_available(mut call: impl FnMut() -> Result<Response>) -> Result<Response> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = call()?;
        if answer.status != 503 || Instant::now() > deadline {
            return Ok(answer);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn what_is_dead_gives_its_room_back() -> Result<()> {
    let mut store = Store::start(Rng::for_test("what_is_dead_gives_its_room_back"), 60)?;
    for _ in 0..number("PREDASTORE_TEST_SPACE_STEPS", 200) {
        store.step()?;
    }
    let (live_bytes, written_bytes) = (store.live_bytes(), store.written_bytes);
    let before: u64 = store.logs()?.iter().map(ShardLog::taken_bytes).sum();
    let started = Instant::now();
    let taken_bytes = store.wait_small().with_context(|| store.cluster.troubles())?;
    say(&format!(
        "{written_bytes} bytes written; shards of {live_bytes} bytes are live; the logs took {before} bytes, and after {:?} {taken_bytes}",
        started.elapsed()
    ));
    store.verify()?;
    store.cluster.stop_all()
}

/// Anything dies at any moment of it.
#[test]
fn nothing_live_goes_with_what_is_dead() -> Result<()> {
    let mut rng = Rng::for_test("nothing_live_goes_with_what_is_dead");
    let config = Config::default().set(setting::SWEEP_INTERVAL, "1s").set(setting::SWEEP_GRACE, "1s");
    let mut cluster = Cluster::start(&Shape::boxes(3, 3, (2, 1)), &config.set(setting::REPAIR_GRACE, "2s"))?;
    let workload = Workload::new(&cluster.processes[0], &mut rng)?;
    let seconds = number("PREDASTORE_TEST_SPACE_SECONDS", 12);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let (mut rounds, mut acknowledged) = (0, 0);
    while Instant::now() < deadline {
        let victim = rng.below(4) as usize;
        // Long enough, in the long form, that a log is cleaned now and then: that is once a minute.
        let (before, pause) = (rng.below(100), Duration::from_millis(rng.below(1 + seconds * 1000 / 8)));
        let clients = workload.connect(&cluster.at(&cluster.others(&[victim])))?;
        let tally = workload.drive(clients, &mut rng, |tally| {
            tally.wait_acknowledged(before)?;
            std::thread::sleep(pause);
            match victim {
                3 => cluster.kill_all(),
                victim => cluster.kill(&[victim]),
            }
            Ok(())
        })?;
        cluster.restart_all()?;
        (rounds, acknowledged) = (rounds + 1, acknowledged + tally.acknowledged.load(Ordering::Relaxed));
        let through = &cluster.processes[rng.below(3) as usize];
        workload.verify(&mut through.s3()?).with_context(|| format!("round {rounds}\n{}", cluster.troubles()))?;
    }
    cluster.wait_healthy(Recounts::none())?;
    workload.verify(&mut cluster.processes[0].s3()?)?;
    say(&format!("{rounds} kills while room is given back: {acknowledged} acknowledged, all there"));
    cluster.stop_all()
}
