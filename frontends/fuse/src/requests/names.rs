//! Directories and what is in them.

use nix::errno::Errno;
use nix::libc;
use predastore::catalog::{FileKind, RenameMode, Stat};
use predastore::ids::Ino;
use predastore::object::tree::{NewKind, NewNode};

use super::{Call, Requests};
use crate::directory::{self, Entry};
use crate::namespace::Namespace;
use crate::ownership;
use crate::patience::Repeat;

impl<T: Namespace> Requests<T> {
    /// What `name` names.
    pub(crate) async fn lookup(&self, call: &Call, parent: Ino, name: &[u8]) -> Result<Stat, Errno> {
        self.ask(call, parent, Repeat::Safe, || self.tree.lookup(parent, name)).await.map(|stat| self.shown(stat))
    }

    /// mknod: `mode` with its type bits, `rdev` in the kernel's form.
    pub(crate) async fn make_node(
        &self,
        call: &Call,
        parent: Ino,
        name: &[u8],
        mode: u32,
        rdev: u32,
    ) -> Result<Stat, Errno> {
        let kind = match FileKind::of_mode(mode) {
            FileKind::File => NewKind::File,
            FileKind::Fifo => NewKind::Fifo,
            FileKind::Socket => NewKind::Socket,
            FileKind::CharDevice => NewKind::CharDevice(rdev.into()),
            FileKind::BlockDevice => NewKind::BlockDevice(rdev.into()),
            FileKind::Directory | FileKind::Symlink => return Err(Errno::EINVAL),
        };
        self.make(call, parent, name, mode, kind).await
    }

    /// mkdir.
    pub(crate) async fn make_directory(&self, call: &Call, parent: Ino, name: &[u8], mode: u32) -> Result<Stat, Errno> {
        self.make(call, parent, name, mode, NewKind::Directory).await
    }

    /// symlink.
    pub(crate) async fn make_symlink(
        &self,
        call: &Call,
        parent: Ino,
        name: &[u8],
        target: Vec<u8>,
    ) -> Result<Stat, Errno> {
        self.make(call, parent, name, 0o777, NewKind::Symlink(target)).await
    }

    async fn make(&self, call: &Call, parent: Ino, name: &[u8], mode: u32, kind: NewKind) -> Result<Stat, Errno> {
        let new = self.new_node(call, parent, mode, kind).await?;
        let stat = self.ask(call, parent, Repeat::Known, || self.tree.make(parent, name, new.clone())).await?;
        Ok(self.shown(stat))
    }

    /// A new inode of the caller's, by the rules of `parent`.
    pub(super) async fn new_node(&self, call: &Call, parent: Ino, mode: u32, kind: NewKind) -> Result<NewNode, Errno> {
        self.may_change()?;
        let directory = self.parent_stat(call, parent).await?;
        let bits = mode & predastore::catalog::MODE_MASK;
        let (mode, gid) = ownership::inherited(&directory, bits, call.gid, kind == NewKind::Directory);
        Ok(NewNode { mode, uid: call.uid, gid, kind })
    }

    /// Another name for an inode.
    pub(crate) async fn link(&self, call: &Call, ino: Ino, parent: Ino, name: &[u8]) -> Result<Stat, Errno> {
        self.may_change()?;
        self.ask(call, ino, Repeat::Known, || self.tree.link(ino, parent, name)).await.map(|stat| self.shown(stat))
    }

    /// unlink.
    pub(crate) async fn unlink(&self, call: &Call, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        self.may_change()?;
        self.ask(call, parent, Repeat::Known, || self.tree.unlink(parent, name)).await
    }

    /// rmdir.
    pub(crate) async fn remove_directory(&self, call: &Call, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        self.may_change()?;
        self.ask(call, parent, Repeat::Known, || self.tree.remove_directory(parent, name)).await
    }

    /// rename; `flags` of `renameat2(2)`.
    pub(crate) async fn rename(
        &self,
        call: &Call,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        self.may_change()?;
        let mode = match flags {
            0 => RenameMode::Replace,
            libc::RENAME_NOREPLACE => RenameMode::NoReplace,
            libc::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return Err(Errno::EINVAL),
        };
        self.ask(call, from.0, Repeat::Known, || self.tree.rename(from, to, mode)).await
    }

    /// A symbolic link's target.
    pub(crate) async fn read_link(&self, call: &Call, ino: Ino) -> Result<Vec<u8>, Errno> {
        self.ask(call, ino, Repeat::Safe, || self.tree.read_link(ino)).await
    }

    /// Entries behind `cookie`; tell [`Requests::fitted`] how many were of use.
    pub(crate) async fn list(&self, call: &Call, directory: Ino, cookie: u64) -> Result<Vec<Entry>, Errno> {
        let page = || directory::page(&self.tree, &self.cookies, directory, cookie);
        let mut entries = self.ask(call, directory, Repeat::Safe, page).await?;
        if self.options.access_times.directories && !self.options.read_only {
            self.tree.accessed(directory);
        }
        for entry in &mut entries {
            entry.stat = entry.stat.map(|stat| self.shown(stat));
        }
        Ok(entries)
    }

    /// `fitted` of the `listed` entries found room in the answer.
    pub(crate) fn fitted(&self, directory: Ino, fitted: usize, listed: usize) {
        self.cookies.fitted(directory, fitted, listed);
    }
}
