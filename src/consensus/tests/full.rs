//! A disk that is full under the catalog of one node.

use super::cluster::{Cluster, assert_there, until};
use super::*;

/// R: an error of SQLite in `apply` ends the process: it is no answer to a command, which the others have applied.
#[tokio::test]
async fn a_node_whose_catalog_has_no_room_ends_and_the_others_go_on() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader);
    let mut gateway = Gateway::new(&raft, "bucket", 5_000).await;
    let full = cluster.others(leader)[0];
    cluster.stop(full).await;
    let fatals = cluster.fill(full);
    cluster.start(full).await;
    let applied = |node: u64| cluster.raft(node).status().applied_index;
    let mut written = Vec::new();
    while fatals.noted().is_empty() {
        assert!(written.len() < 2_000, "it goes on as if it had room");
        let more = keys(&format!("k{}", written.len()), 50);
        put_all(&raft, &mut gateway, &more).await;
        written.extend(more);
        until(|| (!fatals.noted().is_empty() || applied(full) >= applied(leader)).then_some(())).await;
    }
    assert!(fatals.noted()[0].contains("full"), "{:?}", fatals.noted());
    assert!(applied(full) < applied(leader), "what failed is not applied");

    let more = keys("more", 20);
    put_all(&raft, &mut gateway, &more).await;
    written.extend(more);
    cluster.kill_and_close(full).await;
    cluster.make_room(full);
    cluster.start(full).await;
    assert_there(&cluster.raft(full), gateway.bucket, &written).await;
    for node in cluster.nodes() {
        assert_eq!(counts(&cluster.raft(node), gateway.bucket).await, (written.len() as u64, 0));
    }
}
