//! Several voters: elections, kills, partitions; what was acknowledged is there, once, and what is read is not stale.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::cluster::{Cluster, ELECTION, assert_there, insist, until};
use super::*;
use crate::catalog::LedgerError;

/// Opened at a follower: its commands are forwarded, even the one that no session remembers.
async fn gateway(cluster: &Cluster, put_count: u32) -> Gateway {
    let leader = cluster.leader().await;
    Gateway::new(&cluster.raft(cluster.others(leader)[0]), "bucket", put_count).await
}

async fn elect_and_replicate(voter_count: u64) {
    let cluster = Cluster::started(voter_count).await;
    let mut gateway = gateway(&cluster, 100).await;
    for (nth, key) in keys("k", 30).iter().enumerate() {
        let at = |nth: usize| cluster.raft(1 + nth as u64 % voter_count);
        assert!(matches!(at(nth).propose(gateway.put(key)).await.unwrap(), Outcome::Written(_)));
        assert!(current(&at(nth + 1), gateway.bucket, key).await.is_some(), "{key} is acknowledged, and not read");
    }
    for node in cluster.nodes() {
        assert_eq!(counts(&cluster.raft(node), gateway.bucket).await, (30, 0));
        assert_eq!(cluster.raft(node).status().voters.len() as u64, voter_count);
    }
}

#[tokio::test]
async fn three_voters_elect_and_replicate_and_each_reads_what_any_acknowledged() {
    elect_and_replicate(3).await;
}

#[tokio::test]
async fn five_voters_elect_and_replicate() {
    elect_and_replicate(5).await;
}

#[tokio::test]
async fn a_killed_leader_is_replaced_and_comes_back() {
    let mut cluster = Cluster::started(3).await;
    let mut gateway = gateway(&cluster, 200).await;
    let leader = cluster.leader().await;
    let mut acknowledged = keys("before", 20);
    put_all(&cluster.raft(leader), &mut gateway, &acknowledged).await;
    let under_way: Vec<_> = keys("during", 20).into_iter().map(|key| (gateway.put(&key), key)).collect();
    let killed = cluster.raft(leader);
    let proposals = under_way.clone().into_iter().map(|(put, _)| {
        let raft = killed.clone();
        tokio::spawn(async move { raft.propose(put).await })
    });
    let proposals: Vec<_> = proposals.collect();
    drop(killed);
    tokio::time::sleep(Duration::from_millis(1)).await;
    cluster.kill(leader);
    for (proposal, (_, key)) in proposals.into_iter().zip(&under_way) {
        proposal.abort();
        if let Ok(Ok(Outcome::Written(_))) = proposal.await {
            acknowledged.push(key.clone());
        }
    }
    let survivors: Vec<Raft> = cluster.nodes().into_iter().map(|node| cluster.raft(node)).collect();
    assert_there(&survivors[0], gateway.bucket, &acknowledged).await;
    for (put, key) in under_way {
        assert!(matches!(insist(&survivors, &put).await, Outcome::Written(_)));
        acknowledged.push(key);
    }
    let after = keys("after", 20);
    put_all(&survivors[1], &mut gateway, &after).await;
    acknowledged.extend(after);
    cluster.kill_and_close(leader).await;
    cluster.start(leader).await;
    assert_there(&cluster.raft(leader), gateway.bucket, &acknowledged).await;
    assert_eq!(counts(&cluster.raft(leader), gateway.bucket).await, (60, 0));
}

#[tokio::test]
async fn a_leader_that_is_cut_off_serves_nothing_until_it_follows() {
    let cluster = Cluster::started(3).await;
    let mut gateway = gateway(&cluster, 100).await;
    let old = cluster.leader().await;
    let others = cluster.others(old);
    let old_raft = cluster.raft(old);
    put_all(&old_raft, &mut gateway, &keys("before", 5)).await;
    cluster.net.isolate(old, others.clone());
    let lost = tokio::spawn({
        let (raft, put) = (old_raft.clone(), gateway.put("lost"));
        async move { (raft.propose(put.clone()).await, put) }
    });
    let stale = tokio::time::timeout(ELECTION, old_raft.barrier()).await;
    assert!(!matches!(stale, Ok(Ok(_))), "a leader without a quorum let a read pass");
    let new = cluster.leader_of(&others).await;
    assert_ne!(new, old);
    put_all(&cluster.raft(new), &mut gateway, &keys("after", 5)).await;
    let stale = tokio::time::timeout(ELECTION, old_raft.barrier()).await;
    assert!(!matches!(stale, Ok(Ok(_))), "a deposed leader let a read pass");
    // Of a command that is not remembered there is one try.
    let forgotten = Envelope { seq: 0, ..envelope(gateway.session, 0, Command::LeaseIds { count: 1 }) };
    let tried = tokio::time::timeout(ELECTION, old_raft.propose(forgotten)).await;
    assert!(!matches!(tried, Ok(Ok(_))), "a deposed leader acknowledged a write");

    cluster.net.heal();
    assert_there(&old_raft, gateway.bucket, &keys("after", 5)).await;
    let (outcome, put) = lost.await.unwrap();
    let again = insist(std::slice::from_ref(&old_raft), &put).await;
    assert!(matches!(again, Outcome::Written(_)), "{outcome:?}, then {again:?}");
    for node in cluster.nodes() {
        assert_eq!(counts(&cluster.raft(node), gateway.bucket).await, (11, 0));
    }
}

#[tokio::test]
async fn a_leader_that_hears_nobody_is_replaced() {
    let cluster = Cluster::started(3).await;
    let mut gateway = gateway(&cluster, 100).await;
    let old = cluster.leader().await;
    let others = cluster.others(old);
    for other in &others {
        cluster.net.cut(*other, old);
    }
    let follower = cluster.raft(others[0]);
    let new = until(|| follower.status().leader.filter(|leader| leader.0 != old)).await;
    let rafts: Vec<Raft> = others.iter().map(|node| cluster.raft(*node)).collect();
    for key in keys("k", 5) {
        insist(&rafts, &gateway.put(&key)).await;
    }
    assert!(others.contains(&new.0));
    cluster.net.heal();
    assert_there(&cluster.raft(old), gateway.bucket, &keys("k", 5)).await;
}

#[tokio::test]
async fn a_node_that_was_cut_off_does_not_depose_the_leader() {
    let cluster = Cluster::started(3).await;
    let mut gateway = gateway(&cluster, 100).await;
    let leader = cluster.leader().await;
    let others = cluster.others(leader);
    let term = cluster.raft(leader).status().term;
    cluster.net.isolate(others[0], [leader, others[1]]);
    for key in keys("k", 10) {
        cluster.raft(leader).propose(gateway.put(&key)).await.unwrap();
        tokio::time::sleep(ELECTION * 4 / 10).await;
    }
    let isolated = cluster.raft(others[0]);
    let isolated_term = isolated.status().term;
    cluster.net.heal();
    assert_there(&isolated, gateway.bucket, &keys("k", 10)).await;
    tokio::time::sleep(ELECTION).await;
    // A machine that stalls may cause an election of its own; an isolated node would have caused one every second.
    assert!(isolated_term <= term + 1, "its term ran away: {isolated_term} from {term}");
    assert!(cluster.raft(leader).status().term <= term + 1);
}

/// A third node hears both: it leads soon, and so the one that was cut off writes and reads; and it goes on leading.
#[tokio::test]
async fn a_node_that_only_the_leader_does_not_hear_is_served() {
    let cluster = Cluster::started(3).await;
    let mut gateway = gateway(&cluster, 100).await;
    let old = cluster.leader().await;
    let [cut_off, third] = cluster.others(old)[..] else { panic!("three nodes") };
    let rafts = [cluster.raft(cut_off)];
    cluster.net.isolate(old, [cut_off]);
    for key in keys("during", 10) {
        assert!(matches!(insist(&rafts, &gateway.put(&key)).await, Outcome::Written(_)));
    }
    assert_eq!(cluster.leader().await, third);
    assert_there(&rafts[0], gateway.bucket, &keys("during", 10)).await;
    let term = cluster.raft(third).status().term;
    tokio::time::sleep(ELECTION * 8).await;
    until(|| (cluster.raft(cut_off).status().leader.map(|leader| leader.0) == Some(third)).then_some(())).await;
    // A machine that stalls may cause an election of its own; a lead that went to and fro would have gone four times.
    let later = cluster.raft(third).status().term;
    assert!(later <= term + 2, "the lead goes to and fro: term {later} after {term}");
}

/// Nobody else hears it either.
#[tokio::test]
async fn a_node_that_nobody_hears_costs_the_leader_nothing() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let term = cluster.raft(leader).status().term;
    cluster.kill(cluster.others(leader)[0]);
    tokio::time::sleep(ELECTION * 8).await;
    let later = cluster.raft(cluster.leader().await).status().term;
    assert!(later <= term + 1, "term {later} after {term}");
}

/// Whether `key` is seen, if the read is served at all.
async fn try_read(raft: &Raft, bucket: BucketId, key: &str) -> Option<bool> {
    tokio::time::timeout(ELECTION / 4, raft.barrier()).await.ok()?.ok()?;
    let key = key.to_owned();
    let lookup = raft.readers().read(move |view| view.lookup(bucket, key.as_bytes(), None)).await.unwrap();
    Some(matches!(lookup, crate::catalog::Lookup::Found(_)))
}

/// Writers that go on whatever happens, each insisting on its own puts and reading them anywhere, while leaders are cut
/// off and messages lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_across_elections_apply_once() {
    const WRITERS: usize = 4;
    let cluster = Cluster::started(3).await;
    let mut gateway = gateway(&cluster, 10_000).await;
    let bucket = gateway.bucket;
    let rafts: Vec<Raft> = cluster.nodes().into_iter().map(|node| cluster.raft(node)).collect();
    cluster.net.disturb(50..3_000, 1);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let puts: Vec<_> =
                keys(&format!("w{writer}"), 1_000).into_iter().map(|key| (gateway.put(&key), key)).collect();
            let (mut rafts, stop) = (rafts.clone(), stop.clone());
            rafts.rotate_left(writer % 3);
            tokio::spawn(async move {
                let (mut written, mut reads) = (Vec::new(), 0);
                for (put, key) in puts {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    assert!(matches!(insist(&rafts, &put).await, Outcome::Written(_)), "{key}");
                    if let Some(found) = try_read(&rafts[written.len() % 3], bucket, &key).await {
                        assert!(found, "{key} was acknowledged, and a later read does not see it");
                        reads += 1;
                    }
                    written.push(key);
                }
                (written, reads)
            })
        })
        .collect();
    for _ in 0..3 {
        let leader = cluster.leader().await;
        cluster.net.isolate(leader, cluster.others(leader));
        cluster.leader_of(&cluster.others(leader)).await;
        tokio::time::sleep(ELECTION).await;
        cluster.net.heal();
        tokio::time::sleep(ELECTION).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut written, mut reads) = (Vec::new(), 0);
    for writer in writers {
        let (keys, read_count) = writer.await.unwrap();
        written.extend(keys);
        reads += read_count;
    }
    cluster.net.disturb(50..500, 0);
    eprintln!("{} puts, {reads} reads", written.len());
    assert!(reads > 0);
    for node in cluster.nodes() {
        assert_eq!(counts(&cluster.raft(node), gateway.bucket).await, (written.len() as u64, 0));
    }
    assert_there(&cluster.raft(1), gateway.bucket, &written).await;
}

#[tokio::test]
async fn a_leader_that_stops_hands_over() {
    let mut cluster = Cluster::started(3).await;
    let mut gateway = gateway(&cluster, 100).await;
    let old = cluster.leader().await;
    put_all(&cluster.raft(old), &mut gateway, &keys("before", 5)).await;
    let term = cluster.raft(old).status().term;
    cluster.raft(old).shutdown().await;
    // It was waited for: whoever took over knows already.
    let heirs: Vec<_> = cluster.others(old).into_iter().map(|node| cluster.raft(node).status()).collect();
    assert!(heirs.iter().any(|status| status.leader == Some(status.node) && status.term > term), "{heirs:?}");
    cluster.kill_and_close(old).await;
    let rafts: Vec<Raft> = cluster.nodes().into_iter().map(|node| cluster.raft(node)).collect();
    for key in keys("after", 5) {
        assert!(matches!(rafts[0].propose(gateway.put(&key)).await.unwrap(), Outcome::Written(_)));
    }
    assert_eq!(counts(&rafts[1], gateway.bucket).await, (10, 0));
}

#[tokio::test]
async fn without_a_quorum_nothing_is_acknowledged_and_nothing_read() {
    let mut cluster = Cluster::started(3).await;
    let gateway = gateway(&cluster, 10).await;
    let leader = cluster.leader().await;
    for other in cluster.others(leader) {
        cluster.kill(other);
    }
    let raft = cluster.raft(leader);
    let read = tokio::time::timeout(ELECTION * 2, raft.barrier()).await;
    assert!(!matches!(read, Ok(Ok(_))), "{read:?}");
    let lease = Envelope { seq: 0, ..envelope(gateway.session, 0, Command::LeaseIds { count: 1 }) };
    match tokio::time::timeout(ELECTION * 2, raft.propose(lease)).await {
        Err(_) | Ok(Err(LedgerError::Unknown(_) | LedgerError::Unavailable(_))) => {}
        other => panic!("{other:?}"),
    }
}
