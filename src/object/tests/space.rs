//! Giving room back: reclaim, the sweep, the workers.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_is_left_to_the_sweep() {
    let config = Config { propose_patience: Duration::ZERO, ..Config::default() };
    let bed = Bed::with(config.clone()).await;
    let body = pattern(20_000, 1);
    bed.put("kept", &body).await;
    bed.ledger.fail_next(&[Fault::LostBefore]);
    assert!(matches!(put(&bed.store, "lost", &body).await, Err(Error::Unavailable(_))));
    bed.ledger.fail_next(&[Fault::LostAfter]);
    assert!(matches!(put(&bed.store, "made", &body).await, Err(Error::Unavailable(_))));
    assert_eq!(bed.chunks().len(), 3);
    // While the session lives its ids are leased: nothing is an orphan.
    let report = bed.store.sweep_older_than(Duration::ZERO).await.unwrap();
    assert_eq!((report.chunk_count, report.quarantined_count), (3, 0));
    // Another session of this gateway ends the first: now only what was never applied is one.
    let again = bed.restarted(config).await;
    assert!(again.sweep_older_than(Duration::from_secs(3600)).await.unwrap().quarantined_count == 0);
    let report = again.sweep_older_than(Duration::ZERO).await.unwrap();
    assert_eq!((report.chunk_count, report.quarantined_count, report.removed_count), (3, 1, 0));
    let report = again.sweep_older_than(Duration::ZERO).await.unwrap();
    assert_eq!((report.chunk_count, report.quarantined_count, report.removed_count), (2, 0, 1));
    for key in ["kept", "made"] {
        assert!(bed.get(key, 0..20_000).await.unwrap() == body);
    }
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_gives_space_back_but_not_from_under_a_slow_reader() {
    let bed = Bed::new().await;
    let body = pattern(3_000_000, 1);
    bed.put("k", &body).await;
    let mut slow = bed.store.get(&target("k")).await.unwrap().read(0..body.len() as u64);
    let first = slow.next().await.unwrap().unwrap();
    bed.store.delete("b", vec![delete_key("k")]).await.unwrap();
    for _ in 0..3 {
        assert_eq!(bed.store.settle().await.unwrap(), 0);
    }
    assert_eq!(bed.chunks().len(), 1);
    let rest = collect(slow).await.unwrap();
    assert!([&first[..], &rest].concat() == body);
    assert_eq!(bed.store.settle().await.unwrap(), 1);
    assert_eq!(bed.chunks(), []);
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_beside_writers_takes_nothing_of_theirs() {
    let bed = Bed::new().await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = bed.store.clone();
            tokio::spawn(async move {
                for index in 0..25 {
                    put(&store, &format!("{writer}/{index}"), &pattern(20_000, index)).await.unwrap();
                }
            })
        })
        .collect();
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let report = bed.store.sweep_older_than(Duration::ZERO).await.unwrap();
        assert_eq!(report.quarantined_count, 0);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    bed.store.settle().await.unwrap();
    assert_eq!(bed.chunks().len(), 100);
    bed.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_above_the_high_water_mark_stop_the_sweep() {
    let bed = Bed::new().await;
    let mut writer = bed.files.create(Ino::new(1, 1 << 40), None).unwrap();
    writer.write(b"from a later state of the store").unwrap();
    writer.finish().unwrap();
    let answer = bed.store.sweep_older_than(Duration::ZERO).await;
    assert!(matches!(answer, Err(Error::Catalog(catalog::Error::Inconsistent(_)))), "{answer:?}");
    assert_eq!(bed.chunks().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_drain_and_reclaim_by_themselves_and_end_when_told() {
    let config = Config { renew_interval: Duration::from_millis(5), ..Config::default() };
    let bed = Bed::with(config).await;
    let workers = Workers::start(&bed.store);
    bed.put("k", &pattern(20_000, 1)).await;
    bed.store.delete("b", vec![delete_key("k")]).await.unwrap();
    until(|| bed.chunks().is_empty()).await;
    workers.stop().await;
    bed.assert_sound().await;
}

/// A store that is killed again and again does its work all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_ended_process_left_is_given_back_soon_after_the_start() {
    let never = Duration::from_secs(3600);
    let soon = Duration::from_millis(5);
    let config = Config { propose_patience: Duration::ZERO, renew_interval: never, ..Config::default() };
    let config = Config { first_sweep_pause: soon, sweep_interval: never, sweep_grace: Duration::ZERO, ..config };
    let bed = Bed::with(config.clone()).await;
    let body = pattern(20_000, 1);
    bed.put("kept", &body).await;
    bed.put("dead", &body).await;
    bed.store.delete("b", vec![delete_key("dead")]).await.unwrap();
    bed.store.drain().await.unwrap();
    bed.ledger.fail_next(&[Fault::LostBefore]);
    assert!(matches!(put(&bed.store, "lost", &body).await, Err(Error::Unavailable(_))));
    assert_eq!(bed.chunks().len(), 3);

    let again = bed.restarted(config).await;
    let workers = Workers::start(&again);
    until(|| bed.chunks().len() == 1).await;
    workers.stop().await;
    let quarantined: Vec<Ino> = bed.files.quarantined().unwrap().chunks.iter().map(|listed| listed.chunk).collect();
    assert_eq!(quarantined.len(), 1, "the orphan is in quarantine first, whenever it is found");
    bed.assert_sound().await;
}

/// A process that stops drops the task that waits for a command's fate; the command may stand in the log.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_may_name_is_left_when_its_task_ends_early() {
    let bed = Bed::new().await;
    let received = async || received(&bed.store, &[7; 100_000]).await;
    drop(received().await);
    assert_eq!(bed.chunks(), [], "nothing named it, or will");
    let mut proposed = received().await;
    proposed.fresh.propose();
    let chunk = proposed.fresh.ino();
    drop(proposed);
    assert_eq!(bed.chunks(), [chunk]);
    let mut refused = received().await;
    refused.fresh.propose();
    refused.fresh.discard().await;
    assert_eq!(bed.chunks(), [chunk], "what was refused for sure is gone");
}
