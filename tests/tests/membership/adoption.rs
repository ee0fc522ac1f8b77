//! A box that becomes the first of three: its objects stay, and what lay in its files is written as shards.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use predastore_tests::cluster::{Cluster, Shape};
use predastore_tests::history::Body;
use predastore_tests::random::Rng;
use predastore_tests::s3::{S3, element};
use predastore_tests::s3d::{Config, PATIENCE, S3d, setting};

use super::{is_healthy, operate};

const BUCKET: &str = "box";
/// A little more than two chunks of shards.
const LONG_BYTES: usize = 66 << 20;
const PART_BYTES: usize = 5 << 20;
const PATIENCE_TO_MOVE: Duration = Duration::from_secs(180);

/// What a box has, and what must be there ever after.
struct Kept {
    objects: Vec<(String, Vec<u8>)>,
    /// An old version of an object: (key, id, bytes).
    old: (String, String, Vec<u8>),
    /// An upload that was not completed: (id, etag and bytes of its first part).
    upload: (String, String, Vec<u8>),
}

/// Objects of all kinds: in the catalog, in one file, in a long one, in parts, and such as share the bytes of others.
fn fill(s3: &mut S3, rng: &mut Rng) -> Result<Kept> {
    s3.create_bucket(BUCKET)?;
    s3.enable_versioning(BUCKET)?;
    let mut body = |len_bytes: usize| Body { id: rng.next_u64(), len_bytes }.bytes();
    let old = ("kept".to_owned(), body(300_000));
    let id = s3.put(BUCKET, &old.0, old.1.clone())?.expect(200)?.get("x-amz-version-id").context("no id")?.to_owned();
    let long = body(LONG_BYTES);
    let mut objects = vec![("kept".to_owned(), body(100)), ("long".to_owned(), long.clone())];
    for len_bytes in [0, 8 << 10, 9 << 10, 1 << 20, 32 << 20, (32 << 20) + 1] {
        objects.push((format!("of-{len_bytes}"), body(len_bytes)));
    }
    for (key, bytes) in &objects {
        s3.put(BUCKET, key, bytes.clone())?.expect(200)?;
    }
    let parts = vec![body(33 << 20), body(PART_BYTES), body(7)];
    objects.push(("parts".to_owned(), parts.concat()));
    s3.put_multipart(BUCKET, "parts", parts)?.expect(200)?;

    let mut copy = s3.request("PUT", BUCKET, "copy", "", "");
    copy.set("x-amz-copy-source", format!("/{BUCKET}/long"));
    s3.call(copy)?.expect(200)?;
    objects.push(("copy".to_owned(), long.clone()));
    let upload = begin(s3, "middle")?;
    let range = (20 << 20) + 5..(60 << 20) + 9;
    let mut copy = s3.request("PUT", BUCKET, "middle", &format!("partNumber=1&uploadId={upload}"), "");
    copy.set("x-amz-copy-source", format!("/{BUCKET}/long"));
    copy.set("x-amz-copy-source-range", format!("bytes={}-{}", range.start, range.end - 1));
    let etag = element(&s3.call(copy)?.expect(200)?.text(), "ETag").context("no tag")?;
    complete(s3, "middle", &upload, &etag)?;
    objects.push(("middle".to_owned(), long[range].to_vec()));

    let (upload, part) = (begin(s3, "later")?, body(33 << 20));
    let query = format!("partNumber=1&uploadId={upload}");
    let put = s3.request("PUT", BUCKET, "later", &query, part.clone());
    let etag = s3.call(put)?.expect(200)?.get("etag").context("no tag")?.to_owned();
    Ok(Kept { objects, old: (old.0, id, old.1), upload: (upload, etag, part) })
}

fn begin(s3: &mut S3, key: &str) -> Result<String> {
    let request = s3.request("POST", BUCKET, key, "uploads", "");
    element(&s3.call(request)?.expect(200)?.text(), "UploadId").context("no upload id")
}

fn complete(s3: &mut S3, key: &str, upload: &str, etag: &str) -> Result<()> {
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    let request = s3.request("POST", BUCKET, key, &format!("uploadId={upload}"), list);
    s3.call(request)?.expect(200).map(drop)
}

fn verify(process: &S3d, kept: &Kept) -> Result<()> {
    let mut s3 = process.s3()?;
    for (key, bytes) in &kept.objects {
        s3.expect_body(BUCKET, key, bytes).with_context(|| key.clone())?;
    }
    let (key, id, bytes) = &kept.old;
    ensure!(s3.get_version(BUCKET, key, id)?.expect(200)?.body == *bytes, "the old version of {key}");
    Ok(())
}

/// How many bytes lie in files of chunks.
fn file_bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { file_bytes(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(sum)
}

#[test]
fn a_box_becomes_the_first_of_three() -> Result<()> {
    let mut rng = Rng::for_test("a_box_becomes_the_first_of_three");
    let config = Config::default().plain().set(setting::SWEEP_INTERVAL, "2s").set(setting::SWEEP_GRACE, "2s");
    let mut cluster = Cluster::stopped(&Shape::boxes(3, 3, (2, 1)), &config)?;
    let dir = cluster.dir.path().join("db-1");
    let mut alone = S3d::start(config.in_dir(&dir))?;
    let mut kept = fill(&mut alone.s3()?, &mut rng)?;
    verify(&alone, &kept)?;

    // Not while it runs, and not by itself.
    operate(&cluster, &["adopt", "--yes"], 1)?;
    alone.stop()?;
    cluster.processes[0].spawn()?;
    ensure!(!cluster.processes[0].wait_exit(PATIENCE)?.success(), "a box's store was taken for a db node's");
    ensure!(cluster.processes[0].log_tail().contains("cluster adopt"), "{}", cluster.processes[0].log_tail());
    let dry = operate(&cluster, &["adopt"], 0)?;
    ensure!(dry.contains("with --yes it does"), "{dry}");
    operate(&cluster, &["adopt", "--yes"], 0)?;

    // It serves what it has, alone.
    cluster.processes[0].spawn()?;
    cluster.processes[0].wait_until_serving()?;
    verify(&cluster.processes[0], &kept).context("alone")?;

    // The others serve its files until there are none; anybody may be killed in the midst of it.
    let join = |cluster: &mut Cluster, index: usize, db: &str| {
        cluster.processes[index].spawn()?;
        operate(cluster, &["add-db", db], 0)?;
        cluster.processes[index].wait_until_serving()
    };
    join(&mut cluster, 1, "2")?;
    verify(&cluster.processes[1], &kept).context("by the second")?;
    join(&mut cluster, 2, "3")?;
    std::thread::sleep(Duration::from_millis(rng.below(2500)));
    cluster.kill(&[rng.below(3) as usize]);
    cluster.restart_all()?;
    verify(&cluster.processes[2], &kept).context("by the third")?;
    let (upload, etag, part) = kept.upload.clone();
    complete(&mut cluster.processes[1].s3()?, "later", &upload, &etag)?;
    kept.objects.push(("later".to_owned(), part));
    cluster.wait_status(PATIENCE_TO_MOVE, is_healthy)?;
    verify(&cluster.processes[2], &kept)?;

    // Its files are gone, and nobody needs it any more.
    let deadline = std::time::Instant::now() + PATIENCE_TO_MOVE;
    while file_bytes(&dir.join("chunks"))? > 0 {
        ensure!(std::time::Instant::now() < deadline, "{} bytes are left in files", file_bytes(&dir.join("chunks"))?);
        std::thread::sleep(Duration::from_millis(200));
    }
    cluster.kill(&[0]);
    cluster.leader()?;
    verify(&cluster.processes[1], &kept).context("without the former box")?;
    let again = ("again".to_owned(), Body { id: rng.next_u64(), len_bytes: 5 << 20 }.bytes());
    cluster.processes[2].s3()?.put(BUCKET, &again.0, again.1.clone())?.expect(200)?;
    kept.objects.push(again);
    verify(&cluster.processes[1], &kept)
}
