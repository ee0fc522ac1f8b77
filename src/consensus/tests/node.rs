//! A node that runs: proposals, barriers, trimming, errors.

use futures::FutureExt;
use futures::future::join_all;

use super::super::Raft;
use super::super::types::Command as RaftCommand;
use super::*;
use crate::catalog::{LedgerError, Refusal};

#[tokio::test]
async fn what_is_proposed_is_read_after_a_barrier() {
    let dir = tempfile::tempdir().unwrap();
    let raft = open(dir.path()).await;
    let mut gateway = Gateway::new(&raft, "bucket", 100).await;
    let outcomes = put_all(&raft, &mut gateway, &keys("k", 20)).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Written(_))));
    assert!(current(&raft, gateway.bucket, "k-00019").await.is_some());
    assert!(current(&raft, gateway.bucket, "k-00020").await.is_none());
    let status = raft.status();
    assert_eq!((status.leader, status.voters.len(), status.read_only), (Some(NodeId(1)), 1, false));
    assert_eq!(status.applied_index, status.last_index);
    assert_eq!(status.apply.entries, status.last_index.unwrap() + 1);
    raft.shutdown().await;
}

#[tokio::test]
async fn a_refusal_is_an_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let raft = open(dir.path()).await;
    let orphan = envelope(SessionId(999), 1, Command::LeaseIds { count: 1 });
    assert_eq!(raft.propose(orphan).await.unwrap(), Outcome::Refused(Refusal::NoSession));
    raft.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_proposers_and_readers_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let raft = open(dir.path()).await;
    let mut gateway = Gateway::new(&raft, "bucket", 400).await;
    let puts: Vec<_> = keys("k", 400).iter().map(|key| (key.clone(), gateway.put(key))).collect();
    let bucket = gateway.bucket;
    let tasks = puts.into_iter().map(|(key, envelope)| {
        let raft = raft.clone();
        tokio::spawn(async move {
            raft.propose(envelope).await.unwrap();
            assert!(current(&raft, bucket, &key).await.is_some(), "{key} was acknowledged, but is not read");
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(counts(&raft, bucket).await, (400, 0));
    raft.shutdown().await;
}

#[tokio::test]
async fn the_log_is_trimmed_to_what_the_catalog_has_synced() {
    let dir = tempfile::tempdir().unwrap();
    let raft = Raft::open(Options { log_keep_count: 10, ..options(dir.path()) }, Arc::new(Alone)).await.unwrap();
    let mut gateway = Gateway::new(&raft, "bucket", 400).await;
    let mut rounds = 0;
    while raft.status().first_index == 0 {
        put_all(&raft, &mut gateway, &keys(&format!("r{rounds}"), 10)).await;
        rounds += 1;
        // The trimmer pauses between two looks.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(raft.status().apply.syncs > 0);
    raft.shutdown().await;
    let raft = open(dir.path()).await;
    assert_eq!(counts(&raft, gateway.bucket).await, (rounds * 10, 0));
    assert!(raft.status().first_index > 0);
    raft.shutdown().await;
}

#[tokio::test]
async fn a_catalog_error_is_fatal_and_the_outcome_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let fatals = Fatals::default();
    let raft = Raft::open(Options { fatal: fatals.hook(), ..options(dir.path()) }, Arc::new(Alone)).await.unwrap();
    raft.barrier().await.unwrap();
    let error = raft.propose_raw(RaftCommand(Bytes::from_static(b"\xffnot an envelope"))).await.unwrap_err();
    assert!(matches!(error, LedgerError::Unknown(_)), "{error}");
    // The proposer hears of it while the hook is still to be called.
    while fatals.noted().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert!(fatals.noted()[0].contains("undecodable command"), "{:?}", fatals.noted());
    let later = raft.propose(envelope(SessionId(1), 1, Command::LeaseIds { count: 1 })).await;
    assert!(later.is_err(), "nothing is applied after an error: {later:?}");
    raft.shutdown().await;
}

#[tokio::test]
async fn a_stopped_node_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let raft = open(dir.path()).await;
    raft.barrier().await.unwrap();
    raft.shutdown().await;
    let proposed = raft.propose(envelope(SessionId(1), 1, Command::LeaseIds { count: 1 })).await;
    assert!(matches!(proposed, Err(LedgerError::Unavailable(_))), "{proposed:?}");
    let read = raft.barrier().await;
    assert!(matches!(read, Err(LedgerError::Unavailable(_))), "{read:?}");
}

#[tokio::test]
async fn what_is_on_its_way_is_bounded_and_the_rest_refused() {
    let dir = tempfile::tempdir().unwrap();
    let raft = Raft::open(Options { queue_len_bytes: 8 << 10, ..options(dir.path()) }, Arc::new(Alone)).await.unwrap();
    let mut gateway = Gateway::new(&raft, "bucket", 200).await;
    // Polled one after another before the first can be answered: there is room for two units each.
    let proposals = keys("k", 100).iter().map(|key| gateway.put(key)).map(|put| raft.propose(put)).collect::<Vec<_>>();
    let outcomes = join_all(proposals).await;
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(LedgerError::Overloaded))).count();
    assert_eq!((outcomes.iter().filter(|outcome| outcome.is_ok()).count(), refused), (4, 96), "{outcomes:?}");
    assert_eq!((raft.status().queued_bytes, counts(&raft, gateway.bucket).await), (0, (4, 0)));
    let put = gateway.put("later");
    assert!(matches!(raft.propose(put).await.unwrap(), Outcome::Written(_)));
    raft.shutdown().await;
}

/// The command stays in the queue, and so does its room.
#[tokio::test]
async fn a_proposer_that_goes_away_gives_no_room_back_before_its_command_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let raft = Raft::open(Options { queue_len_bytes: 8 << 10, ..options(dir.path()) }, Arc::new(Alone)).await.unwrap();
    let mut gateway = Gateway::new(&raft, "bucket", 200).await;
    for key in keys("k", 4) {
        // One poll hands it over.
        assert!(raft.propose(gateway.put(&key)).now_or_never().is_none());
    }
    assert!(raft.status().queued_bytes > 0, "nothing ran in between");
    assert!(matches!(raft.propose(gateway.put("k")).await, Err(LedgerError::Overloaded)));
    while raft.status().queued_bytes > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(counts(&raft, gateway.bucket).await, (4, 0));
    raft.shutdown().await;
}
