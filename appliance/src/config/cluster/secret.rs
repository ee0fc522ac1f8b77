//! The cluster's secret, from its file.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::geteuid;
use predastore::transport::identity::Secret;

use super::super::{Error, conflict};

/// More than any secret needs; what is longer is another file.
const FILE_MAX_BYTES: u64 = 64 << 10;

const HOW: &str = "`(umask 077; openssl rand -hex 32 > FILE)` makes one, for all nodes the same";

/// Reads `file`.
///
/// # Errors
/// There is none; it cannot be read; others can read it; what it holds is no secret.
pub(super) fn read(file: Option<&Path>) -> Result<Secret, Error> {
    let Some(path) = file.filter(|path| !path.as_os_str().is_empty()) else {
        return conflict(format!(
            "`cluster.secret_file` is not set: the nodes of a cluster know each other by a secret; {HOW}"
        ));
    };
    let wrong = |why: String| Error::Conflict(format!("`cluster.secret_file`: {}: {why}", path.display()));
    let (metadata, content) = content(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => wrong(format!("there is no such file; {HOW}")),
        _ => wrong(error.to_string()),
    })?;
    if content.len() as u64 > FILE_MAX_BYTES {
        return Err(wrong("this is no secret: it is longer than 64KiB".to_owned()));
    }
    if let Some(why) = exposed(metadata.mode(), metadata.uid(), geteuid().as_raw()) {
        return Err(wrong(why));
    }
    Secret::new(&content).map_err(|error| wrong(error.to_string()))
}

/// Of one open file, so that what was judged is what was read.
fn content(path: &Path) -> io::Result<(Metadata, Vec<u8>)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut content = Vec::new();
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut content)?;
    Ok((metadata, content))
}

/// Why a file of that mode and owner is not ours alone. One that root owns and lends to the daemon's group is: how else
/// would a daemon read what it may not change?
fn exposed(mode: u32, owner: u32, user: u32) -> Option<String> {
    let lent = owner == 0 && user != 0;
    let forbidden = if lent { 0o037 } else { 0o077 };
    let mode = mode & 0o777;
    let mend = if lent { "chmod 0640" } else { "chmod 0600" };
    (mode & forbidden != 0).then(|| format!("its mode is {mode:04o}: others can read or change it; {mend} it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_its_owners_or_lent_by_root_to_a_group() {
        for (mode, owner, user) in [(0o100600, 7, 7), (0o100400, 0, 0), (0o100640, 0, 7), (0o100440, 0, 7)] {
            assert_eq!(exposed(mode, owner, user), None, "{mode:o} of {owner} for {user}");
        }
        for (mode, owner, user) in
            [(0o640, 7, 7), (0o604, 7, 7), (0o644, 0, 7), (0o660, 0, 7), (0o640, 0, 0), (0o640, 8, 7), (0o620, 7, 7)]
        {
            assert!(exposed(mode, owner, user).is_some(), "{mode:o} of {owner} for {user}");
        }
    }
}
