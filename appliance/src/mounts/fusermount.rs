//! Mounts of a user without privileges, through the suid program `fusermount3` of Debian's package fuse3.
//!
//! It mounts, and hands the descriptor of /dev/fuse back over the socket whose number it finds in `_FUSE_COMMFD`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::MsFlags;

use super::fdpass;
use super::kernel::MAX_READ_BYTES;
use super::options::{self, Options, Source};

const PROGRAM: &str = "fusermount3";

/// Why it did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not there, or cannot be run.
    #[error("{PROGRAM} cannot be run (is the package fuse3 installed?): {0}")]
    Run(io::Error),
    /// What it says.
    #[error("{0}")]
    Said(String),
    /// No descriptor came back.
    #[error("{PROGRAM} handed no descriptor back: {0}")]
    NoDescriptor(io::Error),
}

/// Mounts at `path`, and gives the descriptor to serve it on.
///
/// # Errors
/// What the program says.
pub(crate) fn mount(source: &Source, path: &Path, options: &Options) -> Result<OwnedFd, Error> {
    let (ours, theirs) = UnixStream::pair().map_err(Error::Run)?;
    // As its stdin, for no other descriptor is inherited.
    let command = Command::new(PROGRAM)
        .arg("-o")
        .arg(words(source, options))
        .arg("--")
        .arg(path)
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .output();
    said(command)?;
    let received = fdpass::receive(ours.as_fd(), &mut [0; 1]).map_err(Error::NoDescriptor)?;
    received.1.into_iter().next().ok_or_else(|| Error::NoDescriptor(io::ErrorKind::UnexpectedEof.into()))
}

/// Unmounts `path`; `lazy`: also if it is in use.
///
/// # Errors
/// What the program says.
pub(crate) fn unmount(path: &Path, lazy: bool) -> Result<(), Error> {
    let flags = if lazy { &["-u", "-z"][..] } else { &["-u"] };
    said(Command::new(PROGRAM).args(flags).arg("--").arg(path).stdin(Stdio::null()).output())
}

fn said(output: io::Result<std::process::Output>) -> Result<(), Error> {
    let output = output.map_err(Error::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(Error::Said(if text.is_empty() { format!("{PROGRAM}: {}", output.status) } else { text }))
}

/// What it is to hand to the kernel. Of mount(2)'s flags it knows these; nosuid and nodev it sets itself.
fn words(source: &Source, options: &Options) -> String {
    let passed = MsFlags::MS_RDONLY
        | MsFlags::MS_NOEXEC
        | MsFlags::MS_SYNCHRONOUS
        | MsFlags::MS_DIRSYNC
        | MsFlags::MS_NOATIME
        | MsFlags::MS_NODIRATIME;
    let name = source.to_string().replace('\\', "\\\\").replace(',', "\\,");
    let mut words = vec![
        format!("fsname={name}"),
        "subtype=predastore".to_owned(),
        "default_permissions".to_owned(),
        format!("max_read={MAX_READ_BYTES}"),
    ];
    words.extend(options.allow_other.then(|| "allow_other".to_owned()));
    words.extend(options::words(options.flags & passed).map(str::to_owned));
    words.join(",")
}

/// Whether the program is there at all.
pub(crate) fn is_there() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(OsStr::new(PROGRAM)).is_file())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_with_commas_stays_one_word() {
        let source: Source = "photos/a,b\\c".parse().unwrap();
        let options = Options::parse(["ro,suid,noatime,relatime,allow_other"], false).unwrap();
        assert_eq!(
            words(&source, &options),
            "fsname=photos/a\\,b\\\\c,subtype=predastore,default_permissions,max_read=1048576,allow_other,ro"
        );
    }
}
