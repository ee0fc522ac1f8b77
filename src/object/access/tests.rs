//! Users over a real catalog, and what becomes of their keys.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::object::Store;
use crate::object::tests::Bed;
use crate::policy::Policy;

const ACCOUNT: &str = "000000000001";

fn policy(name: &str, bucket: &str) -> Named {
    Named { name: name.into(), document: policy::canned::read_only(bucket, "") }
}

fn authority(store: &Store) -> Authority {
    let root = Caller::plain("root".into(), "000000000000".into(), None, Secret::new("root's"));
    let root = Caller { crosses_accounts: true, ..root };
    Authority::new(store.clone(), vec![root], vec!["open".into()])
}

/// What the holder of a key may get: of two buckets. None: it is no key.
async fn may_get(authority: &Authority, id: &str) -> Option<[bool; 2]> {
    let caller = authority.caller(id).await.unwrap()?;
    Some(["one", "two"].map(|bucket| caller.decide(&Deed::plain("s3:GetObject", bucket, "key")).is_allowed()))
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
    assert!(!caller.decide(&Deed::plain("s3:PutObject", "one", "key")).is_allowed());

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
        let rights = authority.rights(None, &["open", "one"]).await.unwrap();
        assert_eq!(rights.may(&Deed::plain(action, bucket, "key")), may, "{action} {bucket}");
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

/// Who asks, in the tables below: root; the owner's account; a user of it without and with a policy; another account; its users
/// likewise; nobody in particular.
fn askers() -> Vec<(&'static str, Option<Arc<Caller>>)> {
    let caller = |account: &str, user: Option<&str>| {
        Caller::plain("key".into(), account.into(), user.map(str::to_owned), Secret::new("x"))
    };
    let limited = |caller: Caller, bucket: Option<&str>| {
        let read =
            |bucket| Policy::parse(policy::canned::read_only(bucket, "").as_bytes(), policy::Kind::Identity).unwrap();
        Caller { policies: Some(bucket.map(read).into_iter().collect()), ..caller }
    };
    let askers = [
        ("root", Some(Caller { crosses_accounts: true, ..caller("000000000000", None) })),
        ("owner", Some(caller("111111111111", None))),
        ("bare user", Some(limited(caller("111111111111", Some("bob")), None))),
        ("user", Some(limited(caller("111111111111", Some("ann")), Some("box")))),
        ("other", Some(caller("222222222222", None))),
        ("other's bare user", Some(limited(caller("222222222222", Some("bob")), None))),
        ("other's user", Some(limited(caller("222222222222", Some("ann")), Some("box")))),
        ("anybody", None),
    ];
    askers.into_iter().map(|(name, caller)| (name, caller.map(Arc::new))).collect()
}

fn statement(effect: &str, principal: &str, action: &str) -> String {
    let resources = r#"["arn:aws:s3:::box", "arn:aws:s3:::box/*"]"#;
    format!(r#"{{"Effect": "{effect}", "Principal": {principal}, "Action": "{action}", "Resource": {resources}}}"#)
}

async fn set_policy(store: &Store, statements: &[String]) {
    let document = format!(r#"{{"Version": "2012-10-17", "Statement": [{}]}}"#, statements.join(","));
    let document = (!statements.is_empty()).then(|| document.into_bytes().into());
    store.set_setting("box", crate::catalog::Setting::Policy, document).await.unwrap();
}

/// The names of those who may.
async fn who_may(authority: &Authority, action: &str) -> Vec<&'static str> {
    let mut may = Vec::new();
    for (name, caller) in askers() {
        let rights = authority.rights(caller, &["box"]).await.unwrap();
        may.extend(rights.may(&Deed::plain(action, "box", "key")).then_some(name));
        assert!(!rights.may(&Deed::plain(action, "another", "key")), "{name}: nobody asked for that bucket");
    }
    may
}

#[tokio::test]
async fn within_an_account_either_side_may_allow_it_and_across_accounts_both_must() {
    let bed = Bed::new().await;
    bed.store.create_bucket("box", "111111111111", "mars", false).await.unwrap();
    let authority = authority(&bed.store);
    let everybody = r#"{"AWS": "*"}"#;
    let other = r#"{"AWS": "arn:aws:iam::222222222222:root"}"#;
    let home = ["root", "owner", "user"];
    for (statements, expected) in [
        (vec![], home.to_vec()),
        (vec![statement("Allow", everybody, "s3:PutObject")], home.to_vec()),
        (
            vec![statement("Allow", everybody, "s3:GetObject")],
            vec!["root", "owner", "bare user", "user", "other", "other's user", "anybody"],
        ),
        (vec![statement("Allow", other, "s3:GetObject")], vec!["root", "owner", "user", "other", "other's user"]),
        (
            vec![statement("Allow", r#"{"AWS": "arn:aws:iam::111111111111:user/bob"}"#, "s3:Get*")],
            vec!["root", "owner", "bare user", "user"],
        ),
        (vec![statement("Deny", everybody, "s3:GetObject")], vec![]),
        (
            vec![statement("Deny", other, "s3:*"), statement("Allow", everybody, "s3:*")],
            vec!["root", "owner", "bare user", "user", "anybody"],
        ),
    ] {
        set_policy(&bed.store, &statements).await;
        assert_eq!(who_may(&authority, "s3:GetObject").await, expected, "{statements:?}");
    }
}

#[tokio::test]
async fn a_policy_that_denies_everything_locks_nobody_out_for_good() {
    let bed = Bed::new().await;
    bed.store.create_bucket("box", "111111111111", "mars", false).await.unwrap();
    let authority = authority(&bed.store);
    set_policy(&bed.store, &[statement("Deny", r#""*""#, "s3:*")]).await;
    assert_eq!(who_may(&authority, "s3:ListBucket").await, Vec::<&str>::new());
    for action in ["s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"] {
        assert_eq!(who_may(&authority, action).await, ["root", "owner"], "{action}");
    }
}

#[tokio::test]
async fn a_public_policy_of_a_restricted_bucket_counts_at_home_only() {
    let bed = Bed::new().await;
    bed.store.create_bucket("box", "111111111111", "mars", false).await.unwrap();
    let authority = authority(&bed.store);
    let block = PublicAccessBlock { restrict_public_buckets: true, ..PublicAccessBlock::default() };
    let block = Some(bytes::Bytes::copy_from_slice(&block.to_bytes()));
    bed.store.set_setting("box", crate::catalog::Setting::PublicAccessBlock, block).await.unwrap();
    set_policy(&bed.store, &[statement("Allow", r#""*""#, "s3:GetObject")]).await;
    assert_eq!(who_may(&authority, "s3:GetObject").await, ["root", "owner", "bare user", "user"]);
    set_policy(&bed.store, &[statement("Allow", r#"{"AWS": "222222222222"}"#, "s3:GetObject")]).await;
    assert!(who_may(&authority, "s3:GetObject").await.contains(&"other"), "it is not public");
}

#[tokio::test]
async fn what_is_remembered_of_a_bucket_goes_with_it() {
    let bed = Bed::new().await;
    let authority = authority(&bed.store);
    for owner in ["111111111111", "222222222222"] {
        bed.store.create_bucket("box", owner, "mars", false).await.unwrap();
        let may = who_may(&authority, "s3:GetObject").await;
        assert_eq!(
            (may.contains(&"owner"), may.contains(&"other")),
            (owner == "111111111111", owner != "111111111111")
        );
        bed.store.delete_bucket("box").await.unwrap();
    }
    let rights = authority.rights_to_make(askers()[4].1.clone(), "box");
    assert!(rights.may(&Deed::plain("s3:CreateBucket", "box", "")));
    assert!(!authority.rights_to_make(None, "box").may(&Deed::plain("s3:CreateBucket", "box", "")));
}
