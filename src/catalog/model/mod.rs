//! The reference model: what the catalog means, in plain maps, and random sequences of commands against both.
//!
//! The model knows no tree, no dead list and no reference counts. A key is a list of versions, newest last; a
//! content is a list of runs of chunks; a chunk is alive while some content of a version or of an upload names it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod checks;
mod damage;
mod sequences;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::*;
use crate::catalog::level::LOCKING_LEVEL;
use crate::env::Timestamp;
use crate::ids::{BucketId, Ino, NodeId, Seq, ShardId, VersionId};
use crate::units::{
    BLOCK_BYTES, CHUNK_BYTES, KEY_MAX_BYTES, PART_COUNT_MAX, PART_MAX_BYTES, PART_MIN_BYTES, PART_RUN_COUNT_MAX,
};

/// (chunk, start in it, length).
type Run = (Ino, u64, u64);

#[derive(Clone, PartialEq, Debug)]
struct ModelPart {
    size_bytes: u64,
    modified: Timestamp,
    etag: ETag,
    checksums: Vec<Checksum>,
    runs: Vec<Run>,
}

#[derive(Clone, PartialEq, Debug)]
enum Content {
    Empty,
    Inline(Bytes),
    Chunk(Ino),
    Chunks(Vec<Run>),
    Parts(BTreeMap<u32, ModelPart>),
}

impl Content {
    /// The chunks that it names.
    fn chunks(&self) -> Vec<Ino> {
        match self {
            Content::Empty | Content::Inline(_) => Vec::new(),
            Content::Chunk(chunk) => vec![*chunk],
            Content::Chunks(runs) => runs.iter().map(|run| run.0).collect(),
            Content::Parts(parts) => parts.values().flat_map(|part| &part.runs).map(|run| run.0).collect(),
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
struct ModelVersion {
    ino: Ino,
    seq: Seq,
    is_null: bool,
    /// The node that brought the bytes in, and the bytes; none: a delete marker.
    content: Option<(Ino, Content)>,
    size_bytes: u64,
    modified: Timestamp,
    etag: ETag,
    attrs: Attrs,
}

impl ModelVersion {
    fn id(&self) -> VersionId {
        if self.is_null { VersionId::Null } else { VersionId::Seq(self.seq) }
    }

    fn is_marker(&self) -> bool {
        self.content.is_none()
    }
}

#[derive(Clone, Debug)]
struct ModelUpload {
    created: Timestamp,
    attrs: Attrs,
    parts: BTreeMap<u32, ModelPart>,
}

#[derive(Clone, Debug)]
struct ModelBucket {
    bucket: Bucket,
    /// No key without versions.
    keys: BTreeMap<Vec<u8>, Vec<ModelVersion>>,
    uploads: BTreeMap<(Vec<u8>, Ino), ModelUpload>,
    settings: BTreeMap<Setting, Bytes>,
}

impl ModelBucket {
    fn current(&self, key: &[u8]) -> Option<&ModelVersion> {
        self.keys.get(key)?.last().filter(|version| !version.is_marker())
    }
}

struct ModelCompleted {
    bucket: BucketId,
    key: Vec<u8>,
    parts: Vec<CompletePart>,
    written: Written,
}

/// What the catalog is to hold.
#[derive(Default)]
struct Model {
    buckets: BTreeMap<BucketId, ModelBucket>,
    completed: BTreeMap<Ino, ModelCompleted>,
    /// Every chunk that was ever accepted, where it was last.
    places: BTreeMap<Ino, Place>,
    /// Chunks that were split, and into what.
    pieces: BTreeMap<Ino, Vec<Run>>,
    /// Every shard that was ever accepted: (node, shard, chunk).
    shards: Vec<(NodeId, ShardId, Ino)>,
    /// What swaps left behind: (chunk, encoded place).
    left: BTreeSet<(Ino, Vec<u8>)>,
    /// Chunks that are to be repaired, if they are there at all; and whether damage was seen in them.
    repairs: BTreeMap<Ino, bool>,
    map: Option<Map>,
    level: u32,
    /// Contents by node that nothing named at some time since the last complete drain: they may still be there.
    fading: BTreeMap<Ino, (Ino, Content)>,
    /// Chunks likewise.
    fading_chunks: BTreeSet<Ino>,
    /// Ids that left the lease.
    retired: BTreeSet<Ino>,
    /// Leased ids: half-open.
    lease: (Ino, Ino),
    time: Timestamp,
}

/// One command being applied to the model.
struct Stroke<'m> {
    model: &'m mut Model,
    index: LogIndex,
    now: Timestamp,
    version_count: u64,
    /// What the catalog answered: decides only where the dead list's progress does.
    actual: &'m Outcome,
}

fn bound(holds: bool) -> Result<(), Refusal> {
    // The text is for people; comparisons replace it.
    if holds { Ok(()) } else { Err(Refusal::OutOfBounds(String::new())) }
}

impl Model {
    /// Nodes that are there for certain, with the node that brought their bytes in, and the bytes.
    fn nodes(&self) -> BTreeMap<Ino, (Ino, Content)> {
        let mut nodes = BTreeMap::new();
        for version in self.buckets.values().flat_map(|bucket| bucket.keys.values().flatten()) {
            if let Some((owner, content)) = &version.content {
                nodes.insert(version.ino, (*owner, content.clone()));
                nodes.insert(*owner, (*owner, content.clone()));
            }
        }
        let chunks = self.named().into_iter().chain(self.chunks());
        nodes.extend(chunks.map(|chunk| (chunk, (chunk, Content::Chunk(chunk)))));
        nodes
    }

    /// Chunks that something names, or has a piece of.
    fn chunks(&self) -> BTreeSet<Ino> {
        let named = self.named().into_iter().map(|chunk| (chunk, 0, u64::MAX));
        named.flat_map(|run| self.pieces_of(run)).map(|run| run.0).collect()
    }

    /// What a run lies in: itself, unless its chunk was split.
    fn pieces_of(&self, (chunk, start, len_bytes): Run) -> Vec<Run> {
        let Some(pieces) = self.pieces.get(&chunk) else { return vec![(chunk, start, len_bytes)] };
        let (end, mut runs, mut piece_start) = (start.saturating_add(len_bytes), Vec::new(), 0);
        for (piece, _, piece_bytes) in pieces {
            let piece_end = piece_start + piece_bytes;
            if start < piece_end && piece_start < end {
                let from = start.max(piece_start);
                runs.push((*piece, from - piece_start, end.min(piece_end) - from));
            }
            piece_start = piece_end;
        }
        runs
    }

    /// Chunks, split or not, that something names.
    fn named(&self) -> BTreeSet<Ino> {
        let mut chunks = BTreeSet::new();
        for bucket in self.buckets.values() {
            let contents = bucket.keys.values().flatten().filter_map(|version| version.content.as_ref());
            chunks.extend(contents.flat_map(|(_, content)| content.chunks()));
            let parts = bucket.uploads.values().flat_map(|upload| upload.parts.values());
            chunks.extend(parts.flat_map(|part| &part.runs).map(|run| run.0));
        }
        chunks
    }

    fn apply(&mut self, index: LogIndex, now: Timestamp, command: &Command, actual: &Outcome) -> Outcome {
        let (nodes, chunks) = (self.nodes(), self.chunks());
        let mut stroke = Stroke { model: self, index, now, version_count: 0, actual };
        let outcome = stroke.apply(command).unwrap_or_else(Outcome::Refused);
        if matches!(command, Command::Drain { .. }) && *actual == (Outcome::Drained { remaining: 0 }) {
            self.fading.clear();
            self.fading_chunks.clear();
        } else {
            let (left, left_chunks) = (self.nodes(), self.chunks());
            self.fading.extend(nodes.into_iter().filter(|(ino, _)| !left.contains_key(ino)));
            self.fading_chunks.extend(chunks.difference(&left_chunks));
        }
        outcome
    }
}

impl Stroke<'_> {
    fn apply(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        match command {
            Command::Tick { now } => self.model.time = self.model.time.max(*now),
            Command::CreateBucket { id, name, owner, region, lock } => {
                self.create_bucket(*id, name, owner, region, *lock)?;
            }
            Command::DeleteBucket { bucket } => self.delete_bucket(*bucket)?,
            Command::SetVersioning { bucket, versioning } => self.set_versioning(*bucket, *versioning)?,
            Command::SetBucket { bucket, setting, value } => {
                let level = self.model.level;
                let bucket_now = self.bucket(*bucket)?;
                if *setting == Setting::ObjectLock && level >= LOCKING_LEVEL {
                    bound(value.is_some())?;
                    let bucket = &mut bucket_now.bucket;
                    if bucket.versioning != Versioning::Enabled {
                        return Err(Refusal::InvalidBucketState);
                    }
                    bucket.lock = true;
                }
                let settings = &mut self.bucket(*bucket)?.settings;
                match value {
                    Some(value) => settings.insert(*setting, value.clone()),
                    None => settings.remove(setting),
                };
            }
            Command::Put { bucket, key, ino, size_bytes, etag, attrs, body, precondition } => {
                return self.put(*bucket, key, *ino, *size_bytes, *etag, attrs, body, precondition);
            }
            Command::Delete { bucket, keys } => {
                self.bucket(*bucket)?;
                return Ok(Outcome::Deleted(keys.iter().map(|key| self.delete(*bucket, key)).collect()));
            }
            Command::Change { bucket, key, version, change } => return self.change(*bucket, key, *version, change),
            Command::CreateUpload { bucket, key, id, attrs } => {
                check_key(key)?;
                self.bucket(*bucket)?;
                self.check_fresh(*id)?;
                let upload = ModelUpload { created: self.now, attrs: attrs.clone(), parts: BTreeMap::new() };
                self.bucket(*bucket)?.uploads.insert((key.to_vec(), *id), upload);
                self.model.retired.insert(*id);
            }
            Command::PutPart { bucket, key, upload, number, size_bytes, etag, checksums, body } => {
                bound((1..=PART_COUNT_MAX).contains(number) && *size_bytes <= PART_MAX_BYTES)?;
                self.upload(*bucket, key, *upload)?;
                let runs = self.part_runs(body, *size_bytes)?;
                let (modified, checksums) = (self.now, checksums.clone());
                let part = ModelPart { size_bytes: *size_bytes, modified, etag: *etag, checksums, runs };
                self.upload(*bucket, key, *upload)?.parts.insert(*number, part);
            }
            Command::CompleteUpload { bucket, key, upload, parts, etag, checksums, precondition } => {
                return self.complete(*bucket, key, *upload, parts, *etag, checksums, precondition);
            }
            Command::AbortUpload { bucket, key, upload } => {
                self.upload(*bucket, key, *upload)?;
                self.bucket(*bucket)?.uploads.remove(&(key.to_vec(), *upload));
            }
            // What these do cannot be seen, but for what is told elsewhere.
            Command::Drain { .. } | Command::LeaseIds { .. } => return Ok(self.actual.clone()),
            Command::Reclaimed { .. } => {}
            Command::ForgetCompleted { .. } => self.model.completed.clear(),
            Command::SetMap { from_epoch, map } => self.set_map(*from_epoch, map)?,
            Command::Swap { chunk, from, to, due, verified } => self.swap(*chunk, (from, to), *due, *verified)?,
            Command::Split { chunk, from, pieces } => self.split(*chunk, from, pieces)?,
            Command::MarkRepair { chunks, damaged } => {
                let there = chunks.iter().filter(|chunk| self.model.may_be_there(**chunk));
                let there: Vec<Ino> = there.copied().collect();
                for chunk in there {
                    *self.model.repairs.entry(chunk).or_default() |= damaged;
                }
            }
            Command::RaiseLevel { to } => {
                bound(*to > 0)?;
                self.model.level = self.model.level.max(*to);
            }
            other => panic!("the model does not know {other:?}"),
        }
        Ok(Outcome::Done)
    }

    fn bucket(&mut self, id: BucketId) -> Result<&mut ModelBucket, Refusal> {
        self.model.buckets.get_mut(&id).ok_or(Refusal::NoSuchBucket)
    }

    fn check_leased(&self, id: Ino) -> Result<(), Refusal> {
        let (start, end) = self.model.lease;
        let is_leased = start <= id && id < end && !self.model.retired.contains(&id);
        if is_leased { Ok(()) } else { Err(Refusal::NotLeased(id)) }
    }

    fn check_unused(&self, id: Ino) -> Result<(), Refusal> {
        let is_node = self.model.nodes().contains_key(&id);
        let was_refused = *self.actual == Outcome::Refused(Refusal::NotLeased(id));
        if is_node || self.model.fading.contains_key(&id) && was_refused { Err(Refusal::NotLeased(id)) } else { Ok(()) }
    }

    fn check_fresh(&self, id: Ino) -> Result<(), Refusal> {
        self.check_leased(id)?;
        self.check_unused(id)
    }

    fn create_bucket(
        &mut self,
        id: BucketId,
        name: &str,
        owner: &str,
        region: &str,
        lock: bool,
    ) -> Result<(), Refusal> {
        if let Some(taken) = self.model.buckets.values().find(|bucket| bucket.bucket.name == name) {
            return Err(Refusal::BucketExists { owner: taken.bucket.owner.clone() });
        }
        self.check_fresh(id.root())?;
        self.model.retired.insert(id.root());
        let bucket = Bucket {
            id,
            name: name.to_owned(),
            owner: owner.to_owned(),
            region: region.to_owned(),
            created: self.now,
            versioning: if lock { Versioning::Enabled } else { Versioning::Never },
            ever_versioned: lock,
            lock,
        };
        let (keys, uploads, settings) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        self.model.buckets.insert(id, ModelBucket { bucket, keys, uploads, settings });
        Ok(())
    }

    fn delete_bucket(&mut self, id: BucketId) -> Result<(), Refusal> {
        let bucket = self.bucket(id)?;
        if !bucket.keys.is_empty() || !bucket.uploads.is_empty() {
            return Err(Refusal::BucketNotEmpty);
        }
        self.model.buckets.remove(&id);
        Ok(())
    }

    fn set_versioning(&mut self, id: BucketId, versioning: Versioning) -> Result<(), Refusal> {
        let bucket = &mut self.bucket(id)?.bucket;
        if versioning == Versioning::Never || bucket.lock && versioning != Versioning::Enabled {
            return Err(Refusal::InvalidBucketState);
        }
        (bucket.versioning, bucket.ever_versioned) = (versioning, true);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the command's own fields")]
    fn put(
        &mut self,
        bucket: BucketId,
        key: &[u8],
        ino: Ino,
        size_bytes: u64,
        etag: ETag,
        attrs: &Attrs,
        body: &Body,
        precondition: &Precondition,
    ) -> Result<Outcome, Refusal> {
        check_key(key)?;
        self.bucket(bucket)?;
        self.check_leased(ino)?;
        check_precondition(precondition, self.bucket(bucket)?.current(key))?;
        let chunks = match body {
            Body::Chunk(place) => vec![NewChunk { id: ino, place: place.clone(), short: false }],
            Body::Chunks(chunks) => chunks.clone(),
            _ => Vec::new(),
        };
        let (owner, content) = match body {
            Body::Empty => {
                bound(size_bytes == 0)?;
                (ino, Content::Empty)
            }
            Body::Inline(bytes) => {
                bound(bytes.len() as u64 == size_bytes && (1..=BLOCK_BYTES).contains(&size_bytes))?;
                (ino, Content::Inline(bytes.clone()))
            }
            Body::Chunk(_) | Body::Chunks(_) => match self.accept(&chunks, size_bytes, Some(ino))?[..] {
                [(chunk, ..)] if chunk == ino => (ino, Content::Chunk(ino)),
                ref runs => (ino, Content::Chunks(runs.to_vec())),
            },
            // No file system changes anything here.
            Body::Share(source) | Body::ShareRevision { ino: source, .. } => match self.source(*source)? {
                (_, Content::Empty) => (ino, Content::Empty),
                shared => shared,
            },
        };
        self.check_unused(ino)?;
        self.keep(&chunks);
        self.publish(bucket, key, ino, (owner, content), size_bytes, etag, attrs)
    }

    /// The content of a node, with the node that brought it in.
    fn source(&self, source: Ino) -> Result<(Ino, Content), Refusal> {
        let may_be_gone = *self.actual == Outcome::Refused(Refusal::SourceGone);
        let fading = self.model.fading.get(&source).filter(|_| !may_be_gone);
        self.model.nodes().get(&source).or(fading).cloned().ok_or(Refusal::SourceGone)
    }

    #[expect(clippy::too_many_arguments, reason = "a version's own fields")]
    fn publish(
        &mut self,
        id: BucketId,
        key: &[u8],
        ino: Ino,
        content: (Ino, Content),
        size_bytes: u64,
        etag: ETag,
        attrs: &Attrs,
    ) -> Result<Outcome, Refusal> {
        let (seq, modified) = (self.take_seq(), self.now);
        let (time, level) = (self.model.time, self.model.level);
        let bucket = self.bucket(id)?;
        let mut attrs = attrs.clone();
        if bucket.bucket.lock && level >= LOCKING_LEVEL && attrs.retention.is_none() {
            // Only rules of days in GOVERNANCE are made here.
            let days = bucket.settings.get(&Setting::ObjectLock).map_or(0, |rule| i64::from(rule[3]));
            let made = modified.0.clamp(time.0, time.0 + 120_000_000_000);
            let until = Timestamp(made + days * 86_400 * 1_000_000_000);
            attrs.retention = (days > 0).then_some(Retention { mode: RetentionMode::Governance, until });
        }
        let (versioning, ever_versioned) = (bucket.bucket.versioning, bucket.bucket.ever_versioned);
        let version = ModelVersion {
            ino,
            seq,
            is_null: versioning != Versioning::Enabled,
            content: Some(content),
            size_bytes,
            modified,
            etag,
            attrs,
        };
        let written = Written { version: version.id(), ever_versioned, modified, etag };
        push(bucket, key, version);
        Ok(Outcome::Written(written))
    }

    fn take_seq(&mut self) -> Seq {
        self.version_count += 1;
        Seq::new(self.index, self.version_count - 1)
    }

    fn delete(&mut self, id: BucketId, target: &DeleteKey) -> Result<Deleted, Refusal> {
        check_key(&target.key)?;
        let (time, now) = (self.model.time, self.now);
        let bucket = self.bucket(id)?;
        check_precondition(&target.precondition, bucket.current(&target.key))?;
        if let Some(version) = target.version {
            return delete_version(bucket, &target.key, version, time, target.bypass_governance);
        }
        if bucket.bucket.versioning == Versioning::Never {
            bucket.keys.remove(target.key.as_ref());
            return Ok(Deleted { version: None, delete_marker: false });
        }
        let is_null = bucket.bucket.versioning == Versioning::Suspended;
        let marker = ModelVersion {
            ino: Ino(0),
            seq: self.take_seq(),
            is_null,
            content: None,
            size_bytes: 0,
            modified: now,
            etag: ETag { md5: [0; 16], part_count: 0 },
            attrs: Attrs::default(),
        };
        let version = Some(marker.id());
        push(self.bucket(id)?, &target.key, marker);
        Ok(Deleted { version, delete_marker: true })
    }

    fn change(
        &mut self,
        bucket: BucketId,
        key: &[u8],
        version: Option<VersionId>,
        change: &Change,
    ) -> Result<Outcome, Refusal> {
        let (time, level) = (self.model.time, self.model.level);
        let is_locking = self.bucket(bucket)?.bucket.lock;
        let versions = self.bucket(bucket)?.keys.get_mut(key);
        let found = match version {
            None => {
                let current = versions.and_then(|versions| versions.last_mut());
                current.filter(|version| !version.is_marker()).ok_or(Refusal::NoSuchKey)?
            }
            Some(id) => {
                let named = versions.and_then(|versions| versions.iter_mut().find(|version| version.id() == id));
                named.ok_or(Refusal::NoSuchVersion)?
            }
        };
        if found.is_marker() {
            return Err(Refusal::IsDeleteMarker);
        }
        match change {
            Change::Tags(tags) => found.attrs.tags.clone_from(tags),
            Change::Acl(acl) => found.attrs.acl.clone_from(acl),
            Change::Retention { retention, bypass } => {
                bound(retention.is_none_or(|retention| retention.until > time))?;
                let lasts = found.attrs.retention.filter(|had| had.until > time);
                let is_weaker =
                    |had: Retention| retention.is_none_or(|new| new.mode != had.mode || new.until < had.until);
                let can_bypass = |had: Retention| *bypass && had.mode == RetentionMode::Governance;
                if lasts.is_some_and(|had| is_weaker(had) && !can_bypass(had)) {
                    return Err(Refusal::Locked);
                }
                bound(level >= LOCKING_LEVEL)?;
                if !is_locking {
                    return Err(Refusal::InvalidBucketState);
                }
                found.attrs.retention = *retention;
            }
            Change::Hold(hold) => {
                bound(level >= LOCKING_LEVEL)?;
                if !is_locking {
                    return Err(Refusal::InvalidBucketState);
                }
                found.attrs.hold = *hold;
            }
        }
        Ok(Outcome::Changed { version: found.id() })
    }

    fn upload(&mut self, bucket: BucketId, key: &[u8], id: Ino) -> Result<&mut ModelUpload, Refusal> {
        self.bucket(bucket)?.uploads.get_mut(&(key.to_vec(), id)).ok_or(Refusal::NoSuchUpload)
    }

    fn part_runs(&mut self, body: &PartBody, size_bytes: u64) -> Result<Vec<Run>, Refusal> {
        match body {
            PartBody::Empty => {
                bound(size_bytes == 0)?;
                Ok(Vec::new())
            }
            PartBody::Chunk { chunk, place } => {
                let chunks = [NewChunk { id: *chunk, place: place.clone(), short: false }];
                let runs = self.accept(&chunks, size_bytes, None)?;
                self.keep(&chunks);
                Ok(runs)
            }
            PartBody::Chunks(chunks) => {
                let runs = self.accept(chunks, size_bytes, None)?;
                self.keep(chunks);
                Ok(runs)
            }
            PartBody::Share(runs) => {
                bound((1..=PART_RUN_COUNT_MAX).contains(&runs.len()))?;
                let alive = self.model.chunks();
                let may_be_gone = *self.actual == Outcome::Refused(Refusal::SourceGone);
                for (chunk, start, len_bytes) in runs {
                    let is_split = self.model.pieces.contains_key(chunk);
                    let is_there = alive.contains(chunk) || self.model.fading_chunks.contains(chunk) && !may_be_gone;
                    let is_there = is_there && !is_split;
                    let place = self.model.places.get(chunk).filter(|_| is_there).ok_or(Refusal::SourceGone)?;
                    bound(*len_bytes > 0 && start + len_bytes <= place.len_bytes)?;
                }
                bound(runs.iter().map(|run| run.2).sum::<u64>() == size_bytes)?;
                Ok(runs.clone())
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the command's own fields")]
    fn complete(
        &mut self,
        bucket: BucketId,
        key: &[u8],
        id: Ino,
        listed: &[CompletePart],
        etag: ETag,
        checksums: &[Checksum],
        precondition: &Precondition,
    ) -> Result<Outcome, Refusal> {
        self.bucket(bucket)?;
        if self.upload(bucket, key, id).is_err() {
            let before = self.model.completed.get(&id);
            let same = before.filter(|before| before.bucket == bucket && before.key == key && before.parts == listed);
            return same.map(|before| Outcome::Written(before.written.clone())).ok_or(Refusal::NoSuchUpload);
        }
        let ModelUpload { mut attrs, parts, .. } = self.upload(bucket, key, id)?.clone();
        let size_bytes = check_parts(listed, &parts)?;
        check_precondition(precondition, self.bucket(bucket)?.current(key))?;
        attrs.checksums = checksums.to_vec();
        let is_listed = |number: &u32| listed.iter().any(|part| part.number == *number);
        let (parts, unlisted): (BTreeMap<_, _>, BTreeMap<_, _>) =
            parts.into_iter().partition(|(number, _)| is_listed(number));
        if let Some(left_count) = self.drop_some(bucket, key, id, &unlisted)? {
            return Ok(Outcome::Drained { remaining: left_count });
        }
        self.bucket(bucket)?.uploads.remove(&(key.to_vec(), id));
        let outcome = self.publish(bucket, key, id, (id, Content::Parts(parts)), size_bytes, etag, &attrs)?;
        if let Outcome::Written(written) = &outcome {
            let (key, parts, written) = (key.to_vec(), listed.to_vec(), written.clone());
            self.model.completed.insert(id, ModelCompleted { bucket, key, parts, written });
        }
        Ok(outcome)
    }
}

impl Stroke<'_> {
    /// What one Complete drops of parts that it does not list, 4,096 rows of it: a part's own, and two a run. Where that
    /// is not all, how many parts are left.
    fn drop_some(
        &mut self,
        bucket: BucketId,
        key: &[u8],
        id: Ino,
        unlisted: &BTreeMap<u32, ModelPart>,
    ) -> Result<Option<u32>, Refusal> {
        let mut row_count = 0;
        let mut gone = BTreeSet::new();
        for (number, part) in unlisted {
            if row_count < 4096 {
                gone.insert(*number);
            }
            row_count += 1 + 2 * part.runs.len();
        }
        if gone.len() == unlisted.len() {
            return Ok(None);
        }
        let upload = self.upload(bucket, key, id)?;
        upload.parts.retain(|number, _| !gone.contains(number));
        Ok(Some((unlisted.len() - gone.len()) as u32))
    }
}

impl Model {
    /// Whether a chunk is there for certain, or may still be.
    fn may_be_there(&self, chunk: Ino) -> bool {
        !self.pieces.contains_key(&chunk) && (self.chunks().contains(&chunk) || self.fading_chunks.contains(&chunk))
    }
}

/// Shards that are somewhere, with their indexes.
fn slots(layout: &Layout) -> BTreeSet<(usize, NodeId, ShardId)> {
    let shards = layout.shards().iter().enumerate().map(|(index, (node, shard))| (index, *node, *shard));
    shards.filter(|(.., shard)| shard.0 > 0).collect()
}

fn check_place(place: &Place) -> Result<(), Refusal> {
    let Layout::Rs { data_count, parity_count, shards, .. } = &place.layout else { return bound(place.len_bytes > 0) };
    let (data_count, shard_count) = (usize::from(*data_count), usize::from(*data_count) + usize::from(*parity_count));
    bound((1..=CHUNK_BYTES).contains(&place.len_bytes))?;
    bound(data_count > 0 && shards.len() == shard_count && slots(&place.layout).len() >= data_count)
}

impl Stroke<'_> {
    /// Refuses what must be refused of new chunks. Returns the runs that they are.
    fn accept(&self, chunks: &[NewChunk], size_bytes: u64, holder: Option<Ino>) -> Result<Vec<Run>, Refusal> {
        bound((1..=512).contains(&chunks.len()))?;
        chunks.iter().try_for_each(|chunk| check_place(&chunk.place))?;
        bound(chunks.iter().map(|chunk| chunk.place.len_bytes).sum::<u64>() == size_bytes)?;
        let is_holder = |chunk: &NewChunk| chunks.len() == 1 && Some(chunk.id) == holder;
        let mut names: BTreeSet<Ino> = holder.filter(|_| !chunks.iter().all(is_holder)).into_iter().collect();
        for chunk in chunks {
            bound(names.insert(chunk.id))?;
            slots(&chunk.place.layout).iter().try_for_each(|(.., shard)| bound(names.insert(Ino(shard.0))))?;
        }
        for chunk in chunks {
            if !is_holder(chunk) {
                self.check_fresh(chunk.id)?;
            }
            slots(&chunk.place.layout).iter().try_for_each(|(.., shard)| self.check_leased(Ino(shard.0)))?;
        }
        Ok(chunks.iter().map(|chunk| (chunk.id, 0, chunk.place.len_bytes)).collect())
    }

    fn keep(&mut self, chunks: &[NewChunk]) {
        for NewChunk { id, place, short } in chunks {
            // A leased id may be taken again once its chunk is gone; where that was waits to be reclaimed.
            let before = self.model.places.get(id).map(|place| (*id, place.encode()));
            self.model.left.extend(before);
            self.model.pieces.remove(id);
            self.put_at(*id, place, *short);
        }
    }

    fn put_at(&mut self, chunk: Ino, place: &Place, short: bool) {
        let slots = slots(&place.layout);
        match short || slots.len() < place.layout.shards().len() {
            true => self.model.repairs.insert(chunk, false),
            false => self.model.repairs.remove(&chunk),
        };
        self.model.shards.extend(slots.into_iter().map(|(_, node, shard)| (node, shard, chunk)));
        self.model.places.insert(chunk, place.clone());
    }

    fn swap(&mut self, chunk: Ino, (from, to): (&Place, &Place), due: Due, verified: bool) -> Result<(), Refusal> {
        bound(matches!(to.layout, Layout::Rs { .. }) && to.len_bytes == from.len_bytes)?;
        check_place(to)?;
        let current = self.place_still(chunk, from)?;
        let (old, new) = (slots(&from.layout), slots(&to.layout));
        let mut names = BTreeSet::from([chunk]);
        let mut added = new.difference(&old);
        added.clone().chain(&old).try_for_each(|(.., shard)| bound(names.insert(Ino(shard.0))))?;
        added.try_for_each(|(.., shard)| self.check_leased(Ino(shard.0)))?;

        let mut behind = current.clone();
        if let Layout::Rs { shards, .. } = &mut behind.layout {
            new.intersection(&old).for_each(|(index, ..)| shards[*index].1 = ShardId(0));
        }
        if matches!(behind.layout, Layout::Plain { .. }) || !slots(&behind.layout).is_empty() {
            self.model.left.insert((chunk, behind.encode()));
        }
        let before = self.model.repairs.get(&chunk).copied();
        let is_suspect = before == Some(true) && !verified;
        let is_due = due == Due::Yes || due == Due::AsBefore && before.is_some() || is_suspect;
        self.put_at(chunk, &Place { live_bytes: current.live_bytes, ..to.clone() }, is_due);
        if is_suspect {
            self.model.repairs.insert(chunk, true);
        }
        Ok(())
    }

    fn place_still(&self, chunk: Ino, from: &Place) -> Result<Place, Refusal> {
        let is_gone = *self.actual == Outcome::Refused(Refusal::PlaceChanged(chunk))
            && !self.model.chunks().contains(&chunk)
            || !self.model.may_be_there(chunk);
        let current = self.model.places.get(&chunk).filter(|_| !is_gone).cloned();
        let current = current.ok_or(Refusal::PlaceChanged(chunk))?;
        let is_same = current == Place { live_bytes: current.live_bytes, ..from.clone() };
        if is_same { Ok(current) } else { Err(Refusal::PlaceChanged(chunk)) }
    }

    fn split(&mut self, chunk: Ino, from: &Place, pieces: &[NewChunk]) -> Result<(), Refusal> {
        let is_file = |place: &Place| matches!(place.layout, Layout::Plain { .. });
        bound(is_file(from) && !pieces.iter().any(|piece| is_file(&piece.place)))?;
        let current = self.place_still(chunk, from)?;
        let runs = self.accept(pieces, current.len_bytes, None)?;
        self.keep(pieces);
        self.model.repairs.remove(&chunk);
        if !self.model.named().contains(&chunk) {
            // What is fading fades in pieces.
            self.model.fading_chunks.extend(runs.iter().map(|run| run.0));
            self.model.fading.extend(runs.iter().map(|run| (run.0, (run.0, Content::Chunk(run.0)))));
        }
        self.model.pieces.insert(chunk, runs);
        Ok(())
    }

    fn set_map(&mut self, from_epoch: u64, map: &Map) -> Result<(), Refusal> {
        let ids: BTreeSet<NodeId> = map.nodes.iter().map(|node| node.node).collect();
        let in_order = ids.into_iter().eq(map.nodes.iter().map(|node| node.node));
        bound(map.epoch > from_epoch && map.data_count > 0 && in_order)?;
        let epoch = self.model.map.as_ref().map_or(0, |map| map.epoch);
        if epoch != from_epoch {
            return Err(Refusal::MapChanged { epoch });
        }
        self.model.map = Some(map.clone());
        Ok(())
    }
}

fn check_key(key: &[u8]) -> Result<(), Refusal> {
    bound((1..=KEY_MAX_BYTES).contains(&key.len()))
}

/// Adds the newest version of a key. A null version takes the place of the one before it.
fn push(bucket: &mut ModelBucket, key: &[u8], version: ModelVersion) {
    let versions = bucket.keys.entry(key.to_vec()).or_default();
    versions.retain(|former| !(version.is_null && former.is_null));
    versions.push(version);
}

fn delete_version(
    bucket: &mut ModelBucket,
    key: &[u8],
    id: VersionId,
    time: Timestamp,
    bypass: bool,
) -> Result<Deleted, Refusal> {
    let nothing = Deleted { version: None, delete_marker: false };
    let Some(versions) = bucket.keys.get_mut(key) else { return Ok(nothing) };
    let Some(at) = versions.iter().position(|version| version.id() == id) else { return Ok(nothing) };
    let is_locked = versions[at]
        .attrs
        .retention
        .is_some_and(|retention| retention.until > time && !(bypass && retention.mode == RetentionMode::Governance));
    if is_locked || versions[at].attrs.hold {
        return Err(Refusal::Locked);
    }
    let version = versions.remove(at);
    if versions.is_empty() {
        bucket.keys.remove(key);
    }
    Ok(Deleted { version: Some(id), delete_marker: version.is_marker() })
}

fn check_precondition(demands: &Precondition, current: Option<&ModelVersion>) -> Result<(), Refusal> {
    let Precondition { if_match, if_none_match, if_match_size_bytes, if_match_modified_s } = demands;
    let Some(current) = current else {
        let demands_one = if_match.is_some() || if_match_size_bytes.is_some() || if_match_modified_s.is_some();
        return if demands_one { Err(Refusal::NoSuchKey) } else { Ok(()) };
    };
    let matches = |tags: &Vec<Option<ETag>>| tags.contains(&None) || tags.contains(&Some(current.etag));
    let checks = [
        ("If-Match", if_match.as_ref().is_none_or(matches)),
        ("If-None-Match", !if_none_match.as_ref().is_some_and(matches)),
        ("x-amz-if-match-size", if_match_size_bytes.is_none_or(|size| size == current.size_bytes)),
        (
            "x-amz-if-match-last-modified-time",
            if_match_modified_s.is_none_or(|seconds| seconds == current.modified.seconds()),
        ),
    ];
    match checks.iter().find(|(_, holds)| !holds) {
        Some((name, _)) => Err(Refusal::PreconditionFailed((*name).to_owned())),
        None => Ok(()),
    }
}

fn check_parts(listed: &[CompletePart], parts: &BTreeMap<u32, ModelPart>) -> Result<u64, Refusal> {
    if listed.is_empty() || !listed.is_sorted_by(|left, right| left.number < right.number) {
        return Err(Refusal::InvalidPartOrder);
    }
    let mut size_bytes = 0;
    for (index, part) in listed.iter().enumerate() {
        let number = part.number;
        let found = parts.get(&number).filter(|found| found.etag == part.etag);
        let found = found.ok_or(Refusal::InvalidPart { number })?;
        if found.size_bytes < PART_MIN_BYTES && index + 1 < listed.len() {
            return Err(Refusal::PartTooSmall { number, size_bytes: found.size_bytes });
        }
        size_bytes += found.size_bytes;
    }
    Ok(size_bytes)
}
