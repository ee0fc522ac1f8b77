//! Consensus: openraft on top of [`crate::log`] and [`crate::catalog`].
//!
//! - [`Raft`] is a node's handle: it opens, proposes, orders reads and says how things stand.
//! - `log_store`: Raft's log and vote; `state_machine` and `applier`: the catalog as the state it drives.
//! - `encoding`: the bytes in the log; `types`: what openraft is instantiated with.
//! - `network` and `transfer`: how peers are reached; `service`: what they are answered; `message`: the bytes of both.
//! - `core`: what a member has of Raft; `propose` and `read`: proposals and read indexes, wherever the leader is;
//!   `barrier`: reads in rounds; `found` and `members`: how a cluster begins, grows and shrinks; `learn`: nodes that follow
//!   without a vote; `level`: raises the catalog's feature level once all members know a higher one; `reach`: sees that the
//!   node leads that hears most of the others.
//! - `trim`: keeps the log short; `hold`: what it is kept for; `admission`: how much is queued at most.
//!
//! One box is a cluster of one voter: it elects itself at once, and does nothing while it is idle.
//!
//! Invariants, on top of Raft's own
//! - A proposal that failed is `Unavailable` only if it was never handed to the log; anything else is `Unknown`.
//! - What opening finds is either consistent or refused: the catalog may be ahead of the log, which then starts anew after
//!   it, or behind it, and then follows; never with a gap between them.
//! - A log that has lost what it once acknowledged is not written to, unless the catalog has it all, or the loss is
//!   accepted ([`Options::accept_loss`]): until then the node only serves reads.
//! - Only who has never had peers, or was left alone by them, is a sole voter; a log that lost its end knows that still.
//! - A member of several is a node and its log: one that lost the log is not heard, and does not speak, as what it was. So
//!   whatever is asked of a member is asked of its log.
//! - A read that passed a barrier sees all that was acknowledged anywhere before; no clock has a part in that.
//! - A node leads only in a term of its own election since it started: what it had sent before is never sent otherwise.

mod admission;
mod applier;
mod barrier;
mod core;
mod encoding;
mod found;
mod hold;
mod learn;
mod level;
mod log_store;
mod members;
mod message;
mod network;
mod open;
mod propose;
mod raft;
mod reach;
mod read;
mod service;
mod state_machine;
mod transfer;
mod trim;
mod types;

#[cfg(test)]
mod tests;

pub use applier::{ApplyStats, Fatal};
pub use encoding::Undecodable;
pub use found::Founding;
pub use members::{MembersError, OnMember};
pub use message::{PeerStatus, SERVICE};
pub use network::Alone;
pub use open::Options;
pub use raft::{Raft, State, Status};
use types::TypeConfig;

use crate::{catalog, log};

/// Why a node could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log.
    #[error("the log: {0}")]
    Log(#[from] log::Error),
    /// The catalog.
    #[error("{0}")]
    Catalog(#[from] catalog::Error),
    /// A directory or a thread.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Stored bytes are not what they should be.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// The entries between catalog and log are gone.
    #[error("the catalog needs log entry {needed}, but the log starts at {first_index}")]
    Gap {
        /// The first entry that the catalog has not applied.
        needed: u64,
        /// The first that the log holds.
        first_index: u64,
    },
    /// Log and catalog contradict each other, or the log itself.
    #[error("log and catalog do not belong together: {0}")]
    Inconsistent(String),
    /// openraft refused.
    #[error("raft: {0}")]
    Raft(String),
}
