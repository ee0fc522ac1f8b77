//! Learners: they read and write like any other node, count for nothing, and may lose what they have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::super::{Founding, MembersError, State};
use super::cluster::{Cluster, DEADLINE, ELECTION, address, assert_there, until};
use super::*;

/// The learners of these tests have ids from here on.
const LEARNER: u64 = 100;

fn learn_from(voters: &[u64]) -> Founding {
    Founding::Learn(voters.iter().map(|voter| (NodeId(*voter), address(*voter))).collect())
}

/// Three voters, and a learner that was told of one that does not lead.
async fn with_learner(log_keep_count: u64) -> (Cluster, u64) {
    let mut cluster = Cluster::of(3, log_keep_count);
    cluster.start_all().await;
    let leader = cluster.leader().await;
    let told = cluster.others(leader)[0];
    cluster.set_founding(LEARNER, learn_from(&[told]));
    cluster.start(LEARNER).await;
    (cluster, leader)
}

fn is_voter(cluster: &Cluster, at: u64, node: u64) -> bool {
    cluster.raft(at).status().voters.contains(&NodeId(node))
}

fn address_of(cluster: &Cluster, at: u64, node: u64) -> Option<String> {
    cluster.raft(at).status().members.get(&NodeId(node)).cloned()
}

#[tokio::test]
async fn a_learner_reads_and_writes_and_goes_on_after_a_restart() {
    let (mut cluster, leader) = with_learner(10_000).await;
    let learner = cluster.raft(LEARNER);
    let mut gateway = Gateway::new(&learner, "bucket", 100).await;
    let mut written = keys("through-learner", 5);
    put_all(&learner, &mut gateway, &written).await;
    assert_there(&learner, gateway.bucket, &written).await;
    put_all(&cluster.raft(leader), &mut gateway, &keys("through-leader", 5)).await;
    written.extend(keys("through-leader", 5));
    assert_there(&learner, gateway.bucket, &written).await;

    let status = learner.status();
    assert_eq!((status.state, status.leader, status.read_only), (State::Learner, Some(NodeId(leader)), false));
    assert_eq!(status.leader_address(), Some(address(leader).as_str()));
    assert_eq!(status.voters.len(), 3);
    assert_eq!(cluster.raft(leader).status().state, State::Leader);
    assert_eq!(cluster.raft(cluster.others(leader)[0]).status().state, State::Follower);
    let everybody: BTreeMap<u64, String> = [1, 2, 3, LEARNER].map(|node| (node, address(node))).into();
    for node in cluster.nodes() {
        until(|| (cluster.heard(node) == everybody).then_some(())).await;
    }

    drop(learner);
    cluster.stop(LEARNER).await;
    put_all(&cluster.raft(leader), &mut gateway, &keys("meanwhile", 5)).await;
    written.extend(keys("meanwhile", 5));
    cluster.start(LEARNER).await;
    assert_there(&cluster.raft(LEARNER), gateway.bucket, &written).await;
    assert!(!is_voter(&cluster, leader, LEARNER));
}

#[tokio::test]
async fn a_learner_counts_for_nothing_and_does_not_campaign() {
    let (mut cluster, leader) = with_learner(10_000).await;
    let learner = cluster.raft(LEARNER);
    let mut gateway = Gateway::new(&learner, "bucket", 100).await;
    let followers: Vec<u64> = (1..=3).filter(|voter| *voter != leader).collect();
    cluster.kill(followers[0]);
    put_all(&learner, &mut gateway, &keys("two of three", 1)).await;
    cluster.kill(followers[1]);
    // Two of four members live, one of three voters.
    let alone = tokio::time::timeout(ELECTION * 3, learner.propose(gateway.put("one of three"))).await;
    assert!(!matches!(alone, Ok(Ok(_))), "a learner made a quorum: {alone:?}");
    let read = tokio::time::timeout(ELECTION, learner.barrier()).await;
    assert!(!matches!(read, Ok(Ok(_))), "a learner confirmed a leader: {read:?}");
    cluster.kill(leader);
    let term = learner.status().term;
    tokio::time::sleep(ELECTION * 3).await;
    assert_eq!((learner.status().state, learner.status().term), (State::Learner, term));
    for voter in 1..=3 {
        cluster.start(voter).await;
    }
    assert!(current(&learner, gateway.bucket, "two of three-00000").await.is_some());
}

#[tokio::test]
async fn a_learner_that_lost_what_it_had_is_taken_in_anew() {
    let (mut cluster, leader) = with_learner(10_000).await;
    let mut gateway = Gateway::new(&cluster.raft(LEARNER), "bucket", 1_000).await;
    let mut written = keys("first", 30);
    put_all(&cluster.raft(LEARNER), &mut gateway, &written).await;
    let replica = async |cluster: &Cluster| cluster.peer_status(LEARNER).await.replica;
    let mut seen = BTreeSet::from([replica(&cluster).await]);
    for lost in [&[""][..], &["log"][..], &["catalog", "log"][..]] {
        cluster.stop(LEARNER).await;
        for part in lost {
            fs::remove_dir_all(cluster.dir(LEARNER).join(part)).unwrap();
        }
        cluster.start(LEARNER).await;
        assert_there(&cluster.raft(LEARNER), gateway.bucket, &written).await;
        assert!(seen.insert(replica(&cluster).await), "it is not the log it was");
        let more = keys(&format!("after {}", seen.len()), 5);
        put_all(&cluster.raft(LEARNER), &mut gateway, &more).await;
        written.extend(more);
        assert_there(&cluster.raft(LEARNER), gateway.bucket, &written).await;
        assert!(!is_voter(&cluster, leader, LEARNER));
    }
}

/// Its last entries are unreadable, and its catalog is of before them.
#[tokio::test]
async fn a_learner_with_a_damaged_log_takes_what_is_missing_from_the_others() {
    let (mut cluster, _) = with_learner(10_000).await;
    let mut gateway = Gateway::new(&cluster.raft(LEARNER), "bucket", 1_000).await;
    put_all(&cluster.raft(LEARNER), &mut gateway, &keys("first", 15)).await;
    cluster.stop(LEARNER).await;
    let before = tempfile::tempdir().unwrap();
    copy(&cluster.dir(LEARNER).join("catalog"), before.path());
    cluster.start(LEARNER).await;
    put_all(&cluster.raft(LEARNER), &mut gateway, &keys("second", 15)).await;
    cluster.stop(LEARNER).await;
    fs::remove_dir_all(cluster.dir(LEARNER).join("catalog")).unwrap();
    copy(before.path(), &cluster.dir(LEARNER).join("catalog"));
    super::restart::cut_log(&cluster.dir(LEARNER));
    cluster.start(LEARNER).await;
    assert!(!cluster.raft(LEARNER).status().read_only);
    let all: Vec<String> = keys("first", 15).into_iter().chain(keys("second", 15)).collect();
    assert_there(&cluster.raft(LEARNER), gateway.bucket, &all).await;
}

#[tokio::test]
async fn a_learner_may_be_removed_and_comes_back_when_it_starts() {
    let (mut cluster, leader) = with_learner(10_000).await;
    let mut gateway = Gateway::new(&cluster.raft(LEARNER), "bucket", 100).await;
    cluster.stop(LEARNER).await;
    let other = cluster.raft(cluster.others(leader)[0]);
    other.remove_db(NodeId(LEARNER)).await.unwrap();
    other.remove_db(NodeId(LEARNER)).await.unwrap();
    assert_eq!(address_of(&cluster, leader, LEARNER), None);
    put_all(&cluster.raft(leader), &mut gateway, &keys("without", 5)).await;
    cluster.start(LEARNER).await;
    assert_there(&cluster.raft(LEARNER), gateway.bucket, &keys("without", 5)).await;
    assert_eq!(address_of(&cluster, leader, LEARNER), Some(address(LEARNER)));
}

#[tokio::test]
async fn a_sole_voter_has_learners() {
    let mut cluster = Cluster::of(0, 10_000);
    cluster.set_founding(1, Founding::Alone);
    cluster.start(1).await;
    for learner in [LEARNER, LEARNER + 1] {
        cluster.set_founding(learner, learn_from(&[1]));
        cluster.start(learner).await;
    }
    let mut gateway = Gateway::new(&cluster.raft(LEARNER), "bucket", 100).await;
    put_all(&cluster.raft(LEARNER + 1), &mut gateway, &keys("k", 5)).await;
    for node in cluster.nodes() {
        assert_there(&cluster.raft(node), gateway.bucket, &keys("k", 5)).await;
        assert_eq!(cluster.raft(node).status().leader_address(), Some(address(1).as_str()));
    }
    // It acknowledges alone, and is read through its learners all the same.
    cluster.net.isolate(1, [LEARNER, LEARNER + 1]);
    put_all(&cluster.raft(1), &mut gateway, &keys("cut off", 5)).await;
    let read = tokio::time::timeout(ELECTION * 2, cluster.raft(LEARNER).barrier()).await;
    assert!(!matches!(read, Ok(Ok(_))), "nobody confirmed it");
    cluster.net.heal();
    assert_there(&cluster.raft(LEARNER), gateway.bucket, &keys("cut off", 5)).await;
    cluster.stop(1).await;
    cluster.start(1).await;
    assert_there(&cluster.raft(LEARNER + 1), gateway.bucket, &keys("cut off", 5)).await;
}

/// As boxes do that join; and after a restart all of them may be elsewhere.
#[tokio::test]
async fn learners_are_made_voters_and_move() {
    let mut cluster = Cluster::of(0, 10_000);
    cluster.set_founding(1, Founding::Alone);
    cluster.start(1).await;
    for joined in [2, 3] {
        cluster.set_founding(joined, learn_from(&[1]));
        cluster.start(joined).await;
    }
    let mut gateway = Gateway::new(&cluster.raft(3), "bucket", 100).await;
    put_all(&cluster.raft(2), &mut gateway, &keys("before", 5)).await;
    for joined in [2, 3] {
        cluster.raft(1).add_db(NodeId(joined), &address(joined)).await.unwrap();
    }
    let moved: BTreeMap<u64, String> = [1, 2, 3].map(|node| (node, format!("moved-{node}:7000"))).into();
    for node in [1, 2, 3] {
        cluster.stop(node).await;
        cluster.set_address(node, moved[&node].clone());
        cluster.set_founding(node, learn_from(&cluster_but(node)));
    }
    for node in [1, 2, 3] {
        cluster.start(node).await;
    }
    for node in [1, 2, 3] {
        until(|| moved.keys().all(|at| address_of(&cluster, node, *at).as_ref() == Some(&moved[at])).then_some(()))
            .await;
        assert!(is_voter(&cluster, 1, node));
    }
    put_all(&cluster.raft(1), &mut gateway, &keys("after", 5)).await;
    let all: Vec<String> = keys("before", 5).into_iter().chain(keys("after", 5)).collect();
    assert_there(&cluster.raft(3), gateway.bucket, &all).await;
    let leader = cluster.raft(cluster.leader().await);
    until(|| (leader.heard_from().len() == 3).then_some(())).await;
    assert!(cluster.raft(cluster.others(leader.status().node.0)[0]).heard_from().is_empty());
}

fn cluster_but(node: u64) -> Vec<u64> {
    [1, 2, 3].into_iter().filter(|other| *other != node).collect()
}

/// Under its old id it would be a voter whose log is another one.
#[tokio::test]
async fn a_voter_that_lost_its_log_does_not_become_a_learner() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let lost = cluster.others(leader)[0];
    let voters = cluster.others(lost);
    cluster.kill_and_close(lost).await;
    fs::remove_dir_all(cluster.dir(lost)).unwrap();
    cluster.set_founding(lost, learn_from(&voters));
    cluster.start(lost).await;
    tokio::time::sleep(ELECTION * 2).await;
    assert!(is_voter(&cluster, leader, lost));
    let status = cluster.peer_status(lost).await;
    assert!(!status.initialised && status.last_index.is_none(), "{status:?}");
}

/// The new node never catches up: it needs a snapshot, and none arrives.
#[tokio::test]
async fn a_node_that_catches_up_holds_up_no_other_change() {
    let mut cluster = Cluster::of(3, 10);
    cluster.start_all().await;
    let leader = cluster.raft(cluster.leader().await);
    let mut gateway = Gateway::new(&leader, "bucket", 10_000).await;
    super::catching_up::put_until_trimmed(&leader, &mut gateway, "a").await;
    cluster.net.break_bodies(u64::MAX);
    cluster.start(4).await;
    let adding = tokio::spawn({
        let leader = leader.clone();
        async move { leader.add_db(NodeId(4), &address(4)).await }
    });
    until(|| leader.status().members.contains_key(&NodeId(4)).then_some(())).await;
    let unreachable = tokio::time::timeout(DEADLINE, leader.add_db(NodeId(77), "nowhere")).await.unwrap();
    assert!(matches!(unreachable, Err(MembersError::Unavailable(_))), "{unreachable:?}");
    tokio::time::timeout(DEADLINE, leader.remove_db(NodeId(4))).await.unwrap().unwrap();
    let added = tokio::time::timeout(DEADLINE, adding).await.unwrap().unwrap();
    assert!(matches!(added, Err(MembersError::Unavailable(_))), "{added:?}");
    assert!(!leader.status().members.contains_key(&NodeId(4)));
}
