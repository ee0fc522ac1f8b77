//! `s3d mount`, `s3d umount`, `s3d mounts`.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::holder;
use super::kernel::{self, Way};
use super::mountinfo;
use super::mounting;
use super::options::{Options, Source};
use super::protocol::{Mount, Reply, Request};
use super::socket::{self, Client};

/// How long a daemon may take that is to let go of a mount: one that does not answer is why it is asked to.
const FORCE_PATIENCE: Duration = Duration::from_secs(3);

/// mount(8)'s exit code for a wrong command line.
pub(super) const EXIT_USAGE: u8 = 1;
/// mount(8)'s exit code where mounting failed.
const EXIT_FAILED: u8 = 32;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The daemon cannot be asked.
    #[error(transparent)]
    Socket(#[from] socket::Error),
    /// It is not mounted.
    #[error(transparent)]
    Mounting(#[from] mounting::Error),
    /// It is not unmounted.
    #[error("{path}: {error}", path = .path.display())]
    Unmount {
        path: std::path::PathBuf,
        #[source]
        error: kernel::Error,
    },
    /// There is nothing of ours.
    #[error("{}: {}", .path.display(), .what)]
    NotOurs { path: std::path::PathBuf, what: String },
    /// The daemon refuses.
    #[error("{0}")]
    Refused(String),
}

/// Mounts `source` at `dir`, served by the daemon behind `control`, for which it waits up to `patience`.
///
/// # Errors
/// Why it is not mounted.
pub(crate) fn mount(
    source: &Source,
    dir: &Path,
    options: &Options,
    control: &Path,
    patience: Duration,
) -> Result<(), Failure> {
    // Before anything is mounted that nobody would serve.
    let client = Client::connect(control, patience)?;
    let hand_over =
        |mount: Mount, device: OwnedFd| match client.ask(&Request::Mount(mount.clone()), Some(device.as_fd())) {
            Ok(Reply::Served(handshake)) => holder::start(control, &mount, handshake, device)
                .map_err(|error| format!("the mount's holder: {error}")),
            Ok(Reply::Refused(reason)) => Err(reason),
            Ok(other) => Err(strange(&other)),
            Err(error) => Err(error.to_string()),
        };
    Ok(mounting::mount(source, dir, options, hand_over)?)
}

/// Unmounts `dir`; unless by force or lazily, all that was written through it is committed when this returns, if the
/// daemon behind `control` is there to say so.
///
/// # Errors
/// Why it is mounted still.
pub(crate) fn unmount(dir: &Path, way: Way, control: Option<&Path>) -> Result<(), Failure> {
    let path = mounted_at(dir)?;
    let failed = |error: kernel::Error| Failure::Unmount { path: path.clone(), error };
    let entry = mountinfo::at(&path).map_err(|error| failed(error.into()))?;
    let not_ours = |what: String| Failure::NotOurs { path: path.clone(), what };
    let entry = entry.ok_or_else(|| not_ours("not mounted".to_owned()))?;
    let connection = entry.connection().ok_or_else(|| not_ours(format!("a mount of type {}", entry.fstype)))?;
    let client = || Client::connect(control?, Duration::ZERO).ok();
    let ask = |client: Client| client.ask(&Request::Unmount { connection, force: way == Way::Force }, None);
    if way == Way::Force && !kernel::is_privileged() {
        // It alone can end what /sys/fs/fuse is not there to abort.
        let _ = client().map(|client| ask(client.within(FORCE_PATIENCE)));
    }
    kernel::detach(&entry, way).map_err(failed)?;
    if way == Way::Plain && matches!(client().map(ask), Some(Ok(Reply::Busy {}))) {
        eprintln!("{}: unmounted; another mount namespace still has it", path.display());
    }
    Ok(())
}

/// `dir` as the kernel names it. What is mounted there is asked nothing: nobody may be there to answer.
fn mounted_at(dir: &Path) -> Result<PathBuf, Failure> {
    let absolute: PathBuf = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()).components().collect();
    let is_mounted = |path: &Path| matches!(mountinfo::at(path), Ok(Some(_)));
    if is_mounted(&absolute) {
        return Ok(absolute);
    }
    if let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name())
        && let Ok(parent) = std::fs::canonicalize(parent)
        && is_mounted(&parent.join(name))
    {
        return Ok(parent.join(name));
    }
    Ok(mounting::place(dir)?)
}

/// What the daemon behind `control` has mounted, a line each.
///
/// # Errors
/// It cannot be asked.
pub(crate) fn mounts(control: &Path) -> Result<String, Failure> {
    match Client::connect(control, Duration::ZERO)?.ask(&Request::Mounts {}, None)? {
        Reply::Mounts(mounts) => Ok(mounts.iter().fold(String::new(), |mut text, mount| {
            let how = if mount.options.read_only { "ro" } else { "rw" };
            let _ = writeln!(text, "{} on {} ({how})", mount.source, mount.path);
            text
        })),
        Reply::Refused(reason) => Err(Failure::Refused(reason)),
        other => Err(Failure::Refused(strange(&other))),
    }
}

/// Asks the daemon behind `control` something that is not about mounts.
///
/// # Errors
/// It cannot be asked, or refuses.
pub(crate) fn ask(control: &Path, request: &Request) -> Result<Reply, Failure> {
    ask_within(control, request, Duration::ZERO)
}

/// The same of one that may be just starting: it is waited for up to `patience`.
///
/// # Errors
/// It cannot be asked, or refuses.
pub(crate) fn ask_within(control: &Path, request: &Request, patience: Duration) -> Result<Reply, Failure> {
    match Client::connect(control, patience)?.ask(request, None)? {
        Reply::Refused(reason) => Err(Failure::Refused(reason)),
        reply => Ok(reply),
    }
}

fn strange(reply: &Reply) -> String {
    format!("the daemon answers what was not asked: {reply:?}")
}

/// Tells how a command of the name `name` ended.
pub(crate) fn exit(name: &str, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{name}: {failure}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
