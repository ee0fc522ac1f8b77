//! Keys and their versions: looking at, listing, changing and deleting them.

use crate::catalog::{
    Bucket, Change, Command, DeleteKey, Deleted, ListPage, ListQuery, Lookup, Outcome, Part, Refusal, UploadPage,
    Version, VersionPage, VersionQuery, View,
};
use crate::ids::{BucketId, Ino, Seq, VersionId};

use super::bucket::{find, unexpected};
use super::{Error, Store, Target};
use std::ops::Range;

/// Keys that one command deletes.
const DELETE_BATCH_COUNT: usize = 250;

/// A version, and the bucket it is in, from one snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The bucket.
    pub bucket: Bucket,
    /// The version.
    pub version: Version,
}

/// The version that `target` names, in a snapshot.
pub(super) fn look_up(view: &View<'_>, target: &Target) -> Result<Found, Error> {
    let bucket = find(view, &target.bucket)?;
    match view.lookup(bucket.id, &target.key, target.version)? {
        Lookup::Found(version) if version.is_delete_marker => Err(Error::DeleteMarker { modified: version.modified }),
        Lookup::Found(version) => Ok(Found { bucket, version }),
        Lookup::Deleted(marker) => Err(Error::Deleted { marker: marker.id }),
        Lookup::Missing if target.version.is_some() => Err(Refusal::NoSuchVersion.into()),
        Lookup::Missing => Err(Refusal::NoSuchKey.into()),
    }
}

impl Store {
    /// A version without its bytes.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket | NoSuchKey | NoSuchVersion)`, `Deleted`, `DeleteMarker` where a marker was
    /// named, `Unavailable`.
    pub async fn head(&self, target: &Target) -> Result<Found, Error> {
        let target = target.clone();
        self.snapshot(move |view| look_up(view, &target)).await
    }

    /// Where in a version the part with `number` (1: the first) is; an object that was no multipart upload has one part.
    ///
    /// # Errors
    /// `InvalidRange`: there is no such part.
    pub async fn part_range(&self, version: &Version, number: u32) -> Result<Range<u64>, Error> {
        let (ino, size_bytes, is_multipart) = (version.ino, version.size_bytes, version.etag.part_count > 0);
        let missing = Error::InvalidRange { size_bytes };
        let Some(index) = number.checked_sub(1) else { return Err(missing) };
        match self.snapshot(move |view| Ok(view.object_part(ino, index)?)).await? {
            Some((_, start, len)) => Ok(start..start + len),
            None if index == 0 && !is_multipart => Ok(0..size_bytes),
            None => Err(missing),
        }
    }

    /// The parts of a version that was a multipart upload, at most `limit` with numbers above `after`; empty for any
    /// other version.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn object_parts(&self, version: &Version, after: u32, limit: usize) -> Result<Vec<Part>, Error> {
        let ino = version.ino;
        self.snapshot(move |view| Ok(view.object_parts(ino, after, limit)?)).await
    }

    /// Deletes keys; an answer for each, in order.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket)`. `Unavailable`: some of them may have been deleted.
    pub async fn delete(&self, bucket: &str, keys: Vec<DeleteKey>) -> Result<Vec<Result<Deleted, Refusal>>, Error> {
        let mut answers = Vec::with_capacity(keys.len());
        for keys in keys.chunks(DELETE_BATCH_COUNT) {
            let make = |bucket: BucketId| Command::Delete { bucket, keys: keys.to_vec() };
            match self.propose_in(bucket, None, make).await? {
                Outcome::Deleted(batch) => answers.extend(batch),
                outcome => return Err(unexpected(&outcome)),
            }
        }
        self.died.notify_one();
        Ok(answers)
    }

    /// Changes a version in place. Returns which.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket | NoSuchKey | NoSuchVersion | IsDeleteMarker)`, `Unavailable`.
    pub async fn change(&self, target: &Target, change: Change) -> Result<VersionId, Error> {
        let (key, version) = (bytes::Bytes::copy_from_slice(&target.key), target.version);
        let make = |bucket| Command::Change { bucket, key: key.clone(), version, change: change.clone() };
        match self.propose_in(&target.bucket, None, make).await? {
            Outcome::Changed { version } => Ok(version),
            outcome => Err(unexpected(&outcome)),
        }
    }

    /// A page of current versions, and the bucket they are in, from one snapshot.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket)`, `Unavailable`.
    pub async fn list(&self, bucket: &str, query: ListQuery) -> Result<(Bucket, ListPage), Error> {
        let name = bucket.to_owned();
        self.snapshot(move |view| {
            let bucket = find(view, &name)?;
            let page = view.list(bucket.id, &query)?;
            Ok((bucket, page))
        })
        .await
    }

    /// A page of all versions.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket)`, `Unavailable`.
    pub async fn list_versions(&self, bucket: &str, query: VersionQuery) -> Result<VersionPage, Error> {
        self.in_bucket(bucket, move |view, bucket| Ok(view.list_versions(bucket, &query)?)).await
    }

    /// The place of a key's null version, object or delete marker, in the order of its versions.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket)`, `Unavailable`.
    pub async fn null_version_seq(&self, bucket: &str, key: &[u8]) -> Result<Option<Seq>, Error> {
        let key = key.to_vec();
        self.in_bucket(bucket, move |view, bucket| match view.lookup(bucket, &key, Some(VersionId::Null))? {
            Lookup::Found(version) | Lookup::Deleted(version) => Ok(Some(version.seq)),
            Lookup::Missing => Ok(None),
        })
        .await
    }

    /// A page of uploads in progress.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket)`, `Unavailable`.
    pub async fn list_uploads(
        &self,
        bucket: &str,
        query: ListQuery,
        after_id: Option<Ino>,
    ) -> Result<UploadPage, Error> {
        self.in_bucket(bucket, move |view, bucket| Ok(view.list_uploads(bucket, &query, after_id)?)).await
    }
}
