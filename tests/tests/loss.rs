//! Nodes die under load, as many as the layout allows: reads stay bit for bit, writes go on, and boto3 with its default
//! retries sees no error. Once the cluster says that it is healthy, others may die.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use predastore_tests::boto::{BotoLoad, BotoTally};
use predastore_tests::cluster::{Cluster, Recounts, Shape};
use predastore_tests::knobs::{number, say};
use predastore_tests::random::{Rng, body};
use predastore_tests::s3d::Config;
use predastore_tests::workload::{Tally, Workload};

const SETTLED: &str = "settled";
const BOTO: &str = "boto3";
/// One stripe, several, several chunks: and a tiny one.
const LENGTHS: [usize; 5] = [100, 70_000, 1 << 20, 5_000_001, 40 << 20];

/// A cluster under load, and what it must hold.
struct Trial {
    cluster: Cluster,
    workload: Workload,
    rng: Rng,
    settled: Vec<(String, Vec<u8>)>,
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
        Ok(Trial { cluster, workload, rng, settled, boto: BotoTally::default(), acknowledged: 0, unknown: 0 })
    }

    /// `dead` die one after another, under load through the others, which goes on for a while.
    fn lose(&mut self, round: u64, dead: &[usize]) -> Result<()> {
        let living = self.cluster.others(dead);
        let gateways = self.cluster.at(&living);
        let mut boto = BotoLoad::start(BOTO, &round.to_string(), &gateways[..3.min(living.len())])?;
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
        self.note(round, dead, &tally, boto);
        Ok(())
    }

    fn note(&mut self, round: u64, dead: &[usize], tally: &Tally, boto: BotoTally) {
        let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        say(&format!("round {round}, {dead:?} dead: {tally:?}, {boto:?}"));
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
    fn round(&mut self, round: u64, dead: &[usize], others: &[usize]) -> Result<()> {
        self.lose(round, dead).context("under load")?;
        self.verify(dead).context("while they are dead")?;
        self.heal().context("when they are back")?;
        self.cluster.kill(others);
        self.verify(others).with_context(|| format!("with {others:?} dead, after all was whole"))?;
        self.heal().with_context(|| format!("when {others:?} are back"))
    }

    fn rounds(&mut self, deaths: &[(Vec<usize>, Vec<usize>)], test: &str) -> Result<()> {
        for (round, (dead, others)) in (0..).zip(deaths) {
            let ended = self.round(round, dead, others);
            ended.with_context(|| format!("round {round}, {dead:?} dead\n{}", self.cluster.log_tails()))?;
        }
        let Trial { acknowledged, unknown, boto, .. } = self;
        say(&format!(
            "{test}: {} rounds; {acknowledged} writes acknowledged, {unknown} refused or unknown; {boto:?}",
            deaths.len()
        ));
        self.cluster.stop_all()
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

#[test]
fn any_two_of_five_shard_nodes_and_a_db_node() -> Result<()> {
    let test = "any_two_of_five_shard_nodes_and_a_db_node";
    let mut rng = Rng::for_test(test);
    let mut deaths = deaths(&mut rng);
    let different: BTreeSet<_> = deaths.iter().map(|(dead, _)| dead.iter().collect::<BTreeSet<_>>()).collect();
    ensure!(different.len() == 30, "{} combinations", different.len());
    deaths.truncate(number("PREDASTORE_TEST_LOSS_ROUNDS", 2) as usize);
    Trial::start(&Shape::apart(3, 5, (3, 2)), rng)?.rounds(&deaths, test)
}
