//! Nodes die under load, as many as the layout allows: reads stay bit for bit, writes go on, and boto3 with its default
//! retries sees no error. Once the cluster says that it is healthy, others may die.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use predastore_tests::boto::{BotoLoad, BotoTally};
use predastore_tests::cluster::{Cluster, Recounts, Shape};
use predastore_tests::knobs::{WithLogs, number, say};
use predastore_tests::random::{Rng, body};
use predastore_tests::s3d::Config;
use predastore_tests::workload::{Tally, Workload};

const SETTLED: &str = "settled";
const BOTO: &str = "boto3";
/// Tiny; one stripe, several, several chunks.
const LENGTHS: [usize; 4] = [100, 70_000, 1 << 20, 33 << 20];

/// A cluster under load, and what it must hold.
struct Trial {
    cluster: Cluster,
    workload: Workload,
    rng: Rng,
    settled: Vec<(String, Vec<u8>)>,
    loads: u64,
    boto: BotoTally,
    acknowledged: u64,
    unknown: u64,
}

impl Trial {
    /// A healthy cluster with some objects.
    fn start(shape: &Shape, mut rng: Rng) -> Result<Trial> {
        let cluster = Cluster::start(shape, &Config::default())?;
        let workload = Workload::new(&cluster.processes[0], &mut rng)?.with_writers(3);
        let mut s3 = cluster.processes[0].s3()?;
        s3.create_bucket(SETTLED)?;
        s3.create_bucket(BOTO)?;
        let settled: Vec<_> = LENGTHS.iter().map(|len| (len.to_string(), body(rng.next_u64(), *len))).collect();
        for (key, bytes) in &settled {
            s3.put(SETTLED, key, bytes.clone())?.expect(200)?;
        }
        cluster.wait_healthy(Recounts::none())?;
        Ok(Trial { cluster, workload, rng, settled, loads: 0, boto: BotoTally::default(), acknowledged: 0, unknown: 0 })
    }

    /// `dead` die one after another, under load through the others, which goes on for a while.
    fn lose(&mut self, dead: &[usize]) -> Result<()> {
        let living = self.cluster.others(dead);
        let gateways = self.cluster.at(&living);
        let mut boto = BotoLoad::start(BOTO, &self.loads.to_string(), &gateways[..3.min(living.len())])?;
        let clients = self.workload.connect(&gateways)?;
        let (cluster, before) = (&mut self.cluster, self.rng.below(40));
        let tally = self.workload.drive(clients, &mut self.rng, |tally| {
            boto.wait_calls(20)?;
            tally.wait_acknowledged(before)?;
            for index in dead {
                cluster.kill(&[*index]);
                tally.wait_acknowledged(tally.acknowledged.load(Ordering::Relaxed) + 5)?;
            }
            boto.wait_calls(60)?;
            tally.wait_acknowledged(tally.acknowledged.load(Ordering::Relaxed) + 40)
        })?;
        let boto = boto.finish()?;
        self.note(dead, &tally, boto);
        Ok(())
    }

    fn note(&mut self, dead: &[usize], tally: &Tally, boto: BotoTally) {
        let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        say(&format!("{dead:?} dead: {tally:?}, {boto:?}"));
        self.loads += 1;
        self.acknowledged += count(&tally.acknowledged);
        self.unknown += count(&tally.unknown);
        self.boto.calls += boto.calls;
        self.boto.retries += boto.retries;
        self.boto.slowest_ms = self.boto.slowest_ms.max(boto.slowest_ms);
    }

    /// All that was ever written is as it should be, through a gateway that lives.
    fn verify(&mut self, dead: &[usize]) -> Result<()> {
        let living = self.cluster.others(dead);
        let mut s3 = self.cluster.processes[*self.rng.choose(&living)].s3()?;
        for (key, bytes) in &self.settled {
            s3.expect_body(SETTLED, key, bytes)?;
        }
        self.workload.verify(&mut s3)?;
        Ok(())
    }

    /// Starts what is dead and waits until all is whole.
    fn heal(&mut self) -> Result<()> {
        let before = self.cluster.recounts()?;
        self.cluster.restart_all()?;
        self.cluster.wait_healthy(before)
    }

    /// `dead` die under load and come back; then `others` may die.
    fn round(&mut self, dead: &[usize], others: &[usize]) -> Result<()> {
        self.lose(dead).context("under load")?;
        self.verify(dead).context("while they are dead")?;
        self.end(dead, others)
    }

    /// `dead` come back; then `others` may die.
    fn end(&mut self, dead: &[usize], others: &[usize]) -> Result<()> {
        self.heal().with_context(|| format!("when {dead:?} are back"))?;
        self.cluster.kill(others);
        self.verify(others).with_context(|| format!("with {others:?} dead, after all was whole"))?;
        // They have missed nothing.
        self.cluster.restart_all()?;
        self.cluster.wait_whole().with_context(|| format!("when {others:?} are back"))
    }

    fn rounds(&mut self, deaths: &[(Vec<usize>, Vec<usize>)], test: &str) -> Result<()> {
        for (round, (dead, others)) in deaths.iter().enumerate() {
            let ended = self.round(dead, others);
            ended.with_context(|| format!("round {round}, {dead:?} dead")).with_logs(|| self.cluster.log_tails())?;
        }
        let Trial { acknowledged, unknown, boto, .. } = self;
        say(&format!(
            "{test}: {} rounds; {acknowledged} writes acknowledged, {unknown} refused or unknown; {boto:?}",
            deaths.len()
        ));
        Ok(())
    }
}

/// Every two of the shard nodes with every db node, in any order, but each db node in turn: and two other shard nodes.
/// Processes 0 to 2 are db nodes, 3 to 7 shard nodes.
fn deaths(rng: &mut Rng) -> Vec<(Vec<usize>, Vec<usize>)> {
    let pairs: Vec<[usize; 2]> = (3..8).flat_map(|one| (one + 1..8).map(move |other| [one, other])).collect();
    let mut deaths = Vec::new();
    for db in 0..3 {
        let mut left = pairs.clone();
        while !left.is_empty() {
            let pair = left.swap_remove(rng.below(left.len() as u64) as usize);
            let mut others: Vec<usize> = (3..8).filter(|node| !pair.contains(node)).collect();
            others.swap_remove(rng.below(3) as usize);
            let at = rng.below(3) as usize;
            let mut dead = pair.to_vec();
            dead.insert(at, db);
            deaths.push((left.len(), db, dead, others));
        }
    }
    deaths.sort();
    deaths.into_iter().map(|(_, _, dead, others)| (dead, others)).collect()
}

fn rounds() -> usize {
    number("PREDASTORE_TEST_LOSS_ROUNDS", 2) as usize
}

#[test]
fn any_two_of_five_shard_nodes_and_a_db_node() -> Result<()> {
    let test = "any_two_of_five_shard_nodes_and_a_db_node";
    let mut rng = Rng::for_test(test);
    let mut deaths = deaths(&mut rng);
    let different: BTreeSet<_> = deaths.iter().map(|(dead, _)| dead.iter().collect::<BTreeSet<_>>()).collect();
    ensure!(different.len() == 30, "{} combinations", different.len());
    deaths.truncate(rounds());
    let mut trial = Trial::start(&Shape::apart(3, 5, (3, 2)), rng)?;
    trial.rounds(&deaths, test)?;
    trial.cluster.stop_all()
}

/// Boxes that come back as they were, and boxes that come back with an empty shard node: what one has lost must be whole
/// before the next one dies.
#[test]
fn any_of_three_boxes() -> Result<()> {
    let test = "any_of_three_boxes";
    let mut trial = Trial::start(&Shape::boxes(3, 3, (2, 1)), Rng::for_test(test))?;
    let first = trial.rng.below(3) as usize;
    let deaths: Vec<_> = (first..).map(|dead| (vec![dead % 3], vec![(dead + 1) % 3])).take(rounds() / 2).collect();
    trial.rounds(&deaths, test)?;
    for (emptied, others) in &deaths {
        trial.lose(emptied).context("under load")?;
        for node in emptied {
            std::fs::remove_dir_all(trial.cluster.dir.path().join(format!("node-{node}")))?;
        }
        trial.end(emptied, others).with_logs(|| trial.cluster.log_tails())?;
    }
    trial.cluster.stop_all()
}

/// It is back, with an empty disk, before anybody has asked for it.
#[test]
fn a_node_emptied_in_a_moment_is_noticed() -> Result<()> {
    // Process 0 is the db node, 1 to 3 are shard nodes 0 to 2.
    let mut trial = Trial::start(&Shape::apart(1, 3, (2, 1)), Rng::for_test("a_node_emptied_in_a_moment_is_noticed"))?;
    for victim in 1..4 {
        let before = trial.cluster.recounts()?;
        trial.cluster.kill(&[victim]);
        std::fs::remove_dir_all(trial.cluster.dir.path().join(format!("node-{}", victim - 1)))?;
        trial.cluster.restart_all()?;
        trial.cluster.wait_healthy(before).with_context(|| format!("after {victim} was emptied"))?;
        let other = victim % 3 + 1;
        trial.cluster.kill(&[other]);
        trial.verify(&[other]).with_context(|| format!("{other} dead after {victim} was emptied"))?;
        trial.cluster.restart_all()?;
        trial.cluster.wait_whole()?;
    }
    trial.cluster.stop_all()
}
