//! Bytes into a file: staged now, committed later.

use std::ops::Range;

use bytes::Bytes;

use crate::catalog::{FileOperation, Manifest, Piece, Refusal, SetAttrs, Source};
use crate::ids::Ino;
use crate::object::budget::Permit;
use crate::object::{Error, blocking};
use crate::units::FILE_MAX_BYTES;

use super::commit::Change;
use super::open::{File, State};
use super::staging::Record;
use super::stream::Streaming;
use super::{Allocate, FileKind, Seek, Tree, mounting};

/// What one file may have staged; then it is committed, before it is flushed.
const STAGED_MAX_BYTES: u64 = 256 << 20;
/// What one command copies.
const COPY_PIECE_COUNT: usize = 1000;

/// Where bytes are written.
#[derive(Clone, Copy)]
enum Place {
    /// Here.
    At(u64),
    /// At the end of a file of which so much is committed, for this request of the kernel's.
    AtEnd { committed_bytes: u64, request: u64 },
}

/// Memory that is held for bytes that are being written; given back when dropped.
#[derive(Default)]
pub struct WriteRoom(#[allow(dead_code)] Option<Permit>);

impl Tree {
    /// Waits, for as long as it takes, for memory for bytes that are about to be written: of the budget's part for that.
    ///
    /// # Errors
    /// `Overloaded`: the process ends.
    pub async fn hold_write(&self, len_bytes: u64) -> Result<WriteRoom, Error> {
        let permit = self.0.store.budget.take_for_write(len_bytes).await;
        permit.map(|permit| WriteRoom(Some(permit))).ok_or(Error::Overloaded)
    }

    /// Writes bytes: they survive the end of this process, are seen by who reads here, and are committed by
    /// [`Tree::flush`].
    ///
    /// # Errors
    /// `Refused(FileTooLarge | ReadOnly)`, `Full`, `Io`: the staging file.
    pub async fn write(&self, ino: Ino, offset: u64, data: Bytes) -> Result<(), Error> {
        let file = self.0.files.get_or_make(ino);
        self.spare_staging(&file).await;
        let mut state = file.state.write().await;
        self.settle_appended(&file, &mut state, true).await?;
        self.stage(&file, &mut state, Place::At(offset), data).await.map(drop)
    }

    /// Before more is written: what was appended is committed if that was begun before; and if it has moved and something else
    /// is written, for the staging file does not tell where it is.
    async fn settle_appended(&self, file: &File, state: &mut State, is_other: bool) -> Result<(), Error> {
        match state.dirty.is_begun() || is_other && state.dirty.has_moved() {
            true => self.commit(file, state, Change::default()).await,
            false => Ok(()),
        }
    }

    /// Writes bytes at the end of the file, wherever that is once they are committed: others may append too. Returns where
    /// that was for now.
    ///
    /// # Errors
    /// As of [`Tree::write`]. `Refused(Stale)`.
    pub async fn append(&self, ino: Ino, data: Bytes) -> Result<u64, Error> {
        let file = self.0.files.get_or_make(ino);
        self.spare_staging(&file).await;
        let mut state = file.state.write().await;
        let request = mounting::request();
        if let Some(offset) = state.appended.remove(&request) {
            return Ok(offset);
        }
        self.settle_appended(&file, &mut state, false).await?;
        let committed_bytes = self.committed(ino).await?.size_bytes;
        self.stage(&file, &mut state, Place::AtEnd { committed_bytes, request }, data).await
    }

    /// Each file that was written has a staging file open, and this process may have so many open: one of the oldest is
    /// committed, before it is flushed, if there are too many.
    async fn spare_staging(&self, wanting: &File) {
        let crowd = self.0.staging.oldest();
        if crowd.is_empty() || wanting.state.try_read().is_ok_and(|state| state.staged.is_some()) {
            return;
        }
        for oldest in crowd {
            let Some(file) = self.0.files.get(oldest).filter(|_| oldest != wanting.ino) else { continue };
            // Who uses it now commits it soon enough.
            let Ok(mut state) = file.state.try_write() else { continue };
            match self.commit(&file, &mut state, Change::default()).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(ino = %oldest, %error, "a file is not committed early"),
            }
        }
    }

    async fn stage(&self, file: &File, state: &mut State, place: Place, data: Bytes) -> Result<u64, Error> {
        let len = data.len() as u64;
        let (offset, request) = match place {
            Place::At(offset) => (offset, 0),
            Place::AtEnd { committed_bytes, request } => (state.dirty.size_over(committed_bytes), request),
        };
        let end = offset.checked_add(len).filter(|end| *end <= FILE_MAX_BYTES).ok_or(Refusal::FileTooLarge)?;
        if self.read_only() {
            return Err(Refusal::ReadOnly.into());
        }
        self.check_locks(file.ino)?;
        self.0.store.room.admit(len)?;
        let now = self.0.store.now();
        let record = Record { offset, bytes: data.clone(), now, request };
        let (at, staged_bytes) = self.stage_record(file, state, record).await?;
        match place {
            Place::At(_) => state.dirty.insert(offset..end, at),
            Place::AtEnd { committed_bytes, request } => {
                state.dirty.append(committed_bytes, len, at, request);
                state.appended.extend((request != 0).then_some((request, offset)));
            }
        }
        state.note_written(now);
        file.show(state);
        self.stream(file.ino, state, offset, data).await?;
        // A file that S3 does not see may be committed piece by piece, and one whose staging is mostly overwritten must be.
        if staged_bytes > STAGED_MAX_BYTES && (state.is_hidden || staged_bytes > 2 * state.dirty.len_bytes()) {
            self.commit(file, state, Change::default()).await?;
        }
        state.appended.remove(&request);
        Ok(offset)
    }

    /// Notes a length that is committed later.
    async fn stage_cut(&self, file: &File, state: &mut State, len: u64) -> Result<(), Error> {
        if self.read_only() {
            return Err(Refusal::ReadOnly.into());
        }
        self.check_locks(file.ino)?;
        self.settle_appended(file, state, true).await?;
        let now = self.0.store.now();
        self.stage_record(file, state, Record { offset: len, bytes: Bytes::new(), now, request: 0 }).await?;
        state.dirty.cut(len);
        state.note_written(now);
        state.streaming = Streaming::New;
        file.show(state);
        Ok(())
    }

    /// Notes attributes that are committed with the bytes: of a file that S3 does not see yet. False: it sees the file.
    pub(super) async fn set_pending(&self, ino: Ino, set: &SetAttrs) -> Result<bool, Error> {
        let Some(file) = self.0.files.get(ino) else { return Ok(false) };
        self.spare_staging(&file).await;
        let mut state = file.state.write().await;
        if !state.is_hidden {
            return Ok(false);
        }
        self.check_locks(ino)?;
        let now = self.0.store.now();
        self.stage_record(&file, &mut state, Record::attributes(set, now)).await?;
        state.pending.add(set, now);
        file.show(&state);
        Ok(true)
    }

    /// Puts a record into the file's staging file. Returns where its bytes are, and how many are there in all.
    async fn stage_record(&self, file: &File, state: &mut State, record: Record) -> Result<(u64, u64), Error> {
        let staged = match state.staged.take() {
            Some(staged) => staged,
            None => {
                let revision = match state.made {
                    Some(revision) => revision,
                    None => self.committed(file.ino).await?.revision,
                };
                self.0.staging.create(file.ino, revision).map_err(crate::file::Error::from)?
            }
        };
        let (staged, at) = blocking(move || {
            let mut staged = staged;
            let at = staged.append(&record);
            (staged, at)
        })
        .await?;
        let staged_bytes = staged.len_bytes();
        state.staged = Some(staged);
        Ok((at.map_err(crate::file::Error::from)?, staged_bytes))
    }

    /// Commits what was written: durable, and seen by S3 and other mounts. For `close(2)` and `fsync(2)`.
    ///
    /// # Errors
    /// `Refused(Stale | TooManyRows | ..)`, `Full`, `Overloaded`, `Io`, `Unavailable`: it is kept, and tried again by the
    /// next call.
    pub async fn flush(&self, ino: Ino) -> Result<(), Error> {
        let Some(file) = self.0.files.get(ino) else { return Ok(()) };
        let mut state = file.state.write().await;
        self.commit(&file, &mut state, Change { publishes: true, ..Change::default() }).await
    }

    /// Commits what was written; S3 sees a new file no sooner for it.
    pub(super) async fn flush_unpublished(&self, ino: Ino) -> Result<(), Error> {
        let Some(file) = self.0.files.get(ino) else { return Ok(()) };
        let mut state = file.state.write().await;
        self.commit(&file, &mut state, Change::default()).await
    }

    /// Gives a file another length. `waits`: it is committed by the next flush.
    pub(super) async fn resize(
        &self,
        ino: Ino,
        size_bytes: u64,
        kills_privileges: bool,
        waits: bool,
    ) -> Result<(), Error> {
        let stat = self.committed(ino).await?;
        match stat.kind {
            FileKind::File => {}
            FileKind::Directory => return Err(Refusal::IsDirectory.into()),
            _ => return Err(Error::Invalid("only a file has a length to set".into())),
        }
        if size_bytes > FILE_MAX_BYTES {
            return Err(Refusal::FileTooLarge.into());
        }
        let file = self.0.files.get_or_make(ino);
        self.spare_staging(&file).await;
        let mut state = file.state.write().await;
        let resized = match waits {
            true => self.stage_cut(&file, &mut state, size_bytes).await,
            false => {
                let change = Change { kills_privileges, ..Change::default() };
                self.cut(&file, &mut state, Some(size_bytes), change).await
            }
        };
        let is_clean = state.dirty.is_empty();
        drop(state);
        drop(file);
        if is_clean {
            self.0.files.forget(ino);
        }
        resized
    }

    /// Commits what was written, the length, and `change`.
    async fn cut(&self, file: &File, state: &mut State, len: Option<u64>, change: Change) -> Result<(), Error> {
        let before = state.dirty.clone();
        if let Some(len) = len {
            state.dirty.cut(len);
        }
        let cut = self.commit(file, state, change).await;
        if cut.is_err() {
            state.dirty = before;
        }
        cut
    }

    /// What `fallocate(2)` does. Room is not reserved: what is allocated is a hole.
    ///
    /// # Errors
    /// As of [`Tree::flush`]. `Refused(FileTooLarge)`.
    pub async fn allocate(&self, ino: Ino, range: Range<u64>, mode: Allocate) -> Result<(), Error> {
        if range.end > FILE_MAX_BYTES {
            return Err(Refusal::FileTooLarge.into());
        }
        let file = self.0.files.get_or_make(ino);
        let mut state = file.state.write().await;
        self.0.store.room.admit(range.end - range.start)?;
        let size_bytes = state.dirty.size_over(self.committed(ino).await?.size_bytes);
        let (zeroes, extends) = match mode {
            Allocate::Extend => (false, true),
            Allocate::KeepSize => (false, false),
            Allocate::PunchHole => (true, false),
            Allocate::ZeroRange { keep_size } => (true, !keep_size),
        };
        let grown = (extends && range.end > size_bytes).then_some(range.end);
        let zeroed = range.start..range.end.min(grown.unwrap_or(size_bytes));
        let zeroed = (zeroes && !zeroed.is_empty()).then_some(zeroed);
        if grown.is_none() && zeroed.is_none() {
            return Ok(());
        }
        self.commit(&file, &mut state, Change::default()).await?;
        self.cut(&file, &mut state, grown, Change { zeroed, ..Change::default() }).await
    }

    /// What `lseek(2)` finds at or behind `offset`.
    ///
    /// # Errors
    /// `Refused(NoSuchOffset)`. As of [`Tree::flush`].
    pub async fn seek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64, Error> {
        self.flush_unpublished(ino).await?;
        let size_bytes = self.committed(ino).await?.size_bytes;
        if offset >= size_bytes {
            return Err(Refusal::NoSuchOffset.into());
        }
        let manifest = self.manifest(ino, offset..size_bytes).await?;
        let data: Vec<(u64, u64)> = match manifest {
            Manifest::Empty => Vec::new(),
            Manifest::Inline(bytes) => vec![(0, bytes.len() as u64)],
            Manifest::Extents(extents) => {
                extents.iter().map(|extent| (extent.start_bytes, extent.start_bytes + extent.len_bytes)).collect()
            }
        };
        match what {
            Seek::Data => {
                let next = data.iter().find(|(_, end)| *end > offset);
                Ok(next.ok_or(Refusal::NoSuchOffset)?.0.max(offset))
            }
            Seek::Hole => {
                let mut at = offset;
                for (start, end) in data {
                    if start > at {
                        break;
                    }
                    at = at.max(end);
                }
                Ok(at.min(size_bytes))
            }
        }
    }

    /// What `copy_file_range(2)` does: chunks are shared, no byte is moved but of small files. Returns how many bytes.
    ///
    /// # Errors
    /// As of [`Tree::flush`].
    pub async fn copy_range(&self, from: (Ino, u64), to: (Ino, u64), len: u64) -> Result<u64, Error> {
        self.flush_unpublished(from.0).await?;
        self.flush_unpublished(to.0).await?;
        let (source, target) = (self.committed(from.0).await?, self.committed(to.0).await?);
        let len = len.min(source.size_bytes.saturating_sub(from.1));
        if len == 0 {
            return Ok(0);
        }
        to.1.checked_add(len).filter(|end| *end <= FILE_MAX_BYTES).ok_or(Refusal::FileTooLarge)?;
        let inline_bytes = self.0.store.config.inline_bytes;
        let is_small = |stat: &super::Stat| stat.size_bytes > 0 && stat.size_bytes <= inline_bytes;
        if is_small(&source) || is_small(&target) || to.1 + len <= inline_bytes {
            return self.copy_bytes(from, to, len).await;
        }
        let manifest = self.manifest(from.0, from.1..from.1 + len).await?;
        let (pieces, len) = pieces_of(&manifest, from.1..from.1 + len, to.1);
        let write = self.new_write(to.0, &target, crate::catalog::Content::Pieces(pieces)).await?;
        match self.propose_locked(to.0, self.origin(false), FileOperation::Write(write)).await {
            // What was seen of the source is gone by now, or lies in too many pieces.
            Err(Error::Refused(Refusal::SourceGone | Refusal::TooManyRows | Refusal::RevisionChanged(_))) => {
                self.copy_bytes(from, to, len).await
            }
            answer => answer.map(|()| len),
        }
    }

    async fn copy_bytes(&self, from: (Ino, u64), to: (Ino, u64), len: u64) -> Result<u64, Error> {
        let bytes = self.read(from.0, from.1, len.min(super::read::READ_MAX_BYTES)).await?;
        let copied = bytes.len() as u64;
        self.write(to.0, to.1, bytes).await?;
        Ok(copied)
    }
}

/// The pieces that make `range` of a content the bytes at `to`, and how many bytes they are.
fn pieces_of(manifest: &Manifest, range: Range<u64>, to: u64) -> (Vec<Piece>, u64) {
    let extents: &[crate::catalog::Extent] = match manifest {
        Manifest::Extents(extents) => extents,
        Manifest::Empty | Manifest::Inline(_) => &[],
    };
    let mut pieces = Vec::new();
    let mut at = range.start;
    let mut push = |start: u64, end: u64, source: Source| {
        if start < end {
            pieces.push(Piece { start_bytes: to + (start - range.start), len_bytes: end - start, source });
        }
        pieces.len() < COPY_PIECE_COUNT
    };
    for extent in extents {
        let (start, end) = (extent.start_bytes.max(at), (extent.start_bytes + extent.len_bytes).min(range.end));
        if start >= end {
            continue;
        }
        let chunk_start = extent.chunk_start_bytes + (start - extent.start_bytes);
        push(at, start, Source::Hole);
        let more = push(start, end, Source::Chunk { chunk: extent.chunk, start_bytes: chunk_start });
        at = end;
        if !more {
            return (pieces, at - range.start);
        }
    }
    push(at, range.end, Source::Hole);
    (pieces, range.end - range.start)
}
