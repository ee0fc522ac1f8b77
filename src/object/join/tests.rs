//! Tokens and boxes over a real catalog.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::*;
use crate::env::{Clock, Env, Timestamp};
use crate::ids::NodeId;
use crate::object::access::Secret;
use crate::object::tests::Bed;
use crate::object::{Config, Store};

const HOUR: Duration = Duration::from_secs(3600);

/// The machine's clock, set on by so many seconds.
struct Ahead(Env, AtomicI64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.clock.now().0 + self.1.load(Ordering::SeqCst) * 1_000_000_000)
    }

    fn monotonic(&self) -> Duration {
        self.0.clock.monotonic()
    }
}

async fn at_level() -> Bed {
    let bed = Bed::new().await;
    bed.ledger.raise_level();
    bed
}

fn newcomer(address: &str) -> Newcomer {
    Newcomer { address: address.into(), host: "box".into(), capacity_bytes: 1 << 40 }
}

async fn refused(store: &Store, secret: &Secret) -> bool {
    matches!(store.check_token(secret).await, Err(Error::Token))
        && matches!(store.let_in(secret, &newcomer("x:1")).await, Err(Error::Token))
}

#[tokio::test]
async fn a_token_lets_in_as_many_as_it_says() {
    let bed = at_level().await;
    let token = bed.store.create_token(HOUR, 2).await.unwrap();
    assert!(bed.store.write_down(NodeId(1), &newcomer("first:1")).await.unwrap());
    assert!(!bed.store.write_down(NodeId(1), &newcomer("again:1")).await.unwrap());
    bed.store.check_token(&token.secret).await.unwrap();
    assert_eq!(bed.store.let_in(&token.secret, &newcomer("second:1")).await.unwrap(), NodeId(2));
    assert_eq!(bed.store.tokens().await.unwrap(), [TokenInfo { uses_left: 1, ..token.info.clone() }]);
    assert_eq!(bed.store.let_in(&token.secret, &newcomer("third:1")).await.unwrap(), NodeId(3));
    assert!(refused(&bed.store, &token.secret).await, "it is used up");
    assert!(refused(&bed.store, &Secret::new("guessed")).await);
    assert_eq!(bed.store.tokens().await.unwrap(), []);

    let nodes = bed.store.joined_nodes().await.unwrap();
    let addresses: Vec<_> = nodes.iter().map(|node| (node.id.0, node.newcomer.address.as_str())).collect();
    assert_eq!(addresses, [(1, "first:1"), (2, "second:1"), (3, "third:1")]);
    bed.store.note_placed(NodeId(2)).await.unwrap();
    let placed: Vec<_> = bed.store.joined_nodes().await.unwrap().iter().map(|node| node.is_placed).collect();
    assert_eq!(placed, [false, true, false]);
    bed.store.note_removed(NodeId(3)).await.unwrap();
    bed.store.note_removed(NodeId(7)).await.unwrap();
    let removed: Vec<_> = bed.store.joined_nodes().await.unwrap().iter().map(|node| node.is_removed).collect();
    assert_eq!(removed, [false, false, true]);
}

/// Ten at once with a token for four: four numbers, each once.
#[tokio::test(flavor = "multi_thread")]
async fn a_use_is_taken_once_whoever_comes_at_the_same_time() {
    let bed = at_level().await;
    let token = bed.store.create_token(HOUR, 4).await.unwrap();
    let tried = (0..10).map(|n| {
        let (store, secret) = (bed.store.clone(), token.secret.clone());
        tokio::spawn(async move {
            loop {
                match store.let_in(&secret, &newcomer(&format!("box-{n}:1"))).await {
                    Err(Error::Store(_)) => {}
                    settled => return settled.ok(),
                }
            }
        })
    });
    let mut given: Vec<u64> =
        futures::future::join_all(tried).await.into_iter().filter_map(|id| Some(id.unwrap()?.0)).collect();
    given.sort_unstable();
    assert_eq!(given, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_token_ends_by_itself_or_by_hand() {
    let bed = at_level().await;
    let clock = Arc::new(Ahead(Env::system(), AtomicI64::new(0)));
    let env = Env { clock: clock.clone(), ..Env::system() };
    let store = Store::open(env, bed.ledger.clone(), bed.store.chunks.clone(), Config::default()).await.unwrap();
    let (short, long) = (store.create_token(HOUR, 1).await.unwrap(), store.create_token(HOUR * 2, 1).await.unwrap());
    clock.1.store(3599, Ordering::SeqCst);
    store.check_token(&short.secret).await.unwrap();
    clock.1.store(3600, Ordering::SeqCst);
    assert!(refused(&store, &short.secret).await);
    clock.1.store(-86_400, Ordering::SeqCst);
    assert!(refused(&store, &short.secret).await, "a clock that went back");
    clock.1.store(3600, Ordering::SeqCst);
    assert_eq!(store.tokens().await.unwrap(), std::slice::from_ref(&long.info));
    assert!(matches!(store.revoke_token("no such").await, Err(Error::NoSuchToken(_))));
    store.revoke_token(&long.info.id).await.unwrap();
    assert!(refused(&store, &long.secret).await);
    let shorter = store.create_token(HOUR, 1).await.unwrap();
    assert_eq!(store.token_records_count().await, 1, "what has ended is forgotten");
    assert_eq!(shorter.info.id.len(), 8);
    for (ttl, uses) in [(Duration::from_secs(59), 1), (HOUR * 24 * 31, 1)] {
        assert!(matches!(store.create_token(ttl, uses).await, Err(Error::Ttl)));
    }
    for uses in [0, 101] {
        assert!(matches!(store.create_token(HOUR, uses).await, Err(Error::Uses)));
    }
}

#[tokio::test]
async fn secrets_are_not_in_the_catalog() {
    let bed = at_level().await;
    let token = bed.store.create_token(HOUR, 1).await.unwrap();
    let kept = bed.store.snapshot(|view| Ok(view.records(crate::catalog::RecordKind::Token)?)).await.unwrap();
    let (name, value) = &kept[0];
    assert!(!token.secret.reveal().contains(name.as_str()) && name.starts_with(&token.info.id));
    assert!(!value.windows(8).any(|run| token.secret.reveal().as_bytes().windows(8).any(|other| other == run)));
}
