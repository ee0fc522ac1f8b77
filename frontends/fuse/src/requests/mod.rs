//! Which call of the tree answers which request. Knows neither fuser nor a kernel.
//!
//! - `names` directories and what is in them; `files` bytes; `locks` who may use them; `xattrs` extended attributes; here:
//!   attributes and the rest.

mod files;
mod locks;
mod names;
#[cfg(test)]
mod tests;
mod xattrs;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use predastore::catalog::Stat;
use predastore::ids::Ino;
use predastore::object::Error;
use predastore::object::tree::{SetStat, TreeSpace};

use crate::caches::{Handles, Pages, Recent};
use crate::cookies::Cookies;
use crate::errors;
use crate::invalidate::{Event, Invalidations};
use crate::lately::Lately;
use crate::namespace::Namespace;
use crate::options::{Defaults, MountOptions};
use crate::patience::{Deadline, Repeat};

pub(crate) use files::{Opened, Written};
pub(crate) use locks::Asked;
pub(crate) use xattrs::Replacing;

/// Who asks for what, and until when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) operation: &'static str,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) deadline: Deadline,
}

/// What all requests of one mount share.
pub(crate) struct Requests<T> {
    tree: T,
    options: MountOptions,
    cookies: Cookies,
    pages: Pages,
    handles: Handles,
    /// Directories that something was made in: for sgid.
    parents: Recent<Stat>,
    /// Files without any extended attribute: the kernel asks for one before each write.
    plain_files: Recent<()>,
    invalidations: Arc<Invalidations>,
    lately: Lately,
}

impl<T: Namespace> Requests<T> {
    pub(crate) fn new(tree: T, options: MountOptions, invalidations: Arc<Invalidations>) -> Self {
        Requests {
            tree,
            cookies: Cookies::default(),
            pages: Pages::default(),
            handles: Handles::default(),
            parents: Recent::new(options.attr_ttl),
            plain_files: Recent::new(options.attr_ttl),
            invalidations,
            lately: Lately::default(),
            options,
        }
    }

    pub(crate) fn options(&self) -> &MountOptions {
        &self.options
    }

    /// Attributes.
    pub(crate) async fn stat(&self, call: &Call, ino: Ino) -> Result<Stat, Errno> {
        self.ask(call, ino, Repeat::Safe, || self.tree.stat(ino)).await.map(|stat| self.shown(stat))
    }

    /// Sets attributes, the length among them.
    pub(crate) async fn set_stat(&self, call: &Call, ino: Ino, set: SetStat) -> Result<Stat, Errno> {
        self.may_change()?;
        self.adopt(call, ino).await?;
        let stat = self.ask(call, ino, Repeat::Safe, || self.tree.set_stat(ino, set.clone())).await;
        self.parents.remove(ino);
        stat.map(|stat| self.shown(stat))
    }

    /// What is shown of an inode without attributes of its own becomes its own, before it gets any.
    async fn adopt(&self, call: &Call, ino: Ino) -> Result<(), Errno> {
        if self.options.defaults == Defaults::default() {
            return Ok(());
        }
        let stat = self.ask(call, ino, Repeat::Safe, || self.tree.stat(ino)).await?;
        if stat.has_attributes {
            return Ok(());
        }
        let Stat { mode, uid, gid, .. } = self.shown(stat);
        let shown = SetStat { mode: Some(mode), uid: Some(uid), gid: Some(gid), ..SetStat::default() };
        self.ask(call, ino, Repeat::Safe, || self.tree.set_stat(ino, shown.clone())).await.map(drop)
    }

    /// Room, for `statfs(2)`.
    pub(crate) async fn space(&self, call: &Call) -> Result<TreeSpace, Errno> {
        self.ask(call, self.tree.root(), Repeat::Safe, || self.tree.space()).await
    }

    /// The kernel has been given an answer.
    pub(crate) fn answered(&self, request: u64) {
        self.tree.answered(request);
    }

    /// The kernel has forgotten the inode.
    pub(crate) fn forgotten(&self, ino: Ino) {
        self.pages.forgotten(ino);
    }

    /// Something changed elsewhere: what is remembered of it here goes at once, and the kernel is told.
    pub(crate) fn changed(&self, event: Event) {
        match &event {
            Event::Inode(ino) => {
                self.parents.remove(*ino);
                self.plain_files.remove(*ino);
            }
            Event::Entry { .. } => {}
            Event::Everything => {
                self.parents.clear();
                self.plain_files.clear();
                self.pages.clear();
            }
        }
        self.lately.note(&event);
        self.invalidations.push(event);
    }

    /// The kernel was told of an inode, or of a name, by the answer to a request that began at `since`: if that changed
    /// meanwhile, it is told so once more.
    pub(crate) fn told(&self, what: Event, since: Instant) {
        if self.lately.has(&what, since) {
            self.invalidations.push(what);
        }
    }

    async fn ask<R, F>(&self, call: &Call, ino: Ino, repeat: Repeat, ask: impl Fn() -> F) -> Result<R, Errno>
    where
        F: Future<Output = Result<R, Error>>,
    {
        call.deadline.persist(repeat, ask).await.map_err(|error| errors::answered(call.operation, ino, &error))
    }

    fn may_change(&self) -> Result<(), Errno> {
        if self.options.read_only || self.tree.read_only() { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// `stat` as this mount shows it.
    fn shown(&self, stat: Stat) -> Stat {
        self.options.defaults.shown(stat, stat.has_attributes)
    }

    /// The directory that something is about to be made in.
    async fn parent_stat(&self, call: &Call, parent: Ino) -> Result<Stat, Errno> {
        if let Some(stat) = self.parents.get(parent) {
            return Ok(stat);
        }
        let asked = Instant::now();
        let stat = self.stat(call, parent).await?;
        self.parents.put(parent, stat, asked);
        Ok(stat)
    }
}
