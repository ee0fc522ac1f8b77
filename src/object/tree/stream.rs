//! Bytes that are written front to back: digested and stored as they come, so that a close has little left to do, and the
//! file has the MD5 that S3 gives such an object.
//!
//! Invariants
//! - A stream has the same bytes as the staging file, which stays the truth: whatever becomes of the stream, a commit can do
//!   without it.
//! - A [`Front`] tells the MD5 of the file's bytes up to its end, as long as the file has the tag that it had then.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::catalog::{Checksum, ETag, Stat};
use crate::ids::Ino;
use crate::object::digest::Digests;
use crate::object::lanes::Md5;
use crate::object::put::Received;
use crate::object::{self, Error, Incoming};
use crate::units::{MIB, PART_MAX_BYTES};

use super::Tree;
use super::commit::{StagedSource, Stored};
use super::open::State;

/// What is written before it is worth a stream.
const STREAM_MIN_BYTES: u64 = MIB;
/// Writes on their way to the stream's task.
const QUEUE_LEN: usize = 2;
/// Who writes no more for so long has no stream: it holds memory.
const IDLE: Duration = Duration::from_secs(5);

/// How far a file is digested from its first byte on.
#[derive(Clone, Debug)]
pub(super) struct Front {
    pub(super) md5: Md5,
    /// Length of the file then.
    pub(super) end: u64,
    /// Its tag then.
    pub(super) etag: ETag,
}

impl Front {
    /// The MD5 of all bytes of a file, if that is known.
    pub(super) fn of(front: Option<&Front>, base: &Stat) -> Option<Md5> {
        match front {
            _ if base.size_bytes == 0 => Some(Md5::new()),
            Some(front) if front.end == base.size_bytes && front.etag == base.etag => Some(front.md5.clone()),
            _ => None,
        }
    }
}

/// Whether what is written since the last commit is streamed.
#[derive(Default)]
pub(super) enum Streaming {
    /// Nothing was written yet.
    #[default]
    New,
    /// Written front to back, from and up to here; not much yet.
    Waiting { start: u64, end: u64 },
    /// Under way.
    Running(Stream),
    /// It would be of no use until the next commit.
    Never,
}

/// A stream under way.
pub(super) struct Stream {
    start: u64,
    end: u64,
    /// None is the end; without it the stream is given up.
    sender: mpsc::Sender<Option<Bytes>>,
    task: JoinHandle<Result<Received, Error>>,
}

impl Streaming {
    /// Ends a stream of just the bytes `start..end`. None: there is none, or it failed.
    pub(super) async fn finish(&mut self, start: u64, end: u64) -> Option<Received> {
        let Streaming::Running(stream) = std::mem::replace(self, Streaming::Never) else { return None };
        if (stream.start, stream.end) != (start, end) {
            return None;
        }
        // A task that has ended has its reason.
        let _ = stream.sender.send(None).await;
        match stream.task.await {
            Ok(Ok(received)) => Some(received),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a stream failed; what was staged is stored");
                None
            }
            Err(_) => None,
        }
    }
}

impl Tree {
    /// Hands on what was staged just now: `data` at `offset`.
    pub(super) async fn stream(&self, ino: Ino, state: &mut State, offset: u64, data: Bytes) -> Result<(), Error> {
        let len = data.len() as u64;
        state.streaming = match std::mem::replace(&mut state.streaming, Streaming::Never) {
            Streaming::New => Streaming::Waiting { start: offset, end: offset + len },
            Streaming::Waiting { start, end } if offset == end && end + len - start < STREAM_MIN_BYTES => {
                Streaming::Waiting { start, end: end + len }
            }
            Streaming::Waiting { start, end } if offset == end => {
                self.begin_stream(ino, state, start, end + len).await?
            }
            Streaming::Running(stream) if offset == stream.end && stream.end + len - stream.start <= PART_MAX_BYTES => {
                match stream.sender.send(Some(data)).await {
                    Ok(()) => Streaming::Running(Stream { end: stream.end + len, ..stream }),
                    Err(_) => Streaming::Never,
                }
            }
            Streaming::Waiting { .. } | Streaming::Running(_) | Streaming::Never => Streaming::Never,
        };
        Ok(())
    }

    /// Begins a stream of what is staged, `start..end`: if the file ends where it begins, and there is memory.
    async fn begin_stream(&self, ino: Ino, state: &State, start: u64, end: u64) -> Result<Streaming, Error> {
        let base = self.committed(ino).await?;
        let base = Stat { size_bytes: state.dirty.kept_of(base.size_bytes), ..base };
        let store = self.0.store.clone();
        let queue_bytes = QUEUE_LEN as u64 * MIB;
        let permit = store.budget.try_take(store.receive_cost_bytes(None) + queue_bytes);
        let (Some(md5), Some(permit), Some(staged)) = (Front::of(state.front.as_ref(), &base), permit, &state.staged)
        else {
            return Ok(Streaming::Never);
        };
        // What is inline goes into the first chunk with what follows it.
        if base.size_bytes != start || start > 0 && start <= store.config.inline_bytes {
            return Ok(Streaming::Never);
        }
        let head: Vec<Stored> = state.dirty.all().into_iter().map(Stored::staged).collect();
        let (sender, queue) = mpsc::channel(QUEUE_LEN);
        let mut source = WhileWritten { head: StagedSource::new(Some(staged.reader()), head), queue };
        let task = tokio::spawn(async move {
            store.receive(&Incoming::default(), Digests::continuing(md5), 0, permit, &mut source).await
        });
        Ok(Streaming::Running(Stream { start, end, sender, task }))
    }
}

/// What was staged before the stream began, then what is written.
struct WhileWritten {
    head: StagedSource,
    queue: mpsc::Receiver<Option<Bytes>>,
}

impl object::Source for WhileWritten {
    async fn next(&mut self) -> Result<Option<Bytes>, ()> {
        if let Some(bytes) = self.head.next().await? {
            return Ok(Some(bytes));
        }
        match timeout(IDLE, self.queue.recv()).await {
            Ok(Some(next)) => Ok(next),
            Ok(None) | Err(_) => Err(()),
        }
    }

    fn promised(&self) -> Vec<Checksum> {
        Vec::new()
    }
}
