//! A mounted bucket is a POSIX file system: what others' testers of file systems find in it. `PREDASTORE_TEST_FSX_SECONDS`,
//! `PREDASTORE_TEST_FIO_MIB`, `PREDASTORE_TEST_STRESS_SECONDS`; with `PREDASTORE_TEST_MOUNT_DIR` they run in a directory of
//! another file system, which tells what they find in that.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use predastore_tests::knobs::{Need, number, say, tool};
use predastore_tests::mount::{on_box, on_cluster};
use predastore_tests::random::Rng;
use predastore_tests::shell::{both_streams, command, find_program, output_within, run_within};

/// How long one run of a tester may take.
const PATIENCE: Duration = Duration::from_secs(1200);

fn configuration(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("posix").join(name)
}

const PJDFSTEST: [Need; 2] = [Need::Root, Need::Tool("pjdfstest")];

#[test]
fn pjdfstest_on_a_box() -> Result<()> {
    on_box("pjdfstest_on_a_box", &PJDFSTEST, |dir| pjdfstest("a box", dir))
}

#[test]
fn pjdfstest_on_a_cluster() -> Result<()> {
    on_cluster("pjdfstest_on_a_cluster", &PJDFSTEST, |dir| pjdfstest("a cluster", dir))
}

/// Why a test may be skipped.
const SKIPPED: [&str; 2] = [
    // link_count_max: libc knows the limit of a few file systems by their numbers; to that of FUSE and of tmpfs it has none.
    "Cannot get value for LINK_MAX",
    // The tests of EROFS have a run of their own.
    "Remounts (allow_remount) are not allowed",
];

/// What pjdfstest said of a test.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    name: String,
    /// `ok`, `skipped`, `FAILED`, ….
    word: String,
    /// The lines below it.
    reasons: Vec<String>,
}

/// Every test of pjdfstest: none fails, and none is skipped without a reason. Those of EROFS first, by themselves: others leave files
/// open, and a file system with a writer cannot be made read-only.
fn pjdfstest(place: &str, dir: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let told = fs::read_to_string(configuration("pjdfstest.toml"))?;
    let without = scratch.path().join("without-remounts.toml");
    fs::write(&without, told.replace("allow_remount = true", "allow_remount = false"))?;
    run_pjdfstest(&format!("EROFS on {place}"), dir, &configuration("pjdfstest.toml"), &["erofs"])?;
    run_pjdfstest(place, dir, &without, &[])
}

fn run_pjdfstest(place: &str, dir: &Path, configuration: &Path, patterns: &[&str]) -> Result<()> {
    let (elsewhere, programs) = (another_file_system(dir)?, mount_without_helpers()?);
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH")?);
    let mut pjdfstest = Command::new(tool("pjdfstest"));
    pjdfstest.arg("-c").arg(configuration).arg("-p").arg(dir).arg("-s").arg(elsewhere.path()).args(patterns);
    let started = Instant::now();
    let output = output_within(PATIENCE, pjdfstest.env("PATH", path).env("NO_COLOR", "1").env("RUST_BACKTRACE", "0"))?;
    let text = both_streams(&output);
    let summary =
        text.lines().find(|line| line.starts_with("Summary:")).with_context(|| format!("no summary: {text}"))?;
    say(&format!("pjdfstest on {place}: {summary} in {:.1} s", started.elapsed().as_secs_f64()));
    let bad: Vec<_> = verdicts(&text).into_iter().filter(|verdict| !is_good(verdict)).collect();
    let list = bad.iter().map(|bad| format!("{} {}: {}", bad.name, bad.word, bad.reasons.join("; ")));
    ensure!(bad.is_empty(), "{summary}\n{}", list.collect::<Vec<_>>().join("\n"));
    ensure!(output.status.success() && summary.contains(" 0 failed"), "{text}");
    Ok(())
}

/// A directory with the `mount` that the tester is to call: it would run the helper for FUSE, which knows no remount.
fn mount_without_helpers() -> Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let (dir, mount) = (tempfile::tempdir()?, find_program("mount").context("no mount")?);
    let wrapper = dir.path().join("mount");
    fs::write(&wrapper, format!("#!/bin/sh\nexec {} --internal-only \"$@\"\n", mount.display()))?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

fn is_good(verdict: &Verdict) -> bool {
    let is_of_others = |reason: &String| SKIPPED.iter().any(|of_others| reason.starts_with(of_others));
    verdict.word == "ok" || (verdict.word == "skipped" && verdict.reasons.iter().any(is_of_others))
}

/// A line without indentation begins a test: its name, spaces, what came of it. Others say more of the last one.
fn verdicts(text: &str) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = Vec::new();
    for line in text.lines().take_while(|line| !line.starts_with("Summary:")).filter(|line| !line.is_empty()) {
        let begins = line.split_once(' ').filter(|(name, _)| name.contains("::") && !line.starts_with([' ', '\t']));
        match (begins, verdicts.last_mut()) {
            (Some((name, word)), _) => {
                verdicts.push(Verdict { name: name.into(), word: word.trim().into(), reasons: Vec::new() });
            }
            (None, Some(last)) => last.reasons.push(line.trim().into()),
            (None, None) => {}
        }
    }
    verdicts
}

#[test]
fn verdicts_are_read() {
    let text = "chmod::ctime::reg    ok\nlink::x  skipped\n\tCannot get value for LINK_MAX: x\n  more\n\nSummary: 0 failed, 1 skipped\n";
    let verdicts = verdicts(text);
    assert_eq!(verdicts.len(), 2);
    assert!(verdicts.iter().all(is_good), "{verdicts:?}");
    assert_eq!(verdicts[1].reasons, ["Cannot get value for LINK_MAX: x", "more"]);
    assert!(!is_good(&Verdict { name: "x::y".into(), word: "FAILED".into(), reasons: vec![] }));
}

/// A directory that lies on another file system than `dir`, for EXDEV.
fn another_file_system(dir: &Path) -> Result<tempfile::TempDir> {
    for candidate in [std::env::temp_dir(), "/dev/shm".into()] {
        if candidate.metadata().is_ok_and(|meta| dir.metadata().is_ok_and(|own| own.dev() != meta.dev())) {
            return Ok(tempfile::tempdir_in(candidate)?);
        }
    }
    bail!("no other file system than that of {}", dir.display())
}

/// Reads, writes, maps, truncates, punches and copies, and compares with what it should find. Each round has a seed of its own.
#[test]
fn fsx() -> Result<()> {
    on_box("fsx", &[Need::Tool("fsx")], |dir| {
        let mut rng = Rng::for_test("fsx");
        let end = Instant::now() + Duration::from_secs(number("PREDASTORE_TEST_FSX_SECONDS", 10));
        let artifacts = tempfile::tempdir()?;
        let mut rounds = 0;
        while rounds == 0 || Instant::now() < end {
            let seed = rng.next_u64() >> 32;
            let mut fsx = Command::new(tool("fsx"));
            fsx.arg("-f").arg(configuration("fsx.toml")).arg("-P").arg(artifacts.path());
            fsx.args(["-N", "2000", "-S", &seed.to_string()]).arg(dir.join(format!("fsx-{}", rounds % 8)));
            run_within(PATIENCE, &mut fsx)?;
            rounds += 1;
        }
        say(&format!("fsx: {rounds} rounds of 2000 operations"));
        Ok(())
    })
}

/// Random writes in blocks of many sizes, some synced, all read back by their checksums.
#[test]
fn fio_verifies_random_writes() -> Result<()> {
    on_box("fio", &[Need::Program("fio")], |dir| {
        let mib = number("PREDASTORE_TEST_FIO_MIB", 16);
        // Maps are written by pages. A sync for each write costs as much as all the others.
        let runs = [("psync", "512", "--fsync=16", mib), ("mmap", "4k", "--fsync=64", mib)];
        for (engine, least, sync, mib) in runs.into_iter().chain([("psync", "512", "--fdatasync=1", mib.div_ceil(8))]) {
            let mut fio = command(&["fio", "--name=verify", "--rw=randwrite", "--verify=crc32c", "--verify_fatal=1"]);
            fio.args(["--do_verify=1", "--numjobs=2", "--group_reporting", &format!("--bsrange={least}-64k"), sync]);
            fio.args([&format!("--ioengine={engine}"), &format!("--size={mib}M")]);
            fio.arg(format!("--directory={}", dir.display())).current_dir(dir);
            run_within(PATIENCE, &mut fio).with_context(|| format!("fio with {engine} {sync}"))?;
        }
        Ok(())
    })
}

/// Of stress-ng's stressors of file systems those that need nothing but files.
const STRESSORS: &str = "access chdir chmod chown copy-file dentry dir dirdeep dirmany fallocate fcntl filename flock fpunch \
                         fsize fstat getdent hdd iomix link lockf lockofd mknod mmap open rename seek symlink sync-file touch \
                         utime xattr";

#[test]
fn stressors_find_nothing() -> Result<()> {
    on_box("stressors", &[Need::Program("stress-ng")], |dir| {
        let mut failed = Vec::new();
        for stressor in STRESSORS.split_whitespace() {
            if let Err(error) = stress(stressor, dir) {
                failed.push(format!("{stressor}: {error:#}"));
            }
        }
        ensure!(failed.is_empty(), "{} stressors: {}", failed.len(), failed.join("\n"));
        let left: Vec<_> = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
        ensure!(left.is_empty(), "they left {left:?}");
        Ok(())
    })
}

fn stress(stressor: &str, dir: &Path) -> Result<()> {
    let seconds = number("PREDASTORE_TEST_STRESS_SECONDS", 1);
    let mut stress = command(&["stress-ng", "--verify", "--no-rand-seed", "--temp-path"]);
    stress.arg(dir).args([&format!("--{stressor}"), "2", "--timeout", &format!("{seconds}s")]);
    if stressor == "hdd" {
        stress.args(["--hdd-bytes", "16M"]);
    }
    run_within(Duration::from_secs(180 + seconds), &mut stress).map(drop)
}
