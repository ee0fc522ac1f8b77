//! Nodes that are alone, or only seem to be.

use std::fs;
use std::path::Path;

use super::super::Founding;
use super::cluster::{Cluster, address};
use super::*;

/// Node 1 alone, with something in it.
async fn one() -> (Cluster, Gateway) {
    let mut cluster = Cluster::of(0, 10_000);
    cluster.set_founding(1, Founding::Alone);
    cluster.start(1).await;
    let mut gateway = Gateway::new(&cluster.raft(1), "bucket", 1_000).await;
    put_all(&cluster.raft(1), &mut gateway, &keys("alone", 5)).await;
    (cluster, gateway)
}

/// Stops node 1, and keeps a copy of it as it is then.
async fn copied(cluster: &mut Cluster) -> tempfile::TempDir {
    let before = tempfile::tempdir().unwrap();
    cluster.stop(1).await;
    copy(&cluster.dir(1), before.path());
    cluster.start(1).await;
    before
}

async fn stop_and_lose_since(cluster: &mut Cluster, before: &Path) {
    cluster.stop(1).await;
    let dir = cluster.dir(1);
    fs::remove_dir_all(dir.join("catalog")).unwrap();
    copy(&before.join("catalog"), &dir.join("catalog"));
    damage_since(&dir.join("log"), &before.join("log"));
}

/// Makes unreadable what the log's files in `dir` have got since there was the copy.
fn damage_since(dir: &Path, copy: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let mut bytes = fs::read(&file).unwrap();
        let before = fs::read(copy.join(file.file_name().unwrap())).unwrap_or_default();
        let same = bytes.iter().zip(&before).take_while(|(now, before)| now == before).count();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if same < end {
            bytes[same..end].fill(0xee);
            fs::write(&file, bytes).unwrap();
        }
    }
}

async fn recovered(cluster: &Cluster) -> Raft {
    let options = Options { accept_loss: true, ..cluster.options(1) };
    Raft::open(options, cluster.net.caller(1)).await.unwrap()
}

/// It lost all it knew of its peer, in the log and in the catalog.
#[tokio::test]
async fn who_had_peers_is_not_taken_for_a_sole_voter_once_it_has_lost_its_end() {
    let (mut cluster, mut gateway) = one().await;
    let before = copied(&mut cluster).await;
    cluster.start(2).await;
    cluster.raft(1).add_db(NodeId(2), &address(2)).await.unwrap();
    put_all(&cluster.raft(2), &mut gateway, &keys("together", 5)).await;
    stop_and_lose_since(&mut cluster, before.path()).await;
    cluster.start(1).await;
    let status = cluster.raft(1).status();
    assert!(status.read_only && status.voters == [NodeId(1)].into(), "{status:?}");
    assert!(cluster.raft(1).barrier().await.is_err(), "others have acknowledged what it has not");
    cluster.stop(1).await;

    let raft = recovered(&cluster).await;
    assert!(raft.status().read_only, "it leads a cluster that has gone on without it");
    assert!(raft.barrier().await.is_err());
    raft.shutdown().await;
}

#[tokio::test]
async fn who_was_left_alone_may_accept_a_loss() {
    let (mut cluster, mut gateway) = one().await;
    cluster.start(2).await;
    cluster.raft(1).add_db(NodeId(2), &address(2)).await.unwrap();
    cluster.raft(1).remove_db(NodeId(2)).await.unwrap();
    cluster.kill_and_close(2).await;
    let before = copied(&mut cluster).await;
    put_all(&cluster.raft(1), &mut gateway, &keys("alone again", 5)).await;
    stop_and_lose_since(&mut cluster, before.path()).await;
    cluster.start(1).await;
    assert!(cluster.raft(1).status().read_only);
    assert_eq!(counts(&cluster.raft(1), gateway.bucket).await, (5, 0));
    cluster.stop(1).await;

    let raft = recovered(&cluster).await;
    assert!(matches!(raft.propose(gateway.put("later")).await, Ok(Outcome::Written(_))));
    assert_eq!(counts(&raft, gateway.bucket).await, (6, 0));
    raft.shutdown().await;
}

/// Neither catalog nor log says who votes.
#[tokio::test]
async fn who_knows_of_no_members_serves_no_reads() {
    let (mut cluster, _) = one().await;
    cluster.stop(1).await;
    fs::remove_dir_all(cluster.dir(1).join("catalog")).unwrap();
    super::restart::cut_log(&cluster.dir(1));
    cluster.start(1).await;
    assert!(cluster.raft(1).status().read_only);
    assert!(cluster.raft(1).barrier().await.is_err());
}
