//! Real clients over TLS, as their users run them. Larger forms: `PREDASTORE_TEST_TREE`: files of each tree;
//! `PREDASTORE_TEST_LARGE=1`: the multipart object has 6 GiB instead of 600 MiB.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use predastore_tests::clients::Clients;
use predastore_tests::knobs::{Need, can_run, flag, say};
use predastore_tests::random::body;
use predastore_tests::s3d::{Config, S3d};
use predastore_tests::tree::{Names, contents, make_tree, same_tree};

fn box_and_clients() -> Result<(S3d, Clients)> {
    let s3d = S3d::start(Config::default())?;
    let clients = Clients::new(&s3d)?;
    Ok((s3d, clients))
}

/// Fails with the end of the server's log, so that a client's vague complaint can be explained.
fn explained<T>(s3d: &S3d, outcome: Result<T>) -> Result<T> {
    outcome.with_context(|| s3d.log_tail())
}

/// The keys of the bucket that begin with `prefix` are the names of what is under `dir`.
fn same_keys(s3d: &S3d, bucket: &str, prefix: &str, dir: &Path) -> Result<()> {
    let listed = s3d.s3()?.list(bucket)?;
    let keys = listed.iter().filter_map(|row| row.key.strip_prefix(prefix));
    // s3fs keeps directories as keys with a slash at their end.
    let keys: BTreeSet<String> = keys.filter(|key| !key.ends_with('/') && !key.is_empty()).map(str::to_owned).collect();
    let names: BTreeSet<String> = contents(dir)?.into_keys().collect();
    let (missing, strange): (Vec<_>, Vec<_>) = (names.difference(&keys).collect(), keys.difference(&names).collect());
    ensure!(missing.is_empty() && strange.is_empty(), "no keys for {missing:?}; no files for {strange:?}");
    Ok(())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

#[test]
fn aws_cli() -> Result<()> {
    let (s3d, clients) = box_and_clients()?;
    explained(&s3d, aws_cli_session(&s3d, &clients))
}

fn aws_cli_session(s3d: &S3d, clients: &Clients) -> Result<()> {
    let (source, target) = (clients.scratch().join("source"), clients.scratch().join("target"));
    make_tree(&source, 2000, Names::Any)?;
    let file = clients.scratch().join("file");
    std::fs::write(&file, body(1, 20 << 20))?;
    let aws = |words: &[&str]| clients.aws(words);

    aws(&["s3", "mb", "s3://aws-bucket"])?;
    aws(&["s3", "cp", "--no-progress", text(&file), "s3://aws-bucket/dir/file name"])?;
    ensure!(aws(&["s3", "ls", "s3://aws-bucket/"])?.contains("PRE dir/"));
    ensure!(aws(&["s3", "ls", "s3://aws-bucket/dir/"])?.contains("20971520 file name"));
    aws(&["s3", "cp", "--no-progress", "s3://aws-bucket/dir/file name", "s3://aws-bucket/copy"])?;
    let back = clients.scratch().join("back");
    aws(&["s3", "cp", "--no-progress", "s3://aws-bucket/copy", text(&back)])?;
    ensure!(std::fs::read(&back)? == std::fs::read(&file)?, "the copy differs");
    aws(&["s3", "mv", "--no-progress", "s3://aws-bucket/copy", "s3://aws-bucket/moved"])?;
    ensure!(aws(&["s3", "ls", "s3://aws-bucket/copy"]).is_err(), "the source of mv is still there");

    let url = aws(&["s3", "presign", "s3://aws-bucket/moved", "--expires-in", "60"])?;
    let curled = clients.scratch().join("curled");
    clients.curl(&["-o", text(&curled), url.trim()])?;
    ensure!(std::fs::read(&curled)? == std::fs::read(&file)?, "the presigned download differs");
    ensure!(clients.curl(&[&url.trim().replace("Signature=", "Signature=0")]).is_err(), "a forged URL was served");

    aws(&["s3", "sync", "--no-progress", text(&source), "s3://aws-bucket/tree"])?;
    same_keys(s3d, "aws-bucket", "tree/", &source)?;
    ensure!(aws(&["s3", "sync", text(&source), "s3://aws-bucket/tree"])?.trim().is_empty(), "a second sync found work");
    aws(&["s3", "sync", "--no-progress", "s3://aws-bucket/tree", text(&target)])?;
    same_tree(&source, &target)?;
    std::fs::remove_dir_all(source.join("plain d0")).ok();
    aws(&["s3", "sync", "--no-progress", "--delete", text(&source), "s3://aws-bucket/tree"])?;
    same_keys(s3d, "aws-bucket", "tree/", &source).context("after sync --delete")?;

    let words =
        ["s3api", "list-objects-v2", "--bucket", "aws-bucket", "--max-items", "3", "--query", "length(Contents)"];
    ensure!(aws(&words)?.trim() == "3");
    aws(&["s3", "rm", "--quiet", "--recursive", "s3://aws-bucket/"])?;
    aws(&["s3", "rb", "s3://aws-bucket"])?;
    ensure!(!aws(&["s3", "ls"])?.contains("aws-bucket"));
    ensure!(!s3d.log_text().contains(&s3d.credentials().secret_key), "the secret key is in the log");
    Ok(())
}

fn boto(script: &str) -> Result<()> {
    let (s3d, clients) = box_and_clients()?;
    explained(&s3d, clients.python(script).map(drop))
}

#[test]
fn boto3_objects() -> Result<()> {
    boto("boto_objects.py")
}

#[test]
fn boto3_multipart() -> Result<()> {
    boto("boto_multipart.py")
}

#[test]
fn boto3_listing() -> Result<()> {
    boto("boto_listing.py")
}

#[test]
fn boto3_versions() -> Result<()> {
    boto("boto_versions.py")
}

#[test]
fn s3cmd() -> Result<()> {
    if !can_run("s3cmd", &[Need::Program("s3cmd")]) {
        return Ok(());
    }
    let (s3d, clients) = box_and_clients()?;
    explained(&s3d, s3cmd_session(&s3d, &clients))
}

fn s3cmd_session(s3d: &S3d, clients: &Clients) -> Result<()> {
    let (source, target) = (clients.scratch().join("source"), clients.scratch().join("target"));
    make_tree(&source, 150, Names::Printable)?;
    let large = clients.scratch().join("large");
    std::fs::write(&large, body(3, 17 << 20))?;
    let s3cmd = |words: &[&str]| clients.s3cmd(words);

    s3cmd(&["mb", "s3://s3cmd-bucket"])?;
    ensure!(s3cmd(&["ls"])?.contains("s3://s3cmd-bucket"));
    s3cmd(&["put", text(&large), "s3://s3cmd-bucket/large"])?;
    let back = clients.scratch().join("back");
    s3cmd(&["get", "s3://s3cmd-bucket/large", text(&back)])?;
    ensure!(std::fs::read(&back)? == body(3, 17 << 20), "the multipart object differs");
    s3cmd(&["sync", &format!("{}/", text(&source)), "s3://s3cmd-bucket/tree/"])?;
    same_keys(s3d, "s3cmd-bucket", "tree/", &source)?;
    std::fs::create_dir_all(&target)?;
    s3cmd(&["sync", "s3://s3cmd-bucket/tree/", &format!("{}/", text(&target))])?;
    same_tree(&source, &target)?;
    s3cmd(&["cp", "s3://s3cmd-bucket/large", "s3://s3cmd-bucket/copied"])?;
    s3cmd(&["mv", "s3://s3cmd-bucket/copied", "s3://s3cmd-bucket/moved"])?;
    ensure!(s3cmd(&["info", "s3://s3cmd-bucket/moved"])?.contains(&(17 << 20).to_string()));
    s3cmd(&["del", "--recursive", "--force", "s3://s3cmd-bucket/"])?;
    s3cmd(&["rb", "s3://s3cmd-bucket"]).map(drop)
}

#[test]
fn rclone() -> Result<()> {
    if !can_run("rclone", &[Need::Program("rclone")]) {
        return Ok(());
    }
    let (s3d, clients) = box_and_clients()?;
    explained(&s3d, rclone_session(&s3d, &clients))
}

fn rclone_session(s3d: &S3d, clients: &Clients) -> Result<()> {
    let (source, target) = (clients.scratch().join("source"), clients.scratch().join("target"));
    make_tree(&source, 1000, Names::Printable)?;
    // Above rclone's cut-off for a single PUT with a small chunk size.
    std::fs::write(source.join("large"), body(4, 30 << 20))?;
    let multipart = ["--s3-upload-cutoff", "10M", "--s3-chunk-size", "5M"];
    let rclone = |words: &[&str]| clients.rclone(words);

    rclone(&["mkdir", "pd:rclone-bucket"])?;
    rclone(&[&["copy", text(&source), "pd:rclone-bucket/tree"][..], &multipart].concat())?;
    same_keys(s3d, "rclone-bucket", "tree/", &source)?;
    rclone(&["check", text(&source), "pd:rclone-bucket/tree"])?;
    rclone(&["check", "--download", text(&source), "pd:rclone-bucket/tree"])?;
    rclone(&["sync", "pd:rclone-bucket/tree", text(&target)])?;
    same_tree(&source, &target)?;
    // rclone keeps modification times in user metadata: nothing to do the second time.
    let again = rclone(&["sync", "--dry-run", "--use-json-log", "pd:rclone-bucket/tree", text(&target)])?;
    ensure!(!again.contains("Skipped"), "{again}");
    rclone(&["copy", "pd:rclone-bucket/tree", "pd:rclone-bucket/copied"])?;
    rclone(&["check", "pd:rclone-bucket/tree", "pd:rclone-bucket/copied"])?;
    std::fs::remove_file(source.join("large"))?;
    rclone(&["sync", text(&source), "pd:rclone-bucket/tree"])?;
    ensure!(!rclone(&["lsf", "pd:rclone-bucket/tree"])?.contains("large"), "sync left what is gone at the source");
    rclone(&["purge", "pd:rclone-bucket"]).map(drop)
}

#[test]
fn restic() -> Result<()> {
    if !can_run("restic", &[Need::Program("restic")]) {
        return Ok(());
    }
    let (s3d, clients) = box_and_clients()?;
    explained(&s3d, restic_session(&clients))
}

fn restic_session(clients: &Clients) -> Result<()> {
    let (source, target) = (clients.scratch().join("source"), clients.scratch().join("target"));
    make_tree(&source, 1500, Names::Any)?;
    let restic = |words: &[&str]| clients.restic("restic-bucket", words);
    restic(&["init"])?;
    restic(&["backup", text(&source)])?;
    std::fs::write(source.join("later"), body(5, 3 << 20))?;
    restic(&["backup", text(&source)])?;
    restic(&["check", "--read-data"])?;
    restic(&["restore", "latest", "--target", text(&target)])?;
    same_tree(&source, &target.join(source.strip_prefix("/")?))?;
    restic(&["forget", "--keep-last", "1", "--prune"])?;
    restic(&["check", "--read-data"])?;
    ensure!(restic(&["snapshots", "--json"])?.matches("\"short_id\"").count() == 1);
    Ok(())
}

#[test]
fn s3fs_mount() -> Result<()> {
    if !can_run("s3fs_mount", &[Need::Root, Need::Fuse, Need::Program("s3fs")]) {
        return Ok(());
    }
    let (s3d, clients) = box_and_clients()?;
    explained(&s3d, s3fs_session(&s3d, &clients))
}

fn s3fs_session(s3d: &S3d, clients: &Clients) -> Result<()> {
    s3d.s3()?.create_bucket("s3fs-bucket")?;
    let source = clients.scratch().join("source");
    make_tree(&source, 120, Names::Printable)?;
    std::fs::write(source.join("large"), body(6, 25 << 20))?;
    let mount = clients.s3fs("s3fs-bucket")?;
    ensure!(mount.is_mounted(), "s3fs did not mount");
    predastore_tests::shell::run(
        predastore_tests::shell::command(&["cp", "-r", "--preserve=mode,timestamps"]).arg(&source).arg(mount.path()),
    )?;
    let copied = mount.path().join("source");
    same_tree(&source, &copied)?;
    same_keys(s3d, "s3fs-bucket", "source/", &source)?;
    std::fs::rename(copied.join("large"), copied.join("renamed"))?;
    ensure!(std::fs::read(copied.join("renamed"))? == body(6, 25 << 20), "the renamed file differs");
    std::fs::write(copied.join("new"), b"through the mount")?;
    drop(mount);
    s3d.s3()?.expect_body("s3fs-bucket", "source/new", b"through the mount")?;
    let mount = clients.s3fs("s3fs-bucket")?;
    ensure!(
        std::fs::read(mount.path().join("source/renamed"))? == body(6, 25 << 20),
        "the file differs after a new mount"
    );
    std::fs::remove_dir_all(mount.path().join("source"))?;
    ensure!(std::fs::read_dir(mount.path())?.next().is_none(), "something is left");
    Ok(())
}

/// One object by multipart, with the AWS CLI's own part size, up and down.
#[test]
fn a_large_object() -> Result<()> {
    let len_mib: u64 = if flag("PREDASTORE_TEST_LARGE") { 6 << 10 } else { 600 };
    let (s3d, clients) = box_and_clients()?;
    let (file, back) = (clients.scratch().join("large"), clients.scratch().join("back"));
    let mut writer = File::create(&file)?;
    for index in 0..len_mib {
        writer.write_all(&body(index, 1 << 20))?;
    }
    drop(writer);
    let started = std::time::Instant::now();
    let transfer = || -> Result<()> {
        clients.aws(&["s3", "mb", "s3://large-bucket"])?;
        clients.aws(&["s3", "cp", "--no-progress", text(&file), "s3://large-bucket/large"])?;
        std::fs::remove_file(&file)?;
        clients.aws(&["s3", "cp", "--no-progress", "s3://large-bucket/large", text(&back)])?;
        Ok(())
    };
    explained(&s3d, transfer())?;
    say(&format!("aws cli: {len_mib} MiB up and down in {:.1} s", started.elapsed().as_secs_f64()));
    let mut reader = BufReader::new(File::open(&back)?);
    let mut block = vec![0; 1 << 20];
    for index in 0..len_mib {
        reader.read_exact(&mut block)?;
        ensure!(block == body(index, 1 << 20), "MiB {index} differs");
    }
    ensure!(reader.read(&mut block)? == 0, "it is longer than what was sent");
    Ok(())
}
