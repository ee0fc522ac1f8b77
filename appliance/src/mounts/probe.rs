//! Whether a mount answers, asked by a child process: who asks a file system that does not answer may be stuck until it
//! is aborted, and cannot even be killed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;

/// The name under which this program is called to ask.
pub(crate) const NAME: &str = "predastore-probe";

/// Between two looks whether the child has an answer.
const PAUSE: Duration = Duration::from_millis(5);

/// Why a mount is taken for one that does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It says so.
    #[error("{}", .0.desc())]
    Answer(Errno),
    /// It says nothing.
    #[error("it gave no answer for {} s", .0.as_secs())]
    Silent(Duration),
    /// Nobody could be sent to ask.
    #[error("no process to ask it: {0}")]
    Child(io::Error),
}

/// Asks the mount at `path`, for at most `patience`.
///
/// # Errors
/// What it answered; that it did not.
pub(crate) fn ask(path: &Path, patience: Duration) -> Result<(), Error> {
    let child = Command::new("/proc/self/exe")
        .arg0(NAME)
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(Error::Child)?;
    let end = Instant::now() + patience;
    while Instant::now() < end {
        match child.try_wait().map_err(Error::Child)?.map(|status| status.code()) {
            Some(Some(0)) => return Ok(()),
            Some(Some(errno)) => return Err(Error::Answer(Errno::from_raw(errno))),
            Some(None) => return Err(Error::Child(io::Error::other("it was killed"))),
            None => thread::sleep(PAUSE),
        }
    }
    abandon(child);
    Err(Error::Silent(patience))
}

/// Kills the child; somebody must wait for it, and that may take until the mount is aborted.
fn abandon(mut child: Child) {
    let _ = child.kill();
    thread::spawn(move || child.wait());
}

/// The child: asks the path among `arguments`; the exit code is the error's number.
pub(crate) fn answer(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let path = arguments.next().unwrap_or_default();
    match statvfs::<OsStr>(&path) {
        Ok(_) => ExitCode::SUCCESS,
        Err(errno) => ExitCode::from(u8::try_from(errno as i32).unwrap_or(u8::MAX)),
    }
}
