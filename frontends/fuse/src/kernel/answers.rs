//! Answers: what came of a request, put into fuser's replies.

use std::ffi::OsStr;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Instant;

use fuser::{
    Errno, FileHandle, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};
use nix::errno::Errno as Failure;
use predastore::catalog::Stat;
use predastore::ids::Ino;
use predastore::object::tree::TreeSpace;
use tokio::sync::watch;

use crate::attributes::{bare_directory, file_attr, file_type};
use crate::directory::Entry;
use crate::invalidate::Event;
use crate::namespace::Namespace;
use crate::nodes::{Known, NodeIds};
use crate::requests::{Opened, Requests};

/// Of `statfs(2)`.
const STATFS_BLOCK_BYTES: u32 = 4096;
const NAME_BYTES_MAX: u32 = 255;

/// Inode numbers are never used twice.
const GENERATION: Generation = Generation(0);

/// What all tasks of one mount share.
pub(crate) struct Shared<T> {
    pub(crate) requests: Requests<T>,
    pub(crate) known: Known,
    pub(crate) ids: NodeIds,
    /// The session ends: nothing is waited for.
    pub(crate) ending: watch::Sender<bool>,
}

/// One request's answer on its way.
pub(super) struct Answering<T> {
    pub(super) shared: Arc<Shared<T>>,
    /// When the request was taken.
    pub(super) begun: Instant,
}

impl<T> Deref for Answering<T> {
    type Target = Shared<T>;

    fn deref(&self) -> &Shared<T> {
        &self.shared
    }
}

/// Answers that may be a failure.
pub(super) trait Refuse: Send + 'static {
    fn refuse(self, failure: Failure);
}

macro_rules! refuse {
    ($($reply:ident)*) => {
        $(impl Refuse for $reply {
            fn refuse(self, failure: Failure) {
                self.error(Errno::from_i32(failure as i32));
            }
        })*
    };
}

refuse! {
    ReplyAttr ReplyCreate ReplyData ReplyDirectory ReplyDirectoryPlus ReplyEmpty ReplyEntry ReplyLock ReplyLseek ReplyOpen
    ReplyStatfs ReplyWrite ReplyXattr
}

impl<T: Namespace> Answering<T> {
    pub(super) fn entry(&self, reply: ReplyEntry, stat: Stat) {
        let options = self.requests.options();
        self.known.told(stat.ino);
        let attr = file_attr(self.ids, &stat);
        reply.entry_with_ttls(&options.attr_ttl, &options.entry_ttl, &attr, GENERATION);
        self.told(Event::Inode(stat.ino));
    }

    /// What a look-up found.
    pub(super) fn found(&self, reply: ReplyEntry, stat: Stat, parent: Ino, name: Vec<u8>) {
        self.entry(reply, stat);
        self.told(Event::Entry { parent, name });
    }

    pub(super) fn attr(&self, reply: ReplyAttr, stat: Stat) {
        reply.attr(&self.requests.options().attr_ttl, &file_attr(self.ids, &stat));
        self.told(Event::Inode(stat.ino));
    }

    pub(super) fn opened(&self, reply: ReplyOpen, opened: Opened) {
        let flags = if opened.keeps_pages { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
        reply.opened(FileHandle(opened.handle), flags);
    }

    pub(super) fn created(&self, reply: ReplyCreate, opened: Opened) {
        self.known.told(opened.stat.ino);
        // One TTL for both: fuser has no other way here.
        let options = self.requests.options();
        let ttl = options.attr_ttl.min(options.entry_ttl);
        let attr = file_attr(self.ids, &opened.stat);
        reply.created(&ttl, &attr, GENERATION, FileHandle(opened.handle), FopenFlags::FOPEN_KEEP_CACHE);
    }

    pub(super) fn listed(&self, mut reply: ReplyDirectory, directory: Ino, entries: &[Entry]) {
        let add = |entry: &&Entry| {
            let node = INodeNo(self.ids.node(entry.ino));
            !reply.add(node, entry.cookie, file_type(entry.kind), OsStr::from_bytes(&entry.name))
        };
        let fitted = entries.iter().take_while(add).count();
        self.requests.fitted(directory, fitted, entries.len());
        reply.ok();
    }

    pub(super) fn listed_plus(&self, mut reply: ReplyDirectoryPlus, directory: Ino, entries: &[Entry]) {
        let fitted = entries.iter().take_while(|entry| self.add_plus(&mut reply, entry)).count();
        self.requests.fitted(directory, fitted, entries.len());
        reply.ok();
        for entry in entries.iter().take(fitted) {
            self.told(Event::Inode(entry.ino));
            self.told(Event::Entry { parent: directory, name: entry.name.clone() });
        }
    }

    /// Whether there was room for it. The kernel counts each entry as a look-up, but not the dots.
    fn add_plus(&self, reply: &mut ReplyDirectoryPlus, entry: &Entry) -> bool {
        let attr = match &entry.stat {
            Some(stat) => file_attr(self.ids, stat),
            None => bare_directory(self.ids, entry.ino),
        };
        if entry.stat.is_some() {
            self.known.told(entry.ino);
        }
        let options = self.requests.options();
        let ttl = options.attr_ttl.min(options.entry_ttl);
        let is_full = reply.add(attr.ino, entry.cookie, OsStr::from_bytes(&entry.name), &ttl, &attr, GENERATION);
        if is_full && entry.stat.is_some() {
            self.known.forget(entry.ino, 1);
        }
        !is_full
    }

    /// The kernel was told of it.
    fn told(&self, what: Event) {
        self.requests.told(what, self.begun);
    }
}

impl<T: Namespace> Shared<T> {
    pub(super) fn forget(&self, ino: Ino, count: u64) {
        if self.known.forget(ino, count) {
            self.requests.forgotten(ino);
        }
    }
}

pub(super) fn done<S>(_: &S, reply: ReplyEmpty, (): ()) {
    reply.ok();
}

pub(super) fn space<S>(_: &S, reply: ReplyStatfs, space: TreeSpace) {
    let blocks = |bytes: u64| bytes / u64::from(STATFS_BLOCK_BYTES);
    let free = blocks(space.free_bytes);
    reply.statfs(
        blocks(space.total_bytes),
        free,
        free,
        // As many files more as there are blocks for: nothing else bounds them.
        space.file_count.saturating_add(free),
        free,
        STATFS_BLOCK_BYTES,
        NAME_BYTES_MAX,
        STATFS_BLOCK_BYTES,
    );
}

/// A program that gives no room asks how much it needs.
pub(super) fn value(reply: ReplyXattr, value: &[u8], room_bytes: u32) {
    match u32::try_from(value.len()) {
        Ok(len_bytes) if room_bytes == 0 => reply.size(len_bytes),
        Ok(len_bytes) if len_bytes <= room_bytes => reply.data(value),
        _ => reply.refuse(Failure::ERANGE),
    }
}
