//! fuser's trait: takes requests apart, gives each a task and a deadline, puts answers together.
//!
//! `answers` has the putting together.
//!
//! Invariants
//! - The thread that takes requests from the device begins with each of them, and blocks for a query, a write to the page
//!   cache, or memory for what a WRITE brings; what has to wait for more is a task of its own.
//! - A request is answered by its deadline. What it asked of the tree is not stopped then, for it may be half done.
//! - An inode is counted as known before the answer that tells of it is sent.

mod answers;

use std::ffi::OsStr;
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno as Failure;
use nix::libc;
use predastore::ids::Ino;
use predastore::object::tree::{self, SetStat, WriteRoom, for_request};
use predastore::patient;
use tokio::runtime::Handle;
use tracing::{debug, warn};

use crate::attributes::set_time;
use crate::directory::Entry;
use crate::namespace::Namespace;
use crate::options::{LocalLocks, MAX_WRITE_BYTES};
use crate::patience::Deadline;
use crate::requests::{Asked, Call, Replacing, Written};
use crate::signals::Waiter;

use answers::{Answering, Refuse, done, space, value};

pub(crate) use answers::Shared;

/// Requests that the kernel may have under way besides those that a program waits for: reading ahead, writing back.
const BACKGROUND_REQUESTS: u16 = 64;

/// The kernel wants to write a page at once at least.
const SMALLEST_WRITE_BYTES: u32 = 4096;

/// The kernel's mark, in its number, of a request that it has sent to another process before.
const RESENT: u64 = 1 << 63;

/// One mount, as fuser sees it.
pub(crate) struct Kernel<T> {
    shared: Arc<Shared<T>>,
    runtime: Handle,
}

/// Which deadline a request has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    /// It moves at most a page or a WRITE.
    One,
    /// It moves as many bytes as a file may have.
    Bulk,
    /// It waits for others, however long they take.
    Wait,
}

/// What is asked of the kernel at INIT, where it has it. Not here, and why:
/// - WRITEBACK_CACHE: size and mtime would be the kernel's.
/// - ATOMIC_O_TRUNC: nobody would drop suid then; without it the kernel truncates by a SETATTR that does.
/// - HANDLE_KILLPRIV, HANDLE_KILLPRIV_V2: fuser does not hand on what they tell.
/// - POSIX_ACL: there are none. SETXATTR_EXT: fuser's thread panics.
fn capabilities(local_locks: LocalLocks) -> InitFlags {
    let flock = if local_locks.flock { InitFlags::empty() } else { InitFlags::FUSE_FLOCK_LOCKS };
    let posix = if local_locks.posix { InitFlags::empty() } else { InitFlags::FUSE_POSIX_LOCKS };
    flock
        | posix
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_READDIRPLUS_AUTO
        | InitFlags::FUSE_AUTO_INVAL_DATA
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_CACHE_SYMLINKS
}

impl<T: Namespace> Kernel<T> {
    pub(crate) fn new(shared: Arc<Shared<T>>, runtime: Handle) -> Self {
        Kernel { shared, runtime }
    }

    /// Answers one request: `work` asks the tree, `answer` puts what came of it into `reply`.
    fn run<R, O, W>(
        &self,
        (request, operation, size): (&Request, &'static str, Size),
        reply: R,
        work: impl FnOnce(Arc<Shared<T>>, Call) -> W,
        answer: impl FnOnce(&Answering<T>, R, O) + Send + 'static,
    ) where
        R: Refuse,
        O: Send + 'static,
        W: Future<Output = Result<O, Failure>> + Send + 'static,
    {
        self.run_call(request, self.call(request, operation, size), reply, work, answer);
    }

    /// The same for a request whose deadline runs already.
    fn run_call<R, O, W>(
        &self,
        request: &Request,
        call: Call,
        reply: R,
        work: impl FnOnce(Arc<Shared<T>>, Call) -> W,
        answer: impl FnOnce(&Answering<T>, R, O) + Send + 'static,
    ) where
        R: Refuse,
        O: Send + 'static,
        W: Future<Output = Result<O, Failure>> + Send + 'static,
    {
        let operation = call.operation;
        let shared = self.shared.clone();
        let (number, begun) = (request.unique().0, Instant::now());
        let request = tree::Request { number: number & !RESENT, is_again: number & RESENT != 0 };
        let work = for_request(request, work(shared.clone(), call));
        let whole = async move {
            let mut work = pin!(work);
            match call.deadline.wait(&mut work).await {
                Some(Ok(outcome)) => answer(&Answering { shared: shared.clone(), begun }, reply, outcome),
                Some(Err(failure)) => {
                    debug!(operation, uid = call.uid, %failure, "answered");
                    reply.refuse(failure);
                }
                None => {
                    reply.refuse(Failure::EIO);
                    warn!(operation, mount = shared.requests.options().source, "no answer by the deadline");
                    let late = work.await.is_ok();
                    warn!(operation, late, "a file operation ended after its deadline");
                }
            }
            shared.requests.answered(request.number);
        };
        // Most of what is asked needs to wait for nothing.
        let _runtime = self.runtime.enter();
        if let Err(rest) = patient::begin(Box::pin(whole)) {
            self.runtime.spawn(rest);
        }
    }

    fn call(&self, request: &Request, operation: &'static str, size: Size) -> Call {
        let options = self.shared.requests.options();
        let factor = if size == Size::Bulk { options.bulk_factor } else { 1 };
        let is_endless = options.hard || size == Size::Wait;
        let deadline = Deadline::after(options.deadline.saturating_mul(factor), is_endless);
        Call { operation, uid: request.uid(), gid: request.gid(), deadline }
    }

    /// Memory for what a WRITE brings. The kernel sends no more to this thread meanwhile, so that programs that write faster
    /// than is committed wait, and not their bytes. None: not by the deadline, or the session ends.
    fn room_for_write(&self, call: &Call, len_bytes: u32) -> Option<WriteRoom> {
        let mut ending = self.shared.ending.subscribe();
        let mut held = pin!(self.shared.requests.hold_write(len_bytes));
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                room = call.deadline.wait(&mut held) => room?.ok(),
                _ = ending.wait_for(|ending| *ending) => None,
            }
        })
    }

    fn ino(&self, node: INodeNo) -> Ino {
        self.shared.ids.ino(node.0)
    }
}

impl<T: Namespace> Filesystem for Kernel<T> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let options = self.shared.requests.options();
        let wanted = capabilities(options.local_locks) & config.capabilities();
        // Each of these takes the nearest value that it can.
        let _ = config.add_capabilities(wanted);
        let _ = config.set_max_write(options.max_write_bytes.clamp(SMALLEST_WRITE_BYTES, MAX_WRITE_BYTES));
        if let Err(nearest) = config.set_max_readahead(options.max_readahead_bytes) {
            let _ = config.set_max_readahead(nearest);
        }
        let _ = config.set_max_background(BACKGROUND_REQUESTS);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (parent, name) = (self.ino(parent), name.as_bytes().to_vec());
        let wanted = name.clone();
        let work = |shared: Arc<Shared<T>>, call| async move { shared.requests.lookup(&call, parent, &wanted).await };
        let answer = move |shared: &Answering<T>, reply, stat| shared.found(reply, stat, parent, name);
        self.run((request, "lookup", Size::One), reply, work, answer);
    }

    fn forget(&self, _: &Request, node: INodeNo, count: u64) {
        self.shared.forget(self.ino(node), count);
    }

    fn getattr(&self, request: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let ino = self.ino(node);
        let work = |shared: Arc<Shared<T>>, call| async move { shared.requests.stat(&call, ino).await };
        self.run((request, "getattr", Size::One), reply, work, Answering::attr);
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size_bytes: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        // The time of this change is ours to tell.
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let ino = self.ino(node);
        let set = SetStat {
            mode: mode.map(|mode| mode & predastore::catalog::MODE_MASK),
            uid,
            gid,
            size_bytes,
            is_open: handle.is_some(),
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            // The kernel says the mode that is left where suid and sgid must go.
            kill_privileges: false,
        };
        let size = if size_bytes.is_some() { Size::Bulk } else { Size::One };
        let work = |shared: Arc<Shared<T>>, call| async move { shared.requests.set_stat(&call, ino, set).await };
        self.run((request, "setattr", size), reply, work, Answering::attr);
    }

    fn readlink(&self, request: &Request, node: INodeNo, reply: ReplyData) {
        let ino = self.ino(node);
        let work = |shared: Arc<Shared<T>>, call| async move { shared.requests.read_link(&call, ino).await };
        self.run((request, "readlink", Size::One), reply, work, |_, reply, target: Vec<u8>| reply.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (parent, name) = (self.ino(parent), name.as_bytes().to_vec());
        let work = move |shared: Arc<Shared<T>>, call| async move {
            shared.requests.make_node(&call, parent, &name, mode, rdev).await
        };
        self.run((request, "mknod", Size::One), reply, work, Answering::entry);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let (parent, name) = (self.ino(parent), name.as_bytes().to_vec());
        let work = move |shared: Arc<Shared<T>>, call| async move {
            shared.requests.make_directory(&call, parent, &name, mode).await
        };
        self.run((request, "mkdir", Size::One), reply, work, Answering::entry);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (parent, name) = (self.ino(parent), name.as_bytes().to_vec());
        let work = |shared: Arc<Shared<T>>, call| async move { shared.requests.unlink(&call, parent, &name).await };
        self.run((request, "unlink", Size::One), reply, work, done);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (parent, name) = (self.ino(parent), name.as_bytes().to_vec());
        let work =
            |shared: Arc<Shared<T>>, call| async move { shared.requests.remove_directory(&call, parent, &name).await };
        self.run((request, "rmdir", Size::One), reply, work, done);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (parent, name) = (self.ino(parent), name.as_bytes().to_vec());
        let target = target.as_os_str().as_bytes().to_vec();
        let work = |shared: Arc<Shared<T>>, call| async move {
            shared.requests.make_symlink(&call, parent, &name, target).await
        };
        self.run((request, "symlink", Size::One), reply, work, Answering::entry);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, name) = (self.ino(parent), name.as_bytes().to_vec());
        let (to, to_name) = (self.ino(to_parent), to_name.as_bytes().to_vec());
        let work = move |shared: Arc<Shared<T>>, call| async move {
            shared.requests.rename(&call, (from, &name), (to, &to_name), flags.bits()).await
        };
        self.run((request, "rename", Size::One), reply, work, done);
    }

    fn link(&self, request: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (ino, parent, name) = (self.ino(node), self.ino(parent), name.as_bytes().to_vec());
        let work =
            move |shared: Arc<Shared<T>>, call| async move { shared.requests.link(&call, ino, parent, &name).await };
        self.run((request, "link", Size::One), reply, work, Answering::entry);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (parent, name) = (self.ino(parent), name.as_bytes().to_vec());
        let work = move |shared: Arc<Shared<T>>, call| async move {
            shared.requests.create(&call, parent, &name, mode, flags).await
        };
        self.run((request, "create", Size::One), reply, work, Answering::created);
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let ino = self.ino(node);
        let work = move |shared: Arc<Shared<T>>, call| async move { shared.requests.open(&call, ino, flags.0).await };
        self.run((request, "open", Size::One), reply, work, Answering::opened);
    }

    fn read(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        len: u32,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let ino = self.ino(node);
        let is_noted = flags.0 & libc::O_NOATIME == 0;
        let work = move |shared: Arc<Shared<T>>, call| async move {
            shared.requests.read(&call, (ino, handle.0), (offset, len.into()), is_noted).await
        };
        self.run((request, "read", Size::One), reply, work, |_, reply, data: Bytes| reply.data(&data));
    }

    fn write(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let ino = self.ino(node);
        // At most `max_write_bytes`, so it fits.
        let len_bytes = data.len() as u32;
        let is_from_mapping = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let call = self.call(request, "write", Size::One);
        let Some(room) = self.room_for_write(&call, len_bytes) else {
            warn!(mount = self.shared.requests.options().source, "no memory for a write by the deadline");
            return reply.refuse(Failure::EIO);
        };
        let written = Written { offset, data: Bytes::copy_from_slice(data), flags: flags.0, is_from_mapping };
        let work = |shared: Arc<Shared<T>>, call| async move {
            let _room = room;
            shared.requests.write(&call, ino, written).await
        };
        self.run_call(request, call, reply, work, move |_, reply, ()| reply.written(len_bytes));
    }

    fn flush(&self, request: &Request, node: INodeNo, handle: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        let ino = self.ino(node);
        let work = move |shared: Arc<Shared<T>>, call| async move {
            shared.requests.close(&call, ino, handle.0, owner.0).await
        };
        self.run((request, "flush", Size::Bulk), reply, work, done);
    }

    fn release(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let ino = self.ino(node);
        let owner = owner.map(|owner| owner.0);
        let work = move |shared: Arc<Shared<T>>, call| async move {
            shared.requests.release(&call, ino, handle.0, owner).await
        };
        self.run((request, "release", Size::Bulk), reply, work, done);
    }

    fn fsync(&self, request: &Request, node: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let ino = self.ino(node);
        let work = move |shared: Arc<Shared<T>>, call| async move { shared.requests.flush(&call, ino, handle.0).await };
        self.run((request, "fsync", Size::Bulk), reply, work, done);
    }

    fn opendir(&self, request: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let ino = self.ino(node);
        let work = |shared: Arc<Shared<T>>, call| async move { shared.requests.open_directory(&call, ino).await };
        let answer = |_: &Answering<T>, reply: ReplyOpen, handle| {
            reply.opened(FileHandle(handle), FopenFlags::empty());
        };
        self.run((request, "opendir", Size::One), reply, work, answer);
    }

    fn readdir(&self, request: &Request, node: INodeNo, _: FileHandle, cookie: u64, reply: ReplyDirectory) {
        let directory = self.ino(node);
        let work =
            move |shared: Arc<Shared<T>>, call| async move { shared.requests.list(&call, directory, cookie).await };
        let answer = move |shared: &Answering<T>, reply, entries: Vec<Entry>| shared.listed(reply, directory, &entries);
        self.run((request, "readdir", Size::One), reply, work, answer);
    }

    fn readdirplus(&self, request: &Request, node: INodeNo, _: FileHandle, cookie: u64, reply: ReplyDirectoryPlus) {
        let directory = self.ino(node);
        let work =
            move |shared: Arc<Shared<T>>, call| async move { shared.requests.list(&call, directory, cookie).await };
        let answer =
            move |shared: &Answering<T>, reply, entries: Vec<Entry>| shared.listed_plus(reply, directory, &entries);
        self.run((request, "readdirplus", Size::One), reply, work, answer);
    }

    fn releasedir(&self, request: &Request, node: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        let ino = self.ino(node);
        let work = move |shared: Arc<Shared<T>>, call| async move {
            shared.requests.release(&call, ino, handle.0, None).await
        };
        self.run((request, "releasedir", Size::One), reply, work, done);
    }

    fn fsyncdir(&self, request: &Request, node: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let ino = self.ino(node);
        let work = move |shared: Arc<Shared<T>>, call| async move { shared.requests.flush(&call, ino, handle.0).await };
        self.run((request, "fsyncdir", Size::Bulk), reply, work, done);
    }

    fn statfs(&self, request: &Request, _: INodeNo, reply: ReplyStatfs) {
        let work = |shared: Arc<Shared<T>>, call| async move { shared.requests.space(&call).await };
        self.run((request, "statfs", Size::One), reply, work, space);
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (ino, name, value) = (self.ino(node), name.as_bytes().to_vec(), value.to_vec());
        let work = move |shared: Arc<Shared<T>>, call| async move {
            shared.requests.set_xattr(&call, ino, &name, &value, Replacing(flags)).await
        };
        self.run((request, "setxattr", Size::One), reply, work, done);
    }

    fn getxattr(&self, request: &Request, node: INodeNo, name: &OsStr, room_bytes: u32, reply: ReplyXattr) {
        let (ino, name) = (self.ino(node), name.as_bytes().to_vec());
        let work = |shared: Arc<Shared<T>>, call| async move { shared.requests.xattr(&call, ino, &name).await };
        let answer = move |_: &Answering<T>, reply, found: Vec<u8>| value(reply, &found, room_bytes);
        self.run((request, "getxattr", Size::One), reply, work, answer);
    }

    fn listxattr(&self, request: &Request, node: INodeNo, room_bytes: u32, reply: ReplyXattr) {
        let ino = self.ino(node);
        let work = |shared: Arc<Shared<T>>, call| async move { shared.requests.xattr_names(&call, ino).await };
        let answer = move |_: &Answering<T>, reply, names: Vec<u8>| value(reply, &names, room_bytes);
        self.run((request, "listxattr", Size::One), reply, work, answer);
    }

    fn removexattr(&self, request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (ino, name) = (self.ino(node), name.as_bytes().to_vec());
        let work = |shared: Arc<Shared<T>>, call| async move { shared.requests.remove_xattr(&call, ino, &name).await };
        self.run((request, "removexattr", Size::One), reply, work, done);
    }

    /// Comes only to a mount without default_permissions, where whoever sees the mount may do everything.
    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let ino = self.ino(node);
        let work = move |shared: Arc<Shared<T>>, call| async move {
            shared.requests.allocate(&call, ino, offset, len, mode).await
        };
        self.run((request, "fallocate", Size::Bulk), reply, work, done);
    }

    fn lseek(&self, request: &Request, node: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let ino = self.ino(node);
        let work =
            move |shared: Arc<Shared<T>>, call| async move { shared.requests.seek(&call, ino, offset, whence).await };
        self.run((request, "lseek", Size::One), reply, work, |_, reply, found| reply.offset(found));
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _: FileHandle,
        to_offset: u64,
        len: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to) = ((self.ino(from), from_offset), (self.ino(to), to_offset));
        let work = move |shared: Arc<Shared<T>>, call| async move {
            shared.requests.copy_range(&call, from, to, len, flags.bits()).await
        };
        self.run((request, "copy_file_range", Size::Bulk), reply, work, |_, reply, copied| reply.written(copied));
    }

    fn getlk(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        first: u64,
        last: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let ino = self.ino(node);
        let asked = Asked { owner: owner.0, first, last, handle: handle.0, kind, pid };
        let work =
            move |shared: Arc<Shared<T>>, call| async move { shared.requests.lock_in_the_way(&call, ino, asked).await };
        let answer = move |_: &Answering<T>, reply: ReplyLock, found: Option<Asked>| {
            let Asked { first, last, kind, pid, .. } = found.unwrap_or(Asked { kind: libc::F_UNLCK, ..asked });
            reply.locked(first, last, kind, pid);
        };
        self.run((request, "getlk", Size::One), reply, work, answer);
    }

    fn setlk(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        first: u64,
        last: u64,
        kind: i32,
        pid: u32,
        waits: bool,
        reply: ReplyEmpty,
    ) {
        let ino = self.ino(node);
        let asked = Asked { owner: owner.0, first, last, handle: handle.0, kind, pid };
        let waiter = waits.then(|| Waiter::new(request.pid()));
        let size = if waits { Size::Wait } else { Size::One };
        let work =
            move |shared: Arc<Shared<T>>, call| async move { shared.requests.lock(&call, ino, asked, waiter).await };
        self.run((request, "setlk", size), reply, work, done);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}
