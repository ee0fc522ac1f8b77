//! Access keys, users, roles, groups and policies that a control plane keeps in JetStream's key-value buckets, as Spinifex
//! does: mirrored here, so that a request asks nobody.
//!
//! - `records`: what the buckets hold. `mirror`: who somebody is and may what, by what they hold. `watch`: keeping the mirror up.
//!
//! Invariants
//! - Nothing here is written to the bus.
//! - What cannot be understood allows nothing: a policy that is missing or makes no sense is no policy left out.
//! - A key is known only while the mirror is known to be what the server has; who has it is unknown otherwise, not denied.

mod mirror;
mod records;
mod watch;

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use predastore::object::access::{Caller, Directory, Unknown};

pub use mirror::Key;
use mirror::Mirror;
pub(crate) use watch::Watcher;

/// The mirror is taken for what the server has as long as that was so no longer ago than this.
const FRESH: Duration = Duration::from_secs(10);

/// What is wrong with the key that secrets are sealed under.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// Anybody may read it, or write it.
    #[error("{0}: others than its owner and group may read or write it")]
    Open(PathBuf),
    /// It is no key.
    #[error("{path}: a master key has 32 bytes, and this one {len}")]
    Length {
        /// Where.
        path: PathBuf,
        /// Bytes that it has.
        len: usize,
    },
}

/// Reads the key that secrets are sealed under.
///
/// # Errors
/// `Read`, `Open`, `Length`.
pub fn read_key(path: &Path) -> Result<Key, Error> {
    let unreadable = |error| Error::Read { path: path.to_owned(), error };
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(Error::Open(path.to_owned()));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let len = bytes.len();
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| Error::Length { path: path.to_owned(), len })?;
    Ok(Key::new(&bytes))
}

/// The directory: cheap to clone, and kept up by a [`Watcher`].
#[derive(Clone)]
pub struct Iam {
    shared: Arc<Mutex<Shared>>,
}

impl fmt::Debug for Iam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Iam(..)")
    }
}

struct Shared {
    mirror: Mirror,
    /// When it was known last that the mirror is what the server has; none: never.
    verified: Option<Instant>,
    /// Why it is not now.
    why: String,
}

impl Iam {
    /// Knows nobody yet. `key`: what secrets are sealed under.
    pub fn new(key: Key) -> Iam {
        let why = "the buckets have not been read yet".to_owned();
        Iam { shared: Arc::new(Mutex::new(Shared { mirror: Mirror::new(key), verified: None, why })) }
    }

    fn with<R>(&self, work: impl FnOnce(&mut Shared) -> R) -> R {
        work(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Directory for Iam {
    fn caller(&self, access_key_id: &str) -> Result<Option<Arc<Caller>>, Unknown> {
        self.with(|shared| match shared.verified {
            Some(at) if at.elapsed() < FRESH => shared.mirror.caller(access_key_id),
            Some(_) | None => Err(Unknown::Away(shared.why.clone())),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_is_32_bytes_that_not_everybody_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, len: usize, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, vec![1; len]).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read_key(&path).err().map(|error| error.to_string())
        };
        assert_eq!(file("good", 32, 0o640), None);
        assert!(file("open", 32, 0o644).unwrap().contains("others than its owner"));
        assert!(file("short", 31, 0o600).unwrap().contains("32 bytes, and this one 31"));
        assert!(read_key(&dir.path().join("none")).is_err());
    }

    #[test]
    fn nobody_is_known_before_the_buckets_are_and_that_is_no_denial() {
        let iam = Iam::new(Key::new(&[7; 32]));
        assert!(matches!(iam.caller("AKIA"), Err(Unknown::Away(_))));
        iam.with(|shared| shared.verified = Some(Instant::now()));
        assert!(matches!(iam.caller("AKIA"), Ok(None)));
    }
}
