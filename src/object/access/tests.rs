//! Users over a real catalog, and what becomes of their keys.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::object::Store;
use crate::object::tests::Bed;

const ACCOUNT: &str = "000000000001";

fn policy(name: &str, bucket: &str) -> Named {
    Named { name: name.into(), document: policy::canned::read_only(bucket, "") }
}

fn authority(store: &Store) -> Authority {
    let root = Caller::plain("root".into(), "000000000000".into(), None, Secret::new("root's"));
    Authority::new(store.clone(), vec![root], vec!["open".into()])
}

/// What the holder of a key may get: of two buckets. None: it is no key.
async fn may_get(authority: &Authority, id: &str) -> Option<[bool; 2]> {
    let caller = authority.caller(id).await.unwrap()?;
    Some(["one", "two"].map(|bucket| caller.may(&Deed::plain("s3:GetObject", bucket, "key"))))
}

#[tokio::test]
async fn what_a_user_may_do_follows_its_policies_at_once() {
    let bed = Bed::new().await;
    bed.ledger.raise_level();
    let authority = authority(&bed.store);
    bed.store.add_user("ann", ACCOUNT, vec![policy("one", "one")]).await.unwrap();
    let key = bed.store.add_user_key("ann").await.unwrap();
    let caller = authority.caller(&key.id).await.unwrap().unwrap();
    assert!(caller.secret.is(&key.secret));
    assert_eq!((caller.account_id.as_str(), caller.user.as_deref()), (ACCOUNT, Some("ann")));
    assert_eq!(may_get(&authority, &key.id).await, Some([true, false]));
    assert!(!caller.may(&Deed::plain("s3:PutObject", "one", "key")));

    bed.store.set_user_policy("ann", policy("two", "two")).await.unwrap();
    assert_eq!(may_get(&authority, &key.id).await, Some([true, true]));
    bed.store.remove_user_policy("ann", "one").await.unwrap();
    assert_eq!(may_get(&authority, &key.id).await, Some([false, true]));
    bed.store.set_user_policy("ann", policy("two", "one")).await.unwrap();
    assert_eq!(may_get(&authority, &key.id).await, Some([true, false]));

    bed.store.set_user_key_active(&key.id, false).await.unwrap();
    assert_eq!(may_get(&authority, &key.id).await, None);
    bed.store.set_user_key_active(&key.id, true).await.unwrap();
    assert_eq!(may_get(&authority, &key.id).await, Some([true, false]));
    bed.store.remove_user_key(&key.id).await.unwrap();
    assert_eq!(may_get(&authority, &key.id).await, None);
    assert!(matches!(bed.store.remove_user_key(&key.id).await, Err(Error::NoSuchKey(_))));
}

#[tokio::test]
async fn keys_go_with_their_user_and_do_not_come_back_with_the_next() {
    let bed = Bed::new().await;
    bed.ledger.raise_level();
    let authority = authority(&bed.store);
    bed.store.add_user("ann", ACCOUNT, vec![policy("one", "one")]).await.unwrap();
    let key = bed.store.add_user_key("ann").await.unwrap();
    assert!(may_get(&authority, &key.id).await.is_some());
    let stale = bed.store.snapshot({
        let id = key.id.clone();
        move |view| Ok(view.credential(&id)?)
    });
    let stale = stale.await.unwrap();
    bed.store.remove_user("ann").await.unwrap();
    assert_eq!(may_get(&authority, &key.id).await, None);
    assert_eq!(bed.store.users().await.unwrap(), []);
    // As of a key that was made while its user went.
    let command = crate::catalog::Command::SetCredential { access_key: key.id.clone(), value: stale };
    bed.store.session.propose(command).await.unwrap();
    bed.store.add_user("ann", ACCOUNT, vec![policy("one", "one")]).await.unwrap();
    assert_eq!(may_get(&authority, &key.id).await, None);
    assert_eq!(bed.store.user("ann").await.unwrap().keys, []);
}

#[tokio::test]
async fn configured_keys_win_and_the_rest_are_nobody() {
    let bed = Bed::new().await;
    bed.ledger.raise_level();
    let authority = authority(&bed.store);
    assert_eq!(may_get(&authority, "root").await, Some([true, true]));
    assert_eq!(may_get(&authority, "nobody").await, None);
    for (action, bucket, may) in
        [("s3:GetObject", "open", true), ("s3:ListBucket", "open", false), ("s3:GetObject", "one", false)]
    {
        assert_eq!(authority.anybody_may(&Deed::plain(action, bucket, "key")), may, "{action} {bucket}");
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let bed = Bed::new().await;
    bed.ledger.raise_level();
    let store = &bed.store;
    for name in ["", "a b", "a/b", "ä", &"a".repeat(65)] {
        assert!(matches!(store.add_user(name, ACCOUNT, Vec::new()).await, Err(Error::Name(_))), "{name}");
    }
    assert!(matches!(store.add_user("a", "1", Vec::new()).await, Err(Error::Account(_))));
    let broken = Named { name: "p".into(), document: "{".into() };
    assert!(matches!(store.add_user("a", ACCOUNT, vec![broken.clone()]).await, Err(Error::Policy { .. })));
    store.add_user("a", ACCOUNT, Vec::new()).await.unwrap();
    assert!(matches!(store.add_user("a", ACCOUNT, Vec::new()).await, Err(Error::UserExists(_))));
    assert!(matches!(store.set_user_policy("a", broken).await, Err(Error::Policy { .. })));
    assert!(matches!(store.remove_user_policy("a", "p").await, Err(Error::NoSuchPolicy { .. })));
    for user in ["b", "A"] {
        assert!(matches!(store.set_user_policy(user, policy("p", "one")).await, Err(Error::NoSuchUser(_))));
        assert!(matches!(store.add_user_key(user).await, Err(Error::NoSuchUser(_))));
        assert!(matches!(store.remove_user(user).await, Err(Error::NoSuchUser(_))));
    }
    for index in 0..POLICY_COUNT_MAX {
        store.set_user_policy("a", policy(&format!("p{index}"), "one")).await.unwrap();
    }
    assert!(matches!(store.set_user_policy("a", policy("more", "one")).await, Err(Error::TooMany { .. })));
    for _ in 0..KEY_COUNT_MAX {
        store.add_user_key("a").await.unwrap();
    }
    assert!(matches!(store.add_user_key("a").await, Err(Error::TooMany { .. })));
}

/// Two operators at once: what each did is there.
#[tokio::test]
async fn changes_at_the_same_time_are_both_kept() {
    let bed = Bed::new().await;
    bed.ledger.raise_level();
    bed.store.add_user("ann", ACCOUNT, Vec::new()).await.unwrap();
    let changes = (0..8).map(|index| {
        let store = bed.store.clone();
        tokio::spawn(async move { store.set_user_policy("ann", policy(&format!("p{index}"), "one")).await })
    });
    for change in changes.collect::<Vec<_>>() {
        change.await.unwrap().unwrap();
    }
    assert_eq!(bed.store.user("ann").await.unwrap().policies.len(), 8);
}
