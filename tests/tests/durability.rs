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

/// When a round is interrupted: so many acknowledged writes after its begin, and then a time that is short against one
/// request. Counted, not timed: a slow machine interrupts as much work as a fast one.
struct Moment {
    acknowledged: u64,
    pause: Duration,
}

impl Moment {
    /// In one round of four before the first acknowledgement, in the others after up to hundreds.
    fn random(rng: &mut Rng) -> Moment {
        let limit = *rng.choose(&[1, 10, 100, 600]);
        Moment { acknowledged: rng.below(limit), pause: Duration::from_micros(rng.below(5_000)) }
    }

    fn wait(&self, tally: &Tally) -> Result<()> {
        tally.wait_acknowledged(self.acknowledged)?;
        std::thread::sleep(self.pause);
        Ok(())
    }
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

/// What the rounds of a test did. A round that acknowledges nothing shows little: the sum says how many there were.
#[derive(Default)]
struct Rounds {
    count: u64,
    idle: u64,
    acknowledged: u64,
}

impl Rounds {
    fn add(&mut self, test: &str, tally: &Tally, found: usize) {
        let acknowledged = tally.acknowledged.load(Ordering::Relaxed);
        self.count += 1;
        self.idle += u64::from(acknowledged == 0);
        self.acknowledged += acknowledged;
        if number("PREDASTORE_TEST_VERBOSE", 0) > 0 {
            let unknown = &tally.unknown;
            say(&format!("{test}: {acknowledged} acknowledged, {unknown:?} unknown, {found} objects and versions"));
        }
    }

    fn end(&self, test: &str) -> Result<()> {
        let Rounds { count, idle, acknowledged } = self;
        say(&format!(
            "{test}: {count} rounds, {idle} of them with nothing acknowledged; {acknowledged} acknowledged in all"
        ));
        ensure!(*acknowledged > 0, "no round acknowledged anything: it tests nothing");
        Ok(())
    }
}

#[test]
fn sigkill_at_any_time() -> Result<()> {
    let mut rng = Rng::for_test("sigkill_at_any_time");
    let mut s3d = S3d::start(config())?;
    let workload = Workload::new(&s3d, &mut rng)?;
    let mut rounds = Rounds::default();
    for round in 0..number("PREDASTORE_TEST_KILLS", 12) {
        let moment = Moment::random(&mut rng);
        let tally = workload.run(&mut s3d, &mut rng, |s3d, tally| {
            moment.wait(tally)?;
            s3d.kill();
            Ok(())
        })?;
        let count = recover(&mut s3d, &workload).with_context(|| format!("round {round}"))?;
        rounds.add("SIGKILL at any time", &tally, count);
        s3d.restart()?;
    }
    rounds.end("SIGKILL at any time")?;
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
    let mut rounds = Rounds::default();
    for round in 0..number("PREDASTORE_TEST_SYNC_KILLS", 12) {
        // Every early sync in turn, most of which belong to the start; later ones at random.
        let limit = *rng.choose(&[100, 400]);
        let nth = if round % 4 == 0 { 1 + round / 4 % 40 } else { 2 + rng.below(limit) };
        let tally = killed_at_sync(&mut s3d, &workload, &mut rng, nth)?;
        let count = recover(&mut s3d, &workload).with_context(|| format!("round {round}, sync {nth}"))?;
        rounds.add(&format!("SIGKILL at sync {nth}"), &tally, count);
    }
    rounds.end("SIGKILL at a sync")?;
    finish(&mut s3d, &workload)
}

fn killed_at_sync(s3d: &mut S3d, workload: &Workload, rng: &mut Rng, nth: u64) -> Result<Tally> {
    if !start_to_be_killed(s3d, nth)? {
        return Ok(Tally::default());
    }
    workload.run(s3d, rng, |s3d, _| {
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
    workload.run(s3d, rng, |_, tally| tally.wait_acknowledged(1))?;
    workload.verify(&mut s3d.s3()?)?;
    s3d.stop()?;
    s3d.expect_clean()
}

fn shutdowns(kind: FileSystem, count: u64) -> Result<()> {
    let mut rng = Rng::for_test(&format!("shutdown of {kind:?}"));
    let disk = LoopMount::new(kind, 2048)?;
    let mut s3d = S3d::start(config().in_dir(&disk.path().join("data")))?;
    let workload = Workload::new(&s3d, &mut rng)?;
    let mut rounds = Rounds::default();
    for round in 0..count {
        let moment = Moment::random(&mut rng);
        let tally = workload.run(&mut s3d, &mut rng, |s3d, tally| {
            moment.wait(tally)?;
            disk.shutdown()?;
            // The writers go on: the next sync fails, and that must end the process.
            let status = s3d.wait_exit(PATIENCE)?;
            ensure!(!status.success(), "it ended as if nothing had happened");
            Ok(())
        })?;
        disk.remount()?;
        let count = recover(&mut s3d, &workload).with_context(|| format!("round {round}"))?;
        rounds.add(&format!("shutdown of {kind:?}"), &tally, count);
        s3d.restart()?;
    }
    rounds.end(&format!("shutdown of {kind:?}"))?;
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
    workload.run(&mut s3d, &mut rng, |s3d, tally| {
        tally.wait_acknowledged(20)?;
        disk.shutdown()?;
        s3d.kill();
        Ok(())
    })?;
    disk.remount()?;
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
