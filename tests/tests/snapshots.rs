//! `s3d snapshot` and copies of prefixes over S3: of one moment while others write, whole or not there at all while processes
//! die, and gone without a trace. `PREDASTORE_TEST_SNAPSHOT_KEYS`: how many keys the prefixes have that are copied.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use predastore_tests::cluster::{Cluster, Shape};
use predastore_tests::http::Response;
use predastore_tests::knobs::{WithLogs, number};
use predastore_tests::mount::{BUCKET, Mount, Server, can_mount, mountpoint};
use predastore_tests::s3::S3;
use predastore_tests::s3d::{Config, S3d};

const VOL: &str = "vol";
const WRITER_COUNT: usize = 2;
/// How long a copy may take to be published after its processes came back.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a mount may keep to what it saw before S3 changed it.
const COHERENCE: Duration = Duration::from_secs(3);

/// So many that a copy of them is many commands.
fn key_count() -> usize {
    number("PREDASTORE_TEST_SNAPSHOT_KEYS", 5_000) as usize
}

fn key(writer: usize, number: usize) -> String {
    format!("disk/{writer}/{:02}/{number:06}", number / 100)
}

/// A round that was written is the body of every key of a writer, as text.
fn write_round(s3: &mut S3, writer: usize, round: u64, stop: &AtomicBool) -> Result<bool> {
    for number in 0..key_count() / WRITER_COUNT {
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        s3.put(VOL, &key(writer, number), round.to_string())?.expect(200)?;
    }
    Ok(true)
}

/// Makes the keys, and fills them with round 0.
fn fill(gateways: &[&S3d]) -> Result<()> {
    gateways[0].s3()?.create_bucket(VOL)?;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITER_COUNT)
            .map(|writer| {
                let gateway = gateways[writer % gateways.len()];
                scope.spawn(move || write_round(&mut gateway.s3()?, writer, 0, &AtomicBool::new(false)))
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| anyhow!("a writer panicked"))?.map(drop))
    })
}

/// Writers that go over their keys again and again, each in order, one write after another.
struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Writers {
    fn start(gateways: &[&S3d]) -> Result<Writers> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for writer in 0..WRITER_COUNT {
            let (mut s3, stop) = (gateways[writer % gateways.len()].s3()?, stop.clone());
            threads.push(spawn(move || {
                let mut round = 1;
                while write_round(&mut s3, writer, round, &stop)? {
                    round += 1;
                }
                Ok(())
            }));
        }
        Ok(Writers { stop, threads })
    }

    fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a writer panicked"))?)
    }
}

/// The rounds that a copy of `disk/` has, by writer and key. Tags say what the bodies are: no body is read.
fn rounds(s3: &mut S3, prefix: &str) -> Result<BTreeMap<usize, Vec<String>>> {
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for row in s3.list_prefix(VOL, prefix)? {
        let rest = row.key.strip_prefix(prefix).context("listed outside of the prefix")?;
        let writer = rest.split('/').next().context("no writer")?.parse()?;
        let of_writer = found.entry(writer).or_default();
        ensure!(key(writer, of_writer.len()).strip_prefix("disk/") == Some(rest), "{rest} follows {of_writer:?}");
        of_writer.push(row.etag);
    }
    Ok(found)
}

/// A copy is of one moment if each writer had come to some key of some round: those before have it, all others the one
/// before.
fn expect_one_moment(s3: &mut S3, prefix: &str) -> Result<()> {
    let found = rounds(s3, prefix)?;
    ensure!(found.len() == WRITER_COUNT, "{prefix} has {} writers", found.len());
    for (writer, etags) in found {
        ensure!(etags.len() == key_count() / WRITER_COUNT, "writer {writer} has {} keys", etags.len());
        let changes: Vec<usize> = (1..etags.len()).filter(|at| etags[*at] != etags[at - 1]).collect();
        ensure!(changes.len() <= 1, "writer {writer}: rounds change at {changes:?}: that is no moment");
        if let Some(at) = changes.first() {
            let mut read = |number: usize| -> Result<u64> {
                let name = format!("{prefix}{}", key(writer, number).trim_start_matches("disk/"));
                Ok(s3.get(VOL, &name)?.expect(200)?.text().parse()?)
            };
            let (before, behind) = (read(at - 1)?, read(*at)?);
            ensure!(before == behind + 1, "writer {writer}: {before} before {at}, {behind} behind");
        }
    }
    Ok(())
}

/// Waits until a snapshot is listed with `state`.
fn wait_state(s3d: &S3d, name: &str, state: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let listed = s3d.snapshot(&["list", VOL])?;
        let is_so = listed.lines().any(|line| line.starts_with(&format!("{name} ")) && line.ends_with(state));
        if is_so {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "{name} is not {state}:\n{listed}");
        sleep(Duration::from_millis(50));
    }
}

/// Waits until nothing of any copy is left to do.
fn wait_quiet(s3d: &S3d) -> Result<()> {
    let started = Instant::now();
    loop {
        let listed = s3d.snapshot(&["list", VOL])?;
        if !listed.contains("being ") {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "copies go on and on:\n{listed}");
        sleep(Duration::from_millis(50));
    }
}

fn refusal(s3d: &S3d, words: &[&str]) -> Result<String> {
    match s3d.snapshot(words) {
        Ok(printed) => Err(anyhow!("{words:?} succeeds: {printed}")),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn copy_prefix(s3: &mut S3, from: &str, to: &str) -> Result<Response> {
    let request = s3.request("PUT", VOL, to, "", "").header("x-amz-copy-source", format!("/{VOL}/{from}"));
    s3.call(request.header("x-predastore-copy-prefix", "true"))
}

#[test]
fn a_snapshot_is_of_one_moment_and_a_clone_goes_its_own_way() -> Result<()> {
    let mut s3d = S3d::start(Config::default())?;
    fill(&[&s3d])?;
    let mut s3 = s3d.s3()?;
    let writers = Writers::start(&[&s3d])?;
    for name in ["one", "two", "three"] {
        sleep(Duration::from_millis(150));
        let said = s3d.snapshot(&["create", "vol/disk", name])?;
        ensure!(said.contains(&format!("{} objects", key_count())), "{said}");
        expect_one_moment(&mut s3, &format!(".snapshots/{name}/")).with_context(|| s3d.log_tail())?;
    }
    s3d.snapshot(&["clone", "vol/two", "vol/again/deep"])?;
    writers.finish()?;
    expect_one_moment(&mut s3, "again/deep/")?;
    let before = rounds(&mut s3, ".snapshots/two/")?;
    ensure!(rounds(&mut s3, "again/deep/")? == before, "a clone is not its snapshot");

    // Neither sees what becomes of the other.
    s3.put(VOL, "again/deep/0/00/000000", "mine")?.expect(200)?;
    s3.delete(VOL, "again/deep/0/00/000001")?.expect(204)?;
    ensure!(rounds(&mut s3, ".snapshots/two/")? == before, "a snapshot is changed through its clone");
    s3d.snapshot(&["delete", "vol/two"])?;
    ensure!(s3.list_prefix(VOL, ".snapshots/two/")?.is_empty(), "a snapshot is there after it was deleted");
    s3.expect_body(VOL, "again/deep/0/00/000000", b"mine")?;
    s3.get(VOL, "again/deep/1/00/000007")?.expect(200)?;

    let listed = s3d.snapshot(&["list", "vol/disk"])?;
    ensure!(listed.contains("one ") && listed.contains("three ") && listed.contains("vol/disk/"), "{listed}");
    ensure!(
        refusal(&s3d, &["create", "vol/disk", "one"])?.contains("has this name already"),
        "the name is taken twice"
    );
    ensure!(refusal(&s3d, &["create", "vol/none", "four"])?.contains("there is nothing"), "nothing is copied");
    ensure!(refusal(&s3d, &["create", "vol/disk", "a/b"])?.contains("a snapshot's name"), "a name with a slash");
    ensure!(refusal(&s3d, &["delete", "vol/two"])?.contains("there is nothing"), "it is deleted twice");
    wait_quiet(&s3d)?;
    s3d.stop()?;
    s3d.expect_clean()
}

#[test]
fn a_copy_survives_the_death_of_the_daemon_at_any_point() -> Result<()> {
    let mut s3d = S3d::start(Config::default())?;
    fill(&[&s3d])?;
    for (number, delay_ms) in [0, 5, 15, 30, 60, 120].into_iter().enumerate() {
        let name = format!("s{number}");
        let mut command = s3d.snapshot_command(&["create", "vol/disk", &name]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        sleep(Duration::from_millis(delay_ms));
        if number > 0 {
            let mut removal = s3d.snapshot_command(&["delete", &format!("vol/s{}", number - 1)]);
            removal.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        }
        s3d.kill();
        child.wait()?;
        s3d.expect_clean().with_context(|| format!("killed after {delay_ms} ms"))?;
        s3d.restart()?;
        let mut s3 = s3d.s3()?;
        let listed = s3d.snapshot(&["list", VOL])?;
        if listed.lines().any(|line| line.starts_with(&format!("{name} "))) {
            wait_state(&s3d, &name, "ready")?;
            expect_one_moment(&mut s3, &format!(".snapshots/{name}/"))?;
        } else {
            ensure!(s3.list_prefix(VOL, &format!(".snapshots/{name}/"))?.is_empty(), "{name} is there, and not known");
        }
    }
    wait_quiet(&s3d)?;
    s3d.stop()?;
    s3d.expect_clean()
}

#[test]
fn a_cluster_copies_while_its_leader_dies() -> Result<()> {
    let mut cluster = Cluster::start(&Shape::boxes(3, 3, (2, 1)), &Config::default())?;
    fill(&cluster.at(&[0, 1, 2]))?;
    for round in 0..2 {
        let name = format!("s{round}");
        let leader = cluster.leader()?;
        let others = cluster.others(&[leader]);
        let writers = Writers::start(&cluster.at(&others))?;
        let mut command = cluster.processes[others[0]].snapshot_command(&["create", "vol/disk", &name]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        sleep(Duration::from_millis(100));
        cluster.kill(&[leader]);
        // A writer may hear of the death of the leader.
        let _ = writers.finish();
        child.wait()?;
        cluster.restart_all()?;
        let asked = &cluster.processes[others[1]];
        let listed = asked.snapshot(&["list", VOL])?;
        if !listed.lines().any(|line| line.starts_with(&format!("{name} "))) {
            asked.snapshot(&["create", "vol/disk", &name])?;
        }
        wait_state(asked, &name, "ready").with_logs(|| cluster.log_tails())?;
        let found = rounds(&mut asked.s3()?, &format!(".snapshots/{name}/"))?;
        let count: usize = found.values().map(Vec::len).sum();
        ensure!(count == key_count(), "{name} has {count} keys\n{}", cluster.log_tails());
        expect_no_mixture(found)?;
    }
    let asked = &cluster.processes[0];
    asked.snapshot(&["clone", "vol/s1", "vol/again"])?;
    asked.snapshot(&["delete", "vol/s0"])?;
    wait_quiet(asked)?;
    let mut s3 = cluster.processes[2].s3()?;
    ensure!(s3.list_prefix(VOL, ".snapshots/s0/")?.is_empty(), "it is there after it was deleted");
    ensure!(rounds(&mut s3, "again/")? == rounds(&mut s3, ".snapshots/s1/")?, "a clone is not its snapshot");
    cluster.stop_all()
}

/// Writers that were stopped by a death may have begun again with round 1: what is left of one moment is that rounds change
/// at few places, not here and there.
fn expect_no_mixture(found: BTreeMap<usize, Vec<String>>) -> Result<()> {
    for (writer, etags) in found {
        let change_count = (1..etags.len()).filter(|at| etags[*at] != etags[at - 1]).count();
        ensure!(change_count <= 3, "writer {writer}: rounds change {change_count} times");
    }
    Ok(())
}

#[test]
fn s3_copies_prefixes_too() -> Result<()> {
    let mut s3d = S3d::start(Config::default())?;
    fill(&[&s3d])?;
    let mut s3 = s3d.s3()?;
    let answer = copy_prefix(&mut s3, "disk/", "copied/here/")?.expect(200)?;
    ensure!(answer.get("x-predastore-copied-objects") == Some(key_count().to_string().as_str()), "{answer:?}");
    ensure!(answer.text().contains("<CopyObjectResult"), "{}", answer.text());
    ensure!(rounds(&mut s3, "copied/here/")? == rounds(&mut s3, "disk/")?, "the copy is not its source");
    let mut refused = |from: &str, to: &str, status: u16, code: &str| -> Result<()> {
        let answer = copy_prefix(&mut s3, from, to)?.expect(status)?;
        ensure!(answer.code() == code, "{from} to {to}: {}", answer.text());
        Ok(())
    };
    refused("disk/", "copied/here/", 412, "PreconditionFailed")?;
    refused("disk/", "copied/", 412, "PreconditionFailed")?;
    refused("none/", "other/", 404, "NoSuchKey")?;
    refused("disk", "other/", 400, "InvalidRequest")?;
    refused("disk/", "other", 400, "InvalidRequest")?;
    // Without the header it is S3's own: of an object.
    let plain = s3.request("PUT", VOL, "other/", "", "").header("x-amz-copy-source", "/vol/disk/");
    s3.call(plain)?.expect(404)?;
    let odd = s3.request("PUT", VOL, "other/", "", "").header("x-amz-copy-source", "/vol/disk/");
    s3.call(odd.header("x-predastore-copy-prefix", "yes"))?.expect(400)?;
    let condition = s3.request("PUT", VOL, "other/", "", "").header("x-amz-copy-source", "/vol/disk/");
    let condition = condition.header("x-predastore-copy-prefix", "true").header("x-amz-metadata-directive", "REPLACE");
    s3.call(condition)?.expect(400)?;
    s3d.stop()?;
    s3d.expect_clean()
}

#[test]
fn a_mount_sees_snapshots_come_and_go() -> Result<()> {
    if !can_mount("a_mount_sees_snapshots_come_and_go", &[]) {
        return Ok(());
    }
    let server = Server::one_box()?;
    let dir = mountpoint()?;
    let s3d = server.gateways()[0];
    let mount = Mount::new(s3d, BUCKET, dir.path())?;
    let outcome = || -> Result<()> {
        let work = dir.path().join("work");
        std::fs::create_dir_all(work.join("deep"))?;
        std::fs::write(work.join("file"), "before")?;
        std::fs::write(work.join("deep/long"), vec![7; 300_000])?;
        std::fs::hard_link(work.join("file"), work.join("linked"))?;
        s3d.snapshot(&["create", &format!("{BUCKET}/work"), "one"])?;
        std::fs::write(work.join("file"), "behind")?;
        let snapshot = dir.path().join(".snapshots/one");
        soon(|| expect(std::fs::read(snapshot.join("file"))? == b"before", "the snapshot has what was written since"))?;
        ensure!(std::fs::read(snapshot.join("linked"))? == b"before", "a file of several names");
        ensure!(std::fs::read(snapshot.join("deep/long"))? == vec![7; 300_000], "a long file");
        s3d.snapshot(&["clone", &format!("{BUCKET}/one"), &format!("{BUCKET}/again")])?;
        let again = dir.path().join("again");
        soon(|| Ok(std::fs::write(again.join("file"), "mine")?))?;
        std::fs::rename(again.join("deep"), again.join("moved"))?;
        ensure!(std::fs::read(again.join("linked"))? == b"before", "names of a copied file are files of their own");
        ensure!(std::fs::read(snapshot.join("file"))? == b"before", "a snapshot is changed through its clone");
        s3d.snapshot(&["delete", &format!("{BUCKET}/one")])?;
        soon(|| expect(!snapshot.exists(), "it is there after it was deleted"))?;
        ensure!(std::fs::read(again.join("moved/long"))? == vec![7; 300_000], "a clone lost bytes of its snapshot");
        Ok(())
    }();
    outcome.with_logs(|| server.log_tails())?;
    mount.unmount()?;
    server.finish()
}

fn expect(holds: bool, otherwise: &'static str) -> Result<()> {
    ensure!(holds, otherwise);
    Ok(())
}

/// Repeats what looks through a mount until it succeeds: another changed what it looks at.
fn soon(mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    loop {
        match look() {
            Err(_) if started.elapsed() < COHERENCE => sleep(Duration::from_millis(5)),
            outcome => return outcome,
        }
    }
}
