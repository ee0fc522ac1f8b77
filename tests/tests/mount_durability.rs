//! What fsync or close acknowledged in a mount is there after SIGKILL of the daemon: through a mount and by S3, and nothing is
//! mixed. How often: `PREDASTORE_TEST_MOUNT_KILLS`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use predastore_tests::cluster::{Cluster, Recounts, Shape};
use predastore_tests::disk::{FileSystem, LoopMount};
use predastore_tests::file_writer::FileWriter;
use predastore_tests::knobs::{Need, WithLogs, number, say};
use predastore_tests::mount::{BUCKET, Mount, Server, can_mount, config, enter_private_namespace, mountpoint};
use predastore_tests::random::Rng;
use predastore_tests::s3d::{Config, PATIENCE, S3d};

const WRITERS: u64 = 6;

/// How long writers may take to notice that nobody answers any more. A mount that outlives its daemon lets them wait for the next.
const NOTICE: Duration = Duration::from_millis(300);

/// Counts of all rounds.
#[derive(Default)]
struct Rounds {
    acknowledged: u64,
    /// Writers that saw an error.
    broken: u64,
    /// Writers that did not notice that their daemon was another.
    outlived: u64,
}

fn mapping_writer(dir: &Path, index: u64, rng: &mut Rng) -> Result<FileWriter> {
    Ok(FileWriter::new(dir.join(format!("w{index}")), Rng::new(rng.next_u64()))?.with_mappings())
}

fn kills(test: &str, server: impl FnOnce() -> Result<Server>) -> Result<()> {
    if !can_mount(test, &[]) {
        return Ok(());
    }
    let mut rng = Rng::for_test(test);
    let mut server = server()?;
    let dir = mountpoint()?;
    let mut mount = Some(Mount::new(server.gateways()[0], BUCKET, dir.path())?);
    let writer = |index, rng: &mut Rng| mapping_writer(dir.path(), index, rng);
    let mut writers = (0..WRITERS).map(|index| writer(index, &mut rng)).collect::<Result<Vec<_>>>()?;
    let (mut rounds, count) = (Rounds::default(), number("PREDASTORE_TEST_MOUNT_KILLS", 16).div_ceil(2));
    for round in 0..count {
        let outcome = one_kill(&mut server, &mut mount, dir.path(), &mut writers, &mut rng, &mut rounds);
        outcome.with_context(|| format!("round {round}")).with_logs(|| server.log_tails())?;
    }
    let Rounds { acknowledged, broken, outlived } = rounds;
    say(&format!(
        "{test}: {count} kills, {acknowledged} changes acknowledged, {broken} writers broken off, {outlived} went on"
    ));
    ensure!(acknowledged > 0, "nothing was acknowledged: it tests nothing");
    ensure!(broken == 0, "{broken} writers saw an error: the mount did not outlive its daemon");
    mount.map_or(Ok(()), Mount::unmount)?;
    server.finish()
}

fn one_kill(
    server: &mut Server,
    mount: &mut Option<Mount>,
    dir: &Path,
    writers: &mut [FileWriter],
    rng: &mut Rng,
    rounds: &mut Rounds,
) -> Result<()> {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let limit = *rng.choose(&[1, 20, 200]);
    let (enough, pause) = (rng.below(limit), Duration::from_micros(rng.below(5000)));
    let (stopped, counted) = (&stop, &count);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            writers.iter_mut().map(|writer| scope.spawn(move || writer.run(stopped, counted))).collect();
        let killed =
            kill_and_restart(server, &count, enough, pause, || threads.iter().all(|thread| thread.is_finished()));
        stop.store(true, Ordering::Relaxed);
        // Nobody waits for ever: neither for a daemon that is not there nor for one that answers nothing.
        let deadline = Instant::now() + PATIENCE;
        while !threads.iter().all(|thread| thread.is_finished()) && Instant::now() < deadline && killed.is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let hung = threads.iter().filter(|thread| !thread.is_finished()).count();
        if hung > 0 {
            mount.iter().try_for_each(Mount::abort)?;
        }
        for thread in threads {
            let outcome = thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?;
            rounds.outlived += u64::from(outcome.is_ok());
            rounds.broken += u64::from(outcome.is_err());
            if let Err(error) = outcome {
                say(&format!("a writer ended with {error}\n{}", server.log_tails()));
            }
        }
        killed?;
        ensure!(hung == 0, "{hung} writers hang {PATIENCE:?} after a restart");
        Ok(())
    })?;
    rounds.acknowledged += count.load(Ordering::Relaxed);
    remount(server, mount, dir)?;
    verify(server, writers)
}

/// Kills the daemon after `enough` changes and a pause, and starts it again.
fn kill_and_restart(
    server: &mut Server,
    count: &AtomicU64,
    enough: u64,
    pause: Duration,
    all_ended: impl Fn() -> bool,
) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while count.load(Ordering::Relaxed) < enough {
        ensure!(Instant::now() < deadline && !all_ended(), "{count:?} changes, and {enough} were to be");
        std::thread::sleep(Duration::from_micros(200));
    }
    server.first().stand_by()?;
    std::thread::sleep(pause);
    server.first().kill();
    let deadline = Instant::now() + NOTICE;
    while !all_ended() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    server.first().restart()?;
    if !all_ended() {
        // They waited for this one: a little more by it.
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// A mount that outlived its daemon stays, any other is made anew.
fn remount(server: &Server, mount: &mut Option<Mount>, dir: &Path) -> Result<()> {
    if let Some(old) = mount.take_if(|mount| !mount.answers()) {
        old.unmount_by_force()?;
    }
    if mount.is_none() {
        *mount = Some(Mount::new(server.gateways()[0], BUCKET, dir)?);
    }
    Ok(())
}

/// Both views have what was acknowledged.
fn verify(server: &Server, writers: &mut [FileWriter]) -> Result<()> {
    verify_at(server.gateways()[0], writers)
}

fn verify_at(gateway: &S3d, writers: &mut [FileWriter]) -> Result<()> {
    let mut s3 = gateway.s3()?;
    for writer in writers {
        writer.verify()?;
        let (directory, files) = writer.acknowledged()?;
        let prefix = format!("{directory}/");
        let listed = s3.list_prefix(BUCKET, &prefix)?;
        let listed: BTreeMap<&str, u64> =
            listed.iter().filter_map(|row| Some((row.key.strip_prefix(&prefix)?, row.size))).collect();
        for (name, bytes) in files {
            s3.expect_body(BUCKET, &format!("{prefix}{name}"), bytes)?;
        }
        let strange: Vec<_> = listed.keys().filter(|name| !name.is_empty() && !files.contains_key(**name)).collect();
        ensure!(strange.is_empty(), "S3 lists {strange:?} in {prefix}, and the mount does not");
    }
    Ok(())
}

#[test]
fn sigkill_of_a_box_under_writers() -> Result<()> {
    kills("sigkill_of_a_box_under_writers", Server::one_box)
}

#[test]
fn sigkill_of_a_gateway_under_writers() -> Result<()> {
    kills("sigkill_of_a_gateway_under_writers", Server::cluster)
}

/// As many shard nodes die as the layout allows, and a db node, under writers of a mount: they see no error, and all is there.
/// Once the cluster is whole, others may die.
#[test]
fn nodes_die_under_writers() -> Result<()> {
    let test = "nodes_die_under_writers";
    if !can_mount(test, &[]) {
        return Ok(());
    }
    let mut rng = Rng::for_test(test);
    enter_private_namespace()?;
    // Processes 0 to 2 are db nodes and gateways, 3 to 7 shard nodes.
    let mut cluster = Cluster::start(&Shape::apart(3, 5, (3, 2)), &config())?;
    cluster.processes[0].s3()?.create_bucket(BUCKET)?;
    let dir = mountpoint()?;
    let mount = Mount::new(&cluster.processes[0], BUCKET, dir.path())?;
    let writer = |index, rng: &mut Rng| mapping_writer(dir.path(), index, rng);
    let mut writers = (0..WRITERS).map(|index| writer(index, &mut rng)).collect::<Result<Vec<_>>>()?;
    cluster.wait_healthy(Recounts::none())?;
    let (rounds, mut acknowledged) = (number("PREDASTORE_TEST_MOUNT_DEATHS", 1), 0);
    for round in 0..rounds {
        let mut nodes: Vec<usize> = (3..8).collect();
        let mut dead = vec![1 + rng.below(2) as usize];
        dead.extend([(); 2].map(|()| nodes.swap_remove(rng.below(nodes.len() as u64) as usize)));
        nodes.swap_remove(rng.below(3) as usize);
        let outcome = deaths(&mut cluster, &mut writers, &dead, &nodes);
        acknowledged +=
            outcome.with_context(|| format!("round {round}: {dead:?} dead")).with_logs(|| cluster.log_tails())?;
    }
    say(&format!("{test}: {rounds} rounds, {acknowledged} changes acknowledged"));
    mount.unmount()?;
    cluster.stop_all()
}

/// `dead` die one after another, and come back; then `others`. How many changes were acknowledged.
fn deaths(cluster: &mut Cluster, writers: &mut [FileWriter], dead: &[usize], others: &[usize]) -> Result<u64> {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let (stopped, counted) = (&stop, &count);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            writers.iter_mut().map(|writer| scope.spawn(move || writer.run(stopped, counted))).collect();
        let go_on = |more: u64| {
            let (goal, deadline) = (count.load(Ordering::Relaxed) + more, Instant::now() + PATIENCE);
            while count.load(Ordering::Relaxed) < goal && !threads.iter().any(|thread| thread.is_finished()) {
                ensure!(Instant::now() < deadline, "no change is acknowledged any more");
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        };
        let struck = go_on(50).and_then(|()| {
            dead.iter().try_for_each(|index| {
                cluster.kill(&[*index]);
                go_on(20)
            })?;
            go_on(50)
        });
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            let outcome = thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?;
            outcome.context("a writer saw an error")?;
        }
        struck
    })?;
    verify_at(&cluster.processes[0], writers).context("while they are dead")?;
    let before = cluster.recounts()?;
    cluster.restart_all()?;
    cluster.wait_healthy(before)?;
    cluster.kill(others);
    verify_at(&cluster.processes[0], writers).with_context(|| format!("with {others:?} dead, after all was whole"))?;
    cluster.restart_all()?;
    cluster.wait_whole()?;
    Ok(count.into_inner())
}

/// The power goes under writers: the daemon, its disk and the programs end at once. What close or fsync acknowledged is there
/// after the next boot, and what was not synced is lost or there, never mixed.
fn power_cuts(test: &str, kind: FileSystem) -> Result<()> {
    let mut rng = Rng::for_test(test);
    enter_private_namespace()?;
    let disk = LoopMount::new(kind, 2048)?;
    let data_dir = Some(disk.path().join("data"));
    let mut server = Server::Box(Box::new(S3d::start(Config { data_dir, ..config() })?));
    server.gateways()[0].s3()?.create_bucket(BUCKET)?;
    let dir = mountpoint()?;
    let mut mount = Mount::new(server.gateways()[0], BUCKET, dir.path())?;
    let writer = |index, rng: &mut Rng| FileWriter::new(dir.path().join(format!("w{index}")), Rng::new(rng.next_u64()));
    let mut writers = (0..WRITERS).map(|index| writer(index, &mut rng)).collect::<Result<Vec<_>>>()?;
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let rounds = number("PREDASTORE_TEST_MOUNT_SHUTDOWNS", 4).div_ceil(2);
    for round in 0..rounds {
        let enough = count.load(Ordering::Relaxed) + 1 + rng.below(60);
        let (stopped, counted) = (&stop, &count);
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                writers.iter_mut().map(|writer| scope.spawn(move || writer.run(stopped, counted))).collect();
            let deadline = Instant::now() + PATIENCE;
            while count.load(Ordering::Relaxed) < enough && Instant::now() < deadline {
                std::thread::sleep(Duration::from_micros(200));
            }
            let cut = disk.shutdown();
            server.first().kill();
            // The programs end with the machine.
            mount.abort()?;
            for thread in threads {
                let _ = thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?;
            }
            cut
        })?;
        mount.unmount_by_force()?;
        disk.remount()?;
        server.first().restart()?;
        mount = Mount::new(server.gateways()[0], BUCKET, dir.path())?;
        // Files that were made and not closed are let go, and seen by S3, when their mount does not come back.
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = verify(&server, &mut writers) {
            if Instant::now() >= deadline {
                return Err(error.context(format!("round {round}"))).with_logs(|| server.log_tails());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    say(&format!("{test}: {rounds} cuts, {} changes acknowledged", count.load(Ordering::Relaxed)));
    mount.unmount()?;
    server.finish()
}

#[test]
fn power_cuts_on_xfs() -> Result<()> {
    let needs = [Need::LoopMount, Need::Program("xfs_io"), Need::Program("mkfs.xfs")];
    if can_mount("power_cuts_on_xfs", &needs) { power_cuts("power_cuts_on_xfs", FileSystem::Xfs) } else { Ok(()) }
}

#[test]
fn power_cuts_on_ext4() -> Result<()> {
    let needs = [Need::LoopMount, Need::Program("xfs_io"), Need::Program("mkfs.ext4")];
    if can_mount("power_cuts_on_ext4", &needs) { power_cuts("power_cuts_on_ext4", FileSystem::Ext4) } else { Ok(()) }
}
