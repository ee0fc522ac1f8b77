//! Where the batches of a long body go: digested, and stored under fresh ids.
//!
//! Invariant: what was stored under a fresh id and is dropped before a command that names it was proposed is removed.
//! From the proposal on it is left, however its task ends, unless the command was refused for sure. The sweep finds what is
//! left over.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::catalog::{Body, Checksum, Layout, NewChunk, PartBody, Place};
use crate::file::{Files, Writer};
use crate::ids::{Ino, NodeId, SessionId, ShardId};
use crate::units::CHUNK_BYTES;

use super::budget::Permit;
use super::digest::{Digested, Digests};
use super::session::{FreshId, Session};
use super::striped::{ChunkWriter, Striper};
use super::{Error, blocking, joined};

/// Some runs of a body.
pub(super) struct Batch {
    pub(super) runs: Vec<Bytes>,
    pub(super) len_bytes: u64,
    pub(super) is_last: bool,
}

/// Where the received bytes are.
pub(super) enum Held {
    /// In memory, short enough for the catalog.
    Inline(Bytes),
    /// In one durable chunk under the fresh id.
    Chunk(Place),
    /// In durable chunks, in order.
    Chunks(Vec<NewChunk>),
}

impl Held {
    /// As an object's body.
    pub(super) fn into_body(self) -> Body {
        match self {
            Held::Inline(bytes) if bytes.is_empty() => Body::Empty,
            Held::Inline(bytes) => Body::Inline(bytes),
            Held::Chunk(place) => Body::Chunk(place),
            Held::Chunks(chunks) => Body::Chunks(chunks),
        }
    }

    /// As a part's body. `id`: the fresh one.
    pub(super) fn into_part(self, id: Ino) -> PartBody {
        match self {
            Held::Inline(_) => PartBody::Empty, // nothing is short enough but nothing
            Held::Chunk(place) => PartBody::Chunk { chunk: id, place },
            Held::Chunks(chunks) => PartBody::Chunks(chunks),
        }
    }
}

/// A fresh id, and what is stored under it and others if there is something; or the memory of a body that goes with the
/// command. Dropped: the bytes go, then the ids, then the memory.
pub(super) struct Fresh {
    stored: Option<Stored>,
    id: FreshId,
    more: Vec<FreshId>,
    _memory: Option<Permit>,
}

impl Fresh {
    /// The session that leased its ids.
    pub(super) fn session(&self) -> SessionId {
        self.id.session()
    }

    /// An id without bytes of its own. `memory`: of a body that goes with the command.
    pub(super) fn bare(id: FreshId, memory: Option<Permit>) -> Fresh {
        Fresh { stored: None, id, more: Vec::new(), _memory: memory }
    }

    pub(super) fn ino(&self) -> Ino {
        self.id.ino()
    }

    /// The leased ids that a command names: the first is the content's.
    pub(super) fn ids(&self) -> impl Iterator<Item = &FreshId> {
        std::iter::once(&self.id).chain(&self.more)
    }

    /// A command that names it is about to be proposed: from now on it is left, even if its task ends early, until
    /// [`Fresh::keep`] or [`Fresh::discard`] says what became of it.
    pub(super) fn propose(&mut self) {
        if let Some(stored) = &mut self.stored {
            stored.arm(false);
        }
        self.ids_mut().for_each(FreshId::leave);
    }

    /// The catalog names it now.
    pub(super) fn keep(mut self) {
        self.ids_mut().for_each(FreshId::settle);
    }

    /// The catalog will never name it.
    pub(super) async fn discard(mut self) {
        self.ids_mut().for_each(FreshId::settle);
        match self.stored.take() {
            None => {}
            Some(Stored::Shards(mut shards)) => shards.remove().await,
            // A job lost with the runtime leaves the file to the sweep.
            Some(mut file) => {
                file.arm(true);
                let _ = blocking(move || drop(file)).await;
            }
        }
    }

    fn ids_mut(&mut self) -> impl Iterator<Item = &mut FreshId> {
        std::iter::once(&mut self.id).chain(&mut self.more)
    }
}

/// Bytes that nothing names yet; they go when it is dropped while it is armed.
enum Stored {
    File(StoredFile),
    Shards(StoredShards),
}

impl Stored {
    fn arm(&mut self, armed: bool) {
        match self {
            Stored::File(file) => file.armed = armed,
            Stored::Shards(shards) => shards.armed = armed,
        }
    }
}

struct StoredFile {
    files: Files,
    chunk: Ino,
    armed: bool,
}

impl Drop for StoredFile {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let chunk = self.chunk;
        if let Err(error) = self.files.remove(chunk) {
            tracing::warn!(%chunk, %error, "a chunk that nothing names was not removed; the sweep will");
        }
    }
}

struct StoredShards {
    striper: Striper,
    shards: Vec<(NodeId, ShardId)>,
    armed: bool,
}

impl StoredShards {
    async fn remove(&mut self) {
        let shards = std::mem::take(&mut self.shards);
        remove_unnamed(&self.striper, &shards).await;
    }
}

impl Drop for StoredShards {
    fn drop(&mut self) {
        if self.shards.is_empty() || !self.armed {
            return;
        }
        // Without a runtime the process ends: the sweep finds them.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (striper, shards) = (self.striper.clone(), std::mem::take(&mut self.shards));
            // Nothing in the task has this Drop: a runtime that ends drops it at once.
            runtime.spawn(async move { remove_unnamed(&striper, &shards).await });
        }
    }
}

/// Removes shards that nothing will ever name.
pub(super) async fn remove_unnamed(striper: &Striper, shards: &[(NodeId, ShardId)]) {
    let gone_count = striper.remove(shards).await.len();
    if gone_count < shards.len() {
        let count = shards.len() - gone_count;
        tracing::debug!(count, "shards that nothing names were not removed; the sweep will");
    }
}

/// The shards of a place that are there.
pub(super) fn shards_of(place: &Place) -> impl Iterator<Item = (NodeId, ShardId)> + '_ {
    place.layout.shards().iter().copied().filter(|(_, shard)| *shard != ShardId(0))
}

/// Where the batches of a long body go.
pub(super) enum Sink {
    /// Into a file of this node.
    Plain(Box<PlainSink>),
    /// Into chunks over shard nodes.
    Striped(Box<StripedSink>),
}

impl Sink {
    /// Takes a batch, in a task of its own.
    pub(super) fn push(self, batch: Batch) -> JoinHandle<Result<Sink, Error>> {
        match self {
            Sink::Plain(sink) => tokio::task::spawn_blocking(move || Ok(Sink::Plain(Box::new(sink.push(&batch)?)))),
            Sink::Striped(mut sink) => tokio::spawn(async move {
                sink.push(&batch).await?;
                Ok(Sink::Striped(sink))
            }),
        }
    }

    /// Compares what came with what was promised, and only then makes it durable.
    pub(super) async fn conclude(
        self,
        batch: Batch,
        md5: Option<[u8; 16]>,
        promised: Vec<Checksum>,
    ) -> Result<(Digested, Held, Fresh), Error> {
        match self {
            Sink::Plain(sink) => blocking(move || sink.conclude(&batch, md5, &promised)).await?,
            // In a task of its own: what was begun is ended even if the caller goes away.
            Sink::Striped(sink) => joined(tokio::spawn(sink.conclude(batch, md5, promised))).await?,
        }
    }

    /// Gives up what was stored.
    pub(super) async fn discard(self) {
        match self {
            Sink::Plain(sink) => {
                let _ = blocking(move || drop(sink)).await;
            }
            Sink::Striped(sink) => sink.discard().await,
        }
    }
}

/// Into one file. All its work blocks. Fields are dropped in order: file, id, memory.
pub(super) struct PlainSink {
    node: NodeId,
    files: Files,
    digests: Digests,
    writer: Option<Writer>,
    announced_bytes: Option<u64>,
    id: FreshId,
    permit: Permit,
}

impl PlainSink {
    pub(super) fn new(
        (node, files): (NodeId, Files),
        digests: Digests,
        announced_bytes: Option<u64>,
        id: FreshId,
        permit: Permit,
    ) -> PlainSink {
        PlainSink { node, files, digests, writer: None, announced_bytes, id, permit }
    }

    fn push(mut self, batch: &Batch) -> Result<Self, Error> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(self.files.create(self.id.ino(), self.announced_bytes)?),
        };
        self.digests.update_all(&batch.runs);
        batch.runs.iter().try_for_each(|run| writer.write(run))?;
        Ok(self)
    }

    fn conclude(
        self,
        batch: &Batch,
        md5: Option<[u8; 16]>,
        promised: &[Checksum],
    ) -> Result<(Digested, Held, Fresh), Error> {
        let PlainSink { node, files, digests, writer, id, permit, .. } = self.push(batch)?;
        let digested = digests.finish();
        digested.check(md5, promised)?;
        if let Some(writer) = writer {
            writer.finish()?;
        }
        drop(permit);
        let len_bytes = digested.len_bytes;
        let place = Place { layout: Layout::Plain { node }, len_bytes, live_bytes: len_bytes };
        let stored = Some(Stored::File(StoredFile { files, chunk: id.ino(), armed: true }));
        Ok((digested, Held::Chunk(place), Fresh { stored, id, more: Vec::new(), _memory: None }))
    }
}

/// Into chunks over shard nodes.
pub(super) struct StripedSink {
    session: Arc<Session>,
    /// None only while a job has them.
    digests: Option<Digests>,
    writing: Option<Writing>,
    chunks: Vec<NewChunk>,
    stored: StoredShards,
    /// Of chunks and of their shards.
    ids: Vec<FreshId>,
    announced_bytes: Option<u64>,
    id: FreshId,
    _permit: Permit,
}

/// A chunk that is being written.
struct Writing {
    chunk: Ino,
    writer: ChunkWriter,
    room_bytes: u64,
    shard_ids: Vec<FreshId>,
}

impl StripedSink {
    pub(super) fn new(
        (striper, session): (Striper, Arc<Session>),
        digests: Digests,
        announced_bytes: Option<u64>,
        id: FreshId,
        permit: Permit,
    ) -> StripedSink {
        StripedSink {
            session,
            digests: Some(digests),
            writing: None,
            chunks: Vec::new(),
            stored: StoredShards { striper, shards: Vec::new(), armed: true },
            ids: Vec::new(),
            announced_bytes,
            id,
            _permit: permit,
        }
    }

    async fn push(&mut self, batch: &Batch) -> Result<(), Error> {
        let digesting = self.digests.take().map(|mut digests| {
            let runs = batch.runs.clone();
            tokio::task::spawn_blocking(move || {
                digests.update_all(&runs);
                digests
            })
        });
        let written = self.write(&batch.runs).await;
        if let Some(digesting) = digesting {
            self.digests = Some(joined(digesting).await?);
        }
        written
    }

    async fn write(&mut self, runs: &[Bytes]) -> Result<(), Error> {
        let mut runs = runs.to_vec();
        while !runs.is_empty() {
            let mut writing = match self.writing.take() {
                Some(writing) => writing,
                None => self.begin().await?,
            };
            let fitting = split_off_fitting(&mut runs, writing.room_bytes);
            writing.writer.push(&fitting).await?;
            writing.room_bytes -= fitting.iter().map(|run| run.len() as u64).sum::<u64>();
            match writing.room_bytes {
                0 => self.end(writing).await?,
                _ => self.writing = Some(writing),
            }
        }
        Ok(())
    }

    /// Begins a chunk: under the content's own id if it will be the only one.
    async fn begin(&mut self) -> Result<Writing, Error> {
        let is_only = self.announced_bytes.is_some_and(|len_bytes| len_bytes <= CHUNK_BYTES);
        let mut shard_ids = self.session.fresh_ids(self.stored.striper.id_count() + usize::from(!is_only)).await?;
        let chunk = match is_only {
            true => self.id.ino(),
            false => {
                let Some(id) = shard_ids.pop() else { return Err(Error::Unavailable("no ids were leased".into())) };
                let chunk = id.ino();
                self.ids.push(id);
                chunk
            }
        };
        let ids = shard_ids.iter().map(|id| ShardId(id.ino().0)).collect();
        let writer = self.stored.striper.begin(chunk, ids);
        Ok(Writing { chunk, writer, room_bytes: CHUNK_BYTES, shard_ids })
    }

    /// Makes a chunk durable.
    async fn end(&mut self, writing: Writing) -> Result<(), Error> {
        let Writing { chunk, writer, mut shard_ids, .. } = writing;
        let striped = writer.finish().await?;
        self.stored.shards.extend(shards_of(&striped.place));
        shard_ids.retain(|id| shards_of(&striped.place).any(|(_, shard)| shard.0 == id.ino().0));
        self.ids.extend(shard_ids);
        self.chunks.push(NewChunk { id: chunk, place: striped.place, short: striped.short });
        Ok(())
    }

    async fn conclude(
        mut self: Box<Self>,
        batch: Batch,
        md5: Option<[u8; 16]>,
        promised: Vec<Checksum>,
    ) -> Result<(Digested, Held, Fresh), Error> {
        match self.conclude_unless_it_fails(batch, md5, &promised).await {
            Ok(digested) => {
                let StripedSink { chunks, stored, ids, id, .. } = *self;
                let fresh = Fresh { stored: Some(Stored::Shards(stored)), id, more: ids, _memory: None };
                Ok((digested, Held::Chunks(chunks), fresh))
            }
            Err(error) => {
                self.discard().await;
                Err(error)
            }
        }
    }

    async fn conclude_unless_it_fails(
        &mut self,
        batch: Batch,
        md5: Option<[u8; 16]>,
        promised: &[Checksum],
    ) -> Result<Digested, Error> {
        self.push(&batch).await?;
        let Some(digests) = self.digests.take() else { return Err(Error::Unavailable("the digests were lost".into())) };
        let digested = digests.finish();
        digested.check(md5, promised)?;
        if let Some(writing) = self.writing.take() {
            self.end(writing).await?;
        }
        Ok(digested)
    }

    async fn discard(mut self: Box<Self>) {
        if let Some(writing) = self.writing.take() {
            writing.writer.abandon().await;
        }
        self.stored.remove().await;
    }
}

/// Takes the first `len_bytes` of `runs` from them, or all.
fn split_off_fitting(runs: &mut Vec<Bytes>, len_bytes: u64) -> Vec<Bytes> {
    let (mut fitting, mut left_bytes) = (Vec::new(), len_bytes);
    while left_bytes > 0 && !runs.is_empty() {
        let first = &mut runs[0];
        if first.len() as u64 <= left_bytes {
            left_bytes -= first.len() as u64;
            fitting.push(runs.remove(0));
        } else {
            fitting.push(first.split_to(left_bytes as usize));
            left_bytes = 0;
        }
    }
    fitting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_split_where_a_chunk_ends() {
        let runs = || vec![Bytes::from_static(b"abc"), Bytes::from_static(b"defg")];
        for (len_bytes, fitting, rest) in
            [(0, "", "abcdefg"), (2, "ab", "cdefg"), (3, "abc", "defg"), (5, "abcde", "fg"), (9, "abcdefg", "")]
        {
            let mut left = runs();
            let taken = split_off_fitting(&mut left, len_bytes);
            assert_eq!((taken.concat(), left.concat()), (fitting.into(), rest.into()), "{len_bytes}");
        }
    }
}
