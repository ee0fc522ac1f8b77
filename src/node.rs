//! One process: opens what it keeps, wires the parts, and shuts them down in order.
//!
//! - [`Node`]: a box, which is a cluster of one, with its chunks in files. [`members`]: the nodes of a larger cluster.
//! - [`control`]: what operators ask a cluster. [`steward`]: gives boxes that joined their place. `data_dir`: whose a
//!   directory is.
//!
//! ```text
//! DATA/LOCK        held while a process has the directory open
//! DATA/identity    which store and which node this is, and the format of the directory
//! DATA/log/        Raft's log            (log)
//! DATA/catalog/    the catalog           (catalog)
//! DATA/snapshots/  received snapshots    (consensus)
//! DATA/chunks/     the bytes of a box    (file)
//! ```
//!
//! Invariant: what cannot be survived (a failed sync, an error in `apply`) ends the process; the next start recovers.

pub mod control;
mod data_dir;
mod gossip;
pub mod members;
pub mod steward;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use data_dir::{DataDir, Identity, Owner};
pub use members::{Cluster, Members};

use crate::catalog::{FEATURE_LEVEL, Ledger};
use crate::consensus::{self, Alone, Raft};
use crate::env::Env;
use crate::file::{self, Files};
use crate::ids::NodeId;
use crate::log::end_process;
use crate::object::{self, Chunks, Store, Workers};
use crate::units::MIB;
use crate::{shard, transport};
use data_dir::in_dir;

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
    /// The store of a box becomes db node 1, in the process that runs it.
    #[error("the store of a box becomes db node {BOX_NODE}, which the configuration does not give to this process")]
    NotHere,
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
    /// Shards.
    #[error("shards: {0}")]
    Shard(#[from] shard::Error),
    /// A network address.
    #[error(transparent)]
    Transport(#[from] transport::StartError),
    /// A certificate.
    #[error(transparent)]
    Certificate(#[from] transport::identity::IdentityError),
}

/// Ends the process, told why. A test may note it instead.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// The number of a box, which is alone.
const BOX_NODE: NodeId = NodeId(1);

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
    /// How long a little that is dead on a shard node may wait until its space is given back.
    pub clean_interval: Duration,
    /// The feature level of this program: [`FEATURE_LEVEL`], unless a test passes it off as another one.
    pub feature_level: u32,
    /// Of the store; `gateway` is set by [`Node::open`].
    pub store: object::Config,
    /// After what cannot be survived.
    pub fatal: Fatal,
}

impl Config {
    /// A single box in `data_dir`; what cannot be survived aborts.
    pub fn new(data_dir: impl Into<PathBuf>) -> Config {
        Config {
            data_dir: data_dir.into(),
            node: BOX_NODE,
            accept_loss: false,
            log_cache_bytes: 8 * MIB,
            catalog_cache_bytes: 8 * MIB,
            clean_interval: Duration::from_secs(60),
            feature_level: FEATURE_LEVEL,
            store: object::Config::default(),
            fatal: Arc::new(|why| end_process(why)),
        }
    }
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
        let Config { data_dir, node, accept_loss, log_cache_bytes, catalog_cache_bytes, feature_level, .. } = config;
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
        options.catalog.feature_level = feature_level;
        let raft = Raft::open(options, Arc::new(Alone)).await?;
        store_config.gateway = format!("{:032x}/{node}", directory.identity.store);
        let ledger: Arc<dyn Ledger> = Arc::new(raft.clone());
        let chunks = Chunks::in_files(node, files);
        let (store, workers) = if raft.status().read_only {
            (Store::open_read_only(env, ledger, chunks, store_config), None)
        } else {
            let store = Store::open(env, ledger, chunks, store_config).await?;
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

/// Empties the directory of the box `store`, which nobody has open: see [`DataDir::discard`]. Blocking.
///
/// # Errors
/// See there.
pub fn discard(data_dir: &Path, store: u128) -> Result<(), Error> {
    DataDir::discard(data_dir, store)
}

fn open_files(data_dir: &Path, env: &Env, node: NodeId, fatal: Fatal) -> Result<(DataDir, Files), Error> {
    let directory = DataDir::open(data_dir, env, Owner::Box(node))?;
    let files = Files::open(directory.chunks(), files_fatal(fatal))?;
    Ok((directory, files))
}

fn files_fatal(fatal: Fatal) -> file::Fatal {
    Arc::new(move |error| fatal(&format!("chunk files could not be synced: {error}")))
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
        let put = Put { bucket: "bucket".into(), owner: None, key: key.into(), attrs: Attrs::default(), precondition };
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
}
