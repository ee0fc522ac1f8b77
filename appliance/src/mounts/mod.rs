//! Buckets as file systems: `s3d mount`, `mount.predastore`, `[[mount]]`, and what the daemon has of a mount.
//!
//! Whoever mounts opens /dev/fuse, calls mount(2) (or `fusermount3` does), and hands the descriptor to the daemon over its
//! control socket; the daemon serves it and needs no privilege for that.
//!
//! - `options`: `BUCKET[/PREFIX]` and `-o`; `mountinfo`: what is mounted where.
//! - `kernel`: mount(2), umount2(2), aborting; `fusermount`: the same for a user; `probe`: whether a mount answers;
//!   `mounting`: all of that from start to end.
//! - `protocol`: what is said over the control socket; `fdpass`: descriptors over it; `socket`: the command's side of it;
//!   `control`: the daemon's.
//! - `holder`: a process beside each mount, which keeps it while the daemon is away.
//! - `running`: the mounts that the daemon serves; `configured`: those it makes itself.
//! - `command`: the command line; `helper`: mount(8)'s.

pub(crate) mod command;
pub(crate) mod configured;
pub(crate) mod control;
mod fdpass;
mod fusermount;
pub(crate) mod helper;
pub(crate) mod holder;
pub(crate) mod kernel;
mod mountinfo;
mod mounting;
pub(crate) mod options;
pub(crate) mod probe;
pub(crate) mod protocol;
pub(crate) mod running;
mod socket;
#[cfg(test)]
mod tests;

pub(crate) use protocol::{Reply, Request};
pub(crate) use socket::Client;
