//! Gateways against each other, against the sweep and against reclaim: over one catalog and its files.

use tokio::runtime::Handle;

use super::*;

fn named(gateway: &str) -> Config {
    Config { gateway: gateway.into(), ..Config::default() }
}

impl Bed {
    /// The session that was opened first, of those that live.
    async fn first_session(&self) -> SessionId {
        self.ledger.readers.read(|view| view.sessions()).await.unwrap()[0].id
    }
}

/// R: an expired session's ids name nothing, whatever the sleeper believes.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_paused_past_its_session_commits_nothing() {
    for knows in [false, true] {
        let bed = Bed::new().await;
        let late = received(&bed.store, &pattern(100_000, 1)).await;
        // It is paused. Its session expires, and what nobody leases or names any more is swept.
        bed.ledger.expire(bed.first_session().await);
        let other = bed.restarted(named("other")).await;
        for _ in 0..2 {
            other.sweep_older_than(Duration::ZERO).await.unwrap();
        }
        assert_eq!(bed.chunks(), []);
        put(&other, "k", b"theirs").await.unwrap();
        // It goes on; it may have learnt from another command that it has a new session.
        if knows {
            bed.store.delete("b", vec![delete_key("none")]).await.unwrap();
        }
        let answer = name(&bed.store, "k", late).await;
        assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
        assert_eq!(bed.get("k", 0..6).await.unwrap(), b"theirs");
        bed.assert_sound().await;
    }
}

/// R: a retry repeats session and sequence, and gets the first answer.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_asked_for_again_after_another_put_and_undoes_nothing() {
    let bed = Bed::new().await;
    let other = bed.restarted(named("other")).await;
    let (mine, theirs) = (pattern(20_000, 1), pattern(20_000, 2));
    let their_put = {
        let (other, theirs) = (other.clone(), theirs.clone());
        async move { put(&other, "k", &theirs).await.unwrap() }
    };
    bed.ledger.lose_answer_while(move |_| {
        tokio::task::block_in_place(|| Handle::current().block_on(their_put));
    });
    bed.put("k", &mine).await;
    assert!(bed.get("k", 0..20_000).await.unwrap() == theirs, "the retry was applied");
    bed.store.drain().await.unwrap();
    other.session.renew().await.unwrap();
    assert_eq!(bed.store.settle().await.unwrap(), 1, "what was overwritten");
    bed.assert_sound().await;
}

/// R: time-outs are unknown, never failure, and a session that has ended since tells nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_named_stays_when_the_session_ends_before_the_retry() {
    let bed = Bed::new().await;
    let (session, body) = (bed.first_session().await, pattern(20_000, 1));
    bed.ledger.lose_answer_while(move |ledger| ledger.expire(session));
    let answer = put(&bed.store, "k", &body).await;
    assert!(matches!(answer, Err(Error::Unavailable(_))), "{answer:?}");
    assert!(bed.get("k", 0..20_000).await.unwrap() == body, "it was applied");
    bed.assert_sound().await;
}

/// R: what a live session leases is no orphan.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_leaves_what_is_received_and_not_named_yet() {
    let bed = Bed::new().await;
    let body = pattern(100_000, 1);
    let fresh = received(&bed.store, &body).await;
    let other = bed.restarted(named("other")).await;
    let untouched = SweepReport { chunk_count: 1, ..SweepReport::default() };
    assert_eq!(other.sweep_older_than(Duration::ZERO).await.unwrap(), untouched);
    name(&bed.store, "k", fresh).await.unwrap();
    assert_eq!(other.sweep_older_than(Duration::ZERO).await.unwrap(), untouched);
    assert!(bed.get("k", 0..100_000).await.unwrap() == body);
    bed.assert_sound().await;
}

/// R: a dead chunk is reclaimed when every live session's oldest read has passed the index of its death.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_at_one_gateway_keeps_bytes_from_the_reclaim_of_another() {
    let bed = Bed::new().await;
    let other = bed.restarted(named("other")).await;
    let body = pattern(3_000_000, 1);
    bed.put("k", &body).await;
    let mut slow = other.get(&target("k")).await.unwrap().read(0..body.len() as u64);
    let first = slow.next().await.unwrap().unwrap();
    bed.store.delete("b", vec![delete_key("k")]).await.unwrap();
    for _ in 0..3 {
        other.session.renew().await.unwrap();
        assert_eq!(bed.store.settle().await.unwrap(), 0);
    }
    assert_eq!(bed.chunks().len(), 1);
    assert!([&first[..], &collect(slow).await.unwrap()].concat() == body);
    other.session.renew().await.unwrap();
    assert_eq!(bed.store.settle().await.unwrap(), 1);
    bed.assert_sound().await;
}
