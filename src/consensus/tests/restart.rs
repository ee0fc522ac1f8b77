//! Restarts, with log and catalog at every distance from each other.

use std::fs;
use std::path::Path;

use super::super::{Error, Raft};
use super::*;
use crate::catalog::LedgerError;

/// Thirty puts in two halves, with a copy of the directory taken in between, while the node was stopped.
struct Halves {
    dir: tempfile::TempDir,
    middle: tempfile::TempDir,
    gateway: Gateway,
    outcomes: Vec<Outcome>,
}

async fn stop(raft: Raft, dir: &Path) {
    raft.shutdown().await;
    drop(raft);
    closed(dir).await;
}

async fn halves() -> Halves {
    let (dir, middle) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let raft = open(dir.path()).await;
    let mut gateway = Gateway::new(&raft, "bucket", 60).await;
    let mut outcomes = put_all(&raft, &mut gateway, &keys("first", 15)).await;
    stop(raft, dir.path()).await;
    copy(dir.path(), middle.path());
    let raft = open(dir.path()).await;
    outcomes.extend(put_all(&raft, &mut gateway, &keys("second", 15)).await);
    stop(raft, dir.path()).await;
    Halves { dir, middle, gateway, outcomes }
}

impl Halves {
    fn replace(&self, part: &str, by: &Path) {
        fs::remove_dir_all(self.dir.path().join(part)).unwrap();
        copy(&by.join(part), &self.dir.path().join(part));
    }

    /// All thirty are there, once, and the node goes on.
    async fn assert_all_there(&mut self) {
        let raft = open(self.dir.path()).await;
        assert_eq!(counts(&raft, self.gateway.bucket).await, (30, 0));
        put_all(&raft, &mut self.gateway, &keys("third", 3)).await;
        assert_eq!(counts(&raft, self.gateway.bucket).await, (33, 0));
        raft.shutdown().await;
        let raft = open(self.dir.path()).await;
        assert_eq!(counts(&raft, self.gateway.bucket).await, (33, 0));
        raft.shutdown().await;
    }
}

#[tokio::test]
async fn a_restart_keeps_everything_in_a_new_term() {
    let mut halves = halves().await;
    let raft = open(halves.dir.path()).await;
    raft.barrier().await.unwrap();
    assert_eq!(raft.status().term, 3);
    raft.shutdown().await;
    halves.assert_all_there().await;
}

#[tokio::test]
async fn a_retry_after_a_restart_gets_the_first_answer() {
    let halves = halves().await;
    let raft = open(halves.dir.path()).await;
    // The gateway's first three sequences made its bucket; the ids follow the bucket's.
    for (nth, key) in keys("first", 15).iter().chain(&keys("second", 15)).enumerate() {
        let ino = Ino(halves.gateway.bucket.0 + 1 + nth as u64);
        let retry = envelope(halves.gateway.session, 4 + nth as u64, put(halves.gateway.bucket, key, ino));
        assert_eq!(raft.propose(retry).await.unwrap(), halves.outcomes[nth], "{key}");
    }
    assert_eq!(counts(&raft, halves.gateway.bucket).await, (30, 0));
    raft.shutdown().await;
}

#[tokio::test]
async fn a_catalog_of_an_earlier_moment_catches_up() {
    let mut halves = halves().await;
    halves.replace("catalog", halves.middle.path());
    halves.assert_all_there().await;
}

#[tokio::test]
async fn without_a_catalog_the_log_makes_it_again() {
    let mut halves = halves().await;
    fs::remove_dir_all(halves.dir.path().join("catalog")).unwrap();
    halves.assert_all_there().await;
}

#[tokio::test]
async fn a_log_of_an_earlier_moment_starts_anew_after_the_catalog() {
    let mut halves = halves().await;
    halves.replace("log", halves.middle.path());
    halves.assert_all_there().await;
}

#[tokio::test]
async fn a_lost_log_starts_anew_after_the_catalog_in_a_later_term() {
    let mut halves = halves().await;
    fs::remove_dir_all(halves.dir.path().join("log")).unwrap();
    halves.assert_all_there().await;
    let raft = open(halves.dir.path()).await;
    raft.barrier().await.unwrap();
    assert!(raft.status().term > 2);
    raft.shutdown().await;
}

#[tokio::test]
async fn a_log_that_lost_its_end_goes_on_if_the_catalog_has_it() {
    let mut halves = halves().await;
    cut_log(halves.dir.path());
    halves.assert_all_there().await;
}

#[tokio::test]
async fn a_log_that_lost_what_only_it_had_is_read_only_until_the_loss_is_accepted() {
    let mut halves = halves().await;
    halves.replace("catalog", halves.middle.path());
    cut_log(halves.dir.path());
    let raft = open(halves.dir.path()).await;
    assert!(raft.status().read_only);
    let refused = raft.propose(halves.gateway.put("more")).await;
    let Err(LedgerError::Unavailable(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("s3d recover"), "{why}");
    assert_eq!(counts(&raft, halves.gateway.bucket).await, (15, 0));
    raft.shutdown().await;

    let recover = Options { accept_loss: true, ..options(halves.dir.path()) };
    let raft = Raft::open(recover, Arc::new(Alone)).await.unwrap();
    let (object_count, version_count) = counts(&raft, halves.gateway.bucket).await;
    assert!((15..30).contains(&object_count) && version_count == 0, "{object_count} objects");
    raft.propose(halves.gateway.put("more")).await.unwrap();
    raft.shutdown().await;
    let raft = open(halves.dir.path()).await;
    assert_eq!(counts(&raft, halves.gateway.bucket).await, (object_count + 1, 0));
    raft.shutdown().await;
}

#[tokio::test]
async fn a_gap_between_catalog_and_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let trimming = || Options { log_keep_count: 0, ..options(dir.path()) };
    let raft = Raft::open(trimming(), Arc::new(Alone)).await.unwrap();
    let mut gateway = Gateway::new(&raft, "bucket", 1000).await;
    while raft.status().first_index == 0 {
        put_all(&raft, &mut gateway, &keys("k", 1)).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    stop(raft, dir.path()).await;
    fs::remove_dir_all(dir.path().join("catalog")).unwrap();
    let error = open_error(dir.path()).await;
    assert!(matches!(error, Error::Gap { needed: 0, first_index } if first_index > 0), "{error}");
}

#[tokio::test]
async fn a_foreign_log_is_refused() {
    let halves = halves().await;
    let other = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let raft = open(other.path()).await;
        raft.barrier().await.unwrap();
        raft.shutdown().await;
    }
    let raft = open(other.path()).await;
    let mut gateway = Gateway::new(&raft, "bucket", 60).await;
    put_all(&raft, &mut gateway, &keys("k", 50)).await;
    stop(raft, other.path()).await;
    halves.replace("log", other.path());
    let error = open_error(halves.dir.path()).await;
    assert!(matches!(error, Error::Inconsistent(_)), "{error}");
}

/// Overwrites what was written last in the newest log file, as a lost sector would. The witness stays.
pub(super) fn cut_log(dir: &Path) {
    let mut files: Vec<_> = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
    let newest = files.iter().max().unwrap();
    let mut bytes = fs::read(newest).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes[end - 40..end].fill(0xee);
    fs::write(newest, bytes).unwrap();
}
