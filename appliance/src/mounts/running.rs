//! The mounts that this process serves, from the descriptor to the end.
//!
//! Invariants: a FUSE connection is served once; no two mounts that run have one staging directory; after
//! [`Mounts::end`] none runs and none begins.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use nix::sys::stat::{major, minor};
use nix::unistd::syncfs;
use predastore::object::{
    self,
    tree::{Changed, Knows, Mounting, Tree},
};
use predastore_fuse::options::{AccessTimes, Defaults, LocalLocks};
use predastore_fuse::{Event, MountOptions, Mounted, Probe};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::kernel::{self, Way};
use super::mountinfo;
use super::options::Served;
use super::protocol::{Handshake, Mount};
use crate::store::Store;

/// How long opening a bucket may take; a cluster may have no leader for a while.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);
/// How long the kernel's first request may take to come: it is there when it was mounted.
const BEGIN_PATIENCE: Duration = Duration::from_secs(10);
/// How long `s3d umount` waits for a mount's end.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(10);
/// How long unmounting may take when the process ends.
const DETACH_PATIENCE: Duration = Duration::from_secs(10);
/// How long a mount may take to commit what was written through it when the process ends.
const END_PATIENCE: Duration = Duration::from_secs(30);

/// Device number of /dev/fuse.
const FUSE_DEVICE: (u64, u64) = (10, 229);

/// Why it is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The descriptor is none of /dev/fuse, or of another connection.
    #[error("the descriptor that came with the request is not of /dev/fuse with connection {0}")]
    Descriptor(u32),
    /// Nobody could find it again.
    #[error("`{0}` is no absolute path")]
    Path(String),
    /// By this process.
    #[error("connection {0} is served already")]
    Twice(u32),
    /// The process ends.
    #[error("the daemon is shutting down")]
    Closing,
    /// The core refuses.
    #[error("{source_name}: {error}")]
    Open {
        source_name: String,
        #[source]
        error: object::Error,
    },
    /// The core takes too long.
    #[error("{source_name}: opening it took longer than {} s", OPEN_PATIENCE.as_secs())]
    Late { source_name: String },
    /// Who serves ended.
    #[error("serving {source_name}: {reason}")]
    Serve { source_name: String, reason: String },
}

/// The mounts that this process serves. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Mounts(Arc<Inner>);

struct Inner {
    store: Store,
    /// Where each mount has a directory for what is not committed yet.
    staging: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closing: bool,
    /// By connection.
    running: BTreeMap<u32, Running>,
}

/// A mount that is served, or about to be.
struct Running {
    mount: Mount,
    staging: PathBuf,
    /// Asks it to end.
    end: CancellationToken,
    /// It has ended.
    ended: CancellationToken,
    /// Whoever keeps the mount while this process is away has one of these too.
    holders: Arc<()>,
}

/// A place among the running; goes when dropped.
struct Place {
    mounts: Mounts,
    connection: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let removed = self.mounts.state().running.remove(&self.connection);
        if let Some(Running { staging, ended, .. }) = removed {
            // One that holds something yet stays for the next mount there.
            let _ = fs::remove_dir(&staging);
            ended.cancel();
        }
    }
}

impl Mounts {
    /// None yet. `staging` is made when it is needed.
    pub(crate) fn new(store: Store, staging: PathBuf) -> Self {
        Mounts(Arc::new(Inner { store, staging, state: Mutex::default() }))
    }

    /// Whose buckets are mounted.
    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a mount on `device`, until it is unmounted. Returns once the kernel's first request is answered. `former`: how
    /// it was answered by the process that served the mount before.
    ///
    /// # Errors
    /// Why not. The descriptor is closed then.
    pub(crate) async fn serve(
        &self,
        mount: Mount,
        device: OwnedFd,
        former: Option<Handshake>,
    ) -> Result<Handshake, Error> {
        if !Path::new(&mount.path).is_absolute() {
            return Err(Error::Path(mount.path));
        }
        if !is_fuse(&device, mount.connection) {
            return Err(Error::Descriptor(mount.connection));
        }
        let (place, staging, end) = self.take_place(&mount)?;
        let source = &mount.source;
        let source_name = source.to_string();
        let serve_error = |reason: String| Error::Serve { source_name: source_name.clone(), reason };
        let kernel = match former {
            Some(_) => {
                let probe = Probe::new(&device).map_err(|error| serve_error(error.to_string()))?;
                Some(Arc::new(probe) as Arc<dyn Knows>)
            }
            None => None,
        };
        let is_resumed = former.is_some();
        let mounting = Mounting { id: mount.id, staging: &staging, kernel };
        let open = self.0.store.tree(&source.bucket, source.prefix.as_bytes(), mounting);
        let tree = timeout(OPEN_PATIENCE, open).await.map_err(|_| Error::Late { source_name: source_name.clone() })?;
        let tree = tree.map_err(|error| Error::Open { source_name: source_name.clone(), error })?;
        let options = mount_options(&source_name, mount.options);
        let begun = begin(device, tree.clone(), options, former.map(from_wire)).await;
        let (mounted, handshake) = begun.map_err(serve_error)?;
        let Mount { source, path, .. } = &mount;
        tracing::info!(bucket = source.bucket, prefix = source.prefix, path, is_resumed, "mounted");
        tokio::spawn(watch((mounted, tree), end, place, mount.path));
        Ok(Handshake { request: handshake.request, reply: handshake.reply })
    }

    /// Waits for the end of a mount, or until `gone`: whoever waits would keep it if this process ended. False: this process
    /// does not serve it.
    pub(crate) async fn watched(&self, connection: u32, gone: impl Future<Output = ()>) -> bool {
        let (ended, holders) = {
            let state = self.state();
            let Some(running) = state.running.get(&connection) else { return false };
            (running.ended.clone(), running.holders.clone())
        };
        let _holder = holders;
        tokio::select! {
            () = ended.cancelled() => {}
            () = gone => {}
        }
        true
    }

    fn take_place(&self, mount: &Mount) -> Result<(Place, PathBuf, CancellationToken), Error> {
        let mut state = self.state();
        if state.closing {
            return Err(Error::Closing);
        }
        if state.running.contains_key(&mount.connection) {
            return Err(Error::Twice(mount.connection));
        }
        let staging = state.free_staging(&self.0.staging, mount);
        let end = CancellationToken::new();
        let running = Running {
            mount: mount.clone(),
            staging: staging.clone(),
            end: end.clone(),
            ended: CancellationToken::new(),
            holders: Arc::new(()),
        };
        state.running.insert(mount.connection, running);
        drop(state);
        Ok((Place { mounts: self.clone(), connection: mount.connection }, staging, end))
    }

    /// Waits for the end of a mount, for a while; `force`: ends it. Whether it has ended: one that is not known has.
    pub(crate) async fn unmount(&self, connection: u32, force: bool) -> bool {
        let ended = {
            let state = self.state();
            let Some(running) = state.running.get(&connection) else { return true };
            if force {
                running.end.cancel();
            }
            running.ended.clone()
        };
        timeout(UNMOUNT_PATIENCE, ended.cancelled()).await.is_ok()
    }

    /// What is mounted.
    pub(crate) fn list(&self) -> Vec<Mount> {
        self.state().running.values().map(|running| running.mount.clone()).collect()
    }

    /// Unmounts those that nobody keeps for the next process, commits what was written through them, and lets none begin any
    /// more. Of the others what was written is staged, and goes on from there.
    pub(crate) async fn end(&self) {
        let running: Vec<_> = {
            let mut state = self.state();
            state.closing = true;
            let left = state.running.iter().filter(|(_, running)| Arc::strong_count(&running.holders) == 1);
            left.map(|(connection, r)| (*connection, r.end.clone(), r.ended.clone())).collect()
        };
        let each = running.into_iter().map(|(connection, end, ended)| async move {
            let detached = timeout(DETACH_PATIENCE, apart(move || detach(connection))).await;
            if !matches!(detached, Ok(Ok(true))) {
                tracing::warn!(connection, "a mount point stays behind without anybody who serves it: `s3d umount`");
            }
            end.cancel();
            if timeout(END_PATIENCE, ended.cancelled()).await.is_err() {
                tracing::error!(connection, "a mount did not end in time; what was written and not synced may be lost");
            }
        });
        futures::future::join_all(each).await;
    }
}

impl State {
    /// A directory of the mount's own, the same for the same bucket at the same place: a mount takes up what one before it
    /// left. Other mount namespaces may have the same place for something else at the same time.
    fn free_staging(&self, staging: &Path, mount: &Mount) -> PathBuf {
        let name = format!("{}\0{}\0{}", mount.source.bucket, mount.source.prefix, mount.path);
        let hash: String =
            digest(&SHA256, name.as_bytes()).as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let taken = |path: &PathBuf| self.running.values().any(|running| running.staging == *path);
        let mut path = staging.join(&hash);
        let mut number = 1;
        while taken(&path) {
            number += 1;
            path = staging.join(format!("{hash}-{number}"));
        }
        path
    }
}

/// Answers the kernel's first request, on a thread of its own, for as long as there is none it blocks.
async fn begin(
    device: OwnedFd,
    tree: Tree,
    options: MountOptions,
    former: Option<predastore_fuse::Handshake>,
) -> Result<(Mounted, predastore_fuse::Handshake), String> {
    let runtime = Handle::current();
    let (done, mounted) = oneshot::channel();
    thread::spawn(move || {
        let mounted = predastore_fuse::serve(device, tree, options, runtime.clone(), former);
        // Nobody waits any more: it would be served on without anybody knowing.
        if let Err(Ok((late, _))) = done.send(mounted) {
            let _ = runtime.block_on(late.end());
        }
    });
    match timeout(BEGIN_PATIENCE, mounted).await {
        Ok(Ok(mounted)) => mounted.map_err(|error| error.to_string()),
        Ok(Err(_)) => Err("its thread ended".to_owned()),
        Err(_) => Err(format!("the kernel's first request did not come within {} s", BEGIN_PATIENCE.as_secs())),
    }
}

fn from_wire(handshake: Handshake) -> predastore_fuse::Handshake {
    predastore_fuse::Handshake { request: handshake.request, reply: handshake.reply }
}

/// Until the mount ends, by itself or because it is asked to.
async fn watch((mounted, tree): (Mounted, Tree), end: CancellationToken, place: Place, path: String) {
    let mut changes = tree.watch();
    let told = async {
        while let Some(change) = changes.next().await {
            mounted.invalidate(event(change));
        }
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = mounted.unmounted() => ended,
        () = end.cancelled() => mounted.end().await,
        () = told => Ok(()),
    };
    flush(&tree).await;
    drop(tree);
    drop(place);
    match ended {
        Ok(()) => tracing::info!(path, "unmounted"),
        Err(error) => tracing::error!(path, %error, "a mount has ended"),
    }
}

fn event(change: Changed) -> Event {
    match change {
        Changed::Inode(ino) => Event::Inode(ino),
        Changed::Name { parent, name } => Event::Entry { parent, name },
        Changed::All => Event::Everything,
    }
}

/// Commits what was written through a mount; what cannot be, in time, stays staged.
async fn flush(tree: &Tree) {
    if timeout(END_PATIENCE, tree.flush_all()).await.is_err() {
        tracing::error!(bucket = tree.bucket(), "not all that was written is committed: the next mount there does it");
    }
}

/// Writes what the kernel keeps, then takes the mount out of the tree, even if it is in use. Whether that went.
fn detach(connection: u32) -> bool {
    let Ok(Some(entry)) = mountinfo::of(connection) else { return true };
    if let Ok(root) = fs::File::open(&entry.path) {
        let _ = syncfs(root);
    }
    kernel::detach(&entry, Way::Plain).or_else(|_| kernel::detach(&entry, Way::Lazy)).is_ok()
}

/// Runs what may block for ever on a thread that nobody waits for when the process ends.
pub(super) fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (done, result) = oneshot::channel();
    thread::spawn(move || {
        let _ = done.send(work());
    });
    result
}

/// Whether it is of /dev/fuse, and as far as the kernel tells of that connection.
fn is_fuse(device: &OwnedFd, connection: u32) -> bool {
    let path = format!("/proc/self/fd/{}", device.as_raw_fd());
    let Ok(metadata) = fs::metadata(path) else { return false };
    let number = metadata.rdev();
    if !metadata.file_type().is_char_device() || (major(number), minor(number)) != FUSE_DEVICE {
        return false;
    }
    let facts = fs::read_to_string(format!("/proc/self/fdinfo/{}", device.as_raw_fd())).unwrap_or_default();
    // Kernels before 6.15 do not tell.
    let told = facts.lines().find_map(|line| line.strip_prefix("fuse_connection:")?.trim().parse::<u32>().ok());
    told.is_none_or(|told| told == connection)
}

fn mount_options(source: &str, served: Served) -> MountOptions {
    MountOptions {
        source: source.to_owned(),
        read_only: served.read_only,
        defaults: Defaults { uid: served.uid, gid: served.gid, umask: served.umask },
        hard: served.hard,
        access_times: AccessTimes { files: !served.no_atime, directories: !served.no_atime && !served.no_diratime },
        local_locks: LocalLocks { flock: served.local_flock, posix: served.local_posix },
        ..MountOptions::default()
    }
}
