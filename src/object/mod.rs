//! The front door: object semantics over the catalog and the chunk files. All that a frontend sees.
//!
//! - `put`: bytes in: received, digested, stored; then named by one command. `upload`: the same by parts.
//! - `snapshot`: whole prefixes copied, moving nothing.
//! - `read`: bytes out: version and manifest from one snapshot, every byte verified. `copy`: both, moving nothing.
//! - `sink`: where incoming bytes go; `chunks`: where chunks are: files, or shards by `striped`.
//! - `bucket`, `key`: buckets; deleting, changing and listing keys.
//! - `session`: at-most-once proposals, leased ids, the read watermark. `budget`, `room`: memory and disk.
//! - `map`: the cluster's map; `mover`: chunks brought to where it wants them; `repair`: chunks below target made whole;
//!   `recount`: finding them, by counting and by scrubbing; `progress`: how far that is.
//! - `verify`: the scrub of a box.
//! - `reclaim`, `sweep`, `stray`: giving back what nothing names; `expiry`: ending dead sessions; `worker`: when.
//!   In a cluster the process that leads does these for all.
//!
//! Invariants
//! - Bytes first, names second: a chunk is durable before the command that names it is proposed.
//! - A chunk's file is removed by its writer only if no command that names it was proposed, or after a definite
//!   refusal. What is unknown is left to the sweep.
//! - A version and its manifest come from one snapshot, and what that snapshot names is kept until the read ends.
//! - No call holds more bytes than it took from the budget at its entrance.

pub mod access;
mod bucket;
mod budget;
mod chunks;
mod copy;
mod digest;
mod event;
mod expiry;
pub mod join;
mod key;
mod lanes;
mod map;
mod mover;
mod progress;
mod put;
mod read;
mod reclaim;
mod record;
mod recount;
mod repair;
mod room;
mod session;
mod sink;
mod snapshot;
mod stray;
mod striped;
mod sweep;
pub mod tree;
mod upload;
mod verify;
mod worker;

use std::future::Future;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::catalog::{
    self, Attrs, Checksum, ChecksumAlgorithm, ChecksumKind, Ledger, LedgerError, Precondition, Refusal, View, Written,
};
use crate::env::{Env, Timestamp};
use crate::file::{self, remote::RemoteError};
use crate::ids::VersionId;
use crate::patient;
use crate::units::{BLOCK_BYTES, MIB};

pub use chunks::Chunks;
pub use digest::is_body_of;
pub use event::{Backlog, Renamed, Waiting};
pub use key::Found;
pub use map::OnMap;
pub(crate) use map::placed;
pub use mover::MoveReport;
pub use progress::Upkeep;
pub use read::{Object, Reader};
pub use repair::RepairReport;
pub use room::Pressure;
pub use snapshot::{Prefix, SNAPSHOTS, Snapshot};
pub(crate) use striped::{ClusterKeys, Striper};
pub use sweep::SweepReport;
pub use worker::Workers;

use bucket::BucketNames;
use budget::Budget;
use progress::Progress;
use repair::{Absences, Suspects};
use room::Room;
use session::Session;
use stray::Strays;

/// What goes wrong with objects. A frontend maps each variant once.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalog refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The newest version is a delete marker (no version was named).
    #[error("the object is deleted")]
    Deleted {
        /// The marker.
        marker: VersionId,
    },
    /// The version that was named is a delete marker.
    #[error("the version is a delete marker")]
    DeleteMarker {
        /// When it was made.
        modified: Timestamp,
    },
    /// The source of the bytes failed; it knows why.
    #[error("the source of the bytes failed")]
    Source,
    /// A promised digest is not that of the bytes; nothing was stored.
    #[error("the bytes do not have the {what} that was promised")]
    BadDigest {
        /// Which digest.
        what: &'static str,
    },
    /// The source gave another number of bytes than announced.
    #[error("{announced} bytes were announced, {received} came")]
    WrongLength {
        /// As announced.
        announced: u64,
        /// As received.
        received: u64,
    },
    /// Longer than allowed.
    #[error("longer than {limit_bytes} bytes")]
    TooLarge {
        /// The bound.
        limit_bytes: u64,
    },
    /// A range lies outside of the object.
    #[error("the range lies outside of the {size_bytes} bytes")]
    InvalidRange {
        /// The object's length.
        size_bytes: u64,
    },
    /// The request's arguments contradict each other or the upload.
    #[error("{0}")]
    Invalid(String),
    /// No room for new bytes.
    #[error("the store is full")]
    Full,
    /// Too much at once; try again soon.
    #[error("the store is overloaded")]
    Overloaded,
    /// The catalog cannot be reached, or what became of a write is unknown.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Stored bytes are damaged and were not served.
    #[error("stored bytes are damaged: {0}")]
    Corrupt(String),
    /// The disk failed.
    #[error("the disk: {0}")]
    Io(#[from] std::io::Error),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// Who has access keys is not known just now.
    #[error(transparent)]
    Directory(access::Unknown),
}

impl From<file::Error> for Error {
    fn from(error: file::Error) -> Self {
        match error {
            file::Error::NotFound(chunk) => Error::Corrupt(format!("chunk {chunk} is missing")),
            file::Error::Corrupt { .. } => Error::Corrupt(error.to_string()),
            file::Error::Full => Error::Full,
            file::Error::Io(error) => Error::Io(error),
        }
    }
}

impl From<RemoteError> for Error {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Damaged(what) => Error::Corrupt(what),
            RemoteError::Failed(_) | RemoteError::Call(_) => Error::Unavailable(error.to_string()),
        }
    }
}

impl From<LedgerError> for Error {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Overloaded => Error::Overloaded,
            LedgerError::Unknown(_) | LedgerError::Unavailable(_) => Error::Unavailable(error.to_string()),
        }
    }
}

/// Where the bytes of a PUT come from.
pub trait Source: Send {
    /// The next run of bytes; `None` once, at the end, after everything that can be verified has been.
    /// `Err(())`: the transfer failed; the source keeps the reason and `put` returns [`Error::Source`].
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, ()>> + Send;

    /// Checksums that the sender promised; complete after `next` gave `None` (trailers).
    fn promised(&self) -> Vec<Checksum>;
}

/// One version of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Bucket's name.
    pub bucket: String,
    /// Key.
    pub key: Vec<u8>,
    /// Version; none: the current one.
    pub version: Option<VersionId>,
}

/// What is known of incoming bytes before they come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Incoming {
    /// Length, where announced.
    pub len_bytes: Option<u64>,
    /// Which checksums to compute and keep; MD5 is always computed. None: CRC-64/NVME.
    pub algorithms: Vec<ChecksumAlgorithm>,
    /// `Content-MD5`.
    pub md5: Option<[u8; 16]>,
}

/// A new object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// Bucket's name.
    pub bucket: String,
    /// The account that the bucket must be of, however long the body takes; none: whatever has the name.
    pub owner: Option<String>,
    /// Key.
    pub key: Vec<u8>,
    /// What it carries; `checksums` are filled in by the store.
    pub attrs: Attrs,
    /// Demands on what it replaces.
    pub precondition: Precondition,
}

/// What a PUT did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The version.
    pub written: Written,
    /// Its length.
    pub size_bytes: u64,
    /// Its checksums, as computed and verified.
    pub checksums: Vec<Checksum>,
}

/// What a client says of the whole when it completes an upload.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Promised {
    /// Its checksum; of which kind, `kind` says, or the upload.
    pub checksum: Option<Checksum>,
    /// Of which kind its checksums are.
    pub kind: Option<ChecksumKind>,
    /// Its length.
    pub size_bytes: Option<u64>,
}

/// What completing an upload did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Completed {
    /// The version.
    pub written: Written,
    /// Its length, and its checksums as verified; none: this is the answer to a retry, and the version is gone since.
    pub figures: Option<(u64, Vec<Checksum>)>,
}

/// Between two looks whether the feature level has been raised.
const LEVEL_PAUSE: Duration = Duration::from_millis(100);

/// How a store behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// This gateway's name, unique in the cluster and the same after a restart.
    pub gateway: String,
    /// Bodies up to this length are kept in the catalog; at most [`BLOCK_BYTES`].
    pub inline_bytes: u64,
    /// Memory for bytes in flight, of all requests together.
    pub budget_bytes: u64,
    /// How long a request waits for its share of the budget.
    pub budget_patience: Duration,
    /// How long a command is repeated before its outcome is reported as unknown.
    pub propose_patience: Duration,
    /// New bytes are refused when less than this is left on the disk; none: the larger of 64 MiB and 1%.
    pub low_water_bytes: Option<u64>,
    /// Between renewals of the session.
    pub renew_interval: Duration,
    /// How long another gateway's session may stand still before the leader ends it: many renewals.
    pub session_expiry: Duration,
    /// How long a shard node may be away before its shards are made anew on others.
    pub repair_grace: Duration,
    /// The map of a cluster that has none yet; none: a box.
    pub first_map: Option<catalog::Map>,
    /// Whether the layout of `first_map` is to be that of the cluster; otherwise the cluster's map says it.
    pub lays_out: bool,
    /// Hears of each map that this process comes to know.
    pub on_map: OnMap,
    /// From the end of a pass of the scrub, over a shard node or a box, to the next.
    pub scrub_interval: Duration,
    /// Between ticks of catalog time.
    pub tick_interval: Duration,
    /// From the start to the first sweep; at most the interval. Starting has the disk to itself until then.
    pub first_sweep_pause: Duration,
    /// Between sweeps.
    pub sweep_interval: Duration,
    /// How old a chunk that nothing names must be to go to quarantine, and how long it stays there.
    pub sweep_grace: Duration,
    /// How long a completed upload's answer is kept for retries.
    pub completed_keep: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            gateway: "gateway".to_owned(),
            inline_bytes: BLOCK_BYTES,
            budget_bytes: 256 * MIB,
            budget_patience: Duration::from_secs(5),
            propose_patience: Duration::from_secs(30),
            low_water_bytes: None,
            renew_interval: Duration::from_secs(5),
            session_expiry: Duration::from_secs(60),
            repair_grace: Duration::from_secs(600),
            scrub_interval: Duration::from_secs(24 * 3600),
            first_map: None,
            lays_out: true,
            on_map: OnMap::default(),
            tick_interval: Duration::from_secs(10),
            first_sweep_pause: Duration::from_secs(10),
            sweep_interval: Duration::from_secs(3600),
            sweep_grace: Duration::from_secs(3600),
            completed_keep: Duration::from_secs(24 * 3600),
        }
    }
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

/// What all clones share.
pub struct Inner {
    env: Env,
    ledger: Arc<dyn Ledger>,
    chunks: Chunks,
    config: Config,
    session: Arc<Session>,
    budget: Budget,
    room: Room,
    names: BucketNames,
    /// Something may have died.
    died: Notify,
    /// A copy of a prefix has begun, or is to be erased.
    cloning: Notify,
    /// All that is stored is to be read, whenever that was done last.
    scrub_due: Notify,
    strays: Strays,
    suspects: Suspects,
    progress: Progress,
    absences: Mutex<Absences>,
    /// How many trees of each bucket are open in this process.
    trees: tokio::sync::Mutex<std::collections::BTreeMap<crate::ids::BucketId, usize>>,
    /// Those trees.
    live_trees: Mutex<Vec<std::sync::Weak<tree::Inner>>>,
}

impl Deref for Store {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Store {
    /// Opens the store over a running catalog: begins a session, which ends every earlier one of the same gateway.
    ///
    /// # Errors
    /// `Unavailable`: the catalog. `Io`: the disk.
    pub async fn open(env: Env, ledger: Arc<dyn Ledger>, chunks: Chunks, config: Config) -> Result<Store, Error> {
        let session =
            Session::open(env.clone(), ledger.clone(), config.gateway.clone(), config.propose_patience).await?;
        let store = Store::over(session, env, ledger, chunks, config);
        store.begin_with_map().await?;
        Ok(store)
    }

    /// Opens the store over a catalog that takes no commands: whatever changes something is `Unavailable`.
    pub fn open_read_only(env: Env, ledger: Arc<dyn Ledger>, chunks: Chunks, config: Config) -> Store {
        let session = Session::none(env.clone(), ledger.clone(), config.gateway.clone(), config.propose_patience);
        Store::over(session, env, ledger, chunks, config)
    }

    fn over(session: Arc<Session>, env: Env, ledger: Arc<dyn Ledger>, chunks: Chunks, config: Config) -> Store {
        Store(Arc::new(Inner {
            budget: Budget::new(config.budget_bytes, config.budget_patience),
            room: Room::new(env.clone(), chunks.clone(), config.low_water_bytes),
            names: BucketNames::default(),
            died: Notify::new(),
            cloning: Notify::new(),
            scrub_due: Notify::new(),
            strays: Strays::default(),
            suspects: Suspects::default(),
            progress: Progress::default(),
            absences: Mutex::default(),
            trees: tokio::sync::Mutex::default(),
            live_trees: Mutex::default(),
            env,
            ledger,
            chunks,
            config,
            session,
        }))
    }

    /// How full the store is now.
    pub fn pressure(&self) -> Pressure {
        self.room.pressure()
    }

    /// The clock that conditions and signatures compare with.
    pub fn now(&self) -> Timestamp {
        self.env.clock.now()
    }

    /// Bytes of the budget that requests hold now.
    pub fn budget_taken_bytes(&self) -> u64 {
        self.budget.taken_bytes()
    }

    /// Whether the catalog answers here, however far behind others it may be: for a watchdog.
    ///
    /// # Errors
    /// `Catalog`: it does not.
    pub async fn answers(&self) -> Result<(), Error> {
        Ok(self.ledger.readers().read(|view| view.applied_index()).await.map(drop)?)
    }

    /// Runs `query` on one linearizable snapshot.
    async fn snapshot<R: Send + 'static>(
        &self,
        query: impl FnOnce(&View<'_>) -> Result<R, Error> + Send + 'static,
    ) -> Result<R, Error> {
        self.ledger.barrier().await?;
        self.ledger.readers().read(move |view| Ok(query(view))).await?
    }
}

impl Store {
    /// Waits for what comes with a feature level: a cluster that was made or replaced just now is about to raise its.
    /// `otherwise`: why it is not there.
    ///
    /// # Errors
    /// `Unavailable`: some process does not know the level.
    async fn wait_for_level(
        &self,
        is_there: fn(&View<'_>) -> Result<bool, catalog::Error>,
        otherwise: &str,
    ) -> Result<(), Error> {
        let deadline = self.env.clock.monotonic() + self.config.propose_patience;
        while !self.snapshot(move |view| Ok(is_there(view)?)).await? {
            if self.env.clock.monotonic() >= deadline {
                return Err(Error::Unavailable(otherwise.to_owned()));
            }
            tokio::time::sleep(LEVEL_PAUSE).await;
        }
        Ok(())
    }
}

/// Runs what blocks where it may.
async fn blocking<R: Send + 'static>(job: impl FnOnce() -> R + Send + 'static) -> Result<R, Error> {
    if patient::may_block() {
        return Ok(job());
    }
    joined(tokio::task::spawn_blocking(job)).await
}

/// Waits for a task. It ends early only when it panicked, which is our bug, or when the process is ending.
async fn joined<R>(task: tokio::task::JoinHandle<R>) -> Result<R, Error> {
    task.await.map_err(|error| Error::Unavailable(format!("a task ended early: {error}")))
}

/// Compares a small body with the digests that its sender promised.
///
/// # Errors
/// `BadDigest`.
pub fn verify(bytes: &[u8], md5: Option<[u8; 16]>, promised: &[Checksum]) -> Result<(), Error> {
    let algorithms: Vec<_> = promised.iter().map(|one| one.algorithm).collect();
    let mut digests = digest::Digests::new(&algorithms);
    digests.update(bytes);
    digests.finish().check(md5, promised)
}

#[cfg(test)]
pub(in crate::object) mod tests;
