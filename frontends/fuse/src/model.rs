//! A tree in memory, for tests: what the core promises, as plainly as can be.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use predastore::catalog::{ETag, FileKind, Refusal, RenameMode, Stat, TreeEntry};
use predastore::env::Timestamp;
use predastore::ids::Ino;
use predastore::object::Error;
use predastore::object::tree::{
    Allocate, Lock, NewKind, NewNode, Seek, SetStat, SetTime, TreeSpace, WriteRoom, XattrMode,
};

use crate::namespace::Namespace;

const ROOT: Ino = Ino(40);

type Outcome<R> = Result<R, Error>;

#[derive(Clone)]
pub(crate) struct Model(Arc<Mutex<State>>);

struct State {
    nodes: HashMap<Ino, Node>,
    next: u64,
    /// Calls, by name, of which each takes so long.
    slow: HashMap<&'static str, Duration>,
    /// Calls as they came.
    calls: Vec<&'static str>,
    read_only: bool,
    locks: Vec<(Ino, Lock)>,
}

struct Node {
    stat: Stat,
    data: Vec<u8>,
    children: BTreeMap<Vec<u8>, Ino>,
    parent: Ino,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    opens: i64,
}

impl Model {
    pub(crate) fn new() -> Self {
        let mut state = State {
            nodes: HashMap::new(),
            next: ROOT.0 + 1,
            slow: HashMap::new(),
            calls: Vec::new(),
            read_only: false,
            locks: Vec::new(),
        };
        let root = Node::new(ROOT, ROOT, NewNode { mode: 0o755, uid: 0, gid: 0, kind: NewKind::Directory });
        state.nodes.insert(ROOT, root);
        Model(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn add_file(&self, parent: Ino, name: &[u8]) {
        let new = NewNode { mode: 0o644, uid: 0, gid: 0, kind: NewKind::File };
        let _ = self.state().make(parent, name, new);
    }

    /// A file as S3 makes one.
    pub(crate) fn add_object(&self, parent: Ino, name: &[u8]) -> Ino {
        let new = NewNode { mode: 0o644, uid: 0, gid: 0, kind: NewKind::File };
        let ino = self.state().make(parent, name, new).unwrap().ino;
        self.state().node(ino).unwrap().stat.has_attributes = false;
        ino
    }

    pub(crate) fn add_directory(&self, parent: Ino, name: &[u8]) -> Ino {
        let new = NewNode { mode: 0o755, uid: 0, gid: 0, kind: NewKind::Directory };
        self.state().make(parent, name, new).unwrap().ino
    }

    pub(crate) fn remove(&self, parent: Ino, name: &[u8]) {
        let _ = self.state().unlink(parent, name);
    }

    pub(crate) fn has(&self, parent: Ino, name: &[u8]) -> bool {
        self.state().lookup(parent, name).is_ok()
    }

    pub(crate) fn opens(&self, ino: Ino) -> i64 {
        self.state().nodes[&ino].opens
    }

    /// Another client replaces the bytes.
    pub(crate) fn replace(&self, ino: Ino, data: &[u8]) {
        self.state().change(ino, |node| node.data = data.to_vec()).unwrap();
    }

    pub(crate) fn slow(&self, call: &'static str, each: Duration) {
        self.state().slow.insert(call, each);
    }

    pub(crate) fn set_read_only(&self) {
        self.state().read_only = true;
    }

    pub(crate) fn calls(&self, call: &str) -> usize {
        self.state().calls.iter().filter(|one| **one == call).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn called(&self, call: &'static str) -> MutexGuard<'_, State> {
        let slow = {
            let mut state = self.state();
            state.calls.push(call);
            state.slow.get(call).copied()
        };
        if let Some(slow) = slow {
            tokio::time::sleep(slow).await;
        }
        self.state()
    }
}

fn refused<R>(refusal: Refusal) -> Outcome<R> {
    Err(Error::Refused(refusal))
}

fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64)
}

fn time(time: SetTime) -> Timestamp {
    match time {
        SetTime::Now => now(),
        SetTime::At(time) => time,
    }
}

impl Node {
    fn new(ino: Ino, parent: Ino, new: NewNode) -> Self {
        let (kind, rdev, data) = match new.kind {
            NewKind::File => (FileKind::File, 0, Vec::new()),
            NewKind::Directory => (FileKind::Directory, 0, Vec::new()),
            NewKind::Symlink(target) => (FileKind::Symlink, 0, target),
            NewKind::Fifo => (FileKind::Fifo, 0, Vec::new()),
            NewKind::Socket => (FileKind::Socket, 0, Vec::new()),
            NewKind::CharDevice(rdev) => (FileKind::CharDevice, rdev, Vec::new()),
            NewKind::BlockDevice(rdev) => (FileKind::BlockDevice, rdev, Vec::new()),
        };
        let len = data.len() as u64;
        let now = now();
        let stat = Stat {
            ino,
            kind,
            mode: new.mode,
            uid: new.uid,
            gid: new.gid,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            rdev,
            size_bytes: len,
            stored_bytes: len,
            atime: now,
            mtime: now,
            ctime: now,
            revision: 1,
            etag: ETag { md5: [0; 16], part_count: 0 },
            has_attributes: true,
        };
        Node { stat, data, children: BTreeMap::new(), parent, xattrs: BTreeMap::new(), opens: 0 }
    }
}

impl State {
    fn node(&mut self, ino: Ino) -> Outcome<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Error::Refused(Refusal::Stale))
    }

    fn directory(&mut self, ino: Ino) -> Outcome<&mut Node> {
        let node = self.node(ino)?;
        if node.stat.kind == FileKind::Directory { Ok(node) } else { refused(Refusal::NotDirectory) }
    }

    fn lookup(&mut self, parent: Ino, name: &[u8]) -> Outcome<Stat> {
        let ino = *self.directory(parent)?.children.get(name).ok_or(Error::Refused(Refusal::NoEntry))?;
        Ok(self.node(ino)?.stat)
    }

    fn make(&mut self, parent: Ino, name: &[u8], new: NewNode) -> Outcome<Stat> {
        if self.directory(parent)?.children.contains_key(name) {
            return refused(Refusal::EntryExists);
        }
        let ino = Ino(self.next);
        self.next += 1;
        let node = Node::new(ino, parent, new);
        let stat = node.stat;
        self.nodes.insert(ino, node);
        let directory = self.node(parent)?;
        directory.children.insert(name.to_vec(), ino);
        directory.stat.mtime = now();
        Ok(stat)
    }

    fn unlink(&mut self, parent: Ino, name: &[u8]) -> Outcome<()> {
        let stat = self.lookup(parent, name)?;
        self.node(parent)?.children.remove(name);
        self.node(stat.ino)?.stat.nlink -= 1;
        Ok(())
    }

    fn change(&mut self, ino: Ino, change: impl FnOnce(&mut Node)) -> Outcome<()> {
        let node = self.node(ino)?;
        change(node);
        node.stat.size_bytes = node.data.len() as u64;
        node.stat.stored_bytes = node.stat.size_bytes;
        node.stat.revision += 1;
        node.stat.mtime = now();
        Ok(())
    }

    fn lock(&mut self, ino: Ino, wanted: Lock) -> bool {
        let is_free = self.in_the_way(ino, wanted).is_none();
        self.locks.extend(is_free.then_some((ino, wanted)));
        is_free
    }

    fn in_the_way(&self, ino: Ino, wanted: Lock) -> Option<Lock> {
        let of_others = self.locks.iter().filter(|(of, lock)| *of == ino && lock.owner != wanted.owner);
        let overlaps = |lock: &Lock| lock.start_bytes < wanted.end_bytes && wanted.start_bytes < lock.end_bytes;
        of_others.map(|(_, lock)| *lock).find(|lock| overlaps(lock) && (lock.is_exclusive || wanted.is_exclusive))
    }

    fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) -> Outcome<()> {
        let range = offset as usize..offset as usize + bytes.len();
        self.change(ino, |node| {
            node.data.resize(node.data.len().max(range.end), 0);
            node.data[range].copy_from_slice(bytes);
        })
    }
}

impl Namespace for Model {
    fn root(&self) -> Ino {
        ROOT
    }

    fn answered(&self, _: u64) {}

    fn accessed(&self, _: Ino) {}

    fn read_only(&self) -> bool {
        self.state().read_only
    }

    async fn lookup(&self, parent: Ino, name: &[u8]) -> Outcome<Stat> {
        self.called("lookup").await.lookup(parent, name)
    }

    async fn stat(&self, ino: Ino) -> Outcome<Stat> {
        Ok(self.called("stat").await.node(ino)?.stat)
    }

    async fn set_stat(&self, ino: Ino, set: SetStat) -> Outcome<Stat> {
        let mut state = self.called("set_stat").await;
        if let Some(size) = set.size_bytes {
            state.change(ino, |node| node.data.resize(size as usize, 0))?;
        }
        let stat = &mut state.node(ino)?.stat;
        stat.has_attributes = true;
        stat.mode = set.mode.unwrap_or(stat.mode);
        stat.uid = set.uid.unwrap_or(stat.uid);
        stat.gid = set.gid.unwrap_or(stat.gid);
        stat.atime = set.atime.map_or(stat.atime, time);
        stat.mtime = set.mtime.map_or(stat.mtime, time);
        stat.ctime = now();
        Ok(*stat)
    }

    async fn make(&self, parent: Ino, name: &[u8], new: NewNode) -> Outcome<Stat> {
        self.called("make").await.make(parent, name, new)
    }

    async fn make_open(&self, parent: Ino, name: &[u8], new: NewNode) -> Outcome<Stat> {
        let mut state = self.called("make_open").await;
        let stat = state.make(parent, name, new)?;
        state.node(stat.ino)?.opens += 1;
        Ok(stat)
    }

    async fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Outcome<Stat> {
        let mut state = self.called("link").await;
        if state.directory(parent)?.children.contains_key(name) {
            return refused(Refusal::EntryExists);
        }
        state.node(ino)?.stat.nlink += 1;
        state.node(parent)?.children.insert(name.to_vec(), ino);
        Ok(state.node(ino)?.stat)
    }

    async fn unlink(&self, parent: Ino, name: &[u8]) -> Outcome<()> {
        self.called("unlink").await.unlink(parent, name)
    }

    async fn remove_directory(&self, parent: Ino, name: &[u8]) -> Outcome<()> {
        let mut state = self.called("remove_directory").await;
        let stat = state.lookup(parent, name)?;
        if !state.directory(stat.ino)?.children.is_empty() {
            return refused(Refusal::DirectoryNotEmpty);
        }
        state.node(parent)?.children.remove(name);
        Ok(())
    }

    async fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) -> Outcome<()> {
        let mut state = self.called("rename").await;
        let moved = state.lookup(from.0, from.1)?.ino;
        let target = state.directory(to.0)?.children.get(to.1).copied();
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return refused(Refusal::EntryExists),
            (RenameMode::Exchange, None) => return refused(Refusal::NoEntry),
            (RenameMode::Exchange, Some(target)) => {
                state.node(from.0)?.children.insert(from.1.to_vec(), target);
                state.node(target)?.parent = from.0;
            }
            (RenameMode::Replace | RenameMode::NoReplace, _) => drop(state.node(from.0)?.children.remove(from.1)),
        }
        state.node(to.0)?.children.insert(to.1.to_vec(), moved);
        state.node(moved)?.parent = to.0;
        Ok(())
    }

    async fn read_link(&self, ino: Ino) -> Outcome<Vec<u8>> {
        Ok(self.called("read_link").await.node(ino)?.data.clone())
    }

    async fn list(&self, directory: Ino, after: Option<&[u8]>, limit: usize) -> Outcome<Vec<TreeEntry>> {
        let mut state = self.called("list").await;
        let name = |key: &[u8]| key.strip_suffix(b"/").unwrap_or(key).to_vec();
        let after = after.map_or(Bound::Unbounded, |after| Bound::Excluded(name(after)));
        let children = &state.directory(directory)?.children;
        let page: Vec<_> =
            children.range((after, Bound::Unbounded)).take(limit).map(|(n, i)| (n.clone(), *i)).collect();
        page.into_iter().map(|(name, ino)| Ok(TreeEntry { name, stat: state.node(ino)?.stat })).collect()
    }

    async fn parent(&self, directory: Ino) -> Outcome<Ino> {
        Ok(self.called("parent").await.directory(directory)?.parent)
    }

    async fn open(&self, ino: Ino, truncate: bool) -> Outcome<Stat> {
        let mut state = self.called("open").await;
        if truncate {
            state.change(ino, |node| node.data.clear())?;
        }
        let node = state.node(ino)?;
        node.opens += 1;
        Ok(node.stat)
    }

    async fn release(&self, ino: Ino) -> Outcome<()> {
        self.called("release").await.node(ino)?.opens -= 1;
        Ok(())
    }

    async fn release_former(&self, _: Ino) -> Outcome<()> {
        drop(self.called("release_former").await);
        Ok(())
    }

    async fn read(&self, ino: Ino, offset: u64, len: u64) -> Outcome<Bytes> {
        let mut state = self.called("read").await;
        let data = &state.node(ino)?.data;
        let bound = |at: u64| at.min(data.len() as u64) as usize;
        Ok(Bytes::copy_from_slice(&data[bound(offset)..bound(offset + len)]))
    }

    async fn hold_write(&self, _: u64) -> Outcome<WriteRoom> {
        drop(self.called("hold_write").await);
        Ok(WriteRoom::default())
    }

    async fn write(&self, ino: Ino, offset: u64, data: Bytes) -> Outcome<()> {
        self.called("write").await.write(ino, offset, &data)
    }

    async fn append(&self, ino: Ino, data: Bytes) -> Outcome<u64> {
        let mut state = self.called("append").await;
        let offset = state.node(ino)?.stat.size_bytes;
        state.write(ino, offset, &data)?;
        Ok(offset)
    }

    async fn flush(&self, ino: Ino) -> Outcome<()> {
        self.called("flush").await.node(ino)?;
        Ok(())
    }

    async fn allocate(&self, ino: Ino, range: Range<u64>, mode: Allocate) -> Outcome<()> {
        let mut state = self.called("allocate").await;
        let (start, end) = (range.start as usize, range.end as usize);
        let grows = matches!(mode, Allocate::Extend | Allocate::ZeroRange { keep_size: false });
        let zeroes = matches!(mode, Allocate::PunchHole | Allocate::ZeroRange { .. });
        state.change(ino, |node| {
            let len = if grows { node.data.len().max(end) } else { node.data.len() };
            node.data.resize(len, 0);
            if zeroes {
                node.data[start.min(len)..end.min(len)].fill(0);
            }
        })
    }

    async fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Outcome<u64> {
        let len = self.called("seek").await.node(ino)?.stat.size_bytes;
        match what {
            _ if offset >= len => refused(Refusal::NoSuchOffset),
            Seek::Data => Ok(offset),
            Seek::Hole => Ok(len),
        }
    }

    async fn copy_range(&self, from: (Ino, u64), to: (Ino, u64), len: u64) -> Outcome<u64> {
        let mut state = self.called("copy_range").await;
        let data: Vec<_> = state.node(from.0)?.data.iter().skip(from.1 as usize).take(len as usize).copied().collect();
        state.write(to.0, to.1, &data)?;
        Ok(data.len() as u64)
    }

    async fn xattr(&self, ino: Ino, name: &[u8]) -> Outcome<Option<Vec<u8>>> {
        Ok(self.called("xattr").await.node(ino)?.xattrs.get(name).cloned())
    }

    async fn xattrs(&self, ino: Ino) -> Outcome<Vec<Vec<u8>>> {
        Ok(self.called("xattrs").await.node(ino)?.xattrs.keys().cloned().collect())
    }

    async fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Outcome<()> {
        let mut state = self.called("set_xattr").await;
        let xattrs = &mut state.node(ino)?.xattrs;
        match (mode, xattrs.contains_key(name)) {
            (XattrMode::Create, true) => refused(Refusal::XattrExists),
            (XattrMode::Replace, false) => refused(Refusal::NoXattr),
            _ => {
                xattrs.insert(name.to_vec(), value.to_vec());
                Ok(())
            }
        }
    }

    async fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Outcome<()> {
        let removed = self.called("remove_xattr").await.node(ino)?.xattrs.remove(name);
        removed.map(drop).ok_or(Error::Refused(Refusal::NoXattr))
    }

    async fn lock(&self, ino: Ino, wanted: Lock, patience: Duration) -> Outcome<()> {
        let deadline = Instant::now() + patience;
        loop {
            if self.called("lock").await.lock(ino, wanted) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return refused(Refusal::LockHeld);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn unlock(&self, ino: Ino, owner: u64, range: Range<u64>, _: Option<u64>) -> Outcome<()> {
        let is_gone = |(of, lock): &(Ino, Lock)| {
            *of == ino && lock.owner == owner && range.start <= lock.start_bytes && lock.end_bytes <= range.end
        };
        self.called("unlock").await.locks.retain(|lock| !is_gone(lock));
        Ok(())
    }

    async fn lock_in_the_way(&self, ino: Ino, wanted: Lock) -> Outcome<Option<Lock>> {
        Ok(self.called("lock_in_the_way").await.in_the_way(ino, wanted))
    }

    async fn caught_up(&self) -> Outcome<()> {
        Ok(())
    }

    async fn space(&self) -> Outcome<TreeSpace> {
        let file_count = self.called("space").await.nodes.len() as u64;
        Ok(TreeSpace { total_bytes: 1 << 40, free_bytes: 1 << 39, file_count })
    }
}
