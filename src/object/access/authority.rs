//! Who somebody is that asks, and what he may do: for every frontend, the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::{Bucket, RecordKind, Refusal, View};
use crate::object::record::decode;
use crate::object::{self, Store};
use crate::policy::{self, Context, Policies, Policy, Principal};

use super::record::{KeyRecord, UserRecord};
use super::{Directory, Secret, Session};

/// Keys that are remembered; beyond this it starts anew.
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
    /// Whether it has no business in buckets of other accounts, whatever its policies say.
    pub keeps_to_account: bool,
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
    /// One that may do everything, and is nothing special.
    pub fn plain(access_key_id: String, account_id: String, user: Option<String>, secret: Secret) -> Caller {
        let (policies, role, session) = Default::default();
        Caller { access_key_id, account_id, user, secret, policies, role, session, keeps_to_account: false }
    }

    /// Whether a bucket is any of its business: to whoever keeps to his account, others' are not.
    pub fn sees(&self, bucket: &Bucket) -> bool {
        !self.keeps_to_account || bucket.owner == self.account_id
    }

    /// Whether it may.
    pub fn may(&self, deed: &Deed<'_>) -> bool {
        let Some(policies) = &self.policies else { return true };
        let account = &self.account_id;
        let principal = match (&self.role, &self.user) {
            (Some(name), _) => Principal::Role { account, name },
            (None, Some(name)) => Principal::User { account, name },
            (None, None) => Principal::Account(account),
        };
        let Deed { action, bucket, key, context } = *deed;
        policies.decide(&policy::Request { action, bucket, key, principal, context }).is_allowed()
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

/// Callers as they were at a count of changes.
#[derive(Default)]
struct Remembered {
    count: u64,
    callers: HashMap<String, Arc<Caller>>,
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

    /// Whether `caller` may have to do with a bucket at all: one that is not there it may.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn may_enter(&self, caller: &Caller, bucket: &str) -> Result<bool, object::Error> {
        if !caller.keeps_to_account || bucket.is_empty() {
            return Ok(true);
        }
        match self.store.bucket(bucket).await {
            Ok(found) => Ok(caller.sees(&found)),
            Err(object::Error::Refused(Refusal::NoSuchBucket)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The holder of a key that is kept in the catalog.
    async fn kept(&self, access_key_id: &str) -> Result<Option<Arc<Caller>>, object::Error> {
        // Before what is read, which is then no older.
        let count = self.store.ledger.readers().changes().access();
        if let Some(caller) = self.remembered(count, access_key_id) {
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
            self.remember(count, caller);
        }
        Ok(caller)
    }

    /// Whether somebody who says nothing of himself may.
    pub fn anybody_may(&self, deed: &Deed<'_>) -> bool {
        deed.action == "s3:GetObject" && self.public_buckets.iter().any(|public| public == deed.bucket)
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

    fn remembered(&self, count: u64, access_key_id: &str) -> Option<Arc<Caller>> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let callers = Some(&remembered.callers).filter(|_| remembered.count == count);
        callers.and_then(|callers| callers.get(access_key_id)).cloned()
    }

    fn remember(&self, count: u64, caller: &Arc<Caller>) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.count > count {
            return;
        }
        if remembered.count < count || remembered.callers.len() >= REMEMBERED_COUNT_MAX {
            *remembered = Remembered { count, callers: HashMap::new() };
        }
        remembered.callers.insert(caller.access_key_id.clone(), caller.clone());
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
