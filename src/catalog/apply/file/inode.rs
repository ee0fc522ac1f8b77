//! Attributes by inode.

use rusqlite::params;

use crate::catalog::inode::{FileKind, posix_of};
use crate::catalog::level::LOCKS_LEVEL;
use crate::catalog::types::{InodeAttrs, Linked, Posix};
use crate::catalog::{ACCESSED_COUNT_MAX, Bucket, ETag, Error, Hint, Refusal, SetAttrs};
use crate::env::Timestamp;
use crate::ids::Ino;

use super::super::node::Node;
use super::super::tree::{Entry, Kind};
use super::super::{Decision, Step, bound, sql};

/// Bytes of all extended attributes of one inode, names and values.
const XATTRS_MAX_BYTES: usize = 64 << 10;
const XATTR_NAME_MAX_BYTES: usize = 255;

/// What the tag is of what has no bytes.
pub(super) const EMPTY_ETAG: ETag = ETag {
    md5: [0xd4, 0x1d, 0x8c, 0xd9, 0x8f, 0x00, 0xb2, 0x04, 0xe9, 0x80, 0x09, 0x98, 0xec, 0xf8, 0x42, 0x7e],
    part_count: 0,
};

/// An inode that is no directory.
pub(super) struct File {
    pub(super) node: Node,
    pub(super) own: InodeAttrs,
    pub(super) shown: Linked,
    /// Where its only name is, with its entry; none: it has several, or none.
    pub(super) named: Option<(Ino, Vec<u8>, Entry)>,
    /// What the entry becomes, but for length, time and tag; none: it stays.
    pub(super) next: Option<Entry>,
}

impl File {
    /// POSIX attributes; those it was given, or what an object has.
    pub(super) fn posix(&self) -> Posix {
        posix_of(self.own.attrs.posix, FileKind::File, self.shown.modified)
    }

    /// Gives it attributes.
    pub(super) fn set(&mut self, set: &SetAttrs, now: Timestamp) {
        self.own.attrs.posix = Some(set.over(self.posix(), now));
        // What a client said of the owner is not so any more.
        let is_said = |name: &str| set.uid.is_some() && name == "uid" || set.gid.is_some() && name == "gid";
        self.own.attrs.metadata.retain(|(name, _)| !is_said(name));
    }
}

impl Step<'_> {
    /// An inode that is no directory, named or open.
    pub(super) fn file_at(&mut self, (ino, hint): (Ino, &Hint)) -> Decision<File> {
        let node = self.node(ino)?.filter(|node| node.refs > 0).ok_or(Refusal::Stale)?;
        if node.nlink == 0 && !self.is_orphan(ino)? {
            return Err(Refusal::Stale.into());
        }
        let own = self.inode_attrs(ino)?;
        if let Some(shown) = own.attrs.linked {
            return Ok(File { node, own, shown, named: None, next: None });
        }
        let (parent, name) = match (&own.home, hint) {
            (Some((parent, name)), _) => (*parent, name.clone()),
            (None, Some((parent, name))) => (*parent, name.to_vec()),
            (None, None) => return Err(Refusal::Stale.into()),
        };
        let entry = self.current(&Self::spot_in(Ino(0), parent, &name))?;
        let entry = entry.filter(|entry| entry.ino == ino && entry.kind == Kind::Object).ok_or(Refusal::Stale)?;
        let etag = entry.etag.unwrap_or(EMPTY_ETAG);
        let shown = Linked { size_bytes: entry.size_bytes, modified: entry.modified, etag };
        Ok(File { node, own, shown, named: Some((parent, name, entry)), next: None })
    }

    /// Before a file changes in place.
    pub(super) fn preserve_file(&mut self, file: &mut File) -> Decision<()> {
        match &file.named {
            Some((parent, name, _)) => self.preserve(*parent, name)?,
            None if file.node.nlink > 0 => self.preserve_linked(file.node.id, &file.own)?,
            None => {}
        }
        // Others may use its bytes since.
        file.node = self.node(file.node.id)?.ok_or(Refusal::Stale)?;
        Ok(())
    }

    /// Writes what a file shows and carries by now.
    pub(super) fn save_file(&mut self, root: Ino, file: &mut File, shown: Linked) -> Result<(), Error> {
        match &file.named {
            Some((parent, name, former)) => {
                let Linked { size_bytes, modified, etag } = shown;
                let next = file.next.take().unwrap_or_else(|| former.clone());
                let entry = Entry { size_bytes, modified, etag: Some(etag), ..next };
                self.replace_dentry(&Self::spot_in(root, *parent, name), former, &entry)?;
                file.own.home = Some((*parent, name.clone()));
            }
            None => {
                self.count_resized(root, file.node.nlink, file.shown.size_bytes, shown.size_bytes);
                file.own.attrs.linked = Some(shown);
            }
        }
        file.shown = shown;
        self.set_attrs(file.node.id, &file.own)
    }

    /// POSIX attributes of a directory; none: there is no such directory.
    pub(super) fn directory_attrs(&self, ino: Ino) -> Result<Option<InodeAttrs>, Error> {
        let query = "SELECT attrs FROM dir WHERE ino=?";
        let found = self.find(query, [sql(ino.0)], |row| row.get::<_, Option<Vec<u8>>>(0))?;
        found.map(|bytes| bytes.map_or(Ok(InodeAttrs::default()), |bytes| InodeAttrs::decode(&bytes))).transpose()
    }

    pub(super) fn set_directory_attrs(&mut self, ino: Ino, own: &InodeAttrs) -> Result<(), Error> {
        self.preserve_directory(ino)?;
        self.tell_inode(ino);
        self.run("UPDATE dir SET attrs=?2 WHERE ino=?1", params![sql(ino.0), own.encode()])?;
        Ok(())
    }

    /// Notes that entries of a directory have changed.
    pub(super) fn touch_directory(&mut self, ino: Ino) -> Result<(), Error> {
        if let Some(mut own) = self.directory_attrs(ino)? {
            let posix = posix_of(own.attrs.posix, FileKind::Directory, self.now);
            own.attrs.posix = Some(Posix { mtime: self.now, ctime: self.now, ..posix });
            self.set_directory_attrs(ino, &own)?;
        }
        Ok(())
    }

    /// Notes that a file's names have changed.
    pub(super) fn touch_inode(&mut self, ino: Ino) -> Result<(), Error> {
        let mut own = self.inode_attrs(ino)?;
        if own.attrs.linked.is_some() {
            self.preserve_linked(ino, &own)?;
        }
        if let Some(posix) = &mut own.attrs.posix {
            posix.ctime = self.now;
            self.set_attrs(ino, &own)?;
        }
        Ok(())
    }

    pub(super) fn set_posix(&mut self, bucket: &Bucket, target: (Ino, &Hint), set: &SetAttrs) -> Decision<()> {
        if let Some(mut own) = self.directory_attrs(target.0)? {
            let posix = posix_of(own.attrs.posix, FileKind::Directory, bucket.created);
            own.attrs.posix = Some(set.over(posix, self.now));
            return Ok(self.set_directory_attrs(target.0, &own)?);
        }
        let mut file = self.file_at(target)?;
        self.preserve_file(&mut file)?;
        file.set(set, self.now);
        self.keep_home(&mut file);
        Ok(self.set_attrs(target.0, &file.own)?)
    }

    /// Keeps when inodes were read. Nobody is told: what is read changes all the time.
    pub(super) fn note_accesses(&mut self, times: &[(Ino, Timestamp)]) -> Decision<()> {
        bound(self.state.level >= LOCKS_LEVEL, "times of access need feature level 3")?;
        bound(times.len() <= ACCESSED_COUNT_MAX, "at most 4,096 times of access a command")?;
        for (ino, time) in times {
            let directory = self.directory_attrs(*ino)?;
            let (own, update) = match directory {
                Some(own) => (own, "UPDATE dir SET attrs=?2 WHERE ino=?1"),
                None if self.node(*ino)?.is_some() => (self.inode_attrs(*ino)?, "UPDATE node SET attrs=?2 WHERE id=?1"),
                None => continue,
            };
            if let Some(own) = read_at(own, *time) {
                self.run(update, params![sql(ino.0), own.encode()])?;
            }
        }
        Ok(())
    }

    /// A file that a file system has changed says where its name is.
    fn keep_home(&self, file: &mut File) {
        if let Some((parent, name, _)) = &file.named {
            file.own.home = Some((*parent, name.clone()));
        }
    }

    pub(super) fn set_xattr(
        &mut self,
        bucket: &Bucket,
        target: (Ino, &Hint),
        (name, value): (&[u8], Option<&[u8]>),
        expected: Option<bool>,
    ) -> Decision<()> {
        bound((1..=XATTR_NAME_MAX_BYTES).contains(&name.len()), "an attribute's name has 1 to 255 bytes")?;
        let directory = self.directory_attrs(target.0)?;
        let is_directory = directory.is_some();
        let mut file = None;
        let mut own = match directory {
            Some(own) => own,
            None => {
                let mut found = self.file_at(target)?;
                self.keep_home(&mut found);
                let own = found.own.clone();
                file = Some(found);
                own
            }
        };
        let xattrs = &mut own.attrs.xattrs;
        let position = xattrs.iter().position(|(had, _)| had == name);
        match (expected, position, value) {
            (Some(false), Some(_), _) => return Err(Refusal::XattrExists.into()),
            (Some(true), None, _) | (_, None, None) => return Err(Refusal::NoXattr.into()),
            (_, Some(position), None) => drop(xattrs.remove(position)),
            (_, Some(position), Some(value)) => xattrs[position].1 = value.to_vec(),
            (_, None, Some(value)) => xattrs.push((name.to_vec(), value.to_vec())),
        }
        if xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > XATTRS_MAX_BYTES {
            return Err(Refusal::XattrTooLarge.into());
        }
        let posix = match &file {
            Some(file) => file.posix(),
            None => posix_of(own.attrs.posix, FileKind::Directory, bucket.created),
        };
        own.attrs.posix = Some(Posix { ctime: self.now, ..posix });
        match is_directory {
            true => self.set_directory_attrs(target.0, &own)?,
            false => {
                file.as_mut().map_or(Ok(()), |file| self.preserve_file(file))?;
                self.set_attrs(target.0, &own)?;
            }
        }
        Ok(())
    }
}

/// Attributes with a later time of access; none: they stay.
fn read_at(mut own: InodeAttrs, time: Timestamp) -> Option<InodeAttrs> {
    let posix = own.attrs.posix.as_mut().filter(|posix| posix.atime < time)?;
    posix.atime = time;
    Some(own)
}
