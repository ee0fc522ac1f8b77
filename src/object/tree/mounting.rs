//! The mount that a tree serves: who it is to the catalog, what of its kernel's requests was done, and what the process
//! before this one left open. And what it is told of changes that others make.
//!
//! A mount may outlive the process that serves it. The next one is sent the requests again that were not answered, knows
//! of no open file, and finds what was written and not committed in the staging directory.
//!
//! Invariants
//! - The catalog counts what the former process had open as open, until somebody who knows better says otherwise: the kernel
//!   of a mount that goes on, or nobody, for a while after the start.
//! - A bucket is not mounted any more with its last tree in this process: else what loses its name there would be kept for
//!   nobody until the session ends.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::watch;

use crate::catalog::{Changed, Command, FileOperation, Heard, Notice, Origin};
use crate::ids::{BucketId, Ino};
use crate::object::bucket::done;
use crate::object::{Error, Store};

use super::commit::Change;
use super::open::State;
use super::pending::Pending;
use super::{Inner, Tree, lock};

/// How long mounts may take to come back after the start.
pub(in crate::object) const RETURN_PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(2);
/// Inodes that one command names.
const RELEASE_COUNT: usize = 4096;
/// Answered requests that one command names.
const ANSWERED_COUNT: usize = 256;

/// A request of the kernel's, which may be sent to the next process once more if this one ends before it was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Not 0, less than 2^63.
    pub number: u64,
    /// Whether it may have been done before, by another process or this one.
    pub is_again: bool,
}

tokio::task_local! {
    /// The request that is being answered.
    static REQUEST: Request;
}

/// Does `work` for a request.
pub async fn for_request<F: Future>(request: Request, work: F) -> F::Output {
    REQUEST.scope(request, work).await
}

/// Does `work` once more for the request that is being answered: it may have been done before.
pub async fn once_more<F: Future>(work: F) -> F::Output {
    match REQUEST.try_with(|request| *request) {
        Ok(request) => REQUEST.scope(Request { is_again: true, ..request }, work).await,
        Err(_) => work.await,
    }
}

/// The number of the request that is being answered; 0: none.
pub(super) fn request() -> u64 {
    REQUEST.try_with(|request| request.number).unwrap_or(0)
}

/// Names the commit of what was appended since `request`, for the catalog: a number that no request of a kernel's has. 0: it
/// has no name.
pub(super) fn name_of_appended(request: u64) -> u64 {
    if request == 0 { 0 } else { request | 1 }
}

/// Whether what is asked may have been done before.
pub(super) fn is_again() -> bool {
    REQUEST.try_with(|request| request.is_again).unwrap_or(false)
}

/// What a kernel can be asked.
pub trait Knows: Send + Sync + 'static {
    /// Whether it has an inode in use or in its cache. Does not wait.
    fn knows(&self, ino: Ino) -> bool;
}

/// Which mount a tree is for.
#[derive(Clone)]
pub struct Mounting<'a> {
    /// Its number, which no other mount has or had: not 0, less than 2^63.
    pub id: u64,
    /// A directory of its own, for bytes that are not committed yet.
    pub staging: &'a Path,
    /// Its kernel, if it was served by another process before.
    pub kernel: Option<Arc<dyn Knows>>,
}

/// The mount's side of it.
pub(super) struct Mount {
    id: u64,
    pub(super) kernel: Option<Arc<dyn Knows>>,
    requests: Mutex<Requests>,
    /// The last batch of changes that was passed on; none: nobody watches.
    heard: watch::Sender<Option<u64>>,
}

/// Requests for which something was done that must not be done twice.
#[derive(Default)]
struct Requests {
    under_way: HashSet<u64>,
    answered: Vec<u64>,
}

impl Mount {
    pub(super) fn new(mounting: &Mounting<'_>) -> Mount {
        Mount {
            id: mounting.id,
            kernel: mounting.kernel.clone(),
            requests: Mutex::default(),
            heard: watch::Sender::new(None),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Whether the kernel of a mount that was served by another process has an inode, and may have it open.
    pub(super) fn may_have_open(&self, ino: Ino) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.knows(ino))
    }
}

/// What the catalog knows of a tree.
pub(super) struct Mounted {
    store: Store,
    bucket: BucketId,
    id: u64,
}

impl Mounted {
    pub(super) async fn new(store: &Store, bucket: BucketId, id: u64) -> Result<Mounted, Error> {
        // One at a time: of two commands that cross the wrong one could be the last.
        let mut trees = store.trees.lock().await;
        propose(store, bucket, of_mount(id), FileOperation::Mount).await?;
        *trees.entry(bucket).or_default() += 1;
        Ok(Mounted { store: store.clone(), bucket, id })
    }

    async fn end(store: Store, bucket: BucketId, id: u64) {
        let mut trees = store.trees.lock().await;
        let count = trees.entry(bucket).or_default();
        *count = count.saturating_sub(1);
        let is_last = *count == 0;
        if is_last {
            trees.remove(&bucket);
        }
        lock(&store.live_trees).retain(|tree| tree.strong_count() > 0);
        if let Err(error) = propose(&store, bucket, of_mount(id), FileOperation::Unmount { is_last }).await {
            tracing::warn!(%bucket, %error, "a bucket counts as mounted until the session ends");
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Without a runtime the process ends, and the session with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(Mounted::end(self.store.clone(), self.bucket, self.id));
        }
    }
}

fn of_mount(mount: u64) -> Origin {
    Origin { mount, ..Origin::default() }
}

/// Has the catalog do what names no new id. A refusal is an error.
pub(super) async fn propose(
    store: &Store,
    bucket: BucketId,
    origin: Origin,
    operation: FileOperation,
) -> Result<(), Error> {
    done(store.session.propose(Command::File { bucket, origin, operation }).await?)
}

impl Tree {
    /// On whose behalf a command is. `once`: it must not be done again for the same request.
    pub(super) fn origin(&self, once: bool) -> Origin {
        self.origin_of(if once { request() } else { 0 })
    }

    /// For a request of the kernel's, after which nothing else is done for the same; 0: for none in particular.
    pub(super) fn origin_of(&self, request: u64) -> Origin {
        let mut requests = lock(&self.0.mount.requests);
        if request != 0 {
            requests.under_way.insert(request);
        }
        let kept = requests.answered.len().saturating_sub(ANSWERED_COUNT);
        Origin { mount: self.0.mount.id, request, answered: requests.answered.split_off(kept) }
    }

    /// The kernel has been given the answer to a request: it will not ask again.
    pub fn answered(&self, request: u64) {
        let mut requests = lock(&self.0.mount.requests);
        if requests.under_way.remove(&request) {
            requests.answered.push(request);
        }
    }

    /// What others change of what a file system shows, from now on. For one watcher.
    pub fn watch(&self) -> Watch {
        let readers = self.0.store.ledger.readers();
        let heard = readers.changes().listen();
        self.0.mount.heard.send_replace(Some(readers.changes().told()));
        Watch { heard, tree: Arc::downgrade(&self.0), mount: self.0.mount.id, next: VecDeque::new(), last: 0 }
    }

    /// Waits until who watches was told of all that others had changed before this call.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn caught_up(&self) -> Result<(), Error> {
        self.0.store.snapshot(|_| Ok(())).await?;
        let told = self.0.store.ledger.readers().changes().told();
        let mut heard = self.0.mount.heard.subscribe();
        // The sender is as old as the tree.
        let _ = heard.wait_for(|heard| heard.is_none_or(|heard| heard >= told)).await;
        Ok(())
    }

    /// Commits what was written to all files, and not committed. For a mount that ends.
    ///
    /// # Errors
    /// That of the last file that could not be committed; the bytes stay staged.
    pub async fn flush_all(&self) -> Result<(), Error> {
        let mut outcome = Ok(());
        if let Err(error) = self.tell_accesses().await {
            tracing::debug!(%error, "times of last access are not kept");
        }
        for ino in self.0.files.all() {
            match self.flush(ino).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(%ino, %error, "what was written is not committed; the next mount at the same place does it");
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    /// Takes up what the process before this one left: bytes that were written, and what the kernel has open.
    pub(super) async fn resume(&self) -> Result<(), Error> {
        let (session, mount) = (self.0.store.session.id(), self.0.mount.id);
        let query = move |view: &crate::catalog::View<'_>| Ok((view.opened_by(session)?, view.locked_by(mount)?));
        let (opened, locked) = self.0.store.snapshot(query).await?;
        for (ino, owner, opened) in locked {
            self.0.locks.note(ino, (owner, opened), session);
            if self.0.mount.may_have_open(ino) {
                self.0.files.inherit(ino);
            }
        }
        let left = self.0.staging.left()?;
        for (ino, is_hidden) in opened {
            // The session has other mounts too; of what it made for this one and wrote bytes to, the kernel may know no more.
            if self.0.mount.may_have_open(ino) || left.iter().any(|left| left.ino == ino) {
                self.0.files.inherit(ino).state.write().await.is_hidden = is_hidden;
                lock(&self.0.held).insert(ino);
            }
        }
        for mut left in left {
            let file = self.0.files.inherit(left.ino);
            let mut state = file.state.write().await;
            let is_hidden = state.is_hidden;
            // It may be committed already.
            left.dirty.begin();
            *state = State {
                dirty: left.dirty,
                staged: Some(left.file),
                modified: left.modified,
                // What S3 sees by now has them already, and maybe others since.
                pending: if is_hidden { left.pending } else { Pending::default() },
                appended: left.appended,
                is_hidden,
                ..State::default()
            };
            file.show(&state);
            if state.dirty.is_begun()
                && let Err(error) = self.commit(&file, &mut state, Change::default()).await
            {
                tracing::warn!(ino = %file.ino, %error, "what was appended before a restart is not committed yet");
            }
        }
        Ok(())
    }

    /// Lets go what the process before had open, and the kernel does not have any more.
    pub(super) async fn settle_inherited(&self) {
        for ino in self.0.files.inherited() {
            if self.0.mount.may_have_open(ino) {
                continue;
            }
            match self.flush(ino).await {
                Ok(()) | Err(Error::Refused(_)) => {}
                Err(error) => {
                    tracing::warn!(%ino, %error, "what was written before a restart is not committed yet");
                    continue;
                }
            }
            if self.0.files.disinherit(ino) {
                self.let_go(ino).await;
                self.0.files.forget(ino);
            }
        }
    }
}

/// What others change.
pub struct Watch {
    heard: Heard,
    tree: Weak<Inner>,
    mount: u64,
    next: VecDeque<Changed>,
    /// The batch that `next` is of.
    last: u64,
}

impl Watch {
    /// The next change that another mount made, or S3. None: there will be no more.
    ///
    /// Who calls again has passed on what the call before returned: see [`Tree::caught_up`].
    pub async fn next(&mut self) -> Option<Changed> {
        loop {
            if let Some(change) = self.next.pop_front() {
                return Some(change);
            }
            if let Some(tree) = self.tree.upgrade().filter(|_| self.last > 0) {
                tree.mount.heard.send_replace(Some(self.last));
            }
            let batch = self.heard.next().await?;
            self.last = batch.number;
            for notice in batch.notices.iter() {
                self.take(notice);
            }
        }
    }

    fn take(&mut self, notice: &Notice) {
        match notice {
            Notice::Unlocked(ino) => self.wake(Some(*ino)),
            Notice::Changed { mount, .. } if *mount == self.mount => {}
            Notice::Changed { what, .. } => {
                if *what == Changed::All {
                    self.wake(None);
                }
                self.next.push_back(what.clone());
            }
        }
    }

    fn wake(&self, ino: Option<Ino>) {
        if let Some(tree) = self.tree.upgrade() {
            tree.locks.wake(ino);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(tree) = self.tree.upgrade() {
            tree.mount.heard.send_replace(None);
        }
    }
}

/// After `patience`, lets go what the process before had open of mounts that did not come back.
pub(in crate::object) async fn settle_inheritance(store: Store, patience: Duration) {
    let session = store.session.id();
    let inherited = loop {
        let query = move |view: &crate::catalog::View<'_>| {
            Ok((view.mounted_by(session)?, view.opened_by(session)?, view.locking_mounts(session)?))
        };
        match store.snapshot(query).await {
            Ok(inherited) => break inherited,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let (buckets, opened, locking) = inherited;
    if buckets.is_empty() && opened.is_empty() && locking.is_empty() {
        return;
    }
    tokio::time::sleep(patience).await;
    for (mount, bucket) in locking {
        while let Err(error) = end_unless_live(&store, mount, bucket).await {
            if matches!(error, Error::Refused(_)) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    for bucket in buckets {
        while let Err(error) = settle(&store, bucket, &opened).await {
            if matches!(error, Error::Refused(_)) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    store.died.notify_one();
}

/// Lets go what a mount has locked that did not come back.
async fn end_unless_live(store: &Store, mount: u64, bucket: BucketId) -> Result<(), Error> {
    let _trees = store.trees.lock().await;
    let is_live = lock(&store.live_trees).iter().filter_map(Weak::upgrade).any(|tree| tree.mount.id == mount);
    match is_live {
        true => Ok(()),
        false => propose(store, bucket, of_mount(mount), FileOperation::Unmount { is_last: false }).await,
    }
}

async fn settle(store: &Store, bucket: BucketId, opened: &[(Ino, bool)]) -> Result<(), Error> {
    let trees = store.trees.lock().await;
    if !trees.contains_key(&bucket) {
        return propose(store, bucket, Origin::default(), FileOperation::Unmount { is_last: true }).await;
    }
    let closed: Vec<Ino> = opened.iter().map(|(ino, _)| *ino).filter(|ino| !store.is_left_to_a_tree(*ino)).collect();
    for inos in closed.chunks(RELEASE_COUNT) {
        propose(store, bucket, Origin::default(), FileOperation::Release { inos: inos.to_vec() }).await?;
    }
    Ok(())
}
