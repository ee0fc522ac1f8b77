//! Every process is restarted, one after another, under load. Nobody at another gateway notices; boto3 at the one that is
//! restarted sees no error with its default retries. A binary of a higher feature level is not part of this: there is none.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use predastore_tests::boto::BotoLoad;
use predastore_tests::cluster::{Cluster, Recounts, Shape};
use predastore_tests::knobs::{number, say};
use predastore_tests::random::Rng;
use predastore_tests::s3d::Config;
use predastore_tests::workload::{Tally, Workload};

const BOTO: &str = "boto3";

/// What is under load, and what has happened so far.
struct Rolling {
    cluster: Cluster,
    workload: Workload,
    rng: Rng,
    handed_over: u64,
}

impl Rolling {
    fn start(shape: &Shape, mut rng: Rng) -> Result<Rolling> {
        let cluster = Cluster::start(shape, &Config::default())?;
        let workload = Workload::new(&cluster.processes[0], &mut rng)?.with_writers(3);
        cluster.processes[0].s3()?.create_bucket(BOTO)?;
        cluster.wait_healthy(Recounts::none())?;
        Ok(Rolling { cluster, workload, rng, handed_over: 0 })
    }

    /// Restarts one process while clients work through it and through others.
    fn restart(&mut self, index: usize, prefix: &str) -> Result<()> {
        let others = self.cluster.at(&self.cluster.others(&[index]));
        let mut beside = BotoLoad::start(BOTO, &format!("{prefix}/beside"), &others[..2])?;
        let mut at_it = BotoLoad::start(BOTO, &format!("{prefix}/at it"), &self.cluster.at(&[index]))?;
        let clients = self.workload.connect(&others)?;
        let (cluster, handed_over) = (&mut self.cluster, &mut self.handed_over);
        let mut stall = Duration::ZERO;
        let tally = self.workload.drive(clients, &mut self.rng, |tally| {
            go_on(tally, &mut [&mut beside, &mut at_it])?;
            let leads = cluster.leader()? == index;
            stall = longest_stall(tally, || cluster.processes[index].stop())?;
            if leads {
                expect_handed_over(cluster, index)?;
                *handed_over += 1;
            }
            cluster.processes[index].restart()?;
            go_on(tally, &mut [&mut beside, &mut at_it])
        })?;
        let beside = beside.finish().context("at gateways that were not restarted")?;
        let at_it = at_it.finish().context("at the gateway that was restarted")?;
        say(&format!("{index} restarted: {tally:?}, no write for {stall:?}; beside {beside:?}; at it {at_it:?}"));
        let failed = tally.unknown.load(Ordering::Relaxed);
        ensure!(failed + beside.retries == 0, "{failed} writes failed at gateways that were not restarted");
        self.cluster.wait_whole()
    }
}

/// Waits until everybody has made some more calls.
fn go_on(tally: &Tally, loads: &mut [&mut BotoLoad]) -> Result<()> {
    loads.iter_mut().try_for_each(|load| load.wait_calls(8))?;
    tally.wait_acknowledged(tally.acknowledged.load(Ordering::Relaxed) + 20)
}

/// How long no write was acknowledged, at most, while `work` was done.
fn longest_stall(tally: &Tally, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut longest, mut seen, mut since) = (Duration::ZERO, 0, Instant::now());
            while !done.load(Ordering::Relaxed) {
                let now = tally.acknowledged.load(Ordering::Relaxed);
                if now != seen {
                    (seen, since) = (now, Instant::now());
                }
                longest = longest.max(since.elapsed());
                std::thread::sleep(Duration::from_millis(2));
            }
            longest
        });
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let longest = watch.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?;
        worked.map(|()| longest)
    })
}

/// The process has ended, and somebody else leads already: nobody had to find out, and elect.
fn expect_handed_over(cluster: &Cluster, index: usize) -> Result<()> {
    let leader = cluster.leads_now();
    ensure!(leader.is_some(), "{index} led, has ended, and nobody leads");
    let log = cluster.processes[index].log_text();
    ensure!(!log.contains("did not take the lead over"), "{}", cluster.processes[index].log_tail());
    Ok(())
}

#[test]
fn a_rolling_restart_fails_no_call() -> Result<()> {
    let mut rng = Rng::for_test("a_rolling_restart_fails_no_call");
    let rounds = number("PREDASTORE_TEST_ROLLING_ROUNDS", 1);
    let shapes = [Shape::boxes(3, 3, (2, 1)), Shape::apart(3, 5, (3, 2))];
    for (shape, rounds) in shapes.iter().zip([rounds.div_ceil(2), rounds / 2]) {
        if rounds == 0 {
            continue;
        }
        let mut rolling = Rolling::start(shape, Rng::new(rng.next_u64()))?;
        for round in 0..rounds {
            for index in 0..rolling.cluster.processes.len() {
                let restarted = rolling.restart(index, &format!("{round}/{index}"));
                restarted.with_context(|| format!("process {index}\n{}", rolling.cluster.troubles()))?;
            }
            ensure!(rolling.handed_over > round, "no leader was restarted in round {round}");
            let last = rolling.cluster.processes.last().context("no process")?;
            rolling.workload.verify(&mut last.s3()?)?;
        }
        rolling.cluster.stop_all()?;
    }
    Ok(())
}
