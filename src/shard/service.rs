//! A shard node as others call it.
//!
//! Invariants
//! - A shard that comes in several calls is held between them; given up when nobody goes on with it in time.
//! - Only the answer 0 to `put` or `finish` means that the shard is durable. After `Failed` it may be there all the same:
//!   who asked deletes it, or leaves it to the sweep.
//! - Writing is refused while the disk has less room than is kept free, deleting and reading never.
//! - Memory is bounded: bytes are taken off the network only once there is a permit for them, and given to a reader's
//!   connection with theirs. Readers and writers have permits apart, and deletions need none: nobody who gives room back
//!   waits for who takes it. A shard between two calls holds no bytes.
//! - Every refusal has its status; what is `Busy` had no effect.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Error;
use super::store::Shards;
use super::wire::{
    self, Append, Bookmark, FRAME_MAX_BYTES, FRAMES_MAX, Failure, Finish, Info, List, Method, NodeStatus, Put, Read,
    Scrub, ScrubReply,
};
use super::writing::Writing;
use crate::ids::ShardId;
use crate::segment::format;
use crate::transport::{Body, BodyStream, Call, Peer, Reply, Service};
use crate::units::{CHUNK_BYTES, MIB};

/// Most bytes of frames that one call brings.
const CALL_MAX_BYTES: u64 = 4 << 20;
/// Most rows of a list.
const LIST_MAX: u32 = 10_000;
/// Most bytes that one scrub reads.
const SCRUB_MAX_BYTES: u64 = 64 << 20;

/// How much a shard node takes, and holds in memory, for its callers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceLimits {
    /// Frames on their way in, bytes; more wait.
    pub write_bytes: u64,
    /// Frames on their way out, bytes; more wait. One read alone may be longer.
    pub read_bytes: u64,
    /// Shards that come in several calls, at once; more are refused.
    pub half_way_count: usize,
    /// Length of a shard; longer ones are refused.
    pub shard_max_bytes: u64,
    /// A shard with which nobody goes on for so long is given up.
    pub patience: Duration,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        ServiceLimits {
            write_bytes: 16 * MIB,
            read_bytes: 32 * MIB,
            half_way_count: 512,
            // A whole chunk, and what its frames have beyond it.
            shard_max_bytes: CHUNK_BYTES + MIB,
            patience: Duration::from_secs(60),
        }
    }
}

/// Permits for bytes held in memory.
struct Permits {
    kib: Arc<Semaphore>,
    all_kib: u32,
}

impl Permits {
    fn new(len_bytes: u64) -> Permits {
        let all_kib = u32::try_from(len_bytes / 1024).unwrap_or(u32::MAX).max(1);
        Permits { kib: Arc::new(Semaphore::new(all_kib as usize)), all_kib }
    }

    /// Waits for a permit for so many bytes, or for all there are.
    async fn take(&self, len_bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
        let kib = u32::try_from(len_bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(self.all_kib);
        Ok(self.kib.clone().acquire_many_owned(kib).await.map_err(|_| Error::Closed)?)
    }
}

/// Between two looks whether shards are half-way.
const DRAIN_PAUSE: Duration = Duration::from_millis(20);

/// Answers calls for one node's shards; clones are the same.
#[derive(Clone)]
pub struct ShardService {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Shards,
    dir: PathBuf,
    /// Room on the disk that is left free, bytes.
    reserve_bytes: u64,
    /// A random number of this start.
    start: u64,
    limits: ServiceLimits,
    writes: Permits,
    reads: Permits,
    half_way: Mutex<HashMap<ShardId, HalfWay>>,
    /// One for each shard that may be half-way.
    half_way_places: Arc<Semaphore>,
    /// One: a disk has one head.
    scrubs: Arc<Semaphore>,
}

/// A shard between two calls.
struct HalfWay {
    writing: Writing,
    /// Calls that were served.
    number: u32,
    len_bytes: u64,
    frame_count: usize,
    _place: OwnedSemaphorePermit,
    touched: Instant,
}

/// Why a call has no answer of its own.
enum Refusal {
    Malformed(&'static str),
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Error(error)
    }
}

impl Refusal {
    fn invalid(shard: ShardId, what: &str) -> Refusal {
        Error::Invalid { shard, what: what.to_owned() }.into()
    }
}

type Answer = Result<(Bytes, Body), Refusal>;

fn done() -> Answer {
    Ok((Bytes::new(), Body::empty()))
}

fn decoded<T: DeserializeOwned>(header: &[u8]) -> Result<T, Refusal> {
    wire::decode(header).ok_or(Refusal::Malformed("the header is not what its method takes"))
}

async fn blocking<T: Send + 'static>(job: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(job).await.map_err(|_| Error::Closed)?.map_err(Refusal::Error)
}

impl ShardService {
    /// Serves `shards`, which lie in `dir`; `reserve_bytes` of its disk are left free.
    pub fn new(shards: Shards, dir: impl Into<PathBuf>, reserve_bytes: u64, start: u64) -> ShardService {
        ShardService::with_limits(shards, dir, (reserve_bytes, start), ServiceLimits::default())
    }

    /// Like [`ShardService::new`], within `limits`. The pair: `reserve_bytes` and `start`.
    pub fn with_limits(
        shards: Shards,
        dir: impl Into<PathBuf>,
        (reserve_bytes, start): (u64, u64),
        limits: ServiceLimits,
    ) -> ShardService {
        let inner = Inner {
            shards,
            dir: dir.into(),
            reserve_bytes,
            start,
            limits,
            writes: Permits::new(limits.write_bytes),
            reads: Permits::new(limits.read_bytes),
            half_way: Mutex::default(),
            half_way_places: Arc::new(Semaphore::new(limits.half_way_count)),
            scrubs: Arc::new(Semaphore::new(1)),
        };
        ShardService { inner: Arc::new(inner) }
    }

    /// Takes no more shards that come in several calls; returns when those that are half-way have ended, or after `patience`.
    /// Their writers would have no other way than to begin their chunk again.
    pub async fn drain(&self, patience: Duration) {
        let places = &self.inner.half_way_places;
        places.close();
        let ended = async {
            while places.available_permits() < self.inner.limits.half_way_count {
                tokio::time::sleep(DRAIN_PAUSE).await;
            }
        };
        if tokio::time::timeout(patience, ended).await.is_err() {
            tracing::info!("shards that were half-way in are cut off");
        }
    }

    /// What it serves.
    pub fn shards(&self) -> &Shards {
        &self.inner.shards
    }

    /// Gives up the shards with which nobody has gone on; [`ShardService::run`] does so every few seconds.
    pub fn expire(&self) {
        let (now, patience) = (Instant::now(), self.inner.limits.patience);
        self.half_way(|half_way| half_way.retain(|_, held| now.duration_since(held.touched) < patience));
    }

    fn half_way<T>(&self, use_them: impl FnOnce(&mut HashMap<ShardId, HalfWay>) -> T) -> T {
        use_them(&mut self.inner.half_way.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn answer(&self, call: Call) -> Answer {
        let method = Method::of(call.method).ok_or(Refusal::Malformed("no such method"))?;
        match method {
            Method::Put => self.put(decoded(&call.header)?, call.body).await,
            Method::Append => self.append(decoded(&call.header)?, call.body).await,
            Method::Finish => self.finish(decoded(&call.header)?).await,
            Method::Abandon => self.abandon(decoded(&call.header)?),
            Method::Read => self.read(decoded(&call.header)?).await,
            Method::Info => self.info(decoded(&call.header)?).await,
            Method::Delete => self.delete(decoded(&call.header)?).await,
            Method::List => self.list(decoded(&call.header)?).await,
            Method::Status => self.status().await,
            Method::Scrub => self.scrub(decoded(&call.header)?).await,
            Method::Bookmark => self.bookmark().await,
            Method::Note => self.note(decoded(&call.header)?).await,
        }
    }

    async fn put(&self, put: Put, body: Body) -> Answer {
        let _permit = self.admit(&put, body.len_bytes, 0, 0).await?;
        let mut writing = self.inner.shards.write(put.shard, put.origin());
        take_frames(&mut writing, &put, body).await?;
        writing.finish().await?;
        done()
    }

    async fn append(&self, Append { number, put }: Append, body: Body) -> Answer {
        // Out of the table while it is worked on: a second call for it meets nothing, and is refused.
        let held = self.half_way(|half_way| half_way.remove(&put.shard));
        let mut held = match (held, number) {
            (None, 0) => self.begin(&put)?,
            (Some(held), number) if held.number == number => held,
            _ => return Err(Refusal::invalid(put.shard, "its frames did not come in order")),
        };
        let _permit = self.admit(&put, body.len_bytes, held.len_bytes, held.frame_count).await?;
        take_frames(&mut held.writing, &put, body).await?;
        held.writing.settle().await?;
        (held.number, held.touched) = (held.number + 1, Instant::now());
        (held.len_bytes, held.frame_count) = (held.len_bytes + put.len_bytes(), held.frame_count + put.frames.len());
        self.half_way(|half_way| half_way.insert(put.shard, held));
        done()
    }

    fn begin(&self, put: &Put) -> Result<HalfWay, Refusal> {
        let place = self.inner.half_way_places.clone().try_acquire_owned();
        let place = place.map_err(|_| Error::Busy("it is ending, or too many shards are half-way in"))?;
        let writing = self.inner.shards.write(put.shard, put.origin());
        Ok(HalfWay { writing, number: 0, len_bytes: 0, frame_count: 0, _place: place, touched: Instant::now() })
    }

    async fn finish(&self, Finish { shard, number }: Finish) -> Answer {
        let held = self.half_way(|half_way| half_way.remove(&shard));
        match held {
            Some(held) if held.number == number => held.writing.finish().await?,
            _ => return Err(Refusal::invalid(shard, "not all of its frames are here")),
        }
        done()
    }

    fn abandon(&self, shard: ShardId) -> Answer {
        self.half_way(|half_way| half_way.remove(&shard));
        done()
    }

    async fn read(&self, Read { shard, start, end }: Read) -> Answer {
        let (start, end) = (start as usize, end as usize);
        let count = end.saturating_sub(start);
        if count > FRAMES_MAX {
            return Err(Refusal::invalid(shard, "more frames than one call may read"));
        }
        let permit = self.inner.reads.take((count * format::FRAME_MAX_BYTES) as u64).await?;
        let shards = self.inner.shards.clone();
        let (bytes, lens) = blocking(move || shards.read(shard, start..end)).await?;
        Ok((wire::encode(&lens), with_permit(bytes, permit)))
    }

    async fn scrub(&self, Scrub { after, budget_bytes }: Scrub) -> Answer {
        let one = self.inner.scrubs.clone().try_acquire_owned();
        let one = one.map_err(|_| Error::Busy("it is being scrubbed already"))?;
        let shards = self.inner.shards.clone();
        let scrub = move || {
            // Whether or not anybody still waits for it.
            let _one = one;
            shards.scrub(after, budget_bytes.min(SCRUB_MAX_BYTES))
        };
        let scrubbed = blocking(scrub).await?;
        let damaged = scrubbed.damaged.iter().map(|row| (row.shard, row.origin.chunk, row.origin.slot)).collect();
        let reply = ScrubReply { next: scrubbed.next, checked_bytes: scrubbed.checked_bytes, damaged };
        Ok((wire::encode(&reply), Body::empty()))
    }

    async fn bookmark(&self) -> Answer {
        let shards = self.inner.shards.clone();
        let bookmark = blocking(move || shards.bookmark()).await?;
        Ok((wire::encode(&bookmark), Body::empty()))
    }

    async fn note(&self, bookmark: Bookmark) -> Answer {
        let shards = self.inner.shards.clone();
        blocking(move || shards.note(bookmark)).await?;
        done()
    }

    async fn info(&self, shard: ShardId) -> Answer {
        let shards = self.inner.shards.clone();
        let info = blocking(move || shards.info(shard)).await?;
        let info = Info { chunk: info.origin.chunk, slot: info.origin.slot, frames: info.frames };
        Ok((wire::encode(&info), Body::empty()))
    }

    async fn delete(&self, shards: Vec<ShardId>) -> Answer {
        self.half_way(|half_way| shards.iter().for_each(|shard| drop(half_way.remove(shard))));
        self.inner.shards.delete(&shards).await?;
        done()
    }

    async fn list(&self, List { after, limit }: List) -> Answer {
        let shards = self.inner.shards.clone();
        let listed = blocking(move || shards.list(after, limit.min(LIST_MAX) as usize)).await?;
        let rows: Vec<_> = listed.iter().map(|row| (row.shard, row.origin.chunk, row.origin.slot)).collect();
        Ok((wire::encode(&rows), Body::empty()))
    }

    async fn status(&self) -> Answer {
        let usage = self.inner.shards.usage();
        let (free_bytes, total_bytes) = self.room().await?;
        let status = NodeStatus {
            shard_count: usage.shard_count,
            live_bytes: usage.live_bytes,
            free_bytes,
            total_bytes,
            start: self.inner.start,
        };
        Ok((wire::encode(&status), Body::empty()))
    }

    /// Room that may be used, and all of the disk, bytes.
    async fn room(&self) -> Result<(u64, u64), Refusal> {
        let (dir, reserve_bytes) = (self.inner.dir.clone(), self.inner.reserve_bytes);
        blocking(move || {
            let stat = nix::sys::statvfs::statvfs(&dir).map_err(|errno| Error::Index(errno.to_string()))?;
            let free_bytes = stat.blocks_available() * stat.fragment_size();
            Ok((free_bytes.saturating_sub(reserve_bytes), stat.blocks() * stat.fragment_size()))
        })
        .await
    }

    /// Whether these frames may come, and a permit to take them off the network. `before_bytes`, `before_count`: of the
    /// shard's frames that came before.
    async fn admit(
        &self,
        put: &Put,
        body_bytes: u64,
        before_bytes: u64,
        before_count: usize,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        check(put, body_bytes)?;
        let is_too_long = before_bytes + put.len_bytes() > self.inner.limits.shard_max_bytes;
        if is_too_long || before_count + put.frames.len() > FRAMES_MAX {
            return Err(Refusal::invalid(put.shard, "longer than a shard may be"));
        }
        let (free_bytes, _) = self.room().await?;
        if free_bytes < put.len_bytes() {
            return Err(Error::Full.into());
        }
        self.inner.writes.take(put.len_bytes()).await
    }
}

/// Bytes that keep their permit until they are handed over, or nobody wants them.
fn with_permit(bytes: Bytes, permit: OwnedSemaphorePermit) -> Body {
    let len_bytes = bytes.len() as u64;
    let bytes = Some(bytes).filter(|bytes| !bytes.is_empty());
    let stream = stream::unfold((bytes, permit), |(bytes, permit)| async move { Some((Ok(bytes?), (None, permit))) });
    Body { len_bytes, stream: Box::pin(stream) }
}

/// Whether a body is what its header says.
fn check(put: &Put, body_bytes: u64) -> Result<(), Refusal> {
    if body_bytes != put.len_bytes() {
        return Err(Refusal::invalid(put.shard, "the body is not as long as its frames"));
    }
    if put.frames.iter().any(|len| *len == 0 || *len > FRAME_MAX_BYTES) {
        return Err(Refusal::invalid(put.shard, "a frame is empty, or too long"));
    }
    if put.len_bytes() > CALL_MAX_BYTES {
        return Err(Refusal::invalid(put.shard, "more frames than one call may bring"));
    }
    Ok(())
}

/// Cuts a body into frames and adds them.
async fn take_frames(writing: &mut Writing, put: &Put, body: Body) -> Result<(), Refusal> {
    let mut stream = body.stream;
    let mut held = BytesMut::new();
    for len in &put.frames {
        let frame = next_frame(&mut stream, &mut held, *len as usize).await;
        let frame = frame.ok_or_else(|| Refusal::invalid(put.shard, "the body ended early"))?;
        writing.push(frame).await?;
    }
    Ok(())
}

async fn next_frame(stream: &mut BodyStream, held: &mut BytesMut, len: usize) -> Option<Bytes> {
    while held.len() < len {
        held.extend_from_slice(&stream.next().await?.ok()?);
    }
    Some(held.split_to(len).freeze())
}

impl Service for ShardService {
    fn serve<'a>(&'a self, _from: &'a [Peer], call: Call) -> BoxFuture<'a, Reply> {
        async move {
            let (status, reason) = match self.answer(call).await {
                Ok((header, body)) => return Reply { status: 0, header, body },
                Err(Refusal::Malformed(what)) => (Failure::Malformed, what.to_owned()),
                Err(Refusal::Error(error)) => (Failure::from(&error), error.to_string()),
            };
            Reply { status: status as u16, header: reason.into(), body: Body::empty() }
        }
        .boxed()
    }
}
