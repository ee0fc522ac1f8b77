//! Predastore's object core: it knows no HTTP, no FUSE and no NATS.
//!
//! From the top down; a module uses only what stands below it.
//!
//! - [`node`]: wires the roles of one process; the only module that knows all the others.
//! - [`check`]: the complete check of a stopped store.
//! - [`vocabulary`]: S3's words, for frontends that speak them whatever carries them.
//! - [`object`]: the front door. Object semantics over catalog and chunks; all that a frontend sees.
//! - [`cluster`]: the life of a cluster, as pure decisions: what to repair.
//! - [`consensus`]: openraft on top of [`log`], [`catalog`] and [`transport`]: log store, ReadIndex, snapshots, members.
//! - [`catalog`]: the metadata state machine: schema, commands, `apply`, queries, snapshots.
//! - [`mod@file`]: the `plain` layout: one file per chunk on one node.
//! - [`shard`]: a shard node: shards in a log, an index, the space given back, and the calls that ask for it.
//! - [`placement`]: a hash ring's members to the nodes for a chunk; what changing it costs; how wide to write.
//! - [`segment`]: the frame of one segment: compressed, sealed, checksummed; stripes of frames; keys of chunks.
//! - [`erasure`]: chunks over k+m shards: which bytes are in which segment of which shard, and Reed-Solomon parity.
//! - [`transport`]: messages between nodes.
//! - [`log`]: append-only log files: records, group commit, recovery.
//! - [`patient`]: threads that may block. [`mod@env`]: time and randomness; [`ids`]: identifiers; [`units`]: sizes.

pub mod catalog;
pub mod check;
pub mod cluster;
pub mod consensus;
pub mod env;
pub mod erasure;
pub mod file;
pub mod ids;
pub mod log;
pub mod node;
pub mod object;
pub mod patient;
pub mod placement;
pub mod segment;
pub mod shard;
pub mod transport;
pub mod units;
pub mod vocabulary;
