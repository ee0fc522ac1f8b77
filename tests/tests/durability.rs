//! Nothing acknowledged is lost, and nothing is half there: writers are interrupted by SIGKILL at any time, by SIGKILL at a
//! sync, and by a file system that is cut off under the process. Over TLS, as boxes are run, and with old versions, which
//! must all be there too. How often: `PREDASTORE_TEST_KILLS`, `PREDASTORE_TEST_SYNC_KILLS`,
//! `PREDASTORE_TEST_START_STRIDE`, `PREDASTORE_TEST_SHUTDOWNS`.

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use predastore_tests::disk::{FileSystem, LoopMount};
use predastore_tests::knobs::{Need, can_run, number, say};
use predastore_tests::random::Rng;
use predastore_tests::s3d::{Config, Inject, PATIENCE, S3d, SYNCS, setting};
use predastore_tests::workload::{Tally, Workload};

const SIGKILL: i32 = 9;

fn config() -> Config {
    Config::default().set(setting::SWEEP_GRACE, "1s").set(setting::SWEEP_INTERVAL, "1s")
}

/// A time that is sometimes short against one request and sometimes long enough for hundreds.
fn moment(rng: &mut Rng) -> Duration {
    let limit_us = *rng.choose(&[5_000, 100_000, 800_000]);
    Duration::from_micros(rng.below(limit_us))
}

/// After an interruption: everything is as the history allows, and the stopped store is clean.
fn recover(s3d: &mut S3d, workload: &Workload) -> Result<usize> {
    s3d.restart()?;
    let count = workload.verify(&mut s3d.s3()?)?;
    s3d.stop()?;
    s3d.expect_clean()?;
    Ok(count)
}

fn finish(s3d: &mut S3d, workload: &Workload) -> Result<()> {
    s3d.restart()?;
    workload.expect_no_leak(s3d)?;
    s3d.stop()?;
    s3d.expect_clean()
}

fn report(test: &str, round: u64, tally: &Tally, count: usize) {
    let (acknowledged, unknown) = (&tally.acknowledged, &tally.unknown);
    let figures =
        format!("{acknowledged:?} acknowledged, {unknown:?} unknown, {count} objects and versions as they should be");
    if round % 50 == 49 || number("PREDASTORE_TEST_VERBOSE", 0) > 0 {
        say(&format!("{test} {}: {figures}", round + 1));
    }
}

#[test]
fn sigkill_at_any_time() -> Result<()> {
    let mut rng = Rng::for_test("sigkill_at_any_time");
    let mut s3d = S3d::start(config())?;
    let workload = Workload::new(&s3d, &mut rng)?;
    let mut acknowledged = 0;
    for round in 0..number("PREDASTORE_TEST_KILLS", 12) {
        let pause = moment(&mut rng);
        let tally = workload.run(&mut s3d, &mut rng, |s3d| {
            std::thread::sleep(pause);
            s3d.kill();
            Ok(())
        })?;
        let count = recover(&mut s3d, &workload).with_context(|| format!("round {round}"))?;
        report("SIGKILL at any time", round, &tally, count);
        acknowledged += tally.acknowledged.load(Ordering::Relaxed);
        s3d.restart()?;
    }
    ensure!(acknowledged > 0, "no round acknowledged anything: it tests nothing");
    s3d.kill();
    finish(&mut s3d, &workload)
}

#[test]
fn sigkill_at_a_sync() -> Result<()> {
    if !can_run("sigkill_at_a_sync", &[Need::Program("strace")]) {
        return Ok(());
    }
    let mut rng = Rng::for_test("sigkill_at_a_sync");
    let mut s3d = S3d::start(config())?;
    let workload = Workload::new(&s3d, &mut rng)?;
    s3d.stop()?;
    for round in 0..number("PREDASTORE_TEST_SYNC_KILLS", 12) {
        // Every early sync in turn, some of which belong to the start; later ones at random.
        let nth = if round % 2 == 0 { 1 + round / 2 % 40 } else { 2 + rng.below(100) };
        let tally = killed_at_sync(&mut s3d, &workload, &mut rng, nth)?;
        let count = recover(&mut s3d, &workload).with_context(|| format!("round {round}, sync {nth}"))?;
        report(&format!("SIGKILL at sync {nth}"), round, &tally, count);
    }
    finish(&mut s3d, &workload)
}

fn killed_at_sync(s3d: &mut S3d, workload: &Workload, rng: &mut Rng, nth: u64) -> Result<Tally> {
    if !start_to_be_killed(s3d, nth)? {
        return Ok(Tally::default());
    }
    workload.run(s3d, rng, |s3d| {
        let status = s3d.wait_exit(PATIENCE)?;
        ensure!(status.signal() == Some(SIGKILL), "{status}, and it was to be killed at sync {nth}");
        Ok(())
    })
}

/// Starts it so that SIGKILL meets the `nth` sync of any thread. Whether it came to serve before that.
fn start_to_be_killed(s3d: &mut S3d, nth: u64) -> Result<bool> {
    s3d.config.inject = Some(Inject { syscalls: SYNCS, effect: format!("signal=SIGKILL:when={nth}") });
    s3d.spawn()?;
    s3d.config.inject = None;
    let Err(error) = s3d.wait_until_serving() else { return Ok(true) };
    let text = format!("{error:#}");
    ensure!(text.contains("SIGKILL"), "its start fails, and not by the kill at sync {nth}: {text}");
    Ok(false)
}

/// Whatever sync of its very first start a box dies at, the next start makes it whole.
#[test]
fn sigkill_at_a_sync_of_the_first_start() -> Result<()> {
    if !can_run("sigkill_at_a_sync_of_the_first_start", &[Need::Program("strace")]) {
        return Ok(());
    }
    let mut rng = Rng::for_test("sigkill_at_a_sync_of_the_first_start");
    // Every sync, or some: a first start has more than a hundred, most of them SQLite's.
    let stride = number("PREDASTORE_TEST_START_STRIDE", 16);
    let (mut nth, mut kills, mut serves) = (1 + rng.below(stride), 0, false);
    while !serves {
        let mut s3d = S3d::stopped(config())?;
        serves = start_to_be_killed(&mut s3d, nth)?;
        s3d.kill();
        let outcome = first_life(&mut s3d, &mut rng);
        outcome.with_context(|| format!("after SIGKILL at sync {nth} of the first start"))?;
        kills += u64::from(!serves);
        nth += 1 + rng.below(2 * stride - 1);
    }
    say(&format!("SIGKILL at {kills} syncs of a first start"));
    ensure!(kills > 0, "no start was killed: it tests nothing");
    Ok(())
}

fn first_life(s3d: &mut S3d, rng: &mut Rng) -> Result<()> {
    s3d.restart()?;
    let workload = Workload::new(s3d, rng)?;
    workload.run(s3d, rng, |_| Ok(()))?;
    workload.verify(&mut s3d.s3()?)?;
    s3d.stop()?;
    s3d.expect_clean()
}

fn shutdowns(kind: FileSystem, count: u64) -> Result<()> {
    let mut rng = Rng::for_test(&format!("shutdown of {kind:?}"));
    let disk = LoopMount::new(kind, 2048)?;
    let mut s3d = S3d::start(config().in_dir(&disk.path().join("data")))?;
    let workload = Workload::new(&s3d, &mut rng)?;
    for round in 0..count {
        let pause = moment(&mut rng);
        let tally = workload.run(&mut s3d, &mut rng, |s3d| {
            std::thread::sleep(pause);
            disk.shutdown()?;
            // The writers go on: the next sync fails, and that must end the process.
            let status = s3d.wait_exit(PATIENCE)?;
            ensure!(!status.success(), "it ended as if nothing had happened");
            Ok(())
        })?;
        disk.remount()?;
        let count = recover(&mut s3d, &workload).with_context(|| format!("round {round}"))?;
        report(&format!("shutdown of {kind:?}"), round, &tally, count);
        s3d.restart()?;
    }
    s3d.kill();
    finish(&mut s3d, &workload)
}

/// The suite must be able to fail: a store whose syncs do nothing is caught by the first shutdown.
#[test]
fn a_store_that_does_not_sync_is_caught() -> Result<()> {
    let needs = [Need::LoopMount, Need::Program("xfs_io"), Need::Program("mkfs.xfs"), Need::Program("strace")];
    if !can_run("a_store_that_does_not_sync", &needs) {
        return Ok(());
    }
    let mut rng = Rng::for_test("a_store_that_does_not_sync");
    let disk = LoopMount::new(FileSystem::Xfs, 512)?;
    let mut s3d = S3d::start(config().in_dir(&disk.path().join("data")))?;
    let workload = Workload::new(&s3d, &mut rng)?;
    s3d.stop()?;
    s3d.config.inject = Some(Inject { syscalls: SYNCS, effect: "retval=0".into() });
    s3d.restart()?;
    s3d.config.inject = None;
    let tally = workload.run(&mut s3d, &mut rng, |s3d| {
        std::thread::sleep(Duration::from_millis(300));
        disk.shutdown()?;
        s3d.kill();
        Ok(())
    })?;
    disk.remount()?;
    ensure!(tally.acknowledged.load(Ordering::Relaxed) > 0, "nothing was acknowledged");
    ensure!(
        recover(&mut s3d, &workload).is_err(),
        "acknowledged objects survived without a sync: is this a power loss?"
    );
    Ok(())
}

fn rounds() -> u64 {
    number("PREDASTORE_TEST_SHUTDOWNS", 4).div_ceil(2)
}

#[test]
fn xfs_shutdown() -> Result<()> {
    if can_run("xfs_shutdown", &[Need::LoopMount, Need::Program("xfs_io"), Need::Program("mkfs.xfs")]) {
        shutdowns(FileSystem::Xfs, rounds())?;
    }
    Ok(())
}

#[test]
fn ext4_shutdown() -> Result<()> {
    if can_run("ext4_shutdown", &[Need::LoopMount, Need::Program("xfs_io"), Need::Program("mkfs.ext4")]) {
        shutdowns(FileSystem::Ext4, rounds())?;
    }
    Ok(())
}
