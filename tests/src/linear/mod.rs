//! Linearizability: what clients saw of a few keys, and whether one store could have answered so.
//!
//! - `operation`: what one operation demands of a key and does to it. A key is a register that holds a value or nothing.
//! - `check`: whether the operations on a key fit into one order that keeps real time.
//! - `replay`: the same for versioned buckets, in the one order that the log has and version ids tell, all keys together.
//! - `recorder`: what was seen, by key; listings too.
//! - `load`: clients that write and read through several gateways, until told to stop.
//!
//! The search checks keys apart: linearizability is local. There a listing is taken as a read of each key it could show,
//! within the listing's time: that is necessary, cheap, and finds a listing that is stale. That all its rows are of one
//! moment, only the replay asks.
//!
//! A write whose answer was lost (or was a 5xx) stays open: it may take effect at any time after its call, or never. A read
//! without an answer says nothing.

mod check;
mod client;
mod load;
mod operation;
mod recorder;
mod replay;

pub use check::{Wrong, check};
pub use load::{Gateway, Load};
pub use operation::{Guard, Operation, Value};
pub use recorder::Tally;
pub use replay::{Listing, Logged, replay};
