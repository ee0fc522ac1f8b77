//! What the buckets hold, and who somebody is by it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use predastore::env::Timestamp;
use predastore::object::access::{Caller, Secret, Session, Unknown};
use predastore::policy::{Kind, Policies, Policy};
use predastore_vocabulary::dates::parse_iso_8601_ms;
use serde::de::DeserializeOwned;

use super::records::{AccessKey, Document, Holder, SessionKey, name_in};

/// What temporary keys begin with, and no others.
const TEMPORARY: &str = "ASIA";
/// Bytes of all that is mirrored.
pub(super) const MIRROR_MAX_BYTES: usize = 64 << 20;
/// Callers that are remembered: each has its policies for itself.
const CALLERS_MAX: usize = 1024;

/// The buckets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kept {
    AccessKeys,
    Sessions,
    Users,
    Roles,
    Groups,
    Policies,
}

impl Kept {
    pub(super) const ALL: [Kept; 6] =
        [Kept::AccessKeys, Kept::Sessions, Kept::Users, Kept::Roles, Kept::Groups, Kept::Policies];

    /// What the bucket is called, behind the prefix and a hyphen.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kept::AccessKeys => "access-keys",
            Kept::Sessions => "session-credentials",
            Kept::Users => "users",
            Kept::Roles => "roles",
            Kept::Groups => "groups",
            Kept::Policies => "policies",
        }
    }
}

/// The key that secrets are sealed under. Never shown.
pub struct Key {
    seal: LessSafeKey,
    token: Arc<hmac::Key>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// From its bytes.
    pub fn new(bytes: &[u8; 32]) -> Key {
        let Ok(unbound) = UnboundKey::new(&AES_256_GCM, bytes) else { unreachable!("a key of AES-256 has 32 bytes") };
        Key { seal: LessSafeKey::new(unbound), token: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, bytes)) }
    }

    /// What is sealed as base64 of nonce, ciphertext and tag. None: it is not, or under another key.
    fn open(&self, sealed: &str) -> Option<Secret> {
        let bytes = STANDARD.decode(sealed).ok()?;
        let (nonce, rest) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut rest = rest.to_vec();
        let opened = self.seal.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut rest).ok()?;
        std::str::from_utf8(opened).ok().map(Secret::new)
    }
}

/// All that is kept, by bucket and key; and who was asked for since the last change.
pub(super) struct Mirror {
    key: Key,
    kept: HashMap<&'static str, HashMap<String, Bytes>>,
    kept_bytes: usize,
    callers: HashMap<String, Arc<Caller>>,
}

/// Why a key is none that counts, or cannot be told.
enum Fault {
    None,
    Corrupt(String),
}

impl Mirror {
    pub(super) fn new(key: Key) -> Mirror {
        Mirror { key, kept: HashMap::new(), kept_bytes: 0, callers: HashMap::new() }
    }

    /// Takes what a bucket holds all in all. False: there is more than fits.
    pub(super) fn load(&mut self, bucket: Kept, entries: HashMap<String, Bytes>) -> bool {
        self.callers.clear();
        let sum = |entries: &HashMap<String, Bytes>| entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        let had: usize = self.kept.insert(bucket.name(), HashMap::new()).as_ref().map_or(0, sum);
        self.kept_bytes -= had;
        let has: usize = sum(&entries);
        let fits = self.kept_bytes + has <= MIRROR_MAX_BYTES;
        if fits {
            self.kept_bytes += has;
            self.kept.insert(bucket.name(), entries);
        }
        fits
    }

    /// Takes one change; none: the key is gone. False: there is no room for it.
    pub(super) fn change(&mut self, bucket: Kept, key: String, value: Option<Bytes>) -> bool {
        self.callers.clear();
        let entries = self.kept.entry(bucket.name()).or_default();
        let key_len = key.len();
        if let Some(had) = entries.remove(&key) {
            self.kept_bytes -= key_len + had.len();
        }
        let Some(value) = value else { return true };
        let fits = self.kept_bytes + key_len + value.len() <= MIRROR_MAX_BYTES;
        if fits {
            self.kept_bytes += key_len + value.len();
            entries.insert(key, value);
        }
        fits
    }

    /// Who holds a key.
    ///
    /// # Errors
    /// `Corrupt`: a record makes no sense, or one that another one names is missing.
    pub(super) fn caller(&mut self, id: &str) -> Result<Option<Arc<Caller>>, Unknown> {
        if let Some(caller) = self.callers.get(id) {
            return Ok(Some(caller.clone()));
        }
        // Not everything in these buckets is a key's record.
        if !id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
            return Ok(None);
        }
        let found = if id.starts_with(TEMPORARY) { self.session(id) } else { self.access_key(id) };
        match found {
            Ok(caller) => {
                let caller = Arc::new(caller);
                if self.callers.len() >= CALLERS_MAX {
                    self.callers.clear();
                }
                self.callers.insert(id.to_owned(), caller.clone());
                Ok(Some(caller))
            }
            Err(Fault::None) => Ok(None),
            Err(Fault::Corrupt(why)) => Err(Unknown::Corrupt { id: id.to_owned(), why }),
        }
    }

    fn access_key(&self, id: &str) -> Result<Caller, Fault> {
        let key: AccessKey = self.record(Kept::AccessKeys, id)?.ok_or(Fault::None)?;
        if key.status != "Active" {
            return Err(Fault::None);
        }
        let caller = self.plain(id, &key.account_id, &key.secret_access_key)?;
        let policies = self.policies_of_user(&key.account_id, &key.user_name, "")?;
        Ok(Caller { user: Some(key.user_name), policies: Some(policies), ..caller })
    }

    fn session(&self, id: &str) -> Result<Caller, Fault> {
        let key: SessionKey = self.record(Kept::Sessions, id)?.ok_or(Fault::None)?;
        let account = &key.account_id;
        let caller = self.plain(id, account, &key.secret_encrypted)?;
        let expires_ms = parse_iso_8601_ms(&key.expires_at).ok_or_else(|| corrupt("it has no time of its end"))?;
        let token = STANDARD.decode(&key.session_token_hmac).ok().filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| corrupt("it has no token"))?;
        let expires = Timestamp(expires_ms.saturating_mul(1_000_000));
        let session = Some(Session::new(expires, self.key.token.clone(), token));
        match key.principal_type.as_str() {
            "user" => {
                let policies = Some(self.policies_of_user(account, &key.session_name, &key.user_id)?);
                Ok(Caller { user: Some(key.session_name), policies, session, ..caller })
            }
            "assumed-role" | "" => {
                let role = name_in(&key.underlying_role_arn, "role", account);
                let role = role.ok_or_else(|| corrupt("it names no role of its account"))?.to_owned();
                let holder = self.holder(Kept::Roles, account, &role)?;
                let holder = holder.filter(|holder| is_same(&key.role_id, &holder.role_id)).ok_or(Fault::None)?;
                let policies = Some(self.policies(account, &[holder])?);
                Ok(Caller { user: Some(key.session_name), role: Some(role), policies, session, ..caller })
            }
            other => Err(corrupt(format!("nobody is a `{other}`"))),
        }
    }

    /// A caller as far as its key says who it is; it may do nothing yet.
    fn plain(&self, id: &str, account: &str, sealed: &str) -> Result<Caller, Fault> {
        if account.is_empty() {
            return Err(corrupt("it is of no account"));
        }
        let secret = self.key.open(sealed).ok_or_else(|| corrupt("its secret is not sealed under this master key"))?;
        let caller = Caller::plain(id.to_owned(), account.to_owned(), None, secret);
        Ok(Caller { policies: Some(Policies::default()), ..caller })
    }

    /// `id`: of the user that is meant; empty: whoever has the name.
    fn policies_of_user(&self, account: &str, name: &str, id: &str) -> Result<Policies, Fault> {
        let user = self.holder(Kept::Users, account, name)?;
        let user = user.filter(|user| is_same(id, &user.user_id)).ok_or(Fault::None)?;
        // A group that is gone grants nothing, and denies nothing.
        let groups = user.groups.iter().map(|group| self.holder(Kept::Groups, account, group));
        let groups = groups.collect::<Result<Vec<_>, _>>()?;
        let holders: Vec<Holder> = [Some(user)].into_iter().chain(groups).flatten().collect();
        self.policies(account, &holders)
    }

    fn holder(&self, bucket: Kept, account: &str, name: &str) -> Result<Option<Holder>, Fault> {
        self.record(bucket, &format!("{account}.{name}"))
    }

    fn policies(&self, account: &str, holders: &[Holder]) -> Result<Policies, Fault> {
        let mut policies = Vec::new();
        for holder in holders {
            for arn in &holder.attached_policies {
                // AWS's own have no document here: they grant nothing.
                if arn.starts_with("arn:aws:iam::aws:policy/") {
                    continue;
                }
                let name = name_in(arn, "policy", account);
                let name = name.ok_or_else(|| corrupt(format!("`{arn}` is no policy of its account")))?;
                let document: Option<Document> = self.record(Kept::Policies, &format!("{account}.{name}"))?;
                let document = document.ok_or_else(|| corrupt(format!("policy `{arn}` is missing")))?;
                policies.push(parse(arn, &document.policy_document)?);
            }
            for (name, document) in &holder.inline_policies {
                policies.push(parse(name, document)?);
            }
        }
        Ok(policies.into_iter().collect())
    }

    fn record<T: DeserializeOwned>(&self, bucket: Kept, key: &str) -> Result<Option<T>, Fault> {
        let Some(bytes) = self.kept.get(bucket.name()).and_then(|entries| entries.get(key)) else { return Ok(None) };
        let read = serde_json::from_slice(bytes);
        read.map(Some).map_err(|error| corrupt(format!("{} {key}: {error}", bucket.name())))
    }
}

/// Whether a session's principal is the one that has the name now.
fn is_same(meant: &str, is: &str) -> bool {
    meant.is_empty() || meant == is
}

fn corrupt(why: impl Into<String>) -> Fault {
    Fault::Corrupt(why.into())
}

fn parse(name: &str, document: &str) -> Result<Policy, Fault> {
    Policy::parse(document.as_bytes(), Kind::Identity).map_err(|error| corrupt(format!("policy `{name}`: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use aws_lc_rs::rand;
    use predastore::object::access::Deed;
    use serde_json::{Value, json};

    const ACCOUNT: &str = "000000000001";
    const MASTER: [u8; 32] = [9; 32];

    fn sealed(secret: &str) -> String {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &MASTER).unwrap());
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).unwrap();
        let mut text = secret.as_bytes().to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text).unwrap();
        STANDARD.encode([&nonce[..], &text].concat())
    }

    fn allow(bucket: &str) -> String {
        json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": "s3:*",
            "Resource": [format!("arn:aws:s3:::{bucket}/*")] }] })
        .to_string()
    }

    fn arn(kind: &str, name: &str) -> String {
        format!("arn:aws:iam::{ACCOUNT}:{kind}/{name}")
    }

    struct World(Mirror);

    impl World {
        fn new() -> World {
            let mut world = World(Mirror::new(Key::new(&MASTER)));
            world.put(
                Kept::AccessKeys,
                "AKIAANN",
                json!({ "access_key_id": "AKIAANN", "secret_access_key": sealed("ann's"), "user_name": "ann",
                    "account_id": ACCOUNT, "status": "Active", "created_at": "2026-01-01T00:00:00Z" }),
            );
            world.put(
                Kept::Users,
                &format!("{ACCOUNT}.ann"),
                json!({ "user_name": "ann", "account_id": ACCOUNT, "attached_policies": [arn("policy", "one")],
                    "inline_policies": { "two": allow("two") }, "groups": ["crew", "gone"] }),
            );
            world.put(Kept::Policies, &format!("{ACCOUNT}.one"), json!({ "policy_document": allow("one") }));
            world.put(
                Kept::Groups,
                &format!("{ACCOUNT}.crew"),
                json!({ "inline_policies": { "three": allow("three") }, "attached_policies": null }),
            );
            world
        }

        fn put(&mut self, bucket: Kept, key: &str, value: Value) {
            assert!(self.0.change(bucket, key.to_owned(), Some(value.to_string().into())));
        }

        fn may(&mut self, id: &str) -> Vec<&'static str> {
            let caller = self.0.caller(id).unwrap().unwrap();
            let may = |bucket: &&str| caller.decide(&Deed::plain("s3:GetObject", bucket, "key")).is_allowed();
            ["one", "two", "three", "four"].into_iter().filter(may).collect()
        }

        fn why(&mut self, id: &str) -> String {
            match self.0.caller(id) {
                Err(Unknown::Corrupt { why, .. }) => why,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_user_may_what_its_own_and_its_groups_policies_allow() {
        let mut world = World::new();
        let ann = world.0.caller("AKIAANN").unwrap().unwrap();
        assert_eq!((ann.account_id.as_str(), ann.user.as_deref(), ann.crosses_accounts), (ACCOUNT, Some("ann"), false));
        assert!(ann.secret.is(&Secret::new("ann's")) && ann.session.is_none());
        assert_eq!(world.may("AKIAANN"), ["one", "two", "three"]);
        assert!(world.0.caller("AKIANOBODY").unwrap().is_none());
        // What changes counts at once, also in what is named by others.
        world.put(Kept::Policies, &format!("{ACCOUNT}.one"), json!({ "policy_document": allow("four") }));
        assert_eq!(world.may("AKIAANN"), ["two", "three", "four"]);
        world.0.change(Kept::Groups, format!("{ACCOUNT}.crew"), None);
        assert_eq!(world.may("AKIAANN"), ["two", "four"]);
    }

    #[test]
    fn what_does_not_count_is_nobody_and_what_makes_no_sense_is_told() {
        let mut world = World::new();
        let key = |status: &str, account: &str, secret: &str| json!({ "secret_access_key": secret, "user_name": "ann", "account_id": account, "status": status });
        world.put(Kept::AccessKeys, "AKIAOFF", key("Inactive", ACCOUNT, &sealed("x")));
        assert!(world.0.caller("AKIAOFF").unwrap().is_none());
        world.put(Kept::AccessKeys, "AKIA1", key("Active", "", &sealed("x")));
        assert!(world.why("AKIA1").contains("no account"));
        world.put(Kept::AccessKeys, "AKIA2", key("Active", ACCOUNT, "bm90IHNlYWxlZA=="));
        assert!(world.why("AKIA2").contains("not sealed"));
        assert!(world.0.change(Kept::AccessKeys, "AKIA3".to_owned(), Some(Bytes::from_static(b"{"))));
        assert!(world.why("AKIA3").contains("access-keys AKIA3"));
        // Nobody is asked for by what is in the bucket beside keys.
        assert!(world.0.change(Kept::AccessKeys, "_version".to_owned(), Some(Bytes::from_static(b"1"))));
        assert!(world.0.caller("_version").unwrap().is_none());
        for policies in [vec![arn("policy", "none")], vec!["arn:aws:iam::000000000002:policy/one".to_owned()]] {
            world.put(Kept::Users, &format!("{ACCOUNT}.ann"), json!({ "attached_policies": policies }));
            assert!(world.why("AKIAANN").contains("policy"), "{policies:?}");
        }
        world.put(Kept::Users, &format!("{ACCOUNT}.ann"), json!({ "inline_policies": { "odd": "{}" } }));
        assert!(world.why("AKIAANN").contains("odd"));
        let aws = json!({ "attached_policies": ["arn:aws:iam::aws:policy/AdministratorAccess"] });
        world.put(Kept::Users, &format!("{ACCOUNT}.ann"), aws);
        assert_eq!(world.may("AKIAANN"), Vec::<&str>::new());
        world.0.change(Kept::Users, format!("{ACCOUNT}.ann"), None);
        assert!(world.0.caller("AKIAANN").unwrap().is_none());
    }

    #[test]
    fn sessions_act_for_their_user_or_in_their_role() {
        let mut world = World::new();
        let hmac_of = |token: &str| {
            STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &MASTER), token.as_bytes()).as_ref())
        };
        let session = |kind: &str, name: &str, role: &str| {
            json!({ "secret_encrypted": sealed("s"), "session_token_hmac": hmac_of("token"), "account_id": ACCOUNT,
                "principal_type": kind, "session_name": name, "underlying_role_arn": role,
                "expires_at": "2026-11-30T12:00:00.123456789Z" })
        };
        world.put(Kept::Roles, &format!("{ACCOUNT}.boot"), json!({ "inline_policies": { "p": allow("four") } }));
        world.put(Kept::Sessions, "ASIAUSER", session("user", "ann", ""));
        world.put(Kept::Sessions, "ASIAROLE", session("assumed-role", "i-1", &arn("role", "path/boot")));
        world.put(Kept::Sessions, "ASIAODD", session("service", "x", ""));
        world.put(Kept::Sessions, "ASIAGONE", session("user", "bob", ""));
        world.put(Kept::Sessions, "ASIALOST", session("", "x", "arn:aws:iam::000000000002:role/boot"));
        assert_eq!(world.may("ASIAUSER"), ["one", "two", "three"]);
        assert_eq!(world.may("ASIAROLE"), ["four"]);
        let role = world.0.caller("ASIAROLE").unwrap().unwrap();
        assert_eq!((role.role.as_deref(), role.user.as_deref()), (Some("boot"), Some("i-1")));
        let proof = role.session.as_ref().unwrap();
        let before = Timestamp(proof.expires.0 - 1);
        assert_eq!(proof.check(Some("token"), before), Ok(()));
        assert!(proof.check(Some("token"), proof.expires).is_err() && proof.check(None, before).is_err());
        assert!(world.0.caller("ASIAGONE").unwrap().is_none());
        assert!(world.why("ASIAODD").contains("service"));
        assert!(world.why("ASIALOST").contains("no role"));
        // Who has the name later is somebody else.
        let of = |mut session: Value, field: &str, id: &str| {
            session[field] = json!(id);
            session
        };
        let (user, role) = (session("user", "cid", ""), session("assumed-role", "i-1", &arn("role", "late")));
        world.put(Kept::Sessions, "ASIACID", of(user, "user_id", "AIDA1"));
        world.put(Kept::Sessions, "ASIALATE", of(role, "role_id", "AROA1"));
        for (id, counts) in [("1", true), ("2", false)] {
            let (user_id, role_id) = (format!("AIDA{id}"), format!("AROA{id}"));
            world.put(Kept::Users, &format!("{ACCOUNT}.cid"), json!({ "user_id": user_id }));
            world.put(Kept::Roles, &format!("{ACCOUNT}.late"), json!({ "role_id": role_id }));
            assert_eq!(world.0.caller("ASIACID").unwrap().is_some(), counts, "{id}");
            assert_eq!(world.0.caller("ASIALATE").unwrap().is_some(), counts, "{id}");
        }
        // A long-lived key among the temporary ones is none, nor the other way round.
        world.put(Kept::AccessKeys, "ASIAX", json!({ "secret_access_key": sealed("x"), "status": "Active" }));
        assert!(world.0.caller("ASIAX").unwrap().is_none());
    }

    #[test]
    fn the_mirror_is_bounded() {
        let mut mirror = Mirror::new(Key::new(&MASTER));
        let half = Bytes::from(vec![b' '; MIRROR_MAX_BYTES / 2]);
        assert!(mirror.change(Kept::Users, "a".to_owned(), Some(half.clone())));
        assert!(!mirror.change(Kept::Users, "b".to_owned(), Some(half.clone())));
        assert!(mirror.change(Kept::Users, "a".to_owned(), Some(half.clone())));
        assert!(!mirror.load(Kept::Roles, [("c".to_owned(), half.clone())].into()));
        assert!(mirror.load(Kept::Users, [("c".to_owned(), half)].into()));
        assert!(mirror.change(Kept::Users, "c".to_owned(), None));
        assert_eq!(mirror.kept_bytes, 0);
    }
}
