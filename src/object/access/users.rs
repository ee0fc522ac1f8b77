//! Listing and changing users, their policies and their keys.

use bytes::Bytes;

use crate::catalog::{Command, RecordKind, View};
use crate::env::Timestamp;
use crate::object::bucket::done;
use crate::object::record::{decode, encode};
use crate::object::{self, Store};
use crate::policy::{self, Policy};

use super::record::{KeyRecord, Named, StoredSecret, UserRecord};
use super::secret::fresh_key;
use super::{Error, KEY_COUNT_MAX, POLICY_COUNT_MAX, Secret, check_name};

/// Somebody else may change a user at the same time: so often it is tried again.
const TRY_COUNT: usize = 10;
const ACCOUNT_ID_LEN: usize = 12;

/// A user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserInfo {
    /// Unique.
    pub name: String,
    /// What it acts for.
    pub account_id: String,
    /// When it was made.
    pub created: Timestamp,
    /// By name.
    pub policies: Vec<Named>,
    /// By id.
    pub keys: Vec<KeyInfo>,
}

/// An access key, without its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyInfo {
    /// Its public half.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whether it may be used.
    pub is_active: bool,
}

/// An access key as it was made. The secret is not told again.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its public half.
    pub id: String,
    /// Its secret half.
    pub secret: Secret,
}

impl Store {
    /// All users, by name.
    ///
    /// # Errors
    /// `Store`.
    pub async fn users(&self) -> Result<Vec<UserInfo>, Error> {
        let (users, keys) = self.snapshot(|view| Ok((view.records(RecordKind::User)?, view.credentials()?))).await?;
        let mut infos = Vec::with_capacity(users.len());
        let keys = keys.into_iter().map(|(id, _, attrs)| Ok((id, decode("access key", &attrs)?)));
        let keys: Vec<(String, KeyRecord)> = keys.collect::<Result<_, object::Error>>()?;
        for (name, value) in users {
            let user: UserRecord = decode("user", &value)?;
            let of_user = keys.iter().filter(|(_, key)| key.user == name && key.user_id == user.id);
            let of_user =
                of_user.map(|(id, key)| KeyInfo { id: id.clone(), created: key.created, is_active: key.is_active });
            let keys = of_user.collect();
            let UserRecord { account_id, created, policies, id: _ } = user;
            infos.push(UserInfo { name, account_id, created, policies, keys });
        }
        Ok(infos)
    }

    /// One user.
    ///
    /// # Errors
    /// `NoSuchUser`, `Store`.
    pub async fn user(&self, name: &str) -> Result<UserInfo, Error> {
        let users = self.users().await?;
        users.into_iter().find(|user| user.name == name).ok_or_else(|| Error::NoSuchUser(name.to_owned()))
    }

    /// Makes a user, who has no key yet.
    ///
    /// # Errors
    /// `UserExists`, `Name`, `Account`, `Policy`, `TooMany`, `Store`.
    pub async fn add_user(&self, name: &str, account_id: &str, policies: Vec<Named>) -> Result<(), Error> {
        check_name(name)?;
        if account_id.len() != ACCOUNT_ID_LEN || !account_id.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::Account(account_id.to_owned()));
        }
        self.wait_for_level(|view| view.has_records(), "some process of the cluster knows no users yet").await?;
        let mut user = UserRecord {
            id: self.env.random_u64(),
            account_id: account_id.to_owned(),
            created: self.now(),
            policies: Vec::new(),
        };
        policies.into_iter().try_for_each(|policy| put_policy(&mut user, policy))?;
        match self.set_user(name, None, Some(encode(&user))).await? {
            true => Ok(()),
            false => Err(Error::UserExists(name.to_owned())),
        }
    }

    /// Removes a user with all keys. These count no more once this returns, though it fails half-way.
    ///
    /// # Errors
    /// `NoSuchUser`, `Store`.
    pub async fn remove_user(&self, name: &str) -> Result<(), Error> {
        let keys = self.user(name).await?.keys;
        self.change_user(name, |_| Ok(None)).await?;
        for key in keys {
            self.set_credential(&key.id, None).await?;
        }
        Ok(())
    }

    /// Gives a user a policy, in place of the one of that name.
    ///
    /// # Errors
    /// `NoSuchUser`, `Name`, `Policy`, `TooMany`, `Store`.
    pub async fn set_user_policy(&self, name: &str, policy: Named) -> Result<(), Error> {
        self.change_user(name, |mut user| put_policy(&mut user, policy.clone()).map(|()| Some(user))).await
    }

    /// Takes a policy from a user.
    ///
    /// # Errors
    /// `NoSuchUser`, `NoSuchPolicy`, `Store`.
    pub async fn remove_user_policy(&self, name: &str, policy: &str) -> Result<(), Error> {
        let without = |mut user: UserRecord| {
            let before = user.policies.len();
            user.policies.retain(|known| known.name != policy);
            match user.policies.len() < before {
                true => Ok(Some(user)),
                false => Err(Error::NoSuchPolicy { user: name.to_owned(), policy: policy.to_owned() }),
            }
        };
        self.change_user(name, without).await
    }

    /// Makes an access key for a user.
    ///
    /// # Errors
    /// `NoSuchUser`, `TooMany`, `Store`.
    pub async fn add_user_key(&self, name: &str) -> Result<NewKey, Error> {
        if self.user(name).await?.keys.len() >= KEY_COUNT_MAX {
            return Err(Error::TooMany { what: "access keys", max: KEY_COUNT_MAX });
        }
        let (user, _) = self.user_record(name).await?;
        let (id, secret) = fresh_key(&*self.env.rng);
        let stored = StoredSecret::new(self.chunks.cluster_keys(), &id, &secret, &self.env);
        let key =
            KeyRecord { user: name.to_owned(), user_id: user.id, created: self.now(), is_active: true, secret: stored };
        self.set_credential(&id, Some((user.account_id, encode(&key)))).await?;
        Ok(NewKey { id, secret })
    }

    /// Has a key count, or not.
    ///
    /// # Errors
    /// `NoSuchKey`, `Store`.
    pub async fn set_user_key_active(&self, id: &str, is_active: bool) -> Result<(), Error> {
        let (account_id, key) = self.key_record(id).await?;
        self.set_credential(id, Some((account_id, encode(&KeyRecord { is_active, ..key })))).await
    }

    /// Removes a key.
    ///
    /// # Errors
    /// `NoSuchKey`, `Store`.
    pub async fn remove_user_key(&self, id: &str) -> Result<(), Error> {
        self.key_record(id).await?;
        self.set_credential(id, None).await
    }

    async fn key_record(&self, id: &str) -> Result<(String, KeyRecord), Error> {
        let wanted = id.to_owned();
        let found = self.snapshot(move |view: &View<'_>| Ok(view.credential(&wanted)?)).await?;
        let (account_id, attrs) = found.ok_or_else(|| Error::NoSuchKey(id.to_owned()))?;
        Ok((account_id, decode("access key", &attrs)?))
    }

    async fn user_record(&self, name: &str) -> Result<(UserRecord, Bytes), Error> {
        let wanted = name.to_owned();
        let found = self.snapshot(move |view: &View<'_>| Ok(view.record(RecordKind::User, &wanted)?)).await?;
        let value = found.ok_or_else(|| Error::NoSuchUser(name.to_owned()))?;
        Ok((decode("user", &value)?, value))
    }

    /// Changes a user as it is, whatever others do at the same time. `change`: None removes it.
    async fn change_user(
        &self,
        name: &str,
        change: impl Fn(UserRecord) -> Result<Option<UserRecord>, Error>,
    ) -> Result<(), Error> {
        for _ in 0..TRY_COUNT {
            let (user, was) = self.user_record(name).await?;
            let value = change(user)?.map(|user| encode(&user));
            if self.set_user(name, Some(was), value).await? {
                return Ok(());
            }
        }
        Err(Error::Store(object::Error::Overloaded))
    }

    /// False: it is not what it was.
    async fn set_user(&self, name: &str, was: Option<Bytes>, value: Option<Bytes>) -> Result<bool, Error> {
        Ok(self.set_record(RecordKind::User, name, was, value).await?)
    }

    async fn set_credential(&self, access_key: &str, value: Option<(String, Bytes)>) -> Result<(), Error> {
        let command = Command::SetCredential { access_key: access_key.to_owned(), value };
        let outcome = self.session.propose(command).await.map_err(object::Error::from)?;
        Ok(done(outcome)?)
    }
}

/// In place of the one of that name.
fn put_policy(user: &mut UserRecord, policy: Named) -> Result<(), Error> {
    check_name(&policy.name)?;
    if let Err(error) = Policy::parse(policy.document.as_bytes(), policy::Kind::Identity) {
        return Err(Error::Policy { name: policy.name, error });
    }
    user.policies.retain(|known| known.name != policy.name);
    user.policies.push(policy);
    user.policies.sort_by(|one, other| one.name.cmp(&other.name));
    match user.policies.len() <= POLICY_COUNT_MAX {
        true => Ok(()),
        false => Err(Error::TooMany { what: "policies", max: POLICY_COUNT_MAX }),
    }
}
