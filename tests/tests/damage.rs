//! Flipped bits in the logs of shard nodes. On as many nodes as the layout can lose, everything is right all the same, and
//! whole again once the scrub has been by; on more, it is right or an explicit error.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use predastore_tests::cluster::{Cluster, Recounts, Shape};
use predastore_tests::knobs::{number, say};
use predastore_tests::random::{Rng, body};
use predastore_tests::s3::S3;
use predastore_tests::s3d::{Config, setting};
use predastore_tests::shardlog::ShardLog;

const BUCKET: &str = "flips";
/// One stripe, and several; each shard is one run.
const LENGTHS: [usize; 5] = [9_000, 65_537, 200_000, 1 << 20, 2_500_000];
/// Until the scrub of a new leader has been by everything.
const SCRUB_PATIENCE: Duration = Duration::from_secs(120);

/// How the cluster is when bits flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Live,
    Stopped,
    Killed,
    /// Stopped; then the nodes' indexes are removed, so all is read from the damaged logs.
    WithoutIndex,
    /// Stopped; bits flip on one node, and another loses all it has.
    BesideAnEmptyNode,
}

const MODES: [Mode; 4] = [Mode::Live, Mode::WithoutIndex, Mode::Stopped, Mode::Killed];

struct Flips {
    cluster: Cluster,
    rng: Rng,
    objects: Vec<(String, Vec<u8>)>,
}

impl Flips {
    fn start(shape: &Shape, mut rng: Rng, count: u64) -> Result<Flips> {
        // Pass after pass: else nobody looks again at what a pass has just seen whole.
        let cluster = Cluster::start(shape, &Config::default().set(setting::SCRUB_INTERVAL, "1s"))?;
        let mut s3 = cluster.processes[0].s3()?;
        s3.create_bucket(BUCKET)?;
        let object =
            |index: u64| (format!("{index:02}"), body(rng.next_u64(), LENGTHS[index as usize % LENGTHS.len()]));
        let objects: Vec<_> = (0..count).map(object).collect();
        for (key, bytes) in &objects {
            s3.put(BUCKET, key, bytes.clone())?.expect(200)?;
        }
        cluster.wait_healthy(Recounts::none())?;
        Ok(Flips { cluster, rng, objects })
    }

    fn gateway(&mut self) -> Result<S3> {
        self.rng.choose(&self.cluster.processes).s3()
    }

    /// Flips `count` bits in the logs of the nodes of `victims`; everything runs afterwards, as before. The shards that were
    /// hit.
    fn flip(&mut self, victims: &[usize], mode: Mode, count: u64) -> Result<BTreeSet<u64>> {
        match mode {
            Mode::Live => {}
            Mode::Killed => self.cluster.kill_all(),
            Mode::Stopped | Mode::WithoutIndex | Mode::BesideAnEmptyNode => self.cluster.stop_all()?,
        }
        let (emptied, flipped) = victims.split_at(usize::from(mode == Mode::BesideAnEmptyNode));
        emptied.iter().try_for_each(|victim| std::fs::remove_dir_all(self.node_dir(*victim)))?;
        let logs = flipped.iter().map(|victim| ShardLog::read(&self.node_dir(*victim))).collect::<Result<Vec<_>>>()?;
        let mut hit = BTreeSet::new();
        for _ in 0..count {
            hit.extend(self.rng.choose(&logs).clone().flip_any(&mut self.rng)?);
        }
        if mode == Mode::WithoutIndex {
            victims.iter().try_for_each(|victim| self.remove_index(*victim))?;
        }
        self.cluster.restart_all()?;
        Ok(hit)
    }

    /// The directory of the shard node of process `index`.
    fn node_dir(&self, index: usize) -> PathBuf {
        self.cluster.dir.path().join(format!("node-{index}"))
    }

    fn remove_index(&self, index: usize) -> Result<()> {
        let shards = self.node_dir(index).join("shards");
        for suffix in ["", "-wal", "-shm"] {
            match std::fs::remove_file(shards.join(format!("index.db{suffix}"))) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => bail!("the index: {error}"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Everything, and a range of everything, is as it was written.
    fn verify(&mut self, gateways: &[usize]) -> Result<()> {
        for (key, bytes) in &self.objects {
            let gateway = *self.rng.choose(gateways);
            let mut s3 = self.cluster.processes[gateway].s3()?;
            s3.expect_body(BUCKET, key, bytes).with_context(|| format!("{key} through {gateway}"))?;
            let start = self.rng.below(bytes.len() as u64) as usize;
            let get = s3.request("GET", BUCKET, key, "", "").header("Range", format!("bytes={start}-"));
            let tail = s3.call(get)?.expect(206)?;
            ensure!(tail.body == bytes[start..], "{key} from {start} on is not what was written");
        }
        Ok(())
    }

    /// Waits until none of the damaged shards is there any more: others were made instead, for the scrub has found them.
    fn wait_replaced(&self, victims: &[usize], damaged: &BTreeSet<u64>) -> Result<()> {
        let deadline = Instant::now() + SCRUB_PATIENCE;
        loop {
            let logs = victims.iter().map(|victim| ShardLog::read(&self.node_dir(*victim)));
            let logs = logs.collect::<Result<Vec<_>>>()?;
            let is_there = |shard: &&u64| logs.iter().any(|log| log.shards.contains_key(*shard));
            let left: Vec<_> = damaged.iter().filter(is_there).collect();
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "shards that are damaged, and still there: {left:?}");
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Bits flip on two of five nodes, which is what the layout can lose. Nobody notices; and afterwards they have every
    /// shard again.
    fn round(&mut self, mode: Mode, count: u64) -> Result<()> {
        let mut nodes: Vec<usize> = (0..self.cluster.processes.len()).collect();
        let victims: Vec<usize> =
            (0..2).map(|_| nodes.swap_remove(self.rng.below(nodes.len() as u64) as usize)).collect();
        let hit = self.flip(&victims, mode, count)?;
        say(&format!("{count} flips on {victims:?}, {mode:?}: {} shards hit", hit.len()));
        let all = self.cluster.others(&[]);
        self.verify(&all).context("with damage")?;
        self.cluster.wait_healthy(Recounts::none())?;
        self.wait_replaced(&victims, &hit)?;
        nodes.truncate(2);
        self.cluster.kill(&nodes);
        let living = self.cluster.others(&nodes);
        self.verify(&living).with_context(|| format!("after the repair, with {nodes:?} dead"))?;
        self.cluster.restart_all()
    }
}

fn rounds(test: &str, modes: &[Mode]) -> Result<()> {
    let mut flips = Flips::start(&Shape::boxes(5, 5, (3, 2)), Rng::for_test(test), 20)?;
    let total = number("PREDASTORE_TEST_FLIPS", 24);
    let (per_round, first) = (total.min(50), flips.rng.below(4));
    for round in 0..total / per_round {
        let mode = modes[(first + round) as usize % modes.len()];
        let ended = flips.round(mode, per_round);
        ended.with_context(|| format!("round {round}, {mode:?}\n{}", flips.cluster.troubles()))?;
    }
    flips.cluster.stop_all()
}

#[test]
fn flipped_bits_on_as_many_nodes_as_may_be_lost_are_repaired() -> Result<()> {
    rounds("flipped_bits_on_as_many_nodes_as_may_be_lost_are_repaired", &MODES)
}

#[test]
fn flipped_bits_beside_a_node_that_lost_all_are_repaired() -> Result<()> {
    rounds("flipped_bits_beside_a_node_that_lost_all_are_repaired", &[Mode::BesideAnEmptyNode])
}

/// What a GET of the whole gives: the right bytes, or an explicit error. Wrong bytes fail the test.
fn is_readable(s3: &mut S3, key: &str, bytes: &[u8]) -> Result<bool> {
    match s3.get(BUCKET, key) {
        // Cut short: the client has been told a length.
        Err(_) => Ok(false),
        Ok(answer) if answer.status >= 500 => Ok(false),
        Ok(answer) => {
            ensure!(answer.status == 200, "{key}: {} {}", answer.status, answer.text());
            ensure!(answer.body == bytes, "{key}: damaged bytes were served as if they were good");
            Ok(true)
        }
    }
}

impl Flips {
    /// The shards of one chunk: which node has it, and its id.
    fn shards_of(&self, chunk: u64) -> Result<Vec<(usize, u64)>> {
        let mut shards = Vec::new();
        for index in 0..self.cluster.processes.len() {
            let log = ShardLog::read(&self.node_dir(index))?;
            let of_chunk = log.shards.into_iter().filter(|(_, shard)| shard.chunk == chunk);
            shards.extend(of_chunk.map(|(shard, _)| (index, shard)));
        }
        Ok(shards)
    }

    /// Hits so many shards of one chunk, all in the same stripe, while everything runs.
    fn hit(&self, chunk: u64, count: usize) -> Result<()> {
        for (node, shard) in self.shards_of(chunk)?.into_iter().take(count) {
            ShardLog::read(&self.node_dir(node))?.flip_shard(shard)?;
        }
        Ok(())
    }

    /// Writes an object of one stripe, and says which chunk it became.
    fn put_new(&mut self, key: &str, bytes: &[u8]) -> Result<u64> {
        let chunks = |flips: &Flips| -> Result<BTreeSet<u64>> {
            let shards = ShardLog::read(&flips.node_dir(0))?.shards;
            Ok(shards.into_values().map(|shard| shard.chunk).collect())
        };
        let before = chunks(self)?;
        self.gateway()?.put(BUCKET, key, bytes)?.expect(200)?;
        let after = chunks(self)?;
        after.difference(&before).next().copied().context("no new chunk")
    }
}

#[test]
fn flipped_bits_in_more_shards_than_may_be_lost_are_an_error() -> Result<()> {
    let rng = Rng::for_test("flipped_bits_in_more_shards_than_may_be_lost_are_an_error");
    let mut flips = Flips::start(&Shape::boxes(3, 3, (2, 1)), rng, 10)?;
    for (count, readable) in [(1, true), (2, false), (3, false)] {
        let (key, bytes) = (format!("hit-{count}"), body(flips.rng.next_u64(), 100_000));
        let chunk = flips.put_new(&key, &bytes)?;
        flips.hit(chunk, count)?;
        for gateway in 0..3 {
            let mut s3 = flips.cluster.processes[gateway].s3()?;
            ensure!(is_readable(&mut s3, &key, &bytes)? == readable, "{count} of 3 shards of {key} are damaged");
        }
    }
    // Anywhere, on all nodes: what cannot be read any more is written again, and then all is well.
    let mut unreadable = 0;
    for mode in [Mode::Live, Mode::WithoutIndex] {
        flips.flip(&[0, 1, 2], mode, number("PREDASTORE_TEST_FLIPS", 24) / 2)?;
        let mut s3 = flips.gateway()?;
        for (key, bytes) in &flips.objects {
            if !is_readable(&mut s3, key, bytes)? {
                unreadable += 1;
                s3.put(BUCKET, key, bytes.clone())?.expect(200)?;
            }
        }
        flips.verify(&[0, 1, 2])?;
    }
    say(&format!("{unreadable} objects could not be read"));
    flips.cluster.stop_all()
}
