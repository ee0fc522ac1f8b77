//! A file's bytes, changed in place.
//!
//! Invariants
//! - Bytes that anybody else uses (a copy, a version, an extent) are never changed: the file gets bytes of its own, which
//!   begin as one extent in theirs, or as a copy of their rows.
//! - A file is at each moment inline, whole, or extents; what a command replaces goes with it. Of an inline content
//!   nothing is left but by who read it: pieces that replace it are all of it, and say of which revision.
//! - A command touches at most [`SEQS_PER_COMMAND`] extents; what would touch more is refused (`TooManyRows`).

use rusqlite::params;

use crate::catalog::event::Happening;
use crate::catalog::inode::without_privileges;
use crate::catalog::level::LOCKS_LEVEL;
use crate::catalog::types::{Linked, Posix};
use crate::catalog::{Bucket, Content, Error, Hint, Piece, Refusal, SetAttrs, Source, Versioning, Write};
use crate::ids::{Ino, SEQS_PER_COMMAND};
use crate::units::{BLOCK_BYTES, FILE_MAX_BYTES};

use super::super::chunk::Accepted;
use super::super::node::{Form, NewNode, Node, Use};
use super::super::tree::Entry;
use super::super::{Decision, Step, bound, sql, unsql};
use super::inode::File;

/// Up to so many extents are copied, or deleted, where one extent in all of them would do.
const FEW_ROWS: u64 = 256;

/// A row of `extent`, but for its holder.
#[derive(Clone, Copy)]
struct Run {
    start: u64,
    chunk: Ino,
    chunk_start: u64,
    len: u64,
}

impl Run {
    fn end(&self) -> u64 {
        self.start + self.len
    }
}

impl Step<'_> {
    /// `set`: attributes, of the file as it is then.
    pub(super) fn write(&mut self, bucket: &Bucket, write: &Write, set: Option<&SetAttrs>) -> Decision<()> {
        let mut file = self.file_at((write.ino, &write.hint))?;
        if write.base.is_some_and(|base| base != file.own.revision) {
            return Err(Refusal::RevisionChanged(write.ino).into());
        }
        let size_bytes = self.check_write(&file, write)?;
        let accepted = self.accept_chunks(write)?;

        self.preserve_file(&mut file)?;
        let keeps_version = self.keeps_version(bucket, &file);
        if keeps_version {
            self.keep_version(bucket, &mut file)?;
        }
        match &write.content {
            Content::Same => {}
            Content::Inline(bytes) => self.set_inline(&file.node, bytes)?,
            Content::Pieces(pieces) => {
                let holder = self.own_extents(&file)?;
                self.insert_accepted(&accepted, pieces)?;
                self.splice(holder, pieces, (file.shown.size_bytes, size_bytes))?;
            }
        }
        self.save_written(bucket, file, (write, set), size_bytes, keeps_version)
    }

    pub(super) fn write_and_set(&mut self, bucket: &Bucket, write: &Write, set: &SetAttrs) -> Decision<()> {
        bound(self.state.level >= LOCKS_LEVEL, "attributes with a content need feature level 3")?;
        self.write(bucket, write, Some(set))
    }

    /// Has pieces of a file lie elsewhere. Who shares its bytes shares them on, for they are the same.
    pub(super) fn compact(&mut self, write: &Write) -> Decision<()> {
        bound(self.state.level >= LOCKS_LEVEL, "compaction needs feature level 3")?;
        let file = self.file_at((write.ino, &write.hint))?;
        let (form, holder) = self.shown_form(&file.node)?;
        if form != Form::Extents || write.base != Some(file.own.revision) {
            return Err(Refusal::RevisionChanged(write.ino).into());
        }
        let Content::Pieces(pieces) = &write.content else {
            return Err(Refusal::OutOfBounds("what is compacted is pieces".into()).into());
        };
        let is_new = |piece: &Piece| match piece.source {
            Source::Hole => false,
            Source::Chunk { chunk, .. } => write.chunks.iter().any(|new| new.id == chunk),
        };
        bound(pieces.iter().all(is_new), "what is compacted lies in new chunks")?;
        let size_bytes = file.shown.size_bytes;
        let same = Write { size_bytes: None, ..write.clone() };
        bound(self.check_write(&file, &same)? == size_bytes, "what is compacted is as long as it was")?;
        let accepted = self.accept_chunks(write)?;
        self.insert_accepted(&accepted, pieces)?;
        Ok(self.splice(holder, pieces, (size_bytes, size_bytes))?)
    }

    /// The length that the file gets.
    fn check_write(&self, file: &File, write: &Write) -> Decision<u64> {
        let former_bytes = file.shown.size_bytes;
        let size_bytes = match &write.content {
            Content::Inline(bytes) => {
                bound(bytes.len() as u64 <= BLOCK_BYTES, "an inline content has at most 8,192 bytes")?;
                bytes.len() as u64
            }
            Content::Same => write.size_bytes.unwrap_or(former_bytes),
            Content::Pieces(pieces) => {
                check_pieces(pieces)?;
                let end = pieces.last().map_or(0, |piece| piece.start_bytes + piece.len_bytes);
                write.size_bytes.unwrap_or(former_bytes.max(end))
            }
        };
        if size_bytes > FILE_MAX_BYTES {
            return Err(Refusal::FileTooLarge.into());
        }
        match &write.content {
            Content::Inline(_) => {}
            Content::Same => bound(size_bytes >= former_bytes, "what is cut off is cut by pieces")?,
            Content::Pieces(pieces) => {
                let (form, holder) = self.shown_form(&file.node)?;
                let kept = former_bytes.min(size_bytes);
                if form == Form::Inline && (write.base.is_none() || !covers(pieces, kept)) {
                    return Err(Refusal::RevisionChanged(write.ino).into());
                }
                self.check_row_count(holder, pieces, (former_bytes, size_bytes))?;
            }
        }
        Ok(size_bytes)
    }

    /// How the bytes that a node shows are kept, and by which node.
    fn shown_form(&self, node: &Node) -> Result<(Form, Ino), Error> {
        match node.owner {
            None => Ok((node.form, node.id)),
            Some(owner) => {
                let missing = || Error::Inconsistent(format!("node {} shows {owner}, which is missing", node.id));
                Ok((self.node(owner)?.ok_or_else(missing)?.form, owner))
            }
        }
    }

    fn check_row_count(&self, holder: Ino, pieces: &[Piece], (former, size): (u64, u64)) -> Decision<()> {
        let query = "SELECT count(*) FROM extent WHERE ino=? AND off>=? AND off<?";
        let cut_off = (size < former).then_some((size, former));
        let ranges = pieces.iter().map(|piece| (piece.start_bytes, piece.start_bytes + piece.len_bytes)).chain(cut_off);
        let mut row_count = pieces.len() as u64;
        for (start, end) in ranges {
            let found = self.find(query, [sql(holder.0), sql(start), sql(end)], |row| row.get(0))?;
            row_count += unsql(found.unwrap_or(0));
        }
        if row_count > SEQS_PER_COMMAND { Err(Refusal::TooManyRows.into()) } else { Ok(()) }
    }

    /// Refuses new chunks, and runs of chunks that are there, which cannot be taken.
    fn accept_chunks(&mut self, write: &Write) -> Decision<Vec<Accepted>> {
        let accepted = match &write.chunks[..] {
            [] => Vec::new(),
            chunks => {
                let sum_bytes = chunks.iter().fold(0u64, |sum, chunk| sum.saturating_add(chunk.place.len_bytes));
                self.accept(chunks, sum_bytes, None)?
            }
        };
        let Content::Pieces(pieces) = &write.content else {
            bound(accepted.is_empty(), "new chunks are named by pieces")?;
            return Ok(accepted);
        };
        for piece in pieces {
            let Source::Chunk { chunk, start_bytes } = piece.source else { continue };
            let len_bytes = match accepted.iter().find(|new| new.id == chunk) {
                Some(new) => new.len_bytes,
                None => self.place(chunk)?.ok_or(Refusal::SourceGone)?.len_bytes,
            };
            let end = start_bytes.checked_add(piece.len_bytes).filter(|end| *end <= len_bytes);
            bound(end.is_some(), "a piece lies within its chunk")?;
        }
        let is_named = |new: &Accepted| pieces.iter().any(|piece| names(piece, new.id));
        bound(accepted.iter().all(is_named), "each new chunk is named by a piece")?;
        Ok(accepted)
    }

    /// Inserts new chunks; the first piece in each takes the use that it comes with.
    fn insert_accepted(&mut self, accepted: &[Accepted], pieces: &[Piece]) -> Decision<()> {
        accepted.iter().try_for_each(|chunk| self.insert_chunk(chunk))?;
        let mut fresh: Vec<Ino> = accepted.iter().map(|chunk| chunk.id).collect();
        for piece in pieces {
            let Source::Chunk { chunk, .. } = piece.source else { continue };
            match fresh.iter().position(|id| *id == chunk) {
                Some(index) => drop(fresh.swap_remove(index)),
                None => self.add_use(chunk)?,
            }
        }
        Ok(())
    }

    /// The node whose extents are the file's alone, made if need be.
    fn own_extents(&mut self, file: &File) -> Decision<Ino> {
        let node = &file.node;
        let source = match node.owner {
            None => *node,
            Some(owner) => self.node(owner)?.ok_or(Refusal::SourceGone)?,
        };
        let is_own = source.id == node.id || source.nlink == 0 && !self.is_orphan(source.id)?;
        match (source.form, is_own && source.refs == 1) {
            (Form::Extents, true) => Ok(source.id),
            (Form::Empty, true) => {
                self.set_form(source.id, Form::Extents)?;
                Ok(source.id)
            }
            // The pieces are all of it.
            (Form::Inline, true) => {
                self.run("DELETE FROM inline WHERE ino=?", [sql(source.id.0)])?;
                self.set_form(source.id, Form::Extents)?;
                Ok(source.id)
            }
            (Form::Inline, false) => {
                let holder = self.take_id();
                self.insert_content(holder, Form::Extents)?;
                self.show_body(node, Some(holder))?;
                Ok(holder)
            }
            _ => {
                let holder = self.derive(&source, file.shown.size_bytes)?;
                self.show_body(node, Some(holder))?;
                Ok(holder)
            }
        }
    }

    /// A new node whose bytes are those of `source`.
    fn derive(&mut self, source: &Node, size_bytes: u64) -> Decision<Ino> {
        let holder = self.take_id();
        self.insert_content(holder, Form::Extents)?;
        let runs = self.runs(source.id, (0, u64::MAX), FEW_ROWS + 1)?;
        if source.form == Form::Extents && runs.len() as u64 <= FEW_ROWS {
            for run in &runs {
                self.insert_run(holder, run)?;
                self.add_use(run.chunk)?;
            }
        } else if size_bytes > 0 && source.form != Form::Empty {
            // A file that was extended is longer than its chunk.
            let len = self.place(source.id)?.map_or(size_bytes, |place| place.len_bytes.min(size_bytes));
            self.insert_run(holder, &Run { start: 0, chunk: source.id, chunk_start: 0, len })?;
            self.add_use(source.id)?;
        }
        Ok(holder)
    }

    /// A node of bytes that nothing names but who shows it.
    fn insert_content(&self, id: Ino, form: Form) -> Decision<()> {
        self.insert_fresh(&NewNode { id, nlink: 0, owner: None, form, attrs: None, place: None })
    }

    fn set_form(&self, id: Ino, form: Form) -> Result<(), Error> {
        self.run("UPDATE node SET form=?2 WHERE id=?1", [sql(id.0), form as i64])?;
        Ok(())
    }

    /// Has `node` show the bytes of `body`, or its own; what it showed of another's loses that use.
    fn show_body(&mut self, node: &Node, body: Option<Ino>) -> Result<(), Error> {
        if let Some(former) = node.owner {
            self.lose(former, Use::Body)?;
        }
        let body = body.map_or(0, |body| sql(body.0));
        self.run("UPDATE node SET body=?2 WHERE id=?1", [sql(node.id.0), body])?;
        Ok(())
    }

    /// Replaces all that a node shows.
    fn set_inline(&mut self, node: &Node, bytes: &[u8]) -> Decision<()> {
        if let Some(owner) = node.owner {
            let body = self.node(owner)?.ok_or(Refusal::SourceGone)?;
            if body.form == Form::Inline && body.refs == 1 && body.nlink == 0 && !bytes.is_empty() {
                return Ok(self.put_inline(owner, bytes)?);
            }
        }
        let has_room = node.refs == 1 && self.clear_own(node)?;
        let holder = match has_room {
            true => node.id,
            false => {
                let holder = self.take_id();
                self.insert_content(holder, Form::Empty)?;
                holder
            }
        };
        self.show_body(node, (holder != node.id).then_some(holder))?;
        Ok(self.put_inline(holder, bytes)?)
    }

    /// Drops the own bytes of a node that nobody else uses. False: there are too many rows of them; they are dropped later.
    fn clear_own(&mut self, node: &Node) -> Result<bool, Error> {
        if node.has_place {
            self.give_up_place(node.id)?;
        }
        self.run("DELETE FROM inline WHERE ino=?", [sql(node.id.0)])?;
        if node.form == Form::Multipart {
            self.lose(node.id, Use::Rows)?;
            return Ok(false);
        }
        let runs = self.runs(node.id, (0, u64::MAX), FEW_ROWS + 1)?;
        if runs.len() as u64 > FEW_ROWS {
            self.lose(node.id, Use::Rows)?;
            return Ok(false);
        }
        for run in runs {
            self.delete_run(node.id, &run)?;
        }
        self.set_form(node.id, Form::Empty)?;
        Ok(true)
    }

    /// The chunk that a node is itself dies; the node lives on.
    fn give_up_place(&mut self, id: Ino) -> Result<(), Error> {
        self.insert_reclaim(id, None)?;
        self.delete_repair(id)?;
        self.run("UPDATE node SET place=NULL, form=?2 WHERE id=?1", [sql(id.0), Form::Empty as i64])?;
        Ok(())
    }

    /// After a node lost a use: what it need not keep any more goes.
    pub(in crate::catalog::apply) fn part_with_bytes(&mut self, node: &Node) -> Result<(), Error> {
        let Some(owner) = node.owner else { return Ok(()) };
        if node.nlink == 0 && !self.is_orphan(node.id)? {
            self.lose(owner, Use::Body)?;
            self.run("UPDATE node SET body=0, attrs=NULL WHERE id=?", [sql(node.id.0)])?;
        } else if node.refs == 1 {
            self.clear_own(node)?;
        }
        Ok(())
    }

    fn put_inline(&mut self, holder: Ino, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return self.set_form(holder, Form::Empty);
        }
        self.run("INSERT OR REPLACE INTO inline(ino, data) VALUES(?, ?)", params![sql(holder.0), bytes])?;
        self.set_form(holder, Form::Inline)
    }

    /// Puts pieces over the extents of `holder`, and cuts what lies beyond the new length.
    fn splice(&mut self, holder: Ino, pieces: &[Piece], (former, size): (u64, u64)) -> Result<(), Error> {
        for piece in pieces {
            let (start, len) = (piece.start_bytes, piece.len_bytes);
            self.cut(holder, (start, start + len))?;
            if let Source::Chunk { chunk, start_bytes } = piece.source {
                self.insert_run(holder, &Run { start, chunk, chunk_start: start_bytes, len })?;
            }
        }
        if size < former { self.cut(holder, (size, u64::MAX)) } else { Ok(()) }
    }

    /// Takes a range out of the extents of `holder`.
    fn cut(&mut self, holder: Ino, (start, end): (u64, u64)) -> Result<(), Error> {
        for run in self.runs(holder, (start, end), u64::MAX)? {
            let (left, right) = (start.saturating_sub(run.start), run.end().saturating_sub(end));
            let rest = Run { start: end, chunk_start: run.chunk_start + (run.len - right), len: right, ..run };
            match (left, right) {
                (0, 0) => self.delete_run(holder, &run)?,
                (_, 0) => self.shorten_run(holder, &run, left)?,
                (0, _) => {
                    self.run("DELETE FROM extent WHERE ino=? AND off=?", [sql(holder.0), sql(run.start)])?;
                    self.insert_run(holder, &rest)?;
                }
                (_, _) => {
                    self.shorten_run(holder, &run, left)?;
                    self.insert_run(holder, &rest)?;
                    self.add_use(run.chunk)?;
                }
            }
        }
        Ok(())
    }

    /// The extents of `holder` that overlap a range, at most `limit`.
    fn runs(&self, holder: Ino, (start, end): (u64, u64), limit: u64) -> Result<Vec<Run>, Error> {
        let query = "SELECT off, chunk, chunk_off, len_bytes FROM extent WHERE ino=?1 AND off<?3
            AND off>=COALESCE((SELECT max(off) FROM extent WHERE ino=?1 AND off<=?2), ?2) ORDER BY off LIMIT ?4";
        let clamp = |value: u64| sql(value.min(i64::MAX as u64));
        let runs = self.all(query, [sql(holder.0), clamp(start), clamp(end), clamp(limit)], |row| {
            Ok(Run {
                start: unsql(row.get(0)?),
                chunk: Ino(unsql(row.get(1)?)),
                chunk_start: unsql(row.get(2)?),
                len: unsql(row.get(3)?),
            })
        })?;
        Ok(runs.into_iter().filter(|run| run.end() > start).collect())
    }

    fn insert_run(&self, holder: Ino, run: &Run) -> Result<(), Error> {
        let insert = "INSERT INTO extent(ino, off, chunk, chunk_off, len_bytes) VALUES(?, ?, ?, ?, ?)";
        self.run(insert, [holder.0, run.start, run.chunk.0, run.chunk_start, run.len].map(sql))?;
        Ok(())
    }

    fn delete_run(&mut self, holder: Ino, run: &Run) -> Result<(), Error> {
        self.run("DELETE FROM extent WHERE ino=? AND off=?", [sql(holder.0), sql(run.start)])?;
        self.lose(run.chunk, Use::Body)
    }

    fn shorten_run(&self, holder: Ino, run: &Run, len: u64) -> Result<(), Error> {
        let update = "UPDATE extent SET len_bytes=?3 WHERE ino=?1 AND off=?2";
        self.run(update, [holder.0, run.start, len].map(sql))?;
        Ok(())
    }

    /// Whether the bucket keeps what the file was.
    fn keeps_version(&self, bucket: &Bucket, file: &File) -> bool {
        let Some((_, _, entry)) = &file.named else { return false };
        match bucket.versioning {
            Versioning::Never => false,
            _ if file.own.is_draft => false,
            Versioning::Suspended => !entry.is_null && !entry.is_hidden,
            Versioning::Enabled => !entry.is_hidden,
        }
    }

    /// Makes what the file is a version of history, under an inode of its own that shows the same bytes.
    fn keep_version(&mut self, bucket: &Bucket, file: &mut File) -> Decision<()> {
        let Some((parent, name, former)) = file.named.clone() else { return Ok(()) };
        let kept = self.keep_copy(&former)?;
        let spot = Self::spot_in(bucket.id.root(), parent, &name);
        self.insert_history(&spot, &kept)?;
        if bucket.versioning == Versioning::Suspended {
            self.drop_null_from_history(&spot)?;
        }
        file.node = self.node(file.node.id)?.ok_or(Refusal::Stale)?;
        Ok(())
    }

    /// The same version, under a new inode that shows the same bytes.
    pub(super) fn keep_copy(&mut self, entry: &Entry) -> Decision<Entry> {
        let node = self.node(entry.ino)?.ok_or(Refusal::Stale)?;
        let (form, source) = self.shown_form(&node)?;
        let kept = self.take_id();
        let attrs = self.attrs(entry.ino)?.encode();
        let owner = (form != Form::Empty).then_some(source);
        self.insert_fresh(&NewNode { id: kept, nlink: 1, owner, form, attrs: Some(&attrs), place: None })?;
        if owner.is_some() {
            self.add_use(source)?;
        }
        Ok(Entry { ino: kept, ..entry.clone() })
    }

    fn save_written(
        &mut self,
        bucket: &Bucket,
        mut file: File,
        (write, set): (&Write, Option<&SetAttrs>),
        size_bytes: u64,
        is_new_version: bool,
    ) -> Decision<()> {
        let seq = self.take_seq();
        let is_changed = write.content != Content::Same || write.size_bytes.is_some();
        if is_changed {
            file.own.revision = seq.0;
            file.own.attrs.checksums.clear();
        }
        if let Some(posix) = file.own.attrs.posix.as_mut().filter(|_| is_changed) {
            let mode = if write.kills_privileges { without_privileges(posix.mode) } else { posix.mode };
            *posix = Posix { mode, mtime: write.modified, ctime: write.modified, ..*posix };
        }
        if let Some(set) = set {
            file.set(set, self.now);
        }
        let shown = match is_changed {
            true => Linked { size_bytes, modified: write.modified, etag: write.etag },
            false => file.shown,
        };
        file.own.is_draft = bucket.versioning != Versioning::Never && !write.publishes && is_changed;
        if let Some((_, _, entry)) = &file.named {
            let mut next = entry.clone();
            if is_new_version {
                (next.seq, next.is_null) = (seq, bucket.versioning != Versioning::Enabled);
            }
            if write.publishes && entry.is_hidden {
                next.is_hidden = false;
                self.run("DELETE FROM opened WHERE ino=? AND published=0", [sql(write.ino.0)])?;
            }
            file.next = Some(next);
        }
        self.save_file(bucket.id.root(), &mut file, shown)?;
        match is_changed || write.publishes {
            true => Ok(self.tell_written(bucket, (write.ino, &write.hint))?),
            false => Ok(()),
        }
    }

    /// Notes that a file was written: under its only name, or under that of several by which the mount saw it last.
    fn tell_written(&mut self, bucket: &Bucket, target: (Ino, &Hint)) -> Result<(), Error> {
        if !self.tells(bucket.id.root())? {
            return Ok(());
        }
        let named =
            self.inode_attrs(target.0)?.home.or_else(|| target.1.as_ref().map(|(at, name)| (*at, name.to_vec())));
        let Some((parent, name)) = named else { return Ok(()) };
        let spot = Self::spot_in(bucket.id.root(), parent, &name);
        match self.current(&spot)?.filter(|entry| entry.ino == target.0) {
            Some(entry) => self.tell_key(Happening::Put, &spot, &entry),
            None => Ok(()),
        }
    }
}

/// Refuses pieces that do not ascend, overlap, or are empty.
fn check_pieces(pieces: &[Piece]) -> Result<(), Refusal> {
    let mut end = 0;
    for piece in pieces {
        bound(piece.len_bytes > 0 && piece.start_bytes >= end, "pieces ascend, do not overlap, and have bytes")?;
        end = piece.start_bytes.checked_add(piece.len_bytes).ok_or(Refusal::FileTooLarge)?;
    }
    if end > FILE_MAX_BYTES { Err(Refusal::FileTooLarge) } else { Ok(()) }
}

/// Whether pieces leave nothing of the first `len_bytes`.
fn covers(pieces: &[Piece], len_bytes: u64) -> bool {
    let mut end = 0;
    for piece in pieces.iter().take_while(|piece| piece.start_bytes <= len_bytes) {
        if piece.start_bytes != end {
            break;
        }
        end += piece.len_bytes;
    }
    end >= len_bytes
}

fn names(piece: &Piece, chunk: Ino) -> bool {
    matches!(piece.source, Source::Chunk { chunk: named, .. } if named == chunk)
}
