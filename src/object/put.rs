//! Bytes in: received, digested and stored under a bounded amount of memory; then named by one command.
//!
//! A body is taken in batches. While one batch is digested and written by a blocking job, the next one comes in; a
//! slow sender holds no thread. Whoever is waiting when the caller goes away is a job, and what a job returns to
//! nobody is dropped where it ran: the temporary file goes, the id is abandoned, the memory is given back.

use bytes::Bytes;

use crate::catalog::{Body, Checksum, ChecksumAlgorithm, Command, ETag, Outcome};
use crate::ids::BucketId;
use crate::units::PART_MAX_BYTES;

use super::bucket::{Failure, unexpected};
use super::budget::Permit;
use super::digest::{Digested, Digests};
use super::sink::{Batch, Fresh, Held, Sink};
use super::{Error, Incoming, Put, Source, Store, Stored, joined};

/// What comes in before it is handed on.
const BATCH_BYTES: u64 = 256 << 10;
/// What receiving a long body holds before it is handed on: a batch at work, and one coming in.
const RECEIVE_BYTES: u64 = 2 * BATCH_BYTES;

/// A body that was received whole and is what it was promised to be.
pub(super) struct Received {
    pub(super) digested: Digested,
    pub(super) bytes: Held,
    pub(super) fresh: Fresh,
}

/// A body on its way in.
struct Intake<'a, S> {
    source: &'a mut S,
    announced_bytes: Option<u64>,
    received_bytes: u64,
}

impl<S: Source> Intake<'_, S> {
    /// The next runs: at least [`BATCH_BYTES`] of them, or all that is left.
    async fn batch(&mut self) -> Result<Batch, Error> {
        let mut batch = Batch { runs: Vec::new(), len_bytes: 0, is_last: false };
        while batch.len_bytes < BATCH_BYTES {
            let Some(run) = self.source.next().await.map_err(|()| Error::Source)? else {
                self.check_end()?;
                batch.is_last = true;
                break;
            };
            self.received_bytes += run.len() as u64;
            self.check_length()?;
            batch.len_bytes += run.len() as u64;
            batch.runs.push(run);
        }
        Ok(batch)
    }

    fn check_length(&self) -> Result<(), Error> {
        let received = self.received_bytes;
        match self.announced_bytes {
            Some(announced) if received > announced => Err(Error::WrongLength { announced, received }),
            _ if received > PART_MAX_BYTES => Err(Error::TooLarge { limit_bytes: PART_MAX_BYTES }),
            _ => Ok(()),
        }
    }

    fn check_end(&self) -> Result<(), Error> {
        let received = self.received_bytes;
        match self.announced_bytes {
            Some(announced) if announced != received => Err(Error::WrongLength { announced, received }),
            _ => Ok(()),
        }
    }
}

/// Which checksums to keep where none was asked for.
pub(super) fn or_default(algorithms: &[ChecksumAlgorithm]) -> Vec<ChecksumAlgorithm> {
    match algorithms {
        [] => vec![ChecksumAlgorithm::Crc64Nvme],
        algorithms => algorithms.to_vec(),
    }
}

impl Store {
    /// Stores an object: durable, and named, when it returns. When it fails, or is dropped before the whole body
    /// came, nothing remains.
    ///
    /// # Errors
    /// `Refused(NoSuchBucket | PreconditionFailed | ...)`, `Source`, `BadDigest`, `WrongLength`, `TooLarge`,
    /// `Invalid`, `Full`, `Overloaded`, `Io`. `Unavailable`: it may have been stored.
    pub async fn put(&self, put: Put, incoming: Incoming, source: &mut impl Source) -> Result<Stored, Error> {
        self.expect_bucket(&put.bucket, put.owner.as_deref()).await?;
        let permit = self.budget.take(self.receive_cost_bytes(incoming.len_bytes)).await?;
        let algorithms = or_default(&incoming.algorithms);
        let received =
            self.receive(&incoming, Digests::new(&algorithms), self.config.inline_bytes, permit, source).await?;
        let Received { digested, bytes, fresh } = received;
        let body = bytes.into_body();
        let etag = ETag { md5: digested.md5, part_count: 0 };
        self.name(put, fresh, body, etag, digested.len_bytes, digested.checksums).await
    }

    /// Puts `body` under a key.
    pub(super) async fn name(
        &self,
        put: Put,
        fresh: Fresh,
        body: Body,
        etag: ETag,
        size_bytes: u64,
        checksums: Vec<Checksum>,
    ) -> Result<Stored, Error> {
        let Put { bucket, owner, key, mut attrs, precondition } = put;
        attrs.checksums = checksums.clone();
        // What several names of a source show is not what this one will.
        attrs.linked = None;
        let (ino, key) = (fresh.ino(), Bytes::from(key));
        let make = move |bucket| Command::Put {
            bucket,
            key: key.clone(),
            ino,
            size_bytes,
            etag,
            attrs: attrs.clone(),
            body: body.clone(),
            precondition: precondition.clone(),
        };
        match self.commit_for(owner, Some(fresh), bucket, make).await? {
            Outcome::Written(written) => Ok(Stored { written, size_bytes, checksums }),
            outcome => Err(unexpected(&outcome)),
        }
    }

    /// What receiving a body of this length holds in memory.
    pub(super) fn receive_cost_bytes(&self, len_bytes: Option<u64>) -> u64 {
        let coming_in = len_bytes.map_or(RECEIVE_BYTES, |len| len.saturating_mul(2).clamp(1, RECEIVE_BYTES));
        match len_bytes.is_some_and(|len| len <= self.config.inline_bytes) {
            true => coming_in,
            false => coming_in + self.chunks.write_cost_bytes(len_bytes),
        }
    }

    /// Receives a body; up to `inline_max_bytes` of it stay in memory.
    pub(super) async fn receive<S: Source>(
        &self,
        incoming: &Incoming,
        digests: Digests,
        inline_max_bytes: u64,
        permit: Permit,
        source: &mut S,
    ) -> Result<Received, Error> {
        let announced_bytes = incoming.len_bytes;
        if announced_bytes.is_some_and(|len| len > PART_MAX_BYTES) {
            return Err(Error::TooLarge { limit_bytes: PART_MAX_BYTES });
        }
        self.room.admit(announced_bytes.unwrap_or(0))?;
        let id = self.session.fresh_id().await?;
        let mut intake = Intake { source, announced_bytes, received_bytes: 0 };
        let batch = intake.batch().await?;
        if batch.is_last && batch.len_bytes <= inline_max_bytes {
            let fresh = Fresh::bare(id, Some(permit));
            return receive_inline(batch, digests, fresh, incoming.md5, &intake.source.promised());
        }
        let batch = self.admit_unannounced(&intake, batch)?;
        let sink = self.chunks.sink(&self.session, digests, announced_bytes, id, permit)?;
        self.receive_long(sink, batch, intake, incoming.md5).await
    }

    /// Receives the batches of a long body into chunks.
    async fn receive_long<S: Source>(
        &self,
        mut sink: Sink,
        mut batch: Batch,
        mut intake: Intake<'_, S>,
        md5: Option<[u8; 16]>,
    ) -> Result<Received, Error> {
        while !batch.is_last {
            let at_work = sink.push(batch);
            let next = intake.batch().await.and_then(|next| self.admit_unannounced(&intake, next));
            sink = joined(at_work).await??;
            batch = match next {
                Ok(next) => next,
                Err(error) => {
                    sink.discard().await;
                    return Err(error);
                }
            };
        }
        let promised = intake.source.promised();
        let (digested, bytes, fresh) = sink.conclude(batch, md5, promised).await?;
        Ok(Received { digested, bytes, fresh })
    }

    /// Looks for room for a batch, unless there was room for the whole body when it began.
    fn admit_unannounced<S>(&self, intake: &Intake<'_, S>, batch: Batch) -> Result<Batch, Error> {
        if intake.announced_bytes.is_none() {
            self.room.admit(batch.len_bytes)?;
        }
        Ok(batch)
    }

    /// Proposes a command, and the fresh id it names if it does, in a task of its own: once proposed, its fate is
    /// waited for even if the caller goes away. A refusal is an error.
    pub(super) async fn commit(
        &self,
        fresh: Option<Fresh>,
        bucket: String,
        make: impl Fn(BucketId) -> Command + Send + Sync + 'static,
    ) -> Result<Outcome, Error> {
        self.commit_for(None, fresh, bucket, make).await
    }

    /// As [`Store::commit`], in a bucket that must be `owner`'s, if one is named.
    async fn commit_for(
        &self,
        owner: Option<String>,
        fresh: Option<Fresh>,
        bucket: String,
        make: impl Fn(BucketId) -> Command + Send + Sync + 'static,
    ) -> Result<Outcome, Error> {
        let store = self.clone();
        let task = tokio::spawn(async move {
            let mut fresh = fresh;
            if let Some(fresh) = &mut fresh {
                fresh.propose();
            }
            let answer = store.propose_in_owners(&bucket, owner.as_deref(), fresh.as_ref(), make).await;
            match (&answer, fresh) {
                (_, None) => {}
                (Ok(_), Some(fresh)) => fresh.keep(),
                (Err(Failure::Never(_)), Some(fresh)) => fresh.discard().await,
                // It may be named yet.
                (Err(Failure::Unknown(_)), Some(_)) => {}
            }
            store.died.notify_one();
            answer
        });
        Ok(joined(task).await??)
    }

    /// A fresh id without a file.
    pub(super) async fn fresh(&self) -> Result<Fresh, Error> {
        Ok(Fresh::bare(self.session.fresh_id().await?, None))
    }
}

fn receive_inline(
    batch: Batch,
    mut digests: Digests,
    fresh: Fresh,
    md5: Option<[u8; 16]>,
    promised: &[Checksum],
) -> Result<Received, Error> {
    batch.runs.iter().for_each(|run| digests.update(run));
    let digested = digests.finish();
    digested.check(md5, promised)?;
    // Copied even if it is one run: a run may be a small part of a large buffer of its sender.
    let bytes = Bytes::from(batch.runs.concat());
    Ok(Received { digested, bytes: Held::Inline(bytes), fresh })
}
