//! Mounting and unmounting: by mount(2) where this process may, else through `fusermount3`.
//!
//! Invariants: permissions are always judged by the kernel (`default_permissions`); no call here asks the mounted file
//! system anything, for it may be one that does not answer.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::unistd::{getegid, geteuid};

use super::fusermount;
use super::mountinfo::{self, Entry, FSTYPE};
use super::options::{Options, Source};

/// The most that the kernel asks for with one READ.
pub(crate) const MAX_READ_BYTES: u32 = 1 << 20;

const DEVICE: &str = "/dev/fuse";
/// The capability to mount, as a bit of `CapEff`.
const CAP_SYS_ADMIN: u32 = 21;

/// Why it is not mounted, or still is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The kernel has no FUSE, or does not let this process have it.
    #[error("{DEVICE}: {0}")]
    Device(io::Error),
    /// By mount(2).
    #[error("{}", why_not(.0))]
    Mount(Errno),
    /// By umount2(2).
    #[error("{}", why_not(.0))]
    Unmount(Errno),
    /// By fusermount3.
    #[error(transparent)]
    Fusermount(#[from] fusermount::Error),
    /// It was mounted and is not there.
    #[error("it was unmounted again, or mounted where this process cannot see it")]
    Vanished,
    /// There is no procfs.
    #[error("/proc/self/mountinfo: {0}")]
    Mountinfo(#[from] io::Error),
}

fn why_not(errno: &Errno) -> &'static str {
    match errno {
        Errno::ENOENT => "no such directory",
        Errno::ENOTDIR => "not a directory",
        Errno::EBUSY => "target is busy",
        Errno::EPERM => "not permitted",
        Errno::ENODEV => "the kernel has no FUSE (module fuse)",
        other => other.desc(),
    }
}

/// A mount that somebody is to serve.
pub(crate) struct Attached {
    /// /dev/fuse.
    pub(crate) device: OwnedFd,
    /// Number of the FUSE connection.
    pub(crate) connection: u32,
}

/// How to unmount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// If nobody uses it.
    Plain,
    /// From the tree at once; who uses it may go on.
    Lazy,
    /// At once; who uses it gets errors.
    Force,
}

/// Mounts at `path`, a real path without links in it. Nothing is served yet.
///
/// # Errors
/// The kernel's, or fusermount3's; then nothing is mounted.
pub(crate) fn attach(source: &Source, path: &Path, options: &Options) -> Result<Attached, Error> {
    let device = match is_privileged() {
        true => mount(source, path, options)?,
        false => fusermount::mount(source, path, options)?,
    };
    match mountinfo::at(path)?.and_then(|entry| entry.connection()) {
        Some(connection) => Ok(Attached { device, connection }),
        None => Err(Error::Vanished),
    }
}

fn mount(source: &Source, path: &Path, options: &Options) -> Result<OwnedFd, Error> {
    let device = OpenOptions::new().read(true).write(true).open(DEVICE).map_err(Error::Device)?;
    let data = data(&device, options.allow_other);
    let source = source.to_string();
    nix::mount::mount(Some(source.as_str()), path, Some(FSTYPE), options.flags, Some(data.as_str()))
        .map_err(Error::Mount)?;
    Ok(device.into())
}

fn data(device: &File, allow_other: bool) -> String {
    let others = if allow_other { ",allow_other" } else { "" };
    format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,max_read={MAX_READ_BYTES}{others}",
        device.as_raw_fd(),
        geteuid(),
        getegid()
    )
}

/// Takes a mount of ours away.
///
/// # Errors
/// The kernel's, or fusermount3's: mostly that it is in use.
pub(crate) fn detach(entry: &Entry, way: Way) -> Result<(), Error> {
    if let (Way::Force, Some(connection)) = (way, entry.connection()) {
        abort(connection);
    }
    if !is_privileged() {
        return Ok(fusermount::unmount(&entry.path, way != Way::Plain)?);
    }
    let flags = match way {
        Way::Plain => MntFlags::empty(),
        Way::Lazy => MntFlags::MNT_DETACH,
        // This aborts the connection also where there is no fusectl.
        Way::Force => MntFlags::MNT_FORCE | MntFlags::MNT_DETACH,
    };
    umount2(&entry.path, flags | MntFlags::UMOUNT_NOFOLLOW).map_err(Error::Unmount)
}

/// Ends a connection: all that waits for an answer gets an error. Where fusectl is not mounted, this does nothing.
fn abort(connection: u32) {
    let file = PathBuf::from(format!("/sys/fs/fuse/connections/{connection}/abort"));
    let _ = fs::write(file, "1");
}

/// Takes away what was mounted in vain, if it is there still.
pub(crate) fn undo(connection: u32) {
    if let Ok(Some(entry)) = mountinfo::of(connection) {
        let _ = detach(&entry, Way::Force);
    }
}

/// Whether this process may call mount(2).
pub(crate) fn is_privileged() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).is_some_and(|bits| bits >> CAP_SYS_ADMIN & 1 == 1)
}

/// Whether this process can mount in any way.
pub(crate) fn can_mount() -> bool {
    is_privileged() || fusermount::is_there()
}
