//! The feature level: raised once every member knows a higher one, and not before.

use super::super::message::Method;
use super::super::{Founding, MembersError};
use super::cluster::{Cluster, address, until};
use super::*;
use crate::catalog::{self, FEATURE_LEVEL};

const NEXT: u32 = FEATURE_LEVEL + 1;
const LEARNER: u64 = 100;

fn levels(cluster: &Cluster, nodes: &[u64]) -> Vec<u32> {
    nodes.iter().map(|node| cluster.raft(*node).status().feature_level).collect()
}

/// Waits for two more rounds of questions.
async fn asked_again(cluster: &Cluster, members: u64) {
    let calls = || cluster.net.calls(Method::Levels.number());
    let enough = calls() + 2 * members;
    until(|| (calls() > enough).then_some(())).await;
}

async fn raised(cluster: &Cluster, nodes: &[u64]) {
    until(|| levels(cluster, nodes).iter().all(|level| *level == NEXT).then_some(())).await;
}

#[tokio::test]
async fn a_box_raises_its_level_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut later = options(dir.path());
    later.catalog.feature_level = NEXT;
    let raft = Raft::open(later, Arc::new(Alone)).await.unwrap();
    until(|| (raft.status().feature_level == NEXT).then_some(())).await;
    raft.shutdown().await;
    let error = open_error(dir.path()).await;
    assert!(matches!(error, Error::Catalog(catalog::Error::Level { found: NEXT, known: FEATURE_LEVEL })), "{error}");
}

#[tokio::test]
async fn a_member_that_does_not_know_a_level_holds_it_back() {
    let mut cluster = Cluster::of(3, 10_000);
    [1, 2].iter().for_each(|node| cluster.set_feature_level(*node, NEXT));
    cluster.start_all().await;
    if cluster.leader().await == 3 {
        // It does not ask.
        cluster.stop(3).await;
        cluster.start(3).await;
    }
    until(|| (levels(&cluster, &[1, 2, 3]) == [FEATURE_LEVEL; 3]).then_some(())).await;
    asked_again(&cluster, 2).await;
    assert_eq!(levels(&cluster, &[1, 2, 3]), [FEATURE_LEVEL; 3]);
    cluster.stop(3).await;
    asked_again(&cluster, 2).await;
    assert_eq!(levels(&cluster, &[1, 2]), [FEATURE_LEVEL; 2], "one that is dead does not count");
    cluster.set_feature_level(3, NEXT);
    cluster.start(3).await;
    raised(&cluster, &[1, 2, 3]).await;
}

#[tokio::test]
async fn who_does_not_know_the_level_does_not_become_a_member() {
    let mut cluster = Cluster::of(1, 10_000);
    cluster.set_feature_level(1, NEXT);
    cluster.start(1).await;
    raised(&cluster, &[1]).await;
    cluster.start(2).await;
    let refused = cluster.raft(1).add_db(NodeId(2), &address(2)).await;
    assert!(matches!(&refused, Err(MembersError::Refused(why)) if why.contains("a newer s3d")), "{refused:?}");
    cluster.set_founding(LEARNER, Founding::Learn([(NodeId(1), address(1))].into()));
    cluster.start(LEARNER).await;
    asked_again(&cluster, 1).await;
    assert_eq!(cluster.raft(1).status().members.len(), 1);
    for node in [2, LEARNER] {
        cluster.kill_and_close(node).await;
        cluster.set_feature_level(node, NEXT);
        cluster.start(node).await;
    }
    cluster.raft(1).add_db(NodeId(2), &address(2)).await.unwrap();
    raised(&cluster, &[1, 2, LEARNER]).await;
}

#[tokio::test]
async fn a_learner_that_is_gone_holds_it_back_until_it_is_removed() {
    let mut cluster = Cluster::of(1, 10_000);
    cluster.start(1).await;
    cluster.set_founding(LEARNER, Founding::Learn([(NodeId(1), address(1))].into()));
    cluster.start(LEARNER).await;
    until(|| (cluster.raft(1).status().members.len() == 2).then_some(())).await;
    until(|| (levels(&cluster, &[1]) == [FEATURE_LEVEL]).then_some(())).await;
    cluster.stop(LEARNER).await;
    cluster.stop(1).await;
    cluster.set_feature_level(1, NEXT);
    cluster.start(1).await;
    asked_again(&cluster, 1).await;
    assert_eq!(levels(&cluster, &[1]), [FEATURE_LEVEL]);
    cluster.raft(1).remove_db(NodeId(LEARNER)).await.unwrap();
    raised(&cluster, &[1]).await;
}
