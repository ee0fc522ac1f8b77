//! What a box does when its disk is full, fails or lies, and when too much is asked of it.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use predastore_tests::disk::{FileSystem, LoopMount};
use predastore_tests::http::{Connection, Response};
use predastore_tests::knobs::{Need, can_run};
use predastore_tests::random::{Rng, body};
use predastore_tests::s3::S3;
use predastore_tests::s3d::{Config, Inject, PATIENCE, S3d, SYNCS, setting};
use predastore_tests::shell;
use predastore_tests::sigv4::UNSIGNED_PAYLOAD;
use predastore_tests::workload::{Tally, Workload};

const MIB: usize = 1 << 20;

fn config() -> Config {
    Config::default().plain().set(setting::SWEEP_GRACE, "1s").set(setting::SWEEP_INTERVAL, "1s")
}

/// PUTs objects of `len_bytes` until one is refused. How many were stored, the refusal, and whether an answer before it
/// warned of the end.
fn fill(s3: &mut S3, prefix: &str, len_bytes: usize) -> Result<(u64, Response, bool)> {
    let mut warned = false;
    for count in 0.. {
        let answer = s3.put("full", &format!("{prefix}{count:06}"), body(count, len_bytes))?;
        if answer.status != 200 {
            return Ok((count, answer, warned));
        }
        warned |= answer.get("x-predastore-pool-pressure") == Some("nearfull");
    }
    unreachable!("a disk without end")
}

/// Repeats a PUT until it is accepted: space comes back some time after a delete.
fn when_there_is_room(mut put: impl FnMut() -> Result<Response>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = put()?;
        if answer.status == 200 {
            return Ok(());
        }
        ensure!(answer.status == 507, "{} {}", answer.status, answer.text());
        ensure!(Instant::now() < deadline, "still full after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_full_disk_refuses_writes_and_takes_deletes() -> Result<()> {
    if !can_run("a_full_disk", &[Need::LoopMount, Need::Program("mkfs.ext4")]) {
        return Ok(());
    }
    let disk = LoopMount::new(FileSystem::Ext4, 640)?;
    let mut s3d = S3d::start(config().in_dir(&disk.path().join("data")))?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket("full")?;
    let parts = || vec![body(7, 5 * MIB), body(8, MIB)];

    let (large, refusal, warned) = fill(&mut s3, "large/", 8 * MIB)?;
    ensure!(refusal.status == 507, "{} {}", refusal.status, refusal.text());
    ensure!(large >= 8, "only {large} objects of 8 MiB fitted into 640 MiB");
    ensure!(warned, "no answer said nearfull before the store was full");
    let (small, refusal, _) = fill(&mut s3, "small/", 20_000)?;
    ensure!(refusal.status == 507, "{} {}", refusal.status, refusal.text());
    let refusal = s3.put_multipart("full", "parts", parts())?;
    ensure!(refusal.status == 507, "a multipart upload: {} {}", refusal.status, refusal.text());
    // A full box starts again, and is full still.
    s3d.stop()?;
    s3d.expect_clean()?;
    s3d.restart()?;
    let refusal = s3.put("full", "refused", body(9, 8 * MIB))?;
    ensure!(refusal.status == 507, "after a restart: {} {}", refusal.status, refusal.text());

    for index in 0..large {
        s3.expect_body("full", &format!("large/{index:06}"), &body(index, 8 * MIB))?;
    }
    for index in (0..large).step_by(2) {
        s3.delete("full", &format!("large/{index:06}"))?.expect(204)?;
    }
    let bytes = body(99, 8 * MIB);
    when_there_is_room(|| s3.put("full", "again", bytes.clone()))?;
    s3.expect_body("full", "again", &bytes)?;
    when_there_is_room(|| s3.put_multipart("full", "parts", parts()))?;
    ensure!(s3.list("full")?.len() as u64 == large / 2 + small + 2, "the listing has another number of objects");
    s3d.stop()?;
    s3d.expect_clean()
}

#[test]
fn a_failed_sync_stops_the_process_and_loses_nothing() -> Result<()> {
    if !can_run("a_failed_sync", &[Need::Program("strace")]) {
        return Ok(());
    }
    let mut rng = Rng::for_test("a_failed_sync");
    let mut s3d = S3d::start(config())?;
    let workload = Workload::new(&s3d, &mut rng)?;
    s3d.stop()?;
    for nth in [6, 12, 25, 60] {
        s3d.config.inject = Some(Inject { syscalls: SYNCS, effect: format!("error=EIO:when={nth}") });
        let started = s3d.restart();
        s3d.config.inject = None;
        match started {
            Ok(()) => {
                let ends = |s3d: &mut S3d, _: &Tally| {
                    let status = s3d.wait_exit(PATIENCE)?;
                    ensure!(!status.success(), "it ended as if nothing had happened");
                    Ok(())
                };
                workload.run(&mut s3d, &mut rng, ends).with_context(|| format!("EIO at sync {nth}"))?;
            }
            Err(_) => s3d.kill(),
        }
        s3d.restart()?;
        workload.verify(&mut s3d.s3()?).with_context(|| format!("after EIO at sync {nth}"))?;
        s3d.stop()?;
        s3d.expect_clean()?;
    }
    Ok(())
}

/// Flips one random bit of a file.
fn flip_a_bit(file: &Path, rng: &mut Rng) -> Result<()> {
    let len_bytes = std::fs::metadata(file)?.len();
    flip_bit(file, rng.below(len_bytes), 1 << rng.below(8))
}

fn flip_bit(file: &Path, offset: u64, mask: u8) -> Result<()> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(file)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[byte[0] ^ mask], offset)?;
    Ok(file.sync_all()?)
}

/// GETs a random range of what should be `bytes`. An error is right, wrong bytes fail the test.
fn expect_range_or_error(s3: &mut S3, key: &str, bytes: &[u8], rng: &mut Rng) -> Result<()> {
    let start = rng.below(bytes.len() as u64) as usize;
    let end = start + 1 + rng.below((bytes.len() - start) as u64) as usize;
    let request = s3.request("GET", "flips", key, "", "").header("Range", format!("bytes={start}-{}", end - 1));
    let Ok(answer) = s3.call(request) else { return Ok(()) };
    let right = answer.status >= 500 || (answer.status == 206 && answer.body == bytes[start..end]);
    ensure!(right, "{key} {start}..{end}: {} with bytes that are not its own", answer.status);
    Ok(())
}

/// GETs what should be `bytes`. True: it is. False: an error was given. Wrong bytes given as if right fail the test.
fn is_readable(s3: &mut S3, key: &str, bytes: &[u8]) -> Result<bool> {
    match s3.get("flips", key) {
        Err(_) => Ok(false),
        Ok(answer) if answer.status >= 500 => Ok(false),
        Ok(answer) if answer.status != 200 => bail!("{key}: {} {}", answer.status, answer.text()),
        Ok(answer) => {
            ensure!(answer.body == bytes, "{key}: damaged bytes were served as if they were good");
            Ok(true)
        }
    }
}

#[test]
fn a_flipped_bit_is_never_served() -> Result<()> {
    let mut rng = Rng::for_test("a_flipped_bit");
    let mut s3d = S3d::start(config())?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket("flips")?;
    let sizes = [100 << 10, 64 << 10, (64 << 10) + 1, 9 << 10, MIB, 6 * MIB + 5, 40 * MIB];
    let objects: Objects =
        (0..14).map(|index| (format!("object-{index:02}"), body(index, sizes[index as usize % sizes.len()]))).collect();
    for (key, bytes) in &objects {
        s3.put("flips", key, bytes.clone())?.expect(200)?;
    }
    s3d.stop()?;
    s3d.expect_clean()?;

    let files: Vec<_> = s3d.chunk_files()?.into_iter().filter(|(_, len_bytes)| *len_bytes > 0).collect();
    let victims: Vec<_> = files.iter().step_by(2).collect();
    ensure!(victims.len() >= 7, "{} objects, and only {files:?}", objects.len());
    for (file, _) in &victims {
        flip_a_bit(file, &mut rng)?;
    }
    s3d.restart()?;
    let mut s3 = s3d.s3()?;
    let mut damaged = Vec::new();
    for (key, bytes) in &objects {
        if !is_readable(&mut s3, key, bytes)? {
            damaged.push(key);
        }
        for _ in 0..20 {
            expect_range_or_error(&mut s3, key, bytes, &mut rng)?;
        }
    }
    ensure!(!damaged.is_empty(), "{} flipped bits, and every object is still right", victims.len());
    ensure!(damaged.len() <= victims.len(), "{} files damaged, {damaged:?} gone", victims.len());
    s3d.stop()?;
    let check = s3d.check()?;
    ensure!(!check.clean, "s3d check found nothing: {}", check.report);
    let named = check.report.lines().filter(|line| line.starts_with("chunk ")).count();
    ensure!(named == victims.len(), "{} files are damaged, s3d check names {named}: {}", victims.len(), check.report);
    for key in damaged {
        ensure!(check.report.contains(key.as_str()), "s3d check does not name {key}: {}", check.report);
    }
    Ok(())
}

const TINY_BYTES: usize = 800;

/// Keys and what they hold.
type Objects = Vec<(String, Vec<u8>)>;

/// The head with its 200 is gone when the damage is met: the log must not say that all went well, and say it once.
#[test]
fn an_answer_that_is_cut_short_is_logged_as_such() -> Result<()> {
    let mut s3d = S3d::start(config())?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket("flips")?;
    s3.put("flips", "cut", body(1, 8 * MIB))?.expect(200)?;
    let files = s3d.chunk_files()?;
    let (chunk, len_bytes) = files.iter().max_by_key(|(_, len_bytes)| *len_bytes).context("no chunk")?;
    flip_bit(chunk, len_bytes - 1000, 1)?;
    // On a connection of its own: the client's would ask again.
    let mut get = s3.request("GET", "flips", "cut", "", "");
    s3.signer.sign(&mut get);
    ensure!(s3d.endpoint()?.connect()?.call(&get).is_err(), "damaged bytes were served whole");
    s3d.stop()?;
    let log = s3d.log_text();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    ensure!(errors.len() == 1 && errors[0].contains("\"cut\""), "not one line about it: {errors:?}");
    let request = log.lines().find(|line| line.contains("\"GetObject\"")).context("no line for the request")?;
    ensure!(request.contains("InternalError") && request.contains("cut=true"), "{request}");
    Ok(())
}

/// Stores tiny objects; their bytes are in the catalog's files then.
fn tiny_objects() -> Result<(S3d, Objects)> {
    let s3d = S3d::start(config())?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket("flips")?;
    let objects: Objects = (0..8).map(|index| (format!("tiny-{index}"), body(1000 + index, TINY_BYTES))).collect();
    for (key, bytes) in &objects {
        s3.put("flips", key, bytes.clone())?.expect(200)?;
    }
    Ok((s3d, objects))
}

/// Flips a bit in the middle of each tiny object's stored bytes, in the files whose names end with `suffix`. How many.
fn flip_stored(s3d: &S3d, suffix: &str) -> Result<usize> {
    let mut flipped = 0;
    let blobs = s3d.catalog_blobs(TINY_BYTES)?;
    for (file, _) in shell::files_under(&s3d.data_dir)? {
        if !file.to_string_lossy().ends_with(suffix) {
            continue;
        }
        let content = std::fs::read(&file)?;
        for blob in &blobs {
            let middle = &blob[blob.len() / 2..][..16];
            // Everywhere: pages keep stale copies of rows that were moved.
            let places = content.windows(16).enumerate().filter(|(_, window)| *window == middle);
            for (offset, _) in places {
                flip_bit(&file, offset as u64, 4)?;
                flipped += 1;
            }
        }
    }
    ensure!(flipped > 0, "no tiny object was found in files *{suffix}: is it stored elsewhere now?");
    Ok(flipped)
}

fn count_unreadable(s3: &mut S3, objects: &[(String, Vec<u8>)]) -> Result<usize> {
    let mut count = 0;
    for (key, bytes) in objects {
        count += usize::from(!is_readable(s3, key, bytes)?);
    }
    Ok(count)
}

#[test]
fn a_flipped_bit_of_a_tiny_object_is_never_served() -> Result<()> {
    let (mut s3d, objects) = tiny_objects()?;
    s3d.stop()?; // leaves nothing in the catalog's write-ahead log
    s3d.expect_clean()?;
    let flipped = flip_stored(&s3d, ".db")?;
    let check = s3d.check()?;
    ensure!(!check.clean, "{flipped} flipped bits, and s3d check found nothing");
    for (key, _) in &objects {
        ensure!(check.report.contains(key.as_str()), "s3d check does not name {key}: {}", check.report);
    }
    s3d.restart()?;
    let unreadable = count_unreadable(&mut s3d.s3()?, &objects)?;
    ensure!(unreadable == objects.len(), "{flipped} flipped bits, and {unreadable} objects cannot be read");
    Ok(())
}

/// SQLite takes a damaged write-ahead log for its end and drops what was committed after, without a word. The Raft log has
/// it all still.
#[test]
fn a_flipped_bit_of_the_catalogs_wal_loses_nothing() -> Result<()> {
    let (mut s3d, objects) = tiny_objects()?;
    s3d.kill();
    flip_stored(&s3d, ".db-wal")?;
    if s3d.restart().is_err() {
        // Refusing to start serves no wrong bytes either, and says so.
        return Ok(());
    }
    let unreadable = count_unreadable(&mut s3d.s3()?, &objects)?;
    ensure!(unreadable == 0, "{unreadable} objects cannot be read");
    s3d.stop()?;
    s3d.expect_clean()
}

/// Sends the head of a PUT of `len_bytes` and `sent_bytes` of its body.
fn begin_put(s3: &S3, key: &str, len_bytes: usize, sent_bytes: usize) -> Result<Connection> {
    let mut request = s3.request("PUT", "busy", key, "", "").header("Content-Length", len_bytes.to_string());
    s3.signer.sign_as(&mut request, UNSIGNED_PAYLOAD);
    let mut connection = s3.endpoint.connect()?;
    connection.write(&request.head())?;
    connection.write(&body(1, sent_bytes))?;
    Ok(connection)
}

#[test]
fn overload_is_answered_with_slow_down() -> Result<()> {
    let s3d = S3d::start(config().set(setting::MEMORY_BUDGET, "16MiB").set(setting::BODY_TIMEOUT, "60s"))?;
    let mut s3 = s3d.s3()?;
    s3.create_bucket("busy")?;
    // Each may hold some of the budget for as long as it dawdles.
    let mut stalled = Vec::new();
    for index in 0..200 {
        match begin_put(&s3, &format!("stalled-{index}"), 64 * MIB, 256 << 10) {
            Ok(connection) => stalled.push(connection),
            // Refused while it was still sending: that is an answer too.
            Err(_) => break,
        }
    }
    let mut refusals = 0;
    for connection in &mut stalled {
        connection.set_read_timeout(Duration::from_millis(20))?;
        if let Ok(answer) = connection.response("PUT") {
            ensure!(answer.status == 503 && answer.code() == "SlowDown", "{} {}", answer.status, answer.text());
            refusals += 1;
        }
    }
    if refusals == 0 {
        let answer = s3.put("busy", "one-more", body(2, 8 * MIB))?;
        ensure!(answer.status == 503 && answer.code() == "SlowDown", "{} {}", answer.status, answer.text());
    }
    drop(stalled);
    let deadline = Instant::now() + PATIENCE;
    while s3.put("busy", "after", body(3, 8 * MIB))?.status != 200 {
        ensure!(Instant::now() < deadline, "still overloaded {PATIENCE:?} after everybody left");
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(s3.list("busy")?.len() == 1, "an object that was never whole is listed");
    Ok(())
}
