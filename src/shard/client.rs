//! Calling shard nodes.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::record::Origin;
use super::scrub::Scrubbed;
use super::store::{Listed, ShardInfo};
use super::wire::{
    self, Append, Bookmark, FRAME_MAX_BYTES, Failure, Finish, Info, List, Method, NodeStatus, Put, Read, Scrub,
    ScrubReply,
};
use crate::ids::{Ino, NodeId, ShardId};
use crate::transport::{Body, Call, CallError, Caller, Class, Peer, Reply, Role};

/// Why a shard node did not do as it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// It is not there, or not any more.
    #[error("{0}")]
    NotFound(String),
    /// There is one of this id.
    #[error("{0}")]
    Exists(String),
    /// The node's disk is full.
    #[error("{0}")]
    Full(String),
    /// Too much of it is under way there; nothing was done, and what came of a shard before is given up.
    #[error("{0}")]
    Busy(String),
    /// It failed; of a shard that was written something may have come all the same.
    #[error("{0}")]
    Failed(String),
    /// The node was not reached, or gave no answer: see there whether something may have come of it.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Calls shard nodes; clones are the same.
#[derive(Clone)]
pub struct ShardClient {
    caller: Arc<dyn Caller>,
}

/// A shard on its way to a node, frames as they come.
pub struct Sending {
    client: ShardClient,
    node: NodeId,
    shard: ShardId,
    origin: Origin,
    number: u32,
}

impl ShardClient {
    /// Calls by `caller`.
    pub fn new(caller: Arc<dyn Caller>) -> ShardClient {
        ShardClient { caller }
    }

    /// Stores a shard that is at hand whole; durable on return. `frames`: at most about a megabyte.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put(
        &self,
        node: NodeId,
        shard: ShardId,
        origin: Origin,
        frames: &[Bytes],
        deadline: Duration,
    ) -> Result<(), ClientError> {
        check_lens(frames.iter().map(Bytes::len))?;
        let (header, body) = (put_of(shard, origin, frames), body_of(frames));
        self.call(node, Method::Put, wire::encode(&header), body, deadline).await.map(drop)
    }

    /// Begins a shard whose frames come one after another.
    pub fn send(&self, node: NodeId, shard: ShardId, origin: Origin) -> Sending {
        Sending { client: self.clone(), node, shard, origin, number: 0 }
    }

    /// Reads frames of a shard, as they lie there: verify them. One buffer, and each frame's length.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn read(
        &self,
        node: NodeId,
        shard: ShardId,
        frames: Range<u32>,
        deadline: Duration,
    ) -> Result<(Bytes, Vec<u32>), ClientError> {
        let header = Read { shard, start: frames.start, end: frames.end };
        let reply = self.call(node, Method::Read, wire::encode(&header), Body::empty(), deadline).await?;
        let lens: Vec<u32> = decoded(&reply.header)?;
        check_lens(lens.iter().map(|len| *len as usize))?;
        let len_bytes: u64 = lens.iter().map(|len| u64::from(*len)).sum();
        if lens.len() != frames.len() || reply.body.len_bytes != len_bytes {
            return Err(ClientError::Failed(format!("node {node} answered with other frames than asked for")));
        }
        let bytes = reply.body.collect().await.map_err(|error| CallError::Unknown(peer(node), error.to_string()))?;
        Ok((bytes, lens))
    }

    /// What a shard is of, and how long its frames are.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn info(&self, node: NodeId, shard: ShardId, deadline: Duration) -> Result<ShardInfo, ClientError> {
        let reply = self.call(node, Method::Info, wire::encode(&shard), Body::empty(), deadline).await?;
        let Info { chunk, slot, frames } = decoded(&reply.header)?;
        Ok(ShardInfo { origin: Origin { chunk, slot }, frames })
    }

    /// Deletes shards. What is not there is deleted already.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, node: NodeId, shards: &[ShardId], deadline: Duration) -> Result<(), ClientError> {
        self.call(node, Method::Delete, wire::encode(shards), Body::empty(), deadline).await.map(drop)
    }

    /// Up to `limit` shards with ids above `after`, ascending.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(
        &self,
        node: NodeId,
        after: Option<ShardId>,
        limit: u32,
        deadline: Duration,
    ) -> Result<Vec<Listed>, ClientError> {
        let header = wire::encode(&List { after, limit });
        let reply = self.call(node, Method::List, header, Body::empty(), deadline).await?;
        let rows: Vec<(ShardId, Ino, u32)> = decoded(&reply.header)?;
        Ok(rows.into_iter().map(listed).collect())
    }

    /// How a node stands.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self, node: NodeId, deadline: Duration) -> Result<NodeStatus, ClientError> {
        let reply = self.call(node, Method::Status, Bytes::new(), Body::empty(), deadline).await?;
        decoded(&reply.header)
    }

    /// Has a node verify its shards with ids above `after`, ascending, until about `budget_bytes` were read there, or as
    /// many as it likes to read at once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn scrub(
        &self,
        node: NodeId,
        after: Option<ShardId>,
        budget_bytes: u64,
        deadline: Duration,
    ) -> Result<Scrubbed, ClientError> {
        let header = wire::encode(&Scrub { after, budget_bytes });
        let reply = self.call(node, Method::Scrub, header, Body::empty(), deadline).await?;
        let ScrubReply { next, checked_bytes, damaged } = decoded(&reply.header)?;
        Ok(Scrubbed { next, checked_bytes, damaged: damaged.into_iter().map(listed).collect() })
    }

    /// Where the scrub of a node is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn bookmark(&self, node: NodeId, deadline: Duration) -> Result<Bookmark, ClientError> {
        let reply = self.call(node, Method::Bookmark, Bytes::new(), Body::empty(), deadline).await?;
        decoded(&reply.header)
    }

    /// Says where the scrub of a node is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn note(&self, node: NodeId, bookmark: Bookmark, deadline: Duration) -> Result<(), ClientError> {
        self.call(node, Method::Note, wire::encode(&bookmark), Body::empty(), deadline).await.map(drop)
    }

    async fn call(
        &self,
        node: NodeId,
        method: Method,
        header: Bytes,
        body: Body,
        deadline: Duration,
    ) -> Result<Reply, ClientError> {
        let call = Call { method: method.number(), header, body };
        let reply = self.caller.call(peer(node), Class::Bulk, call, deadline).await?;
        if reply.status == 0 {
            return Ok(reply);
        }
        let why = format!("node {node}: {}", String::from_utf8_lossy(&reply.header));
        Err(match Failure::of(reply.status) {
            Some(Failure::NotFound) => ClientError::NotFound(why),
            Some(Failure::Exists) => ClientError::Exists(why),
            Some(Failure::Full) => ClientError::Full(why),
            Some(Failure::Busy) => ClientError::Busy(why),
            Some(Failure::Invalid | Failure::Failed | Failure::Malformed) | None => ClientError::Failed(why),
        })
    }
}

impl Sending {
    /// Sends the next frames; at most about a megabyte at once.
    ///
    /// # Errors
    /// See [`ClientError`]; nothing will come of the shard then.
    pub async fn push(&mut self, frames: &[Bytes], deadline: Duration) -> Result<(), ClientError> {
        check_lens(frames.iter().map(Bytes::len))?;
        let header = Append { number: self.number, put: put_of(self.shard, self.origin, frames) };
        self.number += 1;
        let call = self.client.call(self.node, Method::Append, wire::encode(&header), body_of(frames), deadline);
        call.await.map(drop)
    }

    /// Makes the shard durable, and there.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn finish(self, deadline: Duration) -> Result<(), ClientError> {
        let header = wire::encode(&Finish { shard: self.shard, number: self.number });
        self.client.call(self.node, Method::Finish, header, Body::empty(), deadline).await.map(drop)
    }

    /// Gives the shard up.
    ///
    /// # Errors
    /// See [`ClientError`]; the node gives it up by itself in time.
    pub async fn abandon(self, deadline: Duration) -> Result<(), ClientError> {
        let header = wire::encode(&self.shard);
        self.client.call(self.node, Method::Abandon, header, Body::empty(), deadline).await.map(drop)
    }
}

fn peer(node: NodeId) -> Peer {
    Peer { role: Role::Shard, id: node }
}

fn listed((shard, chunk, slot): (ShardId, Ino, u32)) -> Listed {
    Listed { shard, origin: Origin { chunk, slot } }
}

/// No frame is longer than that: what a node says of its own is not believed either.
fn check_lens(mut lens: impl Iterator<Item = usize>) -> Result<(), ClientError> {
    match lens.find(|len| *len > FRAME_MAX_BYTES as usize) {
        Some(len) => Err(ClientError::Failed(format!("a frame of {len} bytes: there is none so long"))),
        None => Ok(()),
    }
}

fn put_of(shard: ShardId, origin: Origin, frames: &[Bytes]) -> Put {
    let Origin { chunk, slot } = origin;
    Put { shard, chunk, slot, frames: frames.iter().map(|frame| frame.len() as u32).collect() }
}

fn body_of(frames: &[Bytes]) -> Body {
    let len_bytes = frames.iter().map(|frame| frame.len() as u64).sum();
    let frames: Vec<_> = frames.iter().filter(|frame| !frame.is_empty()).cloned().map(Ok).collect();
    Body { len_bytes, stream: Box::pin(futures::stream::iter(frames)) }
}

fn decoded<T: DeserializeOwned>(header: &[u8]) -> Result<T, ClientError> {
    wire::decode(header)
        .ok_or_else(|| ClientError::Failed("the reply's header is not what its method answers".to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Options, ServiceLimits, ShardService, Shards};
    use super::*;
    use crate::env::Env;
    use crate::transport::identity::{Identity, Secret};
    use crate::transport::{AddressBook, Config, Limits, Service, Transport};
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use proptest::prelude::*;
    use tempfile::TempDir;

    const SOON: Duration = Duration::from_secs(30);
    const NODE: NodeId = NodeId(0);

    /// Calls one service directly.
    struct Direct(ShardService);

    impl Caller for Direct {
        fn call(&self, _: Peer, _: Class, call: Call, _: Duration) -> BoxFuture<'_, Result<Reply, CallError>> {
            self.0.serve(&[], call).map(Ok).boxed()
        }
    }

    /// Where a node is. Its log may still be writing when the last answer has come: it ends before the directory does.
    struct Home {
        _dir: TempDir,
        shards: Shards,
    }

    impl Drop for Home {
        fn drop(&mut self) {
            self.shards.close();
        }
    }

    fn node(reserve_bytes: u64) -> (Home, ShardClient) {
        node_within(reserve_bytes, ServiceLimits::default())
    }

    fn node_within(reserve_bytes: u64, limits: ServiceLimits) -> (Home, ShardClient) {
        let (home, service) = service_within(reserve_bytes, limits);
        (home, ShardClient::new(Arc::new(Direct(service))))
    }

    fn open(dir: &TempDir) -> Shards {
        Shards::open(&Options { file_len_bytes: 4 << 20, ..Options::new(dir.path()) }).unwrap().0
    }

    fn service_within(reserve_bytes: u64, limits: ServiceLimits) -> (Home, ShardService) {
        let dir = TempDir::new().unwrap();
        let shards = open(&dir);
        let service = ShardService::with_limits(shards.clone(), dir.path(), (reserve_bytes, 1), limits);
        (Home { _dir: dir, shards }, service)
    }

    fn origin() -> Origin {
        Origin { chunk: Ino(77), slot: 2 }
    }

    fn frames(count: u8) -> Vec<Bytes> {
        (1..=count).map(|index| vec![index; usize::from(index) * 300].into()).collect()
    }

    #[tokio::test]
    async fn a_shard_goes_there_and_back() {
        let (_home, client) = node(0);
        client.put(NODE, ShardId(1), origin(), &frames(9), SOON).await.unwrap();
        let again = client.put(NODE, ShardId(1), origin(), &frames(2), SOON).await;
        assert!(matches!(again, Err(ClientError::Exists(_))), "{again:?}");
        let (bytes, lens) = client.read(NODE, ShardId(1), 3..5, SOON).await.unwrap();
        assert_eq!((bytes, lens), (Bytes::from(frames(9)[3..5].concat()), vec![1200, 1500]));
        assert_eq!(client.info(NODE, ShardId(1), SOON).await.unwrap().frames.len(), 9);
        let listed = client.list(NODE, None, 10, SOON).await.unwrap();
        assert_eq!(listed, [Listed { shard: ShardId(1), origin: origin() }]);
        assert_eq!(client.status(NODE, SOON).await.unwrap().shard_count, 1);
        client.delete(NODE, &[ShardId(1), ShardId(2)], SOON).await.unwrap();
        let gone = client.read(NODE, ShardId(1), 0..1, SOON).await;
        assert!(matches!(gone, Err(ClientError::NotFound(_))), "{gone:?}");
    }

    #[tokio::test]
    async fn a_shard_comes_in_pieces_in_order_or_not_at_all() {
        let (_home, client) = node(0);
        let mut sending = client.send(NODE, ShardId(1), origin());
        sending.push(&frames(3), SOON).await.unwrap();
        assert!(matches!(client.info(NODE, ShardId(1), SOON).await, Err(ClientError::NotFound(_))));
        sending.push(&frames(9), SOON).await.unwrap();
        sending.finish(SOON).await.unwrap();
        let (bytes, _) = client.read(NODE, ShardId(1), 0..12, SOON).await.unwrap();
        assert_eq!(bytes, [frames(3), frames(9)].concat().concat());

        let mut sending = client.send(NODE, ShardId(2), origin());
        sending.push(&frames(3), SOON).await.unwrap();
        sending.number += 1;
        assert!(matches!(sending.push(&frames(3), SOON).await, Err(ClientError::Failed(_))));
        assert!(matches!(sending.finish(SOON).await, Err(ClientError::Failed(_))));

        let mut sending = client.send(NODE, ShardId(3), origin());
        sending.push(&frames(3), SOON).await.unwrap();
        sending.abandon(SOON).await.unwrap();
        assert_eq!(client.list(NODE, Some(ShardId(1)), 10, SOON).await.unwrap(), []);
    }

    /// A client in one process, the node in another: for all that they know of each other.
    #[tokio::test]
    async fn a_shard_goes_over_the_network() {
        let start = |peer: Peer, book: &Arc<AddressBook>| {
            let env = Env::system();
            let secret = Secret::new(b"0123456789 abcdefghij ABCDEFGHIJ klmnop").unwrap();
            let identity = Identity::mint(&secret, &[peer], env.clock.clone()).unwrap();
            let (listen, book) = (vec!["127.0.0.1:0".parse().unwrap()], book.clone());
            Transport::start(Config { identity, listen, book, limits: Limits::default(), env }).unwrap()
        };
        let dir = TempDir::new().unwrap();
        let shards = open(&dir);
        let book = Arc::new(AddressBook::default());
        let there = start(peer(NODE), &book);
        there.serve(peer(NODE), wire::SERVICE, Arc::new(ShardService::new(shards, dir.path(), 0, 1)));
        book.set(peer(NODE), there.addresses()[0].to_string());
        let here = Arc::new(start(Peer { role: Role::Gateway, id: NodeId(5) }, &book));

        let client = ShardClient::new(here.clone());
        let mut sending = client.send(NODE, ShardId(1), origin());
        for _ in 0..20 {
            sending.push(&frames(80), SOON).await.unwrap();
        }
        sending.finish(SOON).await.unwrap();
        let (bytes, _) = client.read(NODE, ShardId(1), 0..1600, SOON).await.unwrap();
        assert!(bytes == frames(80).concat().repeat(20));
        let gone = client.read(NODE, ShardId(2), 0..1, SOON).await;
        assert!(matches!(gone, Err(ClientError::NotFound(_))), "{gone:?}");
        here.close(SOON).await;
        there.close(SOON).await;
    }

    #[tokio::test]
    async fn a_full_disk_takes_nothing_and_still_deletes() {
        let (_home, client) = node(u64::MAX);
        let full = client.put(NODE, ShardId(1), origin(), &frames(1), SOON).await;
        assert!(matches!(full, Err(ClientError::Full(_))), "{full:?}");
        client.delete(NODE, &[ShardId(1)], SOON).await.unwrap();
    }

    /// A body of which it is known whether anybody has begun to read it.
    fn watched_body(bytes: Vec<u8>) -> (Body, Arc<std::sync::atomic::AtomicBool>) {
        let asked = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (len_bytes, tell) = (bytes.len() as u64, asked.clone());
        let stream = futures::stream::once(async move {
            tell.store(true, std::sync::atomic::Ordering::SeqCst);
            Ok(Bytes::from(bytes))
        });
        (Body { len_bytes, stream: Box::pin(stream) }, asked)
    }

    /// Lets a call go as far as it can without anybody else.
    async fn has_answer<T>(call: &mut (impl Future<Output = T> + Unpin)) -> bool {
        for _ in 0..50 {
            if futures::poll!(&mut *call).is_ready() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        false
    }

    #[tokio::test]
    async fn memory_is_had_before_bytes_are_and_nobody_reading_waits_for_who_writes() {
        use std::sync::atomic::Ordering::SeqCst;
        let limits = ServiceLimits { write_bytes: 200_000, read_bytes: 200_000, ..ServiceLimits::default() };
        let (_home, client) = node_within(0, limits);
        client.put(NODE, ShardId(1), origin(), &frames(9), SOON).await.unwrap();
        let put = |shard| Put { shard: ShardId(shard), chunk: Ino(1), slot: 0, frames: vec![100_000; 2] };
        // A writer that has its permit, and whose bytes do not come.
        let slow = Body { len_bytes: 200_000, stream: Box::pin(futures::stream::pending()) };
        let mut first = Box::pin(client.call(NODE, Method::Put, wire::encode(&put(2)), slow, SOON));
        assert!(!has_answer(&mut first).await);
        let (body, asked) = watched_body(vec![1; 200_000]);
        let mut second = Box::pin(client.call(NODE, Method::Put, wire::encode(&put(3)), body, SOON));
        assert!(!has_answer(&mut second).await);
        assert!(!asked.load(SeqCst), "nothing is read for which there is no room");
        client.read(NODE, ShardId(1), 0..9, SOON).await.unwrap();
        client.delete(NODE, &[ShardId(1)], SOON).await.unwrap();
        drop(first);
        second.await.unwrap();
        assert!(asked.load(SeqCst));
        // Readers wait for readers.
        let header = wire::encode(&Read { shard: ShardId(3), start: 0, end: 2 });
        let call = || Call { method: Method::Read.number(), header: header.clone(), body: Body::empty() };
        let held = client.caller.call(peer(NODE), Class::Bulk, call(), SOON).await.unwrap();
        let also = client.caller.call(peer(NODE), Class::Bulk, call(), SOON);
        let mut waits = Box::pin(async { also.await.map(drop) });
        assert!(!has_answer(&mut waits).await);
        drop(held);
        waits.await.unwrap();
    }

    #[tokio::test]
    async fn who_ends_takes_nothing_new_and_lets_what_is_half_way_end() {
        let (_home, service) = service_within(0, ServiceLimits::default());
        let client = ShardClient::new(Arc::new(Direct(service.clone())));
        service.clone().drain(SOON).await;
        let (_other_home, service) = service_within(0, ServiceLimits::default());
        let client_of_other = ShardClient::new(Arc::new(Direct(service.clone())));
        let mut sending = client_of_other.send(NODE, ShardId(1), origin());
        sending.push(&frames(3), SOON).await.unwrap();
        let mut draining = Box::pin(service.drain(SOON));
        assert!(!has_answer(&mut draining).await, "a shard is half-way");
        for client in [&client, &client_of_other] {
            let late = client.send(NODE, ShardId(2), origin()).push(&frames(3), SOON).await;
            assert!(matches!(late, Err(ClientError::Busy(_))), "{late:?}");
        }
        sending.push(&frames(3), SOON).await.unwrap();
        sending.finish(SOON).await.unwrap();
        draining.await;
        assert_eq!(client_of_other.info(NODE, ShardId(1), SOON).await.unwrap().frames.len(), 6);
        // One that nobody goes on with is not waited for.
        let (_third_home, service) = service_within(0, ServiceLimits::default());
        let client = ShardClient::new(Arc::new(Direct(service.clone())));
        let mut left = client.send(NODE, ShardId(1), origin());
        left.push(&frames(3), SOON).await.unwrap();
        service.drain(Duration::from_millis(50)).await;
    }

    #[tokio::test]
    async fn what_is_too_much_is_refused_and_says_so() {
        let limits = ServiceLimits { half_way_count: 2, shard_max_bytes: 100_000, ..ServiceLimits::default() };
        let (_home, client) = node_within(0, limits);
        let mut sendings: Vec<_> = (1..4).map(|id| client.send(NODE, ShardId(id), origin())).collect();
        sendings[0].push(&frames(3), SOON).await.unwrap();
        sendings[1].push(&frames(3), SOON).await.unwrap();
        let busy = sendings[2].push(&frames(3), SOON).await;
        assert!(matches!(busy, Err(ClientError::Busy(_))), "{busy:?}");
        let mut sending = sendings.remove(0);
        sending.push(&[vec![1; 60_000].into()], SOON).await.unwrap();
        let long = sending.push(&[vec![1; 60_000].into()], SOON).await;
        assert!(matches!(&long, Err(ClientError::Failed(why)) if why.contains("longer than a shard")), "{long:?}");
        // Given up, it makes room for another.
        let mut sending = client.send(NODE, ShardId(5), origin());
        sending.push(&frames(3), SOON).await.unwrap();
        sending.finish(SOON).await.unwrap();
        let count = wire::FRAMES_MAX as u32 + 1;
        let many = client.read(NODE, ShardId(5), 0..count, SOON).await;
        assert!(matches!(&many, Err(ClientError::Failed(why)) if why.contains("more frames")), "{many:?}");
        let long = client.put(NODE, ShardId(6), origin(), &[vec![0; 130 << 10].into()], SOON).await;
        assert!(matches!(&long, Err(ClientError::Failed(why)) if why.contains("none so long")), "{long:?}");
    }

    /// A node that says of a frame that it is longer than any.
    struct Liar;

    impl Caller for Liar {
        fn call(&self, _: Peer, _: Class, _: Call, _: Duration) -> BoxFuture<'_, Result<Reply, CallError>> {
            let stream = Box::pin(futures::stream::pending());
            let body = Body { len_bytes: u64::from(u32::MAX), stream };
            async { Ok(Reply { status: 0, header: wire::encode(&[u32::MAX][..]), body }) }.boxed()
        }
    }

    #[tokio::test]
    async fn a_node_is_not_believed_how_long_its_frames_are() {
        let client = ShardClient::new(Arc::new(Liar));
        let read = client.read(NODE, ShardId(1), 0..1, SOON).await;
        assert!(matches!(&read, Err(ClientError::Failed(why)) if why.contains("none so long")), "{read:?}");
    }

    #[tokio::test]
    async fn a_node_is_scrubbed_step_by_step() {
        let (_home, client) = node(0);
        // No frames that anybody sealed.
        for id in 1..4 {
            client.put(NODE, ShardId(id), origin(), &frames(3), SOON).await.unwrap();
        }
        assert_eq!(client.list(NODE, None, 10, SOON).await.unwrap().len(), 3);
        let first = client.scrub(NODE, None, 1, SOON).await.unwrap();
        let damaged = vec![Listed { shard: ShardId(1), origin: origin() }];
        assert_eq!(first, Scrubbed { next: Some(ShardId(1)), checked_bytes: 1800, damaged });
        let rest = client.scrub(NODE, first.next, u64::MAX, SOON).await.unwrap();
        assert_eq!((rest.next, rest.checked_bytes, rest.damaged.len()), (None, 3600, 2));
    }

    #[tokio::test]
    async fn where_the_scrub_is_outlives_the_node() {
        let dir = TempDir::new().unwrap();
        let shards = open(&dir);
        let client = ShardClient::new(Arc::new(Direct(ShardService::new(shards.clone(), dir.path(), 0, 1))));
        client.put(NODE, ShardId(1), origin(), &frames(3), SOON).await.unwrap();
        assert_eq!(client.bookmark(NODE, SOON).await.unwrap(), Bookmark::default());
        let at = Bookmark { after: Some(ShardId(u64::MAX)), ended: crate::env::Timestamp(-5) };
        client.note(NODE, at, SOON).await.unwrap();
        assert_eq!(client.bookmark(NODE, SOON).await.unwrap(), at);
        shards.close();
        drop((client, shards));
        assert_eq!(open(&dir).bookmark().unwrap(), at);
        // It is no more than a hint: without the index it is gone.
        std::fs::remove_file(dir.path().join("index.db")).unwrap();
        assert_eq!(open(&dir).bookmark().unwrap(), Bookmark::default());
    }

    #[tokio::test]
    async fn a_body_that_is_not_its_frames_leaves_nothing() {
        let (_home, client) = node(0);
        for (lens, len_bytes) in [(vec![9], 10), (vec![20], 20), (vec![200_000], 200_000)] {
            let put = Put { shard: ShardId(1), chunk: Ino(1), slot: 0, frames: lens };
            let body = Body { len_bytes, ..Body::from(Bytes::from_static(b"0123456789")) };
            let refused = client.call(NODE, Method::Put, wire::encode(&put), body, SOON).await;
            assert!(matches!(refused, Err(ClientError::Failed(_))));
        }
        assert_eq!(client.status(NODE, SOON).await.unwrap().shard_count, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn whatever_is_called_there_is_an_answer(method in 0u16..12, header in prop::collection::vec(any::<u8>(), 0..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (_home, client) = node(0);
                let mut header = header;
                header.iter_mut().take(1).for_each(|version| *version = 1);
                let call = Call { method: 0x0200 | method, header: header.into(), body: Bytes::from_static(b"x").into() };
                client.caller.call(peer(NODE), Class::Bulk, call, SOON).await.unwrap();
            });
        }
    }
}
