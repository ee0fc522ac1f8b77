//! Attributes of inodes.

use bytes::Bytes;

use crate::catalog::{FileOperation, Refusal, SetAttrs};
use crate::file::Space;
use crate::ids::Ino;
use crate::object::Error;

use super::{SetStat, SetTime, Stat, Tree, TreeSpace, XattrMode};

impl Tree {
    /// An inode's attributes, with what was written here and is not committed.
    ///
    /// # Errors
    /// `Refused(Stale)`: it is no more. `Unavailable`.
    pub async fn stat(&self, ino: Ino) -> Result<Stat, Error> {
        let stat = self.committed(ino).await?;
        Ok(self.with_written(stat).await)
    }

    /// An inode's attributes as the catalog has them.
    pub(super) async fn committed(&self, ino: Ino) -> Result<Stat, Error> {
        let hint = self.hint(ino);
        if let Some(stat) = self.stat_at(ino, hint.clone()).await? {
            return Ok(stat);
        }
        // It was renamed elsewhere, or this process was started anew since somebody looked it up.
        let found = self.0.store.snapshot(move |view| Ok(view.find_name(ino)?)).await?;
        let (parent, name) = found.ok_or(Refusal::Stale)?;
        let stat = self.stat_at(ino, Some((parent, Bytes::from(name.clone())))).await?.ok_or(Refusal::Stale)?;
        self.note(parent, &name, &stat);
        Ok(stat)
    }

    async fn stat_at(&self, ino: Ino, hint: crate::catalog::Hint) -> Result<Option<Stat>, Error> {
        let bucket = self.0.bucket.clone();
        let query = move |view: &crate::catalog::View<'_>| {
            let hint = hint.as_ref().map(|(parent, name)| (*parent, &name[..]));
            Ok(view.stat(&bucket, ino, hint)?)
        };
        self.0.store.snapshot(query).await
    }

    /// Sets attributes; of a new length, see [`SetStat::size_bytes`].
    ///
    /// # Errors
    /// `Refused(Stale | FileTooLarge | IsDirectory | ReadOnly)`. `Full`, `Unavailable`, ..: as of [`Tree::flush`].
    pub async fn set_stat(&self, ino: Ino, set: SetStat) -> Result<Stat, Error> {
        let mut set = set;
        if let Some(size_bytes) = set.size_bytes {
            let waits = set.is_open && !set.kill_privileges;
            self.resize(ino, size_bytes, set.kill_privileges, waits).await?;
            // It is dated by that.
            set.mtime = set.mtime.filter(|time| *time != SetTime::Now);
        }
        let now = self.0.store.now();
        let at = |time: SetTime| match time {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        let attrs = SetAttrs {
            mode: set.mode,
            uid: set.uid,
            gid: set.gid,
            atime: set.atime.map(at),
            mtime: set.mtime.map(at),
            kills_privileges: set.kill_privileges,
        };
        if attrs != SetAttrs::default() && !self.set_pending(ino, &attrs).await? {
            if attrs.mtime.is_some() {
                // What is written before would else be dated later.
                self.flush_unpublished(ino).await?;
            }
            let set = FileOperation::SetAttrs { ino, hint: self.known_hint(ino).await?, set: attrs };
            self.propose(set).await?;
        }
        self.stat(ino).await
    }

    /// Where an inode was seen, looked for if need be.
    pub(super) async fn known_hint(&self, ino: Ino) -> Result<crate::catalog::Hint, Error> {
        let hint = self.hint(ino);
        if hint.is_none() {
            self.committed(ino).await?;
        }
        Ok(self.hint(ino))
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// `Refused(Stale)`. `Unavailable`.
    pub async fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let all = self.all_xattrs(ino).await?;
        Ok(all.into_iter().find(|(had, _)| had == name).map(|(_, value)| value))
    }

    /// The names of all extended attributes.
    ///
    /// # Errors
    /// `Refused(Stale)`. `Unavailable`.
    pub async fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>, Error> {
        Ok(self.all_xattrs(ino).await?.into_iter().map(|(name, _)| name).collect())
    }

    async fn all_xattrs(&self, ino: Ino) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Error> {
        let found = self.0.store.snapshot(move |view| Ok(view.xattrs(ino)?)).await?;
        Ok(found.ok_or(Refusal::Stale)?)
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// `Refused(XattrExists | NoXattr | XattrTooLarge | Stale | ReadOnly)`. `Unavailable`.
    pub async fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Error> {
        let expected = match mode {
            XattrMode::Any => None,
            XattrMode::Create => Some(false),
            XattrMode::Replace => Some(true),
        };
        self.change_xattr(ino, name, Some(Bytes::copy_from_slice(value)), expected).await
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `Refused(NoXattr | Stale | ReadOnly)`. `Unavailable`.
    pub async fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), Error> {
        self.change_xattr(ino, name, None, None).await
    }

    async fn change_xattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: Option<Bytes>,
        expected: Option<bool>,
    ) -> Result<(), Error> {
        let (hint, name) = (self.known_hint(ino).await?, Bytes::copy_from_slice(name));
        self.propose_once(FileOperation::SetXattr { ino, hint, name, value, expected }).await
    }

    /// Room for new bytes, and what the bucket holds.
    ///
    /// # Errors
    /// `Io`: the disk. `Unavailable`.
    pub async fn space(&self) -> Result<TreeSpace, Error> {
        let id = self.0.bucket.id;
        let usage = self.0.store.snapshot(move |view| Ok(view.usage(id)?)).await?;
        let space = match self.0.store.chunks.space() {
            Some(space) => space?,
            None => Space { total_bytes: 0, available_bytes: 0 },
        };
        Ok(TreeSpace {
            total_bytes: space.total_bytes,
            free_bytes: space.available_bytes,
            file_count: usage.object_count,
        })
    }
}
