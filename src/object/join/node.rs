//! Boxes that joined, each with its number.
//!
//! A `record` of kind Node, by the number in decimal: address, host, capacity in bytes u64, joined i64 ns, whether it has
//! had its place in the map bool, whether it was removed bool (`object::record`). It stays when the box has gone: a number is
//! not given again, and the certificate of who was removed is good for nothing.

use std::collections::HashSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::catalog::{RecordKind, View};
use crate::env::Timestamp;
use crate::ids::NodeId;
use crate::object::access::Secret;
use crate::object::record::{decode, encode};
use crate::object::{self, Store};

use super::Error;

/// Others may join at the same time: so many numbers are tried.
const TRY_COUNT: usize = 100;

/// A box that is to join.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Newcomer {
    /// Where others reach it: "host:port".
    pub address: String,
    /// What its machine calls itself.
    pub host: String,
    /// Of its disk.
    pub capacity_bytes: u64,
}

/// A box that joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinedNode {
    /// Its number, as a db node and as a shard node.
    pub id: NodeId,
    /// As it was when it joined.
    pub newcomer: Newcomer,
    /// When it did.
    pub joined: Timestamp,
    /// Whether it has had its place in the map: an operator may have taken it away since.
    pub is_placed: bool,
    /// Whether it is no member any more.
    pub is_removed: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Record {
    address: String,
    host: String,
    capacity_bytes: u64,
    joined: Timestamp,
    is_placed: bool,
    is_removed: bool,
}

impl Record {
    fn new(newcomer: &Newcomer, joined: Timestamp) -> Record {
        let Newcomer { address, host, capacity_bytes } = newcomer.clone();
        Record { address, host, capacity_bytes, joined, is_placed: false, is_removed: false }
    }

    fn node(self, id: NodeId) -> JoinedNode {
        let Record { address, host, capacity_bytes, joined, is_placed, is_removed } = self;
        JoinedNode { id, newcomer: Newcomer { address, host, capacity_bytes }, joined, is_placed, is_removed }
    }
}

impl Store {
    /// Gives a box that has the token with `secret` its number, and takes one use of the token.
    ///
    /// # Errors
    /// `Token`, `Store`.
    pub async fn let_in(&self, secret: &Secret, newcomer: &Newcomer) -> Result<NodeId, Error> {
        self.use_token(secret).await?;
        for _ in 0..TRY_COUNT {
            let id = self.next_node().await?;
            if self.write_down(id, newcomer).await? {
                return Ok(id);
            }
        }
        Err(Error::Store(object::Error::Overloaded))
    }

    /// The number that the next box gets: one that none has or had.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn next_node(&self) -> Result<NodeId, object::Error> {
        let joined = self.joined_nodes().await?.into_iter().map(|node| node.id.0);
        let placed = self.map().await?.into_iter().flat_map(|map| map.nodes).map(|node| node.node.0);
        Ok(NodeId(joined.chain(placed).max().unwrap_or_default() + 1))
    }

    /// Writes down the box that the cluster began with; nothing if it is there.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn write_down(&self, id: NodeId, newcomer: &Newcomer) -> Result<bool, object::Error> {
        self.wait_for_level(|view| view.has_records(), "some process of the cluster knows no boxes yet").await?;
        let record = encode(&Record::new(newcomer, self.now()));
        self.set_record(RecordKind::Node, &id.to_string(), None, Some(record)).await
    }

    /// All boxes that ever joined, by number.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn joined_nodes(&self) -> Result<Vec<JoinedNode>, object::Error> {
        let records = self.snapshot(|view| Ok(view.records(RecordKind::Node)?)).await?;
        let mut nodes = records.into_iter().map(|(name, value)| node(&name, &value)).collect::<Result<Vec<_>, _>>()?;
        nodes.sort_by_key(|node| node.id);
        Ok(nodes)
    }

    /// Notes that a box has its place in the map.
    ///
    /// # Errors
    /// What the catalog says.
    pub(crate) async fn note_placed(&self, id: NodeId) -> Result<(), object::Error> {
        self.change_node(id, |record| Record { is_placed: true, ..record }).await
    }

    /// Notes that a box is no member any more; nothing if it never joined.
    ///
    /// # Errors
    /// What the catalog says.
    pub(crate) async fn note_removed(&self, id: NodeId) -> Result<(), object::Error> {
        self.change_node(id, |record| Record { is_removed: true, ..record }).await
    }

    async fn change_node(&self, id: NodeId, change: impl Fn(Record) -> Record) -> Result<(), object::Error> {
        let name = id.to_string();
        for _ in 0..TRY_COUNT {
            let wanted = name.clone();
            let found = self.snapshot(move |view| Ok(view.record(RecordKind::Node, &wanted)?)).await?;
            let Some(was) = found else { return Ok(()) };
            let value = encode(&change(decode("box", &was)?));
            if self.set_record(RecordKind::Node, &name, Some(was), Some(value)).await? {
                return Ok(());
            }
        }
        Err(object::Error::Overloaded)
    }
}

/// The boxes that are no members any more, as `view` has it.
///
/// # Errors
/// What the catalog says.
pub(crate) fn removed(view: &View<'_>) -> Result<HashSet<NodeId>, object::Error> {
    let mut removed = HashSet::new();
    for (name, value) in view.records(RecordKind::Node)? {
        let node = node(&name, &value)?;
        removed.extend(node.is_removed.then_some(node.id));
    }
    Ok(removed)
}

fn node(name: &str, value: &Bytes) -> Result<JoinedNode, object::Error> {
    let id = name.parse().map_err(|_| object::Error::Corrupt(format!("`{name}` is no number of a box")))?;
    Ok(decode::<Record>("box", value)?.node(NodeId(id)))
}
