//! Mounting from start to end, by whoever does it: a command that hands the descriptor to the daemon, or the daemon itself.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{getegid, geteuid};

use super::kernel::{self, Attached, Way};
use super::mountinfo::{self, Entry};
use super::options::{Options, Served, Source};
use super::probe;
use super::protocol::Mount;

/// How long a mount that is served may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// How long a mount that is there already may take to show that it is alive.
const ALIVE_PATIENCE: Duration = Duration::from_secs(5);

/// Why it is not mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The mount point cannot be found.
    #[error("{path}: {error}", path = .path.display())]
    Place {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// A path that is no text cannot be said to the daemon.
    #[error("{}: the name of a mount point must be UTF-8", .0.display())]
    NotText(PathBuf),
    /// One of ours is there.
    #[error("{}: {} is mounted there already", .path.display(), .source_name)]
    Taken { path: PathBuf, source_name: String },
    /// The kernel or fusermount3 refuses.
    #[error("{path}: {error}", path = .path.display())]
    Kernel {
        path: PathBuf,
        #[source]
        error: kernel::Error,
    },
    /// The daemon refuses.
    #[error("{0}")]
    Daemon(String),
    /// The daemon has it and it does not serve.
    #[error("{path}: mounted, but {error}; unmounted again", path = .path.display())]
    Probe {
        path: PathBuf,
        #[source]
        error: probe::Error,
    },
}

/// Mounts `source` at `dir` and has it served by who `hand_over` gives the descriptor to, which returns once it is. When
/// this returns the mount has answered.
///
/// # Errors
/// Why not; nothing is mounted then.
pub(crate) fn mount(
    source: &Source,
    dir: &Path,
    options: &Options,
    hand_over: impl FnOnce(Mount, OwnedFd) -> Result<(), String>,
) -> Result<(), Error> {
    let path = place(dir)?;
    let text = path.to_str().ok_or_else(|| Error::NotText(path.clone()))?.to_owned();
    make_room(&path)?;
    let attached =
        kernel::attach(source, &path, options).map_err(|error| Error::Kernel { path: path.clone(), error })?;
    let Attached { device, connection } = attached;
    let options = owned(options.served, geteuid().as_raw(), getegid().as_raw());
    let mount = Mount { source: source.clone(), path: text, id: new_id(), connection, options };
    let answered = hand_over(mount, device)
        .map_err(Error::Daemon)
        .and_then(|()| probe::ask(&path, ANSWER_PATIENCE).map_err(|error| Error::Probe { path: path.clone(), error }));
    if answered.is_err() {
        kernel::undo(connection);
    }
    answered
}

/// A number that no other mount has.
fn new_id() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness nothing else of this program works either: its keys.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    (u64::from_le_bytes(bytes) >> 1).max(1)
}

/// What nobody gave an owner is the user's who mounts: root's, and they could not write to the bucket they mounted.
fn owned(served: Served, uid: u32, gid: u32) -> Served {
    match uid {
        0 => served,
        uid => Served { uid: served.uid.or(Some(uid)), gid: served.gid.or(Some(gid)), ..served },
    }
}

/// `dir` without links in it. What is mounted there is asked nothing.
///
/// # Errors
/// There is no such directory.
pub(crate) fn place(dir: &Path) -> Result<PathBuf, Error> {
    // Without what would make it a question whether it is a directory: a slash at its end.
    let dir: PathBuf = dir.components().collect();
    fs::canonicalize(&dir).map_err(|error| Error::Place { path: dir, error })
}

/// A mount of ours that died with its daemon makes room; one that lives does not.
fn make_room(path: &Path) -> Result<(), Error> {
    let kernel = |error: kernel::Error| Error::Kernel { path: path.to_owned(), error };
    let Some(entry) = mountinfo::at(path).map_err(|error| kernel(error.into()))? else { return Ok(()) };
    if entry.connection().is_none() {
        return Ok(());
    }
    if is_alive(&entry) {
        let source_name = entry.source.to_string_lossy().into_owned();
        return Err(Error::Taken { path: path.to_owned(), source_name });
    }
    kernel::detach(&entry, Way::Lazy).map_err(kernel)
}

/// Whether somebody serves it. Any error but that nobody does is an answer of somebody's.
fn is_alive(entry: &Entry) -> bool {
    let asked = probe::ask(&entry.path, ALIVE_PATIENCE);
    !matches!(asked, Err(probe::Error::Answer(Errno::ENOTCONN | Errno::ECONNABORTED)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_place_is_a_real_path() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(real.join("a")).unwrap();
        std::os::unix::fs::symlink("a", real.join("link")).unwrap();
        assert_eq!(place(&real.join("link/")).unwrap(), real.join("a"));
        assert!(matches!(place(&real.join("b")), Err(Error::Place { .. })));
    }

    #[test]
    fn a_user_owns_what_nobody_owns() {
        let given = Served { uid: Some(7), ..Served::default() };
        assert_eq!(owned(given, 0, 0), given);
        assert_eq!(owned(given, 1000, 100), Served { gid: Some(100), ..given });
        assert_eq!(owned(Served::default(), 1000, 100).uid, Some(1000));
    }

    #[test]
    fn nothing_is_handed_over_of_what_cannot_be_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let source = "photos".parse().unwrap();
        let none = dir.path().join("none");
        let error =
            mount(&source, &none, &Options::default(), |_, _| unreachable!("there is no directory")).unwrap_err();
        assert!(error.to_string().contains("none: No such file"), "{error}");
    }
}
