//! The power goes in the whole cluster at once, under load: every data directory lies on a file system that is cut off. What
//! was acknowledged is there afterwards, and nothing is half there.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use predastore_tests::cluster::{Cluster, Shape};
use predastore_tests::disk::{FileSystem, LoopMount};
use predastore_tests::knobs::{Need, WithLogs, can_run, number, say};
use predastore_tests::random::Rng;
use predastore_tests::s3d::Config;
use predastore_tests::workload::Workload;

/// How long a process may go on that has nothing to write on its dead disk.
const DYING: Duration = Duration::from_secs(20);

/// Cuts off all file systems at about the same time.
fn shutdown_all(disks: &[LoopMount]) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = disks.iter().map(|disk| scope.spawn(|| disk.shutdown())).collect();
        let mut joined = threads.into_iter().map(|thread| thread.join());
        joined.try_for_each(|ended| ended.map_err(|_| anyhow::anyhow!("a shutdown panicked"))?)
    })
}

/// Waits for the end of the processes, each of which fails at its next sync, and kills what has none to do. None may end as
/// if all were well.
fn bury(cluster: &mut Cluster) -> Result<()> {
    let deadline = Instant::now() + DYING;
    let mut ended = 0;
    for process in &mut cluster.processes {
        while Instant::now() < deadline {
            if let Some(status) = process.try_exit()? {
                ensure!(!status.success(), "it ended as if nothing had happened\n{}", process.log_tail());
                ended += 1;
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    cluster.kill_all();
    ensure!(ended > 0, "no process noticed that its disk had gone\n{}", cluster.log_tails());
    Ok(())
}

fn power_cuts(kind: FileSystem, rounds: u64) -> Result<()> {
    let test = format!("power cuts of a cluster on {kind:?}");
    let mut rng = Rng::for_test(&test);
    let disks = (0..3).map(|_| LoopMount::new(kind, 2048)).collect::<Result<Vec<_>>>()?;
    let homes: Vec<PathBuf> = disks.iter().map(|disk| disk.path().to_owned()).collect();
    let mut cluster = Cluster::start_in(&Shape::boxes(3, 3, (2, 1)), &Config::default(), &homes)?;
    let workload = Workload::new(&cluster.processes[0], &mut rng)?;
    let (mut acknowledged, mut verified) = (0, 0);
    for round in 0..rounds {
        let limit = *rng.choose(&[5, 50, 300]);
        let before = rng.below(limit);
        let clients = workload.connect(&cluster.at(&[0, 1, 2]))?;
        let tally = workload.drive(clients, &mut rng, |tally| {
            tally.wait_acknowledged(before)?;
            shutdown_all(&disks)?;
            bury(&mut cluster)
        })?;
        acknowledged += tally.acknowledged.load(Ordering::Relaxed);
        disks.iter().try_for_each(LoopMount::remount)?;
        cluster.restart_all().with_context(|| format!("round {round}"))?;
        let through = rng.below(3) as usize;
        let found = workload.verify(&mut cluster.processes[through].s3()?);
        verified += found.with_context(|| format!("round {round}")).with_logs(|| cluster.log_tails())?;
    }
    say(&format!("{test}: {rounds} cuts, {acknowledged} acknowledged, {verified} objects and versions verified"));
    ensure!(acknowledged > 0, "nothing was acknowledged: it tests nothing");
    cluster.stop_all()
}

/// Half of the cuts each.
fn rounds() -> u64 {
    number("PREDASTORE_TEST_CLUSTER_SHUTDOWNS", 4).div_ceil(2)
}

#[test]
fn a_cluster_on_xfs_loses_its_power() -> Result<()> {
    match can_run("a_cluster_on_xfs", &[Need::LoopMount, Need::Program("xfs_io"), Need::Program("mkfs.xfs")]) {
        true => power_cuts(FileSystem::Xfs, rounds()),
        false => Ok(()),
    }
}

#[test]
fn a_cluster_on_ext4_loses_its_power() -> Result<()> {
    match can_run("a_cluster_on_ext4", &[Need::LoopMount, Need::Program("xfs_io"), Need::Program("mkfs.ext4")]) {
        true => power_cuts(FileSystem::Ext4, rounds()),
        false => Ok(()),
    }
}
