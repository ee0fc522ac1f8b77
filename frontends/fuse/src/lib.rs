//! The FUSE frontend of Predastore: the kernel's requests on one side, `predastore::object::tree` on the other.
//!
//! From the device to the store:
//!
//! * [`session`] serves a device that is mounted already; [`Mounted`] is how it ends; `handshake` how the next process goes
//!   on with it
//! * `kernel` the crate fuser's trait: takes requests apart, gives each a task and a deadline, puts answers together
//! * `requests` which call of the tree answers which request; knows neither fuser nor a kernel
//! * [`namespace`] the tree as a trait, so that all of the above runs over a model in tests
//!
//! What a request needs:
//!
//! * `directory` a page of a listing; `cookies` where in a directory a listing is, also after a restart
//! * `caches` what the kernel may keep of a file's pages, and what this process remembers for a moment
//! * `nodes` inode numbers as node ids, and which of them the kernel knows
//! * `attributes` attributes as the kernel wants them; `ownership` group and sgid of what is new
//! * `errors` the core's errors as errno, in one table; `patience` deadlines and trying again; `signals` to who waits
//! * [`invalidate`] tells the kernel what changed behind its back; `lately` what did so while it was being answered
//! * [`options`] how a mount behaves
//!
//! Invariants
//! - Handles are stateless: nothing that a request needs is found by its handle, so a restarted process answers it as well.
//! - fuser's types are named in `kernel`, `session` and `attributes` only.
//! - The kernel is told of changes by one thread that holds no lock and answers no request.
//! - No request is answered with ENOSYS that may be answered otherwise later: the kernel would never ask again.

mod attributes;
mod caches;
mod cookies;
mod directory;
mod errors;
mod handshake;
pub mod invalidate;
mod kernel;
mod lately;
#[cfg(test)]
mod model;
pub mod namespace;
mod nodes;
pub mod options;
mod ownership;
mod patience;
mod requests;
pub mod session;
mod signals;

pub use errors::errno;
pub use handshake::Handshake;
pub use invalidate::Event;
pub use options::{Defaults, LocalLocks, MountOptions};
pub use session::{Error, Mounted, Probe, serve};
