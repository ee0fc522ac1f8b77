//! Every process is restarted, one after another, under load. Nobody at another gateway notices; boto3 at the one that is
//! restarted sees no error with its default retries. The same with a program of a higher feature level: one process after
//! another, back again while one is left, and not any more once the level is raised.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use predastore_tests::boto::BotoLoad;
use predastore_tests::cluster::{Cluster, Recounts, Shape};
use predastore_tests::knobs::{number, say};
use predastore_tests::random::Rng;
use predastore_tests::s3d::{Config, PATIENCE, S3d, setting};
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

    /// Starts one process as a program that does not know the cluster's level, while clients work through others.
    fn expect_refused(&mut self, index: usize, known: u64) -> Result<()> {
        self.cluster.processes[index].stop()?;
        pass_off(&mut self.cluster.processes[index], known);
        let clients = self.workload.connect(&self.cluster.at(&self.cluster.others(&[index])))?;
        let process = &mut self.cluster.processes[index];
        let tally = self.workload.drive(clients, &mut self.rng, |tally| {
            process.spawn()?;
            let status = process.wait_exit(PATIENCE)?;
            let reason =
                format!("the catalog is at feature level {}, and this s3d knows levels up to {known}", known + 1);
            ensure!(!status.success() && process.log_text().contains(&reason), "{status}\n{}", process.log_tail());
            tally.wait_acknowledged(tally.acknowledged.load(Ordering::Relaxed) + 50)
        })?;
        ensure!(tally.unknown.load(Ordering::Relaxed) == 0, "writes failed while it did not start: {tally:?}");
        Ok(())
    }

    /// Restarts processes one after another while clients work through them and through others. A step: which one, and the
    /// feature level it has from then on; none: the one it had.
    fn restart(&mut self, steps: &[(usize, Option<u64>)], prefix: &str) -> Result<()> {
        let restarted: BTreeSet<usize> = steps.iter().map(|(index, _)| *index).collect();
        let others = self.cluster.others(&restarted.iter().copied().collect::<Vec<_>>());
        let others = self.cluster.at(&others);
        let mut loads = vec![BotoLoad::start(BOTO, &format!("{prefix}/beside"), &others[..others.len().min(2)])?];
        for index in &restarted {
            loads.push(BotoLoad::start(BOTO, &format!("{prefix}/at {index}"), &self.cluster.at(&[*index]))?);
        }
        let clients = self.workload.connect(&others)?;
        let (cluster, handed_over) = (&mut self.cluster, &mut self.handed_over);
        let tally = self.workload.drive(clients, &mut self.rng, |tally| {
            steps.iter().try_for_each(|(index, level)| {
                let step = restart_one(cluster, *index, *level, (tally, &mut loads));
                *handed_over += u64::from(step.with_context(|| format!("process {index}"))?);
                Ok(())
            })
        })?;
        let at_them = loads.split_off(1).into_iter().map(BotoLoad::finish).collect::<Result<Vec<_>>>();
        let beside = loads.remove(0).finish().context("at gateways that were not restarted")?;
        let at_them = at_them.context("at the gateways that were restarted")?;
        say(&format!("{steps:?} restarted: {tally:?}; beside {beside:?}; at them {at_them:?}"));
        let failed = tally.unknown.load(Ordering::Relaxed);
        ensure!(failed + beside.retries == 0, "{failed} writes failed at gateways that were not restarted");
        self.cluster.wait_whole()
    }
}

/// Restarts one process under load; whether it led.
fn restart_one(
    cluster: &mut Cluster,
    index: usize,
    level: Option<u64>,
    (tally, loads): (&Tally, &mut [BotoLoad]),
) -> Result<bool> {
    go_on(tally, loads)?;
    let leads = cluster.leader()? == index;
    let stall = longest_stall(tally, || cluster.processes[index].stop())?;
    say(&format!("{index} stopped, no write for {stall:?}"));
    if leads {
        expect_handed_over(cluster, index)?;
    }
    if let Some(level) = level {
        pass_off(&mut cluster.processes[index], level);
    }
    cluster.processes[index].restart()?;
    go_on(tally, loads)?;
    cluster.wait_whole()?;
    Ok(leads)
}

/// Gives a process another feature level, from its next start on.
fn pass_off(process: &mut S3d, level: u64) {
    process.config.settings.insert(setting::FEATURE_LEVEL.to_owned(), level.to_string());
}

/// Waits until everybody has made some more calls.
fn go_on(tally: &Tally, loads: &mut [BotoLoad]) -> Result<()> {
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

/// Whether this `s3d` may be passed off as one of another feature level: then one that knows none makes no store.
fn may_be_passed_off() -> Result<bool> {
    let mut s3d = S3d::stopped(Config::default().set(setting::FEATURE_LEVEL, 0))?;
    let Err(error) = s3d.restart() else { return Ok(false) };
    let reason = format!("{error:#}");
    ensure!(reason.contains("knows levels up to 0: a newer s3d is needed"), "{reason}");
    Ok(true)
}

#[test]
fn a_newer_program_comes_process_by_process_and_goes_back_until_all_have_it() -> Result<()> {
    let mut rng = Rng::for_test("a_newer_program_comes_process_by_process_and_goes_back_until_all_have_it");
    if !may_be_passed_off()? {
        say("\n*** SKIPPED: a release build of s3d is of one feature level ***\n");
        return Ok(());
    }
    let mut rolling = Rolling::start(&Shape::boxes(3, 3, (2, 1)), Rng::new(rng.next_u64()))?;
    // A new catalog has the first level until its leader has raised it.
    rolling.cluster.wait_status(PATIENCE, |status| status["feature_level"].as_u64() > Some(1))?;
    let old = rolling.cluster.feature_level()?;
    let new = old + 1;
    let last = rng.below(3) as usize;
    let first = rolling.cluster.others(&[last]);
    let (one, other) = (first[0], first[1]);
    let steps = [(one, new), (other, new), (one, old), (one, new)].map(|(index, level)| (index, Some(level)));
    let replaced = rolling.restart(&steps, "there and back");
    replaced.with_context(|| rolling.cluster.troubles())?;
    let reached = rolling.cluster.feature_level()?;
    ensure!(reached == old, "the level is {reached}, and process {last} knows {old}");
    let replaced = rolling.restart(&[(last, Some(new))], "the last");
    replaced.with_context(|| rolling.cluster.troubles())?;
    rolling.cluster.wait_status(PATIENCE, |status| status["feature_level"] == new)?;
    rolling.expect_refused(last, old)?;
    pass_off(&mut rolling.cluster.processes[last], new);
    rolling.cluster.processes[last].restart()?;
    rolling.cluster.wait_whole()?;
    rolling.workload.verify(&mut rolling.cluster.processes[last].s3()?)?;
    rolling.cluster.stop_all()
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
                let restarted = rolling.restart(&[(index, None)], &format!("{round}/{index}"));
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
