//! A shard node as others call it.
//!
//! Invariants
//! - A shard that comes in several calls is held between them; given up when nobody goes on with it in time.
//! - Only the answer 0 to `put` or `finish` means that the shard is durable. After `Failed` it may be there all the same:
//!   who asked deletes it, or leaves it to the sweep.
//! - Writing is refused while the disk has less room than is kept free, deleting and reading never.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::Error;
use super::store::Shards;
use super::wire::{self, Append, Failure, Finish, Info, List, Method, NodeStatus, Put, Read};
use super::writing::Writing;
use crate::ids::ShardId;
use crate::transport::{Body, BodyStream, Call, Peer, Reply, Service};

/// A shard with which nobody goes on for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest frame, bytes: a segment's, with room to spare.
const FRAME_MAX_BYTES: u32 = 128 << 10;
/// Most bytes of frames that one call brings.
const CALL_MAX_BYTES: u64 = 4 << 20;
/// Most rows of a list.
const LIST_MAX: u32 = 10_000;

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
    half_way: Mutex<HashMap<ShardId, HalfWay>>,
}

/// A shard between two calls.
struct HalfWay {
    writing: Writing,
    /// Calls that were served.
    number: u32,
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
    pub fn new(shards: Shards, dir: impl Into<PathBuf>, reserve_bytes: u64) -> ShardService {
        let inner = Inner { shards, dir: dir.into(), reserve_bytes, half_way: Mutex::default() };
        ShardService { inner: Arc::new(inner) }
    }

    /// Gives up the shards with which nobody has gone on; to be called every few seconds.
    pub fn expire(&self) {
        let now = Instant::now();
        self.half_way(|half_way| half_way.retain(|_, held| now.duration_since(held.touched) < PATIENCE));
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
        }
    }

    async fn put(&self, put: Put, body: Body) -> Answer {
        self.admit(put.len_bytes()).await?;
        let mut writing = self.inner.shards.write(put.shard, put.origin());
        take_frames(&mut writing, &put, body).await?;
        writing.finish().await?;
        done()
    }

    async fn append(&self, Append { number, put }: Append, body: Body) -> Answer {
        self.admit(put.len_bytes()).await?;
        // Out of the table while it is worked on: a second call for it meets nothing, and is refused.
        let held = self.half_way(|half_way| half_way.remove(&put.shard));
        let mut writing = match (held, number) {
            (None, 0) => self.inner.shards.write(put.shard, put.origin()),
            (Some(held), number) if held.number == number => held.writing,
            _ => return Err(Refusal::invalid(put.shard, "its frames did not come in order")),
        };
        take_frames(&mut writing, &put, body).await?;
        let held = HalfWay { writing, number: number + 1, touched: Instant::now() };
        self.half_way(|half_way| half_way.insert(put.shard, held));
        done()
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
        let shards = self.inner.shards.clone();
        let (bytes, lens) = blocking(move || shards.read(shard, start as usize..end as usize)).await?;
        Ok((wire::encode(&lens), bytes.into()))
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
        let status =
            NodeStatus { shard_count: usage.shard_count, live_bytes: usage.live_bytes, free_bytes, total_bytes };
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

    async fn admit(&self, len_bytes: u64) -> Result<(), Refusal> {
        let (free_bytes, _) = self.room().await?;
        if free_bytes < len_bytes { Err(Error::Full.into()) } else { Ok(()) }
    }
}

/// Cuts a body into frames and adds them.
async fn take_frames(writing: &mut Writing, put: &Put, body: Body) -> Result<(), Refusal> {
    if body.len_bytes != put.len_bytes() {
        return Err(Refusal::invalid(put.shard, "the body is not as long as its frames"));
    }
    if put.frames.iter().any(|len| *len == 0 || *len > FRAME_MAX_BYTES) {
        return Err(Refusal::invalid(put.shard, "a frame is empty, or too long"));
    }
    if put.len_bytes() > CALL_MAX_BYTES {
        return Err(Refusal::invalid(put.shard, "more frames than one call may bring"));
    }
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
