//! Who somebody is that asks, and what he may do: for every frontend, the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::catalog::{RecordKind, View};
use crate::object::record::decode;
use crate::object::{self, Store};
use crate::policy::{self, Context, Policies, Policy, Principal};

use super::Secret;
use super::record::{KeyRecord, UserRecord};

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
    /// Whether it may.
    pub fn may(&self, deed: &Deed<'_>) -> bool {
        let Some(policies) = &self.policies else { return true };
        let principal = match &self.user {
            Some(name) => Principal::User { account: &self.account_id, name },
            None => Principal::Account(&self.account_id),
        };
        let Deed { action, bucket, key, context } = *deed;
        policies.decide(&policy::Request { action, bucket, key, principal, context }).is_allowed()
    }
}

/// Knows everybody.
pub struct Authority {
    store: Store,
    configured: HashMap<String, Arc<Caller>>,
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
        Authority { store, configured: configured.collect(), public_buckets, remembered: Mutex::default() }
    }

    /// The holder of an access key; none: there is no such key, or it does not count.
    ///
    /// # Errors
    /// `Catalog`, `Corrupt`: what is kept of it cannot be read. `Unavailable`: it is not known here, and nobody says whether
    /// it is elsewhere.
    pub async fn caller(&self, access_key_id: &str) -> Result<Option<Arc<Caller>>, object::Error> {
        if let Some(caller) = self.configured.get(access_key_id) {
            return Ok(Some(caller.clone()));
        }
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
        Ok(Some(Caller { access_key_id, account_id, user, secret, policies: Some(policies) }))
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
