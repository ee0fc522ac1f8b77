//! Buckets: making, finding, setting; and commands that name one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::catalog::{
    self, Bucket, Command, ListQuery, Outcome, Refusal, Setting, Upload, Usage, VersionQuery, Versioning, View,
};
use crate::ids::BucketId;

use super::session::Lost;
use super::sink::Fresh;
use super::{Error, Store};

/// Names beyond this are looked up again.
const NAMES_MAX_COUNT: usize = 10_000;
/// Uploads that are aborted between two attempts to delete their bucket; each is a command of its own, however many parts
/// it has.
const UPLOADS_PAGE_COUNT: usize = 1000;
/// A bucket in which uploads begin faster than they are aborted is not deleted.
const DELETE_ATTEMPTS: usize = 20;

/// Ids of buckets, and whose they are, by name, as last seen. Ids are never reused, so `apply` refuses a command that names a
/// stale one.
#[derive(Default)]
pub(super) struct BucketNames(Mutex<HashMap<String, Known>>);

/// What is known of a bucket.
#[derive(Clone)]
struct Known {
    id: BucketId,
    owner: Arc<str>,
}

impl BucketNames {
    fn get(&self, name: &str) -> Option<Known> {
        self.with(|names| names.get(name).cloned())
    }

    fn learn(&self, name: &str, known: Known) {
        self.with(|names| {
            if names.len() >= NAMES_MAX_COUNT {
                names.clear();
            }
            names.insert(name.to_owned(), known);
        });
    }

    fn forget(&self, name: &str) {
        self.with(|names| names.remove(name));
    }

    fn with<R>(&self, change: impl FnOnce(&mut HashMap<String, Known>) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A command that has no good outcome.
pub(super) enum Failure {
    /// It did not happen and will not.
    Never(Error),
    /// It may have happened.
    Unknown(String),
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Never(why) => Failure::Never(Error::Unavailable(why)),
            Lost::Overloaded => Failure::Never(Error::Overloaded),
            Lost::Unknown(why) => Failure::Unknown(why),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Never(error) => error,
            Failure::Unknown(why) => Error::Unavailable(why),
        }
    }
}

fn known(bucket: &Bucket) -> Known {
    Known { id: bucket.id, owner: bucket.owner.as_str().into() }
}

/// The bucket with this name in a snapshot.
pub(super) fn find(view: &View<'_>, name: &str) -> Result<Bucket, Error> {
    view.bucket(name)?.ok_or(Error::Refused(Refusal::NoSuchBucket))
}

/// The answer to a command that tells nothing. A refusal is an error.
pub(super) fn done(outcome: Outcome) -> Result<(), Error> {
    match outcome {
        Outcome::Done => Ok(()),
        Outcome::Refused(refusal) => Err(refusal.into()),
        outcome => Err(unexpected(&outcome)),
    }
}

/// An outcome of another command's kind.
pub(super) fn unexpected(outcome: &Outcome) -> Error {
    Error::Catalog(catalog::Error::Inconsistent(format!("an unexpected outcome: {outcome:?}")))
}

impl Store {
    /// Makes a bucket.
    ///
    /// # Errors
    /// `Refused(BucketExists)`, `Unavailable`.
    pub async fn create_bucket(&self, name: &str, owner: &str, region: &str, lock: bool) -> Result<Bucket, Error> {
        let mut fresh = self.session.fresh_id().await?;
        let command = Command::CreateBucket {
            id: BucketId(fresh.ino().0),
            name: name.to_owned(),
            owner: owner.to_owned(),
            region: region.to_owned(),
            lock,
        };
        match self.session.propose_with(std::iter::once(&fresh), command).await {
            Ok(Outcome::Refused(refusal)) => return Err(refusal.into()),
            Ok(outcome) => done(outcome)?,
            Err(lost) => {
                if matches!(lost, Lost::Unknown(_)) {
                    fresh.leave();
                }
                return Err(lost.into());
            }
        }
        self.bucket(name).await
    }

    /// Deletes a bucket without objects; its unfinished uploads are aborted. A bucket that gets an object meanwhile stays,
    /// and may have lost uploads.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket | BucketNotEmpty)`, `Unavailable`.
    pub async fn delete_bucket(&self, name: &str) -> Result<(), Error> {
        for _ in 0..DELETE_ATTEMPTS {
            match self.delete_empty_bucket(name).await {
                Err(Error::Refused(Refusal::BucketNotEmpty)) => {}
                outcome => return outcome,
            }
            let uploads = self.uploads_in_the_way(name).await?;
            if uploads.is_empty() {
                break;
            }
            for upload in uploads {
                match self.abort_upload(name, &upload.key, upload.id).await {
                    Ok(()) | Err(Error::Refused(Refusal::NoSuchUpload)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(Refusal::BucketNotEmpty.into())
    }

    async fn delete_empty_bucket(&self, name: &str) -> Result<(), Error> {
        done(self.propose_in(name, None, |bucket| Command::DeleteBucket { bucket }).await?)?;
        self.names.forget(name);
        Ok(())
    }

    /// Uploads of a bucket that has nothing else; none where it holds any version.
    async fn uploads_in_the_way(&self, name: &str) -> Result<Vec<Upload>, Error> {
        self.in_bucket(name, |view, bucket| {
            let versions = view.list_versions(bucket, &VersionQuery { limit: 1, ..VersionQuery::default() })?;
            if !versions.entries.is_empty() || versions.next.is_some() {
                return Ok(Vec::new());
            }
            let all = ListQuery { limit: UPLOADS_PAGE_COUNT, ..ListQuery::default() };
            Ok(view.list_uploads(bucket, &all, None)?.uploads)
        })
        .await
    }

    /// A bucket by its name.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket)`, `Unavailable`.
    pub async fn bucket(&self, name: &str) -> Result<Bucket, Error> {
        let wanted = name.to_owned();
        let bucket = self.snapshot(move |view| find(view, &wanted)).await;
        match &bucket {
            Ok(bucket) => self.names.learn(name, known(bucket)),
            Err(_) => self.names.forget(name),
        }
        bucket
    }

    /// At most `limit` buckets after `after`, by name.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn buckets(&self, after: Option<&str>, limit: usize) -> Result<Vec<Bucket>, Error> {
        let after = after.map(str::to_owned);
        self.snapshot(move |view| Ok(view.buckets(after.as_deref(), limit)?)).await
    }

    /// What a bucket holds.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket)`, `Unavailable`.
    pub async fn usage(&self, bucket: &str) -> Result<Usage, Error> {
        self.in_bucket(bucket, |view, bucket| Ok(view.usage(bucket)?)).await
    }

    /// Sets versioning.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket | InvalidBucketState)`, `Unavailable`.
    pub async fn set_versioning(&self, bucket: &str, versioning: Versioning) -> Result<(), Error> {
        done(self.propose_in(bucket, None, move |bucket| Command::SetVersioning { bucket, versioning }).await?)
    }

    /// A setting as it was stored.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket)`, `Unavailable`.
    pub async fn setting(&self, bucket: &str, setting: Setting) -> Result<Option<Bytes>, Error> {
        self.in_bucket(bucket, move |view, bucket| Ok(view.setting(bucket, setting)?)).await
    }

    /// As [`Store::setting`], as far as this gateway has applied it; none also where there is no such bucket here.
    ///
    /// # Errors
    /// `Catalog`.
    pub async fn setting_here(&self, bucket: &str, setting: Setting) -> Result<Option<Bytes>, Error> {
        let name = bucket.to_owned();
        let read = move |view: &View<'_>| match view.bucket(&name)? {
            Some(bucket) => view.setting(bucket.id, setting),
            None => Ok(None),
        };
        Ok(self.ledger.readers().read(read).await?)
    }

    /// Refuses to lock versions, and what came with that, before all of the cluster know how to.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn expect_locking(&self) -> Result<(), Error> {
        self.wait_for_level(|view| view.has_locking(), "some process of the cluster is of an earlier version").await
    }

    /// Replaces or removes a setting. From then on it counts at this gateway.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket | OutOfBounds)`, `Unavailable`.
    pub async fn set_setting(&self, bucket: &str, setting: Setting, value: Option<Bytes>) -> Result<(), Error> {
        let make = move |bucket| Command::SetBucket { bucket, setting, value: value.clone() };
        done(self.propose_in(bucket, None, make).await?)?;
        // What is decided by it is decided by what has been applied here.
        self.ledger.barrier().await?;
        Ok(())
    }

    /// Runs `query` on one snapshot in which the bucket exists.
    pub(super) async fn in_bucket<R: Send + 'static>(
        &self,
        bucket: &str,
        query: impl FnOnce(&View<'_>, BucketId) -> Result<R, Error> + Send + 'static,
    ) -> Result<R, Error> {
        let name = bucket.to_owned();
        self.snapshot(move |view| query(view, find(view, &name)?.id)).await
    }

    /// Refuses early what names a bucket that is not there. Cheap for a bucket seen before.
    pub(super) async fn expect_bucket(&self, name: &str, owner: Option<&str>) -> Result<(), Error> {
        self.bucket_id(name, owner).await.map(|_| ())
    }

    /// Proposes a command in a bucket; `fresh`: the leased ids it names. A refusal is an error.
    ///
    /// A name that was remembered may stand for a bucket made since: then it is looked up and proposed once more.
    pub(super) async fn propose_in(
        &self,
        bucket: &str,
        fresh: Option<&Fresh>,
        make: impl Fn(BucketId) -> Command,
    ) -> Result<Outcome, Failure> {
        self.propose_in_owners(bucket, None, fresh, make).await
    }

    /// As [`Store::propose_in`], if the bucket is `owner`'s: a name that has become another's in the meantime is none.
    pub(super) async fn propose_in_owners(
        &self,
        bucket: &str,
        owner: Option<&str>,
        fresh: Option<&Fresh>,
        make: impl Fn(BucketId) -> Command,
    ) -> Result<Outcome, Failure> {
        loop {
            let was_remembered = self.names.get(bucket).is_some();
            let command = make(self.bucket_id(bucket, owner).await.map_err(Failure::Never)?);
            let outcome = match fresh {
                Some(fresh) => self.session.propose_with(fresh.ids(), command).await?,
                None => self.session.propose(command).await?,
            };
            match outcome {
                Outcome::Refused(Refusal::NoSuchBucket) if was_remembered => self.names.forget(bucket),
                Outcome::Refused(refusal) => return Err(Failure::Never(refusal.into())),
                outcome => return Ok(outcome),
            }
        }
    }

    async fn bucket_id(&self, name: &str, owner: Option<&str>) -> Result<BucketId, Error> {
        let found = match self.names.get(name) {
            Some(found) => found,
            None => known(&self.bucket(name).await?),
        };
        match owner.is_none_or(|owner| *found.owner == *owner) {
            true => Ok(found.id),
            false => Err(Refusal::NoSuchBucket.into()),
        }
    }
}
