//! What must be said to the catalog while a tree is mounted: which inodes without a name are held, and which locks are not.
//!
//! Every second this looks which inodes of the bucket lost their last name since it looked before, holds those that are
//! open here, and says how far it looked: what nobody holds may go.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::catalog::FileOperation;
use crate::ids::{Ino, LogIndex, SessionId};
use crate::object::{Error, Store};

use super::{Inner, Tree, accesses, compact, lock};

const INTERVAL: Duration = Duration::from_secs(1);
/// Inodes that one command holds.
const HOLD_COUNT: usize = 4096;

/// How far it looked.
#[derive(Default)]
struct Seen {
    index: LogIndex,
    session: Option<SessionId>,
}

impl Tree {
    /// Starts the background work, which ends with the last clone of the tree.
    pub(super) fn keep(&self) {
        let weak = Arc::downgrade(&self.0);
        let mut keepers = lock(&self.0.keepers);
        keepers.spawn(keep(weak.clone()));
        keepers.spawn(compact::keep_compacting(weak.clone()));
        keepers.spawn(accesses::keep_telling(weak, self.0.accesses.are_many.clone()));
    }

    /// After the last close of an inode: if it was held, it is not any more.
    pub(super) async fn let_go(&self, ino: Ino) {
        self.unlock_all(ino).await;
        if !lock(&self.0.held).remove(&ino) || self.0.store.is_left_to_a_tree(ino) {
            return;
        }
        if let Err(error) = self.propose(FileOperation::Release { inos: vec![ino] }).await {
            tracing::warn!(%ino, %error, "an inode that was closed is held until the mount ends");
        }
        self.0.store.died.notify_one();
    }

    /// Whether some mount of this process has an inode open.
    fn is_open_anywhere(&self, ino: Ino) -> bool {
        lock(&self.0.store.live_trees).iter().filter_map(Weak::upgrade).any(|tree| tree.files.is_open(ino))
    }

    async fn look(&self, seen: &mut Seen) -> Result<(), Error> {
        let session = self.0.store.session.id();
        if seen.session.is_some_and(|former| former != session) {
            // What the former session held is gone with it, if somebody ended it; what is still there is held anew.
            self.propose(FileOperation::Mount).await?;
            seen.index = LogIndex(0);
        }
        seen.session = Some(session);
        let (bucket, after) = (self.0.bucket.id, seen.index);
        let query = move |view: &crate::catalog::View<'_>| {
            let orphans = view.orphaned(bucket, after)?;
            let opened = if orphans.is_empty() { Vec::new() } else { view.opened_by(session)? };
            Ok((orphans, opened, view.applied_index()?))
        };
        let (orphans, opened, index) = self.0.store.snapshot(query).await?;
        if orphans.is_empty() {
            seen.index = index;
            return Ok(());
        }
        for ino in &orphans {
            if !self.0.files.is_open(*ino) && self.0.mount.may_have_open(*ino) {
                self.0.files.inherit(*ino);
            }
        }
        let held: Vec<Ino> = orphans.iter().copied().filter(|ino| self.0.files.is_open(*ino)).collect();
        lock(&self.0.held).extend(&held);
        // Files that lost their name before S3 had seen them, and were closed since.
        let is_over = |ino: &Ino| orphans.contains(ino) && !self.is_open_anywhere(*ino);
        let over: Vec<Ino> = opened.into_iter().map(|(ino, _)| ino).filter(is_over).collect();
        for inos in over.chunks(HOLD_COUNT) {
            self.propose(FileOperation::Release { inos: inos.to_vec() }).await?;
        }
        let mut batches = held.chunks(HOLD_COUNT).map(<[Ino]>::to_vec).peekable();
        if batches.peek().is_none() {
            self.propose(FileOperation::Hold { seen: index.0, inos: Vec::new() }).await?;
        }
        while let Some(inos) = batches.next() {
            let seen = if batches.peek().is_none() { index.0 } else { 0 };
            self.propose(FileOperation::Hold { seen, inos }).await?;
        }
        seen.index = index;
        self.0.store.died.notify_one();
        Ok(())
    }
}

impl Store {
    /// Whether some mount of this process has an inode open: then it lets go of it after its last close.
    pub(super) fn is_left_to_a_tree(&self, ino: Ino) -> bool {
        let live: Vec<_> = lock(&self.live_trees).iter().filter_map(Weak::upgrade).collect();
        live.iter().filter(|tree| tree.files.is_open(ino)).any(|tree| {
            lock(&tree.held).insert(ino);
            // Whoever closed it in between has not seen that it is to let go; unless it is not held any more.
            tree.files.is_open(ino) || !lock(&tree.held).remove(&ino)
        })
    }
}

async fn keep(tree: Weak<Inner>) {
    let mut seen = Seen::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(tree) = tree.upgrade().map(Tree) else { return };
        tree.settle_inherited().await;
        tree.settle_left_behind().await;
        tree.settle_locks().await;
        if let Err(error) = tree.look(&mut seen).await {
            tracing::warn!(%error, "what is open was not told; it is tried again");
        }
    }
}
