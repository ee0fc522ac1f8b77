//! Files that were written in many places become fewer extents again, in the background, once they are quiet: a run of bytes
//! that lies in many pieces is stored anew as one. So a file that is written at random is read in few pieces, and the chunks
//! that it has written over go.
//!
//! Invariants
//! - Nothing that anybody sees of a file changes. What was read of it is named only if it is of that revision still.
//! - Holes stay, and runs of few pieces: they cost more to store anew than they save.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::catalog::{Checksum, Command, Content, Extent, FileOperation, Manifest, NewChunk, Outcome, Refusal};
use crate::ids::Ino;
use crate::object::bucket::unexpected;
use crate::object::digest::Digests;
use crate::object::lanes::Md5;
use crate::object::read::Reader;
use crate::object::sink::Held;
use crate::object::{self, Error, Incoming};
use crate::units::MIB;

use super::commit::pieces;
use super::{Inner, Stat, Tree, lock};

const INTERVAL: Duration = Duration::from_secs(1);
/// How long nothing must have been committed to a file.
const QUIET: Duration = Duration::from_secs(5);
/// What is looked at, and stored anew, at once.
const WINDOW_BYTES: u64 = 16 * MIB;
/// A run of fewer pieces stays as it is, and so does one of longer pieces than this on average.
const PIECE_COUNT_MIN: usize = 32;
const PIECE_BYTES_MAX: u64 = 128 << 10;
/// Pieces that one command replaces at most.
const PIECE_COUNT_MAX: usize = 2000;
/// Files that are remembered; of more than that some stay as they are until they are written again.
const FILE_COUNT_MAX: usize = 1 << 14;

/// Files that were written in places, and when.
#[derive(Default)]
pub(super) struct Scattered(Mutex<HashMap<Ino, Instant>>);

impl Scattered {
    pub(super) fn note(&self, ino: Ino) {
        let mut files = lock(&self.0);
        if files.len() < FILE_COUNT_MAX || files.contains_key(&ino) {
            files.insert(ino, Instant::now());
        }
    }

    /// One that was not written since `before`.
    fn take(&self, before: Instant) -> Option<Ino> {
        let mut files = lock(&self.0);
        let (ino, _) = files.iter().find(|(_, written)| **written <= before)?;
        let ino = *ino;
        files.remove(&ino);
        Some(ino)
    }
}

/// Looks for files that are quiet, until the tree goes.
pub(super) async fn keep_compacting(tree: Weak<Inner>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(tree) = tree.upgrade().map(Tree) else { return };
        let Some(before) = Instant::now().checked_sub(QUIET) else { continue };
        // The mount may end meanwhile.
        let is_wanted = || Arc::strong_count(&tree.0) > 1;
        while let Some(ino) = tree.0.scattered.take(before).filter(|_| is_wanted()) {
            match tree.compact(ino, is_wanted).await {
                Ok(0) => {}
                Ok(count) => tracing::debug!(%ino, count, "runs of a file were compacted"),
                // It was written again, or is gone; whoever wrote it has noted it.
                Err(Error::Refused(_)) => {}
                Err(error) => tracing::warn!(%ino, %error, "a file was not compacted"),
            }
        }
    }
}

impl Tree {
    /// Stores runs of a file anew that lie in many pieces, as long as that `is_wanted`. Returns how many.
    ///
    /// # Errors
    /// `Refused(RevisionChanged | Stale | ..)`: it is not what it was any more. `Full`, `Unavailable`, `Io`, `Corrupt`.
    pub(super) async fn compact(&self, ino: Ino, is_wanted: impl Fn() -> bool) -> Result<u64, Error> {
        let stat = self.committed(ino).await?;
        let (mut at, mut count) = (0, 0);
        while at < stat.size_bytes && is_wanted() {
            let window = at..(at + WINDOW_BYTES).min(stat.size_bytes);
            let Manifest::Extents(extents) = self.manifest(ino, window.clone()).await? else { return Ok(count) };
            let runs = runs(&extents, &window);
            // A run that the window cuts off, or that is too much, goes on in the next one.
            at = runs.last().filter(|run| run.is_cut_short).map_or(window.end, |run| run.range.end);
            for run in runs.into_iter().filter(Run::is_worth_it) {
                self.store_anew(&stat, run.range).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    pub(super) async fn store_anew(&self, stat: &Stat, range: Range<u64>) -> Result<(), Error> {
        let (store, ino) = (&self.0.store, stat.ino);
        let len_bytes = range.end - range.start;
        store.room.admit(len_bytes)?;
        let Some((content, found)) = self.content(ino, range.clone()).await? else { return Ok(()) };
        if found != range {
            return Err(Refusal::RevisionChanged(ino).into());
        }
        let permit = store.budget.take(store.receive_cost_bytes(Some(len_bytes))).await?;
        let incoming = Incoming { len_bytes: Some(len_bytes), ..Incoming::default() };
        let mut source = Committed(content.read(range.clone()));
        let received = store.receive(&incoming, Digests::continuing(Md5::new()), 0, permit, &mut source).await?;
        let chunks = match received.bytes {
            Held::Chunk(place) => vec![NewChunk { id: received.fresh.ino(), place, short: false }],
            Held::Chunks(chunks) => chunks,
            Held::Inline(_) => return Err(Error::Unavailable("no bytes were stored".into())),
        };
        let content = Content::Pieces(pieces(&[(range.start, range.end)], &chunks));
        let mut write = self.new_write(ino, stat, content).await?;
        write.chunks = chunks;
        let origin = self.origin(false);
        let operation = FileOperation::Compact(write);
        let make = move |bucket| Command::File { bucket, origin: origin.clone(), operation: operation.clone() };
        match store.commit(Some(received.fresh), self.0.bucket.name.clone(), make).await? {
            Outcome::Done => Ok(()),
            outcome => Err(unexpected(&outcome)),
        }
    }
}

/// Bytes without a hole between them.
struct Run {
    range: Range<u64>,
    piece_count: usize,
    /// Whether there may be more of it.
    is_cut_short: bool,
}

impl Run {
    fn is_worth_it(&self) -> bool {
        let len_bytes = self.range.end - self.range.start;
        self.piece_count >= PIECE_COUNT_MIN && len_bytes / self.piece_count as u64 <= PIECE_BYTES_MAX
    }
}

/// The runs that `extents` are, as far as they lie in `window`; up to the first that has too many pieces.
fn runs(extents: &[Extent], window: &Range<u64>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for extent in extents {
        let start = extent.start_bytes.max(window.start);
        let end = (extent.start_bytes + extent.len_bytes).min(window.end);
        match runs.last_mut() {
            Some(last) if last.range.end == start && last.piece_count >= PIECE_COUNT_MAX => {
                last.is_cut_short = true;
                return runs;
            }
            Some(last) if last.range.end == start => {
                last.range.end = end;
                last.piece_count += 1;
            }
            _ => runs.push(Run { range: start..end, piece_count: 1, is_cut_short: false }),
        }
    }
    runs
}

/// Committed bytes, to be stored.
struct Committed(Reader);

impl object::Source for Committed {
    async fn next(&mut self) -> Result<Option<Bytes>, ()> {
        self.0.next().await.transpose().map_err(|error| {
            tracing::warn!(%error, "a file that is to be compacted cannot be read");
        })
    }

    fn promised(&self) -> Vec<Checksum> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Layout, Place};
    use crate::ids::NodeId;

    fn extent(start_bytes: u64, len_bytes: u64) -> Extent {
        let place = Place { layout: Layout::Plain { node: NodeId(1) }, len_bytes, live_bytes: len_bytes };
        Extent { start_bytes, chunk: Ino(1), chunk_start_bytes: 0, len_bytes, place }
    }

    fn ranges(extents: &[Extent], window: Range<u64>) -> Vec<(Range<u64>, usize)> {
        runs(extents, &window).into_iter().map(|run| (run.range, run.piece_count)).collect()
    }

    #[test]
    fn holes_part_runs_and_the_window_clips_them() {
        let extents = [extent(0, 10), extent(10, 10), extent(30, 10), extent(40, 20)];
        assert_eq!(ranges(&extents, 5..50), [(5..20, 2), (30..50, 2)]);
        assert_eq!(ranges(&extents, 0..100), [(0..20, 2), (30..60, 2)]);
        assert_eq!(ranges(&[], 0..100), []);
    }

    #[test]
    fn a_run_of_too_many_pieces_goes_on_later() {
        let extents: Vec<Extent> = (0..5000).map(|nth| extent(nth * 4, 4)).collect();
        let first = runs(&extents, &(0..u64::MAX));
        assert!(first.len() == 1 && first[0].is_cut_short && first[0].is_worth_it());
        assert_eq!(first[0].range, 0..4 * PIECE_COUNT_MAX as u64);
        assert!(!Run { range: 0..32 << 20, piece_count: 32, is_cut_short: false }.is_worth_it());
        assert!(!Run { range: 0..31, piece_count: 31, is_cut_short: false }.is_worth_it());
    }
}
