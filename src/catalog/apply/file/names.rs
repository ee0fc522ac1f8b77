//! Entries of directories, as a file system makes, links, moves and removes them.

use crate::catalog::event::Happening;
use crate::catalog::inode::{FileKind, NAME_MAX_BYTES};
use crate::catalog::types::{InodeAttrs, Linked, Posix};
use crate::catalog::{Attrs, Bucket, Error, Hint, NewInode, Refusal, RenameMode, Versioning};
use crate::ids::Ino;
use crate::units::BLOCK_BYTES;

use rusqlite::params;

use super::super::node::{Form, NewNode};
use super::super::object::NewVersion;
use super::super::state::Directory;
use super::super::tree::{Entry, Kind, Spot};
use super::super::{Decision, Step, bound, sql};
use super::inode::EMPTY_ETAG;

/// The most names of one inode.
const LINK_MAX: u64 = 65_000;

/// What a name of POSIX stands for.
enum Named {
    Directory(Ino),
    File(Entry),
}

impl Named {
    fn is_directory(&self) -> bool {
        matches!(self, Named::Directory(_))
    }

    fn ino(&self) -> Ino {
        match self {
            Named::Directory(ino) => *ino,
            Named::File(entry) => entry.ino,
        }
    }
}

/// A place in a directory: the directory and the name there, of POSIX.
type At<'a> = (Ino, &'a [u8]);

/// Refuses what can be no name here.
fn check_name(name: &[u8]) -> Result<(), Refusal> {
    if name.len() > NAME_MAX_BYTES {
        return Err(Refusal::NameTooLong);
    }
    let is_odd = matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0));
    if is_odd || std::str::from_utf8(name).is_err() { Err(Refusal::InvalidName) } else { Ok(()) }
}

/// The name of a directory's entry.
fn with_slash(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

impl Step<'_> {
    /// Refuses a directory that is not there, or holds only history.
    fn check_directory(&mut self, root: Ino, ino: Ino) -> Decision<()> {
        if ino == root {
            return Ok(());
        }
        if self.directory_attrs(ino)?.is_none() {
            return Err(Refusal::NoEntry.into());
        }
        let (parent, name) = self.directory_name(ino)?;
        match self.directory(parent, &name)? {
            Some(found) if found.visible && found.ino == ino && !self.is_detached(parent)? => Ok(()),
            _ => Err(Refusal::NoEntry.into()),
        }
    }

    fn named(&mut self, root: Ino, (parent, name): At<'_>) -> Decision<Option<Named>> {
        if let Some(found) = self.directory(parent, &with_slash(name))?.filter(|found| found.visible) {
            return Ok(Some(Named::Directory(found.ino)));
        }
        Ok(self.current(&Self::spot_in(root, parent, name))?.map(Named::File))
    }

    /// Refuses a name that is taken or cannot be.
    fn check_free(&mut self, root: Ino, at: At<'_>) -> Decision<()> {
        check_name(at.1)?;
        self.check_directory(root, at.0)?;
        match self.named(root, at)? {
            Some(_) => Err(Refusal::EntryExists.into()),
            None => Ok(()),
        }
    }

    /// Gives a directory a marker, unless it has one or is the root.
    fn make_explicit(&mut self, bucket: &Bucket, directory: Ino) -> Result<(), Error> {
        let spot = Self::spot_in(bucket.id.root(), directory, b"");
        if directory == bucket.id.root() || self.current(&spot)?.is_some() {
            return Ok(());
        }
        let attrs = Attrs::default();
        let ino = self.take_id();
        let insert = "INSERT INTO node(id, nlink, refs, body, form, attrs, place) VALUES(?, 1, 1, 0, ?, ?, NULL)";
        self.run(insert, params![sql(ino.0), Form::Empty as i64, attrs.encode()])?;
        let new = NewVersion { ino, size_bytes: 0, etag: EMPTY_ETAG, attrs: &attrs };
        let entry = self.new_entry(bucket, &new);
        self.publish_at(bucket, &spot, None, &entry, Happening::Put)
    }

    pub(super) fn make(&mut self, bucket: &Bucket, at: At<'_>, new: &NewInode) -> Decision<()> {
        let root = bucket.id.root();
        self.check_free(root, at)?;
        match FileKind::of_mode(new.posix.mode) {
            FileKind::Directory => self.make_explicit_directory(bucket, at, new.posix)?,
            _ => self.make_file(bucket, at, new)?,
        }
        Ok(self.touch_directory(at.0)?)
    }

    fn make_explicit_directory(&mut self, bucket: &Bucket, (parent, name): At<'_>, posix: Posix) -> Decision<()> {
        self.make_explicit(bucket, parent)?;
        let made = self.make_directory(parent, &with_slash(name), true)?;
        self.make_explicit(bucket, made.ino)?;
        let attrs = Attrs { posix: Some(posix), ..Attrs::default() };
        Ok(self.set_directory_attrs(made.ino, &InodeAttrs { attrs, ..InodeAttrs::default() })?)
    }

    fn make_file(&mut self, bucket: &Bucket, (parent, name): At<'_>, new: &NewInode) -> Decision<()> {
        let size_bytes = new.target.len() as u64;
        bound(size_bytes <= BLOCK_BYTES, "a link's target has at most 8,192 bytes")?;
        self.check_leased(new.ino)?;
        let attrs = Attrs { posix: Some(new.posix), ..Attrs::default() };
        let own = InodeAttrs { attrs, home: Some((parent, name.to_vec())), ..InodeAttrs::default() };
        let form = if new.target.is_empty() { Form::Empty } else { Form::Inline };
        let encoded = own.encode();
        self.insert_fresh(&NewNode { id: new.ino, nlink: 1, owner: None, form, attrs: Some(&encoded), place: None })?;
        if form == Form::Inline {
            self.run("INSERT INTO inline(ino, data) VALUES(?, ?)", params![sql(new.ino.0), &new.target[..]])?;
        }
        self.make_explicit(bucket, parent)?;
        let etag = if new.target.is_empty() { EMPTY_ETAG } else { self.target_etag(&new.target) };
        let version = NewVersion { ino: new.ino, size_bytes, etag, attrs: &own.attrs };
        let entry = Entry { is_hidden: new.is_hidden, ..self.new_entry(bucket, &version) };
        self.publish_at(bucket, &Self::spot_in(bucket.id.root(), parent, name), None, &entry, Happening::Put)?;
        if new.is_hidden {
            let insert = "INSERT INTO opened(ino, session, parent, name, published) VALUES(?, ?, ?, ?, 0)";
            self.run(insert, params![sql(new.ino.0), sql(self.session.0), sql(parent.0), name])?;
        }
        Ok(())
    }

    fn target_etag(&self, target: &[u8]) -> crate::catalog::ETag {
        use md5::{Digest, Md5};
        crate::catalog::ETag { md5: Md5::digest(target).into(), part_count: 0 }
    }

    pub(super) fn link(&mut self, bucket: &Bucket, target: (Ino, &Hint), at: At<'_>) -> Decision<()> {
        let root = bucket.id.root();
        if bucket.ever_versioned || self.directory_attrs(target.0)?.is_some() {
            return Err(Refusal::NotPermitted.into());
        }
        self.check_free(root, at)?;
        let mut file = self.file_at(target)?;
        if file.node.nlink == 0 {
            return Err(Refusal::NoEntry.into());
        }
        if file.node.nlink >= LINK_MAX {
            return Err(Refusal::TooManyLinks.into());
        }
        self.make_explicit(bucket, at.0)?;
        self.preserve_file(&mut file)?;
        let Linked { size_bytes, modified, etag } = file.shown;
        if let Some((parent, name, former)) = file.named.take() {
            let entry = Entry { kind: Kind::Linked, ..former.clone() };
            self.replace_dentry(&Self::spot_in(root, parent, &name), &former, &entry)?;
        }
        let posix = file.posix();
        file.own.home = None;
        file.own.attrs.linked = Some(file.shown);
        file.own.attrs.posix = Some(Posix { ctime: self.now, ..posix });
        self.set_attrs(target.0, &file.own)?;
        self.run("UPDATE node SET nlink=nlink+1 WHERE id=?", [sql(target.0.0)])?;
        let version = NewVersion { ino: target.0, size_bytes, etag, attrs: &file.own.attrs };
        let entry = Entry { kind: Kind::Linked, modified, ..self.new_entry(bucket, &version) };
        let spot = Self::spot_in(root, at.0, at.1);
        self.insert_dentry(&spot, &entry)?;
        self.tell_key(Happening::Copied, &spot, &entry)?;
        Ok(self.touch_directory(at.0)?)
    }

    pub(super) fn unlink(&mut self, bucket: &Bucket, at: At<'_>) -> Decision<()> {
        let root = bucket.id.root();
        self.check_directory(root, at.0)?;
        let entry = match self.named(root, at)?.ok_or(Refusal::NoEntry)? {
            Named::Directory(_) => return Err(Refusal::IsDirectory.into()),
            Named::File(entry) => entry,
        };
        self.make_explicit(bucket, at.0)?;
        self.remove_name(bucket, &Self::spot_in(root, at.0, at.1), &entry)?;
        if entry.kind == Kind::Linked {
            self.touch_inode(entry.ino)?;
        }
        Ok(self.touch_directory(at.0)?)
    }

    /// Takes an object's name away, as S3 would.
    fn remove_name(&mut self, bucket: &Bucket, spot: &Spot<'_>, entry: &Entry) -> Result<(), Error> {
        match bucket.versioning {
            Versioning::Never => self.remove_current(spot, entry),
            Versioning::Enabled | Versioning::Suspended => self.mark_deleted(bucket, spot, Some(entry)).map(drop),
        }
    }

    pub(super) fn remove_directory(&mut self, bucket: &Bucket, at: At<'_>) -> Decision<()> {
        let root = bucket.id.root();
        self.check_directory(root, at.0)?;
        let ino = match self.named(root, at)?.ok_or(Refusal::NoEntry)? {
            Named::Directory(ino) => ino,
            Named::File(_) => return Err(Refusal::NotDirectory.into()),
        };
        self.check_empty(ino)?;
        self.make_explicit(bucket, at.0)?;
        self.remove_empty(bucket, ino)?;
        Ok(self.touch_directory(at.0)?)
    }

    fn check_empty(&mut self, ino: Ino) -> Decision<()> {
        match self.exists("SELECT 1 FROM dentry WHERE parent=? AND name<>x'' LIMIT 1", [sql(ino.0)])? {
            true => Err(Refusal::DirectoryNotEmpty.into()),
            false => Ok(()),
        }
    }

    /// Removes a directory with nothing but its marker in it. Its parent is explicit.
    fn remove_empty(&mut self, bucket: &Bucket, ino: Ino) -> Result<(), Error> {
        let spot = Self::spot_in(bucket.id.root(), ino, b"");
        if let Some(marker) = self.current(&spot)? {
            self.remove_name(bucket, &spot, &marker)?;
        }
        self.prune(bucket.id.root(), ino)
    }

    pub(super) fn rename(&mut self, bucket: &Bucket, from: At<'_>, to: At<'_>, mode: RenameMode) -> Decision<()> {
        let root = bucket.id.root();
        self.check_directory(root, from.0)?;
        let source = self.named(root, from)?.ok_or(Refusal::NoEntry)?;
        check_name(to.1)?;
        self.check_directory(root, to.0)?;
        let target = self.named(root, to)?;
        self.check_moves(bucket, &source, to)?;
        match (mode, &target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Refusal::EntryExists.into()),
            (RenameMode::Exchange, None) => return Err(Refusal::NoEntry.into()),
            (RenameMode::Exchange, Some(target)) => {
                self.check_moves(bucket, target, from)?;
                self.check_uncovers(root, (&source, from), (target, to))?;
            }
            (RenameMode::Replace, Some(target)) if target.ino() != source.ino() => {
                self.check_replaces(&source, target)?;
            }
            (RenameMode::Replace | RenameMode::NoReplace, _) => {}
        }
        if target.as_ref().is_some_and(|target| target.ino() == source.ino()) {
            return Ok(());
        }
        self.make_explicit(bucket, from.0)?;
        self.make_explicit(bucket, to.0)?;
        match (mode, target) {
            (RenameMode::Exchange, Some(target)) => self.exchange(bucket, (&source, from), (&target, to))?,
            (_, target) => self.move_over(bucket, (&source, from), (target, to))?,
        }
        self.touch_directory(from.0)?;
        self.touch_directory(to.0)?;
        Ok(self.touch_moved(&source)?)
    }

    fn touch_moved(&mut self, moved: &Named) -> Result<(), Error> {
        match moved {
            Named::Directory(ino) => {
                let Some(mut own) = self.directory_attrs(*ino)? else { return Ok(()) };
                if let Some(posix) = &mut own.attrs.posix {
                    posix.ctime = self.now;
                    self.set_directory_attrs(*ino, &own)?;
                }
                Ok(())
            }
            Named::File(entry) => self.touch_inode(entry.ino),
        }
    }

    /// Refuses to move what history binds to its place, or a directory below itself.
    fn check_moves(&mut self, bucket: &Bucket, source: &Named, (mut above, _): At<'_>) -> Decision<()> {
        let Named::Directory(ino) = source else { return Ok(()) };
        if bucket.ever_versioned {
            return Err(Refusal::CrossDevice.into());
        }
        while above != bucket.id.root() {
            if above == *ino {
                return Err(Refusal::Cycle.into());
            }
            above = self.directory_name(above)?.0;
        }
        Ok(())
    }

    /// Refuses to put a file where an object has its name that a directory hides: it would show itself.
    fn check_uncovers(
        &mut self,
        root: Ino,
        (source, from): (&Named, At<'_>),
        (target, to): (&Named, At<'_>),
    ) -> Decision<()> {
        let place = match (source, target) {
            (Named::Directory(_), Named::File(_)) => from,
            (Named::File(_), Named::Directory(_)) => to,
            (Named::Directory(_), Named::Directory(_)) | (Named::File(_), Named::File(_)) => return Ok(()),
        };
        match self.current(&Self::spot_in(root, place.0, place.1))? {
            Some(_) => Err(Refusal::EntryExists.into()),
            None => Ok(()),
        }
    }

    fn check_replaces(&mut self, source: &Named, target: &Named) -> Decision<()> {
        match (source.is_directory(), target) {
            (true, Named::File(_)) => Err(Refusal::NotDirectory.into()),
            (false, Named::Directory(_)) => Err(Refusal::IsDirectory.into()),
            (true, Named::Directory(ino)) => self.check_empty(*ino),
            (false, Named::File(_)) => Ok(()),
        }
    }

    fn move_over(
        &mut self,
        bucket: &Bucket,
        (source, from): (&Named, At<'_>),
        (target, to): (Option<Named>, At<'_>),
    ) -> Decision<()> {
        let root = bucket.id.root();
        match (source, target) {
            (Named::Directory(ino), target) => {
                if let Some(Named::Directory(replaced)) = target {
                    self.remove_empty(bucket, replaced)?;
                }
                self.take_directory(root, *ino, from)?;
                self.put_directory(root, *ino, to)?;
            }
            (Named::File(entry), target) => {
                let former = match target {
                    Some(Named::File(former)) => Some(former),
                    _ => None,
                };
                let moved = self.take_file(bucket, entry, from)?;
                let spot = Self::spot_in(root, to.0, to.1);
                self.publish_at(bucket, &spot, former.as_ref(), &moved, Happening::Copied)?;
                if former.as_ref().is_some_and(|former| former.kind == Kind::Linked) {
                    self.touch_inode(former.map_or(entry.ino, |former| former.ino))?;
                }
                self.settle(&moved, to)?;
            }
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        bucket: &Bucket,
        (source, from): (&Named, At<'_>),
        (target, to): (&Named, At<'_>),
    ) -> Decision<()> {
        if bucket.ever_versioned {
            return Err(Refusal::CrossDevice.into());
        }
        let moved = self.take_out(bucket, source, from)?;
        let swapped = self.take_out(bucket, target, to)?;
        self.put_in(bucket, moved, to)?;
        self.put_in(bucket, swapped, from)?;
        Ok(self.touch_moved(target)?)
    }

    fn take_out(&mut self, bucket: &Bucket, named: &Named, at: At<'_>) -> Decision<Named> {
        match named {
            Named::Directory(ino) => {
                self.take_directory(bucket.id.root(), *ino, at)?;
                Ok(Named::Directory(*ino))
            }
            Named::File(entry) => Ok(Named::File(self.take_file(bucket, entry, at)?)),
        }
    }

    fn put_in(&mut self, bucket: &Bucket, named: Named, at: At<'_>) -> Decision<()> {
        match named {
            Named::Directory(ino) => Ok(self.put_directory(bucket.id.root(), ino, at)?),
            Named::File(entry) => {
                let spot = Self::spot_in(bucket.id.root(), at.0, at.1);
                self.insert_dentry(&spot, &entry)?;
                self.tell_key(Happening::Copied, &spot, &entry)?;
                Ok(self.settle(&entry, at)?)
            }
        }
    }

    fn take_directory(&mut self, root: Ino, ino: Ino, (parent, name): At<'_>) -> Result<(), Error> {
        let name = with_slash(name);
        self.tell_prefix(Happening::Left { directory: ino }, root, (parent, &name))?;
        self.delete_directory_entry(parent, &name, true)
    }

    fn put_directory(&mut self, root: Ino, ino: Ino, (parent, name): At<'_>) -> Result<(), Error> {
        let name = with_slash(name);
        self.run("UPDATE dir SET parent=?2, name=?3 WHERE ino=?1", params![sql(ino.0), sql(parent.0), name])?;
        self.insert_directory_entry(parent, &name, Directory { ino, visible: true })?;
        self.tell_prefix(Happening::Came { directory: ino }, root, (parent, &name))
    }

    /// Takes a file's name away, for it to get another. Where history is kept, it stays there under an inode of its own.
    fn take_file(&mut self, bucket: &Bucket, entry: &Entry, (parent, name): At<'_>) -> Decision<Entry> {
        let spot = Self::spot_in(bucket.id.root(), parent, name);
        let is_null = bucket.versioning != Versioning::Enabled;
        let moved = Entry { seq: self.take_seq(), is_null, ..entry.clone() };
        if bucket.ever_versioned && !entry.is_hidden {
            let kept = self.keep_copy(entry)?;
            // The name is the copy's, which history or nobody keeps; the file itself loses none.
            self.replace_dentry(&spot, entry, &kept)?;
            self.remove_name(bucket, &spot, &kept)?;
        } else {
            self.delete_dentry(&spot, entry)?;
            self.tell_key(Happening::Deleted, &spot, &Entry { is_null: true, ..entry.clone() })?;
        }
        Ok(moved)
    }

    /// Writes down where a file's only name is by now.
    fn settle(&mut self, entry: &Entry, (parent, name): At<'_>) -> Result<(), Error> {
        if entry.kind != Kind::Object {
            return Ok(());
        }
        let mut own = self.inode_attrs(entry.ino)?;
        own.home = Some((parent, name.to_vec()));
        self.set_attrs(entry.ino, &own)
    }
}
