//! Versions under keys: PUT, DELETE, change; and the one function of preconditions.

use std::borrow::Cow;

use rusqlite::params;

use crate::catalog::event::Happening;
use crate::catalog::inode::{FileKind, MODE_MASK};
use crate::catalog::level::{FILES_LEVEL, LOCKING_LEVEL};
use crate::catalog::retention::{LockRule, may_become, now_or_soon};

use crate::catalog::{
    Attrs, Body, Bucket, Change, DeleteKey, Deleted, ETag, Error, NewChunk, Outcome, Posix, Precondition, Refusal,
    RetentionMode, Setting, Versioning, Written,
};
use crate::ids::{BucketId, Ino, VersionId};
use crate::units::{BLOCK_BYTES, KEY_MAX_BYTES};

use super::node::{Form, NewNode};
use super::tree::{Entry, Kind, Spot};
use super::upload::whole;
use super::{Decision, Step, bound, settle, sql};

/// The most keys that one command deletes.
const DELETE_COUNT_MAX: usize = 250;

/// A PUT's arguments.
pub(super) struct Put<'a> {
    pub(super) key: &'a [u8],
    pub(super) ino: Ino,
    pub(super) size_bytes: u64,
    pub(super) etag: ETag,
    pub(super) attrs: &'a Attrs,
    pub(super) body: &'a Body,
}

/// A new version: its node, and what of it a listing shows.
pub(super) struct NewVersion<'a> {
    pub(super) ino: Ino,
    pub(super) size_bytes: u64,
    pub(super) etag: ETag,
    pub(super) attrs: &'a Attrs,
}

/// What stands under a key before it changes.
pub(super) struct Found<'k> {
    spot: Option<Spot<'k>>,
    current: Option<Entry>,
}

pub(super) fn check_key(key: &[u8]) -> Result<(), Refusal> {
    bound((1..=KEY_MAX_BYTES).contains(&key.len()), "a key has 1 to 1,024 bytes")
}

/// Whether what is current meets all demands.
fn check_precondition(demands: &Precondition, current: Option<&Entry>) -> Result<(), Refusal> {
    let is_any_of = |tags: &[Option<ETag>], entry: &Entry| tags.iter().any(|tag| tag.is_none() || *tag == entry.etag);
    let failed = |name: &str| Refusal::PreconditionFailed(name.to_owned());
    let demands_one =
        demands.if_match.is_some() || demands.if_match_size_bytes.is_some() || demands.if_match_modified_s.is_some();
    let Some(current) = current else {
        return if demands_one { Err(Refusal::NoSuchKey) } else { Ok(()) };
    };
    if demands.if_match.as_ref().is_some_and(|tags| !is_any_of(tags, current)) {
        return Err(failed("If-Match"));
    }
    if demands.if_none_match.as_ref().is_some_and(|tags| is_any_of(tags, current)) {
        return Err(failed("If-None-Match"));
    }
    if demands.if_match_size_bytes.is_some_and(|size_bytes| size_bytes != current.size_bytes) {
        return Err(failed("x-amz-if-match-size"));
    }
    if demands.if_match_modified_s.is_some_and(|seconds| seconds != current.modified.seconds()) {
        return Err(failed("x-amz-if-match-last-modified-time"));
    }
    Ok(())
}

impl Step<'_> {
    pub(super) fn put(&mut self, bucket: BucketId, put: &Put<'_>, precondition: &Precondition) -> Decision<Outcome> {
        check_key(put.key)?;
        let bucket = self.bucket(bucket)?;
        self.check_leased(put.ino)?;
        let found = self.find_current(&bucket, put.key, precondition)?;
        let attrs = self.retain(&bucket, self.inherit(&found, put.attrs)?)?;
        let put = &Put { attrs: &attrs, ..*put };
        self.insert_body(put)?;
        let new = NewVersion { ino: put.ino, size_bytes: put.size_bytes, etag: put.etag, attrs: put.attrs };
        let what = match put.body {
            Body::Share(_) | Body::ShareRevision { .. } => Happening::Copied,
            Body::Empty | Body::Inline(_) | Body::Chunk(_) | Body::Chunks(_) => Happening::Put,
        };
        let written = self.publish(&bucket, put.key, found, new, what)?;
        Ok(Outcome::Written(written))
    }

    /// `attrs` with the permissions and the owner of the file that it replaces, as far as it says none itself.
    pub(super) fn inherit<'a>(&self, found: &Found<'_>, attrs: &'a Attrs) -> Result<Cow<'a, Attrs>, Error> {
        let Some(former) = found.current.as_ref().filter(|_| self.state.level >= FILES_LEVEL) else {
            return Ok(Cow::Borrowed(attrs));
        };
        let Some(had) = self.attrs(former.ino)?.posix else { return Ok(Cow::Borrowed(attrs)) };
        let now = self.now;
        let posix = match attrs.posix {
            Some(posix) => Posix { uid: had.uid, gid: had.gid, ..posix },
            // What replaces a link or a device is a file.
            None => Posix {
                mode: FileKind::File.format() | had.mode & MODE_MASK & !0o6000,
                mtime: now,
                ctime: now,
                atime: now,
                rdev: 0,
                ..had
            },
        };
        Ok(Cow::Owned(Attrs { posix: Some(posix), ..attrs.clone() }))
    }

    /// `attrs` with the retention that the bucket gives new versions, if it says none itself.
    pub(super) fn retain<'a>(&self, bucket: &Bucket, attrs: Cow<'a, Attrs>) -> Result<Cow<'a, Attrs>, Error> {
        if !bucket.lock || attrs.retention.is_some() || self.state.level < LOCKING_LEVEL {
            return Ok(attrs);
        }
        let query = "SELECT value FROM bucket_setting WHERE bucket=? AND kind=?";
        let kept = self.find(query, [sql(bucket.id.0), Setting::ObjectLock as i64], |row| row.get::<_, Vec<u8>>(0))?;
        let rule = kept.and_then(|kept| LockRule::from_bytes(&kept)).unwrap_or_default();
        match rule.retention(now_or_soon(self.now, self.state.time)) {
            None => Ok(attrs),
            retention => Ok(Cow::Owned(Attrs { retention, ..attrs.into_owned() })),
        }
    }

    /// What stands under `key`, if it meets the precondition.
    pub(super) fn find_current<'k>(
        &mut self,
        bucket: &Bucket,
        key: &'k [u8],
        precondition: &Precondition,
    ) -> Decision<Found<'k>> {
        let spot = self.find_spot(bucket, key)?;
        let current = match &spot {
            Some(spot) => self.current(spot)?,
            None => None,
        };
        check_precondition(precondition, current.as_ref().filter(|entry| !entry.is_hidden))?;
        Ok(Found { spot, current })
    }

    /// Inserts the node with its body: the last that refuses, the first that writes.
    fn insert_body(&mut self, put: &Put<'_>) -> Decision<()> {
        let attrs = put.attrs.encode();
        let node = |form, owner, place| NewNode { id: put.ino, nlink: 1, owner, form, attrs: Some(&attrs), place };
        match put.body {
            Body::Empty => {
                bound(put.size_bytes == 0, "an empty body has no bytes")?;
                self.insert_fresh(&node(Form::Empty, None, None))
            }
            Body::Inline(bytes) => {
                let fits = bytes.len() as u64 == put.size_bytes && (1..=BLOCK_BYTES).contains(&put.size_bytes);
                bound(fits, "an inline body has 1 to 8,192 bytes, as many as announced")?;
                self.insert_fresh(&node(Form::Inline, None, None))?;
                self.run("INSERT INTO inline(ino, data) VALUES(?, ?)", params![sql(put.ino.0), &bytes[..]])?;
                Ok(())
            }
            Body::Chunk(place) => {
                self.insert_chunks(put, &[NewChunk { id: put.ino, place: place.clone(), short: false }])
            }
            Body::Chunks(chunks) => self.insert_chunks(put, chunks),
            Body::Share(source) => self.insert_sharer(*source, node),
            Body::ShareRevision { ino, revision } => {
                self.body_owner(*ino)?;
                if self.inode_attrs(*ino)?.revision != *revision {
                    return Err(Refusal::RevisionChanged(*ino).into());
                }
                self.insert_sharer(*ino, node)
            }
        }
    }

    /// Inserts the node to show the bytes of `source`.
    fn insert_sharer<'n>(
        &mut self,
        source: Ino,
        node: impl Fn(Form, Option<Ino>, Option<&'n [u8]>) -> NewNode<'n>,
    ) -> Decision<()> {
        let owner = self.body_owner(source)?;
        if owner.form == Form::Empty {
            return self.insert_fresh(&node(Form::Empty, None, None));
        }
        self.insert_fresh(&node(owner.form, Some(owner.id), None))?;
        Ok(self.add_use(owner.id)?)
    }

    /// Inserts the node with chunks that are new: as the only chunk, or with an extent for each.
    fn insert_chunks(&mut self, put: &Put<'_>, chunks: &[NewChunk]) -> Decision<()> {
        let accepted = self.accept(chunks, put.size_bytes, Some(put.ino))?;
        let attrs = put.attrs.encode();
        let node = |form, place| NewNode { id: put.ino, nlink: 1, owner: None, form, attrs: Some(&attrs), place };
        match &accepted[..] {
            [own] if own.id == put.ino => {
                self.insert_fresh(&node(Form::Chunk, Some(&own.place)))?;
                Ok(self.insert_repair(own)?)
            }
            chunks => {
                self.insert_fresh(&node(Form::Extents, None))?;
                chunks.iter().try_for_each(|chunk| self.insert_chunk(chunk))?;
                Ok(self.insert_extents(put.ino, 0, &whole(chunks))?)
            }
        }
    }

    /// Makes `new` the current version under `key`; what was there becomes history or loses its name, as the bucket's
    /// versioning says.
    pub(super) fn publish(
        &mut self,
        bucket: &Bucket,
        key: &[u8],
        found: Found<'_>,
        new: NewVersion<'_>,
        what: Happening,
    ) -> Result<Written, Error> {
        let spot = self.make_spot(bucket, key, found.spot, true)?;
        let entry = self.new_entry(bucket, &new);
        self.publish_at(bucket, &spot, found.current.as_ref(), &entry, what)?;
        let (version, etag) = (entry.version(), new.etag);
        Ok(Written { version, ever_versioned: bucket.ever_versioned, modified: self.now, etag })
    }

    /// The entry of a new version.
    pub(super) fn new_entry(&mut self, bucket: &Bucket, new: &NewVersion<'_>) -> Entry {
        Entry {
            kind: Kind::Object,
            ino: new.ino,
            seq: self.take_seq(),
            is_null: bucket.versioning != Versioning::Enabled,
            is_classed: !new.attrs.storage_class.is_empty(),
            is_hidden: false,
            size_bytes: new.size_bytes,
            modified: self.now,
            etag: Some(new.etag),
        }
    }

    /// Makes `entry` the current version at `spot` in place of `former`.
    pub(super) fn publish_at(
        &mut self,
        bucket: &Bucket,
        spot: &Spot<'_>,
        former: Option<&Entry>,
        entry: &Entry,
        what: Happening,
    ) -> Result<(), Error> {
        match former {
            Some(former) => {
                self.replace_dentry(spot, former, entry)?;
                self.supersede(bucket, spot, former)?;
            }
            None => self.insert_dentry(spot, entry)?,
        }
        let former_is_null = former.is_some_and(|former| former.is_null);
        if bucket.versioning == Versioning::Suspended && !former_is_null {
            self.drop_null_from_history(spot)?;
        }
        self.tell_key(what, spot, entry)
    }

    /// What becomes of the version that a new null or numbered version took the place of.
    fn supersede(&mut self, bucket: &Bucket, spot: &Spot<'_>, former: &Entry) -> Result<(), Error> {
        match bucket.versioning {
            _ if former.is_hidden => self.lose_name(spot.root, former),
            Versioning::Never => self.lose_name(spot.root, former),
            Versioning::Suspended if former.is_null => self.lose_name(spot.root, former),
            Versioning::Suspended | Versioning::Enabled => self.insert_history(spot, former),
        }
    }

    pub(super) fn delete(&mut self, bucket: BucketId, keys: &[DeleteKey]) -> Decision<Outcome> {
        bound(keys.len() <= DELETE_COUNT_MAX, "at most 250 keys a command")?;
        let bucket = self.bucket(bucket)?;
        let mut outcomes = Vec::with_capacity(keys.len());
        for key in keys {
            outcomes.push(settle(self.delete_key(&bucket, key))?);
        }
        Ok(Outcome::Deleted(outcomes))
    }

    fn delete_key(&mut self, bucket: &Bucket, target: &DeleteKey) -> Decision<Deleted> {
        check_key(&target.key)?;
        let found = self.find_current(bucket, &target.key, &target.precondition)?;
        match (target.version, bucket.versioning) {
            (Some(version), _) => self.delete_version(found, version, target.bypass_governance),
            (None, Versioning::Never) => Ok(self.delete_current(found)?),
            (None, Versioning::Enabled | Versioning::Suspended) => {
                Ok(self.insert_delete_marker(bucket, &target.key, found)?)
            }
        }
    }

    fn delete_current(&mut self, found: Found<'_>) -> Result<Deleted, Error> {
        if let (Some(spot), Some(current)) = (found.spot, found.current.filter(|entry| !entry.is_hidden)) {
            self.remove_current(&spot, &current)?;
            self.prune(spot.root, spot.parent)?;
        }
        Ok(Deleted { version: None, delete_marker: false })
    }

    /// Takes the current version away where no history is kept. Its directory is the caller's to prune.
    pub(super) fn remove_current(&mut self, spot: &Spot<'_>, current: &Entry) -> Result<(), Error> {
        self.delete_dentry(spot, current)?;
        self.tell_key(Happening::Deleted, spot, &Entry { is_null: true, ..current.clone() })?;
        self.lose_name(spot.root, current)
    }

    fn insert_delete_marker(&mut self, bucket: &Bucket, key: &[u8], found: Found<'_>) -> Result<Deleted, Error> {
        let spot = self.make_spot(bucket, key, found.spot, false)?;
        let marker = self.mark_deleted(bucket, &spot, found.current.as_ref())?;
        self.prune(spot.root, spot.parent)?;
        Ok(Deleted { version: Some(marker.version()), delete_marker: true })
    }

    /// Puts a delete marker on top of the versions at `spot`. Its directory is the caller's to prune.
    pub(super) fn mark_deleted(
        &mut self,
        bucket: &Bucket,
        spot: &Spot<'_>,
        current: Option<&Entry>,
    ) -> Result<Entry, Error> {
        if let Some(current) = current {
            self.delete_dentry(spot, current)?;
            self.supersede(bucket, spot, current)?;
        }
        if bucket.versioning == Versioning::Suspended {
            self.drop_null_from_history(spot)?;
        }
        let marker = Entry {
            kind: Kind::DeleteMarker,
            ino: Ino(0),
            seq: self.take_seq(),
            is_null: bucket.versioning != Versioning::Enabled,
            is_classed: false,
            is_hidden: false,
            size_bytes: 0,
            modified: self.now,
            etag: None,
        };
        self.insert_history(spot, &marker)?;
        self.tell_key(Happening::Marked, spot, &marker)?;
        Ok(marker)
    }

    fn delete_version(&mut self, found: Found<'_>, version: VersionId, bypass: bool) -> Decision<Deleted> {
        let nothing = Deleted { version: None, delete_marker: false };
        let Some(spot) = found.spot else { return Ok(nothing) };
        let Some((entry, is_current)) = self.find_version(&spot, version)? else { return Ok(nothing) };
        self.check_unlocked(&entry, bypass)?;
        match is_current {
            true => self.delete_dentry(&spot, &entry)?,
            false => self.delete_history(&spot, &entry)?,
        }
        self.tell_key(Happening::Deleted, &spot, &entry)?;
        self.lose_name(spot.root, &entry)?;
        if is_current || found.current.is_none() {
            self.promote(&spot)?;
        }
        self.prune(spot.root, spot.parent)?;
        Ok(Deleted { version: Some(version), delete_marker: !entry.has_node() })
    }

    /// Refuses a version under legal hold or retention; time is the catalog's.
    fn check_unlocked(&self, entry: &Entry, bypass: bool) -> Decision<()> {
        if !entry.has_node() {
            return Ok(());
        }
        let attrs = self.attrs(entry.ino)?;
        let retained = attrs.retention.is_some_and(|retention| {
            retention.until > self.state.time && !(bypass && retention.mode == RetentionMode::Governance)
        });
        if attrs.hold || retained { Err(Refusal::Locked.into()) } else { Ok(()) }
    }

    /// Refuses what a lock does not allow.
    fn check_change(&self, bucket: &Bucket, had: &Attrs, change: &Change) -> Decision<()> {
        let time = self.state.time;
        match change {
            Change::Tags(_) | Change::Acl(_) => return Ok(()),
            Change::Retention { retention, bypass } => {
                let is_over = retention.is_some_and(|retention| retention.until <= time);
                bound(!is_over, "the retain until date must be in the future")?;
                if !may_become(had.retention, *retention, time, *bypass) {
                    return Err(Refusal::Locked.into());
                }
            }
            Change::Hold(_) => {}
        }
        bound(self.state.level >= LOCKING_LEVEL, "versions cannot be locked at this feature level")?;
        if bucket.lock { Ok(()) } else { Err(Refusal::InvalidBucketState.into()) }
    }

    pub(super) fn change(
        &mut self,
        bucket: BucketId,
        key: &[u8],
        version: Option<VersionId>,
        change: &Change,
    ) -> Decision<Outcome> {
        let bucket = self.bucket(bucket)?;
        let absent = if version.is_some() { Refusal::NoSuchVersion } else { Refusal::NoSuchKey };
        let Some(spot) = self.find_spot(&bucket, key)? else { return Err(absent.into()) };
        let found = match version {
            Some(version) => self.find_version(&spot, version)?.map(|(entry, _)| entry),
            None => self.current(&spot)?,
        };
        let entry = found.ok_or(absent)?;
        if !entry.has_node() {
            return Err(Refusal::IsDeleteMarker.into());
        }
        let mut own = self.inode_attrs(entry.ino)?;
        self.check_change(&bucket, &own.attrs, change)?;
        self.preserve(spot.parent, spot.name)?;
        if own.attrs.linked.is_some() {
            self.preserve_linked(entry.ino, &own)?;
        }
        match change {
            Change::Tags(tags) => own.attrs.tags.clone_from(tags),
            Change::Acl(acl) => own.attrs.acl.clone_from(acl),
            Change::Retention { retention, .. } => own.attrs.retention = *retention,
            Change::Hold(hold) => own.attrs.hold = *hold,
        }
        self.set_attrs(entry.ino, &own)?;
        Ok(Outcome::Changed { version: entry.version() })
    }
}
