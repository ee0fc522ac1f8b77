//! A walk over a bucket's tree in key order, fetching rows in batches.
//!
//! Invariants
//! - `path` begins with the path of the top frame's directory; the rest is the name of the row yielded last.
//! - The rows that a frame has not yielded are, in order: those in `rows`, then those from `bound` on.
//! - A walk only goes forward.

use std::collections::VecDeque;

use rusqlite::params;

use crate::catalog::query::{Entry, kind, signed};
use crate::catalog::{Error, View, path};
use crate::ids::Ino;

/// Which rows a walk meets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// What is visible.
    Visible,
    /// Also noncurrent versions and delete markers: under one name the visible version first, then by sequence, descending.
    Versions,
}

/// Any sequence is below it.
pub(super) const NEWEST: i64 = i64::MAX;

const BATCH_MIN: usize = 8;
const BATCH_MAX: usize = 512;
/// What a range scan costs, in rows.
const SCAN_COST: u64 = 4;
/// What one walk may cost, in rows: some tens of milliseconds.
const COST_MAX: u64 = 100_000;

pub(super) const VISIBLE: &str = "SELECT name,kind,ino,seq,flags,size_bytes,mtime_ns,etag FROM dentry
    WHERE parent=?1 AND name>=?2 ORDER BY name LIMIT ?3";
pub(super) const VERSIONS: &str = "SELECT name,kind,ino,seq,flags,size_bytes,mtime_ns,etag FROM dentry
        WHERE parent=?1 AND name=?2 AND seq<?4
    UNION ALL SELECT name,kind,ino,seq,flags,size_bytes,mtime_ns,etag FROM version
        WHERE parent=?1 AND name=?2 AND seq<?4
    UNION ALL SELECT name,kind,ino,seq,flags,size_bytes,mtime_ns,etag FROM dentry
        WHERE parent=?1 AND name>?2
    UNION ALL SELECT name,kind,ino,seq,flags,size_bytes,mtime_ns,etag FROM version
        WHERE parent=?1 AND name>?2
    ORDER BY 1,4 DESC LIMIT ?3";

/// A row that the walk met; its key is [`Walker::path`].
pub(super) struct Row {
    name: Vec<u8>,
    pub(super) entry: Entry,
}

impl Row {
    pub(super) fn is_directory(&self) -> bool {
        self.entry.kind == kind::DIRECTORY
    }
}

/// Where the next batch of a directory begins: at `name`, with the sequences below `below`.
struct Bound {
    name: Vec<u8>,
    below: i64,
}

/// A directory that the walk is in.
struct Frame {
    directory: Ino,
    /// Length of its path in bytes.
    path_len: usize,
    rows: VecDeque<Row>,
    /// None: nothing follows `rows`.
    bound: Option<Bound>,
    batch: usize,
}

impl Frame {
    fn new(directory: Ino, path_len: usize) -> Frame {
        let bound = Some(Bound { name: Vec::new(), below: NEWEST });
        Frame { directory, path_len, rows: VecDeque::new(), bound, batch: BATCH_MIN }
    }

    /// Drops what lies before `name`, and of `name` itself what is not below `below`.
    fn skip_to(&mut self, name: &[u8], below: i64) {
        let is_before = |row: &Row| row.name.as_slice() < name || row.name == name && signed(row.entry.seq.0) >= below;
        while self.rows.front().is_some_and(is_before) {
            self.rows.pop_front();
        }
        if self.rows.is_empty() && self.bound.is_some() {
            self.bound = Some(Bound { name: name.to_vec(), below });
            self.batch = BATCH_MIN;
        }
    }
}

/// A walk over one bucket.
pub(super) struct Walker<'v> {
    view: &'v View<'v>,
    source: Source,
    path: Vec<u8>,
    frames: Vec<Frame>,
    cost: u64,
}

impl<'v> Walker<'v> {
    /// A walk that begins at the first key under `root`.
    pub(super) fn new(view: &'v View<'v>, source: Source, root: Ino) -> Walker<'v> {
        Walker { view, source, path: Vec::new(), frames: vec![Frame::new(root, 0)], cost: 0 }
    }

    /// The key of the row yielded last; a directory's ends in `/`.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Whether the walk has cost what one walk may.
    pub(super) fn is_spent(&self) -> bool {
        self.cost >= COST_MAX
    }

    /// The next row in key order, a directory or not. A directory is passed by, unless [`Walker::descend`] follows.
    pub(super) fn next(&mut self) -> Result<Option<Row>, Error> {
        loop {
            self.fill()?;
            let Some(frame) = self.frames.last_mut() else { return Ok(None) };
            if let Some(row) = frame.rows.pop_front() {
                self.path.truncate(frame.path_len);
                self.path.extend_from_slice(&row.name);
                return Ok(Some(row));
            }
            self.frames.pop();
        }
    }

    /// Enters the directory that was yielded last.
    pub(super) fn descend(&mut self, directory: Ino) {
        self.frames.push(Frame::new(directory, self.path.len()));
    }

    /// Goes forward to `key`: what is yielded next is the first row at or after it, of `key` itself only what is
    /// below `below`. `key` must not lie before the row yielded last.
    pub(super) fn seek(&mut self, key: &[u8], below: i64) -> Result<(), Error> {
        while let Some(frame) = self.frames.last()
            && !key.starts_with(&self.path[..frame.path_len])
        {
            self.frames.pop();
        }
        loop {
            let depth = self.frames.len().saturating_sub(1);
            let Some(frame) = self.frames.last_mut() else { return Ok(()) };
            let rest = &key[frame.path_len..];
            let Some(name) = directory_name(rest, depth) else {
                frame.skip_to(rest, below);
                return Ok(());
            };
            frame.skip_to(name, NEWEST);
            self.fill()?;
            let found = self.frames.last().and_then(|frame| frame.rows.front());
            if !found.is_some_and(|row| row.is_directory() && row.name == name) {
                return Ok(());
            }
            if let Some(directory) = self.next()? {
                self.descend(directory.entry.ino);
            }
        }
    }

    /// Fetches the top frame's next rows where it has none at hand.
    fn fill(&mut self) -> Result<(), Error> {
        while let Some(frame) = self.frames.last_mut().filter(|frame| frame.rows.is_empty())
            && let Some(bound) = frame.bound.take()
        {
            self.fetch(bound)?;
        }
        Ok(())
    }

    /// Fetches the rows of the top frame from `bound` on. Files that their session has not written yet are not among them.
    fn fetch(&mut self, bound: Bound) -> Result<(), Error> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        let directory = signed(frame.directory.0);
        let limit = signed(frame.batch as u64);
        let rows = match self.source {
            Source::Visible => self.view.all(VISIBLE, params![directory, bound.name, limit], read_row)?,
            Source::Versions => {
                self.view.all(VERSIONS, params![directory, bound.name, limit, bound.below], read_row)?
            }
        };
        self.cost += SCAN_COST + rows.len() as u64;
        if rows.len() == frame.batch {
            frame.bound = rows.last().map(|row| after(self.source, row));
        }
        frame.batch = (frame.batch * 4).min(BATCH_MAX);
        for row in rows {
            if !self.view.is_unpublished(&row.entry)? {
                frame.rows.push_back(row);
            }
        }
        Ok(())
    }
}

/// Where the rows after `row` begin.
fn after(source: Source, row: &Row) -> Bound {
    let mut name = row.name.clone();
    match source {
        Source::Visible => {
            name.push(0);
            Bound { name, below: NEWEST }
        }
        Source::Versions => Bound { name, below: signed(row.entry.seq.0) },
    }
}

/// The first directory of what remains of a key at `depth`, if it has one.
fn directory_name(rest: &[u8], depth: usize) -> Option<&[u8]> {
    let slash = rest.iter().position(|byte| *byte == b'/')?;
    (depth < path::DEPTH_MAX).then(|| &rest[..=slash])
}

fn read_row(row: &rusqlite::Row<'_>) -> Result<Row, Error> {
    Ok(Row { name: row.get(0)?, entry: Entry::read(row, 1)? })
}
