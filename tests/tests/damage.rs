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
use predastore_tests::s3d::Config;
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

const MODES: [Mode; 5] = [Mode::Live, Mode::WithoutIndex, Mode::BesideAnEmptyNode, Mode::Stopped, Mode::Killed];

struct Flips {
    cluster: Cluster,
    rng: Rng,
    objects: Vec<(String, Vec<u8>)>,
}

impl Flips {
    fn start(shape: &Shape, mut rng: Rng, count: u64) -> Result<Flips> {
        let cluster = Cluster::start(shape, &Config::default())?;
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
        let t = Instant::now();
        let hit = self.flip(&victims, mode, count)?;
        say(&format!("{:?}", t.elapsed()));
        say(&format!("{count} flips on {victims:?}, {mode:?}: {} shards hit", hit.len()));
        let all = self.cluster.others(&[]);
        self.verify(&all).context("with damage")?;
        say(&format!("read {:?}", t.elapsed()));
        if mode == Mode::Live {
            // A new leader begins with a recount and a scrub.
            self.cluster.stop_all()?;
            self.cluster.restart_all()?;
        }
        say(&format!("leader {:?}", t.elapsed()));
        self.cluster.wait_healthy(Recounts::none())?;
        say(&format!("healthy {:?}", t.elapsed()));
        self.wait_replaced(&victims, &hit)?;
        say(&format!("replaced {:?}", t.elapsed()));
        nodes.truncate(2);
        self.cluster.kill(&nodes);
        let living = self.cluster.others(&nodes);
        self.verify(&living).with_context(|| format!("after the repair, with {nodes:?} dead"))?;
        self.cluster.restart_all()
    }
}

#[test]
fn flipped_bits_on_as_many_nodes_as_may_be_lost_are_repaired() -> Result<()> {
    let test = "flipped_bits_on_as_many_nodes_as_may_be_lost_are_repaired";
    let mut flips = Flips::start(&Shape::boxes(5, 5, (3, 2)), Rng::for_test(test), 20)?;
    let total = number("PREDASTORE_TEST_FLIPS", 24);
    let per_round = total.div_ceil(2).min(50);
    for round in 0..total / per_round {
        let mode = MODES[round as usize % MODES.len()];
        let ended = flips.round(mode, per_round);
        ended.with_context(|| format!("round {round}, {mode:?}\n{}", flips.cluster.log_tails()))?;
    }
    flips.cluster.stop_all()
}
