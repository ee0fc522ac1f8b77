//! Multipart uploads: parts come in like objects; Complete names them as one content and moves no data.

use std::ops::Range;

use bytes::Bytes;

use crate::catalog::{
    Attrs, Checksum, ChecksumAlgorithm, ChecksumKind, Command, CompletePart, ETag, Manifest, Outcome, Part, PartBody,
    Precondition, Refusal, Upload, Version, Written,
};
use crate::ids::Ino;
use crate::units::{PART_COUNT_MAX, PART_MAX_BYTES, PART_RUN_COUNT_MAX};

use super::bucket::{done, unexpected};
use super::copy::known;
use super::digest::{self, Digested, Digests, etag_of_parts, of_parts};
use super::key::Found;
use super::put::Received;
use super::read::{Content, Reader};
use super::sink::Fresh;
use super::{Completed, Error, Incoming, Promised, Source, Store, Target};

/// Parts without a checksum of the client's choice have this one, and so has the object.
const DEFAULT_CHECKSUM: (ChecksumAlgorithm, ChecksumKind) = (ChecksumAlgorithm::Crc64Nvme, ChecksumKind::FullObject);

/// Which part of which upload.
struct Slot {
    bucket: String,
    key: Bytes,
    upload: Ino,
    number: u32,
}

/// What is known of an upload when it is to be completed.
struct Standing {
    upload: Option<Upload>,
    parts: Vec<Part>,
    completed: Option<Written>,
}

impl Store {
    /// Begins an upload. `attrs.upload_checksum` says how its parts will be checked.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket)`; `Invalid`: S3 has no such checksum; `Unavailable`.
    pub async fn create_upload(&self, bucket: &str, key: &[u8], attrs: Attrs) -> Result<Ino, Error> {
        if let Some((algorithm, kind)) = attrs.upload_checksum
            && !digest::is_defined(algorithm, kind)
        {
            return Err(Error::Invalid(format!("{} has no checksum of kind {kind:?}", digest::name(algorithm))));
        }
        let fresh = self.fresh().await?;
        let (id, key) = (fresh.ino(), Bytes::copy_from_slice(key));
        let make = move |bucket| Command::CreateUpload { bucket, key: key.clone(), id, attrs: attrs.clone() };
        done(self.commit(Some(fresh), bucket.to_owned(), make).await?)?;
        Ok(id)
    }

    /// An upload in progress.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket | NoSuchUpload)`, `Unavailable`.
    pub async fn upload(&self, bucket: &str, key: &[u8], upload: Ino) -> Result<Upload, Error> {
        Ok(self.parts(bucket, key, upload, 0, 0).await?.0)
    }

    /// An upload in progress and its parts, at most `limit` with numbers above `after`, ascending.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket | NoSuchUpload)`, `Unavailable`.
    pub async fn parts(
        &self,
        bucket: &str,
        key: &[u8],
        upload: Ino,
        after: u32,
        limit: usize,
    ) -> Result<(Upload, Vec<Part>), Error> {
        let key = key.to_vec();
        self.in_bucket(bucket, move |view, bucket| {
            let found = view.upload(bucket, &key, upload)?.ok_or(Refusal::NoSuchUpload)?;
            let parts = if limit == 0 { Vec::new() } else { view.parts(upload, after, limit)? };
            Ok((found, parts))
        })
        .await
    }

    /// Stores a part. It has the upload's checksum whether or not it was asked for.
    ///
    /// # Errors
    /// `Refused(NoSuchUpload)`; `Invalid`: another checksum than the upload's; otherwise as [`Store::put`].
    pub async fn put_part(
        &self,
        bucket: &str,
        key: &[u8],
        upload: Ino,
        number: u32,
        incoming: Incoming,
        source: &mut impl Source,
    ) -> Result<Part, Error> {
        let slot = Slot::new(bucket, key, upload, number)?;
        let algorithms = part_algorithms(&self.upload(bucket, key, upload).await?, &incoming.algorithms)?;
        let permit = self.budget.take(self.receive_cost_bytes(incoming.len_bytes)).await?;
        let received = self.receive(&incoming, Digests::new(&algorithms), 0, permit, source).await?;
        self.name_received(slot, received).await
    }

    /// Makes `range` of `source` (or all of it) a part, moving no data (it is read where its digests are not known,
    /// and stored anew where it lies in the catalog or in very many pieces).
    ///
    /// # Errors
    /// `InvalidRange`; `TooLarge`; `Refused(SourceGone)`: it was deleted meanwhile; otherwise as [`Store::put_part`].
    pub async fn copy_part(
        &self,
        bucket: &str,
        key: &[u8],
        upload: Ino,
        number: u32,
        source: &Version,
        range: Option<Range<u64>>,
    ) -> Result<Part, Error> {
        self.room.admit(0)?;
        let slot = Slot::new(bucket, key, upload, number)?;
        let algorithms = part_algorithms(&self.upload(bucket, key, upload).await?, &[])?;
        let range = checked_range(range, source.size_bytes)?;
        let content = self.content(source).await?;
        let Some(runs) = shared_runs(&content.manifest, &range) else {
            return self.rewrite_part(slot, content, range, &algorithms).await;
        };
        let whole = range == (0..source.size_bytes);
        let digested = match known_digests(source, &algorithms).filter(|_| whole) {
            Some(digested) => digested,
            None => content.read(range).digest(&algorithms).await?,
        };
        let body = if runs.is_empty() { PartBody::Empty } else { PartBody::Share(runs) };
        self.name_part(slot, None, digested, body).await
    }

    /// Stores `range` of a content as a part of its own.
    async fn rewrite_part(
        &self,
        slot: Slot,
        content: Content,
        range: Range<u64>,
        algorithms: &[ChecksumAlgorithm],
    ) -> Result<Part, Error> {
        let len_bytes = range.end - range.start;
        let incoming = Incoming { len_bytes: Some(len_bytes), ..Incoming::default() };
        let permit =
            self.budget.take(self.receive_cost_bytes(Some(len_bytes)) + self.read_cost_bytes(len_bytes)).await?;
        let mut source = Rewritten { reader: content.read(range).with_memory_elsewhere(), error: None };
        match self.receive(&incoming, Digests::new(algorithms), 0, permit, &mut source).await {
            Err(Error::Source) => Err(source.error.unwrap_or(Error::Source)),
            received => self.name_received(slot, received?).await,
        }
    }

    async fn name_received(&self, slot: Slot, received: Received) -> Result<Part, Error> {
        let Received { digested, bytes, fresh } = received;
        let body = bytes.into_part(fresh.ino());
        self.name_part(slot, Some(fresh), digested, body).await
    }

    async fn name_part(
        &self,
        slot: Slot,
        fresh: Option<Fresh>,
        digested: Digested,
        body: PartBody,
    ) -> Result<Part, Error> {
        let Slot { bucket, key, upload, number } = slot;
        let Digested { len_bytes: size_bytes, md5, checksums, .. } = digested;
        let etag = ETag { md5, part_count: 0 };
        let part = Part { number, size_bytes, modified: self.now(), etag, checksums: checksums.clone() };
        let make = move |bucket| Command::PutPart {
            bucket,
            key: key.clone(),
            upload,
            number,
            size_bytes,
            etag,
            checksums: checksums.clone(),
            body: body.clone(),
        };
        done(self.commit(fresh, bucket, make).await?)?;
        Ok(part)
    }

    /// Names the parts as the object's content. `promised`: the whole's checksum, where the client gave one; each
    /// part may come with the checksums the client believes it has. `promised`: what the client says of the whole. A retry
    /// gets the first answer.
    ///
    /// # Errors
    /// `Refused(NoSuchUpload | InvalidPart | InvalidPartOrder | PartTooSmall | PreconditionFailed | ...)`,
    /// `BadDigest`, `Invalid`, `Unavailable`: it may have been completed.
    pub async fn complete_upload(
        &self,
        bucket: &str,
        key: &[u8],
        upload: Ino,
        parts: Vec<(CompletePart, Vec<Checksum>)>,
        promised: Promised,
        precondition: Precondition,
    ) -> Result<Completed, Error> {
        let standing = self.standing(bucket, key, upload).await?;
        let figures = match (&standing.upload, &standing.completed) {
            (Some(upload), _) => {
                let chosen = choose(&standing.parts, &parts)?;
                let size = chosen.iter().map(|part| part.size_bytes).sum();
                check_size(promised.size_bytes, size)?;
                check_parts_are_promised(upload, &parts)?;
                let promised = promised_checksum(upload, promised)?;
                Some((size, checksums_of_upload(upload, &chosen, promised)?))
            }
            (None, Some(_)) => None, // `apply` gives the first answer, or refuses another list
            (None, None) => return Err(Refusal::NoSuchUpload.into()),
        };
        let listed: Vec<CompletePart> = parts.into_iter().map(|(part, _)| part).collect();
        let etag = etag_of_parts(listed.iter().map(|part| &part.etag));
        let (name, sent) =
            (Bytes::copy_from_slice(key), figures.clone().map_or(Vec::new(), |(_, checksums)| checksums));
        let make = move |bucket| Command::CompleteUpload {
            bucket,
            key: name.clone(),
            upload,
            parts: listed.clone(),
            etag,
            checksums: sent.clone(),
            precondition: precondition.clone(),
        };
        let outcome = loop {
            match self.commit(None, bucket.to_owned(), make.clone()).await? {
                Outcome::Drained { .. } => {} // of parts that are not listed; there are more
                outcome => break outcome,
            }
        };
        let Outcome::Written(written) = outcome else { return Err(unexpected(&outcome)) };
        let figures = match figures {
            Some(figures) => Some(figures),
            None => self.figures_of(bucket, key, &written).await?,
        };
        Ok(Completed { written, figures })
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket | NoSuchUpload)`, `Unavailable`.
    pub async fn abort_upload(&self, bucket: &str, key: &[u8], upload: Ino) -> Result<(), Error> {
        let key = Bytes::copy_from_slice(key);
        let make = move |bucket| Command::AbortUpload { bucket, key: key.clone(), upload };
        done(self.propose_in(bucket, None, make).await?)?;
        self.died.notify_one();
        Ok(())
    }

    async fn standing(&self, bucket: &str, key: &[u8], upload: Ino) -> Result<Standing, Error> {
        let key = key.to_vec();
        self.in_bucket(bucket, move |view, bucket| {
            Ok(Standing {
                upload: view.upload(bucket, &key, upload)?,
                parts: view.parts(upload, 0, PART_COUNT_MAX as usize)?,
                completed: view.completed(bucket, &key, upload)?.map(|(_, written)| written),
            })
        })
        .await
    }

    /// Length and checksums of what a completion that was answered before had stored; none: it is gone.
    async fn figures_of(
        &self,
        bucket: &str,
        key: &[u8],
        written: &Written,
    ) -> Result<Option<(u64, Vec<Checksum>)>, Error> {
        let target = Target { bucket: bucket.to_owned(), key: key.to_vec(), version: Some(written.version) };
        match self.head(&target).await {
            Ok(Found { version, .. }) if version.etag == written.etag => {
                Ok(Some((version.size_bytes, version.attrs.checksums)))
            }
            Ok(_) | Err(Error::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Slot {
    fn new(bucket: &str, key: &[u8], upload: Ino, number: u32) -> Result<Self, Error> {
        if !(1..=PART_COUNT_MAX).contains(&number) {
            return Err(Error::Invalid(format!("part numbers are 1 to {PART_COUNT_MAX}")));
        }
        Ok(Slot { bucket: bucket.to_owned(), key: Bytes::copy_from_slice(key), upload, number })
    }
}

/// A part read from another content.
struct Rewritten {
    reader: Reader,
    error: Option<Error>,
}

impl Source for Rewritten {
    async fn next(&mut self) -> Result<Option<Bytes>, ()> {
        self.reader.next().await.transpose().map_err(|error| self.error = Some(error))
    }

    fn promised(&self) -> Vec<Checksum> {
        Vec::new()
    }
}

/// Which checksums a part gets: the upload's, and those asked for.
fn part_algorithms(upload: &Upload, asked: &[ChecksumAlgorithm]) -> Result<Vec<ChecksumAlgorithm>, Error> {
    let (needed, _) = upload.attrs.upload_checksum.unwrap_or(DEFAULT_CHECKSUM);
    if upload.attrs.upload_checksum.is_some() && !asked.is_empty() && !asked.contains(&needed) {
        return Err(Error::Invalid(format!("the upload's checksum is {}", digest::name(needed))));
    }
    Ok(asked.iter().copied().filter(|algorithm| *algorithm != needed).chain([needed]).collect())
}

fn checked_range(range: Option<Range<u64>>, size_bytes: u64) -> Result<Range<u64>, Error> {
    let range = range.unwrap_or(0..size_bytes);
    if range.end > size_bytes || range.start > range.end {
        return Err(Error::InvalidRange { size_bytes });
    }
    if range.end - range.start > PART_MAX_BYTES {
        return Err(Error::TooLarge { limit_bytes: PART_MAX_BYTES });
    }
    Ok(range)
}

/// The runs of chunks that `range` lies in; none where it cannot be shared but is read and written instead: inline, with
/// gaps, or in too many pieces.
fn shared_runs(manifest: &Manifest, range: &Range<u64>) -> Option<Vec<(Ino, u64, u64)>> {
    if range.is_empty() {
        return Some(Vec::new());
    }
    let Manifest::Extents(extents) = manifest else { return None };
    let mut runs = Vec::new();
    let mut position = range.start;
    for extent in extents {
        let start = extent.start_bytes.max(range.start);
        let end = (extent.start_bytes + extent.len_bytes).min(range.end);
        if start < end {
            if start != position {
                return None;
            }
            runs.push((extent.chunk, extent.chunk_start_bytes + (start - extent.start_bytes), end - start));
            position = end;
        }
    }
    (position == range.end && runs.len() <= PART_RUN_COUNT_MAX).then_some(runs)
}

/// Digests of a whole version, where all of them were kept.
fn known_digests(source: &Version, algorithms: &[ChecksumAlgorithm]) -> Option<Digested> {
    if source.etag.part_count > 0 {
        return None;
    }
    let checksums = algorithms.iter().map(|algorithm| known(source, *algorithm)).collect::<Option<_>>()?;
    Some(Digested { len_bytes: source.size_bytes, md5: source.etag.md5, checksums, state: None })
}

/// The stored parts that a Complete lists, in its order.
fn choose(stored: &[Part], listed: &[(CompletePart, Vec<Checksum>)]) -> Result<Vec<Part>, Error> {
    if listed.is_empty() || !listed.is_sorted_by(|a, b| a.0.number < b.0.number) {
        return Err(Refusal::InvalidPartOrder.into());
    }
    listed.iter().map(|(part, promised)| choose_one(stored, part, promised)).collect()
}

fn choose_one(stored: &[Part], listed: &CompletePart, promised: &[Checksum]) -> Result<Part, Error> {
    let number = listed.number;
    let missing = Error::Refused(Refusal::InvalidPart { number });
    let Ok(index) = stored.binary_search_by_key(&number, |part| part.number) else { return Err(missing) };
    let part = &stored[index];
    let holds = |promise: &Checksum| {
        part.checksums.iter().any(|kept| kept.algorithm == promise.algorithm && kept.value == promise.value)
    };
    if part.etag != listed.etag || !promised.iter().all(holds) {
        return Err(missing);
    }
    Ok(part.clone())
}

/// An upload that announced a checksum of its parts' checksums wants each of those again, as S3 does.
fn check_parts_are_promised(upload: &Upload, listed: &[(CompletePart, Vec<Checksum>)]) -> Result<(), Error> {
    let Some((algorithm, ChecksumKind::Composite)) = upload.attrs.upload_checksum else { return Ok(()) };
    let is_promised = |promised: &[Checksum]| promised.iter().any(|one| one.algorithm == algorithm);
    match listed.iter().find(|(_, promised)| !is_promised(promised)) {
        None => Ok(()),
        Some((part, _)) => Err(Error::Invalid(format!(
            "The upload was created using a {} checksum. The complete request must include the checksum for each part. \
             It was missing for part {} in the request.",
            digest::name(algorithm).to_lowercase(),
            part.number
        ))),
    }
}

fn check_size(promised: Option<u64>, size_bytes: u64) -> Result<(), Error> {
    match promised {
        Some(promised) if promised != size_bytes => {
            Err(Error::Invalid(format!("the parts are {size_bytes} bytes, not {promised}")))
        }
        _ => Ok(()),
    }
}

/// What was promised of the whole, of the kind that was said, or else that the upload has.
fn promised_checksum(upload: &Upload, promised: Promised) -> Result<Option<Checksum>, Error> {
    let (algorithm, kind) = upload.attrs.upload_checksum.unwrap_or(DEFAULT_CHECKSUM);
    let is_own = promised.checksum.as_ref().is_none_or(|checksum| checksum.algorithm == algorithm);
    match (promised.kind, promised.checksum) {
        (Some(said), _) if is_own && said != kind => Err(Error::BadDigest { what: "checksum type" }),
        (said, Some(checksum)) => {
            let own = if is_own { kind } else { checksum.kind };
            Ok(Some(Checksum { kind: said.unwrap_or(own), ..checksum }))
        }
        (_, None) => Ok(None),
    }
}

/// The checksums of the whole: the upload's, and the one that was promised if that is another.
fn checksums_of_upload(upload: &Upload, parts: &[Part], promised: Option<Checksum>) -> Result<Vec<Checksum>, Error> {
    let (algorithm, kind) = upload.attrs.upload_checksum.unwrap_or(DEFAULT_CHECKSUM);
    let own = of_parts(algorithm, kind, parts);
    let Some(promised) = promised else { return Ok(own.into_iter().collect()) };
    let what = digest::name(promised.algorithm);
    let same = own.clone().filter(|own| (own.algorithm, own.kind) == (promised.algorithm, promised.kind));
    let computed = same.or_else(|| of_parts(promised.algorithm, promised.kind, parts));
    match computed {
        None => Err(Error::Invalid(format!("The parts have no {what} checksum of that type."))),
        Some(computed) if computed.value != promised.value => Err(Error::BadDigest { what }),
        Some(computed) if upload.attrs.upload_checksum.is_none() => Ok(vec![computed]),
        Some(computed) => Ok(own.into_iter().filter(|own| *own != computed).chain([computed.clone()]).collect()),
    }
}
