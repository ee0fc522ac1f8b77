//! Which nodes get the shards of a chunk. Pure: a ring is a value, and so is what it costs to change it.
//!
//! - [`Ring`]: the members at one epoch, and the nodes that they give a chunk.
//! - [`cost()`]: what moves where from one ring to another; for a dry run.
//! - [`width()`], [`commit_count`]: how many shards to write on the nodes there are, and how many must be durable.
//!
//! Invariants
//! - The same members give the same nodes on every machine and in every version: `hash.rs` is frozen, by a golden test.
//! - The epoch names a ring and does not go into the hash: a change moves what it must, and nothing else.
//! - What a ring says is the target. Where a chunk's shards are is what the catalog says.

mod cost;
mod hash;
mod ring;
mod width;

pub use cost::{Cost, NodeCost, cost};
pub use ring::{Member, Picks, Ring, State, WEIGHT_MAX, weight};
pub use width::{commit_count, width};

use crate::erasure::Scheme;
use crate::ids::NodeId;

/// What cannot be placed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A node that is a member twice.
    #[error("node {node} is on the ring twice")]
    Twice {
        /// Which.
        node: NodeId,
    },
    /// A weight above [`WEIGHT_MAX`].
    #[error("node {node} has a weight of {weight}")]
    Weight {
        /// Whose.
        node: NodeId,
        /// What it was to be.
        weight: u32,
    },
    /// Too few live nodes to keep a chunk with any redundancy, or at all.
    #[error("{live_count} live nodes cannot keep {target}")]
    TooFewNodes {
        /// The layout that was asked for.
        target: Scheme,
        /// Nodes that live.
        live_count: usize,
    },
}
