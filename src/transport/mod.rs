//! Messages between the nodes of a cluster: a call carries a method, a typed header and raw bytes; so does its reply.
//!
//! - [`Service`] is what a node answers with; [`Caller`] is how a node reaches the services of others, or its own.
//! - [`Transport`]: both, for one process, over QUIC; calls to its own nodes stay in the process.
//! - [`identity`]: who a process is, and its proof; [`frame`]: the bytes that begin a message; [`header`]: those of most
//!   services' headers.
//! - `listener` serves calls, `peers` keeps the connections that calls go over, `message` moves one message on a stream,
//!   `quic` has the settings.
//!
//! Invariants
//! - Every call has a deadline; when it has passed the caller has an answer, if only [`CallError::Unknown`].
//! - [`CallError::Never`] is said only where the other side cannot have begun to serve the call.
//! - A body is streamed both ways, with a bounded number of bytes in flight; who does not read slows its sender only.

mod counters;
pub mod frame;
pub mod header;
pub mod identity;
mod listener;
mod message;
mod peers;
mod process;
mod quic;
mod services;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};

use crate::ids::NodeId;

pub use counters::{LinkStats, Stats};
pub use peers::AddressBook;
pub use process::{Config, Limits, StartError, Transport};

/// What a process may be to its peers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Votes and keeps the catalog.
    Db,
    /// Keeps shards.
    Shard,
    /// Serves frontends.
    Gateway,
}

/// A node of the cluster. Ids count for each role by themselves, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Peer {
    /// As what.
    pub role: Role,
    /// Which.
    pub id: NodeId,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Db => "db",
            Role::Shard => "node",
            Role::Gateway => "gateway",
        };
        write!(f, "{role} {}", self.id)
    }
}

/// Which connection a call goes over: what is small and urgent never waits behind what is large.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Votes, log entries, proposals, ReadIndex, small questions.
    Urgent,
    /// Shards and snapshots.
    Bulk,
}

/// Raw bytes that come in pieces. An error ends it: what came before is not the whole.
pub type BodyStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The raw bytes of a message.
pub struct Body {
    /// How many come.
    pub len_bytes: u64,
    /// They themselves, in pieces of any length.
    pub stream: BodyStream,
}

impl Body {
    /// No bytes.
    pub fn empty() -> Body {
        Body { len_bytes: 0, stream: Box::pin(futures::stream::empty()) }
    }

    /// All of it at once: who asks has seen that it is not too long.
    ///
    /// # Errors
    /// It did not come to its end, or has another length than announced.
    pub async fn collect(self) -> io::Result<Bytes> {
        let mut stream = self.stream;
        let first = stream.next().await.transpose()?.unwrap_or_default();
        if first.len() as u64 == self.len_bytes {
            return Ok(first);
        }
        let mut bytes = BytesMut::from(first);
        while let Some(piece) = stream.next().await.transpose()? {
            if (bytes.len() + piece.len()) as u64 > self.len_bytes {
                return Err(io::ErrorKind::InvalidData.into());
            }
            bytes.extend_from_slice(&piece);
        }
        let is_whole = bytes.len() as u64 == self.len_bytes;
        if is_whole { Ok(bytes.freeze()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        let len_bytes = bytes.len() as u64;
        Body { len_bytes, stream: Box::pin(futures::stream::iter((len_bytes > 0).then_some(Ok(bytes)))) }
    }
}

/// A question.
pub struct Call {
    /// Which: the service's number << 8 | the method's.
    pub method: u16,
    /// As its method encodes it; at most [`HEADER_MAX_BYTES`].
    pub header: Bytes,
    /// What goes with it.
    pub body: Body,
}

/// An answer.
pub struct Reply {
    /// 0: as asked for. Anything else is the service's to define, its reason in the header.
    pub status: u16,
    /// As its method encodes it; at most [`HEADER_MAX_BYTES`].
    pub header: Bytes,
    /// What goes with it.
    pub body: Body,
}

/// Longest header of a call or a reply, bytes.
pub const HEADER_MAX_BYTES: usize = 8 << 20;

/// A call that has no reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The other side has not begun to serve it, and will not.
    #[error("{0} was not reached: {1}")]
    Never(Peer, String),
    /// It may have been served, or may still be.
    #[error("{0} gave no answer: {1}")]
    Unknown(Peer, String),
}

/// Answers calls. `from`: whom the caller has proven to be; every role of its process.
pub trait Service: Send + Sync + 'static {
    /// Serves one call. It may be dropped at any await: when the caller has gone, or at its deadline.
    fn serve<'a>(&'a self, from: &'a [Peer], call: Call) -> BoxFuture<'a, Reply>;
}

/// Reaches other nodes' services, and this node's own without a detour.
pub trait Caller: Send + Sync + 'static {
    /// Calls a service of `to`; the reply's body must be read within the deadline too.
    fn call(&self, to: Peer, class: Class, call: Call, deadline: Duration) -> BoxFuture<'_, Result<Reply, CallError>>;
}
