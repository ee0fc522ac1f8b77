//! Several processes with one `cluster.toml`: one store, whichever of them is asked, while some of them die.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use predastore_tests::cluster::{Cluster, Recounts, Shape};
use predastore_tests::knobs::{WithLogs, number, say};
use predastore_tests::random::{Rng, body};
use predastore_tests::s3::S3;
use predastore_tests::s3d::{Config, S3d, setting};
use predastore_tests::workload::Workload;

const BUCKET: &str = "cluster";
/// In the catalog; one stripe; many; several chunks.
const LENGTHS: [usize; 5] = [100, 9_000, 1 << 20, 5_000_001, 40 << 20];

fn name(len: usize, round: usize) -> String {
    format!("{round}/{len}")
}

/// Writes a body of each length, each through the next gateway of `through`.
fn write(cluster: &Cluster, through: &[usize], round: usize, rng: &mut Rng) -> Result<Vec<(String, Vec<u8>)>> {
    let mut written = Vec::new();
    for (turn, len) in LENGTHS.into_iter().enumerate() {
        let index = through[turn % through.len()];
        let (key, bytes) = (name(len, round), body(rng.next_u64(), len));
        let mut s3 = cluster.processes[index].s3()?;
        let answer = s3.put(BUCKET, &key, bytes.clone())?.expect(200);
        answer.with_context(|| format!("PUT of {key} through {index}")).with_logs(|| cluster.log_tails())?;
        written.push((key, bytes));
    }
    Ok(written)
}

/// Everything is bit for bit what was written, through each of `through`.
fn verify(cluster: &Cluster, through: &[usize], written: &[(String, Vec<u8>)]) -> Result<()> {
    for index in through {
        let mut s3 = cluster.processes[*index].s3()?;
        for (key, bytes) in written {
            let read = s3.expect_body(BUCKET, key, bytes);
            read.with_context(|| format!("{key} through {index}")).with_logs(|| cluster.log_tails())?;
        }
        expect_listed(&mut s3, written)?;
    }
    Ok(())
}

fn expect_listed(s3: &mut S3, written: &[(String, Vec<u8>)]) -> Result<()> {
    let mut expected: Vec<_> = written.iter().map(|(key, bytes)| (key.clone(), bytes.len() as u64)).collect();
    expected.sort();
    let listed: Vec<_> = s3.list(BUCKET)?.into_iter().map(|row| (row.key, row.size)).collect();
    ensure!(listed == expected, "listed {listed:?}, expected {expected:?}");
    Ok(())
}

/// One after another of `deaths` dies; reads stay exact and writes go on through the others; it comes back.
fn survives(shape: Shape, deaths: &[&[usize]], test: &str) -> Result<()> {
    let mut rng = Rng::for_test(test);
    let mut cluster = Cluster::start(&shape, &Config::default())?;
    cluster.processes[0].s3()?.create_bucket(BUCKET)?;
    let all = cluster.others(&[]);
    let mut written = write(&cluster, &all, 0, &mut rng)?;
    verify(&cluster, &all, &written)?;
    for (round, dead) in deaths.iter().enumerate() {
        cluster.kill(dead);
        let living = cluster.others(dead);
        verify(&cluster, &living, &written).with_context(|| format!("reads with {dead:?} dead"))?;
        written.extend(write(&cluster, &living, round + 1, &mut rng).with_context(|| format!("with {dead:?} dead"))?);
        verify(&cluster, &living, &written).with_context(|| format!("what was written with {dead:?} dead"))?;
        cluster.restart_all()?;
        verify(&cluster, &all, &written).with_context(|| format!("after {dead:?} came back"))?;
    }
    cluster.kill_all();
    cluster.restart_all()?;
    verify(&cluster, &all, &written).context("after all were killed")?;
    cluster.stop_all()
}

#[test]
fn three_boxes_survive_any_one() -> Result<()> {
    survives(Shape::boxes(3, 3, (2, 1)), &[&[0], &[1], &[2]], "three_boxes_survive_any_one")
}

#[test]
fn five_shard_nodes_survive_any_two_and_a_db_node() -> Result<()> {
    // Processes 0 to 2 are db nodes, 3 to 7 shard nodes.
    let deaths: [&[usize]; 3] = [&[3, 4, 0], &[5, 7, 1], &[4, 6, 2]];
    survives(Shape::apart(3, 5, (3, 2)), &deaths, "five_shard_nodes_survive_any_two_and_a_db_node")
}

#[test]
fn all_roles_in_one_process() -> Result<()> {
    let mut rng = Rng::for_test("all_roles_in_one_process");
    let mut cluster = Cluster::start_as_one(&Shape::boxes(3, 3, (2, 1)), &Config::default())?;
    cluster.processes[0].s3()?.create_bucket(BUCKET)?;
    let written = write(&cluster, &[0], 0, &mut rng)?;
    cluster.kill_all();
    cluster.restart_all()?;
    verify(&cluster, &[0], &written)?;
    cluster.stop_all()
}

/// What was written while nodes were dead, and what a replaced node lost, is made whole: then others may die.
#[test]
fn what_is_below_target_is_repaired() -> Result<()> {
    let mut rng = Rng::for_test("what_is_below_target_is_repaired");
    // Processes 0 to 2 are db nodes, 3 to 7 shard nodes 0 to 4.
    let mut cluster = Cluster::start(&Shape::apart(3, 5, (3, 2)), &Config::default())?;
    cluster.processes[0].s3()?.create_bucket(BUCKET)?;
    let all = cluster.others(&[]);
    let mut written = write(&cluster, &all, 0, &mut rng)?;
    cluster.kill(&[3, 4]);
    written.extend(write(&cluster, &cluster.others(&[3, 4]), 1, &mut rng)?);
    // One comes back as it was, the other with an empty disk.
    std::fs::remove_dir_all(cluster.dir.path().join("node-1"))?;
    let before = cluster.recounts()?;
    cluster.restart_all()?;
    cluster.wait_healthy(before)?;
    cluster.kill(&[5, 6]);
    verify(&cluster, &cluster.others(&[5, 6]), &written).context("with two others dead after the repair")?;
    cluster.restart_all()?;
    cluster.stop_all()
}

/// A node that never comes back: what it held is made anew on a spare one, so another may die.
#[test]
fn a_node_that_is_gone_for_good_is_replaced_by_a_spare() -> Result<()> {
    let mut rng = Rng::for_test("a_node_that_is_gone_for_good_is_replaced_by_a_spare");
    // Processes 0 to 2 are db nodes, 3 to 6 shard nodes 0 to 3.
    let config = Config::default().set(setting::REPAIR_GRACE, "2s");
    let mut cluster = Cluster::start(&Shape::apart(3, 4, (2, 1)), &config)?;
    cluster.processes[0].s3()?.create_bucket(BUCKET)?;
    let written = write(&cluster, &[0, 1, 2], 0, &mut rng)?;
    cluster.wait_healthy(Recounts::none())?;
    let before = cluster.recounts()?;
    cluster.processes[3].kill();
    cluster.wait_healthy(before)?;
    cluster.processes[4].kill();
    verify(&cluster, &[0, 1, 2, 5], &written).context("with another dead after the repair")
}

/// A chunk that was written narrow, as nodes were dead, gets a lost shard back though it cannot be widened yet; and is widened
/// when it can be.
#[test]
fn a_narrow_chunk_gets_its_shards_back() -> Result<()> {
    let mut rng = Rng::for_test("a_narrow_chunk_gets_its_shards_back");
    // Processes 0 to 2 are db nodes, 3 to 7 shard nodes 0 to 4.
    let mut cluster = Cluster::start(&Shape::apart(3, 5, (3, 2)), &Config::default())?;
    cluster.processes[0].s3()?.create_bucket(BUCKET)?;
    cluster.kill(&[6, 7]);
    let written = write(&cluster, &[0, 1, 2, 4], 0, &mut rng)?;
    // Node 0 loses its disk. Once it is filled again, it alone is enough: the layout is (1,2).
    cluster.kill(&[3]);
    std::fs::remove_dir_all(cluster.dir.path().join("node-0"))?;
    cluster.processes[3].restart()?;
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        cluster.kill(&[4, 5]);
        let read = verify(&cluster, &[0, 1, 2], &written);
        if read.is_ok() {
            break;
        }
        ensure!(Instant::now() < deadline, "{read:?}");
        cluster.processes[4].restart()?;
        cluster.processes[5].restart()?;
        std::thread::sleep(Duration::from_secs(3));
    }
    let before = cluster.recounts()?;
    cluster.restart_all()?;
    cluster.wait_healthy(before)?;
    cluster.kill(&[3, 4]);
    verify(&cluster, &[0, 1, 2, 5, 6, 7], &written).context("widened, with two dead")
}

/// Writers go on while another box than theirs dies; what was acknowledged is there afterwards.
#[test]
fn a_box_killed_under_load_stops_nobody() -> Result<()> {
    let mut rng = Rng::for_test("a_box_killed_under_load_stops_nobody");
    let mut cluster = Cluster::start(&Shape::boxes(3, 3, (2, 1)), &Config::default())?;
    let workload = Workload::new(&cluster.processes[0], &mut rng)?;
    for round in 0..number("PREDASTORE_TEST_CLUSTER_KILLS", 3) {
        let (before, victim) = (rng.below(50), rng.below(2) as usize);
        let Some((first, rest)) = cluster.processes.split_first_mut() else { anyhow::bail!("no process") };
        let killed = workload.run(first, &mut rng, |_, tally| {
            tally.wait_acknowledged(before)?;
            rest[victim].kill();
            tally.wait_acknowledged(tally.acknowledged.load(Ordering::Relaxed) + 50)
        });
        killed.with_context(|| format!("round {round}")).with_logs(|| cluster.log_tails())?;
        verify_load(&mut cluster, &workload).with_context(|| format!("round {round}"))?;
    }
    cluster.stop_all()
}

/// All processes die at once, at any time: what was acknowledged is there afterwards, and nothing is half there.
#[test]
fn everything_killed_under_load_loses_nothing() -> Result<()> {
    let mut rng = Rng::for_test("everything_killed_under_load_loses_nothing");
    let mut cluster = Cluster::start(&Shape::boxes(3, 3, (2, 1)), &Config::default())?;
    let workload = Workload::new(&cluster.processes[0], &mut rng)?;
    let mut acknowledged = 0;
    for round in 0..number("PREDASTORE_TEST_CLUSTER_KILLS", 3) {
        let limit = *rng.choose(&[1, 20, 200]);
        let before = rng.below(limit);
        let Some((first, rest)) = cluster.processes.split_first_mut() else { anyhow::bail!("no process") };
        let tally = workload.run(first, &mut rng, |first, tally| {
            tally.wait_acknowledged(before)?;
            rest.iter_mut().for_each(S3d::kill);
            first.kill();
            Ok(())
        });
        acknowledged += tally.with_context(|| format!("round {round}"))?.acknowledged.load(Ordering::Relaxed);
        verify_load(&mut cluster, &workload).with_context(|| format!("round {round}"))?;
    }
    say(&format!("all killed at once: {acknowledged} acknowledged, all there"));
    cluster.stop_all()
}

/// Starts what is dead, and looks through the last gateway whether everything is as its history allows.
fn verify_load(cluster: &mut Cluster, workload: &Workload) -> Result<()> {
    cluster.restart_all()?;
    let last = cluster.processes.last().context("no process")?;
    workload.verify(&mut last.s3()?).with_logs(|| cluster.log_tails())?;
    Ok(())
}
