//! One bucket, a file system and S3 at once: what is done by one is what the other sees. `PREDASTORE_TEST_MODEL_STEPS`: of the
//! random tests.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use md5::{Digest, Md5};
use predastore_tests::knobs::{WithLogs, number, say};
use predastore_tests::mount::{BUCKET, Mount, Server, can_mount, mountpoint, other_file_system};
use predastore_tests::random::{Rng, body};
use predastore_tests::s3::S3;
use predastore_tests::sigv4::hex;
use predastore_tests::tree::{Names, contents, make_tree, same_tree};
use predastore_tests::views::{Views, difference};

const MIB: usize = 1 << 20;

/// How long a mount may keep to what it saw before S3 changed it.
const COHERENCE: Duration = Duration::from_secs(3);

/// Runs `session` with a fresh box's mount and S3.
fn both(test: &str, session: impl FnOnce(&Path, &mut S3) -> Result<()>) -> Result<()> {
    if !can_mount(test, &[]) {
        return Ok(());
    }
    let server = Server::one_box()?;
    let dir = mountpoint()?;
    let mount = Mount::new(server.gateways()[0], BUCKET, dir.path())?;
    let outcome = session(dir.path(), &mut server.gateways()[0].s3()?);
    outcome.with_logs(|| server.log_tails())?;
    mount.unmount()?;
    server.finish()
}

/// Repeats what looks through a mount until it succeeds: another changed what it looks at.
fn soon<T>(mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match look() {
            Err(_) if started.elapsed() < COHERENCE => std::thread::sleep(Duration::from_millis(5)),
            outcome => return outcome.with_context(|| format!("{:?} later", started.elapsed())),
        }
    }
}

fn expect(holds: bool, otherwise: &'static str) -> Result<()> {
    ensure!(holds, otherwise);
    Ok(())
}

fn keys(s3: &mut S3) -> Result<Vec<String>> {
    Ok(s3.list(BUCKET)?.into_iter().map(|row| row.key).collect())
}

fn expect_keys(s3: &mut S3, expected: &[&str]) -> Result<()> {
    let keys = keys(s3)?;
    ensure!(keys == expected, "the listing has {keys:?}, and should have {expected:?}");
    Ok(())
}

/// GETs `key`: exactly `bytes`, and their MD5 for an ETag, in the listing too.
fn expect_object(s3: &mut S3, key: &str, bytes: &[u8]) -> Result<()> {
    let got = s3.get(BUCKET, key)?.expect(200)?;
    ensure!(got.body == bytes, "{key}: {}", difference(&got.body, bytes));
    let (etag, md5) = (got.get("etag").context("no ETag")?.trim_matches('"'), hex(&Md5::digest(bytes)));
    ensure!(etag == md5, "{key}: ETag {etag}, MD5 {md5}");
    let listed = s3.list_prefix(BUCKET, key)?;
    let row = listed.iter().find(|row| row.key == key).with_context(|| format!("{key} is not listed"))?;
    ensure!(row.size == bytes.len() as u64 && row.etag == md5, "{row:?}");
    Ok(())
}

#[test]
fn files_are_objects() -> Result<()> {
    both("files_are_objects", |dir, s3| {
        // Inlined, one chunk, at the borders of blocks and chunks, several chunks.
        let sizes = [0, 1, 4096, 8191, 8192, 8193, 65_537, MIB, 5 * MIB + 3, 33 * MIB, 70 * MIB + 1];
        for (index, len) in (0..).zip(sizes) {
            let (name, bytes) = (format!("dir/file-{index}"), body(index, len));
            fs::create_dir_all(dir.join("dir"))?;
            fs::write(dir.join(&name), &bytes)?;
            expect_object(s3, &name, &bytes)?;
            let range = s3.request("GET", BUCKET, &name, "", "").header("Range", "bytes=1-5000");
            let range = s3.call(range)?;
            ensure!(len < 2 || range.body == bytes[1..len.min(5001)], "{name}: a range of it differs");
        }
        let odd_sizes = [1, 100, 8191, 3, 70_000];
        let bytes = body(99, odd_sizes.iter().sum());
        let mut file = File::create(dir.join("in pieces"))?;
        let mut rest = &bytes[..];
        for size in odd_sizes {
            let (piece, others) = rest.split_at(size);
            file.write_all(piece)?;
            rest = others;
        }
        drop(file);
        expect_object(s3, "in pieces", &bytes)
    })
}

#[test]
fn objects_are_files() -> Result<()> {
    both("objects_are_files", |dir, s3| {
        for (index, len) in (0..).zip([0, 1, 8192, 8193, MIB, 9 * MIB + 1, 40 * MIB]) {
            let (key, bytes) = (format!("some/implied/dirs-{}/object-{index}", index % 2), body(index, len));
            s3.put(BUCKET, &key, bytes.clone())?.expect(200)?;
            let found = soon(|| Ok(fs::read(dir.join(&key))?))?;
            ensure!(found == bytes, "{key}: {}", difference(&found, &bytes));
            // From the middle, past the end.
            let mut file = File::open(dir.join(&key))?;
            file.seek(SeekFrom::Start(len as u64 / 2))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            ensure!(tail == bytes[len / 2..], "{key}: its second half differs");
        }
        let parts = vec![body(50, 5 * MIB), body(51, 5 * MIB), body(52, 777)];
        s3.put_multipart(BUCKET, "in parts", parts.clone())?.expect(200)?;
        ensure!(soon(|| Ok(fs::read(dir.join("in parts"))?))? == parts.concat(), "an object in parts differs");
        s3.delete(BUCKET, "in parts")?.expect(204)?;
        soon(|| expect(!dir.join("in parts").exists(), "a deleted object is still a file"))?;
        s3.put(BUCKET, "marker/", "")?.expect(200)?;
        soon(|| expect(dir.join("marker").is_dir(), "a key with a slash at its end is no directory"))
    })
}

/// Thousands of files with awkward names, carried in by one and out by the other.
#[test]
fn a_tree_is_the_same_through_both() -> Result<()> {
    both("a_tree_is_the_same_through_both", |dir, s3| {
        let local = tempfile::tempdir()?;
        make_tree(local.path(), 400, Names::Any)?;
        for (name, bytes) in contents(local.path())? {
            let path = dir.join("written").join(&name);
            fs::create_dir_all(path.parent().context("a parent")?)?;
            fs::write(path, &bytes)?;
            s3.put(BUCKET, &format!("put/{name}"), bytes)?.expect(200)?;
        }
        same_tree(local.path(), &dir.join("written"))?;
        soon(|| same_tree(local.path(), &dir.join("put")))?;
        let listed = s3.list_prefix(BUCKET, "written/")?;
        let listed: Vec<_> = listed.into_iter().filter(|row| !row.key.ends_with('/')).collect();
        let put = s3.list_prefix(BUCKET, "put/")?;
        let bare = |prefix, rows: &[predastore_tests::s3::Listed]| {
            rows.iter()
                .map(|row| (row.key.strip_prefix(prefix).map(str::to_owned), row.size, row.etag.clone()))
                .collect::<Vec<_>>()
        };
        ensure!(bare("written/", &listed) == bare("put/", &put), "the listings of the two differ");
        Ok(())
    })
}

#[test]
fn attributes_are_metadata() -> Result<()> {
    both("attributes_are_metadata", |dir, s3| {
        let file = dir.join("file");
        fs::write(&file, "text")?;
        fs::set_permissions(&file, Permissions::from_mode(0o640))?;
        chown(&file, Some(1234), Some(567))?;
        File::open(&file)?.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567_890))?;
        let head = s3.head(BUCKET, "file")?.expect(200)?;
        let meta = |name: &str| head.get(&format!("x-amz-meta-{name}")).with_context(|| format!("no {name}: {head:?}"));
        ensure!(meta("mode")?.parse::<u32>()? & 0o7777 == 0o640, "{head:?}");
        ensure!((meta("uid")?, meta("gid")?) == ("1234", "567"), "{head:?}");
        ensure!(meta("mtime")?.parse::<f64>()? as u64 == 1_234_567_890, "{head:?}");
        // As s3fs sends it: the whole mode in decimal. Bits that give privileges are dropped.
        let put = s3.request("PUT", BUCKET, "sent", "", "text");
        let put = put.header("x-amz-meta-mode", (0o100_000 | 0o4751).to_string());
        s3.call(put.header("x-amz-meta-mtime", "1000000000").header("x-amz-meta-colour", "red"))?.expect(200)?;
        let meta = soon(|| Ok(fs::metadata(dir.join("sent"))?))?;
        ensure!(meta.mode() & 0o7777 == 0o751, "mode {:o}", meta.mode());
        ensure!(meta.mtime() == 1_000_000_000, "mtime {}", meta.mtime());
        // What it replaces leaves its mode and owner.
        s3.put(BUCKET, "file", "other")?.expect(200)?;
        let meta = soon(|| {
            let meta = fs::metadata(&file)?;
            ensure!(meta.len() == 5, "it still has {} bytes", meta.len());
            Ok(meta)
        })?;
        ensure!((meta.mode() & 0o7777, meta.uid(), meta.gid()) == (0o640, 1234, 567), "{meta:?}");
        // A write through the mount keeps the user's own metadata.
        fs::write(dir.join("sent"), "changed")?;
        let head = s3.head(BUCKET, "sent")?.expect(200)?;
        ensure!(head.get("x-amz-meta-colour") == Some("red"), "{head:?}");
        Ok(())
    })
}

#[test]
fn a_renamed_directory_is_renamed_in_the_listing() -> Result<()> {
    both("a_renamed_directory", |dir, s3| {
        let count = number("PREDASTORE_TEST_RENAME_KEYS", 1000);
        for index in 0..count {
            s3.put(BUCKET, &format!("from/d{}/key-{index:07}", index % 10), "x")?.expect(200)?;
        }
        soon(|| expect(dir.join("from/d9").is_dir(), "no directory where S3 put keys"))?;
        let started = Instant::now();
        fs::rename(dir.join("from"), dir.join("to"))?;
        let took = started.elapsed();
        let keys = keys(s3)?;
        ensure!(!keys.iter().any(|key| key.starts_with("from/")), "the old name is still listed");
        ensure!(keys.iter().filter(|key| key.starts_with("to/d")).count() as u64 == count, "{} keys", keys.len());
        s3.expect_body(BUCKET, "to/d0/key-0000000", b"x")?;
        ensure!(fs::read(dir.join("to/d0/key-0000000"))? == b"x");
        say(&format!("mv of a directory of {count} keys: {took:?}"));
        Ok(())
    })
}

/// `uid=`, `gid=` and `umask=` are for what nobody gave an owner.
#[test]
fn objects_are_whose_the_mount_says() -> Result<()> {
    if !can_mount("objects_are_whose_the_mount_says", &[]) {
        return Ok(());
    }
    let server = Server::one_box()?;
    let (mut s3, dir) = (server.gateways()[0].s3()?, mountpoint()?);
    s3.put(BUCKET, "d/object", "text")?.expect(200)?;
    let mount = Mount::with(server.gateways()[0], BUCKET, dir.path(), "allow_other,uid=1234,gid=567,umask=027")?;
    let shown = |path: &str| -> Result<(u32, u32, u32)> {
        let meta = fs::metadata(dir.path().join(path))?;
        Ok((meta.uid(), meta.gid(), meta.mode() & 0o7777))
    };
    ensure!(shown("d/object")? == (1234, 567, 0o640) && shown("d")? == (1234, 567, 0o750), "{:?}", shown("d/object")?);
    fs::write(dir.path().join("d/own"), "text")?;
    ensure!(shown("d/own")? == (0, 0, 0o644), "what root makes is root's: {:?}", shown("d/own")?);
    fs::set_permissions(dir.path().join("d/object"), Permissions::from_mode(0o600))?;
    ensure!(shown("d/object")? == (1234, 567, 0o600), "{:?}", shown("d/object")?);
    mount.unmount()?;
    // What was shown when it was changed is its own.
    let mount = Mount::new(server.gateways()[0], BUCKET, dir.path())?;
    ensure!(shown("d/object")? == (1234, 567, 0o600) && shown("d/own")? == (0, 0, 0o644), "{:?}", shown("d/object")?);
    mount.unmount()?;
    server.finish()
}

/// An S3 PUT over a key is a rename over it: who reads the old file goes on reading the old file.
#[test]
fn an_overwrite_leaves_open_readers_their_bytes() -> Result<()> {
    both("an_overwrite_under_readers", |dir, s3| {
        let (old, new) = (body(1, 24 * MIB), body(2, 20 * MIB));
        s3.put(BUCKET, "key", old.clone())?.expect(200)?;
        fs::write(dir.join("small"), "old")?;
        let mut reader = soon(|| Ok(File::open(dir.join("key"))?))?;
        let mut small = File::open(dir.join("small"))?;
        let mut found = vec![0; MIB];
        reader.read_exact(&mut found)?;
        s3.put(BUCKET, "key", new.clone())?.expect(200)?;
        s3.delete(BUCKET, "small")?.expect(204)?;
        reader.read_to_end(&mut found)?;
        ensure!(found == old, "an open reader: {}", difference(&found, &old));
        let mut text = String::new();
        small.read_to_string(&mut text)?;
        ensure!(text == "old", "an open reader of a deleted object read {text:?}");
        let fresh = fs::read(dir.join("key"))?;
        ensure!(fresh == new, "who opens it anew: {}", difference(&fresh, &new));
        // Removed from under its reader by a rename, too.
        fs::write(dir.join("other"), "other")?;
        let mut key = File::open(dir.join("key"))?;
        fs::rename(dir.join("other"), dir.join("key"))?;
        found.clear();
        key.read_to_end(&mut found)?;
        ensure!(found == new, "a reader of what was renamed over: {}", difference(&found, &new));
        Ok(())
    })
}

#[test]
fn a_file_is_an_object_once_it_is_closed_or_synced() -> Result<()> {
    both("a_file_is_an_object_once_closed", |dir, s3| {
        let mut file = File::create(dir.join("open"))?;
        file.write_all(&body(1, 100_000))?;
        ensure!(s3.get(BUCKET, "open")?.status == 404, "a file is served before it is closed");
        expect_keys(s3, &[])?;
        drop(file);
        expect_object(s3, "open", &body(1, 100_000))?;
        // One that is there already: the old content until then.
        let mut file = OpenOptions::new().append(true).open(dir.join("open"))?;
        file.write_all(b"more")?;
        s3.expect_body(BUCKET, "open", &body(1, 100_000))?;
        file.sync_all()?;
        let longer = [body(1, 100_000), b"more".to_vec()].concat();
        s3.expect_body(BUCKET, "open", &longer)?;
        file.write_all(b" yet")?;
        drop(file);
        s3.expect_body(BUCKET, "open", &[longer, b" yet".to_vec()].concat())?;
        // A name that goes before the file was closed was never seen.
        let mut file = File::create(dir.join("never"))?;
        file.write_all(b"nothing")?;
        fs::remove_file(dir.join("never"))?;
        drop(file);
        expect_keys(s3, &["open"])
    })
}

/// Names that one protocol has and the other has not.
#[test]
fn names_that_only_s3_has() -> Result<()> {
    both("names_that_only_s3_has", |dir, s3| {
        let long = "n".repeat(300);
        let strange = ["a//b", "x/../y", "x/./y", "dir/file", "dir", &*long, "x/"];
        for key in strange {
            s3.put(BUCKET, key, key)?;
        }
        let before = keys(s3)?;
        // A directory hides a file of the same name; the others have no name here.
        soon(|| expect(dir.join("dir").is_dir(), "no directory where S3 put keys"))?;
        ensure!(fs::read_to_string(dir.join("dir/file"))? == "dir/file");
        let mut names: Vec<_> = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
        names.sort();
        ensure!(names == ["a", "dir", "x"], "{names:?}");
        ensure!(fs::read_dir(dir.join("a"))?.next().is_none() && fs::read_dir(dir.join("x"))?.next().is_none());
        // Not empty, though they look so.
        let refused = fs::remove_dir(dir.join("a")).err().and_then(|error| error.raw_os_error());
        ensure!(refused == Some(nix::libc::ENOTEMPTY), "rmdir over keys that POSIX cannot see: {refused:?}");
        ensure!(keys(s3)? == before, "something changed");
        for key in &before {
            s3.get(BUCKET, key)?.expect(200)?;
        }
        Ok(())
    })
}

/// What a versioned bucket keeps when files are written, and what it refuses.
#[test]
fn a_close_makes_one_version() -> Result<()> {
    both("a_close_makes_one_version", |dir, s3| {
        s3.enable_versioning(BUCKET)?;
        for text in ["one", "two", "three"] {
            let mut file = File::create(dir.join("file"))?;
            text.bytes().try_for_each(|byte| file.write_all(&[byte]))?;
        }
        let versions = s3.list_versions(BUCKET)?;
        ensure!(versions.len() == 3, "{versions:?}");
        for (version, text) in versions.iter().zip(["three", "two", "one"]) {
            let got = s3.get_version(BUCKET, "file", &version.id)?.expect(200)?;
            ensure!(got.body == text.as_bytes(), "{version:?} has {:?}", got.text());
        }
        fs::remove_file(dir.join("file"))?;
        let versions = s3.list_versions(BUCKET)?;
        ensure!(versions.len() == 4 && versions[0].object.is_none(), "an unlink leaves a delete marker: {versions:?}");
        fs::create_dir(dir.join("dir"))?;
        fs::write(dir.join("dir/file"), "text")?;
        let errno = |outcome: std::io::Result<()>| outcome.err().and_then(|error| error.raw_os_error());
        let renamed = errno(fs::rename(dir.join("dir"), dir.join("moved")));
        ensure!(renamed == Some(nix::libc::EXDEV), "a directory with history was renamed: {renamed:?}");
        let linked = errno(fs::hard_link(dir.join("dir/file"), dir.join("link")));
        ensure!(linked == Some(nix::libc::EPERM), "a file with history got a second name: {linked:?}");
        Ok(())
    })
}

/// Random steps by two mounts and S3, compared with a model after each.
fn model(test: &str, server: impl FnOnce() -> Result<Server>) -> Result<()> {
    let steps = number("PREDASTORE_TEST_MODEL_STEPS", 100);
    let rng = Rng::for_test(test);
    if let Some(dir) = other_file_system() {
        let dir = tempfile::tempdir_in(dir)?;
        let mounts = vec![dir.path().to_path_buf(), dir.path().to_path_buf()];
        say(&format!("{test}: {}", Views::new(mounts, Vec::new(), BUCKET, rng).run(steps)?));
        return Ok(());
    }
    if !can_mount(test, &[]) {
        return Ok(());
    }
    let server = server()?;
    let gateways = server.gateways();
    let (first, second) = (mountpoint()?, mountpoint()?);
    let mounts = [
        Mount::new(gateways[0], BUCKET, first.path())?,
        Mount::new(gateways[1 % gateways.len()], BUCKET, second.path())?,
    ];
    let clients = gateways.iter().take(2).map(|s3d| s3d.s3()).collect::<Result<Vec<_>>>()?;
    let paths = mounts.iter().map(|mount| mount.path().to_path_buf()).collect();
    let outcome = Views::new(paths, clients, BUCKET, rng).run(steps);
    say(&format!("{test}: {}", outcome.with_logs(|| server.log_tails())?));
    mounts.into_iter().try_for_each(Mount::unmount)?;
    server.finish()
}

#[test]
fn random_steps_on_a_box() -> Result<()> {
    model("random_steps_on_a_box", Server::one_box)
}

#[test]
fn random_steps_on_a_cluster() -> Result<()> {
    model("random_steps_on_a_cluster", Server::cluster)
}

/// The model by itself: S3 alone, without a mount.
#[test]
fn random_steps_by_s3_alone() -> Result<()> {
    let rng = Rng::for_test("random_steps_by_s3_alone");
    let server = Server::one_box()?;
    let clients = vec![server.gateways()[0].s3()?, server.gateways()[0].s3()?];
    let outcome = Views::new(Vec::new(), clients, BUCKET, rng).run(number("PREDASTORE_TEST_MODEL_STEPS", 300));
    outcome.with_logs(|| server.log_tails())?;
    server.finish()
}
