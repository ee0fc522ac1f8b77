//! One process: opens what it keeps in its data directory, wires the parts, and shuts them down in order.
//!
//! ```text
//! DATA/LOCK        held while a process has the directory open
//! DATA/identity    which store and which node this is, and the format of the directory
//! DATA/log/        Raft's log            (log)
//! DATA/catalog/    the catalog           (catalog)
//! DATA/snapshots/  received snapshots    (consensus)
//! DATA/chunks/     the bytes             (file)
//! ```
//!
//! Invariants
//! - One process at a time: the lock is taken before anything is read, and given back after all is closed.
//! - The identity is durable before anything is stored under it.
//! - What cannot be survived (a failed sync, an error in `apply`) ends the process; the next start recovers.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};

use crate::catalog::Ledger;
use crate::consensus::{self, Alone, Raft};
use crate::env::Env;
use crate::file::{self, Files};
use crate::ids::NodeId;
use crate::object::{self, Store, Workers};
use crate::units::MIB;

/// What goes wrong when a node is opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("{} is in use by another process", .dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// The identity file says something else than expected.
    #[error("{}: {what}", .path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There is no store.
    #[error("there is no store in {}", .dir.display())]
    NoStore {
        /// The data directory.
        dir: PathBuf,
    },
    /// A file or directory.
    #[error("the data directory {}: {error}", .dir.display())]
    Io {
        /// The data directory.
        dir: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
    /// Log and catalog.
    #[error(transparent)]
    Consensus(#[from] consensus::Error),
    /// Chunk files.
    #[error(transparent)]
    File(#[from] file::Error),
    /// The store.
    #[error(transparent)]
    Object(#[from] object::Error),
}

/// Ends the process, told why. A test may note it instead.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// How a node runs.
#[derive(Clone)]
pub struct Config {
    /// Everything the node keeps.
    pub data_dir: PathBuf,
    /// Which node this is; fixed at the first start.
    pub node: NodeId,
    /// Go on with a log that has lost acknowledged entries; what `s3d recover` does, once.
    pub accept_loss: bool,
    /// Memory for the newest entries of the log, bytes.
    pub log_cache_bytes: u64,
    /// Memory for pages of the catalog, bytes.
    pub catalog_cache_bytes: u64,
    /// Of the store; `gateway` and `node` are set by [`Node::open`].
    pub store: object::Config,
    /// After what cannot be survived.
    pub fatal: Fatal,
}

impl Config {
    /// A single box in `data_dir`; what cannot be survived aborts.
    pub fn new(data_dir: impl Into<PathBuf>) -> Config {
        Config {
            data_dir: data_dir.into(),
            node: NodeId(1),
            accept_loss: false,
            log_cache_bytes: 8 * MIB,
            catalog_cache_bytes: 8 * MIB,
            store: object::Config::default(),
            fatal: Arc::new(abort),
        }
    }
}

fn abort(why: &str) {
    tracing::error!("{why}; stopping, to recover at the next start");
    std::process::abort();
}

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
    /// Random, of the store's first start.
    pub store: u128,
    /// Which node of it.
    pub node: NodeId,
}

const FORMAT: &str = "predastore data 1";

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{FORMAT}\nstore {:032x}\nnode {}\n", self.store, self.node)
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
        let node = field("node ").parse().map_err(|error| format!("node: {error}"))?;
        Ok(Identity { store, node: NodeId(node) })
    }
}

impl DataDir {
    /// Opens a data directory, or makes one of `node`.
    ///
    /// # Errors
    /// `Locked`; `Identity`: another node's, or of a later format; `Io`.
    pub fn open(path: &Path, env: &Env, node: NodeId) -> Result<DataDir, Error> {
        // Nobody else reads what is stored behind signatures; what lies below is made with the process's umask.
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(in_dir(path))?;
        let lock = lock(path)?;
        let identity = match read_identity(path)? {
            Some(found) if found.node == node => found,
            Some(found) => return Err(wrong_identity(path, format!("this is node {}, not {node}", found.node))),
            None => write_identity(path, env, node).map_err(in_dir(path))?,
        };
        Ok(DataDir { path: path.to_owned(), identity, _lock: lock })
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

    /// How log and catalog are opened.
    pub fn consensus(&self, fatal: Fatal) -> consensus::Options {
        let mut options = consensus::Options::new(&self.path, self.identity.node);
        options.log_file_len_bytes = log_file_bytes(&self.path);
        options.fatal = fatal;
        options
    }
}

/// A few log files are kept pre-written: on a small disk they are small.
fn log_file_bytes(path: &Path) -> u64 {
    let total_bytes = nix::sys::statvfs::statvfs(path).map_or(0, |stat| stat.blocks() * stat.fragment_size());
    (total_bytes / 64).clamp(4 * MIB, 64 * MIB)
}

fn in_dir(dir: &Path) -> impl FnOnce(io::Error) -> Error {
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

fn write_identity(path: &Path, env: &Env, node: NodeId) -> io::Result<Identity> {
    let store = u128::from(env.random_u64()) << 64 | u128::from(env.random_u64());
    let identity = Identity { store, node };
    let temporary = path.join("identity.new");
    let mut file = File::create(&temporary)?;
    file.write_all(identity.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path.join("identity"))?;
    File::open(path)?.sync_all()?;
    Ok(identity)
}

/// A running node.
pub struct Node {
    /// What frontends see.
    pub store: Store,
    raft: Raft,
    workers: Option<Workers>,
    directory: DataDir,
}

impl Node {
    /// Opens the node in `config.data_dir`, which becomes a single box if it is empty. A node whose log has lost
    /// acknowledged entries only serves reads ([`consensus::Status::read_only`]).
    ///
    /// # Errors
    /// What was found cannot be used: see [`Error`].
    pub async fn open(env: Env, config: Config) -> Result<Node, Error> {
        let Config { data_dir, node, accept_loss, log_cache_bytes, catalog_cache_bytes, .. } = config;
        let (mut store_config, fatal) = (config.store, config.fatal);
        let opened = {
            let (data_dir, env, fatal) = (data_dir.clone(), env.clone(), fatal.clone());
            tokio::task::spawn_blocking(move || open_files(&data_dir, &env, node, fatal))
        };
        let (directory, files) = opened.await.map_err(|error| in_dir(&data_dir)(io::Error::other(error)))??;
        let mut options = directory.consensus(fatal);
        options.accept_loss = accept_loss;
        options.log_cache_len_bytes = usize::try_from(log_cache_bytes).unwrap_or(usize::MAX);
        options.catalog.cache_bytes = catalog_cache_bytes;
        let raft = Raft::open(options, Arc::new(Alone)).await?;
        store_config.gateway = format!("{:032x}/{node}", directory.identity.store);
        store_config.node = node;
        let ledger: Arc<dyn Ledger> = Arc::new(raft.clone());
        let (store, workers) = if raft.status().read_only {
            (Store::open_read_only(env, ledger, files, store_config), None)
        } else {
            let store = Store::open(env, ledger, files, store_config).await?;
            let workers = Workers::start(&store);
            (store, Some(workers))
        };
        Ok(Node { store, raft, workers, directory })
    }

    /// Which store and node this is.
    pub fn identity(&self) -> Identity {
        self.directory.identity
    }

    /// How log and catalog stand.
    pub fn status(&self) -> consensus::Status {
        self.raft.status()
    }

    /// Stops the workers, then closes log and catalog, then gives the directory back. What frontends still ask for
    /// afterwards is `Unavailable`: let them finish first.
    pub async fn shutdown(self) {
        if let Some(workers) = self.workers {
            workers.stop().await;
        }
        self.raft.shutdown().await;
        drop(self.directory);
    }
}

fn open_files(data_dir: &Path, env: &Env, node: NodeId, fatal: Fatal) -> Result<(DataDir, Files), Error> {
    let directory = DataDir::open(data_dir, env, node)?;
    let fatal: file::Fatal = Arc::new(move |error| fatal(&format!("chunk files could not be synced: {error}")));
    let files = Files::open(directory.chunks(), fatal)?;
    Ok((directory, files))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bytes::Bytes;

    use crate::catalog::{Attrs, Checksum, Precondition};
    use crate::object::{Incoming, Put, Source, Target};

    fn config(dir: &tempfile::TempDir) -> Config {
        Config { fatal: Arc::new(|why| panic!("{why}")), ..Config::new(dir.path().join("data")) }
    }

    /// A body in one run.
    struct Once(Option<Bytes>);

    impl Source for Once {
        async fn next(&mut self) -> Result<Option<Bytes>, ()> {
            Ok(self.0.take())
        }
        fn promised(&self) -> Vec<Checksum> {
            Vec::new()
        }
    }

    /// Stores an object in the bucket `bucket`.
    pub(crate) async fn put(store: &Store, key: &str, body: Vec<u8>) {
        let precondition = Precondition::default();
        let put = Put { bucket: "bucket".into(), key: key.into(), attrs: Attrs::default(), precondition };
        store.put(put, Incoming::default(), &mut Once(Some(body.into()))).await.unwrap();
    }

    async fn get(store: &Store, key: &str) -> Vec<u8> {
        let target = Target { bucket: "bucket".into(), key: key.into(), version: None };
        let object = store.get(&target).await.unwrap();
        let size_bytes = object.version.size_bytes;
        let (mut reader, mut bytes) = (object.read(0..size_bytes), Vec::new());
        while let Some(run) = reader.next().await {
            bytes.extend_from_slice(&run.unwrap());
        }
        bytes
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_keeps_everything_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::open(Env::system(), config(&dir)).await.unwrap();
        let identity = node.identity();
        node.store.create_bucket("bucket", "owner", "here", false).await.unwrap();
        put(&node.store, "small", b"inline".to_vec()).await;
        put(&node.store, "large", vec![7; 100_000]).await;
        let second = Node::open(Env::system(), config(&dir)).await;
        assert!(matches!(second, Err(Error::Locked { .. })));
        node.shutdown().await;
        let other = Config { node: NodeId(2), ..config(&dir) };
        assert!(matches!(Node::open(Env::system(), other).await, Err(Error::Identity { .. })));

        let node = Node::open(Env::system(), config(&dir)).await.unwrap();
        assert_eq!(node.identity(), identity);
        assert_eq!(get(&node.store, "small").await, b"inline");
        assert_eq!(get(&node.store, "large").await, vec![7; 100_000]);
        put(&node.store, "small", b"again".to_vec()).await;
        assert_eq!(get(&node.store, "small").await, b"again");
        node.shutdown().await;
    }

    #[test]
    fn an_identity_is_text_that_reads_back() {
        let identity = Identity { store: 0xabc, node: NodeId(3) };
        let text = identity.to_string();
        assert_eq!(text, "predastore data 1\nstore 00000000000000000000000000000abc\nnode 3\n");
        assert_eq!(text.parse(), Ok(identity));
        for text in ["", "predastore data 2\nstore 0\nnode 1\n", "predastore data 1\nstore x\nnode 1\n"] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }
}
