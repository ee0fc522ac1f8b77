//! Bytes out: a version and its manifest from one snapshot, then runs of verified bytes, one read ahead.

use std::ops::Range;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::catalog::{self, Bucket, ChecksumAlgorithm, Extent, Layout, Manifest, Place, Refusal, Version, View};
use crate::file::{Chunk, Files};
use crate::ids::Ino;
use crate::units::{MIB, SEGMENT_BYTES};

use super::budget::Permit;
use super::digest::{Digested, Digests, is_body_of};
use super::key::{Found, look_up};
use super::session::ReadGuard;
use super::striped;
use super::{Error, Store, Target, blocking, joined};

/// The longest run of bytes that is read, verified and handed out at once.
const RUN_BYTES: u64 = MIB / 2;

static ZEROS: [u8; SEGMENT_BYTES as usize] = [0; SEGMENT_BYTES as usize];

/// An object opened for reading: its version and its manifest come from one snapshot.
pub struct Object {
    /// The bucket it is in.
    pub bucket: Bucket,
    /// The version.
    pub version: Version,
    content: Content,
}

/// A content's manifest, and what keeps its bytes from being reclaimed.
pub(super) struct Content {
    pub(super) manifest: Manifest,
    pub(super) size_bytes: u64,
    store: Store,
    guard: ReadGuard,
}

impl Object {
    /// Streams `range` (half-open, within the version's length) in runs of a bounded size, every byte verified.
    /// Memory for it is taken from the budget at the first [`Reader::next`].
    pub fn read(self, range: Range<u64>) -> Reader {
        self.content.read(range)
    }
}

impl Content {
    /// `guard`: of the snapshot that `manifest` was taken from.
    pub(super) fn new(manifest: Manifest, size_bytes: u64, store: Store, guard: ReadGuard) -> Content {
        Content { manifest, size_bytes, store, guard }
    }

    /// As [`Object::read`].
    pub(super) fn read(self, range: Range<u64>) -> Reader {
        let Content { manifest, size_bytes, store, guard } = self;
        let refusal = (range.end > size_bytes || range.start > range.end).then_some(Error::InvalidRange { size_bytes });
        let (inline, extents) = match manifest {
            Manifest::Empty => (None, Vec::new()),
            Manifest::Inline(bytes) => (Some(bytes), Vec::new()),
            Manifest::Extents(extents) => (None, extents),
        };
        let nothing_more = range.end..range.end;
        let (ahead, range) = match (refusal, inline) {
            (Some(error), _) => (Ahead::Failed(error), nothing_more),
            (None, Some(bytes)) => (Ahead::inline(&bytes, &range), nothing_more),
            (None, None) => (Ahead::Nothing, range),
        };
        let plan = Plan { extents, index: 0, range };
        Reader { plan, ahead, chunk: None, memory: Memory::NotYet, store, _guard: guard }
    }
}

/// A stream of an object's bytes. `next` gives `None` at the end, and after an error.
pub struct Reader {
    plan: Plan,
    ahead: Ahead,
    chunk: Option<OpenChunk>,
    memory: Memory,
    store: Store,
    _guard: ReadGuard,
}

type OpenChunk = (Ino, Chunk);

/// The run that comes next.
enum Ahead {
    /// Not begun.
    Nothing,
    /// There.
    Ready(Bytes),
    /// Being read by a task, which holds the open chunk if it is a file.
    Reading(JoinHandle<Result<(Option<OpenChunk>, Bytes), Error>>),
    /// There is none, because of this.
    Failed(Error),
    /// There is none.
    End,
}

enum Memory {
    /// To be taken with the first run.
    NotYet,
    /// Given back with the reader.
    Taken(#[expect(dead_code, reason = "held, not looked at")] Permit),
    /// Whoever reads took it for the whole chain.
    Elsewhere,
}

impl Drop for Reader {
    /// What is being read for nobody is not read to its end: its memory is given back now.
    fn drop(&mut self) {
        if let Ahead::Reading(job) = &self.ahead {
            job.abort();
        }
    }
}

impl Ahead {
    fn inline(bytes: &Bytes, range: &Range<u64>) -> Self {
        match bytes.get(range.start as usize..range.end as usize) {
            Some([]) => Ahead::End,
            Some(run) => Ahead::Ready(bytes.slice_ref(run)),
            None => Ahead::Failed(Error::Corrupt(format!("{} bytes where {range:?} was expected", bytes.len()))),
        }
    }
}

impl Reader {
    /// The next run of bytes.
    ///
    /// # Errors
    /// `Corrupt`, `Io`: the rest cannot be read. `Overloaded`: no memory for it. `InvalidRange`.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        if matches!(self.ahead, Ahead::Nothing) {
            if let Err(error) = self.take_memory().await {
                self.ahead = Ahead::End;
                return Some(Err(error));
            }
            self.ahead = self.begin();
        }
        let run = match std::mem::replace(&mut self.ahead, Ahead::End) {
            Ahead::Nothing | Ahead::End => return None,
            Ahead::Ready(run) => Ok(run),
            Ahead::Failed(error) => Err(error),
            Ahead::Reading(job) => self.received(joined(job).await),
        };
        if run.is_ok() {
            self.ahead = self.begin();
        }
        Some(run)
    }

    /// Leaves the budget to the caller, who took enough for the whole chain.
    pub(super) fn with_memory_elsewhere(mut self) -> Self {
        self.memory = Memory::Elsewhere;
        self
    }

    /// Streams all of it through `algorithms` and MD5.
    pub(super) async fn digest(mut self, algorithms: &[ChecksumAlgorithm]) -> Result<Digested, Error> {
        let mut digests = Digests::new(algorithms);
        while let Some(run) = self.next().await {
            let run = run?;
            digests = blocking(move || {
                digests.update(&run);
                digests
            })
            .await?;
        }
        Ok(digests.finish())
    }

    async fn take_memory(&mut self) -> Result<(), Error> {
        if matches!(self.memory, Memory::NotYet) {
            self.memory =
                Memory::Taken(self.store.budget.take(self.store.read_cost_bytes(self.plan.len_bytes())).await?);
        }
        Ok(())
    }

    /// Starts on the run that the plan says.
    fn begin(&mut self) -> Ahead {
        match self.plan.next() {
            None => Ahead::End,
            Some(Run::Zeros { len_bytes }) => Ahead::Ready(Bytes::from_static(&ZEROS[..len_bytes])),
            Some(Run::Chunk { extent, range }) => Ahead::Reading(self.read_run(extent, range)),
        }
    }

    fn read_run(&mut self, extent: usize, range: Range<u64>) -> JoinHandle<Result<(Option<OpenChunk>, Bytes), Error>> {
        let Extent { chunk, place, .. } = &self.plan.extents[extent];
        let chunk = *chunk;
        match &place.layout {
            Layout::Plain { node } => {
                let (node, store) = (*node, self.store.clone());
                let open = self.chunk.take().filter(|(open, _)| *open == chunk);
                match store.chunks.files_of(node).cloned() {
                    Some(files) => tokio::task::spawn_blocking(move || read_file(&files, open, chunk, range)),
                    None => {
                        tokio::spawn(async move { Ok((None, store.chunks.read_remote(node, chunk, range).await?)) })
                    }
                }
            }
            Layout::Rs { .. } => {
                let (store, place) = (self.store.clone(), place.clone());
                tokio::spawn(async move { Ok((None, store.read_striped(chunk, &place, range).await?)) })
            }
        }
    }

    fn received(&mut self, read: Result<Result<(Option<OpenChunk>, Bytes), Error>, Error>) -> Result<Bytes, Error> {
        let (chunk, run) = read??;
        self.chunk = chunk;
        Ok(run)
    }
}

fn read_file(
    files: &Files,
    open: Option<OpenChunk>,
    id: Ino,
    range: Range<u64>,
) -> Result<(Option<OpenChunk>, Bytes), Error> {
    let chunk = match open {
        Some((_, chunk)) => chunk,
        None => files.chunk(id)?,
    };
    let run = chunk.read(range)?;
    Ok((Some((id, chunk)), run))
}

/// What is left to read of a content: pure.
struct Plan {
    extents: Vec<Extent>,
    /// The first extent that does not end before the range.
    index: usize,
    range: Range<u64>,
}

#[derive(PartialEq, Eq, Debug)]
enum Run {
    /// A gap.
    Zeros { len_bytes: usize },
    /// Bytes of an extent's chunk.
    Chunk { extent: usize, range: Range<u64> },
}

impl Plan {
    fn len_bytes(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    fn zeros(&mut self, end: u64) -> Run {
        let len_bytes = (end - self.range.start).min(SEGMENT_BYTES);
        self.range.start += len_bytes;
        Run::Zeros { len_bytes: len_bytes as usize }
    }
}

impl Iterator for Plan {
    type Item = Run;

    /// The next run: within one extent, at most [`RUN_BYTES`], ending between two segments where it can.
    fn next(&mut self) -> Option<Run> {
        let Range { start, end } = self.range;
        if start >= end {
            return None;
        }
        while self.extents.get(self.index).is_some_and(|extent| extent.start_bytes + extent.len_bytes <= start) {
            self.index += 1;
        }
        let Some(extent) = self.extents.get(self.index) else { return Some(self.zeros(end)) };
        if extent.start_bytes > start {
            let gap_end = extent.start_bytes.min(end);
            return Some(self.zeros(gap_end));
        }
        let from = extent.chunk_start_bytes + (start - extent.start_bytes);
        let extent_end = extent.chunk_start_bytes + extent.len_bytes.min(end - extent.start_bytes);
        let to = extent_end.min((from + RUN_BYTES) / SEGMENT_BYTES * SEGMENT_BYTES);
        self.range.start += to - from;
        Some(Run::Chunk { extent: self.index, range: from..to })
    }
}

impl Store {
    /// What reading a range of this length holds in memory: a run handed out, and the next one.
    pub(super) fn read_cost_bytes(&self, len_bytes: u64) -> u64 {
        let run_bytes = len_bytes.min(RUN_BYTES);
        let next_bytes = (len_bytes - run_bytes).min(RUN_BYTES);
        run_bytes + self.chunks.read_cost_bytes(run_bytes.max(next_bytes))
    }

    /// Up to [`striped::READ_MAX_BYTES`] of a chunk, wherever it is.
    pub(super) async fn read_of(&self, chunk: Ino, place: &Place, range: Range<u64>) -> Result<Bytes, Error> {
        match &place.layout {
            Layout::Plain { node } => match self.chunks.files_of(*node).cloned() {
                Some(files) => Ok(blocking(move || read_file(&files, None, chunk, range)).await??.1),
                None => self.chunks.read_remote(*node, chunk, range).await,
            },
            Layout::Rs { .. } => self.read_striped(chunk, place, range).await,
        }
    }

    /// As [`Store::read_of`]; damage that was seen is reported.
    async fn read_striped(&self, chunk: Ino, place: &Place, range: Range<u64>) -> Result<Bytes, Error> {
        let Some(striper) = self.chunks.striper() else {
            return Err(Error::Unavailable("this process reaches no shard nodes".into()));
        };
        let read = striper.read(chunk, place, range).await;
        if !matches!(&read, Ok(read) if !read.damaged) && !matches!(&read, Err(striped::Error::Unavailable(_))) {
            self.suspects.note(chunk);
        }
        Ok(read?.bytes)
    }

    /// A version, opened for reading.
    ///
    /// # Errors
    /// As [`Store::head`].
    pub async fn get(&self, target: &Target) -> Result<Object, Error> {
        let mut guard = self.session.begin_read();
        let wanted = target.clone();
        let (Found { bucket, version }, manifest, applied) = self
            .snapshot(move |view| {
                let found = look_up(view, &wanted)?;
                let manifest = view.manifest(found.version.ino, 0..found.version.size_bytes)?;
                Ok((found, manifest, view.applied_index()?))
            })
            .await?;
        guard.taken(applied);
        if let Manifest::Inline(bytes) = &manifest
            && !is_body_of(bytes, &version)
        {
            return Err(Error::Corrupt(format!("the bytes of node {} in the catalog", version.ino)));
        }
        let content = Content { manifest, size_bytes: version.size_bytes, store: self.clone(), guard };
        Ok(Object { bucket, version, content })
    }

    /// The content of a version that was looked up before.
    ///
    /// # Errors
    /// `Refused(SourceGone)`: it was deleted meanwhile. `Unavailable`.
    pub(super) async fn content(&self, version: &Version) -> Result<Content, Error> {
        let mut guard = self.session.begin_read();
        let (ino, size_bytes) = (version.ino, version.size_bytes);
        let query = move |view: &View<'_>| match view.manifest(ino, 0..size_bytes) {
            // Its node is no more: nothing is inconsistent, it was looked up in an earlier snapshot.
            Err(catalog::Error::Inconsistent(_)) => Err(Refusal::SourceGone.into()),
            manifest => Ok((manifest?, view.applied_index()?)),
        };
        let (manifest, applied) = self.snapshot(query).await?;
        guard.taken(applied);
        Ok(Content { manifest, size_bytes, store: self.clone(), guard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    fn extent(start_bytes: u64, chunk: u64, chunk_start_bytes: u64, len_bytes: u64) -> Extent {
        let place = Place { layout: Layout::Plain { node: NodeId(1) }, len_bytes: 1 << 40, live_bytes: 1 << 40 };
        Extent { start_bytes, chunk: Ino(chunk), chunk_start_bytes, len_bytes, place }
    }

    /// Every planned byte: (chunk or 0, offset in it), found by walking the runs.
    fn bytes_of(plan: Plan) -> Vec<(u64, u64)> {
        let extents = plan.extents.clone();
        plan.flat_map(|run| match run {
            Run::Zeros { len_bytes } => vec![(0, 0); len_bytes],
            Run::Chunk { extent, range } => {
                assert!(!range.is_empty() && range.end - range.start <= RUN_BYTES);
                range.map(|offset| (extents[extent].chunk.0, offset)).collect()
            }
        })
        .collect()
    }

    #[test]
    fn runs_cover_the_range_byte_for_byte() {
        let extents = vec![extent(0, 1, 100, 70_000), extent(70_000, 2, 0, 10), extent(200_000, 1, 5, 1_500_000)];
        let byte_at = |position: u64| {
            let hit = extents.iter().find(|e| (e.start_bytes..e.start_bytes + e.len_bytes).contains(&position));
            hit.map_or((0, 0), |e| (e.chunk.0, e.chunk_start_bytes + position - e.start_bytes))
        };
        for range in [0..1_700_000, 0..0, 69_999..70_011, 70_010..200_001, 65_436..65_437, 1_000_000..1_700_000] {
            let expected: Vec<_> = range.clone().map(byte_at).collect();
            let plan = Plan { extents: extents.clone(), index: 0, range: range.clone() };
            assert!(bytes_of(plan) == expected, "{range:?}");
        }
    }

    #[test]
    fn runs_end_between_segments() {
        let plan = Plan { extents: vec![extent(0, 1, 0, 3 * MIB)], index: 0, range: 1..3 * MIB };
        let ends: Vec<u64> = plan
            .map(|run| match run {
                Run::Chunk { range, .. } => range.end,
                Run::Zeros { .. } => 0,
            })
            .collect();
        assert!(ends.iter().all(|end| end % SEGMENT_BYTES == 0), "{ends:?}");
    }
}
