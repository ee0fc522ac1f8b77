//! Locks: who excludes whom, who waits, and what becomes of them when somebody ends.

use std::ops::Range;
use std::time::Duration;

use super::*;
use crate::catalog::{Command, Envelope, Ledger, Outcome};
use crate::ids::SessionId;
use crate::object::Config;

const NOW: Duration = Duration::ZERO;
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

fn of(owner: u64, range: Range<u64>, is_exclusive: bool) -> Lock {
    Lock { owner, start_bytes: range.start, end_bytes: range.end, is_exclusive, opened: 1, pid: 1 }
}

impl Lock {
    fn through(self, opened: u64) -> Lock {
        Lock { opened, ..self }
    }
}

fn is_held(outcome: &Result<(), Error>) -> bool {
    matches!(outcome, Err(Error::Refused(Refusal::LockHeld)))
}

fn is_lost<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Refused(Refusal::NoSession)))
}

/// Another gateway of the same cluster.
async fn other_gateway(bed: &Bed) -> Store {
    bed.restarted(Config { gateway: "other".into(), ..Config::default() }).await
}

async fn opened(tree: &Tree, name: &str) -> Ino {
    let ino = tree.save(tree.root(), name, b"text").await.unwrap().ino;
    tree.open(ino, false).await.unwrap().ino
}

/// Ends a session as a leader does that has not heard of it.
async fn expire(bed: &Bed, session: SessionId) {
    let renewals = bed.ledger.readers().read(move |view| view.sessions()).await.unwrap();
    let renewals = renewals.into_iter().find(|state| state.id == session).unwrap().renewals;
    let command = Command::ExpireSession { session, renewals };
    let envelope = Envelope { session: SessionId(0), seq: 0, acked: 0, now: Timestamp(0), command };
    assert_eq!(bed.ledger.propose(envelope).await.unwrap(), Outcome::Done);
}

#[tokio::test]
async fn mounts_of_two_gateways_exclude_one_another() {
    let bed = bed().await;
    let other = other_gateway(&bed).await;
    let (one, two) = (tree_of(&bed, &bed.store, "one").await, tree_of(&bed, &other, "two").await);
    let ino = opened(&one, "f").await;
    two.open(ino, false).await.unwrap();
    one.lock(ino, of(5, 0..10, false), NOW).await.unwrap();
    two.lock(ino, of(5, 5..15, false), NOW).await.unwrap();
    assert!(is_held(&one.lock(ino, of(5, 0..10, true), NOW).await), "the same number in two mounts is two owners");
    one.lock(ino, of(5, 0..5, true), NOW).await.unwrap();
    assert!(is_held(&two.lock(ino, of(6, 4..5, false), NOW).await));
    let way = two.lock_in_the_way(ino, of(6, 0..LOCK_END, false)).await.unwrap().unwrap();
    assert_eq!((way.start_bytes..way.end_bytes, way.is_exclusive, way.pid), (0..5, true, 0), "a process elsewhere");
    let way = one.lock_in_the_way(ino, of(6, 0..1, false)).await.unwrap().unwrap();
    assert_eq!(way.pid, 1);
    one.unlock(ino, 5, 2..5, None).await.unwrap();
    two.lock(ino, of(6, 4..5, true), NOW).await.unwrap();
    assert!(is_held(&two.lock(ino, of(6, 1..5, true), NOW).await));
    // The last close of a mount lets all go.
    two.release(ino).await.unwrap();
    one.lock(ino, of(7, 10..100, true), NOW).await.unwrap();
    assert!(two.0.locks.inodes().is_empty());
}

#[tokio::test]
async fn who_waits_gets_it_when_it_is_free_and_sees_what_was_written() {
    let bed = bed().await;
    let other = other_gateway(&bed).await;
    let (one, two) = (tree_of(&bed, &bed.store, "one").await, tree_of(&bed, &other, "two").await);
    let mut watch = two.watch();
    let watching = tokio::spawn(async move { while watch.next().await.is_some() {} });
    let ino = opened(&one, "f").await;
    one.lock(ino, of(5, WHOLE, true), NOW).await.unwrap();
    let waiting = tokio::spawn({
        let two = two.clone();
        async move { two.lock(ino, of(6, 0..1, true), LONG).await }
    });
    one.write(ino, 0, Bytes::from_static(b"TEXT")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    one.unlock(ino, 5, WHOLE, None).await.unwrap();
    waiting.await.unwrap().unwrap();
    two.caught_up().await.unwrap();
    assert_eq!(two.bytes(ino).await.unwrap(), b"TEXT");
    assert!(lock(&two.0.locks.waiting).is_empty());
    assert!(is_held(&one.lock(ino, of(5, 0..1, false), Duration::from_millis(20)).await), "the time was up");
    watching.abort();
}

/// Many tasks in two gateways raise one number, each under the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_is_raised_under_the_lock_is_raised_every_time() {
    const EACH: u64 = 15;
    let bed = bed().await;
    let other = other_gateway(&bed).await;
    let trees = [tree_of(&bed, &bed.store, "one").await, tree_of(&bed, &other, "two").await];
    let ino = trees[0].save(trees[0].root(), "n", &0_u64.to_le_bytes()).await.unwrap().ino;
    let raising = (0..6_u64).map(|nth| {
        let tree = trees[nth as usize % 2].clone();
        tokio::spawn(async move {
            tree.open(ino, false).await.unwrap();
            for _ in 0..EACH {
                while is_held(&tree.lock(ino, of(nth, WHOLE, true), Duration::from_millis(20)).await) {}
                let read = tree.read(ino, 0, 8).await.unwrap();
                let number = u64::from_le_bytes(read[..].try_into().unwrap());
                tree.write(ino, 0, Bytes::copy_from_slice(&(number + 1).to_le_bytes())).await.unwrap();
                tree.unlock(ino, nth, WHOLE, None).await.unwrap();
            }
            tree.release(ino).await.unwrap();
        })
    });
    for raised in raising.collect::<Vec<_>>() {
        raised.await.unwrap();
    }
    assert_eq!(trees[0].bytes(ino).await.unwrap(), (6 * EACH).to_le_bytes());
    bed.assert_sound().await;
}

#[tokio::test]
async fn locks_go_on_with_the_next_process_and_end_with_a_mount_that_does_not_come_back() {
    let bed = bed().await;
    let other = other_gateway(&bed).await;
    let two = tree_of(&bed, &other, "two").await;
    let tree = outliving_tree(&bed, &bed.store, None).await;
    let gone = tree_of(&bed, &bed.store, "gone").await;
    let (kept, closed, left) =
        (opened(&tree, "kept").await, opened(&tree, "closed").await, opened(&gone, "left").await);
    for ino in [kept, closed] {
        tree.lock(ino, of(5, WHOLE, true), NOW).await.unwrap();
    }
    gone.lock(left, of(5, WHOLE, true), NOW).await.unwrap();
    kill(tree);
    kill(gone);

    let store = bed.restarted(Config::default()).await;
    let kernel = Kernel::knowing(&[kept]);
    let tree = outliving_tree(&bed, &store, Some(kernel.clone())).await;
    for ino in [kept, closed, left] {
        assert!(is_held(&two.lock(ino, of(6, WHOLE, true), NOW).await));
    }
    tree.settle_locks().await;
    two.lock(closed, of(6, WHOLE, true), NOW).await.unwrap();
    assert!(is_held(&two.lock(kept, of(6, WHOLE, true), NOW).await));
    tree.write(kept, 0, Bytes::from_static(b"TEXT")).await.unwrap();
    // Of another open file, which had the same owner before the process ended.
    tree.unlock(kept, 5, WHOLE, Some(2)).await.unwrap();
    assert!(is_held(&two.lock(kept, of(6, WHOLE, true), NOW).await));
    tree.unlock(kept, 5, WHOLE, Some(1)).await.unwrap();
    two.lock(kept, of(6, WHOLE, true), NOW).await.unwrap();
    assert_eq!(two.bytes(kept).await.unwrap(), b"TEXT");
    settle_inheritance(store, Duration::from_millis(1)).await;
    two.lock(left, of(6, WHOLE, true), NOW).await.unwrap();
}

/// Who waited already when the process before ended is not counted among those who have the file open.
#[tokio::test]
async fn a_lock_through_a_file_that_was_opened_before_a_restart_outlives_a_close_by_another() {
    let bed = bed().await;
    let tree = outliving_tree(&bed, &bed.store, None).await;
    let ino = opened(&tree, "f").await;
    kill(tree);
    let store = bed.restarted(Config::default()).await;
    let kernel = Kernel::knowing(&[ino]);
    let tree = outliving_tree(&bed, &store, Some(kernel.clone())).await;
    let other = tree_of(&bed, &store, "other").await;
    tree.lock(ino, of(5, WHOLE, true), NOW).await.unwrap();
    tree.open(ino, false).await.unwrap();
    tree.release(ino).await.unwrap();
    tree.settle_locks().await;
    assert!(is_held(&other.lock(ino, of(6, WHOLE, true), NOW).await));
    kernel.forget(ino);
    tree.settle_locks().await;
    other.lock(ino, of(6, WHOLE, true), NOW).await.unwrap();
}

/// What a gateway was thought dead for is not its any more, whatever it believes.
#[tokio::test]
async fn who_has_lost_a_lock_writes_no_more() {
    let bed = bed().await;
    let other = other_gateway(&bed).await;
    let (one, two) = (tree_of(&bed, &bed.store, "one").await, tree_of(&bed, &other, "two").await);
    for (name, size) in [("small", 4), ("large", 100_000)] {
        let (ino, free) = (opened(&one, name).await, opened(&one, &format!("{name}-free")).await);
        one.lock(ino, of(5, WHOLE, true), NOW).await.unwrap();
        let bytes = Bytes::from(vec![b'1'; size]);
        one.write(ino, 0, bytes.clone()).await.unwrap();
        one.write(free, 0, bytes.clone()).await.unwrap();
        expire(&bed, bed.store.session.id()).await;
        two.open(ino, false).await.unwrap();
        two.lock(ino, of(6, WHOLE, true), NOW).await.unwrap();
        // It does not know yet.
        assert!(one.flush(ino).await.is_err());
        assert!(is_lost(&one.write(ino, 0, bytes.clone()).await));
        assert!(is_lost(&one.lock(ino, of(5, 0..1, false), NOW).await));
        assert!(is_lost(&one.unlock(ino, 5, WHOLE, None).await));
        two.write(ino, 0, Bytes::from_static(b"2222")).await.unwrap();
        two.unlock(ino, 6, WHOLE, None).await.unwrap();
        assert!(is_lost(&one.release(ino).await));
        assert_eq!(one.bytes(ino).await.unwrap(), b"2222", "{name}");
        // Closed and opened again, it may.
        one.open(ino, false).await.unwrap();
        one.lock(ino, of(5, WHOLE, true), NOW).await.unwrap();
        one.write(ino, 0, Bytes::from_static(b"3")).await.unwrap();
        one.release(ino).await.unwrap();
        assert_eq!(two.bytes(ino).await.unwrap(), b"3222");
        // What nobody had locked is as before.
        one.release(free).await.unwrap();
        assert_eq!(two.bytes(free).await.unwrap(), bytes);
    }
}

/// Who gets a lock is to see what others wrote while they had it: the kernel must have been told.
#[tokio::test]
async fn who_watches_was_told_of_all_once_a_mount_has_caught_up() {
    let bed = bed().await;
    let other = other_gateway(&bed).await;
    let (one, two) = (tree_of(&bed, &bed.store, "one").await, tree_of(&bed, &other, "two").await);
    two.caught_up().await.unwrap();
    let mut watch = two.watch();
    two.caught_up().await.unwrap();
    let ino = one.save(one.root(), "f", b"text").await.unwrap().ino;
    let early = Duration::from_millis(30);
    assert!(tokio::time::timeout(early, two.caught_up()).await.is_err());
    while watch.next().await != Some(Changed::Inode(ino)) {}
    // What was returned last is not known to be passed on.
    assert!(tokio::time::timeout(early, two.caught_up()).await.is_err());
    let rest = tokio::time::timeout(early, async { while watch.next().await.is_some() {} });
    assert!(rest.await.is_err(), "there will be more");
    two.caught_up().await.unwrap();
    drop(watch);
    one.save(one.root(), "g", b"text").await.unwrap();
    two.caught_up().await.unwrap();
}

/// The end of an open file is told late: its number as an owner is another's by then.
#[tokio::test]
async fn the_late_end_of_an_open_file_lets_nothing_of_anothers_go() {
    let bed = bed().await;
    let (one, two) = (tree_of(&bed, &bed.store, "one").await, tree_of(&bed, &bed.store, "two").await);
    let ino = opened(&one, "f").await;
    one.open(ino, false).await.unwrap();
    one.lock(ino, of(5, WHOLE, true).through(100), NOW).await.unwrap();
    // The file 100 is closed; another one gets its number.
    one.lock(ino, of(5, WHOLE, true).through(101), NOW).await.unwrap();
    one.unlock(ino, 5, WHOLE, Some(100)).await.unwrap();
    one.release(ino).await.unwrap();
    assert!(is_held(&two.lock(ino, of(6, WHOLE, true), NOW).await));
    // Whatever comes at the same time, nothing is left in the end.
    for nth in 0..50_u64 {
        let (old, new) = (102 + nth, 103 + nth);
        one.lock(ino, of(5, WHOLE, true).through(old), NOW).await.unwrap();
        let late = one.unlock(ino, 5, WHOLE, Some(old));
        let (ended, locked) = tokio::join!(late, one.lock(ino, of(5, WHOLE, true).through(new), NOW));
        ended.unwrap();
        locked.unwrap();
        assert!(is_held(&two.lock(ino, of(6, WHOLE, true), NOW).await), "round {nth}");
        one.unlock(ino, 5, WHOLE, None).await.unwrap();
        two.lock(ino, of(6, WHOLE, true), NOW).await.unwrap();
        two.unlock(ino, 6, WHOLE, None).await.unwrap();
    }
}
