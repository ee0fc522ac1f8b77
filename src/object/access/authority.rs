//! Who somebody is that asks, and what he may do: for every frontend, the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::{RecordKind, View};
use crate::object::record::decode;
use crate::object::{self, Store};
use crate::policy::{self, Context, Decision, Policies, Policy, Principal};

use super::record::{KeyRecord, UserRecord};
use super::rights::{Bucket, Rights};
use super::rules::{self, BucketRules};
use super::{Directory, Secret, Session};

/// Keys, and buckets, that are remembered; beyond this it starts anew.
const REMEMBERED_COUNT_MAX: usize = 10_000;

/// The holder of an access key.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its public half.
    pub access_key_id: String,
    /// What it acts for.
    pub account_id: String,
    /// Whose key it is; none: a key of the configuration.
    pub user: Option<String>,
    /// Its secret half.
    pub secret: Secret,
    /// What it may do; none: everything.
    pub policies: Option<Policies>,
    /// The role that it acts in; none: its own.
    pub role: Option<String>,
    /// Its end, and its token; none: it has neither.
    pub session: Option<Session>,
    /// Whether it is at home in every account: root's key, and one of which the configuration says what it may.
    pub crosses_accounts: bool,
}

/// Something that is about to be done.
pub struct Deed<'a> {
    /// `s3:GetObject` and so on.
    pub action: &'a str,
    /// Empty: on the service.
    pub bucket: &'a str,
    /// Empty: on the bucket.
    pub key: &'a str,
    /// What conditions are about.
    pub context: &'a dyn Context,
}

impl<'a> Deed<'a> {
    /// One that nothing more is known of.
    pub fn plain(action: &'a str, bucket: &'a str, key: &'a str) -> Deed<'a> {
        Deed { action, bucket, key, context: &() }
    }
}

impl Caller {
    /// One that may do everything within its account, and is nothing special.
    pub fn plain(access_key_id: String, account_id: String, user: Option<String>, secret: Secret) -> Caller {
        let (policies, role, session) = Default::default();
        Caller { access_key_id, account_id, user, secret, policies, role, session, crosses_accounts: false }
    }

    /// What its own policies say. What it may, [`super::Rights`] decides.
    pub fn decide(&self, deed: &Deed<'_>) -> Decision {
        let Some(policies) = &self.policies else { return Decision::Allowed };
        let Deed { action, bucket, key, context } = *deed;
        policies.decide(&policy::Request { action, bucket, key, principal: self.principal(), context })
    }

    /// Who it is to policies.
    pub(super) fn principal(&self) -> Principal<'_> {
        let account = &self.account_id;
        match (&self.role, &self.user) {
            (Some(name), _) => Principal::Role { account, name },
            (None, Some(name)) => Principal::User { account, name },
            (None, None) => Principal::Account(account),
        }
    }
}

/// Knows everybody.
pub struct Authority {
    store: Store,
    configured: HashMap<String, Arc<Caller>>,
    directory: Option<Arc<dyn Directory>>,
    /// Anybody may get their objects.
    public_buckets: Vec<String>,
    remembered: Mutex<Remembered>,
}

/// Callers and buckets as they were at a count of changes.
#[derive(Default)]
struct Remembered {
    count: u64,
    callers: HashMap<String, Arc<Caller>>,
    rules: HashMap<String, Arc<BucketRules>>,
}

impl Authority {
    /// `configured`: they win over those of the catalog.
    pub fn new(store: Store, configured: Vec<Caller>, public_buckets: Vec<String>) -> Authority {
        let configured = configured.into_iter().map(|caller| (caller.access_key_id.clone(), Arc::new(caller)));
        let (configured, directory) = (configured.collect(), None);
        Authority { store, configured, directory, public_buckets, remembered: Mutex::default() }
    }

    /// The same, with keys that somebody else keeps.
    #[must_use]
    pub fn with_directory(self, directory: Arc<dyn Directory>) -> Authority {
        Authority { directory: Some(directory), ..self }
    }

    /// The holder of an access key; none: there is no such key, or it does not count.
    ///
    /// # Errors
    /// `Catalog`, `Corrupt`: what is kept of it cannot be read. `Unavailable`: it is not known here, and nobody says whether
    /// it is elsewhere. `Directory`: it is not known here, and who else may know it does not answer.
    pub async fn caller(&self, access_key_id: &str) -> Result<Option<Arc<Caller>>, object::Error> {
        if let Some(caller) = self.configured.get(access_key_id) {
            return Ok(Some(caller.clone()));
        }
        let elsewhere = self.directory.as_ref().map_or(Ok(None), |directory| directory.caller(access_key_id));
        if let Ok(Some(caller)) = &elsewhere {
            return Ok(Some(caller.clone()));
        }
        match (self.kept(access_key_id).await?, elsewhere) {
            (Some(caller), _) => Ok(Some(caller)),
            (None, Err(unknown)) => Err(object::Error::Directory(unknown)),
            (None, Ok(_)) => Ok(None),
        }
    }

    /// What somebody may do on the service and in `buckets`; no caller: who says nothing of himself.
    ///
    /// # Errors
    /// `Catalog`, `Corrupt`: what is kept of a bucket cannot be read. `Unavailable`: it is not known here, and nobody says
    /// whether it is elsewhere.
    pub async fn rights(&self, caller: Option<Arc<Caller>>, buckets: &[&str]) -> Result<Rights, object::Error> {
        let mut named = Vec::with_capacity(buckets.len());
        for name in buckets.iter().copied().filter(|name| !name.is_empty()) {
            let rules = self.rules(name, caller.is_some()).await?;
            let is_open = self.public_buckets.iter().any(|public| public == name);
            named.push(Bucket { name: name.to_owned(), rules, is_open });
        }
        Ok(Rights { caller, buckets: named })
    }

    /// What somebody may do who makes a bucket: whether there is one of that name, and whose, has no say in it.
    pub fn rights_to_make(&self, caller: Option<Arc<Caller>>, bucket: &str) -> Rights {
        Rights { caller, buckets: vec![Bucket { name: bucket.to_owned(), rules: None, is_open: false }] }
    }

    /// What a bucket says; none: there is no such bucket. `thorough`: the leader is asked whether this gateway is behind.
    async fn rules(&self, bucket: &str, thorough: bool) -> Result<Option<Arc<BucketRules>>, object::Error> {
        // Before what is read, which is then no older.
        let count = self.store.ledger.readers().changes().access();
        if let Some(rules) = self.at(count, |remembered| remembered.rules.get(bucket).cloned()) {
            return Ok(Some(rules));
        }
        let found = match self.read_rules(bucket).await? {
            None if thorough => {
                self.store.ledger.barrier().await?;
                self.read_rules(bucket).await?
            }
            found => found,
        };
        let rules = found.map(Arc::new);
        if let Some(rules) = &rules {
            self.remember(count, |remembered| remembered.rules.insert(bucket.to_owned(), rules.clone()));
        }
        Ok(rules)
    }

    async fn read_rules(&self, bucket: &str) -> Result<Option<BucketRules>, object::Error> {
        let name = bucket.to_owned();
        self.store.ledger.readers().read(move |view| Ok(rules::find(view, &name))).await?
    }

    /// The holder of a key that is kept in the catalog.
    async fn kept(&self, access_key_id: &str) -> Result<Option<Arc<Caller>>, object::Error> {
        // Before what is read, which is then no older.
        let count = self.store.ledger.readers().changes().access();
        if let Some(caller) = self.at(count, |remembered| remembered.callers.get(access_key_id).cloned()) {
            return Ok(Some(caller));
        }
        let found = match self.read(access_key_id).await? {
            Some(found) => Some(found),
            None => {
                self.store.ledger.barrier().await?;
                self.read(access_key_id).await?
            }
        };
        let caller = found.map(Arc::new);
        if let Some(caller) = &caller {
            self.remember(count, |remembered| remembered.callers.insert(caller.access_key_id.clone(), caller.clone()));
        }
        Ok(caller)
    }

    /// As the catalog here has it, however far it is.
    async fn read(&self, access_key_id: &str) -> Result<Option<Caller>, object::Error> {
        let id = access_key_id.to_owned();
        let found = self.store.ledger.readers().read(move |view| Ok(find(view, &id))).await??;
        let Some((account_id, key, user)) = found else { return Ok(None) };
        let secret = key.secret.open(self.store.chunks.cluster_keys(), access_key_id)?;
        let parse = |policy: &super::Named| {
            Policy::parse(policy.document.as_bytes(), policy::Kind::Identity).map_err(|error| {
                object::Error::Corrupt(format!("policy {} of user {}: {error}", policy.name, key.user))
            })
        };
        let policies = user.policies.iter().map(parse).collect::<Result<_, _>>()?;
        let (access_key_id, user) = (access_key_id.to_owned(), Some(key.user));
        Ok(Some(Caller { policies: Some(policies), ..Caller::plain(access_key_id, account_id, user, secret) }))
    }

    /// What is remembered as of that count of changes.
    fn at<T>(&self, count: u64, look: impl FnOnce(&Remembered) -> Option<T>) -> Option<T> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.count == count { look(&remembered) } else { None }
    }

    fn remember<T>(&self, count: u64, note: impl FnOnce(&mut Remembered) -> T) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.count > count {
            return;
        }
        let is_full = remembered.callers.len().max(remembered.rules.len()) >= REMEMBERED_COUNT_MAX;
        if remembered.count < count || is_full {
            *remembered = Remembered { count, ..Remembered::default() };
        }
        note(&mut remembered);
    }
}

/// An access key that counts: its account, itself, and whose it is.
fn find(view: &View<'_>, access_key_id: &str) -> Result<Option<(String, KeyRecord, UserRecord)>, object::Error> {
    let Some((account_id, attrs)) = view.credential(access_key_id)? else { return Ok(None) };
    let key: KeyRecord = decode("access key", &attrs)?;
    let Some(user) = view.record(RecordKind::User, &key.user)? else { return Ok(None) };
    let user: UserRecord = decode("user", &user)?;
    Ok((key.is_active && key.user_id == user.id).then_some((account_id, key, user)))
}
