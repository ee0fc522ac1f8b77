//! Files of one node for others: what a box keeps in files once it is one of several, until all of it is in shards.
//!
//! | method | header | answer |
//! |---|---|---|
//! | 1 read | (chunk, start, end), half-open, bytes | the bytes, verified, as the body |
//! | 2 remove | chunks, at most 10,000 | |
//!
//! Headers: one version byte, then postcard. A reply's status is 0 or a [`Failure`]: its header is then the reason, as text.
//!
//! Invariant: whoever asks holds the chunk: his session's watermark keeps its file from being removed while he reads.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use super::{Error, Files};
use crate::ids::{Ino, NodeId};
use crate::transport::{Body, Call, CallError, Caller, Class, Peer, Reply, Role, Service, header};
use crate::units::MIB;

/// The service's number.
pub const SERVICE: u8 = 4;
const VERSION: u8 = 1;
/// The longest run of bytes that is read at once.
pub const READ_MAX_BYTES: u64 = MIB;
const REMOVE_MAX: usize = 10_000;
/// Calls that are served at once: each may hold a run in memory.
const SERVED_COUNT: usize = 8;
const DEADLINE: Duration = Duration::from_secs(30);

const READ: u16 = (SERVICE as u16) << 8 | 1;
const REMOVE: u16 = (SERVICE as u16) << 8 | 2;

/// Why there is no answer. Ordinals are on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
enum Failure {
    Malformed = 1,
    NotFound = 2,
    Corrupt = 3,
    Failed = 4,
}

impl Failure {
    fn of(error: &Error) -> Failure {
        match error {
            Error::NotFound(_) => Failure::NotFound,
            Error::Corrupt { .. } => Failure::Corrupt,
            Error::Full | Error::Io(_) => Failure::Failed,
        }
    }
}

/// Serves a node's files.
pub struct FileService {
    files: Files,
    served: Semaphore,
}

impl FileService {
    /// Serves `files`.
    pub fn new(files: Files) -> FileService {
        FileService { files, served: Semaphore::new(SERVED_COUNT) }
    }

    async fn answer(&self, method: u16, header: Bytes) -> Result<Bytes, (Failure, String)> {
        let malformed = || (Failure::Malformed, "not a question".to_owned());
        let failed = |error: Error| (Failure::of(&error), error.to_string());
        let lost = |error: tokio::task::JoinError| (Failure::Failed, error.to_string());
        let _served = self.served.acquire().await;
        let files = self.files.clone();
        match method {
            READ => {
                let (chunk, start, end): (Ino, u64, u64) = header::decode(VERSION, &header).ok_or_else(malformed)?;
                if end.checked_sub(start).is_none_or(|len_bytes| len_bytes > READ_MAX_BYTES) {
                    return Err(malformed());
                }
                tokio::task::spawn_blocking(move || files.read(chunk, start..end)).await.map_err(lost)?.map_err(failed)
            }
            REMOVE => {
                let chunks: Vec<Ino> = header::decode(VERSION, &header).ok_or_else(malformed)?;
                let remove = move || chunks.iter().try_for_each(|chunk| files.remove(*chunk));
                tokio::task::spawn_blocking(remove).await.map_err(lost)?.map_err(failed)?;
                Ok(Bytes::new())
            }
            _ => Err(malformed()),
        }
    }
}

impl Service for FileService {
    fn serve<'a>(&'a self, from: &'a [Peer], call: Call) -> BoxFuture<'a, Reply> {
        async move {
            let answered = match from.iter().any(|peer| peer.role != Role::Shard) {
                true => self.answer(call.method, call.header).await,
                false => Err((Failure::Malformed, "only for those who keep a catalog".to_owned())),
            };
            match answered {
                Ok(bytes) => Reply { status: 0, header: Bytes::new(), body: bytes.into() },
                Err((failure, why)) => Reply { status: failure as u16, header: why.into(), body: Body::empty() },
            }
        }
        .boxed()
    }
}

/// Why another node's file was not read, or not removed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// It is not there, or its bytes are not those that were written.
    #[error("{0}")]
    Damaged(String),
    /// The node failed.
    #[error("{0}")]
    Failed(String),
    /// The node was not reached, or gave no answer.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Reaches the files of other nodes; clones are the same.
#[derive(Clone)]
pub struct RemoteFiles {
    caller: Arc<dyn Caller>,
}

impl RemoteFiles {
    /// Calls by `caller`.
    pub fn new(caller: Arc<dyn Caller>) -> RemoteFiles {
        RemoteFiles { caller }
    }

    /// Reads up to [`READ_MAX_BYTES`] of a chunk, verified there.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn read(&self, node: NodeId, chunk: Ino, range: Range<u64>) -> Result<Bytes, RemoteError> {
        let header = header::encode(VERSION, &(chunk, range.start, range.end));
        let body = self.call(node, Class::Bulk, READ, header).await?.body;
        let expected_bytes = range.end.saturating_sub(range.start);
        if body.len_bytes != expected_bytes || expected_bytes > READ_MAX_BYTES {
            return Err(RemoteError::Failed(format!("db {node} answered with other bytes than asked for")));
        }
        body.collect().await.map_err(|error| CallError::Unknown(peer(node), error.to_string()).into())
    }

    /// Removes chunks; what is not there is removed already.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn remove(&self, node: NodeId, chunks: &[Ino]) -> Result<(), RemoteError> {
        for chunks in chunks.chunks(REMOVE_MAX) {
            self.call(node, Class::Urgent, REMOVE, header::encode(VERSION, chunks)).await?;
        }
        Ok(())
    }

    async fn call(&self, node: NodeId, class: Class, method: u16, header: Bytes) -> Result<Reply, RemoteError> {
        let call = Call { method, header, body: Body::empty() };
        let reply = self.caller.call(peer(node), class, call, DEADLINE).await?;
        let why = || String::from_utf8_lossy(&reply.header).into_owned();
        match reply.status {
            0 => Ok(reply),
            status if status == Failure::NotFound as u16 || status == Failure::Corrupt as u16 => {
                Err(RemoteError::Damaged(why()))
            }
            _ => Err(RemoteError::Failed(why())),
        }
    }
}

/// A box is a db node of its cluster, under the id that it had.
fn peer(node: NodeId) -> Peer {
    Peer { role: Role::Db, id: node }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NODE: NodeId = NodeId(1);

    /// Serves without a network.
    struct Direct(FileService, Role);

    impl Caller for Direct {
        fn call(&self, to: Peer, _: Class, call: Call, _: Duration) -> BoxFuture<'_, Result<Reply, CallError>> {
            assert_eq!(to, peer(NODE));
            async move { Ok(self.0.serve(&[Peer { role: self.1, id: NodeId(2) }], call).await) }.boxed()
        }
    }

    fn node(dir: &tempfile::TempDir, caller: Role) -> (Files, RemoteFiles) {
        let files = Files::open(dir.path().join("chunks"), Arc::new(|error| unreachable!("{error}"))).unwrap();
        (files.clone(), RemoteFiles::new(Arc::new(Direct(FileService::new(files), caller))))
    }

    #[tokio::test]
    async fn a_file_is_read_verified_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (files, remote) = node(&dir, Role::Db);
        let chunk = Ino::new(1, 0x1234);
        let bytes: Vec<u8> = (0..300_000u32).map(|index| (index / 7) as u8).collect();
        let mut writer = files.create(chunk, None).unwrap();
        writer.write(&bytes).unwrap();
        writer.finish().unwrap();
        for range in [0..300_000u64, 65_535..65_537, 299_999..300_000, 5..5] {
            let read = remote.read(NODE, chunk, range.clone()).await.unwrap();
            assert_eq!(read, bytes[range.start as usize..range.end as usize], "{range:?}");
        }
        let beyond = remote.read(NODE, chunk, 299_999..300_001).await;
        assert!(matches!(beyond, Err(RemoteError::Damaged(_))), "{beyond:?}");
        let path = files.path(chunk);
        let mut damaged = std::fs::read(&path).unwrap();
        damaged[70_000] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(remote.read(NODE, chunk, 0..65_536).await.unwrap(), bytes[..65_536]);
        let flipped = remote.read(NODE, chunk, 65_536..65_537).await;
        assert!(matches!(flipped, Err(RemoteError::Damaged(_))), "{flipped:?}");
        for _ in 0..2 {
            remote.remove(NODE, &[chunk, Ino::new(1, 5)]).await.unwrap();
        }
        let gone = remote.read(NODE, chunk, 0..1).await;
        assert!(matches!(gone, Err(RemoteError::Damaged(_))), "{gone:?}");
    }

    #[tokio::test]
    async fn a_shard_node_has_nothing_to_ask() {
        let dir = tempfile::tempdir().unwrap();
        let (_, remote) = node(&dir, Role::Shard);
        let refused = remote.remove(NODE, &[Ino::new(1, 5)]).await;
        assert!(matches!(&refused, Err(RemoteError::Failed(why)) if why.contains("keep a catalog")), "{refused:?}");
    }

    #[tokio::test]
    async fn what_is_no_question_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (_, remote) = node(&dir, Role::Gateway);
        let ask = async |method, header: Bytes| remote.call(NODE, Class::Bulk, method, header).await.map(drop);
        let long = header::encode(VERSION, &(Ino::new(1, 1), 0u64, READ_MAX_BYTES + 1));
        let backwards = header::encode(VERSION, &(Ino::new(1, 1), 2u64, 1u64));
        let later = header::encode(VERSION + 1, &(Ino::new(1, 1), 0u64, 1u64));
        let calls = [
            (READ, long),
            (READ, backwards),
            (READ, later),
            (READ, Bytes::new()),
            (REMOVE, Bytes::new()),
            (9, Bytes::new()),
        ];
        for (method, header) in calls {
            let refused = ask(method, header).await;
            assert!(matches!(refused, Err(RemoteError::Failed(_))), "{refused:?}");
        }
    }
}
