//! Bytes that were written become a file's: stored as new chunks, and named by one command.
//!
//! Invariants
//! - A tag that is an MD5 is that of all bytes: who claims it names the revision that it goes on from.
//! - What is staged is forgotten only after its command was applied, or its inode is no more.
//! - A content that is or becomes inline is replaced whole, if it is still what was read of it; any other is changed only
//!   where it was written, whatever others did to it meanwhile.

use std::collections::VecDeque;
use std::fs::File as OsFile;
use std::ops::{Deref, DerefMut, Range};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use md5::Digest as _;

use crate::catalog::{
    Checksum, Command, Content, ETag, FileOperation, NewChunk, Outcome, Piece, Refusal, SetAttrs, Source, Stat, Write,
};
use crate::env::Timestamp;
use crate::ids::Ino;
use crate::object::bucket::unexpected;
use crate::object::digest::Digests;
use crate::object::lanes::Md5;
use crate::object::put::Received;
use crate::object::sink::Held;
use crate::object::{self, Error, Incoming, blocking};
use crate::units::GIB;

use super::dirty::Written;
use super::open::{File, State};
use super::pending::Pending;
use super::staging::Left;
use super::stream::{Front, Streaming};
use super::{Tree, mounting};

/// What one command commits at most.
const COMMIT_MAX_BYTES: u64 = GIB;
const COMMIT_RANGE_COUNT: usize = 500;
/// What is read at once of what is staged.
const RUN_BYTES: u64 = 256 << 10;
/// How often a commit begins anew because somebody else changed the file: each time somebody got on.
const TRY_COUNT: u32 = 256;

/// What a commit does besides.
#[derive(Clone, Default)]
pub(super) struct Change {
    /// What becomes zeros; nothing is staged then.
    pub(super) zeroed: Option<Range<u64>>,
    /// Whether S3 sees the file from now on.
    pub(super) publishes: bool,
    /// Whether suid and sgid go.
    pub(super) kills_privileges: bool,
}

/// A change of a file's content, and of attributes with it.
#[derive(Clone)]
struct Draft {
    write: Write,
    set: SetAttrs,
    /// It was appended: it counts only if the file ends where it did, and once. [`mounting::name_of_appended`].
    appended: Option<u64>,
}

impl Draft {
    fn operation(self) -> FileOperation {
        let Draft { write, set, .. } = self;
        if set == SetAttrs::default() { FileOperation::Write(write) } else { FileOperation::WriteAndSet { write, set } }
    }
}

impl Deref for Draft {
    type Target = Write;

    fn deref(&self) -> &Write {
        &self.write
    }
}

impl DerefMut for Draft {
    fn deref_mut(&mut self) -> &mut Write {
        &mut self.write
    }
}

/// Where the bytes of a range come from.
#[derive(Clone)]
enum From {
    /// The staging file, at this offset.
    Staged(u64),
    /// These.
    Memory(Bytes),
}

/// Bytes to be stored: their place in the file, and where they come from. Ascending.
#[derive(Clone)]
pub(super) struct Stored {
    start: u64,
    len: u64,
    from: From,
}

impl Stored {
    /// A run of the staging file.
    pub(super) fn staged(run: Written) -> Stored {
        Stored { start: run.start, len: run.len, from: From::Staged(run.staged) }
    }
}

impl Tree {
    /// Commits what is staged of a file, and `change`.
    pub(super) async fn commit(&self, file: &File, state: &mut State, change: Change) -> Result<(), Error> {
        let nothing = state.dirty.is_empty() && state.pending.is_empty() && change.zeroed.is_none();
        if nothing && !(change.publishes && state.is_hidden) {
            return Ok(());
        }
        self.check_locks(file.ino)?;
        for _ in 0..TRY_COUNT {
            match self.try_commit(file, state, &change).await {
                Err(Error::Refused(Refusal::RevisionChanged(_))) => {}
                Ok(front) => {
                    state.front = front;
                    let appended = state.dirty.appended().map_or(0, mounting::name_of_appended);
                    let forgotten = self.forget_staged(file, state, change.publishes);
                    self.answered(appended);
                    return forgotten;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unavailable(format!("inode {} changes all the time", file.ino)))
    }

    /// Forgets what was written to a file and not committed.
    pub(super) async fn drop_written(&self, ino: Ino, why: &str) {
        let Some(file) = self.0.files.get(ino) else { return };
        let mut state = file.state.write().await;
        let len_bytes = state.dirty.len_bytes();
        if len_bytes > 0 {
            tracing::error!(%ino, len_bytes, "bytes that were written are dropped: {why}");
        }
        if let Err(error) = self.forget_staged(&file, &mut state, false) {
            tracing::warn!(%ino, %error, "a staging file was not given back");
        }
    }

    fn forget_staged(&self, file: &File, state: &mut State, is_published: bool) -> Result<(), Error> {
        state.dirty = super::dirty::Dirty::default();
        state.modified = None;
        state.pending = Pending::default();
        state.streaming = Streaming::New;
        state.made = None;
        state.is_hidden &= !is_published;
        file.show(state);
        match state.staged.take() {
            Some(staged) => Ok(self.0.staging.give_back(staged).map_err(crate::file::Error::from)?),
            None => Ok(()),
        }
    }

    /// Returns how far the file is digested then.
    async fn try_commit(&self, file: &File, state: &mut State, change: &Change) -> Result<Option<Front>, Error> {
        let base = self.committed(file.ino).await?;
        if state.dirty.len_bytes() > COMMIT_MAX_BYTES {
            // Several commands name it: they must agree where it is.
            state.dirty.stay();
        }
        state.dirty.follow(base.size_bytes);
        file.show(state);
        let size_bytes = state.dirty.size_over(base.size_bytes);
        // As far as it counts.
        let kept = Stat { size_bytes: state.dirty.kept_of(base.size_bytes), ..base };
        let inline_bytes = self.0.store.config.inline_bytes;
        let write = self.new_write(file.ino, &base, Content::Same).await?;
        let mut write =
            Draft { write, set: state.pending.set, appended: state.dirty.appended().map(mounting::name_of_appended) };
        state.dirty.begin();
        write.modified = state.modified.unwrap_or(self.0.store.now());
        write.kills_privileges = change.kills_privileges;
        write.publishes = change.publishes;
        if state.dirty.is_empty() && change.zeroed.is_none() {
            self.propose_draft(write).await?;
            return Ok(state.front.take());
        }
        if size_bytes <= inline_bytes {
            self.commit_inline(&base, state, change, size_bytes, write).await?;
            return Ok(None);
        }
        let stored = self.to_store(&base, state, change, size_bytes).await?;
        let holes: Vec<Piece> = match base.size_bytes > inline_bytes {
            true => state.dirty.holes_in(base.size_bytes).iter().chain(&change.zeroed).map(hole).collect(),
            // What is inline is stored anew, with its zeros.
            false => Vec::new(),
        };
        if stored.is_empty() {
            write.size_bytes = Some(size_bytes);
            write.etag = made_etag(&write, size_bytes, 1);
            if size_bytes < base.size_bytes || !holes.is_empty() {
                write.content = Content::Pieces(holes);
            }
            self.propose_draft(write).await?;
            return Ok(None);
        }
        let front = Front::of(state.front.as_ref(), &kept);
        write.size_bytes = state.dirty.is_cut().then_some(size_bytes);
        if let [(start, end)] = joined(&stored)[..]
            && (start, end) == (kept.size_bytes, size_bytes)
            // Else somebody has changed what the stream goes on from.
            && front.is_some()
            && let Some(received) = state.streaming.finish(start, end).await
        {
            return self.name_stored(received, &[(start, end)], &kept, write, true).await;
        }
        let staged = state.staged.as_ref().map(|staged| staged.reader());
        self.commit_stored(staged, kept, front, (stored, holes), write).await
    }

    /// A change of a file as it is.
    pub(super) async fn new_write(&self, ino: Ino, base: &Stat, content: Content) -> Result<Write, Error> {
        let mut write = Write {
            ino,
            hint: self.hint(ino),
            base: Some(base.revision),
            content,
            chunks: Vec::new(),
            size_bytes: None,
            etag: ETag { md5: [0; 16], part_count: 1 },
            modified: self.0.store.now(),
            kills_privileges: false,
            publishes: false,
        };
        write.etag = made_etag(&write, base.size_bytes, 1);
        Ok(write)
    }

    async fn propose_draft(&self, draft: Draft) -> Result<(), Error> {
        let origin = self.origin_of(draft.appended.unwrap_or(0));
        self.propose_locked(draft.ino, origin, draft.operation()).await
    }

    async fn commit_inline(
        &self,
        base: &Stat,
        state: &State,
        change: &Change,
        size_bytes: u64,
        mut write: Draft,
    ) -> Result<(), Error> {
        let bytes = self.assemble(base, state, 0..size_bytes).await?;
        let bytes = match &change.zeroed {
            Some(zeroed) => without(&bytes, zeroed, 0),
            None => bytes,
        };
        write.etag = ETag { md5: md5::Md5::digest(&bytes).into(), part_count: 0 };
        write.content = Content::Inline(bytes);
        self.propose_draft(write).await
    }

    /// What is to be stored of a file that will not be inline: what is staged, and what may be inline by now.
    async fn to_store(
        &self,
        base: &Stat,
        state: &State,
        change: &Change,
        size_bytes: u64,
    ) -> Result<Vec<Stored>, Error> {
        if base.size_bytes == 0 || base.size_bytes > self.0.store.config.inline_bytes {
            return Ok(state.dirty.all().into_iter().map(Stored::staged).collect());
        }
        let kept = base.size_bytes.min(size_bytes);
        let mut bytes = self.assemble(base, state, 0..kept).await?;
        if let Some(zeroed) = &change.zeroed {
            bytes = without(&bytes, zeroed, 0);
        }
        let first = Stored { start: 0, len: kept, from: From::Memory(bytes) };
        Ok([first].into_iter().chain(state.dirty.within(kept..u64::MAX).into_iter().map(Stored::staged)).collect())
    }

    /// Stores ranges, and names them: in one command, unless they are too many or too long. `front`: the MD5 of what is
    /// there, if it is known. `holes`: what becomes zeros besides. `write` tells the length that the file gets, if what is
    /// written does not.
    async fn commit_stored(
        &self,
        staged: Option<Arc<OsFile>>,
        mut base: Stat,
        mut front: Option<Md5>,
        (stored, mut holes): (Vec<Stored>, Vec<Piece>),
        write: Draft,
    ) -> Result<Option<Front>, Error> {
        let cut = write.size_bytes;
        let mut left: VecDeque<Vec<Stored>> = grouped(stored).into();
        let mut digested = None;
        while let Some(group) = left.pop_front() {
            let is_last = left.is_empty();
            let ranges = joined(&group);
            let mut part = write.clone();
            part.publishes &= is_last;
            part.set = if is_last { write.set } else { SetAttrs::default() };
            // A file that is cut ends with what is there of it so far: nothing of its former end is told as its own.
            let so_far = ranges.last().map_or(0, |(_, end)| *end);
            part.size_bytes = cut.map(|len| if is_last { len } else { so_far });
            let had_holes = std::mem::take(&mut holes);
            part.content = Content::Pieces(had_holes.clone());
            // The MD5 of the file, if this goes on where the rest of it ends, or is all of it.
            let md5 = match ranges[..] {
                [(0, end)] if end >= base.size_bytes => Some(Md5::new()),
                [(start, _)] if start == base.size_bytes => front.take(),
                _ => None,
            };
            let is_front =
                md5.is_some() && part.size_bytes.is_none_or(|len| ranges.last().is_some_and(|(_, end)| *end == len));
            let received = self.store_group(staged.clone(), &group, md5.unwrap_or_else(Md5::new)).await?;
            match self.name_stored(received, &ranges, &base, part, is_front).await {
                Err(Error::Refused(Refusal::TooManyRows)) if group.len() > 1 || group[0].len > 1 => {
                    holes = had_holes;
                    halves(group).into_iter().rev().for_each(|half| left.push_front(half));
                }
                answer => digested = answer?,
            }
            if !left.is_empty() {
                base = self.committed(base.ino).await?;
                front = Front::of(digested.as_ref(), &base);
            }
        }
        Ok(digested)
    }

    /// Stores a group of ranges. `md5`: of what is before them.
    async fn store_group(&self, staged: Option<Arc<OsFile>>, group: &[Stored], md5: Md5) -> Result<Received, Error> {
        let len_bytes: u64 = group.iter().map(|stored| stored.len).sum();
        let store = &self.0.store;
        let permit = store.budget.take(store.receive_cost_bytes(Some(len_bytes))).await?;
        let incoming = Incoming { len_bytes: Some(len_bytes), ..Incoming::default() };
        let mut source = StagedSource::new(staged, group.to_vec());
        store.receive(&incoming, Digests::continuing(md5), 0, permit, &mut source).await
    }

    /// Names what was stored, the bytes of `ranges`, beside the pieces that `write` has already. `is_front`: it was digested as
    /// the file's bytes up to its end.
    async fn name_stored(
        &self,
        received: Received,
        ranges: &[(u64, u64)],
        base: &Stat,
        mut write: Draft,
        is_front: bool,
    ) -> Result<Option<Front>, Error> {
        let Received { digested, bytes, fresh } = received;
        let chunks = match bytes {
            Held::Chunk(place) => vec![NewChunk { id: fresh.ino(), place, short: false }],
            Held::Chunks(chunks) => chunks,
            Held::Inline(_) => return Err(Error::Unavailable("no bytes were stored".into())),
        };
        // A part of what may be inline cannot stand alone, and an MD5 is that of what was seen.
        let may_be_inline = base.size_bytes <= self.0.store.config.inline_bytes;
        write.base = (is_front || may_be_inline || write.appended.is_some()).then_some(base.revision);
        let mut named = pieces(ranges, &chunks);
        if let Content::Pieces(holes) = std::mem::replace(&mut write.content, Content::Same) {
            named.extend(holes);
            named.sort_by_key(|piece| piece.start_bytes);
        }
        write.content = Content::Pieces(named);
        write.chunks = chunks;
        write.etag = match is_front {
            true => ETag { md5: digested.md5, part_count: 0 },
            false => made_etag(&write, digested.len_bytes, ranges.len()),
        };
        let end = ranges.last().map_or(0, |(_, end)| *end);
        let etag = write.etag;
        let front = digested.state.filter(|_| is_front).map(|md5| Front { md5, end, etag });
        if !self.may_commit_under(base.ino, fresh.session()) {
            return Err(Refusal::NoSession.into());
        }
        let origin = self.origin_of(write.appended.unwrap_or(0));
        let operation = write.operation();
        let make = move |bucket| Command::File { bucket, origin: origin.clone(), operation: operation.clone() };
        match self.0.store.commit(Some(fresh), self.0.bucket.name.clone(), make).await? {
            Outcome::Done => {
                if !is_front {
                    self.0.scattered.note(base.ino);
                }
                Ok(front)
            }
            outcome => Err(unexpected(&outcome)),
        }
    }

    /// Commits what a killed process left.
    pub(super) async fn recover(&self) -> Result<(), Error> {
        for mut left in self.0.staging.left()? {
            let is_outdated = self.is_outdated(&left).await?;
            if !left.is_of_this_boot && is_outdated {
                tracing::warn!(ino = %left.ino, "bytes that were not synced before a reboot were written over something older");
                left.file.remove()?;
                continue;
            }
            if is_outdated {
                // Maybe by these: what was appended is not to be there twice. The mount of then, which could tell, has ended.
                left.dirty.stay();
            }
            let file = self.0.files.get_or_make(left.ino);
            let mut state = file.state.write().await;
            let len_bytes = left.dirty.len_bytes();
            *state = State {
                dirty: left.dirty,
                staged: Some(left.file),
                modified: left.modified,
                pending: left.pending,
                ..State::default()
            };
            let committed = self.commit(&file, &mut state, Change { publishes: true, ..Change::default() }).await;
            match &committed {
                Ok(()) => tracing::info!(ino = %left.ino, len_bytes, "bytes that were written before were committed"),
                Err(Error::Refused(Refusal::Stale)) => {
                    tracing::info!(ino = %left.ino, len_bytes, "bytes that were written before belong to a file that is gone");
                }
                Err(error) => return Err(Error::Unavailable(format!("staged bytes of inode {}: {error}", left.ino))),
            }
            if let Some(staged) = std::mem::take(&mut *state).staged {
                staged.remove()?;
            }
            file.show(&state);
            drop(state);
            drop(file);
            self.0.files.forget(left.ino);
        }
        Ok(())
    }
}

impl Tree {
    /// Whether something was committed to a file since bytes were staged: maybe these.
    async fn is_outdated(&self, left: &Left) -> Result<bool, Error> {
        match self.committed(left.ino).await {
            Ok(stat) => Ok(stat.revision != left.revision),
            Err(Error::Refused(Refusal::Stale)) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// A tag for what has no MD5 at hand: another one for each change, marked as one of several parts.
fn made_etag(write: &Write, len_bytes: u64, range_count: usize) -> ETag {
    let Timestamp(at) = write.modified;
    let mut md5 = md5::Md5::new();
    for value in [write.ino.0, write.base.unwrap_or(u64::MAX), len_bytes, at as u64] {
        md5.update(value.to_le_bytes());
    }
    for chunk in &write.chunks {
        md5.update(chunk.id.0.to_le_bytes());
    }
    ETag { md5: md5.finalize().into(), part_count: u32::try_from(range_count.clamp(1, 10_000)).unwrap_or(1) }
}

fn hole(range: &Range<u64>) -> Piece {
    Piece { start_bytes: range.start, len_bytes: range.end - range.start, source: Source::Hole }
}

/// `bytes`, which begin at `start`, with zeros in `zeroed`.
fn without(bytes: &Bytes, zeroed: &Range<u64>, start: u64) -> Bytes {
    let end = start + bytes.len() as u64;
    let (from, to) = (zeroed.start.clamp(start, end), zeroed.end.clamp(start, end));
    let mut bytes = bytes.to_vec();
    bytes[(from - start) as usize..(to - start) as usize].fill(0);
    bytes.into()
}

/// The part of a range from `skipped` on, of `len` bytes.
fn part(stored: &Stored, skipped: u64, len: u64) -> Stored {
    let from = match &stored.from {
        From::Staged(at) => From::Staged(at + skipped),
        From::Memory(bytes) => From::Memory(bytes.slice(skipped as usize..(skipped + len) as usize)),
    };
    Stored { start: stored.start + skipped, len, from }
}

/// Ranges in groups that one command can name.
fn grouped(stored: Vec<Stored>) -> Vec<Vec<Stored>> {
    let mut groups: Vec<Vec<Stored>> = Vec::new();
    let (mut room_bytes, mut range_count) = (0, 0);
    for range in stored {
        let mut skipped = 0;
        while skipped < range.len {
            let follows = groups
                .last()
                .and_then(|group| group.last())
                .is_some_and(|last| last.start + last.len == range.start + skipped);
            if room_bytes == 0 || range_count >= COMMIT_RANGE_COUNT && !follows {
                groups.push(Vec::new());
                (room_bytes, range_count) = (COMMIT_MAX_BYTES, 0);
            }
            range_count += usize::from(!follows || range_count == 0);
            let len = room_bytes.min(range.len - skipped);
            if let Some(group) = groups.last_mut() {
                group.push(part(&range, skipped, len));
            }
            (skipped, room_bytes) = (skipped + len, room_bytes - len);
        }
    }
    groups
}

fn halves(mut group: Vec<Stored>) -> Vec<Vec<Stored>> {
    match &group[..] {
        [one] => {
            let half = one.len / 2;
            vec![vec![part(one, 0, half)], vec![part(one, half, one.len - half)]]
        }
        _ => {
            let second = group.split_off(group.len() / 2);
            vec![group, second]
        }
    }
}

/// The pieces that ranges are, stored one behind the other in `chunks`.
pub(super) fn pieces(ranges: &[(u64, u64)], chunks: &[NewChunk]) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(ranges.len());
    let mut chunks = chunks.iter();
    let (mut chunk, mut at, mut left) = (Ino(0), 0, 0);
    for (mut start, end) in ranges.iter().copied() {
        while start < end {
            if left == 0 {
                let Some(next) = chunks.next() else { return pieces };
                (chunk, at, left) = (next.id, 0, next.place.len_bytes);
            }
            let len = left.min(end - start);
            pieces.push(Piece { start_bytes: start, len_bytes: len, source: Source::Chunk { chunk, start_bytes: at } });
            (start, at, left) = (start + len, at + len, left - len);
        }
    }
    pieces
}

/// Ranges that follow one another as one: half-open.
fn joined(group: &[Stored]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for stored in group {
        match ranges.last_mut() {
            Some((_, end)) if *end == stored.start => *end += stored.len,
            _ => ranges.push((stored.start, stored.start + stored.len)),
        }
    }
    ranges
}

/// Ranges as they are stored.
pub(super) struct StagedSource {
    staged: Option<Arc<OsFile>>,
    left: VecDeque<Stored>,
}

impl StagedSource {
    pub(super) fn new(staged: Option<Arc<OsFile>>, ranges: Vec<Stored>) -> StagedSource {
        StagedSource { staged, left: ranges.into() }
    }
}

impl object::Source for StagedSource {
    async fn next(&mut self) -> Result<Option<Bytes>, ()> {
        let Some(mut range) = self.left.pop_front() else { return Ok(None) };
        if range.len > RUN_BYTES {
            self.left.push_front(part(&range, RUN_BYTES, range.len - RUN_BYTES));
            range = part(&range, 0, RUN_BYTES);
        }
        let at = match range.from {
            From::Memory(bytes) => return Ok(Some(bytes)),
            From::Staged(at) => at,
        };
        let Some(file) = self.staged.clone() else { return Err(()) };
        let read = blocking(move || {
            let mut bytes = vec![0; range.len as usize];
            file.read_exact_at(&mut bytes, at).map(|()| bytes)
        });
        match read.await {
            Ok(Ok(bytes)) => Ok(Some(bytes.into())),
            Ok(Err(error)) => {
                tracing::error!(%error, "staged bytes cannot be read");
                Err(())
            }
            Err(_) => Err(()),
        }
    }

    fn promised(&self) -> Vec<Checksum> {
        Vec::new()
    }
}
