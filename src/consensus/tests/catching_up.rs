//! Nodes that are behind: by entries, by a snapshot, by one that breaks off. And how clusters grow and shrink.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::message::Method;
use super::super::{Founding, MembersError};
use super::cluster::{Cluster, ELECTION, address, assert_there, insist, until};
use super::*;

fn snapshots(cluster: &Cluster) -> u64 {
    cluster.net.calls(Method::Snapshot.number())
}

/// Puts until the leader's log no longer starts where it did.
pub(super) async fn put_until_trimmed(raft: &Raft, gateway: &mut Gateway, prefix: &str) -> Vec<String> {
    let first_index = raft.status().first_index;
    let mut written = Vec::new();
    while raft.status().first_index < first_index.max(1) + 50 {
        let keys = keys(&format!("{prefix}-{}", written.len()), 20);
        put_all(raft, gateway, &keys).await;
        written.extend(keys);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    written
}

#[tokio::test]
async fn a_node_that_is_far_behind_gets_a_snapshot_even_if_that_breaks_off() {
    let mut cluster = Cluster::of(3, 10);
    cluster.start_all().await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader);
    let mut gateway = Gateway::new(&raft, "bucket", 10_000).await;
    let behind = cluster.others(leader)[0];
    cluster.kill_and_close(behind).await;
    let mut written = put_until_trimmed(&raft, &mut gateway, "a").await;
    let before = snapshots(&cluster);
    cluster.net.break_bodies(2);
    cluster.start(behind).await;
    assert_there(&cluster.raft(behind), gateway.bucket, &written).await;
    assert!(snapshots(&cluster) >= before + 3, "two broke off");
    assert!(cluster.raft(behind).status().first_index > 0);
    let more = keys("more", 5);
    put_all(&raft, &mut gateway, &more).await;
    written.extend(more);
    cluster.stop(behind).await;
    assert_eq!(fs::read_dir(cluster.dir(behind).join("snapshots")).unwrap().count(), 0, "a snapshot was left behind");
    cluster.start(behind).await;
    assert_there(&cluster.raft(behind), gateway.bucket, &written).await;
    assert_eq!(counts(&cluster.raft(behind), gateway.bucket).await, (written.len() as u64, 0));
}

#[tokio::test]
async fn a_node_that_dies_while_it_gets_a_snapshot_gets_another() {
    let mut cluster = Cluster::of(3, 10);
    cluster.start_all().await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader);
    let mut gateway = Gateway::new(&raft, "bucket", 10_000).await;
    let behind = cluster.others(leader)[0];
    cluster.kill_and_close(behind).await;
    let written = put_until_trimmed(&raft, &mut gateway, "a").await;
    for _ in 0..3 {
        let before = snapshots(&cluster);
        cluster.start(behind).await;
        until(|| (snapshots(&cluster) > before || cluster.raft(behind).status().first_index > 0).then_some(())).await;
        cluster.kill_and_close(behind).await;
    }
    cluster.start(behind).await;
    assert_there(&cluster.raft(behind), gateway.bucket, &written).await;
}

/// Puts until it is told to stop. Returns how many.
fn keep_putting(raft: &Raft, mut gateway: Gateway) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u64>) {
    const AT_ONCE: usize = 20;
    let (raft, stop) = (raft.clone(), Arc::new(AtomicBool::new(false)));
    let is_stopped = stop.clone();
    let putting = tokio::spawn(async move {
        let mut count = 0;
        while !is_stopped.load(Ordering::Relaxed) {
            let puts: Vec<_> = (0..AT_ONCE).map(|nth| gateway.put(&format!("put-{}", count + nth as u64))).collect();
            let outcomes = futures::future::join_all(puts.into_iter().map(|put| raft.propose(put))).await;
            assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
            count += AT_ONCE as u64;
        }
        count
    });
    (stop, putting)
}

/// Each call with entries takes longer than it takes to write more of them than peers may hold back.
#[tokio::test]
async fn a_slow_follower_does_not_hold_back_the_log_but_gets_a_snapshot() {
    let mut cluster = Cluster::of(3, 10);
    cluster.set_log_hold_count(60);
    cluster.start_all().await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader);
    let gateway = Gateway::new(&raft, "bucket", 60_000).await;
    let bucket = gateway.bucket;
    let slow = cluster.others(leader)[0];
    cluster.net.slow(slow, Method::Append.number(), Duration::from_millis(600));
    let (stop, putting) = keep_putting(&raft, gateway);
    until(|| (snapshots(&cluster) > 0).then_some(())).await;
    stop.store(true, Ordering::Relaxed);
    let count = putting.await.unwrap();
    cluster.net.slow(slow, Method::Append.number(), Duration::ZERO);
    assert_eq!(counts(&cluster.raft(slow), bucket).await, (count, 0));
}

/// While it is sent, more is written than the log keeps otherwise.
#[tokio::test]
async fn what_follows_a_snapshot_is_kept_until_it_is_installed() {
    let mut cluster = Cluster::of(3, 10);
    cluster.start_all().await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader);
    let mut gateway = Gateway::new(&raft, "bucket", 60_000).await;
    let behind = cluster.others(leader)[0];
    cluster.kill_and_close(behind).await;
    put_until_trimmed(&raft, &mut gateway, "before").await;
    cluster.net.slow(behind, Method::Snapshot.number(), Duration::from_millis(1_500));
    let (stop, putting) = keep_putting(&raft, gateway);
    cluster.start(behind).await;
    // It follows entry by entry, while everything goes on.
    until(|| (cluster.raft(behind).status().apply.entries > 200).then_some(())).await;
    stop.store(true, Ordering::Relaxed);
    putting.await.unwrap();
    cluster.settled(&[leader, behind]).await;
}

/// As on a full disk: the snapshot arrives, and there is no place for what is in it.
#[tokio::test]
async fn a_snapshot_that_finds_no_place_is_sent_again() {
    let mut cluster = Cluster::of(3, 10);
    cluster.start_all().await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader);
    let mut gateway = Gateway::new(&raft, "bucket", 10_000).await;
    let behind = cluster.others(leader)[0];
    cluster.kill_and_close(behind).await;
    let written = put_until_trimmed(&raft, &mut gateway, "a").await;
    let obstacle = cluster.dir(behind).join("catalog").join("new-2");
    fs::write(&obstacle, b"").unwrap();
    cluster.start(behind).await;
    let before = snapshots(&cluster);
    until(|| (snapshots(&cluster) > before + 2).then_some(())).await;
    fs::remove_file(&obstacle).unwrap();
    assert_there(&cluster.raft(behind), gateway.bucket, &written).await;
    assert!(!obstacle.exists());
}

#[tokio::test]
async fn one_box_grows_to_three_shrinks_to_two_and_grows_again() {
    let mut cluster = Cluster::of(0, 10);
    cluster.set_founding(1, Founding::Alone);
    cluster.start(1).await;
    let one = cluster.raft(1);
    let mut gateway = Gateway::new(&one, "bucket", 10_000).await;
    let mut written = put_until_trimmed(&one, &mut gateway, "alone").await;
    for node in [2, 3] {
        cluster.start(node).await;
        one.add_db(NodeId(node), &address(node)).await.unwrap();
        one.add_db(NodeId(node), &address(node)).await.unwrap();
        written.extend(keys(&format!("with-{node}"), 5));
        put_all(&one, &mut gateway, &keys(&format!("with-{node}"), 5)).await;
        assert_there(&cluster.raft(node), gateway.bucket, &written).await;
    }
    assert!(snapshots(&cluster) >= 2, "the log's beginning was gone");
    let expected: Vec<_> = (1..=3).map(|node| (NodeId(node), address(node))).collect();
    until(|| cluster.raft(3).status().members.into_iter().eq(expected.clone()).then_some(())).await;
    assert_eq!(cluster.raft(3).status().voters.len(), 3);

    // From a follower, of the leader itself.
    let leader = cluster.leader().await;
    let other = cluster.others(leader)[0];
    cluster.raft(other).remove_db(NodeId(leader)).await.unwrap();
    cluster.raft(other).remove_db(NodeId(leader)).await.ok();
    let remaining = cluster.others(leader);
    let new = cluster.leader_of(&remaining).await;
    assert_eq!(cluster.raft(new).status().voters.len(), 2);
    let rafts: Vec<Raft> = remaining.iter().map(|node| cluster.raft(*node)).collect();
    for key in keys("two", 5) {
        insist(&rafts, &gateway.put(&key)).await;
        written.push(key);
    }
    cluster.raft(new).add_db(NodeId(leader), &address(leader)).await.unwrap();
    assert_there(&cluster.raft(leader), gateway.bucket, &written).await;
    // Any one may go now.
    cluster.kill(new);
    let survivor = cluster.raft(cluster.nodes()[0]);
    insist(std::slice::from_ref(&survivor), &gateway.put("last")).await;
    assert_eq!(counts(&survivor, gateway.bucket).await, (written.len() as u64 + 1, 0));
}

#[tokio::test]
async fn what_would_cost_the_quorum_is_refused() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let others = cluster.others(leader);
    cluster.kill(others[0]);
    tokio::time::sleep(ELECTION * 2).await;
    let refused = cluster.raft(leader).remove_db(NodeId(others[1])).await;
    assert!(matches!(refused, Err(MembersError::Refused(_))), "{refused:?}");
    cluster.raft(leader).remove_db(NodeId(others[0])).await.unwrap();
    let unreachable = cluster.raft(leader).add_db(NodeId(77), "nowhere").await;
    assert!(matches!(unreachable, Err(MembersError::Unavailable(_))), "{unreachable:?}");
    cluster.raft(leader).barrier().await.unwrap();
    assert_eq!(cluster.raft(leader).status().voters.len(), 2);
}

/// The founder, even: it is the one that would found again.
#[tokio::test]
async fn a_voter_that_lost_its_disk_neither_votes_nor_founds_under_its_old_id() {
    let mut cluster = Cluster::started(3).await;
    let mut gateway = Gateway::new(&cluster.raft(2), "bucket", 100).await;
    put_all(&cluster.raft(2), &mut gateway, &keys("k", 5)).await;
    cluster.settled(&[1, 2, 3]).await;
    cluster.kill_and_close(1).await;
    fs::remove_dir_all(cluster.dir(1)).unwrap();
    cluster.start(1).await;
    // With one of the others away, its vote would make a majority.
    cluster.kill_and_close(3).await;
    let survivor = cluster.raft(2);
    let put = gateway.put("alone");
    let alone = tokio::time::timeout(ELECTION * 3, survivor.propose(put.clone())).await;
    assert!(!matches!(alone, Ok(Ok(_))), "a node that lost its log made a majority");
    let wiped = cluster.peer_status(1).await;
    assert!(!wiped.initialised && wiped.voters.is_empty() && wiped.last_index.is_none(), "{wiped:?}");
    cluster.start(3).await;
    assert!(matches!(insist(std::slice::from_ref(&survivor), &put).await, Outcome::Written(_)));
    let back = survivor.add_db(NodeId(1), &address(1)).await;
    assert!(matches!(back, Err(MembersError::Refused(_))), "{back:?}");
    assert!(!cluster.peer_status(1).await.initialised);

    survivor.remove_db(NodeId(1)).await.unwrap();
    cluster.kill_and_close(1).await;
    cluster.start(4).await;
    survivor.add_db(NodeId(4), &address(4)).await.unwrap();
    cluster.kill(3);
    assert!(matches!(insist(&[cluster.raft(4)], &gateway.put("with four")).await, Outcome::Written(_)));
    assert_eq!(counts(&cluster.raft(4), gateway.bucket).await, (7, 0));
}

/// The leader, wiped, founds a cluster of its own under its old id, while a follower still takes it for the leader.
#[tokio::test]
async fn a_node_that_founded_anew_does_not_answer_for_the_old_cluster() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let mut gateway = Gateway::new(&cluster.raft(leader), "bucket", 100).await;
    put_all(&cluster.raft(leader), &mut gateway, &keys("k", 5)).await;
    cluster.settled(&[1, 2, 3]).await;
    let [follower, other] = cluster.others(leader)[..] else { panic!("there are three") };
    cluster.kill_and_close(other).await;
    cluster.kill_and_close(leader).await;
    fs::remove_dir_all(cluster.dir(leader)).unwrap();
    cluster.set_founding(leader, Founding::Alone);
    cluster.start(leader).await;
    cluster.raft(leader).barrier().await.unwrap();
    let raft = cluster.raft(follower);
    let opened = envelope(SessionId(0), 0, Command::OpenSession { gateway: "follower".into() });
    let (proposed, read) = tokio::join!(
        tokio::time::timeout(ELECTION * 3, raft.propose(opened)),
        tokio::time::timeout(ELECTION * 3, raft.barrier())
    );
    assert!(!matches!(proposed, Ok(Ok(_))), "it was acknowledged by another cluster: {proposed:?}");
    assert!(!matches!(read, Ok(Ok(_))), "it was confirmed by another cluster: {read:?}");
    assert!(raft.add_db(NodeId(leader), &address(leader)).await.is_err());
}

#[tokio::test]
async fn a_node_with_peers_founds_alone_only_if_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { peers: [NodeId(2)].into(), ..options(dir.path()) };
    let refused = Raft::open(options(), Arc::new(Alone)).await;
    assert!(matches!(refused, Err(Error::Raft(why)) if why.contains("peers to ask")));
    closed(dir.path()).await;
    let list = Founding::Together([(NodeId(1), String::new())].into());
    let raft = Raft::open(Options { founding: list, ..options() }, Arc::new(Alone)).await.unwrap();
    raft.barrier().await.unwrap();
    raft.shutdown().await;
    drop(raft);
    closed(dir.path()).await;
    // What is there already is opened, whatever it says.
    let raft = Raft::open(options(), Arc::new(Alone)).await.unwrap();
    raft.barrier().await.unwrap();
    raft.shutdown().await;
}

#[tokio::test]
async fn a_log_that_is_lost_below_its_catalog_makes_a_node_read_only() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let mut gateway = Gateway::new(&cluster.raft(leader), "bucket", 100).await;
    put_all(&cluster.raft(leader), &mut gateway, &keys("k", 5)).await;
    cluster.settled(&[1, 2, 3]).await;
    let lost = cluster.others(leader)[0];
    cluster.stop(lost).await;
    fs::remove_dir_all(cluster.dir(lost).join("log")).unwrap();
    cluster.start(lost).await;
    assert!(cluster.raft(lost).status().read_only);
    assert!(cluster.raft(lost).barrier().await.is_err(), "it cannot know what others have acknowledged");
    put_all(&cluster.raft(leader), &mut gateway, &keys("more", 5)).await;
}

#[tokio::test]
async fn nothing_is_founded_before_all_are_there_or_by_different_lists() {
    let mut cluster = Cluster::of(3, 10_000);
    cluster.start(1).await;
    cluster.start(2).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!cluster.peer_status(1).await.initialised);
    cluster.set_founding(3, Founding::Join);
    cluster.start(3).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!cluster.peer_status(1).await.initialised);
    cluster.kill_and_close(3).await;
    let list = (1..=3).map(|node| (NodeId(node), address(node))).collect();
    cluster.set_founding(3, Founding::Together(list));
    cluster.start(3).await;
    cluster.leader().await;
    let status = cluster.peer_status(3).await;
    assert!(status.initialised && status.voters == [1, 2, 3], "{status:?}");
}
