//! Boxes that join a cluster by a token: `predastore token`, `predastore join`.
//!
//! ```text
//! first box                                    second box
//! token create: it becomes box 1 of a cluster
//! (member file, starts again), makes a token
//!                    <---- HTTPS, POST /join ---- join TOKEN: the server must be of the token's authority
//! uses the token, gives a number, signs    ---->
//! the new box's certificates                      member file, starts again as that box
//!                    <------- QUIC ------------   learns the log, gets shards, later a vote (`node::steward`)
//! ```
//!
//! - `token`: what is said over the phone; `message`: what the two boxes say; `host`: the side that lets in; `guest`: the
//!   other. `member`: the file that makes a box part of a cluster; `settle`: what it brings, put in place at the start.
//! - `keep`: what a member brings up to date while it runs. `daemon`: the daemon's answers; `command`: the operator's side.
//!
//! Invariants
//! - A box believes only a server whose chain ends in the authority that the token names, and tells nobody else its secret.
//! - The authority's key is on voters alone. Who joins sends public keys, and gets certificates.
//! - Nothing that was acknowledged is lost by joining: a box with objects or users does not join, and that is looked at again
//!   when nobody is served any more, before it becomes a member.
//! - The member file appears whole and at once: before it the box is what it was, after it a member.

pub(crate) mod command;
pub(crate) mod daemon;
mod guest;
pub(crate) mod host;
pub(crate) mod keep;
pub(crate) mod member;
mod message;
pub(crate) mod settle;
mod token;

/// Where boxes reach each other, if nobody says: UDP, and TCP for joining.
pub(crate) const PORT: u16 = 6660;
