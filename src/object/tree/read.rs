//! Bytes out of a file: what was committed, and over it what was written here since.

use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::{Bytes, BytesMut};

use crate::catalog::{Manifest, Refusal, View};
use crate::ids::Ino;
use crate::object::read::Content;
use crate::object::{Error, blocking};
use crate::units::MIB;

use super::dirty::Written;
use super::open::State;
use super::{FileKind, Stat, Tree};

/// What one call reads at most, bytes.
pub(super) const READ_MAX_BYTES: u64 = MIB;

impl Tree {
    /// Reads up to `len` bytes (at most [`READ_MAX_BYTES`]); fewer only at the end of the file. A hole is zeros.
    ///
    /// # Errors
    /// `Corrupt`, `Io`: the bytes cannot be read. `Refused(Stale)`, `Overloaded`, `Unavailable`.
    pub async fn read(&self, ino: Ino, offset: u64, len: u64) -> Result<Bytes, Error> {
        let len = len.min(READ_MAX_BYTES);
        let Some(file) = self.0.files.get(ino) else {
            return self.read_committed(ino, offset..offset.saturating_add(len)).await;
        };
        let (state, committed) = loop {
            let state = file.state.read().await;
            if state.dirty.is_empty() {
                return self.read_committed(ino, offset..offset.saturating_add(len)).await;
            }
            // Under the lock: what is committed meanwhile is not dirty any more.
            let committed = self.committed(ino).await?;
            if state.dirty.is_at(committed.size_bytes) {
                break (state, committed);
            }
            drop(state);
            file.state.write().await.dirty.follow(committed.size_bytes);
        };
        let size_bytes = state.dirty.size_over(committed.size_bytes);
        let range = offset.min(size_bytes)..offset.saturating_add(len).min(size_bytes);
        self.assemble(&committed, &state, range).await
    }

    /// The bytes of `range`, which lies within the file as it is with what was written.
    pub(super) async fn assemble(&self, committed: &Stat, state: &State, range: Range<u64>) -> Result<Bytes, Error> {
        let written = state.dirty.within(range.clone());
        let is_covered = written.iter().map(|run| run.len).sum::<u64>() == range.end - range.start;
        let mut bytes = BytesMut::zeroed((range.end - range.start) as usize);
        let kept = state.dirty.kept_of(committed.size_bytes);
        if !is_covered && range.start < kept {
            let below = self.read_committed(committed.ino, range.start..range.end.min(kept)).await?;
            bytes[..below.len()].copy_from_slice(&below);
        }
        let bytes = self.read_staged(state, written, bytes, range.start).await?;
        Ok(bytes.freeze())
    }

    /// Puts what was staged over `bytes`, which begin at `start` of the file.
    async fn read_staged(
        &self,
        state: &State,
        written: Vec<Written>,
        mut bytes: BytesMut,
        start: u64,
    ) -> Result<BytesMut, Error> {
        let Some(staged) = &state.staged else { return Ok(bytes) };
        let file = staged.reader();
        blocking(move || {
            for run in written {
                let at = (run.start - start) as usize;
                file.read_exact_at(&mut bytes[at..at + run.len as usize], run.staged)?;
            }
            Ok(bytes)
        })
        .await?
    }

    /// The committed bytes of `range`, as far as there are some.
    pub(super) async fn read_committed(&self, ino: Ino, range: Range<u64>) -> Result<Bytes, Error> {
        let Some((content, range)) = self.content(ino, range).await? else { return Ok(Bytes::new()) };
        let mut reader = content.read(range.clone());
        let mut first = None;
        let mut rest = BytesMut::new();
        while let Some(run) = reader.next().await {
            let run = run?;
            match (&first, rest.is_empty()) {
                (None, _) => first = Some(run),
                (Some(had), true) => {
                    rest.reserve((range.end - range.start) as usize);
                    rest.extend_from_slice(had);
                    rest.extend_from_slice(&run);
                }
                (Some(_), false) => rest.extend_from_slice(&run),
            }
        }
        Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
    }

    /// A content to read `range` of, as far as there is some. None: nothing of it.
    pub(super) async fn content(&self, ino: Ino, range: Range<u64>) -> Result<Option<(Content, Range<u64>)>, Error> {
        let mut guard = self.0.store.session.begin_read();
        let (bucket, hint) = (self.0.bucket.clone(), self.known_hint(ino).await?);
        let query = move |view: &View<'_>| {
            let hint = hint.as_ref().map(|(parent, name)| (*parent, &name[..]));
            let stat = view.stat(&bucket, ino, hint)?.ok_or(Refusal::Stale)?;
            if stat.kind == FileKind::Directory {
                return Err(Refusal::IsDirectory.into());
            }
            let end = range.end.min(stat.size_bytes);
            if range.start >= end {
                return Ok(None);
            }
            let manifest = view.manifest(ino, range.start..end)?;
            Ok(Some((manifest, stat.size_bytes, range.start..end, view.applied_index()?)))
        };
        let Some((manifest, size_bytes, range, applied)) = self.0.store.snapshot(query).await? else { return Ok(None) };
        guard.taken(applied);
        Ok(Some((Content::new(manifest, size_bytes, self.0.store.clone(), guard), range)))
    }

    /// Where the committed bytes of `range` are.
    pub(super) async fn manifest(&self, ino: Ino, range: Range<u64>) -> Result<Manifest, Error> {
        self.0.store.snapshot(move |view| Ok(view.manifest(ino, range)?)).await
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// As of [`Tree::read`]. `Invalid`: it is none.
    pub async fn read_link(&self, ino: Ino) -> Result<Vec<u8>, Error> {
        let stat = self.committed(ino).await?;
        match stat.kind {
            FileKind::Symlink => Ok(self.read_committed(ino, 0..stat.size_bytes).await?.to_vec()),
            _ => Err(Error::Invalid("it is no symbolic link".into())),
        }
    }
}
