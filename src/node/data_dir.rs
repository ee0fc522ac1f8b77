//! A data directory: whose it is, and that no other process has it.
//!
//! Invariants
//! - One process at a time: the lock is taken before anything is read, and given back after all is closed.
//! - The identity is durable before anything is stored under it, and a directory is never taken for another node's.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::fcntl::{Flock, FlockArg};

use super::{Error, Fatal};
use crate::consensus;
use crate::env::Env;
use crate::ids::NodeId;
use crate::transport::Role;
use crate::units::MIB;

/// A data directory that is this process's alone.
pub struct DataDir {
    path: PathBuf,
    /// Which store and node it belongs to.
    pub identity: Identity,
    _lock: Flock<File>,
}

/// Which store and which node a data directory belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// A box: random, of its first start. A cluster: of its secret.
    pub store: u128,
    /// As what, in a cluster; none: a box.
    pub role: Option<Role>,
    /// Which node of it.
    pub node: NodeId,
}

/// Whose a directory is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A box of this number.
    Box(NodeId),
    /// A node of a cluster.
    Member {
        /// The cluster.
        store: u128,
        /// As what.
        role: Role,
        /// Which.
        node: NodeId,
    },
}

impl Owner {
    /// The identity of a new directory.
    fn identity(self, env: &Env) -> Identity {
        match self {
            Owner::Box(node) => {
                let store = u128::from(env.random_u64()) << 64 | u128::from(env.random_u64());
                Identity { store, role: None, node }
            }
            Owner::Member { store, role, node } => Identity { store, role: Some(role), node },
        }
    }

    /// What the identity of a box, or of a node that was one, is to be.
    fn adopted(self, found: &Identity) -> Result<Identity, String> {
        match self {
            Owner::Member { store, role: Role::Db, node } if (found.role, found.node) == (None, node) => {
                Ok(Identity { store, role: Some(Role::Db), node })
            }
            owner => owner.check(found).map(|()| *found),
        }
    }

    /// Whether it is the owner of what has that identity; or in which way it is not.
    fn check(self, found: &Identity) -> Result<(), String> {
        let (store, role, node) = match self {
            Owner::Box(node) => (found.store, None, node),
            Owner::Member { store, role, node } => (store, Some(role), node),
        };
        if found.role.is_none() && role == Some(Role::Db) && found.node == node {
            let how = "`s3d cluster adopt` makes it the cluster's";
            return Err(format!("this is the store of a box, and no cluster's yet: {how}"));
        }
        if (found.role, found.node) != (role, node) {
            return Err(format!("this is node {}, not {}", name(found.role, found.node), name(role, node)));
        }
        match found.store == store {
            true => Ok(()),
            false => Err("this is a node of a cluster with another secret".into()),
        }
    }
}

/// `3` in a box, `db-3` in a cluster.
fn name(role: Option<Role>, node: NodeId) -> String {
    let prefix = match role {
        None => "",
        Some(Role::Db) => "db-",
        Some(Role::Shard) => "shard-",
        Some(Role::Gateway) => "gateway-",
    };
    format!("{prefix}{node}")
}

const FORMAT: &str = "predastore data 1";

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORMAT}\nstore {:032x}\nnode {}\n", self.store, name(self.role, self.node))
    }
}

impl FromStr for Identity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        match lines.next() {
            Some(FORMAT) => {}
            first => return Err(format!("{:?} is not {FORMAT:?}", first.unwrap_or_default())),
        }
        let mut field = |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let store = u128::from_str_radix(field("store "), 16).map_err(|error| format!("store: {error}"))?;
        let name = field("node ");
        let (role, number) = match name.split_once('-') {
            None => (None, name),
            Some(("db", number)) => (Some(Role::Db), number),
            Some(("shard", number)) => (Some(Role::Shard), number),
            Some(("gateway", number)) => (Some(Role::Gateway), number),
            Some(_) => return Err(format!("node: {name:?}")),
        };
        let node = number.parse().map_err(|error| format!("node: {error}"))?;
        Ok(Identity { store, role, node: NodeId(node) })
    }
}

impl DataDir {
    /// Opens a data directory, or makes one for `owner`.
    ///
    /// # Errors
    /// `Locked`; `Identity`: another node's, or of a later format; `Io`.
    pub fn open(path: &Path, env: &Env, owner: Owner) -> Result<DataDir, Error> {
        // Nobody else reads what is stored behind signatures; what lies below is made with the process's umask.
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(in_dir(path))?;
        let lock = lock(path)?;
        let identity = match read_identity(path)? {
            Some(found) => owner.check(&found).map(|()| found).map_err(|what| wrong_identity(path, what))?,
            None => write_identity(path, owner.identity(env)).map_err(in_dir(path))?,
        };
        Ok(DataDir { path: path.to_owned(), identity, _lock: lock })
    }

    /// Makes the store of a box that of the db node `owner`; its log, its catalog and its files stay as they are. There is
    /// no way back. Nothing changes where it is that node's already.
    ///
    /// # Errors
    /// `NoStore`, `Locked`, `Io`; `Identity`: it is neither that node nor a box of its number.
    pub fn adopt(path: &Path, owner: Owner) -> Result<DataDir, Error> {
        let mut directory = DataDir::open_existing(path)?;
        let identity = owner.adopted(&directory.identity).map_err(|what| wrong_identity(path, what))?;
        if identity != directory.identity {
            directory.identity = write_identity(path, identity).map_err(in_dir(path))?;
        }
        Ok(directory)
    }

    /// Whether [`DataDir::adopt`] would succeed. Changes nothing.
    ///
    /// # Errors
    /// As of it.
    pub fn may_adopt(path: &Path, owner: Owner) -> Result<(), Error> {
        let directory = DataDir::open_existing(path)?;
        owner.adopted(&directory.identity).map(drop).map_err(|what| wrong_identity(path, what))
    }

    /// Empties the directory of the box `store`: neither identity nor log, catalog or files stay. Goes on where it was broken
    /// off. Nothing happens where it is a cluster's node by now.
    ///
    /// # Errors
    /// `Locked`, `Io`; `Identity`: another box's.
    pub fn discard(path: &Path, store: u128) -> Result<(), Error> {
        let _lock = lock(path)?;
        match read_identity(path)? {
            Some(Identity { role: Some(_), .. }) => return Ok(()),
            Some(found) if found.store != store => {
                return Err(wrong_identity(path, "this is another store than the one that was empty".to_owned()));
            }
            Some(_) => {
                fs::remove_file(path.join("identity")).map_err(in_dir(path))?;
                File::open(path).and_then(|dir| dir.sync_all()).map_err(in_dir(path))?;
            }
            None => {}
        }
        for name in ["log", "catalog", "snapshots", "chunks"] {
            match fs::remove_dir_all(path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(in_dir(path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens a data directory that is there.
    ///
    /// # Errors
    /// `NoStore`, `Locked`, `Identity`, `Io`.
    pub fn open_existing(path: &Path) -> Result<DataDir, Error> {
        let no_store = || Error::NoStore { dir: path.to_owned() };
        read_identity(path)?.ok_or_else(no_store)?;
        let lock = lock(path)?;
        let identity = read_identity(path)?.ok_or_else(no_store)?;
        Ok(DataDir { path: path.to_owned(), identity, _lock: lock })
    }

    /// Where the log is.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the chunks are.
    pub fn chunks(&self) -> PathBuf {
        self.path.join("chunks")
    }

    /// Where the shards are.
    pub fn shards(&self) -> PathBuf {
        self.path.join("shards")
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How log and catalog are opened.
    pub fn consensus(&self, fatal: Fatal) -> consensus::Options {
        let mut options = consensus::Options::new(&self.path, self.identity.node);
        options.log_file_len_bytes = log_file_bytes(&self.path);
        options.fatal = fatal;
        options
    }
}

/// A few log files are kept pre-written: on a small disk they are small.
pub(super) fn log_file_bytes(path: &Path) -> u64 {
    let total_bytes = nix::sys::statvfs::statvfs(path).map_or(0, |stat| stat.blocks() * stat.fragment_size());
    (total_bytes / 64).clamp(4 * MIB, 64 * MIB)
}

pub(super) fn in_dir(dir: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::Io { dir: dir.to_owned(), error }
}

fn lock(path: &Path) -> Result<Flock<File>, Error> {
    let file =
        File::options().create(true).truncate(false).write(true).open(path.join("LOCK")).map_err(in_dir(path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => Error::Locked { dir: path.to_owned() },
        errno => in_dir(path)(errno.into()),
    })
}

fn wrong_identity(path: &Path, what: String) -> Error {
    Error::Identity { path: path.join("identity"), what }
}

fn read_identity(path: &Path) -> Result<Option<Identity>, Error> {
    match fs::read_to_string(path.join("identity")) {
        Ok(text) => text.parse().map(Some).map_err(|what| wrong_identity(path, what)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(in_dir(path)(error)),
    }
}

fn write_identity(path: &Path, identity: Identity) -> io::Result<Identity> {
    replace_file(path, "identity", identity.to_string().as_bytes())?;
    Ok(identity)
}

/// Has a small file hold `bytes`, or what it held before.
pub(super) fn replace_file(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_identity_is_text_that_reads_back() {
        let identity = |role, node| Identity { store: 0xabc, role, node: NodeId(node) };
        let text = identity(None, 3).to_string();
        assert_eq!(text, "predastore data 1\nstore 00000000000000000000000000000abc\nnode 3\n");
        for (role, node) in [(None, 3), (Some(Role::Db), 0), (Some(Role::Shard), 12), (Some(Role::Gateway), 1)] {
            assert_eq!(identity(role, node).to_string().parse(), Ok(identity(role, node)));
        }
        for text in ["", "predastore data 2\nstore 0\nnode 1\n", "predastore data 1\nstore x\nnode 1\n"] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
        assert!("predastore data 1\nstore 0\nnode disk-1\n".parse::<Identity>().is_err());
    }

    #[test]
    fn an_empty_box_is_discarded_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let open = |owner| DataDir::open(dir.path(), &Env::system(), owner).map(|dir| dir.identity);
        let store = open(Owner::Box(NodeId(1))).unwrap().store;
        let fill = || {
            for name in ["log", "catalog", "chunks", "keys"] {
                fs::create_dir_all(dir.path().join(name)).unwrap();
                fs::write(dir.path().join(name).join("file"), "").unwrap();
            }
        };
        let left = || ["log", "catalog", "chunks", "keys"].map(|name| dir.path().join(name).exists());
        fill();
        let held = DataDir::open_existing(dir.path()).unwrap();
        assert!(matches!(DataDir::discard(dir.path(), store), Err(Error::Locked { .. })));
        drop(held);
        assert!(matches!(DataDir::discard(dir.path(), store ^ 1), Err(Error::Identity { .. })));
        assert_eq!(left(), [true; 4]);
        DataDir::discard(dir.path(), store).unwrap();
        assert_eq!(left(), [false, false, false, true]);
        fill();
        DataDir::discard(dir.path(), store).unwrap();
        assert_eq!(left(), [false, false, false, true], "it goes on where it was broken off");
        open(Owner::Member { store: 7, role: Role::Db, node: NodeId(2) }).unwrap();
        fill();
        DataDir::discard(dir.path(), store).unwrap();
        assert_eq!(left(), [true; 4], "a cluster's node is not touched");
    }

    #[test]
    fn a_box_becomes_the_db_node_of_its_number_once_it_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let db = |store, node| Owner::Member { store, role: Role::Db, node: NodeId(node) };
        let open = |owner| DataDir::open(dir.path(), &Env::system(), owner).map(|dir| dir.identity);
        let adopt = |owner| DataDir::adopt(dir.path(), owner).map(|dir| dir.identity);
        assert!(matches!(adopt(db(7, 1)), Err(Error::NoStore { .. })));
        open(Owner::Box(NodeId(1))).unwrap();
        let asks = open(db(7, 1)).unwrap_err().to_string();
        assert!(asks.contains("cluster adopt"), "{asks}");
        let shard = Owner::Member { store: 7, role: Role::Shard, node: NodeId(1) };
        for owner in [db(7, 2), shard] {
            assert!(matches!(adopt(owner), Err(Error::Identity { .. })), "{owner:?}");
        }
        open(Owner::Box(NodeId(1))).unwrap();
        let identity = Identity { store: 7, role: Some(Role::Db), node: NodeId(1) };
        assert_eq!(adopt(db(7, 1)).unwrap(), identity);
        assert_eq!(adopt(db(7, 1)).unwrap(), identity);
        assert_eq!(open(db(7, 1)).unwrap(), identity);
        for owner in [db(8, 1), Owner::Box(NodeId(1))] {
            assert!(open(owner).is_err() && adopt(owner).is_err(), "{owner:?}");
        }
    }

    #[test]
    fn a_directory_refuses_to_be_another_node() {
        let dir = tempfile::tempdir().unwrap();
        let member = |store, role, node| Owner::Member { store, role, node: NodeId(node) };
        let open = |owner| DataDir::open(dir.path(), &Env::system(), owner).map(|dir| dir.identity);
        let first = open(member(7, Role::Shard, 1)).unwrap();
        assert_eq!(open(member(7, Role::Shard, 1)).unwrap(), first);
        let others =
            [member(7, Role::Shard, 2), member(7, Role::Db, 1), member(8, Role::Shard, 1), Owner::Box(NodeId(1))];
        for owner in others {
            assert!(matches!(open(owner), Err(Error::Identity { .. })), "{owner:?}");
        }
    }
}
